//! A session description, written. Read RFC 8866 §5 before touching this file.
//!
//! Every text goes through [`Line::text`] or [`Line::word`]: neither ends a line.

use super::parse::NO_FORMAT;
use super::{Attribute, ExtMap, Ice, Level, MediaDescription, SessionDescription};
use crate::wire::candidate::{Candidate, CandidateAddr, Fingerprint, Hex};
use crate::wire::description::{PayloadType, RtcpFb};
use crate::wire::sip::Host;
use std::fmt::Write as _;
use std::net::IpAddr;

impl SessionDescription {
    /// A body of type `application/sdp`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // An audio call's with ICE takes about 1 KiB.
        let mut out = String::with_capacity(1024);
        Line::new(&mut out, "v=0");
        let origin = &self.origin;
        Line::new(&mut out, "o=")
            .word(&origin.username)
            .text(" ")
            .word(&origin.session_id)
            .put(format_args!(" {} ", origin.version))
            .host(&origin.host);
        // RFC 8866 §5.3: not empty.
        Line::new(&mut out, "s=").text(if self.name.is_empty() { "-" } else { &self.name });
        above_time(&mut out, &self.level);
        Line::new(&mut out, "t=").put(format_args!("{} {}", self.timing.0, self.timing.1));
        for group in &self.groups {
            let mut line = Line::new(&mut out, "a=group:").word(&group.semantics);
            for mid in &group.mids {
                line = line.text(" ").word(mid);
            }
        }
        if self.ice_lite {
            Line::new(&mut out, "a=ice-lite");
        }
        level_attributes(&mut out, &self.level);
        for media in &self.media {
            media_lines(&mut out, media);
        }
        out.into_bytes()
    }
}

/// A line, which ends when it is dropped.
struct Line<'a>(&'a mut String);

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.0.push_str("\r\n");
    }
}

impl<'a> Line<'a> {
    /// Begins with what is written as it is.
    fn new(out: &'a mut String, start: &str) -> Self {
        out.push_str(start);
        Self(out)
    }

    /// Text to the end of the line: line ends and NUL become spaces.
    fn text(self, text: &str) -> Self {
        self.0.extend(text.chars().map(|c| if matches!(c, '\r' | '\n' | '\0') { ' ' } else { c }));
        self
    }

    /// Text between spaces: white space, line ends and NUL become `_`, nothing becomes `-`.
    fn word(self, text: &str) -> Self {
        if text.is_empty() {
            self.0.push('-');
        }
        self.0.extend(text.chars().map(|c| if matches!(c, ' ' | '\t' | '\r' | '\n' | '\0') { '_' } else { c }));
        self
    }

    /// Numbers and addresses.
    fn put(self, what: std::fmt::Arguments<'_>) -> Self {
        // Writing to a String does not fail.
        let _ = self.0.write_fmt(what);
        self
    }

    /// `IN IP4 address`
    fn host(self, host: &Host) -> Self {
        match host {
            Host::Ip(ip) => self.ip(*ip),
            Host::Name(name) => self.text("IN IP4 ").word(name),
        }
    }

    fn ip(self, ip: IpAddr) -> Self {
        let family = if ip.is_ipv4() { 4 } else { 6 };
        self.put(format_args!("IN IP{family} {ip}"))
    }
}

/// What stands before `t=` or the attributes.
fn above_time(out: &mut String, level: &Level) {
    if let Some(host) = &level.connection {
        Line::new(out, "c=").host(host);
    }
    for (kind, n) in &level.bandwidth {
        Line::new(out, "b=").word(kind).put(format_args!(":{n}"));
    }
}

fn level_attributes(out: &mut String, level: &Level) {
    ice(out, &level.ice);
    for Fingerprint { hash, value, .. } in &level.fingerprints {
        Line::new(out, "a=fingerprint:").word(hash).put(format_args!(" {}", Hex(value)));
    }
    if let Some(setup) = level.setup {
        Line::new(out, "a=setup:").text(setup.as_str());
    }
    if level.extmap_allow_mixed {
        Line::new(out, "a=extmap-allow-mixed");
    }
    for Attribute { name, value } in &level.other {
        let line = Line::new(out, "a=").word(name);
        if let Some(value) = value {
            line.text(":").text(value);
        }
    }
    if let Some(direction) = level.direction {
        Line::new(out, "a=").text(direction.as_str());
    }
}

fn ice(out: &mut String, ice: &Ice) {
    if let Some(ufrag) = &ice.ufrag {
        Line::new(out, "a=ice-ufrag:").word(ufrag);
    }
    if let Some(pwd) = &ice.pwd {
        Line::new(out, "a=ice-pwd:").word(pwd);
    }
    if !ice.options.is_empty() {
        let mut line = Line::new(out, "a=ice-options:");
        for (i, option) in ice.options.iter().enumerate() {
            line = line.text(if i > 0 { " " } else { "" }).word(option);
        }
    }
    for one in &ice.candidates {
        candidate(out, one);
    }
    if ice.end_of_candidates {
        Line::new(out, "a=end-of-candidates");
    }
}

fn candidate(out: &mut String, candidate: &Candidate) {
    let protocol = candidate.protocol.as_str().to_ascii_uppercase();
    let mut line = Line::new(out, "a=candidate:")
        .word(&candidate.foundation)
        .put(format_args!(" {} {protocol} {} ", candidate.component, candidate.priority));
    line = match &candidate.addr {
        CandidateAddr::Ip(ip) => line.put(format_args!("{ip}")),
        CandidateAddr::Mdns(name) => line.word(name),
    };
    line = line.put(format_args!(" {} typ {}", candidate.port, candidate.kind));
    if let Some((ip, port)) = candidate.related {
        line = line.put(format_args!(" raddr {ip} rport {port}"));
    }
    if let Some(tcptype) = &candidate.tcptype {
        line = line.text(" tcptype ").word(tcptype);
    }
    if candidate.generation != 0 {
        line = line.put(format_args!(" generation {}", candidate.generation));
    }
    if let Some(network) = candidate.network {
        line.put(format_args!(" network-id {network}"));
    }
}

fn media_lines(out: &mut String, media: &MediaDescription) {
    let mut line =
        Line::new(out, "m=").word(&media.media).put(format_args!(" {} ", media.port)).word(media.proto.as_str());
    for payload_type in &media.payload_types {
        line = line.put(format_args!(" {}", payload_type.id));
    }
    for format in &media.formats {
        line = line.text(" ").word(format);
    }
    // RFC 8866 §5.14: one at least.
    if media.payload_types.is_empty() && media.formats.is_empty() {
        line = line.text(" ").text(NO_FORMAT);
    }
    drop(line);
    above_time(out, &media.level);
    if let Some(mid) = &media.mid {
        Line::new(out, "a=mid:").word(mid);
    }
    if let Some((port, ip)) = media.rtcp.at {
        let line = Line::new(out, "a=rtcp:").put(format_args!("{port}"));
        if let Some(ip) = ip {
            line.text(" ").ip(ip);
        }
    }
    for crypto in &media.cryptos {
        let line = Line::new(out, "a=crypto:").word(&crypto.tag).text(" ").word(&crypto.suite);
        let line = line.text(" ").word(&crypto.key_params);
        if let Some(params) = &crypto.session_params {
            line.text(" ").text(params);
        }
    }
    for payload_type in &media.payload_types {
        payload_type_lines(out, payload_type);
    }
    feedback(out, "*", &media.rtcp.feedback, media.rtcp.trr_int_ms);
    for (name, ms) in [("ptime", media.ptime_ms()), ("maxptime", media.maxptime_ms())] {
        if let Some(ms) = ms {
            Line::new(out, "a=").text(name).put(format_args!(":{ms}"));
        }
    }
    for ExtMap { id, direction, uri } in &media.extensions {
        let mut line = Line::new(out, "a=extmap:").put(format_args!("{id}"));
        if let Some(direction) = direction {
            line = line.put(format_args!("/{direction}"));
        }
        line.text(" ").word(uri);
    }
    if media.rtcp.mux {
        Line::new(out, "a=rtcp-mux");
    }
    if media.rtcp.reduced_size {
        Line::new(out, "a=rtcp-rsize");
    }
    sources(out, media);
    if let Some(port) = media.sctp.port {
        Line::new(out, "a=sctp-port:").put(format_args!("{port}"));
    }
    if let Some(bytes) = media.sctp.max_message_size {
        Line::new(out, "a=max-message-size:").put(format_args!("{bytes}"));
    }
    level_attributes(out, &media.level);
}

fn payload_type_lines(out: &mut String, payload_type: &PayloadType) {
    let id = payload_type.id;
    if let Some(hz) = payload_type.clock_rate_hz.filter(|_| !payload_type.name.is_empty()) {
        let line = Line::new(out, "a=rtpmap:").put(format_args!("{id} ")).word(&payload_type.name);
        let line = line.put(format_args!("/{hz}"));
        if payload_type.channels > 1 {
            line.put(format_args!("/{}", payload_type.channels));
        }
    }
    if !payload_type.parameters.is_empty() {
        let mut line = Line::new(out, "a=fmtp:").put(format_args!("{id} "));
        for (i, parameter) in payload_type.parameters.iter().enumerate() {
            line = line.text(if i > 0 { ";" } else { "" }).text(&parameter.name);
            if let Some(value) = &parameter.value {
                line = line.text(if parameter.name.is_empty() { "" } else { "=" }).text(value);
            }
        }
    }
    feedback(out, &id.to_string(), &payload_type.rtcp_fb, payload_type.rtcp_fb_trr_int_ms);
}

fn feedback(out: &mut String, of: &str, all: &[RtcpFb], trr_int_ms: Option<u32>) {
    for fb in all {
        let line = Line::new(out, "a=rtcp-fb:").text(of).text(" ").word(&fb.kind);
        if let Some(subtype) = &fb.subtype {
            line.text(" ").text(subtype);
        }
    }
    if let Some(ms) = trr_int_ms {
        Line::new(out, "a=rtcp-fb:").text(of).put(format_args!(" trr-int {ms}"));
    }
}

fn sources(out: &mut String, media: &MediaDescription) {
    for group in &media.source_groups {
        let mut line = Line::new(out, "a=ssrc-group:").word(&group.semantics);
        for ssrc in &group.sources {
            line = line.put(format_args!(" {ssrc}"));
        }
    }
    for source in &media.sources {
        if source.parameters.is_empty() {
            Line::new(out, "a=ssrc:").put(format_args!("{}", source.ssrc));
        }
        for parameter in &source.parameters {
            let line = Line::new(out, "a=ssrc:").put(format_args!("{} ", source.ssrc)).word(&parameter.name);
            if let Some(value) = &parameter.value {
                line.text(":").text(value);
            }
        }
    }
}

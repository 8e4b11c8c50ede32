//! A session description, read. Read RFC 8866 §9 before touching this file.

use super::{Attribute, BadSdp, Direction, ExtMap, Group, Level, MediaDescription, Origin, Proto, SessionDescription};
use crate::config::sdp as caps;
use crate::wire::candidate::{Candidate, CandidateAddr, CandidateKind, CandidateProtocol, Fingerprint, Setup};
use crate::wire::description::{Crypto, Parameter, PayloadType, RtcpFb, Source, SourceGroup};
use crate::wire::sip::Host;
use crate::wire::xml::Text;

type Result<T, E = BadSdp> = std::result::Result<T, E>;

/// White space of SDP.
const SPACE: [char; 2] = [' ', '\t'];

/// Static payload types that need no `a=rtpmap`, RFC 3551 §6: number, name, clock, channels.
const STATIC: [(u8, &str, u32, u8); 11] = [
    (0, "PCMU", 8000, 1),
    (3, "GSM", 8000, 1),
    (4, "G723", 8000, 1),
    (8, "PCMA", 8000, 1),
    // RFC 3551 §4.5.2: 8000 by mistake, and so it stays.
    (9, "G722", 8000, 1),
    (10, "L16", 44_100, 2),
    (11, "L16", 44_100, 1),
    (13, "CN", 8000, 1),
    (18, "G729", 8000, 1),
    (31, "H261", 90_000, 1),
    (34, "H263", 90_000, 1),
];

fn keep<T>(list: &mut Vec<T>, item: Option<T>) {
    if list.len() < caps::PARTS {
        list.extend(item);
    }
}

impl SessionDescription {
    /// Reads a body of type `application/sdp`.
    ///
    /// # Errors
    /// [`BadSdp`], the first thing that is wrong.
    pub fn parse(body: &[u8]) -> Result<Self> {
        // RFC 8866 §5: UTF-8; names in Latin-1 are seen.
        let text = String::from_utf8_lossy(body);
        let mut reading = Reading::default();
        // RFC 8866 §9: CRLF; §5: a parser should take LF too. A bare CR ends nothing.
        for (i, line) in text.split('\n').enumerate() {
            if i >= caps::LINES {
                return Err(BadSdp::TooLarge);
            }
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.bytes().any(|b| matches!(b, b'\r' | 0)) {
                return Err(BadSdp::Line);
            }
            if !line.is_empty() {
                let (letter, value) = line.split_once('=').ok_or(BadSdp::Line)?;
                reading.line(letter, value.trim_end_matches(SPACE))?;
            }
        }
        reading.finish()
    }
}

#[derive(Default)]
struct Reading {
    version: bool,
    origin: Option<Origin>,
    name: Option<Text>,
    timing: Option<(u64, u64)>,
    level: Level,
    groups: Vec<Group>,
    ice_lite: bool,
    media: Vec<MediaDescription>,
    /// Of the stream that is being read.
    ptime_ms: Option<u32>,
    maxptime_ms: Option<u32>,
}

impl Reading {
    fn level(&mut self) -> &mut Level {
        match self.media.last_mut() {
            Some(media) => &mut media.level,
            None => &mut self.level,
        }
    }

    fn line(&mut self, letter: &str, value: &str) -> Result<()> {
        if !self.version {
            self.version = letter == "v" && value == "0";
            return if self.version { Ok(()) } else { Err(BadSdp::Version) };
        }
        match letter {
            "o" if self.media.is_empty() && self.origin.is_none() => {
                self.origin = Some(origin(value).ok_or(BadSdp::Value("o="))?);
            }
            "s" if self.media.is_empty() => {
                // RFC 8866 §5.3: a space where there is no name.
                self.name.get_or_insert_with(|| if value.is_empty() { "-".into() } else { value.into() });
            }
            "t" if self.media.is_empty() => {
                let times =
                    value.split_once(' ').and_then(|(from, to)| Some((from.parse().ok()?, trim(to).parse().ok()?)));
                self.timing.get_or_insert(times.ok_or(BadSdp::Value("t="))?);
            }
            "c" => {
                let host = connection(value).ok_or(BadSdp::Value("c="))?;
                // Several are layers of multicast (RFC 8866 §5.7), which no call has.
                self.level().connection.get_or_insert(host);
            }
            "b" => {
                let bandwidth = value.split_once(':').filter(|(kind, _)| is_word(kind));
                let bandwidth = bandwidth.and_then(|(kind, n)| Some((kind.into(), trim(n).parse().ok()?)));
                keep(&mut self.level().bandwidth, bandwidth);
            }
            "m" => {
                self.end_of_media();
                if self.media.len() >= caps::MEDIA {
                    return Err(BadSdp::TooLarge);
                }
                self.media.push(media(value).ok_or(BadSdp::Value("m="))?);
            }
            "a" => {
                let (name, value) = match value.split_once(':') {
                    Some((name, value)) => (name, Some(trim(value))),
                    None => (value, None),
                };
                // What has no name says nothing.
                return if is_word(name) { self.attribute(name, value) } else { Ok(()) };
            }
            // Titles, addresses of people, repetitions, time zones, keys (obsolete): no call needs them. A second `o=`,
            // or one of the session's lines below `m=`, is out of its place and counts for nothing either.
            "i" | "u" | "e" | "p" | "r" | "z" | "k" | "o" | "s" | "t" | "v" => {}
            _ => return Err(BadSdp::Line),
        }
        Ok(())
    }

    /// What SDP says once for a stream goes to each of its payload types (XEP-0167 §6).
    fn end_of_media(&mut self) {
        let (ptime, maxptime) = (self.ptime_ms.take(), self.maxptime_ms.take());
        for payload_type in self.media.last_mut().into_iter().flat_map(|m| &mut m.payload_types) {
            payload_type.ptime_ms = ptime;
            payload_type.maxptime_ms = maxptime;
        }
    }

    fn finish(mut self) -> Result<SessionDescription> {
        self.end_of_media();
        if !self.version {
            return Err(BadSdp::Version);
        }
        Ok(SessionDescription {
            origin: self.origin.ok_or(BadSdp::NoOrigin)?,
            name: self.name.unwrap_or_else(|| "-".into()),
            timing: self.timing.unwrap_or_default(),
            level: self.level,
            groups: self.groups,
            ice_lite: self.ice_lite,
            media: self.media,
        })
    }

    fn attribute(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        if level_attribute(self.level(), name, value)? {
            return Ok(());
        }
        match (name, value, self.media.last_mut()) {
            ("group", Some(value), None) => {
                let mut words = words(value);
                let semantics = words.next().map(Text::from);
                let mids = words.take(caps::PARTS).map(Text::from).collect();
                keep(&mut self.groups, semantics.map(|semantics| Group { semantics, mids }));
            }
            ("ice-lite", None, None) => self.ice_lite = true,
            ("ptime", Some(value), Some(_)) => self.ptime_ms = milliseconds(value).or(self.ptime_ms),
            ("maxptime", Some(value), Some(_)) => self.maxptime_ms = milliseconds(value).or(self.maxptime_ms),
            (name, value, media) => {
                if let Some(media) = media
                    && media_attribute(media, name, value)
                {
                    return Ok(());
                }
                let attribute = Attribute { name: name.into(), value: value.map(Text::from) };
                keep(&mut self.level().other, Some(attribute));
            }
        }
        Ok(())
    }
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(SPACE).filter(|w| !w.is_empty())
}

fn trim(text: &str) -> &str {
    text.trim_matches(SPACE)
}

/// The first word, and the rest.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = trim(text);
    let (word, rest) = text.split_once(SPACE).unwrap_or((text, ""));
    (!word.is_empty()).then(|| (word, trim(rest)))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(SPACE)
}

/// Some write `20.0`.
fn milliseconds(value: &str) -> Option<u32> {
    trim(value.split('.').next()?).parse().ok().filter(|ms| *ms > 0)
}

fn origin(value: &str) -> Option<Origin> {
    let mut words = words(value);
    let (username, session_id) = (words.next()?.into(), words.next()?.into());
    let version = words.next()?;
    let digits = version.bytes().all(|b| b.is_ascii_digit());
    let version = digits.then(|| version.parse().unwrap_or(u64::MAX))?;
    let host = address(&mut words)?;
    Some(Origin { username, session_id, version, host })
}

/// `IN IP4 address`
fn address<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Host> {
    if !words.next()?.eq_ignore_ascii_case("IN") {
        return None;
    }
    words.next()?;
    Host::new(words.next()?)
}

fn connection(value: &str) -> Option<Host> {
    // `/127` is the reach of multicast.
    let value = value.split('/').next()?;
    address(&mut words(value))
}

/// Stands where a line names no format, which the grammar forbids and refusals of some peers do.
pub(super) const NO_FORMAT: &str = "-";

fn media(value: &str) -> Option<MediaDescription> {
    let mut words = words(value);
    let media = words.next()?;
    // `/2` counts ports of layered media, of which only the first is used.
    let port = words.next()?.split('/').next()?.parse().ok()?;
    let proto = Proto::parse(words.next()?);
    let mut media = MediaDescription::rtp(media, port, proto, Vec::new());
    if media.proto.is_rtp() {
        for format in words.filter(|f| *f != NO_FORMAT) {
            match format.parse::<u8>() {
                // A number that is repeated has one meaning.
                Ok(id) if media.payload_types.iter().any(|p| p.id == id) => {}
                Ok(id) if id < 128 => media.payload_types.push(unnamed(id)),
                Ok(_) | Err(_) => keep(&mut media.formats, Some(format.into())),
            }
        }
    } else {
        media.formats = words.filter(|f| *f != NO_FORMAT).take(caps::PARTS).map(Text::from).collect();
    }
    Some(media)
}

fn unnamed(id: u8) -> PayloadType {
    let known = STATIC.iter().find(|(number, ..)| *number == id);
    let (name, clock, channels) =
        known.map_or(("", None, 1), |(_, name, clock, channels)| (*name, Some(*clock), *channels));
    PayloadType { id, name: name.into(), clock_rate_hz: clock, channels, ..PayloadType::default() }
}

/// An attribute that may stand for the session or a stream; false if it is another one.
fn level_attribute(level: &mut Level, name: &str, value: Option<&str>) -> Result<bool> {
    match (name, value) {
        (name, None) if Direction::parse(name).is_some() => level.direction = Direction::parse(name),
        // A fingerprint that cannot be read is never passed over: the call would be made with another one.
        ("fingerprint", Some(value)) => {
            let fingerprint = fingerprint(value).ok_or(BadSdp::Value("fingerprint"))?;
            keep(&mut level.fingerprints, Some(fingerprint));
        }
        ("setup", Some(value)) => {
            let setup = Setup::parse(&value.to_ascii_lowercase());
            level.setup = Some(setup.ok_or(BadSdp::Value("setup"))?);
        }
        ("ice-ufrag", Some(value)) if is_word(value) => level.ice.ufrag = Some(value.into()),
        ("ice-pwd", Some(value)) if is_word(value) => level.ice.pwd = Some(value.into()),
        ("ice-options", Some(value)) => {
            words(value).for_each(|option| keep(&mut level.ice.options, Some(option.into())));
        }
        ("candidate", Some(value)) => {
            let candidate = candidate(value).filter(|_| level.ice.candidates.len() < caps::PARTS);
            match candidate {
                Some(candidate) => level.ice.candidates.push(candidate),
                None => level.ice.malformed_candidates += 1,
            }
        }
        ("end-of-candidates", None) => level.ice.end_of_candidates = true,
        ("extmap-allow-mixed", None) => level.extmap_allow_mixed = true,
        _ => return Ok(false),
    }
    Ok(true)
}

/// An attribute of a stream; false if it is another one, or not of its grammar, which is kept as text.
fn media_attribute(media: &mut MediaDescription, name: &str, value: Option<&str>) -> bool {
    match (name, value) {
        ("rtcp-mux", None) => media.rtcp.mux = true,
        ("rtcp-rsize", None) => media.rtcp.reduced_size = true,
        ("mid", Some(value)) if is_word(value) => media.mid = Some(value.into()),
        ("rtpmap", Some(value)) if media.proto.is_rtp() => return rtpmap(media, value).is_some(),
        ("fmtp", Some(value)) if media.proto.is_rtp() => return fmtp(media, value).is_some(),
        ("rtcp-fb", Some(value)) if media.proto.is_rtp() => return feedback(media, value).is_some(),
        ("rtcp", Some(value)) => {
            let mut words = words(value);
            let Some(port) = words.next().and_then(|p| p.parse().ok()) else { return false };
            let ip = match address(&mut words) {
                Some(Host::Ip(ip)) => Some(ip),
                Some(Host::Name(_)) | None => None,
            };
            media.rtcp.at = Some((port, ip));
        }
        // A line that lacks a part is no offer (RFC 4568 §7.1); the others stand.
        ("crypto", Some(value)) => keep(&mut media.cryptos, crypto(value)),
        ("extmap", Some(value)) => keep(&mut media.extensions, extmap(value)),
        ("ssrc", Some(value)) => source(media, value),
        ("ssrc-group", Some(value)) => {
            let mut words = words(value);
            let semantics = words.next().map(Text::from);
            let sources = words.take(caps::PARTS).filter_map(|w| w.parse().ok()).collect();
            keep(&mut media.source_groups, semantics.map(|semantics| SourceGroup { semantics, sources }));
        }
        ("sctp-port", Some(value)) => match value.parse() {
            Ok(port) => media.sctp.port = Some(port),
            Err(_) => return false,
        },
        ("max-message-size", Some(value)) => match value.parse() {
            Ok(size) => media.sctp.max_message_size = Some(size),
            Err(_) => return false,
        },
        _ => return false,
    }
    true
}

/// The payload type that a value begins with, and the rest of the value.
fn of_payload_type<'m, 'v>(media: &'m mut MediaDescription, value: &'v str) -> Option<(&'m mut PayloadType, &'v str)> {
    let (id, rest) = word(value)?;
    let id: u8 = id.parse().ok()?;
    Some((media.payload_types.iter_mut().find(|p| p.id == id)?, rest))
}

fn rtpmap(media: &mut MediaDescription, value: &str) -> Option<()> {
    let (payload_type, encoding) = of_payload_type(media, value)?;
    let mut parts = encoding.split('/');
    let name = parts.next().filter(|name| is_word(name))?;
    let clock = trim(parts.next()?).parse().ok()?;
    payload_type.channels = parts.next().and_then(|c| trim(c).parse().ok()).unwrap_or(1).max(1);
    payload_type.name = name.into();
    payload_type.clock_rate_hz = Some(clock);
    Some(())
}

fn fmtp(media: &mut MediaDescription, value: &str) -> Option<()> {
    let (payload_type, parameters) = of_payload_type(media, value)?;
    for parameter in parameters.split(';').map(trim).filter(|p| !p.is_empty()) {
        let parameter = match parameter.split_once('=') {
            Some((name, value)) if !trim(name).is_empty() => {
                Parameter { name: trim(name).into(), value: Some(trim(value).into()) }
            }
            // `0-15` of telephone-event.
            Some(_) | None => Parameter { name: Text::default(), value: Some(parameter.into()) },
        };
        keep(&mut payload_type.parameters, Some(parameter));
    }
    Some(())
}

fn feedback(media: &mut MediaDescription, value: &str) -> Option<()> {
    let (of, rest) = word(value)?;
    let (list, trr_int) = match of {
        "*" => (&mut media.rtcp.feedback, &mut media.rtcp.trr_int_ms),
        _ => {
            let (payload_type, _) = of_payload_type(media, value)?;
            (&mut payload_type.rtcp_fb, &mut payload_type.rtcp_fb_trr_int_ms)
        }
    };
    match word(rest)? {
        ("trr-int", ms) => *trr_int = Some(ms.parse().ok()?),
        (kind, subtype) => {
            let subtype = Some(subtype).filter(|s| !s.is_empty()).map(Text::from);
            keep(list, Some(RtcpFb { kind: kind.into(), subtype }));
        }
    }
    Some(())
}

/// `tag suite key-params [session-params]`, RFC 4568 §4.
fn crypto(value: &str) -> Option<Crypto> {
    let (tag, rest) = word(value)?;
    let (suite, rest) = word(rest)?;
    let (key_params, rest) = word(rest)?;
    let session_params = Some(rest).filter(|s| !s.is_empty()).map(Text::from);
    Some(Crypto { tag: tag.into(), suite: suite.into(), key_params: key_params.into(), session_params })
}

fn extmap(value: &str) -> Option<ExtMap> {
    let mut words = words(value);
    let first = words.next()?;
    let (id, direction) = match first.split_once('/') {
        Some((id, direction)) => (id, Some(Direction::parse(direction)?)),
        None => (first, None),
    };
    Some(ExtMap { id: id.parse().ok()?, direction, uri: words.next()?.into() })
}

fn source(media: &mut MediaDescription, value: &str) {
    let Some((id, attribute)) = word(value) else { return };
    let Ok(ssrc) = id.parse() else { return };
    if !media.sources.iter().any(|s| s.ssrc == ssrc) {
        keep(&mut media.sources, Some(Source { ssrc, parameters: Vec::new() }));
    }
    let Some(source) = media.sources.iter_mut().find(|s| s.ssrc == ssrc) else { return };
    let (name, value) = match attribute.split_once(':') {
        Some((name, value)) => (name, Some(value.into())),
        None => (attribute, None),
    };
    if is_word(name) {
        keep(&mut source.parameters, Some(Parameter { name: name.into(), value }));
    }
}

/// `sha-256 AB:CD:…`, RFC 8122 §5.
fn fingerprint(value: &str) -> Option<Fingerprint> {
    let (hash, digest) = word(value)?;
    let byte = |hex: &str| {
        let fine = hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        fine.then(|| u8::from_str_radix(hex, 16).ok())?
    };
    // SHA-512 has 64 bytes.
    let value: Vec<u8> = digest.split(':').take(65).map(byte).collect::<Option<_>>()?;
    (value.len() <= 64).then(|| Fingerprint { hash: hash.to_ascii_lowercase().into(), value, setup: None })
}

/// RFC 8839 §5.1. What cannot be checked is not a candidate, as with Jingle's.
fn candidate(value: &str) -> Option<Candidate> {
    let mut words = words(value);
    let foundation = words.next()?.into();
    let component = words.next()?.parse().ok().filter(|c| *c != 0)?;
    let protocol = CandidateProtocol::parse(&words.next()?.to_ascii_lowercase())?;
    let priority = words.next()?.parse().ok().filter(|p| *p != 0)?;
    let addr = CandidateAddr::read(words.next()?)?;
    let port = words.next()?.parse().ok().filter(|p| *p != 0 || protocol == CandidateProtocol::Tcp)?;
    if words.next()? != "typ" {
        return None;
    }
    let kind = CandidateKind::parse(words.next()?)?;
    let (mut generation, mut network, mut tcptype) = (0, None, None);
    let (mut raddr, mut rport) = (None, 0);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        match name {
            "raddr" => raddr = value.parse().ok(),
            "rport" => rport = value.parse().unwrap_or(0),
            "generation" => generation = value.parse().ok()?,
            "network-id" => network = value.parse().ok(),
            "tcptype" if protocol == CandidateProtocol::Tcp => tcptype = Some(value.into()),
            _ => {}
        }
    }
    let related = raddr.map(|ip| (ip, rport));
    let id = None;
    Some(Candidate {
        component,
        foundation,
        generation,
        id,
        addr,
        port,
        priority,
        protocol,
        tcptype,
        kind,
        related,
        network,
    })
}

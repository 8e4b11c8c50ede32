//! What is exchanged: RTP (XEP-0167 1.2.3, 0293 1.0.2, 0294 1.1.2, 0339 1.0.1) and files (XEP-0234 0.19.1).
//! Read XEP-0167 §4 and §8 before touching this file.

use super::file::{FileVerb, read_file};
use super::jingle::{Creator, Senders, read_creator, read_senders};
use super::ns;
use super::xml::{Reader, Result, Text, Writer};
use crate::config::wire;
use crate::fault::{Malformed, names};

pub use super::file::{FileDescription, FileErrorCondition, FileHash, FileRange, HashAlgo};

/// The application half of a content.
#[derive(Debug, Clone, PartialEq)]
pub enum Description {
    /// XEP-0167
    Rtp(Box<RtpDescription>),
    /// XEP-0234
    File(Box<FileDescription>),
    /// A namespace that is not known here.
    Unknown {
        /// Its namespace.
        ns: String,
    },
}

impl Description {
    /// Reads the `<description/>` that `r` has just entered; its namespace decides.
    ///
    /// # Errors
    /// [`Malformed`] for what cannot be resolved.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self::read_with_verb(r)?.0)
    }

    pub(super) fn read_with_verb(r: &mut Reader<'_>) -> Result<(Self, Option<FileVerb>)> {
        match r.tag().ns() {
            ns::RTP => Ok((Self::Rtp(Box::new(RtpDescription::read(r)?)), None)),
            // J234-20: :4 and :3 are read, never written.
            ns::FILE | ns::FILE_4 | ns::FILE_3 => {
                let (file, verb) = read_file(r)?;
                Ok((Self::File(Box::new(file)), verb))
            }
            other => Ok((Self::Unknown { ns: other.to_owned() }, None)),
        }
    }

    /// Writes the `<description/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Rtp(rtp) => rtp.write(w),
            Self::File(file) => {
                w.start_ns("description", ns::FILE);
                file.write(w);
                w.end("description");
            }
            Self::Unknown { ns } => {
                w.start_ns("description", ns).end("description");
            }
        }
    }
}

/// True for children of a description that a peer has put into the description's own or no namespace (complaint 16).
fn near(r: &Reader<'_>, ns: &str) -> bool {
    let found = r.tag().ns();
    found == ns || found == ns::RTP || found.is_empty()
}

/// A number of the element just entered; blank is absent.
pub(super) fn number<T: std::str::FromStr>(
    r: &Reader<'_>,
    element: &'static str,
    what: &'static str,
) -> Result<Option<T>> {
    match r.attr(what).map(str::trim) {
        None | Some("") => Ok(None),
        Some(v) => v.parse().map(Some).map_err(|_| Malformed::BadValue { element, what }),
    }
}

fn text_of(r: &Reader<'_>, name: &str) -> Option<Text> {
    r.attr(name).filter(|v| !v.is_empty()).map(Text::from)
}

pub(super) fn keep<T>(list: &mut Vec<T>, item: Option<T>) {
    if list.len() < wire::PARTS {
        list.extend(item);
    }
}

/// XEP-0167 description.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RtpDescription {
    /// `audio`, `video`, …
    pub media: Text,
    /// SSRC of the sender (attribute).
    pub ssrc: Option<u32>,
    /// In preference order (J167-07).
    pub payload_types: Vec<PayloadType>,
    /// `<bandwidth type/>` and kilobits per second.
    pub bandwidth: Vec<(Text, Text)>,
    /// RTP and RTCP share a port, RFC 5761.
    pub rtcp_mux: bool,
    /// RFC 5506.
    pub rtcp_reduced_size: bool,
    /// SDES keys, XEP-0167 §7.
    pub encryption: Option<Encryption>,
    /// For all payload types, XEP-0293.
    pub rtcp_fb: Vec<RtcpFb>,
    /// `<rtcp-fb-trr-int/>` in milliseconds.
    pub rtcp_fb_trr_int_ms: Option<u32>,
    /// XEP-0294.
    pub header_extensions: Vec<HeaderExtension>,
    /// One-byte and two-byte header extensions may be mixed.
    pub extmap_allow_mixed: bool,
    /// XEP-0339.
    pub sources: Vec<Source>,
    /// XEP-0339.
    pub source_groups: Vec<SourceGroup>,
}

impl RtpDescription {
    /// Reads the `<description/>` that `r` has just entered. Unknown children are passed over (complaint 25).
    ///
    /// # Errors
    /// [`Malformed`] without `media` (J167-05) or for a payload type that J167-08 forbids.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let media = r.need("description", "media")?;
        if media.is_empty() {
            return Err(Malformed::BadValue { element: "description", what: "media" });
        }
        let mut rtp = Self {
            media: media.into(),
            // A hint only: text before 0167 1.2.3.
            ssrc: r.attr("ssrc").and_then(|v| v.trim().parse().ok()),
            ..Self::default()
        };
        r.children(|r| rtp.read_child(r))?;
        Ok(rtp)
    }

    fn read_child(&mut self, r: &mut Reader<'_>) -> Result<()> {
        match r.tag().name() {
            "payload-type" if near(r, ns::RTP) => {
                let payload_type = PayloadType::read(r)?;
                if self.payload_types.len() < wire::PAYLOAD_TYPES {
                    self.payload_types.push(payload_type);
                }
            }
            "bandwidth" if near(r, ns::RTP) => {
                if let Some(kind) = text_of(r, "type") {
                    let value = r.text()?.trim().into();
                    keep(&mut self.bandwidth, Some((kind, value)));
                }
            }
            "rtcp-mux" if near(r, ns::RTP) => self.rtcp_mux = true,
            "rtcp-reduced-size" if near(r, ns::RTP) => self.rtcp_reduced_size = true,
            "encryption" if near(r, ns::RTP) && self.encryption.is_none() => {
                self.encryption = Some(Encryption::read(r)?);
            }
            "rtcp-fb" if near(r, ns::RTP_RTCP_FB) => keep(&mut self.rtcp_fb, RtcpFb::read(r)),
            "rtcp-fb-trr-int" if near(r, ns::RTP_RTCP_FB) => {
                self.rtcp_fb_trr_int_ms = number(r, "rtcp-fb-trr-int", "value")?;
            }
            "rtp-hdrext" if near(r, ns::RTP_HDREXT) => {
                keep(&mut self.header_extensions, HeaderExtension::read(r)?);
            }
            "extmap-allow-mixed" if near(r, ns::RTP_HDREXT) => self.extmap_allow_mixed = true,
            "source" if near(r, ns::RTP_SSMA) => {
                let source = Source::read(r)?;
                keep(&mut self.sources, source);
            }
            "ssrc-group" if near(r, ns::RTP_SSMA) => {
                let group = SourceGroup::read(r)?;
                keep(&mut self.source_groups, group);
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes the `<description/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("description", ns::RTP).attr("media", &self.media);
        if let Some(ssrc) = self.ssrc {
            w.attr_number("ssrc", ssrc);
        }
        for payload_type in &self.payload_types {
            payload_type.write(w);
        }
        for (kind, value) in &self.bandwidth {
            w.start("bandwidth").attr("type", kind).text(value).end("bandwidth");
        }
        if let Some(encryption) = &self.encryption {
            encryption.write(w);
        }
        if self.rtcp_mux {
            w.start("rtcp-mux").end("rtcp-mux");
        }
        if self.rtcp_reduced_size {
            w.start("rtcp-reduced-size").end("rtcp-reduced-size");
        }
        write_feedback(&self.rtcp_fb, self.rtcp_fb_trr_int_ms, w);
        for extension in &self.header_extensions {
            extension.write(w);
        }
        if self.extmap_allow_mixed {
            w.start_ns("extmap-allow-mixed", ns::RTP_HDREXT).end("extmap-allow-mixed");
        }
        for group in &self.source_groups {
            group.write(w);
        }
        for source in &self.sources {
            source.write(w);
        }
        w.end("description");
    }
}

fn write_feedback(all: &[RtcpFb], trr_int_ms: Option<u32>, w: &mut Writer<'_>) {
    for fb in all {
        w.start_ns("rtcp-fb", ns::RTP_RTCP_FB).attr("type", &fb.kind).attr_opt("subtype", fb.subtype.as_deref());
        w.end("rtcp-fb");
    }
    if let Some(ms) = trr_int_ms {
        w.start_ns("rtcp-fb-trr-int", ns::RTP_RTCP_FB).attr_number("value", ms).end("rtcp-fb-trr-int");
    }
}

/// One codec of a description, RFC 3551.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PayloadType {
    /// 0 to 127.
    pub id: u8,
    /// Empty is allowed for static types below 96.
    pub name: Text,
    /// RTP clock.
    pub clock_rate_hz: Option<u32>,
    /// 1 if absent (J167-08).
    pub channels: u8,
    /// Milliseconds a packet.
    pub ptime_ms: Option<u32>,
    /// Most milliseconds a packet.
    pub maxptime_ms: Option<u32>,
    /// fmtp parameters; a bare token has an empty name.
    pub parameters: Vec<Parameter>,
    /// XEP-0293.
    pub rtcp_fb: Vec<RtcpFb>,
    /// Milliseconds, XEP-0293.
    pub rtcp_fb_trr_int_ms: Option<u32>,
}

impl PayloadType {
    /// Reads the `<payload-type/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] without an id of 0 to 127, or without a name from 96 on (J167-08).
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        const E: &str = "payload-type";
        let id = number(r, E, "id")?.ok_or(Malformed::MissingAttribute { element: E, attribute: "id" })?;
        let name = r.attr("name").unwrap_or("");
        if id > 127 {
            return Err(Malformed::BadValue { element: E, what: "id" });
        }
        if id >= 96 && name.is_empty() {
            return Err(Malformed::MissingAttribute { element: E, attribute: "name" });
        }
        let mut pt = Self {
            id,
            name: name.into(),
            clock_rate_hz: number(r, E, "clockrate")?,
            channels: number(r, E, "channels")?.unwrap_or(1).max(1),
            ptime_ms: number(r, E, "ptime")?,
            maxptime_ms: number(r, E, "maxptime")?,
            ..Self::default()
        };
        r.children(|r| {
            match r.tag().name() {
                // Seen in other namespaces (complaint 16); the place leaves no doubt.
                "parameter" => keep(&mut pt.parameters, Some(Parameter::read(r))),
                "rtcp-fb" if near(r, ns::RTP_RTCP_FB) => keep(&mut pt.rtcp_fb, RtcpFb::read(r)),
                "rtcp-fb-trr-int" if near(r, ns::RTP_RTCP_FB) => {
                    pt.rtcp_fb_trr_int_ms = number(r, "rtcp-fb-trr-int", "value")?;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(pt)
    }

    /// Writes the `<payload-type/>` in the namespace of its description.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("payload-type").attr_number("id", self.id);
        if !self.name.is_empty() {
            w.attr("name", &self.name);
        }
        if let Some(hz) = self.clock_rate_hz {
            w.attr_number("clockrate", hz);
        }
        if self.channels > 1 {
            w.attr_number("channels", self.channels);
        }
        if let Some(ms) = self.ptime_ms {
            w.attr_number("ptime", ms);
        }
        if let Some(ms) = self.maxptime_ms {
            w.attr_number("maxptime", ms);
        }
        for parameter in &self.parameters {
            parameter.write(w);
        }
        write_feedback(&self.rtcp_fb, self.rtcp_fb_trr_int_ms, w);
        w.end("payload-type");
    }
}

/// `<parameter/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Case-sensitive.
    pub name: Text,
    /// Absent from some peers (facts §7).
    pub value: Option<Text>,
}

impl Parameter {
    fn read(r: &Reader<'_>) -> Self {
        Self { name: r.attr("name").unwrap_or("").into(), value: r.attr("value").map(Text::from) }
    }

    fn write(&self, w: &mut Writer<'_>) {
        // J339-01: no value means no attribute.
        w.start("parameter").attr("name", &self.name).attr_opt("value", self.value.as_deref()).end("parameter");
    }
}

/// `<rtcp-fb/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtcpFb {
    /// `nack`, `ccm`, …
    pub kind: Text,
    /// `pli`, `fir`, …
    pub subtype: Option<Text>,
}

impl RtcpFb {
    fn read(r: &Reader<'_>) -> Option<Self> {
        Some(Self { kind: text_of(r, "type")?, subtype: text_of(r, "subtype") })
    }
}

/// `<rtp-hdrext/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderExtension {
    /// 1 to 14, 1 to 255, or 4096 to 4351 while negotiating (J294-02).
    pub id: u16,
    /// Which extension.
    pub uri: Text,
    /// `Both` if absent.
    pub senders: Senders,
}

impl HeaderExtension {
    /// `None` without id or URI: an optional extension is lost, the content is not.
    fn read(r: &Reader<'_>) -> Result<Option<Self>> {
        let id = r.attr("id").and_then(|v| v.trim().parse().ok());
        let senders = read_senders(r, "rtp-hdrext")?.unwrap_or(Senders::Both);
        Ok(id.zip(text_of(r, "uri")).map(|(id, uri)| Self { id, uri, senders }))
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("rtp-hdrext", ns::RTP_HDREXT).attr_number("id", self.id).attr("uri", &self.uri);
        if self.senders != Senders::Both {
            w.attr("senders", self.senders.as_str());
        }
        w.end("rtp-hdrext");
    }
}

/// `<source/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// `cname`, `msid`, …
    pub parameters: Vec<Parameter>,
}

impl Source {
    fn read(r: &mut Reader<'_>) -> Result<Option<Self>> {
        let ssrc = r.attr("ssrc").and_then(|v| v.trim().parse().ok());
        let mut parameters = Vec::new();
        r.children(|r| {
            if r.tag().name() == "parameter" {
                keep(&mut parameters, Some(Parameter::read(r)));
            }
            Ok(())
        })?;
        Ok(ssrc.map(|ssrc| Self { ssrc, parameters }))
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("source", ns::RTP_SSMA).attr_number("ssrc", self.ssrc);
        for parameter in &self.parameters {
            parameter.write(w);
        }
        w.end("source");
    }
}

/// `<ssrc-group/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceGroup {
    /// `FID`, `FEC-FR`, …
    pub semantics: Text,
    /// In order.
    pub sources: Vec<u32>,
}

impl SourceGroup {
    fn read(r: &mut Reader<'_>) -> Result<Option<Self>> {
        let semantics = text_of(r, "semantics");
        let mut sources = Vec::new();
        r.children(|r| {
            if r.tag().name() == "source" {
                keep(&mut sources, r.attr("ssrc").and_then(|v| v.trim().parse().ok()));
            }
            Ok(())
        })?;
        Ok(semantics.map(|semantics| Self { semantics, sources }))
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("ssrc-group", ns::RTP_SSMA).attr("semantics", &self.semantics);
        for ssrc in &self.sources {
            w.start("source").attr_number("ssrc", ssrc).end("source");
        }
        w.end("ssrc-group");
    }
}

/// `<encryption/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// The session must be encrypted.
    pub required: bool,
    /// In preference order.
    pub cryptos: Vec<Crypto>,
}

impl Encryption {
    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut encryption = Self { required: matches!(r.attr("required"), Some("true" | "1")), cryptos: Vec::new() };
        r.children(|r| {
            if r.tag().name() == "crypto" {
                // A line that lacks a part is no offer (RFC 4568 §7.1); the others stand.
                let parts = text_of(r, "tag").zip(text_of(r, "crypto-suite")).zip(text_of(r, "key-params"));
                let session_params = text_of(r, "session-params");
                keep(
                    &mut encryption.cryptos,
                    parts.map(|((tag, suite), key_params)| Crypto { tag, suite, key_params, session_params }),
                );
            }
            Ok(())
        })?;
        Ok(encryption)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start("encryption").attr_opt("required", self.required.then_some("true"));
        for crypto in &self.cryptos {
            w.start("crypto").attr("crypto-suite", &crypto.suite).attr("key-params", &crypto.key_params);
            w.attr_opt("session-params", crypto.session_params.as_deref()).attr("tag", &crypto.tag).end("crypto");
        }
        w.end("encryption");
    }
}

/// `<crypto/>`, RFC 4568. `Debug` hides the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Number that pairs offer and answer.
    pub tag: Text,
    /// `AES_CM_128_HMAC_SHA1_80`, …
    pub suite: Text,
    /// `inline:…`, secret.
    pub key_params: Text,
    /// Rarely present.
    pub session_params: Option<Text>,
}

impl std::fmt::Debug for Crypto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crypto").field("tag", &self.tag).field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// Payload of a session-info.
#[derive(Debug, Clone, PartialEq)]
pub enum Info {
    /// Ends hold and mute of everything (J167-23).
    Active,
    /// The peer does not listen.
    Hold,
    /// The peer listens again.
    Unhold,
    /// The peer does not send.
    Mute(Option<(Creator, String)>),
    /// The peer sends again.
    Unmute(Option<(Creator, String)>),
    /// The peer's user is being alerted.
    Ringing,
    /// XEP-0234 §8.1.
    Received(Creator, String),
    /// XEP-0234 §8.2.
    Checksum(Creator, String, Box<FileDescription>),
    /// XEP-0181 digit.
    Dtmf(char),
    /// Answered with unsupported-info (J166-21).
    Unknown {
        /// Namespace of the payload.
        ns: String,
        /// Local name of the payload.
        name: String,
    },
}

/// XEP-0166 example 30 has the words in another order; the meaning is one.
const RTP_INFO_SLIP: &str = "urn:xmpp:jingle:apps:rtp:1:info";

impl Info {
    /// Reads the child of a session-info that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] for a payload that is known but lacks a required part.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let name = r.tag().name();
        let known = match r.tag().ns() {
            // J167-19
            ns::RTP_INFO | RTP_INFO_SLIP => match name {
                "active" => Some(Self::Active),
                "hold" => Some(Self::Hold),
                "unhold" => Some(Self::Unhold),
                "mute" => Some(Self::Mute(read_which(r)?)),
                "unmute" => Some(Self::Unmute(read_which(r)?)),
                "ringing" => Some(Self::Ringing),
                _ => None,
            },
            ns::FILE | ns::FILE_4 | ns::FILE_3 => match name {
                // J234-13
                "received" => {
                    Some(Self::Received(read_creator(r, "received")?, r.need("received", "name")?.to_owned()))
                }
                // J234-14
                "checksum" => {
                    let creator = read_creator(r, "checksum")?;
                    let content = r.need("checksum", "name")?.to_owned();
                    Some(Self::Checksum(creator, content, Box::new(read_file(r)?.0)))
                }
                _ => None,
            },
            ns::DTMF if name == "dtmf" => Some(Self::Dtmf(read_digit(r)?)),
            _ => None,
        };
        Ok(known.unwrap_or_else(|| Self::Unknown { ns: r.tag().ns().to_owned(), name: name.to_owned() }))
    }

    /// Writes the payload with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Active => w.start_ns("active", ns::RTP_INFO).end("active"),
            Self::Hold => w.start_ns("hold", ns::RTP_INFO).end("hold"),
            Self::Unhold => w.start_ns("unhold", ns::RTP_INFO).end("unhold"),
            Self::Mute(which) => write_which("mute", which.as_ref(), w),
            Self::Unmute(which) => write_which("unmute", which.as_ref(), w),
            Self::Ringing => w.start_ns("ringing", ns::RTP_INFO).end("ringing"),
            Self::Received(creator, name) => {
                w.start_ns("received", ns::FILE).attr("creator", creator.as_str()).attr("name", name).end("received")
            }
            Self::Checksum(creator, name, file) => {
                w.start_ns("checksum", ns::FILE).attr("creator", creator.as_str()).attr("name", name);
                file.write(w);
                w.end("checksum")
            }
            Self::Dtmf(digit) => w.start_ns("dtmf", ns::DTMF).attr_number("code", digit).end("dtmf"),
            Self::Unknown { ns, name } => w.foreign(ns, name),
        };
    }
}

/// Which content a mute is about: all without a name (J167-24).
fn read_which(r: &Reader<'_>) -> Result<Option<(Creator, String)>> {
    let creator = read_creator(r, "mute")?;
    Ok(r.attr("name").map(|name| (creator, name.to_owned())))
}

fn write_which<'w, 'b>(
    element: &'static str,
    which: Option<&(Creator, String)>,
    w: &'w mut Writer<'b>,
) -> &'w mut Writer<'b> {
    w.start_ns(element, ns::RTP_INFO);
    if let Some((creator, name)) = which {
        w.attr("creator", creator.as_str()).attr("name", name);
    }
    w.end(element)
}

fn read_digit(r: &Reader<'_>) -> Result<char> {
    let mut code = r.need("dtmf", "code")?.trim().chars();
    match (code.next().map(|c| c.to_ascii_uppercase()), code.next()) {
        (Some(digit @ ('0'..='9' | '*' | '#' | 'A'..='D')), None) => Ok(digit),
        _ => Err(Malformed::BadValue { element: "dtmf", what: "code" }),
    }
}

names! {
    /// Details of a security-error, XEP-0167 §7.
    pub enum RtpErrorCondition { CryptoRequired = "crypto-required", InvalidCrypto = "invalid-crypto" }
}

impl RtpErrorCondition {
    /// As the detail of a [`super::jingle::Reason`].
    #[must_use]
    pub fn detail(self) -> (String, String) {
        (ns::RTP_ERRORS.to_owned(), self.as_str().to_owned())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::super::candidate::tests::{text, token, unknown_ns};
    use super::*;
    use crate::config::XmlLimits;
    use proptest::prelude::*;
    use proptest::{collection::vec, option, sample::select};

    fn parameter() -> impl Strategy<Value = Parameter> {
        (option::of(text()), option::of(text()))
            .prop_map(|(name, value)| Parameter { name: name.unwrap_or_default().into(), value: value.map(Text::from) })
    }

    fn rtcp_fb() -> impl Strategy<Value = RtcpFb> {
        (text(), option::of(text()))
            .prop_map(|(kind, subtype)| RtcpFb { kind: kind.into(), subtype: subtype.map(Text::from) })
    }

    fn payload_type() -> impl Strategy<Value = PayloadType> {
        (
            (0..=127u8, text(), option::of(any::<u32>()), 1..=255u8),
            (option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u32>())),
            vec(parameter(), 0..3),
            vec(rtcp_fb(), 0..3),
            any::<bool>(),
        )
            .prop_map(|(a, b, parameters, rtcp_fb, named)| PayloadType {
                id: a.0,
                name: if named || a.0 >= 96 { a.1.into() } else { Text::default() },
                clock_rate_hz: a.2,
                channels: a.3,
                ptime_ms: b.0,
                maxptime_ms: b.1,
                parameters,
                rtcp_fb,
                rtcp_fb_trr_int_ms: b.2,
            })
    }

    pub(crate) fn rtp() -> impl Strategy<Value = RtpDescription> {
        let crypto =
            (text(), text(), text(), option::of(text())).prop_map(|(tag, suite, key_params, session_params)| Crypto {
                tag: tag.into(),
                suite: suite.into(),
                key_params: key_params.into(),
                session_params: session_params.map(Text::from),
            });
        let encryption =
            (any::<bool>(), vec(crypto, 0..3)).prop_map(|(required, cryptos)| Encryption { required, cryptos });
        let extension = (any::<u16>(), text(), select(Senders::ALL)).prop_map(|(id, uri, senders)| HeaderExtension {
            id,
            uri: uri.into(),
            senders,
        });
        let source = (any::<u32>(), vec(parameter(), 0..3)).prop_map(|(ssrc, parameters)| Source { ssrc, parameters });
        let group = (text(), vec(any::<u32>(), 0..3))
            .prop_map(|(semantics, sources)| SourceGroup { semantics: semantics.into(), sources });
        (
            (text(), option::of(any::<u32>()), vec(payload_type(), 0..4), vec((text(), token()), 0..2)),
            (any::<[bool; 3]>(), option::of(encryption), vec(rtcp_fb(), 0..3), option::of(any::<u32>())),
            (vec(extension, 0..3), vec(source, 0..3), vec(group, 0..3)),
        )
            .prop_map(|(a, b, c)| RtpDescription {
                media: a.0.into(),
                ssrc: a.1,
                payload_types: a.2,
                bandwidth: a.3.into_iter().map(|(kind, value)| (kind.into(), value.into())).collect(),
                rtcp_mux: b.0[0],
                rtcp_reduced_size: b.0[1],
                encryption: b.1,
                rtcp_fb: b.2,
                rtcp_fb_trr_int_ms: b.3,
                header_extensions: c.0,
                extmap_allow_mixed: b.0[2],
                sources: c.1,
                source_groups: c.2,
            })
    }

    fn hashes() -> impl Strategy<Value = Vec<FileHash>> {
        vec(
            (select(HashAlgo::ALL), any::<[u8; 32]>(), any::<bool>()).prop_map(|(algo, seed, later)| {
                let value = seed.iter().cycle().copied().take(algo.digest_bytes()).collect();
                (algo, if later { Vec::new() } else { value })
            }),
            0..3,
        )
    }

    pub(crate) fn file() -> impl Strategy<Value = FileDescription> {
        let range = (any::<u32>(), option::of(any::<u32>()), hashes()).prop_map(|(offset, length, hashes)| FileRange {
            offset: u64::from(offset) << 20,
            length: length.map(u64::from),
            hashes,
        });
        (
            option::of(text()),
            option::of(any::<u64>()),
            option::of(text()),
            option::of(text()),
            option::of(text()),
            hashes(),
            option::of(select(HashAlgo::ALL)),
            option::of(range),
        )
            .prop_map(|(name, size, date, media_type, description, hashes, hash_used, range)| {
                FileDescription { name, size, date, media_type, description, hashes, hash_used, range }
            })
    }

    pub(crate) fn description() -> impl Strategy<Value = Description> {
        prop_oneof![
            3 => rtp().prop_map(|d| Description::Rtp(Box::new(d))),
            2 => file().prop_map(|d| Description::File(Box::new(d))),
            1 => unknown_ns().prop_map(|ns| Description::Unknown { ns }),
        ]
    }

    pub(crate) fn info() -> impl Strategy<Value = Info> {
        let which = || option::of((select(Creator::ALL), text()));
        prop_oneof![
            Just(Info::Active),
            Just(Info::Hold),
            Just(Info::Unhold),
            Just(Info::Ringing),
            which().prop_map(Info::Mute),
            which().prop_map(Info::Unmute),
            (select(Creator::ALL), text()).prop_map(|(c, n)| Info::Received(c, n)),
            (select(Creator::ALL), text(), file()).prop_map(|(c, n, f)| Info::Checksum(c, n, Box::new(f))),
            select("0123456789*#ABCD".chars().collect::<Vec<_>>()).prop_map(Info::Dtmf),
            (unknown_ns(), "[a-z]{1,8}").prop_map(|(ns, name)| Info::Unknown { ns, name }),
        ]
    }

    fn read(xml: &str) -> Result<Description> {
        let mut r = Reader::new(xml, ns::CLIENT, &XmlLimits::default())?;
        let description = Description::read(&mut r)?;
        r.finish()?;
        Ok(description)
    }

    fn read_rtp(children: &str) -> Result<RtpDescription> {
        let xml = format!("<description xmlns='{}' media='audio'>{children}</description>", ns::RTP);
        let Description::Rtp(rtp) = read(&xml)? else { panic!("{xml}") };
        Ok(*rtp)
    }

    fn read_one_file(version: u8, inside: &str) -> Result<FileDescription> {
        let xml = format!("<description xmlns='urn:xmpp:jingle:apps:file-transfer:{version}'>{inside}</description>");
        let Description::File(file) = read(&xml)? else { panic!("{xml}") };
        Ok(*file)
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same_description(x in description()) {
            let mut out = String::new();
            x.write(&mut Writer::new(&mut out));
            prop_assert_eq!(read(&out).unwrap(), x, "{}", out);
        }

        #[test]
        fn what_is_written_reads_as_the_same_info(x in info()) {
            let mut out = String::new();
            x.write(&mut Writer::new(&mut out));
            let mut r = Reader::new(&out, ns::CLIENT, &XmlLimits::default()).unwrap();
            prop_assert_eq!(Info::read(&mut r).unwrap(), x, "{}", out);
            r.finish().unwrap();
        }
    }

    #[test]
    fn a_description_without_media_is_malformed_j167_05() {
        for attribute in ["", " media=''"] {
            let xml = format!("<description xmlns='urn:xmpp:jingle:apps:rtp:1'{attribute}/>");
            assert!(read(&xml).is_err(), "{xml}");
        }
    }

    #[test]
    fn a_payload_type_keeps_to_j167_08() {
        let fine = read_rtp("<payload-type id='0'/><payload-type id='96' name='opus' clockrate='48000' channels=''/>");
        let fine = fine.unwrap().payload_types;
        assert_eq!((fine[0].channels, fine[1].channels, fine[0].clock_rate_hz), (1, 1, None));
        for bad in ["", "id='128' name='x'", "id='-1'", "id='x'", "id='96'", "id='96' name='x' clockrate='fast'"] {
            assert!(read_rtp(&format!("<payload-type {bad}/>")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_parameter_may_lack_its_value_and_stand_in_a_wrong_namespace() {
        let rtp = read_rtp(
            "<payload-type id='63' name='red'><parameter name='111/111'/>\
             <parameter xmlns='urn:x' name='apt' value='1'/><parameter value='bare'/></payload-type>",
        )
        .unwrap();
        let expected = [("111/111", None), ("apt", Some("1")), ("", Some("bare"))]
            .map(|(name, value)| Parameter { name: name.into(), value: value.map(Text::from) });
        assert_eq!(rtp.payload_types[0].parameters, expected);
    }

    #[test]
    fn foreign_children_are_passed_over() {
        let rtp = read_rtp(
            "<stream xmlns='urn:xmpp:jingle:apps:rtp:msid:0' id='s' track='t'/><zrtp-hash xmlns='urn:z'>a</zrtp-hash>\
             <source xmlns='urn:other' ssrc='1'/><rtcp-mux/><rtcp-reduced-size/>",
        )
        .unwrap();
        assert!(rtp.rtcp_mux && rtp.rtcp_reduced_size && rtp.sources.is_empty());
    }

    #[test]
    fn a_crypto_line_that_lacks_a_part_is_no_offer() {
        let rtp = read_rtp(
            "<encryption required='1'><crypto crypto-suite='S' key-params='inline:x' tag='1'/>\
             <crypto crypto-suite='S' tag='2'/></encryption>",
        )
        .unwrap();
        let encryption = rtp.encryption.unwrap();
        assert!(encryption.required && encryption.cryptos.len() == 1);
        assert!(!format!("{encryption:?}").contains("inline"));
    }

    #[test]
    fn hashes_are_read_in_base64_and_hex_and_with_a_value_to_come_j234_04() {
        let file = read_one_file(
            5,
            "<file><size>0</size><hash xmlns='urn:xmpp:hashes:2' algo='sha-1'> w0mcJylzCn+AfvuGdqkty2+KP48=\n</hash>\
             <hash xmlns='urn:xmpp:hashes:1' algo='sha-1'>c3499c2729730a7f807efb8676a92dcb6f8a3f8f</hash>\
             <hash xmlns='urn:xmpp:hashes:2' algo='sha-256'/><hash algo='md5'>AAAA</hash>\
             <hash algo='sha-256'>AAAA</hash><hash-used xmlns='urn:xmpp:hashes:2' algo='sha-1'/></file>",
        )
        .unwrap();
        assert_eq!((file.size, file.hash_used, file.hashes.len()), (Some(0), Some(HashAlgo::Sha1), 3));
        assert_eq!(file.hashes[0], file.hashes[1]);
        assert_eq!(file.hashes[2], (HashAlgo::Sha256, Vec::new()));
    }

    #[test]
    fn older_file_offers_are_read_j234_20() {
        let file = "<file><name>a</name><size>5</size><range offset='2' length='3'/></file>";
        for (version, xml) in [(4, file.to_owned()), (3, format!("<offer>{file}</offer>"))] {
            let read = read_one_file(version, &xml).unwrap();
            assert_eq!((read.name.as_deref(), read.size), (Some("a"), Some(5)));
            assert_eq!(read.range, Some(FileRange { offset: 2, length: Some(3), hashes: vec![] }));
        }
    }

    #[test]
    fn an_answer_may_leave_the_file_out() {
        assert_eq!(read_one_file(5, "").unwrap(), FileDescription::default());
    }

    #[test]
    fn sizes_and_ranges_that_are_no_numbers_are_malformed_j234_07() {
        for bad in [
            "<file><size>-1</size></file>",
            "<file><size>18446744073709551616</size></file>",
            "<file><range offset='x'/></file>",
            "<file><range offset='18446744073709551615' length='1'/></file>",
        ] {
            assert!(read_one_file(5, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn more_parts_than_the_cap_are_dropped() {
        let rtp = read_rtp(&"<payload-type id='1'/>".repeat(300)).unwrap();
        assert_eq!(rtp.payload_types.len(), wire::PAYLOAD_TYPES);
        let rtp = read_rtp(&"<source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='1'/>".repeat(300)).unwrap();
        assert_eq!(rtp.sources.len(), wire::PARTS);
    }
}

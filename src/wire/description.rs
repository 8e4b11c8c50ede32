//! What is exchanged: RTP (XEP-0167 1.2.3, 0293 1.0.2, 0294 1.1.2, 0339 1.0.1) and files (XEP-0234 0.19.1).
//! Read XEP-0167 §4 and §8 before touching this file.

use super::jingle::{Creator, Senders, read_creator, read_senders};
use super::ns;
use super::xml::{Reader, Result, Writer};
use crate::config::wire;
use crate::fault::{Malformed, names};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

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

/// What `<offer/>` and `<request/>` of file-transfer:3 say; later versions say it by `senders`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileVerb {
    Offer,
    Request,
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
                let (file, verb) = read_file(r, "description")?;
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

/// Finds the `<file/>` inside the element just entered, below `<offer/>` or `<request/>` too.
fn read_file(r: &mut Reader<'_>, element: &'static str) -> Result<(FileDescription, Option<FileVerb>)> {
    let (mut file, mut verb) = (None, None);
    r.children(|r| {
        let found = match r.tag().name() {
            "file" if file.is_none() => {
                file = Some(FileDescription::read(r)?);
                return Ok(());
            }
            "offer" => FileVerb::Offer,
            "request" => FileVerb::Request,
            _ => return Ok(()),
        };
        r.children(|r| {
            if r.tag().name() == "file" && file.is_none() {
                file = Some(FileDescription::read(r)?);
                verb = Some(found);
            }
            Ok(())
        })
    })?;
    Ok((file.ok_or(Malformed::MissingChild { element, child: "file" })?, verb))
}

/// True for children of a description that a peer has put into the description's own or no namespace (complaint 16).
fn near(r: &Reader<'_>, ns: &str) -> bool {
    let found = r.tag().ns();
    found == ns || found == ns::RTP || found.is_empty()
}

/// A number of the element just entered; blank is absent.
fn number<T: std::str::FromStr>(r: &Reader<'_>, element: &'static str, what: &'static str) -> Result<Option<T>> {
    match r.attr(what).map(str::trim) {
        None | Some("") => Ok(None),
        Some(v) => v.parse().map(Some).map_err(|_| Malformed::BadValue { element, what }),
    }
}

fn text_of(r: &Reader<'_>, name: &str) -> Option<String> {
    r.attr(name).filter(|v| !v.is_empty()).map(str::to_owned)
}

fn keep<T>(list: &mut Vec<T>, item: Option<T>) {
    if list.len() < wire::PARTS {
        list.extend(item);
    }
}

/// XEP-0167 description.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RtpDescription {
    /// `audio`, `video`, …
    pub media: String,
    /// SSRC of the sender (attribute).
    pub ssrc: Option<u32>,
    /// In preference order (J167-07).
    pub payload_types: Vec<PayloadType>,
    /// `<bandwidth type/>` and kilobits per second.
    pub bandwidth: Vec<(String, String)>,
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
            media: media.to_owned(),
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
                    let value = r.text()?.trim().to_owned();
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
    pub name: String,
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
            name: name.to_owned(),
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
    pub name: String,
    /// Absent from some peers (facts §7).
    pub value: Option<String>,
}

impl Parameter {
    fn read(r: &Reader<'_>) -> Self {
        Self { name: r.attr("name").unwrap_or("").to_owned(), value: r.attr("value").map(str::to_owned) }
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
    pub kind: String,
    /// `pli`, `fir`, …
    pub subtype: Option<String>,
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
    pub uri: String,
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
    pub semantics: String,
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
    pub tag: String,
    /// `AES_CM_128_HMAC_SHA1_80`, …
    pub suite: String,
    /// `inline:…`, secret.
    pub key_params: String,
    /// Rarely present.
    pub session_params: Option<String>,
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
                    Some(Self::Checksum(creator, content, Box::new(read_file(r, "checksum")?.0)))
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

names! {
    /// Details of a failed-application or media-error, XEP-0234 §9.
    pub enum FileErrorCondition { FileNotAvailable = "file-not-available", FileTooLarge = "file-too-large" }
}

impl FileErrorCondition {
    /// As the detail of a [`super::jingle::Reason`].
    #[must_use]
    pub fn detail(self) -> (String, String) {
        (ns::FILE_ERRORS.to_owned(), self.as_str().to_owned())
    }
}

names! {
    /// Hash functions of XEP-0300.
    pub enum HashAlgo {
        Sha1 = "sha-1", Sha224 = "sha-224", Sha256 = "sha-256", Sha384 = "sha-384", Sha512 = "sha-512",
        Sha3_256 = "sha3-256", Sha3_512 = "sha3-512", Blake2b256 = "blake2b-256", Blake2b512 = "blake2b-512",
    }
}

impl HashAlgo {
    /// Bytes of the digest.
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 | Self::Sha3_256 | Self::Blake2b256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 | Self::Sha3_512 | Self::Blake2b512 => 64,
        }
    }
}

/// A digest and its function; an empty value stands for "will be sent later".
pub type FileHash = (HashAlgo, Vec<u8>);

/// Base64 of any padding.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Reads the `<hash/>` just entered. `None` for a function that is not known or a value that is no digest of it.
fn read_hash(r: &mut Reader<'_>) -> Result<Option<FileHash>> {
    let Some(algo) = r.attr("algo").and_then(HashAlgo::parse) else { return Ok(None) };
    let text = r.text()?;
    // No digest is longer than 64 bytes, 128 hex digits.
    let text: String = text.chars().filter(|c| !c.is_whitespace()).take(129).collect();
    if text.is_empty() {
        return Ok(Some((algo, Vec::new())));
    }
    // Before XEP-0300 0.3 the value was hex.
    let value = if text.len() == 2 * algo.digest_bytes() {
        (0..text.len()).step_by(2).map(|i| text.get(i..i + 2).and_then(|t| u8::from_str_radix(t, 16).ok())).collect()
    } else {
        LENIENT_BASE64.decode(&text).ok()
    };
    Ok(value.filter(|v: &Vec<u8>| v.len() == algo.digest_bytes()).map(|v| (algo, v)))
}

fn write_hashes(hashes: &[FileHash], w: &mut Writer<'_>) {
    for (algo, value) in hashes {
        w.start_ns("hash", ns::HASHES).attr("algo", algo.as_str());
        if !value.is_empty() {
            w.text_number(base64::display::Base64Display::new(value, &STANDARD));
        }
        w.end("hash");
    }
}

/// XEP-0234 description, one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDescription {
    /// Untrusted; may hold anything.
    pub name: Option<String>,
    /// Bytes; 0 is a file too.
    pub size: Option<u64>,
    /// XEP-0082 text.
    pub date: Option<String>,
    /// MIME type.
    pub media_type: Option<String>,
    /// For people, in the first language given.
    pub description: Option<String>,
    /// Known hashes; an empty value stands for "will be sent later".
    pub hashes: Vec<FileHash>,
    /// The hash that a later checksum will carry.
    pub hash_used: Option<HashAlgo>,
    /// Asked for or granted.
    pub range: Option<FileRange>,
}

impl FileDescription {
    /// Reads the `<file/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] for a size or range that is no number (J234-07; requirements §M 13: 0 is a size).
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut file = Self::default();
        r.children(|r| {
            let name = r.tag().name();
            match name {
                "hash" => {
                    let hash = read_hash(r)?;
                    keep(&mut file.hashes, hash);
                }
                "hash-used" => file.hash_used = r.attr("algo").and_then(HashAlgo::parse),
                "range" => file.range = Some(FileRange::read(r)?),
                "size" => {
                    let size = r.text()?.trim().parse();
                    file.size = Some(size.map_err(|_| Malformed::BadValue { element: "file", what: "size" })?);
                }
                "name" | "date" | "media-type" | "desc" => {
                    let text = r.text()?.into_owned();
                    let slot = match name {
                        "name" => &mut file.name,
                        "date" => &mut file.date,
                        "media-type" => &mut file.media_type,
                        _ => &mut file.description,
                    };
                    slot.get_or_insert(text);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(file)
    }

    /// Writes the `<file/>` in the namespace of its parent.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("file");
        for (name, text) in
            [("date", &self.date), ("desc", &self.description), ("media-type", &self.media_type), ("name", &self.name)]
        {
            if let Some(text) = text {
                w.text_element(name, text);
            }
        }
        if let Some(range) = &self.range {
            range.write(w);
        }
        if let Some(size) = self.size {
            w.start("size").text_number(size).end("size");
        }
        write_hashes(&self.hashes, w);
        if let Some(algo) = self.hash_used {
            w.start_ns("hash-used", ns::HASHES).attr("algo", algo.as_str()).end("hash-used");
        }
        w.end("file");
    }
}

/// XEP-0234 §5 range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileRange {
    /// First byte, 0 if absent.
    pub offset: u64,
    /// Bytes, to the end if absent.
    pub length: Option<u64>,
    /// Hashes of the range alone, in a checksum (§8.2).
    pub hashes: Vec<FileHash>,
}

impl FileRange {
    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut range = Self {
            offset: number(r, "range", "offset")?.unwrap_or(0),
            length: number(r, "range", "length")?,
            hashes: Vec::new(),
        };
        // J234-07: the end of the range is a number too.
        if range.length.is_some_and(|length| range.offset.checked_add(length).is_none()) {
            return Err(Malformed::BadValue { element: "range", what: "length" });
        }
        r.children(|r| {
            if r.tag().name() == "hash" {
                let hash = read_hash(r)?;
                keep(&mut range.hashes, hash);
            }
            Ok(())
        })?;
        Ok(range)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start("range");
        if self.offset != 0 {
            w.attr_number("offset", self.offset);
        }
        if let Some(length) = self.length {
            w.attr_number("length", length);
        }
        write_hashes(&self.hashes, w);
        w.end("range");
    }
}

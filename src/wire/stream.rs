//! Everything of a stream that is not a stanza: header, features, STARTTLS, SASL, stream errors (RFC 6120 §4 to §6),
//! channel-binding types (XEP-0440 1.0.0), stream management (XEP-0198 1.6.3), component handshake (XEP-0114 1.6).
//! Read RFC 6120 §4.7 and §4.8 before touching this file.

use super::disco::Caps;
use super::jid::Jid;
use super::ns;
use super::stanza::{Stanza, StanzaFault};
use super::xml::{Reader, Result, Scope, Writer, base64, boolean, jid, lenient, xml};
use crate::config::XmlLimits;
use crate::fault::{Malformed, StanzaCondition, StreamCondition, names};

/// One child of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum TopLevel {
    /// RFC 6120 §8
    Stanza(Stanza),
    /// Anything else.
    Stream(StreamElement),
}

names! {
    /// What the stream carries, told by the namespace of its content.
    pub enum StreamKind {
        /// A client and its server, or two ends without a server (XEP-0174).
        Client = "jabber:client",
        /// A component and its server, XEP-0114.
        Component = "jabber:component:accept",
    }
}

/// The start tag of a stream, RFC 6120 §4.7.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamHeader {
    /// Content namespace.
    pub kind: StreamKind,
    /// Sender.
    pub from: Option<Jid>,
    /// Receiver.
    pub to: Option<Jid>,
    /// Given by the receiving entity.
    pub id: Option<String>,
    /// Major and minor; absent means 0.9 (RFC 6120 §4.7.5).
    pub version: Option<(u16, u16)>,
    /// `xml:lang`
    pub lang: Option<String>,
}

/// Bytes of a SASL exchange. `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslData(pub Vec<u8>);

impl std::fmt::Debug for SaslData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SaslData({} bytes)", self.0.len())
    }
}

/// A child of the stream that is not a stanza.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamElement {
    /// RFC 6120 §4.3.2
    Features(Box<Features>),
    /// RFC 6120 §4.9
    Error(Box<StreamError>),
    /// RFC 6120 §5.4.2.1
    StartTls,
    /// RFC 6120 §5.4.2.3
    TlsProceed,
    /// RFC 6120 §5.4.2.2
    TlsFailure,
    /// RFC 6120 §6.4.2
    SaslAuth {
        /// Name of the mechanism.
        mechanism: String,
        /// Initial response; `Some` of nothing is not the same as none.
        data: Option<SaslData>,
    },
    /// RFC 6120 §6.4.3
    SaslChallenge(SaslData),
    /// RFC 6120 §6.4.3
    SaslResponse(SaslData),
    /// RFC 6120 §6.4.4
    SaslAbort,
    /// RFC 6120 §6.4.5
    SaslFailure(SaslFailure),
    /// RFC 6120 §6.4.6, with the server's last data, if any.
    SaslSuccess(Option<SaslData>),
    /// XEP-0198 §3
    SmEnable {
        /// Resumption is wanted.
        resume: bool,
        /// Longest time wanted, in seconds.
        max_s: Option<u32>,
    },
    /// XEP-0198 §3
    SmEnabled(SmEnabled),
    /// XEP-0198 §5
    SmResume {
        /// Stanzas handled, modulo 2^32.
        h: u32,
        /// Id of the stream to resume.
        previd: String,
    },
    /// XEP-0198 §5
    SmResumed {
        /// Stanzas handled, modulo 2^32.
        h: u32,
        /// Id of the stream resumed.
        previd: String,
    },
    /// XEP-0198 §3, §5
    SmFailed {
        /// Stanzas handled, if the server still knows.
        h: Option<u32>,
        /// Why; undefined-condition if not told.
        condition: StanzaCondition,
    },
    /// XEP-0198 §4
    SmRequest,
    /// XEP-0198 §4
    SmAck {
        /// Stanzas handled, modulo 2^32.
        h: u32,
    },
    /// XEP-0114: the digest in hex, or nothing as the answer.
    Handshake(String),
    /// Something else.
    Unknown {
        /// Its namespace.
        ns: String,
        /// Its local name.
        name: String,
    },
}

/// RFC 6120 §4.3.2. Features that are not known here are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// STARTTLS is offered.
    pub starttls: bool,
    /// … and must be used (meaningful only if offered).
    pub starttls_required: bool,
    /// SASL mechanisms, in the server's order.
    pub mechanisms: Vec<String>,
    /// XEP-0440 types, such as `tls-exporter`.
    pub channel_bindings: Vec<String>,
    /// Resource binding is offered.
    pub bind: bool,
    /// RFC 3921 session establishment is offered and not marked optional.
    pub session_required: bool,
    /// XEP-0198 is offered.
    pub sm: bool,
    /// Roster versioning, RFC 6121 §2.6.
    pub rosterver: bool,
    /// XEP-0115 §6.3: those of the server.
    pub caps: Option<Caps>,
}

/// RFC 6120 §4.9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamError {
    /// Why; undefined-condition if there is none or an unknown one.
    pub condition: StreamCondition,
    /// Host and perhaps port inside `<see-other-host/>`.
    pub see_other_host: Option<String>,
    /// For people.
    pub text: Option<String>,
}

names! {
    /// SASL error conditions, RFC 6120 §6.5.
    pub enum SaslCondition {
        Aborted = "aborted", AccountDisabled = "account-disabled", CredentialsExpired = "credentials-expired",
        EncryptionRequired = "encryption-required", IncorrectEncoding = "incorrect-encoding",
        InvalidAuthzid = "invalid-authzid", InvalidMechanism = "invalid-mechanism",
        MalformedRequest = "malformed-request", MechanismTooWeak = "mechanism-too-weak",
        NotAuthorized = "not-authorized", TemporaryAuthFailure = "temporary-auth-failure",
    }
}

impl SaslCondition {
    /// Why signing in failed, as part of a sentence for people.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            SaslCondition::Aborted => "signing in was broken off",
            SaslCondition::AccountDisabled => "the account is disabled",
            SaslCondition::CredentialsExpired => "the password has expired",
            SaslCondition::EncryptionRequired => "it wants an encrypted connection",
            SaslCondition::IncorrectEncoding | SaslCondition::MalformedRequest => {
                "it does not understand how we sign in"
            }
            SaslCondition::InvalidAuthzid => "this account may not be used by that user",
            SaslCondition::InvalidMechanism => "it does not take our way of signing in",
            SaslCondition::MechanismTooWeak => "it wants a stronger way of signing in",
            // RFC 6120 §6.5.10 leaves the two cases together on purpose.
            SaslCondition::NotAuthorized => "no such user, or the password is wrong",
            SaslCondition::TemporaryAuthFailure => "it cannot check passwords now",
        }
    }
}

/// RFC 6120 §6.4.5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaslFailure {
    /// Why; `None` if there is none or an unknown one.
    pub condition: Option<SaslCondition>,
    /// For people.
    pub text: Option<String>,
}

/// XEP-0198 §3.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SmEnabled {
    /// Names the stream for resumption.
    pub id: Option<String>,
    /// The stream can be resumed.
    pub resume: bool,
    /// Longest time the server keeps it, in seconds.
    pub max_s: Option<u32>,
    /// Host and perhaps port to reconnect to.
    pub location: Option<String>,
}

impl TopLevel {
    /// Reads a child of the stream from its text, within the namespaces of the stream header.
    ///
    /// # Errors
    /// [`StanzaFault`]; its `kind` is `None` for what is not a stanza.
    pub fn parse(text: &str, scope: &Scope, limits: &XmlLimits) -> Result<Self, Box<StanzaFault>> {
        let nameless = |fault| Box::new(StanzaFault { kind: None, from: None, to: None, id: None, iq: None, fault });
        let mut r = Reader::within(text, scope, limits).map_err(nameless)?;
        if Stanza::kind_of(&r).is_some() {
            return Stanza::read(&mut r).map(TopLevel::Stanza);
        }
        let element = StreamElement::read(&mut r);
        match (r.finish(), element) {
            (Ok(()), Ok(element)) => Ok(TopLevel::Stream(element)),
            (Err(fault), _) | (Ok(()), Err(fault)) => Err(nameless(fault)),
        }
    }
}

impl StreamHeader {
    /// A header of version 1.0 without id.
    #[must_use]
    pub fn new(kind: StreamKind, from: Option<Jid>, to: Option<Jid>) -> Self {
        Self { kind, from, to, id: None, version: Some((1, 0)), lang: None }
    }

    /// Reads a start tag, as [`Frame::Open`](super::xml::Frame::Open) gives it, and the namespaces that it declares
    /// for everything inside (RFC 6120 §4.8: the streams namespace may have any prefix).
    ///
    /// # Errors
    /// [`Malformed::Xml`] with the condition to answer with.
    pub fn parse(text: &str, limits: &XmlLimits) -> Result<(Self, Scope)> {
        let bare = Scope::bare();
        let r = Reader::within(text, &bare, limits)?;
        if r.tag().ns() != ns::STREAM {
            return Err(xml(StreamCondition::InvalidNamespace, "not the streams namespace"));
        }
        if r.tag().name() != "stream" {
            return Err(xml(StreamCondition::BadFormat, "the root is not a stream"));
        }
        let scope = r.scope();
        // RFC 6120 §4.8.2: usually the default namespace; it may have a prefix (§4.8.3).
        let default = scope.ns("").and_then(StreamKind::parse);
        let kind = default
            .or_else(|| StreamKind::ALL.iter().copied().find(|k| scope.binds(k.as_str())))
            .ok_or(xml(StreamCondition::InvalidNamespace, "unknown content namespace"))?;
        let address = |what| jid(&r, "stream", what).map_err(|_| xml(StreamCondition::ImproperAddressing, what));
        let version = match r.attr("version") {
            None => None,
            Some(text) => Some(
                text.split_once('.')
                    .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
                    .ok_or(xml(StreamCondition::UnsupportedVersion, "version"))?,
            ),
        };
        let header = Self {
            kind,
            from: address("from")?,
            to: address("to")?,
            id: r.attr("id").map(str::to_owned),
            version,
            lang: r.lang().map(str::to_owned),
        };
        Ok((header, scope))
    }

    /// Writes the XML declaration and the start tag, which stays open.
    pub fn write(&self, out: &mut String) {
        out.push_str("<?xml version='1.0'?>");
        let mut w = Writer::new(out);
        w.start("stream:stream").attr("xmlns", self.kind.as_str()).attr("xmlns:stream", ns::STREAM);
        w.attr_opt("from", self.from.as_ref().map(Jid::as_str)).attr_opt("to", self.to.as_ref().map(Jid::as_str));
        w.attr_opt("id", self.id.as_deref());
        if let Some((major, minor)) = self.version {
            w.attr_number("version", format_args!("{major}.{minor}"));
        }
        w.attr_opt("xml:lang", self.lang.as_deref()).text("");
    }

    /// Writes the end tag of a stream.
    pub fn write_end(out: &mut String) {
        out.push_str("</stream:stream>");
    }
}

fn need_h(r: &Reader<'_>, element: &'static str) -> Result<u32> {
    r.parse(element, "h")?.ok_or(Malformed::MissingAttribute { element, attribute: "h" })
}

/// RFC 6120 §6.4.2: nothing is no data, `=` is data of no bytes.
fn sasl_data(r: &mut Reader<'_>, element: &'static str) -> Result<Option<SaslData>> {
    let text = r.text()?;
    match text.trim() {
        "" => Ok(None),
        "=" => Ok(Some(SaslData(Vec::new()))),
        text => base64(text).map(|d| Some(SaslData(d))).ok_or(Malformed::BadValue { element, what: "text" }),
    }
}

fn write_sasl(w: &mut Writer<'_>, name: &'static str, data: Option<&SaslData>, empty: &str) {
    w.start_ns(name, ns::SASL);
    match data {
        Some(SaslData(data)) if data.is_empty() => w.text(empty),
        Some(SaslData(data)) => w.base64(data),
        None => w,
    };
    w.end(name);
}

impl StreamElement {
    /// Reads the element that `r` has just entered, by its namespace and name.
    ///
    /// # Errors
    /// [`Malformed`] where something is missing that cannot be done without.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let empty = || SaslData(Vec::new());
        Ok(match (r.tag().ns(), r.tag().name()) {
            (ns::STREAM, "features") => StreamElement::Features(Box::new(Features::read(r)?)),
            (ns::STREAM, "error") => StreamElement::Error(Box::new(StreamError::read(r)?)),
            (ns::TLS, "starttls") => StreamElement::StartTls,
            (ns::TLS, "proceed") => StreamElement::TlsProceed,
            (ns::TLS, "failure") => StreamElement::TlsFailure,
            (ns::SASL, "auth") => StreamElement::SaslAuth {
                mechanism: r.need("auth", "mechanism")?.to_owned(),
                data: sasl_data(r, "auth")?,
            },
            (ns::SASL, "challenge") => StreamElement::SaslChallenge(sasl_data(r, "challenge")?.unwrap_or_else(empty)),
            (ns::SASL, "response") => StreamElement::SaslResponse(sasl_data(r, "response")?.unwrap_or_else(empty)),
            (ns::SASL, "abort") => StreamElement::SaslAbort,
            (ns::SASL, "failure") => StreamElement::SaslFailure(SaslFailure::read(r)?),
            (ns::SASL, "success") => StreamElement::SaslSuccess(sasl_data(r, "success")?),
            (ns::SM, "enable") => StreamElement::SmEnable {
                resume: boolean(r, "resume"),
                max_s: lenient(r.parse("enable", "max"))?.flatten(),
            },
            (ns::SM, "enabled") => StreamElement::SmEnabled(SmEnabled {
                id: r.attr("id").map(str::to_owned),
                resume: boolean(r, "resume"),
                max_s: lenient(r.parse("enabled", "max"))?.flatten(),
                location: r.attr("location").map(str::to_owned),
            }),
            (ns::SM, "resume") => {
                StreamElement::SmResume { h: need_h(r, "resume")?, previd: r.need("resume", "previd")?.to_owned() }
            }
            (ns::SM, "resumed") => {
                StreamElement::SmResumed { h: need_h(r, "resumed")?, previd: r.need("resumed", "previd")?.to_owned() }
            }
            (ns::SM, "failed") => {
                let h = lenient(r.parse("failed", "h"))?.flatten();
                let mut condition = StanzaCondition::UndefinedCondition;
                r.children(|r| {
                    if r.tag().ns() == ns::STANZAS {
                        condition = StanzaCondition::parse(r.tag().name()).unwrap_or(condition);
                    }
                    Ok(())
                })?;
                StreamElement::SmFailed { h, condition }
            }
            (ns::SM, "r") => StreamElement::SmRequest,
            (ns::SM, "a") => StreamElement::SmAck { h: need_h(r, "a")? },
            (ns::COMPONENT, "handshake") => StreamElement::Handshake(r.text()?.trim().to_owned()),
            (ns, name) => StreamElement::Unknown { ns: ns.to_owned(), name: name.to_owned() },
        })
    }

    /// Writes the element with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            StreamElement::Features(features) => features.write(w),
            StreamElement::Error(error) => error.write(w),
            StreamElement::StartTls => _ = w.start_ns("starttls", ns::TLS).end("starttls"),
            StreamElement::TlsProceed => _ = w.start_ns("proceed", ns::TLS).end("proceed"),
            StreamElement::TlsFailure => _ = w.start_ns("failure", ns::TLS).end("failure"),
            StreamElement::SaslAuth { mechanism, data } => {
                w.start_ns("auth", ns::SASL).attr("mechanism", mechanism);
                match data {
                    Some(SaslData(data)) if data.is_empty() => w.text("="),
                    Some(SaslData(data)) => w.base64(data),
                    None => w,
                };
                w.end("auth");
            }
            // An empty challenge or response is an empty element, RFC 6120 §6.4.3.
            StreamElement::SaslChallenge(data) => write_sasl(w, "challenge", Some(data), ""),
            StreamElement::SaslResponse(data) => write_sasl(w, "response", Some(data), ""),
            StreamElement::SaslAbort => _ = w.start_ns("abort", ns::SASL).end("abort"),
            StreamElement::SaslFailure(failure) => failure.write(w),
            StreamElement::SaslSuccess(data) => write_sasl(w, "success", data.as_ref(), "="),
            StreamElement::SmEnable { resume, max_s } => {
                w.start_ns("enable", ns::SM);
                write_resume(w, *resume, *max_s);
                w.end("enable");
            }
            StreamElement::SmEnabled(enabled) => {
                w.start_ns("enabled", ns::SM).attr_opt("id", enabled.id.as_deref());
                write_resume(w, enabled.resume, enabled.max_s);
                w.attr_opt("location", enabled.location.as_deref()).end("enabled");
            }
            StreamElement::SmResume { h, previd } => {
                w.start_ns("resume", ns::SM).attr_number("h", h).attr("previd", previd).end("resume");
            }
            StreamElement::SmResumed { h, previd } => {
                w.start_ns("resumed", ns::SM).attr_number("h", h).attr("previd", previd).end("resumed");
            }
            StreamElement::SmFailed { h, condition } => {
                w.start_ns("failed", ns::SM);
                if let Some(h) = h {
                    w.attr_number("h", h);
                }
                w.start_ns(condition.as_str(), ns::STANZAS).end(condition.as_str()).end("failed");
            }
            StreamElement::SmRequest => _ = w.start_ns("r", ns::SM).end("r"),
            StreamElement::SmAck { h } => _ = w.start_ns("a", ns::SM).attr_number("h", h).end("a"),
            StreamElement::Handshake(digest) => {
                w.start("handshake");
                if !digest.is_empty() {
                    w.text(digest);
                }
                w.end("handshake");
            }
            StreamElement::Unknown { ns, name } => _ = w.foreign(ns, name),
        }
    }
}

fn write_resume(w: &mut Writer<'_>, resume: bool, max_s: Option<u32>) {
    if resume {
        w.attr("resume", "true");
    }
    if let Some(max_s) = max_s {
        w.attr_number("max", max_s);
    }
}

impl Features {
    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut features = Self::default();
        r.children(|r| {
            match (r.tag().ns(), r.tag().name()) {
                (ns::TLS, "starttls") => {
                    features.starttls = true;
                    r.children(|r| {
                        features.starttls_required |= r.is(ns::TLS, "required");
                        Ok(())
                    })?;
                }
                (ns::SASL, "mechanisms") => r.children(|r| {
                    if r.is(ns::SASL, "mechanism") {
                        features.mechanisms.push(r.text()?.trim().to_owned());
                    }
                    Ok(())
                })?,
                (ns::SASL_CB, "sasl-channel-binding") => r.children(|r| {
                    if r.is(ns::SASL_CB, "channel-binding") {
                        features.channel_bindings.extend(r.attr("type").map(str::to_owned));
                    }
                    Ok(())
                })?,
                (ns::BIND, "bind") => features.bind = true,
                (ns::SESSION, "session") => {
                    features.session_required = true;
                    r.children(|r| {
                        features.session_required &= r.tag().name() != "optional";
                        Ok(())
                    })?;
                }
                (ns::SM, "sm") => features.sm = true,
                (ns::ROSTERVER, "ver") => features.rosterver = true,
                (ns::CAPS, "c") => features.caps = lenient(Caps::read(r))?,
                (_, _) => {}
            }
            Ok(())
        })?;
        Ok(features)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start("stream:features");
        if self.starttls {
            w.start_ns("starttls", ns::TLS);
            if self.starttls_required {
                w.start("required").end("required");
            }
            w.end("starttls");
        }
        if !self.mechanisms.is_empty() {
            w.start_ns("mechanisms", ns::SASL);
            for mechanism in &self.mechanisms {
                w.text_element("mechanism", mechanism);
            }
            w.end("mechanisms");
        }
        if !self.channel_bindings.is_empty() {
            w.start_ns("sasl-channel-binding", ns::SASL_CB);
            for binding in &self.channel_bindings {
                w.start("channel-binding").attr("type", binding).end("channel-binding");
            }
            w.end("sasl-channel-binding");
        }
        if self.bind {
            w.start_ns("bind", ns::BIND).end("bind");
        }
        if self.session_required {
            w.start_ns("session", ns::SESSION).end("session");
        }
        if self.sm {
            w.start_ns("sm", ns::SM).end("sm");
        }
        if self.rosterver {
            w.start_ns("ver", ns::ROSTERVER).end("ver");
        }
        if let Some(caps) = &self.caps {
            caps.write(w);
        }
        w.end("stream:features");
    }
}

impl StreamError {
    /// An error without text.
    #[must_use]
    pub fn new(condition: StreamCondition) -> Self {
        Self { condition, see_other_host: None, text: None }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut error = Self::new(StreamCondition::UndefinedCondition);
        let mut found = false;
        r.children(|r| {
            if r.tag().ns() != ns::STREAMS {
                return Ok(());
            }
            let name = r.tag().name();
            if name == "text" {
                if error.text.is_none() {
                    error.text = Some(r.text()?.into_owned());
                }
            } else if let Some(condition) = StreamCondition::parse(name).filter(|_| !found) {
                found = true;
                error.condition = condition;
                if condition == StreamCondition::SeeOtherHost {
                    error.see_other_host = Some(r.text()?.trim().to_owned()).filter(|h| !h.is_empty());
                }
            }
            Ok(())
        })?;
        Ok(error)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start("stream:error").start_ns(self.condition.as_str(), ns::STREAMS);
        if let Some(host) = &self.see_other_host {
            w.text(host);
        }
        w.end(self.condition.as_str());
        if let Some(text) = &self.text {
            w.start_ns("text", ns::STREAMS).text(text).end("text");
        }
        w.end("stream:error");
    }
}

impl SaslFailure {
    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut failure = Self { condition: None, text: None };
        r.children(|r| {
            if r.is(ns::SASL, "text") {
                if failure.text.is_none() {
                    failure.text = Some(r.text()?.into_owned());
                }
            } else if r.tag().ns() == ns::SASL {
                failure.condition = failure.condition.or(SaslCondition::parse(r.tag().name()));
            }
            Ok(())
        })?;
        Ok(failure)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("failure", ns::SASL);
        if let Some(condition) = self.condition {
            w.start(condition.as_str()).end(condition.as_str());
        }
        if let Some(text) = &self.text {
            w.text_element("text", text);
        }
        w.end("failure");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> StreamElement {
        let element = TopLevel::parse(text, &Scope::of(ns::CLIENT), &XmlLimits::default()).unwrap();
        let TopLevel::Stream(element) = element else { panic!("{element:?}") };
        element
    }

    fn header(text: &str) -> Result<StreamHeader, StreamCondition> {
        StreamHeader::parse(text, &XmlLimits::default()).map(|(header, _)| header).map_err(|fault| {
            let Malformed::Xml { condition, .. } = fault else { panic!("{fault}") };
            condition
        })
    }

    fn some_jid() -> impl Strategy<Value = Jid> {
        prop_oneof!["[a-z]{1,8}@example\\.net", "[a-z]{1,8}@example\\.org/[a-zA-Z<&' ]{1,4}x", "[a-z]{1,8}\\.example"]
            .prop_map(|jid| jid.parse().unwrap())
    }

    fn text() -> impl Strategy<Value = String> {
        "[ -~\u{E9}\u{4E00}\u{1F600}\n\t\r]{0,12}"
    }

    /// Text where white space round it does not count.
    fn word() -> impl Strategy<Value = String> {
        "[!-~\u{E9}]{1,12}"
    }

    fn data() -> impl Strategy<Value = SaslData> {
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(SaslData)
    }

    fn features() -> impl Strategy<Value = Features> {
        let words = || proptest::collection::vec(word(), 0..3);
        let caps =
            (proptest::option::of(text()), text(), text()).prop_map(|(hash, node, ver)| Caps { hash, node, ver });
        (any::<[bool; 6]>(), words(), words(), proptest::option::of(caps)).prop_map(
            |([starttls, required, bind, session_required, sm, rosterver], mechanisms, channel_bindings, caps)| {
                Features {
                    starttls,
                    starttls_required: starttls && required,
                    mechanisms,
                    channel_bindings,
                    bind,
                    session_required,
                    sm,
                    rosterver,
                    caps,
                }
            },
        )
    }

    fn element() -> impl Strategy<Value = StreamElement> {
        use proptest::option::of as opt;
        let stream_error = (proptest::sample::select(StreamCondition::ALL), opt(word()), opt(text())).prop_map(
            |(condition, host, text)| StreamError {
                condition,
                see_other_host: host.filter(|_| condition == StreamCondition::SeeOtherHost),
                text,
            },
        );
        let enabled = (opt(text()), any::<bool>(), any::<Option<u32>>(), opt(text()))
            .prop_map(|(id, resume, max_s, location)| SmEnabled { id, resume, max_s, location });
        prop_oneof![
            features().prop_map(|f| StreamElement::Features(Box::new(f))),
            stream_error.prop_map(|e| StreamElement::Error(Box::new(e))),
            Just(StreamElement::StartTls),
            Just(StreamElement::TlsProceed),
            Just(StreamElement::TlsFailure),
            (text(), proptest::option::of(data()))
                .prop_map(|(mechanism, data)| StreamElement::SaslAuth { mechanism, data }),
            data().prop_map(StreamElement::SaslChallenge),
            data().prop_map(StreamElement::SaslResponse),
            proptest::option::of(data()).prop_map(StreamElement::SaslSuccess),
            Just(StreamElement::SaslAbort),
            (proptest::option::of(proptest::sample::select(SaslCondition::ALL)), proptest::option::of(text()))
                .prop_map(|(condition, text)| StreamElement::SaslFailure(SaslFailure { condition, text })),
            any::<(bool, Option<u32>)>().prop_map(|(resume, max_s)| StreamElement::SmEnable { resume, max_s }),
            enabled.prop_map(StreamElement::SmEnabled),
            (any::<u32>(), text()).prop_map(|(h, previd)| StreamElement::SmResume { h, previd }),
            (any::<u32>(), text()).prop_map(|(h, previd)| StreamElement::SmResumed { h, previd }),
            (any::<Option<u32>>(), proptest::sample::select(StanzaCondition::ALL))
                .prop_map(|(h, condition)| StreamElement::SmFailed { h, condition }),
            Just(StreamElement::SmRequest),
            any::<u32>().prop_map(|h| StreamElement::SmAck { h }),
            Just(StreamElement::Unknown { ns: "urn:x".to_owned(), name: "y".to_owned() }),
        ]
    }

    proptest! {
        #[test]
        fn elements_read_as_they_were_written(element in element()) {
            let mut out = String::new();
            element.write(&mut Writer::new(&mut out));
            prop_assert_eq!(read(&out), element, "{}", out);
        }

        #[test]
        fn headers_read_as_they_were_written(
            kind in proptest::sample::select(StreamKind::ALL),
            from in proptest::option::of(some_jid()),
            to in proptest::option::of(some_jid()),
            id in proptest::option::of(text()),
            version: Option<(u16, u16)>,
            lang in proptest::option::of(text()),
        ) {
            let header = StreamHeader { kind, from, to, id, version, lang };
            let mut out = String::new();
            header.write(&mut out);
            out.push_str("<r xmlns='urn:xmpp:sm:3'/>");
            StreamHeader::write_end(&mut out);
            let mut framer = crate::wire::xml::Framer::new(&XmlLimits::default());
            framer.push(out.as_bytes());
            use crate::wire::xml::Frame;
            let Ok(Some(Frame::Open(open))) = framer.next() else { panic!("{out}") };
            let (read, scope) = StreamHeader::parse(open, &XmlLimits::default()).unwrap();
            prop_assert_eq!(read, header);
            let Ok(Some(Frame::Element(child))) = framer.next() else { panic!("{out}") };
            let child = TopLevel::parse(child, &scope, &XmlLimits::default()).unwrap();
            prop_assert_eq!(child, TopLevel::Stream(StreamElement::SmRequest));
            prop_assert_eq!(framer.next(), Ok(Some(Frame::Close)));
        }
    }

    #[test]
    fn a_component_shakes_hands_in_its_own_namespace() {
        for digest in ["", "aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e"] {
            let element = StreamElement::Handshake(digest.to_owned());
            let mut out = String::new();
            element.write(&mut Writer::new(&mut out));
            let read = TopLevel::parse(&out, &Scope::of(ns::COMPONENT), &XmlLimits::default());
            assert_eq!(read, Ok(TopLevel::Stream(element)));
        }
    }

    #[test]
    fn the_streams_namespace_may_have_any_prefix() {
        let limits = XmlLimits::default();
        let (_, scope) = StreamHeader::parse(
            "<str:stream xmlns:str='http://etherx.jabber.org/streams' xmlns='jabber:client' version='1.0'>",
            &limits,
        )
        .unwrap();
        let features = TopLevel::parse("<str:features/>", &scope, &limits);
        assert_eq!(features, Ok(TopLevel::Stream(StreamElement::Features(Box::default()))));
        assert!(TopLevel::parse("<stream:features/>", &scope, &limits).unwrap_err().fault.ends_stream());
        // RFC 6120 §4.8.3: the content namespace may be the one with the prefix.
        let (header, scope) =
            StreamHeader::parse("<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>", &limits)
                .unwrap();
        assert_eq!((header.kind, header.version), (StreamKind::Client, None));
        let stanza = TopLevel::parse("<c:presence><c:show>dnd</c:show></c:presence>", &scope, &limits);
        assert!(
            matches!(stanza, Ok(TopLevel::Stanza(Stanza::Presence(p))) if p.show == Some(crate::wire::stanza::Show::Dnd))
        );
    }

    #[test]
    fn headers_that_cannot_be_used_are_refused_with_their_condition() {
        let own = "xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'";
        for (text, want) in [
            ("<stream:stream xmlns='jabber:client'>".to_owned(), StreamCondition::BadNamespacePrefix),
            ("<stream xmlns='jabber:client'>".to_owned(), StreamCondition::InvalidNamespace),
            ("<s:stream xmlns:s='urn:x' xmlns='jabber:client'>".to_owned(), StreamCondition::InvalidNamespace),
            ("<s:stream xmlns:s='http://etherx.jabber.org/streams'>".to_owned(), StreamCondition::InvalidNamespace),
            (
                "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns='jabber:server'>".to_owned(),
                StreamCondition::InvalidNamespace,
            ),
            (format!("<stream:steam {own}>"), StreamCondition::BadFormat),
            (format!("<stream:stream {own} version='one'>"), StreamCondition::UnsupportedVersion),
            (format!("<stream:stream {own} from='@'>"), StreamCondition::ImproperAddressing),
            (format!("<stream:stream {own} id='&x;'>"), StreamCondition::RestrictedXml),
            ("<stream:stream".to_owned(), StreamCondition::NotWellFormed),
        ] {
            assert_eq!(header(&text), Err(want), "{text}");
        }
    }

    #[test]
    fn a_serverless_header_is_an_ordinary_one() {
        let header = header(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             from='juliet@pronto' to='romeo@forza' version='1.0'>",
        )
        .unwrap();
        assert_eq!(header.from.unwrap().as_str(), "juliet@pronto");
        assert_eq!((header.kind, header.version), (StreamKind::Client, Some((1, 0))));
    }

    #[test]
    fn the_features_of_a_server_are_read() {
        let StreamElement::Features(features) = read(
            "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
             <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1-PLUS</mechanism>\
             <mechanism> PLAIN </mechanism></mechanisms><sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>\
             <channel-binding type='tls-exporter'/></sasl-channel-binding>\
             <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>\
             <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/><sm xmlns='urn:xmpp:sm:2'/>\
             <register xmlns='http://jabber.org/features/iq-register'/><c xmlns='http://jabber.org/protocol/caps'/>\
             </stream:features>",
        ) else {
            panic!()
        };
        assert_eq!(
            *features,
            Features {
                starttls: true,
                starttls_required: true,
                mechanisms: vec!["SCRAM-SHA-1-PLUS".to_owned(), "PLAIN".to_owned()],
                channel_bindings: vec!["tls-exporter".to_owned()],
                bind: true,
                session_required: false,
                sm: true,
                rosterver: false,
                caps: None,
            }
        );
    }

    #[test]
    fn no_data_and_empty_data_are_told_apart() {
        let sasl = |inside| read(&format!("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{inside}</success>"));
        assert_eq!(sasl(""), StreamElement::SaslSuccess(None));
        assert_eq!(sasl("="), StreamElement::SaslSuccess(Some(SaslData(Vec::new()))));
        assert_eq!(sasl("dj0="), StreamElement::SaslSuccess(Some(SaslData(b"v=".to_vec()))));
    }

    #[test]
    fn a_bad_element_does_not_end_the_stream_but_bad_xml_does() {
        let fault = |text| TopLevel::parse(text, &Scope::of(ns::CLIENT), &XmlLimits::default()).unwrap_err();
        assert!(!fault("<a xmlns='urn:xmpp:sm:3' h='x'/>").fault.ends_stream());
        assert!(!fault("<a xmlns='urn:xmpp:sm:3' h='4294967296'/>").fault.ends_stream());
        assert!(fault("<a xmlns='urn:xmpp:sm:3' h='x'><b></a>").fault.ends_stream());
    }

    #[test]
    fn errors_with_unknown_conditions_are_still_errors() {
        let StreamElement::Error(error) = read("<stream:error><moon-phase xmlns='urn:x'/></stream:error>") else {
            panic!()
        };
        assert_eq!(*error, StreamError::new(StreamCondition::UndefinedCondition));
        assert_eq!(
            read("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><bad-auth/></failure>"),
            StreamElement::SaslFailure(SaslFailure { condition: None, text: None })
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let auth = StreamElement::SaslAuth { mechanism: "PLAIN".to_owned(), data: Some(SaslData(b"hunter2".to_vec())) };
        assert!(!format!("{auth:?}").contains("104"));
    }
}

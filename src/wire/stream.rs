//! Everything of a stream that is not a stanza: header, features, STARTTLS, SASL, stream errors (RFC 6120 §4 to §6),
//! channel-binding types (XEP-0440 1.0.0), stream management (XEP-0198 1.6.3), component handshake (XEP-0114 1.6).
//! Read RFC 6120 §4.7 and §4.8 before touching this file.

use super::disco::Caps;
use super::jid::Jid;
use super::stanza::Stanza;
use crate::fault::{StanzaCondition, StreamCondition, names};

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

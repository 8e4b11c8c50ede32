//! What a stream is told and what it tells: configuration, inputs, transmits, events, faults. Read RFC 6120 §4.9 and §6.5
//! before touching this file.

use super::sasl::{SaslFault, SaslPolicy};
use crate::config::Secret;
use crate::config::{StreamLimits, StreamTimers, XmlLimits};
use crate::fault::Malformed;
use crate::wire::jid::{FullJid, Jid};
use crate::wire::stanza::{Stanza, StanzaError, StanzaFault};
use crate::wire::stream::{SaslCondition, StreamError};

/// Whether the stream may run without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsPolicy {
    /// Direct TLS or STARTTLS; without it nothing is sent but the header.
    #[default]
    Required,
    /// No TLS where the server is on this machine and does not insist. For tests and local gateways.
    PlaintextLoopbackOnly,
}

/// Version of the TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246
    Tls12,
    /// RFC 8446
    Tls13,
}

/// What the login needs to know of the TLS connection.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// Its version.
    pub version: TlsVersion,
    /// 32 bytes exported with label `EXPORTER-Channel-Binding` and no context (RFC 9266). With TLS 1.2 only if the
    /// extended master secret was negotiated.
    pub exporter: Option<Vec<u8>>,
}

impl std::fmt::Debug for TlsInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsInfo").field("version", &self.version).field("exporter", &self.exporter.is_some()).finish()
    }
}

/// Everything a stream is told once.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// The account; a resource in it is asked for.
    pub jid: Jid,
    /// Its password.
    pub password: Secret,
    /// Resource asked for, before the one in `jid`; `None` lets the server choose.
    pub resource: Option<String>,
    /// TLS or not.
    pub tls: TlsPolicy,
    /// Mechanisms.
    pub sasl: SaslPolicy,
    /// Caps on the server's XML.
    pub xml: XmlLimits,
    /// Deadlines.
    pub timers: StreamTimers,
    /// Caps on what is kept.
    pub limits: StreamLimits,
}

impl StreamConfig {
    /// TLS required, defaults elsewhere.
    #[must_use]
    pub fn new(jid: Jid, password: Secret) -> Self {
        Self {
            jid,
            password,
            resource: None,
            tls: TlsPolicy::default(),
            sasl: SaslPolicy::default(),
            xml: XmlLimits::default(),
            timers: StreamTimers::default(),
            limits: StreamLimits::default(),
        }
    }
}

/// What the shell tells the stream.
#[derive(Debug)]
pub enum StreamInput<'a> {
    /// A connection is up. `tls` is set if TLS runs already (direct TLS, XEP-0368).
    Connected {
        /// Direct TLS.
        tls: Option<TlsInfo>,
        /// The server's address is a loopback address.
        loopback: bool,
    },
    /// Bytes from the server, after TLS.
    Bytes(&'a [u8]),
    /// The TLS handshake after [`StreamTransmit::StartTls`] is complete and the certificate is checked.
    TlsStarted(TlsInfo),
    /// The connection ended or could not be made; the text is for people.
    Closed(String),
}

/// What the shell has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamTransmit {
    /// Send these.
    Bytes(Vec<u8>),
    /// Begin the TLS handshake, with the account's domain as the server name.
    StartTls,
    /// Close the connection after everything before is sent. [`StreamInput::Closed`] need not follow.
    Close,
}

/// What happened. Each connection ends with exactly one of `Lost`, `AuthFailed`, `Refused`, `SeeOtherHost`, `Closed`;
/// the stream then waits for the next [`StreamInput::Connected`].
#[derive(Debug, Clone, PartialEq)]
pub enum StreamEvent {
    /// Stanzas flow.
    Online {
        /// The address bound.
        jid: FullJid,
        /// True: the same session goes on, nothing was lost, roster and presence hold (XEP-0198). False: a new session;
        /// presence has to be sent.
        resumed: bool,
    },
    /// A stanza came in.
    Stanza(Box<Stanza>),
    /// A stanza that could not be read came in. A get or set has to be answered (`StanzaFault::answer`) by whoever knows
    /// what its sender may learn; for a result or an error the pending request has to end.
    Malformed(Box<StanzaFault>),
    /// The server handled our stanza with this id (XEP-0198).
    Acked {
        /// Of the stanza.
        id: String,
    },
    /// Stanzas of the session that ended, about which nobody can tell whether the server handled them. They are not sent
    /// again.
    Undelivered {
        /// Of the stanzas, oldest first.
        ids: Vec<String>,
    },
    /// The connection ended; a new one may do better.
    Lost {
        /// The session can be resumed, so that calls and presence live on.
        resumable: bool,
        /// Why.
        why: StreamFault,
    },
    /// The server refuses user name or password.
    AuthFailed {
        /// RFC 6120 §6.5.
        condition: Option<SaslCondition>,
        /// For people.
        text: Option<String>,
    },
    /// The connection ended for a reason that another attempt will not cure.
    Refused(StreamFault),
    /// The server sends us elsewhere (RFC 6120 §4.9.3.19). The new host has to have a certificate for the account's domain.
    SeeOtherHost {
        /// Host name or address.
        host: String,
        /// Port, if named.
        port: Option<u16>,
    },
    /// The stream was closed as we wanted.
    Closed,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFault {
    /// The server offers no STARTTLS and TLS is required. No password was sent.
    #[error("the server offers no TLS")]
    NoStartTls,
    /// The server answered STARTTLS with failure.
    #[error("the server refuses TLS")]
    TlsRefused,
    /// Plain text was allowed for loopback, and the server is elsewhere.
    #[error("plain text is only allowed on loopback")]
    PlaintextOffLoopback,
    /// Ended on our side during SASL.
    #[error(transparent)]
    Sasl(#[from] SaslFault),
    /// The server offers no resource binding.
    #[error("the server offers no resource binding")]
    NoBind,
    /// The server refuses to bind a resource.
    #[error("the server gives us no resource ({})", .0.condition)]
    BindRefused(Box<StanzaError>),
    /// The server does not speak XMPP 1.0.
    #[error("the server does not speak XMPP 1.0")]
    Version,
    /// The server's stream error.
    #[error("the server ended the stream: {} ({})", .0.condition.in_words(), .0.condition)]
    Stream(Box<StreamError>),
    /// We sent a stream error because of this.
    #[error("the server sent {0}")]
    Xml(Malformed),
    /// An element where it may not be.
    #[error("the server sent something unexpected while we awaited {0}")]
    Unexpected(StreamPhase),
    /// Nothing came in time.
    #[error("the server was silent while we awaited {0}")]
    Timeout(StreamPhase),
    /// The server acknowledges stanzas that were never sent (XEP-0198 §4).
    #[error("the server acknowledged more than was sent")]
    HandledCountTooHigh,
    /// The server closed the stream.
    #[error("the server closed the stream")]
    ServerClosed,
    /// The connection ended.
    #[error("connection ended: {0}")]
    Connection(String),
}

/// Which answer of the server is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPhase {
    /// No connection.
    Offline,
    /// The header.
    Header,
    /// The features.
    Features,
    /// `<proceed/>`
    Proceed,
    /// The TLS handshake.
    Tls,
    /// A SASL step.
    Sasl,
    /// The answer to `<resume/>`.
    Resume,
    /// The answer to bind.
    Bind,
    /// The answer to `<enable/>`.
    Enable,
    /// Logged in.
    Online,
    /// The end of the stream.
    Closing,
}

impl std::fmt::Display for StreamPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StreamPhase::Offline => "a connection",
            StreamPhase::Header => "its greeting",
            StreamPhase::Features => "its features",
            StreamPhase::Proceed | StreamPhase::Tls => "the start of TLS",
            StreamPhase::Sasl => "its word on our password",
            StreamPhase::Resume => "the old session",
            StreamPhase::Bind => "a resource",
            StreamPhase::Enable => "acknowledgements",
            StreamPhase::Online => "stanzas",
            StreamPhase::Closing => "its goodbye",
        })
    }
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamTimer {
    /// A step of the login.
    Phase,
    /// Silence: a ping is due.
    Idle,
    /// A ping or acknowledgement request is unanswered.
    Reply,
    /// An acknowledgement has to be asked for.
    AckRequest,
    /// The server's half is still open.
    Close,
}

/// Why a stanza was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// As many stanzas or bytes wait already as [`StreamLimits`] allows.
    #[error("too much is waiting to be sent")]
    QueueFull,
}

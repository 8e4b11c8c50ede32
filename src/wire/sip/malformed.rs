//! What is wrong with a message, and what it can still be answered with. Read RFC 4475 §3.1.2 and RFC 3261 §8.2.6 before
//! touching this file.

use super::{Method, SipText, Status, Via};

/// What is wrong with a message; the first thing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// No byte that could be a message: a keep-alive.
    #[error("nothing but a keep-alive")]
    KeepAlive,
    /// Not `METHOD SP URI SP SIP/2.0` nor `SIP/2.0 SP code SP phrase` with single spaces (RFC 3261 §7.1, §7.2).
    #[error("no start line of SIP")]
    StartLine,
    /// Another version than 2.0; answered with 505.
    #[error("another version of SIP")]
    Version,
    /// Request-URI that is none, in `<>`, or with headers (RFC 3261 §19.1.1).
    #[error("a bad Request-URI")]
    RequestUri,
    /// A status code outside 100 to 699.
    #[error("a bad status code")]
    StatusCode,
    /// The empty line after the headers is missing.
    #[error("the headers do not end")]
    NoEnd,
    /// A line that ends in a bare LF, holds a bare CR, or continues nothing.
    #[error("a bad line ending or continuation")]
    Line,
    /// A line that is no `name: value`.
    #[error("a line that is no header")]
    HeaderLine,
    /// White space before the colon of an unknown header: another reader may see another name (threat: header smuggling).
    #[error("white space before a colon")]
    SpaceBeforeColon,
    /// A header whose value is not of its grammar.
    #[error("a bad {0}")]
    Header(&'static str),
    /// A header that may stand once stands twice.
    #[error("{0} more than once")]
    Twice(&'static str),
    /// A header that every message has is missing (RFC 3261 §8.1.1).
    #[error("no {0}")]
    Missing(&'static str),
    /// The method of CSeq is not that of the request (RFC 3261 §8.1.1.5).
    #[error("CSeq is of another method")]
    CseqMethod,
    /// Content-Length says more than the datagram has (RFC 3261 §18.3).
    #[error("Content-Length is larger than the datagram")]
    Truncated,
    /// More headers, parameters or bytes than [`crate::config::sip_wire`] allows; answered with 513.
    #[error("too large")]
    TooLarge,
}

impl Flaw {
    /// What a request with this flaw is answered with.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Version => Status::VERSION_NOT_SUPPORTED,
            Self::TooLarge => Status::MESSAGE_TOO_LARGE,
            Self::KeepAlive
            | Self::StartLine
            | Self::RequestUri
            | Self::StatusCode
            | Self::NoEnd
            | Self::Line
            | Self::HeaderLine
            | Self::SpaceBeforeColon
            | Self::Header(_)
            | Self::Twice(_)
            | Self::Missing(_)
            | Self::CseqMethod
            | Self::Truncated => Status::BAD_REQUEST,
        }
    }
}

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flaw}")]
pub struct Malformed {
    /// What is wrong.
    pub flaw: Flaw,
    /// How to answer. `None`: it is to be dropped, as responses, ACK and what has no legible Via are.
    pub answer: Option<Box<Salvage>>,
}

/// What a request that is refused unread is answered with: what of its headers a response repeats, as far as it is
/// legible (RFC 3261 §8.2.6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvage {
    /// 400, 505 or 513.
    pub status: Status,
    /// Why, for people.
    pub reason: SipText,
    /// Of the request line.
    pub method: Method,
    /// Topmost first, at least one. `received` and `rport` are the carrier's to add.
    pub via: Vec<Via>,
    /// As it stood.
    pub from: Option<SipText>,
    /// As it stood.
    pub to: Option<SipText>,
    /// As it stood.
    pub call_id: Option<SipText>,
    /// As it stood.
    pub cseq: Option<SipText>,
}

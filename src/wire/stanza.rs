//! iq, message, presence and stanza errors (RFC 6120 §8, RFC 6121), with carbons (XEP-0280 1.0.1), forwarding (0297 1.0),
//! delay (0203 2.0) and hints (0334 1.0.0). Read RFC 6120 §8.2.3 and §8.3 before touching this file.

use super::bytestream::{Bytestreams, Ibb};
use super::disco::{Caps, DiscoInfo, DiscoItems};
use super::jid::Jid;
use super::jingle::{Jingle, Jmi};
use super::roster::{Bind, Roster};
use super::services::{Credentials, Services};
use super::time::Stamp;
use crate::fault::{Answer, ErrorType, JingleCondition, Malformed, StanzaCondition, names};

/// A stanza, RFC 6120 §8.
#[derive(Debug, Clone, PartialEq)]
pub enum Stanza {
    /// RFC 6120 §8.2.3
    Iq(Iq),
    /// RFC 6121 §5
    Message(Message),
    /// RFC 6121 §4
    Presence(Presence),
}

names! {
    /// The three stanzas.
    pub enum StanzaKind { Iq = "iq", Message = "message", Presence = "presence" }
}

names! {
    /// RFC 6120 §8.2.3.
    pub enum IqType { Error = "error", Get = "get", Result = "result", Set = "set" }
}

/// A stanza that could not be read, with what is needed to answer it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("malformed stanza: {fault}")]
pub struct StanzaFault {
    /// `None` only if the XML ended before the root's name.
    pub kind: Option<StanzaKind>,
    /// Who sent it, if that could be read.
    pub from: Option<Jid>,
    /// Whom it is for, if that could be read.
    pub to: Option<Jid>,
    /// Its id.
    pub id: Option<String>,
    /// Type of an IQ: only get and set are answered, result and error end a pending request.
    pub iq: Option<IqType>,
    /// What is wrong. [`Malformed::ends_stream`] tells whether the stream can go on.
    pub fault: Malformed,
}

/// RFC 6120 §8.2.3.
#[derive(Debug, Clone, PartialEq)]
pub struct Iq {
    /// Absent: from one's own account or server.
    pub from: Option<Jid>,
    /// Absent: for one's own account.
    pub to: Option<Jid>,
    /// Joins request and answer.
    pub id: String,
    /// Type and payload.
    pub kind: IqKind,
}

/// Type and payload of an IQ.
#[derive(Debug, Clone, PartialEq)]
pub enum IqKind {
    /// Asks.
    Get(IqPayload),
    /// Orders.
    Set(IqPayload),
    /// Answers.
    Result(Option<IqPayload>),
    /// Refuses.
    Error(Box<StanzaError>),
}

/// Payload of an IQ, by namespace.
#[derive(Debug, Clone, PartialEq)]
pub enum IqPayload {
    /// XEP-0166
    Jingle(Box<Jingle>),
    /// XEP-0030
    DiscoInfo(Box<DiscoInfo>),
    /// XEP-0030
    DiscoItems(Box<DiscoItems>),
    /// RFC 6121 §2
    Roster(Box<Roster>),
    /// RFC 6120 §7
    Bind(Box<Bind>),
    /// RFC 3921 §3
    Session,
    /// XEP-0199
    Ping,
    /// XEP-0215 §3.1
    Services(Box<Services>),
    /// XEP-0215 §3.2
    Credentials(Box<Credentials>),
    /// XEP-0280 §4
    CarbonsEnable,
    /// XEP-0280 §5
    CarbonsDisable,
    /// XEP-0065
    Bytestreams(Box<Bytestreams>),
    /// XEP-0047
    Ibb(Box<Ibb>),
    /// A namespace that is not known here; answered with service-unavailable.
    Unknown {
        /// Its namespace.
        ns: String,
        /// Its local name.
        name: String,
    },
}

/// RFC 6120 §8.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StanzaError {
    /// What is wrong; undefined-condition if there is none or an unknown one.
    pub condition: StanzaCondition,
    /// What to do about it; the condition's usual one if absent.
    pub kind: ErrorType,
    /// XEP-0166 §10.
    pub jingle: Option<JingleCondition>,
    /// Another condition of an application: namespace and local name.
    pub specific: Option<(String, String)>,
    /// Address inside `<gone/>` or `<redirect/>`.
    pub address: Option<String>,
    /// For people.
    pub text: Option<String>,
    /// Who refuses.
    pub by: Option<Jid>,
}

names! {
    /// RFC 6121 §5.2.2; an unknown type reads as normal.
    pub enum MessageType {
        Chat = "chat", Error = "error", Groupchat = "groupchat", Headline = "headline", Normal = "normal",
    }
}

/// RFC 6121 §5. Children that are not known here are not kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Absent: from one's own account or server.
    pub from: Option<Jid>,
    /// Absent: for one's own account.
    pub to: Option<Jid>,
    /// Its id.
    pub id: Option<String>,
    /// Its type.
    pub kind: MessageType,
    /// The first body.
    pub body: Option<String>,
    /// XEP-0353
    pub jmi: Option<Box<Jmi>>,
    /// XEP-0280; a carbon is only to be believed if `from` is one's own bare JID.
    pub carbon: Option<Box<Carbon>>,
    /// XEP-0047 data, where the stream runs in messages.
    pub ibb: Option<Box<Ibb>>,
    /// XEP-0203
    pub delay: Option<Delay>,
    /// XEP-0334
    pub hints: Vec<Hint>,
    /// With type error.
    pub error: Option<Box<StanzaError>>,
}

names! {
    /// XEP-0334 §4.
    pub enum Hint {
        NoCopy = "no-copy", NoPermanentStore = "no-permanent-store", NoStore = "no-store", Store = "store",
    }
}

names! {
    /// XEP-0280 §6.
    pub enum CarbonDirection { Received = "received", Sent = "sent" }
}

/// A copy of a message that another resource of the same account sent or received, XEP-0280.
#[derive(Debug, Clone, PartialEq)]
pub struct Carbon {
    /// Which of both.
    pub direction: CarbonDirection,
    /// The copy; a carbon inside it is dropped.
    pub message: Message,
    /// XEP-0297 delay.
    pub delay: Option<Delay>,
}

/// XEP-0203.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// When it was sent.
    pub stamp: Stamp,
    /// Who delayed it.
    pub from: Option<Jid>,
}

names! {
    /// RFC 6121 §4.7.1. On the wire `available` is the absence of the attribute.
    pub enum PresenceType {
        Available = "available", Error = "error", Probe = "probe", Subscribe = "subscribe", Subscribed = "subscribed",
        Unavailable = "unavailable", Unsubscribe = "unsubscribe", Unsubscribed = "unsubscribed",
    }
}

names! {
    /// RFC 6121 §4.7.2.1.
    pub enum Show { Away = "away", Chat = "chat", Dnd = "dnd", Xa = "xa" }
}

/// RFC 6121 §4.
#[derive(Debug, Clone, PartialEq)]
pub struct Presence {
    /// Absent: from one's own account or server.
    pub from: Option<Jid>,
    /// Absent: for everybody subscribed.
    pub to: Option<Jid>,
    /// Its id.
    pub id: Option<String>,
    /// Its type.
    pub kind: PresenceType,
    /// How available.
    pub show: Option<Show>,
    /// For people, the first one.
    pub status: Option<String>,
    /// 0 if absent or unreadable.
    pub priority: i8,
    /// XEP-0115
    pub caps: Option<Box<Caps>>,
    /// XEP-0203
    pub delay: Option<Delay>,
    /// With type error.
    pub error: Option<Box<StanzaError>>,
}

impl Iq {
    /// An IQ without `from`.
    #[must_use]
    pub fn new(to: Option<Jid>, id: impl Into<String>, kind: IqKind) -> Self {
        Self { from: None, to, id: id.into(), kind }
    }
}

impl Message {
    /// An empty message without `from`.
    #[must_use]
    pub fn new(to: Option<Jid>, kind: MessageType) -> Self {
        Self {
            from: None,
            to,
            id: None,
            kind,
            body: None,
            jmi: None,
            carbon: None,
            ibb: None,
            delay: None,
            hints: Vec::new(),
            error: None,
        }
    }
}

impl Presence {
    /// A presence without `from` and payload.
    #[must_use]
    pub fn new(to: Option<Jid>, kind: PresenceType) -> Self {
        Self {
            from: None,
            to,
            id: None,
            kind,
            show: None,
            status: None,
            priority: 0,
            caps: None,
            delay: None,
            error: None,
        }
    }
}

impl StanzaError {
    /// An error without text.
    #[must_use]
    pub fn new(kind: ErrorType, condition: StanzaCondition) -> Self {
        Self { condition, kind, jingle: None, specific: None, address: None, text: None, by: None }
    }
}

impl From<Answer> for StanzaError {
    fn from(answer: Answer) -> Self {
        Self { jingle: answer.jingle, ..Self::new(answer.kind, answer.condition) }
    }
}

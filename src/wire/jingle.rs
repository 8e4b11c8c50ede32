//! Jingle's own elements: action, content, reason, group (XEP-0166 1.1.2, XEP-0338 1.0.0) and Jingle Message Initiation
//! (XEP-0353 0.8.0). Read XEP-0166 §7 and XEP-0353 §3 before touching this file.

use super::candidate::Transport;
use super::description::{Description, Info};
use super::jid::Jid;
use crate::fault::{ReasonCondition, names};

names! {
    /// What a Jingle IQ asks for, XEP-0166 §7.2, in the XEP's order.
    pub enum Action {
        ContentAccept = "content-accept", ContentAdd = "content-add", ContentModify = "content-modify",
        ContentReject = "content-reject", ContentRemove = "content-remove", DescriptionInfo = "description-info",
        SecurityInfo = "security-info", SessionAccept = "session-accept", SessionInfo = "session-info",
        SessionInitiate = "session-initiate", SessionTerminate = "session-terminate",
        TransportAccept = "transport-accept", TransportInfo = "transport-info", TransportReject = "transport-reject",
        TransportReplace = "transport-replace",
    }
}

names! {
    /// Who generated a content, XEP-0166 §7.3.
    pub enum Creator { Initiator = "initiator", Responder = "responder" }
}

names! {
    /// Which side sends, XEP-0166 §7.3.
    pub enum Senders { Both = "both", Initiator = "initiator", None = "none", Responder = "responder" }
}

/// Session id, an XML NMTOKEN of at least 128 random bits when it is ours (J166-30).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(pub String);

impl std::fmt::Display for Sid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `<jingle/>` element.
#[derive(Debug, Clone, PartialEq)]
pub struct Jingle {
    /// What is asked for.
    pub action: Action,
    /// Session id.
    pub sid: Sid,
    /// Only read on session-initiate (J166-24, -25).
    pub initiator: Option<Jid>,
    /// Only read on session-accept (J166-28).
    pub responder: Option<Jid>,
    /// In the order of the wire.
    pub contents: Vec<Content>,
    /// XEP-0338 groups.
    pub groups: Vec<Group>,
    /// May ride on any action (J166-56).
    pub reason: Option<Reason>,
    /// Payload of a session-info, if any: one of ours or the name of an unknown one.
    pub info: Option<Info>,
}

impl Jingle {
    /// An action without contents.
    #[must_use]
    pub fn new(action: Action, sid: Sid) -> Self {
        Self {
            action,
            sid,
            initiator: None,
            responder: None,
            contents: Vec::new(),
            groups: Vec::new(),
            reason: None,
            info: None,
        }
    }
}

/// The `<content/>` element, XEP-0166 §7.3.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// Missing on the wire reads as initiator (J166-51).
    pub creator: Creator,
    /// Unique together with the creator.
    pub name: String,
    /// `None`: the attribute is absent (both, where a value is needed; J166-35 wants it present on content-modify).
    pub senders: Option<Senders>,
    /// `session` unless the attribute says otherwise.
    pub disposition: Disposition,
    /// What is exchanged.
    pub description: Option<Description>,
    /// How it travels.
    pub transport: Option<Transport>,
    /// Namespace of a `<security/>` child, none of which is implemented.
    pub security: Option<String>,
}

/// RFC 3261/5621 content disposition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Disposition {
    /// `session`
    #[default]
    Session,
    /// `early-session` (XEP-0269)
    EarlySession,
    /// Anything else from the IANA list, kept as text.
    Other(String),
}

/// The `<reason/>` element, XEP-0166 §7.4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Exactly one (J166-55).
    pub condition: ReasonCondition,
    /// Sid of the other session, only with `alternative-session` (J166-19).
    pub alternative: Option<Sid>,
    /// For people.
    pub text: Option<String>,
    /// At most one foreign element: namespace and local name.
    pub detail: Option<(String, String)>,
}

impl Reason {
    /// A reason without text.
    #[must_use]
    pub fn new(condition: ReasonCondition) -> Self {
        Self { condition, alternative: None, text: None, detail: None }
    }
}

/// XEP-0338 group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `BUNDLE`, `LS`, …
    pub semantics: String,
    /// Content names in order; the first is the tagged transport.
    pub names: Vec<String>,
}

/// A Jingle Message Initiation element inside a message, XEP-0353.
#[derive(Debug, Clone, PartialEq)]
pub struct Jmi {
    /// Becomes the sid of the session (J353-02).
    pub id: Sid,
    /// What it says.
    pub kind: JmiKind,
}

/// The elements of XEP-0353 §3 (and of its 0.3 form, read only).
#[derive(Debug, Clone, PartialEq)]
pub enum JmiKind {
    /// One description a medium: media name (`audio`, `video`) for RTP, `None` for another namespace.
    Propose(Vec<Proposed>),
    /// The device rings.
    Ringing,
    /// The device takes the call (0.3: `accept` is the copy for one's own devices).
    Proceed,
    /// 0.3 only: copy of proceed to one's own devices.
    Accept,
    /// The user or device declines.
    Reject {
        /// Absent from older peers.
        reason: Option<Reason>,
        /// Lost against a crossed propose (J353-10).
        tie_break: bool,
    },
    /// The caller gives up.
    Retract {
        /// Absent from older peers.
        reason: Option<Reason>,
        /// Lost against a crossed propose (J353-13).
        tie_break: bool,
    },
    /// The session is over.
    Finish {
        /// Absent from older peers.
        reason: Option<Reason>,
        /// Sid of the session that took over (J353-14).
        migrated: Option<Sid>,
    },
}

/// What a propose announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Namespace of the description.
    pub ns: String,
    /// `media` of an RTP description.
    pub media: Option<String>,
}

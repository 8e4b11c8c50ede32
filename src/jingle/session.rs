//! One Jingle session: the verbs of our side and what comes out; `inbound.rs` holds what the peer asks for.
//! Read XEP-0166 §5 to §7 before touching this file.

use crate::config::{JingleTimers, SessionLimits};
use crate::fault::{Answer, JingleCondition, ReasonCondition, StanzaCondition};
use crate::jingle::content::{Content, ContentKey};
use crate::wire::candidate::{IceTransport, Transport};
use crate::wire::description::{Description, Info};
use crate::wire::jid::Jid;
use crate::wire::jingle::{self as element, Creator, Group, Jingle, Reason, Senders, Sid};
use crate::wire::ns;
use std::sync::Arc;
use std::time::Instant;

/// Who started the session, XEP-0166 §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sent session-initiate.
    Initiator,
    /// Received it.
    Responder,
}

impl Role {
    /// The other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        }
    }

    /// The value of `creator` for what this side generates.
    #[must_use]
    pub const fn creator(self) -> Creator {
        match self {
            Role::Initiator => Creator::Initiator,
            Role::Responder => Creator::Responder,
        }
    }
}

/// What a session must know of the house it lives in; shared by all sessions of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionContext {
    /// What is accepted and shown.
    pub policy: SessionPolicy,
    /// When to give up.
    pub timers: JingleTimers,
    /// Caps on the peer.
    pub limits: SessionLimits,
}

/// What a session accepts from a peer and shows to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPolicy {
    /// RTP without a DTLS fingerprint ends the session with security-error (J320-05).
    pub require_dtls: bool,
    /// A responder's transport-info may leave before the user accepted (J176-25: peers who may know our addresses).
    pub early_transport: bool,
    /// Namespaces of the descriptions that work here.
    pub applications: &'static [&'static str],
    /// Namespaces of the transports that work here.
    pub transports: &'static [&'static str],
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self { require_dtls: true, early_transport: false, applications: &[ns::RTP], transports: &[ns::ICE_UDP] }
    }
}

/// Who talks, about which session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// Our full JID (a bare one on a link-local stream, XEP-0174).
    pub local: Jid,
    /// The peer's full JID; every stanza of the session goes there and comes from there (J166-27, J166-65).
    pub peer: Jid,
    /// Session id.
    pub sid: Sid,
    /// Unique among the sessions of this endpoint; part of every IQ id of the session.
    pub serial: u64,
}

/// What the session wants to send.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionTransmit {
    /// Where to.
    pub to: Jid,
    /// IQ id: a new one for a set, the request's own for an answer.
    pub id: String,
    /// What.
    pub body: Body,
}

/// Payload of an IQ.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// `<iq type='set'><jingle/></iq>`
    Set(Box<Jingle>),
    /// `<iq type='result'/>`, empty
    Result,
    /// `<iq type='error'/>`
    Error(Refusal),
}

/// Payload of an IQ error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Conditions and type.
    pub answer: Answer,
    /// For people, if there is something to say.
    pub text: Option<&'static str>,
    /// Content of `<redirect/>`: an xmpp: URI (J166-06).
    pub redirect: Option<String>,
}

/// An IQ of the peer, its `from` already checked against the session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionInput {
    /// `type='set'` with a Jingle payload.
    Set {
        /// IQ id.
        id: String,
        /// Payload.
        jingle: Box<Jingle>,
    },
    /// `type='result'`, whatever it holds.
    Result {
        /// IQ id.
        id: String,
    },
    /// `type='error'`, whatever it holds.
    Error {
        /// IQ id.
        id: String,
        /// What could be read of it.
        error: IqError,
    },
}

/// What could be read of an IQ error; an error without `<error/>` counts all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IqError {
    /// RFC 6120 condition.
    pub condition: Option<StanzaCondition>,
    /// XEP-0166 §10 condition.
    pub jingle: Option<JingleCondition>,
    /// Content of `<redirect/>` or `<gone/>`.
    pub redirect: Option<String>,
}

/// What happened in a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// The peer calls; the user is to be asked (J166-10).
    Incoming {
        /// Contents that can work here, candidates included.
        contents: Vec<element::Content>,
        /// XEP-0338 groups, restricted to those contents.
        groups: Vec<Group>,
    },
    /// The peer's device acknowledged our session-initiate.
    Delivered,
    /// The peer's device alerts its user.
    Ringing,
    /// The peer accepted: the session is active.
    Accepted {
        /// Contents it accepted, candidates included; the others are gone.
        contents: Vec<element::Content>,
        /// Answer groups, restricted to ours (J338-03).
        groups: Vec<Group>,
    },
    /// New facts about the peer's transport.
    RemoteTransport {
        /// Which content.
        content: ContentKey,
        /// Credentials, candidates, fingerprints as far as this stanza had them, credentials completed from before.
        transport: IceTransport,
        /// The peer restarts ICE and awaits our new credentials by [`Session::send_transport_info`] (J176-19).
        restart: bool,
    },
    /// Hold, mute, active, digit, file news: everything of session-info but ringing.
    RemoteInfo(Info),
    /// The peer does not understand a session-info of ours; nothing else changes (J166-67).
    InfoUnsupported,
    /// The peer proposes further contents: [`Session::content_accept`] or [`Session::content_reject`] (J166-33).
    ContentAdded {
        /// What it proposes, candidates included.
        contents: Vec<element::Content>,
    },
    /// The peer took contents of ours.
    ContentAccepted {
        /// Its halves.
        contents: Vec<element::Content>,
    },
    /// A content of ours is refused and gone.
    ContentRejected {
        /// Which.
        content: ContentKey,
        /// The peer's reason; none if its IQ error refused it or a tie was lost.
        reason: Option<Reason>,
    },
    /// The peer took a content out; it is gone, with no answer due (J166-40).
    ContentRemoved {
        /// Which.
        content: ContentKey,
        /// The peer's reason.
        reason: Option<Reason>,
    },
    /// The direction of a content changed: by the peer's content-modify, or back because ours was refused.
    ContentModified {
        /// Which.
        content: ContentKey,
        /// In force now.
        senders: Senders,
    },
    /// The peer's description changed; advisory (J167-26).
    DescriptionChanged {
        /// Which content.
        content: ContentKey,
        /// Only what changed.
        description: Description,
    },
    /// The peer wants another transport: [`Session::transport_accept`] or [`Session::transport_reject`] (J166-45).
    TransportReplaceAsked {
        /// Which content.
        content: ContentKey,
        /// The peer's half.
        transport: Transport,
    },
    /// The peer took our new transport.
    TransportReplaced {
        /// Which content.
        content: ContentKey,
        /// The peer's half.
        transport: Transport,
    },
    /// The peer keeps the old transport, or our replace lost a tie.
    TransportReplaceRefused {
        /// Which content.
        content: ContentKey,
    },
    /// The session is over; the last event of it.
    Ended(End),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// One of the 17.
    pub reason: ReasonCondition,
    /// Who ended it.
    pub by: EndedBy,
    /// The peer's text, or ours.
    pub text: Option<String>,
    /// Sid of the session that goes on instead (J166-19).
    pub alternative: Option<Sid>,
    /// Where the peer says to call instead, if its bare JID is the same (J166-64).
    pub redirect: Option<Jid>,
}

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// Our side, by a verb or by a rule.
    Local,
    /// The peer's session-terminate.
    Remote,
    /// The peer's IQ error: the session never was, or is not known any more; with the condition.
    Refused(Option<StanzaCondition>),
    /// A timer.
    Timeout,
    /// The peer's crossed session-initiate won (J166-46).
    TieBreak,
}

/// Where a session stands, for display and for the table of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// No session has this sid.
    None,
    /// Offered, not accepted.
    Pending,
    /// Accepted; not yet necessarily connected (J166-11).
    Active,
    /// Terminated.
    Ended,
}

/// Why a timer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// An IQ awaits its answer (J166-66).
    Iq,
    /// A call awaits its user.
    Ring,
    /// An offer awaits the fingerprint that its empty transport left out.
    Fingerprint,
    /// The peer became unavailable (J166-18).
    Unavailable,
}

/// A verb that this state does not allow; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// Only the responder of a pending session may.
    #[error("only the responder of a pending session may do this")]
    NotRinging,
    /// The session is over.
    #[error("the session has ended")]
    Ended,
    /// No such session here.
    #[error("no session has this handle")]
    NoSession,
    /// No content has that key.
    #[error("no content has that creator and name")]
    NoContent,
    /// A content lacks its description or transport, or there is none at all (J166-01, J166-42).
    #[error("a content lacks its description or transport")]
    Incomplete,
    /// A content of that creator and name exists (J166-52).
    #[error("a content of that creator and name exists")]
    Duplicate,
    /// The peer asked nothing that this would answer.
    #[error("nothing is pending that this would answer")]
    NothingPending,
    /// The peer's change of direction was countered once already (J166-37).
    #[error("this direction was countered once already")]
    Countered,
    /// The cap on sessions is reached.
    #[error("no more sessions fit")]
    NoResources,
}

/// One Jingle session.
#[derive(Debug)]
pub struct Session {
    parties: Parties,
    role: Role,
    context: Arc<SessionContext>,
}

#[allow(unused_variables, missing_docs)]
impl Session {
    pub fn initiate(now: Instant, parties: Parties, context: Arc<SessionContext>, contents: Vec<element::Content>, groups: Vec<Group>) -> Result<Self, Misuse> {
        Ok(Self { parties, role: Role::Initiator, context })
    }
    pub fn handle_input(&mut self, now: Instant, input: SessionInput) {}
    pub fn handle_timeout(&mut self, now: Instant) {}
    pub fn poll_transmit(&mut self) -> Option<SessionTransmit> { None }
    pub fn poll_event(&mut self) -> Option<SessionEvent> { None }
    pub fn poll_timeout(&self) -> Option<(Instant, Why)> { None }

    pub fn accept(&mut self, now: Instant, contents: Vec<element::Content>, groups: Vec<Group>) -> Result<(), Misuse> { Err(Misuse::NotRinging) }
    pub fn ring(&mut self, now: Instant) -> Result<(), Misuse> { Err(Misuse::NotRinging) }
    pub fn reject(&mut self, now: Instant, reason: Reason) -> Result<(), Misuse> { Err(Misuse::NotRinging) }
    /// Default reason: cancel (initiator, pending), decline (responder, pending), success (active).
    pub fn hang_up(&mut self, now: Instant, reason: Option<Reason>) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn hold(&mut self, now: Instant, on: bool) -> Result<(), Misuse> { Err(Misuse::Ended) }
    /// `None`: every content.
    pub fn mute(&mut self, now: Instant, on: bool, content: Option<&ContentKey>) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn active(&mut self, now: Instant) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn send_info(&mut self, now: Instant, info: Info) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn ping(&mut self, now: Instant) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn content_add(&mut self, now: Instant, contents: Vec<element::Content>) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn content_accept(&mut self, now: Instant, contents: Vec<element::Content>) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn content_reject(&mut self, now: Instant, content: &ContentKey, reason: Reason) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn content_modify(&mut self, now: Instant, content: &ContentKey, senders: Senders) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn content_remove(&mut self, now: Instant, content: &ContentKey, reason: Option<Reason>) -> Result<(), Misuse> { Err(Misuse::Ended) }
    /// Missing credentials are filled in; before the user accepted it is kept back unless the policy lets it go (J176-25).
    pub fn send_transport_info(&mut self, now: Instant, content: &ContentKey, transport: IceTransport) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn description_info(&mut self, now: Instant, content: &ContentKey, description: Description) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn transport_replace(&mut self, now: Instant, content: &ContentKey, transport: Transport) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn transport_accept(&mut self, now: Instant, content: &ContentKey, transport: Transport) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn transport_reject(&mut self, now: Instant, content: &ContentKey) -> Result<(), Misuse> { Err(Misuse::Ended) }
    pub fn peer_unavailable(&mut self, now: Instant) {}
    pub fn peer_available(&mut self) {}
    /// Signalling, checks or media of the peer arrived (J166-18); only moves a running unavailable timer.
    pub fn traffic(&mut self, now: Instant) {}

    /// The local user wants this call: set by `initiate` and `accept` only, no stanza can set it.
    pub fn consented(&self) -> bool { false }
    pub fn phase(&self) -> Phase { Phase::None }
    pub fn role(&self) -> Role { self.role }
    pub fn peer(&self) -> &Jid { &self.parties.peer }
    pub fn sid(&self) -> &Sid { &self.parties.sid }
    pub fn content(&self, key: &ContentKey) -> Option<&Content> { None }
    pub fn contents(&self) -> impl Iterator<Item = &Content> { [].iter() }
    pub fn groups(&self) -> &[Group] { &[] }
    pub fn end(&self) -> Option<&End> { None }
}

//! What goes into a session and what comes out of it: IQs, events, ends, timers.
//! Read XEP-0166 §7.2, §7.4 and §10 before touching this file.

use crate::fault::{Answer, JingleCondition, ReasonCondition, StanzaCondition};
use crate::jingle::content::ContentKey;
use crate::wire::candidate::{IceTransport, S5bTransport, Transport};
use crate::wire::description::{Description, Info};
use crate::wire::jid::Jid;
use crate::wire::jingle::{self as element, Group, Jingle, Reason, Senders, Sid};

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
        /// The peer restarts ICE and awaits our new credentials by [`Session::send_transport_info`](crate::jingle::session::Session::send_transport_info) (J176-19).
        restart: bool,
    },
    /// What became of the streamhosts of a SOCKS5 bytestream (XEP-0260 §2.3).
    RemoteStreamhosts {
        /// Which content.
        content: ContentKey,
        /// `candidate-used`, `candidate-error`, `activated` or `proxy-error`.
        news: S5bTransport,
    },
    /// Hold, mute, active, digit, file news: everything of session-info but ringing.
    RemoteInfo(Info),
    /// The peer does not understand a session-info of ours; nothing else changes (J166-67).
    InfoUnsupported,
    /// The peer proposes further contents: [`Session::content_accept`](crate::jingle::session::Session::content_accept) or [`Session::content_reject`](crate::jingle::session::Session::content_reject) (J166-33).
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
    /// The peer wants another transport: [`Session::transport_accept`](crate::jingle::session::Session::transport_accept) or [`Session::transport_reject`](crate::jingle::session::Session::transport_reject) (J166-45).
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
    /// What the application says besides, such as `file-too-large`: namespace and name (XEP-0234 §9).
    pub detail: Option<(String, String)>,
}

impl End {
    /// An end of which nothing more is known.
    #[must_use]
    pub const fn new(reason: ReasonCondition, by: EndedBy) -> Self {
        Self { reason, by, text: None, alternative: None, redirect: None, detail: None }
    }
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

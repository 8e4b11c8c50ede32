//! The words between a session and its application: what it is told, what it may do wrong.
//! Read RFC 3261 §13 to §15 before touching this file.

use crate::sip::exchange::{Failure, Origin};
use crate::sip::sessions::SessionId;
use crate::wire::sip::{Method, NameAddr, Reason, Replaces, SipText, Status, Uri};
use std::time::Duration;

pub use crate::sip::session::offer_answer::Sdp;

/// One of the dialogs that an INVITE of ours grew, in order of appearance (RFC 3261 §12.1, §13.2.2.4). A session that was
/// called has one: `Fork(0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Fork(pub u32);

/// Who we are in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Our name and address; its tag is set by the session.
    pub from: NameAddr,
    /// Where we are reached (RFC 3261 §8.1.1.8).
    pub contact: NameAddr,
    /// Preloaded route: the service route or an outbound proxy that is to stand in the request (RFC 3261 §8.1.2).
    pub route: Vec<NameAddr>,
}

/// An INVITE to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Invitation {
    /// Who calls.
    pub local: Local,
    /// Who is called: Request-URI and To.
    pub to: NameAddr,
    /// Our offer; `None`: the other side makes it in its answer, ours goes in the ACK or PRACK (RFC 3261 §13.2.1).
    pub offer: Option<Sdp>,
    /// The dialog this call takes the place of (RFC 3891).
    pub replaces: Option<Replaces>,
    /// Who asked for this call (RFC 3892).
    pub referred_by: Option<NameAddr>,
    /// `Privacy: id` and an anonymous From (RFC 3323 §4.1, RFC 3325 §9.3); the true one goes in P-Asserted-Identity.
    pub anonymous: bool,
}

impl Invitation {
    /// A plain call.
    #[must_use]
    pub fn new(local: Local, to: NameAddr, offer: Option<Sdp>) -> Self {
        Self { local, to, offer, replaces: None, referred_by: None, anonymous: false }
    }
}

/// An INVITE that came.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// Request-URI: which of our addresses is called.
    pub uri: Uri,
    /// Who says to call; proves nothing.
    pub from: NameAddr,
    /// Whom they called.
    pub to: NameAddr,
    /// P-Asserted-Identity, from a peer that is trusted to assert it (RFC 3325 §9.1).
    pub identity: Option<NameAddr>,
    /// The caller asks not to be shown (`Privacy: id` or `user`).
    pub private: bool,
    /// Who asked for this call (RFC 3892); a claim.
    pub referred_by: Option<NameAddr>,
    /// The session that ends when this one is accepted (RFC 3891).
    pub replaces: Option<SessionId>,
    /// Their offer; `None`: ours goes in the answer.
    pub offer: Option<Sdp>,
    /// `Subject`
    pub subject: Option<SipText>,
    /// `User-Agent`
    pub agent: Option<SipText>,
    /// Where it came from.
    pub origin: Origin,
}

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndedBy {
    /// A verb of ours.
    Local,
    /// The other side.
    Remote,
    /// A deadline, a broken rule, a lost connection.
    Engine,
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndCause {
    /// BYE.
    Bye,
    /// CANCEL, or the INVITE given up before its answer.
    Cancelled,
    /// The INVITE's final answer, ours or theirs: 3xx to 6xx.
    Rejected(Status),
    /// Another session took its place (RFC 3891).
    Replaced,
    /// It rang for as long as was allowed.
    NoAnswer,
    /// The ACK never came (RFC 3261 §13.3.1.4).
    NoAck,
    /// The PRACK never came (RFC 3262 §3).
    NoPrack,
    /// Nobody refreshed it (RFC 4028 §10).
    Expired,
    /// The other side does not know the dialog any more (RFC 3261 §12.2.1.2): 408 or 481 in it.
    DialogLost(Status),
    /// An offer stands without its answer, or the answer is none.
    NoAgreement,
    /// The request never got an answer.
    Failed(Failure),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Who ended it.
    pub by: EndedBy,
    /// Why.
    pub cause: EndCause,
    /// The phrase of the final answer, or nothing.
    pub text: SipText,
    /// Reason headers of theirs, in the BYE, CANCEL or answer (RFC 3326).
    pub reasons: Vec<Reason>,
    /// Where they say to call instead: the Contacts of a 3xx that was not followed.
    pub contacts: Vec<NameAddr>,
}

/// How far a transfer of ours is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferStep {
    /// They try it, and will tell (RFC 3515 §2.4.4).
    Accepted,
    /// They try it, and will not tell (RFC 4488).
    AcceptedSilently,
    /// The answer their call got so far.
    Progress(Status),
    /// The final answer their call got: the transfer is over.
    Finished(Status),
    /// They refused to try, or nothing is known of it: the transfer is over.
    Refused(Option<Status>),
}

/// Names a REFER that came, in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReferralId(pub u32);

/// What happened in a session. A session tells `Ended` last and once.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// Somebody calls. Nothing but provisional answers leaves until `accept`, `reject` or `redirect`.
    Incoming(Box<Incoming>),
    /// Their user is alerted: 180.
    Ringing {
        /// Which of them.
        fork: Option<Fork>,
    },
    /// Another provisional answer: 181, 182, 183 without a description, …
    Progress {
        /// Which of them.
        fork: Option<Fork>,
        /// 101 to 199
        status: Status,
        /// Its phrase.
        text: SipText,
    },
    /// The answer to our offer. `early`: in a provisional answer; then it is told again if what follows differs.
    AnswerReceived {
        /// Whose.
        fork: Fork,
        /// It.
        sdp: Box<Sdp>,
        /// They did not take the call yet: early media (RFC 3960).
        early: bool,
    },
    /// An offer that awaits `answer` or `refuse_offer`.
    OfferReceived {
        /// Whose.
        fork: Fork,
        /// It.
        sdp: Box<Sdp>,
        /// They did not take the call yet.
        early: bool,
    },
    /// The offer is void: its request was cancelled or its dialog is gone.
    OfferWithdrawn {
        /// Whose.
        fork: Fork,
    },
    /// Our offer was refused; what was agreed before it holds (RFC 3261 §14.1).
    OfferRefused {
        /// Whose.
        fork: Fork,
        /// 488, 491 after all tries, …
        status: Status,
    },
    /// This early dialog came to nothing: another one won, or 199 (RFC 6228).
    ForkEnded {
        /// It.
        fork: Fork,
    },
    /// They took the call.
    Accepted {
        /// The dialog that lives on.
        fork: Fork,
        /// P-Asserted-Identity of who took it, from a trusted peer.
        identity: Option<NameAddr>,
    },
    /// The ACK of our acceptance came.
    Confirmed,
    /// They hold the call (sendonly, inactive, 0.0.0.0), or hold it no longer.
    Held(bool),
    /// Who they are changed: P-Asserted-Identity of a re-INVITE or UPDATE from a trusted peer, after a transfer of theirs.
    Identity(NameAddr),
    /// Digit of an INFO.
    Dtmf {
        /// `0`–`9`, `*`, `#`, `A`–`D`
        key: char,
        /// As they say, else 160 ms.
        duration: Duration,
    },
    /// A digit of ours was refused or got lost.
    DtmfRefused {
        /// The answer, if there was one.
        status: Option<Status>,
    },
    /// They ask us to call somebody: `take_referral` or `refuse_referral`.
    Referred {
        /// To name it by.
        id: ReferralId,
        /// Whom to call.
        to: Box<NameAddr>,
        /// The dialog that this call is to take the place of (attended transfer).
        replaces: Option<Box<Replaces>>,
        /// Who asks; a claim.
        referred_by: Option<Box<NameAddr>>,
    },
    /// A transfer of ours went on.
    Transfer(TransferStep),
    /// The call was sent elsewhere, and we follow.
    Redirected {
        /// There.
        to: Uri,
    },
    /// It is over.
    Ended(Box<End>),
}

/// The application's mistake; nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// There is no such session, or it ended.
    #[error("this session has ended")]
    Ended,
    /// Only a call that came and was not answered can do this.
    #[error("this call does not ring here")]
    NotRinging,
    /// Only a call that was taken can do this.
    #[error("this call was not taken yet")]
    NotUp,
    /// There is no such dialog.
    #[error("no such dialog")]
    NoFork,
    /// There is no offer to be answered.
    #[error("no offer awaits an answer")]
    NoOffer,
    /// A description is needed here.
    #[error("a session description is missing")]
    NoDescription,
    /// Another offer is open or waits.
    #[error("another offer is open")]
    OfferOpen,
    /// The other side understands no such request before it took the call (RFC 3311).
    #[error("the other side does not take {0:?}")]
    NotAllowed(&'static str),
    /// A status that cannot be used here.
    #[error("{0:?} cannot be sent here")]
    WrongStatus(Status),
    /// There is no such referral, or it is answered.
    #[error("no such referral")]
    NoReferral,
    /// Not one of `0`–`9`, `*`, `#`, `A`–`D`.
    #[error("not a key of a telephone")]
    NotAKey,
    /// Our own bound.
    #[error("too many sessions")]
    NoResources,
}

/// What this user agent understands (RFC 3261 §20.5).
pub(crate) const ALLOW: [Method; 10] = [
    Method::Invite,
    Method::Ack,
    Method::Bye,
    Method::Cancel,
    Method::Options,
    Method::Prack,
    Method::Update,
    Method::Info,
    Method::Refer,
    Method::Notify,
];

/// Extensions that may be required of this user agent in a session (RFC 3261 §20.37).
pub(crate) const SUPPORTED: [&str; 4] = ["100rel", "timer", "replaces", "norefersub"];

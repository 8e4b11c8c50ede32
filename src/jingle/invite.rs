//! Jingle Message Initiation: asking all devices of a person before a session (XEP-0353 0.8.0, older forms read).
//! Read XEP-0353 §3, §4 and §6 before touching this file.

use crate::config::{InitiateRate, JingleTimers, SessionLimits};
use crate::wire::jid::{BareJid, Jid};
use crate::wire::jingle::{Jmi, Proposed, Reason, Sid};
use std::time::{Duration, Instant};

/// A propose older than this does not ring (users' complaint 9: ghost calls).
pub const STALE: Duration = Duration::from_secs(60);

/// How a message reached us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// From its sender.
    Direct,
    /// Wrapped in a XEP-0280 copy; trusted only if `outer` is our own bare JID.
    Carbon {
        /// `from` of the wrapping message.
        outer: Option<Jid>,
    },
}

/// One message with a JMI element.
#[derive(Debug, Clone, PartialEq)]
pub struct InviteInput {
    /// `from` of the (inner) message.
    pub from: Jid,
    /// `to` of the (inner) message; missing means our own bare JID.
    pub to: Option<Jid>,
    /// Direct or copied.
    pub via: Via,
    /// Age by XEP-0203, if it was delayed.
    pub age: Option<Duration>,
    /// The sender may know that we are here.
    pub contact: bool,
    /// Its element.
    pub jmi: Jmi,
}

/// A message to send: `type='chat'` with a store hint (J353-01).
#[derive(Debug, Clone, PartialEq)]
pub struct InviteTransmit {
    /// A bare JID for propose, retract and copies; a full one else.
    pub to: Jid,
    /// Message id; a bounced message is recognised by it.
    pub id: String,
    /// What it says.
    pub jmi: Jmi,
}

/// What happened to an invitation.
#[derive(Debug, Clone, PartialEq)]
pub enum InviteEvent {
    /// A device of the callee rings.
    Ringing {
        /// Ours.
        id: Sid,
        /// Which device.
        by: Jid,
    },
    /// A device of the callee takes the call: session-initiate goes there with sid = id (J353-11).
    Proceed {
        /// Ours.
        id: Sid,
        /// Which device.
        to: Jid,
    },
    /// Our invitation is over.
    Over {
        /// Ours.
        id: Sid,
        /// Why.
        why: Over,
    },
    /// Somebody calls.
    Incoming {
        /// Theirs; with `from`'s bare JID it names the invitation.
        id: Sid,
        /// Which device.
        from: Jid,
        /// What is proposed.
        proposed: Vec<Proposed>,
        /// Our own propose that this one beat (J353-13).
        crossed: Option<Sid>,
        /// The running call of the same peer that this one orphans; the endpoint ends it (J353-14).
        replaces: Option<Sid>,
    },
    /// Stop ringing.
    Stopped {
        /// Theirs.
        id: Sid,
        /// Who called.
        from: Jid,
        /// Why.
        why: Stopped,
    },
    /// The peer's finish for a call that had a session.
    Finished {
        /// Which.
        id: Sid,
        /// Who said so.
        from: Jid,
        /// Its reason.
        reason: Option<Reason>,
        /// Sid of the call that goes on.
        migrated: Option<Sid>,
    },
}

/// Why our invitation is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    /// The callee declined.
    Rejected(Option<Reason>),
    /// The callee's crossed propose with this id won (J353-13).
    Lost(Sid),
    /// The message bounced.
    Undeliverable,
    /// Nobody answered.
    TimedOut,
}

/// Why an invitation to us stopped ringing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The caller gave up.
    Retracted(Option<Reason>),
    /// Another device of ours took it.
    AnsweredElsewhere,
    /// Another device of ours declined it.
    RejectedElsewhere,
    /// The caller or another device of ours ended it.
    Finished(Option<Reason>),
    /// Nobody answered, or no session-initiate followed our proceed.
    TimedOut,
}

/// What a session-initiate is to the invitations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The user took this call, with these media: accept without asking again.
    Approved,
    /// The user took this call, but the offer holds other media than proposed: ask again.
    OtherMedia,
    /// Never proposed: a plain call (J353-20).
    Plain,
}

/// Arguments of [`Invites::new`].
#[derive(Debug, Clone)]
pub struct InvitesConfig {
    /// Our full JID.
    pub local: Jid,
    /// When to give up.
    pub timers: JingleTimers,
    /// Caps.
    pub limits: SessionLimits,
    /// Token buckets.
    pub rate: InitiateRate,
}

/// A verb that does not fit the invitation; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteMisuse {
    /// No such invitation, or not any more.
    #[error("no invitation has this id")]
    Unknown,
    /// The id is in use.
    #[error("this id is in use")]
    Duplicate,
    /// Nothing is proposed (J353-02).
    #[error("nothing is proposed")]
    Empty,
    /// The cap is reached.
    #[error("no more invitations fit")]
    NoResources,
}

/// All invitations of one endpoint.
#[derive(Debug)]
pub struct Invites {
    config: InvitesConfig,
}

#[allow(unused_variables, missing_docs)]
impl Invites {
    pub fn new(config: InvitesConfig) -> Self { Self { config } }
    pub fn set_local(&mut self, local: Jid) { self.config.local = local; }
    /// `id`: from [`Sessions::new_sid`](crate::jingle::sessions::Sessions::new_sid).
    pub fn propose(&mut self, now: Instant, callee: BareJid, id: Sid, proposed: Vec<Proposed>) -> Result<(), InviteMisuse> { Err(InviteMisuse::Empty) }
    pub fn retract(&mut self, now: Instant, id: &Sid, reason: Option<Reason>) -> Result<(), InviteMisuse> { Err(InviteMisuse::Unknown) }
    pub fn ring(&mut self, now: Instant, from: &BareJid, id: &Sid) -> Result<(), InviteMisuse> { Err(InviteMisuse::Unknown) }
    pub fn proceed(&mut self, now: Instant, from: &BareJid, id: &Sid) -> Result<(), InviteMisuse> { Err(InviteMisuse::Unknown) }
    pub fn reject(&mut self, now: Instant, from: &BareJid, id: &Sid, reason: Option<Reason>) -> Result<(), InviteMisuse> { Err(InviteMisuse::Unknown) }
    /// The session of this invitation is over: both sides say so (J353-12).
    pub fn finish(&mut self, now: Instant, peer: &BareJid, id: &Sid, reason: Option<Reason>, migrated: Option<Sid>) -> Result<(), InviteMisuse> { Err(InviteMisuse::Unknown) }
    /// Asked when a session-initiate arrived; marks the invitation as followed by its session.
    pub fn expects(&mut self, now: Instant, from: &Jid, sid: &Sid, media: &[Proposed]) -> Expected { Expected::Plain }
    pub fn handle_input(&mut self, now: Instant, input: InviteInput) {}
    /// A message of ours came back with `type='error'`.
    pub fn handle_bounce(&mut self, now: Instant, from: &Jid, id: &str) {}
    pub fn handle_timeout(&mut self, now: Instant) {}
    pub fn poll_transmit(&mut self) -> Option<InviteTransmit> { None }
    pub fn poll_event(&mut self) -> Option<InviteEvent> { None }
    pub fn poll_timeout(&self) -> Option<Instant> { None }
}

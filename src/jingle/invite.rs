//! Jingle Message Initiation: asking all devices of a person before a session (XEP-0353 0.8.0, older forms read).
//! Read XEP-0353 §3, §4 and §6 before touching this file.

use crate::config::{InitiateRate, JingleTimers, SessionLimits};
use crate::fault::ReasonCondition;
use crate::jingle::sessions::Flood;
use crate::wire::jid::{BareJid, Jid};
use crate::wire::jingle::{Jmi, JmiKind, Proposed, Reason, Sid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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

/// Both sides of a call without finish: over after a day (J353-16).
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest id and most media of a propose that is kept; UUIDs have 36 bytes.
const ID_BYTES: usize = 256;
const MEDIA: usize = 16;

/// Our invitation.
///
/// ```text
///  propose ─▶ Asking ── first proceed of the callee ──▶ Taken ── finish, a day ──▶ gone
///               └── reject, retract, bounce, timer, lost tie ──▶ gone
/// ```
#[derive(Debug)]
enum Asked {
    /// Every device of the callee may answer; with the id of our message.
    Asking { message: String },
    /// This device took it.
    Taken { by: Jid },
}

/// An invitation to us.
///
/// ```text
///  propose ─▶ Ringing ── proceed() by the user ──▶ Taken ── session-initiate of that device ──▶ Running ─▶ gone
///               └── reject(), retract, another device, finish, timer ──▶ gone
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Called {
    /// The user is asked.
    Ringing,
    /// The session-initiate is due.
    Taken,
    /// The session exists.
    Running,
}

#[derive(Debug)]
struct Ours {
    callee: BareJid,
    state: Asked,
    until: Instant,
}

#[derive(Debug)]
struct Theirs {
    from: Jid,
    proposed: Vec<Proposed>,
    state: Called,
    until: Instant,
}

/// What a timer belongs to; with the person first, as ids are chosen by peers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Ours(Sid),
    Theirs(BareJid, Sid),
}

/// All invitations of one endpoint.
#[derive(Debug)]
pub struct Invites {
    local: Jid,
    timers: JingleTimers,
    limits: SessionLimits,
    ours: BTreeMap<Sid, Ours>,
    theirs: BTreeMap<(BareJid, Sid), Theirs>,
    deadlines: BTreeSet<(Instant, Key)>,
    /// Invitations to us that are over: a copy of their propose does not ring again.
    done: VecDeque<(BareJid, Sid)>,
    flood: Flood,
    forged: u64,
    next_message: u64,
    transmits: VecDeque<InviteTransmit>,
    events: VecDeque<InviteEvent>,
}

/// Our calls.
impl Invites {
    /// No invitations yet.
    #[must_use]
    pub fn new(config: InvitesConfig) -> Self {
        Self {
            local: config.local,
            timers: config.timers,
            limits: config.limits,
            ours: BTreeMap::new(),
            theirs: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            done: VecDeque::new(),
            flood: Flood::new(config.rate),
            forged: 0,
            next_message: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Our full JID after a new resource binding.
    pub fn set_local(&mut self, local: Jid) {
        self.local = local;
    }

    /// Asks all devices of a person, whether any presence of it is known or not (users' complaint 33). `id`: from
    /// [`Sessions::new_sid`](crate::jingle::sessions::Sessions::new_sid).
    ///
    /// # Errors
    /// [`InviteMisuse::Empty`], [`InviteMisuse::Duplicate`], [`InviteMisuse::NoResources`]
    pub fn propose(
        &mut self,
        now: Instant,
        callee: BareJid,
        id: Sid,
        proposed: Vec<Proposed>,
    ) -> Result<(), InviteMisuse> {
        if proposed.is_empty() {
            return Err(InviteMisuse::Empty);
        }
        if self.ours.contains_key(&id) {
            return Err(InviteMisuse::Duplicate);
        }
        if self.ours.len() >= self.limits.sessions {
            return Err(InviteMisuse::NoResources);
        }
        let message = self.send(callee.clone().into(), &id, JmiKind::Propose(proposed));
        let until = now + self.timers.ring;
        self.deadlines.insert((until, Key::Ours(id.clone())));
        self.ours.insert(id, Ours { callee, state: Asked::Asking { message }, until });
        Ok(())
    }

    /// Gives up while nobody took the call; the reason is cancel unless another is wished (J353-05, J353-18).
    ///
    /// # Errors
    /// [`InviteMisuse::Unknown`]
    pub fn retract(&mut self, _now: Instant, id: &Sid, reason: Option<Reason>) -> Result<(), InviteMisuse> {
        let callee = match self.ours.get(id) {
            Some(Ours { callee, state: Asked::Asking { .. }, .. }) => callee.clone(),
            Some(Ours { state: Asked::Taken { .. }, .. }) | None => return Err(InviteMisuse::Unknown),
        };
        self.drop_ours(id);
        let reason = Some(reason.unwrap_or_else(|| Reason::new(ReasonCondition::Cancel)));
        self.send(callee.into(), id, JmiKind::Retract { reason, tie_break: false });
        Ok(())
    }

    /// The session of this invitation, ours or theirs, is over: both sides say so (J353-12). Without a reason: success.
    ///
    /// # Errors
    /// [`InviteMisuse::Unknown`] if it had no session, or the peer said finish already.
    pub fn finish(
        &mut self,
        _now: Instant,
        peer: &BareJid,
        id: &Sid,
        reason: Option<Reason>,
        migrated: Option<Sid>,
    ) -> Result<(), InviteMisuse> {
        let to = if let Some(Ours { state: Asked::Taken { by }, callee, .. }) = self.ours.get(id)
            && callee == peer
        {
            let to = by.clone();
            self.drop_ours(id);
            to
        } else {
            let key = (peer.clone(), id.clone());
            let known = self.theirs.get(&key).filter(|t| t.state != Called::Ringing).ok_or(InviteMisuse::Unknown)?;
            let to = known.from.clone();
            self.drop_theirs(&key);
            to
        };
        let reason = Some(reason.unwrap_or_else(|| Reason::new(ReasonCondition::Success)));
        self.send(to, id, JmiKind::Finish { reason, migrated });
        Ok(())
    }
}

/// Calls to us.
impl Invites {
    /// Tells the caller that our user is alerted (J353-04). To be left out for strangers: it shows that we are here
    /// (J353-17).
    ///
    /// # Errors
    /// [`InviteMisuse::Unknown`]
    pub fn ring(&mut self, _now: Instant, from: &BareJid, id: &Sid) -> Result<(), InviteMisuse> {
        let to = self.ringing(from, id)?.from.clone();
        self.send(to, id, JmiKind::Ringing);
        Ok(())
    }

    /// The user takes the call here (J353-07); the session-initiate of that device is due then.
    ///
    /// # Errors
    /// [`InviteMisuse::Unknown`]
    pub fn proceed(&mut self, now: Instant, from: &BareJid, id: &Sid) -> Result<(), InviteMisuse> {
        let until = now + self.timers.iq;
        let known = self.ringing(from, id)?;
        known.state = Called::Taken;
        let to = known.from.clone();
        self.rewind((from.clone(), id.clone()), until);
        self.send(to, id, JmiKind::Proceed);
        Ok(())
    }

    /// The user declines; the reason is busy unless another is wished (J353-09, J353-18).
    ///
    /// # Errors
    /// [`InviteMisuse::Unknown`]
    pub fn reject(
        &mut self,
        _now: Instant,
        from: &BareJid,
        id: &Sid,
        reason: Option<Reason>,
    ) -> Result<(), InviteMisuse> {
        let to = self.ringing(from, id)?.from.clone();
        self.drop_theirs(&(from.clone(), id.clone()));
        let reason = Some(reason.unwrap_or_else(|| Reason::new(ReasonCondition::Busy)));
        self.send(to, id, JmiKind::Reject { reason, tie_break: false });
        Ok(())
    }

    /// Asked when a session-initiate arrived, with the media it offers; the invitation then has its session.
    pub fn expects(&mut self, now: Instant, from: &Jid, sid: &Sid, media: &[Proposed]) -> Expected {
        let key = (from.to_bare(), sid.clone());
        let Some(known) = self.theirs.get_mut(&key) else { return Expected::Plain };
        // Another device of the caller, or one whose call the user has not taken, is asked about like any other.
        if known.state != Called::Taken || known.from != *from {
            return Expected::Plain;
        }
        known.state = Called::Running;
        // Users' complaint 15: consent is for what was proposed.
        let approved = media.iter().all(|offered| known.proposed.contains(offered));
        self.rewind(key, now + FORGOTTEN);
        if approved { Expected::Approved } else { Expected::OtherMedia }
    }

    /// Copies whose wrapper did not come from our own account; they were ignored (threats: forged carbons).
    #[must_use]
    pub fn forged(&self) -> u64 {
        self.forged
    }
}

/// What comes in.
impl Invites {
    /// One message with a JMI element.
    pub fn handle_input(&mut self, now: Instant, input: InviteInput) {
        let own = self.local.to_bare();
        // XEP-0280 §11: "Any forwarded copies received by a Carbons-enabled client MUST be from that user's bare JID".
        if let Via::Carbon { outer } = &input.via
            && outer.as_ref().is_none_or(|outer| *outer != own)
        {
            self.forged = self.forged.saturating_add(1);
            return;
        }
        if input.jmi.id.0.is_empty() || input.jmi.id.0.len() > ID_BYTES || input.from == self.local {
            return;
        }
        if input.from.to_bare() == own {
            self.own_device(&input);
        } else {
            self.peer(now, input);
        }
    }

    /// A message of ours came back with `type='error'`.
    pub fn handle_bounce(&mut self, from: &Jid, id: &str) {
        let bounced = self.ours.iter().find(|(_, ours)| match &ours.state {
            Asked::Asking { message } => message == id && from.to_bare() == ours.callee,
            Asked::Taken { .. } => false,
        });
        if let Some(sid) = bounced.map(|(sid, _)| sid.clone()) {
            self.over(&sid, Over::Undeliverable);
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, key)) = self.deadlines.first().cloned() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, key.clone()));
            match key {
                Key::Ours(id) => self.ours_due(now, &id),
                Key::Theirs(from, id) => {
                    let key = (from, id);
                    let Some(known) = self.theirs.get(&key) else { continue };
                    let (caller, state) = (known.from.clone(), known.state);
                    self.drop_theirs(&key);
                    let (_, id) = key;
                    match state {
                        Called::Ringing => {}
                        // The caller took our proceed and went silent: it learns that nobody waits any more.
                        Called::Taken => {
                            let reason = Some(Reason::new(ReasonCondition::Timeout));
                            self.send(caller.clone(), &id, JmiKind::Finish { reason, migrated: None });
                        }
                        Called::Running => continue,
                    }
                    self.events.push_back(InviteEvent::Stopped { id, from: caller, why: Stopped::TimedOut });
                }
            }
        }
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<InviteTransmit> {
        self.transmits.pop_front()
    }

    /// What to tell next.
    pub fn poll_event(&mut self) -> Option<InviteEvent> {
        self.events.pop_front()
    }

    /// When to call [`Invites::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn ours_due(&mut self, now: Instant, id: &Sid) {
        match self.ours.get(id).map(|ours| matches!(ours.state, Asked::Asking { .. })) {
            Some(true) if self.retract(now, id, None).is_ok() => {
                self.events.push_back(InviteEvent::Over { id: id.clone(), why: Over::TimedOut });
            }
            Some(_) => self.drop_ours(id),
            None => {}
        }
    }

    /// Another device of ours did something; it ends what rings here (users' complaint 9). In the 0.3 form the copy
    /// comes to our bare JID and does not say whose call it is about.
    fn own_device(&mut self, input: &InviteInput) {
        let why = match &input.jmi.kind {
            JmiKind::Proceed | JmiKind::Accept => Stopped::AnsweredElsewhere,
            JmiKind::Reject { .. } => Stopped::RejectedElsewhere,
            JmiKind::Finish { reason, .. } => Stopped::Finished(reason.clone()),
            JmiKind::Propose(_) | JmiKind::Ringing | JmiKind::Retract { .. } => return,
        };
        let caller = input.to.as_ref().map(Jid::to_bare).filter(|to| *to != self.local.to_bare());
        let keys: Vec<(BareJid, Sid)> = self
            .theirs
            .iter()
            .filter(|((from, id), known)| {
                *id == input.jmi.id
                    && known.state == Called::Ringing
                    && caller.as_ref().is_none_or(|caller| caller == from)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.stop(&key, why.clone());
        }
    }

    fn peer(&mut self, now: Instant, input: InviteInput) {
        let InviteInput { from, to, via, age, contact, jmi: Jmi { id, kind } } = input;
        let bare = from.to_bare();
        match kind {
            JmiKind::Propose(proposed) => {
                // A copy of what went to another device of ours alone is not for us.
                let ours = to.as_ref().is_none_or(|to| to.is_bare() || *to == self.local);
                // J353-17: a stranger learns nothing, and our user does not either.
                if contact && (via == Via::Direct || ours) {
                    self.proposed(now, from, id, proposed, age);
                }
            }
            JmiKind::Ringing => {
                if self.asking(&id, &bare) {
                    self.events.push_back(InviteEvent::Ringing { id, by: from });
                }
            }
            // J353-11: the first device gets the call; whoever comes later, or is not the callee, is not heard.
            JmiKind::Proceed | JmiKind::Accept => {
                if from.is_full() && self.asking(&id, &bare) {
                    self.taken(now, id, from);
                }
            }
            JmiKind::Reject { reason, tie_break } => {
                if self.asking(&id, &bare) {
                    let theirs = self.theirs.keys().find(|(from, _)| tie_break && *from == bare);
                    let why = theirs.map_or(Over::Rejected(reason), |(_, winner)| Over::Lost(winner.clone()));
                    self.over(&id, why);
                }
            }
            JmiKind::Retract { reason, .. } => {
                let key = (bare, id);
                // Once the session exists it has its own end.
                if self.theirs.get(&key).is_some_and(|known| known.state != Called::Running) {
                    self.stop(&key, Stopped::Retracted(reason));
                }
            }
            JmiKind::Finish { reason, migrated } => self.finished(id, from, reason, migrated),
        }
    }

    fn taken(&mut self, now: Instant, id: Sid, by: Jid) {
        if let Some(ours) = self.ours.get_mut(&id) {
            self.deadlines.remove(&(ours.until, Key::Ours(id.clone())));
            ours.until = now + FORGOTTEN;
            ours.state = Asked::Taken { by: by.clone() };
            self.deadlines.insert((ours.until, Key::Ours(id.clone())));
            self.events.push_back(InviteEvent::Proceed { id, to: by });
        }
    }

    fn finished(&mut self, id: Sid, from: Jid, reason: Option<Reason>, migrated: Option<Sid>) {
        let bare = from.to_bare();
        if self.asking(&id, &bare) {
            self.over(&id, Over::Rejected(reason));
            return;
        }
        if self.ours.get(&id).is_some_and(|ours| ours.callee == bare) {
            self.drop_ours(&id);
            self.events.push_back(InviteEvent::Finished { id, from, reason, migrated });
            return;
        }
        let key = (bare, id);
        match self.theirs.get(&key).map(|known| known.state) {
            Some(Called::Ringing | Called::Taken) => self.stop(&key, Stopped::Finished(reason)),
            Some(Called::Running) => {
                self.drop_theirs(&key);
                self.events.push_back(InviteEvent::Finished { id: key.1, from, reason, migrated });
            }
            None => {}
        }
    }

    /// A propose of somebody who may call.
    fn proposed(&mut self, now: Instant, from: Jid, id: Sid, proposed: Vec<Proposed>, age: Option<Duration>) {
        let key = (from.to_bare(), id.clone());
        let known = self.theirs.contains_key(&key) || self.done.contains(&key);
        if known || proposed.is_empty() || proposed.len() > MEDIA {
            return;
        }
        // Users' complaint 9: what was sent long ago does not ring, nor does a copy of it.
        if age.is_some_and(|age| age > STALE) {
            self.remember(key);
            return;
        }
        if self.theirs.len() >= self.limits.sessions || !self.flood.admits(now, &key.0) {
            return;
        }
        let Ok(crossed) = self.tie(&from, &key) else { return };
        self.make_way(&key.0);
        let replaces = self.orphan(&key);
        let until = now + self.timers.ring;
        self.deadlines.insert((until, Key::Theirs(key.0.clone(), id.clone())));
        let theirs = Theirs { from: from.clone(), proposed: proposed.clone(), state: Called::Ringing, until };
        self.theirs.insert(key, theirs);
        self.events.push_back(InviteEvent::Incoming { id, from, proposed, crossed, replaces });
    }

    /// J353-10, J353-13: of two crossed proposes the lower id stands. `Ok` holds ours if it lost, `Err` means it won.
    fn tie(&mut self, from: &Jid, theirs: &(BareJid, Sid)) -> Result<Option<Sid>, ()> {
        let asking = |ours: &&Ours| ours.callee == theirs.0 && matches!(ours.state, Asked::Asking { .. });
        let Some(ours) = self.ours.iter().find(|(_, ours)| asking(ours)).map(|(id, _)| id.clone()) else {
            return Ok(None);
        };
        let reason = Some(Reason::new(ReasonCondition::Expired));
        let own = self.local.to_bare();
        let we_win = (ours.0.as_bytes(), own.as_str()) < (theirs.1.0.as_bytes(), theirs.0.as_str());
        if we_win {
            self.remember(theirs.clone());
            self.send(from.clone(), &theirs.1, JmiKind::Reject { reason, tie_break: true });
            return Err(());
        }
        self.over(&ours, Over::Lost(theirs.1.clone()));
        self.send(theirs.0.clone().into(), &ours, JmiKind::Retract { reason, tie_break: true });
        Ok(Some(ours))
    }

    /// Only so many calls of one person ring: the oldest gives way, as its caller asks anew.
    fn make_way(&mut self, caller: &BareJid) {
        let ringing = |known: &Theirs| known.state == Called::Ringing;
        let mut of_caller: Vec<(Instant, (BareJid, Sid))> = self
            .theirs
            .iter()
            .filter(|((from, _), known)| from == caller && ringing(known))
            .map(|(key, known)| (known.until, key.clone()))
            .collect();
        of_caller.sort();
        let most = self.limits.pending_per_peer.max(1);
        let excess = (of_caller.len() + 1).saturating_sub(most);
        for (_, key) in of_caller.into_iter().take(excess) {
            self.stop(&key, Stopped::Retracted(None));
        }
    }

    /// J353-14: whoever calls anew has lost the call that ran; it is finished in favour of the new one.
    fn orphan(&mut self, new: &(BareJid, Sid)) -> Option<Sid> {
        let ours = self
            .ours
            .iter()
            .find(|(_, ours)| ours.callee == new.0 && matches!(ours.state, Asked::Taken { .. }))
            .map(|(id, _)| id.clone());
        let theirs = self
            .theirs
            .iter()
            .find(|((from, _), known)| *from == new.0 && known.state != Called::Ringing)
            .map(|((_, id), _)| id.clone());
        let old = match (ours, theirs) {
            (Some(id), _) => {
                self.drop_ours(&id);
                id
            }
            (None, Some(id)) => {
                self.drop_theirs(&(new.0.clone(), id.clone()));
                id
            }
            (None, None) => return None,
        };
        let reason = Some(Reason::new(ReasonCondition::Expired));
        self.send(new.0.clone().into(), &old, JmiKind::Finish { reason, migrated: Some(new.1.clone()) });
        Some(old)
    }
}

/// Bookkeeping.
impl Invites {
    fn asking(&self, id: &Sid, callee: &BareJid) -> bool {
        self.ours.get(id).is_some_and(|ours| ours.callee == *callee && matches!(ours.state, Asked::Asking { .. }))
    }

    fn ringing(&mut self, from: &BareJid, id: &Sid) -> Result<&mut Theirs, InviteMisuse> {
        let known = self.theirs.get_mut(&(from.clone(), id.clone()));
        known.filter(|known| known.state == Called::Ringing).ok_or(InviteMisuse::Unknown)
    }

    fn over(&mut self, id: &Sid, why: Over) {
        self.drop_ours(id);
        self.events.push_back(InviteEvent::Over { id: id.clone(), why });
    }

    fn stop(&mut self, key: &(BareJid, Sid), why: Stopped) {
        let Some(from) = self.theirs.get(key).map(|known| known.from.clone()) else { return };
        self.drop_theirs(key);
        self.events.push_back(InviteEvent::Stopped { id: key.1.clone(), from, why });
    }

    fn drop_ours(&mut self, id: &Sid) {
        if let Some(ours) = self.ours.remove(id) {
            self.deadlines.remove(&(ours.until, Key::Ours(id.clone())));
        }
    }

    fn drop_theirs(&mut self, key: &(BareJid, Sid)) {
        if let Some(known) = self.theirs.remove(key) {
            self.deadlines.remove(&(known.until, Key::Theirs(key.0.clone(), key.1.clone())));
            self.remember(key.clone());
        }
    }

    fn rewind(&mut self, key: (BareJid, Sid), until: Instant) {
        if let Some(known) = self.theirs.get_mut(&key) {
            let before = std::mem::replace(&mut known.until, until);
            self.deadlines.remove(&(before, Key::Theirs(key.0.clone(), key.1.clone())));
            self.deadlines.insert((until, Key::Theirs(key.0, key.1)));
        }
    }

    fn remember(&mut self, key: (BareJid, Sid)) {
        while self.done.len() >= self.limits.ended_sids.max(1) {
            self.done.pop_front();
        }
        self.done.push_back(key);
    }

    fn send(&mut self, to: Jid, id: &Sid, kind: JmiKind) -> String {
        let message = format!("m{:x}.{}", self.next_message, id);
        self.next_message = self.next_message.wrapping_add(1);
        self.transmits.push_back(InviteTransmit { to, id: message.clone(), jmi: Jmi { id: id.clone(), kind } });
        message
    }
}

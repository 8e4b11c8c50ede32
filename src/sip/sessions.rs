//! All INVITE sessions of one user agent: which request belongs to which, caps, Replaces, what is left of ended ones.
//! Read RFC 3261 §12.2.2 and RFC 3891 §3 before touching this file.

use crate::sip::exchange::{Heard, Origin, Owner, ServerId, Wish};
use crate::sip::session::{
    self, Arrival, Birth, Context, Fork, Invitation, Local, Misuse, ReferralId, Refused, Replaceable, Sdp, Session,
    SessionEvent,
};
use crate::wire::sip::{CallId, Header, Method, NameAddr, Params, Reason, Replaces, Request, Status, Tag};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// INVITEs of one session that a CANCEL still finds.
const SERVERS: usize = 16;

/// Handle of a session in [`Sessions`]; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Arguments of [`Sessions::new`].
#[derive(Debug, Clone)]
pub struct SessionsConfig {
    /// Policy, timers and caps of every session.
    pub context: Context,
    /// Our Contact in sessions that others begin.
    pub contact: NameAddr,
    /// Randomness of tags and Call-IDs, which nobody may guess (RFC 3261 §19.3).
    pub seed: [u8; 32],
}

/// All INVITE sessions of one user agent.
///
/// A request is found by Call-ID and our own tag (RFC 3261 §12.2.2); its session then looks for the other side's. All
/// indices are ordered maps, so that no iteration order leaks out and no peer can choose keys that make them slow.
#[derive(Debug)]
pub struct Sessions {
    context: Arc<Context>,
    contact: NameAddr,
    sessions: BTreeMap<SessionId, Slot>,
    by_dialog: BTreeMap<(CallId, Tag), SessionId>,
    /// INVITEs of theirs that are not answered or confirmed yet.
    servers: BTreeMap<ServerId, SessionId>,
    timers: BTreeSet<(Instant, SessionId)>,
    /// Ended ones of which something is left, oldest first.
    lingering: VecDeque<SessionId>,
    live: usize,
    ringing: usize,
    random: ChaCha20Rng,
    next: u64,
    wishes: VecDeque<Wish>,
    events: VecDeque<(SessionId, SessionEvent)>,
}

#[derive(Debug)]
struct Slot {
    session: Session,
    call_id: CallId,
    timer: Option<Instant>,
    /// As last seen.
    phase: Phase,
    servers: Vec<ServerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ringing,
    Live,
    Over,
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(config: SessionsConfig) -> Self {
        Self {
            context: Arc::new(config.context),
            contact: config.contact,
            sessions: BTreeMap::new(),
            by_dialog: BTreeMap::new(),
            servers: BTreeMap::new(),
            timers: BTreeSet::new(),
            lingering: VecDeque::new(),
            live: 0,
            ringing: 0,
            random: ChaCha20Rng::from_seed(config.seed),
            next: 0,
            wishes: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Our Contact from now on in sessions that others begin; those that live keep theirs.
    pub fn set_contact(&mut self, contact: NameAddr) {
        self.contact = contact;
    }

    /// Policy, timers and caps of sessions from now on; those that live keep theirs.
    pub fn set_context(&mut self, context: Context) {
        self.context = Arc::new(context);
    }

    /// Sessions whose end was not told yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Ended sessions that are kept for what may still come.
    #[must_use]
    pub fn lingering(&self) -> usize {
        self.sessions.len() - self.live
    }

    // ── verbs ───────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Calls somebody: INVITE.
    ///
    /// # Errors
    /// [`Misuse::NoResources`] at the cap.
    pub fn invite(&mut self, now: Instant, invitation: Invitation) -> Result<SessionId, Misuse> {
        if self.live >= self.context.limits.sessions {
            return Err(Misuse::NoResources);
        }
        let call_id = CallId::lossy(&format!("{:016x}{:016x}", self.random.next_u64(), self.random.next_u64()));
        let birth = self.birth(invitation.local.clone());
        let session = Session::invite(now, birth, call_id.clone(), invitation);
        Ok(self.insert(now, session, call_id, None))
    }

    /// 180.
    ///
    /// # Errors
    /// [`Misuse::NotRinging`], [`Misuse::Ended`]
    pub fn ring(&mut self, now: Instant, id: SessionId) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.progress(now, session::RINGING))
    }

    /// 181, 182, 183 without a description.
    ///
    /// # Errors
    /// As [`Sessions::ring`]; [`Misuse::WrongStatus`] outside 101 to 199.
    pub fn progress(&mut self, now: Instant, id: SessionId, status: Status) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.progress(now, status))
    }

    /// 183 with our answer, or our offer where theirs is missing: early media. Reliable where the caller can (RFC 3262).
    ///
    /// # Errors
    /// As [`Sessions::ring`]; [`Misuse::NoOffer`] if that was said; [`Misuse::NotAllowed`] for an offer of ours that could
    /// not be sent reliably.
    pub fn early(&mut self, now: Instant, id: SessionId, sdp: Sdp) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.early(now, sdp))
    }

    /// Takes the call: 200 with our answer, or our offer where theirs is missing; `None` where `early` said it.
    ///
    /// # Errors
    /// As [`Sessions::ring`]; [`Misuse::NoDescription`].
    pub fn accept(&mut self, now: Instant, id: SessionId, sdp: Option<Sdp>) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.accept(now, sdp))
    }

    /// Declines the call: 300 to 699, with Reason headers (RFC 3326).
    ///
    /// # Errors
    /// As [`Sessions::ring`]; [`Misuse::WrongStatus`].
    pub fn reject(&mut self, now: Instant, id: SessionId, status: Status, reasons: Vec<Reason>) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.reject(now, status, reasons))
    }

    /// Sends the caller elsewhere: 302.
    ///
    /// # Errors
    /// As [`Sessions::ring`]; [`Misuse::NoDescription`] without an address.
    pub fn redirect(&mut self, now: Instant, id: SessionId, contacts: Vec<NameAddr>) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.redirect(now, contacts))
    }

    /// Ends it: CANCEL while it rings there, 603 while it rings here, BYE after, with Reason headers (RFC 3326).
    ///
    /// # Errors
    /// [`Misuse::Ended`]
    pub fn hang_up(&mut self, now: Instant, id: SessionId, reasons: Vec<Reason>) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.hang_up(now, reasons))
    }

    /// A new offer: re-INVITE, or UPDATE while it rings. It waits for its turn, and is tried again after a glare.
    ///
    /// # Errors
    /// [`Misuse::NotUp`] before anything was agreed on; [`Misuse::OfferOpen`] beside another one of ours;
    /// [`Misuse::NotAllowed`] while it rings and the other side knows no UPDATE.
    pub fn reoffer(&mut self, now: Instant, id: SessionId, sdp: Sdp) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.reoffer(now, sdp))
    }

    /// Our hold, or its end: offers what holds with other directions (RFC 3264 §8.4).
    ///
    /// # Errors
    /// As [`Sessions::reoffer`].
    pub fn hold(&mut self, now: Instant, id: SessionId, on: bool) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.hold(now, on))
    }

    /// Our answer to the offer that `OfferReceived` told. Directions are made to fit the offer and our hold.
    ///
    /// # Errors
    /// [`Misuse::NoFork`], [`Misuse::NoOffer`]
    pub fn answer(&mut self, now: Instant, id: SessionId, fork: Fork, sdp: Sdp) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.answer(now, fork, sdp))
    }

    /// The offer is no good: 488 and the like. One that came in the answer to our INVITE ends the session.
    ///
    /// # Errors
    /// As [`Sessions::answer`]; [`Misuse::WrongStatus`] below 400.
    pub fn refuse_offer(&mut self, now: Instant, id: SessionId, fork: Fork, status: Status) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.refuse_offer(now, fork, status))
    }

    /// A digit as INFO `application/dtmf-relay`; digits leave one after the other.
    ///
    /// # Errors
    /// [`Misuse::NotAKey`], [`Misuse::NotUp`], [`Misuse::NoResources`]
    pub fn info_dtmf(&mut self, now: Instant, id: SessionId, key: char, duration: Duration) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.info_dtmf(key, duration))
    }

    /// Blind transfer: asks the other side to call somebody (RFC 3515).
    ///
    /// # Errors
    /// [`Misuse::NotUp`]; [`Misuse::OfferOpen`] beside another transfer of ours.
    pub fn refer(&mut self, now: Instant, id: SessionId, to: NameAddr) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.refer(now, to, None))
    }

    /// Attended transfer: asks the other side of `id` to take our place in `other` (RFC 3891, RFC 5589 §7).
    ///
    /// # Errors
    /// As [`Sessions::refer`], for either session.
    pub fn refer_to_session(&mut self, now: Instant, id: SessionId, other: SessionId) -> Result<(), Misuse> {
        let dialog = self.sessions.get(&other).ok_or(Misuse::Ended)?.session.dialog().ok_or(Misuse::NotUp)?;
        let replaces = dialog.replaces();
        let to = NameAddr { params: Params::default(), ..NameAddr::new(dialog.target().clone()) };
        self.verb(now, id, |session| session.refer(now, to, Some(&replaces)))
    }

    /// What names the dialog of a session that stands, to somebody who is to take its place.
    #[must_use]
    pub fn replaces(&self, id: SessionId) -> Option<Replaces> {
        Some(self.sessions.get(&id)?.session.dialog()?.replaces())
    }

    /// We call whom they refer us to: 202, and NOTIFYs from now on. The call itself is another `invite`.
    ///
    /// # Errors
    /// [`Misuse::NoReferral`]
    pub fn take_referral(&mut self, now: Instant, id: SessionId, referral: ReferralId) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.take_referral(now, referral))
    }

    /// We do not.
    ///
    /// # Errors
    /// [`Misuse::NoReferral`], [`Misuse::WrongStatus`]
    pub fn refuse_referral(
        &mut self,
        now: Instant,
        id: SessionId,
        referral: ReferralId,
        status: Status,
    ) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.refuse_referral(referral, status))
    }

    /// How far our call to the third side is; a final status is the last one. Works in a session that ended, too.
    ///
    /// # Errors
    /// [`Misuse::NoReferral`]
    pub fn notify_referral(
        &mut self,
        now: Instant,
        id: SessionId,
        referral: ReferralId,
        status: Status,
    ) -> Result<(), Misuse> {
        self.verb(now, id, |session| session.notify_referral(now, referral, status))
    }

    // ── the five verbs ──────────────────────────────────────────────────────────────────────────────────────────────

    /// True for what [`Sessions::handle_heard`] makes something of: answers to requests of sessions, INVITEs, requests in
    /// their dialogs, and requests in dialogs that nobody knows. The users of other dialogs are to be asked before.
    #[must_use]
    pub fn owns(&self, heard: &Heard) -> bool {
        match heard {
            Heard::Request { request, .. } => request.method == Method::Invite || request.headers.to.tag().is_some(),
            Heard::Ack(_) => true,
            Heard::Confirmed(id) | Heard::Cancelled { id, .. } => self.servers.contains_key(id),
            Heard::Response { id, .. } | Heard::Failed { id, .. } | Heard::Way { id, .. } => is_ours(id.owner),
            Heard::FlowChanged { owner, .. } => is_ours(*owner),
        }
    }

    /// True where one of the dialogs here has this Call-ID and this tag of ours.
    #[must_use]
    pub fn knows(&self, request: &Request) -> bool {
        self.find(request).is_some()
    }

    /// What the carrier heard.
    pub fn handle_heard(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Request { id, request, origin } => self.request(now, id, &request, origin),
            Heard::Ack(request) => {
                if let Some(session) = self.find(&request) {
                    self.touch(now, session, |session| session.acknowledged(now, &request));
                }
            }
            Heard::Confirmed(id) => {
                if let Some(session) = self.servers.remove(&id)
                    && let Some(slot) = self.sessions.get_mut(&session)
                {
                    slot.servers.retain(|known| *known != id);
                }
            }
            Heard::Cancelled { id, reasons } => {
                if let Some(session) = self.servers.get(&id).copied() {
                    self.touch(now, session, |session| session.cancelled(now, id, reasons));
                }
            }
            Heard::Response { id, response, cseq, origin } => {
                if let Owner::Session(session) = id.owner {
                    self.touch(now, SessionId(session), |s| {
                        s.handle_response(now, id.number, *response, cseq, origin);
                    });
                }
            }
            Heard::Failed { id, why } => {
                if let Owner::Session(session) = id.owner {
                    self.touch(now, SessionId(session), |session| session.handle_failure(now, id.number, why));
                }
            }
            // Sessions ask for no way, and outlive their flows.
            Heard::Way { .. } | Heard::FlowChanged { .. } => {}
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            if let Some(slot) = self.sessions.get_mut(&id) {
                slot.timer = None;
            }
            self.touch(now, id, |session| session.handle_timeout(now));
        }
    }

    /// What to do next.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// What to tell next.
    pub fn poll_event(&mut self) -> Option<(SessionId, SessionEvent)> {
        self.events.pop_front()
    }

    /// When to call [`Sessions::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    // ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────

    fn find(&self, request: &Request) -> Option<SessionId> {
        let tag = request.headers.to.tag()?;
        self.by_dialog.get(&(request.headers.call_id.clone(), tag)).copied()
    }

    fn request(&mut self, now: Instant, id: ServerId, request: &Request, origin: Origin) {
        if let Some(session) = self.find(request) {
            if request.method == Method::Invite {
                self.serve(session, id);
            }
            self.touch(now, session, |session| session.request(now, id, request, origin));
            return;
        }
        if request.headers.to.tag().is_some() {
            // RFC 3261 §12.2.2.
            return self.refuse(id, Refused::new(session::NO_TRANSACTION));
        }
        match self.arrive(now, id, request, origin) {
            Ok(()) => {}
            Err(refused) => self.refuse(id, refused),
        }
    }

    /// An INVITE that begins a session.
    fn arrive(&mut self, now: Instant, id: ServerId, request: &Request, origin: Origin) -> Result<(), Refused> {
        if request.method != Method::Invite {
            let allow = Header::Allow(session::ALLOW.to_vec());
            return Err(Refused::with(session::METHOD_NOT_ALLOWED, allow));
        }
        let arrival = Arrival::check(&self.context, request)?;
        let replaces = arrival.replaces.as_ref().map(|replaces| self.replaced(replaces)).transpose()?;
        // Threat: INVITE flood.
        let limits = &self.context.limits;
        if self.live >= limits.sessions || self.ringing >= limits.ringing {
            let again = Header::RetryAfter(limits.retry_after_s);
            return Err(Refused::with(session::SERVICE_UNAVAILABLE, again));
        }
        let from = NameAddr { params: Params::default(), ..request.headers.to.clone() };
        let birth = self.birth(Local { from, contact: self.contact.clone(), route: Vec::new() });
        let session = Session::arrive(now, birth, (id, request, origin), arrival, replaces);
        let call_id = request.headers.call_id.clone();
        self.insert(now, session, call_id, Some(id));
        Ok(())
    }

    /// Which session a Replaces names (RFC 3891 §3).
    fn replaced(&self, replaces: &Replaces) -> Result<SessionId, Refused> {
        // Whoever may replace a call may listen to it.
        if !self.context.policy.replaces {
            return Err(Refused::new(session::DECLINE));
        }
        let key = (replaces.call_id.clone(), replaces.to_tag.clone());
        let unknown = || Refused::new(session::NO_TRANSACTION);
        let id = *self.by_dialog.get(&key).ok_or_else(unknown)?;
        let slot = self.sessions.get(&id).ok_or_else(unknown)?;
        match slot.session.replaceable(&replaces.from_tag) {
            Replaceable::No => Err(unknown()),
            Replaceable::Ended => Err(Refused::new(session::DECLINE)),
            Replaceable::Confirmed if replaces.early_only => Err(Refused::new(session::BUSY_HERE)),
            Replaceable::Confirmed | Replaceable::Early => Ok(id),
        }
    }

    fn refuse(&mut self, id: ServerId, refused: Refused) {
        let response = Box::new(session::refusal(&self.context, refused));
        let to_tag = Some(self.new_tag());
        self.wishes.push_back(Wish::Response { id, to_tag, response });
    }

    // ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────

    /// 64 random bits (RFC 3261 §19.3 asks for 32).
    fn new_tag(&mut self) -> Tag {
        Tag::lossy(&format!("{:016x}", self.random.next_u64()))
    }

    fn birth(&mut self, local: Local) -> Birth {
        let id = SessionId(self.next);
        self.next += 1;
        let tag = self.new_tag();
        Birth { id, local, tag, context: Arc::clone(&self.context), random: self.random.next_u64() }
    }

    fn serve(&mut self, session: SessionId, server: ServerId) {
        if let Some(slot) = self.sessions.get_mut(&session) {
            // Nobody tells of those that were answered with success; only the last few can still be cancelled.
            if slot.servers.len() >= SERVERS {
                self.servers.remove(&slot.servers.remove(0));
            }
            slot.servers.push(server);
            self.servers.insert(server, session);
        }
    }

    fn insert(&mut self, now: Instant, session: Session, call_id: CallId, server: Option<ServerId>) -> SessionId {
        let id = session.id();
        self.by_dialog.insert((call_id.clone(), session.tag().clone()), id);
        self.live += 1;
        self.sessions.insert(id, Slot { session, call_id, timer: None, phase: Phase::Live, servers: Vec::new() });
        if let Some(server) = server {
            self.serve(id, server);
        }
        self.touch(now, id, |_| {});
        id
    }

    fn verb(
        &mut self,
        now: Instant,
        id: SessionId,
        act: impl FnOnce(&mut Session) -> Result<(), Misuse>,
    ) -> Result<(), Misuse> {
        if !self.sessions.contains_key(&id) {
            return Err(Misuse::Ended);
        }
        let mut done = Err(Misuse::Ended);
        self.touch(now, id, |session| done = act(session));
        done
    }

    /// One mutation of a session, then everything it says, its timer and its place in the counts.
    fn touch(&mut self, now: Instant, id: SessionId, act: impl FnOnce(&mut Session)) {
        let Some(slot) = self.sessions.get_mut(&id) else { return };
        act(&mut slot.session);
        self.settle(now, id);
    }

    /// Takes what a session says after a mutation.
    fn settle(&mut self, now: Instant, id: SessionId) {
        let Some(slot) = self.sessions.get_mut(&id) else { return };
        while let Some(wish) = slot.session.poll_wish() {
            self.wishes.push_back(wish);
        }
        while let Some(event) = slot.session.poll_event() {
            self.events.push_back((id, event));
        }
        let replaced = slot.session.take_replaced();
        let phase = match () {
            () if slot.session.is_over() => Phase::Over,
            () if slot.session.is_ringing() => Phase::Ringing,
            () => Phase::Live,
        };
        let before = std::mem::replace(&mut slot.phase, phase);
        let gone = slot.session.is_gone();
        let timer = if gone { None } else { slot.session.poll_timeout() };
        if timer != slot.timer {
            if let Some(at) = slot.timer {
                self.timers.remove(&(at, id));
            }
            if let Some(at) = timer {
                self.timers.insert((at, id));
            }
            slot.timer = timer;
        }
        self.count(id, before, phase, gone);
        if let Some(replaced) = replaced
            && let Some(slot) = self.sessions.get_mut(&replaced)
        {
            slot.session.replaced(now);
            self.settle(now, replaced);
        }
    }

    fn count(&mut self, id: SessionId, before: Phase, phase: Phase, gone: bool) {
        self.ringing -= usize::from(before == Phase::Ringing);
        self.ringing += usize::from(phase == Phase::Ringing);
        if phase == Phase::Over && before != Phase::Over {
            self.live -= 1;
            if !gone {
                self.lingering.push_back(id);
            }
        }
        if gone {
            self.remove(id);
        }
        // Those that are gone already stand in the queue until it is their turn.
        while self.lingering.len() > self.context.limits.lingering {
            let Some(oldest) = self.lingering.pop_front() else { return };
            self.remove(oldest);
        }
        while self.lingering.front().is_some_and(|front| !self.sessions.contains_key(front)) {
            self.lingering.pop_front();
        }
    }

    fn remove(&mut self, id: SessionId) {
        let Some(slot) = self.sessions.remove(&id) else { return };
        self.by_dialog.remove(&(slot.call_id, slot.session.tag().clone()));
        for server in slot.servers {
            self.servers.remove(&server);
        }
        if let Some(at) = slot.timer {
            self.timers.remove(&(at, id));
        }
    }
}

fn is_ours(owner: Owner) -> bool {
    match owner {
        Owner::Session(_) => true,
        Owner::Registration(_) | Owner::Event(_) | Owner::Lone(_) => false,
    }
}

//! All sessions of one endpoint: routing by (peer, sid), ties between sessions, caps, strangers, floods.
//! Read XEP-0166 §6.3, §7.2.16 and §13 before touching this file.

use crate::config::InitiateRate;
use crate::fault::{Malformed, PeerFault, answer};
use crate::jingle::actions::{Verdict, verdict};
use crate::jingle::content::{Content, application, media};
use crate::jingle::session::{
    Body, EndedBy, Misuse, Parties, Phase, Refusal, Role, Session, SessionContext, SessionEvent, SessionInput,
    SessionTransmit, Why, parse_iq_id,
};
use crate::wire::description::Description;
use crate::wire::jid::{BareJid, Jid};
use crate::wire::jingle::{self as element, Action, Group, Jingle, Sid};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Handle of a session in [`Sessions`]; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Who may call (J166-04, J166-61).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Callers {
    /// Those the roster lets see our presence, and whoever we called.
    #[default]
    Contacts,
    /// Everybody.
    Everyone,
    /// These bare JIDs only.
    Listed(BTreeSet<BareJid>),
}

impl Callers {
    /// True if this peer may know that somebody is here; `contact` says whether it sees our presence.
    #[must_use]
    pub fn admits(&self, peer: &Jid, contact: bool) -> bool {
        match self {
            Callers::Contacts => contact,
            Callers::Everyone => true,
            Callers::Listed(list) => list.contains(&peer.to_bare()),
        }
    }
}

/// Arguments of [`Sessions::new`].
#[derive(Debug, Clone)]
pub struct SessionsConfig {
    /// Our full JID.
    pub local: Jid,
    /// Policy, timers and caps of every session.
    pub context: SessionContext,
    /// Who may call.
    pub callers: Callers,
    /// Token buckets.
    pub rate: InitiateRate,
    /// Where session-initiates are redirected to, if anywhere (J166-06).
    pub redirect: Option<Jid>,
    /// Randomness of sids and ids.
    pub seed: [u8; 32],
}

/// All sessions of one endpoint.
///
/// A session is found by (peer's full JID, sid) and by nothing else (J166-65): every index leads to a candidate whose
/// peer is compared. All indices are ordered maps, so that no iteration order leaks out and no peer can choose keys that
/// make them slow.
#[derive(Debug)]
pub struct Sessions {
    local: Jid,
    callers: Callers,
    redirect: Option<Jid>,
    context: Arc<SessionContext>,
    sessions: BTreeMap<SessionId, Slot>,
    by_sid: BTreeMap<Sid, Vec<SessionId>>,
    by_peer: BTreeMap<BareJid, Person>,
    timers: BTreeSet<(Instant, Why, SessionId)>,
    /// Oldest first, with its index.
    ended: VecDeque<Arc<(Sid, Jid)>>,
    ended_index: BTreeSet<Arc<(Sid, Jid)>>,
    flood: Flood,
    file_flood: Flood,
    random: ChaCha20Rng,
    next_serial: u64,
    transmits: VecDeque<SessionTransmit>,
    events: VecDeque<(SessionId, SessionEvent)>,
}

#[derive(Debug)]
struct Slot {
    session: Session,
    timer: Option<(Instant, Why)>,
    /// As last seen: still among its person's pending ones.
    pending: bool,
}

/// The sessions with one bare JID; a gateway has thousands behind one, so that nothing here is searched one by one.
#[derive(Debug, Default)]
struct Person {
    all: BTreeSet<SessionId>,
    pending: BTreeSet<SessionId>,
    /// How many of all we started.
    called: usize,
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(config: SessionsConfig) -> Self {
        let mut random = ChaCha20Rng::from_seed(config.seed);
        // IQ ids must not repeat those of an earlier process with the same address; 16 bits are left to count.
        let next_serial = u64::from(random.next_u32()) << 16;
        Self {
            local: config.local,
            callers: config.callers,
            redirect: config.redirect,
            context: Arc::new(config.context),
            sessions: BTreeMap::new(),
            by_sid: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            timers: BTreeSet::new(),
            ended: VecDeque::new(),
            ended_index: BTreeSet::new(),
            flood: Flood::new(config.rate),
            file_flood: Flood::new(InitiateRate { peer_burst: config.rate.peer_file_burst, ..config.rate }),
            random,
            next_serial,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Our full JID after a new resource binding; sessions that live keep their address.
    pub fn local(&self) -> &Jid {
        &self.local
    }

    /// Our address changed: a new session with the server.
    pub fn set_local(&mut self, local: Jid) {
        self.local = local;
    }

    /// Where session-initiates are redirected to from now on, if anywhere (J166-06).
    pub fn set_redirect(&mut self, redirect: Option<Jid>) {
        self.redirect = redirect;
    }

    /// 128 random bits as 32 hex digits (J166-30); also the id of a propose.
    pub fn new_sid(&mut self) -> Sid {
        Sid(format!("{:016x}{:016x}", self.random.next_u64(), self.random.next_u64()))
    }

    /// Calls a full JID. `sid`: that of the propose this follows, or none for a fresh one.
    ///
    /// # Errors
    /// [`Misuse::NoResources`] at the cap; [`Misuse::Duplicate`] if this sid lives or lived with this peer; else as
    /// [`Session::initiate`].
    pub fn initiate(
        &mut self,
        now: Instant,
        peer: Jid,
        sid: Option<Sid>,
        contents: Vec<element::Content>,
        groups: Vec<Group>,
    ) -> Result<SessionId, Misuse> {
        if self.sessions.len() >= self.context.limits.sessions {
            return Err(Misuse::NoResources);
        }
        let sid = sid.unwrap_or_else(|| self.new_sid());
        if self.find(&peer, &sid).is_some() || self.has_ended(&peer, &sid) {
            return Err(Misuse::Duplicate);
        }
        let parties = Parties { local: self.local.clone(), peer, sid, serial: self.next_serial };
        let session = Session::initiate(now, parties, Arc::clone(&self.context), contents, groups)?;
        Ok(self.insert(session))
    }

    /// One IQ from `from`. `contact`: the peer may know that we are here (roster, directed presence, our own propose or
    /// proceed).
    pub fn handle_input(&mut self, now: Instant, from: &Jid, contact: bool, input: SessionInput) {
        match input {
            SessionInput::Set { id, jingle } => self.request(now, from, contact, id, jingle),
            SessionInput::Result { ref id } | SessionInput::Error { ref id, .. } => {
                // An answer counts only from the address that was asked (threats: forged IQ results).
                let Some((serial, _)) = parse_iq_id(id) else { return };
                let known = self.session(SessionId(serial)).is_some_and(|session| session.peer() == from);
                if known {
                    self.touch(SessionId(serial), |session| session.handle_input(now, input));
                }
            }
        }
    }

    /// A Jingle IQ-set whose payload could not be read.
    pub fn handle_malformed(&mut self, from: &Jid, contact: bool, id: String, fault: &Malformed) {
        let fault = if self.admits(from, contact) { PeerFault::from(fault) } else { PeerFault::Unavailable };
        self.refuse(from, id, fault);
    }

    /// A verb on one session; its output is collected at once.
    ///
    /// # Errors
    /// [`Misuse::NoSession`] if it has ended or never was.
    pub fn act<R>(&mut self, id: SessionId, verb: impl FnOnce(&mut Session) -> R) -> Result<R, Misuse> {
        self.touch(id, verb).ok_or(Misuse::NoSession)
    }

    /// One session that lives.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id).map(|slot| &slot.session)
    }

    /// The session that lives between us and this full JID under this sid.
    #[must_use]
    pub fn find(&self, peer: &Jid, sid: &Sid) -> Option<SessionId> {
        let candidates = self.by_sid.get(sid)?;
        candidates.iter().copied().find(|id| self.session(*id).is_some_and(|session| session.peer() == peer))
    }

    /// Sessions that live with any device of this person, oldest first.
    pub fn with_peer(&self, peer: &BareJid) -> impl Iterator<Item = (SessionId, &Session)> {
        let ids = self.by_peer.get(peer).into_iter().flat_map(|person| &person.all);
        ids.filter_map(|id| Some((*id, self.session(*id)?)))
    }

    /// All sessions that live, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, slot)| (*id, &slot.session))
    }

    /// How many sessions live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True if none lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Unavailable presence of one full JID (J166-18).
    pub fn peer_unavailable(&mut self, now: Instant, peer: &Jid) {
        for id in self.of_address(peer) {
            self.touch(id, |session| session.peer_unavailable(now));
        }
    }

    /// Available presence of one full JID.
    pub fn peer_available(&mut self, peer: &Jid) {
        for id in self.of_address(peer) {
            self.touch(id, Session::peer_available);
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, _, id)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.touch(id, |session| session.handle_timeout(now));
            // A timer that did not move would spin here.
            if self.timers.first().is_some_and(|first| *first == (at, first.1, id)) {
                break;
            }
        }
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<SessionTransmit> {
        self.transmits.pop_front()
    }

    /// What to tell next. [`SessionEvent::Ended`] may be the only event of a session: its offer was refused by rule.
    pub fn poll_event(&mut self) -> Option<(SessionId, SessionEvent)> {
        self.events.pop_front()
    }

    /// When to call [`Sessions::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Why)> {
        self.timers.first().map(|(at, why, _)| (*at, *why))
    }
}

/// Requests.
impl Sessions {
    fn request(&mut self, now: Instant, from: &Jid, contact: bool, id: String, jingle: Box<Jingle>) {
        if let Some(session) = self.find(from, &jingle.sid) {
            if jingle.action == Action::SessionInitiate && self.yields(session, from) {
                self.touch(session, Session::lose_tie);
                self.offer(now, from, id, *jingle);
                return;
            }
            self.touch(session, |session| session.handle_input(now, SessionInput::Set { id, jingle }));
            return;
        }
        // J166-04, J166-05: a stranger gets what an address without anybody answers, whatever it asks, and nothing
        // else happens. A sid that lives with somebody else is not told apart (J166-65).
        if !self.admits(from, contact) {
            self.refuse(from, id, PeerFault::Unavailable);
            return;
        }
        match verdict(jingle.action, Phase::None, Role::Initiator) {
            Verdict::Legal if self.has_ended(from, &jingle.sid) => self.refuse(from, id, PeerFault::OutOfOrder),
            Verdict::Legal => self.offer(now, from, id, *jingle),
            Verdict::Refused(fault) => self.refuse(from, id, fault),
            Verdict::AnswersAdd | Verdict::AnswersReplace | Verdict::Tie => {
                self.refuse(from, id, PeerFault::UnknownSession);
            }
        }
    }

    /// A session-initiate under a sid that is free.
    fn offer(&mut self, now: Instant, from: &Jid, id: String, jingle: Jingle) {
        if let Some(target) = &self.redirect {
            let redirect = Some(format!("xmpp:{target}"));
            let refusal = Refusal { answer: answer(PeerFault::Redirected), text: None, redirect };
            self.transmits.push_back(SessionTransmit { to: from.clone(), id, body: Body::Error(refusal) });
            return;
        }
        let bare = from.to_bare();
        let files = offers_files(&jingle);
        let flood = if files { &mut self.file_flood } else { &mut self.flood };
        if !flood.admits(now, &bare) {
            self.refuse(from, id, PeerFault::NoResources);
            return;
        }
        // J166-46, J166-47: of two equivalent offers that cross, the lower sid stands.
        let crossed = self.crossed(from, &jingle);
        if let Some((_, ours)) = &crossed
            && ours.0.as_bytes() < jingle.sid.0.as_bytes()
        {
            self.refuse(from, id, PeerFault::TieBreak);
            return;
        }
        let limits = self.context.limits;
        let alike = |s: &Session| s.role() == Role::Responder && s.contents().any(Content::is_file) == files;
        let pending = self.pending_with(&bare).filter(|(_, s)| alike(s)).count();
        let most = if files { limits.pending_files_per_peer } else { limits.pending_per_peer };
        let full = self.sessions.len() >= limits.sessions && crossed.is_none();
        // J166-07.
        if full || pending >= most {
            self.refuse(from, id, PeerFault::NoResources);
            return;
        }
        let parties = Parties {
            local: self.local.clone(),
            peer: from.clone(),
            sid: jingle.sid.clone(),
            serial: self.next_serial,
        };
        match Session::respond(now, parties, Arc::clone(&self.context), id.clone(), jingle) {
            Ok(session) => {
                if let Some((ours, _)) = crossed {
                    self.touch(ours, Session::lose_tie);
                }
                self.insert(session);
            }
            Err(fault) => self.refuse(from, id, fault),
        }
    }

    /// Our open offer to this address that this one is equivalent to (J166-49), with its sid.
    fn crossed(&self, from: &Jid, theirs: &Jingle) -> Option<(SessionId, Sid)> {
        // Two files that two people send each other at the same time are two files.
        if offers_files(theirs) {
            return None;
        }
        let wanted: BTreeSet<(&str, Option<&str>)> =
            theirs.contents.iter().filter_map(|c| c.description.as_ref()).map(|d| (application(d), media(d))).collect();
        self.pending_with(&from.to_bare())
            .filter(|(_, s)| s.peer() == from && s.role() == Role::Initiator)
            .find(|(_, s)| {
                let ours: BTreeSet<(&str, Option<&str>)> = s
                    .contents()
                    .filter_map(|c| c.local.description.as_ref())
                    .map(|d| (application(d), media(d)))
                    .collect();
                ours == wanted
            })
            .map(|(id, s)| (id, s.sid().clone()))
    }

    /// True if our open offer under the very sid of the peer's loses: the lower JID stands (J166-46).
    fn yields(&self, id: SessionId, from: &Jid) -> bool {
        self.session(id).is_some_and(|ours| {
            ours.role() == Role::Initiator
                && ours.phase() == Phase::Pending
                && from.as_str().as_bytes() < self.local.as_str().as_bytes()
        })
    }

    fn admits(&self, from: &Jid, contact: bool) -> bool {
        // Whoever we called knows that we are here.
        self.callers.admits(from, contact) || self.by_peer.get(&from.to_bare()).is_some_and(|person| person.called > 0)
    }

    fn pending_with(&self, peer: &BareJid) -> impl Iterator<Item = (SessionId, &Session)> {
        let ids = self.by_peer.get(peer).into_iter().flat_map(|person| &person.pending);
        ids.filter_map(|id| Some((*id, self.session(*id)?)))
    }

    fn refuse(&mut self, to: &Jid, id: String, fault: PeerFault) {
        tracing::debug!(?fault, "refused");
        let body = Body::Error(Refusal { answer: answer(fault), text: None, redirect: None });
        self.transmits.push_back(SessionTransmit { to: to.clone(), id, body });
    }

    fn has_ended(&self, peer: &Jid, sid: &Sid) -> bool {
        self.ended_index.contains(&(sid.clone(), peer.clone()))
    }

    fn of_address(&self, peer: &Jid) -> Vec<SessionId> {
        self.with_peer(&peer.to_bare()).filter(|(_, session)| session.peer() == peer).map(|(id, _)| id).collect()
    }
}

/// Bookkeeping.
impl Sessions {
    fn insert(&mut self, session: Session) -> SessionId {
        let id = SessionId(self.next_serial);
        self.next_serial = self.next_serial.wrapping_add(1);
        push_exact(self.by_sid.entry(session.sid().clone()).or_default(), id);
        let person = self.by_peer.entry(session.peer().to_bare()).or_default();
        person.all.insert(id);
        person.pending.insert(id);
        person.called += usize::from(session.role() == Role::Initiator);
        self.sessions.insert(id, Slot { session, timer: None, pending: true });
        self.touch(id, |_| ());
        id
    }

    /// Runs a verb on a session, then collects its output, its timer, and the session itself if it ended.
    fn touch<R>(&mut self, id: SessionId, verb: impl FnOnce(&mut Session) -> R) -> Option<R> {
        let slot = self.sessions.get_mut(&id)?;
        let result = verb(&mut slot.session);
        while let Some(transmit) = slot.session.poll_transmit() {
            self.transmits.push_back(transmit);
        }
        while let Some(event) = slot.session.poll_event() {
            self.events.push_back((id, event));
        }
        slot.session.rest();
        let timer = slot.session.poll_timeout();
        if timer != slot.timer {
            if let Some((at, why)) = slot.timer {
                self.timers.remove(&(at, why, id));
            }
            if let Some((at, why)) = timer {
                self.timers.insert((at, why, id));
            }
            slot.timer = timer;
        }
        let phase = slot.session.phase();
        if slot.pending && phase != Phase::Pending {
            slot.pending = false;
            if let Some(person) = self.by_peer.get_mut(&slot.session.peer().to_bare()) {
                person.pending.remove(&id);
            }
        }
        if phase == Phase::Ended {
            self.forget(id);
        }
        Some(result)
    }

    fn forget(&mut self, id: SessionId) {
        let Some(slot) = self.sessions.remove(&id) else { return };
        let (peer, sid) = (slot.session.peer().clone(), slot.session.sid().clone());
        drop_from(&mut self.by_sid, &sid, id);
        let bare = peer.to_bare();
        if let Some(person) = self.by_peer.get_mut(&bare) {
            person.all.remove(&id);
            person.called = person.called.saturating_sub(usize::from(slot.session.role() == Role::Initiator));
            if person.all.is_empty() {
                self.by_peer.remove(&bare);
            }
        }
        // J166-68: enough is kept for the right answer, in bounded memory. A lost tie leaves its sid free.
        let lost = slot.session.end().is_some_and(|end| end.by == EndedBy::TieBreak);
        if !lost {
            while self.ended.len() >= self.context.limits.ended_sids.max(1) {
                let Some(oldest) = self.ended.pop_front() else { break };
                self.ended_index.remove(&oldest);
            }
            let entry = Arc::new((sid, peer));
            if self.ended_index.insert(Arc::clone(&entry)) {
                self.ended.push_back(entry);
            }
        }
    }
}

/// One element takes the room of one: nearly all lists here hold one.
fn push_exact(list: &mut Vec<SessionId>, id: SessionId) {
    list.reserve_exact(1);
    list.push(id);
}

fn drop_from<K: Ord>(index: &mut BTreeMap<K, Vec<SessionId>>, key: &K, id: SessionId) {
    if let Some(list) = index.get_mut(key) {
        list.retain(|known| *known != id);
        if list.is_empty() {
            index.remove(key);
        }
    }
}

/// Token buckets, one for each bare JID and one for all (threat: session-initiate flood).
#[derive(Debug)]
pub(crate) struct Flood {
    rate: InitiateRate,
    total: Option<Bucket>,
    peers: BTreeMap<BareJid, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    since: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant, burst: u32, interval: Duration) {
        let interval = interval.max(Duration::from_nanos(1));
        let gained = now.saturating_duration_since(self.since).as_nanos() / interval.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(gained).min(burst);
        // The rest of an interval counts towards the next token, but a full bucket gains nothing.
        self.since = if self.tokens == burst { now } else { self.since + interval.saturating_mul(gained) };
    }
}

impl Flood {
    pub(crate) fn new(rate: InitiateRate) -> Self {
        Self { rate, total: None, peers: BTreeMap::new() }
    }

    /// Takes a token of this person and one of everybody. An empty bucket of one person takes none of the others'.
    pub(crate) fn admits(&mut self, now: Instant, peer: &BareJid) -> bool {
        let rate = self.rate;
        if !self.peers.contains_key(peer) {
            self.make_room(now);
            self.peers.insert(peer.clone(), Bucket { tokens: rate.peer_burst, since: now });
        }
        let Some(own) = self.peers.get_mut(peer) else { return false };
        own.refill(now, rate.peer_burst, rate.peer_interval);
        if own.tokens == 0 {
            return false;
        }
        let total = self.total.get_or_insert(Bucket { tokens: rate.total_burst, since: now });
        total.refill(now, rate.total_burst, rate.total_interval);
        if total.tokens == 0 {
            return false;
        }
        own.tokens -= 1;
        total.tokens -= 1;
        true
    }

    /// Forgets the fullest bucket, so that forgetting gives the least away.
    fn make_room(&mut self, now: Instant) {
        if self.peers.len() < self.rate.peers.max(1) {
            return;
        }
        let rate = self.rate;
        for bucket in self.peers.values_mut() {
            bucket.refill(now, rate.peer_burst, rate.peer_interval);
        }
        self.peers.retain(|_, bucket| bucket.tokens < rate.peer_burst);
        if self.peers.len() >= rate.peers.max(1)
            && let Some(fullest) = self.peers.iter().max_by_key(|(_, bucket)| bucket.tokens).map(|(jid, _)| jid.clone())
        {
            self.peers.remove(&fullest);
        }
    }
}
fn offers_files(jingle: &Jingle) -> bool {
    jingle.contents.iter().any(|c| matches!(c.description, Some(Description::File(_))))
}

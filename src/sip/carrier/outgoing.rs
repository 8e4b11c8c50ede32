//! One request of an owner until its final answer: targets, flows, challenges, fail-over, CANCEL. Read RFC 3261 §8.1, §9.1,
//! §18.1.1 and §22, and RFC 3263 §4.3 before touching this file.

use super::{Carrier, DialogKey, MOVED_INTERVAL, WATCHED, WITHOUT_TCP, WITHOUT_TCP_FOR, Watch, hop};
use crate::sip::auth;
use crate::sip::exchange::{Failure, FlowId, Heard, Origin, Owner, RequestId, Transport};
use crate::sip::flow::{FlowFault, Keep};
use crate::sip::locate::{Hop, Located, Target};
use crate::sip::transaction::{ClientId, Path};
use crate::wire::sip::{Header, Host, Method, Request, Response, SipUri, Uri};
use rand_core::RngCore;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// RFC 3261 §8.1.1.5
const CSEQ_END: u32 = 1 << 31;

/// One request of an owner, or what is done like one.
///
/// ```text
///               located            open                     1xx up
///   Locating ───────────▶ Opening ──────▶ Asking ──────────────────────┐
///      │                   │  ▲ ▲          │  ▲ │                      │
///      │ no target         │  │ │ 401, 407 │  └─┼──────────────────────┘
///      ▼                   ▼  │ └──────────┤    │ 2xx to INVITE: up
///    failed ◀── no target left│            │    ▼
///                             └────────────┤  Answered (each 2xx up) ── timer M ──▶ gone
///                503, time out, flow down: │
///                next target               └─ other final: up, gone
/// ```
#[derive(Debug)]
pub(super) struct Errand {
    what: What,
    /// As its owner gave it, with the Route that it goes by. `None` once it is answered.
    request: Option<Box<Request>>,
    hop: Hop,
    dialog: Option<DialogKey>,
    /// Still to be tried.
    targets: VecDeque<Target>,
    stage: Stage,
    proofs: auth::Attempt,
    challenges: u32,
    cancel: Cancel,
    /// Why the targets so far were of no use.
    fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Request(RequestId),
    Ack,
    Way(RequestId),
}

#[derive(Debug)]
enum Stage {
    Locating,
    /// It waits for this flow; where another target waits behind this one, until then.
    Opening {
        trip: Trip,
        flow: FlowId,
        until: Option<Instant>,
    },
    Asking(Asking),
    /// A 2xx to INVITE came; others may follow.
    Answered {
        client: ClientId,
        target: Target,
    },
}

/// A request on its way to one target.
#[derive(Debug)]
struct Trip {
    target: Target,
    /// With its credentials, without Via and our address. `None`: only the way is wanted.
    request: Option<Box<Request>>,
    /// UDP, if the request is on its way by TCP for its length only, or was.
    instead_of: Option<Target>,
}

#[derive(Debug, Clone)]
struct Asking {
    client: ClientId,
    target: Target,
    flow: FlowId,
    /// The flow was opened for this request, so that it is no old one that the other side forgot.
    fresh: bool,
    /// Any provisional response came.
    provisional: bool,
    /// One other than 100 came: it got beyond the next hop.
    rings: bool,
    /// What Contact says.
    told: Option<SocketAddr>,
}

#[derive(Debug)]
enum Cancel {
    No,
    /// Until a provisional response comes (RFC 3261 §9.1).
    Wished(Vec<Header>),
    Sent,
}

#[derive(Debug)]
enum Fault {
    TimedOut,
    Flow(FlowFault),
    Busy(Box<Response>, Origin),
}

/// Wishes.
impl Carrier {
    pub(super) fn request(&mut self, now: Instant, id: RequestId, mut request: Box<Request>) {
        if self.work.errands.len() >= self.limits.outgoing || self.work.names.contains_key(&id) {
            self.heard.push_back(Heard::Failed { id, why: Failure::Full });
            return;
        }
        let hop = match hop::next_hop(&mut request, self.outbound.as_ref()) {
            Ok(hop) => hop,
            Err(why) => {
                self.heard.push_back(Heard::Failed { id, why });
                return;
            }
        };
        let key = self.work.number();
        let dialog = (request.headers.call_id.clone(), request.headers.from.tag());
        let live = self.work.dialogs.entry(dialog.clone()).or_default();
        // RFC 3261 §22.2: a retry with credentials took the number that its owner thought was free.
        if !live.errands.is_empty() && request.headers.cseq.number <= live.cseq {
            request.headers.cseq.number = live.cseq.saturating_add(1);
        }
        live.cseq = live.cseq.max(request.headers.cseq.number);
        live.errands.insert(key);
        self.work.names.insert(id, key);
        self.set_out(now, key, What::Request(id), Some(request), hop, Some(dialog));
    }

    /// The ACK of a 2xx: with the credentials of its INVITE (RFC 3261 §13.2.2.4), and to the same target where it has the
    /// same next hop. Nobody answers it.
    pub(super) fn acknowledge(&mut self, now: Instant, mut request: Box<Request>) {
        if self.work.errands.len() >= self.limits.outgoing {
            return;
        }
        let Ok(hop) = hop::next_hop(&mut request, self.outbound.as_ref()) else { return };
        let dialog = (request.headers.call_id.clone(), request.headers.from.tag());
        let mut target = None;
        for key in self.work.dialogs.get(&dialog).into_iter().flat_map(|live| &live.errands) {
            let Some(errand) = self.work.errands.get(key) else { continue };
            let Stage::Answered { client, target: asked } = &errand.stage else { continue };
            let Some((invite, _)) = self.transactions.sent(*client) else { continue };
            if invite.headers.cseq.number != request.headers.cseq.number {
                continue;
            }
            request.headers.rest.extend(hop::credentials(invite).cloned());
            target = (errand.hop == hop).then(|| asked.clone());
        }
        let key = self.work.number();
        match target {
            Some(target) => {
                self.work.errands.insert(key, Errand::new(What::Ack, Some(request), hop, None));
                self.try_targets(now, key, VecDeque::from([target]));
            }
            None => self.set_out(now, key, What::Ack, Some(request), hop, None),
        }
    }

    pub(super) fn way(&mut self, now: Instant, id: RequestId, uri: SipUri) {
        let outbound = self.outbound.as_ref().and_then(Hop::of);
        let hop = match outbound.map_or_else(|| hop::hop_of(&Uri::Sip(Box::new(uri))), Ok) {
            Ok(hop) if self.work.errands.len() < self.limits.outgoing && !self.work.names.contains_key(&id) => hop,
            Ok(_) => return self.heard.push_back(Heard::Failed { id, why: Failure::Full }),
            Err(why) => return self.heard.push_back(Heard::Failed { id, why }),
        };
        let key = self.work.number();
        self.work.names.insert(id, key);
        self.set_out(now, key, What::Way(id), None, hop, None);
    }

    pub(super) fn give_up(&mut self, now: Instant, id: RequestId, headers: Vec<Header>) {
        let Some(key) = self.work.names.get(&id).copied() else { return };
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        match &errand.stage {
            Stage::Locating | Stage::Opening { .. } => self.fail(key, Failure::Cancelled),
            // RFC 3261 §9.1: only an INVITE is cancelled, and not before a provisional response came.
            Stage::Asking(_) if errand.is_invite() => {
                if matches!(errand.cancel, Cancel::No) {
                    errand.cancel = Cancel::Wished(headers);
                    self.send_cancel(now, key);
                }
            }
            Stage::Asking(_) | Stage::Answered { .. } => {}
        }
    }

    fn send_cancel(&mut self, now: Instant, key: u64) {
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        let Stage::Asking(Asking { client, provisional: true, .. }) = errand.stage else { return };
        if let Cancel::Wished(headers) = &mut errand.cancel {
            // Its outcome does not matter: the INVITE has its own, or times out.
            let _ = self.transactions.cancel(now, client, std::mem::take(headers));
            errand.cancel = Cancel::Sent;
        }
    }
}

/// The way out.
impl Carrier {
    fn set_out(
        &mut self,
        now: Instant,
        key: u64,
        what: What,
        request: Option<Box<Request>>,
        hop: Hop,
        dialog: Option<DialogKey>,
    ) {
        let in_dialog = request.as_ref().is_some_and(|request| request.headers.to.tag().is_some());
        let connected = if in_dialog && hop::is_web(&hop) { self.web_connection(&hop) } else { None };
        self.work.errands.insert(key, Errand::new(what, request, hop.clone(), dialog));
        match connected {
            Some(target) => self.try_targets(now, key, VecDeque::from([target])),
            None => self.locator.locate(now, key, &hop),
        }
    }

    /// RFC 7118 §5: the Contact of a WebSocket peer is not to be connected to; requests go by the connection that is there.
    fn web_connection(&self, hop: &Hop) -> Option<Target> {
        let mut web = self.ways.proved.iter().filter(|((transport, _), _)| match transport {
            Transport::Ws | Transport::Wss => true,
            Transport::Udp | Transport::Tcp | Transport::Tls => false,
        });
        let at = |remote: SocketAddr| hop.host == Host::Ip(remote.ip());
        let found = web.clone().find(|((_, remote), _)| at(*remote)).or_else(|| web.next());
        found.map(|((transport, remote), name)| Target { transport: *transport, remote: *remote, name: name.clone() })
    }

    pub(super) fn located(&mut self, now: Instant, located: Located) {
        if self.work.errands.get(&located.key).is_some_and(|errand| matches!(errand.stage, Stage::Locating)) {
            self.try_targets(now, located.key, located.targets.into());
        }
    }

    fn try_targets(&mut self, now: Instant, key: u64, mut targets: VecDeque<Target>) {
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        targets.truncate(self.limits.targets);
        if let Host::Ip(_) = errand.hop.host {
            // A certificate proves a name, seldom an address: a connection that proved one for this address will do.
            for target in &mut targets {
                if let Some(name) = self.ways.proved.get(&(target.transport, target.remote)) {
                    target.name.clone_from(name);
                }
            }
        }
        errand.targets = targets;
        self.next_target(now, key);
    }

    /// RFC 3263 §4.3: a new transaction with each target.
    fn next_target(&mut self, now: Instant, key: u64) {
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        let Some(target) = errand.targets.pop_front() else { return self.out_of_targets(key) };
        let mut ready = errand.request.clone();
        if let (Some(request), What::Request(_)) = (&mut ready, errand.what) {
            let hop = auth::Hop { host: &errand.hop.host, secure: target.transport.is_secure() };
            self.vault.prepare(&hop, request, &mut errand.proofs);
        }
        self.open(now, key, Trip { target, request: ready, instead_of: None });
    }

    fn open(&mut self, now: Instant, key: u64, trip: Trip) {
        let flow = match self.flow_for(now, &trip.target) {
            Ok(flow) => flow,
            Err(why) => return self.not_opened(now, key, trip, why),
        };
        if self.flows.state(flow).is_some_and(|info| info.local.is_some()) {
            return self.dispatch(now, key, trip, flow, false);
        }
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        let hurried = trip.instead_of.is_some() && trip.target.transport != Transport::Udp;
        let until = hurried.then_some(now + self.timers.tcp);
        self.work.patience.extend(until.map(|at| (at, key)));
        errand.stage = Stage::Opening { trip, flow, until };
        self.work.opening.entry(flow).or_default().push(key);
    }

    /// The trips that waited for a flow.
    fn waited_for(&mut self, flow: FlowId) -> Vec<(u64, Trip)> {
        let mut trips = Vec::new();
        for key in self.work.opening.remove(&flow).unwrap_or_default() {
            let Some(errand) = self.work.errands.get_mut(&key) else { continue };
            if !matches!(errand.stage, Stage::Opening { flow: awaited, .. } if awaited == flow) {
                continue;
            }
            if let Stage::Opening { trip, until, .. } = std::mem::replace(&mut errand.stage, Stage::Locating) {
                if let Some(at) = until {
                    self.work.patience.remove(&(at, key));
                }
                trips.push((key, trip));
            }
        }
        trips
    }

    pub(super) fn opened(&mut self, now: Instant, flow: FlowId) {
        for (key, trip) in self.waited_for(flow) {
            let target = &trip.target;
            if !target.name.is_empty() {
                self.ways.proved.insert((target.transport, target.remote), target.name.clone());
                if self.ways.proved.len() > WATCHED {
                    self.ways.proved.pop_first();
                }
            }
            self.dispatch(now, key, trip, flow, true);
        }
    }

    /// Sends what is ready by a flow that is open.
    fn dispatch(&mut self, now: Instant, key: u64, trip: Trip, flow: FlowId, fresh: bool) {
        let Some(errand) = self.work.errands.get(&key) else { return };
        let what = errand.what;
        let Some((transport, at)) = self.flows.state(flow).and_then(|info| Some((info.transport, info.local?))) else {
            return;
        };
        let Trip { target, request: Some(mut request), instead_of } = trip else {
            if let What::Way(id) = what {
                self.heard.push_back(Heard::Way { id, transport, local: at, remote: trip.target.remote });
            }
            return self.forget(key);
        };
        let mut via = hop::via(transport, at, self.random.next_u64());
        if hop::binds(&request) == Some(true) {
            // RFC 6223 §4.1: willing to keep the flow open.
            via.params.set("keep", None);
        }
        let told = self.advertised(flow).map(|(_, at)| at);
        hop::place_request(&mut request, transport, told.unwrap_or(at));
        request.headers.via.insert(0, via);
        let mut bytes = Vec::with_capacity(1024);
        request.write(&mut bytes);
        // RFC 3261 §18.1.1: past 1300 bytes by TCP, unless there is none at that address.
        let long = transport == Transport::Udp && bytes.len() > self.limits.datagram_bytes && instead_of.is_none();
        if long && self.work.without_tcp.get(&target.remote).is_none_or(|until| *until <= now) {
            request.headers.via.remove(0);
            self.unplace(key, &mut request);
            let by_tcp = target.over(Transport::Tcp);
            return self.open(now, key, Trip { target: by_tcp, request: Some(request), instead_of: Some(target) });
        }
        let path = Path { flow, remote: target.remote, reliable: transport.is_reliable() };
        match what {
            What::Request(_) => match self.transactions.begin(now, request, bytes, path) {
                Ok(client) => {
                    let asking = Asking { client, target, flow, fresh, provisional: false, rings: false, told };
                    if let Some(errand) = self.work.errands.get_mut(&key) {
                        errand.stage = Stage::Asking(asking);
                    }
                    self.work.clients.insert(client, key);
                }
                Err(_) => self.fail(key, Failure::Full),
            },
            What::Ack => {
                // An ACK that is lost is repeated with the next copy of the 2xx.
                let _ = self.flows.send(now, flow, target.remote, bytes);
                self.forget(key);
            }
            What::Way(_) => self.forget(key),
        }
    }

    /// Our address is another one on another transport: the headers that have it are the owner's again.
    fn unplace(&self, key: u64, ready: &mut Request) {
        if let Some(original) = self.work.errands.get(&key).and_then(|errand| errand.request.as_ref()) {
            ready.headers.contact.clone_from(&original.headers.contact);
            ready.headers.from.clone_from(&original.headers.from);
        }
    }

    fn not_opened(&mut self, now: Instant, key: u64, trip: Trip, why: FlowFault) {
        match trip {
            Trip { target, request, instead_of: Some(udp) } if target != udp => {
                self.by_udp_after_all(now, key, udp, request);
            }
            Trip { target, .. } => {
                self.locator.mark_dead(now, &target, None);
                if let Some(errand) = self.work.errands.get_mut(&key) {
                    errand.fault = Some(Fault::Flow(why));
                }
                self.next_target(now, key);
            }
        }
    }

    /// RFC 3261 §18.1.1: where TCP is refused the request goes by UDP, however long it is.
    fn by_udp_after_all(&mut self, now: Instant, key: u64, target: Target, request: Option<Box<Request>>) {
        self.work.without_tcp.retain(|_, until| *until > now);
        if self.work.without_tcp.len() < WITHOUT_TCP {
            self.work.without_tcp.insert(target.remote, now + WITHOUT_TCP_FOR);
        }
        self.open(now, key, Trip { target: target.clone(), request, instead_of: Some(target) });
    }

    pub(super) fn out_of_patience(&mut self, now: Instant, at: Instant, key: u64) {
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        if !matches!(errand.stage, Stage::Opening { until: Some(until), .. } if until == at) {
            return;
        }
        if let Stage::Opening { trip, .. } = std::mem::replace(&mut errand.stage, Stage::Locating)
            && let Some(udp) = trip.instead_of
        {
            self.by_udp_after_all(now, key, udp, trip.request);
        }
    }
}

/// The way back.
impl Carrier {
    pub(super) fn answered(&mut self, now: Instant, client: ClientId, response: Box<Response>, origin: Origin) {
        let Some(key) = self.work.clients.get(&client).copied() else { return };
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        match &mut errand.stage {
            Stage::Asking(asking) => {
                let asking = asking.clone();
                self.locator.mark_alive(&asking.target);
                if let Some(public) = response.headers.via.first().and_then(hop::reflected) {
                    self.learned(now, asking.flow, public);
                }
                if response.status.is_provisional() {
                    self.provisional(now, key, response, origin);
                } else {
                    self.finally(now, key, asking, response, origin);
                }
            }
            Stage::Answered { .. } => self.pass(key, response, origin),
            Stage::Locating | Stage::Opening { .. } => {}
        }
    }

    fn provisional(&mut self, now: Instant, key: u64, response: Box<Response>, origin: Origin) {
        if let Some(Errand { stage: Stage::Asking(asking), .. }) = self.work.errands.get_mut(&key) {
            asking.provisional = true;
            asking.rings |= response.status.code() != 100;
        }
        if response.status.code() != 100 {
            self.pass(key, response, origin);
        }
        self.send_cancel(now, key);
    }

    fn finally(&mut self, now: Instant, key: u64, asking: Asking, response: Box<Response>, origin: Origin) {
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        let live = matches!(errand.cancel, Cancel::No);
        let code = response.status.code();
        if live && matches!(code, 401 | 407) && self.prove(key, &asking, &response) {
            self.work.clients.remove(&asking.client);
            if let Some(errand) = self.work.errands.get_mut(&key) {
                errand.targets.push_front(asking.target);
            }
            return self.next_target(now, key);
        }
        // RFC 3263 §4.3: 503 is as good as no answer, but not once somebody rings.
        if live && code == 503 && !asking.rings {
            self.work.clients.remove(&asking.client);
            let pause = response.headers.retry_after().map(|seconds| Duration::from_secs(u64::from(seconds)));
            self.locator.mark_dead(now, &asking.target, pause);
            if let Some(errand) = self.work.errands.get_mut(&key) {
                errand.fault = Some(Fault::Busy(response, origin));
            }
            return self.next_target(now, key);
        }
        if let Some((sent, _)) = self.transactions.sent(asking.client)
            && !matches!(code, 401 | 407)
        {
            self.vault.answered(sent, &response);
            if let Some(errand) = self.work.errands.get(&key).filter(|_| response.status.is_success()) {
                let hop = auth::Hop { host: &errand.hop.host, secure: asking.target.transport.is_secure() };
                self.vault.met(&hop, asking.target.remote.ip(), sent);
            }
        }
        if let Some(errand) = self.work.errands.get_mut(&key)
            && response.status.is_success()
            && errand.is_invite()
        {
            errand.stage = Stage::Answered { client: asking.client, target: asking.target };
            errand.request = None;
            return self.pass(key, response, origin);
        }
        self.work.clients.remove(&asking.client);
        let news = self.note_binding(now, key, &asking, &response);
        self.pass(key, response, origin);
        self.heard.extend(news);
        self.forget(key);
    }

    /// Takes a challenge: true if the request is to be sent again (RFC 3261 §22.2, §22.3).
    fn prove(&mut self, key: u64, asking: &Asking, response: &Response) -> bool {
        let Some(errand) = self.work.errands.get_mut(&key) else { return false };
        let Some(request) = errand.request.as_mut() else { return false };
        let Some((sent, _)) = self.transactions.sent(asking.client) else { return false };
        let number = sent.headers.cseq.number.saturating_add(1);
        if errand.challenges >= self.limits.challenges || number >= CSEQ_END {
            return false;
        }
        let hop = auth::Hop { host: &errand.hop.host, secure: asking.target.transport.is_secure() };
        if let Err(why) = self.vault.challenged(&hop, sent, response, &mut errand.proofs) {
            tracing::debug!("a challenge is not answered: {why}");
            return false;
        }
        errand.challenges += 1;
        // RFC 3261 §22.2: "MUST increment the CSeq"; above whatever was sent in this dialog meanwhile.
        let live = errand.dialog.as_ref().and_then(|dialog| self.work.dialogs.get_mut(dialog));
        request.headers.cseq.number = match live {
            Some(live) => {
                live.cseq = live.cseq.max(sent.headers.cseq.number).saturating_add(1);
                live.cseq
            }
            None => number,
        };
        true
    }

    /// Remembers where a registration or subscription is known to be, and keeps that way open. What comes out is for its
    /// owner to hear after the response: that his address is another one than he told in the request.
    fn note_binding(&mut self, now: Instant, key: u64, asking: &Asking, response: &Response) -> Option<Heard> {
        let errand = self.work.errands.get(&key)?;
        let What::Request(RequestId { owner, .. }) = errand.what else { return None };
        let request = errand.request.as_deref()?;
        match owner {
            Owner::Registration(_) | Owner::Event(_) if response.status.is_success() => {}
            Owner::Registration(_) | Owner::Event(_) | Owner::Session(_) | Owner::Lone(_) => return None,
        }
        match hop::binds(request) {
            Some(false) => {
                self.ways.watched.remove(&owner);
                self.flows.keep(now, asking.flow, asking.target.remote, Keep::None);
                return None;
            }
            Some(true) => self.flows.keep(now, asking.flow, asking.target.remote, promised(response)),
            None => {}
        }
        let told = asking.told.filter(|_| !request.headers.contact.is_empty());
        if self.ways.watched.len() >= WATCHED && !self.ways.watched.contains_key(&owner) {
            return None;
        }
        let seen = self.advertised(asking.flow).map(|(_, at)| at);
        let watch = self.ways.watched.entry(owner).or_insert(Watch { flow: asking.flow, told: None, moved: None });
        (watch.flow, watch.told) = (asking.flow, told);
        let recent = watch.moved.is_some_and(|last| now.saturating_duration_since(last) < MOVED_INTERVAL);
        if told.is_none() || told == seen || recent {
            return None;
        }
        watch.moved = Some(now);
        Some(Heard::FlowChanged { owner, why: super::FlowChange::Moved })
    }

    pub(super) fn timed_out(&mut self, now: Instant, client: ClientId) {
        let Some(key) = self.work.clients.remove(&client) else { return };
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        let Stage::Asking(asking) = &errand.stage else { return };
        if !matches!(errand.cancel, Cancel::No) {
            return self.fail(key, Failure::Cancelled);
        }
        if asking.provisional {
            return self.fail(key, Failure::TimedOut);
        }
        self.locator.mark_dead(now, &asking.target, None);
        errand.fault = Some(Fault::TimedOut);
        self.next_target(now, key);
    }

    /// It could not be sent, or its connection broke before the final answer.
    pub(super) fn unsent(&mut self, now: Instant, client: ClientId, why: FlowFault) {
        let Some(key) = self.work.clients.remove(&client) else { return };
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        let Stage::Asking(asking) = &errand.stage else { return };
        let asking = asking.clone();
        if !matches!(errand.cancel, Cancel::No) {
            return self.fail(key, Failure::Cancelled);
        }
        // Somewhere it rings: asking again would ring twice.
        if asking.provisional {
            return self.fail(key, failure(&why));
        }
        if !asking.fresh && asking.target.transport.is_reliable() {
            // An old connection that the other side had forgotten says nothing of the target.
            errand.targets.push_front(asking.target);
        } else {
            self.locator.mark_dead(now, &asking.target, None);
        }
        errand.fault = Some(Fault::Flow(why));
        self.next_target(now, key);
    }

    pub(super) fn flow_down(&mut self, now: Instant, flow: FlowId, why: &FlowFault) {
        for (key, trip) in self.waited_for(flow) {
            self.not_opened(now, key, trip, why.clone());
        }
        let clients: Vec<ClientId> = self.transactions.on_flow(flow).collect();
        for client in clients {
            if self.transactions.abandon(client) {
                self.unsent(now, client, why.clone());
            }
        }
    }

    pub(super) fn over(&mut self, client: ClientId) {
        let Some(key) = self.work.clients.remove(&client) else { return };
        if self.work.errands.get(&key).is_some_and(|errand| matches!(errand.stage, Stage::Answered { .. })) {
            self.forget(key);
        }
    }

    fn pass(&mut self, key: u64, mut response: Box<Response>, origin: Origin) {
        let Some(errand) = self.work.errands.get(&key) else { return };
        let What::Request(id) = errand.what else { return };
        if let Stage::Asking(Asking { told: Some(at), .. }) = &errand.stage
            && response.headers.cseq.method == Method::Register
        {
            hop::unplace(&mut response, *at);
        }
        let cseq = response.headers.cseq.number;
        self.heard.push_back(Heard::Response { id, response, cseq, origin });
    }

    fn out_of_targets(&mut self, key: u64) {
        let Some(errand) = self.work.errands.get_mut(&key) else { return };
        match errand.fault.take() {
            Some(Fault::Busy(response, origin)) => {
                self.pass(key, response, origin);
                self.forget(key);
            }
            Some(Fault::TimedOut) => self.fail(key, Failure::TimedOut),
            Some(Fault::Flow(why)) => self.fail(key, failure(&why)),
            None => {
                let name = errand.hop.host.to_string();
                self.fail(key, Failure::NoTarget(name));
            }
        }
    }

    fn fail(&mut self, key: u64, why: Failure) {
        if let Some(Errand { what: What::Request(id) | What::Way(id), .. }) = self.work.errands.get(&key) {
            self.heard.push_back(Heard::Failed { id: *id, why });
        }
        self.forget(key);
    }

    fn forget(&mut self, key: u64) {
        let Some(errand) = self.work.errands.remove(&key) else { return };
        if let What::Request(id) | What::Way(id) = errand.what {
            self.work.names.remove(&id);
        }
        match errand.stage {
            Stage::Locating => self.locator.cancel(key),
            Stage::Opening { .. } | Stage::Asking(_) | Stage::Answered { .. } => {}
        }
        if let Some(dialog) = errand.dialog
            && let Some(live) = self.work.dialogs.get_mut(&dialog)
        {
            live.errands.remove(&key);
            if live.errands.is_empty() {
                self.work.dialogs.remove(&dialog);
            }
        }
    }
}

impl Errand {
    /// Its outcome is told; only what may be repeated is still waited for.
    pub(super) fn is_answered(&self) -> bool {
        matches!(self.stage, Stage::Answered { .. })
    }

    fn new(what: What, request: Option<Box<Request>>, hop: Hop, dialog: Option<DialogKey>) -> Self {
        Self {
            what,
            request,
            hop,
            dialog,
            targets: VecDeque::new(),
            stage: Stage::Locating,
            proofs: auth::Attempt::default(),
            challenges: 0,
            cancel: Cancel::No,
            fault: None,
        }
    }

    fn is_invite(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.method == Method::Invite)
    }
}

/// RFC 6223 §4.3 and RFC 5626 §5: an answer to a keep-alive is waited for only where it is promised.
fn promised(response: &Response) -> Keep {
    let told = response.headers.via.first().and_then(|via| via.params.find("keep"));
    if response.headers.requires("outbound") || told.is_some_and(|told| !told.is_empty()) {
        Keep::Pong
    } else {
        Keep::Quiet
    }
}

fn failure(why: &FlowFault) -> Failure {
    match why {
        FlowFault::Certificate(why) => Failure::Certificate(why.clone()),
        FlowFault::Full => Failure::Full,
        FlowFault::Unreachable(_)
        | FlowFault::Silent
        | FlowFault::Misbehaved(_)
        | FlowFault::Closed(_)
        | FlowFault::Idle => Failure::Unreachable(why.to_string()),
    }
}

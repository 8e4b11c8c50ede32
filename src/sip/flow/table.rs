//! The table of flows. Read RFC 3261 §18, RFC 5626 §5.4 and RFC 5923 §5 before touching this file.

use super::keep_alive::{Keeper, PONG, Step};
use super::{FlowEvent, FlowFault, FlowInfo, Keep, SipInput, SipOutput};
use crate::config::SipFlowLimits;
use crate::sip::exchange::{FlowId, Origin, Transport};
use crate::wire::sip::{Flaw, Framed, Framer, Malformed, Message};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Set in the ids of flows that the shell accepted.
const ACCEPTED: u64 = 1 << 63;

/// A connection that is no SIP lives so long, for the answer that says so.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Two line ends with so much between them are two pongs.
const SPLIT: Duration = Duration::from_secs(2);
const NO_SIP: FlowFault = FlowFault::Misbehaved("the connection carries no SIP");

/// Where a connection leads: transport, address, and the name that its certificate was checked for (RFC 5923 §8.1: a
/// connection is used again only for a server whose identity it proved).
type Way = (Transport, SocketAddr, String);

/// All flows of one user agent.
///
/// ```text
///            open                        Opened                     Closed, silent, idle, too slow
///   flow_to ─────▶ Opening (messages wait) ─────▶ Open ◀─────┐ ────────────────────────────────────▶ Down
///                     └── Failed, 15 s ──▶ Down    Accepted ─┘
/// ```
#[derive(Debug)]
pub struct Flows {
    limits: SipFlowLimits,
    rng: ChaCha20Rng,
    /// Of the last flow that we opened.
    last: u64,
    flows: BTreeMap<FlowId, Flow>,
    ways: BTreeMap<Way, FlowId>,
    /// Connections accepted of each source.
    sources: BTreeMap<IpAddr, usize>,
    timers: BTreeSet<(Instant, FlowId)>,
    outputs: VecDeque<SipOutput>,
    events: VecDeque<FlowEvent>,
}

#[derive(Debug)]
struct Flow {
    transport: Transport,
    role: Role,
    state: State,
    /// Of a stream: TCP and TLS.
    framer: Framer,
    /// When a message began that is not complete.
    began: Option<Instant>,
    /// Something that is SIP, or a keep-alive, came.
    proven: bool,
    malformed: u32,
    /// A line end came last, then.
    crlf: Option<Instant>,
    /// It is closed then, and nothing of it is read any more.
    ends: Option<Instant>,
    used: Instant,
    keepers: BTreeMap<SocketAddr, Keeper>,
    /// Entry in the timer table.
    due: Option<Instant>,
}

#[derive(Debug)]
enum Role {
    /// A UDP listener is a flow as well.
    Listener,
    /// To this address; only its IP counts for UDP.
    Outgoing(SocketAddr),
    /// From this address, by this certificate.
    Accepted { remote: SocketAddr, names: Vec<String> },
}

#[derive(Debug)]
enum State {
    Opening { by: Instant, waiting: Vec<(SocketAddr, Vec<u8>)>, bytes: usize },
    Open { local: SocketAddr },
}

impl Flow {
    fn local(&self) -> Option<SocketAddr> {
        match self.state {
            State::Open { local } => Some(local),
            State::Opening { .. } => None,
        }
    }

    fn remote(&self) -> Option<SocketAddr> {
        match self.role {
            Role::Listener => None,
            Role::Outgoing(remote) | Role::Accepted { remote, .. } => Some(remote),
        }
    }

    fn is_accepted(&self) -> bool {
        matches!(self.role, Role::Accepted { .. })
    }

    fn is_kept(&self) -> bool {
        self.keepers.values().any(|k| k.keep() != Keep::Quiet)
            || self.transport == Transport::Udp && !self.keepers.is_empty()
    }

    /// The next moment at which something is to be looked at.
    fn next_due(&self, limits: &SipFlowLimits) -> Option<Instant> {
        if let State::Opening { by, .. } = self.state {
            return Some(by);
        }
        if self.ends.is_some() {
            return self.ends;
        }
        let kept = self.keepers.values().filter_map(Keeper::due).min();
        kept.into_iter().chain(self.began.map(|at| at + limits.message)).chain(self.rests_until(limits)).min()
    }

    /// When it is closed unless something travels.
    fn rests_until(&self, limits: &SipFlowLimits) -> Option<Instant> {
        match self.role {
            Role::Listener => None,
            Role::Accepted { .. } if !self.proven => Some(self.used + limits.first_message),
            Role::Outgoing(_) | Role::Accepted { .. } if self.is_kept() => None,
            Role::Outgoing(_) | Role::Accepted { .. } => Some(self.used + limits.idle),
        }
    }
}

impl Flows {
    /// No flow yet.
    #[must_use]
    pub fn new(seed: [u8; 32], limits: SipFlowLimits) -> Self {
        Self {
            limits,
            rng: ChaCha20Rng::from_seed(seed),
            last: 0,
            flows: BTreeMap::new(),
            ways: BTreeMap::new(),
            sources: BTreeMap::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Listens; [`FlowEvent::Open`] or [`FlowEvent::Down`] follows.
    ///
    /// # Errors
    /// [`FlowFault::Full`]
    pub fn listen(&mut self, now: Instant, transport: Transport, local: SocketAddr) -> Result<FlowId, FlowFault> {
        let flow = self.add(now, transport, Role::Listener)?;
        self.outputs.push_back(SipOutput::Listen { flow, transport, local });
        Ok(flow)
    }

    /// A flow that leads to `remote`: one that is there already, or a new one that is opened now. `name` is the domain that
    /// was asked for, and is looked at for TLS and WebSocket only.
    ///
    /// # Errors
    /// [`FlowFault::Full`]
    pub fn flow_to(
        &mut self,
        now: Instant,
        transport: Transport,
        remote: SocketAddr,
        name: &str,
    ) -> Result<FlowId, FlowFault> {
        let way = way(transport, remote, name);
        if let Some(flow) = self.ways.get(&way).copied().or_else(|| self.listening_socket(transport, remote)) {
            return Ok(flow);
        }
        let flow = self.add(now, transport, Role::Outgoing(remote))?;
        let name = way.2.clone();
        self.ways.insert(way, flow);
        if transport != Transport::Udp {
            self.keep(now, flow, remote, Keep::Quiet);
        }
        self.outputs.push_back(SipOutput::Open { flow, transport, remote, name });
        Ok(flow)
    }

    /// Sends one whole message: at once, or when the flow is open. `remote` is looked at for UDP only.
    ///
    /// # Errors
    /// [`FlowFault::Closed`] where there is no such flow, [`FlowFault::Full`] where too much waits for it to open.
    pub fn send(&mut self, now: Instant, flow: FlowId, remote: SocketAddr, message: Vec<u8>) -> Result<(), FlowFault> {
        let Some(it) = self.flows.get_mut(&flow) else { return Err(FlowFault::Closed("no such connection".into())) };
        it.used = now;
        let remote = if it.transport == Transport::Udp { remote } else { it.remote().unwrap_or(remote) };
        match &mut it.state {
            State::Open { .. } => self.outputs.push_back(SipOutput::Send { flow, remote, bytes: message }),
            State::Opening { waiting, bytes, .. } => {
                if *bytes + message.len() > self.limits.waiting_bytes {
                    return Err(FlowFault::Full);
                }
                *bytes += message.len();
                waiting.push((remote, message));
            }
        }
        Ok(())
    }

    /// What is known of a flow; `None` where it is gone.
    #[must_use]
    pub fn state(&self, flow: FlowId) -> Option<FlowInfo> {
        self.flows.get(&flow).map(|it| FlowInfo {
            transport: it.transport,
            local: it.local(),
            remote: it.remote(),
            outgoing: matches!(it.role, Role::Outgoing(_)),
        })
    }

    /// A peer asks with `alias` in his Via that requests to his advertised address use the connection he opened. That is done
    /// for the domains that his certificate proves and no others (RFC 5923 §8.1 and §9); true if there is one.
    pub fn alias(&mut self, flow: FlowId, advertised: SocketAddr) -> bool {
        let Some(it) = self.flows.get(&flow) else { return false };
        let Role::Accepted { names, .. } = &it.role else { return false };
        if it.transport != Transport::Tls || names.is_empty() {
            return false;
        }
        for name in names {
            // The newest connection counts: the one before may be dead.
            self.ways.insert(way(it.transport, advertised, name), flow);
        }
        true
    }

    /// How a flow is to be kept open; `remote` is looked at for UDP only. The same wish again changes nothing.
    pub fn keep(&mut self, now: Instant, flow: FlowId, remote: SocketAddr, keep: Keep) {
        let Some(it) = self.flows.get_mut(&flow) else { return };
        let stream = it.transport != Transport::Udp;
        let remote = if stream { it.remote().unwrap_or(remote) } else { remote };
        // A pong is an answer of streams, STUN one of datagrams.
        let keep = match keep {
            Keep::Stun if stream => Keep::Pong,
            Keep::Pong if !stream => Keep::Stun,
            Keep::Stun | Keep::Pong | Keep::Quiet | Keep::None => keep,
        };
        if keep == Keep::None {
            it.keepers.remove(&remote);
        } else if it.keepers.get(&remote).is_none_or(|k| k.keep() != keep)
            && (it.keepers.len() < self.limits.kept_per_socket || it.keepers.contains_key(&remote))
        {
            it.keepers.insert(remote, Keeper::new(now, keep, stream, &self.limits, &mut self.rng));
        }
        it.used = now;
        self.schedule(flow);
    }

    /// Closes a flow after what was sent on it is written. Nothing more is heard of it.
    pub fn close(&mut self, flow: FlowId) {
        if self.remove(flow) {
            self.outputs.push_back(SipOutput::Close(flow));
        }
    }

    /// Flows that are there, listeners among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// What the shell has to say. [`SipInput::Found`] is the locator's.
    pub fn handle_input(&mut self, now: Instant, input: SipInput<'_>) {
        match input {
            SipInput::Opened { flow, local } => self.handle_opened(now, flow, local),
            SipInput::Failed { flow, why } => {
                if self.remove(flow) {
                    self.events.push_back(FlowEvent::Down { flow, why });
                }
            }
            SipInput::Accepted { listener, flow, local, remote, names } => {
                self.handle_accepted(now, (listener, flow), (local, remote), names);
            }
            SipInput::Bytes { flow, source, bytes } => self.handle_bytes(now, flow, source, bytes),
            SipInput::Closed { flow, why } => {
                if self.remove(flow) {
                    self.events.push_back(FlowEvent::Down { flow, why: FlowFault::Closed(why) });
                }
            }
            SipInput::Found { .. } => {}
        }
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, flow)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, flow));
            if let Some(it) = self.flows.get_mut(&flow) {
                it.due = None;
            }
            if let Err(why) = self.look_after(now, flow) {
                self.fail(flow, why);
            }
            self.schedule(flow);
        }
    }

    /// The next wish.
    pub fn poll_transmit(&mut self) -> Option<SipOutput> {
        self.outputs.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<FlowEvent> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A UDP socket that listens on one address sends from it as well, so that one port is all that is known of us. One that
    /// listens on every address does not tell which of them leads to `remote`: the shell finds out, and shares the socket.
    fn listening_socket(&self, transport: Transport, remote: SocketAddr) -> Option<FlowId> {
        if transport != Transport::Udp {
            return None;
        }
        let fits = |local: SocketAddr| {
            let (ours, theirs) = (local.ip(), remote.ip());
            !ours.is_unspecified() && ours.is_ipv4() == theirs.is_ipv4() && ours.is_loopback() == theirs.is_loopback()
        };
        let mut listeners = self.flows.iter().filter(|(_, it)| matches!(it.role, Role::Listener));
        listeners.find(|(_, it)| it.transport == Transport::Udp && it.local().is_some_and(fits)).map(|(flow, _)| *flow)
    }

    fn add(&mut self, now: Instant, transport: Transport, role: Role) -> Result<FlowId, FlowFault> {
        let ours = self.flows.len() - self.sources.values().sum::<usize>();
        if ours >= self.limits.outgoing
            && !self.evict(now, self.limits.evictable, |it| matches!(it.role, Role::Outgoing(_)) && !it.is_kept())
        {
            return Err(FlowFault::Full);
        }
        self.last += 1;
        let flow = FlowId(self.last);
        let state = State::Opening { by: now + self.limits.open, waiting: Vec::new(), bytes: 0 };
        self.flows.insert(flow, Flow::new(now, transport, role, state));
        self.schedule(flow);
        Ok(flow)
    }

    /// Closes the flow that rests longest among those that may be closed to make room; true if there was one.
    fn evict(&mut self, now: Instant, rest: Duration, may: impl Fn(&Flow) -> bool) -> bool {
        let resting = |it: &Flow| now.saturating_duration_since(it.used) >= rest;
        let longest = self.flows.iter().filter(|(_, it)| may(it) && resting(it)).min_by_key(|(_, it)| it.used);
        let Some(flow) = longest.map(|(flow, _)| *flow) else { return false };
        self.fail(flow, FlowFault::Idle);
        true
    }

    fn handle_opened(&mut self, now: Instant, flow: FlowId, local: SocketAddr) {
        let Some(it) = self.flows.get_mut(&flow) else { return };
        let before = std::mem::replace(&mut it.state, State::Open { local });
        it.used = now;
        if let State::Opening { waiting, .. } = before {
            let sends = waiting.into_iter().map(|(remote, bytes)| SipOutput::Send { flow, remote, bytes });
            self.outputs.extend(sends);
            self.events.push_back(FlowEvent::Open { flow, local });
        }
        self.schedule(flow);
    }

    fn handle_accepted(
        &mut self,
        now: Instant,
        (listener, flow): (FlowId, FlowId),
        (local, remote): (SocketAddr, SocketAddr),
        names: Vec<String>,
    ) {
        let transport = self.flows.get(&listener).map(|it| it.transport);
        let Some(transport) = transport.filter(|_| flow.0 & ACCEPTED != 0 && !self.flows.contains_key(&flow)) else {
            self.outputs.push_back(SipOutput::Close(flow));
            return;
        };
        let all: usize = self.sources.values().sum();
        let of_source = self.sources.get(&source_key(remote.ip())).copied().unwrap_or(0);
        let full = of_source >= self.limits.accepted_per_source
            // Whoever never said anything makes room first, then who has rested longest.
            || all >= self.limits.accepted
                && !self.evict(now, self.limits.evictable_silent, |it| it.is_accepted() && !it.proven)
                && !self.evict(now, self.limits.evictable_accepted, Flow::is_accepted);
        if full {
            tracing::debug!("too many connections, one more is refused");
            self.outputs.push_back(SipOutput::Close(flow));
            return;
        }
        *self.sources.entry(source_key(remote.ip())).or_default() += 1;
        let role = Role::Accepted { remote, names: names.into_iter().map(|n| n.to_ascii_lowercase()).collect() };
        self.flows.insert(flow, Flow::new(now, transport, role, State::Open { local }));
        self.schedule(flow);
    }

    fn handle_bytes(&mut self, now: Instant, flow: FlowId, source: SocketAddr, bytes: &[u8]) {
        let flow = self.owner(flow, source);
        let Some(transport) = self.flows.get(&flow).map(|it| it.transport) else { return };
        let handled = match transport {
            Transport::Udp => self.handle_datagram(now, flow, source, bytes),
            Transport::Tcp | Transport::Tls => self.handle_stream(now, flow, source, bytes),
            Transport::Ws | Transport::Wss => self.handle_whole(now, flow, source, bytes),
        };
        if let Err(why) = handled {
            self.fail(flow, why);
        }
        self.schedule(flow);
    }

    /// A socket that listens on every address is shared by the flows that were opened through it.
    fn owner(&self, flow: FlowId, source: SocketAddr) -> FlowId {
        let local = self.flows.get(&flow).filter(|it| it.transport == Transport::Udp).and_then(Flow::local);
        let Some(local) = local.filter(|l| l.ip().is_unspecified()) else { return flow };
        let opened = self.ways.get(&way(Transport::Udp, source, ""));
        let shares =
            |other: &FlowId| self.flows.get(other).and_then(Flow::local).is_some_and(|l| l.port() == local.port());
        opened.copied().filter(shares).unwrap_or(flow)
    }

    fn handle_datagram(
        &mut self,
        now: Instant,
        flow: FlowId,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), FlowFault> {
        let Some(it) = self.flows.get_mut(&flow) else { return Ok(()) };
        let keeper = it.keepers.get_mut(&source);
        // RFC 5626 §8: the first two bits of STUN are zero, SIP begins with a letter.
        if bytes.first().is_some_and(|first| first & 0xC0 == 0 && !first.is_ascii_whitespace()) {
            if let Some(public) = keeper.and_then(|k| k.handle_stun(now, bytes, &mut self.rng)) {
                self.events.push_back(FlowEvent::Moved { flow, remote: source, public });
            }
            return Ok(());
        }
        if let Some(keeper) = keeper {
            keeper.heard(now, false, &mut self.rng);
        }
        let origin = Origin { flow, transport: it.transport, source };
        let event = match Message::parse(bytes) {
            Ok(message) => FlowEvent::Message { origin, message: Box::new(message) },
            // RFC 5626 §3.5.1 knows pings on streams only; on datagrams they are not answered.
            Err(Malformed { flaw: Flaw::KeepAlive, .. }) => return Ok(()),
            Err(why) => FlowEvent::Malformed { origin, why: Box::new(why) },
        };
        it.used = now;
        self.events.push_back(event);
        Ok(())
    }

    /// RFC 7118 §5: one WebSocket message is one SIP message.
    fn handle_whole(&mut self, now: Instant, flow: FlowId, source: SocketAddr, bytes: &[u8]) -> Result<(), FlowFault> {
        // RFC 7118 §6: keep-alives of RFC 5626 are messages of their own.
        match bytes {
            b"\r\n\r\n" => self.handle_framed(now, flow, source, Framed::Ping),
            b"\r\n" => self.handle_framed(now, flow, source, Framed::Pong),
            _ => {
                let framed = match Message::parse(bytes) {
                    Ok(message) => Framed::Message(Box::new(message)),
                    Err(why) => Framed::Refused(why),
                };
                self.handle_framed(now, flow, source, framed)
            }
        }
    }

    fn handle_stream(&mut self, now: Instant, flow: FlowId, source: SocketAddr, bytes: &[u8]) -> Result<(), FlowFault> {
        let Some(it) = self.flows.get_mut(&flow) else { return Ok(()) };
        if it.ends.is_some() {
            return Ok(());
        }
        // RFC 5626 §3.5.1: two pongs are no ping. The halves of one that was split come close together.
        if it.crlf.is_some_and(|at| now.saturating_duration_since(at) > SPLIT) {
            it.framer.forget_crlf();
        }
        it.crlf = None;
        it.framer.push(bytes);
        let mut complete = false;
        loop {
            let Some(it) = self.flows.get_mut(&flow) else { return Ok(()) };
            let framed = match it.framer.next() {
                Ok(Some(framed)) => framed,
                Ok(None) => break,
                Err(broken) => return self.handle_broken(now, flow, source, broken.malformed),
            };
            complete = true;
            self.handle_framed(now, flow, source, framed)?;
        }
        if let Some(it) = self.flows.get_mut(&flow) {
            let begun = if complete { None } else { it.began };
            it.began = it.framer.is_mid_message().then(|| begun.unwrap_or(now));
        }
        Ok(())
    }

    fn handle_framed(
        &mut self,
        now: Instant,
        flow: FlowId,
        source: SocketAddr,
        framed: Framed,
    ) -> Result<(), FlowFault> {
        let Some(it) = self.flows.get_mut(&flow) else { return Ok(()) };
        let origin = Origin { flow, transport: it.transport, source };
        it.used = now;
        let pong = matches!(framed, Framed::Pong);
        for keeper in it.keepers.values_mut() {
            keeper.heard(now, pong, &mut self.rng);
        }
        match framed {
            Framed::Message(message) => {
                it.proven = true;
                self.events.push_back(FlowEvent::Message { origin, message });
            }
            Framed::Refused(why) => {
                it.malformed += 1;
                if it.malformed > self.limits.malformed {
                    return Err(FlowFault::Misbehaved("too much on the connection is no SIP"));
                }
                self.events.push_back(FlowEvent::Malformed { origin, why: Box::new(why) });
            }
            // RFC 5626 §3.5.1: a server answers each ping.
            Framed::Ping => {
                it.proven = true;
                self.outputs.push_back(SipOutput::Send { flow, remote: source, bytes: PONG.to_vec() });
            }
            Framed::Pong => it.crlf = Some(now),
        }
        Ok(())
    }

    /// RFC 3261 §18.3: a stream that cannot be cut into messages is answered with 400 as far as possible, and closed.
    fn handle_broken(
        &mut self,
        now: Instant,
        flow: FlowId,
        source: SocketAddr,
        why: Malformed,
    ) -> Result<(), FlowFault> {
        let Some(it) = self.flows.get_mut(&flow) else { return Ok(()) };
        if why.answer.is_none() {
            return Err(NO_SIP);
        }
        it.ends = Some(now + LAST_WORD);
        it.began = None;
        let origin = Origin { flow, transport: it.transport, source };
        self.events.push_back(FlowEvent::Malformed { origin, why: Box::new(why) });
        Ok(())
    }

    /// Whatever is due on a flow.
    fn look_after(&mut self, now: Instant, flow: FlowId) -> Result<(), FlowFault> {
        let Some(it) = self.flows.get_mut(&flow) else { return Ok(()) };
        let local = match it.state {
            State::Opening { by, .. } if by <= now => {
                return Err(FlowFault::Unreachable("no answer".into()));
            }
            State::Opening { .. } => return Ok(()),
            State::Open { local } => local,
        };
        if it.ends.is_some_and(|at| at <= now) {
            return Err(NO_SIP);
        }
        if it.began.is_some_and(|at| at + self.limits.message <= now) {
            return Err(FlowFault::Misbehaved("a message does not end"));
        }
        for (remote, keeper) in &mut it.keepers {
            match keeper.handle_timeout(now, (local, *remote), &self.limits, &mut self.rng) {
                Step::Nothing => {}
                Step::Send(bytes) => self.outputs.push_back(SipOutput::Send { flow, remote: *remote, bytes }),
                Step::Dead => return Err(FlowFault::Silent),
            }
        }
        if it.rests_until(&self.limits).is_some_and(|at| at <= now) {
            return Err(FlowFault::Idle);
        }
        Ok(())
    }

    /// Ends a flow and tells so.
    fn fail(&mut self, flow: FlowId, why: FlowFault) {
        if self.remove(flow) {
            self.outputs.push_back(SipOutput::Close(flow));
            self.events.push_back(FlowEvent::Down { flow, why });
        }
    }

    fn remove(&mut self, flow: FlowId) -> bool {
        let Some(it) = self.flows.remove(&flow) else { return false };
        if let Some(at) = it.due {
            self.timers.remove(&(at, flow));
        }
        self.ways.retain(|_, other| *other != flow);
        if let Role::Accepted { remote, .. } = it.role {
            let source = source_key(remote.ip());
            if let Some(count) = self.sources.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    self.sources.remove(&source);
                }
            }
        }
        true
    }

    /// Puts a flow into the timer table. One that is in it too early is looked at once more in vain, which is cheaper than
    /// moving it with every message.
    fn schedule(&mut self, flow: FlowId) {
        let Some(it) = self.flows.get_mut(&flow) else { return };
        let Some(due) = it.next_due(&self.limits) else { return };
        if it.due.is_some_and(|at| at <= due) {
            return;
        }
        if let Some(at) = it.due.replace(due) {
            self.timers.remove(&(at, flow));
        }
        self.timers.insert((due, flow));
    }
}

impl Flow {
    fn new(now: Instant, transport: Transport, role: Role, state: State) -> Self {
        Self {
            transport,
            role,
            state,
            framer: Framer::new(),
            began: None,
            proven: false,
            malformed: 0,
            crlf: None,
            ends: None,
            used: now,
            keepers: BTreeMap::new(),
            due: None,
        }
    }
}

/// How a connection is found again. One UDP socket serves every port of an address, and a connection without TLS proves no
/// name.
fn way(transport: Transport, remote: SocketAddr, name: &str) -> Way {
    match transport {
        Transport::Udp => (transport, SocketAddr::new(remote.ip(), 0), String::new()),
        Transport::Tcp => (transport, remote, String::new()),
        Transport::Tls | Transport::Ws | Transport::Wss => (transport, remote, name.to_ascii_lowercase()),
    }
}

/// Whom connections are counted for: with IPv6 whoever has one address has its /64.
fn source_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        four @ IpAddr::V4(_) => four,
    }
}

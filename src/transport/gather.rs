//! Candidates of one leg: host addresses, server-reflexive ones by STUN, relayed ones by TURN; and the packet path
//! through a relay. Read RFC 8445 §5.1.1, RFC 8421 and RFC 8656 §3 before touching this file.

use crate::config::Secret;
use crate::transport::path::Transmit;
use crate::transport::stun::{Binding, ServerFault, StunTimers, is_sendable};
use crate::transport::turn::{Allocation, AllocationEvent, AllocationTimer, Unwrapped, Wrapped};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Servers used of those given: more only delay the end of gathering.
const MAX_SERVERS: usize = 4;
/// Bound addresses used; a machine with more has virtual ones.
const MAX_SOCKETS: usize = 16;
/// Allocations of one leg: servers count them against the user's quota.
const MAX_RELAYS: usize = 8;
/// A relay that forgot us is asked again so often, for each socket and server.
const MAX_REVIVALS: u8 = 3;
/// RFC 8445 §14.2: no agent starts transactions faster.
const MIN_PACE: Duration = Duration::from_millis(5);

/// What a server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceServerKind {
    /// Tells our address as it sees it, RFC 8489.
    Stun,
    /// Relays for us, RFC 8656; tells our address too.
    Turn,
}

/// A STUN or TURN server over UDP; the shell has resolved its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceServer {
    /// What it is for.
    pub kind: IceServerKind,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Long-term credentials; a TURN server without them fails with `NoCredentials`.
    pub username: Option<String>,
    /// Long-term credentials.
    pub password: Option<Secret>,
}

/// What may be gathered, and how patiently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatherPolicy {
    /// Only relayed addresses leave this machine (J176-24): no host or reflexive candidate, no Binding, no datagram
    /// except to and from the relays.
    pub relay_only: bool,
    /// Loopback and link-local addresses are allowed: laboratory and tests.
    pub lab: bool,
    /// Retransmission towards the servers.
    pub timers: StunTimers,
    /// Pace of new transactions (`Ta`), RFC 8445 §14.2: never below 5 ms.
    pub pace: Duration,
}

impl Default for GatherPolicy {
    /// Five requests, so that a dead server holds `Complete` back for 9.5 s and not for 39.5 s.
    fn default() -> Self {
        Self {
            relay_only: false,
            lab: false,
            timers: StunTimers { requests: 5, last_wait_rtos: 4, ..StunTimers::default() },
            pace: Duration::from_millis(20),
        }
    }
}

/// What became of a received datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// It belonged to a STUN or TURN server, or may not be looked at (`relay_only`).
    Consumed,
    /// A relay delivered it: treat `bytes[payload]` as received at `local` from `source`.
    Relayed {
        /// The relayed address.
        local: SocketAddr,
        /// The peer.
        source: SocketAddr,
        /// Where the payload lies in the datagram.
        payload: Range<usize>,
    },
    /// Not from a server: the peer's own.
    NotOurs,
}

/// What gathering found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatherEvent {
    /// A host candidate.
    Host {
        /// The bound address, which is its own base.
        addr: SocketAddr,
    },
    /// A server-reflexive candidate; never equal to its base.
    ServerReflexive {
        /// Our address as the server sees it.
        addr: SocketAddr,
        /// The bound address.
        base: SocketAddr,
    },
    /// A relayed candidate: send from it by `Gatherer::route`.
    Relayed {
        /// The relay's address for us.
        addr: SocketAddr,
        /// The bound address that talks to the relay; never to be signalled when `relay_only`.
        base: SocketAddr,
        /// Our address as the relay sees it; `None` when `relay_only`, so that it cannot leak as a related address.
        mapped: Option<SocketAddr>,
    },
    /// No more candidates come from the sockets known so far; a failure to gather any is also complete.
    Complete,
    /// A server gave nothing on any of the sockets, once per server.
    ServerFailed {
        /// Its address.
        server: SocketAddr,
        /// The last reason.
        why: ServerFault,
    },
    /// A relayed address stopped working: ICE must drop the candidate and restart.
    RelayLost {
        /// The relayed address.
        addr: SocketAddr,
        /// Its server.
        server: SocketAddr,
        /// Why.
        why: ServerFault,
    },
}

/// Why the gatherer wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GatherTimer {
    /// The next transaction may start (`Ta`).
    Pace,
    /// An unanswered request is due again.
    Retransmit,
    /// An allocation, permission or channel ends soon, or the NAT towards the relay may forget us.
    Refresh,
}

/// Gathers candidates over the sockets of one leg and carries packets through its relays.
///
/// ```text
///  handle_sockets ─▶ Host …            (at once; none when relay_only)
///        └─▶ waiting ─ every Ta ─▶ Binding ─▶ ServerReflexive        all decided ─▶ Complete
///                             └──▶ Allocation ─▶ Relayed, ServerReflexive ─▶ … RelayLost ─ 437 ─▶ Allocation
/// ```
#[derive(Debug)]
pub struct Gatherer {
    policy: GatherPolicy,
    rng: ChaCha20Rng,
    servers: Vec<Server>,
    sockets: Vec<SocketAddr>,
    waiting: VecDeque<Start>,
    next_start: Option<Instant>,
    bindings: Vec<Binding>,
    relays: Vec<Relay>,
    reflexive: Vec<(SocketAddr, SocketAddr)>,
    events: VecDeque<GatherEvent>,
    progress: Progress,
}

/// Whether `Complete` is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Idle,
    Gathering,
    Complete,
    Closed,
}

#[derive(Debug)]
struct Server {
    config: IceServer,
    verdict: Verdict,
}

/// What is known of a server over all sockets.
#[derive(Debug)]
enum Verdict {
    Open(Option<ServerFault>),
    Useful,
    Reported,
}

/// A transaction that waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start {
    local: SocketAddr,
    server: SocketAddr,
    kind: IceServerKind,
    revivals: u8,
    /// The server that we were told of; another one if it sent us to this one.
    home: SocketAddr,
}

#[derive(Debug)]
struct Relay {
    allocation: Allocation,
    revivals: u8,
    home: SocketAddr,
}

impl Gatherer {
    /// A gatherer that does nothing until it is given sockets. At most four servers are used, in the order given.
    #[must_use]
    pub fn new(seed: [u8; 32], servers: Vec<IceServer>, policy: GatherPolicy) -> Self {
        let mut used: Vec<Server> = Vec::new();
        for config in servers {
            let known = used.iter().any(|it| it.config.addr == config.addr && it.config.kind == config.kind);
            // J176-24: with relay_only no address is shown to a mere STUN server.
            let wanted = !policy.relay_only || config.kind == IceServerKind::Turn;
            if used.len() < MAX_SERVERS && !known && wanted && is_sendable(config.addr) {
                used.push(Server { config, verdict: Verdict::Open(None) });
            }
        }
        Self {
            policy,
            rng: ChaCha20Rng::from_seed(seed),
            servers: used,
            sockets: Vec::new(),
            waiting: VecDeque::new(),
            next_start: None,
            bindings: Vec::new(),
            relays: Vec::new(),
            reflexive: Vec::new(),
            events: VecDeque::new(),
            progress: Progress::Idle,
        }
    }

    /// The sockets that the shell has bound; may be called again with new ones after a network change, and then ends
    /// with another `Complete`.
    pub fn handle_sockets(&mut self, now: Instant, bound: &[SocketAddr]) {
        if self.progress == Progress::Closed {
            return;
        }
        let fresh: Vec<SocketAddr> =
            bound.iter().copied().filter(|it| self.is_candidate(*it) && !self.sockets.contains(it)).collect();
        for local in interleave(&fresh) {
            if self.sockets.len() >= MAX_SOCKETS || self.sockets.contains(&local) {
                continue;
            }
            self.sockets.push(local);
            // J176-24
            if !self.policy.relay_only {
                self.events.push_back(GatherEvent::Host { addr: local });
            }
            for server in &self.servers {
                if reaches(local, server.config.addr) {
                    let (server, kind) = (server.config.addr, server.config.kind);
                    self.waiting.push_back(Start { local, server, kind, revivals: 0, home: server });
                }
            }
        }
        self.progress = Progress::Gathering;
        self.settle(now);
    }

    /// A datagram from any of the sockets. Anything that the network can send is safe here.
    ///
    /// Drain `poll_event` and `poll_transmit` after `Consumed`.
    pub fn handle_datagram(&mut self, now: Instant, local: SocketAddr, source: SocketAddr, bytes: &[u8]) -> Routed {
        if !self.is_server(source) {
            // J176-24: an answer to a stranger would show the address that relay_only hides.
            return if self.policy.relay_only { Routed::Consumed } else { Routed::NotOurs };
        }
        let binding = self.bindings.iter_mut().find(|it| it.local() == local && it.server() == source);
        if binding.is_some_and(|it| it.handle_input(now, bytes)) {
            self.settle(now);
            return Routed::Consumed;
        }
        for relay in &mut self.relays {
            let allocation = &mut relay.allocation;
            if allocation.local() != local || allocation.server() != source {
                continue;
            }
            match allocation.handle_input(now, bytes) {
                Unwrapped::Data { peer, payload } => {
                    return match allocation.relayed() {
                        Some(relayed) => Routed::Relayed { local: relayed, source: peer, payload },
                        None => Routed::Consumed,
                    };
                }
                Unwrapped::Answer => {
                    self.settle(now);
                    return Routed::Consumed;
                }
                Unwrapped::Ignored => {}
            }
        }
        // Late repetitions of answers; no peer is ever looked for at the address of a server.
        Routed::Consumed
    }

    /// Puts `payload` on the way from `from` (a bound or a relayed address) to `to`.
    ///
    /// Writes the datagram into `out` (cleared first) and gives the socket to send it from and where to. `None`: no
    /// such path, or the datagram stands in `poll_transmit`, behind the request that opens the relay for this peer.
    pub fn route(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<(SocketAddr, SocketAddr)> {
        out.clear();
        if self.sockets.contains(&from) {
            // J176-24: no datagram to a peer except through a relay. Nobody is reached at the address of a server.
            if self.policy.relay_only || self.is_server(to) || !is_sendable(to) {
                return None;
            }
            out.extend_from_slice(payload);
            return Some((from, to));
        }
        let relay = self.relays.iter_mut().find(|it| it.allocation.relayed() == Some(from))?;
        match relay.allocation.wrap(now, to, payload, out) {
            Wrapped::Ready => Some((relay.allocation.local(), relay.allocation.server())),
            Wrapped::Queued | Wrapped::Refused => None,
        }
    }

    /// Asks every relay now whether it still carries us: for a path that is suspected dead. One that forgot us is
    /// reported as `RelayLost` and asked for a new address, which comes as `Relayed`.
    pub fn probe(&mut self, now: Instant) {
        for relay in &mut self.relays {
            relay.allocation.probe(now);
        }
    }

    /// Gives every allocation back to its server (Refresh with lifetime 0). Drain `poll_transmit` once more; who wants
    /// to see it done goes on until `is_closed`.
    pub fn close(&mut self, now: Instant) {
        self.progress = Progress::Closed;
        self.waiting.clear();
        self.bindings.clear();
        for relay in &mut self.relays {
            relay.allocation.close(now);
        }
        self.settle(now);
        self.events.clear();
    }

    /// True after `close` when every server has answered or was silent too long.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.progress == Progress::Closed && self.relays.is_empty()
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        for binding in &mut self.bindings {
            binding.handle_timeout(now);
        }
        for relay in &mut self.relays {
            relay.allocation.handle_timeout(now);
        }
        self.settle(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let from_bindings = self.bindings.iter_mut().find_map(Binding::poll_transmit);
        from_bindings.or_else(|| self.relays.iter_mut().find_map(|it| it.allocation.poll_transmit()))
    }

    /// The next thing found out.
    pub fn poll_event(&mut self) -> Option<GatherEvent> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, GatherTimer)> {
        let pace = if self.waiting.is_empty() { None } else { self.next_start.map(|at| (at, GatherTimer::Pace)) };
        let bindings = self.bindings.iter().filter_map(Binding::poll_timeout).map(|at| (at, GatherTimer::Retransmit));
        let relays = self.relays.iter().filter_map(|it| it.allocation.poll_timeout()).map(|(at, why)| match why {
            AllocationTimer::Retransmit => (at, GatherTimer::Retransmit),
            AllocationTimer::Refresh
            | AllocationTimer::Permission
            | AllocationTimer::Channel
            | AllocationTimer::Keepalive => (at, GatherTimer::Refresh),
        });
        pace.into_iter().chain(bindings).chain(relays).min()
    }

    /// Starts what may start, collects what was found out, and says when all is decided.
    fn settle(&mut self, now: Instant) {
        self.start(now);
        self.collect_bindings();
        self.collect_relays();
        if self.progress != Progress::Gathering {
            return;
        }
        let asking = !self.waiting.is_empty()
            || !self.bindings.is_empty()
            || self.relays.iter().any(|it| it.allocation.is_asking());
        if asking {
            return;
        }
        for server in &mut self.servers {
            if let Verdict::Open(why) = &mut server.verdict {
                let why = why.take().unwrap_or(ServerFault::NoSocket);
                server.verdict = Verdict::Reported;
                self.events.push_back(GatherEvent::ServerFailed { server: server.config.addr, why });
            }
        }
        self.progress = Progress::Complete;
        self.events.push_back(GatherEvent::Complete);
    }

    fn start(&mut self, now: Instant) {
        while let Some(start) = self.waiting.front().copied() {
            if self.next_start.is_some_and(|at| now < at) {
                return;
            }
            self.waiting.pop_front();
            match start.kind {
                IceServerKind::Stun => {
                    self.bindings.push(Binding::new(now, self.policy.timers, &mut self.rng, start.local, start.server))
                }
                IceServerKind::Turn if self.relays.len() >= MAX_RELAYS => continue,
                IceServerKind::Turn => {
                    let mut seed = [0; 32];
                    self.rng.fill_bytes(&mut seed);
                    let config = self
                        .servers
                        .iter()
                        .find(|it| it.config.addr == start.home && it.config.kind == IceServerKind::Turn);
                    let credentials = config.and_then(|it| it.config.username.clone().zip(it.config.password.clone()));
                    let path = (start.local, start.server);
                    let allocation = Allocation::new(now, self.policy.timers, seed, path, credentials);
                    self.relays.push(Relay { allocation, revivals: start.revivals, home: start.home });
                }
            }
            self.next_start = Some(now + self.policy.pace.max(MIN_PACE));
        }
    }

    fn collect_bindings(&mut self) {
        let mut index = 0;
        while let Some(binding) = self.bindings.get_mut(index) {
            let (base, server) = (binding.local(), binding.server());
            match binding.poll_event() {
                None if binding.is_asking() => index += 1,
                None => {
                    self.bindings.swap_remove(index);
                }
                Some(outcome) => {
                    self.judge(server, IceServerKind::Stun, outcome.as_ref().err().cloned());
                    if let Ok(addr) = outcome {
                        self.found_reflexive(addr, base);
                    }
                }
            }
        }
    }

    fn collect_relays(&mut self) {
        let mut index = 0;
        while let Some(relay) = self.relays.get_mut(index) {
            let (base, server) = (relay.allocation.local(), relay.allocation.server());
            let (revivals, home) = (relay.revivals, relay.home);
            match relay.allocation.poll_event() {
                None if relay.allocation.is_ended() => {
                    self.relays.swap_remove(index);
                }
                None => index += 1,
                Some(AllocationEvent::Allocated { relayed, mapped }) => {
                    self.judge(home, IceServerKind::Turn, None);
                    let mapped = mapped.filter(|_| !self.policy.relay_only);
                    if let Some(mapped) = mapped {
                        self.found_reflexive(mapped, base);
                    }
                    self.events.push_back(GatherEvent::Relayed { addr: relayed, base, mapped });
                }
                // RFC 8489 §10, once: who is sent on from there as well is sent in circles.
                Some(AllocationEvent::Failed(ServerFault::TryAlternate(Some(to))))
                    if server == home && self.may_go_on(base, home, to) =>
                {
                    self.waiting.push_back(Start {
                        local: base,
                        server: to,
                        kind: IceServerKind::Turn,
                        revivals,
                        home,
                    });
                }
                Some(AllocationEvent::Failed(why)) => self.judge(home, IceServerKind::Turn, Some(why)),
                Some(AllocationEvent::Lost { relayed, why }) => {
                    // The server answers but forgot us (restart, or its clock): a new allocation is worth asking for.
                    if why == ServerFault::AllocationMismatch && revivals < MAX_REVIVALS {
                        let kind = IceServerKind::Turn;
                        self.waiting.push_back(Start { local: base, server, kind, revivals: revivals + 1, home });
                    }
                    self.events.push_back(GatherEvent::RelayLost { addr: relayed, server, why });
                }
                Some(AllocationEvent::Released) => {}
            }
        }
    }

    fn is_server(&self, addr: SocketAddr) -> bool {
        let asked = self.relays.iter().any(|it| it.allocation.server() == addr);
        asked || self.servers.iter().any(|it| it.config.addr == addr)
    }

    /// True if a TURN server may send us to `to`: an address like its own (not from the network to this machine), and none
    /// that this socket talks to already, for one socket and one server make one allocation.
    fn may_go_on(&self, base: SocketAddr, home: SocketAddr, to: SocketAddr) -> bool {
        let known = self.servers.iter().any(|it| it.config.addr == to && it.config.kind == IceServerKind::Turn);
        let asked = self.relays.iter().any(|it| it.allocation.server() == to && it.allocation.local() == base);
        is_sendable(to) && reaches(base, to) && to.ip().is_loopback() == home.ip().is_loopback() && !known && !asked
    }

    fn judge(&mut self, server: SocketAddr, kind: IceServerKind, fault: Option<ServerFault>) {
        let Some(server) = self.servers.iter_mut().find(|it| it.config.addr == server && it.config.kind == kind) else {
            return;
        };
        match (&server.verdict, fault) {
            (Verdict::Open(_) | Verdict::Reported, None) => server.verdict = Verdict::Useful,
            (Verdict::Open(_), Some(why)) => server.verdict = Verdict::Open(Some(why)),
            (Verdict::Useful, _) | (Verdict::Reported, Some(_)) => {}
        }
    }

    fn found_reflexive(&mut self, addr: SocketAddr, base: SocketAddr) {
        // RFC 8445 §5.1.3: a candidate equal to another one with the same base is redundant; with no NAT it is the host.
        if addr == base || self.reflexive.contains(&(addr, base)) || self.policy.relay_only {
            return;
        }
        self.reflexive.push((addr, base));
        self.events.push_back(GatherEvent::ServerReflexive { addr, base });
    }

    /// RFC 8445 §5.1.1.1: which bound addresses are worth telling a peer.
    fn is_candidate(&self, addr: SocketAddr) -> bool {
        if !is_sendable(addr) {
            return false;
        }
        match addr.ip() {
            IpAddr::V4(ip) => self.policy.lab || !ip.is_loopback(),
            // No IPv4-mapped and no deprecated site-local (fec0::/10) addresses.
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() || ip.segments()[0] & 0xFFC0 == 0xFEC0 => false,
            IpAddr::V6(ip) => self.policy.lab || !(ip.is_loopback() || ip.is_unicast_link_local()),
        }
    }
}

/// True if a datagram from this socket can get to this server.
fn reaches(local: SocketAddr, server: SocketAddr) -> bool {
    let scope = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => (false, ip.is_loopback(), false),
        IpAddr::V6(ip) => (true, ip.is_loopback(), ip.is_unicast_link_local()),
    };
    scope(local) == scope(server)
}

/// RFC 8421 §4: families take turns, IPv6 first, so that neither waits behind all of the other.
fn interleave(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut v6 = addrs.iter().filter(|it| it.is_ipv6());
    let mut v4 = addrs.iter().filter(|it| it.is_ipv4());
    let mut mixed = Vec::with_capacity(addrs.len());
    loop {
        let (six, four) = (v6.next(), v4.next());
        if six.is_none() && four.is_none() {
            return mixed;
        }
        mixed.extend(six.into_iter().chain(four).copied());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    #![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
    use super::*;
    use crate::transport::turn::tests::{Fake, LOCAL, MAPPED, RELAYED, SERVER, at};
    use stun_rs::methods;

    fn server(kind: IceServerKind) -> IceServer {
        let (username, password) = (Some("alice".into()), Some(Secret::new("wonderland")));
        IceServer { kind, addr: at(SERVER), username, password }
    }

    fn drain(gatherer: &mut Gatherer) -> Vec<GatherEvent> {
        std::iter::from_fn(|| gatherer.poll_event()).collect()
    }

    fn exchange(gatherer: &mut Gatherer, fake: &mut Fake, now: Instant) {
        while let Some(transmit) = gatherer.poll_transmit() {
            if let Some(answer) = fake.answer(now, &transmit.contents) {
                let routed = gatherer.handle_datagram(now, transmit.local, transmit.destination, &answer);
                assert_eq!(routed, Routed::Consumed);
            }
        }
    }

    /// Runs in virtual time until `Complete`, at most a minute.
    fn gather(gatherer: &mut Gatherer, fake: &mut Fake, now: &mut Instant) -> Vec<GatherEvent> {
        let (mut events, end) = (Vec::new(), *now + Duration::from_secs(60));
        loop {
            exchange(gatherer, fake, *now);
            events.append(&mut drain(gatherer));
            if events.contains(&GatherEvent::Complete) {
                return events;
            }
            let (due, _) = gatherer.poll_timeout().expect("something to wait for");
            assert!(due <= end, "{events:?}");
            *now = (*now).max(due);
            gatherer.handle_timeout(*now);
        }
    }

    fn gatherer(servers: Vec<IceServer>, relay_only: bool) -> Gatherer {
        Gatherer::new([5; 32], servers, GatherPolicy { relay_only, ..GatherPolicy::default() })
    }

    #[test]
    fn host_reflexive_and_relayed_candidates_come_once_and_then_complete() {
        let mut now = Instant::now();
        let mut fake = Fake::new(now);
        let mut gatherer = gatherer(vec![server(IceServerKind::Stun), server(IceServerKind::Turn)], false);
        gatherer.handle_sockets(now, &[at(LOCAL)]);
        let (addr, base) = (at(MAPPED), at(LOCAL));
        assert_eq!(
            gather(&mut gatherer, &mut fake, &mut now),
            [
                GatherEvent::Host { addr: base },
                GatherEvent::ServerReflexive { addr, base },
                GatherEvent::Relayed { addr: at(RELAYED), base, mapped: Some(addr) },
                GatherEvent::Complete,
            ]
        );
    }

    #[test]
    fn relay_only_shows_no_address_but_the_relays_and_talks_to_nobody_else() {
        let mut now = Instant::now();
        let mut fake = Fake::new(now);
        let mut gatherer = gatherer(vec![server(IceServerKind::Stun), server(IceServerKind::Turn)], true);
        gatherer.handle_sockets(now, &[at(LOCAL)]);
        assert_eq!(
            gather(&mut gatherer, &mut fake, &mut now),
            [GatherEvent::Relayed { addr: at(RELAYED), base: at(LOCAL), mapped: None }, GatherEvent::Complete]
        );
        assert_eq!(fake.count(methods::BINDING), 0);
        let mut out = Vec::new();
        assert_eq!(gatherer.route(now, at(LOCAL), at("203.0.113.1:1"), b"x", &mut out), None);
        assert_eq!(gatherer.handle_datagram(now, at(LOCAL), at("203.0.113.1:1"), b"\x80"), Routed::Consumed);
    }

    #[test]
    fn families_take_turns_and_unfit_addresses_are_left_out() {
        let now = Instant::now();
        let mut gatherer = gatherer(Vec::new(), false);
        let bound = ["127.0.0.1:1", "192.0.2.1:1", "192.0.2.2:1", "[::1]:1", "[fe80::1]:1", "[fec0::1]:1", "0.0.0.0:1"];
        let bound: Vec<_> = bound.into_iter().chain(["[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"]).map(at).collect();
        gatherer.handle_sockets(now, &bound);
        let hosts = ["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"].map(|it| GatherEvent::Host { addr: at(it) });
        let events = drain(&mut gatherer);
        assert_eq!(events[..3], hosts);
        assert_eq!(events[3..], [GatherEvent::Complete]);
    }

    #[test]
    fn a_server_without_a_socket_of_its_family_is_reported() {
        let now = Instant::now();
        let mut v6 = server(IceServerKind::Turn);
        v6.addr = at("[2001:db8::5]:3478");
        let mut gatherer = gatherer(vec![v6.clone()], true);
        gatherer.handle_sockets(now, &[at(LOCAL)]);
        let failed = GatherEvent::ServerFailed { server: v6.addr, why: ServerFault::NoSocket };
        assert_eq!(drain(&mut gatherer), [failed, GatherEvent::Complete]);
    }

    #[test]
    fn a_dead_server_delays_complete_by_less_than_ten_seconds() {
        let start = Instant::now();
        let mut now = start;
        let mut fake = Fake::new(now);
        fake.lose = u32::MAX;
        let mut gatherer = gatherer(vec![server(IceServerKind::Stun)], false);
        gatherer.handle_sockets(now, &[at(LOCAL)]);
        let events = gather(&mut gatherer, &mut fake, &mut now);
        assert_eq!(events[1], GatherEvent::ServerFailed { server: at(SERVER), why: ServerFault::Timeout });
        assert!(now - start < Duration::from_secs(10));
    }

    #[test]
    fn transactions_start_one_pace_apart() {
        let now = Instant::now();
        let mut gatherer = gatherer(vec![server(IceServerKind::Stun)], false);
        gatherer.handle_sockets(now, &[at("192.0.2.1:1"), at("192.0.2.2:1")]);
        assert_eq!(std::iter::from_fn(|| gatherer.poll_transmit()).count(), 1);
        assert_eq!(gatherer.poll_timeout(), Some((now + Duration::from_millis(20), GatherTimer::Pace)));
        gatherer.handle_timeout(now + Duration::from_millis(20));
        assert_eq!(std::iter::from_fn(|| gatherer.poll_transmit()).count(), 1);
    }

    #[test]
    fn at_most_four_servers_and_eight_allocations_are_used() {
        let mut now = Instant::now();
        let servers =
            (1..=9).map(|it| IceServer { addr: at(&format!("198.51.100.{it}:1")), ..server(IceServerKind::Turn) });
        let mut gatherer = gatherer(servers.collect(), true);
        let bound: Vec<_> = (1..=20).map(|it| at(&format!("192.0.2.{it}:1"))).collect();
        gatherer.handle_sockets(now, &bound);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            while let Some(transmit) = gatherer.poll_transmit() {
                seen.insert((transmit.local, transmit.destination));
            }
            now += Duration::from_millis(20);
            gatherer.handle_timeout(now);
        }
        assert_eq!(seen.len(), MAX_RELAYS);
        assert_eq!(seen.iter().map(|it| it.1).collect::<std::collections::BTreeSet<_>>().len(), MAX_SERVERS);
    }

    #[test]
    fn a_relay_that_forgot_us_is_lost_and_asked_again() {
        let mut now = Instant::now();
        let mut fake = Fake::new(now);
        let mut gatherer = gatherer(vec![server(IceServerKind::Turn)], true);
        gatherer.handle_sockets(now, &[at(LOCAL)]);
        gather(&mut gatherer, &mut fake, &mut now);
        fake.errors.push((methods::REFRESH, 437));
        gatherer.probe(now);
        exchange(&mut gatherer, &mut fake, now);
        let (addr, server) = (at(RELAYED), at(SERVER));
        let lost = GatherEvent::RelayLost { addr, server, why: ServerFault::AllocationMismatch };
        assert_eq!(drain(&mut gatherer), [lost]);
        now = gatherer.poll_timeout().unwrap().0.max(now);
        gatherer.handle_timeout(now);
        exchange(&mut gatherer, &mut fake, now);
        assert_eq!(drain(&mut gatherer), [GatherEvent::Relayed { addr, base: at(LOCAL), mapped: None }]);
    }

    #[test]
    fn close_releases_every_relay() {
        let mut now = Instant::now();
        let mut fake = Fake::new(now);
        let mut gatherer = gatherer(vec![server(IceServerKind::Turn)], true);
        gatherer.handle_sockets(now, &[at(LOCAL)]);
        gather(&mut gatherer, &mut fake, &mut now);
        gatherer.close(now);
        assert!(!gatherer.is_closed());
        exchange(&mut gatherer, &mut fake, now);
        assert!(gatherer.is_closed());
        assert_eq!(gatherer.poll_timeout(), None);
        assert_eq!(fake.log.last().unwrap().2, Some(0));
    }

    #[test]
    fn a_hundred_thousand_mutated_datagrams_do_no_harm() {
        let mut now = Instant::now();
        let mut fake = Fake::new(now);
        let mut gatherer = gatherer(vec![server(IceServerKind::Stun), server(IceServerKind::Turn)], false);
        gatherer.handle_sockets(now, &[at(LOCAL)]);
        let mut seeds: Vec<Vec<u8>> = vec![vec![0x40, 0, 0, 4, 1, 2, 3, 4], vec![], vec![0x80; 12]];
        // Every kind of answer, unanswered requests kept open, an open permission and a channel.
        for _ in 0..40 {
            while let Some(transmit) = gatherer.poll_transmit() {
                seeds.push(transmit.contents.clone());
                if let Some(answer) = fake.answer(now, &transmit.contents) {
                    gatherer.handle_datagram(now, transmit.local, transmit.destination, &answer);
                    seeds.push(answer);
                }
            }
            now += Duration::from_millis(50);
            gatherer.handle_timeout(now);
        }
        let (peer, mut out) = (at("203.0.113.99:7000"), Vec::new());
        gatherer.route(now, at(RELAYED), peer, b"\x80rtp", &mut out);
        exchange(&mut gatherer, &mut fake, now);
        seeds.append(&mut fake.data);
        let mut indication = seeds.iter().find(|it| it.starts_with(&[0, 0x16])).expect("a Send indication").clone();
        indication[1] = 0x17;
        seeds.push(indication);
        gatherer.probe(now);
        while let Some(transmit) = gatherer.poll_transmit() {
            seeds.extend(fake.answer(now, &transmit.contents));
        }
        let mut rng = ChaCha20Rng::from_seed([8; 32]);
        let mut delivered = 0;
        for _ in 0..100_000 {
            let mut bytes = seeds[rng.next_u32() as usize % seeds.len()].clone();
            for _ in 0..rng.next_u32() % 4 {
                if !bytes.is_empty() {
                    let index = rng.next_u32() as usize % bytes.len();
                    bytes[index] = rng.next_u32() as u8;
                }
            }
            if rng.next_u32() % 8 == 0 {
                bytes.truncate(rng.next_u32() as usize % (bytes.len() + 1));
            }
            if let Routed::Relayed { payload, .. } = gatherer.handle_datagram(now, at(LOCAL), at(SERVER), &bytes) {
                assert!(bytes.get(payload).is_some());
                delivered += 1;
            }
        }
        assert!(delivered > 100, "the packet path was reached {delivered} times");
        while gatherer.poll_event().is_some() {}
    }
}

//! Candidates of one leg: host addresses, server-reflexive ones by STUN, relayed ones by TURN; and the packet path
//! through a relay. Read RFC 8445 §5.1.1, RFC 8421 and RFC 8656 §3 before touching this file.

use crate::config::Secret;
use crate::transport::path::Transmit;
use crate::transport::stun::{ServerFault, StunTimers};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

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
#[derive(Debug)]
pub struct Gatherer {
    policy: GatherPolicy,
    servers: Vec<IceServer>,
    sockets: Vec<SocketAddr>,
    events: VecDeque<GatherEvent>,
    transmits: VecDeque<Transmit>,
}

impl Gatherer {
    /// A gatherer that does nothing until it is given sockets. At most four servers are used, in the order given.
    #[must_use]
    pub fn new(_seed: [u8; 32], servers: Vec<IceServer>, policy: GatherPolicy) -> Self {
        Self { policy, servers, sockets: Vec::new(), events: VecDeque::new(), transmits: VecDeque::new() }
    }

    /// The sockets that the shell has bound; may be called again with new ones after a network change.
    pub fn handle_sockets(&mut self, _now: Instant, bound: &[SocketAddr]) {
        for addr in bound {
            if !self.sockets.contains(addr) {
                self.sockets.push(*addr);
                if !self.policy.relay_only {
                    self.events.push_back(GatherEvent::Host { addr: *addr });
                }
            }
        }
        self.events.push_back(GatherEvent::Complete);
    }

    /// A datagram from any of the sockets. Anything that the network can send is safe here.
    pub fn handle_datagram(&mut self, _now: Instant, _local: SocketAddr, source: SocketAddr, _bytes: &[u8]) -> Routed {
        if self.servers.iter().any(|server| server.addr == source) { Routed::Consumed } else { Routed::NotOurs }
    }

    /// Puts `payload` on the way from `from` (a bound or a relayed address) to `to`.
    ///
    /// Writes the datagram into `out` (cleared first) and gives the socket to send it from and where to. `None`: no
    /// such path, or the datagram stands in `poll_transmit`, behind the request that opens the relay for this peer.
    pub fn route(
        &mut self,
        _now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<(SocketAddr, SocketAddr)> {
        out.clear();
        if !self.sockets.contains(&from) || self.policy.relay_only {
            return None;
        }
        out.extend_from_slice(payload);
        Some((from, to))
    }

    /// Gives every allocation back to its server (Refresh with lifetime 0). Drain `poll_transmit` once more.
    pub fn close(&mut self, _now: Instant) {}

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing found out.
    pub fn poll_event(&mut self) -> Option<GatherEvent> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, GatherTimer)> {
        None
    }
}

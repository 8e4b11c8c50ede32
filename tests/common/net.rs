//! Two legs and the network between them, in virtual time: seeded loss and delay, no sockets.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

#[path = "seeded.rs"]
mod seeded;

use offhook::transport::leg::{Carrier, Leg, LegConfig, LegEvent};
use offhook::transport::path::Transmit;
use offhook::wire::candidate::{Candidate, Fingerprint};
use offhook::wire::rtp::{MediaTime, RtpHeader};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

pub use seeded::{Rng, identity};

/// One leg and what came of it.
pub struct Peer {
    pub leg: Leg,
    pub addr: SocketAddr,
    pub events: Vec<(Instant, LegEvent)>,
    pub received: Vec<(Instant, RtpHeader, Vec<u8>)>,
    /// Signalled candidates that the harness gives to the other side.
    pub candidates: Vec<Candidate>,
}

impl Peer {
    pub fn connected_at(&self) -> Option<Instant> {
        self.events.iter().find(|(_, e)| matches!(e, LegEvent::Connected { .. })).map(|(at, _)| *at)
    }

    pub fn failed(&self) -> Option<&LegEvent> {
        self.events.iter().map(|(_, e)| e).find(|e| matches!(e, LegEvent::Failed(_)))
    }

    pub fn has(&self, test: impl Fn(&LegEvent) -> bool) -> bool {
        self.events.iter().any(|(_, e)| test(e))
    }
}

/// The network: index 0 is the initiator.
pub struct Net {
    pub now: Instant,
    pub start: Instant,
    pub peers: [Peer; 2],
    pub delay: Duration,
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicates: f64,
    /// Share of datagrams that arrive up to this much later than the others, and so out of order.
    pub reorder: (f64, Duration),
    pub rng: Rng,
    /// Datagrams to addresses that are no peer.
    pub strays: Vec<(Instant, Transmit)>,
    /// Copies of the datagrams that peers sent, while `capture` is on: sender and contents.
    pub captured: Vec<(usize, Vec<u8>)>,
    pub capture: bool,
    /// All datagrams that a peer sent: sender, time, first byte, length.
    pub sent: Vec<(usize, Instant, u8, usize)>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    flying: std::collections::BTreeMap<u64, (SocketAddr, SocketAddr, Vec<u8>)>,
    order: u64,
}

/// Settings of a pair.
pub struct Options {
    pub delay: Duration,
    pub loss: f64,
    pub seed: u64,
    /// The responder becomes the DTLS client.
    pub answer_active: bool,
    /// Change what is signalled.
    pub tamper: fn(usize, &mut Vec<Fingerprint>),
    /// Change the configuration.
    pub configure: fn(usize, &mut LegConfig),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(25),
            loss: 0.0,
            seed: 1,
            answer_active: false,
            tamper: |_, _| {},
            configure: |_, _| {},
        }
    }
}

impl Net {
    /// Two legs whose signalling is already exchanged.
    pub fn new(options: &Options) -> Self {
        let mut net = Self::unsignalled(options);
        // Signalling takes longer than one step of ICE's pace.
        net.now += Duration::from_millis(20);
        net.start = net.now;
        net.signal(options.tamper);
        net
    }

    /// Two legs with sockets that know nothing of each other.
    pub fn unsignalled(options: &Options) -> Self {
        let now = Instant::now();
        let mut rng = Rng(options.seed);
        let mut peer = |index: usize| {
            let mut config = LegConfig::new(index == 0, identity());
            config.answer_active = options.answer_active;
            (options.configure)(index, &mut config);
            let addr = SocketAddr::from(([192, 0, 2, 1 + index as u8], 5000));
            let mut leg =
                Leg::new(now, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000), rng.seed(), config);
            leg.handle_sockets(now, &[addr]);
            Peer { leg, addr, events: Vec::new(), received: Vec::new(), candidates: Vec::new() }
        };
        let peers = [peer(0), peer(1)];
        let mut net = Self {
            now,
            start: now,
            peers,
            delay: options.delay,
            loss: options.loss,
            duplicates: 0.0,
            reorder: (0.0, Duration::ZERO),
            rng,
            strays: Vec::new(),
            captured: Vec::new(),
            capture: false,
            sent: Vec::new(),
            queue: BinaryHeap::new(),
            flying: std::collections::BTreeMap::new(),
            order: 0,
        };
        net.drain();
        net
    }

    /// Exchanges credentials, fingerprints and candidates at once: offer, then answer.
    pub fn signal(&mut self, tamper: fn(usize, &mut Vec<Fingerprint>)) {
        for (from, to) in [(0, 1), (1, 0)] {
            let creds = Some(self.peers[from].leg.local_credentials()).filter(|c| !c.ufrag.is_empty());
            let mut fingerprints: Vec<_> = self.peers[from].leg.local_fingerprint().into_iter().collect();
            tamper(from, &mut fingerprints);
            let now = self.now;
            self.peers[to].leg.set_remote(now, creds, &fingerprints);
            self.trickle(from);
            if self.peers[from].candidates.is_empty() {
                let addr = self.peers[from].addr;
                let _ = self.peers[to].leg.set_plain_remote(now, addr, None);
                self.peers[to].leg.set_rtcp_mux(true);
            }
        }
        self.drain();
    }

    /// Gives candidates of `from` to the other side.
    pub fn trickle(&mut self, from: usize) {
        for candidate in self.peers[from].candidates.clone() {
            let now = self.now;
            self.peers[1 - from].leg.add_remote_candidate(now, &candidate).unwrap();
        }
    }

    /// Puts a datagram into the network that neither leg sent.
    pub fn inject(&mut self, source: SocketAddr, destination: SocketAddr, contents: Vec<u8>) {
        let copies = 1 + usize::from(self.rng.chance(self.duplicates));
        for _ in 0..copies {
            let (share, most) = self.reorder;
            let late = if self.rng.chance(share) {
                most.mul_f64(self.rng.next() as f64 / u64::MAX as f64)
            } else {
                Duration::ZERO
            };
            self.order += 1;
            self.queue.push(Reverse((self.now + self.delay + late, self.order)));
            self.flying.insert(self.order, (source, destination, contents.clone()));
        }
    }

    pub fn drain(&mut self) {
        let now = self.now;
        for index in 0..2 {
            while let Some(transmit) = self.peers[index].leg.poll_transmit() {
                let first = transmit.contents.first().copied().unwrap_or(0);
                self.sent.push((index, now, first, transmit.contents.len()));
                if self.capture {
                    self.captured.push((index, transmit.contents.clone()));
                }
                if transmit.destination == self.peers[1 - index].addr {
                    if !self.rng.chance(self.loss) {
                        self.inject(transmit.local, transmit.destination, transmit.contents);
                    }
                } else {
                    self.strays.push((now, transmit));
                }
            }
            while let Some(event) = self.peers[index].leg.poll_event() {
                if let LegEvent::LocalCandidate(candidate) = &event {
                    self.peers[index].candidates.push(candidate.clone());
                }
                self.peers[index].events.push((now, event));
            }
        }
    }

    /// Delivers what is due and wakes who wants to be woken, until `end`.
    pub fn run_until(&mut self, end: Instant) {
        self.run_while(end, |_| true);
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// As `run_until`, but only while `going` says so.
    pub fn run_while(&mut self, end: Instant, going: impl Fn(&Self) -> bool) {
        self.drain();
        while going(self) {
            let arrival = self.queue.peek().map(|Reverse((at, _))| *at);
            let timeouts = [self.peers[0].leg.poll_timeout(), self.peers[1].leg.poll_timeout()];
            let wake = timeouts.iter().flatten().map(|(at, _)| *at).min();
            let next = [arrival, wake].into_iter().flatten().min().unwrap_or(end);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let Reverse((_, order)) = self.queue.pop().unwrap();
                let (source, destination, contents) = self.flying.remove(&order).unwrap();
                self.deliver(source, destination, contents);
            } else if next == end && wake != Some(end) {
                break;
            } else {
                let now = self.now;
                for (peer, timeout) in self.peers.iter_mut().zip(timeouts) {
                    if timeout.is_some_and(|(at, _)| at <= now) {
                        peer.leg.handle_timeout(now);
                    }
                }
            }
            self.drain();
        }
        self.now = if going(self) { self.now.max(end) } else { self.now };
    }

    fn deliver(&mut self, source: SocketAddr, destination: SocketAddr, mut contents: Vec<u8>) {
        let now = self.now;
        if let Some(peer) = self.peers.iter_mut().find(|p| p.addr == destination)
            && let Some(received) = peer.leg.handle_datagram(now, destination, source, &mut contents)
        {
            let (header, payload) = (received.header, received.payload.to_vec());
            peer.received.push((now, header, payload));
        }
    }

    pub fn both_connected(&self) -> bool {
        self.peers.iter().all(|p| p.connected_at().is_some())
    }

    /// Runs until both are connected or `limit` has passed; gives the time that it took.
    pub fn connect(&mut self, limit: Duration) -> Option<Duration> {
        self.run_while(self.start + limit, |net| {
            !net.both_connected() && net.peers.iter().all(|p| p.failed().is_none())
        });
        let at = self.peers.iter().map(Peer::connected_at).collect::<Option<Vec<_>>>()?;
        Some(at.into_iter().max().unwrap() - self.start)
    }

    /// Sends one packet; false if the leg would not.
    pub fn send(&mut self, from: usize, time: u32, payload: &[u8]) -> bool {
        let mut out = Vec::new();
        let now = self.now;
        let Some(route) = self.peers[from].leg.send_rtp(now, 111, false, MediaTime(time), payload, &mut out) else {
            return false;
        };
        if self.capture {
            self.captured.push((from, out.clone()));
        }
        if !self.rng.chance(self.loss) {
            self.inject(route.local, route.destination, out);
        }
        true
    }

    /// 20 ms frames both ways for `frames` frames.
    pub fn talk(&mut self, frames: u32) {
        for frame in 0..frames {
            for from in 0..2 {
                self.send(from, frame * 960, &[0x5a; 80]);
            }
            self.run_for(Duration::from_millis(20));
        }
        self.run_for(self.delay * 2);
    }
}

/// Loopback and private addresses allowed.
pub fn lab(config: &mut LegConfig) {
    config.carrier = Carrier::Ice { servers: Vec::new(), relay_only: false, lab: true };
}

/// `values` at `percent`, nearest rank.
pub fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort();
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}

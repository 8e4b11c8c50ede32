//! A leg and somebody else's sans-IO peer, in virtual time.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]

use offhook::transport::dtls::Identity;
use offhook::transport::leg::{ChannelId, DataConfig, Leg, LegConfig, LegEvent};
use offhook::wire::candidate::Candidate;
use offhook::wire::rtp::MediaTime;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What the other side has to be able to do.
pub trait Foreign {
    fn handle_datagram(&mut self, now: Instant, local: SocketAddr, source: SocketAddr, bytes: &[u8]);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&mut self) -> Option<Instant>;
    fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)>;
    /// Sends an RTP packet; false before it is connected.
    fn send(&mut self, now: Instant, seq: u16, payload: &[u8]) -> bool;
    /// Payloads received so far.
    fn received(&self) -> &[Vec<u8>];
    /// Opens a data channel; may be called before it is connected.
    fn open(&mut self, now: Instant, label: &str);
    /// Writes to its own data channel; false while it takes nothing.
    fn write(&mut self, now: Instant, bytes: &[u8]) -> bool;
    /// Closes its own data channel.
    fn close(&mut self, now: Instant);
    /// Labels of the data channels that the leg has opened, bytes received on any, and how many are closed.
    fn channels(&self) -> (&[String], &[u8], usize);
}

pub struct Call<F> {
    pub leg: Leg,
    pub foreign: F,
    pub now: Instant,
    pub start: Instant,
    pub events: Vec<(Instant, LegEvent)>,
    pub received: Vec<Vec<u8>>,
    pub candidates: Vec<Candidate>,
    /// Arrival, to the leg?, bytes.
    flying: VecDeque<(Instant, bool, Vec<u8>)>,
}

pub const OURS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 5000);
pub const THEIRS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)), 6000);
const DELAY: Duration = Duration::from_millis(10);

/// What a call carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Sound,
    Data,
}

/// A leg that has gathered, and its candidates.
pub fn leg(now: Instant, initiator: bool, answer_active: bool, payload: Payload) -> (Leg, Vec<Candidate>) {
    let identity = Arc::new(Identity::generate().unwrap());
    let mut config = LegConfig::new(initiator, identity);
    config.answer_active = answer_active;
    config.data = (payload == Payload::Data).then(DataConfig::default);
    let mut leg = Leg::new(now, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000), [7; 32], config);
    leg.handle_sockets(now, &[OURS]);
    let mut candidates = Vec::new();
    while let Some(event) = leg.poll_event() {
        if let LegEvent::LocalCandidate(candidate) = event {
            candidates.push(candidate);
        }
    }
    (leg, candidates)
}

impl<F: Foreign> Call<F> {
    pub fn new(now: Instant, leg: Leg, foreign: F) -> Self {
        Self {
            leg,
            foreign,
            now,
            start: now,
            events: Vec::new(),
            received: Vec::new(),
            candidates: Vec::new(),
            flying: VecDeque::new(),
        }
    }

    pub fn connected_after(&self) -> Option<Duration> {
        self.events.iter().find(|(_, e)| matches!(e, LegEvent::Connected { .. })).map(|(at, _)| *at - self.start)
    }

    fn drain(&mut self) {
        let now = self.now;
        while let Some(transmit) = self.leg.poll_transmit() {
            if transmit.destination == THEIRS {
                self.flying.push_back((now + DELAY, false, transmit.contents));
            }
        }
        while let Some((destination, bytes)) = self.foreign.poll_transmit(now) {
            if destination == OURS {
                self.flying.push_back((now + DELAY, true, bytes));
            }
        }
        while let Some(event) = self.leg.poll_event() {
            self.events.push((now, event));
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain();
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 200_000, "a timer that never moves");
            let arrival = self.flying.front().map(|(at, ..)| *at);
            let ours = self.leg.poll_timeout().map(|(at, _)| at);
            let theirs = self.foreign.poll_timeout();
            let next = [arrival, ours, theirs].into_iter().flatten().min().unwrap_or(end);
            if next > end {
                break;
            }
            // A peer may ask for a time that has passed.
            self.now = self.now.max(next);
            let now = self.now;
            if arrival.is_some_and(|at| at <= now) {
                let (_, to_leg, mut bytes) = self.flying.pop_front().unwrap();
                if to_leg {
                    if let Some(received) = self.leg.handle_datagram(now, OURS, THEIRS, &mut bytes) {
                        let payload = received.payload.to_vec();
                        self.received.push(payload);
                    }
                } else {
                    self.foreign.handle_datagram(now, THEIRS, OURS, &bytes);
                }
            } else {
                if ours.is_some_and(|at| at <= now) {
                    self.leg.handle_timeout(now);
                }
                if theirs.is_some_and(|at| at <= now) {
                    self.foreign.handle_timeout(now);
                    if self.foreign.poll_timeout().is_some_and(|at| at <= now) {
                        self.now += Duration::from_micros(100);
                    }
                }
            }
            self.drain();
        }
        self.now = end;
    }

    /// Speaks both ways for `frames` frames of 20 ms; gives how many arrived here and there.
    pub fn talk(&mut self, frames: u32) -> (usize, usize) {
        let mut out = Vec::new();
        for frame in 0..frames {
            let now = self.now;
            let time = MediaTime(frame * 960);
            if let Some(route) = self.leg.send_rtp(now, 111, frame == 0, time, &[0x33; 80], &mut out) {
                assert_eq!((route.local, route.destination), (OURS, THEIRS));
                self.flying.push_back((now + DELAY, false, out.clone()));
            }
            self.foreign.send(now, 1000 + frame as u16, &[0x44; 80]);
            self.run_for(Duration::from_millis(20));
        }
        self.run_for(Duration::from_millis(200));
        (self.received.len(), self.foreign.received().len())
    }

    /// A file each way, each on a channel of its sender, both closed by their senders. `content` is what both send.
    pub fn exchange(&mut self, content: &[u8]) {
        let now = self.now;
        let ours = self.leg.open_channel(now, "from the leg").unwrap();
        self.foreign.open(now, "from the peer");
        let (mut sent, mut answered, mut received, mut theirs) = (0, 0, Vec::new(), None);
        for turn in 0..60_000 {
            assert!(turn < 59_999, "{sent} sent, {answered} answered, {} received: {:?}", received.len(), self.events);
            self.run_for(Duration::from_millis(1));
            let now = self.now;
            if sent < content.len() {
                sent += self.leg.write_channel(now, ours, &content[sent..]).unwrap();
                if sent == content.len() {
                    self.leg.close_channel(now, ours);
                }
            }
            while answered < content.len() {
                let end = content.len().min(answered + 16_000);
                if !self.foreign.write(now, &content[answered..end]) {
                    break;
                }
                answered = end;
                if answered == content.len() {
                    self.foreign.close(now);
                }
            }
            theirs = theirs.or_else(|| {
                self.events.iter().find_map(|(_, e)| match e {
                    LegEvent::ChannelOpen { id, label, by_peer: true } if label == "from the peer" => Some(*id),
                    _ => None,
                })
            });
            while let Some(bytes) = theirs.and_then(|id| self.leg.read_channel(now, id, 65_536)) {
                received.extend(bytes);
            }
            let closed =
                |id: ChannelId| self.events.iter().any(|(_, e)| *e == LegEvent::ChannelClosed { id, clean: true });
            if closed(ours) && theirs.is_some_and(closed) && self.foreign.channels().2 == 2 {
                break;
            }
        }
        assert_eq!(received.len(), content.len(), "to the leg");
        assert!(received == content, "to the leg");
        let (labels, bytes, _) = self.foreign.channels();
        assert_eq!(labels, ["from the leg"]);
        assert!(bytes == content, "from the leg");
    }
}

//! The signalling of whole SIP calls over UDP, both user agents in memory (INVITE, 180, 200, ACK, BYE, 200; a typical
//! offer and answer): processor time of a call and of its answering half while a thousand begin and end every second of
//! virtual time, so that the transactions of the last 32 s (64 000 a side) live beside it; and what is left in memory after
//! 30 000 calls. Goals: the answering half ≤ 150 µs, and after the last transaction nothing is left.
//!
//! Times are of the clock, so that a busy machine spoils them. `cargo bench --bench sip_calls`
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::wildcard_enum_match_arm)]

use offhook::config::SipLimits;
use offhook::sip::agent::{Agent, AgentConfig, SipEvent};
use offhook::sip::exchange::Transport;
use offhook::sip::flow::{SipInput, SipOutput};
use offhook::sip::policy::Callers;
use offhook::sip::session::{Invitation, SessionEvent};
use offhook::wire::sdp::SessionDescription;
use offhook::wire::sip::NameAddr;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// `OFFHOOK_CALLS` makes it another number.
const CALLS: u32 = 30_000;

fn name(text: &str) -> NameAddr {
    NameAddr::new(text.parse().unwrap())
}

fn sdp(ip: &str) -> SessionDescription {
    let text = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 9 0 8 101\r\n\
         a=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    );
    SessionDescription::parse(text.as_bytes()).unwrap()
}

struct Side {
    agent: Agent,
    at: SocketAddr,
    flow: Option<offhook::sip::exchange::FlowId>,
    spent: Duration,
    out: Vec<(SocketAddr, Vec<u8>)>,
    events: Vec<SipEvent>,
}

impl Side {
    fn new(now: Instant, user: &str, at: &str, seed: u8) -> Self {
        let at: SocketAddr = at.parse().unwrap();
        let mut config = AgentConfig::new(name(&format!("sip:{user}@{at}")));
        config.listen = vec![(Transport::Udp, at)];
        config.policy.callers = Callers::Everyone;
        config.limits.transactions = SipLimits { open_per_source: 4096, ..SipLimits::default() };
        config.limits.sessions.sessions = 100_000;
        config.limits.sessions.lingering = 100_000;
        let agent = Agent::new(now, [seed; 32], config);
        let mut side = Self { agent, at, flow: None, spent: Duration::ZERO, out: Vec::new(), events: Vec::new() };
        side.drain(now);
        side
    }

    /// One mutation, timed with all that comes of it.
    fn act(&mut self, now: Instant, verb: impl FnOnce(&mut Agent)) {
        let start = Instant::now();
        verb(&mut self.agent);
        self.drain(now);
        self.spent += start.elapsed();
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                SipOutput::Listen { flow, local, .. } => {
                    self.flow = Some(flow);
                    self.agent.handle_input(now, SipInput::Opened { flow, local });
                }
                SipOutput::Send { remote, bytes, .. } => self.out.push((remote, bytes)),
                other => panic!("{other:?}"),
            }
        }
        while let Some(event) = self.agent.poll_event() {
            self.events.push(event);
        }
    }
}

struct World {
    now: Instant,
    alice: Side,
    bob: Side,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let alice = Side::new(now, "alice", "192.0.2.1:5060", 1);
        let bob = Side::new(now, "bob", "192.0.2.2:5060", 2);
        Self { now, alice, bob }
    }

    /// Every datagram arrives.
    fn deliver(&mut self) {
        loop {
            let (from_alice, from_bob) = (std::mem::take(&mut self.alice.out), std::mem::take(&mut self.bob.out));
            if from_alice.is_empty() && from_bob.is_empty() {
                return;
            }
            let now = self.now;
            let (alice_at, bob_at) = (self.alice.at, self.bob.at);
            for (sent, from, to) in [(from_alice, alice_at, &mut self.bob), (from_bob, bob_at, &mut self.alice)] {
                for (remote, bytes) in sent {
                    assert_eq!(remote, to.at);
                    let flow = to.flow.unwrap();
                    to.act(now, |agent| agent.handle_input(now, SipInput::Bytes { flow, source: from, bytes: &bytes }));
                }
            }
        }
    }

    fn call(&mut self, offer: &SessionDescription, answer: &SessionDescription) {
        let now = self.now;
        let to = name("sip:bob@192.0.2.2");
        let mut id = None;
        self.alice.act(now, |agent| {
            let local = agent.local();
            let offer = Some(offer.clone());
            let call = Invitation { local, to, offer, replaces: None, referred_by: None, anonymous: false };
            id = Some(agent.sessions_mut(now).invite(now, call).unwrap());
        });
        self.deliver();
        let theirs = self.bob.events.drain(..).find_map(|event| match event {
            SipEvent::Session(id, SessionEvent::Incoming(_)) => Some(id),
            _ => None,
        });
        let theirs = theirs.expect("a call");
        self.bob.act(now, |agent| agent.sessions_mut(now).ring(now, theirs).unwrap());
        self.deliver();
        self.bob.act(now, |agent| agent.sessions_mut(now).accept(now, theirs, Some(answer.clone())).unwrap());
        self.deliver();
        self.alice.act(now, |agent| agent.sessions_mut(now).hang_up(now, id.unwrap(), Vec::new()).unwrap());
        self.deliver();
        let ended = |event: &SipEvent| matches!(event, SipEvent::Session(_, SessionEvent::Ended(_)));
        assert!(self.alice.events.drain(..).any(|event| ended(&event)));
        assert!(self.bob.events.drain(..).any(|event| ended(&event)));
    }

    /// Lets time pass, with every timer on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = [&self.alice, &self.bob].into_iter().filter_map(|side| side.agent.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            let now = self.now;
            for side in [&mut self.alice, &mut self.bob] {
                if side.agent.poll_timeout().is_some_and(|due| due <= now) {
                    side.act(now, |agent| agent.handle_timeout(now));
                }
            }
            self.deliver();
        }
        self.now = end;
    }
}

fn main() {
    let (offer, answer) = (sdp("192.0.2.1"), sdp("192.0.2.2"));
    let calls = std::env::var("OFFHOOK_CALLS").ok().and_then(|text| text.parse().ok()).unwrap_or(CALLS);
    // The last ones are measured, when the tables are full.
    let measured = (calls / 6).max(1);
    let mut world = World::new();
    // Whatever is allocated once.
    world.call(&offer, &answer);
    world.pass(Duration::from_secs(100));
    let region = Region::new(ALLOCATOR);
    let mut halves = (Duration::ZERO, Duration::ZERO);
    let mut most = 0;
    for call in 0..calls {
        if call == calls - measured {
            (world.alice.spent, world.bob.spent) = (Duration::ZERO, Duration::ZERO);
        }
        world.call(&offer, &answer);
        world.pass(Duration::from_millis(1));
        if call % 1000 == 999 {
            let change = region.change();
            most = most.max(change.bytes_allocated.saturating_sub(change.bytes_deallocated));
        }
        halves = (world.alice.spent, world.bob.spent);
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(measured);
    println!("calling half    {:7.1} µs a call", micros(halves.0));
    println!("answering half  {:7.1} µs a call (goal ≤ 150)", micros(halves.1));
    println!("at 1 000 calls a second {:.1} MiB live, {} bytes a call", most as f64 / 1048576.0, most / calls as usize);
    world.pass(Duration::from_secs(100));
    let change = region.change();
    let left = change.bytes_allocated as i64 - change.bytes_deallocated as i64;
    println!("100 s after the last of {calls} calls {left} bytes are left (goal: nothing that grows with calls)");
}

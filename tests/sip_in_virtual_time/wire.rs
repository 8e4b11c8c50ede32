//! Two user agents, each with its own carrier, over UDP that loses, repeats and reorders.

use crate::phone::*;
use offhook::config::{SipFlowLimits, SipLimits, SipLocateLimits, SipTimers};
use offhook::sip::carrier::{Carrier, CarrierConfig, CarrierOutput};
use offhook::sip::exchange::{FlowId, LOCAL_HOST, Transport};
use offhook::sip::flow::{SipInput, SipOutput};
use offhook::sip::session::{Context, Invitation, Local, SessionEvent};
use offhook::sip::sessions::{SessionId, Sessions, SessionsConfig};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

struct Node {
    carrier: Carrier,
    sessions: Sessions,
    sockets: BTreeMap<SocketAddr, FlowId>,
    flows: BTreeMap<FlowId, SocketAddr>,
    ip: IpAddr,
    /// What the application does of its own accord: takes calls, answers offers.
    pub(crate) live: Vec<SessionId>,
    ended: Vec<SessionId>,
    told: Vec<SessionEvent>,
}

struct Network {
    now: Instant,
    start: Instant,
    nodes: [Node; 2],
    /// Datagrams under way: when, from, to.
    air: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    random: u64,
    loss: u64,
    /// Takes calls with early media before.
    early: bool,
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

impl Network {
    fn new(seed: u64, loss: u64) -> Self {
        #[allow(clippy::disallowed_methods, reason = "where virtual time begins")]
        let start = Instant::now();
        let node = |n: u8| {
            let ip: IpAddr = format!("192.0.2.{n}").parse().unwrap();
            let at = SocketAddr::new(ip, 5060);
            let mut bytes = [n; 32];
            bytes[..8].copy_from_slice(&seed.to_be_bytes());
            let config = CarrierConfig {
                outbound: None,
                listen: vec![(Transport::Udp, at)],
                logins: Vec::new(),
                timers: SipTimers::default(),
                limits: SipLimits::default(),
                flows: SipFlowLimits::default(),
                locate: SipLocateLimits::default(),
                user_agent: None,
            };
            let contact = addr(&format!("sip:n{n}@{LOCAL_HOST}"));
            Node {
                carrier: Carrier::new(start, bytes, config),
                sessions: Sessions::new(SessionsConfig { context: Context::default(), contact, seed: bytes }),
                sockets: BTreeMap::new(),
                flows: BTreeMap::new(),
                ip,
                live: Vec::new(),
                ended: Vec::new(),
                told: Vec::new(),
            }
        };
        let nodes = [node(1), node(2)];
        let mut network = Self {
            now: start,
            start,
            nodes,
            air: BTreeMap::new(),
            sent: 0,
            random: seed ^ 0x51ed,
            loss,
            early: seed.is_multiple_of(3),
        };
        network.settle();
        network
    }

    fn transmit(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        // Now and then a datagram comes twice.
        let copies = if self.loss > 0 && random(&mut self.random).is_multiple_of(50) { 2 } else { 1 };
        for _ in 0..copies {
            if random(&mut self.random) % 100 < self.loss {
                continue;
            }
            self.sent += 1;
            let at = self.now + ms(10 + random(&mut self.random) % 50);
            self.air.insert((at, self.sent), (from, to, bytes.to_vec()));
        }
    }

    /// Carries out all that both sides want now.
    fn settle(&mut self) {
        let mut again = true;
        while std::mem::take(&mut again) {
            for n in 0..2 {
                let now = self.now;
                let node = &mut self.nodes[n];
                while let Some(wish) = node.sessions.poll_wish() {
                    node.carrier.wish(now, wish);
                    again = true;
                }
                while let Some(output) = self.nodes[n].carrier.poll_output() {
                    again = true;
                    match output {
                        CarrierOutput::Heard(heard) => {
                            let node = &mut self.nodes[n];
                            if node.sessions.owns(&heard) {
                                node.sessions.handle_heard(now, heard);
                            }
                        }
                        CarrierOutput::Shell(output) => self.shell(n, output),
                    }
                }
                while let Some((id, event)) = self.nodes[n].sessions.poll_event() {
                    again = true;
                    self.application(n, id, &event);
                    self.nodes[n].told.push(event);
                }
            }
        }
    }

    fn shell(&mut self, n: usize, output: SipOutput) {
        let now = self.now;
        match output {
            SipOutput::Open { flow, .. } => {
                let local = SocketAddr::new(self.nodes[n].ip, 40_000 + u16::try_from(flow.0 % 10_000).unwrap());
                self.open(n, flow, local, now);
            }
            SipOutput::Listen { flow, local, .. } => self.open(n, flow, local, now),
            SipOutput::Send { flow, remote, bytes } => {
                let from = self.nodes[n].flows[&flow];
                self.transmit(from, remote, &bytes);
            }
            SipOutput::Close(flow) => {
                let node = &mut self.nodes[n];
                if let Some(at) = node.flows.remove(&flow) {
                    node.sockets.remove(&at);
                }
            }
            SipOutput::LookUp(query) => panic!("a name is looked up: {query:?}"),
        }
    }

    fn open(&mut self, n: usize, flow: FlowId, local: SocketAddr, now: Instant) {
        let node = &mut self.nodes[n];
        node.flows.insert(flow, local);
        node.sockets.insert(local, flow);
        node.carrier.handle_input(now, SipInput::Opened { flow, local });
    }

    /// What an application does at once.
    fn application(&mut self, n: usize, id: SessionId, event: &SessionEvent) {
        let (now, early) = (self.now, self.early);
        let node = &mut self.nodes[n];
        match event {
            SessionEvent::Incoming(_) => {
                node.live.push(id);
                if early {
                    node.sessions.early(now, id, sdp("callee", 1, "sendrecv")).unwrap();
                } else {
                    node.sessions.ring(now, id).unwrap();
                }
            }
            SessionEvent::OfferReceived { fork, .. } => {
                node.sessions.answer(now, id, *fork, sdp(&format!("answer{n}"), 1, "sendrecv")).unwrap();
            }
            SessionEvent::Ended(_) => {
                assert!(!node.ended.contains(&id), "ended twice");
                node.ended.push(id);
                node.live.retain(|live| *live != id);
            }
            _ => assert!(!node.ended.contains(&id), "told after the end: {event:?}"),
        }
    }

    /// Lets time pass, for both and for the air.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        loop {
            let timers = self.nodes.iter().flat_map(|node| [node.carrier.poll_timeout(), node.sessions.poll_timeout()]);
            let datagram = self.air.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = timers.flatten().chain(datagram).min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            let now = self.now;
            while let Some(entry) = self.air.first_entry().filter(|entry| entry.key().0 <= now) {
                let (from, to, bytes) = entry.remove();
                for node in &mut self.nodes {
                    if let Some(flow) = node.sockets.get(&to).copied() {
                        node.carrier.handle_input(now, SipInput::Bytes { flow, source: from, bytes: &bytes });
                    }
                }
            }
            for node in &mut self.nodes {
                if node.carrier.poll_timeout().is_some_and(|at| at <= now) {
                    node.carrier.handle_timeout(now);
                }
                if node.sessions.poll_timeout().is_some_and(|at| at <= now) {
                    node.sessions.handle_timeout(now);
                }
            }
            self.settle();
        }
        self.now = until;
    }

    fn call(&mut self, offer: bool) -> SessionId {
        let from = addr("sip:caller@192.0.2.1");
        let local = Local { from, contact: addr(&format!("sip:n1@{LOCAL_HOST}")), route: Vec::new() };
        let offer = offer.then(|| sdp("caller", 1, "sendrecv"));
        let now = self.now;
        let node = &mut self.nodes[0];
        let id = node.sessions.invite(now, Invitation::new(local, addr("sip:callee@192.0.2.2:5060"), offer)).unwrap();
        node.live.push(id);
        self.settle();
        id
    }

    fn act(&mut self, n: usize, verb: impl FnOnce(&mut Sessions, Instant, SessionId)) {
        let now = self.now;
        let node = &mut self.nodes[n];
        if let Some(id) = node.live.last().copied() {
            verb(&mut node.sessions, now, id);
        }
        self.settle();
    }

    /// Nothing is left of any call.
    fn is_still(&self) -> bool {
        self.nodes.iter().all(|node| {
            node.live.is_empty()
                && node.sessions.is_empty()
                && node.sessions.lingering() == 0
                && node.carrier.under_way() == 0
        })
    }
}

#[test]
fn a_call_without_loss_goes_through_all_of_it() {
    for (seed, offer) in [(0, true), (1, true), (1, false)] {
        let mut network = Network::new(seed, 0);
        network.call(offer);
        network.wait(secs(2));
        network.act(1, |s, now, id| {
            let sdp = sdp("callee", 1, "sendrecv");
            s.accept(now, id, Some(sdp)).unwrap();
        });
        network.wait(secs(1));
        let told = |n: usize, what: fn(&SessionEvent) -> bool, network: &Network| {
            network.nodes[n].told.iter().filter(|event| what(event)).count()
        };
        assert_eq!(told(0, |e| matches!(e, SessionEvent::Accepted { .. }), &network), 1);
        assert_eq!(told(1, |e| matches!(e, SessionEvent::Confirmed), &network), 1, "{:?}", network.nodes[1].told);
        network.act(0, |s, now, id| s.hold(now, id, true).unwrap());
        network.wait(secs(1));
        assert_eq!(told(1, |e| *e == SessionEvent::Held(true), &network), 1);
        network.act(1, |s, now, id| s.reoffer(now, id, sdp("again", 1, "sendrecv")).unwrap());
        network.act(0, |s, now, id| s.hold(now, id, false).unwrap());
        network.wait(secs(10));
        assert_eq!(told(1, |e| *e == SessionEvent::Held(false), &network), 1, "{:#?}", network.nodes[1].told);
        network.act(0, |s, now, id| s.info_dtmf(now, id, '5', ms(100)).unwrap());
        network.wait(secs(1));
        assert_eq!(told(1, |e| matches!(e, SessionEvent::Dtmf { key: '5', .. }), &network), 1);
        network.act(1, |s, now, id| s.hang_up(now, id, Vec::new()).unwrap());
        network.wait(secs(70));
        assert!(network.is_still());
    }
}

#[test]
fn a_whole_call_under_20_percent_loss_ends_in_a_defined_state_for_every_seed() {
    let seeds: u64 = std::env::var("OFFHOOK_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1000);
    let only: Option<u64> = std::env::var("OFFHOOK_SEED").ok().and_then(|s| s.parse().ok());
    let mut answered = 0;
    for seed in only.map_or(0..seeds, |seed| seed..seed + 1) {
        let mut network = Network::new(seed, 20);
        network.call(seed % 4 != 0);
        let pause = |network: &mut Network| ms(random(&mut network.random) % 4000);
        // Some calls are given up, or declined, at the very moment that they are taken.
        let time = pause(&mut network);
        network.wait(time);
        if seed % 10 == 1 {
            network.act(0, |s, now, id| s.hang_up(now, id, Vec::new()).unwrap());
            let time = ms(random(&mut network.random) % 100);
            network.wait(time);
        }
        for _ in 0..10 {
            if network.nodes[1].live.is_empty() {
                network.wait(secs(4));
            }
        }
        let decline = seed % 10 == 2;
        network.act(1, |s, now, id| match decline {
            true => s.reject(now, id, status(486), Vec::new()).unwrap(),
            false => s.accept(now, id, Some(sdp("callee", 1, "sendrecv"))).unwrap(),
        });
        let time = pause(&mut network);
        network.wait(time);
        network.act(0, |s, now, id| s.hold(now, id, true).unwrap_or(()));
        network.act(1, |s, now, id| s.reoffer(now, id, sdp("again", 1, "sendrecv")).unwrap_or(()));
        network.act(0, |s, now, id| s.info_dtmf(now, id, '#', ms(100)).unwrap_or(()));
        network.wait(secs(15));
        network.act(0, |s, now, id| s.hold(now, id, false).unwrap_or(()));
        let time = pause(&mut network);
        network.wait(time);
        answered += usize::from(network.nodes[1].told.contains(&SessionEvent::Confirmed));
        let who = (seed % 2) as usize;
        network.act(who, |s, now, id| s.hang_up(now, id, Vec::new()).unwrap_or(()));
        network.wait(secs(200));
        // The other side did not hear of it, and will only by its timer.
        for n in 0..2 {
            network.act(n, |s, now, id| s.hang_up(now, id, Vec::new()).unwrap_or(()));
        }
        network.wait(secs(200));
        assert!(
            network.is_still(),
            "seed {seed}, after {:?}: {:#?}",
            network.now - network.start,
            network
                .nodes
                .iter()
                .map(|n| (&n.live, n.sessions.len(), n.sessions.lingering(), n.carrier.under_way(), &n.told))
                .collect::<Vec<_>>()
        );
    }
    println!("{answered} calls stood");
    assert!(only.is_some() || answered as u64 > seeds / 2);
}

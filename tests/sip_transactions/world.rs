//! Carriers on a network in virtual time: UDP that loses, doubles and delays, connections that do not, names of DNS.

use offhook::config::{SipFlowLimits, SipLimits, SipLocateLimits, SipTimers};
use offhook::sip::auth::Login;
use offhook::sip::carrier::{Carrier, CarrierConfig, CarrierOutput};
use offhook::sip::exchange::{FlowId, Heard, Transport, Wish};
use offhook::sip::flow::{FlowFault, SipInput, SipOutput};
use offhook::sip::locate::{Found, Query, Records};
use offhook::wire::sip::{Message, SipUri};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub fn config() -> CarrierConfig {
    CarrierConfig {
        outbound: None,
        listen: Vec::new(),
        logins: Vec::<Login>::new(),
        timers: SipTimers::default(),
        limits: SipLimits::default(),
        flows: SipFlowLimits::default(),
        locate: SipLocateLimits::default(),
        user_agent: None,
    }
}

/// A configuration that goes by this proxy.
pub fn by_proxy(uri: &str) -> CarrierConfig {
    let uri = uri.parse::<offhook::wire::sip::Uri>().unwrap();
    CarrierConfig { outbound: Some(SipUri::clone(uri.as_sip().unwrap())), ..config() }
}

/// Something that went over the network.
#[derive(Debug, Clone)]
pub struct Seen {
    pub ms: u128,
    pub to: SocketAddr,
    pub transport: Transport,
    pub message: Message,
}

/// One user agent.
pub struct Node {
    pub carrier: Carrier,
    ip: IpAddr,
    /// Public addresses of its UDP sockets, where it is behind a NAT.
    pub nat: Option<IpAddr>,
    sockets: BTreeMap<FlowId, (Transport, SocketAddr)>,
    /// The other end of each connection.
    peers: BTreeMap<FlowId, (usize, FlowId)>,
    next_port: u16,
    pub heard: VecDeque<(u128, Heard)>,
}

enum Event {
    Opened(usize, FlowId, SocketAddr),
    Failed(usize, FlowId),
    Accepted(usize, FlowId, FlowId, SocketAddr, SocketAddr),
    Bytes(usize, FlowId, SocketAddr, Vec<u8>),
    Closed(usize, FlowId),
    Found(usize, Query, Records),
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub nodes: Vec<Node>,
    events: BTreeMap<(Instant, u64), Event>,
    next: u64,
    rng: Rng,
    /// Percent.
    pub loss: u64,
    pub doubling: u64,
    /// Milliseconds on top of 20; more than nothing reorders.
    pub jitter: u64,
    pub names: BTreeMap<Query, Found>,
    /// Nobody answers at these addresses.
    pub dead: Vec<SocketAddr>,
    /// Connections to these addresses are neither made nor refused.
    pub silent: Vec<SocketAddr>,
    pub seen: Vec<Seen>,
    pub record: bool,
    /// Most bytes that waited anywhere.
    pub datagrams: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            nodes: Vec::new(),
            events: BTreeMap::new(),
            next: 0,
            rng: Rng(seed),
            loss: 0,
            doubling: 0,
            jitter: 0,
            names: BTreeMap::new(),
            dead: Vec::new(),
            silent: Vec::new(),
            seen: Vec::new(),
            record: true,
            datagrams: 0,
        }
    }

    pub fn ms(&self) -> u128 {
        (self.now - self.start).as_millis()
    }

    pub fn add(&mut self, ip: &str, config: CarrierConfig) -> usize {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.rng.next().to_le_bytes());
        let node = Node {
            carrier: Carrier::new(self.now, seed, config),
            ip: ip.parse().unwrap(),
            nat: None,
            sockets: BTreeMap::new(),
            peers: BTreeMap::new(),
            next_port: 40_000,
            heard: VecDeque::new(),
        };
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.drain(index);
        index
    }

    pub fn wish(&mut self, node: usize, wish: Wish) {
        self.nodes[node].carrier.wish(self.now, wish);
        self.drain(node);
    }

    pub fn heard(&mut self, node: usize) -> Vec<Heard> {
        self.nodes[node].heard.drain(..).map(|(_, heard)| heard).collect()
    }

    /// Bytes from nowhere.
    pub fn inject(&mut self, node: usize, source: SocketAddr, bytes: &[u8]) {
        let found = self.nodes[node].sockets.iter().find(|(_, (how, _))| *how == Transport::Udp);
        let Some(flow) = found.map(|(flow, _)| *flow) else { return };
        self.nodes[node].carrier.handle_input(self.now, SipInput::Bytes { flow, source, bytes });
        self.drain(node);
    }

    /// Breaks every connection of a node.
    pub fn break_connections(&mut self, node: usize) {
        for (flow, (other, theirs)) in std::mem::take(&mut self.nodes[node].peers) {
            self.nodes[other].peers.remove(&theirs);
            self.after(0, Event::Closed(node, flow));
            self.after(0, Event::Closed(other, theirs));
        }
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.next += 1;
        self.events.insert((self.now + Duration::from_millis(ms), self.next), event);
    }

    /// When something happens next.
    pub fn next_at(&self) -> Option<Instant> {
        let event = self.events.keys().next().map(|(at, _)| *at);
        let timers = self.nodes.iter().filter_map(|node| node.carrier.poll_timeout());
        event.into_iter().chain(timers).min()
    }

    /// One step; false if nothing will ever happen, or not before then.
    pub fn step(&mut self, end: Instant) -> bool {
        let Some(at) = self.next_at().filter(|at| *at <= end) else {
            self.now = self.now.max(end);
            return false;
        };
        self.now = self.now.max(at);
        if let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let event = entry.remove();
            self.happen(event);
        } else {
            for node in 0..self.nodes.len() {
                if self.nodes[node].carrier.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.nodes[node].carrier.handle_timeout(self.now);
                    self.drain(node);
                    let next = self.nodes[node].carrier.poll_timeout();
                    assert!(next.is_none_or(|next| next > self.now), "a deadline that does not pass");
                }
            }
        }
        true
    }

    pub fn until(&mut self, ms: u64) {
        let end = self.start + Duration::from_millis(ms);
        while self.step(end) {}
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        let node = match event {
            Event::Opened(node, flow, local) => {
                self.nodes[node].carrier.handle_input(now, SipInput::Opened { flow, local });
                node
            }
            Event::Failed(node, flow) => {
                let why = FlowFault::Unreachable("refused".into());
                self.nodes[node].carrier.handle_input(now, SipInput::Failed { flow, why });
                node
            }
            Event::Accepted(node, listener, flow, local, remote) => {
                let names = Vec::new();
                let input = SipInput::Accepted { listener, flow, local, remote, names };
                self.nodes[node].carrier.handle_input(now, input);
                node
            }
            Event::Bytes(node, flow, source, bytes) => {
                let input = SipInput::Bytes { flow, source, bytes: &bytes };
                self.nodes[node].carrier.handle_input(now, input);
                node
            }
            Event::Closed(node, flow) => {
                self.nodes[node].peers.remove(&flow);
                self.nodes[node].carrier.handle_input(now, SipInput::Closed { flow, why: "broken".into() });
                node
            }
            Event::Found(node, query, answer) => {
                self.nodes[node].carrier.handle_input(now, SipInput::Found { query, answer });
                node
            }
        };
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].carrier.poll_output() {
            match output {
                CarrierOutput::Heard(heard) => {
                    let ms = self.ms();
                    self.nodes[node].heard.push_back((ms, heard));
                }
                CarrierOutput::Shell(output) => self.shell(node, output),
            }
        }
    }

    fn shell(&mut self, node: usize, output: SipOutput) {
        match output {
            SipOutput::Open { flow, transport, remote, .. } => self.open(node, flow, transport, remote),
            SipOutput::Listen { flow, transport, local } => {
                self.nodes[node].sockets.insert(flow, (transport, local));
                self.after(0, Event::Opened(node, flow, local));
            }
            SipOutput::Send { flow, remote, bytes } => self.send(node, flow, remote, bytes),
            SipOutput::Close(flow) => {
                self.nodes[node].sockets.remove(&flow);
                if let Some((other, theirs)) = self.nodes[node].peers.remove(&flow) {
                    self.nodes[other].peers.remove(&theirs);
                    self.after(20, Event::Closed(other, theirs));
                }
            }
            SipOutput::LookUp(query) => {
                let found = self.names.get(&query).cloned().unwrap_or(Found::Nothing);
                let records = Records { ttl: Duration::from_secs(60), found };
                self.after(5, Event::Found(node, query, records));
            }
        }
    }

    fn open(&mut self, node: usize, flow: FlowId, transport: Transport, remote: SocketAddr) {
        let it = &mut self.nodes[node];
        it.next_port += 1;
        let local = SocketAddr::new(it.ip, it.next_port);
        if transport == Transport::Udp {
            // A socket that listens on every address is shared.
            let shared = it.sockets.values().find(|(how, at)| *how == Transport::Udp && at.ip().is_unspecified());
            let local = shared.map_or(local, |(_, at)| SocketAddr::new(it.ip, at.port()));
            it.sockets.insert(flow, (transport, local));
            return self.after(0, Event::Opened(node, flow, local));
        }
        if self.silent.contains(&remote) {
            return;
        }
        let listener = self.nodes.iter().enumerate().find_map(|(index, it)| {
            let found = it.sockets.iter().find(|(_, bound)| **bound == (transport, remote));
            found.map(|(listener, _)| (index, *listener))
        });
        let Some((other, listener)) = listener.filter(|_| !self.dead.contains(&remote)) else {
            return self.after(20, Event::Failed(node, flow));
        };
        self.next += 1;
        let theirs = FlowId(1 << 63 | self.next);
        self.nodes[node].peers.insert(flow, (other, theirs));
        self.nodes[other].peers.insert(theirs, (node, flow));
        self.nodes[node].sockets.insert(flow, (transport, local));
        self.nodes[other].sockets.insert(theirs, (transport, remote));
        self.after(20, Event::Accepted(other, listener, theirs, remote, local));
        self.after(20, Event::Opened(node, flow, local));
    }

    fn send(&mut self, node: usize, flow: FlowId, remote: SocketAddr, bytes: Vec<u8>) {
        let Some((transport, local)) = self.nodes[node].sockets.get(&flow).copied() else { return };
        let ip = self.nodes[node].ip;
        let local = if local.ip().is_unspecified() { SocketAddr::new(ip, local.port()) } else { local };
        let source = match self.nodes[node].nat.filter(|_| transport == Transport::Udp) {
            Some(ip) => SocketAddr::new(ip, local.port() + 1000),
            None => local,
        };
        if self.record
            && let Ok(message) = Message::parse(&bytes)
        {
            let ms = self.ms();
            self.seen.push(Seen { ms, to: remote, transport, message });
        }
        if transport != Transport::Udp {
            if let Some((other, theirs)) = self.nodes[node].peers.get(&flow).copied() {
                self.after(20, Event::Bytes(other, theirs, source, bytes));
            }
            return;
        }
        self.datagrams += 1;
        if self.dead.contains(&remote) {
            return;
        }
        let receiver = self.nodes.iter().enumerate().find_map(|(index, it)| {
            let found = it.sockets.iter().find(|(_, (how, bound))| {
                let bound = &if bound.ip().is_unspecified() { SocketAddr::new(it.ip, bound.port()) } else { *bound };
                let seen = it.nat.map_or(*bound, |ip| SocketAddr::new(ip, bound.port() + 1000));
                *how == Transport::Udp && seen == remote
            });
            found.map(|(flow, _)| (index, *flow))
        });
        let Some((other, theirs)) = receiver else { return };
        let copies = 1 + u64::from(self.rng.chance(self.doubling));
        for _ in 0..copies {
            if !self.rng.chance(self.loss) {
                let delay = 20 + self.rng.below(self.jitter + 1);
                self.after(delay, Event::Bytes(other, theirs, source, bytes.clone()));
            }
        }
    }

    /// The requests of this method that went over the network, in order.
    pub fn requests(&self, method: &str) -> Vec<Seen> {
        let of = |seen: &&Seen| matches!(&seen.message, Message::Request(request) if request.method.as_str() == method);
        self.seen.iter().filter(of).cloned().collect()
    }

    /// The responses with this status that went over the network, in order.
    pub fn responses(&self, code: u16) -> Vec<Seen> {
        let of = |seen: &&Seen| matches!(&seen.message, Message::Response(response) if response.status.code() == code);
        self.seen.iter().filter(of).cloned().collect()
    }
}

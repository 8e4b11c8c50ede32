//! Whole endpoints with SIP accounts in one world in virtual time: UDP and streams between them, a datagram network with
//! seeded loss for signalling, and addresses where no telephone is, for which a test speaks.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]

#[path = "seeded.rs"]
mod seeded;

use offhook::endpoint::event::{CallId, EndKind, Ended, Event, Input, LegId, Output, SocketPlan};
use offhook::endpoint::telephone::{MediaPolicy, TelephoneConfig};
use offhook::endpoint::{Account, AddressPolicy, Endpoint, EndpointConfig, MediaConfig};
use offhook::fault::ReasonCondition;
use offhook::jingle::session::SessionContext;
use offhook::jingle::sessions::Callers;
use offhook::sip::agent::AgentConfig;
use offhook::sip::exchange::{FlowId, Transport};
use offhook::sip::flow::{SipInput, SipOutput};
use offhook::sip::locate::{Found, Records};
use offhook::sip::policy;
use offhook::wire::sip::{Message, NameAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

pub use seeded::{Rng, identity};

pub const FRAME: Duration = Duration::from_millis(20);
pub const SECOND: Duration = Duration::from_secs(1);
const SAMPLES: usize = 960;

/// What a telephone does as soon as it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Accepts,
    Rejects(ReasonCondition),
    Waits,
}

/// What a call sounded like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heard {
    /// Frames of 20 ms that held sound.
    pub frames: usize,
    /// Datagrams that the microphone caused.
    pub sent: usize,
}

pub struct Phone {
    pub endpoint: Endpoint,
    pub ip: IpAddr,
    pub manner: Manner,
    /// The microphone is open.
    pub speaks: bool,
    pub events: Vec<(Instant, Event)>,
    pub sockets: BTreeMap<LegId, Vec<SocketAddr>>,
    /// Sockets of legs that were asked for, ever.
    pub opened: usize,
    /// Datagrams of legs, ever.
    pub datagrams: usize,
    pub heard: BTreeMap<CallId, Heard>,
    flows: BTreeMap<FlowId, (Transport, SocketAddr, SocketAddr)>,
    listeners: BTreeMap<(Transport, SocketAddr), FlowId>,
    next_port: u16,
    next_flow: u64,
    timeout: Option<Instant>,
}

impl Phone {
    pub fn ended(&self, call: CallId) -> Option<&Ended> {
        self.events.iter().find_map(|(_, e)| match e {
            Event::Ended { call: id, how } if *id == call => Some(how.as_ref()),
            _ => None,
        })
    }

    pub fn end_kind(&self, call: CallId) -> Option<EndKind> {
        self.ended(call).map(|e| e.kind)
    }

    pub fn incoming(&self) -> Option<CallId> {
        self.events.iter().rev().find_map(|(_, e)| match e {
            Event::Incoming { call, .. } => Some(*call),
            _ => None,
        })
    }

    pub fn has(&self, test: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(_, e)| test(e))
    }

    pub fn digits(&self) -> String {
        let digit = |e: &Event| if let Event::Digit { digit, .. } = e { Some(*digit) } else { None };
        self.events.iter().filter_map(|(_, e)| digit(e)).collect()
    }

    pub fn heard(&self, call: CallId) -> Heard {
        self.heard.get(&call).copied().unwrap_or_default()
    }
}

/// A message that arrived where no telephone is.
#[derive(Debug, Clone)]
pub struct Stray {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

enum Thing {
    Sip { from: SocketAddr, to: SocketAddr, bytes: Vec<u8>, stream: bool },
    Media { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Flow(usize, SipInput<'static>),
    Sockets(usize, LegId, Vec<SocketAddr>),
}

pub struct World {
    pub now: Instant,
    pub phones: Vec<Phone>,
    pub strays: VecDeque<Stray>,
    /// Where media went that reached no telephone.
    pub media_strays: Vec<SocketAddr>,
    /// SIP texts that travelled.
    pub log: Vec<String>,
    /// Share of SIP datagrams that are lost.
    pub loss: f64,
    pub rng: Rng,
    things: BTreeMap<(Instant, u64), Thing>,
    next: u64,
    frame_at: Instant,
}

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Telephones of 192.0.2.1, 192.0.2.2, …, that call each other directly.
pub fn world(count: usize, seed: u64, configure: impl Fn(usize, &mut TelephoneConfig, &mut EndpointConfig)) -> World {
    let now = Instant::now();
    let mut world = World {
        now,
        phones: Vec::new(),
        strays: VecDeque::new(),
        media_strays: Vec::new(),
        log: Vec::new(),
        loss: 0.0,
        rng: Rng(seed),
        things: BTreeMap::new(),
        next: 0,
        frame_at: now,
    };
    for index in 0..count {
        let ip: IpAddr = format!("192.0.2.{}", index + 1).parse().unwrap();
        let mut agent = AgentConfig::new(NameAddr::new(format!("sip:phone{}@{ip}", index + 1).parse().unwrap()));
        agent.policy.callers = policy::Callers::Everyone;
        agent.sessions.referrals = true;
        agent.listen = vec![
            (Transport::Udp, SocketAddr::new(ip, 5060)),
            (Transport::Tcp, SocketAddr::new(ip, 5060)),
            (Transport::Tls, SocketAddr::new(ip, 5061)),
        ];
        let mut telephone = TelephoneConfig::new(agent).unwrap();
        telephone.media = MediaPolicy::default();
        let mut config = EndpointConfig {
            account: Account::Sip(Box::new(telephone.clone())),
            context: SessionContext::default(),
            callers: Callers::Everyone,
            address_policy: AddressPolicy::Accept,
            media: MediaConfig::default(),
            show_signalling: false,
        };
        configure(index, &mut telephone, &mut config);
        config.account = Account::Sip(Box::new(telephone));
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let seed = world.rng.seed();
        let endpoint = Endpoint::new(now, wall, seed, identity(), config);
        world.phones.push(Phone {
            endpoint,
            ip,
            manner: Manner::Accepts,
            speaks: true,
            events: Vec::new(),
            sockets: BTreeMap::new(),
            opened: 0,
            datagrams: 0,
            heard: BTreeMap::new(),
            flows: BTreeMap::new(),
            listeners: BTreeMap::new(),
            next_port: 40_000,
            next_flow: 1 << 63,
            timeout: None,
        });
        world.drain(index);
    }
    world
}

impl World {
    pub fn act<T>(&mut self, phone: usize, verb: impl FnOnce(&mut Endpoint, Instant) -> T) -> T {
        let out = verb(&mut self.phones[phone].endpoint, self.now);
        self.drain(phone);
        out
    }

    pub fn call(&mut self, phone: usize, to: &str) -> CallId {
        let to: offhook::wire::address::Address = to.parse().unwrap();
        self.act(phone, |e, now| e.call(now, &to)).unwrap()
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// True if it came to that.
    pub fn run_until(&mut self, time: Duration, mut wanted: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + time;
        for _ in 0..5_000_000 {
            if wanted(self) {
                return true;
            }
            let thing = self.things.first_key_value().map(|((at, _), _)| *at);
            let timers = self.phones.iter().filter_map(|p| p.timeout);
            let next = timers.chain(thing).chain([self.frame_at]).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return false;
            }
            self.now = next.max(self.now);
            while let Some(entry) = self.things.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let thing = entry.remove();
                self.deliver(thing);
            }
            for index in 0..self.phones.len() {
                if self.phones[index].timeout.is_some_and(|due| due <= self.now) {
                    let now = self.now;
                    self.phones[index].endpoint.handle_timeout(now);
                    self.drain(index);
                }
            }
            if self.frame_at <= self.now {
                self.frame_at = self.now + FRAME;
                for index in 0..self.phones.len() {
                    self.sound(index);
                }
            }
        }
        panic!("nothing comes to rest");
    }

    /// A SIP message from an address where no telephone is.
    pub fn say(&mut self, from: SocketAddr, to: SocketAddr, text: &str) {
        let bytes = text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes();
        self.push(Duration::from_millis(1), Thing::Sip { from, to, bytes, stream: false });
    }

    /// A datagram of media from anywhere.
    pub fn throw(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.push(Duration::from_millis(1), Thing::Media { from, to, bytes });
    }

    /// The next message that a telephone sent to where none is.
    pub fn next_stray(&mut self) -> Option<(Stray, Message)> {
        for _ in 0..200 {
            if let Some(stray) = self.strays.pop_front() {
                let message = Message::parse(&stray.bytes).ok()?;
                return Some((stray, message));
            }
            self.run_for(Duration::from_millis(50));
        }
        None
    }

    fn push(&mut self, delay: Duration, thing: Thing) {
        self.next += 1;
        self.things.insert((self.now + delay, self.next), thing);
    }

    fn sound(&mut self, index: usize) {
        let now = self.now;
        let calls: Vec<CallId> = self.phones[index].endpoint.calls().collect();
        for call in calls {
            let level = if self.phones[index].speaks { 8000 } else { 0 };
            let pcm: [i16; SAMPLES] = std::array::from_fn(|n| if n % 96 < 48 { level } else { -level });
            let mut out = Vec::new();
            let phone = &mut self.phones[index];
            phone.endpoint.push_audio(now, call, &pcm, &mut |route, bytes| {
                out.push((route.local, route.destination, bytes.to_vec()));
            });
            let mut heard = [0; SAMPLES];
            phone.endpoint.pull_audio(now, call, &mut heard);
            let entry = phone.heard.entry(call).or_default();
            entry.sent += out.len();
            entry.frames += usize::from(heard.iter().any(|s| s.abs() > 2000));
            phone.datagrams += out.len();
            for (from, to, bytes) in out {
                self.push(Duration::from_millis(10), Thing::Media { from, to, bytes });
            }
            self.drain(index);
        }
    }

    fn deliver(&mut self, thing: Thing) {
        let now = self.now;
        match thing {
            Thing::Flow(index, input) => {
                self.phones[index].endpoint.handle_input(now, Input::Sip(input));
                self.drain(index);
            }
            Thing::Sockets(index, leg, bound) => {
                self.phones[index].sockets.insert(leg, bound.clone());
                self.phones[index].endpoint.handle_input(now, Input::Sockets { leg, bound });
                self.drain(index);
            }
            Thing::Media { from, to, mut bytes } => {
                let owner = self.phones.iter().position(|p| p.sockets.values().flatten().any(|s| *s == to));
                if let Some(index) = owner {
                    let input = Input::Datagram { local: to, source: from, bytes: &mut bytes };
                    self.phones[index].endpoint.handle_input(now, input);
                    self.drain(index);
                } else {
                    self.media_strays.push(to);
                }
            }
            Thing::Sip { from, to, bytes, stream } => {
                let Some(index) = self.phones.iter().position(|p| p.ip == to.ip()) else {
                    self.strays.push_back(Stray { from, to, bytes });
                    return;
                };
                let phone = &mut self.phones[index];
                let flow = phone
                    .flows
                    .iter()
                    .find(|(_, (how, local, remote))| {
                        *local == to && how.is_reliable() == stream && (!stream || *remote == from)
                    })
                    .map(|(id, _)| *id);
                if let Some(flow) = flow {
                    let input = SipInput::Bytes { flow, source: from, bytes: &bytes };
                    phone.endpoint.handle_input(now, Input::Sip(input));
                    self.drain(index);
                }
            }
        }
    }

    fn drain(&mut self, index: usize) {
        loop {
            let now = self.now;
            match self.phones[index].endpoint.poll_output() {
                Output::Timeout(at) => {
                    self.phones[index].timeout = at;
                    return;
                }
                Output::Sip(output) => self.sip(index, output),
                Output::Transmit(t) => {
                    self.phones[index].datagrams += 1;
                    self.push(
                        Duration::from_millis(10),
                        Thing::Media { from: t.local, to: t.destination, bytes: t.contents },
                    );
                }
                Output::OpenSockets { leg, plan, .. } => {
                    let phone = &mut self.phones[index];
                    phone.opened += 1;
                    phone.next_port += 2;
                    let rtp = SocketAddr::new(phone.ip, phone.next_port);
                    let bound = match plan {
                        SocketPlan::EveryAddress => vec![rtp],
                        SocketPlan::Pair(ip) => {
                            assert_eq!(ip, phone.ip);
                            vec![rtp, SocketAddr::new(phone.ip, phone.next_port + 1)]
                        }
                        SocketPlan::Towards(_) => vec![rtp],
                    };
                    self.push(Duration::ZERO, Thing::Sockets(index, leg, bound));
                }
                Output::CloseSockets(leg) => drop(self.phones[index].sockets.remove(&leg)),
                Output::Event(event) => {
                    let manner = self.phones[index].manner;
                    if let Event::Incoming { call, .. } = &event {
                        let endpoint = &mut self.phones[index].endpoint;
                        match manner {
                            Manner::Accepts => endpoint.accept(now, *call).unwrap(),
                            Manner::Rejects(reason) => endpoint.reject(now, *call, reason).unwrap(),
                            Manner::Waits => {}
                        }
                    }
                    self.phones[index].events.push((now, event));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn sip(&mut self, index: usize, output: SipOutput) {
        match output {
            SipOutput::Listen { flow, transport, local } => {
                let phone = &mut self.phones[index];
                phone.listeners.insert((transport, local), flow);
                if transport == Transport::Udp {
                    phone.flows.insert(flow, (transport, local, local));
                }
                self.push(Duration::ZERO, Thing::Flow(index, SipInput::Opened { flow, local }));
            }
            SipOutput::Open { flow, transport, remote, .. } => {
                let phone = &mut self.phones[index];
                phone.next_port += 1;
                let local = SocketAddr::new(phone.ip, phone.next_port);
                phone.flows.insert(flow, (transport, local, remote));
                let there = self.phones.iter().position(|p| p.listeners.contains_key(&(transport, remote)));
                if let (Some(peer), true) = (there, transport.is_reliable()) {
                    let phone = &mut self.phones[peer];
                    phone.next_flow += 1;
                    let accepted = FlowId(phone.next_flow);
                    phone.flows.insert(accepted, (transport, remote, local));
                    let listener = phone.listeners[&(transport, remote)];
                    let input = SipInput::Accepted {
                        listener,
                        flow: accepted,
                        local: remote,
                        remote: local,
                        names: Vec::new(),
                    };
                    self.push(Duration::ZERO, Thing::Flow(peer, input));
                }
                self.push(Duration::ZERO, Thing::Flow(index, SipInput::Opened { flow, local }));
            }
            SipOutput::Send { flow, remote, bytes } => {
                let Some((how, from, there)) = self.phones[index].flows.get(&flow).copied() else { return };
                self.log.push(String::from_utf8_lossy(&bytes).into_owned());
                let stream = how.is_reliable();
                if !stream && self.rng.chance(self.loss) {
                    return;
                }
                let to = if stream { there } else { remote };
                self.push(Duration::from_millis(10), Thing::Sip { from, to, bytes, stream });
            }
            SipOutput::Close(flow) => drop(self.phones[index].flows.remove(&flow)),
            SipOutput::LookUp(query) => {
                let answer = Records { ttl: Duration::from_secs(60), found: Found::Nothing };
                self.push(Duration::ZERO, Thing::Flow(index, SipInput::Found { query, answer }));
            }
        }
    }
}

/// Bodies of the messages that travelled, each once.
pub fn bodies(log: &[String]) -> BTreeSet<String> {
    log.iter().filter_map(|text| text.split_once("\r\n\r\n")).map(|(_, body)| body.to_owned()).collect()
}

//! Whole endpoints in one world in virtual time: a small XMPP server between them, and a datagram network with seeded
//! loss, delay, duplicates and reordering. No sockets, no clock: the same seed gives the same call.
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
#[path = "world/server.rs"]
mod server;

use offhook::config::Secret;
#[path = "shelf.rs"]
pub mod shelf;

use offhook::endpoint::event::{CallId, EndKind, Ended, Event, Input, LegId, Output};
use offhook::endpoint::file_event::FileInput;
use offhook::endpoint::{Account, AddressPolicy, Endpoint, EndpointConfig, MediaConfig};
use offhook::fault::ReasonCondition;
use offhook::jingle::session::SessionContext;
use offhook::jingle::sessions::Callers;
use offhook::wire::framer::Framer;
use offhook::wire::jid::Jid;
use offhook::xmpp::stream::{StreamConfig, TlsInfo, TlsVersion};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

pub use seeded::{Rng, identity};
use server::Resource;
#[allow(unused_imports, reason = "not every test asks for them")]
pub use server::{stamp, unavailable};

pub const ROMEO: &str = "romeo@montague.example/orchard";
pub const JULIET: &str = "juliet@capulet.example/balcony";
/// A second device of Juliet's.
pub const CHAMBER: &str = "juliet@capulet.example/chamber";
pub const FRAME: Duration = Duration::from_millis(20);
const SAMPLES: usize = 960;

/// What a client does as soon as it is called.
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
    /// When the first of them was pulled.
    pub first: Option<Instant>,
    /// Datagrams that the microphone caused.
    pub sent: usize,
    pub first_sent: Option<Instant>,
    /// Datagrams caused by the microphone since the counter was last reset by a test.
    pub recent: usize,
}

/// One endpoint with its shell.
pub struct Client {
    pub endpoint: Endpoint,
    pub jid: String,
    pub manner: Manner,
    pub events: Vec<(Instant, Event)>,
    pub sockets: BTreeMap<LegId, SocketAddr>,
    pub shelf: shelf::Shelf,
    /// Offered files are taken at once.
    pub takes_files: bool,
    /// Sockets that were asked for, ever.
    pub opened: usize,
    /// Datagrams sent, ever.
    pub datagrams: usize,
    pub heard: BTreeMap<CallId, Heard>,
    /// Names that the endpoint asked for.
    pub resolves: Vec<String>,
    /// The server takes no connection.
    pub unplugged: bool,
    /// Sockets of calls are given by hand.
    pub slow_sockets: bool,
    /// Connections so far.
    generation: u64,
    next_port: u16,
    timeout: Option<Instant>,
}

impl Client {
    pub fn bare(&self) -> &str {
        bare(&self.jid)
    }

    pub fn ended(&self, call: CallId) -> Option<&Ended> {
        self.events.iter().find_map(|(_, e)| match e {
            Event::Ended { call: id, how } if *id == call => Some(how.as_ref()),
            _ => None,
        })
    }

    pub fn end_kind(&self, call: CallId) -> Option<EndKind> {
        self.ended(call).map(|e| e.kind)
    }

    pub fn ends(&self, call: CallId) -> usize {
        self.events.iter().filter(|(_, e)| matches!(e, Event::Ended { call: id, .. } if *id == call)).count()
    }

    pub fn incoming(&self) -> Option<CallId> {
        self.events.iter().rev().find_map(|(_, e)| match e {
            Event::Incoming { call, .. } => Some(*call),
            _ => None,
        })
    }

    pub fn at(&self, test: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.events.iter().find(|(_, e)| test(e)).map(|(at, _)| *at)
    }

    pub fn count(&self, test: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(_, e)| test(e)).count()
    }

    pub fn heard(&self, call: CallId) -> Heard {
        self.heard.get(&call).copied().unwrap_or_default()
    }
}

enum Thing {
    ToServer(usize, u64, Vec<u8>),
    ToClient(usize, u64, String),
    Datagram(SocketAddr, SocketAddr, Vec<u8>),
    Connected(usize, u64),
    Sockets(usize, LegId),
    File(usize, FileInput),
}

/// A stanza that the server routed.
#[derive(Debug, Clone)]
pub struct Routed {
    pub at: Instant,
    pub from: String,
    pub to: String,
    pub text: String,
}

/// What the server does with a stanza between clients: nothing changed, or these instead.
pub type Tamper = Box<dyn FnMut(&str, &str, &str) -> Option<Vec<String>>>;

/// What a world is made of.
pub struct Options {
    pub seed: u64,
    /// One way from client to client.
    pub signalling_delay: Duration,
    pub media_delay: Duration,
    pub loss: f64,
    pub duplicates: f64,
    /// Datagrams that take up to this much longer.
    pub jitter: Duration,
    pub clients: Vec<&'static str>,
    /// Everybody sees everybody's presence.
    pub contacts: bool,
    /// Bare JIDs of contacts of everybody who are no clients here: the test speaks for them.
    pub friends: Vec<&'static str>,
    pub configure: fn(usize, &mut EndpointConfig),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            signalling_delay: Duration::from_millis(25),
            media_delay: Duration::from_millis(25),
            loss: 0.0,
            duplicates: 0.0,
            jitter: Duration::ZERO,
            clients: vec![ROMEO, JULIET],
            contacts: true,
            friends: Vec::new(),
            configure: |_, _| {},
        }
    }
}

pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub clients: Vec<Client>,
    pub rng: Rng,
    pub signalling_delay: Duration,
    pub media_delay: Duration,
    pub loss: f64,
    pub duplicates: f64,
    pub jitter: Duration,
    /// Microphones and loudspeakers run.
    pub audio: bool,
    pub tamper: Option<Tamper>,
    /// Stanzas between clients or from a client to somebody who is none.
    pub routed: Vec<Routed>,
    /// Keep `routed`; off in floods.
    pub record: bool,
    /// Datagrams on their way, while `capture` is on.
    pub captured: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    pub capture: bool,
    pub trace: bool,
    /// Datagrams to addresses that belong to nobody.
    pub strays: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    contacts: BTreeSet<(String, String)>,
    resources: Vec<Resource>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    things: BTreeMap<u64, Thing>,
    order: u64,
    /// Connections between files.
    pipes: Vec<shelf::Pipe>,
    tick: Option<Instant>,
    phase: f64,
    /// Most calls of `handle_timeout` at one instant.
    pub most_rounds: usize,
}

pub fn bare(jid: &str) -> &str {
    jid.split('/').next().unwrap()
}

/// Value of an attribute of the first tag.
pub fn attr<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let tag = &xml[..xml.find('>')?];
    let at = tag.find(&format!(" {name}="))? + name.len() + 2;
    let quote = tag.as_bytes()[at] as char;
    let rest = &tag[at + 1..];
    Some(&rest[..rest.find(quote)?])
}

impl World {
    pub fn new(options: &Options) -> Self {
        let now = Instant::now();
        let mut rng = Rng(options.seed);
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut clients = Vec::new();
        let mut resources = Vec::new();
        let mut contacts = BTreeSet::new();
        for (index, jid) in options.clients.iter().enumerate() {
            let mut stream = StreamConfig::new(Jid::new(jid).unwrap(), Secret::new("correct horse battery staple"));
            stream.sasl.plain = true;
            let xml = stream.xml;
            let mut config = EndpointConfig {
                account: Account::Client(Box::new(stream)),
                context: SessionContext::default(),
                callers: Callers::Contacts,
                address_policy: AddressPolicy::Accept,
                media: MediaConfig::default(),
                show_signalling: false,
            };
            (options.configure)(index, &mut config);
            clients.push(Client {
                endpoint: Endpoint::new(now, wall, rng.seed(), identity(), config),
                jid: (*jid).to_owned(),
                manner: Manner::Accepts,
                events: Vec::new(),
                sockets: BTreeMap::new(),
                shelf: shelf::Shelf::default(),
                takes_files: true,
                opened: 0,
                datagrams: 0,
                heard: BTreeMap::new(),
                resolves: Vec::new(),
                unplugged: false,
                slow_sockets: false,
                generation: 0,
                next_port: 5000,
                timeout: None,
            });
            resources.push(Resource {
                jid: (*jid).to_owned(),
                framer: Framer::new(&xml),
                up: false,
                authenticated: false,
                bound: false,
                available: None,
                carbons: false,
                sm: false,
                handled: 0,
                sent: 0,
                unacked: VecDeque::new(),
            });
            for other in options.clients.iter().filter(|o| options.contacts && bare(o) != bare(jid)) {
                contacts.insert((bare(jid).to_owned(), bare(other).to_owned()));
            }
            for friend in &options.friends {
                contacts.insert((bare(jid).to_owned(), (*friend).to_owned()));
            }
        }
        let mut world = Self {
            now,
            start: now,
            clients,
            rng,
            signalling_delay: options.signalling_delay,
            media_delay: options.media_delay,
            loss: options.loss,
            duplicates: options.duplicates,
            jitter: options.jitter,
            audio: true,
            tamper: None,
            routed: Vec::new(),
            record: true,
            captured: Vec::new(),
            capture: false,
            trace: false,
            strays: Vec::new(),
            contacts,
            resources,
            queue: BinaryHeap::new(),
            things: BTreeMap::new(),
            order: 0,
            pipes: Vec::new(),
            tick: None,
            phase: 0.0,
            most_rounds: 0,
        };
        for index in 0..world.clients.len() {
            world.drain(index);
        }
        // Sign in, and let roster and presence settle.
        world.run_for(Duration::from_secs(1) + world.signalling_delay * 8);
        for client in &world.clients {
            assert!(client.at(|e| matches!(e, Event::Online { .. })).is_some(), "{} is offline", client.jid);
        }
        world.routed.clear();
        world
    }

    /// Nobody delays anything.
    pub fn quick(seed: u64) -> Self {
        Self::new(&Options { seed, ..Options::default() })
    }

    fn push(&mut self, at: Instant, thing: Thing) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order)));
        self.things.insert(self.order, thing);
    }

    // Applications

    /// Calls somebody.
    pub fn call(&mut self, from: usize, to: &str) -> CallId {
        let id = self.clients[from].endpoint.call(self.now, Jid::new(to).unwrap()).unwrap();
        self.drain(from);
        id
    }

    /// A verb, and what comes of it.
    pub fn act<R>(&mut self, client: usize, verb: impl FnOnce(&mut Endpoint, Instant) -> R) -> R {
        let result = verb(&mut self.clients[client].endpoint, self.now);
        self.drain(client);
        result
    }

    /// A call that stands: caller's and callee's name of it.
    pub fn connected_call(&mut self, from: usize, to: usize) -> (CallId, CallId) {
        let name = self.clients[to].jid.clone();
        let caller = self.call(from, &name);
        self.run_while(Duration::from_secs(20), |w| {
            let there = |c: &Client| c.at(|e| matches!(e, Event::Connected { .. })).is_some();
            !(there(&w.clients[from]) && there(&w.clients[to]))
        });
        let callee = self.clients[to].incoming().expect("the call came in");
        (caller, callee)
    }

    // Network

    /// Puts a datagram into the network that no endpoint sent.
    pub fn inject(&mut self, source: SocketAddr, destination: SocketAddr, contents: Vec<u8>) {
        let at = self.now + self.media_delay;
        self.push(at, Thing::Datagram(source, destination, contents));
    }

    fn transmit(&mut self, client: usize, source: SocketAddr, destination: SocketAddr, contents: Vec<u8>) {
        self.clients[client].datagrams += 1;
        if self.trace {
            println!(
                "{:?} {client} -> {:02x?} {}",
                self.now - self.start,
                &contents[..14.min(contents.len())],
                contents.len()
            );
        }
        if self.capture {
            self.captured.push((source, destination, contents.clone()));
        }
        if self.rng.chance(self.loss) {
            return;
        }
        let copies = if self.rng.chance(self.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            let extra = match u64::try_from(self.jitter.as_micros()).unwrap() {
                0 => Duration::ZERO,
                most => Duration::from_micros(self.rng.next() % most),
            };
            let at = self.now + self.media_delay + extra;
            self.push(at, Thing::Datagram(source, destination, contents.clone()));
        }
    }

    /// The connection between a client and its server breaks; what is on it is lost.
    pub fn cut(&mut self, client: usize) {
        self.clients[client].generation += 1;
        self.resources[client].up = false;
        self.clients[client].endpoint.handle_input(self.now, Input::Closed("cut".to_owned()));
        self.drain(client);
    }

    /// The server forgets the resource, so that it cannot be resumed.
    pub fn forget(&mut self, client: usize) {
        let resource = &mut self.resources[client];
        resource.sm = false;
        resource.unacked.clear();
        self.gone(client);
    }

    /// Gives a stanza to a client as if its server had routed it; `xml` has its `from`.
    pub fn deliver(&mut self, client: usize, xml: &str) {
        let resource = &mut self.resources[client];
        if resource.sm {
            resource.sent = resource.sent.wrapping_add(1);
            resource.unacked.push_back(xml.to_owned());
        }
        if resource.up && resource.bound {
            let mut text = xml.to_owned();
            if resource.sm && resource.unacked.len() % 64 == 63 {
                text.push_str("<r xmlns='urn:xmpp:sm:3'/>");
            }
            let at = self.now + self.signalling_delay / 2;
            let generation = self.clients[client].generation;
            self.push(at, Thing::ToClient(client, generation, text));
        }
    }

    /// A stanza of somebody (`from`, whoever that is) to a client; what comes back is in `routed`.
    pub fn say(&mut self, client: usize, from: &str, xml: &str) {
        let to = self.clients[client].jid.clone();
        let xml = stamp(xml, from, &to);
        self.deliver(client, &xml);
    }

    /// What clients sent to this address since the last time.
    pub fn answers(&mut self, to: &str) -> Vec<String> {
        let (found, rest) = std::mem::take(&mut self.routed).into_iter().partition(|r: &Routed| r.to == to);
        self.routed = rest;
        found.into_iter().map(|r: Routed| r.text).collect()
    }

    // Time

    /// Everything an endpoint wants.
    pub fn drain(&mut self, index: usize) {
        loop {
            let now = self.now;
            let output = self.clients[index].endpoint.poll_output();
            match output {
                Output::Connect => {
                    self.clients[index].generation += 1;
                    let generation = self.clients[index].generation;
                    self.push(now, Thing::Connected(index, generation));
                }
                Output::Bytes(bytes) => {
                    let generation = self.clients[index].generation;
                    let delay = if self.resources[index].bound { self.signalling_delay / 2 } else { Duration::ZERO };
                    self.push(now + delay, Thing::ToServer(index, generation, bytes));
                }
                Output::StartTls => panic!("TLS runs already"),
                Output::Close => {
                    self.clients[index].generation += 1;
                    self.resources[index].up = false;
                }
                Output::Transmit(t) => self.transmit(index, t.local, t.destination, t.contents),
                Output::File(output) => self.file_output(index, output),
                Output::Sip(_) => {}
                Output::OpenSockets { leg, .. } => {
                    self.clients[index].opened += 1;
                    if !self.clients[index].slow_sockets {
                        self.push(now, Thing::Sockets(index, leg));
                    }
                }
                Output::CloseSockets(leg) => drop(self.clients[index].sockets.remove(&leg)),
                Output::Resolve(name) => self.clients[index].resolves.push(name),
                Output::Event(event) => {
                    let manner = self.clients[index].manner;
                    if let Event::Incoming { call, .. } = &event {
                        let endpoint = &mut self.clients[index].endpoint;
                        match manner {
                            Manner::Accepts => drop(endpoint.accept(now, *call)),
                            Manner::Rejects(reason) => drop(endpoint.reject(now, *call, reason)),
                            Manner::Waits => {}
                        }
                    }
                    if let Event::File(event) = &event
                        && self.clients[index].takes_files
                    {
                        self.take_files(index, event);
                    }
                    self.clients[index].events.push((now, event));
                }
                Output::Timeout(at) => {
                    self.clients[index].timeout = at;
                    return;
                }
            }
        }
    }

    fn connected(&mut self, index: usize, generation: u64) {
        if self.clients[index].generation != generation {
            return;
        }
        if self.clients[index].unplugged {
            self.clients[index].endpoint.handle_input(self.now, Input::Closed("connection refused".to_owned()));
            return self.drain(index);
        }
        let resource = &mut self.resources[index];
        (resource.up, resource.authenticated, resource.bound) = (true, false, false);
        resource.framer.restart();
        let tls = Some(TlsInfo { version: TlsVersion::Tls13, exporter: None });
        self.clients[index].endpoint.handle_input(self.now, Input::Connected { tls, loopback: false });
        self.drain(index);
    }

    /// Binds a socket for a call.
    pub fn bind(&mut self, index: usize, leg: LegId) {
        let client = &mut self.clients[index];
        client.next_port = client.next_port.wrapping_add(1).max(1024);
        let addr = SocketAddr::from(([192, 0, 2, 1 + index as u8], client.next_port));
        client.sockets.insert(leg, addr);
        client.endpoint.handle_input(self.now, Input::Sockets { leg, bound: vec![addr] });
        self.drain(index);
    }

    fn happen(&mut self, thing: Thing) {
        let now = self.now;
        match thing {
            Thing::ToServer(client, generation, bytes) => {
                if self.clients[client].generation == generation {
                    self.server(client, &bytes);
                }
            }
            Thing::ToClient(client, generation, text) => {
                if self.clients[client].generation == generation {
                    self.clients[client].endpoint.handle_input(now, Input::Bytes(text.as_bytes()));
                    self.drain(client);
                }
            }
            Thing::Datagram(source, local, mut bytes) => {
                let owner = self.clients.iter().position(|c| c.sockets.values().any(|s| *s == local));
                match owner {
                    Some(client) => {
                        let bytes = &mut bytes;
                        self.clients[client].endpoint.handle_input(now, Input::Datagram { local, source, bytes });
                        self.drain(client);
                    }
                    None => self.strays.push((source, local, bytes)),
                }
            }
            Thing::Connected(client, generation) => self.connected(client, generation),
            Thing::Sockets(client, leg) => self.bind(client, leg),
            Thing::File(client, input) => {
                self.clients[client].endpoint.handle_input(now, Input::File(input));
                self.drain(client);
            }
        }
    }

    /// 20 ms of every microphone and loudspeaker.
    fn sound(&mut self) {
        let now = self.now;
        self.phase += 1.0;
        for index in 0..self.clients.len() {
            let ids: Vec<CallId> = self.clients[index].endpoint.calls().collect();
            // 350 Hz here, 440 Hz there, at a third of full scale.
            let hz = 350.0 + 90.0 * index as f64;
            let start = self.phase * SAMPLES as f64;
            let pcm: Vec<i16> = (0..SAMPLES)
                .map(|i| ((start + i as f64) * hz * std::f64::consts::TAU / 48_000.0).sin() * 10_000.0)
                .map(|v| v as i16)
                .collect();
            for id in ids {
                let mut out = Vec::new();
                let mut ear = [0; SAMPLES];
                let client = &mut self.clients[index];
                client.endpoint.push_audio(now, id, &pcm, &mut |route, bytes| {
                    out.push((route.local, route.destination, bytes.to_vec()));
                });
                client.endpoint.pull_audio(now, id, &mut ear);
                let heard = client.heard.entry(id).or_default();
                heard.sent += out.len();
                heard.recent += out.len();
                if !out.is_empty() {
                    heard.first_sent.get_or_insert(now);
                }
                if ear.iter().any(|s| s.unsigned_abs() > 1_000) {
                    heard.frames += 1;
                    heard.first.get_or_insert(now);
                }
                for (local, destination, bytes) in out {
                    self.transmit(index, local, destination, bytes);
                }
            }
            self.drain(index);
        }
    }

    /// Does what is due next, not after `end`; false: nothing is.
    fn step(&mut self, end: Instant) -> bool {
        if self.audio && self.tick.is_none() && self.clients.iter().any(|c| c.endpoint.calls().next().is_some()) {
            self.tick = Some(self.now);
        }
        let arrival = self.queue.peek().map(|Reverse((at, _))| *at);
        let wake = self.clients.iter().filter_map(|c| c.timeout).min();
        let Some(next) = [arrival, wake, self.tick].into_iter().flatten().min().filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let Reverse((_, order)) = self.queue.pop().unwrap();
            let thing = self.things.remove(&order).unwrap();
            self.happen(thing);
        } else if self.tick == Some(next) {
            let calls = self.clients.iter().any(|c| c.endpoint.calls().next().is_some());
            self.tick = (self.audio && calls).then(|| next + FRAME);
            self.sound();
        } else {
            for index in 0..self.clients.len() {
                if self.clients[index].timeout.is_some_and(|at| at <= self.now) {
                    let now = self.now;
                    let mut rounds = 0;
                    while self.clients[index].timeout.is_some_and(|at| at <= now) {
                        self.clients[index].endpoint.handle_timeout(now);
                        self.drain(index);
                        rounds += 1;
                        assert!(rounds < 16, "a timer of {} does not move", self.clients[index].jid);
                    }
                    self.most_rounds = self.most_rounds.max(rounds);
                }
            }
        }
        true
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_while(time, |_| true);
    }

    /// At most `limit`, and only while `going` says so; true if it stopped going.
    pub fn run_while(&mut self, limit: Duration, going: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while going(self) {
            if !self.step(end) {
                self.now = end;
                return !going(self);
            }
        }
        true
    }
}

/// `values` at `percent`, nearest rank.
pub fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort();
    values[(values.len() * percent).div_ceil(100).max(1) - 1]
}

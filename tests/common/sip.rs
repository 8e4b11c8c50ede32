//! SIP agents and scripted servers in one process, in virtual time: UDP with loss, TCP that can be cut, NATs that forget.
#![allow(dead_code, unreachable_pub)]

use offhook::sip::agent::{Agent, AgentConfig, SipEvent};
use offhook::sip::auth::{Authenticator, AuthenticatorConfig, Verdict};
use offhook::sip::exchange::{FlowId, Transport};
use offhook::sip::flow::{SipInput, SipOutput};
use offhook::sip::locate::{Found, Query, Records};
use offhook::wire::sip::{Header, Message, Method, NameAddr, Request, Response, Status, Tag, Uri};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub const MS: Duration = Duration::from_millis(1);
pub const S: Duration = Duration::from_secs(1);

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn uri(text: &str) -> Uri {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

pub fn address(text: &str) -> NameAddr {
    NameAddr::new(uri(text))
}

pub fn seed(number: u64) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    seed
}

/// Takes a message that came from an address; gives messages back to addresses.
pub type Script = Rc<RefCell<dyn FnMut(Instant, Message, SocketAddr) -> Vec<(SocketAddr, Message)>>>;

pub struct Node {
    pub agent: Agent,
    pub ip: IpAddr,
    pub events: Vec<SipEvent>,
    flows: BTreeMap<FlowId, (Transport, SocketAddr, SocketAddr)>,
    next_port: u16,
}

struct Letter {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub nodes: Vec<Node>,
    pub scripts: BTreeMap<SocketAddr, Script>,
    pub names: BTreeMap<String, IpAddr>,
    /// Of a thousand datagrams so many are lost.
    pub loss: u32,
    /// Nobody is reached.
    pub dead: bool,
    /// Private address to public one.
    pub nat: BTreeMap<SocketAddr, SocketAddr>,
    pub sent: usize,
    pub log: Vec<(Duration, SocketAddr, SocketAddr, String)>,
    letters: BTreeMap<(Instant, u64), Letter>,
    next: u64,
    rng: ChaCha20Rng,
}

impl World {
    pub fn new(number: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            nodes: Vec::new(),
            scripts: BTreeMap::new(),
            names: BTreeMap::new(),
            loss: 0,
            dead: false,
            nat: BTreeMap::new(),
            sent: 0,
            log: Vec::new(),
            letters: BTreeMap::new(),
            next: 0,
            rng: ChaCha20Rng::from_seed(seed(number)),
        }
    }

    pub fn agent(&mut self, ip: &str, number: u64, config: AgentConfig) -> usize {
        let agent = Agent::new(self.now, seed(number), config);
        let ip = ip.parse().unwrap();
        self.nodes.push(Node { agent, ip, events: Vec::new(), flows: BTreeMap::new(), next_port: 40_000 });
        self.nodes.len() - 1
    }

    pub fn script(&mut self, at: SocketAddr, script: Script) {
        self.scripts.insert(at, script);
    }

    /// Sends something from nowhere.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, message: &Message) {
        let bytes = bytes_of(message);
        self.post(from, to, bytes, false);
    }

    /// Breaks every stream of an agent.
    pub fn cut(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let streams: Vec<FlowId> =
            node.flows.iter().filter(|(_, (how, _, _))| how.is_reliable()).map(|(id, _)| *id).collect();
        for flow in streams {
            node.flows.remove(&flow);
            node.agent.handle_input(self.now, SipInput::Closed { flow, why: "cut".into() });
        }
        self.drain();
    }

    /// Until `wanted` says so, or `longest` is over; true if it did.
    pub fn run(&mut self, longest: Duration, mut wanted: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.now + longest;
        for _ in 0..1_000_000 {
            self.drain();
            if wanted(self) {
                return true;
            }
            let letter = self.letters.first_key_value().map(|((at, _), _)| *at);
            let timers = self.nodes.iter().filter_map(|node| node.agent.poll_timeout());
            let Some(next) = timers.chain(letter).min().filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            self.now = next.max(self.now);
            while let Some(entry) = self.letters.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let letter = entry.remove();
                self.deliver(letter);
            }
            for node in &mut self.nodes {
                if node.agent.poll_timeout().is_some_and(|due| due <= self.now) {
                    node.agent.handle_timeout(self.now);
                }
            }
        }
        panic!("nothing comes to rest");
    }

    pub fn pass(&mut self, time: Duration) {
        self.run(time, |_| false);
    }

    /// All events so far of an agent, taken out.
    pub fn events(&mut self, node: usize) -> Vec<SipEvent> {
        self.drain();
        std::mem::take(&mut self.nodes[node].events)
    }

    pub fn drain(&mut self) {
        for number in 0..self.nodes.len() {
            while let Some(output) = self.nodes[number].agent.poll_output() {
                self.output(number, output);
            }
            while let Some(event) = self.nodes[number].agent.poll_event() {
                self.nodes[number].events.push(event);
            }
        }
    }

    fn output(&mut self, number: usize, output: SipOutput) {
        let now = self.now;
        let node = &mut self.nodes[number];
        match output {
            SipOutput::Open { flow, transport, remote, .. } => {
                node.next_port += 1;
                let local = SocketAddr::new(node.ip, node.next_port);
                node.flows.insert(flow, (transport, local, remote));
                if self.dead && transport.is_reliable() {
                    let why = offhook::sip::flow::FlowFault::Unreachable("refused".into());
                    node.agent.handle_input(now, SipInput::Failed { flow, why });
                } else {
                    node.agent.handle_input(now, SipInput::Opened { flow, local });
                }
            }
            SipOutput::Listen { flow, transport, local } => {
                node.flows.insert(flow, (transport, local, local));
                node.agent.handle_input(now, SipInput::Opened { flow, local });
            }
            SipOutput::Send { flow, remote, bytes } => {
                if let Some((how, local, there)) = node.flows.get(&flow).copied() {
                    let to = if how.is_reliable() { there } else { remote };
                    let from = self.nat.get(&local).copied().unwrap_or(local);
                    self.post(from, to, bytes, how.is_reliable());
                }
            }
            SipOutput::Close(flow) => {
                node.flows.remove(&flow);
            }
            SipOutput::LookUp(query) => {
                let found = match &query {
                    Query::Addresses(name) => {
                        self.names.get(name).map_or(Found::Nothing, |ip| Found::Addresses(vec![*ip]))
                    }
                    Query::Naptr(_) | Query::Srv(_) => Found::Nothing,
                };
                let answer = Records { ttl: Duration::from_secs(60), found };
                node.agent.handle_input(now, SipInput::Found { query, answer });
            }
        }
    }

    fn post(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>, reliable: bool) {
        self.sent += 1;
        if self.dead || (!reliable && self.rng.next_u32() % 1000 < self.loss) {
            return;
        }
        // Datagrams overtake each other.
        let jitter = if reliable { 0 } else { u64::from(self.rng.next_u32() % 20) };
        self.next += 1;
        let key = (self.now + Duration::from_millis(10 + jitter), self.next);
        self.letters.insert(key, Letter { from, to, bytes });
    }

    fn deliver(&mut self, letter: Letter) {
        let Letter { from, to, bytes } = letter;
        let first = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
        self.log.push((self.now - self.start, from, to, first));
        if let Some(script) = self.scripts.get(&to).cloned() {
            let Ok(message) = Message::parse(&bytes) else { return };
            let answers = script.borrow_mut()(self.now, message, from);
            for (there, answer) in answers {
                let bytes = bytes_of(&answer);
                self.post(to, there, bytes, false);
            }
            return;
        }
        let private = self.nat.iter().find(|(_, public)| **public == to).map_or(to, |(private, _)| *private);
        let behind_nat = self.nat.contains_key(&to);
        for node in &mut self.nodes {
            let flow = node.flows.iter().find(|(_, (_, local, _))| *local == private && !behind_nat).map(|(id, _)| *id);
            if let Some(flow) = flow {
                node.agent.handle_input(self.now, SipInput::Bytes { flow, source: from, bytes: &bytes });
            }
        }
    }
}

pub fn bytes_of(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    bytes
}

/// A response as a server sends it: with received and rport, and a tag.
pub fn reply(request: &Request, from: SocketAddr, code: u16) -> Response {
    let mut response = Response::to(request, Status::new(code).unwrap());
    if let Some(via) = response.headers.via.first_mut() {
        via.received = Some(from.ip());
        via.rport = Some(Some(from.port()));
    }
    if code > 100 && response.headers.to.tag().is_none() {
        response.headers.set_to_tag(&Tag::lossy("srv"));
    }
    response
}

/// A registrar with digest, and knobs for everything that registrars do.
pub struct Registrar {
    pub authenticator: Authenticator,
    pub password: String,
    pub challenge: bool,
    pub proxy: bool,
    /// Calls the next nonce stale, whatever it is.
    pub stale: u32,
    pub min_expires: u32,
    pub granted: u32,
    pub silent: bool,
    pub refuse: Option<u16>,
    pub retry_after: Option<u32>,
    pub foreign: Vec<&'static str>,
    pub requests: Vec<Request>,
    /// By URI, with when it runs out.
    pub bindings: BTreeMap<String, Instant>,
    pub sources: Vec<SocketAddr>,
}

impl Registrar {
    pub fn new(now: Instant, realm: &str) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            authenticator: Authenticator::new(now, seed(77), AuthenticatorConfig::new(realm)),
            password: "secret".into(),
            challenge: true,
            proxy: false,
            stale: 0,
            min_expires: 0,
            granted: 3600,
            silent: false,
            refuse: None,
            retry_after: None,
            foreign: Vec::new(),
            requests: Vec::new(),
            bindings: BTreeMap::new(),
            sources: Vec::new(),
        }))
    }

    pub fn script(this: &Rc<RefCell<Self>>) -> Script {
        let this = this.clone();
        Rc::new(RefCell::new(move |now, message, from| {
            let Message::Request(request) = message else { return Vec::new() };
            if request.method == Method::Ack {
                return Vec::new();
            }
            let mut this = this.borrow_mut();
            this.requests.push(request.clone());
            this.sources.push(from);
            if this.silent { Vec::new() } else { vec![(from, Message::Response(this.answer(now, &request, from)))] }
        }))
    }

    fn answer(&mut self, now: Instant, request: &Request, from: SocketAddr) -> Response {
        if let Some(code) = self.refuse {
            let mut response = reply(request, from, code);
            if let Some(seconds) = self.retry_after {
                response.headers.push(Header::RetryAfter(seconds));
            }
            return response;
        }
        if self.challenge {
            let secret = offhook::config::Secret::new(self.password.clone());
            let verdict = self.authenticator.verify(now, request, |user| (user == "alice").then(|| secret.clone()));
            let forced = self.stale > 0 && matches!(verdict, Verdict::Proved(_));
            if forced {
                self.stale -= 1;
            }
            let stale = forced || verdict == Verdict::Challenge { stale: true };
            if stale || matches!(verdict, Verdict::Challenge { .. }) {
                let mut response = reply(request, from, if self.proxy { 407 } else { 401 });
                let headers = match self.proxy {
                    true => self.authenticator.proxy_challenge(now, stale),
                    false => self.authenticator.challenge(now, stale),
                };
                response.headers.rest.extend(headers);
                return response;
            }
        }
        if request.method != Method::Register {
            return reply(request, from, 200);
        }
        let general = request.headers.expires();
        if request.headers.contact_star {
            self.bindings.clear();
        }
        for contact in &request.headers.contact {
            let asked = contact.params.find("expires").and_then(|s| s.parse().ok()).or(general).unwrap_or(3600);
            if asked > 0 && asked < self.min_expires {
                let mut response = reply(request, from, 423);
                response.headers.push(Header::MinExpires(self.min_expires));
                return response;
            }
            let key = contact.uri.to_string();
            match asked {
                0 => self.bindings.remove(&key),
                _ => self.bindings.insert(key, now + Duration::from_secs(asked.min(self.granted).into())),
            };
        }
        self.bindings.retain(|_, until| *until > now);
        let mut response = reply(request, from, 200);
        for (text, until) in &self.bindings {
            let mut contact = NameAddr::new(uri(text));
            contact.params.set("expires", Some(&(*until - now).as_secs().to_string()));
            response.headers.contact.push(contact);
        }
        for text in &self.foreign {
            let mut contact = NameAddr::new(uri(text));
            contact.params.set("expires", Some("600"));
            response.headers.contact.push(contact);
        }
        response
    }
}

/// An account at a registrar.
pub fn account(registrar: &str) -> AgentConfig {
    let mut config = AgentConfig::new(NameAddr::named("Alice", uri("sip:alice@pbx.example")));
    config.registrar = Some(uri(registrar));
    config.login("alice", offhook::config::Secret::new("secret"), None);
    config
}

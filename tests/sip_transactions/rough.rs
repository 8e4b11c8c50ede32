//! Both ends ours on a bad network, floods, and generated sequences.

use crate::carrier::{id, reply};
use crate::messages::*;
use crate::world::*;
use offhook::config::SipLimits;
use offhook::sip::carrier::CarrierConfig;
use offhook::sip::exchange::{Heard, RequestId, ServerId, Transport, Wish};
use offhook::wire::sip::{Message, Method, Request, Response};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn seeds(default: u64, count: &str) -> std::ops::Range<u64> {
    match number("OFFHOOK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number(count).unwrap_or(default),
    }
}

/// What Bob does with one INVITE.
struct Ringing {
    request: Box<Request>,
    /// When he answers, and how.
    answer: Option<(Instant, u16)>,
    /// His 2xx is repeated until its ACK: when next, after which interval, until when (RFC 3261 §13.3.1.4).
    repeat: Option<(Instant, Duration, Instant)>,
}

/// A caller and a callee who do what sessions do, and note what they hear.
struct Call {
    world: World,
    rng: Rng,
    alice: usize,
    bob: usize,
    ringing: BTreeMap<ServerId, Ringing>,
    /// Finals that Alice heard, by the number of her request: codes, 0 for none at all.
    outcomes: BTreeMap<u32, Vec<u16>>,
    wished: BTreeMap<u32, Request>,
    /// Call-ID and CSeq of what Bob heard.
    arrived: Vec<(String, u32)>,
    failed: BTreeSet<ServerId>,
    confirmed: BTreeSet<ServerId>,
    acknowledged: BTreeSet<String>,
}

impl Call {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let address = at("192.0.2.2:5060");
        let alice = world.add("192.0.2.1", config());
        let listen = vec![(Transport::Udp, address), (Transport::Tcp, address)];
        let bob = world.add("192.0.2.2", CarrierConfig { listen, ..config() });
        world.until(1);
        (world.loss, world.doubling, world.jitter, world.record) = (20, 10, 300, false);
        Self {
            world,
            rng: Rng(seed ^ 0x5151),
            alice,
            bob,
            ringing: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            wished: BTreeMap::new(),
            arrived: Vec::new(),
            failed: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    fn wish(&mut self, number: u32, tcp: bool) {
        let method = [Method::Invite, Method::Options, Method::Message][self.rng.below(3) as usize].clone();
        let to = if tcp { "sip:bob@192.0.2.2;transport=tcp" } else { "sip:bob@192.0.2.2" };
        let request = lone(method, to, &format!("c{number}"), 1);
        self.wished.insert(number, request.clone());
        self.world.wish(self.alice, Wish::Request { id: id(number), request: Box::new(request) });
    }

    fn alice_hears(&mut self, heard: Heard) {
        match heard {
            Heard::Response { id: RequestId { number, .. }, response, cseq, .. } => {
                if response.status.is_provisional() {
                    return;
                }
                self.outcomes.entry(number).or_default().push(response.status.code());
                if response.status.is_success() && response.headers.cseq.method == Method::Invite {
                    let mut ack = lone(Method::Ack, "sip:bob@192.0.2.2", &format!("c{number}"), cseq);
                    ack.headers.to = response.headers.to.clone();
                    self.world.wish(self.alice, Wish::Ack(Box::new(ack)));
                }
            }
            Heard::Failed { id, .. } => self.outcomes.entry(id.number).or_default().push(0),
            other => panic!("Alice hears {other:?}"),
        }
    }

    fn bob_hears(&mut self, heard: Heard) {
        let now = self.world.now;
        match heard {
            Heard::Request { id, request, .. } => {
                self.arrived.push((request.headers.call_id.as_str().to_owned(), request.headers.cseq.number));
                if request.method != Method::Invite {
                    let code = [200, 404, 500][self.rng.below(3) as usize];
                    return self.world.wish(self.bob, reply(id, &request, code));
                }
                if self.rng.chance(50) {
                    self.world.wish(self.bob, reply(id, &request, 180));
                }
                let code = [200, 200, 486, 603][self.rng.below(4) as usize];
                let after = Duration::from_millis(self.rng.below(20_000));
                let answer = self.rng.chance(80).then_some((now + after, code));
                self.ringing.insert(id, Ringing { request, answer, repeat: None });
            }
            Heard::Ack(ack) => {
                self.acknowledged.insert(ack.headers.call_id.as_str().to_owned());
                for ringing in self.ringing.values_mut() {
                    if ringing.request.headers.call_id == ack.headers.call_id {
                        ringing.repeat = None;
                    }
                }
            }
            Heard::Cancelled { id, .. } => {
                if let Some(ringing) = self.ringing.get_mut(&id) {
                    ringing.answer = None;
                    let wish = reply(id, &ringing.request, 487);
                    self.failed.insert(id);
                    self.world.wish(self.bob, wish);
                }
            }
            Heard::Confirmed(id) => {
                assert!(self.confirmed.insert(id), "confirmed twice");
            }
            other => panic!("Bob hears {other:?}"),
        }
    }

    fn turn(&mut self) {
        for heard in self.world.heard(self.alice) {
            self.alice_hears(heard);
        }
        for heard in self.world.heard(self.bob) {
            self.bob_hears(heard);
        }
        let now = self.world.now;
        let mut wishes = Vec::new();
        for (id, ringing) in &mut self.ringing {
            if let Some((_, code)) = ringing.answer.take_if(|(at, _)| *at <= now) {
                wishes.push(reply(*id, &ringing.request, code));
                if code < 300 {
                    let t1 = Duration::from_millis(500);
                    ringing.repeat = Some((now + t1, t1, now + 64 * t1));
                } else {
                    self.failed.insert(*id);
                }
            }
            if let Some((at, interval, end)) = ringing.repeat.filter(|(at, _, _)| *at <= now) {
                let interval = (interval * 2).min(Duration::from_secs(4));
                ringing.repeat = Some((at + interval, interval, end)).filter(|(at, _, end)| at < end);
                wishes.push(reply(*id, &ringing.request, 200));
            }
        }
        for wish in wishes {
            self.world.wish(self.bob, wish);
        }
    }

    fn until(&mut self, ms: u64) {
        let end = self.world.start + Duration::from_millis(ms);
        loop {
            self.turn();
            let own =
                self.ringing.values().flat_map(|r| r.answer.map(|a| a.0).into_iter().chain(r.repeat.map(|r| r.0)));
            let next = own.filter(|at| *at > self.world.now).min().unwrap_or(end).min(end);
            if !self.world.step(next) && next >= end {
                break;
            }
        }
        self.turn();
    }

    fn check(&mut self, at_most_once: bool) {
        for number in self.wished.keys() {
            let heard = self.outcomes.get(number).cloned().unwrap_or_default();
            let is_invite = self.wished[number].method == Method::Invite;
            // Several only if all of them are 2xx to an INVITE.
            let repeated = is_invite && heard.iter().all(|code| (200..300).contains(code));
            assert!(!heard.is_empty(), "request {number} has no outcome");
            assert!(heard.len() == 1 || repeated, "request {number} has the outcomes {heard:?}");
        }
        if at_most_once {
            let distinct: BTreeSet<_> = self.arrived.iter().collect();
            assert_eq!(distinct.len(), self.arrived.len(), "a request arrived twice: {:?}", self.arrived);
        }
        assert_eq!(self.failed, self.confirmed, "each failure is over");
        for node in [self.alice, self.bob] {
            let carrier = &self.world.nodes[node].carrier;
            let counts = carrier.counts();
            let left = (counts.clients, counts.servers, counts.open, counts.sources, carrier.under_way());
            assert_eq!(left, (0, 0, 0, 0, 0), "something is left");
        }
    }
}

#[test]
fn on_a_bad_network_every_transaction_ends_in_a_defined_state() {
    let (mut answered, mut failed) = (0, 0);
    let range = seeds(1_000, "OFFHOOK_SEEDS");
    let many = range.end - range.start > 1;
    for seed in range {
        println!("OFFHOOK_SEED={seed}");
        let mut call = Call::new(seed);
        let tcp = seed % 4 == 3;
        let mut at = 1;
        for n in 0..4 {
            call.wish(n, tcp);
            at += call.rng.below(3_000);
            call.until(at);
            if call.rng.chance(30) {
                call.world.wish(call.alice, Wish::Cancel { id: id(n), headers: Vec::new() });
            }
            if tcp && call.rng.chance(30) {
                call.world.break_connections(call.alice);
            }
        }
        call.until(at + 30_000);
        // Whoever rings for ever is cancelled; what is not heard of it then is over 32 s later.
        for n in 0..4 {
            call.world.wish(call.alice, Wish::Cancel { id: id(n), headers: Vec::new() });
        }
        call.until(at + 60_000);
        // The CANCEL was lost with its connection, or the caller is gone: the callee's user puts it down. Where he has said
        // 200 already, this is too late to be sent.
        let stuck: Vec<ServerId> = call.ringing.keys().copied().filter(|id| !call.failed.contains(id)).collect();
        for server in stuck {
            let wish = reply(server, &call.ringing[&server].request, 480);
            call.world.wish(call.bob, wish);
        }
        call.until(at + 200_000);
        let late = call.confirmed.difference(&call.failed).copied().collect::<Vec<_>>();
        call.failed.extend(late);
        call.check(!tcp);
        answered += call.outcomes.values().filter(|codes| codes.contains(&200)).count();
        failed += call.outcomes.values().filter(|codes| codes.contains(&0)).count();
    }
    println!("{answered} answered, {failed} without an answer");
    assert!(!many || answered > 100, "the network is too bad to show anything");
}

/// An INVITE as floods have them.
fn flood(n: u64, source: &str) -> Vec<u8> {
    format!(
        "INVITE sip:bob@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP {source};branch=z9hG4bK-{n}\r\nMax-Forwards: 70\r\n\
         From: <sip:x@198.51.100.1>;tag={n}\r\nTo: <sip:bob@192.0.2.2>\r\nCall-ID: {n}@flood\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:x@{source}>\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn five_hundred_invites_a_second_for_20_s_are_bounded_and_honest_calls_go_on() {
    for many_sources in [false, true] {
        let mut world = World::new(1);
        world.record = false;
        let alice = world.add("192.0.2.1", config());
        let listen = vec![(Transport::Udp, at("192.0.2.2:5060"))];
        let bob = world.add("192.0.2.2", CarrierConfig { listen, ..config() });
        let limits = SipLimits::default();
        world.until(1);
        let (mut worst, mut heard_of_flood, mut honest) = (0, 0, 0);
        for n in 0..10_000 {
            world.until(1 + n * 2);
            let source = if many_sources {
                format!("198.51.{}.{}:5060", 100 + n % 100, 1 + n / 100 % 250)
            } else {
                "198.51.100.1:5060".to_owned()
            };
            world.inject(bob, at(&source), &flood(n, &source));
            // A standing call, as a request inside a dialog each second.
            if n % 500 == 0 {
                let number = u32::try_from(n / 500).unwrap();
                let mut info = lone(Method::Info, "sip:bob@192.0.2.2", "standing", number + 1);
                info.headers.set_to_tag(&tag("bobs"));
                world.wish(alice, Wish::Request { id: id(number), request: Box::new(info) });
                world.until(1 + n * 2 + 30);
            }
            for heard in world.heard(bob) {
                let Heard::Request { id, request, .. } = heard else { continue };
                // Nobody ever acknowledges a 403.
                let flooded = request.method == Method::Invite;
                heard_of_flood += u64::from(flooded);
                world.wish(bob, reply(id, &request, if flooded { 403 } else { 200 }));
            }
            let counts = world.nodes[bob].carrier.counts();
            worst = worst.max(counts.servers);
            assert!(counts.open <= limits.open && counts.sources <= limits.open);
        }
        world.until(21_000);
        for heard in world.heard(alice) {
            honest += u32::from(matches!(heard, Heard::Response { response, .. } if response.status.code() == 200));
        }
        assert_eq!(honest, 20, "the standing call is unharmed");
        let bound = if many_sources { limits.open / 2 } else { limits.open_per_source };
        assert!(worst <= bound + 20, "{worst} transactions");
        assert_eq!(heard_of_flood, bound as u64);
        // 32 s later all of it is gone.
        world.until(60_000);
        let counts = world.nodes[bob].carrier.counts();
        assert_eq!((counts.servers, counts.open, counts.sources), (0, 0, 0));
        println!("{worst} transactions at worst");
    }
}

/// A message like one that was seen, but for one thing.
fn mutated(rng: &mut Rng, seen: &Message) -> Vec<u8> {
    let mut message = seen.clone();
    match &mut message {
        Message::Request(request) => match rng.below(9) {
            0 => request.headers.via[0].branch = Some(format!("z9hG4bK{}", rng.below(4)).into()),
            1 => request.headers.via[0].branch = None,
            2 => *request = ack_of(request, "bobs"),
            3 => *request = cancel_of(request),
            4 => request.headers.set_to_tag(&tag("bobs")),
            5 => request.headers.cseq.number = rng.below(3) as u32,
            6 => request.uri = uri(["tel:+1", "sip:x", "urn:service:sos", "sips:x"][rng.below(4) as usize]),
            7 => request.headers.via.insert(0, via("z9hG4bKtop")),
            _ => {}
        },
        Message::Response(response) => match rng.below(6) {
            0 => response.status = status(100 + rng.below(600) as u16),
            1 => response.headers.via[0].branch = Some(format!("z9hG4bK{}", rng.below(4)).into()),
            2 => response.headers.via[0].rport = Some(Some(rng.below(65_536) as u16)),
            3 => response.headers.set_to_tag(&tag(["x", "y"][rng.below(2) as usize])),
            4 => response.status = status([180, 200, 401, 407, 486, 503][rng.below(6) as usize]),
            _ => {}
        },
    }
    let mut bytes = message.to_bytes();
    if rng.chance(10) && !bytes.is_empty() {
        let at = rng.below(bytes.len() as u64) as usize;
        bytes[at] = rng.next() as u8;
    }
    bytes
}

#[test]
fn no_sequence_of_messages_wishes_and_timers_panics_or_leaves_something_behind() {
    let limits = SipLimits { open_per_source: 4, open: 12, incoming: 24, outgoing: 8, ..SipLimits::default() };
    for seed in seeds(3_000, "OFFHOOK_SEQUENCES") {
        let mut rng = Rng(seed);
        let mut world = World::new(seed);
        let address = at("192.0.2.2:5060");
        let listen = vec![(Transport::Udp, address), (Transport::Tcp, address)];
        let ends = [
            world.add("192.0.2.1", CarrierConfig { limits, ..config() }),
            world.add("192.0.2.2", CarrierConfig { limits, listen, ..config() }),
        ];
        (world.loss, world.doubling, world.jitter) = (rng.below(40), rng.below(40), rng.below(500));
        let mut known: Vec<(usize, ServerId, Box<Request>)> = Vec::new();
        let mut next = 0;
        for _ in 0..5 + rng.below(40) {
            let end = ends[rng.below(2) as usize];
            match rng.below(10) {
                0..=2 => {
                    next += 1;
                    let method =
                        [Method::Invite, Method::Options, Method::Register, Method::Bye][rng.below(4) as usize].clone();
                    let to = ["sip:bob@192.0.2.2", "sip:192.0.2.2;transport=tcp", "sip:192.0.2.9", "sip:a.example"];
                    let to = to[rng.below(4) as usize];
                    let mut request = lone(method, to, &format!("c{}", rng.below(6)), 1 + rng.below(3) as u32);
                    if rng.chance(30) {
                        request.headers.set_to_tag(&tag("bobs"));
                    }
                    if rng.chance(20) {
                        request.body = vec![b'x'; 1_400];
                    }
                    world.wish(end, Wish::Request { id: id(next), request: Box::new(request) });
                }
                3 => {
                    let victim = rng.below(u64::from(next) + 1) as u32;
                    world.wish(end, Wish::Cancel { id: id(victim), headers: Vec::new() });
                }
                4 => {
                    let ack = lone(Method::Ack, "sip:bob@192.0.2.2", &format!("c{}", rng.below(6)), 1);
                    world.wish(end, Wish::Ack(Box::new(ack)));
                }
                5 | 6 => {
                    if let Some((node, server, request)) = known.get(rng.below(known.len() as u64 + 1) as usize) {
                        let code = [100, 180, 183, 200, 200, 302, 401, 486, 503][rng.below(9) as usize];
                        let wish = reply(*server, request, code);
                        world.wish(*node, wish);
                    }
                }
                7 => {
                    if !world.seen.is_empty() {
                        let seen = world.seen[rng.below(world.seen.len() as u64) as usize].message.clone();
                        let bytes = mutated(&mut rng, &seen);
                        world.inject(end, at(["192.0.2.1:40001", "192.0.2.66:5060"][rng.below(2) as usize]), &bytes);
                    }
                }
                8 => world.break_connections(end),
                _ => {}
            }
            let later = world.ms() as u64 + [0, 1, 30, 500, 5_000, 33_000][rng.below(6) as usize];
            world.until(later);
            for node in ends {
                for heard in world.heard(node) {
                    if let Heard::Request { id, request, .. } = heard {
                        known.push((node, id, request));
                    }
                }
                let counts = world.nodes[node].carrier.counts();
                assert!(counts.servers <= limits.incoming && counts.open <= limits.open, "OFFHOOK_SEED={seed}");
                assert!(counts.clients <= limits.outgoing + 8, "OFFHOOK_SEED={seed}: {counts:?}");
            }
        }
        // Everything that has a user waiting is answered or given up.
        for (node, server, request) in &known {
            let wish = Wish::Response {
                id: *server,
                to_tag: Some(tag("bobs")),
                response: Box::new(Response::to(request, status(500))),
            };
            world.wish(*node, wish);
        }
        for n in 0..=next {
            for end in ends {
                world.wish(end, Wish::Cancel { id: id(n), headers: Vec::new() });
            }
        }
        let later = world.ms() as u64 + 400_000;
        world.until(later);
        for node in ends {
            // What arrived late has its user, too.
            for heard in world.heard(node) {
                if let Heard::Request { id, request, .. } = heard {
                    let wish = reply(id, &request, 500);
                    world.wish(node, wish);
                }
            }
        }
        let later = world.ms() as u64 + 100_000;
        world.until(later);
        for node in ends {
            let carrier = &world.nodes[node].carrier;
            let counts = carrier.counts();
            assert_eq!((counts.clients, counts.servers), (0, 0), "OFFHOOK_SEED={seed}");
            assert_eq!(carrier.under_way(), 0, "OFFHOOK_SEED={seed}");
        }
    }
}

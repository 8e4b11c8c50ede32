//! Generated operations of two user agents, with a network that loses what sessions repeat themselves, beside a small
//! model. `OFFHOOK_SEQUENCES` sets how many (10 000 unless told), `OFFHOOK_SEED` replays the one that a failure printed.

use crate::phone::*;
use offhook::sip::exchange::{Failure, Heard, RequestId, ServerId, Wish};
use offhook::sip::session::{Context, Fork, Invitation, Misuse, Policy, ReferralId, SessionEvent};
use offhook::sip::sessions::{SessionId, Sessions, SessionsConfig};
use offhook::wire::sip::{Header, Method, Request, Response};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// What the model knows of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Calling,
    Ringing,
    /// We took it; or they did.
    Up,
    Ended,
}

#[derive(Debug)]
struct Modelled {
    phase: Phase,
    /// Offers of theirs that await our answer.
    theirs: BTreeSet<Fork>,
    referral: Option<ReferralId>,
}

struct Side {
    sessions: Sessions,
    known: BTreeMap<SessionId, Modelled>,
    /// Our requests with a description, and no final answer yet.
    offers: BTreeSet<RequestId>,
    servers: u64,
}

struct Served {
    at: usize,
    from: usize,
    id: RequestId,
    request: Request,
    finals: Option<u16>,
    provisional: bool,
}

enum Packet {
    Request(RequestId, Box<Request>),
    Ack(Box<Request>),
    Cancel(RequestId),
    Response(RequestId, Box<Response>),
    Confirmed(ServerId),
}

struct World {
    now: Instant,
    sides: [Side; 2],
    air: BTreeMap<(Instant, u64), (usize, Packet)>,
    served: BTreeMap<(usize, ServerId), Served>,
    /// Which server transaction answers a request.
    by_request: BTreeMap<(usize, RequestId), ServerId>,
    cancelled: VecDeque<(usize, RequestId)>,
    sent: u64,
    random: u64,
    loss: u64,
    names: u64,
    tell: bool,
    /// Which session speaks in a dialog.
    speakers: BTreeMap<(usize, String, String), SessionId>,
    seen: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64, tell: bool) -> Self {
        #[allow(clippy::disallowed_methods, reason = "where virtual time begins")]
        let now = Instant::now();
        let side = |n: u8| {
            let policy = Policy { referrals: true, replaces: true, ..Policy::default() };
            let mut context = Context { policy, ..Context::default() };
            context.timers.session_s = 90 + u32::try_from(seed % 3).unwrap() * 60;
            let mut bytes = [n; 32];
            bytes[..8].copy_from_slice(&seed.to_be_bytes());
            let contact = addr(&format!("sip:n{n}@192.0.2.{n}"));
            let sessions = Sessions::new(SessionsConfig { context, contact, seed: bytes });
            Side { sessions, known: BTreeMap::new(), offers: BTreeSet::new(), servers: 0 }
        };
        Self {
            now,
            sides: [side(1), side(2)],
            air: BTreeMap::new(),
            served: BTreeMap::new(),
            by_request: BTreeMap::new(),
            cancelled: VecDeque::new(),
            sent: 0,
            random: seed.wrapping_mul(0x9e37_79b9) ^ 0xabcd,
            loss: [0, 20, 50][(seed % 3) as usize],
            names: 0,
            tell,
            speakers: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("sdp{}", self.names)
    }

    /// `lossy`: what sessions repeat themselves; the rest is repeated below, and so is only late.
    fn send(&mut self, to: usize, packet: Packet, lossy: bool) {
        let mut delay = 10 + self.random(60);
        if lossy && self.random(100) < self.loss {
            return;
        }
        if !lossy && self.random(100) < self.loss {
            delay += 500;
        }
        self.sent += 1;
        self.air.insert((self.now + ms(delay), self.sent), (to, packet));
    }

    fn wish(&mut self, n: usize, wish: Wish) {
        if self.tell {
            println!("{:?} {n} {}", self.now, brief(&wish));
        }
        match wish {
            Wish::Request { id, request } => {
                let initial = request.headers.to.tag().is_none();
                let tag = request.headers.from.tag().unwrap();
                let dialog = (n, request.headers.call_id.to_string(), tag.to_string());
                let offhook::sip::exchange::Owner::Session(owner) = id.owner else { panic!("{id:?}") };
                let speaker = *self.speakers.entry(dialog).or_insert(SessionId(owner));
                assert_eq!(speaker, SessionId(owner), "two sessions of one dialog");
                if !request.body.is_empty() && matches!(request.method, Method::Invite | Method::Update) && !initial {
                    let side = &self.sides[n];
                    let id = SessionId(match id.owner {
                        offhook::sip::exchange::Owner::Session(id) => id,
                        other => panic!("{other:?}"),
                    });
                    // At most one outstanding offer: not ours beside theirs, nor two of ours.
                    assert!(side.known[&id].theirs.is_empty(), "an offer beside theirs");
                    assert!(
                        !side.offers.iter().any(|offer| offer.owner == offhook::sip::exchange::Owner::Session(id.0)),
                        "two offers of ours"
                    );
                }
                if !request.body.is_empty() && matches!(request.method, Method::Invite | Method::Update) {
                    self.sides[n].offers.insert(id);
                }
                if self.loss == 50 && self.random(40) == 0 {
                    // Nobody answers.
                    self.sides[n].offers.remove(&id);
                    let heard = Heard::Failed { id, why: Failure::TimedOut };
                    let now = self.now;
                    self.sides[n].sessions.handle_heard(now, heard);
                    return;
                }
                self.send(1 - n, Packet::Request(id, request), false);
            }
            Wish::Ack(request) => self.send(1 - n, Packet::Ack(request), true),
            Wish::Cancel { id, .. } => self.cancelled.push_back((n, id)),
            Wish::Response { id, to_tag, response } => self.respond(n, id, &to_tag.unwrap(), *response),
            Wish::Way { .. } => panic!("sessions ask for no way"),
        }
    }

    fn respond(&mut self, n: usize, server: ServerId, tag: &offhook::wire::sip::Tag, mut response: Response) {
        let served = self.served.get_mut(&(n, server)).expect("an answer to nothing");
        let invite = served.request.method == Method::Invite;
        let code = response.status.code();
        match served.finals {
            // Each request has one final answer; a 2xx to INVITE is repeated.
            Some(before) => assert!(invite && before == code && code < 300, "answered {before}, then {code}"),
            None if code >= 200 => served.finals = Some(code),
            None => served.provisional = true,
        }
        response.headers.from = served.request.headers.from.clone();
        response.headers.to = served.request.headers.to.clone();
        response.headers.set_to_tag(tag);
        response.headers.call_id = served.request.headers.call_id.clone();
        response.headers.cseq = served.request.headers.cseq.clone();
        let (to, id) = (served.from, served.id);
        let lossy = invite && code < 300;
        if invite && code >= 300 {
            self.send(n, Packet::Confirmed(server), false);
        }
        self.send(to, Packet::Response(id, Box::new(response)), lossy);
    }

    fn deliver(&mut self, to: usize, packet: Packet) {
        let now = self.now;
        let heard = match packet {
            Packet::Request(id, request) => {
                let side = &mut self.sides[to];
                side.servers += 1;
                let server = ServerId(side.servers);
                let served =
                    Served { at: to, from: 1 - to, id, request: (*request).clone(), finals: None, provisional: false };
                self.served.insert((to, server), served);
                self.by_request.insert((1 - to, id), server);
                Heard::Request { id: server, request, origin: origin() }
            }
            Packet::Ack(request) => Heard::Ack(request),
            Packet::Cancel(id) => {
                let Some(server) = self.by_request.get(&(1 - to, id)).copied() else { return };
                if self.served[&(to, server)].finals.is_some() {
                    return;
                }
                Heard::Cancelled { id: server, reasons: Vec::new() }
            }
            Packet::Response(id, response) => {
                // The answer may come early, but then reliably.
                if response.status.code() >= 200 || (response.headers.requires("100rel") && !response.body.is_empty()) {
                    self.sides[to].offers.remove(&id);
                }
                let cseq = response.headers.cseq.number;
                Heard::Response { id, response, cseq, origin: origin() }
            }
            Packet::Confirmed(server) => Heard::Confirmed(server),
        };
        self.sides[to].sessions.handle_heard(now, heard);
    }

    fn settle(&mut self) {
        let mut again = true;
        while std::mem::take(&mut again) {
            for n in 0..2 {
                while let Some((id, event)) = self.sides[n].sessions.poll_event() {
                    again = true;
                    if self.tell {
                        println!("{:?} {n} {id:?} {event:?}", self.now);
                    }
                    self.event(n, id, event);
                }
                while let Some(wish) = self.sides[n].sessions.poll_wish() {
                    again = true;
                    self.wish(n, wish);
                }
            }
        }
    }

    fn event(&mut self, n: usize, id: SessionId, event: SessionEvent) {
        let kind = match &event {
            SessionEvent::Accepted { .. } => "accepted",
            SessionEvent::Confirmed => "confirmed",
            SessionEvent::AnswerReceived { early: true, .. } => "early answer",
            SessionEvent::AnswerReceived { .. } => "answer",
            SessionEvent::OfferReceived { early: true, .. } => "early offer",
            SessionEvent::OfferReceived { .. } => "offer",
            SessionEvent::OfferRefused { .. } => "offer refused",
            SessionEvent::OfferWithdrawn { .. } => "offer withdrawn",
            SessionEvent::Held(_) => "held",
            SessionEvent::Dtmf { .. } => "digit",
            SessionEvent::Referred { .. } => "referred",
            SessionEvent::Transfer(_) => "transfer",
            SessionEvent::Ended(_) => "ended",
            _ => "other",
        };
        *self.seen.entry(kind).or_default() += 1;
        let side = &mut self.sides[n];
        if let SessionEvent::Incoming(_) = event {
            let model = Modelled { phase: Phase::Ringing, theirs: BTreeSet::new(), referral: None };
            assert!(side.known.insert(id, model).is_none());
            return;
        }
        let model = side.known.get_mut(&id).expect("an event of nobody");
        assert_ne!(model.phase, Phase::Ended, "told after the end: {event:?}");
        match event {
            SessionEvent::Accepted { .. } => {
                assert_eq!(model.phase, Phase::Calling, "accepted twice");
                model.phase = Phase::Up;
            }
            SessionEvent::Confirmed => assert_eq!(model.phase, Phase::Up),
            SessionEvent::OfferReceived { fork, .. } => {
                assert!(model.theirs.insert(fork), "two offers of theirs");
            }
            SessionEvent::OfferWithdrawn { fork } => assert!(model.theirs.remove(&fork), "no offer to withdraw"),
            SessionEvent::ForkEnded { fork } => drop(model.theirs.remove(&fork)),
            SessionEvent::Referred { id, .. } => model.referral = Some(id),
            SessionEvent::Ended(_) => {
                model.phase = Phase::Ended;
                model.theirs.clear();
            }
            _ => {}
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        loop {
            while let Some((n, id)) = self.cancelled.pop_front() {
                self.send(1 - n, Packet::Cancel(id), false);
            }
            let timers = self.sides.iter().filter_map(|side| side.sessions.poll_timeout());
            let air = self.air.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = timers.chain(air).min().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            if let Some(entry) = self.air.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, packet) = entry.remove();
                self.deliver(to, packet);
            }
            for n in 0..2 {
                let now = self.now;
                if self.sides[n].sessions.poll_timeout().is_some_and(|at| at <= now) {
                    self.sides[n].sessions.handle_timeout(now);
                }
            }
            self.settle();
        }
        self.now = until;
    }

    /// One verb of one side, and whether its answer is what the model says.
    fn operate(&mut self) {
        let n = self.random(2) as usize;
        let now = self.now;
        let name = self.name();
        let what = self.random(20);
        let choice = self.random(1 << 20);
        let live: Vec<SessionId> =
            self.sides[n].known.iter().filter(|(_, m)| m.phase != Phase::Ended).map(|(id, _)| *id).collect();
        if live.is_empty() || (what == 0 && live.len() < 3) {
            let offer = (!choice.is_multiple_of(4)).then(|| sdp(&name, 1, "sendrecv"));
            let invitation = Invitation::new(local("us"), addr("sip:them@b.test"), offer);
            let id = self.sides[n].sessions.invite(now, invitation).unwrap();
            let model = Modelled { phase: Phase::Calling, theirs: BTreeSet::new(), referral: None };
            self.sides[n].known.insert(id, model);
            return self.settle();
        }
        let id = live[(choice as usize) % live.len()];
        let side = &mut self.sides[n];
        let model = side.known.get_mut(&id).unwrap();
        let s = &mut side.sessions;
        let ringing = model.phase == Phase::Ringing;
        let up = model.phase == Phase::Up;
        let sdp = sdp(&name, 1, ["sendrecv", "sendonly", "inactive", "recvonly"][(choice % 4) as usize]);
        if self.tell {
            println!("{:?} {n} {id:?} does {what}", now);
        }
        match what {
            1 => assert!(s.ring(now, id).is_ok() <= ringing),
            2 => assert!(s.early(now, id, sdp).is_ok() <= ringing),
            3..=6 => {
                let done = s.accept(now, id, Some(sdp));
                assert!(done.is_ok() <= ringing);
                if done.is_ok() {
                    // Perhaps after a PRACK; no other verb tells the difference.
                    model.phase = Phase::Up;
                }
            }
            7 => {
                let done = s.reject(now, id, status(486), Vec::new());
                assert_eq!(done.is_ok(), ringing || (up && done.is_ok()), "{done:?}");
            }
            8 => s.hang_up(now, id, Vec::new()).unwrap(),
            9 | 10 => s.reoffer(now, id, sdp).unwrap_or(()),
            11 | 12 => s.hold(now, id, choice.is_multiple_of(2)).unwrap_or(()),
            13..=15 => match model.theirs.pop_first() {
                Some(fork) if choice.is_multiple_of(5) => s.refuse_offer(now, id, fork, status(488)).unwrap(),
                Some(fork) => s.answer(now, id, fork, sdp).unwrap(),
                None => {
                    let done = s.answer(now, id, Fork(0), sdp);
                    assert!(matches!(done, Err(Misuse::NoOffer | Misuse::NoFork)), "{done:?}");
                }
            },
            16 => s.info_dtmf(now, id, '5', ms(100)).unwrap_or(()),
            17 => s.refer(now, id, addr("sip:carol@c.test")).unwrap_or(()),
            18 => {
                if let Some(referral) = model.referral.take() {
                    let done = s.take_referral(now, id, referral);
                    if done.is_ok() {
                        s.notify_referral(now, id, referral, status(200)).unwrap();
                    }
                }
            }
            _ => {
                if let Some(other) = live.first().filter(|other| **other != id) {
                    s.refer_to_session(now, id, *other).unwrap_or(());
                }
            }
        }
        self.settle();
    }

    fn finish(&mut self, seed: u64) {
        for n in 0..2 {
            let live: Vec<SessionId> =
                self.sides[n].known.iter().filter(|(_, m)| m.phase != Phase::Ended).map(|(id, _)| *id).collect();
            // Half are left to end by themselves: by the other side's BYE, or by their timers.
            for id in live {
                if self.random(2) == 0 {
                    let now = self.now;
                    let (sessions, known) = (&mut self.sides[n].sessions, &self.sides[n].known);
                    if known[&id].phase != Phase::Ended {
                        sessions.hang_up(now, id, Vec::new()).unwrap_or(());
                    }
                    self.settle();
                }
            }
        }
        self.wait(secs(400));
        for n in 0..2 {
            let live: Vec<SessionId> =
                self.sides[n].known.iter().filter(|(_, m)| m.phase != Phase::Ended).map(|(id, _)| *id).collect();
            for id in live {
                let now = self.now;
                self.sides[n].sessions.hang_up(now, id, Vec::new()).ok();
                self.settle();
            }
        }
        self.wait(secs(400));
        for side in &self.sides {
            assert!(side.known.values().all(|model| model.phase == Phase::Ended), "seed {seed}: {:#?}", side.known);
            assert_eq!((side.sessions.len(), side.sessions.lingering()), (0, 0), "seed {seed}");
            assert_eq!(side.sessions.poll_timeout(), None, "seed {seed}");
        }
        for served in self.served.values() {
            let request = &served.request;
            assert!(
                served.finals.is_some(),
                "seed {seed}: {:?} {} has no answer at {}",
                request.method,
                request.headers.cseq.number,
                served.at
            );
        }
    }
}

fn brief(wish: &Wish) -> String {
    match wish {
        Wish::Request { request, .. } => {
            format!("{} {} body {}", request.method.as_str(), request.headers.cseq.number, !request.body.is_empty())
        }
        Wish::Response { id, response, .. } => {
            let rseq = response.headers.rest.iter().any(|h| matches!(h, Header::RSeq(_)));
            format!("{id:?} {} rseq {rseq} body {}", response.status.code(), !response.body.is_empty())
        }
        Wish::Ack(request) => format!("ACK {}", request.headers.cseq.number),
        other => format!("{other:?}"),
    }
}

#[test]
fn generated_operations_leave_no_session_no_request_and_no_timer_behind() {
    let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<u64>().ok());
    let seeds = match number("OFFHOOK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OFFHOOK_SEQUENCES").unwrap_or(10_000),
    };
    let tell = number("OFFHOOK_SEED").is_some();
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, tell);
            let steps = 5 + world.random(40);
            for _ in 0..steps {
                world.operate();
                let pause = [0, 15, 40, 200, 1000, 7000][world.random(6) as usize];
                world.wait(ms(pause));
            }
            world.finish(seed);
            world.seen
        });
        match run {
            Ok(of_this) => of_this.into_iter().for_each(|(kind, n)| *seen.entry(kind).or_insert(0) += n),
            Err(panic) => {
                println!("replay with OFFHOOK_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{seen:?}");
    assert!(tell || seen.len() == 14, "not everything happened: {seen:?}");
}

//! The signalling of a whole call, both sides, with the codec between them: microseconds a call while 10 to 10 000
//! sessions live (goal ≤ 60 µs, flat within 1.3×), and bytes of a session that is only signalled (goal ≤ 4 KiB).
//!
//! `cargo bench --bench session`
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use offhook::config::{InitiateRate, XmlLimits};
use offhook::jingle::session::{Body, SessionContext, SessionEvent, SessionInput};
use offhook::jingle::sessions::{Callers, SessionId, Sessions, SessionsConfig};
use offhook::wire::candidate::{
    Candidate, CandidateAddr, CandidateKind, CandidateProtocol, Fingerprint, IceTransport, Setup, Transport,
};
use offhook::wire::description::{Description, Parameter, PayloadType, RtpDescription};
use offhook::wire::jid::Jid;
use offhook::wire::jingle::{Content, Creator, Disposition, Jingle, Senders};
use offhook::wire::ns;
use offhook::wire::xml::{Reader, Writer};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Calls of one size, of which the median counts.
const CALLS: u32 = 10_000;

fn payload(id: u8, name: &str, clock_rate_hz: u32, parameters: &[(&str, &str)]) -> PayloadType {
    PayloadType {
        id,
        name: name.into(),
        clock_rate_hz: Some(clock_rate_hz),
        channels: 1,
        parameters: parameters
            .iter()
            .map(|(name, value)| Parameter { name: (*name).into(), value: Some((*value).into()) })
            .collect(),
        ..PayloadType::default()
    }
}

fn content(setup: Setup) -> Content {
    let rtp = RtpDescription {
        media: "audio".into(),
        payload_types: vec![
            payload(111, "opus", 48_000, &[("useinbandfec", "1"), ("minptime", "10")]),
            payload(9, "G722", 8_000, &[]),
            payload(0, "PCMU", 8_000, &[]),
            payload(8, "PCMA", 8_000, &[]),
            payload(101, "telephone-event", 8_000, &[("", "0-15")]),
        ],
        rtcp_mux: true,
        ..RtpDescription::default()
    };
    let ice = IceTransport {
        ufrag: Some("8hhy".into()),
        pwd: Some("asd88fgpdd777uzjYhagZg".into()),
        fingerprints: vec![Fingerprint { hash: "sha-256".into(), value: vec![7; 32], setup: Some(setup) }],
        candidates: vec![candidate(); 2],
        ..IceTransport::default()
    };
    Content {
        creator: Creator::Initiator,
        name: "voice".into(),
        senders: Some(Senders::Both),
        disposition: Disposition::Session,
        description: Some(Description::Rtp(Box::new(rtp))),
        transport: Some(Transport::Ice(Box::new(ice))),
        security: None,
    }
}

fn candidate() -> Candidate {
    Candidate {
        component: 1,
        foundation: "1".into(),
        generation: 0,
        id: Some("el0747fg11".into()),
        addr: CandidateAddr::Ip([10, 0, 1, 1].into()),
        port: 8998,
        priority: 2_130_706_431,
        protocol: CandidateProtocol::Udp,
        tcptype: None,
        kind: CandidateKind::Host,
        related: None,
        network: Some(1),
    }
}

struct Pair {
    sides: [Sessions; 2],
    jids: [Jid; 2],
    now: Instant,
    text: String,
    bytes: usize,
}

impl Pair {
    fn new() -> Self {
        let jids = [Jid::new("romeo@montague.example/orchard").unwrap(), Jid::new("juliet@capulet.example/b").unwrap()];
        let side = |at: usize| {
            let mut context = SessionContext::default();
            context.limits.sessions = 20_000;
            context.limits.pending_per_peer = 20_000;
            // The buckets are not what is measured here.
            let rate = InitiateRate { peer_burst: u32::MAX, total_burst: u32::MAX, ..InitiateRate::default() };
            Sessions::new(SessionsConfig {
                local: jids[at].clone(),
                context,
                callers: Callers::Everyone,
                rate,
                redirect: None,
                seed: [u8::try_from(at).unwrap(); 32],
            })
        };
        let sides = [side(0), side(1)];
        Self { sides, jids, now: Instant::now(), text: String::new(), bytes: 0 }
    }

    /// Carries everything over, sets through the codec, and answers what rings; the responder's handle, once known.
    fn drain(&mut self) -> Option<SessionId> {
        let mut rings = None;
        loop {
            let mut moved = false;
            for from in 0..2 {
                while let Some(t) = self.sides[from].poll_transmit() {
                    moved = true;
                    let input = match t.body {
                        Body::Set(jingle) => {
                            self.text.clear();
                            jingle.write(&mut Writer::new(&mut self.text));
                            self.bytes += self.text.len();
                            let mut r = Reader::new(&self.text, ns::CLIENT, &XmlLimits::default()).unwrap();
                            SessionInput::Set { id: t.id, jingle: Box::new(Jingle::read(&mut r).unwrap()) }
                        }
                        Body::Result => SessionInput::Result { id: t.id },
                        Body::Error(refusal) => panic!("{refusal:?}"),
                    };
                    self.sides[1 - from].handle_input(self.now, &self.jids[from], true, input);
                }
                while let Some((id, event)) = self.sides[from].poll_event() {
                    if matches!(event, SessionEvent::Incoming { .. }) {
                        rings = Some(id);
                    }
                }
            }
            if !moved {
                return rings;
            }
        }
    }

    /// Offer, ringing, accept, one candidate each way: eight IQs with their answers.
    fn call(&mut self) -> SessionId {
        let peer = self.jids[1].clone();
        let ours = self.sides[0].initiate(self.now, peer, None, vec![content(Setup::Actpass)], Vec::new()).unwrap();
        let theirs = self.drain().unwrap();
        let now = self.now;
        self.sides[1].act(theirs, |s| s.ring(now)).unwrap().unwrap();
        self.sides[1].act(theirs, |s| s.accept(now, vec![content(Setup::Passive)], Vec::new())).unwrap().unwrap();
        self.drain();
        for (side, id) in [(0, ours), (1, theirs)] {
            let ice = IceTransport { candidates: vec![candidate()], ..IceTransport::default() };
            self.sides[side]
                .act(id, |s| {
                    let key = s.contents().next().unwrap().key.clone();
                    s.send_transport_info(now, &key, ice)
                })
                .unwrap()
                .unwrap();
        }
        self.drain();
        self.now += Duration::from_millis(1);
        ours
    }

    fn hang_up(&mut self, id: SessionId) {
        let now = self.now;
        self.sides[0].act(id, |s| s.hang_up(now, None)).unwrap().unwrap();
        self.drain();
    }
}

fn main() {
    let region = Region::new(ALLOCATOR);
    let mut pair = Pair::new();
    let empty = region.change();
    for _ in 0..1_000 {
        pair.call();
    }
    let full = region.change();
    // Two sides hold each call. `bytes_allocated` counts growth of reallocations already.
    let grown = (full.bytes_allocated - empty.bytes_allocated) - (full.bytes_deallocated - empty.bytes_deallocated);
    println!("{} bytes a signalled session (goal <= 4096)", grown / 2_000);

    let mut first = None;
    for live in [10_usize, 100, 1_000, 10_000] {
        let mut pair = Pair::new();
        for _ in 0..live {
            pair.call();
        }
        // Each call by itself, so that what else the machine does falls out of the median.
        let mut micros: Vec<f64> = (0..CALLS)
            .map(|_| {
                let start = Instant::now();
                let id = pair.call();
                pair.hang_up(id);
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect();
        micros.sort_by(f64::total_cmp);
        let median = micros[micros.len() / 2];
        let base = *first.get_or_insert(median);
        println!("{live:>6} live: {median:.1} us a call, {:.2}x (goals <= 60, <= 1.3x)", median / base);
    }
}

//! Legs beside `str0m::Rtc`, both in memory and in one run: creation, ICE + DTLS connection, heap, and one 80-byte
//! RTP frame sent and received, at 10, 100 and 1 000 pairs. "stock" is str0m as it comes; "tuned" is its direct API in
//! RTP mode without header extensions, with one shared certificate and one shared DTLS configuration.
//!
//! Goals: creation ≤ 60 µs and connection ≤ 350 µs a side at 1 000 pairs, a frame ≤ 1/4 of str0m tuned, ≤ 20 KB a
//! connected leg, the first call of a process no slower than the second.
//!
//! Each pair and each batch of frames is timed by itself and the medians count, so that another process on the machine
//! disturbs few of the samples.
//!
//! `cargo bench --bench leg`
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use offhook::transport::dtls::Identity;
use offhook::transport::leg::{Leg, LegConfig, LegEvent};
use offhook::transport::warm_up::warm_up;
use offhook::wire::candidate::Candidate;
use offhook::wire::rtp::MediaTime;
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};
use std::alloc::System;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};
use str0m::crypto::{CryptoError, CryptoProvider};
use str0m::media::{MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, Ssrc};
use str0m::{Event, Input, Output, Rtc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ADDRS: [([u8; 4], u16); 2] = [([192, 0, 2, 1], 5000), ([192, 0, 2, 2], 5000)];
const FRAME: [u8; 80] = [0x5a; 80];
const TICK: Duration = Duration::from_millis(20);
/// Sets of pairs for a size: at least this many pairs in all.
const CREATED: usize = 400;
/// Pairs that are timed together when they talk: a reading of the clock is small beside them.
const BATCH: usize = 10;

fn addr(side: usize) -> SocketAddr {
    ADDRS[side].into()
}

/// Two ends of one path, in virtual time, with a network that neither delays nor loses.
trait Pair: Sized {
    /// Both sides with a socket, nothing signalled.
    fn new(now: Instant, seed: u64) -> Self;
    /// Exchanges what signalling carries.
    fn signal(&mut self);
    /// Carries what is waiting; if nothing is, lets time pass to the next timer. True once both are connected.
    fn step(&mut self) -> bool;
    /// One frame each way, and whatever timers are due. How many frames came out.
    fn talk(&mut self, now: Instant, out: &mut Vec<u8>) -> usize;
}

// ---------------------------------------------------------------------------------------------------------- ours

struct Ours {
    sides: [Leg; 2],
    candidates: [Vec<Candidate>; 2],
    connected: [bool; 2],
    now: Instant,
    frames: u32,
}

fn identity() -> Arc<Identity> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    Arc::clone(IDENTITY.get_or_init(|| Arc::new(Identity::generate().unwrap())))
}

impl Ours {
    /// True if there was anything to carry.
    fn carry(&mut self) -> bool {
        let mut moved = false;
        for side in 0..2 {
            while let Some(mut transmit) = self.sides[side].poll_transmit() {
                moved = true;
                let (local, source) = (transmit.destination, transmit.local);
                let _ = self.sides[1 - side].handle_datagram(self.now, local, source, &mut transmit.contents);
            }
            while let Some(event) = self.sides[side].poll_event() {
                match event {
                    LegEvent::LocalCandidate(candidate) => self.candidates[side].push(candidate),
                    LegEvent::Connected { .. } => self.connected[side] = true,
                    LegEvent::Failed(fault) => panic!("{fault}"),
                    _ => {}
                }
            }
        }
        moved
    }
}

impl Pair for Ours {
    fn new(now: Instant, seed: u64) -> Self {
        let side = |at: usize| {
            let mut bytes = [at as u8; 32];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            let mut leg = Leg::new(now, SystemTime::UNIX_EPOCH, bytes, LegConfig::new(at == 0, identity()));
            leg.handle_sockets(now, &[addr(at)]);
            leg
        };
        let candidates = [const { Vec::new() }; 2];
        let mut pair = Self { sides: [side(0), side(1)], candidates, connected: [false; 2], now, frames: 0 };
        pair.carry();
        pair
    }

    fn signal(&mut self) {
        for from in 0..2 {
            let (creds, print) = (self.sides[from].local_credentials(), self.sides[from].local_fingerprint().unwrap());
            self.sides[1 - from].set_remote(self.now, Some(creds), &[print]);
            for candidate in std::mem::take(&mut self.candidates[from]) {
                self.sides[1 - from].add_remote_candidate(self.now, &candidate).unwrap();
            }
        }
    }

    fn step(&mut self) -> bool {
        if !self.carry() && self.connected != [true; 2] {
            let next = self.sides.iter_mut().filter_map(|s| s.poll_timeout()).map(|(at, _)| at).min().unwrap();
            self.now = self.now.max(next);
            self.sides.iter_mut().for_each(|s| s.handle_timeout(next));
        }
        self.connected == [true; 2]
    }

    fn talk(&mut self, now: Instant, out: &mut Vec<u8>) -> usize {
        self.now = now;
        let mut heard = 0;
        for from in 0..2 {
            let time = MediaTime(self.frames * 960);
            let route = self.sides[from].send_rtp(now, 111, false, time, &FRAME, out).unwrap();
            let received = self.sides[1 - from].handle_datagram(now, route.destination, route.local, out);
            heard += usize::from(received.is_some_and(|r| r.payload == FRAME));
        }
        for side in 0..2 {
            if self.sides[side].poll_timeout().is_some_and(|(at, _)| at <= now) {
                self.sides[side].handle_timeout(now);
            }
        }
        self.carry();
        self.frames += 1;
        heard
    }
}

// --------------------------------------------------------------------------------------------------------- str0m

/// Gives each session a handle of one configuration, which str0m's own provider builds (and tests) anew each time.
#[derive(Debug)]
struct SharedDtls(Arc<dimpl::Config>);

struct Instance(dimpl::Dtls);

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Instance")
    }
}

impl DtlsProvider for SharedDtls {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        None
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        _: DtlsVersion,
        _: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let cert = DtlsCert { certificate: cert.certificate.clone(), private_key: cert.private_key.clone() };
        Ok(Box::new(Instance(dimpl::Dtls::new_12(Arc::clone(&self.0), cert, now))))
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }
    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }
    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        self.0.poll_output(buf)
    }
    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }
    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }
    fn is_active(&self) -> bool {
        self.0.is_active()
    }
    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }
    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}

fn stock_provider() -> CryptoProvider {
    str0m::crypto::from_feature_flags()
}

/// Provider and certificate of all tuned sessions.
fn tuned() -> (Arc<CryptoProvider>, DtlsCert) {
    static TUNED: OnceLock<(Arc<CryptoProvider>, DtlsCert)> = OnceLock::new();
    let (provider, cert) = TUNED.get_or_init(|| {
        let cert = stock_provider().dtls_provider.generate_certificate().unwrap();
        let config = dimpl::Config::builder().use_server_cookie(false).build().unwrap();
        let dtls: &'static SharedDtls = Box::leak(Box::new(SharedDtls(Arc::new(config))));
        (Arc::new(CryptoProvider { dtls_provider: dtls, ..stock_provider() }), cert)
    });
    (Arc::clone(provider), DtlsCert { certificate: cert.certificate.clone(), private_key: cert.private_key.clone() })
}

struct Theirs<const TUNED: bool> {
    sides: [Rtc; 2],
    transmits: [VecDeque<(SocketAddr, Vec<u8>)>; 2],
    due: [Option<Instant>; 2],
    connected: [bool; 2],
    heard: usize,
    now: Instant,
    frames: u64,
}

impl<const TUNED: bool> Theirs<TUNED> {
    fn ssrc(side: usize) -> Ssrc {
        Ssrc::from(0x0102_0300 + side as u32)
    }

    fn drain(&mut self, side: usize) {
        loop {
            match self.sides[side].poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.due[side] = Some(at);
                    return;
                }
                Output::Transmit(t) => self.transmits[side].push_back((t.source, t.contents.into())),
                Output::Event(Event::Connected) => self.connected[side] = true,
                Output::Event(Event::RtpPacket(packet)) => self.heard += usize::from(packet.payload[..] == FRAME),
                Output::Event(_) => {}
            }
        }
    }

    fn carry(&mut self) -> bool {
        let mut moved = false;
        for side in 0..2 {
            while let Some((source, bytes)) = self.transmits[side].pop_front() {
                moved = true;
                let receive = Receive::new(Protocol::Udp, source, addr(1 - side), &bytes).unwrap();
                self.sides[1 - side].handle_input(Input::Receive(self.now, receive)).unwrap();
                self.drain(1 - side);
            }
        }
        moved
    }
}

impl<const TUNED: bool> Pair for Theirs<TUNED> {
    fn new(now: Instant, _: u64) -> Self {
        let side = |at: usize| {
            let mut builder = Rtc::builder();
            if TUNED {
                let (provider, cert) = tuned();
                builder = builder.clear_codecs().enable_opus(true, false).set_rtp_mode(true).clear_extension_map();
                builder = builder.set_crypto_provider(provider).set_dtls_cert(cert);
            }
            let mut rtc = builder.build(now);
            rtc.add_local_candidate(str0m::Candidate::host(addr(at), "udp").unwrap());
            let mut api = rtc.direct_api();
            api.set_ice_controlling(at == 0);
            let mid = Mid::from("0");
            api.declare_media(mid, MediaKind::Audio);
            api.declare_stream_tx(Self::ssrc(at), None, mid, None);
            api.expect_stream_rx(Self::ssrc(1 - at), None, mid, None);
            rtc
        };
        Self {
            sides: [side(0), side(1)],
            transmits: [const { VecDeque::new() }; 2],
            due: [None; 2],
            connected: [false; 2],
            heard: 0,
            now,
            frames: 0,
        }
    }

    fn signal(&mut self) {
        for from in 0..2 {
            let api = self.sides[from].direct_api();
            let (creds, print) = (api.local_ice_credentials(), api.local_dtls_fingerprint().clone());
            self.sides[1 - from].add_remote_candidate(str0m::Candidate::host(addr(from), "udp").unwrap());
            let mut api = self.sides[1 - from].direct_api();
            api.set_remote_ice_credentials(creds);
            api.set_remote_fingerprint(print);
        }
        for side in 0..2 {
            // The responder is the DTLS server, as with ours.
            self.sides[side].direct_api().start_dtls(side == 0).unwrap();
            self.sides[side].handle_input(Input::Timeout(self.now)).unwrap();
            self.drain(side);
        }
    }

    fn step(&mut self) -> bool {
        if !self.carry() && self.connected != [true; 2] {
            self.now = self.now.max(self.due.iter().flatten().min().copied().unwrap());
            for side in 0..2 {
                self.sides[side].handle_input(Input::Timeout(self.now)).unwrap();
                self.drain(side);
            }
        }
        self.connected == [true; 2]
    }

    fn talk(&mut self, now: Instant, _: &mut Vec<u8>) -> usize {
        self.now = now;
        self.heard = 0;
        for from in 0..2 {
            let ssrc = Self::ssrc(from);
            let mut api = self.sides[from].direct_api();
            let stream = api.stream_tx(&ssrc).unwrap();
            let (seq, time) = (self.frames.into(), self.frames as u32 * 960);
            stream.write_rtp(RtpWrite::new(Pt::new_with_value(111), seq, time, now, &FRAME[..]));
            self.sides[from].handle_input(Input::Timeout(now)).unwrap();
            self.drain(from);
        }
        self.carry();
        self.frames += 1;
        self.heard
    }
}

// ------------------------------------------------------------------------------------------------------- figures

fn live() -> usize {
    let Stats { bytes_allocated, bytes_deallocated, .. } = ALLOCATOR.stats();
    bytes_allocated - bytes_deallocated
}

fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// What was seen of one kind at one size.
#[derive(Default)]
struct Figures {
    create: Vec<f64>,
    connect: Vec<f64>,
    frame: Vec<f64>,
    heap: usize,
    /// Of each tick, a frame.
    allocations: Vec<f64>,
}

/// Creates and connects `pairs` pairs, all of them step by step side by side.
fn connected<P: Pair>(pairs: usize, figures: &mut Figures) -> Vec<P> {
    let (now, before) = (Instant::now(), live());
    let mut all = Vec::with_capacity(pairs);
    for seed in 0..pairs {
        let begin = Instant::now();
        all.push(P::new(now, seed as u64));
        figures.create.push(micros(begin) / 2.0);
    }
    let mut spent = vec![0.0; pairs];
    for (pair, spent) in all.iter_mut().zip(&mut spent) {
        let begin = Instant::now();
        pair.signal();
        *spent += micros(begin) / 2.0;
    }
    let mut waiting: Vec<usize> = (0..pairs).collect();
    while !waiting.is_empty() {
        waiting.retain(|&at| {
            let begin = Instant::now();
            let done = all[at].step();
            spent[at] += micros(begin) / 2.0;
            !done
        });
    }
    figures.connect.append(&mut spent);
    figures.heap = (live() - before - pairs * size_of::<f64>()) / (2 * pairs);
    all
}

/// One tick of all pairs.
fn tick<P: Pair>(all: &mut [P], now: Instant, out: &mut Vec<u8>, figures: &mut Figures) {
    for batch in all.chunks_mut(BATCH) {
        let (begin, frames) = (Instant::now(), 2 * batch.len());
        let heard: usize = batch.iter_mut().map(|pair| pair.talk(now, out)).sum();
        figures.frame.push(micros(begin) / frames as f64);
        assert_eq!(heard, frames, "a frame was lost");
    }
}

fn size(pairs: usize) -> bool {
    let (mut ours, mut tuned, mut stock) = (Figures::default(), Figures::default(), Figures::default());
    let rounds = CREATED.div_ceil(pairs);
    for round in 0..rounds {
        let mut a: Vec<Ours> = connected(pairs, &mut ours);
        let mut b: Vec<Theirs<true>> = connected(pairs, &mut tuned);
        if round < rounds.div_ceil(4) {
            // Only its cost of starting is of interest; a quarter of the set is enough.
            connected::<Theirs<false>>(pairs.div_ceil(4), &mut stock);
        }
        let start = Instant::now() + Duration::from_secs(2);
        let mut out = Vec::with_capacity(1500);
        // A sample that is noted must not allocate.
        ours.frame.reserve(1 << 16);
        tuned.frame.reserve(1 << 16);
        ours.allocations.reserve(1 << 16);
        tuned.allocations.reserve(1 << 16);
        for frame in 0..20 + (4_000 / pairs).clamp(20, 100) as u32 {
            let now = start + TICK * frame;
            // The first ones fill buffers.
            let mut warm = Figures::default();
            let before = allocations();
            tick(&mut a, now, &mut out, if frame < 20 { &mut warm } else { &mut ours });
            let between = allocations();
            tick(&mut b, now, &mut out, if frame < 20 { &mut warm } else { &mut tuned });
            if frame >= 20 {
                // The median of the ticks: a report or a check that falls into one is not a frame.
                ours.allocations.push((between - before) as f64 / (2 * pairs) as f64);
                tuned.allocations.push((allocations() - between) as f64 / (2 * pairs) as f64);
            }
        }
    }
    let mut met = true;
    let mut line = |what: &str, ours: f64, tuned: f64, stock: f64, goal: f64, limit: String| {
        let mark = if ours <= goal { "met" } else { "MISSED" };
        met &= ours <= goal;
        println!(
            "{pairs:>5} {what:<28} {ours:>9.2} {tuned:>9.2} {stock:>9.2} {:>8.2}x   {limit}: {mark}",
            tuned / ours
        );
    };
    let [create, connect] = [60.0, 350.0];
    let m = |f: &mut Figures| (median(&mut f.create), median(&mut f.connect), median(&mut f.frame));
    let (o, t, s) = (m(&mut ours), m(&mut tuned), m(&mut stock));
    line("create, us a side", o.0, t.0, s.0, create, format!("<= {create}"));
    line("connect, us a side", o.1, t.1, s.1, connect, format!("<= {connect}"));
    line("frame, us send + receive", o.2, t.2, f64::NAN, t.2 / 4.0, "<= 1/4 of tuned".to_owned());
    let kb = |f: &Figures| f.heap as f64 / 1000.0;
    line("KB a connected side", kb(&ours), kb(&tuned), kb(&stock), 20.0, "<= 20".to_owned());
    let (a, b) = (median(&mut ours.allocations), median(&mut tuned.allocations));
    line("allocations a frame", a, b, f64::NAN, 0.1, "0".to_owned());
    met
}

/// First and second call of this process, in microseconds, after a warm-up.
fn calls() {
    let begin = Instant::now();
    warm_up(&identity(), Instant::now());
    let warm_up = micros(begin);
    let call = || {
        let begin = Instant::now();
        let mut pair = Ours::new(begin, 7);
        pair.signal();
        while !pair.step() {}
        micros(begin)
    };
    println!("{warm_up} {} {}", call(), call());
}

fn first_call() -> bool {
    let (mut warm_up, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..21 {
        let output = Command::new(std::env::current_exe().unwrap()).arg("--calls").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let values: Vec<f64> = text.split_whitespace().map(|v| v.parse().unwrap()).collect();
        warm_up.push(values[0]);
        first.push(values[1]);
        second.push(values[2]);
    }
    let [warm_up, first, second] = [warm_up, first, second].map(|mut all| median(&mut all));
    let met = first <= second * 1.1;
    println!(
        "call of a new process, both sides: warm-up {warm_up:.0} us, then the first {first:.0} us, the second \
         {second:.0} us, {:.2}x   <= 1 (10 % is noise): {}",
        first / second,
        if met { "met" } else { "MISSED" }
    );
    met
}

fn main() -> ExitCode {
    if std::env::args().any(|a| a == "--calls") {
        calls();
        return ExitCode::SUCCESS;
    }
    warm_up(&identity(), Instant::now());
    tuned();
    println!("pairs {:<28} {:>9} {:>9} {:>9} {:>9}", "what", "ours", "tuned", "stock", "tuned/ours");
    // Without `--bench` (as `cargo test --benches` runs it) once and small.
    let sizes: &[usize] = if std::env::args().any(|a| a == "--bench") { &[10, 100, 1_000] } else { &[10] };
    let mut met = true;
    for pairs in sizes {
        met &= size(*pairs);
    }
    met &= first_call();
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

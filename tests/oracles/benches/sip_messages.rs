//! Reading and writing an INVITE of 1 kB, ours beside rsipstack's. Runs alternate between the two (ABAB…) and the median of
//! the runs is what each takes, so that what else the machine does falls out. The goal: reading and writing in a third of
//! its time at most.
//!
//! rsipstack keeps headers as text until they are asked for, ours are values at once. So it is measured twice: as it is, and
//! with those headers read that any user agent must look at (Via, From, To, Contact, CSeq, Record-Route).
//!
//! `cargo bench --manifest-path tests/oracles/Cargo.toml`

use offhook::wire::sip::Message;
use rsipstack::sip::headers::Header;
use rsipstack::sip::{parser::parse_message, typed};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Rounds of each; the median of an odd number is one of them.
const ROUNDS: usize = 301;
/// Messages of one round: long enough for the clock.
const MESSAGES: u32 = 200;
/// Of our time into theirs.
const GOAL: f64 = 3.0;

const INVITE: &str = "INVITE sip:600@pbx.example;user=phone SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.44:5060;branch=z9hG4bK9f8d7c6b5a4e3;rport\r\n\
Max-Forwards: 70\r\n\
Record-Route: <sip:proxy.example;lr>\r\n\
From: \"Alice Example\" <sip:alice@pbx.example>;tag=a6c85cf1928301774\r\n\
To: <sip:600@pbx.example>\r\n\
Call-ID: a84b4c76e66710f5a2d8c3@192.0.2.44\r\n\
CSeq: 314159 INVITE\r\n\
Contact: <sip:alice-1a2b3c4d@192.0.2.44:5060;transport=udp;ob>\r\n\
Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY\r\n\
Supported: 100rel, timer, replaces, norefersub\r\n\
Session-Expires: 1800;refresher=uac\r\n\
Min-SE: 90\r\n\
User-Agent: offhook/0.1.0\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 346\r\n\
\r\n\
v=0\r\n\
o=- 3724394400 3724394400 IN IP4 192.0.2.44\r\n\
s=-\r\n\
c=IN IP4 192.0.2.44\r\n\
t=0 0\r\n\
m=audio 40378 RTP/AVP 111 9 8 0 101\r\n\
a=rtpmap:111 opus/48000/2\r\n\
a=fmtp:111 useinbandfec=1;minptime=10\r\n\
a=rtpmap:9 G722/8000\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\n\
a=fmtp:101 0-16\r\n\
a=ptime:20\r\n\
a=rtcp:40379 IN IP4 192.0.2.44\r\n\
a=sendrecv\r\n";

/// What rsipstack reads when it is asked for the headers that every user agent needs.
fn typed_headers(message: &rsipstack::sip::SipMessage) -> usize {
    let rsipstack::sip::SipMessage::Request(request) = message else { return 0 };
    let mut read = 0;
    for header in request.headers.iter() {
        read += match header {
            Header::Via(via) => usize::from(black_box(typed::Via::parse(via.value())).is_ok()),
            Header::From(from) => usize::from(black_box(typed::From::parse(from.value())).is_ok()),
            Header::To(to) => usize::from(black_box(typed::To::parse(to.value())).is_ok()),
            Header::Contact(contact) => usize::from(black_box(typed::Contact::parse(contact.value())).is_ok()),
            Header::CSeq(cseq) => usize::from(black_box(typed::CSeq::parse(cseq.value())).is_ok()),
            Header::RecordRoute(route) => usize::from(black_box(typed::RecordRoute::parse(route.value())).is_ok()),
            _ => 0,
        };
    }
    read
}

/// Nanoseconds a message takes, and its allocations.
struct Taken {
    rounds: Vec<Duration>,
    allocations: usize,
}

impl Taken {
    fn run(&mut self, mut work: impl FnMut()) {
        let region = Region::new(ALLOCATOR);
        let start = Instant::now();
        for _ in 0..MESSAGES {
            work();
        }
        self.rounds.push(start.elapsed());
        self.allocations = region.change().allocations / MESSAGES as usize;
    }

    fn nanoseconds(&mut self) -> f64 {
        self.rounds.sort();
        self.rounds[self.rounds.len() / 2].as_nanos() as f64 / f64::from(MESSAGES)
    }
}

fn main() {
    let bytes = INVITE.as_bytes();
    let ours = Message::parse(bytes).expect("our parser reads it");
    let theirs = parse_message(bytes).expect("their parser reads it");
    assert_eq!(typed_headers(&theirs), 6, "their typed headers read it");
    let rsipstack::sip::SipMessage::Request(request) = &theirs else { panic!() };

    let mut all: [Taken; 5] = std::array::from_fn(|_| Taken { rounds: Vec::new(), allocations: 0 });
    let mut out = Vec::with_capacity(2048);
    for _ in 0..ROUNDS {
        let [read, read_theirs, read_typed, write, write_theirs] = &mut all;
        read.run(|| drop(black_box(Message::parse(black_box(bytes)))));
        read_theirs.run(|| drop(black_box(parse_message(black_box(bytes)))));
        read_typed.run(|| {
            if let Ok(message) = parse_message(black_box(bytes)) {
                black_box(typed_headers(&message));
            }
        });
        write.run(|| {
            out.clear();
            black_box(&ours).write(&mut out);
            black_box(&out);
        });
        write_theirs.run(|| drop(black_box(black_box(request).to_bytes())));
    }
    println!("an INVITE of {} bytes; median of {ROUNDS} rounds of {MESSAGES}", bytes.len());
    let names = [
        "offhook reads, typed",
        "rsipstack reads, text",
        "rsipstack reads, typed",
        "offhook writes",
        "rsipstack writes",
    ];
    let mut taken = [0.0; 5];
    for ((name, one), taken) in names.iter().zip(&mut all).zip(&mut taken) {
        *taken = one.nanoseconds();
        println!("{name:<24} {:>8.0} ns {:>4} allocations", *taken, one.allocations);
    }
    let [read, read_theirs, read_typed, write, write_theirs] = taken;
    let typed = (read_typed + write_theirs) / (read + write);
    let text = (read_theirs + write_theirs) / (read + write);
    println!(
        "read and write: {typed:.1} times as fast as rsipstack typed, {text:.1} times as fast as rsipstack's text"
    );
    println!(
        "reading alone: {:.1} times typed, {:.1} times text; writing: {:.1} times",
        read_typed / read,
        read_theirs / read,
        write_theirs / write
    );
    let met = typed >= GOAL;
    println!("goal: {GOAL} times; {}", if met { "met" } else { "NOT met" });
}

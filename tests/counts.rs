//! What things cost in allocations and bytes of heap, against the table below. Nothing here looks at a clock, so the
//! figures are the same on every machine: a change that makes something dearer changes the table in the same commit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/net.rs"]
mod net;

use allocation_counter::measure;
use offhook::config::XmlLimits;
use offhook::jingle::session::{SessionContext, SessionInput};
use offhook::jingle::sessions::{Callers, Sessions, SessionsConfig};
use offhook::wire::jid::Jid;
use offhook::wire::jingle::{Jingle, Sid};
use offhook::wire::ns;
use offhook::wire::rtp::MediaTime;
use offhook::wire::stanza::{IqKind, IqPayload, Stanza};
use offhook::wire::xml::Writer;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Allocations that reading a stanza of `tests/fixtures/call` takes; the goal is 30. Writing takes none.
const READ: [(&str, u64); 8] = [
    ("1-propose.xml", 13),
    ("2-proceed.xml", 10),
    ("3-session-initiate.xml", 29),
    ("4-ringing.xml", 9),
    ("5-transport-info.xml", 13),
    ("6-session-accept.xml", 24),
    ("7-transport-info.xml", 13),
    ("8-session-terminate.xml", 10),
];
/// Bytes of heap of a session that is only signalled, of one side of one call; the goal is 4 096.
const SIGNALLED_INITIATOR: i64 = 3_785;
/// The same for the side that was called.
const SIGNALLED_RESPONDER: i64 = 3_817;
/// Bytes of a connected leg, itself and its heap, DTLS client and server; the goal is 20 000.
const LEG: [i64; 2] = [20_134, 18_921];
/// Bytes may differ by this share: capacities follow what the random parts of a handshake need.
const TOLERANCE_PERCENT: i64 = 3;

fn fixture(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/call");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn parse(text: &str) -> Stanza {
    Stanza::parse(text, ns::CLIENT, &XmlLimits::default()).unwrap()
}

fn holds(what: &str, found: i64, table: i64) {
    println!("{what}: {found} bytes");
    let most = table + table * TOLERANCE_PERCENT / 100;
    assert!(found <= most, "{what}: {found} bytes; the table has {table}");
    assert!(found * 100 >= table * 90, "{what}: only {found} bytes; put that into the table, which has {table}");
}

#[test]
fn reading_a_stanza_takes_the_allocations_of_the_table_and_writing_none() {
    let mut out = String::with_capacity(64 * 1024);
    let mut found = Vec::new();
    for (name, _) in READ {
        let text = fixture(name);
        let mut stanza = None;
        let read = measure(|| stanza = Some(parse(&text))).count_total;
        let stanza = stanza.unwrap();
        let written = measure(|| {
            out.clear();
            stanza.write(&mut Writer::new(&mut out));
        });
        assert_eq!(written.count_total, 0, "writing {name}");
        found.push((name, read));
    }
    assert_eq!(found, READ);
}

#[test]
fn a_frame_through_two_legs_takes_no_allocation() {
    let mut net = connected();
    let (now, addrs) = (net.now, [net.peers[0].addr, net.peers[1].addr]);
    let mut out = Vec::with_capacity(1500);
    let frames = measure(|| {
        for frame in 0..500u32 {
            for from in 0..2 {
                let time = MediaTime(frame * 960);
                net.peers[from].leg.send_rtp(now, 111, false, time, &[0x11; 80], &mut out).unwrap();
                let to = &mut net.peers[1 - from].leg;
                assert!(to.handle_datagram(now, addrs[1 - from], addrs[from], &mut out).is_some());
                assert!(to.poll_timeout().is_some());
            }
        }
    });
    assert_eq!(frames.count_total, 0, "{frames:?}");
}

fn connected() -> net::Net {
    let mut net = net::Net::new(&net::Options::default());
    net.connect(Duration::from_secs(5)).unwrap();
    net.talk(50);
    net
}

#[test]
fn a_connected_leg_takes_the_bytes_of_the_table() {
    let net::Net { peers: [a, b], .. } = connected();
    for (name, leg, table) in [("DTLS client", a.leg, LEG[0]), ("DTLS server", b.leg, LEG[1])] {
        let inline = i64::try_from(size_of_val(&leg)).unwrap();
        holds(name, inline - measure(|| drop(leg)).bytes_current, table);
    }
}

/// One side, which talks with nobody: what the other would answer comes from the fixtures.
fn side() -> (Sessions, Jid) {
    let mut context = SessionContext::default();
    context.limits.sessions = 1_000;
    context.limits.pending_per_peer = 1_000;
    let rate = offhook::config::InitiateRate { peer_burst: 1_000, total_burst: 1_000, ..Default::default() };
    let local = Jid::new("caller@offhook.example/a7Qd2").unwrap();
    let sessions = Sessions::new(SessionsConfig {
        local,
        context,
        callers: Callers::Everyone,
        rate,
        redirect: None,
        seed: [1; 32],
    });
    (sessions, Jid::new("callee@offhook.example/k1Zp9").unwrap())
}

fn jingle(name: &str, sid: &Sid) -> Box<Jingle> {
    let Stanza::Iq(iq) = parse(&fixture(name)) else { panic!() };
    let IqKind::Set(IqPayload::Jingle(mut jingle)) = iq.kind else { panic!() };
    jingle.sid = sid.clone();
    jingle
}

/// Bytes that `call` leaves behind for each of a hundred calls.
fn each(mut call: impl FnMut(u32)) -> i64 {
    const CALLS: u32 = 100;
    // Queues and indices have grown to their size.
    call(CALLS);
    measure(|| (0..CALLS).for_each(&mut call)).bytes_current / i64::from(CALLS)
}

#[test]
fn a_signalled_session_takes_the_bytes_of_the_table() {
    let now = Instant::now();
    let drain = |sessions: &mut Sessions| {
        let mut sets = Vec::new();
        while let Some(transmit) = sessions.poll_transmit() {
            sets.push(transmit.id);
        }
        while sessions.poll_event().is_some() {}
        sets
    };
    let (mut sessions, peer) = side();
    let initiator = each(|_| {
        let offer = jingle("3-session-initiate.xml", &Sid("x".to_owned()));
        let id = sessions.initiate(now, peer.clone(), None, offer.contents, offer.groups).unwrap();
        let sid = sessions.session(id).unwrap().sid().clone();
        for id in drain(&mut sessions) {
            sessions.handle_input(now, &peer, true, SessionInput::Result { id });
        }
        let accept = jingle("6-session-accept.xml", &sid);
        sessions.handle_input(now, &peer, true, SessionInput::Set { id: "a".to_owned(), jingle: accept });
        drain(&mut sessions);
    });
    assert_eq!(sessions.len(), 101);
    let (mut sessions, peer) = side();
    let responder = each(|call| {
        let offer = jingle("3-session-initiate.xml", &Sid(format!("{call:036}")));
        let (sid, id) = (offer.sid.clone(), "o".to_owned());
        sessions.handle_input(now, &peer, true, SessionInput::Set { id, jingle: offer });
        let id = sessions.find(&peer, &sid).unwrap();
        let answer = jingle("6-session-accept.xml", &sid);
        sessions.act(id, |s| s.accept(now, answer.contents, answer.groups)).unwrap().unwrap();
        for id in drain(&mut sessions) {
            sessions.handle_input(now, &peer, true, SessionInput::Result { id });
        }
    });
    assert_eq!(sessions.len(), 101);
    holds("initiator", initiator, SIGNALLED_INITIATOR);
    holds("responder", responder, SIGNALLED_RESPONDER);
}

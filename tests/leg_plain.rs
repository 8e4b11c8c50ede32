//! Legs without ICE: who is believed (threat: RTP Bleed and its kin), RTCP on a port of its own, keys of signalling.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/net.rs"]
mod net;

use net::{Net, Options};
use offhook::transport::leg::{CandidateFault, Carrier, Leg, LegConfig, LegEvent, Protection, SdesKeys};
use offhook::transport::path::AddressFault;
use offhook::transport::sdes::SdesKey;
use offhook::transport::srtp::{SrtpProfile, SrtpSender};
use offhook::wire::candidate::CandidateKind;
use offhook::wire::rtp::{MediaTime, RtpHeader, SeqNo, Ssrc};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

const OURS: &str = "192.0.2.1:5000";
const OUR_RTCP: &str = "192.0.2.1:5001";
/// What the description says.
const SDP: &str = "192.0.2.10:4000";
/// The same host behind a NAT of its own.
const SAME_HOST: &str = "192.0.2.10:4444";
/// The peer behind a NAT.
const NAT: &str = "198.51.100.7:9999";
const EVIL: &str = "203.0.113.66:666";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

struct Rig {
    leg: Leg,
    now: Instant,
    seq: u16,
    key: Option<SrtpSender>,
    last: Vec<u8>,
}

impl Rig {
    fn new(key: Option<SdesKeys>) -> Self {
        let now = Instant::now();
        let mut config = LegConfig::new(true, net::identity());
        config.carrier = Carrier::Plain { lab: false };
        let theirs = key.as_ref().map(|k| SrtpSender::new(k.profile, &k.remote.0, &k.remote.1).unwrap());
        config.protection = match key {
            Some(keys) => Protection::Sdes(Some(Box::new(keys))),
            None => Protection::None,
        };
        let mut leg = Leg::new(now, SystemTime::UNIX_EPOCH, [3; 32], config);
        leg.handle_sockets(now, &[addr(OURS), addr(OUR_RTCP)]);
        leg.set_clock_rates(8_000, &[(0, 8_000), (101, 8_000)]);
        Self { leg, now, seq: 100, key: theirs, last: Vec::new() }
    }

    fn signalled(key: Option<SdesKeys>) -> Self {
        let mut rig = Self::new(key);
        rig.leg.set_plain_remote(rig.now, addr(SDP), None).unwrap();
        rig
    }

    /// A packet of the peer, protected where the leg has keys.
    fn genuine(&mut self) -> Vec<u8> {
        self.seq += 1;
        let mut packet = rtp(0, self.seq, 0x1111);
        if let Some(key) = &mut self.key {
            key.protect_rtp(&mut packet).unwrap();
        }
        self.last.clone_from(&packet);
        packet
    }

    fn take(&mut self, source: &str, mut packet: Vec<u8>) -> bool {
        self.leg.handle_datagram(self.now, addr(OURS), addr(source), &mut packet).is_some()
    }

    fn hear(&mut self, source: &str, packets: usize) -> usize {
        (0..packets)
            .filter(|_| {
                let packet = self.genuine();
                self.take(source, packet)
            })
            .count()
    }

    fn target(&mut self) -> Option<String> {
        let mut out = Vec::new();
        let route = self.leg.send_rtp(self.now, 0, false, MediaTime(0), &[0; 160], &mut out)?;
        assert_eq!(route.local, addr(OURS));
        Some(route.destination.to_string())
    }
}

fn rtp(payload_type: u8, seq: u16, ssrc: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let header = RtpHeader {
        marker: false,
        payload_type,
        seq: SeqNo(seq),
        time: MediaTime(u32::from(seq) * 160),
        ssrc: Ssrc(ssrc),
    };
    header.write(&mut out);
    out.extend([0x55; 160]);
    out
}

/// Source, packets, how many of them are the peer's.
type Step = (&'static str, usize, usize);

/// What is heard from where and in which order, and where we send to in the end.
const MATRIX: &[(&str, &[Step], &str)] = &[
    ("the peer is where it says", &[(SDP, 10, 10)], SDP),
    ("a stranger after the first packet", &[(SDP, 1, 1), (EVIL, 1000, 0), (SDP, 5, 5)], SDP),
    ("a stranger within the window", &[(EVIL, 4, 0), (SDP, 1, 1), (EVIL, 1000, 0)], SDP),
    ("the peer behind a NAT", &[(NAT, 5, 1), (NAT, 10, 10)], NAT),
    ("a stranger after a NAT is learnt", &[(NAT, 5, 1), (EVIL, 1000, 0), (NAT, 3, 3)], NAT),
    ("the peer's own host behind another port", &[(EVIL, 4, 0), (SAME_HOST, 1, 1), (EVIL, 100, 0)], SAME_HOST),
    ("who is heard most", &[(EVIL, 1, 0), (NAT, 4, 1), (EVIL, 1000, 0), (NAT, 2, 2)], NAT),
    ("who was signalled comes late and counts all the same", &[(EVIL, 5, 1), (SDP, 1, 1), (EVIL, 1000, 0)], SDP),
    ("who was learnt wrongly never comes back", &[(NAT, 5, 1), (SDP, 1, 1), (NAT, 100, 0), (EVIL, 100, 0)], SDP),
];

#[test]
fn after_the_first_packets_one_source_counts_and_no_other() {
    for (what, steps, target) in MATRIX {
        let mut rig = Rig::signalled(None);
        assert_eq!(rig.target().as_deref(), Some(SDP), "{what}: sent to the description's address first");
        for (source, packets, taken) in *steps {
            assert_eq!(rig.hear(source, *packets), *taken, "{what}: from {source}");
        }
        assert_eq!(rig.target().as_deref(), Some(*target), "{what}");
    }
}

#[test]
fn nothing_is_sent_to_a_source_that_only_might_be_the_peer() {
    let mut rig = Rig::signalled(None);
    for _ in 0..4 {
        assert_eq!(rig.hear(EVIL, 1), 0);
        assert_eq!(rig.target().as_deref(), Some(SDP));
    }
}

#[test]
fn what_is_no_packet_of_the_call_decides_nothing() {
    let mut rig = Rig::signalled(None);
    for seq in 0..1000 {
        // Payload type 96 was not agreed on; version 1; too short.
        assert!(!rig.take(EVIL, rtp(96, seq, 9)));
        assert!(!rig.take(EVIL, vec![0x40; 172]));
        assert!(!rig.take(EVIL, vec![0x80, 0, 0]));
    }
    assert_eq!(rig.hear(NAT, 5), 1);
    assert_eq!(rig.target().as_deref(), Some(NAT));
}

#[test]
fn before_the_peer_is_signalled_nobody_is_heard() {
    let mut rig = Rig::new(None);
    assert_eq!(rig.hear(EVIL, 100), 0);
    assert_eq!(rig.target(), None);
    rig.leg.set_plain_remote(rig.now, addr(SDP), None).unwrap();
    assert_eq!(rig.hear(SDP, 3), 3);
}

#[test]
fn another_signalled_address_opens_learning_anew_and_the_same_does_not() {
    let mut rig = Rig::signalled(None);
    assert_eq!(rig.hear(NAT, 6), 2);
    rig.leg.set_plain_remote(rig.now, addr(SDP), None).unwrap();
    assert_eq!(rig.target().as_deref(), Some(NAT));
    assert_eq!(rig.hear(EVIL, 10), 0);
    let moved = "192.0.2.20:7000";
    rig.leg.set_plain_remote(rig.now, addr(moved), None).unwrap();
    assert_eq!(rig.target().as_deref(), Some(moved));
    assert_eq!(rig.hear(moved, 2), 2);
    assert_eq!(rig.hear(NAT, 10), 0);
}

#[test]
fn a_learnt_source_is_told_as_a_change_of_path() {
    let mut rig = Rig::signalled(None);
    rig.hear(NAT, 5);
    let mut told = Vec::new();
    while let Some(event) = rig.leg.poll_event() {
        told.push(event);
    }
    assert!(matches!(&told[0], LegEvent::Connected { remote: CandidateKind::Host, profile: None, .. }), "{told:?}");
    assert!(
        matches!(&told[1], LegEvent::PathChanged { remote: CandidateKind::Prflx, path, .. } if path.remote == addr(NAT)),
        "{told:?}"
    );
    assert_eq!(told.len(), 2);
}

fn keys(profile: SrtpProfile) -> SdesKeys {
    let pair = || SdesKey::generate(profile).unwrap().split();
    SdesKeys { profile, local: pair(), remote: pair() }
}

#[test]
fn with_srtp_the_tag_is_checked_before_anything_is_learnt() {
    for profile in SrtpProfile::ALL {
        let mut rig = Rig::signalled(Some(keys(profile)));
        for seq in 0..1000 {
            assert!(!rig.take(EVIL, rtp(0, seq, 0x1111)));
        }
        assert_eq!(rig.target().as_deref(), Some(SDP));
        // One authentic packet is enough, wherever it comes from.
        assert_eq!(rig.hear(NAT, 1), 1);
        assert_eq!(rig.target().as_deref(), Some(NAT));
        let replayed = rig.last.clone();
        assert!(!rig.take(EVIL, replayed.clone()));
        assert!(!rig.take(NAT, replayed));
        // What is authentic but comes from elsewhere is not followed: strict source.
        assert_eq!(rig.hear(EVIL, 5), 0);
        assert_eq!(rig.target().as_deref(), Some(NAT));
        assert_eq!(rig.hear(NAT, 5), 5);
    }
}

#[test]
fn a_hundred_thousand_forgeries_do_not_end_the_call() {
    let mut rig = Rig::signalled(Some(keys(SrtpProfile::AesCm128HmacSha1_80)));
    rig.hear(SDP, 1);
    for seq in 0..100_000u32 {
        assert!(!rig.take(SDP, rtp(0, seq as u16, 0x1111)));
    }
    assert_eq!(rig.hear(SDP, 50), 50);
    assert!(rig.leg.stats(rig.now).dropped_datagrams >= 100_000);
}

#[test]
fn reports_go_from_and_to_the_next_port_or_the_one_that_is_named() {
    for (named, expected) in [(None, "192.0.2.10:4001"), (Some("192.0.2.11:4100"), "192.0.2.11:4100")] {
        let mut rig = Rig::new(None);
        rig.leg.set_plain_remote(rig.now, addr(SDP), named.map(addr)).unwrap();
        let report = next_report(&mut rig);
        assert_eq!((report.local, report.destination), (addr(OUR_RTCP), addr(expected)));
    }
    let mut rig = Rig::signalled(None);
    rig.leg.set_rtcp_mux(true);
    let report = next_report(&mut rig);
    assert_eq!((report.local, report.destination), (addr(OURS), addr(SDP)));
}

fn next_report(rig: &mut Rig) -> offhook::transport::path::Transmit {
    for _ in 0..100 {
        if let Some(report) = rig.leg.poll_transmit() {
            return report;
        }
        let (at, _) = rig.leg.poll_timeout().unwrap();
        rig.now = at;
        rig.leg.handle_timeout(at);
    }
    panic!("no report in a hundred turns");
}

#[test]
fn reports_on_a_port_of_their_own_count_only_from_the_peer() {
    // Receiver report of 0x1111 without blocks, then a BYE.
    let bye = [0x80, 201, 0, 1, 0, 0, 0x11, 0x11, 0x81, 203, 0, 1, 0, 0, 0x11, 0x11];
    let told = |rig: &mut Rig, local: &str, source: &str| {
        let mut bytes = bye.to_vec();
        rig.leg.handle_datagram(rig.now, addr(local), addr(source), &mut bytes);
        std::iter::from_fn(|| rig.leg.poll_event()).any(|e| matches!(e, LegEvent::Bye(_)))
    };
    for source in ["203.0.113.66:4001", EVIL, "203.0.113.66:4000"] {
        let mut rig = Rig::signalled(None);
        rig.hear(SDP, 3);
        assert!(!told(&mut rig, OUR_RTCP, source), "{source}");
        assert!(!told(&mut rig, OURS, source), "{source}");
    }
    for (heard, source) in [(SDP, "192.0.2.10:4001"), (NAT, "198.51.100.7:20000")] {
        let mut rig = Rig::signalled(None);
        rig.hear(heard, 6);
        assert!(told(&mut rig, OUR_RTCP, source), "{source}");
        // Settled: a second one of the same host is a stranger.
        assert!(!told(&mut rig, OUR_RTCP, &format!("{}:31000", addr(source).ip())));
    }
}

#[test]
fn rtp_on_the_port_of_reports_is_nobodys() {
    let mut rig = Rig::signalled(None);
    let mut packet = rig.genuine();
    assert!(rig.leg.handle_datagram(rig.now, addr(OUR_RTCP), addr(SDP), &mut packet).is_none());
}

#[test]
fn addresses_of_this_machine_are_only_sent_to_in_a_laboratory() {
    let mut rig = Rig::new(None);
    for (bad, fault) in [
        ("127.0.0.1:53", AddressFault::Loopback),
        ("[::1]:53", AddressFault::Loopback),
        ("224.0.0.1:5000", AddressFault::Multicast),
        ("0.0.0.0:5000", AddressFault::Unspecified),
        ("192.0.2.1:0", AddressFault::NoPort),
    ] {
        let told = rig.leg.set_plain_remote(rig.now, addr(bad), None);
        assert_eq!(told, Err(CandidateFault::Address(fault)), "{bad}");
    }
    assert_eq!(rig.target(), None);
}

#[test]
fn keys_come_with_the_answer_and_change_without_a_gap() {
    let profile = SrtpProfile::AesCm128HmacSha1_80;
    let first = keys(profile);
    let mut rig = Rig::new(Some(first.clone()));
    let mut config = LegConfig::new(true, net::identity());
    config.carrier = Carrier::Plain { lab: false };
    config.protection = Protection::Sdes(None);
    rig.leg = Leg::new(rig.now, SystemTime::UNIX_EPOCH, [4; 32], config);
    rig.leg.handle_sockets(rig.now, &[addr(OURS)]);
    rig.leg.set_plain_remote(rig.now, addr(SDP), None).unwrap();
    assert_eq!(rig.target(), None, "nothing goes out without keys");
    assert_eq!(rig.hear(SDP, 3), 0);
    rig.leg.set_sdes(rig.now, first.clone());
    assert_eq!(rig.hear(SDP, 3), 3);
    let mut out = Vec::new();
    for _ in 0..3 {
        rig.leg.send_rtp(rig.now, 0, false, MediaTime(0), &[7; 20], &mut out).unwrap();
    }
    // Only their key changes: what we send goes on under the same key and must not begin anew.
    let theirs = SdesKey::generate(profile).unwrap().split();
    let second = SdesKeys { remote: theirs.clone(), ..first.clone() };
    rig.leg.set_sdes(rig.now, second.clone());
    rig.leg.set_sdes(rig.now, second.clone());
    assert_eq!(rig.hear(SDP, 3), 0, "the old key is no more");
    rig.key = Some(SrtpSender::new(profile, &theirs.0, &theirs.1).unwrap());
    assert_eq!(rig.hear(SDP, 3), 3);
    assert!(rig.leg.send_rtp(rig.now, 0, false, MediaTime(0), &[7; 20], &mut out).is_some());
    // Another suite altogether.
    let third = keys(SrtpProfile::AeadAes256Gcm);
    rig.key = Some(SrtpSender::new(third.profile, &third.remote.0, &third.remote.1).unwrap());
    rig.leg.set_sdes(rig.now, third);
    assert_eq!(rig.hear(SDP, 3), 3);
}

#[test]
fn keys_of_a_wrong_length_end_the_leg() {
    let mut config = LegConfig::new(true, net::identity());
    config.carrier = Carrier::Plain { lab: false };
    config.protection = Protection::Sdes(None);
    let mut rig = Rig::new(None);
    rig.leg = Leg::new(rig.now, SystemTime::UNIX_EPOCH, [4; 32], config);
    let short = (vec![0; 3], vec![0; 14]);
    let bad = SdesKeys { profile: SrtpProfile::AesCm128HmacSha1_80, local: short.clone(), remote: short };
    rig.leg.set_sdes(rig.now, bad);
    assert!(matches!(rig.leg.poll_event(), Some(LegEvent::Failed(_))));
}

#[test]
fn dtls_without_ice_connects_in_both_roles_and_a_stranger_cannot_race_it() {
    for answer_active in [false, true] {
        let mut net = Net::new(&Options {
            answer_active,
            configure: |_, config| config.carrier = Carrier::Plain { lab: true },
            ..Options::default()
        });
        for _ in 0..100 {
            for target in 0..2 {
                let destination = net.peers[target].addr;
                let mut hello = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 1];
                hello.resize(73, 0);
                net.inject("6.6.6.6:6666".parse().unwrap(), destination, hello);
            }
            net.run_for(Duration::from_millis(10));
        }
        assert!(net.both_connected(), "{answer_active} {:?}", net.peers[0].events);
        net.talk(10);
        for peer in &net.peers {
            assert_eq!(peer.received.len(), 10);
            assert!(peer.has(|e| matches!(e, LegEvent::Connected { fingerprint: Some(_), profile: Some(_), .. })));
        }
        assert!(net.strays.is_empty());
    }
}

#[test]
fn an_offer_with_ice_goes_on_without_it_where_the_answer_has_none() {
    let mut net = Net::unsignalled(&Options {
        configure: |index, config| {
            if index == 1 {
                config.carrier = Carrier::Plain { lab: true };
            }
        },
        ..Options::default()
    });
    let now = net.now;
    let local = net.peers[0].addr;
    net.peers[0].leg.give_up_ice(now, local);
    for (from, to) in [(0, 1), (1, 0)] {
        let print: Vec<_> = net.peers[from].leg.local_fingerprint().into_iter().collect();
        let there = net.peers[from].addr;
        net.peers[to].leg.set_remote(now, None, &print);
        net.peers[to].leg.set_plain_remote(now, there, None).unwrap();
        net.peers[to].leg.set_rtcp_mux(true);
    }
    net.run_for(Duration::from_secs(2));
    assert!(net.both_connected(), "{:?}", net.peers[0].events);
    net.talk(10);
    assert!(net.peers.iter().all(|peer| peer.received.len() == 10));
}

//! Legs under attack and on bad paths, in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/net.rs"]
mod net;

use net::{Net, Options};
use offhook::transport::leg::{CandidateFault, Carrier, Leg, LegConfig, LegEvent, LegFault, Protection, SdesKeys};
use offhook::transport::path::AddressFault;
use offhook::transport::srtp::SrtpProfile;
use offhook::wire::candidate::{Candidate, CandidateAddr, CandidateKind, CandidateProtocol};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

const MS: Duration = Duration::from_millis(1);

fn candidate(addr: &str) -> Candidate {
    let addr: SocketAddr = addr.parse().unwrap();
    Candidate {
        component: 1,
        foundation: "1".into(),
        generation: 0,
        id: None,
        addr: CandidateAddr::Ip(addr.ip()),
        port: addr.port(),
        priority: 2_130_706_431,
        protocol: CandidateProtocol::Udp,
        tcptype: None,
        kind: CandidateKind::Host,
        related: None,
        network: None,
    }
}

fn connected(options: &Options) -> Net {
    let mut net = Net::new(options);
    net.connect(Duration::from_secs(10)).expect("connected");
    net
}

/// Both sides can still be heard.
fn assert_alive(net: &mut Net) {
    let before = [net.peers[0].received.len(), net.peers[1].received.len()];
    net.talk(5);
    for (peer, before) in net.peers.iter().zip(before) {
        assert_eq!(peer.received.len(), before + 5, "{:?}", peer.events);
        assert!(peer.failed().is_none());
    }
}

/// A ClientHello with one cipher suite, 67 bytes.
fn client_hello(suite: u16) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend([0x42; 32]);
    body.extend([0, 0, 0, 2]);
    body.extend(suite.to_be_bytes());
    body.extend([1, 0]);
    let mut out = vec![22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend((body.len() as u16 + 12).to_be_bytes());
    out.extend([1, 0, 0, body.len() as u8, 0, 0, 0, 0, 0, 0, 0, body.len() as u8]);
    out.extend(body);
    out
}

#[test]
fn a_stranger_cannot_win_the_race_for_the_handshake() {
    let payloads = [
        client_hello(0x0000),
        client_hello(0xc02b),
        vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40],
        // HelloRequest: a handshake record that no one expects.
        vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for payload in &payloads {
        for answer_active in [false, true] {
            let mut net = Net::new(&Options { answer_active, ..Options::default() });
            for tick in 0..1000 {
                for target in 0..2 {
                    let destination = net.peers[target].addr;
                    net.inject("6.6.6.6:6666".parse().unwrap(), destination, payload.clone());
                }
                net.run_for(5 * MS);
                if tick >= 60 {
                    assert!(net.both_connected(), "connected in 300 ms");
                }
            }
            assert_alive(&mut net);
            assert!(net.peers.iter().all(|p| p.leg.stats(net.now).dropped_datagrams >= 990));
            assert!(net.strays.is_empty(), "the stranger got an answer");
        }
    }
}

#[test]
fn a_forged_alert_from_the_peers_own_address_does_not_end_the_handshake() {
    let mut net = Net::new(&Options::default());
    let alert = vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];
    for _ in 0..80 {
        for target in 0..2 {
            let (source, destination) = (net.peers[1 - target].addr, net.peers[target].addr);
            net.inject(source, destination, alert.clone());
        }
        net.run_for(5 * MS);
    }
    assert!(net.both_connected());
    assert_alive(&mut net);
}

#[test]
fn a_thousand_injected_candidates_reach_few_targets_and_each_a_few_times() {
    let mut net = Net::new(&Options::default());
    let mut refused = 0;
    for n in 0..1000u32 {
        let victim = candidate(&format!("198.51.{}.{}:9", 100 + n / 250, 1 + n % 250));
        let now = net.now;
        match net.peers[1].leg.add_remote_candidate(now, &victim) {
            Ok(()) => {}
            Err(CandidateFault::TooMany(32)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    // One of the 32 is the peer itself.
    assert_eq!(refused, 1000 - 31);
    net.run_for(Duration::from_secs(60));
    let mut targets = BTreeMap::new();
    for (_, stray) in &net.strays {
        *targets.entry(stray.destination).or_insert(0) += 1;
    }
    assert!(targets.len() <= 32, "{}", targets.len());
    assert!(targets.values().all(|count| *count <= 9), "{targets:?}");
    let bytes: usize = net.strays.iter().map(|(_, t)| t.contents.len()).sum();
    println!("{} targets, {} datagrams, {bytes} bytes", targets.len(), net.strays.len());
    assert_alive(&mut net);
}

#[test]
fn candidates_that_may_not_be_sent_to_are_refused_and_odd_ones_left_unused() {
    let mut net = Net::new(&Options::default());
    let now = net.now;
    let leg = &mut net.peers[0].leg;
    for (addr, fault) in [
        ("127.0.0.1:5000", AddressFault::Loopback),
        ("[::1]:5000", AddressFault::Loopback),
        ("224.0.0.5:5000", AddressFault::Multicast),
        ("255.255.255.255:5000", AddressFault::Multicast),
        ("0.0.0.0:5000", AddressFault::Unspecified),
        ("[fe80::1]:5000", AddressFault::LinkLocal),
        ("203.0.113.1:0", AddressFault::NoPort),
    ] {
        assert_eq!(leg.add_remote_candidate(now, &candidate(addr)), Err(CandidateFault::Address(fault)), "{addr}");
    }
    let tcp = Candidate { protocol: CandidateProtocol::Tcp, port: 9, ..candidate("203.0.113.1:1") };
    let rtcp = Candidate { component: 2, ..candidate("203.0.113.2:5001") };
    for _ in 0..100 {
        assert_eq!(leg.add_remote_candidate(now, &tcp), Ok(()));
        assert_eq!(leg.add_remote_candidate(now, &rtcp), Ok(()));
    }
    net.connect(Duration::from_secs(5)).expect("connected");
    net.run_for(Duration::from_secs(5));
    assert!(net.strays.is_empty(), "{:?}", net.strays);
}

#[test]
fn a_candidate_behind_a_name_is_resolved_outside() {
    let mut net = Net::unsignalled(&Options::default());
    let name = "3f2b8e4c.local".to_owned();
    let hidden = Candidate { addr: CandidateAddr::Mdns(name.clone()), ..candidate("192.0.2.2:5000") };
    let now = net.now;
    net.peers[0].leg.add_remote_candidate(now, &hidden).unwrap();
    net.drain();
    assert!(net.peers[0].has(|e| *e == LegEvent::Resolve(name.clone())));
    net.peers[0].leg.resolved(now, "another.local", &["192.0.2.9".parse().unwrap()]);
    net.peers[0].leg.resolved(now, &name, &["192.0.2.2".parse().unwrap()]);
    for (from, to) in [(0, 1), (1, 0)] {
        let creds = net.peers[from].leg.local_credentials();
        let fingerprints: Vec<_> = net.peers[from].leg.local_fingerprint().into_iter().collect();
        net.peers[to].leg.set_remote(now, Some(creds), &fingerprints);
    }
    // The responder was given no candidate at all: it learns the initiator's address from its checks.
    assert_eq!(net.connect(Duration::from_secs(5)).map(|t| t < Duration::from_secs(1)), Some(true));
    assert!(net.peers[1].has(|e| matches!(e, LegEvent::Connected { remote: CandidateKind::Prflx, .. })));
    assert_alive(&mut net);
}

#[test]
fn junk_of_every_first_byte_and_length_leaves_the_call_alone() {
    let mut net = connected(&Options::default());
    let mut rng = net::Rng(99);
    let friend = net.peers[1].addr;
    let target = net.peers[0].addr;
    let stranger: SocketAddr = "203.0.113.7:7".parse().unwrap();
    for source in [friend, stranger] {
        for first in 0..=255u8 {
            for length in 0..200usize {
                let mut junk: Vec<u8> = (0..length).map(|_| rng.next() as u8).collect();
                if let Some(byte) = junk.first_mut() {
                    *byte = first;
                }
                let now = net.now;
                assert!(net.peers[0].leg.handle_datagram(now, target, source, &mut junk).is_none());
            }
        }
        net.drain();
    }
    assert_alive(&mut net);
    assert!(net.peers[0].leg.stats(net.now).dropped_datagrams > 50_000);
}

#[test]
fn well_framed_dtls_junk_on_the_proven_path_leaves_the_call_alone() {
    for during_handshake in [true, false] {
        let mut net = Net::new(&Options::default());
        if !during_handshake {
            net.connect(Duration::from_secs(5)).expect("connected");
        }
        let mut rng = net::Rng(5);
        for _ in 0..200 {
            for target in 0..2 {
                let (source, destination) = (net.peers[1 - target].addr, net.peers[target].addr);
                let kind = 20 + (rng.next() % 6) as u8;
                // Handshake records are left out before completion: who can forge those on the proven path can end
                // the handshake of any DTLS engine.
                if during_handshake && kind == 22 {
                    continue;
                }
                let epoch = if during_handshake { (rng.next() % 3) as u8 } else { (rng.next() % 4) as u8 };
                let length = (rng.next() % 60) as u8;
                let mut record = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 9, rng.next() as u8, 0, length];
                record.extend((0..length).map(|_| rng.next() as u8));
                net.inject(source, destination, record);
            }
            net.run_for(2 * MS);
        }
        assert!(net.both_connected(), "{during_handshake}");
        assert_alive(&mut net);
    }
}

#[test]
fn a_hundred_thousand_forged_packets_leave_the_call_alone() {
    let mut net = connected(&Options::default());
    let mut rng = net::Rng(3);
    let (source, target) = (net.peers[1].addr, net.peers[0].addr);
    for n in 0..100_000u32 {
        let mut forged = vec![0x80, 111];
        forged.extend((n as u16).to_be_bytes());
        forged.extend((0..104).map(|_| rng.next() as u8));
        let now = net.now;
        assert!(net.peers[0].leg.handle_datagram(now, target, source, &mut forged).is_none());
    }
    assert_alive(&mut net);
    assert_eq!(net.peers[0].leg.stats(net.now).dropped_datagrams, 100_000);
}

#[test]
fn a_replayed_packet_is_dropped() {
    let mut net = connected(&Options::default());
    net.capture = true;
    net.talk(20);
    let captured = std::mem::take(&mut net.captured);
    assert_eq!(net.peers[1].received.len(), 20);
    let (source, target) = (net.peers[0].addr, net.peers[1].addr);
    for (from, contents) in captured {
        if from == 0 {
            net.inject(source, target, contents);
        }
    }
    net.run_for(100 * MS);
    assert_eq!(net.peers[1].received.len(), 20);
    assert_alive(&mut net);
}

/// A leg with SDES keys on a plain path, so that the suite can be chosen.
fn sdes_net(profile: SrtpProfile) -> Net {
    let mut net =
        Net::unsignalled(&Options { configure: |_, c| c.carrier = Carrier::Plain { lab: true }, ..Options::default() });
    for index in 0..2 {
        let half = |n: u8| (vec![n; profile.key_len()], vec![n + 1; profile.salt_len()]);
        let (local, remote) = if index == 0 { (half(3), half(9)) } else { (half(9), half(3)) };
        let mut config = LegConfig::new(index == 0, net::identity());
        config.carrier = Carrier::Plain { lab: true };
        config.protection = Protection::Sdes(Some(Box::new(SdesKeys { profile, local, remote })));
        let (now, addr) = (net.now, net.peers[index].addr);
        net.peers[index].leg = Leg::new(now, SystemTime::UNIX_EPOCH, [index as u8; 32], config);
        net.peers[index].leg.handle_sockets(now, &[addr]);
    }
    net.signal(|_, _| {});
    net
}

#[test]
fn a_bye_that_claims_to_need_no_encryption_is_refused() {
    for profile in SrtpProfile::ALL {
        let mut net = sdes_net(profile);
        net.talk(10);
        let ssrc = net.peers[1].leg.ssrc().0.to_be_bytes();
        let (source, target) = (net.peers[1].addr, net.peers[0].addr);
        for index in 0..20u32 {
            // Receiver report, BYE, then E=0 and an index, then a made-up tag.
            let mut forged = vec![0x80, 201, 0, 1];
            forged.extend(ssrc);
            forged.extend([0x81, 203, 0, 1]);
            forged.extend(ssrc);
            if matches!(profile, SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm) {
                forged.extend([0; 16]);
                forged.extend(index.to_be_bytes());
            } else {
                forged.extend(index.to_be_bytes());
                forged.extend([0; 10]);
            }
            net.inject(source, target, forged);
        }
        net.run_for(100 * MS);
        assert!(!net.peers[0].has(|e| matches!(e, LegEvent::Bye(_))), "{profile:?}");
        assert_eq!(net.peers[0].leg.stats(net.now).dropped_datagrams, 20);
        // The genuine one is believed.
        let now = net.now;
        net.peers[1].leg.close(now);
        net.run_for(100 * MS);
        assert!(net.peers[0].has(|e| matches!(e, LegEvent::Bye(_))), "{profile:?}");
    }
}

#[test]
fn close_says_goodbye_twice_and_stops() {
    for closer in 0..2 {
        let mut net = connected(&Options::default());
        net.talk(5);
        let now = net.now;
        net.peers[closer].leg.close(now);
        net.run_for(Duration::from_secs(1));
        let other = &net.peers[1 - closer];
        assert!(other.has(|e| matches!(e, LegEvent::Bye(_))), "{:?}", other.events);
        assert!(other.has(|e| *e == LegEvent::Closed), "{:?}", other.events);
        assert!(!net.send(closer, 0, b"late"));
        let sent = net.sent.iter().filter(|(from, at, ..)| *from == closer && *at > now).count();
        assert_eq!(sent, 0, "a closed leg is silent");
        assert_eq!(net.peers[closer].leg.poll_timeout(), None);
    }
}

#[test]
fn sending_stops_thirty_seconds_after_the_last_answer() {
    let mut net = connected(&Options::default());
    net.run_for(Duration::from_secs(10));
    net.loss = 1.0;
    let dead = net.now;
    net.run_for(Duration::from_secs(60));
    for (index, peer) in net.peers.iter().enumerate() {
        let (failed, _) =
            peer.events.iter().find(|(_, e)| *e == LegEvent::Failed(LegFault::ConsentLost)).expect("consent lost");
        let after = *failed - dead;
        assert!(after <= Duration::from_secs(30) && after >= Duration::from_secs(26), "{after:?}");
        assert!(peer.has(|e| *e == LegEvent::PathLost));
        let late = net.sent.iter().filter(|(from, at, ..)| *from == index && *at > *failed).count();
        assert_eq!(late, 0, "nothing is sent without consent");
    }
    assert!(!net.send(0, 0, b"late"));
}

#[test]
fn an_outage_of_twelve_seconds_heals_by_itself() {
    let mut net = connected(&Options::default());
    net.talk(50);
    net.loss = 1.0;
    net.talk(600);
    net.loss = 0.0;
    net.run_for(Duration::from_secs(4));
    assert_alive(&mut net);
    net.run_for(Duration::from_secs(60));
    assert_alive(&mut net);
}

#[test]
fn an_ice_restart_keeps_keys_and_sound() {
    for restarter in 0..2 {
        let mut net = connected(&Options::default());
        net.talk(20);
        let now = net.now;
        let ours = net.peers[restarter].leg.ice_restart(now);
        assert_alive(&mut net);
        let other = 1 - restarter;
        let now = net.now;
        net.peers[other].leg.set_remote(now, Some(ours), &[]);
        net.trickle(restarter);
        net.drain();
        let theirs = net.peers[other]
            .events
            .iter()
            .find_map(|(_, e)| if let LegEvent::Restarted(creds) = e { Some(creds.clone()) } else { None })
            .expect("the other side restarts too");
        let now = net.now;
        net.peers[restarter].leg.set_remote(now, Some(theirs), &[]);
        net.trickle(other);
        net.talk(100);
        assert!(
            net.peers.iter().all(|p| p.has(|e| matches!(e, LegEvent::PathChanged { .. }))),
            "restarter {restarter}"
        );
        assert_alive(&mut net);
        net.run_for(Duration::from_secs(60));
        assert_alive(&mut net);
    }
}

#[test]
fn no_path_is_told_early_once_there_are_no_more_candidates() {
    let mut net = Net::new(&Options { loss: 1.0, ..Options::default() });
    let now = net.now;
    for peer in &mut net.peers {
        peer.leg.end_of_remote_candidates(now);
    }
    assert_eq!(net.connect(Duration::from_secs(60)), None);
    net.run_for(Duration::from_secs(60));
    for peer in &net.peers {
        let failed = peer.events.iter().find(|(_, e)| *e == LegEvent::Failed(LegFault::NoPath)).expect("no path").0;
        assert!(failed - net.start < Duration::from_secs(25), "{:?}", failed - net.start);
    }
}

#[test]
fn nothing_is_sent_before_sockets_and_remote_are_known() {
    let net = Net::unsignalled(&Options::default());
    assert!(net.sent.is_empty());
    let mut leg = Leg::new(net.now, SystemTime::UNIX_EPOCH, [1; 32], LegConfig::new(true, net::identity()));
    leg.set_remote(net.now, Some(net.peers[0].leg.local_credentials()), &[]);
    leg.add_remote_candidate(net.now, &candidate("192.0.2.9:9")).unwrap();
    leg.handle_timeout(net.now + Duration::from_secs(1));
    assert_eq!(leg.poll_transmit(), None);
}

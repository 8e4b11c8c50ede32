//! Two legs in virtual time: how they connect, and what may never connect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/net.rs"]
mod net;

use net::{Net, Options, percentile};
use offhook::transport::leg::{Carrier, LegEvent, LegFault, Protection, SdesKeys};
use offhook::transport::srtp::SrtpProfile;
use offhook::wire::candidate::Setup;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn two_legs_talk_whoever_is_the_dtls_client() {
    for answer_active in [false, true] {
        let mut net = Net::new(&Options { answer_active, ..Options::default() });
        // One round trip for the check, and three for DTLS with its cookie.
        let took = net.connect(Duration::from_secs(5)).expect("connected");
        assert_eq!(net.peers[0].leg.setup(), if answer_active { Setup::Passive } else { Setup::Active });
        println!("answer_active {answer_active}: {took:?}");
        net.talk(300);
        for peer in &net.peers {
            assert_eq!(peer.received.len(), 300);
            assert!(peer.received.iter().all(|(_, _, payload)| payload == &[0x5a; 80]));
            let stats = peer.leg.stats(net.now);
            assert!(stats.rtcp.report_age.is_some(), "SRTCP came: {stats:?}");
            assert_eq!(stats.rtcp.packets_in, 300, "{stats:?}");
            assert_eq!(stats.rtt, Some(50 * MS));
            assert_eq!(stats.dropped_datagrams, 0);
            assert!(peer.has(|e| matches!(
                e,
                LegEvent::Connected { profile: Some(SrtpProfile::AeadAes256Gcm), fingerprint: Some(_), .. }
            )));
        }
    }
}

#[test]
fn set_up_takes_exactly_four_round_trips_without_loss() {
    for (answer_active, delay) in [(false, 25), (true, 25), (false, 100), (true, 100)] {
        let delay = Duration::from_millis(delay);
        let mut net = Net::new(&Options { answer_active, delay, ..Options::default() });
        assert_eq!(net.connect(Duration::from_secs(5)), Some(delay * 8), "answer_active {answer_active}");
    }
}

/// Set-up times over `seeds` seeds, and how many failed.
fn set_ups(loss: f64, seeds: u64, answer_active: bool) -> (Vec<Duration>, usize) {
    let mut times = Vec::new();
    let mut failed = 0;
    for seed in 0..seeds {
        let mut net = Net::new(&Options { loss, seed: seed * 7919 + 1, answer_active, ..Options::default() });
        match net.connect(Duration::from_secs(40)) {
            Some(took) => times.push(took),
            None => {
                println!("seed {seed}: {:?} {:?}", net.peers[0].failed(), net.peers[1].failed());
                failed += 1;
            }
        }
    }
    (times, failed)
}

#[test]
fn set_up_survives_loss_within_its_bounds() {
    let bounds = [(0.0, 200, 200), (0.05, 600, 5000), (0.20, 2500, 15_000)];
    for (loss, p95_ms, max_ms) in bounds {
        for answer_active in [false, true] {
            let (mut times, failed) = set_ups(loss, 400, answer_active);
            let total = times.len() + failed;
            let figures: Vec<_> = [50, 90, 95, 99, 100].map(|p| percentile(&mut times, p).as_millis()).into();
            println!(
                "loss {loss} answer_active {answer_active}: p50/90/95/99/max {figures:?} ms, {failed} of {total} failed"
            );
            assert!(figures[2] <= p95_ms, "p95 {} ms", figures[2]);
            assert!(figures[4] <= max_ms, "max {} ms", figures[4]);
            // Less than 0.5 %.
            assert!(failed * 200 < total, "{failed} of {total} failed");
        }
    }
}

#[test]
fn a_wrong_fingerprint_never_connects_and_yields_no_frame() {
    for answer_active in [false, true] {
        for liar in [0, 1] {
            let tamper =
                [|from: usize, f: &mut Vec<_>| flip(from == 0, f), |from: usize, f: &mut Vec<_>| flip(from == 1, f)]
                    [liar];
            let mut net = Net::new(&Options { answer_active, tamper, ..Options::default() });
            assert_eq!(net.connect(Duration::from_secs(40)), None);
            net.talk(50);
            let victim = &net.peers[1 - liar];
            assert_eq!(victim.failed(), Some(&LegEvent::Failed(LegFault::FingerprintMismatch)));
            assert!(victim.connected_at().is_none());
            assert!(victim.received.is_empty());
            assert!(net.peers[liar].received.is_empty());
        }
    }
}

fn flip(liar: bool, fingerprints: &mut [offhook::wire::candidate::Fingerprint]) {
    if liar {
        fingerprints[0].value[31] ^= 1;
    }
}

#[test]
fn the_strongest_known_hash_decides_among_several_fingerprints() {
    use offhook::wire::candidate::Fingerprint;
    let wrong = |hash: &str, len| Fingerprint { hash: hash.into(), value: vec![7; len], setup: None };
    for (extra, connects) in [
        (vec![wrong("sha-1", 20)], true),
        (vec![wrong("sha-256", 32)], true),
        (vec![wrong("md5", 16), wrong("sha-3", 32)], true),
        (vec![wrong("sha-512", 64)], false),
    ] {
        let mut net = Net::unsignalled(&Options::default());
        for (from, to) in [(0, 1), (1, 0)] {
            let mut fingerprints = extra.clone();
            fingerprints.extend(net.peers[from].leg.local_fingerprint());
            let creds = net.peers[from].leg.local_credentials();
            let now = net.now;
            net.peers[to].leg.set_remote(now, Some(creds), &fingerprints);
            net.trickle(from);
        }
        assert_eq!(net.connect(Duration::from_secs(35)).is_some(), connects, "{extra:?}");
    }
}

#[test]
fn an_answer_that_leaves_the_role_open_still_connects() {
    let mut net = Net::unsignalled(&Options::default());
    for (from, to) in [(0, 1), (1, 0)] {
        let mut fingerprint = net.peers[from].leg.local_fingerprint().unwrap();
        fingerprint.setup = None;
        let creds = net.peers[from].leg.local_credentials();
        let now = net.now;
        net.peers[to].leg.set_remote(now, Some(creds), &[fingerprint]);
        net.trickle(from);
    }
    // The check waits for one step of ICE's pace, then half a second for a hello that does not come.
    assert_eq!(net.connect(Duration::from_secs(5)), Some(705 * MS));
}

#[test]
fn a_hello_before_the_answer_is_answered_and_keys_wait_for_the_fingerprint() {
    let mut net = Net::unsignalled(&Options { answer_active: true, ..Options::default() });
    let now = net.now;
    let offer = (net.peers[0].leg.local_credentials(), net.peers[0].leg.local_fingerprint().unwrap());
    let answer = net.peers[1].leg.local_credentials();
    net.peers[1].leg.set_remote(now, Some(offer.0), &[offer.1]);
    net.trickle(0);
    // ICE of the answer is known, its fingerprint is late.
    net.peers[0].leg.set_remote(now, Some(answer), &[]);
    net.trickle(1);
    net.run_for(Duration::from_secs(2));
    assert!(net.peers[1].connected_at().is_some());
    assert!(net.peers[0].connected_at().is_none());
    net.send(1, 0, b"early");
    net.run_for(100 * MS);
    assert!(net.peers[0].received.is_empty(), "no frame before the fingerprint is known");
    let fingerprint = net.peers[1].leg.local_fingerprint().unwrap();
    assert_eq!(fingerprint.setup, Some(Setup::Active));
    let now = net.now;
    net.peers[0].leg.set_remote(now, None, &[fingerprint]);
    net.talk(5);
    assert_eq!(net.peers[0].received.len(), 5);
}

#[test]
fn a_role_conflict_is_settled_by_the_tie_breaker() {
    let mut net = Net::new(&Options {
        // Both believe they started; the DTLS roles are settled by the first hello or by patience.
        configure: |_, config| config.initiator = true,
        ..Options::default()
    });
    assert!(net.connect(Duration::from_secs(10)).is_some());
}

#[test]
fn a_plain_leg_carries_rtp_with_sdes_keys_or_none() {
    let sdes = |profile: SrtpProfile, flip: bool| {
        let half = |n: u8| (vec![n; profile.key_len()], vec![n + 1; profile.salt_len()]);
        let (local, remote) = if flip { (half(3), half(9)) } else { (half(9), half(3)) };
        Protection::Sdes(Some(Box::new(SdesKeys { profile, local, remote })))
    };
    for profile in SrtpProfile::ALL.into_iter().map(Some).chain([None]) {
        let mut net = Net::unsignalled(&Options {
            configure: |_, config| {
                config.carrier = Carrier::Plain { lab: true };
                config.protection = Protection::None;
            },
            ..Options::default()
        });
        if let Some(profile) = profile {
            for index in 0..2 {
                let mut config = offhook::transport::leg::LegConfig::new(index == 0, net::identity());
                config.carrier = Carrier::Plain { lab: true };
                config.protection = sdes(profile, index == 0);
                let now = net.now;
                let addr = net.peers[index].addr;
                let wall = std::time::SystemTime::UNIX_EPOCH;
                net.peers[index].leg = offhook::transport::leg::Leg::new(now, wall, [index as u8; 32], config);
                net.peers[index].leg.handle_sockets(now, &[addr]);
            }
        }
        net.signal(|_, _| {});
        assert_eq!(net.connect(MS), Some(Duration::ZERO));
        net.talk(300);
        for peer in &net.peers {
            assert_eq!(peer.received.len(), 300, "{profile:?}");
            assert!(peer.leg.stats(net.now).rtcp.report_age.is_some());
        }
        // A stranger's packet does not count.
        let victim = net.peers[0].addr;
        let mut forged = vec![0x80, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
        forged.extend([0; 80]);
        net.inject("203.0.113.66:4000".parse().unwrap(), victim, forged);
        net.run_for(100 * MS);
        assert_eq!(net.peers[0].received.len(), 300);
    }
}

//! What a leg costs: allocations of a frame, heap of a connected leg.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/net.rs"]
mod net;

use net::{Net, Options};
use offhook::wire::rtp::MediaTime;
use std::time::{Duration, Instant};

fn connected() -> Net {
    let mut net = Net::new(&Options::default());
    net.connect(Duration::from_secs(5)).expect("connected");
    net.talk(50);
    net
}

#[test]
fn a_frame_is_sent_and_received_without_an_allocation() {
    let mut net = connected();
    let mut out = Vec::with_capacity(1500);
    let payload = [0x11; 80];
    let mut heard = 0;
    let (now, addrs) = (net.now, [net.peers[0].addr, net.peers[1].addr]);
    let info = allocation_counter::measure(|| {
        for frame in 0..1000u32 {
            for from in 0..2 {
                let time = MediaTime(frame * 960);
                let leg = &mut net.peers[from].leg;
                leg.send_rtp(now, 111, false, time, &payload, &mut out).expect("connected");
                let received = net.peers[1 - from].leg.handle_datagram(now, addrs[1 - from], addrs[from], &mut out);
                heard += usize::from(received.expect("authentic").payload == payload);
            }
        }
    });
    assert_eq!(heard, 2000);
    assert_eq!(info.count_total, 0, "{info:?}");
}

#[test]
fn a_connected_leg_keeps_less_than_twenty_kilobytes() {
    let Net { peers: [a, b], .. } = connected();
    for (name, leg) in [("client", a.leg), ("server", b.leg)] {
        let inline = std::mem::size_of_val(&leg);
        let freed = -allocation_counter::measure(|| drop(leg)).bytes_current;
        println!("{name}: {inline} B inline + {freed} B heap");
        assert!(freed <= 20 * 1024, "{name}: {inline} B inline + {freed} B heap");
        assert!(inline <= 2048, "{name}: {inline} B inline");
    }
}

/// Wall time, for the record: what holds in a release build is checked by the bench.
#[test]
fn creation_and_connection_are_timed() {
    offhook::transport::warm_up::warm_up(&net::identity(), Instant::now());
    let runs = 50;
    let (mut create, mut connect) = (Duration::ZERO, Duration::ZERO);
    for seed in 0..runs {
        let begin = Instant::now();
        let mut net = Net::new(&Options { delay: Duration::ZERO, seed: u64::from(seed) + 1, ..Options::default() });
        create += begin.elapsed();
        let begin = Instant::now();
        net.connect(Duration::from_secs(1)).expect("connected");
        connect += begin.elapsed();
    }
    println!("per side, this build: create {:?}, connect {:?}", create / (2 * runs), connect / (2 * runs));
}

//! Data channels of two legs in virtual time: what arrives, what is held back, and how channels end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/net.rs"]
mod net;

use net::{Net, Options};
use offhook::transport::leg::{ChannelFault, ChannelId, DataConfig, LegConfig, LegEvent};
use std::collections::BTreeMap;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(600);

fn data_only(_: usize, config: &mut LegConfig) {
    config.data = Some(DataConfig::default());
}

fn options() -> Options {
    Options { configure: data_only, ..Options::default() }
}

/// Deterministic bytes that differ everywhere.
fn content(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u64).wrapping_mul(0x9e37_79b9).to_le_bytes()[2] ^ seed).collect()
}

/// One side's application: writes what it has, reads what comes.
#[derive(Default)]
struct App {
    seen: usize,
    writing: BTreeMap<ChannelId, (Vec<u8>, usize)>,
    /// Close a channel once all of it is written.
    closes: bool,
    /// Does not read.
    lazy: bool,
    opened: Vec<(ChannelId, String, bool)>,
    received: BTreeMap<ChannelId, Vec<u8>>,
    closed: BTreeMap<ChannelId, bool>,
    delivered: Vec<ChannelId>,
}

struct Pair {
    net: Net,
    apps: [App; 2],
}

impl Pair {
    fn new(options: &Options) -> Self {
        let mut net = Net::new(options);
        assert!(net.connect(Duration::from_secs(40)).is_some());
        Self { net, apps: Default::default() }
    }

    fn open(&mut self, side: usize, label: &str, bytes: Vec<u8>) -> ChannelId {
        let now = self.net.now;
        let id = self.net.peers[side].leg.open_channel(now, label).unwrap();
        self.apps[side].writing.insert(id, (bytes, 0));
        self.write(side, id);
        id
    }

    fn write(&mut self, side: usize, id: ChannelId) {
        let (now, app) = (self.net.now, &mut self.apps[side]);
        let Some((bytes, at)) = app.writing.get_mut(&id) else { return };
        while *at < bytes.len() {
            let end = bytes.len().min(*at + 100_000);
            let taken = self.net.peers[side].leg.write_channel(now, id, &bytes[*at..end]).unwrap();
            *at += taken;
            if taken < end - (*at - taken) {
                return;
            }
        }
        app.writing.remove(&id);
        if app.closes {
            self.net.peers[side].leg.close_channel(now, id);
        }
    }

    fn read(&mut self, side: usize, id: ChannelId, most: usize) {
        let mut left = most;
        while left > 0
            && let Some(bytes) = self.net.peers[side].leg.read_channel(self.net.now, id, left.min(50_000))
        {
            left -= bytes.len();
            self.apps[side].received.entry(id).or_default().extend(bytes);
        }
    }

    fn react(&mut self) {
        self.net.drain();
        for side in 0..2 {
            while let Some((_, event)) = self.net.peers[side].events.get(self.apps[side].seen).cloned() {
                self.apps[side].seen += 1;
                match event {
                    LegEvent::ChannelOpen { id, label, by_peer } => {
                        self.apps[side].opened.push((id, label.to_string(), by_peer));
                    }
                    LegEvent::ChannelReadable(id) if !self.apps[side].lazy => self.read(side, id, usize::MAX),
                    LegEvent::ChannelWritable(id) => self.write(side, id),
                    LegEvent::ChannelDelivered(id) => self.apps[side].delivered.push(id),
                    LegEvent::ChannelClosed { id, clean } => _ = self.apps[side].closed.insert(id, clean),
                    _ => {}
                }
            }
            self.net.drain();
        }
    }

    /// Runs until `done`, or for `limit`.
    fn run(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.net.now + limit;
        loop {
            self.react();
            if done(self) {
                return true;
            }
            if self.net.now >= end {
                return false;
            }
            let seen = [self.apps[0].seen, self.apps[1].seen];
            self.net.run_while(end, |net| (0..2).all(|side| net.peers[side].events.len() == seen[side]));
        }
    }

    fn received(&self, side: usize) -> usize {
        self.apps[side].received.values().map(Vec::len).sum()
    }
}

#[test]
fn a_file_goes_either_way_in_either_role_and_nothing_else_is_sent() {
    for answer_active in [false, true] {
        for from in 0..2 {
            let mut pair = Pair::new(&Options { answer_active, ..options() });
            let bytes = content(3_000_000, 7);
            pair.apps[from].closes = true;
            let id = pair.open(from, "the content", bytes.clone());
            assert!(pair.run(LIMIT, |p| p.apps.iter().all(|a| a.closed.len() == 1)), "client {answer_active} {from}");
            assert_eq!(pair.apps[from].opened, [(id, "the content".to_owned(), false)]);
            assert_eq!(pair.apps[1 - from].opened, [(ChannelId(0), "the content".to_owned(), true)]);
            assert!(pair.apps[1 - from].received[&ChannelId(0)] == bytes);
            assert_eq!(pair.apps[from].delivered.last(), Some(&id));
            assert!(pair.apps.iter().all(|a| a.closed.values().all(|clean| *clean)));
            // RTP and RTCP have 128 to 191 in their first byte.
            assert!(!pair.net.sent.iter().any(|(_, _, first, _)| *first >= 128));
            assert!(pair.net.sent.iter().all(|(_, _, _, length)| *length <= 1280));
        }
    }
}

#[test]
fn several_channels_share_one_association_j343_04() {
    let mut pair = Pair::new(&options());
    let files: Vec<_> = (0..4).map(|n| content(400_000 + n, n as u8)).collect();
    // Two each way, the ones of a side before and after the other's.
    for (n, bytes) in files.iter().enumerate() {
        pair.apps[n % 2].closes = true;
        pair.open(n % 2, &format!("file {n}"), bytes.clone());
    }
    assert!(pair.run(LIMIT, |p| p.apps.iter().all(|a| a.closed.len() == 4)));
    for (n, bytes) in files.iter().enumerate() {
        let app = &pair.apps[1 - n % 2];
        let (id, ..) = app.opened.iter().find(|(_, label, by_peer)| *by_peer && *label == format!("file {n}")).unwrap();
        assert!(app.received[id] == *bytes, "{n}");
    }
    // A further channel on the same association.
    let id = pair.open(1, "later", content(10, 1));
    assert!(pair.run(LIMIT, |p| p.apps[1].closed.contains_key(&id) && p.received(0) > 800_000));
}

#[test]
fn a_file_survives_loss_reordering_and_duplicates() {
    for (loss, seed) in [(0.01, 1), (0.05, 2), (0.2, 3)] {
        let mut pair = Pair::new(&Options { seed, delay: 10 * MS, ..options() });
        (pair.net.loss, pair.net.duplicates, pair.net.reorder) = (loss, 0.02, (0.1, 30 * MS));
        let bytes = content(1_000_000, 9);
        pair.apps[0].closes = true;
        let start = pair.net.now;
        pair.open(0, "f", bytes.clone());
        assert!(pair.run(LIMIT, |p| p.apps.iter().all(|a| a.closed.len() == 1)), "loss {loss}");
        println!("loss {loss}: {:?}", pair.net.now - start);
        assert!(pair.apps[1].received[&ChannelId(0)] == bytes);
        assert!(pair.apps.iter().all(|a| a.closed.values().all(|clean| *clean)), "loss {loss}");
    }
}

#[test]
fn what_is_not_read_stops_the_sender_and_reading_lets_it_go_on_at_full_speed() {
    let mut pair = Pair::new(&options());
    let bytes = content(20_000_000, 3);
    pair.apps[1].lazy = true;
    pair.apps[0].closes = true;
    pair.open(0, "f", bytes.clone());
    // A pause of a minute.
    assert!(!pair.run(Duration::from_secs(60), |_| false));
    let (_, at) = pair.apps[0].writing[&ChannelId(0)];
    let config = DataConfig::default();
    let most = (config.send_buffer_bytes + config.receive_window_bytes) as usize + 300_000;
    assert!((3_000_000..most).contains(&at), "{at} bytes taken");
    let quiet = pair.net.sent.len();
    pair.run(Duration::from_secs(60), |_| false);
    let woken = pair.net.sent.iter().skip(quiet).filter(|(side, _, first, _)| *side == 0 && *first == 23).count();
    assert!(woken <= 60, "{woken} packets of data in a minute without a reader");
    // From now on it reads.
    pair.apps[1].lazy = false;
    let start = pair.net.now;
    pair.read(1, ChannelId(0), usize::MAX);
    assert!(pair.run(LIMIT, |p| p.apps.iter().all(|a| a.closed.len() == 1)));
    assert!(pair.apps[1].received[&ChannelId(0)] == bytes);
    let took = pair.net.now - start;
    println!("16 MB after the pause: {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_slow_reader_gets_everything_and_holds_no_more_than_its_window() {
    let mut pair = Pair::new(&options());
    let bytes = content(12_000_000, 4);
    pair.apps[1].lazy = true;
    pair.apps[0].closes = true;
    pair.open(0, "f", bytes.clone());
    // 10 MB/s, a piece each 10 ms.
    let start = pair.net.now;
    for _ in 0..400 {
        pair.run(10 * MS, |_| false);
        pair.read(1, ChannelId(0), 100_000);
    }
    assert!(pair.apps[1].received[&ChannelId(0)] == bytes);
    assert!(pair.run(LIMIT, |p| p.apps.iter().all(|a| a.closed.len() == 1)));
    println!("12 MB to a reader of 10 MB/s: {:?}", pair.net.now - start);
}

#[test]
fn a_reader_that_closes_stops_the_writer_and_other_channels_go_on() {
    let mut pair = Pair::new(&options());
    let big = pair.open(0, "unwanted", content(50_000_000, 1));
    assert!(pair.run(LIMIT, |p| p.received(1) > 2_000_000));
    let now = pair.net.now;
    pair.net.peers[1].leg.close_channel(now, ChannelId(0));
    assert!(pair.run(LIMIT, |p| p.apps.iter().all(|a| a.closed.len() == 1)));
    assert!(!pair.apps[0].closed[&big], "not all of it was delivered");
    assert_eq!(pair.net.peers[0].leg.write_channel(now, big, b"x"), Err(ChannelFault::Closed));
    pair.apps[0].writing.clear();
    pair.apps[0].closes = true;
    let before = pair.received(1);
    for n in 0..8 {
        pair.open(0, &format!("wanted {n}"), content(2_000_000, 2));
        assert!(pair.run(LIMIT, |p| p.apps[0].closed.len() == 2 + n), "{n}");
    }
    assert!(pair.run(LIMIT, |p| p.received(1) == before + 16_000_000));
}

#[test]
fn what_was_delivered_can_be_read_after_the_peer_has_gone() {
    let mut pair = Pair::new(&options());
    let bytes = content(1_000_000, 5);
    pair.apps[1].lazy = true;
    let id = pair.open(0, "f", bytes.clone());
    assert!(pair.run(LIMIT, |p| p.apps[0].delivered.contains(&id)));
    assert_eq!(pair.net.peers[0].leg.channel_unacked(id), 0);
    let now = pair.net.now;
    pair.net.peers[0].leg.close(now);
    pair.run(Duration::from_secs(1), |_| false);
    assert!(pair.net.peers[1].has(|e| *e == LegEvent::Closed));
    assert!(pair.apps[1].closed.is_empty(), "not before it is read");
    pair.read(1, ChannelId(0), usize::MAX);
    pair.react();
    assert!(pair.apps[1].received[&ChannelId(0)] == bytes);
    assert!(!pair.apps[1].closed[&ChannelId(0)]);
}

#[test]
fn ports_other_than_5000_are_put_on_the_wire() {
    for from in 0..2 {
        let mut pair = {
            let mut net = Net::new(&Options {
                configure: |side, config| {
                    config.data = Some(DataConfig { local_port: 5001 + side as u16, ..DataConfig::default() });
                },
                ..Options::default()
            });
            net.peers[0].leg.set_remote_sctp(5002);
            net.peers[1].leg.set_remote_sctp(5001);
            assert!(net.connect(LIMIT).is_some());
            Pair { net, apps: Default::default() }
        };
        pair.apps[from].closes = true;
        let bytes = content(100_000, 1);
        pair.open(from, "f", bytes.clone());
        assert!(pair.run(LIMIT, |p| p.apps.iter().all(|a| a.closed.len() == 1)));
        assert!(pair.apps[1 - from].received[&ChannelId(0)] == bytes);
    }
}

#[test]
fn a_leg_may_carry_sound_and_data_together() {
    let mut pair = Pair::new(&Options {
        configure: |_, config| config.data = Some(DataConfig { beside_rtp: true, ..DataConfig::default() }),
        ..Options::default()
    });
    pair.apps[0].closes = true;
    pair.open(0, "f", content(500_000, 1));
    pair.net.talk(100);
    assert!(pair.run(LIMIT, |p| p.apps.iter().all(|a| a.closed.len() == 1)));
    assert_eq!(pair.net.peers[1].received.len(), 100);
    assert_eq!(pair.received(1), 500_000);
}

#[test]
fn without_data_channels_the_verbs_say_so_and_a_broken_path_ends_them() {
    let mut net = Net::new(&Options::default());
    let now = net.now;
    assert_eq!(net.peers[0].leg.open_channel(now, "x"), Err(ChannelFault::NoData));
    assert_eq!(net.peers[0].leg.read_channel(now, ChannelId(0), 1), None);

    let mut pair = Pair::new(&options());
    let id = pair.open(0, "f", content(30_000_000, 1));
    pair.run(Duration::from_secs(1), |_| false);
    pair.net.loss = 1.0;
    assert!(pair.run(Duration::from_secs(60), |p| p.apps.iter().all(|a| a.closed.len() == 1)));
    assert!(!pair.apps[0].closed[&id]);
    assert!(pair.net.peers.iter().all(|p| p.failed().is_some()));
}

#[test]
fn channels_are_bounded_and_labels_too() {
    let mut pair = Pair::new(&options());
    let now = pair.net.now;
    let leg = &mut pair.net.peers[0].leg;
    assert_eq!(leg.open_channel(now, &"x".repeat(70_000)), Err(ChannelFault::Label));
    for n in 0..64 {
        leg.open_channel(now, &n.to_string()).unwrap();
    }
    assert_eq!(leg.open_channel(now, "one more"), Err(ChannelFault::TooMany(64)));
    assert!(pair.run(LIMIT, |p| p.apps[1].opened.len() == 64));
}

/// Bytes a second of `length` bytes over 50 ms with windows of 8 MiB, in virtual time.
fn rate(length: usize, loss: f64, seed: u64) -> f64 {
    let mut pair = Pair::new(&Options {
        seed,
        configure: |_, config| {
            let bytes = 8 << 20;
            let data = DataConfig { send_buffer_bytes: bytes, receive_window_bytes: bytes, ..DataConfig::default() };
            config.data = Some(data);
        },
        ..Options::default()
    });
    pair.net.loss = loss;
    pair.apps[0].closes = true;
    let start = pair.net.now;
    pair.open(0, "f", content(length, 1));
    assert!(pair.run(LIMIT, |p| p.received(1) == length));
    length as f64 / (pair.net.now - start).as_secs_f64()
}

#[test]
fn chance_losses_do_not_slow_a_transfer_down_and_many_do() {
    let none = rate(40_000_000, 0.0, 1);
    let few = rate(40_000_000, 0.001, 2);
    let many = rate(4_000_000, 0.05, 3);
    println!("MB/s at 50 ms: {:.1} without loss, {:.1} at 0.1 %, {:.2} at 5 %", none / 1e6, few / 1e6, many / 1e6);
    // The engine alone comes to 2 to 18 MB/s here.
    assert!(few > none / 3.0 && few > 18e6, "{few}");
    // Congestion is answered.
    assert!(many < none / 10.0, "{many}");
}

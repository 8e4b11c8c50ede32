//! Files on real input: the real program on both sides, two accounts on two federated Prosody servers, every way and every
//! failure of a way, with what the other side of a lost connection has kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/files.rs"]
mod files;
#[path = "common/island.rs"]
mod island;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/raw.rs"]
mod raw;

use island::{Ferry, on_island};
use program::{Done, Offhook, Program};
use prosody::coturn::wanted;
use prosody::{Lab, STRANGER};
use raw::Raw;
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// A resume may send this much again, and the handshakes and stanzas around it.
const SENT_AGAIN: u64 = (MIB + 64 * 1024) as u64;

/// Two people with a folder each.
struct Pair<'a> {
    lab: &'a Lab,
    from: String,
    to: String,
    out: PathBuf,
    dir: PathBuf,
}

impl<'a> Pair<'a> {
    fn between(lab: &'a Lab, (from, to): (String, String)) -> Self {
        let own = files::folder(&lab.folder, &from.replace(['@', '.'], "-"));
        let (out, dir) = (files::folder(&own, "out"), files::folder(&own, "in"));
        Self { lab, from, to, out, dir }
    }

    fn guests(lab: &'a Lab) -> Self {
        Self::between(lab, lab.pair())
    }

    /// A file of the sender's.
    fn file(&self, name: &str, bytes: usize) -> PathBuf {
        let seed = name.bytes().fold(bytes as u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        files::make(self.out.join(name), bytes, seed)
    }

    fn receiver(&self) -> Offhook {
        Offhook::at(self.lab, &self.to, &["receive", "--accept", "contacts"]).arg("--dir").arg(&self.dir)
    }

    fn sender(&self, way: &str, paths: &[&Path]) -> Offhook {
        self.sender_to(&self.to, way, paths)
    }

    fn sender_to(&self, to: &str, way: &str, paths: &[&Path]) -> Offhook {
        Offhook::at(self.lab, &self.from, &["send", to, "--transport", way]).args(paths)
    }

    /// Starts who receives and waits until it is online.
    fn receive(&self, more: &[&str]) -> Program {
        online(self.receiver().args(more))
    }

    fn received(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder of the receiver has these files and nothing else, not even hidden ones.
    #[track_caller]
    fn has(&self, names: &[&str]) {
        assert_eq!(files::list(&self.dir), names);
    }
}

fn online(offhook: Offhook) -> Program {
    let mut program = offhook.start();
    program.wait_for("online");
    program
}

/// The file events of `done`, each checked against the file it is.
#[track_caller]
fn kept(done: &Done, count: usize) {
    let all = done.all("file");
    assert_eq!(all.len(), count, "{done:#?}");
    for event in all {
        let path = Path::new(event["path"].as_str().unwrap());
        assert_eq!(event["sha256"], files::sha256(path), "{event}");
        assert_eq!(event["verified"], true, "{event}");
        assert_eq!(event["bytes"], fs::metadata(path).unwrap().len(), "{event}");
    }
}

#[track_caller]
fn same(one: &Path, other: &Path) {
    assert_eq!(files::sha256(one), files::sha256(other), "{} and {}", one.display(), other.display());
}

fn ways(done: &Done) -> Vec<String> {
    done.all("connected").iter().map(|event| event["way"].as_str().unwrap().to_owned()).collect()
}

/// Ends a receiver that would go on.
#[track_caller]
fn interrupted(program: Program) -> Done {
    program.interrupt();
    let done = program.finish();
    done.exits(130);
    done
}

#[test]
fn romeo_sends_mercutio_files_of_every_size_by_each_way() {
    if !wanted("romeo_sends_mercutio_files_of_every_size_by_each_way") {
        return;
    }
    let lab = Lab::shared();
    let pair = Pair::between(&lab, ("romeo@alpha.test".into(), "mercutio@beta.test".into()));
    for (way, name) in [("auto", "s5b-direct"), ("s5b", "s5b-direct"), ("datachannel", "datachannel"), ("ibb", "ibb")] {
        let receiver = pair.receive(&["--once"]);
        // In-band every block passes two servers.
        let large = if way == "ibb" { 2 * MIB } else { 8 * MIB };
        let sizes = [("small.bin", 300_000), ("empty.bin", 0), ("large.bin", large)];
        let sent: Vec<PathBuf> =
            sizes.iter().map(|(file, bytes)| pair.file(&format!("{way}-{file}"), *bytes)).collect();
        let start = Instant::now();
        let sender = pair.sender(way, &sent.iter().map(PathBuf::as_path).collect::<Vec<_>>()).run();
        let took = start.elapsed();
        let receiver = receiver.finish();
        sender.exits(0);
        receiver.exits(0);
        println!("{way}: {took:?}, {:?}", ways(&sender));
        kept(&sender, 3);
        kept(&receiver, 3);
        for done in [&sender, &receiver] {
            assert!(ways(done).iter().all(|it| it == name), "{:?}", ways(done));
            assert_eq!(done.all("ended").len(), 1, "{done:#?}");
        }
        for path in &sent {
            same(path, &pair.received(path.file_name().unwrap().to_str().unwrap()));
        }
        pair.has(&sent.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>().tap_sort());
        files::folder(pair.dir.parent().unwrap(), "in");
    }
}

trait TapSort {
    fn tap_sort(self) -> Self;
}

impl TapSort for Vec<&str> {
    fn tap_sort(mut self) -> Self {
        self.sort_unstable();
        self
    }
}

#[test]
fn a_directory_goes_as_its_files_and_links_are_left_out() {
    if !wanted("a_directory_goes_as_its_files_and_links_are_left_out") {
        return;
    }
    let lab = Lab::shared();
    let pair = Pair::guests(&lab);
    let secret = files::make(lab.folder.join("secret-of-the-sender"), 1000, 9);
    let directory = files::folder(&pair.out, "album");
    for (name, bytes) in [("one.jpg", 70_000), ("two.jpg", 1), ("deeper/three.jpg", 200_000)] {
        files::make(directory.join(name), bytes, bytes as u64);
    }
    std::os::unix::fs::symlink(&secret, directory.join("link.jpg")).unwrap();
    let receiver = pair.receive(&["--once"]);
    let sender = pair.sender("auto", &[&directory]).run();
    kept(sender.exits(0), 3);
    kept(receiver.finish().exits(0), 3);
    // Files of one name in two folders stay apart.
    pair.has(&["album_deeper_three.jpg", "album_one.jpg", "album_two.jpg"]);
    same(&directory.join("deeper/three.jpg"), &pair.received("album_deeper_three.jpg"));
}

#[test]
fn nothing_is_overwritten_and_no_link_is_followed() {
    if !wanted("nothing_is_overwritten_and_no_link_is_followed") {
        return;
    }
    let lab = Lab::shared();
    let pair = Pair::guests(&lab);
    let outside = files::make(lab.folder.join("not-to-be-touched"), 1000, 7);
    let before = files::sha256(&outside);
    for name in ["report.bin", "report (1).bin.part", "list.txt.part"] {
        std::os::unix::fs::symlink(&outside, pair.received(name)).unwrap();
    }
    std::os::unix::fs::symlink(lab.folder.join("nowhere"), pair.received("dangling.bin")).unwrap();
    let receiver = pair.receive(&[]);
    let mut sent = vec![];
    for (n, name) in ["report.bin", "report.bin", "list.txt", "dangling.bin", "list.txt"].iter().enumerate() {
        let path = files::make(pair.out.join(format!("{n}")).join(name), 100_000, n as u64);
        pair.sender("auto", &[&path]).run().exits(0);
        sent.push(path);
    }
    let receiver = interrupted(receiver);
    kept(&receiver, 5);
    let places: Vec<&str> = receiver.all("file").iter().map(|event| event["path"].as_str().unwrap()).collect();
    for (path, place) in sent.iter().zip(&places) {
        let place = Path::new(place);
        same(path, place);
        assert!(!place.is_symlink() && place.parent() == Some(&pair.dir), "{}", place.display());
    }
    assert_eq!(places.iter().collect::<std::collections::BTreeSet<_>>().len(), 5, "{places:?}");
    assert_eq!(files::sha256(&outside), before);
    assert!(!lab.folder.join("nowhere").exists());
    assert!(pair.received("report.bin").is_symlink() && pair.received("dangling.bin").is_symlink());
}

/// Names that a Unix file system lets a sender have.
const NAMES: [&str; 14] = [
    "-rf",
    "--help",
    ".bashrc",
    "..",
    "...",
    "CON",
    "nul.txt",
    "com1.tar.gz",
    "a\u{202e}fdp.exe",
    "tab\tand\nline",
    "back\\slash",
    "naïve café 你好.txt",
    " spaces around ",
    "semi;colon&$(true)`true`'\"|<>*?",
];

#[test]
fn names_become_safe_and_every_file_arrives() {
    if !wanted("names_become_safe_and_every_file_arrives") {
        return;
    }
    let lab = Lab::shared();
    let pair = Pair::guests(&lab);
    let long = "ä".repeat(127) + "x";
    let mut sent = vec![];
    for (n, name) in NAMES.iter().copied().chain([long.as_str()]).enumerate() {
        if matches!(name, "..") {
            continue;
        }
        sent.push(files::make(pair.out.join(n.to_string()).join(name), 1000 + n, n as u64));
    }
    let receiver = pair.receive(&["--once"]);
    let sender = pair.sender("auto", &sent.iter().map(PathBuf::as_path).collect::<Vec<_>>()).run();
    kept(sender.exits(0), sent.len());
    let receiver = receiver.finish();
    kept(receiver.exits(0), sent.len());
    let mut want: Vec<String> = sent.iter().map(|path| files::sha256(path)).collect();
    let mut got = vec![];
    for name in files::list(&pair.dir) {
        println!("{name:?}");
        assert!(!name.starts_with(['.', '-', ' ']) && name.len() <= 255, "{name:?}");
        assert!(!name.contains(|c: char| c.is_control() || "\u{202e}\\/".contains(c)), "{name:?}");
        got.push(files::sha256(&pair.received(&name)));
    }
    want.sort();
    got.sort();
    assert_eq!(got, want);
}

#[test]
fn a_stranger_sends_nothing_and_learns_nothing() {
    if !wanted("a_stranger_sends_nothing_and_learns_nothing") {
        return;
    }
    let lab = Lab::shared();
    let pair = Pair::between(&lab, (format!("{STRANGER}@alpha.test"), lab.pair().1));
    let mut receiver = pair.receiver().start();
    let jid = receiver.wait_for("online")["jid"].as_str().unwrap().to_owned();
    let path = pair.file("unwanted.bin", 1000);
    pair.sender("auto", &[&path]).run().exits(6).says(&["online"]);
    // Nor by the full address, at which a server delivers without asking whose contact it is.
    Offhook::at(&lab, &pair.from, &["send", &jid]).arg(&path).run().exits(6).says(&["online"]);
    let receiver = interrupted(receiver);
    assert!(receiver.all("incoming").is_empty(), "{receiver:#?}");
    pair.has(&[]);
}

#[test]
fn who_has_no_device_that_takes_files_is_told_at_once() {
    if !wanted("who_has_no_device_that_takes_files_is_told_at_once") {
        return;
    }
    let lab = Lab::shared();
    let pair = Pair::guests(&lab);
    let path = pair.file("a.bin", 1000);
    let send = |to: &str| Offhook::at(&lab, &pair.from, &["send", to]).arg(&path).start();
    let fails = |what: &str, program: Program| {
        let done = program.finish();
        println!("{what}: {}", done.stderr.lines().last().unwrap_or_default());
        done.exits(6).says(&["online"]);
    };
    let gone = format!("{}/gone", pair.to);
    for (what, program) in [("offline", &pair.to), ("no such device", &gone)].map(|(what, to)| (what, send(to))) {
        fails(what, program);
    }
    let simple = Raw::sign_in(&lab, &pair.to).be_simple();
    for (what, program) in [("knows no files", send(&pair.to)), ("knows no files, full JID", send(&simple.jid))] {
        fails(what, program);
    }
}

#[test]
fn what_is_declined_too_large_missing_or_interrupted_ends_with_its_own_code() {
    if !wanted("what_is_declined_too_large_missing_or_interrupted_ends_with_its_own_code") {
        return;
    }
    let lab = Lab::shared();
    let pair = Pair::guests(&lab);
    let path = pair.file("a.bin", 100_000);
    // No file.
    pair.sender("auto", &[&pair.out.join("missing.bin")]).run().exits(11).says(&["missing.bin"]);
    // Larger than the receiver takes: it is told so, another file beside it is taken.
    let receiver = pair.receive(&["--max-size", "64K"]);
    pair.sender("auto", &[&path]).run().exits(12);
    let small = pair.file("small.bin", 1000);
    pair.sender("auto", &[&path, &small]).run().exits(12);
    interrupted(receiver);
    pair.has(&["small.bin"]);
    // A person declines.
    let by_hand = Offhook::at(&lab, &pair.to, &["receive"]).arg("--dir").arg(&pair.dir);
    let mut receiver = by_hand.start_on_terminal(&lab.folder);
    receiver.wait_for("online");
    let sender = pair.sender("auto", &[&path]).start();
    receiver.wait_for("incoming");
    receiver.press('q');
    sender.finish().exits(7);
    // A person accepts, then.
    let sender = pair.sender("auto", &[&path]).start();
    receiver.wait_for("incoming");
    receiver.press('a');
    sender.finish().exits(0);
    receiver.wait_for("file");
    receiver.press('\u{3}');
    receiver.finish().exits(130);
    same(&path, &pair.received("a.bin"));
}

/// What two islands need to talk through their servers, and what else a test lets them reach.
struct Sea {
    servers: [Arc<Ferry>; 2],
    proxies: [Arc<Ferry>; 2],
    turn: Arc<Ferry>,
}

impl Sea {
    fn new(lab: &Lab) -> Self {
        let at = |port: u16| [&lab.alpha, &lab.beta].map(|server| Ferry::tcp(SocketAddr::new(server.ip, port)));
        Self { servers: at(5222), proxies: at(5000), turn: Ferry::udp(lab.turn.addr) }
    }

    fn proxied(&self) -> u64 {
        self.proxies.iter().map(|ferry| ferry.out()).sum()
    }
}

/// Puts a program on an island of its own.
fn marooned(program: Offhook, ferries: &[&Arc<Ferry>]) -> Offhook {
    let ferries: Vec<&Ferry> = ferries.iter().map(|it| &***it).collect();
    program.by(|program| on_island(&ferries, program))
}

#[test]
fn each_way_that_fails_is_followed_by_the_next() {
    if !wanted("each_way_that_fails_is_followed_by_the_next") {
        return;
    }
    let lab = Lab::shared();
    let sea = Sea::new(&lab);
    let [[a, b], [pa, pb]] = [&sea.servers, &sea.proxies].map(|[one, two]| [one, two]);
    let turn = &sea.turn;
    // The ferries of both, the ways that may be used, and what carries the file in the end.
    type Case<'a> = (&'a str, Vec<&'a Arc<Ferry>>, &'a str, &'a str);
    let cases: [Case<'_>; 5] = [
        ("the servers' proxies only", vec![pa, pb], "s5b", "s5b-proxy"),
        ("nothing direct, by itself", vec![pa, pb], "auto", "s5b-proxy"),
        ("a relay but no TCP", vec![turn], "auto", "datachannel"),
        ("a relay only", vec![turn], "datachannel", "datachannel"),
        ("the servers only", vec![], "auto", "ibb"),
    ];
    for (what, more, transport, way) in cases {
        let pair = Pair::guests(&lab);
        let path = pair.file("island.bin", MIB);
        let ferries = |own| [vec![own], more.clone()].concat();
        let receiver = online(marooned(pair.receiver().arg("--once"), &ferries(b)));
        let (start, before) = (Instant::now(), [sea.proxied(), turn.out(), a.out()]);
        let sender = marooned(pair.sender(transport, &[&path]), &ferries(a)).run();
        let carried = [sea.proxied(), turn.out(), a.out()];
        println!("{what}: {:?} in {:?}, {:?}", ways(&sender), start.elapsed(), sender.all("fallback"));
        kept(sender.exits(0), 1);
        kept(receiver.finish().exits(0), 1);
        same(&path, &pair.received("island.bin"));
        assert_eq!(ways(&sender).last().unwrap(), way, "{what}: {sender:#?}");
        let index = ["s5b-proxy", "datachannel", "ibb"].iter().position(|it| *it == way).unwrap();
        let through = carried[index] - before[index];
        assert!(through >= MIB as u64, "{what}: {through} bytes by {way}");
    }
}

#[test]
fn a_proxy_that_is_silent_costs_seconds_and_no_file() {
    if !wanted("a_proxy_that_is_silent_costs_seconds_and_no_file") {
        return;
    }
    let lab = Lab::shared();
    let sea = Sea::new(&lab);
    let pair = Pair::guests(&lab);
    let path = pair.file("patience.bin", 100_000);
    let receiver =
        online(marooned(pair.receiver().arg("--once"), &[&sea.servers[1], &sea.proxies[0], &sea.proxies[1]]));
    sea.proxies.iter().for_each(|ferry| ferry.stop_after(0));
    let start = Instant::now();
    let ferries = [&sea.servers[0], &sea.proxies[0], &sea.proxies[1]];
    let sender = marooned(pair.sender("auto", &[&path]), &ferries).run();
    println!("{:?} in {:?}", ways(&sender), start.elapsed());
    kept(sender.exits(0), 1);
    kept(receiver.finish().exits(0), 1);
    assert_eq!(ways(&sender), ["ibb"]);
    assert!(start.elapsed() < Duration::from_secs(55), "{:?}", start.elapsed());
}

#[test]
fn a_forced_way_that_does_not_work_ends_with_the_code_of_a_path() {
    if !wanted("a_forced_way_that_does_not_work_ends_with_the_code_of_a_path") {
        return;
    }
    let lab = Lab::shared();
    let sea = Sea::new(&lab);
    let pair = Pair::guests(&lab);
    let path = pair.file("nowhere.bin", 1000);
    let receiver = online(marooned(pair.receiver(), &[&sea.servers[1]]));
    for way in ["s5b", "datachannel"] {
        let start = Instant::now();
        let sender = marooned(pair.sender(way, &[&path]), &[&sea.servers[0]]).run();
        println!("{way}: {:?}: {}", start.elapsed(), sender.stderr.lines().last().unwrap_or_default());
        sender.exits(9).says(&["--transport ibb"]);
    }
    interrupted(receiver);
    pair.has(&[]);
}

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Sender,
    Receiver,
    /// The TCP connection alone.
    Stream,
}

/// One cut at a time: they wait for each other's seconds, and the machine has few processors.
static CUT: Mutex<()> = Mutex::new(());

/// Sends 4 MiB over the servers' proxies, which lose the connection when `share` of it has passed; then sends it again.
fn cut_and_resumed(lab: &Lab, share: f64, victim: Victim) {
    let _one = CUT.lock().unwrap_or_else(PoisonError::into_inner);
    let sea = Sea::new(lab);
    let pair = Pair::guests(lab);
    let size = 4 * MIB;
    let path = pair.file("cut.bin", size);
    let at = (size as f64 * share) as u64;
    let [ra, rb] = [0, 1].map(|n| [&sea.servers[n], &sea.proxies[0], &sea.proxies[1]]);
    // The server keeps the session of a killed receiver for a while, in case that it comes back: the device is named.
    let receiver = || {
        let mut program = marooned(pair.receiver(), &rb).start();
        let jid = program.wait_for("online")["jid"].as_str().unwrap().to_owned();
        (program, jid)
    };
    let (mut receiving, mut device) = receiver();
    let send = |device: &str| marooned(pair.sender_to(device, "s5b", &[&path]), &ra);
    // The greeting and the request of SOCKS5 come first, on both ends and perhaps at both proxies: let them pass.
    let order = |ferry: &Arc<Ferry>| match victim {
        Victim::Stream => ferry.sink_after(at + 200),
        Victim::Sender | Victim::Receiver => ferry.stop_after(at + 200),
    };
    sea.proxies.iter().for_each(order);
    let mut sending = send(&device).start();
    let start = Instant::now();
    let stopped = |limit: Duration| sea.proxies.iter().any(|ferry| ferry.stopped_within(limit));
    while share < 1.0 && !stopped(Duration::from_millis(20)) {
        assert!(
            start.elapsed() < program::LIMIT,
            "{share} {victim:?}: {} bytes passed\n{}",
            sea.proxied(),
            sending.stderr()
        );
    }
    if share >= 1.0 {
        // All bytes are through; whether the end was told is a matter of moments.
        sending.wait_for("connected");
        while sea.proxied() < size as u64 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // What has passed is on its way to the disk.
    std::thread::sleep(Duration::from_millis(200));
    let lost = Instant::now();
    let resumed = match victim {
        Victim::Sender => {
            drop(sending.kill());
            sea.proxies.iter().for_each(|ferry| ferry.renew());
            None
        }
        Victim::Receiver => {
            drop(receiving.kill());
            sea.proxies.iter().for_each(|ferry| ferry.renew());
            (receiving, device) = receiver();
            sending.interrupt();
            drop(sending.finish());
            None
        }
        Victim::Stream => {
            sea.proxies.iter().for_each(|ferry| ferry.renew());
            Some(sending)
        }
    };
    let before = sea.proxied();
    // A sender that lives tries again by itself; one that has given up is started again.
    let done = resumed.and_then(|program| program.finish_or_interrupt(Duration::from_secs(20)));
    let done = done.unwrap_or_else(|| send(&device).run());
    kept(done.exits(0), 1);
    let receiving = interrupted(receiving);
    let offset = receiving.all("progress").first().map(|it| it["bytes"].clone());
    let again = (sea.proxied() - before).saturating_sub(size as u64 - at.min(size as u64));
    println!(
        "{share} {victim:?} after {:?}: {again} bytes again, first progress {offset:?}, {:?}",
        lost.elapsed(),
        files::list(&pair.dir)
    );
    if share < 1.0 {
        assert!(again <= SENT_AGAIN, "{share} {victim:?}: {again} bytes were sent again: {receiving:#?}");
    }
    // At the very end a file may be complete on one side and lost on the other: it is recognized when it comes again.
    pair.has(&["cut.bin"]);
    same(&path, &pair.received("cut.bin"));
}

#[test]
fn a_killed_sender_resumes_wherever_it_was() {
    if !wanted("a_killed_sender_resumes_wherever_it_was") {
        return;
    }
    let lab = Lab::shared();
    for share in [0.0, 0.01, 0.5, 0.99, 1.0] {
        cut_and_resumed(&lab, share, Victim::Sender);
    }
}

#[test]
fn a_killed_receiver_resumes_wherever_it_was() {
    if !wanted("a_killed_receiver_resumes_wherever_it_was") {
        return;
    }
    let lab = Lab::shared();
    for share in [0.0, 0.01, 0.5, 0.99, 1.0] {
        cut_and_resumed(&lab, share, Victim::Receiver);
    }
}

#[test]
fn a_lost_connection_is_made_again_and_goes_on_where_it_was() {
    if !wanted("a_lost_connection_is_made_again_and_goes_on_where_it_was") {
        return;
    }
    let lab = Lab::shared();
    for share in [0.0, 0.01, 0.5, 0.99] {
        cut_and_resumed(&lab, share, Victim::Stream);
    }
}

#[test]
fn a_sender_that_is_interrupted_leaves_a_part_and_no_file() {
    if !wanted("a_sender_that_is_interrupted_leaves_a_part_and_no_file") {
        return;
    }
    let lab = Lab::shared();
    let sea = Sea::new(&lab);
    let pair = Pair::guests(&lab);
    let path = pair.file("interrupted.bin", 2 * MIB);
    let [ra, rb] = [0, 1].map(|n| [&sea.servers[n], &sea.proxies[0], &sea.proxies[1]]);
    let mut receiver = online(marooned(pair.receiver(), &rb));
    sea.proxies.iter().for_each(|ferry| ferry.stop_after(MIB as u64));
    let mut sender = marooned(pair.sender("s5b", &[&path]), &ra).start();
    sender.wait_for("connected");
    let start = Instant::now();
    while !sea.proxies.iter().any(|ferry| ferry.stopped_within(Duration::from_millis(20))) {
        assert!(start.elapsed() < program::LIMIT);
    }
    sender.interrupt();
    sender.finish().exits(130);
    assert_eq!(receiver.wait_for("ended")["by"], "remote");
    assert!(!pair.received("interrupted.bin").exists());
    sea.proxies.iter().for_each(|ferry| ferry.renew());
    let before = sea.proxied();
    marooned(pair.sender("s5b", &[&path]), &ra).run().exits(0);
    let again = (sea.proxied() - before).saturating_sub(MIB as u64);
    interrupted(receiver);
    pair.has(&["interrupted.bin"]);
    same(&path, &pair.received("interrupted.bin"));
    assert!(again <= SENT_AGAIN, "{again} bytes were sent again");
}

#[test]
fn names_of_bytes_that_are_no_text_are_sent_too() {
    if !wanted("names_of_bytes_that_are_no_text_are_sent_too") {
        return;
    }
    let lab = Lab::shared();
    let pair = Pair::guests(&lab);
    let path = files::make(pair.out.join(std::ffi::OsStr::from_bytes(b"caf\xe9.bin")), 1000, 1);
    let receiver = pair.receive(&["--once"]);
    kept_here(pair.sender("auto", &[&path]).run().exits(0));
    let done = receiver.finish();
    kept(done.exits(0), 1);
    let got = PathBuf::from(done.all("file")[0]["path"].as_str().unwrap());
    same(&path, &got);
}

/// A sender's event; its path may not be text.
#[track_caller]
fn kept_here(done: &Done) {
    let all: Vec<&Value> = done.all("file");
    assert_eq!(all.len(), 1, "{done:#?}");
}

/// A small disk; taken away again when dropped.
struct Disk(PathBuf);

impl Disk {
    fn of(mebibytes: usize, at: &Path) -> Self {
        let size = format!("size={mebibytes}m");
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &size, "offhook-test"]).arg(at).status();
        assert!(
            mount.is_ok_and(|s| s.success()),
            "this test mounts a tmpfs and needs root; OFFHOOK_INTEROP=none skips it"
        );
        Self(at.to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_in_the_middle_keeps_the_part_and_room_lets_it_go_on() {
    if !wanted("a_disk_that_fills_in_the_middle_keeps_the_part_and_room_lets_it_go_on") {
        return;
    }
    let lab = Lab::shared();
    let sea = Sea::new(&lab);
    let pair = Pair::guests(&lab);
    let _disk = Disk::of(8, &pair.dir);
    let path = pair.file("large.bin", 6 * MIB);
    let [ra, rb] = [0, 1].map(|n| [&sea.servers[n], &sea.proxies[0], &sea.proxies[1]]);
    let receiver = online(marooned(pair.receiver().arg("--once"), &rb));
    sea.proxies.iter().for_each(|ferry| ferry.stop_after(2 * MIB as u64));
    let sender = marooned(pair.sender("s5b", &[&path]), &ra).start();
    let start = Instant::now();
    while !sea.proxies.iter().any(|ferry| ferry.stopped_within(Duration::from_millis(20))) {
        assert!(start.elapsed() < program::LIMIT);
    }
    // There was room for all of it when it was accepted; somebody else takes that now.
    fs::write(pair.received("other"), files::noise(5 * MIB, 5)).unwrap();
    sea.proxies.iter().for_each(|ferry| ferry.stop_after(1 << 40));
    let receiver = receiver.finish();
    receiver.exits(11).says(&["no space left on the disk"]);
    let sender = sender.finish();
    println!("sender: {:?} {}", sender.code, sender.stderr.lines().last().unwrap_or_default());
    sender.exits(12);
    assert!(!pair.received("large.bin").exists());
    let there = fs::metadata(pair.received("large.bin.part")).unwrap().len();
    assert!(there >= MIB as u64, "{there}");
    fs::remove_file(pair.received("other")).unwrap();
    let receiver = online(marooned(pair.receiver().arg("--once"), &rb));
    let before = sea.proxied();
    marooned(pair.sender("s5b", &[&path]), &ra).run().exits(0);
    kept(receiver.finish().exits(0), 1);
    let again = sea.proxied() - before;
    assert!(again <= 6 * MIB as u64 - there + SENT_AGAIN, "{again} bytes for the rest behind {there}");
    same(&path, &pair.received("large.bin"));
    pair.has(&["large.bin"]);
}

//! Files to and from somebody else's byte streams: SOCKS5 (XEP-0065) and in-band (XEP-0047) of slixmpp, with a Jingle file
//! transfer on top that does on purpose what peers do wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/files.rs"]
mod files;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/slixmpp.rs"]
mod slixmpp;

use program::{Offhook, Program};
use prosody::Lab;
use prosody::coturn::wanted;
use serde_json::{Value, json};
use slixmpp::Slixmpp;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SIZE: usize = 300_000;

/// slixmpp at alpha.test, offhook at beta.test.
struct Two<'a> {
    lab: &'a Lab,
    peer: Slixmpp,
    ours: String,
    folder: PathBuf,
    dir: PathBuf,
    file: PathBuf,
}

impl<'a> Two<'a> {
    fn new(lab: &'a Lab) -> Self {
        let (theirs, ours) = lab.pair();
        let folder = files::folder(&lab.folder, &ours.replace(['@', '.'], "-"));
        let dir = files::folder(&folder, "in");
        let file = files::make(folder.join("file.bin"), SIZE, 1);
        Self { lab, peer: Slixmpp::start(lab, &theirs), ours, folder, dir, file }
    }

    fn receiver(&self) -> Offhook {
        Offhook::at(self.lab, &self.ours, &["receive", "--accept", "contacts"]).arg("--dir").arg(&self.dir)
    }

    fn online(&self, program: Offhook) -> (Program, String) {
        let mut program = program.start();
        let jid = program.wait_for("online")["jid"].as_str().unwrap().to_owned();
        (program, jid)
    }

    fn sender(&self, way: &str) -> Offhook {
        Offhook::at(self.lab, &self.ours, &["send", &self.peer.jid, "--transport", way]).arg(&self.file)
    }

    /// The folder has this and nothing else; it is emptied.
    #[track_caller]
    fn holds(&self, names: &[&str]) {
        assert_eq!(files::settled(&self.dir), names);
        files::folder(&self.folder, "in");
    }

    /// slixmpp sends `plan`; what both said in the end.
    #[track_caller]
    fn takes(&mut self, receiver: &mut Program, jid: &str, plan: Value, way: &str) {
        let start = Instant::now();
        let what = plan.to_string();
        let file = self.file.clone();
        self.peer.send(jid, &file, plan);
        let got = receiver.wait_for("file");
        println!("{what}: {:?}", start.elapsed());
        assert_eq!((&got["bytes"], &got["verified"]), (&json!(SIZE), &json!(true)), "{what}");
        let path = Path::new(got["path"].as_str().unwrap());
        assert_eq!(files::sha256(path), files::sha256(&self.file), "{what}");
        assert_eq!(self.peer.wait_for("sent")["kind"], way, "{what}");
        assert_eq!(self.peer.wait_for("ended")["reason"], "success", "{what}: {:#?}", self.peer.history);
        receiver.wait_for("ended");
        self.holds(&["file.bin"]);
    }

    /// slixmpp follows `plan` as offhook sends.
    #[track_caller]
    fn gives(&mut self, way: &str, plan: Value, kind: &str) -> program::Done {
        let start = Instant::now();
        let what = plan.to_string();
        let got = self.folder.join("got");
        let _ = std::fs::remove_file(&got);
        self.peer.receive(&got, plan);
        let done = self.sender(way).run();
        println!("{way} {what}: {:?}, {:?}", start.elapsed(), done.all("connected"));
        done.exits(0);
        let file = self.peer.wait_for("file");
        assert_eq!((&file["right"], &file["kind"]), (&json!(true), &json!(kind)), "{what}: {:#?}", self.peer.history);
        assert_eq!(files::sha256(&got), files::sha256(&self.file), "{what}");
        self.peer.wait_for("ended");
        done
    }
}

#[test]
fn slixmpp_sends_by_every_stream() {
    if !wanted("slixmpp_sends_by_every_stream") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    let (mut receiver, jid) = two.online(two.receiver());
    for (plan, way) in [
        (json!({}), "direct"),
        (json!({ "late_checksum": true }), "direct"),
        // Ours is dialled, theirs is not there.
        (json!({ "bad": ["no-direct"] }), "direct"),
        (json!({ "bad": ["dead-direct"] }), "direct"),
        // Theirs is dialled, by us.
        (json!({ "bad": ["dead-dial"] }), "direct"),
        (json!({ "bad": ["no-direct", "dead-dial", "proxy"] }), "proxy"),
        (json!({ "way": "ibb" }), "ibb"),
        (json!({ "way": "ibb", "block": 65535, "late_checksum": true }), "ibb"),
        (json!({ "way": "ibb", "block": 1000 }), "ibb"),
    ] {
        two.takes(&mut receiver, &jid, plan, way);
    }
    let accepted = two.peer.all("accepted")[0].clone();
    // J260-03: the same sid, and never a mode.
    assert_eq!((&accepted["sid_same"], &accepted["mode"]), (&json!(true), &Value::Null));
    receiver.interrupt();
    receiver.finish().exits(130);
}

#[test]
fn slixmpp_receives_by_every_stream() {
    if !wanted("slixmpp_receives_by_every_stream") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    for (way, plan, kind) in [
        ("auto", json!({}), "direct"),
        ("s5b", json!({ "bad": ["no-candidates"] }), "direct"),
        ("s5b", json!({ "bad": ["dead-dial"] }), "direct"),
        ("s5b", json!({ "bad": ["received-first"] }), "direct"),
        ("s5b", json!({ "bad": ["no-candidates", "proxy-only"] }), "proxy"),
        ("s5b", json!({ "bad": ["no-direct", "dead-dial", "proxy"] }), "proxy"),
        ("ibb", json!({}), "ibb"),
        ("ibb", json!({ "block": 1024, "bad": ["received-first"] }), "ibb"),
    ] {
        two.gives(way, plan, kind);
    }
    let offer = two.peer.all("incoming")[0].clone();
    // J234-02 and J234-04: an offer, with a hash.
    assert_eq!((&offer["senders"], &offer["algorithm"]), (&json!("initiator"), &json!("sha-256")), "{offer}");
    two.peer.receive(&two.folder.join("got"), json!({ "bad": ["decline"] }));
    two.sender("auto").run().exits(7);
}

#[test]
fn what_fails_over_socks5_goes_in_band() {
    if !wanted("what_fails_over_socks5_goes_in_band") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    // We send, so we replace: nobody can be dialled, wrong DST.ADDR, refusal, a proxy that is claimed but was never met,
    // one that we are to be let into and are not.
    for bad in [
        json!(["dead-dial", "no-candidates"]),
        json!(["dead-dial", "dead-direct"]),
        json!(["wrong-dstaddr", "no-candidates"]),
        json!(["dead-dial", "refuse-socks"]),
        json!(["dead-dial", "no-direct", "proxy", "no-activate"]),
    ] {
        let done = two.gives("auto", json!({ "bad": bad }), "ibb");
        assert!(!done.all("fallback").is_empty(), "{done:#?}");
    }
    two.gives("auto", json!({ "bad": ["claim-proxy", "proxy-only", "no-candidates"] }), "ibb");
    // They send, so they replace, and we accept.
    let (mut receiver, jid) = two.online(two.receiver());
    for bad in [
        json!(["dead-dial", "no-direct"]),
        json!(["wrong-dstaddr", "no-direct"]),
        json!(["dead-dial", "refuse-socks"]),
        json!(["dead-dial", "no-direct", "proxy", "no-activate"]),
    ] {
        two.takes(&mut receiver, &jid, json!({ "bad": bad }), "ibb");
    }
    receiver.interrupt();
    receiver.finish().exits(130);
}

#[test]
fn a_server_that_never_answers_costs_seconds() {
    if !wanted("a_server_that_never_answers_costs_seconds") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    let start = Instant::now();
    two.gives("auto", json!({ "bad": ["dead-dial", "silent-socks"] }), "ibb");
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

/// J260-10: the initiator's choice, whoever that is.
#[test]
fn of_equal_priorities_the_initiators_choice_carries() {
    if !wanted("of_equal_priorities_the_initiators_choice_carries") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    two.gives("s5b", json!({ "bad": ["equal"] }), "direct");
    let nominated = two.peer.all("nominated").last().unwrap()["by"].clone();
    assert_eq!(nominated, "them");
    // As responder we offer no priority that the initiator has, so that there is nothing to decide.
    let (mut receiver, jid) = two.online(two.receiver());
    two.takes(&mut receiver, &jid, json!({}), "direct");
    let candidates = two.peer.all("accepted").last().unwrap()["candidates"].clone();
    let priority = |it: &Value| it["priority"].as_str().unwrap().parse::<u32>().unwrap();
    let best = candidates.as_array().unwrap().iter().map(priority).max().unwrap();
    two.takes(&mut receiver, &jid, json!({ "priority": best }), "direct");
    let candidates = two.peer.all("accepted").last().unwrap()["candidates"].clone();
    assert!(candidates.as_array().unwrap().iter().all(|it| priority(it) != best), "{candidates}");
    receiver.interrupt();
    receiver.finish().exits(130);
}

#[test]
fn a_wrong_block_ends_its_stream_and_leaves_no_file() {
    if !wanted("a_wrong_block_ends_its_stream_and_leaves_no_file") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    let (mut receiver, mut jid) = two.online(two.receiver());
    for (bad, conditions) in [
        ("seq-skipped", vec!["unexpected-request"]),
        ("seq-repeated", vec!["unexpected-request"]),
        ("bad-base64", vec!["bad-request"]),
        ("padding-inside", vec!["bad-request"]),
        ("oversize", vec!["bad-request", "not-acceptable"]),
        ("unknown-sid", vec!["item-not-found"]),
        ("open-larger", vec!["resource-constraint"]),
        ("open-unknown", vec!["item-not-found", "not-acceptable"]),
    ] {
        let file = two.file.clone();
        two.peer.send(&jid, &file, json!({ "way": "ibb", "block": 4096, "bad": [bad] }));
        let error = two.peer.wait_for("error");
        println!("{bad}: {error}");
        assert!(conditions.iter().any(|it| error["condition"] == *it), "{bad}: {error}");
        // slixmpp gives up and ends nothing; whatever we do with its session, the next one is taken.
        assert!(!two.dir.join("file.bin").exists(), "{bad}");
        receiver.interrupt();
        receiver.finish().exits(130);
        assert!(!two.dir.join("file.bin").exists(), "{bad}");
        files::folder(&two.folder, "in");
        (receiver, jid) = two.online(two.receiver());
        two.takes(&mut receiver, &jid, json!({ "way": "ibb" }), "ibb");
    }
    receiver.interrupt();
    receiver.finish().exits(130);
}

#[test]
fn who_lies_of_size_or_hash_leaves_no_file() {
    if !wanted("who_lies_of_size_or_hash_leaves_no_file") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    for (lie, way) in [("size-lie", "s5b"), ("size-lie", "ibb"), ("hash-lie", "s5b"), ("hash-lie", "ibb")] {
        let (receiver, jid) = two.online(two.receiver().arg("--once"));
        let file = two.file.clone();
        two.peer.send(&jid, &file, json!({ "way": way, "bad": [lie] }));
        let done = receiver.finish();
        println!("{lie} {way}: {}", done.stderr.lines().last().unwrap_or_default());
        done.exits(11);
        assert!(!two.dir.join("file.bin").exists(), "{lie} {way}: {:?}", files::list(&two.dir));
        assert!(done.all("file").is_empty(), "{done:#?}");
        two.peer.wait_until("the end", |it| it["event"] == "ended" || it["event"] == "error");
    }
    // What was spoiled is no start for the right one.
    let (receiver, jid) = two.online(two.receiver().arg("--once"));
    let file = two.file.clone();
    two.peer.send(&jid, &file, json!({}));
    receiver.finish().exits(0);
    assert_eq!(two.peer.wait_for("sent")["offset"], 0);
    let kept: Vec<String> = files::list(&two.dir).into_iter().filter(|it| !it.contains(".part")).collect();
    assert_eq!(kept, ["file.bin"]);
    assert_eq!(files::sha256(&two.dir.join("file.bin")), files::sha256(&two.file));
}

/// What a sender may call a file, and nothing of it may leave the folder.
const NAMES: [&str; 17] = [
    "../../escaped",
    "/etc/passwd",
    "..\\..\\escaped",
    "C:\\Windows\\escaped.exe",
    "..",
    "",
    "....//....//escaped",
    "%2e%2e%2fescaped",
    ".ssh/authorized_keys",
    ".bash_profile",
    "-rf",
    "CON.txt",
    "a\u{202e}gpj.exe",
    "\u{200b}\u{feff}",
    "trailing. . .",
    "a\tb\nc",
    "file.bin.part",
];

#[test]
fn no_name_leaves_the_folder() {
    if !wanted("no_name_leaves_the_folder") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    let (mut receiver, jid) = two.online(two.receiver());
    let long = "x".repeat(300) + ".txt";
    let mut small = files::make(two.folder.join("file.bin"), 1000, 2);
    let before = files::list(&two.folder);
    for (n, name) in NAMES.iter().copied().chain([long.as_str()]).enumerate() {
        // A peer may begin eight sessions at once, and then one in two seconds.
        if n >= 7 {
            std::thread::sleep(Duration::from_millis(1900));
        }
        // What is the same as a moment ago, under the name that it got then, is recognized.
        small = files::make(small, 1000, n as u64);
        two.peer.send(&jid, &small, json!({ "name": name }));
        let got = receiver.wait_for("file");
        let path = Path::new(got["path"].as_str().unwrap());
        println!("{name:?} → {:?}", path.file_name().unwrap());
        assert_eq!(path.parent(), Some(two.dir.as_path()), "{name:?}");
        let kept = path.file_name().unwrap().to_str().unwrap();
        assert!(!kept.starts_with(['.', '-']) && kept.len() <= 255 && !kept.contains(char::is_control), "{kept:?}");
        assert_eq!(files::sha256(path), files::sha256(&small), "{name:?}");
        two.peer.wait_for("ended");
    }
    assert_eq!(files::settled(&two.dir).len(), NAMES.len() + 1, "{:?}", files::list(&two.dir));
    assert_eq!(files::list(&two.folder), before);
    receiver.interrupt();
    receiver.finish().exits(130);
}

/// threats: the addresses of a streamhost are the sender's word, and loopback is nobody's streamhost.
#[test]
fn no_connection_goes_where_a_streamhost_has_no_business() {
    if !wanted("no_connection_goes_where_a_streamhost_has_no_business") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    let trap = TcpListener::bind("[::]:0").unwrap();
    let port = trap.local_addr().unwrap().port();
    let met = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&met);
    std::thread::spawn(move || {
        for _ in trap.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let outside = Offhook::outside(&lab, &two.ours, &["receive", "--accept", "contacts"]).arg("--dir").arg(&two.dir);
    let (mut receiver, jid) = two.online(outside);
    let hosts = [
        ["127.0.0.1", "::1", "localhost", "0.0.0.0"],
        ["::", "::ffff:127.0.0.1", "0", "127.1"],
        ["2130706433", "0x7f.1", "[::1]", "::ffff:7f00:1"],
        ["169.254.169.254", "fe80::1", "64:ff9b::7f00:1", "2002:7f00:1::"],
    ];
    for four in hosts {
        let hosts: Vec<_> = four.iter().map(|host| json!([host, port])).collect();
        two.takes(&mut receiver, &jid, json!({ "bad": ["dead-dial"], "hosts": hosts }), "ibb");
        assert_eq!(met.load(Ordering::SeqCst), 0, "{four:?}");
    }
    receiver.interrupt();
    receiver.finish().exits(130);
}

#[test]
fn a_range_is_honoured_by_either_side() {
    if !wanted("a_range_is_honoured_by_either_side") {
        return;
    }
    let lab = Lab::shared();
    let mut two = Two::new(&lab);
    // J234-08: slixmpp has the first bytes already.
    for (way, offset) in [("s5b", 100_000), ("ibb", 299_999), ("s5b", SIZE)] {
        let got = two.folder.join("got");
        std::fs::write(&got, &std::fs::read(&two.file).unwrap()[..offset]).unwrap();
        two.peer.receive(&got, json!({ "offset": offset }));
        let done = two.sender(way).run();
        done.exits(0);
        assert_eq!(two.peer.wait_for("file")["right"], true, "{:#?}", two.peer.history);
        assert_eq!(files::sha256(&got), files::sha256(&two.file));
    }
    // A sender that stops in the middle, then offers the same again.
    let (mut receiver, jid) = two.online(two.receiver());
    for way in ["s5b", "ibb"] {
        let file = two.file.clone();
        two.peer.send(&jid, &file, json!({ "way": way, "stop_at": 200_000 }));
        two.peer.wait_for("stopped");
        receiver.wait_for("ended");
        assert!(!two.dir.join("file.bin").exists());
        two.peer.send(&jid, &file, json!({ "way": way }));
        let offset = two.peer.wait_for("sent")["offset"].as_u64().unwrap();
        println!("{way}: goes on at {offset}");
        assert!(offset > 0 && offset <= 200_000, "{offset}");
        let got = receiver.wait_for("file");
        assert_eq!(got["verified"], true);
        assert_eq!(files::sha256(&two.dir.join("file.bin")), files::sha256(&two.file));
        receiver.wait_for("ended");
        two.holds(&["file.bin"]);
    }
    receiver.interrupt();
    receiver.finish().exits(130);
}

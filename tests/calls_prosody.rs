//! The main job on real input: the real program, two accounts on two federated Prosody servers, a spoken WAV file each
//! way; and every way in which it can fail, with its exit code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/raw.rs"]
mod raw;
#[path = "common/speech.rs"]
mod speech;

use program::{Done, Offhook, Program};
use prosody::child::Running;
use prosody::coturn::wanted;
use prosody::{Lab, STRANGER};
use raw::Raw;
use serde_json::Value;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Correlation that a recording must reach; see `likeness` for how it is defined. A quiet machine gives 0.92 to 0.99, the
/// other voice 0.2 to 0.33; a machine that is late with its 20 ms makes the jitter buffer stretch the sound, which costs
/// some of it.
const HEARD: f32 = 0.8;

/// Only one call at a time has its sound compared: the others would make the machine late.
static SOUND: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Two people, one program each, both of which play speech and record what they hear.
struct Call<'a> {
    lab: &'a Lab,
    caller: String,
    callee: String,
    files: PathBuf,
    /// Further arguments.
    both: Vec<&'static str>,
    caller_has: Vec<&'static str>,
    callee_has: Vec<&'static str>,
    direct_tls: bool,
}

impl<'a> Call<'a> {
    fn between(lab: &'a Lab, (caller, callee): (String, String)) -> Self {
        let files = lab.folder.join(caller.replace('@', "-"));
        std::fs::create_dir_all(&files).unwrap();
        for (which, name) in ["caller", "callee"].iter().enumerate() {
            speech::speak(which, &files.join(format!("{name}-says.wav")));
        }
        Self { lab, caller, callee, files, both: vec![], caller_has: vec![], callee_has: vec![], direct_tls: false }
    }

    fn guests(lab: &'a Lab) -> Self {
        Self::between(lab, lab.pair())
    }

    fn program(&self, name: &str, jid: &str, words: &[&str], more: &[&'static str]) -> Offhook {
        let file = |what: &str| self.files.join(format!("{name}-{what}.wav"));
        let server = self.lab.server_of(jid);
        let server = if self.direct_tls { server.direct_tls() } else { server.c2s() };
        let command = Offhook::new(words).account(jid).server(&server).trusting(self.lab).arg("--lab");
        command.arg("--play").arg(file("says")).arg("--record").arg(file("hears")).args(&self.both).args(more)
    }

    /// Starts who answers and waits until it is online; gives its full JID.
    fn answerer(&self) -> (Program, String) {
        let words = ["answer", "--auto-answer", "contacts", "--once"];
        let mut callee = self.program("callee", &self.callee, &words, &self.callee_has).start();
        let jid = callee.wait_for("online")["jid"].as_str().unwrap().to_owned();
        (callee, jid)
    }

    fn call(&self, to: &str) -> Program {
        self.program("caller", &self.caller, &["call", to], &self.caller_has).start()
    }

    /// Both recordings carry the other side's speech.
    fn both_heard(&self, threshold: f32) {
        for (says, hears) in [("caller", "callee"), ("callee", "caller")] {
            let said = speech::read(&self.files.join(format!("{says}-says.wav")));
            let own = speech::read(&self.files.join(format!("{hears}-says.wav")));
            let heard = speech::read(&self.files.join(format!("{hears}-hears.wav")));
            let likeness = speech::likeness(&said, &heard);
            println!("{} → {}: {likeness:?}", says, hears);
            assert!(likeness.correlation > threshold, "{hears} hears {says}: {likeness:?}");
            assert!(likeness.seconds >= 1.5, "{hears} hears {says}: {likeness:?}");
            // The measure tells one voice from the other.
            let other = speech::likeness(&own, &heard);
            assert!(other.correlation < 0.5, "{hears} hears itself: {other:?}");
        }
    }
}

fn connected(done: &Done) -> Value {
    let all = done.all("connected");
    assert_eq!(all.len(), 1, "{done:#?}");
    let event = all[0].clone();
    assert_eq!(event["encrypted"], true, "{event}");
    println!("{event}\n{}", done.all("stats").last().map(|it| it.to_string()).unwrap_or_default());
    event
}

/// Says on stderr what the exit code means, and by whom the call ended.
#[track_caller]
fn ended_by(done: &Done, by: &str) {
    let ended = done.all("ended");
    assert_eq!(ended.len(), 1, "{done:#?}");
    assert_eq!(ended[0]["by"], by, "{done:#?}");
}

const BY_HAND: [&str; 2] = ["answer", "--null-audio"];

#[test]
fn romeo_and_mercutio_talk_across_two_servers() {
    if !wanted("romeo_and_mercutio_talk_across_two_servers") {
        return;
    }
    let _alone = SOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lab = Lab::shared();
    let mut call = Call::between(&lab, ("romeo@alpha.test".into(), "mercutio@beta.test".into()));
    call.caller_has = vec!["--duration", "4"];
    let (callee, _) = call.answerer();
    let caller = call.call(&call.callee);
    let (caller, callee) = (caller.finish(), callee.finish());
    caller.exits(0);
    callee.exits(0);
    for done in [&caller, &callee] {
        let facts = connected(done);
        assert_eq!(facts["codec"], "opus");
        assert_eq!(facts["pair"], "host-host");
        assert!(!done.all("stats").is_empty());
    }
    ended_by(&caller, "local");
    ended_by(&callee, "remote");
    assert_eq!(callee.all("incoming").len(), 1);
    call.both_heard(HEARD);
}

#[test]
fn a_relayed_call_shows_only_the_relays_addresses() {
    if !wanted("a_relayed_call_shows_only_the_relays_addresses") {
        return;
    }
    let _alone = SOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lab = Lab::shared();
    let mut call = Call::guests(&lab);
    call.both = vec!["--relay-only"];
    call.caller_has = vec!["--duration", "4"];
    let (callee, _) = call.answerer();
    let caller = call.call(&call.callee);
    let (caller, callee) = (caller.finish(), callee.finish());
    for done in [&caller, &callee] {
        let facts = connected(done.exits(0));
        assert_eq!(facts["pair"], "relay-relay");
        let remote = facts["remote"].as_str().unwrap();
        assert!(remote.starts_with(&lab.turn.addr.ip().to_string()), "{facts}");
    }
    call.both_heard(HEARD);
}

#[test]
fn pcmu_over_direct_tls_to_a_full_jid_with_digits_until_the_callee_hangs_up() {
    if !wanted("pcmu_over_direct_tls_to_a_full_jid_with_digits_until_the_callee_hangs_up") {
        return;
    }
    let _alone = SOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lab = Lab::shared();
    let mut call = Call::guests(&lab);
    call.both = vec!["--codec", "pcmu", "--direct-tls"];
    call.direct_tls = true;
    // A digit takes 250 ms; they begin when the speech is over, at the earliest.
    call.callee_has = vec!["--duration", "5"];
    let (callee, jid) = call.answerer();
    let caller = call.call(&jid);
    let (caller, callee) = (caller.finish(), callee.finish());
    for done in [&caller, &callee] {
        assert_eq!(connected(done.exits(0))["codec"], "PCMU");
    }
    ended_by(&caller, "remote");
    ended_by(&callee, "local");
    call.both_heard(HEARD);
}

#[test]
fn digits_arrive_in_order_and_once_each() {
    if !wanted("digits_arrive_in_order_and_once_each") {
        return;
    }
    let lab = Lab::shared();
    let (caller, callee) = lab.pair();
    let words = ["answer", "--null-audio", "--auto-answer", "contacts", "--once"];
    let mut callee = Offhook::at(&lab, &callee, &words).start();
    let jid = callee.wait_for("online")["jid"].as_str().unwrap().to_owned();
    let words = ["call", &jid, "--tone", "300", "--dtmf", "0123456789*#"];
    let caller = Offhook::at(&lab, &caller, &words).start();
    for digit in "0123456789*#".chars() {
        assert_eq!(callee.wait_for("dtmf")["digit"], digit.to_string());
    }
    // A copy of the last one would come within its repetitions.
    callee.wait_for("stats");
    callee.wait_for("stats");
    callee.interrupt();
    let done = callee.finish();
    done.exits(130);
    assert_eq!(done.all("dtmf").len(), 12, "{done:#?}");
    caller.finish().exits(0);
}

#[test]
fn a_wrong_fingerprint_ends_the_call_and_the_right_one_does_not() {
    if !wanted("a_wrong_fingerprint_ends_the_call_and_the_right_one_does_not") {
        return;
    }
    let lab = Lab::shared();
    let (caller, callee) = lab.pair();
    let record = lab.folder.join("fingerprint.wav");
    let mut answering = Offhook::at(&lab, &callee, &["answer", "--tone", "440", "--auto-answer", "contacts"]).start();
    answering.wait_for("online");
    let call = |fingerprint: Option<&str>| {
        let words = ["call", &callee, "--tone", "300", "--duration", "1"];
        let program = Offhook::at(&lab, &caller, &words).arg("--record").arg(&record);
        match fingerprint {
            Some(fingerprint) => program.args(["--require-fingerprint", fingerprint]).run(),
            None => program.run(),
        }
    };
    let wrong = call(Some(&"ab".repeat(32)));
    wrong.exits(10).says(&["certificate"]);
    assert!(wrong.all("connected").is_empty(), "{wrong:#?}");
    // Nothing was decoded.
    assert!(!record.exists() || speech::power(&speech::read(&record)) == 0.0);
    let first = call(None);
    let fingerprint = connected(first.exits(0))["dtls_fingerprint"].as_str().unwrap().to_owned();
    let right = call(Some(fingerprint.trim_start_matches("sha-256 ")));
    assert_eq!(connected(right.exits(0))["dtls_fingerprint"], fingerprint.as_str());
    answering.interrupt();
    answering.finish().exits(130);
}

#[test]
fn ctrl_c_on_either_side_ends_the_call_for_both_at_once() {
    if !wanted("ctrl_c_on_either_side_ends_the_call_for_both_at_once") {
        return;
    }
    let lab = Lab::shared();
    let (caller_jid, callee_jid) = lab.pair();
    for caller_stops in [true, false] {
        let words = ["answer", "--null-audio", "--auto-answer", "contacts", "--once"];
        let mut callee = Offhook::at(&lab, &callee_jid, &words).start();
        callee.wait_for("online");
        let mut caller = Offhook::at(&lab, &caller_jid, &["call", &callee_jid, "--null-audio"]).start();
        caller.wait_for("connected");
        callee.wait_for("connected");
        let (stopped, mut other) = if caller_stops { (caller, callee) } else { (callee, caller) };
        let start = Instant::now();
        stopped.interrupt();
        let (at, ended) = other.wait_until("ended", |e| e["event"] == "ended");
        let took = at - start;
        println!("seen after {took:?}: {ended}");
        assert_eq!(ended["by"], "remote");
        assert!(took < Duration::from_secs(1), "the other side saw the end after {took:?}");
        stopped.finish().exits(130);
        other.finish().exits(0);
    }
}

#[test]
fn who_cannot_sign_in_is_told_why() {
    if !wanted("who_cannot_sign_in_is_told_why") {
        return;
    }
    let lab = Lab::shared();
    let (account, to) = lab.pair();
    let words = ["call", to.as_str(), "--null-audio", "--lab"];
    let ip = lab.alpha.ip;
    // It has a certificate of the right authority, but for beta.test.
    let impostor = format!("{ip}:5999");
    let mut command = std::process::Command::new("openssl");
    command.args(["s_server", "-quiet", "-accept", &impostor]);
    command.arg("-cert").arg(lab.folder.join("beta.test.crt")).arg("-key").arg(lab.folder.join("beta.test.key"));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let _impostor = Running::spawn(&mut command, "openssl");
    while TcpStream::connect(&impostor).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let cases: Vec<(&str, i32, Vec<&str>, Offhook)> = vec![
        (
            "wrong password",
            4,
            vec!["password"],
            Offhook::at(&lab, &account, &["call", &to, "--null-audio"]).password("wrong"),
        ),
        (
            "unknown host",
            5,
            vec!["no-such-host.invalid"],
            Offhook::new(&words).account(&account).server("no-such-host.invalid:5222").trusting(&lab),
        ),
        (
            "nothing listens",
            5,
            vec!["refused"],
            Offhook::new(&words).account(&account).server(&format!("{ip}:1")).trusting(&lab),
        ),
        (
            "an unknown authority",
            10,
            vec!["certificate", "--ca-file"],
            Offhook::new(&words).account(&account).server(&lab.alpha.c2s()),
        ),
        (
            "a certificate for another name",
            10,
            vec!["certificate"],
            Offhook::new(&words).account(&account).server(&impostor).arg("--direct-tls").trusting(&lab),
        ),
    ];
    let started: Vec<_> =
        cases.into_iter().map(|(name, code, parts, program)| (name, code, parts, program.start())).collect();
    for (name, code, parts, program) in started {
        let done = program.finish();
        println!("{name}: {}", done.stderr.lines().last().unwrap_or_default());
        done.exits(code).says(&parts);
        assert!(done.all("online").is_empty(), "{name}: {done:#?}");
    }
}

#[test]
fn who_cannot_be_reached_is_told_at_once() {
    if !wanted("who_cannot_be_reached_is_told_at_once") {
        return;
    }
    let lab = Lab::shared();
    let (account, to) = lab.pair();
    let call = |to: &str| Offhook::at(&lab, &account, &["call", to, "--null-audio"]).start();
    let fails = |name: &str, program: Program| {
        let done = program.finish();
        println!("{name}: {}", done.stderr.lines().last().unwrap_or_default());
        done.exits(6).says(&["online"]);
        let online = done.events.iter().find(|(_, e)| e["event"] == "online").unwrap().0;
        let took = online.elapsed();
        assert!(took < Duration::from_secs(15), "{name}: only after {took:?}");
    };
    let gone = format!("{to}/gone");
    let offline = [("offline", to.as_str()), ("no such device", &gone), ("no such user", "nobody@beta.test")];
    let programs = offline.map(|(name, to)| (name, call(to)));
    for (name, program) in programs {
        fails(name, program);
    }
    let simple = Raw::sign_in(&lab, &to).be_simple();
    let programs = [("knows no calls", call(&to)), ("knows no calls, full JID", call(&simple.jid))];
    for (name, program) in programs {
        fails(name, program);
    }
}

#[test]
fn a_call_is_declined_by_key_and_not_answered_in_time() {
    if !wanted("a_call_is_declined_by_key_and_not_answered_in_time") {
        return;
    }
    let lab = Lab::shared();
    let (caller, callee) = lab.pair();
    let mut answering = Offhook::at(&lab, &callee, &BY_HAND).start_on_terminal(&lab.folder);
    answering.wait_for("online");
    let mut declined = Offhook::at(&lab, &caller, &["call", &callee, "--null-audio"]).start();
    answering.wait_for("incoming");
    declined.wait_for("ringing");
    answering.press('q');
    declined.finish().exits(7).says(&["declined"]);
    let unanswered = Offhook::at(&lab, &caller, &["call", &callee, "--null-audio", "--timeout", "2"]).start();
    answering.wait_for("incoming");
    unanswered.finish().exits(8).says(&["--timeout"]);
    // It stops ringing there.
    answering.wait_for("ended");
    let mut given_up = Offhook::at(&lab, &caller, &["call", &callee, "--null-audio"]).start();
    given_up.wait_for("ringing");
    given_up.interrupt();
    given_up.finish().exits(130);
    answering.wait_for("ended");
    answering.press_until_it_ends('\u{3}').exits(130);
}

#[test]
fn who_is_in_a_call_is_busy() {
    if !wanted("who_is_in_a_call_is_busy") {
        return;
    }
    let lab = Lab::shared();
    let words = ["answer", "--null-audio", "--auto-answer", "contacts"];
    let mut callee = Offhook::at(&lab, "nurse@beta.test", &words).start();
    callee.wait_for("online");
    let mut first = Offhook::at(&lab, "juliet@alpha.test", &["call", "nurse@beta.test", "--null-audio"]).start();
    first.wait_for("connected");
    callee.wait_for("connected");
    let second =
        Offhook::at(&lab, "mercutio@alpha.test", &["call", "nurse@beta.test", "--null-audio", "--timeout", "20"]).run();
    second.exits(7).says(&["busy"]);
    first.interrupt();
    first.finish().exits(130);
    assert_eq!(callee.wait_for("ended")["by"], "remote");
    callee.interrupt();
    callee.finish().exits(130);
}

#[test]
fn without_a_path_both_sides_say_so() {
    if !wanted("without_a_path_both_sides_say_so") {
        return;
    }
    let lab = Lab::shared();
    let (caller, callee) = lab.pair();
    let words = ["answer", "--null-audio", "--auto-answer", "contacts", "--once"];
    // The callee may only use a relay, and not one on a loopback address.
    let mut answering = Offhook::outside(&lab, &callee, &words).arg("--relay-only").start();
    answering.wait_for("online");
    let done = Offhook::at(&lab, &caller, &["call", &callee, "--null-audio"]).run();
    done.exits(9).says(&["--relay-only", "--lab"]);
    assert!(done.all("connected").is_empty(), "{done:#?}");
    answering.finish().exits(9).says(&["--lab"]);
}

#[test]
fn a_stranger_learns_nothing_and_disturbs_nobody() {
    if !wanted("a_stranger_learns_nothing_and_disturbs_nobody") {
        return;
    }
    let lab = Lab::shared();
    let mut callee =
        Offhook::at(&lab, "romeo@beta.test", &["answer", "--null-audio", "--auto-answer", "contacts"]).start();
    let jid = callee.wait_for("online")["jid"].as_str().unwrap().to_owned();
    let stranger = format!("{STRANGER}@alpha.test");
    let call = |to: &str| {
        let done = Offhook::at(&lab, &stranger, &["call", to, "--null-audio", "--timeout", "5"]).run();
        done.exits(6);
        done
    };
    // The device that is there answers exactly as the one that is not.
    let (there, gone) = (call(&jid), call("romeo@beta.test/gone"));
    let error = |done: &Done| done.stderr.lines().find(|l| l.starts_with("error:")).unwrap().to_owned();
    assert_eq!(error(&there), error(&gone));
    let names: fn(&Done) -> Vec<String> =
        |done| done.events.iter().map(|(_, e)| e["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names(&there), names(&gone));
    assert!(
        callee.names().iter().all(|n| n == "online" || n == "signalling"),
        "{:?} {}",
        callee.names(),
        callee.stderr()
    );
    callee.interrupt();
    let done = callee.finish();
    done.exits(130);
    assert!(!done.stderr.contains(STRANGER), "{}", done.stderr);
}

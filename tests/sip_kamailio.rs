//! The real program as a telephone of a real Kamailio, which only passes calls on: both ends talk with each other, here with
//! the softphone baresip and with another offhook.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/baresip.rs"]
mod baresip;
#[path = "common/kamailio.rs"]
mod kamailio;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/speech.rs"]
mod speech;

use baresip::Baresip;
use kamailio::Kamailio;
use program::{Done, Offhook, Program};
use prosody::coturn::wanted;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Correlation that a recording must reach; see `likeness`.
const HEARD: f32 = 0.8;

/// Only one test at a time has its sound compared: the others would make the machine late.
fn alone() -> MutexGuard<'static, ()> {
    static SOUND: Mutex<()> = Mutex::new(());
    SOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

fn phone(proxy: &Kamailio, user: &str, words: &[&str]) -> Offhook {
    Offhook::new(words).account(&format!("sip:{user}@kam.test")).server(&proxy.sip())
}

/// A telephone that answers whatever comes, once.
fn answering(phone: Offhook) -> Program {
    let mut program = phone.args(["--auto-answer", "all", "--once"]).start();
    program.wait_for("online");
    program
}

fn connected(done: &Done) -> &Value {
    let all = done.all("connected");
    assert_eq!(all.len(), 1, "{done:#?}");
    all[0]
}

#[track_caller]
fn same_speech(what: &str, said: &Path, heard: &Path) {
    let likeness = speech::likeness(&speech::read(said), &speech::read(heard));
    println!("{what}: {likeness:?}");
    assert!(likeness.correlation > HEARD && likeness.seconds >= 1.5, "{what}: {likeness:?}");
}

/// Speech of each: ours, and the softphone's at 8 kHz.
fn voices(proxy: &Kamailio) -> [PathBuf; 2] {
    let [ours, theirs] = ["ours", "theirs"].map(|name| proxy.folder.join(format!("{name}.wav")));
    speech::speak(0, &ours);
    speech::speak_at(1, 8000, &theirs);
    [ours, theirs]
}

fn softphone(proxy: &Kamailio, user: &str, media: &str) -> baresip::Setup {
    let setup = baresip::account(&format!("sip:{user}@kam.test"), &proxy.sip());
    match media {
        "sdes" => setup.with("mediaenc=srtp-mand"),
        "dtls" => setup.with("mediaenc=dtls_srtp"),
        _ => setup,
    }
}

/// Both have spoken and hang up; each heard the other.
#[track_caller]
fn both_heard(what: &str, done: &Done, ours: &Path, theirs: &Path, hears: &Path, bob: &Baresip) {
    let media = connected(done.exits(0));
    println!("{what}: {media}");
    same_speech(&format!("{what}, we hear"), theirs, hears);
    same_speech(&format!("{what}, it hears"), ours, bob.recordings().last().unwrap());
}

#[test]
fn we_call_a_softphone_plain_with_sdes_and_with_dtls() {
    if !wanted("we_call_a_softphone_plain_with_sdes_and_with_dtls") {
        return;
    }
    let _alone = alone();
    let proxy = Kamailio::start();
    let [ours, theirs] = voices(&proxy);
    for media in ["plain", "sdes", "dtls"] {
        let hears = proxy.folder.join(format!("{media}.wav"));
        let mut bob = softphone(&proxy, "bob", media).says(&theirs, 8000).start();
        let caller = phone(&proxy, "alice", &["call", "sip:bob@kam.test", "--duration", "5", "--media", media]);
        let caller = caller.arg("--play").arg(&ours).arg("--record").arg(&hears).start();
        bob.hears_of("CALL_ESTABLISHED");
        let done = caller.finish();
        bob.hears_of("CALL_CLOSED");
        both_heard(media, &done, &ours, &theirs, &hears, &bob);
        assert_eq!(connected(&done)["encrypted"], media != "plain");
    }
}

#[test]
fn a_softphone_calls_us_plain_with_sdes_and_with_dtls() {
    if !wanted("a_softphone_calls_us_plain_with_sdes_and_with_dtls") {
        return;
    }
    let _alone = alone();
    let proxy = Kamailio::start();
    let [ours, theirs] = voices(&proxy);
    for media in ["plain", "sdes", "dtls"] {
        let hears = proxy.folder.join(format!("{media}.wav"));
        let callee = phone(&proxy, "alice", &["answer", "--media", media]);
        let mut callee = answering(callee.arg("--play").arg(&ours).arg("--record").arg(&hears));
        let mut bob = softphone(&proxy, "bob", media).says(&theirs, 8000).start();
        bob.dial("sip:alice@kam.test");
        let from = callee.wait_for("incoming")["from"].to_string();
        assert!(from.contains("sip:bob@kam.test"), "{from}");
        bob.hears_of("CALL_ESTABLISHED");
        std::thread::sleep(Duration::from_secs(5));
        bob.hang_up();
        let done = callee.finish();
        both_heard(media, &done, &ours, &theirs, &hears, &bob);
        assert_eq!(connected(&done)["encrypted"], media != "plain");
    }
}

#[test]
fn a_softphone_holds_resumes_and_presses_digits() {
    if !wanted("a_softphone_holds_resumes_and_presses_digits") {
        return;
    }
    let proxy = Kamailio::start();
    let mut bob = softphone(&proxy, "bob", "plain").start();
    let words = ["call", "sip:bob@kam.test", "--tone", "300", "--dtmf", "159*"];
    let mut caller = phone(&proxy, "alice", &words).start_on_terminal(&proxy.folder);
    caller.wait_for("connected");
    bob.hears_of("CALL_ESTABLISHED");
    bob.press("147#");
    for digit in ["1", "4", "7", "#"] {
        assert_eq!(caller.wait_for("dtmf")["digit"], digit);
    }
    for (command, on) in [("hold", true), ("resume", false)] {
        bob.ask(command, "");
        let event = caller.wait_for("hold");
        assert_eq!((&event["on"], &event["by"]), (&Value::from(on), &Value::from("remote")));
    }
    for on in [true, false] {
        caller.press('h');
        let event = caller.wait_for("hold");
        assert_eq!((&event["on"], &event["by"]), (&Value::from(on), &Value::from("local")));
    }
    assert_eq!(bob.digits(), "159*");
    caller.press_until_it_ends('q').exits(0);
    bob.hears_of("CALL_CLOSED");
}

#[test]
fn a_softphone_transfers_us() {
    if !wanted("a_softphone_transfers_us") {
        return;
    }
    let proxy = Kamailio::start();
    let mut bob = softphone(&proxy, "bob", "plain").start();
    let mut carol = softphone(&proxy, "carol", "plain").start();
    let mut caller = phone(&proxy, "alice", &["call", "sip:bob@kam.test", "--null-audio"]).start();
    caller.wait_for("connected");
    bob.hears_of("CALL_ESTABLISHED");
    bob.ask("transfer", "sip:carol@kam.test");
    carol.hears_of("CALL_ESTABLISHED");
    bob.hears_of("CALL_CLOSED");
    carol.hang_up();
    caller.finish().exits(0);
}

#[test]
fn two_of_us_talk_over_every_transport() {
    if !wanted("two_of_us_talk_over_every_transport") {
        return;
    }
    let _alone = alone();
    // Passwords are proved by SHA-256 here, and what was once proved has to be proved anew every two seconds.
    let proxy = Kamailio::start_with("SHA-256", Duration::from_secs(2));
    let says = [0, 1].map(|which| {
        let path = proxy.folder.join(format!("says-{which}.wav"));
        speech::speak(which, &path);
        path
    });
    let ip = proxy.ip;
    let servers =
        [format!("udp:{ip}:5060"), format!("tcp:{ip}:5060"), format!("tls:{ip}:5061"), format!("ws:{ip}:8080")];
    // Each calls over one transport somebody who is at the next one.
    for (n, server) in servers.iter().enumerate() {
        let next = &servers[(n + 1) % servers.len()];
        let hears = [0, 1].map(|which| proxy.folder.join(format!("hears-{n}-{which}.wav")));
        let program = |which: usize, user: &str, server: &str, words: &[&str]| {
            let program = Offhook::new(words).account(&format!("sip:{user}@kam.test")).server(server);
            let program = program.arg("--ca-file").arg(&proxy.ca_file).args(["--media", "plain"]);
            program.arg("--play").arg(&says[which]).arg("--record").arg(&hears[which])
        };
        let callee = answering(program(0, "alice", next, &["answer"]));
        let caller = program(1, "bob", server, &["call", "sip:alice@kam.test", "--duration", "5"]).run();
        let callee = callee.finish();
        println!("{server} → {next}: {}", connected(caller.exits(0)));
        callee.exits(0);
        same_speech("callee", &says[1], &hears[0]);
        same_speech("caller", &says[0], &hears[1]);
    }
}

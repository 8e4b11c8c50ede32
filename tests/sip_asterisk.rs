//! The real program as a telephone of a real Asterisk, 22 and 16: every transport, every kind of media, every way in which a
//! call begins, changes hands and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/asterisk.rs"]
mod asterisk;
#[path = "common/baresip.rs"]
mod baresip;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/speech.rs"]
mod speech;

use asterisk::{Asterisk, Version};
use program::{Done, Offhook, Program};
use prosody::child::Running;
use prosody::coturn::wanted;
use prosody::place;
use serde_json::Value;
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Correlation that a recording must reach; see `likeness`.
const HEARD: f32 = 0.8;
const SOON: Duration = Duration::from_secs(5);

/// Only one test at a time has its sound compared: the others would make the machine late.
fn alone() -> MutexGuard<'static, ()> {
    static SOUND: Mutex<()> = Mutex::new(());
    SOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `offhook` with the account of one of the PBX's users, over UDP.
fn phone(pbx: &Asterisk, user: &str, words: &[&str]) -> Offhook {
    Offhook::new(words).account(&format!("sip:{user}@pbx.test")).server(&pbx.sip())
}

/// A call to an extension.
fn call(pbx: &Asterisk, user: &str, extension: &str) -> Offhook {
    phone(pbx, user, &["call", &format!("sip:{extension}@pbx.test")])
}

/// A telephone that answers whatever comes, once.
fn answering(pbx: &Asterisk, user: &str, more: &[&str]) -> Program {
    let mut words = vec!["answer", "--auto-answer", "all", "--once"];
    words.extend_from_slice(more);
    let mut program = phone(pbx, user, &words).start();
    program.wait_for("online");
    pbx.registered(user);
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

/// The extension that sends everything back, called so and so; every one must hear itself.
fn echoes(pbx: &Asterisk, ways: &[(&str, &str, &[&str])]) -> Vec<Done> {
    let says = pbx.folder.join("says.wav");
    speech::speak(0, &says);
    let file = |n: usize| -> PathBuf { pbx.folder.join(format!("hears-{n}.wav")) };
    let start = |(n, (server, user, more)): (usize, &(&str, &str, &[&str]))| {
        let program = Offhook::new(&["call", "sip:600@pbx.test", "--duration", "5"]).arg("--ca-file").arg(&pbx.ca_file);
        let program =
            program.account(&format!("sip:{user}@pbx.test")).server(&server.replace('@', &pbx.ip.to_string()));
        program.arg("--play").arg(&says).arg("--record").arg(file(n)).args(*more).start()
    };
    // More than two at a time would make the machine late.
    let ways: Vec<_> = ways.iter().enumerate().collect();
    let mut all: Vec<Done> = Vec::new();
    for two in ways.chunks(2) {
        let two: Vec<Program> = two.iter().map(|way| start(*way)).collect();
        all.extend(two.into_iter().map(Program::finish));
    }
    for (done, (n, way)) in all.iter().zip(ways) {
        println!("{way:?}: {}", connected(done.exits(0)));
        same_speech(way.0, &says, &file(n));
    }
    pbx.is_idle_within(SOON);
    all
}

#[test]
fn speech_comes_back_over_every_transport() {
    if !wanted("speech_comes_back_over_every_transport") {
        return;
    }
    let _alone = alone();
    let pbx = Asterisk::start();
    let plain: &[&str] = &["--media", "plain"];
    let ways = [
        ("@:5060", "alice", plain),
        ("tcp:@:5060", "alice", plain),
        ("tls:@:5061", "alice", plain),
        ("ws:@:8088", "alice", plain),
        ("wss:@:8089", "alice", plain),
    ];
    for done in echoes(&pbx, &ways) {
        assert_eq!(connected(&done)["encrypted"], false);
        assert!(!done.all("stats").is_empty());
    }
    let log = pbx.log();
    for transport in ["UDP", "TCP", "TLS", "WS", "WSS"] {
        assert!(log.contains(&format!("SIP/2.0/{transport} ")), "nothing came over {transport}");
    }
}

#[test]
fn sdes_and_dtls_with_an_ec_and_an_rsa_certificate() {
    if !wanted("sdes_and_dtls_with_an_ec_and_an_rsa_certificate") {
        return;
    }
    let _alone = alone();
    let pbx = Asterisk::start();
    let ways: [(&str, &str, &[&str]); 4] = [
        ("tls:@:5061", "sdes", &[]),
        ("udp:@:5060", "sdes", &["--media", "sdes"]),
        ("wss:@:8089", "web", &["--media", "dtls", "--lab"]),
        ("tls:@:5061", "webrsa", &["--media", "dtls", "--lab"]),
    ];
    for done in echoes(&pbx, &ways) {
        assert_eq!(connected(&done)["encrypted"], true);
    }
}

#[test]
fn every_codec_brings_speech_back() {
    if !wanted("every_codec_brings_speech_back") {
        return;
    }
    let _alone = alone();
    let pbx = Asterisk::start();
    let ways: [(&str, &str, &[&str]); 4] = [
        ("@:5060", "alice", &["--codec", "opus"]),
        ("@:5060", "alice", &["--codec", "g722"]),
        ("@:5060", "alice", &["--codec", "pcma"]),
        ("@:5060", "alice", &["--codec", "pcmu"]),
    ];
    let codecs: Vec<String> = echoes(&pbx, &ways).iter().map(|done| connected(done)["codec"].to_string()).collect();
    assert_eq!(codecs, ["\"opus\"", "\"G722\"", "\"PCMA\"", "\"PCMU\""]);
}

#[test]
fn the_milliwatt_tone_is_1004_hertz() {
    if !wanted("the_milliwatt_tone_is_1004_hertz") {
        return;
    }
    let pbx = Asterisk::start();
    let hears = pbx.folder.join("tone.wav");
    let tone = call(&pbx, "alice", "601").args(["--null-audio", "--duration", "3"]).arg("--record").arg(&hears);
    tone.run().exits(0);
    assert_tone(&hears, 1004);
}

/// The middle third of a recording is this tone and not much else.
#[track_caller]
fn assert_tone(file: &Path, hz: u32) {
    let heard = speech::read(file);
    let (found, share) = speech::loudest_hz(&heard[heard.len() / 3..heard.len() * 2 / 3], hz - 100, hz + 100);
    println!("{found} Hz, {share} of the power, {} s", heard.len() / speech::RATE_HZ);
    assert!(found.abs_diff(hz) <= 1 && share > 0.9, "{found} Hz, {share} of the power");
}

#[test]
fn digits_go_there_and_come_back_in_rtp_and_in_info() {
    if !wanted("digits_go_there_and_come_back_in_rtp_and_in_info") {
        return;
    }
    let pbx = Asterisk::start();
    // Asterisk takes carol's digits, and sends hers, as INFO.
    for user in ["alice", "carol"] {
        let done = call(&pbx, user, "603").args(["--null-audio", "--dtmf", "4711"]).run();
        let digits: Vec<&str> = done.exits(0).all("dtmf").iter().map(|e| e["digit"].as_str().unwrap()).collect();
        assert_eq!(digits, ["4", "7", "1", "1"], "{user}");
        assert_eq!(done.all("ended")[0]["by"], "remote", "{user}");
    }
    assert_eq!(pbx.log().matches("app_verbose.c: DIGITS 4711").count(), 2);
}

#[test]
fn sound_before_the_answer_is_heard_and_acknowledged() {
    if !wanted("sound_before_the_answer_is_heard_and_acknowledged") {
        return;
    }
    let pbx = Asterisk::start();
    let hears = pbx.folder.join("early.wav");
    let early = call(&pbx, "alice", "604").args(["--null-audio", "--duration", "1"]).arg("--record").arg(&hears).run();
    let names: Vec<&str> = early.exits(0).events.iter().map(|(_, e)| e["event"].as_str().unwrap()).collect();
    let at = |name: &str| names.iter().position(|it| *it == name).unwrap_or_else(|| panic!("no {name}: {names:?}"));
    assert!(at("early_media") < at("connected"), "{names:?}");
    // Half a second of tone, half a second of nothing, and so on.
    let heard = speech::read(&hears);
    let (hz, share) = speech::loudest_hz(&heard[heard.len() / 3..heard.len() * 2 / 3], 340, 540);
    println!("{hz} Hz, {share} of the power");
    assert!(hz.abs_diff(440) <= 1 && share > 0.3, "{hz} Hz, {share} of the power");
    let log = pbx.log();
    assert!(log.contains("\nPRACK sip:") && log.contains("RSeq: "), "not acknowledged");
}

#[test]
fn busy_declined_and_not_answered() {
    if !wanted("busy_declined_and_not_answered") {
        return;
    }
    let pbx = Asterisk::start();
    let cases: [(&str, i32, &[&str], &str); 4] = [
        ("605", 7, &[], "busy"),
        ("606", 7, &[], "rejected"),
        ("607", 8, &["--timeout", "3"], "--timeout"),
        ("699", 6, &[], "404"),
    ];
    let all: Vec<_> = cases
        .iter()
        .map(|(extension, code, more, word)| {
            (extension, code, word, call(&pbx, "alice", extension).arg("--null-audio").args(*more).start())
        })
        .collect();
    for (extension, code, word, program) in all {
        let done = program.finish();
        println!("{extension}: {}", done.stderr.lines().last().unwrap_or_default());
        done.exits(*code).says(&[word]);
        if *extension == "607" {
            assert!(!done.all("ringing").is_empty(), "{done:#?}");
        }
    }
    pbx.says("\nCANCEL sip:607@");
    pbx.is_idle_within(SOON);
}

#[test]
fn ctrl_c_while_it_rings_and_in_the_call() {
    if !wanted("ctrl_c_while_it_rings_and_in_the_call") {
        return;
    }
    let pbx = Asterisk::start();
    for (extension, event) in [("607", "ringing"), ("600", "connected")] {
        let mut program = call(&pbx, "alice", extension).arg("--null-audio").start();
        program.wait_for(event);
        program.interrupt();
        program.finish().exits(130);
        pbx.is_idle_within(SOON);
    }
}

#[test]
fn holding_and_being_held() {
    if !wanted("holding_and_being_held") {
        return;
    }
    let pbx = Asterisk::start();
    // We hold: Asterisk is asked to say nothing, and comes back.
    let mut holder = call(&pbx, "alice", "601").arg("--null-audio").start_on_terminal(&pbx.folder);
    holder.wait_for("connected");
    for (on, times) in [(true, 2), (false, 3)] {
        holder.press('h');
        let event = holder.wait_for("hold");
        assert_eq!((&event["on"], &event["by"]), (&Value::from(on), &Value::from("local")));
        pbx.says_times("\nINVITE sip:", times);
    }
    assert!(pbx.log().contains("a=sendonly") || pbx.log().contains("a=inactive"), "no hold reached Asterisk");
    holder.press_until_it_ends('q').exits(0);
    // We are held, by a softphone behind Asterisk.
    let mut held = answering(&pbx, "held", &["--null-audio"]);
    let mut bob = baresip::account("sip:bob@pbx.test", &pbx.sip()).start();
    bob.dial("sip:625@pbx.test");
    bob.hears_of("CALL_ESTABLISHED");
    held.wait_for("connected");
    for (command, on) in [("hold", true), ("resume", false)] {
        bob.ask(command, "");
        let event = held.wait_for("hold");
        assert_eq!((&event["on"], &event["by"]), (&Value::from(on), &Value::from("remote")));
    }
    bob.hang_up();
    held.finish().exits(0);
}

#[test]
fn asterisk_rings_and_puts_us_through() {
    if !wanted("asterisk_rings_and_puts_us_through") {
        return;
    }
    let _alone = alone();
    let pbx = Asterisk::start();
    let (says, hears) = (pbx.folder.join("says.wav"), pbx.folder.join("hears.wav"));
    speech::speak(1, &says);
    let files = ["--play", says.to_str().unwrap(), "--record", hears.to_str().unwrap()];
    let mut callee = answering(&pbx, "alice", &files);
    pbx.ring("alice", "600");
    callee.wait_for("incoming");
    callee.wait_for("connected");
    std::thread::sleep(Duration::from_millis(4500));
    pbx.hang_up();
    let done = callee.finish();
    assert_eq!(done.exits(0).all("ended")[0]["by"], "remote");
    same_speech("rung", &says, &hears);
}

#[test]
fn asterisk_rings_and_gives_up() {
    if !wanted("asterisk_rings_and_gives_up") {
        return;
    }
    let pbx = Asterisk::start();
    let mut callee = phone(&pbx, "alice", &["answer", "--null-audio"]).start_on_terminal(&pbx.folder);
    callee.wait_for("online");
    pbx.ring("alice", "600");
    callee.wait_for("incoming");
    pbx.says("SIP/2.0 180 Ringing");
    pbx.hang_up();
    let ended = callee.wait_for("ended");
    assert_eq!(ended["by"], "remote", "{ended}");
    pbx.says("SIP/2.0 487 ");
    // It goes on waiting; the next one is declined.
    pbx.ring("alice", "600");
    callee.wait_for("incoming");
    callee.press('q');
    pbx.says("SIP/2.0 603 ");
    pbx.is_idle_within(SOON);
    callee.press_until_it_ends('\u{3}').exits(130);
}

#[test]
fn asterisk_transfers_and_redirects_us() {
    if !wanted("asterisk_transfers_and_redirects_us") {
        return;
    }
    let pbx = Asterisk::start();
    for extension in ["613", "614"] {
        let hears = pbx.folder.join(format!("{extension}.wav"));
        let mut program = call(&pbx, "alice", extension).args(["--null-audio", "--record"]).arg(&hears).start();
        program.wait_for("connected");
        if extension == "613" {
            program.wait_until("transfer", |e| e["event"] == "transfer" && e["state"] == "followed");
        }
        pbx.says("Milliwatt(\"PJSIP/alice-");
        std::thread::sleep(Duration::from_secs(3));
        program.interrupt();
        program.finish().exits(130);
        let heard = speech::read(&hears);
        let end = &heard[heard.len().saturating_sub(speech::RATE_HZ * 3 / 2)..heard.len() - speech::RATE_HZ / 4];
        let (hz, share) = speech::loudest_hz(end, 904, 1104);
        println!("{extension}: {hz} Hz, {share}");
        assert!(hz.abs_diff(1004) <= 1 && share > 0.5, "{extension}: {hz} Hz, {share}");
        pbx.is_idle_within(SOON);
    }
    pbx.says("TRANSFER SUCCESS");
}

#[test]
fn we_transfer_the_other_side() {
    if !wanted("we_transfer_the_other_side") {
        return;
    }
    let pbx = Asterisk::start();
    let mut bob = baresip::account("sip:bob@pbx.test", &pbx.sip()).start();
    let mut caller = call(&pbx, "alice", "621").args(["--null-audio", "--transfer", "sip:601@pbx.test"]).start();
    bob.hears_of("CALL_ESTABLISHED");
    caller.wait_until("transfer", |e| e["event"] == "transfer" && e["state"] == "done");
    caller.finish().exits(0);
    pbx.says("Milliwatt(\"PJSIP/bob-");
    bob.hang_up();
}

#[test]
fn who_cannot_register_is_told_why() {
    if !wanted("who_cannot_register_is_told_why") {
        return;
    }
    let pbx = Asterisk::start();
    let words = ["call", "sip:600@pbx.test", "--null-audio"];
    let offhook = || Offhook::new(&words).account("sip:alice@pbx.test");
    // It has a certificate of the right authority, but for another name and address.
    let [here, there] = place::addresses(&[5061]);
    let ca_file = place::certificates(&pbx.folder, &[("other.test", IpAddr::V4(there))]);
    let impostor = format!("{here}:5061");
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-accept", &impostor]);
    command.arg("-cert").arg(pbx.folder.join("other.test.crt")).arg("-key").arg(pbx.folder.join("other.test.key"));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let _impostor = Running::spawn(&mut command, "openssl");
    while TcpStream::connect(&impostor).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let cases: Vec<(&str, i32, Vec<&str>, Offhook)> = vec![
        ("wrong password", 4, vec!["password"], offhook().server(&pbx.sip()).password("wrong")),
        ("unknown host", 5, vec!["no-such-host.invalid"], offhook().server("no-such-host.invalid")),
        ("nothing listens", 5, vec!["refused"], offhook().server(&format!("tcp:{}:1", pbx.ip))),
        ("an unknown authority", 10, vec!["certificate"], offhook().server(&format!("tls:{}:5061", pbx.ip))),
        (
            "a certificate for another name",
            10,
            vec!["certificate"],
            offhook().arg("--ca-file").arg(&ca_file).server(&format!("tls:{impostor}")),
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
fn a_password_is_proved_by_sha_256_where_only_that_is_taken() {
    if !wanted("a_password_is_proved_by_sha_256_where_only_that_is_taken") {
        return;
    }
    let pbx = Asterisk::start();
    call(&pbx, "strict", "600").args(["--null-audio", "--duration", "1"]).run().exits(0);
    let log = pbx.log();
    assert!(log.contains("algorithm=SHA-256") || log.contains("algorithm=\"SHA-256\""), "no SHA-256 was asked for");
}

#[test]
fn a_registration_outlives_the_pbx() {
    if !wanted("a_registration_outlives_the_pbx") {
        return;
    }
    let mut pbx = Asterisk::start();
    let server = format!("tcp:{}", pbx.sip());
    let mut callee = Offhook::new(&["answer", "--null-audio", "--auto-answer", "all", "--once"])
        .account("sip:alice@pbx.test")
        .server(&server)
        .start();
    callee.wait_for("online");
    pbx.kill();
    std::thread::sleep(Duration::from_secs(1));
    let start = Instant::now();
    pbx.start_again();
    pbx.registered_within("alice", Duration::from_secs(60));
    println!("registered again after {:?}", start.elapsed());
    pbx.ring("alice", "601");
    callee.wait_for("connected");
    pbx.hang_up();
    callee.finish().exits(0);
}

#[test]
fn asterisk_16_is_a_pbx_as_well() {
    if !wanted("asterisk_16_is_a_pbx_as_well") {
        return;
    }
    let _alone = alone();
    let pbx = Asterisk::start_version(Version::Old);
    let ways: [(&str, &str, &[&str]); 5] = [
        ("@:5060", "alice", &[]),
        ("tcp:@:5060", "alice", &["--codec", "pcma"]),
        ("tls:@:5061", "sdes", &[]),
        ("ws:@:8088", "alice", &["--media", "plain"]),
        ("wss:@:8089", "webrsa", &["--media", "dtls", "--lab"]),
    ];
    echoes(&pbx, &ways);
    let done = call(&pbx, "alice", "603").args(["--null-audio", "--dtmf", "4711"]).run();
    assert_eq!(done.exits(0).all("dtmf").len(), 4, "{done:#?}");
    for (extension, code) in [("604", 0), ("605", 7), ("606", 7)] {
        call(&pbx, "alice", extension).args(["--null-audio", "--duration", "1"]).run().exits(code);
    }
    let mut callee = answering(&pbx, "alice", &["--null-audio"]);
    pbx.ring("alice", "601");
    callee.wait_for("connected");
    pbx.hang_up();
    callee.finish().exits(0);
}

//! A browser that somebody else's Jingle code drives calls the real program, and is called by it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/browser.rs"]
mod browser;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/speech.rs"]
mod speech;

use browser::Browser;
use program::{Offhook, Program};
use prosody::coturn::wanted;
use prosody::{Lab, PASSWORD};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Packets each way that make a call.
const PACKETS: u64 = 50;
/// What both play, in Hz; told apart by ear and by [`tone`].
const BROWSER_HZ: u32 = 500;
const OUR_HZ: u32 = 800;

fn sign_in(browser: &mut Browser, lab: &Lab, jid: &str) -> String {
    let server = lab.server_of(jid).websocket();
    let answer = browser.ask(&json!({
        "do": "connect", "jid": jid, "password": PASSWORD, "websocket": server, "hz": BROWSER_HZ
    }));
    answer["jid"].as_str().unwrap().to_owned()
}

fn offhook(lab: &Lab, jid: &str, words: &[&str], record: &PathBuf) -> Offhook {
    Offhook::at(lab, jid, words).args(["--tone", &OUR_HZ.to_string(), "--record"]).arg(record)
}

/// Share of the power of a recording's middle that lies at `hz` (Goertzel).
fn tone(recording: &[f32], hz: u32) -> f32 {
    let middle = &recording[recording.len() / 4..recording.len() * 3 / 4];
    let step = std::f32::consts::TAU * hz as f32 / speech::RATE_HZ as f32;
    // In blocks of 100 ms, so that a clock a little off does not matter.
    let shares = middle.chunks_exact(speech::RATE_HZ / 10).map(|block| {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in block.iter().enumerate() {
            re += sample * (step * n as f32).cos();
            im += sample * (step * n as f32).sin();
        }
        let n = block.len() as f32;
        2.0 * (re * re + im * im) / (n * n) / speech::power(block).max(1e-9)
    });
    let shares: Vec<f32> = shares.collect();
    shares.iter().sum::<f32>() / shares.len() as f32
}

/// The browser has more than [`PACKETS`] each way and hears something.
fn browser_hears(browser: &mut Browser) -> Value {
    browser.stats_until("packets and energy both ways", |it| {
        let packets = |name: &str| it[name].as_u64().unwrap_or(0) > PACKETS;
        packets("packetsIn") && packets("packetsOut") && it["energy"].as_f64().unwrap_or(0.0) > 0.01
    })
}

/// The program has more than [`PACKETS`] each way.
fn program_hears(program: &mut Program) {
    program.wait_until("packets both ways", |event| {
        event["packets_in"].as_u64().unwrap_or(0) > PACKETS && event["packets_out"].as_u64().unwrap_or(0) > PACKETS
    });
}

fn recording_has_the_browsers_tone(path: &Path) {
    let heard = speech::read(path);
    assert!(heard.len() > speech::RATE_HZ, "{} samples", heard.len());
    let (theirs, ours) = (tone(&heard, BROWSER_HZ), tone(&heard, OUR_HZ));
    println!("recording: {theirs:.2} of the power is the browser's tone, {ours:.2} our own");
    assert!(theirs > 0.7 && ours < 0.1, "{theirs} {ours}");
}

/// What either side does in a call is seen by the other.
fn hold_resume_and_mute_from_both_ends(browser: &mut Browser, program: &mut Program) {
    let event = |name: &'static str, on: bool, by: &'static str| {
        move |event: &Value| event["event"] == name && event["on"] == on && event["by"] == by
    };
    browser.tell("hold");
    program.wait_until("hold by the browser", event("hold", true, "remote"));
    browser.tell("resume");
    program.wait_until("resume by the browser", event("hold", false, "remote"));
    browser.tell("mute");
    program.wait_until("mute by the browser", event("mute", true, "remote"));
    browser.tell("unmute");
    program.wait_until("unmute by the browser", event("mute", false, "remote"));
    program.press('h');
    browser.wait_for("hold");
    program.press('h');
    browser.wait_for("resumed");
    program.press('m');
    browser.wait_for("mute");
    program.press('m');
    browser.wait_for("unmute");
    let before = browser.tell("stats")["packetsIn"].as_u64().unwrap();
    browser.stats_until("packets after hold and mute", |it| it["packetsIn"].as_u64().unwrap_or(0) > before + 20);
}

#[test]
fn a_browser_calls_and_is_called() {
    if !wanted("a_browser_calls_and_is_called") {
        return;
    }
    let lab = Lab::start();
    let mut browser = Browser::start(&lab.folder, false);
    let in_browser = sign_in(&mut browser, &lab, "juliet@alpha.test");
    let record = lab.folder.join("heard.wav");

    // It calls, and hangs up.
    let words = ["answer", "--auto-answer", "contacts", "--once"];
    let mut program = offhook(&lab, "nurse@beta.test", &words, &record).start_on_terminal(&lab.folder);
    let own = program.wait_for("online")["jid"].as_str().unwrap().to_owned();
    browser.ask(&json!({ "do": "call", "to": own, "hz": BROWSER_HZ }));
    let facts = program.wait_for("connected");
    println!("{facts}");
    assert_eq!((&facts["codec"], &facts["encrypted"]), (&json!("opus"), &json!(true)));
    program_hears(&mut program);
    println!("{}", browser_hears(&mut browser));
    hold_resume_and_mute_from_both_ends(&mut browser, &mut program);
    browser.tell("end");
    let done = program.finish();
    done.exits(0);
    assert_eq!(done.all("ended")[0]["by"], "remote", "{done:#?}");
    recording_has_the_browsers_tone(&record);

    // It is called, and we hang up.
    let mut program = offhook(&lab, "nurse@beta.test", &["call", &in_browser], &record).start_on_terminal(&lab.folder);
    let facts = program.wait_for("connected");
    println!("{facts}");
    program_hears(&mut program);
    println!("{}", browser_hears(&mut browser));
    hold_resume_and_mute_from_both_ends(&mut browser, &mut program);
    program.press('q');
    browser.wait_for("terminated");
    let done = program.finish();
    done.exits(0);
    assert_eq!(done.all("ended")[0]["by"], "local", "{done:#?}");
    recording_has_the_browsers_tone(&record);
}

#[test]
fn a_browser_that_hides_its_addresses_is_heard_too() {
    if !wanted("a_browser_that_hides_its_addresses_is_heard_too") {
        return;
    }
    let lab = Lab::start();
    let mut browser = Browser::start(&lab.folder, true);
    let in_browser = sign_in(&mut browser, &lab, "juliet@alpha.test");
    let record = lab.folder.join("heard.wav");
    let words = ["answer", "--auto-answer", "contacts", "--once"];
    let mut program = offhook(&lab, "nurse@beta.test", &words, &record).start();
    let own = program.wait_for("online")["jid"].as_str().unwrap().to_owned();
    browser.ask(&json!({ "do": "call", "to": own, "hz": BROWSER_HZ }));
    program_hears(&mut program);
    browser_hears(&mut browser);
    browser.tell("end");
    program.finish().exits(0);
    let duration = Duration::from_secs(3).as_secs().to_string();
    let caller = offhook(&lab, "nurse@beta.test", &["call", &in_browser, "--duration", &duration], &record).start();
    browser_hears(&mut browser);
    let done = caller.finish();
    done.exits(0);
    recording_has_the_browsers_tone(&record);
    let hidden = |it: &&Value| it["candidate"].as_str().is_some_and(|c| c.contains(".local "));
    assert!(browser.history.iter().any(|it| hidden(&it)), "no .local candidate: {:#?}", browser.history);
}

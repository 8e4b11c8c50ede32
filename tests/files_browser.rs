//! Files to and from a browser: Chromium with npm `stanza`, which knows data channels only (XEP-0343), its own dialect of
//! them, and SHA-1 that comes late.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/browser.rs"]
mod browser;
#[path = "common/files.rs"]
mod files;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;

use base64::Engine as _;
use browser::Browser;
use program::Offhook;
use prosody::coturn::wanted;
use prosody::{Lab, PASSWORD};
use serde_json::json;
use std::path::Path;
use std::time::Instant;

const SIZE: usize = 300_000;

fn sign_in(browser: &mut Browser, lab: &Lab, jid: &str) -> String {
    let websocket = lab.server_of(jid).websocket();
    let connect = json!({ "do": "connect", "jid": jid, "password": PASSWORD, "websocket": websocket, "hz": 400 });
    browser.ask(&connect)["jid"].as_str().unwrap().to_owned()
}

fn both_ways(hide_addresses: bool) {
    let lab = Lab::start();
    let mut browser = Browser::start(&lab.folder, hide_addresses);
    let in_browser = sign_in(&mut browser, &lab, "juliet@alpha.test");

    // From the browser: `hash-used`, then a checksum.
    let dir = files::folder(&lab.folder, "in");
    let words = ["receive", "--accept", "contacts", "--once", "--dir", dir.to_str().unwrap()];
    let mut receiver = Offhook::at(&lab, "nurse@beta.test", &words).start();
    let to = receiver.wait_for("online")["jid"].clone();
    let base64 = base64::engine::general_purpose::STANDARD.encode(files::noise(SIZE, 3));
    let start = Instant::now();
    let sent = browser.ask(&json!({ "do": "sendFile", "to": to, "name": "from browser.bin", "base64": base64 }));
    let done = receiver.finish();
    println!("from the browser: {:?}", start.elapsed());
    done.exits(0);
    let file = done.all("file")[0];
    assert_eq!((&file["bytes"], &file["verified"]), (&json!(SIZE), &json!(true)), "{file}");
    let path = Path::new(file["path"].as_str().unwrap());
    assert_eq!(path, dir.join("from browser.bin"));
    assert_eq!(json!(files::sha256(path)), sent["sha256"]);
    assert_eq!(done.all("connected")[0]["way"], "datachannel");
    assert_eq!(files::list(&dir), ["from browser.bin"]);
    browser.wait_for("terminated");

    // To the browser, by what it has and not by what it has not.
    for transport in ["auto", "datachannel"] {
        let path = files::make(lab.folder.join("out").join(format!("{transport}.bin")), SIZE, 4);
        let words = ["send", &in_browser, "--transport", transport, path.to_str().unwrap()];
        let start = Instant::now();
        let done = Offhook::at(&lab, "nurse@beta.test", &words).run();
        println!("to the browser: {:?}", start.elapsed());
        done.exits(0);
        assert_eq!(done.all("connected")[0]["way"], "datachannel");
        let got = browser.wait_for("file");
        assert_eq!((&got["bytes"], &got["sha256"]), (&json!(SIZE), &json!(files::sha256(&path))), "{got}");
    }
    // Nothing has an end too, each way.
    let path = files::make(lab.folder.join("out").join("nothing.bin"), 0, 4);
    Offhook::at(&lab, "nurse@beta.test", &["send", &in_browser, path.to_str().unwrap()]).run().exits(0);
    let got = browser.wait_for("file");
    assert_eq!((&got["bytes"], &got["sha256"]), (&json!(0), &json!(files::sha256(&path))), "{got}");
    let mut receiver = Offhook::at(&lab, "nurse@beta.test", &words).start();
    let to = receiver.wait_for("online")["jid"].clone();
    browser.ask(&json!({ "do": "sendFile", "to": to, "name": "nothing from browser.bin", "base64": "" }));
    let done = receiver.finish();
    done.exits(0);
    assert_eq!(done.all("file")[0]["bytes"], 0, "{done:#?}");
    let done = Offhook::at(&lab, "nurse@beta.test", &["send", &in_browser, "--transport", "s5b"])
        .arg(files::make(lab.folder.join("never.bin"), 1000, 5))
        .run();
    assert!(matches!(done.code, Some(6 | 9)), "{done:#?}");
    let hidden = browser.history.iter().any(|it| it["candidate"].as_str().is_some_and(|c| c.contains(".local ")));
    assert_eq!(hidden, hide_addresses);
}

#[test]
fn a_browser_sends_and_receives_files() {
    if wanted("a_browser_sends_and_receives_files") {
        both_ways(false);
    }
}

#[test]
fn a_browser_that_hides_its_addresses_sends_and_receives_files() {
    if wanted("a_browser_that_hides_its_addresses_sends_and_receives_files") {
        both_ways(true);
    }
}

//! Session timers (RFC 4028) with a real Asterisk, in real time: a call that is refreshed, and one whose PBX is gone. Both run
//! at the same time; the rest of session timers is shown in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/asterisk.rs"]
mod asterisk;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;

use asterisk::Asterisk;
use program::{Offhook, Program};
use prosody::coturn::wanted;
use std::time::{Duration, Instant};

/// A call of Asterisk's that asks for a session interval of 90 s, the shortest that RFC 4028 §5 allows.
fn call(pbx: &Asterisk) -> Program {
    let words = ["answer", "--auto-answer", "all", "--once", "--tone", "300"];
    let mut callee = Offhook::new(&words).account("sip:timed@pbx.test").server(&pbx.sip()).start();
    callee.wait_for("online");
    pbx.ring("timed", "600");
    callee.wait_for("connected");
    pbx.says("Session-Expires: 90;refresher=");
    callee
}

#[test]
fn a_session_of_90_seconds_is_refreshed() {
    if !wanted("a_session_of_90_seconds_is_refreshed") {
        return;
    }
    let pbx = Asterisk::start();
    let callee = call(&pbx);
    let start = Instant::now();
    // Whoever refreshes does it after half of it: with another INVITE or with UPDATE.
    let refreshes = || {
        let log = pbx.log();
        log.matches("\nINVITE sip:").count() + log.matches("\nUPDATE sip:").count()
    };
    let before = refreshes();
    while refreshes() == before {
        assert!(start.elapsed() < Duration::from_secs(60), "no refresh came");
        std::thread::sleep(Duration::from_millis(500));
    }
    let after = start.elapsed();
    println!("refreshed after {after:?}");
    assert!(after > Duration::from_secs(40), "{after:?}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(pbx.calls(), 1);
    callee.interrupt();
    callee.finish().exits(130);
}

#[test]
fn a_session_whose_pbx_is_gone_ends() {
    if !wanted("a_session_whose_pbx_is_gone_ends") {
        return;
    }
    let pbx = Asterisk::start();
    let mut callee = call(&pbx);
    pbx.freeze();
    let start = Instant::now();
    let (_, ended) = callee.wait_until_within(Duration::from_secs(110), "end", |event| event["event"] == "ended");
    println!("after {:?}: {ended}", start.elapsed());
    // At 45 s the refresh is sent, and 32 s later it is lost; or it should have come by two thirds of the interval.
    assert!(start.elapsed() > Duration::from_secs(20), "{ended}");
    assert_ne!(ended["by"], "remote", "{ended}");
    let done = callee.finish();
    assert!(matches!(done.code, Some(5 | 8 | 9)), "{done:#?}");
}

//! The real program and peers that do what a scenario of sipp says, behind a real Kamailio: things that happen between
//! telephones of different makes, and a flood.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/baresip.rs"]
mod baresip;
#[path = "common/kamailio.rs"]
mod kamailio;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/sipp.rs"]
mod sipp;

use kamailio::Kamailio;
use program::{Offhook, Program};
use prosody::coturn::wanted;
use serde_json::Value;
use std::time::Instant;

fn phone(proxy: &Kamailio, words: &[&str]) -> Offhook {
    Offhook::new(words).account("sip:alice@kam.test").server(&proxy.sip())
}

/// Calls the scenario and waits until it is connected.
fn calls(proxy: &Kamailio) -> Program {
    let mut caller = phone(proxy, &["call", "sip:trunk@kam.test", "--null-audio"]).start();
    caller.wait_for("connected");
    caller
}

/// Waits for whatever the scenario sends.
fn answers(proxy: &Kamailio) -> Program {
    let mut callee = phone(proxy, &["answer", "--null-audio", "--auto-answer", "all", "--once"]).start();
    callee.wait_for("online");
    callee
}

#[test]
fn of_two_places_that_answer_one_gets_the_call_and_the_other_a_bye() {
    if !wanted("of_two_places_that_answer_one_gets_the_call_and_the_other_a_bye") {
        return;
    }
    let proxy = Kamailio::start();
    let mut peer = sipp::scenario("two_183", proxy.trunk).start();
    let mut caller = phone(&proxy, &["call", "sip:trunk@kam.test", "--null-audio"]).start();
    caller.wait_for("early_media");
    caller.wait_for("connected");
    peer.meets("BYE ", 1);
    caller.interrupt();
    let done = caller.finish();
    done.exits(130);
    peer.finish();
    assert_eq!(done.all("connected").len(), 1, "{done:#?}");
}

#[test]
fn early_media_may_change_before_the_answer() {
    if !wanted("early_media_may_change_before_the_answer") {
        return;
    }
    let proxy = Kamailio::start();
    let peer = sipp::scenario("changed_183", proxy.trunk).start();
    let caller = calls(&proxy);
    caller.interrupt();
    caller.finish().exits(130);
    peer.finish();
}

#[test]
fn each_copy_of_an_answer_is_acknowledged() {
    if !wanted("each_copy_of_an_answer_is_acknowledged") {
        return;
    }
    let proxy = Kamailio::start();
    let mut peer = sipp::scenario("repeated_200", proxy.trunk).without_retransmissions().start();
    let caller = calls(&proxy);
    peer.meets("ACK ", 4);
    caller.interrupt();
    let done = caller.finish();
    done.exits(130);
    assert_eq!(done.all("connected").len(), 1, "{done:#?}");
    peer.finish();
}

#[test]
fn two_new_offers_at_once_are_both_refused_and_ours_is_made_again() {
    if !wanted("two_new_offers_at_once_are_both_refused_and_ours_is_made_again") {
        return;
    }
    let proxy = Kamailio::start();
    let mut peer = sipp::scenario("glare", proxy.trunk).start();
    let words = ["call", "sip:trunk@kam.test", "--null-audio"];
    let mut caller = phone(&proxy, &words).start_on_terminal(&proxy.folder);
    caller.wait_for("connected");
    let start = Instant::now();
    caller.press('h');
    let (at, event) = caller.wait_until("hold", |e| e["event"] == "hold" && e["on"] == true);
    let took = at - start;
    println!("held after {took:?}: {event}");
    assert_eq!(event["by"], "local");
    // RFC 3261 §14.1: the owner of the Call-ID waits 2.1 to 4 s.
    peer.meets("SIP/2.0 491", 2);
    peer.meets("ACK ", 4);
    caller.press_until_it_ends('q').exits(0);
    peer.finish();
}

#[test]
fn a_peer_holds_with_every_spelling() {
    if !wanted("a_peer_holds_with_every_spelling") {
        return;
    }
    let proxy = Kamailio::start();
    let peer = sipp::scenario("held_by_it", proxy.trunk).start();
    let mut caller = calls(&proxy);
    for on in [true, false] {
        let event = caller.wait_until("hold", |e| e["event"] == "hold" && e["on"] == on).1;
        assert_eq!(event["by"], "remote");
    }
    caller.finish().exits(0);
    peer.finish();
}

#[test]
fn an_offer_is_made_to_who_calls_without_one() {
    if !wanted("an_offer_is_made_to_who_calls_without_one") {
        return;
    }
    let proxy = Kamailio::start();
    let callee = answers(&proxy);
    sipp::scenario("late_offer", proxy.trunk).calls("alice", &proxy.sip()).run();
    let done = callee.finish();
    assert_eq!(done.exits(0).all("connected").len(), 1, "{done:#?}");
}

#[test]
fn ringing_is_reliable_for_who_insists() {
    if !wanted("ringing_is_reliable_for_who_insists") {
        return;
    }
    let proxy = Kamailio::start();
    let callee = answers(&proxy);
    sipp::scenario("wants_prack", proxy.trunk).calls("alice", &proxy.sip()).run();
    callee.finish().exits(0);
}

#[test]
fn digits_in_info_are_heard() {
    if !wanted("digits_in_info_are_heard") {
        return;
    }
    let proxy = Kamailio::start();
    let callee = answers(&proxy);
    sipp::scenario("info_digits", proxy.trunk).calls("alice", &proxy.sip()).run();
    let done = callee.finish();
    let digits: Vec<&Value> = done.exits(0).all("dtmf").iter().map(|e| &e["digit"]).collect();
    assert_eq!(digits, ["4", "7", "#"]);
}

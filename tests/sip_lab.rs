//! The SIP laboratory by itself, without offhook: Asterisk 22 and 16, Kamailio, baresip and sipp talk with each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

#[path = "common/asterisk.rs"]
mod asterisk;
#[path = "common/baresip.rs"]
mod baresip;
#[path = "common/kamailio.rs"]
mod kamailio;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/sipp.rs"]
mod sipp;
#[path = "common/speech.rs"]
mod speech;

use asterisk::{Asterisk, Version};
use kamailio::Kamailio;
use prosody::coturn::wanted;
use prosody::place;
use std::time::{Duration, Instant};

/// What is lost by PCMU, by the softphone's start and end.
const HEARD: f32 = 0.8;

#[test]
fn both_asterisks_send_a_softphones_speech_back() {
    if !wanted("both_asterisks_send_a_softphones_speech_back") {
        return;
    }
    for version in [Version::New, Version::Old] {
        let start = Instant::now();
        let pbx = Asterisk::start_version(version);
        println!("{version:?}: up in {:?}; {}", start.elapsed(), pbx.ask("core show version"));
        let says = pbx.folder.join("says.wav");
        speech::speak_at(0, 8000, &says);
        let mut phone = baresip::account(&format!("sip:alice@{}", pbx.ip), &pbx.sip()).says(&says, 8000).start();
        assert!(pbx.registered("alice").contains(&phone.sip.to_string()));
        phone.dial(&format!("sip:600@{}", pbx.ip));
        phone.hears_of("CALL_ESTABLISHED");
        std::thread::sleep(Duration::from_millis(4500));
        phone.hang_up();
        phone.hears_of("CALL_CLOSED");
        pbx.is_idle_within(Duration::from_secs(5));
        let heard = speech::read(phone.recordings().last().unwrap());
        let likeness = speech::likeness(&speech::read(&says), &heard);
        println!("{version:?}: {likeness:?}");
        assert!(likeness.correlation > HEARD && likeness.seconds > 1.5, "{likeness:?}");
    }
}

#[test]
fn asterisks_tone_is_measured_and_its_digits_come_back() {
    if !wanted("asterisks_tone_is_measured_and_its_digits_come_back") {
        return;
    }
    let pbx = Asterisk::start();
    let mut phone = baresip::account(&format!("sip:alice@{}", pbx.ip), &pbx.sip()).start();
    phone.dial(&format!("sip:601@{}", pbx.ip));
    phone.hears_of("CALL_ESTABLISHED");
    std::thread::sleep(Duration::from_secs(2));
    phone.hang_up();
    phone.hears_of("CALL_CLOSED");
    let heard = speech::read(phone.recordings().last().unwrap());
    let middle = &heard[heard.len() / 3..heard.len() * 2 / 3];
    let (hz, share) = speech::loudest_hz(middle, 900, 1100);
    println!("601: {hz} Hz, {share} of the power");
    assert!(hz.abs_diff(1004) <= 1 && share > 0.9, "{hz} Hz, {share}");
    phone.dial(&format!("sip:603@{}", pbx.ip));
    phone.hears_of("CALL_ESTABLISHED");
    phone.press("4711");
    pbx.says("DIGITS 4711");
    phone.hears_of("CALL_CLOSED");
    assert_eq!(phone.digits(), "4711");
}

#[test]
fn softphones_talk_through_kamailio_plain_with_sdes_and_with_dtls() {
    if !wanted("softphones_talk_through_kamailio_plain_with_sdes_and_with_dtls") {
        return;
    }
    let proxy = Kamailio::start();
    let says = proxy.folder.join("says.wav");
    speech::speak_at(1, 8000, &says);
    let ways = [
        ("plain", "mediaenc=", "udp", "RTP/AVP"),
        ("SDES", "mediaenc=srtp-mand", "tcp", "RTP/SAVP"),
        ("DTLS", "mediaenc=dtls_srtp", "udp", "UDP/TLS/RTP/SAVPF"),
    ];
    for (name, media, transport, profile) in ways {
        let registrar = format!("{};transport={transport}", proxy.sip());
        let setup = |user: &str| {
            let setup = baresip::account(&format!("sip:{user}@kam.test"), &registrar);
            if name == "plain" { setup } else { setup.with(media) }
        };
        let mut caller = setup("alice").says(&says, 8000).start();
        let mut callee = setup("bob").start();
        caller.dial("sip:bob@kam.test");
        caller.hears_of("CALL_ESTABLISHED");
        callee.hears_of("CALL_ESTABLISHED");
        std::thread::sleep(Duration::from_millis(4000));
        callee.hang_up();
        caller.hears_of("CALL_CLOSED");
        assert!(callee.log().contains(profile), "{name}: no {profile}");
        let heard = speech::read(callee.recordings().last().unwrap());
        let likeness = speech::likeness(&speech::read(&says), &heard);
        println!("{name}: {likeness:?}");
        assert!(likeness.correlation > HEARD && likeness.seconds > 1.5, "{name}: {likeness:?}");
    }
}

#[test]
fn sipp_calls_asterisk_with_a_password() {
    if !wanted("sipp_calls_asterisk_with_a_password") {
        return;
    }
    let pbx = Asterisk::start();
    let [ip] = place::addresses(&[5060]);
    let messages = sipp::scenario("calls_echo", ip).calls("600", &pbx.sip()).often(5, 5).run();
    assert_eq!(messages.matches("SIP/2.0 401").count(), 5);
    pbx.is_idle_within(Duration::from_secs(5));
}

#[test]
fn the_scenarios_go_to_their_end_with_a_softphone() {
    if !wanted("the_scenarios_go_to_their_end_with_a_softphone") {
        return;
    }
    let proxy = Kamailio::start();
    let mut phone = baresip::account("sip:alice@kam.test", &proxy.sip()).start();
    for (name, line, times) in [("changed_183", "ACK ", 1), ("repeated_200", "ACK ", 4), ("held_by_it", "ACK ", 4)] {
        let peer = sipp::scenario(name, proxy.trunk);
        let mut peer = if name == "repeated_200" { peer.without_retransmissions().start() } else { peer.start() };
        phone.dial("sip:trunk@kam.test");
        phone.hears_of("CALL_ESTABLISHED");
        peer.meets(line, times);
        if name != "held_by_it" {
            phone.hang_up();
        }
        phone.hears_of("CALL_CLOSED");
        peer.finish();
        println!("{name}: done");
    }
    sipp::scenario("late_offer", proxy.trunk).calls("alice", &proxy.sip()).run();
}

//! Whole SIP calls between endpoints, in virtual time: protection, hold, digits, early media, transfers, loss.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/phones.rs"]
mod phones;

use offhook::endpoint::EndpointConfig;
use offhook::endpoint::event::{CallId, EndKind, Event, Party, TransferStep};
use offhook::endpoint::telephone::{MediaPolicy, MediaSecurity, TelephoneConfig};
use offhook::fault::ReasonCondition;
use offhook::media::codec::CodecName;
use offhook::transport::sdes::SdesKey;
use offhook::transport::srtp::{SrtpProfile, SrtpSender};
use offhook::wire::rtp::{MediaTime, RtpHeader, SeqNo, Ssrc};
use offhook::wire::sdp::SessionDescription;
use offhook::wire::sip::{Message, Method, Response, Status, Tag};
use phones::{Manner, SECOND, Stray, World, at, world};
use std::net::SocketAddr;
use std::time::Duration;

const B: &str = "sip:phone2@192.0.2.2";

fn plain(count: usize, seed: u64) -> World {
    world(count, seed, |_, _, _| {})
}

fn only(security: MediaSecurity, ice: bool) -> World {
    world(2, 1, move |_, telephone, config| {
        telephone.media = MediaPolicy { only: Some(security), ice, keys_in_clear: true, ..MediaPolicy::default() };
        config.media.lab = true;
    })
}

/// Both sides of the call of phone 0, which phone 1 took.
fn sides(world: &World, call: CallId) -> [(usize, CallId); 2] {
    [(0, call), (1, world.phones[1].incoming().expect("it rings there"))]
}

fn assert_talk(world: &World, call: CallId, encrypted: bool) {
    for (phone, id) in sides(world, call) {
        let (heard, events) = (world.phones[phone].heard(id), &world.phones[phone].events);
        assert!(heard.frames > 100 && heard.sent > 100, "{phone}: {heard:?} {events:?}");
        let facts =
            events.iter().find_map(|(_, e)| if let Event::Connected { facts, .. } = e { Some(facts) } else { None });
        assert_eq!(facts.unwrap().profile.is_some(), encrypted, "{phone}");
        let stats = world.phones[phone].endpoint.stats(world.now, id).unwrap();
        assert!(stats.mos > 3.5 && stats.packets_in > 100, "{phone}: {stats:?}");
    }
}

fn assert_over(world: &World, call: CallId, kinds: [EndKind; 2]) {
    for ((phone, id), kind) in sides(world, call).into_iter().zip(kinds) {
        assert_eq!(world.phones[phone].end_kind(id), Some(kind), "{phone}: {:?}", world.phones[phone].ended(id));
        assert_eq!(world.phones[phone].endpoint.calls().count(), 0);
        assert!(world.phones[phone].sockets.is_empty(), "{phone}");
        assert!(world.phones[phone].endpoint.is_quiet(), "{phone}");
    }
}

fn talks_and_ends(mut world: World, encrypted: bool) {
    let call = world.call(0, B);
    world.run_for(4 * SECOND);
    assert_talk(&world, call, encrypted);
    world.run_for(12 * SECOND);
    for (phone, id) in sides(&world, call) {
        // Reports came both ways, and so the round trip is known.
        let rtt = world.phones[phone].endpoint.stats(world.now, id).unwrap().rtt.unwrap();
        assert!(rtt < Duration::from_millis(60), "{phone}: {rtt:?}");
    }
    world.act(0, |e, now| e.hang_up(now, call)).unwrap();
    world.run_for(40 * SECOND);
    assert_over(&world, call, [EndKind::Completed; 2]);
    assert_eq!(world.phones[0].ended(call).unwrap().by, Party::Local);
    let answered = world.phones[1].incoming().unwrap();
    assert_eq!(world.phones[1].ended(answered).unwrap().by, Party::Remote);
    assert!(world.phones.iter().all(|p| p.opened == 1));
}

#[test]
fn a_plain_call_talks_both_ways_and_ends() {
    talks_and_ends(plain(2, 1), false);
}

#[test]
fn a_call_with_keys_of_the_signalling_talks_both_ways() {
    talks_and_ends(only(MediaSecurity::Sdes, true), true);
}

#[test]
fn a_call_with_dtls_talks_both_ways_with_and_without_ice() {
    talks_and_ends(only(MediaSecurity::Dtls, true), true);
    talks_and_ends(only(MediaSecurity::Dtls, false), true);
}

#[test]
fn an_offer_of_ice_is_taken_without_it_by_who_has_none() {
    for without in [0, 1] {
        talks_and_ends(
            world(2, 1, move |index, telephone, config| {
                let ice = index != without;
                telephone.media = MediaPolicy { only: Some(MediaSecurity::Dtls), ice, ..MediaPolicy::default() };
                config.media.lab = true;
            }),
            true,
        );
    }
}

#[test]
fn over_tls_keys_are_told_without_being_asked_for() {
    let mut world = plain(2, 1);
    let call = world.call(0, "sips:phone2@192.0.2.2");
    world.run_for(4 * SECOND);
    assert_talk(&world, call, true);
    // And nowhere else.
    let mut world = plain(2, 1);
    world.call(0, B);
    world.run_for(SECOND);
    assert!(!world.log.iter().any(|text| text.contains("a=crypto")));
}

#[test]
fn each_codec_is_spoken() {
    for codec in CodecName::ALL {
        let mut world = world(2, 3, |_, _, config: &mut EndpointConfig| config.media.codecs = vec![*codec]);
        let call = world.call(0, B);
        world.run_for(4 * SECOND);
        assert_talk(&world, call, false);
        assert_eq!(world.phones[0].endpoint.stats(world.now, call).unwrap().codec, *codec);
    }
}

#[test]
fn while_it_rings_nothing_of_the_callee_is_told_and_no_socket_is_there() {
    let mut world = only(MediaSecurity::Dtls, true);
    world.phones[1].manner = Manner::Waits;
    let call = world.call(0, B);
    world.run_for(5 * SECOND);
    assert!(world.phones[0].has(|e| *e == Event::Ringing(call)));
    assert_eq!((world.phones[1].opened, world.phones[1].datagrams), (0, 0));
    let told: Vec<&String> = world.log.iter().filter(|text| text.starts_with("SIP/2.0")).collect();
    assert!(!told.is_empty() && !told.iter().any(|text| text.contains("m=audio")), "{told:?}");
    // The callee's microphone is not heard before its user says so, whatever the caller does.
    let ringing = world.phones[1].incoming().unwrap();
    assert_eq!(world.phones[1].heard(ringing).sent, 0);
    world.act(1, |e, now| e.accept(now, ringing)).unwrap();
    world.run_for(4 * SECOND);
    assert_talk(&world, call, true);
    assert!(world.act(1, |e, now| e.accept(now, ringing)).is_err(), "twice");
}

#[test]
fn what_the_callee_does_is_what_the_caller_hears_of() {
    let cases: [(Manner, EndKind, EndKind); 2] = [
        (Manner::Rejects(ReasonCondition::Busy), EndKind::Rejected, EndKind::Rejected),
        (Manner::Rejects(ReasonCondition::Decline), EndKind::Rejected, EndKind::Rejected),
    ];
    for (manner, caller, callee) in cases {
        let mut world = plain(2, 1);
        world.phones[1].manner = manner;
        let call = world.call(0, B);
        world.run_for(40 * SECOND);
        assert_over(&world, call, [caller, callee]);
        assert_eq!(world.phones[1].opened, 0);
    }
}

#[test]
fn a_caller_who_gives_up_stops_the_ringing() {
    let mut world = plain(2, 1);
    world.phones[1].manner = Manner::Waits;
    let call = world.call(0, B);
    world.run_for(SECOND);
    world.act(0, |e, now| e.hang_up(now, call)).unwrap();
    world.run_for(40 * SECOND);
    assert_over(&world, call, [EndKind::Cancelled; 2]);
    assert_eq!(world.phones[1].datagrams, 0);
}

#[test]
fn who_is_not_there_is_told_as_such() {
    let mut world = plain(1, 1);
    let call = world.call(0, "sip:nobody@192.0.2.77");
    world.run_for(60 * SECOND);
    assert_eq!(world.phones[0].end_kind(call), Some(EndKind::SignallingLost));
    let call = world.call(0, "sip:nobody@unknown.example");
    world.run_for(60 * SECOND);
    assert_eq!(world.phones[0].end_kind(call), Some(EndKind::SignallingLost));
    assert!(world.phones[0].sockets.is_empty());
}

#[test]
fn protection_that_the_other_side_does_not_allow_is_refused() {
    for (ours, theirs) in [
        (MediaSecurity::Plain, MediaSecurity::Dtls),
        (MediaSecurity::Dtls, MediaSecurity::Plain),
        (MediaSecurity::Sdes, MediaSecurity::Dtls),
    ] {
        let mut world = world(2, 1, move |index, telephone, _| {
            let security = if index == 0 { ours } else { theirs };
            telephone.media =
                MediaPolicy { only: Some(security), keys_in_clear: true, ice: false, ..MediaPolicy::default() };
        });
        let call = world.call(0, B);
        world.run_for(3 * SECOND);
        assert_eq!(world.phones[0].end_kind(call), Some(EndKind::Unavailable), "{ours:?} {theirs:?}");
        assert!(world.phones[1].incoming().is_none(), "it never rang");
        assert_eq!(world.phones[1].opened, 0);
    }
}

#[test]
fn a_certificate_that_is_not_the_demanded_one_ends_the_call() {
    let mut world = world(2, 1, |index, telephone: &mut TelephoneConfig, config| {
        telephone.media = MediaPolicy { only: Some(MediaSecurity::Dtls), ..MediaPolicy::default() };
        config.media.lab = true;
        if index == 0 {
            config.media.require_fingerprint = Some(vec![7; 32]);
        }
    });
    let call = world.call(0, B);
    world.run_for(5 * SECOND);
    assert_eq!(world.phones[0].end_kind(call), Some(EndKind::Security));
    assert_eq!(world.phones[0].heard(call).frames, 0);
}

#[test]
fn hold_silences_one_direction_and_resume_brings_it_back() {
    for holder in [0, 1] {
        let mut world = plain(2, 1);
        let call = world.call(0, B);
        world.run_for(2 * SECOND);
        let sides = sides(&world, call);
        let ((_, ours), (other, theirs)) = (sides[holder], sides[1 - holder]);
        world.act(holder, |e, now| e.hold(now, ours, true)).unwrap();
        world.run_for(SECOND);
        let held = |on| move |e: &Event| matches!(e, Event::Hold { on: o, by: Party::Remote, .. } if *o == on);
        assert!(world.phones[other].has(held(true)), "{holder}: {:?}", world.phones[other].events);
        let before = world.phones[holder].heard(ours).frames;
        world.run_for(3 * SECOND);
        let silent = world.phones[holder].heard(ours).frames - before;
        assert!(silent < 5, "{holder}: {silent} frames on hold");
        world.act(holder, |e, now| e.hold(now, ours, false)).unwrap();
        world.run_for(3 * SECOND);
        assert!(world.phones[other].has(held(false)), "{holder}");
        assert!(world.phones[holder].heard(ours).frames - before > 100, "{holder}");
        assert!(world.phones[other].heard(theirs).frames > 100);
        assert!(world.phones.iter().all(|p| p.endpoint.calls().count() == 1));
    }
}

#[test]
fn digits_arrive_once_each_way() {
    let mut world = plain(2, 1);
    let call = world.call(0, B);
    world.run_for(SECOND);
    let sides = sides(&world, call);
    for (phone, id) in sides {
        for digit in "15*#0".chars() {
            world.act(phone, |e, now| e.send_digit(now, id, digit)).unwrap();
        }
    }
    world.run_for(5 * SECOND);
    for phone in &world.phones {
        assert_eq!(phone.digits(), "15*#0");
    }
    assert!(world.act(0, |e, now| e.send_digit(now, call, 'x')).is_err());
}

#[test]
fn mute_is_silence_and_not_the_end() {
    let mut world = plain(2, 1);
    let call = world.call(0, B);
    world.run_for(2 * SECOND);
    let answered = world.phones[1].incoming().unwrap();
    world.act(0, |e, now| e.mute(now, call, true)).unwrap();
    world.run_for(SECOND);
    let before = world.phones[1].heard(answered).frames;
    world.run_for(2 * SECOND);
    assert!(world.phones[1].heard(answered).frames - before < 5);
    world.act(0, |e, now| e.mute(now, call, false)).unwrap();
    world.run_for(2 * SECOND);
    assert!(world.phones[1].heard(answered).frames - before > 50);
}

#[test]
fn a_transfer_moves_the_other_side_to_somebody_else() {
    let mut world = world(3, 1, |index, telephone: &mut TelephoneConfig, _| {
        if index == 1 {
            telephone.follow_to = vec!["192.0.2.3".to_owned()];
        }
    });
    let call = world.call(0, B);
    world.run_for(2 * SECOND);
    let to: offhook::wire::address::Address = "sip:phone3@192.0.2.3".parse().unwrap();
    world.act(0, |e, now| e.transfer(now, call, &to)).unwrap();
    world.run_for(5 * SECOND);
    let step = |wanted| move |e: &Event| matches!(e, Event::Transfer { step, by: Party::Local, .. } if *step == wanted);
    assert!(world.phones[0].has(step(TransferStep::Done)), "{:?}", world.phones[0].events);
    assert_eq!(world.phones[0].end_kind(call), Some(EndKind::Completed));
    let next = world.phones[1].events.iter().find_map(|(_, e)| match e {
        Event::Transfer { next, .. } => *next,
        _ => None,
    });
    let third = world.phones[2].incoming().unwrap();
    assert!(world.phones[1].heard(next.unwrap()).frames > 50 && world.phones[2].heard(third).frames > 50);
    // Nobody else's address is called for a stranger.
    let mut world = plain(3, 1);
    let call = world.call(0, B);
    world.run_for(2 * SECOND);
    world.act(0, |e, now| e.transfer(now, call, &to)).unwrap();
    world.run_for(5 * SECOND);
    assert!(world.phones[0].has(step(TransferStep::Failed)));
    assert!(world.phones[2].incoming().is_none() && world.phones[0].end_kind(call).is_none());
}

const PBX: &str = "192.0.2.9:5060";

/// What a PBX answers an INVITE with.
fn answer(stray: &Stray, message: &Message, status: Status, sdp: Option<&str>) -> String {
    let Message::Request(request) = message else { panic!("no request") };
    let mut response = Response::to(request, status);
    response.headers.set_to_tag(&Tag::new("pbx").unwrap());
    if let Some(via) = response.headers.via.first_mut() {
        via.received = Some(stray.from.ip());
        via.rport = Some(Some(stray.from.port()));
    }
    let mut bytes = Vec::new();
    response.write(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    let head: Vec<&str> = head.lines().filter(|l| !l.to_ascii_lowercase().starts_with("content-length")).collect();
    let head = head.join("\n");
    let contact = "Contact: <sip:pbx@192.0.2.9:5060>";
    match sdp {
        Some(sdp) => format!(
            "{head}\n{contact}\nContent-Type: application/sdp\nContent-Length: {}\n\n{sdp}",
            sdp.replace("\r\n", "\n").replace('\n', "\r\n").len()
        ),
        None => format!("{head}\n{contact}\nContent-Length: 0\n\n"),
    }
}

fn pbx_sdp(version: u32) -> String {
    format!(
        "v=0\no=- 1 {version} IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\nm=audio 30000 RTP/AVP 0 101\n\
         a=rtpmap:101 telephone-event/8000\n"
    )
}

/// 20 ms of a loud PCMU tone.
fn packet(seq: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let time = MediaTime(u32::from(seq) * 160);
    RtpHeader { marker: seq == 0, payload_type: 0, seq: SeqNo(seq), time, ssrc: Ssrc(77) }.write(&mut out);
    out.extend((0..160).map(|n| if n % 16 < 8 { 0x90 } else { 0x10 }));
    out
}

#[test]
fn what_sounds_before_the_answer_is_heard_and_the_microphone_is_not_sent() {
    let mut world = plain(1, 1);
    let call = world.call(0, "sip:604@192.0.2.9");
    let (stray, invite) = world.next_stray().unwrap();
    let Message::Request(request) = &invite else { panic!("no INVITE") };
    assert_eq!(request.method, Method::Invite);
    let ours = SessionDescription::parse(request.body_of("application/sdp").unwrap()).unwrap();
    let rtp = ours.address_of(&ours.media[0]).unwrap();
    world.say(at(PBX), stray.from, &answer(&stray, &invite, Status::SESSION_PROGRESS, Some(&pbx_sdp(1))));
    world.run_for(Duration::from_millis(100));
    assert!(world.phones[0].has(|e| *e == Event::EarlyMedia(call)), "{:?}", world.phones[0].events);
    for seq in 0..100 {
        world.throw(at("192.0.2.9:30000"), rtp, packet(seq));
        world.run_for(Duration::from_millis(20));
    }
    let early = world.phones[0].heard(call);
    assert!(early.frames > 80, "{early:?}");
    // What goes out is silence: it opens the way through a NAT.
    assert!(early.sent > 50);
    assert!(!world.phones[0].has(|e| matches!(e, Event::Accepted(_) | Event::Connected { .. })));
    world.say(at(PBX), stray.from, &answer(&stray, &invite, Status::OK, Some(&pbx_sdp(1))));
    world.run_for(SECOND);
    assert!(world.phones[0].has(|e| matches!(e, Event::Connected { .. })), "{:?}", world.phones[0].events);
    // A stranger who guessed the port is not heard.
    let before = world.phones[0].heard(call).frames;
    for seq in 0..50 {
        world.throw(at("203.0.113.66:30000"), rtp, packet(seq));
        world.run_for(Duration::from_millis(20));
    }
    assert!(world.phones[0].heard(call).frames - before < 5);
}

#[test]
fn a_call_without_an_offer_gets_ours_in_the_answer() {
    let mut world = plain(1, 1);
    let invite = "INVITE sip:phone1@192.0.2.1 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKlate;rport\n\
                  Max-Forwards: 70\nFrom: <sip:pbx@192.0.2.9>;tag=a\nTo: <sip:phone1@192.0.2.1>\nCall-ID: late\n\
                  CSeq: 1 INVITE\nContact: <sip:pbx@192.0.2.9:5060>\nContent-Length: 0\n\n";
    world.say(at(PBX), at("192.0.2.1:5060"), invite);
    let (tag, sdp) = loop {
        let (_, message) = world.next_stray().unwrap();
        let Message::Response(response) = message else { panic!("no response") };
        if response.status.is_success() {
            let sdp = SessionDescription::parse(response.body_of("application/sdp").unwrap()).unwrap();
            break (response.headers.to.tag().unwrap().as_str().to_owned(), sdp);
        }
    };
    assert!(!world.phones[0].has(|e| matches!(e, Event::Accepted(_))), "not before their answer");
    let body = pbx_sdp(1).replace('\n', "\r\n");
    let ack = format!(
        "ACK sip:phone1@192.0.2.1:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bKack;rport\n\
         Max-Forwards: 70\nFrom: <sip:pbx@192.0.2.9>;tag=a\nTo: <sip:phone1@192.0.2.1>;tag={tag}\nCall-ID: late\n\
         CSeq: 1 ACK\nContent-Type: application/sdp\nContent-Length: {}\n\n{body}",
        body.len()
    );
    world.say(at(PBX), at("192.0.2.1:5060"), &ack);
    world.run_for(SECOND);
    let call = world.phones[0].incoming().unwrap();
    let rtp = sdp.address_of(&sdp.media[0]).unwrap();
    for seq in 0..100 {
        world.throw(at("192.0.2.9:30000"), rtp, packet(seq));
        world.run_for(Duration::from_millis(20));
    }
    assert!(world.phones[0].has(|e| matches!(e, Event::Connected { .. })), "{:?}", world.phones[0].events);
    assert!(world.phones[0].heard(call).frames > 80);
}

/// A request of a PBX that called: INVITE or ACK with this description.
fn from_pbx(method: &str, cseq: u32, tag: &str, sdp: &str) -> String {
    let tag = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
    let body = sdp.replace('\n', "\r\n");
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    format!(
        "{method} sip:phone1@192.0.2.1:5060 SIP/2.0\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK{method}{cseq};rport\n\
         Max-Forwards: 70\nFrom: <sip:pbx@192.0.2.9>;tag=a\nTo: <sip:phone1@192.0.2.1>{tag}\nCall-ID: pbx\n\
         CSeq: {cseq} {method}\nContact: <sip:pbx@192.0.2.9:5060>\n{kind}Content-Length: {}\n\n{body}",
        body.len()
    )
}

/// The tag and description of the 2xx that comes next.
fn success(world: &mut World) -> (String, SessionDescription) {
    loop {
        let (_, message) = world.next_stray().expect("an answer");
        if let Message::Response(response) = message
            && !response.status.is_provisional()
        {
            assert!(response.status.is_success(), "{:?}", response.status);
            let sdp = SessionDescription::parse(response.body_of("application/sdp").unwrap()).unwrap();
            return (response.headers.to.tag().unwrap().as_str().to_owned(), sdp);
        }
    }
}

#[test]
fn a_new_offer_moves_the_media_and_changes_the_key() {
    let profile = SrtpProfile::AesCm128HmacSha1_80;
    let mut world = world(1, 1, |_, telephone, _| telephone.media.keys_in_clear = true);
    let offer = |version: u32, port: u16, key: &SdesKey| {
        format!(
            "v=0\no=- 1 {version} IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\nm=audio {port} RTP/SAVP 0\n\
             a=crypto:1 {} {}\n",
            profile.sdes_name(),
            key.key_params()
        )
    };
    let keys = [SdesKey::generate(profile).unwrap(), SdesKey::generate(profile).unwrap()];
    let mut senders = keys.clone().map(|key| {
        let (key, salt) = key.split();
        SrtpSender::new(profile, &key, &salt).unwrap()
    });
    let mut seq = 0;
    let mut play = |world: &mut World, rtp, port: u16, sender: &mut SrtpSender| {
        let call = world.phones[0].incoming().unwrap();
        let before = world.phones[0].heard(call).frames;
        for _ in 0..50 {
            let mut bytes = packet(seq);
            seq += 1;
            sender.protect_rtp(&mut bytes).unwrap();
            world.throw(SocketAddr::from(([192, 0, 2, 9], port)), rtp, bytes);
            world.run_for(Duration::from_millis(20));
        }
        world.phones[0].heard(call).frames - before
    };
    world.say(at(PBX), at("192.0.2.1:5060"), &from_pbx("INVITE", 1, "", &offer(1, 30_000, &keys[0])));
    let (tag, first) = success(&mut world);
    world.say(at(PBX), at("192.0.2.1:5060"), &from_pbx("ACK", 1, &tag, ""));
    let rtp = first.address_of(&first.media[0]).unwrap();
    let [old, new] = &mut senders;
    assert!(play(&mut world, rtp, 30_000, old) > 30);
    assert_eq!(world.media_strays.last(), Some(&at("192.0.2.9:30000")));
    world.say(at(PBX), at("192.0.2.1:5060"), &from_pbx("INVITE", 2, &tag, &offer(2, 31_000, &keys[1])));
    let (_, second) = success(&mut world);
    world.say(at(PBX), at("192.0.2.1:5060"), &from_pbx("ACK", 2, &tag, ""));
    assert_eq!(second.media[0].cryptos, first.media[0].cryptos, "our key goes on");
    assert_eq!(second.address_of(&second.media[0]), Some(rtp));
    assert!(play(&mut world, rtp, 30_000, old) < 12, "the old key at the old place is nobody's");
    assert!(play(&mut world, rtp, 31_000, new) > 30);
    assert_eq!(world.media_strays.last(), Some(&at("192.0.2.9:31000")));
    // What would take the protection away is refused, and the call goes on.
    world.say(at(PBX), at("192.0.2.1:5060"), &from_pbx("INVITE", 3, &tag, &pbx_sdp(3)));
    world.run_for(SECOND);
    assert!(world.log.iter().any(|text| text.starts_with("SIP/2.0 488")));
    assert!(play(&mut world, rtp, 31_000, new) > 30);
}

#[test]
fn with_every_fifth_datagram_of_the_signalling_lost_every_call_ends_in_a_defined_state() {
    let mut completed = 0;
    for seed in 0..40 {
        let mut world = plain(2, seed);
        world.loss = 0.2;
        let call = world.call(0, B);
        world.run_until(20 * SECOND, |w| w.phones[0].has(|e| matches!(e, Event::Connected { .. })));
        world.run_for(SECOND);
        // The call may have ended by itself.
        let _ = world.act(0, |e, now| e.hang_up(now, call));
        world.run_for(80 * SECOND);
        let kind = world.phones[0].end_kind(call).expect("it ended");
        completed += usize::from(kind == EndKind::Completed);
        for phone in &world.phones {
            assert_eq!(phone.endpoint.calls().count(), 0, "{seed}: {:?}", phone.events);
            assert!(phone.sockets.is_empty() && phone.endpoint.is_quiet(), "{seed}");
        }
    }
    println!("{completed} of 40 completed");
    assert!(completed >= 38);
}

//! Whole calls between endpoints, in virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/world.rs"]
mod world;

use offhook::endpoint::event::{CallId, EndKind, Event, Party};
use offhook::fault::ReasonCondition;
use std::time::Duration;
use world::{JULIET, Manner, Options, ROMEO, World, attr, percentile};

const SECOND: Duration = Duration::from_secs(1);

fn talks_both_ways(to: &str) {
    let mut world = World::quick(1);
    let call = world.call(0, to);
    world.run_for(3 * SECOND);
    let answered = world.clients[1].incoming().unwrap();
    for (client, id) in [(0, call), (1, answered)] {
        let heard = world.clients[client].heard(id);
        assert!(heard.frames > 100 && heard.sent > 100, "{client}: {heard:?} {:?}", world.clients[client].events);
        assert_eq!(world.clients[client].opened, 1);
    }
    world.act(0, |e, now| e.hang_up(now, call)).unwrap();
    world.run_for(SECOND);
    for (client, id) in [(0, call), (1, answered)] {
        assert_eq!(world.clients[client].end_kind(id), Some(EndKind::Completed));
        assert_eq!(world.clients[client].ends(id), 1);
        assert!(world.clients[client].sockets.is_empty());
    }
    assert_eq!(world.clients[0].ended(call).unwrap().by, Party::Local);
    assert_eq!(world.clients[1].ended(answered).unwrap().by, Party::Remote);
}

#[test]
fn a_call_to_a_person_asks_all_devices_and_talks_both_ways() {
    talks_both_ways("juliet@capulet.example");
}

#[test]
fn a_call_to_a_device_talks_both_ways() {
    talks_both_ways(JULIET);
}

const PERSON: &str = "juliet@capulet.example";

/// Ends of both sides' names of a call that came in.
fn both_end(world: &World, call: CallId, mine: EndKind, theirs: EndKind) {
    let answered = world.clients[1].incoming().unwrap();
    for (client, id, kind) in [(0, call, mine), (1, answered, theirs)] {
        assert_eq!(world.clients[client].end_kind(id), Some(kind), "{client} {:?}", world.clients[client].ended(id));
        assert_eq!(world.clients[client].ends(id), 1);
        assert_eq!(world.clients[client].endpoint.calls().count(), 0);
        assert!(world.clients[client].sockets.is_empty());
    }
}

#[test]
fn a_rejected_call_never_opens_a_socket_at_the_callee() {
    for to in [PERSON, JULIET] {
        for reason in [ReasonCondition::Busy, ReasonCondition::Decline] {
            let mut world = World::quick(2);
            world.clients[1].manner = Manner::Rejects(reason);
            let call = world.call(0, to);
            world.run_for(SECOND);
            both_end(&world, call, EndKind::Rejected, EndKind::Rejected);
            assert_eq!(world.clients[1].opened, 0);
            assert_eq!(world.clients[1].datagrams, 0);
            assert_eq!(world.clients[0].ended(call).unwrap().by, Party::Remote);
        }
    }
}

#[test]
fn a_caller_who_gives_up_stops_the_ringing() {
    for to in [PERSON, JULIET] {
        let mut world = World::quick(3);
        world.clients[1].manner = Manner::Waits;
        let call = world.call(0, to);
        world.run_for(SECOND);
        assert!(world.clients[0].at(|e| *e == Event::Ringing(call)).is_some());
        world.act(0, |e, now| e.hang_up(now, call)).unwrap();
        world.run_for(SECOND);
        both_end(&world, call, EndKind::Cancelled, EndKind::Cancelled);
        assert_eq!(world.clients[1].datagrams, 0);
    }
}

#[test]
fn an_unanswered_call_ends_after_a_minute_on_both_sides() {
    for to in [PERSON, JULIET] {
        let mut world = World::quick(4);
        world.clients[1].manner = Manner::Waits;
        let call = world.call(0, to);
        world.run_for(59 * SECOND);
        assert_eq!(world.clients[0].end_kind(call), None);
        world.run_for(10 * SECOND);
        let end = world.clients[0].end_kind(call);
        assert_eq!(end, Some(EndKind::NoAnswer), "{to}");
        let answered = world.clients[1].incoming().unwrap();
        let end = world.clients[1].end_kind(answered).unwrap();
        assert!(matches!(end, EndKind::NoAnswer | EndKind::Cancelled), "{end:?}");
        assert_eq!(world.clients[1].ends(answered), 1);
    }
}

#[test]
fn a_person_who_is_not_there_is_unavailable() {
    for to in ["juliet@capulet.example", JULIET] {
        let mut world = World::quick(5);
        world.act(1, |e, now| e.shut_down(now));
        world.run_for(SECOND);
        let call = world.call(0, to);
        world.run_for(5 * SECOND);
        assert_eq!(world.clients[0].end_kind(call), Some(EndKind::Unavailable), "{to}");
    }
}

#[test]
fn a_call_that_needs_a_relay_fails_at_once_where_there_is_none() {
    type Configure = fn(usize, &mut offhook::endpoint::EndpointConfig);
    let caller: Configure = |who, config| config.media.relay_only = who == 0;
    let callee: Configure = |who, config| config.media.relay_only = who == 1;
    for to in [PERSON, JULIET] {
        let mut world = World::new(&Options { configure: caller, ..Options::default() });
        let call = world.call(0, to);
        world.run_for(SECOND / 10);
        let ended = world.clients[0].ended(call).expect("it ends");
        assert_eq!(ended.kind, EndKind::MediaFailed);
        assert!(ended.text.as_deref().unwrap().contains("relay"), "{ended:?}");
        assert_eq!(world.clients[1].incoming(), None, "nobody is rung for nothing");
        let mut world = World::new(&Options { configure: callee, ..Options::default() });
        let call = world.call(0, to);
        world.run_for(SECOND);
        both_end(&world, call, EndKind::MediaFailed, EndKind::MediaFailed);
        assert_eq!(world.clients[1].datagrams, 0);
    }
}

#[test]
fn each_side_can_hang_up() {
    for who in [0, 1] {
        let mut world = World::quick(6);
        let (call, answered) = world.connected_call(0, 1);
        world.run_for(SECOND);
        let id = if who == 0 { call } else { answered };
        world.act(who, |e, now| e.hang_up(now, id)).unwrap();
        world.run_for(SECOND);
        both_end(&world, call, EndKind::Completed, EndKind::Completed);
        let after = [world.clients[0].datagrams, world.clients[1].datagrams];
        world.run_for(60 * SECOND);
        assert_eq!(after, [world.clients[0].datagrams, world.clients[1].datagrams], "a datagram after the end");
        assert!(world.act(who, |e, now| e.hang_up(now, id)).is_err());
    }
}

#[test]
fn hold_stops_the_sound_and_unhold_brings_it_back() {
    let mut world = World::quick(7);
    let (call, answered) = world.connected_call(0, 1);
    world.run_for(SECOND);
    for round in 0..2 {
        world.act(0, |e, now| e.hold(now, call, true)).unwrap();
        world.run_for(SECOND);
        for client in &mut world.clients {
            client.heard.values_mut().for_each(|h| h.recent = 0);
        }
        world.run_for(2 * SECOND);
        assert_eq!(world.clients[0].heard(call).recent, 0, "round {round}");
        assert_eq!(world.clients[1].heard(answered).recent, 0, "round {round}");
        world.act(0, |e, now| e.hold(now, call, false)).unwrap();
        world.run_for(2 * SECOND);
        assert!(world.clients[0].heard(call).recent > 80, "{:?}", world.clients[0].heard(call));
        assert!(world.clients[1].heard(answered).recent > 80);
    }
    let held = |on| move |e: &Event| matches!(e, Event::Hold { on: now, by: Party::Remote, .. } if *now == on);
    assert_eq!((world.clients[1].count(held(true)), world.clients[1].count(held(false))), (2, 2));
    assert_eq!(world.clients[0].end_kind(call), None);
}

#[test]
fn mute_silences_and_unmute_is_heard_again() {
    let mut world = World::quick(8);
    let (call, answered) = world.connected_call(0, 1);
    world.run_for(SECOND);
    world.act(0, |e, now| e.mute(now, call, true)).unwrap();
    world.run_for(SECOND);
    let before = world.clients[1].heard(answered).frames;
    world.run_for(SECOND);
    assert_eq!(world.clients[1].heard(answered).frames, before);
    assert!(world.clients[0].heard(call).frames > before, "the other direction goes on");
    world.act(0, |e, now| e.mute(now, call, false)).unwrap();
    world.run_for(SECOND);
    assert!(world.clients[1].heard(answered).frames > before + 30);
    let muted = |on| move |e: &Event| matches!(e, Event::Mute { on: now, by: Party::Remote, .. } if *now == on);
    assert_eq!((world.clients[1].count(muted(true)), world.clients[1].count(muted(false))), (1, 1));
}

#[test]
fn every_key_is_heard_once_also_with_loss() {
    for loss in [0.0, 0.05] {
        let mut world = World::new(&Options { seed: 9, loss, ..Options::default() });
        let (call, _) = world.connected_call(0, 1);
        let keys = "0123456789*#ABCD";
        for key in keys.chars() {
            world.act(0, |e, now| e.send_digit(now, call, key)).unwrap();
        }
        world.run_for(10 * SECOND);
        let heard: String = world.clients[1]
            .events
            .iter()
            .filter_map(|(_, e)| match e {
                Event::Digit { digit, .. } => Some(*digit),
                _ => None,
            })
            .collect();
        assert_eq!(heard, keys);
    }
}

// Set-up

/// From `call` to both sides connected, and from `accept` to it.
fn set_up(world: &mut World, to: &str) -> (Duration, Duration) {
    let began = world.now;
    let connected = |w: &World, i: usize| w.clients[i].at(|e| matches!(e, Event::Connected { .. }));
    world.call(0, to);
    world.run_while(40 * SECOND, |w| connected(w, 0).is_none() || connected(w, 1).is_none());
    let end = connected(world, 0).unwrap().max(connected(world, 1).unwrap());
    let accepted = world.clients[1].at(|e| matches!(e, Event::Incoming { .. })).unwrap();
    (end - began, end - accepted)
}

/// Signalling trips before media can begin, and media trips until both sides have keys: a delay on one carrier alone shows
/// how often it was waited for.
#[test]
fn set_up_waits_for_two_signalling_trips_and_four_media_round_trips() {
    let delay = Duration::from_secs(1);
    let none = Duration::ZERO;
    let mut trips = Vec::new();
    for (to, signalling_delay, media_delay) in
        [(JULIET, delay, none), (PERSON, delay, none), (JULIET, none, delay), (PERSON, none, delay)]
    {
        let mut world = World::new(&Options { signalling_delay, media_delay, ..Options::default() });
        let (from_call, _) = set_up(&mut world, to);
        println!(
            "{to}: {} one-way trips + {:?}",
            from_call.as_secs(),
            Duration::from_nanos(from_call.subsec_nanos().into())
        );
        trips.push(from_call.as_secs());
    }
    // session-initiate, session-accept; before them propose and proceed.
    assert_eq!(trips[..2], [2, 4]);
    // One round trip of ICE and three of DTLS, whose server asks for a cookie.
    assert_eq!(trips[2..], [8, 8]);
}

/// One-way trips from `accept` until both sides are connected, for somebody who thinks before answering.
fn trips_after_accept(think: Duration, contacts_may_prepare: bool) -> [u64; 2] {
    fn prepare(_: usize, config: &mut offhook::endpoint::EndpointConfig) {
        config.address_policy = offhook::endpoint::AddressPolicy::Contacts;
    }
    let delay = Duration::from_secs(1);
    [(delay, Duration::ZERO), (Duration::ZERO, delay)].map(|(signalling_delay, media_delay)| {
        let configure = if contacts_may_prepare { prepare } else { |_: usize, _: &mut _| {} };
        let mut world = World::new(&Options { signalling_delay, media_delay, configure, ..Options::default() });
        world.clients[1].manner = Manner::Waits;
        let call = world.call(0, JULIET);
        world.run_while(10 * SECOND, |w| w.clients[1].incoming().is_none());
        world.run_for(think);
        let (answered, began) = (world.clients[1].incoming().unwrap(), world.now);
        for client in &world.clients {
            assert_eq!(client.count(|e| matches!(e, Event::Connected { .. })), 0, "nothing is told before accept");
        }
        world.act(1, |e, now| e.accept(now, answered)).unwrap();
        let there = |w: &World, i: usize| w.clients[i].count(|e| matches!(e, Event::Connected { .. })) == 1;
        world.run_while(60 * SECOND, |w| !there(w, 0) || !there(w, 1));
        let took = world.now - began;
        world.run_for(3 * SECOND);
        assert!(world.clients[0].heard(call).frames > 20, "{:?}", world.clients[0].events);
        assert!(world.clients[1].heard(answered).frames > 20);
        took.as_secs()
    })
}

// J176-25, J320-03.
#[test]
fn a_path_made_while_it_rings_leaves_the_answer_as_the_only_trip() {
    assert_eq!(trips_after_accept(20 * SECOND, false), [1, 8]);
    assert_eq!(trips_after_accept(20 * SECOND, true), [1, 0]);
    // Taken at once it is no slower than without.
    assert_eq!(trips_after_accept(Duration::ZERO, true), [1, 8]);
    // Taken in the midst: what is left of it.
    let [_, media] = trips_after_accept(4 * SECOND, true);
    assert!((4..=6).contains(&media), "{media}");
}

// Peers exist that look at our transport only once the call is accepted.
#[test]
fn a_caller_who_ignores_what_comes_before_the_answer_is_talked_to_all_the_same() {
    fn prepare(_: usize, config: &mut offhook::endpoint::EndpointConfig) {
        config.address_policy = offhook::endpoint::AddressPolicy::Contacts;
    }
    for think in [SECOND / 10, 3 * SECOND, 20 * SECOND, 50 * SECOND] {
        let mut world = World::new(&Options { configure: prepare, ..Options::default() });
        world.clients[1].manner = Manner::Waits;
        let mut accepted = false;
        world.tamper = Some(Box::new(move |from, _, xml| {
            accepted |= xml.contains("session-accept");
            let early = from == JULIET && !accepted && xml.contains("transport-info");
            let at = xml.find("<content").filter(|_| early)?;
            Some(vec![format!("{}</jingle></iq>", xml[..at].replace("transport-info", "session-info"))])
        }));
        let call = world.call(0, JULIET);
        world.run_for(SECOND / 5 + think);
        let answered = world.clients[1].incoming().unwrap();
        world.act(1, |e, now| e.accept(now, answered)).unwrap();
        world.run_for(8 * SECOND);
        assert!(world.clients[0].heard(call).frames > 200, "{think:?} {:?}", world.clients[0].events);
        assert!(world.clients[1].heard(answered).frames > 200, "{think:?}");
    }
}

/// Figures at round trips of people who are near and far; the floor is what set-up cannot do without (two or four
/// signalling trips, four media round trips).
#[test]
fn set_up_takes_at_most_a_fifth_longer_than_its_floor() {
    println!("rtt   to      p50 ms  floor ms");
    for rtt_ms in [0, 50, 150] {
        for (name, to, trips) in [("device", JULIET, 2), ("person", PERSON, 4)] {
            let one_way = Duration::from_micros(rtt_ms * 500);
            let mut times: Vec<Duration> = (0..20)
                .map(|seed| {
                    let mut world = World::new(&Options {
                        seed,
                        signalling_delay: one_way,
                        media_delay: one_way,
                        ..Options::default()
                    });
                    world.audio = false;
                    set_up(&mut world, to).0
                })
                .collect();
            let floor = one_way * trips + one_way * 8;
            let p50 = percentile(&mut times, 50);
            println!("{rtt_ms:>3}   {name}  {:>6}  {:>6}", p50.as_millis(), floor.as_millis());
            // Three checks at ICE's pace of 5 ms: all that is left where the floor is nothing.
            assert!(p50 <= floor.mul_f64(1.2) + Duration::from_millis(15), "{p50:?}");
        }
    }
}

#[test]
fn five_percent_loss_costs_few_calls_much() {
    let seeds: u64 = std::env::var("OFFHOOK_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(200);
    println!("rtt 50 ms, {seeds} seeds\nloss %  p50 ms  p95 ms  max ms, from accept");
    for (loss, limit) in [(0.0, 400), (0.05, 600)] {
        let mut times: Vec<Duration> = (0..seeds)
            .map(|seed| {
                let mut world = World::new(&Options { seed, loss, ..Options::default() });
                world.audio = false;
                set_up(&mut world, JULIET).1
            })
            .collect();
        let [p50, p95, max] = [50, 95, 100].map(|p| percentile(&mut times, p).as_millis());
        println!("{:>6}  {p50:>6}  {p95:>6}  {max:>6}", loss * 100.0);
        assert!(p95 <= limit, "{p95} ms");
    }
}

// Security

/// The server puts another fingerprint into what `from` sends.
fn rewrite(from: &'static str) -> world::Tamper {
    Box::new(move |sender, _, xml| {
        let at = xml.find("</fingerprint>").filter(|_| sender == from)?;
        let mut xml = xml.to_owned();
        let last = if &xml[at - 1..at] == "0" { "1" } else { "0" };
        xml.replace_range(at - 1..at, last);
        Some(vec![xml])
    })
}

fn ends_unheard_for_security(world: &mut World) {
    let call = world.call(0, JULIET);
    world.run_for(40 * SECOND);
    both_end(world, call, EndKind::Security, EndKind::Security);
    let answered = world.clients[1].incoming().unwrap();
    for (client, id) in [(0, call), (1, answered)] {
        assert_eq!(world.clients[client].heard(id).frames, 0);
        assert_eq!(world.clients[client].ended(id).unwrap().reason, Some(ReasonCondition::SecurityError));
    }
}

#[test]
fn a_server_that_swaps_a_fingerprint_ends_the_call_before_any_sound() {
    for from in [ROMEO, JULIET] {
        let mut world = World::quick(10);
        world.tamper = Some(rewrite(from));
        ends_unheard_for_security(&mut world);
    }
}

#[test]
fn a_pinned_certificate_that_is_another_ends_the_call_before_any_sound() {
    fn pin(who: usize, index: usize, config: &mut offhook::endpoint::EndpointConfig) {
        config.media.require_fingerprint = (who == index).then(|| vec![9; 32]);
    }
    for configure in [|i, c: &mut _| pin(0, i, c), |i, c: &mut _| pin(1, i, c)] {
        let mut world = World::new(&Options { configure, ..Options::default() });
        ends_unheard_for_security(&mut world);
        // The server adds the pinned fingerprint beside that of the certificate that is used.
        let mut world = World::new(&Options { configure, ..Options::default() });
        world.tamper = Some(Box::new(|_, _, xml| {
            let at = xml.find("<fingerprint")?;
            let pinned = vec!["09"; 32].join(":");
            let mut xml = xml.to_owned();
            let setup = attr(&xml[at..], "setup").unwrap();
            let added = format!(
                "<fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='{setup}'>{pinned}</fingerprint>"
            );
            xml.insert_str(at, &added);
            Some(vec![xml])
        }));
        ends_unheard_for_security(&mut world);
    }
}

// Peers that say little

const PARIS: &str = "paris@verona.example/old";

fn with_paris() -> World {
    World::new(&Options { clients: vec![ROMEO], friends: vec!["paris@verona.example"], ..Options::default() })
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/fixtures/jingle/{name}.xml", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Paris acknowledges what is sent to him.
fn listens(world: &mut World, time: Duration) -> Vec<String> {
    let mut said = Vec::new();
    let end = world.now + time;
    while world.now < end {
        for xml in world.answers(PARIS) {
            if xml.starts_with("<iq") && attr(&xml, "type") == Some("set") {
                let id = attr(&xml, "id").unwrap().to_owned();
                world.say(0, PARIS, &format!("<iq type='result' id='{id}'/>"));
            }
            said.push(xml);
        }
        world.run_for(SECOND);
    }
    said
}

/// Paris answers a call with a fixture.
fn answered_with(world: &mut World, name: &str) -> CallId {
    let call = world.call(0, PARIS);
    world.run_for(Duration::from_millis(100));
    let offer = listens(world, SECOND).into_iter().find(|x| x.contains("session-initiate")).unwrap();
    let sid = offer.split(" sid='").nth(1).unwrap().split('\'').next().unwrap();
    world.say(0, PARIS, &fixture(name).replace("f2a9c1d07e5b4c63", sid));
    world.run_for(SECOND);
    call
}

#[test]
fn an_answer_without_mux_group_sources_and_clock_rates_is_taken() {
    let mut world = with_paris();
    let call = answered_with(&mut world, "answer-minimal");
    assert!(world.clients[0].at(|e| *e == Event::Accepted(call)).is_some(), "{:?}", world.clients[0].events);
    assert_eq!(world.clients[0].end_kind(call), None);
    // His candidate was asked, and nobody answered.
    assert!(world.strays.iter().any(|(_, to, _)| to.port() == 40_000));
    let said = listens(&mut world, 60 * SECOND);
    assert_eq!(world.clients[0].end_kind(call), Some(EndKind::MediaFailed));
    assert_eq!(world.clients[0].ends(call), 1);
    assert!(said.iter().any(|x| x.contains("<connectivity-error/>")), "{said:?}");
}

#[test]
fn an_answer_without_a_common_codec_ends_the_call() {
    let mut world = with_paris();
    let call = answered_with(&mut world, "answer-no-codec");
    assert_eq!(world.clients[0].end_kind(call), Some(EndKind::Unavailable));
    assert_eq!(world.clients[0].count(|e| *e == Event::Accepted(call)), 0);
    assert!(world.strays.is_empty());
}

#[test]
fn an_answer_without_fingerprint_ends_the_call_for_security() {
    let mut world = with_paris();
    let call = answered_with(&mut world, "answer-no-fingerprint");
    assert_eq!(world.clients[0].end_kind(call), Some(EndKind::Security));
    assert_eq!(world.clients[0].count(|e| *e == Event::Accepted(call)), 0);
    assert!(world.strays.is_empty());
}

#[test]
fn an_offer_with_sdes_alone_is_refused_and_never_rings() {
    let mut world = with_paris();
    world.say(0, PARIS, &fixture("offer-sdes-only"));
    world.run_for(SECOND);
    let said = world.answers(PARIS);
    assert!(said.iter().any(|x| x.contains("session-terminate") && x.contains("<security-error/>")), "{said:?}");
    assert_eq!(world.clients[0].incoming(), None);
    assert_eq!(world.clients[0].opened, 0);
}

#[test]
fn an_offer_without_a_common_codec_ends_with_failed_application() {
    let mut world = with_paris();
    world.say(0, PARIS, &fixture("offer-no-codec"));
    world.run_for(SECOND);
    let said = world.answers(PARIS);
    assert!(said.iter().any(|x| x.contains("session-terminate") && x.contains("<failed-application/>")), "{said:?}");
    assert!(world.strays.is_empty());
    if let Some(call) = world.clients[0].incoming() {
        assert_eq!(world.clients[0].end_kind(call), Some(EndKind::Unavailable));
    }
}

// Signalling that breaks

#[test]
fn a_stream_lost_and_resumed_at_any_step_of_set_up_does_no_harm() {
    for to in [JULIET, PERSON] {
        for who in [0, 1] {
            for step in 0..30 {
                let mut world = World::quick(step);
                world.audio = false;
                let call = world.call(0, to);
                world.run_for(Duration::from_millis(12) * u32::try_from(step).unwrap());
                world.cut(who);
                let connected = |w: &World, i: usize| w.clients[i].at(|e| matches!(e, Event::Connected { .. }));
                let both = world.run_while(60 * SECOND, |w| connected(w, 0).is_none() || connected(w, 1).is_none());
                assert!(both, "{to} {who} {step}: {:?} {:?}", world.clients[0].ended(call), world.clients[1].events);
                assert_eq!(world.clients[1].count(|e| matches!(e, Event::Incoming { .. })), 1);
                world.run_for(10 * SECOND);
                assert_eq!(world.clients[0].endpoint.calls().count(), 1);
                assert_eq!(world.clients[1].endpoint.calls().count(), 1);
            }
        }
    }
}

#[test]
fn a_call_outlives_its_server_and_can_be_ended_without_it() {
    let mut world = World::quick(11);
    let (call, answered) = world.connected_call(0, 1);
    for client in [0, 1] {
        world.clients[client].unplugged = true;
        world.forget(client);
        world.cut(client);
    }
    world.run_for(5 * SECOND);
    let before = world.clients[1].heard(answered).frames;
    world.run_for(60 * SECOND);
    assert!(world.clients[1].heard(answered).frames > before + 2_900, "{:?}", world.clients[1].heard(answered));
    world.act(0, |e, now| e.hang_up(now, call)).unwrap();
    world.run_for(2 * SECOND);
    assert_eq!(world.clients[1].ends(answered), 1, "the end comes on the media path");
    // The server is back.
    for client in &mut world.clients {
        client.unplugged = false;
    }
    world.run_for(400 * SECOND);
    for client in &world.clients {
        assert_eq!(client.count(|e| matches!(e, Event::Online { .. })), 2, "{:?}", client.events);
    }
    let call = world.call(0, JULIET);
    world.run_for(2 * SECOND);
    assert_eq!(world.clients[0].end_kind(call), None);
    assert!(world.clients[0].heard(call).frames > 50);
}

#[test]
fn a_stanza_for_a_call_that_is_over_is_an_unknown_session() {
    let mut world = World::quick(12);
    let (call, _) = world.connected_call(0, 1);
    let sid = world.clients[1]
        .events
        .iter()
        .find_map(|(_, e)| match e {
            Event::Incoming { sid, .. } => Some(sid.to_string()),
            _ => None,
        })
        .unwrap();
    world.act(0, |e, now| e.hang_up(now, call)).unwrap();
    world.run_for(SECOND);
    for action in ["session-info", "transport-info", "session-terminate"] {
        world.routed.clear();
        let jingle = format!("<jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='{sid}'/>");
        world.say(0, JULIET, &format!("<iq type='set' id='late'>{jingle}</iq>"));
        world.run_for(SECOND);
        let said = world.answers(JULIET);
        assert!(said.len() == 1 && said[0].contains("<unknown-session"), "{action} {said:?}");
    }
}

#[test]
fn two_calls_of_one_endpoint_do_not_disturb_each_other() {
    let clients = vec![ROMEO, JULIET, world::CHAMBER];
    let mut world = World::new(&Options { clients, ..Options::default() });
    let first = world.call(0, JULIET);
    world.run_for(2 * SECOND);
    let second = world.call(0, world::CHAMBER);
    world.run_for(60 * SECOND);
    for call in [first, second] {
        assert_eq!(world.clients[0].end_kind(call), None, "{:?}", world.clients[0].ended(call));
        assert!(world.clients[0].heard(call).frames > 2_900);
    }
}

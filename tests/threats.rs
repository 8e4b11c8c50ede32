//! What attacks a whole endpoint, each row of the catalogue a test: strangers, spoofed addresses, floods, junk, logs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/world.rs"]
mod world;

use offhook::endpoint::event::{EndKind, Event, LegId};
use offhook::endpoint::{AddressPolicy, EndpointConfig};
use offhook::fault::ReasonCondition;
use offhook::jingle::sessions::Callers;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::{CHAMBER, JULIET, Manner, Options, ROMEO, World, attr};

const SECOND: Duration = Duration::from_secs(1);
const STRANGER: &str = "tybalt@capulet.example/sword";
const JMI: &str = "urn:xmpp:jingle-message:0";

fn fixture(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/fixtures/{name}.xml", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn offer(sid: &str, id: &str) -> String {
    fixture("call/3-session-initiate").replace("0c3f1a52-7d41-4f0b-9a55-8d0f2f6f1b77", sid).replacen(
        "id='j1'",
        &format!("id='{id}'"),
        1,
    )
}

fn propose(sid: &str) -> String {
    format!(
        "<message type='chat' id='p-{sid}'><propose xmlns='{JMI}' id='{sid}'>\
         <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose></message>"
    )
}

fn jmi(name: &str, sid: &str) -> String {
    format!("<message type='chat' id='m-{sid}'><{name} xmlns='{JMI}' id='{sid}'/></message>")
}

fn waiting() -> World {
    let mut world = World::quick(1);
    world.clients[1].manner = Manner::Waits;
    world
}

/// Nothing of client 0 shows that somebody is there.
fn silent(world: &World) {
    let client = &world.clients[0];
    assert_eq!((client.opened, client.datagrams), (0, 0));
    assert_eq!(client.incoming(), None);
    assert_eq!(client.endpoint.calls().count(), 0);
}

#[test]
fn a_stranger_gets_what_the_server_says_for_an_absent_resource() {
    let requests = [
        offer("stranger1", "q"),
        "<iq type='get' id='q'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>".to_owned(),
        "<iq type='get' id='q'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>".to_owned(),
        "<iq type='get' id='q'><ping xmlns='urn:xmpp:ping'/></iq>".to_owned(),
        "<iq type='set' id='q'><query xmlns='jabber:iq:roster'><item jid='tybalt@capulet.example' subscription='both'/></query></iq>".to_owned(),
        "<iq type='get' id='q'><query xmlns='jabber:iq:version'/></iq>".to_owned(),
        "<iq type='set' id='q'><query xmlns='http://jabber.org/protocol/bytestreams' sid='s' mode='tcp'><streamhost jid='x@y' host='192.0.2.9' port='1080'/></query></iq>".to_owned(),
        "<iq type='set' id='q'><open xmlns='http://jabber.org/protocol/ibb' block-size='4096' sid='i'/></iq>".to_owned(),
        "<iq type='set' id='q'><services xmlns='urn:xmpp:extdisco:2'><service action='add' host='192.0.2.9' type='stun' port='1'/></services></iq>".to_owned(),
        "<iq type='set' id='q'><jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='none'/></iq>".to_owned(),
        "<iq type='set' id='q'><jingle xmlns='urn:xmpp:jingle:1' action='session-info' sid='none'/></iq>".to_owned(),
        "<iq type='set' id='q'><jingle xmlns='urn:xmpp:jingle:1' action='session-accept' sid='none'/></iq>".to_owned(),
        "<iq type='set' id='q'><jingle xmlns='urn:xmpp:jingle:1' action='nonsense' sid='none'/></iq>".to_owned(),
        "<iq type='set' id='q'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate'/></iq>".to_owned(),
        "<iq type='set' id='q'/>".to_owned(),
        "<iq type='get' id='q'><a xmlns='x'/><b xmlns='x'/></iq>".to_owned(),
        "<iq type='get' id='q'><query xmlns='http://jabber.org/protocol/disco#info'><identity/></query></iq>".to_owned(),
    ];
    let mut world = World::quick(1);
    for request in requests {
        world.say(0, STRANGER, &request);
        world.run_for(2 * SECOND);
        let said = world.answers(STRANGER);
        let absent = world::unavailable(&world::stamp(&request, STRANGER, ROMEO)).unwrap();
        assert_eq!(said, [absent], "{request}");
        silent(&world);
    }
    for message in [propose("stranger2"), jmi("retract", "stranger2"), jmi("finish", "x"), jmi("proceed", "x")] {
        world.say(0, STRANGER, &message);
        world.run_for(2 * SECOND);
        assert_eq!(world.answers(STRANGER), Vec::<String>::new(), "{message}");
        silent(&world);
    }
    // A receipt or an answer that nobody asked for is not answered either.
    for iq in ["<iq type='result' id='q'/>", "<iq type='error' id='q'><error type='cancel'/></iq>"] {
        world.say(0, STRANGER, iq);
        world.run_for(SECOND);
        assert_eq!(world.answers(STRANGER), Vec::<String>::new());
    }
}

#[test]
fn no_socket_and_no_candidate_before_the_user_accepts() {
    for to in [JULIET, "juliet@capulet.example"] {
        let mut world = waiting();
        world.call(0, to);
        world.run_for(30 * SECOND);
        assert!(world.clients[1].incoming().is_some());
        assert_eq!((world.clients[1].opened, world.clients[1].datagrams), (0, 0));
        let said = world.answers(ROMEO);
        assert!(!said.iter().any(|x| x.contains("<candidate") || x.contains("192.0.2.2")), "{said:?}");
    }
}

fn contacts_may_prepare(_: usize, config: &mut EndpointConfig) {
    config.address_policy = AddressPolicy::Contacts;
}

/// RFC 7983 §7.
fn payload(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

// J176-24, J176-25: the path of a contact's call is made while it rings; what flows on it waits for the user.
#[test]
fn a_path_made_while_it_rings_carries_no_media_before_the_user_accepts() {
    let mut world = World::new(&Options { configure: contacts_may_prepare, ..Options::default() });
    world.clients[1].manner = Manner::Waits;
    world.capture = true;
    let call = world.call(0, JULIET);
    world.run_for(30 * SECOND);
    let ringing = world.clients[1].incoming().unwrap();
    assert_eq!(world.clients[1].opened, 1);
    let kinds = |test: fn(u8) -> bool| world.captured.iter().filter(|(.., bytes)| test(bytes[0])).count();
    assert!(kinds(|first| first < 4) > 4 && kinds(|first| (20..64).contains(&first)) > 4, "checks and a handshake");
    assert!(!world.captured.iter().any(|(.., bytes)| payload(bytes)), "neither RTP nor RTCP");
    for (client, id) in [(0, call), (1, ringing)] {
        let heard = world.clients[client].heard(id);
        assert_eq!((heard.frames, heard.sent), (0, 0));
        assert_eq!(world.clients[client].count(|e| matches!(e, Event::Connected { .. } | Event::Accepted(_))), 0);
    }
    // Not even media that the peer sends regardless is heard: there is nobody yet who would decode it.
    let (source, destination, _) =
        world.captured.iter().rfind(|(_, to, _)| to.ip().to_string() == "192.0.2.2").unwrap().clone();
    world.inject(source, destination, [&[0x80, 0x6f][..], &[7; 60]].concat());
    world.run_for(SECOND);
    assert_eq!(world.clients[1].heard(ringing).frames, 0);
    // The user says no: all is given back.
    world.act(1, |e, now| e.reject(now, ringing, ReasonCondition::Decline)).unwrap();
    world.run_for(SECOND);
    assert!(world.clients.iter().all(|c| c.sockets.is_empty()));
    assert_eq!(world.clients[0].end_kind(call), Some(EndKind::Rejected));
    let after = world.clients[1].datagrams;
    world.run_for(60 * SECOND);
    assert_eq!(world.clients[1].datagrams, after);
}

#[test]
fn a_stranger_who_may_ring_makes_no_socket_and_no_candidate_and_a_contact_few() {
    fn all_may_ring(who: usize, config: &mut EndpointConfig) {
        contacts_may_prepare(who, config);
        config.callers = Callers::Everyone;
    }
    let options = Options { configure: all_may_ring, contacts: false, ..Options::default() };
    let mut world = World::new(&options);
    world.clients[1].manner = Manner::Waits;
    world.call(0, JULIET);
    world.run_for(30 * SECOND);
    assert!(world.clients[1].incoming().is_some());
    assert_eq!((world.clients[1].opened, world.clients[1].datagrams), (0, 0));
    assert!(!world.routed.iter().any(|r| r.from == JULIET && r.text.contains("transport-info")));
    // However many contacts call at once, two paths are made.
    let clients =
        vec![ROMEO, JULIET, "mercutio@verona.example/a", "benvolio@verona.example/b", "nurse@verona.example/c"];
    let mut world = World::new(&Options { contacts: true, clients, ..options });
    world.clients[1].manner = Manner::Waits;
    for caller in [0, 2, 3, 4] {
        world.call(caller, JULIET);
    }
    world.run_for(5 * SECOND);
    assert_eq!(world.clients[1].count(|e| matches!(e, Event::Incoming { .. })), 4);
    assert_eq!(world.clients[1].opened, 2);
}

#[test]
fn no_stanza_of_the_peer_gives_the_consent_that_the_user_did_not() {
    let mut world = waiting();
    let call = world.call(0, JULIET);
    world.run_for(SECOND);
    let theirs = world.clients[1].incoming().unwrap();
    let sid = world.clients[1]
        .events
        .iter()
        .find_map(|(_, e)| if let Event::Incoming { sid, .. } = e { Some(sid.to_string()) } else { None })
        .unwrap();
    let accept = fixture("call/6-session-accept").replace("0c3f1a52-7d41-4f0b-9a55-8d0f2f6f1b77", &sid);
    let actions = [
        accept.clone(),
        accept.replace("session-accept", "content-accept"),
        accept.replace("session-accept", "transport-accept"),
        accept.replace("session-accept", "content-add"),
        accept.replace("session-accept", "transport-replace"),
        accept.replace("session-accept", "description-info"),
        accept.replace("session-accept", "transport-info"),
        format!(
            "<iq type='set' id='z'><jingle xmlns='urn:xmpp:jingle:1' action='session-info' sid='{sid}'><active xmlns='urn:xmpp:jingle:apps:rtp:info:1'/></jingle></iq>"
        ),
        jmi("proceed", &sid),
        jmi("accept", &sid),
    ];
    for (i, action) in actions.iter().enumerate() {
        world.say(1, ROMEO, &action.replacen("id='", &format!("id='v{i}"), 1));
        world.run_for(SECOND);
        assert_eq!((world.clients[1].opened, world.clients[1].datagrams), (0, 0), "{action}");
    }
    assert_eq!(world.clients[1].heard(theirs).sent, 0);
    assert_eq!(world.clients[0].count(|e| *e == Event::Accepted(call)), 0);
}

#[test]
fn only_the_callee_can_take_an_invitation_and_only_once() {
    let friends = vec!["paris@verona.example"];
    let mut world = World::new(&Options { clients: vec![ROMEO], friends, ..Options::default() });
    world.call(0, "paris@verona.example");
    world.run_for(2 * SECOND);
    let asked = world.answers("paris@verona.example").remove(0);
    let sid = asked.split("<propose").nth(1).and_then(|x| attr(x, "id")).unwrap().to_owned();
    for (from, id) in [
        (STRANGER, sid.as_str()),
        ("romeo@montague.example/elsewhere", &sid),
        ("verona.example", &sid),
        ("square@rooms.verona.example/paris", &sid),
        ("paris@verona.example", &sid),
        ("paris@verona.example/home", "unknown"),
    ] {
        for name in ["proceed", "accept", "ringing", "reject", "finish"] {
            if (from, name) == ("paris@verona.example", "ringing")
                || (from, name) == ("paris@verona.example", "reject")
                || (from, name) == ("paris@verona.example", "finish")
            {
                continue;
            }
            world.say(0, from, &jmi(name, id));
            world.run_for(Duration::from_millis(100));
            assert_eq!(world.clients[0].opened, 0, "{from} {name}");
            assert_eq!(world.clients[0].endpoint.calls().count(), 1, "{from} {name}");
        }
    }
    // Two devices at once: one session.
    for _ in 0..2 {
        world.say(0, "paris@verona.example/home", &jmi("proceed", &sid));
        world.say(0, "paris@verona.example/office", &jmi("proceed", &sid));
    }
    world.run_for(SECOND);
    assert_eq!(world.clients[0].opened, 1);
    let offers = world.routed.iter().filter(|r| r.text.contains("session-initiate")).collect::<Vec<_>>();
    assert_eq!(offers.len(), 1);
    assert_eq!(offers[0].to, "paris@verona.example/home");
}

#[test]
fn a_copy_counts_only_from_our_own_account() {
    let carbon = |outer: &str, direction: &str, inner: &str| {
        format!(
            "<message from='{outer}' type='chat'><{direction} xmlns='urn:xmpp:carbons:2'>\
             <forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></{direction}></message>"
        )
    };
    let inner = |from: &str, to: &str, xml: &str| {
        world::stamp(xml, from, to).replacen("<message", "<message xmlns='jabber:client'", 1)
    };
    let mut world = waiting();
    let asked = inner(JULIET, "romeo@montague.example", &propose("forged1"));
    for outer in [STRANGER, "tybalt@capulet.example", JULIET, "juliet@capulet.example", "montague.example", ROMEO] {
        for direction in ["received", "sent"] {
            world.say(0, outer, &carbon(outer, direction, &asked));
            world.run_for(SECOND);
            silent(&world);
        }
    }
    // A forged copy does not stop what rings.
    world.clients[0].manner = Manner::Waits;
    let call = world.call(1, "romeo@montague.example");
    world.run_for(2 * SECOND);
    let ringing = world.clients[0].incoming().unwrap();
    let sid = world.clients[0]
        .events
        .iter()
        .find_map(|(_, e)| if let Event::Incoming { sid, .. } = e { Some(sid.to_string()) } else { None })
        .unwrap();
    for outer in [STRANGER, JULIET, "juliet@capulet.example"] {
        for name in ["proceed", "reject", "accept", "finish"] {
            let took = inner("romeo@montague.example/phone", JULIET, &jmi(name, &sid));
            world.say(0, outer, &carbon(outer, "sent", &took));
            world.run_for(Duration::from_millis(100));
            assert_eq!(world.clients[0].end_kind(ringing), None, "{outer} {name}");
        }
    }
    // Our own account's does.
    let took = inner("romeo@montague.example/phone", JULIET, &jmi("proceed", &sid));
    world.say(0, "romeo@montague.example", &carbon("romeo@montague.example", "sent", &took));
    world.run_for(SECOND);
    assert_eq!(world.clients[0].ends(ringing), 1);
    let _ = call;
}

#[test]
fn devices_that_do_not_take_the_call_stop_ringing() {
    let clients = vec![ROMEO, JULIET, CHAMBER];
    let mut world = World::new(&Options { clients, ..Options::default() });
    world.clients[2].manner = Manner::Waits;
    world.clients[1].manner = Manner::Waits;
    let call = world.call(0, "juliet@capulet.example");
    world.run_for(SECOND);
    let (here, there) = (world.clients[1].incoming().unwrap(), world.clients[2].incoming().unwrap());
    let began = world.now;
    world.act(1, |e, now| e.accept(now, here)).unwrap();
    world.run_for(2 * SECOND);
    let stopped = world.clients[2].at(|e| matches!(e, Event::Ended { .. })).expect("stops ringing");
    assert!(stopped - began < Duration::from_millis(500));
    assert_eq!(world.clients[2].ends(there), 1);
    assert_eq!((world.clients[2].opened, world.clients[2].datagrams), (0, 0));
    assert!(world.clients[0].heard(call).frames > 30 && world.clients[1].heard(here).frames > 30);
    // Both devices at the same moment: one call.
    let mut world = World::new(&Options { clients: vec![ROMEO, JULIET, CHAMBER], ..Options::default() });
    let call = world.call(0, "juliet@capulet.example");
    world.run_for(40 * SECOND);
    assert!(world.clients[0].heard(call).frames > 1000);
    let active = |c: &world::Client| c.endpoint.calls().count();
    assert_eq!(active(&world.clients[0]), 1);
    assert_eq!(active(&world.clients[1]) + active(&world.clients[2]), 1);
}

#[test]
fn a_forged_roster_push_or_answer_changes_nothing() {
    let mut world = World::quick(1);
    let push = "<iq type='set' id='push1'><query xmlns='jabber:iq:roster'>\
                <item jid='tybalt@capulet.example' subscription='both'/></query></iq>";
    for from in [STRANGER, JULIET, "montague.example", "capulet.example", "romeo@montague.example/elsewhere"] {
        world.say(0, from, push);
        world.run_for(SECOND);
        world.say(0, STRANGER, &offer("after-push", "q"));
        world.run_for(SECOND);
        let said = world.answers(STRANGER);
        assert!(said.last().unwrap().contains("<service-unavailable"), "{from} {said:?}");
        silent(&world);
    }
    // Answers to our session-initiate that come from somebody else.
    world.clients[1].manner = Manner::Waits;
    let call = world.call(0, JULIET);
    let initiate = loop {
        world.run_for(Duration::from_millis(1));
        if let Some(found) = world.routed.iter().find(|r| r.text.contains("session-initiate")) {
            break found.text.clone();
        }
    };
    let id = attr(&initiate, "id").unwrap();
    for from in [STRANGER, "juliet@capulet.example", "juliet@capulet.example/elsewhere", "montague.example"] {
        let error = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        world.say(0, from, &format!("<iq type='error' id='{id}'>{error}</iq>"));
        world.run_for(Duration::from_millis(13));
        assert_eq!(world.clients[0].end_kind(call), None, "{from}");
    }
}

#[test]
fn a_session_is_not_reached_from_another_address() {
    let mut world = World::quick(1);
    let (call, answered) = world.connected_call(0, 1);
    let sid = world.clients[1]
        .events
        .iter()
        .find_map(|(_, e)| if let Event::Incoming { sid, .. } = e { Some(sid.to_string()) } else { None })
        .unwrap();
    for victim in [0, 1] {
        let peer_bare = world.clients[1 - victim].bare().to_owned();
        let others = [STRANGER.to_owned(), peer_bare.clone(), format!("{peer_bare}/elsewhere")];
        for from in others {
            for action in ["session-terminate", "session-info", "transport-info", "session-accept", "content-remove"] {
                let jingle = format!(
                    "<jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='{sid}' initiator='{ROMEO}' responder='{JULIET}'>\
                     <content creator='initiator' name='audio'><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='evil' pwd='evilevilevilevilevilevil'/></content></jingle>"
                );
                world.say(victim, &from, &format!("<iq type='set' id='h'>{jingle}</iq>"));
            }
            world.say(victim, &from, &offer(&sid, "hijack"));
            world.say(victim, &from, &jmi("finish", &sid));
            world.say(victim, &from, &jmi("retract", &sid));
            world.run_for(SECOND);
        }
    }
    world.run_for(40 * SECOND);
    for (client, id) in [(0, call), (1, answered)] {
        assert_eq!(world.clients[client].end_kind(id), None, "{:?}", world.clients[client].events);
        assert!(world.clients[client].heard(id).frames > 1_900, "{:?}", world.clients[client].heard(id));
    }
}

#[test]
fn the_callees_other_device_cannot_take_over_our_call_with_its_sid() {
    let friends = vec!["paris@verona.example"];
    let mut world = World::new(&Options { clients: vec![ROMEO], friends, ..Options::default() });
    world.clients[0].manner = Manner::Waits;
    let call = world.call(0, "paris@verona.example/home");
    world.run_for(SECOND);
    let initiate = world.answers("paris@verona.example/home").remove(0);
    let sid = initiate.split(" sid='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    world.say(0, "paris@verona.example/office", &offer(&sid, "o1"));
    world.run_for(SECOND);
    assert_eq!(world.clients[0].end_kind(call), None);
    assert_eq!(world.clients[0].opened, 1);
    // At most a call of its own.
    let other = world.clients[0].incoming();
    assert!(other != Some(call));
    world.run_for(120 * SECOND);
    assert_eq!(world.clients[0].ends(call), 1);
    if let Some(other) = other {
        assert_eq!(world.clients[0].ends(other), 1);
    }
    assert_eq!(world.clients[0].endpoint.calls().count(), 0);
}

/// As short as an offer can be, so that the test is about us and not about XML.
fn flood() -> String {
    "<iq type='set' id='ID'><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='SID'>\
     <content creator='initiator' name='a'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>\
     <payload-type id='0'/></description><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='u' \
     pwd='p'><fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00</fingerprint>\
     </transport></content></jingle></iq>"
        .to_owned()
}

#[test]
fn a_flood_of_offers_costs_little_memory_and_no_call() {
    // Ten seconds of a contact, two of a stranger.
    for (from, rounds) in [("paris@verona.example/flood", 1_000), (STRANGER, 200)] {
        let friends = vec!["paris@verona.example"];
        let mut world = World::new(&Options { friends, ..Options::default() });
        world.clients[0].manner = Manner::Waits;
        world.record = false;
        let stanza = flood();
        let mut sent = 0_u64;
        let mut peak = 0;
        let mut honest = None;
        for round in 0..rounds {
            let grown = allocation_counter::measure(|| {
                for _ in 0..100 {
                    sent += 1;
                    let xml = stanza.replace("SID", &format!("sid{sent}")).replacen("'ID'", &format!("'i{sent}'"), 1);
                    world.say(0, from, &xml);
                }
                world.run_for(Duration::from_millis(10));
            });
            peak += grown.bytes_current;
            if round == 100 {
                honest = Some((world.call(0, JULIET), world.now));
            }
            assert!(peak < 10 * 1024 * 1024, "{peak} bytes after {sent} offers");
        }
        let (call, began) = honest.unwrap();
        world.run_for(SECOND);
        let connected = world.clients[0].at(|e| matches!(e, Event::Connected { call: id, .. } if *id == call));
        let took = connected.expect("the honest call stands") - began;
        println!("{from}: {sent} offers, {peak} bytes kept, honest call in {took:?}");
        assert!(took < Duration::from_millis(500));
        assert!(world.clients[0].count(|e| matches!(e, Event::Incoming { .. })) <= 16);
    }
}

#[test]
fn a_flood_of_candidates_reaches_few_targets_with_few_datagrams() {
    const PARIS: &str = "paris@verona.example/x";
    let mut world = World::new(&Options { friends: vec!["paris@verona.example"], ..Options::default() });
    world.clients[1].manner = Manner::Waits;
    let head = offer("candidates", "c0");
    world.say(1, PARIS, &head);
    world.run_for(SECOND);
    let call = world.clients[1].incoming().unwrap();
    world.act(1, |e, now| e.accept(now, call)).unwrap();
    world.run_for(SECOND);
    for batch in 0..100 {
        let candidates: String = (0..10)
            .map(|i| {
                let n = batch * 10 + i;
                format!(
                    "<candidate component='1' foundation='{n}' generation='0' id='x{n}' ip='198.51.100.{}' network='0' port='{}' priority='2130706431' protocol='udp' type='host'/>",
                    n % 250 + 1,
                    2_000 + n
                )
            })
            .collect();
        world.say(1, PARIS, &format!(
            "<iq type='set' id='t{batch}'><jingle xmlns='urn:xmpp:jingle:1' action='transport-info' sid='candidates'><content creator='initiator' name='audio'>\
             <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' pwd='9n4bUe7o1VQyG0iHkqLwTzX5' ufrag='sYb2'>{candidates}</transport></content></jingle></iq>"
        ));
        world.run_for(Duration::from_millis(10));
    }
    world.run_for(120 * SECOND);
    let mut targets = std::collections::BTreeMap::new();
    for (_, to, _) in &world.strays {
        *targets.entry(*to).or_insert(0_usize) += 1;
    }
    println!("{} targets, at most {:?} datagrams each", targets.len(), targets.values().max());
    assert!(targets.len() <= 32, "{}", targets.len());
    assert!(targets.values().all(|n| *n <= 9), "{targets:?}");
}

/// Datagrams that are nothing of ours: every first byte, lengths to 200, from strangers and from the peer's own address.
#[test]
fn junk_and_replays_do_no_harm_to_a_call() {
    let mut world = World::quick(1);
    world.capture = true;
    let (call, answered) = world.connected_call(0, 1);
    world.run_for(2 * SECOND);
    let recorded = std::mem::take(&mut world.captured);
    world.capture = false;
    let (a, b) = (world.clients[0].sockets[&LegId::Call(call)], world.clients[1].sockets[&LegId::Call(answered)]);
    let evil = SocketAddr::from(([203, 0, 113, 66], 666));
    let mut noise = world::Rng(7);
    for first in 0..=255_u8 {
        for length in (0..=200).step_by(if first % 16 == 0 { 1 } else { 13 }) {
            let mut junk: Vec<u8> = (0..length).map(|_| noise.next() as u8).collect();
            if let Some(byte) = junk.first_mut() {
                *byte = first;
            }
            for (source, to) in [(evil, a), (b, a), (a, b)] {
                world.inject(source, to, junk.clone());
            }
        }
        world.run_for(Duration::from_millis(20));
    }
    // Everything that was ever said, again: from where it came, and from elsewhere.
    for (source, to, bytes) in &recorded {
        world.inject(*source, *to, bytes.clone());
        world.inject(evil, *to, bytes.clone());
    }
    world.run_for(2 * SECOND);
    let before = [world.clients[0].heard(call), world.clients[1].heard(answered)];
    world.run_for(10 * SECOND);
    for (client, id) in [(0, call), (1, answered)] {
        assert_eq!(world.clients[client].end_kind(id), None);
        let frames = world.clients[client].heard(id).frames - before[client].frames;
        assert!(frames >= 495, "{frames} of 500 frames");
        let stats = world.clients[client].endpoint.stats(world.now, id).unwrap();
        assert_eq!(stats.lost_in, 0);
        println!("{} datagrams dropped", stats.dropped_datagrams);
    }
    // Nobody but the peer gets sound or a handshake. STUN has no protection against replays: a repeated check is answered
    // where it came from, and asked back at most nine times.
    let got: Vec<&Vec<u8>> = world.strays.iter().filter(|(_, to, _)| *to == evil).map(|(_, _, bytes)| bytes).collect();
    assert!(got.iter().all(|bytes| bytes[0] < 4), "something was sent to a stranger");
    let checks = recorded.iter().filter(|(_, _, bytes)| bytes[..2] == [0, 1]).count();
    println!("{checks} checks repeated by a stranger, {} datagrams to him", got.len());
    assert!(got.len() <= checks + 2 * 9);
}

#[test]
fn replayed_stanzas_do_no_harm_to_a_call() {
    for to in [JULIET, "juliet@capulet.example"] {
        let mut world = World::quick(1);
        let call = world.call(0, to);
        world.run_for(2 * SECOND);
        let answered = world.clients[1].incoming().unwrap();
        let said = world.routed.clone();
        for round in 0..2 {
            for routed in &said {
                let client = usize::from(bare_of(&routed.to) == "juliet@capulet.example");
                // Terminates are the peer's right; nothing else ends a call.
                world.say(client, &routed.from, &routed.text);
                world.run_for(Duration::from_millis(if round == 0 { 0 } else { 50 }));
            }
        }
        world.run_for(5 * SECOND);
        for (client, id) in [(0, call), (1, answered)] {
            assert_eq!(world.clients[client].end_kind(id), None, "{to} {:?}", world.clients[client].ended(id));
            assert!(world.clients[client].heard(id).frames > 250);
            assert_eq!(world.clients[client].opened, 1);
            assert_eq!(world.clients[client].endpoint.calls().count(), 1);
        }
    }
}

fn bare_of(jid: &str) -> &str {
    world::bare(jid)
}

/// Collects what is logged at info and above, and at debug.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_log_line_above_debug_tells_an_address_or_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let mut secrets = Vec::new();
    tracing::subscriber::with_default(subscriber, || {
        let mut world = World::new(&Options { loss: 0.02, ..Options::default() });
        let (call, _) = world.connected_call(0, 1);
        world.run_for(2 * SECOND);
        world.cut(0);
        world.run_for(30 * SECOND);
        world.act(0, |e, now| e.hold(now, call, true)).unwrap();
        for client in 0..2 {
            let stray = SocketAddr::from(([203, 0, 113, 66], 666));
            let to = *world.clients[client].sockets.values().next().unwrap();
            world.inject(stray, to, vec![22; 100]);
        }
        world.say(0, STRANGER, &offer("s", "q"));
        world.run_for(SECOND);
        world.act(0, |e, now| e.hang_up(now, call)).unwrap();
        world.run_for(SECOND);
        // A path that dies.
        world.loss = 0.0;
        let call = world.call(0, "juliet@capulet.example");
        world.run_for(2 * SECOND);
        world.loss = 1.0;
        world.run_for(60 * SECOND);
        assert_eq!(world.clients[0].end_kind(call), Some(EndKind::MediaFailed), "{:?}", world.clients[0].ended(call));
        for routed in &world.routed {
            for name in ["pwd", "ufrag"] {
                if let Some(at) = routed.text.find(&format!(" {name}='")) {
                    secrets.push(routed.text[at + name.len() + 3..].split('\'').next().unwrap().to_owned());
                }
            }
        }
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    println!("{text}");
    assert!(text.contains("call ended"));
    assert!(!secrets.is_empty());
    let names = ["romeo", "juliet", "montague", "capulet", "tybalt", "192.0.2.", "203.0.113.", "battery"];
    for secret in names.iter().map(|s| (*s).to_owned()).chain(secrets) {
        assert!(!text.contains(&secret), "{secret} is in the log:\n{text}");
    }
}

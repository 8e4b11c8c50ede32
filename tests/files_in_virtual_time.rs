//! Whole transfers of files between endpoints, in virtual time: every way, every fall-back, every fault.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/world.rs"]
mod world;

use offhook::endpoint::Endpoint;
use offhook::endpoint::event::{EndKind, Event, Input, LegId};
use offhook::endpoint::file_event::{FileEvent, FileId, FileInput, TransferId, Way, WayKind};
use offhook::fault::ReasonCondition;
use offhook::file::Verdict;
use offhook::wire::candidate::S5bKind;
use offhook::wire::description::{FileDescription, FileErrorCondition};
use offhook::wire::jid::Jid;
use offhook::wire::jingle::Reason;
use std::time::Duration;
use world::shelf::sha256;
use world::{JULIET, ROMEO, World};

const SECOND: Duration = Duration::from_secs(1);
const S5B: [WayKind; 1] = [WayKind::S5b];
const CHANNEL: [WayKind; 1] = [WayKind::DataChannel];
const IBB: [WayKind; 1] = [WayKind::Ibb];

/// Bytes that compress to nothing and repeat nowhere.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut rng = world::Rng(seed);
    (0..bytes).map(|_| rng.next() as u8).collect()
}

fn file_events(world: &World, client: usize) -> Vec<&FileEvent> {
    let events = world.clients[client].events.iter();
    events.filter_map(|(_, e)| if let Event::File(e) = e { Some(e) } else { None }).collect()
}

fn ways(world: &World, client: usize) -> Vec<Way> {
    let events = file_events(world, client).into_iter();
    events.filter_map(|e| if let FileEvent::Connected { way, .. } = e { Some(*way) } else { None }).collect()
}

fn end(world: &World, client: usize) -> EndKind {
    let ends: Vec<EndKind> = file_events(world, client)
        .into_iter()
        .filter_map(|e| if let FileEvent::Ended { how, .. } = e { Some(how.kind) } else { None })
        .collect();
    assert_eq!(ends.len(), 1, "{:?}", file_events(world, client));
    ends[0]
}

/// All files are over there with the right bytes, in order, and both sides say so.
fn arrived(world: &World, files: &[(&str, Vec<u8>)]) {
    for client in 0..2 {
        assert_eq!(end(world, client), EndKind::Completed, "{:#?}", file_events(world, client));
        assert!(world.clients[client].sockets.is_empty());
        assert_eq!(world.clients[client].endpoint.transfers().count(), 0);
    }
    let kept: Vec<&Vec<u8>> = world.clients[1].shelf.kept.values().collect();
    assert_eq!(kept.len(), files.len());
    for (kept, (_, sent)) in kept.into_iter().zip(files) {
        assert_eq!(sha256(kept), sha256(sent));
    }
    let done = |client: usize| {
        let events = file_events(world, client).into_iter();
        events.filter(|e| matches!(e, FileEvent::Done { verified: true, .. })).count()
    };
    assert_eq!((done(0), done(1)), (files.len(), files.len()), "{:#?}", file_events(world, 0));
}

fn one_file(bytes: usize, allowed: &[WayKind], expected: Way) {
    let mut world = World::quick(7);
    let files = [("balcony.txt", noise(bytes, 1))];
    world.send(0, JULIET, &files, allowed);
    world.run_for(60 * SECOND);
    arrived(&world, &files);
    assert_eq!((ways(&world, 0), ways(&world, 1)), (vec![expected], vec![expected]));
}

#[test]
fn a_file_goes_over_a_direct_bytestream() {
    one_file(300_000, &WayKind::ALL, Way::S5b(S5bKind::Direct));
}

#[test]
fn a_file_goes_over_a_data_channel() {
    one_file(300_000, &CHANNEL, Way::DataChannel);
}

#[test]
fn a_file_goes_in_band() {
    one_file(300_000, &IBB, Way::Ibb);
}

#[test]
fn an_empty_file_goes_every_way() {
    one_file(0, &S5B, Way::S5b(S5bKind::Direct));
    one_file(0, &CHANNEL, Way::DataChannel);
    one_file(0, &IBB, Way::Ibb);
}

#[test]
fn a_person_is_sent_a_file_on_the_device_that_takes_files() {
    let mut world = World::quick(8);
    let files = [("balcony.txt", noise(10_000, 1))];
    world.send(0, "juliet@capulet.example", &files, &WayKind::ALL);
    world.run_for(20 * SECOND);
    arrived(&world, &files);
}

#[test]
fn several_files_go_in_one_session_one_after_the_other() {
    for allowed in [&S5B, &CHANNEL, &IBB] {
        let mut world = World::quick(9);
        let files: Vec<(&str, Vec<u8>)> =
            ["a", "b", "c", "d", "e"].iter().zip(1..).map(|(name, n)| (*name, noise(20_000 * n as usize, n))).collect();
        world.send(0, JULIET, &files, allowed);
        world.run_for(120 * SECOND);
        arrived(&world, &files);
        let sids = world.routed.iter().filter(|r| r.text.contains("action='session-initiate'")).count();
        assert_eq!(sids, 1);
    }
}

/// Streams and datagrams between the two do not arrive, as far as `dead` says.
fn falls_back(dead_streams: bool, dead_datagrams: bool, expected: Way, steps: &[(WayKind, WayKind)]) {
    let mut world = World::quick(10);
    for client in &mut world.clients {
        client.shelf.unreachable = dead_streams;
    }
    world.loss = if dead_datagrams { 1.0 } else { 0.0 };
    let files = [("balcony.txt", noise(30_000, 1))];
    world.send(0, JULIET, &files, &WayKind::ALL);
    world.run_for(180 * SECOND);
    arrived(&world, &files);
    assert_eq!(ways(&world, 1), [expected]);
    let fallen: Vec<(WayKind, WayKind)> = file_events(&world, 0)
        .into_iter()
        .filter_map(|e| if let FileEvent::Falling { from, to, .. } = e { Some((*from, *to)) } else { None })
        .collect();
    assert_eq!(fallen, steps);
}

#[test]
fn without_streams_a_data_channel_takes_over() {
    falls_back(true, false, Way::DataChannel, &[(WayKind::S5b, WayKind::DataChannel)]);
}

#[test]
fn without_streams_and_datagrams_the_bytes_go_in_band() {
    use WayKind::{DataChannel, Ibb, S5b};
    falls_back(true, true, Way::Ibb, &[(S5b, DataChannel), (DataChannel, S5b), (S5b, Ibb)]);
}

#[test]
fn where_no_allowed_way_works_both_sides_say_so() {
    let mut world = World::quick(11);
    for client in &mut world.clients {
        client.shelf.unreachable = true;
    }
    world.send(0, JULIET, &[("a", noise(1000, 1))], &S5B);
    world.run_for(120 * SECOND);
    assert_eq!((end(&world, 0), end(&world, 1)), (EndKind::MediaFailed, EndKind::MediaFailed));
    assert!(world.clients[1].shelf.kept.is_empty());
}

#[test]
fn the_receiver_resumes_by_range_and_the_whole_is_hashed() {
    for allowed in [&S5B, &CHANNEL, &IBB] {
        let mut world = World::quick(12);
        let bytes = noise(200_000, 1);
        let id = FileId { transfer: TransferId(1), file: 0 };
        world.clients[1].shelf.parts.insert(id, bytes[..150_000].to_vec());
        let files = [("balcony.txt", bytes)];
        world.send(0, JULIET, &files, allowed);
        world.run_for(60 * SECOND);
        arrived(&world, &files);
        let accept = world.routed.iter().find(|r| r.text.contains("action='session-accept'")).unwrap();
        assert!(accept.text.contains("<range offset='150000'/>"), "{}", accept.text);
    }
}

#[test]
fn a_wrong_part_is_found_out_by_the_hash_and_gets_no_final_name() {
    let mut world = World::quick(13);
    let bytes = noise(200_000, 1);
    let id = FileId { transfer: TransferId(1), file: 0 };
    world.clients[1].shelf.parts.insert(id, noise(100_000, 2));
    world.send(0, JULIET, &[("balcony.txt", bytes)], &S5B);
    world.run_for(60 * SECOND);
    assert_eq!((end(&world, 0), end(&world, 1)), (EndKind::File, EndKind::File));
    assert!(world.clients[1].shelf.kept.is_empty());
    assert_eq!(world.clients[1].shelf.verdicts, [(id, Verdict::Spoiled)]);
}

#[test]
fn a_stream_that_breaks_leaves_a_part_for_the_next_session() {
    let mut world = World::quick(14);
    let files = [("balcony.txt", noise(200_000, 1))];
    world.clients[0].shelf.breaks_at = Some(120_000);
    world.send(0, JULIET, &files, &S5B);
    world.run_for(20 * SECOND);
    assert_eq!((end(&world, 0), end(&world, 1)), (EndKind::MediaFailed, EndKind::MediaFailed));
    let part = world.clients[1].shelf.parts.values().next().unwrap().clone();
    assert_eq!(part.len(), 120_000);
    assert!(world.clients[1].shelf.verdicts.iter().all(|(_, v)| *v == Verdict::Pause));
    for client in &mut world.clients {
        client.events.clear();
    }
    world.clients[1].shelf.parts.insert(FileId { transfer: TransferId(2), file: 0 }, part);
    world.send(0, JULIET, &files, &S5B);
    world.run_for(20 * SECOND);
    arrived(&world, &files);
}

#[test]
fn nothing_is_dialled_and_no_listener_opened_before_the_user_accepts() {
    let mut world = World::quick(15);
    world.clients[1].takes_files = false;
    world.send(0, JULIET, &[("a", noise(1000, 1))], &WayKind::ALL);
    world.run_for(5 * SECOND);
    let shelf = &world.clients[1].shelf;
    assert_eq!((shelf.listened, shelf.dials.len(), world.clients[1].opened), (0, 0, 0));
    let offered = file_events(&world, 1).into_iter().any(|e| matches!(e, FileEvent::Offered { .. }));
    assert!(offered);
}

#[test]
fn a_declined_offer_ends_as_one() {
    let mut world = World::quick(16);
    world.clients[1].takes_files = false;
    world.send(0, JULIET, &[("a", noise(1000, 1))], &WayKind::ALL);
    world.run_for(SECOND);
    let transfer = world.clients[1].endpoint.transfers().next().unwrap();
    world.act(1, |e, now| e.reject_files(now, transfer, Reason::new(ReasonCondition::Decline))).unwrap();
    world.run_for(SECOND);
    assert_eq!((end(&world, 0), end(&world, 1)), (EndKind::Rejected, EndKind::Rejected));
}

#[test]
fn either_side_cancels_everything_while_it_is_carried() {
    for side in [0, 1] {
        let mut world = World::quick(17);
        world.send(0, JULIET, &[("a", noise(3_000_000, 1)), ("b", noise(3_000_000, 2))], &IBB);
        world.run_for(SECOND);
        let transfer = world.clients[side].endpoint.transfers().next().unwrap();
        world.act(side, |e, now| e.cancel_transfer(now, transfer)).unwrap();
        world.run_for(5 * SECOND);
        assert_eq!((end(&world, 0), end(&world, 1)), (EndKind::Cancelled, EndKind::Cancelled));
        assert!(world.clients[1].shelf.kept.is_empty());
    }
}

#[test]
fn one_file_is_taken_out_and_the_other_arrives() {
    // J234-10
    let mut world = World::quick(18);
    let files = [("a", noise(2_000_000, 1)), ("b", noise(1000, 2))];
    let transfer = world.send(0, JULIET, &files, &IBB);
    world.run_for(SECOND);
    world.act(0, |e, now| e.cancel_file(now, FileId { transfer, file: 0 })).unwrap();
    world.run_for(20 * SECOND);
    let kept: Vec<_> = world.clients[1].shelf.kept.values().collect();
    assert_eq!(kept, [&files[1].1]);
    for client in 0..2 {
        let failed = file_events(&world, client)
            .into_iter()
            .any(|e| matches!(e, FileEvent::Failed { id, kind: EndKind::Cancelled, .. } if id.file == 0));
        assert!(failed, "{client}: {:#?}", file_events(&world, client));
    }
}

#[test]
fn a_stranger_learns_nothing_by_offering_files() {
    let mut world = World::new(&world::Options { contacts: false, ..Default::default() });
    world.clients[0].takes_files = false;
    world.send(0, JULIET, &[("a", noise(1000, 1))], &WayKind::ALL);
    world.run_for(5 * SECOND);
    assert_eq!(end(&world, 0), EndKind::Unavailable);
    assert!(file_events(&world, 1).is_empty());
    assert_eq!(world.clients[1].shelf.listened, 0);
}

#[test]
fn a_device_that_takes_only_files_leaves_calls_to_the_others() {
    let mut world = World::new(&world::Options {
        clients: vec![ROMEO, JULIET, world::CHAMBER],
        configure: |index, config| {
            config.context.policy.applications = match index {
                1 => &[offhook::wire::ns::RTP],
                2 => &[offhook::wire::ns::FILE],
                _ => config.context.policy.applications,
            };
        },
        ..Default::default()
    });
    let call = world.call(0, "juliet@capulet.example");
    world.run_for(3 * SECOND);
    assert!(world.clients[0].heard(call).frames > 50);
    assert!(world.clients[2].incoming().is_none());
    let files = [("a", noise(1000, 1))];
    world.send(0, "juliet@capulet.example", &files, &WayKind::ALL);
    world.run_for(10 * SECOND);
    assert_eq!(world.clients[2].shelf.kept.values().collect::<Vec<_>>(), [&files[0].1]);
    assert!(file_events(&world, 1).is_empty());
}

/// Romeo asks Juliet for a file.
fn requested() -> (World, TransferId, FileId) {
    let mut world = World::quick(20);
    let wanted = FileDescription { name: Some("sonnet.txt".to_owned()), ..FileDescription::default() };
    let jid = Jid::new(JULIET).unwrap();
    let transfer = world.act(0, |e, now| e.request_file(now, &jid, wanted, &WayKind::ALL)).unwrap();
    world.run_for(3 * SECOND);
    let asked = file_events(&world, 1).into_iter().find_map(|e| match e {
        FileEvent::Requested { file, .. } => Some((file.id, file.description.name.clone())),
        _ => None,
    });
    let (id, name) = asked.expect("the request came in");
    assert_eq!(name.as_deref(), Some("sonnet.txt"));
    (world, transfer, id)
}

#[test]
fn a_file_that_is_asked_for_is_given() {
    // J234-02: senders='responder' in a session-initiate is a request.
    let (mut world, transfer, id) = requested();
    let bytes = noise(70_000, 3);
    world.clients[1].shelf.sources.insert(id, bytes.clone());
    let file = world::shelf::described("sonnet.txt", &bytes, false);
    world.act(1, |e, now| e.serve_file(now, id, file)).unwrap();
    world.run_for(20 * SECOND);
    assert_eq!(world.clients[0].shelf.kept.get(&FileId { transfer, file: 0 }), Some(&bytes));
    assert_eq!((end(&world, 0), end(&world, 1)), (EndKind::Completed, EndKind::Completed));
}

#[test]
fn missing_and_forbidden_files_are_answered_alike() {
    // J234-16: one answer, so that nobody learns which files exist.
    let (mut world, _, id) = requested();
    world.act(1, |e, now| e.reject_files(now, id.transfer, Endpoint::file_not_available())).unwrap();
    world.run_for(SECOND);
    let answer = world.routed.iter().find(|r| r.text.contains("session-terminate")).unwrap();
    assert!(answer.text.contains("<failed-application/>") && answer.text.contains("file-not-available"));
    assert_eq!(end(&world, 0), EndKind::File);
}

#[test]
fn a_file_that_both_or_nobody_would_send_is_refused() {
    // J234-03
    for senders in ["both", "none"] {
        let mut world = World::quick(21);
        world.tamper = Some(Box::new(move |_, _, xml| {
            let swapped = format!("senders='{senders}'");
            xml.contains("session-initiate").then(|| vec![xml.replace("senders='initiator'", &swapped)])
        }));
        world.send(0, JULIET, &[("a", noise(1000, 1))], &S5B);
        world.run_for(5 * SECOND);
        let answer = world.routed.iter().find(|r| r.text.contains("session-terminate")).unwrap();
        assert!(answer.text.contains("<incompatible-parameters/>"), "{}", answer.text);
        assert!(file_events(&world, 1).is_empty());
    }
}

#[test]
fn streamhosts_that_are_no_business_of_the_peer_are_never_dialled() {
    // Threat: S5B streamhost SSRF.
    let hosts = [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.1.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "fe80::1",
        "fd00::1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "255.255.255.255",
        "224.0.0.1",
        "localhost",
        "127.1",
        "0x7f000001",
        "2130706433",
    ];
    for host in hosts {
        let mut world = World::quick(22);
        world.tamper = Some(Box::new(move |from, _, xml| {
            let theirs = from.starts_with("romeo") && xml.contains("session-initiate");
            theirs.then(|| vec![xml.replace("host='192.0.2.1'", &format!("host='{host}'"))])
        }));
        let files = [("a", noise(1000, 1))];
        world.send(0, JULIET, &files, &WayKind::ALL);
        world.run_for(30 * SECOND);
        assert!(world.clients[1].shelf.dials.iter().all(|(addr, _)| addr.ip().to_string() == "192.0.2.1"), "{host}");
        // The other side's own streamhost carries it all the same.
        arrived(&world, &files);
    }
}

#[test]
fn a_connection_that_is_lost_at_any_point_loses_nothing() {
    for percent in [0, 1, 50, 99, 100] {
        for allowed in [&S5B, &CHANNEL, &IBB] {
            let mut world = World::quick(23);
            let bytes = noise(200_000, 1);
            let at = bytes.len() * percent / 100;
            let files = [("balcony.txt", bytes.clone())];
            if allowed == &S5B {
                world.clients[0].shelf.breaks_at = Some(at);
                world.send(0, JULIET, &files, allowed);
            } else {
                world.send(0, JULIET, &files, allowed);
                let id = FileId { transfer: TransferId(1), file: 0 };
                world.run_while(60 * SECOND, |w| w.clients[1].shelf.arrived(id) < at.max(1));
                // What is there stays when the sender's process dies; the receiver finds out by itself.
                let part = world.clients[1].shelf.part(id);
                world.clients[1].shelf.parts.insert(id, part);
                let transfer = TransferId(1);
                drop(world.act(0, |e, now| e.cancel_transfer(now, transfer)));
            }
            world.run_for(30 * SECOND);
            let done = file_events(&world, 1).into_iter().any(|e| matches!(e, FileEvent::Done { .. }));
            let part = world.clients[1].shelf.parts.values().next().cloned().unwrap_or_default();
            assert!(bytes.starts_with(&part));
            for client in &mut world.clients {
                client.events.clear();
            }
            if done {
                continue;
            }
            assert!(world.clients[1].shelf.kept.is_empty(), "{percent} {allowed:?}");
            world.clients[1].shelf.parts.insert(FileId { transfer: TransferId(2), file: 0 }, part);
            world.send(0, JULIET, &files, allowed);
            world.run_for(30 * SECOND);
            arrived(&world, &files);
        }
    }
}

#[test]
fn in_band_blocks_of_no_stream_are_not_known_and_strangers_hear_what_an_absent_resource_says() {
    // J047-05
    let open = "<iq type='set' id='o1' to='juliet@capulet.example/balcony'><data \
        xmlns='http://jabber.org/protocol/ibb' sid='nothing' seq='0'>AAAA</data></iq>";
    let mut world = World::quick(24);
    world.say(1, ROMEO, open);
    world.run_for(SECOND);
    let answers = world.answers(ROMEO);
    assert!(answers.iter().any(|a| a.contains("item-not-found")), "{answers:?}");
    world.say(1, "tybalt@capulet.example/street", open);
    world.run_for(SECOND);
    let answers = world.answers("tybalt@capulet.example/street");
    assert!(answers.iter().any(|a| a.contains("service-unavailable")), "{answers:?}");
    assert!(!answers.iter().any(|a| a.contains("item-not-found")));
}

#[test]
fn a_device_that_went_without_a_word_is_not_taken_before_one_that_answers() {
    for ghost in [1, 2] {
        let clients = vec![ROMEO, JULIET, world::CHAMBER];
        let mut world = World::new(&world::Options { clients, ..Default::default() });
        // The server keeps the resource for a resumption that never comes.
        world.clients[ghost].unplugged = true;
        world.cut(ghost);
        let files = [("a", noise(1000, 1))];
        world.send(0, "juliet@capulet.example", &files, &WayKind::ALL);
        world.run_for(10 * SECOND);
        assert_eq!(world.clients[3 - ghost].shelf.kept.values().collect::<Vec<_>>(), [&files[0].1]);
        assert_eq!(end(&world, 0), EndKind::Completed);
    }
}

#[test]
fn what_is_too_large_is_refused_alone_and_the_rest_goes_on() {
    // J234-17
    let mut world = World::quick(25);
    world.clients[1].takes_files = false;
    let files = [("big", noise(50_000, 1)), ("small", noise(1000, 2))];
    world.send(0, JULIET, &files, &S5B);
    world.run_for(2 * SECOND);
    let first = world.clients[1].endpoint.transfers().next().unwrap();
    let detail = Some(FileErrorCondition::FileTooLarge.detail());
    let reason = Reason { detail, ..Reason::new(ReasonCondition::MediaError) };
    world.act(1, |e, now| e.reject_files(now, first, reason)).unwrap();
    world.clients[1].takes_files = true;
    world.run_for(10 * SECOND);
    assert_eq!(world.clients[1].shelf.kept.values().collect::<Vec<_>>(), [&files[1].1]);
    let failed: Vec<EndKind> = file_events(&world, 0)
        .into_iter()
        .filter_map(|e| if let FileEvent::Failed { kind, .. } = e { Some(*kind) } else { None })
        .collect();
    assert_eq!(failed, [EndKind::Limit]);
}

/// Cuts the candidates out of a stanza.
fn without_candidates(xml: &str) -> (String, String) {
    let (mut rest, mut cut) = (xml.to_owned(), String::new());
    while let Some(start) = rest.find("<candidate ") {
        let end = start + rest[start..].find("/>").unwrap() + 2;
        cut.push_str(&rest[start..end]);
        rest.replace_range(start..end, "");
    }
    (rest, cut)
}

/// Romeo's candidates come in a stanza of their own, right after the one with `action` and before Juliet has her sockets.
/// Hers never come, so that a path is found only by what she knows of his: as between two sides that nobody reaches unasked,
/// behind NAT or with a relay each.
fn candidates_come_before_the_sockets(action: &'static str, streams: bool, expected: &[Way]) {
    let mut world = World::quick(27);
    for client in &mut world.clients {
        client.shelf.unreachable = !streams;
    }
    world.clients[1].slow_sockets = true;
    world.tamper = Some(Box::new(move |from, to, xml| {
        let (rest, candidates) = without_candidates(xml);
        let ice = xml.contains("urn:xmpp:jingle:transports:ice-udp:1");
        if !ice || candidates.is_empty() {
            return None;
        }
        if from.starts_with("juliet") {
            return Some(vec![rest]);
        }
        assert!(xml.contains(&format!("action='{action}'")), "{xml}");
        let sid = &xml[xml.find(" sid='").unwrap() + 6..];
        let sid = &sid[..sid.find('\'').unwrap()];
        let late = format!(
            "<iq type='set' id='late' from='{from}' to='{to}'><jingle xmlns='urn:xmpp:jingle:1' action='transport-info' \
             sid='{sid}'><content creator='initiator' name='file-0'><transport \
             xmlns='urn:xmpp:jingle:transports:ice-udp:1'>{candidates}</transport></content></jingle></iq>"
        );
        Some(vec![rest, late])
    }));
    let files = [("balcony.txt", noise(30_000, 1))];
    let allowed = if streams { CHANNEL.to_vec() } else { vec![WayKind::S5b, WayKind::DataChannel] };
    let transfer = world.send(0, JULIET, &files, &allowed);
    assert!(world.run_while(60 * SECOND, |w| w.clients[1].opened == 0), "sockets are asked for");
    world.run_for(SECOND / 2);
    world.bind(1, LegId::File(FileId { transfer, file: 0 }));
    world.run_for(60 * SECOND);
    arrived(&world, &files);
    assert_eq!(ways(&world, 1), expected);
}

#[test]
fn candidates_that_come_before_the_sockets_of_a_data_channel_count() {
    candidates_come_before_the_sockets("session-initiate", true, &[Way::DataChannel]);
}

#[test]
fn candidates_that_come_between_the_wish_for_a_data_channel_and_the_answer_count() {
    candidates_come_before_the_sockets("transport-replace", false, &[Way::DataChannel]);
}

/// Juliet's program takes every byte and then never says a word; how long Romeo waits for one.
fn waits_for_a_word(left: bool) -> Duration {
    let mut world = World::quick(28);
    world.tamper = Some(Box::new(|from, _, xml| {
        let word = xml.contains("session-info") || xml.contains("session-terminate");
        (from.starts_with("juliet") && word).then(Vec::new)
    }));
    let transfer = world.send(0, JULIET, &[("a", noise(30_000, 1))], &S5B);
    world.run_while(20 * SECOND, |w| w.clients[1].shelf.kept.is_empty());
    world.run_for(SECOND);
    let begun = world.now;
    if left {
        let id = FileId { transfer, file: 0 };
        world.act(0, |e, now| e.handle_input(now, Input::File(FileInput::Left { id })));
    }
    world.run_for(120 * SECOND);
    assert_eq!(end(&world, 0), EndKind::MediaFailed);
    let ended = world.clients[0].at(|e| matches!(e, Event::File(FileEvent::Ended { .. })));
    ended.unwrap() - begun
}

#[test]
fn a_receiver_that_went_before_its_word_is_waited_for_no_longer_than_a_word_takes() {
    let (went, stays) = (waits_for_a_word(true), waits_for_a_word(false));
    assert!(went <= 10 * SECOND && stays > 50 * SECOND, "{went:?} and {stays:?}");
}

#[test]
fn where_nothing_comes_over_udp_the_next_way_is_tried_after_four_seconds() {
    let mut world = World::quick(29);
    for client in &mut world.clients {
        client.shelf.unreachable = true;
    }
    world.loss = 1.0;
    let files = [("balcony.txt", noise(30_000, 1))];
    world.send(0, JULIET, &files, &[WayKind::DataChannel, WayKind::Ibb]);
    world.run_for(60 * SECOND);
    arrived(&world, &files);
    let at = |test: &dyn Fn(&FileEvent) -> bool| {
        world.clients[0].at(|e| matches!(e, Event::File(e) if test(e))).unwrap() - world.start
    };
    let taken = at(&|e| matches!(e, FileEvent::Accepted { .. }));
    let fell = at(&|e| matches!(e, FileEvent::Falling { .. }));
    assert!(fell - taken <= 4 * SECOND, "{:?}", fell - taken);
}

#[test]
fn a_single_check_that_comes_over_udp_keeps_the_data_channel_waited_for() {
    // One datagram of four is lost.
    let mut channels = 0;
    for seed in 0..12 {
        let mut world = World::quick(30 + seed);
        world.loss = 0.25;
        let files = [("balcony.txt", noise(1000, 1))];
        world.send(0, JULIET, &files, &[WayKind::DataChannel, WayKind::Ibb]);
        world.run_for(180 * SECOND);
        assert_eq!(world.clients[1].shelf.kept.values().collect::<Vec<_>>(), [&files[0].1]);
        channels += usize::from(ways(&world, 1) == [Way::DataChannel]);
    }
    assert!(channels >= 11, "{channels} of 12");
}

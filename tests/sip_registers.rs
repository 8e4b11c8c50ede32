//! Registrations over the whole stack in virtual time. RFC 3261 §10, RFC 5626 §4.5, RFC 7616.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::wildcard_enum_match_arm)]

#[path = "common/sip.rs"]
mod common;

use common::{MS, Registrar, S, World, account, at};
use offhook::sip::agent::SipEvent;
use offhook::sip::exchange::Failure;
use offhook::sip::register::RegisterFault;
use offhook::wire::sip::{Header, Message};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const PBX: &str = "192.0.2.1:5060";

struct Scene {
    world: World,
    registrar: Rc<RefCell<Registrar>>,
}

impl Scene {
    fn new(change: impl FnOnce(&mut Registrar)) -> Self {
        let mut world = World::new(1);
        world.names.insert("pbx.example".into(), at(PBX).ip());
        let registrar = Registrar::new(world.now, "asterisk");
        change(&mut registrar.borrow_mut());
        world.script(at(PBX), Registrar::script(&registrar));
        Self { world, registrar }
    }

    fn alice(mut self) -> Self {
        self.world.agent("10.0.0.2", 5, account("sip:pbx.example"));
        self
    }

    fn registered(&mut self, longest: Duration) -> bool {
        self.world.run(longest, |world| {
            world.nodes[0].events.iter().any(|event| matches!(event, SipEvent::Registered { .. }))
        })
    }

    fn requests(&self) -> usize {
        self.registrar.borrow().requests.len()
    }
}

#[test]
fn a_challenged_registration_succeeds_and_is_refreshed_at_half_its_time_for_a_day() {
    let mut scene = Scene::new(|_| {}).alice();
    assert!(scene.registered(2 * S));
    assert_eq!(scene.requests(), 2);
    {
        let registrar = scene.registrar.borrow();
        let [first, second] = &registrar.requests[..] else { panic!() };
        assert_eq!(first.uri.to_string(), "sip:pbx.example");
        assert!(first.headers.authorization().next().is_none());
        let proof = second.headers.authorization().next().unwrap();
        assert_eq!(proof.params.find("algorithm"), Some("SHA-256"));
        assert_eq!(second.headers.cseq.number, first.headers.cseq.number + 1);
        assert_eq!(first.headers.call_id, second.headers.call_id);
        let contact = second.headers.contact[0].uri.to_string();
        assert!(contact.starts_with("sip:alice-") && contact.contains("@10.0.0.2:40001"), "{contact}");
    }
    let before = scene.requests();
    for _ in 0..24 * 60 {
        scene.world.pass(60 * S);
        assert_eq!(scene.registrar.borrow().bindings.len(), 1, "never without a binding");
    }
    let refreshes = scene.requests() - before;
    // Each one with a nonce that is too old by then, and a second time with the next.
    assert!((96..=112).contains(&refreshes), "{refreshes} requests in a day");
}

#[test]
fn a_proxy_that_asks_with_407_is_answered_too() {
    let mut scene = Scene::new(|r| r.proxy = true).alice();
    assert!(scene.registered(2 * S));
    let registrar = scene.registrar.borrow();
    assert!(registrar.requests[1].headers.proxy_authorization().next().is_some());
}

#[test]
fn a_stale_nonce_is_answered_with_the_next_one() {
    let mut scene = Scene::new(|r| r.stale = 1).alice();
    assert!(scene.registered(2 * S));
    assert_eq!(scene.requests(), 3);
}

#[test]
fn a_wrong_password_is_sent_once_and_then_no_more() {
    let mut scene = Scene::new(|r| r.password = "other".into()).alice();
    scene.world.pass(24 * 3600 * S);
    assert_eq!(scene.requests(), 2);
    let events = scene.world.events(0);
    let [SipEvent::Unregistered { why, again: None, until: None }] = &events[..] else { panic!("{events:?}") };
    assert!(matches!(why, RegisterFault::Refused { status, .. } if status.code() == 401), "{why:?}");
    // The user has corrected something and says so.
    scene.registrar.borrow_mut().password = "secret".into();
    let now = scene.world.now;
    scene.world.nodes[0].agent.register(now);
    assert!(scene.registered(2 * S));
}

#[test]
fn too_brief_an_interval_is_asked_for_again_as_long_as_the_registrar_wants() {
    let mut scene = Scene::new(|r| (r.min_expires, r.granted) = (7200, 7200)).alice();
    assert!(scene.registered(2 * S));
    let registrar = scene.registrar.borrow();
    assert_eq!(registrar.requests.last().unwrap().headers.expires(), Some(7200));
}

#[test]
fn a_registrar_without_an_answer_is_asked_again_ever_less_often() {
    let mut scene = Scene::new(|r| r.silent = true).alice();
    scene.world.pass(6 * 3600 * S);
    let waits: Vec<Duration> = {
        let registrar = scene.registrar.borrow();
        let mut calls: Vec<u32> = registrar.requests.iter().map(|r| r.headers.cseq.number).collect();
        calls.dedup();
        assert!((12..=40).contains(&calls.len()), "{} attempts in 6 h", calls.len());
        let events = &scene.world.nodes[0].events;
        events
            .iter()
            .filter_map(|event| match event {
                SipEvent::Unregistered { why: RegisterFault::Failed(Failure::TimedOut), again, .. } => *again,
                _ => None,
            })
            .map(|again| again - scene.world.start)
            .collect()
    };
    let steps: Vec<Duration> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // RFC 5626 §4.5: 30 to 60 s, then doubled up to 15 to 30 min; each attempt itself takes 32 s.
    assert!(steps[0] >= 60 * S && steps[0] <= 160 * S, "{steps:?}");
    assert!(steps.iter().skip(6).all(|step| *step >= 900 * S && *step <= 1840 * S), "{steps:?}");
    scene.registrar.borrow_mut().silent = false;
    assert!(scene.registered(1900 * S));
}

#[test]
fn a_registrar_that_says_when_is_left_alone_until_then() {
    let mut scene = Scene::new(|r| (r.refuse, r.retry_after) = (Some(503), Some(600))).alice();
    assert!(scene.world.run(2 * S, |world| !world.nodes[0].events.is_empty()));
    let before = scene.requests();
    scene.world.pass(590 * S);
    assert_eq!(scene.requests(), before);
    scene.registrar.borrow_mut().refuse = None;
    assert!(scene.registered(20 * S));
}

#[test]
fn a_registration_that_cannot_be_refreshed_stands_until_it_runs_out_and_comes_back() {
    let mut scene = Scene::new(|r| r.granted = 600).alice();
    assert!(scene.registered(2 * S));
    scene.registrar.borrow_mut().silent = true;
    scene.world.events(0);
    scene.world.pass(400 * S);
    let events = scene.world.events(0);
    assert!(
        matches!(&events[0], SipEvent::Unregistered { until: Some(_), again: Some(_), .. }),
        "it still stands: {events:?}"
    );
    scene.world.pass(300 * S);
    assert!(scene.world.events(0).contains(&SipEvent::Left), "it ran out");
    scene.registrar.borrow_mut().silent = false;
    assert!(scene.registered(1900 * S));
}

#[test]
fn a_refusal_after_success_is_tried_again() {
    // A PBX that loads its configuration anew says 403 or 404 for a moment.
    let mut scene = Scene::new(|_| {}).alice();
    assert!(scene.registered(2 * S));
    scene.world.events(0);
    scene.registrar.borrow_mut().refuse = Some(404);
    scene.world.pass(1900 * S);
    assert!(matches!(&scene.world.events(0)[0], SipEvent::Unregistered { again: Some(_), .. }));
    scene.registrar.borrow_mut().refuse = None;
    assert!(scene.registered(1900 * S));
}

#[test]
fn other_devices_are_listed_and_left_alone() {
    let mut scene = Scene::new(|r| r.foreign = vec!["sip:alice@198.51.100.7:5080"]).alice();
    assert!(scene.registered(2 * S));
    let events = scene.world.events(0);
    let SipEvent::Registered { bindings, .. } = &events[0] else { panic!() };
    let ours: Vec<bool> = bindings.iter().map(|binding| binding.ours).collect();
    assert_eq!(ours, [true, false]);
}

#[test]
fn a_registrar_that_says_yes_and_forgets_our_address_is_not_believed() {
    let mut scene = Scene::new(|r| (r.granted, r.foreign) = (0, vec!["sip:alice@198.51.100.7:5080"])).alice();
    scene.world.pass(10 * S);
    let events = scene.world.events(0);
    assert!(
        matches!(&events[0], SipEvent::Unregistered { why: RegisterFault::Missing, again: Some(_), .. }),
        "{events:?}"
    );
}

#[test]
fn the_registration_is_taken_back_at_the_end() {
    let mut scene = Scene::new(|_| {}).alice();
    assert!(scene.registered(2 * S));
    let now = scene.world.now;
    scene.world.nodes[0].agent.shut_down(now);
    assert!(scene.world.run(2 * S, |world| world.nodes[0].events.contains(&SipEvent::Left)));
    assert!(scene.registrar.borrow().bindings.is_empty());
    assert!(scene.world.nodes[0].agent.is_quiet());
    let before = scene.requests();
    scene.world.pass(7200 * S);
    assert_eq!(scene.requests(), before, "nothing follows");
}

#[test]
fn every_binding_can_be_taken_back_at_once() {
    let mut scene = Scene::new(|_| {}).alice();
    assert!(scene.registered(2 * S));
    let other = scene.world.now + 600 * S;
    scene.registrar.borrow_mut().bindings.insert("sip:alice@198.51.100.7:5080".into(), other);
    let now = scene.world.now;
    scene.world.nodes[0].agent.clear_bindings(now);
    scene.world.pass(2 * S);
    let registrar = scene.registrar.borrow();
    assert!(registrar.bindings.is_empty());
    let last = registrar.requests.last().unwrap();
    assert!(last.headers.contact_star && last.headers.expires() == Some(0));
}

#[test]
fn behind_a_nat_the_public_address_is_registered_and_the_private_one_taken_back() {
    let mut scene = Scene::new(|_| {});
    scene.world.nat.insert(at("10.0.0.2:40001"), at("203.0.113.5:61234"));
    let mut scene = scene.alice();
    assert!(scene.registered(2 * S));
    scene.world.pass(2 * S);
    let registrar = scene.registrar.borrow();
    let all: Vec<&String> = registrar.bindings.keys().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].contains("@203.0.113.5:61234"), "{all:?}");
}

#[test]
fn a_nat_that_forgets_is_noticed_with_the_next_refresh() {
    let mut scene = Scene::new(|r| r.granted = 120);
    scene.world.nat.insert(at("10.0.0.2:40001"), at("203.0.113.5:61234"));
    let mut scene = scene.alice();
    assert!(scene.registered(2 * S));
    scene.world.pass(10 * S);
    scene.world.nat.insert(at("10.0.0.2:40001"), at("203.0.113.5:50001"));
    scene.world.pass(130 * S);
    let registrar = scene.registrar.borrow();
    let all: Vec<&String> = registrar.bindings.keys().collect();
    assert!(all.iter().any(|uri| uri.contains("@203.0.113.5:50001")), "{all:?}");
    assert_eq!(all.len(), 1, "{all:?}");
}

#[test]
fn a_lost_connection_is_registered_over_anew_at_once() {
    let mut scene = Scene::new(|_| {});
    scene.world.agent("10.0.0.2", 5, account("sip:pbx.example;transport=tcp"));
    assert!(scene.registered(2 * S));
    scene.world.events(0);
    let before = scene.requests();
    scene.world.cut(0);
    assert!(scene.registered(2 * S), "at once");
    assert!(scene.requests() > before);
    scene.world.pass(2 * S);
    let registrar = scene.registrar.borrow();
    let all: Vec<&String> = registrar.bindings.keys().collect();
    assert!(all.len() == 1 && all[0].contains("40002"), "the new connection alone: {all:?}");
}

#[test]
fn a_hostile_realm_gets_nothing_on_any_method() {
    let mut scene = Scene::new(|_| {}).alice();
    assert!(scene.registered(2 * S));
    let now = scene.world.now;
    scene.registrar.borrow_mut().authenticator = offhook::sip::auth::Authenticator::new(
        now,
        common::seed(9),
        offhook::sip::auth::AuthenticatorConfig::new("evil"),
    );
    let before = scene.requests();
    let to = common::address("sip:bob@pbx.example");
    scene.world.nodes[0].agent.options(now, to).unwrap();
    scene.world.pass(2 * S);
    let registrar = scene.registrar.borrow();
    let proofs = registrar.requests[before..].iter().flat_map(|request| request.headers.authorization());
    let realms: Vec<&str> = proofs.filter_map(|proof| proof.params.find("realm")).collect();
    assert!(realms.iter().all(|realm| *realm == "asterisk"), "{realms:?}");
    assert!(!registrar.requests[before..].is_empty());
}

#[test]
fn a_replayed_register_is_challenged() {
    let mut scene = Scene::new(|_| {}).alice();
    assert!(scene.registered(2 * S));
    let replay = scene.registrar.borrow().requests[1].clone();
    let answers = Rc::new(RefCell::new(Vec::new()));
    let kept = answers.clone();
    scene.world.script(
        at("198.51.100.9:5060"),
        Rc::new(RefCell::new(move |_, message: Message, _| {
            if let Message::Response(response) = message {
                kept.borrow_mut().push(response);
            }
            Vec::new()
        })),
    );
    scene.world.inject(at("198.51.100.9:5060"), at(PBX), &Message::Request(replay));
    scene.world.pass(100 * MS);
    let answers = answers.borrow();
    assert_eq!(answers[0].status.code(), 401);
    let stale = answers[0].headers.rest.iter().any(
        |header| matches!(header, Header::WwwAuthenticate(challenge) if challenge.params.find("stale") == Some("true")),
    );
    assert!(stale, "the password was right, the count was not");
}

#[test]
fn twenty_percent_loss_does_not_keep_us_from_registering() {
    for number in 0..100 {
        let mut scene = Scene::new(|_| {});
        scene.world.loss = 200;
        scene.world.agent("10.0.0.2", number, account("sip:pbx.example"));
        assert!(scene.registered(120 * S), "seed {number}");
    }
}

#[test]
fn two_runs_with_one_seed_are_the_same() {
    let run = || {
        let mut scene = Scene::new(|_| {});
        scene.world.loss = 200;
        scene.world.agent("10.0.0.2", 3, account("sip:pbx.example"));
        scene.world.pass(7200 * S);
        scene.world.log
    };
    assert_eq!(run(), run());
}

//! Agents over the whole stack in virtual time: the gate, lone requests, calls of two agents with each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::wildcard_enum_match_arm)]

#[path = "common/sip.rs"]
mod common;

use common::{MS, Registrar, S, World, account, address, at, reply, uri};
use offhook::config::Secret;
use offhook::sip::agent::{AgentConfig, SipEvent};
use offhook::sip::auth::{Hop, Login, Vault};
use offhook::sip::exchange::{Failure, Transport};
use offhook::sip::message::{LoneMisuse, Outcome};
use offhook::sip::policy::{Callers, Policy};
use offhook::sip::session::{EndCause, Invitation, SessionEvent};
use offhook::sip::sessions::SessionId;
use offhook::wire::sdp::SessionDescription;
use offhook::wire::sip::{
    CallId, ContentType, Event, Header, Host, Message, Method, Params, Request, Response, SubscriptionState, Tag,
    Token, Uri, Via,
};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

const PBX: &str = "192.0.2.1:5060";
const STRANGER: &str = "198.51.100.66:5060";
const ALICE: &str = "10.0.0.1:5060";

fn open(identity: &str, ip: &str) -> AgentConfig {
    let mut config = AgentConfig::new(address(identity));
    config.listen = vec![(Transport::Udp, at(&format!("{ip}:5060")))];
    config.policy.callers = Callers::Everyone;
    config
}

type Answers = Rc<RefCell<Vec<Response>>>;

/// Somebody who sends by [`World::inject`] and keeps what comes back.
fn listener(world: &mut World, here: &str) -> Answers {
    let answers = Answers::default();
    let kept = answers.clone();
    world.script(
        at(here),
        Rc::new(RefCell::new(move |_: Instant, message: Message, from: SocketAddr| match message {
            Message::Response(response) => {
                kept.borrow_mut().push(response);
                Vec::new()
            }
            Message::Request(request) => vec![(from, Message::Response(reply(&request, from, 200)))],
        })),
    );
    answers
}

/// A request out of the blue.
fn stray(method: Method, to: &Uri, from: &str, here: &str, number: u32) -> Request {
    let from = address(from).with_tag(&Tag::lossy("s"));
    let call_id = CallId::lossy(&format!("stray{number}"));
    let to_header = offhook::wire::sip::NameAddr::new(to.clone());
    let mut request = Request::new(method.clone(), to.clone(), from, to_header, call_id, 1);
    let here = at(here);
    let branch = format!("z9hG4bK-stray{number}");
    request.headers.via = vec![Via::new(Token::lossy("UDP"), Host::Ip(here.ip()), Some(here.port()), &branch)];
    request.headers.contact = vec![address(&format!("sip:s@{here}"))];
    match method {
        Method::Subscribe | Method::Notify => {
            let package = Token::lossy("presence");
            request.headers.push(Header::Event(Event { package, params: Params::default() }));
            let state = SubscriptionState { state: Token::lossy("active"), params: Params::default() };
            request.headers.push(Header::SubscriptionState(state));
        }
        Method::Refer => request.headers.push(Header::ReferTo(address("sip:+19005550000@pbx.example"))),
        Method::Message => {
            request.set_body(ContentType::new("text/plain").unwrap(), b"hello".to_vec());
        }
        Method::Invite
        | Method::Ack
        | Method::Bye
        | Method::Cancel
        | Method::Options
        | Method::Register
        | Method::Prack
        | Method::Update
        | Method::Info
        | Method::Publish
        | Method::Other(_) => {}
    }
    request
}

fn methods() -> Vec<Method> {
    let names = [
        "INVITE",
        "BYE",
        "OPTIONS",
        "REGISTER",
        "PRACK",
        "UPDATE",
        "INFO",
        "REFER",
        "SUBSCRIBE",
        "NOTIFY",
        "PUBLISH",
        "MESSAGE",
        "FLY",
    ];
    names.iter().map(|name| Method::new(name).unwrap()).collect()
}

/// Each method once, from somebody; the first final answer to each.
fn matrix(policy: Policy, from: &str, here: &str) -> Vec<(String, u16)> {
    let mut world = World::new(2);
    let mut config = open("sip:alice@10.0.0.1", "10.0.0.1");
    config.policy = policy;
    world.agent("10.0.0.1", 3, config);
    let answers = listener(&mut world, here);
    let mut out = Vec::new();
    for (number, method) in methods().into_iter().enumerate() {
        let request = stray(method.clone(), &uri("sip:alice@10.0.0.1"), from, here, number as u32);
        answers.borrow_mut().clear();
        world.inject(at(here), at(ALICE), &Message::Request(request));
        world.pass(100 * MS);
        let code = answers.borrow().iter().map(|r| r.status.code()).find(|code| *code != 100);
        out.push((method.as_str().to_owned(), code.unwrap_or(0)));
    }
    out
}

#[test]
fn strangers_get_the_same_refusal_for_every_method_but_options() {
    for (method, code) in matrix(Policy::default(), "sip:stranger@evil.example", STRANGER) {
        assert_eq!(code, if method == "OPTIONS" { 200 } else { 403 }, "{method}");
    }
}

#[test]
fn strangers_are_challenged_for_every_method_where_there_are_users() {
    let policy =
        Policy { users: [("bob".to_owned(), Secret::new("pass"))].into(), realm: "alice".into(), ..Policy::default() };
    for (method, code) in matrix(policy, "sip:stranger@evil.example", STRANGER) {
        assert_eq!(code, if method == "OPTIONS" { 200 } else { 401 }, "{method}");
    }
}

#[test]
fn those_let_in_get_what_each_method_deserves() {
    let expected = [
        ("INVITE", 0),
        ("BYE", 481),
        ("OPTIONS", 200),
        ("REGISTER", 405),
        ("PRACK", 481),
        ("UPDATE", 481),
        ("INFO", 481),
        ("REFER", 603),
        ("SUBSCRIBE", 200),
        ("NOTIFY", 481),
        ("PUBLISH", 405),
        ("MESSAGE", 200),
        ("FLY", 501),
    ];
    let policy = Policy { callers: Callers::Everyone, ..Policy::default() };
    let all = matrix(policy, "sip:bob@10.0.0.9", STRANGER);
    for ((method, code), (name, wanted)) in all.iter().zip(expected) {
        assert_eq!((method.as_str(), *code), (name, wanted));
    }
}

#[test]
fn an_address_of_the_trunk_is_as_good_as_the_registrar_and_contacts_are_still_asked_for() {
    let trusted: BTreeSet<_> = [at(STRANGER).ip()].into();
    let policy = Policy { trusted: trusted.clone(), ..Policy::default() };
    let code = |all: &[(String, u16)], name: &str| all.iter().find(|(method, _)| method == name).unwrap().1;
    assert_eq!(code(&matrix(policy, "sip:x@y.example", STRANGER), "MESSAGE"), 200);
    let contacts: BTreeSet<String> = ["bob@pbx.example".to_owned()].into();
    let policy = Policy { trusted, callers: Callers::Contacts(contacts), ..Policy::default() };
    assert_eq!(code(&matrix(policy.clone(), "sip:bob@PBX.example:5070", STRANGER), "MESSAGE"), 200);
    assert_eq!(code(&matrix(policy.clone(), "sip:eve@pbx.example", STRANGER), "MESSAGE"), 403);
    assert_eq!(code(&matrix(policy, "sip:bob@pbx.example", "203.0.113.9:5060"), "MESSAGE"), 403, "a From is a claim");
}

#[test]
fn a_user_who_proves_himself_is_let_in_once_for_each_proof() {
    let mut world = World::new(2);
    let mut config = open("sip:alice@10.0.0.1", "10.0.0.1");
    config.policy =
        Policy { users: [("bob".to_owned(), Secret::new("pass"))].into(), realm: "alice".into(), ..Policy::default() };
    world.agent("10.0.0.1", 3, config);
    let answers = listener(&mut world, STRANGER);
    let host = Host::new("10.0.0.1").unwrap();
    let login = Login {
        username: "bob".into(),
        password: Secret::new("pass"),
        realm: Some("alice".into()),
        hosts: [host.clone()].into(),
    };
    let (mut vault, mut attempt) = (Vault::new([1; 32], vec![login]), offhook::sip::auth::Attempt::default());
    let hop = Hop { host: &host, secure: false };
    let mut request = stray(Method::Message, &uri("sip:alice@10.0.0.1"), "sip:bob@x.example", STRANGER, 1);
    world.inject(at(STRANGER), at(ALICE), &Message::Request(request.clone()));
    world.pass(100 * MS);
    let challenge = answers.borrow_mut().pop().unwrap();
    vault.challenged(&hop, &request, &challenge, &mut attempt).unwrap();
    vault.prepare(&hop, &mut request, &mut attempt);
    for (number, expected) in [(2, 200), (3, 401)] {
        // The second time is a replay: another transaction, the same proof.
        request.headers.cseq.number = number;
        request.headers.via[0].branch = Some(format!("z9hG4bK-{number}").as_str().into());
        world.inject(at(STRANGER), at(ALICE), &Message::Request(request.clone()));
        world.pass(100 * MS);
        assert_eq!(answers.borrow_mut().pop().unwrap().status.code(), expected);
    }
}

/// Alice at a registrar, and whatever else answers there.
fn registered() -> (World, Rc<RefCell<Registrar>>) {
    let mut world = World::new(6);
    world.names.insert("pbx.example".into(), at(PBX).ip());
    let registrar = Registrar::new(world.now, "asterisk");
    world.script(at(PBX), Registrar::script(&registrar));
    world.agent("10.0.0.1", 8, account("sip:pbx.example"));
    world.pass(2 * S);
    assert!(matches!(&world.events(0)[..], [SipEvent::Registered { .. }]));
    (world, registrar)
}

#[test]
fn the_registrar_is_let_in_by_where_it_is_and_others_of_its_machine_are_not() {
    let (mut world, registrar) = registered();
    let contact = registrar.borrow().requests[1].headers.contact[0].uri.clone();
    let local = at("10.0.0.1:40001");
    for (here, expected) in [(PBX, true), ("192.0.2.1:5999", false), (STRANGER, false)] {
        let request = stray(Method::Message, &contact, "sip:bob@pbx.example", here, u32::from(at(here).port()));
        world.inject(at(here), local, &Message::Request(request));
        world.pass(100 * MS);
        let came = world.events(0).iter().any(|event| matches!(event, SipEvent::Message(_)));
        assert_eq!(came, expected, "{here}");
    }
}

#[test]
fn options_are_answered_with_what_we_understand() {
    let mut world = World::new(2);
    world.agent("10.0.0.1", 3, open("sip:alice@10.0.0.1", "10.0.0.1"));
    world.agent("10.0.0.2", 4, open("sip:bob@10.0.0.2", "10.0.0.2"));
    let now = world.now;
    let id = world.nodes[1].agent.options(now, address("sip:alice@10.0.0.1")).unwrap();
    world.pass(S);
    let events = world.events(1);
    let [SipEvent::Options { id: of, outcome, allow }] = &events[..] else { panic!("{events:?}") };
    assert!(*of == id && outcome.is_success());
    for method in ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "PRACK", "UPDATE", "INFO", "REFER", "MESSAGE"] {
        assert!(allow.contains(&Method::new(method).unwrap()), "{method}");
    }
}

#[test]
fn options_are_answered_in_the_middle_of_a_flood() {
    let mut world = World::new(2);
    let mut config = open("sip:alice@10.0.0.1", "10.0.0.1");
    config.policy.callers = Callers::Registrar;
    world.agent("10.0.0.1", 3, config);
    let flood = listener(&mut world, STRANGER);
    let answers = listener(&mut world, "203.0.113.9:5060");
    for number in 0..2_000 {
        let request = stray(Method::Invite, &uri("sip:alice@10.0.0.1"), "sip:x@y.example", STRANGER, number);
        world.inject(at(STRANGER), at(ALICE), &Message::Request(request));
        if number % 100 == 99 {
            world.pass(200 * MS);
            for here in ["203.0.113.9:5060", STRANGER] {
                let number = 100_000 + number * 2 + u32::from(here == STRANGER);
                let request = stray(Method::Options, &uri("sip:alice@10.0.0.1"), "sip:x@y.example", here, number);
                world.inject(at(here), at(ALICE), &Message::Request(request));
            }
            world.pass(50 * MS);
        }
    }
    world.pass(S);
    let fine = |all: &Answers| all.borrow().iter().filter(|r| r.status.code() == 200).count();
    assert_eq!(fine(&answers), 20, "others");
    assert_eq!(fine(&flood), 20, "the flooder himself");
    assert!(flood.borrow().iter().all(|r| [100, 200, 403, 503].contains(&r.status.code())));
    assert!(world.events(0).is_empty());
}

#[test]
fn texts_arrive_as_they_were_written_and_long_ones_are_not_sent() {
    for number in 0..20 {
        let mut world = World::new(number);
        world.loss = 200;
        world.agent("10.0.0.1", 2 * number, open("sip:alice@10.0.0.1", "10.0.0.1"));
        world.agent("10.0.0.2", 2 * number + 1, open("sip:bob@10.0.0.2", "10.0.0.2"));
        let text = "grüß\r\nVia: forged\r\n\r\n<x>";
        let now = world.now;
        let id = world.nodes[0].agent.message(now, address("sip:bob@10.0.0.2"), text).unwrap();
        let long = "x".repeat(1301);
        let refused = world.nodes[0].agent.message(now, address("sip:bob@10.0.0.2"), &long);
        assert_eq!(refused, Err(LoneMisuse::TooLong(1300)));
        world.pass(40 * S);
        let heard = world.events(1);
        let [SipEvent::Message(message)] = &heard[..] else { panic!("once, seed {number}: {heard:?}") };
        assert_eq!((message.text.as_str(), message.from.uri.user()), (text, Some("alice")));
        let events = world.events(0);
        assert!(
            matches!(&events[..], [SipEvent::MessageSent { id: of, outcome }] if *of == id && outcome.is_success())
        );
    }
}

#[test]
fn texts_of_other_kinds_and_sizes_are_refused_as_the_standard_says() {
    let mut world = World::new(2);
    world.agent("10.0.0.1", 3, open("sip:alice@10.0.0.1", "10.0.0.1"));
    let answers = listener(&mut world, STRANGER);
    let mut send = |number: u32, media: &str, body: Vec<u8>| {
        let mut request = stray(Method::Message, &uri("sip:alice@10.0.0.1"), "sip:x@y.example", STRANGER, number);
        request.set_body(ContentType::new(media).unwrap(), body);
        world.inject(at(STRANGER), at(ALICE), &Message::Request(request));
        world.pass(100 * MS);
        answers.borrow_mut().pop().unwrap()
    };
    let refused = send(1, "text/html", b"<b>x</b>".to_vec());
    assert_eq!((refused.status.code(), refused.headers.accept().count()), (415, 1));
    assert_eq!(send(2, "text/plain", vec![b'x'; 20_000]).status.code(), 413);
    assert_eq!(send(3, "text/plain", vec![0xff, 0xfe]).status.code(), 200);
    // Nobody reads them: past the bound they are to come later.
    let codes: Vec<u16> = (10..400).map(|number| send(number, "text/plain", b"x".to_vec()).status.code()).collect();
    assert!(codes.contains(&200));
}

#[test]
fn nobody_there_is_told_as_such() {
    let mut world = World::new(2);
    world.agent("10.0.0.1", 3, open("sip:alice@10.0.0.1", "10.0.0.1"));
    let now = world.now;
    world.nodes[0].agent.message(now, address("sip:bob@nowhere.example"), "x").unwrap();
    world.nodes[0].agent.message(now, address("sip:bob@10.9.9.9"), "x").unwrap();
    world.pass(60 * S);
    let events = world.events(0);
    let whys: Vec<&Failure> = events
        .iter()
        .map(|event| match event {
            SipEvent::MessageSent { outcome: Outcome::Failed(why), .. } => why,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(matches!(whys[..], [Failure::NoTarget(_), Failure::TimedOut]), "{whys:?}");
}

#[test]
fn the_way_to_somebody_is_known_before_anything_is_sent() {
    let (mut world, registrar) = registered();
    let before = registrar.borrow().requests.len();
    let now = world.now;
    let key = world.nodes[0].agent.prepare(now, &uri("sip:600@pbx.example"));
    world.pass(S);
    let events = world.events(0);
    let [SipEvent::Way { key: of, way: Ok(way) }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*of, way.transport, way.remote), (key, Transport::Udp, at(PBX)));
    assert_eq!(way.local.ip(), at(ALICE).ip());
    assert_eq!(registrar.borrow().requests.len(), before);
}

#[test]
fn a_server_that_asks_again_by_its_address_is_answered_where_it_was_met() {
    // The remote target of a dialog is an address (RFC 3261 §12.1.2), and some servers challenge inside dialogs.
    let (mut world, registrar) = registered();
    let before = registrar.borrow().requests.len();
    let now = world.now;
    world.nodes[0].agent.options(now, address("sip:600@192.0.2.1")).unwrap();
    world.pass(S);
    assert!(matches!(&world.events(0)[..], [SipEvent::Options { outcome, .. }] if outcome.is_success()));
    assert_eq!(registrar.borrow().requests.len(), before + 2);
}

#[test]
fn an_account_of_a_safe_address_has_a_safe_contact() {
    let mut config = AgentConfig::new(address("sips:alice@pbx.example"));
    config.registrar = Some(uri("sips:pbx.example"));
    let mut world = World::new(1);
    let node = world.agent("10.0.0.1", 8, config);
    assert!(world.nodes[node].agent.local().contact.uri.as_sip().unwrap().secure);
}

fn sdp(ip: &str) -> Box<SessionDescription> {
    let text = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:8 PCMA/8000\r\n"
    );
    Box::new(SessionDescription::parse(text.as_bytes()).unwrap())
}

/// What became of a call of the first agent with the second one.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Call {
    caller: Option<SessionId>,
    callee: Option<SessionId>,
    accepted: bool,
    confirmed: bool,
    /// Ends told at both sides.
    ends: Vec<(usize, EndCause)>,
}

/// Alice calls Bob, who takes the call after a second; Alice hangs up after ten more.
fn call(world: &mut World, number: u64) -> Call {
    let mut call = Call::default();
    let now = world.now;
    let local = world.nodes[0].agent.local();
    let invitation = Invitation::new(local, address("sip:bob@10.0.0.2"), Some(*sdp("10.0.0.1")));
    call.caller = Some(world.nodes[0].agent.sessions_mut(now).invite(now, invitation).unwrap());
    let (mut answer_at, mut hang_up_at) = (None, None);
    for _ in 0..3000 {
        world.pass(100 * MS);
        let now = world.now;
        for node in 0..2 {
            for event in world.events(node) {
                let SipEvent::Session(id, event) = event else { continue };
                match event {
                    SessionEvent::Incoming(_) => {
                        call.callee = Some(id);
                        world.nodes[1].agent.sessions_mut(now).ring(now, id).unwrap();
                        answer_at = Some(now + S);
                    }
                    SessionEvent::Accepted { .. } => {
                        call.accepted = true;
                        hang_up_at = Some(now + 10 * S);
                    }
                    SessionEvent::Confirmed => call.confirmed = true,
                    SessionEvent::Ended(end) => call.ends.push((node, end.cause)),
                    _ => {}
                }
            }
        }
        if answer_at.take_if(|at| *at <= now).is_some() {
            let id = call.callee.unwrap();
            let _ = world.nodes[1].agent.sessions_mut(now).accept(now, id, Some(*sdp("10.0.0.2")));
        }
        if hang_up_at.take_if(|at| *at <= now).is_some() {
            let _ = world.nodes[0].agent.sessions_mut(now).hang_up(now, call.caller.unwrap(), Vec::new());
        }
        if call.ends.len() == 2 || (call.ends.len() == 1 && call.callee.is_none()) {
            break;
        }
    }
    assert!(!call.ends.is_empty(), "seed {number}: no end {call:?}");
    call
}

fn pair(number: u64, loss: u32) -> World {
    let mut world = World::new(number);
    world.loss = loss;
    world.agent("10.0.0.1", 2 * number, open("sip:alice@10.0.0.1", "10.0.0.1"));
    world.agent("10.0.0.2", 2 * number + 1, open("sip:bob@10.0.0.2", "10.0.0.2"));
    world
}

#[test]
fn two_agents_call_each_other() {
    let mut world = pair(1, 0);
    let call = call(&mut world, 1);
    assert!(call.accepted && call.confirmed);
    assert_eq!(call.ends, [(0, EndCause::Bye), (1, EndCause::Bye)]);
    world.pass(120 * S);
    assert!(world.nodes.iter().all(|node| node.agent.is_quiet()));
    let quiet = world.sent;
    world.pass(600 * S);
    assert_eq!(world.sent, quiet);
}

#[test]
fn two_hundred_calls_under_twenty_percent_loss_all_end_as_both_sides_agree() {
    let mut up = 0;
    for number in 0..200 {
        let mut world = pair(number, 200);
        let call = call(&mut world, number);
        up += u32::from(call.accepted && call.confirmed);
        if call.accepted {
            assert_eq!(call.ends.len(), 2, "seed {number}: {call:?}");
        }
        world.pass(200 * S);
        assert!(world.nodes.iter().all(|node| node.agent.is_quiet()), "seed {number}: {call:?}");
    }
    assert!(up >= 195, "{up} of 200");
}

#[test]
fn a_call_under_loss_replays_with_its_seed() {
    let run = |number| {
        let mut world = pair(number, 200);
        let call = call(&mut world, number);
        (call, world.log)
    };
    for number in 0..5 {
        assert_eq!(run(number), run(number));
    }
}

/// A server that says anything.
fn chaos(number: u64, honest: Rc<RefCell<bool>>, registrar: Rc<RefCell<Registrar>>) -> common::Script {
    use rand_core::{RngCore, SeedableRng};
    let mut rng = rand_chacha::ChaCha20Rng::from_seed(common::seed(number));
    let answer = Registrar::script(&registrar);
    let mut notifies = 0;
    Rc::new(RefCell::new(move |now: Instant, message: Message, from: SocketAddr| {
        if *honest.borrow() {
            return answer.borrow_mut()(now, message, from);
        }
        let Message::Request(request) = message else { return Vec::new() };
        let mut roll = |below: u32| rng.next_u32() % below;
        if roll(10) == 0 || request.method == Method::Ack {
            return Vec::new();
        }
        let codes = [
            100, 180, 200, 200, 200, 200, 202, 204, 301, 302, 400, 401, 401, 401, 403, 404, 407, 407, 408, 412, 412,
            423, 423, 480, 481, 489, 491, 500, 503, 503, 600, 603, 699,
        ];
        let mut out = Vec::new();
        for _ in 0..=roll(2) {
            let mut response = reply(&request, from, codes[roll(codes.len() as u32) as usize]);
            if roll(2) == 0 {
                response.headers.contact = request.headers.contact.clone();
            }
            if roll(4) == 0 {
                let other = address(["sip:x@[2001:db8::1]", "sips:alice@a.example;q=2", "tel:+1"][roll(3) as usize]);
                response.headers.contact.push(other);
            }
            let numbers = [0, 1, 59, 3600, u32::MAX, 604_800];
            let number = numbers[roll(6) as usize];
            for (which, header) in [
                Header::Expires(number),
                Header::MinExpires(numbers[roll(6) as usize]),
                Header::RetryAfter(numbers[roll(6) as usize]),
                Header::SipEtag(Token::lossy("e")),
            ]
            .into_iter()
            .enumerate()
            {
                if roll(3) == 0 || which == 0 {
                    response.headers.push(header);
                }
            }
            for _ in 0..roll(3) {
                let mut params = Params::default();
                params.set("realm", Some(["asterisk", "evil", "", "\"\\"][roll(4) as usize]));
                params.set("nonce", Some(["n", "", "\u{7f}é"][roll(3) as usize]));
                params.set("algorithm", Some(["MD5", "SHA-256", "SHA-512-256-sess", "X", ""][roll(5) as usize]));
                params.set("qop", Some(["auth", "auth-int", "", "none"][roll(4) as usize]));
                params.set("stale", Some(["true", "false", "x"][roll(3) as usize]));
                let challenge = offhook::wire::sip::Challenge { scheme: Token::lossy("Digest"), params };
                response.headers.push(match roll(2) {
                    0 => Header::WwwAuthenticate(challenge),
                    _ => Header::ProxyAuthenticate(challenge),
                });
            }
            out.push((from, Message::Response(response)));
        }
        if request.method == Method::Subscribe && roll(2) == 0 {
            notifies += 1;
            let Some(contact) = request.headers.contact.first() else { return out };
            let mut notify = stray(Method::Notify, &contact.uri, "sip:bob@pbx.example", PBX, 1000 + notifies);
            notify.headers.call_id = request.headers.call_id.clone();
            notify.headers.to = request.headers.from.clone();
            notify.headers.cseq.number = roll(1000);
            let mut params = Params::default();
            params.set("reason", Some(["timeout", "rejected", "deactivated", ""][roll(4) as usize]));
            params.set("expires", Some(["0", "60", "x", "99999999999"][roll(4) as usize]));
            params.set("retry-after", Some(["0", "60", "4294967295"][roll(3) as usize]));
            let state = Token::lossy(["active", "pending", "terminated", "odd"][roll(4) as usize]);
            notify.headers.set(Header::SubscriptionState(SubscriptionState { state, params }));
            notify.set_body(ContentType::new("application/pidf+xml").unwrap(), b"<presence".to_vec());
            out.push((from, Message::Request(notify)));
        }
        out
    }))
}

#[test]
fn a_server_that_says_anything_is_not_hammered_and_an_honest_one_is_found_again() {
    use offhook::sip::event::{Document, Package};
    use offhook::wire::event_body::Presence;
    for number in 0..60 {
        let mut world = World::new(number);
        world.names.insert("pbx.example".into(), at(PBX).ip());
        let honest = Rc::new(RefCell::new(false));
        let registrar = Registrar::new(world.now, "asterisk");
        world.script(at(PBX), chaos(number, honest.clone(), registrar));
        let mut config = account("sip:pbx.example");
        config.logins[0].realm = Some("asterisk".into());
        world.agent("10.0.0.1", 1000 + number, config);
        let now = world.now;
        let agent = &mut world.nodes[0].agent;
        agent.subscribe(now, address("sip:bob@pbx.example"), Package::Presence).unwrap();
        agent.publish(now, Document::Presence(Presence::default())).unwrap();
        agent.message(now, address("sip:bob@pbx.example"), "x").unwrap();
        agent.options(now, address("sip:bob@pbx.example")).unwrap();
        world.pass(12 * 3600 * S);
        // Keep-alives of two bytes are no requests.
        let requests = world.log.iter().filter(|(_, _, to, first)| *to == at(PBX) && first.contains("sip:")).count();
        assert!(requests < 4_000, "seed {number}: {requests} in twelve hours");
        *honest.borrow_mut() = true;
        world.events(0);
        let now = world.now;
        world.nodes[0].agent.register(now);
        let found = world.run(3600 * S, |world| {
            world.nodes[0].events.iter().any(|event| matches!(event, SipEvent::Registered { .. }))
        });
        assert!(found, "seed {number}: {:?}", world.events(0));
    }
}

//! What the carrier does with one request of an owner, and with one of a peer.

use crate::messages::*;
use crate::world::*;
use offhook::config::Secret;
use offhook::sip::auth::Login;
use offhook::sip::carrier::CarrierConfig;
use offhook::sip::exchange::{Failure, FlowChange, Heard, LOCAL_HOST, Owner, RequestId, ServerId, Transport, Wish};
use offhook::sip::locate::{Found, Query, Srv};
use offhook::wire::sip::{
    CSeq, Challenge, ContentType, Header, Host, Message, Method, NameAddr, Params, Request, Response, SipUri, Tag,
    Token,
};

pub fn id(number: u32) -> RequestId {
    RequestId { owner: Owner::Session(1), number }
}

pub fn send(number: u32, request: &Request) -> Wish {
    Wish::Request { id: id(number), request: Box::new(request.clone()) }
}

pub fn reply(server: ServerId, request: &Request, code: u16) -> Wish {
    let to_tag = (code > 100).then(|| Tag::new("bobs").unwrap());
    Wish::Response { id: server, to_tag, response: Box::new(Response::to(request, status(code))) }
}

/// The one request that somebody heard.
pub fn incoming(world: &mut World, node: usize) -> (ServerId, Box<Request>) {
    let heard = world.heard(node);
    let mut requests = heard.into_iter().filter_map(|heard| match heard {
        Heard::Request { id, request, .. } => Some((id, request)),
        _ => None,
    });
    let found = requests.next().expect("a request");
    assert!(requests.next().is_none(), "one request");
    found
}

pub fn outcomes(world: &mut World, node: usize) -> Vec<String> {
    let tell = |heard| match heard {
        Heard::Request { request, .. } => format!("request {}", request.method),
        Heard::Ack(_) => "ack".into(),
        Heard::Confirmed(_) => "confirmed".into(),
        Heard::Cancelled { .. } => "cancelled".into(),
        Heard::Response { response, cseq, .. } => format!("{} of {cseq}", response.status.code()),
        Heard::Way { transport, local, remote, .. } => format!("{} {local} → {remote}", transport.via()),
        Heard::FlowChanged { why, .. } => format!("flow {why:?}"),
        Heard::Failed { why, .. } => format!("failed: {why}"),
    };
    world.heard(node).into_iter().map(tell).collect()
}

fn listening(at: &str) -> CarrierConfig {
    let at = at.parse().unwrap();
    CarrierConfig { listen: vec![(Transport::Udp, at), (Transport::Tcp, at)], ..config() }
}

/// Alice, and Bob who listens at 192.0.2.2.
fn pair() -> (World, usize, usize) {
    let mut world = World::new(1);
    let alice = world.add("192.0.2.1", config());
    let bob = world.add("192.0.2.2", listening("192.0.2.2:5060"));
    world.until(1);
    (world, alice, bob)
}

fn contact() -> NameAddr {
    name(&format!("sip:alice@{LOCAL_HOST}"))
}

fn host_port(contact: &NameAddr) -> (Host, Option<u16>) {
    let uri: &SipUri = contact.uri.as_sip().unwrap();
    (uri.host.clone(), uri.port)
}

fn request_of(seen: &Seen) -> &Request {
    match &seen.message {
        Message::Request(request) => request,
        Message::Response(_) => panic!("a response"),
    }
}

#[test]
fn a_request_goes_there_and_its_answer_comes_back() {
    let (mut world, alice, bob) = pair();
    let mut invite = lone(Method::Invite, "sip:bob@192.0.2.2", "c1", 1);
    invite.headers.contact = vec![contact()];
    world.wish(alice, send(1, &invite));
    world.until(100);
    let (server, heard) = incoming(&mut world, bob);
    // RFC 3261 §18.1.1, RFC 3581 §3 and §4.
    let via = &heard.headers.via[0];
    assert_eq!((via.host.clone(), via.port), (Host::new("192.0.2.1").unwrap(), Some(40_001)));
    assert_eq!((via.received, via.rport), (Some("192.0.2.1".parse().unwrap()), Some(Some(40_001))));
    assert!(via.branch.as_ref().unwrap().starts_with("z9hG4bK"));
    assert_eq!(host_port(&heard.headers.contact[0]), (Host::new("192.0.2.1").unwrap(), Some(40_001)));
    world.wish(bob, reply(server, &heard, 180));
    world.wish(bob, reply(server, &heard, 200));
    world.until(200);
    assert_eq!(outcomes(&mut world, alice), ["180 of 1", "200 of 1"]);
    let mut ack = lone(Method::Ack, "sip:bob@192.0.2.2", "c1", 1);
    ack.headers.set_to_tag(&tag("bobs"));
    world.wish(alice, Wish::Ack(Box::new(ack)));
    world.until(300);
    assert_eq!(outcomes(&mut world, bob), ["ack"]);
    let branch = |method: &str| request_of(&world.requests(method)[0]).headers.via[0].branch.clone();
    assert_ne!(branch("INVITE"), branch("ACK"), "RFC 3261 §8.1.1.7");
    world.until(60_000);
    assert_eq!(world.nodes[alice].carrier.under_way(), 0);
    for node in [alice, bob] {
        let counts = world.nodes[node].carrier.counts();
        assert_eq!((counts.clients, counts.servers, counts.open), (0, 0, 0));
    }
}

#[test]
fn a_cancel_waits_for_a_provisional_response_and_has_the_branch_of_its_invite() {
    let (mut world, alice, bob) = pair();
    let invite = lone(Method::Invite, "sip:bob@192.0.2.2", "c1", 1);
    world.wish(alice, send(1, &invite));
    world.until(2);
    world.wish(alice, Wish::Cancel { id: id(1), headers: Vec::new() });
    world.until(210);
    assert!(outcomes(&mut world, alice).is_empty());
    assert!(world.requests("CANCEL").is_empty(), "100 comes after 200 ms");
    let (server, heard) = incoming(&mut world, bob);
    world.until(400);
    let cancel = world.requests("CANCEL");
    assert_eq!(cancel.len(), 1);
    let invites = world.requests("INVITE");
    assert_eq!(request_of(&cancel[0]).headers.via[0].branch, request_of(&invites[0]).headers.via[0].branch);
    assert_eq!(outcomes(&mut world, bob), ["cancelled"]);
    world.wish(bob, reply(server, &heard, 487));
    world.until(1_000);
    assert_eq!(outcomes(&mut world, alice), ["487 of 1"]);
    assert_eq!(outcomes(&mut world, bob), ["confirmed"]);
    assert_eq!(world.responses(481).len(), 0);
}

#[test]
fn a_cancel_before_anything_was_sent_sends_nothing() {
    let mut world = World::new(1);
    let alice = world.add("192.0.2.1", config());
    world.wish(alice, send(1, &lone(Method::Invite, "sip:bob@biloxi.example", "c1", 1)));
    world.wish(alice, Wish::Cancel { id: id(1), headers: Vec::new() });
    assert_eq!(outcomes(&mut world, alice), ["failed: cancelled"]);
    world.until(60_000);
    assert!(world.seen.is_empty());
    assert_eq!(world.nodes[alice].carrier.under_way(), 0);
}

#[test]
fn a_peer_that_ignores_cancel_is_given_up_after_32_s() {
    let (mut world, alice, bob) = pair();
    world.wish(alice, send(1, &lone(Method::Invite, "sip:bob@192.0.2.2", "c1", 1)));
    world.until(1_000);
    world.wish(alice, Wish::Cancel { id: id(1), headers: Vec::new() });
    world.until(32_999);
    assert!(outcomes(&mut world, alice).is_empty());
    world.until(33_000);
    assert_eq!(outcomes(&mut world, alice), ["failed: cancelled"]);
    assert_eq!(outcomes(&mut world, bob), ["request INVITE", "cancelled"]);
}

#[test]
fn a_name_is_looked_up_and_the_next_target_is_tried_when_one_is_dead_or_busy() {
    let mut world = World::new(1);
    let alice = world.add("192.0.2.1", config());
    let busy = world.add("192.0.2.3", listening("192.0.2.3:5070"));
    let good = world.add("192.0.2.4", listening("192.0.2.4:5080"));
    let srv = |priority, port, target: &str| Srv { priority, weight: 0, port, target: target.into() };
    let records = vec![srv(1, 5060, "dead.x"), srv(2, 5070, "busy.x"), srv(3, 5080, "good.x")];
    world.names.insert(Query::Srv("_sip._udp.x.example".into()), Found::Srv(records));
    for (host, ip) in [("dead.x", "192.0.2.2"), ("busy.x", "192.0.2.3"), ("good.x", "192.0.2.4")] {
        world.names.insert(Query::Addresses(host.into()), Found::Addresses(vec![ip.parse().unwrap()]));
    }
    world.until(1);
    world.wish(alice, send(1, &lone(Method::Options, "sip:x.example", "c1", 1)));
    world.until(33_000);
    let (server, heard) = incoming(&mut world, busy);
    world.wish(busy, reply(server, &heard, 503));
    world.until(33_100);
    let (server, heard) = incoming(&mut world, good);
    world.wish(good, reply(server, &heard, 200));
    world.until(33_200);
    assert_eq!(outcomes(&mut world, alice), ["200 of 1"]);
    let mut branches: Vec<_> =
        world.requests("OPTIONS").iter().map(|seen| request_of(seen).headers.via[0].branch.clone()).collect();
    branches.dedup();
    assert_eq!(branches.len(), 3, "a new transaction with each target");
    // The dead ones are remembered.
    world.wish(alice, send(2, &lone(Method::Options, "sip:x.example", "c2", 1)));
    world.until(33_300);
    let (server, heard) = incoming(&mut world, good);
    world.wish(good, reply(server, &heard, 200));
    world.until(33_400);
    assert_eq!(outcomes(&mut world, alice), ["200 of 1"]);
}

#[test]
fn the_503_of_the_last_target_is_the_answer_and_a_name_without_address_is_none() {
    let (mut world, alice, bob) = pair();
    world.wish(alice, send(1, &lone(Method::Options, "sip:bob@192.0.2.2", "c1", 1)));
    world.until(100);
    let (server, heard) = incoming(&mut world, bob);
    world.wish(bob, reply(server, &heard, 503));
    world.wish(alice, send(2, &lone(Method::Options, "sip:nowhere.example", "c2", 1)));
    world.wish(alice, send(3, &lone(Method::Options, "tel:+123", "c3", 1)));
    world.wish(alice, send(4, &lone(Method::Options, "sip:bob@192.0.2.9", "c4", 1)));
    world.until(60_000);
    let mut heard = outcomes(&mut world, alice);
    heard.sort();
    let expected = [
        "503 of 1",
        "failed: no address for nowhere.example",
        "failed: no address for tel:+123",
        "failed: no answer in time",
    ];
    assert_eq!(heard, expected);
}

#[test]
fn a_503_is_passed_over_after_100_and_not_after_180() {
    for code in [100, 180] {
        let mut world = World::new(1);
        let alice = world.add("192.0.2.1", config());
        let busy = world.add("192.0.2.3", listening("192.0.2.3:5060"));
        let good = world.add("192.0.2.4", listening("192.0.2.4:5060"));
        let addresses = ["192.0.2.3", "192.0.2.4"].map(|ip| ip.parse().unwrap()).to_vec();
        world.names.insert(Query::Addresses("pbx.example".into()), Found::Addresses(addresses));
        world.until(1);
        world.wish(alice, send(1, &lone(Method::Invite, "sip:bob@pbx.example", "c1", 1)));
        world.until(100);
        let (server, heard) = incoming(&mut world, busy);
        world.wish(busy, reply(server, &heard, code));
        world.until(200);
        world.wish(busy, reply(server, &heard, 503));
        world.until(300);
        let elsewhere = !world.heard(good).is_empty();
        assert_eq!(elsewhere, code == 100);
        let expected: &[&str] = if elsewhere { &[] } else { &["180 of 1", "503 of 1"] };
        assert_eq!(outcomes(&mut world, alice), expected);
    }
}

fn challenge(realm: &str, nonce: &str, stale: bool) -> Header {
    let mut params = Params::default();
    params.set("realm", Some(realm));
    params.set("nonce", Some(nonce));
    params.set("algorithm", Some("MD5"));
    params.set("qop", Some("auth"));
    if stale {
        params.set("stale", Some("TRUE"));
    }
    Header::WwwAuthenticate(Challenge { scheme: Token::new("Digest").unwrap(), params })
}

fn with_login(hosts: &[&str]) -> CarrierConfig {
    let hosts = hosts.iter().map(|host| Host::new(host).unwrap()).collect();
    let login = Login {
        username: "alice".into(),
        password: Secret::new("secret"),
        realm: Some("atlanta.example".into()),
        hosts,
    };
    CarrierConfig { logins: vec![login], ..config() }
}

fn has_credentials(request: &Request) -> bool {
    request.headers.rest.iter().any(|header| matches!(header, Header::Authorization(_)))
}

/// Answers with 401 and a challenge.
fn refuse(world: &mut World, node: usize, realm: &str, nonce: &str, stale: bool) -> Box<Request> {
    let (server, heard) = incoming(world, node);
    let mut response = Response::to(&heard, status(401));
    response.headers.push(challenge(realm, nonce, stale));
    let to_tag = Some(tag("bobs"));
    world.wish(node, Wish::Response { id: server, to_tag, response: Box::new(response) });
    heard
}

#[test]
fn a_challenge_is_answered_with_the_next_cseq_and_the_ack_has_the_same_credentials() {
    let mut world = World::new(1);
    let alice = world.add("192.0.2.1", with_login(&["192.0.2.2"]));
    let bob = world.add("192.0.2.2", listening("192.0.2.2:5060"));
    world.until(1);
    world.wish(alice, send(1, &lone(Method::Invite, "sip:bob@192.0.2.2", "c1", 7)));
    world.until(100);
    let first = refuse(&mut world, bob, "atlanta.example", "n1", false);
    assert!(!has_credentials(&first));
    world.until(200);
    // Another request of the same dialog whose owner does not know that 8 is taken.
    world.wish(alice, send(2, &lone(Method::Info, "sip:bob@192.0.2.2", "c1", 8)));
    world.until(300);
    let heard = world.heard(bob);
    let requests: Vec<_> = heard
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Request { id, request, .. } => Some((id, request)),
            _ => None,
        })
        .collect();
    let numbers: Vec<_> = requests.iter().map(|(_, request)| request.headers.cseq.number).collect();
    assert_eq!(numbers, [8, 9]);
    assert!(has_credentials(&requests[0].1));
    assert_ne!(first.headers.via[0].branch, requests[0].1.headers.via[0].branch);
    let (server, heard) = &requests[0];
    world.wish(bob, reply(*server, heard, 200));
    world.until(400);
    assert_eq!(outcomes(&mut world, alice), ["200 of 8"]);
    let mut ack = lone(Method::Ack, "sip:bob@192.0.2.2", "c1", 8);
    ack.headers.set_to_tag(&tag("bobs"));
    world.wish(alice, Wish::Ack(Box::new(ack)));
    world.until(500);
    let acks = world.requests("ACK");
    assert_eq!(acks.len(), 2, "one of the 401, one of the 200");
    assert!(!has_credentials(request_of(&acks[0])));
    assert!(has_credentials(request_of(&acks[1])));
}

#[test]
fn a_hostile_realm_gets_no_credentials() {
    let mut world = World::new(1);
    let alice = world.add("192.0.2.1", with_login(&["192.0.2.2"]));
    let bob = world.add("192.0.2.2", listening("192.0.2.2:5060"));
    let mallory = world.add("192.0.2.66", listening("192.0.2.66:5060"));
    world.until(1);
    // Another realm at the right host, the right realm at another host.
    world.wish(alice, send(1, &lone(Method::Options, "sip:bob@192.0.2.2", "c1", 1)));
    world.wish(alice, send(2, &lone(Method::Options, "sip:bob@192.0.2.66", "c2", 1)));
    world.until(100);
    refuse(&mut world, bob, "mallory.example", "n1", false);
    refuse(&mut world, mallory, "atlanta.example", "n2", false);
    world.until(10_000);
    assert_eq!(outcomes(&mut world, alice), ["401 of 1", "401 of 1"]);
    assert!(!world.requests("OPTIONS").iter().any(|seen| has_credentials(request_of(seen))));
}

#[test]
fn a_server_that_never_is_content_is_not_answered_for_ever() {
    let mut world = World::new(1);
    let alice = world.add("192.0.2.1", with_login(&["192.0.2.2"]));
    let bob = world.add("192.0.2.2", listening("192.0.2.2:5060"));
    world.until(1);
    world.wish(alice, send(1, &lone(Method::Options, "sip:bob@192.0.2.2", "c1", 1)));
    let mut rounds = 0;
    for round in 0..50 {
        world.until(100 + round * 100);
        if world.nodes[bob].heard.is_empty() {
            break;
        }
        refuse(&mut world, bob, "atlanta.example", &format!("n{round}"), true);
        rounds += 1;
    }
    assert!((2..=5).contains(&rounds), "{rounds}");
    assert_eq!(outcomes(&mut world, alice).len(), 1);
}

fn long(call_id: &str) -> Request {
    let mut request = lone(Method::Message, "sip:bob@192.0.2.2", call_id, 1);
    request.headers.contact = vec![contact()];
    request.set_body(ContentType::new("text/plain").unwrap(), vec![b'x'; 1400]);
    request
}

#[test]
fn a_request_past_1300_bytes_goes_by_tcp() {
    let (mut world, alice, bob) = pair();
    world.wish(alice, send(1, &long("c1")));
    world.until(200);
    let (server, heard) = incoming(&mut world, bob);
    assert_eq!(heard.headers.via[0].transport.as_str(), "TCP");
    assert_eq!(heard.headers.contact[0].uri.as_sip().unwrap().params.find("transport"), Some("tcp"));
    world.wish(bob, reply(server, &heard, 200));
    world.until(300);
    assert_eq!(outcomes(&mut world, alice), ["200 of 1"]);
    assert!(world.seen.iter().all(|seen| seen.transport == Transport::Tcp));
}

#[test]
fn where_there_is_no_tcp_a_long_request_goes_by_udp_and_the_next_one_at_once() {
    for silent in [false, true] {
        let mut world = World::new(1);
        let alice = world.add("192.0.2.1", config());
        let udp = CarrierConfig { listen: vec![(Transport::Udp, at("192.0.2.2:5060"))], ..config() };
        let bob = world.add("192.0.2.2", udp);
        world.until(1);
        if silent {
            world.silent.push(at("192.0.2.2:5060"));
        }
        world.wish(alice, send(1, &long("c1")));
        world.until(5_000);
        let (server, heard) = incoming(&mut world, bob);
        assert_eq!(heard.headers.via[0].transport.as_str(), "UDP");
        assert_eq!(heard.headers.contact[0].uri.as_sip().unwrap().params.find("transport"), None);
        world.wish(bob, reply(server, &heard, 200));
        let sent = world.requests("MESSAGE")[0].ms;
        assert!(if silent { sent == 3_001 } else { sent < 100 }, "{sent}");
        world.wish(alice, send(2, &long("c2")));
        world.until(5_100);
        incoming(&mut world, bob);
        assert_eq!(outcomes(&mut world, alice), ["200 of 1"]);
    }
}

#[test]
fn a_public_address_is_learned_and_told_and_comes_back_as_the_owners_own() {
    let mut world = World::new(1);
    let alice = world.add("192.168.1.7", config());
    world.nodes[alice].nat = Some("198.51.100.7".parse().unwrap());
    let registrar = world.add("192.0.2.2", listening("192.0.2.2:5060"));
    world.until(1);
    let owner = RequestId { owner: Owner::Registration(1), number: 1 };
    let mut register = lone(Method::Register, "sip:192.0.2.2", "r1", 1);
    register.headers.contact = vec![contact()];
    register.headers.push(Header::Expires(3600));
    world.wish(alice, Wish::Request { id: owner, request: Box::new(register.clone()) });
    world.until(100);
    let (server, heard) = incoming(&mut world, registrar);
    assert_eq!(heard.headers.via[0].received, Some("198.51.100.7".parse().unwrap()));
    assert_eq!(heard.headers.via[0].rport, Some(Some(41_001)));
    assert_eq!(host_port(&heard.headers.contact[0]), (Host::new("192.168.1.7").unwrap(), Some(40_001)));
    let mut response = Response::to(&heard, status(200));
    response.headers.contact = heard.headers.contact.clone();
    world.wish(registrar, Wish::Response { id: server, to_tag: Some(tag("r")), response: Box::new(response) });
    world.until(200);
    let news = world.heard(alice);
    let [Heard::Response { response, .. }, Heard::FlowChanged { owner: told, why: FlowChange::Moved }] = &news[..]
    else {
        panic!("{news:?}")
    };
    assert_eq!(*told, owner.owner);
    assert_eq!(host_port(&response.headers.contact[0]), (Host::new(LOCAL_HOST).unwrap(), None));
    // Again, with the address that is known now.
    register.headers.cseq.number = 2;
    world.wish(alice, Wish::Request { id: RequestId { number: 2, ..owner }, request: Box::new(register) });
    world.until(300);
    let (server, heard) = incoming(&mut world, registrar);
    assert_eq!(host_port(&heard.headers.contact[0]), (Host::new("198.51.100.7").unwrap(), Some(41_001)));
    world.wish(registrar, reply(server, &heard, 200));
    world.until(400);
    assert_eq!(outcomes(&mut world, alice), ["200 of 2"]);
}

#[test]
fn who_registered_over_a_connection_hears_that_it_is_gone() {
    let (mut world, alice, bob) = pair();
    let owner = RequestId { owner: Owner::Registration(1), number: 1 };
    let mut register = lone(Method::Register, "sip:192.0.2.2;transport=tcp", "r1", 1);
    register.headers.contact = vec![contact()];
    world.wish(alice, Wish::Request { id: owner, request: Box::new(register) });
    world.until(100);
    let (server, heard) = incoming(&mut world, bob);
    world.wish(bob, reply(server, &heard, 200));
    world.until(200);
    assert_eq!(outcomes(&mut world, alice), ["200 of 1"]);
    world.break_connections(alice);
    world.until(300);
    assert_eq!(outcomes(&mut world, alice), ["flow Lost"]);
}

#[test]
fn a_connection_that_the_other_side_forgot_is_opened_again() {
    let (mut world, alice, bob) = pair();
    world.wish(alice, send(1, &lone(Method::Options, "sip:192.0.2.2;transport=tcp", "c1", 1)));
    world.until(100);
    let (server, heard) = incoming(&mut world, bob);
    world.wish(bob, reply(server, &heard, 200));
    world.until(200);
    world.wish(alice, send(2, &lone(Method::Options, "sip:192.0.2.2;transport=tcp", "c2", 1)));
    world.break_connections(alice);
    world.until(400);
    let (server, heard) = incoming(&mut world, bob);
    world.wish(bob, reply(server, &heard, 200));
    world.until(500);
    assert_eq!(outcomes(&mut world, alice), ["200 of 1", "200 of 1"]);
}

#[test]
fn a_peer_is_reached_by_the_connection_that_he_made() {
    let (mut world, alice, bob) = pair();
    let mut invite = lone(Method::Invite, "sip:bob@192.0.2.2;transport=tcp", "c1", 1);
    invite.headers.contact = vec![contact()];
    world.wish(alice, send(1, &invite));
    world.until(100);
    let (server, heard) = incoming(&mut world, bob);
    world.wish(bob, reply(server, &heard, 200));
    world.until(200);
    let mut bye = lone(Method::Bye, "sip:x", "c1", 1);
    bye.uri = heard.headers.contact[0].uri.clone();
    bye.headers.set_to_tag(&tag("alices"));
    world.wish(bob, send(9, &bye));
    world.until(300);
    assert_eq!(outcomes(&mut world, alice), ["200 of 1", "request BYE"]);
}

#[test]
fn an_answer_whose_connection_is_gone_goes_by_another_one() {
    let mut world = World::new(1);
    let alice = world.add("192.0.2.1", listening("192.0.2.1:5060"));
    let bob = world.add("192.0.2.2", listening("192.0.2.2:5060"));
    world.until(1);
    // RFC 3261 §18.2.2: to the port of sent-by, where Alice would listen if she said so.
    let mut invite = lone(Method::Invite, "sip:bob@192.0.2.2;transport=tcp", "c1", 1);
    invite.headers.contact = vec![contact()];
    world.wish(alice, send(1, &invite));
    world.until(100);
    let (server, heard) = incoming(&mut world, bob);
    assert_eq!(host_port(&heard.headers.contact[0]).1, Some(5060), "Contact names the listener");
    world.break_connections(bob);
    world.until(200);
    world.wish(bob, reply(server, &heard, 486));
    world.until(300);
    assert!(world.seen.iter().any(|seen| seen.to.ip() == at("192.0.2.1:1").ip()
        && matches!(&seen.message, Message::Response(response) if response.status.code() == 486)));
}

#[test]
fn routes_are_followed_loosely_and_strictly() {
    let mut world = World::new(1);
    let alice = world.add("192.0.2.1", by_proxy("sip:192.0.2.5"));
    let proxy = world.add("192.0.2.5", listening("192.0.2.5:5060"));
    let other = world.add("192.0.2.6", listening("192.0.2.6:5060"));
    world.until(1);
    // RFC 3261 §8.1.2: the outbound proxy.
    world.wish(alice, send(1, &lone(Method::Options, "sip:bob@biloxi.example", "c1", 1)));
    world.until(100);
    let (_, heard) = incoming(&mut world, proxy);
    assert_eq!(heard.headers.route, [name("sip:192.0.2.5;lr")]);
    assert_eq!(heard.uri, uri("sip:bob@biloxi.example"));
    // A request to the proxy itself needs no Route to it.
    world.wish(alice, send(2, &lone(Method::Options, "sip:192.0.2.5", "c2", 1)));
    world.until(200);
    assert_eq!(incoming(&mut world, proxy).1.headers.route, []);
    // RFC 3261 §12.2.1.1: inside a dialog its route set counts, loose …
    let mut bye = lone(Method::Bye, "sip:bob@biloxi.example", "c3", 1);
    bye.headers.set_to_tag(&tag("bobs"));
    bye.headers.route = vec![name("sip:192.0.2.6;lr"), name("sip:p2.example;lr")];
    world.wish(alice, send(3, &bye));
    world.until(300);
    let (_, heard) = incoming(&mut world, other);
    assert_eq!((&heard.uri, &heard.headers.route), (&bye.uri, &bye.headers.route));
    // … and strict.
    bye.headers.route = vec![name("sip:192.0.2.6;method=BYE"), name("sip:p2.example;lr")];
    bye.headers.cseq = CSeq { number: 2, method: Method::Bye };
    world.wish(alice, send(4, &bye));
    world.until(400);
    let (_, heard) = incoming(&mut world, other);
    assert_eq!(heard.uri, uri("sip:192.0.2.6"));
    assert_eq!(heard.headers.route, [name("sip:p2.example;lr"), name("sip:bob@biloxi.example")]);
    // Without a route set, to the remote target: never to the proxy.
    let mut bye = lone(Method::Bye, "sip:bob@192.0.2.6", "c4", 1);
    bye.headers.set_to_tag(&tag("bobs"));
    world.wish(alice, send(5, &bye));
    world.until(500);
    assert_eq!(incoming(&mut world, other).1.headers.route, []);
    // maddr
    world.wish(
        alice,
        send(6, &{
            let mut bye = lone(Method::Bye, "sip:bob@192.0.2.9;maddr=192.0.2.6", "c5", 1);
            bye.headers.set_to_tag(&tag("bobs"));
            bye
        }),
    );
    world.until(600);
    incoming(&mut world, other);
}

#[test]
fn the_way_of_a_request_is_told_before_there_is_one() {
    let (mut world, alice, _) = pair();
    for (number, uri) in [(1, "sip:bob@192.0.2.2"), (2, "sip:bob@192.0.2.2;transport=tcp"), (3, "sip:nowhere.example")]
    {
        let uri = uri.parse::<offhook::wire::sip::Uri>().unwrap();
        world.wish(alice, Wish::Way { id: id(number), uri: Box::new(uri.as_sip().unwrap().clone()) });
    }
    world.until(1_000);
    let heard = outcomes(&mut world, alice);
    let expected = [
        "UDP 192.0.2.1:40001 → 192.0.2.2:5060",
        "failed: no address for nowhere.example",
        "TCP 192.0.2.1:40002 → 192.0.2.2:5060",
    ];
    assert_eq!(heard, expected);
    assert_eq!(world.nodes[alice].carrier.under_way(), 0);
    assert!(world.seen.is_empty());
}

#[test]
fn what_is_no_request_is_answered_400_and_another_scheme_416_without_keeping_anything() {
    let (mut world, _, bob) = pair();
    let broken = "INVITE sip:bob@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.77:5062;branch=z9hG4bKx\r\n\
                  From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: nonsense\r\n\r\n";
    let other = "OPTIONS nobody:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.77:5062;branch=z9hG4bKy\r\n\
                 From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n\r\n";
    world.inject(bob, at("192.0.2.77:9999"), broken.as_bytes());
    world.inject(bob, at("192.0.2.77:9999"), broken.replace("INVITE", "ACK").as_bytes());
    world.inject(bob, at("192.0.2.77:9999"), other.as_bytes());
    world.inject(bob, at("192.0.2.77:9999"), other.replace("OPTIONS", "ACK").as_bytes());
    let codes: Vec<_> = world
        .seen
        .iter()
        .map(|seen| match &seen.message {
            // No rport was asked for: the port of sent-by (RFC 3261 §18.2.2).
            Message::Response(response) => (seen.to.to_string(), response.status.code()),
            Message::Request(_) => panic!("a request"),
        })
        .collect();
    let to = "192.0.2.77:5062".to_owned();
    // The 400 repeats a CSeq that no parser takes.
    assert!(codes == [(to.clone(), 416)] || codes == [(to.clone(), 400), (to, 416)], "{codes:?}");
    assert_eq!(world.datagrams, 2);
    assert_eq!(world.nodes[bob].carrier.counts().servers, 0);
    assert!(outcomes(&mut world, bob).is_empty());
}

#[test]
fn a_failure_names_who_could_not_be_reached() {
    let (mut world, alice, _) = pair();
    world.wish(alice, send(1, &lone(Method::Options, "sip:192.0.2.99;transport=tcp", "c1", 1)));
    world.until(1_000);
    let heard = world.heard(alice);
    assert!(matches!(&heard[..], [Heard::Failed { why: Failure::Unreachable(_), .. }]), "{heard:?}");
}

#[test]
fn who_listens_on_every_address_names_the_one_that_the_peer_sees() {
    let mut world = World::new(1);
    let alice = world.add("192.0.2.1", config());
    let everywhere = CarrierConfig { listen: vec![(Transport::Udp, at("0.0.0.0:5060"))], ..config() };
    let bob = world.add("192.0.2.2", everywhere);
    world.until(1);
    world.wish(alice, send(1, &lone(Method::Invite, "sip:bob@192.0.2.2", "c1", 1)));
    world.until(100);
    let (server, heard) = incoming(&mut world, bob);
    for code in [180, 200] {
        let mut response = Response::to(&heard, status(code));
        response.headers.contact = vec![name(&format!("sip:bob@{LOCAL_HOST}"))];
        world.wish(bob, Wish::Response { id: server, to_tag: Some(tag("bobs")), response: Box::new(response) });
    }
    world.until(200);
    let contacts: Vec<_> = world
        .heard(alice)
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Response { response, .. } => Some((response.status.code(), host_port(&response.headers.contact[0]))),
            _ => None,
        })
        .collect();
    let here = (Host::new("192.0.2.2").unwrap(), Some(5060));
    assert_eq!(contacts, [(180, here.clone()), (200, here)]);
}

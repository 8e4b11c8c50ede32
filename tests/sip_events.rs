//! Subscriptions both ways and publications over the whole stack in virtual time. RFC 6665, RFC 4235, RFC 3842, RFC 3903.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::wildcard_enum_match_arm)]

#[path = "common/sip.rs"]
mod common;

use common::{MS, Registrar, S, World, account, address, at, reply};
use offhook::sip::agent::{AgentConfig, SipEvent};
use offhook::sip::event::{Document, EventFault, EventNews, Package};
use offhook::sip::exchange::Transport;
use offhook::sip::policy::Callers;
use offhook::wire::event_body::{
    Activity, DialogInfo, DialogPhase, DialogState, MessageCounts, MessageSummary, Presence, Tuple,
};
use offhook::wire::sip::{
    CallId, ContentType, Event, Header, Host, Message, Method, NameAddr, Params, Request, SubscriptionState, Tag,
    Token, Via,
};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

const SERVER: &str = "192.0.2.1:5060";

/// Somebody who listens at 5060 and takes everybody's requests.
fn open(identity: &str, ip: &str) -> AgentConfig {
    let mut config = AgentConfig::new(address(identity));
    config.listen = vec![(Transport::Udp, at(&format!("{ip}:5060")))];
    config.policy.callers = Callers::Everyone;
    config
}

fn two(number: u64) -> World {
    let mut world = World::new(number);
    world.agent("10.0.0.1", 2 * number, open("sip:alice@10.0.0.1", "10.0.0.1"));
    world.agent("10.0.0.2", 2 * number + 1, open("sip:bob@10.0.0.2", "10.0.0.2"));
    world
}

fn news(world: &mut World, node: usize) -> Vec<EventNews> {
    let events = world.events(node);
    events.into_iter().filter_map(|event| if let SipEvent::Event(news) = event { Some(news) } else { None }).collect()
}

fn busy(phase: DialogPhase) -> Document {
    let dialog = DialogState {
        id: "1".into(),
        phase,
        direction: None,
        call_id: None,
        local_tag: None,
        remote_tag: None,
        local: None,
        remote: Some("sip:carol@example.com".into()),
    };
    let info = DialogInfo { entity: "sip:bob@10.0.0.2".into(), version: 0, full: true, dialogs: vec![dialog] };
    Document::Dialogs(info)
}

#[test]
fn a_busy_lamp_follows_its_person_and_goes_out() {
    let mut world = two(1);
    let now = world.now;
    let id = world.nodes[0].agent.subscribe(now, address("sip:bob@10.0.0.2"), Package::Dialog).unwrap();
    world.pass(S);
    let first = news(&mut world, 0);
    let [EventNews::Notified { pending: false, document: Some(Document::Dialogs(info)), .. }] = &first[..] else {
        panic!("{first:?}")
    };
    assert!(info.dialogs.is_empty() && info.full && info.version == 0);
    assert!(
        matches!(&news(&mut world, 1)[..], [EventNews::Watched { package: Package::Dialog, user, .. }] if user == "bob")
    );
    // Two changes at once are one notification: they are 5 s apart at least.
    for phase in [DialogPhase::Early, DialogPhase::Confirmed] {
        let now = world.now;
        world.nodes[1].agent.show(now, "bob", busy(phase));
    }
    world.pass(3 * S);
    assert!(news(&mut world, 0).is_empty());
    world.pass(3 * S);
    let next = news(&mut world, 0);
    let [EventNews::Notified { document: Some(Document::Dialogs(info)), .. }] = &next[..] else { panic!("{next:?}") };
    assert_eq!((info.version, info.dialogs[0].phase), (1, DialogPhase::Confirmed));
    let now = world.now;
    world.nodes[0].agent.end_event(now, id);
    world.pass(S);
    assert_eq!(news(&mut world, 0), [EventNews::Ended { id }]);
    assert!(matches!(&news(&mut world, 1)[..], [EventNews::Unwatched { .. }]));
    let quiet = world.sent;
    world.pass(7200 * S);
    assert_eq!(world.sent, quiet);
}

#[test]
fn presence_and_waiting_messages_cross_the_wire() {
    let mut world = two(2);
    let tuple = Tuple { id: "a".into(), open: Some(true), ..Tuple::default() };
    let presence = Presence {
        entity: "sip:bob@10.0.0.2".into(),
        tuples: vec![tuple],
        activities: vec![Activity::OnThePhone],
        note: None,
    };
    let voice = Some(MessageCounts { new: 2, old: 1, urgent_new: 0, urgent_old: 0 });
    let summary = MessageSummary { waiting: true, account: None, voice };
    let documents = [Document::Presence(presence), Document::Messages(summary)];
    for document in &documents {
        let now = world.now;
        world.nodes[1].agent.show(now, "bob", document.clone());
        world.nodes[0].agent.subscribe(now, address("sip:bob@10.0.0.2"), document.package()).unwrap();
    }
    world.pass(S);
    let told: Vec<_> = news(&mut world, 0)
        .into_iter()
        .filter_map(|n| if let EventNews::Notified { document, .. } = n { document } else { None })
        .collect();
    assert_eq!(told.len(), 2);
    assert!(documents.iter().all(|document| told.contains(document)));
}

#[test]
fn a_subscription_lives_for_a_week_under_twenty_percent_loss() {
    for number in 0..10 {
        let mut world = two(number);
        world.loss = 200;
        let now = world.now;
        world.nodes[0].agent.subscribe(now, address("sip:bob@10.0.0.2"), Package::Dialog).unwrap();
        for _ in 0..7 * 24 {
            world.pass(3600 * S);
        }
        let lost = news(&mut world, 0).iter().filter(|n| matches!(n, EventNews::Lost { .. })).count();
        assert!(lost <= 2, "seed {number}: {lost} times");
        let now = world.now;
        world.nodes[1].agent.show(now, "bob", busy(DialogPhase::Early));
        assert!(world.run(600 * S, |world| world.nodes[0].events.iter().any(|event| matches!(
            event,
            SipEvent::Event(EventNews::Notified { document: Some(Document::Dialogs(info)), .. }) if !info.dialogs.is_empty()
        ))), "seed {number}");
    }
}

/// A notifier that does what it is told.
struct Server {
    subscribes: Vec<Request>,
    publishes: Vec<Request>,
    answers: Vec<(u16, Request)>,
    /// Answers SUBSCRIBE so.
    code: u16,
    min_expires: u32,
    expires: u32,
    /// Sends a NOTIFY after (or before) the answer with this state.
    state: Option<&'static str>,
    before: bool,
    body: Option<(&'static str, String)>,
    tag: &'static str,
    number: u32,
    etags: u32,
}

impl Server {
    fn new() -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            subscribes: Vec::new(),
            publishes: Vec::new(),
            answers: Vec::new(),
            code: 200,
            min_expires: 0,
            expires: 3600,
            state: Some("active;expires=3600"),
            before: false,
            body: None,
            tag: "srv",
            number: 0,
            etags: 0,
        }))
    }

    fn notify(&mut self, of: &Request, state: &str) -> Message {
        self.number += 1;
        let from = of.headers.to.clone().with_tag(&Tag::lossy(self.tag));
        let contact = of.headers.contact[0].uri.clone();
        let call_id = of.headers.call_id.clone();
        let mut notify = Request::new(Method::Notify, contact, from, of.headers.from.clone(), call_id, self.number);
        let server = at(SERVER);
        let branch = format!("z9hG4bK-n{}{}", self.number, self.tag);
        notify.headers.via = vec![Via::new(Token::lossy("UDP"), Host::Ip(server.ip()), Some(server.port()), &branch)];
        notify.headers.contact = vec![address("sip:192.0.2.1:5060")];
        notify.headers.push(Header::Event(of.headers.event().unwrap().clone()));
        let (state, params) = state.split_once(';').unwrap_or((state, ""));
        let mut all = Params::default();
        for (name, value) in params.split(';').filter_map(|p| p.split_once('=')) {
            all.set(name, Some(value));
        }
        notify.headers.push(Header::SubscriptionState(SubscriptionState { state: Token::lossy(state), params: all }));
        if let Some((media, body)) = &self.body {
            notify.set_body(ContentType::new(media).unwrap(), body.clone().into_bytes());
        }
        Message::Request(notify)
    }

    fn take(&mut self, message: Message, from: SocketAddr) -> Vec<(SocketAddr, Message)> {
        let request = match message {
            Message::Request(request) => request,
            Message::Response(response) => {
                let about = Request::new(
                    Method::Notify,
                    response.headers.to.uri.clone(),
                    response.headers.from.clone(),
                    response.headers.to.clone(),
                    response.headers.call_id.clone(),
                    response.headers.cseq.number,
                );
                self.answers.push((response.status.code(), about));
                return Vec::new();
            }
        };
        match request.method {
            Method::Subscribe => self.subscribes.push(request.clone()),
            Method::Publish => {
                self.publishes.push(request.clone());
                return vec![(from, Message::Response(self.publication(&request, from)))];
            }
            _ => return vec![(from, Message::Response(reply(&request, from, 200)))],
        }
        let asked = request.headers.expires().unwrap();
        let code = if asked > 0 && asked < self.min_expires { 423 } else { self.code };
        let mut response = reply(&request, from, code);
        if request.headers.to.tag().is_none() {
            response.headers.set_to_tag(&Tag::lossy(self.tag));
        }
        response.headers.contact = vec![address("sip:192.0.2.1:5060")];
        if code == 423 {
            response.headers.push(Header::MinExpires(self.min_expires));
        } else {
            response.headers.push(Header::Expires(asked.min(self.expires)));
        }
        let mut all = vec![(from, Message::Response(response))];
        let state = if asked == 0 { Some("terminated;reason=timeout") } else { self.state };
        if let (200, Some(state)) = (code, state) {
            let notify = (from, self.notify(&request, state));
            if self.before { all.insert(0, notify) } else { all.push(notify) }
        }
        all
    }

    fn publication(&mut self, request: &Request, from: SocketAddr) -> offhook::wire::sip::Response {
        let asked = request.headers.expires().unwrap();
        let current = format!("e{}", self.etags);
        let wrong = request.headers.sip_if_match().is_some_and(|etag| etag.as_str() != current);
        let code = if asked > 0 && asked < self.min_expires {
            423
        } else if wrong {
            412
        } else {
            self.code
        };
        let mut response = reply(request, from, code);
        if code == 423 {
            response.headers.push(Header::MinExpires(self.min_expires));
        } else if code == 200 {
            self.etags += 1;
            response.headers.push(Header::SipEtag(Token::lossy(&format!("e{}", self.etags))));
            response.headers.push(Header::Expires(asked.min(self.expires)));
        }
        response
    }
}

/// Alice, and a scripted server at [`SERVER`].
fn scene(change: impl FnOnce(&mut Server)) -> (World, Rc<RefCell<Server>>) {
    let mut world = World::new(3);
    let server = Server::new();
    change(&mut server.borrow_mut());
    let kept = server.clone();
    world.script(
        at(SERVER),
        Rc::new(RefCell::new(move |_: Instant, message, from| kept.borrow_mut().take(message, from))),
    );
    world.agent("10.0.0.1", 8, open("sip:alice@192.0.2.1", "10.0.0.1"));
    (world, server)
}

fn subscribed(change: impl FnOnce(&mut Server), package: Package) -> (World, Rc<RefCell<Server>>) {
    let (mut world, server) = scene(change);
    let now = world.now;
    world.nodes[0].agent.subscribe(now, address("sip:bob@192.0.2.1"), package).unwrap();
    world.pass(2 * S);
    (world, server)
}

#[test]
fn a_notify_that_overtakes_the_answer_makes_the_dialog() {
    let (mut world, server) = subscribed(|s| s.before = true, Package::Presence);
    assert!(matches!(&news(&mut world, 0)[..], [EventNews::Notified { document: None, .. }]));
    assert_eq!(server.borrow().answers[0].0, 200);
    world.pass(3600 * S);
    let server = server.borrow();
    assert!(server.subscribes.len() > 1);
    assert_eq!(server.subscribes[1].headers.to.tag(), Some(Tag::lossy("srv")), "refreshed in the dialog");
}

#[test]
fn what_is_refused_for_good_is_not_asked_again() {
    for code in [489, 403, 404, 405, 501, 603] {
        let (mut world, server) = subscribed(|s| s.code = code, Package::Presence);
        let all = news(&mut world, 0);
        let [EventNews::Lost { why: EventFault::Refused { status, .. }, again: None, .. }] = &all[..] else {
            panic!("{all:?}")
        };
        assert_eq!(status.code(), code);
        world.pass(24 * 3600 * S);
        assert_eq!(server.borrow().subscribes.len(), 1);
    }
}

#[test]
fn too_brief_a_time_is_asked_for_again_as_the_notifier_wants() {
    let (mut world, server) = subscribed(|s| (s.min_expires, s.expires) = (7200, 7200), Package::Presence);
    assert_eq!(news(&mut world, 0).len(), 1);
    assert_eq!(server.borrow().subscribes[1].headers.expires(), Some(7200));
}

#[test]
fn a_yes_without_a_notify_is_a_no_after_timer_n() {
    let (mut world, _server) = subscribed(|s| s.state = None, Package::Presence);
    world.pass(29 * S);
    assert!(news(&mut world, 0).is_empty());
    world.pass(3 * S);
    let all = news(&mut world, 0);
    assert!(matches!(&all[..], [EventNews::Lost { why: EventFault::Silent, again: Some(_), .. }]), "{all:?}");
}

#[test]
fn the_reasons_of_an_end_say_whether_to_come_back() {
    // RFC 6665 §4.1.3.
    for (state, comes, within) in [
        ("terminated;reason=deactivated", true, Some(10)),
        ("terminated;reason=timeout", true, Some(10)),
        ("terminated;reason=probation;retry-after=300", true, Some(330)),
        ("terminated;reason=giveup", true, Some(70)),
        ("terminated", true, Some(70)),
        ("terminated;reason=rejected", false, None),
        ("terminated;reason=noresource", false, None),
        ("terminated;reason=invariant", false, None),
    ] {
        let (mut world, server) = subscribed(|s| s.state = Some(state), Package::Presence);
        server.borrow_mut().state = Some("active;expires=3600");
        let all = news(&mut world, 0);
        let [EventNews::Lost { why: EventFault::Terminated(_), again, .. }] = &all[..] else { panic!("{all:?}") };
        assert_eq!(again.is_some(), comes, "{state}");
        if state.contains("300") {
            world.pass(290 * S);
            assert_eq!(server.borrow().subscribes.len(), 1, "{state}");
        }
        world.pass(Duration::from_secs(within.unwrap_or(86_400)));
        assert_eq!(server.borrow().subscribes.len(), if comes { 2 } else { 1 }, "{state}");
        if comes {
            let server = server.borrow();
            assert_ne!(server.subscribes[0].headers.call_id, server.subscribes[1].headers.call_id, "{state}");
        }
    }
}

#[test]
fn a_notifier_that_ends_each_new_subscription_is_not_asked_in_a_loop() {
    let (mut world, server) = subscribed(|s| s.state = Some("terminated;reason=deactivated"), Package::Presence);
    world.pass(24 * 3600 * S);
    let asked = server.borrow().subscribes.len();
    assert!(asked < 80, "{asked} times in a day");
    assert!(news(&mut world, 0).len() >= asked - 1);
}

#[test]
fn a_dialog_that_is_not_known_any_more_is_begun_anew() {
    let (mut world, server) = subscribed(|_| {}, Package::Presence);
    server.borrow_mut().code = 481;
    world.pass(1801 * S);
    assert_eq!(server.borrow().subscribes.len(), 2);
    server.borrow_mut().code = 200;
    world.pass(60 * S);
    let server = server.borrow();
    let [first, _, third] = &server.subscribes[..] else { panic!("{}", server.subscribes.len()) };
    assert_ne!(first.headers.call_id, third.headers.call_id);
    assert!(third.headers.to.tag().is_none());
}

#[test]
fn a_refresh_that_fails_is_tried_again_while_the_subscription_stands() {
    let (mut world, server) = subscribed(|_| {}, Package::Presence);
    news(&mut world, 0);
    server.borrow_mut().code = 503;
    world.pass(1801 * S);
    server.borrow_mut().code = 200;
    world.pass(200 * S);
    let all = news(&mut world, 0);
    assert!(all.iter().all(|n| matches!(n, EventNews::Notified { .. })), "{all:?}");
    let server = server.borrow();
    assert!(server.subscribes.iter().all(|s| s.headers.call_id == server.subscribes[0].headers.call_id));
}

#[test]
fn another_fork_and_a_stranger_are_told_that_there_is_no_such_dialog() {
    let (mut world, server) = subscribed(|_| {}, Package::Presence);
    news(&mut world, 0);
    let subscribe = server.borrow().subscribes[0].clone();
    let to = at("10.0.0.1:5060");
    let fork = {
        let mut server = server.borrow_mut();
        server.tag = "other";
        server.notify(&subscribe, "active;expires=60")
    };
    world.inject(at(SERVER), to, &fork);
    let Message::Request(mut strange) = server.borrow_mut().notify(&subscribe, "active;expires=60") else { panic!() };
    strange.headers.call_id = CallId::lossy("strange");
    world.inject(at(SERVER), to, &Message::Request(strange));
    world.pass(S);
    assert!(news(&mut world, 0).is_empty());
    let codes: Vec<u16> = server.borrow().answers.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [200, 481, 481]);
}

#[test]
fn an_old_notify_and_one_of_another_package_change_nothing() {
    let (mut world, server) = subscribed(|_| {}, Package::Presence);
    news(&mut world, 0);
    let subscribe = server.borrow().subscribes[0].clone();
    let to = at("10.0.0.1:5060");
    server.borrow_mut().number = 0;
    let Message::Request(mut old) = server.borrow_mut().notify(&subscribe, "terminated;reason=rejected") else {
        panic!()
    };
    old.headers.via[0].branch = Some("z9hG4bK-old".into());
    world.inject(at(SERVER), to, &Message::Request(old));
    server.borrow_mut().number = 50;
    let Message::Request(mut other) = server.borrow_mut().notify(&subscribe, "active") else { panic!() };
    other.headers.set(Header::Event(Event { package: Token::lossy("dialog"), params: Params::default() }));
    world.inject(at(SERVER), to, &Message::Request(other));
    world.pass(S);
    assert!(news(&mut world, 0).is_empty());
    let mut codes: Vec<u16> = server.borrow().answers.iter().skip(1).map(|(code, _)| *code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [489, 500]);
}

#[test]
fn a_missing_part_of_the_lamp_asks_for_the_whole() {
    let document = |version: u32, state: &str| {
        format!(
            "<dialog-info xmlns='urn:ietf:params:xml:ns:dialog-info' version='{version}' state='{state}' \
             entity='sip:b@c'><dialog id='1'><state>early</state></dialog></dialog-info>"
        )
    };
    let media = "application/dialog-info+xml";
    let (mut world, server) = subscribed(|s| s.body = Some((media, document(0, "full"))), Package::Dialog);
    assert_eq!(news(&mut world, 0).len(), 1);
    let subscribe = server.borrow().subscribes[0].clone();
    // 1 is lost.
    let gap = {
        let mut server = server.borrow_mut();
        server.body = Some((media, document(2, "partial")));
        server.notify(&subscribe, "active;expires=3000")
    };
    server.borrow_mut().body = Some((media, document(3, "full")));
    world.inject(at(SERVER), at("10.0.0.1:5060"), &gap);
    world.pass(S);
    assert_eq!(server.borrow().subscribes.len(), 2);
    let told: Vec<u32> = news(&mut world, 0)
        .into_iter()
        .filter_map(|n| match n {
            EventNews::Notified { document: Some(Document::Dialogs(info)), .. } => Some(info.version),
            _ => None,
        })
        .collect();
    assert_eq!(told, [3]);
}

#[test]
fn ending_before_the_answer_leaves_nothing_behind() {
    let (mut world, server) = scene(|_| {});
    let now = world.now;
    let id = world.nodes[0].agent.subscribe(now, address("sip:bob@192.0.2.1"), Package::Presence).unwrap();
    world.nodes[0].agent.end_event(now, id);
    world.pass(2 * S);
    assert_eq!(news(&mut world, 0), [EventNews::Ended { id }]);
    let server = server.borrow();
    let last = server.subscribes.last().unwrap();
    assert_eq!((last.headers.expires(), last.headers.to.tag()), (Some(0), Some(Tag::lossy("srv"))));
}

#[test]
fn the_mailbox_of_the_registrar_is_heard_unasked_and_that_of_a_stranger_is_not() {
    let mut world = World::new(4);
    world.names.insert("pbx.example".into(), at(SERVER).ip());
    let registrar = Registrar::new(world.now, "asterisk");
    world.script(at(SERVER), Registrar::script(&registrar));
    world.agent("10.0.0.1", 8, account("sip:pbx.example"));
    world.pass(2 * S);
    world.events(0);
    let contact = registrar.borrow().requests[1].headers.contact[0].uri.clone();
    let notify = |host: &str, branch: &str| {
        let from = address("sip:vm@pbx.example").with_tag(&Tag::lossy("vm"));
        let to = address("sip:alice@pbx.example");
        let mut notify = Request::new(Method::Notify, contact.clone(), from, to, CallId::lossy(branch), 1);
        let host = at(host);
        notify.headers.via = vec![Via::new(Token::lossy("UDP"), Host::Ip(host.ip()), Some(host.port()), branch)];
        notify
            .headers
            .push(Header::Event(Event { package: Token::lossy("message-summary"), params: Params::default() }));
        let state = SubscriptionState { state: Token::lossy("active"), params: Params::default() };
        notify.headers.push(Header::SubscriptionState(state));
        let body = b"Messages-Waiting: yes\r\nVoice-Message: 1/0 (0/0)\r\n".to_vec();
        notify.set_body(ContentType::new("application/simple-message-summary").unwrap(), body);
        Message::Request(notify)
    };
    world.inject(at("198.51.100.1:5060"), at("10.0.0.1:40001"), &notify("198.51.100.1:5060", "z9hG4bK-a"));
    world.pass(100 * MS);
    assert!(news(&mut world, 0).is_empty());
    world.inject(at(SERVER), at("10.0.0.1:40001"), &notify(SERVER, "z9hG4bK-b"));
    world.pass(100 * MS);
    assert!(matches!(&news(&mut world, 0)[..], [EventNews::Unsolicited(Document::Messages(m))] if m.waiting));
}

/// A SUBSCRIBE by hand to an agent of ours; the answers that come back.
fn asked(change: impl FnOnce(&mut Request), prepare: impl FnOnce(&mut World)) -> (World, Rc<RefCell<Vec<Message>>>) {
    let mut world = World::new(5);
    let got = Rc::new(RefCell::new(Vec::new()));
    let kept = got.clone();
    world.script(
        at(SERVER),
        Rc::new(RefCell::new(move |_: Instant, message: Message, from| {
            kept.borrow_mut().push(message.clone());
            match message {
                Message::Request(request) => vec![(from, Message::Response(reply(&request, from, 200)))],
                Message::Response(_) => Vec::new(),
            }
        })),
    );
    world.agent("10.0.0.2", 8, open("sip:bob@10.0.0.2", "10.0.0.2"));
    prepare(&mut world);
    let from: NameAddr = address("sip:carol@192.0.2.1").with_tag(&Tag::lossy("c"));
    let bob = address("sip:bob@10.0.0.2");
    let mut request = Request::new(Method::Subscribe, bob.uri.clone(), from, bob, CallId::lossy("x1"), 1);
    let server = at(SERVER);
    request.headers.via = vec![Via::new(Token::lossy("UDP"), Host::Ip(server.ip()), Some(server.port()), "z9hG4bK-x1")];
    request.headers.contact = vec![address("sip:carol@192.0.2.1:5060")];
    request.headers.push(Header::Event(Event { package: Token::lossy("presence"), params: Params::default() }));
    request.headers.push(Header::Expires(600));
    change(&mut request);
    world.inject(server, at("10.0.0.2:5060"), &Message::Request(request));
    world.pass(S);
    (world, got)
}

fn first_code(got: &Rc<RefCell<Vec<Message>>>) -> u16 {
    let got = got.borrow();
    let codes = got.iter().find_map(|m| if let Message::Response(r) = m { Some(r.status.code()) } else { None });
    codes.unwrap()
}

#[test]
fn what_cannot_be_subscribed_to_is_refused_as_the_standard_says() {
    let event = |name: &str| Header::Event(Event { package: Token::lossy(name), params: Params::default() });
    let (_, got) = asked(|r| r.headers.set(event("conference")), |_| {});
    assert_eq!(first_code(&got), 489);
    let Message::Response(refusal) = got.borrow()[0].clone() else { panic!() };
    assert_eq!(refusal.headers.allow_events().count(), 3);
    let (_, got) = asked(|r| r.headers.set(Header::Expires(5)), |_| {});
    assert_eq!(first_code(&got), 423);
    let (_, got) = asked(|r| r.headers.push(Header::Accept(offhook::wire::sip::SipText::new("text/html"))), |_| {});
    assert_eq!(first_code(&got), 406);
    let (_, got) = asked(|r| r.headers.contact.clear(), |_| {});
    assert_eq!(first_code(&got), 400);
    let (_, got) = asked(|r| r.headers.push(Header::Require(vec![Token::lossy("teleport")])), |_| {});
    assert_eq!(first_code(&got), 420);
    let (_, got) = asked(|r| r.headers.set_to_tag(&Tag::lossy("unknown")), |_| {});
    assert_eq!(first_code(&got), 481);
}

#[test]
fn a_watcher_hears_at_once_and_a_last_time_when_his_time_is_over() {
    let (mut world, got) = asked(|r| r.headers.set(Header::Expires(60)), |_| {});
    assert_eq!(first_code(&got), 200);
    world.pass(100 * S);
    let states: Vec<String> = got
        .borrow()
        .iter()
        .filter_map(|m| if let Message::Request(r) = m { r.headers.subscription_state().cloned() } else { None })
        .map(|s| format!("{};{}", s.state, s.params.find("reason").or(s.params.find("expires")).unwrap_or_default()))
        .collect();
    assert_eq!(states, ["active;60", "terminated;timeout"]);
    assert!(matches!(news(&mut world, 0).last(), Some(EventNews::Unwatched { .. })));
}

#[test]
fn one_look_is_one_notification() {
    let (mut world, got) = asked(|r| r.headers.set(Header::Expires(0)), |_| {});
    world.pass(7200 * S);
    let notifies = got.borrow().iter().filter(|m| matches!(m, Message::Request(_))).count();
    assert_eq!((first_code(&got), notifies), (200, 1));
}

#[test]
fn watchers_past_the_bound_are_told_to_come_later() {
    let (_, got) = asked(
        |_| {},
        |world| {
            let mut config = open("sip:bob@10.0.0.2", "10.0.0.2");
            config.limits.events.watchers = 0;
            world.nodes.clear();
            world.agent("10.0.0.2", 9, config);
        },
    );
    assert_eq!(first_code(&got), 503);
    let Message::Response(refusal) = got.borrow()[0].clone() else { panic!() };
    assert!(refusal.headers.retry_after().is_some());
}

fn note(text: &str) -> Document {
    Document::Presence(Presence {
        entity: "sip:alice@192.0.2.1".into(),
        note: Some(text.into()),
        ..Presence::default()
    })
}

#[test]
fn a_publication_is_refreshed_changed_begun_anew_and_taken_back() {
    let (mut world, server) = scene(|_| {});
    let now = world.now;
    let id = world.nodes[0].agent.publish(now, note("one")).unwrap();
    world.pass(1801 * S);
    assert!(matches!(&news(&mut world, 0)[..], [EventNews::Published { .. }, EventNews::Published { .. }]));
    {
        let server = server.borrow();
        let [first, second] = &server.publishes[..] else { panic!() };
        assert!(first.headers.sip_if_match().is_none() && !first.body.is_empty());
        assert_eq!(second.headers.sip_if_match().unwrap().as_str(), "e1");
        assert!(second.body.is_empty(), "a refresh has no body");
    }
    let now = world.now;
    world.nodes[0].agent.republish(now, id, note("two"));
    world.pass(S);
    {
        let server = server.borrow();
        let third = &server.publishes[2];
        assert_eq!(third.headers.sip_if_match().unwrap().as_str(), "e2");
        assert!(String::from_utf8_lossy(&third.body).contains("two"));
    }
    // The server restarts and knows nothing.
    server.borrow_mut().etags = 100;
    world.pass(1801 * S);
    {
        let server = server.borrow();
        assert_eq!(server.publishes.len(), 5);
        let last = &server.publishes[4];
        assert!(last.headers.sip_if_match().is_none() && String::from_utf8_lossy(&last.body).contains("two"));
    }
    let now = world.now;
    world.nodes[0].agent.end_event(now, id);
    world.pass(S);
    assert!(news(&mut world, 0).contains(&EventNews::Ended { id }));
    assert_eq!(server.borrow().publishes.last().unwrap().headers.expires(), Some(0));
    let count = server.borrow().publishes.len();
    world.pass(7200 * S);
    assert_eq!(server.borrow().publishes.len(), count);
}

#[test]
fn a_publication_too_brief_or_refused_is_told() {
    let (mut world, server) = scene(|s| (s.min_expires, s.expires) = (7200, 7200));
    let now = world.now;
    world.nodes[0].agent.publish(now, note("x")).unwrap();
    world.pass(S);
    assert!(matches!(&news(&mut world, 0)[..], [EventNews::Published { .. }]));
    assert_eq!(server.borrow().publishes[1].headers.expires(), Some(7200));
    let (mut world, server) = scene(|s| s.code = 489);
    let now = world.now;
    world.nodes[0].agent.publish(now, note("x")).unwrap();
    world.pass(3600 * S);
    assert!(matches!(&news(&mut world, 0)[..], [EventNews::Lost { again: None, .. }]));
    assert_eq!(server.borrow().publishes.len(), 1);
}

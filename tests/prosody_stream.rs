//! The client stream, driven by hand over a socket, against a real Prosody: login, roster, services, resumption, and what a
//! wrong password and an unknown host bring.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

#[path = "common/prosody.rs"]
mod prosody;

use offhook::config::Secret;
use offhook::fault::StreamCondition;
use offhook::wire::jid::Jid;
use offhook::wire::roster::Roster;
use offhook::wire::stanza::{Iq, IqKind, IqPayload, Message, MessageType, Presence, PresenceType, Stanza};
use offhook::wire::stream::SaslCondition;
use offhook::xmpp::presence::Contacts;
use offhook::xmpp::requests::IqTracker;
use offhook::xmpp::services::ServiceFinder;
use offhook::xmpp::stream::{Stream, StreamConfig, StreamEvent, StreamFault, StreamInput, StreamTransmit, TlsPolicy};
use prosody::coturn::wanted;
use prosody::{Lab, PASSWORD};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

/// The smallest shell there can be.
struct Shell {
    address: String,
    socket: Option<TcpStream>,
    stream: Stream,
    events: VecDeque<StreamEvent>,
}

impl Shell {
    fn new(lab: &Lab, jid: &str, password: &str) -> Self {
        let mut config = StreamConfig::new(Jid::new(jid).unwrap(), Secret::new(password));
        config.tls = TlsPolicy::PlaintextLoopbackOnly;
        let stream = Stream::client(Instant::now(), [3; 32], config);
        Self { address: lab.alpha.c2s(), socket: None, stream, events: VecDeque::new() }
    }

    fn connect(&mut self) {
        let socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        self.socket = Some(socket);
        self.stream.handle_input(Instant::now(), StreamInput::Connected { tls: None, loopback: true });
    }

    /// The connection breaks without a word to the server.
    fn cut(&mut self) {
        self.socket = None;
        self.stream.handle_input(Instant::now(), StreamInput::Closed("cut".into()));
    }

    fn drive(&mut self) {
        while let Some(transmit) = self.stream.poll_transmit() {
            match (transmit, &mut self.socket) {
                (StreamTransmit::Bytes(bytes), Some(socket)) => drop(socket.write_all(&bytes)),
                (StreamTransmit::Close, socket) => *socket = None,
                (StreamTransmit::StartTls, _) => panic!("plain text was agreed"),
                (StreamTransmit::Bytes(_), None) => {}
            }
        }
        let mut buffer = [0; 4096];
        if let Some(socket) = &mut self.socket {
            match socket.read(&mut buffer) {
                Ok(0) => self.cut(),
                Ok(n) => self.stream.handle_input(Instant::now(), StreamInput::Bytes(&buffer[..n])),
                Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.cut(),
            }
        }
        self.stream.handle_timeout(Instant::now());
        self.events.extend(std::iter::from_fn(|| self.stream.poll_event()));
    }

    /// The next event that `want` takes; others are dropped.
    fn until<T>(&mut self, what: &str, mut want: impl FnMut(StreamEvent) -> Option<T>) -> T {
        let start = Instant::now();
        let mut seen = Vec::new();
        while start.elapsed() < Duration::from_secs(20) {
            self.drive();
            while let Some(event) = self.events.pop_front() {
                seen.push(format!("{event:?}"));
                if let Some(got) = want(event) {
                    return got;
                }
            }
        }
        panic!("no {what} in 20 s, only {seen:#?}");
    }

    fn online(&mut self) -> bool {
        self.until("login", |e| match e {
            StreamEvent::Online { resumed, .. } => Some(resumed),
            StreamEvent::Refused(_) | StreamEvent::AuthFailed { .. } => panic!("{e:?}"),
            _ => None,
        })
    }

    fn iq(&mut self, to: Option<Jid>, payload: IqPayload) -> Iq {
        let stanza = Stanza::Iq(Iq::new(to.clone(), "", IqKind::Get(payload)));
        let id = self.stream.send(Instant::now(), stanza).unwrap();
        let mut tracker = IqTracker::new(self.stream.jid().unwrap().clone(), 1);
        tracker.track(id, to, Instant::now(), ()).unwrap();
        self.until("answer", |e| match e {
            StreamEvent::Stanza(s) => match *s {
                Stanza::Iq(iq) => tracker.answer(&iq).map(|_| iq),
                _ => None,
            },
            _ => None,
        })
    }

    fn say(&mut self, to: &str, body: &str) {
        let mut message = Message::new(Some(Jid::new(to).unwrap()), MessageType::Chat);
        message.body = Some(body.into());
        self.stream.send(Instant::now(), Stanza::Message(message)).unwrap();
        self.drive();
    }

    fn hear(&mut self) -> String {
        self.until("message", |e| match e {
            StreamEvent::Stanza(s) => match *s {
                Stanza::Message(m) => m.body,
                _ => None,
            },
            _ => None,
        })
    }
}

#[test]
fn a_stream_lives_with_a_real_server() {
    if !wanted("a_stream_lives_with_a_real_server") {
        return;
    }
    let lab = Lab::shared();
    let mut romeo = Shell::new(&lab, "romeo@alpha.test/one", PASSWORD);
    let mut nurse = Shell::new(&lab, "nurse@alpha.test/one", PASSWORD);
    let start = Instant::now();
    romeo.connect();
    assert!(!romeo.online());
    println!("logged in after {:?}", start.elapsed());
    nurse.connect();
    assert!(!nurse.online());

    let answer = romeo.iq(None, IqPayload::Roster(Box::<Roster>::default()));
    let IqKind::Result(Some(IqPayload::Roster(roster))) = answer.kind else { panic!("{answer:?}") };
    let own = romeo.stream.jid().unwrap().to_bare();
    let mut contacts = Contacts::new(own.clone(), &romeo.stream.config().limits);
    contacts.load(*roster);
    assert!(contacts.is_contact(&"nurse@alpha.test".parse().unwrap()));

    let mut finder = ServiceFinder::new(own, (Instant::now(), SystemTime::now()), 32);
    finder.begin(Instant::now());
    let request = finder.poll_request().unwrap();
    let answer = romeo.iq(Some(finder.server()), request);
    let IqKind::Result(payload) = answer.kind else { panic!("{answer:?}") };
    finder.handle_answer(Instant::now(), offhook::xmpp::requests::Outcome::Result(payload));
    let turn = finder.services().iter().find(|s| s.kind == "turn").expect("a relay");
    assert!(turn.username.is_some() && turn.password.is_some());
    let refresh = finder.poll_timeout().unwrap() - Instant::now();
    assert!((3200..=3240).contains(&refresh.as_secs()), "90 % of an hour, not {refresh:?}");

    // What is said while one side has no connection arrives, in order and once.
    nurse.stream.send(Instant::now(), Stanza::Presence(Presence::new(None, PresenceType::Available))).unwrap();
    nurse.drive();
    for round in 0..3 {
        romeo.say("nurse@alpha.test/one", &format!("{round} before"));
        assert_eq!(nurse.hear(), format!("{round} before"));
        romeo.cut();
        romeo.say("nurse@alpha.test/one", &format!("{round} offline"));
        nurse.say("romeo@alpha.test/one", &format!("{round} to the absent"));
        let start = Instant::now();
        romeo.connect();
        assert!(romeo.online(), "resumed");
        println!("resumed after {:?}", start.elapsed());
        assert_eq!(romeo.hear(), format!("{round} to the absent"));
        assert_eq!(nurse.hear(), format!("{round} offline"));
    }
    nurse.say("romeo@alpha.test/one", "last");
    assert_eq!(romeo.hear(), "last");
    romeo.stream.close(Instant::now());
    romeo.until("end", |e| matches!(e, StreamEvent::Closed).then_some(()));
}

#[test]
fn a_real_server_refuses_a_wrong_password_and_an_unknown_host() {
    if !wanted("a_real_server_refuses_a_wrong_password_and_an_unknown_host") {
        return;
    }
    let lab = Lab::shared();
    let mut wrong = Shell::new(&lab, "romeo@alpha.test", "wrong");
    wrong.connect();
    let condition = wrong.until("refusal", |e| match e {
        StreamEvent::AuthFailed { condition, .. } => Some(condition),
        _ => None,
    });
    assert_eq!(condition, Some(SaslCondition::NotAuthorized));
    let mut lost = Shell::new(&lab, "romeo@gamma.test", PASSWORD);
    lost.connect();
    let condition = lost.until("refusal", |e| match e {
        StreamEvent::Refused(StreamFault::Stream(error)) => Some(error.condition),
        _ => None,
    });
    assert_eq!(condition, StreamCondition::HostUnknown);
}

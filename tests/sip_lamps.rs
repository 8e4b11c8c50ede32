//! Lamps, presence and texts at a real Asterisk: subscriptions to its hints, MESSAGE through its dial plan, OPTIONS,
//! a PUBLISH that it does not take. RFC 6665, RFC 4235, RFC 3856, RFC 3428, RFC 3903.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
#![allow(clippy::wildcard_enum_match_arm)]

#[path = "common/asterisk.rs"]
mod asterisk;
#[path = "common/prosody.rs"]
mod prosody;

use asterisk::{Asterisk, Version};
use offhook::config::Secret;
use offhook::io::sip::{SipNetwork, SipSockets};
use offhook::sip::agent::{Agent, AgentConfig, SipEvent};
use offhook::sip::event::{Document, EventNews, Package};
use offhook::sip::session::SessionEvent;
use offhook::wire::event_body::{Activity, DialogPhase, Presence};
use offhook::wire::sip::{NameAddr, Status};
use std::time::{Duration, Instant};

/// An agent on real sockets.
struct Phone {
    agent: Agent,
    sockets: SipSockets,
    events: Vec<SipEvent>,
}

impl Phone {
    fn new(pbx: &Asterisk, user: &str, transport: &str) -> Self {
        let mut config = AgentConfig::new(address(pbx, user));
        config.registrar = Some(format!("sip:{};transport={transport}", pbx.ip).parse().unwrap());
        config.outbound = config.registrar.as_ref().and_then(|uri| uri.as_sip().cloned());
        config.login(user, Secret::new("secret"), None);
        let mut seed = [9; 32];
        for (at, byte) in user.bytes().chain(transport.bytes()).enumerate() {
            seed[at % 32] ^= byte;
        }
        seed[31] = std::process::id() as u8;
        let sockets = SipSockets::new(SipNetwork::default());
        Self { agent: Agent::new(Instant::now(), seed, config), sockets, events: Vec::new() }
    }

    /// Until something wanted happens.
    async fn until(&mut self, what: &str, wanted: impl Fn(&SipEvent) -> bool) -> SipEvent {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            while let Some(event) = self.agent.poll_event() {
                if let SipEvent::Session(id, SessionEvent::Incoming(_)) = &event {
                    let now = Instant::now();
                    self.agent.sessions_mut(now).ring(now, *id).unwrap();
                }
                self.events.push(event);
            }
            while let Some(output) = self.agent.poll_output() {
                self.sockets.handle(output);
            }
            if let Some(at) = self.events.iter().position(&wanted) {
                return self.events.remove(at);
            }
            assert!(Instant::now() < end, "no {what}; came: {:?}", self.events);
            let due = self.agent.poll_timeout().unwrap_or(end).min(end);
            tokio::select! {
                report = self.sockets.next() => {
                    let now = Instant::now();
                    report.give(|input| self.agent.handle_input(now, input));
                }
                () = tokio::time::sleep_until(due.into()) => self.agent.handle_timeout(Instant::now()),
            }
        }
    }

    async fn registered(&mut self) {
        self.until("registration", |event| matches!(event, SipEvent::Registered { .. })).await;
    }

    /// The next thing that the lamp says.
    async fn lamp(&mut self) -> Option<DialogPhase> {
        let told = |event: &SipEvent| {
            matches!(event, SipEvent::Event(EventNews::Notified { document: Some(Document::Dialogs(_)), .. }))
        };
        match self.until("word of the lamp", told).await {
            SipEvent::Event(EventNews::Notified { document: Some(Document::Dialogs(info)), .. }) => {
                info.dialogs.first().map(|dialog| dialog.phase)
            }
            _ => None,
        }
    }
}

fn address(pbx: &Asterisk, user: &str) -> NameAddr {
    NameAddr::new(format!("sip:{user}@{}", pbx.ip).parse().unwrap())
}

async fn lamps(version: Version, transport: &str) {
    let pbx = Asterisk::start_version(version);
    let (mut alice, mut bob) = (Phone::new(&pbx, "alice", transport), Phone::new(&pbx, "bob", transport));
    alice.registered().await;
    bob.registered().await;
    let lamp = bob.agent.subscribe(Instant::now(), address(&pbx, "620"), Package::Dialog).unwrap();
    assert_eq!(bob.lamp().await, Some(DialogPhase::Terminated), "nobody talks");
    pbx.ring("alice", "600");
    alice.until("call", |event| matches!(event, SipEvent::Session(_, SessionEvent::Incoming(_)))).await;
    assert_eq!(bob.lamp().await, Some(DialogPhase::Early), "it rings");
    pbx.hang_up();
    alice.until("end", |event| matches!(event, SipEvent::Session(_, SessionEvent::Ended(_)))).await;
    assert_eq!(bob.lamp().await, Some(DialogPhase::Terminated), "it is over");
    bob.agent.end_event(Instant::now(), lamp);
    bob.until("end", |event| matches!(event, SipEvent::Event(EventNews::Ended { .. }))).await;

    bob.agent.subscribe(Instant::now(), address(&pbx, "620"), Package::Presence).unwrap();
    let presence = |event: &SipEvent| {
        matches!(event, SipEvent::Event(EventNews::Notified { document: Some(Document::Presence(_)), .. }))
    };
    match bob.until("presence", presence).await {
        SipEvent::Event(EventNews::Notified { document: Some(Document::Presence(presence)), .. }) => {
            assert!(presence.is_open(), "{presence:?}");
            assert!(!presence.activities.contains(&Activity::OnThePhone), "{presence:?}");
        }
        other => panic!("{other:?}"),
    }
    // What nobody is.
    bob.agent.subscribe(Instant::now(), address(&pbx, "699"), Package::Dialog).unwrap();
    bob.until("refusal", |event| matches!(event, SipEvent::Event(EventNews::Lost { again: None, .. }))).await;
}

#[tokio::test]
async fn a_lamp_at_asterisk_22_shows_who_talks() {
    lamps(Version::New, "udp").await;
}

#[tokio::test]
async fn a_lamp_at_asterisk_16_shows_who_talks() {
    lamps(Version::Old, "tcp").await;
}

#[tokio::test]
async fn texts_options_and_publications_at_asterisk() {
    let pbx = Asterisk::start();
    let mut alice = Phone::new(&pbx, "alice", "udp");
    alice.registered().await;
    alice.agent.message(Instant::now(), address(&pbx, "600"), "grüß dich").unwrap();
    let sent = alice.until("receipt", |event| matches!(event, SipEvent::MessageSent { .. })).await;
    assert!(matches!(&sent, SipEvent::MessageSent { outcome, .. } if outcome.is_success()), "{sent:?}");
    match alice.until("echo", |event| matches!(event, SipEvent::Message(_))).await {
        SipEvent::Message(message) => assert_eq!(message.text, "echo: grüß dich"),
        other => panic!("{other:?}"),
    }
    alice.agent.options(Instant::now(), address(&pbx, "600")).unwrap();
    match alice.until("answer", |event| matches!(event, SipEvent::Options { .. })).await {
        SipEvent::Options { outcome, allow, .. } => assert!(outcome.is_success() && !allow.is_empty(), "{outcome:?}"),
        other => panic!("{other:?}"),
    }
    alice.agent.publish(Instant::now(), Document::Presence(Presence::default())).unwrap();
    match alice.until("refusal", |event| matches!(event, SipEvent::Event(EventNews::Lost { .. }))).await {
        SipEvent::Event(EventNews::Lost { why, again: None, .. }) => {
            let bad_event = offhook::sip::event::EventFault::Refused {
                status: Status::BAD_EVENT,
                reason: offhook::wire::sip::SipText::new(Status::BAD_EVENT.phrase()),
            };
            assert_eq!(why, bad_event);
        }
        other => panic!("{other:?}"),
    }
    alice.agent.shut_down(Instant::now());
    alice.until("end of the registration", |event| matches!(event, SipEvent::Left)).await;
    assert!(!pbx.ask("pjsip show contacts").contains("alice/"));
}

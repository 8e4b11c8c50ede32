//! The user agent without media at a real Asterisk and a real Kamailio: calls to us and of ours over every transport,
//! nonces that grow old, and a wrong password.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/agent.rs"]
mod agent;
#[path = "common/asterisk.rs"]
mod asterisk;
#[path = "common/kamailio.rs"]
mod kamailio;
#[path = "common/prosody.rs"]
mod prosody;

use agent::{Phone, sdp, settings, uri};
use asterisk::Asterisk;
use kamailio::Kamailio;
use offhook::sip::agent::SipEvent;
use offhook::sip::session::{EndedBy, Invitation, SessionEvent};
use offhook::sip::sessions::SessionId;
use offhook::wire::sip::NameAddr;
use prosody::coturn::wanted;
use std::time::Duration;

fn invite(phone: &Phone, to: &str) -> SessionId {
    let to = NameAddr::new(uri(to));
    phone.act(|now, agent| {
        let invitation = Invitation::new(agent.local(), to, Some(sdp()));
        agent.sessions_mut(now).invite(now, invitation).unwrap()
    })
}

/// Of this session.
fn of(id: SessionId, event: &SipEvent) -> Option<&SessionEvent> {
    match event {
        SipEvent::Session(it, event) if *it == id => Some(event),
        _ => None,
    }
}

#[test]
fn calls_are_signalled_over_every_transport() {
    if !wanted("calls_are_signalled_over_every_transport") {
        return;
    }
    let pbx = Asterisk::start();
    for (transport, port) in [("udp", 5060), ("tcp", 5060), ("tls", 5061), ("ws", 8088), ("wss", 8089)] {
        let config = settings("sip:alice@pbx.test", transport, &format!("{}:{port}", pbx.ip));
        let mut phone = Phone::start(config, Some(&pbx.ca_file));
        phone.registered();
        // Asterisk says what it wants in an early answer, which is acknowledged reliably.
        let id = invite(&phone, "sip:604@pbx.test");
        phone.wait("early media", |event| {
            of(id, event).filter(|e| matches!(e, SessionEvent::AnswerReceived { early: true, .. })).map(|_| ())
        });
        phone.wait("acceptance", |e| of(id, e).filter(|e| matches!(e, SessionEvent::Accepted { .. })).map(|_| ()));
        phone.act(move |now, agent| agent.sessions_mut(now).hang_up(now, id, Vec::new()).unwrap());
        phone.wait("end", |e| of(id, e).filter(|e| matches!(e, SessionEvent::Ended(_))).map(|_| ()));
        // It rings us, and is answered; then it hangs up.
        pbx.ring("alice", "600");
        let id = phone.wait("call", |event| match event {
            SipEvent::Session(id, SessionEvent::Incoming(_)) => Some(*id),
            _ => None,
        });
        phone.act(move |now, agent| {
            let sessions = agent.sessions_mut(now);
            sessions.ring(now, id).unwrap();
            sessions.accept(now, id, Some(sdp())).unwrap();
        });
        phone.wait("ACK", |e| of(id, e).filter(|e| matches!(e, SessionEvent::Confirmed)).map(|_| ()));
        pbx.hang_up();
        let by = phone.wait("end", |event| match of(id, event) {
            Some(SessionEvent::Ended(end)) => Some(end.by),
            _ => None,
        });
        assert_eq!(by, EndedBy::Remote, "{transport}");
        phone.act(|now, agent| agent.shut_down(now));
        phone.wait("leave", |event| matches!(event, SipEvent::Left).then_some(()));
        assert!(!pbx.ask("pjsip show contacts").contains("alice/"), "{transport}: still registered");
        println!("{transport}: done");
    }
    assert_eq!(pbx.log().matches("\nPRACK sip:").count(), 5);
    pbx.is_idle_within(Duration::from_secs(5));
}

#[test]
fn a_nonce_that_is_too_old_is_replaced_and_a_wrong_password_is_final() {
    if !wanted("a_nonce_that_is_too_old_is_replaced_and_a_wrong_password_is_final") {
        return;
    }
    for algorithm in ["MD5", "SHA-256"] {
        let proxy = Kamailio::start_with(algorithm, Duration::from_secs(1));
        let mut config = settings("sip:alice@kam.test", "udp", &proxy.sip());
        let mut phone = Phone::start(config.clone(), None);
        phone.registered();
        std::thread::sleep(Duration::from_millis(2500));
        phone.act(|now, agent| agent.register(now));
        phone.registered();
        config.logins.clear();
        config.login("alice", offhook::config::Secret::new("wrong"), None);
        let mut phone = Phone::start(config, None);
        let again = phone.wait("refusal", |event| match event {
            SipEvent::Unregistered { again, .. } => Some(*again),
            _ => None,
        });
        assert_eq!(again, None, "a wrong password is not tried again");
        println!("{algorithm}: done");
    }
}

//! The rules of a session, row by row: the table of actions, ties, caps, strangers, and what users complained of.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/operations.rs"]
mod operations;
#[path = "jingle_session/sessions.rs"]
mod sessions;

use offhook::fault::{ErrorType, JingleCondition, ReasonCondition, StanzaCondition};
use offhook::jingle::content::{ContentKey, Direction, direction, senders};
use offhook::jingle::session::{
    Body, End, EndedBy, IqError, Misuse, Parties, Phase, Refusal, Role, Session, SessionContext, SessionEvent,
    SessionInput, Why,
};
use offhook::jingle::sessions::{Callers, SessionId, Sessions, SessionsConfig};
use offhook::wire::candidate::{
    Candidate, CandidateAddr, CandidateKind, CandidateProtocol, IceTransport, Setup, Transport,
};
use offhook::wire::description::{Crypto, Description, Encryption, Info};
use offhook::wire::jid::Jid;
use offhook::wire::jingle::{Action, Content, Creator, Disposition, Group, Jingle, Reason, Senders, Sid};
use operations::{answer, content};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROMEO: &str = "romeo@montague.example/orchard";
const JULIET: &str = "juliet@capulet.example/balcony";

fn jid(text: &str) -> Jid {
    Jid::new(text).unwrap()
}

fn audio(creator: Creator, name: &str) -> Content {
    content(creator, name, "audio", Setup::Actpass)
}

fn context() -> Arc<SessionContext> {
    Arc::new(SessionContext::default())
}

fn initiator(now: Instant) -> Session {
    let parties = Parties { local: jid(ROMEO), peer: jid(JULIET), sid: Sid("s".into()), serial: 1 };
    let group = Group { semantics: "BUNDLE".into(), names: vec!["a".into(), "v".into()] };
    let video = content(Creator::Initiator, "v", "video", Setup::Actpass);
    let mut s =
        Session::initiate(now, parties, context(), vec![audio(Creator::Initiator, "a"), video], vec![group]).unwrap();
    assert!(matches!(s.poll_transmit().unwrap().body, Body::Set(j) if j.action == Action::SessionInitiate));
    s
}

fn offer(contents: Vec<Content>) -> Jingle {
    let mut j = Jingle::new(Action::SessionInitiate, Sid("s".into()));
    j.contents = contents;
    j
}

fn respond(now: Instant, context: SessionContext, jingle: Jingle) -> Session {
    let parties = Parties { local: jid(JULIET), peer: jid(ROMEO), sid: Sid("s".into()), serial: 2 };
    Session::respond(now, parties, Arc::new(context), "q".into(), jingle).unwrap()
}

fn responder(now: Instant) -> Session {
    let video = content(Creator::Initiator, "v", "video", Setup::Actpass);
    let mut s = respond(now, SessionContext::default(), offer(vec![audio(Creator::Initiator, "a"), video]));
    assert_eq!(s.poll_transmit().unwrap().body, Body::Result);
    assert!(matches!(s.poll_event(), Some(SessionEvent::Incoming { .. })));
    s
}

fn accepted(now: Instant) -> Session {
    let mut s = initiator(now);
    let mut j = Jingle::new(Action::SessionAccept, Sid("s".into()));
    j.contents = answer(&[audio(Creator::Initiator, "a"), audio(Creator::Initiator, "v")]);
    assert_eq!(ask(&mut s, now, j).0, None);
    assert_eq!(s.phase(), Phase::Active);
    s
}

fn taken(now: Instant) -> Session {
    let mut s = responder(now);
    s.accept(now, answer(&[audio(Creator::Initiator, "a"), audio(Creator::Initiator, "v")]), vec![]).unwrap();
    s.poll_transmit();
    s
}

/// Sends one set; the refusal, if any, and everything that follows the answer.
fn ask(s: &mut Session, now: Instant, jingle: Jingle) -> (Option<Refusal>, Vec<Jingle>) {
    while s.poll_transmit().is_some() {}
    s.handle_input(now, SessionInput::Set { id: "q".into(), jingle: Box::new(jingle) });
    let first = s.poll_transmit().expect("every set is answered");
    assert_eq!(first.id, "q");
    let refusal = match first.body {
        Body::Result => None,
        Body::Error(refusal) => Some(refusal),
        Body::Set(_) => panic!("the answer comes first"),
    };
    (refusal, sets(s))
}

fn sets(s: &mut Session) -> Vec<Jingle> {
    std::iter::from_fn(|| s.poll_transmit())
        .filter_map(|t| match t.body {
            Body::Set(j) => Some(*j),
            _ => None,
        })
        .collect()
}

fn events(s: &mut Session) -> Vec<SessionEvent> {
    std::iter::from_fn(|| s.poll_event()).collect()
}

fn ended(s: &Session) -> &End {
    s.end().expect("it has ended")
}

fn plausible(action: Action, contents: Vec<Content>) -> Jingle {
    let mut j = Jingle::new(action, Sid("s".into()));
    j.contents = match action {
        Action::SessionTerminate | Action::SessionInfo | Action::SecurityInfo => vec![],
        Action::ContentAdd => contents.into_iter().map(|c| Content { name: "new".into(), ..c }).collect(),
        _ => contents,
    };
    j
}

fn refusal_name(refusal: &Option<Refusal>) -> &'static str {
    match refusal {
        None => "ok",
        Some(r) => match (r.answer.condition, r.answer.kind, r.answer.jingle) {
            (StanzaCondition::UnexpectedRequest, ErrorType::Wait, Some(JingleCondition::OutOfOrder)) => "ooo",
            (StanzaCondition::ItemNotFound, ErrorType::Cancel, Some(JingleCondition::UnknownSession)) => "unk",
            (StanzaCondition::Conflict, ErrorType::Cancel, Some(JingleCondition::TieBreak)) => "tie",
            (StanzaCondition::BadRequest, _, None) => "bad",
            (StanzaCondition::ItemNotFound, ErrorType::Cancel, None) => "content",
            (StanzaCondition::FeatureNotImplemented, ErrorType::Modify, Some(JingleCondition::UnsupportedInfo)) => {
                "info"
            }
            (StanzaCondition::ResourceConstraint, ErrorType::Wait, None) => "full",
            (StanzaCondition::ServiceUnavailable, ErrorType::Cancel, None) => "nobody",
            (StanzaCondition::Redirect, ErrorType::Modify, None) => "redirect",
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn every_action_meets_what_the_table_says_in_every_state_from_both_sides() {
    let now = Instant::now();
    // Pending from I, pending from R, active from I, active from R, ended: nothing pending that could be answered.
    let rows: [(Action, [&str; 5]); 15] = [
        (Action::SessionInitiate, ["ooo", "tie", "ooo", "ooo", "ooo"]),
        (Action::SessionAccept, ["ooo", "ok", "ooo", "ooo", "unk"]),
        (Action::SessionTerminate, ["ok", "ok", "ok", "ok", "unk"]),
        (Action::SessionInfo, ["ok", "ok", "ok", "ok", "unk"]),
        (Action::ContentAdd, ["ok", "ok", "ok", "ok", "unk"]),
        (Action::ContentAccept, ["ooo", "ooo", "ooo", "ooo", "unk"]),
        (Action::ContentReject, ["ooo", "ooo", "ooo", "ooo", "unk"]),
        (Action::ContentModify, ["ok", "ok", "ok", "ok", "unk"]),
        (Action::ContentRemove, ["ok", "ok", "ok", "ok", "unk"]),
        (Action::DescriptionInfo, ["ok", "ok", "ok", "ok", "unk"]),
        (Action::TransportInfo, ["ok", "ok", "ok", "ok", "unk"]),
        (Action::TransportReplace, ["ok", "ok", "ok", "ok", "unk"]),
        (Action::TransportAccept, ["ooo", "ooo", "ooo", "ooo", "unk"]),
        (Action::TransportReject, ["ooo", "ooo", "ooo", "ooo", "unk"]),
        (Action::SecurityInfo, ["ok", "ok", "ok", "ok", "unk"]),
    ];
    for (action, cells) in rows {
        for (column, expected) in cells.into_iter().enumerate() {
            let mut s = match column {
                0 => responder(now),
                1 => initiator(now),
                2 => taken(now),
                3 => accepted(now),
                _ => {
                    let mut s = accepted(now);
                    s.hang_up(now, None).unwrap();
                    s
                }
            };
            let consent = s.consented();
            let jingle = plausible(action, answer(&[audio(Creator::Initiator, "a")]));
            let (refusal, _) = ask(&mut s, now, jingle);
            assert_eq!(refusal_name(&refusal), expected, "{action} in column {column}");
            assert!(consent || !s.consented(), "{action} in column {column} made consent");
        }
    }
}

#[test]
fn an_answer_to_a_pending_request_is_taken_from_both_sides_and_only_once() {
    let now = Instant::now();
    for make in [initiator, responder, accepted, taken] {
        let mut s = make(now);
        let role = s.role();
        let key = ContentKey { creator: role.creator(), name: "new".into() };
        s.content_add(now, vec![content(role.creator(), "new", "video", Setup::Actpass)]).unwrap();
        let reply =
            |action| plausible(action, answer(&[Content { name: "new".into(), ..audio(role.creator(), "new") }]));
        assert_eq!(ask(&mut s, now, reply(Action::ContentAccept)).0, None);
        assert_eq!(refusal_name(&ask(&mut s, now, reply(Action::ContentAccept)).0), "ooo");
        assert_eq!(refusal_name(&ask(&mut s, now, reply(Action::ContentReject)).0), "ooo");
        assert!(events(&mut s).iter().any(|e| matches!(e, SessionEvent::ContentAccepted { .. })));

        let transport = audio(role.creator(), "new").transport.unwrap();
        s.transport_replace(now, &key, transport.clone()).unwrap();
        assert_eq!(ask(&mut s, now, reply(Action::TransportAccept)).0, None);
        assert_eq!(refusal_name(&ask(&mut s, now, reply(Action::TransportAccept)).0), "ooo");
        s.transport_replace(now, &key, transport).unwrap();
        assert_eq!(ask(&mut s, now, reply(Action::TransportReject)).0, None);
        assert_eq!(refusal_name(&ask(&mut s, now, reply(Action::TransportReject)).0), "ooo");
    }
}

#[test]
fn senders_read_from_both_sides_as_the_standard_says() {
    let rows = [
        (Senders::Both, Direction::SendRecv, Direction::SendRecv),
        (Senders::Initiator, Direction::SendOnly, Direction::RecvOnly),
        (Senders::Responder, Direction::RecvOnly, Direction::SendOnly),
        (Senders::None, Direction::Inactive, Direction::Inactive),
    ];
    for (value, initiator, responder) in rows {
        assert_eq!(direction(value, Role::Initiator), initiator);
        assert_eq!(direction(value, Role::Responder), responder);
        assert_eq!(senders(initiator, Role::Initiator), value);
        assert_eq!(senders(responder, Role::Responder), value);
    }
}

#[test]
fn a_malformed_offer_makes_no_session() {
    let now = Instant::now();
    let parties = Parties { local: jid(JULIET), peer: jid(ROMEO), sid: Sid("s".into()), serial: 2 };
    let bare = Content { description: None, ..audio(Creator::Initiator, "a") };
    let nowhere = Content { transport: None, ..audio(Creator::Initiator, "a") };
    let early = Content { disposition: Disposition::EarlySession, ..audio(Creator::Initiator, "a") };
    for contents in [vec![], vec![bare], vec![nowhere], vec![early]] {
        let made = Session::respond(now, parties.clone(), context(), "q".into(), offer(contents));
        assert_eq!(made.unwrap_err(), offhook::fault::PeerFault::BadRequest);
    }
    let many = (0..17).map(|n| audio(Creator::Initiator, &n.to_string())).collect();
    let made = Session::respond(now, parties, context(), "q".into(), offer(many));
    assert_eq!(made.unwrap_err(), offhook::fault::PeerFault::NoResources);
}

#[test]
fn what_cannot_work_is_acknowledged_and_then_terminated_with_its_reason() {
    let now = Instant::now();
    let odd = Content { description: Some(Description::Unknown { ns: "x".into() }), ..audio(Creator::Initiator, "a") };
    let off = Content { transport: Some(Transport::Unknown { ns: "x".into() }), ..audio(Creator::Initiator, "a") };
    for (content, reason) in
        [(odd, ReasonCondition::UnsupportedApplications), (off, ReasonCondition::UnsupportedTransports)]
    {
        let mut s = respond(now, SessionContext::default(), offer(vec![content]));
        assert_eq!(s.poll_transmit().unwrap().body, Body::Result);
        let sent = sets(&mut s);
        assert_eq!(sent[0].reason.as_ref().unwrap().condition, reason);
        assert!(!events(&mut s).iter().any(|e| matches!(e, SessionEvent::Incoming { .. })));
    }
}

#[test]
fn dtls_srtp_is_not_optional_complaint_2() {
    let now = Instant::now();
    let mut plain = audio(Creator::Initiator, "voice");
    let Some(Transport::Ice(ice)) = &mut plain.transport else { panic!() };
    ice.fingerprints.clear();
    let mut sdes = plain.clone();
    let Some(Description::Rtp(rtp)) = &mut sdes.description else { panic!() };
    rtp.encryption = Some(Encryption {
        required: true,
        cryptos: vec![Crypto { tag: "1".into(), suite: "s".into(), key_params: "k".into(), session_params: None }],
    });
    for content in [plain.clone(), sdes.clone()] {
        let mut s = respond(now, SessionContext::default(), offer(vec![content]));
        s.poll_transmit();
        let reason = sets(&mut s)[0].reason.clone().unwrap();
        assert_eq!(reason.condition, ReasonCondition::SecurityError);
        assert!(reason.text.unwrap().contains("'voice'"));
    }
    let mut open = SessionContext::default();
    open.policy.require_dtls = false;
    assert_eq!(respond(now, open.clone(), offer(vec![plain.clone()])).phase(), Phase::Pending);
    assert_eq!(respond(now, open, offer(vec![sdes])).phase(), Phase::Ended);
    // A downgrade in the answer ends the call, too.
    let mut s = initiator(now);
    let mut j = Jingle::new(Action::SessionAccept, Sid("s".into()));
    j.contents = vec![Content { name: "a".into(), ..plain }];
    let (refusal, sent) = ask(&mut s, now, j);
    assert_eq!(refusal, None);
    assert_eq!(sent[0].reason.as_ref().unwrap().condition, ReasonCondition::SecurityError);
    assert!(!events(&mut s).iter().any(|e| matches!(e, SessionEvent::Accepted { .. })));
}

fn empty_offer() -> Jingle {
    let mut c = audio(Creator::Initiator, "a");
    c.transport = Some(Transport::Ice(Box::default()));
    offer(vec![c])
}

#[test]
fn a_fingerprint_may_follow_an_empty_transport_complaint_3() {
    let now = Instant::now();
    let mut s = respond(now, SessionContext::default(), empty_offer());
    assert_eq!(events(&mut s), vec![]);
    let mut j = Jingle::new(Action::TransportInfo, Sid("s".into()));
    j.contents = vec![Content { description: None, ..audio(Creator::Initiator, "a") }];
    assert_eq!(ask(&mut s, now, j).0, None);
    let told = events(&mut s);
    assert!(matches!(told[0], SessionEvent::Incoming { .. }));
    assert!(
        matches!(&told[1], SessionEvent::RemoteTransport { transport, restart: false, .. } if transport.creds().is_some())
    );

    let mut s = respond(now, SessionContext::default(), empty_offer());
    let (at, why) = s.poll_timeout().unwrap();
    assert_eq!(why, Why::Fingerprint);
    s.handle_timeout(at);
    assert_eq!(ended(&s).reason, ReasonCondition::SecurityError);

    // In an answer: it came early by transport-info, and the accept need not repeat it.
    let mut s = initiator(now);
    let mut early = Jingle::new(Action::TransportInfo, Sid("s".into()));
    early.contents = vec![Content { description: None, ..audio(Creator::Initiator, "a") }];
    assert_eq!(ask(&mut s, now, early).0, None);
    let mut j = Jingle::new(Action::SessionAccept, Sid("s".into()));
    let mut bare = audio(Creator::Initiator, "a");
    bare.transport = Some(Transport::Ice(Box::default()));
    j.contents = vec![bare];
    assert_eq!(ask(&mut s, now, j).0, None);
    assert_eq!(s.phase(), Phase::Active);
}

#[test]
fn an_answer_of_ours_has_taken_its_dtls_role_complaint_3() {
    let now = Instant::now();
    let mut s = responder(now);
    let both = vec![audio(Creator::Initiator, "a")];
    assert_eq!(s.accept(now, both, vec![]), Err(Misuse::Incomplete));
    assert!(!s.consented());
}

#[test]
fn a_fingerprint_changes_only_with_a_restart() {
    let now = Instant::now();
    let mut s = accepted(now);
    let mut j = Jingle::new(Action::TransportInfo, Sid("s".into()));
    let mut c = Content { description: None, ..audio(Creator::Initiator, "a") };
    let Some(Transport::Ice(ice)) = &mut c.transport else { panic!() };
    ice.fingerprints[0].value = vec![9; 32];
    j.contents = vec![c.clone()];
    assert_eq!(refusal_name(&ask(&mut s, now, j.clone()).0), "bad");
    let Some(Transport::Ice(ice)) = &mut c.transport else { panic!() };
    (ice.ufrag, ice.pwd) = (Some("new".into()), Some("new".into()));
    j.contents = vec![c];
    assert_eq!(ask(&mut s, now, j).0, None);
    assert!(events(&mut s).iter().any(|e| matches!(e, SessionEvent::RemoteTransport { restart: true, .. })));
}

fn trickle(candidates: usize, malformed: usize) -> Jingle {
    let candidate = Candidate {
        component: 1,
        foundation: "1".into(),
        generation: 0,
        id: None,
        addr: CandidateAddr::Ip([192, 0, 2, 1].into()),
        port: 9,
        priority: 1,
        protocol: CandidateProtocol::Udp,
        tcptype: None,
        kind: CandidateKind::Host,
        related: None,
        network: None,
    };
    let ice = IceTransport {
        ufrag: Some("ufrag".into()),
        candidates: vec![candidate; candidates],
        malformed_candidates: malformed,
        ..IceTransport::default()
    };
    let mut j = Jingle::new(Action::TransportInfo, Sid("s".into()));
    let key = ContentKey { creator: Creator::Initiator, name: "a".into() };
    j.contents = vec![Content { transport: Some(Transport::Ice(Box::new(ice))), ..key.element() }];
    j
}

#[test]
fn trickle_out_of_order_is_never_fatal_complaint_12() {
    let now = Instant::now();
    // Before our initiate was acknowledged, and before the accept.
    let mut s = initiator(now);
    assert_eq!(ask(&mut s, now, trickle(1, 0)).0, None);
    assert!(matches!(&events(&mut s)[..], [SessionEvent::RemoteTransport { .. }]));
    // After the end.
    s.hang_up(now, None).unwrap();
    assert_eq!(refusal_name(&ask(&mut s, now, trickle(1, 0)).0), "unk");
    // For a content that is not there, and with candidates that cannot be read.
    let mut s = accepted(now);
    let mut odd = trickle(1, 0);
    odd.contents[0].name = "zzz".into();
    assert_eq!(refusal_name(&ask(&mut s, now, odd).0), "content");
    assert_eq!(refusal_name(&ask(&mut s, now, trickle(0, 2)).0), "bad");
    assert_eq!(ask(&mut s, now, trickle(1, 2)).0, None);
    assert_eq!(s.phase(), Phase::Active);
}

#[test]
fn candidates_past_the_cap_are_not_handed_on() {
    let now = Instant::now();
    let mut s = accepted(now);
    events(&mut s);
    for _ in 0..3 {
        ask(&mut s, now, trickle(20, 0));
    }
    let handed: usize = events(&mut s)
        .iter()
        .map(|e| match e {
            SessionEvent::RemoteTransport { transport, .. } => transport.candidates.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(handed, 32);
}

#[test]
fn flipped_creators_and_missing_senders_are_understood_complaint_13() {
    let now = Instant::now();
    let mut s = initiator(now);
    let mut j = Jingle::new(Action::SessionAccept, Sid("s".into()));
    let mut c = answer(&[audio(Creator::Responder, "a")]);
    c[0].senders = None;
    j.contents = c;
    assert_eq!(ask(&mut s, now, j).0, None);
    let told = events(&mut s);
    let SessionEvent::Accepted { contents, .. } = &told[0] else { panic!() };
    assert_eq!(contents[0].creator, Creator::Initiator);
    let mut j = Jingle::new(Action::ContentModify, Sid("s".into()));
    j.contents = vec![ContentKey { creator: Creator::Initiator, name: "a".into() }.element()];
    let mut held = j.clone();
    held.contents[0].senders = Some(Senders::Initiator);
    for (modify, meant) in [(held, Senders::Initiator), (j, Senders::Both)] {
        assert_eq!(ask(&mut s, now, modify).0, None);
        let SessionEvent::ContentModified { senders, .. } = &events(&mut s)[0] else { panic!() };
        assert_eq!(*senders, meant);
    }
}

#[test]
fn two_stubborn_sides_come_to_rest_and_may_change_their_mind_later() {
    let start = Instant::now();
    let a = ContentKey { creator: Creator::Initiator, name: "a".into() };
    let mut s = accepted(start);
    let wish = |s: &mut Session, now, senders| {
        let mut j = Jingle::new(Action::ContentModify, Sid("s".into()));
        j.contents = vec![Content { senders: Some(senders), ..a.element() }];
        assert_eq!(ask(s, now, j).0, None);
    };
    // Nothing of ours is in flight any more, so that no tie hides the counter.
    let flown = |s: &mut Session| {
        while let Some(sent) = s.poll_transmit() {
            s.handle_input(start, SessionInput::Result { id: sent.id });
        }
    };
    wish(&mut s, start, Senders::Initiator);
    s.content_modify(start, &a, Senders::Both).unwrap();
    // Our own change of mind is no answer to the peer.
    s.content_modify(start, &a, Senders::None).unwrap();
    flown(&mut s);
    wish(&mut s, start, Senders::Initiator);
    assert_eq!(s.content_modify(start, &a, Senders::Both), Err(Misuse::Countered));
    assert_eq!(s.content(&a).unwrap().senders, Senders::Initiator);
    let later = start + Duration::from_secs(11);
    s.content_modify(later, &a, Senders::Both).unwrap();
    s.content_modify(later, &a, Senders::None).unwrap();
}

#[test]
fn ours_are_always_complete_complaint_13() {
    let now = Instant::now();
    let parties = Parties { local: jid(ROMEO), peer: jid(JULIET), sid: Sid("s".into()), serial: 1 };
    let loose = Content { senders: None, ..audio(Creator::Responder, "a") };
    let mut s = Session::initiate(now, parties, context(), vec![loose], vec![]).unwrap();
    let sent = sets(&mut s);
    assert_eq!(sent[0].initiator, Some(jid(ROMEO)));
    assert_eq!((sent[0].contents[0].creator, sent[0].contents[0].senders), (Creator::Initiator, Some(Senders::Both)));
    let mut s = responder(now);
    s.accept(now, answer(&[audio(Creator::Initiator, "a")]), vec![]).unwrap();
    let sent = sets(&mut s);
    assert_eq!((sent[0].responder.clone(), &sent[0].initiator), (Some(jid(JULIET)), &None));
}

#[test]
fn every_end_has_a_reason_and_a_text_fit_for_people_complaint_26() {
    let now = Instant::now();
    let mut s = initiator(now);
    s.hang_up(now, None).unwrap();
    assert_eq!(sets(&mut s)[0].reason, Some(Reason::new(ReasonCondition::Cancel)));
    let mut s = responder(now);
    s.hang_up(now, None).unwrap();
    assert_eq!(sets(&mut s)[0].reason, Some(Reason::new(ReasonCondition::Decline)));
    let mut s = accepted(now);
    s.poll_transmit();
    s.hang_up(now, None).unwrap();
    assert_eq!(sets(&mut s)[0].reason, Some(Reason::new(ReasonCondition::Success)));
    for reason in ReasonCondition::ALL {
        let mut s = accepted(now);
        events(&mut s);
        let mut j = Jingle::new(Action::SessionTerminate, Sid("s".into()));
        j.reason = Some(Reason::new(*reason));
        assert_eq!(ask(&mut s, now, j).0, None);
        let [SessionEvent::Ended(end)] = &events(&mut s)[..] else { panic!() };
        assert_eq!((end.reason, end.by), (*reason, EndedBy::Remote));
    }
    let mut s = initiator(now);
    let (at, why) = s.poll_timeout().unwrap();
    assert_eq!((why, at), (Why::Iq, now + Duration::from_secs(30)));
    s.handle_timeout(at);
    let text = sets(&mut s)[0].reason.clone().unwrap();
    assert_eq!((text.condition, text.text.is_some()), (ReasonCondition::Timeout, true));
}

#[test]
fn mute_and_hold_are_shown_complaint_30() {
    let now = Instant::now();
    let mut s = accepted(now);
    let key = ContentKey { creator: Creator::Initiator, name: "a".into() };
    assert!(s.may_send(&key));
    let info = |info| {
        let mut j = Jingle::new(Action::SessionInfo, Sid("s".into()));
        j.info = Some(info);
        j
    };
    events(&mut s);
    assert_eq!(ask(&mut s, now, info(Info::Hold)).0, None);
    assert!(!s.may_send(&key));
    assert_eq!(ask(&mut s, now, info(Info::Mute(Some((Creator::Initiator, "v".into()))))).0, None);
    assert_eq!(ask(&mut s, now, info(Info::Active)).0, None);
    assert!(s.may_send(&key));
    assert!(s.contents().all(|c| !c.remote_quiet.muted));
    assert_eq!(events(&mut s).len(), 3);
    let odd = Info::Unknown { ns: "x".into(), name: "y".into() };
    assert_eq!(refusal_name(&ask(&mut s, now, info(odd)).0), "info");
    assert_eq!(ask(&mut s, now, Jingle::new(Action::SessionInfo, Sid("s".into()))).0, None);
    s.hold(now, true).unwrap();
    s.mute(now, true, Some(&key)).unwrap();
    assert!(!s.may_send(&key));
    s.active(now).unwrap();
    let sent: Vec<Option<Info>> = sets(&mut s).into_iter().map(|j| j.info).collect();
    assert_eq!(sent, [Info::Hold, Info::Mute(Some((Creator::Initiator, "a".into()))), Info::Active].map(Some));
}

#[test]
fn video_is_added_rejected_and_crossed_without_touching_the_audio_complaint_31() {
    let now = Instant::now();
    let film = |role: Role, name: &str| content(role.creator(), name, "video", Setup::Actpass);
    let add = |role: Role, name: &str| {
        let mut j = Jingle::new(Action::ContentAdd, Sid("s".into()));
        j.contents = vec![film(role, name)];
        j
    };
    // Crossed: the initiator's stands.
    let (mut i, mut r) = (accepted(now), taken(now));
    i.content_add(now, vec![film(Role::Initiator, "x")]).unwrap();
    r.content_add(now, vec![film(Role::Responder, "y")]).unwrap();
    assert_eq!(refusal_name(&ask(&mut i, now, add(Role::Responder, "y")).0), "tie");
    events(&mut r);
    assert_eq!(ask(&mut r, now, add(Role::Initiator, "x")).0, None);
    let told = events(&mut r);
    assert!(matches!(&told[0], SessionEvent::ContentRejected { content, reason: None } if content.name == "y"));
    assert!(matches!(&told[1], SessionEvent::ContentAdded { .. }));
    let x = ContentKey { creator: Creator::Initiator, name: "x".into() };
    r.content_reject(now, &x, Reason::new(ReasonCondition::Decline)).unwrap();
    let reject = sets(&mut r).pop().unwrap();
    assert_eq!(ask(&mut i, now, reject).0, None);
    for s in [&i, &r] {
        assert_eq!(s.contents().count(), 2);
        assert!(s.may_send(&ContentKey { creator: Creator::Initiator, name: "a".into() }));
    }
    // What is not supported or not protected is refused without asking.
    let mut j = add(Role::Initiator, "z");
    j.contents[0].description = Some(Description::Unknown { ns: "x".into() });
    let (refusal, sent) = ask(&mut r, now, j);
    assert_eq!((refusal, sent[0].action), (None, Action::ContentReject));
}

#[test]
fn crossed_changes_inside_a_session_end_the_same_on_both_sides_in_both_orders() {
    let now = Instant::now();
    let a = ContentKey { creator: Creator::Initiator, name: "a".into() };
    for initiator_first in [true, false] {
        let (mut i, mut r) = (accepted(now), taken(now));
        // What was sent before is answered, so that only the crossing is left.
        for s in [&mut i, &mut r] {
            while s.poll_transmit().is_some() {}
        }
        i.content_modify(now, &a, Senders::Initiator).unwrap();
        r.content_modify(now, &a, Senders::None).unwrap();
        let (to_r, to_i) = (i.poll_transmit().unwrap(), r.poll_transmit().unwrap());
        let (Body::Set(ours), Body::Set(theirs)) = (to_r.body, to_i.body) else { panic!() };
        let input = |jingle: Box<Jingle>| SessionInput::Set { id: "q".into(), jingle };
        if initiator_first {
            r.handle_input(now, input(ours));
            i.handle_input(now, input(theirs));
        } else {
            i.handle_input(now, input(theirs));
            r.handle_input(now, input(ours));
        }
        assert_eq!(r.poll_transmit().unwrap().body, Body::Result);
        assert!(
            matches!(i.poll_transmit().unwrap().body, Body::Error(e) if e.answer.jingle == Some(JingleCondition::TieBreak))
        );
        let error = IqError {
            condition: Some(StanzaCondition::Conflict),
            jingle: Some(JingleCondition::TieBreak),
            redirect: None,
        };
        r.handle_input(now, SessionInput::Error { id: to_i.id, error });
        assert_eq!(i.content(&a).unwrap().senders, Senders::Initiator);
        assert_eq!(r.content(&a).unwrap().senders, Senders::Initiator);
        // One counter at most (J166-37).
        assert_eq!(r.content_modify(now, &a, Senders::Both), Err(Misuse::Countered));
        r.content_modify(now + Duration::from_secs(11), &a, Senders::Both).unwrap();
    }
}

#[test]
fn simultaneous_ice_restarts_end_with_the_initiators() {
    let now = Instant::now();
    let a = ContentKey { creator: Creator::Initiator, name: "a".into() };
    let fresh = |u: &str| IceTransport { ufrag: Some(u.into()), pwd: Some("p".into()), ..IceTransport::default() };
    let (mut i, mut r) = (accepted(now), taken(now));
    for s in [&mut i, &mut r] {
        while s.poll_transmit().is_some() {}
        events(s);
    }
    i.send_transport_info(now, &a, fresh("i2")).unwrap();
    r.send_transport_info(now, &a, fresh("r2")).unwrap();
    let (Body::Set(ours), Body::Set(theirs)) = (i.poll_transmit().unwrap().body, r.poll_transmit().unwrap().body)
    else {
        panic!()
    };
    assert_eq!(refusal_name(&ask(&mut i, now, *theirs).0), "tie");
    assert_eq!(ask(&mut r, now, *ours).0, None);
    assert!(matches!(&events(&mut r)[..], [SessionEvent::RemoteTransport { restart: true, .. }]));
    i.handle_input(now, SessionInput::Result { id: "j1.1".into() });
    // The responder's answer is not a restart again.
    r.send_transport_info(now, &a, fresh("r3")).unwrap();
    let reply = sets(&mut r).pop().unwrap();
    assert_eq!(ask(&mut i, now, reply).0, None);
    assert!(matches!(&events(&mut i)[..], [SessionEvent::RemoteTransport { restart: false, .. }]));
}

#[test]
fn a_responders_candidates_wait_for_the_user() {
    let now = Instant::now();
    let a = ContentKey { creator: Creator::Initiator, name: "a".into() };
    let ice = trickle(1, 0).contents.remove(0).transport;
    let Some(Transport::Ice(ice)) = ice else { panic!() };
    let ice = IceTransport { pwd: Some("p".into()), ..*ice };
    let mut s = responder(now);
    s.send_transport_info(now, &a, ice.clone()).unwrap();
    s.send_transport_info(now, &a, ice.clone()).unwrap();
    assert_eq!(sets(&mut s), vec![]);
    s.accept(now, answer(&[audio(Creator::Initiator, "a")]), vec![]).unwrap();
    let sent = sets(&mut s);
    assert_eq!(sent.iter().map(|j| j.action).collect::<Vec<_>>(), [Action::SessionAccept, Action::TransportInfo]);
    let Some(Transport::Ice(held)) = &sent[1].contents[0].transport else { panic!() };
    assert_eq!(held.candidates.len(), 2);
    let mut open = SessionContext::default();
    open.policy.early_transport = true;
    let mut s = respond(now, open, offer(vec![audio(Creator::Initiator, "a")]));
    s.poll_transmit();
    s.send_transport_info(now, &a, ice).unwrap();
    assert_eq!(sets(&mut s).len(), 1);
    assert!(!s.consented());
}

#[test]
fn the_answer_group_is_part_of_the_offer_group() {
    let now = Instant::now();
    let mut s = initiator(now);
    let mut j = Jingle::new(Action::SessionAccept, Sid("s".into()));
    j.contents = answer(&[audio(Creator::Initiator, "a"), audio(Creator::Initiator, "v")]);
    j.groups = vec![
        Group { semantics: "BUNDLE".into(), names: vec!["a".into(), "v".into(), "q".into()] },
        Group { semantics: "LS".into(), names: vec!["a".into()] },
    ];
    ask(&mut s, now, j);
    assert_eq!(s.groups(), [Group { semantics: "BUNDLE".into(), names: vec!["a".into(), "v".into()] }]);
    s.content_remove(now, &ContentKey { creator: Creator::Initiator, name: "a".into() }, None).unwrap();
    assert_eq!(s.groups()[0].names, ["v"]);
}

#[test]
fn the_last_content_taken_out_ends_the_session() {
    let now = Instant::now();
    let mut s = accepted(now);
    for (name, ends) in [("a", false), ("v", true)] {
        let mut j = Jingle::new(Action::ContentRemove, Sid("s".into()));
        j.contents = vec![ContentKey { creator: Creator::Initiator, name: name.into() }.element()];
        let (refusal, sent) = ask(&mut s, now, j);
        assert_eq!(refusal, None);
        assert_eq!(sent.iter().any(|j| j.action == Action::SessionTerminate), ends);
    }
}

#[test]
fn an_unavailable_peer_that_stays_silent_is_gone() {
    let now = Instant::now();
    let mut s = accepted(now);
    s.peer_unavailable(now);
    let later = now + Duration::from_secs(5);
    s.traffic(later);
    assert_eq!(s.poll_timeout(), Some((later + Duration::from_secs(8), Why::Unavailable)));
    s.peer_available();
    assert_eq!(s.poll_timeout(), None);
    s.peer_unavailable(later);
    s.handle_timeout(later + Duration::from_secs(8));
    assert_eq!((ended(&s).reason, ended(&s).by), (ReasonCondition::Gone, EndedBy::Timeout));
}

#[test]
fn an_error_is_an_error_whatever_it_holds_complaint_39() {
    let now = Instant::now();
    let mut s = initiator(now);
    s.handle_input(now, SessionInput::Error { id: "j1.0".into(), error: IqError::default() });
    assert_eq!(ended(&s).by, EndedBy::Refused(None));
    assert_eq!(sets(&mut s), vec![], "a refused offer is not terminated");
    // Inside a session it leaves the session alone, but an unknown session ends here, too.
    let mut s = accepted(now);
    s.poll_transmit();
    s.hold(now, true).unwrap();
    let id = s.poll_transmit().unwrap().id;
    s.handle_input(now, SessionInput::Error { id, error: IqError::default() });
    assert_eq!(s.phase(), Phase::Active);
    assert!(events(&mut s).contains(&SessionEvent::InfoUnsupported));
    s.ping(now).unwrap();
    let id = s.poll_transmit().unwrap().id;
    let error = IqError { jingle: Some(JingleCondition::UnknownSession), ..IqError::default() };
    s.handle_input(now, SessionInput::Error { id, error });
    assert_eq!(s.phase(), Phase::Ended);
}

#[test]
fn a_redirect_counts_only_to_the_same_person() {
    let now = Instant::now();
    for (target, followed) in [("xmpp:juliet@capulet.example/hall", true), ("xmpp:paris@verona.example/x", false)] {
        let mut s = initiator(now);
        let error = IqError { condition: Some(StanzaCondition::Redirect), jingle: None, redirect: Some(target.into()) };
        s.handle_input(now, SessionInput::Error { id: "j1.0".into(), error });
        assert_eq!(ended(&s).redirect.is_some(), followed);
    }
}

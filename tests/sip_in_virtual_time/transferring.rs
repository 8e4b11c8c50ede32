//! REFER and Replaces.

use crate::phone::*;
use offhook::sip::exchange::Heard;
use offhook::sip::session::{Context, EndCause, Invitation, Misuse, Policy, ReferralId, SessionEvent, TransferStep};
use offhook::wire::sip::{
    CallId, ContentType, Event, Header, Method, NameAddr, Params, Replaces, Request, SipText, SubscriptionState, Tag,
    Token,
};

fn phone() -> Phone {
    Phone::new(Context::default())
}

fn open_phone() -> Phone {
    let policy = Policy { referrals: true, replaces: true, ..Policy::default() };
    Phone::new(Context { policy, ..Context::default() })
}

fn notify(peer: &mut Peer, state: &str, line: &str) -> Request {
    let mut request = peer.request(Method::Notify);
    request.headers.push(Header::Event(Event { package: Token::lossy("refer"), params: Params::default() }));
    let state = SubscriptionState { state: Token::lossy(state), params: Params::default() };
    request.headers.push(Header::SubscriptionState(state));
    request.set_body(
        ContentType::new("message/sipfrag;version=2.0").or(ContentType::new("message/sipfrag")).unwrap(),
        line.as_bytes().to_vec(),
    );
    request
}

#[test]
fn a_blind_transfer_tells_how_far_it_is() {
    let mut phone = phone();
    let (session, _, mut peer) = phone.call_up();
    phone.act(|s, now| s.refer(now, session, addr("sip:carol@c.test"))).unwrap();
    assert!(phone.act(|s, now| s.refer(now, session, addr("sip:dave@c.test"))).is_err());
    let (id, refer) = phone.request(Method::Refer);
    assert_eq!(refer.headers.refer_to().unwrap().uri.to_string(), "sip:carol@c.test");
    assert_eq!(refer.headers.referred_by().unwrap().uri.to_string(), "sip:alice@a.test");
    phone.answer(id, answer(&refer, 202, "bob"));
    assert_eq!(phone.event(), SessionEvent::Transfer(TransferStep::Accepted));
    for (state, line, told) in [
        ("active", "SIP/2.0 100 Trying\r\n", Some(TransferStep::Progress(status(100)))),
        ("active", "SIP/2.0 180 Ringing\r\n", Some(TransferStep::Progress(status(180)))),
        ("active", "SIP/2.0 180 Ringing\r\n", None),
        ("terminated", "SIP/2.0 200 OK\r\n", Some(TransferStep::Finished(status(200)))),
        ("terminated", "SIP/2.0 200 OK\r\n", None),
    ] {
        let id = phone.receive(notify(&mut peer, state, line));
        assert_eq!(phone.response(id).status.code(), 200);
        match told {
            Some(step) => assert_eq!(phone.event(), SessionEvent::Transfer(step)),
            None => phone.quiet(),
        }
    }
}

#[test]
fn a_transfer_that_is_refused_or_never_told_about_is_over() {
    let mut phone = phone();
    let (session, _, _) = phone.call_up();
    phone.act(|s, now| s.refer(now, session, addr("sip:carol@c.test"))).unwrap();
    let (id, refer) = phone.request(Method::Refer);
    phone.answer(id, answer(&refer, 603, "bob"));
    assert_eq!(phone.event(), SessionEvent::Transfer(TransferStep::Refused(Some(status(603)))));
    phone.act(|s, now| s.refer(now, session, addr("sip:carol@c.test"))).unwrap();
    let (id, refer) = phone.request(Method::Refer);
    phone.answer(id, answer(&refer, 202, "bob"));
    phone.event();
    phone.wait(secs(180));
    assert_eq!(phone.event(), SessionEvent::Transfer(TransferStep::Refused(None)));
    // Without a subscription (RFC 4488).
    phone.act(|s, now| s.refer(now, session, addr("sip:carol@c.test"))).unwrap();
    let (id, refer) = phone.request(Method::Refer);
    let mut silent = answer(&refer, 200, "bob");
    silent.headers.push(Header::Other(Token::lossy("Refer-Sub"), SipText::new("false")));
    phone.answer(id, silent);
    assert_eq!(phone.event(), SessionEvent::Transfer(TransferStep::AcceptedSilently));
}

#[test]
fn an_attended_transfer_names_the_dialog_that_is_replaced() {
    let mut phone = phone();
    let (first, _, _) = phone.call_up();
    let invitation = Invitation::new(local("alice"), addr("sip:carol@c.test"), Some(sdp("alice", 1, "sendrecv")));
    let second = phone.act(|s, now| s.invite(now, invitation)).unwrap();
    let (id, invite) = phone.request(Method::Invite);
    assert_eq!(phone.act(|s, now| s.refer_to_session(now, first, second)), Err(Misuse::NotUp));
    phone.answer(id, with_sdp(answer(&invite, 200, "carol"), &sdp("carol", 1, "sendrecv")));
    phone.ack();
    phone.act(|s, now| s.refer_to_session(now, first, second)).unwrap();
    let (_, refer) = phone.request(Method::Refer);
    let to = refer.headers.refer_to().unwrap().uri.to_string();
    let call_id = invite.headers.call_id.as_str();
    let from_tag = invite.headers.from.tag().unwrap();
    assert_eq!(
        to,
        format!("sip:carol@198.51.100.7?Replaces={call_id}%3Bto-tag%3Dcarol%3Bfrom-tag%3D{}", from_tag.as_str())
    );
}

#[test]
fn a_referral_is_declined_unless_policy_lets_it_through() {
    let mut phone = phone();
    let (_, mut peer) = phone.called_up();
    let mut refer = peer.request(Method::Refer);
    refer.headers.push(Header::ReferTo(addr("sip:+1900555@premium.test")));
    let id = phone.receive(refer);
    assert_eq!(phone.response(id).status.code(), 603);
    phone.quiet();
}

fn referred(phone: &mut Phone, peer: &mut Peer, to: &str) -> offhook::sip::exchange::ServerId {
    let mut refer = peer.request(Method::Refer);
    refer.headers.push(Header::ReferTo(addr(to)));
    refer.headers.push(Header::ReferredBy(addr("sip:bob@b.test")));
    phone.receive(refer)
}

#[test]
fn a_referral_that_is_taken_is_reported_until_its_end() {
    let mut phone = open_phone();
    let (session, mut peer) = phone.called_up();
    let id = referred(&mut phone, &mut peer, "sip:carol@c.test?Replaces=abc%3Bto-tag%3D1%3Bfrom-tag%3D2&Subject=x");
    let replaces = Replaces {
        call_id: CallId::lossy("abc"),
        to_tag: Tag::lossy("1"),
        from_tag: Tag::lossy("2"),
        early_only: false,
    };
    assert_eq!(
        phone.event(),
        SessionEvent::Referred {
            id: ReferralId(1),
            to: Box::new(addr("sip:carol@c.test")),
            replaces: Some(Box::new(replaces)),
            referred_by: Some(Box::new(addr("sip:bob@b.test"))),
        }
    );
    phone.silent();
    // One at a time.
    let second = referred(&mut phone, &mut peer, "sip:dave@c.test");
    assert_eq!(phone.response(second).status.code(), 491);
    phone.act(|s, now| s.take_referral(now, session, ReferralId(1))).unwrap();
    assert_eq!(phone.response(id).status.code(), 202);
    let (trying_id, trying) = phone.request(Method::Notify);
    assert_eq!(body(&trying.body), "SIP/2.0 100 Trying\r\n");
    assert!(trying.headers.subscription_state().unwrap().state.is("active"));
    assert!(trying.headers.event().unwrap().package.is("refer"));
    // Those that follow wait for its answer, and only the newest is told.
    phone.act(|s, now| s.notify_referral(now, session, ReferralId(1), status(180))).unwrap();
    phone.act(|s, now| s.notify_referral(now, session, ReferralId(1), status(200))).unwrap();
    phone.silent();
    phone.answer(trying_id, answer(&trying, 200, "bob"));
    let (last_id, last) = phone.request(Method::Notify);
    assert_eq!(body(&last.body), "SIP/2.0 200 OK\r\n");
    assert!(last.headers.subscription_state().unwrap().state.is("terminated"));
    phone.answer(last_id, answer(&last, 200, "bob"));
    assert_eq!(
        phone.act(|s, now| s.notify_referral(now, session, ReferralId(1), status(200))),
        Err(Misuse::NoReferral)
    );
}

#[test]
fn a_transfer_is_reported_even_after_the_bye_of_who_asked_for_it() {
    let mut phone = open_phone();
    let (session, mut peer) = phone.called_up();
    let id = referred(&mut phone, &mut peer, "sip:carol@c.test");
    phone.act(|s, now| s.take_referral(now, session, ReferralId(1))).unwrap();
    phone.response(id);
    let (first_id, first) = phone.request(Method::Notify);
    phone.answer(first_id, answer(&first, 200, "bob"));
    let bye = phone.receive(peer.request(Method::Bye));
    assert_eq!(phone.response(bye).status.code(), 200);
    assert_eq!((phone.sessions.len(), phone.sessions.lingering()), (0, 1));
    phone.act(|s, now| s.notify_referral(now, session, ReferralId(1), status(486))).unwrap();
    let (last_id, last) = phone.request(Method::Notify);
    assert!(last.headers.cseq.number > first.headers.cseq.number);
    phone.answer(last_id, answer(&last, 200, "bob"));
    assert_eq!(phone.sessions.lingering(), 0);
}

#[test]
fn a_referral_that_nobody_answers_is_declined_and_one_that_nobody_reports_ends() {
    let mut phone = open_phone();
    let (session, mut peer) = phone.called_up();
    let id = referred(&mut phone, &mut peer, "sip:carol@c.test");
    phone.wait(secs(10));
    assert_eq!(phone.response(id).status.code(), 603);
    phone.events.clear();
    let id = referred(&mut phone, &mut peer, "sip:carol@c.test");
    phone.act(|s, now| s.take_referral(now, session, ReferralId(2))).unwrap();
    phone.response(id);
    let (first_id, first) = phone.request(Method::Notify);
    phone.answer(first_id, answer(&first, 200, "bob"));
    phone.wait(secs(180));
    let (_, last) = phone.request(Method::Notify);
    assert!(body(&last.body).starts_with("SIP/2.0 408"));
    assert!(last.headers.subscription_state().unwrap().state.is("terminated"));
    let id = referred(&mut phone, &mut peer, "sip:x@c.test");
    assert_eq!(phone.response(id).status.code(), 491);
}

fn replacing(replaces: Replaces) -> Request {
    let (mut invite, _) = invite_of("transferred", Some(&sdp("carol", 1, "sendrecv")));
    invite.headers.from = addr("sip:carol@c.test").with_tag(&Tag::lossy("carol"));
    invite.headers.push(Header::Replaces(replaces));
    invite
}

fn names(request: &Request, early_only: bool) -> Replaces {
    Replaces {
        call_id: request.headers.call_id.clone(),
        to_tag: request.headers.from.tag().unwrap(),
        from_tag: Tag::lossy("bob"),
        early_only,
    }
}

#[test]
fn an_accepted_replacement_ends_the_call_it_replaces() {
    let mut phone = open_phone();
    let (old, id, invite) = phone.call();
    phone.answer(id, with_sdp(answer(&invite, 200, "bob"), &sdp("bob", 1, "sendrecv")));
    phone.ack();
    phone.events.clear();
    let server = phone.receive(replacing(names(&invite, false)));
    let SessionEvent::Incoming(incoming) = phone.event() else { panic!("no call") };
    assert_eq!(incoming.replaces, Some(old));
    let new = offhook::sip::sessions::SessionId(old.0 + 1);
    phone.act(|s, now| s.accept(now, new, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    assert_eq!(phone.response(server).status.code(), 200);
    phone.request(Method::Bye);
    assert_eq!(phone.end().cause, EndCause::Replaced);
}

#[test]
fn a_replacement_of_a_call_that_still_rings_cancels_it() {
    let mut phone = open_phone();
    let (_, id, invite) = phone.call();
    phone.answer(id, answer(&invite, 180, "bob"));
    phone.events.clear();
    let server = phone.receive(replacing(names(&invite, true)));
    let Some((new, SessionEvent::Incoming(_))) = phone.events.pop_front() else { panic!("no call") };
    phone.act(|s, now| s.accept(now, new, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    assert_eq!(phone.response(server).status.code(), 200);
    assert_eq!(phone.cancel(), id);
}

#[test]
fn a_replacement_that_fits_nothing_is_refused_as_the_rfc_says() {
    let mut closed = phone();
    let (_, id, invite) = closed.call();
    closed.answer(id, answer(&invite, 180, "bob"));
    let server = closed.receive(replacing(names(&invite, false)));
    assert_eq!(closed.response(server).status.code(), 603);

    let mut phone = open_phone();
    let (session, id, invite) = phone.call();
    phone.answer(id, with_sdp(answer(&invite, 200, "bob"), &sdp("bob", 1, "sendrecv")));
    phone.ack();
    let refused = |phone: &mut Phone, request: Request| {
        let server = phone.receive(request);
        phone.response(server).status.code()
    };
    assert_eq!(refused(&mut phone, replacing(names(&invite, true))), 486);
    let strange = Replaces { from_tag: Tag::lossy("x"), ..names(&invite, false) };
    assert_eq!(refused(&mut phone, replacing(strange)), 481);
    let unknown = Replaces { call_id: CallId::lossy("x"), ..names(&invite, false) };
    assert_eq!(refused(&mut phone, replacing(unknown)), 481);
    let mut twice = replacing(names(&invite, false));
    twice.headers.push(Header::Replaces(names(&invite, false)));
    assert_eq!(refused(&mut phone, twice), 400);
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    phone.request(Method::Bye);
    assert_eq!(refused(&mut phone, replacing(names(&invite, false))), 603);
    // One that rings here was begun by the other side.
    let (mut other, mut peer) = invite_of("rings", Some(&sdp("bob", 1, "sendrecv")));
    other.headers.call_id = CallId::lossy("rings");
    let server = phone.receive(other);
    phone.events.clear();
    phone.act(|s, now| s.ring(now, offhook::sip::sessions::SessionId(session.0 + 1))).unwrap();
    peer.fix(&phone.response(server));
    let ringing = Replaces {
        call_id: CallId::lossy("rings"),
        to_tag: peer.ours.tag().unwrap(),
        from_tag: Tag::lossy("bob"),
        early_only: false,
    };
    assert_eq!(refused(&mut phone, replacing(ringing)), 481);
    let _ = NameAddr::new(uri("sip:x@y"));
    phone.hear(Heard::Confirmed(server));
}

#[test]
fn a_call_that_replaces_says_so_and_requires_it() {
    let mut phone = phone();
    let mut invitation = Invitation::new(local("alice"), addr("sip:carol@c.test"), None);
    let replaces = Replaces {
        call_id: CallId::lossy("abc"),
        to_tag: Tag::lossy("1"),
        from_tag: Tag::lossy("2"),
        early_only: false,
    };
    invitation.replaces = Some(replaces.clone());
    invitation.referred_by = Some(addr("sip:bob@b.test"));
    phone.act(|s, now| s.invite(now, invitation)).unwrap();
    let (_, invite) = phone.request(Method::Invite);
    assert!(invite.headers.requires("replaces") && invite.headers.replaces() == Some(&replaces));
    assert!(invite.headers.referred_by().is_some());
}

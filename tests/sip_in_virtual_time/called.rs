//! We get the INVITE.

use crate::phone::*;
use offhook::sip::exchange::Heard;
use offhook::sip::session::{Context, EndCause, EndedBy, Fork, Misuse, Policy, SessionEvent, Trust};
use offhook::wire::sip::{Header, Method, Reason, Refresher, SessionExpires, SipText, Token};

fn phone() -> Phone {
    Phone::new(Context::default())
}

fn offer() -> offhook::sip::session::Sdp {
    sdp("bob", 1, "sendrecv")
}

#[test]
fn nothing_leaves_before_the_application_decides_and_then_it_rings_and_is_taken() {
    let mut phone = phone();
    let (session, id, mut peer) = phone.invite(Some(&offer()), |_| {});
    phone.wait(secs(30));
    phone.silent();
    phone.act(|s, now| s.ring(now, session)).unwrap();
    let ringing = phone.response(id);
    assert_eq!((ringing.status.code(), ringing.headers.contact.len()), (180, 1));
    phone.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    let ok = phone.response(id);
    assert_eq!(ok.status.code(), 200);
    assert!(body(&ok.body).contains("s=alice") && ok.headers.allows(&Method::Update));
    assert_eq!(ok.headers.to.tag(), ringing.headers.to.tag());
    peer.fix(&ok);
    phone.hear(Heard::Ack(Box::new(peer.ack(1))));
    assert_eq!(phone.event(), SessionEvent::Confirmed);
    phone.wait(secs(60));
    phone.silent();
    let bye = phone.receive(peer.request(Method::Bye));
    assert_eq!(phone.response(bye).status.code(), 200);
    let end = phone.end();
    assert_eq!((end.by, end.cause), (EndedBy::Remote, EndCause::Bye));
    assert_eq!(phone.sessions.lingering(), 0);
}

#[test]
fn the_200_is_repeated_until_its_ack() {
    let mut phone = phone();
    let (session, id, mut peer) = phone.invite(Some(&offer()), |_| {});
    phone.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    let ok = phone.response(id);
    phone.wait(ms(11_500));
    let times: Vec<u128> = phone.wishes.iter().map(|(at, _)| at.as_millis()).collect();
    assert_eq!(times, [500, 1500, 3500, 7500, 11500]);
    phone.wishes.clear();
    peer.fix(&ok);
    // A stray ACK of another number, and of another tag, has no effect.
    phone.hear(Heard::Ack(Box::new(peer.ack(9))));
    let mut stranger = peer.ack(1);
    stranger.headers.from = addr("sip:mallory@c.test");
    phone.hear(Heard::Ack(Box::new(stranger)));
    phone.quiet();
    phone.hear(Heard::Ack(Box::new(peer.ack(1))));
    assert_eq!(phone.event(), SessionEvent::Confirmed);
    phone.hear(Heard::Ack(Box::new(peer.ack(1))));
    phone.quiet();
    phone.wait(secs(60));
    phone.silent();
}

#[test]
fn without_an_ack_the_session_ends_with_bye_after_32_seconds() {
    let mut phone = phone();
    let (session, _, _) = phone.invite(Some(&offer()), |_| {});
    phone.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    phone.wait(ms(31_900));
    phone.wishes.clear();
    phone.wait(ms(100));
    phone.request(Method::Bye);
    assert_eq!(phone.end().cause, EndCause::NoAck);
}

#[test]
fn a_bye_of_ours_waits_for_the_ack_of_our_200() {
    let mut phone = phone();
    let (session, id, mut peer) = phone.invite(Some(&offer()), |_| {});
    phone.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    peer.fix(&phone.response(id));
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    assert_eq!(phone.end().cause, EndCause::Bye);
    phone.silent();
    phone.hear(Heard::Ack(Box::new(peer.ack(1))));
    let (bye_id, bye) = phone.request(Method::Bye);
    phone.answer(bye_id, answer(&bye, 200, "bob"));
    phone.quiet();
    assert_eq!(phone.sessions.lingering(), 0);
}

#[test]
fn a_late_cancel_after_our_200_has_no_effect() {
    let mut phone = phone();
    let (session, id, mut peer) = phone.invite(Some(&offer()), |_| {});
    phone.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    peer.fix(&phone.response(id));
    phone.hear(Heard::Cancelled { id, reasons: Vec::new() });
    phone.silent();
    phone.quiet();
    phone.hear(Heard::Ack(Box::new(peer.ack(1))));
    assert_eq!(phone.event(), SessionEvent::Confirmed);
}

#[test]
fn a_cancelled_invite_is_answered_487_and_its_reason_is_told() {
    let mut phone = phone();
    let (session, id, _) = phone.invite(Some(&offer()), |_| {});
    let text = Some(SipText::new("Call completed elsewhere"));
    let reason = Reason { protocol: Token::lossy("SIP"), cause: Some(200), text };
    phone.hear(Heard::Cancelled { id, reasons: vec![reason.clone()] });
    assert_eq!(phone.response(id).status.code(), 487);
    let end = phone.end();
    assert_eq!((end.by, end.cause, end.reasons), (EndedBy::Remote, EndCause::Cancelled, vec![reason]));
    assert_eq!(phone.act(|s, now| s.ring(now, session)), Err(Misuse::Ended));
    // Its ACK, and the same again.
    phone.hear(Heard::Confirmed(id));
    phone.hear(Heard::Cancelled { id, reasons: Vec::new() });
    phone.silent();
}

#[test]
fn a_declined_call_is_answered_as_the_application_says() {
    let mut phone = phone();
    let (session, id, _) = phone.invite(Some(&offer()), |_| {});
    assert_eq!(
        phone.act(|s, now| s.reject(now, session, status(200), Vec::new())),
        Err(Misuse::WrongStatus(status(200)))
    );
    let reason = Reason { protocol: Token::lossy("Q.850"), cause: Some(17), text: None };
    phone.act(|s, now| s.reject(now, session, status(486), vec![reason.clone()])).unwrap();
    let busy = phone.response(id);
    assert_eq!((busy.status.code(), busy.headers.reasons().next()), (486, Some(&reason)));
    assert_eq!(phone.end().cause, EndCause::Rejected(status(486)));
}

#[test]
fn a_call_is_sent_elsewhere_with_302() {
    let mut phone = phone();
    let (session, id, _) = phone.invite(Some(&offer()), |_| {});
    phone.act(|s, now| s.redirect(now, session, vec![addr("sip:alice@mobile.test")])).unwrap();
    let moved = phone.response(id);
    assert_eq!((moved.status.code(), moved.headers.contact), (302, vec![addr("sip:alice@mobile.test")]));
}

#[test]
fn a_call_that_nobody_takes_is_answered_480_and_earlier_if_it_says_so() {
    let mut phone = phone();
    let (_, id, _) = phone.invite(Some(&offer()), |_| {});
    phone.wait(secs(180));
    assert_eq!(phone.response(id).status.code(), 480);
    assert_eq!(phone.end().cause, EndCause::NoAnswer);
    let (_, id, _) = phone.invite(Some(&offer()), |invite| {
        invite.headers.call_id = offhook::wire::sip::CallId::lossy("again");
        invite.headers.push(Header::Expires(20));
    });
    phone.wait(secs(20));
    assert_eq!(phone.response(id).status.code(), 480);
}

#[test]
fn ringing_is_repeated_each_minute() {
    let mut phone = phone();
    let (session, _, _) = phone.invite(Some(&offer()), |_| {});
    phone.act(|s, now| s.ring(now, session)).unwrap();
    phone.wait(secs(130));
    let times: Vec<u64> = phone.wishes.iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 60, 120]);
}

#[test]
fn a_late_offer_of_ours_is_answered_in_their_ack() {
    let mut phone = phone();
    let (session, id, mut peer) = phone.invite(None, |_| {});
    assert_eq!(phone.act(|s, now| s.accept(now, session, None)), Err(Misuse::NoDescription));
    phone.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    let ok = phone.response(id);
    assert!(body(&ok.body).contains("s=alice"));
    peer.fix(&ok);
    let mut ack = peer.ack(1);
    ack.set_body(offhook::wire::sip::ContentType::sdp(), offer().to_bytes());
    phone.hear(Heard::Ack(Box::new(ack)));
    let told = SessionEvent::AnswerReceived { fork: Fork(0), sdp: Box::new(offer()), early: false };
    assert_eq!(phone.event(), told);
    assert_eq!(phone.event(), SessionEvent::Confirmed);
}

#[test]
fn an_ack_without_the_answer_that_is_due_ends_with_bye() {
    let mut phone = phone();
    let (session, id, mut peer) = phone.invite(None, |_| {});
    phone.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    peer.fix(&phone.response(id));
    phone.hear(Heard::Ack(Box::new(peer.ack(1))));
    phone.request(Method::Bye);
    assert_eq!(phone.end().cause, EndCause::NoAgreement);
}

#[test]
fn early_media_goes_reliably_where_the_caller_can_and_the_200_waits_for_its_prack() {
    let mut phone = phone();
    let (session, id, mut peer) =
        phone.invite(Some(&offer()), |invite| invite.headers.push(Header::Supported(tokens(&["100rel"]))));
    phone.act(|s, now| s.early(now, session, sdp("alice", 1, "sendrecv"))).unwrap();
    let early = phone.response(id);
    assert!(early.headers.requires("100rel") && body(&early.body).contains("s=alice"));
    let rseq = early.headers.rseq().unwrap();
    assert!((1..1 << 31).contains(&rseq));
    phone.act(|s, now| s.accept(now, session, None)).unwrap();
    // Repeated after T1, 2·T1, …; no 200 yet.
    phone.wait(ms(3600));
    let times: Vec<u128> = phone.wishes.iter().map(|(at, _)| at.as_millis()).collect();
    assert_eq!(times, [500, 1500, 3500]);
    for _ in 0..3 {
        assert_eq!(phone.response(id).headers.rseq(), Some(rseq));
    }
    peer.fix(&early);
    // A PRACK of something else is 481.
    let mut wrong = peer.request(Method::Prack);
    wrong.headers.push(rack(&reliable(answer(&wrong, 183, "x"), rseq + 1), 1));
    let wrong = phone.receive(wrong);
    assert_eq!(phone.response(wrong).status.code(), 481);
    let mut prack = peer.request(Method::Prack);
    prack.headers.push(rack(&early, 1));
    let prack = phone.receive(prack);
    assert_eq!(phone.response(prack).status.code(), 200);
    let ok = phone.response(id);
    assert_eq!((ok.status.code(), ok.body.len()), (200, 0));
}

#[test]
fn a_second_reliable_response_waits_for_the_prack_of_the_first() {
    let mut phone = phone();
    let (session, id, mut peer) =
        phone.invite(Some(&offer()), |invite| invite.headers.push(Header::Require(tokens(&["100rel"]))));
    phone.act(|s, now| s.ring(now, session)).unwrap();
    let ringing = phone.response(id);
    let rseq = ringing.headers.rseq().unwrap();
    phone.act(|s, now| s.early(now, session, sdp("alice", 1, "sendrecv"))).unwrap();
    phone.silent();
    peer.fix(&ringing);
    let mut prack = peer.request(Method::Prack);
    prack.headers.push(rack(&ringing, 1));
    let prack = phone.receive(prack);
    assert_eq!(phone.response(prack).status.code(), 200);
    assert_eq!(phone.response(id).headers.rseq(), Some(rseq + 1));
}

#[test]
fn without_a_prack_the_invite_is_answered_504() {
    let mut phone = phone();
    let (session, id, _) =
        phone.invite(Some(&offer()), |invite| invite.headers.push(Header::Supported(tokens(&["100rel"]))));
    phone.act(|s, now| s.early(now, session, sdp("alice", 1, "sendrecv"))).unwrap();
    phone.wait(ms(31_900));
    phone.wishes.clear();
    phone.wait(ms(100));
    assert_eq!(phone.response(id).status.code(), 504);
    assert_eq!(phone.end().cause, EndCause::NoPrack);
}

#[test]
fn unreliable_early_media_says_what_the_200_says() {
    let mut phone = phone();
    let (session, id, _) = phone.invite(Some(&offer()), |_| {});
    phone.act(|s, now| s.early(now, session, sdp("alice", 1, "sendrecv"))).unwrap();
    let early = phone.response(id);
    assert!(!early.headers.requires("100rel"));
    phone.act(|s, now| s.accept(now, session, None)).unwrap();
    assert_eq!(phone.response(id).body, early.body);
}

#[test]
fn an_early_offer_of_ours_needs_a_caller_who_acknowledges_it() {
    let mut phone = phone();
    let (session, _, _) = phone.invite(None, |_| {});
    assert!(matches!(
        phone.act(|s, now| s.early(now, session, sdp("alice", 1, "sendrecv"))),
        Err(Misuse::NotAllowed(_))
    ));
    let (session, id, mut peer) = phone.invite(None, |invite| {
        invite.headers.call_id = offhook::wire::sip::CallId::lossy("other");
        invite.headers.push(Header::Supported(tokens(&["100rel"])));
    });
    peer.call_id = offhook::wire::sip::CallId::lossy("other");
    phone.act(|s, now| s.early(now, session, sdp("alice", 1, "sendrecv"))).unwrap();
    let early = phone.response(id);
    peer.fix(&early);
    let mut prack = peer.with_sdp(Method::Prack, &offer());
    prack.headers.push(rack(&early, 1));
    let prack = phone.receive(prack);
    assert_eq!(phone.response(prack).status.code(), 200);
    assert!(matches!(phone.event(), SessionEvent::AnswerReceived { early: true, .. }));
    phone.act(|s, now| s.accept(now, session, None)).unwrap();
    assert!(phone.response(id).body.is_empty());
}

#[test]
fn a_second_offer_in_a_prack_is_asked_about_and_answered_in_its_200() {
    let mut phone = phone();
    let (session, id, mut peer) =
        phone.invite(Some(&offer()), |invite| invite.headers.push(Header::Supported(tokens(&["100rel"]))));
    phone.act(|s, now| s.early(now, session, sdp("alice", 1, "sendrecv"))).unwrap();
    let early = phone.response(id);
    peer.fix(&early);
    let mut prack = peer.with_sdp(Method::Prack, &sdp("bob", 2, "sendonly"));
    prack.headers.push(rack(&early, 1));
    let prack = phone.receive(prack);
    phone.silent();
    assert!(matches!(phone.event(), SessionEvent::OfferReceived { early: true, .. }));
    phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
    let ok = phone.response(prack);
    assert!(body(&ok.body).contains("a=recvonly") && body(&ok.body).contains("o=- 775 2 "));
}

#[test]
fn what_is_required_and_unknown_is_answered_420() {
    let mut phone = phone();
    let (mut invite, _) = invite_of("x", Some(&offer()));
    invite.headers.push(Header::Require(tokens(&["100rel", "teleport", "timer"])));
    let id = phone.receive(invite);
    let refusal = phone.response(id);
    assert_eq!(refusal.status.code(), 420);
    assert_eq!(refusal.headers.unsupported().map(Token::as_str).collect::<Vec<_>>(), ["teleport"]);
    phone.quiet();
    assert!(phone.sessions.is_empty());
}

#[test]
fn a_body_of_another_kind_is_answered_415_and_a_broken_one_400() {
    let mut phone = phone();
    let (mut invite, _) = invite_of("x", None);
    invite.set_body(offhook::wire::sip::ContentType::new("text/plain").unwrap(), b"hello".to_vec());
    let id = phone.receive(invite.clone());
    let refusal = phone.response(id);
    assert_eq!((refusal.status.code(), refusal.headers.accept().next().unwrap().as_str()), (415, "application/sdp"));
    invite.headers.push(Header::ContentDisposition(SipText::new("render;handling=optional")));
    let id = phone.receive(invite);
    assert!(matches!(phone.event(), SessionEvent::Incoming(incoming) if incoming.offer.is_none()), "{id:?}");
    let (mut invite, _) = invite_of("y", None);
    invite.set_body(offhook::wire::sip::ContentType::sdp(), b"hello".to_vec());
    let id = phone.receive(invite);
    assert_eq!(phone.response(id).status.code(), 400);
}

#[test]
fn a_caller_without_reliability_is_answered_421_where_policy_wants_it() {
    let policy = Policy { require_reliable: true, ..Policy::default() };
    let mut phone = Phone::new(Context { policy, ..Context::default() });
    let (invite, _) = invite_of("x", Some(&offer()));
    let id = phone.receive(invite);
    let refusal = phone.response(id);
    assert!(refusal.status.code() == 421 && refusal.headers.requires("100rel"));
}

#[test]
fn an_interval_that_is_too_small_is_answered_422_if_the_caller_knows_timers() {
    let mut phone = phone();
    let small = Header::SessionExpires(SessionExpires { seconds: 60, refresher: None });
    let (mut invite, _) = invite_of("x", Some(&offer()));
    invite.headers.push(small.clone());
    invite.headers.push(Header::Supported(tokens(&["timer"])));
    let id = phone.receive(invite);
    let refusal = phone.response(id);
    assert_eq!((refusal.status.code(), refusal.headers.min_se()), (422, Some(90)));
    let (session, id, _) = phone.invite(Some(&offer()), |invite| invite.headers.push(small));
    phone.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    let expires = phone.response(id).headers.session_expires().unwrap();
    assert_eq!(expires, SessionExpires { seconds: 90, refresher: Some(Refresher::Uas) });
}

#[test]
fn the_watcher_ends_what_the_other_side_does_not_refresh() {
    let mut phone = phone();
    let (session, id, mut peer) = phone.invite(Some(&offer()), |invite| {
        let expires = SessionExpires { seconds: 300, refresher: Some(Refresher::Uac) };
        invite.headers.push(Header::SessionExpires(expires));
        invite.headers.push(Header::Supported(tokens(&["timer"])));
    });
    phone.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
    let ok = phone.response(id);
    assert!(ok.headers.requires("timer"));
    peer.fix(&ok);
    phone.hear(Heard::Ack(Box::new(peer.ack(1))));
    phone.event();
    phone.wait(secs(200));
    let mut update = peer.request(Method::Update);
    update.headers.push(Header::SessionExpires(SessionExpires { seconds: 300, refresher: Some(Refresher::Uac) }));
    update.headers.push(Header::Supported(tokens(&["timer"])));
    let update = phone.receive(update);
    assert_eq!(phone.response(update).status.code(), 200);
    phone.wait(secs(267));
    phone.silent();
    // 32 s before its end.
    phone.wait(secs(1));
    phone.request(Method::Bye);
    assert_eq!(phone.end().cause, EndCause::Expired);
}

#[test]
fn an_identity_is_told_only_from_whom_it_is_believed() {
    let asserted = Header::PAssertedIdentity(addr("sip:+4930123@b.test"));
    for (trust, told) in [
        (Trust::Nobody, false),
        (Trust::Sources(vec!["192.0.2.9".parse().unwrap()]), true),
        (Trust::Sources(vec!["192.0.2.8".parse().unwrap()]), false),
        (Trust::Everybody, true),
    ] {
        let policy = Policy { trust, ..Policy::default() };
        let mut phone = Phone::new(Context { policy, ..Context::default() });
        let (mut invite, _) = invite_of("x", Some(&offer()));
        invite.headers.push(asserted.clone());
        invite.headers.push(Header::Privacy(SipText::new("id")));
        phone.receive(invite);
        let SessionEvent::Incoming(incoming) = phone.event() else { panic!("no call") };
        assert_eq!(incoming.identity.is_some(), told);
        assert!(incoming.private);
    }
}

#[test]
fn past_the_cap_of_ringing_calls_others_get_503_and_later() {
    let mut context = Context::default();
    context.limits.ringing = 3;
    let mut phone = Phone::new(context);
    for n in 0..500 {
        let (invite, _) = invite_of(&format!("flood{n}"), Some(&offer()));
        phone.receive(invite);
    }
    let refused: Vec<_> = phone.wishes.drain(..).collect();
    assert_eq!((refused.len(), phone.sessions.len()), (497, 3));
    for (_, wish) in refused {
        let offhook::sip::exchange::Wish::Response { response, .. } = wish else { panic!("{wish:?}") };
        assert!(response.status.code() == 503 && response.headers.retry_after().is_some());
    }
}

#[test]
fn requests_of_a_dialog_that_nobody_knows_are_answered_481() {
    let mut phone = phone();
    let (_, mut peer) = invite_of("x", None);
    peer.ours = peer.ours.clone().with_tag(&offhook::wire::sip::Tag::lossy("unknown"));
    for method in [Method::Bye, Method::Invite, Method::Update, Method::Info, Method::Refer] {
        let request = peer.request(method);
        let id = phone.receive(request);
        assert_eq!(phone.response(id).status.code(), 481);
    }
    // The right tag of ours, another one of theirs.
    let (_, mut peer) = phone.called_up();
    peer.theirs = addr("sip:mallory@c.test").with_tag(&offhook::wire::sip::Tag::lossy("mallory"));
    let bye = peer.request(Method::Bye);
    let id = phone.receive(bye);
    assert_eq!(phone.response(id).status.code(), 481);
    assert_eq!(phone.sessions.len(), 1);
}

#[test]
fn in_a_dialog_options_is_answered_and_what_is_not_known_refused() {
    let mut phone = phone();
    let (_, mut peer) = phone.called_up();
    let cases = [
        (Method::Options, 200),
        (Method::Message, 405),
        (Method::Other(Token::lossy("DANCE")), 501),
        (Method::Subscribe, 489),
        (Method::Notify, 489),
        (Method::Refer, 603),
    ];
    for (method, code) in cases {
        let request = peer.request(method.clone());
        let id = phone.receive(request);
        let response = phone.response(id);
        assert_eq!(response.status.code(), code, "{method:?}");
        if matches!(code, 200 | 405 | 501) {
            assert!(response.headers.allows(&Method::Invite), "{method:?}");
        }
    }
}

#[test]
fn a_number_that_is_not_higher_is_answered_500() {
    let mut phone = phone();
    let (_, mut peer) = phone.called_up();
    peer.cseq = 0;
    let old = peer.request(Method::Info);
    let id = phone.receive(old);
    assert_eq!(phone.response(id).status.code(), 500);
}

#[test]
fn a_bye_before_the_answer_ends_the_invite_with_487() {
    let mut phone = phone();
    let (session, id, mut peer) = phone.invite(Some(&offer()), |_| {});
    phone.act(|s, now| s.ring(now, session)).unwrap();
    peer.fix(&phone.response(id));
    let bye = peer.request(Method::Bye);
    let bye = phone.receive(bye);
    assert_eq!(phone.response(bye).status.code(), 200);
    assert_eq!(phone.response(id).status.code(), 487);
    assert_eq!(phone.end().by, EndedBy::Remote);
}

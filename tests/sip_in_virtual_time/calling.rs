//! We send the INVITE.

use crate::phone::*;
use offhook::sip::exchange::{Failure, Heard};
use offhook::sip::session::{Context, EndCause, EndedBy, Fork, Invitation, Misuse, Policy, Redirects, SessionEvent};
use offhook::wire::sip::{Header, Method, Refresher, SessionExpires};

fn phone() -> Phone {
    Phone::new(Context::default())
}

#[test]
fn a_call_rings_is_answered_and_acknowledged_then_hung_up() {
    let mut phone = phone();
    let (session, id, invite) = phone.call();
    assert_eq!(invite.headers.cseq.number, 1);
    assert!(invite.headers.supports("100rel") && invite.headers.supports("timer"));
    assert!(invite.headers.allows(&Method::Update) && invite.headers.contact.len() == 1);
    phone.answer(id, answer(&invite, 180, "bob"));
    assert_eq!(phone.event(), SessionEvent::Ringing { fork: Some(Fork(0)) });
    let theirs = sdp("bob", 1, "sendrecv");
    phone.answer(id, with_sdp(answer(&invite, 200, "bob"), &theirs));
    let told = SessionEvent::AnswerReceived { fork: Fork(0), sdp: Box::new(theirs), early: false };
    assert_eq!(phone.event(), told);
    assert_eq!(phone.event(), SessionEvent::Accepted { fork: Fork(0), identity: None });
    let ack = phone.ack();
    assert_eq!((ack.headers.cseq.number, ack.uri.to_string().as_str()), (1, "sip:bob@198.51.100.7"));
    assert!(ack.body.is_empty());
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    let (bye_id, bye) = phone.request(Method::Bye);
    assert_eq!(bye.headers.cseq.number, 2);
    let end = phone.end();
    assert_eq!((end.by, end.cause), (EndedBy::Local, EndCause::Bye));
    phone.answer(bye_id, answer(&bye, 200, "bob"));
    phone.wait(secs(33));
    assert_eq!((phone.sessions.len(), phone.sessions.lingering()), (0, 0));
    assert_eq!(phone.act(|s, now| s.hang_up(now, session, Vec::new())), Err(Misuse::Ended));
}

#[test]
fn each_repeated_200_gets_the_same_ack_again() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    let ok = with_sdp(answer(&invite, 200, "bob"), &sdp("bob", 1, "sendrecv"));
    phone.answer(id, ok.clone());
    let first = phone.ack();
    phone.events.clear();
    phone.answer(id, ok.clone());
    phone.answer(id, ok);
    assert_eq!((phone.ack(), phone.ack()), (first.clone(), first));
    phone.quiet();
    phone.silent();
}

#[test]
fn the_first_200_wins_and_the_other_forks_get_ack_and_bye_once() {
    let mut phone = phone();
    let (session, id, invite) = phone.call();
    phone.answer(id, answer(&invite, 180, "desk"));
    phone.answer(id, answer(&invite, 180, "mobile"));
    assert_eq!(phone.event(), SessionEvent::Ringing { fork: Some(Fork(0)) });
    assert_eq!(phone.event(), SessionEvent::Ringing { fork: Some(Fork(1)) });
    phone.answer(id, with_sdp(answer(&invite, 200, "mobile"), &sdp("mobile", 1, "sendrecv")));
    assert_eq!(phone.event(), SessionEvent::ForkEnded { fork: Fork(0) });
    assert!(matches!(phone.event(), SessionEvent::AnswerReceived { fork: Fork(1), .. }));
    assert!(matches!(phone.event(), SessionEvent::Accepted { fork: Fork(1), .. }));
    phone.ack();
    let late = with_sdp(answer(&invite, 200, "desk"), &sdp("desk", 1, "sendrecv"));
    phone.answer(id, late.clone());
    assert_eq!(phone.ack().headers.to.tag().unwrap().as_str(), "desk");
    let (bye_id, bye) = phone.request(Method::Bye);
    assert_eq!(bye.headers.to.tag().unwrap().as_str(), "desk");
    phone.answer(id, late);
    phone.ack();
    phone.silent();
    phone.answer(bye_id, answer(&bye, 200, "desk"));
    phone.quiet();
    // The winner is unharmed.
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    assert_eq!(phone.request(Method::Bye).1.headers.to.tag().unwrap().as_str(), "mobile");
}

#[test]
fn two_different_183s_are_two_dialogs_with_early_media_each() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    for (n, tag) in ["one", "two"].into_iter().enumerate() {
        let early = sdp(tag, 1, "sendrecv");
        phone.answer(id, with_sdp(answer(&invite, 183, tag), &early));
        let fork = Fork(u32::try_from(n).unwrap());
        assert_eq!(phone.event(), SessionEvent::AnswerReceived { fork, sdp: Box::new(early), early: true });
        assert!(matches!(phone.event(), SessionEvent::Progress { .. }));
    }
    // The same again is nothing new.
    phone.answer(id, with_sdp(answer(&invite, 183, "one"), &sdp("one", 1, "sendrecv")));
    assert!(matches!(phone.event(), SessionEvent::Progress { .. }));
    phone.quiet();
    // A 200 that says what its 183 said has no answer of its own to tell.
    phone.answer(id, with_sdp(answer(&invite, 200, "two"), &sdp("two", 1, "sendrecv")));
    assert_eq!(phone.event(), SessionEvent::ForkEnded { fork: Fork(0) });
    assert!(matches!(phone.event(), SessionEvent::Accepted { fork: Fork(1), .. }));
}

#[test]
fn a_199_ends_one_early_dialog() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    phone.answer(id, answer(&invite, 180, "one"));
    phone.event();
    phone.answer(id, answer(&invite, 199, "one"));
    assert_eq!(phone.event(), SessionEvent::ForkEnded { fork: Fork(0) });
}

#[test]
fn a_million_forks_are_not_kept() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    for n in 0..1000 {
        phone.answer(id, answer(&invite, 180, &format!("f{n}")));
    }
    let known = phone.events.iter().filter(|(_, e)| matches!(e, SessionEvent::Ringing { fork: Some(_) })).count();
    assert_eq!(known, 16);
}

#[test]
fn reliable_responses_are_acknowledged_once_and_in_order() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    let early = with_sdp(reliable(answer(&invite, 183, "bob"), 71), &sdp("bob", 1, "sendrecv"));
    phone.answer(id, early.clone());
    let (prack_id, prack) = phone.request(Method::Prack);
    let rack = prack.headers.rack().unwrap();
    assert_eq!((rack.rseq, rack.cseq.number, prack.headers.cseq.number), (71, 1, 2));
    assert!(matches!(phone.event(), SessionEvent::AnswerReceived { early: true, .. }));
    phone.event();
    // Repeated, and one that is too far: neither is answered nor told.
    phone.answer(id, early);
    phone.answer(id, reliable(answer(&invite, 180, "bob"), 73));
    phone.silent();
    phone.quiet();
    phone.answer(prack_id, answer(&prack, 200, "bob"));
    phone.answer(id, reliable(answer(&invite, 180, "bob"), 72));
    assert_eq!(phone.request(Method::Prack).1.headers.rack().unwrap().rseq, 72);
    // The reliable answer was the answer; what the 200 has is not another one.
    phone.event();
    phone.answer(id, with_sdp(answer(&invite, 200, "bob"), &sdp("other", 9, "inactive")));
    assert!(matches!(phone.event(), SessionEvent::Accepted { .. }));
    phone.quiet();
}

#[test]
fn a_late_offer_is_answered_in_the_ack() {
    let mut phone = phone();
    let invitation = Invitation::new(local("alice"), addr("sip:bob@b.test"), None);
    let session = phone.act(|s, now| s.invite(now, invitation)).unwrap();
    let (id, invite) = phone.request(Method::Invite);
    assert!(invite.body.is_empty() && invite.headers.content_type().is_none());
    let ok = with_sdp(answer(&invite, 200, "bob"), &sdp("bob", 1, "sendrecv"));
    phone.answer(id, ok.clone());
    assert!(matches!(phone.event(), SessionEvent::OfferReceived { early: false, .. }));
    assert!(matches!(phone.event(), SessionEvent::Accepted { .. }));
    // No ACK before the answer is known, and the 200 comes again meanwhile.
    phone.answer(id, ok.clone());
    phone.silent();
    phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
    let ack = phone.ack();
    assert!(body(&ack.body).contains("s=alice"));
    phone.answer(id, ok);
    assert_eq!(phone.ack(), ack);
}

#[test]
fn a_late_offer_that_nobody_answers_is_refused_in_the_ack_and_the_call_ended() {
    let mut phone = phone();
    let invitation = Invitation::new(local("alice"), addr("sip:bob@b.test"), None);
    phone.act(|s, now| s.invite(now, invitation)).unwrap();
    let (id, invite) = phone.request(Method::Invite);
    phone.answer(id, with_sdp(answer(&invite, 200, "bob"), &sdp("bob", 1, "sendrecv")));
    phone.wait(secs(10));
    assert!(body(&phone.ack().body).contains("m=audio 0 "));
    phone.request(Method::Bye);
    assert_eq!(phone.end().cause, EndCause::NoAgreement);
}

#[test]
fn an_offer_in_a_reliable_183_is_answered_in_its_prack() {
    let mut phone = phone();
    let invitation = Invitation::new(local("alice"), addr("sip:bob@b.test"), None);
    let session = phone.act(|s, now| s.invite(now, invitation)).unwrap();
    let (id, invite) = phone.request(Method::Invite);
    phone.answer(id, with_sdp(reliable(answer(&invite, 183, "bob"), 5), &sdp("bob", 1, "sendrecv")));
    assert!(matches!(phone.event(), SessionEvent::OfferReceived { early: true, .. }));
    phone.silent();
    phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
    let (_, prack) = phone.request(Method::Prack);
    assert!(body(&prack.body).contains("s=alice"));
    phone.answer(id, answer(&invite, 200, "bob"));
    assert!(phone.ack().body.is_empty());
}

#[test]
fn a_200_without_an_answer_ends_with_ack_and_bye() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    phone.answer(id, answer(&invite, 200, "bob"));
    phone.ack();
    phone.request(Method::Bye);
    assert_eq!(phone.end().cause, EndCause::NoAgreement);
}

#[test]
fn a_given_up_call_is_cancelled_and_its_487_forgotten() {
    let mut phone = phone();
    let (session, id, invite) = phone.call();
    phone.answer(id, answer(&invite, 180, "bob"));
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    assert_eq!(phone.cancel(), id);
    assert_eq!(phone.end().cause, EndCause::Cancelled);
    assert_eq!(phone.sessions.lingering(), 1);
    phone.answer(id, answer(&invite, 487, "bob"));
    phone.silent();
    phone.quiet();
    assert_eq!(phone.sessions.lingering(), 0);
}

#[test]
fn a_200_that_crosses_our_cancel_gets_ack_and_bye() {
    let mut phone = phone();
    let (session, id, invite) = phone.call();
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    phone.cancel();
    let ok = with_sdp(answer(&invite, 200, "bob"), &sdp("bob", 1, "sendrecv"));
    phone.answer(id, ok.clone());
    let ack = phone.ack();
    let (bye_id, bye) = phone.request(Method::Bye);
    assert!(bye.headers.cseq.number > ack.headers.cseq.number);
    phone.answer(id, ok);
    assert_eq!(phone.ack(), ack);
    phone.answer(bye_id, answer(&bye, 200, "bob"));
    phone.wait(secs(33));
    assert_eq!(phone.sessions.lingering(), 0);
}

#[test]
fn a_cancelled_call_without_any_answer_is_forgotten_in_the_end() {
    let mut phone = phone();
    let (session, _, _) = phone.call();
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    phone.wait(secs(200));
    assert_eq!(phone.sessions.lingering(), 0);
}

#[test]
fn a_call_that_nobody_takes_is_given_up() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    phone.answer(id, answer(&invite, 180, "bob"));
    phone.wait(secs(180));
    assert_eq!(phone.cancel(), id);
    let end = phone.end();
    assert_eq!((end.by, end.cause), (EndedBy::Engine, EndCause::NoAnswer));
}

#[test]
fn a_refusal_tells_its_status_phrase_and_reasons() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    let mut busy = answer(&invite, 486, "bob");
    let reason = offhook::wire::sip::Reason { protocol: tokens(&["Q.850"]).remove(0), cause: Some(17), text: None };
    busy.headers.push(Header::Reason(reason.clone()));
    phone.answer(id, busy);
    let end = phone.end();
    assert_eq!((end.by, end.cause, end.text.as_str()), (EndedBy::Remote, EndCause::Rejected(status(486)), "Busy Here"));
    assert_eq!(end.reasons, [reason]);
    assert_eq!((phone.sessions.len(), phone.sessions.lingering()), (0, 0));
}

#[test]
fn an_invite_without_any_answer_fails() {
    let mut phone = phone();
    let (_, id, _) = phone.call();
    phone.hear(Heard::Failed { id, why: Failure::TimedOut });
    assert_eq!(phone.end().cause, EndCause::Failed(Failure::TimedOut));
    assert_eq!(phone.sessions.lingering(), 0);
}

#[test]
fn a_redirection_in_the_domain_is_followed_best_first_with_the_next_number() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    let mut moved = answer(&invite, 302, "proxy");
    moved.headers.contact.clear();
    for (to, q) in [("sip:second@b.test", "0.2"), ("sip:first@b.test", "0.9")] {
        let mut contact = addr(to);
        contact.params.set("q", Some(q));
        moved.headers.contact.push(contact);
    }
    phone.answer(id, moved);
    assert_eq!(phone.event(), SessionEvent::Redirected { to: uri("sip:first@b.test") });
    let (again_id, again) = phone.request(Method::Invite);
    assert_eq!((again.uri.to_string().as_str(), again.headers.cseq.number), ("sip:first@b.test", 2));
    assert_eq!(again.headers.call_id, invite.headers.call_id);
    assert_eq!(again.headers.from, invite.headers.from);
    assert_eq!((again.headers.to.clone(), again.body.clone()), (invite.headers.to.clone(), invite.body.clone()));
    phone.answer(again_id, answer(&again, 404, "x"));
    assert_eq!(phone.request(Method::Invite).1.uri.to_string(), "sip:second@b.test");
}

#[test]
fn a_redirection_out_of_the_domain_is_told_and_not_followed() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    let mut moved = answer(&invite, 302, "proxy");
    moved.headers.contact = vec![addr("sip:+1900555@premium.test")];
    phone.answer(id, moved);
    phone.silent();
    let end = phone.end();
    assert_eq!(end.cause, EndCause::Rejected(status(302)));
    assert_eq!(end.contacts, [addr("sip:+1900555@premium.test")]);
}

#[test]
fn redirections_in_a_circle_end_after_five() {
    let policy = Policy { redirects: Redirects::Always, ..Policy::default() };
    let mut phone = Phone::new(Context { policy, ..Context::default() });
    let (_, mut id, mut invite) = phone.call();
    let mut followed = 0;
    loop {
        let mut moved = answer(&invite, 302, "proxy");
        moved.headers.contact = vec![addr(&format!("sip:bob{followed}@b.test"))];
        phone.answer(id, moved);
        if phone.wishes.is_empty() {
            break;
        }
        (id, invite) = phone.request(Method::Invite);
        followed += 1;
    }
    assert_eq!(followed, 5);
    assert_eq!(phone.end().cause, EndCause::Rejected(status(302)));
}

#[test]
fn an_interval_that_is_too_small_is_raised_once() {
    let mut phone = phone();
    let (_, id, invite) = phone.call();
    assert_eq!(invite.headers.session_expires().unwrap().seconds, 1800);
    let mut small = answer(&invite, 422, "bob");
    small.headers.push(Header::MinSe(3600));
    phone.answer(id, small);
    let (id, invite) = phone.request(Method::Invite);
    assert_eq!((invite.headers.cseq.number, invite.headers.session_expires().unwrap().seconds), (2, 3600));
    assert_eq!(invite.headers.min_se(), Some(3600));
    let mut small = answer(&invite, 422, "bob");
    small.headers.push(Header::MinSe(3600));
    phone.answer(id, small);
    assert_eq!(phone.end().cause, EndCause::Rejected(status(422)));
}

#[test]
fn the_refresher_refreshes_at_half_with_update_and_ends_what_is_not_refreshed() {
    let mut phone = phone();
    let expires = SessionExpires { seconds: 90, refresher: Some(Refresher::Uac) };
    let (_, _, _) = phone.call_up_with(|ok| {
        ok.headers.push(Header::SessionExpires(expires));
        ok.headers.push(Header::Allow(vec![Method::Update]));
    });
    phone.wait(secs(44));
    phone.silent();
    phone.wait(secs(1));
    let (id, update) = phone.request(Method::Update);
    assert!(update.body.is_empty());
    assert_eq!(update.headers.session_expires(), Some(expires));
    let mut ok = answer(&update, 200, "bob");
    ok.headers.push(Header::SessionExpires(expires));
    phone.answer(id, ok);
    phone.wait(secs(45));
    phone.request(Method::Update);
    // No answer: BYE a third of the interval before its end.
    phone.wait(secs(14));
    phone.silent();
    phone.wait(secs(1));
    phone.request(Method::Bye);
    assert_eq!(phone.end().cause, EndCause::Expired);
}

#[test]
fn without_update_the_refresh_is_a_reinvite_with_the_same_version() {
    let mut phone = phone();
    let expires = SessionExpires { seconds: 100, refresher: Some(Refresher::Uac) };
    phone.call_up_with(|ok| ok.headers.push(Header::SessionExpires(expires)));
    phone.wait(secs(50));
    let (id, again) = phone.request(Method::Invite);
    assert!(body(&again.body).contains("o=- 775 1 IN IP4"), "{}", body(&again.body));
    let mut ok = with_sdp(answer(&again, 200, "bob"), &sdp("bob", 1, "sendrecv"));
    ok.headers.push(Header::SessionExpires(expires));
    phone.answer(id, ok);
    phone.ack();
    // Nothing changed, so nothing is told.
    phone.quiet();
}

#[test]
fn an_anonymous_call_hides_who_calls() {
    let mut phone = phone();
    let mut invitation = Invitation::new(local("alice"), addr("sip:bob@b.test"), None);
    invitation.anonymous = true;
    phone.act(|s, now| s.invite(now, invitation)).unwrap();
    let (_, invite) = phone.request(Method::Invite);
    assert_eq!(invite.headers.from.uri.to_string(), "sip:anonymous@anonymous.invalid");
    assert_eq!(invite.headers.privacy().unwrap().as_str(), "id");
    assert_eq!(invite.headers.asserted_identities().next().unwrap().uri.to_string(), "sip:alice@a.test");
}

#[test]
fn the_route_set_and_target_of_the_200_count() {
    let mut phone = phone();
    let (session, id, invite) = phone.call();
    let mut ringing = answer(&invite, 180, "bob");
    ringing.headers.record_route = vec![addr("sip:old.test;lr")];
    phone.answer(id, ringing);
    let mut ok = with_sdp(answer(&invite, 200, "bob"), &sdp("bob", 1, "sendrecv"));
    ok.headers.record_route = vec![addr("sip:far.test;lr"), addr("sip:near.test;lr")];
    ok.headers.contact = vec![addr("sip:bob@203.0.113.9:5099")];
    phone.answer(id, ok);
    let ack = phone.ack();
    let routes: Vec<String> = ack.headers.route.iter().map(|r| r.uri.to_string()).collect();
    assert_eq!(routes, ["sip:near.test;lr", "sip:far.test;lr"]);
    assert_eq!(ack.uri.to_string(), "sip:bob@203.0.113.9:5099");
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    assert_eq!(phone.request(Method::Bye).1.headers.route, ack.headers.route);
}

#[test]
fn numbers_go_on_from_what_the_carrier_sent_in_the_end() {
    let mut phone = phone();
    let (session, id, mut invite) = phone.call();
    // Challenged twice below.
    invite.headers.cseq.number = 3;
    phone.answer(id, with_sdp(answer(&invite, 200, "bob"), &sdp("bob", 1, "sendrecv")));
    assert_eq!(phone.ack().headers.cseq.number, 3);
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    assert_eq!(phone.request(Method::Bye).1.headers.cseq.number, 4);
}

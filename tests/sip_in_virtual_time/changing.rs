//! re-INVITE, UPDATE, hold, glare, INFO.

use crate::phone::*;
use offhook::sip::exchange::{Failure, Heard, Wish};
use offhook::sip::session::{Context, EndCause, Fork, Misuse, SessionEvent};
use offhook::wire::sip::{ContentType, Header, Method, Reason, Refresher, SessionExpires, SipText, Token};

fn phone() -> Phone {
    Phone::new(Context::default())
}

#[test]
fn a_hold_is_a_reinvite_with_sendonly_and_the_next_version_and_its_end_another() {
    let mut phone = phone();
    let (session, _, _) = phone.call_up();
    phone.act(|s, now| s.hold(now, session, true)).unwrap();
    let (id, hold) = phone.request(Method::Invite);
    let text = body(&hold.body);
    assert!(text.contains("a=sendonly") && text.contains("o=- 775 2 "), "{text}");
    assert_eq!(phone.act(|s, now| s.hold(now, session, true)), Ok(()));
    phone.silent();
    phone.answer(id, with_sdp(answer(&hold, 200, "bob"), &sdp("bob", 2, "recvonly")));
    assert_eq!(phone.ack().headers.cseq.number, hold.headers.cseq.number);
    assert!(matches!(phone.event(), SessionEvent::AnswerReceived { early: false, .. }));
    // They listen: it is not they who hold.
    phone.quiet();
    phone.act(|s, now| s.hold(now, session, false)).unwrap();
    let (_, resume) = phone.request(Method::Invite);
    let text = body(&resume.body);
    assert!(text.contains("a=sendrecv") && text.contains("o=- 775 3 "), "{text}");
}

#[test]
fn a_hold_beside_an_open_offer_waits_and_the_last_wish_counts() {
    let mut phone = phone();
    let (session, _, _) = phone.call_up();
    phone.act(|s, now| s.hold(now, session, true)).unwrap();
    let (id, hold) = phone.request(Method::Invite);
    for on in [false, true, false] {
        phone.act(|s, now| s.hold(now, session, on)).unwrap();
    }
    phone.silent();
    phone.answer(id, with_sdp(answer(&hold, 200, "bob"), &sdp("bob", 2, "recvonly")));
    phone.ack();
    let (id, resume) = phone.request(Method::Invite);
    assert!(body(&resume.body).contains("a=sendrecv"));
    // A new description that meets 491 takes the hold wished meanwhile along.
    phone.answer(id, with_sdp(answer(&resume, 200, "bob"), &sdp("bob", 3, "sendrecv")));
    phone.ack();
    phone.act(|s, now| s.reoffer(now, session, sdp("alice2", 1, "sendrecv"))).unwrap();
    let (id, new) = phone.request(Method::Invite);
    phone.act(|s, now| s.hold(now, session, true)).unwrap();
    phone.answer(id, answer(&new, 491, "bob"));
    phone.wait(secs(4));
    let text = body(&phone.request(Method::Invite).1.body);
    assert!(text.contains("s=alice2") && text.contains("a=sendonly"), "{text}");
    phone.silent();
}

#[test]
fn a_hold_of_theirs_is_told_and_its_answer_made_to_fit() {
    for direction in ["sendonly", "inactive"] {
        let mut phone = phone();
        let (session, mut peer) = phone.called_up();
        let hold = peer.with_sdp(Method::Invite, &sdp("bob", 2, direction));
        let cseq = hold.headers.cseq.number;
        let id = phone.receive(hold);
        assert!(matches!(phone.event(), SessionEvent::OfferReceived { early: false, .. }));
        phone.silent();
        phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
        let ok = body(&phone.response(id).body);
        assert!(ok.contains(if direction == "sendonly" { "a=recvonly" } else { "a=inactive" }), "{ok}");
        assert_eq!(phone.event(), SessionEvent::Held(true));
        phone.hear(Heard::Ack(Box::new(peer.ack(cseq))));
        let resume = peer.with_sdp(Method::Invite, &sdp("bob", 3, "sendrecv"));
        let cseq = resume.headers.cseq.number;
        let id = phone.receive(resume);
        phone.event();
        phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
        assert!(body(&phone.response(id).body).contains("a=sendrecv"));
        assert_eq!(phone.event(), SessionEvent::Held(false));
        phone.hear(Heard::Ack(Box::new(peer.ack(cseq))));
        phone.quiet();
    }
}

#[test]
fn the_old_hold_with_an_address_of_zeros_is_understood() {
    let mut phone = phone();
    let (session, mut peer) = phone.called_up();
    let zeros = text(&sdp("bob", 2, "sendrecv")).replace("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0");
    let hold = peer.with_sdp(Method::Invite, &offhook::sip::session::Sdp::parse(zeros.as_bytes()).unwrap());
    phone.receive(hold);
    phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
    phone.event();
    assert_eq!(phone.event(), SessionEvent::Held(true));
}

#[test]
fn while_we_hold_what_we_answer_holds_too() {
    let mut phone = phone();
    let (session, _, mut peer) = phone.call_up();
    phone.act(|s, now| s.hold(now, session, true)).unwrap();
    let (id, hold) = phone.request(Method::Invite);
    phone.answer(id, with_sdp(answer(&hold, 200, "bob"), &sdp("bob", 2, "recvonly")));
    phone.ack();
    let id = phone.receive(peer.with_sdp(Method::Invite, &sdp("bob", 3, "sendrecv")));
    phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
    assert!(body(&phone.response(id).body).contains("a=sendonly"));
}

#[test]
fn a_refresh_with_what_holds_is_answered_without_asking() {
    let mut phone = phone();
    let (_, mut peer) = phone.called_up();
    let again = peer.with_sdp(Method::Invite, &sdp("bob", 1, "sendrecv"));
    let cseq = again.headers.cseq.number;
    let id = phone.receive(again);
    let ok = phone.response(id);
    assert!(ok.status.code() == 200 && body(&ok.body).contains("o=- 775 1 "));
    phone.hear(Heard::Ack(Box::new(peer.ack(cseq))));
    let id = phone.receive(peer.request(Method::Update));
    assert_eq!(phone.response(id).status.code(), 200);
    phone.quiet();
}

#[test]
fn a_reinvite_without_an_offer_gets_what_holds_and_its_ack_the_answer() {
    let mut phone = phone();
    let (_, mut peer) = phone.called_up();
    let empty = peer.request(Method::Invite);
    let cseq = empty.headers.cseq.number;
    let id = phone.receive(empty);
    assert!(body(&phone.response(id).body).contains("o=- 775 1 "));
    let mut ack = peer.ack(cseq);
    ack.set_body(ContentType::sdp(), sdp("bob", 2, "sendonly").to_bytes());
    phone.hear(Heard::Ack(Box::new(ack)));
    assert!(matches!(phone.event(), SessionEvent::AnswerReceived { .. }));
    assert_eq!(phone.event(), SessionEvent::Held(true));
}

#[test]
fn an_offer_of_theirs_beside_ours_is_answered_491_and_ours_is_tried_again_later() {
    // We called: 2.1 to 4 s. We were called: 0 to 2 s. Both in steps of 10 ms.
    for calling in [true, false] {
        let mut phone = phone();
        let (session, mut peer) = if calling {
            let (session, _, peer) = phone.call_up();
            (session, peer)
        } else {
            phone.called_up()
        };
        phone.act(|s, now| s.reoffer(now, session, sdp("alice2", 1, "sendrecv"))).unwrap();
        let (id, ours) = phone.request(Method::Invite);
        let theirs = phone.receive(peer.with_sdp(Method::Invite, &sdp("bob", 2, "sendrecv")));
        assert_eq!(phone.response(theirs).status.code(), 491);
        let theirs = phone.receive(peer.with_sdp(Method::Update, &sdp("bob", 2, "sendrecv")));
        assert_eq!(phone.response(theirs).status.code(), 491);
        phone.answer(id, answer(&ours, 491, "bob"));
        phone.silent();
        phone.quiet();
        let refused_at = phone.now;
        let (from, to) = if calling { (2100, 4000) } else { (0, 2000) };
        phone.wait(ms(to));
        let (at, _) = phone.wishes[0];
        let delay = (phone.start + at - refused_at).as_millis() as u64;
        assert!((from..=to).contains(&delay) && delay.is_multiple_of(10), "{delay}");
        let (id, again) = phone.request(Method::Invite);
        assert!(again.headers.cseq.number > ours.headers.cseq.number);
        phone.answer(id, with_sdp(answer(&again, 200, "bob"), &sdp("bob", 2, "sendrecv")));
        phone.ack();
        assert!(matches!(phone.event(), SessionEvent::AnswerReceived { .. }));
    }
}

#[test]
fn an_offer_that_meets_491_for_ever_is_given_up() {
    let mut phone = phone();
    let (session, _, _) = phone.call_up();
    phone.act(|s, now| s.reoffer(now, session, sdp("alice2", 1, "sendrecv"))).unwrap();
    let mut tries = 0;
    while !phone.wishes.is_empty() {
        let (id, ours) = phone.request(Method::Invite);
        phone.answer(id, answer(&ours, 491, "bob"));
        phone.wait(secs(4));
        tries += 1;
    }
    assert_eq!(tries, 8);
    assert_eq!(phone.event(), SessionEvent::OfferRefused { fork: Fork(0), status: status(491) });
}

#[test]
fn a_second_offer_of_theirs_before_our_answer_is_answered_500_and_retry_after() {
    let mut phone = phone();
    let (session, mut peer) = phone.called_up();
    let first = phone.receive(peer.with_sdp(Method::Invite, &sdp("bob", 2, "sendrecv")));
    for method in [Method::Invite, Method::Update] {
        let second = phone.receive(peer.with_sdp(method, &sdp("bob", 3, "sendrecv")));
        let refusal = phone.response(second);
        assert_eq!(refusal.status.code(), 500);
        assert!(refusal.headers.retry_after().unwrap() <= 10);
    }
    phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
    assert_eq!(phone.response(first).status.code(), 200);
}

#[test]
fn our_offer_waits_while_theirs_is_open() {
    let mut phone = phone();
    let (session, mut peer) = phone.called_up();
    let theirs = peer.with_sdp(Method::Invite, &sdp("bob", 2, "sendrecv"));
    let cseq = theirs.headers.cseq.number;
    let id = phone.receive(theirs);
    phone.act(|s, now| s.reoffer(now, session, sdp("alice2", 1, "sendrecv"))).unwrap();
    phone.silent();
    phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
    assert_eq!(phone.response(id).status.code(), 200);
    // Nor before the ACK (RFC 3261 §14.1).
    phone.silent();
    phone.hear(Heard::Ack(Box::new(peer.ack(cseq))));
    phone.request(Method::Invite);
}

#[test]
fn a_hold_that_an_answer_of_ours_said_needs_no_offer() {
    let mut phone = phone();
    let (session, mut peer) = phone.called_up();
    let theirs = peer.with_sdp(Method::Invite, &sdp("bob", 2, "sendrecv"));
    let cseq = theirs.headers.cseq.number;
    let id = phone.receive(theirs);
    phone.act(|s, now| s.hold(now, session, true)).unwrap();
    phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))).unwrap();
    assert!(body(&phone.response(id).body).contains("a=sendonly"));
    phone.hear(Heard::Ack(Box::new(peer.ack(cseq))));
    phone.silent();
}

#[test]
fn a_refused_offer_leaves_what_holds() {
    let mut phone = phone();
    let (session, _, _) = phone.call_up();
    phone.act(|s, now| s.reoffer(now, session, sdp("alice2", 1, "sendrecv"))).unwrap();
    let (id, ours) = phone.request(Method::Invite);
    phone.answer(id, answer(&ours, 488, "bob"));
    assert_eq!(phone.event(), SessionEvent::OfferRefused { fork: Fork(0), status: status(488) });
    // The used version is not used again.
    phone.act(|s, now| s.hold(now, session, true)).unwrap();
    assert!(body(&phone.request(Method::Invite).1.body).contains("o=- 775 3 "));
}

#[test]
fn an_offer_of_theirs_is_refused_and_the_call_goes_on() {
    let mut phone = phone();
    let (session, mut peer) = phone.called_up();
    let id = phone.receive(peer.with_sdp(Method::Update, &sdp("bob", 2, "sendrecv")));
    phone.act(|s, now| s.refuse_offer(now, session, Fork(0), status(488))).unwrap();
    assert_eq!(phone.response(id).status.code(), 488);
    // One that nobody answers is refused too.
    let id = phone.receive(peer.with_sdp(Method::Invite, &sdp("bob", 3, "sendrecv")));
    phone.events.clear();
    phone.wait(secs(10));
    assert_eq!(phone.event(), SessionEvent::OfferWithdrawn { fork: Fork(0) });
    assert_eq!(phone.response(id).status.code(), 488);
    assert_eq!(phone.sessions.len(), 1);
}

#[test]
fn a_cancelled_reinvite_leaves_what_holds() {
    let mut phone = phone();
    let (session, mut peer) = phone.called_up();
    let id = phone.receive(peer.with_sdp(Method::Invite, &sdp("bob", 2, "inactive")));
    phone.event();
    phone.hear(Heard::Cancelled { id, reasons: Vec::new() });
    assert_eq!(phone.response(id).status.code(), 487);
    assert_eq!(phone.event(), SessionEvent::OfferWithdrawn { fork: Fork(0) });
    assert_eq!(phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice", 1, "sendrecv"))), Err(Misuse::NoOffer));
    phone.quiet();
}

#[test]
fn a_dialog_that_the_other_side_lost_is_over() {
    for (code, bye) in [(481, false), (408, true)] {
        let mut phone = phone();
        let (session, _, _) = phone.call_up();
        phone.act(|s, now| s.hold(now, session, true)).unwrap();
        let (id, ours) = phone.request(Method::Invite);
        phone.answer(id, answer(&ours, code, "bob"));
        assert_eq!(phone.wishes.len(), usize::from(bye));
        assert_eq!(phone.end().cause, EndCause::DialogLost(status(code)));
    }
    let mut phone = phone();
    let (session, _, _) = phone.call_up();
    phone.act(|s, now| s.hold(now, session, true)).unwrap();
    let (id, _) = phone.request(Method::Invite);
    phone.hear(Heard::Failed { id, why: Failure::TimedOut });
    phone.request(Method::Bye);
    assert_eq!(phone.end().cause, EndCause::Failed(Failure::TimedOut));
}

#[test]
fn while_it_rings_update_changes_what_was_agreed_reliably() {
    let mut phone = phone();
    let (session, id, invite) = phone.call();
    let change = |s: &mut offhook::sip::sessions::Sessions, now| s.reoffer(now, session, sdp("alice2", 1, "sendrecv"));
    assert_eq!(phone.act(change), Err(Misuse::NotUp));
    let mut early = with_sdp(reliable(answer(&invite, 183, "bob"), 1), &sdp("bob", 1, "sendrecv"));
    early.headers.push(Header::Allow(vec![Method::Invite, Method::Update]));
    phone.answer(id, early);
    let (prack_id, prack) = phone.request(Method::Prack);
    phone.act(change).unwrap();
    // It would overtake the PRACK.
    phone.silent();
    phone.answer(prack_id, answer(&prack, 200, "bob"));
    let (update_id, update) = phone.request(Method::Update);
    assert!(body(&update.body).contains("s=alice2"));
    phone.events.clear();
    phone.answer(update_id, with_sdp(answer(&update, 200, "bob"), &sdp("bob", 2, "sendrecv")));
    assert!(matches!(phone.event(), SessionEvent::AnswerReceived { early: true, .. }));
    // And theirs.
    let mut peer = peer_of(&invite, "bob");
    let theirs = phone.receive(peer.with_sdp(Method::Update, &sdp("bob", 3, "sendonly")));
    assert!(matches!(phone.event(), SessionEvent::OfferReceived { early: true, .. }));
    phone.act(|s, now| s.answer(now, session, Fork(0), sdp("alice3", 1, "sendrecv"))).unwrap();
    assert!(body(&phone.response(theirs).body).contains("a=recvonly"));
    phone.answer(id, answer(&invite, 200, "bob"));
    assert!(phone.ack().body.is_empty());
    assert!(matches!(phone.event(), SessionEvent::Accepted { .. }));
    assert_eq!(phone.event(), SessionEvent::Held(true));
}

#[test]
fn an_early_dialog_without_update_cannot_be_changed() {
    let mut phone = phone();
    let (session, id, invite) = phone.call();
    phone.answer(id, with_sdp(reliable(answer(&invite, 183, "bob"), 1), &sdp("bob", 1, "sendrecv")));
    assert!(matches!(
        phone.act(|s, now| s.reoffer(now, session, sdp("alice2", 1, "sendrecv"))),
        Err(Misuse::NotAllowed(_))
    ));
}

#[test]
fn digits_leave_one_after_the_other_and_arrive_in_every_known_form() {
    let mut phone = phone();
    let (session, _, mut peer) = phone.call_up();
    assert_eq!(phone.act(|s, now| s.info_dtmf(now, session, 'x', ms(100))), Err(Misuse::NotAKey));
    for key in ['1', '#', 'a'] {
        phone.act(|s, now| s.info_dtmf(now, session, key, ms(250))).unwrap();
    }
    for (key, code) in [('1', 200), ('#', 415), ('A', 200)] {
        let (id, info) = phone.request(Method::Info);
        phone.silent();
        assert_eq!(body(&info.body), format!("Signal={key}\r\nDuration=250\r\n"));
        assert!(info.headers.content_type().unwrap().is("application/dtmf-relay"));
        phone.answer(id, answer(&info, code, "bob"));
    }
    assert_eq!(phone.event(), SessionEvent::DtmfRefused { status: Some(status(415)) });
    for (kind, text, told) in [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", Some(('5', 160))),
        ("application/dtmf-relay", "signal= *\nduration= 90", Some(('*', 90))),
        ("application/dtmf-relay", "Signal=11", Some(('#', 160))),
        ("application/dtmf", "7", Some(('7', 160))),
        ("application/dtmf-relay", "Signal=Z", None),
    ] {
        let mut info = peer.request(Method::Info);
        info.set_body(ContentType::new(kind).unwrap(), text.as_bytes().to_vec());
        let id = phone.receive(info);
        assert_eq!(phone.response(id).status.code(), if told.is_some() { 200 } else { 400 });
        if let Some((key, duration)) = told {
            assert_eq!(phone.event(), SessionEvent::Dtmf { key, duration: ms(duration) });
        }
    }
    let empty = phone.receive(peer.request(Method::Info));
    assert_eq!(phone.response(empty).status.code(), 200);
    let mut other = peer.request(Method::Info);
    other.set_body(ContentType::new("application/media_control+xml").unwrap(), b"<x/>".to_vec());
    let other = phone.receive(other);
    assert_eq!(phone.response(other).status.code(), 415);
    let mut package = peer.request(Method::Info);
    package.headers.push(Header::Other(Token::lossy("Info-Package"), SipText::new("trickle-ice")));
    let package = phone.receive(package);
    assert_eq!(phone.response(package).status.code(), 469);
}

#[test]
fn a_refresh_that_is_too_brief_for_the_other_side_is_longer_the_next_time() {
    let mut phone = phone();
    let expires = SessionExpires { seconds: 100, refresher: Some(Refresher::Uac) };
    phone.call_up_with(|ok| {
        ok.headers.push(Header::SessionExpires(expires));
        ok.headers.push(Header::Allow(vec![Method::Update]));
    });
    phone.wait(secs(50));
    let (id, update) = phone.request(Method::Update);
    let mut brief = answer(&update, 422, "bob");
    brief.headers.push(Header::MinSe(200));
    phone.answer(id, brief);
    let (_, update) = phone.request(Method::Update);
    assert_eq!(update.headers.session_expires().unwrap().seconds, 200);
    // And theirs, where it is too brief for us.
    let mut phone = self::phone();
    let (_, mut peer) = phone.called_up();
    let mut update = peer.request(Method::Update);
    update.headers.push(Header::SessionExpires(SessionExpires { seconds: 30, refresher: None }));
    update.headers.push(Header::Supported(tokens(&["timer"])));
    let id = phone.receive(update);
    let brief = phone.response(id);
    assert_eq!((brief.status.code(), brief.headers.min_se()), (422, Some(90)));
}

#[test]
fn an_update_that_is_not_known_after_all_becomes_a_reinvite() {
    let mut phone = phone();
    let expires = SessionExpires { seconds: 100, refresher: Some(Refresher::Uac) };
    phone.call_up_with(|ok| {
        ok.headers.push(Header::SessionExpires(expires));
        ok.headers.push(Header::Allow(vec![Method::Update]));
    });
    phone.wait(secs(50));
    let (id, update) = phone.request(Method::Update);
    phone.answer(id, answer(&update, 501, "bob"));
    phone.request(Method::Invite);
}

#[test]
fn reasons_go_with_bye_and_cancel_and_come_with_bye() {
    let reason = Reason { protocol: Token::lossy("Q.850"), cause: Some(16), text: Some(SipText::new("bye\r\nX: y")) };
    let mut phone = phone();
    let (session, _, _) = phone.call_up();
    phone.act(|s, now| s.hang_up(now, session, vec![reason.clone()])).unwrap();
    assert_eq!(phone.request(Method::Bye).1.headers.reasons().next(), Some(&reason));
    let (session, _, _) = phone.call();
    phone.act(|s, now| s.hang_up(now, session, vec![reason.clone()])).unwrap();
    let Some((_, Wish::Cancel { headers, .. })) = phone.wishes.pop_front() else { panic!("no CANCEL") };
    assert_eq!(headers, [Header::Reason(reason.clone())]);
    phone.events.clear();
    let (_, mut peer) = phone.called_up();
    let mut bye = peer.request(Method::Bye);
    bye.headers.push(Header::Reason(reason.clone()));
    phone.receive(bye);
    assert_eq!(phone.end().reasons, [reason]);
}

#[test]
fn a_bye_answers_what_was_open_and_moves_no_more() {
    let mut phone = phone();
    let (_, mut peer) = phone.called_up();
    let open = phone.receive(peer.with_sdp(Method::Invite, &sdp("bob", 2, "sendrecv")));
    let bye = phone.receive(peer.request(Method::Bye));
    assert_eq!(phone.response(bye).status.code(), 200);
    assert_eq!(phone.response(open).status.code(), 487);
    assert_eq!(phone.sessions.lingering(), 0);
    // Both hang up at once.
    let (session, _, mut peer) = phone.call_up();
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    phone.request(Method::Bye);
    let bye = phone.receive(peer.request(Method::Bye));
    assert_eq!(phone.response(bye).status.code(), 200);
}

#[test]
fn a_new_contact_in_a_reinvite_is_where_the_next_request_goes() {
    let mut phone = phone();
    let (session, mut peer) = phone.called_up();
    let mut moved = peer.with_sdp(Method::Invite, &sdp("bob", 1, "sendrecv"));
    moved.headers.contact = vec![addr("sip:bob@203.0.113.77")];
    let cseq = moved.headers.cseq.number;
    phone.receive(moved);
    phone.wishes.clear();
    phone.hear(Heard::Ack(Box::new(peer.ack(cseq))));
    phone.act(|s, now| s.hang_up(now, session, Vec::new())).unwrap();
    assert_eq!(phone.request(Method::Bye).1.uri.to_string(), "sip:bob@203.0.113.77");
}

//! Jingle Message Initiation: who is heard, who rings, who stops ringing, and which of two crossed calls stands.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm
)]

use offhook::fault::ReasonCondition;
use offhook::jingle::invite::{
    Expected, InviteEvent, InviteInput, InviteMisuse, InviteTransmit, Invites, InvitesConfig, Over, STALE, Stopped, Via,
};
use offhook::wire::jid::{BareJid, Jid};
use offhook::wire::jingle::{Jmi, JmiKind, Proposed, Reason, Sid};
use offhook::wire::ns;
use std::time::{Duration, Instant};

const ROMEO: &str = "romeo@montague.example/orchard";
const PHONE: &str = "juliet@capulet.example/phone";
const TABLET: &str = "juliet@capulet.example/tablet";

fn jid(text: &str) -> Jid {
    Jid::new(text).unwrap()
}

fn bare(text: &str) -> BareJid {
    jid(text).to_bare()
}

fn sid(text: &str) -> Sid {
    Sid(text.into())
}

fn media(name: &str) -> Proposed {
    Proposed { ns: ns::RTP.into(), media: Some(name.into()) }
}

fn invites(local: &str) -> Invites {
    Invites::new(InvitesConfig {
        local: jid(local),
        timers: Default::default(),
        limits: Default::default(),
        rate: Default::default(),
    })
}

fn from(from: &str, id: &str, kind: JmiKind) -> InviteInput {
    InviteInput {
        from: jid(from),
        to: None,
        via: Via::Direct,
        age: None,
        contact: true,
        jmi: Jmi { id: sid(id), kind },
    }
}

fn propose(caller: &str, id: &str) -> InviteInput {
    from(caller, id, JmiKind::Propose(vec![media("audio")]))
}

fn carbon(input: InviteInput, outer: &str, to: &str) -> InviteInput {
    InviteInput { via: Via::Carbon { outer: Some(jid(outer)) }, to: Some(jid(to)), ..input }
}

fn events(i: &mut Invites) -> Vec<InviteEvent> {
    std::iter::from_fn(|| i.poll_event()).collect()
}

fn sent(i: &mut Invites) -> Vec<InviteTransmit> {
    std::iter::from_fn(|| i.poll_transmit()).collect()
}

fn calling(now: Instant) -> Invites {
    let mut i = invites(ROMEO);
    i.propose(now, bare(PHONE), sid("m"), vec![media("audio")]).unwrap();
    let out = sent(&mut i);
    assert_eq!((out.len(), &out[0].to), (1, &jid("juliet@capulet.example")));
    i
}

fn ringing(now: Instant) -> Invites {
    let mut i = invites(PHONE);
    i.handle_input(now, propose(ROMEO, "m"));
    assert!(matches!(&events(&mut i)[..], [InviteEvent::Incoming { crossed: None, replaces: None, .. }]));
    i
}

#[test]
fn the_first_device_of_the_callee_gets_the_call_and_nobody_else() {
    let now = Instant::now();
    let mut i = calling(now);
    let nobody = [
        from("mallory@evil.example/x", "m", JmiKind::Proceed),
        from("romeo@montague.example/desk", "m", JmiKind::Proceed),
        from("romeo@montague.example", "m", JmiKind::Proceed),
        from("room@muc.example/juliet", "m", JmiKind::Proceed),
        from(PHONE, "unknown", JmiKind::Proceed),
        from("juliet@capulet.example", "m", JmiKind::Proceed),
        carbon(from(PHONE, "m", JmiKind::Proceed), "mallory@evil.example", ROMEO),
        from("mallory@evil.example/x", "m", JmiKind::Reject { reason: None, tie_break: false }),
        from("mallory@evil.example/x", "m", JmiKind::Finish { reason: None, migrated: None }),
        from("mallory@evil.example/x", "m", JmiKind::Ringing),
    ];
    for input in nobody {
        i.handle_input(now, input);
        assert_eq!(events(&mut i), vec![]);
    }
    assert_eq!(i.forged(), 1);
    i.handle_input(now, from(PHONE, "m", JmiKind::Ringing));
    i.handle_input(now, from(TABLET, "m", JmiKind::Proceed));
    i.handle_input(now, from(TABLET, "m", JmiKind::Proceed));
    i.handle_input(now, from(PHONE, "m", JmiKind::Proceed));
    i.handle_input(now, from(PHONE, "m", JmiKind::Reject { reason: None, tie_break: false }));
    let expected =
        [InviteEvent::Ringing { id: sid("m"), by: jid(PHONE) }, InviteEvent::Proceed { id: sid("m"), to: jid(TABLET) }];
    assert_eq!(events(&mut i), expected);
    assert_eq!(sent(&mut i), vec![]);
}

#[test]
fn ringing_stops_however_the_call_ends_elsewhere_complaint_9() {
    let now = Instant::now();
    let own = "juliet@capulet.example";
    let rows = [
        (from(ROMEO, "m", JmiKind::Retract { reason: None, tie_break: false }), Stopped::Retracted(None)),
        (from(ROMEO, "m", JmiKind::Finish { reason: None, migrated: None }), Stopped::Finished(None)),
        (carbon(from(TABLET, "m", JmiKind::Proceed), own, ROMEO), Stopped::AnsweredElsewhere),
        // The 0.3 form: a copy to our own bare JID.
        (from(TABLET, "m", JmiKind::Accept), Stopped::AnsweredElsewhere),
        (
            carbon(from(TABLET, "m", JmiKind::Reject { reason: None, tie_break: false }), own, ROMEO),
            Stopped::RejectedElsewhere,
        ),
        (
            carbon(from(TABLET, "m", JmiKind::Finish { reason: None, migrated: None }), own, ROMEO),
            Stopped::Finished(None),
        ),
    ];
    for (input, why) in rows {
        let mut i = ringing(now);
        let forged = carbon(input.clone(), "mallory@evil.example", ROMEO);
        i.handle_input(now, forged);
        assert_eq!(events(&mut i), vec![], "a forged carbon is not heard");
        i.handle_input(now, input);
        assert_eq!(events(&mut i), [InviteEvent::Stopped { id: sid("m"), from: jid(ROMEO), why }]);
        // The same propose, resent, does not ring again.
        i.handle_input(now, propose(ROMEO, "m"));
        assert_eq!((events(&mut i), i.poll_timeout()), (vec![], None));
    }
}

#[test]
fn a_propose_from_long_ago_does_not_ring_complaint_9() {
    let now = Instant::now();
    let mut i = invites(PHONE);
    i.handle_input(now, InviteInput { age: Some(STALE + Duration::from_secs(1)), ..propose(ROMEO, "old") });
    i.handle_input(now, propose(ROMEO, "old"));
    assert_eq!(events(&mut i), vec![]);
    i.handle_input(now, InviteInput { age: Some(Duration::from_secs(5)), ..propose(ROMEO, "new") });
    assert_eq!(events(&mut i).len(), 1);
    let at = i.poll_timeout().unwrap();
    assert_eq!(at, now + Duration::from_secs(60));
    i.handle_timeout(at);
    assert!(matches!(&events(&mut i)[..], [InviteEvent::Stopped { why: Stopped::TimedOut, .. }]));
    assert_eq!(sent(&mut i), vec![]);
}

#[test]
fn a_stranger_gets_nothing_and_rings_nobody() {
    let now = Instant::now();
    let mut i = invites(PHONE);
    i.handle_input(now, InviteInput { contact: false, ..propose("mallory@evil.example/x", "m") });
    assert_eq!((events(&mut i), sent(&mut i), i.poll_timeout()), (vec![], vec![], None));
}

#[test]
fn crossed_proposes_leave_one_call_in_both_orders_complaint_14() {
    let now = Instant::now();
    for (romeos, juliets) in [("a", "b"), ("b", "a"), ("same", "same")] {
        for romeo_first in [true, false] {
            let (mut romeo, mut juliet) = (invites(ROMEO), invites(PHONE));
            romeo.propose(now, bare(PHONE), sid(romeos), vec![media("audio")]).unwrap();
            juliet.propose(now, bare(ROMEO), sid(juliets), vec![media("audio")]).unwrap();
            for round in 0..6 {
                let (one, other, name) = if (round % 2 == 0) == romeo_first {
                    (&mut romeo, &mut juliet, ROMEO)
                } else {
                    (&mut juliet, &mut romeo, PHONE)
                };
                for t in sent(one) {
                    other.handle_input(now, from(name, &t.jmi.id.0, t.jmi.kind));
                }
            }
            let mut heard = (0, 0);
            for e in events(&mut romeo).into_iter().chain(events(&mut juliet)) {
                match e {
                    InviteEvent::Incoming { crossed: Some(_), .. } => heard.0 += 1,
                    InviteEvent::Over { why: Over::Lost(_), .. } => heard.1 += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(heard, (1, 1), "{romeos} {juliets} {romeo_first}");
        }
    }
}

#[test]
fn a_lost_tie_says_expired_and_tie_break_on_both_sides() {
    let now = Instant::now();
    let expired = Some(Reason::new(ReasonCondition::Expired));
    // Ours is higher: it is retracted.
    let mut i = calling(now);
    i.handle_input(now, propose(PHONE, "a"));
    let out = sent(&mut i);
    assert_eq!(out[0].to, jid("juliet@capulet.example"));
    assert_eq!(out[0].jmi, Jmi { id: sid("m"), kind: JmiKind::Retract { reason: expired.clone(), tie_break: true } });
    // Ours is lower: theirs is rejected.
    let mut i = calling(now);
    i.handle_input(now, propose(PHONE, "z"));
    let out = sent(&mut i);
    assert_eq!(out[0].to, jid(PHONE));
    assert_eq!(out[0].jmi, Jmi { id: sid("z"), kind: JmiKind::Reject { reason: expired, tie_break: true } });
    assert_eq!(events(&mut i), vec![]);
}

#[test]
fn approval_is_for_what_was_proposed_complaint_15() {
    let now = Instant::now();
    let rows = [
        (ROMEO, "m", vec![media("audio")], Expected::Approved),
        (ROMEO, "m", vec![media("audio"), media("video")], Expected::OtherMedia),
        (ROMEO, "other", vec![media("audio")], Expected::Plain),
        ("romeo@montague.example/desk", "m", vec![media("audio")], Expected::Plain),
        ("mallory@evil.example/x", "m", vec![media("audio")], Expected::Plain),
    ];
    for (caller, id, offered, expected) in rows {
        let mut i = ringing(now);
        assert_eq!(i.expects(now, &jid(caller), &sid(id), &offered), Expected::Plain, "not before the user took it");
        i.proceed(now, &bare(ROMEO), &sid("m")).unwrap();
        assert_eq!(i.expects(now, &jid(caller), &sid(id), &offered), expected);
    }
    // Once only.
    let mut i = ringing(now);
    i.proceed(now, &bare(ROMEO), &sid("m")).unwrap();
    i.expects(now, &jid(ROMEO), &sid("m"), &[media("audio")]);
    assert_eq!(i.expects(now, &jid(ROMEO), &sid("m"), &[media("audio")]), Expected::Plain);
}

#[test]
fn an_offline_contact_is_asked_and_a_bounce_ends_it_complaint_33() {
    let now = Instant::now();
    let mut i = invites(ROMEO);
    i.propose(now, bare(PHONE), sid("m"), vec![media("audio")]).unwrap();
    let id = sent(&mut i)[0].id.clone();
    i.handle_bounce(&jid("mallory@evil.example"), &id);
    assert_eq!(events(&mut i), vec![]);
    i.handle_bounce(&jid("juliet@capulet.example"), &id);
    assert_eq!(events(&mut i), [InviteEvent::Over { id: sid("m"), why: Over::Undeliverable }]);
    assert_eq!(i.poll_timeout(), None);
}

#[test]
fn the_user_rings_takes_and_declines_to_the_device_that_called() {
    let now = Instant::now();
    let mut i = ringing(now);
    i.ring(now, &bare(ROMEO), &sid("m")).unwrap();
    i.proceed(now, &bare(ROMEO), &sid("m")).unwrap();
    let out = sent(&mut i);
    assert!(out.iter().all(|t| t.to == jid(ROMEO)));
    assert_eq!(out.into_iter().map(|t| t.jmi.kind).collect::<Vec<_>>(), [JmiKind::Ringing, JmiKind::Proceed]);
    assert_eq!(i.reject(now, &bare(ROMEO), &sid("m"), None), Err(InviteMisuse::Unknown));
    let mut i = ringing(now);
    i.reject(now, &bare(ROMEO), &sid("m"), None).unwrap();
    let reason = Some(Reason::new(ReasonCondition::Busy));
    assert_eq!(sent(&mut i)[0].jmi.kind, JmiKind::Reject { reason, tie_break: false });
    assert_eq!(i.poll_timeout(), None);
}

#[test]
fn a_taken_call_without_its_offer_is_over() {
    let now = Instant::now();
    let mut i = ringing(now);
    i.proceed(now, &bare(ROMEO), &sid("m")).unwrap();
    sent(&mut i);
    i.handle_timeout(i.poll_timeout().unwrap());
    assert!(matches!(&events(&mut i)[..], [InviteEvent::Stopped { why: Stopped::TimedOut, .. }]));
    assert!(matches!(sent(&mut i)[0].jmi.kind, JmiKind::Finish { .. }));
}

#[test]
fn an_unanswered_call_is_retracted() {
    let now = Instant::now();
    let mut i = calling(now);
    i.handle_timeout(i.poll_timeout().unwrap());
    assert_eq!(events(&mut i), [InviteEvent::Over { id: sid("m"), why: Over::TimedOut }]);
    let reason = Some(Reason::new(ReasonCondition::Cancel));
    assert_eq!(sent(&mut i)[0].jmi.kind, JmiKind::Retract { reason, tie_break: false });
}

#[test]
fn both_sides_say_finish_and_whoever_calls_anew_orphans_the_old_call() {
    let now = Instant::now();
    let mut i = calling(now);
    i.handle_input(now, from(PHONE, "m", JmiKind::Proceed));
    events(&mut i);
    i.handle_input(now, propose(TABLET, "n"));
    let out = sent(&mut i);
    assert_eq!(out[0].jmi.id, sid("m"));
    assert!(matches!(&out[0].jmi.kind, JmiKind::Finish { reason: Some(r), migrated: Some(to) }
        if r.condition == ReasonCondition::Expired && *to == sid("n")));
    assert!(matches!(&events(&mut i)[..], [InviteEvent::Incoming { replaces: Some(old), .. }] if *old == sid("m")));

    let mut i = calling(now);
    i.handle_input(now, from(PHONE, "m", JmiKind::Proceed));
    events(&mut i);
    i.finish(now, &bare(PHONE), &sid("m"), None, None).unwrap();
    assert_eq!(sent(&mut i)[0].to, jid(PHONE));
    assert_eq!(i.finish(now, &bare(PHONE), &sid("m"), None, None), Err(InviteMisuse::Unknown));

    let mut i = ringing(now);
    i.proceed(now, &bare(ROMEO), &sid("m")).unwrap();
    i.expects(now, &jid(ROMEO), &sid("m"), &[media("audio")]);
    i.handle_input(now, from(ROMEO, "m", JmiKind::Finish { reason: None, migrated: None }));
    assert!(matches!(&events(&mut i)[..], [InviteEvent::Finished { .. }]));
    assert_eq!(i.poll_timeout(), None);
}

#[test]
fn one_call_of_one_person_rings_and_a_flood_of_them_is_held_off() {
    let now = Instant::now();
    let mut i = invites(PHONE);
    let mut rang = 0;
    for n in 0..1_000 {
        i.handle_input(now, propose("mallory@evil.example/x", &format!("m{n}")));
        rang += events(&mut i).iter().filter(|e| matches!(e, InviteEvent::Incoming { .. })).count();
    }
    assert_eq!(rang, 8, "a burst, then silence");
    i.handle_input(now, propose(ROMEO, "m"));
    assert_eq!(events(&mut i).len(), 1);
}

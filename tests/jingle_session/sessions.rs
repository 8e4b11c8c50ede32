//! All sessions of one endpoint: strangers, crossed offers, ended ids, floods and caps.

use super::*;

fn sessions(local: &str, callers: Callers) -> Sessions {
    Sessions::new(SessionsConfig {
        local: jid(local),
        context: SessionContext::default(),
        callers,
        rate: Default::default(),
        redirect: None,
        seed: [3; 32],
    })
}

fn set(jingle: Jingle) -> SessionInput {
    SessionInput::Set { id: "q".into(), jingle: Box::new(jingle) }
}

fn reply(s: &mut Sessions) -> &'static str {
    match s.poll_transmit().expect("every set is answered").body {
        Body::Result => "ok",
        Body::Error(refusal) => refusal_name(&Some(refusal)),
        Body::Set(_) => panic!("the answer comes first"),
    }
}

fn offer_with(sid: &str) -> Jingle {
    Jingle { sid: Sid(sid.into()), ..offer(vec![audio(Creator::Initiator, "a")]) }
}

#[test]
fn stanzas_from_a_stranger_cannot_touch_or_find_a_call_complaint_38() {
    let now = Instant::now();
    let mut s = sessions(JULIET, Callers::Contacts);
    s.handle_input(now, &jid(ROMEO), true, set(offer_with("s")));
    assert_eq!(reply(&mut s), "ok");
    let id = s.poll_event().unwrap().0;
    let stranger = jid("mallory@evil.example/x");
    for action in Action::ALL {
        for (contact, answer) in [(false, "nobody"), (true, "unk")] {
            if *action == Action::SessionInitiate && contact {
                continue;
            }
            s.handle_input(now, &stranger, contact, set(plausible(*action, vec![audio(Creator::Initiator, "a")])));
            assert_eq!(reply(&mut s), answer, "{action}");
        }
    }
    assert!(s.poll_event().is_none() && s.poll_transmit().is_none());
    assert_eq!((s.len(), s.session(id).unwrap().phase()), (1, Phase::Pending));
}

#[test]
fn a_strangers_offer_leaves_no_trace() {
    let now = Instant::now();
    let mut s = sessions(JULIET, Callers::Contacts);
    s.handle_input(now, &jid("mallory@evil.example/x"), false, set(offer_with("s")));
    assert_eq!(reply(&mut s), "nobody");
    assert!(s.poll_event().is_none() && s.is_empty() && s.poll_timeout().is_none());
    let listed = Callers::Listed([jid(ROMEO).to_bare()].into());
    assert!(listed.admits(&jid(ROMEO), false) && !listed.admits(&jid("mallory@evil.example/x"), true));
}

#[test]
fn a_forged_result_leaves_the_iq_waiting() {
    let now = Instant::now();
    let mut s = sessions(ROMEO, Callers::Contacts);
    let id = s.initiate(now, jid(JULIET), None, vec![audio(Creator::Initiator, "a")], vec![]).unwrap();
    let iq = s.poll_transmit().unwrap().id;
    s.handle_input(now, &jid("mallory@evil.example/x"), true, SessionInput::Result { id: iq.clone() });
    assert!(s.poll_event().is_none());
    s.handle_input(now, &jid(JULIET), true, SessionInput::Result { id: iq });
    assert_eq!(s.poll_event(), Some((id, SessionEvent::Delivered)));
}

#[test]
fn crossed_offers_leave_one_session_in_both_orders_complaint_14() {
    let now = Instant::now();
    for (ours, theirs) in [("a1", "b1"), ("b1", "a1"), ("same", "same")] {
        let mut romeo = sessions(ROMEO, Callers::Contacts);
        let mut juliet = sessions(JULIET, Callers::Contacts);
        let audio = || vec![audio(Creator::Initiator, "a")];
        romeo.initiate(now, jid(JULIET), Some(Sid(ours.into())), audio(), vec![]).unwrap();
        juliet.initiate(now, jid(ROMEO), Some(Sid(theirs.into())), audio(), vec![]).unwrap();
        loop {
            let mut moved = false;
            while let Some(t) = romeo.poll_transmit() {
                moved = true;
                juliet.handle_input(now, &jid(ROMEO), true, carried(t));
            }
            while let Some(t) = juliet.poll_transmit() {
                moved = true;
                romeo.handle_input(now, &jid(JULIET), true, carried(t));
            }
            if !moved {
                break;
            }
        }
        let winner = if (ours, ROMEO) < (theirs, JULIET) && ours != theirs {
            ours
        } else if ours == theirs {
            // The lower JID is Juliet's.
            theirs
        } else {
            ours.min(theirs)
        };
        for s in [&romeo, &juliet] {
            assert_eq!(s.iter().map(|(_, s)| s.sid().0.as_str()).collect::<Vec<_>>(), [winner]);
        }
        let role = |s: &Sessions| s.iter().next().unwrap().1.role();
        assert_ne!(role(&romeo), role(&juliet));
    }
}

fn carried(t: offhook::jingle::session::SessionTransmit) -> SessionInput {
    match t.body {
        Body::Set(jingle) => SessionInput::Set { id: t.id, jingle },
        Body::Result => SessionInput::Result { id: t.id },
        Body::Error(r) => SessionInput::Error {
            id: t.id,
            error: IqError { condition: Some(r.answer.condition), jingle: r.answer.jingle, redirect: r.redirect },
        },
    }
}

#[test]
fn offers_that_are_not_equivalent_coexist() {
    let now = Instant::now();
    let mut s = sessions(ROMEO, Callers::Contacts);
    s.initiate(now, jid(JULIET), Some(Sid("a".into())), vec![audio(Creator::Initiator, "a")], vec![]).unwrap();
    s.poll_transmit();
    let mut film = offer_with("b");
    film.contents = vec![content(Creator::Initiator, "v", "video", Setup::Actpass)];
    s.handle_input(now, &jid(JULIET), true, set(film));
    assert_eq!((reply(&mut s), s.len()), ("ok", 2));
}

#[test]
fn an_ended_sid_answers_unknown_session_and_is_not_used_again() {
    let now = Instant::now();
    let mut s = sessions(JULIET, Callers::Contacts);
    s.handle_input(now, &jid(ROMEO), true, set(offer_with("s")));
    let (id, _) = s.poll_event().unwrap();
    s.act(id, |s| s.hang_up(now, None)).unwrap().unwrap();
    while s.poll_transmit().is_some() {}
    s.handle_input(now, &jid(ROMEO), true, set(trickle(1, 0)));
    assert_eq!(reply(&mut s), "unk");
    s.handle_input(now, &jid(ROMEO), true, set(offer_with("s")));
    assert_eq!(reply(&mut s), "ooo");
    assert_eq!(s.act(id, |_| ()), Err(Misuse::NoSession));
}

#[test]
fn a_flood_of_offers_is_held_off_and_an_honest_call_comes_through() {
    let now = Instant::now();
    let mut s = sessions(JULIET, Callers::Everyone);
    let mut rang = 0;
    for n in 0..10_000 {
        s.handle_input(now, &jid("mallory@evil.example/x"), false, set(offer_with(&n.to_string())));
        if reply(&mut s) == "ok" {
            rang += 1;
        }
    }
    assert_eq!((rang, s.len()), (1, 1), "one call of one person rings");
    s.handle_input(now, &jid(ROMEO), false, set(offer_with("honest")));
    assert_eq!(reply(&mut s), "ok");
}

#[test]
fn the_cap_on_sessions_is_resource_constraint() {
    let now = Instant::now();
    let mut context = SessionContext::default();
    context.limits.sessions = 2;
    let mut s = Sessions::new(SessionsConfig {
        local: jid(JULIET),
        context,
        callers: Callers::Everyone,
        rate: Default::default(),
        redirect: None,
        seed: [0; 32],
    });
    for (n, expected) in ["ok", "ok", "full"].into_iter().enumerate() {
        s.handle_input(now, &jid(&format!("u{n}@x.example/r")), true, set(offer_with("s")));
        assert_eq!(reply(&mut s), expected);
    }
}

#[test]
fn a_redirecting_endpoint_names_the_other_address() {
    let now = Instant::now();
    let mut s = sessions(JULIET, Callers::Everyone);
    s.set_redirect(Some(jid("juliet@capulet.example/hall")));
    s.handle_input(now, &jid(ROMEO), true, set(offer_with("s")));
    let Body::Error(refusal) = s.poll_transmit().unwrap().body else { panic!() };
    assert_eq!(refusal.redirect.as_deref(), Some("xmpp:juliet@capulet.example/hall"));
    assert_eq!(refusal_name(&Some(refusal)), "redirect");
}

#[test]
fn a_second_call_is_declined_as_busy_and_the_first_is_untouched_complaint_32() {
    let now = Instant::now();
    let mut s = sessions(JULIET, Callers::Everyone);
    s.handle_input(now, &jid(ROMEO), true, set(offer_with("s")));
    let (first, _) = s.poll_event().unwrap();
    let accept = answer(&[audio(Creator::Initiator, "a")]);
    s.act(first, |s| s.accept(now, accept, vec![])).unwrap().unwrap();
    s.handle_input(now, &jid("paris@verona.example/x"), true, set(offer_with("t")));
    let (second, _) = s.poll_event().unwrap();
    while s.poll_transmit().is_some() {}
    s.act(second, |s| s.reject(now, Reason::new(ReasonCondition::Busy))).unwrap().unwrap();
    let Body::Set(j) = s.poll_transmit().unwrap().body else { panic!() };
    assert_eq!(j.reason.unwrap().condition, ReasonCondition::Busy);
    assert_eq!(s.iter().map(|(id, s)| (id, s.phase())).collect::<Vec<_>>(), [(first, Phase::Active)]);
}

#[test]
fn what_cannot_be_read_is_a_bad_request_to_friends_and_nothing_to_strangers() {
    let mut s = sessions(JULIET, Callers::Contacts);
    let fault = offhook::fault::Malformed::MissingAttribute { element: "jingle", attribute: "sid" };
    for (contact, expected) in [(true, "bad"), (false, "nobody")] {
        s.handle_malformed(&jid(ROMEO), contact, "q".into(), &fault);
        assert_eq!(reply(&mut s), expected);
    }
}

#[test]
fn ours_have_sids_of_128_bits_that_differ() {
    let mut s = sessions(ROMEO, Callers::Contacts);
    let (a, b) = (s.new_sid(), s.new_sid());
    assert_eq!(a.0.len(), 32);
    assert_ne!(a, b);
    assert_eq!(SessionId(1).max(SessionId(2)), SessionId(2));
}

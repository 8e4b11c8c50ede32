//! Two endpoints' worth of [`Sessions`], a network that drops, doubles and reorders, and a small model of what must hold.
//!
//! One byte string is one sequence of operations, so that a seed replays it and a fuzzer can drive it.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]

use offhook::fault::ReasonCondition;
use offhook::jingle::content::ContentKey;
use offhook::jingle::session::{
    Body, IqError, Misuse, Phase, Role, SessionContext, SessionEvent, SessionInput, SessionTransmit,
};
use offhook::jingle::sessions::{Callers, SessionId, Sessions, SessionsConfig};
use offhook::wire::candidate::{Fingerprint, IceTransport, Setup, Transport};
use offhook::wire::description::{Description, Info, PayloadType, RtpDescription};
use offhook::wire::jid::Jid;
use offhook::wire::jingle::{Action, Content, Creator, Disposition, Jingle, Reason, Senders, Sid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// A content with everything a call needs.
pub fn content(creator: Creator, name: &str, media: &str, setup: Setup) -> Content {
    let rtp = RtpDescription {
        media: media.into(),
        payload_types: vec![PayloadType {
            id: 111,
            name: "opus".into(),
            clock_rate_hz: Some(48_000),
            channels: 2,
            ..PayloadType::default()
        }],
        rtcp_mux: true,
        ..RtpDescription::default()
    };
    let ice = IceTransport {
        ufrag: Some("ufrag".into()),
        pwd: Some("password-password-pass".into()),
        fingerprints: vec![Fingerprint { hash: "sha-256".into(), value: vec![7; 32], setup: Some(setup) }],
        ..IceTransport::default()
    };
    Content {
        creator,
        name: name.to_owned(),
        senders: Some(Senders::Both),
        disposition: Disposition::Session,
        description: Some(Description::Rtp(Box::new(rtp))),
        transport: Some(Transport::Ice(Box::new(ice))),
        security: None,
    }
}

/// Our halves of what was offered.
pub fn answer(offered: &[Content]) -> Vec<Content> {
    offered.iter().map(|c| content(c.creator, &c.name, "audio", Setup::Passive)).collect()
}

/// One side and what its user did.
pub struct Side {
    pub jid: Jid,
    pub sessions: Sessions,
    pub asked: BTreeMap<SessionId, Vec<Content>>,
    pub added: BTreeMap<SessionId, Vec<Content>>,
    pub replace: BTreeMap<SessionId, ContentKey>,
    /// Sids that the user of this side wants: called, or accepted.
    pub wanted: BTreeSet<Sid>,
    pub live: BTreeSet<SessionId>,
    pub events: usize,
    pub accepted: usize,
}

/// The two sides, what is on its way to each, and the clock.
pub struct World {
    pub now: Instant,
    pub sides: [Side; 2],
    pub network: [VecDeque<(String, Body)>; 2],
    /// True: nothing is lost, doubled or overtaken from now on.
    pub calm: bool,
    names: u32,
}

impl World {
    /// Nothing has happened yet.
    pub fn new(start: Instant, seed: u8) -> Self {
        let side = |name: &str, seed: u8| {
            let jid = Jid::new(name).unwrap();
            let mut context = SessionContext::default();
            context.limits.pending_per_peer = 2;
            let config = SessionsConfig {
                local: jid.clone(),
                context,
                callers: Callers::Everyone,
                rate: Default::default(),
                redirect: None,
                seed: [seed; 32],
            };
            Side {
                jid,
                sessions: Sessions::new(config),
                asked: BTreeMap::new(),
                added: BTreeMap::new(),
                replace: BTreeMap::new(),
                wanted: BTreeSet::new(),
                live: BTreeSet::new(),
                events: 0,
                accepted: 0,
            }
        };
        Self {
            now: start,
            sides: [side("romeo@montague.example/orchard", seed), side("juliet@capulet.example/balcony", !seed)],
            network: [VecDeque::new(), VecDeque::new()],
            calm: false,
            names: 0,
        }
    }

    /// Runs one sequence, then lets everything come to rest; `Err` says which promise was broken.
    pub fn run(&mut self, operations: &[u8]) -> Result<(), String> {
        for chunk in operations.chunks(3) {
            let (what, how, who) = (
                chunk[0],
                chunk.get(1).copied().unwrap_or_default(),
                usize::from(chunk.get(2).copied().unwrap_or_default() & 1),
            );
            self.step(what, how, who);
            self.check()?;
        }
        self.settle()
    }

    fn step(&mut self, what: u8, how: u8, who: usize) {
        match what % 24 {
            0 | 1 => self.call(who),
            2 | 3 => self.accept(who, how),
            4 => self.on_any(who, how, |s, now| s.hang_up(now, None)),
            5 => self.on_any(who, how, |s, now| s.hold(now, true)),
            6 => self.on_any(who, how, |s, now| s.mute(now, true, None)),
            7 => self.on_any(who, how, |s, now| s.ping(now)),
            8 => self.on_any(who, how, |s, now| s.ring(now)),
            9 => self.on_any(who, how, |s, now| s.reject(now, Reason::new(ReasonCondition::Busy))),
            10 => self.add(who, how),
            11 => self.answer_add(who, how),
            12 => self.on_content(who, how, |s, now, key| {
                let senders = Senders::ALL[usize::from(how >> 4) % Senders::ALL.len()];
                s.content_modify(now, key, senders)
            }),
            13 => self.on_content(who, how, |s, now, key| s.content_remove(now, key, None)),
            14 => self.on_content(who, how, |s, now, key| {
                let ice = IceTransport {
                    ufrag: Some(format!("u{}", how >> 4).into()),
                    pwd: Some("p".into()),
                    ..Default::default()
                };
                s.send_transport_info(now, key, ice)
            }),
            15 => self.on_content(who, how, |s, now, key| {
                let ice = content(key.creator, "x", "audio", Setup::Actpass).transport.unwrap();
                s.transport_replace(now, key, ice)
            }),
            16 => self.answer_replace(who, how),
            17 => self.forge(who, how),
            18 => {
                self.now += Duration::from_millis(u64::from(how) * 40);
                self.tick();
            }
            19 => {
                self.network[who].remove(usize::from(how) % self.network[who].len().max(1));
            }
            20 => {
                if let Some(copy) = self.network[who].get(usize::from(how) % self.network[who].len().max(1)).cloned() {
                    self.network[who].push_back(copy);
                }
            }
            21 => self.deliver(who, usize::from(how)),
            _ => self.deliver(who, 0),
        }
        self.collect();
    }

    fn call(&mut self, who: usize) {
        let peer = self.sides[1 - who].jid.clone();
        let offer = vec![content(Creator::Initiator, "a", "audio", Setup::Actpass)];
        let side = &mut self.sides[who];
        if let Ok(id) = side.sessions.initiate(self.now, peer, None, offer, Vec::new()) {
            side.wanted.insert(side.sessions.session(id).unwrap().sid().clone());
        }
    }

    fn accept(&mut self, who: usize, how: u8) {
        let side = &mut self.sides[who];
        let Some((id, offered)) = pick(&side.asked, how) else { return };
        let now = self.now;
        let sid = side.sessions.session(id).map(|s| s.sid().clone());
        let contents = answer(&offered);
        if side.sessions.act(id, |s| s.accept(now, contents, Vec::new())) == Ok(Ok(())) {
            side.wanted.insert(sid.unwrap());
        }
        side.asked.remove(&id);
    }

    fn add(&mut self, who: usize, how: u8) {
        self.names += 1;
        let name = format!("n{}", self.names);
        self.on_any(who, how, |s, now| {
            s.content_add(now, vec![content(s.role().creator(), &name, "video", Setup::Actpass)])
        });
    }

    fn answer_add(&mut self, who: usize, how: u8) {
        let now = self.now;
        let side = &mut self.sides[who];
        let Some((id, offered)) = pick(&side.added, how) else { return };
        side.added.remove(&id);
        let _ = side.sessions.act(id, |s| {
            if how & 0x80 == 0 {
                s.content_accept(now, answer(&offered))
            } else {
                s.content_reject(now, &ContentKey::of(&offered[0]), Reason::new(ReasonCondition::Decline))
            }
        });
    }

    fn answer_replace(&mut self, who: usize, how: u8) {
        let now = self.now;
        let side = &mut self.sides[who];
        let Some((id, key)) = pick(&side.replace, how) else { return };
        side.replace.remove(&id);
        let ice = content(key.creator, "x", "audio", Setup::Passive).transport.unwrap();
        let _ = side.sessions.act(id, |s| {
            if how & 0x80 == 0 { s.transport_accept(now, &key, ice) } else { s.transport_reject(now, &key) }
        });
    }

    /// A stanza that the peer's software never made: any action, for a sid that lives here.
    fn forge(&mut self, who: usize, how: u8) {
        let ids: Vec<Sid> = self.sides[who].sessions.iter().map(|(_, s)| s.sid().clone()).collect();
        let Some(sid) = ids.get(usize::from(how) % ids.len().max(1)) else { return };
        let action = Action::ALL[usize::from(how >> 3) % Action::ALL.len()];
        let mut jingle = Jingle::new(action, sid.clone());
        let creator = if how & 1 == 0 { Creator::Initiator } else { Creator::Responder };
        jingle.contents = vec![content(creator, "a", "audio", Setup::Active)];
        if action == Action::SessionInfo {
            jingle.info = Some(Info::Active);
        }
        let body = Body::Set(Box::new(jingle));
        self.network[who].push_back((format!("forged{how}"), body));
    }

    fn on_any(
        &mut self,
        who: usize,
        how: u8,
        verb: impl FnOnce(&mut offhook::jingle::session::Session, Instant) -> Result<(), Misuse>,
    ) {
        let now = self.now;
        let side = &mut self.sides[who];
        let ids: Vec<SessionId> = side.sessions.iter().map(|(id, _)| id).collect();
        if let Some(id) = ids.get(usize::from(how) % ids.len().max(1)) {
            let _ = side.sessions.act(*id, |s| verb(s, now));
        }
    }

    fn on_content(
        &mut self,
        who: usize,
        how: u8,
        verb: impl FnOnce(&mut offhook::jingle::session::Session, Instant, &ContentKey) -> Result<(), Misuse>,
    ) {
        self.on_any(who, how, |s, now| {
            let keys: Vec<ContentKey> = s.contents().map(|c| c.key.clone()).collect();
            match keys.get(usize::from(how >> 2) % keys.len().max(1)) {
                Some(key) => verb(s, now, key),
                None => Err(Misuse::NoContent),
            }
        });
    }

    /// Hands one stanza over, the one at `index` modulo what is on its way.
    fn deliver(&mut self, who: usize, index: usize) {
        let waiting = self.network[who].len().max(1);
        let Some((id, body)) = self.network[who].remove(index % waiting) else { return };
        let from = self.sides[1 - who].jid.clone();
        let input = match body {
            Body::Set(jingle) => SessionInput::Set { id, jingle },
            Body::Result => SessionInput::Result { id },
            Body::Error(refusal) => SessionInput::Error {
                id,
                error: IqError {
                    condition: Some(refusal.answer.condition),
                    jingle: refusal.answer.jingle,
                    redirect: refusal.redirect,
                },
            },
        };
        self.sides[who].sessions.handle_input(self.now, &from, true, input);
    }

    fn tick(&mut self) {
        for side in &mut self.sides {
            side.sessions.handle_timeout(self.now);
        }
    }

    fn collect(&mut self) {
        for who in 0..2 {
            while let Some(SessionTransmit { to, id, body }) = self.sides[who].sessions.poll_transmit() {
                assert_eq!(to, self.sides[1 - who].jid);
                self.network[1 - who].push_back((id, body));
            }
            let side = &mut self.sides[who];
            while let Some((id, event)) = side.sessions.poll_event() {
                side.events += 1;
                match event {
                    SessionEvent::Incoming { contents, .. } => {
                        side.asked.insert(id, contents);
                    }
                    SessionEvent::ContentAdded { contents } => {
                        side.added.insert(id, contents);
                    }
                    SessionEvent::TransportReplaceAsked { content, .. } => {
                        side.replace.insert(id, content);
                    }
                    SessionEvent::Accepted { .. } => side.accepted += 1,
                    SessionEvent::Ended(_) => {
                        side.asked.remove(&id);
                        side.added.remove(&id);
                        side.replace.remove(&id);
                        assert!(side.live.insert(id), "ended twice");
                    }
                    _ => {}
                }
            }
        }
    }

    /// What must hold after every operation.
    fn check(&self) -> Result<(), String> {
        for side in &self.sides {
            let mut seen = BTreeSet::new();
            for (id, session) in side.sessions.iter() {
                if session.consented() && !side.wanted.contains(session.sid()) {
                    return Err(format!("consent without the user: {}", session.sid()));
                }
                for content in session.contents() {
                    if session.may_send(&content.key) && !side.wanted.contains(session.sid()) {
                        return Err("media without the user".to_owned());
                    }
                }
                if session.role() == Role::Responder
                    && session.phase() == Phase::Active
                    && !side.wanted.contains(session.sid())
                {
                    return Err("active without the user".to_owned());
                }
                if !seen.insert((session.peer().clone(), session.sid().clone())) {
                    return Err(format!("doubled session {}", session.sid()));
                }
                if side.live.contains(&id) {
                    return Err("a session lives after its end".to_owned());
                }
            }
        }
        Ok(())
    }

    /// After all that: deliver everything, ping what lives, let time pass. Every session that only one side has ends.
    fn settle(&mut self) -> Result<(), String> {
        self.calm = true;
        self.drain()?;
        for _ in 0..3 {
            self.now += Duration::from_secs(61);
            self.tick();
            self.collect();
            self.drain()?;
        }
        for who in 0..2 {
            let now = self.now;
            let ids: Vec<SessionId> = self.sides[who].sessions.iter().map(|(id, _)| id).collect();
            for id in ids {
                let _ = self.sides[who].sessions.act(id, |s| s.ping(now));
            }
            self.collect();
            self.drain()?;
        }
        for who in 0..2 {
            for (_, session) in self.sides[who].sessions.iter() {
                if session.phase() != Phase::Active {
                    return Err(format!("still {:?} after all timers", session.phase()));
                }
                let there = self.sides[1 - who].sessions.find(&self.sides[who].jid, session.sid());
                if there.is_none() {
                    return Err("one side keeps a session that the other does not have".to_owned());
                }
            }
        }
        // Hang up what lives, on one side only; the other side learns it.
        for who in 0..2 {
            let now = self.now;
            let ids: Vec<SessionId> = self.sides[who].sessions.iter().map(|(id, _)| id).collect();
            for id in ids {
                let _ = self.sides[who].sessions.act(id, |s| s.hang_up(now, None));
            }
            self.collect();
            self.drain()?;
        }
        if self.sides.iter().any(|side| !side.sessions.is_empty() || side.sessions.poll_timeout().is_some()) {
            return Err("a session or a timer is left".to_owned());
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), String> {
        for _ in 0..4_000 {
            let Some(who) = (0..2).find(|who| !self.network[*who].is_empty()) else { return Ok(()) };
            self.deliver(who, 0);
            self.collect();
            self.check()?;
        }
        Err("the sides never stop talking".to_owned())
    }
}

fn pick<V: Clone>(from: &BTreeMap<SessionId, V>, how: u8) -> Option<(SessionId, V)> {
    let at = usize::from(how & 0x7f) % from.len().max(1);
    from.iter().nth(at).map(|(id, value)| (*id, value.clone()))
}

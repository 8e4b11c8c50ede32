//! Calls of the endpoint: the application's verbs, and what sessions, invitations and legs report about them.
//! Read XEP-0166 §6, XEP-0353 §3 and RFC 8838 §4 before touching this file.

use super::call::{Call, EARLY_TRANSPORTS, Offer, Stage};
use super::event::{CallId, Connected, EndKind, Ended, Event, Output, Party};
use super::{AddressPolicy, Endpoint, Misuse, offer};
use crate::fault::ReasonCondition;
use super::people::Reach;
use crate::jingle::content::{ContentKey, Direction, direction};
use crate::jingle::invite::{Expected, InviteEvent, Over, Stopped};
use crate::jingle::session::{End, EndedBy, SessionEvent};
use crate::jingle::sessions::SessionId;
use crate::media::audio::{AudioEvent, AudioPath};
use crate::media::codec;
use crate::transport::leg::{Carrier, Leg, LegConfig, LegEvent, LegFault, Protection};
use crate::transport::path::Route;
use crate::transport::srtp::SrtpProfile;
use crate::wire::candidate::{CandidateAddr, Fingerprint, IceTransport};
use crate::wire::description::Info;
use crate::wire::jid::Jid;
use crate::wire::jingle::{Content, Group, Proposed, Reason, Sid};
use crate::wire::ns;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Presence, capabilities and relays of the first moments after signing in are waited for at most this long.
const FIND_LIMIT: Duration = Duration::from_millis(1_500);
/// A device that a propose wakes up rings within this time.
const ABSENT_LIMIT: Duration = Duration::from_secs(8);

impl Endpoint {
    /// Calls somebody. A bare JID is called on the device that its presence recommends, or by asking all its devices
    /// (XEP-0353); a full JID is called there.
    ///
    /// # Errors
    /// [`Misuse::Offline`], [`Misuse::TooManyCalls`].
    pub fn call(&mut self, now: Instant, to: &Jid) -> Result<CallId, Misuse> {
        if !self.online() {
            return Err(Misuse::Offline);
        }
        if self.calls.len() >= self.config.context.limits.sessions {
            return Err(Misuse::TooManyCalls);
        }
        let sid = self.sessions.new_sid();
        let id = self.next_call_id();
        let mut call = Call::new(id, to.clone(), sid, Party::Local, Stage::Finding(now + FIND_LIMIT));
        call.wanted = Some(now);
        self.calls.insert(id, call);
        self.find_devices(now);
        self.pump(now);
        Ok(id)
    }

    /// Goes on with calls whose device is known now, or whose time to find one is over.
    pub(super) fn find_devices(&mut self, now: Instant) {
        let finding: Vec<(CallId, Instant, Jid)> = self
            .calls
            .values()
            .filter_map(|c| match c.stage {
                Stage::Finding(until) => Some((c.id, until, c.peer.clone())),
                Stage::Proposed(_)
                | Stage::Opening
                | Stage::Offered
                | Stage::AlertingInvite
                | Stage::AlertingOffer(_)
                | Stage::Proceeding
                | Stage::Answering(_)
                | Stage::Active => None,
            })
            .collect();
        for (id, until, to) in finding {
            let over = until <= now;
            let reach = if let Some(peer) = self.link.peer().filter(|_| self.link.serverless()) {
                Reach::Device(peer)
            } else if to.is_full() {
                Reach::Device(to.clone())
            } else {
                self.people.reach(&to.to_bare())
            };
            match reach {
                // Relays are learned in the same round trip as the roster.
                Reach::Device(_) if self.people.services_pending && !over => {}
                Reach::Device(device) => {
                    if let Some(call) = self.calls.get_mut(&id) {
                        call.peer = device;
                        call.stage = Stage::Opening;
                    }
                    self.open_sockets(id);
                }
                Reach::Everybody => self.propose(now, id, &to),
                Reach::Unknown if over => self.propose(now, id, &to),
                Reach::Unknown => {}
                Reach::Nobody => {
                    let text = "no device there takes calls".to_owned();
                    self.fail_call(now, id, EndKind::Unavailable, ReasonCondition::UnsupportedApplications, text);
                }
            }
        }
        self.give_up_the_absent(now);
    }

    fn propose(&mut self, now: Instant, id: CallId, to: &Jid) {
        let audio = Proposed { ns: ns::RTP.to_owned(), media: Some("audio".to_owned()) };
        let absent = self.people.seems_offline(&to.to_bare()).then(|| now + ABSENT_LIMIT);
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.stage = Stage::Proposed(absent);
        call.invited = true;
        let sid = call.sid.clone();
        if let Err(why) = self.invites.propose(now, to.to_bare(), sid, vec![audio]) {
            self.fail_call(now, id, EndKind::Limit, ReasonCondition::GeneralError, why.to_string());
        }
    }

    /// A propose may wake a sleeping device, so it is sent to absent people too; but not waited for long.
    fn give_up_the_absent(&mut self, now: Instant) {
        let absent: Vec<CallId> = self
            .calls
            .values()
            .filter(|c| matches!(c.stage, Stage::Proposed(Some(until)) if until <= now))
            .map(|c| c.id)
            .collect();
        for id in absent {
            let text = "the other side is not online".to_owned();
            self.fail_call(now, id, EndKind::Unavailable, ReasonCondition::Gone, text);
        }
    }

    /// When a call needs attention without any stanza or datagram.
    pub(super) fn calls_deadline(&self) -> Option<Instant> {
        self.calls
            .values()
            .filter_map(|c| match c.stage {
                Stage::Finding(until) | Stage::Proposed(Some(until)) => Some(until),
                Stage::Proposed(None)
                | Stage::Opening
                | Stage::Offered
                | Stage::AlertingInvite
                | Stage::AlertingOffer(_)
                | Stage::Proceeding
                | Stage::Answering(_)
                | Stage::Active => None,
            })
            .min()
    }

    /// Takes an incoming call: the local consent, which nothing else can give.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotRinging`].
    pub fn accept(&mut self, now: Instant, id: CallId) -> Result<(), Misuse> {
        let call = self.calls.get_mut(&id).ok_or(Misuse::NoCall)?;
        match std::mem::replace(&mut call.stage, Stage::Proceeding) {
            Stage::AlertingInvite => {
                call.wanted = Some(now);
                let (peer, sid) = (call.peer.to_bare(), call.sid.clone());
                self.invites.proceed(now, &peer, &sid).map_err(|_| Misuse::NotRinging)?;
            }
            Stage::AlertingOffer(offer) => {
                call.wanted = Some(now);
                call.stage = Stage::Answering(offer);
                self.open_sockets(id);
            }
            other @ (Stage::Finding(_)
            | Stage::Proposed(_)
            | Stage::Opening
            | Stage::Offered
            | Stage::Proceeding
            | Stage::Answering(_)
            | Stage::Active) => {
                call.stage = other;
                return Err(Misuse::NotRinging);
            }
        }
        self.pump(now);
        Ok(())
    }

    /// Declines an incoming call; `busy` or `decline` are the usual reasons.
    ///
    /// # Errors
    /// [`Misuse::NoCall`].
    pub fn reject(&mut self, now: Instant, id: CallId, reason: ReasonCondition) -> Result<(), Misuse> {
        self.end_call(now, id, Some(Reason::new(reason)))
    }

    /// Ends a call in whatever state it is.
    ///
    /// # Errors
    /// [`Misuse::NoCall`].
    pub fn hang_up(&mut self, now: Instant, id: CallId) -> Result<(), Misuse> {
        self.end_call(now, id, None)
    }

    pub(super) fn end_call(&mut self, now: Instant, id: CallId, reason: Option<Reason>) -> Result<(), Misuse> {
        let call = self.calls.get_mut(&id).ok_or(Misuse::NoCall)?;
        let (peer, sid) = (call.peer.to_bare(), call.sid.clone());
        if let Some(session) = call.session {
            // An ended session reports itself; a second end is no news.
            let _ = self.sessions.act(session, |s| match (&reason, s.consented()) {
                (Some(reason), false) => s.reject(now, reason.clone()).or_else(|_| s.hang_up(now, Some(reason.clone()))),
                (reason, _) => s.hang_up(now, reason.clone()),
            });
        } else {
            let condition = reason.as_ref().map(|r| r.condition);
            let default = match call.stage {
                Stage::Finding(_) => ReasonCondition::Cancel,
                Stage::Proposed(_) => {
                    let reason = reason.or_else(|| Some(Reason::new(ReasonCondition::Cancel)));
                    let _ = self.invites.retract(now, &sid, reason);
                    ReasonCondition::Cancel
                }
                Stage::AlertingInvite => {
                    let reason = reason.or_else(|| Some(Reason::new(ReasonCondition::Busy)));
                    let _ = self.invites.reject(now, &peer, &sid, reason);
                    ReasonCondition::Decline
                }
                Stage::Proceeding | Stage::Opening => {
                    let reason = reason.or_else(|| Some(Reason::new(ReasonCondition::Cancel)));
                    let _ = self.invites.finish(now, &peer, &sid, reason, None);
                    ReasonCondition::Cancel
                }
                Stage::Offered | Stage::AlertingOffer(_) | Stage::Answering(_) | Stage::Active => ReasonCondition::Success,
            };
            let end = End {
                reason: condition.unwrap_or(default),
                by: EndedBy::Local,
                text: None,
                alternative: None,
                redirect: None,
            };
            self.forget_call(now, id, &end);
        }
        self.pump(now);
        Ok(())
    }

    /// Puts the peer on hold or takes it back.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotActive`].
    pub fn hold(&mut self, now: Instant, id: CallId, on: bool) -> Result<(), Misuse> {
        let (session, call) = self.active(id)?;
        call.quiet.held_by_us = on;
        if let Some(audio) = &mut call.media.audio {
            audio.set_on_hold(call.quiet.held_by_us || call.quiet.held_by_peer);
        }
        self.sessions.act(session, |s| s.hold(now, on)).and_then(|r| r).map_err(|_| Misuse::NotActive)?;
        self.emit(Event::Hold { call: id, on, by: Party::Local });
        self.pump(now);
        Ok(())
    }

    /// Mutes the microphone or opens it again, and tells the peer.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotActive`].
    pub fn mute(&mut self, now: Instant, id: CallId, on: bool) -> Result<(), Misuse> {
        let (session, call) = self.active(id)?;
        if let Some(audio) = &mut call.media.audio {
            audio.set_muted(on);
        }
        self.sessions.act(session, |s| s.mute(now, on, None)).and_then(|r| r).map_err(|_| Misuse::NotActive)?;
        self.emit(Event::Mute { call: id, on, by: Party::Local });
        self.pump(now);
        Ok(())
    }

    /// Queues a DTMF digit: RFC 4733 in the media.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotActive`], [`Misuse::Digit`].
    pub fn send_digit(&mut self, id: CallId, digit: char) -> Result<(), Misuse> {
        let (_, call) = self.active(id)?;
        let audio = call.media.audio.as_mut().ok_or(Misuse::NotActive)?;
        audio.send_digit(digit).map_err(|why| Misuse::Digit(why.to_string()))
    }

    /// 20 ms of the microphone (960 samples, 48 kHz mono). `send` gets each datagram that is due; nothing is sent
    /// before both sides accepted.
    pub fn push_audio(&mut self, now: Instant, id: CallId, pcm: &[i16], send: &mut dyn FnMut(Route, &[u8])) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        // Threat "answered before accept": the local consent is checked at the last gate before the network.
        if !call.may_talk() {
            return;
        }
        let (Some(leg), Some(audio)) = (&mut call.media.leg, &mut call.media.audio) else { return };
        let datagram = &mut self.datagram;
        audio.push_pcm(now, pcm, &mut |rtp| {
            if let Some(route) = leg.send_rtp(now, rtp.payload_type, rtp.marker, rtp.time, rtp.payload, datagram) {
                send(route, datagram);
            }
        });
    }

    /// The next 10 or 20 ms of what is heard (480 or 960 samples, 48 kHz mono); silence while there is nothing.
    pub fn pull_audio(&mut self, now: Instant, id: CallId, pcm: &mut [i16]) {
        match self.calls.get_mut(&id).filter(|c| c.may_talk()).and_then(|c| c.media.audio.as_mut()) {
            Some(audio) => {
                audio.pull_pcm(now, pcm);
                self.drain_audio(now, id);
            }
            None => pcm.fill(0),
        }
    }

    fn drain_audio(&mut self, _now: Instant, id: CallId) {
        while let Some(event) = self.calls.get_mut(&id).and_then(|c| c.media.audio.as_mut()).and_then(|a| a.poll_event()) {
            match event {
                AudioEvent::Digit(digit) => self.emit(Event::Digit { call: id, digit }),
                AudioEvent::NoMedia => self.emit(Event::MediaSilent { call: id, silent: true }),
                AudioEvent::MediaBack => self.emit(Event::MediaSilent { call: id, silent: false }),
                AudioEvent::FirstFrame => {}
            }
        }
    }

    fn active(&mut self, id: CallId) -> Result<(SessionId, &mut Call), Misuse> {
        let call = self.calls.get_mut(&id).ok_or(Misuse::NoCall)?;
        match (call.session, &call.stage) {
            (Some(session), Stage::Active) => Ok((session, call)),
            _ => Err(Misuse::NotActive),
        }
    }

    fn open_sockets(&mut self, id: CallId) {
        let lab = self.config.media.lab;
        self.outputs.push_back(Output::OpenSockets { call: id, lab });
    }

    /// Sockets for a call are bound: now, and not before, a leg exists and something may be sent.
    pub(super) fn handle_sockets(&mut self, now: Instant, id: CallId, bound: &[SocketAddr]) {
        let Some(call) = self.calls.get(&id) else {
            self.outputs.push_back(Output::CloseSockets(id));
            return;
        };
        if bound.is_empty() {
            self.fail_call(now, id, EndKind::MediaFailed, ReasonCondition::FailedTransport, "no UDP socket could be bound".into());
            return;
        }
        let mut leg = self.new_leg(now, matches!(call.stage, Stage::Opening));
        for local in bound {
            self.routes.insert(*local, id);
        }
        leg.handle_sockets(now, bound);
        if let Some(call) = self.calls.get_mut(&id) {
            call.media.leg = Some(Box::new(leg));
        }
        self.drain_leg(now, id);
        let Some(call) = self.calls.get_mut(&id) else { return };
        match std::mem::replace(&mut call.stage, Stage::Offered) {
            Stage::Opening => self.send_offer(now, id),
            Stage::Answering(offer) => self.send_answer(now, id, *offer),
            other @ (Stage::Finding(_)
            | Stage::Proposed(_)
            | Stage::Offered
            | Stage::AlertingInvite
            | Stage::AlertingOffer(_)
            | Stage::Proceeding
            | Stage::Active) => call.stage = other,
        }
    }

    fn new_leg(&mut self, now: Instant, initiator: bool) -> Leg {
        let mut config = LegConfig::new(initiator, Arc::clone(&self.identity));
        let relay_only = self.config.media.relay_only || self.config.address_policy == AddressPolicy::RelayOnly;
        config.carrier = Carrier::Ice { servers: self.ice_servers(), relay_only, lab: self.config.media.lab };
        config.max_remote_candidates = self.config.context.limits.remote_candidates;
        config.cname = Some(self.cname.clone());
        debug_assert!(matches!(config.protection, Protection::Dtls(_)));
        let wall = self.wall(now);
        let seed = self.next_seed();
        Leg::new(now, wall, seed, config)
    }

    fn send_offer(&mut self, now: Instant, id: CallId) {
        let payload_types = codec::offer(&self.config.media.codecs);
        let cname = self.cname.clone();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(leg) = &call.media.leg else { return };
        let candidates = std::mem::take(&mut call.media.unsent);
        let (content, groups) = offer::offered(payload_types.clone(), leg, &cname, candidates);
        call.media.content = Some(ContentKey::of(&content));
        call.media.offered = payload_types;
        let (peer, sid) = (call.peer.clone(), call.sid.clone());
        match self.sessions.initiate(now, peer, Some(sid), vec![content], groups) {
            Ok(session) => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.session = Some(session);
                    self.by_session.insert(session, id);
                }
                self.send_candidates(now, id);
            }
            Err(why) => {
                self.fail_call(now, id, EndKind::Limit, ReasonCondition::GeneralError, why.to_string());
            }
        }
    }

    fn send_answer(&mut self, now: Instant, id: CallId, offer: Offer) {
        let preference = self.config.media.codecs.clone();
        let cname = self.cname.clone();
        let Some(negotiated) = offer::rtp(&offer.content).and_then(|d| codec::answer(&d.payload_types, &preference)) else {
            // J167-12
            let text = "no codec in common".to_owned();
            self.fail_call(now, id, EndKind::Unavailable, ReasonCondition::FailedApplication, text);
            return;
        };
        let seed = self.next_number();
        let audio = match AudioPath::new(seed, negotiated.clone(), self.config.media.audio) {
            Ok(audio) => audio,
            Err(why) => {
                return self.fail_call(now, id, EndKind::Failed, ReasonCondition::MediaError, why.to_string());
            }
        };
        let theirs = offer::ice(&offer.content).cloned().unwrap_or_default();
        self.apply_remote(now, id, &theirs);
        let early = self.calls.get_mut(&id).map(|c| std::mem::take(&mut c.media.early)).unwrap_or_default();
        for transport in early {
            self.apply_remote(now, id, &transport);
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(leg) = &call.media.leg else { return };
        let candidates = std::mem::take(&mut call.media.unsent);
        let (content, groups) = offer::answered(&offer.content, &offer.groups, &negotiated, leg, &cname, candidates);
        call.media.content = Some(ContentKey::of(&content));
        call.media.settle(negotiated, audio);
        call.stage = Stage::Active;
        let Some(session) = call.session else { return };
        match self.sessions.act(session, |s| s.accept(now, vec![content], groups)).and_then(|r| r) {
            Ok(()) => {
                self.emit(Event::Accepted(id));
                self.send_candidates(now, id);
            }
            Err(why) => self.fail_call(now, id, EndKind::Failed, ReasonCondition::GeneralError, why.to_string()),
        }
    }

    /// Signals what was gathered since the last time.
    fn send_candidates(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(session), Some(content), Some(leg)) = (call.session, &call.media.content, &call.media.leg) else { return };
        if call.media.unsent.is_empty() && !call.media.gathered {
            return;
        }
        let news = offer::trickle(leg, std::mem::take(&mut call.media.unsent), std::mem::take(&mut call.media.gathered));
        let content = content.clone();
        // A session that has just ended needs no candidates.
        let _ = self.sessions.act(session, |s| s.send_transport_info(now, &content, news));
    }

    /// What the peer said about its transport. A pinned certificate is compared here, before any packet.
    fn apply_remote(&mut self, now: Instant, id: CallId, transport: &IceTransport) {
        if !self.fingerprint_allowed(&transport.fingerprints) {
            let text = "the peer's certificate is not the one that --require-fingerprint names".to_owned();
            self.fail_call(now, id, EndKind::Security, ReasonCondition::SecurityError, text);
            return;
        }
        let Some(leg) = self.calls.get_mut(&id).and_then(|c| c.media.leg.as_mut()) else { return };
        if transport.creds().is_some() || !transport.fingerprints.is_empty() {
            leg.set_remote(now, transport.creds(), &transport.fingerprints);
        }
        for candidate in &transport.candidates {
            if let Err(why) = leg.add_remote_candidate(now, candidate) {
                let hidden = matches!(candidate.addr, CandidateAddr::Mdns(_));
                tracing::debug!(call = id.0, hidden, %why, "a candidate is left out");
            }
        }
        if transport.gathering_complete {
            leg.end_of_remote_candidates(now);
        }
    }

    fn fingerprint_allowed(&self, signalled: &[Fingerprint]) -> bool {
        match &self.config.media.require_fingerprint {
            Some(required) => signalled.is_empty() || signalled.iter().any(|f| &f.value == required),
            None => true,
        }
    }

    /// Ends a call for a fault of ours or of its media; the peer hears the reason.
    pub(super) fn fail_call(&mut self, now: Instant, id: CallId, kind: EndKind, reason: ReasonCondition, text: String) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let wire = Reason { text: Some(text.clone()), ..Reason::new(reason) };
        call.fault.get_or_insert((kind, text));
        // `NoCall` cannot happen here, and an ended session has reported itself.
        let _ = self.end_call(now, id, Some(wire));
    }

    pub(super) fn forget_call(&mut self, now: Instant, id: CallId, end: &End) {
        let Some(mut call) = self.calls.remove(&id) else { return };
        if let Some(session) = call.session {
            self.by_session.remove(&session);
        }
        if let Some(leg) = &mut call.media.leg {
            leg.close(now);
            while let Some(transmit) = leg.poll_transmit() {
                self.outputs.push_back(Output::Transmit(transmit));
            }
            self.outputs.push_back(Output::CloseSockets(id));
        } else if matches!(call.stage, Stage::Opening | Stage::Answering(_)) {
            self.outputs.push_back(Output::CloseSockets(id));
        }
        self.routes.retain(|_, owner| *owner != id);
        if call.invited && call.session.is_some() {
            let reason = Reason::new(end.reason);
            // The invitation may be gone already.
            let _ = self.invites.finish(now, &call.peer.to_bare(), &call.sid, Some(reason), None);
        }
        let how = Box::new(call.ended(now, end));
        tracing::info!(call = id.0, sid = %call.sid, reason = %end.reason, "call ended");
        self.emit(Event::Ended { call: id, how });
    }

    pub(super) fn handle_session_event(&mut self, now: Instant, session: SessionId, event: SessionEvent) {
        if let SessionEvent::Incoming { contents, groups } = event {
            return self.handle_offer(now, session, &contents, groups);
        }
        let Some(id) = self.by_session.get(&session).copied() else { return };
        match event {
            SessionEvent::Incoming { .. } | SessionEvent::Delivered | SessionEvent::InfoUnsupported => {}
            SessionEvent::Ringing => self.emit(Event::Ringing(id)),
            SessionEvent::Accepted { contents, .. } => self.handle_answer(now, id, &contents),
            SessionEvent::RemoteTransport { transport, .. } => {
                let Some(call) = self.calls.get_mut(&id) else { return };
                if call.media.leg.is_some() {
                    self.apply_remote(now, id, &transport);
                    self.drain_leg(now, id);
                } else if call.media.early.len() < EARLY_TRANSPORTS {
                    call.media.early.push(transport);
                }
            }
            SessionEvent::RemoteInfo(info) => self.handle_info(id, &info),
            SessionEvent::ContentAdded { contents } => {
                // One audio content is all that an application of this crate can use so far.
                let reason = Reason::new(ReasonCondition::UnsupportedApplications);
                for content in contents {
                    let key = ContentKey::of(&content);
                    let _ = self.sessions.act(session, |s| s.content_reject(now, &key, reason.clone()));
                }
            }
            SessionEvent::ContentModified { content, senders } => {
                let Some(role) = self.sessions.session(session).map(crate::jingle::session::Session::role) else { return };
                let on = matches!(direction(senders, role), Direction::RecvOnly | Direction::Inactive);
                if self.calls.get(&id).is_some_and(|c| c.media.content.as_ref() == Some(&content)) {
                    self.set_held_by_peer(id, on);
                }
            }
            SessionEvent::TransportReplaceAsked { content, .. } => {
                let _ = self.sessions.act(session, |s| s.transport_reject(now, &content));
            }
            SessionEvent::DescriptionChanged { .. }
            | SessionEvent::ContentAccepted { .. }
            | SessionEvent::ContentRejected { .. }
            | SessionEvent::ContentRemoved { .. }
            | SessionEvent::TransportReplaced { .. }
            | SessionEvent::TransportReplaceRefused { .. } => {}
            SessionEvent::Ended(end) => self.forget_call(now, id, &end),
        }
    }

    fn handle_info(&mut self, id: CallId, info: &Info) {
        match info {
            Info::Hold => self.set_held_by_peer(id, true),
            Info::Unhold => self.set_held_by_peer(id, false),
            // J167-23: active ends hold and mute of everything.
            Info::Active => {
                self.set_held_by_peer(id, false);
                self.emit(Event::Mute { call: id, on: false, by: Party::Remote });
            }
            Info::Mute(_) => self.emit(Event::Mute { call: id, on: true, by: Party::Remote }),
            Info::Unmute(_) => self.emit(Event::Mute { call: id, on: false, by: Party::Remote }),
            Info::Dtmf(digit) => self.emit(Event::Digit { call: id, digit: *digit }),
            Info::Ringing | Info::Received(..) | Info::Checksum(..) | Info::Unknown { .. } => {}
        }
    }

    fn set_held_by_peer(&mut self, id: CallId, on: bool) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.quiet.held_by_peer == on {
            return;
        }
        call.quiet.held_by_peer = on;
        if let Some(audio) = &mut call.media.audio {
            // J167-21: stop sending; J167-22: what arrives is still played.
            audio.set_on_hold(call.quiet.held_by_us || call.quiet.held_by_peer);
        }
        self.emit(Event::Hold { call: id, on, by: Party::Remote });
    }

    /// A session-initiate that may come in: a call that was proposed and taken, or a new one.
    fn handle_offer(&mut self, now: Instant, session: SessionId, contents: &[Content], groups: Vec<Group>) {
        let Some((peer, sid)) = self.sessions.session(session).map(|s| (s.peer().clone(), s.sid().clone())) else { return };
        let media: Vec<Proposed> = contents
            .iter()
            .filter_map(offer::rtp)
            .map(|d| Proposed { ns: ns::RTP.to_owned(), media: Some(d.media.clone()) })
            .collect();
        let Some(content) = offer::audio(contents).cloned() else {
            // J166-03: acknowledged, then terminated; nothing rings.
            let reason = Reason::new(ReasonCondition::UnsupportedApplications);
            let _ = self.sessions.act(session, |s| s.reject(now, reason));
            return;
        };
        let offer = Box::new(Offer { content, groups });
        let invited = self.calls.values().find(|c| c.sid == sid && c.peer.to_bare() == peer.to_bare()).map(|c| c.id);
        let expected = self.invites.expects(now, &peer, &sid, &media);
        match (expected, invited) {
            (Expected::Approved, Some(id)) => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.peer = peer;
                    call.session = Some(session);
                    call.stage = Stage::Answering(offer);
                    self.by_session.insert(session, id);
                    self.open_sockets(id);
                }
            }
            (Expected::OtherMedia | Expected::Plain | Expected::Approved, _) => {
                let id = invited.unwrap_or_else(|| self.next_call_id());
                let mut call = Call::new(id, peer.clone(), sid.clone(), Party::Remote, Stage::AlertingOffer(offer));
                call.session = Some(session);
                call.invited = invited.is_some();
                self.calls.insert(id, call);
                self.by_session.insert(session, id);
                let _ = self.sessions.act(session, |s| s.ring(now));
                let media = media.into_iter().filter_map(|p| p.media).collect();
                self.emit(Event::Incoming { call: id, sid, from: peer, media });
            }
        }
    }

    fn handle_answer(&mut self, now: Instant, id: CallId, contents: &[Content]) {
        let preference = self.config.media.codecs.clone();
        let seed = self.next_number();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let theirs = offer::audio(contents);
        let negotiated = theirs
            .and_then(offer::rtp)
            .and_then(|d| codec::accepted(&call.media.offered, &d.payload_types, &preference));
        let (Some(theirs), Some(negotiated)) = (theirs, negotiated) else {
            let text = "no codec in common".to_owned();
            return self.fail_call(now, id, EndKind::Unavailable, ReasonCondition::FailedApplication, text);
        };
        match AudioPath::new(seed, negotiated.clone(), self.config.media.audio) {
            Ok(audio) => call.media.settle(negotiated, audio),
            Err(why) => return self.fail_call(now, id, EndKind::Failed, ReasonCondition::MediaError, why.to_string()),
        }
        call.stage = Stage::Active;
        if let Some(transport) = offer::ice(theirs).cloned() {
            self.apply_remote(now, id, &transport);
        }
        self.emit(Event::Accepted(id));
        self.drain_leg(now, id);
    }

    pub(super) fn handle_invite_event(&mut self, now: Instant, event: InviteEvent) {
        match event {
            InviteEvent::Ringing { id, .. } => {
                if let Some(id) = self.our_invitation(&id) {
                    if let Some(call) = self.calls.get_mut(&id)
                        && matches!(call.stage, Stage::Proposed(_))
                    {
                        call.stage = Stage::Proposed(None);
                    }
                    self.emit(Event::Ringing(id));
                }
            }
            InviteEvent::Proceed { id, to } => {
                let Some(call) = self.our_invitation(&id) else { return };
                if let Some(call) = self.calls.get_mut(&call) {
                    call.peer = to;
                    call.stage = Stage::Opening;
                }
                self.open_sockets(call);
            }
            InviteEvent::Over { id, why } => {
                let Some(call) = self.our_invitation(&id) else { return };
                let (reason, by) = match why {
                    Over::Rejected(reason) => (reason.map_or(ReasonCondition::Decline, |r| r.condition), EndedBy::Remote),
                    Over::Lost(_) => (ReasonCondition::Expired, EndedBy::TieBreak),
                    Over::Undeliverable => (ReasonCondition::Gone, EndedBy::Refused(None)),
                    Over::TimedOut => (ReasonCondition::Timeout, EndedBy::Timeout),
                };
                // A rejection is one whatever word the peer's device chose for it.
                if by == EndedBy::Remote
                    && let Some(call) = self.calls.get_mut(&call)
                {
                    call.fault.get_or_insert((EndKind::Rejected, format!("{} ({reason})", "the call was declined")));
                }
                self.forget_call(now, call, &End { reason, by, text: None, alternative: None, redirect: None });
            }
            InviteEvent::Incoming { id, from, proposed, replaces, .. } => {
                if let Some(old) = replaces.and_then(|sid| self.calls.values().find(|c| c.sid == sid).map(|c| c.id)) {
                    let _ = self.end_call(now, old, Some(Reason::new(ReasonCondition::Expired)));
                }
                let media: Vec<String> =
                    proposed.into_iter().filter(|p| p.ns == ns::RTP).filter_map(|p| p.media).collect();
                if !media.iter().any(|m| m == "audio") {
                    return;
                }
                let call_id = self.next_call_id();
                let mut call = Call::new(call_id, from.clone(), id.clone(), Party::Remote, Stage::AlertingInvite);
                call.invited = true;
                self.calls.insert(call_id, call);
                let _ = self.invites.ring(now, &from.to_bare(), &id);
                self.emit(Event::Incoming { call: call_id, sid: id, from, media });
            }
            InviteEvent::Stopped { id, from, why } => {
                let peer = from.to_bare();
                let Some(call) = self
                    .calls
                    .values()
                    .find(|c| c.sid == id && c.peer.to_bare() == peer && c.session.is_none())
                    .map(|c| c.id)
                else {
                    return;
                };
                let (reason, by, text) = match why {
                    Stopped::Retracted(reason) => {
                        (reason.map_or(ReasonCondition::Cancel, |r| r.condition), EndedBy::Remote, None)
                    }
                    Stopped::AnsweredElsewhere => {
                        (ReasonCondition::Cancel, EndedBy::Local, Some("answered on another device".to_owned()))
                    }
                    Stopped::RejectedElsewhere => {
                        (ReasonCondition::Decline, EndedBy::Local, Some("declined on another device".to_owned()))
                    }
                    Stopped::Finished(reason) => {
                        (reason.map_or(ReasonCondition::Expired, |r| r.condition), EndedBy::Remote, None)
                    }
                    Stopped::TimedOut => (ReasonCondition::Timeout, EndedBy::Timeout, None),
                };
                self.forget_call(now, call, &End { reason, by, text, alternative: None, redirect: None });
            }
            InviteEvent::Finished { .. } => {}
        }
    }

    fn our_invitation(&self, sid: &Sid) -> Option<CallId> {
        self.calls.values().find(|c| &c.sid == sid && c.caller == Party::Local).map(|c| c.id)
    }

    /// Everything that a leg has to say.
    pub(super) fn drain_leg(&mut self, now: Instant, id: CallId) {
        let mut news = false;
        while let Some(event) = self.calls.get_mut(&id).and_then(|c| c.media.leg.as_mut()).and_then(|l| l.poll_event()) {
            let Some(call) = self.calls.get_mut(&id) else { return };
            match event {
                LegEvent::LocalCandidate(candidate) => {
                    call.media.candidates.push(candidate.clone());
                    call.media.unsent.push(candidate);
                    news = true;
                }
                LegEvent::GatheringComplete => {
                    call.media.gathered = true;
                    news = true;
                }
                LegEvent::Resolve(name) => self.resolve(name),
                LegEvent::IceConnected { .. } => {}
                LegEvent::Connected { local, remote, path, profile, fingerprint } => {
                    call.connected = Some(now);
                    let setup = call.wanted.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
                    let Some(codec) = call.media.negotiated.as_ref().map(|n| n.send) else { continue };
                    let profile = profile.map(SrtpProfile::sdes_name);
                    let dtls_fingerprint = fingerprint.as_ref().map(offer::fingerprint_text);
                    let facts =
                        Box::new(Connected { setup, kinds: (local, remote), path, codec, dtls_fingerprint, profile });
                    self.emit(Event::Connected { call: id, facts });
                }
                LegEvent::PathChanged { local, remote, path } => {
                    self.emit(Event::PathChanged { call: id, kinds: (local, remote), path });
                }
                LegEvent::ServerFailed { why, .. } => tracing::info!(call = id.0, %why, "a STUN or TURN server is of no use"),
                LegEvent::PathLost => tracing::info!(call = id.0, "the media path is silent"),
                LegEvent::PathRestored => tracing::info!(call = id.0, "the media path is back"),
                LegEvent::Restarted(_) => {
                    // J176-19: new credentials with all candidates; `trickle` reads the new ones from the leg.
                    call.media.unsent.clone_from(&call.media.candidates);
                    news = true;
                }
                LegEvent::Bye(_) => {}
                LegEvent::Closed => {
                    // The signalling says so too, unless it is gone (threat: server killed in a call).
                    if !self.online() {
                        let end = End {
                            reason: ReasonCondition::Success,
                            by: EndedBy::Remote,
                            text: None,
                            alternative: None,
                            redirect: None,
                        };
                        return self.forget_call(now, id, &end);
                    }
                }
                LegEvent::Failed(fault) => {
                    let (kind, reason) = match fault {
                        LegFault::FingerprintMismatch => (EndKind::Security, ReasonCondition::SecurityError),
                        LegFault::Dtls(_) => (EndKind::MediaFailed, ReasonCondition::SecurityError),
                        LegFault::NoPath | LegFault::ConsentLost | LegFault::Timeout => {
                            (EndKind::MediaFailed, ReasonCondition::ConnectivityError)
                        }
                    };
                    return self.fail_call(now, id, kind, reason, fault.to_string());
                }
            }
        }
        if news {
            self.send_candidates(now, id);
        }
    }

    /// What RTCP says: the peer's loss steers the encoder's FEC, and packets show that the peer is there (J166-18).
    pub(super) fn follow_reports(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(leg), Some(audio)) = (&call.media.leg, &mut call.media.audio) else { return };
        let rtcp = leg.stats(now).rtcp;
        if let Some(lost) = rtcp.loss_out_fraction {
            audio.set_reported_loss(f64::from(lost));
        }
        if rtcp.packets_in != call.media.packets_seen {
            call.media.packets_seen = rtcp.packets_in;
            if let Some(session) = call.session {
                // An ended session needs no sign of life.
                let _ = self.sessions.act(session, |s| s.traffic(now));
            }
        }
    }

    /// A call that can no longer be reached through signalling and never had media.
    pub(super) fn drop_unconnected(&mut self, now: Instant, text: &str) {
        let lost: Vec<CallId> = self.calls.values().filter(|c| c.connected.is_none()).map(|c| c.id).collect();
        for id in lost {
            if let Some(call) = self.calls.get_mut(&id) {
                call.fault.get_or_insert((EndKind::SignallingLost, text.to_owned()));
            }
            let end = End {
                reason: ReasonCondition::ConnectivityError,
                by: EndedBy::Local,
                text: None,
                alternative: None,
                redirect: None,
            };
            self.forget_call(now, id, &end);
        }
    }
}

impl Ended {
    /// One sentence for people.
    #[must_use]
    pub fn sentence(&self) -> &'static str {
        match self.kind {
            EndKind::Completed => "the call is over",
            EndKind::Cancelled => "the call was cancelled",
            EndKind::Rejected => "the call was rejected",
            EndKind::NoAnswer => "nobody answered",
            EndKind::Unavailable => "the other side cannot be reached or cannot take such a call",
            EndKind::MediaFailed => "no media path",
            EndKind::Security => "the call is not safe",
            EndKind::Limit => "a limit or policy forbids the call",
            EndKind::SignallingLost => "the server connection is gone",
            EndKind::Failed => "the call failed",
        }
    }
}

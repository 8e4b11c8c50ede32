//! The media of a SIP call: sockets, leg and sound, and the descriptions that both sides give of them.
//! Read RFC 3264 §5 to §8, RFC 4568 §5, RFC 5763 §5, RFC 8839 §4 before touching this file.

use super::super::Endpoint;
use super::super::call::clocks;
use super::super::event::{CallId, Connected, EndKind, Event, LegId, Output, Party};
use super::super::offer::{self, fingerprint_text};
use super::super::sdp::{self, MediaSecurity, Offered, Ours, Theirs};
use super::ending::Class;
use super::{GATHER_LIMIT, Line, Stage};
use crate::fault::ReasonCondition;
use crate::media::audio::AudioPath;
use crate::media::codec::{self, Negotiated};
use crate::sip::session::Fork;
use crate::transport::leg::{Carrier, Leg, LegConfig, LegEvent, LegFault, Protection, SdesKeys};
use crate::transport::sdes::SdesKey;
use crate::transport::srtp::SrtpProfile;
use crate::wire::candidate::Candidate;
use crate::wire::description::PayloadType;
use crate::wire::sdp::SessionDescription;
use crate::wire::sip::Status;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// The media half of a call. Nothing of it exists before the local user wants the call.
#[derive(Debug, Default)]
pub(in super::super) struct LineMedia {
    pub(in super::super) leg: Option<Box<Leg>>,
    pub(in super::super) audio: Option<Box<AudioPath>>,
    pub(in super::super) security: MediaSecurity,
    /// The path is found by ICE.
    pub(in super::super) ice: bool,
    /// It may be, where the other side offers it.
    pub(in super::super) ice_allowed: bool,
    /// Ours, RTP first.
    pub(in super::super) sockets: Vec<SocketAddr>,
    pub(in super::super) candidates: Vec<Candidate>,
    /// The description waits for candidates until then.
    pub(in super::super) gather_by: Option<Instant>,
    /// `a=crypto` of our last description: tag and key.
    pub(in super::super) keys: Vec<(u32, SdesKey)>,
    /// What our last description said that we take.
    pub(in super::super) ours: Vec<PayloadType>,
    pub(in super::super) negotiated: Option<Negotiated>,
    /// A description came before the other side took the call (RFC 3960).
    pub(in super::super) early: bool,
    /// What the leg told of its connection before the call was taken.
    pub(in super::super) ready: Option<Box<LegEvent>>,
}

/// What is wrong with a description, as an end of the call.
type Trouble = (Class, String);

fn trouble(kind: EndKind, reason: ReasonCondition, text: &str) -> Trouble {
    ((kind, reason), text.to_owned())
}

impl Line {
    /// Hold and mute as they are now; before the other side took the call nobody hears the microphone.
    pub(super) fn hush(&mut self) {
        let active = self.is_active();
        if let Some(audio) = &mut self.media.audio {
            audio.set_on_hold(self.quiet.held_by_us || self.quiet.held_by_peer);
            audio.set_muted(self.muted || !active);
        }
    }
}

impl Endpoint {
    /// Sockets for a call are bound: now, and not before, a leg exists and something may be sent.
    pub(in super::super) fn handle_telephone_sockets(&mut self, now: Instant, id: CallId, bound: &[SocketAddr]) {
        let lab = self.config.media.lab;
        let Some(line) = self.line(id) else {
            self.outputs.push_back(Output::CloseSockets(LegId::Call(id)));
            return;
        };
        let (Some(ground), false) = (line.ground, bound.is_empty()) else {
            let class = (EndKind::MediaFailed, ReasonCondition::FailedTransport);
            return self.fail_line(now, id, class, "no UDP socket could be bound".into());
        };
        let initiator = !matches!(&line.stage, Stage::Answering(Some(_)));
        let (security, ice) = (line.media.security, line.media.ice);
        // The default candidate is where the signalling runs.
        let mut sockets = bound.to_vec();
        sockets.sort_by_key(|socket| ice && Some(socket.ip()) != ground.local);
        let mut leg = self.line_leg(now, initiator, security, ice, lab || ground.remote.is_loopback());
        for local in bound {
            self.routes.insert(*local, LegId::Call(id));
        }
        leg.handle_sockets(now, &sockets);
        let Some(line) = self.line(id) else { return };
        line.media.sockets = sockets;
        line.media.leg = Some(Box::new(leg));
        line.media.gather_by = ice.then(|| now + GATHER_LIMIT);
        self.drain_line(now, id);
        if !ice {
            self.describe_line(now, id);
        }
        self.pump(now);
    }

    fn line_leg(&mut self, now: Instant, initiator: bool, security: MediaSecurity, ice: bool, lab: bool) -> Leg {
        let mut config = LegConfig::new(initiator, Arc::clone(&self.identity));
        config.carrier = if ice {
            Carrier::Ice { servers: self.ice_servers(), relay_only: self.relay_only(), lab }
        } else {
            Carrier::Plain { lab }
        };
        config.protection = match security {
            MediaSecurity::Plain => Protection::None,
            MediaSecurity::Sdes => Protection::Sdes(None),
            MediaSecurity::Dtls => Protection::Dtls(Arc::clone(&self.identity)),
        };
        config.max_remote_candidates = self.config.context.limits.remote_candidates;
        config.cname = Some(self.cname.clone());
        let (wall, seed) = (self.wall(now), self.next_seed());
        let mut leg = Leg::new(now, wall, seed, config);
        leg.hold();
        leg
    }

    /// Our addresses are known: the offer or the answer goes out.
    pub(super) fn describe_line(&mut self, now: Instant, id: CallId) {
        let Some(line) = self.line(id) else { return };
        line.media.gather_by = None;
        match std::mem::replace(&mut line.stage, Stage::Calling) {
            Stage::Opening => self.send_line_offer(now, id),
            Stage::Answering(offered) => {
                line.stage = Stage::Answering(None);
                self.send_line_answer(now, id, offered);
            }
            other @ (Stage::Finding(_) | Stage::Calling | Stage::Alerting(_) | Stage::Active) => line.stage = other,
        }
    }

    fn send_line_offer(&mut self, now: Instant, id: CallId) {
        let offer = match self.our_offer(id) {
            Ok(offer) => offer,
            Err((class, text)) => return self.fail_line(now, id, class, text),
        };
        let Some(line) = self.line(id) else { return };
        let Some(mut invitation) = line.invitation.take() else { return };
        invitation.offer = Some(offer);
        match self.act_on(now, |sessions, now| sessions.invite(now, *invitation)) {
            Ok(session) => {
                if let Some(telephone) = &mut self.telephone {
                    telephone.by_session.insert(session, id);
                }
                if let Some(line) = self.line(id) {
                    line.session = Some(session);
                }
            }
            Err(why) => {
                self.fail_line(now, id, (EndKind::Limit, ReasonCondition::GeneralError), why.to_string());
            }
        }
    }

    /// A fresh offer with what the leg has.
    fn our_offer(&mut self, id: CallId) -> Result<SessionDescription, Trouble> {
        let payload_types = codec::offer(&self.config.media.codecs);
        let (session_id, cname) = (self.next_number(), self.cname.clone());
        let Some(telephone) = &mut self.telephone else { return Err(gone()) };
        let Some(line) = telephone.lines.get_mut(&id) else { return Err(gone()) };
        if line.media.security == MediaSecurity::Sdes && line.media.keys.is_empty() {
            for (at, profile) in telephone.media.suites.iter().enumerate() {
                line.media.keys.push((at as u32 + 1, SdesKey::generate(*profile).map_err(|why| keys(&why))?));
            }
        }
        line.media.ours.clone_from(&payload_types);
        let leg = line.media.leg.as_deref().ok_or_else(gone)?;
        let (can_send, can_receive) = (true, !line.quiet.held_by_us);
        let ours = Ours::new(leg, &line.media, payload_types, (can_send, can_receive), &cname).ok_or_else(gone)?;
        Ok(sdp::offer(session_id >> 2, &ours))
    }

    /// The user took a call: the answer to its offer, or the offer that it asks for.
    fn send_line_answer(&mut self, now: Instant, id: CallId, offered: Option<Box<Offered>>) {
        let described = match &offered {
            Some(offered) => self.our_answer(now, id, offered),
            None => self.our_offer(id),
        };
        let sdp = match described {
            Ok(sdp) => sdp,
            Err((class, text)) => return self.fail_line(now, id, class, text),
        };
        let Some(session) = self.line(id).and_then(|line| line.session) else { return };
        if let Err(why) = self.act_on(now, |sessions, now| sessions.accept(now, session, Some(sdp))) {
            return self.fail_line(now, id, (EndKind::Failed, ReasonCondition::GeneralError), why.to_string());
        }
        // Without an offer of theirs the call is up when they have answered ours.
        if offered.is_some() {
            self.activate(now, id);
        }
    }

    /// Our answer to an offer, which counts from now on.
    fn our_answer(&mut self, now: Instant, id: CallId, offered: &Offered) -> Result<SessionDescription, Trouble> {
        let theirs = &offered.theirs;
        let preference = self.config.media.codecs.clone();
        let negotiated = codec::answer(&theirs.payload_types, &preference).ok_or_else(no_codec)?;
        let (session_id, cname) = (self.next_number(), self.cname.clone());
        self.choose_key(id, theirs)?;
        self.follow_description(now, id, theirs)?;
        self.settle_line(now, id, negotiated.clone())?;
        let line = self.line(id).ok_or_else(gone)?;
        line.media.ours.clone_from(&negotiated.payload_types);
        let leg = line.media.leg.as_deref().ok_or_else(gone)?;
        // RFC 3264 §6.1: never more than they asked for.
        let can_send = theirs.direction.receives();
        let can_receive = theirs.direction.sends() && !line.quiet.held_by_us;
        let ours =
            Ours::new(leg, &line.media, negotiated.payload_types, (can_send, can_receive), &cname).ok_or_else(gone)?;
        Ok(sdp::answer(session_id >> 2, offered, &ours))
    }

    /// Of the keys offered the first whose suite is one of ours, and a key of ours for it: the one of before, if there is one
    /// (RFC 4568 §5.1.2, §5.1.4).
    fn choose_key(&mut self, id: CallId, theirs: &Theirs) -> Result<(), Trouble> {
        let line = self.line(id).ok_or_else(gone)?;
        if line.media.security != MediaSecurity::Sdes {
            return Ok(());
        }
        let Some((tag, key)) = theirs.keys.first() else { return Err(no_key()) };
        let known = line.media.keys.iter().find(|(_, ours)| ours.profile == key.profile).map(|(_, ours)| ours.clone());
        let ours = match known {
            Some(ours) => ours,
            None => SdesKey::generate(key.profile).map_err(|why| keys(&why))?,
        };
        line.media.keys = vec![(*tag, ours)];
        Ok(())
    }

    /// The answer to our offer came, early or not; also to a later offer of ours.
    pub(super) fn take_answer(&mut self, now: Instant, id: CallId, sdp: &SessionDescription, early: bool) {
        if let Err((class, text)) = self.try_answer(now, id, sdp) {
            return self.fail_line(now, id, class, text);
        }
        let Some(line) = self.line(id) else { return };
        let first = early && !line.media.early;
        line.media.early |= early;
        let late_offer = matches!(line.stage, Stage::Answering(_));
        line.hush();
        if first {
            self.emit(Event::EarlyMedia(id));
        }
        if late_offer && !early {
            self.activate(now, id);
        }
        self.drain_line(now, id);
    }

    fn try_answer(&mut self, now: Instant, id: CallId, sdp: &SessionDescription) -> Result<(), Trouble> {
        let preference = self.config.media.codecs.clone();
        let Some(telephone) = &self.telephone else { return Err(gone()) };
        let line = telephone.lines.get(&id).ok_or_else(gone)?;
        let theirs = sdp::read_answer(sdp, line.media.security).map_err(|why| {
            let class = (EndKind::Unavailable, ReasonCondition::IncompatibleParameters);
            (class, why.to_string())
        })?;
        let negotiated = codec::accepted(&line.media.ours, &theirs.payload_types, &preference).ok_or_else(no_codec)?;
        self.follow_description(now, id, &theirs)?;
        self.settle_line(now, id, negotiated)
    }

    /// A new offer in the call: re-INVITE or UPDATE.
    pub(super) fn answer_offer(&mut self, now: Instant, id: CallId, fork: Fork, sdp: &SessionDescription) {
        let Some(line) = self.line(id) else { return };
        let (Some(session), Some(ground)) = (line.session, line.ground) else { return };
        let answered = self.read_offer(sdp, ground).and_then(|offered| {
            let line = self.line(id).ok_or(Status::SERVER_INTERNAL_ERROR)?;
            // What protects a call does not change in it; without a leg there is nothing to change (RFC 3311 §5.2).
            if line.media.leg.is_none() || line.media.security != offered.theirs.security {
                return Err(Status::NOT_ACCEPTABLE_HERE);
            }
            self.our_answer(now, id, &offered).map_err(|(_, why)| {
                tracing::info!(call = id.0, %why, "a change of the media is refused");
                Status::NOT_ACCEPTABLE_HERE
            })
        });
        // A session that has just ended needs no answer.
        let _ = match answered {
            Ok(answer) => self.act_on(now, |sessions, now| sessions.answer(now, session, fork, answer)),
            Err(status) => self.act_on(now, |sessions, now| sessions.refuse_offer(now, session, fork, status)),
        };
        self.drain_line(now, id);
    }

    /// Tells the leg what a description says of addresses and keys.
    fn follow_description(&mut self, now: Instant, id: CallId, theirs: &Theirs) -> Result<(), Trouble> {
        let allowed = self.allowed_fingerprints(&theirs.fingerprints);
        let line = self.line(id).ok_or_else(gone)?;
        let media = &mut line.media;
        let leg = media.leg.as_deref_mut().ok_or_else(gone)?;
        match media.security {
            MediaSecurity::Plain => {}
            MediaSecurity::Sdes => {
                // RFC 4568 §5.1.3: the tag says which of ours was taken.
                let pair = theirs.keys.iter().find_map(|(tag, key)| {
                    let ours = media.keys.iter().find(|(known, ours)| known == tag && ours.profile == key.profile);
                    ours.map(|(_, ours)| (ours.clone(), key.clone()))
                });
                let (ours, key) = pair.ok_or_else(no_key)?;
                leg.set_sdes(now, SdesKeys { profile: key.profile, local: ours.split(), remote: key.split() });
            }
            MediaSecurity::Dtls if allowed.is_empty() => {
                let text = if theirs.fingerprints.is_empty() {
                    "the other side names no certificate"
                } else {
                    "the peer's certificate is not the one that --require-fingerprint names"
                };
                return Err(trouble(EndKind::Security, ReasonCondition::SecurityError, text));
            }
            MediaSecurity::Dtls => leg.set_remote(now, None, &allowed),
        }
        if media.ice {
            match &theirs.ice {
                Some(transport) => {
                    offer::tell_leg(leg, now, transport, &allowed);
                    return Ok(());
                }
                None => {
                    media.ice = false;
                    let local = media.sockets.first().copied().ok_or_else(gone)?;
                    media.sockets.truncate(1);
                    leg.give_up_ice(now, local);
                    leg.set_remote(now, None, &allowed);
                }
            }
        }
        leg.set_rtcp_mux(theirs.mux);
        if let Some(rtp) = theirs.rtp {
            leg.set_plain_remote(now, rtp, theirs.rtcp)
                .map_err(|why| trouble(EndKind::MediaFailed, ReasonCondition::ConnectivityError, &why.to_string()))?;
        }
        Ok(())
    }

    /// The codecs are agreed on: sound can flow.
    fn settle_line(&mut self, now: Instant, id: CallId, negotiated: Negotiated) -> Result<(), Trouble> {
        let config = self.config.media.audio;
        let seed = self.next_number();
        let line = self.line(id).ok_or_else(gone)?;
        let failed =
            |why: &dyn std::fmt::Display| trouble(EndKind::Failed, ReasonCondition::MediaError, &why.to_string());
        match &mut line.media.audio {
            Some(audio) => audio.renegotiate(negotiated.clone()).map_err(|why| failed(&why))?,
            None => {
                let audio = AudioPath::new(seed, negotiated.clone(), config).map_err(|why| failed(&why))?;
                line.media.audio = Some(Box::new(audio));
            }
        }
        if let Some(leg) = &mut line.media.leg {
            let (sending, receiving) = clocks(&negotiated);
            leg.set_clock_rates(sending, &receiving);
            leg.release(now);
        }
        line.media.negotiated = Some(negotiated);
        line.hush();
        Ok(())
    }

    pub(super) fn set_line_held(&mut self, id: CallId, on: bool) {
        let Some(line) = self.line(id) else { return };
        if line.quiet.held_by_peer == on {
            return;
        }
        line.quiet.held_by_peer = on;
        line.hush();
        self.emit(Event::Hold { call: id, on, by: Party::Remote });
    }

    /// Everything that a leg has to say.
    pub(in super::super) fn drain_line(&mut self, now: Instant, id: CallId) {
        while let Some(event) = self.line(id).and_then(|line| line.media.leg.as_mut()).and_then(|leg| leg.poll_event())
        {
            let Some(line) = self.line(id) else { return };
            match event {
                LegEvent::LocalCandidate(candidate) => line.media.candidates.push(candidate),
                LegEvent::GatheringComplete if line.media.gather_by.is_some() => self.describe_line(now, id),
                LegEvent::GatheringComplete | LegEvent::IceConnected { .. } | LegEvent::Bye(_) => {}
                LegEvent::Resolve(name) => self.resolve(name),
                event @ LegEvent::Connected { .. } => {
                    line.media.ready = Some(Box::new(event));
                    self.report_line_ready(now, id);
                }
                LegEvent::PathChanged { local, remote, path } => {
                    if line.connected.is_some() {
                        self.emit(Event::PathChanged { call: id, kinds: (local, remote), path });
                    }
                }
                LegEvent::ServerFailed { why, .. } => {
                    tracing::info!(call = id.0, %why, "a STUN or TURN server is of no use");
                }
                LegEvent::PathLost => tracing::info!(call = id.0, "the media path is silent"),
                LegEvent::PathRestored => tracing::info!(call = id.0, "the media path is back"),
                // The answer that caused it tells the new credentials.
                LegEvent::Restarted(_) => {}
                // The signalling says so too, or its timer does.
                LegEvent::Closed => {}
                LegEvent::ChannelOpen { .. }
                | LegEvent::ChannelReadable(_)
                | LegEvent::ChannelWritable(_)
                | LegEvent::ChannelDelivered(_)
                | LegEvent::ChannelClosed { .. } => {}
                LegEvent::Failed(fault) => {
                    let class = match fault {
                        LegFault::FingerprintMismatch | LegFault::Keys => {
                            (EndKind::Security, ReasonCondition::SecurityError)
                        }
                        LegFault::Dtls(_) => (EndKind::MediaFailed, ReasonCondition::SecurityError),
                        LegFault::NoPath | LegFault::ConsentLost | LegFault::Timeout => {
                            (EndKind::MediaFailed, ReasonCondition::ConnectivityError)
                        }
                    };
                    return self.fail_line(now, id, class, fault.to_string());
                }
            }
        }
    }

    /// Tells of a path that works, once the call is taken.
    pub(super) fn report_line_ready(&mut self, now: Instant, id: CallId) {
        let Some(line) = self.line(id) else { return };
        let (Some(codec), true) = (line.media.negotiated.as_ref().map(|n| n.send), line.is_active()) else { return };
        let Some(LegEvent::Connected { profile, fingerprint, .. }) = line.media.ready.take().map(|event| *event) else {
            return;
        };
        let figures = line.media.leg.as_deref().map(|leg| leg.stats(now));
        let Some((kinds, path)) = figures.and_then(|figures| figures.kinds.zip(figures.path)) else { return };
        line.connected = Some(now);
        let setup = line.wanted.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
        let profile = profile.map(SrtpProfile::sdes_name);
        let dtls_fingerprint = fingerprint.as_ref().map(fingerprint_text);
        let facts = Box::new(Connected { setup, kinds, path, codec, dtls_fingerprint, profile });
        self.emit(Event::Connected { call: id, facts });
    }

    /// What RTCP says: the peer's loss steers the encoder's FEC.
    pub(super) fn follow_line_reports(&mut self, now: Instant, id: CallId) {
        let Some(line) = self.line(id) else { return };
        if let (Some(leg), Some(audio)) = (&line.media.leg, &mut line.media.audio)
            && let Some(lost) = leg.stats(now).rtcp.loss_out_fraction
        {
            audio.set_reported_loss(f64::from(lost));
        }
    }
}

fn gone() -> Trouble {
    trouble(EndKind::Failed, ReasonCondition::GeneralError, "the call is gone")
}

fn no_codec() -> Trouble {
    trouble(EndKind::Unavailable, ReasonCondition::FailedApplication, "no codec in common")
}

fn no_key() -> Trouble {
    trouble(EndKind::Security, ReasonCondition::SecurityError, "no key for SRTP that both sides can use")
}

fn keys(why: &dyn std::fmt::Display) -> Trouble {
    trouble(EndKind::Security, ReasonCondition::SecurityError, &why.to_string())
}

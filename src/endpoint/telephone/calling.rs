//! How SIP calls begin: dialled ones and those that come in. Read RFC 3261 §13.2, §13.3 and RFC 3960 §3 before touching
//! this file.

use super::super::event::{CallId, EndKind, Event, LegId, Output, Refusal, Signalling, SocketPlan};
use super::super::sdp::{self, Offered};
use super::super::{Endpoint, Misuse};
use super::ending::{self, unregistered};
use super::{Ground, Line, Stage};
use crate::fault::ReasonCondition;
use crate::jingle::sessions::Callers;
use crate::media::codec;
use crate::sip::agent::SipEvent;
use crate::sip::exchange::Failure;
use crate::sip::message::Way;
use crate::sip::session::{self, Incoming, Invitation, SessionEvent};
use crate::sip::sessions::{SessionId, Sessions};
use crate::wire::address::{Address, SipAddress};
use crate::wire::jid::BareJid;
use crate::wire::jingle::Sid;
use crate::wire::sdp::SessionDescription;
use crate::wire::sip::{NameAddr, Status, Uri};
use std::time::Instant;

impl Endpoint {
    /// Calls a SIP address.
    pub(in super::super) fn dial(&mut self, now: Instant, to: SipAddress) -> Result<CallId, Misuse> {
        let to = NameAddr { display: to.display.clone(), ..NameAddr::new(to.uri) };
        let id = self.begin(now, to)?;
        self.pump(now);
        Ok(id)
    }

    /// A new call of ours, as far as it goes at once.
    pub(super) fn begin(&mut self, now: Instant, to: NameAddr) -> Result<CallId, Misuse> {
        if self.calls().count() >= self.config.context.limits.sessions {
            return Err(Misuse::TooManyCalls);
        }
        let id = self.next_call_id();
        let Some(telephone) = &mut self.telephone else { return Err(Misuse::WrongNetwork) };
        let key = telephone.agent.prepare(now, &to.uri);
        let peer = Address::Sip(Box::new(SipAddress::new(to.uri.clone(), to.display.clone())));
        let mut line = Line::new(id, peer, Stage::Finding(key));
        line.invitation = Some(Box::new(Invitation::new(telephone.agent.local(), to, None)));
        line.wanted = Some(now);
        telephone.lines.insert(id, line);
        Ok(id)
    }

    /// Takes an incoming call: the local consent. Nothing of our addresses has been told before, no socket was there.
    pub(in super::super) fn pick_up(&mut self, now: Instant, id: CallId) -> Result<(), Misuse> {
        let line = self.line(id).ok_or(Misuse::NoCall)?;
        match std::mem::replace(&mut line.stage, Stage::Opening) {
            Stage::Alerting(offered) => {
                line.wanted = Some(now);
                line.stage = Stage::Answering(offered);
            }
            other @ (Stage::Finding(_) | Stage::Opening | Stage::Calling | Stage::Answering(_) | Stage::Active) => {
                line.stage = other;
                return Err(Misuse::NotRinging);
            }
        }
        self.open_line(now, id);
        self.pump(now);
        Ok(())
    }

    /// A verb of the sessions.
    pub(super) fn act_on<T>(
        &mut self,
        now: Instant,
        verb: impl FnOnce(&mut Sessions, Instant) -> Result<T, session::Misuse>,
    ) -> Result<T, Misuse> {
        let Some(telephone) = &mut self.telephone else { return Err(Misuse::NoCall) };
        verb(telephone.agent.sessions_mut(now), now).map_err(|why| match why {
            session::Misuse::Ended => Misuse::NoCall,
            session::Misuse::NotRinging => Misuse::NotRinging,
            session::Misuse::NotUp => Misuse::NotActive,
            session::Misuse::NoResources => Misuse::TooManyCalls,
            session::Misuse::NoFork
            | session::Misuse::NoOffer
            | session::Misuse::NoDescription
            | session::Misuse::OfferOpen
            | session::Misuse::NotAllowed(_)
            | session::Misuse::WrongStatus(_)
            | session::Misuse::NoReferral
            | session::Misuse::NotAKey => Misuse::Unsupported(why.to_string()),
        })
    }

    pub(super) fn handle_agent_event(&mut self, now: Instant, event: SipEvent) {
        match event {
            SipEvent::Session(session, event) => self.handle_line_event(now, session, event),
            SipEvent::Way { key, way } => {
                let Some(telephone) = &self.telephone else { return };
                let waits = |line: &&Line| matches!(line.stage, Stage::Finding(waiting) if waiting == key);
                let Some(id) = telephone.lines.values().find(waits).map(|line| line.id) else { return };
                match way {
                    Ok(way) => self.way_found(now, id, way),
                    Err(why) => self.no_route(now, id, &why),
                }
            }
            SipEvent::Registered { address, .. } => {
                let Some(telephone) = &mut self.telephone else { return };
                if !std::mem::replace(&mut telephone.was_registered, true) {
                    self.emit(Event::Registered { address: name_of(&address) });
                }
                self.stands(true);
            }
            SipEvent::Unregistered { why, again, .. } => {
                let was = self.telephone.as_ref().is_some_and(|telephone| telephone.was_registered);
                match unregistered(&why) {
                    refusal @ (Refusal::Authentication(_) | Refusal::Security(_)) if !was || again.is_none() => {
                        self.emit(Event::Refused(refusal));
                    }
                    Refusal::Authentication(_) | Refusal::Security(_) | Refusal::Server(_) if was => self.stands(false),
                    Refusal::Authentication(text) | Refusal::Security(text) | Refusal::Server(text) => {
                        self.emit(Event::ConnectFailed(text));
                    }
                }
            }
            SipEvent::Left => self.stands(false),
            // Text, lamps and presence are for other programs.
            SipEvent::Message(_) | SipEvent::MessageSent { .. } | SipEvent::Options { .. } | SipEvent::Event(_) => {}
        }
    }

    /// The registration stands, or does not any more; told when that changes.
    fn stands(&mut self, on: bool) {
        let Some(telephone) = &mut self.telephone else { return };
        if std::mem::replace(&mut telephone.registered, on) != on {
            self.emit(Event::Signalling(if on { Signalling::Up } else { Signalling::Reconnecting }));
        }
    }

    fn way_found(&mut self, now: Instant, id: CallId, way: Way) {
        let local = Some(way.local.ip()).filter(|ip| !ip.is_unspecified());
        let ground = Ground { local, remote: way.remote.ip(), secure: way.transport.is_secure() };
        let Some(telephone) = &mut self.telephone else { return };
        let Some(line) = telephone.lines.get_mut(&id) else { return };
        line.ground = Some(ground);
        line.stage = Stage::Opening;
        line.media.security = telephone.media.offers(ground.secure);
        line.media.ice = telephone.media.offers_ice(line.media.security);
        self.open_line(now, id);
    }

    fn no_route(&mut self, now: Instant, id: CallId, why: &Failure) {
        let (kind, reason) = ending::of_failure(why);
        self.fail_line(now, id, (kind, reason), why.to_string());
    }

    /// Asks for the sockets of a call: on every address with ICE, else where the signalling runs.
    fn open_line(&mut self, now: Instant, id: CallId) {
        let lab = self.config.media.lab;
        let Some(line) = self.line(id) else { return };
        let Some(ground) = line.ground else { return };
        if let Stage::Answering(offered) = &line.stage {
            let (security, ice) = offered.as_ref().map_or((line.media.security, line.media.ice), |offered| {
                (offered.theirs.security, offered.theirs.ice.is_some())
            });
            line.media.security = security;
            line.media.ice = ice && line.media.ice_allowed;
        }
        let ice = line.media.ice;
        if self.relay_only() && !ice {
            let text = "only relays may be used, and a SIP call goes by one only with DTLS and ICE".to_owned();
            return self.fail_line(now, id, (EndKind::MediaFailed, ReasonCondition::ConnectivityError), text);
        }
        let plan = match ground.local {
            _ if ice => SocketPlan::EveryAddress,
            Some(local) => SocketPlan::Pair(local),
            None => SocketPlan::Towards(ground.remote),
        };
        let lab = lab || ground.remote.is_loopback();
        self.outputs.push_back(Output::OpenSockets { leg: LegId::Call(id), lab, plan });
    }

    pub(super) fn handle_line_event(&mut self, now: Instant, session: SessionId, event: SessionEvent) {
        if let SessionEvent::Incoming(incoming) = event {
            return self.handle_invite(now, session, *incoming);
        }
        let Some(id) = self.telephone.as_ref().and_then(|telephone| telephone.by_session.get(&session)).copied() else {
            return;
        };
        match event {
            SessionEvent::Incoming(_) | SessionEvent::Confirmed | SessionEvent::OfferWithdrawn { .. } => {}
            SessionEvent::Ringing { .. } => {
                if let Some(line) = self.line(id) {
                    line.rang = true;
                }
                self.emit(Event::Ringing(id));
                self.tell_referrer(now, id, Status::RINGING);
            }
            SessionEvent::Progress { status, text, .. } => {
                tracing::debug!(call = id.0, code = status.code(), %text, "progress");
            }
            SessionEvent::AnswerReceived { fork, sdp, early } => {
                if let Some(line) = self.line(id) {
                    line.fork = fork;
                }
                self.take_answer(now, id, &sdp, early);
            }
            SessionEvent::OfferReceived { fork, sdp, .. } => self.answer_offer(now, id, fork, &sdp),
            SessionEvent::OfferRefused { status, .. } => {
                tracing::info!(call = id.0, code = status.code(), "the other side refuses a change of the media");
            }
            SessionEvent::ForkEnded { fork } => tracing::debug!(call = id.0, fork = fork.0, "a branch ended"),
            SessionEvent::Accepted { identity, .. } => {
                if let Some(line) = self.line(id) {
                    if let Some(identity) = identity {
                        line.peer = name_of(&identity);
                    }
                    line.rang = true;
                }
                self.activate(now, id);
                self.tell_referrer(now, id, Status::OK);
            }
            SessionEvent::Held(on) => self.set_line_held(id, on),
            SessionEvent::Identity(identity) => {
                if let Some(line) = self.line(id) {
                    line.peer = name_of(&identity);
                }
            }
            SessionEvent::Dtmf { key, .. } => self.emit(Event::Digit { call: id, digit: key }),
            SessionEvent::DtmfRefused { .. } => tracing::info!(call = id.0, "a digit was refused"),
            SessionEvent::Referred { id: referral, to, replaces, referred_by } => {
                self.handle_referral(now, id, referral, *to, replaces, referred_by);
            }
            SessionEvent::Transfer(step) => self.follow_transfer(now, id, &step),
            SessionEvent::Redirected { to } => tracing::info!(call = id.0, %to, "redirected"),
            SessionEvent::Ended(end) => self.end_line(now, id, &end),
        }
    }

    /// Somebody calls. What cannot be answered is refused before anything rings.
    fn handle_invite(&mut self, now: Instant, session: SessionId, incoming: Incoming) {
        let Some(telephone) = &self.telephone else { return };
        let ringing = telephone.lines.values().filter(|line| matches!(line.stage, Stage::Alerting(_))).count();
        let flow = telephone.agent.flow(incoming.origin.flow);
        let ground = Ground {
            local: flow.and_then(|flow| flow.local).map(|local| local.ip()).filter(|ip| !ip.is_unspecified()),
            remote: incoming.origin.source.ip(),
            secure: incoming.origin.transport.is_secure(),
        };
        let from = incoming.identity.as_ref().unwrap_or(&incoming.from);
        if !self.admits(from) {
            return self.decline(now, session, Status::BUSY_HERE);
        }
        if ringing >= RINGING || self.calls().count() >= self.config.context.limits.sessions {
            return self.decline(now, session, Status::BUSY_HERE);
        }
        let offered = match incoming.offer.as_ref().map(|sdp| self.read_offer(sdp, ground)).transpose() {
            Ok(offered) => offered.map(Box::new),
            Err(status) => return self.decline(now, session, status),
        };
        let id = self.next_call_id();
        let peer = name_of(from);
        let mut line = Line::new(id, peer.clone(), Stage::Alerting(offered));
        line.session = Some(session);
        line.ground = Some(ground);
        let Some(telephone) = &mut self.telephone else { return };
        line.media.security = telephone.media.offers(ground.secure);
        line.media.ice = telephone.media.offers_ice(line.media.security);
        line.media.ice_allowed = telephone.media.ice;
        telephone.lines.insert(id, line);
        telephone.by_session.insert(session, id);
        let _ = self.act_on(now, |sessions, now| sessions.ring(now, session));
        let sid = Sid(session.0.to_string());
        self.emit(Event::Incoming { call: id, sid, from: peer, media: vec!["audio".to_owned()] });
    }

    /// An offer that can be answered; else the status to refuse it with.
    pub(super) fn read_offer(&self, sdp: &SessionDescription, ground: Ground) -> Result<Offered, Status> {
        let Some(telephone) = &self.telephone else { return Err(Status::NOT_ACCEPTABLE_HERE) };
        let theirs = sdp::read_offer(sdp, &telephone.media, ground.secure).map_err(|fault| {
            tracing::info!(%fault, "an offer is refused");
            Status::NOT_ACCEPTABLE_HERE
        })?;
        // RFC 3261 §13.3.1.3
        if codec::answer(&theirs.payload_types, &self.config.media.codecs).is_none() {
            return Err(Status::NOT_ACCEPTABLE_HERE);
        }
        Ok(Offered { sdp: sdp.clone(), theirs })
    }

    fn decline(&mut self, now: Instant, session: SessionId, status: Status) {
        // One that has just ended needs no refusal.
        let _ = self.act_on(now, |sessions, now| sessions.reject(now, session, status, Vec::new()));
    }

    /// Who may call: with a registrar before us, contacts are those whom it lets through.
    fn admits(&self, from: &NameAddr) -> bool {
        match &self.config.callers {
            Callers::Everyone | Callers::Contacts => true,
            Callers::Listed(list) => person(&from.uri).is_some_and(|jid| list.contains(&jid)),
        }
    }

    /// The other side took the call, or we did.
    pub(super) fn activate(&mut self, now: Instant, id: CallId) {
        let Some(line) = self.line(id) else { return };
        if line.is_active() {
            return;
        }
        line.stage = Stage::Active;
        if line.media.negotiated.is_none() {
            let text = "the other side accepted without saying how to talk".to_owned();
            return self.fail_line(now, id, (EndKind::Unavailable, ReasonCondition::FailedApplication), text);
        }
        line.hush();
        self.emit(Event::Accepted(id));
        self.drain_line(now, id);
        self.report_line_ready(now, id);
    }
}

/// Calls that may ring at once.
const RINGING: usize = 4;

/// Name and address of somebody.
pub(super) fn name_of(who: &NameAddr) -> Address {
    Address::Sip(Box::new(SipAddress::new(who.uri.clone(), who.display.clone())))
}

/// `user@host` of an address, as lists of callers have it.
fn person(uri: &Uri) -> Option<BareJid> {
    match uri {
        Uri::Sip(sip) => BareJid::new(&format!("{}@{}", sip.user.as_ref()?, sip.host)).ok(),
        Uri::Tel(_) | Uri::Other(_) => None,
    }
}

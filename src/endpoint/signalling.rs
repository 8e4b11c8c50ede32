//! The signalling half of the endpoint: what is done when the stream is up or lost, and where each stanza goes.
//! Read RFC 6121 §2 to §4 and XEP-0280 §11 before touching this file.

use super::event::{Event, Output, Party, Refusal, Signalling};
use super::link::LinkReport;
use super::people::Request;
use super::{Endpoint, summary};
use crate::fault::{ErrorType, StanzaCondition};
use crate::jingle::invite::{InviteInput, InviteTransmit, Via};
use crate::jingle::session::{Body, IqError, SessionInput, SessionTransmit};
use crate::wire::disco::DiscoInfo;
use crate::wire::jid::Jid;
use crate::wire::stanza::{
    Hint, Iq, IqKind, IqPayload, Message, MessageType, Presence, PresenceType, Stanza, StanzaError, StanzaFault,
};
use crate::wire::stream::SaslCondition;
use crate::xmpp::link_local::LinkEvent;
use crate::xmpp::presence::{PresenceChange, Push};
use crate::xmpp::requests::{Outcome, answer_unclaimed};
use crate::xmpp::services::ServicePush;
use crate::xmpp::stream::{StreamEvent, StreamFault, StreamTransmit};
use std::time::{Duration, Instant, SystemTime};

/// An answer of the server that takes longer is not waited for.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

impl Endpoint {
    pub(super) fn online(&self) -> bool {
        self.link.online()
    }

    pub(super) fn signalling_deadline(&self) -> Option<Instant> {
        let requests = self.people.requests.as_ref().and_then(|r| r.poll_timeout());
        let proxies = self.people.proxy_finder.poll_timeout();
        [requests, self.people.finder.poll_timeout(), proxies].into_iter().flatten().min()
    }

    pub(super) fn signalling_timeout(&mut self, now: Instant) {
        if self.link.reconnect_due(now) {
            self.outputs.push_back(Output::Connect);
        }
        self.people.finder.handle_timeout(now);
        self.people.proxy_finder.handle_timeout(now);
        while let Some(request) = self.people.requests.as_mut().and_then(|r| r.expired(now)) {
            self.handle_outcome(now, request, Outcome::TimedOut);
        }
    }

    /// True if anything moved.
    pub(super) fn pump_link(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(transmit) = self.link.poll_transmit() {
            self.outputs.push_back(match transmit {
                StreamTransmit::Bytes(bytes) => Output::Bytes(bytes),
                StreamTransmit::StartTls => Output::StartTls,
                StreamTransmit::Close => Output::Close,
            });
            moved = true;
        }
        // One at a time: what a stanza brings about comes before the next one, and before the end of the stream.
        if let Some(report) = self.link.poll_event() {
            match report {
                LinkReport::Client(event) => self.handle_stream_event(now, event),
                LinkReport::Serverless(event) => self.handle_link_event(now, event),
                LinkReport::Unreachable(why) => self.lost(now, &why),
            }
            moved = true;
        }
        while self.online()
            && let Some(request) = self.people.finder.poll_request()
        {
            let server = self.people.finder.server();
            self.ask(now, Some(server), IqKind::Get(request), Request::Services);
            moved = true;
        }
        while self.online()
            && let Some(query) = self.people.proxy_finder.poll_request()
        {
            self.ask(now, Some(query.to.clone()), IqKind::Get(query.payload()), Request::Proxy(query));
            moved = true;
        }
        self.adopt_services();
        moved
    }

    /// Takes over what the server said of STUN and TURN servers, and has their names looked up.
    fn adopt_services(&mut self) {
        if self.people.finder.poll_changed() {
            self.people.adopt_services();
            let hosts: Vec<String> = self.people.services.iter().map(|s| s.host.clone()).collect();
            for host in hosts {
                self.resolve(host);
            }
        }
    }

    fn handle_stream_event(&mut self, now: Instant, event: StreamEvent) {
        match event {
            StreamEvent::Online { jid, resumed } => {
                self.link.succeeded();
                if !resumed {
                    self.sessions.set_local(jid.clone().into());
                    self.invites.set_local(jid.clone().into());
                    self.people.session_began(now, &jid);
                    self.signed_in(now);
                }
                let mechanism = self.link.mechanism();
                self.emit(Event::Online { jid: jid.into(), resumed, mechanism });
                self.emit(Event::Signalling(Signalling::Up));
            }
            StreamEvent::Stanza(stanza) => self.handle_stanza(now, *stanza),
            StreamEvent::Malformed(fault) => {
                self.answer_fault(now, &fault);
                self.handle_fault(now, &fault);
            }
            StreamEvent::Acked { .. } => {}
            StreamEvent::Undelivered { ids } => {
                for id in ids {
                    if let Some(request) = self.people.requests.as_mut().and_then(|r| r.cancel(&id)) {
                        self.handle_outcome(now, request, Outcome::TimedOut);
                    }
                }
            }
            StreamEvent::Lost { why, .. } => self.lost(now, &why.to_string()),
            StreamEvent::AuthFailed { condition, text } => {
                let condition = condition.map_or("no reason given", SaslCondition::in_words);
                let text = text.map(|t| format!(" ({t})")).unwrap_or_default();
                self.refused(now, Refusal::Authentication(format!("{condition}{text}")));
            }
            StreamEvent::Refused(why) => self.refused(now, refusal(&why)),
            StreamEvent::SeeOtherHost { host, .. } => self.lost(now, &format!("the server sends us to {host}")),
            StreamEvent::Closed => self.emit(Event::Signalling(Signalling::Down)),
        }
    }

    fn handle_link_event(&mut self, now: Instant, event: LinkEvent) {
        match event {
            LinkEvent::Online { .. } => {
                self.link.succeeded();
                let jid = self.link.own();
                self.emit(Event::Online { jid, resumed: false, mechanism: None });
                self.emit(Event::Signalling(Signalling::Up));
            }
            LinkEvent::Stanza(stanza) => self.handle_stanza(now, *stanza),
            LinkEvent::Malformed(fault) => self.handle_fault(now, &fault),
            LinkEvent::Ended(why) => self.lost(now, &why.to_string()),
            LinkEvent::Closed => self.lost(now, "the other side closed the stream"),
        }
    }

    /// RFC 6120 §8.3.3.1 for those who may know that we are here. A stranger gets what the server says for an absent
    /// resource: also nonsense must not find out (J166-04).
    fn answer_fault(&mut self, now: Instant, fault: &StanzaFault) {
        let Some(mut answer) = fault.answer() else { return };
        if !fault.from.as_ref().is_none_or(|from| self.config.callers.admits(from, self.is_contact(from))) {
            let absent = StanzaError::new(ErrorType::Cancel, StanzaCondition::ServiceUnavailable);
            answer.kind = IqKind::Error(Box::new(absent));
        }
        self.send(now, Stanza::Iq(answer));
    }

    /// An unreadable answer ends what it answers.
    fn handle_fault(&mut self, now: Instant, fault: &StanzaFault) {
        tracing::debug!(fault = %fault.fault, "a stanza cannot be read");
        if let Some(request) = self.people.requests.as_mut().and_then(|r| r.malformed(fault)) {
            self.handle_outcome(now, request, Outcome::Malformed);
        }
    }

    fn refused(&mut self, now: Instant, refusal: Refusal) {
        self.drop_unconnected(now, &refusal.to_string());
        self.drop_unconnected_transfers(now, &refusal.to_string());
        self.emit(Event::Refused(refusal));
        self.emit(Event::Signalling(Signalling::Down));
    }

    /// Calls that are up go on; the stream is brought back after a pause.
    fn lost(&mut self, now: Instant, why: &str) {
        self.people.finder.interrupted();
        self.people.proxy_finder.interrupted();
        if self.link.closing {
            return self.emit(Event::Signalling(Signalling::Down));
        }
        if self.link.serverless() {
            // Without a server there is nobody to come back to: the stream was the call's only carrier.
            self.drop_unconnected(now, why);
            self.drop_unconnected_transfers(now, why);
        }
        if self.link.was_online {
            self.emit(Event::Signalling(Signalling::Reconnecting));
        } else {
            self.emit(Event::ConnectFailed(why.to_owned()));
        }
        self.link.retry(now);
    }

    /// A new session with the server: roster first, so that contacts are known before anybody can call; then presence.
    fn signed_in(&mut self, now: Instant) {
        self.ask(now, None, IqKind::Get(IqPayload::Roster(Box::default())), Request::Roster);
        self.ask(now, None, IqKind::Set(IqPayload::CarbonsEnable), Request::Carbons);
        let mut presence = Presence::new(None, PresenceType::Available);
        presence.caps = Some(Box::new(self.people.own_caps.element()));
        if self.people.contacts.sending(&presence) {
            self.send(now, Stanza::Presence(presence));
        }
    }

    pub(super) fn send(&mut self, now: Instant, stanza: Stanza) {
        if let Err(why) = self.link.send(now, stanza) {
            // The session's own time-out reports what came of it.
            tracing::warn!(%why, "a stanza cannot be sent");
        }
    }

    pub(super) fn ask(&mut self, now: Instant, to: Option<Jid>, kind: IqKind, request: Request) {
        let id = self.link.next_id();
        let Some(requests) = &mut self.people.requests else { return };
        if requests.track(id.clone(), to.clone(), now + REQUEST_LIMIT, request).is_ok() {
            self.send(now, Stanza::Iq(Iq::new(to, id, kind)));
        }
    }

    pub(super) fn send_session(&mut self, now: Instant, transmit: SessionTransmit) {
        if let Body::Set(jingle) = &transmit.body {
            self.show(Party::Local, || summary::jingle(jingle));
        }
        let kind = match transmit.body {
            Body::Set(jingle) => IqKind::Set(IqPayload::Jingle(jingle)),
            Body::Result => IqKind::Result(None),
            Body::Error(refusal) => {
                let mut error = StanzaError::from(refusal.answer);
                error.text = refusal.text.map(str::to_owned);
                error.address = refusal.redirect;
                IqKind::Error(Box::new(error))
            }
        };
        self.send(now, Stanza::Iq(Iq::new(Some(transmit.to), transmit.id, kind)));
    }

    pub(super) fn send_invite(&mut self, now: Instant, transmit: InviteTransmit) {
        self.show(Party::Local, || summary::invitation(&transmit.jmi));
        let mut message = Message::new(Some(transmit.to), MessageType::Chat);
        message.id = Some(transmit.id);
        message.jmi = Some(Box::new(transmit.jmi));
        // J353-01
        message.hints = vec![Hint::Store];
        self.send(now, Stanza::Message(message));
    }

    fn handle_stanza(&mut self, now: Instant, stanza: Stanza) {
        match stanza {
            Stanza::Iq(iq) => self.handle_iq(now, iq),
            Stanza::Message(message) => self.handle_message(now, message, Via::Direct),
            Stanza::Presence(presence) => self.handle_presence(now, &presence),
        }
    }

    /// True if the peer may know that we are here. On a serverless stream it does: its certificate was accepted.
    fn is_contact(&self, peer: &Jid) -> bool {
        let called = || {
            self.calls.values().any(|c| c.caller == Party::Local && &c.peer == peer)
                || self.transfers.values().any(|t| t.by == Party::Local && &t.peer == peer)
        };
        self.link.serverless() || self.people.contacts.knows_us(peer) || called()
    }

    fn handle_iq(&mut self, now: Instant, iq: Iq) {
        if let Some((request, outcome)) = self.people.requests.as_mut().and_then(|r| r.answer(&iq)) {
            return self.handle_outcome(now, request, outcome);
        }
        let from = iq.from.clone().or_else(|| self.link.peer()).unwrap_or_else(|| self.link.own());
        let contact = self.is_contact(&from);
        match iq.kind {
            IqKind::Set(IqPayload::Jingle(jingle)) => {
                self.show(Party::Remote, || summary::jingle(&jingle));
                self.sessions.handle_input(now, &from, contact, SessionInput::Set { id: iq.id, jingle });
            }
            IqKind::Set(IqPayload::Ibb(request)) if contact => {
                let iq = Iq { kind: IqKind::Set(IqPayload::Ibb(request.clone())), ..iq };
                self.handle_ibb(now, &from, &iq, *request);
            }
            IqKind::Result(_) => {
                if !self.handle_ibb_answer(now, &from, &iq.id, Ok(())) {
                    self.sessions.handle_input(now, &from, contact, SessionInput::Result { id: iq.id });
                }
            }
            IqKind::Error(error) => {
                if self.handle_ibb_answer(now, &from, &iq.id, Err(error.condition)) {
                    return;
                }
                let error = IqError { condition: Some(error.condition), jingle: error.jingle, redirect: error.address };
                self.sessions.handle_input(now, &from, contact, SessionInput::Error { id: iq.id, error });
            }
            IqKind::Get(_) | IqKind::Set(_) => self.handle_request(now, &iq, contact),
        }
    }

    fn handle_outcome(&mut self, now: Instant, request: Request, outcome: Outcome) {
        match (request, outcome) {
            (Request::Roster, Outcome::Result(Some(IqPayload::Roster(roster)))) => self.people.contacts.load(*roster),
            (Request::Services, outcome) => {
                self.people.finder.handle_answer(now, outcome);
                // Before calls that wait for it look: one that needs a relay would not see it.
                self.adopt_services();
                self.people.services_pending = false;
            }
            (Request::Disco(who), Outcome::Result(Some(IqPayload::DiscoInfo(info)))) => {
                self.people.caps.learned(&who, &info);
            }
            // A device that refuses the question knows no extension; anything else says nothing of the device.
            (Request::Disco(who), Outcome::Error(error))
                if matches!(
                    error.condition,
                    StanzaCondition::ServiceUnavailable | StanzaCondition::FeatureNotImplemented
                ) =>
            {
                self.people.caps.learned(&who, &DiscoInfo::default());
            }
            (Request::Disco(who), _) => self.people.caps.failed(&who),
            (Request::Alive(transfer, device), Outcome::Result(_)) => self.device_alive(now, transfer, device),
            // Whoever cannot be asked is not taken before those who answer.
            (Request::Alive(..), Outcome::Error(_) | Outcome::Malformed | Outcome::TimedOut) => {}
            (Request::Proxy(query), outcome) => self.people.proxy_finder.handle_answer(&query, outcome),
            (Request::Activate(id), outcome) => {
                let activated = matches!(outcome, Outcome::Result(_));
                self.proxy_answered(now, id, activated);
            }
            (Request::Roster | Request::Carbons, Outcome::Result(_)) => {}
            (
                request @ (Request::Roster | Request::Carbons),
                Outcome::Error(_) | Outcome::Malformed | Outcome::TimedOut,
            ) => {
                tracing::info!(?request, "the server refuses");
            }
        }
        self.find_devices(now);
        self.find_receivers(now);
    }

    /// Requests that are not Jingle. A stranger gets what the server would say if we were not there.
    fn handle_request(&mut self, now: Instant, iq: &Iq, contact: bool) {
        let error = |condition| IqKind::Error(Box::new(StanzaError::new(ErrorType::Cancel, condition)));
        let answer = match (self.people.contacts.push(iq), self.people.finder.push(now, iq)) {
            (Push::Applied { .. }, _) | (_, ServicePush::Applied) => Some(iq.answer(IqKind::Result(None))),
            (Push::Forged, _) | (_, ServicePush::Forged) => Some(iq.answer(error(StanzaCondition::ServiceUnavailable))),
            (Push::NotOne, ServicePush::NotOne) => match &iq.kind {
                IqKind::Get(IqPayload::DiscoInfo(query)) if contact => {
                    let info = self.people.own_caps.info(query);
                    Some(
                        iq.answer(info.map_or_else(error, |i| IqKind::Result(Some(IqPayload::DiscoInfo(Box::new(i)))))),
                    )
                }
                IqKind::Get(IqPayload::DiscoItems(query)) if contact => {
                    let items = self.people.own_caps.items(query);
                    Some(
                        iq.answer(
                            items.map_or_else(error, |i| IqKind::Result(Some(IqPayload::DiscoItems(Box::new(i))))),
                        ),
                    )
                }
                IqKind::Get(_) | IqKind::Set(_) | IqKind::Result(_) | IqKind::Error(_) => answer_unclaimed(iq, contact),
            },
        };
        if let Some(answer) = answer {
            self.send(now, Stanza::Iq(answer));
        }
    }

    /// Only invitations are of use here; text is for other programs.
    fn handle_message(&mut self, now: Instant, message: Message, via: Via) {
        if let Some(carbon) = message.carbon {
            // `Invites` believes a copy only from our own bare JID (threat: forged carbons).
            if via == Via::Direct {
                self.handle_message(now, carbon.message, Via::Carbon { outer: message.from });
            }
            return;
        }
        let Some(from) = message.from.or_else(|| self.link.peer()) else { return };
        if message.kind == MessageType::Error {
            if let Some(id) = &message.id {
                self.invites.handle_bounce(&from, id);
            }
            return;
        }
        if let Some(block) = message.ibb {
            return self.handle_ibb_message(now, &from, *block);
        }
        let Some(jmi) = message.jmi else { return };
        self.show(Party::Remote, || summary::invitation(&jmi));
        let age = message.delay.map(|delay| {
            let sent = delay.stamp.to_system_time().unwrap_or(SystemTime::UNIX_EPOCH);
            self.wall(now).duration_since(sent).unwrap_or_default()
        });
        let contact = self.config.callers.admits(&from, self.is_contact(&from));
        self.invites.handle_input(now, InviteInput { from, to: message.to, via, age, contact, jmi: *jmi });
    }

    fn handle_presence(&mut self, now: Instant, presence: &Presence) {
        match self.people.contacts.receive(presence) {
            PresenceChange::Available(jid) => {
                if let Some(ask) = self.people.need_caps(&jid) {
                    let query = DiscoInfo { node: ask.node, ..DiscoInfo::default() };
                    let request = Request::Disco(ask.to.clone());
                    self.ask(now, Some(ask.to), IqKind::Get(IqPayload::DiscoInfo(Box::new(query))), request);
                }
                let jid = Jid::from(jid);
                self.sessions.peer_available(&jid);
                self.emit(Event::Presence { jid, available: true });
                self.find_devices(now);
                self.find_receivers(now);
            }
            PresenceChange::Unavailable(gone) => {
                for jid in gone.into_iter().map(Jid::from) {
                    self.people.caps.forget(&jid);
                    self.sessions.peer_unavailable(now, &jid);
                    self.emit(Event::Presence { jid, available: false });
                }
            }
            PresenceChange::SubscriptionRequest(_) | PresenceChange::None => {}
        }
    }

    fn show(&mut self, by: Party, what: impl FnOnce() -> String) {
        if self.config.show_signalling {
            self.emit(Event::Signalled { by, what: what() });
        }
    }
}

fn refusal(why: &StreamFault) -> Refusal {
    let text = why.to_string();
    match why {
        StreamFault::NoStartTls
        | StreamFault::TlsRefused
        | StreamFault::PlaintextOffLoopback
        | StreamFault::Sasl(_) => Refusal::Security(text),
        StreamFault::NoBind
        | StreamFault::BindRefused(_)
        | StreamFault::Version
        | StreamFault::Stream(_)
        | StreamFault::Xml(_)
        | StreamFault::Unexpected(_)
        | StreamFault::Timeout(_)
        | StreamFault::HandledCountTooHigh
        | StreamFault::ServerClosed
        | StreamFault::Connection(_) => Refusal::Server(text),
    }
}

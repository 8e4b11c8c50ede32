//! The signalling half of the endpoint: the stream, what is done when it is up, and where each stanza goes.
//! Read RFC 6121 §2 to §4 and XEP-0280 §11 before touching this file.

use super::event::{Event, Input, Output, Party, Refusal, Signalling};
use super::{Endpoint, NamedServer, summary};
use crate::jingle::invite::{InviteInput, InviteTransmit, Via};
use crate::jingle::session::{Body, IqError, SessionInput, SessionTransmit};
use crate::wire::jid::Jid;
use crate::wire::stanza::{
    Hint, Iq, IqKind, IqPayload, Message, MessageType, Presence, PresenceType, Stanza, StanzaError,
};
use crate::xmpp::backoff::Backoff;
use crate::xmpp::presence::{Contacts, PresenceChange, Push};
use crate::xmpp::requests::{IqTracker, Outcome, answer_unclaimed};
use crate::xmpp::stream::{Stream, StreamConfig, StreamEvent, StreamFault, StreamInput, StreamPhase, StreamTransmit};
use std::time::{Duration, Instant, SystemTime};

/// How an endpoint signals.
#[derive(Debug, Clone)]
pub enum Account {
    /// An account on a server.
    Client(Box<StreamConfig>),
}

impl Account {
    /// Our address, as far as it is known before signing in.
    #[must_use]
    pub fn jid(&self) -> Jid {
        match self {
            Account::Client(config) => config.jid.clone(),
        }
    }
}

/// The stream and whether it is wanted.
#[derive(Debug)]
pub(super) struct Link {
    stream: Stream,
    backoff: Backoff,
    /// When the next attempt to connect is due.
    reconnect: Option<Instant>,
    /// Signed in once: a lost connection is brought back.
    was_online: bool,
    closing: bool,
    contacts: Contacts,
    /// From the first sign-in on.
    requests: Option<IqTracker<Request>>,
    services: Vec<NamedServer>,
}

impl Link {
    pub(super) fn new(now: Instant, seed: [u8; 32], account: &Account) -> Self {
        let Account::Client(config) = account;
        let own = config.jid.to_bare();
        Self {
            contacts: Contacts::new(own, &config.limits),
            requests: None,
            stream: Stream::client(now, seed, config.as_ref().clone()),
            backoff: Backoff::new(seed),
            reconnect: None,
            was_online: false,
            closing: false,
            services: Vec::new(),
        }
    }

    pub(super) fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        let input = match input {
            Input::Connected { tls, loopback } => StreamInput::Connected { tls, loopback },
            Input::TlsStarted(info) => StreamInput::TlsStarted(info),
            Input::Bytes(bytes) => StreamInput::Bytes(bytes),
            Input::Closed(why) => StreamInput::Closed(why),
            Input::Sockets { .. } | Input::Datagram { .. } | Input::Resolved { .. } => return,
        };
        self.stream.handle_input(now, input);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.stream.handle_timeout(now);
        while let Some(request) = self.requests.as_mut().and_then(|r| r.expired(now)) {
            tracing::info!(?request, "the server does not answer");
        }
    }

    /// Our own address: the bound one, or the account's.
    fn own(&self) -> Jid {
        self.stream.jid().map_or_else(|| self.stream.config().jid.clone(), |full| full.clone().into())
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.stream.poll_timeout().map(|(at, _)| at), self.requests.as_ref().and_then(IqTracker::poll_timeout), self.reconnect].into_iter().flatten().min()
    }

    pub(super) fn services(&self) -> &[NamedServer] {
        &self.services
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.closing = true;
        self.reconnect = None;
        self.stream.close(now);
    }
}

impl Endpoint {
    pub(super) fn start(&mut self, _now: Instant) {
        self.outputs.push_back(Output::Connect);
    }

    pub(super) fn online(&self) -> bool {
        self.link.stream.phase() == StreamPhase::Online
    }

    pub(super) fn signalling_deadline(&self) -> Option<Instant> {
        None
    }

    pub(super) fn signalling_timeout(&mut self, now: Instant) {
        if self.link.reconnect.is_some_and(|at| at <= now) {
            self.link.reconnect = None;
            self.outputs.push_back(Output::Connect);
        }
    }

    /// True if anything moved.
    pub(super) fn pump_link(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(transmit) = self.link.stream.poll_transmit() {
            self.outputs.push_back(match transmit {
                StreamTransmit::Bytes(bytes) => Output::Bytes(bytes),
                StreamTransmit::StartTls => Output::StartTls,
                StreamTransmit::Close => Output::Close,
            });
            moved = true;
        }
        while let Some(event) = self.link.stream.poll_event() {
            self.handle_stream_event(now, event);
            moved = true;
        }
        moved
    }

    fn handle_stream_event(&mut self, now: Instant, event: StreamEvent) {
        match event {
            StreamEvent::Online { jid, resumed } => {
                self.link.backoff.succeeded();
                self.link.was_online = true;
                if !resumed {
                    self.sessions.set_local(jid.clone().into());
                    self.invites.set_local(jid.clone().into());
                    let limit = self.link.stream.config().limits.requests;
                    self.link.requests.get_or_insert_with(|| IqTracker::new(jid.clone(), limit)).rebind(jid.clone());
                    self.signed_in(now);
                }
                self.emit(Event::Online { jid, resumed });
                self.emit(Event::Signalling(Signalling::Up));
            }
            StreamEvent::Stanza(stanza) => self.handle_stanza(now, *stanza),
            StreamEvent::Malformed(fault) => tracing::debug!(%fault, "a stanza cannot be read"),
            StreamEvent::Acked { .. } | StreamEvent::Undelivered { .. } => {}
            StreamEvent::Lost { why, .. } => self.lost(now, &why.to_string()),
            StreamEvent::AuthFailed { condition, text } => {
                let condition = condition.map(|c| c.as_str()).unwrap_or("no reason given");
                let text = text.map(|t| format!(" ({t})")).unwrap_or_default();
                self.refused(now, Refusal::Authentication(format!("{condition}{text}")));
            }
            StreamEvent::Refused(why) => {
                let text = why.to_string();
                let refusal = match why {
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
                };
                self.refused(now, refusal);
            }
            StreamEvent::SeeOtherHost { host, .. } => self.lost(now, &format!("the server sends us to {host}")),
            StreamEvent::Closed => self.emit(Event::Signalling(Signalling::Down)),
        }
    }

    fn refused(&mut self, now: Instant, refusal: Refusal) {
        self.drop_unconnected(now, &refusal.to_string());
        self.emit(Event::Refused(refusal));
        self.emit(Event::Signalling(Signalling::Down));
    }

    /// Calls that are up go on; the stream is brought back after a pause.
    fn lost(&mut self, now: Instant, why: &str) {
        if self.link.closing {
            return self.emit(Event::Signalling(Signalling::Down));
        }
        if self.link.was_online {
            self.emit(Event::Signalling(Signalling::Reconnecting));
        } else {
            self.emit(Event::ConnectFailed(why.to_owned()));
        }
        self.link.reconnect = Some(now + self.link.backoff.failed());
    }

    fn send(&mut self, now: Instant, stanza: Stanza) {
        if let Err(why) = self.link.stream.send(now, stanza) {
            // The session's own time-out reports what came of it.
            tracing::warn!(%why, "a stanza cannot be sent");
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
}

/// What an IQ of ours asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    /// RFC 6121 §2.1.3
    Roster,
    /// XEP-0280 §4
    Carbons,
}

/// An answer of the server that takes longer is not waited for.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

impl Endpoint {
    /// A new session with the server: roster first, so that contacts are known before anybody can call; then presence.
    fn signed_in(&mut self, now: Instant) {
        self.link.contacts.session_began();
        self.ask(now, None, IqKind::Get(IqPayload::Roster(Box::default())), Request::Roster);
        self.ask(now, None, IqKind::Set(IqPayload::CarbonsEnable), Request::Carbons);
        self.send_presence(now, None);
    }

    fn send_presence(&mut self, now: Instant, to: Option<Jid>) {
        let presence = Presence::new(to, PresenceType::Available);
        if self.link.contacts.sending(&presence) {
            self.send(now, Stanza::Presence(presence));
        }
    }

    fn ask(&mut self, now: Instant, to: Option<Jid>, kind: IqKind, request: Request) {
        let id = self.link.stream.next_id();
        let Some(requests) = &mut self.link.requests else { return };
        if requests.track(id.clone(), to.clone(), now + REQUEST_LIMIT, request).is_ok() {
            self.send(now, Stanza::Iq(Iq::new(to, id, kind)));
        }
    }

    /// True if the peer may know that we are here.
    fn is_contact(&self, peer: &Jid) -> bool {
        self.link.contacts.knows_us(peer) || self.calls.values().any(|c| c.caller == Party::Local && &c.peer == peer)
    }

    /// The device to call without asking all devices first: a full JID as given, or the only kind of device that a person
    /// has, one without XEP-0353.
    pub(super) fn device_to_call(&self, to: &Jid) -> Option<Jid> {
        to.is_full().then(|| to.clone())
    }

    fn handle_iq(&mut self, now: Instant, iq: Iq) {
        if let Some((request, outcome)) = self.link.requests.as_mut().and_then(|r| r.answer(&iq)) {
            return self.handle_outcome(now, &request, outcome);
        }
        let from = iq.from.clone().unwrap_or_else(|| self.link.own());
        let contact = self.is_contact(&from);
        match iq.kind {
            IqKind::Set(IqPayload::Jingle(jingle)) => {
                self.show(Party::Remote, || summary::jingle(&jingle));
                self.sessions.handle_input(now, &from, contact, SessionInput::Set { id: iq.id, jingle });
            }
            IqKind::Result(_) => self.sessions.handle_input(now, &from, contact, SessionInput::Result { id: iq.id }),
            IqKind::Error(error) => {
                let error = IqError { condition: Some(error.condition), jingle: error.jingle, redirect: error.address };
                self.sessions.handle_input(now, &from, contact, SessionInput::Error { id: iq.id, error });
            }
            IqKind::Get(_) | IqKind::Set(_) => self.handle_request(now, &iq, contact),
        }
    }

    fn handle_outcome(&mut self, _now: Instant, request: &Request, outcome: Outcome) {
        match (request, outcome) {
            (Request::Roster, Outcome::Result(Some(IqPayload::Roster(roster)))) => self.link.contacts.load(*roster),
            (Request::Roster | Request::Carbons, Outcome::Result(_)) => {}
            (Request::Roster | Request::Carbons, Outcome::Error(_) | Outcome::Malformed | Outcome::TimedOut) => {
                tracing::info!(?request, "the server refuses");
            }
        }
    }

    fn handle_request(&mut self, now: Instant, iq: &Iq, contact: bool) {
        let answer = match self.link.contacts.push(iq) {
            Push::Applied { .. } => Some(iq.answer(IqKind::Result(None))),
            Push::Forged | Push::NotOne => answer_unclaimed(iq, contact),
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
        let Some(from) = message.from else { return };
        if message.kind == MessageType::Error {
            if let Some(id) = &message.id {
                self.invites.handle_bounce(&from, id);
            }
            return;
        }
        let Some(jmi) = message.jmi else { return };
        self.show(Party::Remote, || summary::invitation(&jmi));
        let age = message.delay.map(|delay| {
            let sent = delay.stamp.to_system_time().unwrap_or(SystemTime::UNIX_EPOCH);
            self.wall(now).duration_since(sent).unwrap_or_default()
        });
        let contact = self.is_contact(&from);
        self.invites.handle_input(now, InviteInput { from, to: message.to, via, age, contact, jmi: *jmi });
    }

    fn handle_presence(&mut self, now: Instant, presence: &Presence) {
        match self.link.contacts.receive(presence) {
            PresenceChange::Available(jid) => {
                let jid = Jid::from(jid);
                self.sessions.peer_available(&jid);
                self.emit(Event::Presence { jid, available: true });
            }
            PresenceChange::Unavailable(gone) => {
                for jid in gone.into_iter().map(Jid::from) {
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

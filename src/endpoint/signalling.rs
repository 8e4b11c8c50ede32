//! The signalling half of the endpoint: the stream, what is done when it is up, and where each stanza goes.
//! Read RFC 6121 §2 to §4 and XEP-0280 §11 before touching this file.

use super::event::{Event, Input, Output, Refusal, Signalling};
use super::{Endpoint, NamedServer};
use crate::jingle::invite::{InviteInput, InviteTransmit, Via};
use crate::jingle::session::{Body, IqError, SessionInput, SessionTransmit};
use crate::wire::jid::{BareJid, Jid};
use crate::wire::stanza::{
    Hint, Iq, IqKind, IqPayload, Message, MessageType, Presence, PresenceType, Stanza, StanzaError,
};
use crate::xmpp::backoff::Backoff;
use crate::xmpp::stream::{Stream, StreamConfig, StreamEvent, StreamFault, StreamInput, StreamPhase, StreamTransmit};
use std::time::Instant;

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
    services: Vec<NamedServer>,
}

impl Link {
    pub(super) fn new(now: Instant, seed: [u8; 32], account: &Account) -> Self {
        let Account::Client(config) = account;
        Self {
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
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.stream.poll_timeout().map(|(at, _)| at).into_iter().chain(self.reconnect).min()
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

impl Endpoint {
    fn signed_in(&mut self, now: Instant) {
        self.send(now, Stanza::Presence(Presence::new(None, PresenceType::Available)));
    }

    fn is_contact(&self, _peer: &Jid) -> bool {
        true
    }

    pub(super) fn device_to_call(&self, to: &Jid) -> Option<Jid> {
        to.is_full().then(|| to.clone())
    }

    fn handle_iq(&mut self, now: Instant, iq: Iq) {
        let Some(from) = iq.from.clone() else { return };
        let contact = self.is_contact(&from);
        match iq.kind {
            IqKind::Set(IqPayload::Jingle(jingle)) => {
                self.sessions.handle_input(now, &from, contact, SessionInput::Set { id: iq.id, jingle });
            }
            IqKind::Get(_) | IqKind::Set(_) => {}
            IqKind::Result(_) => self.sessions.handle_input(now, &from, contact, SessionInput::Result { id: iq.id }),
            IqKind::Error(error) => {
                let error = IqError { condition: Some(error.condition), jingle: error.jingle, redirect: error.address };
                self.sessions.handle_input(now, &from, contact, SessionInput::Error { id: iq.id, error });
            }
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
                self.invites.handle_bounce(now, &from, id);
            }
            return;
        }
        let Some(jmi) = message.jmi else { return };
        let age = message.delay.and_then(|delay| self.age(now, &delay.stamp));
        let contact = self.is_contact(&from);
        self.invites.handle_input(now, InviteInput { from, to: message.to, via, age, contact, jmi: *jmi });
    }

    fn handle_presence(&mut self, _now: Instant, _presence: &Presence) {}
}

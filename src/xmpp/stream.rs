//! The client's stream: login, resumption, liveness. Bytes in, bytes and stanzas out. Read RFC 6120 §4 to §7, XEP-0170
//! and XEP-0198 before touching this file.

use super::pipe::{Piece, Pipe, condition, stanza_text};
use super::resume::{SmSession, Unacked};
use super::sasl::Sasl;
pub use super::sasl::{BindingPolicy, SaslFault, SaslPolicy};
pub use super::stream_io::{
    SendError, StreamConfig, StreamEvent, StreamFault, StreamInput, StreamPhase, StreamTimer, StreamTransmit, TlsInfo,
    TlsPolicy, TlsVersion,
};
use crate::fault::{Malformed, StreamCondition};
use crate::wire::jid::{FullJid, Jid};
use crate::wire::stanza::{Iq, IqKind, Stanza, StanzaFault};
use crate::wire::stream::{Features, SaslData, SaslFailure, StreamElement, StreamError, StreamHeader, StreamKind};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::VecDeque;
use std::time::Instant;

mod login;
mod management;

/// How far a connection is.
#[derive(Debug, Clone)]
enum Step {
    /// Nothing is protected.
    Plain { loopback: bool },
    /// TLS runs.
    Secured(TlsInfo),
    /// The server knows us.
    Authenticated,
}

/// What is awaited, and what is needed when it comes.
///
/// ```text
/// Offline ─Connected─▶ Header ─▶ Features ─┬─ no TLS ────────▶ Proceed ─▶ Tls ─TlsStarted─▶ Header
///    ▲                                     ├─ not logged in ─▶ Sasl ─success─▶ Header
///    │                                     ├─ session left ──▶ Resume ─resumed──────────────────▶ Online
///    │                                     │                      └─failed─▶ Bind
///    │                                     └─ else ──────────▶ Bind ─▶ (Session) ─▶ Enable ─────▶ Online
///    └── connection ended, fault, deadline: from everywhere ◀──────────────── Closing ◀─ close ─────┘
/// ```
#[derive(Debug)]
enum State {
    Offline,
    Header(Step),
    Features(Step),
    Proceed,
    Tls,
    Sasl(Sasl),
    Resume(Features),
    Bind { id: String, features: Features, named: bool },
    Session { id: String, jid: FullJid, sm: bool },
    Enable { jid: FullJid },
    Online,
    Closing,
}

impl State {
    fn phase(&self) -> StreamPhase {
        match self {
            State::Offline => StreamPhase::Offline,
            State::Header(_) => StreamPhase::Header,
            State::Features(_) => StreamPhase::Features,
            State::Proceed => StreamPhase::Proceed,
            State::Tls => StreamPhase::Tls,
            State::Sasl(_) => StreamPhase::Sasl,
            State::Resume(_) => StreamPhase::Resume,
            State::Bind { .. } | State::Session { .. } => StreamPhase::Bind,
            State::Enable { .. } => StreamPhase::Enable,
            State::Online => StreamPhase::Online,
            State::Closing => StreamPhase::Closing,
        }
    }
}

/// Deadlines. One per reason.
#[derive(Debug, Default)]
struct Timers {
    phase: Option<Instant>,
    idle: Option<Instant>,
    reply: Option<Instant>,
    close: Option<Instant>,
}

/// A client's stream over any number of connections.
#[derive(Debug)]
pub struct Stream {
    config: StreamConfig,
    rng: ChaCha20Rng,
    state: State,
    pipe: Pipe,
    timers: Timers,
    jid: Option<FullJid>,
    mechanism: Option<&'static str>,
    /// A -PLUS mechanism is being tried with a server that does not list its binding types; what a second try needs.
    guess: Option<Box<(TlsInfo, Features)>>,
    /// Such a guess was wrong: this server binds, but not as we can.
    unbindable: bool,
    sm: Option<SmSession>,
    /// Stanzas that were never sent.
    waiting: VecDeque<Unacked>,
    waiting_bytes: usize,
    /// Id of our unanswered ping.
    ping: Option<String>,
    events: VecDeque<StreamEvent>,
}

impl Stream {
    /// Waits for the first connection. The seed gives nonces and ids.
    #[must_use]
    pub fn client(_now: Instant, seed: [u8; 32], config: StreamConfig) -> Self {
        Self {
            rng: ChaCha20Rng::from_seed(seed),
            state: State::Offline,
            pipe: Pipe::new(&config.xml),
            timers: Timers::default(),
            jid: None,
            mechanism: None,
            guess: None,
            unbindable: false,
            sm: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            ping: None,
            events: VecDeque::new(),
            config,
        }
    }

    /// Takes an input; drain [`Self::poll_transmit`] and [`Self::poll_event`] after it.
    pub fn handle_input(&mut self, now: Instant, input: StreamInput<'_>) {
        match input {
            StreamInput::Connected { tls, loopback } => self.connected(now, tls, loopback),
            StreamInput::Bytes(bytes) => self.bytes(now, bytes),
            StreamInput::TlsStarted(tls) => {
                // RFC 6120 §5.4.3.3: the stream begins anew inside TLS.
                if matches!(self.state, State::Tls) {
                    self.open(now, Step::Secured(tls));
                }
            }
            StreamInput::Closed(why) => match self.state {
                State::Offline => {}
                State::Header(_)
                | State::Features(_)
                | State::Proceed
                | State::Tls
                | State::Sasl(_)
                | State::Resume(_)
                | State::Bind { .. }
                | State::Session { .. }
                | State::Enable { .. }
                | State::Online
                | State::Closing => self.lose(StreamFault::Connection(why)),
            },
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.timers.close) {
            self.finish(StreamEvent::Closed);
        } else if due(self.timers.phase) || due(self.timers.reply) {
            let why = StreamFault::Timeout(self.state.phase());
            // RFC 6120 §4.9.3.4
            self.pipe.error(StreamError::new(StreamCondition::ConnectionTimeout));
            self.lose(why);
        } else {
            if due(self.timers.idle) {
                self.check_liveness(now);
            }
            self.request_ack(now);
        }
    }

    /// The next thing to do for the shell.
    pub fn poll_transmit(&mut self) -> Option<StreamTransmit> {
        self.pipe.poll_transmit()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is due next, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, StreamTimer)> {
        let ack = match self.state {
            State::Online => self.sm.as_ref().and_then(SmSession::request_due),
            State::Offline
            | State::Header(_)
            | State::Features(_)
            | State::Proceed
            | State::Tls
            | State::Sasl(_)
            | State::Resume(_)
            | State::Bind { .. }
            | State::Session { .. }
            | State::Enable { .. }
            | State::Closing => None,
        };
        [
            (self.timers.phase, StreamTimer::Phase),
            (self.timers.idle, StreamTimer::Idle),
            (self.timers.reply, StreamTimer::Reply),
            (ack, StreamTimer::AckRequest),
            (self.timers.close, StreamTimer::Close),
        ]
        .into_iter()
        .filter_map(|(at, why)| at.map(|at| (at, why)))
        .min_by_key(|(at, _)| *at)
    }

    /// Queues a stanza, also while there is no connection, and gives its id. A missing id (an empty one in an IQ) is filled
    /// in.
    ///
    /// # Errors
    /// [`SendError::QueueFull`].
    pub fn send(&mut self, now: Instant, mut stanza: Stanza) -> Result<String, SendError> {
        let id = match &mut stanza {
            Stanza::Iq(iq) if iq.id.is_empty() => {
                iq.id = new_id(&mut self.rng);
                iq.id.clone()
            }
            Stanza::Iq(iq) => iq.id.clone(),
            Stanza::Message(message) => message.id.get_or_insert_with(|| new_id(&mut self.rng)).clone(),
            Stanza::Presence(presence) => presence.id.get_or_insert_with(|| new_id(&mut self.rng)).clone(),
        };
        let text = stanza_text(&stanza);
        let (kept, kept_bytes) = self.queued();
        let limits = &self.config.limits;
        if kept >= limits.queue_stanzas || kept_bytes.saturating_add(text.len()) > limits.queue_bytes {
            return Err(SendError::QueueFull);
        }
        let stanza = Unacked { id: id.clone(), text };
        if matches!(self.state, State::Online) {
            self.transmit(now, stanza);
            self.request_ack(now);
        } else {
            self.waiting_bytes += stanza.text.len();
            self.waiting.push_back(stanza);
        }
        Ok(id)
    }

    /// An id that nobody can guess.
    pub fn next_id(&mut self) -> String {
        new_id(&mut self.rng)
    }

    /// The address bound in this or the resumable session.
    #[must_use]
    pub fn jid(&self) -> Option<&FullJid> {
        self.jid.as_ref()
    }

    /// SASL mechanism of the last login, as chosen; set from the moment of the choice.
    #[must_use]
    pub fn mechanism(&self) -> Option<&'static str> {
        self.mechanism
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// What is awaited.
    #[must_use]
    pub fn phase(&self) -> StreamPhase {
        self.state.phase()
    }

    /// Host and perhaps port where the server wants the session resumed (XEP-0198 §3).
    #[must_use]
    pub fn resume_location(&self) -> Option<&str> {
        self.sm.as_ref().and_then(SmSession::location)
    }

    /// Stanzas and bytes that wait to be sent or acknowledged.
    #[must_use]
    pub fn queued(&self) -> (usize, usize) {
        let (kept, bytes) = self.sm.as_ref().map_or((0, 0), SmSession::kept);
        (kept + self.waiting.len(), bytes + self.waiting_bytes)
    }

    /// Ends the session: `</stream:stream>`, then [`StreamEvent::Closed`] within [`StreamTimers::close`].
    pub fn close(&mut self, now: Instant) {
        match self.state {
            State::Offline | State::Closing => {}
            State::Online => {
                if let Some(sm) = &self.sm {
                    // XEP-0198 §4: the last count before the end.
                    self.pipe.element(&StreamElement::SmAck { h: sm.h() });
                }
                self.pipe.end();
                self.state = State::Closing;
                self.timers = Timers { close: Some(now + self.config.timers.close), ..Timers::default() };
            }
            State::Header(_)
            | State::Features(_)
            | State::Proceed
            | State::Tls
            | State::Sasl(_)
            | State::Resume(_)
            | State::Bind { .. }
            | State::Session { .. }
            | State::Enable { .. } => {
                self.pipe.end();
                self.finish(StreamEvent::Closed);
            }
        }
    }

    // Connection

    fn connected(&mut self, now: Instant, tls: Option<TlsInfo>, loopback: bool) {
        if !matches!(self.state, State::Offline) {
            // The shell gave up the last connection without a word.
            self.lose(StreamFault::Connection("replaced".into()));
        }
        self.pipe.reset();
        self.ping = None;
        self.open(now, tls.map_or(Step::Plain { loopback }, Step::Secured));
    }

    /// Sends a header and waits for the server's.
    fn open(&mut self, now: Instant, step: Step) {
        self.pipe.restart();
        let domain = Jid::from(jid::BareJid::from_parts(None, self.config.jid.domain()));
        // RFC 6120 §4.7.1: no from before TLS, it would tell who connects.
        let from = match step {
            Step::Plain { .. } => None,
            Step::Secured(_) | Step::Authenticated => Some(Jid::from(self.config.jid.to_bare())),
        };
        self.pipe.header(&StreamHeader::new(StreamKind::Client, from, Some(domain)));
        self.enter(now, State::Header(step));
    }

    /// Goes on with the login; each step has its own deadline.
    fn enter(&mut self, now: Instant, state: State) {
        self.state = state;
        self.timers = Timers { phase: Some(now + self.config.timers.phase), ..Timers::default() };
    }

    fn bytes(&mut self, now: Instant, bytes: &[u8]) {
        // Before TLS is up nothing can be for us; after the end nothing matters (RFC 6120 §4.4).
        if matches!(self.state, State::Offline | State::Tls) {
            return;
        }
        if matches!(self.state, State::Online) {
            self.timers.idle = Some(now + self.config.timers.idle);
            self.timers.reply = self.timers.reply.map(|_| now + self.config.timers.reply);
        }
        self.pipe.push(bytes);
        while !matches!(self.state, State::Offline | State::Tls) {
            match self.pipe.next() {
                Ok(None) => break,
                Ok(Some(piece)) => self.piece(now, piece),
                Err(fault) => self.bad_xml(fault),
            }
        }
        self.request_ack(now);
    }

    /// RFC 6120 §4.9.1.1: the fault is answered, then the connection ends. The session too: what broke the stream would come
    /// again with a resumption.
    fn bad_xml(&mut self, fault: Malformed) {
        if matches!(self.state, State::Closing) {
            return self.finish(StreamEvent::Closed);
        }
        // The stanza may be a stranger's, and what stays unacknowledged the server keeps and delivers again at the next
        // login: one bad message would lock the account out. So it is taken over, like every stanza, and dropped.
        if let (State::Online, Some(sm)) = (&self.state, &mut self.sm) {
            sm.count_received();
            let h = sm.h();
            self.pipe.element(&StreamElement::SmAck { h });
        }
        self.pipe.error(StreamError::new(condition(&fault)));
        self.forget_session(None);
        self.lose(StreamFault::Xml(fault));
    }

    fn unexpected(&mut self) {
        let condition = match self.state {
            // RFC 6120 §4.9.3.12: data before authentication.
            State::Header(_) | State::Features(_) | State::Proceed | State::Tls | State::Sasl(_) => {
                StreamCondition::NotAuthorized
            }
            State::Offline
            | State::Resume(_)
            | State::Bind { .. }
            | State::Session { .. }
            | State::Enable { .. }
            | State::Online
            | State::Closing => StreamCondition::UnsupportedStanzaType,
        };
        let why = StreamFault::Unexpected(self.state.phase());
        self.pipe.error(StreamError::new(condition));
        self.forget_session(None);
        self.lose(why);
    }

    fn refuse(&mut self, why: StreamFault) {
        self.pipe.end();
        self.finish(StreamEvent::Refused(why));
    }

    fn lose(&mut self, why: StreamFault) {
        if matches!(self.state, State::Closing) {
            return self.finish(StreamEvent::Closed);
        }
        let resumable = self.sm.as_ref().is_some_and(|sm| sm.previd().is_some());
        if !resumable {
            self.forget_session(None);
        }
        self.end(StreamEvent::Lost { resumable, why });
    }

    /// Ends connection and session.
    fn finish(&mut self, event: StreamEvent) {
        self.forget_session(None);
        self.end(event);
    }

    fn end(&mut self, event: StreamEvent) {
        self.pipe.close();
        self.state = State::Offline;
        self.timers = Timers::default();
        self.ping = None;
        self.events.push_back(event);
    }

    fn forget_session(&mut self, h: Option<u32>) {
        if let Some(sm) = self.sm.take() {
            let (acked, ids) = sm.fail(h);
            self.events.extend(acked.into_iter().map(|id| StreamEvent::Acked { id }));
            if !ids.is_empty() {
                self.events.push_back(StreamEvent::Undelivered { ids });
            }
        }
    }

    // Pieces

    fn piece(&mut self, now: Instant, piece: Piece) {
        match piece {
            Piece::Header(header) => self.header(now, &header),
            Piece::Element(StreamElement::Error(error)) => self.stream_error(*error),
            Piece::Element(element) => self.element(now, element),
            Piece::Stanza(stanza) => self.stanza(now, stanza),
            Piece::Malformed(fault) => self.malformed(fault),
            Piece::End if matches!(self.state, State::Closing) => self.finish(StreamEvent::Closed),
            Piece::End => {
                // XEP-0198 §5: a closed stream cannot be resumed.
                self.pipe.end();
                self.forget_session(None);
                self.lose(StreamFault::ServerClosed);
            }
        }
    }

    fn header(&mut self, now: Instant, header: &StreamHeader) {
        if header.kind != StreamKind::Client {
            let detail = "content namespace";
            return self.bad_xml(Malformed::Xml { condition: StreamCondition::InvalidNamespace, detail });
        }
        let State::Header(step) = &self.state else { return self.unexpected() };
        let step = step.clone();
        // RFC 6120 §4.7.5: a server without version 1.0 sends no features.
        if header.version.is_none_or(|(major, _)| major == 0) {
            self.pipe.error(StreamError::new(StreamCondition::UnsupportedVersion));
            return self.finish(StreamEvent::Refused(StreamFault::Version));
        }
        self.enter(now, State::Features(step));
    }

    fn stream_error(&mut self, error: StreamError) {
        use StreamCondition as C;
        let closing = matches!(self.state, State::Closing);
        self.pipe.end();
        self.forget_session(None);
        match error.condition {
            _ if closing => self.end(StreamEvent::Closed),
            C::SeeOtherHost => match error.see_other_host.as_deref().and_then(other_host) {
                Some((host, port)) => self.end(StreamEvent::SeeOtherHost { host, port }),
                None => self.lose(StreamFault::Stream(Box::new(error))),
            },
            // Another attempt ends the same way; after conflict it would throw out the one that replaced us.
            C::Conflict
            | C::HostGone
            | C::HostUnknown
            | C::ImproperAddressing
            | C::InvalidFrom
            | C::InvalidNamespace
            | C::NotAuthorized
            | C::PolicyViolation
            | C::UnsupportedEncoding
            | C::UnsupportedFeature
            | C::UnsupportedVersion => self.end(StreamEvent::Refused(StreamFault::Stream(Box::new(error)))),
            C::BadFormat
            | C::BadNamespacePrefix
            | C::ConnectionTimeout
            | C::InternalServerError
            | C::InvalidXml
            | C::NotWellFormed
            | C::RemoteConnectionFailed
            | C::Reset
            | C::ResourceConstraint
            | C::RestrictedXml
            | C::SystemShutdown
            | C::UndefinedCondition
            | C::UnsupportedStanzaType => self.lose(StreamFault::Stream(Box::new(error))),
        }
    }

    fn element(&mut self, now: Instant, element: StreamElement) {
        use StreamElement as E;
        match (std::mem::replace(&mut self.state, State::Offline), element) {
            (State::Features(step), E::Features(features)) => self.features(now, step, *features),
            (State::Proceed, E::TlsProceed) => {
                // RFC 6120 §5.4.3.3: what the server sent after it in clear is dropped.
                self.pipe.restart();
                self.pipe.start_tls();
                self.enter(now, State::Tls);
            }
            (State::Proceed, E::TlsFailure) => self.refuse(StreamFault::TlsRefused),
            (State::Sasl(sasl), E::SaslChallenge(data)) => match sasl.challenge(&data.0) {
                Ok((sasl, answer)) => {
                    self.pipe.element(&E::SaslResponse(SaslData(answer)));
                    self.enter(now, State::Sasl(sasl));
                }
                Err(fault) => {
                    self.pipe.element(&E::SaslAbort);
                    self.refuse(StreamFault::Sasl(fault));
                }
            },
            (State::Sasl(sasl), E::SaslSuccess(data)) => match sasl.success(data.as_ref().map(|d| d.0.as_slice())) {
                Ok(()) => self.open(now, Step::Authenticated),
                Err(fault) => self.refuse(StreamFault::Sasl(fault)),
            },
            // RFC 6120 §6.4.5: another mechanism may follow. ejabberd 23.01 offers -PLUS in TLS 1.3, lists no type (XEP-0440) and
            // refuses tls-exporter with not-authorized, which a wrong password brings too; then the second try ends it.
            (State::Sasl(_), E::SaslFailure(_)) if self.guess.is_some() => {
                self.unbindable = true;
                if let Some((tls, features)) = self.guess.take().map(|guess| *guess) {
                    self.authenticate(now, Some(&tls), &features);
                }
            }
            (State::Sasl(_), E::SaslFailure(SaslFailure { condition, text })) => {
                self.pipe.end();
                self.finish(StreamEvent::AuthFailed { condition, text });
            }
            (State::Resume(_), E::SmResumed { h, .. }) => self.resumed(now, h),
            (State::Resume(features), E::SmFailed { h, .. }) => {
                self.forget_session(h);
                self.bind(now, features, true);
            }
            (State::Enable { jid }, E::SmEnabled(enabled)) => {
                self.sm = Some(SmSession::new(enabled));
                self.online(now, jid, false);
            }
            (State::Enable { jid }, E::SmFailed { .. }) => self.online(now, jid, false),
            (state @ (State::Online | State::Closing), E::SmAck { h }) => {
                self.state = state;
                self.acked(now, h);
            }
            (State::Online, E::SmRequest) => {
                self.state = State::Online;
                if let Some(sm) = &self.sm {
                    self.pipe.element(&E::SmAck { h: sm.h() });
                }
            }
            // RFC 6120 §4.4: our half is closed, nothing is answered any more.
            (State::Closing, _) => self.state = State::Closing,
            (state, _) => {
                self.state = state;
                self.unexpected();
            }
        }
    }

    // Session

    fn online(&mut self, now: Instant, jid: FullJid, resumed: bool) {
        self.jid = Some(jid.clone());
        self.state = State::Online;
        self.timers = Timers { idle: Some(now + self.config.timers.idle), ..Timers::default() };
        self.events.push_back(StreamEvent::Online { jid, resumed });
        if !resumed {
            self.send_waiting(now);
        }
    }

    // Stanzas

    fn stanza(&mut self, now: Instant, stanza: Stanza) {
        match (std::mem::replace(&mut self.state, State::Offline), stanza) {
            (State::Online, stanza) => {
                self.state = State::Online;
                if let Some(sm) = &mut self.sm {
                    sm.count_received();
                }
                if self.is_pong(&stanza) {
                    self.ping = None;
                    self.timers.reply = None;
                } else {
                    self.events.push_back(StreamEvent::Stanza(Box::new(stanza)));
                }
            }
            (State::Closing, stanza) => {
                self.state = State::Closing;
                self.events.push_back(StreamEvent::Stanza(Box::new(stanza)));
            }
            // Bound already: the server may deliver before it answers <enable/>.
            (state @ State::Enable { .. }, stanza) => {
                self.state = state;
                self.events.push_back(StreamEvent::Stanza(Box::new(stanza)));
            }
            (State::Bind { id, features, named }, Stanza::Iq(iq)) if iq.id == id && self.is_from_server(&iq) => {
                self.bind_answer(now, iq, features, named);
            }
            (State::Session { id, jid, sm }, Stanza::Iq(iq)) if iq.id == id && self.is_from_server(&iq) => {
                self.enable(now, jid, sm);
            }
            (state, _) => {
                self.state = state;
                self.unexpected();
            }
        }
    }

    fn malformed(&mut self, fault: Box<StanzaFault>) {
        match self.state {
            State::Online => {
                if let Some(sm) = &mut self.sm {
                    sm.count_received();
                }
                self.events.push_back(StreamEvent::Malformed(fault));
            }
            State::Enable { .. } | State::Closing => self.events.push_back(StreamEvent::Malformed(fault)),
            State::Offline
            | State::Header(_)
            | State::Features(_)
            | State::Proceed
            | State::Tls
            | State::Sasl(_)
            | State::Resume(_)
            | State::Bind { .. }
            | State::Session { .. } => self.unexpected(),
        }
    }

    fn is_pong(&self, stanza: &Stanza) -> bool {
        match (stanza, &self.ping) {
            (Stanza::Iq(iq), Some(id)) => {
                iq.id == *id && matches!(iq.kind, IqKind::Result(_) | IqKind::Error(_)) && self.is_from_server(iq)
            }
            (Stanza::Iq(_) | Stanza::Message(_) | Stanza::Presence(_), _) => false,
        }
    }

    /// RFC 6120 §8.1.2.1: no from, our own address or the domain.
    fn is_from_server(&self, iq: &Iq) -> bool {
        iq.from.as_ref().is_none_or(|from| {
            from.domain() == self.config.jid.domain()
                && (from.node().is_none() || from.node() == self.config.jid.node())
        })
    }
}

fn new_id(rng: &mut ChaCha20Rng) -> String {
    format!("{:016x}", rng.next_u64())
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`, RFC 6120 §4.9.3.19.
fn other_host(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            // More than one colon: an IPv6 address without brackets.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map(str::parse).transpose().ok()?;
    (!host.is_empty() && host.len() <= 255).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::disallowed_methods,
        clippy::wildcard_enum_match_arm,
        clippy::panic
    )]
    use super::*;
    use crate::wire::stanza::{IqPayload, Message, MessageType};
    use crate::wire::stream::SaslCondition;
    use crate::xmpp::sasl::testing::Server;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use proptest::prelude::*;
    use std::time::Duration;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams' id='x' from='capulet.lit' version='1.0'>";
    const SASL_NS: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
    const SM: &str = "xmlns='urn:xmpp:sm:3'";
    const ROMEO: &str = "juliet@capulet.lit/balcony";

    /// A scripted server in virtual time.
    struct Lab {
        now: Instant,
        stream: Stream,
    }

    fn config() -> StreamConfig {
        StreamConfig::new(Jid::new(ROMEO).unwrap(), crate::config::Secret::new("secret"))
    }

    fn lab(config: StreamConfig) -> Lab {
        let now = Instant::now();
        Lab { now, stream: Stream::client(now, [7; 32], config) }
    }

    fn tls() -> TlsInfo {
        TlsInfo { version: TlsVersion::Tls13, exporter: Some(vec![9; 32]) }
    }

    fn mechanisms(names: &[&str]) -> String {
        let names: String = names.iter().map(|n| format!("<mechanism>{n}</mechanism>")).collect();
        format!("<mechanisms {SASL_NS}>{names}</mechanisms>")
    }

    fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
        text.split_once(from).unwrap_or_else(|| panic!("no {from} in {text}")).1.split_once(to).unwrap().0
    }

    impl Lab {
        fn connect(&mut self, tls: Option<TlsInfo>) -> String {
            self.stream.handle_input(self.now, StreamInput::Connected { tls, loopback: true });
            self.sent()
        }

        fn feed(&mut self, xml: &str) -> String {
            self.stream.handle_input(self.now, StreamInput::Bytes(xml.as_bytes()));
            self.sent()
        }

        fn features(&mut self, inside: &str) -> String {
            self.feed(&format!("{HEADER}<stream:features>{inside}</stream:features>"))
        }

        fn sent(&mut self) -> String {
            let mut all = String::new();
            while let Some(transmit) = self.stream.poll_transmit() {
                match transmit {
                    StreamTransmit::Bytes(bytes) => all.push_str(&String::from_utf8(bytes).unwrap()),
                    StreamTransmit::StartTls => all.push_str("[tls]"),
                    StreamTransmit::Close => all.push_str("[close]"),
                }
            }
            all
        }

        fn events(&mut self) -> Vec<StreamEvent> {
            std::iter::from_fn(|| self.stream.poll_event()).collect()
        }

        fn event(&mut self) -> StreamEvent {
            let mut events = self.events();
            assert_eq!(events.len(), 1, "{events:?}");
            events.remove(0)
        }

        /// Runs the clock to the next deadline.
        fn wait(&mut self) -> (StreamTimer, String) {
            let (at, why) = self.stream.poll_timeout().unwrap();
            self.now = self.now.max(at);
            self.stream.handle_timeout(self.now);
            (why, self.sent())
        }

        /// SCRAM with the right password; gives what the client sends after success.
        fn authenticate(&mut self, auth: &str) -> String {
            let mechanism = between(auth, "mechanism='", "'");
            let first = BASE64.decode(between(auth, "'>", "</auth>").rsplit('>').next().unwrap()).unwrap();
            let server = Server::first(mechanism, &first, "secret", &[9; 32]);
            let challenge = BASE64.encode(&server.first);
            let response = self.feed(&format!("<challenge {SASL_NS}>{challenge}</challenge>"));
            let response = BASE64.decode(between(&response, "xmpp-sasl'>", "<")).unwrap();
            let proof = server.last(&response).expect("right proof");
            self.feed(&format!("<success {SASL_NS}>{}</success>", BASE64.encode(proof)))
        }

        fn login_to_features(&mut self) {
            self.connect(Some(tls()));
            let auth = self.features(&mechanisms(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]));
            let restart = self.authenticate(&auth);
            assert!(restart.contains("from='juliet@capulet.lit'") && restart.contains("to='capulet.lit'"), "{restart}");
        }

        fn bind(&mut self, inside: &str) -> String {
            let bind = self.features(&format!("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>{inside}"));
            self.bind_result(&bind, ROMEO)
        }

        fn bind_result(&mut self, bind: &str, jid: &str) -> String {
            let id = between(bind, "id='", "'").to_owned();
            self.feed(&format!(
                "<iq type='result' id='{id}'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>{jid}</jid></bind></iq>"
            ))
        }

        fn online(&mut self) {
            self.login_to_features();
            let enable = self.bind(&format!("<sm {SM}/>"));
            assert!(enable.contains("<enable") && enable.contains("resume='true'"), "{enable}");
            self.feed(&format!("<enabled {SM} id='sm1' resume='true'/>"));
            let jid = FullJid::new(ROMEO).unwrap();
            assert_eq!(self.event(), StreamEvent::Online { jid, resumed: false });
        }

        fn online_without_sm(&mut self) {
            self.login_to_features();
            self.bind("");
            assert!(matches!(self.event(), StreamEvent::Online { resumed: false, .. }));
        }

        fn message(&mut self, body: &str) -> String {
            let mut message = Message::new(Some(Jid::new("romeo@montague.lit").unwrap()), MessageType::Chat);
            (message.id, message.body) = (Some(body.into()), Some(body.into()));
            self.stream.send(self.now, Stanza::Message(message)).unwrap();
            self.sent()
        }

        fn drop_connection(&mut self) -> StreamEvent {
            self.stream.handle_input(self.now, StreamInput::Closed("reset".into()));
            self.sent();
            self.event()
        }

        fn resume(&mut self) -> String {
            self.login_to_features();
            self.features(&format!("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm {SM}/>"))
        }
    }

    #[test]
    fn a_login_over_starttls_tells_nothing_before_tls_and_ends_online() {
        let mut lab = lab(config());
        let header = lab.connect(None);
        assert!(header.contains("to='capulet.lit'") && !header.contains("from="), "{header}");
        let starttls = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>";
        let sent = lab.features(&format!("{starttls}{}", mechanisms(&["PLAIN"])));
        assert!(sent.contains("<starttls") && !sent.contains("auth"), "{sent}");
        // What follows <proceed/> in clear was not sent by the server that we will know by its certificate.
        let injected = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><stream:features/>";
        assert_eq!(lab.feed(injected), "[tls]");
        assert_eq!(lab.stream.phase(), StreamPhase::Tls);
        lab.stream.handle_input(lab.now, StreamInput::TlsStarted(tls()));
        assert!(lab.sent().contains("from='juliet@capulet.lit'"));
        let auth = lab.features(&mechanisms(&["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]));
        assert_eq!(between(&auth, "mechanism='", "'"), "SCRAM-SHA-256-PLUS");
        lab.authenticate(&auth);
        lab.bind("");
        assert_eq!(lab.event(), StreamEvent::Online { jid: FullJid::new(ROMEO).unwrap(), resumed: false });
        assert_eq!(lab.stream.phase(), StreamPhase::Online);
    }

    #[test]
    fn a_server_without_tls_is_refused_before_any_name_or_password() {
        let mut lab = lab(config());
        lab.connect(None);
        assert_eq!(lab.features(&mechanisms(&["PLAIN", "SCRAM-SHA-1"])), "</stream:stream>[close]");
        assert_eq!(lab.event(), StreamEvent::Refused(StreamFault::NoStartTls));
    }

    #[test]
    fn plain_text_is_for_loopback_only() {
        let mut config = config();
        config.tls = TlsPolicy::PlaintextLoopbackOnly;
        let mut near = lab(config.clone());
        near.connect(None);
        let auth = near.features(&mechanisms(&["SCRAM-SHA-1"]));
        assert!(auth.contains("<auth"));
        near.authenticate(&auth);
        near.bind("");
        assert!(matches!(near.event(), StreamEvent::Online { .. }));
        let mut far = lab(config);
        far.stream.handle_input(far.now, StreamInput::Connected { tls: None, loopback: false });
        far.sent();
        assert_eq!(far.features(&mechanisms(&["SCRAM-SHA-1"])), "</stream:stream>[close]");
        assert_eq!(far.event(), StreamEvent::Refused(StreamFault::PlaintextOffLoopback));
    }

    #[test]
    fn a_wrong_password_ends_with_the_servers_condition() {
        let mut lab = lab(config());
        lab.connect(Some(tls()));
        lab.features(&mechanisms(&["SCRAM-SHA-256-PLUS"]));
        let sent = lab.feed(&format!("<failure {SASL_NS}><not-authorized/><text>no</text></failure>"));
        assert_eq!(sent, "</stream:stream>[close]");
        let (condition, text) = (Some(SaslCondition::NotAuthorized), Some("no".into()));
        assert_eq!(lab.event(), StreamEvent::AuthFailed { condition, text });
        assert!(lab.stream.poll_timeout().is_none());
    }

    #[test]
    fn a_server_that_binds_otherwise_is_tried_once_more_without_binding() {
        let mut lab = lab(config());
        lab.connect(Some(tls()));
        lab.features(&mechanisms(&["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]));
        let failure = format!("<failure {SASL_NS}><not-authorized/></failure>");
        let again = lab.feed(&failure);
        assert_eq!(between(&again, "mechanism='", "'"), "SCRAM-SHA-256");
        assert_eq!(lab.feed(&failure), "</stream:stream>[close]");
        assert!(matches!(lab.event(), StreamEvent::AuthFailed { .. }));
    }

    #[test]
    fn a_server_that_cannot_prove_itself_is_not_believed() {
        let mut lab = lab(config());
        lab.connect(Some(tls()));
        let auth = lab.features(&mechanisms(&["SCRAM-SHA-256-PLUS"]));
        assert!(auth.contains("<auth"));
        let sent = lab.feed(&format!("<success {SASL_NS}/>"));
        assert_eq!(sent, "</stream:stream>[close]");
        assert_eq!(lab.event(), StreamEvent::Refused(StreamFault::Sasl(SaslFault::Unproved)));

        lab.connect(Some(tls()));
        let auth = lab.features(&mechanisms(&["SCRAM-SHA-256"]));
        let first = BASE64.decode(between(&auth, "'>", "</auth>").rsplit('>').next().unwrap()).unwrap();
        assert!(first.starts_with(b"y,,"), "the server must learn that -PLUS was stripped");
        let challenge = BASE64.encode(Server::first("SCRAM-SHA-256", &first, "secret", &[]).first);
        lab.feed(&format!("<challenge {SASL_NS}>{challenge}</challenge>"));
        lab.feed(&format!("<success {SASL_NS}>{}</success>", BASE64.encode("v=AAAA")));
        assert_eq!(lab.event(), StreamEvent::Refused(StreamFault::Sasl(SaslFault::Signature)));
    }

    #[test]
    fn a_listed_binding_without_plus_mechanism_is_a_downgrade() {
        let mut lab = lab(config());
        lab.connect(Some(tls()));
        let list = "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/></sasl-channel-binding>";
        let sent = lab.features(&format!("{}{list}", mechanisms(&["SCRAM-SHA-256"])));
        assert_eq!(sent, "</stream:stream>[close]");
        assert_eq!(lab.event(), StreamEvent::Refused(StreamFault::Sasl(SaslFault::NoBinding)));
    }

    #[test]
    fn stream_errors_tell_whether_to_come_back() {
        let error = |inside: &str| {
            let mut lab = lab(config());
            lab.connect(None);
            lab.feed(&format!("{HEADER}<stream:error>{inside}</stream:error></stream:stream>"));
            lab.event()
        };
        let ns = "xmlns='urn:ietf:params:xml:ns:xmpp-streams'";
        let host_unknown = error(&format!("<host-unknown {ns}/>"));
        assert!(
            matches!(host_unknown, StreamEvent::Refused(StreamFault::Stream(e)) if e.condition == StreamCondition::HostUnknown)
        );
        let policy = error(&format!("<policy-violation {ns}/>"));
        assert!(matches!(policy, StreamEvent::Refused(StreamFault::Stream(_))));
        let shutdown = error(&format!("<system-shutdown {ns}/>"));
        assert!(matches!(shutdown, StreamEvent::Lost { resumable: false, why: StreamFault::Stream(_) }));
        let other = error(&format!("<see-other-host {ns}>[2001:db8::1]:5223</see-other-host>"));
        assert_eq!(other, StreamEvent::SeeOtherHost { host: "2001:db8::1".into(), port: Some(5223) });
        let other = error(&format!("<see-other-host {ns}>b.example</see-other-host>"));
        assert_eq!(other, StreamEvent::SeeOtherHost { host: "b.example".into(), port: None });
        let bad = error(&format!("<see-other-host {ns}>b.example:99999</see-other-host>"));
        assert!(matches!(bad, StreamEvent::Lost { .. }));
    }

    #[test]
    fn each_phase_of_the_login_has_its_deadline() {
        type Reach = fn(&mut Lab);
        let phases: [(StreamPhase, Reach); 5] = [
            (StreamPhase::Header, |lab| drop(lab.connect(None))),
            (StreamPhase::Features, |lab| {
                lab.connect(None);
                lab.feed(HEADER);
            }),
            (StreamPhase::Sasl, |lab| {
                lab.connect(Some(tls()));
                lab.features(&mechanisms(&["SCRAM-SHA-256-PLUS"]));
            }),
            (StreamPhase::Bind, |lab| {
                lab.login_to_features();
                lab.features("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>");
            }),
            (StreamPhase::Enable, |lab| {
                lab.login_to_features();
                lab.bind(&format!("<sm {SM}/>"));
            }),
        ];
        for (phase, reach) in phases {
            let mut lab = lab(config());
            reach(&mut lab);
            assert_eq!(lab.stream.phase(), phase);
            let began = lab.now;
            let (why, sent) = lab.wait();
            assert_eq!((why, lab.now - began), (StreamTimer::Phase, Duration::from_secs(30)));
            assert!(sent.contains("connection-timeout") && sent.ends_with("</stream:stream>[close]"), "{sent}");
            assert_eq!(lab.event(), StreamEvent::Lost { resumable: false, why: StreamFault::Timeout(phase) });
        }
    }

    #[test]
    fn a_taken_resource_is_replaced_by_one_of_the_servers() {
        let mut lab = lab(config());
        lab.login_to_features();
        let bind = lab.features("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>");
        assert!(bind.contains("<resource>balcony</resource>"));
        let id = between(&bind, "id='", "'").to_owned();
        let error = "<error type='modify'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        let bind = lab.feed(&format!("<iq type='error' id='{id}'>{error}</iq>"));
        assert!(bind.contains("<bind") && !bind.contains("balcony"), "{bind}");
        lab.bind_result(&bind, "juliet@capulet.lit/other");
        assert_eq!(lab.stream.jid().unwrap().to_string(), "juliet@capulet.lit/other");
    }

    #[test]
    fn stanzas_before_the_login_end_the_stream() {
        let mut lab = lab(config());
        lab.connect(None);
        let sent = lab.feed(&format!("{HEADER}<message from='evil@x'><body>hi</body></message>"));
        assert!(sent.contains("<not-authorized"), "{sent}");
        let why = StreamFault::Unexpected(StreamPhase::Features);
        assert_eq!(lab.event(), StreamEvent::Lost { resumable: false, why });
    }

    #[test]
    fn queued_stanzas_go_out_once_online_and_acks_name_them() {
        let mut lab = lab(config());
        assert_eq!(lab.message("early"), "");
        lab.login_to_features();
        lab.bind(&format!("<sm {SM}/>"));
        let sent = lab.feed(&format!("<enabled {SM} id='sm1' resume='true'/>"));
        assert!(sent.contains("early") && !sent.contains("<r "), "{sent}");
        lab.events();
        let (why, sent) = lab.wait();
        assert_eq!(why, StreamTimer::AckRequest);
        assert!(sent.starts_with("<r "), "{sent}");
        lab.feed(&format!("<a {SM} h='1'/>"));
        assert_eq!(lab.event(), StreamEvent::Acked { id: "early".into() });
        assert_eq!(lab.stream.queued(), (0, 0));
    }

    #[test]
    fn stanzas_in_are_counted_and_acknowledged_when_asked() {
        let mut lab = lab(config());
        lab.online();
        lab.feed("<message><body>1</body></message><presence from='a@b'/>");
        // A stanza that cannot be read is counted too; what its sender may be told is not the stream's to say.
        assert_eq!(lab.feed("<iq type='get' id='q' from='a@b/c'/>"), "");
        let events = lab.events();
        assert!(matches!(&events[..], [StreamEvent::Stanza(_), StreamEvent::Stanza(_), StreamEvent::Malformed(_)]));
        assert!(lab.feed(&format!("<r {SM}/>")).contains("h='3'"));
    }

    #[test]
    fn a_resumed_session_loses_and_doubles_nothing() {
        let mut lab = lab(config());
        lab.online();
        for body in ["1", "2", "3"] {
            lab.message(body);
        }
        lab.feed("<presence from='a@b'/>");
        lab.events();
        let why = StreamFault::Connection("reset".into());
        assert_eq!(lab.drop_connection(), StreamEvent::Lost { resumable: true, why });
        assert_eq!(lab.message("4"), "");
        let resume = lab.resume();
        assert!(resume.contains("<resume") && resume.contains("h='1'") && resume.contains("previd='sm1'"), "{resume}");
        // The server got 1 and 2; the ack of it was lost with the connection.
        let sent = lab.feed(&format!("<resumed {SM} h='2' previd='sm1'/>"));
        let bodies: Vec<_> = sent.match_indices("<body>").map(|(at, _)| &sent[at + 6..at + 7]).collect();
        assert_eq!(bodies, ["3", "4"], "{sent}");
        let jid = FullJid::new(ROMEO).unwrap();
        let acked = |id: &str| StreamEvent::Acked { id: id.into() };
        assert_eq!(lab.events(), [StreamEvent::Online { jid, resumed: true }, acked("1"), acked("2")]);
        assert!(sent.contains("<r "), "{sent}");
        // A duplicated ack says nothing new.
        lab.feed(&format!("<a {SM} h='4'/><a {SM} h='4'/>"));
        assert_eq!(lab.events(), [acked("3"), acked("4")]);
    }

    #[test]
    fn a_session_survives_a_loss_at_every_step_of_the_resumption() {
        type Step = fn(&mut Lab);
        let steps: [Step; 5] = [
            |lab| drop(lab.connect(Some(tls()))),
            |lab| {
                lab.connect(Some(tls()));
                lab.features(&mechanisms(&["SCRAM-SHA-256-PLUS"]));
            },
            Lab::login_to_features,
            |lab| drop(lab.resume()),
            |lab| {
                lab.resume();
                let sent = lab.feed(&format!("<resumed {SM} h='0' previd='sm1'/>"));
                assert!(sent.contains("<body>1"));
                lab.events();
            },
        ];
        let mut lab = lab(config());
        lab.online();
        lab.message("1");
        lab.drop_connection();
        for step in steps {
            step(&mut lab);
            assert!(matches!(lab.drop_connection(), StreamEvent::Lost { resumable: true, .. }));
        }
        lab.resume();
        let sent = lab.feed(&format!("<resumed {SM} h='1' previd='sm1'/>"));
        assert!(!sent.contains("<body>"), "{sent}");
        assert_eq!(lab.events().len(), 2);
    }

    #[test]
    fn a_failed_resumption_binds_anew_and_names_what_may_be_lost() {
        let mut lab = lab(config());
        lab.online();
        lab.message("1");
        lab.message("2");
        lab.drop_connection();
        lab.resume();
        let bind = lab.feed(&format!(
            "<failed {SM} h='1'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
        ));
        let undelivered = StreamEvent::Undelivered { ids: vec!["2".into()] };
        assert_eq!(lab.events(), [StreamEvent::Acked { id: "1".into() }, undelivered]);
        let enable = lab.bind_result(&bind, ROMEO);
        assert!(enable.contains("<enable"));
        let sent = lab.feed(&format!("<enabled {SM} id='sm2' resume='1'/>"));
        assert!(!sent.contains("<body>"));
        assert!(matches!(lab.event(), StreamEvent::Online { resumed: false, .. }));
    }

    #[test]
    fn a_server_that_acknowledges_too_much_gets_the_counts() {
        let mut lab = lab(config());
        lab.online();
        lab.message("1");
        let sent = lab.feed(&format!("<a {SM} h='2'/>"));
        assert!(sent.contains("<undefined-condition") && sent.contains("<handled-count-too-high"), "{sent}");
        assert!(sent.contains("h='2'") && sent.contains("send-count='1'"), "{sent}");
        let lost = StreamEvent::Lost { resumable: false, why: StreamFault::HandledCountTooHigh };
        assert_eq!(lab.events(), [StreamEvent::Undelivered { ids: vec!["1".into()] }, lost]);
    }

    #[test]
    fn silence_is_probed_and_then_means_loss() {
        let mut with_sm = lab(config());
        with_sm.online();
        let (why, sent) = with_sm.wait();
        assert_eq!(why, StreamTimer::Idle);
        assert!(sent.starts_with("<r "), "{sent}");
        assert_eq!(with_sm.wait().0, StreamTimer::Reply);
        let why = StreamFault::Timeout(StreamPhase::Online);
        assert_eq!(with_sm.event(), StreamEvent::Lost { resumable: true, why });

        let mut without = lab(config());
        without.online_without_sm();
        for _ in 0..3 {
            let (why, ping) = without.wait();
            assert_eq!(why, StreamTimer::Idle);
            let id = between(&ping, "id='", "'").to_owned();
            assert!(ping.contains("urn:xmpp:ping") && ping.contains("to='capulet.lit'"), "{ping}");
            // Somebody else who guessed the id is not the server.
            without.feed(&format!("<iq type='result' id='{id}' from='evil@x/y'/>"));
            assert!(matches!(without.event(), StreamEvent::Stanza(_)));
            without.feed(&format!("<iq type='result' id='{id}' from='capulet.lit'/>"));
            assert!(without.events().is_empty());
            assert_eq!(without.stream.poll_timeout().unwrap().1, StreamTimer::Idle);
        }
        without.wait();
        without.wait();
        assert!(matches!(without.event(), StreamEvent::Lost { resumable: false, .. }));
    }

    #[test]
    fn closing_says_goodbye_and_waits_a_little() {
        let mut lab = lab(config());
        lab.online();
        lab.message("1");
        lab.stream.close(lab.now);
        let sent = lab.sent();
        assert!(sent.contains("<a ") && sent.ends_with("</stream:stream>"), "{sent}");
        lab.feed(&format!("<a {SM} h='1'/></stream:stream><message/>"));
        assert_eq!(lab.events(), [StreamEvent::Acked { id: "1".into() }, StreamEvent::Closed]);
        assert!(lab.stream.poll_timeout().is_none());

        lab.online();
        lab.stream.close(lab.now);
        lab.sent();
        assert_eq!(lab.wait(), (StreamTimer::Close, "[close]".into()));
        assert_eq!(lab.event(), StreamEvent::Closed);
    }

    #[test]
    fn the_servers_goodbye_is_answered_and_what_follows_is_ignored() {
        let mut lab = lab(config());
        lab.online();
        assert_eq!(lab.feed("</stream:stream><message/>"), "</stream:stream>[close]");
        assert_eq!(lab.event(), StreamEvent::Lost { resumable: false, why: StreamFault::ServerClosed });
    }

    #[test]
    fn xml_bombs_get_the_right_stream_error_and_leave_nothing_behind() {
        let bombs = [
            ("<!DOCTYPE lolz [<!ENTITY lol 'lol'>]>".to_owned(), "restricted-xml"),
            ("<message><!-- hi --></message>".to_owned(), "restricted-xml"),
            ("<message><?php ?></message>".to_owned(), "restricted-xml"),
            ("<message><body>&lol;</body></message>".to_owned(), "restricted-xml"),
            (format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000)), "policy-violation"),
            (format!("<message><body>{}", "x".repeat(1_000_000)), "policy-violation"),
            (format!("<message {}/>", (0..1000).map(|n| format!("a{n}='' ")).collect::<String>()), "policy-violation"),
            ("<message><body></message></body>".to_owned(), "not-well-formed"),
            ("<message><x:y/></message>".to_owned(), "not-well-formed"),
            ("hello<message/>".to_owned(), "bad-format"),
        ];
        for (bomb, condition) in bombs {
            let mut lab = lab(config());
            lab.online();
            let sent = lab.feed(&bomb);
            assert!(sent.contains(&format!("<{condition} ")), "{condition}: {sent}");
            assert!(sent.ends_with("</stream:stream>[close]"), "{sent}");
            assert!(matches!(lab.event(), StreamEvent::Lost { resumable: false, why: StreamFault::Xml(_) }));
            assert!(lab.stream.pipe.buffered_bytes() <= XML_KEPT, "{condition}");
        }
    }

    // A message that breaks our limits may be a stranger's: what the server keeps as undelivered comes at every login.
    #[test]
    fn a_bomb_is_acknowledged_so_that_it_does_not_come_again() {
        let mut lab = lab(config());
        lab.online();
        let bomb = format!("<message id='2'>{}", "<a>".repeat(100));
        let sent = lab.feed(&format!("<message id='1'/>{bomb}"));
        let (ack, error) = (sent.find(&format!("<a {SM} h='2'/>")), sent.find("<stream:error"));
        assert!(ack.is_some() && ack < error, "{sent}");
    }

    /// The framer may keep one stanza.
    const XML_KEPT: usize = 256 * 1024;

    #[test]
    fn the_queue_is_bounded_offline_and_while_the_server_acknowledges_nothing() {
        let mut config = config();
        config.limits.queue_stanzas = 10;
        config.limits.queue_bytes = 5000;
        let mut lab = lab(config);
        let big = || {
            let mut message = Message::new(None, MessageType::Chat);
            message.body = Some("x".repeat(900));
            Stanza::Message(message)
        };
        let sent = (0..20).filter(|_| lab.stream.send(lab.now, big()).is_ok()).count();
        assert_eq!(sent, 5);
        lab.online();
        assert_eq!(lab.stream.send(lab.now, big()), Err(SendError::QueueFull));
        assert!(lab.stream.queued().1 <= 5000);
        lab.feed(&format!("<a {SM} h='5'/>"));
        assert!((0..10).all(|n| lab.message(&n.to_string()).contains("<body>")));
        assert_eq!(lab.stream.send(lab.now, big()), Err(SendError::QueueFull));
    }

    #[test]
    fn ids_are_filled_in_and_do_not_repeat() {
        let mut lab = lab(config());
        let iq = || Stanza::Iq(Iq::new(None, "", IqKind::Get(IqPayload::Ping)));
        let a = lab.stream.send(lab.now, iq()).unwrap();
        let b = lab.stream.send(lab.now, iq()).unwrap();
        assert!(a.len() == 16 && b.len() == 16 && a != b);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_in_any_phase(parts in prop::collection::vec(part(), 0..12), cut in 1usize..50) {
            for start in 0..4 {
                let mut lab = lab(config());
                match start {
                    0 => drop(lab.connect(None)),
                    1 => lab.login_to_features(),
                    2 => lab.online(),
                    _ => { lab.online(); lab.drop_connection(); lab.resume(); }
                }
                for chunk in parts.concat().as_bytes().chunks(cut) {
                    lab.stream.handle_input(lab.now, StreamInput::Bytes(chunk));
                    lab.sent();
                }
                let ends = lab.events().iter().filter(|e| matches!(e, StreamEvent::Lost { .. } | StreamEvent::Refused(_)
                    | StreamEvent::AuthFailed { .. } | StreamEvent::SeeOtherHost { .. } | StreamEvent::Closed)).count();
                prop_assert!(ends <= 1);
                prop_assert_eq!(ends == 1, lab.stream.phase() == StreamPhase::Offline);
            }
        }
    }

    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(HEADER.to_owned()),
            Just("</stream:stream>".to_owned()),
            Just(format!(
                "<stream:features>{}<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm {SM}/></stream:features>",
                mechanisms(&["SCRAM-SHA-1"])
            )),
            Just(format!("<success {SASL_NS}/>")),
            Just(format!("<challenge {SASL_NS}>cj0=</challenge>")),
            (0u32..4).prop_map(|h| format!("<a {SM} h='{h}'/><r {SM}/>")),
            (0u32..4).prop_map(|h| format!("<resumed {SM} h='{h}' previd='sm1'/>")),
            Just(format!("<failed {SM}/><enabled {SM}/>")),
            Just("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>".to_owned()),
            Just("<iq type='get' id='1'/><message/><presence/>".to_owned()),
            "[ -~]{0,20}",
        ]
    }
}

//! The stream below the endpoint: a client's stream or a serverless one, and when it is brought back.
//! Read RFC 6120 §3.3 and XEP-0174 §5 before touching this file.

use super::event::Input;
use super::telephone::TelephoneConfig;
use crate::config::{StreamLimits, StreamTimers, XmlLimits};
use crate::wire::jid::{BareJid, Jid};
use crate::wire::stanza::Stanza;
use crate::xmpp::backoff::Backoff;
use crate::xmpp::link_local::{self, LinkConfig, LinkEvent, LinkRole};
use crate::xmpp::stream::{SendError, Stream, StreamConfig, StreamEvent, StreamInput, StreamPhase, StreamTransmit};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::time::{Duration, Instant};

/// What a listener gives a peer for its header, after the 15 s for TLS: 30 s for everything (threat: slow connections).
const LISTENER_PHASE: Duration = Duration::from_secs(15);

/// How an endpoint signals.
#[derive(Debug, Clone)]
pub enum Account {
    /// An account on a server.
    Client(Box<StreamConfig>),
    /// A stream to one other endpoint, without a server.
    Serverless {
        /// Who connects.
        role: LinkRole,
        /// Our address, whom we expect, and limits.
        config: Box<LinkConfig>,
    },
    /// A SIP telephone, with an account at a registrar or without one.
    Sip(Box<TelephoneConfig>),
}

impl Account {
    /// Our address, as far as it is known before signing in.
    #[must_use]
    pub fn jid(&self) -> Jid {
        match self {
            Account::Client(config) => config.jid.clone(),
            Account::Serverless { config, .. } => config.own.clone().into(),
            Account::Sip(config) => config.nobody().clone().into(),
        }
    }

    /// A serverless stream that we connect or await.
    #[must_use]
    pub fn serverless(role: LinkRole, own: BareJid) -> Self {
        let mut timers = StreamTimers::default();
        if role == LinkRole::Listener {
            timers.phase = LISTENER_PHASE;
        }
        let config = LinkConfig { own, peer: None, xml: XmlLimits::default(), timers, limits: StreamLimits::default() };
        Account::Serverless { role, config: Box::new(config) }
    }

    pub(super) fn limits(&self) -> &StreamLimits {
        match self {
            Account::Client(config) => &config.limits,
            Account::Serverless { config, .. } => &config.limits,
            Account::Sip(config) => config.stream_limits(),
        }
    }
}

/// What a stream of either kind reports.
#[derive(Debug)]
pub(super) enum LinkReport {
    Client(StreamEvent),
    Serverless(LinkEvent),
    /// No connection came up.
    Unreachable(String),
}

#[derive(Debug)]
enum Carrier {
    Client(Box<Stream>),
    Serverless {
        role: LinkRole,
        config: Box<LinkConfig>,
        link: Option<Box<link_local::Link>>,
    },
    /// A SIP telephone has no stream.
    None {
        nobody: BareJid,
    },
}

/// The stream and whether it is wanted.
#[derive(Debug)]
pub(super) struct Link {
    carrier: Carrier,
    backoff: Backoff,
    rng: ChaCha20Rng,
    /// When the next attempt to connect is due.
    reconnect: Option<Instant>,
    online: bool,
    /// Why the last attempt brought no connection, until it is reported.
    unreachable: Option<String>,
    /// Signed in once: a lost connection is brought back.
    pub(super) was_online: bool,
    pub(super) closing: bool,
}

impl Link {
    pub(super) fn new(now: Instant, seed: [u8; 32], account: &Account) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut next = [0; 32];
        rng.fill_bytes(&mut next);
        let carrier = match account {
            Account::Client(config) => Carrier::Client(Box::new(Stream::client(now, next, config.as_ref().clone()))),
            Account::Serverless { role, config } => {
                Carrier::Serverless { role: *role, config: config.clone(), link: None }
            }
            Account::Sip(config) => Carrier::None { nobody: config.nobody().clone() },
        };
        rng.fill_bytes(&mut next);
        Self {
            carrier,
            backoff: Backoff::new(next),
            rng,
            reconnect: None,
            online: false,
            unreachable: None,
            was_online: false,
            closing: false,
        }
    }

    pub(super) fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        match &mut self.carrier {
            Carrier::Client(stream) => {
                let input = match input {
                    Input::Connected { tls, loopback } => StreamInput::Connected { tls, loopback },
                    Input::TlsStarted(info) => StreamInput::TlsStarted(info),
                    Input::Bytes(bytes) => StreamInput::Bytes(bytes),
                    // No stream began, so none can report its end.
                    Input::Closed(why) if stream.phase() == StreamPhase::Offline => {
                        if !self.closing && self.reconnect.is_none() {
                            self.unreachable = Some(why);
                        }
                        return;
                    }
                    Input::Closed(why) => StreamInput::Closed(why),
                    Input::Sockets { .. }
                    | Input::Datagram { .. }
                    | Input::Resolved { .. }
                    | Input::File(_)
                    | Input::Sip(_) => {
                        return;
                    }
                };
                stream.handle_input(now, input);
            }
            Carrier::Serverless { role, config, link } => match input {
                Input::Connected { .. } => {
                    *link = Some(Box::new(link_local::Link::new(now, seed, *role, config.as_ref().clone())));
                }
                Input::Bytes(bytes) => {
                    if let Some(link) = link {
                        link.handle_bytes(now, bytes);
                    }
                }
                Input::Closed(why) => match link {
                    Some(link) => link.handle_closed(why),
                    None => self.unreachable = Some(why),
                },
                Input::TlsStarted(_)
                | Input::Sockets { .. }
                | Input::Datagram { .. }
                | Input::Resolved { .. }
                | Input::File(_)
                | Input::Sip(_) => {}
            },
            Carrier::None { .. } => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.carrier {
            Carrier::Client(stream) => stream.handle_timeout(now),
            Carrier::Serverless { link, .. } => {
                if let Some(link) = link {
                    link.handle_timeout(now);
                }
            }
            Carrier::None { .. } => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let stream = match &self.carrier {
            Carrier::Client(stream) => stream.poll_timeout().map(|(at, _)| at),
            Carrier::Serverless { link, .. } => link.as_ref().and_then(|l| l.poll_timeout()),
            Carrier::None { .. } => None,
        };
        [stream, self.reconnect].into_iter().flatten().min()
    }

    pub(super) fn poll_transmit(&mut self) -> Option<StreamTransmit> {
        match &mut self.carrier {
            Carrier::Client(stream) => stream.poll_transmit(),
            Carrier::Serverless { link, .. } => link.as_mut().and_then(|l| l.poll_transmit()),
            Carrier::None { .. } => None,
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<LinkReport> {
        if let Some(why) = self.unreachable.take() {
            return Some(LinkReport::Unreachable(why));
        }
        match &mut self.carrier {
            Carrier::Client(stream) => {
                let event = stream.poll_event()?;
                self.online = stream.phase() == StreamPhase::Online;
                Some(LinkReport::Client(event))
            }
            Carrier::Serverless { link, .. } => {
                let event = link.as_mut()?.poll_event()?;
                self.online = matches!(event, LinkEvent::Online { .. })
                    || (self.online && !matches!(event, LinkEvent::Ended(_) | LinkEvent::Closed));
                Some(LinkReport::Serverless(event))
            }
            Carrier::None { .. } => None,
        }
    }

    pub(super) fn send(&mut self, now: Instant, stanza: Stanza) -> Result<String, SendError> {
        match &mut self.carrier {
            Carrier::Client(stream) => stream.send(now, stanza),
            Carrier::Serverless { link, .. } => match link {
                Some(link) => link.send(stanza),
                None => Err(SendError::QueueFull),
            },
            Carrier::None { .. } => Err(SendError::QueueFull),
        }
    }

    /// SASL mechanism of the last login.
    pub(super) fn mechanism(&self) -> Option<&'static str> {
        match &self.carrier {
            Carrier::Client(stream) => stream.mechanism(),
            Carrier::Serverless { .. } | Carrier::None { .. } => None,
        }
    }

    /// An id that nobody can guess.
    pub(super) fn next_id(&mut self) -> String {
        match &mut self.carrier {
            Carrier::Client(stream) => stream.next_id(),
            Carrier::Serverless { .. } | Carrier::None { .. } => format!("{:016x}", self.rng.next_u64()),
        }
    }

    /// True while stanzas flow.
    pub(super) fn online(&self) -> bool {
        self.online
    }

    /// True if there is no server: roster, carbons and presence do not exist.
    pub(super) fn serverless(&self) -> bool {
        matches!(self.carrier, Carrier::Serverless { .. })
    }

    /// Who is at the other end of a serverless stream: the claimed address, else the expected one.
    pub(super) fn peer(&self) -> Option<Jid> {
        match &self.carrier {
            Carrier::Client(_) | Carrier::None { .. } => None,
            Carrier::Serverless { link, config, .. } => {
                let claimed = link.as_ref().and_then(|l| l.peer().cloned());
                claimed.or_else(|| config.peer.clone()).map(Jid::from)
            }
        }
    }

    /// Our own address: the bound one, or the account's.
    pub(super) fn own(&self) -> Jid {
        match &self.carrier {
            Carrier::Client(stream) => {
                stream.jid().map_or_else(|| stream.config().jid.clone(), |full| full.clone().into())
            }
            Carrier::Serverless { config, .. } => config.own.clone().into(),
            Carrier::None { nobody } => nobody.clone().into(),
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.backoff.succeeded();
        self.was_online = true;
    }

    /// Another attempt follows after a pause. A listener waits for the next peer at once.
    pub(super) fn retry(&mut self, now: Instant) {
        let pause = match &mut self.carrier {
            Carrier::Serverless { role: LinkRole::Listener, link, .. } => {
                *link = None;
                Duration::ZERO
            }
            Carrier::Serverless { role: LinkRole::Connector, link, .. } => {
                *link = None;
                self.backoff.failed()
            }
            Carrier::Client(_) => self.backoff.failed(),
            Carrier::None { .. } => return,
        };
        self.reconnect = Some(now + pause);
    }

    /// True once when an attempt is due.
    pub(super) fn reconnect_due(&mut self, now: Instant) -> bool {
        let due = self.reconnect.is_some_and(|at| at <= now);
        if due {
            self.reconnect = None;
        }
        due
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.closing = true;
        self.reconnect = None;
        match &mut self.carrier {
            Carrier::Client(stream) => stream.close(now),
            Carrier::Serverless { link, .. } => {
                if let Some(link) = link {
                    link.close(now);
                }
            }
            Carrier::None { .. } => {}
        }
    }
}

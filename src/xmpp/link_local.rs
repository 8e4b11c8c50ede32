//! A stream between two people without a server. Read XEP-0174 §5 to §7 and RFC 6120 §4 before touching this file.
//!
//! TLS comes first ("direct TLS", as XEP-0368 has it with servers), with self-signed certificates that the shell pins by
//! fingerprint: nothing of the stream is ever in clear, and no header is needed to start it. XEP-0174 §7 only asks that streams be
//! protected where possible. There is no SASL: who the other side is, its certificate says; the addresses in the headers are a
//! claim. After both headers the stream is up; a listener sends empty features to a connector of version 1.0.
//!
//! ```text
//! connector: Connected ─header─▶ AwaitingHeader ─header─▶ AwaitingFeatures ─features─▶ Online ─close─▶ Closing ─▶ Ended
//! listener:  Connected ────────▶ AwaitingHeader ─header, answered with header and features──▶ Online
//! ```

use super::pipe::{Piece, Pipe, condition, stanza_text};
pub use super::stream_io::{SendError, StreamTransmit};
use crate::config::{StreamLimits, StreamTimers, XmlLimits};
use crate::fault::{Malformed, StreamCondition};
use crate::wire::jid::{BareJid, Jid};
use crate::wire::stanza::{Stanza, StanzaFault};
use crate::wire::stream::{Features, StreamElement, StreamError, StreamHeader, StreamKind};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::VecDeque;
use std::time::Instant;

/// Who began the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkRole {
    /// We did.
    Connector,
    /// The other side did.
    Listener,
}

/// Everything a link is told once.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Our address, `user@machine`.
    pub own: BareJid,
    /// Whom we mean to talk to. `None` for a listener that takes anybody; then the header tells.
    pub peer: Option<BareJid>,
    /// Caps on the other side's XML.
    pub xml: XmlLimits,
    /// Deadlines; `phase` is that of the whole handshake.
    pub timers: StreamTimers,
    /// Caps on what is kept.
    pub limits: StreamLimits,
}

/// What happened. Exactly one of `Ended` and `Closed` comes last.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkEvent {
    /// Stanzas flow.
    Online {
        /// The other side's address, as it claims. Absent if it does not say; then only the connection tells who it is.
        peer: Option<BareJid>,
    },
    /// A stanza came in. Its `from` is absent or the peer's.
    Stanza(Box<Stanza>),
    /// A stanza that could not be read came in; a get or set was answered already.
    Malformed(Box<StanzaFault>),
    /// The connection ended.
    Ended(LinkFault),
    /// The stream was closed as we wanted.
    Closed,
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkFault {
    /// The handshake took too long.
    #[error("the handshake took too long")]
    Handshake,
    /// Nothing came for so long that the other side must be gone.
    #[error("the other side is silent")]
    Silent,
    /// The header is for or from somebody else.
    #[error("the stream is for or from somebody else")]
    WrongAddress,
    /// The other side's stream error.
    #[error("the other side ended the stream: {} ({})", .0.condition.in_words(), .0.condition)]
    Stream(Box<StreamError>),
    /// We sent a stream error because of this.
    #[error("the other side sent {0}")]
    Xml(Malformed),
    /// An element where it may not be.
    #[error("unexpected element")]
    Unexpected,
    /// The other side closed the stream.
    #[error("the other side closed the stream")]
    PeerClosed,
    /// The connection ended.
    #[error("connection ended: {0}")]
    Connection(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitingHeader(LinkRole),
    AwaitingFeatures,
    Online,
    Closing,
    Ended,
}

/// One stream over one connection, from the moment TLS is up.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    rng: ChaCha20Rng,
    state: State,
    pipe: Pipe,
    peer: Option<BareJid>,
    deadline: Option<Instant>,
    last_heard: Instant,
    /// Stanzas that wait for the end of the handshake.
    waiting: VecDeque<String>,
    waiting_bytes: usize,
    events: VecDeque<LinkEvent>,
}

impl Link {
    /// TLS is up. A connector sends its header at once.
    #[must_use]
    pub fn new(now: Instant, seed: [u8; 32], role: LinkRole, config: LinkConfig) -> Self {
        let mut link = Self {
            rng: ChaCha20Rng::from_seed(seed),
            state: State::AwaitingHeader(role),
            pipe: Pipe::new(&config.xml),
            peer: config.peer.clone(),
            // One deadline for the whole handshake: a byte now and then does not extend it (threat: slow connections).
            deadline: Some(now + config.timers.phase),
            last_heard: now,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            events: VecDeque::new(),
            config,
        };
        match role {
            LinkRole::Connector => link.header(),
            LinkRole::Listener => {}
        }
        link
    }

    /// Takes bytes from the other side, after TLS.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if self.state == State::Ended {
            return;
        }
        self.last_heard = now;
        self.pipe.push(bytes);
        while self.state != State::Ended {
            match self.pipe.next() {
                Ok(None) => return,
                Ok(Some(piece)) => self.piece(now, piece),
                Err(fault) => self.fail(condition(&fault), LinkFault::Xml(fault)),
            }
        }
    }

    /// The connection ended; the text is for people.
    pub fn handle_closed(&mut self, why: String) {
        match self.state {
            State::Ended => {}
            State::Closing => self.end(LinkEvent::Closed),
            State::AwaitingHeader(_) | State::AwaitingFeatures | State::Online => {
                self.end(LinkEvent::Ended(LinkFault::Connection(why)));
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        match self.state {
            State::Ended => {}
            State::Closing => self.end(LinkEvent::Closed),
            State::AwaitingHeader(_) | State::AwaitingFeatures => {
                self.fail(StreamCondition::ConnectionTimeout, LinkFault::Handshake);
            }
            State::Online => {
                // White space keeps NATs and the other side's timer alive (RFC 6120 §4.6.1); a dead connection fails to
                // send it, or stays silent for two periods because the other side does the same.
                if now >= self.last_heard + self.config.timers.idle * 2 + self.config.timers.reply {
                    return self.fail(StreamCondition::ConnectionTimeout, LinkFault::Silent);
                }
                self.pipe.text(" ");
                self.deadline = Some(now + self.config.timers.idle);
            }
        }
    }

    /// The next thing to do for the shell. [`StreamTransmit::StartTls`] never comes.
    pub fn poll_transmit(&mut self) -> Option<StreamTransmit> {
        self.pipe.poll_transmit()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// The other side's address, as it claims.
    #[must_use]
    pub fn peer(&self) -> Option<&BareJid> {
        self.peer.as_ref()
    }

    /// Sends a stanza, or queues it until the handshake is done, and gives its id. Our address and the other side's are filled in
    /// where missing (XEP-0174 §5).
    ///
    /// # Errors
    /// [`SendError::QueueFull`], also after the end.
    pub fn send(&mut self, mut stanza: Stanza) -> Result<String, SendError> {
        let new_id = format!("{:016x}", self.rng.next_u64());
        let (own, peer) = (Jid::from(self.config.own.clone()), self.peer.clone().map(Jid::from));
        let (from, to) = match &mut stanza {
            Stanza::Iq(iq) => (&mut iq.from, &mut iq.to),
            Stanza::Message(message) => (&mut message.from, &mut message.to),
            Stanza::Presence(presence) => (&mut presence.from, &mut presence.to),
        };
        from.get_or_insert(own);
        if to.is_none() {
            *to = peer;
        }
        let id = match &mut stanza {
            Stanza::Iq(iq) => {
                if iq.id.is_empty() {
                    iq.id = new_id;
                }
                iq.id.clone()
            }
            Stanza::Message(message) => message.id.get_or_insert(new_id).clone(),
            Stanza::Presence(presence) => presence.id.get_or_insert(new_id).clone(),
        };
        let text = stanza_text(&stanza);
        match self.state {
            State::Online => self.pipe.text(&text),
            State::AwaitingHeader(_) | State::AwaitingFeatures => {
                let limits = &self.config.limits;
                if self.waiting.len() >= limits.queue_stanzas || self.waiting_bytes + text.len() > limits.queue_bytes {
                    return Err(SendError::QueueFull);
                }
                self.waiting_bytes += text.len();
                self.waiting.push_back(text);
            }
            State::Closing | State::Ended => return Err(SendError::QueueFull),
        }
        Ok(id)
    }

    /// Ends the stream: [`LinkEvent::Closed`] follows within [`StreamTimers::close`].
    pub fn close(&mut self, now: Instant) {
        match self.state {
            State::Closing | State::Ended => {}
            State::AwaitingHeader(LinkRole::Listener) => self.end(LinkEvent::Closed),
            State::AwaitingHeader(LinkRole::Connector) | State::AwaitingFeatures | State::Online => {
                self.pipe.end();
                self.state = State::Closing;
                self.deadline = Some(now + self.config.timers.close);
            }
        }
    }

    fn header(&mut self) {
        let own = Jid::from(self.config.own.clone());
        self.pipe.header(&StreamHeader::new(StreamKind::Client, Some(own), self.peer.clone().map(Jid::from)));
    }

    fn piece(&mut self, now: Instant, piece: Piece) {
        match (self.state, piece) {
            (State::AwaitingHeader(role), Piece::Header(header)) => self.peer_header(now, role, &header),
            (State::AwaitingFeatures, Piece::Element(StreamElement::Features(_))) => self.online(now),
            // XEP-0174 does not ask for features: a peer that sends none is up with its first stanza.
            (State::AwaitingFeatures, piece @ (Piece::Stanza(_) | Piece::Malformed(_))) => {
                self.online(now);
                self.piece(now, piece);
            }
            (State::Closing, Piece::End | Piece::Element(StreamElement::Error(_))) => self.end(LinkEvent::Closed),
            (_, Piece::Element(StreamElement::Error(error))) => {
                self.pipe.end();
                self.end(LinkEvent::Ended(LinkFault::Stream(error)));
            }
            (_, Piece::End) => {
                self.pipe.end();
                self.end(LinkEvent::Ended(LinkFault::PeerClosed));
            }
            (State::Online, Piece::Stanza(stanza)) if self.is_from_peer(&stanza) => {
                self.events.push_back(LinkEvent::Stanza(Box::new(stanza)));
            }
            // RFC 6120 §4.9.3.9: nobody but the peer speaks on this stream.
            (State::Online, Piece::Stanza(_)) => self.fail(StreamCondition::InvalidFrom, LinkFault::WrongAddress),
            (State::Online, Piece::Malformed(fault)) => {
                if let Some(answer) = fault.answer() {
                    self.pipe.stanza(&Stanza::Iq(answer));
                }
                self.events.push_back(LinkEvent::Malformed(fault));
            }
            (State::Closing | State::Ended, _) => {}
            (State::AwaitingHeader(_) | State::AwaitingFeatures | State::Online, _) => {
                self.fail(StreamCondition::UnsupportedStanzaType, LinkFault::Unexpected);
            }
        }
    }

    fn peer_header(&mut self, now: Instant, role: LinkRole, header: &StreamHeader) {
        let for_us = header.to.as_ref().is_none_or(|to| to.to_bare() == self.config.own);
        let from = header.from.as_ref().map(Jid::to_bare);
        let from_peer = match (&self.peer, &from) {
            (Some(peer), Some(from)) => peer == from,
            (_, None) | (None, Some(_)) => true,
        };
        self.peer = self.peer.take().or(from);
        if role == LinkRole::Listener {
            self.header();
        }
        if header.kind != StreamKind::Client {
            return self.fail(StreamCondition::InvalidNamespace, LinkFault::Unexpected);
        }
        if !for_us {
            return self.fail(StreamCondition::HostUnknown, LinkFault::WrongAddress);
        }
        if !from_peer {
            return self.fail(StreamCondition::InvalidFrom, LinkFault::WrongAddress);
        }
        let modern = header.version.is_some_and(|(major, _)| major >= 1);
        match role {
            LinkRole::Listener => {
                if modern {
                    // RFC 6120 §4.3.2: features end the negotiation; there is nothing to negotiate.
                    self.pipe.element(&StreamElement::Features(Box::<Features>::default()));
                }
                self.online(now);
            }
            LinkRole::Connector if modern => self.state = State::AwaitingFeatures,
            LinkRole::Connector => self.online(now),
        }
    }

    fn online(&mut self, now: Instant) {
        self.state = State::Online;
        self.deadline = Some(now + self.config.timers.idle);
        self.events.push_back(LinkEvent::Online { peer: self.peer.clone() });
        self.waiting_bytes = 0;
        for text in std::mem::take(&mut self.waiting) {
            self.pipe.text(&text);
        }
    }

    /// With no address in the headers any one is a claim like any other, so the stanza's own does no harm.
    fn is_from_peer(&self, stanza: &Stanza) -> bool {
        let from = match stanza {
            Stanza::Iq(iq) => iq.from.as_ref(),
            Stanza::Message(message) => message.from.as_ref(),
            Stanza::Presence(presence) => presence.from.as_ref(),
        };
        match (from, &self.peer) {
            (Some(from), Some(peer)) => from.to_bare() == *peer,
            (None, _) | (Some(_), None) => true,
        }
    }

    fn fail(&mut self, condition: StreamCondition, why: LinkFault) {
        match self.state {
            State::Closing => return self.end(LinkEvent::Closed),
            // RFC 6120 §4.9.1.2: an error needs a header before it.
            State::AwaitingHeader(LinkRole::Listener)
                if !matches!(why, LinkFault::WrongAddress | LinkFault::Unexpected) =>
            {
                self.header();
            }
            State::AwaitingHeader(_) | State::AwaitingFeatures | State::Online | State::Ended => {}
        }
        self.pipe.error(StreamError::new(condition));
        self.end(LinkEvent::Ended(why));
    }

    fn end(&mut self, event: LinkEvent) {
        self.pipe.close();
        self.state = State::Ended;
        self.deadline = None;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::disallowed_methods,
        clippy::wildcard_enum_match_arm
    )]
    use super::*;
    use crate::wire::stanza::{Message, MessageType};
    use proptest::prelude::*;
    use std::time::Duration;

    fn config(own: &str, peer: Option<&str>) -> LinkConfig {
        LinkConfig {
            own: BareJid::new(own).unwrap(),
            peer: peer.map(|p| BareJid::new(p).unwrap()),
            xml: XmlLimits::default(),
            timers: StreamTimers::default(),
            limits: StreamLimits { queue_stanzas: 3, ..StreamLimits::default() },
        }
    }

    fn connector(now: Instant) -> Link {
        Link::new(now, [1; 32], LinkRole::Connector, config("juliet@pronto", Some("romeo@forza")))
    }

    fn listener(now: Instant) -> Link {
        Link::new(now, [2; 32], LinkRole::Listener, config("romeo@forza", None))
    }

    fn sent(link: &mut Link) -> String {
        let mut all = String::new();
        while let Some(transmit) = link.poll_transmit() {
            match transmit {
                StreamTransmit::Bytes(bytes) => all.push_str(&String::from_utf8(bytes).unwrap()),
                StreamTransmit::Close => all.push_str("[close]"),
                StreamTransmit::StartTls => panic!("no STARTTLS here"),
            }
        }
        all
    }

    fn events(link: &mut Link) -> Vec<LinkEvent> {
        std::iter::from_fn(|| link.poll_event()).collect()
    }

    /// Carries bytes to and fro until both are quiet.
    fn settle(now: Instant, a: &mut Link, b: &mut Link) {
        loop {
            let (x, y) = (sent(a), sent(b));
            if x.is_empty() && y.is_empty() {
                return;
            }
            b.handle_bytes(now, x.replace("[close]", "").as_bytes());
            a.handle_bytes(now, y.replace("[close]", "").as_bytes());
        }
    }

    fn message(body: &str) -> Stanza {
        Stanza::Message(Message { body: Some(body.into()), ..Message::new(None, MessageType::Chat) })
    }

    fn bare(text: &str) -> BareJid {
        BareJid::new(text).unwrap()
    }

    #[test]
    fn two_links_meet_and_talk_and_part() {
        let now = Instant::now();
        let (mut a, mut b) = (connector(now), listener(now));
        a.send(message("early")).unwrap();
        settle(now, &mut a, &mut b);
        assert_eq!(events(&mut a), [LinkEvent::Online { peer: Some(bare("romeo@forza")) }]);
        let got = events(&mut b);
        assert_eq!(got[0], LinkEvent::Online { peer: Some(bare("juliet@pronto")) });
        let LinkEvent::Stanza(stanza) = &got[1] else { panic!("{got:?}") };
        let Stanza::Message(m) = stanza.as_ref() else { panic!("{got:?}") };
        assert_eq!(m.from, Some(Jid::new("juliet@pronto").unwrap()));
        assert_eq!(m.to, Some(Jid::new("romeo@forza").unwrap()));
        a.close(now);
        settle(now, &mut a, &mut b);
        assert_eq!(events(&mut a), [LinkEvent::Closed]);
        assert_eq!(events(&mut b), [LinkEvent::Ended(LinkFault::PeerClosed)]);
        assert_eq!(a.send(message("late")), Err(SendError::QueueFull));
    }

    #[test]
    fn a_slow_handshake_ends_after_30_seconds_whatever_trickles_in() {
        let start = Instant::now();
        let mut b = listener(start);
        for n in 0..29 {
            b.handle_bytes(start + Duration::from_secs(n), b" ");
        }
        assert_eq!(b.poll_timeout(), Some(start + Duration::from_secs(30)));
        b.handle_timeout(start + Duration::from_secs(30));
        let all = sent(&mut b);
        assert!(
            all.contains("<stream:stream") && all.contains("connection-timeout") && all.ends_with("[close]"),
            "{all}"
        );
        assert_eq!(events(&mut b), [LinkEvent::Ended(LinkFault::Handshake)]);
    }

    #[test]
    fn a_stream_for_or_from_somebody_else_is_refused() {
        let now = Instant::now();
        let header = |from: &str, to: &str| {
            format!(
                "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' from='{from}' to='{to}' version='1.0'>"
            )
        };
        let mut b = listener(now);
        b.handle_bytes(now, header("juliet@pronto", "tybalt@forza").as_bytes());
        let all = sent(&mut b);
        assert!(all.contains("host-unknown") && all.matches("<stream:stream").count() == 1, "{all}");
        let mut a = connector(now);
        a.handle_bytes(now, header("tybalt@forza", "juliet@pronto").as_bytes());
        assert!(sent(&mut a).contains("invalid-from"));
        assert_eq!(events(&mut a), [LinkEvent::Ended(LinkFault::WrongAddress)]);
        let mut b = listener(now);
        b.handle_bytes(now, header("juliet@pronto", "romeo@forza").as_bytes());
        b.handle_bytes(now, b"<message from='nurse@x'><body>hi</body></message>");
        assert!(sent(&mut b).contains("invalid-from"));
    }

    #[test]
    fn a_peer_without_features_is_up_with_its_first_stanza() {
        let now = Instant::now();
        let mut a = connector(now);
        a.handle_bytes(
            now,
            b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>",
        );
        assert!(events(&mut a).is_empty());
        a.handle_bytes(now, b"<message><body>hi</body></message>");
        assert!(matches!(&events(&mut a)[..], [LinkEvent::Online { .. }, LinkEvent::Stanza(_)]));
    }

    #[test]
    fn silence_ends_a_link_and_white_space_keeps_it() {
        let mut now = Instant::now();
        let (mut a, mut b) = (connector(now), listener(now));
        settle(now, &mut a, &mut b);
        for _ in 0..20 {
            now = a.poll_timeout().unwrap();
            a.handle_timeout(now);
            b.handle_timeout(now);
            settle(now, &mut a, &mut b);
        }
        assert_eq!((events(&mut a).len(), events(&mut b).len()), (1, 1), "alive");
        while a.poll_timeout().is_some_and(|at| {
            now = at;
            true
        }) {
            a.handle_timeout(now);
        }
        assert_eq!(events(&mut a), [LinkEvent::Ended(LinkFault::Silent)]);
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut a = connector(Instant::now());
        assert_eq!((0..9).filter(|_| a.send(message("x")).is_ok()).count(), 3);
    }

    #[test]
    fn bombs_get_a_stream_error() {
        let now = Instant::now();
        for (bomb, condition) in [
            ("<!DOCTYPE x>".to_owned(), "restricted-xml"),
            ("<a>".repeat(10_000), "policy-violation"),
            ("x".to_owned(), "bad-format"),
        ] {
            let (mut a, mut b) = (connector(now), listener(now));
            settle(now, &mut a, &mut b);
            b.handle_bytes(now, bomb.as_bytes());
            let all = sent(&mut b);
            assert!(all.contains(condition) && all.ends_with("[close]"), "{all}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[ -~]{0,60}") {
            let now = Instant::now();
            let mut b = listener(now);
            b.handle_bytes(now, &bytes);
            let (mut a, mut b) = (connector(now), listener(now));
            settle(now, &mut a, &mut b);
            b.handle_bytes(now, text.as_bytes());
            b.handle_bytes(now, &bytes);
            let ends = events(&mut b).iter().filter(|e| matches!(e, LinkEvent::Ended(_))).count();
            prop_assert!(ends <= 1);
        }
    }
}

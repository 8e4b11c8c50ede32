//! STUN client transactions and the messages they carry.
//! Read RFC 8489 §6.2.1, §6.3 and §9.2 before touching this file.

use crate::transport::path::Transmit;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::RngCore;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use stun_rs::attributes::stun::{
    ErrorCode, Fingerprint, MappedAddress, MessageIntegrity, MessageIntegritySha256, XorMappedAddress,
};
use stun_rs::{
    DecoderContextBuilder, HMACKey, MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, MessageMethod,
    MessageType, StunMessage, StunMessageBuilder, TransactionId, methods,
};

/// Retransmission of one request over UDP, RFC 8489 §6.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StunTimers {
    /// First interval; doubles with each request. At least 500 ms on an unknown path.
    pub rto: Duration,
    /// Requests sent at most (`Rc`).
    pub requests: u32,
    /// Silence after the last request, in units of `rto` (`Rm`).
    pub last_wait_rtos: u32,
}

impl Default for StunTimers {
    /// The RFC's values: sends at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s, fails at 39.5 s.
    fn default() -> Self {
        Self { rto: Duration::from_millis(500), requests: 7, last_wait_rtos: 16 }
    }
}

/// Why a STUN or TURN server is of no use, in words fit for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerFault {
    /// No usable local address of its family (loopback reaches only loopback).
    #[error("no local address can reach it")]
    NoSocket,
    /// No answer to any request.
    #[error("no answer")]
    Timeout,
    /// The server asks for credentials and none are known (401).
    #[error("it wants a user name and password")]
    NoCredentials,
    /// The user name or password is wrong, or expired (401 to a request with a fresh nonce).
    #[error("user name or password are wrong or expired")]
    WrongCredentials,
    /// 403
    #[error("forbidden by its administrator")]
    Forbidden,
    /// The server forgot the allocation, or has another one for this address (437).
    #[error("the allocation does not exist there (any more)")]
    AllocationMismatch,
    /// 440 or 443
    #[error("no relay address of this family")]
    AddressFamily,
    /// 442
    #[error("it does not relay UDP")]
    UnsupportedTransport,
    /// Too many allocations of this user (486).
    #[error("allocation quota of this user is used up")]
    QuotaReached,
    /// 508
    #[error("it has no capacity left")]
    InsufficientCapacity,
    /// It keeps calling every nonce stale (438).
    #[error("it refuses every nonce it gives")]
    StaleNonce,
    /// It sends us elsewhere (300); from a TURN server that is followed once.
    #[error("it sends us to another server")]
    TryAlternate(Option<SocketAddr>),
    /// Any other error code.
    #[error("it answered {code}")]
    Refused {
        /// RFC 8489 §14.8: 300 to 699.
        code: u16,
    },
    /// The answer lacks what it must hold.
    #[error("its answer is not usable: {0}")]
    BadAnswer(&'static str),
}

impl ServerFault {
    /// The fault behind an error code of a STUN or TURN response, RFC 8489 §14.8 and RFC 8656 §19.
    #[must_use]
    pub fn from_code(code: u16) -> Self {
        match code {
            300 => Self::TryAlternate(None),
            401 | 441 => Self::WrongCredentials,
            403 => Self::Forbidden,
            437 => Self::AllocationMismatch,
            438 => Self::StaleNonce,
            440 | 443 => Self::AddressFamily,
            442 => Self::UnsupportedTransport,
            486 => Self::QuotaReached,
            508 => Self::InsufficientCapacity,
            code => Self::Refused { code },
        }
    }
}

/// A Binding request to one server from one socket: our address as the server sees it, RFC 8489 §3.
///
/// ```text
///            ┌─ retransmit ─┐
///            ▼              │            success with an address
///   start ─▶ Asking ────────┴──────────────────────────────────▶ Done(Ok)
///              └── error response, bad answer, silence ────────▶ Done(Err)
/// ```
#[derive(Debug)]
pub struct Binding {
    local: SocketAddr,
    server: SocketAddr,
    state: BindingState,
    transmit: Option<Vec<u8>>,
}

#[derive(Debug)]
enum BindingState {
    Asking(Transaction),
    Done(Option<Result<SocketAddr, ServerFault>>),
}

impl Binding {
    /// Asks `server` from the socket `local`; the first request is due at once.
    #[must_use]
    pub fn new(now: Instant, timers: StunTimers, rng: &mut ChaCha20Rng, local: SocketAddr, server: SocketAddr) -> Self {
        let id = transaction_id(rng);
        let request = StunMessageBuilder::new(methods::BINDING, MessageClass::Request)
            .with_transaction_id(id)
            .with_attribute(Fingerprint::default())
            .build();
        let state = match encode(&request) {
            Some(bytes) => BindingState::Asking(Transaction::new(now, timers, id, bytes)),
            None => BindingState::Done(Some(Err(ServerFault::BadAnswer("the request cannot be written")))),
        };
        let mut binding = Self { local, server, state, transmit: None };
        binding.handle_timeout(now);
        binding
    }

    /// The socket it asks from.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whom it asks.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// True while an answer may still come.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        matches!(self.state, BindingState::Asking(_))
    }

    /// A datagram from the server. True if it answers this request.
    pub fn handle_input(&mut self, _now: Instant, bytes: &[u8]) -> bool {
        let BindingState::Asking(transaction) = &self.state else { return false };
        let Some(header) = header(bytes) else { return false };
        if header.id != *transaction.id() || header.method != methods::BINDING || !header.is_response() {
            return false;
        }
        let Some(answer) = decode(bytes) else { return true };
        self.state = BindingState::Done(Some(match header.class {
            MessageClass::SuccessResponse => mapped_address(&answer).ok_or(ServerFault::BadAnswer("no mapped address")),
            MessageClass::ErrorResponse | MessageClass::Request | MessageClass::Indication => {
                Err(ServerFault::from_code(error_code(&answer).unwrap_or(500)))
            }
        }));
        self.transmit = None;
        true
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let BindingState::Asking(transaction) = &mut self.state else { return };
        match transaction.poll(now) {
            Due::Nothing => {}
            Due::Send => self.transmit = Some(transaction.request().to_vec()),
            Due::Expired => self.state = BindingState::Done(Some(Err(ServerFault::Timeout))),
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let contents = self.transmit.take()?;
        Some(Transmit { local: self.local, destination: self.server, contents })
    }

    /// The outcome, once.
    pub fn poll_event(&mut self) -> Option<Result<SocketAddr, ServerFault>> {
        match &mut self.state {
            BindingState::Asking(_) => None,
            BindingState::Done(outcome) => outcome.take(),
        }
    }

    /// When `handle_timeout` is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            BindingState::Asking(transaction) => Some(transaction.due()),
            BindingState::Done(_) => None,
        }
    }
}

/// One request and its retransmissions.
#[derive(Debug)]
pub(crate) struct Transaction {
    id: TransactionId,
    request: Vec<u8>,
    timers: StunTimers,
    sent: u32,
    interval: Duration,
    due: Instant,
}

/// What a transaction wants at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Send,
    Expired,
}

impl Transaction {
    pub(crate) fn new(now: Instant, timers: StunTimers, id: TransactionId, request: Vec<u8>) -> Self {
        Self { id, request, timers, sent: 0, interval: timers.rto, due: now }
    }

    pub(crate) fn id(&self) -> &TransactionId {
        &self.id
    }

    pub(crate) fn request(&self) -> &[u8] {
        &self.request
    }

    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Counts a sending when one is due.
    pub(crate) fn poll(&mut self, now: Instant) -> Due {
        if now < self.due {
            return Due::Nothing;
        }
        let requests = self.timers.requests.max(1);
        if self.sent >= requests {
            return Due::Expired;
        }
        self.sent += 1;
        // RFC 8489 §6.2.1: the interval doubles; after the last request the wait is Rm times the first interval.
        let wait = if self.sent == requests {
            self.timers.rto.saturating_mul(self.timers.last_wait_rtos)
        } else {
            self.interval
        };
        self.interval = self.interval.saturating_mul(2);
        self.due = now + wait;
        Due::Send
    }
}

/// The part of a message that routing needs, RFC 8489 §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) class: MessageClass,
    pub(crate) method: MessageMethod,
    pub(crate) id: TransactionId,
}

impl Header {
    pub(crate) fn is_response(&self) -> bool {
        match self.class {
            MessageClass::SuccessResponse | MessageClass::ErrorResponse => true,
            MessageClass::Request | MessageClass::Indication => false,
        }
    }
}

/// Length of a message without attributes, RFC 8489 §5.
pub(crate) const HEADER_BYTES: usize = 20;
/// RFC 8489 §5
pub(crate) const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// Reads the header if these bytes are exactly one STUN message.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let kind = u16::from_be_bytes(*bytes.first_chunk()?);
    let length = usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?));
    let cookie: &[u8; 4] = bytes.get(4..)?.first_chunk()?;
    let id: &[u8; 12] = bytes.get(8..)?.first_chunk()?;
    // RFC 8489 §5: two zero bits, the cookie, a length that is a multiple of four; §6.3: and fits the datagram.
    if kind & 0xC000 != 0 || *cookie != MAGIC_COOKIE || length % 4 != 0 || length + HEADER_BYTES != bytes.len() {
        return None;
    }
    let kind = MessageType::from(kind);
    Some(Header { class: kind.class(), method: kind.method(), id: TransactionId::from(id) })
}

pub(crate) fn transaction_id(rng: &mut ChaCha20Rng) -> TransactionId {
    let mut id = [0; 12];
    rng.fill_bytes(&mut id);
    TransactionId::from(id)
}

/// Writes a message; `None` if it is longer than any request of ours can be.
pub(crate) fn encode(message: &StunMessage) -> Option<Vec<u8>> {
    // User name (509), realm and nonce (763 each at most) and the fixed attributes fit.
    let mut bytes = vec![0; 2400];
    let length = MessageEncoderBuilder::default().build().encode(&mut bytes, message).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// Reads a message without checking its integrity.
pub(crate) fn decode(bytes: &[u8]) -> Option<StunMessage> {
    MessageDecoderBuilder::default().build().decode(bytes).ok().map(|(message, _)| message)
}

/// Reads a message whose MESSAGE-INTEGRITY must be there and fit.
pub(crate) fn decode_verified(bytes: &[u8], key: &HMACKey) -> Option<StunMessage> {
    let context = DecoderContextBuilder::default().with_key(key.clone()).with_validation().build();
    let (message, _) = MessageDecoderBuilder::default().with_context(context).build().decode(bytes).ok()?;
    has_integrity(&message).then_some(message)
}

pub(crate) fn has_integrity(message: &StunMessage) -> bool {
    message.get::<MessageIntegrity>().is_some() || message.get::<MessageIntegritySha256>().is_some()
}

pub(crate) fn error_code(message: &StunMessage) -> Option<u16> {
    let attribute = message.get::<ErrorCode>()?.as_error_code().ok()?;
    Some(attribute.error_code().error_code())
}

/// Our address as the server sees it; the plain attribute is what RFC 3489 servers send.
pub(crate) fn mapped_address(message: &StunMessage) -> Option<SocketAddr> {
    let xored = message.get::<XorMappedAddress>().and_then(|it| it.as_xor_mapped_address().ok());
    let addr = match xored {
        Some(attribute) => *attribute.socket_address(),
        None => *message.get::<MappedAddress>()?.as_mapped_address().ok()?.socket_address(),
    };
    is_sendable(addr).then_some(addr)
}

/// False for addresses that name no single host: nothing is ever sent there (threat: candidate injection).
pub(crate) fn is_sendable(addr: SocketAddr) -> bool {
    let broadcast = matches!(addr.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast() && !broadcast
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    #![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn binding(now: Instant) -> Binding {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        Binding::new(now, StunTimers::default(), &mut rng, at("192.0.2.1:5000"), at("198.51.100.1:3478"))
    }

    fn answer(request: &[u8], class: MessageClass, attribute: impl Into<stun_rs::StunAttribute>) -> Vec<u8> {
        let message = StunMessageBuilder::new(methods::BINDING, class)
            .with_transaction_id(header(request).unwrap().id)
            .with_attribute(attribute)
            .build();
        encode(&message).unwrap()
    }

    #[test]
    fn requests_go_out_at_the_times_of_rfc_8489_6_2_1_and_fail_at_39_5_s() {
        let start = Instant::now();
        let mut binding = binding(start);
        let mut sent = Vec::new();
        let mut now = start;
        loop {
            while binding.poll_transmit().is_some() {
                sent.push((now - start).as_millis());
            }
            match binding.poll_timeout() {
                Some(due) => now = due,
                None => break,
            }
            binding.handle_timeout(now);
        }
        assert_eq!(sent, [0, 500, 1500, 3500, 7500, 15500, 31500]);
        assert_eq!((now - start).as_millis(), 39500);
        assert_eq!(binding.poll_event(), Some(Err(ServerFault::Timeout)));
        assert_eq!(binding.poll_event(), None);
    }

    #[test]
    fn a_retransmission_repeats_the_same_bytes() {
        let now = Instant::now();
        let mut binding = binding(now);
        let first = binding.poll_transmit().unwrap();
        binding.handle_timeout(now + Duration::from_millis(499));
        assert_eq!(binding.poll_transmit(), None);
        binding.handle_timeout(now + Duration::from_millis(500));
        assert_eq!(binding.poll_transmit(), Some(first));
    }

    #[test]
    fn the_mapped_address_is_read_once() {
        let now = Instant::now();
        let mut binding = binding(now);
        let request = binding.poll_transmit().unwrap().contents;
        let mapped = at("203.0.113.9:61000");
        let reply = answer(&request, MessageClass::SuccessResponse, XorMappedAddress::from(mapped));
        assert!(binding.handle_input(now, &reply));
        assert_eq!(binding.poll_event(), Some(Ok(mapped)));
        assert!(!binding.handle_input(now, &reply), "the repeated answer belongs to no request");
        assert_eq!(binding.poll_timeout(), None);
    }

    #[test]
    fn an_answer_with_a_foreign_transaction_id_is_not_taken() {
        let now = Instant::now();
        let mut binding = binding(now);
        let mut request = binding.poll_transmit().unwrap().contents;
        request[19] ^= 1;
        let reply = answer(&request, MessageClass::SuccessResponse, XorMappedAddress::from(at("203.0.113.9:61000")));
        assert!(!binding.handle_input(now, &reply));
        assert!(binding.is_asking());
    }

    #[test]
    fn an_error_response_names_its_code() {
        let now = Instant::now();
        let mut binding = binding(now);
        let request = binding.poll_transmit().unwrap().contents;
        let code = stun_rs::ErrorCode::new(420, "Unknown").unwrap();
        assert!(binding.handle_input(now, &answer(&request, MessageClass::ErrorResponse, ErrorCode::from(code))));
        assert_eq!(binding.poll_event(), Some(Err(ServerFault::Refused { code: 420 })));
    }

    #[test]
    fn an_unspecified_or_multicast_mapped_address_is_refused() {
        for bad in ["0.0.0.0:5000", "224.0.0.1:5000", "255.255.255.255:5000", "192.0.2.1:0", "[ff02::1]:1"] {
            let now = Instant::now();
            let mut binding = binding(now);
            let request = binding.poll_transmit().unwrap().contents;
            binding
                .handle_input(now, &answer(&request, MessageClass::SuccessResponse, XorMappedAddress::from(at(bad))));
            assert!(matches!(binding.poll_event(), Some(Err(ServerFault::BadAnswer(_)))), "{bad}");
        }
    }

    #[test]
    fn what_is_not_exactly_one_message_has_no_header() {
        let now = Instant::now();
        let good = binding(now).poll_transmit().unwrap().contents;
        assert!(header(&good).is_some());
        for length in 0..good.len() {
            assert!(header(&good[..length]).is_none());
        }
        for (at, value) in [(0, 0x40), (4, 0), (3, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(header(&bad).is_none());
        }
    }
}

//! A TURN allocation over UDP, client side: one local socket, one server.
//! Read RFC 8656 §3, §7 to §12 and RFC 8489 §9.2 before touching this file.
//!
//! Where we differ: an error response without MESSAGE-INTEGRITY is believed (RFC 8489 §9.2.5 would discard it, but
//! deployed servers send 437 and 486 so; it still has to hit the 96-bit transaction id). Keys are MD5 ones, as RFC 5389
//! servers want them; PASSWORD-ALGORITHMS is not answered.

use crate::config::Secret;
use crate::transport::path::Transmit;
use crate::transport::stun::{
    Due, ServerFault, StunTimers, Transaction, decode, decode_verified, encode, error_code, has_integrity, header,
    is_sendable, mapped_address, transaction_id,
};
use crate::transport::turn_data::{be_u16, read_data_indication, write_channel_data, write_send_indication};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};
use stun_rs::attributes::stun::{AlternateServer, Fingerprint, MessageIntegrity, Nonce, Realm, UserName};
use stun_rs::attributes::turn::{
    ChannelNumber, LifeTime, RequestedAddressFamily, RequestedTrasport, XorPeerAddress, XorRelayedAddress,
};
use stun_rs::{
    AddressFamily, Algorithm, AlgorithmId, HMACKey, MessageClass, MessageMethod, StunMessage, StunMessageBuilder,
    methods, protocols,
};

mod peers;

/// Life of an allocation when the server does not say, RFC 8656 §3.2.
const ALLOCATION_LIFE: Duration = Duration::from_secs(600);
/// Life of a permission, RFC 8656 §9.
const PERMISSION_LIFE: Duration = Duration::from_secs(300);
/// Life of a channel binding, RFC 8656 §12.
const CHANNEL_LIFE: Duration = Duration::from_secs(600);
/// Everything is renewed so long before its end, RFC 8656 §8: at least one minute.
const RENEW_EARLY: Duration = Duration::from_secs(60);
/// A peer that was not heard of nor written to for so long is not renewed, so that refused pairs cost nothing.
const IDLE: Duration = Duration::from_secs(300);
/// The NAT in front of us forgets a silent binding after 30 s at worst; Tr of RFC 8445 §11.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Peer addresses of one allocation: 32 signalled candidates and as many peer-reflexive ones.
const MAX_PEERS: usize = 64;
/// Datagrams that wait for `poll_transmit`; past it new ones are dropped, as a network would.
const MAX_QUEUED: usize = 128;
/// Fresh nonces accepted for one request before the server is given up.
const MAX_STALE_NONCES: u8 = 3;
/// RFC 8656 §12: first and last channel number.
const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x4FFF;
/// Channel number and length, RFC 8656 §12.4.
const CHANNEL_HEADER_BYTES: usize = 4;

/// What an allocation found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllocationEvent {
    /// The server relays for us.
    Allocated {
        /// The server's address for us.
        relayed: SocketAddr,
        /// Our address as the server sees it.
        mapped: Option<SocketAddr>,
    },
    /// No relay here.
    Failed(ServerFault),
    /// It was allocated and is no more.
    Lost {
        /// The address that is gone.
        relayed: SocketAddr,
        /// Why.
        why: ServerFault,
    },
    /// Given back, as asked.
    Released,
}

/// Why an allocation wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AllocationTimer {
    /// A request was not answered yet.
    Retransmit,
    /// The allocation ends soon.
    Refresh,
    /// A permission ends soon.
    Permission,
    /// A channel binding ends soon.
    Channel,
    /// Nothing was sent to the server for 15 s.
    Keepalive,
}

/// What became of a datagram from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwrapped {
    /// A peer's payload: `bytes[payload]`.
    Data {
        /// Who sent it.
        peer: SocketAddr,
        /// Where it lies in the datagram.
        payload: Range<usize>,
    },
    /// An answer to a request of ours.
    Answer,
    /// Nothing that this allocation waits for.
    Ignored,
}

/// What became of a payload for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapped {
    /// The buffer holds the datagram for the server.
    Ready,
    /// The datagram waits in `poll_transmit` behind the request that permits it.
    Queued,
    /// It cannot go: not allocated, other address family, refused by the server, or over a cap.
    Refused,
}

/// One allocation.
///
/// ```text
///          401 with realm and nonce: ask again with credentials, once
///          437: release what the server still holds for this socket, ask again, once
///             ┌────┐
///             ▼    │      success            Refresh: success
///  new ─▶ Asking ──┴──────────────▶ Live ─◀────┐
///             │                      │ ├───────┘
///             │ any other error,     │ └─ close() ─▶ Releasing ─ any answer, or silence ─▶ Ended
///             │ silence              │                                                     ▲ ▲
///             │                      └──── 437, 401 or silence on any request: Lost ───────┘ │
///             └──────────────────────────────── Failed ──────────────────────────────────────┘
///  438 with a new nonce: the same request again, at most three times, in any state
/// ```
#[derive(Debug)]
enum State {
    Asking { released_once: bool, any_family: bool },
    Live { relayed: SocketAddr, refresh_at: Instant },
    Releasing,
    Ended,
}

/// One permission per peer address, without port (RFC 8656 §2.3).
///
/// ```text
///  Asked ─ success ─▶ Granted ─ one minute before its end, if used ─▶ Granted (asked again)
///    └─ error ─▶ Denied                └─ unused ─▶ forgotten
/// ```
#[derive(Debug)]
struct Permission {
    peer: IpAddr,
    state: Granting,
    used: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Granting {
    Asked,
    Granted { renew_at: Instant, ends: Instant },
    Denied,
}

/// A channel belongs to its peer for the life of the allocation: numbers are never given to another peer, so the five
/// minutes of RFC 8656 §12 before a number may be reused are kept.
#[derive(Debug)]
struct ChannelBinding {
    peer: SocketAddr,
    state: Granting,
    used: Instant,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Pending {
    verb: Verb,
    transaction: Transaction,
    authenticated: bool,
    stale_nonces: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Allocate,
    Refresh,
    /// Refresh with lifetime 0; `then_allocate` after a 437.
    Release {
        then_allocate: bool,
    },
    Permit(IpAddr),
    Bind(SocketAddr),
}

/// What the server wants to see in every request, RFC 8489 §9.2.
#[derive(Debug)]
struct Auth {
    realm: Realm,
    nonce: Nonce,
    key: HMACKey,
}

/// The client's side of one TURN allocation.
#[derive(Debug)]
pub struct Allocation {
    local: SocketAddr,
    server: SocketAddr,
    credentials: Option<(String, Secret)>,
    auth: Option<Auth>,
    timers: StunTimers,
    rng: ChaCha20Rng,
    state: State,
    pending: Vec<Pending>,
    permissions: Vec<Permission>,
    channels: Vec<ChannelBinding>,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<AllocationEvent>,
    sent: Instant,
}

impl Allocation {
    /// Asks `server` for a relay from the socket `local`; the first request is ready at once.
    #[must_use]
    pub fn new(
        now: Instant,
        timers: StunTimers,
        seed: [u8; 32],
        (local, server): (SocketAddr, SocketAddr),
        credentials: Option<(String, Secret)>,
    ) -> Self {
        let mut allocation = Self {
            local,
            server,
            credentials,
            auth: None,
            timers,
            rng: ChaCha20Rng::from_seed(seed),
            state: State::Asking { released_once: false, any_family: false },
            pending: Vec::new(),
            permissions: Vec::new(),
            channels: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            sent: now,
        };
        allocation.ask(now, Verb::Allocate, 0);
        allocation
    }

    /// The socket that talks to the server.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The server's address for us, while the allocation lives.
    #[must_use]
    pub fn relayed(&self) -> Option<SocketAddr> {
        match self.state {
            State::Live { relayed, .. } => Some(relayed),
            State::Asking { .. } | State::Releasing | State::Ended => None,
        }
    }

    /// True until the first answer that decides.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    /// True when nothing more will come of it.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// A datagram from the server to `local`.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> Unwrapped {
        match bytes.first() {
            // RFC 8656 §12.5, RFC 7983: a channel number starts with 64 to 79.
            Some(64..=79) => self.unwrap_channel(now, bytes),
            Some(0..=3) => self.handle_message(now, bytes),
            _ => Unwrapped::Ignored,
        }
    }

    /// Puts `payload` into a datagram for the server to relay to `peer`, written over `out`.
    ///
    /// ChannelData once the channel is bound, a Send indication before. The first payload for an address also asks for
    /// its permission; the first payload that is not STUN (so the pair was chosen) also asks for a channel.
    pub fn wrap(&mut self, now: Instant, peer: SocketAddr, payload: &[u8], out: &mut Vec<u8>) -> Wrapped {
        out.clear();
        let State::Live { relayed, .. } = self.state else { return Wrapped::Refused };
        // RFC 8656 §9.1: 443 would be the answer to a peer of another family.
        if relayed.is_ipv4() != peer.is_ipv4() || !is_sendable(peer) || payload.len() > usize::from(u16::MAX) - 64 {
            return Wrapped::Refused;
        }
        if !self.permit(now, peer.ip()) {
            return Wrapped::Refused;
        }
        if let Some(number) = self.channel(now, peer, payload) {
            write_channel_data(number, payload, out);
        } else {
            write_send_indication(&mut self.rng, peer, payload, out);
        }
        // What waits goes first: without the permission the server would drop this datagram.
        if !self.transmits.is_empty() {
            self.queue(now, out.clone());
            out.clear();
            return Wrapped::Queued;
        }
        self.sent = now;
        Wrapped::Ready
    }

    /// Gives the allocation back (RFC 8656 §8, lifetime 0). One that is still asked for is only forgotten.
    pub fn close(&mut self, now: Instant) {
        match self.state {
            State::Live { .. } => {
                self.forget_peers();
                self.state = State::Releasing;
                self.ask(now, Verb::Release { then_allocate: false }, 0);
            }
            State::Asking { .. } => {
                self.end();
                self.events.push_back(AllocationEvent::Released);
            }
            State::Releasing | State::Ended => {}
        }
    }

    /// Asks the server now whether the allocation still lives: for a path that is suspected dead.
    pub fn probe(&mut self, now: Instant) {
        let refreshing = self.pending.iter().any(|it| it.verb == Verb::Refresh);
        if matches!(self.state, State::Live { .. }) && !refreshing {
            self.ask(now, Verb::Refresh, 0);
        }
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.retransmit(now);
        let State::Live { refresh_at, .. } = self.state else { return };
        if now >= refresh_at {
            self.probe(now);
        }
        self.renew_permissions(now);
        self.renew_channels(now);
        if now >= self.sent + KEEPALIVE {
            let indication = StunMessageBuilder::new(methods::BINDING, MessageClass::Indication)
                .with_transaction_id(transaction_id(&mut self.rng))
                .with_attribute(Fingerprint::default())
                .build();
            match encode(&indication) {
                Some(bytes) => self.queue(now, bytes),
                None => self.sent = now,
            }
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let contents = self.transmits.pop_front()?;
        Some(Transmit { local: self.local, destination: self.server, contents })
    }

    /// The next thing found out.
    pub fn poll_event(&mut self) -> Option<AllocationEvent> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, AllocationTimer)> {
        let mut next = self.pending.iter().map(|it| (it.transaction.due(), AllocationTimer::Retransmit)).min();
        let mut earlier = |at: Instant, why| {
            if next.is_none_or(|(known, _)| at < known) {
                next = Some((at, why));
            }
        };
        if let State::Live { refresh_at, .. } = self.state {
            if !self.pending.iter().any(|it| it.verb == Verb::Refresh) {
                earlier(refresh_at, AllocationTimer::Refresh);
            }
            earlier(self.sent + KEEPALIVE, AllocationTimer::Keepalive);
            for it in &self.permissions {
                if let Some(at) = self.renewal(it.state, Verb::Permit(it.peer)) {
                    earlier(at, AllocationTimer::Permission);
                }
            }
            for it in &self.channels {
                if let Some(at) = self.renewal(it.state, Verb::Bind(it.peer)) {
                    earlier(at, AllocationTimer::Channel);
                }
            }
        }
        next
    }

    // --- requests and answers -------------------------------------------------------------------------------------

    /// Sends a request; a request with the same verb that still waits is replaced.
    fn ask(&mut self, now: Instant, verb: Verb, stale_nonces: u8) {
        let id = transaction_id(&mut self.rng);
        let mut message = StunMessageBuilder::new(method(verb), MessageClass::Request).with_transaction_id(id);
        match verb {
            Verb::Allocate => {
                message = message.with_attribute(RequestedTrasport::new(protocols::UDP));
                let any_family = matches!(self.state, State::Asking { any_family: true, .. });
                // RFC 8656 §7.1: without the attribute the relay is IPv4.
                if self.server.is_ipv6() && !any_family {
                    message = message.with_attribute(RequestedAddressFamily::new(AddressFamily::IPv6));
                }
            }
            Verb::Refresh => {}
            Verb::Release { .. } => message = message.with_attribute(LifeTime::new(0)),
            Verb::Permit(ip) => message = message.with_attribute(XorPeerAddress::from(SocketAddr::new(ip, 0))),
            Verb::Bind(peer) => {
                let Some(number) = self.channels.iter().position(|it| it.peer == peer).and_then(channel_number) else {
                    return;
                };
                message = message.with_attribute(ChannelNumber::new(number)).with_attribute(XorPeerAddress::from(peer));
            }
        }
        let authenticated = match (&self.auth, &self.credentials) {
            (Some(auth), Some((username, _))) => {
                let Ok(username) = UserName::new(username) else {
                    return self.fail(ServerFault::BadAnswer("the user name cannot be sent"));
                };
                message = message
                    .with_attribute(username)
                    .with_attribute(auth.realm.clone())
                    .with_attribute(auth.nonce.clone())
                    .with_attribute(MessageIntegrity::new(auth.key.clone()));
                true
            }
            _ => false,
        };
        let Some(request) = encode(&message.with_attribute(Fingerprint::default()).build()) else {
            return self.fail(ServerFault::BadAnswer("the request cannot be written"));
        };
        self.pending.retain(|it| it.verb != verb);
        let transaction = Transaction::new(now, self.timers, id, request);
        self.pending.push(Pending { verb, transaction, authenticated, stale_nonces });
        self.retransmit(now);
    }

    fn retransmit(&mut self, now: Instant) {
        let mut silent = None;
        let mut datagrams = Vec::new();
        for it in &mut self.pending {
            match it.transaction.poll(now) {
                Due::Nothing => {}
                Due::Send => datagrams.push(it.transaction.request().to_vec()),
                Due::Expired => silent = Some(it.verb),
            }
        }
        for datagram in datagrams {
            self.queue(now, datagram);
        }
        match silent {
            None => {}
            Some(Verb::Release { then_allocate: false }) => self.released(),
            Some(Verb::Allocate | Verb::Refresh | Verb::Release { .. } | Verb::Permit(_) | Verb::Bind(_)) => {
                self.fail(ServerFault::Timeout);
            }
        }
    }

    fn handle_message(&mut self, now: Instant, bytes: &[u8]) -> Unwrapped {
        let Some(head) = header(bytes) else { return Unwrapped::Ignored };
        if head.class == MessageClass::Indication && head.method == methods::DATA {
            return self.unwrap_indication(now, bytes);
        }
        if !head.is_response() {
            return Unwrapped::Ignored;
        }
        let Some(index) =
            self.pending.iter().position(|it| *it.transaction.id() == head.id && method(it.verb) == head.method)
        else {
            return Unwrapped::Ignored;
        };
        let Some(message) = decode(bytes) else { return Unwrapped::Ignored };
        let code = match head.class {
            MessageClass::ErrorResponse => Some(error_code(&message).unwrap_or(500)),
            MessageClass::SuccessResponse | MessageClass::Request | MessageClass::Indication => None,
        };
        let authenticated = self.pending.get(index).is_some_and(|it| it.authenticated);
        // RFC 8489 §9.2.5: 401 and 438 cannot be signed; a success must be, if the request was.
        let must_verify =
            authenticated && !matches!(code, Some(401 | 438)) && (code.is_none() || has_integrity(&message));
        if must_verify {
            let verified = self.auth.as_ref().is_some_and(|auth| decode_verified(bytes, &auth.key).is_some());
            if !verified {
                return Unwrapped::Ignored;
            }
        }
        let pending = self.pending.swap_remove(index);
        match code {
            None => self.handle_success(now, pending.verb, &message),
            Some(code) => self.handle_error(now, &pending, code, &message),
        }
        Unwrapped::Answer
    }

    fn handle_success(&mut self, now: Instant, verb: Verb, message: &StunMessage) {
        let lifetime = message.get::<LifeTime>().and_then(|it| it.as_life_time().ok()).map(|it| it.as_u32());
        let lifetime = lifetime.map_or(ALLOCATION_LIFE, |seconds| Duration::from_secs(seconds.into()));
        match verb {
            Verb::Allocate => {
                let relayed = message.get::<XorRelayedAddress>().and_then(|it| it.as_xor_relayed_address().ok());
                let Some(relayed) = relayed.map(|it| *it.socket_address()).filter(|it| is_sendable(*it)) else {
                    return self.fail(ServerFault::BadAnswer("no relayed address"));
                };
                if lifetime.is_zero() {
                    return self.fail(ServerFault::BadAnswer("an allocation without life"));
                }
                self.state = State::Live { relayed, refresh_at: now + renew_after(lifetime) };
                self.events.push_back(AllocationEvent::Allocated { relayed, mapped: mapped_address(message) });
            }
            Verb::Refresh => {
                if lifetime.is_zero() {
                    return self.fail(ServerFault::AllocationMismatch);
                }
                if let State::Live { refresh_at, .. } = &mut self.state {
                    *refresh_at = now + renew_after(lifetime);
                }
            }
            Verb::Release { then_allocate: true } => self.ask(now, Verb::Allocate, 0),
            Verb::Release { then_allocate: false } => self.released(),
            Verb::Permit(ip) => {
                if let Some(it) = self.permissions.iter_mut().find(|it| it.peer == ip) {
                    it.state = granted(now, PERMISSION_LIFE);
                }
            }
            Verb::Bind(peer) => {
                if let Some(it) = self.channels.iter_mut().find(|it| it.peer == peer) {
                    it.state = granted(now, CHANNEL_LIFE);
                }
                // RFC 8656 §12.3: a ChannelBind also installs or refreshes the permission.
                if let Some(it) = self.permissions.iter_mut().find(|it| it.peer == peer.ip()) {
                    it.state = granted(now, PERMISSION_LIFE);
                }
            }
        }
    }

    fn handle_error(&mut self, now: Instant, pending: &Pending, code: u16, message: &StunMessage) {
        let fault = ServerFault::from_code(code);
        match (code, pending.verb) {
            // RFC 8489 §9.2.5: a 401 to a request that held credentials means that they are wrong. Never twice.
            (401, verb) if !pending.authenticated => match self.learn_realm(message) {
                Ok(()) => self.ask(now, verb, 0),
                Err(why) => self.fail(why),
            },
            (438, verb) => {
                let next = pending.stale_nonces.saturating_add(1);
                match self.learn_nonce(message) {
                    Ok(()) if next <= MAX_STALE_NONCES => self.ask(now, verb, next),
                    Ok(()) => self.fail(ServerFault::StaleNonce),
                    Err(why) => self.fail(why),
                }
            }
            // RFC 8489 §10. Whether to go there is the gatherer's business, which knows all servers.
            (300, Verb::Allocate) => {
                let to = message.get::<AlternateServer>().and_then(|it| it.as_alternate_server().ok());
                self.fail(ServerFault::TryAlternate(to.map(|it| *it.socket_address())));
            }
            (_, Verb::Release { then_allocate: false }) => self.released(),
            (_, Verb::Release { then_allocate: true }) => self.fail(ServerFault::AllocationMismatch),
            // RFC 8656 §7.4: the server still holds an allocation for this 5-tuple, from a socket before ours.
            (437, Verb::Allocate) => match &mut self.state {
                State::Asking { released_once, .. } if !*released_once => {
                    *released_once = true;
                    self.ask(now, Verb::Release { then_allocate: true }, 0);
                }
                State::Asking { .. } | State::Live { .. } | State::Releasing | State::Ended => self.fail(fault),
            },
            // RFC 8656 §7.4: a relay of the other family is still a relay.
            (440, Verb::Allocate) => match &mut self.state {
                State::Asking { any_family, .. } if !*any_family && self.server.is_ipv6() => {
                    *any_family = true;
                    self.ask(now, Verb::Allocate, 0);
                }
                State::Asking { .. } | State::Live { .. } | State::Releasing | State::Ended => self.fail(fault),
            },
            (_, Verb::Allocate | Verb::Refresh) | (401 | 437, Verb::Permit(_) | Verb::Bind(_)) => self.fail(fault),
            (_, Verb::Permit(ip)) => {
                if let Some(it) = self.permissions.iter_mut().find(|it| it.peer == ip) {
                    it.state = Granting::Denied;
                }
            }
            // Without a channel the Send indications go on.
            (_, Verb::Bind(peer)) => {
                if let Some(it) = self.channels.iter_mut().find(|it| it.peer == peer) {
                    it.state = Granting::Denied;
                }
            }
        }
    }

    fn learn_realm(&mut self, message: &StunMessage) -> Result<(), ServerFault> {
        let Some((username, password)) = &self.credentials else { return Err(ServerFault::NoCredentials) };
        let realm = message.get::<Realm>().and_then(|it| it.as_realm().ok());
        let nonce = message.get::<Nonce>().and_then(|it| it.as_nonce().ok());
        let (Some(realm), Some(nonce)) = (realm, nonce) else {
            return Err(ServerFault::BadAnswer("401 without realm and nonce"));
        };
        let algorithm = Algorithm::from(AlgorithmId::MD5);
        let key = HMACKey::new_long_term(username, realm.as_str(), password.reveal(), algorithm)
            .map_err(|_| ServerFault::BadAnswer("the password cannot be used"))?;
        self.auth = Some(Auth { realm: realm.clone(), nonce: nonce.clone(), key });
        Ok(())
    }

    fn learn_nonce(&mut self, message: &StunMessage) -> Result<(), ServerFault> {
        let nonce = message.get::<Nonce>().and_then(|it| it.as_nonce().ok());
        match (&mut self.auth, nonce) {
            (Some(auth), Some(nonce)) => {
                auth.nonce = nonce.clone();
                Ok(())
            }
            _ => Err(ServerFault::BadAnswer("438 without a nonce")),
        }
    }

    fn fail(&mut self, why: ServerFault) {
        let event = match self.state {
            State::Asking { .. } => AllocationEvent::Failed(why),
            State::Live { relayed, .. } => AllocationEvent::Lost { relayed, why },
            State::Releasing => AllocationEvent::Released,
            State::Ended => return,
        };
        self.end();
        self.events.push_back(event);
    }

    fn released(&mut self) {
        self.end();
        self.events.push_back(AllocationEvent::Released);
    }

    fn end(&mut self) {
        self.forget_peers();
        self.transmits.clear();
        self.state = State::Ended;
    }

    fn forget_peers(&mut self) {
        self.pending.clear();
        self.permissions.clear();
        self.channels.clear();
    }

    fn queue(&mut self, now: Instant, datagram: Vec<u8>) {
        self.sent = now;
        if self.transmits.len() < MAX_QUEUED {
            self.transmits.push_back(datagram);
        }
    }

    // --- the packet path ------------------------------------------------------------------------------------------

    fn unwrap_channel(&mut self, now: Instant, bytes: &[u8]) -> Unwrapped {
        let (Some(number), Some(length)) = (be_u16(bytes, 0), be_u16(bytes, 2)) else { return Unwrapped::Ignored };
        let payload = CHANNEL_HEADER_BYTES..CHANNEL_HEADER_BYTES + usize::from(length);
        // RFC 8656 §12.6: a length past the datagram is dropped; padding after it is allowed.
        if payload.end > bytes.len() || !CHANNELS.contains(&number) {
            return Unwrapped::Ignored;
        }
        match self.channels.get_mut(usize::from(number - CHANNELS.start())) {
            Some(ChannelBinding { peer, state: Granting::Asked | Granting::Granted { .. }, used }) => {
                *used = now;
                let peer = *peer;
                self.touch(now, peer.ip());
                Unwrapped::Data { peer, payload }
            }
            Some(ChannelBinding { state: Granting::Denied, .. }) | None => Unwrapped::Ignored,
        }
    }

    /// A Data indication, RFC 8656 §11.4. From an address that we never permitted it is forged, and dropped.
    fn unwrap_indication(&mut self, now: Instant, bytes: &[u8]) -> Unwrapped {
        let Some((peer, payload)) = read_data_indication(bytes) else { return Unwrapped::Ignored };
        if self.touch(now, peer.ip()) { Unwrapped::Data { peer, payload } } else { Unwrapped::Ignored }
    }

    fn touch(&mut self, now: Instant, peer: IpAddr) -> bool {
        match self.permissions.iter_mut().find(|it| it.peer == peer) {
            Some(it) => {
                it.used = now;
                true
            }
            None => false,
        }
    }
}

fn method(verb: Verb) -> MessageMethod {
    match verb {
        Verb::Allocate => methods::ALLOCATE,
        Verb::Refresh | Verb::Release { .. } => methods::REFRESH,
        Verb::Permit(_) => methods::CREATE_PERMMISSION,
        Verb::Bind(_) => methods::CHANNEL_BIND,
    }
}

fn channel_number(index: usize) -> Option<u16> {
    let number = u16::try_from(index).ok()?.checked_add(*CHANNELS.start())?;
    CHANNELS.contains(&number).then_some(number)
}

fn granted(now: Instant, life: Duration) -> Granting {
    Granting::Granted { renew_at: now + renew_after(life), ends: now + life }
}

/// RFC 8656 §8: at least a minute before the end; half way when life is shorter than two minutes.
fn renew_after(life: Duration) -> Duration {
    life.saturating_sub(RENEW_EARLY).max(life / 2)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    #![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::wildcard_enum_match_arm)]
    use super::*;
    use stun_rs::attributes::stun::{ErrorCode, XorMappedAddress};

    pub(crate) fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    pub(crate) const SERVER: &str = "198.51.100.1:3478";
    pub(crate) const LOCAL: &str = "192.0.2.1:5000";
    pub(crate) const RELAYED: &str = "198.51.100.1:50000";
    pub(crate) const MAPPED: &str = "203.0.113.7:41000";
    const PEER: &str = "203.0.113.99:7000";

    /// A TURN server in virtual time, of one client.
    pub(crate) struct Fake {
        pub(crate) password: &'static str,
        pub(crate) nonce: String,
        /// The nonce changes with every answer, and every request is stale.
        pub(crate) always_stale: bool,
        pub(crate) lifetime_s: u32,
        /// The next authenticated requests of this method get this error.
        pub(crate) errors: Vec<(MessageMethod, u16)>,
        /// Datagrams to lose, counted down.
        pub(crate) lose: u32,
        /// Seconds since the start, method, LIFETIME asked for.
        pub(crate) log: Vec<(u64, MessageMethod, Option<u32>)>,
        pub(crate) start: Instant,
        pub(crate) data: Vec<Vec<u8>>,
    }

    impl Fake {
        pub(crate) fn new(start: Instant) -> Self {
            Self {
                password: "wonderland",
                nonce: "nonce0".into(),
                always_stale: false,
                lifetime_s: 600,
                errors: Vec::new(),
                lose: 0,
                log: Vec::new(),
                start,
                data: Vec::new(),
            }
        }

        pub(crate) fn answer(&mut self, now: Instant, bytes: &[u8]) -> Option<Vec<u8>> {
            if self.lose > 0 {
                self.lose -= 1;
                return None;
            }
            let Some(head) = header(bytes) else {
                self.data.push(bytes.to_vec());
                return None;
            };
            if head.class != MessageClass::Request {
                self.data.push(bytes.to_vec());
                return None;
            }
            let request = decode(bytes).unwrap();
            let lifetime = request.get::<LifeTime>().map(|it| it.as_life_time().unwrap().as_u32());
            self.log.push(((now - self.start).as_secs(), head.method, lifetime));
            let reply = |class| StunMessageBuilder::new(head.method, class).with_transaction_id(head.id);
            let refuse = |code| {
                let code = stun_rs::ErrorCode::new(code, "no").unwrap();
                reply(MessageClass::ErrorResponse).with_attribute(ErrorCode::from(code))
            };
            if head.method == methods::BINDING {
                let mapped = XorMappedAddress::from(at(MAPPED));
                return encode(&reply(MessageClass::SuccessResponse).with_attribute(mapped).build());
            }
            let realm = Realm::new("example.org").unwrap();
            let challenge = |code, nonce: &str| {
                let nonce = Nonce::new(nonce).unwrap();
                encode(&refuse(code).with_attribute(realm.clone()).with_attribute(nonce).build())
            };
            let algorithm = Algorithm::from(AlgorithmId::MD5);
            let key = HMACKey::new_long_term("alice", "example.org", self.password, algorithm).unwrap();
            if decode_verified(bytes, &key).is_none() {
                return challenge(401, &self.nonce);
            }
            if self.always_stale {
                self.nonce.push('x');
            }
            if *request.get::<Nonce>().unwrap().as_nonce().unwrap() != *self.nonce.as_str() {
                return challenge(438, &self.nonce);
            }
            let integrity = MessageIntegrity::new(key);
            if let Some(index) = self.errors.iter().position(|it| it.0 == head.method) {
                let (_, code) = self.errors.remove(index);
                return encode(&refuse(code).with_attribute(integrity).build());
            }
            let mut good = reply(MessageClass::SuccessResponse);
            if head.method == methods::ALLOCATE {
                good = good
                    .with_attribute(XorRelayedAddress::from(at(RELAYED)))
                    .with_attribute(XorMappedAddress::from(at(MAPPED)));
            }
            if head.method == methods::ALLOCATE || head.method == methods::REFRESH {
                good = good.with_attribute(LifeTime::new(lifetime.unwrap_or(self.lifetime_s)));
            }
            encode(&good.with_attribute(integrity).build())
        }

        pub(crate) fn count(&self, method: MessageMethod) -> usize {
            self.log.iter().filter(|it| it.1 == method).count()
        }
    }

    struct Lab {
        now: Instant,
        fake: Fake,
        allocation: Allocation,
        events: Vec<AllocationEvent>,
    }

    impl Lab {
        fn new(password: &str, prepare: impl FnOnce(&mut Fake)) -> Self {
            let now = Instant::now();
            let mut fake = Fake::new(now);
            prepare(&mut fake);
            let credentials = Some(("alice".to_owned(), Secret::new(password)));
            let path = (at(LOCAL), at(SERVER));
            let allocation = Allocation::new(now, StunTimers::default(), [3; 32], path, credentials);
            let mut lab = Self { now, fake, allocation, events: Vec::new() };
            lab.exchange();
            lab
        }

        fn exchange(&mut self) {
            while let Some(transmit) = self.allocation.poll_transmit() {
                if let Some(answer) = self.fake.answer(self.now, &transmit.contents) {
                    self.allocation.handle_input(self.now, &answer);
                }
            }
            self.events.extend(std::iter::from_fn(|| self.allocation.poll_event()));
        }

        /// Lets `seconds` pass, waking the allocation only when it wants to be.
        fn run(&mut self, seconds: u64) {
            let end = self.now + Duration::from_secs(seconds);
            while let Some((due, _)) = self.allocation.poll_timeout().filter(|(due, _)| *due <= end) {
                assert!(due >= self.now || due <= end);
                self.now = self.now.max(due);
                self.allocation.handle_timeout(self.now);
                self.exchange();
            }
            self.now = end;
        }

        fn send(&mut self, payload: &[u8]) -> Wrapped {
            let mut out = Vec::new();
            let wrapped = self.allocation.wrap(self.now, at(PEER), payload, &mut out);
            self.exchange();
            if wrapped == Wrapped::Ready {
                self.fake.answer(self.now, &out);
            }
            wrapped
        }
    }

    fn allocated() -> AllocationEvent {
        AllocationEvent::Allocated { relayed: at(RELAYED), mapped: Some(at(MAPPED)) }
    }

    #[test]
    fn two_requests_make_an_allocation() {
        let lab = Lab::new("wonderland", |_| {});
        assert_eq!(lab.events, [allocated()]);
        assert_eq!(lab.fake.count(methods::ALLOCATE), 2);
        assert_eq!(lab.allocation.relayed(), Some(at(RELAYED)));
    }

    #[test]
    fn lost_requests_are_repeated_until_the_allocation_stands() {
        let mut lab = Lab::new("wonderland", |fake| fake.lose = 3);
        assert!(lab.events.is_empty());
        lab.run(4);
        assert_eq!(lab.events, [allocated()]);
    }

    #[test]
    fn a_silent_server_times_out() {
        let mut lab = Lab::new("wonderland", |fake| fake.lose = u32::MAX);
        lab.run(39);
        assert!(lab.events.is_empty());
        lab.run(1);
        assert_eq!(lab.events, [AllocationEvent::Failed(ServerFault::Timeout)]);
        assert_eq!(lab.allocation.poll_timeout(), None);
    }

    #[test]
    fn a_wrong_password_is_tried_once_and_never_again() {
        let mut lab = Lab::new("guess", |_| {});
        lab.run(3600);
        assert_eq!(lab.events, [AllocationEvent::Failed(ServerFault::WrongCredentials)]);
        assert_eq!(lab.fake.count(methods::ALLOCATE), 2);
    }

    #[test]
    fn a_server_that_calls_every_nonce_stale_is_given_up() {
        let mut lab = Lab::new("wonderland", |fake| fake.always_stale = true);
        lab.run(60);
        assert_eq!(lab.events, [AllocationEvent::Failed(ServerFault::StaleNonce)]);
        assert_eq!(lab.fake.count(methods::ALLOCATE), 1 + 1 + usize::from(MAX_STALE_NONCES));
    }

    #[test]
    fn a_stale_nonce_at_refresh_is_replaced() {
        let mut lab = Lab::new("wonderland", |_| {});
        lab.fake.nonce = "nonce1".into();
        lab.run(700);
        assert_eq!(lab.events, [allocated()]);
        assert_eq!(lab.fake.count(methods::REFRESH), 2);
    }

    #[test]
    fn the_allocation_is_refreshed_a_minute_before_its_end() {
        let mut lab = Lab::new("wonderland", |_| {});
        lab.run(1700);
        let refreshes: Vec<u64> = lab.fake.log.iter().filter(|it| it.1 == methods::REFRESH).map(|it| it.0).collect();
        assert_eq!(refreshes, [540, 1080, 1620]);
        let mut short = Lab::new("wonderland", |fake| fake.lifetime_s = 60);
        short.run(100);
        assert_eq!(short.fake.count(methods::REFRESH), 3, "half way when life is short");
    }

    #[test]
    fn permissions_and_channels_of_a_used_peer_are_renewed_and_those_of_an_idle_one_are_not() {
        let mut lab = Lab::new("wonderland", |_| {});
        assert_eq!(lab.send(b"\x80rtp"), Wrapped::Queued, "behind the requests that permit it");
        for _ in 0..120 {
            lab.run(10);
            assert_eq!(lab.send(b"\x80rtp"), Wrapped::Ready);
            assert_eq!(lab.fake.data.last().unwrap()[..2], [0x40, 0x00]);
        }
        let permits: Vec<u64> =
            lab.fake.log.iter().filter(|it| it.1 == methods::CREATE_PERMMISSION).map(|it| it.0).collect();
        let binds: Vec<u64> = lab.fake.log.iter().filter(|it| it.1 == methods::CHANNEL_BIND).map(|it| it.0).collect();
        // A ChannelBind renews the permission as well.
        let mut renewals = [permits.as_slice(), &binds].concat();
        renewals.sort_unstable();
        assert!(renewals.windows(2).all(|it| it[1] - it[0] <= 240), "{renewals:?}");
        assert_eq!(binds, [0, 540, 1080]);
        let (permits, binds) = (permits.len(), binds.len());
        lab.run(3600);
        assert!(lab.fake.count(methods::CREATE_PERMMISSION) <= permits + 2);
        assert!(lab.fake.count(methods::CHANNEL_BIND) <= binds + 1);
        lab.send(b"\x80back");
        lab.send(b"\x80back");
        assert_eq!(lab.fake.data.last().unwrap()[..2], [0x40, 0x00], "the same number for the same peer");
    }

    #[test]
    fn a_check_takes_no_channel() {
        let mut lab = Lab::new("wonderland", |_| {});
        lab.send(&[0, 1, 0, 0]);
        assert_eq!(lab.fake.count(methods::CREATE_PERMMISSION), 1);
        assert_eq!(lab.fake.count(methods::CHANNEL_BIND), 0);
    }

    #[test]
    fn a_forbidden_peer_is_refused_and_the_allocation_lives() {
        let mut lab = Lab::new("wonderland", |fake| fake.errors.push((methods::CREATE_PERMMISSION, 403)));
        lab.send(&[0, 1]);
        assert_eq!(lab.send(&[0, 1]), Wrapped::Refused);
        assert_eq!(lab.fake.count(methods::CREATE_PERMMISSION), 1);
        assert_eq!(lab.events, [allocated()]);
    }

    #[test]
    fn an_old_allocation_of_the_same_socket_is_released_once() {
        let lab = Lab::new("wonderland", |fake| fake.errors.push((methods::ALLOCATE, 437)));
        assert_eq!(lab.events, [allocated()]);
        assert_eq!(lab.fake.log[2], (0, methods::REFRESH, Some(0)));
        let lab = Lab::new("wonderland", |fake| fake.errors = vec![(methods::ALLOCATE, 437); 2]);
        assert_eq!(lab.events, [AllocationEvent::Failed(ServerFault::AllocationMismatch)]);
    }

    #[test]
    fn refusals_are_named() {
        for (code, why) in [
            (403, ServerFault::Forbidden),
            (440, ServerFault::AddressFamily),
            (441, ServerFault::WrongCredentials),
            (442, ServerFault::UnsupportedTransport),
            (486, ServerFault::QuotaReached),
            (508, ServerFault::InsufficientCapacity),
            (300, ServerFault::TryAlternate(None)),
            (500, ServerFault::Refused { code: 500 }),
        ] {
            let lab = Lab::new("wonderland", |fake| fake.errors.push((methods::ALLOCATE, code)));
            assert_eq!(lab.events, [AllocationEvent::Failed(why)]);
        }
    }

    #[test]
    fn a_server_that_forgot_us_is_noticed_at_the_next_request() {
        let mut lab = Lab::new("wonderland", |fake| fake.errors.push((methods::REFRESH, 437)));
        lab.allocation.probe(lab.now);
        lab.exchange();
        let lost = AllocationEvent::Lost { relayed: at(RELAYED), why: ServerFault::AllocationMismatch };
        assert_eq!(lab.events, [allocated(), lost]);
        assert_eq!(lab.send(b"\x80"), Wrapped::Refused);
    }

    #[test]
    fn close_gives_the_allocation_back() {
        let mut lab = Lab::new("wonderland", |_| {});
        lab.allocation.close(lab.now);
        lab.exchange();
        assert_eq!(lab.events, [allocated(), AllocationEvent::Released]);
        assert_eq!(*lab.fake.log.last().unwrap(), (0, methods::REFRESH, Some(0)));
        assert!(lab.allocation.is_ended());
    }

    #[test]
    fn an_idle_allocation_keeps_its_nat_binding() {
        let mut lab = Lab::new("wonderland", |_| {});
        lab.run(61);
        assert_eq!(lab.fake.data.len(), 4, "every 15 s");
    }

    #[test]
    fn an_answer_that_is_not_signed_is_ignored() {
        let now = Instant::now();
        let credentials = Some(("alice".to_owned(), Secret::new("wonderland")));
        let path = (at(LOCAL), at(SERVER));
        let mut allocation = Allocation::new(now, StunTimers::default(), [3; 32], path, credentials);
        let mut fake = Fake::new(now);
        let first = allocation.poll_transmit().unwrap().contents;
        allocation.handle_input(now, &fake.answer(now, &first).unwrap());
        let second = allocation.poll_transmit().unwrap().contents;
        let forged = StunMessageBuilder::new(methods::ALLOCATE, MessageClass::SuccessResponse)
            .with_transaction_id(header(&second).unwrap().id)
            .with_attribute(XorRelayedAddress::from(at(RELAYED)))
            .build();
        assert_eq!(allocation.handle_input(now, &encode(&forged).unwrap()), Unwrapped::Ignored);
        assert!(allocation.is_asking());
        let mut broken = fake.answer(now, &second).unwrap();
        let last = broken.len() - 1;
        broken[last] ^= 1;
        assert_eq!(allocation.handle_input(now, &broken), Unwrapped::Ignored);
        assert_eq!(allocation.handle_input(now, &fake.answer(now, &second).unwrap()), Unwrapped::Answer);
    }

    #[test]
    fn data_from_an_address_that_was_never_permitted_is_dropped() {
        let mut lab = Lab::new("wonderland", |_| {});
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let indication = |rng: &mut ChaCha20Rng, peer: &str| {
            let mut bytes = Vec::new();
            write_send_indication(rng, at(peer), b"hello", &mut bytes);
            bytes[1] = 0x17;
            bytes
        };
        lab.send(&[0]);
        let known = indication(&mut rng, "203.0.113.99:1");
        let Unwrapped::Data { peer, payload } = lab.allocation.handle_input(lab.now, &known) else { panic!("no data") };
        assert_eq!((peer, &known[payload]), (at("203.0.113.99:1"), &b"hello"[..]));
        let stranger = indication(&mut rng, "203.0.113.98:1");
        assert_eq!(lab.allocation.handle_input(lab.now, &stranger), Unwrapped::Ignored);
    }

    #[test]
    fn addresses_and_payloads_of_every_length_survive_an_indication() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for length in 0..40 {
            for peer in ["203.0.113.99:7000", "[2001:db8::9]:65535"] {
                let (payload, mut bytes) = (vec![0xAB; length], Vec::new());
                write_send_indication(&mut rng, at(peer), &payload, &mut bytes);
                assert!(header(&bytes).is_some());
                let (read, range) = read_data_indication(&bytes).unwrap();
                assert_eq!((read, &bytes[range]), (at(peer), &payload[..]));
            }
        }
    }
}

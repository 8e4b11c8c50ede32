//! Every knob and every cap on a peer: default, unit, range, why.

use std::time::Duration;
use zeroize::Zeroizing;

/// Caps on the XML of one stream, RFC 6120 §4.9.3.14 (`policy-violation` past them).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XmlLimits {
    /// Bytes of one stanza; 262 144 is what the deployed servers allow a client.
    pub stanza_bytes: usize,
    /// Nested elements inside the stream; a Jingle stanza needs 6.
    pub depth: usize,
    /// Attributes of one element; the longest known element has 15.
    pub attributes: usize,
    /// Namespace declarations in scope; a Jingle stanza needs 4.
    pub namespaces: usize,
}

impl Default for XmlLimits {
    fn default() -> Self {
        Self { stanza_bytes: 256 * 1024, depth: 64, attributes: 64, namespaces: 32 }
    }
}

/// Timers of a Jingle session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JingleTimers {
    /// An IQ without an answer for so long ends the session (J166-66).
    pub iq: Duration,
    /// An unanswered call rings at most so long.
    pub ring: Duration,
    /// After unavailable presence and silence for so long the session ends (J166-18: 5 to 10 s).
    pub unavailable: Duration,
}

impl Default for JingleTimers {
    fn default() -> Self {
        Self { iq: Duration::from_secs(30), ring: Duration::from_secs(60), unavailable: Duration::from_secs(8) }
    }
}

/// Caps on sessions and their peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Live sessions of one endpoint; `resource-constraint` past it (J166-07).
    pub sessions: usize,
    /// Unaccepted incoming sessions of one bare JID (threat: session-initiate flood).
    pub pending_per_peer: usize,
    /// The same for sessions that offer files: a person who drops a few files on a contact.
    pub pending_files_per_peer: usize,
    /// Ended sids remembered, so that late stanzas get the right error in bounded memory (J166-68).
    pub ended_sids: usize,
    /// Remote candidates of one content; Chromium sends 9 to 17 (threat: candidate injection).
    pub remote_candidates: usize,
    /// Contents of one session.
    pub contents: usize,
    /// Payload types of one description.
    pub payload_types: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            sessions: 1024,
            pending_per_peer: 1,
            pending_files_per_peer: 8,
            ended_sids: 1024,
            remote_candidates: 32,
            contents: 16,
            payload_types: 64,
        }
    }
}

/// A password or key. Wiped when dropped; `Debug` hides it; it is never logged.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text that must not be shown.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Most elements that a codec keeps of one stanza, so that 256 KiB of XML cannot become many times that in values. They
/// stand above every limit a session may be configured with.
pub mod wire {
    /// Contents of one `<jingle/>`; past it the stanza is refused, as a part of a session is not to be guessed away.
    pub const CONTENTS: usize = 64;
    /// XEP-0338 groups of one `<jingle/>`; further ones are dropped.
    pub const GROUPS: usize = 16;
    /// Candidates of one transport; further ones are dropped and counted.
    pub const CANDIDATES: usize = 128;
    /// Payload types of one description: there are 128 numbers; further ones are dropped.
    pub const PAYLOAD_TYPES: usize = 128;
    /// Parameters, feedback types, header extensions, sources, keys, hashes of one element; further ones are dropped.
    pub const PARTS: usize = 128;
}

/// Token buckets against a flood of session-initiates and proposes; `resource-constraint` past them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitiateRate {
    /// Requests of one bare JID at once; a person who redials needs 2 or 3.
    pub peer_burst: u32,
    /// The same for offers of files, which ring nowhere: a script sends one after the other.
    pub peer_file_burst: u32,
    /// One more request of the same bare JID after so long.
    pub peer_interval: Duration,
    /// Requests of everybody at once.
    pub total_burst: u32,
    /// One more request of anybody after so long.
    pub total_interval: Duration,
    /// Bare JIDs whose bucket is remembered; a full bucket is forgotten first.
    pub peers: usize,
}

impl Default for InitiateRate {
    fn default() -> Self {
        Self {
            peer_burst: 8,
            peer_file_burst: 32,
            peer_interval: Duration::from_secs(2),
            total_burst: 256,
            total_interval: Duration::from_millis(10),
            peers: 1024,
        }
    }
}

/// Deadlines of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamTimers {
    /// Each step of the login (header, TLS, each SASL step, bind, resume) may take so long.
    pub phase: Duration,
    /// After so much silence from the server a ping is sent; shorter than the 60 s after which many NATs forget a TCP
    /// connection.
    pub idle: Duration,
    /// A ping or an acknowledgement request that is unanswered for so long means that the connection is lost.
    pub reply: Duration,
    /// A stanza is at most so long without an acknowledgement request (XEP-0198).
    pub ack_request: Duration,
    /// The other side has so long to close its half (RFC 6120 §4.4).
    pub close: Duration,
}

impl Default for StreamTimers {
    fn default() -> Self {
        Self {
            phase: Duration::from_secs(30),
            idle: Duration::from_secs(50),
            reply: Duration::from_secs(15),
            ack_request: Duration::from_secs(2),
            close: Duration::from_secs(5),
        }
    }
}

/// Caps on what one stream keeps for its user and its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Stanzas that wait to be sent or acknowledged.
    pub queue_stanzas: usize,
    /// Bytes of those.
    pub queue_bytes: usize,
    /// A request for acknowledgement goes out after so many stanzas (XEP-0198).
    pub ack_every: u32,
    /// IQ requests that await their answer.
    pub requests: usize,
    /// Roster items kept; more are ignored.
    pub roster: usize,
    /// Resources kept in the presence table.
    pub presences: usize,
    /// Verified capabilities kept.
    pub caps: usize,
    /// External services kept.
    pub services: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            queue_stanzas: 1024,
            queue_bytes: 4 * 1024 * 1024,
            ack_every: 5,
            requests: 1024,
            roster: 10_000,
            presences: 10_000,
            caps: 1024,
            services: 32,
        }
    }
}

/// Caps and timers of SOCKS5 bytestreams (XEP-0260 over XEP-0065).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytestreamLimits {
    /// Streamhosts of a peer that one content dials, highest priority first (threat: S5B streamhost SSRF).
    pub dials: usize,
    /// One streamhost may take so long to connect and to finish its handshake.
    pub connect: Duration,
    /// The next streamhost is dialled after so long without success (XEP-0260 §4).
    pub stagger: Duration,
    /// Proxies are dialled so much later than the last direct streamhost, unless all of those failed (XEP-0260 §4).
    pub proxies_later: Duration,
    /// A peer that offered nothing may send its candidates after the offer or answer (XEP-0260 §2.2) for so long.
    pub late_candidates: Duration,
    /// From the peer's candidates to a nominated one, at most; others try their 5 candidates one by one, 3 to 5 s each.
    pub negotiation: Duration,
    /// The nominated stream of ours must be there, the proxy activated, within so long after the nomination.
    pub activation: Duration,
    /// Accepted streams that one content keeps until one is nominated.
    pub accepted: usize,
    /// Connections to our listeners, of everybody together, that have not finished their handshake.
    pub half_open: usize,
    /// An accepted connection has so long for its whole handshake, however many bytes it sends.
    pub handshake: Duration,
}

impl Default for BytestreamLimits {
    fn default() -> Self {
        Self {
            dials: 4,
            connect: Duration::from_secs(5),
            stagger: Duration::from_millis(200),
            proxies_later: Duration::from_millis(800),
            late_candidates: Duration::from_secs(1),
            negotiation: Duration::from_secs(30),
            activation: Duration::from_secs(15),
            accepted: 8,
            half_open: 32,
            handshake: Duration::from_secs(5),
        }
    }
}

/// Timers of SIP transactions, RFC 3261 table 4. The others follow from these three: A, E and G start at T1 and double;
/// B, F, H, L and M are 64·T1; D and J are 64·T1 on UDP; I and K are T4 on UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipTimers {
    /// Estimate of the round trip.
    pub t1: Duration,
    /// Longest interval between repetitions of a non-INVITE request or of the answer to an INVITE.
    pub t2: Duration,
    /// How long a message may stay in the network.
    pub t4: Duration,
    /// An INVITE that has no answer of its user after so long is answered 100 (RFC 3261 §17.2.1).
    pub trying: Duration,
    /// A request that is too long for UDP waits so long for a TCP connection before it goes by UDP after all
    /// (RFC 3261 §18.1.1): a firewall that drops says nothing, and somebody waits for the call.
    pub tcp: Duration,
}

impl Default for SipTimers {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            trying: Duration::from_millis(200),
            tcp: Duration::from_secs(3),
        }
    }
}

/// Waits of registrations, subscriptions and publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipRefresh {
    /// Two requests that nothing was wrong with are at least so far apart, whatever a server grants.
    pub shortest: Duration,
    /// A server that grants or asks for longer is not believed: a week.
    pub longest: Duration,
    /// The first wait after a failure is 50 to 100 % of twice this (RFC 5626 §4.5).
    pub backoff: Duration,
    /// The longest of them.
    pub backoff_longest: Duration,
}

impl Default for SipRefresh {
    fn default() -> Self {
        Self {
            shortest: Duration::from_secs(5),
            longest: Duration::from_secs(7 * 24 * 3600),
            backoff: Duration::from_secs(30),
            backoff_longest: Duration::from_secs(1800),
        }
    }
}

/// Caps and times of subscriptions and publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipEventLimits {
    /// Ours.
    pub subscriptions: usize,
    /// Of others at us.
    pub watchers: usize,
    /// Ours.
    pub publications: usize,
    /// Asked for (RFC 3856 §6.4), and granted at most.
    pub expires: Duration,
    /// Less is refused with 423 (RFC 6665 §4.2.1.1); only none at all is fine.
    pub shortest: Duration,
    /// Notifications to one watcher are so far apart (RFC 3856 §6.10).
    pub spacing: Duration,
}

impl Default for SipEventLimits {
    fn default() -> Self {
        Self {
            subscriptions: 256,
            watchers: 256,
            publications: 16,
            expires: Duration::from_secs(3600),
            shortest: Duration::from_secs(60),
            spacing: Duration::from_secs(5),
        }
    }
}

/// Caps on SIP requests that stand alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipLoneLimits {
    /// Longest text that is sent by MESSAGE (RFC 3428 §8).
    pub message_bytes: usize,
    /// Longest that is taken; others send more than the standard allows.
    pub incoming_bytes: usize,
    /// Texts that wait for the application; 503 past it.
    pub unread: usize,
    /// What that 503 says, in seconds.
    pub retry_after_s: u32,
    /// Requests of ours whose outcome is open.
    pub requests: usize,
}

impl Default for SipLoneLimits {
    fn default() -> Self {
        Self { message_bytes: 1300, incoming_bytes: 16 * 1024, unread: 256, retry_after_s: 30, requests: 1024 }
    }
}

/// Caps on SIP transactions; 503 with Retry-After past those of requests that come in (threat: INVITE flood).
///
/// A transaction is open until it is answered with success: floods consist of open ones, while those of calls that were
/// answered cost little and end by themselves 32 s later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipLimits {
    /// Open ones of one address; a PBX with so many calls ringing here at once needs a higher cap. Requests inside dialogs
    /// have the same number for themselves, so that a flood does not end the calls that stand.
    pub open_per_source: usize,
    /// Open ones of everybody, half of them for requests inside dialogs.
    pub open: usize,
    /// All that a peer began, about 1 kB each: 1 000 calls a second leave 64 000 behind (INVITE and BYE, 32 s).
    pub incoming: usize,
    /// All that we began; our users' requests past it fail.
    pub outgoing: usize,
    /// What the answer 503 says, in seconds: open transactions are gone after 32 s.
    pub retry_after_s: u32,
    /// Times that one request is sent again with other credentials: two realms, each with a stale nonce.
    pub challenges: u32,
    /// Targets that one request is tried at, one after the other.
    pub targets: usize,
    /// Size past which a request does not go by UDP (RFC 3261 §18.1.1).
    pub datagram_bytes: usize,
}

impl Default for SipLimits {
    fn default() -> Self {
        Self {
            open_per_source: 256,
            open: 4096,
            incoming: 131_072,
            outgoing: 131_072,
            retry_after_s: 32,
            challenges: 4,
            targets: 8,
            datagram_bytes: 1300,
        }
    }
}

/// Caps on one SIP message, so that what it costs in memory stays within a few times its bytes; 513 past them.
pub mod sip_wire {
    /// Bytes of start line and headers: what a datagram can carry. A call's are 1 to 2 KiB, with STIR 4 KiB.
    pub const HEAD_BYTES: usize = 64 * 1024;
    /// Bytes of a body: what a datagram can carry. SDP with video and ICE takes 5 to 10 KiB.
    pub const BODY_BYTES: usize = 64 * 1024;
    /// Headers of a message, each value of Via, Route, Contact and their like counted as one; RFC 4475's longest has 42.
    pub const HEADERS: usize = 256;
    /// Parameters of one value, headers of one address, tokens of one list; Contact of a browser has 20.
    pub const PARAMS: usize = 64;
}

/// Caps on one session description; it is refused past them.
pub mod sdp {
    /// Lines; a browser's with every video codec has 200 to 400.
    pub const LINES: usize = 2_000;
    /// Media descriptions; each takes at most a content of Jingle.
    pub const MEDIA: usize = 64;
    /// Attributes, candidates, bandwidths, keys of one place; further ones are dropped.
    pub const PARTS: usize = 256;
}

/// Caps and timers of the connections and sockets that SIP travels on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipFlowLimits {
    /// Connections and sockets that we open: servers, and peers that were called directly.
    pub outgoing: usize,
    /// Connections that others open to our listeners.
    pub accepted: usize,
    /// The same of one address (of one /64 with IPv6); a server in front of many telephones needs a few (threat: INVITE
    /// flood over TCP).
    pub accepted_per_source: usize,
    /// Bytes that wait for a connection to open; a burst of requests to a server that is being connected to.
    pub waiting_bytes: usize,
    /// A connection opens, TLS and WebSocket handshake included, within so long: less than a transaction lasts (32 s), so
    /// that there is time to try another server.
    pub open: Duration,
    /// From the first byte of a message to its last on a stream; a message that takes longer than half a transaction (16 s)
    /// is of no use (threat: a peer that sends one byte a second).
    pub message: Duration,
    /// A peer that connected has so long to say something.
    pub first_message: Duration,
    /// A connection on which nothing travels for so long is closed. The usual registration (3600 s, refreshed before) is
    /// shorter.
    pub idle: Duration,
    /// One that we opened and that rests for so long is closed to make room for another one.
    pub evictable: Duration,
    /// The same for one that was accepted and never said anything: a round trip and a handshake of a slow device.
    pub evictable_silent: Duration,
    /// The same for one that was accepted and spoke: more than two intervals of keep-alives, so that a flood of newcomers
    /// does not push out who is there.
    pub evictable_accepted: Duration,
    /// Messages of one connection that are no SIP, before it is closed.
    pub malformed: u32,
    /// Interval of keep-alives on streams, least and most (RFC 5626 §4.4.1).
    pub stream_keep_alive: (Duration, Duration),
    /// The same on datagrams (RFC 5626 §4.4.2): NATs forget after 30 s.
    pub datagram_keep_alive: (Duration, Duration),
    /// An answer to a keep-alive on a stream comes within so long (RFC 5626 §4.4.1).
    pub pong: Duration,
    /// Peers of one UDP socket that keep-alives go to.
    pub kept_per_socket: usize,
}

impl Default for SipFlowLimits {
    fn default() -> Self {
        Self {
            outgoing: 256,
            accepted: 1024,
            accepted_per_source: 64,
            waiting_bytes: 256 * 1024,
            open: Duration::from_secs(15),
            message: Duration::from_secs(16),
            first_message: Duration::from_secs(16),
            idle: Duration::from_secs(3700),
            evictable: Duration::from_secs(60),
            evictable_silent: Duration::from_secs(1),
            evictable_accepted: Duration::from_secs(300),
            malformed: 32,
            stream_keep_alive: (Duration::from_secs(95), Duration::from_secs(120)),
            datagram_keep_alive: (Duration::from_secs(24), Duration::from_secs(29)),
            pong: Duration::from_secs(10),
            kept_per_socket: 64,
        }
    }
}

/// Caps and timers of the search for SIP servers (RFC 3263).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipLocateLimits {
    /// NAPTR or SRV records, or addresses, that are looked at of one answer.
    pub records: usize,
    /// Places to try of one search: with 32 s for each that stays silent nobody waits for more.
    pub targets: usize,
    /// DNS questions of one search.
    pub queries: usize,
    /// Searches at once.
    pub searches: usize,
    /// Answers remembered.
    pub cache: usize,
    /// An answer is remembered no longer, whatever its TTL says: a server that moved is found again soon.
    pub longest_ttl: Duration,
    /// That there is no such record is remembered for so long, if no longer than its TTL says.
    pub nothing_ttl: Duration,
    /// DNS that does not answer is not asked again for so long.
    pub failed_ttl: Duration,
    /// The shell answers within so long.
    pub answer: Duration,
    /// Dead places remembered.
    pub dead: usize,
    /// A dead place comes last for so long (RFC 3263 §4.3 names no time).
    pub dead_for: Duration,
}

impl Default for SipLocateLimits {
    fn default() -> Self {
        Self {
            records: 16,
            targets: 16,
            queries: 48,
            searches: 1024,
            cache: 512,
            longest_ttl: Duration::from_secs(300),
            nothing_ttl: Duration::from_secs(60),
            failed_ttl: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            dead: 256,
            dead_for: Duration::from_secs(60),
        }
    }
}

/// Caps of the shell's sockets for SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipSocketLimits {
    /// Reports that wait for the engine: half a second of 1 000 calls a second. Past it datagrams are lost and streams wait.
    pub reports: usize,
    /// Messages that wait for one stream to take them.
    pub waiting_messages: usize,
    /// Bytes of those; a peer that lets more pile up is gone.
    pub waiting_bytes: usize,
    /// Datagrams that wait for one socket.
    pub waiting_datagrams: usize,
    /// Receive buffer asked of the system for a UDP socket: two seconds of 1 000 requests a second.
    pub receive_buffer_bytes: usize,
    /// One WebSocket message: the largest SIP message.
    pub websocket_message_bytes: usize,
    /// DNS questions at once.
    pub lookups: usize,
    /// Accepted connections in their TLS or WebSocket handshake (threat: handshake flood).
    pub half_open: usize,
    /// The same of one address.
    pub half_open_per_source: usize,
    /// Both handshakes of an accepted connection together.
    pub handshake: Duration,
}

impl Default for SipSocketLimits {
    fn default() -> Self {
        Self {
            reports: 4096,
            waiting_messages: 512,
            waiting_bytes: 1024 * 1024,
            waiting_datagrams: 512,
            receive_buffer_bytes: 2 * 1024 * 1024,
            websocket_message_bytes: sip_wire::HEAD_BYTES + sip_wire::BODY_BYTES,
            lookups: 32,
            half_open: 128,
            half_open_per_source: 16,
            handshake: Duration::from_secs(10),
        }
    }
}

/// When SIP sessions give up, and their session timers (RFC 4028).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipSessionTimers {
    /// A call of ours rings for so long before it is given up, and one for us before it is answered 480. Proxies give up
    /// after 3 minutes (RFC 3261 §16.6, timer C).
    pub ring: Duration,
    /// The application has so long to answer an offer or a REFER: much less than the 32 s its transaction has.
    pub answer: Duration,
    /// A transfer has so long to report its end; people let it ring for 3 minutes at most.
    pub transfer: Duration,
    /// Ask for a session timer with each call.
    pub offer_timer: bool,
    /// Interval that we ask for, in seconds (RFC 4028 §4 recommends 1800).
    pub session_s: u32,
    /// Shortest interval that we take, in seconds, 90 at least (RFC 4028 §5).
    pub min_session_s: u32,
}

impl Default for SipSessionTimers {
    fn default() -> Self {
        Self {
            ring: Duration::from_secs(180),
            answer: Duration::from_secs(10),
            transfer: Duration::from_secs(180),
            offer_timer: true,
            session_s: 1800,
            min_session_s: 90,
        }
    }
}

/// Caps on SIP sessions and their peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipSessionLimits {
    /// Sessions that live; 503 past it. A gateway has one for each call.
    pub sessions: usize,
    /// Of those, calls to us that nobody took yet (threat: INVITE flood).
    pub ringing: usize,
    /// Ended sessions that are kept for a late 2xx or a transfer's report; the oldest is forgotten past it.
    pub lingering: usize,
    /// Dialogs of one INVITE; a person has a few telephones (threat: a response from each of a million forks).
    pub forks: usize,
    /// Reliable provisional responses of ours that wait for the one before them.
    pub provisional: usize,
    /// Digits that wait for the one before them.
    pub digits: usize,
    /// 3xx that are followed in a row (RFC 3261 §8.1.3.4 leaves it open).
    pub redirects: usize,
    /// Times that one offer is tried in spite of 491 and 500.
    pub offer_tries: u8,
    /// Longest session interval that a 422 may talk us into, in seconds.
    pub min_se_s: u32,
    /// What the answer 503 says, in seconds.
    pub retry_after_s: u32,
}

impl Default for SipSessionLimits {
    fn default() -> Self {
        Self {
            sessions: 16_384,
            ringing: 1024,
            lingering: 16_384,
            forks: 16,
            provisional: 8,
            digits: 64,
            redirects: 5,
            offer_tries: 8,
            min_se_s: 86_400,
            retry_after_s: 32,
        }
    }
}

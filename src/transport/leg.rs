//! One leg: a path found by ICE (or a plain one), protection by DTLS-SRTP (or SDES, or none), then RTP and RTCP.
//! Read RFC 8445, RFC 5763 §5, RFC 7983 §7 and XEP-0320 §3 before touching this file.

use crate::transport::dtls::{DtlsFault, Identity};
use crate::transport::gather::{IceServer, Routed};
use crate::transport::path::{AddressFault, Path, Route, Transmit};
use crate::wire::candidate::{Candidate, CandidateKind, Fingerprint, IceCreds, Setup};
use crate::wire::rtp::{MediaTime, RtpHeader, Ssrc};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What a leg is to be; fixed for its life.
#[derive(Debug, Clone)]
pub struct LegConfig {
    /// We started the session: ICE controlling, and our `setup` is actpass (RFC 8445 §6.1.1, XEP-0320 §3).
    pub initiator: bool,
    /// How the path is found.
    pub carrier: Carrier,
    /// How payload is protected on it.
    pub protection: Protection,
    /// As responder to an actpass offer, become the DTLS client. Off by default: some peers stop listening to DTLS once
    /// they are done and never repeat a lost last flight.
    pub answer_active: bool,
    /// Remote candidates accepted; 32 covers every known client (threat: candidate injection).
    pub max_remote_candidates: usize,
    /// ICE and DTLS timers.
    pub timers: LegTimers,
    /// RTCP CNAME, RFC 7022: random, never a JID or an address.
    pub cname: String,
}

impl LegConfig {
    /// ICE and DTLS-SRTP with default timers: what Jingle uses.
    #[must_use]
    pub fn new(initiator: bool, identity: Arc<Identity>) -> Self {
        Self {
            initiator,
            carrier: Carrier::Ice { servers: Vec::new(), relay_only: false, lab: false },
            protection: Protection::Dtls(identity),
            answer_active: false,
            max_remote_candidates: 32,
            timers: LegTimers::default(),
            cname: String::new(),
        }
    }
}

/// How the path is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// RFC 8445
    Ice {
        /// STUN and TURN servers, resolved.
        servers: Vec<IceServer>,
        /// Only relayed candidates are gathered and used (J176-24).
        relay_only: bool,
        /// Loopback and link-local addresses are allowed on both sides.
        lab: bool,
    },
    /// Straight to an address that signalling tells (`Leg::set_plain_remote`).
    Plain,
}

/// How payload is protected.
#[derive(Debug, Clone)]
pub enum Protection {
    /// DTLS-SRTP with this certificate, RFC 5764.
    Dtls(Arc<Identity>),
    /// Keys from signalling, RFC 4568.
    Sdes(Box<SdesKeys>),
    /// Plain RTP.
    None,
}

/// SDES keys. `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub struct SdesKeys {
    /// The suite, as its RFC 5764 / RFC 7714 number.
    pub profile_id: u16,
    /// Master key and salt that we send with.
    pub local: (Vec<u8>, Vec<u8>),
    /// Master key and salt that the peer sends with.
    pub remote: (Vec<u8>, Vec<u8>),
}

impl std::fmt::Debug for SdesKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SdesKeys").field("profile_id", &self.profile_id).finish_non_exhaustive()
    }
}

/// Timers of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegTimers {
    /// Pace of connectivity checks (`Ta`), RFC 8445 §14.2: never below 5 ms.
    pub pace: Duration,
    /// First retransmission of a check; 100 ms halves the set-up time at 5 % loss against the RFC's 500 ms.
    pub check_rto: Duration,
    /// Slowest repetition of a check, and the consent interval of a working pair (RFC 7675 §5.1: about 5 s).
    pub check_max: Duration,
    /// Checks without an answer before a pair is given up.
    pub checks: usize,
    /// Least interval of DTLS retransmission; at least twice the round trip is used.
    pub dtls_interval: Duration,
    /// From `set_remote` until `Connected`; then `Failed`.
    pub connect: Duration,
}

impl Default for LegTimers {
    fn default() -> Self {
        Self {
            pace: Duration::from_millis(5),
            check_rto: Duration::from_millis(100),
            check_max: Duration::from_secs(3),
            checks: 9,
            dtls_interval: Duration::from_millis(150),
            connect: Duration::from_secs(30),
        }
    }
}

/// Why a remote candidate was not taken. None of these ends anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CandidateFault {
    /// The leg has as many as it takes.
    #[error("more than {0} candidates")]
    TooMany(usize),
    /// The address may not be sent to.
    #[error("the candidate has {0}")]
    Address(#[from] AddressFault),
    /// It is the address of a STUN or TURN server of ours.
    #[error("the candidate is one of our servers")]
    OurServer,
    /// The leg has no ICE.
    #[error("the leg does not use ICE")]
    NoIce,
}

/// What happened on a leg.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LegEvent {
    /// Signal it to the peer (trickle).
    LocalCandidate(Candidate),
    /// No more local candidates come, RFC 8838 §13.
    GatheringComplete,
    /// Resolve this `.local` name by mDNS and give the result to `Leg::resolved`.
    Resolve(String),
    /// ICE has nominated a path.
    IceConnected {
        /// Where payload goes.
        path: Path,
    },
    /// Payload flows from now on, once.
    Connected {
        /// Kind of our end.
        local: CandidateKind,
        /// Kind of the peer's end.
        remote: CandidateKind,
        /// Where payload goes.
        path: Path,
        /// SRTP suite; `None`: plain RTP.
        profile: Option<&'static str>,
        /// The peer's fingerprint that matched.
        fingerprint: Option<Fingerprint>,
    },
    /// Payload moved to another path.
    PathChanged {
        /// Kind of our end.
        local: CandidateKind,
        /// Kind of the peer's end.
        remote: CandidateKind,
        /// Where payload goes now.
        path: Path,
    },
    /// ICE gets no more answers: time for an ICE restart; sending goes on until consent ends.
    PathLost,
    /// The peer said goodbye on the media path (RTCP BYE or DTLS close_notify).
    Closed,
    /// The leg is dead.
    Failed(LegFault),
}

/// Why a leg is dead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LegFault {
    /// No pair of candidates works.
    #[error("no network path to the peer")]
    NoPath,
    /// The peer's certificate is not the one that was signalled (XEP-0320 §3, RFC 5763 §5).
    #[error("the peer's certificate does not match its fingerprint")]
    FingerprintMismatch,
    /// The handshake failed.
    #[error("DTLS: {0}")]
    Dtls(#[from] DtlsFault),
    /// No answer to our checks for 30 s, RFC 7675 §5.1.
    #[error("the peer stopped answering")]
    ConsentLost,
    /// A path is there but nothing came to an end in time.
    #[error("the handshake took too long")]
    Timeout,
}

/// Why `handle_timeout` is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LegTimer {
    /// STUN or TURN servers.
    Gather,
    /// Connectivity checks.
    Check,
    /// A DTLS flight is due again.
    Dtls,
    /// An RTCP report is due.
    Rtcp,
    /// Consent ends.
    Consent,
    /// Set-up has taken long enough.
    Connect,
}

/// An RTP packet, decrypted in place.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'b> {
    /// Its header.
    pub header: RtpHeader,
    /// Its payload without padding and header extension.
    pub payload: &'b [u8],
}

/// Figures of a leg.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LegStats {
    /// Where payload goes: kinds of both ends.
    pub kinds: Option<(CandidateKind, CandidateKind)>,
    /// Where payload goes.
    pub path: Option<Path>,
    /// Round trip of the newest connectivity check.
    pub rtt: Option<Duration>,
    /// RTP packets sent.
    pub sent_packets: u64,
    /// RTP payload sent, bytes.
    pub sent_bytes: u64,
    /// RTP packets received that passed authentication and the replay check.
    pub received_packets: u64,
    /// RTP payload received, bytes.
    pub received_bytes: u64,
    /// Datagrams dropped: unknown source, unknown kind, forged or replayed.
    pub dropped_datagrams: u64,
}

/// One media path to one peer. Sans-IO: give it datagrams and time, then drain transmits and events until `None`.
#[derive(Debug)]
pub struct Leg {
    config: LegConfig,
}

impl Leg {
    /// A leg that sends nothing before `handle_sockets`. `wall` is the wall-clock time at `now`, for RTCP.
    #[must_use]
    pub fn new(_now: Instant, _wall: SystemTime, _seed: [u8; 32], config: LegConfig) -> Self {
        Self { config }
    }

    /// Our ICE credentials, to be signalled.
    #[must_use]
    pub fn local_credentials(&self) -> IceCreds {
        IceCreds { ufrag: String::new(), pwd: String::new() }
    }

    /// Our certificate's sha-256 and the `setup` to signal with it; `None` without DTLS.
    #[must_use]
    pub fn local_fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    /// The `setup` to signal: actpass in an offer, then the role that was settled.
    #[must_use]
    pub fn setup(&self) -> Setup {
        Setup::Actpass
    }

    /// Our RTP source.
    #[must_use]
    pub fn ssrc(&self) -> Ssrc {
        Ssrc(0)
    }

    /// What the peer signalled; may be called again as more becomes known. Settles the DTLS role from the `setup` of
    /// the fingerprints (missing reads as actpass).
    pub fn set_remote(&mut self, _now: Instant, _creds: Option<IceCreds>, _fingerprints: &[Fingerprint]) {}

    /// Where a plain leg sends to, and the only address it listens to.
    ///
    /// # Errors
    /// The address may not be sent to.
    pub fn set_plain_remote(&mut self, _now: Instant, _remote: SocketAddr) -> Result<(), CandidateFault> {
        Ok(())
    }

    /// The sockets that the shell has bound for this leg: gathering starts. May be called again after a network change.
    pub fn handle_sockets(&mut self, _now: Instant, _bound: &[SocketAddr]) {}

    /// A candidate of the peer. TCP ones and those of component 2 are accepted and left unused.
    ///
    /// # Errors
    /// It is not taken; the call goes on.
    pub fn add_remote_candidate(&mut self, _now: Instant, _candidate: &Candidate) -> Result<(), CandidateFault> {
        Ok(())
    }

    /// The peer has no more candidates, so that a dead set is known at once (RFC 8838 §14).
    pub fn end_of_remote_candidates(&mut self, _now: Instant) {}

    /// Answer to `LegEvent::Resolve`; no address means that the name does not resolve.
    pub fn resolved(&mut self, _now: Instant, _name: &str, _addrs: &[std::net::IpAddr]) {}

    /// A datagram from the network: anything at all is safe. `local` is the bound address it came to. RTP comes back
    /// decrypted, in place; STUN, DTLS and RTCP are handled inside.
    pub fn handle_datagram<'b>(
        &mut self,
        _now: Instant,
        _local: SocketAddr,
        _source: SocketAddr,
        _datagram: &'b mut [u8],
    ) -> Option<Received<'b>> {
        let _ = Routed::Consumed;
        None
    }

    /// Puts one RTP packet into `out` (cleared first) and says where it goes. `None`: not connected, or the datagram
    /// stands in `poll_transmit`.
    pub fn send_rtp(
        &mut self,
        _now: Instant,
        _payload_type: u8,
        _marker: bool,
        _time: MediaTime,
        _payload: &[u8],
        _out: &mut Vec<u8>,
    ) -> Option<Route> {
        None
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        None
    }

    /// When `handle_timeout` is wanted, and what for.
    pub fn poll_timeout(&mut self) -> Option<(Instant, LegTimer)> {
        None
    }

    /// New ICE credentials for a restart; payload keeps flowing on the old path meanwhile (RFC 8445 §9). Signal them
    /// with all local candidates, then call `set_remote` with the peer's new ones.
    pub fn ice_restart(&mut self, _now: Instant) -> IceCreds {
        self.local_credentials()
    }

    /// Ends the leg: RTCP BYE, DTLS close_notify, relays given back. Drain `poll_transmit` once more.
    pub fn close(&mut self, _now: Instant) {
        let _ = &self.config;
    }

    /// Figures so far.
    #[must_use]
    pub fn stats(&self) -> LegStats {
        LegStats::default()
    }
}

//! One leg: a path found by ICE (or a plain one), protection by DTLS-SRTP (or SDES, or none), then RTP and RTCP.
//! Read RFC 8445, RFC 5763 §5, RFC 7983 §7 and XEP-0320 §3 before touching this file.

use crate::transport::dtls::{Dtls, DtlsFault, DtlsProgress, DtlsRole, Identity};
use crate::transport::gather::{GatherEvent, GatherPolicy, Gatherer, IceServer, Routed};
use crate::transport::ice::{Ice, IceEvent, IceTimers};
use crate::transport::path::{AddressFault, Path, Route, Transmit, check_remote};
use crate::transport::rtcp::{RtcpEvent, RtcpSession, RtcpStats};
use crate::transport::srtp::{SrtpProfile, SrtpReceiver, SrtpSender, split_dtls_keying_material};
use crate::transport::stun::ServerFault;
use crate::wire::candidate::{
    Candidate, CandidateAddr, CandidateKind, CandidateProtocol, Fingerprint, IceCreds, Setup,
};
use crate::wire::rtp::{MediaTime, RtpHeader, SeqNo, Ssrc};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
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
    /// RTP clock of what we send, in Hz: for sender reports (`Leg::set_clock_rates` when it changes).
    pub clock_rate_hz: u32,
    /// RTCP CNAME of the session's first content; `None`: a fresh random one (RFC 7022).
    pub cname: Option<String>,
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
            clock_rate_hz: 48_000,
            cname: None,
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
    /// The suite.
    pub profile: SrtpProfile,
    /// Master key and salt that we send with.
    pub local: (Vec<u8>, Vec<u8>),
    /// Master key and salt that the peer sends with.
    pub remote: (Vec<u8>, Vec<u8>),
}

impl std::fmt::Debug for SdesKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SdesKeys").field("profile", &self.profile).finish_non_exhaustive()
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
    /// A STUN or TURN server is of no use; the call goes on without it.
    ServerFailed {
        /// Its address.
        server: SocketAddr,
        /// Why.
        why: ServerFault,
    },
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
        profile: Option<SrtpProfile>,
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
    /// ICE gets answers again after `PathLost`.
    PathRestored,
    /// The peer restarted ICE and so did we: signal these credentials and all local candidates again.
    Restarted(IceCreds),
    /// This source of the peer said goodbye (RTCP BYE). The leg goes on: some peers say it when they hold.
    Bye(Ssrc),
    /// The peer ended DTLS with an authenticated close_notify.
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
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LegStats {
    /// What RTCP knows: loss, jitter, round trip, packets and bytes of both directions.
    pub rtcp: RtcpStats,
    /// Where payload goes: kinds of both ends.
    pub kinds: Option<(CandidateKind, CandidateKind)>,
    /// Where payload goes.
    pub path: Option<Path>,
    /// Round trip of the newest connectivity check.
    pub rtt: Option<Duration>,
    /// Datagrams dropped: unknown source, unknown kind, forged or replayed.
    pub dropped_datagrams: u64,
}

/// Patience for a hello when the answer did not settle the DTLS roles; then we become the client.
const UNSETTLED_ROLE: Duration = Duration::from_millis(500);

/// Time that a peer whose candidates all fail still has to reach us from an address that was not signalled.
const LAST_CHANCE: Duration = Duration::from_secs(10);

/// Where the leg stands.
///
/// ```text
///                set_remote             path and keys               close
///   Idle ──────────────────▶ Connecting ─────────────▶ Connected ─────────▶ Ended
///                                │ fault                   │ consent lost     ▲
///                                └─────────────────────────┴──────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Connecting { since: Instant },
    Connected,
    Ended,
}

/// Where protection stands.
///
/// ```text
///   Unsettled ──role──▶ Handshake ──Finished, fingerprint fits──▶ Secured
///   (SDES starts Secured, plain RTP is Clear)
/// ```
#[derive(Debug)]
enum Security {
    /// DTLS, role unknown.
    Unsettled,
    Handshake(Box<Dtls>),
    /// `dtls` stays: whoever sent the last flight may have to repeat it, and close_notify needs it.
    Secured {
        dtls: Option<Box<Dtls>>,
        srtp: Box<Srtp>,
    },
    Clear,
}

#[derive(Debug)]
struct Srtp {
    sender: SrtpSender,
    receiver: SrtpReceiver,
}

impl Srtp {
    fn from_sdes(keys: &SdesKeys) -> Option<Self> {
        let sender = SrtpSender::new(keys.profile, &keys.local.0, &keys.local.1).ok()?;
        let receiver = SrtpReceiver::new(keys.profile, &keys.remote.0, &keys.remote.1).ok()?;
        Some(Self { sender, receiver })
    }
}

/// How the path is found, with its state.
#[derive(Debug)]
enum Way {
    Ice { ice: Box<Ice>, gatherer: Box<Gatherer> },
    Plain { remote: Option<SocketAddr> },
}

/// One media path to one peer. Sans-IO: give it datagrams and time, then drain transmits and events until `None`.
#[derive(Debug)]
pub struct Leg {
    config: LegConfig,
    rng: ChaCha20Rng,
    phase: Phase,
    way: Way,
    security: Security,
    sockets: Vec<SocketAddr>,
    fingerprints: Vec<Fingerprint>,
    /// What of the peer's handshake came from where; its answers go there until a path is nominated.
    dtls_path: Option<Path>,
    /// When an unsettled role makes us the client.
    role_due: Option<Instant>,
    unresolved: Vec<(String, Candidate)>,
    no_more_remote: bool,
    rtcp: RtcpSession,
    /// RTP clock of received payload types.
    clocks: Vec<(u8, u32)>,
    next_seq: u16,
    dropped: u64,
    scratch: Vec<u8>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<LegEvent>,
}

impl Leg {
    /// A leg that sends nothing before `handle_sockets`. `wall` is the wall-clock time at `now`, for RTCP.
    #[must_use]
    pub fn new(now: Instant, wall: SystemTime, seed: [u8; 32], config: LegConfig) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut fork = [0; 32];
        rng.fill_bytes(&mut fork);
        let ssrc = Ssrc(rng.next_u32());
        let mut rtcp = RtcpSession::new(now, wall, fork, ssrc, config.clock_rate_hz);
        if let Some(cname) = &config.cname {
            rtcp.set_cname(cname.clone());
        }
        let way = match &config.carrier {
            Carrier::Ice { servers, relay_only, lab } => {
                let timers = IceTimers {
                    pace: config.timers.pace,
                    check_rto: config.timers.check_rto,
                    check_max: config.timers.check_max,
                    checks: config.timers.checks,
                };
                let ice = Box::new(Ice::new(config.initiator, timers, &mut rng));
                rng.fill_bytes(&mut fork);
                let policy = GatherPolicy { relay_only: *relay_only, lab: *lab, ..GatherPolicy::default() };
                Way::Ice { ice, gatherer: Box::new(Gatherer::new(fork, servers.clone(), policy)) }
            }
            Carrier::Plain => Way::Plain { remote: None },
        };
        let security = match &config.protection {
            Protection::Dtls(_) => Security::Unsettled,
            Protection::None => Security::Clear,
            // Keys that do not fit their suite leave the leg unsettled: it never connects.
            Protection::Sdes(keys) => Srtp::from_sdes(keys)
                .map_or(Security::Unsettled, |srtp| Security::Secured { dtls: None, srtp: Box::new(srtp) }),
        };
        Self {
            phase: Phase::Idle,
            way,
            security,
            sockets: Vec::new(),
            fingerprints: Vec::new(),
            dtls_path: None,
            role_due: None,
            unresolved: Vec::new(),
            no_more_remote: false,
            rtcp,
            clocks: Vec::new(),
            // RFC 3711 §3.3.1: below 2^15, so that an early rollover cannot be missed.
            next_seq: (rng.next_u32() >> 17) as u16,
            dropped: 0,
            scratch: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            rng,
            config,
        }
    }

    /// Our ICE credentials, to be signalled; empty without ICE.
    #[must_use]
    pub fn local_credentials(&self) -> IceCreds {
        match &self.way {
            Way::Ice { ice, .. } => ice.local_creds(),
            Way::Plain { .. } => IceCreds { ufrag: String::new(), pwd: String::new() },
        }
    }

    /// Our certificate's sha-256 and the `setup` to signal with it; `None` without DTLS.
    #[must_use]
    pub fn local_fingerprint(&self) -> Option<Fingerprint> {
        match &self.config.protection {
            Protection::Dtls(identity) => Some(identity.fingerprint(self.setup())),
            Protection::Sdes(_) | Protection::None => None,
        }
    }

    /// The `setup` to signal: actpass in an offer, then the role that was settled. A responder asks after `set_remote`.
    #[must_use]
    pub fn setup(&self) -> Setup {
        match self.dtls() {
            Some(dtls) => dtls.role().setup(),
            // RFC 5763 §5: the offer must be actpass, the answer must not be.
            None if self.config.initiator => Setup::Actpass,
            None if self.config.answer_active => Setup::Active,
            None => Setup::Passive,
        }
    }

    /// Our RTP source.
    #[must_use]
    pub fn ssrc(&self) -> Ssrc {
        self.rtcp.ssrc()
    }

    /// Our RTCP canonical name, for the other contents of the session.
    #[must_use]
    pub fn cname(&self) -> &str {
        self.rtcp.cname()
    }

    /// RTP clocks in Hz: of what we send, and of each payload type that may come (for jitter).
    pub fn set_clock_rates(&mut self, sending_hz: u32, receiving: &[(u8, u32)]) {
        self.rtcp.set_clock_rate_hz(sending_hz);
        self.clocks.clear();
        self.clocks.extend_from_slice(receiving);
    }

    /// What the peer signalled; may be called again as more becomes known. Settles the DTLS role from the `setup` of
    /// the fingerprints (missing reads as actpass).
    pub fn set_remote(&mut self, now: Instant, creds: Option<IceCreds>, fingerprints: &[Fingerprint]) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Connecting { since: now };
        }
        if let (Some(creds), Way::Ice { ice, .. }) = (creds, &mut self.way) {
            match ice.remote_creds() {
                Some(known) if known == creds => {}
                // RFC 8445 §9: new credentials on one side restart both.
                Some(_) => {
                    let ours = ice.restart(now, &mut self.rng);
                    ice.set_remote_creds(now, &creds);
                    self.no_more_remote = false;
                    self.events.push_back(LegEvent::Restarted(ours));
                }
                None => ice.set_remote_creds(now, &creds),
            }
        }
        if !fingerprints.is_empty() {
            // XEP-0320 §3: a certificate does not change within a session.
            if self.fingerprints.is_empty() {
                self.fingerprints = fingerprints.to_vec();
            }
            self.settle_role(now);
        }
        self.drive(now);
    }

    /// Where a plain leg sends to, and the only address it listens to.
    ///
    /// # Errors
    /// The address may not be sent to.
    pub fn set_plain_remote(&mut self, now: Instant, addr: SocketAddr) -> Result<(), CandidateFault> {
        let lab = self.is_lab();
        check_remote(addr, lab, false)?;
        if let Way::Plain { remote } = &mut self.way {
            *remote = Some(addr);
        }
        if self.phase == Phase::Idle {
            self.phase = Phase::Connecting { since: now };
        }
        self.drive(now);
        Ok(())
    }

    /// The sockets that the shell has bound for this leg: gathering starts. May be called again after a network change.
    pub fn handle_sockets(&mut self, now: Instant, bound: &[SocketAddr]) {
        for addr in bound {
            if !self.sockets.contains(addr) {
                self.sockets.push(*addr);
            }
        }
        if let Way::Ice { ice, gatherer } = &mut self.way {
            gatherer.handle_sockets(now, bound);
            ice.handle_timeout(now);
        }
        self.drive(now);
    }

    /// A candidate of the peer. TCP ones and those of component 2 are accepted and left unused.
    ///
    /// # Errors
    /// It is not taken; the call goes on.
    pub fn add_remote_candidate(&mut self, now: Instant, candidate: &Candidate) -> Result<(), CandidateFault> {
        if candidate.component != 1 || candidate.protocol != CandidateProtocol::Udp {
            return Ok(());
        }
        let limit = self.config.max_remote_candidates;
        let lab = self.is_lab();
        let link_local = self.sockets.iter().any(|s| matches!(s.ip(), IpAddr::V4(ip) if ip.is_link_local()));
        let Way::Ice { ice, .. } = &mut self.way else { return Err(CandidateFault::NoIce) };
        let full = ice.remote_count() + self.unresolved.len() >= limit;
        match &candidate.addr {
            CandidateAddr::Ip(ip) => {
                let addr = SocketAddr::new(*ip, candidate.port);
                if ice.is_signalled(addr, candidate.kind) {
                    return Ok(());
                }
                if full {
                    return Err(CandidateFault::TooMany(limit));
                }
                check_remote(addr, lab, link_local)?;
                if let Carrier::Ice { servers, .. } = &self.config.carrier
                    && servers.iter().any(|server| server.addr == addr)
                {
                    return Err(CandidateFault::OurServer);
                }
                ice.add_remote(now, candidate, addr);
            }
            CandidateAddr::Mdns(name) => {
                if full {
                    return Err(CandidateFault::TooMany(limit));
                }
                if !self.unresolved.iter().any(|(known, _)| known == name) {
                    self.events.push_back(LegEvent::Resolve(name.clone()));
                }
                self.unresolved.push((name.clone(), candidate.clone()));
            }
        }
        self.drive(now);
        Ok(())
    }

    /// The peer has no more candidates, so that a dead set is known early (RFC 8838 §14).
    pub fn end_of_remote_candidates(&mut self, now: Instant) {
        self.no_more_remote = true;
        self.drive(now);
    }

    /// Answer to `LegEvent::Resolve`; no address means that the name does not resolve.
    pub fn resolved(&mut self, now: Instant, name: &str, addrs: &[IpAddr]) {
        let (found, rest) = std::mem::take(&mut self.unresolved).into_iter().partition(|(known, _)| known == name);
        self.unresolved = rest;
        let found: Vec<(String, Candidate)> = found;
        for (_, candidate) in found {
            // A name may have one address of each family; the limit of candidates holds here too.
            for addr in addrs.iter().take(2) {
                let literal = Candidate { addr: CandidateAddr::Ip(*addr), ..candidate.clone() };
                if let Err(fault) = self.add_remote_candidate(now, &literal) {
                    tracing::debug!(%fault, "resolved candidate refused");
                }
            }
        }
    }

    /// A datagram from the network: anything at all is safe. `local` is the bound address it came to. RTP comes back
    /// decrypted, in place; STUN, DTLS and RTCP are handled inside.
    pub fn handle_datagram<'b>(
        &mut self,
        now: Instant,
        local: SocketAddr,
        source: SocketAddr,
        datagram: &'b mut [u8],
    ) -> Option<Received<'b>> {
        let mut path = Path { local, remote: source };
        let mut inner: Range<usize> = 0..datagram.len();
        if let Way::Ice { gatherer, .. } = &mut self.way {
            match gatherer.handle_datagram(now, local, source, datagram) {
                Routed::Consumed => {
                    self.drive(now);
                    return None;
                }
                Routed::Relayed { local, source, payload } => {
                    path = Path { local, remote: source };
                    inner = payload;
                }
                Routed::NotOurs => {}
            }
        }
        let bytes = datagram.get_mut(inner)?;
        // RFC 7983 §7. What is left of the call when a datagram is bad is a counter.
        match bytes.first() {
            _ if self.phase == Phase::Ended => self.dropped += 1,
            Some(0..=3) => self.handle_stun(now, path, bytes),
            Some(20..=63) if self.is_known(path) => self.handle_dtls(now, path, bytes),
            // RFC 5761 §4: RTCP packet types look like payload types 64 to 95 with the marker.
            Some(128..=191) if self.is_known(path) => match bytes.get(1) {
                Some(192..=223) => self.handle_rtcp(now, bytes),
                Some(_) => return self.handle_rtp(now, bytes),
                None => self.dropped += 1,
            },
            Some(_) | None => self.dropped += 1,
        }
        None
    }

    /// Puts one RTP packet into `out` (cleared first) and says where it goes. `None`: not connected, or the datagram
    /// stands in `poll_transmit`.
    pub fn send_rtp(
        &mut self,
        now: Instant,
        payload_type: u8,
        marker: bool,
        time: MediaTime,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Route> {
        out.clear();
        if self.phase != Phase::Connected {
            return None;
        }
        let path = self.path()?;
        let header = RtpHeader { marker, payload_type, seq: SeqNo(self.next_seq), time, ssrc: self.rtcp.ssrc() };
        let direct = self.sockets.contains(&path.local);
        let packet = if direct { &mut *out } else { &mut self.scratch };
        packet.clear();
        header.write(packet);
        packet.extend_from_slice(payload);
        match &mut self.security {
            Security::Secured { srtp, .. } => srtp.sender.protect_rtp(packet).ok()?,
            Security::Clear => {}
            Security::Unsettled | Security::Handshake(_) => return None,
        }
        self.next_seq = self.next_seq.wrapping_add(1);
        self.rtcp.sent_rtp(now, &header, payload.len());
        if direct {
            return Some(Route { local: path.local, destination: path.remote });
        }
        let Way::Ice { gatherer, .. } = &mut self.way else { return None };
        let (local, destination) = gatherer.route(now, path.local, path.remote, &self.scratch, out)?;
        Some(Route { local, destination })
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Way::Ice { ice, gatherer } = &mut self.way {
            gatherer.handle_timeout(now);
            if self.phase != Phase::Ended {
                ice.handle_timeout(now);
            }
        }
        if self.phase == Phase::Ended {
            return;
        }
        if let Security::Handshake(dtls) = &mut self.security
            && let Err(fault) = dtls.handle_timeout(now)
        {
            self.fail(now, LegFault::Dtls(fault));
            return;
        }
        if self.role_due.is_some_and(|due| now >= due) {
            self.role_due = None;
            self.become_role(now, DtlsRole::Client);
        }
        if self.phase == Phase::Connected {
            self.rtcp.handle_timeout(now);
            self.drain_rtcp(now);
        }
        self.check_deadlines(now);
        self.drive(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let own = self.transmits.pop_front();
        match &mut self.way {
            Way::Ice { gatherer, .. } => own.or_else(|| gatherer.poll_transmit()),
            Way::Plain { .. } => own,
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is wanted, and what for.
    pub fn poll_timeout(&mut self) -> Option<(Instant, LegTimer)> {
        let mut due: Option<(Instant, LegTimer)> = None;
        let mut offer = |at: Option<Instant>, timer: LegTimer| {
            if let Some(at) = at
                && due.is_none_or(|(earliest, _)| at < earliest)
            {
                due = Some((at, timer));
            }
        };
        if let Way::Ice { ice, gatherer } = &mut self.way {
            offer(gatherer.poll_timeout().map(|(at, _)| at), LegTimer::Gather);
            if self.phase != Phase::Ended {
                offer(ice.poll_timeout(), LegTimer::Check);
                offer(ice.consent_expires(), LegTimer::Consent);
            }
        }
        if let Security::Handshake(dtls) = &self.security {
            offer(dtls.poll_timeout(), LegTimer::Dtls);
        }
        offer(self.role_due, LegTimer::Dtls);
        match self.phase {
            Phase::Connecting { since } => offer(Some(since + self.config.timers.connect), LegTimer::Connect),
            Phase::Connected => offer(self.rtcp.poll_timeout(), LegTimer::Rtcp),
            Phase::Idle | Phase::Ended => {}
        }
        due
    }

    /// New ICE credentials for a restart; payload keeps flowing on the old path meanwhile (RFC 8445 §9). Signal them
    /// with all local candidates, then call `set_remote` with the peer's new ones.
    pub fn ice_restart(&mut self, now: Instant) -> IceCreds {
        self.no_more_remote = false;
        match &mut self.way {
            Way::Ice { ice, .. } => ice.restart(now, &mut self.rng),
            Way::Plain { .. } => self.local_credentials(),
        }
    }

    /// Ends the leg: RTCP BYE, DTLS close_notify, relays given back. Drain `poll_transmit` once more.
    pub fn close(&mut self, now: Instant) {
        if self.phase == Phase::Connected {
            self.rtcp.bye(now);
            self.drain_rtcp(now);
        }
        self.end(now);
    }

    /// Figures at `now`.
    #[must_use]
    pub fn stats(&self, now: Instant) -> LegStats {
        let path = self.path();
        let (kinds, rtt) = match &self.way {
            Way::Ice { ice, .. } => (path.map(|path| ice.kinds(path)), ice.rtt()),
            Way::Plain { .. } => (path.map(|_| (CandidateKind::Host, CandidateKind::Host)), None),
        };
        LegStats { rtcp: self.rtcp.stats(now), kinds, path, rtt, dropped_datagrams: self.dropped }
    }

    fn is_lab(&self) -> bool {
        match &self.config.carrier {
            Carrier::Ice { lab, .. } => *lab,
            // Signalling of a plain leg comes from a configured PBX, which may well be on this machine.
            Carrier::Plain => true,
        }
    }

    fn dtls(&self) -> Option<&Dtls> {
        match &self.security {
            Security::Handshake(dtls) => Some(dtls),
            Security::Secured { dtls, .. } => dtls.as_deref(),
            Security::Unsettled | Security::Clear => None,
        }
    }

    fn path(&self) -> Option<Path> {
        match &self.way {
            Way::Ice { ice, .. } => ice.path(),
            Way::Plain { remote } => Some(Path { local: *self.sockets.first()?, remote: (*remote)? }),
        }
    }

    fn valid_path(&self) -> Option<Path> {
        match &self.way {
            Way::Ice { ice, .. } => ice.valid_path(),
            Way::Plain { .. } => self.path(),
        }
    }

    /// The gate: payload and handshakes count only from where the peer has proved to be.
    fn is_known(&self, path: Path) -> bool {
        match &self.way {
            Way::Ice { ice, .. } => ice.is_proven(path),
            Way::Plain { remote } => *remote == Some(path.remote),
        }
    }

    fn handle_stun(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        let authentic = match &mut self.way {
            Way::Ice { ice, .. } => ice.handle_stun(now, path, bytes),
            Way::Plain { .. } => false,
        };
        if authentic {
            self.drive(now);
        } else {
            self.dropped += 1;
        }
    }

    fn handle_dtls(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        // RFC 5763 §5: an offerer must be ready for a hello before it has the answer. Who sends one is the client.
        let is_hello = bytes.first() == Some(&22) && bytes.get(13) == Some(&1);
        if matches!(self.security, Security::Unsettled) && is_hello {
            self.become_role(now, DtlsRole::Server);
        }
        let dtls = match &mut self.security {
            Security::Handshake(dtls) => dtls,
            Security::Secured { dtls: Some(dtls), .. } => dtls,
            Security::Secured { dtls: None, .. } | Security::Unsettled | Security::Clear => {
                self.dropped += 1;
                return;
            }
        };
        let progress = dtls.handle_input(now, bytes);
        self.dtls_path = Some(path);
        match progress {
            DtlsProgress::None | DtlsProgress::Complete => {}
            DtlsProgress::Closed => self.events.push_back(LegEvent::Closed),
        }
        self.drive(now);
    }

    fn handle_rtcp(&mut self, now: Instant, bytes: &mut [u8]) {
        let length = match &mut self.security {
            Security::Secured { srtp, .. } => srtp.receiver.unprotect_rtcp(bytes).ok(),
            Security::Clear => Some(bytes.len()),
            Security::Unsettled | Security::Handshake(_) => None,
        };
        match length.and_then(|length| bytes.get(..length)) {
            Some(compound) if self.rtcp.handle_input(now, compound).is_ok() => self.drain_rtcp(now),
            Some(_) | None => self.dropped += 1,
        }
    }

    fn handle_rtp<'b>(&mut self, now: Instant, bytes: &'b mut [u8]) -> Option<Received<'b>> {
        let parsed = match &mut self.security {
            Security::Secured { srtp, .. } => srtp.receiver.unprotect_rtp(bytes).ok(),
            Security::Clear => RtpHeader::parse(bytes).ok(),
            Security::Unsettled | Security::Handshake(_) => None,
        };
        let Some((header, payload)) = parsed else {
            self.dropped += 1;
            return None;
        };
        let clock = self.clocks.iter().find(|(pt, _)| *pt == header.payload_type).map_or(0, |(_, hz)| *hz);
        self.rtcp.received_rtp(now, &header, payload.len(), clock);
        Some(Received { header, payload: bytes.get(payload)? })
    }

    /// The DTLS role follows from both `setup` values, RFC 5763 §5 and RFC 4145 §4.1.
    fn settle_role(&mut self, now: Instant) {
        if !matches!(self.security, Security::Unsettled) {
            return;
        }
        let theirs = self.fingerprints.iter().find_map(|f| f.setup).unwrap_or(Setup::Actpass);
        match theirs {
            Setup::Active => self.become_role(now, DtlsRole::Server),
            Setup::Passive => self.become_role(now, DtlsRole::Client),
            Setup::Actpass | Setup::Holdconn if !self.config.initiator => {
                let role = if self.config.answer_active { DtlsRole::Client } else { DtlsRole::Server };
                self.become_role(now, role);
            }
            // An answer must not be actpass; where it is, the first hello settles it, or we send one.
            Setup::Actpass | Setup::Holdconn => {
                if self.path().is_some() {
                    self.role_due = Some(now + UNSETTLED_ROLE);
                }
            }
        }
    }

    fn become_role(&mut self, now: Instant, role: DtlsRole) {
        let Protection::Dtls(identity) = &self.config.protection else { return };
        if matches!(self.security, Security::Unsettled) {
            self.role_due = None;
            self.security = Security::Handshake(Box::new(Dtls::new(identity, role, self.dtls_interval())));
            self.drive(now);
        }
    }

    fn dtls_interval(&self) -> Duration {
        let rtt = match &self.way {
            Way::Ice { ice, .. } => ice.rtt().unwrap_or_default(),
            Way::Plain { .. } => Duration::ZERO,
        };
        self.config.timers.dtls_interval.max(rtt * 2)
    }

    fn check_deadlines(&mut self, now: Instant) {
        if let Way::Ice { ice, gatherer: _ } = &self.way
            && ice.consent_expires().is_some_and(|at| now >= at)
        {
            // RFC 7675 §5.1: no more payload from here on.
            self.fail(now, LegFault::ConsentLost);
            return;
        }
        if let Phase::Connecting { since } = self.phase {
            let waited = now.saturating_duration_since(since);
            let path = self.path().is_some();
            let exhausted = match &self.way {
                Way::Ice { ice, .. } => self.no_more_remote && waited >= LAST_CHANCE && ice.is_exhausted(),
                Way::Plain { .. } => false,
            };
            if !path && (exhausted || waited >= self.config.timers.connect) {
                self.fail(now, LegFault::NoPath);
            } else if waited >= self.config.timers.connect {
                self.fail(now, LegFault::Timeout);
            }
        }
    }

    /// Carries what one part has for another until nothing is left.
    fn drive(&mut self, now: Instant) {
        if self.phase == Phase::Ended {
            return;
        }
        self.drain_gatherer();
        self.drain_ice(now);
        if self.valid_path().is_some()
            && let Security::Handshake(dtls) = &mut self.security
        {
            // A client speaks once a path works; `start` does nothing the second time.
            dtls.start(now);
        }
        self.drain_dtls(now);
        self.finish_handshake(now);
        self.report_connected();
    }

    fn drain_gatherer(&mut self) {
        let Way::Ice { ice, gatherer } = &mut self.way else { return };
        let relay_only = matches!(self.config.carrier, Carrier::Ice { relay_only: true, .. });
        while let Some(event) = gatherer.poll_event() {
            match &event {
                GatherEvent::Host { .. } | GatherEvent::ServerReflexive { .. } | GatherEvent::Relayed { .. } => {
                    if let Some(candidate) = ice.add_local(&event, relay_only, &mut self.rng) {
                        self.events.push_back(LegEvent::LocalCandidate(candidate));
                    }
                }
                GatherEvent::Complete => self.events.push_back(LegEvent::GatheringComplete),
                GatherEvent::ServerFailed { server, why } => {
                    self.events.push_back(LegEvent::ServerFailed { server: *server, why: why.clone() });
                }
                GatherEvent::RelayLost { addr, .. } => {
                    ice.remove_relay(*addr);
                    if ice.path().is_some_and(|path| path.local == *addr) {
                        self.events.push_back(LegEvent::PathLost);
                    }
                }
            }
        }
    }

    fn drain_ice(&mut self, now: Instant) {
        let Way::Ice { ice, gatherer } = &mut self.way else { return };
        let mut nominated = false;
        while let Some(event) = ice.poll_event(now) {
            match event {
                IceEvent::Nominated(path) if self.phase == Phase::Connected => {
                    let (local, remote) = ice.kinds(path);
                    self.events.push_back(LegEvent::PathChanged { local, remote, path });
                }
                IceEvent::Nominated(path) => {
                    nominated = true;
                    self.events.push_back(LegEvent::IceConnected { path });
                }
                IceEvent::Disconnected if ice.path().is_some() => self.events.push_back(LegEvent::PathLost),
                IceEvent::Reconnected if self.phase == Phase::Connected => {
                    self.events.push_back(LegEvent::PathRestored);
                }
                IceEvent::Disconnected | IceEvent::Reconnected => {}
            }
        }
        while let Some(transmit) = ice.poll_transmit() {
            if self.sockets.contains(&transmit.local) {
                self.transmits.push_back(transmit);
            } else if let Some((local, destination)) =
                gatherer.route(now, transmit.local, transmit.destination, &transmit.contents, &mut self.scratch)
            {
                self.transmits.push_back(Transmit { local, destination, contents: self.scratch.clone() });
            }
        }
        if nominated && !self.fingerprints.is_empty() {
            self.settle_role(now);
        }
    }

    fn drain_dtls(&mut self, now: Instant) {
        // Before nomination answers go back where the hello came from: waiting for the nomination would let the
        // client's retransmissions run out (4 % of set-ups at 20 % loss).
        let Some(path) = self.path().or(self.dtls_path).or_else(|| self.valid_path()) else { return };
        loop {
            let datagram = match &mut self.security {
                Security::Handshake(dtls) => dtls.poll_transmit(),
                Security::Secured { dtls: Some(dtls), .. } => dtls.poll_transmit(),
                Security::Secured { dtls: None, .. } | Security::Unsettled | Security::Clear => None,
            };
            let Some(datagram) = datagram else { return };
            self.send_on(now, path, &datagram);
        }
    }

    /// Queues a datagram on a path, through its relay if it has one.
    fn send_on(&mut self, now: Instant, path: Path, contents: &[u8]) {
        if self.sockets.contains(&path.local) {
            let transmit = Transmit { local: path.local, destination: path.remote, contents: contents.to_vec() };
            self.transmits.push_back(transmit);
        } else if let Way::Ice { gatherer, .. } = &mut self.way
            && let Some((local, destination)) =
                gatherer.route(now, path.local, path.remote, contents, &mut self.scratch)
        {
            self.transmits.push_back(Transmit { local, destination, contents: self.scratch.clone() });
        }
    }

    /// XEP-0320 §3, RFC 5763 §5: the certificate is compared before any key is used.
    fn finish_handshake(&mut self, now: Instant) {
        let Security::Handshake(dtls) = &mut self.security else { return };
        if !dtls.is_complete() || self.fingerprints.is_empty() {
            return;
        }
        let srtp = dtls.srtp_keys(&self.fingerprints).and_then(|keys| {
            let bad = |fault: crate::transport::srtp::SrtpFault| DtlsFault::Engine(fault.to_string());
            let client = dtls.role() == DtlsRole::Client;
            let (ours, theirs) =
                split_dtls_keying_material(keys.profile, keys.material.as_ref(), client).map_err(bad)?;
            let sender = SrtpSender::new(keys.profile, ours.key, ours.salt).map_err(bad)?;
            let receiver = SrtpReceiver::new(keys.profile, theirs.key, theirs.salt).map_err(bad)?;
            Ok((keys.fingerprint, Srtp { sender, receiver }))
        });
        match srtp {
            Ok((fingerprint, srtp)) => {
                self.fingerprints = vec![fingerprint];
                let Security::Handshake(dtls) = std::mem::replace(&mut self.security, Security::Clear) else { return };
                self.security = Security::Secured { dtls: Some(dtls), srtp: Box::new(srtp) };
            }
            Err(DtlsFault::FingerprintMismatch) => self.fail(now, LegFault::FingerprintMismatch),
            Err(fault) => self.fail(now, LegFault::Dtls(fault)),
        }
    }

    fn report_connected(&mut self) {
        let Phase::Connecting { .. } = self.phase else { return };
        let Some(path) = self.path() else { return };
        let profile = match &self.security {
            Security::Secured { srtp, .. } => Some(srtp.sender.profile()),
            Security::Clear => None,
            Security::Unsettled | Security::Handshake(_) => return,
        };
        let (local, remote) = match &self.way {
            Way::Ice { ice, .. } => ice.kinds(path),
            Way::Plain { .. } => (CandidateKind::Host, CandidateKind::Host),
        };
        self.phase = Phase::Connected;
        let fingerprint = self.fingerprints.first().filter(|_| self.dtls().is_some()).cloned();
        self.events.push_back(LegEvent::Connected { local, remote, path, profile, fingerprint });
    }

    fn drain_rtcp(&mut self, now: Instant) {
        while let Some(event) = self.rtcp.poll_event() {
            match event {
                RtcpEvent::Bye(ssrc) => self.events.push_back(LegEvent::Bye(ssrc)),
                RtcpEvent::Collision(_) => {
                    // RFC 3550 §8.2; sequence numbers go on, so that no key stream repeats under a known SSRC.
                    let ssrc = Ssrc(self.rng.next_u32());
                    self.rtcp.change_ssrc(now, ssrc);
                }
                RtcpEvent::Report | RtcpEvent::PictureLoss(_) => {}
            }
        }
        while let Some(mut compound) = self.rtcp.poll_transmit() {
            let protected = match &mut self.security {
                Security::Secured { srtp, .. } => srtp.sender.protect_rtcp(&mut compound).is_ok(),
                Security::Clear => true,
                Security::Unsettled | Security::Handshake(_) => false,
            };
            if let (true, Some(path)) = (protected, self.path()) {
                self.send_on(now, path, &compound);
            }
        }
    }

    fn fail(&mut self, now: Instant, fault: LegFault) {
        self.end(now);
        self.events.push_back(LegEvent::Failed(fault));
    }

    /// Says what is left to say and forgets the keys.
    fn end(&mut self, now: Instant) {
        if self.phase == Phase::Ended {
            return;
        }
        match &mut self.security {
            Security::Handshake(dtls) => dtls.close(now),
            Security::Secured { dtls: Some(dtls), .. } => dtls.close(now),
            Security::Secured { dtls: None, .. } | Security::Unsettled | Security::Clear => {}
        }
        self.drain_dtls(now);
        self.security = Security::Unsettled;
        self.role_due = None;
        if let Way::Ice { gatherer, .. } = &mut self.way {
            gatherer.close(now);
        }
        self.phase = Phase::Ended;
    }
}

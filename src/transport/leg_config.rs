//! What a leg is told and what it tells: configuration, events, faults, figures.
//! Read RFC 5763 §5, RFC 8445 §14 and RFC 7675 §5.1 before touching this file.

pub use crate::transport::data_channel::{ChannelFault, ChannelId, DataConfig};
use crate::transport::dtls::{DtlsFault, Identity};
use crate::transport::gather::IceServer;
use crate::transport::path::{AddressFault, Path};
use crate::transport::rtcp::RtcpStats;
use crate::transport::srtp::SrtpProfile;
use crate::transport::stun::ServerFault;
use crate::wire::candidate::{Candidate, CandidateKind, Fingerprint, IceCreds};
use crate::wire::rtp::{RtpHeader, Ssrc};
use compact_str::CompactString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
    /// Data channels on the leg's DTLS (XEP-0343, RFC 8831); `None`: audio only, at no cost.
    pub data: Option<DataConfig>,
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
            data: None,
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
    /// Straight to an address that signalling tells (`Leg::set_plain_remote`), and to where the peer is heard from.
    Plain {
        /// Loopback and link-local addresses are allowed: the signalling comes from this machine, or it is a test.
        lab: bool,
    },
}

/// How payload is protected.
#[derive(Debug, Clone)]
pub enum Protection {
    /// DTLS-SRTP with this certificate, RFC 5764.
    Dtls(Arc<Identity>),
    /// Keys from signalling, RFC 4568. `None`: they come with the answer (`Leg::set_sdes`).
    Sdes(Option<Box<SdesKeys>>),
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
    /// The leg finds its path by ICE.
    #[error("the leg uses ICE")]
    NotPlain,
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
    /// A data channel can be written to: the peer opened it, or the one that we asked for has its association.
    ChannelOpen {
        /// Its name for the leg's verbs.
        id: ChannelId,
        /// The content's name (J343-03).
        label: CompactString,
        /// The peer opened it.
        by_peer: bool,
    },
    /// Bytes wait in `Leg::read_channel`. Told again only after a read found nothing.
    ChannelReadable(ChannelId),
    /// `Leg::write_channel` takes bytes again, after it took fewer than were offered.
    ChannelWritable(ChannelId),
    /// Every byte that was written has been acknowledged by the peer, and nothing waits.
    ChannelDelivered(ChannelId),
    /// Nothing more comes or goes, told once: everything that the peer wrote has been read, and what we wrote before
    /// `Leg::close_channel` was delivered. `clean` is false if the association broke instead.
    ChannelClosed {
        /// Which.
        id: ChannelId,
        /// The stream was reset (RFC 6525); false: the association or the leg ended first.
        clean: bool,
    },
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
    /// Keys of signalling do not fit their suite (RFC 4568 §6.1).
    #[error("the keys in the signalling are of no use")]
    Keys,
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
    /// SCTP repeats or acknowledges.
    Data,
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

//! What goes into the engine and what comes out of it. Read XEP-0166 §6 and XEP-0167 §8 for the words used here.

use super::file_event::{FileEvent, FileId, FileInput, FileOutput};
use crate::fault::ReasonCondition;
use crate::media::codec::CodecName;
use crate::sip::flow::{SipInput, SipOutput};
use crate::transport::path::{Path, Transmit};
use crate::wire::address::Address;
use crate::wire::candidate::CandidateKind;
use crate::wire::jid::Jid;
use crate::wire::jingle::Sid;
use crate::xmpp::stream::TlsInfo;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// One call of this endpoint, from `call` or `Event::Incoming` until `Event::Ended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whose leg it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LegId {
    /// The leg of a call.
    Call(CallId),
    /// The leg that carries a file's data channel.
    File(FileId),
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// This side.
    Local,
    /// The other side.
    Remote,
}

impl Party {
    /// `local` or `remote`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Party::Local => "local",
            Party::Remote => "remote",
        }
    }
}

/// What the shell gives to the engine.
#[derive(Debug)]
pub enum Input<'a> {
    /// The signalling connection stands.
    Connected {
        /// Set with direct TLS.
        tls: Option<TlsInfo>,
        /// The other end is on this machine.
        loopback: bool,
    },
    /// TLS is up after [`Output::StartTls`].
    TlsStarted(TlsInfo),
    /// Bytes of the signalling connection.
    Bytes(&'a [u8]),
    /// The signalling connection is gone; why, for people.
    Closed(String),
    /// UDP sockets that were bound on [`Output::OpenSockets`].
    Sockets {
        /// For this leg.
        leg: LegId,
        /// Bound addresses; empty when none could be bound.
        bound: Vec<SocketAddr>,
    },
    /// A datagram, decrypted in place.
    Datagram {
        /// Bound address it came to.
        local: SocketAddr,
        /// Where it came from.
        source: SocketAddr,
        /// The whole of it.
        bytes: &'a mut [u8],
    },
    /// What became of files and their streams.
    File(FileInput),
    /// What became of SIP's sockets and questions.
    Sip(SipInput<'a>),
    /// Answer to [`Output::Resolve`]; empty when the name does not resolve.
    Resolved {
        /// As asked for.
        name: String,
        /// IPv4 and IPv6.
        addrs: Vec<IpAddr>,
    },
}

/// What the engine wants of the shell. Drain until [`Output::Timeout`].
#[derive(Debug)]
pub enum Output {
    /// Connect to the account's server (or serverless peer) now.
    Connect,
    /// Write to the signalling connection.
    Bytes(Vec<u8>),
    /// Negotiate TLS on it.
    StartTls,
    /// Close it.
    Close,
    /// Send a datagram.
    Transmit(Transmit),
    /// Bind UDP sockets for a leg.
    OpenSockets {
        /// For this leg.
        leg: LegId,
        /// Loopback addresses too.
        lab: bool,
        /// Which.
        plan: SocketPlan,
    },
    /// The leg's sockets are needed no more.
    CloseSockets(LegId),
    /// Something is to be done with a file or its streams.
    File(FileOutput),
    /// Something is to be done with SIP's sockets, or looked up for it.
    Sip(SipOutput),
    /// Look a name up: `.local` by mDNS, any other by DNS.
    Resolve(String),
    /// For the application.
    Event(Event),
    /// Nothing more until then, unless something comes in.
    Timeout(Option<Instant>),
}

/// Which sockets a leg wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketPlan {
    /// One on each address: every one becomes a candidate.
    EveryAddress,
    /// RTP on an even port of this address and RTCP on the next one (RFC 3550 §11), in this order; only the first where
    /// no such pair is free.
    Pair(IpAddr),
    /// As [`SocketPlan::Pair`], on the address from which packets leave for that one.
    Towards(IpAddr),
}

/// State of the signalling connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signalling {
    /// Signed in.
    Up,
    /// Lost; being brought back.
    Reconnecting,
    /// Gone for good.
    Down,
}

/// What a connected call runs on.
#[derive(Debug, Clone, PartialEq)]
pub struct Connected {
    /// From `call` or `accept` to the first encrypted path.
    pub setup: Duration,
    /// Kinds of both ends.
    pub kinds: (CandidateKind, CandidateKind),
    /// Addresses of both ends.
    pub path: Path,
    /// What we send with.
    pub codec: CodecName,
    /// `sha-256 AB:CD…` of the peer's DTLS certificate.
    pub dtls_fingerprint: Option<String>,
    /// SRTP suite.
    pub profile: Option<&'static str>,
}

/// Figures of a call at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct CallStats {
    /// Kinds and addresses of both ends, once there is a path.
    pub pair: Option<(CandidateKind, CandidateKind, Path)>,
    /// Round trip: of RTCP, or else of ICE.
    pub rtt: Option<Duration>,
    /// Share of packets lost on the way in during the last report interval, 0 to 1.
    pub loss_in: f64,
    /// Share of ours lost, as the peer says, 0 to 1.
    pub loss_out: f64,
    /// Interarrival jitter of what comes in.
    pub jitter_ms: f64,
    /// Delay of the jitter buffer.
    pub buffer_ms: f64,
    /// Mean opinion score of what is heard, 1 to 4.5 (G.107).
    pub mos: f64,
    /// Payload bits per second received.
    pub bitrate_in_bps: u32,
    /// Payload bits per second sent.
    pub bitrate_out_bps: u32,
    /// RTP packets received.
    pub packets_in: u64,
    /// RTP packets sent.
    pub packets_out: u64,
    /// RTP packets lost on the way in since the start.
    pub lost_in: u64,
    /// Milliseconds of sound that were made up because nothing came.
    pub concealed_ms: u64,
    /// Datagrams that were dropped: strangers, forgeries, replays.
    pub dropped_datagrams: u64,
    /// What we send with.
    pub codec: CodecName,
}

/// Why there is no more call, in the classes that people and exit codes tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// It was a call and one side hung up.
    Completed,
    /// The caller gave up before an answer.
    Cancelled,
    /// Rejected or busy.
    Rejected,
    /// Nobody answered in time.
    NoAnswer,
    /// The peer is offline, unknown, or cannot take such a call.
    Unavailable,
    /// No network path, or it died.
    MediaFailed,
    /// Certificate or fingerprint.
    Security,
    /// A limit or a policy, ours or the peer's.
    Limit,
    /// The signalling connection is gone.
    SignallingLost,
    /// The password, or the right to make such a call.
    Unauthorized,
    /// The disk, the name or the hash of a file.
    File,
    /// A fault of ours or of the peer's software.
    Failed,
}

/// End of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Class.
    pub kind: EndKind,
    /// XEP-0166 §7.4, if there was a session.
    pub reason: Option<ReasonCondition>,
    /// Who ended it.
    pub by: Party,
    /// From connected to the end; zero if it never was.
    pub duration: Duration,
    /// For people; text of the peer comes unescaped.
    pub text: Option<String>,
}

/// What the application hears of.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Signed in.
    Online {
        /// With the resource that the server gave; bare on a serverless stream.
        jid: Jid,
        /// True after XEP-0198 resumption.
        resumed: bool,
        /// SASL mechanism that proved the account; `None` on a serverless stream, which has none.
        mechanism: Option<&'static str>,
    },
    /// The registrar takes calls for us, for the first time (SIP); [`Event::Signalling`] tells when it is lost.
    Registered {
        /// Our address.
        address: Address,
    },
    /// TLS with the peer of a serverless stream is up.
    PeerCertificate {
        /// SHA-256 of its certificate.
        sha256: [u8; 32],
        /// It is the only one that is accepted. If not, anybody may have come, whatever address is claimed.
        pinned: bool,
    },
    /// The signalling connection changed; calls that are up go on meanwhile.
    Signalling(Signalling),
    /// The server could not be reached; another attempt follows.
    ConnectFailed(String),
    /// Signing in is refused; no further try is made.
    Refused(Refusal),
    /// Somebody calls. Nothing has been sent that tells an address or a presence.
    Incoming {
        /// The call.
        call: CallId,
        /// Session id.
        sid: Sid,
        /// Who calls, by their own word where it is a SIP address.
        from: Address,
        /// `audio`, …
        media: Vec<String>,
    },
    /// The other side is being alerted.
    Ringing(CallId),
    /// Sound may come before the other side takes the call: announcements, a ringing tone of its own (SIP).
    EarlyMedia(CallId),
    /// The other side (or this one) took the call.
    Accepted(CallId),
    /// Media flows.
    Connected {
        /// The call.
        call: CallId,
        /// On what.
        facts: Box<Connected>,
    },
    /// Media moved to another pair of addresses.
    PathChanged {
        /// The call.
        call: CallId,
        /// Kinds of both ends.
        kinds: (CandidateKind, CandidateKind),
        /// Addresses of both ends.
        path: Path,
    },
    /// The peer pressed a key.
    Digit {
        /// The call.
        call: CallId,
        /// `0`–`9`, `*`, `#`, `A`–`D`
        digit: char,
    },
    /// Hold began or ended.
    Hold {
        /// The call.
        call: CallId,
        /// Began.
        on: bool,
        /// By whom.
        by: Party,
    },
    /// Mute began or ended.
    Mute {
        /// The call.
        call: CallId,
        /// Began.
        on: bool,
        /// By whom.
        by: Party,
    },
    /// No packet for a while although the call is connected, or packets again.
    MediaSilent {
        /// The call.
        call: CallId,
        /// True: nothing arrives.
        silent: bool,
    },
    /// A transfer of the call went on (SIP).
    Transfer {
        /// The call.
        call: CallId,
        /// Who asked for it.
        by: Party,
        /// Where to.
        to: Address,
        /// How far it is.
        step: TransferStep,
        /// Our new call, where the other side sent us there: it takes the place of this one.
        next: Option<CallId>,
    },
    /// News of files.
    File(FileEvent),
    /// The call is over.
    Ended {
        /// The call.
        call: CallId,
        /// How.
        how: Box<Ended>,
    },
    /// A Jingle stanza or invitation came or went, in one line; only with `EndpointConfig::show_signalling`.
    Signalled {
        /// Whose it is.
        by: Party,
        /// Action or message, with what is most telling in it.
        what: String,
    },
    /// Presence of a contact changed.
    Presence {
        /// Whose.
        jid: Jid,
        /// Available at all.
        available: bool,
    },
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferStep {
    /// It is asked for.
    Asked,
    /// The other side is calling there.
    Trying,
    /// It has happened; the call ends.
    Done,
    /// It did not happen; the call goes on.
    Failed,
}

impl TransferStep {
    /// `asked`, `trying`, `done`, `failed`
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TransferStep::Asked => "asked",
            TransferStep::Trying => "trying",
            TransferStep::Done => "done",
            TransferStep::Failed => "failed",
        }
    }
}

/// Why signing in is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Wrong password or account.
    #[error("the server refuses the account: {0}")]
    Authentication(String),
    /// The connection is not as safe as it must be.
    #[error("{0}")]
    Security(String),
    /// The server is not one for this domain, or ends the stream for good.
    #[error("{0}")]
    Server(String),
}

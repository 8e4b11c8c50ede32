//! Session descriptions: text to values and back. Read RFC 8866 §5 and §6 and RFC 3264 before touching this file.
//!
//! CRLF and LF in, CRLF out. An unknown attribute is kept (RFC 8866 §5.13: ignored by who does not know it), an unknown
//! type letter refuses the whole (§5). Lines that no call needs (`i u e p r z k`) are read over and not kept.
//!
//! ```
//! use offhook::wire::sdp::{Direction, SessionDescription};
//! let text = "v=0\no=- 1 1 IN IP4 192.0.2.5\ns=-\nc=IN IP4 192.0.2.5\nt=0 0\nm=audio 49170 RTP/AVP 0 101\n\
//!             a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=sendonly\n";
//! let sdp = SessionDescription::parse(text.as_bytes()).unwrap();
//! let audio = &sdp.media[0];
//! assert_eq!((audio.port, audio.payload_types[0].name.as_str()), (49170, "PCMU"));
//! assert_eq!(sdp.direction_of(audio), Direction::SendOnly);
//! assert_eq!(SessionDescription::parse(&sdp.to_bytes()).unwrap(), sdp);
//! ```

mod parse;
mod write;

use super::candidate::{Candidate, Fingerprint, IceCreds, Setup};
use super::description::{Crypto, PayloadType, RtcpFb, Source, SourceGroup};
use super::sip::Host;
use super::xml::Text;
use crate::fault::names;
use std::net::IpAddr;

names! {
    /// Who sends, from the side that describes, RFC 8866 §6.7.
    pub enum Direction { SendRecv = "sendrecv", SendOnly = "sendonly", RecvOnly = "recvonly", Inactive = "inactive" }
}

impl Direction {
    /// From the other side.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::SendRecv => Self::SendRecv,
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::Inactive => Self::Inactive,
        }
    }

    /// The side that describes sends.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// The side that describes receives.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// Of two booleans.
    #[must_use]
    pub const fn of(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }
}

/// `o=`, RFC 8866 §5.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `-` where there is none.
    pub username: Text,
    /// The same through the whole session.
    pub session_id: Text,
    /// One more with each changed description (RFC 3264 §8).
    pub version: u64,
    /// Of who made it; nothing is sent there.
    pub host: Host,
}

/// One `a=` line that has no field of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Before the colon.
    pub name: Text,
    /// After it.
    pub value: Option<Text>,
}

/// `a=group`, RFC 5888.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `BUNDLE`, `LS`, …
    pub semantics: Text,
    /// Identification tags.
    pub mids: Vec<Text>,
}

/// ICE attributes, RFC 8839 §5.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Ice {
    /// `a=ice-ufrag`
    pub ufrag: Option<Text>,
    /// `a=ice-pwd`
    pub pwd: Option<Text>,
    /// `a=ice-options`: `trickle`, `ice2`, …
    pub options: Vec<Text>,
    /// Those that can be read.
    pub candidates: Vec<Candidate>,
    /// Candidates that cannot be used or understood, or stood past the cap. Never written.
    pub malformed_candidates: usize,
    /// `a=end-of-candidates`, RFC 8840 §8.2.
    pub end_of_candidates: bool,
}

impl std::fmt::Debug for Ice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ice").field("ufrag", &self.ufrag).field("candidates", &self.candidates).finish_non_exhaustive()
    }
}

/// What may stand for the whole session or for one stream; the stream's own comes first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Level {
    /// `c=`
    pub connection: Option<Host>,
    /// `b=`: `AS` in kbit/s, `TIAS` in bit/s, …
    pub bandwidth: Vec<(Text, u64)>,
    /// `a=sendrecv` and the like.
    pub direction: Option<Direction>,
    /// `a=fingerprint`, RFC 8122 §5; their `setup` is empty, it is an attribute of its own.
    pub fingerprints: Vec<Fingerprint>,
    /// `a=setup`, RFC 4145 §4.
    pub setup: Option<Setup>,
    /// RFC 8839.
    pub ice: Ice,
    /// `a=extmap-allow-mixed`, RFC 8285 §6.
    pub extmap_allow_mixed: bool,
    /// Every other attribute, in order.
    pub other: Vec<Attribute>,
}

impl Level {
    /// The value of an attribute that has no field of its own; `Some("")` for one without a value.
    #[must_use]
    pub fn other(&self, name: &str) -> Option<&str> {
        self.other.iter().find(|a| a.name == name).map(|a| a.value.as_deref().unwrap_or_default())
    }
}

/// How a stream is carried: the `proto` of `m=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proto {
    /// `RTP/AVP`
    Avp,
    /// `RTP/SAVP`: SDES
    Savp,
    /// `RTP/AVPF`
    Avpf,
    /// `RTP/SAVPF`: SDES
    Savpf,
    /// `UDP/TLS/RTP/SAVP`: DTLS-SRTP
    DtlsSavp,
    /// `UDP/TLS/RTP/SAVPF`: DTLS-SRTP
    DtlsSavpf,
    /// `UDP/DTLS/SCTP`: data channel, RFC 8841
    DtlsSctp,
    /// Any other.
    Other(Text),
}

impl Proto {
    /// By its name; compared without case.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let known = [Self::Avp, Self::Savp, Self::Avpf, Self::Savpf, Self::DtlsSavp, Self::DtlsSavpf, Self::DtlsSctp];
        known.into_iter().find(|p| p.as_str().eq_ignore_ascii_case(text)).unwrap_or_else(|| Self::Other(text.into()))
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Avp => "RTP/AVP",
            Self::Savp => "RTP/SAVP",
            Self::Avpf => "RTP/AVPF",
            Self::Savpf => "RTP/SAVPF",
            Self::DtlsSavp => "UDP/TLS/RTP/SAVP",
            Self::DtlsSavpf => "UDP/TLS/RTP/SAVPF",
            Self::DtlsSctp => "UDP/DTLS/SCTP",
            Self::Other(name) => name,
        }
    }

    /// Its formats are payload types.
    #[must_use]
    pub const fn is_rtp(&self) -> bool {
        match self {
            Self::Avp | Self::Savp | Self::Avpf | Self::Savpf | Self::DtlsSavp | Self::DtlsSavpf => true,
            Self::DtlsSctp | Self::Other(_) => false,
        }
    }

    /// Keys come by DTLS.
    #[must_use]
    pub const fn is_dtls(&self) -> bool {
        match self {
            Self::DtlsSavp | Self::DtlsSavpf | Self::DtlsSctp => true,
            Self::Avp | Self::Savp | Self::Avpf | Self::Savpf | Self::Other(_) => false,
        }
    }

    /// Keys stand in the description.
    #[must_use]
    pub const fn is_sdes(&self) -> bool {
        matches!(self, Self::Savp | Self::Savpf)
    }
}

/// RTCP of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rtcp {
    /// `a=rtcp`, RFC 3605: port, and address where it has one of its own.
    pub at: Option<(u16, Option<IpAddr>)>,
    /// `a=rtcp-mux`, RFC 5761
    pub mux: bool,
    /// `a=rtcp-rsize`, RFC 5506
    pub reduced_size: bool,
    /// `a=rtcp-fb:*`, RFC 4585 §4.2
    pub feedback: Vec<RtcpFb>,
    /// `a=rtcp-fb:* trr-int`, milliseconds
    pub trr_int_ms: Option<u32>,
}

/// `a=extmap`, RFC 8285 §5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtMap {
    /// 1 to 14, 1 to 255, or 4096 to 4351 while negotiating.
    pub id: u16,
    /// From the side that describes; both where `None`.
    pub direction: Option<Direction>,
    /// Which extension.
    pub uri: Text,
}

/// `a=sctp-port` and `a=max-message-size`, RFC 8841.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sctp {
    /// Port inside the association.
    pub port: Option<u16>,
    /// Bytes; 0: any.
    pub max_message_size: Option<u64>,
}

/// One stream: `m=` and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaDescription {
    /// `audio`, `video`, `application`, …
    pub media: Text,
    /// 0: refused, or ended (RFC 3264 §6, §8.2).
    pub port: u16,
    /// How it is carried.
    pub proto: Proto,
    /// In preference order, where `proto` is RTP. `ptime` and `maxptime`, which SDP has once for a stream, stand with each.
    pub payload_types: Vec<PayloadType>,
    /// Other formats: all, where it is not.
    pub formats: Vec<Text>,
    /// What may also stand for the session.
    pub level: Level,
    /// `a=mid`, RFC 5888
    pub mid: Option<Text>,
    /// `a=crypto`, RFC 4568
    pub cryptos: Vec<Crypto>,
    /// RTCP.
    pub rtcp: Rtcp,
    /// `a=extmap`
    pub extensions: Vec<ExtMap>,
    /// `a=ssrc`, RFC 5576
    pub sources: Vec<Source>,
    /// `a=ssrc-group`
    pub source_groups: Vec<SourceGroup>,
    /// Data channel.
    pub sctp: Sctp,
}

impl MediaDescription {
    /// An RTP stream of these payload types.
    #[must_use]
    pub fn rtp(media: &str, port: u16, proto: Proto, payload_types: Vec<PayloadType>) -> Self {
        Self {
            media: media.into(),
            port,
            proto,
            payload_types,
            formats: Vec::new(),
            level: Level::default(),
            mid: None,
            cryptos: Vec::new(),
            rtcp: Rtcp::default(),
            extensions: Vec::new(),
            sources: Vec::new(),
            source_groups: Vec::new(),
            sctp: Sctp::default(),
        }
    }

    /// The answer that refuses this stream: port 0 and nothing else (RFC 3264 §6; `mid` stays, RFC 5888 §9.1).
    #[must_use]
    pub fn refusal(&self) -> Self {
        let mut refusal = Self::rtp(&self.media, 0, self.proto.clone(), self.payload_types.clone());
        refusal.formats.clone_from(&self.formats);
        refusal.mid.clone_from(&self.mid);
        refusal
    }

    /// `a=ptime`: the least of its payload types.
    #[must_use]
    pub fn ptime_ms(&self) -> Option<u32> {
        self.payload_types.iter().filter_map(|p| p.ptime_ms).min()
    }

    /// `a=maxptime`: the least of its payload types.
    #[must_use]
    pub fn maxptime_ms(&self) -> Option<u32> {
        self.payload_types.iter().filter_map(|p| p.maxptime_ms).min()
    }
}

/// A session description.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionDescription {
    /// `o=`
    pub origin: Origin,
    /// `s=`; `-` where there is none.
    pub name: Text,
    /// `t=`, seconds since 1900; 0 0 for a call.
    pub timing: (u64, u64),
    /// What may also stand for one stream.
    pub level: Level,
    /// `a=group`
    pub groups: Vec<Group>,
    /// `a=ice-lite`
    pub ice_lite: bool,
    /// In order; the place is the identity of a stream through the session (RFC 3264 §8).
    pub media: Vec<MediaDescription>,
}

impl SessionDescription {
    /// One without streams. `session_id` is random, `version` counts up.
    #[must_use]
    pub fn new(session_id: u64, version: u64, host: IpAddr) -> Self {
        // RFC 8866 §5.2: numeric, below 2^63 for old readers.
        let session_id = format!("{}", session_id >> 1).into();
        let username = Text::const_new("-");
        Self {
            origin: Origin { username, session_id, version, host: Host::Ip(host) },
            name: Text::const_new("-"),
            timing: (0, 0),
            level: Level::default(),
            groups: Vec::new(),
            ice_lite: false,
            media: Vec::new(),
        }
    }

    /// Where a stream is received, without ICE.
    #[must_use]
    pub fn connection_of<'a>(&'a self, media: &'a MediaDescription) -> Option<&'a Host> {
        media.level.connection.as_ref().or(self.level.connection.as_ref())
    }

    /// Its address and port, if the address is one.
    #[must_use]
    pub fn address_of(&self, media: &MediaDescription) -> Option<std::net::SocketAddr> {
        match self.connection_of(media)? {
            Host::Ip(ip) => Some((*ip, media.port).into()),
            Host::Name(_) => None,
        }
    }

    /// Who sends; `sendrecv` where nothing is said (RFC 8866 §6.7.4), and as `inactive` where the address is the unspecified
    /// one, as holds were written before RFC 3264 §8.4.
    #[must_use]
    pub fn direction_of(&self, media: &MediaDescription) -> Direction {
        let said = media.level.direction.or(self.level.direction).unwrap_or(Direction::SendRecv);
        let unspecified = matches!(self.connection_of(media), Some(Host::Ip(ip)) if ip.is_unspecified());
        // With ICE `0.0.0.0` only says that there is no default candidate (RFC 8840 §4.1).
        if unspecified && self.ice_creds_of(media).is_none() { Direction::of(said.sends(), false) } else { said }
    }

    /// Fingerprints of its DTLS, each with the `setup` that holds for it.
    #[must_use]
    pub fn fingerprints_of(&self, media: &MediaDescription) -> Vec<Fingerprint> {
        let own = &media.level.fingerprints;
        let mut all = if own.is_empty() { self.level.fingerprints.clone() } else { own.clone() };
        let setup = media.level.setup.or(self.level.setup);
        all.iter_mut().for_each(|f| f.setup = setup);
        all
    }

    /// Its ICE credentials.
    #[must_use]
    pub fn ice_creds_of(&self, media: &MediaDescription) -> Option<IceCreds> {
        let ufrag = media.level.ice.ufrag.as_ref().or(self.level.ice.ufrag.as_ref())?;
        let pwd = media.level.ice.pwd.as_ref().or(self.level.ice.pwd.as_ref())?;
        Some(IceCreds { ufrag: ufrag.clone(), pwd: pwd.clone() })
    }
}

/// What is wrong with a session description; the first thing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSdp {
    /// It does not begin with `v=0`.
    #[error("not version 0 of SDP")]
    Version,
    /// A line that is no `letter=value`, or of an unknown letter (RFC 8866 §5).
    #[error("a line that is none of SDP")]
    Line,
    /// A line whose value is not of its grammar.
    #[error("a bad {0}")]
    Value(&'static str),
    /// No `o=`.
    #[error("no o=")]
    NoOrigin,
    /// More lines or streams than [`crate::config::sdp`] allows.
    #[error("too large")]
    TooLarge,
}

#[cfg(test)]
mod tests;

//! What is exchanged: RTP (XEP-0167 1.2.3, 0293 1.0.2, 0294 1.1.2, 0339 1.0.1) and files (XEP-0234 0.19.1).
//! Read XEP-0167 §4 and §8 before touching this file.

use super::jingle::{Creator, Senders};
use crate::fault::names;

/// The application half of a content.
#[derive(Debug, Clone, PartialEq)]
pub enum Description {
    /// XEP-0167
    Rtp(Box<RtpDescription>),
    /// XEP-0234
    File(Box<FileDescription>),
    /// A namespace that is not known here.
    Unknown {
        /// Its namespace.
        ns: String,
    },
}

/// XEP-0167 description.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RtpDescription {
    /// `audio`, `video`, …
    pub media: String,
    /// SSRC of the sender (attribute).
    pub ssrc: Option<u32>,
    /// In preference order (J167-07).
    pub payload_types: Vec<PayloadType>,
    /// `<bandwidth type/>` and kilobits per second.
    pub bandwidth: Vec<(String, String)>,
    /// RTP and RTCP share a port, RFC 5761.
    pub rtcp_mux: bool,
    /// RFC 5506.
    pub rtcp_reduced_size: bool,
    /// SDES keys, XEP-0167 §7.
    pub encryption: Option<Encryption>,
    /// For all payload types, XEP-0293.
    pub rtcp_fb: Vec<RtcpFb>,
    /// `<rtcp-fb-trr-int/>` in milliseconds.
    pub rtcp_fb_trr_int_ms: Option<u32>,
    /// XEP-0294.
    pub header_extensions: Vec<HeaderExtension>,
    /// One-byte and two-byte header extensions may be mixed.
    pub extmap_allow_mixed: bool,
    /// XEP-0339.
    pub sources: Vec<Source>,
    /// XEP-0339.
    pub source_groups: Vec<SourceGroup>,
}

/// One codec of a description, RFC 3551.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PayloadType {
    /// 0 to 127.
    pub id: u8,
    /// Empty is allowed for static types below 96.
    pub name: String,
    /// RTP clock.
    pub clock_rate_hz: Option<u32>,
    /// 1 if absent (J167-08).
    pub channels: u8,
    /// Milliseconds a packet.
    pub ptime_ms: Option<u32>,
    /// Most milliseconds a packet.
    pub maxptime_ms: Option<u32>,
    /// fmtp parameters; a bare token has an empty name.
    pub parameters: Vec<Parameter>,
    /// XEP-0293.
    pub rtcp_fb: Vec<RtcpFb>,
    /// Milliseconds, XEP-0293.
    pub rtcp_fb_trr_int_ms: Option<u32>,
}

/// `<parameter/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Case-sensitive.
    pub name: String,
    /// Absent from some peers (facts §7).
    pub value: Option<String>,
}

/// `<rtcp-fb/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtcpFb {
    /// `nack`, `ccm`, …
    pub kind: String,
    /// `pli`, `fir`, …
    pub subtype: Option<String>,
}

/// `<rtp-hdrext/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderExtension {
    /// 1 to 14, 1 to 255, or 4096 to 4351 while negotiating (J294-02).
    pub id: u16,
    /// Which extension.
    pub uri: String,
    /// `Both` if absent.
    pub senders: Senders,
}

/// `<source/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// `cname`, `msid`, …
    pub parameters: Vec<Parameter>,
}

/// `<ssrc-group/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceGroup {
    /// `FID`, `FEC-FR`, …
    pub semantics: String,
    /// In order.
    pub sources: Vec<u32>,
}

/// `<encryption/>`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// The session must be encrypted.
    pub required: bool,
    /// In preference order.
    pub cryptos: Vec<Crypto>,
}

/// `<crypto/>`, RFC 4568. `Debug` hides the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Number that pairs offer and answer.
    pub tag: String,
    /// `AES_CM_128_HMAC_SHA1_80`, …
    pub suite: String,
    /// `inline:…`, secret.
    pub key_params: String,
    /// Rarely present.
    pub session_params: Option<String>,
}

impl std::fmt::Debug for Crypto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crypto").field("tag", &self.tag).field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// Payload of a session-info.
#[derive(Debug, Clone, PartialEq)]
pub enum Info {
    /// Ends hold and mute of everything (J167-23).
    Active,
    /// The peer does not listen.
    Hold,
    /// The peer listens again.
    Unhold,
    /// The peer does not send.
    Mute(Option<(Creator, String)>),
    /// The peer sends again.
    Unmute(Option<(Creator, String)>),
    /// The peer's user is being alerted.
    Ringing,
    /// XEP-0234 §8.1.
    Received(Creator, String),
    /// XEP-0234 §8.2.
    Checksum(Creator, String, Box<FileDescription>),
    /// XEP-0181 digit.
    Dtmf(char),
    /// Answered with unsupported-info (J166-21).
    Unknown {
        /// Namespace of the payload.
        ns: String,
        /// Local name of the payload.
        name: String,
    },
}

names! {
    /// Hash functions of XEP-0300.
    pub enum HashAlgo {
        Sha1 = "sha-1", Sha224 = "sha-224", Sha256 = "sha-256", Sha384 = "sha-384", Sha512 = "sha-512",
        Sha3_256 = "sha3-256", Sha3_512 = "sha3-512", Blake2b256 = "blake2b-256", Blake2b512 = "blake2b-512",
    }
}

/// XEP-0234 description, one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDescription {
    /// Untrusted; may hold anything.
    pub name: Option<String>,
    /// Bytes; 0 is a file too.
    pub size: Option<u64>,
    /// XEP-0082 text.
    pub date: Option<String>,
    /// MIME type.
    pub media_type: Option<String>,
    /// For people, in the first language given.
    pub description: Option<String>,
    /// Known hashes; an empty value stands for "will be sent later".
    pub hashes: Vec<(HashAlgo, Vec<u8>)>,
    /// The hash that a later checksum will carry.
    pub hash_used: Option<HashAlgo>,
    /// Asked for or granted.
    pub range: Option<FileRange>,
}

/// XEP-0234 §5 range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileRange {
    /// First byte, 0 if absent.
    pub offset: u64,
    /// Bytes, to the end if absent.
    pub length: Option<u64>,
}

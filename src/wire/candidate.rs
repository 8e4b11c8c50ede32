//! How payload travels: ice-udp (XEP-0176 1.1.1), ice (0371 0.3.1), raw-udp (0177 1.1.1), s5b (0260 1.0.3),
//! ibb (0261 1.0), webrtc-datachannel (0343 0.3.1), fingerprint (0320 1.0.0).
//! Read XEP-0176 §5.3 and XEP-0320 §1 before touching this file.

use crate::fault::names;
use std::net::IpAddr;

/// The transport half of a content.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// XEP-0176 or XEP-0371
    Ice(Box<IceTransport>),
    /// XEP-0177
    RawUdp(Vec<RawCandidate>),
    /// XEP-0260
    S5b(Box<S5bTransport>),
    /// XEP-0261
    Ibb(IbbTransport),
    /// A namespace that is not known here.
    Unknown {
        /// Its namespace.
        ns: String,
    },
}

/// ICE credentials, RFC 8445 §5.3. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCreds {
    /// At least 24 random bits.
    pub ufrag: String,
    /// At least 128 random bits.
    pub pwd: String,
}

impl std::fmt::Debug for IceCreds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCreds").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// XEP-0176 transport.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IceTransport {
    /// True for `urn:xmpp:jingle:transports:ice:0`.
    pub ice2: bool,
    /// Absent while no candidate is sent.
    pub ufrag: Option<String>,
    /// Some peers leave it out of transport-info (facts §7).
    pub pwd: Option<String>,
    /// Those that could be read; a malformed one is counted, not fatal (J176-08).
    pub candidates: Vec<Candidate>,
    /// Candidates that could not be read (bad priority, address or type).
    pub malformed_candidates: usize,
    /// The pair that the controlling side chose, XEP-0176 §5.7: component, address, port.
    pub remote_candidates: Vec<(u8, String, u16)>,
    /// XEP-0320, in wire order.
    pub fingerprints: Vec<Fingerprint>,
    /// No more candidates come, XEP-0371 §7 (also inside ice-udp:1).
    pub gathering_complete: bool,
    /// XEP-0343.
    pub sctp: Option<SctpMap>,
}

impl IceTransport {
    /// Both halves of the credentials, if present.
    #[must_use]
    pub fn creds(&self) -> Option<IceCreds> {
        Some(IceCreds { ufrag: self.ufrag.clone()?, pwd: self.pwd.clone()? })
    }
}

names! {
    /// Candidate types, RFC 8445 §5.1.
    pub enum CandidateKind { Host = "host", Prflx = "prflx", Relay = "relay", Srflx = "srflx" }
}

names! {
    /// Candidate protocols.
    pub enum CandidateProtocol { Udp = "udp", Tcp = "tcp" }
}

/// Address as signalled: a literal, or an mDNS name that hides one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CandidateAddr {
    /// IPv4 or IPv6
    Ip(IpAddr),
    /// `<uuid>.local`
    Mdns(String),
}

/// One ICE candidate, XEP-0176 §5.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// 1 = RTP, 2 = RTCP.
    pub component: u8,
    /// Any string.
    pub foundation: String,
    /// 0 if absent (facts §7).
    pub generation: u32,
    /// Jingle only; absent from some peers.
    pub id: Option<String>,
    /// Where.
    pub addr: CandidateAddr,
    /// 0 only for active TCP (port 9 by rule).
    pub port: u16,
    /// RFC 8445 §5.1.2.
    pub priority: u32,
    /// How.
    pub protocol: CandidateProtocol,
    /// `active`, `passive`, `so` with TCP.
    pub tcptype: Option<String>,
    /// What kind.
    pub kind: CandidateKind,
    /// Related address of a reflexive or relayed candidate.
    pub related: Option<(IpAddr, u16)>,
    /// Index of the interface.
    pub network: Option<u32>,
}

names! {
    /// DTLS role, RFC 5763 §5.
    pub enum Setup { Active = "active", Actpass = "actpass", Holdconn = "holdconn", Passive = "passive" }
}

/// XEP-0320 fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// `sha-256`, `sha-1`, … in lower case.
    pub hash: String,
    /// The digest, from colon-separated hex; white space round it is stripped (J320-01).
    pub value: Vec<u8>,
    /// Missing reads as actpass.
    pub setup: Option<Setup>,
}

/// XEP-0343 sctpmap: `port` is written, `port` and `number` are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SctpMap {
    /// Usually 5000.
    pub port: u16,
    /// `webrtc-datachannel`
    pub protocol: String,
    /// Streams wanted.
    pub streams: Option<u16>,
}

/// XEP-0177 candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawCandidate {
    /// 1 if absent (J177-01).
    pub component: u8,
    /// 0 if absent.
    pub generation: u32,
    /// Names the candidate.
    pub id: String,
    /// Where.
    pub ip: IpAddr,
    /// Where.
    pub port: u16,
    /// Hint.
    pub kind: Option<CandidateKind>,
}

names! {
    /// S5B candidate types, XEP-0260 §2.2.
    pub enum S5bKind { Assisted = "assisted", Direct = "direct", Proxy = "proxy", Tunnel = "tunnel" }
}

/// XEP-0260 transport.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S5bTransport {
    /// Stream id.
    pub sid: String,
    /// `dstaddr`
    pub dstaddr: Option<String>,
    /// `mode='udp'` was asked for.
    pub udp: bool,
    /// Offered streamhosts.
    pub candidates: Vec<S5bCandidate>,
    /// `candidate-used`: its cid.
    pub candidate_used: Option<String>,
    /// `candidate-error`
    pub candidate_error: bool,
    /// `activated`: its cid.
    pub activated: Option<String>,
    /// `proxy-error`
    pub proxy_error: bool,
}

/// XEP-0260 candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S5bCandidate {
    /// Names it.
    pub cid: String,
    /// Address or name.
    pub host: String,
    /// JID of the streamhost.
    pub jid: crate::wire::jid::Jid,
    /// 1080 if absent.
    pub port: u16,
    /// XEP-0260 §2.2.
    pub priority: u32,
    /// `direct` if absent.
    pub kind: S5bKind,
}

/// XEP-0261 transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IbbTransport {
    /// Bytes before base64.
    pub block_size: u16,
    /// Stream id.
    pub sid: String,
    /// `stanza='message'` instead of IQs.
    pub in_messages: bool,
}

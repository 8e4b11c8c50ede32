//! How payload travels: ice-udp (XEP-0176 1.1.1), ice (0371 0.3.1), raw-udp (0177 1.1.1), s5b (0260 1.0.3),
//! ibb (0261 1.0), webrtc-datachannel (0343 0.3.1), fingerprint (0320 1.0.0).
//! Read XEP-0176 §5.3 and XEP-0320 §1 before touching this file.

use super::ns;
use super::xml::{Reader, Result, Text, Writer};
use crate::config::wire;
use crate::fault::{Malformed, names};
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

impl Transport {
    /// Reads the `<transport/>` that `r` has just entered; its namespace decides.
    ///
    /// # Errors
    /// [`Malformed`] for what cannot be resolved; a candidate that cannot be read is dropped and counted instead.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        match r.tag().ns() {
            ns::ICE_UDP => Ok(Self::Ice(Box::new(IceTransport::read(r)?))),
            ns::ICE => {
                let mut ice = IceTransport::read(r)?;
                ice.ice2 = true;
                Ok(Self::Ice(Box::new(ice)))
            }
            ns::RAW_UDP => {
                let mut candidates = Vec::new();
                r.children(|r| {
                    if r.tag().name() == "candidate" && candidates.len() < wire::CANDIDATES {
                        candidates.extend(RawCandidate::read(r));
                    }
                    Ok(())
                })?;
                Ok(Self::RawUdp(candidates))
            }
            ns::S5B => Ok(Self::S5b(Box::new(S5bTransport::read(r)?))),
            ns::IBB_TRANSPORT => Ok(Self::Ibb(IbbTransport::read(r)?)),
            other => Ok(Self::Unknown { ns: other.to_owned() }),
        }
    }

    /// Writes the `<transport/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Ice(ice) => ice.write(w),
            Self::RawUdp(candidates) => {
                w.start_ns("transport", ns::RAW_UDP);
                for candidate in candidates {
                    candidate.write(w);
                }
                w.end("transport");
            }
            Self::S5b(s5b) => s5b.write(w),
            Self::Ibb(ibb) => ibb.write(w),
            Self::Unknown { ns } => {
                w.start_ns("transport", ns).end("transport");
            }
        }
    }
}

/// A number of the element just entered; `None` if it is absent, blank or no such number.
fn number<T: std::str::FromStr>(r: &Reader<'_>, name: &str) -> Option<T> {
    r.attr(name).and_then(|v| v.trim().parse().ok())
}

/// A number with a default: `None` only if a value stands there that is no such number.
fn number_or<T: std::str::FromStr>(r: &Reader<'_>, name: &str, default: T) -> Option<T> {
    match r.attr(name).map(str::trim) {
        None | Some("") => Some(default),
        Some(v) => v.parse().ok(),
    }
}

/// ICE credentials, RFC 8445 §5.3. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCreds {
    /// At least 24 random bits.
    pub ufrag: Text,
    /// At least 128 random bits.
    pub pwd: Text,
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
    /// `ice2='true'`: the sender follows RFC 8445 (J371-01; only in `ice:0`).
    pub rfc8445: bool,
    /// Absent while no candidate is sent.
    pub ufrag: Option<Text>,
    /// Some peers leave it out of transport-info (facts §7).
    pub pwd: Option<Text>,
    /// Those that could be read; a malformed one is counted, not fatal (J176-08).
    pub candidates: Vec<Candidate>,
    /// Candidates that could not be read (bad priority, address or type) or stood past the cap. Never written.
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

impl IceTransport {
    /// Reads the `<transport/>` of `ice-udp:1` or `ice:0` that `r` has just entered. It may be empty (J176-01, J176-05).
    ///
    /// # Errors
    /// [`Malformed`] for a fingerprint that cannot be read: passing it over would be a downgrade.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let own = |name: &str| r.attr(name).filter(|v| !v.is_empty()).map(Text::from);
        // J176-02 is not enforced here: a transport-info may lack the password that the offer has given (facts §7).
        let mut ice = Self {
            ufrag: own("ufrag"),
            pwd: own("pwd"),
            rfc8445: r.tag().ns() == ns::ICE && matches!(r.attr("ice2"), Some("true" | "1")),
            ..Self::default()
        };
        r.children(|r| {
            match r.tag().name() {
                "candidate" => match Candidate::read(r) {
                    Some(candidate) if ice.candidates.len() < wire::CANDIDATES => ice.candidates.push(candidate),
                    // J176-04, J176-08: that candidate is lost, the session is not.
                    Some(_) | None => ice.malformed_candidates = ice.malformed_candidates.saturating_add(1),
                },
                "remote-candidate" if ice.remote_candidates.len() < wire::CANDIDATES => {
                    if let (Some(component), Some(ip), Some(port)) =
                        (number_or(r, "component", 1), r.attr("ip"), number(r, "port"))
                    {
                        ice.remote_candidates.push((component, ip.to_owned(), port));
                    }
                }
                "fingerprint" if ice.fingerprints.len() < wire::PARTS => ice.fingerprints.push(Fingerprint::read(r)?),
                // J371-03: seen inside ice-udp:1 too (facts §7).
                "gathering-complete" => ice.gathering_complete = true,
                "sctpmap" if ice.sctp.is_none() => ice.sctp = Some(SctpMap::read(r)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(ice)
    }

    /// Writes the `<transport/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("transport", if self.ice2 { ns::ICE } else { ns::ICE_UDP });
        if self.ice2 && self.rfc8445 {
            w.attr("ice2", "true");
        }
        w.attr_opt("pwd", self.pwd.as_deref()).attr_opt("ufrag", self.ufrag.as_deref());
        for fingerprint in &self.fingerprints {
            fingerprint.write(w);
        }
        if let Some(sctp) = &self.sctp {
            sctp.write(w);
        }
        for candidate in &self.candidates {
            candidate.write(w);
        }
        for (component, ip, port) in &self.remote_candidates {
            w.start("remote-candidate").attr_number("component", component).attr("ip", ip).attr_number("port", port);
            w.end("remote-candidate");
        }
        if self.gathering_complete {
            w.start("gathering-complete").end("gathering-complete");
        }
        w.end("transport");
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
    pub foundation: Text,
    /// 0 if absent (facts §7).
    pub generation: u32,
    /// Jingle only; absent from some peers.
    pub id: Option<Text>,
    /// Where.
    pub addr: CandidateAddr,
    /// 0 only for active TCP (port 9 by rule).
    pub port: u16,
    /// RFC 8445 §5.1.2.
    pub priority: u32,
    /// How.
    pub protocol: CandidateProtocol,
    /// `active`, `passive`, `so` with TCP.
    pub tcptype: Option<Text>,
    /// What kind.
    pub kind: CandidateKind,
    /// Related address of a reflexive or relayed candidate.
    pub related: Option<(IpAddr, u16)>,
    /// Index of the interface.
    pub network: Option<u32>,
}

impl CandidateAddr {
    /// An address literal or an mDNS name; other names are nothing RFC 8445 can check.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(ip) = text.parse() {
            return Some(Self::Ip(ip));
        }
        let host = text.strip_suffix(".local")?;
        let fine = !host.is_empty() && host.len() <= 63 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        fine.then(|| Self::Mdns(text.to_owned()))
    }
}

impl Candidate {
    /// The candidate that `r` has just entered; `None` if it cannot be used or understood. What real peers leave out has
    /// a default: component 1, generation 0, UDP, no id, no network (J176-03, facts §7).
    #[must_use]
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        // A protocol may be in the upper case of SDP.
        let protocol = match r.attr("protocol").map(str::trim) {
            None | Some("") => CandidateProtocol::Udp,
            Some(p) if p.eq_ignore_ascii_case("udp") => CandidateProtocol::Udp,
            Some(p) if p.eq_ignore_ascii_case("tcp") => CandidateProtocol::Tcp,
            Some(_) => return None,
        };
        let component = number_or(r, "component", 1).filter(|c| *c != 0)?;
        // J176-04: a priority above 32 bits (0176 example 5) or of zero is none.
        let priority = number(r, "priority").filter(|p| *p != 0)?;
        let port = number(r, "port").filter(|p| *p != 0 || protocol == CandidateProtocol::Tcp)?;
        let related = r.attr("rel-addr").and_then(|a| a.trim().parse().ok());
        Some(Self {
            component,
            foundation: r.attr("foundation").unwrap_or("0").into(),
            generation: number_or(r, "generation", 0)?,
            id: r.attr("id").filter(|id| !id.is_empty()).map(Text::from),
            addr: CandidateAddr::read(r.attr("ip")?)?,
            port,
            priority,
            protocol,
            tcptype: match protocol {
                CandidateProtocol::Tcp => r.attr("tcptype").map(Text::from),
                CandidateProtocol::Udp => None,
            },
            kind: CandidateKind::parse(r.attr("type")?)?,
            related: related.map(|ip| (ip, number(r, "rel-port").unwrap_or(0))),
            network: number(r, "network"),
        })
    }

    /// Writes the `<candidate/>` in the namespace of its transport, complete: a missing id is made from its parts, a
    /// missing network is 0 (J176-03).
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("candidate").attr_number("component", self.component).attr("foundation", &self.foundation);
        w.attr_number("generation", self.generation);
        match &self.id {
            Some(id) => w.attr("id", id),
            None => w.attr_number("id", format_args!("c{}-{}-{}", self.component, self.priority, self.port)),
        };
        match &self.addr {
            CandidateAddr::Ip(ip) => w.attr_number("ip", ip),
            CandidateAddr::Mdns(name) => w.attr("ip", name),
        };
        w.attr_number("network", self.network.unwrap_or(0)).attr_number("port", self.port);
        w.attr_number("priority", self.priority).attr("protocol", self.protocol.as_str());
        if let Some((ip, port)) = self.related {
            w.attr_number("rel-addr", ip).attr_number("rel-port", port);
        }
        if self.protocol == CandidateProtocol::Tcp {
            w.attr_opt("tcptype", self.tcptype.as_deref());
        }
        w.attr("type", self.kind.as_str()).end("candidate");
    }
}

names! {
    /// DTLS role, RFC 5763 §5.
    pub enum Setup { Active = "active", Actpass = "actpass", Holdconn = "holdconn", Passive = "passive" }
}

/// XEP-0320 fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// `sha-256`, `sha-1`, … in lower case.
    pub hash: Text,
    /// The digest, from colon-separated hex; white space round it is stripped (J320-01).
    pub value: Vec<u8>,
    /// Missing reads as actpass.
    pub setup: Option<Setup>,
}

impl Fingerprint {
    /// Reads the `<fingerprint/>` that `r` has just entered, in whatever namespace.
    ///
    /// # Errors
    /// [`Malformed`] without hash, for an unknown setup, or if the text is not hex: a fingerprint is never passed over.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        const BAD: Malformed = Malformed::BadValue { element: "fingerprint", what: "text" };
        let mut hash = Text::from(r.need("fingerprint", "hash")?.trim());
        hash.make_ascii_lowercase();
        // J320-02: missing is actpass to the layer above.
        let setup = match r.attr("setup").map(str::trim) {
            None | Some("") => None,
            Some(v) => Some(Setup::parse(v).ok_or(Malformed::BadValue { element: "fingerprint", what: "setup" })?),
        };
        let text = r.text()?;
        // J320-01: white space may stand round the digest, and line breaks inside it.
        let mut value = Vec::with_capacity(32);
        let mut high = None;
        for b in text.bytes() {
            let digit = match b {
                b'0'..=b'9' => b - b'0',
                b'a'..=b'f' => b - b'a' + 10,
                b'A'..=b'F' => b - b'A' + 10,
                b':' | b' ' | b'\t' | b'\r' | b'\n' if high.is_none() => continue,
                _ => return Err(BAD),
            };
            match high.take() {
                None => high = Some(digit),
                // SHA-512 has 64 bytes.
                Some(_) if value.len() >= 64 => return Err(BAD),
                Some(high) => value.push(high << 4 | digit),
            }
        }
        if high.is_some() || value.is_empty() || hash.is_empty() {
            return Err(BAD);
        }
        Ok(Self { hash, value, setup })
    }

    /// Writes the `<fingerprint/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("fingerprint", ns::DTLS).attr("hash", &self.hash);
        w.attr_opt("setup", self.setup.map(Setup::as_str));
        w.text_number(Hex(&self.value)).end("fingerprint");
    }
}

/// Upper-case hex with colons, RFC 8122 §5.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;
        let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'A' + n - 10 });
        for (i, b) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_char(':')?;
            }
            f.write_char(digit(b >> 4))?;
            f.write_char(digit(b & 15))?;
        }
        Ok(())
    }
}

/// XEP-0343 sctpmap: `port` and `number` are the same thing, written both and read either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SctpMap {
    /// Usually 5000.
    pub port: u16,
    /// `webrtc-datachannel`
    pub protocol: String,
    /// Streams wanted.
    pub streams: Option<u16>,
}

impl SctpMap {
    /// Reads the `<sctpmap/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] for a port that is none.
    pub fn read(r: &Reader<'_>) -> Result<Self> {
        // The XEP's text says `port`, its schema and its examples say `number` (requirements §M 12).
        let port = match r.attr("port").or_else(|| r.attr("number")).map(str::trim) {
            None | Some("") => 5000,
            Some(v) => v.parse().map_err(|_| Malformed::BadValue { element: "sctpmap", what: "port" })?,
        };
        let protocol = r.attr("protocol").filter(|p| !p.is_empty()).unwrap_or("webrtc-datachannel").to_owned();
        Ok(Self { port, protocol, streams: number(r, "streams") })
    }

    /// Writes the `<sctpmap/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        // Browsers read `number` only.
        w.start_ns("sctpmap", ns::SCTP_MAP).attr_number("number", self.port).attr_number("port", self.port);
        w.attr("protocol", &self.protocol);
        if let Some(streams) = self.streams {
            w.attr_number("streams", streams);
        }
        w.end("sctpmap");
    }
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

impl RawCandidate {
    /// The candidate that `r` has just entered; `None` without address or port.
    #[must_use]
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        Some(Self {
            // J177-01: examples of 0176 and 0371 leave it out.
            component: number_or(r, "component", 1).filter(|c| *c != 0)?,
            generation: number_or(r, "generation", 0)?,
            id: r.attr("id").unwrap_or("").to_owned(),
            ip: number(r, "ip")?,
            port: number(r, "port").filter(|p| *p != 0)?,
            kind: r.attr("type").and_then(CandidateKind::parse),
        })
    }

    /// Writes the `<candidate/>` in the namespace of its transport.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("candidate").attr_number("component", self.component).attr_number("generation", self.generation);
        w.attr("id", &self.id).attr_number("ip", self.ip).attr_number("port", self.port);
        w.attr_opt("type", self.kind.map(CandidateKind::as_str)).end("candidate");
    }
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
    /// Candidates that could not be read or stood past the cap. Never written.
    pub malformed_candidates: usize,
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

impl S5bTransport {
    /// Reads the `<transport/>` of `s5b:1` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] without sid (J260-01), or for a nomination without cid.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut s5b = Self {
            sid: r.need("transport", "sid")?.to_owned(),
            dstaddr: r.attr("dstaddr").filter(|d| !d.is_empty()).map(str::to_owned),
            udp: r.attr("mode") == Some("udp"),
            ..Self::default()
        };
        r.children(|r| {
            match r.tag().name() {
                "candidate" => match S5bCandidate::read(r) {
                    Some(candidate) if s5b.candidates.len() < wire::CANDIDATES => s5b.candidates.push(candidate),
                    Some(_) | None => s5b.malformed_candidates = s5b.malformed_candidates.saturating_add(1),
                },
                "candidate-used" => s5b.candidate_used = Some(r.need("candidate-used", "cid")?.to_owned()),
                "candidate-error" => s5b.candidate_error = true,
                "activated" => s5b.activated = Some(r.need("activated", "cid")?.to_owned()),
                "proxy-error" => s5b.proxy_error = true,
                _ => {}
            }
            Ok(())
        })?;
        Ok(s5b)
    }

    /// Writes the `<transport/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("transport", ns::S5B).attr("sid", &self.sid).attr_opt("dstaddr", self.dstaddr.as_deref());
        // J260-03: `tcp` is the default, and an answer never has `mode`.
        w.attr_opt("mode", self.udp.then_some("udp"));
        for candidate in &self.candidates {
            candidate.write(w);
        }
        if let Some(cid) = &self.candidate_used {
            w.start("candidate-used").attr("cid", cid).end("candidate-used");
        }
        if self.candidate_error {
            w.start("candidate-error").end("candidate-error");
        }
        if let Some(cid) = &self.activated {
            w.start("activated").attr("cid", cid).end("activated");
        }
        if self.proxy_error {
            w.start("proxy-error").end("proxy-error");
        }
        w.end("transport");
    }
}

impl S5bCandidate {
    /// The candidate that `r` has just entered; `None` if a required part is missing or no such value.
    #[must_use]
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        Some(Self {
            cid: r.attr("cid").filter(|c| !c.is_empty())?.to_owned(),
            host: r.attr("host").filter(|h| !h.is_empty())?.to_owned(),
            jid: r.attr("jid")?.parse().ok()?,
            port: number_or(r, "port", 1080)?,
            priority: number(r, "priority")?,
            kind: match r.attr("type") {
                None | Some("") => S5bKind::Direct,
                Some(kind) => S5bKind::parse(kind)?,
            },
        })
    }

    /// Writes the `<candidate/>` in the namespace of its transport.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("candidate").attr("cid", &self.cid).attr("host", &self.host).attr("jid", self.jid.as_str());
        w.attr_number("port", self.port).attr_number("priority", self.priority).attr("type", self.kind.as_str());
        w.end("candidate");
    }
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

impl IbbTransport {
    /// Reads the `<transport/>` of `ibb:1` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] without sid or with a block size outside 1 to 65 535 (J047-01).
    pub fn read(r: &Reader<'_>) -> Result<Self> {
        const BAD: Malformed = Malformed::BadValue { element: "transport", what: "block-size" };
        let block_size = r.need("transport", "block-size")?.trim().parse().ok().filter(|b| *b != 0).ok_or(BAD)?;
        Ok(Self {
            block_size,
            sid: r.need("transport", "sid")?.to_owned(),
            in_messages: r.attr("stanza") == Some("message"),
        })
    }

    /// Writes the `<transport/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("transport", ns::IBB_TRANSPORT).attr_number("block-size", self.block_size).attr("sid", &self.sid);
        w.attr_opt("stanza", self.in_messages.then_some("message")).end("transport");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::config::XmlLimits;
    use proptest::prelude::*;
    use proptest::{collection::vec, option, sample::select};

    /// Text with everything the writer escapes.
    pub(crate) fn text() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9 &<>'\"\\t\\n\\ré漢😀.:/+=-]{1,12}".prop_map(|s| s)
    }

    /// Text without white space at its ends.
    pub(crate) fn token() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9&<>'\"é漢😀.:/+=-]{1,12}".prop_map(|s| s)
    }

    pub(crate) fn unknown_ns() -> impl Strategy<Value = String> {
        "urn:x-[a-z]{1,8}:[0-9]".prop_map(|s| s)
    }

    pub(crate) fn fingerprint() -> impl Strategy<Value = Fingerprint> {
        ("[a-z0-9-]{1,8}", vec(any::<u8>(), 1..=64), option::of(select(Setup::ALL)))
            .prop_map(|(hash, value, setup)| Fingerprint { hash: hash.into(), value, setup })
    }

    pub(crate) fn candidate() -> impl Strategy<Value = Candidate> {
        let addr = prop_oneof![
            any::<IpAddr>().prop_map(CandidateAddr::Ip),
            "[0-9a-f-]{1,36}\\.local".prop_map(CandidateAddr::Mdns)
        ];
        let first = (1..=255u8, text(), any::<u32>(), text(), addr, 1..=65535u16);
        let second = (
            1..=u32::MAX,
            select(CandidateProtocol::ALL),
            option::of(token()),
            select(CandidateKind::ALL),
            option::of(any::<(IpAddr, u16)>()),
            any::<u32>(),
        );
        (first, second).prop_map(|(a, b)| Candidate {
            component: a.0,
            foundation: a.1.into(),
            generation: a.2,
            id: Some(a.3.into()),
            addr: a.4,
            port: a.5,
            priority: b.0,
            protocol: b.1,
            tcptype: b.2.filter(|_| b.1 == CandidateProtocol::Tcp).map(Text::from),
            kind: b.3,
            related: b.4,
            network: Some(b.5),
        })
    }

    fn ice() -> impl Strategy<Value = IceTransport> {
        let sctp = (any::<u16>(), token(), option::of(any::<u16>())).prop_map(|(port, protocol, streams)| SctpMap {
            port,
            protocol,
            streams,
        });
        (
            any::<(bool, bool, bool)>(),
            option::of(text()),
            option::of(text()),
            vec(candidate(), 0..5),
            vec((any::<u8>(), token(), any::<u16>()), 0..3),
            vec(fingerprint(), 0..3),
            option::of(sctp),
        )
            .prop_map(|(flags, ufrag, pwd, candidates, remote_candidates, fingerprints, sctp)| IceTransport {
                ice2: flags.0,
                rfc8445: flags.0 && flags.1,
                ufrag: ufrag.map(Text::from),
                pwd: pwd.map(Text::from),
                candidates,
                malformed_candidates: 0,
                remote_candidates,
                fingerprints,
                gathering_complete: flags.2,
                sctp,
            })
    }

    fn raw() -> impl Strategy<Value = RawCandidate> {
        (1..=255u8, any::<u32>(), text(), any::<IpAddr>(), 1..=65535u16, option::of(select(CandidateKind::ALL)))
            .prop_map(|(component, generation, id, ip, port, kind)| RawCandidate {
                component,
                generation,
                id,
                ip,
                port,
                kind,
            })
    }

    fn s5b() -> impl Strategy<Value = S5bTransport> {
        let jid = select(vec!["a@b.example/c", "proxy.example", "ö@x.example/ß"]).prop_map(|j| j.parse().unwrap());
        let candidate = (text(), text(), jid, any::<u16>(), any::<u32>(), select(S5bKind::ALL))
            .prop_map(|(cid, host, jid, port, priority, kind)| S5bCandidate { cid, host, jid, port, priority, kind });
        (
            text(),
            option::of(text()),
            any::<(bool, bool, bool)>(),
            vec(candidate, 0..4),
            option::of(text()),
            option::of(text()),
        )
            .prop_map(|(sid, dstaddr, flags, candidates, candidate_used, activated)| S5bTransport {
                sid,
                dstaddr,
                udp: flags.0,
                candidates,
                malformed_candidates: 0,
                candidate_used,
                candidate_error: flags.1,
                activated,
                proxy_error: flags.2,
            })
    }

    pub(crate) fn transport() -> impl Strategy<Value = Transport> {
        prop_oneof![
            4 => ice().prop_map(|t| Transport::Ice(Box::new(t))),
            1 => vec(raw(), 0..3).prop_map(Transport::RawUdp),
            1 => s5b().prop_map(|t| Transport::S5b(Box::new(t))),
            1 => (1..=65535u16, text(), any::<bool>())
                .prop_map(|(block_size, sid, in_messages)| Transport::Ibb(IbbTransport { block_size, sid, in_messages })),
            1 => unknown_ns().prop_map(|ns| Transport::Unknown { ns }),
        ]
    }

    fn read(xml: &str) -> Result<Transport> {
        let mut r = Reader::new(xml, ns::CLIENT, &XmlLimits::default())?;
        let transport = Transport::read(&mut r)?;
        r.finish()?;
        Ok(transport)
    }

    fn read_ice(children: &str) -> Result<IceTransport> {
        let xml = format!("<transport xmlns='{}' ufrag='8hhy'>{children}</transport>", ns::ICE_UDP);
        let Transport::Ice(ice) = read(&xml)? else { panic!("{xml}") };
        Ok(*ice)
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same_transport(x in transport()) {
            let mut out = String::new();
            x.write(&mut Writer::new(&mut out));
            prop_assert_eq!(read(&out).unwrap(), x, "{}", out);
        }

        #[test]
        fn whatever_the_attributes_hold_a_candidate_never_panics(
            values in vec(".{0,12}", 8), names in vec(select(vec![
                "component", "foundation", "generation", "id", "ip", "network", "port", "priority", "protocol",
                "rel-addr", "rel-port", "type", "tcptype"]), 8),
        ) {
            let mut seen = std::collections::BTreeSet::new();
            let mut out = String::new();
            let mut w = Writer::new(&mut out);
            w.start_ns("transport", ns::ICE_UDP).start("candidate");
            for (name, value) in names.iter().zip(&values).filter(|(n, _)| seen.insert(**n)) {
                w.attr(name, value);
            }
            w.end("candidate").end("transport");
            read(&out).unwrap();
        }
    }

    const GOOD: &str = "<candidate component='1' foundation='1' generation='0' id='a' ip='10.0.1.1' network='1' \
                        port='8998' priority='2130706431' protocol='udp' type='host'/>";

    #[test]
    fn a_priority_above_32_bits_loses_that_candidate_only_j176_04() {
        let bad = GOOD.replace("2130706431", "21149780477");
        let ice = read_ice(&format!("{bad}{GOOD}{}", GOOD.replace("2130706431", "0"))).unwrap();
        assert_eq!((ice.candidates.len(), ice.malformed_candidates), (1, 2));
    }

    #[test]
    fn what_real_peers_leave_out_of_a_candidate_has_a_default() {
        let ice = read_ice(
            "<candidate foundation='1' ip='6b0f.local' port='9' priority='5' protocol='UDP' type='host' \
             rel-addr='0.0.0.0' rel-port='0'/>",
        )
        .unwrap();
        let c = &ice.candidates[0];
        assert_eq!((c.component, c.generation, c.network, c.id.as_deref()), (1, 0, None, None));
        assert_eq!(c.addr, CandidateAddr::Mdns("6b0f.local".into()));
        let mut out = String::new();
        c.write(&mut Writer::new(&mut out));
        for attribute in ["id='c1-5-9'", "network='0'", "generation='0'", "component='1'"] {
            assert!(out.contains(attribute), "{out}");
        }
        assert_eq!((ice.ufrag.as_deref(), ice.pwd, ice.candidates.len()), (Some("8hhy"), None, 1));
    }

    #[test]
    fn a_tcp_candidate_inside_ice_udp_stays_typed() {
        let ice = read_ice(
            "<candidate component='1' foundation='3' ip='10.0.0.1' port='9' priority='5' protocol='tcp' \
             tcptype='active' type='host'/>",
        )
        .unwrap();
        assert_eq!(ice.candidates[0].protocol, CandidateProtocol::Tcp);
        assert_eq!(ice.candidates[0].tcptype.as_deref(), Some("active"));
    }

    #[test]
    fn candidates_that_cannot_be_used_are_counted() {
        let mut all = String::new();
        for (from, to) in [
            ("ip='10.0.1.1'", "ip='host.example'"),
            ("port='8998'", "port='0'"),
            ("port='8998'", "port='65536'"),
            ("component='1'", "component='0'"),
            ("component='1'", "component='256'"),
            ("protocol='udp'", "protocol='ssltcp'"),
            ("type='host'", ""),
            ("type='host'", "type='local'"),
            ("generation='0'", "generation='-1'"),
            ("priority='2130706431'", ""),
        ] {
            all.push_str(&GOOD.replace(from, to));
        }
        let ice = read_ice(&all).unwrap();
        assert_eq!((ice.candidates.len(), ice.malformed_candidates), (0, 10));
        let ice = read_ice(&GOOD.repeat(wire::CANDIDATES + 3)).unwrap();
        assert_eq!((ice.candidates.len(), ice.malformed_candidates), (wire::CANDIDATES, 3));
    }

    #[test]
    fn white_space_round_and_inside_a_fingerprint_is_stripped_j320_01() {
        let ice = read_ice(
            "<fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='SHA-256'>\n  02:1a:CC:\n 54 </fingerprint>",
        )
        .unwrap();
        assert_eq!(
            ice.fingerprints,
            [Fingerprint { hash: "sha-256".into(), value: vec![2, 0x1A, 0xCC, 0x54], setup: None }]
        );
    }

    #[test]
    fn a_fingerprint_that_cannot_be_read_is_never_passed_over() {
        for bad in [
            "<fingerprint hash='sha-256' setup='actpass'></fingerprint>",
            "<fingerprint hash='sha-256' setup='actpass'>02:1</fingerprint>",
            "<fingerprint hash='sha-256' setup='actpass'>0 2</fingerprint>",
            "<fingerprint hash='sha-256' setup='actpass'>zz</fingerprint>",
            "<fingerprint hash='sha-256' setup='both'>02</fingerprint>",
            "<fingerprint setup='actpass'>02</fingerprint>",
        ] {
            assert!(read_ice(bad).is_err(), "{bad}");
        }
        assert!(read_ice(&format!("<fingerprint hash='x'>{}</fingerprint>", "00:".repeat(65))).is_err());
    }

    #[test]
    fn sctpmap_is_read_by_number_or_port_and_written_by_both() {
        for xml in ["number='5001'", "port='5001'", "number='7' port='5001'"] {
            let xml = format!("<sctpmap xmlns='{}' {xml} streams='1024'/>", ns::SCTP_MAP);
            let sctp = read_ice(&xml).unwrap().sctp.unwrap();
            assert_eq!((sctp.port, sctp.streams, sctp.protocol.as_str()), (5001, Some(1024), "webrtc-datachannel"));
            let mut out = String::new();
            sctp.write(&mut Writer::new(&mut out));
            assert!(out.contains(" port='5001'") && out.contains(" number='5001'"), "{out}");
        }
        assert!(read_ice("<sctpmap port='70000'/>").is_err());
    }

    #[test]
    fn an_empty_transport_and_an_end_of_candidates_are_fine() {
        assert_eq!(read_ice("").unwrap().candidates, []);
        assert!(read_ice("<gathering-complete/>").unwrap().gathering_complete);
        let Transport::Ice(ice) = read("<transport xmlns='urn:xmpp:jingle:transports:ice:0' ice2='true'/>").unwrap()
        else {
            panic!("not ICE")
        };
        assert!(ice.ice2 && ice.rfc8445);
    }

    #[test]
    fn a_raw_udp_candidate_without_component_is_component_1_j177_01() {
        let xml = "<transport xmlns='urn:xmpp:jingle:transports:raw-udp:1'>\
                   <candidate generation='0' id='x' ip='10.1.1.104' port='13540'/><candidate id='y'/></transport>";
        let Transport::RawUdp(raw) = read(xml).unwrap() else { panic!("not raw") };
        assert_eq!((raw.len(), raw[0].component, raw[0].port), (1, 1, 13540));
    }

    #[test]
    fn streams_without_their_required_parts_are_malformed() {
        assert!(read("<transport xmlns='urn:xmpp:jingle:transports:s5b:1'/>").is_err());
        for bad in ["sid='a'", "sid='a' block-size='0'", "sid='a' block-size='65536'", "block-size='4096'"] {
            assert!(read(&format!("<transport xmlns='urn:xmpp:jingle:transports:ibb:1' {bad}/>")).is_err(), "{bad}");
        }
        let xml = "<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='s'>\
                   <candidate cid='c' host='h' jid='a@b' priority='1'/><candidate cid='d' host='h' priority='1'/>\
                   </transport>";
        let Transport::S5b(s5b) = read(xml).unwrap() else { panic!("not s5b") };
        assert_eq!((s5b.candidates[0].port, s5b.candidates[0].kind), (1080, S5bKind::Direct));
        assert_eq!((s5b.candidates.len(), s5b.malformed_candidates), (1, 1));
    }
}

//! What we say of our media in SIP, and what the other side says of its own. Read RFC 3264 §5 to §8, RFC 4568 §5,
//! RFC 5763 §5, RFC 8643 and RFC 8839 §4 before touching this file.

use super::telephone::media::LineMedia;
use crate::transport::leg::Leg;
use crate::transport::sdes::SdesKey;
use crate::transport::srtp::SrtpProfile;
use crate::wire::candidate::{Candidate, Fingerprint, IceTransport};
use crate::wire::description::{Crypto, Parameter, PayloadType, Source};
use crate::wire::sdp::{Direction, Group, MediaDescription, Proto, SessionDescription as Sdp};
use crate::wire::sip::Host;
use crate::wire::xml::Text;
use std::net::SocketAddr;

/// How sound is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum MediaSecurity {
    /// Not at all: `RTP/AVP`.
    #[default]
    Plain,
    /// SRTP with keys that the signalling tells: `RTP/SAVP`, RFC 4568.
    Sdes,
    /// SRTP with keys of a DTLS handshake: `UDP/TLS/RTP/SAVP`, RFC 5763.
    Dtls,
}

impl MediaSecurity {
    /// `plain`, `sdes`, `dtls`
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            MediaSecurity::Plain => "plain",
            MediaSecurity::Sdes => "sdes",
            MediaSecurity::Dtls => "dtls",
        }
    }
}

/// What is offered to a SIP peer, and what is taken of its offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipMediaPolicy {
    /// What an offer of ours carries, and the only thing that is taken. `None`: SDES where the signalling is encrypted and
    /// plain RTP where it is not are offered, and whatever is best of an offer is taken.
    pub only: Option<MediaSecurity>,
    /// With DTLS, ICE is offered; where the other side offers it, it is taken.
    pub ice: bool,
    /// Suites of SDES, best first.
    pub suites: Vec<SrtpProfile>,
    /// SDES keys may go over signalling that is not encrypted (RFC 4568 §7 forbids it): laboratories, and networks that
    /// are trusted as a whole.
    pub keys_in_clear: bool,
}

impl Default for SipMediaPolicy {
    fn default() -> Self {
        Self { only: None, ice: true, suites: SrtpProfile::ALL.to_vec(), keys_in_clear: false }
    }
}

impl SipMediaPolicy {
    /// What an offer of ours carries. `secure`: the signalling is encrypted.
    #[must_use]
    pub fn offers(&self, secure: bool) -> MediaSecurity {
        self.only.unwrap_or(if secure { MediaSecurity::Sdes } else { MediaSecurity::Plain })
    }

    /// Whether an offer of that kind carries ICE: only WebRTC's endpoints are known to want it.
    #[must_use]
    pub fn offers_ice(&self, security: MediaSecurity) -> bool {
        self.ice && security == MediaSecurity::Dtls
    }

    /// Whether an offer of that kind is taken.
    #[must_use]
    pub fn takes(&self, security: MediaSecurity, secure: bool) -> bool {
        let told_safely = security != MediaSecurity::Sdes || secure || self.keys_in_clear;
        told_safely && self.only.is_none_or(|only| only == security)
    }
}

/// Why a description is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SdpFault {
    /// No `m=audio`, or none that is open.
    #[error("the other side offers no sound")]
    NoAudio,
    /// The answer refuses the only stream.
    #[error("the other side refuses the sound")]
    Refused,
    /// Nothing that this side may take: plain RTP where SRTP is demanded, keys over open signalling.
    #[error("the other side protects sound in no way that is allowed here")]
    Security,
    /// The answer is of another kind than the offer (RFC 3264 §6.1).
    #[error("the answer does not fit the offer")]
    Mismatch,
    /// A host name stands where the media goes to.
    #[error("the other side names a host instead of an address")]
    NoAddress,
}

/// What the other side says of the one stream that is used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Theirs {
    /// Its place among the streams.
    pub(super) index: usize,
    pub(super) proto: Proto,
    pub(super) security: MediaSecurity,
    /// `None`: nowhere for now (a hold of the old kind).
    pub(super) rtp: Option<SocketAddr>,
    pub(super) rtcp: Option<SocketAddr>,
    pub(super) mux: bool,
    /// Usable ones of `a=crypto`, best first.
    pub(super) keys: Vec<(u32, SdesKey)>,
    pub(super) fingerprints: Vec<Fingerprint>,
    pub(super) ice: Option<IceTransport>,
    pub(super) payload_types: Vec<PayloadType>,
    pub(super) direction: Direction,
}

/// An offer and what was read out of it.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    pub(super) sdp: Sdp,
    pub(super) theirs: Theirs,
}

/// What we have to say.
#[derive(Debug)]
pub(super) struct Ours<'a> {
    leg: &'a Leg,
    rtp: SocketAddr,
    rtcp: Option<SocketAddr>,
    security: MediaSecurity,
    /// Candidates, where the path is found by ICE.
    candidates: Option<&'a [Candidate]>,
    keys: &'a [(u32, SdesKey)],
    payload_types: Vec<PayloadType>,
    direction: Direction,
    cname: &'a str,
}

impl<'a> Ours<'a> {
    /// `flows`: we send, we receive. `None` without a socket.
    pub(super) fn new(
        leg: &'a Leg,
        media: &'a LineMedia,
        payload_types: Vec<PayloadType>,
        flows: (bool, bool),
        cname: &'a str,
    ) -> Option<Self> {
        Some(Self {
            leg,
            rtp: *media.sockets.first()?,
            rtcp: media.sockets.get(1).copied().filter(|_| !media.ice),
            security: media.security,
            candidates: media.ice.then_some(media.candidates.as_slice()),
            keys: &media.keys,
            payload_types,
            direction: Direction::of(flows.0, flows.1),
            cname,
        })
    }

    fn stream(&self, proto: Proto, mux: bool, mid: Option<&Text>) -> MediaDescription {
        let mut stream = MediaDescription::rtp("audio", self.rtp.port(), proto, self.payload_types.clone());
        for payload_type in &mut stream.payload_types {
            payload_type.ptime_ms.get_or_insert(PTIME_MS);
        }
        stream.mid = mid.cloned();
        stream.level.direction = Some(self.direction);
        stream.rtcp.mux = mux;
        // RFC 3605: told wherever it is not the next port, or does not exist.
        let next = self.rtp.port().checked_add(1);
        stream.rtcp.at = match self.rtcp {
            Some(rtcp) if Some(rtcp.port()) != next => Some((rtcp.port(), None)),
            Some(_) => None,
            None => Some((self.rtp.port(), None)),
        };
        let cname = Parameter { name: "cname".into(), value: Some(self.cname.into()) };
        stream.sources = vec![Source { ssrc: self.leg.ssrc().0, parameters: vec![cname] }];
        match self.security {
            MediaSecurity::Plain => {}
            MediaSecurity::Sdes => stream.cryptos.extend(self.keys.iter().map(|(tag, key)| crypto(*tag, key))),
            MediaSecurity::Dtls => {
                let fingerprint = self.leg.local_fingerprint();
                stream.level.setup = Some(self.leg.setup());
                stream.level.fingerprints = fingerprint.into_iter().map(|f| Fingerprint { setup: None, ..f }).collect();
            }
        }
        if let Some(candidates) = self.candidates {
            let creds = self.leg.local_credentials();
            let ice = &mut stream.level.ice;
            ice.ufrag = Some(creds.ufrag);
            ice.pwd = Some(creds.pwd);
            ice.candidates = candidates.to_vec();
            // RFC 8840 §4.2.4: who does not know trickle reads over it.
            ice.end_of_candidates = true;
        }
        stream
    }
}

/// RFC 3551 §4.2
const PTIME_MS: u32 = 20;

/// Our offer: one stream of sound.
pub(super) fn offer(session_id: u64, ours: &Ours<'_>) -> Sdp {
    let proto = match ours.security {
        MediaSecurity::Plain => Proto::Avp,
        MediaSecurity::Sdes => Proto::Savp,
        // RFC 8835, and what Asterisk's WebRTC endpoints want; others take it as it differs in RTCP only.
        MediaSecurity::Dtls if ours.candidates.is_some() => Proto::DtlsSavpf,
        MediaSecurity::Dtls => Proto::DtlsSavp,
    };
    let mut sdp = describe(session_id, ours);
    let mid = ours.candidates.is_some().then(|| Text::from("0"));
    sdp.media.push(ours.stream(proto, true, mid.as_ref()));
    sdp.groups.extend(mid.map(|mid| Group { semantics: "BUNDLE".into(), mids: vec![mid] }));
    sdp
}

/// Our answer: the stream that is used, and a refusal for every other one (RFC 3264 §6).
pub(super) fn answer(session_id: u64, offered: &Offered, ours: &Ours<'_>) -> Sdp {
    let theirs = &offered.theirs;
    let mut sdp = describe(session_id, ours);
    for (index, stream) in offered.sdp.media.iter().enumerate() {
        sdp.media.push(if index == theirs.index {
            ours.stream(theirs.proto.clone(), theirs.mux, stream.mid.as_ref())
        } else {
            stream.refusal()
        });
    }
    let mid = offered.sdp.media.get(theirs.index).and_then(|stream| stream.mid.clone());
    let bundled = |group: &&Group| group.semantics == "BUNDLE" && mid.as_ref().is_some_and(|m| group.mids.contains(m));
    if offered.sdp.groups.iter().any(|group| bundled(&group)) {
        sdp.groups.push(Group { semantics: "BUNDLE".into(), mids: mid.into_iter().collect() });
    }
    sdp
}

fn describe(session_id: u64, ours: &Ours<'_>) -> Sdp {
    let mut sdp = Sdp::new(session_id, 1, ours.rtp.ip());
    sdp.level.connection = Some(Host::Ip(ours.rtp.ip()));
    sdp
}

fn crypto(tag: u32, key: &SdesKey) -> Crypto {
    Crypto {
        tag: tag.to_string().into(),
        suite: key.profile.sdes_name().into(),
        key_params: key.key_params().into(),
        session_params: None,
    }
}

/// The best stream of sound of an offer that may be taken: DTLS before SDES before plain RTP, then the first.
pub(super) fn read_offer(sdp: &Sdp, policy: &SipMediaPolicy, secure: bool) -> Result<Theirs, SdpFault> {
    let mut best: Option<Theirs> = None;
    let mut fault = SdpFault::NoAudio;
    for (index, stream) in sdp.media.iter().enumerate() {
        if stream.media != "audio" || stream.port == 0 || !stream.proto.is_rtp() {
            continue;
        }
        match read_stream(sdp, index, stream, |security| policy.takes(security, secure), policy) {
            Ok(theirs) if best.as_ref().is_none_or(|best| theirs.security > best.security) => best = Some(theirs),
            Ok(_) => {}
            Err(why) => fault = why,
        }
    }
    best.ok_or(fault)
}

/// The answer to our one stream.
pub(super) fn read_answer(sdp: &Sdp, security: MediaSecurity) -> Result<Theirs, SdpFault> {
    let stream = sdp.media.first().ok_or(SdpFault::NoAudio)?;
    if stream.port == 0 || stream.media != "audio" {
        return Err(SdpFault::Refused);
    }
    let policy = SipMediaPolicy::default();
    match read_stream(sdp, 0, stream, |known| known == security, &policy) {
        Err(SdpFault::Security) => Err(SdpFault::Mismatch),
        read => read,
    }
}

fn read_stream(
    sdp: &Sdp,
    index: usize,
    stream: &MediaDescription,
    takes: impl Fn(MediaSecurity) -> bool,
    policy: &SipMediaPolicy,
) -> Result<Theirs, SdpFault> {
    let fingerprints = sdp.fingerprints_of(stream);
    let keys = keys(stream, policy);
    // RFC 8643 §3: keys may stand with plain RTP too, for those who want them.
    let open = !stream.proto.is_dtls() && !stream.proto.is_sdes();
    let dtls = !fingerprints.is_empty() && (stream.proto.is_dtls() || open || keys.is_empty());
    let security = [
        (MediaSecurity::Dtls, dtls),
        (MediaSecurity::Sdes, !keys.is_empty() && !stream.proto.is_dtls()),
        (MediaSecurity::Plain, open),
    ]
    .into_iter()
    .find_map(|(security, there)| (there && takes(security)).then_some(security))
    .ok_or(SdpFault::Security)?;
    let ice = sdp.ice_creds_of(stream).map(|creds| IceTransport {
        ufrag: Some(creds.ufrag),
        pwd: Some(creds.pwd),
        candidates: stream.level.ice.candidates.clone(),
        // RFC 8840 §4.2: more come only where trickle is spoken, which our descriptions do not say.
        gathering_complete: true,
        ..IceTransport::default()
    });
    let ice = ice.filter(|ice| !ice.candidates.is_empty() && security != MediaSecurity::Plain);
    let named = matches!(sdp.connection_of(stream), Some(Host::Name(_)));
    if named && ice.is_none() {
        return Err(SdpFault::NoAddress);
    }
    let rtp = sdp.address_of(stream).filter(|addr| !addr.ip().is_unspecified());
    let rtcp = stream.rtcp.at.and_then(|(port, ip)| Some(SocketAddr::new(ip.or(rtp.map(|rtp| rtp.ip()))?, port)));
    Ok(Theirs {
        index,
        proto: stream.proto.clone(),
        security,
        rtp,
        rtcp,
        mux: stream.rtcp.mux,
        keys,
        fingerprints,
        ice,
        payload_types: stream.payload_types.clone(),
        direction: sdp.direction_of(stream),
    })
}

/// Usable lines in the order of our preference; the others are left out (RFC 4568 §5.1.2).
fn keys(stream: &MediaDescription, policy: &SipMediaPolicy) -> Vec<(u32, SdesKey)> {
    let mut keys: Vec<(u32, SdesKey)> = Vec::new();
    for line in &stream.cryptos {
        let parameters: Vec<&str> = line.session_params.as_deref().unwrap_or_default().split_whitespace().collect();
        let Ok(tag) = line.tag.parse() else { continue };
        match SdesKey::parse(&line.suite, &line.key_params, &parameters) {
            Ok(key) => keys.push((tag, key)),
            Err(why) => tracing::debug!(%why, "a crypto line is left out"),
        }
    }
    let rank = |profile: SrtpProfile| policy.suites.iter().position(|suite| *suite == profile);
    keys.retain(|(_, key)| rank(key.profile).is_some());
    keys.sort_by_key(|(_, key)| rank(key.profile));
    keys
}

//! The audio content we offer and answer with. Read XEP-0167 §4 to §6, XEP-0176 §5 and XEP-0320 §1 before touching this file.

use crate::media::codec::Negotiated;
use crate::transport::leg::Leg;
use crate::wire::candidate::{Candidate, CandidateAddr, Fingerprint, IceTransport, Transport};
use crate::wire::description::{Description, Parameter, PayloadType, RtpDescription, Source};
use crate::wire::jingle::{Content, Creator, Disposition, Group, Senders};
use std::time::Instant;

/// Name of the one content that we create.
pub(super) const AUDIO: &str = "audio";
const BUNDLE: &str = "BUNDLE";

/// The RTP half of a content, if it is RTP.
pub(super) fn rtp(content: &Content) -> Option<&RtpDescription> {
    match &content.description {
        Some(Description::Rtp(rtp)) => Some(rtp),
        Some(Description::File(_) | Description::Unknown { .. }) | None => None,
    }
}

/// The ICE half of a content, if it is ICE.
pub(super) fn ice(content: &Content) -> Option<&IceTransport> {
    match &content.transport {
        Some(Transport::Ice(ice)) => Some(ice),
        Some(Transport::RawUdp(_) | Transport::S5b(_) | Transport::Ibb(_) | Transport::Unknown { .. }) | None => None,
    }
}

/// The first audio content among those of an offer or answer.
pub(super) fn audio(contents: &[Content]) -> Option<&Content> {
    contents.iter().find(|c| rtp(c).is_some_and(|d| d.media == "audio") && ice(c).is_some())
}

/// Our half of the transport, with these candidates.
pub(super) fn local_transport(leg: &Leg, candidates: Vec<Candidate>) -> IceTransport {
    let creds = leg.local_credentials();
    IceTransport {
        ufrag: Some(creds.ufrag),
        pwd: Some(creds.pwd),
        candidates,
        fingerprints: leg.local_fingerprint().into_iter().collect(),
        ..IceTransport::default()
    }
}

/// A transport-info that carries only news: credentials and candidates.
pub(super) fn trickle(leg: &Leg, candidates: Vec<Candidate>, gathering_complete: bool) -> IceTransport {
    IceTransport { fingerprints: Vec::new(), gathering_complete, ..local_transport(leg, candidates) }
}

/// Hands a leg what the peer said of its transport.
pub(super) fn tell_leg(leg: &mut Leg, now: Instant, transport: &IceTransport, fingerprints: &[Fingerprint]) {
    if transport.creds().is_some() || !fingerprints.is_empty() {
        leg.set_remote(now, transport.creds(), fingerprints);
    }
    for candidate in &transport.candidates {
        if let Err(why) = leg.add_remote_candidate(now, candidate) {
            let hidden = matches!(candidate.addr, CandidateAddr::Mdns(_));
            tracing::debug!(hidden, %why, "a candidate is left out");
        }
    }
    if transport.gathering_complete {
        leg.end_of_remote_candidates(now);
    }
}

fn description(payload_types: Vec<PayloadType>, leg: &Leg, cname: &str) -> RtpDescription {
    RtpDescription {
        media: "audio".into(),
        payload_types,
        rtcp_mux: true,
        sources: vec![Source {
            ssrc: leg.ssrc().0,
            parameters: vec![Parameter { name: "cname".into(), value: Some(cname.into()) }],
        }],
        ..RtpDescription::default()
    }
}

/// The content of our session-initiate and its group.
pub(super) fn offered(
    payload_types: Vec<PayloadType>,
    leg: &Leg,
    cname: &str,
    candidates: Vec<Candidate>,
) -> (Content, Vec<Group>) {
    let content = Content {
        creator: Creator::Initiator,
        name: AUDIO.to_owned(),
        senders: Some(Senders::Both),
        disposition: Disposition::Session,
        description: Some(Description::Rtp(Box::new(description(payload_types, leg, cname)))),
        transport: Some(Transport::Ice(Box::new(local_transport(leg, candidates)))),
        security: None,
    };
    (content, vec![Group { semantics: BUNDLE.into(), names: vec![AUDIO.into()] }])
}

/// The content of our session-accept for `theirs`, and the group if they had one for it (J338-03).
pub(super) fn answered(
    theirs: &Content,
    groups: &[Group],
    negotiated: &Negotiated,
    leg: &Leg,
    cname: &str,
    candidates: Vec<Candidate>,
) -> (Content, Vec<Group>) {
    let offered = rtp(theirs);
    let ours = RtpDescription {
        rtcp_mux: offered.is_some_and(|d| d.rtcp_mux),
        ..description(negotiated.payload_types.clone(), leg, cname)
    };
    let content = Content {
        creator: theirs.creator,
        name: theirs.name.clone(),
        senders: Some(theirs.senders.unwrap_or(Senders::Both)),
        disposition: Disposition::Session,
        description: Some(Description::Rtp(Box::new(ours))),
        transport: Some(Transport::Ice(Box::new(local_transport(leg, candidates)))),
        security: None,
    };
    let bundled = groups.iter().any(|g| g.semantics == BUNDLE && g.names.iter().any(|n| *n == theirs.name));
    let groups = bundled.then(|| Group { semantics: BUNDLE.into(), names: vec![theirs.name.as_str().into()] });
    (content, groups.into_iter().collect())
}

/// `sha-256 AB:CD:…`, as people compare it.
pub(super) fn fingerprint_text(fingerprint: &Fingerprint) -> String {
    let hex: Vec<String> = fingerprint.value.iter().map(|b| format!("{b:02X}")).collect();
    format!("{} {}", fingerprint.hash, hex.join(":"))
}

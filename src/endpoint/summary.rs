//! One line about a stanza of signalling, for a ladder that people read. No address and no secret goes in.

use super::offer;
use crate::wire::candidate::Transport;
use crate::wire::description::Info;
use crate::wire::jingle::{Jingle, Jmi, JmiKind};

/// Action and what is most telling in it.
pub(super) fn jingle(jingle: &Jingle) -> String {
    let mut out = jingle.action.as_str().to_owned();
    let mut details = Vec::new();
    for content in &jingle.contents {
        if let Some(rtp) = offer::rtp(content) {
            let names: Vec<&str> = rtp.payload_types.iter().map(|p| p.name.as_str()).take(2).collect();
            details.push(names.join(" "));
        }
        if let Some(file) = super::transfer::file_of(content) {
            details.push("file".to_owned());
            details.extend(file.size.map(|size| format!("{size} bytes")));
            let from = file.range.as_ref().map_or(0, |range| range.offset);
            details.extend((from > 0).then(|| format!("from byte {from}")));
        }
        match &content.transport {
            Some(Transport::Ice(ice)) => {
                details.extend(ice.sctp.is_some().then(|| "data channel".to_owned()));
                candidates(&mut details, ice.candidates.len());
                details.extend(ice.gathering_complete.then(|| "complete".to_owned()));
            }
            Some(Transport::S5b(s5b)) => {
                details.push("bytestream".to_owned());
                candidates(&mut details, s5b.candidates.len());
                details.extend(s5b.candidate_used.is_some().then(|| "used".to_owned()));
                details.extend(s5b.candidate_error.then(|| "none works".to_owned()));
                details.extend(s5b.activated.is_some().then(|| "activated".to_owned()));
                details.extend(s5b.proxy_error.then(|| "proxy fails".to_owned()));
            }
            Some(Transport::Ibb(ibb)) => details.push(format!("in-band, {} bytes a block", ibb.block_size)),
            Some(Transport::RawUdp(_) | Transport::Unknown { .. }) | None => {}
        }
    }
    match &jingle.info {
        Some(Info::Ringing) => details.push("ringing".to_owned()),
        Some(Info::Hold) => details.push("hold".to_owned()),
        Some(Info::Unhold) => details.push("unhold".to_owned()),
        Some(Info::Mute(_)) => details.push("mute".to_owned()),
        Some(Info::Unmute(_)) => details.push("unmute".to_owned()),
        Some(Info::Received(..)) => details.push("received".to_owned()),
        Some(Info::Checksum(..)) => details.push("checksum".to_owned()),
        Some(Info::Active | Info::Dtmf(_) | Info::Unknown { .. }) | None => {}
    }
    if let Some(reason) = &jingle.reason {
        details.push(reason.condition.to_string());
    }
    if !details.is_empty() {
        out.push_str(&format!(" ({})", details.join(", ")));
    }
    out
}

fn candidates(details: &mut Vec<String>, count: usize) {
    match count {
        0 => {}
        1 => details.push("1 candidate".to_owned()),
        n => details.push(format!("{n} candidates")),
    }
}

/// Name of the message.
pub(super) fn invitation(jmi: &Jmi) -> String {
    match &jmi.kind {
        JmiKind::Propose(_) => "propose",
        JmiKind::Ringing => "ringing",
        JmiKind::Proceed => "proceed",
        JmiKind::Accept => "accept",
        JmiKind::Reject { .. } => "reject",
        JmiKind::Retract { .. } => "retract",
        JmiKind::Finish { .. } => "finish",
    }
    .to_owned()
}

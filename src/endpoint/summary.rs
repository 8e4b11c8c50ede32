//! One line about a stanza of signalling, for a ladder that people read. No address and no secret goes in.

use super::offer;
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
        if let Some(ice) = offer::ice(content) {
            match ice.candidates.len() {
                0 => {}
                n => details.push(format!("{n} candidate{}", if n == 1 { "" } else { "s" })),
            }
            if ice.gathering_complete {
                details.push("complete".to_owned());
            }
        }
    }
    match &jingle.info {
        Some(Info::Ringing) => details.push("ringing".to_owned()),
        Some(Info::Hold) => details.push("hold".to_owned()),
        Some(Info::Unhold) => details.push("unhold".to_owned()),
        Some(Info::Mute(_)) => details.push("mute".to_owned()),
        Some(Info::Unmute(_)) => details.push("unmute".to_owned()),
        Some(Info::Active | Info::Received(..) | Info::Checksum(..) | Info::Dtmf(_) | Info::Unknown { .. }) | None => {}
    }
    if let Some(reason) = &jingle.reason {
        details.push(reason.condition.to_string());
    }
    if !details.is_empty() {
        out.push_str(&format!(" ({})", details.join(", ")));
    }
    out
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

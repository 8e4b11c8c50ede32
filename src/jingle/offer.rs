//! A session-initiate of the peer: what of it can work here, and whether it is protected.
//! Read XEP-0166 §6.2, §6.3 and XEP-0320 §1 before touching this file.

use crate::fault::{Incompatible, PeerFault};
use crate::jingle::content::{Content, ContentKey, Stage, ice_of, needs_dtls, restrict, tagged};
use crate::jingle::inbound::{application_of, cap_content, carrier_of, fits, works};
use crate::jingle::session::{Body, EndedBy, Parties, Role, Session, SessionContext, SessionEvent, say};
use crate::jingle::state::{Live, State, Step};
use crate::wire::description::Description;
use crate::wire::jingle::{self as element, Disposition, Group, Jingle};
use crate::wire::ns;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an offer with an empty transport may owe its fingerprint: a trickling peer sends it within a round trip.
const FINGERPRINT_WAIT: Duration = Duration::from_secs(3);
/// Longest sid and content name kept of a peer; those of clients have 10 to 40 bytes.
pub(crate) const NAME_BYTES: usize = 256;

/// session-initiate (XEP-0166 §6.2, §6.3).
impl Session {
    /// A session from the peer's session-initiate: acknowledged at once (J166-02), then either the user is asked or, if
    /// nothing of it can work here, it is terminated (J166-03).
    ///
    /// # Errors
    /// The fault with which the IQ is to be refused; there is no session then.
    pub fn respond(
        now: Instant,
        parties: Parties,
        context: Arc<SessionContext>,
        id: String,
        jingle: Jingle,
    ) -> Result<Self, PeerFault> {
        check_offer(&jingle, context.limits.contents)?;
        let limits = context.limits;
        let mut contents: Vec<element::Content> = Vec::with_capacity(jingle.contents.len());
        for mut content in jingle.contents {
            // J166-52: a second content of the same name is an alternative; the first one is taken.
            if contents.iter().all(|c| ContentKey::of(c) != ContentKey::of(&content)) {
                cap_content(&mut content, limits.remote_candidates, limits.payload_types);
                contents.push(content);
            }
        }
        let policy = context.policy.clone();
        let ring = now + context.timers.ring;
        let live = Live {
            step: Step::Ringing { until: ring },
            contents: Vec::new(),
            groups: Vec::new(),
            flights: Vec::new(),
            gone_at: None,
        };
        let mut session = Self::with(parties, Role::Responder, context, live);
        session.push(id, Body::Result);
        // J166-03: what does not work here is left out; if nothing is left the session ends with the reason.
        contents.retain(|c| works(application_of(c), policy.applications));
        if contents.is_empty() {
            session.terminate_for(Incompatible::Applications, "No application of this offer is supported.");
            return Ok(session);
        }
        contents.retain(|c| works(carrier_of(c), policy.transports) && fits(c));
        if contents.is_empty() {
            session.terminate_for(Incompatible::Transports, "No transport of this offer is supported.");
            return Ok(session);
        }
        let groups = restrict(&jingle.groups, |name| contents.iter().any(|c| c.name == name));
        let mut owing = false;
        if let State::Live(live) = &mut session.state {
            live.contents = contents.iter().map(|c| Content::new(c, Stage::Offered, false)).collect();
            live.groups.clone_from(&groups);
        }
        for content in &contents {
            match protection(content, &contents, &groups, policy.require_dtls) {
                Protection::Given => {}
                Protection::Owed => owing = true,
                Protection::Missing => {
                    session.refuse_security(Some(&content.name));
                    return Ok(session);
                }
            }
        }
        let event = SessionEvent::Incoming { contents, groups };
        if owing && let State::Live(live) = &mut session.state {
            live.step = Step::AwaitingFingerprint { until: now + FINGERPRINT_WAIT, held: vec![event] };
        } else {
            session.emit(event);
        }
        Ok(session)
    }

    /// Ends the session because a content is not protected by DTLS-SRTP; the text names it (J320-05, complaint 2).
    pub(crate) fn refuse_security(&mut self, content: Option<&str>) {
        let unprotected = |c: &&Content| c.needs_dtls() && c.remote.fingerprints().is_empty();
        let first = self.live().and_then(|live| live.contents.iter().find(unprotected)).map(|c| c.key.name.clone());
        let name = content.map(str::to_owned).or(first).unwrap_or_default();
        let text =
            format!("The content '{name}' comes without a DTLS fingerprint, and only encrypted calls are taken.");
        let mut reason = say(Incompatible::Security.reason(), &text);
        // J167-17.
        reason.detail = Some((ns::RTP_ERRORS.to_owned(), "crypto-required".to_owned()));
        self.terminate(reason, EndedBy::Local);
    }

    pub(crate) fn terminate_for(&mut self, what: Incompatible, text: &str) {
        self.terminate(say(what.reason(), text), EndedBy::Local);
    }

    /// Lets the user be asked once every content has its fingerprint.
    pub(crate) fn settle_fingerprints(&mut self, now: Instant) {
        let until = now + self.context.timers.ring;
        let require = self.context.policy.require_dtls;
        let State::Live(live) = &mut self.state else { return };
        if !live.unprotected(require).is_empty() {
            return;
        }
        if let Step::AwaitingFingerprint { held, .. } = &mut live.step {
            let held = std::mem::take(held);
            live.step = Step::Ringing { until };
            held.into_iter().for_each(|event| self.emit(event));
        }
    }
}

/// How a content is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// By a fingerprint, its own or that of its group; or nothing is to be protected.
    Given,
    /// The transport is empty: the fingerprint may follow with the credentials (J176-01, users' complaint 3).
    Owed,
    /// Not at all, or only by keys in the clear.
    Missing,
}

pub(crate) fn protection(
    content: &element::Content,
    all: &[element::Content],
    groups: &[Group],
    required: bool,
) -> Protection {
    if !needs_dtls(content.description.as_ref(), content.transport.as_ref()) {
        return Protection::Given;
    }
    let protected = |c: &element::Content| ice_of(c).is_some_and(|ice| !ice.fingerprints.is_empty());
    let by_group =
        tagged(groups, &content.name).is_some_and(|first| all.iter().any(|c| c.name == first && protected(c)));
    if protected(content) || by_group {
        return Protection::Given;
    }
    // Keys that any server on the way can read are not taken, whatever the policy (threats: downgrade to SDES).
    let sdes = match &content.description {
        Some(Description::Rtp(rtp)) => rtp.encryption.as_ref(),
        Some(Description::File(_) | Description::Unknown { .. }) | None => None,
    };
    if sdes.is_some_and(|sdes| required || sdes.required) {
        return Protection::Missing;
    }
    if !required {
        return Protection::Given;
    }
    match ice_of(content) {
        Some(ice) if ice.ufrag.is_none() && ice.candidates.is_empty() => Protection::Owed,
        Some(_) | None => Protection::Missing,
    }
}

/// The rules of a session-initiate (J166-01, J166-08, J166-44).
fn check_offer(jingle: &Jingle, most: usize) -> Result<(), PeerFault> {
    let complete = |c: &element::Content| c.description.is_some() && c.transport.is_some();
    let name = |text: &str| text.len() <= NAME_BYTES;
    let contents = &jingle.contents;
    if contents.is_empty() || !contents.iter().all(|c| complete(c) && name(&c.name)) {
        return Err(PeerFault::BadRequest);
    }
    if jingle.sid.0.is_empty() || !name(&jingle.sid.0) {
        return Err(PeerFault::BadRequest);
    }
    // J166-44.
    if contents.iter().all(|c| c.disposition != Disposition::Session) {
        return Err(PeerFault::BadRequest);
    }
    if contents.len() > most {
        return Err(PeerFault::NoResources);
    }
    Ok(())
}

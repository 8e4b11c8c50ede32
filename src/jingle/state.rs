//! Where a session stands, what it awaits, and the rules that our own offers and answers keep.
//! Read XEP-0166 §5.1 and §7.2.8 before touching this file.

use crate::jingle::content::{Content, ContentKey, Stage, ice_of, kept, needs_dtls, restrict, tagged};
use crate::jingle::exchange::{End, Misuse, SessionEvent};
use crate::jingle::session::Role;
use crate::wire::candidate::Setup;
use crate::wire::jingle::{self as element, Disposition, Group, Senders};
use std::collections::BTreeSet;
use std::time::Instant;

/// What is awaited while a session lives.
///
/// ```text
///                        ┌──────────────── our session-initiate ──▶ Offering ──── session-accept arrives ───┐
///  (no session: NONE) ───┤                                                                                  ▼
///                        └─ the peer's ─▶ AwaitingFingerprint ─▶ Ringing ──── accept() by the user ────▶ Active
///                                                 │                 │                                       │
///        every step: session-terminate sent or received, a timer, an error on session-initiate ──▶ State::Ended
/// ```
///
/// PENDING of XEP-0166 §5.1 is the first three steps.
#[derive(Debug)]
pub(crate) enum Step {
    /// Initiator: the peer's session-accept.
    Offering {
        /// Ring time of our side.
        until: Instant,
    },
    /// Responder: an offer with an empty transport owes its fingerprint; the user knows nothing yet.
    AwaitingFingerprint {
        /// When the offer is refused.
        until: Instant,
        /// What the user is asked then, and what follows it.
        held: Vec<SessionEvent>,
    },
    /// Responder: the user.
    Ringing {
        /// Ring time of our side.
        until: Instant,
    },
    /// Both sides agreed.
    Active,
}

/// What is known while a session lives.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) step: Step,
    pub(crate) contents: Vec<Content>,
    pub(crate) groups: Vec<Group>,
    pub(crate) flights: Vec<Flight>,
    /// The peer is unavailable; without traffic the session ends then (J166-18).
    pub(crate) gone_at: Option<Instant>,
}

#[derive(Debug)]
pub(crate) enum State {
    Live(Box<Live>),
    Ended(Box<End>),
}

/// An IQ of ours that awaits its answer (J166-66).
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) number: u32,
    pub(crate) deadline: Instant,
    pub(crate) what: Flown,
}

/// What an IQ of ours asked for, as far as its answer changes something.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Flown {
    Initiate,
    Accept,
    Info,
    Ping,
    ContentAdd(Vec<ContentKey>),
    /// With the direction before it.
    ContentModify(ContentKey, Senders),
    ContentRemove(ContentKey),
    TransportInfo(ContentKey),
    TransportReplace(ContentKey),
    /// Its answer changes nothing: accepts, rejects, description-info, or what lost a tie.
    Other,
}

impl Live {
    pub(crate) fn content(&self, key: &ContentKey) -> Option<&Content> {
        self.contents.iter().find(|c| c.key == *key)
    }

    pub(crate) fn own(&mut self, key: &ContentKey) -> Result<&mut Content, Misuse> {
        self.contents.iter_mut().find(|c| c.key == *key).ok_or(Misuse::NoContent)
    }

    /// Takes a content out of the session and of its groups (J338-03).
    pub(crate) fn remove(&mut self, key: &ContentKey) {
        self.contents.retain(|c| c.key != *key);
        let contents = &self.contents;
        self.groups = restrict(&self.groups, |name| contents.iter().any(|c| c.key.name == name));
    }

    /// Notes our halves of accepted contents and completes their elements for the wire.
    pub(crate) fn take_answer(&mut self, answer: Vec<element::Content>) -> Vec<element::Content> {
        let mut complete = Vec::with_capacity(answer.len());
        for mut content in answer {
            let key = ContentKey::of(&content);
            let Some(known) = self.contents.iter_mut().find(|c| c.key == key) else { continue };
            if let Some(senders) = content.senders {
                known.senders = senders;
            }
            content.senders = Some(known.senders);
            content.disposition = known.disposition.clone();
            known.local.description.clone_from(&content.description);
            known.local.transport = content.transport.as_ref().map(kept);
            known.stage = Stage::Agreed;
            complete.push(content);
        }
        complete
    }
}

/// Our offer, made complete for the wire: creator, senders (J166-01, J166-51).
pub(crate) fn complete_offer(mut contents: Vec<element::Content>, role: Role) -> Result<Vec<element::Content>, Misuse> {
    if contents.is_empty() || contents.iter().any(|c| c.description.is_none() || c.transport.is_none()) {
        return Err(Misuse::Incomplete);
    }
    let mut names = BTreeSet::new();
    for content in &mut contents {
        if !names.insert(content.name.clone()) {
            return Err(Misuse::Duplicate);
        }
        content.creator = role.creator();
        content.senders.get_or_insert(Senders::Both);
    }
    Ok(contents)
}

/// The rules of a session-accept of ours.
pub(crate) fn check_answer(
    live: &Live,
    contents: &[element::Content],
    groups: &[Group],
    require_dtls: bool,
) -> Result<(), Misuse> {
    if contents.is_empty() {
        return Err(Misuse::Incomplete);
    }
    let mut keys = BTreeSet::new();
    for content in contents {
        let key = ContentKey::of(content);
        // J166-43: early media is answered by content-accept.
        let offered =
            live.content(&key).is_some_and(|c| c.stage == Stage::Offered && c.disposition == Disposition::Session);
        if !offered {
            return Err(Misuse::NoContent);
        }
        if !keys.insert(key) {
            return Err(Misuse::Duplicate);
        }
        if content.description.is_none() || content.transport.is_none() {
            return Err(Misuse::Incomplete);
        }
        let fingerprints = ice_of(content).map_or(&[][..], |ice| &ice.fingerprints);
        let open = needs_dtls(content.description.as_ref(), content.transport.as_ref());
        let follows = tagged(groups, &content.name).is_some_and(|first| first != content.name);
        if open && require_dtls && fingerprints.is_empty() && !follows {
            return Err(Misuse::Incomplete);
        }
        // J320-02: an answer has taken its side.
        if fingerprints.iter().any(|f| !matches!(f.setup, Some(Setup::Active | Setup::Passive))) {
            return Err(Misuse::Incomplete);
        }
    }
    Ok(())
}

//! One content: its key, direction, both halves as negotiated, and what is pending on it.
//! Read XEP-0166 §7.3, XEP-0167 §8, XEP-0338 and RFC 9143 §7 before touching this file.

use crate::jingle::session::Role;
use crate::wire::candidate::{Fingerprint, IceTransport, Transport};
use crate::wire::description::Description;
use crate::wire::jingle::{self as element, Creator, Disposition, Group, Senders};
use crate::wire::ns;

/// What names a content inside a session: who generated it and how (J166-50).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentKey {
    /// Who generated it, whoever sends the stanza.
    pub creator: Creator,
    /// Unique together with the creator.
    pub name: String,
}

impl ContentKey {
    /// The key of a content element.
    #[must_use]
    pub fn of(content: &element::Content) -> Self {
        Self { creator: content.creator, name: content.name.clone() }
    }

    /// A content element that only names its content.
    #[must_use]
    pub fn element(&self) -> element::Content {
        element::Content {
            creator: self.creator,
            name: self.name.clone(),
            senders: None,
            disposition: Disposition::Session,
            description: None,
            transport: None,
            security: None,
        }
    }
}

impl std::fmt::Display for ContentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.creator, self.name)
    }
}

/// Which way media flows, in the words of SDP (RFC 8866 §6.7), as one side sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// This side only sends.
    SendOnly,
    /// This side only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

/// `senders` as the side in `role` sees it (J166-53).
#[must_use]
pub const fn direction(senders: Senders, role: Role) -> Direction {
    match (senders, role) {
        (Senders::Both, _) => Direction::SendRecv,
        (Senders::None, _) => Direction::Inactive,
        (Senders::Initiator, Role::Initiator) | (Senders::Responder, Role::Responder) => Direction::SendOnly,
        (Senders::Initiator, Role::Responder) | (Senders::Responder, Role::Initiator) => Direction::RecvOnly,
    }
}

/// The `senders` value for a direction as the side in `role` sees it (J166-53).
#[must_use]
pub const fn senders(direction: Direction, role: Role) -> Senders {
    match (direction, role) {
        (Direction::SendRecv, _) => Senders::Both,
        (Direction::Inactive, _) => Senders::None,
        (Direction::SendOnly, Role::Initiator) | (Direction::RecvOnly, Role::Responder) => Senders::Initiator,
        (Direction::SendOnly, Role::Responder) | (Direction::RecvOnly, Role::Initiator) => Senders::Responder,
    }
}

/// How far a content is agreed.
///
/// ```text
///  session-initiate ─▶ Offered ── session-accept ──▶ Agreed
///  content-add ──────▶ Adding(by) ── content-accept ──▶ Agreed
///  any of them ── content-reject, content-remove, not in session-accept ──▶ gone
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Part of the session-initiate; awaits session-accept.
    Offered,
    /// Proposed by content-add from this side; awaits content-accept or content-reject.
    Adding(Role),
    /// Both sides have it.
    Agreed,
}

/// What one side said about a content.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Half {
    /// What it exchanges.
    pub description: Option<Description>,
    /// How it travels, without its candidates: those are handed on, not kept.
    pub transport: Option<Transport>,
}

impl Half {
    /// ICE transport of this half, if it is one.
    #[must_use]
    pub fn ice(&self) -> Option<&IceTransport> {
        match &self.transport {
            Some(Transport::Ice(ice)) => Some(ice),
            Some(Transport::RawUdp(_) | Transport::S5b(_) | Transport::Ibb(_) | Transport::Unknown { .. }) | None => {
                None
            }
        }
    }

    /// Username fragment in force.
    #[must_use]
    pub fn ufrag(&self) -> Option<&str> {
        self.ice().and_then(|ice| ice.ufrag.as_deref())
    }

    /// DTLS fingerprints in force.
    #[must_use]
    pub fn fingerprints(&self) -> &[Fingerprint] {
        self.ice().map_or(&[], |ice| &ice.fingerprints)
    }
}

/// What a side has asked for besides `senders` (XEP-0167 §8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quiet {
    /// It does not listen; the other side stops sending (J167-21) but keeps receiving (J167-22).
    pub on_hold: bool,
    /// It does not send.
    pub muted: bool,
}

/// One content of a session, as this side knows it (J166-34).
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// Its name.
    pub key: ContentKey,
    /// Which side sends.
    pub senders: Senders,
    /// What it is for.
    pub disposition: Disposition,
    /// How far it is agreed.
    pub stage: Stage,
    /// Our half.
    pub local: Half,
    /// The peer's half.
    pub remote: Half,
    /// What we asked for.
    pub local_quiet: Quiet,
    /// What the peer asked for.
    pub remote_quiet: Quiet,
}

impl Content {
    /// True if our side, in `role`, may send media now; the session's own consent comes on top.
    #[must_use]
    pub fn may_send(&self, role: Role) -> bool {
        self.stage == Stage::Agreed
            && matches!(direction(self.senders, role), Direction::SendRecv | Direction::SendOnly)
            && !self.remote_quiet.on_hold
            && !self.local_quiet.muted
    }
}

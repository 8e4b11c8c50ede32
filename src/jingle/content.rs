//! One content: its key, direction, both halves as negotiated, and what is pending on it.
//! Read XEP-0166 §7.3, XEP-0167 §8, XEP-0338 and RFC 9143 §7 before touching this file.

use crate::jingle::session::Role;
use crate::wire::candidate::{Fingerprint, IceTransport, Transport};
use crate::wire::description::Description;
use crate::wire::jingle::{self as element, Creator, Disposition, Group, Senders};
use crate::wire::ns;
use std::time::{Duration, Instant};

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

/// Where ICE restarts stand for one content (J176-19, J371-04, J371-05).
///
/// ```text
///           new ufrag sent            result              peer's new ufrag
///  Settled ───────────────▶ OursUnacked ─────▶ OursAwaited ───────────────▶ Settled
///     │                         │ peer's new ufrag: the initiator answers tie-break, the responder yields
///     │ peer's new ufrag        ▼
///     └────────────────────▶ Theirs ── new ufrag sent ──▶ Settled
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Restart {
    /// No restart under way.
    #[default]
    Settled,
    /// Ours was sent; what arrives before its result is from before.
    OursUnacked,
    /// Ours arrived; the peer's new credentials are due.
    OursAwaited,
    /// The peer restarted; our new credentials are due.
    Theirs,
}

/// A transport-replace that awaits transport-accept or transport-reject (J166-45).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Replace {
    /// None pending.
    #[default]
    Idle,
    /// We asked.
    Ours(Box<Transport>),
    /// The peer asked.
    Theirs(Box<Transport>),
}

/// How long after the last word a change of direction belongs to the same exchange. Two programs that counter by
/// themselves do so within a round trip; a person changes their mind later.
const EXCHANGE: Duration = Duration::from_secs(10);

/// At most one counter to the peer's content-modify, so that two stubborn sides come to rest (J166-37).
///
/// ```text
/// Idle ─peer─▶ Theirs ─we─▶ Countered ─peer─▶ Insisted: we are silent
///   ◀────────────── EXCHANGE after the last word ─────────────┘
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Free to modify.
    #[default]
    Idle,
    /// The peer modified.
    Theirs {
        /// The exchange is over then.
        until: Instant,
    },
    /// We countered; the peer's next word stands.
    Countered {
        /// The exchange is over then.
        until: Instant,
    },
    /// The peer had the last word, or won the tie.
    Insisted {
        /// The exchange is over then.
        until: Instant,
    },
}

impl Counter {
    /// `Idle` once the exchange is over.
    fn at(self, now: Instant) -> Self {
        match self {
            Self::Idle => Self::Idle,
            Self::Theirs { until } | Self::Countered { until } | Self::Insisted { until } if until <= now => Self::Idle,
            Self::Theirs { .. } | Self::Countered { .. } | Self::Insisted { .. } => self,
        }
    }

    /// After our content-modify; `None` if the peer's word stands.
    pub(crate) fn ours(self, now: Instant) -> Option<Self> {
        match self.at(now) {
            Self::Idle => Some(Self::Idle),
            Self::Theirs { .. } | Self::Countered { .. } => Some(Self::Countered { until: now + EXCHANGE }),
            Self::Insisted { .. } => None,
        }
    }

    /// After the peer's content-modify; `won` if ours crossed it and lost.
    pub(crate) fn theirs(self, now: Instant, won: bool) -> Self {
        let until = now + EXCHANGE;
        match self.at(now) {
            Self::Idle | Self::Theirs { .. } if !won => Self::Theirs { until },
            Self::Idle | Self::Theirs { .. } | Self::Countered { .. } | Self::Insisted { .. } => {
                Self::Insisted { until }
            }
        }
    }
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
    pub(crate) restart: Restart,
    pub(crate) replace: Replace,
    pub(crate) counter: Counter,
    /// Transport-info that waits for the user's consent (J176-25).
    pub(crate) withheld: Option<Box<IceTransport>>,
    /// Remote candidates handed on in this ICE generation (cap: candidate injection).
    pub(crate) candidates: usize,
}

/// What a transport-info brought.
#[derive(Debug, PartialEq)]
pub(crate) enum Absorbed {
    /// Nothing that matters now: old news, or nothing that can be used.
    Nothing,
    /// To be handed on.
    News {
        /// Completed with the credentials in force.
        transport: IceTransport,
        /// New credentials that are not the answer to ours.
        restart: bool,
    },
}

impl Content {
    /// A content of a session-initiate or content-add, with the half of the side that `offered` it.
    pub(crate) fn new(content: &element::Content, stage: Stage, ours: bool) -> Self {
        let half = Half { description: content.description.clone(), transport: content.transport.as_ref().map(kept) };
        let (local, remote) = if ours { (half, Half::default()) } else { (Half::default(), half) };
        Self {
            key: ContentKey::of(content),
            // J166-53: absent means both.
            senders: content.senders.unwrap_or(Senders::Both),
            disposition: content.disposition.clone(),
            stage,
            local,
            remote,
            local_quiet: Quiet::default(),
            remote_quiet: Quiet::default(),
            restart: Restart::Settled,
            replace: Replace::Idle,
            counter: Counter::Idle,
            withheld: None,
            candidates: if ours { 0 } else { ice_of(content).map_or(0, |ice| ice.candidates.len()) },
        }
    }

    /// True if our side, in `role`, may send media now; the session's own consent comes on top.
    #[must_use]
    pub fn may_send(&self, role: Role) -> bool {
        self.stage == Stage::Agreed
            && matches!(direction(self.senders, role), Direction::SendRecv | Direction::SendOnly)
            && !self.remote_quiet.on_hold
            && !self.local_quiet.muted
    }

    /// True if it exchanges a file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        [&self.local, &self.remote].iter().any(|half| matches!(half.description, Some(Description::File(_))))
    }

    /// True if only DTLS may protect it: RTP, and whatever travels over ICE.
    #[must_use]
    pub fn needs_dtls(&self) -> bool {
        [&self.local, &self.remote].iter().any(|half| needs_dtls(half.description.as_ref(), half.transport.as_ref()))
    }

    /// The peer's half of an accept; absent parts of it leave what was known.
    pub(crate) fn agree(&mut self, theirs: &element::Content, cap: usize) {
        if let Some(senders) = theirs.senders {
            self.senders = senders;
        }
        if theirs.description.is_some() {
            self.remote.description.clone_from(&theirs.description);
        }
        match (&mut self.remote.transport, &theirs.transport) {
            // A fingerprint that came early by transport-info stays (users' complaint 3).
            (Some(Transport::Ice(known)), Some(Transport::Ice(new))) => {
                self.candidates = self.candidates.saturating_add(new.candidates.len()).min(cap);
                complete(known, new);
            }
            (known, Some(new)) => {
                self.candidates = 0;
                *known = Some(kept(new));
            }
            (_, None) => {}
        }
        self.stage = Stage::Agreed;
    }

    /// True if this transport-info restarts ICE while our own restart has no result yet (J371-04).
    pub(crate) fn restart_crosses(&self, new: &IceTransport) -> bool {
        self.restart == Restart::OursUnacked && self.is_restart(new)
    }

    fn is_restart(&self, new: &IceTransport) -> bool {
        match (self.remote.ufrag(), new.ufrag.as_deref()) {
            (Some(known), Some(ufrag)) => known != ufrag,
            (None, _) | (_, None) => false,
        }
    }

    /// True if the fingerprint changes though ICE does not restart (J320-07).
    pub(crate) fn swaps_fingerprint(&self, new: &IceTransport) -> bool {
        let known = self.remote.fingerprints();
        !self.is_restart(new)
            && new.fingerprints.iter().any(|f| known.iter().any(|k| k.hash == f.hash && k.value != f.value))
    }

    /// Takes the facts of a transport-info in; the caller has dealt with crossed restarts and swapped fingerprints.
    pub(crate) fn absorb(&mut self, mut new: IceTransport, cap: usize) -> Absorbed {
        // What follows a transport-replace that we have not answered yet is about the new transport.
        if let Replace::Theirs(pending) = &mut self.replace
            && let Transport::Ice(pending) = &mut **pending
            && new.ufrag.as_deref().is_none_or(|ufrag| pending.ufrag.as_deref() == Some(ufrag))
        {
            new.candidates.truncate(cap);
            complete(pending, &new);
            new.ufrag.clone_from(&pending.ufrag);
            new.pwd.clone_from(&pending.pwd);
            return Absorbed::News { transport: new, restart: false };
        }
        let restart = self.is_restart(&new);
        // J371-05: before the result of our restart, old candidates are on the way.
        if self.restart == Restart::OursUnacked && !restart {
            return Absorbed::Nothing;
        }
        // New credentials are of use only as a pair.
        if restart && new.pwd.is_none() {
            return Absorbed::Nothing;
        }
        if restart {
            self.candidates = 0;
        }
        new.candidates.truncate(cap.saturating_sub(self.candidates));
        self.candidates = self.candidates.saturating_add(new.candidates.len());
        let known = match &mut self.remote.transport {
            Some(Transport::Ice(known)) => known,
            Some(Transport::RawUdp(_) | Transport::S5b(_) | Transport::Ibb(_) | Transport::Unknown { .. }) => {
                return Absorbed::Nothing;
            }
            slot @ None => {
                *slot = Some(Transport::Ice(Box::default()));
                match slot {
                    Some(Transport::Ice(known)) => known,
                    Some(_) | None => return Absorbed::Nothing,
                }
            }
        };
        complete(known, &new);
        // J176-02 asks for credentials beside every candidate; peers leave them out when they have not changed.
        new.ufrag.clone_from(&known.ufrag);
        new.pwd.clone_from(&known.pwd);
        let asked = match (restart, self.restart) {
            (false, _) => false,
            (true, Restart::OursAwaited) => {
                self.restart = Restart::Settled;
                false
            }
            (true, Restart::Settled | Restart::OursUnacked | Restart::Theirs) => {
                self.restart = Restart::Theirs;
                true
            }
        };
        Absorbed::News { transport: new, restart: asked }
    }

    /// Notes what we send in a transport-info and completes it; `true` if it restarts ICE.
    pub(crate) fn announce(&mut self, ours: &mut IceTransport) -> bool {
        let known = match &mut self.local.transport {
            Some(Transport::Ice(known)) => known,
            other => {
                *other = Some(Transport::Ice(Box::new(bare(ours))));
                return false;
            }
        };
        let changed = match (&known.ufrag, &ours.ufrag) {
            (Some(old), Some(new)) => old != new,
            (None, _) | (_, None) => false,
        };
        complete(known, ours);
        // J176-02: ours are always complete.
        ours.ufrag.clone_from(&known.ufrag);
        ours.pwd.clone_from(&known.pwd);
        if !changed {
            return false;
        }
        let answers = self.restart == Restart::Theirs;
        self.restart = if answers { Restart::Settled } else { Restart::OursUnacked };
        !answers
    }

    /// Both halves of a replaced transport take over; ICE starts from nothing.
    pub(crate) fn exchange(&mut self, ours: Transport, theirs: Transport) {
        self.local.transport = Some(ours);
        self.remote.transport = Some(theirs);
        self.restart = Restart::Settled;
        self.withheld = None;
        self.candidates = 0;
    }

    /// Keeps a transport-info back until the user accepted; later ones are merged into it.
    pub(crate) fn withhold(&mut self, ours: IceTransport) {
        match &mut self.withheld {
            Some(held) => {
                complete(held, &ours);
                held.gathering_complete |= ours.gathering_complete;
                held.candidates.extend(ours.candidates);
            }
            slot @ None => *slot = Some(Box::new(ours)),
        }
    }
}

/// True if only DTLS may protect such a content: RTP always, a file on its data channel (XEP-0343 §4.1).
pub(crate) fn needs_dtls(description: Option<&Description>, transport: Option<&Transport>) -> bool {
    match (description, transport) {
        (Some(Description::Rtp(_)), _) | (Some(Description::File(_)), Some(Transport::Ice(_))) => true,
        (
            Some(Description::File(_)),
            Some(Transport::RawUdp(_) | Transport::S5b(_) | Transport::Ibb(_) | Transport::Unknown { .. }) | None,
        )
        | (Some(Description::Unknown { .. }) | None, _) => false,
    }
}

/// True if such a transport can carry this: datagrams carry RTP, streams carry files (J234-01).
pub(crate) fn carries(transport: &Transport, description: &Description) -> bool {
    match (description, transport) {
        (Description::Rtp(_), Transport::Ice(_) | Transport::RawUdp(_)) => true,
        // J343-01: without its SCTP port there is no data channel.
        (Description::File(_), Transport::Ice(ice)) => ice.sctp.is_some(),
        (Description::File(_), Transport::S5b(s5b)) => !s5b.udp,
        (Description::File(_), Transport::Ibb(_)) => true,
        (Description::Rtp(_), Transport::S5b(_) | Transport::Ibb(_) | Transport::Unknown { .. })
        | (Description::File(_), Transport::RawUdp(_) | Transport::Unknown { .. })
        | (Description::Unknown { .. }, _) => false,
    }
}

/// The ICE transport of an element, if it has one.
pub(crate) fn ice_of(content: &element::Content) -> Option<&IceTransport> {
    match &content.transport {
        Some(Transport::Ice(ice)) => Some(ice),
        Some(Transport::RawUdp(_) | Transport::S5b(_) | Transport::Ibb(_) | Transport::Unknown { .. }) | None => None,
    }
}

/// Credentials, fingerprints and flags of `new` over those of `known`; candidates are not kept.
fn complete(known: &mut IceTransport, new: &IceTransport) {
    if new.ufrag.is_some() {
        if new.ufrag != known.ufrag || new.pwd.is_some() {
            known.pwd.clone_from(&new.pwd);
        }
        known.ufrag.clone_from(&new.ufrag);
    }
    for fingerprint in &new.fingerprints {
        if let Some(same) = known.fingerprints.iter_mut().find(|k| k.hash == fingerprint.hash) {
            *same = fingerprint.clone();
        } else if known.fingerprints.len() < FINGERPRINTS {
            known.fingerprints.push(fingerprint.clone());
        }
    }
    known.gathering_complete |= new.gathering_complete;
    if new.sctp.is_some() {
        known.sctp.clone_from(&new.sctp);
    }
}

/// Fingerprints kept of one transport; there are 6 hash functions in RFC 8122.
const FINGERPRINTS: usize = 6;

/// An ICE transport without its candidates.
fn bare(ice: &IceTransport) -> IceTransport {
    IceTransport {
        ice2: ice.ice2,
        rfc8445: ice.rfc8445,
        ufrag: ice.ufrag.clone(),
        pwd: ice.pwd.clone(),
        candidates: Vec::new(),
        malformed_candidates: 0,
        remote_candidates: Vec::new(),
        fingerprints: ice.fingerprints.clone(),
        gathering_complete: ice.gathering_complete,
        sctp: ice.sctp.clone(),
    }
}

/// What is kept of a transport.
pub(crate) fn kept(transport: &Transport) -> Transport {
    match transport {
        Transport::Ice(ice) => Transport::Ice(Box::new(bare(ice))),
        other @ (Transport::RawUdp(_) | Transport::S5b(_) | Transport::Ibb(_) | Transport::Unknown { .. }) => {
            other.clone()
        }
    }
}

/// Namespace of a description.
#[must_use]
pub fn application(description: &Description) -> &str {
    match description {
        Description::Rtp(_) => ns::RTP,
        Description::File(_) => ns::FILE,
        Description::Unknown { ns } => ns,
    }
}

/// `media` of an RTP description.
#[must_use]
pub fn media(description: &Description) -> Option<&str> {
    match description {
        Description::Rtp(rtp) => Some(&rtp.media),
        Description::File(_) | Description::Unknown { .. } => None,
    }
}

/// Namespace of a transport.
#[must_use]
pub fn carrier(transport: &Transport) -> &str {
    match transport {
        Transport::Ice(ice) if ice.ice2 => ns::ICE,
        Transport::Ice(_) => ns::ICE_UDP,
        Transport::RawUdp(_) => ns::RAW_UDP,
        Transport::S5b(_) => ns::S5B,
        Transport::Ibb(_) => ns::IBB_TRANSPORT,
        Transport::Unknown { ns } => ns,
    }
}

/// Groups without the names for which `keep` is false; a group without names is dropped (J338-03).
#[must_use]
pub fn restrict(groups: &[Group], keep: impl Fn(&str) -> bool) -> Vec<Group> {
    groups
        .iter()
        .map(|group| Group {
            semantics: group.semantics.clone(),
            names: group.names.iter().filter(|name| keep(name)).cloned().collect(),
        })
        .filter(|group| !group.names.is_empty())
        .collect()
}

/// The part of an answer's groups that its offer allows: answer ⊆ offer, RFC 9143 §7.3.3, J338-03.
#[must_use]
pub fn answer_groups(offer: &[Group], answer: &[Group]) -> Vec<Group> {
    answer
        .iter()
        .filter_map(|group| {
            let names: Vec<_> = group
                .names
                .iter()
                .filter(|name| offer.iter().any(|o| o.semantics == group.semantics && o.names.contains(name)))
                .cloned()
                .collect();
            (!names.is_empty()).then(|| Group { semantics: group.semantics.clone(), names })
        })
        .collect()
}

/// Name of the content whose transport carries this one: the first of its BUNDLE group (RFC 9143 §7.1).
#[must_use]
pub fn tagged<'a>(groups: &'a [Group], name: &str) -> Option<&'a str> {
    groups
        .iter()
        .find(|group| group.semantics == "BUNDLE" && group.names.iter().any(|n| n == name))
        .and_then(|group| group.names.first())
        .map(AsRef::as_ref)
}

//! One call: where its invitation or session stands, its leg and its sound. Read XEP-0166 §6, XEP-0353 §3 and
//! XEP-0167 §8 before touching this file.

use super::event::{CallId, EndKind, Ended, Party};
use crate::fault::{ReasonCondition, StanzaCondition};
use crate::jingle::content::ContentKey;
use crate::jingle::session::{End, EndedBy};
use crate::jingle::sessions::SessionId;
use crate::media::audio::AudioPath;
use crate::media::codec::Negotiated;
use crate::transport::leg::{Leg, LegEvent};
use crate::wire::candidate::{Candidate, IceTransport};
use crate::wire::description::PayloadType;
use crate::wire::jid::Jid;
use crate::wire::jingle::{Content, Group, Sid};
use std::time::{Duration, Instant};

/// Stanzas of transport-info kept for an incoming call that has no leg yet.
pub(super) const EARLY_TRANSPORTS: usize = 64;
/// Ringing calls whose path is made meanwhile; each costs sockets and perhaps a relay.
pub(super) const EARLY_PATHS: usize = 2;
/// A path that was begun longer ago than this and does not work is begun anew when the user takes the call: the caller
/// may be one who looks at ours only then, when our checks have long stopped.
pub(super) const EARLY_PATIENCE: Duration = Duration::from_secs(5);

/// Where a call stands.
///
/// ```text
///  call ─▶ Finding ── many devices ─▶ Proposed ── proceed ─┐
///                  └─ one device ──────────────────────────┴▶ Opening ── sockets ─▶ Offered ── session-accept ─▶ Active
///
///  propose ─▶ Alerting(Propose) ── accept() ─▶ Proceeding ── session-initiate ─┐
///  session-initiate ─▶ Alerting(Offer)* ─ accept() ────────────────────────────┴▶ Answering ── sockets ─▶ Active
///  from everywhere ── hang-up, refusal, time-out ─▶ gone         * a contact's may make its path here (`Media::early`)
/// ```
#[derive(Debug)]
pub(super) enum Stage {
    /// Presence, capabilities and relays are being learned, at most until then.
    Finding(Instant),
    /// We asked all devices of a person. Somebody who is not there and does not ring by the instant is not waited for.
    Proposed(Option<Instant>),
    /// The device to call is known; sockets are being bound.
    Opening,
    /// session-initiate is out.
    Offered,
    /// The local user is being asked about an invitation.
    AlertingInvite,
    /// The local user is being asked about a session.
    AlertingOffer(Box<Offer>),
    /// The user took the invitation; the session-initiate is awaited.
    Proceeding,
    /// The user took the session; sockets are being bound.
    Answering(Box<Offer>),
    /// Both sides accepted.
    Active,
}

/// What an incoming session offers.
#[derive(Debug)]
pub(super) struct Offer {
    /// The audio content.
    pub(super) content: Content,
    /// Groups of the offer.
    pub(super) groups: Vec<Group>,
}

/// What is muted or held, by whom; each side has its own word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quiet {
    pub(super) held_by_us: bool,
    pub(super) held_by_peer: bool,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) peer: Jid,
    pub(super) sid: Sid,
    /// Who called.
    pub(super) caller: Party,
    pub(super) stage: Stage,
    pub(super) session: Option<SessionId>,
    /// The call began with an invitation, so it ends with a finish (J353-12).
    pub(super) invited: bool,
    pub(super) media: Media,
    /// When the local user wanted the call: `call` or `accept`.
    pub(super) wanted: Option<Instant>,
    pub(super) connected: Option<Instant>,
    /// The peer closed the media; without a word of the signalling the call is over then.
    pub(super) over_by: Option<Instant>,
    pub(super) quiet: Quiet,
    /// Why we end it, where the reason on the wire says less.
    pub(super) fault: Option<(EndKind, String)>,
}

/// The media half of a call. Nothing of it exists before the local user wants the call, unless a contact's call may make
/// its path while it rings; even then nothing flows on it.
#[derive(Debug, Default)]
pub(super) struct Media {
    pub(super) leg: Option<Box<Leg>>,
    pub(super) audio: Option<Box<AudioPath>>,
    pub(super) content: Option<ContentKey>,
    /// What we offered, to read the answer by.
    pub(super) offered: Vec<PayloadType>,
    pub(super) negotiated: Option<Negotiated>,
    /// Transports of the peer that came before the user took the call.
    pub(super) transports: Vec<IceTransport>,
    /// Local candidates gathered before the session could carry them.
    pub(super) unsent: Vec<Candidate>,
    pub(super) gathered: bool,
    /// When the path began to be made while the call rings; `None` unless that is allowed (J176-25).
    pub(super) early: Option<Instant>,
    /// Why the last STUN or TURN server that failed gave nothing.
    pub(super) server_fault: Option<String>,
    /// What the leg told of its connection before the codecs were agreed on.
    pub(super) ready: Option<Box<LegEvent>>,
    /// RTP packets received when the session was last told of a sign of life.
    pub(super) packets_seen: u64,
    /// All local candidates, to be signalled again after an ICE restart.
    pub(super) candidates: Vec<Candidate>,
}

impl Media {
    /// The codecs are agreed: sound can flow, and RTCP knows the clocks it measures by.
    pub(super) fn settle(&mut self, now: Instant, negotiated: Negotiated, audio: AudioPath) {
        if let Some(leg) = &mut self.leg {
            let (sending, receiving) = clocks(&negotiated);
            leg.release(now);
            leg.set_clock_rates(sending, &receiving);
        }
        self.negotiated = Some(negotiated);
        self.audio = Some(Box::new(audio));
    }
}

/// RTP clocks in Hz: of what we send, and of everything that may come.
pub(super) fn clocks(negotiated: &Negotiated) -> (u32, Vec<(u8, u32)>) {
    let speech = negotiated.receive.iter().map(|(id, codec)| (*id, codec.clock_rate_hz()));
    // RFC 3389 §5: comfort noise has the clock of the narrow codecs.
    let noise = negotiated.comfort_noise.map(|id| (id, NARROW_CLOCK_HZ));
    let receiving = speech.chain(noise).chain(negotiated.dtmf_receive.iter().copied()).collect();
    (negotiated.send.clock_rate_hz(), receiving)
}

/// RTP clock of the static payload types that we know (RFC 3551 table 4), G.722 included.
const NARROW_CLOCK_HZ: u32 = 8_000;

impl Call {
    pub(super) fn new(id: CallId, peer: Jid, sid: Sid, caller: Party, stage: Stage) -> Self {
        Self {
            id,
            peer,
            sid,
            caller,
            stage,
            session: None,
            invited: false,
            media: Media::default(),
            wanted: None,
            connected: None,
            over_by: None,
            quiet: Quiet::default(),
            fault: None,
        }
    }

    /// True once media may flow: both sides accepted, the local one by a verb.
    pub(super) fn may_talk(&self) -> bool {
        matches!(self.stage, Stage::Active) && self.wanted.is_some()
    }

    /// A call that stands is not to be forgotten without a word to the peer.
    pub(super) fn duration(&self, now: Instant) -> Duration {
        self.connected.map(|at| now.saturating_duration_since(at)).unwrap_or_default()
    }

    pub(super) fn ended(&self, now: Instant, end: &End) -> Ended {
        let (kind, text) = match &self.fault {
            Some((kind, text)) => (*kind, Some(text.clone())),
            None => (self.end_kind(end), end.text.clone()),
        };
        let by = match end.by {
            EndedBy::Local | EndedBy::Timeout => Party::Local,
            EndedBy::Remote | EndedBy::Refused(_) | EndedBy::TieBreak => Party::Remote,
        };
        Ended { kind, reason: Some(end.reason), by, duration: self.duration(now), text }
    }

    fn end_kind(&self, end: &End) -> EndKind {
        match end.by {
            EndedBy::Refused(condition) => refusal_kind(condition),
            EndedBy::TieBreak => EndKind::Cancelled,
            EndedBy::Timeout => match self.stage {
                Stage::Active => EndKind::SignallingLost,
                Stage::Finding(_)
                | Stage::Proposed(_)
                | Stage::Opening
                | Stage::Offered
                | Stage::AlertingInvite
                | Stage::AlertingOffer(_)
                | Stage::Proceeding
                | Stage::Answering(_) => EndKind::NoAnswer,
            },
            EndedBy::Local | EndedBy::Remote => reason_kind(end.reason),
        }
    }
}

/// The class of a session-initiate that was answered with an error.
pub(super) fn refusal_kind(condition: Option<StanzaCondition>) -> EndKind {
    match condition {
        Some(
            StanzaCondition::ResourceConstraint
            | StanzaCondition::PolicyViolation
            | StanzaCondition::NotAllowed
            | StanzaCondition::Forbidden,
        ) => EndKind::Limit,
        Some(StanzaCondition::BadRequest | StanzaCondition::InternalServerError) => EndKind::Failed,
        Some(_) | None => EndKind::Unavailable,
    }
}

/// The class of a reason of XEP-0166 §7.4.
pub(super) fn reason_kind(reason: ReasonCondition) -> EndKind {
    match reason {
        ReasonCondition::Success | ReasonCondition::AlternativeSession => EndKind::Completed,
        ReasonCondition::Busy | ReasonCondition::Decline => EndKind::Rejected,
        ReasonCondition::Cancel => EndKind::Cancelled,
        ReasonCondition::Timeout | ReasonCondition::Expired => EndKind::NoAnswer,
        ReasonCondition::Gone
        | ReasonCondition::FailedApplication
        | ReasonCondition::IncompatibleParameters
        | ReasonCondition::UnsupportedApplications
        | ReasonCondition::UnsupportedTransports => EndKind::Unavailable,
        ReasonCondition::ConnectivityError | ReasonCondition::FailedTransport | ReasonCondition::MediaError => {
            EndKind::MediaFailed
        }
        ReasonCondition::SecurityError => EndKind::Security,
        ReasonCondition::GeneralError => EndKind::Failed,
    }
}

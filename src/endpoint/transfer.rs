//! One session of files: where it stands, and where each file of it does. Read XEP-0234 §6 and XEP-0260 §2.4 before
//! touching this file.

use super::call::{reason_kind, refusal_kind};
use super::event::{EndKind, Party};
use super::file_event::{FileId, TransferId, Way, WayKind};
use crate::fault::ReasonCondition;
use crate::file::Carried;
use crate::jingle::content::ContentKey;
use crate::jingle::session::{End, EndedBy, Role};
use crate::jingle::sessions::SessionId;
use crate::transport::ibb::IbbStream;
use crate::transport::leg::{ChannelId, Leg};
use crate::transport::s5b::{S5b, StreamId};
use crate::wire::candidate::{Candidate, IbbTransport, IceTransport, Transport};
use crate::wire::description::{FileDescription, FileErrorCondition, FileHash};
use crate::wire::jid::Jid;
use crate::wire::jingle::{Content, Creator, Senders, Sid};
use crate::wire::ns;
use std::time::{Duration, Instant};

/// A candidate that comes late has so long to be of use, where a data channel would be given up.
const SILENCE_OF_ONE: Duration = Duration::from_secs(2);

/// Where a session of files stands.
///
/// ```text
///  send ─▶ Finding ── device known ─▶ Opening ── way prepared ─▶ Offered ── session-accept ─▶ Active
///  session-initiate ─▶ Alerting ── accept ─▶ Answering ── ways prepared ──────────────────────┘
///  from everywhere ── cancel, refusal, time-out, last file over ─▶ gone
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Presence and capabilities are being learned, at most until then.
    Finding(Instant),
    /// The device is known; the way of the first file is being prepared.
    Opening,
    /// session-initiate is out.
    Offered,
    /// The local user is being asked.
    Alerting,
    /// The user took some of it; their ways are being prepared.
    Answering,
    /// Both sides accepted.
    Active,
}

/// Where one file stands.
///
/// ```text
///  sender    Waiting ─▶ Preparing ─▶ Offered ─▶ Connecting ─▶ Held ─▶ Carrying ─▶ Sent ── received ─▶ Over
///  receiver  Alerting ─▶ Preparing ───────────▶ Connecting ─▶ Carrying ─▶ Checking ─▶ Keeping ─▶ Over
///                            ▲                      │ way failed
///                            └── transport-replace ─┘
/// ```
#[derive(Debug)]
pub(super) enum FileStage {
    /// Its turn comes when an earlier one is over.
    Waiting,
    /// The local user is being asked; about a further file of a session only until then.
    Alerting(Option<Instant>),
    /// Listeners or sockets are being opened for its way; then the stanza goes out.
    Preparing(Purpose),
    /// Prepared for a session-accept that waits for the others.
    Prepared,
    /// The peer's answer to our content or to our other transport is awaited, at most until then; that to a
    /// session-initiate as long as the session says.
    Offered(Option<Instant>),
    /// The way is being negotiated; the other side may ask for another one until then.
    Connecting(Instant),
    /// The way stands, and the next file is not agreed on yet: were this one through before that, the receiver would
    /// take the transfer for complete. Not waited for beyond the instant.
    Held { way: Way, stream: Option<StreamId>, until: Instant },
    /// Bytes flow.
    Carrying,
    /// Received in full; the sender's hash is awaited.
    Checking { carried: Carried, until: Instant },
    /// The shell gives it its final name.
    Keeping { size: u64, hash: Option<FileHash>, verified: bool },
    /// Sent in full; the receiver's word is awaited.
    Sent { size: u64, hash: Option<FileHash>, until: Instant },
    /// Nothing more happens to it.
    Over,
}

/// The stanza that a prepared way is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Initiate,
    Accept,
    Add,
    AddAccept,
    Replace,
    ReplaceAccept,
}

impl Purpose {
    /// True if the peer's half of the transport is there already.
    pub(super) const fn answers(self) -> bool {
        matches!(self, Purpose::Accept | Purpose::AddAccept | Purpose::ReplaceAccept)
    }
}

/// One attempt in the order of what is fast: a proxy comes after a data channel where there may be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Streamhosts of both sides' own machines only.
    S5bDirect,
    /// Streamhosts of proxies only.
    S5bProxy,
    /// All streamhosts.
    S5b,
    DataChannel,
    Ibb,
}

impl Attempt {
    pub(super) const fn kind(self) -> WayKind {
        match self {
            Attempt::S5bDirect | Attempt::S5bProxy | Attempt::S5b => WayKind::S5b,
            Attempt::DataChannel => WayKind::DataChannel,
            Attempt::Ibb => WayKind::Ibb,
        }
    }

    pub(super) const fn listens(self) -> bool {
        matches!(self, Attempt::S5bDirect | Attempt::S5b)
    }

    pub(super) const fn proxies(self) -> bool {
        matches!(self, Attempt::S5bProxy | Attempt::S5b)
    }
}

/// Attempts for ways that both sides know.
pub(super) fn attempts(ways: &[WayKind]) -> Vec<Attempt> {
    let channel = ways.contains(&WayKind::DataChannel);
    let mut order = Vec::with_capacity(4);
    for way in ways {
        match way {
            WayKind::S5b if channel => order.push(Attempt::S5bDirect),
            WayKind::S5b => order.push(Attempt::S5b),
            WayKind::DataChannel => {
                order.push(Attempt::DataChannel);
                if ways.contains(&WayKind::S5b) {
                    order.push(Attempt::S5bProxy);
                }
            }
            WayKind::Ibb => order.push(Attempt::Ibb),
        }
    }
    order
}

/// How the bytes of a file travel, with its state.
#[derive(Debug)]
pub(super) enum Carriage {
    S5b(Box<S5b>),
    Channel(Box<ChannelWay>),
    /// Agreed on, or offered and not yet agreed on.
    Ibb {
        transport: IbbTransport,
        stream: Option<Box<IbbStream>>,
    },
}

/// A leg that carries one data channel.
#[derive(Debug, Default)]
pub(super) struct ChannelWay {
    /// From the moment when its sockets are bound.
    pub(super) leg: Option<Box<Leg>>,
    pub(super) channel: Option<ChannelId>,
    /// Everything that was written has been acknowledged.
    pub(super) delivered: bool,
    /// The message that stands for a file without bytes was written.
    pub(super) nothing_sent: bool,
    /// Local candidates that no stanza has carried yet.
    pub(super) unsent: Vec<Candidate>,
    pub(super) gathered: bool,
    /// Where another way is left: given up then, if nothing of the peer has come over the network.
    pub(super) hopeless: Option<Instant>,
    /// Gathering is waited for at most until then: what replaces a transport is to come with its candidates.
    pub(super) gather_by: Option<Instant>,
}

impl ChannelWay {
    /// A candidate has come late.
    pub(super) fn hope(&mut self, now: Instant) {
        self.hopeless = self.hopeless.map(|at| at.max(now + SILENCE_OF_ONE));
    }
}

/// In-band bytes between the shell and the way.
#[derive(Debug, Default)]
pub(super) struct Pump {
    /// Read from the file and not yet taken by the way.
    pub(super) pending: Vec<u8>,
    /// The shell is reading.
    pub(super) asked: bool,
    /// Read in all.
    pub(super) read: u64,
    /// The file has no more bytes.
    pub(super) ended: bool,
    /// Handed to the shell and not yet dealt with.
    pub(super) unwritten: usize,
    /// The way has no more bytes.
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct File {
    pub(super) id: FileId,
    /// Once it is part of the session.
    pub(super) content: Option<ContentKey>,
    pub(super) sending: bool,
    /// As offered, completed by what came later.
    pub(super) description: FileDescription,
    /// The peer's half of the transport, until it is used.
    pub(super) theirs: Option<Transport>,
    /// Candidates that the peer told after that half and before ours was ready for them.
    pub(super) early: Vec<IceTransport>,
    /// `senders` of the content.
    pub(super) senders: Senders,
    pub(super) offset: u64,
    /// Bytes to send from there; `None`: to the end.
    pub(super) length: Option<u64>,
    /// Most bytes of a file whose size nobody said.
    pub(super) limit: Option<u64>,
    pub(super) stage: FileStage,
    /// Ways not tried yet, the best first; of use to the initiator, who chooses.
    pub(super) attempts: Vec<Attempt>,
    pub(super) way: Option<Carriage>,
    /// Way of the bytes that flow or flowed.
    pub(super) connected: Option<Way>,
    pub(super) pump: Pump,
    /// The shell has the file open.
    pub(super) open: bool,
    /// The shell's job is over: all bytes, on the sending side into the way.
    pub(super) carried: Option<Carried>,
    /// Streams were given this number of names; those of an old way are never mistaken for those of the new one.
    pub(super) rounds: u64,
}

impl File {
    pub(super) fn new(id: FileId, sending: bool, description: FileDescription, stage: FileStage) -> Self {
        Self {
            id,
            content: None,
            sending,
            description,
            theirs: None,
            early: Vec::new(),
            senders: Senders::Initiator,
            offset: 0,
            length: None,
            limit: None,
            stage,
            attempts: Vec::new(),
            way: None,
            connected: None,
            pump: Pump::default(),
            open: false,
            carried: None,
            rounds: 0,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, FileStage::Over)
    }

    pub(super) fn leg_mut(&mut self) -> Option<&mut Leg> {
        match &mut self.way {
            Some(Carriage::Channel(way)) => way.leg.as_deref_mut(),
            Some(Carriage::S5b(_) | Carriage::Ibb { .. }) | None => None,
        }
    }

    pub(super) fn channel_mut(&mut self) -> Option<&mut ChannelWay> {
        match &mut self.way {
            Some(Carriage::Channel(way)) => Some(way),
            Some(Carriage::S5b(_) | Carriage::Ibb { .. }) | None => None,
        }
    }

    pub(super) fn s5b_mut(&mut self) -> Option<&mut S5b> {
        match &mut self.way {
            Some(Carriage::S5b(s5b)) => Some(s5b),
            Some(Carriage::Channel(_) | Carriage::Ibb { .. }) | None => None,
        }
    }

    pub(super) fn ibb_mut(&mut self) -> Option<&mut IbbStream> {
        match &mut self.way {
            Some(Carriage::Ibb { stream, .. }) => stream.as_deref_mut(),
            Some(Carriage::Channel(_) | Carriage::S5b(_)) | None => None,
        }
    }

    /// What the way is, while it is being negotiated.
    pub(super) fn way_kind(&self) -> Option<WayKind> {
        self.way.as_ref().map(|way| match way {
            Carriage::S5b(_) => WayKind::S5b,
            Carriage::Channel(_) => WayKind::DataChannel,
            Carriage::Ibb { .. } => WayKind::Ibb,
        })
    }

    /// Deadline of its stage and of its way.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let stage = match &self.stage {
            FileStage::Offered(until) | FileStage::Alerting(until) => *until,
            FileStage::Connecting(until)
            | FileStage::Held { until, .. }
            | FileStage::Checking { until, .. }
            | FileStage::Sent { until, .. } => Some(*until),
            FileStage::Waiting
            | FileStage::Preparing(_)
            | FileStage::Prepared
            | FileStage::Carrying
            | FileStage::Keeping { .. }
            | FileStage::Over => None,
        };
        let way = match &mut self.way {
            Some(Carriage::S5b(s5b)) => s5b.poll_timeout(),
            Some(Carriage::Channel(way)) => {
                let leg = way.leg.as_mut().and_then(|leg| leg.poll_timeout()).map(|(at, _)| at);
                [leg, way.gather_by, way.hopeless].into_iter().flatten().min()
            }
            Some(Carriage::Ibb { stream, .. }) => stream.as_ref().and_then(|s| s.poll_timeout()),
            None => None,
        };
        [stage, way].into_iter().flatten().min()
    }
}

/// True if the side in `role` sends such a file (J234-02); `None` where both or nobody would (J234-03).
pub(super) const fn sends(senders: Senders, role: Role) -> Option<bool> {
    match (senders, role) {
        (Senders::Initiator, Role::Initiator) | (Senders::Responder, Role::Responder) => Some(true),
        (Senders::Initiator, Role::Responder) | (Senders::Responder, Role::Initiator) => Some(false),
        (Senders::Both | Senders::None, _) => None,
    }
}

#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) id: TransferId,
    /// Bare until the device is known.
    pub(super) peer: Jid,
    pub(super) sid: Sid,
    /// Who began the session.
    pub(super) by: Party,
    pub(super) stage: Stage,
    pub(super) session: Option<SessionId>,
    /// What the application allows.
    pub(super) ways: Vec<WayKind>,
    pub(super) files: Vec<File>,
    /// The devices of the peer were asked whether they are there.
    pub(super) asked: bool,
    pub(super) accepted: Option<Instant>,
    /// Why we end it, where the reason on the wire says less.
    pub(super) fault: Option<(EndKind, String)>,
}

impl Transfer {
    pub(super) fn role(&self) -> Role {
        match self.by {
            Party::Local => Role::Initiator,
            Party::Remote => Role::Responder,
        }
    }

    pub(super) fn file_of(&self, content: &ContentKey) -> Option<FileId> {
        self.files.iter().find(|f| f.content.as_ref() == Some(content)).map(|f| f.id)
    }

    /// Files that are part of the session and not over.
    pub(super) fn live(&self) -> usize {
        self.files.iter().filter(|f| f.content.is_some() && !f.is_over()).count()
    }

    /// True if this file is not to be through before the one behind it is agreed on.
    pub(super) fn waits_for_next(&self, id: FileId) -> bool {
        self.files.get(id.file).is_some_and(|f| f.sending)
            && self.files.get(id.file + 1).is_some_and(|next| {
                matches!(next.stage, FileStage::Waiting | FileStage::Preparing(_) | FileStage::Offered(_))
            })
    }

    pub(super) fn all_over(&self) -> bool {
        self.files.iter().all(File::is_over)
    }
}

/// The file of a content, if it is one.
pub(super) fn file_of(content: &Content) -> Option<&FileDescription> {
    use crate::wire::description::Description;
    match &content.description {
        Some(Description::File(file)) => Some(file),
        Some(Description::Rtp(_) | Description::Unknown { .. }) | None => None,
    }
}

/// True if the bytes of a file go in stanzas, and so need the signalling.
pub(super) fn is_in_band(file: &File) -> bool {
    matches!(file.way, Some(Carriage::Ibb { .. }))
}

/// Whether the side in `role` sends the file of a content; `None` if it is no file or names no sender (J234-02, J234-03).
pub(super) fn offered_by(content: &Content, role: Role) -> Option<bool> {
    file_of(content)?;
    let senders = content.senders.unwrap_or(Senders::Both);
    // J234-03, but browsers' data channels go both ways and so they say: who adds such a file offers it.
    if senders == Senders::Both && matches!(content.transport, Some(Transport::Ice(_))) {
        let adder = match content.creator {
            Creator::Initiator => Role::Initiator,
            Creator::Responder => Role::Responder,
        };
        return Some(role == adder);
    }
    sends(senders, role)
}

/// What an answer says of a file over what was known.
pub(super) fn complete(known: &mut FileDescription, news: &FileDescription) {
    known.size = known.size.or(news.size);
    if news.name.is_some() {
        known.name.clone_from(&news.name);
    }
    if !news.hashes.is_empty() {
        known.hashes.clone_from(&news.hashes);
    }
    known.hash_used = known.hash_used.or(news.hash_used);
    if known.date.is_none() {
        known.date.clone_from(&news.date);
    }
}

/// The receiver takes no file of this size (J234-17).
pub(super) fn is_too_large(detail: Option<&(String, String)>) -> bool {
    detail.is_some_and(|(ns, name)| ns == ns::FILE_ERRORS && name == FileErrorCondition::FileTooLarge.as_str())
}

/// The class of the end of a session of files.
pub(super) fn ended_kind(transfer: &Transfer, end: &End) -> EndKind {
    match end.by {
        EndedBy::Refused(condition) => refusal_kind(condition),
        EndedBy::TieBreak => EndKind::Cancelled,
        EndedBy::Timeout if transfer.stage == Stage::Active => EndKind::SignallingLost,
        EndedBy::Timeout => EndKind::NoAnswer,
        // A success that leaves files undone is none.
        EndedBy::Local | EndedBy::Remote if end.reason == ReasonCondition::Success => EndKind::Failed,
        EndedBy::Local | EndedBy::Remote if is_too_large(end.detail.as_ref()) => EndKind::Limit,
        // XEP-0234 §9: the file is missing or forbidden, or its hash is wrong.
        EndedBy::Local | EndedBy::Remote
            if matches!(end.reason, ReasonCondition::MediaError | ReasonCondition::FailedApplication) =>
        {
            EndKind::File
        }
        EndedBy::Local | EndedBy::Remote => reason_kind(end.reason),
    }
}

/// Namespaces of what a device must know for a way.
pub(super) const fn features(way: WayKind) -> &'static [&'static str] {
    match way {
        WayKind::S5b => &[ns::S5B],
        WayKind::DataChannel => &[ns::ICE_UDP, ns::SCTP_MAP],
        WayKind::Ibb => &[ns::IBB_TRANSPORT],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_rows_of_who_sends() {
        // J234-02
        assert_eq!(sends(Senders::Initiator, Role::Initiator), Some(true));
        assert_eq!(sends(Senders::Initiator, Role::Responder), Some(false));
        assert_eq!(sends(Senders::Responder, Role::Initiator), Some(false));
        assert_eq!(sends(Senders::Responder, Role::Responder), Some(true));
        // J234-03
        assert_eq!(sends(Senders::Both, Role::Initiator), None);
        assert_eq!(sends(Senders::None, Role::Responder), None);
    }

    #[test]
    fn what_is_fast_is_tried_first_and_in_band_last() {
        use Attempt::{DataChannel, Ibb, S5b, S5bDirect, S5bProxy};
        assert_eq!(attempts(&WayKind::ALL), [S5bDirect, DataChannel, S5bProxy, Ibb]);
        assert_eq!(attempts(&[WayKind::S5b, WayKind::Ibb]), [S5b, Ibb]);
        assert_eq!(attempts(&[WayKind::DataChannel]), [DataChannel]);
    }
}

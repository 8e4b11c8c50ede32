//! How sessions of files begin and end: devices found, offers made, taken and declined, the peer's words followed.
//! Read XEP-0234 §4, §6 and §8 before touching this file.

use super::call::reason_kind;
use super::event::{EndKind, Ended, Event, Party};
use super::file_event::{FileEvent, FileId, FileOutput, OfferedFile, TransferId, WayKind};
use super::people::{Reach, Request};
use super::transfer::{
    File, FileStage, Purpose, Stage, Transfer, attempts, complete, ended_kind, file_of, is_in_band, is_too_large,
    offered_by,
};
use super::{Endpoint, Output};
use crate::fault::ReasonCondition;
use crate::file::Verdict;
use crate::jingle::content::ContentKey;
use crate::jingle::session::{End, EndedBy, Role, SessionEvent};
use crate::jingle::sessions::SessionId;
use crate::wire::description::{Description, FileRange, Info};
use crate::wire::jid::Jid;
use crate::wire::jingle::{Content, Creator, Reason, Senders};
use crate::wire::stanza::{IqKind, IqPayload};
use std::time::{Duration, Instant};

/// Files of one session that are under way at the same time: two are carried while the way of the next one is found.
const AT_ONCE: usize = 3;
/// Files of one call of `send_files`.
pub(super) const FILES: usize = 10_000;
/// The peer's time to ask its user is over so much earlier than ours to wait for it.
const ANSWER_MARGIN: Duration = Duration::from_secs(10);
/// The receiver ends the session; where it does not, the sender does.
const LAST_WORD: Duration = Duration::from_secs(10);

// Beginning and end.
impl Endpoint {
    pub(super) fn file(&self, id: FileId) -> Option<&File> {
        self.transfers.get(&id.transfer)?.files.get(id.file)
    }

    pub(super) fn file_mut(&mut self, id: FileId) -> Option<&mut File> {
        self.transfers.get_mut(&id.transfer)?.files.get_mut(id.file)
    }

    pub(super) fn tell(&mut self, event: FileEvent) {
        self.emit(Event::File(event));
    }

    pub(super) fn order(&mut self, output: FileOutput) {
        self.outputs.push_back(Output::File(output));
    }

    pub(super) fn next_transfer_id(&mut self) -> TransferId {
        self.last_transfer += 1;
        TransferId(self.last_transfer)
    }

    /// Goes on with transfers whose device is known now, or whose time to find one is over.
    pub(super) fn find_receivers(&mut self, now: Instant) {
        let finding: Vec<(TransferId, Instant, Jid)> = self
            .transfers
            .values()
            .filter_map(|t| match t.stage {
                Stage::Finding(until) => Some((t.id, until, t.peer.clone())),
                Stage::Opening | Stage::Offered | Stage::Alerting | Stage::Answering | Stage::Active => None,
            })
            .collect();
        for (id, until, to) in finding {
            let over = until <= now;
            let serverless = self.link.peer().filter(|_| self.link.serverless());
            let reach = match serverless {
                Some(peer) => Reach::Device(peer),
                None => self.people.receiver(&to),
            };
            match reach {
                // Relays and proxies are learned in the same round trips as the roster.
                Reach::Device(_) if !self.people.is_settled() && !over => {}
                Reach::Device(device) => self.device_found(now, id, device),
                // A full address that shows no presence may still be right.
                Reach::Unknown if over && to.is_full() => self.device_found(now, id, to),
                Reach::Everybody => self.ask_who_is_there(now, id, &to, over),
                Reach::Unknown if over => {
                    let text = "the other side is not online".to_owned();
                    self.fail_transfer(now, id, EndKind::Unavailable, ReasonCondition::Gone, text);
                }
                Reach::Unknown => {}
                Reach::Nobody => {
                    let text = "no device there takes files".to_owned();
                    self.fail_transfer(now, id, EndKind::Unavailable, ReasonCondition::UnsupportedApplications, text);
                }
            }
        }
    }

    /// Several devices take files. One that went without a word still shows as available, so they are asked, and the
    /// first that answers is taken; without an answer the one with the highest priority.
    fn ask_who_is_there(&mut self, now: Instant, id: TransferId, to: &Jid, over: bool) {
        let devices = self.people.receivers(&to.to_bare());
        let Some(transfer) = self.transfers.get_mut(&id) else { return };
        if over {
            if let Some(best) = devices.into_iter().next() {
                self.device_found(now, id, best);
            }
        } else if !std::mem::replace(&mut transfer.asked, true) {
            for device in devices {
                self.ask(now, Some(device.clone()), IqKind::Get(IqPayload::Ping), Request::Alive(id, device));
            }
        }
    }

    /// A device answered.
    pub(super) fn device_alive(&mut self, now: Instant, id: TransferId, device: Jid) {
        let finding = self.transfers.get(&id).is_some_and(|t| matches!(t.stage, Stage::Finding(_)));
        if finding && self.people.is_settled() {
            self.device_found(now, id, device);
        } else if finding && let Some(transfer) = self.transfers.get_mut(&id) {
            // Relays and proxies are still being learned.
            transfer.peer = device;
        }
    }

    fn device_found(&mut self, now: Instant, id: TransferId, device: Jid) {
        let known: Vec<WayKind> = WayKind::ALL.into_iter().filter(|way| self.people.knows_way(&device, *way)).collect();
        let Some(transfer) = self.transfers.get_mut(&id) else { return };
        let ways: Vec<WayKind> = known.into_iter().filter(|way| transfer.ways.contains(way)).collect();
        if ways.is_empty() {
            let text = "no way to carry a file is known to both sides".to_owned();
            return self.fail_transfer(now, id, EndKind::Unavailable, ReasonCondition::UnsupportedTransports, text);
        }
        transfer.peer = device;
        transfer.stage = Stage::Opening;
        for file in &mut transfer.files {
            file.attempts = attempts(&ways);
        }
        let first = transfer.files.iter().find(|f| matches!(f.stage, FileStage::Waiting)).map(|f| f.id);
        if let Some(first) = first {
            self.prepare(now, first, Purpose::Initiate);
        }
    }

    /// The description as it goes out, with the range that is wanted.
    fn describe(file: &File) -> Description {
        let mut description = file.description.clone();
        description.range = (!file.sending && file.offset > 0).then(|| FileRange {
            offset: file.offset,
            length: None,
            hashes: Vec::new(),
        });
        Description::File(Box::new(description))
    }

    /// A way is prepared: the stanza that it is for goes out.
    pub(super) fn way_prepared(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file(id) else { return };
        let FileStage::Preparing(purpose) = file.stage else { return };
        match purpose {
            Purpose::Initiate => self.send_first_offer(now, id),
            Purpose::Accept => {
                if let Some(file) = self.file_mut(id) {
                    file.stage = FileStage::Prepared;
                }
                self.send_accept(now, id.transfer);
            }
            Purpose::Add => {
                let Some(content) = self.new_content(id) else { return };
                let until = now + self.config.context.timers.ring + ANSWER_MARGIN;
                self.offered(id, Some(ContentKey::of(&content)), Some(until));
                if self.act(id, |s| s.content_add(now, vec![content])).is_err() {
                    self.file_over(id);
                }
                self.trickle(now, id);
            }
            Purpose::AddAccept => {
                let Some(content) = self.answer_content(id) else { return };
                // An ended session reports itself.
                if self.act(id, |s| s.content_accept(now, vec![content])).is_ok() {
                    self.begin_job(id);
                    self.engage_theirs(now, id);
                }
            }
            Purpose::Replace => self.send_replace(now, id),
            Purpose::ReplaceAccept => self.send_replace_accept(now, id),
        }
    }

    pub(super) fn offered(&mut self, id: FileId, content: Option<ContentKey>, until: Option<Instant>) {
        if let Some(file) = self.file_mut(id) {
            file.content = content.or(file.content.take());
            file.stage = FileStage::Offered(until);
        }
    }

    /// A content of ours for the session-initiate or a content-add.
    fn new_content(&mut self, id: FileId) -> Option<Content> {
        let transport = self.our_transport(id)?;
        let transfer = self.transfers.get(&id.transfer)?;
        let file = transfer.files.get(id.file)?;
        Some(Content {
            creator: match transfer.role() {
                Role::Initiator => Creator::Initiator,
                Role::Responder => Creator::Responder,
            },
            name: format!("file-{}", id.file),
            senders: Some(file.senders),
            disposition: crate::wire::jingle::Disposition::Session,
            description: Some(Self::describe(file)),
            transport: Some(transport),
            security: None,
        })
    }

    /// Our half of a content of theirs.
    fn answer_content(&mut self, id: FileId) -> Option<Content> {
        let transport = self.our_transport(id)?;
        let file = self.file(id)?;
        let key = file.content.as_ref()?;
        Some(Content {
            senders: Some(file.senders),
            description: Some(Self::describe(file)),
            transport: Some(transport),
            ..key.element()
        })
    }

    fn send_first_offer(&mut self, now: Instant, id: FileId) {
        let Some(content) = self.new_content(id) else { return };
        let Some((peer, sid)) = self.transfers.get(&id.transfer).map(|t| (t.peer.clone(), t.sid.clone())) else {
            return;
        };
        self.offered(id, Some(ContentKey::of(&content)), None);
        match self.sessions.initiate(now, peer, Some(sid), vec![content], Vec::new()) {
            Ok(session) => {
                if let Some(transfer) = self.transfers.get_mut(&id.transfer) {
                    transfer.session = Some(session);
                    transfer.stage = Stage::Offered;
                }
                self.file_sessions.insert(session, id.transfer);
                self.trickle(now, id);
            }
            Err(why) => {
                let (kind, reason) = (EndKind::Limit, ReasonCondition::GeneralError);
                self.fail_transfer(now, id.transfer, kind, reason, why.to_string());
            }
        }
    }

    /// session-accept, once the ways of all accepted files are prepared.
    fn send_accept(&mut self, now: Instant, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id) else { return };
        if transfer.files.iter().any(|f| matches!(f.stage, FileStage::Preparing(_))) {
            return;
        }
        let ready: Vec<FileId> =
            transfer.files.iter().filter(|f| matches!(f.stage, FileStage::Prepared)).map(|f| f.id).collect();
        let contents: Vec<Content> = ready.iter().filter_map(|id| self.answer_content(*id)).collect();
        let Some(session) = self.transfers.get(&id).and_then(|t| t.session) else { return };
        match self.sessions.act(session, |s| s.accept(now, contents, Vec::new())).and_then(|r| r) {
            Ok(()) => {
                if let Some(transfer) = self.transfers.get_mut(&id) {
                    transfer.stage = Stage::Active;
                }
                for id in ready {
                    self.begin_job(id);
                    self.engage_theirs(now, id);
                }
            }
            Err(why) => {
                self.fail_transfer(now, id, EndKind::Failed, ReasonCondition::GeneralError, why.to_string());
            }
        }
    }

    /// Runs a verb on the session of a file.
    pub(super) fn act<R>(
        &mut self,
        id: FileId,
        verb: impl FnOnce(&mut crate::jingle::session::Session) -> Result<R, crate::jingle::session::Misuse>,
    ) -> Result<R, crate::jingle::session::Misuse> {
        let session = self.transfers.get(&id.transfer).and_then(|t| t.session);
        let session = session.ok_or(crate::jingle::session::Misuse::NoSession)?;
        self.sessions.act(session, verb).and_then(|r| r)
    }

    pub(super) fn decline_addition(&mut self, now: Instant, id: FileId, reason: Reason) {
        if let Some(key) = self.file(id).and_then(|f| f.content.clone()) {
            // An ended session reports itself.
            let _ = self.act(id, |s| s.content_reject(now, &key, reason));
        }
        self.file_over(id);
        // J234-12: the last word is the receiver's.
        self.end_if_done(now, id.transfer);
    }

    /// Adds the next waiting files of ours to the session, so many that there is always one under way.
    pub(super) fn add_next(&mut self, now: Instant, id: TransferId) {
        loop {
            let Some(transfer) = self.transfers.get(&id).filter(|t| t.stage == Stage::Active) else { return };
            let preparing = transfer.files.iter().any(|f| matches!(f.stage, FileStage::Preparing(Purpose::Add)));
            if preparing || transfer.live() >= AT_ONCE {
                return;
            }
            let Some(next) = transfer.files.iter().find(|f| matches!(f.stage, FileStage::Waiting)).map(|f| f.id) else {
                return;
            };
            self.prepare(now, next, Purpose::Add);
        }
    }

    /// A file of ours or theirs that will not arrive: the peer hears why, the application too.
    pub(super) fn fail_file(&mut self, now: Instant, id: FileId, kind: EndKind, reason: Reason, text: String) {
        let Some(transfer) = self.transfers.get_mut(&id.transfer) else { return };
        let others = transfer.files.iter().any(|f| f.id != id && !f.is_over());
        if !others {
            transfer.fault.get_or_insert((kind, text.clone()));
        }
        let key = transfer.files.get(id.file).and_then(|f| f.content.clone());
        let wire = Reason { text: Some(text.clone()), ..reason };
        self.close_way(now, id);
        self.file_over(id);
        self.tell(FileEvent::Failed { id, kind, text });
        if !others {
            return self.end_transfer(now, id.transfer, Some(wire));
        }
        let Some(transfer) = self.transfers.get(&id.transfer) else { return };
        let alone = transfer.live() == 0 && !transfer.files.iter().any(|f| matches!(f.stage, FileStage::Preparing(_)));
        if matches!(transfer.stage, Stage::Finding(_)) {
            return;
        }
        if alone {
            // The rest was not part of the session yet.
            return self.next_session(now, id.transfer, Some(wire));
        }
        if let Some(key) = key {
            // J234-10; an ended session reports itself.
            let _ = self.act(id, |s| s.content_remove(now, &key, Some(wire)));
        }
        self.release_held(now, id.transfer);
        self.add_next(now, id.transfer);
    }

    /// What waits goes in a session of its own; the one there is, if any, ends for `reason` or has ended.
    fn next_session(&mut self, now: Instant, id: TransferId, reason: Option<Reason>) {
        let sid = self.sessions.new_sid();
        self.last_words.remove(&id);
        let Some(transfer) = self.transfers.get_mut(&id) else { return };
        let waits = |f: &&File| matches!(f.stage, FileStage::Waiting | FileStage::Preparing(Purpose::Add));
        let next = transfer.files.iter().find(waits).map(|f| f.id);
        transfer.sid = sid;
        transfer.stage = Stage::Opening;
        if let Some(session) = transfer.session.take() {
            self.file_sessions.remove(&session);
            // One that has ended needs no end.
            let _ = self.sessions.act(session, |s| s.hang_up(now, reason));
        }
        if let Some(next) = next {
            self.close_way(now, next);
            self.prepare(now, next, Purpose::Initiate);
        }
    }

    /// The shell closes what it has of this file; its part is kept unless it was judged.
    pub(super) fn file_over(&mut self, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        file.stage = FileStage::Over;
        file.way = None;
        if std::mem::take(&mut file.open) && !file.sending {
            self.order(FileOutput::Judge { id, verdict: Verdict::Pause });
        }
        self.order(FileOutput::CloseStreams(id));
    }

    pub(super) fn fail_transfer(
        &mut self,
        now: Instant,
        id: TransferId,
        kind: EndKind,
        reason: ReasonCondition,
        text: String,
    ) {
        let Some(transfer) = self.transfers.get_mut(&id) else { return };
        let wire = Reason { text: Some(text.clone()), ..Reason::new(reason) };
        transfer.fault.get_or_insert((kind, text));
        self.end_transfer(now, id, Some(wire));
    }

    /// Ends the session, or the wish for one.
    pub(super) fn end_transfer(&mut self, now: Instant, id: TransferId, reason: Option<Reason>) {
        let Some(transfer) = self.transfers.get(&id) else { return };
        let condition = reason.as_ref().map_or(ReasonCondition::Success, |r| r.condition);
        let end = End::new(condition, EndedBy::Local);
        let Some(session) = transfer.session else { return self.forget_transfer(now, id, &end) };
        let ended = self.sessions.act(session, |s| match (&reason, s.consented()) {
            (Some(reason), false) => s.reject(now, reason.clone()).or_else(|_| s.hang_up(now, Some(reason.clone()))),
            (reason, _) => s.hang_up(now, reason.clone()),
        });
        if !matches!(ended, Ok(Ok(()))) {
            self.forget_transfer(now, id, &end);
        }
    }

    fn forget_transfer(&mut self, now: Instant, id: TransferId, end: &End) {
        let ids: Vec<FileId> = self.transfers.get(&id).map_or(Vec::new(), |t| t.files.iter().map(|f| f.id).collect());
        for file in &ids {
            self.settle_at_end(now, *file, end);
            self.close_way(now, *file);
        }
        let Some(transfer) = self.transfers.remove(&id) else { return };
        if let Some(session) = transfer.session {
            self.file_sessions.remove(&session);
        }
        self.order(FileOutput::Close(id));
        let success = end.reason == ReasonCondition::Success && transfer.all_over();
        let undone: Vec<FileId> = transfer.files.iter().filter(|f| !f.is_over()).map(|f| f.id).collect();
        let (kind, text) = match (&transfer.fault, success) {
            (Some((kind, text)), _) => (*kind, Some(text.clone())),
            (None, true) => (EndKind::Completed, end.text.clone()),
            (None, false) => (ended_kind(&transfer, end), end.text.clone()),
        };
        let by = match end.by {
            EndedBy::Local | EndedBy::Timeout => Party::Local,
            EndedBy::Remote | EndedBy::Refused(_) | EndedBy::TieBreak => Party::Remote,
        };
        let duration = transfer.accepted.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
        tracing::info!(transfer = id.0, sid = %transfer.sid, reason = %end.reason, "transfer ended");
        for id in undone {
            let text = text.clone().unwrap_or_else(|| "the transfer ended before".to_owned());
            self.tell(FileEvent::Failed { id, kind, text });
        }
        let how = Box::new(Ended { kind, reason: Some(end.reason), by, duration, text });
        self.tell(FileEvent::Ended { transfer: id, how });
    }

    /// The peer ends a transfer with success when it has everything: our own news of that may still be on its way.
    fn settle_at_end(&mut self, now: Instant, id: FileId, end: &End) {
        if end.reason == ReasonCondition::Success && end.by == EndedBy::Remote {
            self.confirmed(now, id, false);
        }
    }

    /// A transfer whose files are all over is over: the receiver says so at once, the sender if it does not (J234-12).
    pub(super) fn end_if_done(&mut self, now: Instant, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id) else { return };
        if transfer.all_over() && transfer.session.is_some() {
            self.end_transfer(now, id, None);
        }
    }
}

// What the peer says.
impl Endpoint {
    /// What became of a session of files.
    pub(super) fn handle_file_session(&mut self, now: Instant, session: SessionId, event: SessionEvent) {
        let Some(id) = self.file_sessions.get(&session).copied() else { return };
        match event {
            SessionEvent::Accepted { contents, .. } => {
                if let Some(transfer) = self.transfers.get_mut(&id) {
                    transfer.stage = Stage::Active;
                    transfer.accepted = Some(now);
                }
                let key = contents.iter().map(ContentKey::of).collect::<Vec<_>>();
                for content in contents {
                    self.content_taken(now, id, content);
                }
                self.decline_missing(now, id, &key);
                self.add_next(now, id);
            }
            SessionEvent::ContentAccepted { contents } => {
                for content in contents {
                    self.content_taken(now, id, content);
                }
                self.release_held(now, id);
                self.add_next(now, id);
            }
            SessionEvent::ContentRejected { content, reason } => {
                let Some(file) = self.transfers.get(&id).and_then(|t| t.file_of(&content)) else { return };
                self.close_way(now, file);
                self.file_over(file);
                // A peer that knows no content-add gets the rest in further sessions, which the application begins.
                tracing::debug!(?reason, "a further file was not taken");
                self.tell(FileEvent::Declined { id: file });
                self.release_held(now, id);
                self.add_next(now, id);
                self.end_if_done(now, id);
            }
            SessionEvent::ContentAdded { contents } => self.further_files(now, id, contents),
            SessionEvent::ContentRemoved { content, reason } => {
                let Some(file) = self.transfers.get(&id).and_then(|t| t.file_of(&content)) else { return };
                self.removed(now, file, reason.as_ref());
            }
            SessionEvent::RemoteTransport { content, transport, .. } => {
                let Some(file) = self.transfers.get(&id).and_then(|t| t.file_of(&content)) else { return };
                self.more_remote_ice(now, file, transport);
            }
            SessionEvent::RemoteStreamhosts { content, news } => {
                let Some(file) = self.transfers.get(&id).and_then(|t| t.file_of(&content)) else { return };
                self.remote_streamhosts(now, file, &news);
            }
            SessionEvent::TransportReplaceAsked { content, transport } => {
                match self.transfers.get(&id).and_then(|t| t.file_of(&content)) {
                    Some(file) => self.replace_asked(now, file, transport),
                    None => drop(self.sessions.act(session, |s| s.transport_reject(now, &content))),
                }
            }
            SessionEvent::TransportReplaced { content, transport } => {
                let Some(file) = self.transfers.get(&id).and_then(|t| t.file_of(&content)) else { return };
                self.engage(now, file, transport);
            }
            SessionEvent::TransportReplaceRefused { content } => {
                let Some(file) = self.transfers.get(&id).and_then(|t| t.file_of(&content)) else { return };
                self.fall_back(now, file);
            }
            SessionEvent::RemoteInfo(Info::Received(creator, name)) => self.received(now, id, creator, &name),
            SessionEvent::RemoteInfo(Info::Checksum(creator, name, file)) => {
                self.checksum(now, id, creator, &name, &file);
            }
            SessionEvent::Ended(end) => self.transfer_ended(now, id, &end),
            SessionEvent::Incoming { .. }
            | SessionEvent::Delivered
            | SessionEvent::Ringing
            | SessionEvent::InfoUnsupported
            | SessionEvent::RemoteInfo(_)
            | SessionEvent::ContentModified { .. }
            | SessionEvent::DescriptionChanged { .. } => {}
        }
    }

    /// A peer whose device knows none of our ways, or no further contents, may be served another way.
    fn transfer_ended(&mut self, now: Instant, id: TransferId, end: &End) {
        let success = end.reason == ReasonCondition::Success && end.by == EndedBy::Remote;
        let too_large = is_too_large(end.detail.as_ref()) && end.by == EndedBy::Remote;
        if success {
            self.offer_anew(now, id);
        }
        let waiting = |f: &File| matches!(f.stage, FileStage::Waiting | FileStage::Preparing(Purpose::Add));
        let more = self.transfers.get(&id).is_some_and(|t| t.by == Party::Local && t.files.iter().any(waiting));
        if !(success || too_large) || !more {
            return self.forget_transfer(now, id, end);
        }
        // The receiver took the transfer for complete: the rest goes in a session of its own.
        let ids: Vec<FileId> = self.transfers.get(&id).map_or(Vec::new(), |t| t.files.iter().map(|f| f.id).collect());
        for file in ids {
            self.settle_at_end(now, file, end);
            let refused = self.file(file).is_some_and(|f| f.content.is_some() && !f.is_over());
            if too_large && refused {
                // Only what was part of the session is meant.
                self.close_way(now, file);
                self.file_over(file);
                let text = end.text.clone().unwrap_or_else(|| "larger than the other side takes".to_owned());
                self.tell(FileEvent::Failed { id: file, kind: EndKind::Limit, text });
            }
        }
        self.next_session(now, id, None);
    }

    /// The receiver took the transfer for complete before it saw these files: they wait again, with all their ways.
    fn offer_anew(&mut self, now: Instant, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id).filter(|t| t.by == Party::Local) else { return };
        let knows = |way: &WayKind| transfer.ways.contains(way) && self.people.knows_way(&transfer.peer, *way);
        let ways: Vec<WayKind> = WayKind::ALL.into_iter().filter(knows).collect();
        let unseen = |f: &&File| {
            matches!(f.stage, FileStage::Preparing(Purpose::Add) | FileStage::Prepared | FileStage::Offered(_))
        };
        let ids: Vec<FileId> = transfer.files.iter().filter(|f| f.sending).filter(unseen).map(|f| f.id).collect();
        for id in ids {
            self.close_way(now, id);
            if let Some(file) = self.file_mut(id) {
                file.stage = FileStage::Waiting;
                file.content = None;
                file.attempts = attempts(&ways);
            }
        }
    }

    /// Files of the session-initiate that the session-accept leaves out are declined.
    fn decline_missing(&mut self, now: Instant, id: TransferId, kept: &[ContentKey]) {
        let Some(transfer) = self.transfers.get(&id) else { return };
        let missing: Vec<FileId> = transfer
            .files
            .iter()
            .filter(|f| matches!(f.stage, FileStage::Offered(_)))
            .filter(|f| f.content.as_ref().is_some_and(|key| !kept.contains(key)))
            .map(|f| f.id)
            .collect();
        for file in missing {
            self.close_way(now, file);
            self.file_over(file);
            self.tell(FileEvent::Declined { id: file });
        }
    }

    /// The peer took a content of ours.
    fn content_taken(&mut self, now: Instant, id: TransferId, content: Content) {
        let key = ContentKey::of(&content);
        let Some(file_id) = self.transfers.get(&id).and_then(|t| t.file_of(&key)) else { return };
        let Some(file) = self.file_mut(file_id) else { return };
        if let Some(theirs) = file_of(&content) {
            if file.sending {
                // J234-08: the range that the receiver asks for is honoured.
                let range = theirs.range.clone().unwrap_or_default();
                file.offset = range.offset;
                file.length = range.length;
            } else {
                // A request is answered with what the file is.
                complete(&mut file.description, theirs);
            }
        }
        let (offset, size) = (file.offset, file.description.size);
        if file.sending && size.is_some_and(|size| offset > size) {
            let reason = Self::file_not_available();
            let text = "the other side asks for bytes beyond the end of the file".to_owned();
            return self.fail_file(now, file_id, EndKind::File, reason, text);
        }
        self.tell(FileEvent::Accepted { id: file_id, offset });
        self.begin_job(file_id);
        if let Some(transport) = content.transport {
            self.engage(now, file_id, transport);
        }
    }

    /// A session-initiate whose first content is a file.
    pub(super) fn handle_file_offer(&mut self, now: Instant, session: SessionId, contents: &[Content]) {
        let Some((peer, sid)) = self.sessions.session(session).map(|s| (s.peer().clone(), s.sid().clone())) else {
            return;
        };
        if contents.iter().any(|c| offered_by(c, Role::Responder).is_none()) {
            // J234-03, or an offer that mixes files with sound.
            let both = contents.iter().all(|c| file_of(c).is_some());
            let reason =
                if both { ReasonCondition::IncompatibleParameters } else { ReasonCondition::UnsupportedApplications };
            let _ = self.sessions.act(session, |s| s.reject(now, Reason::new(reason)));
            return;
        }
        let id = self.next_transfer_id();
        let transfer = Transfer {
            id,
            peer: peer.clone(),
            sid: sid.clone(),
            by: Party::Remote,
            stage: Stage::Alerting,
            session: Some(session),
            ways: WayKind::ALL.to_vec(),
            files: Vec::new(),
            asked: false,
            accepted: None,
            fault: None,
        };
        self.transfers.insert(id, transfer);
        self.file_sessions.insert(session, id);
        // Nothing rings: that is a word of calls (J167-30), and a browser's file session never answers it nor anything after.
        let files = self.note_files(id, contents, None);
        let mut files = files.into_iter();
        let requested = self.transfers.get(&id).is_some_and(|t| t.files.first().is_some_and(|f| f.sending));
        if requested {
            if let Some(file) = files.next() {
                self.tell(FileEvent::Requested { transfer: id, sid, from: peer, file });
            }
            return;
        }
        self.tell(FileEvent::Offered { transfer: id, sid, from: peer, files: files.collect(), further: false });
    }

    fn note_files(&mut self, id: TransferId, contents: &[Content], until: Option<Instant>) -> Vec<OfferedFile> {
        let Some(transfer) = self.transfers.get_mut(&id) else { return Vec::new() };
        let role = transfer.role();
        let mut noted = Vec::new();
        for content in contents {
            let (Some(sending), Some(description)) = (offered_by(content, role), file_of(content)) else { continue };
            let file_id = FileId { transfer: id, file: transfer.files.len() };
            let mut file = File::new(file_id, sending, description.clone(), FileStage::Alerting(until));
            file.content = Some(ContentKey::of(content));
            file.theirs.clone_from(&content.transport);
            file.senders = content.senders.unwrap_or(Senders::Both);
            transfer.files.push(file);
            noted.push(OfferedFile { id: file_id, description: description.clone() });
        }
        noted
    }

    /// J234-09: more files; each is taken or declined singly.
    fn further_files(&mut self, now: Instant, id: TransferId, contents: Vec<Content>) {
        let Some(transfer) = self.transfers.get(&id) else { return };
        let (peer, sid, role) = (transfer.peer.clone(), transfer.sid.clone(), transfer.role());
        let session = transfer.session;
        let room = transfer.files.len() < FILES;
        let (fine, odd): (Vec<Content>, Vec<Content>) =
            contents.into_iter().partition(|c| room && offered_by(c, role) == Some(false));
        for content in odd {
            let key = ContentKey::of(&content);
            // J234-03; a request inside of a session of offers is not served.
            let reason = Reason::new(ReasonCondition::IncompatibleParameters);
            if let Some(session) = session {
                let _ = self.sessions.act(session, |s| s.content_reject(now, &key, reason));
            }
        }
        let until = now + self.config.context.timers.ring;
        let files = self.note_files(id, &fine, Some(until));
        if !files.is_empty() {
            self.tell(FileEvent::Offered { transfer: id, sid, from: peer, files, further: true });
        }
    }

    /// J234-10: the peer took one file out.
    fn removed(&mut self, now: Instant, id: FileId, reason: Option<&Reason>) {
        let condition = reason.map_or(ReasonCondition::Cancel, |r| r.condition);
        if self.file(id).is_none_or(File::is_over) {
            return;
        }
        if condition == ReasonCondition::Success && self.confirmed(now, id, false) {
            return self.add_next(now, id.transfer);
        }
        self.close_way(now, id);
        self.file_over(id);
        let text = reason.and_then(|r| r.text.clone()).unwrap_or_else(|| "cancelled by the other side".to_owned());
        let too_large = is_too_large(reason.and_then(|r| r.detail.as_ref()));
        let kind = if too_large { EndKind::Limit } else { reason_kind(condition) };
        self.tell(FileEvent::Failed { id, kind, text });
        self.add_next(now, id.transfer);
    }

    /// The file that a session-info is about: by creator and name, or by the name alone if only one has it.
    pub(super) fn named_file(&self, id: TransferId, creator: Creator, name: &str) -> Option<FileId> {
        let transfer = self.transfers.get(&id)?;
        let exact = ContentKey { creator, name: name.to_owned() };
        transfer.file_of(&exact).or_else(|| {
            let mut same = transfer.files.iter().filter(|f| f.content.as_ref().is_some_and(|k| k.name == name));
            let first = same.next()?;
            same.next().is_none().then_some(first.id)
        })
    }

    /// Transfers that can no longer be negotiated end; bytes that flow go on.
    pub(super) fn drop_unconnected_transfers(&mut self, now: Instant, text: &str) {
        let lost: Vec<TransferId> = self
            .transfers
            .values()
            .filter(|t| !t.files.iter().any(|f| matches!(f.stage, FileStage::Carrying) && !is_in_band(f)))
            .map(|t| t.id)
            .collect();
        for id in lost {
            if let Some(transfer) = self.transfers.get_mut(&id) {
                transfer.fault.get_or_insert((EndKind::SignallingLost, text.to_owned()));
            }
            let reason = ReasonCondition::ConnectivityError;
            let end = End::new(reason, EndedBy::Local);
            self.forget_transfer(now, id, &end);
        }
    }

    /// J234-12: the last receiver ends the session. Where files were added, another one may be on its way: a sender that is
    /// done says so itself, and one that stays silent is not waited for.
    pub(super) fn receiver_may_end(&mut self, now: Instant, id: TransferId) {
        if self.transfers.get(&id).is_some_and(|t| t.files.len() > 1 && t.all_over() && t.by == Party::Remote) {
            self.last_words.insert(id, now + LAST_WORD);
        } else {
            self.end_if_done(now, id);
        }
    }

    /// The last word is the receiver's; one that stays silent after it confirmed everything is not waited for. Of several
    /// files, the sender alone knows which is the last one, and says so.
    pub(super) fn sender_may_end(&mut self, now: Instant, id: TransferId) {
        if let Some(transfer) = self.transfers.get_mut(&id)
            && transfer.all_over()
            && transfer.session.is_some()
        {
            let wait = if transfer.files.len() > 1 { Duration::ZERO } else { LAST_WORD };
            self.last_words.insert(id, now + wait);
        }
    }
}

//! The bytes of files, from the accepted offer to the verdict: jobs of the shell, in-band bytes with their credit, hashes.
//! Read XEP-0234 §8 and XEP-0047 §2.2 before touching this file.

use super::Endpoint;
use super::event::EndKind;
use super::file_event::{FileEvent, FileId, FileInput, FileOutput, TransferId, Way};
use super::transfer::{Carriage, File, FileStage};
use crate::fault::{ReasonCondition, StanzaCondition};
use crate::file::hash::{Compared, compare, strongest};
use crate::file::{Carried, CarryFault, FileFault, FileJob, Verdict};
use crate::jingle::session::Role;
use crate::transport::ibb::{IbbEvent, IbbTransmit, UNKNOWN};
use crate::wire::bytestream::Ibb;
use crate::wire::description::{FileDescription, FileHash, HashAlgo, Info};
use crate::wire::jid::Jid;
use crate::wire::jingle::{Creator, Reason, Senders};
use crate::wire::stanza::{Iq, IqKind, IqPayload, Message, MessageType, Stanza, StanzaError};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Bytes read from a file at once for a way that passes the engine.
const READ_BYTES: usize = 256 * 1024;
/// Bytes that the shell may hold for the disk; the way's window closes meanwhile.
const WRITE_BYTES: usize = 1024 * 1024;
/// Bytes taken from a way at once.
const TAKE_BYTES: usize = 256 * 1024;
/// A hash that was announced is waited for so long; the sender has it when it has sent the last byte.
const CHECKSUM: Duration = Duration::from_secs(30);
/// The receiver writes and compares what is on its way; slow disks have half a minute of it.
const CONFIRM: Duration = Duration::from_secs(60);
/// The same once the receiver has closed the way: it has everything, or is gone.
const CONFIRM_AFTER: Duration = Duration::from_secs(10);
/// Some receivers close the way first and read the file again for its hash; bytes a second.
const HASHING: u64 = 50_000_000;

impl Endpoint {
    /// Both sides want this file: the shell opens it for its range.
    pub(super) fn begin_job(&mut self, id: FileId) {
        let Some(file) = self.file_mut(id).filter(|f| !f.open) else { return };
        file.open = true;
        let description = &file.description;
        let job = if file.sending {
            FileJob::Send { offset: file.offset, length: file.length, hash: description.hash_used }
        } else {
            let known = strongest(description.hashes.iter().filter(|h| !h.1.is_empty()).map(|h| h.0));
            let mut hashes: Vec<HashAlgo> = known.into_iter().chain(description.hash_used).collect();
            // Without any word of the sender the hash is for the person who receives.
            if hashes.is_empty() {
                hashes.push(HashAlgo::Sha256);
            }
            hashes.dedup();
            FileJob::Receive { offset: file.offset, size: description.size, limit: file.limit, hashes }
        };
        self.order(FileOutput::Open { id, job });
    }

    /// What the shell says about files.
    pub(super) fn handle_file_input(&mut self, now: Instant, input: FileInput) {
        match input {
            FileInput::Listening { id, bound, networks } => self.listening(now, id, &bound, networks),
            FileInput::StreamOpen { id, stream, local } => self.stream_open(now, id, stream, local),
            FileInput::StreamDown { id, stream } => self.stream_down(now, id, stream),
            FileInput::Carried { id, result: Ok(carried) } => self.carried(now, id, carried),
            FileInput::Carried { id, result: Err(fault) } => self.carry_failed(now, id, fault),
            FileInput::Left { id } => self.receiver_left(now, id),
            FileInput::Bytes { id, bytes, end } => {
                let Some(file) = self.file_mut(id) else { return };
                file.pump.asked = false;
                file.pump.read += bytes.len() as u64;
                file.pump.pending = bytes;
                if let Some(hashes) = end {
                    let bytes = file.pump.read;
                    let size = file.description.size.unwrap_or(file.offset + bytes);
                    file.carried = Some(Carried { bytes, size, hashes });
                    file.pump.ended = true;
                }
                self.feed(now, id);
            }
            FileInput::Written { id, bytes } => {
                let Some(file) = self.file_mut(id) else { return };
                file.pump.unwritten = file.pump.unwritten.saturating_sub(bytes);
                if let Some(stream) = file.ibb_mut() {
                    stream.taken(now, bytes);
                    self.pump_ibb(now, id);
                }
                self.take_in_band(now, id);
            }
            FileInput::Kept { id, path } => self.kept(now, id, path),
            FileInput::Fault { id, fault } => self.file_fault(now, id, &fault),
        }
    }

    fn file_fault(&mut self, now: Instant, id: FileId, fault: &FileFault) {
        if self.file(id).is_none_or(File::is_over) {
            return;
        }
        let (reason, detail) = fault.reason();
        let reason = Reason { detail: detail.map(|d| d.detail()), ..Reason::new(reason) };
        self.fail_file(now, id, EndKind::File, reason, fault.to_string());
    }

    fn carry_failed(&mut self, now: Instant, id: FileId, fault: CarryFault) {
        match fault {
            CarryFault::File(fault) => self.file_fault(now, id, &fault),
            CarryFault::Stream { bytes, why } => {
                tracing::info!(file = %id, bytes, %why, "the stream broke");
                self.way_failed(now, id);
            }
            CarryFault::Stopped { .. } => {}
        }
    }

    fn carried(&mut self, now: Instant, id: FileId, carried: Carried) {
        let Some(file) = self.file_mut(id).filter(|f| matches!(f.stage, FileStage::Carrying)) else { return };
        if !file.sending {
            return self.judge(now, id, carried);
        }
        file.carried = Some(carried);
        self.all_sent(now, id);
    }

    /// There was nothing to send, and the way is gone: what the peer says of it decides.
    pub(super) fn empty_sent(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        let hash = file.description.hashes.first().cloned();
        file.stage = FileStage::Sent { size: 0, hash, until: now + CONFIRM };
        self.close_way(now, id);
    }

    /// Every byte is with the peer, or on its way there beyond our reach.
    fn all_sent(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file_mut(id).filter(|f| matches!(f.stage, FileStage::Carrying)) else { return };
        let Some(carried) = file.carried.take() else { return };
        let hash = carried.hashes.first().or(file.description.hashes.first()).cloned();
        file.stage = FileStage::Sent { size: carried.size, hash, until: now + CONFIRM };
        let late = file.description.hash_used.is_some();
        // J234-14: what was announced in the offer is told now.
        if let (true, Some(key)) = (late, file.content.clone()) {
            let checksum = FileDescription { hashes: carried.hashes, ..FileDescription::default() };
            let info = Info::Checksum(key.creator, key.name, Box::new(checksum));
            // An ended session needs no hash.
            let _ = self.act(id, |s| s.send_info(now, info));
        }
        self.add_next(now, id.transfer);
    }

    /// The receiver of a whole file has closed the way without a word so far.
    pub(super) fn receiver_left(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        if let FileStage::Sent { size, until, .. } = &mut file.stage {
            let patience = CONFIRM_AFTER + Duration::from_secs(*size / HASHING);
            *until = (*until).min(now + patience);
        }
    }

    /// Compares what arrived with what the sender says of it (J234-15).
    fn judge(&mut self, now: Instant, id: FileId, carried: Carried) {
        let Some(file) = self.file_mut(id) else { return };
        let compared = compare(&carried.hashes, &file.description.hashes);
        let announced = file.description.hash_used.is_some();
        match compared {
            Compared::Same(algo) => {
                let hash = carried.hashes.into_iter().find(|h| h.0 == algo);
                self.keep(id, carried.size, hash, true);
            }
            Compared::Different(_) => self.spoiled(now, id),
            // Of no bytes every hash is known; a browser never tells that one.
            Compared::Unknown if announced && carried.size > 0 => {
                file.stage = FileStage::Checking { carried, until: now + CHECKSUM };
            }
            Compared::Unknown => self.keep(id, carried.size, carried.hashes.first().cloned(), announced),
        }
    }

    fn keep(&mut self, id: FileId, size: u64, hash: Option<FileHash>, verified: bool) {
        let Some(file) = self.file_mut(id) else { return };
        file.stage = FileStage::Keeping { size, hash, verified };
        self.order(FileOutput::Judge { id, verdict: Verdict::Keep });
    }

    fn spoiled(&mut self, now: Instant, id: FileId) {
        if let Some(file) = self.file_mut(id) {
            file.open = false;
        }
        self.order(FileOutput::Judge { id, verdict: Verdict::Spoiled });
        let text = "the file that arrived is not the one that was sent: its hash differs".to_owned();
        self.fail_file(now, id, EndKind::File, Reason::new(ReasonCondition::MediaError), text);
    }

    /// The file has its final name.
    fn kept(&mut self, now: Instant, id: FileId, path: PathBuf) {
        let Some(file) = self.file_mut(id) else { return };
        let FileStage::Keeping { size, hash, verified } = &mut file.stage else { return };
        let (size, hash, verified) = (*size, hash.take(), *verified);
        file.open = false;
        // J234-13 is a SHOULD: a browser's session, which says that both send, never answers this word nor any after it.
        let browser = file.senders == Senders::Both;
        if let Some(key) = file.content.clone().filter(|_| !browser) {
            // An ended session needs no word.
            let _ = self.act(id, |s| s.send_info(now, Info::Received(key.creator, key.name)));
        }
        self.tell(FileEvent::Done { id, path: Some(path), size, hash, verified });
        self.close_way(now, id);
        self.file_over(id);
        self.receiver_may_end(now, id.transfer);
    }

    /// The peer has a file of ours.
    pub(super) fn sent(&mut self, now: Instant, id: FileId, size: u64, hash: Option<FileHash>, verified: bool) {
        if let Some(file) = self.file_mut(id) {
            file.open = false;
        }
        self.tell(FileEvent::Done { id, path: None, size, hash, verified });
        self.close_way(now, id);
        self.file_over(id);
        self.sender_may_end(now, id.transfer);
    }

    /// J234-13
    pub(super) fn received(&mut self, now: Instant, id: TransferId, creator: Creator, name: &str) {
        let Some(id) = self.named_file(id, creator, name) else { return };
        if self.confirmed(now, id, true) {
            self.add_next(now, id.transfer);
        }
    }

    /// The peer has a file of ours, or says so; with `received` it has compared the hash that it was told.
    pub(super) fn confirmed(&mut self, now: Instant, id: FileId, received: bool) -> bool {
        let Some(file) = self.file_mut(id).filter(|f| f.sending) else { return false };
        let known = (file.description.size.unwrap_or(0), file.description.hashes.first().cloned());
        let (size, hash) = match &mut file.stage {
            FileStage::Sent { size, hash, .. } => (*size, hash.take()),
            // Its word overtook the news of our own shell (Conversations#3786).
            FileStage::Carrying => known,
            FileStage::Held { .. } if known.0 == 0 => known,
            FileStage::Waiting
            | FileStage::Alerting(_)
            | FileStage::Preparing(_)
            | FileStage::Prepared
            | FileStage::Offered(_)
            | FileStage::Connecting(_)
            | FileStage::Held { .. }
            | FileStage::Checking { .. }
            | FileStage::Keeping { .. }
            | FileStage::Over => return false,
        };
        let verified = received && hash.is_some();
        self.sent(now, id, size, hash, verified);
        true
    }

    /// J234-14, J234-15
    pub(super) fn checksum(
        &mut self,
        now: Instant,
        id: TransferId,
        creator: Creator,
        name: &str,
        news: &FileDescription,
    ) {
        let Some(id) = self.named_file(id, creator, name) else { return };
        let Some(file) = self.file_mut(id).filter(|f| !f.sending) else { return };
        // What the offer said stands; a late word only adds what was missing.
        let known = &mut file.description.hashes;
        for hash in &news.hashes {
            let said = known.iter().any(|k| k.0 == hash.0 && !k.1.is_empty());
            if !said {
                known.retain(|k| k.0 != hash.0);
                known.push(hash.clone());
            }
        }
        if matches!(file.stage, FileStage::Checking { .. })
            && let FileStage::Checking { carried, .. } = std::mem::replace(&mut file.stage, FileStage::Carrying)
        {
            // A word that cannot be compared is no announcement any more.
            file.description.hash_used = None;
            self.judge(now, id, carried);
        }
    }

    /// A stage took too long.
    pub(super) fn stage_timeout(&mut self, now: Instant, id: FileId) {
        let initiator = self.transfers.get(&id.transfer).is_some_and(|t| t.role() == Role::Initiator);
        let online = self.online();
        let Some(file) = self.file_mut(id) else { return };
        match &mut file.stage {
            FileStage::Connecting(until) if *until <= now && initiator => self.fall_back(now, id),
            FileStage::Connecting(until) if *until <= now => self.no_way(now, id),
            FileStage::Offered(Some(until)) if *until <= now => {
                let text = "the other side did not answer".to_owned();
                self.fail_file(now, id, EndKind::NoAnswer, Reason::new(ReasonCondition::Timeout), text);
            }
            FileStage::Alerting(Some(until)) if *until <= now => {
                self.tell(FileEvent::Declined { id });
                self.decline_addition(now, id, Reason::new(ReasonCondition::Timeout));
            }
            FileStage::Held { until, .. } if *until <= now => self.release_held(now, id.transfer),
            FileStage::Checking { until, .. } if *until <= now => {
                let FileStage::Checking { carried, .. } = std::mem::replace(&mut file.stage, FileStage::Carrying)
                else {
                    return;
                };
                self.keep(id, carried.size, carried.hashes.first().cloned(), false);
            }
            // Its word may wait at the server; a stream that is not resumed ends the transfer anyway.
            FileStage::Sent { until, .. } if *until <= now && !online => *until = now + CONFIRM_AFTER,
            FileStage::Sent { until, .. } if *until <= now => {
                let text = "the other side did not say that it has the file".to_owned();
                self.fail_file(now, id, EndKind::MediaFailed, Reason::new(ReasonCondition::Timeout), text);
            }
            FileStage::Waiting
            | FileStage::Alerting(_)
            | FileStage::Preparing(_)
            | FileStage::Prepared
            | FileStage::Offered(_)
            | FileStage::Connecting(_)
            | FileStage::Held { .. }
            | FileStage::Carrying
            | FileStage::Checking { .. }
            | FileStage::Keeping { .. }
            | FileStage::Sent { .. }
            | FileStage::Over => {}
        }
    }
}

// Bytes that pass the engine.
impl Endpoint {
    /// Gives the way what it takes, and reads on.
    pub(super) fn feed(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file_mut(id).filter(|f| matches!(f.stage, FileStage::Carrying)) else { return };
        let File { way, pump, sending, description, .. } = file;
        if !*sending {
            // A file without bytes has an end too: the worker learns that nothing else will tell it.
            if !matches!(way, Some(Carriage::S5b(_))) && !std::mem::replace(&mut pump.asked, true) {
                self.order(FileOutput::Write { id, bytes: Vec::new() });
            }
            return;
        }
        if !pump.pending.is_empty() {
            let taken = match way {
                Some(Carriage::Ibb { stream: Some(stream), .. }) => stream.push(now, &pump.pending),
                Some(Carriage::Channel(channel)) => match (&mut channel.leg, channel.channel) {
                    (Some(leg), Some(id)) => {
                        channel.delivered = false;
                        leg.write_channel(now, id, &pump.pending).unwrap_or(0)
                    }
                    (_, _) => 0,
                },
                Some(Carriage::S5b(_) | Carriage::Ibb { stream: None, .. }) | None => return,
            };
            pump.pending.drain(..taken.min(pump.pending.len()));
        }
        if pump.pending.is_empty() && !pump.ended && !pump.asked && !matches!(way, Some(Carriage::S5b(_)) | None) {
            pump.asked = true;
            self.order(FileOutput::Read { id, most: READ_BYTES });
        } else if pump.ended && pump.pending.is_empty() {
            // Browsers' programs look whether a file is complete when a message comes, and not before.
            if let Some(Carriage::Channel(channel)) = way
                && description.size == Some(0)
                && let (Some(leg), Some(id)) = (&mut channel.leg, channel.channel)
                && !std::mem::replace(&mut channel.nothing_sent, true)
            {
                channel.delivered = false;
                // One that is closed has been taken for complete.
                let _ = leg.write_channel(now, id, &[]);
            }
            if let Some(Carriage::Ibb { stream: Some(stream), .. }) = way {
                stream.finish(now);
            }
            self.in_band_sent(now, id);
        }
        self.pump_ibb(now, id);
    }

    /// Ends the sending once the shell has read everything and the peer has acknowledged it.
    pub(super) fn in_band_sent(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file_mut(id).filter(|f| f.sending && f.pump.ended) else { return };
        let through = file.pump.pending.is_empty()
            && match &file.way {
                Some(Carriage::Channel(channel)) => match (&channel.leg, channel.channel) {
                    (Some(leg), Some(id)) => channel.delivered || leg.channel_unacked(id) == 0,
                    (_, _) => false,
                },
                Some(Carriage::Ibb { stream: Some(stream), .. }) => stream.is_over(),
                Some(Carriage::S5b(_) | Carriage::Ibb { stream: None, .. }) | None => false,
            };
        if through {
            self.all_sent(now, id);
        }
    }

    /// Hands what came to the shell, as long as the disk keeps up.
    pub(super) fn take_in_band(&mut self, now: Instant, id: FileId) {
        loop {
            let Some(file) = self.file_mut(id).filter(|f| !f.sending && matches!(f.stage, FileStage::Carrying)) else {
                return;
            };
            let File { way, pump, .. } = file;
            if pump.unwritten >= WRITE_BYTES {
                return;
            }
            let bytes = match way {
                Some(Carriage::Ibb { stream: Some(stream), .. }) => stream.take(),
                Some(Carriage::Channel(channel)) => match (&mut channel.leg, channel.channel) {
                    (Some(leg), Some(id)) => leg.read_channel(now, id, TAKE_BYTES),
                    (_, _) => None,
                },
                Some(Carriage::S5b(_) | Carriage::Ibb { stream: None, .. }) | None => return,
            };
            match bytes.filter(|b| !b.is_empty()) {
                Some(bytes) => {
                    pump.unwritten += bytes.len();
                    self.order(FileOutput::Write { id, bytes });
                }
                None if pump.closed => {
                    pump.closed = false;
                    return self.order(FileOutput::WriteEnd(id));
                }
                None => return,
            }
        }
    }

    /// The way has no more bytes, in either direction.
    pub(super) fn in_band_closed(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        match (&file.stage, file.sending) {
            (FileStage::Carrying, false) => {
                file.pump.closed = true;
                self.take_in_band(now, id);
            }
            (FileStage::Carrying, true) => {
                self.in_band_sent(now, id);
                if self.file(id).is_some_and(|f| matches!(f.stage, FileStage::Carrying)) {
                    // A peer that counts closes as soon as it has everything, before our own worker has said so.
                    let all_read = self.file(id).is_some_and(|f| f.pump.ended && f.pump.pending.is_empty());
                    if !all_read {
                        self.way_failed(now, id);
                    }
                }
            }
            (_, _) => self.way_failed(now, id),
        }
    }

    /// What an in-band stream has to say.
    pub(super) fn pump_ibb(&mut self, now: Instant, id: FileId) {
        loop {
            let Some(stream) = self.file_mut(id).and_then(File::ibb_mut) else { return };
            if let Some(transmit) = stream.poll_transmit() {
                self.send_ibb(now, id, transmit);
                continue;
            }
            match stream.poll_event() {
                Some(IbbEvent::Opened) => self.connected(now, id, Way::Ibb, None),
                Some(IbbEvent::Readable) => self.take_in_band(now, id),
                Some(IbbEvent::Writable) => self.feed(now, id),
                Some(IbbEvent::Closed) => self.in_band_closed(now, id),
                Some(IbbEvent::Failed(fault)) => {
                    tracing::info!(file = %id, %fault, "the in-band bytestream failed");
                    self.way_failed(now, id);
                }
                None => return,
            }
        }
    }

    pub(super) fn send_ibb(&mut self, now: Instant, id: FileId, transmit: IbbTransmit) {
        let Some(peer) = self.transfers.get(&id.transfer).map(|t| t.peer.clone()) else { return };
        let stanza = match transmit {
            IbbTransmit::Set { id, request } => {
                Stanza::Iq(Iq::new(Some(peer), id, IqKind::Set(IqPayload::Ibb(Box::new(request)))))
            }
            IbbTransmit::Answer { id, result } => {
                let kind = match result {
                    Ok(()) => IqKind::Result(None),
                    Err(answer) => IqKind::Error(Box::new(StanzaError::from(answer))),
                };
                Stanza::Iq(Iq::new(Some(peer), id, kind))
            }
            IbbTransmit::Message(block) => {
                let mut message = Message::new(Some(peer), MessageType::Normal);
                message.ibb = Some(Box::new(block));
                Stanza::Message(message)
            }
        };
        self.send(now, stanza);
    }

    fn ibb_owner(&self, from: &Jid, sid: &str) -> Option<FileId> {
        self.transfers.values().filter(|t| &t.peer == from).flat_map(|t| &t.files).find_map(|f| match &f.way {
            Some(Carriage::Ibb { stream: Some(stream), .. }) if stream.sid() == sid => Some(f.id),
            Some(Carriage::Ibb { .. } | Carriage::S5b(_) | Carriage::Channel(_)) | None => None,
        })
    }

    /// An in-band request. What belongs to no stream is not known here (J047-05).
    pub(super) fn handle_ibb(&mut self, now: Instant, from: &Jid, iq: &Iq, request: Ibb) {
        match self.ibb_owner(from, request.sid()) {
            Some(id) => {
                if let Some(stream) = self.file_mut(id).and_then(File::ibb_mut) {
                    stream.handle_request(now, &iq.id, request);
                }
                self.pump_ibb(now, id);
            }
            None => {
                let error = IqKind::Error(Box::new(StanzaError::from(UNKNOWN)));
                self.send(now, Stanza::Iq(iq.answer(error)));
            }
        }
    }

    pub(super) fn handle_ibb_message(&mut self, now: Instant, from: &Jid, block: Ibb) {
        let Some(id) = self.ibb_owner(from, block.sid()) else { return };
        if let Some(stream) = self.file_mut(id).and_then(File::ibb_mut) {
            stream.handle_message(now, block);
        }
        self.pump_ibb(now, id);
    }

    /// True if the answer was one to an in-band request.
    pub(super) fn handle_ibb_answer(
        &mut self,
        now: Instant,
        from: &Jid,
        iq_id: &str,
        result: Result<(), StanzaCondition>,
    ) -> bool {
        let streams: Vec<FileId> = self
            .transfers
            .values()
            .filter(|t| &t.peer == from)
            .flat_map(|t| &t.files)
            .filter(|f| matches!(f.way, Some(Carriage::Ibb { stream: Some(_), .. })))
            .map(|f| f.id)
            .collect();
        for id in streams {
            let Some(stream) = self.file_mut(id).and_then(File::ibb_mut) else { continue };
            if stream.handle_answer(now, iq_id, result) {
                self.pump_ibb(now, id);
                return true;
            }
        }
        false
    }
}

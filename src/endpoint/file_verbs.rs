//! What an application asks for with files. Read XEP-0234 §6 before touching this file.

use super::calls::FIND_LIMIT;
use super::event::{EndKind, Party};
use super::file_event::{FileId, OutgoingFile, TransferId, Wanted, WayKind};
use super::transfer::{File, FileStage, Purpose, Stage, Transfer};
use super::transfers::FILES;
use super::{Endpoint, Misuse};
use crate::fault::ReasonCondition;
use crate::wire::description::{FileDescription, FileErrorCondition};
use crate::wire::jid::Jid;
use crate::wire::jingle::{Reason, Senders};
use std::time::Instant;

impl Endpoint {
    /// Offers files to somebody, in this order, in one session. `ways` are tried in the order of what is fast.
    ///
    /// # Errors
    /// [`Misuse::Offline`], [`Misuse::TooManyCalls`], [`Misuse::NoFile`] without a file or a way.
    pub fn send_files(
        &mut self,
        now: Instant,
        to: &Jid,
        files: Vec<OutgoingFile>,
        ways: &[WayKind],
    ) -> Result<TransferId, Misuse> {
        let files: Vec<FileDescription> = files.into_iter().map(|f| f.description).collect();
        self.begin_transfer(now, to, files, true, ways)
    }

    /// Asks somebody for a file, named by its name or its hash (J234-02).
    ///
    /// # Errors
    /// As [`Endpoint::send_files`].
    pub fn request_file(
        &mut self,
        now: Instant,
        from: &Jid,
        file: FileDescription,
        ways: &[WayKind],
    ) -> Result<TransferId, Misuse> {
        self.begin_transfer(now, from, vec![file], false, ways)
    }

    fn begin_transfer(
        &mut self,
        now: Instant,
        peer: &Jid,
        files: Vec<FileDescription>,
        sending: bool,
        ways: &[WayKind],
    ) -> Result<TransferId, Misuse> {
        if !self.online() {
            return Err(Misuse::Offline);
        }
        if self.transfers.len() >= self.config.context.limits.sessions || files.len() > FILES {
            return Err(Misuse::TooManyCalls);
        }
        if files.is_empty() || ways.is_empty() {
            return Err(Misuse::NoFile);
        }
        let id = self.next_transfer_id();
        let senders = if sending { Senders::Initiator } else { Senders::Responder };
        let files = files
            .into_iter()
            .enumerate()
            .map(|(file, description)| {
                let mut file = File::new(FileId { transfer: id, file }, sending, description, FileStage::Waiting);
                file.senders = senders;
                file
            })
            .collect();
        let transfer = Transfer {
            id,
            peer: peer.clone(),
            sid: self.sessions.new_sid(),
            by: Party::Local,
            stage: Stage::Finding(now + FIND_LIMIT),
            session: None,
            ways: ways.to_vec(),
            files,
            asked: false,
            accepted: None,
            fault: None,
        };
        self.transfers.insert(id, transfer);
        self.find_receivers(now);
        self.pump(now);
        Ok(id)
    }

    /// Takes files of an offer: the local consent. Files of the first offer that are not named are declined; those that were
    /// added later await their own answer, [`Endpoint::cancel_file`] declines one of them.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotRinging`] if none of them awaits an answer.
    pub fn accept_files(&mut self, now: Instant, id: TransferId, wanted: &[Wanted]) -> Result<(), Misuse> {
        let transfer = self.transfers.get_mut(&id).ok_or(Misuse::NoCall)?;
        let first = transfer.stage == Stage::Alerting;
        let purpose = if first { Purpose::Accept } else { Purpose::AddAccept };
        let mut taken = Vec::new();
        let mut declined = Vec::new();
        for file in transfer.files.iter_mut().filter(|f| matches!(f.stage, FileStage::Alerting(_))) {
            match wanted.iter().find(|w| w.id == file.id) {
                Some(want) => {
                    file.offset = want.offset;
                    file.limit = want.limit;
                    taken.push(file.id);
                }
                None if first => declined.push(file.id),
                None => {}
            }
        }
        if taken.is_empty() {
            return Err(Misuse::NotRinging);
        }
        if first {
            transfer.stage = Stage::Answering;
            transfer.accepted = Some(now);
        }
        for id in declined {
            // J166-42: what the accept leaves out is declined.
            self.file_over(id);
        }
        for id in taken {
            self.prepare(now, id, purpose);
        }
        self.pump(now);
        Ok(())
    }

    /// Gives the peer the file that it asked for.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotRinging`].
    pub fn serve_file(&mut self, now: Instant, id: FileId, file: OutgoingFile) -> Result<(), Misuse> {
        let known = self.file_mut(id).ok_or(Misuse::NoCall)?;
        if !known.sending || !matches!(known.stage, FileStage::Alerting(_)) {
            return Err(Misuse::NotRinging);
        }
        let range = known.description.range.take();
        known.offset = range.as_ref().map_or(0, |r| r.offset);
        known.length = range.and_then(|r| r.length);
        known.description = file.description;
        self.accept_files(now, id.transfer, &[Wanted { id, offset: known_offset(self.file(id)), limit: None }])
    }

    /// Declines the files that await an answer; the session if they are all it has.
    ///
    /// # Errors
    /// [`Misuse::NoCall`], [`Misuse::NotRinging`].
    pub fn reject_files(&mut self, now: Instant, id: TransferId, reason: Reason) -> Result<(), Misuse> {
        let transfer = self.transfers.get(&id).ok_or(Misuse::NoCall)?;
        let asked: Vec<FileId> =
            transfer.files.iter().filter(|f| matches!(f.stage, FileStage::Alerting(_))).map(|f| f.id).collect();
        if asked.is_empty() {
            return Err(Misuse::NotRinging);
        }
        if transfer.stage == Stage::Alerting {
            self.end_transfer(now, id, Some(reason));
        } else {
            for id in asked {
                self.decline_addition(now, id, reason.clone());
            }
        }
        self.pump(now);
        Ok(())
    }

    /// The reason that tells nobody whether a file is missing or forbidden (J234-16).
    #[must_use]
    pub fn file_not_available() -> Reason {
        Reason {
            detail: Some(FileErrorCondition::FileNotAvailable.detail()),
            ..Reason::new(ReasonCondition::FailedApplication)
        }
    }

    /// Ends a transfer in whatever state it is; parts of received files are kept.
    ///
    /// # Errors
    /// [`Misuse::NoCall`].
    pub fn cancel_transfer(&mut self, now: Instant, id: TransferId) -> Result<(), Misuse> {
        self.transfers.get(&id).ok_or(Misuse::NoCall)?;
        // J234-10
        self.end_transfer(now, id, Some(Reason::new(ReasonCondition::Cancel)));
        self.pump(now);
        Ok(())
    }

    /// Ends one file of a transfer; the transfer too if it was the last (J234-11).
    ///
    /// # Errors
    /// [`Misuse::NoCall`].
    pub fn cancel_file(&mut self, now: Instant, id: FileId) -> Result<(), Misuse> {
        let known = self.file(id).ok_or(Misuse::NoCall)?;
        let offered = self.transfers.get(&id.transfer).is_some_and(|t| t.stage == Stage::Active);
        if matches!(known.stage, FileStage::Alerting(_)) && offered {
            // J234-09: one that was added is declined singly.
            self.decline_addition(now, id, Reason::new(ReasonCondition::Decline));
        } else if !known.is_over() {
            let text = "cancelled".to_owned();
            self.fail_file(now, id, EndKind::Cancelled, Reason::new(ReasonCondition::Cancel), text);
        }
        self.pump(now);
        Ok(())
    }

    /// Transfers that are not over.
    pub fn transfers(&self) -> impl Iterator<Item = TransferId> + '_ {
        self.transfers.keys().copied()
    }
}

fn known_offset(file: Option<&File>) -> u64 {
    file.map_or(0, |f| f.offset)
}

//! Files as an application sees them.

use super::progress::{Rate, time_left};
use super::{EndKind, Ended, Way, WayKind};
use crate::endpoint::file_event::Wanted;
use crate::endpoint::file_event::{FileEvent, FileId, OfferedFile, OutgoingFile, TransferId};
use crate::error::Error;
use crate::fault::ReasonCondition;
use crate::file::FileFault;
use crate::file::name::safe_name;
use crate::file::part::Identity;
use crate::io::disk::{Entry, Inbox, Part};
use crate::io::driver::{Command, blocking, spawn};
use crate::wire::file::{FileDescription, FileErrorCondition, FileHash, HashAlgo};
use crate::wire::jid::Jid;
use crate::wire::jingle::Reason;
use crate::wire::time::Stamp;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// Files up to so many bytes are hashed before they are offered, so that the receiver knows at once what it has already.
const HASHED_FIRST_BYTES: u64 = 16 * 1024 * 1024;
/// But of one offer no more than this in all: somebody waits for it.
const ALL_HASHED_FIRST_BYTES: u64 = 64 * 1024 * 1024;
/// How often progress is told.
const PROGRESS_PACE: Duration = Duration::from_millis(250);

/// How files are offered.
#[derive(Debug, Clone)]
pub struct SendOptions {
    /// Ways that may be tried; what is fast comes first whatever the order here.
    pub ways: Vec<WayKind>,
    /// What is said about each file, for people.
    pub description: Option<String>,
    /// MIME type of each file; receivers take `application/octet-stream` where it is absent.
    pub media_type: Option<String>,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self { ways: WayKind::ALL.to_vec(), description: None, media_type: None }
    }
}

/// What becomes of files that are received.
#[derive(Debug, Clone)]
pub struct ReceiveOptions {
    /// Where they go; a directory that is there.
    pub dir: PathBuf,
    /// Larger files are declined, and files whose size is not said end there.
    pub max_size: Option<u64>,
    /// Only these of the offered files, by their numbers.
    pub only: Option<Vec<usize>>,
    /// Files that are added to the transfer later are taken too, under the same options; otherwise they are declined.
    pub further: bool,
    /// Ways that may be tried; only for files that we ask for.
    pub ways: Vec<WayKind>,
}

impl ReceiveOptions {
    /// Everything that is offered goes to this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), max_size: None, only: None, further: false, ways: WayKind::ALL.to_vec() }
    }
}

/// A file that somebody offers. Everything but the name is the sender's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOffer {
    /// Number within the transfer, from 0.
    pub file: usize,
    /// The name that it is to get here: safe, whatever the sender called it.
    pub name: String,
    /// Bytes.
    pub size: Option<u64>,
    /// MIME type.
    pub media_type: Option<String>,
    /// XEP-0082 text.
    pub date: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// The first hash that has a value.
    pub hash: Option<FileHash>,
}

impl FileOffer {
    fn new(offered: &OfferedFile) -> Self {
        let FileDescription { name, size, date, media_type, description, hashes, .. } = &offered.description;
        Self {
            file: offered.id.file,
            name: safe_name(name.as_deref().unwrap_or_default()).as_str().to_owned(),
            size: *size,
            media_type: media_type.clone(),
            date: date.clone(),
            description: description.clone(),
            hash: hashes.iter().find(|(_, value)| !value.is_empty()).cloned(),
        }
    }
}

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Number within the transfer.
    pub file: usize,
    /// Bytes of the whole file that are through, those of an earlier attempt included.
    pub bytes: u64,
    /// Bytes of the whole file, if that is known.
    pub total: Option<u64>,
    /// Bytes a second, smoothed.
    pub rate: f64,
}

impl Progress {
    /// How long the rest takes at this rate.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        time_left(self.bytes, self.total, self.rate)
    }
}

/// A file that is over there, or here under its final name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDone {
    /// Number within the transfer.
    pub file: usize,
    /// Its name: the one it was sent by, or the one it has here.
    pub name: String,
    /// Where it is on this machine.
    pub path: PathBuf,
    /// Bytes of the whole file.
    pub bytes: u64,
    /// Its hash, as far as one is known.
    pub hash: Option<FileHash>,
    /// The receiving side has compared the hash, and it fits.
    pub verified: bool,
}

impl FileDone {
    /// SHA-256 in hexadecimal digits, if that is the hash.
    #[must_use]
    pub fn sha256(&self) -> Option<String> {
        let (algo, value) = self.hash.as_ref()?;
        (*algo == HashAlgo::Sha256).then(|| value.iter().map(|b| format!("{b:02x}")).collect())
    }
}

/// What happens in one transfer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TransferEvent {
    /// The other side takes a file of ours.
    Accepted {
        /// Number within the transfer.
        file: usize,
        /// It has the bytes before this one already.
        offset: u64,
    },
    /// The other side will not have a file of ours.
    Declined {
        /// Number within the transfer.
        file: usize,
    },
    /// The other side offers further files; they are taken or declined as the options say.
    Offered(Vec<FileOffer>),
    /// Bytes flow.
    Connected {
        /// Number within the transfer.
        file: usize,
        /// How.
        way: Way,
    },
    /// A way did not work, the next one is tried.
    Falling {
        /// Number within the transfer.
        file: usize,
        /// What did not work.
        from: WayKind,
        /// What is tried.
        to: WayKind,
    },
    /// Four times a second for each file that moves.
    Progress(Progress),
    /// A file is complete.
    Done(FileDone),
    /// There will be no such file.
    Failed {
        /// Number within the transfer.
        file: usize,
        /// Class.
        kind: EndKind,
        /// For people; text of the peer comes unescaped.
        text: String,
    },
    /// The last event of a transfer.
    Ended(Ended),
}

/// Both ends of a transfer's events; the reading end until the application has taken the transfer. Not bounded: a session
/// has a bounded number of files, and a file a bounded number of events.
#[derive(Debug)]
struct Slot {
    events: mpsc::UnboundedSender<FileEvent>,
    reader: Option<mpsc::UnboundedReceiver<FileEvent>>,
}

/// Transfers by their ids, from their first event or their handle until their last event.
#[derive(Debug, Clone, Default)]
pub(super) struct Transfers(Arc<Mutex<BTreeMap<TransferId, Slot>>>);

impl Transfers {
    fn with<T>(&self, id: TransferId, what: impl FnOnce(&mut Slot) -> T) -> T {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = known.entry(id).or_insert_with(|| {
            let (events, reader) = mpsc::unbounded_channel();
            Slot { events, reader: Some(reader) }
        });
        let out = what(slot);
        if slot.events.is_closed() {
            known.remove(&id);
        }
        out
    }

    /// The application's handle on a transfer whose events may already be coming.
    pub(super) fn attach(&self, commands: &mpsc::Sender<Command>, id: TransferId, peer: Jid) -> Transfer {
        let events = self.with(id, |slot| slot.reader.take()).unwrap_or_else(|| mpsc::unbounded_channel().1);
        let mut clock = tokio::time::interval(PROGRESS_PACE);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Transfer {
            id,
            peer,
            commands: commands.clone(),
            events,
            files: BTreeMap::new(),
            moving: BTreeMap::new(),
            ready: VecDeque::new(),
            clock,
            begun: Instant::now(),
            receiving: None,
            over: false,
        }
    }

    /// Hands an event to the transfer it belongs to.
    pub(super) fn deliver(&self, event: FileEvent) {
        let id = match &event {
            FileEvent::Offered { transfer, .. }
            | FileEvent::Requested { transfer, .. }
            | FileEvent::Ended { transfer, .. } => *transfer,
            FileEvent::Accepted { id, .. }
            | FileEvent::Declined { id }
            | FileEvent::Connected { id, .. }
            | FileEvent::Falling { id, .. }
            | FileEvent::Done { id, .. }
            | FileEvent::Failed { id, .. } => id.transfer,
        };
        let over = matches!(event, FileEvent::Ended { .. });
        let attached = self.with(id, |slot| {
            // The application may have dropped the transfer.
            let _ = slot.events.send(event);
            slot.reader.is_none()
        });
        if over && attached {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }
}

/// What is known here of one file.
#[derive(Debug, Clone, Default)]
struct Known {
    name: String,
    size: Option<u64>,
    /// Where a file that is sent lies.
    path: Option<PathBuf>,
}

/// A session in which files are sent or received. Dropping it cancels it; what has arrived is kept for a resume.
#[derive(Debug)]
pub struct Transfer {
    id: TransferId,
    peer: Jid,
    commands: mpsc::Sender<Command>,
    events: mpsc::UnboundedReceiver<FileEvent>,
    files: BTreeMap<usize, Known>,
    /// Files whose bytes flow.
    moving: BTreeMap<usize, Rate>,
    ready: VecDeque<TransferEvent>,
    clock: Interval,
    begun: Instant,
    /// How files are received; `None` where they are sent.
    receiving: Option<ReceiveOptions>,
    over: bool,
}

impl Transfer {
    /// Names the transfer within this client.
    #[must_use]
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// Name of a file: as offered, made safe where it came from the peer.
    #[must_use]
    pub fn name(&self, file: usize) -> &str {
        self.files.get(&file).map_or("", |f| f.name.as_str())
    }

    /// Bytes of a file, as offered.
    #[must_use]
    pub fn size(&self, file: usize) -> Option<u64> {
        self.files.get(&file)?.size
    }

    /// The next event; `None` after [`TransferEvent::Ended`]. Nothing is lost if this is given up while it waits.
    pub async fn next_event(&mut self) -> Option<TransferEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some(event) => if let Some(event) = self.translate(event) {
                        return Some(event);
                    },
                    None => self.over = true,
                },
                _ = self.clock.tick(), if !self.moving.is_empty() => self.measure().await,
            }
        }
    }

    /// Waits until it is over.
    pub async fn ended(&mut self) -> Option<Ended> {
        loop {
            match self.next_event().await? {
                TransferEvent::Ended(ended) => return Some(ended),
                TransferEvent::Accepted { .. }
                | TransferEvent::Declined { .. }
                | TransferEvent::Offered(_)
                | TransferEvent::Connected { .. }
                | TransferEvent::Falling { .. }
                | TransferEvent::Progress(_)
                | TransferEvent::Done(_)
                | TransferEvent::Failed { .. } => {}
            }
        }
    }

    /// Ends the transfer; [`TransferEvent::Ended`] follows.
    pub async fn cancel(&self) {
        // A closed client has cancelled everything.
        let _ = self.commands.send(Command::CancelTransfer(self.id)).await;
    }

    /// Ends one file of it.
    pub async fn cancel_file(&self, file: usize) {
        // A closed client has cancelled everything.
        let _ = self.commands.send(Command::CancelFile(FileId { transfer: self.id, file })).await;
    }

    async fn measure(&mut self) {
        let numbers: Vec<usize> = self.moving.keys().copied().collect();
        for file in numbers {
            let (reply, answer) = oneshot::channel();
            let asked = Command::FileProgress(FileId { transfer: self.id, file }, reply);
            if self.commands.send(asked).await.is_err() {
                return;
            }
            let Ok(Some(bytes)) = answer.await else { continue };
            let at = self.begun.elapsed();
            let Some(rate) = self.moving.get_mut(&file) else { continue };
            let rate = rate.measure(at, bytes);
            let total = self.files.get(&file).and_then(|f| f.size);
            self.ready.push_back(TransferEvent::Progress(Progress { file, bytes, total, rate }));
        }
    }

    fn translate(&mut self, event: FileEvent) -> Option<TransferEvent> {
        Some(match event {
            FileEvent::Offered { files, .. } => {
                let offers = self.learn(&files);
                self.take_further(files);
                TransferEvent::Offered(offers)
            }
            // Only the first event of a session asks.
            FileEvent::Requested { .. } => return None,
            FileEvent::Accepted { id, offset } => TransferEvent::Accepted { file: id.file, offset },
            FileEvent::Declined { id } => TransferEvent::Declined { file: id.file },
            FileEvent::Connected { id, way } => {
                self.moving.entry(id.file).or_default();
                TransferEvent::Connected { file: id.file, way }
            }
            FileEvent::Falling { id, from, to } => TransferEvent::Falling { file: id.file, from, to },
            FileEvent::Done { id, path, size, hash, verified } => {
                self.moving.remove(&id.file);
                let known = self.files.get(&id.file).cloned().unwrap_or_default();
                let path = path.or(known.path).unwrap_or_default();
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                // What is sent keeps the name it was offered by; what is received may have got a number.
                let name = if self.receiving.is_some() { name.unwrap_or(known.name) } else { known.name };
                TransferEvent::Done(FileDone { file: id.file, name, path, bytes: size, hash, verified })
            }
            FileEvent::Failed { id, kind, text } => {
                self.moving.remove(&id.file);
                TransferEvent::Failed { file: id.file, kind, text }
            }
            FileEvent::Ended { how, .. } => {
                self.moving.clear();
                self.over = true;
                TransferEvent::Ended(*how)
            }
        })
    }

    /// Remembers what is offered.
    fn learn(&mut self, offered: &[OfferedFile]) -> Vec<FileOffer> {
        let offers: Vec<FileOffer> = offered.iter().map(FileOffer::new).collect();
        for offer in &offers {
            self.files.insert(offer.file, Known { name: offer.name.clone(), size: offer.size, path: None });
        }
        offers
    }

    /// J234-09: files that are added are taken or declined singly. In a task of its own, so that giving up a wait for
    /// events loses nothing.
    fn take_further(&self, files: Vec<OfferedFile>) {
        let (id, peer, commands) = (self.id, self.peer.clone(), self.commands.clone());
        let options = self.receiving.clone().filter(|options| options.further);
        spawn(async move {
            let ids: Vec<FileId> = files.iter().map(|f| f.id).collect();
            let taken = match options {
                Some(options) => {
                    let options = ReceiveOptions { only: None, ..options };
                    let opened = blocking(move || parts(files, &peer.to_bare().to_string(), &options)).await;
                    match opened {
                        Some(Ok(files)) => files,
                        Some(Err(why)) => {
                            tracing::warn!(%why, "further files are declined");
                            Vec::new()
                        }
                        None => Vec::new(),
                    }
                }
                None => Vec::new(),
            };
            for id in ids.into_iter().filter(|id| taken.iter().all(|(wanted, _)| wanted.id != *id)) {
                // A closed client has declined.
                let _ = commands.send(Command::CancelFile(id)).await;
            }
            if !taken.is_empty() {
                // If there is nobody to answer, the sender was quicker.
                let (reply, _) = oneshot::channel();
                let _ = commands.send(Command::AcceptFiles { transfer: id, files: taken, reply }).await;
            }
        });
    }

    fn reject(mut self, reason: Reason) {
        self.over = true;
        // A closed client has declined.
        let _ = self.commands.try_send(Command::RejectFiles(self.id, reason));
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.over {
            // A closed client has cancelled everything.
            let _ = self.commands.try_send(Command::CancelTransfer(self.id));
        }
    }
}

/// Files that somebody offers. Dropping it declines them; nothing has been sent that tells an address.
#[derive(Debug)]
pub struct IncomingFiles {
    /// Who offers them; with the device.
    pub from: Jid,
    /// Session id.
    pub sid: String,
    /// What is offered.
    pub files: Vec<FileOffer>,
    offered: Vec<OfferedFile>,
    transfer: Option<Transfer>,
}

impl IncomingFiles {
    pub(super) fn new(mut transfer: Transfer, sid: String, from: Jid, offered: Vec<OfferedFile>) -> Self {
        let files = transfer.learn(&offered);
        Self { from, sid, files, offered, transfer: Some(transfer) }
    }

    /// Takes them, or those of them that the options name. A file of which a part is there is resumed.
    ///
    /// # Errors
    /// [`Error::File`] for the directory or the room on its disk, [`Error::Limit`] if every file is too large: both decline
    /// the offer. [`Error::Misuse`] if the sender has just given up.
    pub async fn accept(mut self, options: ReceiveOptions) -> Result<Transfer, Error> {
        let mut transfer = self.transfer.take().ok_or(Error::Closed)?;
        let offered = std::mem::take(&mut self.offered);
        match take(&transfer.commands, transfer.id, &self.from, offered, &options).await {
            Ok(()) => {
                transfer.receiving = Some(options);
                Ok(transfer)
            }
            Err(why) => {
                // `take` has said why to the peer.
                transfer.over = true;
                Err(why)
            }
        }
    }

    /// Declines them.
    pub fn reject(mut self, reason: ReasonCondition) {
        if let Some(transfer) = self.transfer.take() {
            transfer.reject(Reason::new(reason));
        }
    }

    /// Waits until the offer is over by itself: the sender gave up.
    pub async fn over(&mut self) -> Option<Ended> {
        self.transfer.as_mut()?.ended().await
    }
}

impl Drop for IncomingFiles {
    fn drop(&mut self) {
        if let Some(transfer) = self.transfer.take().filter(|t| !t.over) {
            transfer.reject(Reason::new(ReasonCondition::Decline));
        }
    }
}

/// A file that somebody asks for. Dropping it answers that there is none.
#[derive(Debug)]
pub struct FileRequest {
    /// Who asks; with the device.
    pub from: Jid,
    /// Session id.
    pub sid: String,
    /// Name of the file, exactly as asked for: never to be used as a path.
    pub name: Option<String>,
    /// Hash of the file.
    pub hash: Option<FileHash>,
    file: usize,
    transfer: Option<Transfer>,
}

impl FileRequest {
    pub(super) fn new(transfer: Transfer, sid: String, from: Jid, asked: OfferedFile) -> Self {
        let hash = asked.description.hashes.into_iter().find(|(_, value)| !value.is_empty());
        Self { from, sid, name: asked.description.name, hash, file: asked.id.file, transfer: Some(transfer) }
    }

    /// Gives that file.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be sent, [`Error::Misuse`] if the peer has just given up.
    pub async fn serve(mut self, entry: Entry) -> Result<Transfer, Error> {
        let mut transfer = self.transfer.take().ok_or(Error::Closed)?;
        let (entry, file) = describe(vec![entry], SendOptions::default()).await?.pop().ok_or(Error::Closed)?;
        transfer.files.insert(self.file, known(&entry));
        let id = FileId { transfer: transfer.id, file: self.file };
        let (reply, answer) = oneshot::channel();
        let serve = Command::ServeFile { id, entry: Box::new(entry), file: Box::new(file), reply };
        transfer.commands.send(serve).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)??;
        Ok(transfer)
    }
}

impl Drop for FileRequest {
    fn drop(&mut self) {
        if let Some(transfer) = self.transfer.take() {
            // J234-16: the same answer whether there is none or it is not for this peer.
            transfer.reject(detailed(ReasonCondition::FailedApplication, FileErrorCondition::FileNotAvailable));
        }
    }
}

/// Offers files.
pub(super) async fn send(
    commands: &mpsc::Sender<Command>,
    transfers: &Transfers,
    to: Jid,
    entries: Vec<Entry>,
    options: SendOptions,
) -> Result<Transfer, Error> {
    let files: BTreeMap<usize, Known> = entries.iter().map(known).enumerate().collect();
    let ways = options.ways.clone();
    let described = describe(entries, options).await?;
    let (reply, answer) = oneshot::channel();
    let offer = Command::SendFiles { to: to.clone(), files: described, ways, reply };
    commands.send(offer).await.map_err(|_| Error::Closed)?;
    let id = answer.await.map_err(|_| Error::Closed)??;
    let mut transfer = transfers.attach(commands, id, to);
    transfer.files = files;
    Ok(transfer)
}

/// Asks for a file.
pub(super) async fn request(
    commands: &mpsc::Sender<Command>,
    transfers: &Transfers,
    from: Jid,
    name: Option<String>,
    hash: Option<FileHash>,
    options: ReceiveOptions,
) -> Result<Transfer, Error> {
    let hashes: Vec<FileHash> = hash.into_iter().collect();
    let safe = safe_name(name.as_deref().unwrap_or_default()).as_str().to_owned();
    let identity = Identity {
        name: safe.clone(),
        peer: from.to_bare().to_string(),
        hashes: hashes.clone(),
        ..Identity::default()
    };
    let dir = options.dir.clone();
    let part =
        blocking(move || Inbox::open(&dir).and_then(|inbox| inbox.part(&identity))).await.ok_or(Error::Closed)?;
    let part = part.map_err(|fault| Error::File { path: options.dir.clone(), fault })?;
    let file = Box::new(FileDescription { name, hashes, ..FileDescription::default() });
    let (reply, answer) = oneshot::channel();
    let ways = options.ways.clone();
    let ask = Command::RequestFile { from: from.clone(), file, part: Box::new(part), ways, reply };
    commands.send(ask).await.map_err(|_| Error::Closed)?;
    let id = answer.await.map_err(|_| Error::Closed)??;
    let mut transfer = transfers.attach(commands, id, from);
    transfer.files = BTreeMap::from([(0, Known { name: safe, size: None, path: None })]);
    transfer.receiving = Some(options);
    Ok(transfer)
}

fn known(entry: &Entry) -> Known {
    Known { name: entry.name.as_str().to_owned(), size: Some(entry.size), path: Some(entry.path.clone()) }
}

fn detailed(condition: ReasonCondition, detail: FileErrorCondition) -> Reason {
    Reason { detail: Some(detail.detail()), ..Reason::new(condition) }
}

/// What the peer is told of files: small ones with their hash, large ones with the promise of one (J234-04).
async fn describe(entries: Vec<Entry>, options: SendOptions) -> Result<Vec<(Entry, OutgoingFile)>, Error> {
    let describe = move || {
        let mut budget = ALL_HASHED_FIRST_BYTES;
        let mut described = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut description = FileDescription {
                name: Some(entry.name.as_str().to_owned()),
                size: Some(entry.size),
                date: entry.modified.and_then(stamp),
                media_type: options.media_type.clone(),
                description: options.description.clone(),
                ..FileDescription::default()
            };
            if entry.size <= HASHED_FIRST_BYTES.min(budget) {
                budget -= entry.size;
                description.hashes = entry
                    .hashes(&[HashAlgo::Sha256])
                    .map_err(|fault| Error::File { path: entry.path.clone(), fault })?;
            } else {
                description.hash_used = Some(HashAlgo::Sha256);
            }
            described.push((entry, OutgoingFile { description }));
        }
        Ok(described)
    };
    blocking(describe).await.ok_or(Error::Closed)?
}

/// XEP-0082, whole seconds: no file system that forgets the rest makes another file of it.
fn stamp(time: SystemTime) -> Option<String> {
    let seconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).ok()?,
        Err(before) => -i64::try_from(before.duration().as_secs()).ok()?,
    };
    Some(Stamp { unix_ms: seconds.checked_mul(1000)? }.to_string())
}

/// Takes files of an offer, or says to the peer why not.
async fn take(
    commands: &mpsc::Sender<Command>,
    id: TransferId,
    peer: &Jid,
    offered: Vec<OfferedFile>,
    options: &ReceiveOptions,
) -> Result<(), Error> {
    let (peer, wanted) = (peer.to_bare().to_string(), options.clone());
    let parts = blocking(move || parts(offered, &peer, &wanted)).await.ok_or(Error::Closed)?;
    let (reason, why) = match parts {
        Ok(files) if !files.is_empty() => {
            let (reply, answer) = oneshot::channel();
            let accept = Command::AcceptFiles { transfer: id, files, reply };
            commands.send(accept).await.map_err(|_| Error::Closed)?;
            return Ok(answer.await.map_err(|_| Error::Closed)??);
        }
        // J234-17
        Ok(_) => {
            let text = Some("larger than is allowed here".to_owned());
            let reason = Reason { text, ..detailed(ReasonCondition::MediaError, FileErrorCondition::FileTooLarge) };
            (reason, Error::Limit("every file of the offer is larger than is allowed".to_owned()))
        }
        Err(fault) => {
            let (condition, detail) = fault.reason();
            let text = Some(fault.to_string());
            let reason = Reason { text, detail: detail.map(FileErrorCondition::detail), ..Reason::new(condition) };
            (reason, Error::File { path: options.dir.clone(), fault })
        }
    };
    // A closed client has declined.
    let _ = commands.send(Command::RejectFiles(id, reason)).await;
    Err(why)
}

/// Opens the parts that files are received into. Blocks as long as the disk does.
fn parts(offered: Vec<OfferedFile>, peer: &str, options: &ReceiveOptions) -> Result<Vec<(Wanted, Part)>, FileFault> {
    let inbox = Inbox::open(&options.dir)?;
    let (mut parts, mut missing) = (Vec::new(), 0_u64);
    for OfferedFile { id, description } in offered {
        let chosen = options.only.as_ref().is_none_or(|only| only.contains(&id.file));
        let fits = description.size.zip(options.max_size).is_none_or(|(size, most)| size <= most);
        if !chosen || !fits {
            continue;
        }
        let identity = Identity {
            name: description.name.unwrap_or_default(),
            peer: peer.to_owned(),
            size: description.size,
            date: description.date,
            hashes: description.hashes,
        };
        let part = inbox.part(&identity)?;
        missing = missing.saturating_add(description.size.unwrap_or(0).saturating_sub(part.offset()));
        parts.push((Wanted { id, offset: part.offset(), limit: options.max_size }, part));
    }
    inbox.has_room(missing)?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_date_goes_out_in_whole_seconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_999);
        assert_eq!(stamp(time).unwrap(), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn a_sha256_is_printed_and_another_hash_is_not_taken_for_one() {
        let done = |hash| FileDone { file: 0, name: "a".into(), path: "a".into(), bytes: 1, hash, verified: true };
        assert_eq!(done(Some((HashAlgo::Sha256, vec![0xab; 2]))).sha256().unwrap(), "abab");
        assert_eq!(done(Some((HashAlgo::Sha1, vec![0xab; 2]))).sha256(), None);
        assert_eq!(done(None).sha256(), None);
    }
}

//! The thread that owns one open file. No rule of any standard: the jobs of `src/file.rs` know them.

use super::fault;
use super::inbox::{Part, Receipt};
use super::lane::{BLOCK, STACK};
use super::outbox::{Entry, Source};
use super::pump::{Pump, Stop, read};
use crate::file::hash::Hashers;
use crate::file::receiving::Receiving;
use crate::file::sending::{Sending, Step};
use crate::file::{Carried, CarryFault, FileFault, FileJob, Verdict};
use crate::wire::file::{FileHash, HashAlgo};
use std::io::{Seek as _, SeekFrom};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

/// What a worker tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileReport {
    /// The job's bytes are through, or cannot be. In-band too: after the last byte was written, or the end.
    Carried(Result<Carried, CarryFault>),
    /// The peer has closed the stream on which it was sent a whole file, or is gone.
    Left,
    /// Bytes that were asked for, in-band.
    Bytes {
        /// At most as many as asked for; fewer only at the end.
        bytes: Vec<u8>,
        /// These are the last ones; hashes of the whole file, those that the job asked for.
        end: Option<Vec<FileHash>>,
    },
    /// So many bytes are written, in-band: room for as many more.
    Written(usize),
    /// The file cannot be read or written any more; what arrived before is kept.
    Fault(FileFault),
    /// The file has its final name.
    Kept(PathBuf),
}

enum Command {
    Carry(TcpStream),
    Read(usize),
    Write(Vec<u8>),
    End,
    Judge(Verdict),
}

/// One open file and its thread. Dropped, it stops what it does and keeps the part for a resume.
#[derive(Debug)]
pub struct FileWorker {
    commands: Sender<Command>,
    progress: Arc<AtomicU64>,
    stop: Arc<Stop>,
    receipt: Arc<Mutex<Option<Receipt>>>,
}

impl FileWorker {
    /// Opens a file to be sent; `job` is a [`FileJob::Send`].
    ///
    /// # Errors
    /// [`FileFault::System`] for the other kind of job, or without a thread. All that is wrong with the file is reported.
    pub fn send(entry: Entry, job: FileJob, report: impl Fn(FileReport) + Send + 'static) -> Result<Self, FileFault> {
        let FileJob::Send { offset, length, hash } = job else { return Err(wrong_job()) };
        Self::start(offset, move |shared, commands| {
            let opened = entry.open().and_then(|source| {
                let job = Sending::new(offset, length, source.entry().size, hash.is_some())?;
                Ok(Out { source, job, hashers: Hashers::new(hash), ahead: None, shared })
            });
            match opened {
                Ok(out) => out.run(&commands, &report),
                Err(fault) => report(FileReport::Fault(fault)),
            }
        })
    }

    /// Goes on with a part; `job` is a [`FileJob::Receive`] whose offset is at most [`Part::offset`].
    ///
    /// # Errors
    /// [`FileFault::System`] for the other kind of job, or without a thread. All that is wrong with the file is reported.
    pub fn receive(
        mut part: Part,
        job: FileJob,
        report: impl Fn(FileReport) + Send + 'static,
    ) -> Result<Self, FileFault> {
        let FileJob::Receive { offset, size, limit, hashes } = job else { return Err(wrong_job()) };
        Self::start(offset, move |shared, commands| {
            let ready = Receiving::new(offset, size, limit).and_then(|job| {
                part.start_at(offset)?;
                part.has_room(size.unwrap_or(offset))?;
                Ok(job)
            });
            match ready {
                Ok(job) => In::new(part, job, hashes, shared).run(&commands, &report),
                Err(fault) => report(FileReport::Fault(fault)),
            }
        })
    }

    fn start(offset: u64, run: impl FnOnce(Shared, Receiver<Command>) + Send + 'static) -> Result<Self, FileFault> {
        let (commands, inbox) = channel();
        let shared =
            Shared { progress: Arc::new(AtomicU64::new(offset)), stop: Arc::default(), receipt: Arc::default() };
        let worker = Self {
            commands,
            progress: Arc::clone(&shared.progress),
            stop: Arc::clone(&shared.stop),
            receipt: Arc::clone(&shared.receipt),
        };
        let thread = Builder::new().name("file".into()).stack_size(STACK);
        thread.spawn(move || run(shared, inbox)).map_err(|e| fault(&e))?;
        Ok(worker)
    }

    /// Moves the whole job over a stream; [`FileReport::Carried`] follows. Then a receiver closes the stream; a sender, who
    /// has closed its half, waits for that.
    pub fn carry(&self, stream: TcpStream) {
        self.tell(Command::Carry(stream));
    }

    /// Reads up to so many bytes; [`FileReport::Bytes`] follows.
    pub fn read(&self, bytes: usize) {
        self.tell(Command::Read(bytes));
    }

    /// Appends bytes; [`FileReport::Written`] follows, and after the last byte of a declared size
    /// [`FileReport::Carried`].
    pub fn write(&self, bytes: Vec<u8>) {
        self.tell(Command::Write(bytes));
    }

    /// No more bytes will be written; [`FileReport::Carried`] follows unless it came already.
    pub fn end(&self) {
        self.tell(Command::End);
    }

    /// Says what becomes of a received file, and ends the worker. [`Verdict::Keep`] is reported as
    /// [`FileReport::Kept`], and only a complete file is kept; whatever is carried is stopped first.
    pub fn judge(&self, verdict: Verdict) {
        self.stop.ask();
        self.tell(Command::Judge(verdict));
    }

    /// Bytes of the whole file that are sent or on the disk, those before the offset included.
    #[must_use]
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.progress)
    }

    /// What lets the same file be recognized when its sender sends it again, after [`FileReport::Kept`]; as long as it is
    /// held. Not taken, it goes with the worker.
    #[must_use]
    pub fn receipt(&self) -> Option<Receipt> {
        self.receipt.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Closes the stream that is carried, if one is.
    pub fn stop(&self) {
        self.stop.ask();
    }

    fn tell(&self, command: Command) {
        // A worker whose file is faulty has said so and is gone.
        let _ = self.commands.send(command);
    }
}

impl Drop for FileWorker {
    fn drop(&mut self) {
        self.stop.ask();
        drop(self.receipt());
    }
}

fn wrong_job() -> FileFault {
    FileFault::System("the job goes the other way".to_owned())
}

/// What the handle sees of its thread.
struct Shared {
    progress: Arc<AtomicU64>,
    stop: Arc<Stop>,
    receipt: Arc<Mutex<Option<Receipt>>>,
}

impl Shared {
    fn pump<'a>(&'a self, stream: &'a TcpStream) -> Pump<'a> {
        Pump { stream, stop: &self.stop, progress: &self.progress }
    }
}

/// A file that is sent.
struct Out {
    source: Source,
    job: Sending,
    hashers: Hashers,
    /// Read before it was asked for.
    ahead: Option<Vec<u8>>,
    shared: Shared,
}

impl Out {
    fn run(mut self, commands: &Receiver<Command>, report: &dyn Fn(FileReport)) {
        if let Step::Hash { offset, .. } | Step::Send { offset, .. } = self.job.step(BLOCK)
            && let Err(e) = self.source.file().seek(SeekFrom::Start(offset))
        {
            return report(FileReport::Fault(fault(&e)));
        }
        while let Ok(command) = commands.recv() {
            match command {
                Command::Carry(stream) => {
                    let hashers = std::mem::take(&mut self.hashers);
                    let carried = self.shared.pump(&stream).send(&self.source, &mut self.job, hashers);
                    let through = carried.is_ok();
                    report(FileReport::Carried(carried));
                    if through && self.shared.pump(&stream).is_left() {
                        report(FileReport::Left);
                    }
                    // How much of it arrived only the peer knows: going on takes a new job.
                    return;
                }
                Command::Read(most) => match self.block(most) {
                    Ok((bytes, end)) => {
                        let ended = end.is_some();
                        report(FileReport::Bytes { bytes, end });
                        if ended {
                            return;
                        }
                        if self.ahead.is_none() {
                            self.ahead = match self.fill(most) {
                                Ok(bytes) => Some(bytes),
                                Err(fault) => return report(FileReport::Fault(fault)),
                            };
                        }
                    }
                    Err(fault) => return report(FileReport::Fault(fault)),
                },
                Command::Write(_) | Command::End => {}
                Command::Judge(_) => return,
            }
        }
    }

    /// The next bytes, with the hashes if they are the last.
    fn block(&mut self, most: usize) -> Result<(Vec<u8>, Option<Vec<FileHash>>), FileFault> {
        let mut bytes = match self.ahead.take() {
            Some(bytes) => bytes,
            None => self.fill(most)?,
        };
        if bytes.len() > most.max(1) {
            self.ahead = Some(bytes.split_off(most.max(1)));
        }
        self.shared.progress.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.ahead.is_some() || !self.job.all_sent() {
            return Ok((bytes, None));
        }
        // What lies behind the range belongs to the hash.
        self.fill(BLOCK)?;
        self.source.unchanged()?;
        if self.job.step(1) != Step::Done {
            // Stopped: whoever asked is not there any more.
            return Ok((bytes, None));
        }
        Ok((bytes, Some(std::mem::take(&mut self.hashers).finish())))
    }

    /// Reads up to `most` bytes that are to be sent, hashing these and what is not to be sent before them.
    fn fill(&mut self, most: usize) -> Result<Vec<u8>, FileFault> {
        let most = most.clamp(1, 4 * BLOCK);
        let (mut out, mut filled) = (Vec::new(), 0);
        let mut aside = Vec::new();
        loop {
            if self.shared.stop.is_asked() {
                return Ok(Vec::new());
            }
            let block = match self.job.step(if filled < most { most - filled } else { 1 }) {
                Step::Send { .. } if filled == most => break,
                Step::Send { bytes, .. } => {
                    out.resize(filled + bytes, 0);
                    out.get_mut(filled..).unwrap_or_default()
                }
                Step::Hash { .. } if filled > 0 => break,
                Step::Hash { .. } => {
                    aside.resize(BLOCK, 0);
                    let Step::Hash { bytes, .. } = self.job.step(BLOCK) else { break };
                    aside.get_mut(..bytes).unwrap_or_default()
                }
                Step::Done => break,
            };
            let send = matches!(self.job.step(1), Step::Send { .. });
            let bytes = read(&mut self.source.file(), block).map_err(|e| fault(&e))?;
            self.job.read(bytes)?;
            self.hashers.update(block.get(..bytes).unwrap_or_default());
            if send {
                filled += bytes;
                out.truncate(filled);
            }
        }
        Ok(out)
    }
}

/// A file that is received.
struct In {
    part: Part,
    job: Receiving,
    algos: Vec<HashAlgo>,
    hashers: Hashers,
    /// Bytes of a former attempt that the hash has not seen.
    unhashed: u64,
    carried: bool,
    shared: Shared,
}

impl In {
    fn new(part: Part, job: Receiving, algos: Vec<HashAlgo>, shared: Shared) -> Self {
        let mut new = Self { part, job, algos, hashers: Hashers::default(), unhashed: 0, carried: false, shared };
        new.hash_anew();
        new
    }

    /// From the first byte on, all of which is in the part.
    fn hash_anew(&mut self) {
        self.hashers = Hashers::new(self.algos.iter().copied());
        self.unhashed = if self.hashers.is_empty() { 0 } else { self.job.at() };
    }

    fn run(mut self, commands: &Receiver<Command>, report: &dyn Fn(FileReport)) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Carry(stream) => {
                    let (hashers, prefix) = (std::mem::take(&mut self.hashers), self.unhashed);
                    let pump = self.shared.pump(&stream);
                    let carried = pump.receive(&mut self.part, &mut self.job, hashers, prefix);
                    // What another way brings from here on is hashed with all that is there.
                    self.hash_anew();
                    // The peer learns that we have it all.
                    drop(stream);
                    self.carried = carried.is_ok();
                    report(FileReport::Carried(carried));
                }
                Command::Write(bytes) => match self.append(&bytes) {
                    Ok(()) => {
                        report(FileReport::Written(bytes.len()));
                        if self.job.is_complete() {
                            self.finish(report);
                        }
                    }
                    // The verdict on what arrived before is still to come.
                    Err(fault) => report(FileReport::Fault(fault)),
                },
                Command::End => self.finish(report),
                Command::Read(_) => {}
                Command::Judge(verdict) => return self.judge(verdict, report),
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileFault> {
        self.hash_prefix()?;
        self.job.arrived(bytes.len())?;
        self.part.append(bytes)?;
        self.hashers.update(bytes);
        self.shared.progress.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn hash_prefix(&mut self) -> Result<(), FileFault> {
        if self.unhashed == 0 {
            return Ok(());
        }
        let file = self.part.file();
        file.seek(SeekFrom::Start(0)).map_err(|e| fault(&e))?;
        let mut block = vec![0; BLOCK];
        while self.unhashed > 0 && !self.shared.stop.is_asked() {
            let most = usize::try_from(self.unhashed).unwrap_or(usize::MAX).min(BLOCK);
            let bytes = read(file, block.get_mut(..most).unwrap_or_default()).map_err(|e| fault(&e))?;
            if bytes == 0 {
                return Err(FileFault::Changed);
            }
            self.hashers.update(block.get(..bytes).unwrap_or_default());
            self.unhashed -= bytes as u64;
        }
        Ok(())
    }

    /// The in-band bytes have ended.
    fn finish(&mut self, report: &dyn Fn(FileReport)) {
        if self.carried {
            return;
        }
        if !self.job.may_end() {
            let (bytes, why) = (self.job.received(), "ended too early".to_owned());
            return report(FileReport::Carried(Err(CarryFault::Stream { bytes, why })));
        }
        if let Err(fault) = self.hash_prefix() {
            return report(FileReport::Fault(fault));
        }
        if self.unhashed > 0 {
            let bytes = self.job.received();
            return report(FileReport::Carried(Err(CarryFault::Stopped { bytes })));
        }
        self.carried = true;
        let hashes = std::mem::take(&mut self.hashers).finish();
        report(FileReport::Carried(Ok(self.job.carried(hashes))));
    }

    fn judge(mut self, verdict: Verdict, report: &dyn Fn(FileReport)) {
        match verdict {
            // Nothing incomplete ever gets a final name, whoever asks for it.
            Verdict::Keep if !self.carried => report(FileReport::Fault(FileFault::Changed)),
            Verdict::Keep => match self.part.keep() {
                Ok((path, receipt)) => {
                    *self.shared.receipt.lock().unwrap_or_else(PoisonError::into_inner) = receipt;
                    report(FileReport::Kept(path));
                }
                Err(fault) => report(FileReport::Fault(fault)),
            },
            Verdict::Spoiled => {
                if let Err(fault) = self.part.spoil() {
                    report(FileReport::Fault(fault));
                }
            }
            Verdict::Pause => {}
            Verdict::Drop => self.part.forget(),
        }
    }
}

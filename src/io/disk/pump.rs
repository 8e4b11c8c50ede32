//! One file through one TCP stream, in either direction, by blocking calls. No rule of any standard: the jobs know them.

use super::fault;
use super::inbox::Part;
use super::lane::{BLOCK, Lane};
use super::outbox::Source;
use crate::file::hash::Hashers;
use crate::file::receiving::Receiving;
use crate::file::sending::{Sending, Step};
use crate::file::{Carried, CarryFault, FileFault};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A stream on which nothing moves for so long is dead. The other side may have to read a long prefix from a slow disk
/// before its first byte.
const IDLE: Duration = Duration::from_secs(300);
/// How long after the last declared byte a further one, or the end of the stream, is waited for.
const LINGER: Duration = Duration::from_millis(200);
/// How long after our last byte the peer's end of the stream is waited for: longer than anybody waits for its word.
const FAREWELL: Duration = Duration::from_secs(90);

/// Ends a pump from outside.
#[derive(Debug, Default)]
pub(super) struct Stop {
    asked: AtomicBool,
    stream: Mutex<Option<TcpStream>>,
}

impl Stop {
    /// Every blocking call on the stream returns.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        if let Some(stream) = &*self.stream.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Remembers the stream while it is carried; whoever asks from now on shuts it down.
    fn watch(&self, stream: Option<TcpStream>) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }
}

/// A stream and those who watch it.
pub(super) struct Pump<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) stop: &'a Stop,
    /// Bytes of the whole file that are sent or on the disk.
    pub(super) progress: &'a AtomicU64,
}

/// Why a pump ended, before it is known how far it came.
enum Broken {
    File(FileFault),
    Stream(String),
}

impl From<FileFault> for Broken {
    fn from(fault: FileFault) -> Self {
        Self::File(fault)
    }
}

fn file_error(e: io::Error) -> Broken {
    Broken::File(fault(&e))
}

fn stream_error(e: io::Error) -> Broken {
    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return Broken::Stream(format!("nothing moved for {} s", IDLE.as_secs()));
    }
    Broken::Stream(e.to_string())
}

impl Pump<'_> {
    /// File to stream. The stream's sending half is closed after the last byte, so that the peer sees the end.
    pub(super) fn send(&self, source: &Source, job: &mut Sending, hashers: Hashers) -> Result<Carried, CarryFault> {
        let done = self.prepared().and_then(|()| {
            let mut lane = Lane::start(hashers).map_err(file_error)?;
            self.send_all(source, job, &mut lane)?;
            let hashes = lane.finish().map_err(file_error)?.finish();
            source.unchanged()?;
            // A peer that has all it wants may have closed already.
            let _ = self.stream.shutdown(Shutdown::Write);
            Ok(job.carried(hashes))
        });
        self.ended(done, job.sent())
    }

    /// After the last byte: true once the peer has closed the stream too, or it broke; false if we closed it, or nothing
    /// came of it in time. What a peer says on it is nothing to us.
    pub(super) fn is_left(&self) -> bool {
        let begun = Instant::now();
        let (mut stream, mut nothing) = (self.stream, [0; 512]);
        if self.prepared().is_err() {
            return false;
        }
        let left = loop {
            let rest = FAREWELL.saturating_sub(begun.elapsed());
            if rest.is_zero() || self.stream.set_read_timeout(Some(rest)).is_err() {
                break false;
            }
            match read(&mut stream, &mut nothing) {
                Ok(1..) => {}
                Ok(0) => break true,
                Err(e) => break !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        };
        self.stop.watch(None);
        left && !self.stop.is_asked()
    }

    fn send_all(&self, source: &Source, job: &mut Sending, lane: &mut Lane) -> Result<(), Broken> {
        let (mut file, mut stream) = (source.file(), self.stream);
        if let Step::Hash { offset, .. } | Step::Send { offset, .. } = job.step(BLOCK) {
            file.seek(SeekFrom::Start(offset)).map_err(file_error)?;
        }
        loop {
            let (bytes, send) = match job.step(BLOCK) {
                Step::Hash { bytes, .. } => (bytes, false),
                Step::Send { bytes, .. } => (bytes, true),
                Step::Done => return Ok(()),
            };
            let mut block = lane.take().map_err(file_error)?;
            let bytes = read(&mut file, block.get_mut(..bytes).unwrap_or_default()).map_err(file_error)?;
            job.read(bytes)?;
            if send {
                stream.write_all(block.get(..bytes).unwrap_or_default()).map_err(stream_error)?;
                self.progress.fetch_add(bytes as u64, Ordering::Relaxed);
            } else if self.stop.is_asked() {
                return Err(Broken::Stream(String::new()));
            }
            lane.give(block, bytes);
        }
    }

    /// Stream to file, after the first `prefix` bytes of it are hashed again.
    pub(super) fn receive(
        &self,
        part: &mut Part,
        job: &mut Receiving,
        hashers: Hashers,
        prefix: u64,
    ) -> Result<Carried, CarryFault> {
        let done = self.prepared().and_then(|()| {
            let mut lane = Lane::start(hashers).map_err(file_error)?;
            self.hash_prefix(part.file(), prefix, &mut lane)?;
            self.receive_all(part, job, &mut lane)?;
            let hashes = lane.finish().map_err(file_error)?.finish();
            Ok(job.carried(hashes))
        });
        self.ended(done, job.received())
    }

    /// What a former attempt left is hashed again: nobody vouches for it.
    fn hash_prefix(&self, file: &mut File, prefix: u64, lane: &mut Lane) -> Result<(), Broken> {
        if prefix == 0 {
            return Ok(());
        }
        file.seek(SeekFrom::Start(0)).map_err(file_error)?;
        let mut left = prefix;
        while left > 0 {
            if self.stop.is_asked() {
                return Err(Broken::Stream(String::new()));
            }
            let mut block = lane.take().map_err(file_error)?;
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            let bytes = read(file, block.get_mut(..most).unwrap_or_default()).map_err(file_error)?;
            if bytes == 0 {
                return Err(FileFault::Changed.into());
            }
            left -= bytes as u64;
            lane.give(block, bytes);
        }
        Ok(())
    }

    fn receive_all(&self, part: &mut Part, job: &mut Receiving, lane: &mut Lane) -> Result<(), Broken> {
        let mut stream = self.stream;
        while !job.is_complete() {
            let mut block = lane.take().map_err(file_error)?;
            let bytes = read(&mut stream, &mut block).map_err(stream_error)?;
            if bytes == 0 {
                return if job.may_end() { Ok(()) } else { Err(Broken::Stream("closed too early".to_owned())) };
            }
            job.arrived(bytes)?;
            part.append(block.get(..bytes).unwrap_or_default())?;
            self.progress.fetch_add(bytes as u64, Ordering::Relaxed);
            lane.give(block, bytes);
        }
        // J234-17: a byte behind the last one is a fault too. Whoever sends without closing is waited for no longer.
        let _ = self.stream.set_read_timeout(Some(LINGER));
        match read(&mut stream, &mut [0]) {
            Ok(1..) => Ok(job.arrived(1)?),
            Ok(0) | Err(_) => Ok(()),
        }
    }

    fn prepared(&self) -> Result<(), Broken> {
        self.stream.set_nonblocking(false).map_err(stream_error)?;
        self.stream.set_read_timeout(Some(IDLE)).map_err(stream_error)?;
        self.stream.set_write_timeout(Some(IDLE)).map_err(stream_error)?;
        self.stop.watch(Some(self.stream.try_clone().map_err(stream_error)?));
        // Asked before it was watched: nobody shuts it down.
        if self.stop.is_asked() { Err(Broken::Stream(String::new())) } else { Ok(()) }
    }

    fn ended(&self, done: Result<Carried, Broken>, bytes: u64) -> Result<Carried, CarryFault> {
        self.stop.watch(None);
        done.map_err(|broken| match broken {
            Broken::File(fault) => CarryFault::File(fault),
            Broken::Stream(_) if self.stop.is_asked() => CarryFault::Stopped { bytes },
            Broken::Stream(why) => CarryFault::Stream { bytes, why },
        })
    }
}

/// Once, whatever signals come.
pub(super) fn read(from: &mut impl Read, block: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(block) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

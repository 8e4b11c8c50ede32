//! Buffers that go round between the thread that moves bytes and the one that hashes them. No rule of any standard.

use crate::file::hash::Hashers;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

/// Bytes of a buffer: large enough that a system call per block does not show, small enough that the block is still in
/// the cache when it is hashed.
pub(super) const BLOCK: usize = 256 * 1024;
/// Buffers of a transfer with a hash; see `BLOCK` for their size.
const BLOCKS: usize = 8;
/// Neither hashing nor copying needs more.
pub(super) const STACK: usize = 256 * 1024;

/// A buffer and the bytes of it that count.
type Filled = (Box<[u8]>, usize);

/// Processors below which hashing has no thread of its own: handing blocks over costs a fifth more processor time, and with
/// two the other one has to copy for the network and the disk anyway.
const PROCESSORS: usize = 3;

/// Where blocks come from and go to.
pub(super) enum Lane {
    /// One buffer, hashed where it is filled, if at all.
    Plain(Box<[u8]>, Hashers),
    /// A thread hashes.
    Hashing { full: Sender<Filled>, empty: Receiver<Box<[u8]>>, thread: JoinHandle<Hashers> },
}

impl Lane {
    pub(super) fn start(mut hashers: Hashers) -> io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if hashers.is_empty() || processors < PROCESSORS {
            return Ok(Self::Plain(vec![0; BLOCK].into(), hashers));
        }
        let (full, filled) = channel::<Filled>();
        let (spent, empty) = channel();
        for _ in 0..BLOCKS {
            let _ = spent.send(vec![0; BLOCK].into());
        }
        let thread = Builder::new().name("file hash".into()).stack_size(STACK).spawn(move || {
            for (block, bytes) in filled {
                hashers.update(block.get(..bytes).unwrap_or_default());
                let _ = spent.send(block);
            }
            hashers
        })?;
        Ok(Self::Hashing { full, empty, thread })
    }

    /// An empty buffer; waits for the hash if that is behind.
    pub(super) fn take(&mut self) -> io::Result<Box<[u8]>> {
        match self {
            Self::Plain(block, _) => Ok(std::mem::take(block)),
            Self::Hashing { empty, .. } => empty.recv().map_err(|_| io::Error::other("the hash thread ended")),
        }
    }

    /// A buffer whose first `bytes` are to be hashed.
    pub(super) fn give(&mut self, filled: Box<[u8]>, bytes: usize) {
        match self {
            Self::Plain(block, hashers) => {
                hashers.update(filled.get(..bytes).unwrap_or_default());
                *block = filled;
            }
            // `take` says that the thread is gone.
            Self::Hashing { full, .. } => drop(full.send((filled, bytes))),
        }
    }

    /// Waits until all is hashed.
    pub(super) fn finish(self) -> io::Result<Hashers> {
        match self {
            Self::Plain(_, hashers) => Ok(hashers),
            Self::Hashing { full, thread, .. } => {
                drop(full);
                thread.join().map_err(|_| io::Error::other("the hash thread panicked"))
            }
        }
    }
}

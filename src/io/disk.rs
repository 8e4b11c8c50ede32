//! Files on the disk: the directory that receives, the files that are sent, and the worker that moves one file's bytes
//! between the disk and a TCP stream or the engine. The rules are in `src/file.rs`; this knows how, not whether.
//! Read `src/file/sending.rs` and `src/file/receiving.rs` before touching this folder.
//!
//! ```text
//!   Outbox ▶ Entry ─┐                  ┌─ carry ─▶ TcpStream     one thread per open file does every read, write, send and
//!                   ├─▶ FileWorker ◀───┤                         receive; while it carries, a second one hashes the same
//!   Inbox  ▶ Part ──┘                  └─ read, write ─▶ engine  buffers and gives them back: 2 MiB per transfer in all
//! ```
//!
//! After a kill the part holds every byte that was read from the network but those of one block: a block is written
//! before the next is read, and what the system took survives the process. So its length says where a resume starts, and
//! nothing is synced on the way; against a loss of power the hash of the whole file stands, prefix included.

use crate::file::FileFault;
use std::io;

mod dir;
mod inbox;
mod lane;
mod outbox;
mod pump;
mod worker;

pub use inbox::{Inbox, Part, Receipt};
pub use outbox::{Entry, Outbox, Source};
pub use worker::{FileReport, FileWorker};

/// What an error of the system means for a file.
#[allow(clippy::wildcard_enum_match_arm)] // the enum is std's, and open
fn fault(e: &io::Error) -> FileFault {
    use io::ErrorKind as K;
    // ELOOP, as O_NOFOLLOW says it, has no stable kind.
    #[cfg(unix)]
    if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return FileFault::NotAFile;
    }
    match e.kind() {
        K::NotFound => FileFault::Missing,
        K::PermissionDenied | K::ReadOnlyFilesystem => FileFault::Forbidden,
        K::StorageFull | K::QuotaExceeded | K::FileTooLarge => FileFault::DiskFull,
        K::IsADirectory | K::NotADirectory | K::InvalidInput => FileFault::NotAFile,
        _ => FileFault::System(e.to_string()),
    }
}

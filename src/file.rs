//! Files that are sent and received, without a disk: what is to be done with one, what may go wrong, and the rules of
//! sizes, ranges, hashes and names. Read XEP-0234 §5 to §9 and XEP-0300 §2 before touching this folder.
//!
//! The endpoint says what is to be done ([`FileJob`], [`Verdict`]); a worker in `src/io/disk.rs` does it and owns the
//! values that know the rules: [`sending::Sending`], [`receiving::Receiving`], [`hash::Hashers`].

use crate::fault::ReasonCondition;
use crate::wire::file::{FileErrorCondition, FileHash, HashAlgo};

pub mod hash;
pub mod name;
pub mod part;
pub mod receiving;
pub mod sending;

/// What is to be done with one open file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileJob {
    /// Read it and send its bytes.
    Send {
        /// First byte that is sent (J234-08: what the peer asked for).
        offset: u64,
        /// Bytes to send; to the end of the file if absent.
        length: Option<u64>,
        /// Hash of the whole file to compute on the way, whatever the range.
        hash: Option<HashAlgo>,
    },
    /// Write what arrives.
    Receive {
        /// First byte that arrives; those before it are in the part already.
        offset: u64,
        /// Bytes of the whole file as declared; `None` if the offer does not say.
        size: Option<u64>,
        /// Bytes of the whole file at which to stop where `size` is absent (threats: disk fill); `None` for no limit.
        limit: Option<u64>,
        /// Hashes of the whole file to compute on the way.
        hashes: Vec<HashAlgo>,
    },
}

/// What becomes of a received file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Its hash is right, or nobody knows one: give it its final name.
    Keep,
    /// Its hash is wrong: the part stays, flagged, and the next attempt starts at 0 (J234-15).
    Spoiled,
    /// Not complete: the part stays for a resume.
    Pause,
    /// Nobody wants it any more: the part goes.
    Drop,
}

/// All bytes of a job went through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Bytes that the job moved, without those before its offset.
    pub bytes: u64,
    /// Bytes of the whole file.
    pub size: u64,
    /// Hashes of the whole file, those that the job asked for.
    pub hashes: Vec<FileHash>,
}

/// A job that ended before all its bytes went through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CarryFault {
    /// The file's fault, or a rule of it that the peer broke.
    #[error("{0}")]
    File(#[from] FileFault),
    /// The stream ended or broke too early; what arrived before is in the part.
    #[error("the stream broke after {bytes} bytes: {why}")]
    Stream {
        /// Bytes that the job had moved.
        bytes: u64,
        /// For people.
        why: String,
    },
    /// We stopped it.
    #[error("stopped after {bytes} bytes")]
    Stopped {
        /// Bytes that the job had moved.
        bytes: u64,
    },
}

/// What may be wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileFault {
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// We may not read or write it.
    #[error("permission denied")]
    Forbidden,
    /// A directory, a link, a device: nothing that is sent or written to.
    #[error("not a regular file")]
    NotAFile,
    /// A source that changed or shrank after it was offered.
    #[error("the file changed while it was sent")]
    Changed,
    /// The disk is full, or has less room than the file needs; what arrived is kept.
    #[error("no space left on the disk")]
    DiskFull,
    /// The peer sent more bytes than it declared (J234-17).
    #[error("more bytes arrived than the {size} that were declared")]
    TooLong {
        /// Bytes of the whole file as declared.
        size: u64,
    },
    /// The range lies outside of the file (J234-07).
    #[error("the range lies outside of the file")]
    BadRange,
    /// Every name that could be given is taken.
    #[error("no free name is left")]
    NoName,
    /// Another transfer works on this part.
    #[error("another transfer works on this file")]
    Busy,
    /// The operating system says something else.
    #[error("{0}")]
    System(String),
}

impl FileFault {
    /// The reason that ends the transfer and its detail, XEP-0234 §9. Missing and forbidden files give the same answer, so
    /// that nobody learns which files exist (J234-16).
    #[must_use]
    pub const fn reason(&self) -> (ReasonCondition, Option<FileErrorCondition>) {
        match self {
            Self::Missing | Self::Forbidden | Self::NotAFile | Self::BadRange => {
                (ReasonCondition::FailedApplication, Some(FileErrorCondition::FileNotAvailable))
            }
            // J234-17: excess data and no quota for it are told alike.
            Self::DiskFull | Self::TooLong { .. } => {
                (ReasonCondition::MediaError, Some(FileErrorCondition::FileTooLarge))
            }
            Self::Changed => (ReasonCondition::MediaError, None),
            Self::NoName | Self::Busy | Self::System(_) => (ReasonCondition::FailedApplication, None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_missing_file_and_a_forbidden_one_are_told_alike() {
        assert_eq!(FileFault::Missing.reason(), FileFault::Forbidden.reason());
        assert_eq!(FileFault::Missing.reason(), FileFault::NotAFile.reason());
    }

    #[test]
    fn a_byte_too_many_is_a_media_error_with_file_too_large() {
        let reason = FileFault::TooLong { size: 1 }.reason();
        assert_eq!(reason, (ReasonCondition::MediaError, Some(FileErrorCondition::FileTooLarge)));
    }
}

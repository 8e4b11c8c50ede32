//! The rules of one file that is sent: which bytes to read next, which of them to send, and when that is a fault.
//! Read XEP-0234 §5 (range) and §6.1 before touching this file.

use super::{Carried, FileFault};
use crate::wire::file::FileHash;

/// What to do next with the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read these bytes for the hash alone: they lie outside of the range.
    Hash {
        /// First byte.
        offset: u64,
        /// How many, at least 1.
        bytes: usize,
    },
    /// Read these bytes, hash them if a hash is wanted, send them.
    Send {
        /// First byte.
        offset: u64,
        /// How many, at least 1.
        bytes: usize,
    },
    /// All is read.
    Done,
}

/// A file that is being sent.
///
/// ```text
///   0 ──── hash ────▶ start ──── send (and hash) ────▶ end ──── hash ────▶ size
///   without a hash it begins at start and is done at end
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    at: u64,
    start: u64,
    end: u64,
    size: u64,
    hashed: bool,
}

impl Sending {
    /// Sends `length` bytes, or all to the end, of a file of `size` bytes from `offset` on. `hashed`: the whole file is
    /// read for its hash.
    ///
    /// # Errors
    /// [`FileFault::BadRange`] for a range that leaves the file (J234-07).
    pub fn new(offset: u64, length: Option<u64>, size: u64, hashed: bool) -> Result<Self, FileFault> {
        // J234-07: the default length goes to the end of the file.
        let end = match length {
            Some(length) => offset.checked_add(length).ok_or(FileFault::BadRange)?,
            None => size,
        };
        if offset > size || end > size {
            return Err(FileFault::BadRange);
        }
        Ok(Self { at: if hashed { 0 } else { offset }, start: offset, end, size, hashed })
    }

    /// What to read next, at most `most` bytes of it.
    #[must_use]
    pub fn step(&self, most: usize) -> Step {
        let up_to = |end: u64| usize::try_from(end - self.at).unwrap_or(usize::MAX).min(most.max(1));
        let offset = self.at;
        if self.at < self.start {
            Step::Hash { offset, bytes: up_to(self.start) }
        } else if self.at < self.end {
            Step::Send { offset, bytes: up_to(self.end) }
        } else if self.hashed && self.at < self.size {
            Step::Hash { offset, bytes: up_to(self.size) }
        } else {
            Step::Done
        }
    }

    /// `bytes` of the last step were read.
    ///
    /// # Errors
    /// [`FileFault::Changed`] for none: the source ends before the size that was offered.
    pub fn read(&mut self, bytes: usize) -> Result<(), FileFault> {
        match self.step(bytes) {
            Step::Hash { bytes: fits, .. } | Step::Send { bytes: fits, .. } if bytes > 0 => {
                // More than the step allows is never counted, whatever the caller read.
                self.at += fits as u64;
                Ok(())
            }
            Step::Hash { .. } | Step::Send { .. } => Err(FileFault::Changed),
            Step::Done => Ok(()),
        }
    }

    /// Bytes of the range that were read so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.at.clamp(self.start, self.end) - self.start
    }

    /// Bytes of the range are read completely; the rest of the file may still be hashed.
    #[must_use]
    pub fn all_sent(&self) -> bool {
        self.at >= self.end && self.at >= self.start
    }

    /// The report, once [`Step::Done`].
    #[must_use]
    pub fn carried(&self, hashes: Vec<FileHash>) -> Carried {
        Carried { bytes: self.sent(), size: self.size, hashes }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_outside_of_the_file_or_past_the_numbers_is_refused() {
        assert_eq!(Sending::new(11, None, 10, false), Err(FileFault::BadRange));
        assert_eq!(Sending::new(5, Some(6), 10, false), Err(FileFault::BadRange));
        assert_eq!(Sending::new(u64::MAX, Some(1), u64::MAX, true), Err(FileFault::BadRange));
        assert_eq!(Sending::new(1, Some(u64::MAX), u64::MAX, true), Err(FileFault::BadRange));
    }

    #[test]
    fn an_empty_file_and_an_empty_rest_are_done_at_once() {
        assert_eq!(Sending::new(0, None, 0, true).unwrap().step(9), Step::Done);
        let rest = Sending::new(10, None, 10, false).unwrap();
        assert_eq!((rest.step(9), rest.sent(), rest.all_sent()), (Step::Done, 0, true));
    }

    #[test]
    fn with_a_hash_the_bytes_before_and_behind_the_range_are_read_but_not_sent() {
        let mut sending = Sending::new(3, Some(4), 10, true).unwrap();
        let mut steps = Vec::new();
        loop {
            let step = sending.step(100);
            steps.push(step);
            match step {
                Step::Hash { bytes, .. } | Step::Send { bytes, .. } => sending.read(bytes).unwrap(),
                Step::Done => break,
            }
        }
        assert_eq!(
            steps,
            [
                Step::Hash { offset: 0, bytes: 3 },
                Step::Send { offset: 3, bytes: 4 },
                Step::Hash { offset: 7, bytes: 3 },
                Step::Done
            ]
        );
        assert_eq!(sending.sent(), 4);
    }

    #[test]
    fn a_source_that_ends_too_early_is_a_fault() {
        let mut sending = Sending::new(0, None, 10, true).unwrap();
        sending.read(4).unwrap();
        assert_eq!(sending.read(0), Err(FileFault::Changed));
    }

    #[test]
    fn five_gibibytes_are_counted_in_64_bits() {
        let size = 5 << 30;
        let mut sending = Sending::new(size - 7, None, size, false).unwrap();
        assert_eq!(sending.step(1 << 20), Step::Send { offset: size - 7, bytes: 7 });
        sending.read(7).unwrap();
        assert_eq!((sending.sent(), sending.step(1)), (7, Step::Done));
    }

    proptest! {
        #[test]
        fn whatever_the_range_exactly_its_bytes_are_sent_in_order(
            size in 0u64..5_000, offset in 0u64..6_000, length in proptest::option::of(0u64..6_000), hashed: bool,
            most in 1usize..700, read in 1usize..700,
        ) {
            let fits = offset <= size && length.is_none_or(|l| offset + l <= size);
            let sending = Sending::new(offset, length, size, hashed);
            prop_assert_eq!(sending.is_ok(), fits);
            let Ok(mut sending) = sending else { return Ok(()) };
            let (mut next, mut sent) = (if hashed { 0 } else { offset }, 0);
            loop {
                let (at, bytes, send) = match sending.step(most) {
                    Step::Hash { offset, bytes } => (offset, bytes, false),
                    Step::Send { offset, bytes } => (offset, bytes, true),
                    Step::Done => break,
                };
                prop_assert!(at == next && bytes >= 1 && bytes <= most);
                let read = read.min(bytes);
                sending.read(read).unwrap();
                next += read as u64;
                sent += if send { read as u64 } else { 0 };
                prop_assert_eq!(sending.sent(), sent);
            }
            prop_assert_eq!(sent, length.unwrap_or(size - offset));
            prop_assert_eq!(next, if hashed { size } else { offset + sent });
        }
    }
}

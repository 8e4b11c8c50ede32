//! The rules of one file that is received: how many bytes may still come, when it is complete, when it is a fault.
//! Read XEP-0234 §5 (range) and §9.2 before touching this file.

use super::{Carried, FileFault};
use crate::wire::file::FileHash;

/// A file that is being received.
///
/// ```text
///   0 ──── in the part already ────▶ start ──── arrives ────▶ at ──── room ────▶ size, or the limit where no size is known
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiving {
    start: u64,
    at: u64,
    size: Option<u64>,
    limit: u64,
}

impl Receiving {
    /// Receives from `offset` on. `size` is that of the whole file; where it is not known, `limit` bytes are the most.
    ///
    /// # Errors
    /// [`FileFault::BadRange`] for an offset behind the end (J234-07).
    pub fn new(offset: u64, size: Option<u64>, limit: Option<u64>) -> Result<Self, FileFault> {
        let limit = size.or(limit).unwrap_or(u64::MAX);
        if offset > limit {
            return Err(FileFault::BadRange);
        }
        Ok(Self { start: offset, at: offset, size, limit })
    }

    /// Bytes that may still arrive.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.limit - self.at
    }

    /// So many bytes arrived; they may be written if there is no error.
    ///
    /// # Errors
    /// [`FileFault::TooLong`] for more than were declared: none of these bytes is to be written (J234-17).
    pub fn arrived(&mut self, bytes: usize) -> Result<(), FileFault> {
        // J234-17: a hard stop at the declared size.
        match u64::try_from(bytes).ok().filter(|bytes| *bytes <= self.room()) {
            Some(bytes) => {
                self.at += bytes;
                Ok(())
            }
            None => Err(FileFault::TooLong { size: self.limit }),
        }
    }

    /// The declared size is reached. Never so where no size was declared: then the end of the stream decides.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.size == Some(self.at)
    }

    /// Whether the file is complete when the stream ends now.
    #[must_use]
    pub fn may_end(&self) -> bool {
        self.size.is_none_or(|size| size == self.at)
    }

    /// Bytes that arrived, without those before the offset.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.at - self.start
    }

    /// Where the next byte belongs.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The report, once complete.
    #[must_use]
    pub fn carried(&self, hashes: Vec<FileHash>) -> Carried {
        Carried { bytes: self.received(), size: self.at, hashes }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_declared_size_is_a_hard_stop_and_one_byte_more_is_a_fault() {
        let mut receiving = Receiving::new(0, Some(10), None).unwrap();
        receiving.arrived(10).unwrap();
        assert!(receiving.is_complete());
        assert_eq!(receiving.arrived(1), Err(FileFault::TooLong { size: 10 }));
        let mut at_once = Receiving::new(4, Some(10), None).unwrap();
        assert_eq!(at_once.arrived(7), Err(FileFault::TooLong { size: 10 }));
        assert_eq!((at_once.received(), at_once.at()), (0, 4));
    }

    #[test]
    fn an_empty_file_is_complete_before_its_first_byte() {
        let mut empty = Receiving::new(0, Some(0), None).unwrap();
        assert!(empty.is_complete() && empty.may_end());
        assert_eq!(empty.arrived(1), Err(FileFault::TooLong { size: 0 }));
    }

    #[test]
    fn a_file_of_unknown_size_ends_with_its_stream_or_at_the_limit() {
        let mut receiving = Receiving::new(0, None, Some(100)).unwrap();
        receiving.arrived(99).unwrap();
        assert!(!receiving.is_complete() && receiving.may_end());
        assert_eq!(receiving.arrived(2), Err(FileFault::TooLong { size: 100 }));
    }

    #[test]
    fn a_resume_behind_the_end_is_refused() {
        assert_eq!(Receiving::new(11, Some(10), None), Err(FileFault::BadRange));
        assert!(Receiving::new(10, Some(10), None).unwrap().is_complete());
    }

    proptest! {
        #[test]
        fn never_more_than_declared_is_taken_whatever_arrives(
            size in proptest::option::of(any::<u64>()), limit in proptest::option::of(any::<u64>()), offset: u64,
            blocks in proptest::collection::vec(any::<usize>(), 0..20),
        ) {
            let Ok(mut receiving) = Receiving::new(offset, size, limit) else { return Ok(()) };
            let mut sum = u128::from(offset);
            for block in blocks {
                if receiving.arrived(block).is_ok() {
                    sum += block as u128;
                }
                prop_assert_eq!(u128::from(receiving.at()), sum);
                prop_assert!(sum <= u128::from(size.or(limit).unwrap_or(u64::MAX)));
                prop_assert_eq!(receiving.is_complete(), size == Some(receiving.at()));
            }
        }
    }
}

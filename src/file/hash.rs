//! Hashes of XEP-0300 over a stream of bytes, several at once, and the comparison of two lists of them.
//! Read XEP-0300 §2 and §3 before touching this file.
//!
//! SHA-1, SHA-2 and SHA-3 are those of aws-lc, which has the fast code for every processor; BLAKE2b is not in it.

use crate::wire::file::{FileHash, HashAlgo};
use aws_lc_rs::digest;

/// Hash functions that are strong enough for a file to be called verified, the strongest first, then the weak ones.
/// Between equals the faster goes first.
pub const BY_STRENGTH: [HashAlgo; 9] = [
    HashAlgo::Sha512,
    HashAlgo::Blake2b512,
    HashAlgo::Sha3_512,
    HashAlgo::Sha384,
    HashAlgo::Sha256,
    HashAlgo::Blake2b256,
    HashAlgo::Sha3_256,
    HashAlgo::Sha224,
    HashAlgo::Sha1,
];

/// One hash in the making.
#[derive(Clone)]
pub struct Hasher {
    algo: HashAlgo,
    state: State,
}

#[derive(Clone)]
enum State {
    Aws(Box<digest::Context>),
    Blake(Box<blake2b_simd::State>),
}

impl Hasher {
    /// Of nothing so far.
    #[must_use]
    pub fn new(algo: HashAlgo) -> Self {
        let blake = |bytes| State::Blake(Box::new(blake2b_simd::Params::new().hash_length(bytes).to_state()));
        let aws = |algorithm| State::Aws(Box::new(digest::Context::new(algorithm)));
        let state = match algo {
            HashAlgo::Sha1 => aws(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            HashAlgo::Sha224 => aws(&digest::SHA224),
            HashAlgo::Sha256 => aws(&digest::SHA256),
            HashAlgo::Sha384 => aws(&digest::SHA384),
            HashAlgo::Sha512 => aws(&digest::SHA512),
            HashAlgo::Sha3_256 => aws(&digest::SHA3_256),
            HashAlgo::Sha3_512 => aws(&digest::SHA3_512),
            HashAlgo::Blake2b256 | HashAlgo::Blake2b512 => blake(algo.digest_bytes()),
        };
        Self { algo, state }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Aws(context) => context.update(bytes),
            State::Blake(state) => {
                state.update(bytes);
            }
        }
    }

    /// The digest with its function.
    #[must_use]
    pub fn finish(self) -> FileHash {
        let value = match self.state {
            State::Aws(context) => context.finish().as_ref().to_vec(),
            State::Blake(state) => state.finalize().as_bytes().to_vec(),
        };
        (self.algo, value)
    }
}

/// Several hashes of the same bytes.
#[derive(Clone, Default)]
pub struct Hashers(Vec<Hasher>);

impl Hashers {
    /// One for each function named, each once.
    #[must_use]
    pub fn new(algos: impl IntoIterator<Item = HashAlgo>) -> Self {
        let mut hashers: Vec<Hasher> = Vec::new();
        for algo in algos {
            if hashers.iter().all(|h| h.algo != algo) {
                hashers.push(Hasher::new(algo));
            }
        }
        Self(hashers)
    }

    /// Nothing is computed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds bytes to each.
    pub fn update(&mut self, bytes: &[u8]) {
        // 16 KiB at a time stay in the first cache while the second function reads them.
        let step = if self.0.len() > 1 { 16 * 1024 } else { usize::MAX };
        for block in bytes.chunks(step) {
            for hasher in &mut self.0 {
                hasher.update(block);
            }
        }
    }

    /// The digests in the order of the functions.
    #[must_use]
    pub fn finish(self) -> Vec<FileHash> {
        self.0.into_iter().map(Hasher::finish).collect()
    }
}

impl std::fmt::Debug for Hashers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|h| h.algo)).finish()
    }
}

/// How two lists of hashes of one file compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// Equal by this function, the strongest that both know.
    Same(HashAlgo),
    /// Not equal by this function, the strongest that both know.
    Different(HashAlgo),
    /// No function in common; empty values do not count.
    Unknown,
}

/// Compares by the strongest function that both lists have a value of.
#[must_use]
pub fn compare(ours: &[FileHash], theirs: &[FileHash]) -> Compared {
    for algo in BY_STRENGTH {
        if let (Some(ours), Some(theirs)) = (value(ours, algo), value(theirs, algo)) {
            return if ours == theirs { Compared::Same(algo) } else { Compared::Different(algo) };
        }
    }
    Compared::Unknown
}

/// The strongest function of a list, values or not.
#[must_use]
pub fn strongest(algos: impl IntoIterator<Item = HashAlgo>) -> Option<HashAlgo> {
    let rank = |algo: &HashAlgo| BY_STRENGTH.iter().position(|a| a == algo);
    algos.into_iter().min_by_key(rank)
}

fn value(hashes: &[FileHash], algo: HashAlgo) -> Option<&[u8]> {
    hashes.iter().find(|(a, v)| *a == algo && !v.is_empty()).map(|(_, v)| v.as_slice())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn every_function_gives_the_published_digest_of_abc() {
        let known = [
            (HashAlgo::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (HashAlgo::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
            (HashAlgo::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                HashAlgo::Sha384,
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                HashAlgo::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd\
                 454d4423643ce80e2a9ac94fa54ca49f",
            ),
            (HashAlgo::Sha3_256, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
            (
                HashAlgo::Sha3_512,
                "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e39340\
                 57340b4cf408d5a56592f8274eec53f0",
            ),
            (HashAlgo::Blake2b256, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"),
            (
                HashAlgo::Blake2b512,
                "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc95\
                 18d38aa8dbf1925ab92386edd4009923",
            ),
        ];
        assert_eq!(known.len(), BY_STRENGTH.len());
        for (algo, digest) in known {
            let mut hasher = Hasher::new(algo);
            hasher.update(b"a");
            hasher.update(b"bc");
            let (named, value) = hasher.finish();
            assert_eq!((named, hex(&value).as_str()), (algo, digest), "{algo:?}");
            assert_eq!(value.len(), algo.digest_bytes());
        }
    }

    #[test]
    fn the_strongest_common_function_decides_and_empty_values_do_not_count() {
        let sha1 = (HashAlgo::Sha1, vec![1; 20]);
        let other_sha1 = (HashAlgo::Sha1, vec![2; 20]);
        let sha256 = (HashAlgo::Sha256, vec![3; 32]);
        let later = (HashAlgo::Sha256, Vec::new());
        assert_eq!(
            compare(&[sha1.clone(), sha256.clone()], &[sha256.clone(), other_sha1.clone()]),
            Compared::Same(HashAlgo::Sha256)
        );
        assert_eq!(
            compare(&[sha1.clone(), sha256.clone()], &[later.clone(), other_sha1.clone()]),
            Compared::Different(HashAlgo::Sha1)
        );
        let (sha1, sha256, later) = ([sha1], [sha256], [later]);
        assert_eq!(compare(&sha1, &sha256), Compared::Unknown);
        assert_eq!(compare(&later, &later), Compared::Unknown);
        assert_eq!(strongest([HashAlgo::Sha1, HashAlgo::Sha256]), Some(HashAlgo::Sha256));
        assert_eq!(strongest([]), None);
    }

    #[test]
    fn a_function_named_twice_is_computed_once() {
        let hashers = Hashers::new([HashAlgo::Sha256, HashAlgo::Sha1, HashAlgo::Sha256]);
        let named: Vec<HashAlgo> = hashers.finish().into_iter().map(|(a, _)| a).collect();
        assert_eq!(named, [HashAlgo::Sha256, HashAlgo::Sha1]);
    }

    proptest! {
        #[test]
        fn several_hashes_at_once_equal_each_alone_however_the_bytes_are_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..70_000), cut in 0usize..70_000,
        ) {
            let mut all = Hashers::new(BY_STRENGTH);
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            all.update(head);
            all.update(tail);
            for (algo, value) in all.finish() {
                let mut one = Hasher::new(algo);
                one.update(&bytes);
                prop_assert_eq!(one.finish(), (algo, value));
            }
        }
    }
}

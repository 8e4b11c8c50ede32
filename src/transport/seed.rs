//! Randomness for those who rarely draw.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// A seed and how often it was drawn from: 40 bytes a leg, where a generator keeps 256 more of its key stream.
pub(crate) struct Seed {
    key: [u8; 32],
    drawn: u64,
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed").field("drawn", &self.drawn).finish_non_exhaustive()
    }
}

impl Seed {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key, drawn: 0 }
    }

    /// A generator that none before was like.
    pub(crate) fn generator(&mut self) -> ChaCha20Rng {
        let mut rng = ChaCha20Rng::from_seed(self.key);
        rng.set_stream(self.drawn);
        self.drawn += 1;
        rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::RngCore;

    #[test]
    fn no_two_generators_of_a_seed_are_alike_and_two_seeds_replay() {
        let mut seeds = [Seed::new([7; 32]), Seed::new([7; 32])];
        let mut all = Vec::new();
        for _ in 0..50 {
            let [a, b] = [0, 1].map(|n| seeds.get_mut(n).map(|s| s.generator().next_u64()));
            assert_eq!(a, b);
            assert!(!all.contains(&a));
            all.push(a);
        }
    }
}

//! How long to wait before the next connection attempt. Read RFC 6120 §3.3 before touching this file.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::time::Duration;

/// First wait: short, because most losses are a network change that is already over.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait: what a person still accepts as "it comes back by itself".
const LONGEST: Duration = Duration::from_secs(300);
/// Jitter in percent to either side, so that the clients of a restarted server do not return in step.
const JITTER_PERCENT: u64 = 20;

/// Jittered exponential waits: 1 s, 2 s, 4 s … 5 min, each ±20 %.
#[derive(Debug, Clone)]
pub struct Backoff {
    rng: ChaCha20Rng,
    failures: u32,
}

impl Backoff {
    /// Starts with no failure behind it. The same seed gives the same waits.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self { rng: ChaCha20Rng::from_seed(seed), failures: 0 }
    }

    /// Records a failure and gives the wait before the next attempt.
    pub fn failed(&mut self) -> Duration {
        let exponent = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let base = FIRST.saturating_mul(1 << exponent).min(LONGEST);
        let base_us = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        let spread_us = base_us / 100 * JITTER_PERCENT;
        // The bias of the remainder is below 2^-32: a spread is at most 2 minutes.
        let offset_us = self.rng.next_u64() % (2 * spread_us + 1);
        Duration::from_micros(base_us - spread_us + offset_us)
    }

    /// Records that a connection was useful; the next failure waits 1 s again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::disallowed_methods,
        clippy::wildcard_enum_match_arm
    )]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_wait_is_within_20_percent_of_its_step(seed: [u8; 32], failures in 1usize..40) {
            let mut backoff = Backoff::new(seed);
            for n in 0..failures {
                let base = (1u64 << n.min(20)).min(300) * 1000;
                let wait = backoff.failed().as_millis() as u64;
                prop_assert!(wait * 100 >= base * 79 && wait * 100 <= base * 121, "{wait} ms at step {n}");
            }
            backoff.succeeded();
            prop_assert!(backoff.failed() <= Duration::from_millis(1200));
        }
    }

    #[test]
    fn two_seeds_do_not_wait_in_step() {
        let waits = |seed| {
            (0..8)
                .map({
                    let mut b = Backoff::new([seed; 32]);
                    move |_| b.failed()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}

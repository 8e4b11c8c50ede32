//! Generated operations on two endpoints against a small model: whatever is lost, doubled, overtaken or forged, no media
//! flows without the user, no session is doubled, and every session comes to its end.
//!
//! `OFFHOOK_SEQUENCES` sets how many (20 000 unless told), `OFFHOOK_SEED` replays the one that a failure printed.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "common/operations.rs"]
mod operations;

use operations::World;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::time::Instant;

fn sequence(seed: u64) -> Vec<u8> {
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    let mut bytes = vec![0; 30 + usize::try_from(random.next_u32() % 300).unwrap()];
    random.fill_bytes(&mut bytes);
    bytes
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_sequence_of_operations_breaks_a_promise() {
    let start = Instant::now();
    let seeds = match number("OFFHOOK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("OFFHOOK_SEQUENCES").unwrap_or(20_000),
    };
    let single = seeds.end - seeds.start == 1;
    let (mut events, mut accepted) = (0, 0);
    for seed in seeds {
        let mut world = World::new(start, u8::try_from(seed % 256).unwrap());
        if let Err(broken) = world.run(&sequence(seed)) {
            panic!("{broken}; replay with OFFHOOK_SEED={seed}");
        }
        events += world.sides.iter().map(|side| side.events).sum::<usize>();
        accepted += world.sides.iter().map(|side| side.accepted).sum::<usize>();
    }
    assert!(single || accepted > 0, "the operations reach no call");
    println!("{events} events, {accepted} accepted calls");
}

//! Nothing of its own: `tests/` and `benches/` compare the crate with others.

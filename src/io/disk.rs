//! The disk workers.

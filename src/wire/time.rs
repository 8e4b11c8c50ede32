//! Date and time on the wire, XEP-0082 1.1.1. Read XEP-0082 §3.2 before touching this file.

/// A moment: milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// May be negative.
    pub unix_ms: i64,
}

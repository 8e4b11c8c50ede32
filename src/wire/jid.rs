//! Addresses, RFC 7622, full Unicode. Read RFC 7622 §3 before touching this file.

pub use jid::{BareJid, Error, FullJid, Jid};

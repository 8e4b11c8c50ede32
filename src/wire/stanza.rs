//! Stanzas and what they carry. Read RFC 6120 §8 and RFC 6121 before touching this file.

//! A place in the value of a header. Read RFC 3261 §25.1 before touching this file.

use super::is_token_byte;
use compact_str::CompactString;

/// What is left of a value. Line ends are folded away before, so that white space is space and tab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a str);

impl<'a> Cursor<'a> {
    pub(super) fn space(&mut self) {
        while let Some(b' ' | b'\t') = self.0.as_bytes().first() {
            self.0 = self.0.get(1..).unwrap_or_default();
        }
    }

    pub(super) fn at(&self, byte: u8) -> bool {
        self.0.as_bytes().first() == Some(&byte)
    }

    /// Takes this ASCII character if it comes next.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.at(byte);
        if found {
            self.0 = self.0.get(1..).unwrap_or_default();
        }
        found
    }

    /// Takes this character, with white space round it.
    pub(super) fn separator(&mut self, byte: u8) -> Option<()> {
        self.space();
        self.eat(byte).then(|| self.space())
    }

    /// Takes what comes before the first byte that `stop` names, all if there is none.
    pub(super) fn until(&mut self, stop: impl Fn(u8) -> bool) -> &'a str {
        // Only ASCII may stop: then the cut is between characters, and `split_at_checked` has no objection.
        let end = self.0.bytes().position(&stop).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at_checked(end).unwrap_or((self.0, ""));
        self.0 = rest;
        taken
    }

    /// Takes a token.
    pub(super) fn token(&mut self) -> Option<&'a str> {
        // A byte that ends it may be part of a character, but what stands before it is ASCII.
        let end = self.0.bytes().position(|b| !is_token_byte(b)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        (!taken.is_empty()).then_some(taken)
    }

    /// Takes the digits of a number; `None` without digits or past `T`.
    pub(super) fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.until(|b| !b.is_ascii_digit()).parse().ok()
    }

    /// Takes a quoted string, which comes next, and gives what it says (RFC 3261 §25.1 quoted-string).
    pub(super) fn quoted(&mut self) -> Option<CompactString> {
        let mut text = CompactString::default();
        if !self.eat(b'"') {
            return None;
        }
        loop {
            text.push_str(self.until(|b| b == b'"' || b == b'\\'));
            if self.eat(b'"') {
                return Some(text);
            }
            // A backslash, or the end without its quote.
            self.eat(b'\\');
            let mut rest = self.0.chars();
            text.push(rest.next()?);
            self.0 = rest.as_str();
        }
    }

    /// True at the end, but for white space.
    pub(super) fn done(&mut self) -> bool {
        self.space();
        self.0.is_empty()
    }
}

//! What a part on the disk is a part of: the text beside it, and the rule by which a later offer resumes it.
//! Read XEP-0234 §5 (range, hash) before touching this file.
//!
//! The length of the part itself says how many bytes are safe: they are written before they count. This text is written
//! once, before the first byte, and again only to flag a part as spoiled.

use super::hash::{Compared, compare};
use crate::wire::file::{FileHash, HashAlgo};

/// Largest text that is read, bytes; ours have less than 2 KiB.
pub const LARGEST: usize = 16 * 1024;
const FIRST_LINE: &str = "offhook part 1";
const LAST_LINE: &str = "end";

/// What a peer offers, as far as it tells one file from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// As the peer named it, made safe.
    pub name: String,
    /// Bare JID of the sender.
    pub peer: String,
    /// Bytes, if the offer says.
    pub size: Option<u64>,
    /// XEP-0082 text, if the offer says.
    pub date: Option<String>,
    /// Hashes of the whole file, as far as the offer has values.
    pub hashes: Vec<FileHash>,
}

impl Identity {
    /// Whether `offer` is the same file, so that its bytes go on where these end. The strongest hash that both have
    /// decides; without one, peer, name, size and date must all be known and equal.
    #[must_use]
    pub fn fits(&self, offer: &Identity) -> bool {
        if let (Some(ours), Some(theirs)) = (self.size, offer.size)
            && ours != theirs
        {
            return false;
        }
        match compare(&self.hashes, &offer.hashes) {
            // A weak hash cannot tell a file from one that was made to collide with it.
            Compared::Same(algo) if algo != HashAlgo::Sha1 => true,
            Compared::Different(_) => false,
            Compared::Same(_) | Compared::Unknown => {
                self.size.is_some()
                    && self.date.is_some()
                    && (&self.peer, &self.name, self.size, &self.date)
                        == (&offer.peer, &offer.name, offer.size, &offer.date)
            }
        }
    }
}

/// The text beside a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sidecar {
    /// What the part is a part of.
    pub identity: Identity,
    /// Its hash was wrong when it was complete: it is no start for a resume (J234-15).
    pub spoiled: bool,
}

impl Sidecar {
    /// As text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Identity { name, peer, size, date, hashes } = &self.identity;
        let mut text = format!("{FIRST_LINE}\nname {}\npeer {}\n", escaped(name), escaped(peer));
        if let Some(size) = size {
            text += &format!("size {size}\n");
        }
        if let Some(date) = date {
            text += &format!("date {}\n", escaped(date));
        }
        for (algo, value) in hashes.iter().filter(|(_, value)| !value.is_empty()) {
            let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
            text += &format!("hash {} {hex}\n", algo.as_str());
        }
        if self.spoiled {
            text += "spoiled\n";
        }
        text + LAST_LINE + "\n"
    }

    /// From text; `None` for anything that is not wholly one of ours, cut ones included. Lines of unknown words are
    /// skipped.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|t| t.len() <= LARGEST)?;
        let text = text.strip_prefix(FIRST_LINE)?.strip_prefix('\n')?;
        let text = text.strip_suffix('\n')?.strip_suffix(LAST_LINE)?;
        let text = if text.is_empty() { text } else { text.strip_suffix('\n')? };
        let (mut name, mut peer, mut sidecar) = (None, None, Self::default());
        for line in text.split('\n') {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "name" => name = Some(unescaped(value)?),
                "peer" => peer = Some(unescaped(value)?),
                "size" => sidecar.identity.size = Some(value.parse().ok()?),
                "date" => sidecar.identity.date = Some(unescaped(value)?),
                "hash" => sidecar.identity.hashes.extend(read_hash(value)?),
                "spoiled" => sidecar.spoiled = true,
                _ => {}
            }
        }
        sidecar.identity.name = name?;
        sidecar.identity.peer = peer?;
        Some(sidecar)
    }
}

/// `Some(None)` for a function of a later version.
fn read_hash(text: &str) -> Option<Option<FileHash>> {
    let (algo, hex) = text.split_once(' ')?;
    let Some(algo) = HashAlgo::parse(algo) else { return Some(None) };
    if hex.len() != 2 * algo.digest_bytes() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let value: Option<Vec<u8>> =
        (0..hex.len()).step_by(2).map(|i| hex.get(i..i + 2).and_then(|t| u8::from_str_radix(t, 16).ok())).collect();
    Some(Some((algo, value?)))
}

/// One line: control characters and the percent sign as `%XXXXXX`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || c == '%' {
            out += &format!("%{:06x}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (hex, rest) = part.split_at_checked(6)?;
        out.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
        out += rest;
    }
    Some(out)
}

//! What a part on the disk is a part of: the text beside it, and the rule by which a later offer resumes it.
//! Read XEP-0234 §5 (range, hash) before touching this file.
//!
//! The length of the part itself says how many bytes are safe: they are written before they count. This text is written
//! once, before the first byte, and again only to flag a part as spoiled, or to say what the finished file is called: its
//! sender may not have heard that it arrived, and send it again. Such a text goes when it is not needed any more.

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

    /// What a later offer of the same file says, with the hashes that only this one has.
    #[must_use]
    pub fn joined(&self, offer: &Identity) -> Identity {
        let mut joined = offer.clone();
        for hash in &self.hashes {
            if joined.hashes.iter().all(|(algo, value)| *algo != hash.0 || value.is_empty()) {
                joined.hashes.push(hash.clone());
            }
        }
        joined.hashes.retain(|(_, value)| !value.is_empty());
        joined
    }
}

/// The text beside a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sidecar {
    /// What the part is a part of.
    pub identity: Identity,
    /// Its hash was wrong when it was complete: it is no start for a resume (J234-15).
    pub spoiled: bool,
    /// It is no part any more but a finished file.
    pub kept: Option<Kept>,
}

/// A finished file as it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its final name.
    pub name: String,
    /// Last change, nanoseconds since 1970: whoever writes to it makes it another file.
    pub modified_ns: u64,
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
        if let Some(Kept { name, modified_ns }) = &self.kept {
            text += &format!("kept {modified_ns} {}\n", escaped(name));
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
                "kept" => {
                    let (modified, name) = value.split_once(' ')?;
                    sidecar.kept = Some(Kept { name: unescaped(name)?, modified_ns: modified.parse().ok()? });
                }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::file::hash::BY_STRENGTH;
    use proptest::prelude::*;

    fn identity() -> Identity {
        Identity {
            name: "f".to_owned(),
            peer: "romeo@montague.example".to_owned(),
            size: Some(10),
            date: Some("2026-11-21T12:00:00Z".to_owned()),
            hashes: Vec::new(),
        }
    }

    fn hashed(algo: HashAlgo, byte: u8) -> Identity {
        Identity { hashes: vec![(algo, vec![byte; algo.digest_bytes()])], ..identity() }
    }

    #[test]
    fn without_a_common_hash_peer_name_size_and_date_must_all_be_known_and_equal() {
        assert!(identity().fits(&identity()));
        for other in [
            Identity { name: "g".to_owned(), ..identity() },
            Identity { peer: "tybalt@capulet.example".to_owned(), ..identity() },
            Identity { size: Some(11), ..identity() },
            Identity { size: None, ..identity() },
            Identity { date: None, ..identity() },
        ] {
            assert!(!identity().fits(&other) && !other.fits(&identity()), "{other:?}");
        }
        let undated = Identity { date: None, ..identity() };
        assert!(!undated.fits(&undated), "nothing tells a new version from the old one");
        assert!(hashed(HashAlgo::Sha256, 1).fits(&identity()));
    }

    #[test]
    fn a_common_hash_decides_whatever_the_name_or_the_sender() {
        let renamed =
            Identity { name: "g".to_owned(), peer: "x".to_owned(), date: None, ..hashed(HashAlgo::Sha256, 1) };
        assert!(hashed(HashAlgo::Sha256, 1).fits(&renamed));
        assert!(!hashed(HashAlgo::Sha256, 1).fits(&hashed(HashAlgo::Sha256, 2)));
        assert!(!hashed(HashAlgo::Sha256, 1).fits(&Identity { size: Some(11), ..renamed }));
    }

    #[test]
    fn a_weak_hash_may_refuse_a_resume_but_not_allow_one() {
        let renamed = Identity { name: "g".to_owned(), ..hashed(HashAlgo::Sha1, 1) };
        assert!(!hashed(HashAlgo::Sha1, 1).fits(&renamed));
        assert!(!hashed(HashAlgo::Sha1, 1).fits(&hashed(HashAlgo::Sha1, 2)));
        assert!(hashed(HashAlgo::Sha1, 1).fits(&hashed(HashAlgo::Sha1, 1)));
    }

    #[test]
    fn a_later_offer_adds_its_hashes_and_loses_none() {
        let joined = hashed(HashAlgo::Sha256, 1).joined(&hashed(HashAlgo::Sha512, 2));
        assert_eq!(joined.hashes.len(), 2);
        let later = Identity { hashes: vec![(HashAlgo::Sha256, Vec::new())], ..identity() };
        assert_eq!(hashed(HashAlgo::Sha256, 1).joined(&later), hashed(HashAlgo::Sha256, 1));
    }

    #[test]
    fn the_text_is_as_documented() {
        let sidecar = Sidecar { identity: hashed(HashAlgo::Sha1, 0xab), spoiled: true, kept: None };
        let text = format!(
            "offhook part 1\nname f\npeer romeo@montague.example\nsize 10\ndate 2026-11-21T12:00:00Z\nhash sha-1 {}\n\
             spoiled\nend\n",
            "ab".repeat(20)
        );
        assert_eq!(sidecar.to_text(), text);
    }

    #[test]
    fn a_text_cut_anywhere_is_no_sidecar() {
        let text = Sidecar { identity: hashed(HashAlgo::Sha256, 7), spoiled: false, kept: None }.to_text();
        for cut in 0..text.len() {
            assert_eq!(Sidecar::parse(&text.as_bytes()[..cut]), None, "{cut}");
        }
        assert!(Sidecar::parse(text.as_bytes()).is_some());
    }

    #[test]
    fn unknown_lines_and_functions_are_skipped() {
        let text = "offhook part 1\nname f\nlater word\npeer p\nhash sha-9 00\nend\n";
        let read = Sidecar::parse(text.as_bytes()).unwrap();
        assert_eq!((read.identity.name.as_str(), read.identity.hashes.len()), ("f", 0));
    }

    fn any_identity() -> impl Strategy<Value = Identity> {
        let hash = (proptest::sample::select(&BY_STRENGTH[..]), any::<u8>())
            .prop_map(|(algo, byte)| (algo, vec![byte; algo.digest_bytes()]));
        let hashes = proptest::collection::vec(hash, 0..4);
        let texts = (any::<String>(), any::<String>(), proptest::option::of(any::<String>()));
        (texts, proptest::option::of(any::<u64>()), hashes).prop_map(|((name, peer, date), size, hashes)| Identity {
            name,
            peer,
            size,
            date,
            hashes,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            identity in any_identity(), spoiled: bool, kept in proptest::option::of((any::<String>(), any::<u64>())),
        ) {
            let kept = kept.map(|(name, modified_ns)| Kept { name, modified_ns });
            let sidecar = Sidecar { identity, spoiled, kept };
            prop_assert_eq!(Sidecar::parse(sidecar.to_text().as_bytes()), Some(sidecar));
        }

        #[test]
        fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Sidecar::parse(&junk);
        }

        #[test]
        fn a_damaged_text_never_panics(
            identity in any_identity(), at in any::<proptest::sample::Index>(), byte: u8,
        ) {
            let mut text = Sidecar { identity, spoiled: true, kept: None }.to_text().into_bytes();
            let at = at.index(text.len());
            text[at] = byte;
            let _ = Sidecar::parse(&text);
        }
    }
}

//! The digest itself. Read RFC 7616 §3.4 before touching this file.

use crate::config::Secret;
use aws_lc_rs::{constant_time, digest};
use md5::{Digest as _, Md5};
use zeroize::Zeroizing;

/// A hash, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Hash {
    /// RFC 1321, for PBXs that know no other.
    #[default]
    Md5,
    /// FIPS 180-4
    Sha256,
    /// SHA-512/256 of FIPS 180-4
    Sha512t256,
}

impl Hash {
    /// Lower-case hexadecimal digits of the hash of these parts with colons between.
    fn hex(self, parts: &[&[u8]]) -> Zeroizing<String> {
        let text = Zeroizing::new(parts.join(&b':'));
        let hash = match self {
            Hash::Md5 => Md5::digest(&*text).to_vec(),
            Hash::Sha256 => digest::digest(&digest::SHA256, &text).as_ref().to_vec(),
            Hash::Sha512t256 => digest::digest(&digest::SHA512_256, &text).as_ref().to_vec(),
        };
        let digits = b"0123456789abcdef";
        let digit = |nibble: u8| digits.get(usize::from(nibble)).copied().map_or('0', char::from);
        Zeroizing::new(hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
    }
}

/// `algorithm` of RFC 7616 §6.1. MD5 where none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Algorithm {
    /// What hashes.
    pub hash: Hash,
    /// `-sess`: both nonces go into the key.
    pub session: bool,
}

impl Algorithm {
    const ALL: [(Algorithm, &'static str); 6] = {
        const fn row(hash: Hash, session: bool, name: &'static str) -> (Algorithm, &'static str) {
            (Algorithm { hash, session }, name)
        }
        [
            row(Hash::Md5, false, "MD5"),
            row(Hash::Md5, true, "MD5-sess"),
            row(Hash::Sha256, false, "SHA-256"),
            row(Hash::Sha256, true, "SHA-256-sess"),
            row(Hash::Sha512t256, false, "SHA-512-256"),
            row(Hash::Sha512t256, true, "SHA-512-256-sess"),
        ]
    };

    /// `None` for one that is not known.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| n.eq_ignore_ascii_case(name.trim())).map(|(algorithm, _)| *algorithm)
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(algorithm, _)| *algorithm == self).map_or("MD5", |(_, name)| name)
    }
}

/// `qop` of RFC 7616 §3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Qop {
    Auth,
    AuthInt,
}

impl Qop {
    /// Of a list. `auth` first: bodies are rewritten on the way by servers between networks.
    pub(super) fn choose(list: &str) -> Option<Self> {
        let listed = |name: &str| list.split(',').any(|qop| qop.trim().eq_ignore_ascii_case(name));
        [Qop::Auth, Qop::AuthInt].into_iter().find(|qop| listed(qop.name()))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Qop::Auth => "auth",
            Qop::AuthInt => "auth-int",
        }
    }
}

/// What goes into a response, but for method and URI.
pub(super) struct Proof<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) username: &'a str,
    pub(super) realm: &'a str,
    pub(super) password: &'a Secret,
    pub(super) nonce: &'a str,
    pub(super) cnonce: &'a str,
    pub(super) count: u32,
    /// `None`: as RFC 2069 has it.
    pub(super) qop: Option<Qop>,
    pub(super) body: &'a [u8],
}

impl Proof<'_> {
    /// RFC 7616 §3.4.1, in digits.
    pub(super) fn response(&self, method: &str, uri: &str) -> String {
        let hash = self.algorithm.hash;
        let (nonce, cnonce) = (self.nonce.as_bytes(), self.cnonce.as_bytes());
        // §3.4.2: A1
        let key = hash.hex(&[self.username.as_bytes(), self.realm.as_bytes(), self.password.reveal().as_bytes()]);
        let key = if self.algorithm.session { hash.hex(&[key.as_bytes(), nonce, cnonce]) } else { key };
        // §3.4.3: A2
        let what = match self.qop {
            None | Some(Qop::Auth) => hash.hex(&[method.as_bytes(), uri.as_bytes()]),
            Some(Qop::AuthInt) => hash.hex(&[method.as_bytes(), uri.as_bytes(), hash.hex(&[self.body]).as_bytes()]),
        };
        let count = format!("{:08x}", self.count);
        let digest = match self.qop {
            None => hash.hex(&[key.as_bytes(), nonce, what.as_bytes()]),
            Some(qop) => {
                let qop = qop.name().as_bytes();
                hash.hex(&[key.as_bytes(), nonce, count.as_bytes(), cnonce, qop, what.as_bytes()])
            }
        };
        digest.as_str().to_owned()
    }
}

/// Equal, told in a time that does not depend on where they differ.
pub(super) fn same(ours: &str, theirs: &str) -> bool {
    constant_time::verify_slices_are_equal(ours.as_bytes(), theirs.to_ascii_lowercase().as_bytes()).is_ok()
}

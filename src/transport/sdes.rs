//! Keys of SRTP in signalling: `a=crypto` to values and back. Read RFC 4568 §5 to §7 and §9, RFC 6188 §4, RFC 7714 §14
//! before touching this file.

use crate::transport::srtp::SrtpProfile;
use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Peers leave the padding out or not (RFC 4568 §6.1 wants it).
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A master key may be used for so many packets at least before we take it; less is hours of one call (RFC 4568 §6.1).
const LEAST_LIFETIME: u64 = 1 << 20;

/// One direction's master key and salt, of the suite's lengths. Wiped when dropped; `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SdesKey {
    /// The suite.
    pub profile: SrtpProfile,
    material: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for SdesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SdesKey").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// Why a line of `a=crypto` is not used; the next one may be (RFC 4568 §5.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SdesFault {
    /// Not a suite of ours.
    #[error("an unknown crypto suite")]
    Suite,
    /// Not `inline:`, or its base64 or length is wrong.
    #[error("a key that does not fit its suite")]
    Key,
    /// Packets would carry a master key identifier, which is not spoken here.
    #[error("a master key identifier")]
    Mki,
    /// The key would be used up within hours.
    #[error("a key that is soon used up")]
    Lifetime,
    /// A parameter that changes what is protected, or an unknown one that must be understood (RFC 4568 §6.3).
    #[error("session parameters that are not spoken here")]
    Parameters,
    /// The system gives no randomness.
    #[error("no randomness")]
    Randomness,
}

impl SdesKey {
    /// A fresh key. Keys are the one thing that no seed replays.
    ///
    /// # Errors
    /// [`SdesFault::Randomness`].
    pub fn generate(profile: SrtpProfile) -> Result<Self, SdesFault> {
        let mut material = Zeroizing::new(vec![0; profile.key_len() + profile.salt_len()]);
        aws_lc_rs::rand::fill(&mut material).map_err(|_| SdesFault::Randomness)?;
        Ok(Self { profile, material })
    }

    /// What stands behind `a=crypto:TAG`: suite, key parameters, session parameters.
    ///
    /// # Errors
    /// [`SdesFault`]: this line is to be left out.
    pub fn parse(suite: &str, key_params: &str, session_params: &[&str]) -> Result<Self, SdesFault> {
        let profile = SrtpProfile::from_sdes_name(suite).ok_or(SdesFault::Suite)?;
        for parameter in session_params {
            // RFC 4568 §6.3.7 and §6.3.8: WSH is a hint, and what begins with "-" may be left alone.
            let hint = parameter.to_ascii_uppercase().starts_with("WSH=") || parameter.starts_with('-');
            if !hint {
                return Err(SdesFault::Parameters);
            }
        }
        // RFC 4568 §6.1: several keys are told apart by their MKI.
        if key_params.contains(';') {
            return Err(SdesFault::Mki);
        }
        let (method, rest) = key_params.split_once(':').ok_or(SdesFault::Key)?;
        if !method.eq_ignore_ascii_case("inline") {
            return Err(SdesFault::Key);
        }
        let mut parts = rest.split('|');
        let text = parts.next().unwrap_or_default();
        for part in parts {
            if part.contains(':') {
                return Err(SdesFault::Mki);
            }
            if lifetime(part).ok_or(SdesFault::Key)? < LEAST_LIFETIME {
                return Err(SdesFault::Lifetime);
            }
        }
        let material = Zeroizing::new(LENIENT.decode(text).map_err(|_| SdesFault::Key)?);
        if material.len() != profile.key_len() + profile.salt_len() {
            return Err(SdesFault::Key);
        }
        Ok(Self { profile, material })
    }

    /// `inline:…`, without lifetime and MKI: both are the defaults (RFC 4568 §6.1).
    #[must_use]
    pub fn key_params(&self) -> String {
        format!("inline:{}", base64::engine::general_purpose::STANDARD.encode(self.material.as_slice()))
    }

    /// Master key and master salt.
    #[must_use]
    pub fn split(&self) -> (Vec<u8>, Vec<u8>) {
        let (key, salt) = self.material.split_at_checked(self.profile.key_len()).unwrap_or_default();
        (key.to_vec(), salt.to_vec())
    }
}

/// `2^31` or `1048576`
fn lifetime(text: &str) -> Option<u64> {
    match text.strip_prefix("2^") {
        Some(power) => 1u64.checked_shl(power.parse().ok()?),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    /// RFC 4568 §6.1, with its 30 bytes.
    const KEY: &str = "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

    #[test]
    fn every_suite_comes_back_from_its_text() {
        for profile in SrtpProfile::ALL {
            let key = SdesKey::generate(profile).unwrap();
            let text = key.key_params();
            assert_eq!(SdesKey::parse(profile.sdes_name(), &text, &[]).unwrap(), key);
            let unpadded = text.trim_end_matches('=');
            assert_eq!(SdesKey::parse(profile.sdes_name(), unpadded, &[]).unwrap(), key);
            let (secret, salt) = key.split();
            assert_eq!((secret.len(), salt.len()), (profile.key_len(), profile.salt_len()));
        }
        let text = SdesKey::generate(SrtpProfile::AesCm128HmacSha1_80).unwrap().key_params();
        assert_eq!(text.len(), "inline:".len() + 40);
    }

    #[test]
    fn lifetime_is_read_and_a_master_key_identifier_refused() {
        let parse = |tail: &str| SdesKey::parse("AES_CM_128_HMAC_SHA1_80", &format!("{KEY}{tail}"), &[]).map(drop);
        assert_eq!(parse(""), Ok(()));
        assert_eq!(parse("|2^31"), Ok(()));
        assert_eq!(parse("|2^48"), Ok(()));
        assert_eq!(parse("|1048576"), Ok(()));
        assert_eq!(parse("|1000"), Err(SdesFault::Lifetime));
        assert_eq!(parse("|2^20|1:4"), Err(SdesFault::Mki));
        assert_eq!(parse("|1:4"), Err(SdesFault::Mki));
        assert_eq!(parse(&format!(";{KEY}")), Err(SdesFault::Mki));
        assert_eq!(parse("|soon"), Err(SdesFault::Key));
    }

    #[test]
    fn what_would_leave_packets_open_is_refused_and_a_hint_is_not() {
        let parse = |params: &[&str]| SdesKey::parse("AES_CM_128_HMAC_SHA1_80", KEY, params).map(drop);
        for bad in ["UNENCRYPTED_SRTP", "UNENCRYPTED_SRTCP", "UNAUTHENTICATED_SRTP", "KDR=1", "FEC_ORDER=FEC_SRTP", "X"]
        {
            assert_eq!(parse(&[bad]), Err(SdesFault::Parameters), "{bad}");
        }
        assert_eq!(parse(&["WSH=128", "-X"]), Ok(()));
    }

    #[test]
    fn keys_of_other_lengths_and_suites_are_refused() {
        assert_eq!(SdesKey::parse("AES_CM_128_HMAC_SHA1_80", "inline:AAAA", &[]), Err(SdesFault::Key));
        assert_eq!(SdesKey::parse("AES_CM_128_HMAC_SHA1_80", "uri:x", &[]), Err(SdesFault::Key));
        assert_eq!(SdesKey::parse("F8_128_HMAC_SHA1_80", KEY, &[]), Err(SdesFault::Suite));
        assert_eq!(SdesKey::parse("AEAD_AES_256_GCM", KEY, &[]), Err(SdesFault::Key));
        assert!(!format!("{:?}", SdesKey::generate(SrtpProfile::AeadAes128Gcm)).contains("material"));
    }
}

//! Asking others who they are. Read RFC 7616 §3.3 and §5.12 before touching this file.
//!
//! A nonce says by itself when it was made and that it is ours, so that strangers who ask for thousands of them leave
//! nothing behind. Kept is only what a right password was proved with: which counts of it are used up.

use super::proof::{Algorithm, Hash, Proof, Qop, same};
use super::{Asker, digest_scheme};
use crate::config::Secret;
use crate::wire::sip::{Challenge, Credentials, Header, Params, Request};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Of a nonce: 8 bytes of time, 8 of number, 16 of proof.
const NONCE_BYTES: usize = 32;
/// Counts below the highest that may still come, in another order than they were sent.
const WINDOW: u32 = 64;

/// Arguments of [`Authenticator::new`].
#[derive(Debug, Clone)]
pub struct AuthenticatorConfig {
    /// Ours.
    pub realm: String,
    /// Asked for, the strongest first (RFC 8760 §2.3).
    pub hashes: Vec<Hash>,
    /// A nonce is good for so long.
    pub nonce_life: Duration,
    /// Nonces in use that are kept.
    pub nonces: usize,
}

impl AuthenticatorConfig {
    /// SHA-256, then MD5; nonces of five minutes, 4096 of them in use.
    #[must_use]
    pub fn new(realm: &str) -> Self {
        Self {
            realm: realm.to_owned(),
            hashes: vec![Hash::Sha256, Hash::Md5],
            nonce_life: Duration::from_secs(300),
            nonces: 4096,
        }
    }
}

/// What a request is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is from this user.
    Proved(String),
    /// It proves nothing: a challenge goes back. `stale`: the password was right, the nonce is not any more.
    Challenge {
        /// RFC 7616 §3.3
        stale: bool,
    },
}

/// Counts of a nonce that are used up.
#[derive(Debug, Clone, Copy)]
struct Used {
    highest: u32,
    /// Bit n: highest - n was there.
    seen: u64,
}

/// Challenges, and checks what comes back.
#[derive(Debug)]
pub struct Authenticator {
    config: AuthenticatorConfig,
    key: hmac::Key,
    epoch: Instant,
    made: u64,
    used: BTreeMap<[u8; 16], Used>,
    /// Milliseconds: nonces made before are not known any more, so none of them is taken.
    forgotten_ms: u64,
}

impl Authenticator {
    /// `now` is the beginning of its time.
    #[must_use]
    pub fn new(now: Instant, seed: [u8; 32], config: AuthenticatorConfig) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &seed);
        Self { config, key, epoch: now, made: 0, used: BTreeMap::new(), forgotten_ms: 0 }
    }

    /// The headers of a 401: one challenge for each hash.
    pub fn challenge(&mut self, now: Instant, stale: bool) -> Vec<Header> {
        self.challenges(now, stale, Asker::Server)
    }

    /// The headers of a 407.
    pub fn proxy_challenge(&mut self, now: Instant, stale: bool) -> Vec<Header> {
        self.challenges(now, stale, Asker::Proxy)
    }

    /// Looks at the credentials of a request. `password` knows the users.
    pub fn verify(&mut self, now: Instant, request: &Request, password: impl Fn(&str) -> Option<Secret>) -> Verdict {
        let given = request.headers.rest.iter().filter_map(|header| {
            if let Header::Authorization(given) | Header::ProxyAuthorization(given) = header {
                Some(given)
            } else {
                None
            }
        });
        let mut stale = false;
        for credentials in given.take(4) {
            match self.proved(now, request, credentials, &password) {
                Some((user, true)) => return Verdict::Proved(user),
                Some((_, false)) => stale = true,
                None => {}
            }
        }
        Verdict::Challenge { stale }
    }

    /// Whose credentials these are, and whether their nonce and count are good. `None`: they are wrong.
    fn proved(
        &mut self,
        now: Instant,
        request: &Request,
        credentials: &Credentials,
        password: impl Fn(&str) -> Option<Secret>,
    ) -> Option<(String, bool)> {
        let Credentials { scheme, params } = credentials;
        if !scheme.is("Digest") || params.find("realm") != Some(self.config.realm.as_str()) {
            return None;
        }
        let algorithm = params.find("algorithm").map_or(Some(Algorithm::default()), Algorithm::parse)?;
        let qop = match params.find("qop") {
            Some(qop) => Some(Qop::choose(qop)?),
            None => None,
        };
        let username = params.find("username")?;
        // A user who does not exist takes as long as one who does.
        let known = password(username);
        let exists = known.is_some() && self.config.hashes.contains(&algorithm.hash);
        let secret = known.unwrap_or_else(|| Secret::new("none"));
        let count = match qop {
            Some(_) => u32::from_str_radix(params.find("nc")?, 16).ok()?,
            None => 0,
        };
        let nonce = params.find("nonce")?;
        let proof = Proof {
            algorithm,
            username,
            realm: &self.config.realm,
            password: &secret,
            nonce,
            cnonce: params.find("cnonce").unwrap_or_default(),
            count,
            qop,
            body: &request.body,
        };
        let expected = proof.response(request.method.as_str(), params.find("uri")?);
        if !same(&expected, params.find("response")?) || !exists {
            return None;
        }
        Some((username.to_owned(), self.use_up(now, nonce, qop.map(|_| count))))
    }

    /// False where the nonce is not ours or too old, or its count was there before: a replay (RFC 7616 §5.12).
    fn use_up(&mut self, now: Instant, nonce: &str, count: Option<u32>) -> bool {
        let mut bytes = [0; NONCE_BYTES];
        if BASE64.decode_slice(nonce, &mut bytes) != Ok(NONCE_BYTES) {
            return false;
        }
        let (head, tag) = bytes.split_at(16);
        let (Ok(head), Some((time, _))) = (<[u8; 16]>::try_from(head), bytes.split_first_chunk::<8>()) else {
            return false;
        };
        let made_ms = u64::from_be_bytes(*time);
        let age = self.at_ms(now).checked_sub(made_ms).map(Duration::from_millis);
        if !same_bytes(hmac::sign(&self.key, &head).as_ref(), tag)
            || made_ms < self.forgotten_ms
            || age.is_none_or(|age| age > self.config.nonce_life)
        {
            return false;
        }
        let fresh = match self.used.get_mut(&head) {
            // Without a count a nonce is good for one request.
            Some(used) => count.is_some_and(|count| used.take(count)),
            None => {
                let highest = count.unwrap_or(u32::MAX);
                self.used.insert(head, Used { highest, seen: 1 });
                true
            }
        };
        while self.used.len() > self.config.nonces {
            // Nonces begin with their time: the first is the oldest.
            let Some((oldest, _)) = self.used.pop_first() else { break };
            let time = oldest.split_first_chunk::<8>().map_or(0, |(time, _)| u64::from_be_bytes(*time));
            self.forgotten_ms = self.forgotten_ms.max(time.saturating_add(1));
        }
        fresh
    }

    fn challenges(&mut self, now: Instant, stale: bool, asker: Asker) -> Vec<Header> {
        let life_ms = u64::try_from(self.config.nonce_life.as_millis()).unwrap_or(u64::MAX);
        let dead_ms = self.at_ms(now).saturating_sub(life_ms);
        let mut oldest = [0; 16];
        if let Some(time) = oldest.first_chunk_mut::<8>() {
            *time = dead_ms.to_be_bytes();
        }
        self.used = self.used.split_off(&oldest);
        let nonce = self.nonce(now);
        let hashes = self.config.hashes.iter();
        let challenges = hashes.map(|hash| {
            let mut params = Params::default();
            params.set("realm", Some(&self.config.realm));
            params.set("nonce", Some(&nonce));
            params.set("algorithm", Some(Algorithm { hash: *hash, session: false }.name()));
            params.set("qop", Some("auth"));
            if stale {
                params.set("stale", Some("true"));
            }
            let challenge = Challenge { scheme: digest_scheme(), params };
            match asker {
                Asker::Proxy => Header::ProxyAuthenticate(challenge),
                Asker::Server => Header::WwwAuthenticate(challenge),
            }
        });
        challenges.collect()
    }

    fn nonce(&mut self, now: Instant) -> String {
        self.made = self.made.wrapping_add(1);
        let mut bytes = Vec::with_capacity(NONCE_BYTES);
        bytes.extend(self.at_ms(now).to_be_bytes());
        bytes.extend(self.made.to_be_bytes());
        let tag = hmac::sign(&self.key, &bytes);
        bytes.extend(tag.as_ref().iter().take(16));
        BASE64.encode(bytes)
    }

    fn at_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Used {
    /// Marks a count; false if it was there before, or is too far back to know.
    fn take(&mut self, count: u32) -> bool {
        if count > self.highest {
            let ahead = count - self.highest;
            self.seen = if ahead < WINDOW { self.seen << ahead } else { 0 } | 1;
            self.highest = count;
            return true;
        }
        let behind = self.highest - count;
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

/// The first 16 bytes of a tag.
fn same_bytes(tag: &[u8], theirs: &[u8]) -> bool {
    tag.get(..16).is_some_and(|tag| aws_lc_rs::constant_time::verify_slices_are_equal(tag, theirs).is_ok())
}

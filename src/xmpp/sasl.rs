//! The login's proof: SCRAM with channel binding, PLAIN at need. Read RFC 5802, RFC 7677, RFC 9266 and XEP-0440 before
//! touching this file.
//!
//! ```text
//! start ─initial─▶ AwaitingServerFirst ─challenge─▶ AwaitingServerFinal ─v= right─▶ Proved ─▶ success is believed
//!    └──── PLAIN ─▶ Plain ───────────────────────────────────────────────────────────────────▶ success is believed
//! ```

use super::stream_io::{TlsInfo, TlsVersion};
use crate::config::Secret;
use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// RFC 5802 §5.1 asks for at least 4096; fewer make a stolen exchange cheap to break.
const ITERATIONS_MIN: u32 = 4096;
/// A million rounds take about half a second: a server must not burn more of our time.
const ITERATIONS_MAX: u32 = 1_000_000;
/// The one binding type spoken here, RFC 9266.
const EXPORTER: &str = "tls-exporter";

/// What the login may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SaslPolicy {
    /// PLAIN is allowed, inside TLS and only where no SCRAM is offered. Off by default: it shows the password to the
    /// server.
    pub plain: bool,
    /// Channel binding.
    pub binding: BindingPolicy,
}

/// Whether the login is bound to the TLS connection (RFC 5802 §6, RFC 9266).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BindingPolicy {
    /// Used where both sides can; never given up where the server lists it.
    #[default]
    Prefer,
    /// No login without it.
    Require,
    /// Never used: for a proxy that ends TLS in front of the server.
    Off,
}

/// Why a login ended on our side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaslFault {
    /// Nothing that the policy allows is offered.
    #[error("the server offers no acceptable mechanism")]
    NoMechanism,
    /// Channel binding is required and cannot be had.
    #[error("channel binding is required but not possible")]
    NoBinding,
    /// User name or password hold characters that RFC 4013 forbids.
    #[error("user name or password cannot be prepared")]
    Unpreparable,
    /// A message of the server is not the grammar of RFC 5802 §7.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The server's nonce does not begin with ours.
    #[error("the server changed the nonce")]
    Nonce,
    /// Fewer than 4096 iterations or more than a million.
    #[error("refused iteration count {0}")]
    Iterations(u32),
    /// The server does not know the password: it is not the server.
    #[error("the server's signature is wrong")]
    Signature,
    /// The server says success without having proved that it knows the password.
    #[error("success without proof")]
    Unproved,
    /// The server ended the exchange inside SCRAM.
    #[error("the server refuses: {0}")]
    Server(String),
}

/// What the server offers.
#[derive(Debug, Clone, Copy)]
pub struct SaslOffer<'a> {
    /// Names of mechanisms.
    pub mechanisms: &'a [String],
    /// Types of XEP-0440; empty if the server does not say.
    pub channel_bindings: &'a [String],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn hmac(self, key: &[u8], data: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data)
    }

    fn digest(self, data: &[u8]) -> digest::Digest {
        match self {
            Hash::Sha1 => digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data),
            Hash::Sha256 => digest::digest(&digest::SHA256, data),
        }
    }

    /// `Hi` of RFC 5802 §2.2.
    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Zeroizing<Vec<u8>> {
        let (algorithm, len) = match self {
            Hash::Sha1 => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
            Hash::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        };
        let mut out = Zeroizing::new(vec![0; len]);
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut out);
        out
    }
}

/// How the exchange is bound: the flag of RFC 5802 §7 and the data behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Binding {
    /// `n`: not supported by us, or no common type.
    None,
    /// `y`: supported by us, and the server says that it does not. If that was forged, the server notices.
    Unoffered,
    /// `p=tls-exporter`
    Exporter(Vec<u8>),
}

impl Binding {
    fn gs2_header(&self) -> &'static str {
        match self {
            Binding::None => "n,,",
            Binding::Unoffered => "y,,",
            Binding::Exporter(_) => "p=tls-exporter,,",
        }
    }

    fn data(&self) -> &[u8] {
        match self {
            Binding::None | Binding::Unoffered => &[],
            Binding::Exporter(data) => data,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Scram { name: &'static str, hash: Hash, binding: Binding },
    Plain,
}

/// Preference: bound before unbound, then SHA-256 before SHA-1.
fn choose(offer: SaslOffer<'_>, tls: Option<&TlsInfo>, policy: SaslPolicy) -> Result<Choice, SaslFault> {
    let offered = |name: &str| offer.mechanisms.iter().any(|m| m == name);
    let exporter = match policy.binding {
        BindingPolicy::Prefer | BindingPolicy::Require => tls.and_then(|t| t.exporter.as_deref().map(|e| (t, e))),
        BindingPolicy::Off => None,
    };
    let plus = [("SCRAM-SHA-256-PLUS", Hash::Sha256), ("SCRAM-SHA-1-PLUS", Hash::Sha1)];
    let plus = plus.into_iter().find(|(name, _)| offered(name));
    if let (Some((name, hash)), Some((tls, data))) = (plus, exporter) {
        // XEP-0440 §4: a type that the server lists. RFC 9266 §3: without a list tls-exporter is the default of TLS 1.3.
        let common = if offer.channel_bindings.is_empty() {
            tls.version == TlsVersion::Tls13
        } else {
            offer.channel_bindings.iter().any(|b| b == EXPORTER)
        };
        // RFC 5802 §6: -PLUS "MUST" be used where both support it.
        if common {
            return Ok(Choice::Scram { name, hash, binding: Binding::Exporter(data.to_vec()) });
        }
    }
    if policy.binding == BindingPolicy::Require {
        return Err(SaslFault::NoBinding);
    }
    // XEP-0440 §4: the list without a -PLUS mechanism is a sign of a downgrade.
    if plus.is_none() && exporter.is_some() && offer.channel_bindings.iter().any(|b| b == EXPORTER) {
        return Err(SaslFault::NoBinding);
    }
    let scram = [("SCRAM-SHA-256", Hash::Sha256), ("SCRAM-SHA-1", Hash::Sha1)];
    if let Some((name, hash)) = scram.into_iter().find(|(name, _)| offered(name)) {
        // RFC 5802 §6: "y" if we could and the server did not offer it, so that a stripped list is noticed.
        let binding = if plus.is_none() && exporter.is_some() { Binding::Unoffered } else { Binding::None };
        return Ok(Choice::Scram { name, hash, binding });
    }
    let any_scram = offer.mechanisms.iter().any(|m| m.starts_with("SCRAM-"));
    // RFC 6120 §13.8.3: PLAIN only inside TLS.
    if policy.plain && !any_scram && tls.is_some() && offered("PLAIN") {
        return Ok(Choice::Plain);
    }
    Err(SaslFault::NoMechanism)
}

/// What goes into `<auth/>`. Not `Debug`: with PLAIN it holds the password.
pub struct SaslStart {
    /// Name of the mechanism.
    pub mechanism: &'static str,
    /// Initial response.
    pub data: Vec<u8>,
}

#[derive(Debug)]
enum State {
    AwaitingServerFirst { hash: Hash, binding: Binding, nonce: String, first_bare: String, password: Secret },
    AwaitingServerFinal { signature: Vec<u8> },
    Proved,
    Plain,
}

/// One exchange. A method that fails ends it.
#[derive(Debug)]
pub struct Sasl(State);

impl Sasl {
    /// Chooses a mechanism and begins. `nonce` is random text without comma; 24 characters of base64 are right.
    ///
    /// # Errors
    /// [`SaslFault::NoMechanism`], [`SaslFault::NoBinding`], [`SaslFault::Unpreparable`].
    pub fn start(
        user: &str,
        password: &Secret,
        offer: SaslOffer<'_>,
        tls: Option<&TlsInfo>,
        policy: SaslPolicy,
        nonce: String,
    ) -> Result<(Self, SaslStart), SaslFault> {
        // RFC 5802 §5.1: the name is prepared; an empty result is an error.
        let user = stringprep::saslprep(user).map_err(|_| SaslFault::Unpreparable)?;
        if user.is_empty() {
            return Err(SaslFault::Unpreparable);
        }
        match choose(offer, tls, policy)? {
            Choice::Scram { name, hash, binding } => {
                let prepared = stringprep::saslprep(password.reveal()).map_err(|_| SaslFault::Unpreparable)?;
                let password = Secret::new(prepared.as_ref());
                let user = user.replace('=', "=3D").replace(',', "=2C");
                let first_bare = format!("n={user},r={nonce}");
                let data = format!("{}{first_bare}", binding.gs2_header()).into_bytes();
                let state = State::AwaitingServerFirst { hash, binding, nonce, first_bare, password };
                Ok((Self(state), SaslStart { mechanism: name, data }))
            }
            // RFC 4616 §2.
            Choice::Plain => {
                let data = format!("\0{user}\0{}", password.reveal()).into_bytes();
                Ok((Self(State::Plain), SaslStart { mechanism: "PLAIN", data }))
            }
        }
    }

    /// Answers a challenge. Some servers send their proof in a challenge; the answer is then empty.
    ///
    /// # Errors
    /// Any [`SaslFault`]: the exchange must be aborted.
    pub fn challenge(self, data: &[u8]) -> Result<(Self, Vec<u8>), SaslFault> {
        match self.0 {
            State::AwaitingServerFirst { hash, binding, nonce, first_bare, password } => {
                let first = ServerFirst::parse(data, &nonce)?;
                // RFC 5802 §3: c is the header with the binding data.
                let bound = [binding.gs2_header().as_bytes(), binding.data()].concat();
                let without_proof = format!("c={},r={}", BASE64.encode(bound), first.nonce);
                let salted = hash.salted(password.reveal(), &first.salt, first.iterations);
                let client_key = hash.hmac(&salted, b"Client Key");
                let server_key = hash.hmac(&salted, b"Server Key");
                let message = format!("{first_bare},{},{without_proof}", first.text);
                let stored_key = hash.digest(client_key.as_ref());
                let client_signature = hash.hmac(stored_key.as_ref(), message.as_bytes());
                let proof: Vec<u8> =
                    client_key.as_ref().iter().zip(client_signature.as_ref()).map(|(k, s)| k ^ s).collect();
                let signature = hash.hmac(server_key.as_ref(), message.as_bytes()).as_ref().to_vec();
                let answer = format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes();
                Ok((Self(State::AwaitingServerFinal { signature }), answer))
            }
            State::AwaitingServerFinal { signature } => {
                check_server_final(data, &signature)?;
                Ok((Self(State::Proved), Vec::new()))
            }
            State::Proved | State::Plain => Err(SaslFault::Malformed),
        }
    }

    /// Checks the server's claim that the login succeeded.
    ///
    /// # Errors
    /// Any [`SaslFault`]: the claim is false and the stream has to end.
    pub fn success(self, data: Option<&[u8]>) -> Result<(), SaslFault> {
        match (self.0, data) {
            (State::AwaitingServerFinal { signature }, Some(data)) => check_server_final(data, &signature),
            (State::Proved | State::Plain, _) => Ok(()),
            (State::AwaitingServerFinal { .. } | State::AwaitingServerFirst { .. }, _) => Err(SaslFault::Unproved),
        }
    }
}

struct ServerFirst<'a> {
    text: &'a str,
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'a> ServerFirst<'a> {
    fn parse(data: &'a [u8], ours: &str) -> Result<Self, SaslFault> {
        let text = std::str::from_utf8(data).map_err(|_| SaslFault::Malformed)?;
        let mut parts = text.split(',');
        let mut next = |name: &str| parts.next().and_then(|p| p.strip_prefix(name)).ok_or(SaslFault::Malformed);
        // RFC 5802 §7: the order is fixed; a leading m= is an extension that must be understood, and none is.
        let nonce = next("r=")?;
        let salt = BASE64.decode(next("s=")?).map_err(|_| SaslFault::Malformed)?;
        let iterations: u32 = next("i=")?.parse().map_err(|_| SaslFault::Malformed)?;
        // RFC 5802 §5.1: the client MUST verify that the nonce begins with its own.
        if !nonce.starts_with(ours) || nonce.len() == ours.len() || salt.is_empty() {
            return Err(SaslFault::Nonce);
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(SaslFault::Iterations(iterations));
        }
        let iterations = NonZeroU32::new(iterations).ok_or(SaslFault::Iterations(0))?;
        Ok(Self { text, nonce, salt, iterations })
    }
}

/// RFC 5802 §7 server-final-message: without the right signature the server does not know the password.
fn check_server_final(data: &[u8], signature: &[u8]) -> Result<(), SaslFault> {
    let text = std::str::from_utf8(data).map_err(|_| SaslFault::Malformed)?;
    let first = text.split(',').next().unwrap_or("");
    if let Some(error) = first.strip_prefix("e=") {
        return Err(SaslFault::Server(error.chars().take(100).collect()));
    }
    let proof = first.strip_prefix("v=").ok_or(SaslFault::Unproved)?;
    let proof = BASE64.decode(proof).map_err(|_| SaslFault::Malformed)?;
    constant_time::verify_slices_are_equal(&proof, signature).map_err(|_| SaslFault::Signature)
}

/// The server's half of SCRAM, so that tests can log in without a server.
#[cfg(test)]
pub(crate) mod testing {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Server-first and server-final for a password; checks the client's proof.
    pub(crate) struct Server {
        pub(crate) hash1: bool,
        pub(crate) password: String,
        pub(crate) binding: Vec<u8>,
        pub(crate) first_bare: String,
        pub(crate) gs2: String,
        pub(crate) first: String,
    }

    impl Server {
        pub(crate) fn first(mechanism: &str, client: &[u8], password: &str, exporter: &[u8]) -> Self {
            let text = std::str::from_utf8(client).unwrap();
            let at = text.find("n=").filter(|a| *a > 0).unwrap();
            let (gs2, bare) = text.split_at(at);
            let nonce = bare.split_once(",r=").unwrap().1;
            Self {
                hash1: mechanism.contains("SHA-1"),
                password: password.into(),
                binding: if gs2.starts_with("p=") { exporter.to_vec() } else { vec![] },
                first_bare: bare.into(),
                gs2: gs2.into(),
                first: format!("r={nonce}Server,s={},i=4096", BASE64.encode(b"salt")),
            }
        }

        /// `Some(v=…)` if the proof is right.
        pub(crate) fn last(&self, client: &[u8]) -> Option<String> {
            let hash = if self.hash1 { Hash::Sha1 } else { Hash::Sha256 };
            let text = std::str::from_utf8(client).unwrap();
            let (without_proof, proof) = text.split_once(",p=").unwrap();
            let bound = [self.gs2.as_bytes(), &self.binding].concat();
            if !without_proof.starts_with(&format!("c={},", BASE64.encode(bound))) {
                return None;
            }
            let salted = hash.salted(&self.password, b"salt", NonZeroU32::new(4096).unwrap());
            let message = format!("{},{},{without_proof}", self.first_bare, self.first);
            let key = hash.hmac(&salted, b"Client Key");
            let signature = hash.hmac(hash.digest(key.as_ref()).as_ref(), message.as_bytes());
            let want: Vec<u8> = key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
            (BASE64.decode(proof).ok()? == want).then(|| {
                let server = hash.hmac(hash.hmac(&salted, b"Server Key").as_ref(), message.as_bytes());
                format!("v={}", BASE64.encode(server.as_ref()))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::disallowed_methods,
        clippy::wildcard_enum_match_arm
    )]
    use super::*;
    use proptest::prelude::*;

    const PREFER: SaslPolicy = SaslPolicy { plain: false, binding: BindingPolicy::Prefer };

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn tls(version: TlsVersion) -> TlsInfo {
        TlsInfo { version, exporter: Some(vec![7; 32]) }
    }

    fn pick(
        mechanisms: &[&str],
        bindings: &[&str],
        tls: Option<&TlsInfo>,
        policy: SaslPolicy,
    ) -> Result<Choice, SaslFault> {
        let (mechanisms, channel_bindings) = (names(mechanisms), names(bindings));
        choose(SaslOffer { mechanisms: &mechanisms, channel_bindings: &channel_bindings }, tls, policy)
    }

    fn start(mechanism: &str, user: &str, password: &str, nonce: &str) -> (Sasl, SaslStart) {
        let mechanisms = names(&[mechanism]);
        let offer = SaslOffer { mechanisms: &mechanisms, channel_bindings: &[] };
        Sasl::start(user, &Secret::new(password), offer, None, PREFER, nonce.into()).unwrap()
    }

    #[test]
    fn the_example_of_rfc_5802_comes_out_byte_for_byte() {
        let (sasl, first) = start("SCRAM-SHA-1", "user", "pencil", "fyko+d2lbbFgONRv9qkxdawL");
        assert_eq!(first.data, b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL");
        let challenge = b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
        let (sasl, last) = sasl.challenge(challenge).unwrap();
        assert_eq!(last, b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=");
        sasl.success(Some(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")).unwrap();
    }

    #[test]
    fn the_example_of_rfc_7677_comes_out_byte_for_byte() {
        let (sasl, first) = start("SCRAM-SHA-256", "user", "pencil", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(first.data, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (sasl, last) = sasl.challenge(challenge).unwrap();
        assert_eq!(
            last,
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".to_vec()
        );
        sasl.success(Some(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")).unwrap();
    }

    #[test]
    fn success_without_or_with_a_wrong_proof_is_not_believed() {
        let server = || {
            let (sasl, first) = start("SCRAM-SHA-256", "u", "p", "nonce");
            let server = testing::Server::first("SCRAM-SHA-256", &first.data, "p", &[]);
            let (sasl, last) = sasl.challenge(server.first.as_bytes()).unwrap();
            (sasl, server.last(&last).unwrap())
        };
        assert_eq!(start("SCRAM-SHA-1", "u", "p", "n").0.success(None), Err(SaslFault::Unproved));
        assert_eq!(server().0.success(None), Err(SaslFault::Unproved));
        assert_eq!(server().0.success(Some(b"v=AAAA")), Err(SaslFault::Signature));
        assert_eq!(server().0.success(Some(b"e=other-error")), Err(SaslFault::Server("other-error".into())));
        assert_eq!(server().0.challenge(b"v=AAAA").map(|_| ()), Err(SaslFault::Signature));
        let (sasl, proof) = server();
        let (sasl, empty) = sasl.challenge(proof.as_bytes()).unwrap();
        assert!(empty.is_empty());
        sasl.success(None).unwrap();
    }

    #[test]
    fn a_foreign_nonce_a_mandatory_extension_or_a_bad_iteration_count_ends_the_exchange() {
        let challenge = |c: &str| start("SCRAM-SHA-1", "u", "p", "abc").0.challenge(c.as_bytes()).map(|_| ());
        assert_eq!(challenge("r=abX1,s=c2FsdA==,i=4096"), Err(SaslFault::Nonce));
        assert_eq!(challenge("r=abc,s=c2FsdA==,i=4096"), Err(SaslFault::Nonce));
        assert_eq!(challenge("m=x,r=abcd,s=c2FsdA==,i=4096"), Err(SaslFault::Malformed));
        assert_eq!(challenge("r=abcd,s=c2FsdA==,i=1"), Err(SaslFault::Iterations(1)));
        assert_eq!(challenge("r=abcd,s=c2FsdA==,i=4000000000"), Err(SaslFault::Iterations(4_000_000_000)));
        assert_eq!(challenge("r=abcd,s=%,i=4096"), Err(SaslFault::Malformed));
        assert_eq!(challenge("r=abcd,s=c2FsdA==,i=4096,x=ignored"), Ok(()));
    }

    #[test]
    fn name_and_password_are_prepared_and_escaped() {
        let (_, first) = start("SCRAM-SHA-1", "a=b,c\u{2168}", "p", "n");
        assert_eq!(first.data, b"n,,n=a=3Db=2CcIX,r=n");
        let offer = names(&["SCRAM-SHA-1"]);
        let offer = SaslOffer { mechanisms: &offer, channel_bindings: &[] };
        let bad = Sasl::start("u", &Secret::new("\u{7}"), offer, None, PREFER, "n".into());
        assert_eq!(bad.map(|_| ()), Err(SaslFault::Unpreparable));
    }

    #[test]
    fn binding_is_used_whenever_both_sides_can() {
        let tls13 = tls(TlsVersion::Tls13);
        let all = ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
        let bound = |c: Result<Choice, SaslFault>| match c.unwrap() {
            Choice::Scram { name, binding, .. } => (name, binding),
            Choice::Plain => panic!("PLAIN"),
        };
        let exporter = Binding::Exporter(vec![7; 32]);
        assert_eq!(
            bound(pick(&all, &["tls-exporter"], Some(&tls13), PREFER)),
            ("SCRAM-SHA-256-PLUS", exporter.clone())
        );
        assert_eq!(bound(pick(&all, &[], Some(&tls13), PREFER)), ("SCRAM-SHA-256-PLUS", exporter.clone()));
        assert_eq!(bound(pick(&all[..3], &[], Some(&tls13), PREFER)), ("SCRAM-SHA-1-PLUS", exporter));
        // No common type, or a type that TLS 1.2 does not imply: the server is told that we cannot.
        let other = ["tls-server-end-point"];
        assert_eq!(bound(pick(&all, &other, Some(&tls13), PREFER)), ("SCRAM-SHA-256", Binding::None));
        let tls12 = tls(TlsVersion::Tls12);
        assert_eq!(bound(pick(&all, &[], Some(&tls12), PREFER)), ("SCRAM-SHA-256", Binding::None));
        let off = SaslPolicy { plain: false, binding: BindingPolicy::Off };
        assert_eq!(bound(pick(&all, &["tls-exporter"], Some(&tls13), off)), ("SCRAM-SHA-256", Binding::None));
    }

    #[test]
    fn a_stripped_offer_is_noticed() {
        let tls13 = tls(TlsVersion::Tls13);
        let stripped = pick(&["SCRAM-SHA-256"], &[], Some(&tls13), PREFER).unwrap();
        assert_eq!(stripped, Choice::Scram { name: "SCRAM-SHA-256", hash: Hash::Sha256, binding: Binding::Unoffered });
        assert_eq!(pick(&["SCRAM-SHA-256"], &["tls-exporter"], Some(&tls13), PREFER), Err(SaslFault::NoBinding));
        let require = SaslPolicy { plain: false, binding: BindingPolicy::Require };
        assert_eq!(pick(&["SCRAM-SHA-256"], &[], Some(&tls13), require), Err(SaslFault::NoBinding));
        assert_eq!(pick(&["SCRAM-SHA-256-PLUS"], &["tls-exporter"], None, require), Err(SaslFault::NoBinding));
    }

    #[test]
    fn plain_needs_tls_and_permission_and_the_absence_of_scram() {
        let tls13 = tls(TlsVersion::Tls13);
        let plain = SaslPolicy { plain: true, binding: BindingPolicy::Prefer };
        assert_eq!(pick(&["PLAIN"], &[], Some(&tls13), plain), Ok(Choice::Plain));
        assert_eq!(pick(&["PLAIN"], &[], Some(&tls13), PREFER), Err(SaslFault::NoMechanism));
        assert_eq!(pick(&["PLAIN"], &[], None, plain), Err(SaslFault::NoMechanism));
        assert_eq!(pick(&["PLAIN", "SCRAM-SHA-512"], &[], Some(&tls13), plain), Err(SaslFault::NoMechanism));
        assert_eq!(pick(&["EXTERNAL"], &[], Some(&tls13), plain), Err(SaslFault::NoMechanism));
    }

    #[test]
    fn debug_shows_no_password() {
        let (sasl, _) = start("SCRAM-SHA-1", "u", "hunter2", "n");
        assert!(!format!("{sasl:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_challenge_panics(data: Vec<u8>, text in "r=abc[a-z,=]{0,20}") {
            let sasl = || start("SCRAM-SHA-1", "u", "p", "abc").0;
            let _ = sasl().challenge(&data);
            let _ = sasl().challenge(text.as_bytes());
            let _ = Sasl(State::AwaitingServerFinal { signature: vec![0; 20] }).success(Some(&data));
        }
    }
}

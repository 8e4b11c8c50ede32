//! DTLS 1.2 for SRTP keys: one engine (`rtc-dtls`) behind a seam and a guard.
//! Read RFC 6347 §4.2, RFC 5764 §4 and RFC 8122 §5 before touching this file.

use crate::transport::srtp::SrtpProfile;
use crate::wire::candidate::{Fingerprint, Setup};
use aws_lc_rs::digest;
use bytes::BytesMut;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto::{Certificate, CryptoPrivateKey};
use rtc_dtls::crypto_provider::{RTCCryptoProvider, SecretVec};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error as EngineError;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DtlsFault {
    /// The peer refused with this alert (RFC 5246 §7.2).
    #[error("the peer sent alert {0}")]
    Alert(u8),
    /// The peer's certificate fits none of the fingerprints that signalling gave.
    #[error("the certificate does not match the fingerprint")]
    FingerprintMismatch,
    /// The peer offers no SRTP profile that is known here.
    #[error("no common SRTP profile")]
    NoProfile,
    /// Nothing in common, or the peer broke the protocol.
    #[error("{0}")]
    Engine(String),
}

impl From<EngineError> for DtlsFault {
    fn from(error: EngineError) -> Self {
        Self::Engine(error.to_string())
    }
}

/// Who sends the ClientHello, RFC 5763 §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtlsRole {
    /// `active`
    Client,
    /// `passive`
    Server,
}

impl DtlsRole {
    /// What signalling calls it.
    #[must_use]
    pub fn setup(self) -> Setup {
        match self {
            Self::Client => Setup::Active,
            Self::Server => Setup::Passive,
        }
    }
}

/// A certificate and the handshake settings that go with it: one per process, behind an `Arc`.
///
/// One certificate for all calls makes a leg cheap; it also lets a peer see that two calls come from one process.
pub struct Identity {
    sha256: Vec<u8>,
    client: Arc<HandshakeConfig>,
    /// A client that asks for no SRTP, for legs that carry data only: the engine fails where it asks in vain.
    data_client: Arc<HandshakeConfig>,
    server: Arc<HandshakeConfig>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

/// The engine's own interval. Shorter than any that is wanted: the seam stretches it (see [`Dtls`]), so that one
/// shared configuration serves every round trip.
const ENGINE_INTERVAL: Duration = Duration::from_millis(10);

impl Identity {
    /// Makes a P-256 key and a self-signed certificate; randomness comes from the crypto provider.
    ///
    /// # Errors
    /// The provider failed.
    pub fn generate() -> Result<Self, DtlsFault> {
        let engine = |error: rcgen::Error| DtlsFault::Engine(error.to_string());
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(engine)?;
        let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(engine)?;
        // The certificate crosses the network in the clear: it says what every browser's says.
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "WebRTC");
        let certificate = params.self_signed(&key).map_err(engine)?;
        let provider: Arc<dyn RTCCryptoProvider> =
            Arc::new(rtc_dtls::crypto_provider::providers::AwsLcRsProvider::new());
        let sha256 = digest::digest(&digest::SHA256, certificate.der()).as_ref().to_vec();
        let certificate = Certificate {
            certificate: vec![certificate.der().clone()],
            private_key: CryptoPrivateKey::from_key_pair(&key, provider.crypto())?,
        };
        let profiles = vec![
            SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32,
        ];
        let config = |is_client, profiles| {
            ConfigBuilder::default()
                .with_crypto_provider(Arc::clone(&provider))
                .with_certificates(vec![certificate.clone()])
                .with_srtp_protection_profiles(profiles)
                // RFC 5763 §5: the certificate is bound to the session by its fingerprint, not by a chain or a date.
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                .with_insecure_skip_verify(true)
                .with_server_name("WebRTC".to_owned())
                .with_flight_interval(ENGINE_INTERVAL)
                .build(is_client, None)
                .map(Arc::new)
        };
        let client = config(true, profiles.clone())?;
        Ok(Self { sha256, client, data_client: config(true, Vec::new())?, server: config(false, profiles)? })
    }

    /// The sha-256 of the certificate, to be signalled with `setup`.
    #[must_use]
    pub fn fingerprint(&self, setup: Setup) -> Fingerprint {
        Fingerprint { hash: "sha-256".into(), value: self.sha256.clone(), setup: Some(setup) }
    }
}

/// What an input led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtlsProgress {
    /// Nothing to tell.
    None,
    /// The handshake is complete: `srtp_keys` answers now. Told once.
    Complete,
    /// The peer sent an authenticated close_notify.
    Closed,
}

/// The exporter's output for SRTP, RFC 5764 §4.2.
pub struct SrtpKeys {
    /// What was negotiated.
    pub profile: SrtpProfile,
    /// To be cut by `srtp::split_dtls_keying_material`; wiped when dropped.
    pub material: SecretVec,
    /// Which of the peer's fingerprints matched.
    pub fingerprint: Fingerprint,
}

impl std::fmt::Debug for SrtpKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SrtpKeys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// Waits between retransmissions of one flight, in units of the interval: 150, 300, 450, 750 ms, 1.2, 2.1 and 3.6 s
/// after the flight at 150 ms. Seven are all that the engine has; its own constant interval ends after 1.2 s, which
/// at 20 % loss is less than ICE may need on the other side.
const BACKOFF: [u32; 7] = [1, 1, 1, 2, 3, 6, 10];

/// Patience after a sign that the handshake has failed. A plaintext alert can be forged, so it is not believed while
/// the handshake may still complete.
const GRACE: Duration = Duration::from_secs(3);

/// The engine keeps its associations by address; this leg has one.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// One DTLS association: start, input, timeout, due, out, certificate, keys. Engines are interchangeable behind this.
///
/// ```text
///  new ──start / first hello──▶ handshake ──both Finished──▶ complete ──close_notify──▶ closed
///                                   │ alert, engine fault: 3 s of grace
///                                   └──▶ Err(DtlsFault) from handle_timeout
/// ```
pub struct Dtls {
    endpoint: Endpoint,
    client: Option<Arc<HandshakeConfig>>,
    guard: Guard,
    interval: Duration,
    /// Retransmissions since the last progress.
    retries: usize,
    /// The engine's deadline as last seen; a change means that it sent a flight.
    engine_due: Option<Instant>,
    due: Option<Instant>,
    complete: bool,
    fault: Option<(DtlsFault, Instant)>,
}

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dtls").field("complete", &self.complete).field("retries", &self.retries).finish_non_exhaustive()
    }
}

impl Dtls {
    /// An association that waits for `start` (client) or for the first hello (server). `interval` is that of the first
    /// retransmission. Without `srtp` no keys for it are asked for, and none are needed.
    #[must_use]
    pub fn new(identity: &Identity, role: DtlsRole, interval: Duration, srtp: bool) -> Self {
        let (client, server) = match (role, srtp) {
            (DtlsRole::Client, true) => (Some(Arc::clone(&identity.client)), None),
            (DtlsRole::Client, false) => (Some(Arc::clone(&identity.data_client)), None),
            // RFC 5764 §4.1.1: a server answers `use_srtp` where the client asks.
            (DtlsRole::Server, _) => (None, Some(Arc::clone(&identity.server))),
        };
        Self {
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, server),
            client,
            guard: Guard { server: role == DtlsRole::Server, ..Guard::default() },
            interval: interval.max(ENGINE_INTERVAL),
            retries: 0,
            engine_due: None,
            due: None,
            complete: false,
            fault: None,
        }
    }

    /// Our role.
    #[must_use]
    pub fn role(&self) -> DtlsRole {
        if self.guard.server { DtlsRole::Server } else { DtlsRole::Client }
    }

    /// True once both sides have finished.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Sends the ClientHello; does nothing in the server role.
    pub fn start(&mut self, now: Instant) {
        if let Some(config) = self.client.take() {
            if let Err(error) = self.endpoint.connect(now, PEER, config, None) {
                self.note(now, error.into());
            }
            self.follow_engine(now);
        }
    }

    /// A datagram from the peer's proven path. Anything is safe here; nothing ends on an input.
    ///
    /// `data` gets what the peer's records carry; only those of a complete association carry anything.
    pub fn handle_input(&mut self, now: Instant, datagram: &[u8], mut data: impl FnMut(BytesMut)) -> DtlsProgress {
        let mut accepted = BytesMut::with_capacity(datagram.len());
        self.guard.filter(datagram, self.complete, &mut accepted);
        if let Some(alert) = self.guard.alert.take() {
            self.note(now, DtlsFault::Alert(alert));
        }
        // A client's association begins with `start`: before it the engine would refuse the input anyway.
        if accepted.is_empty() || self.client.is_some() {
            return DtlsProgress::None;
        }
        if !self.complete {
            self.retries = 0;
        }
        let events = self.endpoint.read(now, PEER, None, accepted);
        self.follow_engine(now);
        let mut progress = DtlsProgress::None;
        match events {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => {
                            self.complete = true;
                            self.guard.seen = Vec::new();
                            self.fault = None;
                            self.due = None;
                            progress = DtlsProgress::Complete;
                        }
                        EndpointEvent::PeerClosed => progress = DtlsProgress::Closed,
                        EndpointEvent::ApplicationData(bytes) => data(bytes),
                        // The engine's enum may grow.
                        _ => {}
                    }
                }
            }
            Err(error) if !self.complete => self.note(now, error.into()),
            Err(error) => tracing::trace!(%error, "DTLS input dropped"),
        }
        progress
    }

    /// Time has come to `now`.
    ///
    /// # Errors
    /// The handshake has failed for good.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsFault> {
        if self.complete {
            return Ok(());
        }
        if let Some((fault, at)) = &self.fault
            && now >= *at + GRACE
        {
            return Err(fault.clone());
        }
        if self.due.is_some_and(|due| now >= due) {
            self.due = None;
            // The engine gives up at the eighth expiry, finally; without it, it keeps listening.
            if self.retries < BACKOFF.len() {
                self.retries += 1;
                if let Err(error) = self.endpoint.handle_timeout(PEER, now) {
                    self.note(now, error.into());
                }
                self.follow_engine(now);
            }
        }
        Ok(())
    }

    /// When `handle_timeout` is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let grace = self.fault.as_ref().map(|(_, at)| *at + GRACE);
        match (self.due, grace) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.endpoint.poll_transmit().map(|transmit| transmit.message)
    }

    /// A record with `data`. `None`: the association is not complete, or is closed.
    pub fn seal(&mut self, now: Instant, data: &[u8]) -> Option<BytesMut> {
        if !self.complete || self.endpoint.write(now, PEER, data).is_err() {
            return None;
        }
        self.poll_transmit()
    }

    /// The peer's certificate, DER; there before the keys are.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.endpoint.get_connection_state(PEER)?.peer_certificates.first().map(Vec::as_slice)
    }

    /// Which of `fingerprints` the peer's certificate fits (XEP-0320 §3, RFC 5763 §5).
    ///
    /// # Errors
    /// `FingerprintMismatch`.
    pub fn verify<'f>(&self, fingerprints: &'f [Fingerprint]) -> Result<&'f Fingerprint, DtlsFault> {
        let certificate = self.peer_certificate().ok_or(DtlsFault::FingerprintMismatch)?;
        matching(fingerprints, certificate).ok_or(DtlsFault::FingerprintMismatch)
    }

    /// The SRTP keys, only for a peer whose certificate fits `fingerprints`.
    ///
    /// # Errors
    /// `FingerprintMismatch`, `NoProfile`, or the handshake is not complete.
    pub fn srtp_keys(&self, fingerprints: &[Fingerprint]) -> Result<SrtpKeys, DtlsFault> {
        let fingerprint = self.verify(fingerprints)?;
        let profile = self.profile().ok_or(DtlsFault::NoProfile)?;
        let material = self.export("EXTRACTOR-dtls_srtp", profile.keying_material_len())?;
        Ok(SrtpKeys { profile, material, fingerprint: fingerprint.clone() })
    }

    /// The SRTP profile that was negotiated.
    #[must_use]
    pub fn profile(&self) -> Option<SrtpProfile> {
        let state = self.endpoint.get_connection_state(PEER)?;
        SrtpProfile::from_dtls_id(state.srtp_protection_profile() as u16)
    }

    /// Keying material, RFC 5705. The caller has checked the certificate.
    ///
    /// # Errors
    /// The handshake is not complete.
    pub fn export(&self, label: &str, length_bytes: usize) -> Result<SecretVec, DtlsFault> {
        if !self.complete {
            return Err(DtlsFault::Engine("the handshake is not complete".to_owned()));
        }
        let state = self.endpoint.get_connection_state(PEER).ok_or(DtlsFault::NoProfile)?;
        Ok(state.export_keying_material(label, &[], length_bytes)?)
    }

    /// Queues a close_notify.
    pub fn close(&mut self, now: Instant) {
        let _ = self.endpoint.stop(now, PEER);
        self.due = None;
    }

    fn note(&mut self, now: Instant, fault: DtlsFault) {
        // The first sign is the cause; what follows are its consequences.
        if !self.complete && self.fault.is_none() {
            self.fault = Some((fault, now));
        }
    }

    /// Turns the engine's own deadline into ours.
    fn follow_engine(&mut self, now: Instant) {
        let engine = self.endpoint.poll_timeout(&PEER);
        if engine != self.engine_due {
            self.engine_due = engine;
            self.due = match (engine, BACKOFF.get(self.retries)) {
                (Some(_), Some(factor)) => Some(now + self.interval * *factor),
                (Some(_), None) | (None, _) => None,
            };
        }
    }
}

/// The digest that a fingerprint names, and its rank. SHA-1 is not trusted for signatures, but a second preimage of
/// one given certificate is out of reach, and XEP-0320 peers still send it.
fn algorithm(hash: &str) -> Option<(u8, &'static digest::Algorithm)> {
    match hash {
        "sha-1" => Some((1, &digest::SHA1_FOR_LEGACY_USE_ONLY)),
        "sha-224" => Some((2, &digest::SHA224)),
        "sha-256" => Some((3, &digest::SHA256)),
        "sha-384" => Some((4, &digest::SHA384)),
        "sha-512" => Some((5, &digest::SHA512)),
        _ => None,
    }
}

/// The fingerprint that this certificate fits: any one of those with the strongest hash known here (RFC 8122 §5).
#[must_use]
pub fn matching<'f>(fingerprints: &'f [Fingerprint], certificate_der: &[u8]) -> Option<&'f Fingerprint> {
    let strongest = fingerprints.iter().filter_map(|f| algorithm(&f.hash)).max_by_key(|(rank, _)| *rank)?;
    let computed = digest::digest(strongest.1, certificate_der);
    fingerprints.iter().find(|f| algorithm(&f.hash).map(|a| a.0) == Some(strongest.0) && f.value == computed.as_ref())
}

/// Largest handshake message that is put together; a chain of two RSA-4096 certificates has 3 KiB.
const MAX_MESSAGE_BYTES: u32 = 16 * 1024;
/// Message numbers; a full handshake with client certificate uses 6 a side.
const MAX_MESSAGE_SEQ: u16 = 16;
/// Handshake records before completion: sixteen retransmissions of a flight in 228-byte fragments.
const MAX_HANDSHAKE_RECORDS: u16 = 256;
/// Bytes of handshake records before completion; what is not put together yet stays in memory.
const MAX_HANDSHAKE_BYTES: usize = 64 * 1024;
/// Records that the engine would queue until keys exist: one Finished and its ChangeCipherSpec per retransmission.
const MAX_EARLY_RECORDS: u16 = 32;
/// Handshake records after completion: each makes the engine repeat our last flight or keep a fragment.
const MAX_LATE_RECORDS: u16 = 32;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLIENT_HELLO: u8 = 1;
const FATAL: u8 = 2;

/// What may reach the engine.
///
/// The engine stops retransmitting when it is fed the same fragment twice (9 % of handshakes are lost at 5 % packet
/// loss without this filter), and neither bounds its fragments nor the records of a future epoch.
#[derive(Debug, Default)]
struct Guard {
    server: bool,
    /// Fragments fed so far: message number, offset, length. Empty again after completion.
    seen: Vec<(u16, u32, u32)>,
    handshake_records: u16,
    handshake_bytes: usize,
    early_records: u16,
    late_records: u16,
    /// A plaintext fatal alert, kept from the engine, which would answer it with one that ends the peer's handshake.
    alert: Option<u8>,
}

impl Guard {
    /// Copies the records that the engine may see.
    fn filter(&mut self, mut datagram: &[u8], complete: bool, out: &mut BytesMut) {
        while let Some((header, rest)) = datagram.split_first_chunk::<13>() {
            let [kind, major, _, e0, e1, _, _, _, _, _, _, l0, l1] = *header;
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            let Some((body, next)) = rest.split_at_checked(length) else { return };
            let record = datagram.get(..13 + length).unwrap_or_default();
            datagram = next;
            // RFC 6347 §4.1: DTLS 1.0 and 1.2 are 254.255 and 254.253.
            if major != 0xfe || body.is_empty() {
                continue;
            }
            if self.accepts(kind, u16::from_be_bytes([e0, e1]), body, complete) {
                out.extend_from_slice(record);
            }
        }
    }

    fn accepts(&mut self, kind: u8, epoch: u16, body: &[u8], complete: bool) -> bool {
        match (epoch, kind, complete) {
            (0, HANDSHAKE, false) => self.accepts_fragments(body),
            (0, CHANGE_CIPHER_SPEC, false) | (1, HANDSHAKE | ALERT | APPLICATION_DATA, false) => {
                count(&mut self.early_records, MAX_EARLY_RECORDS)
            }
            (0, ALERT, false) => {
                if let [FATAL, description, ..] = *body {
                    self.alert = Some(description);
                }
                false
            }
            // RFC 6347 §4.2.4: the peer repeats its last flight because ours was lost.
            (0 | 1, HANDSHAKE, true) => count(&mut self.late_records, MAX_LATE_RECORDS),
            (1, ALERT | APPLICATION_DATA, true) => true,
            (_, _, _) => false,
        }
    }

    /// True if the record holds something new and nothing that the engine mishandles.
    fn accepts_fragments(&mut self, mut body: &[u8]) -> bool {
        let bytes = self.handshake_bytes + body.len();
        let mut fresh = false;
        let mut added = 0;
        while let Some((header, rest)) = body.split_first_chunk::<12>() {
            let [kind, t0, t1, t2, s0, s1, o0, o1, o2, l0, l1, l2] = *header;
            let total = u32::from_be_bytes([0, t0, t1, t2]);
            let offset = u32::from_be_bytes([0, o0, o1, o2]);
            let length = u32::from_be_bytes([0, l0, l1, l2]);
            let seq = u16::from_be_bytes([s0, s1]);
            let present = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
            // The engine takes everything up to the message's full length for this fragment: so a part of a message
            // has to stand alone in its record.
            let whole = offset == 0 && length == total;
            let Some((_, next)) = present else { break };
            if total > MAX_MESSAGE_BYTES
                || seq >= MAX_MESSAGE_SEQ
                || offset + length > total
                || (length == 0 && total != 0)
                || (!whole && !next.is_empty())
            {
                break;
            }
            body = next;
            let fragment = (seq, offset, length);
            // A server whose HelloVerifyRequest was lost has to see the first hello again.
            if self.server && kind == CLIENT_HELLO && seq == 0 {
                fresh = true;
            } else if !self.seen.contains(&fragment) {
                self.seen.push(fragment);
                added += 1;
                fresh = true;
            }
        }
        if !body.is_empty() {
            // Malformed behind well-formed parts: none of it is fed, so none of it was seen.
            self.seen.truncate(self.seen.len() - added);
            return false;
        }
        let accepted =
            fresh && bytes <= MAX_HANDSHAKE_BYTES && count(&mut self.handshake_records, MAX_HANDSHAKE_RECORDS);
        if accepted {
            self.handshake_bytes = bytes;
        }
        accepted
    }
}

fn count(counter: &mut u16, limit: u16) -> bool {
    let within = *counter < limit;
    if within {
        *counter += 1;
    }
    within
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 0];
        out.extend((body.len() as u16).to_be_bytes());
        out.extend(body);
        out
    }

    fn fragment(kind: u8, total: u32, seq: u16, offset: u32, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend(&total.to_be_bytes()[1..]);
        out.extend(seq.to_be_bytes());
        out.extend(&offset.to_be_bytes()[1..]);
        out.extend(&(body.len() as u32).to_be_bytes()[1..]);
        out.extend(body);
        out
    }

    fn passes(guard: &mut Guard, datagram: &[u8], complete: bool) -> usize {
        let mut out = BytesMut::new();
        guard.filter(datagram, complete, &mut out);
        out.len()
    }

    fn pair() -> (Identity, Dtls, Dtls, Instant) {
        let identity = Identity::generate().unwrap();
        let interval = Duration::from_millis(150);
        let client = Dtls::new(&identity, DtlsRole::Client, interval, true);
        let server = Dtls::new(&identity, DtlsRole::Server, interval, true);
        (identity, client, server, Instant::now())
    }

    fn shake(client: &mut Dtls, server: &mut Dtls, now: Instant) {
        client.start(now);
        for _ in 0..8 {
            while let Some(datagram) = client.poll_transmit() {
                server.handle_input(now, &datagram, drop);
            }
            while let Some(datagram) = server.poll_transmit() {
                client.handle_input(now, &datagram, drop);
            }
        }
    }

    #[test]
    fn both_sides_export_the_same_keys_and_only_for_the_right_fingerprint() {
        let (identity, mut client, mut server, now) = pair();
        shake(&mut client, &mut server, now);
        assert!(client.is_complete() && server.is_complete());
        let right = identity.fingerprint(Setup::Actpass);
        let a = client.srtp_keys(std::slice::from_ref(&right)).unwrap();
        let b = server.srtp_keys(std::slice::from_ref(&right)).unwrap();
        assert_eq!(a.material.as_ref(), b.material.as_ref());
        assert_eq!((a.profile, a.material.len()), (SrtpProfile::AeadAes256Gcm, 88));
        let mut wrong = right;
        wrong.value[0] ^= 1;
        assert_eq!(client.srtp_keys(&[wrong]).unwrap_err(), DtlsFault::FingerprintMismatch);
        assert_eq!(client.srtp_keys(&[]).unwrap_err(), DtlsFault::FingerprintMismatch);
    }

    #[test]
    fn every_hash_that_peers_send_is_compared() {
        let der = b"a certificate";
        for (hash, algorithm) in [
            ("sha-1", &digest::SHA1_FOR_LEGACY_USE_ONLY),
            ("sha-224", &digest::SHA224),
            ("sha-256", &digest::SHA256),
            ("sha-384", &digest::SHA384),
            ("sha-512", &digest::SHA512),
        ] {
            let value = digest::digest(algorithm, der).as_ref().to_vec();
            let fingerprint = Fingerprint { hash: hash.into(), value, setup: None };
            assert!(matching(std::slice::from_ref(&fingerprint), der).is_some(), "{hash}");
            assert!(matching(std::slice::from_ref(&fingerprint), b"another").is_none(), "{hash}");
        }
        let unknown = Fingerprint { hash: "md5".into(), value: vec![0; 16], setup: None };
        assert!(matching(&[unknown], der).is_none());
    }

    #[test]
    fn a_fragment_passes_once_but_the_first_hello_always() {
        let mut server = Guard { server: true, ..Guard::default() };
        let hello = record(HANDSHAKE, 0, &fragment(CLIENT_HELLO, 4, 0, 0, b"abcd"));
        let second = record(HANDSHAKE, 0, &fragment(CLIENT_HELLO, 4, 1, 0, b"abcd"));
        for n in 0..3 {
            assert_eq!(passes(&mut server, &hello, false), hello.len());
            assert_eq!(passes(&mut server, &second, false), if n == 0 { second.len() } else { 0 });
        }
        // Another cut of the same message is new.
        let part = record(HANDSHAKE, 0, &fragment(CLIENT_HELLO, 4, 1, 0, b"ab"));
        assert_eq!(passes(&mut server, &part, false), part.len());
    }

    #[test]
    fn fragments_that_the_engine_mishandles_are_dropped() {
        let mut long = fragment(11, 100, 1, 0, b"abcd");
        long[9..12].copy_from_slice(&[0, 0, 100]);
        for (name, body) in [
            ("declares more than is there", long),
            ("empty part of a message", fragment(11, 100, 1, 0, b"")),
            ("past the end of its message", fragment(11, 4, 1, 2, b"abcd")),
            ("message too large", fragment(11, 16_385, 1, 0, b"abcd")),
            ("message number too high", fragment(11, 4, 16, 0, b"abcd")),
            ("part with another behind it", [fragment(11, 100, 1, 0, b"ab"), fragment(11, 4, 2, 0, b"abcd")].concat()),
            ("cut header", vec![11, 0, 0]),
        ] {
            let mut guard = Guard::default();
            assert_eq!(passes(&mut guard, &record(HANDSHAKE, 0, &body), false), 0, "{name}");
            assert!(guard.seen.is_empty(), "{name}");
        }
        // Two whole messages in one record are legal.
        let both = [fragment(11, 2, 1, 0, b"ab"), fragment(14, 0, 2, 0, b"")].concat();
        assert_ne!(passes(&mut Guard::default(), &record(HANDSHAKE, 0, &both), false), 0);
    }

    #[test]
    fn a_flood_before_completion_costs_bounded_memory() {
        let (_identity, mut client, mut server, now) = pair();
        client.start(now);
        let hello = client.poll_transmit().unwrap();
        server.handle_input(now, &hello, drop);
        let mut grown = 0;
        for round in 0..100_000u32 {
            let junk = match round % 4 {
                0 => record(HANDSHAKE, 1, &[7; 60]),
                1 => record(CHANGE_CIPHER_SPEC, 0, &[1]),
                2 => record(HANDSHAKE, 0, &fragment(11, 9000, (round % 16) as u16, round % 8000, &[7; 1000])),
                _ => record(APPLICATION_DATA, 1, &[7; 1000]),
            };
            grown += allocation_counter::measure(|| {
                server.handle_input(now, &junk, drop);
                while server.poll_transmit().is_some() {}
            })
            .bytes_current;
        }
        assert!(grown < 160 * 1024, "{grown} B");
    }

    #[test]
    fn nothing_in_the_clear_ends_a_complete_association() {
        let (_identity, mut client, mut server, now) = pair();
        shake(&mut client, &mut server, now);
        let mut answers = 0;
        for _ in 0..1000 {
            for body in [record(ALERT, 0, &[2, 40]), record(ALERT, 0, &[1, 0]), record(APPLICATION_DATA, 0, b"x")] {
                assert_eq!(client.handle_input(now, &body, drop), DtlsProgress::None);
            }
            client.handle_input(now, &record(HANDSHAKE, 0, &fragment(2, 1, 1, 0, b"x")), drop);
            while client.poll_transmit().is_some() {
                answers += 1;
            }
        }
        assert!(answers <= 32, "{answers} repetitions of our last flight");
        // The genuine close_notify still counts.
        server.close(now);
        let close = server.poll_transmit().unwrap();
        assert_eq!(client.handle_input(now, &close, drop), DtlsProgress::Closed);
    }

    #[test]
    fn a_fatal_alert_is_believed_after_three_seconds_only() {
        let (_identity, mut client, mut server, now) = pair();
        client.start(now);
        client.handle_input(now, &record(ALERT, 0, &[2, 40]), drop);
        let soon = now + Duration::from_millis(2900);
        assert_eq!(client.handle_timeout(soon), Ok(()));
        let late = now + GRACE;
        assert_eq!(client.handle_timeout(late), Err(DtlsFault::Alert(40)));
        // A handshake that completes meanwhile refutes it.
        let (_identity, mut client, _, now) = pair();
        client.start(now);
        client.handle_input(now, &record(ALERT, 0, &[2, 40]), drop);
        shake(&mut client, &mut server, now);
        assert!(client.is_complete());
        assert_eq!(client.handle_timeout(now + GRACE), Ok(()));
    }

    #[test]
    fn an_unanswered_hello_is_repeated_seven_times_with_growing_pauses() {
        let (_identity, mut client, _server, start) = pair();
        client.start(start);
        let mut sent = Vec::new();
        let mut now = start;
        loop {
            while client.poll_transmit().is_some() {
                sent.push((now - start).as_millis());
            }
            let Some(due) = client.poll_timeout() else { break };
            now = due;
            client.handle_timeout(now).unwrap();
        }
        assert_eq!(sent, [0, 150, 300, 450, 750, 1200, 2100, 3600]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_at_any_time(junk in proptest::collection::vec(any::<u8>(), 0..300), kind in 19u8..26, framed: bool) {
            let (_identity, mut client, mut server, now) = pair();
            let junk = if framed { record(kind, junk.len() as u8 % 3, &junk) } else { junk };
            client.handle_input(now, &junk, drop);
            server.handle_input(now, &junk, drop);
            client.start(now);
            client.handle_input(now, &junk, drop);
            shake(&mut client, &mut server, now);
            client.handle_input(now, &junk, drop);
            server.handle_input(now, &junk, drop);
        }
    }
}

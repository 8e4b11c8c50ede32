//! TLS for signalling: the system's roots with an optional CA file, or one self-signed certificate pinned by its
//! fingerprint. Read RFC 9325, RFC 9266 and RFC 7590 before touching this file.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetup {
    /// The CA file cannot be read or holds no certificate.
    #[error("no certificate can be read from {path}: {why}")]
    CaFile {
        /// As given.
        path: String,
        /// What went wrong.
        why: String,
    },
    /// The file with our own certificate or its key is of no use.
    #[error("no {what} can be read from {path}: {why}")]
    Identity {
        /// `certificate` or `private key`.
        what: &'static str,
        /// As given.
        path: String,
        /// What went wrong.
        why: String,
    },
    /// The library refuses the parts.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
    /// The certificate of the serverless stream cannot be made.
    #[error("no certificate can be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// SHA-256 of a certificate's DER form.
#[must_use]
pub fn certificate_sha256(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Client configuration that trusts the system's roots and, if given, those of a PEM file.
///
/// # Errors
/// [`TlsSetup`]
pub fn client_with_roots(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsSetup> {
    let extra = ca_file.map(ca_certificates).transpose()?.unwrap_or_default();
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider())?;
    Ok(Arc::new(
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth(),
    ))
}

/// The certificates of a PEM file, at least one.
pub(super) fn ca_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetup> {
    let fail = |why: String| TlsSetup::CaFile { path: path.display().to_string(), why };
    let found = CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))?;
    let all = found.collect::<Result<Vec<_>, _>>().map_err(|e| fail(e.to_string()))?;
    if all.is_empty() { Err(fail("it holds no certificate".into())) } else { Ok(all) }
}

/// A certificate of ours that somebody issued, with its key: shown where a peer asks for it, and to whoever connects.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: Arc<PrivateKeyDer<'static>>,
}

impl TlsIdentity {
    /// Reads PEM files: the certificate with its chain, and its key (PKCS #8, PKCS #1 or SEC 1).
    ///
    /// # Errors
    /// [`TlsSetup::Identity`]
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, TlsSetup> {
        let fail = |what, path: &Path, why| TlsSetup::Identity { what, path: path.display().to_string(), why };
        let wrong = |why| fail("certificate", certificate, why);
        let found = CertificateDer::pem_file_iter(certificate).map_err(|e| wrong(e.to_string()))?;
        let chain = found.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(e.to_string()))?;
        if chain.is_empty() {
            return Err(wrong("it holds no certificate".into()));
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| fail("private key", key, e.to_string()))?;
        Ok(Self { chain, key: Arc::new(key) })
    }
}

/// A self-signed certificate for the serverless stream, made once a process.
#[derive(Debug, Clone)]
pub struct SelfSigned {
    certificate: CertificateDer<'static>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl SelfSigned {
    /// Makes a P-256 key and its certificate.
    ///
    /// # Errors
    /// [`TlsSetup::Certificate`]
    pub fn generate() -> Result<Self, TlsSetup> {
        let made = rcgen::generate_simple_self_signed(vec!["offhook.invalid".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        Ok(Self { certificate: made.cert.der().clone(), key: Arc::new(key) })
    }

    /// What the other side pins.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        certificate_sha256(&self.certificate)
    }

    /// Configuration of the side that connects; `pin` is the only certificate it accepts.
    ///
    /// # Errors
    /// [`TlsSetup::Library`]
    pub fn client(&self, pin: [u8; 32]) -> Result<Arc<ClientConfig>, TlsSetup> {
        Ok(Arc::new(
            ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { pin: Some(pin), provider: provider() }))
                .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())?,
        ))
    }

    /// Configuration of the side that listens; `None` accepts any client certificate.
    ///
    /// # Errors
    /// [`TlsSetup::Library`]
    pub fn server(&self, pin: Option<[u8; 32]>) -> Result<Arc<ServerConfig>, TlsSetup> {
        Ok(Arc::new(
            ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_client_cert_verifier(Arc::new(Pinned { pin, provider: provider() }))
                .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())?,
        ))
    }
}

/// What becomes of the signature of a handshake.
type Signed = Result<HandshakeSignatureValid, rustls::Error>;

/// Accepts exactly one certificate by its SHA-256, whatever names and dates it carries.
#[derive(Debug)]
struct Pinned {
    pin: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        match self.pin {
            Some(pin) if pin != certificate_sha256(certificate) => {
                Err(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }
    // A signature is one whichever side made it.
    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        ServerCertVerifier::verify_tls12_signature(self, message, cert, dss)
    }
    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

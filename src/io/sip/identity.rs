//! Whom a certificate stands for in SIP. Read RFC 5922 §7 before touching this file.

use crate::io::tls::{TlsIdentity, TlsSetup, ca_certificates, provider};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::Path;
use std::sync::Arc;
use webpki::EndEntityCert;

/// Trust for connections that we open: the system's roots and, if given, those of a PEM file; our certificate is shown to
/// servers that ask for one.
///
/// # Errors
/// [`TlsSetup`]
pub fn client(ca_file: Option<&Path>, identity: Option<&TlsIdentity>) -> Result<Arc<ClientConfig>, TlsSetup> {
    let extra = ca_file.map(ca_certificates).transpose()?.unwrap_or_default();
    let own = roots(&extra)?;
    let usual = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider())?;
    let verifier = SipVerifier { usual: Arc::new(usual), own, provider: provider() };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Arc::new(match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
        None => builder.with_no_client_auth(),
    }))
}

/// For connections that others open. Their certificates are asked for where `client_ca` says who may issue them, and
/// whoever has none is turned away where they are `required`.
///
/// # Errors
/// [`TlsSetup`]
pub fn server(identity: &TlsIdentity, client_ca: Option<&Path>, required: bool) -> Result<Arc<ServerConfig>, TlsSetup> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        Some(path) => {
            let roots = Arc::new(roots(&ca_certificates(path)?)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
            let built = verifier.build().map_err(|e| Error::General(e.to_string()))?;
            builder.with_client_cert_verifier(built)
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(builder.with_single_cert(identity.chain.clone(), identity.key.clone_key())?))
}

/// SIP domains that a certificate, which is verified already, stands for.
#[must_use]
pub fn domains(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    let by_uri = uri_domains(&certificate);
    // RFC 5922 §7.1: DNS names count if and only if there is no SIP URI.
    if by_uri.is_empty() { certificate.valid_dns_names().map(str::to_ascii_lowercase).collect() } else { by_uri }
}

/// RFC 5922 §7.1: the host of a URI of the scheme `sip` that has no user.
fn uri_domains(certificate: &EndEntityCert<'_>) -> Vec<String> {
    let domain = |uri: &str| {
        let (scheme, rest) = uri.split_once(':')?;
        if !scheme.eq_ignore_ascii_case("sip") || rest.contains('@') {
            return None;
        }
        let host = rest.split([';', '?', ':']).next()?.trim_end_matches('.');
        (!host.is_empty()).then(|| host.to_ascii_lowercase())
    };
    certificate.valid_uri_names().filter_map(domain).collect()
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    Ok(roots)
}

/// What becomes of the signature of a handshake.
type Signed = Result<HandshakeSignatureValid, Error>;

/// The usual rules, and the identities of RFC 5922.
#[derive(Debug)]
struct SipVerifier {
    usual: Arc<dyn ServerCertVerifier>,
    /// Roots of the CA file.
    own: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl SipVerifier {
    /// The certificate names its domain by a SIP URI: only its chain is left to be checked.
    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(any) = EndEntityCert::try_from(end_entity)
            .ok()
            .and_then(|c| c.valid_dns_names().find_map(|name| ServerName::try_from(name.to_owned()).ok()))
        {
            // It has a DNS name too: checked for that one, everything but the name is shown to be good.
            return self.usual.verify_server_cert(end_entity, intermediates, &any, &[], now);
        }
        // Certificates with a SIP URI alone come from CAs of one's own.
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.own, intermediates, now, algorithms)
            .map(|()| ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for SipVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by_uri = EndEntityCert::try_from(end_entity).map(|c| uri_domains(&c)).unwrap_or_default();
        // RFC 5922 §7.1: with a SIP URI, DNS names do not count.
        if let ServerName::DnsName(name) = server_name
            && !by_uri.is_empty()
        {
            let asked = name.as_ref().trim_end_matches('.').to_ascii_lowercase();
            return if by_uri.contains(&asked) {
                self.verify_chain(end_entity, intermediates, now)
            } else {
                Err(CertificateError::NotValidForName.into())
            };
        }
        // A wildcard counts, as certificates of hosted PBXs have them; RFC 5922 §7.2 would have it refused.
        self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }
    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        self.usual.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        self.usual.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

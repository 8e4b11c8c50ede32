//! STUN client transactions and the messages they carry.
//! Read RFC 8489 §6.2.1, §6.3 and §9.2 before touching this file.

use std::time::Duration;

/// Retransmission of one request over UDP, RFC 8489 §6.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StunTimers {
    /// First interval; doubles with each request. At least 500 ms on an unknown path.
    pub rto: Duration,
    /// Requests sent at most (`Rc`).
    pub requests: u32,
    /// Silence after the last request, in units of `rto` (`Rm`).
    pub last_wait_rtos: u32,
}

impl Default for StunTimers {
    /// The RFC's values: sends at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s, fails at 39.5 s.
    fn default() -> Self {
        Self { rto: Duration::from_millis(500), requests: 7, last_wait_rtos: 16 }
    }
}

/// Why a STUN or TURN server is of no use, in words fit for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerFault {
    /// No answer to any request.
    #[error("no answer")]
    Timeout,
    /// The server asks for credentials and none are known (401).
    #[error("it wants a user name and password")]
    NoCredentials,
    /// The user name or password is wrong, or expired (401 to a request with a fresh nonce).
    #[error("user name or password are wrong or expired")]
    WrongCredentials,
    /// 403
    #[error("forbidden by its administrator")]
    Forbidden,
    /// The server forgot the allocation, or has another one for this address (437).
    #[error("the allocation does not exist there (any more)")]
    AllocationMismatch,
    /// 440 or 443
    #[error("no relay address of this family")]
    AddressFamily,
    /// 442
    #[error("it does not relay UDP")]
    UnsupportedTransport,
    /// Too many allocations of this user (486).
    #[error("allocation quota of this user is used up")]
    QuotaReached,
    /// 508
    #[error("it has no capacity left")]
    InsufficientCapacity,
    /// It keeps calling every nonce stale (438).
    #[error("it refuses every nonce it gives")]
    StaleNonce,
    /// It sends us elsewhere (300), which is not followed.
    #[error("it sends us to another server")]
    TryAlternate,
    /// Any other error code.
    #[error("it answered {code}")]
    Refused {
        /// RFC 8489 §14.8: 300 to 699.
        code: u16,
    },
    /// The answer lacks what it must hold.
    #[error("its answer is not usable: {0}")]
    BadAnswer(&'static str),
}

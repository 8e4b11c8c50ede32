//! Where datagrams go, which sources are believed, and when a path is dead.
//! Read RFC 8445 §2, RFC 7675 §5.1 and RFC 8828 §6.1 before touching this file.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// One datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Socket to send from: an address that the shell bound.
    pub local: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// UDP payload.
    pub contents: Vec<u8>,
}

/// Where a datagram goes whose bytes are elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Socket to send from: an address that the shell bound.
    pub local: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
}

/// Both ends of a path as ICE names them: `local` may be a relayed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// Our end: host address or relayed address.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

/// Paths on which the peer has proved that it holds our ICE password.
///
/// Nothing but STUN is looked at from anywhere else: a ClientHello or an alert from a stranger who guessed the port
/// would otherwise win the race for the DTLS association (CVE-2023-49786 class).
#[derive(Debug, Default)]
pub struct ProvenPaths {
    paths: Vec<Path>,
}

/// Proven paths of one leg; past it the oldest one that is not in use is forgotten. Four interfaces on each side and
/// a few NAT rebindings fit.
const MAX_PROVEN: usize = 32;

impl ProvenPaths {
    /// True if the peer has proved itself on this path.
    #[must_use]
    pub fn contains(&self, path: Path) -> bool {
        self.paths.contains(&path)
    }

    /// Remembers a path on which a STUN message passed its integrity check.
    pub fn insert(&mut self, path: Path, in_use: Option<Path>) {
        if self.paths.contains(&path) {
            return;
        }
        if self.paths.len() >= MAX_PROVEN
            && let Some(oldest) = self.paths.iter().position(|known| Some(*known) != in_use)
        {
            self.paths.remove(oldest);
        }
        self.paths.push(path);
    }

    /// True while the peer has proved itself nowhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Forgets all but `keep`, as an ICE restart does.
    pub fn reset(&mut self, keep: Option<Path>) {
        self.paths.retain(|known| Some(*known) == keep);
    }
}

/// Permission to send, RFC 7675 §5.1: it lasts 30 s from the last authenticated answer to one of our checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consent {
    answers: u64,
    expires: Instant,
}

/// RFC 7675 §5.1: "consent expires after 30 seconds".
pub const CONSENT: Duration = Duration::from_secs(30);

impl Consent {
    /// Consent given at `now`, when a pair was nominated.
    #[must_use]
    pub fn new(now: Instant, answers: u64) -> Self {
        Self { answers, expires: now + CONSENT }
    }

    /// Renews consent if the number of `answers` on the nominated pair has changed.
    pub fn observe(&mut self, now: Instant, answers: u64) {
        if answers != self.answers {
            self.answers = answers;
            self.expires = now + CONSENT;
        }
    }

    /// When sending must stop.
    #[must_use]
    pub fn expires(&self) -> Instant {
        self.expires
    }
}

/// Why an address is never sent to, whoever asks (threat: candidate injection).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressFault {
    /// Would reach services of this machine.
    #[error("a loopback address")]
    Loopback,
    /// Would reach many hosts with one datagram.
    #[error("a multicast or broadcast address")]
    Multicast,
    /// `0.0.0.0` or `::`
    #[error("an unspecified address")]
    Unspecified,
    /// Means nothing without an interface, which signalling does not carry.
    #[error("a link-local address")]
    LinkLocal,
    /// Port 0 cannot be sent to.
    #[error("port 0")]
    NoPort,
}

/// Checks an address that a peer asks us to send to. `lab` allows loopback and link-local ones; `link_local_v4`
/// allows 169.254/16, for a machine that has such an address itself.
///
/// # Errors
/// Why it is refused.
pub fn check_remote(addr: SocketAddr, lab: bool, link_local_v4: bool) -> Result<(), AddressFault> {
    if addr.port() == 0 {
        return Err(AddressFault::NoPort);
    }
    // A v4 address in v6 clothing is judged as what it reaches.
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() || ip.octets().first() == Some(&0) => Err(AddressFault::Unspecified),
        IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => Err(AddressFault::Multicast),
        IpAddr::V4(ip) if ip.is_loopback() && !lab => Err(AddressFault::Loopback),
        IpAddr::V4(ip) if ip.is_link_local() && !lab && !link_local_v4 => Err(AddressFault::LinkLocal),
        IpAddr::V4(_) => Ok(()),
        IpAddr::V6(ip) if ip.is_unspecified() => Err(AddressFault::Unspecified),
        IpAddr::V6(ip) if ip.is_multicast() => Err(AddressFault::Multicast),
        IpAddr::V6(ip) if ip.is_loopback() && !lab => Err(AddressFault::Loopback),
        IpAddr::V6(ip) if ip.is_unicast_link_local() && !lab => Err(AddressFault::LinkLocal),
        IpAddr::V6(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_that_reach_this_machine_or_many_are_refused() {
        for (text, fault) in [
            ("127.0.0.1:5000", AddressFault::Loopback),
            ("127.8.9.1:5000", AddressFault::Loopback),
            ("[::1]:5000", AddressFault::Loopback),
            ("[::ffff:127.0.0.1]:5000", AddressFault::Loopback),
            ("224.0.0.1:5000", AddressFault::Multicast),
            ("239.255.255.250:1900", AddressFault::Multicast),
            ("255.255.255.255:9", AddressFault::Multicast),
            ("[ff02::fb]:5353", AddressFault::Multicast),
            ("0.0.0.0:5000", AddressFault::Unspecified),
            ("0.1.2.3:5000", AddressFault::Unspecified),
            ("[::]:5000", AddressFault::Unspecified),
            ("169.254.1.1:5000", AddressFault::LinkLocal),
            ("[fe80::1]:5000", AddressFault::LinkLocal),
            ("192.0.2.1:0", AddressFault::NoPort),
        ] {
            assert_eq!(check_remote(addr(text), false, false), Err(fault), "{text}");
        }
        for text in ["192.168.1.4:5000", "10.0.0.1:1", "[fd00::1]:5000", "203.0.113.9:65535"] {
            assert_eq!(check_remote(addr(text), false, false), Ok(()), "{text}");
        }
        assert_eq!(check_remote(addr("127.0.0.1:5000"), true, false), Ok(()));
        assert_eq!(check_remote(addr("169.254.1.1:5000"), false, true), Ok(()));
        assert_eq!(check_remote(addr("224.0.0.1:5000"), true, true), Err(AddressFault::Multicast));
    }

    #[test]
    fn the_path_in_use_is_never_forgotten() {
        let mut proven = ProvenPaths::default();
        let path = |port| Path { local: addr("192.0.2.1:1"), remote: SocketAddr::from(([192, 0, 2, 2], port)) };
        proven.insert(path(1), None);
        for port in 2..200 {
            proven.insert(path(port), Some(path(1)));
        }
        assert!(proven.contains(path(1)));
        assert!(proven.contains(path(199)));
        assert!(!proven.contains(path(2)));
        assert!(proven.paths.len() <= MAX_PROVEN);
    }
}

//! What requests of ours have in common. Read RFC 3261 §8.1.1 before touching this file.

use crate::config::SipRefresh;
use crate::wire::sip::{CallId, Host, NameAddr, Params, SipUri, Status, Tag};
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;
use std::net::Ipv4Addr;
use std::time::Duration;

/// 64 random bits: a tag or Call-ID that nobody guesses (RFC 3261 §19.3).
pub(super) fn word(rng: &mut ChaCha20Rng) -> String {
    format!("{:016x}", rng.next_u64())
}

/// A tag.
pub(super) fn tag(rng: &mut ChaCha20Rng) -> Tag {
    Tag::lossy(&word(rng))
}

/// A Call-ID; without a host, which would tell an address.
pub(super) fn call_id(rng: &mut ChaCha20Rng) -> CallId {
    CallId::lossy(&word(rng))
}

/// An address of ours for the carrier to complete: `sip:user@local.invalid`.
pub(super) fn local_contact(user: &str) -> NameAddr {
    let host = Host::new(super::exchange::LOCAL_HOST).unwrap_or(Host::Ip(Ipv4Addr::UNSPECIFIED.into()));
    NameAddr::new(SipUri::new(Some(user), host).into())
}

/// The value of a parameter in seconds.
pub(super) fn seconds(params: &Params, name: &str) -> Option<u32> {
    params.find(name).and_then(|text| text.trim().parse().ok())
}

/// True where trying the same again later may help: the network or the server is at fault, not the request
/// (RFC 3261 §21.5; 408, 480 and 491 are of that kind too).
pub(super) fn may_pass(status: Status) -> bool {
    matches!(status.code(), 408 | 429 | 480 | 491 | 500 | 502..=504)
}

/// The wait after so many failures in a row: doubled each time, and 50 to 100 % of that (RFC 5626 §4.5); not less than the
/// other side asked for.
pub(super) fn backoff(refresh: &SipRefresh, failures: u32, asked: Option<Duration>, rng: &mut ChaCha20Rng) -> Duration {
    let longest = refresh.backoff.saturating_mul(1 << failures.min(16)).min(refresh.backoff_longest);
    let percent = 50 + rng.next_u32() % 51;
    (longest / 100 * percent).max(asked.unwrap_or_default().min(refresh.longest))
}

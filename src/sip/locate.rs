//! Where the next hop of a request is. Read RFC 3263 §4, RFC 2782 and RFC 7118 §7 before touching this file.

use super::exchange::Transport;
use crate::wire::sip::{Host, SipUri};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What DNS is asked. Names are lower-cased and have no dot at their end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// NAPTR records of a domain.
    Naptr(String),
    /// SRV records of `_sip._udp.example.com` and its like.
    Srv(String),
    /// A and AAAA records of a host.
    Addresses(String),
}

/// One NAPTR record, RFC 3403 §4.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naptr {
    /// Lower first.
    pub order: u16,
    /// Lower first among those of the same order.
    pub preference: u16,
    /// `s` where `replacement` is the name of SRV records.
    pub flags: String,
    /// `SIP+D2U`, `SIPS+D2T`, …
    pub service: String,
    /// Empty in records for SIP.
    pub regexp: String,
    /// A name.
    pub replacement: String,
}

/// One SRV record, RFC 2782.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// Lower first.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Host name; empty for the root, which says that there is no such service.
    pub target: String,
}

/// What DNS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    /// How long it may be remembered.
    pub ttl: Duration,
    /// What was found.
    pub found: Found,
}

/// The records of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// To [`Query::Naptr`].
    Naptr(Vec<Naptr>),
    /// To [`Query::Srv`].
    Srv(Vec<Srv>),
    /// To [`Query::Addresses`], in the order they are to be tried in.
    Addresses(Vec<IpAddr>),
    /// There is no such record.
    Nothing,
    /// No server answered; asking again later may help.
    Failed,
}

/// The next hop of a request as its URI names it: outbound proxy, topmost Route, or Request-URI (RFC 3261 §8.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// `sips:`: nothing but TLS.
    pub secure: bool,
    /// Name or address; `maddr` where the URI has one.
    pub host: Host,
    /// Explicit port.
    pub port: Option<u16>,
    /// `transport` parameter.
    pub transport: Option<Transport>,
}

impl Hop {
    /// What a URI says. `None` where it wants a transport that is not ours, such as SCTP, or UDP with `sips:`.
    #[must_use]
    pub fn of(uri: &SipUri) -> Option<Self> {
        // RFC 3261 §26.2.2: `sips` with `tcp` is TLS over TCP; `tls` as a transport is deprecated and meant all the same.
        let transport = match (uri.params.find("transport"), uri.secure) {
            (None, _) => None,
            (Some(name), false) if name.eq_ignore_ascii_case("udp") => Some(Transport::Udp),
            (Some(name), false) if name.eq_ignore_ascii_case("tcp") => Some(Transport::Tcp),
            (Some(name), true) if name.eq_ignore_ascii_case("tcp") => Some(Transport::Tls),
            (Some(name), _) if name.eq_ignore_ascii_case("tls") => Some(Transport::Tls),
            (Some(name), false) if name.eq_ignore_ascii_case("ws") => Some(Transport::Ws),
            (Some(name), true) if name.eq_ignore_ascii_case("ws") => Some(Transport::Wss),
            // No RFC has it, people write it.
            (Some(name), _) if name.eq_ignore_ascii_case("wss") => Some(Transport::Wss),
            (Some(_), _) => return None,
        };
        let host = match uri.params.find("maddr") {
            Some(maddr) => Host::new(maddr)?,
            None => uri.host.clone(),
        };
        Some(Self { secure: uri.secure, host, port: uri.port, transport })
    }
}

/// One place to send a request to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// How.
    pub transport: Transport,
    /// Where.
    pub remote: SocketAddr,
    /// The domain that was asked for, which is the one that a certificate must be for (RFC 5922 §4). Empty for UDP and TCP,
    /// so that their connections are shared.
    pub name: String,
}

/// Outcome of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// As given.
    pub key: u64,
    /// To be tried one after the other (RFC 3263 §4.3); empty: there is none (RFC 3261 §8.1.3.1: as if 503).
    pub targets: Vec<Target>,
}

//! The one gate that every request from outside passes, whatever its method. Read RFC 3261 §22 and §26.1 before touching
//! this file.
//!
//! A From header proves nothing. What counts is where a request came from (the registrar has looked at its sender, and
//! sends what is for us) or what it proves by digest.

use super::auth::{Authenticator, AuthenticatorConfig, Verdict};
use super::exchange::{Origin, Transport};
use crate::config::Secret;
use crate::wire::sip::{Header, Method, Request, Status, Uri};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Addresses of registrars and proxies that are remembered; a name resolves to a few.
const SERVERS: usize = 16;

/// Whose calls, messages and subscriptions are taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Callers {
    /// Everybody's that come by the registrar or proxy of the account.
    #[default]
    Registrar,
    /// Those of them whose From is one of these: `user@host`, as [`address_of`] writes it.
    Contacts(BTreeSet<String>),
    /// Everybody's, from anywhere: for direct calls without a registrar.
    Everyone,
}

/// What is let in.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Who.
    pub callers: Callers,
    /// Further addresses that are as good as the registrar's: trunks, other nodes of a PBX.
    pub trusted: BTreeSet<IpAddr>,
    /// Whoever proves to be one of these is let in from anywhere; others are challenged instead of refused.
    pub users: BTreeMap<String, Secret>,
    /// Told to those who are challenged.
    pub realm: String,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// It is let in.
    Granted {
        /// It came from where the registrar is, so that what it says of others may be believed.
        trusted: bool,
    },
    /// It is answered so.
    Refused(Status, Vec<Header>),
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    policy: Policy,
    authenticator: Authenticator,
    /// Where answers of the registrar came from, the latest last.
    servers: VecDeque<(Transport, SocketAddr)>,
}

impl Gate {
    /// Nobody known yet.
    #[must_use]
    pub fn new(now: Instant, seed: [u8; 32], policy: Policy) -> Self {
        let authenticator = Authenticator::new(now, seed, AuthenticatorConfig::new(&policy.realm));
        Self { policy, authenticator, servers: VecDeque::new() }
    }

    /// Another policy from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// A registrar that took our registration answered from here.
    pub fn learn(&mut self, origin: Origin) {
        let server = (origin.transport, origin.source);
        self.servers.retain(|known| *known != server);
        self.servers.push_back(server);
        if self.servers.len() > SERVERS {
            self.servers.pop_front();
        }
    }

    /// True where the registrar is. With UDP the port counts: other programs of that machine are not the registrar. A
    /// connection has a port of its own each time, and cannot be forged from another address.
    #[must_use]
    pub fn trusts(&self, origin: &Origin) -> bool {
        let ip = origin.source.ip().to_canonical();
        self.policy.trusted.contains(&ip)
            || self.servers.iter().any(|(transport, server)| match origin.transport {
                Transport::Udp => *transport == Transport::Udp && *server == origin.source,
                Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                    server.ip().to_canonical() == ip && transport_rank(origin.transport) >= transport_rank(*transport)
                }
            })
    }

    /// Looks at a request outside any dialog. OPTIONS is let in always: it is how others see that we are alive
    /// (RFC 3261 §11). A request for an unknown method is refused like one for a known.
    pub fn check(&mut self, now: Instant, request: &Request, origin: &Origin) -> Passage {
        let trusted = self.trusts(origin);
        if request.method == Method::Options {
            return Passage::Granted { trusted };
        }
        let granted = match &self.policy.callers {
            Callers::Everyone => true,
            Callers::Registrar => trusted,
            Callers::Contacts(contacts) => {
                trusted && address_of(&request.headers.from.uri).is_some_and(|from| contacts.contains(&from))
            }
        };
        if granted {
            return Passage::Granted { trusted };
        }
        // Who comes by the registrar and is no contact is not asked for a password of ours.
        if self.policy.users.is_empty() || trusted {
            return Passage::Refused(Status::FORBIDDEN, Vec::new());
        }
        let users = &self.policy.users;
        match self.authenticator.verify(now, request, |user| users.get(user).cloned()) {
            Verdict::Proved(_) => Passage::Granted { trusted: false },
            Verdict::Challenge { stale } => {
                Passage::Refused(Status::UNAUTHORIZED, self.authenticator.challenge(now, stale))
            }
        }
    }
}

/// `user@host`, the host lower-cased, without port and parameters; `None` for other schemes and without a user.
#[must_use]
pub fn address_of(uri: &Uri) -> Option<String> {
    let sip = uri.as_sip()?;
    Some(format!("{}@{}", sip.user.as_ref()?, sip.host))
}

/// Who registers by TLS is not called in clear.
fn transport_rank(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 0,
        Transport::Tcp | Transport::Ws => 1,
        Transport::Tls | Transport::Wss => 2,
    }
}

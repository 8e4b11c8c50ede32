//! Where the next hop of a request is. Read RFC 3263 §4, RFC 2782 and RFC 7118 §5.3 before touching this file.

mod plan;

use super::exchange::Transport;
use crate::config::SipLocateLimits;
use crate::wire::sip::{Host, SipUri};
use plan::{Answers, plan};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

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

impl Target {
    /// The same place by another transport: TCP for a request that is too long for a datagram (RFC 3261 §18.1.1).
    #[must_use]
    pub fn over(&self, transport: Transport) -> Self {
        Self { transport, remote: self.remote, name: self.name.clone() }
    }
}

/// Outcome of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// As given.
    pub key: u64,
    /// To be tried one after the other (RFC 3263 §4.3); empty: there is none (RFC 3261 §8.1.3.1: as if 503).
    pub targets: Vec<Target>,
}

/// Finds places to send requests to.
///
/// ```text
///   locate ─▶ answers known? ──no──▶ queries ─▶ handle_answer ─┐
///                 ▲    │ yes                                   │
///                 │    └─────▶ Located: servers in order, dead ones last
///                 └────────────────────────────────────────────┘
/// ```
#[derive(Debug)]
pub struct Locator {
    limits: SipLocateLimits,
    rng: ChaCha20Rng,
    searches: BTreeMap<u64, Search>,
    /// Until when, and what.
    cache: BTreeMap<Query, (Instant, Found)>,
    /// Questions that the shell has, and when it is waited for no more.
    asked: BTreeMap<Query, Instant>,
    dead: BTreeMap<(Transport, SocketAddr), Instant>,
    queries: VecDeque<Query>,
    located: VecDeque<Located>,
}

#[derive(Debug)]
struct Search {
    hop: Hop,
    /// Kept until the end, so that what expires meanwhile is not asked for again.
    answers: Answers,
}

impl Locator {
    /// Knows nothing yet. The seed decides between servers of the same priority.
    #[must_use]
    pub fn new(seed: [u8; 32], limits: SipLocateLimits) -> Self {
        Self {
            limits,
            rng: ChaCha20Rng::from_seed(seed),
            searches: BTreeMap::new(),
            cache: BTreeMap::new(),
            asked: BTreeMap::new(),
            dead: BTreeMap::new(),
            queries: VecDeque::new(),
            located: VecDeque::new(),
        }
    }

    /// Begins a search. It may be over at once: look at [`Locator::poll_located`] as well as at [`Locator::poll_query`].
    pub fn locate(&mut self, now: Instant, key: u64, hop: &Hop) {
        if self.searches.len() >= self.limits.searches && !self.searches.contains_key(&key) {
            self.located.push_back(Located { key, targets: Vec::new() });
            return;
        }
        self.searches.insert(key, Search { hop: hop.clone(), answers: Answers::default() });
        self.advance(now, key);
    }

    /// The outcome is not wanted any more.
    pub fn cancel(&mut self, key: u64) {
        self.searches.remove(&key);
        self.located.retain(|it| it.key != key);
    }

    /// The next question.
    pub fn poll_query(&mut self) -> Option<Query> {
        self.queries.pop_front()
    }

    /// What DNS says. Answers that nobody asked for are not looked at.
    pub fn handle_answer(&mut self, now: Instant, query: &Query, records: Records) {
        if self.asked.remove(query).is_none() {
            return;
        }
        let mut found = records.found;
        let longest = match &mut found {
            Found::Naptr(all) => {
                all.sort_by_key(|r| (r.order, r.preference));
                all.truncate(self.limits.records);
                self.limits.longest_ttl
            }
            Found::Srv(all) => {
                all.sort_by_key(|r| (r.priority, r.weight));
                all.truncate(self.limits.records);
                self.limits.longest_ttl
            }
            Found::Addresses(all) => {
                all.truncate(self.limits.records);
                self.limits.longest_ttl
            }
            Found::Nothing => self.limits.nothing_ttl,
            Found::Failed => self.limits.failed_ttl,
        };
        // No TTL comes with an answer that never came.
        let ttl = if found == Found::Failed { longest } else { records.ttl.min(longest) };
        self.remember(now, query, ttl, &found);
        let mut waiting = Vec::new();
        for (key, search) in &mut self.searches {
            if search.answers.waits_for(query) {
                search.answers.insert(query.clone(), found.clone());
                waiting.push(*key);
            }
        }
        for key in waiting {
            self.advance(now, key);
        }
    }

    /// The next search that is over.
    pub fn poll_located(&mut self) -> Option<Located> {
        self.located.pop_front()
    }

    /// A place did not answer, refused, or said 503: it comes last for `time`, by default a minute, as long as there are
    /// others (RFC 3263 §4.3; RFC 3261 §21.5.4 for `Retry-After`).
    pub fn mark_dead(&mut self, now: Instant, target: &Target, time: Option<Duration>) {
        self.dead.retain(|_, until| *until > now);
        if self.dead.len() >= self.limits.dead {
            let soonest = self.dead.iter().min_by_key(|(_, until)| **until).map(|(place, _)| *place);
            self.dead.retain(|place, _| Some(*place) != soonest);
        }
        // A server cannot ask to be forgotten for ever.
        let time = time.unwrap_or(self.limits.dead_for).min(self.limits.longest_ttl);
        self.dead.insert((target.transport, target.remote), now + time);
    }

    /// A place answered.
    pub fn mark_alive(&mut self, target: &Target) {
        self.dead.remove(&(target.transport, target.remote));
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<Query> = self.asked.iter().filter(|(_, by)| **by <= now).map(|(q, _)| q.clone()).collect();
        for query in late {
            self.handle_answer(now, &query, Records { ttl: Duration::ZERO, found: Found::Failed });
        }
    }

    /// When `handle_timeout` is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asked.values().min().copied()
    }

    fn remember(&mut self, now: Instant, query: &Query, ttl: Duration, found: &Found) {
        if ttl.is_zero() {
            return;
        }
        if self.cache.len() >= self.limits.cache {
            self.cache.retain(|_, (until, _)| *until > now);
        }
        if self.cache.len() >= self.limits.cache {
            let soonest = self.cache.iter().min_by_key(|(_, (until, _))| *until).map(|(query, _)| query.clone());
            self.cache.retain(|query, _| Some(query) != soonest.as_ref());
        }
        self.cache.insert(query.clone(), (now + ttl, found.clone()));
    }

    /// Goes on with a search as far as the answers reach.
    fn advance(&mut self, now: Instant, key: u64) {
        let Some(search) = self.searches.get_mut(&key) else { return };
        let places = loop {
            let missing = match plan(&search.hop, &mut search.answers) {
                Ok(places) => break places,
                Err(missing) => missing,
            };
            let mut waits = false;
            for query in missing {
                if let Some((_, found)) = self.cache.get(&query).filter(|(until, _)| *until > now) {
                    search.answers.insert(query, found.clone());
                } else if search.answers.asked() >= self.limits.queries {
                    search.answers.insert(query, Found::Nothing);
                } else {
                    waits = true;
                    search.answers.wait_for(query.clone());
                    if !self.asked.contains_key(&query) {
                        self.asked.insert(query.clone(), now + self.limits.answer);
                        self.queries.push_back(query);
                    }
                }
            }
            if waits {
                return;
            }
        };
        let hop = self.searches.remove(&key).map(|search| search.hop);
        let name = match hop.map(|hop| hop.host) {
            Some(Host::Name(name)) => String::from(&*name),
            Some(Host::Ip(ip)) => ip.to_string(),
            None => String::new(),
        };
        let mut seen = BTreeSet::new();
        let mut targets: Vec<Target> = places
            .order(&mut self.rng)
            .into_iter()
            .filter(|place| seen.insert(*place))
            .map(|(transport, remote)| {
                let named = match transport {
                    Transport::Udp | Transport::Tcp => false,
                    Transport::Tls | Transport::Ws | Transport::Wss => true,
                };
                Target { transport, remote, name: if named { name.clone() } else { String::new() } }
            })
            .collect();
        let dead = &self.dead;
        targets.sort_by_key(|t| dead.get(&(t.transport, t.remote)).is_some_and(|until| *until > now));
        targets.truncate(self.limits.targets);
        self.located.push_back(Located { key, targets });
    }
}

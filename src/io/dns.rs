//! What DNS knows: where an XMPP domain listens, and the records by which SIP finds its servers. Read RFC 6120 §3.2,
//! XEP-0368, RFC 2782 and RFC 3263 before touching this file.

use crate::sip::locate::{Found, Naptr, Query, Records, Srv};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// One place where a server may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS from the first byte (XEP-0368) instead of STARTTLS.
    pub direct_tls: bool,
}

/// Port of RFC 6120 §3.2.2.
const C2S_PORT: u16 = 5222;
/// A resolver that does not answer must not delay the fallback for long.
const LOOKUP_LIMIT: Duration = Duration::from_secs(4);
/// What the system's resolver says comes without a time to live.
const SYSTEM_TTL: Duration = Duration::from_secs(60);

/// One SRV record with the service it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    priority: u16,
    weight: u16,
    target: Target,
}

/// Looks up names with the system's configuration, or with servers that were named.
#[derive(Clone)]
pub struct Dns {
    resolver: Option<TokioResolver>,
    /// The hosts file and the system's own resolver are asked first.
    system: bool,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").field("configured", &self.resolver.is_some()).finish()
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self::new()
    }
}

impl Dns {
    /// Reads the system's configuration. A machine without one still resolves through the hosts file.
    #[must_use]
    pub fn new() -> Self {
        let resolver = TokioResolver::builder_tokio().ok().and_then(|b| b.build().ok());
        Self { resolver, system: true }
    }

    /// Asks these servers over UDP and nothing else: no hosts file, no system configuration. None given: [`Dns::new`].
    #[must_use]
    pub fn with_servers(servers: &[SocketAddr]) -> Self {
        if servers.is_empty() {
            return Self::new();
        }
        let named = servers.iter().map(|server| {
            let mut connection = ConnectionConfig::udp();
            connection.port = server.port();
            NameServerConfig::new(server.ip(), true, vec![connection])
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), named.collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        Self { resolver: builder.build().ok(), system: false }
    }

    /// Places to try for the client service of `domain`, in order, RFC 6120 §3.2.1: `_xmpps-client` and `_xmpp-client`
    /// mixed by priority and weight (XEP-0368 §3), the plain host when there is no record, nothing when the domain
    /// says with a `.` that it has no such service. `roll` gives random numbers for the weights.
    pub async fn client_targets(&self, domain: &str, roll: &mut (dyn FnMut() -> u32 + Send)) -> Vec<Target> {
        let ascii = domain.trim_end_matches('.');
        let (plain, direct) =
            tokio::join!(self.srv("_xmpp-client._tcp", ascii, false), self.srv("_xmpps-client._tcp", ascii, true));
        // A `.` for direct TLS alone says nothing of STARTTLS.
        let unknown = plain.is_none();
        let mut records = plain.unwrap_or_default();
        records.extend(direct.unwrap_or_default());
        if unknown && records.is_empty() {
            return vec![Target { host: ascii.to_owned(), port: C2S_PORT, direct_tls: false }];
        }
        order(records, roll)
    }

    /// `None`: no record at all.
    async fn srv(&self, service: &str, domain: &str, direct_tls: bool) -> Option<Vec<Record>> {
        let resolver = self.resolver.as_ref()?;
        let name = format!("{service}.{domain}.");
        let answer = tokio::time::timeout(LOOKUP_LIMIT, resolver.srv_lookup(name)).await.ok()?.ok()?;
        let records = answer
            .answers()
            .iter()
            .filter_map(|record| {
                let RData::SRV(srv) = &record.data else { return None };
                (!srv.target.is_root()).then(|| Record {
                    priority: srv.priority,
                    weight: srv.weight,
                    target: Target {
                        host: srv.target.to_utf8().trim_end_matches('.').to_owned(),
                        port: srv.port,
                        direct_tls,
                    },
                })
            })
            .collect();
        Some(records)
    }

    /// Answers one question of `sip/locate`.
    pub async fn look_up(&self, query: &Query) -> Records {
        match query {
            Query::Naptr(name) => self.records(name, RecordType::NAPTR, naptr_of).await,
            Query::Srv(name) => self.records(name, RecordType::SRV, srv_of).await,
            Query::Addresses(name) => self.address_records(name).await,
        }
    }

    async fn records<T>(&self, name: &str, kind: RecordType, read: fn(&RData) -> Option<T>) -> Records
    where
        Found: From<Vec<T>>,
    {
        let Some(resolver) = self.resolver.as_ref() else { return failed() };
        match tokio::time::timeout(LOOKUP_LIMIT, resolver.lookup(format!("{name}."), kind)).await {
            Ok(Ok(answer)) => {
                let all: Vec<T> = answer.answers().iter().filter_map(|record| read(&record.data)).collect();
                Records { ttl: ttl_of(&answer), found: if all.is_empty() { Found::Nothing } else { all.into() } }
            }
            Ok(Err(why)) => failure(&why),
            Err(_) => failed(),
        }
    }

    async fn address_records(&self, name: &str) -> Records {
        if self.system
            && let Ok(Ok(answer)) = tokio::time::timeout(LOOKUP_LIMIT, tokio::net::lookup_host((name, 0))).await
        {
            let found: Vec<SocketAddr> = answer.collect();
            if !found.is_empty() {
                // The system puts them in the order of RFC 6724: what has no route comes last.
                return Records { ttl: SYSTEM_TTL, found: unique(found.iter().map(SocketAddr::ip)).into() };
            }
        }
        let Some(resolver) = self.resolver.as_ref() else { return failed() };
        match tokio::time::timeout(LOOKUP_LIMIT, resolver.lookup_ip(format!("{name}."))).await {
            Ok(Ok(answer)) => {
                let addresses: Vec<SocketAddr> = answer.iter().map(|ip| SocketAddr::new(ip, 0)).collect();
                let all = unique(interleave(&addresses).iter().map(SocketAddr::ip));
                let found = if all.is_empty() { Found::Nothing } else { all.into() };
                Records { ttl: ttl_of(answer.as_lookup()), found }
            }
            Ok(Err(why)) => failure(&why),
            Err(_) => failed(),
        }
    }

    /// Addresses of a host: a literal, the hosts file, then DNS. IPv6 and IPv4 alternate (RFC 8305 §4).
    pub async fn addresses(&self, host: &str, port: u16) -> Vec<SocketAddr> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return vec![SocketAddr::new(ip, port)];
        }
        let mut found: Vec<SocketAddr> = Vec::new();
        if self.system
            && let Ok(Ok(answer)) = tokio::time::timeout(LOOKUP_LIMIT, tokio::net::lookup_host((host, port))).await
        {
            found.extend(answer);
        }
        if found.is_empty()
            && let Some(resolver) = &self.resolver
            && let Ok(Ok(answer)) = tokio::time::timeout(LOOKUP_LIMIT, resolver.lookup_ip(format!("{host}."))).await
        {
            found.extend(answer.iter().map(|ip| SocketAddr::new(ip, port)));
        }
        interleave(&found)
    }
}

impl From<Vec<Naptr>> for Found {
    fn from(all: Vec<Naptr>) -> Self {
        Self::Naptr(all)
    }
}

impl From<Vec<Srv>> for Found {
    fn from(all: Vec<Srv>) -> Self {
        Self::Srv(all)
    }
}

impl From<Vec<IpAddr>> for Found {
    fn from(all: Vec<IpAddr>) -> Self {
        Self::Addresses(all)
    }
}

fn naptr_of(data: &RData) -> Option<Naptr> {
    let RData::NAPTR(naptr) = data else { return None };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Naptr {
        order: naptr.order,
        preference: naptr.preference,
        flags: text(&naptr.flags),
        service: text(&naptr.services),
        regexp: text(&naptr.regexp),
        replacement: name_of(&naptr.replacement),
    })
}

fn srv_of(data: &RData) -> Option<Srv> {
    let RData::SRV(srv) = data else { return None };
    Some(Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target: name_of(&srv.target) })
}

/// As `sip/locate` writes names; empty for the root.
fn name_of(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn ttl_of(answer: &Lookup) -> Duration {
    answer.valid_until().saturating_duration_since(Instant::now())
}

fn unique(addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut out = Vec::new();
    for ip in addresses {
        if !out.contains(&ip) {
            out.push(ip);
        }
    }
    out
}

fn failure(why: &NetError) -> Records {
    if why.is_no_records_found() || why.is_nx_domain() {
        // The longest time that `sip/locate` allows; the resolver does not tell a better one.
        Records { ttl: Duration::MAX, found: Found::Nothing }
    } else {
        failed()
    }
}

fn failed() -> Records {
    Records { ttl: Duration::ZERO, found: Found::Failed }
}

fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut six = addresses.iter().filter(|a| a.is_ipv6());
    let mut four = addresses.iter().filter(|a| a.is_ipv4());
    let mut out: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    loop {
        let pair = [six.next(), four.next()];
        if pair.iter().all(Option::is_none) {
            return out;
        }
        for address in pair.into_iter().flatten() {
            if !out.contains(address) {
                out.push(*address);
            }
        }
    }
}

/// RFC 2782: by priority, within one priority at random by weight.
fn order(mut records: Vec<Record>, roll: &mut (dyn FnMut() -> u32 + Send)) -> Vec<Target> {
    let mut out = Vec::with_capacity(records.len());
    records.sort_by_key(|r| (r.priority, r.weight));
    while let Some(first) = records.first() {
        let priority = first.priority;
        let total: u32 = records.iter().filter(|r| r.priority == priority).map(|r| u32::from(r.weight)).sum();
        let mut point = roll() % (total + 1);
        let mut chosen = 0;
        for (at, record) in records.iter().enumerate().take_while(|(_, r)| r.priority == priority) {
            chosen = at;
            if point <= u32::from(record.weight) {
                break;
            }
            point -= u32::from(record.weight);
        }
        out.push(records.remove(chosen).target);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(priority: u16, weight: u16, host: &str) -> Record {
        Record { priority, weight, target: Target { host: host.into(), port: 5222, direct_tls: false } }
    }

    #[test]
    fn lower_priority_numbers_come_first_whatever_their_weight() {
        let mut roll = || 7;
        let hosts: Vec<String> = order(vec![record(20, 100, "late"), record(10, 0, "early")], &mut roll)
            .into_iter()
            .map(|t| t.host)
            .collect();
        assert_eq!(hosts, ["early", "late"]);
    }

    #[test]
    fn weights_share_the_first_place_in_their_ratio() {
        let mut state = 1u32;
        let mut heavy = 0;
        for _ in 0..4000 {
            let mut roll = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 8
            };
            if order(vec![record(1, 75, "heavy"), record(1, 25, "light")], &mut roll).first().unwrap().host == "heavy" {
                heavy += 1;
            }
        }
        assert!((2800..3200).contains(&heavy), "{heavy} of 4000");
    }

    #[test]
    fn address_families_alternate_starting_with_ipv6() {
        let a = |s: &str| s.parse::<SocketAddr>().unwrap();
        let mixed = [a("1.1.1.1:1"), a("1.1.1.2:1"), a("[::2]:1"), a("1.1.1.1:1")];
        assert_eq!(interleave(&mixed), [a("[::2]:1"), a("1.1.1.1:1"), a("1.1.1.2:1")]);
    }
}

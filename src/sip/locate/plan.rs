//! What follows from the answers of DNS. Read RFC 3263 §4.1 and §4.2 and RFC 2782 before touching this file.

use super::{Found, Hop, Naptr, Query, Srv};
use crate::sip::exchange::Transport;
use crate::wire::sip::Host;
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What is asked for where the URI leaves the transport open and there is no NAPTR, in our order: the one everybody has,
/// then the others. RFC 3263 §4.1 leaves the choice to the client.
const PLAIN: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];
/// The same for `sips:`.
const SECURE: [Transport; 1] = [Transport::Tls];

/// Answers that a search has, and questions that it waits for.
#[derive(Debug, Default)]
pub(super) struct Answers {
    known: BTreeMap<Query, Found>,
    awaited: BTreeSet<Query>,
    asked: usize,
}

impl Answers {
    pub(super) fn insert(&mut self, query: Query, found: Found) {
        self.awaited.remove(&query);
        self.known.insert(query, found);
    }

    pub(super) fn wait_for(&mut self, query: Query) {
        if self.awaited.insert(query) {
            self.asked += 1;
        }
    }

    pub(super) fn waits_for(&self, query: &Query) -> bool {
        self.awaited.contains(query)
    }

    /// Questions of this search so far.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }
}

/// Servers of one service, not in order yet.
#[derive(Debug)]
struct Group {
    transport: Transport,
    servers: Vec<Server>,
}

#[derive(Debug, Clone)]
struct Server {
    priority: u16,
    weight: u16,
    addresses: Vec<SocketAddr>,
}

/// Where a request may go, group by group.
#[derive(Debug)]
pub(super) struct Places(Vec<Group>);

impl Places {
    /// Every place in the order of RFC 2782: by priority, and at random by weight among equals.
    pub(super) fn order(self, rng: &mut ChaCha20Rng) -> Vec<(Transport, SocketAddr)> {
        let mut out = Vec::new();
        for group in self.0 {
            let transport = group.transport;
            for server in in_order(group.servers, rng) {
                out.extend(server.addresses.into_iter().map(|address| (transport, address)));
            }
        }
        out
    }
}

/// RFC 2782, "Usage rules": those of weight 0 first, then a running sum and a random number up to it.
fn in_order(mut servers: Vec<Server>, rng: &mut ChaCha20Rng) -> Vec<Server> {
    servers.sort_by_key(|s| (s.priority, s.weight));
    let mut out = Vec::with_capacity(servers.len());
    while let Some(priority) = servers.first().map(|s| s.priority) {
        let equals = || servers.iter().take_while(|s| s.priority == priority);
        let total: u32 = equals().map(|s| u32::from(s.weight)).sum();
        let point = if equals().count() > 1 { rng.next_u32() % (total + 1) } else { 0 };
        let mut sum = 0;
        let chosen = equals().position(|s| {
            sum += u32::from(s.weight);
            sum >= point
        });
        out.push(servers.remove(chosen.unwrap_or(0)));
    }
    out
}

/// Reads answers and notes which ones are missing.
struct Reader<'a> {
    answers: &'a Answers,
    missing: BTreeSet<Query>,
}

impl<'a> Reader<'a> {
    fn read(&mut self, query: Query) -> Option<&'a Found> {
        let found = self.answers.known.get(&query);
        if found.is_none() {
            self.missing.insert(query);
        }
        found
    }

    fn addresses(&mut self, host: &str, port: u16) -> Vec<SocketAddr> {
        match self.read(Query::Addresses(lower(host))) {
            Some(Found::Addresses(all)) => all.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
            Some(Found::Naptr(_) | Found::Srv(_) | Found::Nothing | Found::Failed) | None => Vec::new(),
        }
    }

    /// The servers of one service; `None` where there is no SRV record at all.
    fn servers(&mut self, service: &str) -> Option<Vec<Server>> {
        let records: &[Srv] = match self.read(Query::Srv(lower(service)))? {
            Found::Srv(all) => all,
            Found::Naptr(_) | Found::Addresses(_) | Found::Nothing | Found::Failed => return None,
        };
        if records.is_empty() {
            return None;
        }
        // RFC 2782: a target of `.` says that the service is decidedly not there.
        let real = records.iter().filter(|r| !r.target.is_empty() && r.target != ".");
        Some(
            real.map(|r| Server {
                priority: r.priority,
                weight: r.weight,
                addresses: self.addresses(&r.target, r.port),
            })
            .collect(),
        )
    }

    /// One group that is no choice: the host itself.
    fn host(&mut self, transport: Transport, host: &str, port: Option<u16>) -> Vec<Group> {
        let addresses = self.addresses(host, port.unwrap_or(transport.default_port()));
        vec![Group { transport, servers: vec![Server { priority: 0, weight: 0, addresses }] }]
    }
}

/// RFC 3263 §4 as far as the answers reach; what is missing otherwise.
pub(super) fn plan(hop: &Hop, answers: &mut Answers) -> Result<Places, BTreeSet<Query>> {
    let mut reader = Reader { answers, missing: BTreeSet::new() };
    let groups = groups(hop, &mut reader);
    if reader.missing.is_empty() { Ok(Places(groups)) } else { Err(reader.missing) }
}

fn groups(hop: &Hop, reader: &mut Reader<'_>) -> Vec<Group> {
    // RFC 3261 §26.2.2: `sips` means TLS on every hop, whatever else is said.
    if hop.secure && hop.transport.is_some_and(|t| !t.is_secure()) {
        return Vec::new();
    }
    // §4.1: the default of a numeric host, of an explicit port, and of a name without records.
    let usual = if hop.secure { Transport::Tls } else { Transport::Udp };
    let chosen = hop.transport.unwrap_or(usual);
    let name: &str = match &hop.host {
        // §4.2: a numeric address is taken as it is.
        Host::Ip(ip) => {
            let address = SocketAddr::new(*ip, hop.port.unwrap_or(chosen.default_port()));
            let server = Server { priority: 0, weight: 0, addresses: vec![address] };
            return vec![Group { transport: chosen, servers: vec![server] }];
        }
        Host::Name(name) => name,
    };
    // §4.1 and §4.2: with a port there is neither NAPTR nor SRV. RFC 7118 defines no SRV service. Names without a dot and
    // those of RFC 6761 and RFC 6762 have no records either: asking for them costs seconds where DNS does not answer.
    let in_dns = name.trim_end_matches('.').contains('.') && !is_special(name);
    if hop.port.is_some() || !in_dns {
        return reader.host(chosen, name, hop.port);
    }
    match hop.transport {
        Some(transport) => match service(transport, name) {
            Some(service) => match reader.servers(&service) {
                Some(servers) => vec![Group { transport, servers }],
                // §4.2: no SRV record, so the host itself.
                None if reader.missing.is_empty() => reader.host(transport, name, None),
                None => Vec::new(),
            },
            None => reader.host(transport, name, None),
        },
        None => open_choice(hop.secure, usual, name, reader),
    }
}

/// §4.1 without a transport in the URI: NAPTR, else SRV of what we speak, else the host itself. The questions for SRV go out
/// with the one for NAPTR, which few domains have.
fn open_choice(secure: bool, usual: Transport, name: &str, reader: &mut Reader<'_>) -> Vec<Group> {
    let ours: &[Transport] = if secure { &SECURE } else { &PLAIN };
    let naptr = reader.read(Query::Naptr(lower(name)));
    if let Some(Found::Naptr(records)) = naptr {
        let usable: Vec<(Transport, &Naptr)> = records.iter().filter_map(|r| Some((by_naptr(secure, r)?, r))).collect();
        // §4.1: a server that has NAPTR records, but none that we can use, is tried as if it had none.
        if !usable.is_empty() {
            return usable
                .into_iter()
                .filter_map(|(transport, r)| reader.servers(&r.replacement).map(|servers| Group { transport, servers }))
                .collect();
        }
    }
    let mut any = false;
    let mut groups = Vec::new();
    for &transport in ours {
        let Some(service) = service(transport, name) else { continue };
        if let Some(servers) = reader.servers(&service) {
            any = true;
            groups.push(Group { transport, servers });
        }
    }
    if !any && reader.missing.is_empty() {
        return reader.host(usual, name, None);
    }
    groups
}

/// What a NAPTR record stands for; `None` where it is not for us (RFC 3263 §4.1, RFC 7118 §5.3).
fn by_naptr(secure: bool, record: &Naptr) -> Option<Transport> {
    let is = |service: &str| record.service.eq_ignore_ascii_case(service);
    if !record.flags.eq_ignore_ascii_case("s") || !record.regexp.is_empty() || record.replacement.is_empty() {
        return None;
    }
    // §4.1: for `sips` only services with `SIPS` count.
    match () {
        () if is("SIPS+D2T") => Some(Transport::Tls),
        () if is("SIPS+D2W") => Some(Transport::Wss),
        () if secure => None,
        () if is("SIP+D2U") => Some(Transport::Udp),
        () if is("SIP+D2T") => Some(Transport::Tcp),
        () if is("SIP+D2W") => Some(Transport::Ws),
        () => None,
    }
}

/// Name of the SRV records, RFC 3263 §4.1.
fn service(transport: Transport, name: &str) -> Option<String> {
    match transport {
        Transport::Udp => Some(format!("_sip._udp.{name}")),
        Transport::Tcp => Some(format!("_sip._tcp.{name}")),
        Transport::Tls => Some(format!("_sips._tcp.{name}")),
        Transport::Ws | Transport::Wss => None,
    }
}

/// `localhost` and `.local` names are not DNS's.
fn is_special(name: &str) -> bool {
    let name = lower(name);
    name.ends_with(".localhost") || name.ends_with(".local")
}

/// As queries are written: without case, without the dot of the root.
fn lower(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

//! Where a SIP request goes: RFC 3263 row by row, in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use offhook::config::SipLocateLimits;
use offhook::sip::exchange::Transport;
use offhook::sip::locate::{Found, Hop, Locator, Naptr, Query, Records, Srv, Target};
use offhook::wire::sip::{SipUri, Uri};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// A DNS of a few lines.
#[derive(Default, Clone)]
struct Zone {
    records: BTreeMap<Query, Found>,
    /// What does not answer at all.
    broken: BTreeSet<Query>,
    ttl: Option<Duration>,
}

impl Zone {
    fn naptr(mut self, name: &str, rows: &[(u16, u16, &str, &str)]) -> Self {
        let rows = rows.iter().map(|(order, preference, service, replacement)| Naptr {
            order: *order,
            preference: *preference,
            flags: "s".into(),
            service: (*service).into(),
            regexp: String::new(),
            replacement: (*replacement).into(),
        });
        self.records.insert(Query::Naptr(name.into()), Found::Naptr(rows.collect()));
        self
    }

    fn srv(mut self, name: &str, rows: &[(u16, u16, u16, &str)]) -> Self {
        let rows = rows.iter().map(|(priority, weight, port, target)| Srv {
            priority: *priority,
            weight: *weight,
            port: *port,
            target: (*target).into(),
        });
        self.records.insert(Query::Srv(name.into()), Found::Srv(rows.collect()));
        self
    }

    fn host(mut self, name: &str, addresses: &[&str]) -> Self {
        let all: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.records.insert(Query::Addresses(name.into()), Found::Addresses(all));
        self
    }

    fn answer(&self, query: &Query) -> Records {
        let ttl = self.ttl.unwrap_or(HOUR);
        if self.broken.contains(query) {
            return Records { ttl: Duration::ZERO, found: Found::Failed };
        }
        Records { ttl, found: self.records.get(query).cloned().unwrap_or(Found::Nothing) }
    }
}

fn uri(text: &str) -> SipUri {
    match text.parse::<Uri>().unwrap() {
        Uri::Sip(uri) => *uri,
        other @ (Uri::Tel(_) | Uri::Other(_)) => panic!("{other:?}"),
    }
}

fn locator(seed: u8) -> Locator {
    Locator::new([seed; 32], SipLocateLimits::default())
}

/// Runs one search to its end; gives the targets and what was asked.
fn search(locator: &mut Locator, now: Instant, zone: &Zone, text: &str) -> (Vec<Target>, Vec<Query>) {
    let mut asked = Vec::new();
    let Some(hop) = Hop::of(&uri(text)) else { return (Vec::new(), asked) };
    locator.locate(now, 1, &hop);
    loop {
        if let Some(located) = locator.poll_located() {
            assert_eq!(located.key, 1);
            return (located.targets, asked);
        }
        let query = locator.poll_query().expect("a search that is not over asks");
        asked.push(query.clone());
        locator.handle_answer(now, &query, zone.answer(&query));
    }
}

fn words(targets: &[Target]) -> Vec<String> {
    targets
        .iter()
        .map(|t| {
            let name = if t.name.is_empty() { String::new() } else { format!(" {}", t.name) };
            format!("{} {}{name}", t.transport.via(), t.remote)
        })
        .collect()
}

fn zone() -> Zone {
    Zone::default()
        .host("pbx.example", &["192.0.2.1", "2001:db8::1"])
        .host("a.example", &["192.0.2.10"])
        .host("b.example", &["192.0.2.11"])
        .host("plain.example", &["192.0.2.20"])
        .srv("_sip._udp.srv.example", &[(1, 0, 5070, "a.example"), (2, 0, 5071, "b.example")])
        .srv("_sip._tcp.srv.example", &[(1, 0, 5080, "b.example")])
        .srv("_sips._tcp.srv.example", &[(1, 0, 5090, "a.example")])
        .naptr(
            "naptr.example",
            &[
                (50, 50, "SIPS+D2T", "_sips._tcp.srv.example"),
                (90, 50, "SIP+D2T", "_sip._tcp.srv.example"),
                (100, 50, "SIP+D2U", "_sip._udp.srv.example"),
            ],
        )
        .naptr("wrong.example", &[(1, 1, "E2U+sip", "x.example"), (1, 1, "SIP+D2S", "_sip._sctp.srv.example")])
        .srv("_sip._udp.wrong.example", &[(1, 0, 5070, "a.example")])
        .srv("_sip._udp.closed.example", &[(0, 0, 0, "")])
        .host("closed.example", &["192.0.2.30"])
}

#[test]
fn every_case_of_rfc_3263_finds_its_servers() {
    let rows: &[(&str, &[&str])] = &[
        // §4.1, §4.2: numeric hosts; no question is asked.
        ("sip:192.0.2.9", &["UDP 192.0.2.9:5060"]),
        ("sip:192.0.2.9:5062", &["UDP 192.0.2.9:5062"]),
        ("sip:[2001:db8::9]", &["UDP [2001:db8::9]:5060"]),
        ("sip:192.0.2.9;transport=tcp", &["TCP 192.0.2.9:5060"]),
        ("sips:192.0.2.9", &["TLS 192.0.2.9:5061 192.0.2.9"]),
        ("sip:192.0.2.9;transport=tls", &["TLS 192.0.2.9:5061 192.0.2.9"]),
        ("sip:192.0.2.9;transport=ws", &["WS 192.0.2.9:80 192.0.2.9"]),
        ("sips:192.0.2.9;transport=ws", &["WSS 192.0.2.9:443 192.0.2.9"]),
        ("sip:x.example;maddr=192.0.2.8", &["UDP 192.0.2.8:5060"]),
        // An explicit port: only addresses.
        ("sip:pbx.example:5075", &["UDP 192.0.2.1:5075", "UDP [2001:db8::1]:5075"]),
        ("sips:pbx.example:5075", &["TLS 192.0.2.1:5075 pbx.example", "TLS [2001:db8::1]:5075 pbx.example"]),
        ("sip:srv.example:5075", &[]),
        // A transport and no port: SRV of that transport.
        ("sip:srv.example;transport=udp", &["UDP 192.0.2.10:5070", "UDP 192.0.2.11:5071"]),
        ("sip:srv.example;transport=tcp", &["TCP 192.0.2.11:5080"]),
        ("sips:srv.example;transport=tcp", &["TLS 192.0.2.10:5090 srv.example"]),
        // … and without SRV the host itself.
        ("sip:plain.example;transport=tcp", &["TCP 192.0.2.20:5060"]),
        ("sips:plain.example", &["TLS 192.0.2.20:5061 plain.example"]),
        ("sip:plain.example;transport=wss", &["WSS 192.0.2.20:443 plain.example"]),
        // NAPTR decides, by order and preference.
        (
            "sip:naptr.example",
            &["TLS 192.0.2.10:5090 naptr.example", "TCP 192.0.2.11:5080", "UDP 192.0.2.10:5070", "UDP 192.0.2.11:5071"],
        ),
        // `sips:` takes nothing but SIPS services.
        ("sips:naptr.example", &["TLS 192.0.2.10:5090 naptr.example"]),
        // NAPTR records that are not for us are none.
        ("sip:wrong.example", &["UDP 192.0.2.10:5070"]),
        // Without NAPTR: SRV of each transport that we speak.
        (
            "sip:srv.example",
            &["UDP 192.0.2.10:5070", "UDP 192.0.2.11:5071", "TCP 192.0.2.11:5080", "TLS 192.0.2.10:5090 srv.example"],
        ),
        ("sips:srv.example", &["TLS 192.0.2.10:5090 srv.example"]),
        // Neither: the host, by UDP.
        ("sip:plain.example", &["UDP 192.0.2.20:5060"]),
        // RFC 2782: a target of `.` says no, whatever addresses there are.
        ("sip:closed.example", &[]),
        ("sip:closed.example;transport=udp", &[]),
        // What is not ours.
        ("sip:pbx.example;transport=sctp", &[]),
        ("sips:pbx.example;transport=udp", &[]),
        ("sip:nowhere.example", &[]),
    ];
    let now = Instant::now();
    for (text, expected) in rows {
        let (targets, _) = search(&mut locator(1), now, &zone(), text);
        assert_eq!(words(&targets), *expected, "{text}");
    }
}

#[test]
fn a_numeric_host_and_a_host_with_a_port_ask_as_little_as_they_can() {
    let now = Instant::now();
    let (_, asked) = search(&mut locator(1), now, &zone(), "sip:192.0.2.9");
    assert_eq!(asked, []);
    let (_, asked) = search(&mut locator(1), now, &zone(), "sip:pbx.example:5060");
    assert_eq!(asked, [Query::Addresses("pbx.example".into())]);
    // Names that DNS does not have cost no wait for NAPTR and SRV.
    for local in ["sip:localhost", "sip:pbx", "sip:phone.local"] {
        let (_, asked) = search(&mut locator(1), now, &zone(), local);
        assert_eq!(asked.len(), 1, "{local}");
        assert!(matches!(asked[0], Query::Addresses(_)), "{local}");
    }
}

#[test]
fn a_resolver_that_knows_no_naptr_does_not_hide_srv_records_or_addresses() {
    let now = Instant::now();
    let mut broken = zone();
    broken.broken.insert(Query::Naptr("srv.example".into()));
    let (targets, _) = search(&mut locator(1), now, &broken, "sip:srv.example");
    assert_eq!(targets.len(), 4);
    for query in ["_sip._udp.plain.example", "_sip._tcp.plain.example", "_sips._tcp.plain.example"] {
        broken.broken.insert(Query::Srv(query.into()));
    }
    broken.broken.insert(Query::Naptr("plain.example".into()));
    let (targets, _) = search(&mut locator(1), now, &broken, "sip:plain.example");
    assert_eq!(words(&targets), ["UDP 192.0.2.20:5060"]);
}

#[test]
fn a_shell_that_never_answers_ends_the_search_all_the_same() {
    let mut locator = locator(1);
    let mut now = Instant::now();
    locator.locate(now, 7, &Hop::of(&uri("sip:srv.example")).unwrap());
    let mut turns = 0;
    let located = loop {
        if let Some(located) = locator.poll_located() {
            break located;
        }
        while locator.poll_query().is_some() {}
        now = locator.poll_timeout().expect("a deadline");
        locator.handle_timeout(now);
        turns += 1;
        assert!(turns < 10);
    };
    assert_eq!((located.key, located.targets), (7, Vec::new()));
    assert_eq!(locator.poll_timeout(), None);
}

#[test]
fn servers_of_one_priority_share_requests_by_weight_and_the_seed_replays() {
    let zone = Zone::default()
        .host("heavy.example", &["192.0.2.1"])
        .host("light.example", &["192.0.2.2"])
        .host("spare.example", &["192.0.2.3"])
        .srv(
            "_sip._tcp.x.example",
            &[(1, 75, 5060, "heavy.example"), (1, 25, 5060, "light.example"), (2, 1, 5060, "spare.example")],
        );
    let now = Instant::now();
    let firsts = |seed: u8| {
        let mut locator = locator(seed);
        (0..4000)
            .map(|_| {
                let (targets, _) = search(&mut locator, now, &zone, "sip:x.example;transport=tcp");
                assert_eq!(targets.len(), 3);
                assert_eq!(targets[2].remote.to_string(), "192.0.2.3:5060", "priority before weight");
                targets[0].remote.to_string()
            })
            .collect::<Vec<_>>()
    };
    let all = firsts(3);
    let heavy = all.iter().filter(|a| *a == "192.0.2.1:5060").count();
    assert!((2800..3200).contains(&heavy), "{heavy} of 4000");
    assert_eq!(all, firsts(3));
    assert_ne!(all, firsts(4));
}

#[test]
fn a_dead_server_comes_last_until_it_is_forgotten_or_answers() {
    let mut locator = locator(1);
    let mut now = Instant::now();
    let order = |locator: &mut Locator, now| {
        let (targets, _) = search(locator, now, &zone(), "sip:srv.example;transport=udp");
        targets
    };
    let targets = order(&mut locator, now);
    assert_eq!(words(&targets), ["UDP 192.0.2.10:5070", "UDP 192.0.2.11:5071"]);
    locator.mark_dead(now, &targets[0], None);
    assert_eq!(words(&order(&mut locator, now)), ["UDP 192.0.2.11:5071", "UDP 192.0.2.10:5070"]);
    // All dead: still tried, in order.
    locator.mark_dead(now, &targets[1], None);
    assert_eq!(order(&mut locator, now), targets);
    locator.mark_alive(&targets[1]);
    assert_eq!(words(&order(&mut locator, now)), ["UDP 192.0.2.11:5071", "UDP 192.0.2.10:5070"]);
    now += Duration::from_secs(61);
    assert_eq!(order(&mut locator, now), targets);
    // Retry-After says how long, up to our own bound.
    locator.mark_dead(now, &targets[0], Some(Duration::from_secs(1_000_000)));
    now += Duration::from_secs(299);
    assert_ne!(order(&mut locator, now), targets);
    now += Duration::from_secs(2);
    assert_eq!(order(&mut locator, now), targets);
}

#[test]
fn an_answer_is_remembered_as_long_as_it_says_and_five_minutes_at_most() {
    for (ttl, kept, gone) in [(10, 9, 11), (86_400, 299, 301)] {
        let mut locator = locator(1);
        let mut now = Instant::now();
        let zone = Zone { ttl: Some(Duration::from_secs(ttl)), ..zone() };
        let (_, asked) = search(&mut locator, now, &zone, "sip:pbx.example:5060");
        assert_eq!(asked.len(), 1);
        now += Duration::from_secs(kept);
        let (targets, asked) = search(&mut locator, now, &zone, "sip:pbx.example:5060");
        assert_eq!((targets.len(), asked.len()), (2, 0));
        now += Duration::from_secs(gone - kept);
        let (_, asked) = search(&mut locator, now, &zone, "sip:pbx.example:5060");
        assert_eq!(asked.len(), 1);
    }
}

#[test]
fn an_answer_that_may_not_be_remembered_serves_the_search_that_waits_for_it() {
    let zone = Zone { ttl: Some(Duration::ZERO), ..zone() };
    let (targets, _) = search(&mut locator(1), Instant::now(), &zone, "sip:naptr.example");
    assert_eq!(targets.len(), 4);
}

#[test]
fn two_searches_for_one_name_ask_once() {
    let mut locator = locator(1);
    let now = Instant::now();
    let hop = Hop::of(&uri("sip:pbx.example:5060")).unwrap();
    locator.locate(now, 1, &hop);
    locator.locate(now, 2, &hop);
    locator.locate(now, 3, &hop);
    locator.cancel(3);
    let query = locator.poll_query().unwrap();
    assert_eq!(locator.poll_query(), None);
    locator.handle_answer(now, &query, zone().answer(&query));
    let keys: Vec<u64> = std::iter::from_fn(|| locator.poll_located()).map(|l| l.key).collect();
    assert_eq!(keys, [1, 2]);
}

#[test]
fn a_zone_of_an_attacker_is_bounded_in_questions_and_targets() {
    // 1 000 NAPTR rows to 1 000 SRV names of 1 000 records each.
    let mut rows = Vec::new();
    for n in 0..1000 {
        rows.push(format!("_s{n}.evil.example"));
    }
    let naptr: Vec<(u16, u16, &str, &str)> = rows.iter().map(|r| (1, 1, "SIP+D2U", r.as_str())).collect();
    let mut zone = Zone::default().naptr("evil.example", &naptr);
    for row in &rows {
        let hosts: Vec<String> = (0..1000).map(|n| format!("h{n}.{row}")).collect();
        let srv: Vec<(u16, u16, u16, &str)> = hosts.iter().map(|h| (1, 1, 5060, h.as_str())).collect();
        zone = zone.srv(row, &srv);
        for host in hosts.iter().take(20) {
            zone = zone.host(host, &["192.0.2.1"; 1000]);
        }
    }
    let (targets, asked) = search(&mut locator(1), Instant::now(), &zone, "sip:evil.example");
    let limits = SipLocateLimits::default();
    assert!(asked.len() <= limits.queries, "{} questions", asked.len());
    assert!(targets.len() <= limits.targets, "{} targets", targets.len());
}

#[test]
fn searches_and_what_is_remembered_of_them_are_bounded() {
    let limits = SipLocateLimits { searches: 10, cache: 16, dead: 4, ..SipLocateLimits::default() };
    let mut locator = Locator::new([1; 32], limits);
    let now = Instant::now();
    for key in 0..11 {
        locator.locate(now, key, &Hop::of(&uri(&format!("sip:h{key}.example:5060"))).unwrap());
    }
    // The eleventh is turned away at once.
    assert_eq!(locator.poll_located().map(|l| (l.key, l.targets.len())), Some((10, 0)));
    for key in 0..10 {
        locator.cancel(key);
    }
    let everywhere = |n: u32| Target {
        transport: Transport::Udp,
        remote: format!("10.0.{}.{}:5060", n / 256, n % 256).parse().unwrap(),
        name: String::new(),
    };
    for n in 0..1000 {
        locator.mark_dead(now, &everywhere(n), None);
    }
    let text = format!("{locator:?}");
    assert!(text.len() < 20_000, "{} bytes of state", text.len());
}

//! Which TCP addresses we connect to because a peer named them: a streamhost is a peer's way to make our machine speak to
//! whom it likes (threat: S5B streamhost SSRF). Read XEP-0260 §6, RFC 6890 and RFC 6052 §2 before touching this file.

use super::path::check_remote;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a machine may be asked to connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DialPolicy {
    /// Loopback, link-local and private addresses are fine: laboratory and tests.
    pub lab: bool,
    /// Private addresses are fine: the streamhost was named by our own server or user, not by the peer.
    pub private: bool,
    /// Addresses of this machine with the length of their network's prefix in bits. A private address is dialled if it
    /// lies in one of them: peers in the same house meet directly.
    pub own_networks: Vec<(IpAddr, u8)>,
}

/// True if we connect to `addr` under `policy`. It holds for literals and, after resolving, for each address of a name:
/// a name that resolves to loopback is refused like loopback itself.
#[must_use]
pub fn may_dial(addr: SocketAddr, policy: &DialPolicy) -> bool {
    // An IPv4 address in IPv6 clothing is judged as what it reaches.
    let ip = addr.ip().to_canonical();
    // Loopback, link-local, multicast, broadcast, unspecified, port 0.
    if check_remote(SocketAddr::new(ip, addr.port()), policy.lab, false).is_err() || is_metadata(ip) {
        return false;
    }
    let private = match ip {
        IpAddr::V4(ip) if is_reserved_v4(ip) => return false,
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => match embedded_v4(ip) {
            Some(inner) => return may_dial(SocketAddr::new(inner.into(), addr.port()), policy),
            None => is_private_v6(ip),
        },
    };
    !private || policy.lab || policy.private || policy.own_networks.iter().any(|own| contains(*own, ip))
}

/// True for what may stand in `host`: an address, or a name of DNS. Everything that a resolver could take for an address
/// in other clothing (`127.1`, `0x7f000001`, `2130706433`) and names of this machine are neither.
#[must_use]
pub fn is_dialable_host(host: &str, policy: &DialPolicy) -> bool {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return may_dial(SocketAddr::new(ip, 1), policy);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |l: &str| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !l.is_empty() && l.len() <= 63 && l.bytes().all(fine) && !l.starts_with('-') && !l.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    name.len() <= 253
        && name.split('.').all(label)
        && !number
        && (policy.lab || !last.eq_ignore_ascii_case("localhost"))
}

/// True if both are one address, in whatever spelling, or one name.
#[must_use]
pub fn same_host(a: &str, b: &str) -> bool {
    let ip = |host: &str| host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    match (ip(a), ip(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a.eq_ignore_ascii_case(b),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// RFC 1918, the shared space of RFC 6598, the benchmark networks of RFC 2544, and link-local ones that got here.
fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || a == 100 && b & 0xC0 == 64
        || a == 198 && b & 0xFE == 18
}

/// 192.0.0.0/24 (RFC 6890) and 240.0.0.0/4 (RFC 1112): nobody lives there.
fn is_reserved_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    a >= 240 || (a, b, c) == (192, 0, 0)
}

/// Unique local (RFC 4193), site-local (RFC 3879), and loopback and link-local ones that got here.
fn is_private_v6(ip: Ipv6Addr) -> bool {
    let [first, ..] = ip.segments();
    ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local() || first & 0xFFC0 == 0xFEC0
}

/// Where clouds keep what a machine may do, keys included; no lab and no network of ours makes that a streamhost.
fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => matches!(
            ip.octets(),
            [169, 254, 169, 253 | 254] | [169, 254, 170, 2] | [100, 100, 100, 200] | [168, 63, 129, 16]
        ),
        IpAddr::V6(ip) => ip.segments() == [0xFD00, 0xEC2, 0, 0, 0, 0, 0, 0x254],
    }
}

/// The IPv4 address that a router makes of an IPv6 one: compatible (`::/96`), NAT64 (RFC 6052, RFC 8215), 6to4
/// (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214). Loopback and unspecified are of `::/96` and judged before.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xFFFF, high, low] => v4(high, low),
        [0, 0, 0, 0, 0xFFFF, 0, high, low] => v4(high, low),
        [0x64, 0xFF9B, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x64, 0xFF9B, 1, .., high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, .., high, low] => v4(!high, !low),
        [_, _, _, _, 0 | 0x200, 0x5EFE, high, low] => v4(high, low),
        _ => None,
    }
}

fn contains((own, prefix): (IpAddr, u8), ip: IpAddr) -> bool {
    match (own.to_canonical(), ip) {
        // A prefix of nothing would let the whole world be our house.
        (IpAddr::V4(own), IpAddr::V4(ip)) if (8..=32).contains(&prefix) => {
            let shift = 32 - u32::from(prefix);
            (own.to_bits() ^ ip.to_bits()).checked_shr(shift) == Some(0)
        }
        (IpAddr::V6(own), IpAddr::V6(ip)) if (16..=128).contains(&prefix) => {
            let shift = 128 - u32::from(prefix);
            (own.to_bits() ^ ip.to_bits()).checked_shr(shift) == Some(0)
        }
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn dials(text: &str, policy: &DialPolicy) -> bool {
        let ip: IpAddr = text.parse().unwrap();
        let literal = is_dialable_host(text, policy);
        let resolved = may_dial(SocketAddr::new(ip, 80), policy);
        assert_eq!(literal, resolved, "{text}");
        assert!(!may_dial(SocketAddr::new(ip, 0), policy), "port 0 of {text}");
        resolved
    }

    const LOOPBACK: &[&str] = &[
        "127.0.0.1",
        "127.8.9.1",
        "::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::127.0.0.1",
        "2002:7f00:1::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "2001:db8::5efe:127.0.0.1",
        "2001:db8::200:5efe:127.0.0.1",
    ];
    const PRIVATE: &[&str] = &[
        "10.0.0.1",
        "172.16.5.4",
        "172.31.255.255",
        "192.168.1.4",
        "100.64.0.1",
        "198.18.0.1",
        "fd00::1",
        "fec0::1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "64:ff9b::192.168.1.4",
        "2002:c0a8:104::1",
        "169.254.1.1",
        "fe80::1",
    ];
    const NEVER: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "::ffff:0.0.0.0",
        "64:ff9b::0.0.0.0",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.0.192",
        "ff02::1",
        "::ffff:224.0.0.1",
        "2002:e000:1::1",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
    ];

    #[test]
    fn a_streamhost_on_this_machine_or_in_a_private_network_is_not_dialled() {
        let policy = DialPolicy::default();
        for text in LOOPBACK.iter().chain(PRIVATE).chain(NEVER) {
            assert!(!dials(text, &policy), "{text}");
        }
        for text in ["203.0.113.9", "8.8.8.8", "2001:db8::1", "2a00::1", "64:ff9b::8.8.8.8", "2002:808:808::1"] {
            assert!(dials(text, &policy), "{text}");
        }
    }

    #[test]
    fn the_laboratory_lifts_loopback_and_private_addresses_and_nothing_else() {
        let policy = DialPolicy { lab: true, ..DialPolicy::default() };
        for text in LOOPBACK.iter().chain(PRIVATE) {
            assert!(dials(text, &policy), "{text}");
        }
        for text in NEVER {
            assert!(!dials(text, &policy), "{text}");
        }
    }

    #[test]
    fn a_private_address_is_dialled_only_inside_a_network_of_ours() {
        let own_networks = vec![("192.168.1.7".parse().unwrap(), 24), ("fd12::7".parse().unwrap(), 64)];
        let policy = DialPolicy { own_networks, ..DialPolicy::default() };
        for text in ["192.168.1.4", "::ffff:192.168.1.4", "fd12::1"] {
            assert!(dials(text, &policy), "{text}");
        }
        for text in ["192.168.2.4", "10.0.0.1", "fd12:0:0:1::1", "127.0.0.1", "169.254.169.254"] {
            assert!(!dials(text, &policy), "{text}");
        }
        let wide = DialPolicy {
            own_networks: vec![("10.0.0.1".parse().unwrap(), 0), ("fd00::1".parse().unwrap(), 200)],
            ..DialPolicy::default()
        };
        assert!(!dials("192.168.1.4", &wide) && !dials("fd00::2", &wide));
    }

    #[test]
    fn our_own_proxy_may_be_private_but_not_on_this_machine() {
        let policy = DialPolicy { private: true, ..DialPolicy::default() };
        assert!(dials("10.0.0.1", &policy) && dials("fd00::1", &policy));
        for text in LOOPBACK.iter().chain(NEVER) {
            assert!(!dials(text, &policy), "{text}");
        }
    }

    #[test]
    fn one_host_in_two_spellings_is_one_host() {
        for (a, b) in [("192.0.2.1", "::ffff:192.0.2.1"), ("2001:db8::1", "2001:DB8:0:0::1"), ("P.lit", "p.LIT")] {
            assert!(same_host(a, b), "{a} {b}");
        }
        assert!(!same_host("192.0.2.1", "192.0.2.2") && !same_host("192.0.2.1", "p.lit"));
    }

    #[test]
    fn a_name_is_a_name_and_not_an_address_in_disguise() {
        let policy = DialPolicy::default();
        for name in ["proxy.example", "a-b.example.", "xn--bcher-kva.example", "s5b_1.example", "streamer"] {
            assert!(is_dialable_host(name, &policy), "{name}");
        }
        let long = "a".repeat(64);
        for name in [
            "",
            ".",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "1.2.3.4.5",
            "[::1]",
            "::1%lo",
            "localhost",
            "x.LOCALHOST.",
            "a b.example",
            "a..b",
            "a/b",
            "a:80",
            "ä.example",
            "user@host",
            long.as_str(),
        ] {
            assert!(!is_dialable_host(name, &policy), "{name}");
        }
        assert!(is_dialable_host("localhost", &DialPolicy { lab: true, ..policy }));
    }
}

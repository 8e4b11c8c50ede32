//! Addresses behind the `<uuid>.local` names by which browsers hide their host candidates.
//! Read RFC 6762 §5 and draft-ietf-mmusic-mdns-ice-candidates §3.2 before touching this file.

use mdns_sd::{HostnameResolutionEvent, ServiceDaemon};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a name is asked for: a host on the same link answers within milliseconds, and ICE does not wait.
pub const RESOLVE_LIMIT: Duration = Duration::from_secs(2);

/// Resolves names of the local link. It owns one thread and the multicast sockets; make one per process, when the
/// first such candidate comes.
pub struct MdnsResolver {
    daemon: ServiceDaemon,
}

impl std::fmt::Debug for MdnsResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MdnsResolver").finish_non_exhaustive()
    }
}

impl MdnsResolver {
    /// `None` where multicast cannot be had: such candidates are then skipped.
    #[must_use]
    pub fn new() -> Option<Self> {
        ServiceDaemon::new().ok().map(|daemon| Self { daemon })
    }

    /// The address of `<uuid>.local`, IPv4 before IPv6; `None` if nobody answers within two seconds.
    ///
    /// Other names are refused: a remote peer chooses them, and must not search our link by them.
    pub async fn resolve(&self, name: &str) -> Option<IpAddr> {
        if !is_candidate_name(name) {
            return None;
        }
        let daemon = self.daemon.clone();
        let name = format!("{}.", name.trim_end_matches('.').to_ascii_lowercase());
        tokio::task::spawn_blocking(move || resolve_blocking(&daemon, &name)).await.ok()?
    }
}

impl Drop for MdnsResolver {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

/// True for `<uuid>.local`, the only form that ICE candidates have (draft §3.1.1).
#[must_use]
pub fn is_candidate_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let Some(uuid) = name.strip_suffix(".local") else { return false };
    let groups: Vec<&str> = uuid.split('-').collect();
    groups.iter().map(|it| it.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn resolve_blocking(daemon: &ServiceDaemon, name: &str) -> Option<IpAddr> {
    let limit_ms = u64::try_from(RESOLVE_LIMIT.as_millis()).unwrap_or(u64::MAX);
    let answers = daemon.resolve_hostname(name, Some(limit_ms)).ok()?;
    let end = Instant::now() + RESOLVE_LIMIT;
    let mut found = None;
    while let Ok(event) = answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
        match event {
            HostnameResolutionEvent::AddressesFound(_, addresses) => {
                found = best(addresses.iter().map(|it| it.to_ip_addr()));
                if found.is_some() {
                    break;
                }
            }
            HostnameResolutionEvent::SearchTimeout(_) | HostnameResolutionEvent::SearchStopped(_) => break,
            HostnameResolutionEvent::SearchStarted(_) | HostnameResolutionEvent::AddressesRemoved(..) | _ => {}
        }
    }
    let _ = daemon.stop_resolve_hostname(name);
    found
}

/// A link-local IPv6 address is of no use without its interface, which a candidate cannot name.
fn best(addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    addresses.filter(|ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())).min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_uuid_names_are_asked_for() {
        assert!(is_candidate_name("1f4712db-ea17-4bcf-a596-105139dfd8bf.local"));
        assert!(is_candidate_name("1F4712DB-EA17-4BCF-A596-105139DFD8BF.LOCAL."));
        for bad in [
            "printer.local",
            "1f4712db-ea17-4bcf-a596-105139dfd8bf.example",
            "1f4712db-ea17-4bcf-a596-105139dfd8bf",
            "x.1f4712db-ea17-4bcf-a596-105139dfd8bf.local",
            "1f4712db-ea17-4bcf-a596-105139dfd8bg.local",
            "1f4712dbea174bcfa596105139dfd8bf.local",
            ".local",
            "",
        ] {
            assert!(!is_candidate_name(bad), "{bad}");
        }
    }

    #[test]
    fn ipv4_is_taken_before_ipv6_and_link_local_never() {
        let ips = |texts: &[&str]| best(texts.iter().map(|it| it.parse().unwrap()));
        assert_eq!(ips(&["fe80::1", "fd00::2", "192.0.2.2"]), Some("192.0.2.2".parse().unwrap()));
        assert_eq!(ips(&["fe80::1", "fd00::2"]), Some("fd00::2".parse().unwrap()));
        assert_eq!(ips(&["fe80::1"]), None);
    }

    #[tokio::test]
    async fn a_name_that_nobody_has_gives_none_in_time() {
        let Some(resolver) = MdnsResolver::new() else { return };
        let start = Instant::now();
        assert_eq!(resolver.resolve("00000000-0000-4000-8000-000000000000.local").await, None);
        assert!(start.elapsed() < RESOLVE_LIMIT + Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_name_that_is_announced_on_the_link_is_resolved() {
        let name = "1f4712db-ea17-4bcf-a596-105139dfd8bf.local";
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let on_loopback = || {
            let daemon = ServiceDaemon::new_with_port(port).unwrap();
            daemon.disable_interface(mdns_sd::IfKind::All).unwrap();
            daemon.enable_interface(mdns_sd::IfKind::LoopbackV4).unwrap();
            daemon
        };
        let announcer = on_loopback();
        let service =
            mdns_sd::ServiceInfo::new("_offhook._udp.local.", "t", &format!("{name}."), "127.0.0.1", 9, None).unwrap();
        announcer.register(service).unwrap();
        let resolver = MdnsResolver { daemon: on_loopback() };
        assert_eq!(resolver.resolve(name).await, Some("127.0.0.1".parse().unwrap()));
        let _ = announcer.shutdown();
    }
}

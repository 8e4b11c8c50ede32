//! Where a test's servers stand: loopback addresses and folders of their own, certificates of an authority made for the
//! test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

/// Loopback addresses side by side on which nobody listens at these TCP ports. They differ from process to process and
/// from call to call, so that tests that run at the same time do not meet.
pub fn addresses<const N: usize>(ports: &[u16]) -> [Ipv4Addr; N] {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    let calls = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut state = (u64::from(std::process::id()) << 32 | u64::from(clock)).wrapping_add(calls << 48);
    let (side, most) = (u8::try_from(N).unwrap(), 240 / u8::try_from(N).unwrap());
    for _ in 0..100 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [a, b, c, ..] = state.to_be_bytes();
        // 127.0.x.y is where other programs of the machine listen.
        let all = std::array::from_fn(|n| Ipv4Addr::new(127, 1 + a % 250, b, 1 + (c % most) * side + n as u8));
        let free = |ip: &Ipv4Addr| ports.iter().all(|port| TcpListener::bind((*ip, *port)).is_ok());
        if all.iter().all(free) {
            return all;
        }
    }
    panic!("no free loopback address: are the ports {ports:?} taken on all addresses by one server?");
}

/// A TCP port of 127.0.0.1 on which nobody listens at this moment, nor on the one after it.
pub fn free_port() -> u16 {
    for _ in 0..100 {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        if port < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return port;
        }
    }
    panic!("no two free ports side by side");
}

/// An empty folder.
pub fn folder(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("offhook-{name}-{}-{n}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Makes an authority and a certificate a domain; gives the file with the authority's certificate. A domain's own are in
/// `DOMAIN.crt` and `DOMAIN.key`.
pub fn certificates(folder: &Path, domains: &[(&str, IpAddr)]) -> PathBuf {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "offhook test authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    for (domain, ip) in domains {
        let names = vec![(*domain).to_owned(), format!("*.{domain}"), ip.to_string()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, *domain);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{domain}.crt")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{domain}.key")), key.serialize_pem()).unwrap();
    }
    let file = folder.join("ca.crt");
    fs::write(&file, authority.pem()).unwrap();
    file
}

/// The last lines of a log, for a test that failed.
pub fn show_end_of(log: &Path, lines: usize) {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    eprintln!("--- end of {}:", log.display());
    for line in all.iter().skip(all.len().saturating_sub(lines)) {
        eprintln!("{line}");
    }
}

//! Our DTLS alone against OpenSSL and GnuTLS with RSA-2048 and ECDSA certificates, as client and as server.
//! Needs the Debian packages `openssl`, `gnutls-bin`, `iproute2` and `util-linux`; `OFFHOOK_INTEROP=none` leaves it out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use offhook::transport::dtls::{Dtls, DtlsRole, Identity};
use offhook::transport::srtp::SrtpProfile;
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LABEL: &str = "EXTRACTOR-dtls_srtp";
const MATERIAL_BYTES: usize = 60;

fn switched_off() -> bool {
    std::env::var("OFFHOOK_INTEROP").is_ok_and(|v| v == "none")
}

/// A peer program; killed when dropped.
struct Program {
    child: Child,
    output: Arc<Mutex<String>>,
}

impl Program {
    fn start(program: &str, package: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| {
                panic!("{program}: {e}; install the Debian package {package}, or set OFFHOOK_INTEROP=none")
            });
        let output = Arc::new(Mutex::new(String::new()));
        let pipes: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for mut pipe in pipes {
            let output = Arc::clone(&output);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                    output.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
                }
            });
        }
        Self { child, output }
    }

    fn text(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Waits until the program has printed all of `hex`.
    fn prints(&self, hex: &str) -> bool {
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if self.text().to_lowercase().contains(hex) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A self-signed certificate and its key as files.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

fn certificate(kind: &str) -> Files {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let unique = format!("{kind}-{}-{:?}", std::process::id(), std::thread::current().id());
    let unique = unique.replace(['(', ')'], "");
    let files = Files { certificate: folder.join(format!("{unique}.crt")), key: folder.join(format!("{unique}.key")) };
    let algorithm: &[&str] =
        if kind == "rsa" { &["rsa:2048"] } else { &["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] };
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-subj", "/CN=peer", "-days", "2", "-newkey"])
        .args(algorithm)
        .arg("-keyout")
        .arg(&files.key)
        .arg("-out")
        .arg(&files.certificate)
        .output()
        .unwrap_or_else(|e| panic!("openssl: {e}; install the Debian package openssl, or set OFFHOOK_INTEROP=none"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    files
}

/// Runs the handshake over a real socket; gives the exporter's bytes as hex.
fn handshake(role: DtlsRole, socket: &UdpSocket, mut peer: Option<SocketAddr>) -> Result<String, String> {
    let identity = Identity::generate().unwrap();
    let mut dtls = Dtls::new(&identity, role, Duration::from_millis(300), true);
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let begin = Instant::now();
    dtls.start(begin);
    let mut buffer = [0; 4096];
    let mut completed = None;
    while begin.elapsed() < Duration::from_secs(15) {
        while let Some(datagram) = dtls.poll_transmit() {
            let _ = socket.send_to(&datagram, peer.expect("a peer spoke first"));
        }
        // The peer may have lost our last flight: stay a little.
        if completed.is_some_and(|at: Instant| at.elapsed() > Duration::from_millis(300)) {
            break;
        }
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            peer = Some(from);
            dtls.handle_input(Instant::now(), &buffer[..n], drop);
        }
        if dtls.is_complete() && completed.is_none() {
            completed = Some(Instant::now());
        }
        dtls.handle_timeout(Instant::now()).map_err(|e| e.to_string())?;
    }
    if completed.is_none() {
        return Err(format!("not complete: {dtls:?}"));
    }
    assert!(dtls.peer_certificate().is_some_and(|der| der.len() > 200));
    assert_eq!(dtls.profile(), Some(SrtpProfile::AesCm128HmacSha1_80));
    let material = dtls.export(LABEL, MATERIAL_BYTES).unwrap();
    Ok(material.as_ref().iter().map(|b| format!("{b:02x}")).collect())
}

/// [`handshake`], with what the peer printed if it fails.
fn keys(role: DtlsRole, socket: &UdpSocket, peer: Option<SocketAddr>, kind: &str, program: &Program) -> String {
    handshake(role, socket, peer).unwrap_or_else(|e| panic!("{kind}: {e}\n{}", program.text()))
}

/// A free port, given back at once.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// `openssl`, which prints the exporter's bytes.
fn openssl(arguments: &[&str], files: &Files) -> Program {
    let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let profile = ["-dtls1_2", "-cert", certificate, "-key", key, "-use_srtp", "SRTP_AES128_CM_SHA1_80"];
    let export = ["-keymatexport", LABEL, "-keymatexportlen", "60"];
    Program::start("openssl", "openssl", &[arguments, &profile, &export].concat())
}

/// `gnutls-cli` or `gnutls-serv`; `last` stands behind the options that both need.
fn gnutls(program: &str, port: u16, arguments: &[&str], files: &Files, last: &[&str]) -> Program {
    let (certificate, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let port = port.to_string();
    let profile =
        ["--x509certfile", certificate, "--x509keyfile", key, "--srtp-profiles", "SRTP_AES128_CM_HMAC_SHA1_80"];
    Program::start(program, "gnutls-bin", &[&["--udp", "-p", &port], arguments, &profile, last].concat())
}

#[test]
fn an_openssl_server_shares_our_keys() {
    if switched_off() {
        return;
    }
    for kind in ["rsa", "ecdsa"] {
        let peer = loopback(free_port());
        let server = openssl(&["s_server", "-accept", &peer.to_string(), "-Verify", "1"], &certificate(kind));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let hex = keys(DtlsRole::Client, &socket, Some(peer), kind, &server);
        assert!(server.prints(&hex), "{kind}: {hex}\n{}", server.text());
    }
}

#[test]
fn an_openssl_client_shares_our_keys() {
    if switched_off() {
        return;
    }
    for kind in ["rsa", "ecdsa"] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ours = socket.local_addr().unwrap().to_string();
        let client = openssl(&["s_client", "-connect", &ours], &certificate(kind));
        let hex = keys(DtlsRole::Server, &socket, None, kind, &client);
        assert!(client.prints(&hex), "{kind}: {hex}\n{}", client.text());
    }
}

#[test]
fn a_gnutls_client_shares_our_keys() {
    if switched_off() {
        return;
    }
    for kind in ["rsa", "ecdsa"] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let export = ["--insecure", "--keymatexport", LABEL, "--keymatexportsize", "60"];
        let client = gnutls("gnutls-cli", port, &export, &certificate(kind), &["127.0.0.1"]);
        let hex = keys(DtlsRole::Server, &socket, None, kind, &client);
        assert!(client.prints(&hex), "{kind}: {hex}\n{}", client.text());
    }
}

/// gnutls-serv binds every address and cannot be told otherwise: it runs in a network namespace that has loopback only.
#[test]
fn a_gnutls_server_completes_with_us() {
    if switched_off() {
        return;
    }
    let inner = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c"])
        .arg("ip link set lo up && exec \"$0\" --exact --ignored --nocapture inside_a_namespace_a_gnutls_server_completes")
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap_or_else(|e| panic!("unshare: {e}; install the Debian package util-linux, or set OFFHOOK_INTEROP=none"));
    let text = format!("{}{}", String::from_utf8_lossy(&inner.stdout), String::from_utf8_lossy(&inner.stderr));
    assert!(inner.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by a_gnutls_server_completes_with_us, in its own network namespace"]
fn inside_a_namespace_a_gnutls_server_completes() {
    for kind in ["rsa", "ecdsa"] {
        let port = free_port();
        let server = gnutls("gnutls-serv", port, &["--echo", "-r"], &certificate(kind), &[]);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // It does not print its keys: complete means that both Finished were verified.
        keys(DtlsRole::Client, &socket, Some(loopback(port)), kind, &server);
    }
}

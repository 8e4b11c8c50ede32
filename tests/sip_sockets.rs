//! SIP on real sockets of loopback: UDP, TCP, TLS with a small CA, WebSocket, DNS; against ourselves, `openssl` and a plain
//! WebSocket peer.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

#[path = "common/nameserver.rs"]
mod nameserver;
#[path = "common/sip_party.rs"]
mod sip_party;

use nameserver::{Data, NameServer};
use offhook::config::{SipLocateLimits, SipSocketLimits};
use offhook::io::sip::{SipNetwork, SipSockets, identity};
use offhook::io::tls::TlsIdentity;
use offhook::sip::exchange::{FlowId, Transport};
use offhook::sip::flow::{FlowEvent, FlowFault, SipInput, SipOutput};
use offhook::sip::locate::{Hop, Locator, Target};
use offhook::wire::sip::Uri;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use sip_party::{LIMIT, Party, addr, options};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Sends both ways over one connection that `a` opens to `b`.
async fn both_ways(a: &mut Party, b: &mut Party, transport: Transport, remote: SocketAddr, name: &str) {
    let flow = a.start(transport, remote, name);
    a.send(flow, remote, options(1, 0));
    // Neither waits for the other before the connection stands.
    let (arrived, opened) = tokio::join!(b.message(), a.event());
    assert!(matches!(opened, FlowEvent::Open { .. }), "{opened:?}");
    let (number, back, source) = arrived;
    assert_eq!(number, 1);
    assert_eq!(a.flows.state(flow).unwrap().local.unwrap(), source);
    b.send(back, source, options(2, 30_000));
    assert_eq!(a.message().await.0, 2);
}

/// A CA of our own, and what it issues, in files.
struct Ca {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("offhook-ca-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Laboratory CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for these names: `dns:…`, `uri:…` or `ip:…`. Gives its files.
    fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.split_once(':').unwrap() {
                ("dns", name) => SanType::DnsName(name.try_into().unwrap()),
                ("uri", uri) => SanType::URI(uri.try_into().unwrap()),
                ("ip", ip) => SanType::IpAddress(ip.parse().unwrap()),
                other => panic!("{other:?}"),
            })
            .collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(names, &certificate.pem(), &key.serialize_pem())
    }

    fn write(&self, names: &[&str], certificate: &str, key: &str) -> (PathBuf, PathBuf) {
        let stem: String = names.concat().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let files = (self.folder.join(format!("{stem}.pem")), self.folder.join(format!("{stem}.key")));
        std::fs::write(&files.0, certificate).unwrap();
        std::fs::write(&files.1, key).unwrap();
        files
    }

    fn identity(&self, names: &[&str]) -> TlsIdentity {
        let (certificate, key) = self.issue(names, |_| {});
        TlsIdentity::from_pem_files(&certificate, &key).unwrap()
    }

    /// Trusts this CA, shows `shown`.
    fn client(&self, shown: Option<&TlsIdentity>) -> SipNetwork {
        let tls = identity::client(Some(&self.file()), shown).unwrap();
        SipNetwork { client_tls: Some(tls), ..SipNetwork::default() }
    }

    fn server(&self, names: &[&str]) -> SipNetwork {
        let tls = identity::server(&self.identity(names), None, false).unwrap();
        SipNetwork { server_tls: Some(tls), ..SipNetwork::default() }
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn messages_go_both_ways_over_udp_on_the_address_that_routes_to_the_peer() {
    let (mut a, mut b) = (Party::plain(), Party::plain());
    let (listener, remote) = b.listen(Transport::Udp, "127.0.0.1:0").await;
    let flow = a.open(Transport::Udp, remote, "").await.unwrap();
    let local = a.flows.state(flow).unwrap().local.unwrap();
    assert!(local.ip().is_loopback() && local.port() != 0);
    a.send(flow, remote, options(1, 1000));
    assert_eq!(b.message().await, (1, listener, local));
    b.send(listener, local, options(2, 20_000));
    assert_eq!(a.message().await, (2, flow, remote));
}

#[tokio::test]
async fn a_socket_that_listens_everywhere_is_shared_and_tells_the_address_of_each_way() {
    let (mut a, mut b) = (Party::plain(), Party::plain());
    let (listener, everywhere) = a.listen(Transport::Udp, "0.0.0.0:0").await;
    let (_, remote) = b.listen(Transport::Udp, "127.0.0.1:0").await;
    let flow = a.open(Transport::Udp, remote, "").await.unwrap();
    assert_ne!(flow, listener);
    let local = a.flows.state(flow).unwrap().local.unwrap();
    assert_eq!(local, SocketAddr::new(addr("127.0.0.1:0").ip(), everywhere.port()));
    a.send(flow, remote, options(1, 0));
    let (_, back, source) = b.message().await;
    assert_eq!(source, local);
    b.send(back, source, options(2, 0));
    assert_eq!(a.message().await.1, flow);
    // When the way to one peer is closed the socket still listens.
    a.flows.close(flow);
    a.drain();
    b.send(back, source, options(3, 0));
    assert_eq!(a.message().await.1, listener);
}

#[tokio::test]
async fn messages_go_both_ways_over_tcp_and_the_end_of_it_is_noticed() {
    let (mut a, mut b) = (Party::plain(), Party::plain());
    let (_, remote) = b.listen(Transport::Tcp, "127.0.0.1:0").await;
    both_ways(&mut a, &mut b, Transport::Tcp, remote, "").await;
    let flow = a.start(Transport::Tcp, remote, "");
    // What was sent before a close still arrives.
    a.send(flow, remote, options(3, 60_000));
    a.flows.close(flow);
    a.drain();
    assert_eq!(b.message().await.0, 3);
    assert!(matches!(b.event().await, FlowEvent::Down { why: FlowFault::Closed(_), .. }));
}

#[tokio::test]
async fn thousands_of_messages_in_both_directions_at_once_all_arrive_in_order() {
    const COUNT: u32 = 3000;
    let (mut a, mut b) = (Party::plain(), Party::plain());
    let (_, remote) = b.listen(Transport::Tcp, "127.0.0.1:0").await;
    both_ways(&mut a, &mut b, Transport::Tcp, remote, "").await;
    let flow = a.start(Transport::Tcp, remote, "");
    let back = {
        a.send(flow, remote, options(3, 0));
        b.message().await.1
    };
    async fn talk(party: &mut Party, flow: FlowId, remote: SocketAddr) {
        let mut heard = 0;
        for number in 1..=COUNT {
            party.send(flow, remote, options(number, 500));
            // Answers are taken in between, as an engine does.
            if number % 50 == 0 {
                while heard + 200 < number {
                    heard += 1;
                    assert_eq!(party.message().await.0, heard);
                }
            }
        }
        while heard < COUNT {
            heard += 1;
            assert_eq!(party.message().await.0, heard);
        }
    }
    tokio::join!(talk(&mut a, flow, remote), talk(&mut b, back, remote));
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_at_once() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut a = Party::plain();
    let start = Instant::now();
    for transport in [Transport::Tcp, Transport::Ws] {
        let why = a.open(transport, dead, "pbx.test").await.unwrap_err();
        assert!(matches!(why, FlowFault::Unreachable(_)), "{why:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(2));
    let mut taken = Party::plain();
    let (_, local) = taken.listen(Transport::Udp, "127.0.0.1:0").await;
    a.flows.listen(Instant::now(), Transport::Udp, local).unwrap();
    assert!(matches!(a.event().await, FlowEvent::Down { why: FlowFault::Unreachable(_), .. }));
}

#[tokio::test]
async fn a_peer_that_reads_nothing_does_not_fill_our_memory() {
    let stuck = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = stuck.local_addr().unwrap();
    let mut a = Party::plain();
    let flow = a.open(Transport::Tcp, remote, "").await.unwrap();
    let _held = stuck.accept().await.unwrap();
    let mut bytes = 0usize;
    let why = loop {
        let message = options(1, 60_000);
        bytes += message.len();
        if a.flows.send(Instant::now(), flow, remote, message).is_err() {
            break None;
        }
        if let Some(FlowEvent::Down { why, .. }) = a.event_within(Duration::from_millis(1)).await {
            break Some(why);
        }
        assert!(bytes < 200 * 1024 * 1024, "somebody keeps it all");
    };
    // Kernel buffers take some megabytes; ours one.
    assert!(matches!(why, Some(FlowFault::Closed(_)) | None), "{why:?}");
    assert!(a.flows.state(flow).is_none());
}

#[tokio::test]
async fn tls_carries_messages_where_the_certificate_is_for_the_domain_that_was_asked_for() {
    let ca = Ca::new("good");
    // RFC 5922 §7.1: by DNS name, by SIP URI, by address; a wildcard as hosted PBXs have it.
    for (names, asked) in [
        (&["dns:pbx.test"][..], "pbx.test"),
        (&["uri:sip:pbx.test"][..], "pbx.test"),
        (&["uri:sip:pbx.test", "dns:edge7.test"][..], "PBX.test"),
        (&["ip:127.0.0.1"][..], "127.0.0.1"),
        (&["dns:*.pbx.test"][..], "eu.pbx.test"),
    ] {
        let (mut a, mut b) = (Party::new(ca.client(None)), Party::new(ca.server(names)));
        let (_, remote) = b.listen(Transport::Tls, "127.0.0.1:0").await;
        both_ways(&mut a, &mut b, Transport::Tls, remote, asked).await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_good_is_refused() {
    let ca = Ca::new("bad");
    let stranger = Ca::new("stranger");
    let good = ca.identity(&["dns:pbx.test"]);
    let from = |files: (PathBuf, PathBuf)| TlsIdentity::from_pem_files(&files.0, &files.1).unwrap();
    let expired = from(ca.issue(&["dns:pbx.test"], |p| {
        p.not_before = date_time_ymd(2019, 1, 1);
        p.not_after = date_time_ymd(2020, 1, 1);
    }));
    let early = from(ca.issue(&["dns:pbx.test"], |p| p.not_before = date_time_ymd(2090, 1, 1)));
    let self_signed = {
        let made = rcgen::generate_simple_self_signed(vec!["pbx.test".to_owned()]).unwrap();
        from(ca.write(&["dns:self"], &made.cert.pem(), &made.signing_key.serialize_pem()))
    };
    let client_only =
        from(ca.issue(&["dns:pbx.test"], |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]));
    let rows = [
        ("wrong name", good.clone(), "other.test"),
        ("name of a part", good.clone(), "x.pbx.test"),
        ("address", good, "127.0.0.1"),
        ("expired", expired, "pbx.test"),
        ("not yet valid", early, "pbx.test"),
        ("self-signed", self_signed, "pbx.test"),
        ("of another CA", stranger.identity(&["dns:pbx.test"]), "pbx.test"),
        ("not for servers", client_only, "pbx.test"),
        // RFC 5922 §7.1: a DNS name does not count beside a SIP URI; a URI with a user or another scheme never does.
        ("DNS name beside a SIP URI", ca.identity(&["uri:sip:other.test", "dns:pbx.test"]), "pbx.test"),
        ("URI with a user", ca.identity(&["uri:sip:alice@pbx.test"]), "pbx.test"),
        ("URI of the web", ca.identity(&["uri:https://pbx.test"]), "pbx.test"),
        ("URI of another CA", stranger.identity(&["uri:sip:pbx.test"]), "pbx.test"),
        ("wildcard two deep", ca.identity(&["dns:*.pbx.test"]), "a.b.pbx.test"),
    ];
    for (what, shown, asked) in rows {
        let tls = identity::server(&shown, None, false).unwrap();
        let mut b = Party::new(SipNetwork { server_tls: Some(tls), ..SipNetwork::default() });
        let (_, remote) = b.listen(Transport::Tls, "127.0.0.1:0").await;
        let serving = tokio::spawn(b.run());
        let mut a = Party::new(ca.client(None));
        let why = a.open(Transport::Tls, remote, asked).await.unwrap_err();
        assert!(matches!(why, FlowFault::Certificate(_)), "{what}: {why:?}");
        serving.abort();
    }
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_and_says_which_requests_may_come_back() {
    let ca = Ca::new("client");
    let stranger = Ca::new("client-stranger");
    let serve = |required| {
        let tls = identity::server(&ca.identity(&["dns:pbx.test"]), Some(&ca.file()), required).unwrap();
        Party::new(SipNetwork { server_tls: Some(tls), ..SipNetwork::default() })
    };
    // Required: who has none, or one of another CA, is turned away.
    for shown in [None, Some(stranger.identity(&["dns:biloxi.test"]))] {
        let mut b = serve(true);
        let (_, remote) = b.listen(Transport::Tls, "127.0.0.1:0").await;
        let serving = tokio::spawn(b.run());
        let mut a = Party::new(ca.client(shown.as_ref()));
        // With TLS 1.3 the refusal comes after our own side is done.
        let flow = a.start(Transport::Tls, remote, "pbx.test");
        let why = loop {
            match a.event().await {
                FlowEvent::Down { flow: down, why } if down == flow => break why,
                FlowEvent::Open { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(why, FlowFault::Closed(_) | FlowFault::Unreachable(_)), "{why:?}");
        serving.abort();
    }
    // RFC 5923: a proven name lets requests for that domain come back on the same connection.
    for (required, shown, alias) in [
        (true, Some(ca.identity(&["uri:sip:biloxi.test", "dns:host7.test"])), true),
        (false, Some(ca.identity(&["dns:biloxi.test"])), true),
        (false, None, false),
    ] {
        let mut b = serve(required);
        let (_, remote) = b.listen(Transport::Tls, "127.0.0.1:0").await;
        let mut a = Party::new(ca.client(shown.as_ref()));
        let flow = a.start(Transport::Tls, remote, "pbx.test");
        a.send(flow, remote, options(1, 0));
        let ((_, back, source), _) = tokio::join!(b.message(), a.event());
        let advertised = SocketAddr::new(source.ip(), 5061);
        assert_eq!(b.flows.alias(back, advertised), alias);
        if alias {
            assert_eq!(b.start(Transport::Tls, advertised, "biloxi.test"), back);
            assert_ne!(b.start(Transport::Tls, advertised, "host7.test"), back);
        }
    }
}

#[tokio::test]
async fn without_tls_there_is_no_secure_flow_and_no_secure_listener() {
    let mut a = Party::plain();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let why = a.open(Transport::Tls, listener.local_addr().unwrap(), "pbx.test").await.unwrap_err();
    assert!(matches!(why, FlowFault::Unreachable(_)), "{why:?}");
    a.flows.listen(Instant::now(), Transport::Wss, addr("127.0.0.1:0")).unwrap();
    assert!(matches!(a.event().await, FlowEvent::Down { .. }));
}

#[tokio::test]
async fn websockets_carry_one_message_each_with_and_without_tls() {
    let ca = Ca::new("ws");
    let (mut a, mut b) = (Party::new(ca.client(None)), Party::new(ca.server(&["dns:pbx.test"])));
    for transport in [Transport::Ws, Transport::Wss] {
        let (_, remote) = b.listen(transport, "127.0.0.1:0").await;
        both_ways(&mut a, &mut b, transport, remote, "pbx.test").await;
        let flow = a.start(transport, remote, "pbx.test");
        // A body that is no UTF-8 goes as a binary message.
        let mut binary = options(5, 4);
        let end = binary.len();
        binary[end - 4..].copy_from_slice(&[0xFF, 0xFE, 0, 0x80]);
        a.send(flow, remote, binary);
        assert_eq!(b.message().await.0, 5);
        // Keep-alives are messages of their own.
        a.flows.send(Instant::now(), flow, remote, b"\r\n\r\n".to_vec()).unwrap();
        a.send(flow, remote, options(6, 0));
        assert_eq!(b.message().await.0, 6);
        a.flows.close(flow);
        a.drain();
        assert!(matches!(b.event().await, FlowEvent::Down { .. }));
    }
}

#[tokio::test]
async fn a_websocket_without_the_subprotocol_of_sip_is_none() {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    // A server that does not choose it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            drop(tokio_tungstenite::accept_async(tcp).await);
        }
    });
    let mut a = Party::plain();
    let why = a.open(Transport::Ws, remote, "pbx.test").await.unwrap_err();
    assert!(matches!(why, FlowFault::Unreachable(_)), "{why:?}");
    // A client that does not offer it, and one that does.
    let mut b = Party::plain();
    let (_, local) = b.listen(Transport::Ws, "127.0.0.1:0").await;
    let serving = tokio::spawn(b.run());
    for (offered, fine) in [(None, false), (Some("xmpp"), false), (Some("chat, SIP"), true)] {
        let mut request = format!("ws://{local}/").into_client_request().unwrap();
        if let Some(offered) = offered {
            request.headers_mut().insert("Sec-WebSocket-Protocol", offered.parse().unwrap());
        }
        let tcp = TcpStream::connect(local).await.unwrap();
        // The library's client compares subprotocols with case; a refusal is the server's.
        let answer = tokio_tungstenite::client_async(request, tcp).await;
        let refused = matches!(&answer, Err(tokio_tungstenite::tungstenite::Error::Http(r)) if r.status() == 400);
        assert_eq!(!refused, fine, "{offered:?}: {answer:?}");
    }
    serving.abort();
}

#[tokio::test]
async fn silent_handshakes_of_one_address_do_not_keep_others_out() {
    let ca = Ca::new("flood");
    let mut network = ca.server(&["dns:pbx.test"]);
    network.limits = SipSocketLimits { handshake: Duration::from_secs(3), ..SipSocketLimits::default() };
    let mut b = Party::new(network);
    let (_, remote) = b.listen(Transport::Tls, "127.0.0.1:0").await;
    let serving = tokio::spawn(async move {
        let mut messages = 0;
        while messages < 20 {
            if let Some(FlowEvent::Message { .. }) = b.event_within(LIMIT).await {
                messages += 1;
            }
        }
        b
    });
    let mut silent = Vec::new();
    for _ in 0..500 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(addr("127.0.0.2:0")).unwrap();
        silent.push(socket.connect(remote).await.unwrap());
    }
    // An honest one gets in while they hang there.
    let mut worst = Duration::ZERO;
    for number in 0..20 {
        let start = Instant::now();
        let mut a = Party::new(ca.client(None));
        let flow = a.open(Transport::Tls, remote, "pbx.test").await.unwrap();
        a.send(flow, remote, options(number, 0));
        a.flows.close(flow);
        a.drain();
        worst = worst.max(start.elapsed());
    }
    println!("worst honest handshake beside 500 silent ones: {worst:?}");
    assert!(worst < Duration::from_secs(2), "{worst:?}");
    let mut b = tokio::time::timeout(LIMIT, serving).await.unwrap().unwrap();
    // The silent ones are cut.
    let mut byte = [0; 1];
    for one in &mut silent {
        let cut = tokio::time::timeout(Duration::from_secs(5), one.read(&mut byte));
        tokio::select! {
            cut = cut => assert!(matches!(cut, Ok(Ok(0) | Err(_))), "{cut:?}"),
            _ = b.event_within(LIMIT) => {}
        }
    }
}

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `openssl` with these arguments, its standard input and output ours.
fn openssl(arguments: &[&str]) -> (Program, std::process::ChildStdin, tokio::sync::mpsc::Receiver<Vec<u8>>) {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = std::io::Read::read(&mut stdout, &mut buffer) {
            if n == 0 || sender.blocking_send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    (Program(child), stdin, receiver)
}

async fn heard(output: &mut tokio::sync::mpsc::Receiver<Vec<u8>>, text: &str) {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(text) {
        let more = tokio::time::timeout(LIMIT, output.recv()).await.expect("in time").expect("more output");
        all.extend(more);
    }
}

#[tokio::test]
async fn tls_is_understood_by_openssl_on_either_side() {
    use std::io::Write;
    let ca = Ca::new("openssl");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = ca.issue(&["dns:pbx.test"], |_| {});
    for version in ["-tls1_2", "-tls1_3"] {
        // It listens.
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let accept = format!("127.0.0.1:{port}");
        let arguments =
            ["s_server", "-quiet", version, "-accept", &accept, "-cert", &text(&certificate), "-key", &text(&key)];
        let (_program, mut stdin, mut stdout) = openssl(&arguments);
        let mut a = Party::new(ca.client(None));
        let start = Instant::now();
        let flow = loop {
            match a.open(Transport::Tls, addr(&accept), "pbx.test").await {
                Ok(flow) => break flow,
                Err(FlowFault::Unreachable(_)) if start.elapsed() < LIMIT => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(why) => panic!("{version}: {why:?}"),
            }
        };
        a.send(flow, addr(&accept), options(1, 0));
        heard(&mut stdout, "CSeq: 1 OPTIONS").await;
        stdin.write_all(&options(2, 10)).unwrap();
        stdin.flush().unwrap();
        assert_eq!(a.message().await.0, 2);

        // It connects, and shows a certificate.
        let own = ca.identity(&["dns:pbx.test"]);
        let tls = identity::server(&own, Some(&ca.file()), true).unwrap();
        let mut b = Party::new(SipNetwork { server_tls: Some(tls), ..SipNetwork::default() });
        let (_, local) = b.listen(Transport::Tls, "127.0.0.1:0").await;
        let (to, ca_file) = (local.to_string(), text(&ca.file()));
        let (certificate, key) = ca.issue(&["dns:phone.test"], |_| {});
        let arguments = [
            "s_client",
            "-quiet",
            version,
            "-connect",
            &to,
            "-servername",
            "pbx.test",
            "-verify_hostname",
            "pbx.test",
            "-verify_return_error",
            "-CAfile",
            &ca_file,
            "-cert",
            &text(&certificate),
            "-key",
            &text(&key),
        ];
        let (_program, mut stdin, mut stdout) = openssl(&arguments);
        stdin.write_all(&options(3, 0)).unwrap();
        stdin.flush().unwrap();
        let (number, back, source) = b.message().await;
        assert_eq!(number, 3);
        assert!(b.flows.alias(back, SocketAddr::new(source.ip(), 5061)));
        b.send(back, source, options(4, 0));
        heard(&mut stdout, "CSeq: 4 OPTIONS").await;
    }
}

#[tokio::test]
async fn naptr_srv_and_addresses_come_from_a_real_name_server() {
    let server = NameServer::start(
        vec![
            ("pbx.test", Data::Naptr(10, 1, "SIPS+D2T", "_sips._tcp.pbx.test")),
            ("pbx.test", Data::Naptr(20, 1, "SIP+D2U", "_sip._udp.pbx.test")),
            ("_sips._tcp.pbx.test", Data::Srv(1, 0, 5071, "one.pbx.test")),
            ("_sip._udp.pbx.test", Data::Srv(2, 0, 5073, "two.pbx.test")),
            ("_sip._udp.pbx.test", Data::Srv(1, 0, 5072, "one.pbx.test")),
            ("one.pbx.test", Data::A("127.0.0.1".parse().unwrap())),
            ("two.pbx.test", Data::A("127.0.0.2".parse().unwrap())),
            ("bare.test", Data::A("127.0.0.3".parse().unwrap())),
        ],
        vec!["mute.test", "_sip._udp.mute.test", "_sip._tcp.mute.test", "_sips._tcp.mute.test"],
    );
    let network = SipNetwork { dns_servers: vec![server.addr], ..SipNetwork::default() };
    let mut sockets = SipSockets::new(network);
    let mut locator = Locator::new([5; 32], SipLocateLimits::default());
    let targets = async |locator: &mut Locator, sockets: &mut SipSockets, text: &str| -> Vec<Target> {
        let Uri::Sip(uri) = text.parse::<Uri>().unwrap() else { panic!("{text}") };
        locator.locate(Instant::now(), 1, &Hop::of(&uri).unwrap());
        loop {
            if let Some(located) = locator.poll_located() {
                return located.targets;
            }
            while let Some(query) = locator.poll_query() {
                sockets.handle(SipOutput::LookUp(query));
            }
            sockets.next().await.give(|input| match input {
                SipInput::Found { query, answer } => locator.handle_answer(Instant::now(), &query, answer),
                other => panic!("{other:?}"),
            });
        }
    };
    let words = |targets: Vec<Target>| -> Vec<String> {
        targets.iter().map(|t| format!("{} {} {}", t.transport.via(), t.remote, t.name)).collect()
    };
    assert_eq!(
        words(targets(&mut locator, &mut sockets, "sip:pbx.test").await),
        ["TLS 127.0.0.1:5071 pbx.test", "UDP 127.0.0.1:5072 ", "UDP 127.0.0.2:5073 "]
    );
    assert_eq!(words(targets(&mut locator, &mut sockets, "sip:bare.test").await), ["UDP 127.0.0.3:5060 "]);
    assert_eq!(targets(&mut locator, &mut sockets, "sip:nowhere.test").await, []);
    // A server that does not answer ends the search within the times of the look-ups.
    let start = Instant::now();
    assert_eq!(targets(&mut locator, &mut sockets, "sip:mute.test").await, []);
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_plain_peer_that_writes_byte_by_byte_is_understood() {
    let mut b = Party::plain();
    let (_, local) = b.listen(Transport::Tcp, "127.0.0.1:0").await;
    let mut peer = TcpStream::connect(local).await.unwrap();
    peer.set_nodelay(true).unwrap();
    let writing = tokio::spawn(async move {
        for byte in options(9, 3) {
            peer.write_all(&[byte]).await.unwrap();
        }
        // A ping is answered.
        peer.write_all(b"\r\n\r\n").await.unwrap();
        let mut answer = [0; 2];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"\r\n");
    });
    assert_eq!(b.message().await.0, 9);
    let serving = tokio::spawn(b.run());
    tokio::time::timeout(LIMIT, writing).await.unwrap().unwrap();
    serving.abort();
}

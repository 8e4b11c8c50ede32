//! SOCKS5 bytestreams over real sockets: between two of our own shells, with curl as a client that knows nothing of us,
//! through the proxy of a real Prosody, and under hostile connections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/raw.rs"]
mod raw;

use offhook::config::{BytestreamLimits, XmlLimits};
use offhook::io::bytestream::{BytestreamFault, BytestreamReport, Bytestreams, Streamhost, own_networks};
use offhook::io::dns::Dns;
use offhook::io::udp::BindPolicy;
use offhook::transport::dial::DialPolicy;
use offhook::transport::s5b::StreamId;
use offhook::transport::socks5::{HandshakeFault, Reply, dst_addr};
use offhook::wire::bytestream::Bytestreams as Query;
use offhook::wire::jid::Jid;
use offhook::wire::ns;
use offhook::wire::stanza::{Iq, IqKind, IqPayload, Stanza};
use offhook::wire::xml::Writer;
use offhook::xmpp::proxies::{ProxyFinder, ProxyQuery};
use offhook::xmpp::requests::Outcome;
use prosody::Lab;
use raw::Raw;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

const HASH: &str = "972b7bf47291ca609517f67f86b5081086052dad";
const SOON: Duration = Duration::from_secs(20);

struct Shell {
    streams: Bytestreams<u8>,
    reports: mpsc::Receiver<BytestreamReport<u8>>,
}

impl Shell {
    fn new(limits: BytestreamLimits) -> Self {
        let (sender, reports) = mpsc::channel(16);
        Self { streams: Bytestreams::new(sender, Dns::new(), limits), reports }
    }

    /// Listens on 127.0.0.1 for [`HASH`].
    async fn listen(&mut self, key: u8, hash: &str) -> SocketAddr {
        let policy = BindPolicy { lab: true, only: vec!["127.0.0.1".parse().unwrap()], ..BindPolicy::default() };
        let bound = self.streams.listen(key, [hash.to_owned()], &policy).await.unwrap();
        assert_eq!(bound.len(), 1);
        bound[0]
    }

    fn dial(&mut self, stream: u64, at: SocketAddr, hash: &str) {
        let policy = DialPolicy { lab: true, ..DialPolicy::default() };
        let to = Streamhost { host: at.ip().to_string(), port: at.port(), dst_addr: hash.into(), policy };
        self.streams.dial(1, StreamId(stream), to, Instant::now() + Duration::from_secs(5));
    }

    async fn report(&mut self) -> BytestreamReport<u8> {
        timeout(SOON, self.reports.recv()).await.expect("a report in time").unwrap()
    }

    async fn opened(&mut self) -> (u8, TcpStream, Option<SocketAddr>) {
        match self.report().await {
            BytestreamReport::Open { key, stream, local } => {
                (key, self.streams.take(key, stream).await.expect("it is still there"), local)
            }
            BytestreamReport::Down { why, .. } => panic!("{why}"),
        }
    }

    async fn down(&mut self) -> BytestreamFault {
        match self.report().await {
            BytestreamReport::Down { why, .. } => why,
            BytestreamReport::Open { .. } => panic!("it is open"),
        }
    }
}

/// Sends a pattern one way and checks it at the other end.
async fn carry(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) {
    let pattern: Vec<u8> = (0..bytes).map(|n| ((n * 31) >> 3) as u8).collect();
    let mut got = vec![0; bytes];
    let both = async { tokio::join!(from.write_all(&pattern), to.read_exact(&mut got)) };
    let (sent, read) = timeout(Duration::from_secs(60), both).await.expect("the bytes come through in time");
    sent.unwrap();
    read.unwrap();
    assert!(got == pattern, "the bytes are others");
}

#[tokio::test]
async fn two_shells_connect_and_no_byte_of_the_file_is_lost() {
    let (mut listening, mut dialling) =
        (Shell::new(BytestreamLimits::default()), Shell::new(BytestreamLimits::default()));
    let at = listening.listen(7, HASH).await;
    dialling.dial(3, at, HASH);
    let (_, mut dialled, none) = dialling.opened().await;
    // Written before the other side has taken its end: nothing of it may be read by anybody else.
    dialled.write_all(b"early").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (key, mut accepted, local) = listening.opened().await;
    assert_eq!((key, local, none), (7, Some(at), None));
    assert!(accepted.nodelay().unwrap() && dialled.nodelay().unwrap());
    let mut early = [0; 5];
    accepted.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    carry(&mut dialled, &mut accepted, 3_000_000).await;
    carry(&mut accepted, &mut dialled, 100_000).await;
}

#[tokio::test]
async fn a_wrong_dst_addr_is_refused_and_the_listener_goes_on() {
    let (mut listening, mut dialling) =
        (Shell::new(BytestreamLimits::default()), Shell::new(BytestreamLimits::default()));
    let at = listening.listen(7, HASH).await;
    dialling.dial(1, at, &HASH.replace('9', "8"));
    let why = dialling.down().await;
    assert!(matches!(why, BytestreamFault::Handshake(HandshakeFault::Refused(Reply::NOT_ALLOWED))), "{why}");
    // One port serves several streams; each goes to its own.
    let other = HASH.replace('9', "7");
    assert_eq!(listening.listen(8, &other).await, at);
    dialling.dial(2, at, &other);
    assert_eq!(listening.opened().await.0, 8);
    listening.streams.close(8);
    dialling.opened().await;
    dialling.dial(3, at, &other);
    assert!(matches!(dialling.down().await, BytestreamFault::Handshake(_)));
    // With nobody left to expect, the port is closed.
    listening.streams.close(7);
    let mut refused = false;
    for _ in 0..100 {
        refused = refused || TcpStream::connect(at).await.is_err();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(refused);
}

#[tokio::test]
async fn a_peer_that_sends_a_byte_a_second_is_closed_and_keeps_nobody_out() {
    let limits = BytestreamLimits { half_open: 4, handshake: Duration::from_secs(2), ..BytestreamLimits::default() };
    let (mut listening, mut dialling) = (Shell::new(limits), Shell::new(BytestreamLimits::default()));
    let at = listening.listen(7, HASH).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(TcpStream::connect(at).await.unwrap());
    }
    let start = Instant::now();
    // Far more than may be half open: the oldest make room, an honest one comes through at once.
    dialling.dial(1, at, HASH);
    dialling.opened().await;
    listening.opened().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let mut last = slow.pop().unwrap();
    let greeting = [5, 255, 2, 2, 2, 2, 2, 2];
    let mut sent = 0;
    let closed = loop {
        let mut byte = [0; 1];
        match timeout(Duration::from_millis(500), last.read(&mut byte)).await {
            Ok(ended) => break ended,
            Err(_) if sent < greeting.len() => {
                let _ = last.write_all(&greeting[sent..=sent]).await;
                sent += 1;
            }
            Err(_) => panic!("still open after {:?}", start.elapsed()),
        }
    };
    assert!(matches!(closed, Ok(0) | Err(_)) && start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for mut slow in slow {
        let mut byte = [0; 1];
        let ended = timeout(Duration::from_secs(1), slow.read(&mut byte)).await.expect("closed by now");
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn junk_on_the_port_is_closed_without_a_report() {
    let mut listening = Shell::new(BytestreamLimits::default());
    let at = listening.listen(7, HASH).await;
    let long = [vec![5, 1, 0, 5, 1, 0, 3, 255], vec![b'x'; 4000]].concat();
    for junk in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[22, 3, 1, 0, 200], &[5, 1, 2], &[5, 0], &long] {
        let mut tcp = TcpStream::connect(at).await.unwrap();
        let _ = tcp.write_all(junk).await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(3), tcp.read_to_end(&mut answer)).await.expect("closed at once");
        assert!(answer.len() <= 264);
    }
    assert!(listening.reports.try_recv().is_err());
}

#[tokio::test]
async fn what_is_lost_or_hung_up_while_it_waits_is_closed() {
    let (mut listening, mut dialling) =
        (Shell::new(BytestreamLimits::default()), Shell::new(BytestreamLimits::default()));
    let at = listening.listen(7, HASH).await;
    dialling.dial(1, at, HASH);
    let BytestreamReport::Open { key, stream, .. } = dialling.report().await else { panic!("not open") };
    let BytestreamReport::Open { stream: accepted, .. } = listening.report().await else { panic!("not open") };
    assert!(accepted.0 >= 1 << 32);
    dialling.streams.hang_up(key, stream);
    assert!(dialling.streams.take(key, stream).await.is_none());
    let BytestreamReport::Down { stream: lost, .. } = listening.report().await else { panic!("still open") };
    assert_eq!(lost, accepted);
    assert!(listening.streams.take(7, accepted).await.is_none());
    // Hung up while it connects: no report comes.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    dialling.dial(2, silent.local_addr().unwrap(), HASH);
    dialling.streams.hang_up(1, StreamId(2));
    // One that never answers is down in time.
    let policy = DialPolicy { lab: true, ..DialPolicy::default() };
    let port = silent.local_addr().unwrap().port();
    let to = Streamhost { host: "localhost".into(), port, dst_addr: HASH.into(), policy };
    dialling.streams.dial(1, StreamId(3), to, Instant::now() + Duration::from_millis(700));
    let BytestreamReport::Down { stream, why, .. } = dialling.report().await else { panic!("it is open") };
    assert_eq!(stream, StreamId(3));
    assert!(matches!(why, BytestreamFault::TimedOut), "{why}");
}

#[tokio::test]
async fn a_name_that_resolves_to_this_machine_is_not_dialled() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let host_name = std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    for host in ["localhost", "127.0.0.1", "::ffff:127.0.0.1", "127.1", "0", "ip6-localhost", host_name.as_str()] {
        let mut shell = Shell::new(BytestreamLimits::default());
        let to = Streamhost { host: host.into(), port, dst_addr: HASH.into(), policy: DialPolicy::default() };
        shell.streams.dial(1, StreamId(1), to, Instant::now() + Duration::from_secs(5));
        let why = shell.down().await;
        let reached = listener.accept().is_ok();
        assert!(!reached, "{host}: connected");
        if host != host_name {
            assert!(matches!(why, BytestreamFault::NotAllowed | BytestreamFault::NotFound), "{host}: {why}");
        }
    }
    assert!(own_networks().iter().all(|(ip, _)| !ip.is_loopback()));
}

/// curl (Debian package `curl`) as a SOCKS5 client: it asks for the hash as for the name of a web server.
#[tokio::test(flavor = "multi_thread")]
async fn curl_connects_through_us_as_its_socks5_proxy() {
    let mut listening = Shell::new(BytestreamLimits::default());
    let at = listening.listen(7, HASH).await;
    let curl = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--noproxy", ""])
        .arg("--socks5-hostname")
        .arg(at.to_string())
        .arg(format!("http://{HASH}/file"))
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .env_remove("all_proxy")
        .env_remove("ALL_PROXY")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("curl, of the Debian package `curl`");
    let (_, mut tcp, _) = listening.opened().await;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(tcp.read_u8().await.unwrap());
    }
    assert!(request.starts_with(b"GET /file HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&request));
    let body = "x".repeat(100_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    tcp.write_all(answer.as_bytes()).await.unwrap();
    let output = curl.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, body.as_bytes());
}

/// Asks the server by hand what the finder wants to know.
fn ask(raw: &mut Raw, query: &ProxyQuery) -> Outcome {
    let iq = Iq::new(Some(query.to.clone()), "q", IqKind::Get(query.payload()));
    match exchange(raw, iq).kind {
        IqKind::Result(payload) => Outcome::Result(payload),
        IqKind::Error { .. } => Outcome::TimedOut,
        IqKind::Get(_) | IqKind::Set(_) => panic!("no answer"),
    }
}

fn exchange(raw: &mut Raw, iq: Iq) -> Iq {
    let mut text = String::new();
    Stanza::Iq(iq).write(&mut Writer::new(&mut text));
    let got = raw.ask(&text, "id='q'");
    // An answer ends with its own end tag, or is empty.
    let mut got = got[got.find("<iq ").unwrap()..].to_owned();
    while !(got.ends_with("</iq>") || got.ends_with("/>") && got.matches('<').count() == 1) {
        got.push_str(&raw.ask("", ">"));
    }
    match Stanza::parse(&got, ns::CLIENT, &XmlLimits::default()) {
        Ok(Stanza::Iq(iq)) => iq,
        other => panic!("{other:?} of {got}"),
    }
}

fn found_proxy(raw: &mut Raw) -> offhook::wire::bytestream::Streamhost {
    let own = raw.jid.parse::<Jid>().unwrap();
    let mut finder = ProxyFinder::new(&own.to_bare(), Vec::new());
    finder.begin(Instant::now());
    while let Some(query) = finder.poll_request() {
        let outcome = ask(raw, &query);
        finder.handle_answer(&query, outcome);
    }
    assert!(finder.is_settled());
    finder.proxies().first().expect("the server has a proxy").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_prosody_is_found_activated_and_carries_a_file() {
    let lab = Lab::shared();
    let (romeo, juliet) = lab.pair();
    let mut requester = Raw::sign_in(&lab, &romeo);
    let target = Raw::sign_in(&lab, &juliet);
    let proxy = found_proxy(&mut requester);
    assert_eq!((proxy.jid.as_str(), proxy.port), ("proxy.alpha.test", 5000));
    assert_eq!(proxy.host, lab.alpha.ip.to_string());

    let at: SocketAddr = SocketAddr::new(proxy.host.parse().unwrap(), proxy.port);
    for (n, bytes) in [1, 5_000, 100_001, 16 << 20].into_iter().enumerate() {
        let sid = format!("s5b-lab-{n}");
        let hash = dst_addr(&sid, &requester.jid, &target.jid);
        let (mut ours, mut theirs) = (Shell::new(BytestreamLimits::default()), Shell::new(BytestreamLimits::default()));
        // The order of XEP-0260: the peer first, then who offered the proxy.
        theirs.dial(1, at, &hash);
        let (_, mut receiving, _) = theirs.opened().await;
        ours.dial(1, at, &hash);
        let (_, mut sending, _) = ours.opened().await;
        let target = Some(target.jid.parse().unwrap());
        let activate = Query { sid: Some(sid), activate: target, ..Query::default() };
        let iq = Iq::new(Some(proxy.jid.clone()), "q", IqKind::Set(IqPayload::Bytestreams(Box::new(activate))));
        let answer = exchange(&mut requester, iq);
        assert!(matches!(answer.kind, IqKind::Result(_)), "{answer:?}");
        carry(&mut receiving, &mut sending, 100).await;
        let pattern: Vec<u8> = (0..bytes).map(|n| ((n * 31) >> 3) as u8).collect();
        let mut got = Vec::new();
        // Prosody 0.12 keeps up to 4 KiB of the end to itself until the sender closes its half.
        let send = async {
            sending.write_all(&pattern).await?;
            sending.shutdown().await
        };
        let start = Instant::now();
        let both = async { tokio::join!(send, receiving.read_to_end(&mut got)) };
        let (sent, read) = timeout(Duration::from_secs(60), both).await.expect("the bytes come through in time");
        sent.unwrap();
        read.unwrap();
        assert!(got == pattern, "{} of {bytes} bytes, or others", got.len());
        eprintln!("{bytes} bytes through the proxy in {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn activating_a_stream_that_nobody_connected_to_is_refused_by_prosody() {
    let lab = Lab::shared();
    let (romeo, _) = lab.pair();
    let mut requester = Raw::sign_in(&lab, &romeo);
    let proxy = found_proxy(&mut requester);
    let activate =
        Query { sid: Some("nobody".into()), activate: Some("juliet@beta.test/x".parse().unwrap()), ..Query::default() };
    let iq = Iq::new(Some(proxy.jid), "q", IqKind::Set(IqPayload::Bytestreams(Box::new(activate))));
    let answer = exchange(&mut requester, iq);
    assert!(matches!(answer.kind, IqKind::Error { .. }), "{answer:?}");
}

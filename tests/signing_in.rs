//! Signing in with the whole client over real TLS: which mechanism is used, who is refused and before what, what a broken
//! connection or a restarted server does to a call, and how a domain's servers are found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/nameserver.rs"]
mod nameserver;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/raw.rs"]
mod raw;

use nameserver::{Data, NameServer};
use offhook::client::{Call, CallEvent, Client, ClientBuilder, ClientEvent, Ended, FRAME, Frame, Signalling};
use offhook::endpoint::MediaConfig;
use offhook::error::Error;
use offhook::io::dns::{Dns, Target};
use offhook::wire::jid::Jid;
use prosody::coturn::wanted;
use prosody::{BETA, Lab, PASSWORD};
use proxy::Proxy;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

fn account(jid: &str) -> ClientBuilder {
    let media = MediaConfig { lab: true, ..MediaConfig::default() };
    Client::builder().account(Jid::new(jid).unwrap()).password(PASSWORD).media(media)
}

fn at(lab: &Lab, jid: &str) -> ClientBuilder {
    account(jid).ca_file(&lab.ca_file).server(lab.server_of(jid).ip.to_string(), 5222, false)
}

fn through(lab: &Lab, jid: &str, proxy: &Proxy) -> ClientBuilder {
    account(jid).ca_file(&lab.ca_file).server(proxy.addr.ip().to_string(), proxy.addr.port(), false)
}

async fn signalling(client: &mut Client, wanted: Signalling, limit: Duration) {
    let wait = async {
        loop {
            match client.next_event().await {
                Some(ClientEvent::Signalling(state)) if state == wanted => return,
                Some(ClientEvent::Refused(why)) => panic!("refused: {why}"),
                Some(_) => {}
                None => panic!("the client is gone"),
            }
        }
    };
    timeout(limit, wait).await.unwrap_or_else(|_| panic!("not {wanted:?} within {limit:?}"));
}

/// Frames of 20 ms that a busy test machine may be late with; a broken path would be silent for hundreds.
const LONGEST_GAP: usize = 5;

/// A tone in, and what comes out: one entry a frame, true if something is heard.
struct Ear {
    heard: mpsc::UnboundedReceiver<bool>,
}

impl Ear {
    async fn of(call: &Call) -> Self {
        let (speaker, mut frames) = call.audio().await;
        let (tell, heard) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut clock = tokio::time::interval(FRAME);
            let mut phase = 0.0f64;
            loop {
                tokio::select! {
                    _ = clock.tick() => {
                        let mut frame: Frame = [0; 960];
                        for sample in &mut frame {
                            phase += std::f64::consts::TAU * 440.0 / 48_000.0;
                            *sample = (phase.sin() * 8_000.0) as i16;
                        }
                        speaker.send(&frame).await;
                    }
                    frame = frames.recv() => {
                        let Some(frame) = frame else { return };
                        let energy: f64 = frame.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / 960.0;
                        let _ = tell.send(energy.sqrt() > 1_000.0);
                    }
                }
            }
        });
        Self { heard }
    }

    /// Frames that came since the last time, and the longest run of silent ones among them.
    fn since(&mut self) -> (usize, usize) {
        let (mut all, mut run, mut longest) = (0, 0, 0);
        while let Ok(loud) = self.heard.try_recv() {
            all += 1;
            run = if loud { 0 } else { run + 1 };
            longest = longest.max(run);
        }
        (all, longest)
    }
}

async fn ended(call: &mut Call) -> Ended {
    loop {
        match call.next_event().await {
            Some(CallEvent::Ended(ended)) => return ended,
            Some(_) => {}
            None => panic!("a call vanished"),
        }
    }
}

/// Takes the next call.
async fn taken(client: &mut Client) -> Call {
    client.incoming().await.expect("a call").accept().await.unwrap()
}

fn host(addr: SocketAddr) -> (String, u16) {
    (addr.ip().to_string(), addr.port())
}

/// An address where connections neither stand nor fail: its queue is full.
async fn black_hole() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(addr)).await {
        waiting.push(stream);
    }
    (listener, waiting, addr)
}

async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn starttls_and_direct_tls_sign_in_with_the_best_mechanism() {
    if !wanted("starttls_and_direct_tls_sign_in_with_the_best_mechanism") {
        return;
    }
    let lab = Lab::shared();
    let ip = lab.alpha.ip.to_string();
    for (port, direct) in [(5222, false), (5223, true)] {
        let start = Instant::now();
        let user = if direct { "romeo" } else { "juliet" };
        let builder = account(&format!("{user}@alpha.test")).ca_file(&lab.ca_file).resource("signing-in");
        let client = builder.server(&ip, port, direct).build().await.unwrap();
        println!("signed in after {:?} with {:?}", start.elapsed(), client.mechanism());
        assert_eq!(client.jid().unwrap().as_str(), format!("{user}@alpha.test/signing-in"));
        // Prosody 0.12 binds with tls-unique only, which TLS 1.3 does not have (RFC 9266 §1): it offers no -PLUS then, and we
        // say "y", so that a stripped offer would be noticed. A newer one offers tls-exporter, which has to be used.
        let used = client.mechanism().unwrap();
        let bound = lab.alpha.log().contains("SCRAM-SHA-256-PLUS");
        assert_eq!(used, if bound { "SCRAM-SHA-256-PLUS" } else { "SCRAM-SHA-256" });
        client.close().await;
        let log = lab.alpha.log();
        assert!(log.contains(&format!("mechanism='{used}'")), "the server saw another mechanism");
        assert!(log.contains(&format!("{user}@alpha.test/signing-in")), "the server knows the resource");
    }
}

/// RFC 9266 and RFC 5802 §6 against somebody else's code: the password counts on this very TLS 1.3 connection only.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_tls_exporter_gets_the_password_bound_to_the_connection() {
    if !wanted("a_server_that_knows_tls_exporter_gets_the_password_bound_to_the_connection") {
        return;
    }
    let lab = Lab::start_newer();
    let ip = lab.alpha.ip.to_string();
    for (port, direct) in [(5222, false), (5223, true)] {
        let builder = account("romeo@alpha.test").ca_file(&lab.ca_file).server(&ip, port, direct);
        let client = builder.build().await.unwrap();
        assert_eq!(client.mechanism(), Some("SCRAM-SHA-256-PLUS"));
        client.close().await;
    }
    let wrong = account("romeo@alpha.test").ca_file(&lab.ca_file).server(&ip, 5222, false).password("wrong");
    assert!(matches!(wrong.build().await, Err(Error::Authentication(_))));
    let log = lab.alpha.log();
    assert!(log.contains("Channel binding 'tls-exporter' supported") && log.contains("SCRAM-SHA-256-PLUS"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_account_are_told_apart_from_a_dead_server() {
    if !wanted("a_wrong_password_and_an_unknown_account_are_told_apart_from_a_dead_server") {
        return;
    }
    let lab = Lab::shared();
    for jid in ["nurse@alpha.test", "nobody@alpha.test"] {
        match at(&lab, jid).password("wrong").build().await {
            Err(Error::Authentication(text)) => assert!(text.contains("the password is wrong"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    let (dead_host, dead_port) = host(nobody().await);
    let refused = account("nurse@alpha.test").server(&dead_host, dead_port, false).build().await.unwrap_err();
    let refused = match refused {
        Error::Unreachable(text) => text,
        other => panic!("{other:?}"),
    };
    assert!(refused.contains(&dead_host) && refused.contains(&dead_port.to_string()), "{refused}");
    assert!(refused.contains("refused"), "{refused}");
    let unknown = account("nurse@alpha.test").server("no-such-host.invalid", 5222, false).build().await.unwrap_err();
    let unknown = unknown.to_string();
    assert!(unknown.contains("no-such-host.invalid port 5222") && unknown.contains("unknown"), "{unknown}");
    let (_listener, _waiting, hole) = black_hole().await;
    let (host, port) = host(hole);
    let start = Instant::now();
    let silent = account("nurse@alpha.test").server(&host, port, false).build().await.unwrap_err().to_string();
    assert!(silent.contains(&port.to_string()) && silent.contains("no answer within"), "{silent}");
    assert!(start.elapsed() < Duration::from_secs(12));
    println!("{refused}\n{unknown}\n{silent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_or_foreign_certificate_ends_it_before_any_password() {
    if !wanted("an_untrusted_or_foreign_certificate_ends_it_before_any_password") {
        return;
    }
    // A laboratory of its own, so that its log is of this test alone.
    let lab = Lab::start();
    let ip = lab.alpha.ip.to_string();
    for (port, direct) in [(5222, false), (5223, true)] {
        let unknown = account("romeo@alpha.test").server(&ip, port, direct).build().await.unwrap_err();
        assert!(matches!(&unknown, Error::Security(_)), "{unknown:?}");
        // The certificate is alpha.test's, whatever address was given.
        let foreign = account("romeo@beta.test").ca_file(&lab.ca_file).server(&ip, port, direct).build().await;
        let foreign = foreign.unwrap_err();
        assert!(matches!(&foreign, Error::Security(_) | Error::Unreachable(_)), "{foreign:?}");
        println!("{unknown}\n{foreign}");
    }
    let log = lab.alpha.log();
    assert!(log.contains("c2s"), "the connections are in the log");
    assert!(!log.contains("<auth") && !log.contains("mechanism="), "a password was on its way");
}

/// A server of one connection that offers these features without TLS; gives everything that the client said.
async fn offers(features: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let said = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = String::new();
        let mut buffer = [0; 4096];
        let header = "<stream:stream from='alpha.test' id='x' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";
        let _ = stream.write_all(format!("{header}<stream:features>{features}</stream:features>").as_bytes()).await;
        while let Ok(Ok(n)) = timeout(Duration::from_secs(3), stream.read(&mut buffer)).await {
            if n == 0 {
                break;
            }
            said.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        said
    });
    (addr, said)
}

const MECHANISMS: &str = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism>\
                          <mechanism>SCRAM-SHA-1</mechanism></mechanisms>";
const PLAIN_ONLY: &str =
    "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>";

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_nothing_is_said_and_plain_is_never_used_there() {
    // Not allowed: even loopback hears the header only.
    let (addr, said) = offers(MECHANISMS).await;
    let (ip, port) = host(addr);
    let refused = account("romeo@alpha.test").server(&ip, port, false).build().await.unwrap_err();
    assert!(matches!(&refused, Error::Security(_)), "{refused:?}");
    let said = said.await.unwrap();
    assert!(said.contains("<stream:stream") && !said.contains("<auth") && !said.contains("romeo"), "{said}");
    // Allowed: SCRAM proves the password without showing it.
    let (addr, said) = offers(MECHANISMS).await;
    let (ip, port) = host(addr);
    let build = account("romeo@alpha.test").server(&ip, port, false).insecure_plaintext().build();
    let _ = timeout(Duration::from_secs(4), build).await;
    let said = said.await.unwrap();
    assert!(said.contains("mechanism='SCRAM-SHA-1'") || said.contains("mechanism=\"SCRAM-SHA-1\""), "{said}");
    // PLAIN would show it.
    let (addr, said) = offers(PLAIN_ONLY).await;
    let (ip, port) = host(addr);
    let refused = account("romeo@alpha.test").server(&ip, port, false).insecure_plaintext().build().await.unwrap_err();
    assert!(matches!(&refused, Error::Security(_)), "{refused:?}");
    assert!(!said.await.unwrap().contains("<auth"));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_on_loopback_signs_in_with_the_flag() {
    if !wanted("plain_text_on_loopback_signs_in_with_the_flag") {
        return;
    }
    let lab = Lab::shared();
    let (one, _) = lab.pair();
    let client = at(&lab, &one).insecure_plaintext().build().await.unwrap();
    assert!(matches!(client.mechanism(), Some("SCRAM-SHA-256" | "SCRAM-SHA-1")), "{:?}", client.mechanism());
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_set_up_and_heard_across_cut_connections_and_the_session_is_resumed() {
    if !wanted("a_call_is_set_up_and_heard_across_cut_connections_and_the_session_is_resumed") {
        return;
    }
    let lab = Lab::shared();
    let (near, far) = lab.pair();
    let proxy = Proxy::start(SocketAddr::new(lab.alpha.ip, 5222)).await;
    let mut callee = at(&lab, &far).build().await.unwrap();
    let mut caller = through(&lab, &near, &proxy).build().await.unwrap();
    let jid = caller.jid().unwrap().clone();
    let callee_jid = callee.jid().unwrap().clone();
    let answer = tokio::spawn(async move {
        let mut call = taken(&mut callee).await;
        call.connected().await.unwrap();
        (callee, call)
    });
    // The cut falls between the request and its answer.
    let mut call = caller.call(callee_jid).await.unwrap();
    proxy.cut();
    let cut = Instant::now();
    timeout(Duration::from_secs(15), call.connected()).await.expect("connected in time").unwrap();
    println!("connected {:?} after the cut", cut.elapsed());
    let (_callee, mut answered) = timeout(Duration::from_secs(5), answer).await.unwrap().unwrap();
    signalling(&mut caller, Signalling::Reconnecting, Duration::from_secs(1)).await;
    signalling(&mut caller, Signalling::Up, Duration::from_secs(10)).await;
    assert_eq!(caller.jid(), Some(&jid), "the same session");
    assert_eq!(proxy.accepted(), 2);

    // Three more cuts while people talk.
    let (mut here, mut there) = (Ear::of(&call).await, Ear::of(&answered).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _ = (here.since(), there.since());
    for round in 0..3 {
        proxy.cut();
        signalling(&mut caller, Signalling::Reconnecting, Duration::from_secs(2)).await;
        signalling(&mut caller, Signalling::Up, Duration::from_secs(10)).await;
        let (heard_here, heard_there) = (here.since(), there.since());
        println!("round {round}: (frames, silent) here {heard_here:?}, there {heard_there:?}");
        for (frames, silent) in [heard_here, heard_there] {
            // A reconnect takes 0.8 s at least.
            assert!(frames >= 35 && silent <= LONGEST_GAP, "a gap: {silent} of {frames} frames");
        }
    }
    assert_eq!(caller.jid(), Some(&jid), "the same session still");
    let log = lab.alpha.log();
    assert!(log.matches("<resume").count() >= 4, "the server was asked to resume");

    // Signalling works both ways afterwards.
    call.hold(true).await.unwrap();
    let held = async {
        loop {
            match answered.next_event().await {
                Some(CallEvent::Hold { on: true, .. }) => return,
                Some(CallEvent::Ended(ended)) => panic!("{ended:?}"),
                Some(_) => {}
                None => panic!("the call vanished"),
            }
        }
    };
    timeout(Duration::from_secs(3), held).await.expect("hold arrives");
    call.hang_up().await;
    timeout(Duration::from_secs(2), ended(&mut answered)).await.expect("the end arrives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_connection_is_noticed_when_something_is_said_and_nothing_is_lost() {
    if !wanted("a_stalled_connection_is_noticed_when_something_is_said_and_nothing_is_lost") {
        return;
    }
    let lab = Lab::shared();
    let (near, far) = lab.pair();
    let proxy = Proxy::start(SocketAddr::new(lab.alpha.ip, 5222)).await;
    let mut callee = at(&lab, &far).build().await.unwrap();
    let caller = through(&lab, &near, &proxy).build().await.unwrap();
    let to = callee.jid().unwrap().clone();
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.stall();
    let start = Instant::now();
    let mut call = caller.call(to).await.unwrap();
    let mut answered = timeout(Duration::from_secs(30), taken(&mut callee)).await.expect("the call arrives");
    timeout(Duration::from_secs(5), call.connected()).await.expect("connected").unwrap();
    println!("connected {:?} after the stall", start.elapsed());
    call.hang_up().await;
    timeout(Duration::from_secs(2), ended(&mut answered)).await.expect("the end arrives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlives_its_server_and_hangs_up_without_it_and_the_client_comes_back() {
    if !wanted("a_call_outlives_its_server_and_hangs_up_without_it_and_the_client_comes_back") {
        return;
    }
    let mut lab = Lab::start();
    let mut callee = at(&lab, "mercutio@beta.test").build().await.unwrap();
    let mut caller = at(&lab, "romeo@alpha.test").build().await.unwrap();
    let to = callee.jid().unwrap().clone();
    let mut call = caller.call(to.clone()).await.unwrap();
    let mut answered = taken(&mut callee).await;
    timeout(Duration::from_secs(10), call.connected()).await.unwrap().unwrap();
    timeout(Duration::from_secs(10), answered.connected()).await.unwrap().unwrap();
    let (mut here, mut there) = (Ear::of(&call).await, Ear::of(&answered).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _ = (here.since(), there.since());

    let stopped = Instant::now();
    lab.alpha.stop();
    signalling(&mut caller, Signalling::Reconnecting, Duration::from_secs(5)).await;
    // Longer than a server says that its users are gone and a peer that waits for silence waits (J166-18).
    tokio::time::sleep(Duration::from_secs(12)).await;
    for (frames, silent) in [here.since(), there.since()] {
        println!("{frames} frames, longest silence {silent}, {:?} after the stop", stopped.elapsed());
        assert!(frames > 500 && silent <= LONGEST_GAP, "media stopped: {silent} of {frames}");
    }
    let start = Instant::now();
    call.hang_up().await;
    let far = timeout(Duration::from_secs(2), ended(&mut answered)).await.expect("the other side ends within 2 s");
    let near = timeout(Duration::from_secs(2), ended(&mut call)).await.expect("this side ends within 2 s");
    println!("ended after {:?}: {near:?}, {far:?}", start.elapsed());

    lab.alpha.start_again();
    // Backoff has grown to 8 or 16 s meanwhile.
    signalling(&mut caller, Signalling::Up, Duration::from_secs(25)).await;
    let mut call = caller.call(to).await.unwrap();
    let mut answered = timeout(Duration::from_secs(10), taken(&mut callee)).await.expect("the second call arrives");
    timeout(Duration::from_secs(10), call.connected()).await.unwrap().unwrap();
    answered.connected().await.unwrap();
    call.hang_up().await;
    timeout(Duration::from_secs(2), ended(&mut answered)).await.expect("the end arrives");
}

/// Servers relay what our limits refuse, and keep what was not acknowledged for the next login.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_message_past_our_limits_ends_one_stream_and_locks_nobody_out() {
    if !wanted("a_strangers_message_past_our_limits_ends_one_stream_and_locks_nobody_out") {
        return;
    }
    let lab = Lab::shared();
    let (near, _) = lab.pair();
    let mut client = at(&lab, &near).build().await.unwrap();
    let mut stranger = raw::Raw::sign_in(&lab, "tybalt@alpha.test");
    let nested = format!("{}{}", "<a xmlns='urn:deep'>".repeat(80), "</a>".repeat(80));
    stranger.send(&format!("<message type='chat' to='{near}'><body>hello</body>{nested}</message>"));
    signalling(&mut client, Signalling::Reconnecting, Duration::from_secs(5)).await;
    signalling(&mut client, Signalling::Up, Duration::from_secs(10)).await;
    let again = timeout(Duration::from_secs(4), async {
        while let Some(event) = client.next_event().await {
            if let ClientEvent::Signalling(Signalling::Reconnecting) = event {
                return;
            }
        }
    });
    assert!(again.await.is_err(), "the message came again");
}

fn roll() -> impl FnMut() -> u32 + Send {
    let mut n = 0u32;
    move || {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        n >> 8
    }
}

fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => panic!("the laboratory is IPv4"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_s_records_give_the_places_in_the_order_it_wants() {
    let localhost = Data::A(Ipv4Addr::LOCALHOST);
    let server = NameServer::start(
        vec![
            ("_xmpp-client._tcp.both.test", Data::Srv(20, 0, 5222, "late.both.test")),
            ("_xmpp-client._tcp.both.test", Data::Srv(5, 0, 5222, "early.both.test")),
            ("_xmpps-client._tcp.both.test", Data::Srv(10, 0, 443, "direct.both.test")),
            ("_xmpp-client._tcp.none.test", Data::Srv(0, 0, 0, ".")),
            ("_xmpps-client._tcp.none.test", Data::Srv(0, 0, 0, ".")),
            ("_xmpps-client._tcp.nodirect.test", Data::Srv(0, 0, 0, ".")),
            ("_xmpps-client._tcp.onlydirect.test", Data::Srv(0, 0, 5223, "onlydirect.test")),
            ("_xmpp-client._tcp.onlydirect.test", Data::Srv(0, 0, 0, ".")),
            ("nodirect.test", localhost.clone()),
            ("bare.test", localhost),
        ],
        vec!["_xmpps-client._tcp.mute.test"],
    );
    let dns = Dns::with_servers(&[server.addr]);
    let target = |host: &str, port, direct_tls| Target { host: host.into(), port, direct_tls };
    let both = dns.client_targets("both.test", &mut roll()).await;
    let wanted = [
        target("early.both.test", 5222, false),
        target("direct.both.test", 443, true),
        target("late.both.test", 5222, false),
    ];
    assert_eq!(both, wanted);
    assert_eq!(dns.client_targets("none.test", &mut roll()).await, []);
    assert_eq!(dns.client_targets("onlydirect.test", &mut roll()).await, [target("onlydirect.test", 5223, true)]);
    for domain in ["bare.test", "nodirect.test"] {
        assert_eq!(dns.client_targets(domain, &mut roll()).await, [target(domain, 5222, false)]);
        let found = dns.addresses(domain, 5222).await;
        assert_eq!(found, [SocketAddr::from((Ipv4Addr::LOCALHOST, 5222))]);
    }
    assert!(dns.addresses("unknown.test", 5222).await.is_empty());
    let none = account("romeo@none.test").dns_servers([server.addr]).build().await.unwrap_err();
    assert!(matches!(&none, Error::Unreachable(text) if text.contains("none.test")), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_its_server_by_records_and_a_dead_first_target_costs_little() {
    if !wanted("a_client_finds_its_server_by_records_and_a_dead_first_target_costs_little") {
        return;
    }
    let lab = Lab::shared();
    let (alpha, beta) = (v4(lab.alpha.ip), v4(lab.beta.ip));
    let dead = nobody().await;
    let (_listener, _waiting, hole) = black_hole().await;
    let server = NameServer::start(
        vec![
            // Refused, unknown, silent; then the server.
            ("_xmpp-client._tcp.alpha.test", Data::Srv(1, 0, dead.port(), "dead.alpha.test")),
            ("_xmpp-client._tcp.alpha.test", Data::Srv(2, 0, 5222, "unknown.alpha.test")),
            ("_xmpps-client._tcp.alpha.test", Data::Srv(3, 0, hole.port(), "hole.alpha.test")),
            ("_xmpps-client._tcp.alpha.test", Data::Srv(4, 0, 5223, "xmpp.alpha.test")),
            ("dead.alpha.test", Data::A(Ipv4Addr::LOCALHOST)),
            ("hole.alpha.test", Data::A(Ipv4Addr::LOCALHOST)),
            ("xmpp.alpha.test", Data::A(alpha)),
            // No service records: the domain itself, port 5222.
            (BETA, Data::A(beta)),
        ],
        Vec::new(),
    );
    let (one, two) = lab.pair();
    for jid in [one, two] {
        let start = Instant::now();
        let client = account(&jid).ca_file(&lab.ca_file).dns_servers([server.addr]).build().await.unwrap();
        println!("{jid} signed in after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        client.close().await;
    }
}

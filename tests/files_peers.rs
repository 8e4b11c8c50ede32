//! The peers of the file tests, one against the other: what fails here is not ours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

#[path = "common/browser.rs"]
mod browser;
#[path = "common/files.rs"]
mod files;
#[path = "common/island.rs"]
mod island;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/slixmpp.rs"]
mod slixmpp;

use base64::Engine as _;
use browser::Browser;
use island::{Ferry, on_island};
use prosody::coturn::wanted;
use prosody::{Lab, PASSWORD};
use serde_json::{Value, json};
use slixmpp::Slixmpp;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn slixmpp_sends_to_slixmpp_by_every_stream_and_in_every_wrong_way() {
    if !wanted("slixmpp_sends_to_slixmpp_by_every_stream_and_in_every_wrong_way") {
        return;
    }
    let lab = Lab::start();
    let (from, to) = lab.pair();
    let (mut from, mut to) = (Slixmpp::start(&lab, &from), Slixmpp::start(&lab, &to));
    let file = files::make(lab.folder.join("file"), 300_000, 1);
    let got = lab.folder.join("got");
    // What each side does wrong, and what carries the bytes in the end.
    let cases: [(&str, &[&str], &[&str], &str); 9] = [
        ("s5b", &[], &[], "direct"),
        ("s5b", &["flat"], &["flat"], "direct"),
        ("s5b", &["no-direct", "proxy"], &["no-candidates"], "proxy"),
        ("s5b", &["dead-dial"], &[], "direct"),
        ("s5b", &["dead-dial", "dead-direct"], &["dead-dial", "no-candidates"], "ibb"),
        ("s5b", &["dead-dial", "proxy", "no-direct"], &["claim-proxy"], "ibb"),
        ("s5b", &["dead-dial", "refuse-socks"], &["no-candidates"], "ibb"),
        ("s5b", &["dead-dial"], &["wrong-dstaddr", "no-candidates"], "ibb"),
        ("ibb", &[], &["received-first"], "ibb"),
    ];
    for (way, here, there, kind) in cases {
        let start = Instant::now();
        to.receive(&got, json!({ "bad": there }));
        from.send(&to.jid, &file, json!({ "way": way, "bad": here, "block": 16_384 }));
        let arrived = to.wait_for("file");
        println!("{way} {here:?} {there:?}: {} in {:?}", arrived["kind"], start.elapsed());
        assert_eq!((&arrived["right"], &arrived["kind"]), (&json!(true), &json!(kind)), "{:#?}", to.history);
        assert_eq!(from.wait_for("ended")["reason"], "success");
        assert_eq!(files::sha256(&got), files::sha256(&file));
    }
    for (wrong, condition) in [
        ("seq-skipped", "unexpected-request"),
        ("seq-repeated", "unexpected-request"),
        ("unknown-sid", "item-not-found"),
        ("oversize", "not-acceptable"),
    ] {
        to.receive(&got, json!({}));
        from.send(&to.jid, &file, json!({ "way": "ibb", "bad": [wrong] }));
        let error = from.wait_for("error");
        assert_eq!(error["condition"], condition, "{wrong}");
    }
}

#[test]
fn a_browser_sends_to_a_browser() {
    if !wanted("a_browser_sends_to_a_browser") {
        return;
    }
    let lab = Lab::start();
    let mut sides = ["juliet@alpha.test", "nurse@beta.test"].map(|jid| {
        let mut browser = Browser::start(&files::folder(&lab.folder, jid), false);
        let websocket = lab.server_of(jid).websocket();
        let jid = browser
            .ask(&json!({ "do": "connect", "jid": jid, "password": PASSWORD, "websocket": websocket, "hz": 400 }));
        (browser, jid["jid"].clone())
    });
    let to = sides[1].1.clone();
    let base64 = base64::engine::general_purpose::STANDARD.encode(files::noise(300_000, 2));
    let sent = sides[0].0.ask(&json!({ "do": "sendFile", "to": to, "name": "lab.bin", "base64": base64 }));
    let got = sides[1].0.wait_for("file");
    assert_eq!((&got["sha256"], &got["bytes"]), (&sent["sha256"], &json!(300_000)), "{got}");
}

/// Python on an island that says what it finds there.
const LOOK: &str = r#"
import json, socket, sys
out = {}
for name, port in json.loads(sys.argv[1]).items():
    try:
        if name.startswith("udp"):
            it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); it.settimeout(3)
            it.connect(("127.77.7.7", port)); it.send(b"x" * 100); out[name] = len(it.recv(2000))
        else:
            it = socket.create_connection(("127.77.7.7", port), 3)
            it.sendall(b"x" * 1000); it.shutdown(socket.SHUT_WR); n = 0
            while data := it.recv(2000): n += len(data)
            out[name] = n
    except OSError as why:
        out[name] = type(why).__name__
print(json.dumps(out))
"#;

#[test]
fn an_island_is_reached_by_its_ferries_only_and_they_count_stop_and_sink() {
    if !wanted("an_island_is_reached_by_its_ferries_only_and_they_count_stop_and_sink") {
        return;
    }
    let echo = TcpListener::bind("127.77.7.7:0").unwrap();
    let tcp = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in echo.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n) = stream.read(&mut buffer) {
                    if n == 0 || stream.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let echo = UdpSocket::bind("127.77.7.7:0").unwrap();
    let udp = echo.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((n, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..n], from);
        }
    });
    let unreachable = TcpListener::bind("127.77.7.7:0").unwrap();
    let look = |ferries: &[&Ferry]| -> Value {
        let port = |addr: SocketAddr| addr.port();
        let ports = json!({ "tcp": port(tcp), "udp": port(udp), "none": port(unreachable.local_addr().unwrap()) });
        let mut command = on_island(ferries, OsStr::new("python3"));
        let output = command.args(["-c", LOOK, &ports.to_string()]).stderr(Stdio::inherit()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(
        look(&[]),
        json!({ "tcp": "ConnectionRefusedError", "udp": "ConnectionRefusedError", "none": "ConnectionRefusedError" })
    );
    let (by_tcp, by_udp) = (Ferry::tcp(tcp), Ferry::udp(udp));
    assert_eq!(look(&[&by_tcp, &by_udp]), json!({ "tcp": 1000, "udp": 100, "none": "ConnectionRefusedError" }));
    assert_eq!((by_tcp.out(), by_tcp.back(), by_udp.out(), by_udp.back()), (1000, 1000, 100, 100));
    by_tcp.stop_after(300);
    by_udp.sink_after(0);
    let (found, before) = (look(&[&by_tcp, &by_udp]), by_tcp.out());
    assert_eq!((&found["tcp"], &found["udp"]), (&json!("TimeoutError"), &json!("TimeoutError")));
    assert_eq!(before, 1300);
    by_tcp.wait_until_stopped(Duration::from_secs(1));
    by_tcp.renew();
    by_tcp.sink_after(200);
    let found = look(&[&by_tcp]);
    assert!(found["tcp"] == 200 || found["tcp"] == 0 || found["tcp"] == "ConnectionResetError", "{found}");
    assert_eq!(by_tcp.out(), 1500);
    by_tcp.renew();
    assert_eq!(look(&[&by_tcp])["tcp"], 1000);
}

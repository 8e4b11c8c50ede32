//! What no honest PBX sends, to the real program with a call up: after each of these the call stands, the memory has not
//! grown and an OPTIONS is answered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

#[path = "common/odd_pbx.rs"]
mod odd_pbx;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/sipp.rs"]
mod sipp;

use odd_pbx::{OddPbx, Packet};
use program::{Offhook, Program};
use prosody::coturn::wanted;
use prosody::place;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Bytes that mean something to a parser.
const ODD: &[u8] = b"\r\n\0;:<>\"@,=%";

/// A telephone that answers whoever comes by its PBX, registered and in a call.
fn in_a_call() -> (OddPbx, Program, Packet, Packet) {
    let mut pbx = OddPbx::start();
    let words = ["answer", "--null-audio", "--auto-answer", "contacts", "--media", "plain"];
    let mut phone = Offhook::new(&words).account("sip:alice@pbx.test").server(&pbx.sip()).start();
    pbx.registered();
    phone.wait_for("online");
    let (invite, answer) = pbx.call();
    phone.wait_for("connected");
    (pbx, phone, invite, answer)
}

/// Resident memory of a program in KiB.
fn memory_kib(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The call is there, takes a BYE, and the program ends as a healthy one does.
fn ends_well(mut pbx: OddPbx, mut phone: Program, invite: &Packet, answer: &Packet) {
    assert!(!phone.names().iter().any(|name| name == "ended"), "{:?}: {}", phone.names(), phone.stderr());
    let bye = pbx.within(invite, answer, 90, "BYE", "", "");
    pbx.send(bye.source, bye.text.as_bytes());
    assert_eq!(pbx.final_answer(&bye).status(), Some(200));
    assert_eq!(phone.wait_for("ended")["by"], "remote");
    phone.interrupt();
    // Its REGISTER with Expires: 0 wants an answer.
    pbx.next_within(Duration::from_secs(1), &|_| false);
    let done = phone.finish();
    done.exits(130);
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
}

#[test]
fn a_call_withstands_everything_that_fits_a_datagram() {
    let (mut pbx, phone, invite, answer) = in_a_call();
    let (_, to) = pbx.contact.clone().unwrap();
    let cancel = invite.text.replacen("INVITE", "CANCEL", 1).replace("CSeq: 1 INVITE", "CSeq: 1 CANCEL");
    let cancel = cancel.split("\r\n\r\n").next().unwrap().to_owned();
    let cancel: Vec<&str> = cancel.lines().filter(|line| !line.starts_with("Content-")).collect();
    let stray_ack = pbx.request("ACK", "", "");
    let no_dialog = pbx.request("BYE", "", "").replace("To: <sip:alice@pbx.test>", "To: <sip:alice@pbx.test>;tag=none");
    let strange = format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {to};branch=z9hG4bKnobody\r\nFrom: <sip:alice@pbx.test>;tag=1\r\n\
         To: <sip:x@pbx.test>;tag=2\r\nCall-ID: nothing\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    );
    let long = pbx.request("INVITE", &format!("X-Long: {}\r\n", "x".repeat(60_000)), "");
    let many = pbx.request("INVITE", &"A:b\r\n".repeat(10_000), "");
    let vias = pbx.request("OPTIONS", &"v:SIP/2.0/UDP h;branch=z9hG4bK1\r\n".repeat(1_700), "");
    let nested = format!("Contact: {}<sip:a@b>\r\n", "\"\\\"".repeat(15_000));
    let nested = pbx.request("INVITE", &nested, "");
    let huge = pbx.request("INVITE", "", "").replace("Content-Length: 0", "Content-Length: 99999999999999999999");
    let negative = pbx.request("INVITE", "", "").replace("Content-Length: 0", "Content-Length: -1");
    let number = pbx.request("INVITE", "", "").replace("CSeq: 1 ", "CSeq: 4294967296 ");
    let hops = pbx.request("INVITE", "", "").replace("Max-Forwards: 70", "Max-Forwards: 0");
    let sdp = format!("{}{}", pbx.sdp(1), "m=audio 9 RTP/AVP 0\r\na=crypto:1 X inline:\r\n".repeat(1_000));
    let media = pbx.request("INVITE", "", &sdp);
    let binary: Vec<u8> = (0..60_000u32).map(|n| (n * 7 + n / 256) as u8).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a late CANCEL", format!("{}\r\nContent-Length: 0\r\n\r\n", cancel.join("\r\n")).into_bytes()),
        ("a stray ACK", stray_ack.into_bytes()),
        ("a BYE of no dialog", no_dialog.into_bytes()),
        ("an answer to nothing", strange.into_bytes()),
        ("a header of 60 kB", long.into_bytes()),
        ("10 000 headers", many.into_bytes()),
        ("1 700 Via", vias.into_bytes()),
        ("15 000 escaped quotes", nested.into_bytes()),
        ("a huge Content-Length", huge.into_bytes()),
        ("a negative Content-Length", negative.into_bytes()),
        ("a CSeq past 32 bits", number.into_bytes()),
        ("no hop left", hops.into_bytes()),
        ("1 000 media lines", media.into_bytes()),
        ("60 kB of anything", binary),
        ("an empty datagram", Vec::new()),
        ("the start of a request", b"INVITE sip:alice@pbx.test SIP/2.0\r\nVia: ".to_vec()),
    ];
    let before = memory_kib(&phone);
    for (name, bytes) in cases {
        let start = Instant::now();
        for _ in 0..20 {
            pbx.send(to, &bytes);
        }
        pbx.is_answered(name);
        println!("{name}: {:?}, {} KiB", start.elapsed(), memory_kib(&phone));
    }
    let after = memory_kib(&phone);
    assert!(after < before + 16 * 1024, "memory grew from {before} to {after} KiB");
    ends_well(pbx, phone, &invite, &answer);
}

#[test]
fn a_call_withstands_mutated_messages() {
    let (mut pbx, phone, invite, answer) = in_a_call();
    let (_, to) = pbx.contact.clone().unwrap();
    let mut seed = 0x5eed_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let reinvite = pbx.within(&invite, &answer, 50, "INFO", "", "").text;
    let before = memory_kib(&phone);
    for round in 0..100 {
        for _ in 0..200 {
            let template = match random(3) {
                0 => pbx.request("INVITE", "", &pbx.sdp(1)),
                1 => pbx.request("MESSAGE", "Subject: x\r\n", ""),
                _ => reinvite.clone(),
            };
            let mut bytes = template.into_bytes();
            for _ in 0..=random(6) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, ODD[random(ODD.len())]),
                    _ => {
                        let to = (at + random(40)).min(bytes.len());
                        let piece = bytes[at..to].to_vec();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            pbx.send(to, &bytes);
        }
        pbx.is_answered(&format!("round {round}"));
    }
    let after = memory_kib(&phone);
    println!("20 000 mutated messages: memory from {before} to {after} KiB");
    assert!(after < before + 32 * 1024, "memory grew from {before} to {after} KiB");
    // One of them may have been a good BYE; the program is well in any case.
    pbx.is_answered("the mutated messages");
    phone.interrupt();
    pbx.next_within(Duration::from_secs(1), &|packet| packet.is("BYE"));
    let done = phone.finish();
    done.exits(130);
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
}

#[test]
fn slow_and_swollen_connections_do_not_touch_the_call() {
    let mut pbx = OddPbx::start();
    let [here] = place::addresses(&[5060]);
    let listen = ["udp", "tcp"].map(|transport| format!("{transport}:{here}:5060"));
    let words =
        ["answer", "--null-audio", "--auto-answer", "all", "--sip-listen", &listen[0], "--sip-listen", &listen[1]];
    let mut phone = Offhook::new(&words).start();
    pbx.contact = Some((format!("sip:alice@{here}"), SocketAddr::from((here, 5060))));
    while TcpStream::connect((here, 5060)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (invite, answer) = pbx.call();
    phone.wait_for("connected");
    let before = memory_kib(&phone);
    let whole = |extra: &str| pbx.request("INVITE", extra, "").replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let swollen = [
        ("a header of 64 KiB", whole(&format!("X: {}\r\n", "x".repeat(65_536)))),
        ("10 000 headers", whole(&"A:b\r\n".repeat(10_000))),
        ("a header without end", format!("INVITE sip:a SIP/2.0\r\nX: {}", "x".repeat(4 << 20))),
        ("a body of 4 GB", whole("").replace("Content-Length: 0", "Content-Length: 4294967295") + &"x".repeat(4 << 20)),
        ("only line ends", "\r\n".repeat(1 << 20)),
    ];
    let slow = whole("");
    for (name, text) in swollen {
        let mut stream = TcpStream::connect((here, 5060)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        // It may hang up before the end.
        let all = stream.write_all(text.as_bytes()).is_ok();
        pbx.is_answered(name);
        println!("{name}: all taken: {all}, {} KiB", memory_kib(&phone));
    }
    let mut slowly: Vec<TcpStream> = (0..32).map(|_| TcpStream::connect((here, 5060)).unwrap()).collect();
    for byte in slow.bytes().take(8) {
        for stream in &mut slowly {
            let _ = stream.write_all(&[byte]);
        }
        pbx.is_answered("one byte a second");
        std::thread::sleep(Duration::from_secs(1));
    }
    let after = memory_kib(&phone);
    println!("memory from {before} to {after} KiB");
    assert!(after < before + 32 * 1024, "memory grew from {before} to {after} KiB");
    ends_well(pbx, phone, &invite, &answer);
}

#[test]
fn an_answer_from_a_stranger_is_not_taken() {
    let mut pbx = OddPbx::start();
    let words = ["call", "sip:odd@pbx.test", "--null-audio", "--media", "plain"];
    let mut caller = Offhook::new(&words).account("sip:alice@pbx.test").server(&pbx.sip()).start();
    let invite = pbx.next("INVITE", |packet| packet.is("INVITE"));
    pbx.answer(&invite, "100 Trying", "", "", "");
    let [strange] = place::addresses(&[5060]);
    let stranger = UdpSocket::bind((strange, 5060)).unwrap();
    // It knows the call, but not the number that nobody guesses.
    let busy = pbx.answer_text(&invite, "486 Busy Here", "strange", "", "");
    let (before, after) = busy.split_once("branch=z9hG4bK").unwrap();
    let busy = format!("{before}branch=z9hG4bK0000{after}");
    stranger.send_to(busy.as_bytes(), invite.source).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    pbx.answer(&invite, "180 Ringing", "odd", "", "");
    caller.wait_for("ringing");
    pbx.answer(&invite, "200 OK", "odd", "", &pbx.sdp(1));
    pbx.next("ACK", |packet| packet.is("ACK"));
    caller.wait_for("connected");
    caller.interrupt();
    let bye = pbx.next("BYE", |packet| packet.is("BYE"));
    pbx.answer(&bye, "200 OK", "", "", "");
    pbx.next_within(Duration::from_secs(1), &|_| false);
    caller.finish().exits(130);
}

#[test]
fn a_hostile_realm_gets_no_header_of_its_own_and_no_loop() {
    let mut pbx = OddPbx::start();
    let words = ["call", "sip:odd@pbx.test", "--null-audio", "--media", "plain"];
    let caller = Offhook::new(&words).account("sip:alice@pbx.test").server(&pbx.sip()).start();
    let mut seen = 0;
    let hostile = [
        "WWW-Authenticate: Digest realm=\"a\\\"b\\\\c\r\n X-Evil: 1\", nonce=\"n1\"\r\n".to_owned(),
        format!("WWW-Authenticate: Digest realm=\"{}\", nonce=\"n2\"\r\n", "r".repeat(50_000)),
        "WWW-Authenticate: Digest realm=\"x\", nonce=\"n3\", stale=true\r\n".repeat(200),
        "WWW-Authenticate: Digest realm=\"x\", nonce=\"n4\", stale=true, algorithm=MD5, qop=\"auth-int,auth,,,x\"\r\n"
            .to_owned(),
    ];
    while let Some(invite) = pbx.next_within(Duration::from_secs(2), &|packet| packet.is("INVITE")) {
        for name in ["Authorization", "Proxy-Authorization"] {
            assert!(invite.headers(name).len() <= 1, "{}", invite.text);
        }
        assert!(invite.headers("X-Evil").is_empty(), "{}", invite.text);
        assert!(invite.text.len() < 20_000, "{} bytes", invite.text.len());
        let how = hostile.get(seen).unwrap_or(&hostile[3]);
        pbx.answer(&invite, "401 Unauthorized", "odd", how, "");
        seen += 1;
        assert!(seen < 12, "it tries for ever");
    }
    println!("{seen} attempts");
    let done = caller.finish();
    assert!(matches!(done.code, Some(4..=7)), "{done:#?}");
}

#[test]
fn a_flood_of_strangers_does_not_touch_the_call() {
    if !wanted("a_flood_of_strangers_does_not_touch_the_call") {
        return;
    }
    let (mut pbx, mut phone, invite, answer) = in_a_call();
    let (_, to) = pbx.contact.clone().unwrap();
    let before = memory_kib(&phone);
    let [stranger] = place::addresses(&[5060]);
    let flood = sipp::scenario("flood", stranger).calls("alice", &to.to_string()).often(10_000, 500).start();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        pbx.is_answered("so many strangers");
        std::thread::sleep(Duration::from_secs(1));
    }
    let messages = flood.stop();
    let [forbidden, busy] = ["403", "503"].map(|status| messages.matches(&format!("\nSIP/2.0 {status} ")).count());
    println!("refused: {forbidden} with 403, {busy} with 503");
    // A machine that is busy with other things loses datagrams.
    assert!(forbidden > 0 && forbidden + busy > 5_000, "{forbidden} with 403, {busy} with 503");
    let after = memory_kib(&phone);
    println!("memory from {before} to {after} KiB");
    assert!(after < before + 32 * 1024, "memory grew from {before} to {after} KiB");
    // The sound went on. What came before is skipped.
    let last = phone.names().iter().filter(|name| *name == "stats").count();
    let stats = (0..last).map(|_| phone.wait_for("stats")).last().unwrap();
    println!("{stats}");
    assert!(stats["packets_in"].as_u64().unwrap() > 25 && stats["loss_in"].as_f64().unwrap() < 0.2, "{stats}");
    let told = phone.names();
    assert_eq!(told.iter().filter(|name| *name == "incoming").count(), 1, "{told:?}");
    assert!(!told.iter().any(|name| name == "busy" || name == "ended"), "{told:?}");
    ends_well(pbx, phone, &invite, &answer);
}

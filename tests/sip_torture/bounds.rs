//! What the largest messages cost: counted in allocations, bytes and steps, not in time.

use allocation_counter::measure;
use offhook::wire::sip::{Flaw, Framed, Framer, Message};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::path::Path;

const HEAD: &str = "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
    Call-ID: 1\r\nCSeq: 1 INVITE\r\n";

fn message(lines: &str) -> Vec<u8> {
    format!("{HEAD}{lines}Content-Length: 0\r\n\r\n").into_bytes()
}

/// `unit` as often as fits into a datagram.
fn filled(before: &str, unit: &str, after: &str) -> Vec<u8> {
    let room = 65_000 - HEAD.len() - before.len() - after.len();
    message(&format!("{before}{}{after}", unit.repeat(room / unit.len())))
}

fn flaw(bytes: &[u8]) -> Option<Flaw> {
    Message::parse(bytes).err().map(|malformed| malformed.flaw)
}

#[test]
fn ten_thousand_headers_are_too_many_and_are_answered_so() {
    let many = message(&"Q: y\r\n".repeat(10_000));
    let malformed = Message::parse(&many).unwrap_err();
    assert_eq!((malformed.flaw, malformed.answer.unwrap().status.code()), (Flaw::TooLarge, 513));
    assert_eq!(flaw(&message(&"Q: y\r\n".repeat(240))), None);
    let vias = format!("Via: {}SIP/2.0/UDP h\r\n", "SIP/2.0/UDP h,".repeat(300));
    assert_eq!(flaw(&message(&vias)), Some(Flaw::TooLarge));
    assert_eq!(flaw(&message(&format!("Contact: <sip:a@b>{}\r\n", ";x".repeat(65)))), Some(Flaw::Header("Contact")));
}

#[test]
fn a_full_datagram_of_anything_costs_at_most_sixteen_times_its_bytes() {
    for (name, bytes) in [
        ("one long value", filled("Q: ", "y", "\r\n")),
        ("one long fold", filled("Q:", "\r\n y", "\r\n")),
        ("many headers", filled("", "Q: y\r\n", "")),
        ("many vias in a line", filled("Via: ", "SIP/2.0/UDP h,", "SIP/2.0/UDP h\r\n")),
        ("many vias", filled("", "v:SIP/2.0/UDP h;a;b;c;d\r\n", "")),
        ("many parameters", filled("Contact: <sip:a@b>", ";x", "\r\n")),
        ("many parameters of many", filled("", &format!("m:<sip:a@b>{}\r\n", ";x".repeat(60)), "")),
        ("many uri parameters", filled("Contact: <sip:a@b", ";x", ">\r\n")),
        ("many escapes", filled("Contact: <sip:", "%41", "@b>\r\n")),
        ("many quotes", filled("Contact: \"", "\\\"", "\" <sip:a@b>\r\n")),
        ("an open quote", filled("Contact: \"", "x", "\r\n")),
        ("many quotes open", filled("Contact: ", "\"", "\r\n")),
        ("many brackets", filled("Contact: ", "<", "\r\n")),
        ("many commas", filled("Contact: ", ",", "\r\n")),
        ("many tokens", filled("Supported: ", "a,", "a\r\n")),
        ("many challenges", filled("", "WWW-Authenticate: Digest a=b\r\n", "")),
        ("many parts of a challenge", filled("WWW-Authenticate: Digest ", "a=b,", "a=b\r\n")),
        ("not utf-8", filled("Q: ", "y", "\r\n").into_iter().map(|b| if b == b'y' { 0xff } else { b }).collect()),
        ("empty lines", "\r\n".repeat(32_000).into_bytes()),
        ("folds without end", filled("Q: y", "\r\n ", "\r\n")),
    ] {
        let cost = measure(|| drop(std::hint::black_box(Message::parse(&bytes))));
        println!(
            "{name}: {} allocations, {} bytes in all, {} at once",
            cost.count_total, cost.bytes_total, cost.bytes_max
        );
        assert!(cost.bytes_max < 16 * 65_536, "{name}: {cost:?}");
        assert!(cost.bytes_total < 40 * 65_536, "{name}: {cost:?}");
    }
}

/// A stream of `count` messages, with pings between them.
fn stream(count: usize) -> Vec<u8> {
    let one = [&message("Subject: x\r\n")[..], b"\r\n\r\n"].concat();
    one.repeat(count)
}

/// Messages, and the most bytes that were kept at once.
fn framed(bytes: &[u8], piece: usize) -> (usize, usize) {
    let mut framer = Framer::new();
    let (mut messages, mut most) = (0, 0);
    for piece in bytes.chunks(piece) {
        framer.push(piece);
        while let Some(found) = framer.next().unwrap() {
            messages += usize::from(matches!(found, Framed::Message(_)));
        }
        most = most.max(framer.buffered());
    }
    (messages, most)
}

#[test]
fn a_stream_of_single_bytes_costs_what_it_costs_in_one_piece_and_grows_with_its_length() {
    let cost = |count: usize, piece: usize| {
        let bytes = stream(count);
        measure(|| assert_eq!(framed(&bytes, piece).0, count)).bytes_total
    };
    let (whole, single, twice) = (cost(200, 4096), cost(200, 1), cost(400, 1));
    println!("200 messages: {whole} bytes in pieces of 4096, {single} one by one; 400 one by one: {twice}");
    assert!(single < whole * 2 && twice < single * 21 / 10);
    let longest = message(&format!("Q: {}\r\n", "y".repeat(60_000)));
    let (count, most) = framed(&longest.repeat(3), 1);
    assert!(count == 3 && most <= longest.len(), "{count} {most}");
}

#[test]
fn a_stream_without_an_end_of_headers_or_without_length_is_closed() {
    let mut framer = Framer::new();
    let mut sent = 0;
    let broken = loop {
        framer.push(&[b'x'; 100]);
        sent += 100;
        match framer.next() {
            Ok(None) => {}
            Ok(Some(found)) => panic!("{found:?}"),
            Err(broken) => break broken,
        }
    };
    assert_eq!(broken.malformed.flaw, Flaw::TooLarge);
    assert!(sent < 70_000, "{sent}");
    framer.push(&message(""));
    assert_eq!((framer.next(), framer.buffered()), (Ok(None), 0));

    let mut framer = Framer::new();
    framer.push(format!("{HEAD}\r\n").as_bytes());
    let malformed = framer.next().unwrap_err().malformed;
    assert_eq!((malformed.flaw, malformed.answer.is_some()), (Flaw::Missing("Content-Length"), true));

    let mut framer = Framer::new();
    framer.push(format!("{HEAD}Content-Length: 4294967296\r\n\r\n").as_bytes());
    assert_eq!(framer.next().unwrap_err().malformed.flaw, Flaw::TooLarge);
}

#[test]
fn a_refused_message_on_a_stream_does_not_end_it() {
    let mut framer = Framer::new();
    framer.push(&message("Foobar roobar\r\nRequire: ,(\r\n"));
    framer.push(&message(""));
    let Ok(Some(Framed::Refused(malformed))) = framer.next() else { panic!() };
    assert_eq!(malformed.flaw, Flaw::HeaderLine);
    assert!(matches!(framer.next(), Ok(Some(Framed::Message(_)))));
    assert!(!framer.is_mid_message());
}

#[test]
fn pings_and_pongs_are_told_apart_however_they_are_cut() {
    let told = |pieces: &[&[u8]]| {
        let mut framer = Framer::new();
        let mut all = Vec::new();
        for piece in pieces {
            framer.push(piece);
            while let Some(found) = framer.next().unwrap() {
                all.push(found);
            }
        }
        all
    };
    assert_eq!(told(&[b"\r\n\r\n"]), [Framed::Ping]);
    assert_eq!(told(&[b"\r\n"]), [Framed::Pong]);
    assert_eq!(told(&[b"\r", b"\n"]), [Framed::Pong]);
    // The first half alone is a pong; who sends it to a server does no harm.
    assert_eq!(told(&[b"\r\n", b"\r\n"]), [Framed::Pong, Framed::Ping]);
    assert_eq!(told(&[b"\r\n\r", b"\n"]), [Framed::Ping]);
    assert!(Framer::new().next().unwrap().is_none());
}

fn below(rng: &mut ChaCha20Rng, n: usize) -> usize {
    if n == 0 { 0 } else { usize::try_from(rng.next_u64() % u64::try_from(n).unwrap()).unwrap() }
}

/// `OFFHOOK_SEQUENCES` says how many; a million in the long run.
#[test]
fn no_mutated_datagram_panics() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/sip");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|p| std::fs::read(p).unwrap()).collect();
    let count: u64 = std::env::var("OFFHOOK_SEQUENCES").ok().and_then(|s| s.parse().ok()).unwrap_or(20_000);
    let mut rng = ChaCha20Rng::seed_from_u64(4475);
    let (mut read, mut answered) = (0u64, 0u64);
    for _ in 0..count {
        let mut data = seeds[below(&mut rng, seeds.len())].clone();
        for _ in 0..=below(&mut rng, 5) {
            let at = below(&mut rng, data.len());
            match below(&mut rng, 5) {
                0 => data[at] = rng.next_u64().to_le_bytes()[0],
                1 => data[at] ^= 1 << below(&mut rng, 8),
                2 => drop(data.remove(at)),
                3 => data.insert(at, b" \t\r\n:;,=\"<>@%\\/?[]*\0"[below(&mut rng, 20)]),
                _ => {
                    let end = (at + below(&mut rng, 60)).min(data.len());
                    let copy = data[at..end].to_vec();
                    let to = below(&mut rng, data.len());
                    drop(data.splice(to..to, copy));
                }
            }
            if data.is_empty() {
                break;
            }
        }
        match Message::parse(&data) {
            Ok(message) => {
                read += 1;
                let bytes = message.to_bytes();
                assert_eq!(Message::parse(&bytes), Ok(message), "{}", String::from_utf8_lossy(&bytes));
            }
            Err(malformed) => answered += u64::from(malformed.answer.is_some()),
        }
    }
    println!("{count} datagrams: {read} read, {answered} answered with an error, the others dropped");
    assert!(read > count / 50 && answered > count / 50);
}

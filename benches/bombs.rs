//! XML built to be dear: what is refused is refused within 50 ms and 4 MiB, what stands within the limits takes time
//! linear in its bytes (threats: XML bombs). Prints the worst of each kind and whether the bars hold.
//!
//! `cargo bench --bench bombs`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use offhook::config::XmlLimits;
use offhook::fault::Malformed;
use offhook::wire::ns;
use offhook::wire::stream::TopLevel;
use offhook::wire::xml::{Frame, Framer, Scope};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const HEAD: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
/// As much as comes out of a TLS record.
const PART: usize = 16 * 1024;
const TIME: Duration = Duration::from_millis(50);
const MEMORY_BYTES: u64 = 4 << 20;
/// Time a byte at 255 KiB over time a byte at 64 KiB; a quadratic reader would show 4.
const LINEAR: f64 = 1.5;
const ROUNDS: usize = 9;

/// The stream that carries `body`, read to its end or to the first fault that ends it.
fn receive(body: &str) -> Option<Malformed> {
    let limits = XmlLimits::default();
    let (mut framer, scope) = (Framer::new(&limits), Scope::of(ns::CLIENT));
    for part in std::iter::once(HEAD.as_bytes()).chain(body.as_bytes().chunks(PART)) {
        framer.push(part);
        loop {
            match framer.next() {
                Ok(None) => break,
                Ok(Some(Frame::Element(text))) => {
                    if let Err(fault) = TopLevel::parse(text, &scope, &limits)
                        && fault.fault.ends_stream()
                    {
                        return Some(fault.fault);
                    }
                }
                Ok(Some(Frame::Open(_) | Frame::Close)) => {}
                Err(fault) => return Some(fault),
            }
        }
    }
    None
}

/// Median time, most bytes on the heap at once, and the outcome.
fn measure(body: &str) -> (Duration, u64, Option<Malformed>) {
    let mut fault = None;
    let most = allocation_counter::measure(|| fault = receive(body)).bytes_max;
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            std::hint::black_box(receive(std::hint::black_box(body)));
            begin.elapsed()
        })
        .collect();
    times.sort();
    (times.get(ROUNDS / 2).copied().unwrap_or_default(), most, fault)
}

fn many(n: usize, f: impl Fn(usize) -> String) -> String {
    (0..n).map(f).collect()
}

/// Repeats `unit` between `begin` and `end` until there are `bytes`.
fn filled(begin: &str, unit: &str, end: &str, bytes: usize) -> String {
    let room = bytes.saturating_sub(begin.len() + end.len());
    format!("{begin}{}{end}", unit.repeat(room / unit.len()))
}

fn refused() -> Vec<(&'static str, String)> {
    let mib64 = 64 << 20;
    vec![
        ("a million levels", "<a>".repeat(1 << 20)),
        ("800 000 attributes", format!("<a {}/>", many(800_000, |i| format!("a{i}='' ")))),
        ("100 000 namespaces", format!("<a {}/>", many(100_000, |i| format!("xmlns:a{i}='u' ")))),
        ("64 MiB of text", format!("<a>{}", "x".repeat(mib64))),
        ("64 MiB of a name", format!("<{}", "x".repeat(mib64))),
        ("64 MiB of a value", format!("<a x='{}", "x".repeat(mib64))),
        ("64 MiB of empty elements", format!("<a>{}", "<b/>".repeat(mib64 / 4))),
        (
            "billion laughs",
            format!(
                "<!DOCTYPE a [<!ENTITY l0 'lol'>{}]><a>&l9;</a>",
                many(9, |i| format!("<!ENTITY l{} '&l{i};&l{i};&l{i};'>", i + 1))
            ),
        ),
        ("unknown entities", format!("<a>{}</a>", "&lol;".repeat(50_000))),
        ("a reference past Unicode", format!("<a>&#{};</a>", "9".repeat(200_000))),
        ("an end tag of 64 MiB", format!("<a></{}>", "x".repeat(mib64))),
    ]
}

/// Stanzas of about so many bytes that are well-formed and within every limit.
fn accepted(bytes: usize) -> Vec<(&'static str, String)> {
    // Short beside the rows, so that these are what is measured at both sizes.
    let names = many(30, |i| format!(" xmlns:n{i}='{}{i:02}'", "u".repeat(50)));
    let row = format!("<b{}/>", many(30, |i| format!(" n{i}:x=''")));
    let long = "u".repeat(bytes / 2);
    let alike = format!("<b {}/>", many(64, |i| format!("a{i}='' ")));
    let body = ("<message><body>", "</body></message>");
    let disco = "<iq type='result' id='1'><query xmlns='http://jabber.org/protocol/disco#info'>";
    let jingle = "<iq type='set' id='1' from='a@b/c'><jingle xmlns='urn:xmpp:jingle:1' action='transport-info' \
                  sid='s'><content creator='initiator' name='a'><transport \
                  xmlns='urn:xmpp:jingle:transports:ice-udp:1'>";
    let candidate = "<candidate component='1' foundation='1' generation='0' id='c1' ip='192.0.2.17' network='0' \
                     port='54321' priority='2130706431' protocol='udp' type='host'/>";
    vec![
        ("text", filled(body.0, "x", body.1, bytes)),
        ("references", filled(body.0, "&amp;", body.1, bytes)),
        ("empty sections", filled(body.0, "<![CDATA[]]>", body.1, bytes)),
        ("small elements", filled("<message>", "<a/>", "</message>", bytes)),
        ("64 attributes each", filled("<message>", &alike, "</message>", bytes)),
        ("30 namespaces each", filled(&format!("<message{names}>"), &row, "</message>", bytes)),
        ("one long namespace", filled(&format!("<message><a xmlns='{long}&amp;'>"), "<b/>", "</a></message>", bytes)),
        ("features", filled(disco, "<feature var='urn:x'/>", "</query></iq>", bytes)),
        ("candidates", filled(jingle, candidate, "</transport></content></jingle></iq>", bytes)),
        ("payload types", {
            let rtp = "<iq type='set' id='1' from='a@b/c'><jingle xmlns='urn:xmpp:jingle:1' action='description-info' \
                       sid='s'><content creator='initiator' name='a'><description \
                       xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>";
            filled(rtp, "<payload-type id='1' name='x'/>", "</description></content></jingle></iq>", bytes)
        }),
    ]
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn main() -> ExitCode {
    let mut all = true;
    println!("refused:                       ms    KiB at most   (goals < 50 ms, < 4 MiB)");
    for (what, bomb) in refused() {
        let (time, most, fault) = measure(&bomb);
        let met = time < TIME && most < MEMORY_BYTES && fault.is_some();
        println!("  {what:<24} {:>8.2} {:>14}   {}", time.as_secs_f64() * 1e3, most / 1024, verdict(met));
        all &= met;
    }
    println!("within the limits, 255 KiB:    ms    KiB at most   ns a byte there over at 64 KiB (goal <= {LINEAR})");
    for ((what, small), (_, large)) in accepted(64 * 1024).into_iter().zip(accepted(255 * 1024)) {
        let a_byte = |time: Duration, text: &str| time.as_secs_f64() * 1e9 / text.len() as f64;
        let ((short, _, first), (long, most, second)) = (measure(&small), measure(&large));
        let growth = a_byte(long, &large) / a_byte(short, &small);
        let met = long < TIME && most < MEMORY_BYTES && growth <= LINEAR && first.is_none() && second.is_none();
        println!(
            "  {what:<24} {:>8.2} {:>14}   {:>6.1} {growth:>5.2}x {}",
            long.as_secs_f64() * 1e3,
            most / 1024,
            a_byte(long, &large),
            verdict(met)
        );
        all &= met;
    }
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

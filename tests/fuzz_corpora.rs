//! The fuzz targets over their committed corpora and over mutations of them, the same ones in every run.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

// The same source is the library of the fuzz package, where its items are public.
#[allow(unreachable_pub)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::path::Path;

/// Mutations of each target; more with `OFFHOOK_MUTATIONS`.
const MUTATIONS: usize = 3000;

/// What the grammars turn on.
const WORDS: &[&str] = &[
    "<",
    ">",
    "/>",
    "</",
    "'",
    "\"",
    "=",
    " ",
    "&amp;",
    "&#0;",
    "&x;",
    "]]>",
    "<![CDATA[",
    "<!--",
    "<?",
    "xmlns=''",
    " xmlns='urn:xmpp:jingle:1'",
    " name=''",
    "4294967296",
    "18446744073709551616",
    "-1",
    "0",
    "\u{FFFE}",
    "\u{0}",
    "é",
    "<jingle>",
    "<content/>",
    "<reason/>",
    "<a><b/></a>",
    " id='x' id='y'",
    "\r\n",
    "\r\n ",
    "\r\n\r\n",
    ";",
    ",",
    ":",
    "%00",
    "%zz",
    "\\",
    "*",
    "@",
    "?",
    "[::1]",
    "sip:",
    ";tag=",
    "SIP/2.0",
    "Via: SIP/2.0/UDP h;rport;branch=z9hG4bK1\r\n",
    "Content-Length: 1\r\n",
    "Route: <sip:h;lr>, <sip:[::1]>\r\n",
    "WWW-Authenticate: Digest realm=\"a\\\"b\", qop=\"auth\"\r\n",
    "Reason: SIP;cause=200;text=\"x\", Q.850;cause=16\r\n",
    "a=candidate:1 1 UDP 1 192.0.2.1 1 typ host\r\n",
    "a=rtpmap:0 x/1/2\r\n",
    "a=fmtp:0 a=b;c\r\n",
    "a=rtcp-fb:* nack pli\r\n",
    "m=audio 1 RTP/AVP 0\r\n",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}

fn below(rng: &mut ChaCha20Rng, n: usize) -> usize {
    if n == 0 { 0 } else { usize::try_from(rng.next_u64() % u64::try_from(n).unwrap()).unwrap() }
}

fn mutate(rng: &mut ChaCha20Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds[below(rng, seeds.len())].clone();
    for _ in 0..=below(rng, 4) {
        let at = below(rng, data.len() + 1);
        let len = below(rng, 40).min(data.len() - at);
        match below(rng, 6) {
            0 if at < data.len() => data[at] ^= 1 << below(rng, 8),
            1 => drop(data.drain(at..at + len)),
            2 => {
                let copy = data[at..at + len].to_vec();
                let to = below(rng, data.len() + 1);
                drop(data.splice(to..to, copy));
            }
            3 => {
                let word = WORDS[below(rng, WORDS.len())];
                drop(data.splice(at..at, word.bytes()));
            }
            4 => {
                let other = &seeds[below(rng, seeds.len())];
                let from = below(rng, other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => data.truncate(at),
        }
    }
    data
}

fn run(name: &str) {
    let target = targets::TARGETS.iter().find(|t| t.0 == name).unwrap().1;
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "no corpus of {name}");
    seeds.iter().for_each(|seed| target(seed));
    let mut rng = ChaCha20Rng::seed_from_u64(20_261_121);
    let mutations = std::env::var("OFFHOOK_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(MUTATIONS);
    for i in 0..mutations {
        let data = mutate(&mut rng, &seeds);
        if std::panic::catch_unwind(|| target(&data)).is_err() {
            panic!("{name}, mutation {i}: {}", String::from_utf8_lossy(&data));
        }
    }
}

#[test]
fn xml_survives_its_corpus_and_mutations_of_it() {
    run("xml");
}

#[test]
fn stanza_survives_its_corpus_and_mutations_of_it() {
    run("stanza");
}

#[test]
fn stream_survives_its_corpus_and_mutations_of_it() {
    run("stream");
}

#[test]
fn jingle_survives_its_corpus_and_mutations_of_it() {
    run("jingle");
}

#[test]
fn description_survives_its_corpus_and_mutations_of_it() {
    run("description");
}

#[test]
fn candidate_survives_its_corpus_and_mutations_of_it() {
    run("candidate");
}

#[test]
fn rtp_survives_its_corpus_and_mutations_of_it() {
    run("rtp");
}

#[test]
fn rtcp_survives_its_corpus_and_mutations_of_it() {
    run("rtcp");
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let listed = manifest.lines().filter(|l| l.starts_with("path = \"fuzz_targets/")).count();
    assert_eq!(listed, targets::TARGETS.len());
    for (name, _) in targets::TARGETS {
        assert!(root.join(format!("fuzz_targets/{name}.rs")).exists(), "{name}");
        assert!(root.join("corpus").join(name).is_dir(), "{name}");
    }
}

#[test]
fn session_survives_its_corpus_and_mutations_of_it() {
    run("session");
}

#[test]
fn socks5_survives_its_corpus_and_mutations_of_it() {
    run("socks5");
}

#[test]
fn sip_survives_its_corpus_and_mutations_of_it() {
    run("sip");
}

#[test]
fn sdp_survives_its_corpus_and_mutations_of_it() {
    run("sdp");
}

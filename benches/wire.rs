//! Reading and writing of stanzas against xmpp-parsers, typed on both sides. Runs alternate between the two (ABAB…) and
//! each call is timed by itself: the median of a stanza's calls is what it takes, so that what else the machine does
//! falls out. Prints the mean over the stanzas and whether the goals are met:
//! reading ≤ 1/10 of its time and ≤ 30 allocations a stanza; writing ≤ 1/30 and no allocation into a reused `String`.
//!
//! `cargo bench --bench wire`, with `OFFHOOK_CORPUS` for the second set.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use offhook::config::XmlLimits;
use offhook::wire::ns;
use offhook::wire::stanza::{IqKind, IqPayload, Stanza};
use offhook::wire::xml::Writer;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jingle::Jingle;
use xmpp_parsers::jingle_message::JingleMI;
use xmpp_parsers::message::Message;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Rounds of A and B; the median of an odd number is one of them.
const ROUNDS: usize = 201;

/// A stanza of the other side, with its payload typed.
enum Theirs {
    Jingle {
        to: Option<offhook::wire::jid::Jid>,
        from: Option<offhook::wire::jid::Jid>,
        id: String,
        jingle: Box<Jingle>,
    },
    Jmi {
        message: Box<Message>,
        jmi: JingleMI,
    },
}

fn ours(xml: &str) -> Option<Stanza> {
    let stanza = Stanza::parse(xml, ns::CLIENT, &XmlLimits::default()).ok()?;
    match &stanza {
        Stanza::Iq(iq) => matches!(&iq.kind, IqKind::Set(IqPayload::Jingle(_))).then_some(stanza),
        Stanza::Message(message) => message.jmi.is_some().then_some(stanza),
        Stanza::Presence(_) => None,
    }
}

fn theirs(xml: &str) -> Option<Theirs> {
    if xml.starts_with("<iq") {
        let Iq::Set { from, to, id, payload } = xso::from_bytes(xml.as_bytes()).ok()? else { return None };
        Some(Theirs::Jingle { to, from, id, jingle: Box::new(Jingle::try_from(payload).ok()?) })
    } else {
        let mut message: Message = xso::from_bytes(xml.as_bytes()).ok()?;
        let at = message.payloads.iter().position(|p| p.ns() == ns::JMI)?;
        let jmi = JingleMI::try_from(message.payloads.remove(at)).ok()?;
        Some(Theirs::Jmi { message: Box::new(message), jmi })
    }
}

fn write_theirs(stanza: &Theirs) -> Vec<u8> {
    match stanza {
        Theirs::Jingle { to, from, id, jingle } => {
            let payload = (**jingle).clone().into();
            xso::to_vec(&Iq::Set { from: from.clone(), to: to.clone(), id: id.clone(), payload }).unwrap()
        }
        Theirs::Jmi { message, jmi } => {
            let mut message = (**message).clone();
            message.payloads.push(jmi.clone().into());
            xso::to_vec(&message).unwrap()
        }
    }
}

/// Adds nanoseconds of a call of `f` on each of `items` to `times`; gives allocations a call.
fn measure<T>(items: &[T], times: &mut [Vec<f64>], mut f: impl FnMut(&T)) -> f64 {
    let region = Region::new(ALLOCATOR);
    for (item, times) in items.iter().zip(times) {
        let start = Instant::now();
        f(item);
        times.push(start.elapsed().as_nanos() as f64);
    }
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / items.len() as f64
}

struct Row {
    ours_ns: f64,
    theirs_ns: f64,
    ours_allocations: f64,
    theirs_allocations: f64,
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The lists to note times in, with room so that noting allocates nothing.
fn lists(items: usize) -> Vec<Vec<f64>> {
    (0..items).map(|_| Vec::with_capacity(ROUNDS + 1)).collect()
}

fn compare<A, B>(a: &[A], mut on_a: impl FnMut(&A), b: &[B], mut on_b: impl FnMut(&B)) -> Row {
    let (mut times_a, mut times_b) = (lists(a.len()), lists(b.len()));
    let (mut ours_allocations, mut theirs_allocations) = (0.0, 0.0);
    for _ in 0..=ROUNDS {
        ours_allocations = measure(a, &mut times_a, &mut on_a);
        theirs_allocations = measure(b, &mut times_b, &mut on_b);
    }
    let mean = |times: Vec<Vec<f64>>| {
        let items = times.len() as f64;
        times.into_iter().map(median).sum::<f64>() / items
    };
    Row { ours_ns: mean(times_a), theirs_ns: mean(times_b), ours_allocations, theirs_allocations }
}

/// Prints one line and says whether the goals are met.
fn report(name: &str, row: &Row, share: f64, allocations: f64) -> bool {
    let ratio = row.theirs_ns / row.ours_ns;
    let met = ratio >= share && row.ours_allocations <= allocations;
    println!(
        "{name:28} {:>9.0} {:>9.0} {ratio:>7.1}x {:>8.1} {:>8.1}   goal {share:.0}x, {allocations:.0} allocations: {}",
        row.ours_ns,
        row.theirs_ns,
        row.ours_allocations,
        row.theirs_allocations,
        if met { "met" } else { "MISSED" }
    );
    met
}

fn run(name: &str, xml: &[String]) -> bool {
    // xso panics on white space round a fingerprint: such a stanza is not one that both read.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let readable = |x: &&str| ours(x).is_some() && std::panic::catch_unwind(|| theirs(x).is_some()).unwrap_or(false);
    let both: Vec<&str> = xml.iter().map(String::as_str).filter(readable).collect();
    std::panic::set_hook(hook);
    let bytes: usize = both.iter().map(|x| x.len()).sum();
    println!("{name}: {} of {} stanzas read by both, mean {} bytes", both.len(), xml.len(), bytes / both.len().max(1));
    let read =
        compare(&both, |x| drop(black_box(ours(black_box(x)))), &both, |x| drop(black_box(theirs(black_box(x)))));
    let our_values: Vec<Stanza> = both.iter().filter_map(|x| ours(x)).collect();
    let their_values: Vec<Theirs> = both.iter().filter_map(|x| theirs(x)).collect();
    let mut out = String::with_capacity(64 * 1024);
    let write = compare(
        &our_values,
        |stanza| {
            out.clear();
            black_box(stanza).write(&mut Writer::new(&mut out));
            black_box(&out);
        },
        &their_values,
        |stanza| drop(black_box(write_theirs(black_box(stanza)))),
    );
    let read = report("  read", &read, 10.0, 30.0);
    report("  write", &write, 30.0, 0.0) && read
}

fn folder(path: &Path, keep: impl Fn(&str) -> bool) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    let texts = paths.iter().filter(|p| p.extension().is_some_and(|e| e == "xml"));
    // xmpp-parsers wants the content namespace, which on a stream comes from the header.
    let texts = texts.filter_map(|p| std::fs::read_to_string(p).ok()).filter(|t| keep(t));
    texts
        .map(|t| t.trim().replacen("<iq ", "<iq xmlns='jabber:client' ", 1))
        .map(|t| t.replacen("<message ", "<message xmlns='jabber:client' ", 1))
        .collect()
}

fn main() -> ExitCode {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    println!("ns a stanza: {:>24} {:>9} {:>8} {:>8} {:>8}", "ours", "theirs", "faster", "ours", "theirs");
    let mut met = run("an audio call", &folder(&here.join("tests/fixtures/call"), |_| true));
    let corpus = std::env::var_os("OFFHOOK_CORPUS").map_or_else(|| here.join("../shared/corpus"), PathBuf::from);
    let examples = folder(&corpus.join("xep"), |t| t.starts_with("<iq") && t.contains("'urn:xmpp:jingle:1'"));
    if examples.is_empty() {
        println!("the XEPs' examples: not found, see OFFHOOK_CORPUS");
    } else {
        met &= run("the XEPs' examples", &examples);
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

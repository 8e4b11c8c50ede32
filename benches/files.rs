//! A file from disk over loopback TCP to disk, sender and receiver each in a process of its own: with SHA-256 computed on
//! both sides and compared, without any hash, and as a plain copy loop; beside them the bare SHA-256 rate. One run holds
//! all four, interleaved; ratios are of medians.
//!
//! Goals: with the hash ≥ 0.9 × min(plain copy, SHA-256 rate), without it ≥ 0.9 × plain copy, ≤ 20 MB a process.
//!
//! `OFFHOOK_FILE_MIB=256 OFFHOOK_ROUNDS=5 cargo bench --bench files` for a short run; 1024 MiB and 7 rounds otherwise.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use offhook::file::hash::{Hasher, Hashers};
use offhook::file::part::Identity;
use offhook::file::{FileJob, Verdict};
use offhook::io::disk::{FileReport, FileWorker, Inbox, Outbox};
use offhook::wire::file::HashAlgo;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Instant;

const COPY_BLOCK: usize = 256 * 1024;
const KINDS: [&str; 3] = ["plain", "none", "sha-256"];

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|a| a == "--role") {
        Some(at) => {
            let [role, kind, path] = [1, 2, 3].map(|n| arguments[at + n].as_str());
            if role == "send" {
                send(kind, Path::new(path), &arguments[at + 4])
            } else {
                receive(kind, Path::new(path))
            }
        }
        None => compare(),
    }
}

fn algos(kind: &str) -> Vec<HashAlgo> {
    HashAlgo::parse(kind).into_iter().collect()
}

/// Peak resident memory and CPU time of this process.
fn costs() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().filter_map(|f| f.parse().ok()).collect();
    let ticks = fields.get(10).unwrap_or(&0.0) + fields.get(11).unwrap_or(&0.0);
    (peak.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1000.0, ticks / 100.0)
}

fn report_done(digest: &str) {
    let (peak, cpu) = costs();
    println!("done {peak} {cpu} {digest}-");
}

fn await_go() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The sending process.
fn send(kind: &str, path: &Path, port: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
    println!("ready");
    await_go();
    if kind == "plain" {
        let (mut file, mut block) = (File::open(path).unwrap(), vec![0; COPY_BLOCK]);
        loop {
            let bytes = file.read(&mut block).unwrap();
            if bytes == 0 {
                break;
            }
            stream.write_all(&block[..bytes]).unwrap();
        }
        drop(stream);
        return report_done("");
    }
    let entry = Outbox::new(&[path]).unwrap().files.remove(0);
    let (reports, inbox) = channel();
    let job = FileJob::Send { offset: 0, length: None, hash: HashAlgo::parse(kind) };
    let worker = FileWorker::send(entry, job, move |r| drop(reports.send(r))).unwrap();
    worker.carry(stream);
    match inbox.recv().unwrap() {
        FileReport::Carried(Ok(carried)) => report_done(&carried.hashes.first().map(|h| hex(&h.1)).unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

/// The receiving process.
fn receive(kind: &str, directory: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let (mut stream, _) = listener.accept().unwrap();
    await_go();
    let size = setting("OFFHOOK_FILE_MIB", 1024) << 20;
    if kind == "plain" {
        let (mut file, mut block) = (File::create(directory.join("plain")).unwrap(), vec![0; COPY_BLOCK]);
        loop {
            let bytes = stream.read(&mut block).unwrap();
            if bytes == 0 {
                break;
            }
            file.write_all(&block[..bytes]).unwrap();
        }
        return report_done("");
    }
    let identity = Identity { name: kind.to_owned(), size: Some(size), ..Default::default() };
    let part = Inbox::open(directory).unwrap().part(&identity).unwrap();
    let (reports, inbox) = channel();
    let job = FileJob::Receive { offset: 0, size: Some(size), limit: None, hashes: algos(kind) };
    let worker = FileWorker::receive(part, job, move |r| drop(reports.send(r))).unwrap();
    worker.carry(stream);
    let FileReport::Carried(Ok(carried)) = inbox.recv().unwrap() else { panic!("not carried") };
    worker.judge(Verdict::Keep);
    let FileReport::Kept(_) = inbox.recv().unwrap() else { panic!("not kept") };
    report_done(&carried.hashes.first().map(|h| hex(&h.1)).unwrap_or_default());
}

struct Side {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Side {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child =
            command.arg("--role").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Peak memory in MB, CPU seconds, digest.
    fn done(&mut self) -> (f64, f64, String) {
        let line = self.line();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "done", "{line}");
        (words[1].parse().unwrap(), words[2].parse().unwrap(), words[3].to_owned())
    }
}

#[derive(Default)]
struct Row {
    seconds: Vec<f64>,
    /// CPU seconds, of the sender and of the receiver.
    cpu: [Vec<f64>; 2],
    peak: [f64; 2],
}

fn transfer(kind: &str, source: &Path, directory: &Path, row: &mut Row) {
    let mut receiver = Side::start(&["receive", kind, directory.to_str().unwrap()]);
    let port = receiver.line();
    let mut sender = Side::start(&["send", kind, source.to_str().unwrap(), &port]);
    assert_eq!(sender.line(), "ready");
    let start = Instant::now();
    receiver.input.write_all(b"go\n").unwrap();
    sender.input.write_all(b"go\n").unwrap();
    let sent = sender.done();
    let received = receiver.done();
    row.seconds.push(start.elapsed().as_secs_f64());
    row.cpu[0].push(sent.1);
    row.cpu[1].push(received.1);
    row.peak = [row.peak[0].max(sent.0), row.peak[1].max(received.0)];
    assert_eq!(sent.2, received.2, "the digests differ");
    let size = setting("OFFHOOK_FILE_MIB", 1024) << 20;
    assert_eq!(std::fs::metadata(directory.join(kind)).unwrap().len(), size);
    std::fs::remove_file(directory.join(kind)).unwrap();
    sender.child.wait().unwrap();
    receiver.child.wait().unwrap();
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn compare() {
    let (mib, rounds) = (setting("OFFHOOK_FILE_MIB", 1024), setting("OFFHOOK_ROUNDS", 7));
    let base = std::env::var_os("OFFHOOK_FILE_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = base.join(format!("offhook-files-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let source = directory.join("source");
    let mut file = File::create(&source).unwrap();
    let mut block = vec![0u8; 1 << 20];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..mib {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
    // Written back before the clock runs.
    file.sync_all().unwrap();
    drop(file);
    let mut rows: [Row; 3] = Default::default();
    let mut sha = Vec::new();
    let mut sha_cpu = Vec::new();
    for round in 0..rounds {
        for n in 0..KINDS.len() {
            // Another order each time: the first one after a pause must not always be the same.
            let n = (n + round as usize) % KINDS.len();
            transfer(KINDS[n], &source, &directory, &mut rows[n]);
        }
        let (start, cpu) = (Instant::now(), costs().1);
        let mut hasher = Hashers::new([HashAlgo::Sha256]);
        for _ in 0..mib {
            hasher.update(&block);
        }
        drop(hasher.finish());
        sha.push(start.elapsed().as_secs_f64() / mib as f64);
        sha_cpu.push(costs().1 - cpu);
    }
    std::fs::remove_dir_all(&directory).unwrap();
    let rate = |seconds: f64| mib as f64 * 1.048_576 / seconds;
    let sha = 1.048_576 / median(&mut sha);
    println!("{mib} MiB, medians of {rounds} rounds, sender and receiver in a process each");
    let (mut rates, mut costs) = ([0.0; 3], [0.0; 3]);
    let gigabytes = mib as f64 * 1.048_576 / 1000.0;
    for (n, row) in rows.iter_mut().enumerate() {
        let seconds = median(&mut row.seconds);
        rates[n] = rate(seconds);
        let [sending, receiving] = [0, 1].map(|side| median(&mut row.cpu[side]) / gigabytes);
        costs[n] = sending + receiving;
        let busy = costs[n] * gigabytes / seconds;
        let (fast, slow) = (rate(row.seconds[0]), rate(row.seconds[row.seconds.len() - 1]));
        println!(
            "{:8} {:6.0} MB/s ({slow:.0} to {fast:.0})  {sending:.2} + {receiving:.2} CPU s/GB, {busy:.2} cores busy  peak \
             {:.1} MB sending, {:.1} MB receiving",
            KINDS[n], rates[n], row.peak[0], row.peak[1]
        );
    }
    let sha_cpu = median(&mut sha_cpu) / gigabytes;
    println!("bare SHA-256 {sha:.0} MB/s on one core, {sha_cpu:.2} CPU s/GB");
    for algo in [HashAlgo::Sha512, HashAlgo::Sha3_256, HashAlgo::Blake2b256, HashAlgo::Sha1] {
        let start = Instant::now();
        let mut hasher = Hasher::new(algo);
        (0..64).for_each(|_| hasher.update(&block));
        drop(hasher.finish());
        println!("bare {} {:.0} MB/s", algo.as_str(), 64.0 * 1.048_576 / start.elapsed().as_secs_f64());
    }
    let [plain, none, hashed] = rates;
    println!("without hash: {:.2} of the plain copy (goal 0.9)", none / plain);
    println!("with SHA-256: {:.2} of min(plain copy, SHA-256) (goal 0.9)", hashed / plain.min(sha));
    // Sender and receiver share this machine: the copy and two hashes must fit into its cores.
    let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let least = costs[0] + 2.0 * sha_cpu;
    println!(
        "{cores} cores give at most {:.0} MB/s with SHA-256 on both sides; CPU time is {:.2} of a plain copy and two hashes",
        (1000.0 * cores / least).min(plain).min(sha),
        costs[2] / least
    );
}

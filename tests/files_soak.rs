//! Five gigabytes from alpha.test to beta.test, killed at 60 % on either side and sent again: `make soak` gives
//! OFFHOOK_FILE_BYTES; without it the same is done with 64 MiB.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/files.rs"]
mod files;
#[path = "common/program.rs"]
mod program;
#[path = "common/prosody.rs"]
mod prosody;

use program::{Offhook, Program};
use prosody::Lab;
use prosody::coturn::wanted;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What one connection takes at most, on a slow disk.
const PATIENCE: Duration = Duration::from_secs(900);

fn bytes() -> u64 {
    let bytes = std::env::var("OFFHOOK_FILE_BYTES").ok().map(|it| it.parse().expect("OFFHOOK_FILE_BYTES is a number"));
    bytes.unwrap_or(64 << 20)
}

/// A folder with room: the system's temporary one may be memory.
fn room() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Removed when the test ends, however it ends.
struct Room(PathBuf);

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn part(dir: &Path) -> u64 {
    let parts = files::list(dir).into_iter().filter(|name| name.ends_with(".part") && !name.starts_with('.'));
    parts.filter_map(|name| fs::metadata(dir.join(name)).ok()).map(|it| it.len()).max().unwrap_or(0)
}

/// Kilobytes of a process that are in memory at most so far.
fn peak_kib(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}

#[test]
fn a_large_file_killed_in_the_middle_on_either_side_arrives_whole() {
    if !wanted("a_large_file_killed_in_the_middle_on_either_side_arrives_whole") {
        return;
    }
    let size = bytes();
    let lab = Lab::start();
    let room = Room(room());
    let source = files::make_large(room.0.join("large.bin"), size, 5);
    let want = files::sha256(&source);
    for sender_dies in [true, false] {
        let dir = files::folder(&room.0, "in");
        let receiver = || {
            let command = Offhook::at(&lab, "mercutio@beta.test", &["receive", "--accept", "contacts"]);
            let mut program = command.arg("--dir").arg(&dir).start();
            // The server keeps the session of a killed receiver for a while: this device is named.
            let jid = program.wait_for("online")["jid"].as_str().unwrap().to_owned();
            (program, jid)
        };
        let send = |to: &str| Offhook::at(&lab, "romeo@alpha.test", &["send", to]).arg(&source).start();
        let (mut receiving, mut device) = receiver();
        let start = Instant::now();
        let sending = send(&device);
        while part(&dir) < size / 10 * 6 {
            assert!(start.elapsed() < PATIENCE, "{} bytes\n{}", part(&dir), sending.stderr());
            assert!(!dir.join("large.bin").exists(), "the file was there before it could be cut");
        }
        let peaks = [sending.id(), receiving.id()].map(peak_kib);
        let kill = |program: Program| drop(program.kill());
        if sender_dies {
            kill(sending);
        } else {
            kill(receiving);
            sending.interrupt();
            drop(sending.finish());
            (receiving, device) = receiver();
        }
        let kept = part(&dir);
        println!("cut at {kept} of {size} bytes after {:?}; peak memory {peaks:?} KiB", start.elapsed());
        assert!(kept >= size / 10 * 6 && !dir.join("large.bin").exists());
        let start = Instant::now();
        let mut sending = send(&device);
        let accepted = sending.wait_until_within(PATIENCE, "accepted", |event| event["event"] == "accepted").1;
        let done = sending.finish_within(PATIENCE);
        done.exits(0);
        println!("the rest in {:?}", start.elapsed());
        let offset = accepted["offset"].as_u64().unwrap();
        assert!(offset + (1 << 20) >= kept, "{kept} bytes were there and it went on at {offset}");
        let file = receiving.wait_for("file");
        assert_eq!((file["sha256"].as_str(), file["verified"].as_bool()), (Some(want.as_str()), Some(true)), "{file}");
        receiving.interrupt();
        receiving.finish().exits(130);
        assert_eq!(files::list(&dir), ["large.bin"]);
        assert_eq!(files::sha256(&dir.join("large.bin")), want);
    }
}

//! Files that tests send: made from a seed, told apart by their SHA-256.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes that no compressor and no mistake makes alike.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out.truncate(bytes);
    out
}

/// Writes a file of `bytes` bytes.
pub fn make(path: PathBuf, bytes: usize, seed: u64) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, noise(bytes, seed)).unwrap();
    path
}

/// Makes a file of `bytes` bytes that takes little room: holes, and a block of its own in each megabyte.
pub fn make_large(path: PathBuf, bytes: u64, seed: u64) -> PathBuf {
    let mut file = File::create(&path).unwrap();
    let mut block = noise(4096, seed);
    for at in (0..bytes.saturating_sub(4096)).step_by(1 << 20) {
        // No two blocks are alike.
        block[..8].copy_from_slice(&at.to_le_bytes());
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&block).unwrap();
    }
    file.set_len(bytes).unwrap();
    path
}

/// SHA-256 of a file, in hexadecimal digits.
#[track_caller]
pub fn sha256(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).unwrap() {
            0 => break,
            n => hash.update(&block[..n]),
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names of everything in a folder, in order.
pub fn list(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut names: Vec<String> = entries.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The same without the receipts that a program which still runs has for what it finished: a sidecar without its part.
pub fn settled(folder: &Path) -> Vec<String> {
    let all = list(folder);
    let part = |name: &str| name.strip_prefix('.').and_then(|it| it.strip_suffix(".offhook")).map(str::to_owned);
    let receipt = |name: &String| part(name).is_some_and(|part| part.ends_with(".part") && !all.contains(&part));
    all.iter().filter(|name| !receipt(name)).cloned().collect()
}

/// A fresh folder in `parent`.
pub fn folder(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

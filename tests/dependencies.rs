//! The house's rule on dependencies: one crypto provider, and a core without tasks. `make deny` checks the licences.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::process::Command;

/// `name version` of every package that `cargo tree` reaches.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}", "--color", "never"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .filter(|p| p.contains(" v"))
        .collect()
}

fn versions<'a>(tree: &'a BTreeSet<String>, name: &str) -> Vec<&'a String> {
    tree.iter().filter(|package| package.split(' ').next() == Some(name)).collect()
}

#[test]
fn one_crypto_provider_serves_everything_tests_included() {
    let all = tree(&["--all-features", "--edges", "all"]);
    assert!(all.len() > 100, "{all:?}");
    for name in ["ring", "openssl", "openssl-sys", "native-tls", "boring"] {
        assert!(versions(&all, name).is_empty(), "{name} is in the tree");
    }
    for name in ["aws-lc-rs", "aws-lc-sys", "rustls", "rustls-webpki"] {
        assert_eq!(versions(&all, name).len(), 1, "{name}: {:?}", versions(&all, name));
    }
}

#[test]
fn the_core_alone_brings_no_runtime_and_no_sockets() {
    let core = tree(&["--no-default-features", "--edges", "normal"]);
    for name in ["tokio", "mio", "socket2", "tokio-rustls", "async-std", "smol", "hickory-resolver", "clap"] {
        assert!(versions(&core, name).is_empty(), "{name} is in the core's tree");
    }
}

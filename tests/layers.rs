//! The house's second net: a module imports only from its own folder and from rows with a smaller number.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

/// Row of a top-level module; `None` for the crate root.
fn row(module: &str) -> Option<u8> {
    Some(match module {
        "fault" | "config" => 0,
        "wire" => 1,
        "xmpp" | "transport" | "media" => 2,
        "jingle" | "sip" | "file" => 3,
        "bridge" => 4,
        "endpoint" => 5,
        "io" | "error" => 6,
        "client" | "ops" => 7,
        "cli" => 8,
        _ => return None,
    })
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// First path segments that a source names after `crate::`.
fn imports(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or("").split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        for name in names {
            out.push(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    out
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_import_goes_down_or_stays_in_its_folder() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&root).unwrap();
        let first = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let Some(own) = row(&first) else { continue };
        for target in imports(&without_comments(&std::fs::read_to_string(file).unwrap())) {
            let Some(theirs) = row(&target) else { continue };
            let fine = target == first || theirs < own || (own == 0 && theirs == 0);
            if !fine {
                wrong.push(format!("{} imports crate::{target}", relative.display()));
            }
        }
    }
    assert!(files.len() > 20, "the source folder was not found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scan_itself_sees_an_upward_import() {
    assert_eq!(imports("use crate::io::tcp; use crate::{wire::xml, fault};"), ["io", "wire", "fault"]);
    assert!(row("io") > row("wire"));
}

#[test]
fn every_source_path_named_in_the_map_and_the_readme_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["README.md", "src/lib.rs"] {
        let text = std::fs::read_to_string(root.join(name)).expect(name);
        for (at, _) in text.match_indices("src/") {
            let path: String =
                text[at..].chars().take_while(|c| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '-')).collect();
            let path = path.trim_end_matches(['.', '/']);
            assert!(root.join(path).exists(), "{name} names {path}, which is gone");
        }
    }
}

/// Words in back quotes that are names of tests: sentences.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|w| {
        w.matches('_').count() >= 2 && w.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    let all: String = files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
    let mut named = 0;
    for name in ["README.md", "SECURITY.md"] {
        let text = std::fs::read_to_string(root.join(name)).expect(name);
        for test in test_names(&text) {
            named += 1;
            assert!(all.contains(&format!("fn {test}(")), "{name} names the test {test}, which is gone");
        }
        for word in text.split('`').filter(|w| w.ends_with(".rs") && !w.contains(char::is_whitespace)) {
            assert!(root.join(word).exists(), "{name} names {word}, which is gone");
        }
    }
    assert!(named > 15, "the table of promises was not found");
}

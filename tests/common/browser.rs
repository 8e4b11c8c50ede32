//! Chromium (Debian package `chromium`) with npm `stanza`, the Jingle of somebody else, under a small Node program.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use crate::program::LIMIT;
use crate::prosody::child::Running;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// One page, signed in once.
pub struct Browser {
    running: Running,
    commands: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// What happened and was not waited for yet.
    events: Vec<Value>,
    /// All that happened.
    pub history: Vec<Value>,
    stderr: PathBuf,
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

/// Folder with `node_modules`, in the target folder; filled by `npm ci` when the lock file is another one than last time.
fn modules() -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let (lock, stamp) = (sources().join("package-lock.json"), folder.join("installed.json"));
    if fs::read(&stamp).is_ok_and(|installed| installed == fs::read(&lock).unwrap()) {
        return folder;
    }
    fs::create_dir_all(&folder).unwrap();
    for name in ["package.json", "package-lock.json"] {
        fs::copy(sources().join(name), folder.join(name)).unwrap();
    }
    println!("npm ci, for the browser peer");
    let npm = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .output()
        .unwrap_or_else(|why| {
            panic!("cannot start npm ({why}): install the Debian package `npm`, or set OFFHOOK_INTEROP=none")
        });
    let text = String::from_utf8_lossy(&npm.stderr);
    assert!(npm.status.success(), "npm ci failed; is there a network? OFFHOOK_INTEROP=none leaves it out.\n{text}");
    fs::copy(&lock, &stamp).unwrap();
    folder
}

impl Browser {
    /// Starts it. With `hide_addresses` its host candidates are `.local` names, as by default on the web.
    pub fn start(folder: &Path, hide_addresses: bool) -> Self {
        assert!(
            std::env::var_os("CHROMIUM").is_some() || Path::new("/usr/bin/chromium").exists(),
            "no /usr/bin/chromium: install the Debian package `chromium`, name one by CHROMIUM, or set OFFHOOK_INTEROP=none"
        );
        let modules = modules();
        let stderr = folder.join("browser-stderr");
        let mut command = Command::new("node");
        command.arg(sources().join("run.mjs")).arg(&modules);
        if hide_addresses {
            command.arg("--mdns");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&stderr).unwrap());
        let mut running = Running::spawn(&mut command, "nodejs");
        let commands = running.child.stdin.take();
        let stdout = running.child.stdout.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str(&line) else { break };
                if send.send(value).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self { running, commands, lines, events: vec![], history: vec![], stderr };
        let ready = browser.wait_for("ready");
        println!("Chromium {}", ready["version"]);
        browser
    }

    /// Does one of the page's verbs.
    #[track_caller]
    pub fn ask(&mut self, command: &Value) -> Value {
        let stdin = self.commands.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        stdin.flush().unwrap();
        loop {
            let line = self.next(&command.to_string());
            if let Some(error) = line.get("error") {
                panic!("{command}: {error}\n{:#?}", self.history);
            }
            if let Some(answer) = line.get("answer") {
                return answer.clone();
            }
            self.events.push(line);
        }
    }

    /// A verb without arguments.
    #[track_caller]
    pub fn tell(&mut self, verb: &str) -> Value {
        self.ask(&json!({ "do": verb }))
    }

    /// Waits for the next event of this name; earlier ones are forgotten.
    #[track_caller]
    pub fn wait_for(&mut self, name: &str) -> Value {
        loop {
            while !self.events.is_empty() {
                let event = self.events.remove(0);
                if event["event"] == name {
                    return event;
                }
            }
            let line = self.next(name);
            self.events.push(line);
        }
    }

    #[track_caller]
    fn next(&mut self, what: &str) -> Value {
        let start = Instant::now();
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => {
                self.history.push(line.clone());
                line
            }
            Err(_) => {
                let stderr = fs::read_to_string(&self.stderr).unwrap_or_default();
                panic!("no {what} after {:?}; so far: {:#?}\n{stderr}", start.elapsed(), self.history)
            }
        }
    }

    /// Waits until `fits` holds for the figures of the last call.
    #[track_caller]
    pub fn stats_until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let stats = self.tell("stats");
            if fits(&stats) {
                return stats;
            }
            assert!(start.elapsed() < LIMIT, "never {what}: {stats}; {:#?}", self.history);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.history.extend(self.lines.try_iter());
            for event in self.history.iter().rev().take(30).rev() {
                eprintln!("browser: {event}");
            }
        }
        // Chromium is ended by its own keeper when that keeper's stdin ends; ended by force it would stay.
        drop(self.commands.take());
        let _ = self.running.wait(std::time::Duration::from_secs(10));
    }
}

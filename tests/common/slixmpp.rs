//! Somebody else's byte streams: slixmpp (PyPI) with the Jingle file transfer of `tests/slixmpp/peer.py`.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use crate::program::LIMIT;
use crate::prosody::child::Running;
use crate::prosody::{Lab, PASSWORD};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// One client, signed in.
pub struct Slixmpp {
    running: Running,
    commands: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// All that happened.
    pub history: Vec<Value>,
    /// Its full address.
    pub jid: String,
    seen: usize,
    stderr: PathBuf,
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slixmpp")
}

/// The interpreter of an environment in the target folder; filled when the list of packages is another one than last time.
fn python() -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slixmpp");
    let python = folder.join("bin/python");
    let (list, stamp) = (sources().join("requirements.txt"), folder.join("installed.txt"));
    if fs::read(&stamp).is_ok_and(|installed| installed == fs::read(&list).unwrap()) {
        return python;
    }
    println!("pip install, for the slixmpp peer");
    let run = |command: &mut Command, package: &str| {
        let output = command.output().unwrap_or_else(|why| {
            panic!("cannot start python3 ({why}): install the Debian package `{package}`, or set OFFHOOK_INTEROP=none")
        });
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "is `{package}` there, and a network? OFFHOOK_INTEROP=none leaves it out.\n{text}"
        );
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder), "python3-venv");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r"];
    run(Command::new(&python).args(install).arg(&list), "python3-venv");
    fs::copy(&list, &stamp).unwrap();
    python
}

impl Slixmpp {
    /// Signs in as `jid` and waits until it is online. It listens for SOCKS5 on 127.0.0.1.
    pub fn start(lab: &Lab, jid: &str) -> Self {
        let stderr = lab.folder.join(format!("slixmpp-{}", jid.replace(['@', '/'], "-")));
        let server = lab.server_of(jid).ip.to_string();
        let mut command = Command::new(python());
        command.arg(sources().join("peer.py")).args([jid, PASSWORD, &server, "5222", "127.0.0.1"]);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&stderr).unwrap());
        let mut running = Running::spawn(&mut command, "python3");
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
        let mut peer = Self { running, commands, lines, history: vec![], jid: String::new(), seen: 0, stderr };
        peer.jid = peer.wait_for("online")["jid"].as_str().unwrap().to_owned();
        peer
    }

    /// What it does with the next offers: `plan` is an object, see `peer.py`; the bytes go to `path`.
    pub fn receive(&mut self, path: &Path, mut plan: Value) {
        plan["do"] = json!("receive");
        plan["path"] = json!(path);
        self.tell(&plan);
        self.wait_for("ready");
    }

    /// Offers a file; `plan` as in [`Slixmpp::receive`].
    pub fn send(&mut self, to: &str, path: &Path, mut plan: Value) {
        plan["do"] = json!("send");
        plan["to"] = json!(to);
        plan["path"] = json!(path);
        self.tell(&plan);
    }

    fn tell(&mut self, command: &Value) {
        self.seen = self.history.len();
        let stdin = self.commands.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        stdin.flush().unwrap();
    }

    /// Waits for the next event of this name, from where the last wait ended.
    #[track_caller]
    pub fn wait_for(&mut self, name: &str) -> Value {
        self.wait_until(name, |event| event["event"] == name)
    }

    /// Waits for the next event that `fits`.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            while let Some(event) = self.history.get(self.seen) {
                self.seen += 1;
                if fits(event) {
                    return event.clone();
                }
            }
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => self.history.push(line),
                Err(_) => {
                    let stderr = fs::read_to_string(&self.stderr).unwrap_or_default();
                    panic!("no {what} after {:?}; so far: {:#?}\n{stderr}", start.elapsed(), self.history)
                }
            }
        }
    }

    /// Events of this name since the last command.
    pub fn all(&self, name: &str) -> Vec<&Value> {
        let start = self.history.iter().rposition(|event| event["event"] == "online").unwrap_or(0);
        self.history[start..].iter().filter(|event| event["event"] == name).collect()
    }
}

impl Drop for Slixmpp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.history.extend(self.lines.try_iter());
            for event in self.history.iter().rev().take(12).rev() {
                eprintln!("{}: {event}", self.jid);
            }
            eprintln!("{}", fs::read_to_string(&self.stderr).unwrap_or_default());
        }
        // Signs out when its stdin ends.
        drop(self.commands.take());
        let _ = self.running.wait(std::time::Duration::from_secs(3));
    }
}

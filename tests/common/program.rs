//! The real `offhook` program in a test: its JSON events, what it says on stderr, its exit code.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use crate::prosody::child::Running;
use crate::prosody::{Lab, PASSWORD};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing here takes a tenth of this; a machine that is busy with other work may.
pub const LIMIT: Duration = Duration::from_secs(60);

/// An invocation that is being put together.
pub struct Offhook(Command);

impl Offhook {
    /// `offhook WORD…` with nothing of the user's own settings.
    pub fn new(words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OFFHOOK_")) {
            command.env_remove(name);
        }
        let nowhere = std::env::temp_dir().join("offhook-test-has-no-settings");
        command.env("XDG_CONFIG_HOME", &nowhere).env("XDG_STATE_HOME", &nowhere);
        if let Some(level) = std::env::var_os("OFFHOOK_TEST_LOG") {
            command.env("OFFHOOK_LOG", level);
        }
        command.args(words).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command)
    }

    /// The same, signed in as `jid` at its server of the laboratory, on loopback addresses.
    pub fn at(lab: &Lab, jid: &str, words: &[&str]) -> Self {
        Self::outside(lab, jid, words).arg("--lab")
    }

    /// The same, but without the loopback addresses: for those that do not get as far as media, or must not.
    pub fn outside(lab: &Lab, jid: &str, words: &[&str]) -> Self {
        Self::new(words).server(&lab.server_of(jid).c2s()).account(jid).trusting(lab)
    }

    #[must_use]
    pub fn account(self, jid: &str) -> Self {
        self.args(["--account", jid]).password(PASSWORD)
    }

    #[must_use]
    pub fn server(self, server: &str) -> Self {
        self.args(["--server", server])
    }

    /// Trusts the laboratory's authority.
    #[must_use]
    pub fn trusting(self, lab: &Lab) -> Self {
        self.arg("--ca-file").arg(&lab.ca_file)
    }

    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.0.args(arguments);
        self
    }

    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.0.env("OFFHOOK_PASSWORD", password);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Program {
        let mut running = Running::spawn(&mut self.0, "none: it is built by cargo");
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let stdout = running.child.stdout.take().unwrap();
        let stderr = running.child.stderr.take().unwrap();
        let readers = [listen(stdout, &heard, true), listen(stderr, &heard, false)];
        Program { running, heard, readers, seen: 0, keys: None }
    }

    /// Starts it on a terminal, so that it takes keys: `script` (Debian package `bsdutils`) makes one. Its stdout goes
    /// through a pipe in `folder` instead.
    pub fn start_on_terminal(self, folder: &Path) -> Program {
        let pipe = folder.join("stdout");
        let _ = std::fs::remove_file(&pipe);
        let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo, of the Debian package `coreutils`");
        assert!(made.success());
        let quoted = |text: &OsStr| format!("'{}'", text.to_str().unwrap().replace('\'', "'\\''"));
        let mut line = format!("exec {}", quoted(self.0.get_program()));
        for argument in self.0.get_args() {
            line.push_str(&format!(" {}", quoted(argument)));
        }
        line.push_str(&format!(" >{}", quoted(pipe.as_os_str())));
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-f", "-c", &line, "/dev/null"]).env("SHELL", "/bin/sh");
        for (name, value) in self.0.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut running = Running::spawn(&mut command, "bsdutils");
        let keys = running.child.stdin.take();
        let terminal = running.child.stdout.take().unwrap();
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        // Waits until the program opens the other end.
        let stdout = File::open(&pipe).unwrap();
        let readers = [listen(stdout, &heard, true), listen(terminal, &heard, false)];
        Program { running, heard, readers, seen: 0, keys }
    }

    /// The same, run by the command that `make` gives for a program; arguments and environment stay.
    #[must_use]
    pub fn by(self, make: impl FnOnce(&OsStr) -> Command) -> Self {
        let mut command = make(self.0.get_program());
        command.args(self.0.get_args());
        for (name, value) in self.0.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command)
    }

    /// Gives it a folder of its own for its state.
    #[must_use]
    pub fn state(mut self, folder: &Path) -> Self {
        self.0.env("XDG_STATE_HOME", folder);
        self
    }

    /// Starts it and waits for its end.
    pub fn run(self) -> Done {
        self.start().finish()
    }
}

#[derive(Default)]
struct Heard {
    events: Vec<(Instant, Value)>,
    stderr: String,
    closed: bool,
}

/// A test that failed while it held the lock has said so already.
fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(stream: impl Read + Send + 'static, heard: &Arc<(Mutex<Heard>, Condvar)>, events: bool) -> JoinHandle<()> {
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            let mut state = lock(&heard.0);
            if events {
                let value: Value = serde_json::from_str(&line).unwrap_or_else(|why| panic!("stdout: {why}: {line}"));
                assert_eq!(value.get("v"), Some(&Value::from(1)), "{line}");
                state.events.push((Instant::now(), value));
            } else {
                state.stderr.push_str(&line);
                state.stderr.push('\n');
            }
            heard.1.notify_all();
        }
        if events {
            lock(&heard.0).closed = true;
            heard.1.notify_all();
        }
    })
}

/// A running `offhook`; ended when dropped.
pub struct Program {
    running: Running,
    heard: Arc<(Mutex<Heard>, Condvar)>,
    readers: [JoinHandle<()>; 2],
    seen: usize,
    keys: Option<ChildStdin>,
}

impl Program {
    /// Waits for the next event of this name, from where the last wait ended.
    pub fn wait_for(&mut self, name: &str) -> Value {
        self.wait_until(name, |event| event["event"] == name).1
    }

    /// Waits for the next event that `fits`; gives also when it came.
    pub fn wait_until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> (Instant, Value) {
        self.wait_until_within(LIMIT, what, fits)
    }

    /// The same, for so long.
    pub fn wait_until_within(
        &mut self,
        limit: Duration,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> (Instant, Value) {
        let start = Instant::now();
        let mut state = lock(&self.heard.0);
        loop {
            while let Some((at, event)) = state.events.get(self.seen) {
                self.seen += 1;
                if fits(event) {
                    return (*at, event.clone());
                }
            }
            assert!(
                !state.closed && start.elapsed() < limit,
                "no {what} came; stdout: {:#?}\nstderr: {}",
                state.events,
                state.stderr
            );
            state = self.heard.1.wait_timeout(state, Duration::from_millis(200)).unwrap().0;
        }
    }

    /// Names of the events so far.
    pub fn names(&self) -> Vec<String> {
        lock(&self.heard.0).events.iter().map(|(_, e)| e["event"].as_str().unwrap().to_owned()).collect()
    }

    /// What it wrote on stderr so far.
    pub fn stderr(&self) -> String {
        lock(&self.heard.0).stderr.clone()
    }

    /// Presses a key; see [`Offhook::start_on_terminal`].
    pub fn press(&mut self, key: char) {
        let keys = self.keys.as_mut().expect("started on a terminal");
        keys.write_all(key.to_string().as_bytes()).unwrap();
        keys.flush().unwrap();
    }

    /// Presses a key again and again, as a person does when the first one fell between two questions.
    pub fn press_until_it_ends(mut self, key: char) -> Done {
        let start = Instant::now();
        while self.running.ended().is_none() && start.elapsed() < LIMIT {
            // The terminal may be gone by now.
            if let Some(keys) = &mut self.keys {
                let _ = keys.write_all(key.to_string().as_bytes()).and_then(|()| keys.flush());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        self.finish()
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        self.running.signal("INT");
    }

    /// `kill -9`; gives what it left behind.
    pub fn kill(mut self) -> Done {
        self.running.child.kill().unwrap();
        self.finish()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.child.id()
    }

    /// Waits for its end.
    pub fn finish(self) -> Done {
        self.finish_within(LIMIT)
    }

    /// What it left behind if it ends well within `limit`; a person would not wait longer, and presses Ctrl-C.
    pub fn finish_or_interrupt(mut self, limit: Duration) -> Option<Done> {
        if self.running.wait(limit).is_none() {
            self.interrupt();
        }
        Some(self.finish()).filter(|done| done.code == Some(0))
    }

    /// Waits for its end for so long.
    pub fn finish_within(mut self, limit: Duration) -> Done {
        let Some(status) = self.running.wait(limit) else {
            let state = lock(&self.heard.0);
            panic!("it does not end; stdout: {:#?}\nstderr: {}", state.events, state.stderr);
        };
        for reader in self.readers {
            reader.join().unwrap();
        }
        let state = std::mem::take(&mut *lock(&self.heard.0));
        Done { code: status.code(), events: state.events, stderr: state.stderr }
    }
}

/// What a program left behind.
#[derive(Debug)]
pub struct Done {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its events and when they came.
    pub events: Vec<(Instant, Value)>,
    /// What it said to people.
    pub stderr: String,
}

impl Done {
    /// All events of this name.
    pub fn all(&self, name: &str) -> Vec<&Value> {
        self.events.iter().map(|(_, e)| e).filter(|e| e["event"] == name).collect()
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout: {:#?}\nstderr: {}", self.events, self.stderr);
        self
    }

    /// Asserts that stderr has an `error:` line with all of `parts`, and a full sentence of what to try.
    #[track_caller]
    pub fn says(&self, parts: &[&str]) -> &Self {
        let line =
            self.stderr.lines().find(|l| l.starts_with("error:")).unwrap_or_else(|| panic!("no error: {self:#?}"));
        for part in parts {
            assert!(line.to_lowercase().contains(&part.to_lowercase()), "{part:?} is missing in: {line}");
        }
        assert!(line.trim_end().ends_with('.'), "not a sentence: {line}");
        let sentences = line.matches(". ").count() + 1;
        assert!(sentences > 1, "says what happened, but not what to try: {line}");
        self
    }
}

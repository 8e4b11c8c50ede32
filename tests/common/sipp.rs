//! sipp (Debian package `sip-tester`) with the scenarios of `tests/sipp`: a peer that does to the letter what a file says.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use crate::prosody::child::Running;
use crate::prosody::place;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run that is being put together.
pub struct Scenario {
    command: Command,
    folder: PathBuf,
    name: String,
}

/// The scenario `tests/sipp/NAME.xml` on an address of one's own, port 5060 by UDP, one call.
pub fn scenario(name: &str, ip: Ipv4Addr) -> Scenario {
    let folder = place::folder("sipp");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/sipp/{name}.xml"));
    let mut command = Command::new("sipp");
    command.arg("-sf").arg(file).args(["-i", &ip.to_string(), "-mi", &ip.to_string(), "-p", "5060"]);
    command.args(["-nostdin", "-trace_msg", "-trace_err", "-timeout", "60", "-timeout_error"]);
    command.arg("-message_file").arg(folder.join("messages")).arg("-error_file").arg(folder.join("errors"));
    command.current_dir(&folder);
    Scenario { command, folder, name: name.to_owned() }
}

impl Scenario {
    /// Whom a caller calls, at `ADDRESS:PORT` by UDP.
    #[must_use]
    pub fn calls(mut self, user: &str, address: &str) -> Self {
        self.command.args(["-s", user, address]);
        self
    }

    /// The value of `[name]` in the scenario.
    #[must_use]
    pub fn key(mut self, name: &str, value: &str) -> Self {
        self.command.args(["-key", name, value]);
        self
    }

    /// Takes the same message again as a message of its own, instead of repeating what it had answered.
    #[must_use]
    pub fn without_retransmissions(mut self) -> Self {
        self.command.arg("-nr");
        self
    }

    /// So many calls altogether, so many a second.
    #[must_use]
    pub fn often(mut self, calls: u32, per_second: u32) -> Self {
        self.command.args(["-m", &calls.to_string(), "-r", &per_second.to_string()]);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Sipp {
        if !self.command.get_args().any(|argument| argument == "-m") {
            self.command.args(["-m", "1"]);
        }
        let output = File::create(self.folder.join("screen")).unwrap();
        self.command.stdin(Stdio::null()).stderr(output.try_clone().unwrap()).stdout(output);
        let process = Running::spawn(&mut self.command, "sip-tester");
        Sipp { folder: self.folder, name: self.name, process }
    }

    /// Runs it to its end, which must be a good one; gives all messages of it.
    #[track_caller]
    pub fn run(self) -> String {
        self.start().finish()
    }
}

/// A running sipp; ends when dropped.
pub struct Sipp {
    folder: PathBuf,
    name: String,
    process: Running,
}

impl Sipp {
    /// All messages so far.
    pub fn messages(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("messages")).unwrap_or_default()).into_owned()
    }

    /// Waits until a line that begins like this has been sent or received so often.
    #[track_caller]
    pub fn meets(&mut self, beginning: &str, times: usize) {
        let start = Instant::now();
        while self.messages().lines().filter(|line| line.starts_with(beginning)).count() < times {
            let waiting = start.elapsed() < Duration::from_secs(30) && self.process.ended().is_none();
            assert!(waiting, "the scenario {} meets no {beginning:?} {times} times", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of the scenario, every call of which must have gone as the file says; gives all messages.
    #[track_caller]
    pub fn finish(mut self) -> String {
        let status = self.process.wait(Duration::from_secs(70));
        let messages = self.messages();
        if !status.is_some_and(|status| status.success()) {
            panic!("the scenario {} did not go as it should: {status:?}", self.name);
        }
        messages
    }

    /// Ends it wherever it is; gives all messages.
    pub fn stop(mut self) -> String {
        self.process.signal("KILL");
        self.process.wait(Duration::from_secs(5));
        self.messages()
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (file, lines) in [("messages", 150), ("errors", 30), ("screen", 5)] {
                place::show_end_of(&self.folder.join(file), lines);
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

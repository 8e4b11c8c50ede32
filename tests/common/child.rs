//! A program that a test starts: ended by its process id when dropped, and even when the test process is killed.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running program.
pub struct Running {
    pub child: Child,
    // `sh` that waits for the end of its stdin, which comes when this process ends, and then ends the program.
    watch: Option<Child>,
}

impl Running {
    /// Starts it. `package` is the Debian package that is named when the program is not there.
    pub fn spawn(command: &mut Command, package: &str) -> Self {
        let child = command.spawn().unwrap_or_else(|why| {
            panic!(
                "cannot start {} ({why}): install the Debian package `{package}`, or set OFFHOOK_INTEROP=none",
                command.get_program().to_string_lossy()
            )
        });
        let watch = Command::new("sh")
            .args(["-c", "read -r _; kill -9 \"$0\" 2>/dev/null", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok();
        Self { child, watch }
    }

    /// Its exit status once it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten();
        if status.is_some() {
            self.forget();
        }
        status
    }

    /// Waits for its end for at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Sends a signal by name (`INT`, `TERM`).
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
    }

    /// The watcher goes before the program is reaped, so that it never meets a reused id.
    fn forget(&mut self) {
        if let Some(mut watch) = self.watch.take() {
            let _ = watch.kill();
            let _ = watch.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.forget();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A real Kamailio (Debian package `kamailio`) on a loopback address of its own: registrar and proxy of `kam.test` by UDP,
//! TCP and TLS on the standard ports and by WebSocket on 8080; see `tests/kamailio/kamailio.cfg`.
//!
//! ```text
//!   telephone ── digest ──▶ Kamailio ip ◀── no questions asked ── trunk (the address after it, port 5060)
//! ```
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use crate::prosody::child::Running;
use crate::prosody::place;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Its domain; every user's password is `secret`.
pub const KAM: &str = "kam.test";

/// A running Kamailio; ends when dropped.
pub struct Kamailio {
    /// Its address.
    pub ip: Ipv4Addr,
    /// What comes from here needs no password, and calls to `trunk…@kam.test` go to its port 5060 by UDP.
    pub trunk: Ipv4Addr,
    /// To be trusted for TLS.
    pub ca_file: PathBuf,
    /// A test may put its own files there.
    pub folder: PathBuf,
    process: Running,
}

impl Kamailio {
    /// Starts it, with MD5 digests.
    pub fn start() -> Self {
        Self::start_with("MD5", Duration::from_secs(300))
    }

    /// Starts it with digests of this algorithm and nonces that last so long.
    pub fn start_with(algorithm: &str, nonce: Duration) -> Self {
        let [ip, trunk] = place::addresses(&[5060, 5061, 8080]);
        let folder = place::folder("kamailio");
        let ca_file = place::certificates(&folder, &[(KAM, IpAddr::V4(ip))]);
        let config = include_str!("../kamailio/kamailio.cfg")
            .replace("@IP@", &ip.to_string())
            .replace("@TRUNK@", &trunk.to_string())
            .replace("@FOLDER@", folder.to_str().unwrap())
            .replace("@MODULES@", modules().to_str().unwrap())
            .replace("@ALGORITHM@", algorithm)
            .replace("@NONCE@", &nonce.as_secs().to_string());
        fs::write(folder.join("kamailio.cfg"), config).unwrap();
        // It is many processes; all of them end with the first.
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--pid", "--fork", "--kill-child", "kamailio", "-DD", "-E"]);
        command.args(["-m", "64", "-M", "8", "-Y"]).arg(&folder).arg("-f").arg(folder.join("kamailio.cfg"));
        let output = File::create(folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stderr(output.try_clone().unwrap()).stdout(output);
        let process = Running::spawn(&mut command, "kamailio");
        let mut proxy = Self { ip, trunk, ca_file, folder, process };
        let start = Instant::now();
        while TcpStream::connect((ip, 8080)).is_err() {
            let ended = proxy.process.ended();
            if ended.is_some() || start.elapsed() > Duration::from_secs(30) {
                panic!("Kamailio does not start ({ended:?}); is the Debian package `kamailio` there?");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        proxy
    }

    /// UDP and TCP.
    pub fn sip(&self) -> String {
        format!("{}:5060", self.ip)
    }

    /// Every request that it met, and what it complains of.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// Waits until its log has this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(20), "Kamailio does not say {text:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        if std::thread::panicking() {
            place::show_end_of(&self.folder.join("log"), 40);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where Debian keeps its modules; the path names the architecture.
fn modules() -> PathBuf {
    let all = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|e| e.path().join("kamailio/modules"));
    all.chain([Path::new("/usr/lib/kamailio/modules").to_owned()])
        .find(|path| path.exists())
        .expect("install the Debian package `kamailio`, or set OFFHOOK_INTEROP=none")
}

//! A real Asterisk on a loopback address of its own and on the standard ports, up in 0.6 s; `.ci/asterisk` brings it.
//! Its numbers are in `tests/asterisk/extensions.conf`, its accounts in `tests/asterisk/pjsip.conf`.
//!
//! ```text
//!   telephone ── 127.a.b.c:5060 UDP, TCP · 5061 TLS · 8088 WebSocket · 8089 the same over TLS ── Asterisk
//! ```
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use crate::prosody::child::Running;
use crate::prosody::place;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The name in its certificate; [`Asterisk::ip`] is there too.
pub const PBX: &str = "pbx.test";

/// Beginnings of the names of Asterisk's modules that take part; loading all of them takes three times as long.
const MODULES: &str = "
    app_confbridge. app_dial. app_echo. app_milliwatt. app_playback. app_playtones. app_read. app_record.
    app_senddtmf. app_stack. app_transfer. app_verbose. bridge_ chan_pjsip. codec_a_mu. codec_alaw. codec_g722.
    codec_gsm. codec_opus codec_resample. codec_ulaw. format_gsm. format_pcm. format_sln. format_wav. func_callerid.
    func_channel. func_logic. func_pjsip_ func_strings. func_timeout. pbx_config. res_clioriginate. res_crypto.
    res_format_attr_ res_http_websocket. res_musiconhold. res_pjproject. res_pjsip. res_pjsip_acl.
    res_pjsip_authenticator_digest. res_pjsip_caller_id. res_pjsip_d res_pjsip_e res_pjsip_header_funcs.
    res_pjsip_logger. res_pjsip_m res_pjsip_nat. res_pjsip_outbound_ res_pjsip_path. res_pjsip_pidf_
    res_pjsip_pubsub. res_pjsip_refer. res_pjsip_registrar. res_pjsip_rfc3326. res_pjsip_s
    res_pjsip_transport_websocket. res_pjsip_xpidf_ res_rtp_asterisk. res_sorcery_ res_srtp. res_timing_timerfd.
";

/// Which Asterisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 22 of Debian sid.
    New,
    /// 16 of Debian bullseye.
    Old,
}

/// A running Asterisk; it and its folder are gone when this is dropped.
pub struct Asterisk {
    /// Its address.
    pub ip: Ipv4Addr,
    /// To be trusted for TLS and WebSocket over TLS.
    pub ca_file: PathBuf,
    /// Its configuration, log and recordings; a test may put its own files there.
    pub folder: PathBuf,
    program: PathBuf,
    process: Running,
}

impl Asterisk {
    /// Asterisk 22.
    pub fn start() -> Self {
        Self::start_version(Version::New)
    }

    /// Starts it and waits until it serves.
    pub fn start_version(version: Version) -> Self {
        let program = installed(version);
        let [ip] = place::addresses(&[5060, 5061, 8088]);
        let folder = place::folder("asterisk");
        let ca_file = place::certificates(&folder, &[(PBX, IpAddr::V4(ip))]);
        rsa_certificate(&folder);
        configure(version, program.parent().unwrap(), &folder, ip);
        let process = launch(&program, &folder);
        let mut pbx = Self { ip, ca_file, folder, program, process };
        pbx.wait_until_it_serves();
        pbx
    }

    /// UDP and TCP.
    pub fn sip(&self) -> String {
        format!("{}:5060", self.ip)
    }

    /// What the command line interface answers.
    pub fn ask(&self, command: &str) -> String {
        let output = asterisk(&self.program, &self.folder).args(["-rx", command]).stdin(Stdio::null()).output();
        String::from_utf8_lossy(&output.expect("the Asterisk that was installed").stdout).into_owned()
    }

    /// Everything it wrote so far, with every SIP message that it sent and received.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// Waits until its log has this.
    #[track_caller]
    pub fn says(&self, text: &str) {
        self.says_times(text, 1);
    }

    /// Waits until its log has this so often.
    #[track_caller]
    pub fn says_times(&self, text: &str, times: usize) {
        let start = Instant::now();
        while self.log().matches(text).count() < times {
            assert!(start.elapsed() < Duration::from_secs(20), "Asterisk does not say {text:?} {times} times");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a telephone has registered under this name; gives its contact.
    #[track_caller]
    pub fn registered(&self, user: &str) -> String {
        self.registered_within(user, Duration::from_secs(20))
    }

    /// The same, for so long.
    #[track_caller]
    pub fn registered_within(&self, user: &str, limit: Duration) -> String {
        let start = Instant::now();
        loop {
            let contacts = self.ask("pjsip show contacts");
            let mine = contacts.split_whitespace().find_map(|word| word.strip_prefix(&format!("{user}/")));
            if let Some(contact) = mine {
                return contact.to_owned();
            }
            assert!(start.elapsed() < limit, "{user} does not register: {contacts}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Rings `user`; who answers is put through to `extension`.
    pub fn ring(&self, user: &str, extension: &str) {
        self.ask(&format!("channel originate PJSIP/{user} extension {extension}@public"));
    }

    /// Ends all calls, also those that are still ringing.
    pub fn hang_up(&self) {
        self.ask("channel request hangup all");
    }

    /// How many calls it has.
    pub fn calls(&self) -> usize {
        let all = self.ask("core show channels count");
        let line = all.lines().find(|l| l.contains("active channel")).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no count: {all}"))
    }

    /// Waits until it has no call any more.
    #[track_caller]
    pub fn is_idle_within(&self, limit: Duration) {
        let start = Instant::now();
        while self.calls() > 0 {
            assert!(start.elapsed() < limit, "a call stays: {}", self.ask("core show channels"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What extension 612 recorded.
    pub fn recorded(&self) -> PathBuf {
        self.folder.join("recorded.wav")
    }

    /// It hears and says nothing any more, as after a cut cable; see [`Asterisk::go_on`].
    pub fn freeze(&self) {
        self.process.signal("STOP");
    }

    /// Ends a freeze.
    pub fn go_on(&self) {
        self.process.signal("CONT");
    }

    /// Kills it, calls and registrations with it.
    pub fn kill(&mut self) {
        self.process.signal("KILL");
        assert!(self.process.wait(Duration::from_secs(10)).is_some());
    }

    /// Starts it again after [`Asterisk::kill`].
    pub fn start_again(&mut self) {
        // Its database remembers registrations otherwise.
        let _ = fs::remove_file(self.folder.join("astdb.sqlite3"));
        self.process = launch(&self.program, &self.folder);
        self.wait_until_it_serves();
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    fn wait_until_it_serves(&mut self) {
        let start = Instant::now();
        while !self.ask("core waitfullybooted").contains("fully booted") {
            let ended = self.process.ended();
            if ended.is_some() || start.elapsed() > Duration::from_secs(60) {
                place::show_end_of(&self.folder.join("stdout"), 40);
                panic!("Asterisk does not start: {ended:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Asterisk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            place::show_end_of(&self.folder.join("log"), 120);
        }
        self.process.signal("CONT");
        let _ = self.process.child.kill();
        let _ = self.process.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The path of the program; brings it the first time.
fn installed(version: Version) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/asterisk");
    let number = if version == Version::New { "22" } else { "16" };
    let output = Command::new(script).arg(number).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.ok().filter(|it| it.status.success()).unwrap_or_else(|| {
        panic!("no Asterisk {number} can be had; is there a network? OFFHOOK_INTEROP=none leaves it out")
    });
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn asterisk(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("-C").arg(folder.join("asterisk.conf"));
    command
}

fn launch(program: &Path, folder: &Path) -> Running {
    let mut command = asterisk(program, folder);
    let output = File::create(folder.join("stdout")).unwrap();
    command.arg("-f").stdin(Stdio::null()).stderr(output.try_clone().unwrap()).stdout(output);
    Running::spawn(&mut command, "none: .ci/asterisk brings it")
}

/// For the account `webrsa`; rcgen's own are EC.
fn rsa_certificate(folder: &Path) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=pbx.test"]);
    command.arg("-keyout").arg(folder.join("rsa.key")).arg("-out").arg(folder.join("rsa.crt"));
    let made = command.stdin(Stdio::null()).stderr(Stdio::null()).status().expect("the Debian package `openssl`");
    assert!(made.success());
}

fn configure(version: Version, installed: &Path, folder: &Path, ip: Ipv4Addr) {
    // `peer_supported`, that is whenever the caller knows it, came with 20.
    let (reliable, sha256) = match version {
        Version::New => ("peer_supported", "supported_algorithms_uas=SHA-256"),
        Version::Old => ("yes", ""),
    };
    let fill = |text: &str| {
        text.replace("@IP@", &ip.to_string())
            .replace("@FOLDER@", folder.to_str().unwrap())
            .replace("@PLACE@", installed.to_str().unwrap())
            .replace("@100REL@", reliable)
            .replace(";@SHA256@", sha256)
            .replace("@CANDIDATES@", &candidates(ip))
    };
    let write = |name: &str, text: &str| fs::write(folder.join(name), fill(text)).unwrap();
    write("asterisk.conf", include_str!("../asterisk/asterisk.conf"));
    write("pjsip.conf", include_str!("../asterisk/pjsip.conf"));
    write("extensions.conf", include_str!("../asterisk/extensions.conf"));
    for part in include_str!("../asterisk/rest.conf").split("### ").skip(1) {
        let (name, text) = part.split_once('\n').unwrap();
        write(name, text);
    }
    let mut modules = String::from("[modules]\nautoload=no\n");
    let files = fs::read_dir(installed.join("modules")).unwrap().flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().into_string().unwrap()).collect();
    names.sort();
    // They want configuration that is not there.
    let left_out = ["res_pjsip_stir_shaken.so", "res_pjsip_send_to_voicemail.so", "res_sorcery_realtime.so"];
    for name in names.iter().filter(|name| !left_out.contains(&name.as_str())) {
        if MODULES.split_whitespace().any(|beginning| name.starts_with(beginning)) {
            modules.push_str(&format!("load => {name}\n"));
        }
    }
    write("modules.conf", &modules);
}

/// Asterisk offers no loopback address as an ICE candidate; it is told to write its own instead of each of the others.
fn candidates(ip: Ipv4Addr) -> String {
    let output = Command::new("hostname").arg("-I").output().expect("hostname, of the Debian package `hostname`");
    let all = String::from_utf8(output.stdout).unwrap();
    let v4 = all.split_whitespace().filter(|address| address.parse::<Ipv4Addr>().is_ok());
    v4.map(|address| format!("{address} => {ip}\n")).collect()
}

//! A real softphone, baresip (Debian package `baresip-core`): it takes commands and tells what happens over a control
//! connection, plays a WAV file and writes down what it hears. It is at 127.0.0.1, as its media is wherever it is told to
//! be, and has ports of its own.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use crate::prosody::child::Running;
use crate::prosody::place;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// How it is to be started.
pub struct Setup {
    account: String,
    parameters: String,
    says: Option<PathBuf>,
    rate_hz: u32,
    trusts: Option<PathBuf>,
}

/// Registers `sip:user@domain` at a registrar, `127.1.2.3:5060;transport=tcp` for example, with the password `secret`.
pub fn account(address: &str, registrar: &str) -> Setup {
    let user = address.trim_start_matches("sip:").split('@').next().unwrap();
    let parameters = format!("outbound=\"sip:{registrar}\";auth_user={user};auth_pass=secret;regint=60");
    Setup { account: address.to_owned(), parameters, says: None, rate_hz: 8000, trusts: None }
        .with("answermode=auto")
        .with("audio_codecs=pcmu/8000")
}

impl Setup {
    /// An account parameter of baresip's (`mediaenc=srtp-mand`, `answermode=manual`, …) instead of the same one before.
    #[must_use]
    pub fn with(mut self, parameter: &str) -> Self {
        let name = parameter.split('=').next().unwrap();
        let others = self.parameters.split(';').filter(|old| old.split('=').next() != Some(name));
        // The registrar's address has parameters of its own, in quotes; they are never called like one of the account's.
        self.parameters = others.chain([parameter]).collect::<Vec<_>>().join(";");
        self
    }

    /// The WAV file that it says, at `rate_hz`, once after it answered or was answered; silence otherwise.
    #[must_use]
    pub fn says(mut self, file: &Path, rate_hz: u32) -> Self {
        (self.says, self.rate_hz) = (Some(file.to_owned()), rate_hz);
        self
    }

    /// Trusts this authority for TLS.
    #[must_use]
    pub fn trusts(mut self, ca_file: &Path) -> Self {
        self.trusts = Some(ca_file.to_owned());
        self
    }

    /// Starts it and waits until it has registered.
    pub fn start(self) -> Baresip {
        let [sip, orders] = [place::free_port(), place::free_port()].map(|port| SocketAddr::from((HERE, port)));
        let folder = place::folder("baresip");
        place::certificates(&folder, &[("baresip.test", IpAddr::V4(HERE))]);
        let both = ["key", "crt"].map(|end| fs::read_to_string(folder.join(format!("baresip.test.{end}"))).unwrap());
        fs::write(folder.join("certificate.pem"), both.concat()).unwrap();
        fs::create_dir(folder.join("heard")).unwrap();
        write_lines(&folder.join("says.wav"), self.says.as_deref(), self.rate_hz);
        fs::write(folder.join("config"), configuration(&folder, sip, orders, self.rate_hz, self.trusts.as_deref()))
            .unwrap();
        fs::write(folder.join("accounts"), format!("<{}>;{}\n", self.account, self.parameters)).unwrap();
        fs::write(folder.join("contacts"), "").unwrap();
        let output = File::create(folder.join("log")).unwrap();
        let mut command = Command::new("baresip");
        command.args(["-4", "-s", "-f"]).arg(&folder);
        command.stdin(Stdio::null()).stderr(output.try_clone().unwrap()).stdout(output);
        let mut process = Running::spawn(&mut command, "baresip-core");
        let start = Instant::now();
        let control = loop {
            if let Ok(control) = TcpStream::connect(orders) {
                break control;
            }
            let ended = process.ended();
            if ended.is_some() || start.elapsed() > LIMIT {
                place::show_end_of(&folder.join("log"), 40);
                panic!("baresip does not start: {ended:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let heard = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        listen(control.try_clone().unwrap(), Arc::clone(&heard));
        let mut phone = Baresip { sip, folder, control, heard, seen: 0, process };
        while !phone.ask("reginfo", "").contains("OK ") {
            if start.elapsed() > LIMIT {
                place::show_end_of(&phone.folder.join("log"), 60);
                panic!("baresip does not register");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        phone
    }
}

/// A running baresip; ends when dropped.
pub struct Baresip {
    /// Its address, UDP and TCP; TLS is one port higher.
    pub sip: SocketAddr,
    /// Gone when it ends.
    pub folder: PathBuf,
    control: TcpStream,
    heard: Arc<(Mutex<Vec<Value>>, Condvar)>,
    seen: usize,
    process: Running,
}

impl Baresip {
    /// Calls an address.
    pub fn dial(&mut self, address: &str) {
        self.ask("dial", address);
    }

    /// Gives a command, `hold`, `resume`, `accept`, `hangup`, `transfer`, `reinvite`, `mute`, and returns its answer.
    #[track_caller]
    pub fn ask(&mut self, command: &str, parameter: &str) -> String {
        let from = lock(&self.heard.0).len();
        let text = json!({ "command": command, "params": parameter, "token": "t" }).to_string();
        self.control.write_all(format!("{}:{text},", text.len()).as_bytes()).unwrap();
        let mut at = from;
        let answer = self.wait(&mut at, command, |message| message["response"] == true);
        assert_eq!(answer["ok"], true, "{command} {parameter}: {answer}");
        answer["data"].as_str().unwrap_or_default().to_owned()
    }

    /// Sends digits (RFC 4733).
    pub fn press(&mut self, digits: &str) {
        for digit in digits.chars() {
            self.ask("sndcode", &digit.to_string());
            // Each takes 250 ms on the line, and pressing the next one ends it.
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Ends the call.
    pub fn hang_up(&mut self) {
        self.ask("hangup", "");
    }

    /// Waits for the next event of this type (`CALL_ESTABLISHED`, `CALL_CLOSED`, `CALL_INCOMING`, `CALL_DTMF_START`, …),
    /// from where the last wait ended.
    #[track_caller]
    pub fn hears_of(&mut self, event: &str) -> Value {
        let mut at = self.seen;
        let found = self.wait(&mut at, event, |message| message["type"] == event);
        self.seen = at;
        found
    }

    /// The digits that it was sent so far.
    pub fn digits(&self) -> String {
        let heard = lock(&self.heard.0);
        heard.iter().filter(|m| m["type"] == "CALL_DTMF_START").filter_map(|m| m["param"].as_str()).collect()
    }

    /// Every SIP message so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    /// What it heard, a file for each time that media began.
    pub fn recordings(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.folder.join("heard")).unwrap().flatten().map(|file| file.path());
        let mut all: Vec<PathBuf> = all.filter(|path| path.to_string_lossy().ends_with("-dec.wav")).collect();
        all.sort();
        all
    }

    fn wait(&self, at: &mut usize, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        let mut heard = lock(&self.heard.0);
        loop {
            while let Some(message) = heard.get(*at) {
                *at += 1;
                if fits(message) {
                    return message.clone();
                }
            }
            assert!(start.elapsed() < LIMIT, "baresip tells no {what}: {heard:#?}");
            heard = self.heard.1.wait_timeout(heard, Duration::from_millis(200)).unwrap().0;
        }
    }
}

impl Drop for Baresip {
    fn drop(&mut self) {
        if std::thread::panicking() {
            place::show_end_of(&self.folder.join("log"), 80);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn lock(heard: &Mutex<Vec<Value>>) -> std::sync::MutexGuard<'_, Vec<Value>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Netstrings of JSON.
fn listen(control: TcpStream, heard: Arc<(Mutex<Vec<Value>>, Condvar)>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(control);
        loop {
            let mut length = Vec::new();
            if reader.read_until(b':', &mut length).is_err() || length.pop() != Some(b':') {
                return;
            }
            let length: usize = String::from_utf8(length).unwrap().parse().unwrap();
            let mut message = vec![0; length + 1];
            if reader.read_exact(&mut message).is_err() {
                return;
            }
            message.pop();
            let message = String::from_utf8_lossy(&message);
            lock(&heard.0).push(serde_json::from_str(&message).unwrap_or_else(|why| panic!("{why}: {message}")));
            heard.1.notify_all();
        }
    });
}

fn configuration(folder: &Path, sip: SocketAddr, orders: SocketAddr, rate_hz: u32, trusts: Option<&Path>) -> String {
    let here = folder.display();
    let trust = trusts.map_or(String::new(), |file| format!("sip_cafile {}\n", file.display()));
    let mut text = format!(
        "poll_method epoll
sip_listen {sip}
sip_certificate {here}/certificate.pem
{trust}net_interface {HERE}
audio_source aufile,{here}/says.wav
audio_player aufile,{here}/played.wav
audio_alert aufile,{here}/played.wav
ausrc_srate {rate_hz}
auplay_srate {rate_hz}
ausrc_channels 1
auplay_channels 1
rtp_ports 14000-19998
ctrl_tcp_listen {orders}
snd_path {here}/heard
module_path {}
",
        modules().display()
    );
    for module in ["stdio", "g711", "g722", "opus", "aufile", "sndfile", "uuid", "stun", "turn", "ice", "srtp"] {
        text.push_str(&format!("module {module}.so\n"));
    }
    text.push_str("module dtls_srtp.so\nmodule_tmp account.so\n");
    for module in ["contact", "debug_cmd", "ctrl_tcp", "menu"] {
        text.push_str(&format!("module_app {module}.so\n"));
    }
    text
}

fn modules() -> &'static Path {
    let all = ["/usr/lib/baresip/modules", "/usr/local/lib/baresip/modules"].map(Path::new);
    all.into_iter()
        .find(|path| path.exists())
        .expect("install the Debian package `baresip-core`, or set OFFHOOK_INTEROP=none")
}

/// Two minutes: baresip hangs up when its file ends.
fn write_lines(path: &Path, says: Option<&Path>, rate_hz: u32) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: rate_hz,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    if let Some(says) = says {
        let mut reader = hound::WavReader::open(says).unwrap();
        assert_eq!(reader.spec(), spec, "{}", says.display());
        for sample in reader.samples::<i16>() {
            writer.write_sample(sample.unwrap()).unwrap();
        }
    }
    for _ in 0..120 * rate_hz {
        writer.write_sample(0i16).unwrap();
    }
    writer.finalize().unwrap();
}

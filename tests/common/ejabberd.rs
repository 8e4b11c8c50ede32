//! A real ejabberd (Debian package `ejabberd`) on a loopback address of its own, as a plain Erlang program: no epmd, no
//! cookie, no control script. One domain, `gamma.test`.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

#[path = "child.rs"]
mod child;

use child::Running;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Its domain.
pub const GAMMA: &str = "gamma.test";
/// Everybody's password.
pub const PASSWORD: &str = "secret";

/// The server; ends when dropped.
pub struct Ejabberd {
    pub ip: Ipv4Addr,
    /// To be trusted by the tests.
    pub ca_file: PathBuf,
    folder: PathBuf,
    process: Running,
}

impl Ejabberd {
    /// Starts it with the users `romeo` and `juliet` and waits until they can sign in.
    pub fn start() -> Self {
        let id = std::process::id();
        let [_, _, b, c] = id.to_be_bytes();
        // 127.251 and up: beside the addresses of the Prosody laboratory.
        let ip = (0..4)
            .map(|n| Ipv4Addr::new(127, 251 + n, b, c.clamp(1, 254)))
            .find(|ip| TcpListener::bind((*ip, 5222)).is_ok())
            .expect("a free loopback address");
        let folder = std::env::temp_dir().join(format!("offhook-ejabberd-{id}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("spool")).unwrap();
        let ca_file = certificate(&folder);
        fs::write(folder.join("ejabberd.yml"), configuration(&folder, ip)).unwrap();
        fs::write(folder.join("users.erl"), USERS).unwrap();
        let compiled = Command::new("erlc").arg("users.erl").current_dir(&folder).status();
        assert!(
            compiled.is_ok_and(|s| s.success()),
            "install the Debian package `ejabberd`, or set OFFHOOK_INTEROP=none"
        );
        let mut command = Command::new("erl");
        command.current_dir(&folder).env("HOME", &folder);
        command.env("EJABBERD_CONFIG_PATH", folder.join("ejabberd.yml"));
        command.env("EJABBERD_LOG_PATH", folder.join("ejabberd.log"));
        let spool = format!("\"{}\"", folder.join("spool").display());
        command.args(["-noinput", "-noshell", "-mnesia", "dir", &spool, "-pa", "."]).args(libraries());
        command.args(["-s", "ejabberd", "-s", "users"]);
        let output = File::create(folder.join("stdout")).unwrap();
        command.stdin(Stdio::null()).stderr(output.try_clone().unwrap()).stdout(output);
        let mut process = Running::spawn(&mut command, "ejabberd");
        let start = Instant::now();
        while !folder.join("ready").exists() {
            let ended = process.ended();
            assert!(
                ended.is_none() && start.elapsed() < Duration::from_secs(60),
                "ejabberd does not start ({ended:?}): {}",
                fs::read_to_string(folder.join("stdout")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { ip, ca_file, folder, process }
    }
}

impl Drop for Ejabberd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.folder.join("ejabberd.log")).unwrap_or_default());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where Debian keeps ejabberd's own code; the path names the architecture and the version.
fn libraries() -> Vec<PathBuf> {
    let all = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|e| e.path());
    let inner = all.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()));
    let named = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ejabberd"));
    inner.filter(named).map(|p| p.join("ebin")).filter(|p| p.exists()).collect()
}

fn certificate(folder: &Path) -> PathBuf {
    let mut params = rcgen::CertificateParams::new(vec![GAMMA.to_owned()]).unwrap();
    // The server's certificate store ends at the default validity, which is until the year 4096.
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2045, 1, 1);
    params.distinguished_name.push(rcgen::DnType::CommonName, GAMMA);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    let file = folder.join("certificate.pem");
    fs::write(&file, made.pem()).unwrap();
    fs::write(folder.join("both.pem"), format!("{}{}", made.pem(), key.serialize_pem())).unwrap();
    file
}

fn configuration(folder: &Path, ip: Ipv4Addr) -> String {
    let folder = folder.display();
    format!(
        r#"hosts: [{GAMMA}]
loglevel: debug
certfiles: ["{folder}/both.pem"]
listen:
  - {{ port: 5222, ip: "{ip}", module: ejabberd_c2s, starttls: true, starttls_required: true, max_stanza_size: 262144 }}
  - {{ port: 5223, ip: "{ip}", module: ejabberd_c2s, tls: true, max_stanza_size: 262144 }}
auth_method: internal
acl: {{ local: {{ user_regexp: "" }} }}
access_rules: {{ local: {{ allow: local }} }}
modules:
  mod_caps: {{}}
  mod_carboncopy: {{}}
  mod_disco: {{}}
  mod_ping: {{}}
  mod_roster: {{}}
  mod_stream_mgmt: {{}}
"#
    )
}

const USERS: &str = r#"-module(users). -export([start/0]).
start() -> spawn(fun() -> wait(300),
  [ejabberd_auth:try_register(U, <<"gamma.test">>, <<"secret">>) || U <- [<<"romeo">>, <<"juliet">>]],
  file:write_file("ready", "ok") end).
wait(0) -> ok;
wait(N) -> case catch ejabberd_router:is_my_host(<<"gamma.test">>) of
  true -> timer:sleep(300);
  _ -> timer:sleep(100), wait(N - 1) end.
"#;

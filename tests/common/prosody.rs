//! Two real XMPP servers (Debian package `prosody`) that federate, and a real TURN server, all on loopback addresses
//! of their own and on the standard ports. Nothing is looked up in DNS: s2s resolves through a hosts file.
//!
//! ```text
//!   romeo@alpha.test ── 127.a.b.1:5222 Prosody ══ s2s over TLS ══ Prosody 127.a.b.2:5222 ── mercutio@beta.test
//!                                  └───── XEP-0215 ──▶ coturn 127.a.b.3 ◀── XEP-0215 ─────┘
//! ```
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

#[path = "child.rs"]
pub mod child;
#[path = "coturn.rs"]
#[allow(clippy::disallowed_types)]
pub mod coturn;
#[path = "place.rs"]
pub mod place;

use child::Running;
use coturn::Coturn;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The two domains.
pub const ALPHA: &str = "alpha.test";
/// See [`ALPHA`].
pub const BETA: &str = "beta.test";
/// Everybody's password.
pub const PASSWORD: &str = "secret";
/// Users of both servers, each a contact of all others on both.
pub const FRIENDS: [&str; 4] = ["romeo", "juliet", "nurse", "mercutio"];
/// A user of both servers who is nobody's contact.
pub const STRANGER: &str = "tybalt";
/// `guest1@alpha.test` and `guest1@beta.test` are each other's only contact, and so on: see [`Lab::pair`].
const PAIRS: usize = 40;
/// Secret of the external components `sip.alpha.test` and `sip.beta.test` (XEP-0114).
pub const COMPONENT_SECRET: &str = "compsecret";

/// One of the two servers.
pub struct Server {
    /// Its domain.
    pub domain: &'static str,
    /// Its address; c2s 5222, direct TLS 5223, s2s 5269, component 5347, proxy65 5000, BOSH and WebSocket 5280.
    pub ip: IpAddr,
    folder: PathBuf,
    program: PathBuf,
    process: Running,
}

impl Server {
    /// Where clients connect (STARTTLS).
    pub fn c2s(&self) -> String {
        SocketAddr::new(self.ip, 5222).to_string()
    }

    /// Where clients connect with TLS from the first byte.
    pub fn direct_tls(&self) -> String {
        SocketAddr::new(self.ip, 5223).to_string()
    }

    /// XMPP over WebSocket, without TLS (RFC 7395).
    pub fn websocket(&self) -> String {
        format!("ws://{}:5280/xmpp-websocket", self.ip)
    }

    /// Stops it as an administrator does; its clients hear of it.
    pub fn stop(&mut self) {
        self.process.signal("TERM");
        assert!(self.process.wait(Duration::from_secs(10)).is_some(), "the server of {} does not stop", self.domain);
    }

    /// Starts it again after [`Server::stop`].
    pub fn start_again(&mut self) {
        self.process = launch(&self.program, &self.folder);
        wait_until_it_listens(self);
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("prosody.log")).unwrap_or_default()
    }
}

/// The laboratory. Everything in it ends when it is dropped.
pub struct Lab {
    /// Server of `alpha.test`.
    pub alpha: Server,
    /// Server of `beta.test`.
    pub beta: Server,
    /// The relay that both servers hand out (XEP-0215).
    pub turn: Coturn,
    /// A folder for the test's own files, gone with the laboratory.
    pub folder: PathBuf,
    /// Certificate of the authority behind both servers' certificates.
    pub ca_file: PathBuf,
    pairs: AtomicUsize,
}

impl Lab {
    /// Starts servers and relay and waits until they answer.
    pub fn start() -> Self {
        Self::start_with(Path::new("prosody"))
    }

    /// The same with a Prosody of at least version 13, which binds passwords to TLS 1.3 (RFC 9266). Where Debian's own is
    /// older, a newer one is put into the target folder the first time.
    pub fn start_newer() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prosody-13");
        // Two tests of a binary may ask at once.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/newer-prosody");
        let brought = Command::new(script).arg(&folder).status();
        assert!(
            brought.is_ok_and(|s| s.success()),
            "no Prosody 13 can be had; is there a network? OFFHOOK_INTEROP=none leaves it out"
        );
        Self::start_with(&folder.join("prosody"))
    }

    fn start_with(program: &Path) -> Self {
        let [one, two, three] = place::addresses(&[5222, 5269]).map(IpAddr::V4);
        let folder = place::folder("lab");
        let ca_file = place::certificates(&folder, &[(ALPHA, one), (BETA, two)]);
        let mut hosts = String::new();
        for (domain, ip) in [(ALPHA, one), (BETA, two)] {
            for name in ["", "proxy.", "conference.", "sip."] {
                hosts.push_str(&format!("{ip} {name}{domain}\n"));
            }
        }
        fs::write(folder.join("hosts"), hosts).unwrap();
        let turn = Coturn::start_rest(three);
        let mut servers =
            [(ALPHA, one), (BETA, two)].map(|(domain, ip)| start_server(program, &folder, domain, ip, &turn));
        for server in &mut servers {
            wait_until_it_listens(server);
        }
        let [alpha, beta] = servers;
        Self { alpha, beta, turn, folder, ca_file, pairs: AtomicUsize::new(1) }
    }

    /// The laboratory that the running tests of this process share: the first to ask starts it, the last one to leave
    /// ends it. Tests stay apart by talking as [`Lab::pair`]s of their own.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Lab>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lab) = shared.upgrade() {
            return lab;
        }
        let lab = Arc::new(Self::start());
        *shared = Arc::downgrade(&lab);
        lab
    }

    /// Two addresses that no other test uses, `guestN@alpha.test` and `guestN@beta.test`; each is the other's only
    /// contact.
    pub fn pair(&self) -> (String, String) {
        let n = self.pairs.fetch_add(1, Ordering::Relaxed);
        assert!(n <= PAIRS, "the laboratory has {PAIRS} pairs of guests only");
        (format!("guest{n}@{ALPHA}"), format!("guest{n}@{BETA}"))
    }

    /// The server of an address.
    pub fn server_of(&self, jid: &str) -> &Server {
        let domain = jid.split('/').next().unwrap().rsplit('@').next().unwrap();
        if domain == ALPHA { &self.alpha } else { &self.beta }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for server in [&self.alpha, &self.beta] {
                place::show_end_of(&server.folder.join("prosody.log"), 15);
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn start_server(program: &Path, lab: &Path, domain: &'static str, ip: IpAddr, turn: &Coturn) -> Server {
    let folder = lab.join(domain);
    users(&folder, domain);
    fs::write(folder.join("prosody.cfg.lua"), configuration(lab, &folder, domain, ip, turn)).unwrap();
    Server { domain, ip, process: launch(program, &folder), folder, program: program.to_owned() }
}

fn launch(program: &Path, folder: &Path) -> Running {
    let mut command = Command::new(program);
    // It refuses to run as root unless told twice; an ordinary user must not say so.
    if is_root() {
        command.arg("--root");
    }
    command.arg("--config").arg(folder.join("prosody.cfg.lua")).arg("-F");
    let output = File::create(folder.join("stdout")).unwrap();
    command.stdin(Stdio::null()).stderr(output.try_clone().unwrap()).stdout(output);
    Running::spawn(&mut command, "prosody")
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id, of the Debian package `coreutils`");
    id.stdout.trim_ascii() == b"0"
}

/// Accounts and rosters, written as Prosody's internal storage reads them: faster than registering one by one.
fn users(folder: &Path, domain: &str) {
    let host = folder.join("data").join(domain.replace('.', "%2e"));
    fs::create_dir_all(host.join("accounts")).unwrap();
    fs::create_dir_all(host.join("roster")).unwrap();
    let add = |user: &str, contacts: &[String]| {
        let account = format!("return {{ [\"password\"] = \"{PASSWORD}\"; }};\n");
        fs::write(host.join("accounts").join(format!("{user}.dat")), account).unwrap();
        let mut roster = String::from("return {\n");
        for contact in contacts {
            roster.push_str(&format!("[\"{contact}\"] = {{ subscription = \"both\"; groups = {{}}; }};\n"));
        }
        roster.push_str("[false] = { version = 1; };\n};\n");
        fs::write(host.join("roster").join(format!("{user}.dat")), roster).unwrap();
    };
    for user in FRIENDS {
        let own = format!("{user}@{domain}");
        let all = FRIENDS.iter().flat_map(|u| [format!("{u}@{ALPHA}"), format!("{u}@{BETA}")]);
        add(user, &all.filter(|jid| *jid != own).collect::<Vec<_>>());
    }
    add(STRANGER, &[]);
    let other = if domain == ALPHA { BETA } else { ALPHA };
    for n in 1..=PAIRS {
        add(&format!("guest{n}"), &[format!("guest{n}@{other}")]);
    }
}

fn configuration(lab: &Path, folder: &Path, domain: &str, ip: IpAddr, turn: &Coturn) -> String {
    let (lab, data, log) = (lab.display(), folder.join("data"), folder.join("prosody.log"));
    let (data, log) = (data.display(), log.display());
    let root = if is_root() { "run_as_root = true" } else { "" };
    let secret = turn.secret.as_deref().expect("a relay with a shared secret");
    let (turn_host, turn_port) = (turn.addr.ip(), turn.addr.port());
    format!(
        r#"{root}
data_path = "{data}"
log = {{ debug = "{log}" }}
interfaces = {{ "{ip}" }}
local_interfaces = {{ "{ip}" }}
c2s_ports = {{ 5222 }}
c2s_direct_tls_ports = {{ 5223 }}
s2s_ports = {{ 5269 }}
component_ports = {{ 5347 }}
component_interfaces = {{ "{ip}" }}
proxy65_ports = {{ 5000 }}
proxy65_interfaces = {{ "{ip}" }}
http_ports = {{ 5280 }}
http_interfaces = {{ "{ip}" }}
https_ports = {{ }}
http_host = "{ip}"
http_default_host = "{domain}"
consider_bosh_secure = true
consider_websocket_secure = true
cross_domain_bosh = true
cross_domain_websocket = true
modules_disabled = {{ "posix" }}
modules_enabled = {{
    "roster", "saslauth", "tls", "dialback", "disco", "presence", "message", "iq", "offline", "carbons", "pep", "private",
    "blocklist", "vcard4", "vcard_legacy", "version", "time", "ping", "mam", "csi_simple", "smacks", "bosh", "websocket",
}}
c2s_require_encryption = false -- a browser comes over an unencrypted WebSocket
allow_unencrypted_plain_auth = true
s2s_require_encryption = true
s2s_secure_auth = true
authentication = "internal_plain" -- offers SCRAM with every hash that the server knows
storage = "internal"
ssl = {{ key = "{lab}/{domain}.key", certificate = "{lab}/{domain}.crt", cafile = "{lab}/ca.crt", capath = "{lab}/none" }}
unbound = {{ resolvconf = false, hoststxt = "{lab}/hosts", forward = "127.0.0.1" }}
turn_external_host = "{turn_host}"
turn_external_port = {turn_port}
turn_external_secret = "{secret}"
turn_external_ttl = 3600
turn_external_tcp = true
VirtualHost "{domain}"
    modules_enabled = {{ "turn_external" }}
    disco_items = {{ {{ "proxy.{domain}", "SOCKS5 proxy" }} }}
Component "proxy.{domain}" "proxy65"
    proxy65_address = "{ip}"
    proxy65_port = 5000
    proxy65_acl = {{ "{ALPHA}", "{BETA}" }}
Component "conference.{domain}" "muc"
Component "sip.{domain}"
    component_secret = "{COMPONENT_SECRET}"
"#
    )
}

fn wait_until_it_listens(server: &mut Server) {
    let start = Instant::now();
    let ports = [5222, 5223, 5269, 5280];
    let open =
        |port: &u16| TcpStream::connect_timeout(&SocketAddr::new(server.ip, *port), Duration::from_secs(1)).is_ok();
    while !ports.iter().all(open) {
        let why = match server.process.ended() {
            Some(status) => format!("ended at once ({status})"),
            None if start.elapsed() > Duration::from_secs(60) => "does not listen after 60 s".to_owned(),
            None => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        let stdout = fs::read_to_string(server.folder.join("stdout")).unwrap_or_default();
        panic!("the server of {} {why}\n{stdout}\n{}", server.domain, server.log());
    }
    assert!(
        !server.log().contains("libunbound not found") && !server.log().contains("Error loading net.unbound"),
        "Prosody cannot resolve names without DNS: install the Debian package `lua-unbound`"
    );
}

//! A real TURN server (Debian package `coturn`) on a loopback address, for one test.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// A running `turnserver`; it is ended, by its process id, when this is dropped.
pub struct Coturn {
    /// Where it listens, UDP and TCP.
    pub addr: SocketAddr,
    /// A user name that is good for an hour at least.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The secret behind the REST credentials, when it runs with one.
    pub secret: Option<String>,
    child: Child,
    database: std::path::PathBuf,
}

/// False if `OFFHOOK_INTEROP=none` leaves other programs out; says so.
pub fn wanted(test: &str) -> bool {
    let wanted = std::env::var("OFFHOOK_INTEROP").as_deref() != Ok("none");
    if !wanted {
        println!("{test}: left out, OFFHOOK_INTEROP=none");
    }
    wanted
}

impl Coturn {
    /// Long-term credentials of one fixed user.
    pub fn start(ip: IpAddr) -> Self {
        Self::start_with(ip, &["--lt-cred-mech", "--user", "alice:wonderland"], "alice", "wonderland", None)
    }

    /// Time-limited credentials made from a shared secret, as an XMPP server hands them out (XEP-0215).
    pub fn start_rest(ip: IpAddr) -> Self {
        let secret = "a secret of the test";
        let (user, password) = rest_credentials(secret, Duration::from_secs(3600));
        let args = ["--use-auth-secret", "--static-auth-secret", secret];
        Self::start_with(ip, &args, &user, &password, Some(secret.to_owned()))
    }

    /// With arguments of one's own for the kind of credentials and the like.
    pub fn start_with(ip: IpAddr, args: &[&str], user: &str, password: &str, secret: Option<String>) -> Self {
        let addr = UdpSocket::bind((ip, 0)).and_then(|it| it.local_addr()).expect("a free port");
        let database = std::env::temp_dir().join(format!("offhook-coturn-{}-{}", std::process::id(), addr.port()));
        let mut command = Command::new("turnserver");
        command
            .args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--allow-loopback-peers", "--fingerprint"])
            .args(["--realm", "offhook.test", "--log-file", "stdout", "--simple-log"])
            .args(["--listening-ip", &ip.to_string(), "--relay-ip", &ip.to_string()])
            .args(["--listening-port", &addr.port().to_string()])
            .arg("--userdb")
            .arg(database.with_extension("db"))
            .arg("--pidfile")
            .arg(database.with_extension("pid"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start turnserver ({error}): install the package `coturn`, or set OFFHOOK_INTEROP=none")
        });
        let mut server = Self { addr, user: user.to_owned(), password: password.to_owned(), secret, child, database };
        server.wait_until_it_answers();
        server
    }

    fn wait_until_it_answers(&mut self) {
        let socket = UdpSocket::bind((self.addr.ip(), 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        let mut request = [0; 20];
        request[1] = 1;
        request[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(15) {
            let _ = socket.send_to(&request, self.addr);
            if socket.recv_from(&mut [0; 512]).is_ok() {
                return;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("turnserver ended at once: {status}");
            }
        }
        panic!("turnserver does not answer at {}", self.addr);
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for extension in ["db", "pid"] {
            let _ = std::fs::remove_file(self.database.with_extension(extension));
        }
    }
}

/// User name and password that `--use-auth-secret` accepts for `life` from now on.
pub fn rest_credentials(secret: &str, life: Duration) -> (String, String) {
    use aws_lc_rs::hmac;
    use base64::Engine as _;
    let until = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970") + life;
    let user = format!("{}:alice", until.as_secs());
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let tag = hmac::sign(&key, user.as_bytes());
    (user, base64::engine::general_purpose::STANDARD.encode(tag))
}

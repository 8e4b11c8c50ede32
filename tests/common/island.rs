//! Programs that reach only what a test lets them reach: each on an island, a network namespace with nothing but a
//! loopback device, from which ferries lead to chosen addresses outside. A ferry counts what it carries, and can lose its
//! load or stop at a byte.
//!
//! ```text
//!   island (unshare --net)                       the test                    outside
//!   offhook ── 127.a.b.1:5222 ── inside.py ══ Unix socket ══ Ferry ── 127.a.b.1:5222 Prosody
//!           ── 127.a.b.1:5000 ── (no ferry: connection refused)
//! ```
//!
//! Two programs on two islands have no direct path to each other, whatever addresses they tell.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What happens to bytes that leave the island.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Sail,
    /// The first so many bytes pass, then nothing more leaves; what comes passes, and nothing closes.
    StopAfter(u64),
    /// The first so many bytes pass; then every connection ends, and new ones too.
    SinkAfter(u64),
}

struct State {
    order: Order,
    stopped: bool,
    connections: Vec<Hulls>,
}

/// Both ends of one connection, to close it by.
struct Hulls(UnixStream, Option<TcpStream>);

impl Hulls {
    fn close(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
        if let Some(tcp) = &self.1 {
            let _ = tcp.shutdown(Shutdown::Both);
        }
    }
}

/// Carries to one address, for any number of islands.
pub struct Ferry {
    route: String,
    path: PathBuf,
    out: AtomicU64,
    back: AtomicU64,
    opened: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

impl Ferry {
    /// TCP to `to`.
    pub fn tcp(to: SocketAddr) -> Arc<Self> {
        Self::start("tcp", to, Self::connection)
    }

    /// Datagrams to `to`.
    pub fn udp(to: SocketAddr) -> Arc<Self> {
        Self::start("udp", to, Self::datagrams)
    }

    fn start(kind: &str, to: SocketAddr, serve: fn(&Self, UnixStream, SocketAddr)) -> Arc<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        // A short name: that of a Unix socket has 107 bytes at most.
        let path = std::env::temp_dir().join(format!("offhook-ferry-{}-{n}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let state = State { order: Order::Sail, stopped: false, connections: vec![] };
        let ferry = Arc::new(Self {
            route: format!("{kind}:{to}={}", path.display()),
            path,
            out: AtomicU64::new(0),
            back: AtomicU64::new(0),
            opened: AtomicUsize::new(0),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let weak = Arc::downgrade(&ferry);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(ferry) = weak.upgrade() else { return };
                ferry.opened.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || serve(&ferry, stream, to));
            }
        });
        ferry
    }

    fn connection(&self, near: UnixStream, to: SocketAddr) {
        {
            let state = self.lock();
            if state.stopped && matches!(state.order, Order::SinkAfter(_)) {
                return;
            }
        }
        let Ok(far) = TcpStream::connect(to) else { return };
        let hulls = Hulls(near.try_clone().unwrap(), Some(far.try_clone().unwrap()));
        self.lock().connections.push(hulls);
        std::thread::scope(|scope| {
            let (mut near_in, mut far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            scope.spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(n) = near_in.read(&mut buffer) {
                    let granted = self.admit(n as u64) as usize;
                    if n == 0 || far_out.write_all(&buffer[..granted]).is_err() {
                        break;
                    }
                    self.out.fetch_add(granted as u64, Ordering::SeqCst);
                    if granted < n && !self.wait_for_better_days() {
                        // What was let through arrives all the same, on the other side of a proxy, too.
                        std::thread::sleep(Duration::from_millis(300));
                        self.close_all();
                        break;
                    }
                    if far_out.write_all(&buffer[granted..n]).is_err() {
                        break;
                    }
                    self.out.fetch_add((n - granted) as u64, Ordering::SeqCst);
                }
                let _ = far_out.shutdown(Shutdown::Write);
            });
            let (mut far_in, mut near_out) = (far, near);
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n) = far_in.read(&mut buffer) {
                if n == 0 {
                    break;
                }
                if near_out.write_all(&buffer[..n]).is_err() {
                    break;
                }
                self.back.fetch_add(n as u64, Ordering::SeqCst);
            }
            let _ = near_out.shutdown(Shutdown::Write);
        });
    }

    fn datagrams(&self, near: UnixStream, to: SocketAddr) {
        let local: SocketAddr = if to.ip().is_loopback() { (to.ip(), 0).into() } else { ([0, 0, 0, 0], 0).into() };
        let socket = UdpSocket::bind(local).unwrap();
        socket.connect(to).unwrap();
        // Looks from time to time whether the island is still there.
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        self.lock().connections.push(Hulls(near.try_clone().unwrap(), None));
        let alive = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            let (mut island, sea, running) = (near.try_clone().unwrap(), &socket, &alive);
            scope.spawn(move || {
                let mut length = [0; 2];
                let mut datagram = vec![0; 65536];
                while island.read_exact(&mut length).is_ok() {
                    let n = usize::from(u16::from_be_bytes(length));
                    if island.read_exact(&mut datagram[..n]).is_err() {
                        break;
                    }
                    // A datagram that may not pass is lost.
                    if self.admit(n as u64) == n as u64 && sea.send(&datagram[..n]).is_ok() {
                        self.out.fetch_add(n as u64, Ordering::SeqCst);
                    }
                }
                running.store(false, Ordering::SeqCst);
            });
            let mut island = near;
            let mut framed = vec![0; 65538];
            while alive.load(Ordering::SeqCst) {
                let Ok(n) = socket.recv(&mut framed[2..]) else { continue };
                framed[..2].copy_from_slice(&(n as u16).to_be_bytes());
                if island.write_all(&framed[..n + 2]).is_ok() {
                    self.back.fetch_add(n as u64, Ordering::SeqCst);
                }
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_all(&self) {
        let mut state = self.lock();
        state.connections.iter().for_each(Hulls::close);
        state.connections.clear();
    }

    /// How many of `n` bytes may leave now. When not all may, the ferry has stopped or sunk.
    fn admit(&self, n: u64) -> u64 {
        let mut state = self.lock();
        let out = self.out.load(Ordering::SeqCst);
        let granted = match state.order {
            Order::Sail => n,
            Order::StopAfter(limit) | Order::SinkAfter(limit) => n.min(limit.saturating_sub(out)),
        };
        // At the limit exactly, too: who waits for the stop would wait for ever for a byte more.
        let at_limit = match state.order {
            Order::Sail => false,
            Order::StopAfter(limit) | Order::SinkAfter(limit) => out + n >= limit,
        };
        if at_limit {
            state.stopped = true;
            self.changed.notify_all();
        }
        granted
    }

    /// Waits while the ferry is stopped; false if it has sunk.
    fn wait_for_better_days(&self) -> bool {
        let mut state = self.lock();
        while state.stopped {
            if matches!(state.order, Order::SinkAfter(_)) {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// From now on `more` bytes leave islands; then nothing leaves, and nothing closes.
    pub fn stop_after(&self, more: u64) {
        let out = self.out.load(Ordering::SeqCst);
        self.set(Order::StopAfter(out + more));
    }

    /// From now on `more` bytes leave islands; the next byte ends every connection, and every later one.
    pub fn sink_after(&self, more: u64) {
        let out = self.out.load(Ordering::SeqCst);
        self.set(Order::SinkAfter(out + more));
    }

    fn set(&self, order: Order) {
        let mut state = self.lock();
        state.order = order;
        state.stopped = false;
        self.changed.notify_all();
    }

    /// Waits until the limit is reached.
    #[track_caller]
    pub fn wait_until_stopped(&self, limit: Duration) {
        let start = Instant::now();
        let mut state = self.lock();
        while !state.stopped {
            let left = limit.checked_sub(start.elapsed());
            let left = left.unwrap_or_else(|| panic!("the ferry carried {} bytes only", self.out()));
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the limit is reached, within `limit` from now.
    pub fn stopped_within(&self, limit: Duration) -> bool {
        let state = self.lock();
        state.stopped
            || self.changed.wait_timeout_while(state, limit, |it| !it.stopped).is_ok_and(|(state, _)| state.stopped)
    }

    /// Ends every connection there is, and sails again for new ones.
    pub fn renew(&self) {
        let mut state = self.lock();
        state.connections.iter().for_each(Hulls::close);
        state.connections.clear();
        state.order = Order::Sail;
        state.stopped = false;
        self.changed.notify_all();
    }

    /// Bytes that left islands.
    pub fn out(&self) -> u64 {
        self.out.load(Ordering::SeqCst)
    }

    /// Bytes that came to islands.
    pub fn back(&self) -> u64 {
        self.back.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

impl Drop for Ferry {
    fn drop(&mut self) {
        self.lock().connections.iter().for_each(Hulls::close);
        // Wakes the listener, which then finds nobody.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The command that runs `program` with `arguments` on an island with these ferries; its process id is the program's.
pub fn on_island(ferries: &[&Ferry], program: &std::ffi::OsStr) -> Command {
    let mut command = Command::new("unshare");
    // Root needs no namespace of users; others may need a kernel that lets them make one.
    if std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) != 0) {
        command.args(["--user", "--map-root-user"]);
    }
    let inside = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/island/inside.py");
    command.args(["--net", "--", "python3"]).arg(inside);
    command.args(ferries.iter().map(|ferry| &ferry.route)).arg("--").arg(program);
    command
}

//! A TCP proxy on loopback that can cut, stall and refuse: the bad network between a client and its server.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

struct Connection {
    pumps: Vec<JoinHandle<()>>,
    stalled: Arc<AtomicBool>,
}

#[derive(Default)]
struct Shared {
    connections: Mutex<Vec<Connection>>,
    refusing: AtomicBool,
    accepted: AtomicUsize,
}

/// Forwards to one address; ends with the test's runtime.
pub struct Proxy {
    /// Where to connect.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts it in front of `to`.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let all = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                all.accepted.fetch_add(1, Ordering::SeqCst);
                if all.refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(to).await else { continue };
                let stalled = Arc::new(AtomicBool::new(false));
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                let pumps = vec![
                    tokio::spawn(pump(near_in, far_out, Arc::clone(&stalled))),
                    tokio::spawn(pump(far_in, near_out, Arc::clone(&stalled))),
                ];
                all.connections.lock().unwrap().push(Connection { pumps, stalled });
            }
        });
        Self { addr, shared }
    }

    /// Ends every connection there is.
    pub fn cut(&self) {
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            connection.pumps.iter().for_each(JoinHandle::abort);
        }
    }

    /// Every connection there is stays open, but nothing comes through any more.
    pub fn stall(&self) {
        for connection in self.shared.connections.lock().unwrap().iter() {
            connection.stalled.store(true, Ordering::SeqCst);
        }
    }

    /// New connections end at once, or not.
    pub fn refuse(&self, on: bool) {
        self.shared.refusing.store(on, Ordering::SeqCst);
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    stalled: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n) = from.read(&mut buffer).await {
        while stalled.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if n == 0 || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

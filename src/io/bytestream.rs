//! TCP connections of SOCKS5 bytestreams: the listeners that peers dial, the streamhosts that we dial, and the finished
//! ones until they are nominated. Read XEP-0065 §5 and §6 before touching this file.
//!
//! ```text
//! accept ─▶ handshake (5 s, 32 at once, the oldest makes room) ─┐
//!                                                               ├─▶ Open, held: lost ─▶ Down; `take` ─▶ TcpStream
//! dial ─▶ resolve ─▶ may_dial? ─▶ connect ─▶ handshake ─────────┘
//! ```
//! Whoever connects is a stranger until it names a DST.ADDR that is expected. One set of listeners serves all transfers;
//! it is bound while one of them is open. Each connection is a task that owns its socket, so that hanging up is to drop it.

use super::dns::Dns;
use super::udp::BindPolicy;
use crate::config::BytestreamLimits;
use crate::transport::dial::{DialPolicy, is_dialable_host, may_dial};
use crate::transport::s5b::StreamId;
use crate::transport::socks5::{Client, Handshake, HandshakeFault, Server};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant as Deadline, timeout, timeout_at};

/// Number of the first accepted connection; dialled ones are numbered below.
const FIRST_ACCEPTED: u64 = 1 << 32;
/// Listeners at most; a machine with more addresses has virtual ones.
const MAX_LISTENERS: usize = 16;
/// Pause after the system refused to accept (too many files): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of the longest message of a handshake.
const MESSAGE_BYTES: usize = 262;
/// Addresses of one name that are tried, one after the other.
const MAX_ADDRESSES: usize = 3;
/// Interfaces between this machine and its own guests and containers: their networks hold no peers, only services that
/// nobody outside may reach.
const VIRTUAL: &[&str] =
    &["docker", "br-", "veth", "virbr", "lxc", "lxd", "cni", "podman", "vmnet", "vboxnet", "flannel", "cali"];

/// Why there is no such connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BytestreamFault {
    /// No address of the streamhost may be dialled.
    #[error("the streamhost has no address that we connect to")]
    NotAllowed,
    /// Its name has no address.
    #[error("the streamhost has no address")]
    NotFound,
    /// It took too long.
    #[error("the streamhost did not answer in time")]
    TimedOut,
    /// SOCKS5 failed.
    #[error("{0}")]
    Handshake(#[from] HandshakeFault),
    /// TCP failed, or the other side closed.
    #[error("the connection failed: {}", .0.kind())]
    Io(#[from] io::Error),
}

/// What happened to a connection. `K` is the caller's name of the content that it is for.
#[derive(Debug)]
pub enum BytestreamReport<K> {
    /// Handshake done: [`Bytestreams::take`] gives it.
    Open {
        /// Whose.
        key: K,
        /// Which.
        stream: StreamId,
        /// The listener that it came to; `None` if we dialled.
        local: Option<SocketAddr>,
    },
    /// It could not be made, or was lost before it was taken.
    Down {
        /// Whose.
        key: K,
        /// Which.
        stream: StreamId,
        /// Why.
        why: BytestreamFault,
    },
}

/// Asks the task of a connection to hand it over; dropped, the task ends and the connection with it.
type Handle = oneshot::Sender<oneshot::Sender<TcpStream>>;

#[derive(Debug)]
struct Shared<K> {
    /// DST.ADDRs that peers may name.
    expected: BTreeMap<String, K>,
    streams: BTreeMap<(K, StreamId), Handle>,
    /// Accepted connections without a finished handshake, the oldest first.
    half_open: BTreeMap<u64, AbortHandle>,
    next_accepted: u64,
}

/// A lock that no panic can leave in a broken state: each holder makes one change.
fn lock<K>(shared: &Mutex<Shared<K>>) -> MutexGuard<'_, Shared<K>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All bytestream connections of a process. Dropped, it closes all that were not taken.
#[derive(Debug)]
pub struct Bytestreams<K> {
    shared: Arc<Mutex<Shared<K>>>,
    reports: mpsc::Sender<BytestreamReport<K>>,
    dns: Dns,
    limits: BytestreamLimits,
    listeners: BTreeMap<IpAddr, (SocketAddr, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl<K: Copy + Ord + Send + 'static> Bytestreams<K> {
    /// Reports go to `reports`; a full channel makes connections wait.
    #[must_use]
    pub fn new(reports: mpsc::Sender<BytestreamReport<K>>, dns: Dns, limits: BytestreamLimits) -> Self {
        let shared = Shared {
            expected: BTreeMap::new(),
            streams: BTreeMap::new(),
            half_open: BTreeMap::new(),
            next_accepted: FIRST_ACCEPTED,
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            reports,
            dns,
            limits,
            listeners: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Expects connections that name one of `dst_addrs` (lower-case hex) for `key`, and says where: one listener for each
    /// address of this machine that `policy` allows. Must be called inside the runtime.
    ///
    /// # Errors
    /// When the interfaces cannot be listed. An address that cannot be bound is skipped, so the list may be empty.
    pub async fn listen(
        &mut self,
        key: K,
        dst_addrs: impl IntoIterator<Item = String>,
        policy: &BindPolicy,
    ) -> io::Result<Vec<SocketAddr>> {
        let addresses = policy.addresses()?;
        // The addresses of a machine change as it moves; a listener on one that is gone hears nobody.
        self.listeners.retain(|ip, (_, task)| {
            let stays = addresses.iter().any(|a| a.ip() == *ip) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for address in addresses {
            if self.listeners.len() >= MAX_LISTENERS || self.listeners.contains_key(&address.ip()) {
                continue;
            }
            let Ok(listener) = TcpListener::bind(address).await else { continue };
            let bound = listener.local_addr()?;
            let task = accept(listener, Arc::clone(&self.shared), self.reports.clone(), self.limits);
            self.listeners.insert(address.ip(), (bound, self.tasks.spawn(task)));
        }
        let mut shared = lock(&self.shared);
        shared.expected.extend(dst_addrs.into_iter().map(|dst_addr| (dst_addr, key)));
        drop(shared);
        Ok(self.listeners.values().map(|(bound, _)| *bound).collect())
    }

    /// Connects to a streamhost and does the handshake, until `by` at the latest.
    pub fn dial(&mut self, key: K, stream: StreamId, to: Streamhost, by: Instant) {
        let (handle, taken) = oneshot::channel();
        lock(&self.shared).streams.insert((key, stream), handle);
        let (shared, reports, dns) = (Arc::clone(&self.shared), self.reports.clone(), self.dns.clone());
        self.tasks.spawn(async move {
            let mut taken = taken;
            let dialled = async {
                let late = |_| BytestreamFault::TimedOut;
                timeout_at(Deadline::from_std(by), connect(&dns, &to, by)).await.map_err(late).flatten()
            };
            let opened = tokio::select! {
                opened = dialled => opened,
                // Hung up.
                _ = &mut taken => return,
            };
            hold(Held { shared, reports, key, stream, local: None, taken }, opened).await;
        });
        // Finished tasks leave their results behind.
        while self.tasks.try_join_next().is_some() {}
    }

    /// Closes a connection, or stops dialling it.
    pub fn hang_up(&mut self, key: K, stream: StreamId) {
        lock(&self.shared).streams.remove(&(key, stream));
    }

    /// Hands over a connection that was reported open; the bytes of the peer are unread. `None` if it is gone.
    pub async fn take(&mut self, key: K, stream: StreamId) -> Option<TcpStream> {
        let handle = lock(&self.shared).streams.remove(&(key, stream))?;
        let (give, given) = oneshot::channel();
        handle.send(give).ok()?;
        given.await.ok()
    }

    /// Forgets `key`: closes all its connections that were not taken, and the listeners if nobody else needs them.
    pub fn close(&mut self, key: K) {
        let mut shared = lock(&self.shared);
        shared.expected.retain(|_, owner| *owner != key);
        shared.streams.retain(|(owner, _), _| *owner != key);
        if shared.expected.is_empty() {
            for (_, half_open) in std::mem::take(&mut shared.half_open) {
                half_open.abort();
            }
            for (_, (_, task)) in std::mem::take(&mut self.listeners) {
                task.abort();
            }
        }
        drop(shared);
        while self.tasks.try_join_next().is_some() {}
    }
}

impl<K> Drop for Bytestreams<K> {
    fn drop(&mut self) {
        // Handshakes are tasks of their listener's; what is held ends with its handle.
        let mut shared = lock(&self.shared);
        for (_, half_open) in std::mem::take(&mut shared.half_open) {
            half_open.abort();
        }
        shared.streams.clear();
    }
}

/// Whom to dial, and for which stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamhost {
    /// Address or name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// DST.ADDR.
    pub dst_addr: String,
    /// What each address of `host` must pass.
    pub policy: DialPolicy,
}

/// The networks that this machine is in, as addresses with their prefix in bits: peers there are dialled at private
/// addresses. Those of containers and virtual machines are left out. Empty if the system does not tell.
#[must_use]
pub fn own_networks() -> Vec<(IpAddr, u8)> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces
        .into_iter()
        .filter(|i| i.is_oper_up() && !i.is_loopback() && !VIRTUAL.iter().any(|v| i.name.starts_with(v)))
        .map(|i| match i.addr {
            if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        })
        .collect()
}

async fn accept<K: Copy + Ord + Send + 'static>(
    listener: TcpListener,
    shared: Arc<Mutex<Shared<K>>>,
    reports: mpsc::Sender<BytestreamReport<K>>,
    limits: BytestreamLimits,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(why) => {
                tracing::warn!(%why, "a bytestream connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let mut now = lock(&shared);
        let number = now.next_accepted;
        now.next_accepted += 1;
        if now.half_open.len() >= limits.half_open
            && let Some((_, oldest)) = now.half_open.pop_first()
        {
            oldest.abort();
        }
        let (shared, reports) = (Arc::clone(&shared), reports.clone());
        // The lock is held until the task is noted, so that it cannot end before.
        let task = tokio::spawn(welcome(stream, number, shared, reports, limits.handshake));
        now.half_open.insert(number, task.abort_handle());
    }
}

/// An accepted connection, from its first byte until it is taken.
async fn welcome<K: Copy + Ord + Send + 'static>(
    mut tcp: TcpStream,
    number: u64,
    shared: Arc<Mutex<Shared<K>>>,
    reports: mpsc::Sender<BytestreamReport<K>>,
    limit: Duration,
) {
    let expected = |dst_addr: &str| lock(&shared).expected.contains_key(dst_addr);
    let named = timeout(limit, serve(&mut tcp, expected)).await;
    let (handle, taken) = oneshot::channel();
    let stream = StreamId(number);
    let key = {
        let mut now = lock(&shared);
        now.half_open.remove(&number);
        let key = match &named {
            Ok(Ok(dst_addr)) => now.expected.get(dst_addr).copied(),
            Ok(Err(_)) | Err(_) => None,
        };
        if let Some(key) = key {
            now.streams.insert((key, stream), handle);
        }
        key
    };
    match (key, named) {
        (Some(key), _) => {
            let local = tcp.local_addr().ok();
            hold(Held { shared, reports, key, stream, local, taken }, Ok(tcp)).await;
        }
        (None, Ok(Err(why))) => tracing::debug!(%why, "a bytestream connection is dropped"),
        (None, _) => tracing::debug!("a bytestream connection is dropped: too slow, or for nobody"),
    }
}

struct Held<K> {
    shared: Arc<Mutex<Shared<K>>>,
    reports: mpsc::Sender<BytestreamReport<K>>,
    key: K,
    stream: StreamId,
    local: Option<SocketAddr>,
    taken: oneshot::Receiver<oneshot::Sender<TcpStream>>,
}

/// Reports a connection and keeps it until it is taken, hung up or lost.
async fn hold<K: Copy + Ord>(held: Held<K>, opened: Result<TcpStream, BytestreamFault>) {
    let Held { shared, reports, key, stream, local, mut taken } = held;
    let why = match opened {
        Ok(tcp) => {
            // The last bytes of a file would wait for an acknowledgement. A socket without the option still works. The
            // buffers are left to the system, which grows them with the path; set by hand they would stay as they are.
            let _ = tcp.set_nodelay(true);
            if reports.send(BytestreamReport::Open { key, stream, local }).await.is_err() {
                return;
            }
            let mut first = [0; 1];
            let lost = tokio::select! {
                give = &mut taken => {
                    if let Ok(give) = give {
                        let _ = give.send(tcp);
                    }
                    return;
                }
                // Peeked: the first byte belongs to whoever takes the connection.
                peeked = tcp.peek(&mut first) => match peeked {
                    Ok(0) => Some(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => None,
                    Err(why) => Some(why),
                },
            };
            match lost {
                Some(why) => BytestreamFault::Io(why),
                // Early bytes: from here on only the reader can see an end.
                None => {
                    if let Ok(give) = taken.await {
                        let _ = give.send(tcp);
                    }
                    return;
                }
            }
        }
        Err(why) => why,
    };
    // Nobody hears of what was hung up meanwhile.
    if lock(&shared).streams.remove(&(key, stream)).is_some() {
        let _ = reports.send(BytestreamReport::Down { key, stream, why }).await;
    }
}

/// The server's half; gives the DST.ADDR that the client named.
async fn serve(tcp: &mut TcpStream, expected: impl Fn(&str) -> bool) -> Result<String, BytestreamFault> {
    let mut server = Server::new();
    let mut buffer = [0; MESSAGE_BYTES];
    loop {
        if let Some(bytes) = server.poll_transmit() {
            tcp.write_all(&bytes).await?;
        }
        match server.state() {
            Handshake::Open(dst_addr) => return Ok(dst_addr.clone()),
            Handshake::Broken(why) => return Err((*why).into()),
            Handshake::Going => {
                let bytes = read_some(tcp, &mut buffer, server.wants()).await?;
                server.handle_input(bytes, &expected);
            }
        }
    }
}

/// Resolves, checks, connects, shakes hands.
async fn connect(dns: &Dns, to: &Streamhost, by: Instant) -> Result<TcpStream, BytestreamFault> {
    if !is_dialable_host(&to.host, &to.policy) {
        return Err(BytestreamFault::NotAllowed);
    }
    let found = dns.addresses(&to.host, to.port).await;
    if found.is_empty() {
        return Err(BytestreamFault::NotFound);
    }
    // What a name resolves to is the peer's choice, too.
    let allowed: Vec<SocketAddr> = found.into_iter().filter(|a| may_dial(*a, &to.policy)).take(MAX_ADDRESSES).collect();
    let mut last = BytestreamFault::NotAllowed;
    for (index, address) in allowed.iter().enumerate() {
        let left = by.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(allowed.len() - index).unwrap_or(1);
        match timeout(share, connect_to(*address, &to.dst_addr)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(why)) => last = why,
            Err(_) => last = BytestreamFault::TimedOut,
        }
    }
    Err(last)
}

async fn connect_to(address: SocketAddr, dst_addr: &str) -> Result<TcpStream, BytestreamFault> {
    let mut tcp = TcpStream::connect(address).await?;
    let mut client = Client::new(dst_addr);
    let mut buffer = [0; MESSAGE_BYTES];
    loop {
        if let Some(bytes) = client.poll_transmit() {
            tcp.write_all(&bytes).await?;
        }
        match client.state() {
            Handshake::Open(_) => return Ok(tcp),
            Handshake::Broken(why) => return Err((*why).into()),
            Handshake::Going => {
                let bytes = read_some(&mut tcp, &mut buffer, client.wants()).await?;
                client.handle_input(bytes);
            }
        }
    }
}

/// Reads at most `wants` bytes: what follows is not the handshake's.
async fn read_some<'a>(tcp: &mut TcpStream, buffer: &'a mut [u8], wants: usize) -> io::Result<&'a [u8]> {
    let length = wants.min(buffer.len());
    let room = buffer.get_mut(..length).unwrap_or_default();
    let read = tcp.read(room).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(buffer.get(..read).unwrap_or_default())
}

//! Listeners of SIP: what knocks is let in as far as there is room. Read RFC 3261 §18.2 before touching this file.

use super::stream::{Connection, Queue, carry, finish, queue};
use super::{News, SipNetwork, identity, websocket};
use crate::config::SipSocketLimits;
use crate::io::tcp::Carrier;
use crate::sip::exchange::{FlowId, Transport};
use crate::sip::flow::SipInput;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

/// Set in the ids of accepted connections.
const ACCEPTED: u64 = 1 << 63;
/// Pause when the system has no more descriptors.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// Connections that the system holds for us while we are busy.
const BACKLOG: i32 = 1024;

/// Where connections come in.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) flow: FlowId,
    pub(super) transport: Transport,
    pub(super) network: Arc<SipNetwork>,
}

/// What all listeners share: the count of ids, and of connections that are not through their handshakes.
#[derive(Debug)]
pub(super) struct Accepting {
    last: AtomicU64,
    half_open: Arc<Semaphore>,
    sources: Mutex<BTreeMap<IpAddr, usize>>,
    per_source: usize,
}

impl Accepting {
    pub(super) fn new(limits: &SipSocketLimits) -> Self {
        Self {
            last: AtomicU64::new(0),
            half_open: Arc::new(Semaphore::new(limits.half_open)),
            sources: Mutex::new(BTreeMap::new()),
            per_source: limits.half_open_per_source,
        }
    }

    fn enter(self: &Arc<Self>, source: IpAddr, permit: OwnedSemaphorePermit) -> Option<HalfOpen> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        if *count >= self.per_source {
            return None;
        }
        *count += 1;
        Some(HalfOpen { all: Arc::clone(self), source, _permit: permit })
    }
}

/// Counts one connection until its handshakes are over.
struct HalfOpen {
    all: Arc<Accepting>,
    source: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        let mut sources = self.all.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// Binds a listener; on the wildcard of IPv6 it leaves IPv4 alone, so that both can be had.
pub(super) fn bind(local: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // After a restart old connections still linger on the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from_std(socket.into())?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}

/// Accepts until it is aborted.
pub(super) async fn accept(listener: TcpListener, door: Door, accepting: Arc<Accepting>, news: mpsc::Sender<News>) {
    loop {
        // Without room, connections wait in the system's queue.
        let Ok(permit) = Arc::clone(&accepting.half_open).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, remote)) => {
                let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
                let Some(half_open) = accepting.enter(remote.ip(), permit) else {
                    tracing::debug!("too many handshakes of one address, one more is refused");
                    continue;
                };
                tokio::spawn(welcome(tcp, remote, door.clone(), half_open, news.clone()));
            }
            Err(why) => {
                tracing::warn!(%why, "no connection can be accepted");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

async fn welcome(tcp: TcpStream, remote: SocketAddr, door: Door, half_open: HalfOpen, news: mpsc::Sender<News>) {
    // A socket without the option works, too.
    let _ = tcp.set_nodelay(true);
    let Ok(local) = tcp.local_addr() else { return };
    let limits = &door.network.limits;
    let shaken = tokio::time::timeout(limits.handshake, shake(tcp, &door)).await;
    let Ok(Some((connection, names))) = shaken else {
        tracing::debug!("a connection did not get through its handshake");
        return;
    };
    let flow = FlowId(ACCEPTED | half_open.all.last.fetch_add(1, Ordering::Relaxed));
    let (writer, queue) = queue(limits);
    let accepted = SipInput::Accepted { listener: door.flow, flow, local, remote, names };
    if news.send(News::Accepted(accepted, flow, writer)).await.is_err() {
        return;
    }
    drop(half_open);
    run(connection, flow, remote, queue, &news).await;
}

async fn run(connection: Connection, flow: FlowId, remote: SocketAddr, queue: Queue, news: &mpsc::Sender<News>) {
    let end = match connection {
        Connection::Bytes(carrier) => carry(carrier, (flow, remote), queue, news).await,
        Connection::WebSocket(socket) => websocket::carry(*socket, (flow, remote), queue, news).await,
    };
    finish(flow, end, news).await;
}

/// TLS and WebSocket as the listener wants them; with the domains that the peer's certificate proves.
async fn shake(tcp: TcpStream, door: &Door) -> Option<(Connection, Vec<String>)> {
    let (carrier, names) = match (&door.network.server_tls, door.transport.is_secure()) {
        (Some(config), true) => {
            let tls = TlsAcceptor::from(Arc::clone(config)).accept(tcp).await.ok()?;
            let shown = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let names = shown.map(identity::domains).unwrap_or_default();
            (Carrier::TlsServer(Box::new(tls)), names)
        }
        (None, true) => return None,
        (Some(_) | None, false) => (Carrier::Plain(tcp), Vec::new()),
    };
    let connection = match door.transport {
        Transport::Udp | Transport::Tcp | Transport::Tls => Connection::Bytes(carrier),
        Transport::Ws | Transport::Wss => {
            Connection::WebSocket(Box::new(websocket::accept(carrier, &door.network.limits).await?))
        }
    };
    Some((connection, names))
}

//! TCP and TLS connections of SIP: one task each. Read RFC 3261 §18.1 and §18.3 before touching this file.

use super::{News, SipNetwork, SipReport, fault, websocket};
use crate::config::SipSocketLimits;
use crate::io::tcp::{self, Carrier};
use crate::sip::exchange::{FlowId, Transport};
use crate::sip::flow::{FlowFault, SipInput};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Bytes read at once: most messages.
const READ_BYTES: usize = 8 * 1024;
/// A peer that takes nothing for so long is gone: as long as a transaction waits (RFC 3261 §17.1.1.2, 64·T1).
const WRITE_LIMIT: Duration = Duration::from_secs(32);
/// What the end of a connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The shell's end of a connection.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    most: usize,
}

impl Writer {
    /// False if the connection takes nothing any more.
    pub(super) fn send(&self, bytes: Vec<u8>) -> bool {
        let length = bytes.len();
        if self.waiting.load(Ordering::Relaxed) + length > self.most || self.queue.try_send(bytes).is_err() {
            return false;
        }
        self.waiting.fetch_add(length, Ordering::Relaxed);
        true
    }
}

/// The task's end.
#[derive(Debug)]
pub(super) struct Queue {
    queue: mpsc::Receiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

impl Queue {
    /// `None` when the flow is to be closed and everything is written.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        let bytes = self.queue.recv().await?;
        self.written(&bytes);
        Some(bytes)
    }

    fn try_next(&mut self) -> Option<Vec<u8>> {
        let bytes = self.queue.try_recv().ok()?;
        self.written(&bytes);
        Some(bytes)
    }

    fn written(&self, bytes: &[u8]) {
        self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
}

pub(super) fn queue(limits: &SipSocketLimits) -> (Writer, Queue) {
    let (sender, receiver) = mpsc::channel(limits.waiting_messages);
    let waiting = Arc::new(AtomicUsize::new(0));
    let writer = Writer { queue: sender, waiting: Arc::clone(&waiting), most: limits.waiting_bytes };
    (writer, Queue { queue: receiver, waiting })
}

/// How a connection ended.
pub(super) enum End {
    /// We closed it: nobody waits to hear of it.
    Ours,
    /// The peer did, or it broke.
    Theirs(String),
}

/// Connects and carries until the end.
pub(super) async fn open(
    network: Arc<SipNetwork>,
    (flow, transport): (FlowId, Transport),
    remote: SocketAddr,
    name: String,
    mut queue: Queue,
    news: mpsc::Sender<News>,
) {
    let connected = tokio::select! {
        connected = connect(&network, transport, remote, &name) => connected,
        // Nothing is written before it stands: the wish to connect is gone.
        _ = queue.next() => return,
    };
    let report = |input| News::Report(SipReport::Other(input));
    match connected {
        Ok((carrier, local)) => {
            if news.send(report(SipInput::Opened { flow, local })).await.is_ok() {
                let end = match carrier {
                    Connection::Bytes(carrier) => carry(carrier, (flow, remote), queue, &news).await,
                    Connection::WebSocket(socket) => websocket::carry(*socket, (flow, remote), queue, &news).await,
                };
                finish(flow, end, &news).await;
            }
        }
        // The shell may be gone.
        Err(why) => drop(news.send(report(SipInput::Failed { flow, why })).await),
    }
}

/// Tells of the end of a connection.
pub(super) async fn finish(flow: FlowId, end: End, news: &mpsc::Sender<News>) {
    if let End::Theirs(why) = end {
        // The shell may be gone.
        let _ = news.send(News::Report(SipReport::Other(SipInput::Closed { flow, why }))).await;
    }
}

/// A connection whose handshakes are over.
pub(super) enum Connection {
    Bytes(Carrier),
    WebSocket(Box<websocket::Socket>),
}

async fn connect(
    network: &SipNetwork,
    transport: Transport,
    remote: SocketAddr,
    name: &str,
) -> Result<(Connection, SocketAddr), FlowFault> {
    let unreachable = |why: std::io::Error| FlowFault::Unreachable(why.to_string());
    let tcp = TcpStream::connect(remote).await.map_err(unreachable)?;
    // A socket without the option works, too.
    let _ = tcp.set_nodelay(true);
    let local = tcp.local_addr().map_err(unreachable)?;
    let carrier = if transport.is_secure() {
        let no_tls = || FlowFault::Unreachable("there is no TLS here".into());
        let config = network.client_tls.as_ref().ok_or_else(no_tls)?;
        // RFC 5922 §4: for the domain that was asked for.
        let address = remote.ip().to_string();
        let domain = if name.is_empty() { &address } else { name };
        tcp::start_tls(tcp, domain, config).await.map_err(fault)?.0
    } else {
        Carrier::Plain(tcp)
    };
    let connection = match transport {
        Transport::Udp | Transport::Tcp | Transport::Tls => Connection::Bytes(carrier),
        Transport::Ws | Transport::Wss => {
            let host = websocket::host(transport, name, remote);
            let socket = websocket::connect(carrier, transport, &host, network).await?;
            Connection::WebSocket(Box::new(socket))
        }
    };
    Ok((connection, local))
}

/// Reads and writes at the same time until one of both ends.
pub(super) async fn carry(
    carrier: Carrier,
    (flow, source): (FlowId, SocketAddr),
    mut queue: Queue,
    news: &mpsc::Sender<News>,
) -> End {
    let (mut read, mut write) = tokio::io::split(carrier);
    let reading = async {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let bytes = match read.read(&mut buffer).await {
                Ok(0) => return End::Theirs("the other side closed the connection".into()),
                Ok(length) => buffer.get(..length).unwrap_or_default().to_vec(),
                Err(why) => return End::Theirs(why.to_string()),
            };
            // A full queue holds the peer back.
            if news.send(News::Report(SipReport::Bytes { flow, source, bytes })).await.is_err() {
                return End::Ours;
            }
        }
    };
    let writing = async {
        while let Some(first) = queue.next().await {
            let written = async {
                write.write_all(&first).await?;
                while let Some(more) = queue.try_next() {
                    write.write_all(&more).await?;
                }
                write.flush().await
            };
            match tokio::time::timeout(WRITE_LIMIT, written).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return End::Theirs(why.to_string()),
                Err(_) => return End::Theirs("the other side does not take any more".into()),
            }
        }
        // The other side may be gone already; the close is a courtesy.
        drop(tokio::time::timeout(CLOSE_LIMIT, write.shutdown()).await);
        End::Ours
    };
    tokio::select! {
        end = reading => end,
        end = writing => end,
    }
}

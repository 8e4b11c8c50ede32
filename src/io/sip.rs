//! The sockets that SIP travels on: opens, listens, writes and closes what `sip/flow` wants, and asks DNS for `sip/locate`.
//! Read RFC 3261 §18, RFC 5922 and RFC 7118 before touching this file.

mod datagram;
pub mod identity;
mod listen;
mod stream;
mod websocket;

use super::dns::Dns;
use super::tcp::ConnectError;
use crate::config::SipSocketLimits;
use crate::sip::exchange::{FlowId, Transport};
use crate::sip::flow::{FlowFault, SipInput, SipOutput};
use crate::sip::locate::{Query, Records};
use datagram::DatagramFlow;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use stream::Writer;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

/// What SIP needs of the machine it runs on.
#[derive(Debug, Clone)]
pub struct SipNetwork {
    /// For TLS that we start: [`identity::client`]. `None`: no TLS.
    pub client_tls: Option<Arc<rustls::ClientConfig>>,
    /// For TLS listeners: [`identity::server`]. `None`: they cannot be had.
    pub server_tls: Option<Arc<rustls::ServerConfig>>,
    /// Path of the WebSocket handshake. RFC 7118 leaves it to the configuration; Asterisk wants `/ws`.
    pub websocket_path: String,
    /// Name servers; none: the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// Caps of the sockets.
    pub limits: SipSocketLimits,
}

impl Default for SipNetwork {
    fn default() -> Self {
        Self {
            client_tls: None,
            server_tls: None,
            websocket_path: "/ws".to_owned(),
            dns_servers: Vec::new(),
            limits: SipSocketLimits::default(),
        }
    }
}

/// A [`SipInput`] that owns its bytes.
#[derive(Debug)]
pub enum SipReport {
    /// [`SipInput::Bytes`]
    Bytes {
        /// Where.
        flow: FlowId,
        /// Whose.
        source: SocketAddr,
        /// They.
        bytes: Vec<u8>,
    },
    /// Any other.
    Other(SipInput<'static>),
}

impl SipReport {
    /// Gives it to the engine.
    pub fn give(self, engine: impl FnOnce(SipInput<'_>)) {
        match self {
            SipReport::Bytes { flow, source, bytes } => engine(SipInput::Bytes { flow, source, bytes: &bytes }),
            SipReport::Other(input) => engine(input),
        }
    }
}

/// What tasks tell the shell.
enum News {
    Report(SipReport),
    /// A connection came in; its writer is kept.
    Accepted(SipInput<'static>, FlowId, Writer),
}

/// A task that ends with its handle.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
enum Handle {
    Datagram(DatagramFlow),
    /// The task of a stream ends when its writer is gone and everything is written.
    Stream(Writer),
    Listener {
        _task: Task,
    },
}

/// All sockets of one SIP user agent. Dropping it closes them.
#[derive(Debug)]
pub struct SipSockets {
    network: Arc<SipNetwork>,
    flows: BTreeMap<FlowId, Handle>,
    /// What is to be said at once.
    ready: VecDeque<SipReport>,
    news: (mpsc::Sender<News>, mpsc::Receiver<News>),
    lookups: Arc<Semaphore>,
    accepting: Arc<listen::Accepting>,
}

impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            News::Report(report) => f.debug_tuple("Report").field(report).finish(),
            News::Accepted(input, ..) => f.debug_tuple("Accepted").field(input).finish(),
        }
    }
}

impl SipSockets {
    /// No socket yet.
    #[must_use]
    pub fn new(network: SipNetwork) -> Self {
        let limits = network.limits;
        Self {
            network: Arc::new(network),
            flows: BTreeMap::new(),
            ready: VecDeque::new(),
            news: mpsc::channel(limits.reports),
            lookups: Arc::new(Semaphore::new(limits.lookups)),
            accepting: Arc::new(listen::Accepting::new(&limits)),
        }
    }

    /// Does what the engine wants. Inside the runtime only.
    pub fn handle(&mut self, output: SipOutput) {
        match output {
            SipOutput::Open { flow, transport: Transport::Udp, remote, .. } => self.open_socket(flow, remote),
            SipOutput::Open { flow, transport, remote, name } => {
                let (writer, queue) = stream::queue(&self.network.limits);
                let news = self.news.0.clone();
                let network = Arc::clone(&self.network);
                tokio::spawn(stream::open(network, (flow, transport), remote, name, queue, news));
                self.flows.insert(flow, Handle::Stream(writer));
            }
            SipOutput::Listen { flow, transport, local } => self.listen(flow, transport, local),
            SipOutput::Send { flow, remote, bytes } => self.send(flow, remote, bytes),
            SipOutput::Close(flow) => drop(self.flows.remove(&flow)),
            SipOutput::LookUp(query) => self.look_up(query),
        }
    }

    /// What happened next. May be dropped before it is done: nothing is lost.
    pub async fn next(&mut self) -> SipReport {
        if let Some(report) = self.ready.pop_front() {
            return report;
        }
        match self.news.1.recv().await {
            Some(News::Report(report)) => {
                if let SipReport::Other(SipInput::Closed { flow, .. } | SipInput::Failed { flow, .. }) = &report {
                    self.flows.remove(flow);
                }
                report
            }
            Some(News::Accepted(input, flow, writer)) => {
                self.flows.insert(flow, Handle::Stream(writer));
                SipReport::Other(input)
            }
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    fn open_socket(&mut self, flow: FlowId, remote: SocketAddr) {
        let everywhere = self.flows.values().find_map(|handle| match handle {
            Handle::Datagram(it) if it.is_everywhere(remote) => Some(it),
            Handle::Datagram(_) | Handle::Stream(_) | Handle::Listener { .. } => None,
        });
        let opened = match everywhere {
            Some(listening) => listening.share(remote),
            None => DatagramFlow::towards(flow, remote, &self.news.0, &self.network.limits),
        };
        self.opened(flow, opened);
    }

    fn listen(&mut self, flow: FlowId, transport: Transport, local: SocketAddr) {
        if transport == Transport::Udp {
            let opened = DatagramFlow::bind(flow, local, &self.news.0, &self.network.limits);
            self.opened(flow, opened);
            return;
        }
        if transport.is_secure() && self.network.server_tls.is_none() {
            self.ready.push_back(failed(flow, FlowFault::Certificate("there is no certificate of ours".into())));
            return;
        }
        match listen::bind(local) {
            Ok((listener, local)) => {
                let to = listen::Door { flow, transport, network: Arc::clone(&self.network) };
                let accepting = Arc::clone(&self.accepting);
                let task = tokio::spawn(listen::accept(listener, to, accepting, self.news.0.clone()));
                self.flows.insert(flow, Handle::Listener { _task: Task(task.abort_handle()) });
                self.ready.push_back(SipReport::Other(SipInput::Opened { flow, local }));
            }
            Err(why) => self.ready.push_back(failed(flow, FlowFault::Unreachable(why.to_string()))),
        }
    }

    fn opened(&mut self, flow: FlowId, opened: std::io::Result<DatagramFlow>) {
        self.ready.push_back(match opened {
            Ok(socket) => {
                let local = socket.local();
                self.flows.insert(flow, Handle::Datagram(socket));
                SipReport::Other(SipInput::Opened { flow, local })
            }
            Err(why) => failed(flow, FlowFault::Unreachable(why.to_string())),
        });
    }

    fn send(&mut self, flow: FlowId, remote: SocketAddr, bytes: Vec<u8>) {
        let broken = match self.flows.get(&flow) {
            Some(Handle::Datagram(socket)) => socket.send(remote, bytes).err().map(|why| why.to_string()),
            Some(Handle::Stream(writer)) => {
                let taken = writer.send(bytes);
                (!taken).then(|| "the other side does not take any more".to_owned())
            }
            Some(Handle::Listener { .. }) | None => None,
        };
        if let Some(why) = broken {
            self.flows.remove(&flow);
            self.ready.push_back(SipReport::Other(SipInput::Closed { flow, why }));
        }
    }

    fn look_up(&self, query: Query) {
        // Made anew each time: the system's configuration changes with the network.
        let dns = Dns::with_servers(&self.network.dns_servers);
        let lookups = Arc::clone(&self.lookups);
        let news = self.news.0.clone();
        tokio::spawn(async move {
            // Never closed.
            let Ok(_permit) = lookups.acquire().await else { return };
            let answer: Records = dns.look_up(&query).await;
            // The shell may be gone.
            let _ = news.send(News::Report(SipReport::Other(SipInput::Found { query, answer }))).await;
        });
    }
}

fn failed(flow: FlowId, why: FlowFault) -> SipReport {
    SipReport::Other(SipInput::Failed { flow, why })
}

fn fault(why: ConnectError) -> FlowFault {
    match why {
        ConnectError::Certificate { .. } => FlowFault::Certificate(why.to_string()),
        ConnectError::UnknownHost { .. }
        | ConnectError::NoService(_)
        | ConnectError::Unreachable { .. }
        | ConnectError::Tls { .. } => FlowFault::Unreachable(why.to_string()),
    }
}

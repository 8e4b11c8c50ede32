//! UDP sockets of SIP. Read RFC 3261 §18 before touching this file.

use super::{News, SipReport, Task};
use crate::config::SipSocketLimits;
use crate::sip::exchange::FlowId;
use crate::sip::flow::SipInput;
use socket2::SockRef;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Any datagram that UDP carries: a SIP message may fill it (RFC 3261 §18.1.1).
const DATAGRAM_BYTES: usize = 65_535;
/// Datagrams taken in a row before other tasks get their turn.
const BURST: usize = 64;
/// Errors in a row after which a socket is given up: its interface is gone.
const MAX_ERRORS: u32 = 100;
/// Pause after an error that is not the peer's, so that a broken socket does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// One UDP flow. Several flows share the socket of a listener on every address.
#[derive(Debug)]
pub(super) struct DatagramFlow {
    socket: Arc<UdpSocket>,
    /// With the address that peers reach us at, where it is known.
    local: SocketAddr,
    /// What waits for room in the socket's own queue.
    waiting: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    /// Ends with the last flow of the socket.
    _task: Arc<Task>,
}

impl DatagramFlow {
    /// Binds a free port on the address that routes to `remote`.
    pub(super) fn towards(
        flow: FlowId,
        remote: SocketAddr,
        news: &mpsc::Sender<News>,
        limits: &SipSocketLimits,
    ) -> io::Result<Self> {
        Self::bind(flow, SocketAddr::new(route(remote)?, 0), news, limits)
    }

    /// Binds an address.
    pub(super) fn bind(
        flow: FlowId,
        local: SocketAddr,
        news: &mpsc::Sender<News>,
        limits: &SipSocketLimits,
    ) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        // A smaller buffer works too.
        let _ = SockRef::from(&socket).set_recv_buffer_size(limits.receive_buffer_bytes);
        let socket = Arc::new(socket);
        let local = socket.local_addr()?;
        let (waiting, queue) = mpsc::channel(limits.waiting_datagrams);
        let task = tokio::spawn(run(Arc::clone(&socket), flow, queue, news.clone()));
        Ok(Self { socket, local, waiting, _task: Arc::new(Task(task.abort_handle())) })
    }

    /// Listens on every address of the family of `remote`.
    pub(super) fn is_everywhere(&self, remote: SocketAddr) -> bool {
        self.local.ip().is_unspecified() && self.local.is_ipv4() == remote.is_ipv4()
    }

    /// The same socket, with the address that routes to `remote`.
    pub(super) fn share(&self, remote: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: Arc::clone(&self.socket),
            local: SocketAddr::new(route(remote)?, self.local.port()),
            waiting: self.waiting.clone(),
            _task: Arc::clone(&self._task),
        })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends, or puts it behind what waits. An error is the socket's end.
    pub(super) fn send(&self, remote: SocketAddr, bytes: Vec<u8>) -> io::Result<()> {
        match self.socket.try_send_to(&bytes, remote) {
            Ok(_) => Ok(()),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                // Past the limit it is lost, as in a network: transactions send again.
                let _ = self.waiting.try_send((remote, bytes));
                Ok(())
            }
            Err(why) if is_passing(&why) => {
                tracing::debug!(%why, "a SIP datagram is not sent");
                Ok(())
            }
            Err(why) => Err(why),
        }
    }
}

/// The address of ours that the system would send to `remote` from. Nothing is sent.
fn route(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
    probe.connect(remote)?;
    Ok(probe.local_addr()?.ip())
}

async fn run(
    socket: Arc<UdpSocket>,
    flow: FlowId,
    mut queue: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    news: mpsc::Sender<News>,
) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut errors = 0;
    let why = loop {
        tokio::select! {
            ready = socket.readable() => {
                if let Err(why) = ready {
                    break why;
                }
            }
            // Its sender lives in every flow of the socket, and this task ends with them.
            Some((remote, bytes)) = queue.recv() => {
                if let Err(why) = socket.send_to(&bytes, remote).await {
                    tracing::debug!(%why, "a SIP datagram is not sent");
                }
                continue;
            }
        }
        match read_burst(&socket, flow, &mut buffer, &news) {
            Ok(true) => errors = 0,
            Ok(false) => return,
            Err(why) => {
                errors += 1;
                if errors >= MAX_ERRORS {
                    break why;
                }
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
        tokio::task::yield_now().await;
    };
    let report = SipReport::Other(SipInput::Closed { flow, why: why.to_string() });
    // The shell may be gone.
    let _ = news.send(News::Report(report)).await;
}

/// False when nobody listens any more.
fn read_burst(socket: &UdpSocket, flow: FlowId, buffer: &mut [u8], news: &mpsc::Sender<News>) -> io::Result<bool> {
    for _ in 0..BURST {
        match socket.try_recv_from(buffer) {
            Ok((length, source)) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                // A full queue loses the datagram, as a full socket buffer would.
                let sent = news.try_send(News::Report(SipReport::Bytes { flow, source, bytes }));
                if matches!(sent, Err(mpsc::error::TrySendError::Closed(_))) {
                    return Ok(false);
                }
            }
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
            Err(why) if is_passing(&why) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(true)
}

/// Errors of one datagram, or of the way to one peer: the socket is still good.
fn is_passing(why: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, InvalidInput, PermissionDenied,
    };
    matches!(why.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | PermissionDenied)
        // EMSGSIZE has no kind of its own; EINVAL is a destination of port 0.
        || why.kind() == InvalidInput
        || why.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

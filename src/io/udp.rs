//! The UDP sockets of a leg: one for each address a peer may reach us at, so that every host candidate is a base of
//! its own. Read RFC 8445 §5.1.1.1 before touching this file.

use socket2::SockRef;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;

/// Bytes of one received datagram at most. Whole DTLS flights of 2 kB arrive in one; what fills the buffer was cut.
pub const DATAGRAM_BYTES: usize = 8 * 1024;
/// Sockets of one leg at most; a machine with more addresses has virtual ones.
const MAX_SOCKETS: usize = 16;
/// Datagrams taken from one socket in a row before other tasks get their turn.
const BURST: usize = 64;
/// Receive buffer asked of the system: what comes at 100 Mbit/s while another task has the core for 80 ms. The system gives
/// as much of it as its administrator allows (on Linux `net.core.rmem_max`).
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// Errors in a row after which a socket is given up: its interface is gone.
const MAX_ERRORS: u32 = 100;
/// Pause after an error that is not the peer's, so that a broken socket does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Which addresses are bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindPolicy {
    /// Loopback and IPv6 link-local addresses too: laboratory and tests.
    pub lab: bool,
    /// IPv4 addresses are bound.
    pub ipv4: bool,
    /// IPv6 addresses are bound.
    pub ipv6: bool,
    /// If not empty, only these addresses, whatever else is configured.
    pub only: Vec<IpAddr>,
}

impl Default for BindPolicy {
    fn default() -> Self {
        Self { lab: false, ipv4: true, ipv6: true, only: Vec::new() }
    }
}

impl BindPolicy {
    fn allows(&self, ip: IpAddr) -> bool {
        let (family, local) = match ip {
            IpAddr::V4(ip) => (self.ipv4, ip.is_loopback()),
            IpAddr::V6(ip) => (self.ipv6, ip.is_loopback() || ip.is_unicast_link_local()),
        };
        let asked_for = self.only.is_empty() || self.only.contains(&ip);
        family && asked_for && (self.lab || !local) && !ip.is_unspecified() && !ip.is_multicast()
    }

    /// Every address, once, of every interface that is up and that the policy allows, with port 0: to be bound.
    ///
    /// # Errors
    /// When the interfaces cannot be listed.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let mut found: Vec<SocketAddr> = Vec::new();
        for interface in if_addrs::get_if_addrs()? {
            let ip = interface.ip();
            let known = found.iter().any(|addr| addr.ip() == ip);
            if known || !interface.is_oper_up() && !interface.is_loopback() || !self.allows(ip) {
                continue;
            }
            found.push(match ip {
                // A link-local address means nothing without its interface.
                IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                    SocketAddr::V6(SocketAddrV6::new(ip, 0, 0, interface.index.unwrap_or(0)))
                }
                IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(ip, 0),
            });
        }
        Ok(found)
    }
}

/// A socket and the address that the core knows it by.
#[derive(Debug, Clone)]
pub struct BoundSocket {
    /// The socket; shared by the task that reads and the one that writes.
    pub socket: Arc<UdpSocket>,
    /// What it is bound to, with the real port.
    pub addr: SocketAddr,
}

/// Binds one UDP socket on a free port of every address of every interface that is up and that `policy` allows.
///
/// # Errors
/// When the interfaces cannot be listed. An address that cannot be bound (just going away, still tentative) is skipped.
pub async fn bind_sockets(policy: &BindPolicy) -> io::Result<Vec<BoundSocket>> {
    let mut found: Vec<BoundSocket> = Vec::new();
    for addr in policy.addresses()? {
        if found.len() >= MAX_SOCKETS {
            break;
        }
        let Ok(socket) = UdpSocket::bind(addr).await else { continue };
        found.push(bound(socket).await?);
    }
    Ok(found)
}

/// Pairs of ports that are tried before RTP has to do without an odd neighbour.
const PAIRS: usize = 64;

/// Binds an even port and the next one of this address: RTP and RTCP (RFC 3550 §11). Where no two neighbours are free, one
/// socket alone.
///
/// # Errors
/// The address cannot be bound at all.
pub async fn bind_pair(ip: IpAddr) -> io::Result<Vec<BoundSocket>> {
    for _ in 0..PAIRS {
        let first = UdpSocket::bind(SocketAddr::new(ip, 0)).await?;
        let port = first.local_addr()?.port();
        let Ok(second) = UdpSocket::bind(SocketAddr::new(ip, port ^ 1)).await else { continue };
        let (rtp, rtcp) = if port.is_multiple_of(2) { (first, second) } else { (second, first) };
        return Ok(vec![bound(rtp).await?, bound(rtcp).await?]);
    }
    Ok(vec![bound(UdpSocket::bind(SocketAddr::new(ip, 0)).await?).await?])
}

/// The address from which packets leave for that one. Nothing is sent.
///
/// # Errors
/// There is no route.
pub async fn towards(ip: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // RFC 863: any port does, as connecting a UDP socket sends nothing.
    socket.connect(SocketAddr::new(ip, 9)).await?;
    Ok(socket.local_addr()?.ip())
}

async fn bound(socket: UdpSocket) -> io::Result<BoundSocket> {
    // A smaller buffer works too.
    let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    // Until the runtime has seen it writable once, `try_send_to` would drop what is sent.
    socket.writable().await?;
    let addr = socket.local_addr()?;
    Ok(BoundSocket { socket: Arc::new(socket), addr })
}

/// Sends what the core wants sent, from the socket that it names.
///
/// # Errors
/// `NotFound` if no socket has that local address; `WouldBlock` if its send queue is full; else what the system says (no route, interface gone).
pub fn send_to(sockets: &[BoundSocket], local: SocketAddr, to: SocketAddr, contents: &[u8]) -> io::Result<()> {
    let bound = sockets.iter().find(|it| it.addr == local).ok_or(io::ErrorKind::NotFound)?;
    bound.socket.try_send_to(contents, to).map(drop)
}

/// Reads datagrams into one buffer and hands each to `deliver(source, bytes)` until that says `Break` or the socket is
/// beyond use.
///
/// # Errors
/// The last error of a socket that gives nothing else.
pub async fn receive(
    socket: &UdpSocket,
    mut deliver: impl FnMut(SocketAddr, &mut [u8]) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut errors = 0;
    loop {
        socket.readable().await?;
        for _ in 0..BURST {
            match socket.try_recv_from(&mut buffer) {
                // A full buffer means a cut datagram: nothing in it can be authentic.
                Ok((length, _)) if length >= DATAGRAM_BYTES => errors = 0,
                Ok((length, source)) => {
                    errors = 0;
                    let datagram = buffer.get_mut(..length).unwrap_or_default();
                    if deliver(source, datagram).is_break() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // ICMP errors for what we sent: the peer's affair, seen by ICE as silence.
                Err(error) if is_icmp(error.kind()) => {}
                Err(error) => {
                    errors += 1;
                    if errors >= MAX_ERRORS {
                        return Err(error);
                    }
                    tokio::time::sleep(ERROR_PAUSE).await;
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

fn is_icmp(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(kind, ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn loopback() -> BindPolicy {
        BindPolicy { lab: true, only: vec!["127.0.0.1".parse().unwrap()], ..BindPolicy::default() }
    }

    #[tokio::test]
    async fn loopback_is_bound_only_in_the_laboratory() {
        let bound = bind_sockets(&BindPolicy::default()).await.unwrap();
        assert!(bound.iter().all(|it| !it.addr.ip().is_loopback() && it.addr.port() != 0));
        let bound = bind_sockets(&loopback()).await.unwrap();
        assert_eq!(bound.len(), 1);
        assert!(bound[0].addr.ip().is_loopback());
        let outside_lab = BindPolicy { lab: false, ..loopback() };
        assert!(bind_sockets(&outside_lab).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_receive_buffer_is_no_smaller_than_the_systems_own() {
        let bound = bind_sockets(&loopback()).await.unwrap();
        let plain = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let size = |socket: &UdpSocket| SockRef::from(socket).recv_buffer_size().unwrap();
        println!("{} bytes, {} by default", size(&bound[0].socket), size(&plain));
        assert!(size(&bound[0].socket) >= size(&plain));
    }

    #[tokio::test]
    async fn a_family_that_is_switched_off_is_not_bound() {
        let v4 = BindPolicy { lab: true, ipv6: false, ..BindPolicy::default() };
        assert!(bind_sockets(&v4).await.unwrap().iter().all(|it| it.addr.is_ipv4()));
        let v6 = BindPolicy { lab: true, ipv4: false, ..BindPolicy::default() };
        assert!(bind_sockets(&v6).await.unwrap().iter().all(|it| it.addr.is_ipv6()));
    }

    #[tokio::test]
    async fn datagrams_of_every_size_arrive_and_cut_ones_are_dropped() {
        let bound = bind_sockets(&loopback()).await.unwrap();
        let sender = bind_sockets(&loopback()).await.unwrap();
        for length in [0, 1, 1500, 4000, DATAGRAM_BYTES - 1, DATAGRAM_BYTES, 20_000, 3] {
            let contents = vec![7; length];
            send_to(&sender, sender[0].addr, bound[0].addr, &contents).unwrap();
        }
        let mut lengths = Vec::new();
        let reading = receive(&bound[0].socket, |source, bytes| {
            assert_eq!(source, sender[0].addr);
            lengths.push(bytes.len());
            if bytes.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        tokio::time::timeout(Duration::from_secs(5), reading).await.expect("datagrams within 5 s").unwrap();
        assert_eq!(lengths, [0, 1, 1500, 4000, DATAGRAM_BYTES - 1, 3]);
    }

    #[tokio::test]
    async fn rtp_has_an_even_port_and_reports_the_next_one() {
        let mut held = Vec::new();
        for _ in 0..20 {
            let pair = bind_pair("127.0.0.1".parse().unwrap()).await.unwrap();
            let [rtp, rtcp] = &pair[..] else { panic!("no pair") };
            assert!(rtp.addr.port().is_multiple_of(2));
            assert_eq!(rtcp.addr.port(), rtp.addr.port() + 1);
            held.push(pair);
        }
        assert!(bind_pair("203.0.113.1".parse().unwrap()).await.is_err());
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(towards(here).await.unwrap(), here);
    }

    #[tokio::test]
    async fn sending_from_an_address_that_is_not_bound_is_an_error() {
        let bound = bind_sockets(&loopback()).await.unwrap();
        let other = "127.0.0.1:1".parse().unwrap();
        assert_eq!(send_to(&bound, other, other, b"x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

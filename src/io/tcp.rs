//! The TCP carrier of signalling: connection racing, TLS, reading and writing. Read RFC 8305 and RFC 6120 §3.2, §5.

use super::dns::{Dns, Target};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// RFC 8305 §5: the next address is tried while the one before has not answered for so long.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The next target of the domain is tried while the one before has not answered for so long: look-up of its name and all its
/// addresses. Longer than a slow round trip, so that the domain's own order holds (RFC 2782).
const TARGET_DELAY: Duration = Duration::from_secs(1);
/// One address that does not answer is given up after this.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A TLS handshake that takes longer is dead.
const TLS_LIMIT: Duration = Duration::from_secs(15);
/// RFC 9266 §2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Why no carrier came up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address was found for the name.
    #[error("no connection to {host} port {port}: the name is unknown, it has no address")]
    UnknownHost {
        /// Name that was asked for.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// The domain says that it has no such service (a target of `.`, RFC 2782).
    #[error("{0} says that it has no XMPP service for clients")]
    NoService(String),
    /// Every address refused or stayed silent; the last cause.
    #[error("no connection to {host} port {port}: {}", cause(.why))]
    Unreachable {
        /// Name that was asked for.
        host: String,
        /// TCP port.
        port: u16,
        /// Last cause.
        why: std::io::Error,
    },
    /// The certificate is not trusted, or another one than the pinned one.
    #[error("the certificate of {host} is refused: {why}")]
    Certificate {
        /// Name that was asked for.
        host: String,
        /// The verifier's word.
        why: String,
    },
    /// TLS failed otherwise.
    #[error("TLS with {host} failed: {why}")]
    Tls {
        /// Name that was asked for.
        host: String,
        /// The library's word.
        why: String,
    },
}

/// The cause in words that a person knows.
fn cause(why: &std::io::Error) -> String {
    let kind = why.kind();
    if kind == std::io::ErrorKind::ConnectionRefused {
        "the connection was refused, nobody listens there".to_owned()
    } else if kind == std::io::ErrorKind::TimedOut {
        format!("no answer within {} s", CONNECT_LIMIT.as_secs())
    } else {
        why.to_string()
    }
}

/// What TLS knows about itself once it is up.
#[derive(Debug, Clone, Default)]
pub struct TlsFacts {
    /// 32 bytes of RFC 9266, only with TLS 1.3.
    pub exporter: Option<Vec<u8>>,
    /// SHA-256 of the peer's certificate.
    pub peer_sha256: Option<[u8; 32]>,
}

/// A byte carrier with or without TLS.
#[derive(Debug)]
pub enum Carrier {
    /// Before STARTTLS, or on loopback by explicit wish.
    Plain(TcpStream),
    /// We connected.
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// We listened.
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

impl Carrier {
    /// Address of the other end.
    ///
    /// # Errors
    /// The socket's.
    pub fn peer_addr(&self) -> std::io::Result<SocketAddr> {
        match self {
            Carrier::Plain(tcp) => tcp.peer_addr(),
            Carrier::TlsClient(tls) => tls.get_ref().0.peer_addr(),
            Carrier::TlsServer(tls) => tls.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Carrier::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Carrier::TlsClient(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
            Carrier::TlsServer(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Carrier::Plain(s) => Pin::new(s).poll_write(cx, data),
            Carrier::TlsClient(s) => Pin::new(s.as_mut()).poll_write(cx, data),
            Carrier::TlsServer(s) => Pin::new(s.as_mut()).poll_write(cx, data),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Carrier::Plain(s) => Pin::new(s).poll_flush(cx),
            Carrier::TlsClient(s) => Pin::new(s.as_mut()).poll_flush(cx),
            Carrier::TlsServer(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Carrier::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Carrier::TlsClient(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
            Carrier::TlsServer(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Races TCP connections to all targets in their order and gives the first that stands, with its target.
///
/// # Errors
/// [`ConnectError::UnknownHost`], [`ConnectError::Unreachable`] of the target that was tried first.
pub async fn connect_any(dns: &Dns, targets: &[Target]) -> Result<(TcpStream, Target), ConnectError> {
    let mut attempts = JoinSet::new();
    let mut waiting = targets.iter().enumerate();
    let mut worst: Option<(usize, ConnectError)> = None;
    loop {
        let more = match waiting.next() {
            Some((rank, target)) => {
                let (dns, target) = (dns.clone(), target.clone());
                attempts.spawn(async move {
                    let outcome = connect_one(&dns, &target).await;
                    (rank, outcome.map(|stream| (stream, target)))
                });
                true
            }
            None => false,
        };
        // While there are more targets, wait only for the stagger; afterwards for whoever comes.
        let outcome = if more {
            match tokio::time::timeout(TARGET_DELAY, attempts.join_next()).await {
                Ok(outcome) => outcome,
                Err(_stagger) => continue,
            }
        } else {
            attempts.join_next().await
        };
        match outcome {
            Some(Ok((_, Ok(done)))) => return Ok(done),
            Some(Ok((rank, Err(why)))) => {
                if worst.as_ref().is_none_or(|(before, _)| rank < *before) {
                    worst = Some((rank, why));
                }
            }
            Some(Err(_cancelled)) => {}
            None => {
                let none = || ConnectError::UnknownHost { host: String::new(), port: 0 };
                return Err(worst.map_or_else(none, |(_, why)| why));
            }
        }
    }
}

async fn connect_one(dns: &Dns, target: &Target) -> Result<TcpStream, ConnectError> {
    let (host, port) = (target.host.clone(), target.port);
    let addresses = dns.addresses(&host, port).await;
    if addresses.is_empty() {
        return Err(ConnectError::UnknownHost { host, port });
    }
    race(addresses).await.map_err(|why| ConnectError::Unreachable { host, port, why })
}

async fn race(addresses: Vec<SocketAddr>) -> std::io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut waiting = addresses.into_iter();
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    loop {
        let more = match waiting.next() {
            Some(address) => {
                attempts.spawn(async move {
                    let stream = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(address))
                        .await
                        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
                    stream.set_nodelay(true)?;
                    Ok::<_, std::io::Error>(stream)
                });
                true
            }
            None => false,
        };
        let outcome = if more {
            match tokio::time::timeout(ATTEMPT_DELAY, attempts.join_next()).await {
                Ok(outcome) => outcome,
                Err(_stagger) => continue,
            }
        } else {
            attempts.join_next().await
        };
        match outcome {
            Some(Ok(Ok(done))) => return Ok(done),
            Some(Ok(Err(why))) => last = why,
            Some(Err(_cancelled)) => {}
            None => return Err(last),
        }
    }
}

fn facts(connection: &rustls::CommonState, exporter: Option<[u8; 32]>) -> TlsFacts {
    TlsFacts {
        exporter: exporter.map(|e| e.to_vec()),
        peer_sha256: connection.peer_certificates().and_then(|c| c.first()).map(|c| super::tls::certificate_sha256(c)),
    }
}

/// Starts TLS as the client, for `domain` (the XMPP domain, not the SRV target: RFC 6120 §13.7.2).
///
/// # Errors
/// [`ConnectError::Certificate`], [`ConnectError::Tls`]
pub async fn start_tls(
    stream: TcpStream,
    domain: &str,
    config: &Arc<rustls::ClientConfig>,
) -> Result<(Carrier, TlsFacts), ConnectError> {
    let host = domain.to_owned();
    let name = rustls_pki_types::ServerName::try_from(domain.to_owned())
        .map_err(|e| ConnectError::Tls { host: host.clone(), why: e.to_string() })?;
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    let tls = match tokio::time::timeout(TLS_LIMIT, handshake).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(why)) => return Err(tls_error(host, &why)),
        Err(_) => return Err(ConnectError::Tls { host, why: "no answer to the handshake".into() }),
    };
    let connection = tls.get_ref().1;
    // The exporter binds the channel safely only in TLS 1.3 (RFC 9266 §4.2: TLS 1.2 needs the extended master secret).
    let exporter = (connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3))
        .then(|| connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).ok())
        .flatten();
    let facts = facts(connection, exporter);
    Ok((Carrier::TlsClient(Box::new(tls)), facts))
}

/// Starts TLS as the listening side of a serverless stream.
///
/// # Errors
/// [`ConnectError::Certificate`], [`ConnectError::Tls`]
pub async fn accept_tls(
    stream: TcpStream,
    config: &Arc<rustls::ServerConfig>,
) -> Result<(Carrier, TlsFacts), ConnectError> {
    let host = stream.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    let tls = match tokio::time::timeout(TLS_LIMIT, TlsAcceptor::from(Arc::clone(config)).accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(why)) => return Err(tls_error(host, &why)),
        Err(_) => return Err(ConnectError::Tls { host, why: "no answer to the handshake".into() }),
    };
    let facts = facts(tls.get_ref().1, None);
    Ok((Carrier::TlsServer(Box::new(tls)), facts))
}

fn tls_error(host: String, why: &std::io::Error) -> ConnectError {
    match why.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            ConnectError::Certificate { host, why: format!("{reason:?}") }
        }
        Some(other) => ConnectError::Tls { host, why: other.to_string() },
        None => ConnectError::Tls { host, why: why.to_string() },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::io::tls::SelfSigned;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn target(port: u16) -> Target {
        Target { host: "127.0.0.1".into(), port, direct_tls: false }
    }

    #[tokio::test]
    async fn the_second_target_is_taken_when_the_first_refuses() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = live.local_addr().unwrap().port();
        let (_, chosen) = connect_any(&Dns::new(), &[target(dead), target(port)]).await.unwrap();
        assert_eq!(chosen.port, port);
    }

    #[tokio::test]
    async fn a_pinned_certificate_connects_and_another_is_refused() {
        let ours = SelfSigned::generate().unwrap();
        let theirs = SelfSigned::generate().unwrap();
        for (pin, fine) in [(theirs.sha256(), true), (ours.sha256(), false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = theirs.server(Some(ours.sha256())).unwrap();
            let other = tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok((mut carrier, facts)) = accept_tls(stream, &server).await {
                    carrier.write_all(b"x").await.unwrap();
                    facts.peer_sha256
                } else {
                    None
                }
            });
            let stream = TcpStream::connect(address).await.unwrap();
            let outcome = start_tls(stream, "peer.invalid", &ours.client(pin).unwrap()).await;
            if fine {
                let (mut carrier, facts) = outcome.unwrap();
                assert_eq!(facts.exporter.expect("TLS 1.3 exports").len(), 32);
                assert_eq!(carrier.read_u8().await.unwrap(), b'x');
                assert_eq!(other.await.unwrap(), Some(ours.sha256()));
            } else {
                assert!(matches!(outcome, Err(ConnectError::Certificate { .. })), "{outcome:?}");
            }
        }
    }
}

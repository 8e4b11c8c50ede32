//! The task that owns one signalling connection: it looks up, connects, starts TLS when told, reads and writes.
//! Read RFC 6120 §3 to §5 before touching this file.

use super::dns::{Dns, Target};
use super::listener::first_peer;
use super::tcp::{Carrier, ConnectError, TlsFacts, connect_any, start_tls};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Bytes read at once: a large stanza arrives in few wake-ups.
const READ_BYTES: usize = 16 * 1024;
/// Writes and reads that may wait between the task and the driver.
const QUEUE: usize = 256;

/// A peer that takes nothing for so long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// ALPN of direct TLS (XEP-0368 §5).
const ALPN: &[u8] = b"xmpp-client";

/// Where the signalling connection comes from.
#[derive(Debug, Clone)]
pub enum Signalling {
    /// Connect to the client service of `domain`, or to `server` when given.
    Server {
        /// XMPP domain: name for SRV and for the certificate.
        domain: String,
        /// Skips the look-up.
        server: Option<Target>,
        /// Trust; used from the first byte where the service wants that.
        tls: Arc<rustls::ClientConfig>,
    },
    /// Connect a serverless stream; TLS from the first byte.
    Connect {
        /// Where the other side listens.
        target: Target,
        /// Holds the pin.
        tls: Arc<rustls::ClientConfig>,
    },
    /// Await a serverless stream; TLS from the first byte.
    Listen {
        /// Bound already, so that the caller knows the port.
        listener: Arc<TcpListener>,
        /// Holds our certificate and perhaps a pin.
        tls: Arc<rustls::ServerConfig>,
        /// `tls` accepts one certificate only.
        pinned: bool,
    },
}

/// What the driver tells the task.
#[derive(Debug)]
pub enum CarrierCommand {
    /// Write these bytes.
    Write(Vec<u8>),
    /// Negotiate TLS now (RFC 6120 §5.4.3.3).
    StartTls,
    /// Flush and close.
    Close,
}

/// What the task tells the driver.
#[derive(Debug)]
pub enum CarrierEvent {
    /// The connection stands.
    Connected {
        /// Set with direct TLS.
        tls: Option<TlsFacts>,
        /// The other end is on this machine.
        loopback: bool,
    },
    /// TLS is up after [`CarrierCommand::StartTls`].
    TlsStarted(TlsFacts),
    /// Bytes from the peer.
    Bytes(Vec<u8>),
    /// The peer closed, or the connection broke after it stood.
    Closed(String),
    /// The connection never stood, or TLS failed.
    Failed(ConnectError),
}

/// Handle on the task; dropping it ends the connection.
#[derive(Debug)]
pub struct CarrierTask {
    /// To the task.
    pub commands: mpsc::Sender<CarrierCommand>,
    /// From the task.
    pub events: mpsc::Receiver<CarrierEvent>,
}

/// Starts the task.
#[must_use]
pub fn open(signalling: Signalling, dns: Dns, seed: u32) -> CarrierTask {
    let (command_in, commands) = mpsc::channel(QUEUE);
    let (events, event_out) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let domain = match &signalling {
            Signalling::Server { domain, .. } => domain.clone(),
            Signalling::Connect { target, .. } => target.host.clone(),
            Signalling::Listen { .. } => String::new(),
        };
        let starttls = match &signalling {
            Signalling::Server { tls, .. } => Some(Arc::clone(tls)),
            Signalling::Connect { .. } | Signalling::Listen { .. } => None,
        };
        let connected = tokio::select! {
            connected = connect(signalling, &dns, seed) => connected,
            // Nobody waits any more.
            () = events.closed() => return,
        };
        match connected {
            Ok((carrier, facts)) => {
                let loopback = carrier.peer_addr().is_ok_and(|a| a.ip().is_loopback());
                if events.send(CarrierEvent::Connected { tls: facts, loopback }).await.is_ok() {
                    run(carrier, &domain, starttls, commands, &events).await;
                }
            }
            // The driver may be gone; then nobody waits for the answer.
            Err(why) => drop(events.send(CarrierEvent::Failed(why)).await),
        }
    });
    CarrierTask { commands: command_in, events: event_out }
}

async fn connect(signalling: Signalling, dns: &Dns, seed: u32) -> Result<(Carrier, Option<TlsFacts>), ConnectError> {
    match signalling {
        Signalling::Server { domain, server, tls } => {
            let mut targets = match server {
                Some(target) => vec![target],
                None => {
                    let mut state = seed;
                    let mut roll = || {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        state >> 8
                    };
                    dns.client_targets(&domain, &mut roll).await
                }
            };
            if targets.is_empty() {
                return Err(ConnectError::NoService(domain));
            }
            loop {
                let (stream, target) = connect_any(dns, &targets).await?;
                if !target.direct_tls {
                    return Ok((Carrier::Plain(stream), None));
                }
                match start_tls(stream, &domain, &with_alpn(&tls)).await {
                    Ok((carrier, facts)) => return Ok((carrier, Some(facts))),
                    // Something else than XMPP listens there; the domain may have named another place.
                    Err(ConnectError::Tls { host, why }) => {
                        targets.retain(|other| *other != target);
                        if targets.is_empty() {
                            return Err(ConnectError::Tls { host, why });
                        }
                    }
                    Err(why) => return Err(why),
                }
            }
        }
        Signalling::Connect { target, tls } => {
            let (stream, target) = connect_any(dns, std::slice::from_ref(&target)).await?;
            let (carrier, facts) = start_tls(stream, &target.host, &tls).await?;
            Ok((carrier, Some(facts)))
        }
        Signalling::Listen { listener, tls, .. } => {
            let (carrier, facts) = first_peer(&listener, &tls).await;
            Ok((carrier, Some(facts)))
        }
    }
}

fn with_alpn(config: &Arc<rustls::ClientConfig>) -> Arc<rustls::ClientConfig> {
    let mut config = rustls::ClientConfig::clone(config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

async fn run(
    mut carrier: Carrier,
    domain: &str,
    starttls: Option<Arc<rustls::ClientConfig>>,
    mut commands: mpsc::Receiver<CarrierCommand>,
    events: &mpsc::Sender<CarrierEvent>,
) {
    let mut buffer = vec![0; READ_BYTES];
    let why = loop {
        let command = tokio::select! {
            read = carrier.read(&mut buffer) => {
                let bytes = match read {
                    Ok(0) => break "the other side closed the connection".to_owned(),
                    Ok(n) => buffer.get(..n).unwrap_or_default().to_vec(),
                    Err(why) => break why.to_string(),
                };
                if events.send(CarrierEvent::Bytes(bytes)).await.is_err() {
                    return;
                }
                continue;
            }
            command = commands.recv() => command,
        };
        match command {
            Some(CarrierCommand::Write(bytes)) => {
                let written = async {
                    carrier.write_all(&bytes).await?;
                    carrier.flush().await
                };
                match tokio::time::timeout(WRITE_LIMIT, written).await {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => break why.to_string(),
                    Err(_) => break "the other side takes nothing any more".to_owned(),
                }
            }
            Some(CarrierCommand::StartTls) => {
                let (Carrier::Plain(stream), Some(config)) = (carrier, &starttls) else { return };
                match start_tls(stream, domain, config).await {
                    Ok((secured, facts)) => {
                        carrier = secured;
                        if events.send(CarrierEvent::TlsStarted(facts)).await.is_err() {
                            return;
                        }
                    }
                    Err(why) => return drop(events.send(CarrierEvent::Failed(why)).await),
                }
            }
            Some(CarrierCommand::Close) | None => {
                // The other side may be gone already; the close is a courtesy.
                drop(tokio::time::timeout(WRITE_LIMIT, carrier.shutdown()).await);
                return;
            }
        }
    };
    drop(events.send(CarrierEvent::Closed(why)).await);
}

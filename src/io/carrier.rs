//! The task that owns one signalling connection: it looks up, connects, starts TLS when told, reads and writes.
//! Read RFC 6120 §3 to §5 before touching this file.

use super::dns::{Dns, Target};
use super::tcp::{Carrier, ConnectError, TlsFacts, accept_tls, connect_any, start_tls};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Bytes read at once: a large stanza arrives in few wake-ups.
const READ_BYTES: usize = 16 * 1024;
/// Writes and reads that may wait between the task and the driver.
const QUEUE: usize = 256;

/// Where the connection comes from.
#[derive(Debug)]
pub enum Route {
    /// Connect to the client service of `domain`, or to `server` when given.
    Client {
        /// XMPP domain: name for SRV and for the certificate.
        domain: String,
        /// Skips the look-up.
        server: Option<Target>,
        /// TLS from the first byte when `server` is given.
        config: Arc<rustls::ClientConfig>,
    },
    /// Connect a serverless stream; TLS from the first byte.
    Serverless {
        /// Where the other side listens.
        target: Target,
        /// Holds the pin.
        config: Arc<rustls::ClientConfig>,
    },
    /// A serverless stream that was accepted; TLS from the first byte.
    Accepted {
        /// As accepted.
        stream: TcpStream,
        /// Holds our certificate and perhaps a pin.
        config: Arc<rustls::ServerConfig>,
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
pub fn open(route: Route, seed: u32) -> CarrierTask {
    let (command_in, commands) = mpsc::channel(QUEUE);
    let (events, event_out) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let domain = match &route {
            Route::Client { domain, .. } => domain.clone(),
            Route::Serverless { target, .. } => target.host.clone(),
            Route::Accepted { .. } => String::new(),
        };
        let starttls = match &route {
            Route::Client { config, .. } => Some(Arc::clone(config)),
            Route::Serverless { .. } | Route::Accepted { .. } => None,
        };
        match connect(route, seed).await {
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

async fn connect(route: Route, seed: u32) -> Result<(Carrier, Option<TlsFacts>), ConnectError> {
    match route {
        Route::Client { domain, server, config } => {
            let dns = Dns::new();
            let targets = match server {
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
            let (stream, target) = connect_any(&dns, &targets).await?;
            if target.direct_tls {
                let (carrier, facts) = start_tls(stream, &domain, &config).await?;
                Ok((carrier, Some(facts)))
            } else {
                Ok((Carrier::Plain(stream), None))
            }
        }
        Route::Serverless { target, config } => {
            let (stream, target) = connect_any(&Dns::new(), std::slice::from_ref(&target)).await?;
            let (carrier, facts) = start_tls(stream, &target.host, &config).await?;
            Ok((carrier, Some(facts)))
        }
        Route::Accepted { stream, config } => {
            let (carrier, facts) = accept_tls(stream, &config).await?;
            Ok((carrier, Some(facts)))
        }
    }
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
                let written = match carrier.write_all(&bytes).await {
                    Ok(()) => carrier.flush().await,
                    Err(why) => Err(why),
                };
                if let Err(why) = written {
                    break why.to_string();
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
                drop(carrier.shutdown().await);
                return;
            }
        }
    };
    drop(events.send(CarrierEvent::Closed(why)).await);
}

//! The listening side of a serverless stream: among whoever knocks, the first that completes TLS is the peer. Read
//! XEP-0174 §5 before touching this file.
//!
//! Whoever connects is unauthenticated until TLS is complete. So nobody waits for another: handshakes run side by side, at
//! most [`PENDING`] of them, and the oldest makes room for the newest (threat: slow and unauthenticated connections).

use super::tcp::{Carrier, TlsFacts, accept_tls};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// Handshakes at once. One costs about 20 KiB; an honest one takes milliseconds.
const PENDING: usize = 64;
/// Pause after the system refused to accept (too many files): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Awaits the first peer whose handshake, and pin if there is one, succeeds. All others are dropped then.
pub(super) async fn first_peer(listener: &TcpListener, config: &Arc<rustls::ServerConfig>) -> (Carrier, TlsFacts) {
    let mut handshakes = JoinSet::new();
    let mut order: VecDeque<AbortHandle> = VecDeque::with_capacity(PENDING);
    loop {
        tokio::select! {
            biased;
            Some(done) = handshakes.join_next() => {
                order.retain(|handshake| !handshake.is_finished());
                match done {
                    Ok(Ok(peer)) => return peer,
                    Ok(Err(why)) => tracing::info!(%why, "a connection is dropped"),
                    // The oldest, which made room.
                    Err(_aborted) => {}
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if order.len() >= PENDING && let Some(oldest) = order.pop_front() {
                        oldest.abort();
                    }
                    let config = Arc::clone(config);
                    order.push_back(handshakes.spawn(async move {
                        // Nagle's wait helps nobody here; a socket without the option still works.
                        let _ = stream.set_nodelay(true);
                        accept_tls(stream, &config).await
                    }));
                }
                Err(why) => {
                    tracing::warn!(%why, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

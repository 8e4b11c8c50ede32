//! SIP over WebSocket. Read RFC 7118 §4 and RFC 6455 before touching this file.

use super::stream::{End, Queue};
use super::{News, SipNetwork, SipReport};
use crate::config::SipSocketLimits;
use crate::io::tcp::Carrier;
use crate::sip::exchange::{FlowId, Transport};
use crate::sip::flow::FlowFault;
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config, client_async_with_config};

/// RFC 7118 §4.1
const SUBPROTOCOL: &str = "sip";
/// The handshake of a server that takes longer is not to come.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A peer that takes nothing for so long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(32);
/// What the close handshake may take (RFC 6455 §7.1.1).
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// A WebSocket whose handshake is over.
pub(super) type Socket = WebSocketStream<Carrier>;

/// The `Host` of a request (RFC 6455 §4.1): with the port if it is not the scheme's own.
pub(super) fn host(transport: Transport, name: &str, remote: SocketAddr) -> String {
    let host = match (name.is_empty(), remote) {
        (false, _) => match name.parse::<std::net::Ipv6Addr>() {
            Ok(six) => format!("[{six}]"),
            Err(_) => name.to_owned(),
        },
        (true, SocketAddr::V4(four)) => four.ip().to_string(),
        (true, SocketAddr::V6(six)) => format!("[{}]", six.ip()),
    };
    if remote.port() == transport.default_port() { host } else { format!("{host}:{}", remote.port()) }
}

/// The client's handshake.
pub(super) async fn connect(
    carrier: Carrier,
    transport: Transport,
    host: &str,
    network: &SipNetwork,
) -> Result<Socket, FlowFault> {
    let unreachable = |why: &Error| FlowFault::Unreachable(format!("no WebSocket: {why}"));
    let scheme = if transport.is_secure() { "wss" } else { "ws" };
    let uri = format!("{scheme}://{host}{}", network.websocket_path);
    let mut request = uri.into_client_request().map_err(|why| unreachable(&why))?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let handshake = client_async_with_config(request, carrier, Some(config(&network.limits)));
    let (socket, response) = match tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await {
        Ok(Ok(done)) => done,
        Ok(Err(why)) => return Err(unreachable(&why)),
        Err(_) => return Err(FlowFault::Unreachable("no answer to the WebSocket handshake".into())),
    };
    // RFC 7118 §4.1: a server that does not choose the subprotocol does not speak SIP.
    let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
    if chosen.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(SUBPROTOCOL.as_bytes())) {
        Ok(socket)
    } else {
        Err(FlowFault::Unreachable("the WebSocket server does not speak SIP".into()))
    }
}

/// The server's handshake. Its time is the caller's to limit.
#[allow(clippy::result_large_err)]
pub(super) async fn accept(carrier: Carrier, limits: &SipSocketLimits) -> Option<Socket> {
    let choose = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
        if offered.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(SUBPROTOCOL)) {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
            return Ok(response);
        }
        let mut refused = ErrorResponse::new(Some("the WebSocket subprotocol is sip".to_owned()));
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        Err(refused)
    };
    accept_hdr_async_with_config(carrier, choose, Some(config(limits))).await.ok()
}

fn config(limits: &SipSocketLimits) -> WebSocketConfig {
    let most = Some(limits.websocket_message_bytes);
    let mut config = WebSocketConfig::default();
    config.max_message_size = most;
    config.max_frame_size = most;
    // What is not written is counted by the queue.
    config.max_write_buffer_size = limits.waiting_bytes.max(config.write_buffer_size + 1);
    config
}

/// Reads and writes at the same time until one of both ends.
pub(super) async fn carry(
    socket: Socket,
    (flow, source): (FlowId, SocketAddr),
    mut queue: Queue,
    news: &mpsc::Sender<News>,
) -> End {
    let (mut write, mut read) = socket.split();
    let reading = async {
        loop {
            let bytes = match read.next().await {
                Some(Ok(Message::Text(text))) => text.as_str().as_bytes().to_vec(),
                Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                // Pings are answered below us.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(_))) | None => {
                    return End::Theirs("the other side closed the connection".into());
                }
                Some(Err(why)) => return End::Theirs(why.to_string()),
            };
            if news.send(News::Report(SipReport::Bytes { flow, source, bytes })).await.is_err() {
                return End::Ours;
            }
        }
    };
    let writing = async {
        while let Some(bytes) = queue.next().await {
            // RFC 7118 §4.2: text or binary; a body that is no UTF-8 cannot be text.
            let message = match String::from_utf8(bytes) {
                Ok(text) => Message::Text(text.into()),
                Err(other) => Message::Binary(Bytes::from(other.into_bytes())),
            };
            match tokio::time::timeout(WRITE_LIMIT, write.send(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return End::Theirs(why.to_string()),
                Err(_) => return End::Theirs("the other side does not take any more".into()),
            }
        }
        // The other side may be gone already; the close is a courtesy.
        drop(tokio::time::timeout(CLOSE_LIMIT, write.close()).await);
        End::Ours
    };
    tokio::select! {
        end = reading => end,
        end = writing => end,
    }
}

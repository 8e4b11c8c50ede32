//! Connections and UDP sockets that SIP travels on: opening and reuse, stream framing, keep-alives, bounds.
//! Read RFC 3261 §18, RFC 5626 §4.4 and §5.4, RFC 5923, RFC 7118 and RFC 3581 before touching this file.

mod keep_alive;
mod table;

use super::exchange::{FlowId, Origin, Transport};
use super::locate::{Query, Records};
use crate::wire::sip::{Malformed, Message};
use std::net::SocketAddr;
pub use table::Flows;

/// What SIP wants of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SipOutput {
    /// Connect to `remote`; for UDP bind a socket on the local address that routes to `remote`.
    Open {
        /// Chosen by the core; its top bit is clear.
        flow: FlowId,
        /// How.
        transport: Transport,
        /// Where to. The port means nothing for UDP: other ports of that address may follow on the same socket.
        remote: SocketAddr,
        /// TLS server name (RFC 5922 §4: the domain that was asked for, never what it resolved to) and host of the WebSocket
        /// handshake. Empty for UDP.
        name: String,
    },
    /// Listen; for UDP bind a socket that also sends.
    Listen {
        /// Of the listener.
        flow: FlowId,
        /// How.
        transport: Transport,
        /// Where; port 0 is any.
        local: SocketAddr,
    },
    /// Write to a flow that is open.
    Send {
        /// Which.
        flow: FlowId,
        /// Destination of a datagram.
        remote: SocketAddr,
        /// One whole message or keep-alive; one WebSocket message.
        bytes: Vec<u8>,
    },
    /// Close after what was sent is written. A listener closes without its connections.
    Close(FlowId),
    /// Ask DNS.
    LookUp(Query),
}

/// What SIP hears of the shell.
#[derive(Debug)]
pub enum SipInput<'a> {
    /// [`SipOutput::Open`] or [`SipOutput::Listen`] is done.
    Opened {
        /// Which.
        flow: FlowId,
        /// Its own address; that of a listener is unspecified where every address is listened on.
        local: SocketAddr,
    },
    /// It cannot be done.
    Failed {
        /// Which.
        flow: FlowId,
        /// Why.
        why: FlowFault,
    },
    /// A peer connected; TLS and WebSocket handshakes are over.
    Accepted {
        /// Where.
        listener: FlowId,
        /// Chosen by the shell; its top bit is set.
        flow: FlowId,
        /// Our address.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
        /// SIP domains that the peer's certificate proves (RFC 5922 §7.1); empty without a client certificate.
        names: Vec<String>,
    },
    /// Bytes of a stream, one datagram, or one WebSocket message.
    Bytes {
        /// Where.
        flow: FlowId,
        /// Whose.
        source: SocketAddr,
        /// They.
        bytes: &'a [u8],
    },
    /// A flow that was open is not any more.
    Closed {
        /// Which.
        flow: FlowId,
        /// For people.
        why: String,
    },
    /// Answer to [`SipOutput::LookUp`].
    Found {
        /// As asked.
        query: Query,
        /// What DNS says.
        answer: Records,
    },
}

/// Why a flow is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowFault {
    /// Refused, no route, no answer: as if the transport failed (RFC 3261 §8.1.3.1).
    #[error("{0}")]
    Unreachable(String),
    /// The certificate is not good for the name (RFC 5922 §7.3).
    #[error("{0}")]
    Certificate(String),
    /// No answer to a keep-alive (RFC 5626 §4.4).
    #[error("no answer to a keep-alive")]
    Silent,
    /// The peer sends what is no SIP, or too slowly.
    #[error("{0}")]
    Misbehaved(&'static str),
    /// The peer closed, or the connection broke.
    #[error("{0}")]
    Closed(String),
    /// Nothing travelled for long, or room was needed.
    #[error("unused")]
    Idle,
    /// Our own bound.
    #[error("too many connections")]
    Full,
}

/// What becomes of flows and comes in on them.
#[derive(Debug)]
pub enum FlowEvent {
    /// A flow of ours, or a listener, is there.
    Open {
        /// Which.
        flow: FlowId,
        /// Its own address: for Via and Contact.
        local: SocketAddr,
    },
    /// A message.
    Message {
        /// Where it came from.
        origin: Origin,
        /// It.
        message: Box<Message>,
    },
    /// What was to be one, and is not.
    Malformed {
        /// Where it came from.
        origin: Origin,
        /// With the 400 that it may be answered by.
        why: Box<Malformed>,
    },
    /// A flow is gone. What waited on it is lost.
    Down {
        /// Which.
        flow: FlowId,
        /// Why.
        why: FlowFault,
    },
    /// A NAT gave us another address on a datagram flow (RFC 5626 §4.4.2): what is registered there is to be registered
    /// anew. The flow itself goes on.
    Moved {
        /// Which.
        flow: FlowId,
        /// Who saw it.
        remote: SocketAddr,
        /// How we look from there.
        public: SocketAddr,
    },
}

/// What is known of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowInfo {
    /// How messages travel on it.
    pub transport: Transport,
    /// Its own address; `None` until it is open.
    pub local: Option<SocketAddr>,
    /// The other end; `None` for listeners.
    pub remote: Option<SocketAddr>,
    /// We opened it.
    pub outgoing: bool,
}

/// How a flow is kept open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Not at all: it is closed when nothing travels for long.
    None,
    /// CRLF CRLF at the intervals of RFC 5626 §4.4; silence is a failure only from a peer that answered before, as many
    /// servers never do. Our streams start with this.
    Quiet,
    /// CRLF CRLF, and an answer within 10 s: where the server agreed to RFC 5626 or RFC 6223. Streams only.
    Pong,
    /// STUN: the same for UDP.
    Stun,
}

impl Transport {
    /// In `Via`: RFC 3261 §20.42, RFC 7118 §5.2.1.
    #[must_use]
    pub const fn via(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
        }
    }

    /// As the `transport` parameter of a URI (RFC 3261 §19.1.1, RFC 7118 §5.2.2: `ws` stands for both). TLS has none of its
    /// own: it is `sips:`, or `tls` as everybody writes it although RFC 3261 §26.2.2 deprecates it.
    #[must_use]
    pub const fn param(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Ws | Transport::Wss => "ws",
        }
    }

    /// RFC 3261 §19.1.2; RFC 7118 §5 has those of HTTP.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5060,
            Transport::Tls => 5061,
            Transport::Ws => 80,
            Transport::Wss => 443,
        }
    }

    /// Nothing is lost or reordered on it: no retransmission by transactions (RFC 3261 §17).
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        match self {
            Transport::Udp => false,
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => true,
        }
    }

    /// Inside TLS.
    #[must_use]
    pub const fn is_secure(self) -> bool {
        match self {
            Transport::Udp | Transport::Tcp | Transport::Ws => false,
            Transport::Tls | Transport::Wss => true,
        }
    }
}

//! Where datagrams go. Read RFC 8445 §2 before touching this file.

use std::net::SocketAddr;

/// One datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Socket to send from: an address that the shell bound.
    pub local: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// UDP payload.
    pub contents: Vec<u8>,
}

/// Both ends of a path as ICE names them: `local` may be a relayed address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// Our end: host address or relayed address.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
}

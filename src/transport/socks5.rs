//! The handshake of a SOCKS5 bytestream, both sides: no authentication, CONNECT to a name that is no name but the hash of
//! the stream. Read XEP-0065 §5.3.2, §6.3.2 and RFC 1928 §3 to §6 before touching this file.
//!
//! ```text
//! Server: AwaitingGreeting ─ 05 n methods ─▶ AwaitingRequest ─ 05 01 00 03 28 hash port ─▶ Done(Ok)
//!              │ no method 00: 05 FF                │ other hash, command, address type: reply ≠ 00
//!              ▼                                    ▼
//!         Done(Err)                            Done(Err)
//!
//! Client: 05 01 00 ─▶ AwaitingMethod ─ 05 00 ─▶ AwaitingReply ─ 05 00 00 type address port ─▶ Done(Ok)
//! ```
//!
//! The bytes of the file follow the handshake at once. So each side says with `wants()` how many bytes it can take
//! without touching those, and `handle_input` says how many it has taken.

use sha1::Digest as _;
use std::fmt::Write as _;

/// RFC 1928 §3.
const VERSION: u8 = 5;
/// RFC 1928 §3: no authentication required.
const NO_AUTHENTICATION: u8 = 0;
/// RFC 1928 §3: no acceptable methods.
const NO_METHOD: u8 = 0xFF;
/// RFC 1928 §4.
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const DOMAIN: u8 = 3;
const IPV6: u8 = 4;
/// Version, command or reply, reserved, address type, first byte of the address: what tells the length of the rest.
const HEAD_BYTES: usize = 5;

/// DST.ADDR of the streams to the candidates that `offerer` offers: lower-case hex of SHA-1(sid + its full JID + the other
/// one's full JID), XEP-0260 §2.2 (J260-02). With a proxy it is the offerer who activates.
#[must_use]
pub fn dst_addr(sid: &str, offerer: &str, other: &str) -> String {
    let digest = sha1::Sha1::new().chain_update(sid).chain_update(offerer).chain_update(other).finalize();
    let mut hex = String::with_capacity(40);
    for byte in digest {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// True for 40 hex digits.
#[must_use]
pub fn is_dst_addr(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Replies of RFC 1928 §6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reply(pub u8);

impl Reply {
    /// The stream is open.
    pub const SUCCEEDED: Self = Self(0);
    /// No stream of ours has this DST.ADDR.
    pub const NOT_ALLOWED: Self = Self(2);
    /// Only CONNECT is spoken; UDP ASSOCIATE (XEP-0065 §8) is not.
    pub const COMMAND_NOT_SUPPORTED: Self = Self(7);
    /// Only names are spoken.
    pub const ADDRESS_TYPE_NOT_SUPPORTED: Self = Self(8);
}

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFault {
    /// The other side speaks something else.
    #[error("not SOCKS version 5")]
    Version,
    /// No method in common: only "no authentication" is spoken.
    #[error("no authentication method in common")]
    Method,
    /// Not a CONNECT to a name.
    #[error("not a CONNECT to a name")]
    Request,
    /// A DST.ADDR that no stream of ours has.
    #[error("a wrong DST.ADDR")]
    WrongDstAddr,
    /// The server refused with this reply.
    #[error("refused with reply {}", .0.0)]
    Refused(Reply),
    /// An address type that RFC 1928 does not know.
    #[error("an unknown address type")]
    AddressType,
}

/// How a handshake stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// More bytes are needed.
    Going,
    /// What follows are the bytes of the stream with this DST.ADDR, in lower case.
    Open(String),
    /// It came to nothing. What is left to send still goes out before the connection is closed.
    Broken(HandshakeFault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaiting {
    /// The server's first message: version, count, methods.
    Greeting,
    /// The server's second: CONNECT.
    Request,
    /// The client's first answer: version, method.
    Method,
    /// The client's second.
    Reply,
}

/// One side of one handshake. It holds at most 262 bytes of the other side.
#[derive(Debug)]
struct Side {
    awaiting: Awaiting,
    /// The message under way, as far as it is here.
    input: Vec<u8>,
    output: Vec<u8>,
    state: Handshake,
}

impl Side {
    fn new(awaiting: Awaiting, output: Vec<u8>) -> Self {
        Self { awaiting, input: Vec::new(), output, state: Handshake::Going }
    }

    /// Bytes of the message under way, as far as its start tells.
    fn message_bytes(&self) -> usize {
        let at = |n: usize| self.input.get(n).copied();
        match self.awaiting {
            // A wrong version ends it before a count is believed.
            Awaiting::Greeting | Awaiting::Method => match (self.awaiting, at(1)) {
                (Awaiting::Greeting, Some(methods)) => 2 + usize::from(methods),
                _ => 2,
            },
            Awaiting::Request | Awaiting::Reply => match (at(3), at(4)) {
                (Some(IPV4), Some(_)) => 4 + 4 + 2,
                (Some(IPV6), Some(_)) => 4 + 16 + 2,
                (Some(DOMAIN), Some(length)) => HEAD_BYTES + usize::from(length) + 2,
                // Of another address type nothing after the head can be told.
                _ => HEAD_BYTES,
            },
        }
    }

    fn wants(&self) -> usize {
        match self.state {
            Handshake::Going => self.message_bytes().saturating_sub(self.input.len()),
            Handshake::Open(_) | Handshake::Broken(_) => 0,
        }
    }

    /// Feeds bytes; `complete` judges each whole message.
    fn take(&mut self, bytes: &[u8], mut complete: impl FnMut(&mut Self)) -> usize {
        let mut taken = 0;
        while self.state == Handshake::Going {
            let rest = bytes.get(taken..).unwrap_or_default();
            let part = rest.get(..self.wants().min(rest.len())).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            self.input.extend_from_slice(part);
            taken += part.len();
            // RFC 1928 §3: whoever speaks another protocol is not waited for.
            if self.input.first() != Some(&VERSION) {
                self.state = Handshake::Broken(HandshakeFault::Version);
            } else if self.wants() == 0 {
                complete(self);
                self.input.clear();
            }
        }
        taken
    }

    fn at(&self, n: usize) -> u8 {
        self.input.get(n).copied().unwrap_or_default()
    }
}

/// The side that listens: a streamhost. Read from the connection at most [`Self::wants`] bytes.
#[derive(Debug)]
pub struct Server {
    side: Side,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// A connection was accepted.
    #[must_use]
    pub fn new() -> Self {
        Self { side: Side::new(Awaiting::Greeting, Vec::new()) }
    }

    /// Bytes that belong to the handshake for certain; 0 when it is over.
    #[must_use]
    pub fn wants(&self) -> usize {
        self.side.wants()
    }

    /// Takes bytes of the client; `expected` says whether a stream with that DST.ADDR, in lower case, is awaited. Gives
    /// how many bytes were taken: those after the handshake are not.
    pub fn handle_input(&mut self, bytes: &[u8], expected: impl Fn(&str) -> bool) -> usize {
        self.side.take(bytes, |side| match side.awaiting {
            Awaiting::Greeting => greeting(side),
            Awaiting::Request => request(side, &expected),
            Awaiting::Method | Awaiting::Reply => {}
        })
    }

    /// What to send now.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.side.output.is_empty()).then(|| std::mem::take(&mut self.side.output))
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> &Handshake {
        &self.side.state
    }
}

fn greeting(side: &mut Side) {
    // XEP-0065 §5.3.2: no authentication (J260-15).
    if side.input.get(2..).is_some_and(|methods| methods.contains(&NO_AUTHENTICATION)) {
        side.output.extend_from_slice(&[VERSION, NO_AUTHENTICATION]);
        side.awaiting = Awaiting::Request;
    } else {
        side.output.extend_from_slice(&[VERSION, NO_METHOD]);
        side.state = Handshake::Broken(HandshakeFault::Method);
    }
}

fn request(side: &mut Side, expected: &impl Fn(&str) -> bool) {
    // DST.PORT is not looked at: XEP-0065 §10 allows to ignore it, and peers fill it with their own port.
    let name = side.input.get(HEAD_BYTES..side.input.len().saturating_sub(2)).unwrap_or_default();
    let name = if side.at(3) == DOMAIN { std::str::from_utf8(name).unwrap_or_default() } else { "" };
    let hash = name.to_ascii_lowercase();
    let (reply, state) = if side.at(1) != CONNECT {
        (Reply::COMMAND_NOT_SUPPORTED, Handshake::Broken(HandshakeFault::Request))
    } else if side.at(3) != DOMAIN {
        (Reply::ADDRESS_TYPE_NOT_SUPPORTED, Handshake::Broken(HandshakeFault::Request))
    } else if !is_dst_addr(&hash) || !expected(&hash) {
        // XEP-0065 §5.3.2: the hash is all that tells the peer from a stranger.
        (Reply::NOT_ALLOWED, Handshake::Broken(HandshakeFault::WrongDstAddr))
    } else {
        (Reply::SUCCEEDED, Handshake::Open(hash))
    };
    side.output.extend_from_slice(&[VERSION, reply.0, 0]);
    match side.input.get(3..) {
        // XEP-0065 §5.3.2: BND.ADDR and BND.PORT are the values that the client gave.
        Some(address) if matches!(side.at(3), IPV4 | DOMAIN | IPV6) => side.output.extend_from_slice(address),
        Some(_) | None => side.output.extend_from_slice(&[IPV4, 0, 0, 0, 0, 0, 0]),
    }
    side.state = state;
}

/// The side that dials. Read from the connection at most [`Self::wants`] bytes.
#[derive(Debug)]
pub struct Client {
    side: Side,
    dst_addr: String,
}

impl Client {
    /// A connection was made, for the stream with this DST.ADDR: see [`dst_addr`]. What is longer than a name may be
    /// (255 bytes) is cut.
    #[must_use]
    pub fn new(dst_addr: &str) -> Self {
        // J260-15: one method, no authentication.
        Self {
            side: Side::new(Awaiting::Method, vec![VERSION, 1, NO_AUTHENTICATION]),
            dst_addr: dst_addr.chars().filter(char::is_ascii).take(255).collect(),
        }
    }

    /// Bytes that belong to the handshake for certain; 0 when it is over.
    #[must_use]
    pub fn wants(&self) -> usize {
        self.side.wants()
    }

    /// Takes bytes of the server and gives how many: those after the handshake are not taken.
    pub fn handle_input(&mut self, bytes: &[u8]) -> usize {
        let dst_addr = &self.dst_addr;
        self.side.take(bytes, |side| match side.awaiting {
            Awaiting::Method => method(side, dst_addr),
            Awaiting::Reply => reply(side, dst_addr),
            Awaiting::Greeting | Awaiting::Request => {}
        })
    }

    /// What to send now.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.side.output.is_empty()).then(|| std::mem::take(&mut self.side.output))
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> &Handshake {
        &self.side.state
    }
}

fn method(side: &mut Side, dst_addr: &str) {
    if side.at(1) != NO_AUTHENTICATION {
        side.state = Handshake::Broken(HandshakeFault::Method);
        return;
    }
    // J260-15: CMD 1, ATYP 3, DST.ADDR the hash, DST.PORT 0.
    side.output.extend_from_slice(&[VERSION, CONNECT, 0, DOMAIN]);
    side.output.push(u8::try_from(dst_addr.len()).unwrap_or(u8::MAX));
    side.output.extend_from_slice(dst_addr.as_bytes());
    side.output.extend_from_slice(&[0, 0]);
    side.awaiting = Awaiting::Reply;
}

fn reply(side: &mut Side, dst_addr: &str) {
    let reply = Reply(side.at(1));
    side.state = if reply != Reply::SUCCEEDED {
        Handshake::Broken(HandshakeFault::Refused(reply))
    } else if matches!(side.at(3), IPV4 | DOMAIN | IPV6) {
        // BND.ADDR should be ours again (XEP-0065 §5.3.2); servers that give 0.0.0.0 instead work as well.
        Handshake::Open(dst_addr.to_owned())
    } else {
        Handshake::Broken(HandshakeFault::AddressType)
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    const HASH: &str = "972b7bf47291ca609517f67f86b5081086052dad";

    fn connect(name: &str, port: [u8; 2]) -> Vec<u8> {
        let mut out = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&port);
        out
    }

    /// A server that was given all these bytes in pieces of `cut`: what it sent, how it stands, what it left.
    fn serve(bytes: &[u8], cut: usize) -> (Vec<u8>, Handshake, usize) {
        let mut server = Server::new();
        let (mut sent, mut taken) = (Vec::new(), 0);
        for piece in bytes.chunks(cut) {
            let wanted = server.wants();
            let n = server.handle_input(piece, |hash| hash == HASH);
            assert!(n <= piece.len() && (n >= piece.len().min(wanted) || server.wants() == 0));
            taken += n;
            sent.extend(server.poll_transmit().unwrap_or_default());
        }
        (sent, server.state().clone(), bytes.len() - taken)
    }

    #[test]
    fn dst_addr_equals_the_examples_of_the_standard() {
        let (romeo, juliet) = ("romeo@montague.lit/orchard", "juliet@capulet.lit/balcony");
        assert_eq!(dst_addr("vj3hs98y", romeo, juliet), HASH);
        assert_eq!(dst_addr("vj3hs98y", juliet, romeo), "1a12fb7bc625e55f3ed5b29a53dbe0e4aa7d80ba");
        assert!(is_dst_addr(HASH) && !is_dst_addr(&HASH[1..]) && !is_dst_addr(&HASH.replace('9', "x")));
    }

    #[test]
    fn client_and_server_open_a_stream_whatever_the_pieces_j260_15() {
        for cut in [1, 2, 3, 7, 1000] {
            let (mut client, mut server) = (Client::new(HASH), Server::new());
            let mut on_the_wire = Vec::new();
            for _turn in 0..200 {
                let to_server = client.poll_transmit().unwrap_or_default();
                on_the_wire.extend_from_slice(&to_server);
                for piece in to_server.chunks(cut) {
                    assert_eq!(server.handle_input(piece, |hash| hash == HASH), piece.len());
                }
                let mut to_client = server.poll_transmit().unwrap_or_default();
                if matches!(server.state(), Handshake::Open(_)) && !to_client.is_empty() {
                    to_client.extend_from_slice(b"file");
                }
                let mut left = 0;
                for piece in to_client.chunks(cut) {
                    left += piece.len() - client.handle_input(piece);
                }
                if *client.state() != Handshake::Going {
                    assert_eq!(left, 4, "the file's bytes stay");
                    break;
                }
            }
            assert_eq!(client.state(), &Handshake::Open(HASH.to_owned()));
            assert_eq!(server.state(), &Handshake::Open(HASH.to_owned()));
            assert_eq!((client.wants(), server.wants()), (0, 0));
            let expected: Vec<u8> = [5, 1, 0].into_iter().chain(connect(HASH, [0, 0])).collect();
            assert_eq!(on_the_wire, expected);
        }
    }

    #[test]
    fn a_server_repeats_the_address_and_port_that_it_was_asked_for() {
        let bytes: Vec<u8> = [5, 2, 2, 0].into_iter().chain(connect(&HASH.to_uppercase(), [0x1F, 0x90])).collect();
        for cut in [1, 5, 100] {
            let (sent, state, left) = serve(&bytes, cut);
            assert_eq!(state, Handshake::Open(HASH.to_owned()));
            let mut expected = vec![5, 0, 5, 0, 0, 3, 40];
            expected.extend_from_slice(HASH.to_uppercase().as_bytes());
            expected.extend_from_slice(&[0x1F, 0x90]);
            assert_eq!((sent, left), (expected, 0));
        }
    }

    #[test]
    fn a_wrong_dst_addr_is_refused_by_ruleset() {
        for name in [HASH.replace('9', "8"), String::new(), "example.org".into(), "x".repeat(255)] {
            let bytes: Vec<u8> = [5, 1, 0].into_iter().chain(connect(&name, [0, 0])).collect();
            for cut in [1, 1000] {
                let (sent, state, _) = serve(&bytes, cut);
                assert_eq!(state, Handshake::Broken(HandshakeFault::WrongDstAddr), "{name}");
                assert_eq!(sent[..5], [5, 0, 5, 2, 0], "{name}");
            }
        }
    }

    #[test]
    fn each_fault_of_a_client_has_its_own_answer() {
        let greeted = |request: &[u8]| [[5, 1, 0].as_slice(), request].concat();
        let v4 = greeted(&[5, 1, 0, 1, 127, 0, 0, 1, 0, 80]);
        let udp = greeted(&[[5, 3, 0, 3, 40].as_slice(), HASH.as_bytes(), &[0, 0]].concat());
        for (bytes, sent, fault) in [
            (vec![4, 1, 0, 80], vec![], HandshakeFault::Version),
            (b"GET / HTTP/1.1\r\n".to_vec(), vec![], HandshakeFault::Version),
            (vec![5, 1, 2], vec![5, 0xFF], HandshakeFault::Method),
            (vec![5, 0], vec![5, 0xFF], HandshakeFault::Method),
            (v4, vec![5, 0, 5, 8, 0, 1, 127, 0, 0, 1, 0, 80], HandshakeFault::Request),
            (greeted(&[5, 1, 0, 9, 9]), vec![5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0], HandshakeFault::Request),
            (greeted(&[4, 1, 0, 3, 40]), vec![5, 0], HandshakeFault::Version),
        ] {
            for cut in [1, 1000] {
                let (answer, state, _) = serve(&bytes, cut);
                assert_eq!((answer, state), (sent.clone(), Handshake::Broken(fault)), "{bytes:?}");
            }
        }
        let (answer, state, _) = serve(&udp, 4);
        assert_eq!((&answer[..4], state), ([5, 0, 5, 7].as_slice(), Handshake::Broken(HandshakeFault::Request)));
    }

    #[test]
    fn a_client_understands_every_server() {
        let domain = [[5, 0, 0, 3, 40].as_slice(), HASH.as_bytes(), &[0, 0]].concat();
        let long = [[5, 0, 0, 3, 255].as_slice(), &[b'x'; 255], &[0, 0]].concat();
        let open = Handshake::Open(HASH.to_owned());
        let refused = |code| Handshake::Broken(HandshakeFault::Refused(Reply(code)));
        for (reply, state) in [
            (domain, open.clone()),
            (long, open.clone()),
            (vec![5, 0, 0, 3, 0, 0, 0], open.clone()),
            (vec![5, 0, 0, 1, 0, 0, 0, 0, 0, 0], open.clone()),
            ([[5, 0, 0, 4].as_slice(), &[0; 18]].concat(), open),
            (vec![5, 2, 0, 1, 0, 0, 0, 0, 0, 0], refused(2)),
            (vec![5, 5, 0, 0, 0], refused(5)),
            (vec![5, 0, 0, 7, 0], Handshake::Broken(HandshakeFault::AddressType)),
            (vec![0x48], Handshake::Broken(HandshakeFault::Version)),
        ] {
            for cut in [1, 3, 1000] {
                let mut client = Client::new(HASH);
                assert_eq!(client.handle_input(&[5, 0]), 2);
                for piece in reply.chunks(cut) {
                    assert_eq!(client.handle_input(piece), piece.len(), "{reply:?}");
                }
                assert_eq!(client.state(), &state, "{reply:?}");
                assert_eq!(client.handle_input(b"data"), 0);
            }
        }
        let mut client = Client::new(HASH);
        client.handle_input(&[5, 0xFF]);
        assert_eq!(client.state(), &Handshake::Broken(HandshakeFault::Method));
    }
}

//! Messages out of a stream. Read RFC 3261 §18.3 and RFC 5626 §3.5.1, §4.4.1 before touching this file.
//!
//! ```text
//!  Between ──first byte that is no CR or LF──▶ InHead ──empty line──▶ InBody(length) ──all there──▶ Between
//!     │ CRLF CRLF: ping, CRLF alone: pong                   │ no Content-Length, or past a cap: Broken
//! ```
//! Every byte is looked at a fixed number of times, however the stream is cut into pieces.

use super::parse::{length_of, read, refuse, split};
use super::{Flaw, Malformed, Message};
use crate::config::sip_wire;

/// What a stream holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framed {
    /// A message.
    Message(Box<Message>),
    /// A message that is refused; the stream goes on behind it.
    Refused(Malformed),
    /// A double CRLF, to be answered with a single one (RFC 5626 §3.5.1).
    Ping,
    /// A single CRLF.
    Pong,
}

/// The stream cannot go on: where the next message begins is not known. The connection is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{malformed}")]
pub struct Broken {
    /// Why, and what to answer before.
    pub malformed: Malformed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between messages; `after_crlf`: a single CRLF was told just before.
    Between { after_crlf: bool },
    /// In start line and headers; so many bytes hold no end of it.
    InHead { searched: usize },
    /// Head of so many bytes read; the message is complete with so many.
    InBody { head: usize, total: usize },
    /// Nothing more is read.
    Broken,
}

/// Cuts a stream into messages.
#[derive(Debug, Clone)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were used.
    used: usize,
    state: State,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// Before the first byte.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), used: 0, state: State::Between { after_crlf: false } }
    }

    /// Bytes from the stream. [`Framer::next`] is to be called until it gives `None`; then at most one message's bytes
    /// are kept.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.state != State::Broken {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Much time passed since a [`Framed::Pong`]: another CRLF is another pong, not the other half of a ping.
    pub fn forget_crlf(&mut self) {
        if let State::Between { after_crlf } = &mut self.state {
            *after_crlf = false;
        }
    }

    /// True if a part of a message is kept.
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        matches!(self.state, State::InHead { .. } | State::InBody { .. })
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.used
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    fn take(&mut self, bytes: usize) {
        self.used += bytes;
        // Moved when most of it is used, so that each byte moves once on average.
        if self.used * 2 >= self.buffer.len() {
            self.buffer.drain(..self.used.min(self.buffer.len()));
            self.used = 0;
            // A large message does not hold its room for the life of a connection.
            if self.buffer.is_empty() && self.buffer.capacity() > 16 * 1024 {
                self.buffer = Vec::new();
            }
        }
    }

    /// The next thing that is complete.
    ///
    /// # Errors
    /// [`Broken`] once; after it there is nothing more.
    #[expect(clippy::should_implement_trait, reason = "it fails, and goes on after `None`")]
    pub fn next(&mut self) -> Result<Option<Framed>, Broken> {
        loop {
            match self.state {
                State::Between { after_crlf } => match self.between(after_crlf) {
                    Some(found) => return Ok(found),
                    None => self.state = State::InHead { searched: 0 },
                },
                State::InHead { searched } => match self.head(searched)? {
                    Some((head, total)) => self.state = State::InBody { head, total },
                    None => return Ok(None),
                },
                State::InBody { head, total } => {
                    let rest = self.rest();
                    let Some(message) = rest.get(..total) else { return Ok(None) };
                    let (text, _) = split(message);
                    let body = message.get(head..).unwrap_or_default();
                    let found = match read(&text, body) {
                        Ok(message) => Framed::Message(Box::new(message)),
                        Err(flaw) => Framed::Refused(refuse(&text, flaw)),
                    };
                    self.take(total);
                    self.state = State::Between { after_crlf: false };
                    return Ok(Some(found));
                }
                State::Broken => return Ok(None),
            }
        }
    }

    /// Line ends between messages. `None`: a message begins. `Some(None)`: more bytes are needed.
    fn between(&mut self, after_crlf: bool) -> Option<Option<Framed>> {
        let rest = self.rest();
        if rest.starts_with(b"\r\n\r\n") {
            self.take(4);
            self.state = State::Between { after_crlf: false };
            return Some(Some(Framed::Ping));
        }
        if rest.starts_with(b"\r\n") && rest != b"\r\n\r" {
            self.take(2);
            // A second one that came later was the other half of a ping.
            self.state = State::Between { after_crlf: !after_crlf };
            return Some(Some(if after_crlf { Framed::Ping } else { Framed::Pong }));
        }
        let waiting = rest.is_empty() || rest == b"\r" || rest == b"\r\n\r";
        waiting.then_some(None)
    }

    /// Looks for the end of the head; gives its length and that of the whole message.
    fn head(&mut self, searched: usize) -> Result<Option<(usize, usize)>, Broken> {
        let rest = self.rest();
        // The end may have begun in what was searched before.
        let from = searched.saturating_sub(3);
        let end = rest.get(from..).unwrap_or_default().windows(4).position(|w| w == b"\r\n\r\n");
        let Some(end) = end.map(|end| from + end + 4) else {
            let searched = rest.len();
            if searched > sip_wire::HEAD_BYTES {
                return Err(self.fail(searched, Flaw::TooLarge));
            }
            self.state = State::InHead { searched };
            return Ok(None);
        };
        if end > sip_wire::HEAD_BYTES {
            return Err(self.fail(end, Flaw::TooLarge));
        }
        let (text, _) = split(rest.get(..end).unwrap_or_default());
        match length_of(&text) {
            Ok(length) => Ok(Some((end, end + length))),
            Err(flaw) => Err(self.fail(end, flaw)),
        }
    }

    fn fail(&mut self, head: usize, flaw: Flaw) -> Broken {
        let (text, _) = split(self.rest().get(..head).unwrap_or_default());
        let malformed = refuse(&text, flaw);
        *self = Self { buffer: Vec::new(), used: 0, state: State::Broken };
        Broken { malformed }
    }
}

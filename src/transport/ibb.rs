//! One in-band bytestream: bytes inside of IQs, in blocks that are acknowledged one by one. Read XEP-0047 §2 and XEP-0261
//! §2 before touching this file.
//!
//! The stream is a value for either side and either direction. Whoever owns it routes IQs to it by the peer's full address
//! and the stream id, and answers [`UNKNOWN`] where there is none (J047-05).

use crate::fault::{Answer, ErrorType, StanzaCondition};
use crate::wire::bytestream::Ibb;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Block size to offer: its stanza stays below the 10 000 bytes that every server must carry (RFC 6120 §13.12).
pub const BLOCK_SIZE: u16 = 4096;
/// Answer to what belongs to no stream (J047-05).
pub const UNKNOWN: Answer = refusal(StanzaCondition::ItemNotFound);

/// Most blocks in flight; two or three fill a path through a server nearby, this many 64 KiB on a long one.
const WINDOW: usize = 16;
/// Blocks in flight before anything is measured.
const FIRST_WINDOW: usize = 2;
/// Bytes that may be received and not be dealt with before acknowledgements are held back.
const CREDIT_BYTES: usize = 256 * 1024;
/// Bytes that a peer which ignores that may send beyond before the stream is closed.
const OVERRUN_BYTES: usize = 1024 * 1024;
/// Bytes that wait to be sent.
const PENDING_BYTES: usize = 256 * 1024;
/// No smaller block is tried when the peer refuses the size.
const SMALLEST_BLOCK: u16 = 256;
/// Messages are not acknowledged: one burst of a window of blocks each so often, so that a server is not flooded.
const MESSAGE_PACE: Duration = Duration::from_millis(100);

/// What both sides agreed on, and limits.
#[derive(Debug, Clone)]
pub struct IbbConfig {
    /// Stream id of the negotiated transport.
    pub sid: String,
    /// Bytes of a block before base64, as negotiated; 1 to 65 535.
    pub block_size: u16,
    /// This side sends `<open/>`: the initiator of the session (J261-02).
    pub opener: bool,
    /// This side sends the file: then silence of the peer means nothing as long as it acknowledges.
    pub sending: bool,
    /// Blocks go in messages; only where the peer chose it.
    pub in_messages: bool,
    /// Most blocks in flight, at least 1. How many there are follows the measured round trip.
    pub window: usize,
    /// Bytes received and not dealt with before acknowledgements are held back (J047-04).
    pub credit_bytes: usize,
    /// A request without an answer for so long ends the stream; longer than a slow disk holds an acknowledgement back.
    pub answer: Duration,
    /// A receiver that hears nothing for so long gives up; so does one that waits for `<open/>`.
    pub silence: Duration,
}

impl IbbConfig {
    /// Limits as measured and recommended.
    #[must_use]
    pub fn new(sid: impl Into<String>, block_size: u16, opener: bool, sending: bool) -> Self {
        Self {
            sid: sid.into(),
            block_size: block_size.max(1),
            opener,
            sending,
            in_messages: false,
            window: WINDOW,
            credit_bytes: CREDIT_BYTES,
            answer: Duration::from_secs(60),
            silence: Duration::from_secs(60),
        }
    }
}

/// Why a stream ended without having been closed by both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IbbFault {
    /// The peer refused to open the stream, or a block.
    #[error("the other side refuses the in-band bytestream: {0}")]
    Refused(StanzaCondition),
    /// A block was lost, repeated or came out of order (J047-03).
    #[error("block {got} of the in-band bytestream came where {expected} was due")]
    WrongSeq {
        /// Due.
        expected: u16,
        /// Came.
        got: u16,
    },
    /// A block that is no base64 (J047-03).
    #[error("a block of the in-band bytestream is no base64")]
    NotBase64,
    /// A block larger than agreed (J047-01).
    #[error("a block of the in-band bytestream holds {bytes} bytes, more than agreed")]
    Oversize {
        /// Its size.
        bytes: usize,
    },
    /// The peer sends on although nothing is acknowledged.
    #[error("the other side does not wait for acknowledgements")]
    Overrun,
    /// The peer closed the stream before it had everything.
    #[error("the other side closed the in-band bytestream too early")]
    ClosedEarly,
    /// No answer, no block or no `<open/>` in time.
    #[error("the other side of the in-band bytestream is silent")]
    Silent,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IbbEvent {
    /// Bytes may flow.
    Opened,
    /// [`IbbStream::take`] gives something.
    Readable,
    /// There is room for more; comes once after each [`IbbStream::push`].
    Writable,
    /// Closed properly: all that was pushed has been acknowledged. What was received can still be taken.
    Closed,
    /// Ended by a fault. What was received before can still be taken.
    Failed(IbbFault),
}

/// What is to be sent to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IbbTransmit {
    /// A request; its answer comes back with the same id.
    Set {
        /// Id of the IQ, unlike that of any other stream to this peer.
        id: String,
        /// Its payload.
        request: Ibb,
    },
    /// The answer to a request of the peer.
    Answer {
        /// Id of that request.
        id: String,
        /// An empty result, or an error.
        result: Result<(), Answer>,
    },
    /// A message with a block.
    Message(Ibb),
}

/// ```text
///  opener    Opening ──result──▶ Open ──all sent and acknowledged──▶ Closing ──answer or <close/>──▶ Over
///               │ error: smaller blocks, or ▶ Over                      ▲
///  acceptor  AwaitingOpen ──<open/>──▶ Open ── <close/> ──▶ Over        │ close()
///                                       └───────────────────────────────┘         any fault, from anywhere ▶ Over
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Our `<open/>` is on its way.
    Opening { number: u64, by: Instant },
    /// The peer's is awaited.
    AwaitingOpen { by: Instant },
    /// Blocks flow.
    Open,
    /// Our `<close/>` is on its way.
    Closing { number: u64, by: Instant },
    /// Nothing more.
    Over,
}

/// A block that is not acknowledged yet, or is but stands behind one that is not.
#[derive(Debug)]
struct Flight {
    number: u64,
    sent: Instant,
    bytes: usize,
    done: bool,
}

/// One in-band bytestream.
#[derive(Debug)]
pub struct IbbStream {
    config: IbbConfig,
    state: State,
    /// Numbers requests; part of their ids.
    requests: u64,
    // Sending.
    pending: VecDeque<u8>,
    /// Nothing will be added to it.
    finishing: bool,
    next_seq: u16,
    flights: VecDeque<Flight>,
    acknowledged: u64,
    pace: Window,
    /// A push was not followed by [`IbbEvent::Writable`] yet.
    owes_writable: bool,
    /// No message before.
    burst_at: Instant,
    // Receiving.
    expected_seq: u16,
    blocks: VecDeque<Vec<u8>>,
    received: u64,
    dealt_with: u64,
    /// Acknowledgements that are held back: id, and bytes received with that block.
    held: VecDeque<(String, u64)>,
    heard: Instant,

    transmits: VecDeque<IbbTransmit>,
    events: VecDeque<IbbEvent>,
}

impl IbbStream {
    /// A stream whose transport was just agreed on. An opener begins at once.
    #[must_use]
    pub fn new(now: Instant, config: IbbConfig) -> Self {
        let mut stream = Self {
            state: State::AwaitingOpen { by: now + config.silence },
            pace: Window::new(config.window.max(1)),
            config,
            requests: 0,
            pending: VecDeque::new(),
            finishing: false,
            next_seq: 0,
            flights: VecDeque::new(),
            acknowledged: 0,
            owes_writable: false,
            burst_at: now,
            expected_seq: 0,
            blocks: VecDeque::new(),
            received: 0,
            dealt_with: 0,
            held: VecDeque::new(),
            heard: now,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        if stream.config.opener {
            stream.open(now);
        }
        stream
    }

    /// Stream id.
    #[must_use]
    pub fn sid(&self) -> &str {
        &self.config.sid
    }

    /// Bytes that [`push`](Self::push) takes now.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.state {
            State::Opening { .. } | State::AwaitingOpen { .. } | State::Open if !self.finishing => {
                PENDING_BYTES.saturating_sub(self.pending.len())
            }
            State::Opening { .. } | State::AwaitingOpen { .. } | State::Open | State::Closing { .. } | State::Over => 0,
        }
    }

    /// Bytes that the peer has acknowledged; in messages: that were sent.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Nothing more comes of this stream.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Queues bytes for the peer; gives how many were taken. One [`IbbEvent::Writable`] follows as soon as there is room.
    pub fn push(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.room());
        self.pending.extend(bytes.iter().take(taken));
        self.owes_writable = true;
        self.pump(now);
        taken
    }

    /// Nothing will be pushed any more: the stream is closed as soon as everything is acknowledged.
    pub fn finish(&mut self, now: Instant) {
        self.finishing = true;
        self.pump(now);
    }

    /// Closes the stream now; what is not sent yet is dropped (J261-05).
    pub fn close(&mut self, now: Instant) {
        self.pending.clear();
        match self.state {
            State::Opening { .. } | State::Open => {
                let number = self.request(Ibb::Close { sid: self.config.sid.clone() });
                self.state = State::Closing { number, by: now + self.config.answer };
            }
            State::AwaitingOpen { .. } => self.over(IbbEvent::Closed),
            State::Closing { .. } | State::Over => {}
        }
    }

    /// The next block that came; say [`taken`](Self::taken) when it is dealt with.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        self.blocks.pop_front()
    }

    /// So many bytes are dealt with, such as written to a disk: their room is the peer's again.
    pub fn taken(&mut self, now: Instant, bytes: usize) {
        self.dealt_with = self.dealt_with.saturating_add(bytes as u64).min(self.received);
        let held = !self.held.is_empty();
        self.acknowledge();
        if held {
            // The peer was silent because we were.
            self.heard = now;
        }
    }

    /// A request of the peer for this stream; always answered, perhaps later.
    pub fn handle_request(&mut self, now: Instant, id: &str, request: Ibb) {
        self.handle(now, Some(id), request);
        self.pump(now);
    }

    /// A message of the peer for this stream.
    pub fn handle_message(&mut self, now: Instant, payload: Ibb) {
        match payload {
            Ibb::Data { .. } | Ibb::Spoiled { .. } if self.config.in_messages => self.handle(now, None, payload),
            // Streams are opened and closed by IQ only, and so go the blocks of one that was opened for IQs.
            Ibb::Data { .. } | Ibb::Spoiled { .. } | Ibb::Open { .. } | Ibb::Close { .. } => {}
        }
        self.pump(now);
    }

    /// The answer to a request of this stream; `false` if the id is none of this stream's.
    pub fn handle_answer(&mut self, now: Instant, id: &str, result: Result<(), StanzaCondition>) -> bool {
        let Some(number) = self.number(id) else { return false };
        match self.state {
            State::Opening { number: open, .. } if open == number => self.handle_opened(now, result),
            // That the peer knows of no such stream any more closes it as well.
            State::Closing { number: close, .. } if close == number => self.over(IbbEvent::Closed),
            State::Opening { .. } | State::AwaitingOpen { .. } | State::Over => {}
            State::Open | State::Closing { .. } => self.handle_acknowledged(now, number, result),
        }
        self.pump(now);
        true
    }

    /// The time is `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Closing { by, .. } if by <= now => self.over(IbbEvent::Closed),
            State::Opening { .. } | State::AwaitingOpen { .. } | State::Open
                if self.deadline().is_some_and(|at| at <= now) =>
            {
                self.fail(IbbFault::Silent);
            }
            State::Opening { .. } | State::AwaitingOpen { .. } | State::Open | State::Closing { .. } | State::Over => {}
        }
        self.pump(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let burst = self.config.in_messages && self.may_send();
        [self.deadline(), burst.then_some(self.burst_at)].into_iter().flatten().min()
    }

    /// The next stanza for the peer.
    pub fn poll_transmit(&mut self) -> Option<IbbTransmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<IbbEvent> {
        self.events.pop_front()
    }
}

// Opening and closing.
impl IbbStream {
    fn open(&mut self, now: Instant) {
        // J261-02: with the negotiated sid and block size.
        let number = self.request(Ibb::Open {
            sid: self.config.sid.clone(),
            block_size: self.config.block_size,
            in_messages: self.config.in_messages,
        });
        self.state = State::Opening { number, by: now + self.config.answer };
    }

    fn handle_opened(&mut self, now: Instant, result: Result<(), StanzaCondition>) {
        match result {
            Ok(()) => {
                self.state = State::Open;
                self.heard = now;
                self.events.push_back(IbbEvent::Opened);
            }
            // XEP-0047 §2.1: the initiator may try again with smaller blocks.
            Err(StanzaCondition::ResourceConstraint) if self.config.block_size / 2 >= SMALLEST_BLOCK => {
                self.config.block_size /= 2;
                self.open(now);
            }
            Err(condition) => self.over(IbbEvent::Failed(IbbFault::Refused(condition))),
        }
    }

    fn handle_open(&mut self, now: Instant, id: Option<&str>, block_size: u16, in_messages: bool) {
        match self.state {
            State::AwaitingOpen { .. } if block_size > self.config.block_size => {
                // J261-03: larger than negotiated. A smaller one is taken: it costs nobody anything.
                self.refuse(id, StanzaCondition::ResourceConstraint);
            }
            State::AwaitingOpen { .. } => {
                self.config.block_size = block_size;
                self.config.in_messages = in_messages;
                self.state = State::Open;
                self.heard = now;
                self.grant(id);
                self.events.push_back(IbbEvent::Opened);
            }
            // XEP-0047 §2.1: the sid is in use.
            State::Opening { .. } | State::Open | State::Closing { .. } => {
                self.refuse(id, StanzaCondition::NotAcceptable);
            }
            State::Over => self.refuse(id, StanzaCondition::ItemNotFound),
        }
    }

    fn handle_close(&mut self, id: Option<&str>) {
        match self.state {
            State::Opening { .. } | State::AwaitingOpen { .. } | State::Over => {
                self.refuse(id, StanzaCondition::ItemNotFound);
            }
            State::Open => {
                self.release();
                self.grant(id);
                let complete = self.pending.is_empty() && self.flights.is_empty();
                self.over(if complete { IbbEvent::Closed } else { IbbEvent::Failed(IbbFault::ClosedEarly) });
            }
            State::Closing { .. } => {
                self.release();
                self.grant(id);
                self.over(IbbEvent::Closed);
            }
        }
    }

    /// Ends the stream on our side and on the peer's (J047-03).
    fn fail(&mut self, fault: IbbFault) {
        self.release();
        if !matches!(self.state, State::AwaitingOpen { .. }) {
            // Its answer changes nothing any more.
            self.request(Ibb::Close { sid: self.config.sid.clone() });
        }
        self.over(IbbEvent::Failed(fault));
    }

    fn over(&mut self, event: IbbEvent) {
        self.state = State::Over;
        self.pending.clear();
        self.flights.clear();
        self.events.push_back(event);
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Opening { by, .. } | State::AwaitingOpen { by } | State::Closing { by, .. } => Some(by),
            State::Open => {
                let answer = self.flights.iter().find(|f| !f.done).map(|f| f.sent + self.config.answer);
                let silence = !self.config.sending && self.held.is_empty();
                [answer, silence.then(|| self.heard + self.config.silence)].into_iter().flatten().min()
            }
            State::Over => None,
        }
    }
}

// Receiving.
impl IbbStream {
    fn handle(&mut self, now: Instant, id: Option<&str>, request: Ibb) {
        if request.sid() != self.config.sid {
            return self.refuse(id, StanzaCondition::ItemNotFound);
        }
        match request {
            Ibb::Open { block_size, in_messages, .. } => self.handle_open(now, id, block_size, in_messages),
            Ibb::Data { seq, data, .. } => self.handle_block(now, id, seq, Some(data)),
            Ibb::Spoiled { seq, .. } => self.handle_block(now, id, seq, None),
            Ibb::Close { .. } => self.handle_close(id),
        }
    }

    fn handle_block(&mut self, now: Instant, id: Option<&str>, seq: u16, data: Option<Vec<u8>>) {
        if !matches!(self.state, State::Open | State::Closing { .. }) {
            // J047-05
            return self.refuse(id, StanzaCondition::ItemNotFound);
        }
        self.heard = now;
        let refused = match &data {
            // J047-03
            _ if seq != self.expected_seq => {
                Some((StanzaCondition::UnexpectedRequest, IbbFault::WrongSeq { expected: self.expected_seq, got: seq }))
            }
            None => Some((StanzaCondition::BadRequest, IbbFault::NotBase64)),
            // J047-01
            Some(data) if data.len() > usize::from(self.config.block_size) => {
                Some((StanzaCondition::BadRequest, IbbFault::Oversize { bytes: data.len() }))
            }
            Some(data) => {
                let waiting = (self.received - self.dealt_with).saturating_add(data.len() as u64);
                (waiting > (self.config.credit_bytes + OVERRUN_BYTES) as u64)
                    .then_some((StanzaCondition::ResourceConstraint, IbbFault::Overrun))
            }
        };
        if let Some((condition, fault)) = refused {
            self.release();
            self.refuse(id, condition);
            return self.fail(fault);
        }
        // J047-02: wraps, and counts our direction and theirs apart.
        self.expected_seq = self.expected_seq.wrapping_add(1);
        let data = data.unwrap_or_default();
        self.received += data.len() as u64;
        if !data.is_empty() {
            self.blocks.push_back(data);
            self.events.push_back(IbbEvent::Readable);
        }
        if let Some(id) = id {
            self.held.push_back((id.to_owned(), self.received));
        }
        self.acknowledge();
    }

    /// J047-04: in order, and only as far as what came before is dealt with: that slows the peer down.
    fn acknowledge(&mut self) {
        let up_to = self.dealt_with.saturating_add(self.config.credit_bytes as u64);
        while self.held.front().is_some_and(|(_, received)| *received <= up_to) {
            let Some((id, _)) = self.held.pop_front() else { return };
            self.transmits.push_back(IbbTransmit::Answer { id, result: Ok(()) });
        }
    }

    /// Every acknowledgement that is held back: no request of the peer stays unanswered.
    fn release(&mut self) {
        for (id, _) in self.held.drain(..) {
            self.transmits.push_back(IbbTransmit::Answer { id, result: Ok(()) });
        }
    }

    fn grant(&mut self, id: Option<&str>) {
        if let Some(id) = id {
            self.transmits.push_back(IbbTransmit::Answer { id: id.to_owned(), result: Ok(()) });
        }
    }

    fn refuse(&mut self, id: Option<&str>, condition: StanzaCondition) {
        if let Some(id) = id {
            self.transmits.push_back(IbbTransmit::Answer { id: id.to_owned(), result: Err(refusal(condition)) });
        }
    }
}

// Sending.
impl IbbStream {
    fn request(&mut self, request: Ibb) -> u64 {
        let number = self.requests;
        self.requests += 1;
        self.transmits.push_back(IbbTransmit::Set { id: format!("{}-{number}", self.config.sid), request });
        number
    }

    /// The request with this id.
    fn number(&self, id: &str) -> Option<u64> {
        let number = id.strip_prefix(self.config.sid.as_str())?.strip_prefix('-')?.parse().ok()?;
        (number < self.requests).then_some(number)
    }

    fn handle_acknowledged(&mut self, now: Instant, number: u64, result: Result<(), StanzaCondition>) {
        if let Err(condition) = result {
            // What the peer has refused it does not have: nothing can follow.
            return self.fail(IbbFault::Refused(condition));
        }
        let Some(flight) = self.flights.iter_mut().find(|f| f.number == number && !f.done) else { return };
        flight.done = true;
        self.acknowledged += flight.bytes as u64;
        self.pace.measure(now.saturating_duration_since(flight.sent));
        while self.flights.front().is_some_and(|f| f.done) {
            self.flights.pop_front();
        }
    }

    /// A block is due but for the window: a full one, or what is left when nothing else can be expected to fill it.
    fn may_send(&self) -> bool {
        let full = self.pending.len() >= usize::from(self.config.block_size);
        let last = !self.pending.is_empty() && (self.finishing || self.flights.is_empty());
        self.state == State::Open && (full || last)
    }

    /// Sends what may be sent, closes what is finished.
    fn pump(&mut self, now: Instant) {
        if self.config.in_messages {
            if self.burst_at <= now && self.may_send() {
                for _ in 0..self.config.window.max(1) {
                    if !self.may_send() {
                        break;
                    }
                    let (bytes, block) = self.next_block();
                    self.acknowledged += bytes as u64;
                    self.transmits.push_back(IbbTransmit::Message(block));
                }
                self.burst_at = now + MESSAGE_PACE;
            }
        } else {
            while self.may_send() && self.flights.iter().filter(|f| !f.done).count() < self.pace.blocks {
                let (bytes, block) = self.next_block();
                let number = self.request(block);
                self.flights.push_back(Flight { number, sent: now, bytes, done: false });
            }
        }
        if self.finishing && self.state == State::Open && self.pending.is_empty() && self.flights.is_empty() {
            self.close(now);
        }
        if self.owes_writable && self.room() > PENDING_BYTES / 2 {
            self.owes_writable = false;
            self.events.push_back(IbbEvent::Writable);
        }
    }

    fn next_block(&mut self) -> (usize, Ibb) {
        let bytes = self.pending.len().min(usize::from(self.config.block_size));
        let data = self.pending.drain(..bytes).collect();
        let block = Ibb::Data { sid: self.config.sid.clone(), seq: self.next_seq, data };
        // J047-02
        self.next_seq = self.next_seq.wrapping_add(1);
        (bytes, block)
    }
}

/// How many blocks are in flight. Each server on the way handles blocks one after the other, so more than fill the path only
/// wait there, and with them every other stanza. Like TCP Vegas: the time that a block takes beyond the shortest ever seen
/// tells how many of ours wait; between one and two are kept waiting. Of each round the quickest block counts: a queue delays
/// them all, a busy processor one or two.
#[derive(Debug)]
struct Window {
    blocks: usize,
    most: usize,
    shortest: Duration,
    /// Of this round.
    quickest: Duration,
    /// Acknowledgements since the last change.
    since: usize,
}

impl Window {
    fn new(most: usize) -> Self {
        Self { blocks: FIRST_WINDOW.min(most), most, shortest: Duration::MAX, quickest: Duration::MAX, since: 0 }
    }

    fn measure(&mut self, trip: Duration) {
        self.shortest = self.shortest.min(trip);
        self.quickest = self.quickest.min(trip);
        self.since += 1;
        // One change for each round.
        if self.since < self.blocks {
            return;
        }
        let blocks = self.blocks as u128;
        let trip = std::mem::replace(&mut self.quickest, Duration::MAX);
        // blocks × (trip − shortest) ÷ trip, in thousandths.
        let waiting = (blocks * 1000 * (trip - self.shortest).as_micros()).checked_div(trip.as_micros()).unwrap_or(0);
        if waiting < 1000 && self.blocks < self.most {
            self.blocks += 1;
        } else if waiting > 2000 && self.blocks > 1 {
            self.blocks -= 1;
        }
        self.since = 0;
    }
}

/// The error of XEP-0047 §2 with this condition.
const fn refusal(condition: StanzaCondition) -> Answer {
    // XEP-0047 example 4: another block size may do.
    let kind =
        if matches!(condition, StanzaCondition::ResourceConstraint) { ErrorType::Modify } else { ErrorType::Cancel };
    Answer { condition, kind, jingle: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
    use super::*;

    const SID: &str = "i781hf64";

    fn config(opener: bool, sending: bool) -> IbbConfig {
        IbbConfig::new(SID, BLOCK_SIZE, opener, sending)
    }

    fn data(seq: u16, data: &[u8]) -> Ibb {
        Ibb::Data { sid: SID.into(), seq, data: data.to_vec() }
    }

    fn open(block_size: u16, in_messages: bool) -> Ibb {
        Ibb::Open { sid: SID.into(), block_size, in_messages }
    }

    fn close() -> Ibb {
        Ibb::Close { sid: SID.into() }
    }

    /// Both ends and a way between them that takes `trip` there and `trip` back, and carries `per_stanza` apart.
    struct Pair {
        now: Instant,
        ends: [IbbStream; 2],
        trip: Duration,
        per_stanza: Duration,
        free_at: Instant,
        on_way: VecDeque<(Instant, usize, IbbTransmit)>,
        events: [Vec<IbbEvent>; 2],
        got: Vec<u8>,
        /// What was received is dealt with at once.
        eager: bool,
        most_in_flight: usize,
    }

    impl Pair {
        fn new(sender: IbbConfig, receiver: IbbConfig) -> Self {
            let now = Instant::now();
            Self {
                now,
                ends: [IbbStream::new(now, sender), IbbStream::new(now, receiver)],
                trip: Duration::from_millis(5),
                per_stanza: Duration::ZERO,
                free_at: now,
                on_way: VecDeque::new(),
                events: [Vec::new(), Vec::new()],
                got: Vec::new(),
                eager: true,
                most_in_flight: 0,
            }
        }

        fn drain(&mut self) {
            for side in 0..2 {
                while let Some(transmit) = self.ends[side].poll_transmit() {
                    self.free_at = self.free_at.max(self.now) + self.per_stanza;
                    self.on_way.push_back((self.free_at + self.trip, 1 - side, transmit));
                }
                while let Some(event) = self.ends[side].poll_event() {
                    self.events[side].push(event);
                }
            }
            self.most_in_flight = self.most_in_flight.max(self.ends[0].flights.len());
            if self.eager {
                while let Some(block) = self.ends[1].take() {
                    self.got.extend_from_slice(&block);
                    self.ends[1].taken(self.now, block.len());
                }
                // Acknowledgements that this released.
                while let Some(transmit) = self.ends[1].poll_transmit() {
                    self.free_at = self.free_at.max(self.now) + self.per_stanza;
                    self.on_way.push_back((self.free_at + self.trip, 0, transmit));
                }
            }
        }

        /// One stanza or one deadline; `false` when there is neither.
        fn step(&mut self) -> bool {
            self.drain();
            let deadline = self.ends.iter().filter_map(IbbStream::poll_timeout).min();
            let stanza = self.on_way.front().map(|(at, ..)| *at);
            match (stanza, deadline) {
                (Some(at), deadline) if deadline.is_none_or(|d| at <= d) => {
                    let (_, side, transmit) = self.on_way.pop_front().unwrap();
                    self.now = at;
                    match transmit {
                        IbbTransmit::Set { id, request } => self.ends[side].handle_request(at, &id, request),
                        IbbTransmit::Message(payload) => self.ends[side].handle_message(at, payload),
                        IbbTransmit::Answer { id, result } => {
                            self.ends[side].handle_answer(at, &id, result.map_err(|a| a.condition));
                        }
                    }
                }
                (_, Some(at)) => {
                    self.now = at;
                    self.ends.iter_mut().for_each(|e| e.handle_timeout(at));
                }
                (Some(_), None) | (None, None) => return false,
            }
            self.drain();
            true
        }

        fn send_all(&mut self, bytes: &[u8]) {
            let mut sent = 0;
            while sent < bytes.len() {
                let taken = self.ends[0].push(self.now, &bytes[sent..]);
                sent += taken;
                assert!(taken > 0 || self.step(), "nothing moves");
            }
            self.ends[0].finish(self.now);
            while !(self.ends[0].is_over() && self.ends[1].is_over()) && self.step() {}
        }
    }

    fn pattern(bytes: usize) -> Vec<u8> {
        (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn acceptor(config: IbbConfig) -> (Instant, IbbStream) {
        let now = Instant::now();
        let mut stream = IbbStream::new(now, config);
        stream.handle_request(now, "o", open(BLOCK_SIZE, false));
        assert_eq!(answer(&mut stream), ("o".into(), Ok(())));
        assert_eq!(stream.poll_event(), Some(IbbEvent::Opened));
        (now, stream)
    }

    fn answer(stream: &mut IbbStream) -> (String, Result<(), StanzaCondition>) {
        match stream.poll_transmit() {
            Some(IbbTransmit::Answer { id, result }) => (id, result.map_err(|a| a.condition)),
            other => panic!("no answer but {other:?}"),
        }
    }

    fn sent(stream: &mut IbbStream) -> (String, Ibb) {
        match stream.poll_transmit() {
            Some(IbbTransmit::Set { id, request }) => (id, request),
            other => panic!("no request but {other:?}"),
        }
    }

    #[test]
    fn a_file_goes_through_whole_and_both_sides_see_it_closed() {
        for (opener_sends, bytes) in [(true, 100_000), (false, 100_000), (true, 4096), (true, 1), (true, 0)] {
            let mut pair = Pair::new(config(opener_sends, true), config(!opener_sends, false));
            let file = pattern(bytes);
            pair.send_all(&file);
            assert_eq!(pair.got, file, "{bytes} bytes");
            assert_eq!(pair.ends[0].acknowledged(), bytes as u64);
            for events in &pair.events {
                assert!(events.contains(&IbbEvent::Opened) && events.last() == Some(&IbbEvent::Closed), "{events:?}");
            }
            assert_eq!(pair.ends[0].poll_timeout(), None);
        }
    }

    #[test]
    fn numbers_wrap_after_65535() {
        let small = |opener, sending| IbbConfig { block_size: 3, ..config(opener, sending) };
        let mut pair = Pair::new(small(true, true), small(false, false));
        let file = pattern(3 * 70_000 + 1);
        pair.send_all(&file);
        assert!(pair.got == file, "{} of {} bytes", pair.got.len(), file.len());
        assert_eq!(pair.ends[1].expected_seq, (70_001_u32 % 65_536) as u16);
        assert_eq!(pair.events[1].last(), Some(&IbbEvent::Closed));
    }

    #[test]
    fn both_directions_count_for_themselves() {
        let now = Instant::now();
        let mut stream = IbbStream::new(now, config(true, true));
        let (id, _) = sent(&mut stream);
        assert!(stream.handle_answer(now, &id, Ok(())));
        stream.push(now, &[1; 5000]);
        assert!(matches!(sent(&mut stream).1, Ibb::Data { seq: 0, .. }));
        stream.handle_request(now, "x", data(0, b"from the other side"));
        assert_eq!(answer(&mut stream), ("x".into(), Ok(())));
        assert_eq!(stream.take().unwrap(), b"from the other side");
    }

    #[test]
    fn the_negotiated_sid_and_block_size_are_opened_and_a_larger_one_is_refused() {
        let now = Instant::now();
        let mut opener = IbbStream::new(now, IbbConfig { block_size: 2048, ..config(true, true) });
        assert_eq!(sent(&mut opener).1, open(2048, false));
        let mut stream = IbbStream::new(now, IbbConfig { block_size: 2048, ..config(false, false) });
        stream.handle_request(now, "a", open(4096, false));
        let refused = stream.poll_transmit().unwrap();
        let IbbTransmit::Answer { result: Err(why), .. } = refused else { panic!("{refused:?}") };
        assert_eq!((why.condition, why.kind), (StanzaCondition::ResourceConstraint, ErrorType::Modify));
        // It may try again.
        stream.handle_request(now, "b", open(2048, false));
        assert_eq!(answer(&mut stream), ("b".into(), Ok(())));
        assert_eq!(stream.poll_event(), Some(IbbEvent::Opened));
        stream.handle_request(now, "c", open(2048, false));
        assert_eq!(answer(&mut stream), ("c".into(), Err(StanzaCondition::NotAcceptable)));
    }

    #[test]
    fn an_opener_tries_smaller_blocks_and_gives_up_on_any_other_refusal() {
        let now = Instant::now();
        let mut stream = IbbStream::new(now, config(true, true));
        for size in [4096, 2048, 1024, 512, 256] {
            let (id, request) = sent(&mut stream);
            assert_eq!(request, open(size, false));
            stream.handle_answer(now, &id, Err(StanzaCondition::ResourceConstraint));
        }
        assert_eq!(stream.poll_event(), Some(IbbEvent::Failed(IbbFault::Refused(StanzaCondition::ResourceConstraint))));
        let mut stream = IbbStream::new(now, config(true, true));
        let (id, _) = sent(&mut stream);
        stream.handle_answer(now, &id, Err(StanzaCondition::NotAcceptable));
        assert_eq!(stream.poll_event(), Some(IbbEvent::Failed(IbbFault::Refused(StanzaCondition::NotAcceptable))));
        assert!(stream.is_over() && stream.poll_transmit().is_none());
    }

    #[test]
    fn what_breaks_a_rule_is_refused_and_the_stream_is_closed() {
        let spoiled = Ibb::Spoiled { sid: SID.into(), seq: 0 };
        let rows = [
            (data(1, b"x"), StanzaCondition::UnexpectedRequest, IbbFault::WrongSeq { expected: 0, got: 1 }),
            (data(65_535, b"x"), StanzaCondition::UnexpectedRequest, IbbFault::WrongSeq { expected: 0, got: 65_535 }),
            (spoiled, StanzaCondition::BadRequest, IbbFault::NotBase64),
            (data(0, &[0; 4097]), StanzaCondition::BadRequest, IbbFault::Oversize { bytes: 4097 }),
        ];
        for (bad, condition, fault) in rows {
            let (now, mut stream) = acceptor(config(false, false));
            stream.handle_request(now, "bad", bad);
            assert_eq!(answer(&mut stream), ("bad".into(), Err(condition)));
            let (id, request) = sent(&mut stream);
            assert_eq!(request, close());
            assert_eq!(stream.poll_event(), Some(IbbEvent::Failed(fault)));
            assert!(stream.handle_answer(now, &id, Ok(())));
            assert_eq!((stream.poll_event(), stream.poll_transmit(), stream.poll_timeout()), (None, None, None));
            stream.handle_request(now, "late", data(0, b"x"));
            assert_eq!(answer(&mut stream), ("late".into(), Err(StanzaCondition::ItemNotFound)));
        }
    }

    #[test]
    fn a_repeated_block_closes_the_stream_and_what_came_before_it_stays() {
        let (now, mut stream) = acceptor(config(false, false));
        stream.handle_request(now, "0", data(0, b"kept"));
        stream.handle_request(now, "1", data(0, b"kept"));
        assert_eq!(answer(&mut stream), ("0".into(), Ok(())));
        assert_eq!(answer(&mut stream), ("1".into(), Err(StanzaCondition::UnexpectedRequest)));
        assert_eq!(stream.take().unwrap(), b"kept");
    }

    #[test]
    fn nothing_is_taken_before_the_stream_is_open_or_for_another_sid() {
        let now = Instant::now();
        let mut stream = IbbStream::new(now, config(false, false));
        for (id, early) in [("a", data(0, b"x")), ("b", close())] {
            stream.handle_request(now, id, early);
            assert_eq!(answer(&mut stream), (id.into(), Err(StanzaCondition::ItemNotFound)));
        }
        stream.handle_request(now, "c", Ibb::Open { sid: "other".into(), block_size: 1, in_messages: false });
        assert_eq!(answer(&mut stream), ("c".into(), Err(StanzaCondition::ItemNotFound)));
        stream.handle_request(now, "d", open(BLOCK_SIZE, false));
        assert_eq!(answer(&mut stream), ("d".into(), Ok(())));
        assert!(!stream.handle_answer(now, "stranger-0", Ok(())) && !stream.handle_answer(now, "i781hf64-9", Ok(())));
    }

    #[test]
    fn a_slow_receiver_holds_acknowledgements_back_and_memory_stays_bounded() {
        let receiver = IbbConfig { credit_bytes: 8192, ..config(false, false) };
        let mut pair = Pair::new(config(true, true), receiver);
        pair.eager = false;
        let file = pattern(100_000);
        assert_eq!(pair.ends[0].push(pair.now, &file), file.len());
        pair.ends[0].finish(pair.now);
        let until = pair.now + Duration::from_secs(30);
        pair.drain();
        while pair.on_way.front().is_some_and(|(at, ..)| *at < until) {
            pair.step();
        }
        let waiting: usize = pair.ends[1].blocks.iter().map(Vec::len).sum();
        assert!(waiting <= 8192 + WINDOW * 4096, "{waiting} bytes wait");
        assert!(!pair.ends[1].held.is_empty() && pair.ends[0].acknowledged() <= 8192);
        // The disk comes back.
        pair.eager = true;
        while !pair.ends[1].is_over() && pair.step() {}
        assert_eq!(pair.got, file);
        assert_eq!(pair.events[1].last(), Some(&IbbEvent::Closed));
    }

    #[test]
    fn a_peer_that_ignores_missing_acknowledgements_is_cut_off_and_every_request_is_answered() {
        let (now, mut stream) = acceptor(config(false, false));
        let mut asked = 0_u16;
        while !stream.is_over() {
            stream.handle_request(now, &asked.to_string(), data(asked, &[7; 4096]));
            asked += 1;
            assert!(asked < 1000, "nothing stops it");
        }
        let mut answers = 0;
        while let Some(transmit) = stream.poll_transmit() {
            answers += u16::from(matches!(transmit, IbbTransmit::Answer { .. }));
        }
        assert_eq!(answers, asked);
        assert!(usize::from(asked) * 4096 <= CREDIT_BYTES + OVERRUN_BYTES + 2 * 4096);
        assert!(std::iter::from_fn(|| stream.poll_event()).any(|e| e == IbbEvent::Failed(IbbFault::Overrun)));
    }

    #[test]
    fn a_sender_learns_of_a_refused_block_and_of_an_early_close() {
        let now = Instant::now();
        let begun = || {
            let mut stream = IbbStream::new(now, config(true, true));
            let (id, _) = sent(&mut stream);
            stream.handle_answer(now, &id, Ok(()));
            assert_eq!(stream.poll_event(), Some(IbbEvent::Opened));
            stream.push(now, &[0; 100]);
            assert_eq!(stream.poll_event(), Some(IbbEvent::Writable));
            let (id, _) = sent(&mut stream);
            (stream, id)
        };
        let (mut stream, id) = begun();
        stream.handle_answer(now, &id, Err(StanzaCondition::ItemNotFound));
        assert_eq!(stream.poll_event(), Some(IbbEvent::Failed(IbbFault::Refused(StanzaCondition::ItemNotFound))));
        let (mut stream, _) = begun();
        stream.handle_request(now, "c", close());
        assert_eq!(answer(&mut stream), ("c".into(), Ok(())));
        assert_eq!(stream.poll_event(), Some(IbbEvent::Failed(IbbFault::ClosedEarly)));
    }

    #[test]
    fn a_peer_that_vanishes_is_noticed_by_the_side_that_waits() {
        for lost_after in [0, 1, 5, 20] {
            let mut pair = Pair::new(config(true, true), config(false, false));
            pair.ends[0].push(pair.now, &pattern(200_000));
            for _ in 0..lost_after {
                pair.step();
            }
            let lost = pair.now;
            while !(pair.ends[0].is_over() && pair.ends[1].is_over()) {
                pair.drain();
                pair.on_way.clear();
                let at = pair.ends.iter().filter_map(IbbStream::poll_timeout).min().expect("nobody waits for ever");
                pair.now = at;
                pair.ends.iter_mut().for_each(|e| e.handle_timeout(at));
            }
            pair.drain();
            assert!(pair.now - lost <= Duration::from_secs(61), "{lost_after}: {:?}", pair.now - lost);
            for events in &pair.events {
                assert_eq!(events.last(), Some(&IbbEvent::Failed(IbbFault::Silent)), "{lost_after}");
            }
        }
    }

    #[test]
    fn two_closes_that_cross_end_both_sides() {
        let (now, mut stream) = acceptor(config(false, false));
        stream.close(now);
        let (id, request) = sent(&mut stream);
        assert_eq!(request, close());
        stream.handle_request(now, "c", close());
        assert_eq!(answer(&mut stream), ("c".into(), Ok(())));
        assert_eq!(stream.poll_event(), Some(IbbEvent::Closed));
        stream.handle_answer(now, &id, Err(StanzaCondition::ItemNotFound));
        assert_eq!((stream.poll_event(), stream.poll_transmit()), (None, None));
        // A close that nobody answers is one all the same.
        let (now, mut stream) = acceptor(config(false, false));
        stream.close(now);
        stream.handle_timeout(stream.poll_timeout().unwrap());
        assert_eq!(stream.poll_event(), Some(IbbEvent::Closed));
        assert!(now < stream.heard + Duration::from_secs(1));
    }

    #[test]
    fn blocks_in_messages_are_understood_where_the_peer_chose_them() {
        let sender = IbbConfig { in_messages: true, ..config(true, true) };
        let mut pair = Pair::new(sender, config(false, false));
        let file = pattern(300_000);
        let start = pair.now;
        pair.send_all(&file);
        assert!(pair.got == file && pair.events[1].last() == Some(&IbbEvent::Closed));
        // 74 blocks in bursts of 16.
        assert!(pair.now - start >= MESSAGE_PACE * 4, "a server is flooded: {:?}", pair.now - start);
        let (now, mut stream) = acceptor(config(false, false));
        stream.handle_message(now, data(0, b"x"));
        assert_eq!((stream.take(), stream.poll_transmit()), (None, None));
    }

    #[test]
    fn the_window_opens_on_a_long_way_and_stays_small_before_a_slow_server() {
        let file = pattern(1_000_000);
        let mut long = Pair::new(config(true, true), config(false, false));
        long.trip = Duration::from_millis(50);
        let start = long.now;
        long.send_all(&file);
        assert!(long.got == file && long.most_in_flight == WINDOW, "{}", long.most_in_flight);
        // One block a round trip would take 24.5 s.
        assert!(long.now - start < Duration::from_secs(4), "{:?}", long.now - start);
        let mut slow = Pair::new(config(true, true), config(false, false));
        slow.trip = Duration::from_micros(100);
        slow.per_stanza = Duration::from_millis(1);
        slow.send_all(&file);
        assert!(slow.got == file && slow.most_in_flight <= 5, "{} blocks wait in the server", slow.most_in_flight);
    }

    #[test]
    fn a_block_that_is_late_alone_does_not_shut_the_window() {
        let mut window = Window::new(WINDOW);
        for n in 0..200 {
            // Every third waits for a processor.
            window.measure(Duration::from_millis(if n % 3 == 0 { 9 } else { 3 }));
        }
        assert_eq!(window.blocks, WINDOW);
        // A queue that is there from now on delays them all.
        (0..200).for_each(|_| window.measure(Duration::from_millis(9)));
        assert!(window.blocks <= 3, "{}", window.blocks);
    }
}

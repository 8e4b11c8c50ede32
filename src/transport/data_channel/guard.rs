//! What of SCTP may reach the engine (`rtc-sctp`), and what is learnt from the packets that pass in both directions.
//! Read RFC 9260 §3, RFC 3758 §3.2 and RFC 6525 §3 before touching this file.
//!
//! The peer is authenticated by DTLS but not trusted. The engine panics on error causes that are longer than their
//! chunk, counts up to a FORWARD TSN one by one, closes the association on chunks that the RFC says to report or to
//! skip, and bounds neither streams, reset requests nor the number of chunks in its window. What it computes as the
//! length of a chunk may differ from what stands on the wire, so every chunk that passes has exactly the length that
//! the engine sees: nothing can hide behind another chunk.

use bytes::Bytes;
use std::ops::Range;

/// The engine's port at both ends; the wire's own are put in by [`Guard::outgoing`].
pub(crate) const ENGINE_PORT: u16 = 5000;
/// Streams in each direction, announced in INIT. Chromium asks for 1 024 too; the engine walks all of them per chunk.
pub(crate) const MAX_STREAMS: u16 = 1024;
/// INITs that differ, of one peer: each makes the engine build an association.
const MAX_INITS: u8 = 16;
/// Reset requests of either side that are not answered.
const MAX_RESETS: usize = 64;
/// Bytes of an SCTP packet that fit one datagram of 1 280 bytes through a relay (the engine's own limit for DATA).
const MAX_PACKET_BYTES: usize = 1191;

const HEADER: usize = 12;
const DATA: u8 = 0;
const UNORDERED: u8 = 4;
/// RFC 7053
const IMMEDIATE: u8 = 8;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;
const RECONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;

const STATE_COOKIE: u16 = 7;
const HEARTBEAT_INFO: u16 = 1;
const OUTGOING_RESET: u16 = 13;
const RECONFIG_RESPONSE: u16 = 16;
const SUPPORTED_EXTENSIONS: u16 = 0x8008;
/// "In progress", RFC 6525 §4.4: the answer is still to come.
const IN_PROGRESS: u32 = 6;

/// What to do with a packet of the peer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// For the engine, as it is or without what the engine mishandles.
    Pass(Bytes),
    /// An INIT that was answered before: this is the answer again.
    Repeat(Bytes),
    /// Nothing of it is for the engine.
    Drop,
    /// The peer ends the association, or has broken it for good.
    Lost,
}

/// State of the walk, per association.
#[derive(Debug)]
pub(crate) struct Guard {
    /// On the wire: ours, the peer's.
    ports: (u16, u16),
    client: bool,
    established: bool,
    inits: u8,
    /// The last INIT that the engine saw, and its answer.
    answered: Option<(Bytes, Bytes)>,
    /// Ours: the peer's packets carry it.
    tag: u32,
    /// Last TSN of the peer that our SACKs have acknowledged in sequence.
    peer_cumulative: u32,
    /// One past the highest TSN that the peer has sent.
    peer_next: u32,
    /// Chunks that were acknowledged in sequence but are not read yet.
    unread: u32,
    max_unread: u32,
    /// Highest TSN that we have sent, and the last that the peer has acknowledged in sequence.
    sent: u32,
    acked: u32,
    /// Of our packets as they go out.
    peer_tag: u32,
    wire_ports: (u16, u16),
    /// New bytes that came while our window was shut.
    overdraft: usize,
    /// Our receive window as last announced.
    pub(crate) our_window: u32,
    /// The peer's receive window as last announced.
    pub(crate) peer_window: u32,
    /// The last SACK of ours told of a gap.
    pub(crate) gaps: bool,
    /// What came since our last SACK wants one at once.
    hurried: bool,
    /// The peer has announced FORWARD TSN, and used it up to here.
    forward: bool,
    skipped_to: Option<u32>,
    /// Reset requests of the peer that we have not settled.
    their_resets: Vec<u32>,
    /// Reset requests of ours without an answer.
    our_resets: Vec<u32>,
    /// Streams that we have asked to reset since this was last emptied.
    pub(crate) reset_streams: Vec<u16>,
    /// First transmissions: bytes of user data sent, in all.
    pub(crate) sent_bytes: u64,
    /// Streams that we have closed, and a sequence number on each that the engine takes for old.
    silenced: Vec<(u16, u16)>,
}

/// What became of one chunk.
enum Chunk {
    Keep,
    /// Data for a stream that we have closed: the engine is to count it and to forget it.
    Silence {
        ssn: u16,
    },
    Strip,
    Refuse,
    Lost,
}

impl Guard {
    pub(crate) fn new(client: bool, ports: (u16, u16), window_bytes: u32) -> Self {
        Self {
            ports,
            client,
            established: false,
            inits: 0,
            answered: None,
            tag: 0,
            peer_cumulative: 0,
            peer_next: 0,
            unread: 0,
            // A full window of packets is far below; each chunk costs the engine about 200 bytes beside its data.
            max_unread: (window_bytes / 512).max(2048),
            sent: 0,
            acked: 0,
            peer_tag: 0,
            wire_ports: (0, 0),
            overdraft: 0,
            our_window: window_bytes,
            peer_window: u32::MAX,
            gaps: false,
            hurried: false,
            forward: false,
            skipped_to: None,
            their_resets: Vec::new(),
            our_resets: Vec::new(),
            reset_streams: Vec::new(),
            sent_bytes: 0,
            silenced: Vec::new(),
        }
    }

    /// Nothing more is wanted from this stream, whose last message read was `ssn`: the engine would keep it unread, in
    /// its window, for ever.
    pub(crate) fn silence(&mut self, stream: u16, ssn: u16) {
        self.unsilence(stream);
        self.silenced.push((stream, ssn));
    }

    /// The peer has reset the stream: what comes on it is of another channel.
    pub(crate) fn unsilence(&mut self, stream: u16) {
        self.silenced.retain(|(known, _)| *known != stream);
    }

    /// The peer's port, as signalling tells it.
    pub(crate) fn set_remote_port(&mut self, port: u16) {
        self.ports.1 = port;
    }

    /// The engine has taken this many chunks out of its window.
    pub(crate) fn chunks_read(&mut self, chunks: usize) {
        self.unread = self.unread.saturating_sub(u32::try_from(chunks).unwrap_or(u32::MAX));
    }

    /// True if what came needs an answer at once.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried
    }

    /// Judges a packet of the peer.
    pub(crate) fn incoming(&mut self, packet: Bytes) -> Verdict {
        let mut rebuilt: Option<Vec<u8>> = None;
        let (mut at, mut kept, mut init) = (HEADER, 0, None);
        while at < packet.len() {
            let Some(chunk) = chunk_at(&packet, at) else { return Verdict::Drop };
            match self.judge(chunk) {
                Chunk::Keep => {
                    kept += 1;
                    if matches!(chunk.first(), Some(&INIT | &INIT_ACK)) {
                        init = Some(at..at + chunk.len());
                    }
                    if let Some(out) = &mut rebuilt {
                        out.extend_from_slice(chunk);
                        out.resize(out.len().next_multiple_of(4), 0);
                    }
                }
                Chunk::Silence { ssn } => {
                    kept += 1;
                    let out = rebuilt.get_or_insert_with(|| packet.get(..at).unwrap_or_default().to_vec());
                    let from = out.len();
                    out.extend_from_slice(chunk);
                    out.resize(out.len().next_multiple_of(4), 0);
                    put(out, from + 1, &[chunk.get(1).map_or(0, |flags| flags & !UNORDERED)]);
                    put(out, from + 10, &ssn.to_be_bytes());
                }
                Chunk::Strip => _ = rebuilt.get_or_insert_with(|| packet.get(..at).unwrap_or_default().to_vec()),
                Chunk::Refuse => return Verdict::Drop,
                Chunk::Lost => return Verdict::Lost,
            }
            at += chunk.len().next_multiple_of(4);
        }
        match (kept, init) {
            (0, _) => Verdict::Drop,
            // RFC 9260 §3.3.2: INIT and INIT ACK stand alone.
            (1, Some(range)) => self.incoming_init(&packet, range),
            (_, Some(_)) => Verdict::Drop,
            (_, None) if u32_at(&packet, 4) != Some(self.tag) => Verdict::Drop,
            (_, None) => {
                // A last chunk without its padding is completed.
                let out = match rebuilt {
                    Some(out) => sealed(out),
                    None if at > packet.len() => {
                        let mut out = packet.to_vec();
                        out.resize(at, 0);
                        sealed(out)
                    }
                    None => packet,
                };
                Verdict::Pass(self.to_engine(out))
            }
        }
    }

    fn judge(&mut self, chunk: &[u8]) -> Chunk {
        let [kind, flags, _, _, value @ ..] = chunk else { return Chunk::Refuse };
        let exactly = |length: usize| if value.len() == length { Chunk::Keep } else { Chunk::Refuse };
        match *kind {
            DATA => self.judge_data(*flags, value),
            SACK => self.judge_sack(value),
            INIT | INIT_ACK => Chunk::Keep,
            HEARTBEAT => match parameters(value).as_deref() {
                Some([(HEARTBEAT_INFO, _)]) => Chunk::Keep,
                _ => Chunk::Strip,
            },
            // The causes are for people. RFC 9260 §9.1.
            ABORT => Chunk::Lost,
            SHUTDOWN => exactly(4),
            SHUTDOWN_ACK | COOKIE_ACK | SHUTDOWN_COMPLETE => exactly(0),
            COOKIE_ECHO => Chunk::Keep,
            RECONFIG => self.judge_reconfig(value),
            FORWARD_TSN => self.judge_forward(value),
            // ERROR, HEARTBEAT ACK and what is unknown (RFC 9260 §3.2): the engine would drop the whole packet or end the
            // association.
            _ => Chunk::Strip,
        }
    }

    fn judge_data(&mut self, flags: u8, value: &[u8]) -> Chunk {
        let (Some(tsn), Some(stream)) = (u32_at(value, 0), u16_at(value, 4)) else { return Chunk::Refuse };
        // RFC 9260 §6.2: without data it is a violation; here also chunks that the window does not count.
        let Some(bytes @ 1..) = value.len().checked_sub(12) else { return Chunk::Refuse };
        let ahead = tsn.wrapping_sub(self.peer_cumulative);
        let old = ahead == 0 || ahead > u32::MAX / 2;
        if stream >= MAX_STREAMS || (!old && ahead > self.max_unread) {
            return Chunk::Refuse;
        }
        if !old && self.unread > self.max_unread {
            return Chunk::Refuse;
        }
        // RFC 9260 §6.7: a gap, or data that came twice, is told at once; so is what the I bit asks for.
        self.hurried |= flags & IMMEDIATE != 0 || tsn != self.peer_next;
        if !old && tsn.wrapping_sub(self.peer_next) <= u32::MAX / 2 {
            self.peer_next = tsn.wrapping_add(1);
            // The engine takes what completes a message even into a full window, so that a message larger than the
            // window cannot lock up; a message without an end would grow for ever.
            if self.our_window == 0 {
                self.overdraft += bytes;
                if self.overdraft > MAX_OVERDRAFT_BYTES {
                    return Chunk::Lost;
                }
            }
        }
        if let Some((_, ssn)) = self.silenced.iter().find(|(known, _)| *known == stream) {
            // It is never read.
            self.unread = self.unread.saturating_sub(u32::from(!old));
            return Chunk::Silence { ssn: *ssn };
        }
        Chunk::Keep
    }

    fn judge_sack(&mut self, value: &[u8]) -> Chunk {
        let (Some(cumulative), Some(window), Some(gaps), Some(duplicates)) =
            (u32_at(value, 0), u32_at(value, 4), u16_at(value, 8), u16_at(value, 10))
        else {
            return Chunk::Refuse;
        };
        if value.len() != 12 + 4 * (usize::from(gaps) + usize::from(duplicates)) {
            return Chunk::Refuse;
        }
        // What was never sent cannot be acknowledged; the engine would end the association.
        let outstanding = self.sent.wrapping_sub(cumulative);
        if outstanding > u32::MAX / 2 {
            return Chunk::Refuse;
        }
        let mut last = 0;
        for block in value.get(12..).unwrap_or_default().chunks_exact(4).take(usize::from(gaps)) {
            let (Some(start), Some(end)) = (u16_at(block, 0), u16_at(block, 2)) else { return Chunk::Refuse };
            // RFC 9260 §3.3.4: ascending and apart. Overlapping ones cost a walk of the window each.
            if start <= last || end < start || u32::from(end) > outstanding {
                return Chunk::Refuse;
            }
            last = end;
        }
        if outstanding <= self.sent.wrapping_sub(self.acked) {
            self.acked = cumulative;
            self.peer_window = window;
        }
        Chunk::Keep
    }

    fn judge_reconfig(&mut self, value: &[u8]) -> Chunk {
        let Some(parameters) = parameters(value) else { return Chunk::Refuse };
        if parameters.is_empty() || parameters.len() > 2 {
            return Chunk::Refuse;
        }
        for (kind, value) in &parameters {
            match (*kind, value.len(), u32_at(value, 0)) {
                (OUTGOING_RESET, 12.., Some(request)) if value.len() % 2 == 0 => {
                    if !self.their_resets.contains(&request) {
                        // RFC 6525 §5.1.2 allows one at a time; the engine keeps all and walks them per chunk.
                        if self.their_resets.len() >= MAX_RESETS {
                            return Chunk::Lost;
                        }
                        self.their_resets.push(request);
                    }
                }
                (RECONFIG_RESPONSE, 8, Some(response)) => self.our_resets.retain(|known| *known != response),
                // Requests that WebRTC has no use for; the engine cannot read them.
                (_, _, _) => return Chunk::Strip,
            }
        }
        Chunk::Keep
    }

    fn judge_forward(&mut self, value: &[u8]) -> Chunk {
        let Some(cumulative) = u32_at(value, 0).filter(|_| value.len().is_multiple_of(4)) else { return Chunk::Refuse };
        // RFC 3758 §3.1: only with a peer that has announced it.
        if !self.forward {
            return Chunk::Strip;
        }
        let ahead = cumulative.wrapping_sub(self.peer_cumulative);
        if ahead <= u32::MAX / 2 {
            // The engine counts up to it, one by one.
            if ahead > self.max_unread {
                return Chunk::Refuse;
            }
            // What is skipped is never read.
            self.skipped_to = Some(cumulative);
        }
        Chunk::Keep
    }

    /// INIT and INIT ACK pass with the parameters that the engine knows.
    fn incoming_init(&mut self, packet: &Bytes, range: Range<usize>) -> Verdict {
        let Some(chunk) = packet.get(range) else { return Verdict::Drop };
        let is_ack = chunk.first() == Some(&INIT_ACK);
        // RFC 9260 §5.2.2 would start anew; here a second association takes a second leg.
        if self.established || is_ack != self.client {
            return Verdict::Drop;
        }
        let (Some(fixed), Some(tsn), Some(window)) = (chunk.get(4..20), u32_at(chunk, 16), u32_at(chunk, 8)) else {
            return Verdict::Drop;
        };
        let zero = |range: Range<usize>| chunk.get(range).is_none_or(|b| b.iter().all(|b| *b == 0));
        // RFC 9260 §3.3.2: no tag, no streams, or a window below one packet.
        if zero(4..8) || zero(12..14) || zero(14..16) || window < 1500 {
            return Verdict::Drop;
        }
        let Some(found) = parameters(chunk.get(20..).unwrap_or_default()) else { return Verdict::Drop };
        if !is_ack {
            if let Some((init, answer)) = &self.answered
                && init == packet
            {
                return Verdict::Repeat(answer.clone());
            }
            if self.inits >= MAX_INITS {
                return Verdict::Drop;
            }
            self.inits += 1;
            self.answered = Some((packet.clone(), Bytes::new()));
        }
        let mut body = fixed.to_vec();
        for (kind, value) in found.iter().filter(|(kind, _)| matches!(*kind, STATE_COOKIE | SUPPORTED_EXTENSIONS)) {
            body.resize(body.len().next_multiple_of(4), 0);
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&u16::try_from(value.len() + 4).unwrap_or(4).to_be_bytes());
            body.extend_from_slice(value);
            self.forward |= *kind == SUPPORTED_EXTENSIONS && value.contains(&FORWARD_TSN);
        }
        self.peer_cumulative = tsn.wrapping_sub(1);
        self.peer_next = tsn;
        self.peer_window = window;
        let mut out = packet.get(..HEADER).unwrap_or_default().to_vec();
        out.extend_from_slice(&[if is_ack { INIT_ACK } else { INIT }, 0]);
        out.extend_from_slice(&u16::try_from(body.len() + 4).unwrap_or(4).to_be_bytes());
        out.extend_from_slice(&body);
        out.resize(out.len().next_multiple_of(4), 0);
        Verdict::Pass(self.to_engine(sealed(out)))
    }

    /// The engine's client knows one port only; its server takes those of the INIT.
    fn to_engine(&self, packet: Bytes) -> Bytes {
        if self.client && self.ports != (ENGINE_PORT, ENGINE_PORT) {
            with_ports(&packet, ENGINE_PORT, ENGINE_PORT)
        } else {
            packet
        }
    }

    /// Learns from a packet of ours and gives what goes on the wire.
    pub(crate) fn outgoing(&mut self, packet: Bytes) -> Bytes {
        let mut out = packet;
        let mut at = HEADER;
        while let Some(chunk) = chunk_at(&out, at) {
            let next = at + chunk.len().next_multiple_of(4);
            match chunk.first() {
                Some(&DATA) => self.outgoing_data(chunk),
                Some(&SACK) => {
                    self.outgoing_sack(chunk);
                    if out.len() > MAX_PACKET_BYTES {
                        out = shortened_sack(&out);
                        break;
                    }
                }
                Some(&INIT | &INIT_ACK) => {
                    if let (Some(tag), Some(tsn)) = (u32_at(chunk, 4), u32_at(chunk, 16)) {
                        self.tag = tag;
                        self.sent = tsn.wrapping_sub(1);
                        self.acked = self.sent;
                    }
                }
                Some(&RECONFIG) => self.outgoing_reconfig(chunk),
                _ => {}
            }
            at = next;
        }
        if self.client && self.ports != (ENGINE_PORT, ENGINE_PORT) {
            out = with_ports(&out, self.ports.0, self.ports.1);
        }
        if let (Some(source), Some(destination), Some(tag)) = (u16_at(&out, 0), u16_at(&out, 2), u32_at(&out, 4)) {
            (self.wire_ports, self.peer_tag) = ((source, destination), tag);
        }
        if out.get(HEADER) == Some(&INIT_ACK)
            && let Some((_, answer)) = &mut self.answered
        {
            *answer = out.clone();
        }
        out
    }

    fn outgoing_data(&mut self, chunk: &[u8]) {
        let Some(tsn) = u32_at(chunk, 4) else { return };
        if matches!(tsn.wrapping_sub(self.sent), 1..=0x7fff_ffff) {
            self.sent = tsn;
            self.sent_bytes += chunk.len().saturating_sub(16) as u64;
        }
    }

    fn outgoing_sack(&mut self, chunk: &[u8]) {
        let (Some(cumulative), Some(window)) = (u32_at(chunk, 4), u32_at(chunk, 8)) else { return };
        let advanced = cumulative.wrapping_sub(self.peer_cumulative);
        if advanced <= u32::MAX / 2 {
            let skipped = self.skipped_to.take().map_or(0, |to| to.wrapping_sub(self.peer_cumulative));
            self.unread = self.unread.saturating_add(advanced.saturating_sub(skipped));
            self.peer_cumulative = cumulative;
        }
        self.our_window = window;
        if window > 0 {
            self.overdraft = 0;
        }
        self.gaps = u16_at(chunk, 12) != Some(0);
        self.hurried = false;
    }

    fn outgoing_reconfig(&mut self, chunk: &[u8]) {
        for (kind, value) in parameters(chunk.get(4..).unwrap_or_default()).unwrap_or_default() {
            match (kind, u32_at(value, 0), u32_at(value, 4)) {
                (OUTGOING_RESET, Some(request), _) => {
                    if !self.our_resets.contains(&request) {
                        self.our_resets.push(request);
                    }
                    for stream in value.get(12..).unwrap_or_default().chunks_exact(2) {
                        self.reset_streams.extend(u16_at(stream, 0));
                    }
                }
                (RECONFIG_RESPONSE, Some(request), Some(result)) if result != IN_PROGRESS => {
                    self.their_resets.retain(|known| *known != request);
                }
                (_, _, _) => {}
            }
        }
    }

    /// Our tag, and the peer's last TSN that we have acknowledged.
    #[cfg(test)]
    pub(crate) fn identity(&self) -> (u32, u32) {
        (self.tag, self.peer_cumulative)
    }

    /// The association is up: no INIT counts any more.
    pub(crate) fn set_established(&mut self) {
        self.established = true;
        self.answered = None;
    }

    /// True if the peer leaves so many of our resets unanswered that they only cost.
    pub(crate) fn is_ignored(&self) -> bool {
        self.our_resets.len() > MAX_RESETS
    }

    /// A packet for the engine, as if from the peer, that makes it announce its window at once. The engine has no verb for
    /// it, and a sender that saw the window shut would find it open by a probe only, seconds later.
    pub(crate) fn nudge(&self) -> Bytes {
        let (source, destination) = if self.client { (ENGINE_PORT, ENGINE_PORT) } else { (self.ports.1, self.ports.0) };
        old_data(source, destination, self.tag, self.peer_cumulative)
    }

    /// A packet for the peer that makes it announce its window. The engine would probe with new data and its
    /// retransmission timer, and take each refusal for loss: after a pause of its reader no association would ever be
    /// fast again.
    pub(crate) fn probe(&self) -> Bytes {
        old_data(self.wire_ports.0, self.wire_ports.1, self.peer_tag, self.acked)
    }
}

/// DATA that was acknowledged long ago, with the I bit (RFC 7053): RFC 9260 §6.2 wants a SACK for it at once.
fn old_data(source: u16, destination: u16, tag: u32, tsn: u32) -> Bytes {
    let mut out = Vec::with_capacity(32);
    out.extend_from_slice(&source.to_be_bytes());
    out.extend_from_slice(&destination.to_be_bytes());
    out.extend_from_slice(&tag.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[DATA, 0x0b, 0, 17]);
    out.extend_from_slice(&tsn.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 53, 0, 0, 0, 0]);
    sealed(out)
}

/// New bytes into a shut window: more than the largest message that any known peer sends (256 KiB).
const MAX_OVERDRAFT_BYTES: usize = 512 * 1024;

/// The chunk at `at` without padding.
fn chunk_at(packet: &[u8], at: usize) -> Option<&[u8]> {
    let length = usize::from(u16_at(packet, at + 2)?);
    packet.get(at..at + length).filter(|chunk| chunk.len() >= 4)
}

/// Parameters or causes: type and value. `None`: they do not fill `bytes` exactly, but for padding.
fn parameters(bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (kind, length) = (u16_at(bytes, at)?, usize::from(u16_at(bytes, at + 2)?));
        out.push((kind, bytes.get(at + 4..at + length)?));
        at += length.next_multiple_of(4);
    }
    Some(out)
}

/// First and last TSN of a packet that begins with DATA.
pub(crate) fn tsns(packet: &[u8]) -> Option<(u32, u32)> {
    let first = u32_at(packet, HEADER + 4).filter(|_| packet.get(HEADER) == Some(&DATA))?;
    let (mut at, mut last) = (HEADER, first);
    while let Some(chunk) = chunk_at(packet, at) {
        if chunk.first() == Some(&DATA) {
            last = u32_at(chunk, 4)?;
        }
        at += chunk.len().next_multiple_of(4);
    }
    Some((first, last))
}

/// Cumulative TSN and gaps of a packet that begins with a SACK.
pub(crate) fn sack(packet: &[u8]) -> Option<(u32, Vec<(u16, u16)>)> {
    let chunk = chunk_at(packet, HEADER).filter(|chunk| chunk.first() == Some(&SACK))?;
    let blocks = chunk.get(16..)?.chunks_exact(4).take(usize::from(u16_at(chunk, 12)?));
    Some((u32_at(chunk, 4)?, blocks.filter_map(|b| Some((u16_at(b, 0)?, u16_at(b, 2)?))).collect()))
}

/// The packet with a SACK that tells of no gaps, and of this window.
pub(crate) fn without_gaps(packet: &[u8], window: u32) -> Bytes {
    let Some(length) = chunk_at(packet, HEADER).map(<[u8]>::len) else { return Bytes::new() };
    let mut out = packet.get(..HEADER + 16).unwrap_or_default().to_vec();
    put(&mut out, HEADER + 2, &16u16.to_be_bytes());
    put(&mut out, HEADER + 8, &window.to_be_bytes());
    put(&mut out, HEADER + 12, &[0; 4]);
    out.extend_from_slice(packet.get(HEADER + length..).unwrap_or_default());
    sealed(out)
}

/// SCTP says: as many gaps as fit, the first ones (RFC 9260 §6.2); the engine says all.
fn shortened_sack(packet: &[u8]) -> Bytes {
    let gaps = u16_at(packet, HEADER + 12).unwrap_or(0);
    let gaps = gaps.min(u16::try_from((MAX_PACKET_BYTES - HEADER - 16) / 4).unwrap_or(0));
    let length = 16 + 4 * usize::from(gaps);
    let mut out = packet.get(..(HEADER + length).min(packet.len())).unwrap_or_default().to_vec();
    put(&mut out, HEADER + 2, &u16::try_from(length).unwrap_or(16).to_be_bytes());
    put(&mut out, HEADER + 12, &gaps.to_be_bytes());
    put(&mut out, HEADER + 14, &[0, 0]);
    sealed(out)
}

fn with_ports(packet: &[u8], source: u16, destination: u16) -> Bytes {
    let mut out = packet.to_vec();
    put(&mut out, 0, &source.to_be_bytes());
    put(&mut out, 2, &destination.to_be_bytes());
    sealed(out)
}

/// Puts the checksum in, RFC 9260 §6.8.
fn sealed(mut packet: Vec<u8>) -> Bytes {
    put(&mut packet, 8, &[0; 4]);
    let checksum = crc32c::crc32c(&packet);
    put(&mut packet, 8, &checksum.to_le_bytes());
    packet.into()
}

fn put(packet: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = packet.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    /// A packet for `tag` with these chunks: kind, flags, value.
    pub(crate) fn packet(tag: u32, chunks: &[(u8, u8, &[u8])]) -> Bytes {
        let mut out = vec![0x13, 0x88, 0x13, 0x88];
        out.extend(tag.to_be_bytes());
        out.extend([0; 4]);
        for (kind, flags, value) in chunks {
            out.extend([*kind, *flags]);
            out.extend((value.len() as u16 + 4).to_be_bytes());
            out.extend(*value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        sealed(out)
    }

    impl Guard {
        /// How far the engine counts for a packet that has passed: chunks, numbers skipped by a FORWARD TSN, numbers in the
        /// gaps of a SACK, streams of a reset.
        pub(crate) fn steps(&self, packet: &[u8]) -> u64 {
            let (mut at, mut steps) = (HEADER, 0);
            while let Some(chunk) = chunk_at(packet, at) {
                let value = &chunk[4..];
                steps += 1 + match chunk[0] {
                    FORWARD_TSN => {
                        let ahead = u32_at(value, 0).unwrap().wrapping_sub(self.peer_cumulative);
                        u64::from(if ahead > u32::MAX / 2 { 0 } else { ahead })
                    }
                    SACK => {
                        let gaps = usize::from(u16_at(value, 8).unwrap());
                        let blocks = value[12..].chunks_exact(4).take(gaps);
                        blocks.map(|b| u64::from(u16_at(b, 2).unwrap().saturating_sub(u16_at(b, 0).unwrap())) + 1).sum()
                    }
                    RECONFIG => value.len() as u64 / 2,
                    _ => 0,
                };
                at += chunk.len().next_multiple_of(4);
            }
            steps
        }
    }

    pub(crate) fn resealed(packet: Vec<u8>) -> Bytes {
        sealed(packet)
    }

    fn data(tsn: u32, stream: u16, bytes: &[u8]) -> Vec<u8> {
        let mut out = tsn.to_be_bytes().to_vec();
        out.extend(stream.to_be_bytes());
        out.extend([0, 0, 0, 0, 0, 53]);
        out.extend(bytes);
        out
    }

    fn init(kind: u8, tsn: u32, parameters: &[u8]) -> Bytes {
        let mut value = vec![0, 0, 0, 9, 0, 16, 0, 0, 4, 0, 4, 0];
        value.extend(tsn.to_be_bytes());
        value.extend(parameters);
        packet(if kind == INIT { 0 } else { 7 }, &[(kind, 0, &value)])
    }

    /// A server with the tag 7 whose peer began with TSN 1 000 and supports FORWARD TSN.
    fn guard() -> Guard {
        let mut guard = Guard::new(false, (5000, 5000), 1 << 20);
        let forward = [0x80, 8, 0, 6, 130, 192, 0, 0];
        assert!(matches!(guard.incoming(init(INIT, 1000, &forward)), Verdict::Pass(_)));
        let mut value = vec![0, 0, 0, 7, 0, 16, 0, 0, 4, 0, 4, 0];
        value.extend(500u32.to_be_bytes());
        guard.outgoing(packet(9, &[(INIT_ACK, 0, &value)]));
        guard.set_established();
        guard
    }

    fn passes(guard: &mut Guard, chunks: &[(u8, u8, &[u8])]) -> bool {
        matches!(guard.incoming(packet(7, chunks)), Verdict::Pass(_))
    }

    #[test]
    fn an_abort_or_error_with_a_cause_longer_than_its_chunk_never_reaches_the_engine() {
        let cause = [0, 12, 0xff, 0xff, 1, 2, 3, 4];
        assert_eq!(guard().incoming(packet(7, &[(ABORT, 0, &cause)])), Verdict::Lost);
        // An ERROR ends nothing: the engine would end the association even for a well-formed one.
        for cause in [&cause[..], &[0, 6, 0, 8, 1, 2, 3, 4], &[0, 6]] {
            assert_eq!(guard().incoming(packet(7, &[(9, 0, cause)])), Verdict::Drop);
            let bytes = data(1000, 1, b"x");
            let both = packet(7, &[(9, 0, cause), (DATA, 3, &bytes)]);
            assert_eq!(guard().incoming(both), Verdict::Pass(packet(7, &[(DATA, 3, &bytes)])));
        }
    }

    #[test]
    fn a_forward_tsn_further_ahead_than_the_window_is_refused() {
        let forward = |tsn: u32| tsn.to_be_bytes();
        assert!(passes(&mut guard(), &[(FORWARD_TSN, 0, &forward(1100))]));
        for tsn in [1_000_000, 999 + (1 << 31) - 1, 10_000] {
            assert!(!passes(&mut guard(), &[(FORWARD_TSN, 0, &forward(tsn))]), "{tsn}");
        }
        // From a peer that never said that it uses it.
        let mut silent = Guard::new(false, (5000, 5000), 1 << 20);
        assert!(matches!(silent.incoming(init(INIT, 1000, &[])), Verdict::Pass(_)));
        assert!(!passes(&mut silent, &[(FORWARD_TSN, 0, &forward(1100))]));
    }

    #[test]
    fn data_without_bytes_on_a_stream_too_high_or_far_ahead_is_refused() {
        for (name, value) in [
            ("no bytes", data(1000, 0, b"")),
            ("stream", data(1000, MAX_STREAMS, b"x")),
            ("far ahead", data(1000 + 5000, 0, b"x")),
            ("cut", data(1000, 0, b"x")[..9].to_vec()),
        ] {
            assert!(!passes(&mut guard(), &[(DATA, 3, &value)]), "{name}");
        }
        assert!(passes(&mut guard(), &[(DATA, 3, &data(1000, 0, b"x"))]));
    }

    #[test]
    fn chunks_that_nobody_reads_are_bounded_however_small_they_are() {
        let mut guard = guard();
        let mut sack = vec![0; 12];
        let mut taken = 0;
        for tsn in 1000u32..100_000 {
            if !passes(&mut guard, &[(DATA, 3, &data(tsn, 0, b"x"))]) {
                break;
            }
            taken += 1;
            sack[..4].copy_from_slice(&tsn.to_be_bytes());
            sack[4..8].copy_from_slice(&1000u32.to_be_bytes());
            guard.outgoing(packet(9, &[(SACK, 0, &sack)]));
        }
        assert!((2000..4000).contains(&taken), "{taken}");
        guard.chunks_read(taken);
        assert!(passes(&mut guard, &[(DATA, 3, &data(1000 + taken as u32, 0, b"x"))]));
    }

    #[test]
    fn a_message_without_an_end_is_not_taken_into_a_shut_window_for_ever() {
        let mut guard = guard();
        guard.outgoing(packet(9, &[(SACK, 0, &[0, 0, 3, 231, 0, 0, 0, 0, 0, 0, 0, 0])]));
        let verdict = (1000..2000).map(|tsn| guard.incoming(packet(7, &[(DATA, 0, &data(tsn, 0, &[1; 1000]))])));
        let mut verdicts: Vec<_> = verdict.collect();
        assert!(matches!(verdicts[0], Verdict::Pass(_)));
        assert_eq!(verdicts.pop(), Some(Verdict::Lost));
    }

    #[test]
    fn a_sack_for_what_was_never_sent_or_with_overlapping_gaps_is_refused() {
        let sack = |cumulative: u32, blocks: &[(u16, u16)]| {
            let mut out = cumulative.to_be_bytes().to_vec();
            out.extend([0, 1, 0, 0]);
            out.extend((blocks.len() as u16).to_be_bytes());
            out.extend([0, 0]);
            blocks.iter().for_each(|(a, b)| out.extend([a.to_be_bytes(), b.to_be_bytes()].concat()));
            out
        };
        let mut guard = guard();
        for tsn in 500..600u32 {
            guard.outgoing(packet(9, &[(DATA, 3, &data(tsn, 0, b"x"))]));
        }
        assert!(passes(&mut guard, &[(SACK, 0, &sack(510, &[(2, 3), (5, 89)]))]));
        assert_eq!(guard.peer_window, 65_536);
        for (name, value) in [
            ("never sent", sack(600, &[])),
            ("gap never sent", sack(510, &[(2, 90)])),
            ("overlap", sack(510, &[(2, 5), (5, 6)])),
            ("backwards", sack(510, &[(5, 2)])),
            ("zero", sack(510, &[(0, 2)])),
            ("more than it says", [sack(510, &[]), vec![9; 8]].concat()),
        ] {
            assert!(!passes(&mut guard, &[(SACK, 0, &value)]), "{name}");
        }
    }

    #[test]
    fn reset_requests_without_number_end_the_association() {
        let request = |rsn: u32| {
            let mut out = vec![0, 13, 0, 18];
            out.extend(rsn.to_be_bytes());
            out.extend([0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1]);
            out
        };
        let mut guard = guard();
        for rsn in 0..64 {
            assert!(passes(&mut guard, &[(RECONFIG, 0, &request(rsn))]));
            assert!(passes(&mut guard, &[(RECONFIG, 0, &request(rsn))]), "repeated");
        }
        assert_eq!(guard.incoming(packet(7, &[(RECONFIG, 0, &request(64))])), Verdict::Lost);
        // What the engine cannot read is stripped.
        for value in [&[0, 14, 0, 8, 0, 0, 0, 1][..], &[0, 17, 0, 12, 0, 0, 0, 1, 0, 1, 0, 0]] {
            assert!(!passes(&mut self::guard(), &[(RECONFIG, 0, value)]));
        }
    }

    #[test]
    fn an_init_reaches_the_engine_once_alone_and_with_known_parameters_only() {
        let mut guard = Guard::new(false, (5000, 5000), 1 << 20);
        // Adaptation, an address, the cookie preservative: the engine refuses an INIT for the last two.
        let odd =
            [0xc0, 6, 0, 8, 1, 2, 3, 4, 0, 5, 0, 8, 1, 2, 3, 4, 0, 9, 0, 8, 0, 0, 0, 1, 0x80, 8, 0, 5, 130, 0, 0, 0];
        let offer = init(INIT, 1000, &odd);
        let Verdict::Pass(clean) = guard.incoming(offer.clone()) else { panic!() };
        assert_eq!(clean, init(INIT, 1000, &[0x80, 8, 0, 5, 130]));
        let answer = guard.outgoing(init(INIT_ACK, 77, &[]));
        assert_eq!(guard.incoming(offer), Verdict::Repeat(answer));
        for n in 0..40 {
            let verdict = guard.incoming(init(INIT, 2000 + n, &[]));
            assert_eq!(matches!(verdict, Verdict::Pass(_)), n < 15, "{n}");
        }
        let both = packet(0, &[(INIT, 0, &[1; 16]), (COOKIE_ACK, 0, &[])]);
        assert_eq!(guard.incoming(both), Verdict::Drop);
        assert_eq!(guard.incoming(init(INIT_ACK, 1, &[])), Verdict::Drop, "a server gets none");
        guard.set_established();
        assert_eq!(guard.incoming(init(INIT, 1, &[])), Verdict::Drop);
        for value in [[0; 16], [1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1]] {
            let mut fresh = Guard::new(false, (5000, 5000), 1 << 20);
            assert_eq!(fresh.incoming(packet(0, &[(INIT, 0, &value)])), Verdict::Drop);
        }
    }

    #[test]
    fn chunks_of_another_length_than_the_engine_sees_hide_nothing() {
        for (kind, value) in [
            (COOKIE_ACK, &[6, 0, 0, 8, 0, 12, 0xff, 0xff][..]),
            (SHUTDOWN_ACK, &[6, 0, 0, 4]),
            (SHUTDOWN, &[0, 0, 0, 1, 6, 0, 0, 4]),
            (FORWARD_TSN, &[0, 0, 3, 232, 1]),
            (RECONFIG, &[0, 16, 0, 20, 0, 0, 0, 1, 0, 0, 0, 1, 6, 0, 0, 8, 0, 12, 0xff, 0xff]),
            (HEARTBEAT, &[0, 1, 0, 8, 1, 2, 3, 4, 6, 0, 0, 8, 0, 12, 0xff, 0xff]),
        ] {
            assert_eq!(guard().incoming(packet(7, &[(kind, 0, value)])), Verdict::Drop, "{kind}");
        }
        assert_eq!(guard().incoming(packet(8, &[(COOKIE_ACK, 0, &[])])), Verdict::Drop, "another's tag");
    }

    #[test]
    fn a_sack_that_tells_of_too_many_gaps_is_shortened_to_a_datagram() {
        let mut value = vec![0, 0, 4, 0, 0, 0, 16, 0];
        value.extend(4000u16.to_be_bytes());
        value.extend(3u16.to_be_bytes());
        (1..=4000u16).for_each(|n| value.extend([(2 * n).to_be_bytes(), (2 * n).to_be_bytes()].concat()));
        value.extend([0; 12]);
        let out = guard().outgoing(packet(9, &[(SACK, 0, &value)]));
        assert!(out.len() <= MAX_PACKET_BYTES, "{}", out.len());
        let gaps = usize::from(u16_at(&out, HEADER + 12).unwrap());
        assert_eq!((out.len(), u16_at(&out, HEADER + 14)), (HEADER + 16 + 4 * gaps, Some(0)));
        assert_eq!(resealed(out.to_vec()), out);
    }
}

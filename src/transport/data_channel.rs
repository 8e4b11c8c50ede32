//! Data channels: one SCTP association on a leg's DTLS, channels opened by DCEP.
//! Read RFC 8831 §6, RFC 8832 §5, RFC 6525 §5 and XEP-0343 before touching this file.
//!
//! The engine (`rtc-sctp`) stands behind a guard. It gets bytes only while the peer's window has room, and what it has
//! received stays in its own window until somebody reads it, so that a slow disk slows the peer.

mod dcep;
mod engine;
mod guard;
mod recovery;

use crate::transport::leg_config::LegEvent;
use bytes::{Bytes, BytesMut};
use compact_str::CompactString;
use dcep::Dcep;
use engine::Engine;
use guard::{ENGINE_PORT, Verdict};
use rtc_sctp::{Event, Payload, PayloadProtocolIdentifier as Ppid, StreamEvent};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// A data channel of one leg. Counts up from 0; says nothing about the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// What the data channels of a leg may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataConfig {
    /// Our `sctp-port`, to be signalled (RFC 8841 §5); 5000 is usual.
    pub local_port: u16,
    /// Bytes that `write_channel` takes before the peer has acknowledged them, over all channels.
    pub send_buffer_bytes: u32,
    /// Bytes that the peer may have sent before they are read, over all channels.
    pub receive_window_bytes: u32,
    /// The leg carries RTP too. Without it no SRTP profile is asked for, and a peer that has none connects.
    pub beside_rtp: bool,
}

impl Default for DataConfig {
    fn default() -> Self {
        // A file goes one way: 3 MiB are 60 MB/s at 50 ms. What is on its way is held twice, so that either side of a
        // transfer stays below 8 MiB.
        Self { local_port: 5000, send_buffer_bytes: 3 << 20, receive_window_bytes: 4 << 20, beside_rtp: false }
    }
}

/// Why a verb on a channel was refused. None of these ends anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelFault {
    /// The leg was made without data channels.
    #[error("the leg carries no data channels")]
    NoData,
    /// No such channel, or it is closed.
    #[error("the data channel is closed")]
    Closed,
    /// The leg has as many channels as it takes.
    #[error("more than {0} data channels")]
    TooMany(usize),
    /// A label longer than 65 535 bytes (RFC 8832 §5.1).
    #[error("the label is too long")]
    Label,
}

/// Channels open at once, of both sides.
const MAX_CHANNELS: usize = 64;
/// Label of the peer: a content's name.
const MAX_LABEL_BYTES: usize = 1024;
/// Message size that every peer takes (RFC 8831 §6.6 names 16 KiB where nothing else is known).
const MESSAGE_BYTES: usize = 16 * 1024;
/// Bytes that wait in the engine beside those in flight: enough that it never idles, few enough that a burst is small.
const AHEAD_BYTES: u64 = 128 * 1024;
/// Packets of data that one SACK answers while nothing is missing; RFC 9260 §6.2 asks for one per two, which costs a
/// record of DTLS each.
const SACK_EVERY: u32 = 8;
/// While something is missing: peers may count these to find a loss.
const SACK_EVERY_IN_LOSS: u32 = 2;
/// But not later than this.
const SACK_DELAY: Duration = Duration::from_millis(1);
/// Patience for the peer's half of a stream reset.
const RESET_PATIENCE: Duration = Duration::from_secs(5);
/// From the end of the handshake until the association is up.
const SET_UP: Duration = Duration::from_secs(30);
/// Where a channel stands.
///
/// ```text
///   Waiting ─association up─▶ Open ─close_channel─▶ Draining ─all acknowledged─▶ Resetting ─peer's reset, or 5 s─▶ gone
///                              │ peer's reset, or the association is lost                                          ▲
///                              └────────────────────▶ Ended (what came is still read) ─────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Open,
    Draining,
    Resetting { until: Instant },
    Ended { clean: bool },
}

#[derive(Debug)]
struct Channel {
    state: State,
    label: CompactString,
    stream: Option<u16>,
    /// Written, not with the engine yet: whole messages, then the one that is being filled. One without bytes counts as one.
    queue: VecDeque<Bytes>,
    tail: Vec<u8>,
    queued: usize,
    /// With the engine, not acknowledged.
    unacked: usize,
    /// A write found too little room.
    blocked: bool,
    /// `ChannelDelivered` is owed.
    owes_delivery: bool,
    /// The message that is being read.
    reading: BytesMut,
    /// `ChannelReadable` was told and no read has found nothing since.
    told: bool,
    /// Sequence number of the last message read.
    last_ssn: u16,
}

impl Channel {
    fn new(state: State, label: CompactString, stream: Option<u16>) -> Self {
        Self {
            state,
            label,
            stream,
            queue: VecDeque::new(),
            tail: Vec::new(),
            queued: 0,
            unacked: 0,
            blocked: false,
            owes_delivery: false,
            reading: BytesMut::new(),
            told: false,
            // RFC 9260 §6.5: the first has 0.
            last_ssn: u16::MAX,
        }
    }

    /// RFC 8831 §6.6: a message without bytes is one all the same.
    fn put_empty(&mut self) {
        if !self.tail.is_empty() {
            self.queue.push_back(std::mem::take(&mut self.tail).into());
        }
        self.queue.push_back(Bytes::new());
        self.queued += 1;
    }

    fn put(&mut self, mut bytes: &[u8]) {
        self.queued += bytes.len();
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(MESSAGE_BYTES - self.tail.len()));
            bytes = later;
            if now.len() == MESSAGE_BYTES {
                self.queue.push_back(Bytes::copy_from_slice(now));
            } else {
                self.tail.extend_from_slice(now);
                if self.tail.len() == MESSAGE_BYTES {
                    self.queue.push_back(std::mem::take(&mut self.tail).into());
                }
            }
        }
    }

    fn next_length(&self) -> Option<usize> {
        self.queue.front().map(|m| m.len().max(1)).or(Some(self.tail.len()).filter(|l| *l > 0))
    }

    fn take_message(&mut self) -> Option<Bytes> {
        let message = self.queue.pop_front().or_else(|| {
            let tail = std::mem::take(&mut self.tail);
            Some(tail).filter(|t| !t.is_empty()).map(Bytes::from)
        })?;
        self.queued -= message.len().max(1);
        Some(message)
    }
}

enum Phase {
    /// DTLS is not ready.
    Waiting,
    Running(Box<Engine>),
    /// Nothing goes any more; what came may still be read.
    Lost(Option<Box<Engine>>),
}

/// All data channels of a leg. Sans-IO: packets are SCTP packets, for and from DTLS.
pub(crate) struct DataChannels {
    config: DataConfig,
    remote_port: u16,
    /// The newest time told; polls have none.
    now: Instant,
    phase: Phase,
    set_up_by: Option<Instant>,
    channels: BTreeMap<ChannelId, Channel>,
    next_id: u32,
    /// Bytes written and not acknowledged, over all channels.
    buffered: usize,
    /// The engine may have something to send.
    stirred: bool,
    packets: VecDeque<Bytes>,
    events: VecDeque<LegEvent>,
}

impl std::fmt::Debug for DataChannels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataChannels").field("channels", &self.channels).finish_non_exhaustive()
    }
}

impl DataChannels {
    pub(crate) fn new(now: Instant, config: DataConfig) -> Self {
        Self {
            config,
            remote_port: ENGINE_PORT,
            now,
            phase: Phase::Waiting,
            set_up_by: None,
            channels: BTreeMap::new(),
            next_id: 0,
            buffered: 0,
            stirred: false,
            packets: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The newest time told.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn set_remote_port(&mut self, port: u16) {
        self.remote_port = port;
        if let Phase::Running(engine) = &mut self.phase {
            engine.guard.set_remote_port(port);
        }
    }

    /// DTLS is ready, RFC 8831 §6.2. Its client starts the association; does nothing the second time.
    pub(crate) fn start(&mut self, now: Instant, client: bool) {
        if !matches!(self.phase, Phase::Waiting) {
            return;
        }
        self.now = now;
        let window = self.config.receive_window_bytes.max(64 * 1024);
        let ports = (self.config.local_port, self.remote_port);
        self.phase = Phase::Running(Box::new(Engine::new(now, client, ports, window)));
        self.set_up_by = Some(now + SET_UP);
        self.stirred = true;
    }

    /// An SCTP packet out of DTLS: anything at all is safe.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: BytesMut) {
        self.now = now;
        let Phase::Running(engine) = &mut self.phase else { return };
        match engine.guard.incoming(packet.freeze()) {
            Verdict::Pass(packet) => {
                let is_data = packet.get(12) == Some(&0);
                let (packet, resent) = engine.recover(now, packet);
                self.packets.extend(resent);
                engine.feed(now, packet);
                engine.unanswered += u32::from(is_data);
                let every = if engine.guard.gaps { SACK_EVERY_IN_LOSS } else { SACK_EVERY };
                if !is_data || !engine.up || engine.unanswered >= every || engine.guard.is_hurried() {
                    self.stirred = true;
                } else if engine.unanswered >= 2 && engine.sack_due.is_none() {
                    engine.sack_due = Some(now + SACK_DELAY);
                }
                self.drain_engine();
            }
            Verdict::Repeat(answer) => self.packets.push_back(answer),
            Verdict::Drop => tracing::trace!("SCTP packet dropped"),
            Verdict::Lost => self.lose(),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let Phase::Running(engine) = &mut self.phase else { return };
        if !engine.up && self.set_up_by.is_some_and(|at| now >= at) {
            return self.lose();
        }
        if engine.sack_due.is_some_and(|at| now >= at) {
            engine.sack_due = None;
            self.stirred = true;
        }
        self.packets.extend(engine.recovery.handle_timeout(now));
        if engine.poll_timeout().is_some_and(|at| at <= now)
            && let Some((_, association)) = &mut engine.association
        {
            engine.recovery.expired(now);
            association.handle_timeout(engine.clock.engine(now));
            self.stirred = true;
        }
        if engine.probe_due.is_some_and(|at| now >= at) {
            engine.probe_due = None;
            self.packets.push_back(engine.guard.probe());
            self.stirred = true;
        }
        let late = |c: &Channel| matches!(c.state, State::Resetting { until } if now >= until);
        let gone: Vec<ChannelId> = self.channels.iter().filter(|(_, c)| late(c)).map(|(id, _)| *id).collect();
        for id in gone {
            self.forget(id, true);
        }
        self.drain_engine();
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let Phase::Running(engine) = &self.phase else { return None };
        let timers = [engine.poll_timeout(), engine.recovery.poll_timeout()];
        let resets = self.channels.values().filter_map(|c| match c.state {
            State::Resetting { until } => Some(until),
            State::Waiting | State::Open | State::Draining | State::Ended { .. } => None,
        });
        let set_up = self.set_up_by.filter(|_| !engine.up);
        let ours = [engine.sack_due, engine.probe_due, set_up];
        timers.into_iter().chain(ours).flatten().chain(resets).min()
    }

    /// The next SCTP packet to send.
    pub(crate) fn poll_packet(&mut self) -> Option<Bytes> {
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return Some(packet);
            }
            if !self.stirred {
                // A burst needs the room once.
                self.packets.shrink_to(256);
                return None;
            }
            self.gather();
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<LegEvent> {
        self.events.pop_front()
    }

    pub(crate) fn open(&mut self, now: Instant, label: &str) -> Result<ChannelId, ChannelFault> {
        self.now = now;
        if matches!(self.phase, Phase::Lost(_)) {
            return Err(ChannelFault::Closed);
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(ChannelFault::TooMany(MAX_CHANNELS));
        }
        if label.len() > usize::from(u16::MAX) {
            return Err(ChannelFault::Label);
        }
        let id = self.add(Channel::new(State::Waiting, label.into(), None));
        self.open_waiting();
        Ok(id)
    }

    pub(crate) fn write(&mut self, now: Instant, id: ChannelId, bytes: &[u8]) -> Result<usize, ChannelFault> {
        self.now = now;
        let room = (self.config.send_buffer_bytes as usize).saturating_sub(self.buffered);
        let channel = self.channels.get_mut(&id).ok_or(ChannelFault::Closed)?;
        if !matches!(channel.state, State::Waiting | State::Open) {
            return Err(ChannelFault::Closed);
        }
        let taken = bytes.get(..room).unwrap_or(bytes);
        channel.blocked |= taken.len() < bytes.len();
        channel.owes_delivery |= !taken.is_empty() || bytes.is_empty();
        if bytes.is_empty() {
            channel.put_empty();
            self.buffered += 1;
        } else {
            channel.put(taken);
            self.buffered += taken.len();
        }
        self.stirred = true;
        Ok(taken.len())
    }

    pub(crate) fn read(&mut self, now: Instant, id: ChannelId, most: usize) -> Option<Vec<u8>> {
        self.now = now;
        self.fetch(id);
        let channel = self.channels.get_mut(&id)?;
        if channel.reading.is_empty() {
            channel.told = false;
            return None;
        }
        let out = if channel.reading.len() <= most {
            std::mem::take(&mut channel.reading).into()
        } else {
            channel.reading.split_to(most).to_vec()
        };
        if matches!(channel.state, State::Ended { .. }) {
            self.finish_ended(id);
        }
        self.announce_window();
        Some(out)
    }

    pub(crate) fn close(&mut self, now: Instant, id: ChannelId) {
        self.now = now;
        let Some(channel) = self.channels.get_mut(&id) else { return };
        match channel.state {
            State::Waiting if channel.queued == 0 => return self.forget(id, true),
            State::Waiting | State::Open => channel.state = State::Draining,
            // Nobody wants what came.
            State::Ended { clean } => return self.forget(id, clean),
            State::Draining | State::Resetting { .. } => return,
        }
        self.fetch(id);
        self.reset_drained(id);
    }

    pub(crate) fn unacked(&self, id: ChannelId) -> usize {
        self.channels.get(&id).map_or(0, |c| c.queued + c.unacked)
    }

    /// The leg ends: says goodbye with what is left to send.
    pub(crate) fn end(&mut self) {
        if let Phase::Running(engine) = &mut self.phase
            && let Some((_, association)) = &mut engine.association
            && engine.up
        {
            let _ = association.abort();
            self.stirred = true;
            self.gather();
        }
        self.phase = Phase::Lost(None);
        for id in self.channels.keys().copied().collect::<Vec<_>>() {
            self.forget(id, false);
        }
    }

    /// The association is gone, by the peer's will or fault, or with DTLS.
    pub(crate) fn lose(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Running(engine) => self.phase = Phase::Lost(Some(engine)),
            Phase::Waiting => self.phase = Phase::Lost(None),
            lost @ Phase::Lost(_) => self.phase = lost,
        }
        self.packets.clear();
        self.stirred = false;
        for id in self.channels.keys().copied().collect::<Vec<_>>() {
            if let Some(channel) = self.channels.get_mut(&id) {
                match channel.state {
                    State::Waiting | State::Open => channel.state = State::Ended { clean: false },
                    // All was acknowledged, and only the peer's half of the reset is missing.
                    State::Resetting { .. } => channel.state = State::Ended { clean: true },
                    State::Draining => channel.state = State::Ended { clean: false },
                    State::Ended { .. } => {}
                }
            }
            self.finish_ended(id);
        }
    }
}

impl DataChannels {
    fn add(&mut self, channel: Channel) -> ChannelId {
        let id = ChannelId(self.next_id);
        self.next_id += 1;
        self.channels.insert(id, channel);
        id
    }

    fn by_stream(&self, stream: u16) -> Option<ChannelId> {
        self.channels.iter().find(|(_, c)| c.stream == Some(stream)).map(|(id, _)| *id)
    }

    /// Opens what waits for the association, in the order of the calls.
    fn open_waiting(&mut self) {
        let Phase::Running(engine) = &mut self.phase else { return };
        if !engine.up {
            return;
        }
        for (id, channel) in &mut self.channels {
            if channel.stream.is_some() || !matches!(channel.state, State::Waiting | State::Draining) {
                continue;
            }
            let Some(stream) = engine.open(self.now, &channel.label) else {
                tracing::debug!("no stream for a data channel");
                channel.state = State::Ended { clean: false };
                continue;
            };
            channel.stream = Some(stream);
            if channel.state == State::Waiting {
                channel.state = State::Open;
            }
            let label = channel.label.clone();
            self.events.push_back(LegEvent::ChannelOpen { id: *id, label, by_peer: false });
            self.stirred = true;
        }
    }

    /// What the engine has to say.
    fn drain_engine(&mut self) {
        loop {
            let Phase::Running(engine) = &mut self.phase else { return };
            let Some((_, association)) = &mut engine.association else { return };
            let Some(event) = association.poll() else { break };
            match event {
                Event::Connected => {
                    engine.up = true;
                    engine.guard.set_established();
                    self.open_waiting();
                }
                Event::HandshakeFailed { .. } => return self.lose(),
                Event::AssociationLost { id, .. } => self.stream_reset(id),
                Event::Stream(StreamEvent::Readable { id }) => self.stream_readable(id),
                Event::Stream(StreamEvent::BufferedAmountReleased { id, n_bytes }) => self.released(id, n_bytes),
                // The engine's enums may grow; what is left says nothing that the above does not.
                Event::Stream(_) | Event::DatagramReceived | _ => {}
            }
        }
        if let Phase::Running(engine) = &mut self.phase
            && let Some((_, association)) = &mut engine.association
        {
            while association.accept_stream().is_some() {}
            if association.is_closed() && engine.up || engine.guard.is_ignored() {
                self.lose();
            }
        }
    }

    fn stream_readable(&mut self, stream: u16) {
        match self.by_stream(stream) {
            Some(id) => self.fetch(id),
            None => self.meet(stream),
        }
    }

    /// The first message of a stream that is nobody's: it has to open a channel (RFC 8832 §6).
    fn meet(&mut self, stream: u16) {
        let Phase::Running(engine) = &mut self.phase else { return };
        let Some((ssn, ppid, message)) = engine.read_message(stream) else { return };
        let theirs = stream % 2 == u16::from(engine.client);
        let room = self.channels.len() < MAX_CHANNELS;
        match Dcep::read(&message, MAX_LABEL_BYTES) {
            Some(Dcep::Open { reliable: true, label }) if ppid == Ppid::Dcep && theirs && room => {
                engine.write(self.now, stream, &Bytes::from_static(&dcep::ACK_MESSAGE), Ppid::Dcep);
                let id = self.add(Channel::new(State::Open, label.clone(), Some(stream)));
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.last_ssn = ssn;
                }
                self.events.push_back(LegEvent::ChannelOpen { id, label, by_peer: true });
                self.fetch(id);
            }
            Some(Dcep::Open { .. } | Dcep::Ack) | None => {
                tracing::debug!(stream, "stream refused: it opens no reliable channel");
                engine.close_stream(self.now, stream, ssn);
            }
        }
        self.stirred = true;
    }

    /// Gets the next message of a channel out of the engine, if none is being read.
    fn fetch(&mut self, id: ChannelId) {
        let (Phase::Running(engine) | Phase::Lost(Some(engine))) = &mut self.phase else { return };
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Some(stream) = channel.stream else { return };
        // Whoever closes a channel does not read it any more.
        let wanted = matches!(channel.state, State::Open | State::Ended { .. });
        while channel.reading.is_empty() || !wanted {
            channel.reading.clear();
            let Some((ssn, ppid, message)) = engine.read_message(stream) else { break };
            channel.last_ssn = ssn;
            match ppid {
                // Our OPEN is acknowledged; a second OPEN means nothing. RFC 8831 §6.6: an empty message has one byte.
                Ppid::Dcep | Ppid::StringEmpty | Ppid::BinaryEmpty => {}
                // Strings, and the partial messages of old Firefox, are bytes of the file too.
                Ppid::String | Ppid::Binary | Ppid::Unknown | _ => channel.reading = message,
            }
        }
        if wanted && !channel.reading.is_empty() && !channel.told {
            channel.told = true;
            self.events.push_back(LegEvent::ChannelReadable(id));
        }
        // The engine may have performed a reset that waited for this.
        if matches!(self.phase, Phase::Running(_)) {
            self.stirred = true;
        }
    }

    fn released(&mut self, stream: u16, bytes: usize) {
        let Some(id) = self.by_stream(stream) else { return };
        let Some(channel) = self.channels.get_mut(&id) else { return };
        // Messages of DCEP are released too, but were never counted.
        let bytes = bytes.min(channel.unacked);
        channel.unacked -= bytes;
        self.buffered -= bytes;
        if let Phase::Running(engine) = &mut self.phase {
            engine.outstanding -= bytes;
        }
        if channel.unacked + channel.queued == 0 && std::mem::take(&mut channel.owes_delivery) {
            self.events.push_back(LegEvent::ChannelDelivered(id));
        }
        self.tell_writable();
        self.reset_drained(id);
        self.stirred = true;
    }

    fn tell_writable(&mut self) {
        // A quarter of the buffer at a time, so that writers are not woken for every packet.
        let limit = self.config.send_buffer_bytes as usize;
        if limit.saturating_sub(self.buffered) < limit / 4 {
            return;
        }
        for (id, channel) in &mut self.channels {
            if std::mem::take(&mut channel.blocked) && matches!(channel.state, State::Waiting | State::Open) {
                self.events.push_back(LegEvent::ChannelWritable(*id));
            }
        }
    }

    /// Resets the stream of a channel that is to be closed, once nothing of it is left to be delivered.
    fn reset_drained(&mut self, id: ChannelId) {
        let Phase::Running(engine) = &mut self.phase else { return };
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let Some(stream) = channel.stream else { return };
        if channel.state == State::Draining && channel.queued + channel.unacked == 0 {
            engine.close_stream(self.now, stream, channel.last_ssn);
            channel.state = State::Resetting { until: self.now + RESET_PATIENCE };
            self.stirred = true;
        }
    }

    /// The engine has let go of a stream: the peer has reset it, everything complete on it was read.
    fn stream_reset(&mut self, stream: u16) {
        let id = self.by_stream(stream);
        let Phase::Running(engine) = &mut self.phase else { return };
        if engine.association.as_ref().is_none_or(|(_, a)| a.is_closed()) {
            return;
        }
        engine.guard.unsilence(stream);
        let Some(id) = id else { return };
        let Some(channel) = self.channels.get_mut(&id) else { return };
        match channel.state {
            State::Resetting { .. } => self.forget(id, true),
            State::Waiting | State::Open | State::Draining => {
                let clean = channel.queued + channel.unacked == 0;
                channel.state = State::Ended { clean };
                engine.owed_resets.push(stream);
                self.finish_ended(id);
            }
            State::Ended { .. } => {}
        }
        self.stirred = true;
    }

    /// Tells the end of a channel that has ended, once everything has been read.
    fn finish_ended(&mut self, id: ChannelId) {
        self.fetch(id);
        if let Some(Channel { state: State::Ended { clean }, reading, .. }) = self.channels.get(&id)
            && reading.is_empty()
        {
            self.forget(id, *clean);
        }
    }

    fn forget(&mut self, id: ChannelId, clean: bool) {
        if let Some(channel) = self.channels.remove(&id) {
            self.buffered -= channel.queued + channel.unacked;
            if let Phase::Running(engine) = &mut self.phase {
                engine.outstanding -= channel.unacked;
            }
            self.events.push_back(LegEvent::ChannelClosed { id, clean });
            self.tell_writable();
        }
    }

    /// Tells the peer that its window is open again, once a reader has made room for a quarter of it.
    fn announce_window(&mut self) {
        let Phase::Running(engine) = &mut self.phase else { return };
        let window = self.config.receive_window_bytes as usize;
        if engine.read >= window / 4 && (engine.guard.our_window as usize) < window / 2 {
            let nudge = engine.guard.nudge();
            engine.feed(self.now, nudge);
            self.stirred = true;
            self.drain_engine();
        }
    }

    /// Gives the engine what it may send, and takes what it sends.
    fn gather(&mut self) {
        self.stirred = false;
        self.give();
        let Phase::Running(engine) = &mut self.phase else { return };
        let now = engine.clock.engine(self.now);
        let Some((_, association)) = &mut engine.association else { return };
        if let Some(message) = association.poll_transmit(now)
            && let Payload::RawEncode(packets) = message.message
        {
            self.stirred = true;
            for packet in packets {
                if packet.get(12) == Some(&3) {
                    engine.unanswered = 0;
                    engine.sack_due = None;
                    engine.read = 0;
                }
                self.packets.push_back(engine.outgoing(self.now, packet));
            }
        }
        // Most peers' resets are answered by the engine with ours; where data was still missing it does not.
        let Some((_, association)) = &mut engine.association else { return };
        for stream in std::mem::take(&mut engine.owed_resets) {
            if !engine.guard.reset_streams.contains(&stream) && association.open_stream(stream, Ppid::Unknown).is_ok() {
                let _ = association.stream(stream).and_then(|mut s| s.close(now));
                self.stirred = true;
            }
        }
        engine.guard.reset_streams.clear();
    }

    /// Messages for the engine: as far as the peer's window goes, channel by channel in turn.
    ///
    /// The engine itself would probe a shut window with its retransmission timer, and take each probe that the peer
    /// refuses for loss: after a pause of its reader no connection would ever be fast again.
    fn give(&mut self) {
        let Phase::Running(engine) = &mut self.phase else { return };
        loop {
            let mut given = false;
            for channel in self.channels.values_mut() {
                let (State::Open | State::Draining, Some(stream)) = (channel.state, channel.stream) else { continue };
                let Some(length) = channel.next_length() else { continue };
                if engine.ahead() >= AHEAD_BYTES {
                    return;
                }
                if !engine.has_room(self.now, length) {
                    continue;
                }
                let (message, ppid) = match channel.take_message() {
                    Some(message) if message.is_empty() => (Bytes::from_static(&[0]), Ppid::BinaryEmpty),
                    Some(message) => (message, Ppid::Binary),
                    None => continue,
                };
                if !engine.write(self.now, stream, &message, ppid) {
                    self.buffered -= message.len();
                    continue;
                }
                engine.outstanding += message.len();
                channel.unacked += message.len();
                given = true;
            }
            if !given {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
    use super::guard::tests::{packet, resealed};
    use super::*;

    /// Two ends without DTLS between them: index 0 is its client.
    struct Link {
        now: Instant,
        ends: [DataChannels; 2],
        /// Every packet that went over the link, with its sender.
        seen: Vec<(usize, Bytes)>,
    }

    impl Link {
        fn new() -> Self {
            let now = Instant::now();
            let mut ends = [0, 1].map(|_| DataChannels::new(now, DataConfig::default()));
            ends[0].start(now, true);
            ends[1].start(now, false);
            Self { now, ends, seen: Vec::new() }
        }

        fn up() -> Self {
            let mut link = Self::new();
            link.carry();
            link
        }

        fn carry(&mut self) {
            let mut moved = true;
            while std::mem::take(&mut moved) {
                for from in 0..2 {
                    while let Some(packet) = self.ends[from].poll_packet() {
                        moved = true;
                        self.ends[1 - from].handle_packet(self.now, BytesMut::from(&packet[..]));
                        self.seen.push((from, packet));
                    }
                }
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.ends.iter_mut().for_each(|e| e.handle_timeout(self.now));
            self.carry();
        }

        fn events(&mut self, end: usize) -> Vec<LegEvent> {
            std::iter::from_fn(|| self.ends[end].poll_event()).collect()
        }
    }

    fn is_up(end: &DataChannels) -> bool {
        matches!(&end.phase, Phase::Running(engine) if engine.up)
    }

    #[test]
    fn a_peer_that_never_resets_does_not_keep_a_channel_from_closing() {
        let mut link = Link::up();
        let id = link.ends[0].open(link.now, "f").unwrap();
        link.ends[0].write(link.now, id, b"bytes").unwrap();
        link.carry();
        link.pass(SACK_DELAY);
        link.pass(Duration::from_millis(100));
        link.events(0);
        link.ends[0].close(link.now, id);
        // Nothing comes back any more.
        while link.ends[0].poll_packet().is_some() {}
        assert_eq!(link.events(0), []);
        link.now += RESET_PATIENCE;
        link.ends[0].handle_timeout(link.now);
        assert_eq!(link.events(0), [LegEvent::ChannelClosed { id, clean: true }]);
        assert_eq!(link.ends[0].buffered, 0);
    }

    #[test]
    fn a_channel_that_cannot_carry_a_file_is_refused() {
        for (name, stream, open) in [
            ("unordered", 0, vec![3, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, b'x']),
            ("our parity", 1, vec![3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, b'x']),
            ("no DCEP", 0, vec![1, 2, 3]),
            ("label too long", 0, [&[3, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0][..], &[b'x'; 2048]].concat()),
        ] {
            let mut link = Link::up();
            let now = link.now;
            let Phase::Running(engine) = &mut link.ends[0].phase else { panic!() };
            engine.association.as_mut().unwrap().1.open_stream(stream, Ppid::Dcep).unwrap();
            assert!(engine.write(now, stream, &open.into(), Ppid::Dcep));
            link.ends[0].stirred = true;
            link.carry();
            link.pass(Duration::from_millis(100));
            assert_eq!(link.events(1), [], "{name}");
            let reset = link.seen.iter().any(|(from, packet)| *from == 1 && packet.get(12) == Some(&130));
            assert!(reset, "{name}");
        }
    }

    #[test]
    fn an_init_that_is_repeated_gets_the_same_answer_and_no_second_association() {
        let mut link = Link::new();
        let init = link.ends[0].poll_packet().unwrap();
        let mut answers = Vec::new();
        for _ in 0..50 {
            link.ends[1].handle_packet(link.now, BytesMut::from(&init[..]));
            answers.extend(std::iter::from_fn(|| link.ends[1].poll_packet()));
        }
        assert_eq!(answers.len(), 50);
        assert!(answers.iter().all(|a| *a == answers[0]));
        link.ends[0].handle_packet(link.now, BytesMut::from(&answers[0][..]));
        link.carry();
        assert!(is_up(&link.ends[0]) && is_up(&link.ends[1]));
        // A late one changes nothing.
        link.ends[1].handle_packet(link.now, BytesMut::from(&init[..]));
        assert!(is_up(&link.ends[1]));
    }

    #[test]
    fn an_association_that_never_comes_up_closes_its_channels() {
        let mut link = Link::new();
        let id = link.ends[1].open(link.now, "f").unwrap();
        link.ends[1].write(link.now, id, b"bytes").unwrap();
        assert_eq!(link.ends[1].poll_timeout(), Some(link.now + SET_UP));
        link.ends[1].handle_timeout(link.now + SET_UP);
        assert_eq!(link.events(1), [LegEvent::ChannelClosed { id, clean: false }]);
        assert_eq!(link.ends[1].open(link.now, "g"), Err(ChannelFault::Closed));
    }

    /// SplitMix64.
    struct Rng(u64);

    impl Rng {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) % limit as u64) as usize
        }
    }

    /// Packets of a whole life, of both ends, and some that no honest end sends.
    fn seeds() -> Vec<Vec<u8>> {
        let mut link = Link::up();
        let id = link.ends[0].open(link.now, "file").unwrap();
        link.ends[0].write(link.now, id, &[7; 40_000]).unwrap();
        link.carry();
        let back = link.ends[1].open(link.now, "back").unwrap();
        link.ends[1].write(link.now, back, &[8; 3000]).unwrap();
        link.carry();
        link.pass(SACK_DELAY);
        link.ends[0].close(link.now, id);
        link.pass(Duration::from_millis(100));
        let mut all: Vec<Vec<u8>> = link.seen.iter().map(|(_, p)| p.to_vec()).collect();
        for (kind, value) in [
            (6u8, &[0, 12, 0, 8, 1, 2, 3, 4][..]),
            (9, &[0, 6, 0, 9, 1, 2, 3, 4, 5, 0, 0, 0]),
            (192, &[0, 0, 0, 1, 0, 0, 0, 1]),
            (4, &[0, 1, 0, 8, 1, 2, 3, 4]),
            (7, &[0, 0, 0, 1]),
            (8, &[]),
            (14, &[]),
            (130, &[0, 13, 0, 18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0]),
            (130, &[0, 16, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1]),
            (64, &[1, 2, 3, 4]),
        ] {
            all.push(packet(0, &[(kind, 0, value)]).to_vec());
        }
        all
    }

    fn mutated(rng: &mut Rng, seeds: &[Vec<u8>], tag: u32, base: u32) -> Vec<u8> {
        let mut out = seeds[rng.below(seeds.len())].clone();
        // Chunks of another packet behind it.
        if rng.below(3) == 0 {
            let other = &seeds[rng.below(seeds.len())];
            out.extend_from_slice(&other[12..]);
        }
        for _ in 0..rng.below(4) {
            let at = rng.below(out.len());
            match rng.below(6) {
                0 => out[at] ^= 1 << rng.below(8),
                1 => out[at] = rng.below(256) as u8,
                2 => out[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5)],
                3 => out.truncate(at.max(12)),
                // A TSN near the ones that count.
                4 if out.len() >= 20 => {
                    let at = 16 + 4 * rng.below((out.len() - 16) / 4);
                    out[at..at + 4].copy_from_slice(&base.wrapping_add(rng.below(20) as u32).to_be_bytes());
                }
                _ => {
                    let most = out.len() - at;
                    let piece = out[at..at + rng.below(most.min(40) + 1)].to_vec();
                    let into = rng.below(out.len());
                    out.splice(into..into, piece);
                }
            }
        }
        if out.len() >= 12 && rng.below(10) > 0 {
            let init = out.get(12) == Some(&1) && rng.below(10) > 0;
            out[4..8].copy_from_slice(&if init { 0 } else { tag }.to_be_bytes());
        }
        resealed(out).to_vec()
    }

    /// What one packet of a hostile peer may cost us: allocations, bytes of them, packets, and numbers counted by the engine.
    const MOST_FOR_ONE_PACKET: [u64; 4] = [1_000, 1_000_000, 100, 10_000];

    /// Threat: a contact whose client is hostile. OFFHOOK_SEQUENCES says how many more for a soak.
    #[test]
    fn a_hostile_peer_neither_stops_nor_delays_us_with_mutated_packets() {
        let rounds = std::env::var("OFFHOOK_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(120_000);
        let (seeds, mut rng) = (seeds(), Rng(1));
        let (mut done, mut lost) = (0, 0);
        // Of one packet: allocations, bytes of them, packets of ours, and what the engine had to count.
        let mut most = [0; 4];
        while done < rounds {
            // A victim in any state: either role, before and after set-up, with and without channels and bytes.
            let mut link = if rng.below(3) == 0 { Link::new() } else { Link::up() };
            let victim = rng.below(2);
            if rng.below(2) == 0 {
                let id = link.ends[victim].open(link.now, "mine").unwrap();
                link.ends[victim].write(link.now, id, &[1; 20_000]).unwrap();
                if rng.below(2) == 0 {
                    link.carry();
                }
            }
            while link.ends[victim].poll_packet().is_some() {}
            for _ in 0..24 {
                let (tag, base) = match &link.ends[victim].phase {
                    Phase::Running(engine) => engine.guard.identity(),
                    Phase::Waiting | Phase::Lost(_) => break,
                };
                let hostile = mutated(&mut rng, &seeds, tag, base);
                let end = &mut link.ends[victim];
                let mut sent = 0;
                let spent = allocation_counter::measure(|| {
                    end.handle_packet(link.now, BytesMut::from(&hostile[..]));
                    sent += std::iter::from_fn(|| end.poll_packet()).count() as u64;
                    if rng.below(4) == 0 {
                        link.now += Duration::from_millis(rng.below(2000) as u64);
                        end.handle_timeout(link.now);
                        sent += std::iter::from_fn(|| end.poll_packet()).count() as u64;
                    }
                    while let Some(event) = end.poll_event() {
                        if let LegEvent::ChannelReadable(id) = event {
                            while end.read(link.now, id, 4096).is_some() {}
                        }
                    }
                });
                let steps = match &mut end.phase {
                    Phase::Running(engine) => std::mem::take(&mut engine.steps),
                    Phase::Waiting | Phase::Lost(_) => 0,
                };
                for (most, one) in most.iter_mut().zip([spent.count_total, spent.bytes_total, sent, steps]) {
                    *most = one.max(*most);
                }
                done += 1;
            }
            lost += usize::from(!matches!(link.ends[victim].phase, Phase::Running(_)));
        }
        println!(
            "{done} packets, {lost} associations lost; of one at most: allocations, bytes, packets, steps {most:?}"
        );
        // One packet of the kind that the guard stops takes millions of each.
        assert!(most.iter().zip(MOST_FOR_ONE_PACKET).all(|(most, limit)| *most <= limit), "{most:?}");
    }

    #[test]
    fn small_chunks_and_endless_messages_stay_within_the_memory_of_the_window() {
        let mut link = Link::up();
        let (tag, base) = match &link.ends[1].phase {
            Phase::Running(engine) => engine.guard.identity(),
            Phase::Waiting | Phase::Lost(_) => panic!(),
        };
        let grown = allocation_counter::measure(|| {
            for n in 1..60_000u32 {
                let mut value = base.wrapping_add(n).to_be_bytes().to_vec();
                // One message without an end in pieces of a byte.
                value.extend([0, 0, 0, 0, 0, 0, 0, 53, 9]);
                let flags = if n == 1 { 2 } else { 0 };
                let hostile = packet(tag, &[(0, flags, &value)]);
                link.ends[1].handle_packet(link.now, BytesMut::from(&hostile[..]));
                while link.ends[1].poll_packet().is_some() {}
            }
        });
        println!("{} bytes", grown.bytes_current);
        assert!(grown.bytes_current < 6_000_000, "{}", grown.bytes_current);
    }
}

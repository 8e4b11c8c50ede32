//! The jitter buffer: packets in as the network brings them, out as the sound clock asks. Read RFC 3550 §6.4.1, appendix
//! A.1, and "NetEQ" in the WebRTC sources before touching this file.
//!
//! All is reckoned in transit time = arrival − media time. The fastest packet of the last seconds is the base line. A
//! packet's excess over it goes into a histogram, whose 95 % quantile is the delay we aim at. The delay we have is the
//! excess of the sample that is played now; the owner stretches or shrinks the sound to bring the two together.
//!
//! ```text
//!           insert                 as old as the target             nothing for 1 s
//! ┌───────┐ ───────▶ ┌───────────┐ ─────────────────▶ ┌─────────┐ ─────────────────▶ Waiting
//! │ Empty │          │  Waiting  │                    │ Playing │ ◀─┐ packet: Frame
//! └───────┘          └───────────┘                    └─────────┘   │ hole before a packet: Lost (with its FEC)
//!     ▲   SSRC, clock, time stamp or sequence jump:        │        │ nothing there: Lost, playing position held
//!     └── all packets dropped, new base line ──────────────┴────────┘ nothing sent (DTX): Silence
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::wire::rtp::{RtpHeader, Ssrc};

/// Knobs of a jitter buffer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JitterConfig {
    /// Never aim below.
    pub min_delay: Duration,
    /// Never aim above, never hold a packet back for longer.
    pub max_delay: Duration,
    /// Part of the packets that shall come in time, 0 to 1.
    pub quantile: f64,
}

impl Default for JitterConfig {
    fn default() -> Self {
        Self { min_delay: Duration::from_millis(20), max_delay: Duration::from_millis(800), quantile: 0.95 }
    }
}

/// Most packets that wait; 200 of 5 ms are a second (threat: memory).
pub const MAX_PACKETS: usize = 200;
/// Most sound that waits, in microseconds.
const MAX_SPAN_US: i64 = 1_000_000;
/// Nothing for so long: start anew with the next packet.
const GIVE_UP_US: i64 = 1_000_000;
/// RFC 3550 A.1: a step forward past this, or a step back past the other, is a new sequence.
const MAX_DROPOUT: i64 = 3_000;
const MAX_MISORDER: i64 = 100;
/// A transit time that differs by so much is a new time line (sender restarted its clock).
const TRANSIT_JUMP_US: i64 = 2_000_000;
/// Playing starts so much above the target: in the middle of the band where `stretch` leaves it alone.
const START_MARGIN_US: i64 = 10_000;
/// Packets of the stream before a change of SSRC may straggle so long.
const OLD_SSRC: Duration = Duration::from_secs(1);

/// What kind of packet it is, as far as playing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Speech.
    Speech,
    /// Speech after which the sender may be silent (Opus DTX).
    SpeechThenSilence,
    /// A description of noise (RFC 3389), after which the sender is silent.
    ComfortNoise,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It waits to be played.
    Stored,
    /// It was there already, or was played.
    Duplicate,
    /// Its place was played over.
    Late,
    /// It fits no known stream: a second one like it starts a new one.
    Suspect,
}

/// What is to be played next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// Decode this.
    Frame {
        /// Payload type of the packet.
        payload_type: u8,
        /// RTP ticks of it.
        ticks: u32,
        /// The packet.
        payload: &'a [u8],
    },
    /// Make up this much; `fec` is the packet right after the hole.
    Lost {
        /// RTP ticks to make up.
        ticks: u32,
        /// Payload type and payload of the packet after.
        fec: Option<(u8, &'a [u8])>,
    },
    /// Noise of this description follows.
    ComfortNoise {
        /// RFC 3389 payload.
        payload: &'a [u8],
    },
    /// The sender is silent: make noise for this much.
    Silence {
        /// RTP ticks.
        ticks: u32,
    },
    /// Nothing was received yet, or nothing for long.
    Empty,
}

/// How the sound that waits should change its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// The delay is right.
    Keep,
    /// The delay is too long; true if by far.
    Faster(bool),
    /// The delay is too short; true if by far.
    Slower(bool),
    /// Packets come out at the right age, but decoded sound waits on top: take some of that out, not more.
    Trim,
}

/// Counters of a jitter buffer, since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JitterStats {
    /// Packets taken in.
    pub received: u64,
    /// Came after their place was played.
    pub late: u64,
    /// Copies of packets that were there.
    pub duplicates: u64,
    /// Dropped because too much waited.
    pub overflow: u64,
    /// Fitted no stream.
    pub suspect: u64,
    /// New streams, the first one included.
    pub restarts: u64,
}

#[derive(Debug)]
struct Slot {
    seq: i64,
    time: i64,
    ticks: u32,
    payload_type: u8,
    kind: Kind,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Waiting,
    /// `next`: media time of the next sample to be decoded. `last_seq`: last packet that was played or given up.
    /// `held`: ticks made up while the position stood still. `silent`: the sender said that it stops.
    Playing {
        next: i64,
        last_seq: i64,
        held: i64,
        silent: bool,
    },
}

/// One stream's packets on their way to the decoder.
#[derive(Debug)]
pub struct JitterBuffer {
    config: JitterConfig,
    state: State,
    slots: VecDeque<Slot>,
    pool: Vec<Vec<u8>>,
    current: Vec<u8>,
    stream: Option<Stream>,
    old_ssrc: Option<(Ssrc, Instant)>,
    suspect: Option<(u16, i64)>,
    // Sequence numbers that carry no speech (DTMF): they are no holes.
    foreign: [Option<i64>; 16],
    next_foreign: usize,
    frame_ticks: u32,
    delay: DelayEstimator,
    fec_wait_us: i64,
    loss: f64,
    // Bit n: packet `played_seq - n` was played; tells a copy from a late packet.
    played: u128,
    played_seq: i64,
    stats: JitterStats,
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    ssrc: Ssrc,
    clock_hz: u32,
    epoch: Instant,
    // The newest packet: wrapped and unwrapped numbers (RFC 3550 A.1).
    seq: u16,
    seq_ext: i64,
    time: u32,
    time_ext: i64,
    transit_us: i64,
}

impl Stream {
    fn us(&self, ticks: i64) -> i64 {
        ticks.saturating_mul(1_000_000) / i64::from(self.clock_hz.max(1))
    }

    fn arrival_us(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.epoch).as_micros()).unwrap_or(i64::MAX)
    }
}

impl JitterBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(config: JitterConfig) -> Self {
        Self {
            delay: DelayEstimator::new(config.quantile),
            config,
            state: State::Empty,
            slots: VecDeque::with_capacity(MAX_PACKETS + 1),
            pool: Vec::with_capacity(MAX_PACKETS + 1),
            current: Vec::with_capacity(256),
            stream: None,
            old_ssrc: None,
            suspect: None,
            foreign: [None; 16],
            next_foreign: 0,
            frame_ticks: 0,
            fec_wait_us: 0,
            loss: 0.0,
            played: 0,
            played_seq: 0,
            stats: JitterStats::default(),
        }
    }

    /// Takes a packet of `ticks` RTP ticks of a `clock_hz` clock.
    pub fn insert(&mut self, now: Instant, header: &RtpHeader, payload: &[u8], format: PacketFormat) -> Inserted {
        let PacketFormat { ticks, clock_hz, kind } = format;
        let Some((seq, time, transit_us)) = self.place(now, header, clock_hz) else {
            self.stats.suspect += 1;
            return Inserted::Suspect;
        };
        self.stats.received += 1;
        if ticks > 0 {
            self.frame_ticks = ticks;
        }
        let at = self.slots.partition_point(|slot| slot.seq < seq);
        if self.slots.get(at).is_some_and(|slot| slot.seq == seq) {
            self.stats.duplicates += 1;
            return Inserted::Duplicate;
        }
        let passed = matches!(self.state, State::Playing { last_seq, .. } if seq <= last_seq);
        let back = self.played_seq - seq;
        if passed && (0..128).contains(&back) && (self.played >> back) & 1 == 1 {
            self.stats.duplicates += 1;
            return Inserted::Duplicate;
        }
        // Late packets count as well: they are what the delay has to grow for.
        self.delay.packet(self.stream.map_or(0, |s| s.arrival_us(now)), transit_us);
        if passed {
            self.stats.late += 1;
            return Inserted::Late;
        }
        let mut stored = self.pool.pop().unwrap_or_default();
        stored.clear();
        stored.extend_from_slice(payload);
        let slot = Slot { seq, time, ticks, payload_type: header.payload_type, kind, payload: stored };
        self.slots.insert(at, slot);
        if self.state == State::Empty {
            self.state = State::Waiting;
        }
        self.drop_excess();
        Inserted::Stored
    }

    /// Notes a packet of the same stream that carries no speech (DTMF), so that its number is no hole.
    pub fn note_foreign(&mut self, header: &RtpHeader) {
        let Some(stream) = &mut self.stream else { return };
        if stream.ssrc != header.ssrc {
            return;
        }
        let step = i64::from(header.seq.0.wrapping_sub(stream.seq) as i16);
        if !(-MAX_MISORDER..MAX_DROPOUT).contains(&step) {
            return;
        }
        let seq = stream.seq_ext + step;
        if step > 0 {
            stream.seq = header.seq.0;
            stream.seq_ext = seq;
        }
        if self.foreign.contains(&Some(seq)) {
            return;
        }
        if let Some(slot) = self.foreign.get_mut(self.next_foreign) {
            *slot = Some(seq);
        }
        self.next_foreign = (self.next_foreign + 1) % self.foreign.len();
    }

    /// What is to be decoded next; `waiting_ticks` of decoded sound wait to be played.
    pub fn next(&mut self, now: Instant, waiting_ticks: u32) -> Next<'_> {
        let Some(stream) = self.stream else { return Next::Empty };
        let target_us = self.target_us();
        match self.state {
            State::Empty => return Next::Empty,
            State::Waiting => {
                let Some(front) = self.slots.front() else { return Next::Empty };
                let age = self.excess_us(&stream, now, front.time - i64::from(waiting_ticks));
                if age < target_us + START_MARGIN_US {
                    return Next::Empty;
                }
                self.state = State::Playing { next: front.time, last_seq: front.seq - 1, held: 0, silent: false };
            }
            State::Playing { .. } => {}
        }
        let State::Playing { mut next, mut last_seq, mut held, silent } = self.state else { return Next::Empty };
        // What the playing position has passed is late, unless the sender's own steps are odd: then nothing is missing.
        while let Some(front) = self.slots.front() {
            let passed = front.time + i64::from(front.ticks) <= next && front.ticks > 0;
            if !passed || silent || self.missing_between(last_seq, front.seq) == 0 {
                break;
            }
            last_seq = front.seq;
            self.stats.late += 1;
            self.drop_front();
        }
        let waiting = next - i64::from(waiting_ticks);
        let frame = i64::from(self.frame_ticks.max(1));
        let Some(front) = self.slots.front() else {
            let short = self.excess_us(&stream, now, waiting);
            // RFC 4733 §2.5.1.2: during an event no sound is sent.
            if silent || self.foreign.contains(&Some(last_seq + 1)) {
                // Silence flows on by itself; where it ends is the next packet's business.
                self.state = State::Playing { next: next + frame, last_seq, held, silent };
                return Next::Silence { ticks: frame as u32 };
            }
            held += frame;
            if stream.us(held) > GIVE_UP_US {
                self.state = State::Waiting;
                return Next::Empty;
            }
            if short > self.max_us() {
                // As much delay as allowed: what comes now for this place would be too old.
                next += frame;
            }
            self.state = State::Playing { next, last_seq, held, silent };
            return Next::Lost { ticks: frame as u32, fec: None };
        };
        let missing = self.missing_between(last_seq, front.seq);
        let mut gap = front.time - next;
        if gap > 0 && held > 0 {
            // Part of the hole was made up while nothing was there.
            let skip = held.min(gap);
            next += skip;
            gap -= skip;
        }
        if gap <= 0 {
            return self.take_front(missing);
        }
        if missing == 0 || silent {
            // Nothing was sent in between. Play on time: as old as the target, not earlier.
            let due = self.excess_us(&stream, now, front.time - i64::from(waiting_ticks)) >= target_us;
            if due {
                return self.take_front(missing);
            }
            let ticks = gap.min(frame);
            self.state = State::Playing { next: (next + ticks).min(front.time), last_seq, held: 0, silent };
            return Next::Silence { ticks: ticks as u32 };
        }
        let length = if front.ticks == 0 { frame } else { i64::from(front.ticks) };
        let last_piece = gap <= length;
        let ticks = if last_piece { gap } else { (gap - length).min(length) };
        self.state = State::Playing { next: next + ticks, last_seq, held: 0, silent };
        let fec = self.slots.front().filter(|_| last_piece).map(|slot| (slot.payload_type, slot.payload.as_slice()));
        Next::Lost { ticks: ticks as u32, fec }
    }

    /// True if the packet that is to be played next is there.
    #[must_use]
    pub fn has_next(&self) -> bool {
        match self.state {
            State::Empty | State::Waiting => false,
            State::Playing { next, .. } => self.slots.front().is_some_and(|slot| slot.time <= next && slot.ticks > 0),
        }
    }

    /// How the sound that waits should be stretched, asked when the next packet is about to be decoded. `step`: how
    /// much sound is pulled at once; `spare`: decoded sound that waits, less than that.
    ///
    /// What must be right is the age of a packet when it is decoded, for by then it must be there. That age comes in
    /// whole steps, since packets are decoded when sound is pulled: the right one is the least above the target, and
    /// `spare` is delay that saves no packet.
    #[must_use]
    pub fn stretch(&self, now: Instant, spare: Duration, step: Duration) -> Stretch {
        // One packet in twenty is slower than the target, and a hole is worse than delay.
        const TOO_SHORT_US: i64 = 500;
        // The target moves in steps of 5 ms; a step of delay is not given up and taken back for that.
        const SLACK_US: i64 = 3_000;
        const FAR_US: i64 = 80_000;
        // Shorter than the shortest pitch period that can be taken out.
        const SPARE: Duration = Duration::from_millis(5);
        let step_us = i64::try_from(step.as_micros()).unwrap_or(MAX_SPAN_US);
        // While sound is made up the delay grows by itself: to shrink that sound would be to make up more.
        let State::Playing { silent: false, held: 0, .. } = self.state else { return Stretch::Keep };
        let Some(delay) = self.delay_us(now, 0) else { return Stretch::Keep };
        let error = delay - self.target_us();
        if error > TOO_SHORT_US + step_us + SLACK_US {
            Stretch::Faster(error > FAR_US)
        } else if error < TOO_SHORT_US {
            Stretch::Slower(error < -FAR_US)
        } else if spare > SPARE {
            Stretch::Trim
        } else {
            Stretch::Keep
        }
    }

    /// Waits for the packet after a lost one, so that its FEC can be used: true while packets carry FEC.
    pub fn set_fec(&mut self, carried: bool) {
        let frame_us = self.stream.map_or(0, |stream| stream.us(i64::from(self.frame_ticks)));
        // One loss in 100 is worth a packet's time of delay.
        self.fec_wait_us = if carried && self.loss > 0.01 { frame_us } else { 0 };
    }

    /// Delay that is aimed at.
    #[must_use]
    pub fn target(&self) -> Duration {
        Duration::from_micros(self.target_us().unsigned_abs())
    }

    /// Delay of what is played now, if anything is played.
    #[must_use]
    pub fn delay(&self, now: Instant, waiting_ticks: u32) -> Option<Duration> {
        let us = self.delay_us(now, waiting_ticks)?;
        Some(Duration::from_micros(u64::try_from(us).unwrap_or(0)))
    }

    /// RTP clock of the stream, 0 before the first packet.
    #[must_use]
    pub fn clock_hz(&self) -> u32 {
        self.stream.map_or(0, |stream| stream.clock_hz)
    }

    /// Packets that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True if no packet waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> JitterStats {
        self.stats
    }

    // Finds a packet's place in the stream: unwrapped number, unwrapped time, transit. `None` while in doubt.
    fn place(&mut self, now: Instant, header: &RtpHeader, clock_hz: u32) -> Option<(i64, i64, i64)> {
        let Some(stream) = self.stream.filter(|s| s.ssrc == header.ssrc && s.clock_hz == clock_hz) else {
            if let Some((ssrc, since)) = self.old_ssrc
                && ssrc == header.ssrc
                && now.saturating_duration_since(since) < OLD_SSRC
            {
                return None;
            }
            return Some(self.restart(now, header, clock_hz));
        };
        let step = i64::from(header.seq.0.wrapping_sub(stream.seq) as i16);
        let seq = stream.seq_ext + step;
        let time = stream.time_ext + i64::from(header.time.0.wrapping_sub(stream.time) as i32);
        let transit_us = stream.arrival_us(now) - stream.us(time);
        let odd_seq = !(-MAX_MISORDER..MAX_DROPOUT).contains(&step);
        let odd_time = transit_us.abs_diff(stream.transit_us) > TRANSIT_JUMP_US.unsigned_abs();
        if odd_seq || odd_time {
            // RFC 3550 A.1: two in a row are a new sequence, one is a stray.
            let again = self.suspect.is_some_and(|(seq, transit)| {
                let near = header.seq.0.wrapping_sub(seq);
                (1..=3).contains(&near) && transit.abs_diff(transit_us) < TRANSIT_JUMP_US.unsigned_abs() / 4
            });
            if again {
                return Some(self.restart(now, header, clock_hz));
            }
            self.suspect = Some((header.seq.0, transit_us));
            return None;
        }
        self.suspect = None;
        let stream = self.stream.as_mut()?;
        stream.transit_us = transit_us;
        if step > 0 {
            stream.seq = header.seq.0;
            stream.seq_ext = seq;
            stream.time = header.time.0;
            stream.time_ext = time;
        }
        Some((seq, time, transit_us))
    }

    fn restart(&mut self, now: Instant, header: &RtpHeader, clock_hz: u32) -> (i64, i64, i64) {
        if let Some(stream) = self.stream.filter(|stream| stream.ssrc != header.ssrc) {
            self.old_ssrc = Some((stream.ssrc, now));
        }
        while !self.slots.is_empty() {
            self.drop_front();
        }
        self.foreign = [None; 16];
        self.played = 0;
        self.played_seq = 0;
        self.suspect = None;
        self.state = State::Empty;
        self.frame_ticks = 0;
        self.delay.new_base_line();
        self.stats.restarts += 1;
        // Far from zero on both sides: packets from before the first one have a place too.
        let (seq_ext, time_ext) = (1 << 20, 1 << 40);
        let mut stream = Stream {
            ssrc: header.ssrc,
            clock_hz,
            epoch: now,
            seq: header.seq.0,
            seq_ext,
            time: header.time.0,
            time_ext,
            transit_us: 0,
        };
        stream.transit_us = -stream.us(time_ext);
        self.stream = Some(stream);
        (seq_ext, time_ext, stream.transit_us)
    }

    fn take_front(&mut self, missing: i64) -> Next<'_> {
        let Some(slot) = self.slots.pop_front() else { return Next::Empty };
        let Slot { seq, time, ticks, payload_type, kind, payload } = slot;
        let silent = match kind {
            Kind::Speech => false,
            Kind::SpeechThenSilence | Kind::ComfortNoise => true,
        };
        for _ in 0..missing.min(50) {
            self.count_loss(true);
        }
        self.count_loss(false);
        let step = seq - self.played_seq;
        self.played = u32::try_from(step).ok().and_then(|step| self.played.checked_shl(step)).unwrap_or(0) | 1;
        self.played_seq = seq;
        self.state = State::Playing { next: time + i64::from(ticks), last_seq: seq, held: 0, silent };
        let old = std::mem::replace(&mut self.current, payload);
        self.pool.push(old);
        match kind {
            Kind::Speech | Kind::SpeechThenSilence => Next::Frame { payload_type, ticks, payload: &self.current },
            Kind::ComfortNoise => Next::ComfortNoise { payload: &self.current },
        }
    }

    fn drop_front(&mut self) {
        if let Some(slot) = self.slots.pop_front() {
            self.pool.push(slot.payload);
        }
    }

    fn drop_excess(&mut self) {
        let Some(stream) = self.stream else { return };
        loop {
            let (Some(front), Some(back)) = (self.slots.front(), self.slots.back()) else { return };
            let (front_seq, span) = (front.seq, stream.us(back.time - front.time));
            if self.slots.len() <= MAX_PACKETS && span <= MAX_SPAN_US {
                return;
            }
            self.stats.overflow += 1;
            self.drop_front();
            let Some(front) = self.slots.front() else { return };
            if let State::Playing { next, last_seq, held, silent } = &mut self.state {
                // The rest is played without a hole: what was dropped is not made up.
                *last_seq = (*last_seq).max(front_seq).max(front.seq - 1);
                *next = front.time;
                *held = 0;
                *silent = false;
            }
        }
    }

    // Packets with speech that should lie between two numbers.
    fn missing_between(&self, last_seq: i64, seq: i64) -> i64 {
        let foreign = self.foreign.iter().flatten().filter(|f| (last_seq + 1..seq).contains(*f)).count();
        (seq - last_seq - 1 - foreign as i64).max(0)
    }

    fn count_loss(&mut self, lost: bool) {
        // A memory of about 100 packets.
        self.loss += (f64::from(u8::from(lost)) - self.loss) / 100.0;
    }

    fn excess_us(&self, stream: &Stream, now: Instant, time: i64) -> i64 {
        stream.arrival_us(now) - stream.us(time) - self.delay.base_line_us(stream.transit_us)
    }

    fn delay_us(&self, now: Instant, waiting_ticks: u32) -> Option<i64> {
        let stream = self.stream?;
        match self.state {
            State::Empty | State::Waiting => None,
            State::Playing { next, .. } => Some(self.excess_us(&stream, now, next - i64::from(waiting_ticks))),
        }
    }

    fn target_us(&self) -> i64 {
        let least = i64::try_from(self.config.min_delay.as_micros()).unwrap_or(0);
        (self.delay.target_us() + self.fec_wait_us).clamp(least.min(self.max_us()), self.max_us())
    }

    fn max_us(&self) -> i64 {
        i64::try_from(self.config.max_delay.as_micros()).unwrap_or(MAX_SPAN_US).min(MAX_SPAN_US)
    }
}

/// What the payload type says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketFormat {
    /// RTP ticks of sound in it; 0 for comfort noise.
    pub ticks: u32,
    /// RTP clock.
    pub clock_hz: u32,
    /// Kind of packet.
    pub kind: Kind,
}

/// The base line and the histogram.
#[derive(Debug)]
struct DelayEstimator {
    quantile: f64,
    // Least transit time of each half second.
    buckets: [(i64, i64); BUCKETS],
    histogram: [f64; BINS],
    packets: u32,
}

// The base line is the fastest packet of the last 2 s: short enough to follow a new route, long enough for a spurt.
const BUCKETS: usize = 4;
const BUCKET_US: i64 = 500_000;
const BIN_US: i64 = 5_000;
const BINS: usize = 200;
// Before anything is known.
const FIRST_TARGET_US: i64 = 40_000;
// A packet's weight halves after about 9 s of 20 ms packets.
const FORGET: f64 = 0.9985;

impl DelayEstimator {
    fn new(quantile: f64) -> Self {
        let mut histogram = [0.0; BINS];
        if let Some(bin) = histogram.get_mut((FIRST_TARGET_US / BIN_US) as usize - 1) {
            *bin = 1.0;
        }
        Self { quantile: quantile.clamp(0.5, 0.999), buckets: [(i64::MIN, i64::MAX); BUCKETS], histogram, packets: 0 }
    }

    fn new_base_line(&mut self) {
        self.buckets = [(i64::MIN, i64::MAX); BUCKETS];
    }

    fn packet(&mut self, arrival_us: i64, transit_us: i64) {
        let period = arrival_us.div_euclid(BUCKET_US);
        // Old periods go: only the last `BUCKETS` ones count.
        for bucket in &mut self.buckets {
            if bucket.0 <= period - BUCKETS as i64 {
                *bucket = (i64::MIN, i64::MAX);
            }
        }
        if let Some(bucket) = self.buckets.get_mut(period.rem_euclid(BUCKETS as i64) as usize) {
            *bucket = (period, bucket.1.min(transit_us));
        }
        let excess = (transit_us - self.base_line_us(transit_us)).max(0);
        let bin = usize::try_from(excess / BIN_US).unwrap_or(BINS).min(BINS - 1);
        self.packets = self.packets.saturating_add(1);
        // The first packets weigh alike, whatever the memory's length.
        let keep = FORGET.min(1.0 - 1.0 / f64::from(self.packets.saturating_add(1)));
        for (n, weight) in self.histogram.iter_mut().enumerate() {
            *weight = *weight * keep + if n == bin { 1.0 - keep } else { 0.0 };
        }
    }

    fn base_line_us(&self, fallback: i64) -> i64 {
        let least = self.buckets.iter().map(|bucket| bucket.1).min().unwrap_or(i64::MAX);
        if least == i64::MAX { fallback } else { least }
    }

    fn target_us(&self) -> i64 {
        let mut sum = 0.0;
        for (n, weight) in self.histogram.iter().enumerate() {
            sum += weight;
            if sum >= self.quantile {
                return (n as i64 + 1) * BIN_US;
            }
        }
        BINS as i64 * BIN_US
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
    use super::*;
    use crate::wire::rtp::{MediaTime, SeqNo};

    const FORMAT: PacketFormat = PacketFormat { ticks: 160, clock_hz: 8_000, kind: Kind::Speech };

    fn header(seq: u16, time: u32) -> RtpHeader {
        RtpHeader { marker: false, payload_type: 0, seq: SeqNo(seq), time: MediaTime(time), ssrc: Ssrc(1) }
    }

    fn put(buffer: &mut JitterBuffer, now: Instant, n: u32) -> Inserted {
        let n0 = n.wrapping_add(65_533);
        buffer.insert(now, &header(n0 as u16, n.wrapping_mul(160).wrapping_sub(400)), &n.to_be_bytes(), FORMAT)
    }

    // What comes out, one letter a frame: its number's last digit, `x` for lost, `f` for lost with FEC, `-` for nothing.
    fn take(buffer: &mut JitterBuffer, now: Instant) -> char {
        match buffer.next(now, 0) {
            Next::Frame { payload, .. } => char::from(b'0' + payload[3] % 10),
            Next::Lost { fec: None, .. } => 'x',
            Next::Lost { fec: Some(_), .. } => 'f',
            Next::Silence { .. } => 's',
            Next::ComfortNoise { .. } => 'n',
            Next::Empty => '-',
        }
    }

    fn ms(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn swapped_and_repeated_packets_play_once_in_order_across_both_wraps() {
        let start = Instant::now();
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        let order = [0u32, 2, 1, 1, 3, 5, 4, 5, 6, 7, 8, 9];
        let mut out = String::new();
        for (n, number) in order.iter().enumerate() {
            put(&mut buffer, ms(start, n as u64 * 20), *number);
        }
        for n in 0..10u64 {
            out.push(take(&mut buffer, ms(start, 240 + n * 20)));
        }
        assert_eq!(out, "0123456789");
        assert_eq!(buffer.stats().duplicates, 2);
        assert_eq!(put(&mut buffer, ms(start, 460), 3), Inserted::Duplicate);
    }

    #[test]
    fn a_lost_packet_is_made_up_from_the_next_one_and_too_late_is_late() {
        let start = Instant::now();
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        for n in [0u32, 1, 3, 4, 7] {
            put(&mut buffer, ms(start, u64::from(n) * 20), n);
        }
        let out: String = (0..8).map(|n| take(&mut buffer, ms(start, 200 + n * 20))).collect();
        assert_eq!(out, "01f34xf7");
        assert_eq!(put(&mut buffer, ms(start, 400), 2), Inserted::Late);
        assert_eq!((buffer.stats().late, buffer.stats().duplicates), (1, 0));
    }

    #[test]
    fn a_pause_of_the_sender_is_silence_and_not_a_loss() {
        let start = Instant::now();
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        put(&mut buffer, start, 0);
        let noise = PacketFormat { ticks: 0, kind: Kind::ComfortNoise, ..FORMAT };
        // Numbers go on, time jumps over 400 ms.
        buffer.insert(ms(start, 20), &header(65_534, 160u32.wrapping_sub(400)), &[60], noise);
        let mut out = String::new();
        for n in 0..30u64 {
            if n == 18 {
                buffer.insert(ms(start, 420), &header(65_535, 3_360 - 400), &[0, 0, 0, 2], FORMAT);
            }
            out.push(take(&mut buffer, ms(start, 60 + n * 20)));
        }
        assert!(out.starts_with("0ns") && !out.contains('f') && out.contains('2'), "{out}");
        assert!(!out.split('2').next().unwrap().contains('x'), "{out}");
    }

    #[test]
    fn numbers_of_dtmf_packets_are_no_holes() {
        let start = Instant::now();
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        put(&mut buffer, start, 0);
        for seq in [65_534u16, 65_535, 0] {
            buffer.note_foreign(&header(seq, 0));
        }
        buffer.insert(ms(start, 80), &header(1, 640u32.wrapping_sub(400)), &[0, 0, 0, 4], FORMAT);
        let out: String = (0..4).map(|n| take(&mut buffer, ms(start, 60 + n * 20))).collect();
        assert_eq!(out, "0ss4");
    }

    #[test]
    fn the_buffer_is_bounded_in_packets_and_time() {
        let start = Instant::now();
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        for n in 0..5_000 {
            put(&mut buffer, ms(start, u64::from(n)), n);
            assert!(buffer.len() <= 51);
        }
        let small = PacketFormat { ticks: 8, ..FORMAT };
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        for n in 0..5_000u32 {
            buffer.insert(ms(start, u64::from(n)), &header(n as u16, n * 8), &[1], small);
            assert!(buffer.len() <= MAX_PACKETS);
        }
    }

    #[test]
    fn a_stray_packet_changes_nothing_and_two_in_a_row_are_a_new_sequence() {
        let start = Instant::now();
        let mut buffer = JitterBuffer::new(JitterConfig::default());
        for n in 0..5u32 {
            put(&mut buffer, ms(start, u64::from(n) * 20), n);
        }
        assert_eq!(buffer.insert(ms(start, 100), &header(30_000, 5), &[0; 4], FORMAT), Inserted::Suspect);
        assert_eq!(put(&mut buffer, ms(start, 101), 5), Inserted::Stored);
        assert_eq!(buffer.len(), 6);
        assert_eq!(buffer.insert(ms(start, 120), &header(30_001, 165), &[0; 4], FORMAT), Inserted::Suspect);
        assert_eq!(buffer.insert(ms(start, 140), &header(30_002, 325), &[0; 4], FORMAT), Inserted::Stored);
        assert_eq!((buffer.len(), buffer.stats().restarts), (1, 2));
    }

    // Clocks apart: the sound card pulls 20 ms at its own pace; stretching is modelled as 10 ms more or less that wait.
    #[test]
    fn clocks_200_ppm_apart_do_not_run_dry_for_an_hour() {
        for ppm in [200i64, -200] {
            let start = Instant::now();
            let mut buffer = JitterBuffer::new(JitterConfig::default());
            let mut waiting: i64 = 0;
            let (mut lost, mut worst, mut hear_us) = (0, Duration::ZERO, 7_000i64);
            for n in 0..180_000u32 {
                let at = i64::from(n) * 20_000;
                let delay = 20_000 + i64::from(n.wrapping_mul(2_654_435_761) >> 16) % 10_000;
                put(&mut buffer, start + Duration::from_micros((at + delay) as u64), n);
                while hear_us <= at + delay {
                    let now = start + Duration::from_micros(hear_us as u64);
                    let stretch = buffer.stretch(now, Duration::ZERO, Duration::from_millis(20));
                    if matches!(stretch, Stretch::Faster(_))
                        && buffer.has_next()
                        && let Next::Frame { ticks, .. } = buffer.next(now, waiting as u32)
                    {
                        waiting += i64::from(ticks);
                    }
                    match stretch {
                        Stretch::Faster(_) if waiting >= 80 => waiting -= 80,
                        Stretch::Slower(_) => waiting += 80,
                        Stretch::Faster(_) | Stretch::Keep | Stretch::Trim => {}
                    }
                    while waiting < 160 {
                        match buffer.next(now, waiting as u32) {
                            Next::Frame { ticks, .. } => waiting += i64::from(ticks),
                            Next::Lost { ticks, .. } => {
                                waiting += i64::from(ticks);
                                lost += 1;
                            }
                            Next::Empty | Next::Silence { .. } | Next::ComfortNoise { .. } => waiting = 160,
                        }
                    }
                    waiting -= 160;
                    worst = worst.max(buffer.delay(now, waiting as u32).unwrap_or_default());
                    hear_us += 20_000 + (20_000 * ppm) / 1_000_000;
                }
            }
            assert!(lost <= 5, "{ppm}: {lost}");
            assert!(worst < Duration::from_millis(90), "{ppm}: {worst:?}");
        }
    }
}

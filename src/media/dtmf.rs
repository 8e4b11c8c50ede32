//! DTMF as telephone events, RFC 4733 §2. Read §2.3 and §2.5 before touching this file.
//!
//! ```text
//! Sender                                         Receiver
//!            send(digit)                                    packet of a new event: Digit
//!  ┌──────┐ ───────────▶ ┌──────┐ every 50 ms     ┌──────┐ ───────────▶ ┌─────────┐ same time stamp:
//!  │ Idle │              │ Tone │ update          │ Idle │              │ Pressed │ nothing
//!  └──────┘              └──────┘                 └──────┘              └─────────┘
//!      ▲                     │ 100 ms: end, first    │ ▲  end bit, or 200 ms │
//!      │  pause over         ▼                       │ │  of silence         │
//!  ┌───────┐ third end  ┌────────┐ again, twice      │ └─────────────────────┘
//!  │ Pause │ ◀───────── │ Ending │                   ▼ late copies of an ended event: nothing
//!  └───────┘            └────────┘
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Digits that may wait to be sent.
pub const MAX_QUEUED: usize = 64;
/// Length of a tone. ITU-T Q.24 wants at least 40 ms, many PBX want 100.
const TONE: Duration = Duration::from_millis(100);
/// Silence between two tones; Q.24 wants at least 40 ms, slow menus more.
const PAUSE: Duration = Duration::from_millis(80);
/// RFC 4733 §2.5.1.2: an update every 50 ms.
const UPDATE: Duration = Duration::from_millis(50);
/// RFC 4733 §2.5.1.4: the last packet is sent three times.
const ENDS: u8 = 3;
/// −8 dBm0, the level that RFC 4733 §2.3.4 gives as typical range's middle.
const VOLUME: u8 = 10;

const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

/// RFC 4733 §3.2 event code of a digit, 0 to 15.
#[must_use]
pub fn event_of(digit: char) -> Option<u8> {
    let digit = digit.to_ascii_uppercase();
    DIGITS.iter().position(|other| *other == digit).map(|code| code as u8)
}

/// Digit of an event code; `None` for flash (16) and the rest.
#[must_use]
pub fn digit_of(event: u8) -> Option<char> {
    DIGITS.get(usize::from(event)).copied()
}

/// One telephone-event payload, RFC 4733 §2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPayload {
    /// Event code.
    pub event: u8,
    /// The tone is over.
    pub end: bool,
    /// −dBm0, 0 to 63.
    pub volume: u8,
    /// So far, in ticks of the clock.
    pub duration: u16,
}

impl EventPayload {
    /// The four bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [self.event, (u8::from(self.end) << 7) | (self.volume & 0x3F), high, low]
    }

    /// Reads the first event of a payload; further ones (RFC 4733 §2.5.1.5) are of other states, not of digits.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &[event, flags, high, low, ..] = payload else { return None };
        Some(Self {
            event,
            end: flags & 0x80 != 0,
            // RFC 4733 §2.3.3: the reserved bit is ignored.
            volume: flags & 0x3F,
            duration: u16::from_be_bytes([high, low]),
        })
    }
}

/// A packet of the sender: payload, marker, and how long before now the event began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventOut {
    /// The payload.
    pub payload: EventPayload,
    /// First packet of an event.
    pub marker: bool,
    /// Media time since the event began; the RTP time stamp is that much before the current one.
    pub since_start: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Idle,
    Tone { event: u8, elapsed: Duration, next_update: Duration },
    Ending { event: u8, elapsed: Duration, tone: Duration, sent: u8 },
    Pause { left: Duration },
}

/// Turns digits into event packets, driven by the microphone's clock.
#[derive(Debug)]
pub struct DtmfSender {
    state: Sending,
    queue: VecDeque<u8>,
}

impl Default for DtmfSender {
    fn default() -> Self {
        Self { state: Sending::Idle, queue: VecDeque::with_capacity(MAX_QUEUED) }
    }
}

impl DtmfSender {
    /// Queues an event; false if too many wait.
    pub fn send(&mut self, event: u8) -> bool {
        if self.queue.len() >= MAX_QUEUED {
            return false;
        }
        self.queue.push_back(event);
        true
    }

    /// True while a tone replaces the audio.
    #[must_use]
    pub fn is_sounding(&self) -> bool {
        match self.state {
            Sending::Tone { .. } | Sending::Ending { .. } => true,
            Sending::Idle | Sending::Pause { .. } => false,
        }
    }

    /// True while anything waits or sounds.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.state != Sending::Idle || !self.queue.is_empty()
    }

    /// Drops what waits.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.state = Sending::Idle;
    }

    /// Goes on by `tick` (10 or 20 ms) of media time; the packet to send at its start, if any. `clock_hz` is that of the
    /// negotiated telephone-event.
    pub fn advance(&mut self, tick: Duration, clock_hz: u32) -> Option<EventOut> {
        loop {
            match self.state {
                Sending::Idle => {
                    let event = self.queue.pop_front()?;
                    self.state = Sending::Tone { event, elapsed: Duration::ZERO, next_update: Duration::ZERO };
                }
                Sending::Tone { event, elapsed, .. } if elapsed >= TONE => {
                    self.state = Sending::Ending { event, elapsed, tone: elapsed, sent: 0 };
                }
                Sending::Tone { event, elapsed, next_update } => {
                    let due = elapsed >= next_update;
                    let next_update = if due { next_update + UPDATE } else { next_update };
                    self.state = Sending::Tone { event, elapsed: elapsed + tick, next_update };
                    // The first packet says what is true when its tick ends: a duration of 0 would be "for ever" (§2.3.5).
                    let payload = payload(event, false, elapsed + tick, clock_hz);
                    return due.then_some(EventOut { payload, marker: elapsed.is_zero(), since_start: elapsed });
                }
                Sending::Ending { tone: _, sent, .. } if sent >= ENDS => self.state = Sending::Pause { left: PAUSE },
                Sending::Ending { event, elapsed, tone, sent } => {
                    self.state = Sending::Ending { event, elapsed: elapsed + tick, tone, sent: sent + 1 };
                    let payload = payload(event, true, tone, clock_hz);
                    return Some(EventOut { payload, marker: false, since_start: elapsed });
                }
                Sending::Pause { left } if left.is_zero() => self.state = Sending::Idle,
                Sending::Pause { left } => {
                    self.state = Sending::Pause { left: left.saturating_sub(tick) };
                    return None;
                }
            }
        }
    }
}

fn payload(event: u8, end: bool, duration: Duration, clock_hz: u32) -> EventPayload {
    let ticks = duration.as_millis() * u128::from(clock_hz) / 1_000;
    EventPayload { event, end, volume: VOLUME, duration: u16::try_from(ticks).unwrap_or(u16::MAX) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Idle,
    Pressed { event: u8, time: u32, duration: u16, heard: Instant },
}

/// Turns event packets into one digit for each press.
#[derive(Debug)]
pub struct DtmfReceiver {
    state: Receiving,
    // Time stamps of the last presses: late copies of them are no new press.
    seen: [Option<u32>; 8],
    next_seen: usize,
}

// A tone is repeated every 50 ms; four lost updates in a row are the end.
const LOST_END: Duration = Duration::from_millis(200);

impl Default for DtmfReceiver {
    fn default() -> Self {
        Self { state: Receiving::Idle, seen: [None; 8], next_seen: 0 }
    }
}

impl DtmfReceiver {
    /// Takes an event packet with its RTP time stamp; the digit, once for each press. The marker bit is not asked for:
    /// it may be lost, and some peers never set it (scenario 19).
    pub fn handle(&mut self, now: Instant, marker: bool, time: u32, payload: &[u8]) -> Option<char> {
        let packet = EventPayload::parse(payload)?;
        // Flash, fax and modem tones are no digits.
        let digit = digit_of(packet.event)?;
        if let Receiving::Pressed { event, time: started, duration, heard } = self.state {
            let silent = now.saturating_duration_since(heard) > LOST_END;
            // RFC 4733 §2.5.1.3: a press longer than 65 535 ticks goes on with a new time stamp.
            let continued = event == packet.event && time == started.wrapping_add(u32::from(u16::MAX));
            // Some peers move the time stamp with every packet of one press: the duration still grows.
            let moved = event == packet.event && !marker && !silent && packet.duration > duration;
            if time == started || continued || moved {
                self.remember(time);
                let duration = if time == started { packet.duration.max(duration) } else { packet.duration };
                self.state =
                    if packet.end { Receiving::Idle } else { Receiving::Pressed { event, time, duration, heard: now } };
                return None;
            }
        }
        if self.seen.contains(&Some(time)) {
            return None;
        }
        self.remember(time);
        self.state = if packet.end {
            Receiving::Idle
        } else {
            Receiving::Pressed { event: packet.event, time, duration: packet.duration, heard: now }
        };
        Some(digit)
    }

    fn remember(&mut self, time: u32) {
        if self.seen.contains(&Some(time)) {
            return;
        }
        if let Some(slot) = self.seen.get_mut(self.next_seen) {
            *slot = Some(time);
        }
        self.next_seen = (self.next_seen + 1) % self.seen.len();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
    use super::*;

    const TICK: Duration = Duration::from_millis(20);

    // Runs `digits` through a line that loses, repeats and swaps packets; what the far end hears.
    fn dial(digits: &str, clock: u32, mut keep: impl FnMut(usize) -> usize) -> String {
        let start = Instant::now();
        let (mut sender, mut receiver) = (DtmfSender::default(), DtmfReceiver::default());
        for digit in digits.chars() {
            assert!(sender.send(event_of(digit).unwrap()));
        }
        let mut heard = String::new();
        let (mut media, mut count) = (Duration::ZERO, 0);
        while sender.is_busy() {
            if let Some(out) = sender.advance(TICK, clock) {
                let begun = media - out.since_start;
                let time = 0xFFFF_F000u32.wrapping_add((begun.as_millis() as u32) * (clock / 1_000));
                for _ in 0..keep(count) {
                    heard.extend(receiver.handle(start + media, out.marker, time, &out.payload.to_bytes()));
                }
                count += 1;
            }
            media += TICK;
        }
        heard
    }

    fn random(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    #[test]
    fn all_sixteen_digits_arrive_once_each_under_20_percent_loss() {
        const ALL: &str = "0123456789*#ABCD";
        for clock in [8_000, 48_000] {
            let mut wrong = 0;
            for seed in 1..=200 {
                let mut random = random(seed * 7_919);
                let heard = dial(ALL, clock, |_| usize::from(random() >= 0.2));
                // 5 or more packets a press: all are lost once in 3 000 presses.
                wrong += usize::from(heard != ALL);
                assert!(heard.len() <= ALL.len(), "{heard}");
            }
            assert!(wrong <= 3, "{wrong} of 200 runs");
        }
    }

    #[test]
    fn repeated_packets_and_lost_ends_and_lost_starts_give_one_digit_a_press() {
        assert_eq!(dial("5555#", 8_000, |_| 2), "5555#");
        // Five packets a press: 0 start, 1 update, 2 to 4 ends.
        assert_eq!(dial("5555", 8_000, |n| usize::from(n % 5 < 2)), "5555");
        assert_eq!(dial("5555", 8_000, |n| usize::from(n % 5 > 1)), "5555");
        assert_eq!(dial("5555", 8_000, |n| usize::from(n % 5 == 4)), "5555");
        assert_eq!(dial("5555", 48_000, |n| usize::from(n % 5 == 1)), "5555");
    }

    #[test]
    fn the_packets_of_a_press_share_a_time_stamp_and_end_three_times() {
        let mut sender = DtmfSender::default();
        sender.send(5);
        let mut packets = Vec::new();
        let mut media = Duration::ZERO;
        while sender.is_busy() {
            if let Some(out) = sender.advance(TICK, 8_000) {
                packets.push((out, media - out.since_start));
            }
            media += TICK;
        }
        assert!(packets.iter().all(|(_, begun)| *begun == Duration::ZERO));
        assert_eq!(packets.iter().filter(|(out, _)| out.marker).count(), 1);
        let ends: Vec<_> = packets.iter().filter(|(out, _)| out.payload.end).collect();
        assert_eq!(ends.len(), 3);
        assert!(ends.iter().all(|(out, _)| out.payload.duration == 800), "{ends:?}");
        assert!(packets.windows(2).all(|w| w[0].0.payload.duration <= w[1].0.payload.duration));
    }

    #[test]
    fn late_copies_of_an_ended_press_and_flash_are_nothing() {
        let now = Instant::now();
        let mut receiver = DtmfReceiver::default();
        let end = EventPayload { event: 1, end: true, volume: 10, duration: 800 }.to_bytes();
        let other = EventPayload { event: 2, end: false, volume: 10, duration: 160 }.to_bytes();
        assert_eq!(receiver.handle(now, false, 1_000, &end), Some('1'));
        assert_eq!(receiver.handle(now, false, 5_000, &other), Some('2'));
        assert_eq!(receiver.handle(now, false, 1_000, &end), None);
        assert_eq!(receiver.handle(now, true, 9_000, &[16, 0x80, 0, 160]), None);
        for len in 0..4 {
            assert_eq!(receiver.handle(now, true, 12_000, &[1, 2, 3][..len.min(3)]), None);
        }
    }

    #[test]
    fn a_press_of_half_a_minute_is_one_digit() {
        let start = Instant::now();
        let mut receiver = DtmfReceiver::default();
        let mut heard = String::new();
        for step in 0..600u32 {
            let ticks = step * 400;
            let (segment, duration) = (ticks / 65_535, ticks % 65_535);
            let payload = EventPayload { event: 7, end: false, volume: 0, duration: duration.max(1) as u16 }.to_bytes();
            let now = start + Duration::from_millis(u64::from(step) * 50);
            heard.extend(receiver.handle(now, false, 77 + segment * 65_535, &payload));
        }
        assert_eq!(heard, "7");
    }

    #[test]
    fn a_peer_that_moves_the_time_stamp_within_a_press_is_understood() {
        let start = Instant::now();
        let mut receiver = DtmfReceiver::default();
        let mut heard = String::new();
        for press in 0..3u32 {
            for step in 0..6u32 {
                let duration = ((step + 1) * 160) as u16;
                let payload = EventPayload { event: 4, end: step >= 4, volume: 0, duration }.to_bytes();
                let now = start + Duration::from_millis(u64::from(press * 300 + step * 20));
                // The end packets share the last time stamp.
                let time = press * 2_400 + step.min(4) * 160;
                heard.extend(receiver.handle(now, false, time, &payload));
            }
        }
        assert_eq!(heard, "444");
    }
}

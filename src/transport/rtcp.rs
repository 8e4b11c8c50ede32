//! What one leg says and learns by RTCP: quality figures, clock and CNAME, goodbye. Read RFC 3550 §6.2, §6.4, §8.2 and
//! appendix A.1, A.3, A.8; RFC 7022 for the CNAME, before touching this file.
//!
//! A leg has two members, so the interval is the 5 s minimum: timer reconsideration (§6.3) serves groups and is left
//! out. The first report comes after about 1 s, earlier than §6.2 asks (2.5 s), so that quality shows early in a call.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use rand_core::RngCore;

use crate::transport::seed::Seed;
use crate::wire::rtcp::{self, Packet, ReportBlock, RtcpFault, SenderInfo};
use crate::wire::rtp::{MediaTime, RtpHeader, Ssrc};

/// From one report to the next on average, RFC 3550 §6.2; each is 0.5 to 1.5 times that.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// From construction to the first report on average.
pub const FIRST_REPORT: Duration = Duration::from_secs(1);
/// Received sources that statistics are kept of; the one silent for longest makes room.
pub const MAX_SOURCES: usize = 8;

/// A round trip longer than this is a clock error of the peer.
const MAX_RTT: Duration = Duration::from_secs(60);
/// Undelivered events; the oldest makes room.
const MAX_EVENTS: usize = 32;
/// Room behind a compound packet, so that SRTCP can append without moving it.
const SRTCP_ROOM_BYTES: usize = 32;

/// What RTCP tells the application.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RtcpEvent {
    /// The peer reported on our stream: [`RtcpSession::stats`] has new figures.
    Report,
    /// This source left, RFC 3550 §6.6.
    Bye(Ssrc),
    /// Another member uses our SSRC (RFC 3550 §8.2): choose another and call [`RtcpSession::change_ssrc`].
    Collision(Ssrc),
    /// The peer wants a whole picture, RFC 4585 §6.3.1.
    PictureLoss(Ssrc),
}

/// What became of a received packet in the statistics, RFC 3550 A.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// In the expected range.
    InSequence,
    /// The source is new: two packets in sequence make it valid.
    Probation,
    /// Far from the last: a jump, which the next packet confirms or not.
    Jump,
    /// Our own SSRC; not counted.
    Collision,
}

/// Quality of both directions; `None` where nothing is known yet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RtcpStats {
    /// Round trip between both RTCP ends.
    pub rtt: Option<Duration>,
    /// RTP packets sent.
    pub packets_out: u64,
    /// RTP payload bytes sent.
    pub octets_out: u64,
    /// RTP packets received from the active source.
    pub packets_in: u64,
    /// RTP payload bytes received from the active source.
    pub octets_in: u64,
    /// Lost from the active source since its start; negative if there were duplicates.
    pub packets_lost_in: i64,
    /// Lost of ours since the start, as the peer says.
    pub packets_lost_out: Option<i32>,
    /// Share of received packets lost in the last report interval, 0 to 1.
    pub loss_in_fraction: Option<f32>,
    /// Share of our packets lost in the peer's last report interval, 0 to 1.
    pub loss_out_fraction: Option<f32>,
    /// Interarrival jitter of what we receive, in ms.
    pub jitter_in_ms: Option<f32>,
    /// Interarrival jitter of what the peer receives, in ms.
    pub jitter_out_ms: Option<f32>,
    /// Age of the peer's last report on us.
    pub report_age: Option<Duration>,
}

/// RTCP of one leg.
#[derive(Debug)]
pub struct RtcpSession {
    start: Instant,
    /// NTP time at `start`, 32.32 fixed point.
    ntp_start: u64,
    seed: Seed,
    cname: String,
    local: Sent,
    sources: Vec<Source>,
    /// SSRC of the source that a valid packet came from last.
    active: Option<Ssrc>,
    remote: Option<RemoteReport>,
    rtt: Option<Duration>,
    due: Option<Instant>,
    outbox: VecDeque<Vec<u8>>,
    events: VecDeque<RtcpEvent>,
}

/// What we send.
#[derive(Debug)]
struct Sent {
    ssrc: Ssrc,
    clock_rate_hz: u32,
    packets: u64,
    octets: u64,
    last: Option<(Instant, MediaTime)>,
    /// Reports since the last RTP packet: two without any and we are no sender (RFC 3550 §6.4).
    idle_reports: u8,
}

/// The peer's last report on us.
#[derive(Debug, Clone, Copy)]
struct RemoteReport {
    at: Instant,
    block: ReportBlock,
}

impl RtcpSession {
    /// RTCP of a leg that sends as `ssrc` with timestamps of `clock_rate_hz`. `now` and `wall` are the same instant;
    /// `seed` gives CNAME and intervals and is not used elsewhere.
    #[must_use]
    pub fn new(now: Instant, wall: SystemTime, seed: [u8; 32], ssrc: Ssrc, clock_rate_hz: u32) -> Self {
        let mut seed = Seed::new(seed);
        // RFC 7022 §4.2: a short-term persistent CNAME is 96 random bits, so that calls cannot be linked.
        let mut random = [0; 12];
        seed.generator().fill_bytes(&mut random);
        let mut session = Self {
            start: now,
            ntp_start: ntp(wall),
            seed,
            cname: base64::engine::general_purpose::STANDARD.encode(random),
            local: Sent { ssrc, clock_rate_hz, packets: 0, octets: 0, last: None, idle_reports: 2 },
            sources: Vec::new(),
            active: None,
            remote: None,
            rtt: None,
            due: None,
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        };
        session.due = Some(now + session.spread(FIRST_REPORT));
        session
    }

    /// Our canonical name; the contents of one session share it (RFC 3550 §6.5.1, J167-03).
    #[must_use]
    pub fn cname(&self) -> &str {
        &self.cname
    }

    /// Takes another canonical name: that of the session's first content. Cut at 255 bytes on the wire.
    pub fn set_cname(&mut self, cname: String) {
        self.cname = cname;
    }

    /// Our SSRC.
    #[must_use]
    pub fn ssrc(&self) -> Ssrc {
        self.local.ssrc
    }

    /// The codec changed to one with another RTP clock.
    pub fn set_clock_rate_hz(&mut self, clock_rate_hz: u32) {
        self.local.clock_rate_hz = clock_rate_hz;
    }

    /// An RTP packet left.
    pub fn sent_rtp(&mut self, now: Instant, header: &RtpHeader, payload_bytes: usize) {
        self.local.packets += 1;
        self.local.octets += payload_bytes as u64;
        self.local.last = Some((now, header.time));
        self.local.idle_reports = 0;
    }

    /// An authentic RTP packet came. `clock_rate_hz` is that of its payload type; 0 leaves the jitter as it is.
    pub fn received_rtp(
        &mut self,
        now: Instant,
        header: &RtpHeader,
        payload_bytes: usize,
        clock_rate_hz: u32,
    ) -> Arrival {
        if header.ssrc == self.local.ssrc {
            self.collision(header.ssrc);
            return Arrival::Collision;
        }
        let since_start = now.saturating_duration_since(self.start);
        let source = self.source_mut(now, header.ssrc);
        source.last_heard = now;
        source.packets += 1;
        source.octets += payload_bytes as u64;
        let arrival = source.update_seq(header.seq.0);
        if arrival == Arrival::InSequence {
            source.update_jitter(since_start, header.time, clock_rate_hz);
            self.active = Some(header.ssrc);
        }
        arrival
    }

    /// A decrypted compound packet came.
    ///
    /// # Errors
    /// [`RtcpFault`] if any part of it is malformed; then nothing of it counts (RFC 3550 A.2).
    pub fn handle_input(&mut self, now: Instant, compound: &[u8]) -> Result<(), RtcpFault> {
        for packet in rtcp::packets(compound) {
            packet?;
        }
        for packet in rtcp::packets(compound).flatten() {
            match packet {
                Packet::Report { ssrc, sender, blocks } => {
                    if ssrc == self.local.ssrc {
                        self.collision(ssrc);
                        continue;
                    }
                    if let Some(info) = sender {
                        let source = self.source_mut(now, ssrc);
                        source.last_heard = now;
                        source.last_sr = Some((now, ntp_middle(info.ntp)));
                    }
                    if let Some(block) = blocks.iter().find(|b| b.ssrc == self.local.ssrc) {
                        self.take_report(now, block);
                    }
                }
                Packet::Bye { sources, reason: _ } => {
                    for ssrc in sources.iter() {
                        // A source never heard has nothing to leave.
                        if self.sources.iter().any(|s| s.ssrc == ssrc) {
                            self.event(RtcpEvent::Bye(ssrc));
                        }
                    }
                }
                Packet::Feedback { media, .. } if packet.is_picture_loss() && media == self.local.ssrc => {
                    self.event(RtcpEvent::PictureLoss(media));
                }
                Packet::Description(_) | Packet::Feedback { .. } | Packet::Other { .. } => {}
            }
        }
        Ok(())
    }

    /// Builds the report if it is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        let compound = self.report(now);
        self.outbox.push_back(compound);
        self.due = Some(now + self.spread(REPORT_INTERVAL));
    }

    /// When [`Self::handle_timeout`] wants to be called: the next report. `None` after [`Self::bye`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// A compound packet to protect and send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<RtcpEvent> {
        self.events.pop_front()
    }

    /// Says goodbye: one last report with a BYE, and no more after it. A second call does nothing.
    pub fn bye(&mut self, now: Instant) {
        if self.due.take().is_some() {
            self.push_bye(now);
        }
    }

    /// Says goodbye as the old SSRC and goes on as another, RFC 3550 §8.2. The new stream starts at packet 0.
    pub fn change_ssrc(&mut self, now: Instant, ssrc: Ssrc) {
        self.push_bye(now);
        let clock_rate_hz = self.local.clock_rate_hz;
        self.local = Sent { ssrc, clock_rate_hz, packets: 0, octets: 0, last: None, idle_reports: 2 };
        self.remote = None;
    }

    /// The figures as they are at `now`.
    #[must_use]
    pub fn stats(&self, now: Instant) -> RtcpStats {
        let source = self.active.and_then(|ssrc| self.sources.iter().find(|s| s.ssrc == ssrc));
        RtcpStats {
            rtt: self.rtt,
            packets_out: self.local.packets,
            octets_out: self.local.octets,
            packets_in: source.map_or(0, |s| s.packets),
            octets_in: source.map_or(0, |s| s.octets),
            packets_lost_in: source.map_or(0, Source::lost),
            packets_lost_out: self.remote.map(|r| r.block.cumulative_lost),
            loss_in_fraction: source.map(Source::recent_loss),
            loss_out_fraction: self.remote.map(|r| f32::from(r.block.fraction_lost) / 256.0),
            jitter_in_ms: source.and_then(|s| in_ms(s.jitter_q4 / 16, s.clock_rate_hz)),
            jitter_out_ms: self.remote.and_then(|r| in_ms(r.block.jitter.into(), self.local.clock_rate_hz)),
            report_age: self.remote.map(|r| now.saturating_duration_since(r.at)),
        }
    }

    fn take_report(&mut self, now: Instant, block: ReportBlock) {
        // RFC 3550 §6.4.1: arrival - LSR - DLSR, all in 2^-16 s and modulo 2^32; nothing without our SR.
        if block.last_sr != 0 {
            let arrival = ntp_middle(self.ntp_at(now));
            let round = arrival.wrapping_sub(block.last_sr).wrapping_sub(block.delay_since_last_sr);
            // Rounding can make a very short trip slightly negative.
            let round = if round > u32::MAX - 0x100 { 0 } else { round };
            let rtt = Duration::from_secs_f64(f64::from(round) / 65536.0);
            if rtt <= MAX_RTT {
                self.rtt = Some(rtt);
            }
        }
        self.remote = Some(RemoteReport { at: now, block });
        self.event(RtcpEvent::Report);
    }

    /// SR or RR, then SDES.
    fn report(&mut self, now: Instant) -> Vec<u8> {
        let mut blocks = [None; MAX_SOURCES];
        for (to, source) in blocks.iter_mut().zip(&mut self.sources) {
            *to = source.report(now);
        }
        let blocks: Vec<ReportBlock> = blocks.into_iter().flatten().collect();
        let is_sender = self.local.idle_reports < 2;
        self.local.idle_reports = self.local.idle_reports.saturating_add(1);
        let sender = self.local.last.filter(|_| is_sender).map(|(at, time)| SenderInfo {
            ntp: self.ntp_at(now),
            time: MediaTime(time.0.wrapping_add(ticks(now.saturating_duration_since(at), self.local.clock_rate_hz))),
            // RFC 3550 §6.4.1: both counts wrap.
            packets: self.local.packets as u32,
            octets: self.local.octets as u32,
        });
        let item = rtcp::Item { ssrc: self.local.ssrc, kind: rtcp::SDES_CNAME, text: self.cname.as_bytes() };
        let mut out = Vec::with_capacity(64 + 24 * blocks.len() + self.cname.len() + SRTCP_ROOM_BYTES);
        rtcp::write_report(self.local.ssrc, sender.as_ref(), &blocks, &mut out);
        rtcp::write_description(&item, &mut out);
        out
    }

    fn push_bye(&mut self, now: Instant) {
        let mut compound = self.report(now);
        rtcp::write_bye(&[self.local.ssrc], None, &mut compound);
        self.outbox.push_back(compound);
    }

    /// The source's statistics; made, in place of the one silent for longest if need be. Only authentic packets get here.
    fn source_mut(&mut self, now: Instant, ssrc: Ssrc) -> &mut Source {
        let at = match self.sources.iter().position(|s| s.ssrc == ssrc) {
            Some(at) => at,
            None if self.sources.len() < MAX_SOURCES => {
                self.sources.push(Source::new(ssrc, now));
                self.sources.len() - 1
            }
            None => {
                let oldest = self.sources.iter().enumerate().min_by_key(|(_, s)| s.last_heard).map_or(0, |(i, _)| i);
                self.sources[oldest] = Source::new(ssrc, now);
                oldest
            }
        };
        &mut self.sources[at]
    }

    fn collision(&mut self, ssrc: Ssrc) {
        let event = RtcpEvent::Collision(ssrc);
        if !self.events.contains(&event) {
            self.event(event);
        }
    }

    fn event(&mut self, event: RtcpEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn ntp_at(&self, now: Instant) -> u64 {
        self.ntp_start.wrapping_add(fixed_point(now.saturating_duration_since(self.start)))
    }

    /// 0.5 to 1.5 times `mean`, RFC 3550 §6.2.
    fn spread(&mut self, mean: Duration) -> Duration {
        mean / 2 + mean.mul_f64(f64::from(self.seed.generator().next_u32()) / f64::from(u32::MAX))
    }
}

/// One received source, RFC 3550 A.1.
#[derive(Debug)]
struct Source {
    ssrc: Ssrc,
    last_heard: Instant,
    /// Packets still to come in sequence before the source is valid.
    probation: u8,
    max_seq: u16,
    /// Rollovers, shifted left by 16.
    cycles: u64,
    base_seq: u16,
    /// The sequence number that would confirm a jump; past 16 bits if there was none.
    bad_seq: u32,
    /// Since the source's last restart.
    received: u64,
    /// Since it was first heard.
    packets: u64,
    octets: u64,
    expected_prior: u64,
    received_prior: u64,
    /// Loss of the last full report interval.
    interval_loss: Option<f32>,
    clock_rate_hz: u32,
    /// Arrival minus timestamp of the last packet, in clock units, and that timestamp.
    transit: Option<(u32, MediaTime)>,
    /// Sixteen times the jitter, RFC 3550 A.8.
    jitter_q4: u64,
    last_sr: Option<(Instant, u32)>,
}

impl Source {
    /// Packets in sequence that make a source valid.
    const MIN_SEQUENTIAL: u8 = 2;
    /// A gap up to this is loss.
    const MAX_DROPOUT: u16 = 3000;
    /// A step back up to this is reordering.
    const MAX_MISORDER: u16 = 100;
    /// No sequence number.
    const NO_BAD_SEQ: u32 = 1 << 16;

    fn new(ssrc: Ssrc, now: Instant) -> Self {
        Self {
            ssrc,
            last_heard: now,
            probation: Self::MIN_SEQUENTIAL,
            max_seq: 0,
            cycles: 0,
            base_seq: 0,
            bad_seq: Self::NO_BAD_SEQ,
            received: 0,
            packets: 0,
            octets: 0,
            expected_prior: 0,
            received_prior: 0,
            interval_loss: None,
            clock_rate_hz: 0,
            transit: None,
            jitter_q4: 0,
            last_sr: None,
        }
    }

    fn restart(&mut self, seq: u16) {
        self.base_seq = seq;
        self.max_seq = seq;
        self.bad_seq = Self::NO_BAD_SEQ;
        self.cycles = 0;
        self.received = 0;
        self.received_prior = 0;
        self.expected_prior = 0;
        self.transit = None;
    }

    fn update_seq(&mut self, seq: u16) -> Arrival {
        if self.probation > 0 {
            let first = self.probation == Self::MIN_SEQUENTIAL;
            if !first && seq == self.max_seq.wrapping_add(1) {
                self.probation -= 1;
                if self.probation == 0 {
                    // The packets of the probation count too: with SRTP they are known to be real.
                    let first = self.max_seq;
                    self.restart(first);
                    self.received = 1;
                    return self.count(seq);
                }
            } else {
                self.probation = Self::MIN_SEQUENTIAL - 1;
            }
            self.max_seq = seq;
            return Arrival::Probation;
        }
        let ahead = seq.wrapping_sub(self.max_seq);
        if !(Self::MAX_DROPOUT..=u16::MAX - Self::MAX_MISORDER).contains(&ahead) {
            return self.count(seq);
        }
        if u32::from(seq) == self.bad_seq {
            // Two in sequence after a jump: the peer restarted without telling.
            self.restart(seq);
            return self.count(seq);
        }
        self.bad_seq = seq.wrapping_add(1).into();
        Arrival::Jump
    }

    fn count(&mut self, seq: u16) -> Arrival {
        if seq.wrapping_sub(self.max_seq) < Self::MAX_DROPOUT {
            if seq < self.max_seq {
                self.cycles += 1 << 16;
            }
            self.max_seq = seq;
        }
        self.received += 1;
        Arrival::InSequence
    }

    /// RFC 3550 A.8.
    fn update_jitter(&mut self, since_start: Duration, time: MediaTime, clock_rate_hz: u32) {
        if clock_rate_hz == 0 {
            return;
        }
        if clock_rate_hz != self.clock_rate_hz {
            self.clock_rate_hz = clock_rate_hz;
            self.jitter_q4 = 0;
            self.transit = None;
        }
        let transit = ticks(since_start, clock_rate_hz).wrapping_sub(time.0);
        let Some((last, last_time)) = self.transit.replace((transit, time)) else { return };
        // The packets of one DTMF event share a timestamp (RFC 4733 §2.5.1.2): their spacing is no jitter.
        if last_time == time {
            self.transit = Some((last, last_time));
            return;
        }
        let step = u64::from((transit.wrapping_sub(last) as i32).unsigned_abs());
        self.jitter_q4 = self.jitter_q4 + step - ((self.jitter_q4 + 8) >> 4);
    }

    fn highest(&self) -> u64 {
        self.cycles + u64::from(self.max_seq)
    }

    fn expected(&self) -> u64 {
        if self.probation > 0 { 0 } else { (self.highest() + 1).saturating_sub(self.base_seq.into()) }
    }

    fn lost(&self) -> i64 {
        self.expected() as i64 - self.received as i64
    }

    /// Loss of the last report interval; before the first report, of all so far.
    fn recent_loss(&self) -> f32 {
        self.interval_loss.unwrap_or_else(|| loss(self.expected(), self.received))
    }

    /// The block of the next report and the start of a new interval; none if nothing came in this one.
    fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let (expected, received) = (self.expected(), self.received);
        // RFC 3550 §6.4: a block for each source heard since the last report.
        if self.probation > 0 || received == self.received_prior {
            return None;
        }
        // RFC 3550 A.3.
        let fraction = loss(expected.saturating_sub(self.expected_prior), received - self.received_prior);
        self.expected_prior = expected;
        self.received_prior = received;
        self.interval_loss = Some(fraction);
        let (last_sr, delay_since_last_sr) = self.last_sr.map_or((0, 0), |(at, middle)| {
            (middle, u32::try_from(fixed_point(now.saturating_duration_since(at)) >> 16).unwrap_or(u32::MAX))
        });
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (fraction * 256.0) as u8, // saturates at 255
            cumulative_lost: self.lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_seq: self.highest() as u32,
            jitter: u32::try_from(self.jitter_q4 >> 4).unwrap_or(u32::MAX),
            last_sr,
            delay_since_last_sr,
        })
    }
}

/// 0 to 1; duplicates do not make it negative.
fn loss(expected: u64, received: u64) -> f32 {
    if expected == 0 { 0.0 } else { expected.saturating_sub(received) as f32 / expected as f32 }
}

fn in_ms(units: u64, clock_rate_hz: u32) -> Option<f32> {
    (clock_rate_hz != 0).then(|| units as f32 * 1000.0 / clock_rate_hz as f32)
}

/// Length in units of a media clock, modulo 2^32.
fn ticks(length: Duration, clock_rate_hz: u32) -> u32 {
    (length.as_nanos() * u128::from(clock_rate_hz) / 1_000_000_000) as u32
}

/// Seconds from 1900, where NTP starts, to 1970.
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

/// RFC 3550 §4: seconds since 1900 in 32.32 fixed point, modulo 2^64. A clock before 1970 counts as 1970.
fn ntp(wall: SystemTime) -> u64 {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fixed_point(since).wrapping_add(NTP_TO_UNIX_S << 32)
}

/// 32.32 fixed point seconds, modulo 2^64.
fn fixed_point(length: Duration) -> u64 {
    ((length.as_nanos() << 32) / 1_000_000_000) as u64
}

/// The middle 32 bits: 16.16 fixed point seconds.
fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    // The tests need one instant to count from; nothing waits for the clock.
    #![allow(clippy::disallowed_methods)]
    use super::*;
    use crate::wire::rtp::SeqNo;

    const A: Ssrc = Ssrc(0xaaaa);
    const B: Ssrc = Ssrc(0xbbbb);
    const FRAME: Duration = Duration::from_millis(20);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn header(ssrc: Ssrc, seq: u16, time: u32) -> RtpHeader {
        RtpHeader { marker: false, payload_type: 111, seq: SeqNo(seq), time: MediaTime(time), ssrc }
    }

    /// Two legs whose wall clocks are hours apart.
    fn two(start: Instant) -> (RtcpSession, RtcpSession) {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let other_wall = wall + Duration::from_secs(12_345);
        (RtcpSession::new(start, wall, [1; 32], A, 48_000), RtcpSession::new(start, other_wall, [2; 32], B, 48_000))
    }

    /// Runs both for `frames` frames of 20 ms; every `lose`th packet from `a` is lost, and `one_way` is the delay of
    /// RTCP. Gives the compound packets that `a` sent.
    fn run(
        a: &mut RtcpSession,
        b: &mut RtcpSession,
        start: Instant,
        frames: u32,
        lose: u32,
        one_way: Duration,
        jitter: impl Fn(u32) -> Duration,
    ) -> Vec<Vec<u8>> {
        let mut of_a = Vec::new();
        let mut in_flight: Vec<(Instant, bool, Vec<u8>)> = Vec::new();
        for n in 0..frames {
            let now = start + FRAME * n;
            let (seq, time) = ((n + 65_500) as u16, n.wrapping_mul(960));
            a.sent_rtp(now, &header(A, seq, time), 80);
            b.sent_rtp(now, &header(B, seq, time), 80);
            if lose == 0 || n % lose != lose - 1 {
                b.received_rtp(now + jitter(n), &header(A, seq, time), 80, 48_000);
            }
            a.received_rtp(now, &header(B, seq, time), 80, 48_000);
            // RTCP is delivered in steps of 1 ms.
            for step in 0..20 {
                let now = now + ms(step);
                for (from_a, session) in [(true, &mut *a), (false, &mut *b)] {
                    session.handle_timeout(now);
                    while let Some(p) = session.poll_transmit() {
                        in_flight.push((now + one_way, from_a, p));
                    }
                }
                in_flight.retain(|(at, from_a, p)| {
                    if now >= *at {
                        if *from_a {
                            of_a.push(p.clone());
                            b.handle_input(now, p).unwrap();
                        } else {
                            a.handle_input(now, p).unwrap();
                        }
                    }
                    now < *at
                });
            }
        }
        of_a
    }

    #[test]
    fn round_trip_loss_and_jitter_are_measured_from_both_ends() {
        let start = Instant::now();
        let (mut a, mut b) = two(start);
        // Every second packet is 10 ms late: |D| is 10 ms each time, so the jitter tends to 10 ms.
        run(&mut a, &mut b, start, 1500, 10, ms(40), |n| if n % 2 == 0 { ms(10) } else { ms(0) });
        let now = start + FRAME * 1500;
        let (sa, sb) = (a.stats(now), b.stats(now));
        for rtt in [sa.rtt.unwrap(), sb.rtt.unwrap()] {
            assert!((ms(79)..=ms(81)).contains(&rtt), "{rtt:?}");
        }
        assert_eq!((sa.packets_out, sa.octets_out), (1500, 120_000));
        assert_eq!((sb.packets_in, sb.octets_in), (1350, 108_000));
        assert!((149..=150).contains(&sb.packets_lost_in), "{}", sb.packets_lost_in);
        assert!((sb.loss_in_fraction.unwrap() - 0.1).abs() < 0.02, "{sb:?}");
        assert!((sa.loss_out_fraction.unwrap() - 0.1).abs() < 0.02, "{sa:?}");
        assert!((sb.jitter_in_ms.unwrap() - 10.0).abs() < 1.5, "{sb:?}");
        assert!((sa.jitter_out_ms.unwrap() - 10.0).abs() < 1.5, "{sa:?}");
        assert_eq!(sa.loss_in_fraction, Some(0.0));
        assert!(sa.jitter_in_ms.unwrap() < 0.1);
        assert!(sa.report_age.unwrap() < Duration::from_secs(8));
        assert_eq!(a.poll_event(), Some(RtcpEvent::Report));
    }

    #[test]
    fn the_first_report_comes_after_a_second_and_then_every_five() {
        let start = Instant::now();
        let (mut a, mut b) = two(start);
        let mut at = Vec::new();
        for _ in 0..400 {
            let due = a.poll_timeout().unwrap();
            a.handle_timeout(due);
            assert!(a.poll_transmit().is_some());
            at.push(due - start);
        }
        assert!((ms(500)..=ms(1500)).contains(&at[0]));
        let gaps: Vec<_> = at.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.iter().all(|g| (ms(2500)..=ms(7500)).contains(g)));
        let mean = (at[399] - at[0]).as_secs_f64() / 399.0;
        assert!((4.7..5.3).contains(&mean), "{mean}");
        b.handle_timeout(start + ms(100));
        assert!(b.poll_transmit().is_none(), "nothing before it is due");
    }

    #[test]
    fn a_sender_report_has_media_time_and_counts_and_a_cname() {
        let start = Instant::now();
        let (mut a, mut b) = two(start);
        let sent = run(&mut a, &mut b, start, 400, 0, ms(5), |_| ms(0));
        let packets: Vec<_> = rtcp::packets(&sent[0]).collect::<Result<_, _>>().unwrap();
        let Packet::Report { ssrc: A, sender: Some(info), blocks } = packets[0] else { panic!("{packets:?}") };
        assert_eq!(info.octets, info.packets * 80);
        // The report's instant in both clocks: 48 ticks a millisecond since the start.
        let ntp_ms = (info.ntp.wrapping_sub(a.ntp_start) as f64) / f64::from(u32::MAX) * 1000.0;
        assert!((ntp_ms - f64::from(info.time.0) / 48.0).abs() < 1.0, "{ntp_ms} {}", info.time.0);
        let block = blocks.iter().next().unwrap();
        assert_eq!((block.ssrc, block.fraction_lost, block.cumulative_lost), (B, 0, 0));
        let Packet::Description(mut items) = packets[1] else { panic!("{packets:?}") };
        let item = items.next().unwrap();
        assert_eq!((item.ssrc, item.kind, item.text), (A, rtcp::SDES_CNAME, a.cname().as_bytes()));
        assert_eq!(a.cname().len(), 16, "96 bits of base64");
        assert_ne!(a.cname(), b.cname());
        // The last report has a sequence number past the rollover.
        let last = rtcp::packets(sent.last().unwrap()).next().unwrap().unwrap();
        let Packet::Report { blocks, .. } = last else { panic!() };
        assert_eq!(blocks.iter().next().unwrap().highest_seq >> 16, 1);
    }

    #[test]
    fn who_sends_nothing_reports_as_receiver() {
        let start = Instant::now();
        let (mut a, _) = two(start);
        for n in 0..50 {
            a.received_rtp(start + FRAME * n, &header(B, n as u16, n * 960), 80, 48_000);
        }
        a.handle_timeout(a.poll_timeout().unwrap());
        let p = a.poll_transmit().unwrap();
        assert!(matches!(
            rtcp::packets(&p).next(),
            Some(Ok(Packet::Report { sender: None, blocks, .. })) if blocks.iter().len() == 1
        ));
        // And nothing of a source that has fallen silent.
        a.handle_timeout(a.poll_timeout().unwrap());
        let p = a.poll_transmit().unwrap();
        assert!(matches!(
            rtcp::packets(&p).next(),
            Some(Ok(Packet::Report { sender: None, blocks, .. })) if blocks.iter().len() == 0
        ));
    }

    #[test]
    fn goodbye_is_said_once_and_heard() {
        let start = Instant::now();
        let (mut a, mut b) = two(start);
        run(&mut a, &mut b, start, 50, 0, ms(1), |_| ms(0));
        while b.poll_event().is_some() {}
        a.bye(start + ms(1000));
        let p = a.poll_transmit().unwrap();
        assert_eq!(a.poll_timeout(), None);
        a.bye(start + ms(1001));
        assert_eq!(a.poll_transmit(), None);
        b.handle_input(start + ms(1010), &p).unwrap();
        let events: Vec<_> = std::iter::from_fn(|| b.poll_event()).collect();
        assert!(events.contains(&RtcpEvent::Bye(A)), "{events:?}");
        // A goodbye of somebody never heard is nothing.
        let mut p = Vec::new();
        rtcp::write_bye(&[Ssrc(77)], None, &mut p);
        b.handle_input(start + ms(1020), &p).unwrap();
        assert_eq!(b.poll_event(), None);
    }

    #[test]
    fn a_collision_is_told_once_and_ends_with_a_new_ssrc() {
        let start = Instant::now();
        let (mut a, _) = two(start);
        for n in 0..100 {
            assert_eq!(a.received_rtp(start, &header(A, n, 0), 10, 48_000), Arrival::Collision);
        }
        assert_eq!(a.poll_event(), Some(RtcpEvent::Collision(A)));
        assert_eq!(a.poll_event(), None);
        a.change_ssrc(start + ms(5), Ssrc(0xcccc));
        let p = a.poll_transmit().unwrap();
        assert!(
            rtcp::packets(&p).flatten().any(|p| matches!(p, Packet::Bye { sources, .. } if sources.iter().eq([A])))
        );
        assert_eq!(a.ssrc(), Ssrc(0xcccc));
        assert_eq!(a.received_rtp(start, &header(A, 100, 0), 10, 48_000), Arrival::Probation);
        assert!(a.poll_timeout().is_some());
    }

    #[test]
    fn nothing_of_a_malformed_compound_counts() {
        let start = Instant::now();
        let (mut a, _) = two(start);
        let block = ReportBlock {
            ssrc: A,
            fraction_lost: 255,
            cumulative_lost: 9,
            highest_seq: 1,
            jitter: 1,
            last_sr: 0,
            delay_since_last_sr: 0,
        };
        let mut p = Vec::new();
        rtcp::write_report(B, None, &[block], &mut p);
        let broken = [&p[..], &[0x80, 203, 0, 9]].concat();
        assert!(a.handle_input(start, &broken).is_err());
        assert_eq!((a.poll_event(), a.stats(start).loss_out_fraction), (None, None));
        a.handle_input(start, &p).unwrap();
        assert_eq!(a.stats(start).loss_out_fraction, Some(255.0 / 256.0));
        assert_eq!(a.stats(start).rtt, None, "no SR of ours was seen");
    }

    #[test]
    fn an_absurd_delay_gives_no_round_trip() {
        let start = Instant::now();
        let (mut a, _) = two(start);
        for (last_sr, delay) in [(1, 0), (u32::MAX, u32::MAX), (ntp_middle(a.ntp_start), 0xffff_0000)] {
            let block = ReportBlock {
                ssrc: A,
                fraction_lost: 0,
                cumulative_lost: 0,
                highest_seq: 1,
                jitter: 1,
                last_sr,
                delay_since_last_sr: delay,
            };
            let mut p = Vec::new();
            rtcp::write_report(B, None, &[block], &mut p);
            a.handle_input(start + Duration::from_secs(100), &p).unwrap();
            assert_eq!(a.stats(start).rtt, None);
        }
    }

    #[test]
    fn a_source_that_restarts_is_followed_and_a_single_jump_is_not() {
        let now = Instant::now();
        let mut s = Source::new(B, now);
        for seq in 100..200u16 {
            s.update_seq(seq);
        }
        assert_eq!((s.received, s.lost()), (100, 0));
        assert_eq!(s.update_seq(40_000), Arrival::Jump);
        assert_eq!(s.update_seq(200), Arrival::InSequence);
        assert_eq!(s.update_seq(50_000), Arrival::Jump);
        assert_eq!(s.update_seq(50_001), Arrival::InSequence);
        assert_eq!((s.received, s.lost()), (1, 0));
        // Reordering and duplicates: not a rollover, and no loss below zero in the fraction.
        assert_eq!(s.update_seq(50_000), Arrival::InSequence);
        assert_eq!(s.update_seq(50_001), Arrival::InSequence);
        assert_eq!(s.cycles, 0);
        assert!(s.lost() < 0);
        assert_eq!(s.report(now).unwrap().fraction_lost, 0);
    }

    #[test]
    fn sources_are_bounded_and_the_silent_one_makes_room() {
        let start = Instant::now();
        let (mut a, _) = two(start);
        for n in 0..1000u32 {
            a.received_rtp(start + ms(n.into()), &header(Ssrc(n), 1, 0), 10, 48_000);
            a.received_rtp(start + ms(n.into()), &header(B, n as u16, 0), 10, 48_000);
        }
        assert_eq!(a.sources.len(), MAX_SOURCES);
        assert_eq!(a.stats(start).packets_in, 1000, "the live one was kept");
    }

    #[test]
    fn packets_of_one_dtmf_event_are_no_jitter() {
        let start = Instant::now();
        let (mut a, _) = two(start);
        for n in 0..200u32 {
            a.received_rtp(start + FRAME * n, &header(B, n as u16, if n < 50 { n * 960 } else { 48_000 }), 4, 48_000);
        }
        assert!(a.stats(start).jitter_in_ms.unwrap() < 1.5, "{:?}", a.stats(start));
    }
}

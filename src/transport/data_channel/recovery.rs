//! Loss of our packets, found by time and repaired before the engine sees it.
//! Read RFC 8985 §6 and §7, RFC 9260 §7.2 before touching this file.
//!
//! The engine answers every loss as RFC 9260 §7.2.4 says: it halves its window and then adds one packet a round trip,
//! which at 0.1 % of loss and 50 ms leaves 1 to 2 MB/s whatever the path can do; a retransmission that is lost again
//! stops it for a retransmission timeout. So losses are repaired here, and the engine is told of them only while they
//! are so many (more than [`CONGESTED`]) that the path and not chance must be the cause. Then it slows down as before.

use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Share of packets, as one of so many, that may be lost without a sign of congestion: 2 %, as BBR has it.
const CONGESTED: u32 = 50;
/// Packets that a judgement on congestion needs.
const LEAST_SPAN: u32 = 50;
/// SACKs that the engine has to see before it believes in a loss, and one to spare.
const TOLD_SACKS: u32 = 4;
/// Retransmissions that one SACK may set free.
const MAX_RESENT: usize = 64;
/// Probes of a silent tail before the engine's own timer has its turn.
const MAX_PROBES: u32 = 2;
/// Beside two round trips: the peer's delayed SACK, as browsers have it in practice.
const PROBE_SLACK: Duration = Duration::from_millis(60);

/// A packet of ours with DATA that is not acknowledged in sequence.
#[derive(Debug)]
struct Flight {
    first: u32,
    last: u32,
    at: Instant,
    resent: u32,
    packet: Bytes,
    /// Bytes of all packets up to this one.
    total: u64,
}

/// What was sent and not acknowledged, and what the SACKs say about it.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    flights: VecDeque<Flight>,
    /// Bytes of all packets that are acknowledged in sequence.
    gone: u64,
    /// When the newest packet that has arrived was sent.
    newest: Option<Instant>,
    srtt: Option<Duration>,
    /// The last TSN that was acknowledged in sequence, and the highest that has arrived.
    cumulative: Option<u32>,
    highest: Option<u32>,
    /// Since when losses are counted; how many TSNs were lost, and how many got there in the same time.
    round: Option<Instant>,
    lost: u32,
    span: u32,
    /// SACKs that the engine is to see as they are.
    told: u32,
    probe_due: Option<Instant>,
    probes: u32,
}

/// True if TSN `a` is before `b`.
fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) <= u32::MAX / 2
}

impl Recovery {
    /// A packet with the TSNs `first` to `last` goes out, for the first time or by the engine's own repair.
    pub(super) fn sent(&mut self, now: Instant, first: u32, last: u32, packet: &Bytes) {
        if self.flights.back().is_none_or(|newest| before(newest.last, first)) {
            let total = self.flights.back().map_or(self.gone, |f| f.total) + packet.len() as u64;
            self.flights.push_back(Flight { first, last, at: now, resent: 0, packet: packet.clone(), total });
            self.probes = 0;
        } else {
            let from = self.index(first);
            for flight in self.flights.range_mut(from..).take_while(|f| !before(last, f.first)) {
                flight.at = now;
                flight.resent += 1;
            }
        }
        self.arm(now);
    }

    /// The first packet that ends at or behind `tsn`.
    fn index(&self, tsn: u32) -> usize {
        self.flights.partition_point(|f| before(f.last, tsn))
    }

    /// A SACK of the peer: what is to be sent again. Afterwards `tells` says whether the engine may see its gaps.
    pub(super) fn acknowledged(&mut self, now: Instant, cumulative: u32, blocks: &[(u16, u16)]) -> Vec<Bytes> {
        if self.cumulative.is_some_and(|known| before(cumulative, known)) {
            return Vec::new();
        }
        self.cumulative = Some(cumulative);
        let mut sample = None;
        while let Some(front) = self.flights.front()
            && !before(cumulative, front.last)
        {
            if front.resent == 0 {
                sample = Some(front.at);
            }
            self.gone = front.total;
            self.flights.pop_front();
        }
        let highest = blocks.last().map_or(cumulative, |(_, end)| cumulative.wrapping_add(u32::from(*end)));
        if !blocks.is_empty()
            && let Some(flight) = self.flights.get(self.index(highest))
            && flight.resent == 0
            && !before(highest, flight.first)
        {
            sample = Some(flight.at);
        }
        if let Some(at) = sample {
            self.newest = self.newest.max(Some(at));
            let rtt = now.saturating_duration_since(at);
            self.srtt = Some(self.srtt.map_or(rtt, |srtt| (srtt * 7 + rtt) / 8));
        }
        if self.highest.is_none_or(|known| before(known, highest)) {
            self.span += self.highest.map_or(0, |known| highest.wrapping_sub(known));
            self.highest = Some(highest);
            self.probes = 0;
        }
        let resent = self.repair(now, cumulative, blocks);
        self.judge(now);
        self.told = self.told.saturating_sub(u32::from(!blocks.is_empty()));
        self.arm(now);
        resent
    }

    /// Bytes that have arrived behind a gap. The peer's window is smaller by them, and an engine that does not see the
    /// gaps counts them as under way besides.
    pub(super) fn arrived(&self, cumulative: u32, blocks: &[(u16, u16)]) -> u32 {
        let until = |offset: u16| {
            let at = self.index(cumulative.wrapping_add(u32::from(offset)));
            self.flights.get(at).or(self.flights.back()).map_or(self.gone, |f| f.total)
        };
        // Headers of SCTP count too: at most a thirtieth, and the peer counts as much for its own.
        let bytes: u64 = blocks.iter().map(|(start, end)| until(*end).saturating_sub(until(start - 1))).sum();
        u32::try_from(bytes - bytes / 32).unwrap_or(u32::MAX)
    }

    /// RFC 8985 §6.2: lost is what was sent clearly before something that has arrived.
    fn repair(&mut self, now: Instant, cumulative: u32, blocks: &[(u16, u16)]) -> Vec<Bytes> {
        let (Some(newest), Some(srtt)) = (self.newest, self.srtt) else { return Vec::new() };
        let mut out = Vec::new();
        let mut from = cumulative.wrapping_add(1);
        for (start, end) in blocks {
            let to = cumulative.wrapping_add(u32::from(*start));
            let first = self.index(from);
            for flight in self.flights.range_mut(first.min(self.flights.len())..) {
                if !before(flight.first, to) || out.len() >= MAX_RESENT {
                    break;
                }
                if newest > flight.at + srtt / 4 {
                    self.lost += flight.last.wrapping_sub(flight.first).wrapping_add(1);
                    flight.at = now;
                    flight.resent += 1;
                    out.push(flight.packet.clone());
                }
            }
            from = cumulative.wrapping_add(u32::from(*end)).wrapping_add(1);
        }
        out
    }

    /// Once a round trip: is it chance, or congestion?
    fn judge(&mut self, now: Instant) {
        let since = *self.round.get_or_insert(now);
        let trip = self.srtt.unwrap_or_default();
        if now < since + trip || self.span < LEAST_SPAN {
            return;
        }
        if self.lost * CONGESTED > self.span {
            self.told = TOLD_SACKS + 1;
        }
        (self.round, self.lost, self.span) = (Some(now), 0, 0);
    }

    /// True while the engine is to see gaps.
    pub(super) fn tells(&self) -> bool {
        self.told > 0
    }

    /// The engine's own timer has expired: it repairs now, and has to know what has arrived.
    pub(super) fn expired(&mut self, now: Instant) {
        if self.flights.front().is_some_and(|f| now > f.at + Duration::from_millis(300)) {
            self.told = self.told.max(8);
        }
    }

    /// RFC 8985 §7: the last packets of a flight have none behind them that could tell of their loss.
    fn arm(&mut self, now: Instant) {
        self.probe_due = match (self.srtt, self.flights.is_empty()) {
            (Some(srtt), false) if self.probes < MAX_PROBES => Some(now + srtt * 2 + PROBE_SLACK),
            (_, _) => None,
        };
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.probe_due
    }

    /// The oldest packet and the newest, if it is time to probe.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Bytes> {
        if self.probe_due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.probes += 1;
        let ends = if self.flights.len() > 1 { [Some(0), Some(self.flights.len() - 1)] } else { [Some(0), None] };
        let mut out = Vec::new();
        for flight in ends.into_iter().flatten() {
            if let Some(flight) = self.flights.get_mut(flight) {
                flight.at = now;
                flight.resent += 1;
                out.push(flight.packet.clone());
            }
        }
        self.arm(now);
        out
    }

    /// Until when the engine's retransmission timer is to wait for a repair that is under way: it would throw the whole
    /// window away.
    pub(super) fn patience(&self) -> Option<Instant> {
        let front = self.flights.front().filter(|f| (1..=3).contains(&f.resent))?;
        Some(front.at + self.srtt? * 2 + Duration::from_millis(20))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Packets 0 to `packets`, one a millisecond, each with one TSN.
    fn flown(start: Instant, packets: u32) -> Recovery {
        let mut recovery = Recovery::default();
        for tsn in 0..packets {
            recovery.sent(start + MS * tsn, tsn, tsn, &Bytes::from(tsn.to_be_bytes().to_vec()));
        }
        recovery
    }

    fn tsns(resent: &[Bytes]) -> Vec<u8> {
        resent.iter().map(|p| p[3]).collect()
    }

    #[test]
    fn a_packet_is_sent_again_once_a_later_one_has_arrived_long_enough_behind_it() {
        let start = Instant::now();
        let mut recovery = flown(start, 100);
        // Round trip of 40 ms; packet 10 is missing. What came 5 ms behind it proves nothing, 11 ms do.
        for tsn in 0..10 {
            assert!(recovery.acknowledged(start + MS * (40 + tsn), tsn, &[]).is_empty());
        }
        for behind in 1..=10u16 {
            let at = start + MS * (50 + u32::from(behind));
            assert!(recovery.acknowledged(at, 9, &[(2, 1 + behind)]).is_empty(), "{behind}");
        }
        let at = start + 61 * MS;
        assert_eq!(tsns(&recovery.acknowledged(at, 9, &[(2, 12)])), [10]);
        assert!(recovery.acknowledged(at + MS, 9, &[(2, 13)]).is_empty(), "once");
        assert!(!recovery.tells());
        // The repair is lost too: known when something sent after it has arrived.
        recovery.sent(at + 20 * MS, 100, 100, &Bytes::from_static(&[0, 0, 0, 100]));
        assert_eq!(tsns(&recovery.acknowledged(at + 60 * MS, 9, &[(2, 91)])), [10]);
    }

    /// One packet a millisecond over 40 ms; each first copy of a multiple of `every` is lost. True if the engine is told.
    fn told(every: u32) -> bool {
        let start = Instant::now();
        let mut recovery = flown(start, 600);
        let mut arriving: Vec<(u32, u32)> = (0..600).filter(|n| n % every != every / 2).map(|n| (n + 40, n)).collect();
        let mut here = std::collections::BTreeSet::new();
        let mut seen = false;
        for time in 40..700 {
            here.extend(arriving.iter().filter(|(at, _)| *at == time).map(|(_, tsn)| *tsn));
            let cumulative = (0..600).find(|n| !here.contains(n)).unwrap_or(600).wrapping_sub(1);
            let mut blocks: Vec<(u16, u16)> = Vec::new();
            for tsn in here.iter().filter(|tsn| cumulative == u32::MAX || **tsn > cumulative) {
                let offset = tsn.wrapping_sub(cumulative) as u16;
                match blocks.last_mut() {
                    Some((_, end)) if *end + 1 == offset => *end = offset,
                    _ => blocks.push((offset, offset)),
                }
            }
            for packet in recovery.acknowledged(start + MS * time, cumulative, &blocks) {
                let tsn = u32::from_be_bytes(packet[..4].try_into().unwrap());
                arriving.push((time + 40, tsn));
            }
            seen |= recovery.tells();
        }
        // The last loss has too little behind it: a probe would find it.
        assert!(here.len() >= 599, "{}", here.len());
        seen
    }

    #[test]
    fn the_engine_is_told_of_many_losses_and_not_of_few() {
        assert!(!told(200));
        assert!(told(20));
    }

    #[test]
    fn a_lost_tail_is_probed_twice_before_the_engine_takes_over() {
        let start = Instant::now();
        let mut recovery = flown(start, 10);
        recovery.acknowledged(start + 40 * MS, 0, &[]);
        let first = recovery.poll_timeout().unwrap();
        assert_eq!(first, start + (40 + 80 + 60) * MS);
        assert!(recovery.handle_timeout(first - MS).is_empty());
        assert_eq!(tsns(&recovery.handle_timeout(first)), [1, 9]);
        let second = recovery.poll_timeout().unwrap();
        assert_eq!(tsns(&recovery.handle_timeout(second)), [1, 9]);
        assert_eq!(recovery.poll_timeout(), None);
        assert!(recovery.patience().unwrap() > second);
        recovery.acknowledged(second + 40 * MS, 9, &[]);
        assert_eq!((recovery.poll_timeout(), recovery.patience()), (None, None));
    }
}

//! Sound where there is none and other lengths for what there is: pitch repetition for lost packets of the codecs that
//! cannot conceal by themselves (after G.711 appendix I) and stretching of what waits to be played (after WSOLA).

use super::comfort_noise::rms;
use std::ops::RangeInclusive;

/// Makes up lost sound of a codec without concealment of its own.
#[derive(Debug, Clone)]
pub struct Concealer {
    rate_hz: usize,
    // What was played last, `HISTORY_MS` of it, oldest first.
    history: Vec<i16>,
    // One pitch period that is repeated.
    cycle: Vec<f32>,
    phase: usize,
    // Samples made up since the last good packet.
    made_up: usize,
    // Step between the last good sample and the first repeated one, faded out.
    step: f32,
}

const HISTORY_MS: usize = 50;
// Pitch between 66 and 400 Hz (G.711 I.2.1 uses 66 to 200; a child's voice goes higher).
const LONGEST_PITCH_US: usize = 15_000;
const SHORTEST_PITCH_US: usize = 2_500;
// The match is looked for over so much sound.
const MATCH_MS: usize = 10;
// G.711 I.2.6: full level for 10 ms, silence after 60.
const FULL_LEVEL_MS: usize = 10;
const SILENT_MS: usize = 60;
// Cross-fade back to what is received.
const FADE_MS: usize = 4;

impl Concealer {
    /// For PCM of `rate_hz`.
    #[must_use]
    pub fn new(rate_hz: u32) -> Self {
        let rate_hz = rate_hz as usize;
        Self {
            rate_hz,
            history: vec![0; rate_hz * HISTORY_MS / 1_000],
            cycle: Vec::with_capacity(rate_hz * LONGEST_PITCH_US / 1_000_000 + 1),
            phase: 0,
            made_up: 0,
            step: 0.0,
        }
    }

    /// Takes a good packet that is about to be played; fades from what was made up into it.
    pub fn good(&mut self, pcm: &mut [i16]) {
        if self.made_up > 0 {
            let fade = (self.rate_hz * FADE_MS / 1_000).min(pcm.len());
            for (n, sample) in pcm.iter_mut().take(fade).enumerate() {
                let part = (n as f32 + 1.0) / (fade as f32 + 1.0);
                let old = self.next_sample();
                *sample = (f32::from(*sample) * part + old * (1.0 - part)) as i16;
            }
            self.made_up = 0;
        }
        self.remember(pcm);
    }

    /// Fills `out` with what probably was there.
    pub fn conceal(&mut self, out: &mut [i16]) {
        if self.made_up == 0 {
            self.find_cycle();
        }
        for sample in out.iter_mut() {
            *sample = self.next_sample() as i16;
        }
        self.remember(out);
    }

    fn next_sample(&mut self) -> f32 {
        let ms = self.made_up * 1_000 / self.rate_hz;
        let level = if ms < FULL_LEVEL_MS {
            1.0
        } else {
            let faded = (self.made_up - self.rate_hz * FULL_LEVEL_MS / 1_000) as f32;
            (1.0 - faded / (self.rate_hz * (SILENT_MS - FULL_LEVEL_MS) / 1_000) as f32).max(0.0)
        };
        let sample = self.cycle.get(self.phase).copied().unwrap_or(0.0);
        self.phase = if self.phase + 1 >= self.cycle.len() { 0 } else { self.phase + 1 };
        self.made_up = self.made_up.saturating_add(1);
        let step = self.step;
        self.step *= 0.9;
        (sample * level + step).clamp(-32_768.0, 32_767.0)
    }

    fn find_cycle(&mut self) {
        let history = &self.history;
        let end = history.len();
        let matched = self.rate_hz * MATCH_MS / 1_000;
        let longest = self.rate_hz * LONGEST_PITCH_US / 1_000_000;
        let shortest = self.rate_hz * SHORTEST_PITCH_US / 1_000_000;
        let mut best = (longest, f32::MIN);
        let recent = history.get(end.saturating_sub(matched)..).unwrap_or_default();
        for lag in shortest..=longest {
            let Some(earlier) = history.get(end.saturating_sub(matched + lag)..end - lag) else { continue };
            let score = similarity(recent, earlier, 1);
            if score > best.1 {
                best = (lag, score);
            }
        }
        let period = best.0;
        let sample = |back: usize| f32::from(history.get(end.wrapping_sub(back)).copied().unwrap_or(0));
        self.cycle.clear();
        let overlap = period / 4;
        for n in 0..period {
            let newest = sample(period - n);
            // The end of the cycle leans on the period before, so that it flows into its own start.
            let part = (n + overlap + 1).saturating_sub(period) as f32 / (overlap + 1) as f32;
            self.cycle.push(newest * (1.0 - part) + sample(2 * period - n) * part);
        }
        self.phase = 0;
        self.step = sample(1) - sample(period + 1);
    }

    fn remember(&mut self, pcm: &[i16]) {
        let len = self.history.len();
        let tail = pcm.get(pcm.len().saturating_sub(len)..).unwrap_or_default();
        self.history.copy_within(tail.len().., 0);
        if let Some(end) = self.history.get_mut(len - tail.len()..) {
            end.copy_from_slice(tail);
        }
    }
}

/// Correlation of two pieces, −1 to 1, looked at every `stride` samples.
fn similarity(a: &[i16], b: &[i16], stride: usize) -> f32 {
    let (mut ab, mut aa, mut bb) = (0.0f32, 1.0f32, 1.0f32);
    for (x, y) in a.iter().step_by(stride).zip(b.iter().step_by(stride)) {
        let (x, y) = (f32::from(*x), f32::from(*y));
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    ab / (aa * bb).sqrt()
}

/// PCM at 48 kHz that waits to be played, with a memory of what was, and stretching.
#[derive(Debug)]
pub struct PcmQueue {
    data: Vec<i16>,
    head: usize,
}

// 48 kHz.
const LONGEST: usize = 720;
const OVERLAP: usize = 240;
// Looked at every 8th sample first (a tenth of the work), then around the best one.
const COARSE: usize = 8;
// Quieter than this (−50 dBov) nobody hears a cut.
const QUIET_RMS: f64 = 100.0;
// Below this correlation a cut is heard as a stutter.
const GOOD_MATCH: f32 = 0.7;
const POOR_MATCH: f32 = 0.35;

/// Samples that the queue must hold before `faster` can work.
pub const FASTER_NEEDS: usize = LONGEST + OVERLAP;

impl Default for PcmQueue {
    fn default() -> Self {
        let mut data = Vec::with_capacity(48_000 / 2);
        data.resize(LONGEST, 0);
        Self { data, head: LONGEST }
    }
}

impl PcmQueue {
    /// Samples that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len().saturating_sub(self.head)
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Room for `samples` more at the end, to be filled and then cut to size with `trim`.
    pub fn room(&mut self, samples: usize) -> &mut [i16] {
        if self.head > LONGEST + 4_800 {
            // What was played is kept as far as stretching looks back.
            let drop = self.head - LONGEST;
            self.data.copy_within(drop.., 0);
            self.data.truncate(self.data.len() - drop);
            self.head = LONGEST;
        }
        let from = self.data.len();
        self.data.resize(from + samples, 0);
        self.data.get_mut(from..).unwrap_or_default()
    }

    /// Takes back `samples` of the room that was given.
    pub fn trim(&mut self, samples: usize) {
        self.data.truncate(self.data.len().saturating_sub(samples).max(self.head));
    }

    /// Moves what waits into `out`; samples written.
    pub fn read(&mut self, out: &mut [i16]) -> usize {
        let n = self.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..n), self.data.get(self.head..self.head + n)) {
            to.copy_from_slice(from);
        }
        self.head += n;
        n
    }

    /// Removes one pitch period at the start of what waits, of at most so many samples; samples removed, 0 if it would be
    /// heard. `urgent` takes poorer matches.
    pub fn faster(&mut self, urgent: bool, most: usize) -> usize {
        let longest = most.min(LONGEST);
        let Some(waiting) = self.data.get_mut(self.head..) else { return 0 };
        if waiting.len() < FASTER_NEEDS || longest < OVERLAP {
            return 0;
        }
        let quiet = rms(waiting.get(..FASTER_NEEDS).unwrap_or_default()) < QUIET_RMS;
        let lag = if quiet {
            longest
        } else {
            let (head, rest) = waiting.split_at(OVERLAP.min(waiting.len()));
            let at = |lag: usize| {
                // Both pieces lie in `waiting`; the second starts `lag` later and may overlap the first.
                if lag >= OVERLAP { rest.get(lag - OVERLAP..lag).unwrap_or_default() } else { &[] }
            };
            let (lag, score) = best_lag(head, at, OVERLAP..=longest);
            if score < if urgent { POOR_MATCH } else { GOOD_MATCH } {
                return 0;
            }
            lag
        };
        for n in 0..OVERLAP {
            let part = (n as f32 + 0.5) / OVERLAP as f32;
            let (Some(&old), Some(&new)) = (waiting.get(n), waiting.get(n + lag)) else { return 0 };
            if let Some(slot) = waiting.get_mut(n + lag) {
                *slot = (f32::from(old) * (1.0 - part) + f32::from(new) * part) as i16;
            }
        }
        // What lies before `lag` goes: the mixed piece moves to the front, behind the memory of what was played.
        let head = self.head;
        self.data.copy_within(head + lag.., head);
        self.data.truncate(self.data.len() - lag);
        lag
    }

    /// Repeats one pitch period of what was played last; samples added, 0 if it would be heard.
    pub fn slower(&mut self, urgent: bool) -> usize {
        let head = self.head;
        let (Some(played), Some(waiting)) = (self.data.get(head - LONGEST.min(head)..head), self.data.get(head..))
        else {
            return 0;
        };
        if waiting.len() < LONGEST || played.len() < LONGEST {
            return 0;
        }
        let start = waiting.get(..OVERLAP).unwrap_or_default();
        let lag = if rms(waiting.get(..LONGEST).unwrap_or_default()) < QUIET_RMS && rms(played) < QUIET_RMS {
            LONGEST
        } else {
            let at = |lag: usize| played.get(LONGEST - lag..LONGEST - lag + OVERLAP).unwrap_or_default();
            let (lag, score) = best_lag(start, at, OVERLAP..=LONGEST);
            if score < if urgent { POOR_MATCH } else { GOOD_MATCH } {
                return 0;
            }
            lag
        };
        // y = x fading out over the repeated h: starts as x would and ends where x starts.
        let mut inserted = [0i16; LONGEST];
        for (n, slot) in inserted.iter_mut().take(lag).enumerate() {
            let part = (n as f32 + 0.5) / lag as f32;
            let (Some(&x), Some(&h)) = (waiting.get(n), played.get(LONGEST - lag + n)) else { return 0 };
            *slot = (f32::from(x) * (1.0 - part) + f32::from(h) * part) as i16;
        }
        let len = self.data.len();
        self.data.resize(len + lag, 0);
        self.data.copy_within(head..len, head + lag);
        if let Some(slot) = self.data.get_mut(head..head + lag) {
            slot.copy_from_slice(inserted.get(..lag).unwrap_or_default());
        }
        lag
    }
}

// The lag whose piece is most like `start`: coarse over all lags, then fine around the best.
fn best_lag<'a>(start: &[i16], at: impl Fn(usize) -> &'a [i16], lags: RangeInclusive<usize>) -> (usize, f32) {
    let (shortest, longest) = (*lags.start(), *lags.end());
    let mut best = (longest, -1.0);
    for lag in lags.step_by(COARSE) {
        let score = similarity(start, at(lag), 4);
        if score > best.1 {
            best = (lag, score);
        }
    }
    let middle = best.0;
    best.1 = -1.0;
    for lag in middle.saturating_sub(COARSE).max(shortest)..=(middle + COARSE).min(longest) {
        let score = similarity(start, at(lag), 2);
        if score > best.1 {
            best = (lag, score);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn voice(rate: usize, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|n| {
                let t = n as f64 / rate as f64 * 2.0 * std::f64::consts::PI * 140.0;
                (4_000.0 * (t.sin() + 0.5 * (2.0 * t).sin() + 0.3 * (5.0 * t).cos())) as i16
            })
            .collect()
    }

    fn steepest(pcm: &[i16]) -> i32 {
        pcm.windows(2).map(|w| (i32::from(w[0]) - i32::from(w[1])).abs()).max().unwrap()
    }

    #[test]
    fn a_lost_packet_of_a_voice_is_repeated_in_phase() {
        let signal = voice(8_000, 1_600);
        let mut concealer = Concealer::new(8_000);
        let mut good = signal[..800].to_vec();
        concealer.good(&mut good);
        let mut lost = vec![0; 160];
        concealer.conceal(&mut lost);
        let score = similarity(&lost, &signal[800..960], 1);
        assert!(score > 0.95, "{score}");
        let mut next = signal[960..1_120].to_vec();
        concealer.good(&mut next);
        let all: Vec<i16> = good.iter().chain(&lost).chain(&next).copied().collect();
        assert!(steepest(&all) <= steepest(&signal) * 3 / 2, "{} {}", steepest(&all), steepest(&signal));
    }

    #[test]
    fn a_long_loss_fades_to_silence() {
        let mut concealer = Concealer::new(16_000);
        concealer.good(&mut voice(16_000, 3_200));
        let mut lost = vec![0; 1_600];
        concealer.conceal(&mut lost);
        assert!(lost[1_200..].iter().all(|s| s.abs() < 2));
    }

    #[test]
    fn stretching_changes_the_length_and_does_not_click() {
        let signal = voice(48_000, 48_000);
        let mut queue = PcmQueue::default();
        queue.room(48_000).copy_from_slice(&signal);
        let mut out = Vec::new();
        let mut block = [0; 960];
        let (mut removed, mut added) = (0, 0);
        for round in 0..40 {
            if round % 2 == 0 {
                removed += queue.faster(false, LONGEST)
            } else {
                added += queue.slower(false)
            }
            let n = queue.read(&mut block);
            out.extend_from_slice(&block[..n]);
        }
        assert!(removed > 3_000 && added > 3_000, "{removed} {added}");
        assert_eq!(queue.len(), 48_000 - removed + added - out.len());
        assert!(steepest(&out) <= steepest(&signal) * 3 / 2, "{} {}", steepest(&out), steepest(&signal));
    }

    #[test]
    fn noise_is_left_alone_unless_it_is_quiet() {
        let mut state = 1u32;
        let mut noise = |level: i32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) as i32 % level - level / 2) as i16
        };
        let mut queue = PcmQueue::default();
        queue.room(4_800).iter_mut().for_each(|s| *s = noise(20_000));
        assert_eq!((queue.faster(false, LONGEST), queue.slower(false)), (0, 0));
        let mut queue = PcmQueue::default();
        queue.room(4_800).iter_mut().for_each(|s| *s = noise(50));
        assert!(queue.faster(false, LONGEST) > 0);
        assert!(queue.slower(false) > 0);
    }
}

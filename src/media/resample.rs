//! One rate to another, streaming, with exact sample counts. A polyphase windowed sinc: read Smith, "Digital Audio
//! Resampling", before touching this file.

/// Converts mono PCM from one rate to another. 20 ms in are exactly 20 ms out where both are whole samples.
#[derive(Debug, Clone)]
pub struct Resampler {
    // The rates divided by their greatest common divisor: `up` output steps are `down` input steps.
    up: usize,
    down: usize,
    // Rows of the filter table; less than `up` only for rates with nothing in common.
    phases: usize,
    taps: usize,
    table: Vec<f32>,
    // The last `taps - 1` samples, then the input of the call.
    window: Vec<f32>,
    // Position of the next output between two inputs, in 1/up.
    fraction: usize,
}

// Stop-band attenuation of about 70 dB: below the noise of 13-bit G.711 by far.
const KAISER_BETA: f64 = 7.0;
// Taps for each input (up) or output (down) period. 24 leave 3.3 kHz of an 8 kHz stream untouched.
const TAPS: usize = 24;
// The table stays under 512 × 512 × 4 bytes for any pair of rates.
const MOST_PHASES: usize = 512;
const MOST_TAPS: usize = 512;
// Passband edge as part of the lower Nyquist frequency.
const PASSBAND: f64 = 0.94;

impl Resampler {
    /// From `from_hz` to `to_hz`; both at least 1, a rate of 0 counts as 1.
    #[must_use]
    pub fn new(from_hz: u32, to_hz: u32) -> Self {
        let (from, to) = (from_hz.max(1) as usize, to_hz.max(1) as usize);
        let divisor = gcd(from, to);
        let (up, down) = (to / divisor, from / divisor);
        let phases = up.min(MOST_PHASES);
        // Downwards the filter gets longer with the ratio, so that its slope stays as steep.
        let taps = if down > up { (TAPS * down).div_ceil(up).min(MOST_TAPS) } else { TAPS };
        let taps = if up == down { 1 } else { taps };
        let cutoff = PASSBAND * (up as f64 / down as f64).min(1.0);
        let mut table = Vec::with_capacity(phases * taps);
        for phase in 0..phases {
            let offset = phase as f64 / phases as f64;
            let row: Vec<f64> = (0..taps)
                .map(|tap| {
                    let x = tap as f64 - (taps as f64 / 2.0 - 1.0) - offset;
                    cutoff * sinc(cutoff * x) * kaiser(x / (taps as f64 / 2.0))
                })
                .collect();
            // Each phase passes DC unchanged, else the phases would hum against each other.
            let sum: f64 = row.iter().sum();
            table.extend(row.iter().map(|c| if taps == 1 { 1.0 } else { (c / sum) as f32 }));
        }
        let mut window = Vec::with_capacity(taps + 5_760);
        window.resize(taps - 1, 0.0);
        Self { up, down, phases, taps, table, window, fraction: 0 }
    }

    /// Samples that `process` writes for `input` samples, at most.
    #[must_use]
    pub fn output_len(&self, input: usize) -> usize {
        (input * self.up).div_ceil(self.down) + 1
    }

    /// Converts `input` into `out` (at least `output_len`); samples written. What does not fit is lost.
    pub fn process(&mut self, input: &[i16], out: &mut [i16]) -> usize {
        if self.up == self.down {
            let n = input.len().min(out.len());
            for (to, from) in out.iter_mut().zip(input) {
                *to = *from;
            }
            return n;
        }
        self.window.extend(input.iter().map(|sample| f32::from(*sample)));
        let mut at = 0;
        let mut written = 0;
        while let Some(window) = self.window.get(at..at + self.taps) {
            let row = self.fraction * self.phases / self.up * self.taps;
            if let (Some(taps), Some(to)) = (self.table.get(row..row + self.taps), out.get_mut(written)) {
                let sum = dot(window, taps);
                *to = sum.round().clamp(-32_768.0, 32_767.0) as i16;
                written += 1;
            }
            self.fraction += self.down;
            at += self.fraction / self.up;
            self.fraction %= self.up;
        }
        // `at` passes the end when a downward step is longer than what is there.
        let kept = at.min(self.window.len());
        debug_assert!(at <= self.window.len() || self.down > self.up);
        self.window.copy_within(kept.., 0);
        self.window.truncate(self.window.len() - kept);
        written
    }
}

// Four sums side by side let the compiler use vector registers; f32 sums may not be reordered otherwise.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 4];
    let (a_chunks, b_chunks) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + tail
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) }
}

fn kaiser(x: f64) -> f64 {
    if x.abs() > 1.0 { 0.0 } else { bessel_i0(KAISER_BETA * (1.0 - x * x).sqrt()) / bessel_i0(KAISER_BETA) }
}

fn bessel_i0(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..40 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn tone(rate: u32, hz: f64, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|n| (10_000.0 * (2.0 * std::f64::consts::PI * hz * n as f64 / f64::from(rate)).sin()) as i16)
            .collect()
    }

    fn rms(pcm: &[i16]) -> f64 {
        (pcm.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / pcm.len() as f64).sqrt()
    }

    fn run(from: u32, to: u32, input: &[i16]) -> Vec<i16> {
        let mut resampler = Resampler::new(from, to);
        let mut out = Vec::new();
        let mut block = vec![0; 8_192];
        for chunk in input.chunks(from as usize / 50) {
            let n = resampler.process(chunk, &mut block);
            out.extend_from_slice(&block[..n]);
        }
        out
    }

    #[test]
    fn twenty_ms_in_are_exactly_twenty_ms_out() {
        for (from, to) in
            [(48_000, 8_000), (8_000, 48_000), (48_000, 16_000), (16_000, 48_000), (44_100, 48_000), (48_000, 48_000)]
        {
            let mut resampler = Resampler::new(from, to);
            let input = vec![0; from as usize / 50];
            let mut out = vec![0; 4_000];
            for _ in 0..200 {
                assert_eq!(resampler.process(&input, &mut out), to as usize / 50, "{from} {to}");
            }
        }
    }

    #[test]
    fn a_tone_keeps_its_level_and_what_is_past_the_band_is_gone() {
        for (from, to, hz) in
            [(8_000, 48_000, 1_000.0), (48_000, 8_000, 3_000.0), (44_100, 48_000, 5_000.0), (16_000, 48_000, 6_500.0)]
        {
            let out = run(from, to, &tone(from, hz, from as usize));
            let level = rms(&out[2_000..]) / (10_000.0 / 2f64.sqrt());
            assert!((0.95..1.05).contains(&level), "{from} {to}: {level}");
        }
        let out = run(48_000, 8_000, &tone(48_000, 5_000.0, 48_000));
        assert!(rms(&out[500..]) < 20.0, "{}", rms(&out[500..]));
    }

    #[test]
    fn rates_with_nothing_in_common_work_and_count_right_in_the_long_run() {
        for (from, to) in
            [(47_999, 48_000), (11_025, 48_000), (96_000, 48_000), (192_000, 48_000), (1, 48_000), (44_101, 47_777)]
        {
            let input = tone(from, f64::from(from) / 20.0, from as usize * 2);
            let mut resampler = Resampler::new(from, to);
            let mut out = vec![0; resampler.output_len(input.len())];
            let n = resampler.process(&input, &mut out);
            assert!(n.abs_diff(2 * to as usize) <= 1, "{from} {to} {n}");
        }
    }
}

//! Comfort noise, RFC 3389: what is sent and heard in silence with the 8 kHz codecs.

/// Most reflection coefficients that are used; RFC 3389 §3 leaves the order open, G.711 appendix II uses 10.
const MOST_COEFFICIENTS: usize = 10;

/// Level of a frame in −dBov, 0 (loudest) to 127 (RFC 3389 §3.1).
#[must_use]
pub fn level(pcm: &[i16]) -> u8 {
    let rms = rms(pcm);
    if rms < 1.0 {
        return 127;
    }
    // dBov is relative to a square wave at full scale.
    (-20.0 * (rms / 32_767.0).log10()).round().clamp(0.0, 127.0) as u8
}

/// Root mean square of a frame.
#[must_use]
pub fn rms(pcm: &[i16]) -> f64 {
    if pcm.is_empty() {
        return 0.0;
    }
    let sum: i64 = pcm.iter().map(|sample| i64::from(*sample) * i64::from(*sample)).sum();
    (sum as f64 / pcm.len() as f64).sqrt()
}

/// Decides what is silence: by level against a slowly rising noise floor.
#[derive(Debug, Clone)]
pub struct SilenceDetector {
    floor: f64,
    quiet_ms: u32,
}

// Speech ends are soft: this much silence is sent as sound before comfort noise takes over.
const HANGOVER_MS: u32 = 200;

impl Default for SilenceDetector {
    fn default() -> Self {
        Self { floor: 200.0, quiet_ms: 0 }
    }
}

impl SilenceDetector {
    /// True if the frame, of `ms` milliseconds, need not be sent.
    pub fn is_silence(&mut self, pcm: &[i16], ms: u32) -> bool {
        let rms = rms(pcm);
        // The floor falls at once and rises by 1 dB a second or so, never past what is surely speech.
        self.floor = if rms < self.floor { rms.max(10.0) } else { (self.floor * 1.002).min(500.0) };
        // 8 dB above the floor is speech.
        if rms > self.floor * 2.5 && rms > 30.0 {
            self.quiet_ms = 0;
        } else {
            self.quiet_ms = self.quiet_ms.saturating_add(ms);
        }
        self.quiet_ms > HANGOVER_MS
    }
}

/// Generates noise with the level and spectrum that the peer described.
#[derive(Debug, Clone)]
pub struct NoiseGenerator {
    random: u32,
    gain: f32,
    order: usize,
    reflection: [f32; MOST_COEFFICIENTS],
    lattice: [f32; MOST_COEFFICIENTS + 1],
}

impl NoiseGenerator {
    /// Silent until a description arrives.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: (seed as u32) | 1,
            gain: 0.0,
            order: 0,
            reflection: [0.0; MOST_COEFFICIENTS],
            lattice: [0.0; MOST_COEFFICIENTS + 1],
        }
    }

    /// Takes the payload of a comfort noise packet: level, then reflection coefficients (RFC 3389 §3).
    pub fn describe(&mut self, payload: &[u8]) {
        let Some((&level, coefficients)) = payload.split_first() else { return };
        // RFC 3389 §3.1: the top bit of the level is zero.
        let level = f32::from(level & 0x7F);
        let rms = 32_767.0 * 10f32.powf(-level / 20.0);
        self.order = 0;
        let mut power = 1.0;
        for (slot, &byte) in self.reflection.iter_mut().zip(coefficients) {
            // RFC 3389 §3.2: k = (N − 127) / 128; at the edge the filter would ring for ever.
            *slot = ((f32::from(byte) - 127.0) / 128.0).clamp(-0.98, 0.98);
            power *= 1.0 - *slot * *slot;
            self.order += 1;
        }
        // Uniform noise of ±1 has a power of 1/3, the lattice raises it by 1/power.
        self.gain = rms * (3.0 * power).sqrt();
    }

    /// Fills `out` with noise.
    pub fn fill(&mut self, out: &mut [i16]) {
        for sample in out {
            // xorshift32: enough for noise.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            let white = (self.random as f32 / u32::MAX as f32) * 2.0 - 1.0;
            let value = self.synthesize(white * self.gain);
            *sample = value.clamp(-32_768.0, 32_767.0) as i16;
        }
    }

    // All-pole lattice: f[i-1] = f[i] − k[i]·b[i-1], b[i] = b[i-1] + k[i]·f[i-1].
    fn synthesize(&mut self, input: f32) -> f32 {
        let mut forward = input;
        for i in (0..self.order).rev() {
            let (Some(&k), Some(&backward)) = (self.reflection.get(i), self.lattice.get(i)) else { break };
            forward -= k * backward;
            if let Some(next) = self.lattice.get_mut(i + 1) {
                *next = backward + k * forward;
            }
        }
        // A level of 0 with a sharp filter must not grow without end.
        let forward = if forward.is_finite() { forward.clamp(-1e6, 1e6) } else { 0.0 };
        if let Some(first) = self.lattice.first_mut() {
            *first = forward;
        }
        forward
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn noise_has_the_level_that_was_described() {
        for level_in in [20u8, 40, 60, 80] {
            for coefficients in [&[][..], &[127, 127], &[60, 150, 140]] {
                let mut generator = NoiseGenerator::new(7);
                let mut payload = vec![level_in];
                payload.extend_from_slice(coefficients);
                generator.describe(&payload);
                let mut pcm = vec![0; 16_000];
                generator.fill(&mut pcm);
                let got = level(&pcm);
                assert!(got.abs_diff(level_in) <= 2, "{level_in} {coefficients:?}: {got}");
            }
        }
    }

    #[test]
    fn any_description_gives_finite_noise() {
        let mut generator = NoiseGenerator::new(1);
        let mut pcm = [0; 160];
        for len in 0..40usize {
            for fill in [0u8, 1, 127, 200, 255] {
                generator.describe(&vec![fill; len]);
                generator.fill(&mut pcm);
            }
        }
    }

    #[test]
    fn speech_is_not_silence_and_silence_is_after_the_hangover() {
        let mut detector = SilenceDetector::default();
        let loud: Vec<i16> = (0..160).map(|n| if n % 40 < 20 { 4_000 } else { -4_000 }).collect();
        let quiet = vec![3i16; 160];
        for _ in 0..100 {
            assert!(!detector.is_silence(&loud, 20));
        }
        let silent = (0..50).map(|_| detector.is_silence(&quiet, 20)).collect::<Vec<_>>();
        assert_eq!(silent.iter().filter(|s| !**s).count(), 10);
        assert!(!detector.is_silence(&loud, 20));
    }
}

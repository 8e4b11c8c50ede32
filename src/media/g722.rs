//! G.722 at 64 kbit/s (mode 1): 16 kHz PCM to one byte for two samples and back. Read ITU-T G.722 §3 to §6 before touching
//! this file; the names of its blocks (SUBTRA, QUANTL, INVQAL, LOGSCL, …) stand where they are done. Everything is integer
//! arithmetic and bit exact.
//!
//! ```text
//!            ┌─ low  ─ 6 bit ADPCM ─┐                     ┌─ low  ─ ADPCM ─┐
//! PCM ─ QMF ─┤                      ├─ hh llllll ─ byte ──┤                ├─ QMF ─ PCM
//!            └─ high ─ 2 bit ADPCM ─┘                     └─ high ─ ADPCM ─┘
//! ```

/// Half of the 24 taps of the band-splitting filter, the even ones (table 11/G.722, scaled to 2^-13); the odd ones are
/// the same in reverse.
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];
/// Decision levels of the low band's quantizer, Q6 of table 14/G.722.
const DECISIONS_LOW: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121, 1219, 1339,
    1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
/// The one decision level of the high band, Q2.
const DECISION_HIGH: i32 = 564;
/// Output of the low band's 6-bit inverse quantizer by code word, QQ6 with its sign.
const LEVELS_LOW_6: [i16; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360, -8576,
    -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688, -1360, -1040,
    -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456,
    4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];
/// Output of the low band's 4-bit inverse quantizer by the code word's upper four bits, QQ4 with its sign.
const LEVELS_LOW_4: [i16; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];
/// Output of the high band's inverse quantizer by code word, QQ2 with its sign.
const LEVELS_HIGH: [i16; 4] = [-7408, -1616, 7408, 1616];
/// Multiplier of the low band's logarithmic scale by the upper four bits, WL after RL42.
const GROWTH_LOW: [i32; 16] = [-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60];
/// The same of the high band, WH after RH2.
const GROWTH_HIGH: [i32; 4] = [798, -214, 798, -214];
/// 2^(n/32) in steps, table ILB.
const POWERS: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896, 2960, 3025,
    3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

fn saturated(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

/// LIMIT: the bands carry 15 bits (§5.2.1, §4.4.1).
fn limited(value: i32) -> i32 {
    value.clamp(-16_384, 16_383)
}

/// Entry of a table whose size is a power of two.
fn at<T: Copy, const N: usize>(table: &[T; N], index: usize) -> T {
    const { assert!(N.is_power_of_two()) };
    table[index & (N - 1)]
}

/// What differs between the two bands' step sizes.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// Most of the logarithmic step size (LIMIT in LOGSCL and LOGSCH).
    most: i32,
    /// Exponent that stands for a step of 2^-11 (SCALEL and SCALEH).
    exponent: i32,
    /// Step size after a reset.
    step: i32,
}

const LOW: Scale = Scale { most: 18_432, exponent: 8, step: 32 };
const HIGH: Scale = Scale { most: 22_528, exponent: 10, step: 8 };

/// State of one band's adaptive predictor and step size. Encoder and decoder run the same one on the same code words.
#[derive(Debug, Clone)]
struct Band {
    scale: Scale,
    /// S: what the predictor expects.
    predicted: i32,
    /// SZ: the part of it that comes of the zeros.
    from_zeros: i32,
    /// DET
    step: i32,
    /// NB
    log_step: i32,
    /// A1, A2
    poles: [i32; 2],
    /// B1 to B6
    zeros: [i32; 6],
    /// DLT1 to DLT6: differences, newest first.
    differences: [i32; 6],
    /// RLT1: the newest reconstructed signal.
    reconstructed: i32,
    /// PLT1, PLT2: partly reconstructed signals, newest first.
    partial: [i32; 2],
}

impl Band {
    fn new(scale: Scale) -> Self {
        Self {
            scale,
            predicted: 0,
            from_zeros: 0,
            step: scale.step,
            log_step: 0,
            poles: [0; 2],
            zeros: [0; 6],
            differences: [0; 6],
            reconstructed: 0,
            partial: [0; 2],
        }
    }

    /// INVQAL, INVQAH, INVQBL: a level in units of the step size.
    fn difference(&self, level: i16) -> i32 {
        (self.step * i32::from(level)) >> 15
    }

    /// Takes one quantized difference (§3.6): adapts the step size, then the predictor.
    fn adapt(&mut self, difference: i32, growth: i32) {
        // LOGSCL, LOGSCH, then SCALEL, SCALEH.
        self.log_step = (((self.log_step * 127) >> 7) + growth).clamp(0, self.scale.most);
        let power = at(&POWERS, (self.log_step >> 6) as usize);
        let right = self.scale.exponent - (self.log_step >> 11);
        self.step = (if right < 0 { power << -right } else { power >> right }) << 2;

        // RECONS, PARREC
        let reconstructed = saturated(self.predicted + difference);
        let partial = saturated(self.from_zeros + difference);
        let [partial1, partial2] = self.partial;
        let [pole1, pole2] = self.poles;
        // UPPOL2
        let same1 = (partial < 0) == (partial1 < 0);
        let same2 = (partial < 0) == (partial2 < 0);
        let four = saturated(pole1 << 2);
        let turn = if same1 { saturated(-four) } else { four } >> 7;
        let new_pole2 = (turn + if same2 { 128 } else { -128 } + ((pole2 * 32_512) >> 15)).clamp(-12_288, 12_288);
        // UPPOL1
        let most = saturated(15_360 - new_pole2);
        let new_pole1 = saturated(if same1 { 192 } else { -192 } + ((pole1 * 32_640) >> 15)).clamp(-most, most);
        // UPZERO
        let push = if difference == 0 { 0 } else { 128 };
        for (zero, old) in self.zeros.iter_mut().zip(self.differences) {
            let turn = if (old < 0) == (difference < 0) { push } else { -push };
            *zero = saturated(turn + ((*zero * 32_640) >> 15));
        }
        // DELAYA
        self.differences.copy_within(..5, 1);
        self.differences[0] = difference;
        let before = self.reconstructed;
        self.reconstructed = reconstructed;
        self.partial = [partial, partial1];
        self.poles = [new_pole1, new_pole2];
        // FILTEP
        let from_poles =
            saturated(((new_pole1 * saturated(2 * reconstructed)) >> 15) + ((new_pole2 * saturated(2 * before)) >> 15));
        // FILTEZ
        let sum: i32 = self.zeros.iter().zip(self.differences).map(|(zero, d)| (zero * saturated(2 * d)) >> 15).sum();
        self.from_zeros = saturated(sum);
        // PREDIC
        self.predicted = saturated(from_poles + self.from_zeros);
    }

    /// One code word of the low band was sent or received.
    fn adapt_low(&mut self, code: usize) {
        // The upper four bits only: modes 2 and 3 rob the other two, and both ends must adapt alike.
        let upper = code >> 2;
        self.adapt(self.difference(at(&LEVELS_LOW_4, upper)), at(&GROWTH_LOW, upper));
    }

    /// One code word of the high band was sent or received.
    fn adapt_high(&mut self, code: usize) {
        self.adapt(self.difference(at(&LEVELS_HIGH, code)), at(&GROWTH_HIGH, code));
    }
}

/// The last 24 samples at a filter, in pairs, newest last.
#[derive(Debug, Clone, Default)]
struct History([(i32, i32); 12]);

impl History {
    /// Takes a pair; the filter's sums over the first and over the second ones.
    fn push(&mut self, first: i32, second: i32) -> (i32, i32) {
        self.0.copy_within(1.., 0);
        self.0[11] = (first, second);
        let taps = QMF.iter().zip(QMF.iter().rev());
        self.0.iter().zip(taps).fold((0, 0), |(a, b), (pair, (even, odd))| (a + pair.0 * even, b + pair.1 * odd))
    }
}

/// 16 kHz PCM to code words.
#[derive(Debug, Clone)]
pub struct Encoder {
    history: History,
    low: Band,
    high: Band,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { history: History::default(), low: Band::new(LOW), high: Band::new(HIGH) }
    }
}

impl Encoder {
    /// Encodes pairs of samples at 16 kHz into `out`, one byte a pair, until either ends; bytes written. A last single
    /// sample is left out.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> usize {
        let pairs = pcm.as_chunks::<2>().0;
        for (byte, [first, second]) in out.iter_mut().zip(pairs) {
            let (a, b) = self.history.push(i32::from(*first), i32::from(*second));
            *byte = self.code(limited((b + a) >> 14), limited((b - a) >> 14));
        }
        pairs.len().min(out.len())
    }

    /// One code word for a sample of each band.
    fn code(&mut self, low: i32, high: i32) -> u8 {
        // SUBTRA, QUANTL: sign and magnitude; a negative difference counts from -1.
        let error = saturated(low - self.low.predicted);
        let magnitude = if error < 0 { !error } else { error };
        let step = self.low.step;
        let interval = DECISIONS_LOW.partition_point(|decision| (decision * step) >> 12 <= magnitude);
        // Table 15/G.722: 61 downwards for the positive ones; 63, 62, then 31 downwards for the negative ones.
        let low_code = match (error < 0, interval) {
            (false, n) => 61 - n,
            (true, n @ 0..=1) => 63 - n,
            (true, n) => 33 - n,
        };
        self.low.adapt_low(low_code);
        // SUBTRA, QUANTH
        let error = saturated(high - self.high.predicted);
        let magnitude = if error < 0 { !error } else { error };
        let outer = magnitude >= (DECISION_HIGH * self.high.step) >> 12;
        let high_code = match (error < 0, outer) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        self.high.adapt_high(high_code);
        ((high_code << 6) | low_code) as u8
    }
}

/// Code words to 16 kHz PCM.
#[derive(Debug, Clone)]
pub struct Decoder {
    history: History,
    low: Band,
    high: Band,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { history: History::default(), low: Band::new(LOW), high: Band::new(HIGH) }
    }
}

impl Decoder {
    /// Decodes code words into `out`, two samples at 16 kHz a byte, until either ends; samples written.
    pub fn decode(&mut self, codes: &[u8], out: &mut [i16]) -> usize {
        let pairs = out.as_chunks_mut::<2>().0;
        let written = 2 * pairs.len().min(codes.len());
        for (pair, code) in pairs.iter_mut().zip(codes) {
            let (low, high) = self.bands(*code);
            let (a, b) = self.history.push(low + high, low - high);
            *pair = [saturated(b >> 11) as i16, saturated(a >> 11) as i16];
        }
        written
    }

    /// A sample of each band, 15 bits.
    fn bands(&mut self, code: u8) -> (i32, i32) {
        // RECONS
        let low_code = usize::from(code & 0x3f);
        let low = limited(self.low.predicted + self.low.difference(at(&LEVELS_LOW_6, low_code)));
        self.low.adapt_low(low_code);
        let high_code = usize::from(code >> 6);
        let high = limited(self.high.predicted + self.high.difference(at(&LEVELS_HIGH, high_code)));
        self.high.adapt_high(high_code);
        (low, high)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// CRC-32 as of zip, which the ITU prints beside its test sequences.
    fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
        !bytes.into_iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    /// As in the ITU's files: 16 words that ask for a reset, the sequence, the same 16 words.
    fn file_crc32(words: &[u16]) -> u32 {
        let frame = [1u16; 16];
        crc32(frame.iter().chain(words).chain(&frame).flat_map(|word| word.to_le_bytes()))
    }

    // Appendix II/G.722: the sequence T1C2 goes to both bands past the filter and comes out as T2R2; decoded that is T3L2
    // and T3H2. The figures are those of the distribution's read-me.
    #[test]
    fn the_overflow_sequence_of_the_itu_comes_out_bit_exact() {
        let mut sequence: Vec<u16> = [0x8000, 0x7ffe].repeat(8 * 39 + 7);
        sequence.extend([0x8000, 0, 0xb1e0, 0xc000]);
        sequence.extend([0x8000, 0x7ffe, 0x8000].iter().cycle().take(768 - sequence.len()));
        assert_eq!(file_crc32(&sequence), 0x2d60_4685, "T1C2.XMT");
        let mut encoder = Encoder::default();
        let codes: Vec<u8> = sequence
            .iter()
            .map(|word| {
                let sample = i32::from(word.cast_signed()) >> 1;
                encoder.code(sample, sample)
            })
            .collect();
        let words: Vec<u16> = codes.iter().map(|code| u16::from(*code) << 8).collect();
        assert_eq!(file_crc32(&words), 0x344e_a5d0, "T2R2.COD");
        let mut decoder = Decoder::default();
        let (low, high): (Vec<u16>, Vec<u16>) = codes
            .iter()
            .map(|code| {
                let (low, high) = decoder.bands(*code);
                ((2 * low) as u16, (2 * high) as u16)
            })
            .unzip();
        assert_eq!(file_crc32(&low), 0xaf00_f31f, "T3L2.RC1");
        assert_eq!(file_crc32(&high), 0x5330_ae2e, "T3H2.RC0");
    }

    /// Ten seconds that visit every corner: sweeps, noise loud and faint, silence, full-scale squares, single clicks.
    fn signal() -> Vec<i16> {
        let mut noise = 1u32;
        let mut next = move || {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            (noise >> 16) as u16 as i16
        };
        let mut phase = 0u32;
        (0..160_000u32)
            .map(|n| match n / 16_000 {
                0 | 7 => {
                    phase = phase.wrapping_add((n % 16_000) * 120_000);
                    let triangle = ((phase >> 15) as i32 - 0x1_0000).abs() - 0x8000;
                    (if n < 16_000 { triangle } else { triangle / 100 }).clamp(-32_768, 32_767) as i16
                }
                1 => next(),
                2 => next() >> 9,
                3 => 0,
                4 => {
                    if (n >> (n / 1_000 % 7)) & 1 == 0 {
                        i16::MIN
                    } else {
                        i16::MAX
                    }
                }
                5 => {
                    if n % 400 == 0 {
                        i16::MAX
                    } else {
                        0
                    }
                }
                6 => next() >> (n / 500 % 15),
                8 => {
                    if n % 2 == 0 {
                        next()
                    } else {
                        -32_768
                    }
                }
                _ => ((n.wrapping_mul(n) / 97) as i16) >> 3,
            })
            .collect()
    }

    // The figures are what the ITU's own program (g722demo of G.191) makes of the same input. spandsp 0.0.6 makes the same
    // as far as nothing is overdriven: it leaves LIMIT out after the filter.
    #[test]
    fn code_words_and_sound_are_those_of_the_reference_programs() {
        let pcm = signal();
        let mut codes = vec![0; 80_000];
        let mut encoder = Encoder::default();
        // In frames of every length, so that nothing hangs on their borders.
        let mut done = 0;
        for frame in (1..).map(|n| 2 * (n % 480)) {
            let end = pcm.len().min(2 * done + frame);
            if done == 80_000 {
                break;
            }
            done += encoder.encode(&pcm[2 * done..end], &mut codes[done..]);
        }
        assert_eq!(crc32(pcm.iter().flat_map(|sample| sample.to_le_bytes())), 0x19f1_2fdf, "the input itself");
        assert_eq!(crc32(codes.iter().copied()), 0xce1c_2419, "encoded");
        let mut heard = vec![0; 160_000];
        assert_eq!(Decoder::default().decode(&codes, &mut heard), 160_000);
        assert_eq!(crc32(heard.iter().flat_map(|sample| sample.to_le_bytes())), 0xe4ba_5eb9, "decoded");
        // Any byte is a code word: what a peer may send that is no encoder.
        let junk: Vec<u8> = pcm.iter().map(|sample| (sample ^ (sample >> 5)) as u8).collect();
        let mut heard = vec![0; 320_000];
        Decoder::default().decode(&junk, &mut heard);
        assert_eq!(crc32(heard.iter().flat_map(|sample| sample.to_le_bytes())), 0xc997_81c5, "junk decoded");
    }

    #[test]
    fn a_short_buffer_and_a_single_sample_are_left_out() {
        let mut encoder = Encoder::default();
        assert_eq!(encoder.encode(&[1], &mut [0; 4]), 0);
        assert_eq!(encoder.encode(&[1, 2, 3], &mut [0; 4]), 1);
        assert_eq!(encoder.encode(&[1; 100], &mut [0; 4]), 4);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&[1, 2, 3], &mut [0; 3]), 2);
        assert_eq!(decoder.decode(&[1], &mut [0; 8]), 2);
        assert_eq!(decoder.decode(&[], &mut [0; 8]), 0);
    }
}

//! Spoken WAV files (Debian package `espeak-ng`) and how much of one is found in a recording.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;

/// All comparisons are made at this rate.
pub const RATE_HZ: usize = 48_000;
/// The recording may be ahead or behind by this much as a whole.
const MAX_LAG: usize = RATE_HZ;
/// Blocks are aligned one by one, so that neither a clock that drifts nor a jitter buffer that stretches the sound by a
/// pitch period (at most once in 40 ms) spoils the figure. Measured with the two voices: the bare codec 0.955 to 0.965, calls
/// on a busy machine with stretching all the time 0.93 to 0.96, the other voice 0.2 to 0.33.
const BLOCK: usize = RATE_HZ * 40 / 1000;
/// A block may lie this far from where the whole lies.
const BLOCK_LAG: usize = RATE_HZ * 60 / 1000;
/// Rate divisor of the coarse searches.
const COARSE: usize = 24;
const MIDDLE: usize = 6;

/// Two people with different voices who say different things.
pub const VOICES: [(&str, &str); 2] = [
    ("en-us", "But soft, what light through yonder window breaks? It is the east."),
    ("en-gb+f3", "If love be rough with you, be rough with love, prick love for pricking."),
];

/// Writes what voice number `which` says: half a second of silence, so that no syllable is lost while the other side is
/// still opening its ears, then about three seconds of speech at espeak's own 22 050 Hz.
pub fn speak(which: usize, path: &Path) {
    let (voice, text) = VOICES[which];
    let plain = path.with_extension("espeak.wav");
    let status = Command::new("espeak-ng").args(["-v", voice, "-s", "170", "-w"]).arg(&plain).arg(text).status();
    let status = status.unwrap_or_else(|why| {
        panic!("cannot start espeak-ng ({why}): install the Debian package `espeak-ng`, or set OFFHOOK_INTEROP=none")
    });
    assert!(status.success(), "espeak-ng: {status}");
    let mut reader = hound::WavReader::open(&plain).unwrap();
    let spec = reader.spec();
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for _ in 0..spec.sample_rate / 2 {
        writer.write_sample(0i16).unwrap();
    }
    for sample in reader.samples::<i16>() {
        writer.write_sample(sample.unwrap()).unwrap();
    }
    writer.finalize().unwrap();
    let _ = std::fs::remove_file(plain);
}

/// The same at a rate that divides 48 kHz, for those that do not resample.
pub fn speak_at(which: usize, rate_hz: u32, path: &Path) {
    speak(which, path);
    let signal = read(path);
    let step = RATE_HZ / rate_hz as usize;
    // A windowed sinc that ends a little below half of the new rate.
    let taps: Vec<f32> = (-60..=60)
        .map(|n| {
            let x = n as f32 / step as f32 * 0.9;
            let sinc = if n == 0 { 1.0 } else { (std::f32::consts::PI * x).sin() / (std::f32::consts::PI * x) };
            sinc * (0.5 + 0.5 * (std::f32::consts::PI * n as f32 / 61.0).cos()) * 0.9 / step as f32
        })
        .collect();
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: rate_hz,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for window in signal.windows(taps.len()).step_by(step) {
        let sum: f32 = window.iter().zip(&taps).map(|(sample, tap)| sample * tap).sum();
        writer.write_sample((sum * 32_767.0) as i16).unwrap();
    }
    writer.finalize().unwrap();
}

/// The frequency between these two at which a signal at 48 kHz is loudest, to the hertz, and the share of the signal's
/// power that it is (1 for a pure tone).
pub fn loudest_hz(signal: &[f32], from_hz: u32, to_hz: u32) -> (u32, f32) {
    let share = |hz: u32| {
        let step = 2.0 * std::f64::consts::PI * f64::from(hz) / RATE_HZ as f64;
        let (mut re, mut im) = (0.0f64, 0.0f64);
        for (n, sample) in signal.iter().enumerate() {
            let (sin, cos) = (step * n as f64).sin_cos();
            re += f64::from(*sample) * cos;
            im += f64::from(*sample) * sin;
        }
        let n = signal.len().max(1) as f64;
        (2.0 * (re * re + im * im) / (n * n) / f64::from(power(signal)).max(1e-12)) as f32
    };
    let all = (from_hz..=to_hz).map(|hz| (hz, share(hz)));
    all.max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap()
}

/// A WAV file as mono at 48 kHz, read without the library under test.
pub fn read(path: &Path) -> Vec<f32> {
    let mut reader = hound::WavReader::open(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let spec = reader.spec();
    let channels = usize::from(spec.channels);
    let samples: Vec<f32> = reader.samples::<i16>().map(|s| f32::from(s.unwrap()) / 32_768.0).collect();
    let mono: Vec<f32> = samples.chunks(channels).map(|c| c.iter().sum::<f32>() / channels as f32).collect();
    resample(&mono, spec.sample_rate as usize)
}

/// Windowed sinc, 16 zero crossings a side.
fn resample(input: &[f32], rate_hz: usize) -> Vec<f32> {
    if rate_hz == RATE_HZ {
        return input.to_vec();
    }
    assert!(rate_hz < RATE_HZ, "only upwards");
    let step = rate_hz as f64 / RATE_HZ as f64;
    (0..input.len() * RATE_HZ / rate_hz)
        .map(|n| {
            let at = n as f64 * step;
            let first = (at.floor() as usize).saturating_sub(15);
            let taps = input.iter().enumerate().skip(first).take(32);
            let sum: f64 = taps
                .map(|(i, sample)| {
                    let x = at - i as f64;
                    if x.abs() >= 16.0 {
                        return 0.0;
                    }
                    let sinc =
                        if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
                    f64::from(*sample) * sinc * (0.5 + 0.5 * (std::f64::consts::PI * x / 16.0).cos())
                })
                .sum();
            sum as f32
        })
        .collect()
}

/// Mean power of a signal, full scale = 1.
pub fn power(signal: &[f32]) -> f32 {
    signal.iter().map(|s| s * s).sum::<f32>() / signal.len().max(1) as f32
}

/// How much of a signal is in a recording.
#[derive(Debug, Clone, Copy)]
pub struct Likeness {
    /// Normalised cross-correlation, -1 to 1, of all blocks that carry sound; see [`likeness`].
    pub correlation: f32,
    /// How much later the sound is in the recording.
    pub lag_ms: f32,
    /// Seconds of sound that were compared.
    pub seconds: f32,
}

/// Compares `heard` with `said`, both at 48 kHz.
///
/// 1. The lag of the whole is the one within ±1 s with the largest dot product.
/// 2. `said` is cut into blocks of 40 ms. Those without sound (power below 1/50 of the mean) are left out. Each other
///    block is laid where it correlates best within ±60 ms of the lag of the whole.
/// 3. The correlation is Σ said·heard / √(Σ said² · Σ heard²) over all those blocks: 1 for the same waveform at any
///    volume, about 0 for something else. A block that `heard` is too short for ends the comparison, so a hang-up in
///    the middle of a word does no harm; [`Likeness::seconds`] tells what remained.
pub fn likeness(said: &[f32], heard: &[f32]) -> Likeness {
    let (said_c, heard_c) = (thin(said, COARSE), thin(heard, COARSE));
    let reach = (MAX_LAG / COARSE) as isize;
    let whole = best_lag(&said_c, 0, said_c.len(), &heard_c, -reach, reach, false).0 * COARSE as isize;
    let (said_m, heard_m) = (thin(said, MIDDLE), thin(heard, MIDDLE));
    let floor = power(said) / 50.0;
    let (mut dot, mut ss, mut hh) = (0.0f64, 0.0f64, 0.0f64);
    let mut blocks = 0;
    for from in (0..said.len()).step_by(BLOCK) {
        let to = from + BLOCK;
        if to > said.len() || (to + BLOCK_LAG) as isize + whole > heard.len() as isize {
            break;
        }
        if power(&said[from..to]) < floor {
            continue;
        }
        let (near, reach) = (whole / MIDDLE as isize, (BLOCK_LAG / MIDDLE) as isize);
        let middle = best_lag(&said_m, from / MIDDLE, to / MIDDLE, &heard_m, near - reach, near + reach, true).0;
        let (near, reach) = (middle * MIDDLE as isize, 2 * MIDDLE as isize);
        let (_, [d, s, h]) = best_lag(said, from, to, heard, near - reach, near + reach, true);
        (dot, ss, hh, blocks) = (dot + d, ss + s, hh + h, blocks + 1);
    }
    let correlation = (dot / (ss * hh).sqrt().max(f64::MIN_POSITIVE)) as f32;
    Likeness {
        correlation,
        lag_ms: whole as f32 * 1000.0 / RATE_HZ as f32,
        seconds: (blocks * BLOCK) as f32 / RATE_HZ as f32,
    }
}

/// Every n-th sample of the running mean of n.
fn thin(signal: &[f32], n: usize) -> Vec<f32> {
    signal.chunks(n).map(|c| c.iter().sum::<f32>() / n as f32).collect()
}

/// The lag at which `said[from..to]` fits best, and its sums `said·heard`, `said²`, `heard²`.
fn best_lag(
    said: &[f32],
    from: usize,
    to: usize,
    heard: &[f32],
    lowest: isize,
    highest: isize,
    normalised: bool,
) -> (isize, [f64; 3]) {
    let mut best = (0, [0.0; 3], f64::MIN);
    for lag in lowest..=highest {
        let start = from.max((-lag).max(0) as usize);
        let (mut d, mut s, mut h) = (0.0f32, 0.0f32, 0.0f32);
        let heard = heard.get((start as isize + lag) as usize..).unwrap_or_default();
        for (a, b) in said.get(start..to).unwrap_or_default().iter().zip(heard) {
            d += a * b;
            s += a * a;
            h += b * b;
        }
        let score = if normalised { f64::from(d) / f64::from(s * h).sqrt().max(1e-12) } else { f64::from(d) };
        if score > best.2 {
            best = (lag, [f64::from(d), f64::from(s), f64::from(h)], score);
        }
    }
    (best.0, best.1)
}

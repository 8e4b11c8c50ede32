//! WAV files: any as a source, 48 kHz mono 16 bit as a recording.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::Path;

use super::audio::{AudioSink, AudioSource, PcmFrame};
use crate::media::audio::{FRAME_SAMPLES, PCM_RATE_HZ};
use crate::media::resample::Resampler;

/// A WAV file played as 48 kHz mono: any rate, channel count, 8 to 32 bit or float; streamed, not loaded.
pub struct WavSource {
    reader: hound::WavReader<BufReader<File>>,
    resampler: Resampler,
    // One block of the file as mono, and what is left of the last resampled block.
    block: Vec<i16>,
    resampled: Vec<i16>,
    start: usize,
    end: usize,
    repeats: bool,
}

impl std::fmt::Debug for WavSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WavSource").field("spec", &self.reader.spec()).finish_non_exhaustive()
    }
}

impl WavSource {
    /// Opens a file; with `repeats` it starts over at its end. Fails if it cannot be read or is no WAV file.
    pub fn open(path: &Path, repeats: bool) -> io::Result<Self> {
        let reader = hound::WavReader::open(path).map_err(wav_error)?;
        let spec = reader.spec();
        // A rate past any sound card is a broken header, and would cost memory.
        if spec.channels == 0 || !(1_000..=768_000).contains(&spec.sample_rate) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a WAV file with an impossible rate or no channel"));
        }
        let resampler = Resampler::new(spec.sample_rate, PCM_RATE_HZ);
        let frames = (spec.sample_rate / 50) as usize;
        let resampled = vec![0; resampler.output_len(frames)];
        Ok(Self { reader, resampler, block: Vec::with_capacity(frames), resampled, start: 0, end: 0, repeats })
    }

    /// Length of the file.
    #[must_use]
    pub fn duration(&self) -> std::time::Duration {
        std::time::Duration::from_secs_f64(
            f64::from(self.reader.duration()) / f64::from(self.reader.spec().sample_rate),
        )
    }

    // Reads and resamples the next 20 ms of the file. False at its end.
    fn next_block(&mut self) -> bool {
        let spec = self.reader.spec();
        let frames = (spec.sample_rate / 50) as usize;
        let channels = usize::from(spec.channels);
        self.block.clear();
        match spec.sample_format {
            hound::SampleFormat::Int => {
                let shift = i32::from(spec.bits_per_sample) - 16;
                let scale = move |sample: i32| if shift >= 0 { sample >> shift } else { sample << -shift };
                let samples = self.reader.samples::<i32>().map_while(Result::ok).map(scale);
                mix_down(samples, channels, frames, &mut self.block);
            }
            hound::SampleFormat::Float => {
                let samples = self.reader.samples::<f32>().map_while(Result::ok);
                let samples = samples.map(|sample| (sample.clamp(-1.0, 1.0) * 32_767.0) as i32);
                mix_down(samples, channels, frames, &mut self.block);
            }
        }
        self.start = 0;
        self.end = self.resampler.process(&self.block, &mut self.resampled);
        !self.block.is_empty()
    }
}

fn mix_down(mut samples: impl Iterator<Item = i32>, channels: usize, frames: usize, out: &mut Vec<i16>) {
    for _ in 0..frames {
        let mut sum: i64 = 0;
        for channel in 0..channels {
            match samples.next() {
                Some(sample) => sum += i64::from(sample),
                // A frame that is cut off is no frame.
                None if channel > 0 => return,
                None => return,
            }
        }
        out.push((sum / channels.max(1) as i64).clamp(-32_768, 32_767) as i16);
    }
}

impl AudioSource for WavSource {
    fn read(&mut self, frame: &mut PcmFrame) -> bool {
        let mut filled = 0;
        let mut rewound = false;
        while filled < FRAME_SAMPLES {
            if self.start == self.end && !self.next_block() {
                // Twice the end without a sample in between is an empty file.
                if !self.repeats || rewound || self.reader.seek(0).is_err() {
                    break;
                }
                rewound = true;
                continue;
            }
            if self.end > 0 {
                rewound = false;
            }
            let n = (self.end - self.start).min(FRAME_SAMPLES - filled);
            if let (Some(to), Some(from)) =
                (frame.get_mut(filled..filled + n), self.resampled.get(self.start..self.start + n))
            {
                to.copy_from_slice(from);
            }
            self.start += n;
            filled += n;
        }
        if let Some(rest) = frame.get_mut(filled..) {
            rest.fill(0);
        }
        filled > 0
    }
}

/// A recording, 48 kHz mono 16 bit. Its header is right at every second, so a crash costs the last second only.
pub struct WavRecorder {
    writer: hound::WavWriter<BufWriter<File>>,
    since_flush: usize,
}

impl std::fmt::Debug for WavRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WavRecorder").finish_non_exhaustive()
    }
}

// A second of 20 ms frames.
const FLUSH_FRAMES: usize = 50;

impl WavRecorder {
    /// Creates the file, or empties it. Fails as the file system does.
    pub fn create(path: &Path) -> io::Result<Self> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: PCM_RATE_HZ,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(path, spec).map_err(wav_error)?;
        writer.flush().map_err(wav_error)?;
        Ok(Self { writer, since_flush: 0 })
    }

    /// Ends the recording. Fails as the disk does; dropping ends it too, but says nothing.
    pub fn finish(self) -> io::Result<()> {
        self.writer.finalize().map_err(wav_error)
    }
}

impl AudioSink for WavRecorder {
    fn write(&mut self, frame: &PcmFrame) -> io::Result<()> {
        for sample in frame {
            self.writer.write_sample(*sample).map_err(wav_error)?;
        }
        self.since_flush += 1;
        if self.since_flush >= FLUSH_FRAMES {
            self.since_flush = 0;
            self.writer.flush().map_err(wav_error)?;
        }
        Ok(())
    }
}

fn wav_error(error: hound::Error) -> io::Error {
    match error {
        hound::Error::IoError(error) => error,
        hound::Error::FormatError(_)
        | hound::Error::TooWide
        | hound::Error::UnfinishedSample
        | hound::Error::Unsupported
        | hound::Error::InvalidSampleFormat => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("offhook-wav-{}-{name}.wav", std::process::id()))
    }

    fn write(path: &Path, rate: u32, channels: u16, bits: u16, float: bool, seconds: f64) {
        let sample_format = if float { hound::SampleFormat::Float } else { hound::SampleFormat::Int };
        let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format };
        let mut writer = hound::WavWriter::create(path, spec).unwrap();
        for n in 0..(f64::from(rate) * seconds) as usize {
            let value = 0.5 * (2.0 * std::f64::consts::PI * 440.0 * n as f64 / f64::from(rate)).sin();
            for _ in 0..channels {
                if float {
                    writer.write_sample(value as f32).unwrap();
                } else {
                    writer.write_sample((value * f64::from((1i64 << (bits - 1)) as u32 - 1)) as i32).unwrap();
                }
            }
        }
        writer.finalize().unwrap();
    }

    fn read_all(source: &mut WavSource, limit: usize) -> Vec<i16> {
        let mut all = Vec::new();
        let mut frame = [0; FRAME_SAMPLES];
        while all.len() < limit * FRAME_SAMPLES && source.read(&mut frame) {
            all.extend_from_slice(&frame);
        }
        all
    }

    #[test]
    fn every_rate_channel_count_and_width_is_played_at_its_level_and_length() {
        for (rate, channels, bits, float) in [
            (8_000, 1, 8, false),
            (8_000, 1, 16, false),
            (11_025, 2, 16, false),
            (16_000, 1, 16, false),
            (22_050, 2, 24, false),
            (44_100, 2, 16, false),
            (48_000, 1, 16, false),
            (48_000, 6, 32, false),
            (96_000, 2, 24, false),
            (44_100, 1, 32, true),
        ] {
            let path = file(&format!("{rate}-{channels}-{bits}"));
            write(&path, rate, channels, bits, float, 0.5);
            let all = read_all(&mut WavSource::open(&path, false).unwrap(), 100);
            assert!((24..=26).contains(&(all.len() / FRAME_SAMPLES)), "{rate} {bits}: {}", all.len() / FRAME_SAMPLES);
            let middle = &all[4_800..19_200];
            let rms = (middle.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / middle.len() as f64).sqrt();
            assert!((rms - 32_767.0 * 0.5 / 2f64.sqrt()).abs() < 400.0, "{rate} {channels} {bits} {float}: {rms}");
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_file_repeats_if_told_and_an_empty_one_ends() {
        let path = file("repeat");
        write(&path, 8_000, 1, 16, false, 0.1);
        assert_eq!(read_all(&mut WavSource::open(&path, true).unwrap(), 100).len(), 100 * FRAME_SAMPLES);
        write(&path, 8_000, 1, 16, false, 0.0);
        assert!(read_all(&mut WavSource::open(&path, true).unwrap(), 100).is_empty());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_wav_file_is_refused() {
        let path = file("junk");
        for junk in [&b""[..], b"RIFF", b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\0\0\0\0\0\0", &[0xFF; 200]] {
            std::fs::write(&path, junk).unwrap();
            assert!(WavSource::open(&path, true).is_err());
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_recording_that_was_not_ended_can_be_read_up_to_its_last_second() {
        let path = file("crash");
        let mut recorder = WavRecorder::create(&path).unwrap();
        for _ in 0..120 {
            recorder.write(&[7; FRAME_SAMPLES]).unwrap();
        }
        // A crash: neither finish nor drop.
        std::mem::forget(recorder);
        let reader = hound::WavReader::open(&path).unwrap();
        assert_eq!((reader.spec().sample_rate, reader.spec().channels), (48_000, 1));
        assert_eq!(reader.duration(), 100 * FRAME_SAMPLES as u32);
        std::fs::remove_file(path).unwrap();
    }
}

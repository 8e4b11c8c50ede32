//! Where sound comes from and goes to: WAV files, a tone, silence, the sound card.
//! All of it in frames of 20 ms at 48 kHz mono.

use crate::media::audio::{FRAME_SAMPLES, PCM_RATE_HZ};

/// 20 ms of sound.
pub type PcmFrame = [i16; FRAME_SAMPLES];

/// Gives 20 ms of sound at each call; the driver's 20 ms clock calls it.
pub trait AudioSource: Send {
    /// Fills `frame`. False when the source has ended: `frame` is silence then.
    fn read(&mut self, frame: &mut PcmFrame) -> bool;
}

/// Takes 20 ms of sound at each call.
pub trait AudioSink: Send {
    /// Takes one frame. Fails as the disk or the device fails.
    fn write(&mut self, frame: &PcmFrame) -> std::io::Result<()>;
}

/// Silence without end, and a sink that forgets.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullAudio;

impl AudioSource for NullAudio {
    fn read(&mut self, frame: &mut PcmFrame) -> bool {
        frame.fill(0);
        true
    }
}

impl AudioSink for NullAudio {
    fn write(&mut self, _: &PcmFrame) -> std::io::Result<()> {
        Ok(())
    }
}

/// A sine without end at a quarter of full scale, −12 dBFS.
#[derive(Debug, Clone, Copy)]
pub struct ToneSource {
    step: f64,
    phase: f64,
}

impl ToneSource {
    /// A tone of `hz`, from 1 to 20 000.
    #[must_use]
    pub fn new(hz: f64) -> Self {
        let hz = if hz.is_finite() { hz.clamp(1.0, 20_000.0) } else { 440.0 };
        Self { step: std::f64::consts::TAU * hz / f64::from(PCM_RATE_HZ), phase: 0.0 }
    }
}

impl AudioSource for ToneSource {
    fn read(&mut self, frame: &mut PcmFrame) -> bool {
        for sample in frame {
            *sample = (self.phase.sin() * 8_192.0) as i16;
            self.phase = (self.phase + self.step) % std::f64::consts::TAU;
        }
        true
    }
}

#[cfg(feature = "audio-device")]
pub use device::{Microphone, Speaker, list_devices};

/// The sound card, through cpal. Names are those of `list_devices`; `None` is the system's default.
#[cfg(feature = "audio-device")]
mod device {
    // cpal's enums are foreign and grow: what is not named is refused or ends the stream.
    #![allow(clippy::wildcard_enum_match_arm)]

    use std::collections::VecDeque;
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
    use cpal::{FromSample, Sample, SampleFormat, SizedSample};

    use super::{AudioSink, AudioSource, PcmFrame};
    use crate::media::audio::{FRAME_SAMPLES, PCM_RATE_HZ};
    use crate::media::resample::Resampler;

    /// Mono samples at the device's rate between its thread and ours; at most `ROOM_MS`.
    type Ring = Arc<Mutex<Shared>>;

    #[derive(Debug)]
    struct Shared {
        samples: VecDeque<i16>,
        room: usize,
        failed: Option<String>,
        // Devices ask in blocks: sound starts when a first one can be given whole.
        primed: bool,
    }

    // Devices work in blocks of 5 to 50 ms; past this the other side has stalled and old sound goes.
    const ROOM_MS: usize = 200;
    const PRIME_MS: usize = 40;

    /// Names of the devices: (inputs, outputs). Fails if the system's sound cannot be reached.
    pub fn list_devices() -> io::Result<(Vec<String>, Vec<String>)> {
        let host = cpal::default_host();
        let name = |device: cpal::Device| device.id().ok().map(|id| id.to_string());
        let inputs = host.input_devices().map_err(io::Error::other)?.filter_map(name).collect();
        let outputs = host.output_devices().map_err(io::Error::other)?.filter_map(name).collect();
        Ok((inputs, outputs))
    }

    fn find(name: Option<&str>, input: bool) -> io::Result<cpal::Device> {
        let host = cpal::default_host();
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no such sound device");
        let Some(name) = name else {
            let device = if input { host.default_input_device() } else { host.default_output_device() };
            return device.ok_or_else(missing);
        };
        let mut devices: Vec<cpal::Device> = if input {
            host.input_devices().map_err(io::Error::other)?.collect()
        } else {
            host.output_devices().map_err(io::Error::other)?.collect()
        };
        let at = devices.iter().position(|device| {
            device.id().is_ok_and(|id| id.to_string() == name || id.to_string().rsplit(':').next() == Some(name))
        });
        at.map(|at| devices.swap_remove(at)).ok_or_else(missing)
    }

    fn ring(rate_hz: u32) -> Ring {
        let room = rate_hz as usize * ROOM_MS / 1_000;
        Arc::new(Mutex::new(Shared { samples: VecDeque::with_capacity(room), room, failed: None, primed: false }))
    }

    fn on_error(ring: &Ring) -> impl FnMut(cpal::Error) + Send + 'static {
        let ring = Arc::clone(ring);
        move |error| {
            tracing::debug!(%error, "the sound device complains");
            match error.kind() {
                // It goes on by itself after these.
                cpal::ErrorKind::Xrun | cpal::ErrorKind::DeviceChanged | cpal::ErrorKind::RealtimeDenied => {}
                _ => ring.lock().unwrap_or_else(PoisonError::into_inner).failed = Some(error.to_string()),
            }
        }
    }

    /// A microphone.
    pub struct Microphone {
        // Dropped, it stops.
        _stream: cpal::Stream,
        ring: Ring,
        resampler: Resampler,
        rate_hz: u32,
        resampled: VecDeque<i16>,
        block: Vec<i16>,
        converted: Vec<i16>,
    }

    impl std::fmt::Debug for Microphone {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Microphone").field("rate_hz", &self.rate_hz).finish_non_exhaustive()
        }
    }

    impl Microphone {
        /// Opens and starts a microphone. Fails if there is none or it cannot be used.
        pub fn open(name: Option<&str>) -> io::Result<Self> {
            let device = find(name, true)?;
            let config = device.default_input_config().map_err(io::Error::other)?;
            let (format, config) = (config.sample_format(), config.config());
            let rate_hz = config.sample_rate;
            let ring = ring(rate_hz);
            let stream = match format {
                SampleFormat::I16 => input::<i16>(&device, config, &ring),
                SampleFormat::U16 => input::<u16>(&device, config, &ring),
                SampleFormat::I32 => input::<i32>(&device, config, &ring),
                SampleFormat::F32 => input::<f32>(&device, config, &ring),
                SampleFormat::F64 => input::<f64>(&device, config, &ring),
                SampleFormat::U8 => input::<u8>(&device, config, &ring),
                _ => return Err(unsupported()),
            }?;
            stream.play().map_err(io::Error::other)?;
            let resampler = Resampler::new(rate_hz, PCM_RATE_HZ);
            Ok(Self {
                _stream: stream,
                ring,
                resampler,
                rate_hz,
                resampled: VecDeque::with_capacity(4 * FRAME_SAMPLES),
                block: Vec::new(),
                converted: Vec::new(),
            })
        }
    }

    fn unsupported() -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, "the sound device has a sample format that is not known")
    }

    fn input<T>(device: &cpal::Device, config: cpal::StreamConfig, ring: &Ring) -> io::Result<cpal::Stream>
    where
        T: SizedSample,
        i16: FromSample<T>,
    {
        let channels = usize::from(config.channels).max(1);
        let shared = Arc::clone(ring);
        let data = move |data: &[T], _: &cpal::InputCallbackInfo| {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            for frame in data.chunks_exact(channels) {
                let sum: i32 = frame.iter().map(|sample| i32::from(i16::from_sample(*sample))).sum();
                if shared.samples.len() >= shared.room {
                    shared.samples.pop_front();
                }
                shared.samples.push_back((sum / channels as i32) as i16);
            }
        };
        device.build_input_stream(config, data, on_error(ring), None).map_err(io::Error::other)
    }

    impl AudioSource for Microphone {
        // Silence fills what the device has not given yet; false only once the device is gone.
        fn read(&mut self, frame: &mut PcmFrame) -> bool {
            let alive = {
                let mut shared = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
                self.block.clear();
                self.block.extend(shared.samples.drain(..));
                shared.failed.is_none()
            };
            self.converted.resize(self.resampler.output_len(self.block.len()), 0);
            let n = self.resampler.process(&self.block, &mut self.converted);
            self.resampled.extend(self.converted.iter().take(n));
            // The device's clock is not ours: what piles up past 60 ms goes.
            while self.resampled.len() > 4 * FRAME_SAMPLES {
                self.resampled.pop_front();
            }
            if self.resampled.len() < FRAME_SAMPLES {
                frame.fill(0);
                return alive;
            }
            for (to, from) in frame.iter_mut().zip(self.resampled.drain(..FRAME_SAMPLES)) {
                *to = from;
            }
            alive
        }
    }

    /// A loudspeaker.
    pub struct Speaker {
        // Dropped, it stops.
        _stream: cpal::Stream,
        ring: Ring,
        resampler: Resampler,
        rate_hz: u32,
        converted: Vec<i16>,
    }

    impl std::fmt::Debug for Speaker {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Speaker").field("rate_hz", &self.rate_hz).finish_non_exhaustive()
        }
    }

    impl Speaker {
        /// Opens and starts a loudspeaker. Fails if there is none or it cannot be used.
        pub fn open(name: Option<&str>) -> io::Result<Self> {
            let device = find(name, false)?;
            let config = device.default_output_config().map_err(io::Error::other)?;
            let (format, config) = (config.sample_format(), config.config());
            let rate_hz = config.sample_rate;
            let ring = ring(rate_hz);
            let stream = match format {
                SampleFormat::I16 => output::<i16>(&device, config, &ring),
                SampleFormat::U16 => output::<u16>(&device, config, &ring),
                SampleFormat::I32 => output::<i32>(&device, config, &ring),
                SampleFormat::F32 => output::<f32>(&device, config, &ring),
                SampleFormat::F64 => output::<f64>(&device, config, &ring),
                SampleFormat::U8 => output::<u8>(&device, config, &ring),
                _ => return Err(unsupported()),
            }?;
            stream.play().map_err(io::Error::other)?;
            let resampler = Resampler::new(PCM_RATE_HZ, rate_hz);
            let converted = vec![0; resampler.output_len(FRAME_SAMPLES)];
            Ok(Self { _stream: stream, ring, resampler, rate_hz, converted })
        }
    }

    fn output<T>(device: &cpal::Device, config: cpal::StreamConfig, ring: &Ring) -> io::Result<cpal::Stream>
    where
        T: SizedSample + FromSample<i16>,
    {
        let channels = usize::from(config.channels).max(1);
        let prime = config.sample_rate as usize * PRIME_MS / 1_000;
        let shared = Arc::clone(ring);
        let data = move |data: &mut [T], _: &cpal::OutputCallbackInfo| {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.primed |= shared.samples.len() >= prime;
            for frame in data.chunks_mut(channels) {
                let sample = if shared.primed { shared.samples.pop_front() } else { None };
                // Run dry: collect a little before going on, one pause is heard less than ten.
                shared.primed = sample.is_some();
                frame.fill(T::from_sample(sample.unwrap_or(0)));
            }
        };
        device.build_output_stream(config, data, on_error(ring), None).map_err(io::Error::other)
    }

    impl AudioSink for Speaker {
        fn write(&mut self, frame: &PcmFrame) -> io::Result<()> {
            let n = self.resampler.process(frame, &mut self.converted);
            let mut shared = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = &shared.failed {
                return Err(io::Error::other(error.clone()));
            }
            for sample in self.converted.iter().take(n) {
                if shared.samples.len() >= shared.room {
                    shared.samples.pop_front();
                }
                shared.samples.push_back(*sample);
            }
            Ok(())
        }
    }
}

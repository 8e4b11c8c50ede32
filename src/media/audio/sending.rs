//! From the microphone to the network. Read RFC 3550 §5.1, RFC 3551 §4.1 and RFC 3389 §4 before touching this file.

use super::super::codec::{CodecName, Encoder, EncoderConfig, MAX_PAYLOAD_BYTES, Negotiated, opus_is_dtx};
use super::super::comfort_noise::{self, SilenceDetector};
use super::super::dtmf::DtmfSender;
use super::super::resample::Resampler;
use super::{AudioConfig, AudioError, FRAME_SAMPLES, PCM_RATE_HZ, Rate, RtpOut};
use crate::wire::rtp::MediaTime;
use std::time::{Duration, Instant};

/// From the microphone to the network.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) encoder: Encoder,
    down: Resampler,
    // 48 kHz PCM that is not a whole packet yet.
    capture: Vec<i16>,
    // One packet at the codec's rate.
    coded: Vec<i16>,
    payload: Vec<u8>,
    // Samples at 48 kHz since the time stamp was `time_base`.
    position: u64,
    time_base: u32,
    marker: bool,
    pub(super) muted: bool,
    pub(super) on_hold: bool,
    pub(super) dtmf: DtmfSender,
    silence: SilenceDetector,
    // Milliseconds until comfort noise is described again; `None` while speech is sent.
    noise_due_ms: Option<u32>,
    pub(super) rate: Rate,
}

/// RFC 3389 §4 leaves the interval open: often enough that a lost packet is not heard for long.
const NOISE_UPDATE_MS: u32 = 200;
/// What a muted microphone sounds like: barely there, so that the line does not seem dead.
const MUTED_NOISE_LEVEL: u8 = 75;

impl Sending {
    pub(super) fn new(time_base: u32, negotiated: &Negotiated, config: &AudioConfig) -> Result<Self, AudioError> {
        let codec = negotiated.send;
        Ok(Self {
            encoder: encoder(negotiated, config)?,
            down: Resampler::new(PCM_RATE_HZ, codec.sample_rate_hz()),
            capture: Vec::with_capacity(5 * FRAME_SAMPLES),
            coded: vec![0; 5 * FRAME_SAMPLES],
            payload: vec![0; MAX_PAYLOAD_BYTES],
            position: 0,
            time_base,
            marker: true,
            muted: false,
            on_hold: false,
            dtmf: DtmfSender::default(),
            silence: SilenceDetector::default(),
            noise_due_ms: None,
            rate: Rate::default(),
        })
    }

    pub(super) fn renegotiate(
        &mut self,
        old: &Negotiated,
        new: &Negotiated,
        config: &AudioConfig,
    ) -> Result<(), AudioError> {
        if old.send != new.send || old.opus != new.opus {
            self.encoder = encoder(new, config)?;
            self.down = Resampler::new(PCM_RATE_HZ, new.send.sample_rate_hz());
            // RFC 3550 §5.1: the line of time stamps goes on, in steps of the new clock.
            self.time_base = self.time(self.position, old.send.clock_rate_hz());
            self.position = 0;
            self.capture.clear();
            self.marker = true;
        }
        if old.dtmf_send != new.dtmf_send {
            self.dtmf.clear();
        }
        Ok(())
    }

    pub(super) fn push(
        &mut self,
        now: Instant,
        pcm: &[i16],
        negotiated: &Negotiated,
        config: &AudioConfig,
        send: &mut dyn FnMut(RtpOut<'_>),
    ) {
        let clock_hz = negotiated.send.clock_rate_hz();
        let begin = self.position;
        self.position += pcm.len() as u64;
        // J167-21: nothing is sent to a peer that does not listen.
        if self.on_hold {
            self.pause();
            return;
        }
        if let Some((payload_type, event_clock_hz)) = negotiated.dtmf_send {
            let tick = Duration::from_micros(pcm.len() as u64 * 1_000 / 48);
            if let Some(out) = self.dtmf.advance(tick, event_clock_hz) {
                let since = (out.since_start.as_micros() as u64) * 48 / 1_000;
                let payload = out.payload.to_bytes();
                self.rate.count(now, payload.len());
                let time = MediaTime(self.time(begin.saturating_sub(since), clock_hz));
                send(RtpOut { payload_type, marker: out.marker, time, payload: &payload });
            }
            // RFC 4733 §2.5.1.2: events replace the sound.
            if self.dtmf.is_sounding() {
                self.pause();
                return;
            }
        }
        if self.muted {
            self.capture.resize(self.capture.len() + pcm.len(), 0);
        } else {
            self.capture.extend_from_slice(pcm);
        }
        let packet = negotiated.ptime_ms as usize * 48;
        let mut done = 0;
        while packet > 0 && self.capture.len() - done >= packet {
            let at = self.position - (self.capture.len() - done) as u64;
            self.packet(now, done..done + packet, at, negotiated, config, send);
            done += packet;
        }
        self.capture.copy_within(done.., 0);
        self.capture.truncate(self.capture.len() - done);
    }

    fn packet(
        &mut self,
        now: Instant,
        range: std::ops::Range<usize>,
        at: u64,
        negotiated: &Negotiated,
        config: &AudioConfig,
        send: &mut dyn FnMut(RtpOut<'_>),
    ) {
        let Some(pcm) = self.capture.get(range) else { return };
        let codec = negotiated.send;
        let time = MediaTime(self.time(at, codec.clock_rate_hz()));
        let n = self.down.process(pcm, &mut self.coded);
        let Some(coded) = self.coded.get(..n) else { return };
        if let Some(payload_type) = negotiated.comfort_noise.filter(|_| codec != CodecName::Opus) {
            let quiet = config.dtx && self.silence.is_silence(coded, negotiated.ptime_ms);
            if self.muted || quiet {
                let due = self.noise_due_ms.unwrap_or(0);
                self.marker = true;
                if due > 0 {
                    self.noise_due_ms = Some(due.saturating_sub(negotiated.ptime_ms));
                    return;
                }
                self.noise_due_ms = Some(NOISE_UPDATE_MS.saturating_sub(negotiated.ptime_ms));
                let payload = [if self.muted { MUTED_NOISE_LEVEL } else { comfort_noise::level(coded) }];
                self.rate.count(now, payload.len());
                send(RtpOut { payload_type, marker: false, time, payload: &payload });
                return;
            }
        }
        self.noise_due_ms = None;
        let written = match self.encoder.encode(coded, &mut self.payload) {
            Ok(written) => written,
            Err(error) => {
                tracing::debug!(%error, "a frame could not be encoded");
                return;
            }
        };
        let Some(payload) = self.payload.get(..written) else { return };
        // RFC 6716 §2.1.9: a packet of two bytes or less need not be sent.
        if codec == CodecName::Opus && opus_is_dtx(payload) {
            self.marker = true;
            return;
        }
        self.rate.count(now, written);
        // RFC 3551 §4.1: the first packet after silence has the marker bit.
        let marker = std::mem::take(&mut self.marker);
        send(RtpOut { payload_type: negotiated.send_payload_type, marker, time, payload });
    }

    pub(super) fn pause(&mut self) {
        self.capture.clear();
        self.marker = true;
        self.noise_due_ms = None;
    }

    fn time(&self, position: u64, clock_hz: u32) -> u32 {
        self.time_base.wrapping_add((position * u64::from(clock_hz) / u64::from(PCM_RATE_HZ)) as u32)
    }
}

fn encoder(negotiated: &Negotiated, config: &AudioConfig) -> Result<Encoder, AudioError> {
    let settings = EncoderConfig {
        bitrate_bps: config.opus_bitrate_bps,
        complexity: config.opus_complexity,
        expected_loss_percent: config.expected_loss_percent,
        dtx: config.dtx,
    };
    Encoder::new(negotiated.send, &negotiated.opus, settings).map_err(|error| AudioError::Codec(error.0))
}

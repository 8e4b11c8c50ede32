//! One direction pair of speech: PCM pushed by the microphone to RTP payloads, RTP payloads to PCM pulled by the sound clock.
//! Read RFC 3550 §5, RFC 7587 and RFC 4733 before touching this file.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use super::codec::{CodecName, Decoder, MAX_PACKET_SAMPLES, Negotiated, opus_has_fec, opus_is_dtx, packet_ticks};
use super::comfort_noise::NoiseGenerator;
use super::conceal::{FASTER_NEEDS, PcmQueue};
use super::dtmf::{self, DtmfReceiver};
use super::jitter::{JitterBuffer, JitterConfig, Kind, Next, PacketFormat, Stretch};
use super::quality::{Quality, QualityInput, quality};
use super::resample::Resampler;
use crate::wire::rtp::{MediaTime, RtpHeader};

mod sending;
use sending::Sending;

/// Rate of all PCM at this interface: 48 kHz mono.
pub const PCM_RATE_HZ: u32 = 48_000;
/// Samples of 20 ms at this interface.
pub const FRAME_SAMPLES: usize = 960;

/// Knobs of an audio path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioConfig {
    /// Bits per second of Opus: 6 000 to 510 000.
    pub opus_bitrate_bps: u32,
    /// 0 to 10; 5 sounds nearly as good as 10 at half its cost.
    pub opus_complexity: u8,
    /// Packet loss the encoder prepares for, in percent; what makes it spend bits on FEC.
    pub expected_loss_percent: u8,
    /// Do not send silence (Opus DTX, RFC 3389 comfort noise for the 8 kHz codecs).
    pub dtx: bool,
    /// The jitter buffer never aims below this.
    pub min_delay: Duration,
    /// The jitter buffer never aims above this.
    pub max_delay: Duration,
    /// `AudioEvent::NoMedia` after so long without a packet.
    pub no_media: Duration,
}

impl Default for AudioConfig {
    fn default() -> Self {
        Self {
            opus_bitrate_bps: 32_000,
            opus_complexity: 5,
            expected_loss_percent: 10,
            dtx: false,
            min_delay: Duration::from_millis(20),
            max_delay: Duration::from_millis(800),
            no_media: Duration::from_secs(3),
        }
    }
}

/// One RTP packet to send; sequence number and SSRC belong to the leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpOut<'a> {
    /// As negotiated.
    pub payload_type: u8,
    /// Start of a talk spurt or of a DTMF event.
    pub marker: bool,
    /// In units of the payload type's clock; starts at random.
    pub time: MediaTime,
    /// At most 1 275 bytes.
    pub payload: &'a [u8],
}

/// What an audio path tells its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioEvent {
    /// The peer pressed a key: one event per press.
    Digit(char),
    /// The first frame of the peer was decoded.
    FirstFrame,
    /// No packet for `AudioConfig::no_media`, counted from the first pull or the last packet.
    NoMedia,
    /// Packets arrive again after `NoMedia`.
    MediaBack,
}

/// What went wrong when an audio path was made or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// The codec library refused its parameters.
    #[error("the codec cannot be set up: {0}")]
    Codec(&'static str),
    /// Not one of `0`–`9`, `*`, `#`, `A`–`D`.
    #[error("{0:?} is not a DTMF digit")]
    NotADigit(char),
    /// The peer has no telephone-event; XEP-0181 remains.
    #[error("the peer did not negotiate telephone-event")]
    NoTelephoneEvent,
    /// More digits queued than `dtmf::MAX_QUEUED`.
    #[error("too many digits are waiting")]
    TooManyDigits,
}

/// A snapshot of an audio path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AudioStats {
    /// What we send with.
    pub send_codec: CodecName,
    /// What arrived last.
    pub receive_codec: Option<CodecName>,
    /// Milliseconds between the arrival of the fastest packets and their playing.
    pub buffer_ms: f64,
    /// Milliseconds the jitter buffer aims at.
    pub target_ms: f64,
    /// Milliseconds of sound played.
    pub played_ms: u64,
    /// Milliseconds of it that were made up (neither received nor recovered by FEC).
    pub concealed_ms: u64,
    /// Milliseconds recovered by FEC.
    pub fec_ms: u64,
    /// Packets that came too late to be played.
    pub late: u64,
    /// Packets dropped: duplicates, overflow, junk.
    pub discarded: u64,
    /// Packets with a payload type that was not negotiated.
    pub unknown_payload_type: u64,
    /// Payload bits per second received during the last second.
    pub bitrate_in_bps: u32,
    /// Payload bits per second sent during the last second.
    pub bitrate_out_bps: u32,
    /// Packets received, all payload types.
    pub packets_in: u64,
    /// Packets sent, all payload types.
    pub packets_out: u64,
}

/// PCM to RTP payloads and back, for one call.
#[derive(Debug)]
pub struct AudioPath {
    negotiated: Negotiated,
    config: AudioConfig,
    sending: Sending,
    receiving: Receiving,
    events: VecDeque<AudioEvent>,
}

impl AudioPath {
    /// An audio path for what was negotiated. `seed` gives the first timestamp. Fails only if libopus refuses its parameters.
    pub fn new(seed: u64, negotiated: Negotiated, config: AudioConfig) -> Result<Self, AudioError> {
        let mut random = ChaCha20Rng::seed_from_u64(seed);
        // RFC 3550 §5.1: the first time stamp is random.
        let sending = Sending::new(random.next_u32(), &negotiated, &config)?;
        let receiving = Receiving::new(random.next_u64(), &config);
        Ok(Self { negotiated, config, sending, receiving, events: VecDeque::with_capacity(32) })
    }

    /// Takes 10 or 20 ms (480 or 960 samples at 48 kHz mono) of the microphone; calls `send` for each packet that is due.
    pub fn push_pcm(&mut self, now: Instant, pcm: &[i16], send: &mut dyn FnMut(RtpOut<'_>)) {
        for piece in pcm.chunks(FRAME_SAMPLES) {
            self.sending.push(now, piece, &self.negotiated, &self.config, send);
        }
    }

    /// Takes a received, authenticated packet. Unknown payload types are counted and dropped.
    pub fn handle_rtp(&mut self, now: Instant, header: &RtpHeader, payload: &[u8]) {
        self.receiving.handle(now, header, payload, &self.negotiated, &mut self.events);
    }

    /// Fills `out` (480 or 960 samples at 48 kHz mono) with what is to be heard now.
    pub fn pull_pcm(&mut self, now: Instant, out: &mut [i16]) {
        self.receiving.watch(now, &self.config, &mut self.events);
        for piece in out.chunks_mut(FRAME_SAMPLES) {
            self.receiving.pull(now, piece, &self.negotiated, &mut self.events);
        }
    }

    /// Queues a digit to be sent as RFC 4733 event while pushing goes on. Fails if it is none, if the peer has no
    /// telephone-event, or if too many wait.
    pub fn send_digit(&mut self, digit: char) -> Result<(), AudioError> {
        let event = dtmf::event_of(digit).ok_or(AudioError::NotADigit(digit))?;
        if self.negotiated.dtmf_send.is_none() {
            return Err(AudioError::NoTelephoneEvent);
        }
        if self.sending.dtmf.send(event) { Ok(()) } else { Err(AudioError::TooManyDigits) }
    }

    /// True while digits wait or sound.
    #[must_use]
    pub fn is_sending_digits(&self) -> bool {
        self.sending.dtmf.is_busy()
    }

    /// Muted: the microphone is replaced by silence (or comfort noise, or nothing with DTX).
    pub fn set_muted(&mut self, muted: bool) {
        self.sending.muted = muted;
    }

    /// On hold: nothing is sent (J167-21), what arrives is still played (J167-22).
    pub fn set_on_hold(&mut self, on_hold: bool) {
        self.sending.on_hold = on_hold;
    }

    /// Tells the encoder what the peer's RTCP reports say of loss, 0 to 1.
    pub fn set_reported_loss(&mut self, loss: f64) {
        let percent = if loss.is_finite() { (loss.clamp(0.0, 1.0) * 100.0).round() as u8 } else { 0 };
        // libopus switches FEC off at 0: stay prepared for what was configured.
        let percent = percent.max(self.config.expected_loss_percent);
        if self.sending.encoder.set_expected_loss(percent).is_err() {
            tracing::debug!(percent, "the encoder refused the loss");
        }
    }

    /// Changes codecs in the call. What is buffered and the line of time stamps go on. Fails only if libopus refuses its
    /// parameters; nothing changes then.
    pub fn renegotiate(&mut self, negotiated: Negotiated) -> Result<(), AudioError> {
        self.sending.renegotiate(&self.negotiated, &negotiated, &self.config)?;
        self.negotiated = negotiated;
        Ok(())
    }

    /// What was agreed on.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<AudioEvent> {
        self.events.pop_front()
    }

    /// How what is heard sounds, given the round trip that RTCP measures.
    #[must_use]
    pub fn quality(&self, now: Instant, rtt: Duration) -> Quality {
        quality(QualityInput {
            codec: self.receiving.codec().unwrap_or(self.negotiated.send),
            loss: self.receiving.recent_loss,
            burst_ratio: 1.0,
            buffer: self.receiving.delay(now),
            rtt,
        })
    }

    /// How it goes.
    #[must_use]
    pub fn stats(&self, now: Instant) -> AudioStats {
        let (sending, receiving) = (&self.sending, &self.receiving);
        let jitter = receiving.jitter.stats();
        let ms = |samples: u64| samples / 48;
        AudioStats {
            send_codec: self.negotiated.send,
            receive_codec: receiving.codec(),
            buffer_ms: receiving.delay(now).as_secs_f64() * 1_000.0,
            target_ms: receiving.jitter.target().as_secs_f64() * 1_000.0,
            played_ms: ms(receiving.played),
            concealed_ms: ms(receiving.concealed),
            fec_ms: ms(receiving.recovered),
            late: jitter.late,
            discarded: jitter.duplicates + jitter.overflow + jitter.suspect + receiving.junk,
            unknown_payload_type: receiving.unknown,
            bitrate_in_bps: receiving.rate.bps(now),
            bitrate_out_bps: sending.rate.bps(now),
            packets_in: receiving.rate.packets,
            packets_out: sending.rate.packets,
        }
    }
}

// Past so many waiting events the oldest is dropped: the owner does not poll.
const MAX_EVENTS: usize = 256;

fn raise(events: &mut VecDeque<AudioEvent>, event: AudioEvent) {
    if events.len() >= MAX_EVENTS {
        events.pop_front();
    }
    events.push_back(event);
}

/// From the network to the ear.
#[derive(Debug)]
struct Receiving {
    jitter: JitterBuffer,
    voice: Option<Voice>,
    queue: PcmQueue,
    noise: NoiseGenerator,
    noise_described: bool,
    dtmf: DtmfReceiver,
    // Frames since the last one with FEC.
    without_fec: u32,
    since_stretch: usize,
    heard: bool,
    last_packet: Option<Instant>,
    silent_since: Option<Instant>,
    no_media: bool,
    recent_loss: f64,
    played: u64,
    concealed: u64,
    recovered: u64,
    junk: u64,
    unknown: u64,
    rate: Rate,
}

/// The decoder in use and what brings its sound to 48 kHz.
#[derive(Debug)]
struct Voice {
    decoder: Decoder,
    up: Resampler,
    scratch: Vec<i16>,
}

/// A stretch at most every 40 ms: the ear follows a sixth of the tempo, not more.
const STRETCH_SAMPLES: usize = 1_920;
/// FEC is waited for while one of so many packets carries it.
const FEC_MEMORY: u32 = 50;

impl Receiving {
    fn new(seed: u64, config: &AudioConfig) -> Self {
        let jitter =
            JitterConfig { min_delay: config.min_delay, max_delay: config.max_delay, ..JitterConfig::default() };
        Self {
            jitter: JitterBuffer::new(jitter),
            voice: None,
            queue: PcmQueue::default(),
            noise: NoiseGenerator::new(seed),
            noise_described: false,
            dtmf: DtmfReceiver::default(),
            without_fec: FEC_MEMORY,
            since_stretch: 0,
            heard: false,
            last_packet: None,
            silent_since: None,
            no_media: false,
            recent_loss: 0.0,
            played: 0,
            concealed: 0,
            recovered: 0,
            junk: 0,
            unknown: 0,
            rate: Rate::default(),
        }
    }

    fn codec(&self) -> Option<CodecName> {
        self.voice.as_ref().map(|voice| voice.decoder.codec())
    }

    fn handle(
        &mut self,
        now: Instant,
        header: &RtpHeader,
        payload: &[u8],
        negotiated: &Negotiated,
        events: &mut VecDeque<AudioEvent>,
    ) {
        let id = header.payload_type;
        let speech = negotiated.receive.iter().find(|(other, _)| *other == id).map(|(_, codec)| *codec);
        let known = speech.is_some()
            || negotiated.comfort_noise == Some(id)
            || negotiated.dtmf_receive.iter().any(|(other, _)| *other == id);
        if !known {
            self.unknown += 1;
            return;
        }
        self.rate.count(now, payload.len());
        self.last_packet = Some(now);
        if std::mem::take(&mut self.no_media) {
            raise(events, AudioEvent::MediaBack);
        }
        let format = if let Some(codec) = speech {
            let Some(ticks) = packet_ticks(codec, payload) else {
                self.junk += 1;
                return;
            };
            let silent = codec == CodecName::Opus && opus_is_dtx(payload);
            let kind = if silent { Kind::SpeechThenSilence } else { Kind::Speech };
            PacketFormat { ticks, clock_hz: codec.clock_rate_hz(), kind }
        } else if negotiated.comfort_noise == Some(id) {
            // Comfort noise has the 8 kHz clock: it means nothing in a stream of another.
            if payload.is_empty() || matches!(self.jitter.clock_hz(), clock if clock != 0 && clock != 8_000) {
                self.junk += 1;
                return;
            }
            PacketFormat { ticks: 0, clock_hz: 8_000, kind: Kind::ComfortNoise }
        } else {
            self.jitter.note_foreign(header);
            if let Some(digit) = self.dtmf.handle(now, header.marker, header.time.0, payload) {
                raise(events, AudioEvent::Digit(digit));
            }
            return;
        };
        self.jitter.insert(now, header, payload, format);
    }

    // Scenario 17: no media for 3 s is told.
    fn watch(&mut self, now: Instant, config: &AudioConfig, events: &mut VecDeque<AudioEvent>) {
        let since = *self.silent_since.get_or_insert(now);
        let since = self.last_packet.map_or(since, |last| last.max(since));
        if !self.no_media && now.saturating_duration_since(since) >= config.no_media {
            self.no_media = true;
            raise(events, AudioEvent::NoMedia);
        }
    }

    fn pull(&mut self, now: Instant, out: &mut [i16], negotiated: &Negotiated, events: &mut VecDeque<AudioEvent>) {
        let spare = self.queue.len();
        let stretch = if spare < out.len() {
            self.jitter.stretch(now, samples_to_time(spare), samples_to_time(out.len()))
        } else {
            Stretch::Keep
        };
        self.since_stretch = self.since_stretch.saturating_add(out.len());
        let calm = self.since_stretch < STRETCH_SAMPLES;
        let stretch = match stretch {
            Stretch::Faster(false) | Stretch::Slower(false) | Stretch::Trim if calm => Stretch::Keep,
            Stretch::Keep | Stretch::Faster(_) | Stretch::Slower(_) | Stretch::Trim => stretch,
        };
        let want = match stretch {
            Stretch::Keep | Stretch::Trim => out.len(),
            Stretch::Slower(_) => out.len().max(FASTER_NEEDS),
            Stretch::Faster(_) => out.len() + FASTER_NEEDS,
        };
        self.fill(now, out.len(), want, negotiated, events);
        let changed = match stretch {
            Stretch::Keep => 0,
            Stretch::Faster(urgent) => self.queue.faster(urgent, usize::MAX),
            // Not more than is spare: else a packet would have to come earlier.
            Stretch::Trim => self.queue.faster(false, spare),
            Stretch::Slower(urgent) => self.queue.slower(urgent),
        };
        if changed > 0 {
            self.since_stretch = 0;
        }
        self.fill(now, out.len(), out.len(), negotiated, events);
        let n = self.queue.read(out);
        if let Some(rest) = out.get_mut(n..) {
            rest.fill(0);
        }
        self.played += n as u64;
    }

    // Decodes until `need` samples wait, or `want` where packets are there anyway.
    fn fill(
        &mut self,
        now: Instant,
        need: usize,
        want: usize,
        negotiated: &Negotiated,
        events: &mut VecDeque<AudioEvent>,
    ) {
        // The shortest Opus packet is 2.5 ms; descriptions of noise have no length.
        for _ in 0..64 {
            let waiting = self.queue.len();
            if waiting >= want || (waiting >= need && !self.jitter.has_next()) {
                return;
            }
            let clock = u64::from(self.jitter.clock_hz());
            let ticks_waiting = (waiting as u64 * clock / u64::from(PCM_RATE_HZ)) as u32;
            match self.jitter.next(now, ticks_waiting) {
                Next::Empty => return,
                Next::ComfortNoise { payload } => {
                    self.noise.describe(payload);
                    self.noise_described = true;
                }
                Next::Silence { ticks } => {
                    let described = self.noise_described.then_some(&mut self.noise);
                    if let Some(voice) = &mut self.voice {
                        voice.silence(ticks, described, &mut self.queue);
                    } else {
                        self.queue.room(ticks_to_samples(ticks, clock)).fill(0);
                    }
                }
                Next::Frame { payload_type, ticks, payload } => {
                    let codec = negotiated.receive.iter().find(|(id, _)| *id == payload_type).map(|(_, codec)| *codec);
                    let voice = codec.and_then(|codec| Voice::ready(&mut self.voice, codec));
                    let Some(voice) = voice else { continue };
                    let has_fec = voice.decoder.codec() == CodecName::Opus && opus_has_fec(payload);
                    if voice.frame(ticks, payload, &mut self.queue) {
                        self.noise_described = false;
                        if !std::mem::replace(&mut self.heard, true) {
                            raise(events, AudioEvent::FirstFrame);
                        }
                    } else {
                        self.junk += 1;
                    }
                    self.recent_loss -= self.recent_loss / 500.0;
                    self.without_fec = if has_fec { 0 } else { self.without_fec.saturating_add(1) };
                    self.jitter.set_fec(self.without_fec < FEC_MEMORY);
                }
                Next::Lost { ticks, fec } => {
                    let Some(voice) = &mut self.voice else { return };
                    let codec = voice.decoder.codec();
                    let fec =
                        fec.filter(|(id, _)| negotiated.receive.contains(&(*id, codec))).map(|(_, packet)| packet);
                    let samples = ticks_to_samples(ticks, clock) as u64;
                    if voice.lost(ticks, fec, &mut self.queue) {
                        self.recovered += samples;
                        self.recent_loss -= self.recent_loss / 500.0;
                    } else {
                        self.concealed += samples;
                        self.recent_loss += (1.0 - self.recent_loss) / 500.0;
                    }
                }
            }
        }
    }

    fn delay(&self, now: Instant) -> Duration {
        let clock = u64::from(self.jitter.clock_hz());
        let waiting = (self.queue.len() as u64 * clock / u64::from(PCM_RATE_HZ)) as u32;
        self.jitter.delay(now, waiting).unwrap_or_default()
    }
}

fn samples_to_time(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 1_000_000 / u64::from(PCM_RATE_HZ))
}

fn ticks_to_samples(ticks: u32, clock_hz: u64) -> usize {
    (u64::from(ticks) * u64::from(PCM_RATE_HZ) / clock_hz.max(1)) as usize
}

impl Voice {
    // The decoder of `codec`: the one in use, or a new one in its place.
    fn ready(slot: &mut Option<Voice>, codec: CodecName) -> Option<&mut Voice> {
        if slot.as_ref().is_none_or(|voice| voice.decoder.codec() != codec) {
            let decoder = Decoder::new(codec).ok()?;
            let up = Resampler::new(codec.sample_rate_hz(), PCM_RATE_HZ);
            *slot = Some(Voice { decoder, up, scratch: vec![0; MAX_PACKET_SAMPLES] });
        }
        slot.as_mut()
    }

    // Samples at the codec's own rate.
    fn samples(&self, ticks: u32) -> usize {
        let codec = self.decoder.codec();
        (u64::from(ticks) * u64::from(codec.sample_rate_hz()) / u64::from(codec.clock_rate_hz())) as usize
    }

    fn frame(&mut self, ticks: u32, payload: &[u8], queue: &mut PcmQueue) -> bool {
        if self.decoder.codec() == CodecName::Opus {
            let room = ticks as usize;
            let decoded = self.decoder.decode(payload, queue.room(room)).unwrap_or(0);
            queue.trim(room.saturating_sub(decoded));
            if decoded == 0 {
                self.lost(ticks, None, queue);
            }
            return decoded > 0;
        }
        match self.decoder.decode(payload, &mut self.scratch) {
            Ok(n) => {
                self.emit(n, queue);
                true
            }
            Err(_) => {
                self.lost(ticks, None, queue);
                false
            }
        }
    }

    // True if FEC brought it back.
    fn lost(&mut self, ticks: u32, fec: Option<&[u8]>, queue: &mut PcmQueue) -> bool {
        let samples = self.samples(ticks).min(MAX_PACKET_SAMPLES);
        if self.decoder.codec() == CodecName::Opus {
            // libopus makes up multiples of 2.5 ms.
            let samples = (samples / 120 * 120).max(120);
            let room = queue.room(samples);
            let recovered = self.decoder.conceal(fec, room);
            return recovered.unwrap_or(false);
        }
        let recovered = self.scratch.get_mut(..samples).map(|room| self.decoder.conceal(None, room));
        self.emit(samples, queue);
        matches!(recovered, Some(Ok(true)))
    }

    fn silence(&mut self, ticks: u32, noise: Option<&mut NoiseGenerator>, queue: &mut PcmQueue) {
        let samples = self.samples(ticks).min(MAX_PACKET_SAMPLES);
        match noise {
            Some(noise) if self.decoder.codec() != CodecName::Opus => {
                if let Some(room) = self.scratch.get_mut(..samples) {
                    noise.fill(room);
                    self.decoder.played(room);
                }
                self.emit(samples, queue);
            }
            // libopus makes its own comfort noise after a DTX packet; the others fade out.
            Some(_) | None => {
                self.lost(ticks, None, queue);
            }
        }
    }

    fn emit(&mut self, samples: usize, queue: &mut PcmQueue) {
        let Some(pcm) = self.scratch.get(..samples) else { return };
        let room = self.up.output_len(samples);
        let written = self.up.process(pcm, queue.room(room));
        queue.trim(room - written);
    }
}

/// Payload bits per second over the last whole second.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    bytes: u64,
    last_bps: u32,
    packets: u64,
}

impl Rate {
    fn count(&mut self, now: Instant, bytes: usize) {
        self.packets += 1;
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= Duration::from_secs(1) {
            self.last_bps = (self.bytes as f64 * 8.0 / elapsed.as_secs_f64()) as u32;
            self.since = Some(now);
            self.bytes = 0;
        }
        self.bytes += bytes as u64;
    }

    fn bps(&self, now: Instant) -> u32 {
        let stale = self.since.is_none_or(|since| now.saturating_duration_since(since) > Duration::from_secs(3));
        if stale { 0 } else { self.last_bps }
    }
}

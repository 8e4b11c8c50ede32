//! One direction pair of speech: PCM pushed by the microphone to RTP payloads, RTP payloads to PCM pulled by the sound clock.
//! Read RFC 3550 §5, RFC 7587 and RFC 4733 before touching this file.

use std::time::{Duration, Instant};

use super::codec::{CodecName, Negotiated};
use crate::wire::rtp::{MediaTime, RtpHeader};

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
}

impl AudioPath {
    /// An audio path for what was negotiated. `seed` gives the first timestamp. Fails only if libopus refuses its parameters.
    pub fn new(seed: u64, negotiated: Negotiated, config: AudioConfig) -> Result<Self, AudioError> {
        let _ = (seed, config);
        Ok(Self { negotiated })
    }

    /// Takes 10 or 20 ms (480 or 960 samples at 48 kHz mono) of the microphone; calls `send` for each packet that is due.
    pub fn push_pcm(&mut self, now: Instant, pcm: &[i16], send: &mut dyn FnMut(RtpOut<'_>)) {
        let _ = (now, pcm, send);
    }

    /// Takes a received, authenticated packet. Unknown payload types are counted and dropped.
    pub fn handle_rtp(&mut self, now: Instant, header: &RtpHeader, payload: &[u8]) {
        let _ = (now, header, payload);
    }

    /// Fills `out` (480 or 960 samples at 48 kHz mono) with what is to be heard now.
    pub fn pull_pcm(&mut self, now: Instant, out: &mut [i16]) {
        let _ = now;
        out.fill(0);
    }

    /// Queues a digit to be sent as RFC 4733 event while pushing goes on.
    pub fn send_digit(&mut self, digit: char) -> Result<(), AudioError> {
        Err(AudioError::NotADigit(digit))
    }

    /// Muted: the microphone is replaced by silence (or comfort noise, or nothing with DTX).
    pub fn set_muted(&mut self, muted: bool) {
        let _ = muted;
    }

    /// On hold: nothing is sent (J167-21), what arrives is still played (J167-22).
    pub fn set_on_hold(&mut self, on_hold: bool) {
        let _ = on_hold;
    }

    /// Changes codecs in the call; what is buffered with unchanged payload types is kept.
    pub fn renegotiate(&mut self, negotiated: Negotiated) -> Result<(), AudioError> {
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
        None
    }

    /// How it goes.
    #[must_use]
    pub fn stats(&self, now: Instant) -> AudioStats {
        let _ = now;
        AudioStats {
            send_codec: self.negotiated.send,
            receive_codec: None,
            buffer_ms: 0.0,
            target_ms: 0.0,
            played_ms: 0,
            concealed_ms: 0,
            fec_ms: 0,
            late: 0,
            discarded: 0,
            unknown_payload_type: 0,
            bitrate_in_bps: 0,
            bitrate_out_bps: 0,
            packets_in: 0,
            packets_out: 0,
        }
    }
}

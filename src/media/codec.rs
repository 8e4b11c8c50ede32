//! What is spoken: the codecs, what we offer and what both sides have. Read RFC 3551 §4.5, RFC 7587 §4 to §7, RFC 7874 §3,
//! RFC 3389 and XEP-0167 §5 before touching this file.

use crate::fault::names;
use crate::wire::description::PayloadType;

names! {
    /// Codecs that carry speech, by the names of XEP-0167 and RFC 3551.
    pub enum CodecName { Opus = "opus", G722 = "G722", Pcmu = "PCMU", Pcma = "PCMA" }
}

/// What the peer asked of an Opus sender by fmtp, RFC 7587 §6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpusParameters {
    /// `useinbandfec`: the peer's decoder makes use of FEC.
    pub use_inband_fec: bool,
    /// `usedtx`: the peer prefers that silence is not sent.
    pub use_dtx: bool,
    /// `cbr`
    pub constant_bitrate: bool,
    /// `stereo`: the peer prefers stereo; we always send mono, which is allowed.
    pub stereo: bool,
    /// `maxplaybackrate`, 8 000 to 48 000.
    pub max_playback_rate_hz: u32,
    /// `maxaveragebitrate`, 6 000 to 510 000.
    pub max_average_bitrate_bps: Option<u32>,
}

impl Default for OpusParameters {
    fn default() -> Self {
        Self {
            use_inband_fec: false,
            use_dtx: false,
            constant_bitrate: false,
            stereo: false,
            max_playback_rate_hz: 48_000,
            max_average_bitrate_bps: None,
        }
    }
}

/// What both sides agreed on: all that an `AudioPath` needs to know of a description.
#[derive(Debug, Clone, PartialEq)]
pub struct Negotiated {
    /// What we send with.
    pub send: CodecName,
    /// Its payload type.
    pub send_payload_type: u8,
    /// What we may receive: payload type and codec.
    pub receive: Vec<(u8, CodecName)>,
    /// telephone-event to send with: payload type and clock in Hz.
    pub dtmf_send: Option<(u8, u32)>,
    /// telephone-event that may be received: payload type and clock in Hz.
    pub dtmf_receive: Vec<(u8, u32)>,
    /// Comfort noise payload type, RFC 3389; only for the 8 kHz codecs.
    pub comfort_noise: Option<u8>,
    /// Milliseconds a packet that we send.
    pub ptime_ms: u32,
    /// What the peer asked of our Opus encoder.
    pub opus: OpusParameters,
    /// What goes into the answer (or was agreed on), in the offerer's order (J167-11).
    pub payload_types: Vec<PayloadType>,
}

/// What we offer, in the order of `preference`: opus 111, G722 9, PCMU 0, PCMA 8, CN 13, telephone-event 110 and 126.
#[must_use]
pub fn offer(preference: &[CodecName]) -> Vec<PayloadType> {
    let _ = preference;
    Vec::new()
}

/// Our answer to an offer, with the offered ids and in the offered order (J167-11). `None` if nothing is in common.
#[must_use]
pub fn answer(offered: &[PayloadType], preference: &[CodecName]) -> Option<Negotiated> {
    let _ = (offered, preference);
    None
}

/// What the peer's answer to our offer means. `None` if nothing is in common.
#[must_use]
pub fn accepted(offered: &[PayloadType], answered: &[PayloadType], preference: &[CodecName]) -> Option<Negotiated> {
    let _ = (offered, answered, preference);
    None
}

//! What is spoken: the codecs, what we offer and what both sides have. Read RFC 3551 §4.5, RFC 7587 §4 to §7, RFC 7874 §3,
//! RFC 3389 and XEP-0167 §5 before touching this file.

use super::conceal::Concealer;
use super::{g711, g722};
use crate::fault::names;
use crate::wire::description::{Parameter, PayloadType};

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

/// A codec library refused its parameters or its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub &'static str);

impl From<opus::Error> for CodecError {
    fn from(error: opus::Error) -> Self {
        CodecError(error.description())
    }
}

impl CodecName {
    /// What we offer unless told otherwise, best first (RFC 7874 §3).
    pub const PREFERENCE: [CodecName; 4] = [CodecName::Opus, CodecName::G722, CodecName::Pcmu, CodecName::Pcma];

    /// Clock of its RTP timestamps.
    #[must_use]
    pub const fn clock_rate_hz(self) -> u32 {
        match self {
            // RFC 7587 §4.1: always 48 000.
            CodecName::Opus => 48_000,
            // RFC 3551 §4.5.2: G.722 samples at 16 kHz, its RTP clock is 8 000 by an old mistake.
            CodecName::G722 | CodecName::Pcmu | CodecName::Pcma => 8_000,
        }
    }

    /// Rate of the PCM it takes and gives.
    #[must_use]
    pub const fn sample_rate_hz(self) -> u32 {
        match self {
            CodecName::Opus => 48_000,
            CodecName::G722 => 16_000,
            CodecName::Pcmu | CodecName::Pcma => 8_000,
        }
    }

    const fn payload_type(self) -> (u8, u8) {
        match self {
            CodecName::Opus => (111, 2),
            CodecName::G722 => (9, 1),
            CodecName::Pcmu => (0, 1),
            CodecName::Pcma => (8, 1),
        }
    }
}

/// What a payload type is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Speech(CodecName),
    ComfortNoise,
    TelephoneEvent(u32),
}

const COMFORT_NOISE_PT: u8 = 13;
// The dynamic ids that browsers use.
const TELEPHONE_EVENT_48000_PT: u8 = 110;
const TELEPHONE_EVENT_8000_PT: u8 = 126;

fn known(payload_type: &PayloadType) -> Option<Known> {
    let id = payload_type.id;
    // RFC 5761 §4: with RTP and RTCP on one port 64 to 95 look like RTCP.
    if id > 127 || (64..=95).contains(&id) {
        return None;
    }
    // J167-08: a static type may go without a name; RFC 3551 §6 gives it.
    let name = match (payload_type.name.as_str(), id) {
        ("", 0) => "PCMU",
        ("", 8) => "PCMA",
        ("", 9) => "G722",
        ("", 13) => "CN",
        (name, _) => name,
    };
    let clock = payload_type.clock_rate_hz;
    // J167-32: by name without regard to case, clock and channels; never by id for dynamic types.
    if name.eq_ignore_ascii_case("telephone-event") {
        let clock = clock.unwrap_or(8_000);
        return matches!(clock, 8_000 | 48_000).then_some(Known::TelephoneEvent(clock));
    }
    if name.eq_ignore_ascii_case("CN") {
        return (clock.unwrap_or(8_000) == 8_000 && payload_type.channels <= 1).then_some(Known::ComfortNoise);
    }
    let codec = CodecName::ALL.iter().copied().find(|codec| name.eq_ignore_ascii_case(codec.as_str()))?;
    let fits = match codec {
        // RFC 7587 §7 wants two channels; peers that leave the attribute out mean the same codec.
        CodecName::Opus => clock.unwrap_or(48_000) == 48_000 && payload_type.channels <= 2,
        // Scenario 18: 16 000 is what a peer writes that does not know of the quirk; the RTP clock is 8 000 all the same.
        CodecName::G722 => matches!(clock.unwrap_or(8_000), 8_000 | 16_000) && payload_type.channels <= 1,
        CodecName::Pcmu | CodecName::Pcma => clock.unwrap_or(8_000) == 8_000 && payload_type.channels <= 1,
    };
    fits.then_some(Known::Speech(codec))
}

fn ours(id: u8, known: Known) -> PayloadType {
    let (name, clock_rate_hz, channels, parameters) = match known {
        Known::Speech(CodecName::Opus) => {
            ("opus", 48_000, 2, vec![parameter("minptime", "10"), parameter("useinbandfec", "1")])
        }
        Known::Speech(codec) => (codec.as_str(), codec.clock_rate_hz(), 1, Vec::new()),
        Known::ComfortNoise => ("CN", 8_000, 1, Vec::new()),
        // RFC 4733 §2.4.1: without a list of events 0 to 15 are meant, which is all we know.
        Known::TelephoneEvent(clock) => ("telephone-event", clock, 1, Vec::new()),
    };
    PayloadType {
        id,
        name: name.into(),
        clock_rate_hz: Some(clock_rate_hz),
        channels,
        parameters,
        ..PayloadType::default()
    }
}

fn parameter(name: &str, value: &str) -> Parameter {
    Parameter { name: name.into(), value: Some(value.into()) }
}

/// What we offer, in the order of `preference`: opus 111, G722 9, PCMU 0, PCMA 8, then CN 13 (with an 8 kHz codec) and
/// telephone-event 110 (48 kHz, with opus) and 126 (8 kHz).
#[must_use]
pub fn offer(preference: &[CodecName]) -> Vec<PayloadType> {
    let mut list: Vec<PayloadType> = Vec::new();
    for &codec in preference {
        let (id, _) = codec.payload_type();
        if list.iter().all(|payload_type| payload_type.id != id) {
            list.push(ours(id, Known::Speech(codec)));
        }
    }
    if list.is_empty() {
        return list;
    }
    if preference.iter().any(|codec| codec.clock_rate_hz() == 8_000) {
        list.push(ours(COMFORT_NOISE_PT, Known::ComfortNoise));
    }
    if preference.contains(&CodecName::Opus) {
        list.push(ours(TELEPHONE_EVENT_48000_PT, Known::TelephoneEvent(48_000)));
    }
    list.push(ours(TELEPHONE_EVENT_8000_PT, Known::TelephoneEvent(8_000)));
    list
}

/// Our answer to an offer, with the offered ids and in the offered order (J167-11). `None` if no speech codec is in
/// common (J167-12). We send with opus where both have it and `preference` starts with it (scenario 18), else with the
/// offerer's first.
#[must_use]
pub fn answer(offered: &[PayloadType], preference: &[CodecName]) -> Option<Negotiated> {
    negotiate(offered, None, preference)
}

/// What the peer's answer to our offer means: we send with the peer's ids and receive with either side's. `None` if no
/// speech codec is in common.
#[must_use]
pub fn accepted(offered: &[PayloadType], answered: &[PayloadType], preference: &[CodecName]) -> Option<Negotiated> {
    negotiate(answered, Some(offered), preference)
}

fn negotiate(
    theirs: &[PayloadType],
    our_offer: Option<&[PayloadType]>,
    preference: &[CodecName],
) -> Option<Negotiated> {
    let mut speech: Vec<(CodecName, &PayloadType)> = Vec::new();
    let mut events: Vec<(u8, u32)> = Vec::new();
    let mut comfort_noise = None;
    let mut payload_types: Vec<PayloadType> = Vec::new();
    for payload_type in theirs {
        if payload_types.iter().any(|seen| seen.id == payload_type.id) {
            continue;
        }
        match known(payload_type) {
            Some(Known::Speech(codec))
                if preference.contains(&codec) && speech.iter().all(|(other, _)| *other != codec) =>
            {
                speech.push((codec, payload_type));
            }
            Some(Known::TelephoneEvent(clock)) if events.iter().all(|(_, other)| *other != clock) => {
                events.push((payload_type.id, clock));
            }
            Some(Known::ComfortNoise) if comfort_noise.is_none() => comfort_noise = Some(payload_type.id),
            Some(Known::Speech(_) | Known::TelephoneEvent(_) | Known::ComfortNoise) | None => continue,
        }
        if let Some(known) = known(payload_type) {
            payload_types.push(ours(payload_type.id, known));
        }
    }
    let first = *speech.first()?;
    let (send, chosen) = match preference.first() {
        Some(CodecName::Opus) => speech.iter().copied().find(|(codec, _)| *codec == CodecName::Opus).unwrap_or(first),
        Some(CodecName::G722 | CodecName::Pcmu | CodecName::Pcma) | None => first,
    };
    // RFC 3389 §5: comfort noise of payload type 13 belongs to the 8 kHz clock.
    if speech.iter().all(|(codec, _)| codec.clock_rate_hz() != 8_000)
        && let Some(id) = comfort_noise.take()
    {
        payload_types.retain(|payload_type| payload_type.id != id);
    }
    let mut receive: Vec<(u8, CodecName)> = speech.iter().map(|(codec, theirs)| (theirs.id, *codec)).collect();
    let mut dtmf_receive = events.clone();
    // RFC 3264 §5.1: what arrives here carries the ids that we offered, even if the answer renamed them.
    for payload_type in our_offer.unwrap_or_default() {
        let taken = payload_types.iter().any(|theirs| theirs.id == payload_type.id);
        match known(payload_type) {
            Some(Known::Speech(codec)) if !taken => receive.push((payload_type.id, codec)),
            Some(Known::TelephoneEvent(clock)) if !taken => dtmf_receive.push((payload_type.id, clock)),
            Some(Known::Speech(_) | Known::TelephoneEvent(_) | Known::ComfortNoise) | None => {}
        }
    }
    // RFC 4733 §2.5.1.2: events share the clock of the stream they ride in, where there is a choice.
    let dtmf_send =
        events.iter().copied().find(|(_, clock)| *clock == send.clock_rate_hz()).or_else(|| events.first().copied());
    Some(Negotiated {
        send,
        send_payload_type: chosen.id,
        receive,
        dtmf_send,
        dtmf_receive,
        comfort_noise,
        ptime_ms: ptime_ms(send, chosen),
        opus: if send == CodecName::Opus { opus_parameters(chosen) } else { OpusParameters::default() },
        payload_types,
    })
}

fn value<'a>(payload_type: &'a PayloadType, name: &str) -> Option<&'a str> {
    payload_type.parameters.iter().find(|p| p.name == name).and_then(|p| p.value.as_deref()).map(str::trim)
}

fn number(payload_type: &PayloadType, name: &str) -> Option<u32> {
    value(payload_type, name).and_then(|text| text.parse().ok())
}

/// Packet time we send with: what the peer asks for, not above its maximum, in steps that the codec can do.
fn ptime_ms(codec: CodecName, theirs: &PayloadType) -> u32 {
    // RFC 3551 §4.2: 20 ms unless told otherwise. Past 60 ms one lost packet is heard as a lost syllable.
    const DEFAULT_MS: u32 = 20;
    const MOST_MS: u32 = 60;
    let asked = theirs.ptime_ms.or_else(|| number(theirs, "ptime")).unwrap_or(DEFAULT_MS);
    let least = number(theirs, "minptime").unwrap_or(0);
    let most = theirs.maxptime_ms.or_else(|| number(theirs, "maxptime")).unwrap_or(MOST_MS).min(MOST_MS);
    let wanted = asked.max(least).min(most);
    let steps: &[u32] = match codec {
        // RFC 6716 §2.1.4 frames of at least 10 ms.
        CodecName::Opus => &[60, 40, 20, 10],
        CodecName::G722 | CodecName::Pcmu | CodecName::Pcma => &[60, 50, 40, 30, 20, 10],
    };
    steps.iter().copied().find(|step| *step <= wanted).unwrap_or(10)
}

fn opus_parameters(theirs: &PayloadType) -> OpusParameters {
    let flag = |name| value(theirs, name) == Some("1");
    OpusParameters {
        use_inband_fec: flag("useinbandfec"),
        use_dtx: flag("usedtx"),
        constant_bitrate: flag("cbr"),
        stereo: flag("stereo"),
        max_playback_rate_hz: number(theirs, "maxplaybackrate").unwrap_or(48_000).clamp(8_000, 48_000),
        max_average_bitrate_bps: number(theirs, "maxaveragebitrate").map(|bps| bps.clamp(6_000, 510_000)),
    }
}

/// Most bytes of a packet that is played: 120 ms of a 64 kbit/s codec, Opus' own limit is below it for one frame
/// (RFC 6716 §3.4) and 1 275 is the limit of what we send.
pub const MAX_PAYLOAD_BYTES: usize = 1_500;
/// RTP ticks and samples of the longest packet that is played: 120 ms (RFC 6716 §3.4).
const MAX_PACKET_MS: usize = 120;
/// Samples of the longest packet at 48 kHz.
pub const MAX_PACKET_SAMPLES: usize = 48 * MAX_PACKET_MS;

/// What an encoder is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Opus bits per second.
    pub bitrate_bps: u32,
    /// Opus, 0 to 10.
    pub complexity: u8,
    /// Opus, percent.
    pub expected_loss_percent: u8,
    /// Opus DTX.
    pub dtx: bool,
}

/// PCM to payloads.
pub struct Encoder {
    codec: CodecName,
    state: EncoderState,
}

enum EncoderState {
    Opus(opus::Encoder),
    G722(Box<g722::Encoder>),
    Pcmu,
    Pcma,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for `codec`. Fails if libopus refuses a parameter.
    pub fn new(codec: CodecName, asked: &OpusParameters, config: EncoderConfig) -> Result<Self, CodecError> {
        let state = match codec {
            CodecName::Opus => EncoderState::Opus(opus_encoder(asked, config)?),
            CodecName::G722 => EncoderState::G722(Box::default()),
            CodecName::Pcmu => EncoderState::Pcmu,
            CodecName::Pcma => EncoderState::Pcma,
        };
        Ok(Self { codec, state })
    }

    /// Which codec it is.
    #[must_use]
    pub fn codec(&self) -> CodecName {
        self.codec
    }

    /// Encodes 10 to 60 ms of mono PCM at `CodecName::sample_rate_hz` into `out`; bytes written. Fails if `out` is too
    /// small or Opus does not know the duration.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, CodecError> {
        const SMALL: CodecError = CodecError("the payload does not fit");
        match &mut self.state {
            EncoderState::Opus(encoder) => Ok(encoder.encode(pcm, out)?),
            EncoderState::G722(encoder) => {
                let out = out.get_mut(..pcm.len() / 2).ok_or(SMALL)?;
                Ok(encoder.encode(pcm, out))
            }
            EncoderState::Pcmu => {
                let out = out.get_mut(..pcm.len()).ok_or(SMALL)?;
                out.iter_mut().zip(pcm).for_each(|(byte, sample)| *byte = g711::linear_to_ulaw(*sample));
                Ok(pcm.len())
            }
            EncoderState::Pcma => {
                let out = out.get_mut(..pcm.len()).ok_or(SMALL)?;
                out.iter_mut().zip(pcm).for_each(|(byte, sample)| *byte = g711::linear_to_alaw(*sample));
                Ok(pcm.len())
            }
        }
    }

    /// Tells the encoder how much is lost on the way, in percent, so that it spends bits on FEC as needed.
    pub fn set_expected_loss(&mut self, percent: u8) -> Result<(), CodecError> {
        match &mut self.state {
            EncoderState::Opus(encoder) => Ok(encoder.set_packet_loss_perc(i32::from(percent.min(100)))?),
            EncoderState::G722(_) | EncoderState::Pcmu | EncoderState::Pcma => Ok(()),
        }
    }
}

fn opus_encoder(asked: &OpusParameters, config: EncoderConfig) -> Result<opus::Encoder, CodecError> {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip)?;
    let most = asked.max_average_bitrate_bps.unwrap_or(510_000);
    let bitrate = config.bitrate_bps.min(most).clamp(6_000, 510_000);
    encoder.set_bitrate(opus::Bitrate::Bits(i32::try_from(bitrate).unwrap_or(32_000)))?;
    encoder.set_complexity(i32::from(config.complexity.min(10)))?;
    encoder.set_signal(opus::Signal::Voice)?;
    // RFC 7587 §6.1: FEC only where the peer's decoder makes use of it; it costs a fifth of the bits.
    encoder.set_inband_fec(asked.use_inband_fec)?;
    encoder.set_packet_loss_perc(i32::from(config.expected_loss_percent.min(100)))?;
    encoder.set_dtx(config.dtx || asked.use_dtx)?;
    encoder.set_vbr(!asked.constant_bitrate)?;
    // RFC 7587 §6.1: bandwidth past the peer's playback rate is wasted.
    encoder.set_max_bandwidth(match asked.max_playback_rate_hz {
        0..=8_000 => opus::Bandwidth::Narrowband,
        8_001..=12_000 => opus::Bandwidth::Mediumband,
        12_001..=16_000 => opus::Bandwidth::Wideband,
        16_001..=24_000 => opus::Bandwidth::Superwideband,
        _ => opus::Bandwidth::Fullband,
    })?;
    Ok(encoder)
}

/// Payloads to PCM, with concealment.
pub struct Decoder {
    codec: CodecName,
    state: DecoderState,
}

enum DecoderState {
    Opus(opus::Decoder),
    G722(Box<g722::Decoder>, Concealer),
    G711(&'static [i16; 256], Concealer),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder for `codec`. Fails only out of memory.
    pub fn new(codec: CodecName) -> Result<Self, CodecError> {
        let concealer = || Concealer::new(codec.sample_rate_hz());
        let state = match codec {
            CodecName::Opus => DecoderState::Opus(opus::Decoder::new(48_000, opus::Channels::Mono)?),
            CodecName::G722 => DecoderState::G722(Box::default(), concealer()),
            CodecName::Pcmu => DecoderState::G711(&g711::ULAW_TO_LINEAR, concealer()),
            CodecName::Pcma => DecoderState::G711(&g711::ALAW_TO_LINEAR, concealer()),
        };
        Ok(Self { codec, state })
    }

    /// Which codec it is.
    #[must_use]
    pub fn codec(&self) -> CodecName {
        self.codec
    }

    /// Decodes one packet into `out` (at least `MAX_PACKET_SAMPLES`); samples at `CodecName::sample_rate_hz`.
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, CodecError> {
        const LONG: CodecError = CodecError("longer than 120 ms");
        match &mut self.state {
            DecoderState::Opus(decoder) => {
                if payload.is_empty() {
                    return Err(CodecError("empty"));
                }
                Ok(decoder.decode(payload, out, false)?)
            }
            DecoderState::G722(decoder, concealer) => {
                let out = out.get_mut(..2 * payload.len()).ok_or(LONG)?;
                decoder.decode(payload, out);
                concealer.good(out);
                Ok(out.len())
            }
            DecoderState::G711(table, concealer) => {
                let out = out.get_mut(..payload.len()).ok_or(LONG)?;
                for (sample, byte) in out.iter_mut().zip(payload) {
                    *sample = table.get(usize::from(*byte)).copied().unwrap_or(0);
                }
                concealer.good(out);
                Ok(payload.len())
            }
        }
    }

    /// Makes up what was lost: fills `out`, a multiple of 2.5 ms. `next` is the packet after the lost one, whose FEC is
    /// used if it has any. True if the FEC was used.
    pub fn conceal(&mut self, next: Option<&[u8]>, out: &mut [i16]) -> Result<bool, CodecError> {
        match &mut self.state {
            DecoderState::Opus(decoder) => match next.filter(|packet| opus_has_fec(packet)) {
                Some(packet) => {
                    decoder.decode(packet, out, true)?;
                    Ok(true)
                }
                None => {
                    decoder.decode(&[], out, false)?;
                    Ok(false)
                }
            },
            DecoderState::G722(_, concealer) | DecoderState::G711(_, concealer) => {
                concealer.conceal(out);
                Ok(false)
            }
        }
    }

    /// Tells the concealment that `pcm` (comfort noise) was played in place of a packet.
    pub fn played(&mut self, pcm: &mut [i16]) {
        match &mut self.state {
            DecoderState::Opus(_) => {}
            DecoderState::G722(_, concealer) | DecoderState::G711(_, concealer) => concealer.good(pcm),
        }
    }
}

/// RTP ticks of a payload; `None` if it is not a packet of that codec.
#[must_use]
pub fn packet_ticks(codec: CodecName, payload: &[u8]) -> Option<u32> {
    if payload.is_empty() || payload.len() > MAX_PAYLOAD_BYTES {
        return None;
    }
    match codec {
        CodecName::Opus => {
            let samples = opus::packet::get_nb_samples(payload, 48_000).ok()?;
            (1..=MAX_PACKET_SAMPLES).contains(&samples).then_some(samples as u32)
        }
        // One byte a tick of the 8 kHz clock, for G.722 as well (RFC 3551 §4.5.2).
        CodecName::G722 | CodecName::Pcmu | CodecName::Pcma => {
            (payload.len() <= 8 * MAX_PACKET_MS).then_some(payload.len() as u32)
        }
    }
}

/// True if the Opus packet carries nothing but "silence goes on": at most two bytes (RFC 6716 §2.1.9).
#[must_use]
pub fn opus_is_dtx(payload: &[u8]) -> bool {
    payload.len() <= 2
}

/// True if an Opus packet carries a redundant copy of the frame before it (the LBRR flag of RFC 6716 §4.2.4).
#[must_use]
pub fn opus_has_fec(payload: &[u8]) -> bool {
    let Some((&toc, rest)) = payload.split_first() else { return false };
    let config = toc >> 3;
    // RFC 6716 table 2: 16 and up are CELT only, which has no redundancy.
    if config >= 16 {
        return false;
    }
    let first_frame = match toc & 3 {
        0 | 1 => rest.first(),
        // Two frames of different size: one or two bytes of length stand before the first.
        2 => match rest.first() {
            Some(252..=255) => rest.get(2),
            Some(_) => rest.get(1),
            None => None,
        },
        _ => None,
    };
    // One VAD flag for each 20 ms of SILK, then the LBRR flag.
    let silk_frames = match config & 3 {
        2 if config < 12 => 2,
        3 if config < 12 => 3,
        _ => 1,
    };
    first_frame.is_some_and(|byte| (byte >> (7 - silk_frames)) & 1 == 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn pt(id: u8, name: &str, clock: u32, channels: u8, fmtp: &[(&str, &str)]) -> PayloadType {
        PayloadType {
            id,
            name: name.into(),
            clock_rate_hz: (clock > 0).then_some(clock),
            channels,
            parameters: fmtp.iter().map(|(name, value)| parameter(name, value)).collect(),
            ..PayloadType::default()
        }
    }

    fn ids(list: &[PayloadType]) -> Vec<u8> {
        list.iter().map(|payload_type| payload_type.id).collect()
    }

    #[test]
    fn the_offer_has_what_browsers_expect() {
        let offered = offer(&CodecName::PREFERENCE);
        assert_eq!(ids(&offered), [111, 9, 0, 8, 13, 110, 126]);
        assert_eq!(
            (offered[0].name.as_str(), offered[0].clock_rate_hz, offered[0].channels),
            ("opus", Some(48_000), 2)
        );
        assert!(offered.iter().all(|payload_type| !(64..=95).contains(&payload_type.id)));
        assert_eq!(ids(&offer(&[CodecName::Opus])), [111, 110, 126]);
        assert_eq!(ids(&offer(&[CodecName::Pcma])), [8, 13, 126]);
        assert!(offer(&[]).is_empty());
    }

    // J167-11, scenario 18.
    #[test]
    fn the_answer_keeps_ids_and_order_and_opus_wins() {
        let offered = [
            pt(0, "PCMU", 8_000, 1, &[]),
            pt(103, "ISAC", 16_000, 1, &[]),
            pt(96, "OPUS", 48_000, 2, &[("useinbandfec", "1")]),
            pt(9, "", 0, 1, &[]),
            pt(101, "telephone-event", 8_000, 1, &[]),
            pt(100, "Telephone-Event", 48_000, 1, &[]),
            pt(13, "CN", 8_000, 1, &[]),
        ];
        let answer = answer(&offered, &CodecName::PREFERENCE).unwrap();
        assert_eq!(ids(&answer.payload_types), [0, 96, 9, 101, 100, 13]);
        assert_eq!((answer.send, answer.send_payload_type), (CodecName::Opus, 96));
        assert_eq!(answer.dtmf_send, Some((100, 48_000)));
        assert_eq!(answer.receive, [(0, CodecName::Pcmu), (96, CodecName::Opus), (9, CodecName::G722)]);
        assert!(answer.opus.use_inband_fec);
        let pcm_first = super::answer(&offered, &[CodecName::Pcma, CodecName::Pcmu]).unwrap();
        assert_eq!((pcm_first.send, ids(&pcm_first.payload_types)), (CodecName::Pcmu, vec![0, 101, 100, 13]));
    }

    // J167-12, J167-32, RFC 5761 §4.
    #[test]
    fn codecs_are_the_same_by_name_clock_and_channels_only() {
        let none = |payload_type: PayloadType| answer(&[payload_type], &CodecName::PREFERENCE).is_none();
        assert!(none(pt(111, "opus", 16_000, 2, &[])));
        assert!(none(pt(111, "speex", 8_000, 1, &[])));
        assert!(none(pt(0, "PCMU", 16_000, 1, &[])));
        assert!(none(pt(0, "PCMU", 8_000, 2, &[])));
        assert!(none(pt(72, "opus", 48_000, 2, &[])));
        assert!(none(pt(200, "opus", 48_000, 2, &[])));
        assert!(none(pt(101, "telephone-event", 8_000, 1, &[])));
        assert!(!none(pt(97, "pcmu", 8_000, 1, &[])));
        assert!(!none(pt(111, "opus", 48_000, 1, &[])));
        assert!(!none(pt(9, "G722", 16_000, 1, &[])));
        assert_eq!(CodecName::G722.clock_rate_hz(), 8_000);
    }

    #[test]
    fn an_answer_that_renames_ids_is_sent_with_its_ids_and_received_with_both() {
        let offered = offer(&CodecName::PREFERENCE);
        let answered = [pt(96, "opus", 48_000, 2, &[]), pt(101, "telephone-event", 48_000, 1, &[])];
        let agreed = accepted(&offered, &answered, &CodecName::PREFERENCE).unwrap();
        assert_eq!(agreed.send_payload_type, 96);
        assert!(agreed.receive.contains(&(96, CodecName::Opus)) && agreed.receive.contains(&(111, CodecName::Opus)));
        assert_eq!(agreed.dtmf_send, Some((101, 48_000)));
    }

    #[test]
    fn fmtp_is_honoured() {
        let opus = |fmtp: &[(&str, &str)]| answer(&[pt(111, "opus", 48_000, 2, fmtp)], &[CodecName::Opus]).unwrap();
        let all = opus(&[
            ("useinbandfec", "1"),
            ("usedtx", "1"),
            ("cbr", "1"),
            ("stereo", "1"),
            ("maxplaybackrate", "16000"),
            ("maxaveragebitrate", "20000"),
            ("ptime", "60"),
            ("maxptime", "45"),
        ]);
        assert_eq!(
            all.opus,
            OpusParameters {
                use_inband_fec: true,
                use_dtx: true,
                constant_bitrate: true,
                stereo: true,
                max_playback_rate_hz: 16_000,
                max_average_bitrate_bps: Some(20_000),
            }
        );
        assert_eq!(all.ptime_ms, 40);
        assert_eq!(opus(&[]).opus, OpusParameters::default());
        assert_eq!(opus(&[("maxptime", "3")]).ptime_ms, 10);
        assert_eq!(opus(&[("ptime", "4000000000")]).ptime_ms, 60);
        assert_eq!(opus(&[("ptime", "junk"), ("maxplaybackrate", "1")]).ptime_ms, 20);
        let config = EncoderConfig { bitrate_bps: 32_000, complexity: 5, expected_loss_percent: 10, dtx: false };
        let mut encoder = Encoder::new(CodecName::Opus, &all.opus, config).unwrap();
        let mut out = [0; 1_500];
        let tone: Vec<i16> = (0..1_920).map(|n| if n % 200 < 100 { 5_000 } else { -5_000 }).collect();
        // Constant bit rate of 20 kbit/s: 100 bytes for 40 ms.
        assert_eq!(encoder.encode(&tone, &mut out).unwrap(), 100);
    }

    #[test]
    fn a_frame_with_fec_is_known_by_its_flag() {
        let fec = OpusParameters { use_inband_fec: true, ..OpusParameters::default() };
        let config = EncoderConfig { bitrate_bps: 24_000, complexity: 5, expected_loss_percent: 20, dtx: false };
        for (asked, most, least) in [(fec, 100, 30), (OpusParameters::default(), 0, 0)] {
            let mut encoder = Encoder::new(CodecName::Opus, &asked, config).unwrap();
            let mut out = [0; 1_500];
            let mut with = 0;
            for frame in 0..100u32 {
                let pcm: Vec<i16> = (0..960u32)
                    .map(|n| {
                        let t = f64::from(frame * 960 + n) / 48_000.0 * std::f64::consts::TAU;
                        (3_000.0 * ((t * 150.0).sin() + (t * 450.0).sin()) * (1.0 + (t * 4.0).sin())) as i16
                    })
                    .collect();
                let n = encoder.encode(&pcm, &mut out).unwrap();
                with += usize::from(opus_has_fec(&out[..n]));
            }
            assert!((least..=most).contains(&with), "{with}");
        }
    }
}

//! Whole audio paths in virtual time: encode, a network that loses, delays, swaps and repeats, jitter buffer, decode.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use offhook::media::audio::{AudioConfig, AudioEvent, AudioPath, AudioStats, FRAME_SAMPLES};
use offhook::media::codec::{CodecName, Negotiated, accepted, answer, offer};
use offhook::wire::rtp::{MediaTime, RtpHeader, SeqNo, Ssrc};

const FRAME: Duration = Duration::from_millis(20);

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
    fn gauss(&mut self) -> f64 {
        (-2.0 * self.next().max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * self.next()).cos()
    }
}

/// Speech-like: a gliding pitch with harmonics under formants, in syllables with pauses.
fn speech(frames: usize) -> Vec<i16> {
    let mut phase = 0.0f64;
    (0..frames * FRAME_SAMPLES)
        .map(|n| {
            let t = n as f64 / 48_000.0;
            let pitch = 130.0 + 30.0 * (t * 2.1).sin() + 10.0 * (t * 7.3).sin();
            phase += pitch / 48_000.0;
            let syllable = (0.5 + 0.5 * (t * std::f64::consts::TAU * 3.0).sin()).powf(0.7);
            let phrase = if (t % 3.0) < 2.5 { 1.0 } else { 0.01 };
            let formant = 500.0 + 300.0 * (t * 5.0).sin();
            let mut sum = 0.0;
            for harmonic in 1..20 {
                let hz = pitch * f64::from(harmonic);
                let gain =
                    1.0 / (1.0 + ((hz - formant) / 200.0).powi(2)) + 0.3 / (1.0 + ((hz - 1_500.0) / 300.0).powi(2));
                sum += gain * (std::f64::consts::TAU * phase * f64::from(harmonic)).sin();
            }
            (sum * 5_000.0 * syllable * phrase).clamp(-30_000.0, 30_000.0) as i16
        })
        .collect()
}

fn pair(preference: &[CodecName]) -> (Negotiated, Negotiated) {
    let offered = offer(preference);
    let theirs = answer(&offered, preference).unwrap();
    let ours = accepted(&offered, &theirs.payload_types, preference).unwrap();
    (ours, theirs)
}

/// One direction of a call.
struct Line<'a> {
    sender: AudioPath,
    receiver: AudioPath,
    // Arrival in microseconds (and a tie-breaker) to packet.
    flying: BTreeMap<(i64, u64), (RtpHeader, Vec<u8>)>,
    seq: u16,
    count: u64,
    // For the n-th packet: delays in ms of each copy that arrives.
    network: Box<dyn FnMut(u64) -> Vec<f64> + 'a>,
    // Receiver's clock against the sender's, ppm.
    skew_ppm: f64,
    // The receiver's sound card against the sender's frames.
    step_us: i64,
    start: Instant,
}

impl<'a> Line<'a> {
    fn new(preference: &[CodecName], config: AudioConfig, network: impl FnMut(u64) -> Vec<f64> + 'a) -> Self {
        let (ours, theirs) = pair(preference);
        Self {
            sender: AudioPath::new(7, ours, config).unwrap(),
            receiver: AudioPath::new(8, theirs, config).unwrap(),
            flying: BTreeMap::new(),
            // The sequence number wraps early in every test.
            seq: 65_500,
            count: 0,
            network: Box::new(network),
            skew_ppm: 0.0,
            step_us: 7_000,
            start: Instant::now(),
        }
    }

    fn send_frame(&mut self, at_us: i64, pcm: &[i16]) {
        let Line { sender, flying, seq, count, network, start, .. } = self;
        let now = *start + Duration::from_micros(at_us as u64);
        sender.push_pcm(now, pcm, &mut |out| {
            for delay_ms in network(*count) {
                let header = RtpHeader {
                    marker: out.marker,
                    payload_type: out.payload_type,
                    seq: SeqNo(*seq),
                    time: out.time,
                    ssrc: Ssrc(9),
                };
                let key = (at_us + (delay_ms * 1_000.0) as i64, flying.len() as u64 + *count * 8);
                flying.insert(key, (header, out.payload.to_vec()));
            }
            *seq = seq.wrapping_add(1);
            *count += 1;
        });
    }

    fn hear_frame(&mut self, at_us: i64, out: &mut [i16]) {
        let now = self.start + Duration::from_micros(at_us as u64);
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > at_us {
                break;
            }
            let arrival = self.start + Duration::from_micros(entry.key().0 as u64);
            let (header, payload) = entry.remove();
            self.receiver.handle_rtp(arrival, &header, &payload);
        }
        self.receiver.pull_pcm(now, out);
    }

    /// Sends `signal`; what is heard, and the mean buffer delay over the second half in ms.
    fn run(&mut self, signal: &[i16]) -> (Vec<i16>, f64) {
        let frames = signal.len() / FRAME_SAMPLES;
        let mut heard = Vec::with_capacity(signal.len());
        let mut frame = [0; FRAME_SAMPLES];
        let (mut delays, mut next_hear) = (Vec::new(), 0.0f64);
        for n in 0..frames {
            let at = n as i64 * 20_000;
            self.send_frame(at, &signal[n * FRAME_SAMPLES..(n + 1) * FRAME_SAMPLES]);
            // The receiver's sound card runs at its own pace, out of step.
            while next_hear <= at as f64 {
                self.hear_frame(next_hear as i64 + self.step_us, &mut frame);
                heard.extend_from_slice(&frame);
                next_hear += 20_000.0 * (1.0 + self.skew_ppm * 1e-6);
                if n > frames / 2 {
                    // What will be played next, at the time when it will be.
                    let now = self.start + Duration::from_micros((next_hear as i64 + self.step_us) as u64);
                    delays.push(self.receiver.stats(now).buffer_ms);
                }
            }
        }
        (heard, delays.iter().sum::<f64>() / delays.len().max(1) as f64)
    }

    fn stats(&self) -> AudioStats {
        self.receiver.stats(self.start)
    }
}

/// Best normalized correlation of short pieces of `heard` with `sent` around where they should be.
fn likeness(sent: &[i16], heard: &[i16]) -> f64 {
    const PIECE: usize = 2_400;
    let (mut sum, mut count) = (0.0, 0);
    let mut at = 48_000;
    while at + PIECE < heard.len() {
        let piece = &heard[at..at + PIECE];
        let energy: f64 = piece.iter().map(|s| f64::from(*s).powi(2)).sum();
        if energy / PIECE as f64 > 200.0f64.powi(2) {
            let mut best = 0.0f64;
            // Up to 400 ms late.
            for lag in (0..19_200).step_by(6) {
                let Some(from) = at.checked_sub(lag) else { break };
                let (mut ab, mut bb) = (0.0, 1.0);
                for k in (0..PIECE).step_by(6) {
                    let (a, b) = (f64::from(piece[k]), f64::from(sent[from + k]));
                    ab += a * b;
                    bb += b * b;
                }
                best = best.max(ab / (bb * energy / 6.0).sqrt());
            }
            sum += best;
            count += 1;
        }
        at += PIECE * 7;
    }
    sum / f64::from(count.max(1))
}

#[test]
fn speech_comes_through_a_clean_line_with_every_codec() {
    let signal = speech(250);
    for (codec, least) in
        [(CodecName::Opus, 0.90), (CodecName::G722, 0.95), (CodecName::Pcmu, 0.95), (CodecName::Pcma, 0.95)]
    {
        let mut line = Line::new(&[codec], AudioConfig::default(), |_| vec![30.0]);
        let (heard, delay) = line.run(&signal);
        let like = likeness(&signal, &heard);
        let stats = line.stats();
        assert!(like > least, "{codec}: {like}");
        assert_eq!(stats.concealed_ms, 0, "{codec}: {stats:?}");
        assert!(delay < 50.0, "{codec}: {delay}");
        assert_eq!(line.receiver.poll_event(), Some(AudioEvent::FirstFrame));
        assert_eq!(line.receiver.poll_event(), None);
    }
}

#[test]
fn speech_survives_loss_jitter_swapped_and_repeated_packets() {
    let signal = speech(500);
    for codec in [CodecName::Opus, CodecName::Pcmu, CodecName::G722] {
        let mut random = Random(77);
        let mut line = Line::new(&[codec], AudioConfig::default(), move |_| {
            if random.next() < 0.05 {
                return vec![];
            }
            let delay = 30.0 + random.next() * 30.0 + if random.next() < 0.05 { 25.0 } else { 0.0 };
            if random.next() < 0.05 { vec![delay, delay + 3.0] } else { vec![delay] }
        });
        let (heard, delay) = line.run(&signal);
        let like = likeness(&signal, &heard);
        let stats = line.stats();
        println!("{codec}: likeness {like:.3} delay {delay:.1} {stats:?}");
        assert!(like > 0.80, "{codec}: {like} {stats:?}");
        assert!(stats.concealed_ms + stats.fec_ms < 1_500, "{codec}: {stats:?}");
        assert!(delay < 100.0, "{codec}: {delay}");
        // 5 % of 475 packets are repeated: none is heard twice.
        assert!((10..60).contains(&stats.discarded), "{stats:?}");
    }
}

#[test]
fn fec_brings_back_what_concealment_can_only_guess() {
    let signal = speech(1_000);
    let mut result = Vec::new();
    for fec in [true, false] {
        let mut random = Random(4_242);
        let config = AudioConfig { expected_loss_percent: 20, ..AudioConfig::default() };
        let mut line =
            Line::new(&[CodecName::Opus], config, move |_| if random.next() < 0.2 { vec![] } else { vec![30.0] });
        if !fec {
            let mut plain = line.sender.negotiated().clone();
            plain.opus.use_inband_fec = false;
            line.sender.renegotiate(plain).unwrap();
        }
        let (heard, _) = line.run(&signal);
        println!("fec {fec}: {} {:?}", likeness(&signal, &heard), line.stats());
        result.push((likeness(&signal, &heard), line.stats()));
    }
    let (with, without) = (&result[0], &result[1]);
    assert!(with.1.fec_ms > 2_000, "{:?}", with.1);
    assert_eq!(without.1.fec_ms, 0);
    assert!(with.1.concealed_ms * 2 < without.1.concealed_ms);
    assert!(with.0 > without.0 + 0.01, "{} {}", with.0, without.0);
}

/// Performance row 11: less delay than a fixed 60 ms buffer at no more concealment, on calm and on rough lines.
#[test]
fn the_buffer_adapts_to_the_line_and_beats_a_fixed_one() {
    let signal = speech(1_500);
    for (name, spread) in [("calm", 8.0), ("busy", 25.0), ("rough", 60.0)] {
        let mut random = Random(99);
        let delays: Vec<f64> = (0..1_600).map(|_| 20.0 + random.gauss().abs() * spread).collect();
        let trace = delays.clone();
        let mut line = Line::new(&[CodecName::Pcmu], AudioConfig::default(), move |n| vec![trace[n as usize]]);
        let (_, delay) = line.run(&signal);
        let stats = line.stats();
        let mut sorted = delays.clone();
        sorted.sort_by(f64::total_cmp);
        let quantile = sorted[delays.len() * 95 / 100] - sorted[0];
        // A fixed buffer of 60 ms over the fastest packet plays what is there.
        let fixed_late = delays.iter().filter(|d| **d > sorted[0] + 60.0).count() as f64 * 20.0;
        println!(
            "{name}: target {:.0} ms (trace 95 % {quantile:.0}), delay {delay:.0}, concealed {} ms, fixed 60: {fixed_late} ms",
            stats.target_ms, stats.concealed_ms
        );
        assert!((stats.target_ms - quantile.max(20.0)).abs() <= 12.0, "{name}: {} {quantile}", stats.target_ms);
        // Packets are decoded when the sound card asks, in steps of 20 ms.
        assert!(delay < quantile.max(20.0) + 25.0, "{name}: {delay}");
        let share = stats.concealed_ms as f64 / stats.played_ms as f64;
        assert!(share < 0.04, "{name}: {share}");
        // Calm: as few holes, less delay. Rough: fewer holes. In between both are alike.
        match name {
            "calm" => assert!(delay < 50.0 && share < 0.005, "{delay} {share}"),
            _ => assert!((stats.concealed_ms as f64) < fixed_late * 0.75, "{} {fixed_late}", stats.concealed_ms),
        }
    }
}

/// Jitter row of the catalogue of threats: delay ≤ p95 + 20 ms and few late frames, on average over what the phases of
/// sender and sound card happen to be.
#[test]
fn the_delay_is_what_the_line_needs_and_at_most_20_ms_more() {
    let signal = speech(800);
    let (mut above, mut concealed, mut played) = (0.0, 0, 0);
    const PHASES: [i64; 5] = [500, 4_500, 8_500, 12_500, 16_500];
    for step_us in PHASES {
        let mut random = Random(99 + step_us as u64);
        let delays: Vec<f64> = (0..900).map(|_| 20.0 + random.gauss().abs() * 25.0).collect();
        let trace = delays.clone();
        let mut line = Line::new(&[CodecName::Pcmu], AudioConfig::default(), move |n| vec![trace[n as usize]]);
        line.step_us = step_us;
        let (_, delay) = line.run(&signal);
        let mut sorted = delays;
        sorted.sort_by(f64::total_cmp);
        let stats = line.stats();
        let over = delay - (sorted[sorted.len() * 95 / 100] - sorted[0]);
        println!("{step_us} us: p95 + {over:.1} ms, concealed {} of {} ms", stats.concealed_ms, stats.played_ms);
        assert!(over < 30.0, "{step_us}: {over}");
        above += over / PHASES.len() as f64;
        (concealed, played) = (concealed + stats.concealed_ms, played + stats.played_ms);
    }
    println!("p95 + {above:.1} ms, concealed {concealed} of {played} ms");
    assert!(above <= 20.0, "{above}");
    assert!(concealed * 100 <= played * 2, "{concealed} of {played}");
}

#[test]
fn clocks_1000_ppm_apart_are_followed_by_stretching_the_sound() {
    // Cheap sound cards; the hour at 200 ppm is a test of the jitter buffer itself.
    let signal = speech(1_000);
    for skew_ppm in [1_000.0, -1_000.0] {
        let mut random = Random(5);
        let mut line =
            Line::new(&[CodecName::Opus], AudioConfig::default(), move |_| vec![20.0 + random.next() * 10.0]);
        line.skew_ppm = skew_ppm;
        let (heard, delay) = line.run(&signal);
        let stats = line.stats();
        assert!(stats.concealed_ms <= 100, "{skew_ppm}: {stats:?}");
        assert!(delay < 70.0, "{skew_ppm}: {delay}");
        assert!(likeness(&signal, &heard) > 0.85);
    }
}

#[test]
fn a_stall_of_the_network_is_heard_late_and_then_caught_up() {
    let signal = speech(750);
    // Packets 200 to 214 come together, 300 ms late.
    let mut line = Line::new(&[CodecName::Opus], AudioConfig::default(), |n| {
        vec![if (200..215).contains(&n) { 20.0 + (215 - n) as f64 * 20.0 } else { 20.0 }]
    });
    let (_, delay) = line.run(&signal);
    let stats = line.stats();
    assert!(stats.concealed_ms <= 320, "{stats:?}");
    assert_eq!(stats.late, 0, "{stats:?}");
    assert!(delay < 80.0, "{delay}");
}

#[test]
fn digits_cross_a_line_with_20_percent_loss_and_no_digit_doubles() {
    const ALL: &str = "0123456789*#ABCD";
    for preference in [&[CodecName::Opus][..], &[CodecName::Pcma]] {
        let mut random = Random(1_234);
        let mut line = Line::new(preference, AudioConfig::default(), move |_| match random.next() {
            x if x < 0.2 => vec![],
            x if x < 0.3 => vec![30.0, 35.0],
            x => vec![20.0 + x * 40.0],
        });
        for digit in ALL.chars() {
            line.sender.send_digit(digit).unwrap();
        }
        line.run(&speech(350));
        assert!(!line.sender.is_sending_digits());
        let mut heard = String::new();
        while let Some(event) = line.receiver.poll_event() {
            if let AudioEvent::Digit(digit) = event {
                heard.push(digit);
            }
        }
        assert_eq!(heard, ALL);
        assert!(line.sender.send_digit('x').is_err());
    }
}

#[test]
fn a_muted_and_a_held_line_send_silence_or_nothing() {
    let config = AudioConfig { dtx: true, ..AudioConfig::default() };
    for (codec, most) in [(CodecName::Opus, 30), (CodecName::Pcmu, 15)] {
        let mut line = Line::new(&[codec], config, |_| vec![20.0]);
        line.run(&speech(100));
        line.sender.set_muted(true);
        let before = line.count;
        line.run(&speech(100));
        assert!(line.count - before <= most, "{codec}: {}", line.count - before);
        line.sender.set_muted(false);
        line.sender.set_on_hold(true);
        let before = line.count;
        line.run(&speech(50));
        assert_eq!(line.count, before);
        line.sender.set_on_hold(false);
        line.run(&speech(5));
        assert!(line.count > before);
    }
}

#[test]
fn three_seconds_without_a_packet_are_told_once_and_so_is_their_end() {
    let (ours, theirs) = pair(&CodecName::PREFERENCE);
    let start = Instant::now();
    let mut receiver = AudioPath::new(1, theirs, AudioConfig::default()).unwrap();
    let mut sender = AudioPath::new(2, ours, AudioConfig::default()).unwrap();
    let mut frame = [0; FRAME_SAMPLES];
    let mut events = Vec::new();
    for n in 0..300u32 {
        receiver.pull_pcm(start + n * FRAME, &mut frame);
        events.extend(std::iter::from_fn(|| receiver.poll_event()).map(|event| (n, event)));
    }
    assert_eq!(events, [(150, AudioEvent::NoMedia)]);
    sender.push_pcm(start, &frame, &mut |out| {
        let header =
            RtpHeader { marker: true, payload_type: out.payload_type, seq: SeqNo(0), time: out.time, ssrc: Ssrc(1) };
        receiver.handle_rtp(start + 300 * FRAME, &header, out.payload);
    });
    assert_eq!(receiver.poll_event(), Some(AudioEvent::MediaBack));
}

#[test]
fn a_new_source_a_clock_jump_and_a_new_codec_are_followed() {
    let (ours, theirs) = pair(&CodecName::PREFERENCE);
    let mut receiver = AudioPath::new(1, theirs, AudioConfig::default()).unwrap();
    let mut sender = AudioPath::new(2, ours.clone(), AudioConfig::default()).unwrap();
    let start = Instant::now();
    let signal = speech(400);
    let mut frame = [0; FRAME_SAMPLES];
    let mut loud = Vec::new();
    for n in 0..400u32 {
        let now = start + n * FRAME;
        if n == 300 {
            let pcmu = Negotiated { send: CodecName::Pcmu, send_payload_type: 0, ..ours.clone() };
            sender.renegotiate(pcmu).unwrap();
        }
        let at = n as usize * FRAME_SAMPLES;
        sender.push_pcm(now, &signal[at..at + FRAME_SAMPLES], &mut |out| {
            let (jump, ssrc, seq) = match n {
                0..100 => (0, 1, n),
                // A new SSRC, then a jump of both counters within it.
                100..200 => (0, 2, n + 30_000),
                _ => (0x8000_0000u32, 2, n + 11_000),
            };
            let header = RtpHeader {
                marker: false,
                payload_type: out.payload_type,
                seq: SeqNo(seq as u16),
                time: MediaTime(out.time.0.wrapping_add(jump)),
                ssrc: Ssrc(ssrc),
            };
            receiver.handle_rtp(now, &header, out.payload);
        });
        receiver.pull_pcm(now, &mut frame);
        loud.push(frame.iter().any(|s| s.abs() > 100));
    }
    let stats = receiver.stats(start + 400 * FRAME);
    assert_eq!(stats.receive_codec, Some(CodecName::Pcmu));
    for (from, to) in [(20, 95), (120, 125), (220, 270), (320, 370)] {
        let quiet = loud[from..to].iter().filter(|l| !**l).count();
        assert!(quiet <= 8, "{from}..{to}: {quiet}");
    }
}

#[test]
fn junk_payloads_of_every_length_never_panic_for_any_codec() {
    for codec in CodecName::ALL {
        let (_, theirs) = pair(&[*codec]);
        let mut receiver = AudioPath::new(1, theirs.clone(), AudioConfig::default()).unwrap();
        let start = Instant::now();
        let mut random = Random(31);
        let mut frame = [0; FRAME_SAMPLES];
        let mut seq = 0u16;
        let ids: Vec<u8> = theirs
            .receive
            .iter()
            .map(|(id, _)| *id)
            .chain(theirs.dtmf_receive.iter().map(|(id, _)| *id))
            .chain(theirs.comfort_noise)
            .chain([77])
            .collect();
        for len in (0..1_600usize).chain(0..400) {
            let payload: Vec<u8> = (0..len).map(|_| (random.next() * 256.0) as u8).collect();
            let header = RtpHeader {
                marker: len % 3 == 0,
                payload_type: ids[len % ids.len()],
                seq: SeqNo(seq),
                time: MediaTime((random.next() * 4e9) as u32 * u32::from(len % 7 == 0) + len as u32 * 960),
                ssrc: Ssrc(u32::from(len % 97 == 0)),
            };
            seq = seq.wrapping_add(if len % 11 == 0 { (random.next() * 65_536.0) as u16 } else { 1 });
            let now = start + len as u32 * FRAME;
            receiver.handle_rtp(now, &header, &payload);
            if len % 2 == 0 {
                receiver.pull_pcm(now, &mut frame);
            }
        }
    }
}

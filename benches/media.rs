//! Microphone to ear against bare libopus, and the transcoding paths. Performance rows 10 and 11.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use offhook::media::audio::{AudioConfig, AudioPath, FRAME_SAMPLES};
use offhook::media::codec::{CodecName, accepted, answer, offer};
use offhook::media::resample::Resampler;
use offhook::wire::rtp::{RtpHeader, SeqNo, Ssrc};

const FRAMES: usize = 3_000;

fn signal() -> Vec<i16> {
    (0..FRAMES * FRAME_SAMPLES)
        .map(|n| {
            let t = n as f64 / 48_000.0 * std::f64::consts::TAU;
            (3_000.0 * ((t * 150.0).sin() + 0.5 * (t * 470.0).sin()) * (1.0 + (t * 3.0).sin())) as i16
        })
        .collect()
}

fn line(codec: CodecName, complexity: u8, pcm: &[i16]) -> Duration {
    let offered = offer(&[codec]);
    let theirs = answer(&offered, &[codec]).unwrap();
    let ours = accepted(&offered, &theirs.payload_types, &[codec]).unwrap();
    let config = AudioConfig { opus_complexity: complexity, ..AudioConfig::default() };
    let mut sender = AudioPath::new(1, ours, config).unwrap();
    let mut receiver = AudioPath::new(2, theirs, config).unwrap();
    let mut heard = [0i16; FRAME_SAMPLES];
    let start = Instant::now();
    for (n, frame) in pcm.chunks_exact(FRAME_SAMPLES).enumerate() {
        let now = start + Duration::from_millis(20) * n as u32;
        sender.push_pcm(now, frame, &mut |out| {
            let header = RtpHeader {
                marker: out.marker,
                payload_type: out.payload_type,
                seq: SeqNo(n as u16),
                time: out.time,
                ssrc: Ssrc(1),
            };
            receiver.handle_rtp(now, &header, out.payload);
        });
        receiver.pull_pcm(now, &mut heard);
        black_box(&heard);
    }
    start.elapsed()
}

fn bare(complexity: i32, pcm: &[i16]) -> Duration {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(32_000)).unwrap();
    encoder.set_complexity(complexity).unwrap();
    encoder.set_signal(opus::Signal::Voice).unwrap();
    encoder.set_inband_fec(true).unwrap();
    encoder.set_packet_loss_perc(10).unwrap();
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
    let (mut packet, mut heard) = ([0u8; 1_500], [0i16; FRAME_SAMPLES]);
    let start = Instant::now();
    for frame in pcm.chunks_exact(FRAME_SAMPLES) {
        let n = encoder.encode(frame, &mut packet).unwrap();
        decoder.decode(&packet[..n], &mut heard, false).unwrap();
        black_box(&heard);
    }
    start.elapsed()
}

fn main() {
    let pcm = signal();
    let us = |time: Duration| time.as_secs_f64() * 1e6 / FRAMES as f64;
    for complexity in [5u8, 10] {
        // Best of three, taken in turns: the machine is shared.
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        for _ in 0..3 {
            theirs = theirs.min(bare(i32::from(complexity), &pcm));
            ours = ours.min(line(CodecName::Opus, complexity, &pcm));
        }
        println!(
            "opus complexity {complexity:2}: microphone to ear {:7.1} us a frame, bare libopus {:7.1} us, ratio {:.3} (goal 1.10)",
            us(ours),
            us(theirs),
            ours.as_secs_f64() / theirs.as_secs_f64()
        );
    }
    for codec in [CodecName::Pcmu, CodecName::Pcma, CodecName::G722] {
        println!("{codec}: microphone to ear {:7.1} us a frame", us(line(codec, 5, &pcm)));
    }
    for (from, to) in [(48_000u32, 8_000u32), (8_000, 48_000), (48_000, 16_000), (16_000, 48_000), (44_100, 48_000)] {
        let mut resampler = Resampler::new(from, to);
        let input = &pcm[..from as usize / 50];
        let mut out = vec![0; resampler.output_len(input.len())];
        let start = Instant::now();
        for _ in 0..FRAMES {
            black_box(resampler.process(black_box(input), &mut out));
        }
        println!("resample {from} to {to}: {:5.2} us a frame", us(start.elapsed()));
    }
}

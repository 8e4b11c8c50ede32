//! Audio in steady state does not touch the heap: a counting allocator around whole audio paths.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use offhook::media::audio::{AudioConfig, AudioPath, FRAME_SAMPLES};
use offhook::media::codec::{CodecName, accepted, answer, offer};
use offhook::wire::rtp::{RtpHeader, SeqNo, Ssrc};

/// Allocations of `frames` frames, both ways through one line with loss, after a warm-up.
fn allocations(codec: CodecName, frames: u32) -> u64 {
    let offered = offer(&[codec]);
    let theirs = answer(&offered, &[codec]).unwrap();
    let ours = accepted(&offered, &theirs.payload_types, &[codec]).unwrap();
    let mut sender = AudioPath::new(1, ours, AudioConfig::default()).unwrap();
    let mut receiver = AudioPath::new(2, theirs, AudioConfig::default()).unwrap();
    let start = Instant::now();
    let mut pcm = [0i16; FRAME_SAMPLES];
    let mut heard = [0i16; FRAME_SAMPLES];
    let mut run = |from: u32, to: u32| {
        for n in from..to {
            let now = start + n * Duration::from_millis(20);
            for (k, sample) in pcm.iter_mut().enumerate() {
                let t = f64::from(n * 960 + k as u32) / 48_000.0 * std::f64::consts::TAU;
                *sample = (4_000.0 * (t * 180.0).sin() * (1.0 + (t * 3.0).sin())) as i16;
            }
            sender.push_pcm(now, &pcm, &mut |out| {
                // One packet in 17 is lost, one in 5 is 15 ms later.
                if n % 17 != 0 {
                    let header = RtpHeader {
                        marker: out.marker,
                        payload_type: out.payload_type,
                        seq: SeqNo(n as u16),
                        time: out.time,
                        ssrc: Ssrc(1),
                    };
                    let late = Duration::from_millis(if n % 5 == 0 { 15 } else { 0 });
                    receiver.handle_rtp(now + late, &header, out.payload);
                }
            });
            receiver.pull_pcm(now + Duration::from_millis(16), &mut heard);
            while receiver.poll_event().is_some() {}
        }
    };
    run(0, 300);
    allocation_counter::measure(|| run(300, 300 + frames)).count_total
}

#[test]
fn a_frame_is_sent_and_heard_without_an_allocation() {
    for codec in [CodecName::Opus, CodecName::G722, CodecName::Pcmu, CodecName::Pcma] {
        assert_eq!(allocations(codec, 500), 0, "{codec}");
    }
}

//! The whole path against ALSA's own null and file devices: no sound card is needed. ALSA_CONFIG_PATH, read by libasound,
//! is set before the test runs itself again as a child.
#![cfg(all(feature = "audio-device", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use offhook::io::audio::{AudioSink, AudioSource, Microphone, Speaker, ToneSource};
use offhook::media::audio::{AudioConfig, AudioPath, FRAME_SAMPLES};
use offhook::media::codec::{CodecName, accepted, answer, offer};
use offhook::wire::rtp::{RtpHeader, SeqNo, Ssrc};

const CHILD: &str = "OFFHOOK_TEST_ALSA_OUT";

#[test]
fn a_call_is_heard_on_the_sound_device() {
    if let Some(out) = std::env::var_os(CHILD) {
        talk();
        // What the loudspeaker got is in the file: not all silence.
        let heard = std::fs::read(out).unwrap();
        let loud = heard.chunks_exact(2).filter(|s| i16::from_le_bytes([s[0], s[1]]).unsigned_abs() > 1_000).count();
        assert!(loud > 4_800, "{loud} of {}", heard.len() / 2);
        return;
    }
    let dir = std::env::temp_dir().join(format!("offhook-alsa-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (config, out) = (dir.join("asound.conf"), dir.join("out.raw"));
    // `null` keeps no time of its own; the file device writes what is played and hands silence to who listens.
    std::fs::write(
        &config,
        format!(
            "pcm.!default {{ type file slave.pcm {{ type null }} file \"{}\" format raw infile \"/dev/zero\" }}\n\
             ctl.!default {{ type hw card 0 }}\n",
            out.display()
        ),
    )
    .unwrap();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_call_is_heard_on_the_sound_device", "--nocapture"])
        .env("ALSA_CONFIG_PATH", &config)
        .env(CHILD, &out)
        .status()
        .unwrap();
    let _ = std::fs::remove_dir_all(&dir);
    assert!(status.success());
}

fn talk() {
    let mut microphone = Microphone::open(None).unwrap();
    let mut speaker = Speaker::open(None).unwrap();
    let offered = offer(&[CodecName::Opus]);
    let theirs = answer(&offered, &[CodecName::Opus]).unwrap();
    let ours = accepted(&offered, &theirs.payload_types, &[CodecName::Opus]).unwrap();
    let mut near = AudioPath::new(1, ours, AudioConfig::default()).unwrap();
    let mut far = AudioPath::new(2, theirs, AudioConfig::default()).unwrap();
    let mut tone = ToneSource::new(440.0);
    let (mut frame, mut spoken) = ([0; FRAME_SAMPLES], [0; FRAME_SAMPLES]);
    let start = Instant::now();
    for n in 0..100u32 {
        let now = start + n * Duration::from_millis(20);
        std::thread::sleep(now.saturating_duration_since(Instant::now()));
        assert!(microphone.read(&mut spoken), "the microphone is gone");
        // The microphone of the null device is silent: the tone speaks over it.
        tone.read(&mut frame);
        for (sample, own) in frame.iter_mut().zip(&spoken) {
            *sample = sample.saturating_add(*own);
        }
        near.push_pcm(now, &frame, &mut |out| {
            let header = RtpHeader {
                marker: out.marker,
                payload_type: out.payload_type,
                seq: SeqNo(n as u16),
                time: out.time,
                ssrc: Ssrc(3),
            };
            far.handle_rtp(now, &header, out.payload);
        });
        far.pull_pcm(now, &mut frame);
        speaker.write(&frame).unwrap();
    }
}

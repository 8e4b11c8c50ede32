//! Where sound comes from and goes to: WAV files, a tone, silence, the sound card.
//! All of it in frames of 20 ms at 48 kHz mono.

use crate::media::audio::FRAME_SAMPLES;

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

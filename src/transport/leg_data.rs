//! The data channels of a leg: its verbs, and what carries SCTP between the association and DTLS.
//! Read RFC 8831 §6 and RFC 8261 before touching this file.

use crate::transport::leg::Leg;
use crate::transport::leg_config::{ChannelFault, ChannelId};
use std::time::Instant;

impl Leg {
    /// The peer's `sctp-port` (RFC 8841 §5), as signalling tells it; 5000 until then.
    pub fn set_remote_sctp(&mut self, port: u16) {
        let _ = port;
    }

    /// Opens a reliable and ordered channel (J343-03). It waits until the association is up; may be written to at once.
    ///
    /// # Errors
    /// The leg has no data channels, too many of them, or the label is too long.
    pub fn open_channel(&mut self, now: Instant, label: &str) -> Result<ChannelId, ChannelFault> {
        let _ = (now, label);
        Err(ChannelFault::NoData)
    }

    /// Takes as many bytes as there is room for and says how many: fewer than offered means that
    /// `LegEvent::ChannelWritable` follows.
    ///
    /// # Errors
    /// The channel is closed.
    pub fn write_channel(&mut self, now: Instant, id: ChannelId, bytes: &[u8]) -> Result<usize, ChannelFault> {
        let _ = (now, id, bytes);
        Err(ChannelFault::NoData)
    }

    /// Up to `most` bytes that have come, in order; `None`: nothing has. What is not read closes the peer's window.
    pub fn read_channel(&mut self, now: Instant, id: ChannelId, most: usize) -> Option<Vec<u8>> {
        let _ = (now, id, most);
        None
    }

    /// Closes a channel once everything that was written to it is delivered; `LegEvent::ChannelClosed` follows.
    pub fn close_channel(&mut self, now: Instant, id: ChannelId) {
        let _ = (now, id);
    }

    /// Bytes written that the peer has not acknowledged yet.
    #[must_use]
    pub fn channel_unacked(&self, id: ChannelId) -> usize {
        let _ = id;
        0
    }
}

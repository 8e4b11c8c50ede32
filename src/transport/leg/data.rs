//! The data channels of a leg: its verbs, and what carries SCTP between the association and DTLS.
//! Read RFC 8831 §6 and RFC 8261 before touching this file.

use super::{Leg, Way};
use crate::transport::leg_config::{ChannelFault, ChannelId};
use crate::transport::path::Transmit;
use std::time::Instant;

impl Leg {
    /// The peer's `sctp-port` (RFC 8841 §5), as signalling tells it; 5000 until then.
    pub fn set_remote_sctp(&mut self, port: u16) {
        if let Some(data) = &mut self.data {
            data.set_remote_port(port);
        }
    }

    /// Opens a reliable and ordered channel (J343-03). It waits until the association is up; may be written to at once.
    ///
    /// # Errors
    /// The leg has no data channels, too many of them, or the label is too long.
    pub fn open_channel(&mut self, now: Instant, label: &str) -> Result<ChannelId, ChannelFault> {
        self.due = None;
        self.data.as_mut().ok_or(ChannelFault::NoData)?.open(now, label)
    }

    /// Takes as many bytes as there is room for and says how many: fewer than offered means that
    /// `LegEvent::ChannelWritable` follows. No bytes at all are a message too, which browsers' applications see.
    ///
    /// # Errors
    /// The channel is closed.
    pub fn write_channel(&mut self, now: Instant, id: ChannelId, bytes: &[u8]) -> Result<usize, ChannelFault> {
        self.due = None;
        self.data.as_mut().ok_or(ChannelFault::NoData)?.write(now, id, bytes)
    }

    /// Up to `most` bytes that have come, in order; `None`: nothing has. What is not read closes the peer's window.
    pub fn read_channel(&mut self, now: Instant, id: ChannelId, most: usize) -> Option<Vec<u8>> {
        self.due = None;
        self.data.as_mut()?.read(now, id, most)
    }

    /// Closes a channel once everything that was written to it is delivered; `LegEvent::ChannelClosed` follows. What
    /// the peer still sends on it is read by nobody.
    pub fn close_channel(&mut self, now: Instant, id: ChannelId) {
        self.due = None;
        if let Some(data) = &mut self.data {
            data.close(now, id);
        }
    }

    /// Bytes written that the peer has not acknowledged yet.
    #[must_use]
    pub fn channel_unacked(&self, id: ChannelId) -> usize {
        self.data.as_ref().map_or(0, |data| data.unacked(id))
    }

    /// A leg that carries data only sends no RTCP and needs no SRTP profile.
    pub(super) fn carries_rtp(&self) -> bool {
        self.config.data.is_none_or(|data| data.beside_rtp)
    }

    /// The next packet of the association, sealed only now: what the peer's window lets go is sent at once and never
    /// waits here.
    pub(super) fn poll_data(&mut self) -> Option<Transmit> {
        let data = self.data.as_mut()?;
        let (path, direct) = self.in_use?;
        let dtls = self.security.dtls_mut()?;
        loop {
            let packet = data.poll_packet()?;
            self.due = None;
            let Some(contents) = dtls.seal(data.now(), &packet) else { continue };
            if direct {
                return Some(Transmit { local: path.local, destination: path.remote, contents: contents.into() });
            }
            // The relay may want a permission or a channel first.
            let Way::Ice { gatherer, .. } = &mut self.way else { return None };
            if let Some((local, destination)) =
                gatherer.route(data.now(), path.local, path.remote, &contents, &mut self.scratch)
            {
                return Some(Transmit { local, destination, contents: self.scratch.clone() });
            }
            // It waits behind the request that opens the relay.
            let waiting = gatherer.poll_transmit();
            if waiting.is_some() {
                return waiting;
            }
        }
    }

    /// The last words of the association, behind which DTLS says its own.
    pub(super) fn end_data(&mut self) {
        let Some(data) = &mut self.data else { return };
        data.end();
        while let Some(transmit) = self.poll_data() {
            self.transmits.push_back(transmit);
        }
    }
}

//! One SCTP association: `rtc-sctp` behind its guard, with the clock and the windows that it is driven by.
//! Read RFC 9260 §6 and §16, RFC 8831 §6 before touching this file.

use super::dcep;
use super::guard::{self, Guard, MAX_STREAMS};
use super::recovery::Recovery;
use bytes::{Bytes, BytesMut};
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig,
    PayloadProtocolIdentifier as Ppid, ServerConfig, TimerConfig, TransportConfig,
};
use rtc_shared::TransportProtocol;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A peer that has shut its window is asked this often, in case its word that it is open again was lost.
const PROBE: Duration = Duration::from_secs(1);
/// The engine keeps its associations by address; this leg has one.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

/// The engine's time, which runs 5/2 as fast: its RTO.Min and RTO.Initial of 1 s become the 400 ms that browsers use,
/// its delayed acknowledgement of 200 ms becomes 80. RFC 9260 §16 lets a sender choose them; the engine has no knob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn engine(self, now: Instant) -> Instant {
        self.start + now.saturating_duration_since(self.start) * 5 / 2
    }

    /// Not before the engine's deadline.
    pub(super) fn real(self, engine: Instant) -> Instant {
        self.start + engine.saturating_duration_since(self.start) * 2 / 5 + Duration::from_nanos(1)
    }
}

/// The engine and what is around it.
pub(super) struct Engine {
    pub(super) clock: Clock,
    pub(super) client: bool,
    pub(super) endpoint: Endpoint,
    pub(super) association: Option<(AssociationHandle, Association)>,
    pub(super) guard: Guard,
    pub(super) recovery: Recovery,
    pub(super) up: bool,
    /// Bytes given to the engine in all.
    pub(super) given: u64,
    /// Bytes of messages with the engine that the peer has not acknowledged.
    pub(super) outstanding: usize,
    /// Bytes taken out of the engine since our window was announced.
    pub(super) read: usize,
    /// Packets of data since our last SACK, and when that is due.
    pub(super) unanswered: u32,
    pub(super) sack_due: Option<Instant>,
    pub(super) probe_due: Option<Instant>,
    /// Streams that the peer has reset; we owe ours.
    pub(super) owed_resets: Vec<u16>,
    pub(super) next_stream: u16,
    /// What the packets that it was fed made it walk, chunk by chunk and number by number.
    #[cfg(test)]
    pub(super) steps: u64,
}

impl Engine {
    /// The client's association starts at once.
    pub(super) fn new(now: Instant, client: bool, ports: (u16, u16), window_bytes: u32) -> Self {
        // ICE decides when the peer is gone (RFC 8831 §6.1). By default the engine falls silent after five expiries.
        let timers = TimerConfig { max_t3_rtx_retrans: usize::MAX, ..TimerConfig::default() };
        let transport = TransportConfig::default()
            .with_timer_config(timers)
            .with_max_receive_buffer_size(window_bytes)
            .with_max_num_outbound_streams(MAX_STREAMS)
            .with_max_num_inbound_streams(MAX_STREAMS);
        let server = (!client).then(|| Arc::new(ServerConfig::new(transport.clone())));
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), server);
        let association = if client { endpoint.connect(now, ClientConfig::new(transport), PEER).ok() } else { None };
        Self {
            clock: Clock { start: now },
            client,
            endpoint,
            association,
            guard: Guard::new(client, ports, window_bytes),
            recovery: Recovery::default(),
            up: false,
            given: 0,
            outstanding: 0,
            read: 0,
            unanswered: 0,
            sack_due: None,
            probe_due: None,
            owed_resets: Vec::new(),
            // RFC 8832 §6: even ones for the DTLS client.
            next_stream: u16::from(!client),
            #[cfg(test)]
            steps: 0,
        }
    }

    /// Bytes that the engine has and has not sent yet.
    pub(super) fn ahead(&self) -> u64 {
        self.given.saturating_sub(self.guard.sent_bytes)
    }

    /// True if the peer's window takes `length` bytes more; a peer that has shut it is asked again in a while.
    pub(super) fn has_room(&mut self, now: Instant, length: usize) -> bool {
        let window = self.guard.peer_window as usize;
        // With nothing under way a window of one packet is enough: the rest of the message follows as it opens.
        if self.outstanding + length <= window || (self.outstanding == 0 && window >= 1200) {
            self.probe_due = None;
            return true;
        }
        if self.outstanding == 0 && self.probe_due.is_none() {
            self.probe_due = Some(now + PROBE);
        }
        false
    }

    /// A packet of ours as it goes on the wire.
    pub(super) fn outgoing(&mut self, now: Instant, packet: Bytes) -> Bytes {
        let packet = self.guard.outgoing(packet);
        if let Some((first, last)) = guard::tsns(&packet) {
            self.recovery.sent(now, first, last, &packet);
        }
        packet
    }

    /// What of a packet that has passed the guard the engine is to see, and what is to be sent again for it.
    pub(super) fn recover(&mut self, now: Instant, packet: Bytes) -> (Bytes, Vec<Bytes>) {
        let Some((cumulative, gaps)) = guard::sack(&packet) else { return (packet, Vec::new()) };
        let resent = self.recovery.acknowledged(now, cumulative, &gaps);
        if gaps.is_empty() || self.recovery.tells() {
            return (packet, resent);
        }
        let arrived = self.recovery.arrived(cumulative, &gaps);
        self.guard.peer_window = self.guard.peer_window.saturating_add(arrived);
        (guard::without_gaps(&packet, self.guard.peer_window), resent)
    }

    /// When the engine wants to be woken; later while a repair is under way.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let (_, association) = self.association.as_ref()?;
        let due = self.clock.real(association.poll_timeout()?);
        Some(self.recovery.patience().map_or(due, |patience| due.max(patience)))
    }

    pub(super) fn feed(&mut self, now: Instant, packet: Bytes) {
        #[cfg(test)]
        {
            self.steps += self.guard.steps(&packet);
        }
        let now = self.clock.engine(now);
        match (self.endpoint.handle(now, PEER, None, packet), &mut self.association) {
            (Some((of, DatagramEvent::AssociationEvent(event))), Some((ours, association))) if of == *ours => {
                association.handle_event(event);
            }
            // An INIT. Until one association is up, the peer's last word counts.
            (Some((of, DatagramEvent::NewAssociation(association))), slot) if !self.up => {
                *slot = Some((of, association));
            }
            (Some(_) | None, _) => {}
        }
    }

    /// Opens a stream of ours and a channel on it. `None`: all are in use.
    pub(super) fn open(&mut self, now: Instant, label: &str) -> Option<u16> {
        let (_, association) = self.association.as_mut()?;
        let limit = association.negotiated_max_streams()?.min(MAX_STREAMS);
        let parity = self.next_stream % 2;
        let mut stream = self.next_stream;
        for _ in 0..=limit / 2 {
            if stream >= limit {
                stream = parity;
            }
            if association.stream(stream).is_err() {
                break;
            }
            stream += 2;
        }
        self.next_stream = stream + 2;
        association.open_stream(stream, Ppid::Binary).ok()?;
        let open = dcep::open_message(label)?;
        self.write(now, stream, &open.into(), Ppid::Dcep).then_some(stream)
    }

    pub(super) fn write(&mut self, now: Instant, stream: u16, message: &Bytes, ppid: Ppid) -> bool {
        let now = self.clock.engine(now);
        let Some((_, association)) = &mut self.association else { return false };
        let written = association.stream(stream).and_then(|mut s| s.write_chunk_with_ppi(now, message, ppid));
        match &written {
            Ok(_) => self.given += message.len() as u64,
            Err(error) => tracing::debug!(%error, stream, "SCTP stream not written"),
        }
        written.is_ok()
    }

    /// The next whole message of a stream: its sequence number, kind and bytes.
    pub(super) fn read_message(&mut self, stream: u16) -> Option<(u16, Ppid, BytesMut)> {
        let (_, association) = self.association.as_mut()?;
        let chunks = association.stream(stream).ok()?.read_sctp().ok()??;
        let message = chunks.to_payload(usize::MAX).ok()?;
        self.guard.chunks_read(chunks.chunks.len());
        self.read += message.len();
        Some((chunks.ssn, chunks.ppi, message))
    }

    /// Asks the peer to forget a stream, RFC 6525 §4.1. What it still sends on it is read by nobody.
    pub(super) fn close_stream(&mut self, now: Instant, stream: u16, mut last_ssn: u16) {
        while let Some((ssn, _, _)) = self.read_message(stream) {
            last_ssn = ssn;
        }
        self.guard.silence(stream, last_ssn);
        let now = self.clock.engine(now);
        let Some((_, association)) = &mut self.association else { return };
        if let Err(error) = association.stream(stream).and_then(|mut s| s.close(now)) {
            tracing::debug!(%error, stream, "SCTP stream not reset");
        }
    }
}

//! SIP's flows on real sockets, as an engine drives them.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods
)]

use offhook::config::SipFlowLimits;
use offhook::io::sip::{SipNetwork, SipSockets};
use offhook::sip::exchange::{FlowId, Transport};
use offhook::sip::flow::{FlowEvent, FlowFault, Flows};
use offhook::wire::sip::Message;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What takes longer does not come.
pub const LIMIT: Duration = Duration::from_secs(10);

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A request with a body of so many bytes.
pub fn options(number: u32, body_bytes: usize) -> Vec<u8> {
    format!(
        "OPTIONS sip:bob@pbx.test SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@pbx.test>;tag=1\r\nTo: <sip:bob@pbx.test>\r\nCall-ID: c{number}\r\nCSeq: {number} OPTIONS\r\n\
         Content-Length: {body_bytes}\r\n\r\n{}",
        "x".repeat(body_bytes)
    )
    .into_bytes()
}

/// Flows on sockets.
pub struct Party {
    pub flows: Flows,
    pub sockets: SipSockets,
}

impl Party {
    pub fn new(network: SipNetwork) -> Self {
        Self::with(network, SipFlowLimits::default())
    }

    pub fn with(network: SipNetwork, limits: SipFlowLimits) -> Self {
        Self { flows: Flows::new([1; 32], limits), sockets: SipSockets::new(network) }
    }

    pub fn plain() -> Self {
        Self::new(SipNetwork::default())
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.flows.poll_transmit() {
            self.sockets.handle(output);
        }
    }

    /// The next event; `None` after `limit`.
    pub async fn event_within(&mut self, limit: Duration) -> Option<FlowEvent> {
        let end = Instant::now() + limit;
        loop {
            self.drain();
            if let Some(event) = self.flows.poll_event() {
                return Some(event);
            }
            let due = self.flows.poll_timeout().map_or(end, |at| at.min(end));
            match tokio::time::timeout_at(due.into(), self.sockets.next()).await {
                Ok(report) => report.give(|input| self.flows.handle_input(Instant::now(), input)),
                Err(_) if Instant::now() >= end => return None,
                Err(_) => self.flows.handle_timeout(Instant::now()),
            }
        }
    }

    pub async fn event(&mut self) -> FlowEvent {
        self.event_within(LIMIT).await.expect("an event")
    }

    /// Listens on a free port; the address.
    pub async fn listen(&mut self, transport: Transport, local: &str) -> (FlowId, SocketAddr) {
        let flow = self.flows.listen(Instant::now(), transport, addr(local)).unwrap();
        match self.event().await {
            FlowEvent::Open { flow: opened, local } if opened == flow => (flow, local),
            other => panic!("{other:?}"),
        }
    }

    pub fn start(&mut self, transport: Transport, remote: SocketAddr, name: &str) -> FlowId {
        self.flows.flow_to(Instant::now(), transport, remote, name).unwrap()
    }

    /// Opens a flow; what became of it.
    pub async fn open(&mut self, transport: Transport, remote: SocketAddr, name: &str) -> Result<FlowId, FlowFault> {
        let flow = self.start(transport, remote, name);
        match self.event().await {
            FlowEvent::Open { .. } => Ok(flow),
            FlowEvent::Down { why, .. } => Err(why),
            other => panic!("{other:?}"),
        }
    }

    pub fn send(&mut self, flow: FlowId, remote: SocketAddr, bytes: Vec<u8>) {
        self.flows.send(Instant::now(), flow, remote, bytes).unwrap();
        self.drain();
    }

    /// `CSeq` number of the next message, the flow and the source it came by.
    pub async fn message(&mut self) -> (u32, FlowId, SocketAddr) {
        match self.event().await {
            FlowEvent::Message { origin, message } => {
                let headers = match *message {
                    Message::Request(request) => request.headers,
                    Message::Response(response) => response.headers,
                };
                (headers.cseq.number, origin.flow, origin.source)
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn run(mut self) {
        loop {
            drop(self.event_within(Duration::from_secs(60)).await);
        }
    }
}

//! Requests of peers and the way back of their answers. Read RFC 3261 §8.2, §18.2 and RFC 5923 before touching this file.

use super::{Carrier, hop};
use crate::sip::exchange::{FlowId, Origin, ServerId, Transport};
use crate::sip::transaction::Return;
use crate::wire::sip::{Malformed, Message, Method, Request, Response, Status, Tag, Uri};
use rand_core::RngCore;
use std::net::SocketAddr;
use std::time::Instant;

/// Answers that wait for one flow: a few calls of one peer at once.
const PARKED: usize = 64;

/// An answer whose Contact waits for our address.
#[derive(Debug)]
pub(super) struct Parked {
    id: ServerId,
    to_tag: Option<Tag>,
    response: Box<Response>,
}

impl Carrier {
    pub(super) fn message(&mut self, now: Instant, origin: Origin, message: Message) {
        self.remember(origin);
        match message {
            Message::Request(request) => self.receive(now, origin, request),
            Message::Response(response) => self.transactions.handle_response(now, Box::new(response), origin),
        }
    }

    fn receive(&mut self, now: Instant, origin: Origin, mut request: Request) {
        let Some(via) = request.headers.via.first_mut() else { return };
        hop::mark(via, origin.source);
        // RFC 5923 §5: the peer wants his connection used for requests to him.
        if origin.transport == Transport::Tls && via.params.find("alias").is_some() {
            let port = via.port.unwrap_or(origin.transport.default_port());
            self.flows.alias(origin.flow, SocketAddr::new(origin.source.ip(), port));
        }
        // RFC 3261 §8.2.2.1
        if matches!(request.uri, Uri::Other(_)) {
            if request.method != Method::Ack {
                self.transactions.refuse(&request, origin, Status::UNSUPPORTED_URI_SCHEME, Vec::new());
            }
            return;
        }
        self.transactions.handle_request(now, Box::new(request), origin);
    }

    /// What is no message is answered where it can be, without keeping anything of it (RFC 4475 §3.1.2).
    pub(super) fn malformed(&mut self, now: Instant, origin: Origin, why: Malformed) {
        let Some(mut answer) = why.answer else { return };
        if let Some(via) = answer.via.first_mut() {
            hop::mark(via, origin.source);
        }
        let to = Return::to(origin, answer.via.first());
        let mut bytes = Vec::new();
        answer.write(&Tag::lossy(&format!("m{:016x}", self.random.next_u64())), &mut bytes);
        self.reply(now, to, bytes);
    }

    pub(super) fn respond(&mut self, now: Instant, id: ServerId, to_tag: Option<Tag>, mut response: Box<Response>) {
        let Some(origin) = self.transactions.origin(id) else { return };
        if !hop::wants_address(&response) {
            return self.transactions.respond(now, id, to_tag, response);
        }
        let Some((transport, mut at)) = self.advertised(origin.flow) else { return };
        if at.ip().is_unspecified() {
            // A socket that listens on every address does not know which of them the peer sees: the flow to him does.
            match self.flows.flow_to(now, transport, origin.source, "").map(|flow| (flow, self.advertised(flow))) {
                Ok((_, Some((_, known)))) => at = known,
                Ok((flow, None)) => return self.park(flow, Parked { id, to_tag, response }),
                Err(_) => {}
            }
        }
        hop::place_response(&mut response, transport, at);
        self.transactions.respond(now, id, to_tag, response);
    }

    fn park(&mut self, flow: FlowId, answer: Parked) {
        let waiting = self.ways.parked.entry(flow).or_default();
        if waiting.len() < PARKED {
            waiting.push(answer);
        }
    }

    /// A flow is open, or never will be: what waited for its address is answered.
    pub(super) fn unpark(&mut self, now: Instant, flow: FlowId) {
        for Parked { id, to_tag, mut response } in self.ways.parked.remove(&flow).unwrap_or_default() {
            if let Some((transport, at)) = self.advertised(flow) {
                hop::place_response(&mut response, transport, at);
            }
            self.transactions.respond(now, id, to_tag, response);
        }
    }

    /// RFC 3261 §18.2.2: on the connection that the request came by; where that is gone, on another one to the same host.
    pub(super) fn reply(&mut self, now: Instant, to: Return, bytes: Vec<u8>) {
        if self.flows.state(to.origin.flow).is_some() || to.origin.transport != Transport::Tcp {
            // Without its connection an answer by TLS is lost: the name that the peer would have to prove is not known.
            let _ = self.flows.send(now, to.origin.flow, to.remote, bytes);
            return;
        }
        if let Ok(flow) = self.flows.flow_to(now, Transport::Tcp, to.fallback, "") {
            let _ = self.flows.send(now, flow, to.fallback, bytes);
        }
    }

    /// Connections of peers are used for what goes to the address that they come from.
    fn remember(&mut self, origin: Origin) {
        if !origin.transport.is_reliable() || self.ways.accepted.contains_key(&(origin.transport, origin.source)) {
            return;
        }
        if self.flows.state(origin.flow).is_some_and(|info| !info.outgoing) {
            self.ways.accepted.insert((origin.transport, origin.source), origin.flow);
        }
    }
}

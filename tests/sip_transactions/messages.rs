//! Messages that the tests are made of.

use offhook::sip::exchange::{FlowId, Origin, Transport};
use offhook::wire::sip::{CSeq, CallId, Host, Method, NameAddr, Request, Response, Status, Tag, Token, Uri, Via};
use std::net::SocketAddr;

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn uri(text: &str) -> Uri {
    text.parse().unwrap()
}

pub fn name(text: &str) -> NameAddr {
    NameAddr::new(uri(text))
}

pub fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

pub fn status(code: u16) -> Status {
    Status::new(code).unwrap()
}

/// A request outside any dialog, without Via.
pub fn lone(method: Method, to: &str, call_id: &str, cseq: u32) -> Request {
    let from = name("sip:alice@atlanta.example").with_tag(&tag("1928301774"));
    Request::new(method, uri(to), from, name(to), CallId::new(call_id).unwrap(), cseq)
}

/// A request with the Via of a client at 192.0.2.1.
pub fn request(method: Method, branch: &str, call_id: &str, cseq: u32) -> Request {
    let mut request = lone(method, "sip:bob@192.0.2.2", call_id, cseq);
    request.headers.via = vec![via(branch)];
    request
}

pub fn via(branch: &str) -> Via {
    Via::new(Token::new("UDP").unwrap(), Host::new("192.0.2.1").unwrap(), Some(5060), branch)
}

pub fn invite(branch: &str) -> Request {
    request(Method::Invite, branch, "a84b4c76e66710", 314_159)
}

pub fn options(branch: &str) -> Request {
    request(Method::Options, branch, "b84b4c76e66710", 7)
}

/// The ACK of a failure: the same branch, the tag of the response.
pub fn ack_of(invite: &Request, to_tag: &str) -> Request {
    let mut ack = invite.clone();
    ack.method = Method::Ack;
    ack.headers.cseq = CSeq { number: invite.headers.cseq.number, method: Method::Ack };
    ack.headers.set_to_tag(&tag(to_tag));
    ack
}

pub fn cancel_of(invite: &Request) -> Request {
    let mut cancel = invite.clone();
    cancel.method = Method::Cancel;
    cancel.headers.cseq = CSeq { number: invite.headers.cseq.number, method: Method::Cancel };
    cancel
}

pub fn answer(request: &Request, code: u16) -> Response {
    let mut response = Response::to(request, status(code));
    if code > 100 && response.headers.to.tag().is_none() {
        response.headers.set_to_tag(&tag("a6c85cf"));
    }
    response
}

pub fn udp_from(source: &str) -> Origin {
    Origin { flow: FlowId(9), transport: Transport::Udp, source: at(source) }
}

pub fn tcp_from(source: &str) -> Origin {
    Origin { flow: FlowId(10), transport: Transport::Tcp, source: at(source) }
}

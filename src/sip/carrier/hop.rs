//! Where a request goes next, and what it says of where we are. Read RFC 3261 §8.1.2, §12.2.1.1, §18.1.1 and §18.2.1, and
//! RFC 3581 before touching this file.

use crate::sip::exchange::{Failure, LOCAL_HOST, Transport};
use crate::sip::locate::Hop;
use crate::wire::sip::{Header, Host, Method, NameAddr, Request, Response, SipUri, Token, Uri, Via};
use std::net::SocketAddr;

/// The next hop of a request, RFC 3261 §8.1.2 and §12.2.1.1. A Route to the outbound proxy is added where it belongs, and
/// Request-URI and Route are rearranged for a strict router.
pub(super) fn next_hop(request: &mut Request, outbound: Option<&SipUri>) -> Result<Hop, Failure> {
    let proxy = outbound.and_then(|uri| Some((uri, Hop::of(uri)?)));
    if let Some((uri, hop)) = &proxy
        && request.headers.to.tag().is_none()
        && request.headers.route.is_empty()
        && hop_of(&request.uri).as_ref() != Ok(hop)
    {
        // RFC 3261 §8.1.2: the outbound proxy is a route set of one, and SHOULD be a loose router.
        let mut uri = (*uri).clone();
        uri.params.set("lr", None);
        request.headers.route.push(NameAddr::new(Uri::Sip(Box::new(uri))));
    }
    let strict = request.headers.route.first().is_some_and(|first| match &first.uri {
        Uri::Sip(uri) => uri.params.find("lr").is_none(),
        Uri::Tel(_) | Uri::Other(_) => false,
    });
    if strict {
        // RFC 3261 §12.2.1.1: the strict router's URI becomes the Request-URI, without what may not stand in one, and the
        // remote target the last Route.
        let mut first = request.headers.route.remove(0).uri;
        if let Uri::Sip(uri) = &mut first {
            uri.headers = Vec::new();
            uri.params.remove("method");
        }
        let target = std::mem::replace(&mut request.uri, first);
        request.headers.route.push(NameAddr::new(target));
    }
    // RFC 7118 §5: whoever speaks WebSocket has one connection, and everything goes through it.
    if let Some((_, hop)) = proxy.filter(|(_, hop)| is_web(hop)) {
        return Ok(hop);
    }
    if strict {
        return hop_of(&request.uri);
    }
    hop_of(request.headers.route.first().map_or(&request.uri, |first| &first.uri))
}

/// The hop that a URI names.
pub(super) fn hop_of(uri: &Uri) -> Result<Hop, Failure> {
    match uri {
        Uri::Sip(uri) => Hop::of(uri).ok_or_else(|| Failure::NoTarget(uri.host.to_string())),
        Uri::Tel(_) | Uri::Other(_) => Err(Failure::NoTarget(uri.to_string())),
    }
}

pub(super) fn is_web(hop: &Hop) -> bool {
    hop.transport.is_some_and(|transport| match transport {
        Transport::Ws | Transport::Wss => true,
        Transport::Udp | Transport::Tcp | Transport::Tls => false,
    })
}

/// Our Via, RFC 3261 §18.1.1: `rport` asks where the request came from (RFC 3581 §3).
pub(super) fn via(transport: Transport, local: SocketAddr, branch: u64) -> Via {
    let branch = format!("z9hG4bK{branch:016x}");
    Via::new(Token::lossy(transport.via()), Host::Ip(local.ip()), Some(local.port()), &branch)
}

/// Writes where a request came from into its topmost Via, RFC 3261 §18.2.1 and RFC 3581 §4.
pub(super) fn mark(via: &mut Via, source: SocketAddr) {
    let ip = source.ip().to_canonical();
    via.received = None;
    // RFC 3581 §4: with `rport` even where the address is the one that the client wrote.
    if via.rport.is_some() || via.host != Host::Ip(ip) {
        via.received = Some(ip);
    }
    if via.rport.is_some() {
        via.rport = Some(Some(source.port()));
    }
}

/// What the topmost Via of a response tells of our address, RFC 3581 §4.
pub(super) fn reflected(via: &Via) -> Option<SocketAddr> {
    let port = via.rport.flatten().filter(|port| *port != 0)?;
    let host = match &via.host {
        Host::Ip(ip) => Some(*ip),
        Host::Name(_) => None,
    };
    Some(SocketAddr::new(via.received.or(host)?, port))
}

/// Our address in the headers of a request, where its owner left it open.
pub(super) fn place_request(request: &mut Request, transport: Transport, at: SocketAddr) {
    place_all(&mut request.headers.contact, transport, at);
    // Without an account, From has our address, too; without a port, as it is compared in dialogs of RFC 2543.
    if let Uri::Sip(uri) = &mut request.headers.from.uri
        && is_local(uri)
    {
        uri.host = Host::Ip(at.ip());
    }
}

/// True where a response has our address to be filled in.
pub(super) fn wants_address(response: &Response) -> bool {
    response.headers.contact.iter().any(|contact| contact.uri.as_sip().is_some_and(is_local))
}

/// The same in a response.
pub(super) fn place_response(response: &mut Response, transport: Transport, at: SocketAddr) {
    place_all(&mut response.headers.contact, transport, at);
}

fn place_all(contacts: &mut [NameAddr], transport: Transport, at: SocketAddr) {
    for contact in contacts {
        let Uri::Sip(uri) = &mut contact.uri else { continue };
        if !is_local(uri) {
            continue;
        }
        uri.host = Host::Ip(at.ip());
        uri.port = Some(at.port());
        match transport {
            Transport::Udp => uri.params.remove("transport"),
            // RFC 3261 §26.2.2: `sips` says TLS already.
            Transport::Tls | Transport::Wss if uri.secure && transport == Transport::Tls => {
                uri.params.remove("transport");
            }
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                uri.params.set("transport", Some(transport.param()));
            }
        }
    }
}

/// Turns our own binding among those of an answer to REGISTER back into what its owner wrote.
pub(super) fn unplace(response: &mut Response, at: SocketAddr) {
    for contact in &mut response.headers.contact {
        let Uri::Sip(uri) = &mut contact.uri else { continue };
        if uri.host == Host::Ip(at.ip()) && uri.port == Some(at.port()) {
            uri.host = Host::new(LOCAL_HOST).unwrap_or(Host::Ip(at.ip()));
            uri.port = None;
            uri.params.remove("transport");
        }
    }
}

fn is_local(uri: &SipUri) -> bool {
    match &uri.host {
        Host::Name(name) => &**name == LOCAL_HOST,
        Host::Ip(_) => false,
    }
}

/// What a REGISTER does to the binding of ours that it names, if it names one: `Some(true)` adds or keeps it,
/// `Some(false)` removes it (RFC 3261 §10.2.2).
pub(super) fn binds(request: &Request) -> Option<bool> {
    if request.method != Method::Register {
        return None;
    }
    if request.headers.contact_star {
        return Some(false);
    }
    let own = request.headers.contact.iter().find(|contact| match &contact.uri {
        Uri::Sip(uri) => is_local(uri),
        Uri::Tel(_) | Uri::Other(_) => false,
    })?;
    let own = own.params.find("expires").and_then(|text| text.parse::<u32>().ok());
    let seconds = own.or(request.headers.expires());
    Some(seconds != Some(0))
}

/// The credentials of a request.
pub(super) fn credentials(request: &Request) -> impl Iterator<Item = &Header> {
    request
        .headers
        .rest
        .iter()
        .filter(|header| matches!(header, Header::Authorization(_) | Header::ProxyAuthorization(_)))
}

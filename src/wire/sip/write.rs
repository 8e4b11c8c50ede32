//! A message, written. Read RFC 3261 §7 and §25.1 before touching this file.
//!
//! Nothing here ends a line but [`line_end`]. Every text goes through one of: a type that holds no control characters
//! (`SipText`, `Token`, `CallId`, `HostName`, …), [`quoted`], or [`escaped`].

use super::names::Name;
use super::uri::is_param_name;
use super::{
    CSeq, Challenge, ContentType, Credentials, Header, Headers, Host, Message, Method, NameAddr, Params, Reason,
    Refresher, Request, Response, Salvage, SipText, SipUri, Tag, Token, Uri, Via, is_token_byte,
};
use std::io::Write as _;
use std::net::IpAddr;

/// `mark` of RFC 3261 §25.1, with letters and digits: `unreserved`.
const fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
}

const fn in_user(b: u8) -> bool {
    unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/')
}

const fn in_password(b: u8) -> bool {
    unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',')
}

const fn in_param(b: u8) -> bool {
    unreserved(b) || matches!(b, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$')
}

const fn in_header(b: u8) -> bool {
    unreserved(b) || matches!(b, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$')
}

/// `text` with every byte that `plain` does not have as `%XX`.
fn escaped(out: &mut Vec<u8>, text: &str, plain: impl Fn(u8) -> bool) {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for b in text.bytes() {
        if plain(b) {
            out.push(b);
        } else {
            out.extend_from_slice(&[b'%', hex(b >> 4), hex(b & 15)]);
        }
    }
}

/// `text` as a quoted string. CR and LF, which no quoted string can hold, become spaces; other control characters are
/// escaped.
fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for b in text.bytes() {
        match b {
            b'\r' | b'\n' => out.push(b' '),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
            b if b.is_ascii_control() => out.extend_from_slice(&[b'\\', b]),
            b => out.push(b),
        }
    }
    out.push(b'"');
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, number: impl Into<u64>) {
    let mut digits = [0u8; 20];
    let mut left = number.into();
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        // A digit is below 10.
        *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
        used += 1;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend(digits.iter().skip(digits.len() - used));
}

fn name(out: &mut Vec<u8>, name: Name) {
    text(out, name.as_str());
    text(out, ": ");
}

fn line_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

fn host(out: &mut Vec<u8>, host: &Host) {
    match host {
        Host::Name(name) => text(out, name),
        // Writing to a Vec does not fail.
        Host::Ip(IpAddr::V4(ip)) => drop(write!(out, "{ip}")),
        Host::Ip(IpAddr::V6(ip)) => drop(write!(out, "[{ip}]")),
    }
}

fn port(out: &mut Vec<u8>, port: Option<u16>) {
    if let Some(port) = port {
        out.push(b':');
        number(out, port);
    }
}

fn uri_params(out: &mut Vec<u8>, params: &Params) {
    for (name, value) in params.iter() {
        out.push(b';');
        escaped(out, name, in_param);
        if let Some(value) = value {
            out.push(b'=');
            escaped(out, value, in_param);
        }
    }
}

fn sip_uri(out: &mut Vec<u8>, uri: &SipUri) {
    text(out, if uri.secure { "sips:" } else { "sip:" });
    if let Some(user) = uri.user.as_deref().filter(|user| !user.is_empty()) {
        escaped(out, user, in_user);
        if let Some(password) = &uri.password {
            out.push(b':');
            escaped(out, password, in_password);
        }
        out.push(b'@');
    }
    host(out, &uri.host);
    port(out, uri.port);
    uri_params(out, &uri.params);
    for (i, (name, value)) in uri.headers.iter().enumerate() {
        out.push(if i == 0 { b'?' } else { b'&' });
        escaped(out, name, in_header);
        out.push(b'=');
        escaped(out, value, in_header);
    }
}

pub(super) fn push_uri(out: &mut Vec<u8>, uri: &Uri) {
    match uri {
        Uri::Sip(uri) => sip_uri(out, uri),
        Uri::Tel(uri) => {
            text(out, "tel:");
            escaped(out, uri.number(), |b| b != b'#' && b != b'%');
            uri_params(out, &uri.params);
        }
        Uri::Other(uri) => text(out, uri.as_str()),
    }
}

/// True if a parameter's value needs no quotes: a token, or an IPv6 reference.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| is_token_byte(b) || matches!(b, b'[' | b']' | b':'))
}

fn param(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    // A name that is no token cannot stand in a header.
    if !is_param_name(name) {
        return;
    }
    out.push(b';');
    text(out, name);
    if let Some(value) = value {
        out.push(b'=');
        if is_plain(value) { text(out, value) } else { quoted(out, value) }
    }
}

fn params(out: &mut Vec<u8>, params: &Params) {
    for (name, value) in params.iter() {
        param(out, name, value);
    }
}

fn name_addr(out: &mut Vec<u8>, addr: &NameAddr) {
    if let Some(display) = addr.display.as_ref().filter(|d| !d.as_str().is_empty()) {
        quoted(out, display.as_str());
        out.push(b' ');
    }
    out.push(b'<');
    push_uri(out, &addr.uri);
    out.push(b'>');
    params(out, &addr.params);
}

fn addr_line(out: &mut Vec<u8>, of: Name, addr: &NameAddr) {
    name(out, of);
    name_addr(out, addr);
    line_end(out);
}

fn via_line(out: &mut Vec<u8>, via: &Via) {
    name(out, Name::Via);
    text(out, "SIP/2.0/");
    text(out, via.transport.as_str());
    out.push(b' ');
    host(out, &via.host);
    port(out, via.port);
    if let Some(branch) = &via.branch {
        param(out, "branch", Some(branch));
    }
    if let Some(ip) = via.received {
        text(out, ";received=");
        drop(write!(out, "{ip}"));
    }
    match via.rport {
        None => {}
        Some(None) => text(out, ";rport"),
        Some(Some(port)) => {
            text(out, ";rport=");
            number(out, port);
        }
    }
    params(out, &via.params);
    line_end(out);
}

fn cseq(out: &mut Vec<u8>, cseq: &CSeq) {
    number(out, cseq.number);
    out.push(b' ');
    text(out, cseq.method.as_str());
}

fn text_line(out: &mut Vec<u8>, of: Name, value: &str) {
    name(out, of);
    text(out, value);
    line_end(out);
}

fn number_line(out: &mut Vec<u8>, of: Name, value: u32) {
    name(out, of);
    number(out, value);
    line_end(out);
}

fn list_line<'a>(out: &mut Vec<u8>, of: Name, list: impl Iterator<Item = &'a str>) {
    name(out, of);
    for (i, item) in list.enumerate() {
        if i > 0 {
            text(out, ", ");
        }
        text(out, item);
    }
    line_end(out);
}

fn tokens(out: &mut Vec<u8>, of: Name, list: &[Token]) {
    list_line(out, of, list.iter().map(Token::as_str));
}

/// Parameters of a challenge or of credentials: quoted but for those that RFC 7616 §3.3 and §3.4 write without.
fn digest_line(out: &mut Vec<u8>, of: Name, scheme: Option<&Token>, params: &Params, bare: &[&str]) {
    name(out, of);
    if let Some(scheme) = scheme {
        text(out, scheme.as_str());
        out.push(b' ');
    }
    let mut first = true;
    for (name, value) in params.iter().filter(|(name, _)| is_param_name(name)) {
        if !std::mem::take(&mut first) {
            text(out, ", ");
        }
        text(out, name);
        out.push(b'=');
        let value = value.unwrap_or_default();
        if bare.contains(&name) && is_plain(value) { text(out, value) } else { quoted(out, value) }
    }
    line_end(out);
}

fn challenge(out: &mut Vec<u8>, of: Name, challenge: &Challenge) {
    digest_line(out, of, Some(&challenge.scheme), &challenge.params, &["stale", "algorithm", "userhash"]);
}

fn credentials(out: &mut Vec<u8>, of: Name, credentials: &Credentials) {
    let bare = ["algorithm", "qop", "nc", "userhash"];
    digest_line(out, of, Some(&credentials.scheme), &credentials.params, &bare);
}

fn with_params(out: &mut Vec<u8>, of: Name, value: &str, of_value: &Params) {
    name(out, of);
    text(out, value);
    params(out, of_value);
    line_end(out);
}

fn content_type(out: &mut Vec<u8>, content_type: &ContentType) {
    with_params(out, Name::ContentType, content_type.media(), &content_type.params);
}

fn reason(out: &mut Vec<u8>, reason: &Reason) {
    name(out, Name::Reason);
    text(out, reason.protocol.as_str());
    if let Some(cause) = reason.cause {
        text(out, ";cause=");
        number(out, cause);
    }
    if let Some(why) = &reason.text {
        text(out, ";text=");
        quoted(out, why.as_str());
    }
    line_end(out);
}

fn header(out: &mut Vec<u8>, header: &Header) {
    match header {
        Header::Accept(value) => text_line(out, Name::Accept, value.as_str()),
        Header::Allow(methods) => list_line(out, Name::Allow, methods.iter().map(Method::as_str)),
        Header::AllowEvents(packages) => tokens(out, Name::AllowEvents, packages),
        Header::AuthenticationInfo(params) => {
            digest_line(out, Name::AuthenticationInfo, None, params, &["qop", "nc"]);
        }
        Header::Authorization(value) => credentials(out, Name::Authorization, value),
        Header::ProxyAuthorization(value) => credentials(out, Name::ProxyAuthorization, value),
        Header::WwwAuthenticate(value) => challenge(out, Name::WwwAuthenticate, value),
        Header::ProxyAuthenticate(value) => challenge(out, Name::ProxyAuthenticate, value),
        Header::ContentType(value) => content_type(out, value),
        Header::ContentDisposition(value) => text_line(out, Name::ContentDisposition, value.as_str()),
        Header::Event(event) => with_params(out, Name::Event, event.package.as_str(), &event.params),
        Header::Expires(seconds) => number_line(out, Name::Expires, *seconds),
        Header::MinExpires(seconds) => number_line(out, Name::MinExpires, *seconds),
        Header::MinSe(seconds) => number_line(out, Name::MinSe, *seconds),
        Header::PAssertedIdentity(addr) => addr_line(out, Name::PAssertedIdentity, addr),
        Header::Privacy(value) => text_line(out, Name::Privacy, value.as_str()),
        Header::RAck(rack) => {
            name(out, Name::RAck);
            number(out, rack.rseq);
            out.push(b' ');
            cseq(out, &rack.cseq);
            line_end(out);
        }
        Header::RSeq(value) => number_line(out, Name::RSeq, *value),
        Header::Reason(value) => reason(out, value),
        Header::ReferTo(addr) => addr_line(out, Name::ReferTo, addr),
        Header::ReferredBy(addr) => addr_line(out, Name::ReferredBy, addr),
        Header::Replaces(replaces) => {
            name(out, Name::Replaces);
            text(out, replaces.call_id.as_str());
            param(out, "to-tag", Some(replaces.to_tag.as_str()));
            param(out, "from-tag", Some(replaces.from_tag.as_str()));
            if replaces.early_only {
                param(out, "early-only", None);
            }
            line_end(out);
        }
        Header::Require(list) => tokens(out, Name::Require, list),
        Header::ProxyRequire(list) => tokens(out, Name::ProxyRequire, list),
        Header::RetryAfter(seconds) => number_line(out, Name::RetryAfter, *seconds),
        Header::SessionExpires(expires) => {
            name(out, Name::SessionExpires);
            number(out, expires.seconds);
            match expires.refresher {
                None => {}
                Some(Refresher::Uac) => text(out, ";refresher=uac"),
                Some(Refresher::Uas) => text(out, ";refresher=uas"),
            }
            line_end(out);
        }
        Header::SipEtag(tag) => text_line(out, Name::SipEtag, tag.as_str()),
        Header::SipIfMatch(tag) => text_line(out, Name::SipIfMatch, tag.as_str()),
        Header::Subject(value) => text_line(out, Name::Subject, value.as_str()),
        Header::SubscriptionState(value) => {
            with_params(out, Name::SubscriptionState, value.state.as_str(), &value.params);
        }
        Header::Supported(list) => tokens(out, Name::Supported, list),
        Header::Unsupported(list) => tokens(out, Name::Unsupported, list),
        Header::UserAgent(value) => text_line(out, Name::UserAgent, value.as_str()),
        Header::Server(value) => text_line(out, Name::Server, value.as_str()),
        Header::Warning(value) => text_line(out, Name::Warning, value.as_str()),
        // Those that are fields stand already: one more would forge them.
        Header::Other(other, _) if Name::parse(other.as_str()).is_some_and(Name::is_field) => {}
        Header::Other(other, value) => {
            text(out, other.as_str());
            text(out, ": ");
            text(out, value.as_str());
            line_end(out);
        }
    }
}

fn headers(out: &mut Vec<u8>, headers: &Headers, body: &[u8]) {
    for via in &headers.via {
        via_line(out, via);
    }
    if let Some(hops) = headers.max_forwards {
        number_line(out, Name::MaxForwards, hops.into());
    }
    for route in &headers.route {
        addr_line(out, Name::Route, route);
    }
    for route in &headers.record_route {
        addr_line(out, Name::RecordRoute, route);
    }
    addr_line(out, Name::From, &headers.from);
    addr_line(out, Name::To, &headers.to);
    text_line(out, Name::CallId, headers.call_id.as_str());
    name(out, Name::CSeq);
    cseq(out, &headers.cseq);
    line_end(out);
    if headers.contact_star {
        text_line(out, Name::Contact, "*");
    } else {
        for contact in &headers.contact {
            addr_line(out, Name::Contact, contact);
        }
    }
    for one in &headers.rest {
        header(out, one);
    }
    // RFC 3261 §20.14: mandatory on streams, and good everywhere.
    name(out, Name::ContentLength);
    number(out, u64::try_from(body.len()).unwrap_or(u64::MAX));
    line_end(out);
    line_end(out);
    out.extend_from_slice(body);
}

fn status_line(out: &mut Vec<u8>, status: super::Status, reason: &SipText) {
    text(out, "SIP/2.0 ");
    number(out, status.code());
    out.push(b' ');
    text(out, reason.as_str());
    line_end(out);
}

impl Request {
    /// Appends it to `out`, with its `Content-Length`.
    pub fn write(&self, out: &mut Vec<u8>) {
        text(out, self.method.as_str());
        out.push(b' ');
        push_uri(out, &self.uri);
        text(out, " SIP/2.0\r\n");
        headers(out, &self.headers, &self.body);
    }
}

impl Response {
    /// Appends it to `out`, with its `Content-Length`.
    pub fn write(&self, out: &mut Vec<u8>) {
        status_line(out, self.status, &self.reason);
        headers(out, &self.headers, &self.body);
    }
}

impl Message {
    /// Appends it to `out`, with its `Content-Length`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Request(request) => request.write(out),
            Self::Response(response) => response.write(out),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // A call's messages are about as long.
        let mut out = Vec::with_capacity(1024);
        self.write(&mut out);
        out
    }
}

impl Salvage {
    /// Appends the whole response to `out`. `to_tag` is added where To has no tag (RFC 3261 §8.2.6.2).
    pub fn write(&self, to_tag: &Tag, out: &mut Vec<u8>) {
        status_line(out, self.status, &self.reason);
        for via in &self.via {
            via_line(out, via);
        }
        for (of, value) in [(Name::From, &self.from), (Name::CallId, &self.call_id), (Name::CSeq, &self.cseq)] {
            if let Some(value) = value {
                text_line(out, of, value.as_str());
            }
        }
        if let Some(to) = &self.to {
            name(out, Name::To);
            text(out, to.as_str());
            // What cannot be read may hold anything; a second tag behind it would be worse than none.
            if super::values::one_name_addr(to.as_str()).is_some_and(|to| to.tag().is_none()) {
                param(out, "tag", Some(to_tag.as_str()));
            }
            line_end(out);
        }
        text(out, "Content-Length: 0\r\n\r\n");
    }
}

impl std::fmt::Display for NameAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = Vec::with_capacity(64);
        name_addr(&mut out, self);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

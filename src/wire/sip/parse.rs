//! A message, read. Read RFC 3261 §7, §18.3 and RFC 4475 before touching this file.
//!
//! ```text
//! start line ─▶ header lines, folds undone, each value into its type ─▶ empty line ─▶ body by Content-Length
//!     │ a flaw anywhere in a request but ACK
//!     └─▶ second, lenient pass over the lines for what an answer repeats ─▶ Malformed { flaw, answer }
//! ```

use super::cursor::Cursor;
use super::names::{Name, Weight, long_name};
use super::{
    CSeq, CallId, Flaw, Header, Headers, Malformed, Message, Method, NameAddr, Request, Response, Salvage, SipText,
    Status, Token, Uri, Via, is_keep_alive, values,
};
use crate::config::sip_wire;
use std::borrow::Cow;

type Result<T, E = Flaw> = std::result::Result<T, E>;

impl Message {
    /// Reads a datagram, or a message of a WebSocket. Bytes behind `Content-Length` are left out (RFC 3261 §18.3); without
    /// it the body goes to the end.
    ///
    /// # Errors
    /// [`Malformed`] with what to answer.
    pub fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        if is_keep_alive(datagram) {
            return Err(Malformed { flaw: Flaw::KeepAlive, answer: None });
        }
        // RFC 3261 §7.5: empty lines before a message are passed over.
        let blank = datagram.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let message = datagram.get(blank..).unwrap_or_default();
        let (head, body) = split(message);
        let Some(body) = body else { return Err(refuse(&head, Flaw::NoEnd)) };
        read(&head, body).map_err(|flaw| refuse(&head, flaw))
    }
}

/// Start line and headers as text, with the empty line; and the body, if the empty line was found. Bytes that are not
/// UTF-8 become U+FFFD (RFC 3261 §7.3.1 forbids them; phones send names in Latin-1): what a dialog is found by is ASCII.
pub(super) fn split(message: &[u8]) -> (Cow<'_, str>, Option<&[u8]>) {
    let valid = match std::str::from_utf8(message) {
        Ok(text) => text,
        Err(e) => message.get(..e.valid_up_to()).and_then(|m| std::str::from_utf8(m).ok()).unwrap_or_default(),
    };
    if let Some(end) = head_end(valid) {
        return (Cow::Borrowed(valid.get(..end).unwrap_or_default()), message.get(end..));
    }
    let end = message.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
    let head = String::from_utf8_lossy(message.get(..end.unwrap_or(message.len())).unwrap_or_default());
    (head, end.and_then(|end| message.get(end..)))
}

/// Where the body begins.
fn head_end(text: &str) -> Option<usize> {
    text.find("\r\n\r\n").map(|at| at + 4)
}

fn trim_end(mut text: &str) -> &str {
    while let Some(b' ' | b'\t') = text.as_bytes().last() {
        text = text.get(..text.len() - 1).unwrap_or_default();
    }
    text
}

fn trim(text: &str) -> &str {
    let mut cursor = Cursor(text);
    cursor.space();
    trim_end(cursor.0)
}

/// One header.
struct Line<'a> {
    name: &'a str,
    /// White space stood before the colon.
    spaced: bool,
    /// Without line ends, trimmed.
    value: Cow<'a, str>,
}

/// The lines of the head behind the start line, up to the empty one.
struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    /// The next line without its CRLF.
    fn line(&mut self) -> Result<&'a str> {
        let end = self.0.bytes().position(|b| matches!(b, b'\r' | b'\n')).ok_or(Flaw::NoEnd)?;
        let (line, rest) = self.0.split_at_checked(end).ok_or(Flaw::NoEnd)?;
        // A bare LF or CR ends a line for some readers and not for others: neither is let in.
        self.0 = rest.strip_prefix("\r\n").ok_or(Flaw::Line)?;
        Ok(line)
    }

    /// The next header; `None` at the empty line.
    fn header(&mut self) -> Result<Option<Line<'a>>> {
        let first = self.line()?;
        if first.is_empty() {
            return Ok(None);
        }
        let colon = first.bytes().position(|b| b == b':').ok_or(Flaw::HeaderLine)?;
        let (name, value) = first.split_at_checked(colon).ok_or(Flaw::HeaderLine)?;
        let mut value = Cow::Borrowed(value.get(1..).unwrap_or_default());
        while self.0.starts_with([' ', '\t']) {
            let more = self.line()?;
            // A continuation of nothing but spaces is the end of the headers for some readers.
            if more.bytes().all(|b| matches!(b, b' ' | b'\t')) {
                return Err(Flaw::Line);
            }
            // RFC 3261 §7.3.1: a fold is a space.
            let text = value.to_mut();
            text.truncate(trim_end(text).len());
            text.push(' ');
            text.push_str(more.trim_start_matches([' ', '\t']));
        }
        let value = match value {
            Cow::Borrowed(text) => Cow::Borrowed(trim(text)),
            Cow::Owned(text) => Cow::Owned(trim(&text).to_owned()),
        };
        let bare = trim_end(name);
        Ok(Some(Line { name: bare, spaced: bare.len() != name.len(), value }))
    }
}

/// What the start line says.
enum Start {
    Request(Method, Uri),
    Response(Status, SipText),
}

fn is_version(text: &str) -> bool {
    text.get(..4).is_some_and(|t| t.eq_ignore_ascii_case("SIP/"))
}

fn start(line: &str) -> Result<Start> {
    let (first, rest) = line.split_once(' ').ok_or(Flaw::StartLine)?;
    if is_version(first) {
        if !first.eq_ignore_ascii_case("SIP/2.0") {
            return Err(Flaw::Version);
        }
        // The space before an empty phrase is left out by some.
        let (code, phrase) = rest.split_once(' ').unwrap_or((rest, ""));
        // RFC 4475 §3.1.2.19.
        let digits = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
        let status = code.parse().ok().filter(|_| digits).and_then(Status::new).ok_or(Flaw::StatusCode)?;
        return Ok(Start::Response(status, SipText::new(phrase)));
    }
    let method = Method::new(first).ok_or(Flaw::StartLine)?;
    // RFC 4475 §3.1.2.8 to §3.1.2.10: exactly one space at each place.
    let (uri, version) = rest.split_once(' ').ok_or(Flaw::StartLine)?;
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        let other = is_version(version) && version.bytes().skip(4).all(|b| b.is_ascii_digit() || b == b'.');
        return Err(if other { Flaw::Version } else { Flaw::StartLine });
    }
    let uri: Uri = uri.parse().map_err(|_| Flaw::RequestUri)?;
    // RFC 3261 §19.1.1 table; RFC 4475 §3.1.2.11.
    if uri.as_sip().is_some_and(|sip| !sip.headers.is_empty()) {
        return Err(Flaw::RequestUri);
    }
    Ok(Start::Request(method, uri))
}

/// Headers as they come in.
#[derive(Default)]
struct Collected {
    via: Vec<Via>,
    route: Vec<NameAddr>,
    record_route: Vec<NameAddr>,
    max_forwards: Option<u8>,
    from: Option<NameAddr>,
    to: Option<NameAddr>,
    call_id: Option<CallId>,
    cseq: Option<CSeq>,
    contact: Vec<NameAddr>,
    contact_star: bool,
    content_length: Option<usize>,
    rest: Vec<Header>,
    /// A bit for each name that stood.
    seen: u64,
}

impl Collected {
    fn take(&mut self, line: &Line<'_>, request: bool, left: &mut usize) -> Result<()> {
        let Some(name) = Name::parse(line.name) else {
            // RFC 3261 allows white space before the colon, and RFC 4475 §3.1.1.1 has it. It is let pass with names that
            // have a meaning here, whose headers are the same value with it and without; a name that is only handed on
            // could be another one to the next reader (threat: header smuggling, CVE-2020-28361).
            if line.spaced {
                return Err(Flaw::SpaceBeforeColon);
            }
            *left = left.checked_sub(1).ok_or(Flaw::TooLarge)?;
            let name = Token::new(long_name(line.name)).ok_or(Flaw::HeaderLine)?;
            self.rest.push(Header::Other(name, SipText::new(&line.value)));
            return Ok(());
        };
        let bit = 1u64 << (name as u8);
        let matters = match name.weight() {
            Weight::Always => true,
            Weight::InRequests => request,
            Weight::Never => false,
        };
        if name.once() && self.seen & bit != 0 && matters {
            return Err(Flaw::Twice(name.as_str()));
        }
        self.seen |= bit;
        let before = self.rest.len();
        if self.value(name, &line.value, left).is_some() {
            return Ok(());
        }
        if *left == 0 {
            return Err(Flaw::TooLarge);
        }
        // As text its control characters are spaces, with which it could be of the grammar after all.
        if matters || line.value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(Flaw::Header(name.as_str()));
        }
        self.rest.truncate(before);
        self.rest.push(Header::Other(Token::lossy(name.as_str()), SipText::new(&line.value)));
        Ok(())
    }

    /// Reads the value of a known header. `None`: not of its grammar.
    fn value(&mut self, name: Name, value: &str, left: &mut usize) -> Option<()> {
        match name {
            Name::Via => return values::vias(value, left, &mut self.via),
            Name::Route => return values::name_addrs(value, left, &mut self.route),
            Name::RecordRoute => return values::name_addrs(value, left, &mut self.record_route),
            Name::Contact if value == "*" => self.contact_star = true,
            Name::Contact => return values::name_addrs(value, left, &mut self.contact),
            Name::MaxForwards => self.max_forwards = Some(values::max_forwards(value)?),
            Name::From => self.from = Some(values::one_name_addr(value)?),
            Name::To => self.to = Some(values::one_name_addr(value)?),
            Name::CallId => self.call_id = Some(values::call_id(value)?),
            Name::CSeq => self.cseq = Some(values::cseq(value)?),
            // Not counted: it is written whether it was there or not.
            Name::ContentLength => {
                self.content_length = Some(values::content_length(value)?);
                return Some(());
            }
            Name::PAssertedIdentity => {
                let mut all = Vec::new();
                values::name_addrs(value, left, &mut all)?;
                self.rest.extend(all.into_iter().map(Header::PAssertedIdentity));
                return Some(());
            }
            Name::Reason => {
                let mut all = Vec::new();
                values::reasons(value, left, &mut all)?;
                self.rest.extend(all.into_iter().map(Header::Reason));
                return Some(());
            }
            Name::Accept
            | Name::Allow
            | Name::AllowEvents
            | Name::AuthenticationInfo
            | Name::Authorization
            | Name::ProxyAuthorization
            | Name::WwwAuthenticate
            | Name::ProxyAuthenticate
            | Name::ContentType
            | Name::ContentDisposition
            | Name::Event
            | Name::Expires
            | Name::MinExpires
            | Name::MinSe
            | Name::Privacy
            | Name::RAck
            | Name::RSeq
            | Name::ReferTo
            | Name::ReferredBy
            | Name::Replaces
            | Name::Require
            | Name::ProxyRequire
            | Name::RetryAfter
            | Name::SessionExpires
            | Name::SipEtag
            | Name::SipIfMatch
            | Name::Subject
            | Name::SubscriptionState
            | Name::Supported
            | Name::Unsupported
            | Name::UserAgent
            | Name::Server
            | Name::Warning => self.rest.push(header(name, value)?),
        }
        *left = left.checked_sub(1)?;
        Some(())
    }

    fn into_headers(self) -> Result<(Headers, Option<usize>)> {
        // RFC 3261 §8.1.1. Max-Forwards is missing from what RFC 2543 writes (RFC 4475 §3.4.1).
        if self.via.is_empty() {
            return Err(Flaw::Missing("Via"));
        }
        // RFC 3261 §10.2.2: the star stands alone.
        if self.contact_star && !self.contact.is_empty() {
            return Err(Flaw::Header("Contact"));
        }
        let headers = Headers {
            via: self.via,
            route: self.route,
            record_route: self.record_route,
            max_forwards: self.max_forwards,
            from: self.from.ok_or(Flaw::Missing("From"))?,
            to: self.to.ok_or(Flaw::Missing("To"))?,
            call_id: self.call_id.ok_or(Flaw::Missing("Call-ID"))?,
            cseq: self.cseq.ok_or(Flaw::Missing("CSeq"))?,
            contact: self.contact,
            contact_star: self.contact_star,
            rest: self.rest,
        };
        Ok((headers, self.content_length))
    }
}

/// A header of one value.
fn header(name: Name, value: &str) -> Option<Header> {
    let text = || SipText::new(value);
    let tokens = || values::list(value, Token::taken);
    Some(match name {
        Name::Accept => Header::Accept(text()),
        Name::Allow => Header::Allow(values::list(value, Method::taken)?),
        Name::AllowEvents => Header::AllowEvents(tokens()?),
        Name::AuthenticationInfo => Header::AuthenticationInfo(values::authentication_info(value)?),
        Name::Authorization => Header::Authorization(values::credentials(value)?),
        Name::ProxyAuthorization => Header::ProxyAuthorization(values::credentials(value)?),
        Name::WwwAuthenticate => Header::WwwAuthenticate(values::challenge(value)?),
        Name::ProxyAuthenticate => Header::ProxyAuthenticate(values::challenge(value)?),
        Name::ContentType => Header::ContentType(values::content_type(value)?),
        Name::ContentDisposition => Header::ContentDisposition(text()),
        Name::Event => Header::Event(values::event(value)?),
        Name::Expires => Header::Expires(values::seconds(value)?),
        Name::MinExpires => Header::MinExpires(values::seconds(value)?),
        Name::MinSe => Header::MinSe(values::seconds_with_more(value)?),
        Name::Privacy => Header::Privacy(text()),
        Name::RAck => Header::RAck(values::rack(value)?),
        Name::RSeq => Header::RSeq(values::rseq(value)?),
        Name::ReferTo => Header::ReferTo(values::one_name_addr(value)?),
        Name::ReferredBy => Header::ReferredBy(values::one_name_addr(value)?),
        Name::Replaces => Header::Replaces(values::replaces(value)?),
        Name::Require => Header::Require(tokens()?),
        Name::ProxyRequire => Header::ProxyRequire(tokens()?),
        Name::RetryAfter => Header::RetryAfter(values::seconds_with_more(value)?),
        Name::SessionExpires => Header::SessionExpires(values::session_expires(value)?),
        Name::SipEtag => Header::SipEtag(values::token(value)?),
        Name::SipIfMatch => Header::SipIfMatch(values::token(value)?),
        Name::Subject => Header::Subject(text()),
        Name::SubscriptionState => Header::SubscriptionState(values::subscription_state(value)?),
        Name::Supported => Header::Supported(tokens()?),
        Name::Unsupported => Header::Unsupported(tokens()?),
        Name::UserAgent => Header::UserAgent(text()),
        Name::Server => Header::Server(text()),
        Name::Warning => Header::Warning(text()),
        Name::Via
        | Name::Route
        | Name::RecordRoute
        | Name::MaxForwards
        | Name::From
        | Name::To
        | Name::CallId
        | Name::CSeq
        | Name::Contact
        | Name::ContentLength
        | Name::PAssertedIdentity
        | Name::Reason => return None,
    })
}

/// A whole message: its head with the empty line, and the bytes behind it.
pub(super) fn read(head: &str, body: &[u8]) -> Result<Message> {
    if head.len() > sip_wire::HEAD_BYTES {
        return Err(Flaw::TooLarge);
    }
    let mut lines = Lines(head);
    let start = start(lines.line()?)?;
    let request = matches!(start, Start::Request(..));
    // A first line that begins with white space would continue the start line.
    if lines.0.starts_with([' ', '\t']) {
        return Err(Flaw::Line);
    }
    // A call's messages have 8 to 12 others.
    let mut collected = Collected { rest: Vec::with_capacity(12), ..Collected::default() };
    let mut left = sip_wire::HEADERS;
    while let Some(line) = lines.header()? {
        collected.take(&line, request, &mut left)?;
    }
    let (headers, content_length) = collected.into_headers()?;
    let body = match content_length {
        // RFC 3261 §18.3: less than announced is an error, more is left out.
        Some(length) => body.get(..length).ok_or(Flaw::Truncated)?,
        None => body,
    };
    if body.len() > sip_wire::BODY_BYTES {
        return Err(Flaw::TooLarge);
    }
    let body = body.to_vec();
    Ok(match start {
        Start::Request(method, uri) => {
            // RFC 3261 §8.1.1.5; RFC 4475 §3.1.2.17, §3.1.2.18.
            if headers.cseq.method != method {
                return Err(Flaw::CseqMethod);
            }
            Message::Request(Request { method, uri, headers, body })
        }
        Start::Response(status, reason) => Message::Response(Response { status, reason, headers, body }),
    })
}

/// `Content-Length` of a head, for a stream, which has no other way to find the end of a message (RFC 3261 §18.3).
pub(super) fn length_of(head: &str) -> Result<usize> {
    let mut lines = Lines(head);
    lines.line()?;
    let mut found = None;
    loop {
        let line = match lines.header() {
            Ok(Some(line)) => line,
            Ok(None) => break,
            // Refuses the message, but its end is known.
            Err(Flaw::HeaderLine) => continue,
            Err(flaw) => return Err(flaw),
        };
        if Name::parse(line.name) == Some(Name::ContentLength) {
            let length = values::content_length(&line.value).ok_or(Flaw::Header("Content-Length"))?;
            if found.replace(length).is_some() {
                return Err(Flaw::Twice("Content-Length"));
            }
        }
    }
    let length = found.ok_or(Flaw::Missing("Content-Length"))?;
    if length > sip_wire::BODY_BYTES { Err(Flaw::TooLarge) } else { Ok(length) }
}

/// What the sender of bytes with this flaw is told.
pub(super) fn refuse(head: &str, flaw: Flaw) -> Malformed {
    Malformed { flaw, answer: salvage(head, flaw).map(Box::new) }
}

fn salvage(head: &str, flaw: Flaw) -> Option<Salvage> {
    let (line, mut rest) = head.split_once('\n')?;
    let method = Method::new(line.split(' ').next()?)?;
    // RFC 3261 §8.2.6, §17.1.1.3: neither a response nor an ACK is answered. A line without any version of SIP at its end
    // is no request of ours either.
    let asked = line.trim_end().rsplit(' ').next().is_some_and(is_version);
    if method == Method::Ack || !asked {
        return None;
    }
    let mut salvage = Salvage {
        status: flaw.status(),
        reason: SipText::new(&match flaw.status() {
            Status::BAD_REQUEST => format!("{} ({flaw})", Status::BAD_REQUEST.phrase()),
            other => other.phrase().to_owned(),
        }),
        method,
        via: Vec::new(),
        from: None,
        to: None,
        call_id: None,
        cseq: None,
    };
    let mut left = sip_wire::HEADERS;
    for _ in 0..sip_wire::HEADERS {
        let mut lines = Lines(rest);
        match lines.header() {
            Ok(None) => break,
            Ok(Some(line)) => salvage.keep(&line, &mut left),
            Err(_) => {}
        }
        // A line that cannot be read is passed over, with the continuations of it that could: none is looked at again.
        rest = match rest.split_once('\n') {
            Some((_, next)) if lines.0.len() == rest.len() => next,
            Some(_) => lines.0,
            None => break,
        };
    }
    (!salvage.via.is_empty()).then_some(salvage)
}

impl Salvage {
    fn keep(&mut self, line: &Line<'_>, left: &mut usize) {
        let keep = |field: &mut Option<SipText>| {
            field.get_or_insert_with(|| SipText::new(&line.value));
        };
        match Name::parse(line.name) {
            Some(Name::Via) => values::salvaged_vias(&line.value, left, &mut self.via),
            Some(Name::From) => keep(&mut self.from),
            Some(Name::To) => keep(&mut self.to),
            Some(Name::CallId) => keep(&mut self.call_id),
            Some(Name::CSeq) => keep(&mut self.cseq),
            Some(_) | None => {}
        }
    }
}

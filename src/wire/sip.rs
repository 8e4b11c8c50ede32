//! SIP messages: text to values and back. Read RFC 3261 §7, §20 and §25 before touching this file.
//!
//! Lenient in, strict out: every value that [`Message::parse`] makes, and every value that can be built, is written so
//! that it is read back the same, and no text of anybody ends a line or begins a header.
//!
//! ```
//! use offhook::wire::sip::{CallId, Message, Method, NameAddr, Request, Response, Status, Tag};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut from = NameAddr::new("sip:alice@atlanta.example".parse()?);
//! from.params.set("tag", Some("88sja8x"));
//! let to = NameAddr::new("sip:bob@biloxi.example".parse()?);
//! let invite = Request::new(Method::Invite, to.uri.clone(), from, to, CallId::lossy("9871@host"), 1);
//! let mut busy = Response::to(&invite, Status::BUSY_HERE);
//! busy.headers.set_to_tag(&Tag::lossy("314159"));
//! let mut bytes = Vec::new();
//! busy.write(&mut bytes);
//! assert!(bytes.starts_with(b"SIP/2.0 486 Busy Here\r\n"));
//! # Ok(())
//! # }
//! ```

mod cursor;
mod framer;
mod header;
mod headers;
mod malformed;
mod multipart;
mod names;
mod parse;
mod status;
mod uri;
mod values;
mod write;

use compact_str::CompactString;
use std::hash::{Hash, Hasher};

pub use framer::{Broken, Framed, Framer};
pub use header::{
    CSeq, CallId, Challenge, ContentType, Credentials, Event, Header, NameAddr, RAck, Reason, Refresher, Replaces,
    SessionExpires, SubscriptionState, Tag, Via,
};
pub use headers::Headers;
pub use malformed::{Flaw, Malformed, Salvage};
pub use multipart::part_of;
pub use status::Status;
pub use uri::{BadUri, Host, HostName, OtherUri, Params, SipUri, TelUri, Uri};

/// Text that stands in a message without being able to end a line: RFC 3261 §25.1 TEXT-UTF8-TRIM. Control characters, CR
/// and LF among them, become spaces when it is made, and spaces round it go, so that no value of ours forges a header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SipText(CompactString);

impl SipText {
    /// Any text, made safe.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
            Self(text.trim_matches(' ').into())
        } else if text.chars().any(char::is_control) {
            let spaced: CompactString = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Self(spaced.trim_matches(' ').into())
        } else {
            Self(text.trim_matches(' ').into())
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SipText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What each byte may be, in one look.
#[expect(clippy::indexing_slicing, reason = "when it is compiled, and below 256")]
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let byte = b as u8;
        table[b] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        b += 1;
    }
    table
};

/// True for the bytes of RFC 3261 §25.1 token.
fn is_token_byte(b: u8) -> bool {
    TOKEN.get(usize::from(b)).copied().unwrap_or_default()
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// `text` with each character that `allowed` does not have replaced by `-`; `-` if nothing is left.
fn fit(text: &str, allowed: impl Fn(u8) -> bool) -> CompactString {
    let fitted: CompactString =
        text.chars().map(|c| if u8::try_from(c).is_ok_and(&allowed) { c } else { '-' }).collect();
    if fitted.is_empty() { CompactString::const_new("-") } else { fitted }
}

/// RFC 3261 §25.1 token: a name of letters, digits and ``-.!%*_+`'~``. Compared without case.
#[derive(Debug, Clone, Eq)]
pub struct Token(CompactString);

impl Token {
    /// `None` where the text is no token.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        is_token(text).then(|| Self(text.into()))
    }

    /// Any text: what a token cannot hold becomes `-`. For names that are known to fit.
    #[must_use]
    pub fn lossy(text: &str) -> Self {
        Self(fit(text, is_token_byte))
    }

    /// What `Cursor::token` took.
    fn taken(token: &str) -> Self {
        Self(token.into())
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Equal without case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request asks for. Methods are compared with case (RFC 3261 §7.1).
#[derive(Debug, Clone)]
pub enum Method {
    /// RFC 3261 §13
    Invite,
    /// RFC 3261 §17
    Ack,
    /// RFC 3261 §15
    Bye,
    /// RFC 3261 §9
    Cancel,
    /// RFC 3261 §11
    Options,
    /// RFC 3261 §10
    Register,
    /// RFC 3262
    Prack,
    /// RFC 3311
    Update,
    /// RFC 6086
    Info,
    /// RFC 3515
    Refer,
    /// RFC 6665
    Subscribe,
    /// RFC 6665
    Notify,
    /// RFC 3903
    Publish,
    /// RFC 3428
    Message,
    /// Any other.
    Other(Token),
}

impl Method {
    /// `None` where the text is no token.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        is_token(text).then(|| Self::taken(text))
    }

    /// What `Cursor::token` took.
    fn taken(token: &str) -> Self {
        match token {
            "INVITE" => Self::Invite,
            "ACK" => Self::Ack,
            "BYE" => Self::Bye,
            "CANCEL" => Self::Cancel,
            "OPTIONS" => Self::Options,
            "REGISTER" => Self::Register,
            "PRACK" => Self::Prack,
            "UPDATE" => Self::Update,
            "INFO" => Self::Info,
            "REFER" => Self::Refer,
            "SUBSCRIBE" => Self::Subscribe,
            "NOTIFY" => Self::Notify,
            "PUBLISH" => Self::Publish,
            "MESSAGE" => Self::Message,
            other => Self::Other(Token::taken(other)),
        }
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Register => "REGISTER",
            Self::Prack => "PRACK",
            Self::Update => "UPDATE",
            Self::Info => "INFO",
            Self::Refer => "REFER",
            Self::Subscribe => "SUBSCRIBE",
            Self::Notify => "NOTIFY",
            Self::Publish => "PUBLISH",
            Self::Message => "MESSAGE",
            Self::Other(name) => name.as_str(),
        }
    }
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Method {}

impl PartialOrd for Method {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Method {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Method {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Request-URI.
    pub uri: Uri,
    /// Its headers.
    pub headers: Headers,
    /// Its body as it is; `Content-Length` is written from it.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without Via, Contact and body, with 70 hops to live (RFC 3261 §8.1.1). `cseq` is below 2^31.
    #[must_use]
    pub fn new(method: Method, uri: Uri, from: NameAddr, to: NameAddr, call_id: CallId, cseq: u32) -> Self {
        let mut headers = Headers::new(from, to, call_id, CSeq { number: cseq, method: method.clone() });
        headers.max_forwards = Some(70);
        Self { method, uri, headers, body: Vec::new() }
    }

    /// Puts a body in, with its type.
    pub fn set_body(&mut self, content_type: ContentType, body: Vec<u8>) {
        self.headers.set(Header::ContentType(content_type));
        self.body = body;
    }

    /// The body, or the part of a multipart body, of this media type: `application/sdp`.
    #[must_use]
    pub fn body_of(&self, media: &str) -> Option<&[u8]> {
        part_of(&self.body, self.headers.content_type()?, media)
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 100 to 699
    pub status: Status,
    /// For people.
    pub reason: SipText,
    /// Its headers.
    pub headers: Headers,
    /// Its body as it is; `Content-Length` is written from it.
    pub body: Vec<u8>,
}

impl Response {
    /// The response to a request: Via, From, To, Call-ID and CSeq are its own (RFC 3261 §8.2.6.2), and Record-Route where
    /// a dialog may come of it (§12.1.1). The tag of To is the caller's to add.
    #[must_use]
    pub fn to(request: &Request, status: Status) -> Self {
        let of = &request.headers;
        let mut headers = Headers::new(of.from.clone(), of.to.clone(), of.call_id.clone(), of.cseq.clone());
        headers.via.clone_from(&of.via);
        if status.code() > 100 && status.code() < 300 {
            headers.record_route.clone_from(&of.record_route);
        }
        Self { status, reason: SipText::new(status.phrase()), headers, body: Vec::new() }
    }

    /// Puts a body in, with its type.
    pub fn set_body(&mut self, content_type: ContentType, body: Vec<u8>) {
        self.headers.set(Header::ContentType(content_type));
        self.body = body;
    }

    /// The body, or the part of a multipart body, of this media type: `application/sdp`.
    #[must_use]
    pub fn body_of(&self, media: &str) -> Option<&[u8]> {
        part_of(&self.body, self.headers.content_type()?, media)
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

impl Message {
    /// The headers of either.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    /// The body of either.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        match self {
            Self::Request(request) => &request.body,
            Self::Response(response) => &response.body,
        }
    }
}

/// True for a datagram of nothing but CR, LF, NUL and spaces, as devices send to keep a NAT binding: no message at all.
#[must_use]
pub fn is_keep_alive(datagram: &[u8]) -> bool {
    datagram.iter().all(|b| matches!(b, b'\r' | b'\n' | 0 | b' '))
}

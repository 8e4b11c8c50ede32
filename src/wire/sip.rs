//! SIP messages: text to values and back. Read RFC 3261 §7, §20 and §25 before touching this file.

mod header;
mod uri;

use compact_str::CompactString;
pub use header::{
    CSeq, CallId, Challenge, ContentType, Credentials, Event, Header, NameAddr, RAck, Reason, Refresher, Replaces,
    SessionExpires, SubscriptionState, Tag, Via,
};
pub use uri::{Host, Params, SipUri, TelUri, Uri};

/// Text that stands in a message without being able to end a line: RFC 3261 §25.1 TEXT-UTF8. Control characters, CR and LF
/// among them, become spaces when it is made, so that no value of ours forges a header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SipText(CompactString);

impl SipText {
    /// Any text, made safe.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if text.chars().any(char::is_control) {
            Self(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
        } else {
            Self(text.into())
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

/// RFC 3261 §25.1 token: a name of letters, digits and `-.!%*_+`'~`. Compared without case.
#[derive(Debug, Clone, Eq)]
pub struct Token(CompactString);

impl Token {
    /// `None` where the text is no token.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b);
        (!text.is_empty() && text.bytes().all(token)).then(|| Self(text.into()))
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

/// What a request asks for. Methods are compared with case (RFC 3261 §7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// A status code, 100 to 699.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(u16);

impl Status {
    /// `None` outside 100 to 699.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        if code >= 100 && code <= 699 { Some(Self(code)) } else { None }
    }

    /// 100 to 699
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// 1xx
    #[must_use]
    pub const fn is_provisional(self) -> bool {
        self.0 < 200
    }

    /// 2xx
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 >= 200 && self.0 < 300
    }
}

/// The headers of a message. Those that every layer needs are fields; the rest stand in order of appearance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// Topmost first.
    pub via: Vec<Via>,
    /// Topmost first.
    pub route: Vec<NameAddr>,
    /// Topmost first.
    pub record_route: Vec<NameAddr>,
    /// Hops left; 70 is sent (RFC 3261 §8.1.1.6).
    pub max_forwards: Option<u8>,
    /// With its tag among the parameters.
    pub from: NameAddr,
    /// With its tag among the parameters, if there is a dialog.
    pub to: NameAddr,
    /// Of the dialog or the lone request.
    pub call_id: CallId,
    /// Number and method.
    pub cseq: CSeq,
    /// Where the sender is reached; several in REGISTER and in its answer.
    pub contact: Vec<NameAddr>,
    /// `Contact: *` (RFC 3261 §10.2.2).
    pub contact_star: bool,
    /// Every other header, in order.
    pub rest: Vec<Header>,
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

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

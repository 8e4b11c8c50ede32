//! Values of headers. Read RFC 3261 §20 before touching this file.

use super::{Host, Method, Params, SipText, Token, Uri, fit, is_token};
use compact_str::CompactString;
use std::net::IpAddr;

/// Names one dialog or lone request: visible ASCII. Compared with case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(CompactString);

impl CallId {
    /// `None` for what cannot stand in a message: nothing, white space, characters outside ASCII (RFC 3261 §25.1 callid).
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b';')))
            .then(|| Self(text.into()))
    }

    /// Any text: what cannot stand there becomes `-`. For what is known to fit.
    #[must_use]
    pub fn lossy(text: &str) -> Self {
        Self(fit(text, |b| b.is_ascii_graphic() && !matches!(b, b',' | b';')))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one side of a dialog (RFC 3261 §19.3): a token. Compared with case, as every known implementation does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(CompactString);

impl Tag {
    /// `None` where the text is no token.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        is_token(text).then(|| Self(text.into()))
    }

    /// Any text: what a token cannot hold becomes `-`. For what is known to fit.
    #[must_use]
    pub fn lossy(text: &str) -> Self {
        Self(fit(text, super::is_token_byte))
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number and method, RFC 3261 §20.16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2^31.
    pub number: u32,
    /// That of the request it belongs to.
    pub method: Method,
}

/// A name and an address: From, To, Contact, Route, Refer-To and their like (RFC 3261 §20.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// Unquoted. Not empty where there is one.
    pub display: Option<SipText>,
    /// Address.
    pub uri: Uri,
    /// Those of the header, not those of the address: `tag`, `q`, `expires`, …
    pub params: Params,
}

impl NameAddr {
    /// An address alone.
    #[must_use]
    pub fn new(uri: Uri) -> Self {
        Self { display: None, uri, params: Params::default() }
    }

    /// With a name.
    #[must_use]
    pub fn named(display: &str, uri: Uri) -> Self {
        let display = Some(SipText::new(display)).filter(|d| !d.as_str().is_empty());
        Self { display, uri, params: Params::default() }
    }

    /// The `tag` parameter; `None` where it is missing or empty.
    #[must_use]
    pub fn tag(&self) -> Option<Tag> {
        self.params.find("tag").and_then(Tag::new)
    }

    /// The same address with this `tag`.
    #[must_use]
    pub fn with_tag(mut self, tag: &Tag) -> Self {
        self.params.set("tag", Some(tag.as_str()));
        self
    }
}

/// One hop, RFC 3261 §20.42 with RFC 3581.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// `UDP`, `TCP`, `TLS`, `WS`, `WSS`, …
    pub transport: Token,
    /// Who sent it, by his own word.
    pub host: Host,
    /// By his own word.
    pub port: Option<u16>,
    /// With its `z9hG4bK`, if it has that.
    pub branch: Option<CompactString>,
    /// Where it came from.
    pub received: Option<IpAddr>,
    /// `Some(None)`: asked for; `Some(Some(port))`: told (RFC 3581).
    pub rport: Option<Option<u16>>,
    /// The others.
    pub params: Params,
}

impl Via {
    /// A hop of ours, which asks for `rport`.
    #[must_use]
    pub fn new(transport: Token, host: Host, port: Option<u16>, branch: &str) -> Self {
        let branch = Some(branch.into());
        Self { transport, host, port, branch, received: None, rport: Some(None), params: Params::default() }
    }
}

/// `WWW-Authenticate` and `Proxy-Authenticate`, RFC 8760.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// `Digest`, as written.
    pub scheme: Token,
    /// `realm`, `nonce`, `algorithm`, `qop`, `stale`, `opaque`, …, unquoted.
    pub params: Params,
}

/// `Authorization` and `Proxy-Authorization`, RFC 8760.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `Digest`, as written.
    pub scheme: Token,
    /// `username`, `realm`, `nonce`, `uri`, `response`, `algorithm`, `cnonce`, `qop`, `nc`, `opaque`, unquoted.
    pub params: Params,
}

/// Media type of a body, lower-cased: `application/sdp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType {
    media: CompactString,
    /// `boundary`, `charset`, …
    pub params: Params,
}

impl ContentType {
    /// `type/subtype` without parameters; `None` for anything else.
    #[must_use]
    pub fn new(media: &str) -> Option<Self> {
        let (kind, subtype) = media.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut media = CompactString::from(media);
        media.make_ascii_lowercase();
        Some(Self { media, params: Params::default() })
    }

    /// `application/sdp`
    #[must_use]
    pub fn sdp() -> Self {
        Self { media: CompactString::const_new("application/sdp"), params: Params::default() }
    }

    /// Without its parameters, lower-cased.
    #[must_use]
    pub fn media(&self) -> &str {
        &self.media
    }

    /// Is of this media type, whatever its parameters.
    #[must_use]
    pub fn is(&self, media: &str) -> bool {
        self.media.eq_ignore_ascii_case(media)
    }
}

/// `Event`, RFC 6665 §8.2.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `presence`, `dialog`, `message-summary`, `refer`, …
    pub package: Token,
    /// `id` and others.
    pub params: Params,
}

/// Who refreshes a session, RFC 4028 §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresher {
    /// Who sent the request.
    Uac,
    /// Who answered it.
    Uas,
}

/// `Session-Expires`, RFC 4028 §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionExpires {
    /// Interval.
    pub seconds: u32,
    /// Not yet agreed on where `None`.
    pub refresher: Option<Refresher>,
}

/// `RAck`, RFC 3262 §7.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RAck {
    /// `RSeq` of the response.
    pub rseq: u32,
    /// `CSeq` of the response.
    pub cseq: CSeq,
}

/// `Reason`, RFC 3326.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// `SIP` or `Q.850`
    pub protocol: Token,
    /// Status code or cause.
    pub cause: Option<u16>,
    /// For people.
    pub text: Option<SipText>,
}

/// `Replaces`, RFC 3891 §6.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaces {
    /// Of the dialog to be replaced.
    pub call_id: CallId,
    /// Tag of the side that is asked.
    pub to_tag: Tag,
    /// Tag of the other one.
    pub from_tag: Tag,
    /// Only as long as it is not answered.
    pub early_only: bool,
}

/// `Subscription-State`, RFC 6665 §8.2.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionState {
    /// `active`, `pending`, `terminated`
    pub state: Token,
    /// `expires`, `reason`, `retry-after`
    pub params: Params,
}

/// A header other than those that are fields of `Headers`. Lists of tokens are one value each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// `Accept`
    Accept(SipText),
    /// `Allow`
    Allow(Vec<Method>),
    /// `Allow-Events`
    AllowEvents(Vec<Token>),
    /// `Authentication-Info`, RFC 7616 §3.5
    AuthenticationInfo(Params),
    /// `Authorization`
    Authorization(Credentials),
    /// `Proxy-Authorization`
    ProxyAuthorization(Credentials),
    /// `WWW-Authenticate`
    WwwAuthenticate(Challenge),
    /// `Proxy-Authenticate`
    ProxyAuthenticate(Challenge),
    /// `Content-Type`
    ContentType(ContentType),
    /// `Content-Disposition`
    ContentDisposition(SipText),
    /// `Event`
    Event(Event),
    /// `Expires`, seconds
    Expires(u32),
    /// `Min-Expires`, seconds
    MinExpires(u32),
    /// `Min-SE`, seconds
    MinSe(u32),
    /// `P-Asserted-Identity`
    PAssertedIdentity(NameAddr),
    /// `Privacy`
    Privacy(SipText),
    /// `RAck`
    RAck(RAck),
    /// `RSeq`
    RSeq(u32),
    /// `Reason`
    Reason(Reason),
    /// `Refer-To`
    ReferTo(NameAddr),
    /// `Referred-By`
    ReferredBy(NameAddr),
    /// `Replaces`
    Replaces(Replaces),
    /// `Require`
    Require(Vec<Token>),
    /// `Proxy-Require`
    ProxyRequire(Vec<Token>),
    /// `Retry-After`, seconds
    RetryAfter(u32),
    /// `Session-Expires`
    SessionExpires(SessionExpires),
    /// `SIP-ETag`
    SipEtag(Token),
    /// `SIP-If-Match`
    SipIfMatch(Token),
    /// `Subject`
    Subject(SipText),
    /// `Subscription-State`
    SubscriptionState(SubscriptionState),
    /// `Supported`
    Supported(Vec<Token>),
    /// `Unsupported`
    Unsupported(Vec<Token>),
    /// `User-Agent`
    UserAgent(SipText),
    /// `Server`
    Server(SipText),
    /// `Warning`
    Warning(SipText),
    /// Any other, as it stands, and one of the above whose value is not of its grammar where nothing depends on it
    /// (RFC 3261 §8.2: malformed headers that are not necessary are ignored). Not for headers that are fields of
    /// `Headers`: those are not written.
    Other(Token, SipText),
}

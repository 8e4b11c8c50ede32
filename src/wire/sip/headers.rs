//! The headers of a message. Read RFC 3261 §8.1.1 and §20 before touching this file.

use super::header::Header;
use super::{
    CSeq, CallId, Challenge, ContentType, Credentials, Event, Method, NameAddr, Params, RAck, Reason, Replaces,
    SessionExpires, SipText, SubscriptionState, Tag, Token, Via,
};

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
    /// `Contact: *` (RFC 3261 §10.2.2), alone.
    pub contact_star: bool,
    /// Every other header, in order.
    pub rest: Vec<Header>,
}

/// Accessors of headers that stand once: the first one counts.
macro_rules! first {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $type:ty),+ $(,)?) => {
        $($(#[$doc])* #[must_use] pub fn $name(&self) -> Option<&$type> {
            self.rest.iter().find_map(|h| if let Header::$variant(value) = h { Some(value) } else { None })
        })+
    };
}

/// Accessors of numbers.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $type:ty),+ $(,)?) => {
        $($(#[$doc])* #[must_use] pub fn $name(&self) -> Option<$type> {
            self.rest.iter().find_map(|h| if let Header::$variant(value) = h { Some(*value) } else { None })
        })+
    };
}

/// Accessors of headers that may be repeated.
macro_rules! every {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $type:ty),+ $(,)?) => {
        $($(#[$doc])* pub fn $name(&self) -> impl Iterator<Item = &$type> {
            self.rest.iter().filter_map(|h| if let Header::$variant(value) = h { Some(value) } else { None })
        })+
    };
}

/// Accessors of lists: those of all lines together.
macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident: $variant:ident -> $type:ty),+ $(,)?) => {
        $($(#[$doc])* pub fn $name(&self) -> impl Iterator<Item = &$type> {
            self.rest.iter().filter_map(|h| if let Header::$variant(v) = h { Some(v) } else { None }).flatten()
        })+
    };
}

impl Headers {
    /// Those that every message has, and no other.
    #[must_use]
    pub fn new(from: NameAddr, to: NameAddr, call_id: CallId, cseq: CSeq) -> Self {
        Self {
            via: Vec::new(),
            route: Vec::new(),
            record_route: Vec::new(),
            max_forwards: None,
            from,
            to,
            call_id,
            cseq,
            contact: Vec::new(),
            contact_star: false,
            rest: Vec::new(),
        }
    }

    first! {
        /// `Content-Type`
        content_type: ContentType -> ContentType,
        /// `Content-Disposition`, as it stands.
        content_disposition: ContentDisposition -> SipText,
        /// `Event`
        event: Event -> Event,
        /// `Subscription-State`
        subscription_state: SubscriptionState -> SubscriptionState,
        /// `RAck`
        rack: RAck -> RAck,
        /// `Refer-To`
        refer_to: ReferTo -> NameAddr,
        /// `Referred-By`
        referred_by: ReferredBy -> NameAddr,
        /// `Replaces`
        replaces: Replaces -> Replaces,
        /// `SIP-ETag`
        sip_etag: SipEtag -> Token,
        /// `SIP-If-Match`
        sip_if_match: SipIfMatch -> Token,
        /// `Subject`
        subject: Subject -> SipText,
        /// `User-Agent`
        user_agent: UserAgent -> SipText,
        /// `Server`
        server: Server -> SipText,
        /// `Privacy`
        privacy: Privacy -> SipText,
        /// `Authentication-Info`
        authentication_info: AuthenticationInfo -> Params,
    }

    numbers! {
        /// `Expires`, seconds
        expires: Expires -> u32,
        /// `Min-Expires`, seconds
        min_expires: MinExpires -> u32,
        /// `Min-SE`, seconds
        min_se: MinSe -> u32,
        /// `Retry-After`, seconds
        retry_after: RetryAfter -> u32,
        /// `RSeq`
        rseq: RSeq -> u32,
        /// `Session-Expires`
        session_expires: SessionExpires -> SessionExpires,
    }

    every! {
        /// `Reason`, one for each protocol.
        reasons: Reason -> Reason,
        /// `P-Asserted-Identity`: a `sip:` and a `tel:` one at most.
        asserted_identities: PAssertedIdentity -> NameAddr,
        /// `WWW-Authenticate`
        www_authenticate: WwwAuthenticate -> Challenge,
        /// `Proxy-Authenticate`
        proxy_authenticate: ProxyAuthenticate -> Challenge,
        /// `Authorization`
        authorization: Authorization -> Credentials,
        /// `Proxy-Authorization`
        proxy_authorization: ProxyAuthorization -> Credentials,
        /// `Warning`
        warnings: Warning -> SipText,
        /// `Accept`
        accept: Accept -> SipText,
    }

    lists! {
        /// `Supported`
        supported: Supported -> Token,
        /// `Require`
        require: Require -> Token,
        /// `Proxy-Require`
        proxy_require: ProxyRequire -> Token,
        /// `Unsupported`
        unsupported: Unsupported -> Token,
        /// `Allow`
        allow: Allow -> Method,
        /// `Allow-Events`
        allow_events: AllowEvents -> Token,
    }

    /// The sender knows this extension: it stands in `Supported` or `Require` (RFC 3262 §3 reads them so).
    #[must_use]
    pub fn supports(&self, extension: &str) -> bool {
        self.supported().any(|t| t.is(extension)) || self.requires(extension)
    }

    /// It stands in `Require`.
    #[must_use]
    pub fn requires(&self, extension: &str) -> bool {
        self.require().any(|t| t.is(extension))
    }

    /// It stands in `Allow`.
    #[must_use]
    pub fn allows(&self, method: &Method) -> bool {
        self.allow().any(|m| m == method)
    }

    /// The first header of this name that has no type of its own.
    #[must_use]
    pub fn other(&self, name: &str) -> Option<&str> {
        self.rest.iter().find_map(|h| {
            if let Header::Other(other, value) = h { other.is(name).then(|| value.as_str()) } else { None }
        })
    }

    /// The tag of From.
    #[must_use]
    pub fn from_tag(&self) -> Option<Tag> {
        self.from.tag()
    }

    /// The tag of To.
    #[must_use]
    pub fn to_tag(&self) -> Option<Tag> {
        self.to.tag()
    }

    /// Sets the tag of From.
    pub fn set_from_tag(&mut self, tag: &Tag) {
        self.from.params.set("tag", Some(tag.as_str()));
    }

    /// Sets the tag of To.
    pub fn set_to_tag(&mut self, tag: &Tag) {
        self.to.params.set("tag", Some(tag.as_str()));
    }

    /// Puts one behind the others.
    pub fn push(&mut self, header: Header) {
        self.rest.push(header);
    }

    /// Puts one in the place of all of its name.
    pub fn set(&mut self, header: Header) {
        self.remove_like(&header);
        self.rest.push(header);
    }

    /// Takes out all that have the name of this one, whatever their values.
    pub fn remove_like(&mut self, header: &Header) {
        self.rest.retain(|h| match (h, header) {
            (Header::Other(a, _), Header::Other(b, _)) => a != b,
            (a, b) => std::mem::discriminant(a) != std::mem::discriminant(b),
        });
    }
}

//! Names of headers. Read RFC 3261 §7.3.3 and §20 before touching this file.

/// A header that has a meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Via,
    Route,
    RecordRoute,
    MaxForwards,
    From,
    To,
    CallId,
    CSeq,
    Contact,
    ContentLength,
    Accept,
    Allow,
    AllowEvents,
    AuthenticationInfo,
    Authorization,
    ProxyAuthorization,
    WwwAuthenticate,
    ProxyAuthenticate,
    ContentType,
    ContentDisposition,
    Event,
    Expires,
    MinExpires,
    MinSe,
    PAssertedIdentity,
    Privacy,
    RAck,
    RSeq,
    Reason,
    ReferTo,
    ReferredBy,
    Replaces,
    Require,
    ProxyRequire,
    RetryAfter,
    SessionExpires,
    SipEtag,
    SipIfMatch,
    Subject,
    SubscriptionState,
    Supported,
    Unsupported,
    UserAgent,
    Server,
    Warning,
}

/// What a value that is not of its grammar does to the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Refuses it.
    Always,
    /// Refuses a request; in a response the header counts for nothing, as a call should not hang on it.
    InRequests,
    /// The header counts for nothing (RFC 3261 §8.2: "necessary for processing").
    Never,
}

impl Name {
    /// By its name or its one letter, without case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let first = name.as_bytes().first()?.to_ascii_lowercase();
        let last = name.as_bytes().last()?.to_ascii_lowercase();
        if name.len() == 1 {
            return Some(match first {
                b'v' => Self::Via,
                b'f' => Self::From,
                b't' => Self::To,
                b'i' => Self::CallId,
                b'm' => Self::Contact,
                b'l' => Self::ContentLength,
                b'u' => Self::AllowEvents,
                b'c' => Self::ContentType,
                b'o' => Self::Event,
                b'r' => Self::ReferTo,
                b'b' => Self::ReferredBy,
                b'x' => Self::SessionExpires,
                b's' => Self::Subject,
                b'k' => Self::Supported,
                _ => return None,
            });
        }
        // No two have these three in common: one comparison decides.
        let found = match (name.len(), first, last) {
            (3, b'v', b'a') => Self::Via,
            (5, b'r', b'e') => Self::Route,
            (12, b'r', b'e') => Self::RecordRoute,
            (12, b'm', b's') => Self::MaxForwards,
            (4, b'f', b'm') => Self::From,
            (2, b't', b'o') => Self::To,
            (7, b'c', b'd') => Self::CallId,
            (4, b'c', b'q') => Self::CSeq,
            (7, b'c', b't') => Self::Contact,
            (14, b'c', b'h') => Self::ContentLength,
            (6, b'a', b't') => Self::Accept,
            (5, b'a', b'w') => Self::Allow,
            (12, b'a', b's') => Self::AllowEvents,
            (19, b'a', b'o') => Self::AuthenticationInfo,
            (13, b'a', b'n') => Self::Authorization,
            (19, b'p', b'n') => Self::ProxyAuthorization,
            (16, b'w', b'e') => Self::WwwAuthenticate,
            (18, b'p', b'e') => Self::ProxyAuthenticate,
            (12, b'c', b'e') => Self::ContentType,
            (19, b'c', b'n') => Self::ContentDisposition,
            (5, b'e', b't') => Self::Event,
            (7, b'e', b's') => Self::Expires,
            (11, b'm', b's') => Self::MinExpires,
            (6, b'm', b'e') => Self::MinSe,
            (19, b'p', b'y') => Self::PAssertedIdentity,
            (7, b'p', b'y') => Self::Privacy,
            (4, b'r', b'k') => Self::RAck,
            (4, b'r', b'q') => Self::RSeq,
            (6, b'r', b'n') => Self::Reason,
            (8, b'r', b'o') => Self::ReferTo,
            (11, b'r', b'y') => Self::ReferredBy,
            (8, b'r', b's') => Self::Replaces,
            (7, b'r', b'e') => Self::Require,
            (13, b'p', b'e') => Self::ProxyRequire,
            (11, b'r', b'r') => Self::RetryAfter,
            (15, b's', b's') => Self::SessionExpires,
            (8, b's', b'g') => Self::SipEtag,
            (12, b's', b'h') => Self::SipIfMatch,
            (7, b's', b't') => Self::Subject,
            (18, b's', b'e') => Self::SubscriptionState,
            (9, b's', b'd') => Self::Supported,
            (11, b'u', b'd') => Self::Unsupported,
            (10, b'u', b't') => Self::UserAgent,
            (6, b's', b'r') => Self::Server,
            (7, b'w', b'g') => Self::Warning,
            _ => return None,
        };
        (name == found.as_str() || name.eq_ignore_ascii_case(found.as_str())).then_some(found)
    }

    /// As it is written.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Via => "Via",
            Self::Route => "Route",
            Self::RecordRoute => "Record-Route",
            Self::MaxForwards => "Max-Forwards",
            Self::From => "From",
            Self::To => "To",
            Self::CallId => "Call-ID",
            Self::CSeq => "CSeq",
            Self::Contact => "Contact",
            Self::ContentLength => "Content-Length",
            Self::Accept => "Accept",
            Self::Allow => "Allow",
            Self::AllowEvents => "Allow-Events",
            Self::AuthenticationInfo => "Authentication-Info",
            Self::Authorization => "Authorization",
            Self::ProxyAuthorization => "Proxy-Authorization",
            Self::WwwAuthenticate => "WWW-Authenticate",
            Self::ProxyAuthenticate => "Proxy-Authenticate",
            Self::ContentType => "Content-Type",
            Self::ContentDisposition => "Content-Disposition",
            Self::Event => "Event",
            Self::Expires => "Expires",
            Self::MinExpires => "Min-Expires",
            Self::MinSe => "Min-SE",
            Self::PAssertedIdentity => "P-Asserted-Identity",
            Self::Privacy => "Privacy",
            Self::RAck => "RAck",
            Self::RSeq => "RSeq",
            Self::Reason => "Reason",
            Self::ReferTo => "Refer-To",
            Self::ReferredBy => "Referred-By",
            Self::Replaces => "Replaces",
            Self::Require => "Require",
            Self::ProxyRequire => "Proxy-Require",
            Self::RetryAfter => "Retry-After",
            Self::SessionExpires => "Session-Expires",
            Self::SipEtag => "SIP-ETag",
            Self::SipIfMatch => "SIP-If-Match",
            Self::Subject => "Subject",
            Self::SubscriptionState => "Subscription-State",
            Self::Supported => "Supported",
            Self::Unsupported => "Unsupported",
            Self::UserAgent => "User-Agent",
            Self::Server => "Server",
            Self::Warning => "Warning",
        }
    }

    /// Stands once at most (RFC 3261 §7.3.1; RFC 4475 §3.3.8, §3.3.9). `None`: may be repeated.
    pub(super) const fn once(self) -> bool {
        matches!(
            self,
            Self::MaxForwards
                | Self::From
                | Self::To
                | Self::CallId
                | Self::CSeq
                | Self::ContentLength
                | Self::ContentType
                | Self::Event
                | Self::Expires
                | Self::MinExpires
                | Self::MinSe
                | Self::RAck
                | Self::RSeq
                | Self::ReferTo
                | Self::Replaces
                | Self::RetryAfter
                | Self::SessionExpires
                | Self::SipEtag
                | Self::SipIfMatch
                | Self::SubscriptionState
        )
    }

    /// What a bad value does.
    pub(super) const fn weight(self) -> Weight {
        match self {
            Self::Via
            | Self::Route
            | Self::RecordRoute
            | Self::MaxForwards
            | Self::From
            | Self::To
            | Self::CallId
            | Self::CSeq
            | Self::Contact
            | Self::ContentLength
            | Self::ContentType
            | Self::RSeq => Weight::Always,
            Self::Event
            | Self::Expires
            | Self::MinExpires
            | Self::MinSe
            | Self::RAck
            | Self::ReferTo
            | Self::Replaces
            | Self::Require
            | Self::ProxyRequire
            | Self::SessionExpires
            | Self::SipIfMatch
            | Self::SubscriptionState => Weight::InRequests,
            Self::Accept
            | Self::Allow
            | Self::AllowEvents
            | Self::AuthenticationInfo
            | Self::Authorization
            | Self::ProxyAuthorization
            | Self::WwwAuthenticate
            | Self::ProxyAuthenticate
            | Self::ContentDisposition
            | Self::PAssertedIdentity
            | Self::Privacy
            | Self::Reason
            | Self::ReferredBy
            | Self::RetryAfter
            | Self::SipEtag
            | Self::Subject
            | Self::Supported
            | Self::Unsupported
            | Self::UserAgent
            | Self::Server
            | Self::Warning => Weight::Never,
        }
    }

    /// Is a field of `Headers` or written by the writer itself.
    pub(super) const fn is_field(self) -> bool {
        matches!(
            self,
            Self::Via
                | Self::Route
                | Self::RecordRoute
                | Self::MaxForwards
                | Self::From
                | Self::To
                | Self::CallId
                | Self::CSeq
                | Self::Contact
                | Self::ContentLength
        )
    }
}

/// The long name of a one-letter one that has no meaning here (RFC 3841, RFC 8224 and the registry of compact forms).
pub(super) fn long_name(name: &str) -> &str {
    const LETTERS: [(&str, &str); 6] = [
        ("a", "Accept-Contact"),
        ("d", "Request-Disposition"),
        ("e", "Content-Encoding"),
        ("j", "Reject-Contact"),
        ("n", "Identity-Info"),
        ("y", "Identity"),
    ];
    LETTERS.iter().find(|(letter, _)| name.eq_ignore_ascii_case(letter)).map_or(name, |(_, long)| long)
}

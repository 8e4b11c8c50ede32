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

/// Longest name of the table.
const LONGEST: usize = 19;

impl Name {
    /// By its name or its one letter, without case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut buffer = [0; LONGEST];
        let lower = buffer.get_mut(..name.len())?;
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"via" | b"v" => Self::Via,
            b"route" => Self::Route,
            b"record-route" => Self::RecordRoute,
            b"max-forwards" => Self::MaxForwards,
            b"from" | b"f" => Self::From,
            b"to" | b"t" => Self::To,
            b"call-id" | b"i" => Self::CallId,
            b"cseq" => Self::CSeq,
            b"contact" | b"m" => Self::Contact,
            b"content-length" | b"l" => Self::ContentLength,
            b"accept" => Self::Accept,
            b"allow" => Self::Allow,
            b"allow-events" | b"u" => Self::AllowEvents,
            b"authentication-info" => Self::AuthenticationInfo,
            b"authorization" => Self::Authorization,
            b"proxy-authorization" => Self::ProxyAuthorization,
            b"www-authenticate" => Self::WwwAuthenticate,
            b"proxy-authenticate" => Self::ProxyAuthenticate,
            b"content-type" | b"c" => Self::ContentType,
            b"content-disposition" => Self::ContentDisposition,
            b"event" | b"o" => Self::Event,
            b"expires" => Self::Expires,
            b"min-expires" => Self::MinExpires,
            b"min-se" => Self::MinSe,
            b"p-asserted-identity" => Self::PAssertedIdentity,
            b"privacy" => Self::Privacy,
            b"rack" => Self::RAck,
            b"rseq" => Self::RSeq,
            b"reason" => Self::Reason,
            b"refer-to" | b"r" => Self::ReferTo,
            b"referred-by" | b"b" => Self::ReferredBy,
            b"replaces" => Self::Replaces,
            b"require" => Self::Require,
            b"proxy-require" => Self::ProxyRequire,
            b"retry-after" => Self::RetryAfter,
            b"session-expires" | b"x" => Self::SessionExpires,
            b"sip-etag" => Self::SipEtag,
            b"sip-if-match" => Self::SipIfMatch,
            b"subject" | b"s" => Self::Subject,
            b"subscription-state" => Self::SubscriptionState,
            b"supported" | b"k" => Self::Supported,
            b"unsupported" => Self::Unsupported,
            b"user-agent" => Self::UserAgent,
            b"server" => Self::Server,
            b"warning" => Self::Warning,
            _ => return None,
        })
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

//! Faults by who is to blame, the standards' condition enums, and the one table fault → answer.
//! Read RFC 6120 §8.3, XEP-0166 §7.4 and §10 before touching this file.

macro_rules! names {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name { $($(#[$vmeta])* #[doc = concat!("`", $text, "`")] $variant),+ }
        impl $name {
            /// Every value, in the standard's order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// The name on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $($name::$variant => $text),+ } }
            /// The value with this name on the wire.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> { match text { $($text => Some($name::$variant),)+ _ => None } }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
    };
}
pub(crate) use names;

names! {
    /// Stanza error conditions, RFC 6120 §8.3.3.
    pub enum StanzaCondition {
        BadRequest = "bad-request", Conflict = "conflict", FeatureNotImplemented = "feature-not-implemented",
        Forbidden = "forbidden", Gone = "gone", InternalServerError = "internal-server-error",
        ItemNotFound = "item-not-found", JidMalformed = "jid-malformed", NotAcceptable = "not-acceptable",
        NotAllowed = "not-allowed", NotAuthorized = "not-authorized", PolicyViolation = "policy-violation",
        RecipientUnavailable = "recipient-unavailable", Redirect = "redirect",
        RegistrationRequired = "registration-required", RemoteServerNotFound = "remote-server-not-found",
        RemoteServerTimeout = "remote-server-timeout", ResourceConstraint = "resource-constraint",
        ServiceUnavailable = "service-unavailable", SubscriptionRequired = "subscription-required",
        UndefinedCondition = "undefined-condition", UnexpectedRequest = "unexpected-request",
    }
}

names! {
    /// What the sender of a refused stanza should do, RFC 6120 §8.3.2.
    pub enum ErrorType { Auth = "auth", Cancel = "cancel", Continue = "continue", Modify = "modify", Wait = "wait" }
}

names! {
    /// Jingle conditions inside a stanza error, XEP-0166 §10.
    pub enum JingleCondition {
        OutOfOrder = "out-of-order", TieBreak = "tie-break", UnknownSession = "unknown-session",
        UnsupportedInfo = "unsupported-info", SecurityRequired = "security-required",
    }
}

names! {
    /// Why a session or content ends, XEP-0166 §7.4.
    pub enum ReasonCondition {
        AlternativeSession = "alternative-session", Busy = "busy", Cancel = "cancel",
        ConnectivityError = "connectivity-error", Decline = "decline", Expired = "expired",
        FailedApplication = "failed-application", FailedTransport = "failed-transport",
        GeneralError = "general-error", Gone = "gone", IncompatibleParameters = "incompatible-parameters",
        MediaError = "media-error", SecurityError = "security-error", Success = "success", Timeout = "timeout",
        UnsupportedApplications = "unsupported-applications", UnsupportedTransports = "unsupported-transports",
    }
}

names! {
    /// Stream error conditions, RFC 6120 §4.9.3.
    pub enum StreamCondition {
        BadFormat = "bad-format", BadNamespacePrefix = "bad-namespace-prefix", Conflict = "conflict",
        ConnectionTimeout = "connection-timeout", HostGone = "host-gone", HostUnknown = "host-unknown",
        ImproperAddressing = "improper-addressing", InternalServerError = "internal-server-error",
        InvalidFrom = "invalid-from", InvalidNamespace = "invalid-namespace", InvalidXml = "invalid-xml",
        NotAuthorized = "not-authorized", NotWellFormed = "not-well-formed", PolicyViolation = "policy-violation",
        RemoteConnectionFailed = "remote-connection-failed", Reset = "reset",
        ResourceConstraint = "resource-constraint", RestrictedXml = "restricted-xml",
        SeeOtherHost = "see-other-host", SystemShutdown = "system-shutdown",
        UndefinedCondition = "undefined-condition", UnsupportedEncoding = "unsupported-encoding",
        UnsupportedFeature = "unsupported-feature", UnsupportedStanzaType = "unsupported-stanza-type",
        UnsupportedVersion = "unsupported-version",
    }
}

/// Bytes that are not the grammar. Answered with `bad-request`; with a stream error if the stream itself is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Not XML, or XML that RFC 6120 §11 forbids; ends the stream with this condition.
    #[error("{condition}: {detail}")]
    Xml {
        /// The stream error to answer with.
        condition: StreamCondition,
        /// What was found, for the log.
        detail: &'static str,
    },
    /// A required attribute is missing.
    #[error("<{element}/> lacks its attribute '{attribute}'")]
    MissingAttribute {
        /// Local name of the element.
        element: &'static str,
        /// Local name of the attribute.
        attribute: &'static str,
    },
    /// An attribute or text has a value outside its type.
    #[error("<{element}/> has a bad value in '{what}'")]
    BadValue {
        /// Local name of the element.
        element: &'static str,
        /// Attribute name, or `text`.
        what: &'static str,
    },
    /// A required child is missing.
    #[error("<{element}/> lacks its child <{child}/>")]
    MissingChild {
        /// Local name of the element.
        element: &'static str,
        /// Local name of the child.
        child: &'static str,
    },
    /// A child, or the element itself, stands where it may not.
    #[error("<{element}/> is not expected here")]
    Unexpected {
        /// Local name of the element that holds it, or of itself.
        element: &'static str,
    },
}

impl Malformed {
    /// True if the fault is in the stream's XML, so that the stream cannot go on.
    #[must_use]
    pub fn ends_stream(&self) -> bool {
        matches!(self, Malformed::Xml { .. })
    }
}

/// What a refused IQ is answered with: one row of the answer table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// RFC 6120 condition.
    pub condition: StanzaCondition,
    /// RFC 6120 error type.
    pub kind: ErrorType,
    /// XEP-0166 condition beside it, if any.
    pub jingle: Option<JingleCondition>,
}

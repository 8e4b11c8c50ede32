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

impl ReasonCondition {
    /// What it means, as part of a sentence for people; the other side is "they".
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            ReasonCondition::AlternativeSession => "another call with them goes on instead",
            ReasonCondition::Busy => "they are busy",
            ReasonCondition::Cancel => "it was given up",
            ReasonCondition::ConnectivityError => "no network path was found",
            ReasonCondition::Decline => "they declined",
            ReasonCondition::Expired => "it came too late",
            ReasonCondition::FailedApplication => "no way to talk that both sides know",
            ReasonCondition::FailedTransport => "the network transport failed",
            ReasonCondition::GeneralError => "something went wrong there",
            ReasonCondition::Gone => "nobody is there to take it",
            ReasonCondition::IncompatibleParameters => "the settings of both sides do not fit",
            ReasonCondition::MediaError => "sound could not be opened or decoded",
            ReasonCondition::SecurityError => "the encryption was refused or could not be verified",
            ReasonCondition::Success => "it was ended",
            ReasonCondition::Timeout => "there was no answer in time",
            ReasonCondition::UnsupportedApplications => "they do not take such calls",
            ReasonCondition::UnsupportedTransports => "they do not know our way of connecting",
        }
    }
}

impl StreamCondition {
    /// Why a stream was ended, as part of a sentence for people.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            StreamCondition::Conflict => "another connection took this one's place",
            StreamCondition::ConnectionTimeout => "nothing came from us for too long",
            StreamCondition::HostGone | StreamCondition::HostUnknown => "it does not serve this domain",
            StreamCondition::InternalServerError => "it has a fault of its own",
            StreamCondition::NotAuthorized => "we are not signed in there",
            StreamCondition::PolicyViolation => "its policy forbids what we did",
            StreamCondition::RemoteConnectionFailed => "it cannot reach a service that it needs",
            StreamCondition::Reset => "it wants us to connect anew",
            StreamCondition::ResourceConstraint => "it has no room for us now",
            StreamCondition::SeeOtherHost => "it sends us to another host",
            StreamCondition::SystemShutdown => "it is being shut down",
            StreamCondition::UnsupportedEncoding
            | StreamCondition::UnsupportedFeature
            | StreamCondition::UnsupportedStanzaType
            | StreamCondition::UnsupportedVersion => "it does not support what we use",
            StreamCondition::BadFormat
            | StreamCondition::BadNamespacePrefix
            | StreamCondition::ImproperAddressing
            | StreamCondition::InvalidFrom
            | StreamCondition::InvalidNamespace
            | StreamCondition::InvalidXml
            | StreamCondition::NotWellFormed
            | StreamCondition::RestrictedXml => "it does not understand what we sent",
            StreamCondition::UndefinedCondition => "it does not say why",
        }
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

/// A rule of Jingle that the other side broke, or a wish of it that is refused; one row of section B each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PeerFault {
    /// The action is impossible in this state (XEP-0166 §10).
    OutOfOrder,
    /// The same action crossed on the way and this one lost (XEP-0166 §7.2.16, J166-47, J166-48).
    TieBreak,
    /// No such session between these two addresses, or not any more (J166-17, J166-65).
    UnknownSession,
    /// The payload of a session-info is not understood (J166-21).
    UnsupportedInfo,
    /// Data that belongs on the encrypted channel came as signalling (J166-58).
    SecurityRequired,
    /// Nobody here to talk to, as far as this peer may know (J166-04, J166-05).
    Unavailable,
    /// The call is to go to another address (J166-06).
    Redirected,
    /// A cap on sessions, contents or requests is reached (J166-07).
    NoResources,
    /// A required part is missing or has no meaning (J166-08, J166-31, J166-35, J166-44).
    BadRequest,
    /// No content of this session has that creator and name.
    UnknownContent,
}

impl PeerFault {
    /// Every fault, in the order of the table.
    pub const ALL: &'static [PeerFault] = &[
        PeerFault::OutOfOrder,
        PeerFault::TieBreak,
        PeerFault::UnknownSession,
        PeerFault::UnsupportedInfo,
        PeerFault::SecurityRequired,
        PeerFault::Unavailable,
        PeerFault::Redirected,
        PeerFault::NoResources,
        PeerFault::BadRequest,
        PeerFault::UnknownContent,
    ];
}

impl From<&Malformed> for PeerFault {
    fn from(_: &Malformed) -> Self {
        PeerFault::BadRequest
    }
}

/// The one table fault → answer, XEP-0166 §10 over RFC 6120 §8.3.3.
#[must_use]
pub const fn answer(fault: PeerFault) -> Answer {
    use {ErrorType as E, JingleCondition as J, StanzaCondition as S};
    let (condition, kind, jingle) = match fault {
        PeerFault::OutOfOrder => (S::UnexpectedRequest, E::Wait, Some(J::OutOfOrder)),
        PeerFault::TieBreak => (S::Conflict, E::Cancel, Some(J::TieBreak)),
        PeerFault::UnknownSession => (S::ItemNotFound, E::Cancel, Some(J::UnknownSession)),
        PeerFault::UnsupportedInfo => (S::FeatureNotImplemented, E::Modify, Some(J::UnsupportedInfo)),
        PeerFault::SecurityRequired => (S::NotAcceptable, E::Cancel, Some(J::SecurityRequired)),
        PeerFault::Unavailable => (S::ServiceUnavailable, E::Cancel, None),
        PeerFault::Redirected => (S::Redirect, E::Modify, None),
        PeerFault::NoResources => (S::ResourceConstraint, E::Wait, None),
        PeerFault::BadRequest => (S::BadRequest, E::Cancel, None),
        PeerFault::UnknownContent => (S::ItemNotFound, E::Cancel, None),
    };
    Answer { condition, kind, jingle }
}

/// Nothing in common: what ends a content or a session after its request was acknowledged (J166-03).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Incompatible {
    /// No application namespace in common.
    Applications,
    /// No transport namespace in common.
    Transports,
    /// No codec in common (J167-12).
    Codecs,
    /// No DTLS fingerprint, no acceptable key, or a downgrade (J167-17, J167-18, J320-05).
    Security,
}

impl Incompatible {
    /// The reason that names it on the wire.
    #[must_use]
    pub const fn reason(self) -> ReasonCondition {
        match self {
            Incompatible::Applications => ReasonCondition::UnsupportedApplications,
            Incompatible::Transports => ReasonCondition::UnsupportedTransports,
            Incompatible::Codecs => ReasonCondition::FailedApplication,
            Incompatible::Security => ReasonCondition::SecurityError,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_row_of_the_answer_table_is_as_the_standard_says() {
        let rows = [
            (PeerFault::OutOfOrder, "unexpected-request", "wait", Some("out-of-order")),
            (PeerFault::TieBreak, "conflict", "cancel", Some("tie-break")),
            (PeerFault::UnknownSession, "item-not-found", "cancel", Some("unknown-session")),
            (PeerFault::UnsupportedInfo, "feature-not-implemented", "modify", Some("unsupported-info")),
            (PeerFault::SecurityRequired, "not-acceptable", "cancel", Some("security-required")),
            (PeerFault::Unavailable, "service-unavailable", "cancel", None),
            (PeerFault::Redirected, "redirect", "modify", None),
            (PeerFault::NoResources, "resource-constraint", "wait", None),
            (PeerFault::BadRequest, "bad-request", "cancel", None),
            (PeerFault::UnknownContent, "item-not-found", "cancel", None),
        ];
        assert_eq!(rows.len(), PeerFault::ALL.len());
        for (fault, condition, kind, jingle) in rows {
            let given = answer(fault);
            assert_eq!(given.condition.as_str(), condition, "{fault:?}");
            assert_eq!(given.kind.as_str(), kind, "{fault:?}");
            assert_eq!(given.jingle.map(JingleCondition::as_str), jingle, "{fault:?}");
        }
    }

    #[test]
    fn there_are_seventeen_reasons_and_each_survives_the_wire() {
        assert_eq!(ReasonCondition::ALL.len(), 17);
        for reason in ReasonCondition::ALL {
            assert_eq!(ReasonCondition::parse(reason.as_str()), Some(*reason));
        }
    }

    #[test]
    fn what_is_incompatible_ends_with_its_own_reason() {
        assert_eq!(Incompatible::Applications.reason().as_str(), "unsupported-applications");
        assert_eq!(Incompatible::Transports.reason().as_str(), "unsupported-transports");
        assert_eq!(Incompatible::Codecs.reason().as_str(), "failed-application");
        assert_eq!(Incompatible::Security.reason().as_str(), "security-error");
    }

    #[test]
    fn what_cannot_be_read_is_a_bad_request() {
        let fault = Malformed::MissingAttribute { element: "jingle", attribute: "sid" };
        assert_eq!(answer(PeerFault::from(&fault)).condition, StanzaCondition::BadRequest);
    }
}

//! IQ requests that await an answer, and the answers that every endpoint owes. Read RFC 6120 §8.1.2.1, §8.2.3 and XEP-0199
//! before touching this file.

use crate::fault::{ErrorType, StanzaCondition};
use crate::wire::jid::{FullJid, Jid};
use crate::wire::stanza::{Iq, IqKind, IqPayload, IqType, StanzaError, StanzaFault};
use std::collections::BTreeMap;
use std::time::Instant;

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// With a result.
    Result(Option<IqPayload>),
    /// With an error.
    Error(Box<StanzaError>),
    /// With an answer that cannot be read.
    Malformed,
    /// With nothing.
    TimedOut,
}

/// Too many requests await an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests await an answer")]
pub struct TooManyRequests;

#[derive(Debug)]
struct Pending<T> {
    to: Option<Jid>,
    deadline: Instant,
    tag: T,
}

/// Requests by id. An answer counts only if it comes from whom the request went to. `T` says what the request was for.
#[derive(Debug)]
pub struct IqTracker<T> {
    own: FullJid,
    limit: usize,
    pending: BTreeMap<String, Pending<T>>,
}

impl<T> IqTracker<T> {
    /// For the address bound; `limit` caps the requests under way.
    #[must_use]
    pub fn new(own: FullJid, limit: usize) -> Self {
        Self { own, limit, pending: BTreeMap::new() }
    }

    /// A new session has a new address; requests stay.
    pub fn rebind(&mut self, own: FullJid) {
        self.own = own;
    }

    /// Notes a request that was sent. `to` is `None` for one's own account.
    ///
    /// # Errors
    /// [`TooManyRequests`].
    pub fn track(&mut self, id: String, to: Option<Jid>, deadline: Instant, tag: T) -> Result<(), TooManyRequests> {
        if self.pending.len() >= self.limit {
            return Err(TooManyRequests);
        }
        self.pending.insert(id, Pending { to, deadline, tag });
        Ok(())
    }

    /// Takes an answer: what the request was for, and how it ended. `None`: not an answer, or nobody asked for it, or it comes
    /// from somebody else; then nothing has changed.
    pub fn answer(&mut self, iq: &Iq) -> Option<(T, Outcome)> {
        let outcome = match &iq.kind {
            IqKind::Result(payload) => Outcome::Result(payload.clone()),
            IqKind::Error(error) => Outcome::Error(error.clone()),
            IqKind::Get(_) | IqKind::Set(_) => return None,
        };
        self.take(&iq.id, iq.from.as_ref()).map(|tag| (tag, outcome))
    }

    /// Takes an answer that cannot be read.
    pub fn malformed(&mut self, fault: &StanzaFault) -> Option<T> {
        if !matches!(fault.iq, Some(IqType::Result | IqType::Error)) {
            return None;
        }
        self.take(fault.id.as_deref()?, fault.from.as_ref())
    }

    /// Ends a request, for instance because [`super::stream::StreamEvent::Undelivered`] names it.
    pub fn cancel(&mut self, id: &str) -> Option<T> {
        self.pending.remove(id).map(|p| p.tag)
    }

    /// The next request whose time is over.
    pub fn expired(&mut self, now: Instant) -> Option<T> {
        let id = self.pending.iter().find(|(_, p)| p.deadline <= now).map(|(id, _)| id.clone())?;
        self.pending.remove(&id).map(|p| p.tag)
    }

    /// When [`Self::expired`] has something next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.values().map(|p| p.deadline).min()
    }

    /// Requests under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// True if nothing is awaited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn take(&mut self, id: &str, from: Option<&Jid>) -> Option<T> {
        let to = self.pending.get(id)?.to.as_ref();
        // RFC 6120 §8.1.2.1: our account and our server may leave out the address or write any of their own.
        let right = match (to, from) {
            (None, None) => true,
            (None, Some(from)) => self.is_own(from) || self.is_server(from),
            (Some(to), None) => self.is_own(to) || self.is_server(to),
            (Some(to), Some(from)) => to == from || (self.is_own(to) && self.is_own(from)),
        };
        if !right {
            return None;
        }
        self.pending.remove(id).map(|p| p.tag)
    }

    fn is_own(&self, jid: &Jid) -> bool {
        jid.node() == self.own.node()
            && jid.domain() == self.own.domain()
            && jid.resource().is_none_or(|r| r == self.own.resource())
    }

    fn is_server(&self, jid: &Jid) -> bool {
        jid.node().is_none() && jid.resource().is_none() && jid.domain() == self.own.domain()
    }
}

/// The answer to a request that no module claims: a ping is answered, everything else is service-unavailable
/// (RFC 6120 §8.4, XEP-0199 §4.3). A stranger gets what the server would say for us if we were not there (XEP-0199 §5).
/// `None` for answers: those are never answered.
#[must_use]
pub fn answer_unclaimed(iq: &Iq, knows_us: bool) -> Option<Iq> {
    let unavailable = StanzaError::new(ErrorType::Cancel, StanzaCondition::ServiceUnavailable);
    match &iq.kind {
        IqKind::Get(IqPayload::Ping) if knows_us => Some(iq.answer(IqKind::Result(None))),
        IqKind::Get(_) | IqKind::Set(_) => Some(iq.answer(IqKind::Error(Box::new(unavailable)))),
        IqKind::Result(_) | IqKind::Error(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::disallowed_methods,
        clippy::wildcard_enum_match_arm
    )]
    use super::*;
    use std::time::Duration;

    fn jid(text: &str) -> Jid {
        Jid::new(text).unwrap()
    }

    fn tracker() -> IqTracker<u8> {
        IqTracker::new(FullJid::new("juliet@capulet.lit/balcony").unwrap(), 3)
    }

    fn result(id: &str, from: Option<&str>) -> Iq {
        Iq { from: from.map(jid), ..Iq::new(None, id, IqKind::Result(None)) }
    }

    #[test]
    fn an_answer_counts_only_from_whom_was_asked() {
        let later = Instant::now() + Duration::from_secs(30);
        let mut t = tracker();
        t.track("a".into(), Some(jid("romeo@montague.lit/orchard")), later, 1).unwrap();
        let forged =
            ["romeo@montague.lit", "romeo@montague.lit/x", "montague.lit", "juliet@capulet.lit", "capulet.lit"];
        for from in forged {
            assert_eq!(t.answer(&result("a", Some(from))), None, "{from}");
        }
        assert_eq!(t.answer(&result("a", None)), None);
        assert_eq!(t.answer(&result("b", Some("romeo@montague.lit/orchard"))), None);
        assert_eq!(t.len(), 1);
        let right = t.answer(&result("a", Some("romeo@montague.lit/orchard")));
        assert_eq!(right, Some((1, Outcome::Result(None))));
        assert_eq!(t.answer(&result("a", Some("romeo@montague.lit/orchard"))), None, "answered once");
    }

    #[test]
    fn our_account_and_server_may_leave_out_their_address() {
        let later = Instant::now();
        for (to, from, right) in [
            (None, None, true),
            (None, Some("juliet@capulet.lit"), true),
            (None, Some("juliet@capulet.lit/balcony"), true),
            (None, Some("capulet.lit"), true),
            (None, Some("juliet@capulet.lit/other"), false),
            (None, Some("romeo@capulet.lit"), false),
            (Some("capulet.lit"), None, true),
            (Some("capulet.lit"), Some("capulet.lit"), true),
            (Some("capulet.lit"), Some("juliet@capulet.lit"), false),
            (Some("juliet@capulet.lit"), None, true),
        ] {
            let mut t = tracker();
            t.track("a".into(), to.map(jid), later, 1).unwrap();
            assert_eq!(t.answer(&result("a", from)).is_some(), right, "{to:?} {from:?}");
        }
    }

    #[test]
    fn requests_are_capped_and_time_out() {
        let now = Instant::now();
        let mut t = tracker();
        for n in 0..3 {
            t.track(n.to_string(), None, now + Duration::from_secs(n), u8::try_from(n).unwrap()).unwrap();
        }
        assert_eq!(t.track("x".into(), None, now, 9), Err(TooManyRequests));
        assert_eq!(t.poll_timeout(), Some(now));
        assert_eq!(t.expired(now), Some(0));
        assert_eq!(t.expired(now), None);
        assert_eq!(t.cancel("2"), Some(2));
        assert_eq!(t.len(), 1);
    }

    #[test]
    fn a_stranger_cannot_tell_us_from_an_absent_resource() {
        let ping = Iq { from: Some(jid("x@y/z")), ..Iq::new(None, "1", IqKind::Get(IqPayload::Ping)) };
        assert_eq!(answer_unclaimed(&ping, true).unwrap().kind, IqKind::Result(None));
        let refused = answer_unclaimed(&ping, false).unwrap();
        assert!(matches!(refused.kind, IqKind::Error(e) if e.condition == StanzaCondition::ServiceUnavailable));
        let unknown = IqPayload::Unknown { ns: "urn:x".into(), name: "y".into() };
        let unknown = Iq::new(None, "1", IqKind::Set(unknown));
        assert!(matches!(answer_unclaimed(&unknown, true).unwrap().kind, IqKind::Error(_)));
        assert_eq!(answer_unclaimed(&result("1", None), true), None);
    }
}

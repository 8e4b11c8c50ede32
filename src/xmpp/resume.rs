//! Acknowledged stanzas and what is left of a session when its connection is gone. Read XEP-0198 §3 to §5 before touching
//! this file.
//!
//! ```text
//! sent:      1 … h │ h+1 … n        h: what the server acknowledged; h+1 … n are kept and sent again after `resumed`
//! received:  1 … h                  h: what we acknowledge; both count modulo 2^32
//! request:   Idle ─stanza─▶ Due ─time or count─▶ Pending ─a─▶ Idle
//! ```

use crate::wire::stream::SmEnabled;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A stanza that the server has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unacked {
    /// Of the stanza.
    pub id: String,
    /// As it was sent.
    pub text: String,
}

/// The server acknowledged more than was sent, XEP-0198 §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{h} acknowledged, {send_count} sent")]
pub struct TooHigh {
    /// The server's count.
    pub h: u32,
    /// Ours.
    pub send_count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Idle,
    Due(Instant),
    Pending,
}

/// One session of stream management. It outlives its connection.
#[derive(Debug)]
pub struct SmSession {
    enabled: SmEnabled,
    received: u32,
    acked: u32,
    unacked: VecDeque<Unacked>,
    unacked_bytes: usize,
    since_request: u32,
    request: Request,
}

impl SmSession {
    /// Begins to count.
    #[must_use]
    pub fn new(enabled: SmEnabled) -> Self {
        Self {
            enabled,
            received: 0,
            acked: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            since_request: 0,
            request: Request::Idle,
        }
    }

    /// The name for `<resume/>`, if the server offered resumption.
    #[must_use]
    pub fn previd(&self) -> Option<&str> {
        self.enabled.id.as_deref().filter(|_| self.enabled.resume)
    }

    /// Where the server wants the resumption, host and perhaps port.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.enabled.location.as_deref()
    }

    /// Stanzas handled, for `<a/>` and `<resume/>`.
    #[must_use]
    pub fn h(&self) -> u32 {
        self.received
    }

    /// Counts a stanza of the server, malformed ones too.
    pub fn count_received(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    /// Counts and keeps a stanza of ours.
    pub fn sent(&mut self, now: Instant, stanza: Unacked, wait: Duration) {
        self.unacked_bytes += stanza.text.len();
        self.unacked.push_back(stanza);
        self.since_request = self.since_request.saturating_add(1);
        if self.request == Request::Idle {
            self.request = Request::Due(now + wait);
        }
    }

    /// When a request for acknowledgement is due.
    #[must_use]
    pub fn request_due(&self) -> Option<Instant> {
        match self.request {
            Request::Due(at) => Some(at),
            Request::Idle | Request::Pending => None,
        }
    }

    /// True if `<r/>` has to be sent now: after `every` stanzas or when it is due.
    #[must_use]
    pub fn wants_request(&self, now: Instant, every: u32) -> bool {
        match self.request {
            Request::Due(at) => at <= now || self.since_request >= every,
            Request::Idle | Request::Pending => false,
        }
    }

    /// Notes that `<r/>` went out.
    pub fn requested(&mut self) {
        self.request = Request::Pending;
        self.since_request = 0;
    }

    /// True if `<r/>` is unanswered.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.request == Request::Pending
    }

    /// Takes the server's count and gives the ids of what it newly acknowledges. A count that goes back is old and
    /// says nothing.
    ///
    /// # Errors
    /// [`TooHigh`]; nothing has changed then.
    pub fn ack(&mut self, now: Instant, h: u32, wait: Duration) -> Result<Vec<String>, TooHigh> {
        let ids = self.forget(h)?;
        self.request = if self.unacked.is_empty() { Request::Idle } else { Request::Due(now + wait) };
        Ok(ids)
    }

    /// The server resumed the session: what it acknowledges with it, and the text to send again. Request state starts anew.
    ///
    /// # Errors
    /// [`TooHigh`].
    pub fn resumed(&mut self, now: Instant, h: u32) -> Result<(Vec<String>, Vec<String>), TooHigh> {
        let ids = self.forget(h)?;
        self.since_request = u32::try_from(self.unacked.len()).unwrap_or(u32::MAX);
        self.request = if self.unacked.is_empty() { Request::Idle } else { Request::Due(now) };
        Ok((ids, self.unacked.iter().map(|u| u.text.clone()).collect()))
    }

    /// The session is over: what it acknowledges with the last count, then what nobody knows about.
    #[must_use]
    pub fn fail(mut self, h: Option<u32>) -> (Vec<String>, Vec<String>) {
        let acked = h.and_then(|h| self.forget(h).ok()).unwrap_or_default();
        (acked, self.unacked.into_iter().map(|u| u.id).collect())
    }

    /// Stanzas and bytes kept.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        (self.unacked.len(), self.unacked_bytes)
    }

    /// Our count, modulo 2^32.
    #[must_use]
    pub fn send_count(&self) -> u32 {
        // The cap on the queue keeps the length far below 2^32.
        self.acked.wrapping_add(u32::try_from(self.unacked.len()).unwrap_or(u32::MAX))
    }

    fn forget(&mut self, h: u32) -> Result<Vec<String>, TooHigh> {
        let newly = h.wrapping_sub(self.acked);
        if newly > u32::MAX / 2 {
            return Ok(Vec::new());
        }
        let newly = usize::try_from(newly).unwrap_or(usize::MAX);
        if newly > self.unacked.len() {
            return Err(TooHigh { h, send_count: self.send_count() });
        }
        self.acked = h;
        let gone: Vec<Unacked> = self.unacked.drain(..newly).collect();
        self.unacked_bytes -= gone.iter().map(|u| u.text.len()).sum::<usize>();
        Ok(gone.into_iter().map(|u| u.id).collect())
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
    use proptest::prelude::*;

    const WAIT: Duration = Duration::from_secs(2);

    fn session() -> SmSession {
        SmSession::new(SmEnabled { id: Some("s".into()), resume: true, ..SmEnabled::default() })
    }

    fn stanza(n: usize) -> Unacked {
        Unacked { id: n.to_string(), text: format!("<message id='{n}'/>") }
    }

    #[test]
    fn counters_wrap_at_2_to_the_32() {
        let now = Instant::now();
        let mut sm = session();
        sm.acked = u32::MAX - 1;
        sm.received = u32::MAX;
        for n in 0..4 {
            sm.sent(now, stanza(n), WAIT);
        }
        sm.count_received();
        assert_eq!(sm.h(), 0);
        assert_eq!(sm.send_count(), 2);
        assert_eq!(sm.ack(now, 1, WAIT).unwrap(), ["0", "1", "2"]);
        assert_eq!(sm.ack(now, 3, WAIT), Err(TooHigh { h: 3, send_count: 2 }));
        assert_eq!(sm.ack(now, 2, WAIT).unwrap(), ["3"]);
        assert_eq!(sm.kept(), (0, 0));
    }

    #[test]
    fn a_duplicated_or_old_ack_changes_nothing() {
        let now = Instant::now();
        let mut sm = session();
        (0..3).for_each(|n| sm.sent(now, stanza(n), WAIT));
        assert_eq!(sm.ack(now, 2, WAIT).unwrap(), ["0", "1"]);
        assert!(sm.ack(now, 2, WAIT).unwrap().is_empty());
        assert!(sm.ack(now, 1, WAIT).unwrap().is_empty());
        assert_eq!(sm.kept().0, 1);
    }

    #[test]
    fn a_request_goes_out_after_n_stanzas_or_two_seconds_and_only_once() {
        let now = Instant::now();
        let mut sm = session();
        assert_eq!(sm.request_due(), None);
        sm.sent(now, stanza(0), WAIT);
        assert!(!sm.wants_request(now, 5) && sm.wants_request(now + WAIT, 5));
        (1..5).for_each(|n| sm.sent(now, stanza(n), WAIT));
        assert!(sm.wants_request(now, 5));
        sm.requested();
        (5..20).for_each(|n| sm.sent(now, stanza(n), WAIT));
        assert!(!sm.wants_request(now + WAIT, 5) && sm.is_pending());
        sm.ack(now, 5, WAIT).unwrap();
        assert!(sm.wants_request(now, 5));
    }

    proptest! {
        /// Whatever is acknowledged in whatever steps: each stanza is acknowledged once, in order, or replayed.
        #[test]
        fn each_stanza_is_acknowledged_once_or_sent_again(start: u32, steps in prop::collection::vec((0usize..8, 0usize..8), 0..40)) {
            let now = Instant::now();
            let mut sm = session();
            sm.acked = start;
            let (mut sent, mut acked) = (0, Vec::new());
            for (send, ack) in steps {
                for _ in 0..send {
                    sm.sent(now, stanza(sent), WAIT);
                    sent += 1;
                }
                let target = (acked.len() + ack).min(sent);
                acked.extend(sm.ack(now, start.wrapping_add(target as u32), WAIT).unwrap());
            }
            let (more, again) = sm.resumed(now, sm.acked).unwrap();
            prop_assert!(more.is_empty());
            prop_assert_eq!(acked.len() + again.len(), sent);
            prop_assert_eq!(&acked, &(0..acked.len()).map(|n| n.to_string()).collect::<Vec<_>>());
            prop_assert_eq!(sm.kept().1, again.iter().map(String::len).sum::<usize>());
        }
    }
}

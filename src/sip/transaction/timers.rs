//! The timers of every transaction in one table. Read RFC 3261 table 4 and RFC 6026 §8.1 before touching this file.

use crate::config::SipTimers;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Why a transaction is woken. Letters are the standard's; C belongs to proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// INVITE is sent again (UDP).
    A,
    /// INVITE has no answer.
    B,
    /// Repeated failures of an INVITE are acknowledged until then.
    D,
    /// A request other than INVITE is sent again (UDP).
    E,
    /// A request other than INVITE has no final answer.
    F,
    /// The failure of an INVITE is sent again (UDP).
    G,
    /// The ACK of a failure will never come.
    H,
    /// Repeated ACKs are absorbed until then.
    I,
    /// Repeated requests other than INVITE are answered until then.
    J,
    /// Repeated answers to a request other than INVITE are absorbed until then.
    K,
    /// Repeated INVITEs that were answered 2xx are absorbed until then (RFC 6026).
    L,
    /// 2xx of an INVITE are passed up until then (RFC 6026).
    M,
    /// The user has not answered an INVITE: 100 is sent (RFC 3261 §17.2.1).
    Trying,
    /// The user has not answered another request, and the peer's timer F has fired: there is nobody left to answer
    /// (RFC 4320 §4.2: a 408 is not sent).
    Unanswered,
    /// An INVITE that was cancelled has no final answer (RFC 3261 §9.1).
    Cancelled,
}

/// What every transition needs to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) timers: &'a SipTimers,
    /// The transport repeats for itself: timers that wait for copies are 0 (RFC 3261 §17).
    pub(super) reliable: bool,
}

impl Context<'_> {
    /// 64·T1: timers B, F, H, L, M, and D and J on UDP.
    pub(super) fn long(&self) -> Instant {
        self.now + self.timers.t1 * 64
    }

    pub(super) fn after(&self, wait: Duration) -> Instant {
        self.now + wait
    }

    /// The interval after this one for timers E and G.
    pub(super) fn doubled(&self, interval: Duration) -> Duration {
        (interval * 2).min(self.timers.t2)
    }
}

/// The timers that run for one transaction: two at most, one for the next copy and one for the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Armed([Option<(Timer, Instant)>; 2]);

impl Armed {
    /// Starts a timer, or starts it anew.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        let [first, second] = &mut self.0;
        let slot = if first.is_none_or(|(armed, _)| armed == timer) { first } else { second };
        debug_assert!(slot.is_none_or(|(armed, _)| armed == timer), "a transaction has two timers");
        *slot = Some((timer, at));
    }

    /// Forgets one that has fired.
    pub(super) fn fired(&mut self, timer: Timer) {
        for slot in &mut self.0 {
            if slot.is_some_and(|(armed, _)| armed == timer) {
                *slot = None;
            }
        }
    }

    /// Stops all.
    pub(super) fn clear(&mut self) {
        self.0 = [None; 2];
    }

    fn iter(&self) -> impl Iterator<Item = (Timer, Instant)> {
        self.0.iter().flatten().copied()
    }
}

/// Every timer that runs, by the name `W` of its transaction.
#[derive(Debug)]
pub(super) struct Deadlines<W>(BTreeSet<(Instant, Timer, W)>);

impl<W> Default for Deadlines<W> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<W: Copy + Ord> Deadlines<W> {
    /// The timers of one transaction changed.
    pub(super) fn change(&mut self, who: W, before: Armed, after: Armed) {
        if before == after {
            return;
        }
        for (timer, at) in before.iter() {
            self.0.remove(&(at, timer, who));
        }
        for (timer, at) in after.iter() {
            self.0.insert((at, timer, who));
        }
    }

    /// The next timer that is due, taken out.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Timer, W)> {
        let (at, timer, who) = *self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some((timer, who))
    }

    /// When the next one is due, and why.
    pub(super) fn next(&self) -> Option<(Instant, Timer)> {
        self.0.first().map(|(at, timer, _)| (*at, *timer))
    }
}

//! Session timers: a call whose signalling is dead ends. Read RFC 4028 before touching this file.

use crate::sip::session::{Context, Session};
use crate::wire::sip::{Header, Headers, Refresher, SessionExpires};
use std::time::{Duration, Instant};

/// The timer of a session.
///
/// ```text
///   agreed ── refresher: half of it ─▶ refresh ── 2xx ─▶ agreed anew
///     └────── nobody refreshed: BYE ── min(32 s, a third) before its end (§10)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionTimer {
    /// `None` once a refresh is on its way, or where the other side refreshes.
    pub(crate) refresh_at: Option<Instant>,
    /// The BYE leaves then.
    pub(crate) ends_at: Instant,
    pub(crate) seconds: u32,
    pub(crate) ours: bool,
}

impl SessionTimer {
    /// `ours`: we are the refresher.
    pub(crate) fn new(now: Instant, seconds: u32, ours: bool) -> Self {
        let interval = Duration::from_secs(u64::from(seconds));
        // RFC 4028 §10.
        let margin = Duration::from_secs(32).min(interval / 3);
        Self { refresh_at: ours.then(|| now + interval / 2), ends_at: now + interval - margin, seconds, ours }
    }
}

/// The interval is shorter than ours may be: 422 with this `Min-SE` (RFC 4028 §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooBrief(pub(crate) u32);

/// What our 2xx to this request says of the timer (RFC 4028 §9, table 2); `refresher` as seen from the request.
pub(crate) fn agree(context: &Context, headers: &Headers) -> Result<Option<SessionExpires>, TooBrief> {
    let policy = &context.timers;
    let peer_knows = headers.supports("timer");
    let asked = headers.session_expires();
    let seconds = match asked {
        Some(asked) if asked.seconds < policy.min_session_s => {
            // A peer without the extension could not act on 422; a proxy of its way asked for it.
            if peer_knows {
                return Err(TooBrief(policy.min_session_s));
            }
            policy.min_session_s
        }
        Some(asked) => asked.seconds.min(policy.session_s.max(headers.min_se().unwrap_or(0))),
        None if peer_knows && policy.offer_timer => policy.session_s.max(headers.min_se().unwrap_or(0)),
        None => return Ok(None),
    };
    let refresher = match asked.and_then(|asked| asked.refresher) {
        Some(refresher) if peer_knows => refresher,
        None if peer_knows => Refresher::Uac,
        Some(_) | None => Refresher::Uas,
    };
    Ok(Some(SessionExpires { seconds, refresher: Some(refresher) }))
}

impl Session {
    /// Headers of a request of ours that begins or refreshes a session (RFC 4028 §7.1, §7.4).
    pub(crate) fn timer_request(&self, timer: Option<SessionTimer>) -> Vec<Header> {
        let policy = &self.context.timers;
        let mut headers = Vec::new();
        if let Some(timer) = timer {
            let refresher = Some(if timer.ours { Refresher::Uac } else { Refresher::Uas });
            let seconds = timer.seconds.max(self.min_se);
            headers.push(Header::SessionExpires(SessionExpires { seconds, refresher }));
        } else if policy.offer_timer {
            let seconds = policy.session_s.max(self.min_se);
            headers.push(Header::SessionExpires(SessionExpires { seconds, refresher: None }));
        } else {
            return headers;
        }
        // RFC 4028 §5: 90 s where it is not said.
        if self.min_se.max(policy.min_session_s) != 90 {
            headers.push(Header::MinSe(self.min_se.max(policy.min_session_s)));
        }
        headers
    }

    /// The timer that a 2xx to a request of ours says (RFC 4028 §7.2).
    pub(crate) fn timer_from_success(now: Instant, headers: &Headers) -> Option<SessionTimer> {
        let agreed = headers.session_expires()?;
        let ours = match agreed.refresher {
            Some(Refresher::Uac) | None => true,
            Some(Refresher::Uas) => false,
        };
        // Some say less than the 90 s of §5, and mean it; a few seconds would end the session at once.
        (agreed.seconds >= 20).then(|| SessionTimer::new(now, agreed.seconds, ours))
    }

    /// The timer that our 2xx says, and its headers.
    pub(crate) fn timer_as_server(
        now: Instant,
        agreed: Option<SessionExpires>,
        peer_knows: bool,
    ) -> (Option<SessionTimer>, Vec<Header>) {
        let Some(agreed) = agreed else { return (None, Vec::new()) };
        let theirs = agreed.refresher == Some(Refresher::Uac);
        let mut headers = vec![Header::SessionExpires(agreed)];
        // RFC 4028 §9: required where the caller is the refresher.
        if theirs && peer_knows {
            headers.push(Header::Require(super::tokens(&["timer"])));
        }
        (Some(SessionTimer::new(now, agreed.seconds, !theirs)), headers)
    }
}

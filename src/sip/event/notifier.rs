//! Subscriptions of others at us. Read RFC 6665 §4.2 before touching this file.

use super::{Document, EventNews, Package, Shared, whole_seconds};
use crate::config::SipEventLimits;
use crate::sip::dialog::Dialog;
use crate::sip::exchange::ServerId;
use crate::sip::words;
use crate::wire::sip::{
    CallId, Event, Header, Method, Params, Request, Response, SipText, Status, SubscriptionState, Tag, Token,
};
use std::time::{Duration, Instant};

/// What `Retry-After` says where there are too many: they are refreshed within the hour.
const RETRY_AFTER_S: u32 = 600;

/// ```text
///  SUBSCRIBE ─▶ Standing ── another document, at least 5 s after the last ─▶ NOTIFY, stays
///                  ├── refused NOTIFY, no answer ─────────────────────────────────────────▶ Over
///                  └── ran out, Expires: 0, closed ─▶ Ending ── last NOTIFY answered or not ─▶ Over
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Standing,
    Ending { reason: &'static str, told: bool },
    Over,
}

#[derive(Debug)]
pub(super) struct Watcher {
    package: Package,
    /// As it is to be repeated: with its `id`.
    event: Event,
    user: String,
    entity: crate::wire::sip::Uri,
    dialog: Dialog,
    phase: Phase,
    until: Instant,
    /// A notification is to be sent then.
    notify_at: Option<Instant>,
    last: Option<Instant>,
    under_way: Option<u32>,
    number: u32,
    version: u32,
}

impl Watcher {
    /// Answers a SUBSCRIBE that makes a new subscription; `full`: there are as many as may be.
    pub(super) fn accept(
        now: Instant,
        id: ServerId,
        request: &Request,
        full: bool,
        shared: &mut Shared,
    ) -> Option<(u64, Self)> {
        let Some((event, package)) = request.headers.event().and_then(|event| Some((event, Package::of(event)?)))
        else {
            // RFC 6665 §4.2.1.1: "MUST" be 489, with what is understood.
            shared.answer(id, request, Status::BAD_EVENT, None, vec![allow_events()]);
            return None;
        };
        let expires_s = match granted(request, &shared.config.limits) {
            Ok(expires_s) => expires_s,
            Err(least) => {
                shared.answer(id, request, Status::INTERVAL_TOO_BRIEF, None, vec![Header::MinExpires(least)]);
                return None;
            }
        };
        if !accepts(request, package) {
            shared.answer(id, request, Status::NOT_ACCEPTABLE, None, Vec::new());
            return None;
        }
        if request.headers.contact.is_empty() || request.headers.from.tag().is_none() {
            shared.answer(id, request, Status::BAD_REQUEST, None, Vec::new());
            return None;
        }
        if full {
            let later = vec![Header::RetryAfter(RETRY_AFTER_S)];
            shared.answer(id, request, Status::SERVICE_UNAVAILABLE, None, later);
            return None;
        }
        let tag = words::tag(&mut shared.rng);
        shared.answer(id, request, Status::OK, Some(tag.clone()), vec![Header::Expires(expires_s)]);
        let number = shared.new_id();
        let user = request.uri.user().unwrap_or_default().to_owned();
        let mut watcher = Self {
            package,
            event: event.clone(),
            user: user.clone(),
            entity: request.headers.to.uri.clone(),
            dialog: Dialog::callee(request, tag),
            phase: Phase::Standing,
            until: now,
            notify_at: Some(now),
            last: None,
            under_way: None,
            number: 0,
            version: 0,
        };
        watcher.lasts(now, expires_s);
        let from = request.headers.from.clone();
        shared.news.push_back(EventNews::Watched { id: number, package, from, user });
        Some((number, watcher))
    }

    pub(super) fn package(&self) -> Package {
        self.package
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn is_named(&self, call_id: &CallId, to_tag: &Tag) -> bool {
        self.dialog.call_id() == call_id && self.dialog.local_tag() == to_tag
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let notify_at = self.notify_at.filter(|_| self.under_way.is_none());
        match self.phase {
            Phase::Standing => Some(notify_at.map_or(self.until, |at| at.min(self.until))),
            Phase::Ending { .. } | Phase::Over => notify_at,
        }
    }

    /// A SUBSCRIBE in its dialog (RFC 6665 §4.2.1.2).
    pub(super) fn refreshed(&mut self, now: Instant, id: ServerId, request: &Request, shared: &mut Shared) {
        let fine = request.headers.event().and_then(Package::of) == Some(self.package);
        let status = if !fine {
            Status::BAD_EVENT
        } else if self.dialog.heard(request.headers.cseq.number).is_err() {
            Status::SERVER_INTERNAL_ERROR
        } else if self.phase != Phase::Standing {
            Status::NO_SUCH_TRANSACTION
        } else {
            Status::OK
        };
        if status != Status::OK {
            return shared.answer(id, request, status, None, Vec::new());
        }
        match granted(request, &shared.config.limits) {
            Ok(expires_s) => {
                self.dialog.refresh(&request.headers.contact);
                shared.answer(id, request, Status::OK, None, vec![Header::Expires(expires_s)]);
                self.lasts(now, expires_s);
                // §4.2.1.2: a NOTIFY follows at once, whatever was told before.
                self.notify_at = Some(now);
            }
            Err(least) => {
                shared.answer(id, request, Status::INTERVAL_TOO_BRIEF, None, vec![Header::MinExpires(least)]);
            }
        }
    }

    /// There is something new to tell.
    pub(super) fn changed(&mut self, now: Instant, limits: &SipEventLimits) {
        let at = self.last.map_or(now, |last| now.max(last + limits.spacing));
        if self.phase == Phase::Standing && self.notify_at.is_none_or(|before| before > at) {
            self.notify_at = Some(at);
        }
    }

    /// The end of it from our side.
    pub(super) fn close(&mut self, reason: &'static str) {
        if self.phase == Phase::Standing {
            self.phase = Phase::Ending { reason, told: false };
            self.notify_at = self.notify_at.or(Some(self.until));
        }
    }

    /// Sends the notification that is due.
    pub(super) fn notify(&mut self, now: Instant, id: u64, shown: Option<&Document>, shared: &mut Shared) {
        if self.phase == Phase::Standing && self.until <= now {
            self.phase = Phase::Ending { reason: "timeout", told: false };
        }
        let due = match self.phase {
            Phase::Standing => self.notify_at.is_some_and(|at| at <= now),
            Phase::Ending { told, .. } => !told,
            Phase::Over => false,
        };
        if !due || self.under_way.is_some() {
            return;
        }
        self.notify_at = None;
        self.last = Some(now);
        let mut request = self.dialog.request(Method::Notify);
        request.headers.contact.push(shared.config.contact.clone());
        request.headers.rest.push(Header::Event(self.event.clone()));
        let mut params = Params::default();
        let state = match &mut self.phase {
            Phase::Standing => {
                let left = whole_seconds(self.until.saturating_duration_since(now));
                params.set("expires", Some(&left.to_string()));
                "active"
            }
            Phase::Ending { reason, told } => {
                params.set("reason", Some(reason));
                *told = true;
                "terminated"
            }
            Phase::Over => return,
        };
        let state = SubscriptionState { state: Token::lossy(state), params };
        request.headers.rest.push(Header::SubscriptionState(state));
        let neutral;
        let document = match shown {
            Some(document) => document,
            None => {
                neutral = Document::neutral(self.package, &self.entity);
                &neutral
            }
        };
        document.write(&mut request, self.version);
        self.version = self.version.wrapping_add(1);
        self.number = self.number.wrapping_add(1);
        self.under_way = Some(self.number);
        shared.send(id, self.number, request);
    }

    pub(super) fn answered(
        &mut self,
        now: Instant,
        number: u32,
        response: &Response,
        cseq: u32,
        limits: &SipEventLimits,
    ) {
        if self.under_way.take_if(|under_way| *under_way == number).is_none() {
            return;
        }
        self.dialog.sent(cseq);
        let ended = matches!(self.phase, Phase::Ending { told: true, .. });
        let later = response.headers.retry_after().filter(|_| !response.status.is_success());
        if ended {
            self.phase = Phase::Over;
        } else if let Some(seconds) = later {
            // RFC 6665 §4.2.2
            self.notify_at = Some(now + Duration::from_secs(seconds.into()).min(limits.expires));
        } else if !response.status.is_success() {
            self.phase = Phase::Over;
        }
    }

    /// RFC 6665 §4.2.2: without an answer it does not stand any more.
    pub(super) fn failed(&mut self, number: u32) {
        if self.under_way.take_if(|under_way| *under_way == number).is_some() {
            self.phase = Phase::Over;
        }
    }

    fn lasts(&mut self, now: Instant, expires_s: u32) {
        self.until = now + Duration::from_secs(expires_s.into());
        // Expires: 0 asks for one notification (RFC 6665 §4.4.3).
        if expires_s == 0 {
            self.phase = Phase::Ending { reason: "timeout", told: false };
        }
    }
}

/// `Allow-Events` of ours.
pub(in crate::sip) fn allow_events() -> Header {
    Header::AllowEvents(Package::ALL.iter().map(|package| Token::lossy(package.name())).collect())
}

/// # Errors
/// The least that may be asked for.
fn granted(request: &Request, limits: &SipEventLimits) -> Result<u32, u32> {
    let (longest, shortest) = (whole_seconds(limits.expires), whole_seconds(limits.shortest));
    match request.headers.expires() {
        Some(0) => Ok(0),
        Some(seconds) if seconds < shortest => Err(shortest),
        Some(seconds) => Ok(seconds.min(longest)),
        None => Ok(longest),
    }
}

/// RFC 6665 §3.1.3: no `Accept` means the package's own type.
fn accepts(request: &Request, package: Package) -> bool {
    let mut lists = request.headers.accept().map(SipText::as_str);
    let mut any = false;
    let found = lists.any(|list| {
        any = true;
        list.split(',').any(|media| {
            let media = media.split(';').next().unwrap_or_default().trim();
            let (kind, _) = package.media().split_once('/').unwrap_or_default();
            media == "*/*"
                || media.eq_ignore_ascii_case(package.media())
                || media.strip_suffix("/*").is_some_and(|k| k.eq_ignore_ascii_case(kind))
        })
    });
    found || !any
}

//! Publications. Read RFC 3903 §4 before touching this file.

use super::{Ask, Document, EventFault, EventNews, Shared, whole_seconds};
use crate::sip::exchange::Failure;
use crate::sip::words;
use crate::wire::sip::{CallId, Header, Method, Request, Response, Status, Tag, Token};
use std::time::{Duration, Instant};

/// Times that a longer time is asked for after 423, and a publication begun anew after 412.
const TRIES: u8 = 3;

/// ```text
///  publish ─▶ Asking ── 2xx, SIP-ETag ─▶ Holding ── half of its time: refresh; another document: modify ─▶ Asking
///               │ 412: the server forgot it, all over again
///               ├── failure that may pass ─▶ Waiting ─▶ Asking
///               └── refused for good; end ─▶ remove answered ─▶ Over
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asking { number: u32, ask: Ask },
    Holding { refresh: Instant },
    Waiting { again: Instant },
    Over,
}

#[derive(Debug)]
pub(super) struct Publication {
    id: u64,
    document: Document,
    call_id: CallId,
    tag: Tag,
    cseq: u32,
    number: u32,
    etag: Option<Token>,
    phase: Phase,
    next: Option<Ask>,
    expires_s: u32,
    tries: u8,
    failures: u32,
    version: u32,
}

impl Publication {
    pub(super) fn new(id: u64, document: Document, shared: &mut Shared) -> Self {
        Self {
            id,
            document,
            call_id: words::call_id(&mut shared.rng),
            tag: words::tag(&mut shared.rng),
            cseq: 0,
            number: 0,
            etag: None,
            phase: Phase::Over,
            next: None,
            expires_s: whole_seconds(shared.config.limits.expires),
            tries: 0,
            failures: 0,
            version: 0,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Holding { refresh } => Some(refresh),
            Phase::Waiting { again } => Some(again),
            Phase::Asking { .. } | Phase::Over => None,
        }
    }

    pub(super) fn modify(&mut self, document: Document, shared: &mut Shared) {
        self.document = document;
        match self.phase {
            Phase::Waiting { .. } | Phase::Over => {}
            Phase::Asking { .. } | Phase::Holding { .. } => self.ask(Ask::Modify, shared),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) {
        if self.due().is_some_and(|due| due <= now) {
            let ask = if self.etag.is_some() { Ask::Refresh } else { Ask::Begin };
            self.ask(ask, shared);
        }
    }

    pub(super) fn ask(&mut self, ask: Ask, shared: &mut Shared) {
        // RFC 3903 §4: "MUST NOT send a new PUBLISH request … until" the last is answered. An end is not overruled.
        if let Phase::Asking { .. } = self.phase {
            if self.next != Some(Ask::End) {
                self.next = Some(ask);
            }
            return;
        }
        // What is published nowhere is not removed, refreshed or modified there.
        let ask = match (ask, &self.etag) {
            (Ask::End, None) => {
                self.phase = Phase::Over;
                shared.news.push_back(EventNews::Ended { id: self.id });
                return;
            }
            (Ask::Refresh | Ask::Modify, None) => Ask::Begin,
            (ask, _) => ask,
        };
        self.cseq = self.cseq.saturating_add(1);
        self.number = self.number.wrapping_add(1);
        self.phase = Phase::Asking { number: self.number, ask };
        let identity = shared.config.identity.clone();
        let (uri, from) = (identity.uri.clone(), identity.clone().with_tag(&self.tag));
        let mut request = Request::new(Method::Publish, uri, from, identity, self.call_id.clone(), self.cseq);
        request.headers.route.clone_from(&shared.config.route);
        request.headers.rest.push(self.document.package().header());
        request.headers.rest.push(Header::Expires(if ask == Ask::End { 0 } else { self.expires_s }));
        if let Some(etag) = self.etag.clone().filter(|_| ask != Ask::Begin) {
            request.headers.rest.push(Header::SipIfMatch(etag));
        }
        // RFC 3903 §4.1: refresh and remove have no body.
        if matches!(ask, Ask::Begin | Ask::Modify) {
            self.document.write(&mut request, self.version);
            self.version = self.version.wrapping_add(1);
        }
        shared.send(self.id, self.number, request);
    }

    pub(super) fn answered(&mut self, now: Instant, number: u32, response: &Response, cseq: u32, shared: &mut Shared) {
        let Some(ask) = self.asked(number) else { return };
        self.cseq = self.cseq.max(cseq);
        if ask == Ask::End {
            return self.over(shared);
        }
        if response.status.is_success() {
            self.agreed(now, response, shared);
        } else {
            self.refused(now, ask, response, shared);
        }
        if let Some(next) = self.next.take_if(|_| !matches!(self.phase, Phase::Over)) {
            self.ask(next, shared);
        }
    }

    pub(super) fn failed(&mut self, now: Instant, number: u32, why: Failure, shared: &mut Shared) {
        let Some(ask) = self.asked(number) else { return };
        if ask == Ask::End || self.next == Some(Ask::End) {
            return self.over(shared);
        }
        let for_good = matches!(why, Failure::Certificate(_) | Failure::Unauthorized(_));
        self.lost(now, EventFault::Failed(why), for_good, None, shared);
    }

    fn asked(&self, number: u32) -> Option<Ask> {
        match self.phase {
            Phase::Asking { number: current, ask } if current == number => Some(ask),
            Phase::Asking { .. } | Phase::Holding { .. } | Phase::Waiting { .. } | Phase::Over => None,
        }
    }

    fn agreed(&mut self, now: Instant, response: &Response, shared: &mut Shared) {
        self.etag = response.headers.sip_etag().cloned();
        (self.tries, self.failures) = (0, 0);
        let granted_s = response.headers.expires().unwrap_or(self.expires_s);
        let refresh = &shared.config.refresh;
        let granted = Duration::from_secs(granted_s.into()).min(refresh.longest);
        self.phase = Phase::Holding { refresh: now + (granted / 2).max(refresh.shortest) };
        shared.news.push_back(EventNews::Published { id: self.id, until: now + granted });
    }

    fn refused(&mut self, now: Instant, ask: Ask, response: &Response, shared: &mut Shared) {
        let status = response.status;
        let longest = whole_seconds(shared.config.refresh.longest);
        let wanted = response.headers.min_expires().filter(|s| *s > self.expires_s && *s <= longest);
        if self.tries < TRIES && self.next != Some(Ask::End) {
            // RFC 3903 §4.2: the server forgot it.
            if status == Status::CONDITIONAL_REQUEST_FAILED && ask != Ask::Begin {
                self.tries += 1;
                (self.etag, self.phase) = (None, Phase::Waiting { again: now });
                return self.ask(Ask::Begin, shared);
            }
            if let Some(wanted) = wanted.filter(|_| status == Status::INTERVAL_TOO_BRIEF) {
                self.tries += 1;
                (self.expires_s, self.phase) = (wanted, Phase::Waiting { again: now });
                return self.ask(ask, shared);
            }
        }
        let why = EventFault::Refused { status, reason: response.reason.clone() };
        let wait = response.headers.retry_after().map(|s| Duration::from_secs(s.into()));
        let passes = words::may_pass(status) || status == Status::CONDITIONAL_REQUEST_FAILED || wait.is_some();
        self.lost(now, why, !passes, wait, shared);
    }

    fn lost(&mut self, now: Instant, why: EventFault, for_good: bool, wait: Option<Duration>, shared: &mut Shared) {
        // What was wished meanwhile is in the document; an end has nothing to end.
        if self.next.take() == Some(Ask::End) {
            return self.over(shared);
        }
        self.failures = self.failures.saturating_add(1);
        let again = now + words::backoff(&shared.config.refresh, self.failures, wait, &mut shared.rng);
        // A refresh would bring back the document before.
        self.etag = None;
        self.phase = if for_good { Phase::Over } else { Phase::Waiting { again } };
        let again = Some(again).filter(|_| !for_good);
        shared.news.push_back(EventNews::Lost { id: self.id, why, again });
    }

    fn over(&mut self, shared: &mut Shared) {
        self.phase = Phase::Over;
        shared.news.push_back(EventNews::Ended { id: self.id });
    }
}

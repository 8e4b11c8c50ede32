//! Our subscriptions. Read RFC 6665 §4.1 and §4.4 before touching this file.

use super::{Ask, Document, EventFault, EventNews, Package, Shared, whole_seconds};
use crate::sip::dialog::Dialog;
use crate::sip::exchange::{Failure, ServerId};
use crate::sip::words;
use crate::wire::sip::{CallId, Header, Method, NameAddr, Request, Response, SipText, Status, SubscriptionState, Tag};
use std::time::{Duration, Instant};

/// Times that a longer time is asked for after 423.
const TOO_BRIEF_TIMES: u8 = 3;

/// ```text
///  subscribe ─▶ Asking ── first NOTIFY (before or after the 2xx) ─▶ Standing ── half of its time ─▶ refresh, stays
///     ▲           │ 4xx 5xx 6xx                                       │  └── ran out, silent, 481 ─┐
///     │           ▼                                                   ▼                            │
///     └──────── Waiting ◀── terminated: deactivated, timeout, probation, giveup ───────────────────┘
///                 terminated: rejected, noresource, invariant; refused for good ─▶ Over
///  end ─▶ Leaving ── NOTIFY terminated, 64·T1 ─▶ Over
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was told yet.
    Asking,
    /// It stands. Refreshed then.
    Standing { refresh: Instant },
    /// The next attempt is then.
    Waiting { again: Instant },
    /// We ended it; the last word of the notifier is awaited until then.
    Leaving { until: Instant },
    /// To be dropped.
    Over,
}

#[derive(Debug)]
pub(super) struct Subscription {
    id: u64,
    to: NameAddr,
    package: Package,
    ours: Ours,
    dialog: Option<Dialog>,
    phase: Phase,
    /// The request under way.
    asked: Option<(u32, Ask)>,
    /// To be sent when that is answered.
    next: Option<Ask>,
    number: u32,
    until: Option<Instant>,
    /// A NOTIFY is owed until then: timer N.
    notify_by: Option<Instant>,
    /// The application knows that it is over.
    ended: bool,
    /// One came since the last SUBSCRIBE left: it may overtake the answer.
    told: bool,
    effort: Effort,
    /// Of the last document that counts.
    version: Option<u32>,
}

/// Our side of the dialog, which is there before the dialog is.
#[derive(Debug)]
struct Ours {
    call_id: CallId,
    tag: Tag,
    cseq: u32,
}

/// What is asked for, and how often it was.
#[derive(Debug)]
struct Effort {
    expires_s: u32,
    too_brief: u8,
    failures: u32,
}

impl Subscription {
    pub(super) fn new(id: u64, to: NameAddr, package: Package, shared: &mut Shared) -> Self {
        Self {
            id,
            to,
            package,
            ours: Ours::new(shared),
            dialog: None,
            phase: Phase::Asking,
            asked: None,
            next: None,
            number: 0,
            until: None,
            notify_by: None,
            told: false,
            ended: false,
            effort: Effort { expires_s: whole_seconds(shared.config.limits.expires), too_brief: 0, failures: 0 },
            version: None,
        }
    }

    pub(super) fn is_named(&self, call_id: &CallId, to_tag: &Tag) -> bool {
        self.ours.call_id == *call_id && self.ours.tag == *to_tag
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Standing { refresh } if self.asked.is_none() => Some(refresh),
            Phase::Waiting { again } => Some(again),
            Phase::Leaving { until } => Some(until),
            Phase::Standing { .. } | Phase::Asking | Phase::Over => None,
        };
        let until = self.until.filter(|_| matches!(self.phase, Phase::Standing { .. }));
        [phase, until, self.notify_by].into_iter().flatten().min()
    }

    /// Sends a SUBSCRIBE, or notes it for when the one under way is answered.
    pub(super) fn ask(&mut self, now: Instant, ask: Ask, shared: &mut Shared) {
        if self.asked.is_some() {
            self.next = Some(ask);
            return;
        }
        self.number = self.number.wrapping_add(1);
        self.asked = Some((self.number, ask));
        self.told = false;
        let mut request = match (&mut self.dialog, ask) {
            (Some(dialog), Ask::Refresh | Ask::Modify | Ask::End) => dialog.request(Method::Subscribe),
            (_, Ask::Begin | Ask::Refresh | Ask::Modify | Ask::End) => self.first_request(shared),
        };
        // RFC 6665 §8.2.1: the same Event throughout, Expires always.
        request.headers.rest.push(self.package.header());
        request.headers.rest.push(Header::Accept(SipText::new(self.package.media())));
        let expires_s = if ask == Ask::End { 0 } else { self.effort.expires_s };
        request.headers.rest.push(Header::Expires(expires_s));
        request.headers.contact.push(shared.config.contact.clone());
        if ask == Ask::End {
            self.phase = Phase::Leaving { until: now + shared.timer_n() };
        }
        shared.send(self.id, self.number, request);
    }

    /// By our own verb.
    pub(super) fn end(&mut self, now: Instant, shared: &mut Shared) {
        match self.phase {
            Phase::Leaving { .. } | Phase::Over => {}
            // Nothing stands there: nothing is to be taken back.
            Phase::Waiting { .. } => self.over(shared),
            Phase::Asking | Phase::Standing { .. } => {
                self.phase = Phase::Leaving { until: now + shared.timer_n() };
                self.ask(now, Ask::End, shared);
            }
        }
    }

    pub(super) fn flow_changed(&mut self, now: Instant, shared: &mut Shared) {
        if let (Phase::Standing { .. }, None) = (self.phase, self.asked) {
            self.ask(now, Ask::Refresh, shared);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, shared: &mut Shared) {
        // RFC 6665 §4.1.2.4
        if self.notify_by.is_some_and(|by| by <= now) {
            self.notify_by = None;
            if !matches!(self.phase, Phase::Leaving { .. }) {
                self.wait(now, EventFault::Silent, None, shared);
            }
        }
        match self.phase {
            Phase::Standing { .. } if self.until.is_some_and(|until| until <= now) => {
                self.wait(now, EventFault::Expired, None, shared);
            }
            Phase::Standing { refresh } if refresh <= now && self.asked.is_none() => {
                self.ask(now, Ask::Refresh, shared);
            }
            Phase::Waiting { again } if again <= now => self.begin_again(now, shared),
            Phase::Leaving { until } if until <= now => self.over(shared),
            Phase::Asking | Phase::Standing { .. } | Phase::Waiting { .. } | Phase::Leaving { .. } | Phase::Over => {}
        }
    }

    /// A NOTIFY in our dialog, or the one that makes it (RFC 6665 §4.4.1).
    pub(super) fn notified(&mut self, now: Instant, id: ServerId, request: &Request, shared: &mut Shared) {
        if let Err(status) = self.takes(request) {
            shared.answer(id, request, status, None, Vec::new());
            return;
        }
        let state = request.headers.subscription_state();
        let Some(SubscriptionState { state, params }) = state else {
            shared.answer(id, request, Status::BAD_REQUEST, None, Vec::new());
            return;
        };
        shared.answer(id, request, Status::OK, None, Vec::new());
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh(&request.headers.contact);
        }
        (self.notify_by, self.told) = (None, true);
        let document = Document::read(self.package, request);
        let whole = self.follows(document.as_ref());
        let told = document.filter(|_| whole);
        if state.is("terminated") {
            if told.is_some() && !matches!(self.phase, Phase::Leaving { .. }) {
                shared.news.push_back(EventNews::Notified { id: self.id, pending: false, document: told });
            }
            let wait = words::seconds(params, "retry-after").map(|s| Duration::from_secs(s.into()));
            self.terminated(now, params.find("reason").unwrap_or_default(), wait, shared);
            return;
        }
        if matches!(self.phase, Phase::Leaving { .. } | Phase::Over) {
            return;
        }
        if let Some(seconds) = words::seconds(params, "expires") {
            self.stands(now, seconds, shared);
        } else if let Phase::Asking = self.phase {
            let agreed = self.until.map(|until| whole_seconds(until.saturating_duration_since(now)));
            self.stands(now, agreed.unwrap_or(self.effort.expires_s), shared);
        }
        let pending = state.is("pending");
        shared.news.push_back(EventNews::Notified { id: self.id, pending, document: told });
        // RFC 4235 §4.1: a document between was lost; the answer to a refresh is a whole one.
        if !whole && self.asked.is_none() {
            self.ask(now, Ask::Refresh, shared);
        }
    }

    pub(super) fn answered(&mut self, now: Instant, number: u32, response: &Response, cseq: u32, shared: &mut Shared) {
        let Some(ask) = self.take_asked(number) else { return };
        self.ours.cseq = self.ours.cseq.max(cseq);
        if let Some(dialog) = &mut self.dialog {
            dialog.sent(cseq);
        }
        if response.status.is_success() {
            self.agreed(now, ask, response, cseq, shared);
        } else {
            self.refused(now, ask, response, shared);
        }
        if let Some(next) = self.next.take().filter(|_| !self.is_over()) {
            self.ask(now, next, shared);
        }
    }

    pub(super) fn failed(&mut self, now: Instant, number: u32, why: Failure, shared: &mut Shared) {
        let Some(ask) = self.take_asked(number) else { return };
        if ask == Ask::End || self.next == Some(Ask::End) {
            return self.over(shared);
        }
        self.next = None;
        // Whom our certificate or password does not suit today, it does not tomorrow.
        let for_good = matches!(why, Failure::Certificate(_) | Failure::Unauthorized(_));
        self.refusal(now, ask, EventFault::Failed(why), for_good, None, shared);
    }
}

impl Ours {
    fn new(shared: &mut Shared) -> Self {
        Self { call_id: words::call_id(&mut shared.rng), tag: words::tag(&mut shared.rng), cseq: 0 }
    }
}

impl Subscription {
    fn take_asked(&mut self, number: u32) -> Option<Ask> {
        let (_, ask) = self.asked.take_if(|(asked, _)| *asked == number)?;
        Some(ask)
    }

    fn first_request(&mut self, shared: &Shared) -> Request {
        self.ours.cseq = self.ours.cseq.saturating_add(1);
        let from = shared.config.identity.clone().with_tag(&self.ours.tag);
        let (uri, to) = (self.to.uri.clone(), self.to.clone());
        let mut request = Request::new(Method::Subscribe, uri, from, to, self.ours.call_id.clone(), self.ours.cseq);
        request.headers.route.clone_from(&shared.config.route);
        request
    }

    /// # Errors
    /// The status that refuses it.
    fn takes(&mut self, request: &Request) -> Result<(), Status> {
        // RFC 6665 §8.1.1: another package is another usage.
        if request.headers.event().and_then(Package::of) != Some(self.package) {
            return Err(Status::BAD_EVENT);
        }
        let from = request.headers.from.tag().ok_or(Status::BAD_REQUEST)?;
        match &mut self.dialog {
            // One dialog is enough: further forks are refused, which ends them (RFC 6665 §4.1.4).
            Some(dialog) if dialog.remote_tag() != &from => Err(Status::NO_SUCH_TRANSACTION),
            Some(dialog) => dialog.heard(request.headers.cseq.number).map_err(|_| Status::SERVER_INTERNAL_ERROR),
            None => {
                self.dialog = Some(self.dialog_of(request));
                Ok(())
            }
        }
    }

    /// The dialog that a NOTIFY makes: as if its sender had answered our SUBSCRIBE (RFC 6665 §4.4.1).
    fn dialog_of(&self, notify: &Request) -> Dialog {
        let from = notify.headers.to.clone();
        let ours =
            Request::new(Method::Subscribe, self.to.uri.clone(), from, self.to.clone(), self.ours.call_id.clone(), 1);
        let mut theirs = Response::to(&ours, Status::OK);
        theirs.headers.to = notify.headers.from.clone();
        theirs.headers.contact.clone_from(&notify.headers.contact);
        // A caller reads Record-Route from its end; in a request it stands the other way round (RFC 3261 §12.1.1).
        theirs.headers.record_route = notify.headers.record_route.iter().rev().cloned().collect();
        let mut dialog = Dialog::caller(&ours, &theirs, self.ours.cseq);
        // The first number of theirs: nothing was before it.
        let _ = dialog.heard(notify.headers.cseq.number);
        dialog
    }

    fn agreed(&mut self, now: Instant, ask: Ask, response: &Response, cseq: u32, shared: &mut Shared) {
        if ask == Ask::End {
            // The last NOTIFY is only waited for to be answered; Asterisk 16 forgets it at times.
            return self.tell_end(shared);
        }
        // One that ends as soon as it stands is a failure, too: what counts is that it lived to be refreshed.
        if ask == Ask::Refresh {
            self.effort.failures = 0;
        }
        self.effort.too_brief = 0;
        let granted_s = response.headers.expires().unwrap_or(self.effort.expires_s);
        match (&mut self.dialog, response.headers.to.tag()) {
            (Some(dialog), Some(tag)) if *dialog.remote_tag() == tag => dialog.refresh(&response.headers.contact),
            (None, Some(_)) => {
                let from = shared.config.identity.clone().with_tag(&self.ours.tag);
                let uri = self.to.uri.clone();
                let ours = Request::new(Method::Subscribe, uri, from, self.to.clone(), self.ours.call_id.clone(), cseq);
                self.dialog = Some(Dialog::caller(&ours, response, cseq));
            }
            // Another fork told us something first.
            (Some(_), Some(_)) | (_, None) => {}
        }
        match self.phase {
            Phase::Standing { .. } => self.stands(now, granted_s, shared),
            Phase::Asking => self.until = Some(now + Duration::from_secs(granted_s.into())),
            Phase::Waiting { .. } | Phase::Leaving { .. } | Phase::Over => return,
        }
        if !self.told {
            self.notify_by = Some(now + shared.timer_n());
        }
    }

    fn refused(&mut self, now: Instant, ask: Ask, response: &Response, shared: &mut Shared) {
        let status = response.status;
        if ask == Ask::End || self.next == Some(Ask::End) {
            return self.over(shared);
        }
        let longest = whole_seconds(shared.config.refresh.longest);
        let wanted = response.headers.min_expires();
        // RFC 6665 §4.1.2.1
        if let Some(wanted) = wanted.filter(|s| {
            status == Status::INTERVAL_TOO_BRIEF
                && self.effort.too_brief < TOO_BRIEF_TIMES
                && *s > self.effort.expires_s
                && *s <= longest
        }) {
            self.effort.too_brief += 1;
            self.effort.expires_s = wanted;
            return self.ask(now, ask, shared);
        }
        let why = EventFault::Refused { status, reason: response.reason.clone() };
        let wait = response.headers.retry_after().map(|s| Duration::from_secs(s.into()));
        let for_good = !words::may_pass(status) && status != Status::NO_SUCH_TRANSACTION && wait.is_none();
        // RFC 6665 §4.1.2.2: 481 means that it does not stand there any more; a new one may.
        if status == Status::NO_SUCH_TRANSACTION {
            self.dialog = None;
        }
        self.refusal(now, ask, why, for_good, wait, shared);
    }

    fn refusal(
        &mut self,
        now: Instant,
        ask: Ask,
        why: EventFault,
        for_good: bool,
        wait: Option<Duration>,
        shared: &mut Shared,
    ) {
        if for_good {
            shared.news.push_back(EventNews::Lost { id: self.id, why, again: None });
            self.phase = Phase::Over;
            return;
        }
        // What stood stands until it runs out; the refresh is tried again meanwhile.
        if let (Ask::Refresh, Some(_), Phase::Standing { .. }) = (ask, &self.dialog, self.phase) {
            self.effort.failures = self.effort.failures.saturating_add(1);
            let refresh = now + words::backoff(&shared.config.refresh, self.effort.failures, wait, &mut shared.rng);
            self.phase = Phase::Standing { refresh };
            return;
        }
        self.wait(now, why, wait, shared);
    }

    /// The notifier's last word (RFC 6665 §4.1.3).
    fn terminated(&mut self, now: Instant, reason: &str, wait: Option<Duration>, shared: &mut Shared) {
        if matches!(self.phase, Phase::Leaving { .. }) {
            return self.over(shared);
        }
        let why = EventFault::Terminated(SipText::new(reason));
        if ["rejected", "noresource", "invariant"].iter().any(|r| reason.eq_ignore_ascii_case(r)) {
            shared.news.push_back(EventNews::Lost { id: self.id, why, again: None });
            self.phase = Phase::Over;
            return;
        }
        self.wait(now, why, wait, shared);
    }

    /// Nothing stands; a new subscription is begun after a while.
    fn wait(&mut self, now: Instant, why: EventFault, wait: Option<Duration>, shared: &mut Shared) {
        // §4.1.3: `deactivated` and `timeout` ask for a new one at once; twice in a row is a fault of its own.
        let at_once = matches!(&why, EventFault::Terminated(r) if matches!(r.as_str(), "deactivated" | "timeout"))
            || matches!(why, EventFault::Expired)
            || matches!(&why, EventFault::Refused { status, .. } if *status == Status::NO_SUCH_TRANSACTION);
        self.effort.failures = self.effort.failures.saturating_add(1);
        let refresh = &shared.config.refresh;
        let wait = match at_once && self.effort.failures == 1 {
            true => refresh.shortest,
            false => words::backoff(refresh, self.effort.failures, wait, &mut shared.rng),
        };
        let again = now + wait;
        self.phase = Phase::Waiting { again };
        (self.until, self.notify_by, self.next) = (None, None, None);
        shared.news.push_back(EventNews::Lost { id: self.id, why, again: Some(again) });
    }

    /// Another dialog with the same target.
    fn begin_again(&mut self, now: Instant, shared: &mut Shared) {
        self.dialog = None;
        self.version = None;
        self.ours = Ours::new(shared);
        self.asked = None;
        self.phase = Phase::Asking;
        self.ask(now, Ask::Begin, shared);
    }

    fn stands(&mut self, now: Instant, granted_s: u32, shared: &Shared) {
        let granted = Duration::from_secs(granted_s.into()).min(shared.config.refresh.longest);
        self.until = Some(now + granted);
        self.phase = Phase::Standing { refresh: now + (granted / 2).max(shared.config.refresh.shortest) };
    }

    /// True unless a document between the last one and this one is missing; false for one that is older too.
    fn follows(&mut self, document: Option<&Document>) -> bool {
        let Some(Document::Dialogs(info)) = document else { return true };
        let last = self.version;
        let newer = last.is_none_or(|last| info.version > last);
        let next = info.full || last.is_some_and(|last| info.version == last.wrapping_add(1));
        if newer && next {
            self.version = Some(info.version);
        }
        newer && next
    }

    fn over(&mut self, shared: &mut Shared) {
        self.phase = Phase::Over;
        self.tell_end(shared);
    }

    fn tell_end(&mut self, shared: &mut Shared) {
        if !std::mem::replace(&mut self.ended, true) {
            shared.news.push_back(EventNews::Ended { id: self.id });
        }
    }
}

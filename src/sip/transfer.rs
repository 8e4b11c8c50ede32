//! Transfers: REFER with its implicit subscription, in both directions. Read RFC 3515, RFC 3891, RFC 3892, RFC 4488 and
//! RFC 5589 before touching this file.

use crate::sip::exchange::ServerId;
use crate::sip::session::{
    self, BAD_EVENT, BAD_REQUEST, DECLINE, Flight, Misuse, NO_TRANSACTION, OK, REQUEST_PENDING, ReferralId, Session,
    SessionEvent, TransferStep, tokens,
};
use crate::wire::sip::{
    CallId, ContentType, Event, Header, Headers, Method, NameAddr, Params, Replaces, Request, Response, SipText,
    Status, SubscriptionState, Tag, Token, Uri,
};
use std::time::Instant;

const SIPFRAG: &str = "message/sipfrag";

/// The transfers of one session.
///
/// ```text
///   ours:   refer ─▶ sent ── 202 ─▶ accepted ── NOTIFY 1xx … ── NOTIFY 2xx–6xx, terminated, too late ─▶ none
///                     └─ refused ─▶ none
///   theirs: REFER ─▶ asked ── take ─▶ taken: NOTIFY 100, … ── final NOTIFY, too late ─▶ none
///                     └─ refuse, too late ─▶ none
/// ```
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    ours: Option<Ours>,
    theirs: Option<Theirs>,
    /// We referred at least once: late NOTIFYs are no surprise.
    referred: bool,
    next: u32,
}

#[derive(Debug)]
struct Ours {
    until: Instant,
    last: Option<Status>,
}

#[derive(Debug)]
struct Theirs {
    id: ReferralId,
    until: Instant,
    /// `Refer-Sub: false` (RFC 4488 §4).
    silent: bool,
    /// The number of the REFER, which tells its NOTIFYs from others' (RFC 3515 §2.4.6).
    cseq: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Our application owes an answer.
    Asked(ServerId),
    /// NOTIFYs go out one at a time; the newest waits.
    Taken { sending: bool, next: Option<Status>, finished: bool },
}

impl Transfers {
    /// Nothing is left to be told.
    pub(crate) fn is_idle(&self) -> bool {
        self.theirs.is_none()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let ours = self.ours.as_ref().map(|ours| ours.until);
        let theirs = self.theirs.as_ref().map(|theirs| theirs.until);
        [ours, theirs].into_iter().flatten().min()
    }

    /// The session ended: our own transfer is told no more, theirs still is (RFC 5057 §3: the subscription is a usage of
    /// its own).
    pub(crate) fn over(&mut self) {
        self.ours = None;
        if self.theirs.as_ref().is_some_and(|theirs| matches!(theirs.stage, Stage::Asked(_))) {
            self.theirs = None;
        }
    }

    pub(crate) fn forget(&mut self) {
        self.ours = None;
        self.theirs = None;
    }

    /// A REFER that the application was asked about.
    pub(crate) fn waiting(&self) -> Option<ServerId> {
        match &self.theirs.as_ref()?.stage {
            Stage::Asked(id) => Some(*id),
            Stage::Taken { .. } => None,
        }
    }
}

impl Session {
    // ── ours ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Asks the other side to call somebody, in place of the dialog that `replaces` names if it does.
    pub(crate) fn refer(&mut self, now: Instant, mut to: NameAddr, replaces: Option<&Replaces>) -> Result<(), Misuse> {
        if self.transfers.ours.is_some() {
            return Err(Misuse::OfferOpen);
        }
        let until = now + self.context().timers.transfer;
        if let (Some(replaces), Uri::Sip(uri)) = (replaces, &mut to.uri) {
            uri.headers.push(("Replaces".into(), replaces_text(replaces).into()));
        }
        let local = self.local_contact();
        let talk = self.up_dialog()?;
        let mut request = talk.request(Method::Refer);
        let mut by = talk.local().clone();
        by.params = Params::default();
        request.headers.contact.push(local);
        to.params = Params::default();
        request.headers.rest.push(Header::ReferTo(to));
        request.headers.rest.push(Header::ReferredBy(by));
        request.headers.rest.push(Header::Supported(tokens(&["norefersub", "replaces"])));
        self.transfers.ours = Some(Ours { until, last: None });
        self.transfers.referred = true;
        self.send(request, Flight::Refer);
        Ok(())
    }

    pub(crate) fn refer_answered(&mut self, now: Instant, response: &Response) {
        if response.status.is_provisional() || self.transfers.ours.is_none() {
            return;
        }
        if !response.status.is_success() {
            self.transfers.ours = None;
            self.tell_transfer(TransferStep::Refused(Some(response.status)));
        } else if refer_sub(&response.headers) == Some(false) {
            self.transfers.ours = None;
            self.tell_transfer(TransferStep::AcceptedSilently);
        } else {
            let until = now + self.context().timers.transfer;
            if let Some(ours) = &mut self.transfers.ours {
                ours.until = until;
                // A NOTIFY that overtook the 202 said so already.
                if ours.last.is_none() {
                    self.tell_transfer(TransferStep::Accepted);
                }
            }
        }
    }

    pub(crate) fn refer_failed(&mut self) {
        if self.transfers.ours.take().is_some() {
            self.tell_transfer(TransferStep::Refused(None));
        }
    }

    fn tell_transfer(&mut self, step: TransferStep) {
        if !self.is_over() {
            self.tell(SessionEvent::Transfer(step));
        }
    }

    /// NOTIFY of the implicit subscription.
    pub(crate) fn notify_arrived(&mut self, id: ServerId, request: &Request) {
        if request.headers.event().is_none_or(|event| !event.package.is("refer")) {
            return self.refuse(id, BAD_EVENT, vec![Header::AllowEvents(tokens(&["refer"]))]);
        }
        // RFC 6665 §4.1.3.
        if !self.transfers.referred {
            return self.refuse(id, NO_TRANSACTION, Vec::new());
        }
        self.refuse(id, OK, Vec::new());
        let terminated = request.headers.subscription_state().is_some_and(|state| state.state.is("terminated"));
        let Some(ours) = &mut self.transfers.ours else { return };
        let said = sipfrag_status(&request.body);
        match said {
            Some(status) if !status.is_provisional() => {
                self.transfers.ours = None;
                self.tell_transfer(TransferStep::Finished(status));
            }
            Some(_) | None if terminated => {
                self.transfers.ours = None;
                self.tell_transfer(TransferStep::Refused(None));
            }
            Some(status) if ours.last != Some(status) => {
                ours.last = Some(status);
                self.tell_transfer(TransferStep::Progress(status));
            }
            Some(_) | None => {}
        }
    }

    // ── theirs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// REFER.
    pub(crate) fn refer_arrived(&mut self, now: Instant, id: ServerId, request: &Request) {
        // Threat: REFER abuse. Off unless the application wants it, and only in a call that stands.
        if !self.context().policy.referrals || self.up_dialog().is_err() {
            return self.refuse(id, DECLINE, Vec::new());
        }
        let mut targets = request
            .headers
            .rest
            .iter()
            .filter_map(|header| if let Header::ReferTo(to) = header { Some(to) } else { None });
        // RFC 3515 §2.4.2: exactly one.
        let (Some(to), None) = (targets.next(), targets.next()) else {
            return self.refuse(id, BAD_REQUEST, Vec::new());
        };
        if self.transfers.theirs.is_some() {
            return self.refuse(id, REQUEST_PENDING, Vec::new());
        }
        let mut to = to.clone();
        to.params = Params::default();
        let replaces = take_replaces(&mut to.uri);
        let referred_by = request.headers.referred_by().cloned().map(Box::new);
        self.transfers.next += 1;
        let referral = ReferralId(self.transfers.next);
        self.transfers.theirs = Some(Theirs {
            id: referral,
            until: now + self.context().timers.answer,
            silent: refer_sub(&request.headers) == Some(false),
            cseq: request.headers.cseq.number,
            stage: Stage::Asked(id),
        });
        let replaces = replaces.map(Box::new);
        self.tell(SessionEvent::Referred { id: referral, to: Box::new(to), replaces, referred_by });
    }

    /// We try it: 202, then NOTIFY 100 at once (RFC 3515 §2.4.4).
    pub(crate) fn take_referral(&mut self, now: Instant, referral: ReferralId) -> Result<(), Misuse> {
        let until = now + self.context().timers.transfer;
        let contact = self.local_contact();
        let theirs = self.transfers.theirs.as_mut().filter(|theirs| theirs.id == referral).ok_or(Misuse::NoReferral)?;
        let Stage::Asked(id) = theirs.stage else { return Err(Misuse::NoReferral) };
        let silent = theirs.silent;
        theirs.until = until;
        theirs.stage = Stage::Taken { sending: false, next: None, finished: false };
        let mut response = self.response(session::ACCEPTED);
        response.headers.contact.push(contact);
        if silent {
            response.headers.rest.push(Header::Other(Token::lossy("Refer-Sub"), SipText::new("false")));
            self.transfers.theirs = None;
        }
        self.respond(id, response);
        self.notify(now, Some(session::TRYING));
        Ok(())
    }

    /// We do not.
    pub(crate) fn refuse_referral(&mut self, referral: ReferralId, status: Status) -> Result<(), Misuse> {
        if status.code() < 300 {
            return Err(Misuse::WrongStatus(status));
        }
        let asked = self.transfers.theirs.as_ref().filter(|theirs| theirs.id == referral);
        let Some(Theirs { stage: Stage::Asked(id), .. }) = asked else { return Err(Misuse::NoReferral) };
        let id = *id;
        self.transfers.theirs = None;
        self.refuse(id, status, Vec::new());
        Ok(())
    }

    /// How far our call to the third side is; a final status is the last one.
    pub(crate) fn notify_referral(&mut self, now: Instant, referral: ReferralId, status: Status) -> Result<(), Misuse> {
        let taken = self.transfers.theirs.as_ref().filter(|theirs| theirs.id == referral);
        match taken.map(|theirs| &theirs.stage) {
            Some(Stage::Taken { finished: false, .. }) => {
                self.notify(now, Some(status));
                Ok(())
            }
            Some(Stage::Taken { .. } | Stage::Asked(_)) | None => Err(Misuse::NoReferral),
        }
    }

    /// Sends, or queues behind the one on its way, a NOTIFY with this status.
    fn notify(&mut self, now: Instant, status: Option<Status>) {
        let Some(theirs) = &mut self.transfers.theirs else { return };
        let left = theirs.until.saturating_duration_since(now).as_secs();
        let cseq = theirs.cseq;
        let Stage::Taken { sending, next, finished } = &mut theirs.stage else { return };
        if let Some(status) = status {
            *finished |= !status.is_provisional();
            *next = Some(status);
        }
        if *sending {
            return;
        }
        let Some(status) = next.take() else { return };
        *sending = true;
        let last = *finished && !status.is_provisional();
        let contact = self.local_contact();
        let Some(dialog) = self.any_dialog() else { return self.transfers.theirs = None };
        let mut request = dialog.request(Method::Notify);
        request.headers.contact.push(contact);
        let mut state = SubscriptionState { state: Token::lossy("active"), params: Params::default() };
        if last {
            state.state = Token::lossy("terminated");
            state.params.set("reason", Some("noresource"));
        } else {
            state.params.set("expires", Some(&left.to_string()));
        }
        let mut event = Event { package: Token::lossy("refer"), params: Params::default() };
        event.params.set("id", Some(&cseq.to_string()));
        request.headers.rest.push(Header::Event(event));
        request.headers.rest.push(Header::SubscriptionState(state));
        request.headers.rest.extend(ContentType::new(SIPFRAG).map(Header::ContentType));
        request.body = format!("SIP/2.0 {} {}\r\n", status.code(), status.phrase()).into_bytes();
        self.send(request, Flight::Notify);
    }

    pub(crate) fn notify_answered(&mut self, now: Instant, status: Status) {
        if status.is_provisional() {
            return;
        }
        // RFC 6665 §4.2.2: whoever refuses a NOTIFY has no subscription.
        if status.is_success() { self.notify_done(now) } else { self.transfers.theirs = None }
    }

    pub(crate) fn notify_failed(&mut self, _now: Instant) {
        self.transfers.theirs = None;
    }

    fn notify_done(&mut self, now: Instant) {
        let Some(theirs) = &mut self.transfers.theirs else { return };
        let Stage::Taken { sending, next, finished, .. } = &mut theirs.stage else { return };
        *sending = false;
        if next.is_some() {
            self.notify(now, None);
        } else if *finished {
            self.transfers.theirs = None;
        }
    }

    /// What is due of transfers.
    pub(crate) fn transfer_timeout(&mut self, now: Instant) {
        if self.transfers.ours.as_ref().is_some_and(|ours| ours.until <= now) {
            self.transfers.ours = None;
            self.tell_transfer(TransferStep::Refused(None));
        }
        let last_word = now + self.context().clock.t1 * 64;
        let Some(theirs) = self.transfers.theirs.as_mut().filter(|theirs| theirs.until <= now) else { return };
        match &mut theirs.stage {
            Stage::Asked(id) => {
                let id = *id;
                self.transfers.theirs = None;
                self.refuse(id, DECLINE, Vec::new());
            }
            Stage::Taken { finished: false, .. } => {
                // The last word, and time for its answer.
                theirs.until = last_word;
                self.notify(now, Some(session::REQUEST_TIMEOUT));
            }
            Stage::Taken { .. } => self.transfers.theirs = None,
        }
    }
}

/// `Refer-Sub`, RFC 4488 §4.
fn refer_sub(headers: &Headers) -> Option<bool> {
    headers.other("Refer-Sub").map(|value| !value.trim_start().to_ascii_lowercase().starts_with("false"))
}

/// The status line of a `message/sipfrag` (RFC 3420).
fn sipfrag_status(body: &[u8]) -> Option<Status> {
    let text = std::str::from_utf8(body).ok()?;
    let rest = text.trim_start().strip_prefix("SIP/2.0 ")?;
    Status::new(rest.get(..3)?.parse().ok()?)
}

/// A Replaces as it stands in an address (RFC 3891 §6.1); the writer escapes it.
fn replaces_text(replaces: &Replaces) -> String {
    let early = if replaces.early_only { ";early-only" } else { "" };
    let Replaces { call_id, to_tag, from_tag, .. } = replaces;
    format!("{call_id};to-tag={to_tag};from-tag={from_tag}{early}")
}

/// Takes the Replaces out of an address that a REFER names; its other headers are nobody's to choose.
fn take_replaces(uri: &mut Uri) -> Option<Replaces> {
    let Uri::Sip(uri) = uri else { return None };
    let headers = std::mem::take(&mut uri.headers);
    let (_, value) = headers.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("replaces"))?;
    parse_replaces(&value)
}

fn parse_replaces(value: &str) -> Option<Replaces> {
    let mut parts = value.split(';').map(str::trim);
    let call_id = CallId::new(parts.next()?)?;
    let (mut to_tag, mut from_tag, mut early_only) = (None, None, false);
    for part in parts {
        match part.split_once('=') {
            Some((name, tag)) if name.eq_ignore_ascii_case("to-tag") => to_tag = Tag::new(tag),
            Some((name, tag)) if name.eq_ignore_ascii_case("from-tag") => from_tag = Tag::new(tag),
            Some(_) => {}
            None => early_only |= part.eq_ignore_ascii_case("early-only"),
        }
    }
    Some(Replaces { call_id, to_tag: to_tag?, from_tag: from_tag?, early_only })
}

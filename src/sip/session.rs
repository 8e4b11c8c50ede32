//! One INVITE session: what it is, the verbs of our side, its clock. `session/caller` is the side that sent the INVITE,
//! `session/callee` the one that got it. Read RFC 3261 §12 to §15 before touching this file.

mod callee;
mod caller;
mod description;
mod modify;
mod offer_answer;
mod reliable;
mod requests;
mod state;
mod status;
mod timer;
mod words;

use crate::config::{SipSessionLimits, SipSessionTimers, SipTimers};
use crate::sip::dialog::{self, Dialog};
use crate::sip::exchange::{Failure, Owner, RequestId, ServerId, Wish};
use crate::sip::sessions::SessionId;
use crate::sip::transfer::Transfers;
use crate::wire::sip::{Header, Headers, Method, NameAddr, Reason, Request, Response, SipText, Status, Tag, Token};
use offer_answer::{Exchange, TheirPlace};
pub(crate) use state::Flight;
use state::{Acknowledged, Calling, Modifying, Offer, Over, Ringing, Sent, State, Talk, Unacknowledged, Up, Want};
pub(crate) use status::{
    ACCEPTED, BAD_EVENT, BAD_EXTENSION, BAD_INFO_PACKAGE, BAD_REQUEST, BUSY_HERE, DECLINE, EXTENSION_REQUIRED,
    METHOD_NOT_ALLOWED, MOVED_TEMPORARILY, NO_TRANSACTION, NOT_ACCEPTABLE_HERE, NOT_IMPLEMENTED, OK, REQUEST_PENDING,
    REQUEST_TERMINATED, REQUEST_TIMEOUT, RINGING, SERVER_ERROR, SERVER_TIMEOUT, SERVICE_UNAVAILABLE, SESSION_PROGRESS,
    SESSION_TOO_BRIEF, TEMPORARILY_UNAVAILABLE, TRYING, UNSUPPORTED_MEDIA_TYPE,
};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use callee::{Arrival, Refused, refusal};
pub(crate) use words::{ALLOW, SUPPORTED};
pub use words::{
    End, EndCause, EndedBy, Fork, Incoming, Invitation, Local, Misuse, ReferralId, Sdp, SessionEvent, TransferStep,
};

/// What all sessions of one user agent have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Context {
    /// What is allowed.
    pub policy: Policy,
    /// RFC 3261 table 4.
    pub clock: SipTimers,
    /// When to give up, and RFC 4028.
    pub timers: SipSessionTimers,
    /// Caps on peers.
    pub limits: SipSessionLimits,
    /// `User-Agent` and `Server`.
    pub agent: Option<SipText>,
}

/// Whose word on an identity counts (RFC 3325 §5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Nobody's.
    #[default]
    Nobody,
    /// That of these addresses: the registrar, the trunk.
    Sources(Vec<IpAddr>),
    /// Everybody's: a network where nobody else can send.
    Everybody,
}

/// Which redirections are followed (RFC 3261 §8.1.3.4); the others end the session and tell their Contacts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Redirects {
    /// None.
    Never,
    /// Those that stay in the domain that was called (threat: toll fraud).
    #[default]
    SameHost,
    /// All.
    Always,
}

/// What sessions allow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whose P-Asserted-Identity is told.
    pub trust: Trust,
    /// Which 3xx are followed.
    pub redirects: Redirects,
    /// REFER reaches the application; otherwise it is declined (threat: REFER abuse).
    pub referrals: bool,
    /// INVITE with Replaces is taken; otherwise it is declined.
    pub replaces: bool,
    /// A caller without 100rel gets 421.
    pub require_reliable: bool,
}

/// Who sent the INVITE; that side owns the Call-ID, which decides who waits longer after a glare (RFC 3261 §14.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// We called.
    Caller,
    /// We were called.
    Callee,
}

/// One INVITE session.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    role: Role,
    local: Local,
    tag: Tag,
    context: Arc<Context>,
    random: u64,
    /// Highest `Min-SE` that 422 asked for, in seconds.
    min_se: u32,
    state: State,
    number: u32,
    flights: Vec<(u32, Flight)>,
    sent: Option<Sent>,
    unacknowledged: Option<Unacknowledged>,
    acknowledged: Vec<Acknowledged>,
    pub(crate) transfers: Transfers,
    /// Ends because this one was accepted.
    replaced: Option<SessionId>,
    wishes: VecDeque<Wish>,
    events: VecDeque<SessionEvent>,
}

/// Who a session is, as its table made it.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) id: SessionId,
    pub(crate) local: Local,
    /// Ours, unguessable.
    pub(crate) tag: Tag,
    pub(crate) context: Arc<Context>,
    pub(crate) random: u64,
}

impl Session {
    fn with(birth: Birth, role: Role, state: State) -> Self {
        Self {
            id: birth.id,
            role,
            local: birth.local,
            tag: birth.tag,
            context: birth.context,
            random: birth.random,
            min_se: 0,
            state,
            number: 0,
            flights: Vec::new(),
            sent: None,
            unacknowledged: None,
            acknowledged: Vec::new(),
            transfers: Transfers::default(),
            replaced: None,
            wishes: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// What to do next.
    pub(crate) fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// What to tell next.
    pub(crate) fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Its name.
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// What all sessions have in common.
    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Our Contact.
    pub(crate) fn local_contact(&self) -> NameAddr {
        self.local.contact.clone()
    }

    /// One more thing to tell.
    pub(crate) fn tell(&mut self, event: SessionEvent) {
        self.events.push_back(event);
    }

    /// The dialog of a call that was taken.
    pub(crate) fn up_dialog(&mut self) -> Result<&mut Dialog, Misuse> {
        let error = self.not_up();
        match &mut self.state {
            State::Up(up) => Ok(&mut up.talk.dialog),
            State::Calling(_) | State::Ringing(_) | State::Over(_) => Err(error),
        }
    }

    /// The dialog, even of a session that ended.
    pub(crate) fn any_dialog(&mut self) -> Option<&mut Dialog> {
        self.talks_mut().next().map(|talk| &mut talk.dialog)
    }

    /// Our tag in its dialogs.
    pub(crate) fn tag(&self) -> &Tag {
        &self.tag
    }

    /// The application heard of its end.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    /// Our user was not asked yet, or did not answer.
    pub(crate) fn is_ringing(&self) -> bool {
        matches!(self.state, State::Ringing(_))
    }

    /// Nothing is left to be done; may be forgotten.
    pub(crate) fn is_gone(&self) -> bool {
        match &self.state {
            State::Over(over) => {
                over.bye.is_none()
                    && self.flights.is_empty()
                    && self.unacknowledged.is_none()
                    && self.acknowledged.is_empty()
                    && self.sent.is_none()
                    && self.transfers.is_idle()
            }
            State::Calling(_) | State::Ringing(_) | State::Up(_) => false,
        }
    }

    /// What names our dialog to somebody who is to take its place; `None` before the call was taken.
    pub(crate) fn dialog(&self) -> Option<&Dialog> {
        match &self.state {
            State::Up(up) => Some(&up.talk.dialog),
            State::Calling(_) | State::Ringing(_) | State::Over(_) => None,
        }
    }

    /// How a Replaces with this tag of theirs finds us (RFC 3891 §3).
    pub(crate) fn replaceable(&self, remote: &Tag) -> Replaceable {
        match &self.state {
            State::Up(up) if up.talk.dialog.is_remote(remote) => Replaceable::Confirmed,
            State::Calling(calling) if calling.talks.iter().any(|talk| talk.dialog.is_remote(remote)) => {
                Replaceable::Early
            }
            // An early dialog that the other side began is not to be replaced.
            State::Calling(_) | State::Ringing(_) | State::Up(_) => Replaceable::No,
            State::Over(over) => match &over.talk {
                Some(talk) if talk.dialog.is_remote(remote) => Replaceable::Ended,
                Some(_) | None => Replaceable::No,
            },
        }
    }

    // ── verbs of both sides ─────────────────────────────────────────────────────────────────────────────────────────

    /// Ends it: CANCEL while it rings there, 603 while it rings here, BYE after.
    pub(crate) fn hang_up(&mut self, now: Instant, reasons: Vec<Reason>) -> Result<(), Misuse> {
        match &self.state {
            State::Over(_) => Err(Misuse::Ended),
            State::Ringing(_) => self.reject(now, DECLINE, reasons),
            State::Calling(_) | State::Up(_) => {
                let end = End::new(EndedBy::Local, self.own_cause());
                self.finish(now, end, reasons.into_iter().map(Header::Reason).collect());
                Ok(())
            }
        }
    }

    fn own_cause(&self) -> EndCause {
        match &self.state {
            State::Calling(_) => EndCause::Cancelled,
            State::Ringing(_) | State::Up(_) | State::Over(_) => EndCause::Bye,
        }
    }

    /// Ends a session from our side with what is due on the wire: CANCEL or BYE, with these headers.
    fn finish(&mut self, now: Instant, end: End, headers: Vec<Header>) {
        let mut bye = None;
        match &mut self.state {
            State::Calling(_) => {
                if let Some(sent) = &self.sent {
                    let id = RequestId { owner: Owner::Session(self.id.0), number: sent.number };
                    self.wishes.push_back(Wish::Cancel { id, headers });
                }
            }
            State::Up(up) => {
                // Ours to acknowledge before the BYE: a 2xx whose offer still waits (RFC 3261 §13.2.2.4).
                if let Exchange::Theirs { by: TheirPlace::Success(cseq), .. } = up.talk.media.exchange() {
                    let cseq = *cseq;
                    self.answer_void(now, cseq);
                }
                // RFC 3261 §15: the callee does not send BYE before the ACK.
                if self.unacknowledged.as_ref().is_some_and(|u| u.initial) {
                    bye = Some(headers);
                } else {
                    self.send_bye(headers);
                }
            }
            State::Ringing(_) | State::Over(_) => {}
        }
        self.close(now, end, bye);
    }

    /// Tells the end, once; `bye`: to be sent when our 2xx is acknowledged.
    fn close(&mut self, now: Instant, end: End, bye: Option<Vec<Header>>) {
        if self.is_over() {
            return;
        }
        self.refuse_waiting(if end.by == EndedBy::Remote { REQUEST_TERMINATED } else { DECLINE });
        let until = now + self.context.clock.t1 * 64 * 4;
        self.transfers.over();
        let until =
            self.transfers.deadline().map_or(until, |transfer| until.max(transfer + self.context.clock.t1 * 64));
        let over = State::Over(Box::new(Over { talk: None, bye, until }));
        let talk = match std::mem::replace(&mut self.state, over) {
            State::Calling(_) | State::Over(_) => None,
            State::Ringing(ringing) => Some(ringing.talk),
            State::Up(up) => Some(up.talk),
        };
        if let State::Over(over) = &mut self.state {
            over.talk = talk.map(Box::new);
            // RFC 3261 §15: nothing but the ACK is awaited, and a BYE that has to wait for it.
            if over.bye.is_none() && self.unacknowledged.as_ref().is_some_and(|u| !u.initial) {
                self.unacknowledged = None;
            }
        }
        // PRACKs and re-INVITEs of a dialog that ends are answered below, if at all.
        self.flights
            .retain(|(_, flight)| matches!(flight, Flight::Invite | Flight::Bye | Flight::Notify | Flight::Refer));
        self.events.push_back(SessionEvent::Ended(Box::new(end)));
    }

    /// Our answer to their offer.
    pub(crate) fn answer(&mut self, now: Instant, fork: Fork, sdp: Sdp) -> Result<(), Misuse> {
        if self.is_over() {
            return Err(Misuse::Ended);
        }
        let talk = self.talk(fork).ok_or(Misuse::NoFork)?;
        match talk.media.exchange() {
            Exchange::Theirs { by: TheirPlace::Invite, .. } => return Err(Misuse::NoOffer),
            Exchange::Theirs { .. } => {}
            Exchange::Empty | Exchange::Stable | Exchange::Ours { .. } => return Err(Misuse::NoOffer),
        }
        let Some((sdp, by)) = talk.media.answer(sdp) else { return Err(Misuse::NoOffer) };
        match by {
            TheirPlace::Invite => {}
            TheirPlace::ReInvite(waiting) => self.accept_modification(now, fork, &waiting, &sdp, true),
            TheirPlace::Update(waiting) => self.accept_modification(now, fork, &waiting, &sdp, false),
            TheirPlace::Prack(id) => {
                let mut response = self.response(OK);
                description::put(&mut response.headers, &mut response.body, &sdp);
                self.respond(id, response);
            }
            TheirPlace::Provisional(rack) => self.send_prack(fork, rack, Some(&sdp)),
            TheirPlace::Success(cseq) => self.send_ack(now, cseq, Some(&sdp)),
        }
        self.tell_hold();
        self.pump(now);
        Ok(())
    }

    /// Their offer is no good: what was agreed on before holds. Where the offer came in the answer to our INVITE there is
    /// nothing to go back to, and the session ends.
    pub(crate) fn refuse_offer(&mut self, now: Instant, fork: Fork, status: Status) -> Result<(), Misuse> {
        if self.is_over() {
            return Err(Misuse::Ended);
        }
        if status.code() < 400 {
            return Err(Misuse::WrongStatus(status));
        }
        let talk = self.talk(fork).ok_or(Misuse::NoFork)?;
        let Exchange::Theirs { by, .. } = talk.media.exchange() else { return Err(Misuse::NoOffer) };
        match by.clone() {
            TheirPlace::Invite => return Err(Misuse::NoOffer),
            TheirPlace::ReInvite(waiting) | TheirPlace::Update(waiting) => {
                talk.media.roll_back();
                self.refuse(waiting.id, status, Vec::new());
            }
            TheirPlace::Prack(id) => {
                talk.media.roll_back();
                self.refuse(id, status, Vec::new());
            }
            // RFC 3261 §13.2.2.4: an answer is owed all the same, then BYE; before the 2xx, CANCEL.
            TheirPlace::Provisional(_) | TheirPlace::Success(_) => {
                self.finish(now, End::new(EndedBy::Local, EndCause::NoAgreement), Vec::new());
            }
        }
        self.pump(now);
        Ok(())
    }

    /// A digit as INFO (RFC 6086 legacy use, `application/dtmf-relay`).
    pub(crate) fn info_dtmf(&mut self, key: char, duration: Duration) -> Result<(), Misuse> {
        let key = key.to_ascii_uppercase();
        if !matches!(key, '0'..='9' | '*' | '#' | 'A'..='D') {
            return Err(Misuse::NotAKey);
        }
        let limit = self.context.limits.digits;
        let State::Up(up) = &mut self.state else { return Err(self.not_up()) };
        if up.digits.len() >= limit {
            return Err(Misuse::NoResources);
        }
        up.digits.push_back((key, duration));
        self.pump_digits();
        Ok(())
    }

    fn not_up(&self) -> Misuse {
        if self.is_over() { Misuse::Ended } else { Misuse::NotUp }
    }

    // ── the clock ───────────────────────────────────────────────────────────────────────────────────────────────────

    /// When to call [`Session::handle_timeout`] at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Calling(calling) => {
                let offers = calling.talks.iter().filter_map(talk_deadline).min();
                [Some(calling.until), offers].into_iter().flatten().min()
            }
            State::Ringing(ringing) => {
                let again = ringing.last.as_ref().map(|(at, _)| *at).filter(|_| !ringing.reliable.is_waiting());
                [Some(ringing.until), again, ringing.reliable.deadline(), talk_deadline(&ringing.talk)]
                    .into_iter()
                    .flatten()
                    .min()
            }
            State::Up(up) => {
                let refresh = up.timer.and_then(|timer| timer.refresh_at);
                let ends = up.timer.map(|timer| timer.ends_at);
                [refresh, ends, talk_deadline(&up.talk)].into_iter().flatten().min()
            }
            State::Over(over) => Some(over.until),
        };
        let unacknowledged = self.unacknowledged.as_ref().map(|u| u.next.min(u.until));
        let acknowledged = self.acknowledged.iter().map(|a| a.until).min();
        let sent = self.sent.as_ref().and_then(|sent| sent.until);
        [state, unacknowledged, acknowledged, sent, self.transfers.deadline()].into_iter().flatten().min()
    }

    /// Fires what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.repeat_success(now);
        self.acknowledged.retain(|a| a.until > now);
        if self.sent.as_ref().and_then(|sent| sent.until).is_some_and(|until| until <= now) {
            self.sent = None;
        }
        match &self.state {
            State::Calling(calling) if calling.until <= now => {
                self.finish(now, End::new(EndedBy::Engine, EndCause::NoAnswer), Vec::new());
            }
            State::Ringing(ringing) if ringing.until <= now => {
                self.refuse_invite(now, TEMPORARILY_UNAVAILABLE, Vec::new(), EndedBy::Engine, EndCause::NoAnswer);
            }
            State::Over(over) if over.until <= now => self.forget(),
            State::Calling(_) | State::Ringing(_) | State::Up(_) | State::Over(_) => {}
        }
        self.repeat_provisional(now);
        self.session_timeout(now);
        self.offer_timeout(now);
        self.transfer_timeout(now);
        self.pump(now);
    }

    /// Lingering has an end: whatever is missing will not come.
    fn forget(&mut self) {
        self.flights.clear();
        self.acknowledged.clear();
        self.unacknowledged = None;
        self.sent = None;
        self.transfers.forget();
        if let State::Over(over) = &mut self.state {
            over.bye = None;
        }
    }

    /// The application owes an answer for too long.
    fn offer_timeout(&mut self, now: Instant) {
        let talks: Vec<Fork> = self
            .talks()
            .filter(
                |talk| matches!(talk.media.exchange(), Exchange::Theirs { until: Some(until), .. } if *until <= now),
            )
            .map(|talk| talk.fork)
            .collect();
        for fork in talks {
            self.events.push_back(SessionEvent::OfferWithdrawn { fork });
            // The offer was there a moment ago.
            self.refuse_offer(now, fork, NOT_ACCEPTABLE_HERE).ok();
        }
    }

    /// The 2xx again, or the end of waiting for its ACK (RFC 3261 §13.3.1.4).
    fn repeat_success(&mut self, now: Instant) {
        let t2 = self.context.clock.t2;
        let Some(waiting) = &mut self.unacknowledged else { return };
        if waiting.until <= now {
            self.unacknowledged = None;
            let end = End::new(EndedBy::Engine, EndCause::NoAck);
            match &mut self.state {
                State::Over(over) => {
                    if let Some(headers) = over.bye.take() {
                        self.send_bye(headers);
                    }
                }
                State::Calling(_) | State::Ringing(_) | State::Up(_) => self.finish(now, end, Vec::new()),
            }
            return;
        }
        if waiting.next <= now {
            waiting.interval = (waiting.interval * 2).min(t2);
            waiting.next = now + waiting.interval;
            let wish =
                Wish::Response { id: waiting.id, to_tag: Some(self.tag.clone()), response: waiting.response.clone() };
            self.wishes.push_back(wish);
        }
    }

    // ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn talks(&self) -> Box<dyn Iterator<Item = &Talk> + '_> {
        match &self.state {
            State::Calling(calling) => Box::new(calling.talks.iter()),
            State::Ringing(ringing) => Box::new(std::iter::once(&ringing.talk)),
            State::Up(up) => Box::new(std::iter::once(&up.talk)),
            State::Over(over) => Box::new(over.talk.iter().map(AsRef::as_ref)),
        }
    }

    fn talks_mut(&mut self) -> Box<dyn Iterator<Item = &mut Talk> + '_> {
        match &mut self.state {
            State::Calling(calling) => Box::new(calling.talks.iter_mut()),
            State::Ringing(ringing) => Box::new(std::iter::once(&mut ringing.talk)),
            State::Up(up) => Box::new(std::iter::once(&mut up.talk)),
            State::Over(over) => Box::new(over.talk.iter_mut().map(AsMut::as_mut)),
        }
    }

    fn talk(&mut self, fork: Fork) -> Option<&mut Talk> {
        self.talks_mut().find(|talk| talk.fork == fork)
    }

    /// SplitMix64: delays need no better.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// Sends a request; what its answer means is `flight`.
    pub(crate) fn send(&mut self, mut request: Request, flight: Flight) -> u32 {
        let number = self.next_number();
        if let Some(agent) = &self.context.agent {
            request.headers.rest.push(Header::UserAgent(agent.clone()));
        }
        self.flights.push((number, flight));
        let id = RequestId { owner: Owner::Session(self.id.0), number };
        self.wishes.push_back(Wish::Request { id, request: Box::new(request) });
        number
    }

    /// Headers of requests that refresh the target: Contact, Allow, Supported.
    fn introduce(&self, headers: &mut Headers) {
        headers.contact.push(self.local.contact.clone());
        headers.rest.push(Header::Allow(ALLOW.to_vec()));
        headers.rest.push(Header::Supported(tokens(&SUPPORTED)));
    }

    fn send_bye(&mut self, headers: Vec<Header>) {
        let Some(talk) = self.talks_mut().next() else { return };
        let mut request = talk.dialog.request(Method::Bye);
        request.headers.rest.extend(headers);
        self.send(request, Flight::Bye);
    }

    pub(crate) fn response(&self, status: Status) -> Response {
        blank(status, self.context.agent.as_ref())
    }

    pub(crate) fn respond(&mut self, id: ServerId, response: Response) {
        let wish = Wish::Response { id, to_tag: Some(self.tag.clone()), response: Box::new(response) };
        self.wishes.push_back(wish);
    }

    pub(crate) fn refuse(&mut self, id: ServerId, status: Status, headers: Vec<Header>) {
        let mut response = self.response(status);
        response.headers.rest.extend(headers);
        self.respond(id, response);
    }

    /// Whatever of theirs still awaits our application is answered (RFC 3261 §15.1.2).
    fn refuse_waiting(&mut self, status: Status) {
        let waiting: Vec<ServerId> = self.talks().filter_map(Talk::waiting).chain(self.transfers.waiting()).collect();
        for id in waiting {
            self.refuse(id, status, Vec::new());
        }
        for talk in self.talks_mut() {
            talk.media.roll_back();
        }
    }

    /// Tells a change of who holds.
    fn tell_hold(&mut self) {
        let State::Up(up) = &mut self.state else { return };
        let held = up.talk.media.remote().is_some_and(description::is_held);
        if held != up.held {
            up.held = held;
            self.events.push_back(SessionEvent::Held(held));
        }
    }

    /// The retry interval after a glare, in steps of 10 ms (RFC 3261 §14.1).
    fn glare_delay(&mut self) -> Duration {
        let (from, steps) = match self.role {
            Role::Caller => (2100, 191),
            Role::Callee => (0, 201),
        };
        Duration::from_millis(from + self.random() % steps * 10)
    }

    /// 500 with Retry-After of 0 to 10 s: an offer of theirs came too early (RFC 3261 §14.2, RFC 3311 §5.2).
    fn too_early(&mut self, id: ServerId) {
        let seconds = (self.random() % 11) as u32;
        self.refuse(id, SERVER_ERROR, vec![Header::RetryAfter(seconds)]);
    }
}

fn talk_deadline(talk: &Talk) -> Option<Instant> {
    let offer = match talk.media.exchange() {
        Exchange::Theirs { until, .. } => *until,
        Exchange::Empty | Exchange::Stable | Exchange::Ours { .. } => None,
    };
    let want = talk.want.as_ref().and_then(|want| want.at);
    [offer, want].into_iter().flatten().min()
}

impl End {
    pub(crate) fn new(by: EndedBy, cause: EndCause) -> Self {
        Self { by, cause, text: SipText::default(), reasons: Vec::new(), contacts: Vec::new() }
    }

    /// The final answer of theirs.
    pub(crate) fn rejected(response: &Response) -> Self {
        Self {
            by: EndedBy::Remote,
            cause: EndCause::Rejected(response.status),
            text: response.reason.clone(),
            reasons: reasons(&response.headers),
            contacts: response.headers.contact.clone(),
        }
    }

    pub(crate) fn failed(why: Failure) -> Self {
        let cause = if why == Failure::Cancelled { EndCause::Cancelled } else { EndCause::Failed(why) };
        Self::new(EndedBy::Engine, cause)
    }
}

/// How a dialog stands to a Replaces (RFC 3891 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaceable {
    No,
    Early,
    Confirmed,
    Ended,
}

/// A response without anything but its status; the carrier copies the rest from its request.
pub(crate) fn blank(status: Status, agent: Option<&SipText>) -> Response {
    let mut headers = dialog::response_headers();
    headers.rest.extend(agent.map(|agent| Header::Server(agent.clone())));
    Response { status, reason: SipText::new(status.phrase()), headers, body: Vec::new() }
}

/// Reason headers (RFC 3326).
pub(crate) fn reasons(headers: &Headers) -> Vec<Reason> {
    headers.reasons().cloned().collect()
}

/// Names of options and the like that are tokens by themselves.
pub(crate) fn tokens(names: &[&str]) -> Vec<Token> {
    names.iter().map(|name| Token::lossy(name)).collect()
}

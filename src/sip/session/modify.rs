//! Changes of a session that stands, or rings: re-INVITE, UPDATE, hold, refreshes, and offers that meet.
//! Read RFC 3261 §14, RFC 3311 and RFC 6337 §3 to §5 before touching this file.

use super::offer_answer::{Exchange, OurPlace, TheirPlace, Waiting};
use super::{
    End, EndCause, EndedBy, Flight, Fork, Misuse, Modifying, Offer, Sdp, Session, SessionEvent, State, Want,
    description, timer,
};
use crate::sip::dialog::Phase;
use crate::sip::exchange::{Failure, Origin, ServerId};
use crate::wire::sip::{Header, Headers, Method, Request, Response, Status};
use std::time::{Duration, Instant};

impl Session {
    // ── ours ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// A new offer: re-INVITE, or UPDATE while it rings. It waits for its turn.
    pub(crate) fn reoffer(&mut self, now: Instant, sdp: Sdp) -> Result<(), Misuse> {
        if self.is_over() {
            return Err(Misuse::Ended);
        }
        // While it rings there, the dialog whose answer is known.
        let talk = self.talks_mut().find(|talk| talk.media.has_agreed()).ok_or(Misuse::NotUp)?;
        if talk.dialog.phase() == Phase::Early && !talk.peer.update {
            return Err(Misuse::NotAllowed("UPDATE"));
        }
        let open = talk.want.iter().chain(talk.modifying.as_ref().map(|m| &m.want)).any(Want::is_new);
        if open {
            return Err(Misuse::OfferOpen);
        }
        let mut sdp = sdp;
        if let Some(Want { offer: Offer::Hold(on), .. }) = &talk.want {
            description::hold(&mut sdp, *on);
        }
        talk.want = Some(Want::new(Offer::New(Box::new(sdp))));
        self.pump(now);
        Ok(())
    }

    /// Our hold, or its end: what holds, with other directions (RFC 3264 §8.4). Answers of ours keep to it. Beside an offer
    /// that is on its way it waits, and the last wish counts.
    pub(crate) fn hold(&mut self, now: Instant, on: bool) -> Result<(), Misuse> {
        let State::Up(up) = &mut self.state else { return Err(self.not_up()) };
        let talk = &mut up.talk;
        if talk.media.local().is_none() {
            return Err(Misuse::NoDescription);
        }
        talk.media.holding = on;
        match &mut talk.want {
            Some(Want { offer: Offer::New(sdp), .. }) => description::hold(sdp, on),
            Some(Want { offer: offer @ (Offer::Hold(_) | Offer::Refresh), .. }) => *offer = Offer::Hold(on),
            None => talk.want = Some(Want::new(Offer::Hold(on))),
        }
        self.pump(now);
        Ok(())
    }

    /// Sends what waited and may go now.
    pub(super) fn pump(&mut self, now: Instant) {
        self.pump_accept(now);
        for talk in self.talks_mut() {
            // From now on it goes as soon as it may.
            if let Some(want) = talk.want.as_mut().filter(|want| want.at.is_some_and(|at| at <= now)) {
                want.at = None;
            }
        }
        let due = |talk: &super::Talk| {
            let ready = talk.want.as_ref().is_some_and(|want| want.at.is_none());
            ready && talk.modifying.is_none() && talk.media.is_stable()
        };
        let forks: Vec<Fork> = self.talks().filter(|talk| due(talk)).map(|talk| talk.fork).collect();
        if self.is_over() {
            return;
        }
        for fork in forks {
            self.send_want(fork);
        }
    }

    /// A request of ours in a dialog awaits its answer; those that need not wait for it are left out.
    pub(super) fn in_flight(&self) -> bool {
        self.flights.iter().any(|(_, flight)| match flight {
            Flight::Modify(_) | Flight::Prack(_) | Flight::Info | Flight::Refer | Flight::Notify => true,
            Flight::Invite | Flight::Bye => false,
        })
    }

    fn send_want(&mut self, fork: Fork) {
        // A request that overtakes the one before it makes that one fail (RFC 3261 §12.2.2), and an UPDATE before the PRACK
        // of what it changes comes too early (RFC 3311 §5.1).
        let waits = match &self.state {
            State::Ringing(ringing) => ringing.reliable.is_waiting(),
            State::Calling(_) | State::Up(_) | State::Over(_) => false,
        };
        if waits || self.in_flight() {
            return;
        }
        // RFC 3261 §14.1: no INVITE beside another one, of either side.
        let invite_free = self.unacknowledged.is_none() && matches!(self.state, State::Up(_));
        let timer = match &self.state {
            State::Up(up) => up.timer.map(|timer| self.timer_request(Some(timer))).unwrap_or_default(),
            State::Calling(_) | State::Ringing(_) | State::Over(_) => Vec::new(),
        };
        let number = self.number.wrapping_add(1);
        let Some(talk) = self.talk(fork) else { return };
        let refresh = talk.want.as_ref().is_some_and(Want::is_refresh);
        let early = talk.dialog.phase() == Phase::Early;
        let method = if early || (refresh && talk.peer.update) { Method::Update } else { Method::Invite };
        if method == Method::Invite && !invite_free {
            return;
        }
        let Some(mut want) = talk.want.take() else { return };
        want.at = None;
        let sdp = match (&want.offer, &method) {
            (Offer::New(sdp), _) => Some((**sdp).clone()),
            (Offer::Hold(on), _) => {
                let mut held = talk.media.local().cloned();
                held.iter_mut().for_each(|sdp| description::hold(sdp, *on));
                // It holds, or does not, already.
                if held.as_ref() == talk.media.local() {
                    return;
                }
                held
            }
            (Offer::Refresh, Method::Invite) => talk.media.local().cloned(),
            (Offer::Refresh, _) => None,
        };
        let mut request = talk.dialog.request(method.clone());
        if let Some(sdp) = sdp {
            let sdp = talk.media.offer(sdp, OurPlace::Modification(number));
            description::put(&mut request.headers, &mut request.body, &sdp);
        }
        if method == Method::Invite {
            talk.rseq = None;
        }
        talk.modifying = Some(Modifying { number, method, want });
        self.introduce(&mut request.headers);
        request.headers.rest.extend(timer);
        let sent = self.send(request, Flight::Modify(fork));
        debug_assert_eq!(sent, number);
    }

    /// A response to a re-INVITE or UPDATE of ours.
    pub(super) fn modify_response(&mut self, now: Instant, number: u32, fork: Fork, response: Response, cseq: u32) {
        if response.status.is_provisional() {
            self.modify_provisional(number, fork, &response, cseq);
            return;
        }
        let Some(talk) = self.talk(fork) else { return };
        let Some(modifying) = talk.modifying.take_if(|m| m.number == number) else { return };
        if response.status.is_success() {
            self.modify_success(now, fork, &modifying, &response, cseq);
        } else {
            self.modify_refused(now, fork, modifying, &response);
        }
        self.pump(now);
    }

    /// RFC 3262 holds for re-INVITEs too: the answer may come early.
    fn modify_provisional(&mut self, number: u32, fork: Fork, response: &Response, cseq: u32) {
        let Some(rack) = super::reliable::rack(response, cseq) else { return };
        let Some(talk) = self.talk(fork) else { return };
        if talk.modifying.as_ref().is_none_or(|m| m.number != number || m.method != Method::Invite)
            || talk.rseq.is_some_and(|last| last.checked_add(1) != Some(rack.rseq))
        {
            return;
        }
        talk.rseq = Some(rack.rseq);
        if let (Ok(Some(answer)), Exchange::Ours { by: OurPlace::Modification(_), .. }) =
            (description::read(&response.headers, &response.body), talk.media.exchange())
        {
            talk.media.take_answer(answer.clone());
            self.events.push_back(SessionEvent::AnswerReceived { fork, sdp: Box::new(answer), early: false });
        }
        self.send_prack(fork, rack, None);
    }

    fn modify_success(&mut self, now: Instant, fork: Fork, modifying: &Modifying, response: &Response, cseq: u32) {
        if modifying.method == Method::Invite {
            self.send_ack_of(now, modifying.number, cseq, None);
        }
        let sdp = description::read(&response.headers, &response.body).unwrap_or_default();
        let Some(talk) = self.talk(fork) else { return };
        let early = talk.dialog.phase() == Phase::Early;
        talk.dialog.refresh(&response.headers.contact);
        talk.peer.learn(&response.headers);
        let asked = !modifying.want.is_refresh();
        if let Exchange::Ours { by: OurPlace::Modification(_), .. } = talk.media.exchange() {
            match sdp {
                Some(answer) => {
                    let changed = talk.media.remote() != Some(&answer);
                    talk.media.take_answer(answer.clone());
                    if asked || changed {
                        self.events.push_back(SessionEvent::AnswerReceived { fork, sdp: Box::new(answer), early });
                    }
                }
                // The answer is due here (RFC 3261 §14.1): there is none, so what was agreed on holds.
                None => {
                    talk.media.roll_back();
                    if asked {
                        let status = super::NOT_ACCEPTABLE_HERE;
                        self.events.push_back(SessionEvent::OfferRefused { fork, status });
                    }
                }
            }
        }
        if let State::Up(up) = &mut self.state {
            up.timer = Self::timer_from_success(now, &response.headers);
        }
        self.tell_hold();
    }

    fn modify_refused(&mut self, now: Instant, fork: Fork, modifying: Modifying, response: &Response) {
        let Some(talk) = self.talk(fork) else { return };
        talk.media.roll_back();
        let early = talk.dialog.phase() == Phase::Early;
        let retry_after = response.headers.retry_after().map(|seconds| Duration::from_secs(u64::from(seconds)));
        let refresh = modifying.want.is_refresh();
        let update = modifying.method == Method::Update;
        match response.status.code() {
            // RFC 3261 §14.1.
            491 => {
                let delay = self.glare_delay();
                self.want_again(now, fork, modifying.want, delay, response.status);
            }
            500 | 503 if retry_after.is_some_and(|after| after <= Duration::from_secs(30)) => {
                let after = retry_after.unwrap_or_default().max(Duration::from_millis(10));
                self.want_again(now, fork, modifying.want, after, response.status);
            }
            // RFC 4028 §7.4.
            422 => {
                let asked = response.headers.min_se().unwrap_or(0);
                if asked > self.min_se && asked <= self.context.limits.min_se_s {
                    self.min_se = asked;
                    self.want_again(now, fork, modifying.want, Duration::ZERO, response.status);
                } else {
                    self.offer_refused(fork, refresh, response.status);
                }
            }
            // RFC 3261 §12.2.1.2, RFC 5057 §5.1.
            408 | 481 if !early => self.dialog_lost(now, response.status),
            // It said UPDATE, and cannot; or it does not like this one.
            _ if update && !early && (refresh || matches!(response.status.code(), 405 | 501)) => {
                if let Some(talk) = self.talk(fork) {
                    talk.peer.update = false;
                }
                self.want_again(now, fork, modifying.want, Duration::ZERO, response.status);
            }
            _ => self.offer_refused(fork, refresh, response.status),
        }
    }

    fn offer_refused(&mut self, fork: Fork, refresh: bool, status: Status) {
        // A refresh that is refused leaves the timer to end the session (RFC 4028 §10).
        if !refresh {
            let holds = |want: &Want| matches!(want.offer, Offer::Hold(_));
            if let Some(talk) = self.talk(fork).filter(|talk| !talk.want.as_ref().is_some_and(holds)) {
                talk.media.holding = talk.media.local().is_some_and(description::is_held);
            }
            self.events.push_back(SessionEvent::OfferRefused { fork, status });
        }
    }

    fn want_again(&mut self, now: Instant, fork: Fork, want: Want, after: Duration, status: Status) {
        let limit = self.context.limits.offer_tries;
        let Some(talk) = self.talk(fork) else { return };
        if want.tries + 1 >= limit {
            self.offer_refused(fork, want.is_refresh(), status);
            return;
        }
        let mut again = Want { at: Some(now + after), tries: want.tries + 1, ..want };
        match (&mut again.offer, &talk.want) {
            // The hold that was wished meanwhile is part of it.
            (Offer::New(sdp), Some(Want { offer: Offer::Hold(on), .. })) => description::hold(sdp, *on),
            // What was wished meanwhile does as well.
            (_, Some(_)) => return,
            (_, None) => {}
        }
        talk.want = Some(again);
    }

    /// A re-INVITE or UPDATE of ours got no answer.
    pub(super) fn modify_failed(&mut self, now: Instant, number: u32, fork: Fork, why: Failure) {
        let Some(talk) = self.talk(fork) else { return };
        let Some(modifying) = talk.modifying.take_if(|m| m.number == number) else { return };
        talk.media.roll_back();
        let early = talk.dialog.phase() == Phase::Early;
        if why == Failure::TimedOut && !early {
            self.finish(now, End::failed(why), Vec::new());
        } else {
            self.offer_refused(fork, modifying.want.is_refresh(), super::SERVICE_UNAVAILABLE);
            self.pump(now);
        }
    }

    /// The other side does not know this dialog any more: 481 needs no BYE, 408 may.
    pub(super) fn dialog_lost(&mut self, now: Instant, status: Status) {
        let end = End::new(EndedBy::Engine, EndCause::DialogLost(status));
        if status == super::NO_TRANSACTION {
            self.unacknowledged = None;
            self.close(now, end, None);
        } else {
            self.finish(now, end, Vec::new());
        }
    }

    /// What is due of the session timer.
    pub(super) fn session_timeout(&mut self, now: Instant) {
        let State::Up(up) = &mut self.state else { return };
        let Some(timer) = &mut up.timer else { return };
        if timer.ends_at <= now {
            self.finish(now, End::new(EndedBy::Engine, EndCause::Expired), Vec::new());
            return;
        }
        if timer.refresh_at.is_some_and(|at| at <= now) {
            timer.refresh_at = None;
            // An offer that is on its way refreshes too.
            if up.talk.want.is_none() && up.talk.modifying.is_none() {
                up.talk.want = Some(Want::new(Offer::Refresh));
            }
        }
    }

    // ── theirs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// re-INVITE.
    pub(super) fn their_invite(&mut self, now: Instant, id: ServerId, request: &Request, origin: Origin) {
        let State::Up(up) = &self.state else {
            // RFC 3261 §14.2: their INVITE is not answered yet, or ours is not.
            match &self.state {
                State::Ringing(_) => self.too_early(id),
                State::Calling(_) => self.refuse(id, super::REQUEST_PENDING, Vec::new()),
                State::Up(_) | State::Over(_) => self.refuse(id, super::NO_TRANSACTION, Vec::new()),
            }
            return;
        };
        let ours = up.talk.modifying.as_ref().is_some_and(|m| m.method == Method::Invite);
        match up.talk.media.exchange() {
            Exchange::Theirs { by: TheirPlace::ReInvite(_) | TheirPlace::Update(_), .. } => return self.too_early(id),
            Exchange::Ours { .. } | Exchange::Theirs { .. } => {
                return self.refuse(id, super::REQUEST_PENDING, Vec::new());
            }
            Exchange::Stable | Exchange::Empty if ours => return self.refuse(id, super::REQUEST_PENDING, Vec::new()),
            Exchange::Stable | Exchange::Empty => {}
        }
        let Some((waiting, sdp)) = self.look_at(id, request) else { return };
        self.learn(&request.headers, origin);
        // Whoever asks for something new has our last 2xx: its ACK got lost.
        if self.unacknowledged.take().is_some_and(|u| u.initial) {
            self.events.push_back(SessionEvent::Confirmed);
        }
        match sdp {
            Some(sdp) => self.consider(now, sdp, TheirPlace::ReInvite(Box::new(waiting))),
            None => self.offer_in_success(now, &waiting),
        }
    }

    /// A re-INVITE without an offer gets ours: what holds (RFC 3261 §14.2).
    fn offer_in_success(&mut self, now: Instant, waiting: &Waiting) {
        let State::Up(up) = &mut self.state else { return };
        let Some(local) = up.talk.media.local().cloned() else {
            return self.refuse(waiting.id, super::NOT_ACCEPTABLE_HERE, Vec::new());
        };
        let offer = up.talk.media.offer(local, OurPlace::Success);
        let fork = up.talk.fork;
        self.accept_modification(now, fork, waiting, &offer, true);
    }

    /// UPDATE, in an early dialog or a confirmed one.
    pub(super) fn their_update(&mut self, now: Instant, id: ServerId, request: &Request, origin: Origin) {
        if self.is_over() {
            return self.refuse(id, super::NO_TRANSACTION, Vec::new());
        }
        let Some(tag) = request.headers.from.tag() else { return };
        let Some(talk) = self.talks().find(|talk| talk.dialog.is_remote(&tag)) else { return };
        let fork = talk.fork;
        let exchange = talk.media.exchange().clone();
        let Some((waiting, sdp)) = self.look_at(id, request) else { return };
        let Some(sdp) = sdp else {
            self.learn(&request.headers, origin);
            self.refreshed(fork, &waiting);
            let (timer, headers) = Self::timer_as_server(now, waiting.timer, waiting.peer_timer);
            self.take_timer(timer);
            let mut response = self.response(super::OK);
            self.introduce(&mut response.headers);
            response.headers.rest.extend(headers);
            return self.respond(id, response);
        };
        // RFC 3311 §5.2.
        match exchange {
            Exchange::Ours { .. } => self.refuse(id, super::REQUEST_PENDING, Vec::new()),
            Exchange::Theirs { .. } | Exchange::Empty => self.too_early(id),
            Exchange::Stable => {
                self.learn(&request.headers, origin);
                self.consider_in(now, fork, sdp, TheirPlace::Update(Box::new(waiting)));
            }
        }
    }

    /// What a re-INVITE or UPDATE brings; `None` where it is refused by rule.
    fn look_at(&mut self, id: ServerId, request: &Request) -> Option<(Waiting, Option<Sdp>)> {
        let sdp = match description::read(&request.headers, &request.body) {
            Ok(sdp) => sdp,
            Err(fault) => {
                self.refuse(id, fault.status, fault.headers);
                return None;
            }
        };
        let timer = match timer::agree(&self.context, &request.headers) {
            Ok(timer) => timer,
            Err(brief) => {
                self.refuse(id, super::SESSION_TOO_BRIEF, vec![Header::MinSe(brief.0)]);
                return None;
            }
        };
        let waiting = Waiting {
            id,
            cseq: request.headers.cseq.number,
            contact: request.headers.contact.clone(),
            timer,
            peer_timer: request.headers.supports("timer"),
        };
        Some((waiting, sdp))
    }

    fn learn(&mut self, headers: &Headers, origin: Origin) {
        if let Some(tag) = headers.from.tag()
            && let Some(talk) = self.talks_mut().find(|talk| talk.dialog.is_remote(&tag))
        {
            talk.peer.learn(headers);
        }
        if let Some(identity) = self.identity_of(headers, origin) {
            self.events.push_back(SessionEvent::Identity(identity));
        }
    }

    fn consider(&mut self, now: Instant, sdp: Sdp, by: TheirPlace) {
        let Some(fork) = self.talks().next().map(|talk| talk.fork) else { return };
        self.consider_in(now, fork, sdp, by);
    }

    /// Asks the application, unless the offer is what holds already.
    fn consider_in(&mut self, now: Instant, fork: Fork, sdp: Sdp, by: TheirPlace) {
        let until = now + self.context.timers.answer;
        let Some(talk) = self.talk(fork) else { return };
        let early = talk.dialog.phase() == Phase::Early;
        let known = talk.media.is_unchanged(&sdp).then(|| talk.media.local().cloned()).flatten();
        talk.media.take_offer(sdp.clone(), by, Some(until));
        match known {
            Some(local) => {
                self.answer(now, fork, local).ok();
            }
            None => self.events.push_back(SessionEvent::OfferReceived { fork, sdp: Box::new(sdp), early }),
        }
    }

    fn refreshed(&mut self, fork: Fork, waiting: &Waiting) {
        if let Some(talk) = self.talk(fork) {
            talk.dialog.refresh(&waiting.contact);
        }
    }

    fn take_timer(&mut self, timer: Option<timer::SessionTimer>) {
        if let State::Up(up) = &mut self.state {
            up.timer = timer;
        }
    }

    /// The 2xx to their re-INVITE (`invite`) or UPDATE, with this description.
    pub(super) fn accept_modification(&mut self, now: Instant, fork: Fork, waiting: &Waiting, sdp: &Sdp, invite: bool) {
        self.refreshed(fork, waiting);
        let (timer, headers) = Self::timer_as_server(now, waiting.timer, waiting.peer_timer);
        self.take_timer(timer);
        if invite {
            self.send_success(now, (waiting.id, waiting.cseq), Some(sdp), headers, false);
        } else {
            let mut response = self.response(super::OK);
            self.introduce(&mut response.headers);
            response.headers.rest.extend(headers);
            description::put(&mut response.headers, &mut response.body, sdp);
            self.respond(waiting.id, response);
        }
    }
}

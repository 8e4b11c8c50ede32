//! The side that sent the INVITE. Read RFC 3261 §13.2, §9.1 and §8.1.3.4 before touching this file.

use super::offer_answer::{Exchange, OfferAnswer, OurPlace, TheirPlace};
use super::{
    Acknowledged, Birth, Calling, End, EndCause, EndedBy, Flight, Fork, Invitation, Redirects, Role, Sdp, Sent,
    Session, SessionEvent, State, Talk, Up, description, tokens,
};
use crate::sip::dialog::{self, Dialog};
use crate::sip::exchange::{Failure, Origin, Wish};
use crate::wire::sip::{CallId, Header, Host, Method, NameAddr, Params, Request, Response, SipText, SipUri, Tag, Uri};
use std::collections::VecDeque;
use std::time::Instant;

impl Session {
    /// Sends an INVITE.
    pub(crate) fn invite(now: Instant, birth: Birth, call_id: CallId, invitation: Invitation) -> Self {
        let Invitation { local: _, to, offer, replaces, referred_by, anonymous } = invitation;
        let until = now + birth.context.timers.ring;
        let mut media = OfferAnswer::new();
        let offer = offer.map(|offer| media.offer(offer, OurPlace::Invite));
        let calling = Calling {
            media,
            talks: Vec::new(),
            next_fork: 0,
            until,
            tried: vec![to.uri.clone()],
            elsewhere: VecDeque::new(),
        };
        let mut session = Self::with(birth, Role::Caller, State::Calling(Box::new(calling)));
        let mut from = session.local.from.clone();
        let mut rest = Vec::new();
        if anonymous {
            // RFC 3323 §4.1.1.3, RFC 3325 §9.3.
            rest.push(Header::PAssertedIdentity(NameAddr { params: Params::default(), ..from.clone() }));
            rest.push(Header::Privacy(SipText::new("id")));
            from = nobody();
        }
        from.params.set("tag", Some(session.tag.as_str()));
        let uri = dialog::request_uri(to.uri.clone());
        let mut request = Request::new(Method::Invite, uri, from, to, call_id, 1);
        let headers = &mut request.headers;
        headers.to.params.remove("tag");
        headers.route.clone_from(&session.local.route);
        session.introduce(headers);
        headers.rest.extend(rest);
        if let Some(replaces) = replaces {
            headers.rest.push(Header::Replaces(replaces));
            // RFC 3891 §5: a second call instead of a replaced one helps nobody.
            headers.rest.push(Header::Require(tokens(&["replaces"])));
        }
        headers.rest.extend(referred_by.map(Header::ReferredBy));
        headers.rest.extend(session.timer_request(None));
        if let Some(offer) = &offer {
            description::put(&mut request.headers, &mut request.body, offer);
        }
        session.send_invite(request);
        session
    }

    fn send_invite(&mut self, request: Request) {
        let number = self.send(request.clone(), Flight::Invite);
        self.sent = Some(Sent { number, request: Box::new(request), until: None });
    }

    /// The INVITE again, elsewhere or with other timers: same Call-ID, tag and To, the next number (RFC 3261 §8.1.3.4).
    fn invite_again(&mut self, cseq: u32, uri: Option<Uri>) {
        let Some(sent) = self.sent.take() else { return };
        let mut request = *sent.request;
        request.headers.cseq.number = cseq.saturating_add(1);
        if let Some(uri) = uri {
            request.uri = dialog::request_uri(uri);
        }
        request
            .headers
            .rest
            .retain(|header| !matches!(header, Header::SessionExpires(_) | Header::MinSe(_) | Header::UserAgent(_)));
        request.headers.rest.extend(self.timer_request(None));
        self.send_invite(request);
    }

    /// A response to the INVITE that began the session.
    pub(super) fn invite_response(
        &mut self,
        now: Instant,
        number: u32,
        response: &Response,
        cseq: u32,
        origin: Origin,
    ) {
        let tag = response.headers.to.tag();
        if response.status.is_provisional() {
            self.provisional(now, tag, response, cseq);
        } else if response.status.is_success() {
            self.success(now, number, &tag.unwrap_or_else(dialog::no_tag), response, (cseq, origin));
        } else {
            self.failure(response, cseq);
        }
    }

    fn provisional(&mut self, now: Instant, tag: Option<Tag>, response: &Response, cseq: u32) {
        let State::Calling(_) = &self.state else { return };
        let fork = tag.and_then(|tag| self.early_talk(&tag, response, cseq));
        // RFC 6228: an early dialog is over, others go on.
        if response.status.code() == 199 {
            if let (Some(fork), State::Calling(calling)) = (fork, &mut self.state) {
                let ended = calling.talks.extract_if(.., |talk| talk.fork == fork).collect();
                self.end_forks(ended);
            }
            return;
        }
        let mut prack = None;
        if let (Some(fork), Some(rack)) = (fork, super::reliable::rack(response, cseq)) {
            // RFC 3262 §4: in order, each once. One out of order counts as lost, and comes again.
            match self.talk(fork) {
                Some(talk) if talk.rseq.is_none_or(|last| last.checked_add(1) == Some(rack.rseq)) => {
                    talk.rseq = Some(rack.rseq);
                }
                Some(_) | None => return,
            }
            prack = Some((fork, rack));
        }
        if let (Some(fork), Ok(Some(sdp))) = (fork, description::read(&response.headers, &response.body))
            && self.provisional_description(now, fork, sdp, prack.as_ref().map(|(_, rack)| rack))
        {
            // An offer: the PRACK waits for our answer (RFC 3262 §5).
            prack = None;
        }
        if let Some((fork, rack)) = prack {
            self.send_prack(fork, rack, None);
        }
        self.events.push_back(match response.status.code() {
            180 => SessionEvent::Ringing { fork },
            _ => SessionEvent::Progress { fork, status: response.status, text: response.reason.clone() },
        });
        self.pump(now);
    }

    /// The description of a provisional response. True where it is an offer.
    fn provisional_description(
        &mut self,
        now: Instant,
        fork: Fork,
        sdp: Sdp,
        rack: Option<&crate::wire::sip::RAck>,
    ) -> bool {
        let until = now + self.context.timers.answer;
        let Some(talk) = self.talk(fork) else { return false };
        match (talk.media.exchange(), rack) {
            // An answer for good (RFC 3262 §5), or what the answer will be (RFC 6337 §3.1.1).
            (Exchange::Ours { by: OurPlace::Invite, .. }, rack) => {
                let known = talk.media.preview.as_deref() == Some(&sdp);
                talk.media.preview = Some(Box::new(sdp.clone()));
                if rack.is_some() {
                    talk.media.take_answer(sdp.clone());
                }
                if !known {
                    self.events.push_back(SessionEvent::AnswerReceived { fork, sdp: Box::new(sdp), early: true });
                }
                false
            }
            // Only a reliable response may carry an offer (RFC 3261 §13.2.1).
            (Exchange::Empty, Some(rack)) => {
                talk.media.take_offer(sdp.clone(), TheirPlace::Provisional(rack.clone()), Some(until));
                self.events.push_back(SessionEvent::OfferReceived { fork, sdp: Box::new(sdp), early: true });
                true
            }
            (Exchange::Empty | Exchange::Stable | Exchange::Ours { .. } | Exchange::Theirs { .. }, _) => false,
        }
    }

    /// The early dialog with this tag, new or known; `None` past the cap.
    fn early_talk(&mut self, tag: &Tag, response: &Response, cseq: u32) -> Option<Fork> {
        let limit = self.context.limits.forks;
        let (State::Calling(calling), Some(sent)) = (&mut self.state, &self.sent) else { return None };
        if let Some(talk) = calling.talks.iter_mut().find(|talk| talk.dialog.is_remote(tag)) {
            talk.peer.learn(&response.headers);
            return Some(talk.fork);
        }
        if calling.talks.len() >= limit {
            return None;
        }
        let fork = Fork(calling.next_fork);
        calling.next_fork += 1;
        let mut talk = Talk::new(fork, Dialog::caller(&sent.request, response, cseq), calling.media.clone());
        talk.peer.learn(&response.headers);
        calling.talks.push(talk);
        Some(fork)
    }

    fn success(&mut self, now: Instant, number: u32, tag: &Tag, response: &Response, (cseq, origin): (u32, Origin)) {
        // RFC 3261 §13.2.2.4: one ACK for each 2xx, however often it comes.
        if self.acknowledge_again(number, tag) {
            return;
        }
        match &self.state {
            State::Calling(_) => self.accepted(now, tag, response, cseq, origin),
            // It is the one that waits for our answer.
            State::Up(up) if up.talk.dialog.is_remote(tag) => {}
            State::Ringing(_) | State::Up(_) | State::Over(_) => self.unwanted(now, number, response, cseq),
        }
    }

    /// The first 2xx wins.
    fn accepted(&mut self, now: Instant, tag: &Tag, response: &Response, cseq: u32, origin: Origin) {
        let Some(fork) = self.winner(tag, response, cseq) else { return };
        let until = now + self.context.timers.answer;
        if let Some(sent) = &mut self.sent {
            // RFC 3261 §13.2.2.4: other forks may follow for 64·T1.
            sent.until = Some(now + self.context.clock.t1 * 64);
        }
        let sdp = description::read(&response.headers, &response.body).unwrap_or_default();
        let State::Up(up) = &mut self.state else { return };
        up.timer = Self::timer_from_success(now, &response.headers);
        let talk = &mut up.talk;
        talk.dialog.confirm(response, cseq);
        talk.peer.learn(&response.headers);
        let preview = talk.media.preview.take();
        let mut agreed = true;
        match (talk.media.exchange(), sdp) {
            (Exchange::Ours { by: OurPlace::Invite, .. }, sdp) => {
                // A peer that does not repeat its early answer means the same.
                match sdp.or_else(|| preview.as_deref().cloned()) {
                    Some(answer) => {
                        talk.media.take_answer(answer.clone());
                        if preview.as_deref() != Some(&answer) {
                            let sdp = Box::new(answer);
                            self.events.push_back(SessionEvent::AnswerReceived { fork, sdp, early: false });
                        }
                    }
                    None => agreed = false,
                }
                self.send_ack(now, cseq, None);
            }
            (Exchange::Empty, Some(offer)) => {
                talk.media.take_offer(offer.clone(), TheirPlace::Success(cseq), Some(until));
                self.events.push_back(SessionEvent::OfferReceived { fork, sdp: Box::new(offer), early: false });
            }
            (Exchange::Empty, None) => {
                agreed = false;
                self.send_ack(now, cseq, None);
            }
            // Answered before, reliably; or another offer is on its way. What the 2xx repeats is the same (RFC 6337 §3.1.1).
            (Exchange::Stable | Exchange::Ours { .. } | Exchange::Theirs { .. }, _) => self.send_ack(now, cseq, None),
        }
        let identity = self.identity_of(&response.headers, origin);
        self.events.push_back(SessionEvent::Accepted { fork, identity });
        if agreed {
            self.tell_hold();
            self.pump(now);
        } else {
            self.finish(now, End::new(EndedBy::Engine, EndCause::NoAgreement), Vec::new());
        }
    }

    /// From `Calling` to `Up` with the dialog of this tag; the others end.
    fn winner(&mut self, tag: &Tag, response: &Response, cseq: u32) -> Option<Fork> {
        let sent = self.sent.as_ref()?;
        let State::Calling(calling) = &mut self.state else { return None };
        let mut winner = None;
        let mut losers = Vec::new();
        for talk in calling.talks.drain(..) {
            if talk.dialog.is_remote(tag) {
                winner = Some(talk);
            } else {
                losers.push(talk);
            }
        }
        let winner = winner.unwrap_or_else(|| {
            let dialog = Dialog::caller(&sent.request, response, cseq);
            Talk::new(Fork(calling.next_fork), dialog, calling.media.clone())
        });
        let fork = winner.fork;
        self.flights.retain(|(_, flight)| match flight {
            Flight::Prack(of) | Flight::Modify(of) => *of == fork,
            Flight::Invite | Flight::Bye | Flight::Info | Flight::Refer | Flight::Notify => true,
        });
        self.end_forks(losers);
        self.state = State::Up(Box::new(Up { talk: winner, timer: None, held: false, digits: VecDeque::new() }));
        Some(fork)
    }

    /// A 2xx that nobody waits for: of another fork, or after we gave up. ACK, then BYE (RFC 3261 §13.2.2.4).
    fn unwanted(&mut self, now: Instant, number: u32, response: &Response, cseq: u32) {
        let Some(sent) = &self.sent else { return };
        if sent.number != number || self.acknowledged.len() >= self.context.limits.forks {
            return;
        }
        let mut dialog = Dialog::caller(&sent.request, response, cseq);
        let mut ack = dialog.ack(cseq);
        if sent.request.body.is_empty() {
            // An offer is to be answered even so (§13.2.2.4).
            if let Ok(Some(offer)) = description::read(&response.headers, &response.body) {
                description::put(&mut ack.headers, &mut ack.body, &description::void(&offer));
            }
        }
        let tag = dialog.remote_tag().clone();
        let bye = dialog.request(Method::Bye);
        self.remember_ack(now, number, tag, ack);
        self.send(bye, Flight::Bye);
        let until = now + self.context.clock.t1 * 64;
        if let Some(sent) = &mut self.sent {
            sent.until.get_or_insert(until);
        }
    }

    fn remember_ack(&mut self, now: Instant, number: u32, tag: Tag, request: Request) {
        let request = Box::new(request);
        self.wishes.push_back(Wish::Ack(request.clone()));
        // RFC 6026 §8.5: the 2xx comes again for 64·T1 at most.
        let until = now + self.context.clock.t1 * 64;
        self.acknowledged.push(Acknowledged { number, tag, request, until });
    }

    fn acknowledge_again(&mut self, number: u32, tag: &Tag) -> bool {
        let known = self.acknowledged.iter().find(|a| a.number == number && a.tag == *tag);
        let Some(known) = known else { return false };
        self.wishes.push_back(Wish::Ack(known.request.clone()));
        true
    }

    /// Acknowledges the 2xx of our first INVITE.
    pub(super) fn send_ack(&mut self, now: Instant, cseq: u32, sdp: Option<&Sdp>) {
        let Some(number) = self.sent.as_ref().map(|sent| sent.number) else { return };
        self.send_ack_of(now, number, cseq, sdp);
    }

    /// Acknowledges the 2xx of the INVITE or re-INVITE with this name.
    pub(super) fn send_ack_of(&mut self, now: Instant, number: u32, cseq: u32, sdp: Option<&Sdp>) {
        let Some(talk) = self.talks().next() else { return };
        let mut ack = talk.dialog.ack(cseq);
        let tag = talk.dialog.remote_tag().clone();
        if let Some(sdp) = sdp {
            description::put(&mut ack.headers, &mut ack.body, sdp);
        }
        self.remember_ack(now, number, tag, ack);
    }

    /// Acknowledges the 2xx with an answer that takes nothing of its offer.
    pub(super) fn answer_void(&mut self, now: Instant, cseq: u32) {
        let Some(talk) = self.talks().next() else { return };
        let void = match talk.media.exchange() {
            Exchange::Theirs { sdp, .. } => description::void(sdp),
            Exchange::Empty | Exchange::Stable | Exchange::Ours { .. } => return,
        };
        self.send_ack(now, cseq, Some(&void));
    }

    /// A repeated 2xx of a re-INVITE or of the INVITE, whose request is answered long since.
    pub(super) fn late_success(&mut self, now: Instant, number: u32, response: &Response, cseq: u32, origin: Origin) {
        let tag = response.headers.to.tag().unwrap_or_else(dialog::no_tag);
        self.success(now, number, &tag, response, (cseq, origin));
    }

    fn failure(&mut self, response: &Response, cseq: u32) {
        let State::Calling(calling) = &mut self.state else {
            // After the end, 487 and the like; after a 2xx of another fork there is no other final answer.
            if self.is_over() {
                self.sent = None;
            }
            return;
        };
        // RFC 4028 §7.4: once more with what is asked for.
        if response.status == super::SESSION_TOO_BRIEF {
            let asked = response.headers.min_se().unwrap_or(0);
            if asked > self.min_se && asked <= self.context.limits.min_se_s {
                self.min_se = asked;
                self.fork_anew();
                self.invite_again(cseq, None);
                return;
            }
        }
        if (300..=302).contains(&response.status.code()) {
            calling.elsewhere = best_first(&response.headers.contact);
        }
        // RFC 3261 §16.7 step 5: a 6xx speaks for all.
        if response.status.code() < 600
            && let Some(uri) = self.next_target()
        {
            self.fork_anew();
            self.events.push_back(SessionEvent::Redirected { to: uri.clone() });
            self.invite_again(cseq, Some(uri));
            return;
        }
        self.sent = None;
        let mut end = End::rejected(response);
        if !(300..400).contains(&response.status.code()) {
            end.contacts.clear();
        }
        self.end_unanswered(end);
    }

    /// Ends a call whose INVITE has its final answer: nothing is left on the wire.
    fn end_unanswered(&mut self, end: End) {
        self.flights.clear();
        let until = match &self.state {
            State::Calling(calling) => calling.until,
            State::Ringing(_) | State::Up(_) | State::Over(_) => return,
        };
        // Nothing keeps it, so that this instant is not waited for.
        self.close(until, end, None);
    }

    /// No early dialog of the last try lives on.
    fn fork_anew(&mut self) {
        self.flights.clear();
        let State::Calling(calling) = &mut self.state else { return };
        let ended = std::mem::take(&mut calling.talks);
        self.end_forks(ended);
    }

    /// Early dialogs that came to nothing; what they asked is answered.
    pub(super) fn end_forks(&mut self, ended: Vec<Talk>) {
        for talk in ended {
            if let Some(id) = talk.waiting() {
                self.refuse(id, super::REQUEST_TERMINATED, Vec::new());
            }
            self.events.push_back(SessionEvent::ForkEnded { fork: talk.fork });
        }
    }

    /// The next Contact that policy and the loop guard let us try (RFC 3261 §8.1.3.4).
    fn next_target(&mut self) -> Option<Uri> {
        let (policy, limit) = (self.context.policy.redirects, self.context.limits.redirects);
        let State::Calling(calling) = &mut self.state else { return None };
        while let Some(contact) = calling.elsewhere.pop_front() {
            let uri = dialog::request_uri(contact.uri);
            let first = calling.tried.first();
            let allowed = match policy {
                Redirects::Never => false,
                Redirects::SameHost => first.is_some_and(|first| host(first).is_some() && host(first) == host(&uri)),
                Redirects::Always => !matches!(uri, Uri::Other(_)),
            };
            // RFC 3261 §8.1.3.4: sips stays sips.
            let kept = is_secure(&uri) || !first.is_some_and(is_secure);
            if allowed && kept && calling.tried.len() <= limit && !calling.tried.contains(&uri) {
                calling.tried.push(uri.clone());
                return Some(uri);
            }
        }
        None
    }

    /// The INVITE has no answer at all.
    pub(super) fn invite_failed(&mut self, why: Failure) {
        self.sent = None;
        if let State::Calling(_) = &self.state {
            self.end_unanswered(End::failed(why));
        }
    }
}

/// Contacts by their `q`, highest first, those alike in their order (RFC 3261 §20.10).
fn best_first(contacts: &[NameAddr]) -> VecDeque<NameAddr> {
    let q = |contact: &NameAddr| {
        let q = contact.params.find("q").and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
        (q.clamp(0.0, 1.0) * 1000.0) as u32
    };
    let mut all: Vec<NameAddr> = contacts.iter().take(8).cloned().collect();
    all.sort_by_key(|contact| std::cmp::Reverse(q(contact)));
    all.into()
}

fn host(uri: &Uri) -> Option<&Host> {
    match uri {
        Uri::Sip(uri) => Some(&uri.host),
        Uri::Tel(_) | Uri::Other(_) => None,
    }
}

fn is_secure(uri: &Uri) -> bool {
    match uri {
        Uri::Sip(uri) => uri.secure,
        Uri::Tel(_) | Uri::Other(_) => false,
    }
}

/// RFC 3323 §4.1.1.3.
fn nobody() -> NameAddr {
    let host = Host::new("anonymous.invalid").unwrap_or(Host::Ip(std::net::Ipv4Addr::UNSPECIFIED.into()));
    let uri = SipUri::new(Some("anonymous"), host);
    NameAddr::named("Anonymous", uri.into())
}

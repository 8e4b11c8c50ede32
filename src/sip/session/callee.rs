//! The side that got the INVITE. Nothing but provisional answers leaves before the application decides.
//! Read RFC 3261 §13.3, §8.2 and RFC 3891 §3 before touching this file.

use super::offer_answer::{Exchange, OfferAnswer, OurPlace, TheirPlace};
use super::reliable::Reliable;
use super::{
    Birth, Context, End, EndCause, EndedBy, Flight, Fork, Incoming, Misuse, Ringing, Role, SUPPORTED, Sdp, Session,
    SessionEvent, State, Talk, Trust, Unacknowledged, Up, description, timer,
};
use crate::sip::dialog::Dialog;
use crate::sip::exchange::{Origin, ServerId, Wish};
use crate::sip::sessions::SessionId;
use crate::wire::sip::{
    Header, Headers, NameAddr, Params, Reason, Replaces, Request, Response, SessionExpires, SipText, Status, Token,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// An INVITE that passed the first looks.
#[derive(Debug)]
pub(crate) struct Arrival {
    offer: Option<Sdp>,
    timer: Option<SessionExpires>,
    pub(crate) replaces: Option<Replaces>,
}

/// A refusal by rule.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: Status,
    pub(crate) headers: Vec<Header>,
}

impl Refused {
    pub(crate) fn new(status: Status) -> Self {
        Self { status, headers: Vec::new() }
    }

    pub(crate) fn with(status: Status, header: Header) -> Self {
        Self { status, headers: vec![header] }
    }
}

/// Options that are required and not known here: 420 (RFC 3261 §8.2.2.3).
pub(crate) fn check_required(headers: &Headers) -> Result<(), Refused> {
    let known = |name: &&Token| SUPPORTED.iter().any(|known| name.is(known));
    let unknown: Vec<Token> = headers.require().filter(|name| !known(name)).cloned().collect();
    if unknown.is_empty() { Ok(()) } else { Err(Refused::with(super::BAD_EXTENSION, Header::Unsupported(unknown))) }
}

impl Arrival {
    /// The looks that need no application, in the order of RFC 3261 §8.2.
    pub(crate) fn check(context: &Context, request: &Request) -> Result<Self, Refused> {
        check_required(&request.headers)?;
        let offer = description::read(&request.headers, &request.body)?;
        // RFC 3261 §21.4.16.
        if context.policy.require_reliable && !request.headers.supports("100rel") {
            let require = Header::Require(super::tokens(&["100rel"]));
            return Err(Refused::with(super::EXTENSION_REQUIRED, require));
        }
        // RFC 4028 §9.
        let timer = timer::agree(context, &request.headers)
            .map_err(|brief| Refused::with(super::SESSION_TOO_BRIEF, Header::MinSe(brief.0)))?;
        let mut replaces =
            request.headers.rest.iter().filter_map(|header| {
                if let Header::Replaces(replaces) = header { Some(replaces.clone()) } else { None }
            });
        let first = replaces.next();
        // RFC 3891 §3: more than one is malformed.
        if replaces.next().is_some() {
            return Err(Refused::new(super::BAD_REQUEST));
        }
        Ok(Self { offer, timer, replaces: first })
    }
}

impl Session {
    /// An INVITE that began a session.
    pub(crate) fn arrive(
        now: Instant,
        birth: Birth,
        (id, request, origin): (ServerId, &Request, Origin),
        arrival: Arrival,
        replaces: Option<SessionId>,
    ) -> Self {
        let Arrival { offer, timer, replaces: _ } = arrival;
        let tag = birth.tag.clone();
        let mut talk = Talk::new(Fork(0), Dialog::callee(request, tag), OfferAnswer::new());
        talk.peer.learn(&request.headers);
        if let Some(offer) = &offer {
            talk.media.take_offer(offer.clone(), TheirPlace::Invite, None);
        }
        let expires = request.headers.expires().map(|seconds| Duration::from_secs(u64::from(seconds)));
        // RFC 3261 §13.3.1: the invitation may be shorter than our patience.
        let patience = birth.context.timers.ring.min(expires.unwrap_or(Duration::MAX));
        let ringing = Ringing {
            id,
            cseq: request.headers.cseq.number,
            talk,
            reliable: Reliable::new(birth.random),
            must_be_reliable: request.headers.requires("100rel"),
            timer,
            peer_timer: request.headers.supports("timer"),
            until: now + patience,
            last: None,
            accepting: None,
            replaces,
        };
        let mut session = Self::with(birth, Role::Callee, State::Ringing(Box::new(ringing)));
        let incoming = Incoming {
            uri: request.uri.clone(),
            from: request.headers.from.clone(),
            to: request.headers.to.clone(),
            identity: session.identity_of(&request.headers, origin),
            private: is_private(&request.headers),
            referred_by: request.headers.referred_by().cloned(),
            replaces,
            offer,
            subject: request.headers.subject().cloned(),
            agent: request.headers.user_agent().cloned(),
            origin,
        };
        session.events.push_back(SessionEvent::Incoming(Box::new(incoming)));
        session
    }

    /// P-Asserted-Identity, where policy believes the one who sent it (RFC 3325 §5).
    pub(super) fn identity_of(&self, headers: &Headers, origin: Origin) -> Option<NameAddr> {
        let trusted = match &self.context.policy.trust {
            Trust::Nobody => false,
            Trust::Everybody => true,
            Trust::Sources(sources) => sources.contains(&origin.source.ip()),
        };
        if !trusted {
            return None;
        }
        let identity = headers.asserted_identities().next()?;
        Some(NameAddr { params: Params::default(), ..identity.clone() })
    }

    fn ringing(&self) -> Result<&Ringing, Misuse> {
        match &self.state {
            State::Ringing(ringing) => Ok(ringing),
            State::Over(_) => Err(Misuse::Ended),
            State::Calling(_) | State::Up(_) => Err(Misuse::NotRinging),
        }
    }

    /// 180, or another provisional response without a description.
    pub(crate) fn progress(&mut self, now: Instant, status: Status) -> Result<(), Misuse> {
        if !(101..200).contains(&status.code()) {
            return Err(Misuse::WrongStatus(status));
        }
        let ringing = self.ringing()?;
        if ringing.accepting.is_some() || ringing.reliable.len() >= self.context.limits.provisional {
            return Err(Misuse::NotRinging);
        }
        let reliable = ringing.must_be_reliable;
        self.send_provisional(now, status, None, reliable);
        Ok(())
    }

    /// 183 with our answer, or with our offer where theirs is missing: early media, reliable where the caller can.
    pub(crate) fn early(&mut self, now: Instant, sdp: Sdp) -> Result<(), Misuse> {
        let reliable = {
            let ringing = self.ringing()?;
            if ringing.accepting.is_some() || ringing.reliable.len() >= self.context.limits.provisional {
                return Err(Misuse::NotRinging);
            }
            ringing.must_be_reliable || ringing.talk.peer.reliable
        };
        let State::Ringing(ringing) = &mut self.state else { return Err(Misuse::NotRinging) };
        let rseq = ringing.reliable.next_rseq();
        let media = &mut ringing.talk.media;
        let sdp = match (media.exchange(), reliable) {
            (Exchange::Theirs { by: TheirPlace::Invite, .. }, true) => {
                let Some((sdp, _)) = media.answer(sdp) else { return Err(Misuse::NoOffer) };
                sdp
            }
            (Exchange::Theirs { by: TheirPlace::Invite, .. }, false) => media.preview(sdp),
            (Exchange::Empty, true) => media.offer(sdp, OurPlace::Provisional(rseq)),
            // RFC 3261 §13.2.1: an offer must not get lost.
            (Exchange::Empty, false) => return Err(Misuse::NotAllowed("an offer before the answer")),
            (Exchange::Stable, _) => return Err(Misuse::NoOffer),
            (Exchange::Ours { .. } | Exchange::Theirs { .. }, _) => return Err(Misuse::OfferOpen),
        };
        self.send_provisional(now, super::SESSION_PROGRESS, Some(&sdp), reliable);
        Ok(())
    }

    /// 200 with our answer, or with our offer where theirs is missing. It waits for a PRACK that is due, and for an
    /// offer that is open (RFC 3262 §3, RFC 6337 §3).
    pub(crate) fn accept(&mut self, now: Instant, sdp: Option<Sdp>) -> Result<(), Misuse> {
        let ringing = self.ringing()?;
        if ringing.accepting.is_some() {
            return Err(Misuse::NotRinging);
        }
        let needed = match ringing.talk.media.exchange() {
            Exchange::Theirs { by: TheirPlace::Invite, .. } => ringing.talk.media.preview.is_none(),
            Exchange::Empty => true,
            Exchange::Stable | Exchange::Ours { .. } | Exchange::Theirs { .. } => false,
        };
        if needed && sdp.is_none() {
            return Err(Misuse::NoDescription);
        }
        if let State::Ringing(ringing) = &mut self.state {
            ringing.accepting = Some(sdp.map(Box::new));
        }
        self.pump(now);
        Ok(())
    }

    /// The 200 that waits, if nothing stands before it any more.
    pub(super) fn pump_accept(&mut self, now: Instant) {
        let State::Ringing(ringing) = &mut self.state else { return };
        let free = match ringing.talk.media.exchange() {
            Exchange::Theirs { by: TheirPlace::Invite, .. } | Exchange::Empty | Exchange::Stable => true,
            Exchange::Ours { .. } | Exchange::Theirs { .. } => false,
        };
        if !free || ringing.reliable.is_waiting() || ringing.talk.modifying.is_some() {
            return;
        }
        let Some(wanted) = ringing.accepting.take() else { return };
        let media = &mut ringing.talk.media;
        let body = match media.exchange() {
            Exchange::Theirs { .. } => {
                // What was said before the 2xx is what the 2xx says (RFC 6337 §3.1.1).
                let answer = media.preview.as_deref().cloned().or(wanted.map(|sdp| *sdp));
                answer.and_then(|answer| media.answer(answer)).map(|(sdp, _)| sdp)
            }
            Exchange::Empty => wanted.map(|sdp| media.offer(*sdp, OurPlace::Success)),
            // The reliable answer was the answer.
            Exchange::Stable | Exchange::Ours { .. } => None,
        };
        ringing.talk.dialog.confirm_local();
        let (id, cseq) = (ringing.id, ringing.cseq);
        let (timer, headers) = Self::timer_as_server(now, ringing.timer, ringing.peer_timer);
        self.send_success(now, (id, cseq), body.as_ref(), headers, true);
        let waiting = State::Over(Box::new(super::Over { talk: None, bye: None, until: now }));
        if let State::Ringing(ringing) = std::mem::replace(&mut self.state, waiting) {
            self.replaced = ringing.replaces;
            let up = Up { talk: ringing.talk, timer, held: false, digits: VecDeque::new() };
            self.state = State::Up(Box::new(up));
        }
        self.tell_hold();
    }

    /// A 2xx to an INVITE, repeated until its ACK (RFC 3261 §13.3.1.4, §14.2).
    pub(super) fn send_success(
        &mut self,
        now: Instant,
        (id, cseq): (ServerId, u32),
        sdp: Option<&Sdp>,
        headers: Vec<Header>,
        initial: bool,
    ) {
        let mut response = self.response(super::OK);
        self.introduce_response(&mut response.headers);
        response.headers.rest.push(Header::Accept(SipText::new(description::MEDIA_TYPE)));
        response.headers.rest.extend(headers);
        if let Some(sdp) = sdp {
            description::put(&mut response.headers, &mut response.body, sdp);
        }
        let t1 = self.context.clock.t1;
        let response = Box::new(response);
        self.wishes.push_back(Wish::Response { id, to_tag: Some(self.tag.clone()), response: response.clone() });
        self.unacknowledged =
            Some(Unacknowledged { id, cseq, response, next: now + t1, interval: t1, until: now + t1 * 64, initial });
    }

    /// Contact, Allow, Supported, and Record-Route where the response makes a dialog (RFC 3261 §12.1.1).
    pub(super) fn introduce_response(&self, headers: &mut Headers) {
        self.introduce(headers);
        if let Some(talk) = self.talks().next().filter(|_| self.role == Role::Callee) {
            headers.record_route = talk.dialog.routes().to_vec();
        }
    }

    /// 3xx to 6xx by the application.
    pub(crate) fn reject(&mut self, now: Instant, status: Status, reasons: Vec<Reason>) -> Result<(), Misuse> {
        self.ringing()?;
        if status.code() < 300 {
            return Err(Misuse::WrongStatus(status));
        }
        let headers = reasons.into_iter().map(Header::Reason).collect();
        self.refuse_invite(now, status, headers, EndedBy::Local, EndCause::Rejected(status));
        Ok(())
    }

    /// 302 with these Contacts.
    pub(crate) fn redirect(&mut self, now: Instant, contacts: Vec<NameAddr>) -> Result<(), Misuse> {
        let ringing = self.ringing()?;
        let id = ringing.id;
        if contacts.is_empty() {
            return Err(Misuse::NoDescription);
        }
        let mut response = self.response(super::MOVED_TEMPORARILY);
        response.headers.contact = contacts;
        self.respond(id, response);
        let cause = EndCause::Rejected(super::MOVED_TEMPORARILY);
        self.close(now, End::new(EndedBy::Local, cause), None);
        Ok(())
    }

    /// The final refusal of the INVITE, whoever wants it.
    pub(super) fn refuse_invite(
        &mut self,
        now: Instant,
        status: Status,
        headers: Vec<Header>,
        by: EndedBy,
        cause: EndCause,
    ) {
        let State::Ringing(ringing) = &self.state else { return };
        let id = ringing.id;
        self.refuse(id, status, headers);
        self.close(now, End::new(by, cause), None);
    }

    /// CANCEL of an INVITE or re-INVITE of theirs (RFC 3261 §9.2). After our final answer it has no effect.
    pub(crate) fn cancelled(&mut self, now: Instant, id: ServerId, reasons: Vec<Reason>) {
        if let State::Ringing(ringing) = &self.state {
            if ringing.id == id {
                self.refuse(id, super::REQUEST_TERMINATED, Vec::new());
                let end = End { reasons, ..End::new(EndedBy::Remote, EndCause::Cancelled) };
                self.close(now, end, None);
            }
            return;
        }
        let waiting = self.talks_mut().find(|talk| match talk.media.exchange() {
            Exchange::Theirs { by: TheirPlace::ReInvite(waiting), .. } => waiting.id == id,
            Exchange::Theirs { .. } | Exchange::Empty | Exchange::Stable | Exchange::Ours { .. } => false,
        });
        if let Some(talk) = waiting {
            talk.media.roll_back();
            let fork = talk.fork;
            self.refuse(id, super::REQUEST_TERMINATED, Vec::new());
            self.events.push_back(SessionEvent::OfferWithdrawn { fork });
            self.pump(now);
        }
    }

    /// The ACK of a 2xx of ours; a strange one has no effect.
    pub(crate) fn acknowledged(&mut self, now: Instant, request: &Request) {
        let number = request.headers.cseq.number;
        let from_peer = request.headers.from.tag().is_some_and(|tag| self.talks().any(|t| t.dialog.is_remote(&tag)));
        if !from_peer || self.unacknowledged.as_ref().is_none_or(|waiting| waiting.cseq != number) {
            return;
        }
        let Some(waiting) = self.unacknowledged.take() else { return };
        if let State::Over(over) = &mut self.state {
            if let Some(headers) = over.bye.take() {
                self.send_bye(headers);
            }
            return;
        }
        let State::Up(up) = &mut self.state else { return };
        let media = &mut up.talk.media;
        if let Exchange::Ours { by: OurPlace::Success, .. } = media.exchange() {
            match description::read(&request.headers, &request.body) {
                Ok(Some(answer)) => {
                    media.take_answer(answer.clone());
                    let fork = up.talk.fork;
                    self.events.push_back(SessionEvent::AnswerReceived { fork, sdp: Box::new(answer), early: false });
                }
                // RFC 3261 §13.2.1: the answer is due here. A re-INVITE leaves what holds.
                Ok(None) | Err(_) if waiting.initial => {
                    self.finish(now, End::new(EndedBy::Engine, EndCause::NoAgreement), Vec::new());
                    return;
                }
                Ok(None) | Err(_) => media.roll_back(),
            }
        }
        if waiting.initial {
            self.events.push_back(SessionEvent::Confirmed);
        }
        self.tell_hold();
        self.pump(now);
    }

    /// Another session takes this one's place (RFC 3891 §3): BYE, or CANCEL where it still rings there.
    pub(crate) fn replaced(&mut self, now: Instant) {
        if !self.is_over() {
            self.finish(now, End::new(EndedBy::Engine, EndCause::Replaced), Vec::new());
        }
    }

    /// The session that ends because this one was accepted; told once.
    pub(crate) fn take_replaced(&mut self) -> Option<SessionId> {
        self.replaced.take()
    }

    /// A flight that nobody reads is none.
    pub(super) fn land(&mut self, number: u32) -> Option<Flight> {
        let at = self.flights.iter().position(|(n, _)| *n == number)?;
        Some(self.flights.remove(at).1)
    }
}

/// The caller asks not to be shown (RFC 3323 §4.2, RFC 3325 §9.3).
fn is_private(headers: &Headers) -> bool {
    let hides = |part: &str| ["id", "user", "header"].contains(&part.trim());
    headers.privacy().is_some_and(|value| value.as_str().split(';').any(hides))
}

/// A response to a request that no session is made for.
pub(crate) fn refusal(context: &Context, refused: Refused) -> Response {
    let mut response = super::blank(refused.status, context.agent.as_ref());
    response.headers.rest.extend(refused.headers);
    response
}

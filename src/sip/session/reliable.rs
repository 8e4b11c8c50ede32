//! Provisional responses that arrive. Read RFC 3262 before touching this file.

use super::offer_answer::{Exchange, OurPlace, TheirPlace};
use super::{EndCause, EndedBy, Flight, Fork, Sdp, Session, SessionEvent, State, description};
use crate::sip::exchange::{ServerId, Wish};
use crate::wire::sip::{CSeq, Header, Method, RAck, Request, Response, Status};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Reliable provisional responses of ours: one at a time is on its way (RFC 3262 §3).
///
/// ```text
///   queued ─▶ sent, again after T1, 2·T1, 4·T1, … ── PRACK ─▶ the next
///                                                 └─ 64·T1 ─▶ 504 to the INVITE
/// ```
#[derive(Debug)]
pub(super) struct Reliable {
    next_rseq: u32,
    unacknowledged: Option<Pending>,
    queue: VecDeque<(u32, Box<Response>)>,
}

#[derive(Debug)]
struct Pending {
    rseq: u32,
    response: Box<Response>,
    next: Instant,
    interval: Duration,
    until: Instant,
}

impl Reliable {
    /// The first RSeq is between 1 and 2^31 − 1 (RFC 3262 §3); the room above it is for those that follow.
    pub(super) fn new(random: u64) -> Self {
        Self { next_rseq: 1 + (random % 0x3fff_ffff) as u32, unacknowledged: None, queue: VecDeque::new() }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unacknowledged.as_ref().map(|pending| pending.next.min(pending.until))
    }

    /// A PRACK is awaited: no 2xx yet (RFC 3262 §3).
    pub(super) fn is_waiting(&self) -> bool {
        self.unacknowledged.is_some()
    }

    /// RSeq that the next response will have.
    pub(super) fn next_rseq(&self) -> u32 {
        self.next_rseq
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// What acknowledges this response, if it is a reliable one (RFC 3262 §4).
pub(super) fn rack(response: &Response, cseq: u32) -> Option<RAck> {
    if response.status.code() == 100 || !response.headers.requires("100rel") {
        return None;
    }
    let rseq = response.headers.rseq()?;
    Some(RAck { rseq, cseq: CSeq { number: cseq, method: Method::Invite } })
}

impl Session {
    /// Acknowledges a reliable provisional response, with our answer where it had an offer.
    pub(super) fn send_prack(&mut self, fork: Fork, rack: RAck, sdp: Option<&Sdp>) {
        let Some(talk) = self.talk(fork) else { return };
        // The INVITE may have been sent with a higher number than we gave it.
        talk.dialog.sent(rack.cseq.number);
        let mut request = talk.dialog.request(Method::Prack);
        request.headers.rest.push(Header::RAck(rack));
        if let Some(sdp) = sdp {
            description::put(&mut request.headers, &mut request.body, sdp);
        }
        self.send(request, Flight::Prack(fork));
    }

    /// A provisional response of ours, reliable where it has to be or may be.
    pub(super) fn send_provisional(&mut self, now: Instant, status: Status, sdp: Option<&Sdp>, reliable: bool) {
        let mut response = self.response(status);
        self.introduce_response(&mut response.headers);
        if let Some(sdp) = sdp {
            description::put(&mut response.headers, &mut response.body, sdp);
        }
        let State::Ringing(ringing) = &mut self.state else { return };
        // RFC 3261 §13.3.1.1.
        ringing.last = Some((now + Duration::from_secs(60), status));
        if !reliable {
            let id = ringing.id;
            self.respond(id, response);
            return;
        }
        let queue = &mut ringing.reliable;
        let rseq = queue.next_rseq;
        queue.next_rseq = queue.next_rseq.saturating_add(1);
        response.headers.rest.push(Header::RSeq(rseq));
        response.headers.rest.push(Header::Require(super::tokens(&["100rel"])));
        queue.queue.push_back((rseq, Box::new(response)));
        self.pump_reliable(now);
    }

    fn pump_reliable(&mut self, now: Instant) {
        let t1 = self.context.clock.t1;
        let tag = self.tag.clone();
        let State::Ringing(ringing) = &mut self.state else { return };
        if ringing.reliable.unacknowledged.is_some() {
            return;
        }
        let Some((rseq, response)) = ringing.reliable.queue.pop_front() else { return };
        self.wishes.push_back(Wish::Response { id: ringing.id, to_tag: Some(tag), response: response.clone() });
        ringing.reliable.unacknowledged =
            Some(Pending { rseq, response, next: now + t1, interval: t1, until: now + t1 * 64 });
    }

    /// What is due of our provisional responses.
    pub(super) fn repeat_provisional(&mut self, now: Instant) {
        let tag = self.tag.clone();
        let State::Ringing(ringing) = &mut self.state else { return };
        if let Some(pending) = &mut ringing.reliable.unacknowledged {
            if pending.until <= now {
                // RFC 3262 §3: 5xx.
                let by = EndedBy::Engine;
                self.refuse_invite(now, super::SERVER_TIMEOUT, Vec::new(), by, EndCause::NoPrack);
                return;
            }
            if pending.next <= now {
                pending.interval *= 2;
                pending.next = now + pending.interval;
                let response = pending.response.clone();
                self.wishes.push_back(Wish::Response { id: ringing.id, to_tag: Some(tag), response });
            }
            return;
        }
        if let Some((_, status)) = ringing.last.filter(|(at, _)| *at <= now) {
            let sdp = ringing.talk.media.preview.as_deref().cloned();
            let reliable = ringing.must_be_reliable;
            self.send_provisional(now, status, sdp.as_ref().filter(|_| !reliable), reliable);
        }
    }

    /// PRACK.
    pub(super) fn prack(&mut self, now: Instant, id: ServerId, request: &Request) {
        let rack = request.headers.rack();
        let answer_until = now + self.context.timers.answer;
        let matching = match &mut self.state {
            State::Ringing(ringing) => {
                let cseq = ringing.cseq;
                let waiting = ringing.reliable.unacknowledged.as_ref().map(|pending| pending.rseq);
                let fits = rack.is_some_and(|rack| {
                    Some(rack.rseq) == waiting && rack.cseq.number == cseq && rack.cseq.method == Method::Invite
                });
                fits.then_some(ringing)
            }
            State::Calling(_) | State::Up(_) | State::Over(_) => None,
        };
        // RFC 3262 §3.
        let Some(ringing) = matching else { return self.refuse(id, super::NO_TRANSACTION, Vec::new()) };
        let sdp = match description::read(&request.headers, &request.body) {
            Ok(sdp) => sdp,
            Err(fault) => return self.refuse(id, fault.status, fault.headers),
        };
        ringing.reliable.unacknowledged = None;
        let talk = &mut ringing.talk;
        let fork = talk.fork;
        match (talk.media.exchange(), sdp) {
            (Exchange::Ours { by: OurPlace::Provisional(_), .. }, Some(answer)) => {
                talk.media.take_answer(answer.clone());
                self.events.push_back(SessionEvent::AnswerReceived { fork, sdp: Box::new(answer), early: true });
                self.refuse(id, super::OK, Vec::new());
            }
            // RFC 3262 §5: the answer belongs here.
            (Exchange::Ours { by: OurPlace::Provisional(_), .. }, None) => {
                self.refuse(id, super::BAD_REQUEST, Vec::new());
                let by = EndedBy::Engine;
                self.refuse_invite(now, super::NOT_ACCEPTABLE_HERE, Vec::new(), by, EndCause::NoAgreement);
                return;
            }
            (Exchange::Stable, Some(offer)) => {
                talk.media.take_offer(offer.clone(), TheirPlace::Prack(id), Some(answer_until));
                self.events.push_back(SessionEvent::OfferReceived { fork, sdp: Box::new(offer), early: true });
            }
            // An offer beside another one.
            (Exchange::Ours { .. }, Some(_)) => self.refuse(id, super::REQUEST_PENDING, Vec::new()),
            (Exchange::Theirs { .. } | Exchange::Empty, Some(_)) => self.too_early(id),
            (Exchange::Empty | Exchange::Stable | Exchange::Ours { .. } | Exchange::Theirs { .. }, None) => {
                self.refuse(id, super::OK, Vec::new());
            }
        }
        self.pump_reliable(now);
        self.pump(now);
    }
}

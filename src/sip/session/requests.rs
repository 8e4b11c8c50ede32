//! Requests inside a session's dialogs, and what becomes of our own. Read RFC 3261 §12.2.2 and §15, RFC 6086 and RFC 5057
//! before touching this file.

use super::callee::check_required;
use super::{
    ALLOW, End, EndCause, EndedBy, Flight, SUPPORTED, Session, SessionEvent, State, description, reasons, tokens,
};
use crate::sip::exchange::{Failure, Origin, ServerId};
use crate::wire::sip::{ContentType, Header, Headers, Method, Request, Response, SipText};
use std::time::{Duration, Instant};

/// How long a digit without a duration lasts: what telephones take.
const DIGIT: Duration = Duration::from_millis(160);

impl Session {
    /// A request in one of its dialogs, other than ACK and CANCEL.
    pub(crate) fn request(&mut self, now: Instant, id: ServerId, request: &Request, origin: Origin) {
        let tag = request.headers.from.tag();
        let talk = self.talks_mut().find(|talk| tag.as_ref().is_some_and(|tag| talk.dialog.is_remote(tag)));
        // RFC 3261 §12.2.2.
        let Some(talk) = talk else { return self.refuse(id, super::NO_TRANSACTION, Vec::new()) };
        if talk.dialog.heard(request.headers.cseq.number).is_err() {
            return self.refuse(id, super::SERVER_ERROR, Vec::new());
        }
        if let Err(refused) = check_required(&request.headers) {
            return self.refuse(id, refused.status, refused.headers);
        }
        match &request.method {
            Method::Invite => self.their_invite(now, id, request, origin),
            Method::Update => self.their_update(now, id, request, origin),
            Method::Prack => self.prack(now, id, request),
            Method::Bye => self.bye(now, id, request),
            Method::Info => self.info(id, request),
            Method::Options => self.options(id),
            Method::Refer => self.refer_arrived(now, id, request),
            Method::Notify => self.notify_arrived(id, request),
            // RFC 6665 §8.3.2: no other package lives in our dialogs.
            Method::Subscribe => self.refuse(id, super::BAD_EVENT, vec![Header::AllowEvents(tokens(&["refer"]))]),
            Method::Register | Method::Publish | Method::Message | Method::Ack | Method::Cancel => {
                self.refuse(id, super::METHOD_NOT_ALLOWED, vec![Header::Allow(ALLOW.to_vec())]);
            }
            Method::Other(_) => self.refuse(id, super::NOT_IMPLEMENTED, vec![Header::Allow(ALLOW.to_vec())]),
        }
    }

    fn bye(&mut self, now: Instant, id: ServerId, request: &Request) {
        self.refuse(id, super::OK, Vec::new());
        let end = End { reasons: reasons(&request.headers), ..End::new(EndedBy::Remote, EndCause::Bye) };
        match &mut self.state {
            // They gave up waiting for the ACK of a 2xx that we never saw.
            State::Calling(calling) => {
                let tag = request.headers.from.tag();
                let gone = |talk: &super::Talk| tag.as_ref().is_some_and(|tag| talk.dialog.is_remote(tag));
                let ended: Vec<_> = calling.talks.extract_if(.., |talk| gone(talk)).collect();
                let last = calling.talks.is_empty();
                self.end_forks(ended);
                if last {
                    self.finish(now, end, Vec::new());
                }
            }
            // RFC 3261 §15.1.2: what is pending is answered 487.
            State::Ringing(ringing) => {
                let invite = ringing.id;
                self.refuse(invite, super::REQUEST_TERMINATED, Vec::new());
                self.close(now, end, None);
            }
            State::Up(_) => {
                self.unacknowledged = None;
                self.close(now, end, None);
            }
            // Both hung up.
            State::Over(over) => {
                over.bye = None;
                self.unacknowledged = None;
            }
        }
    }

    fn info(&mut self, id: ServerId, request: &Request) {
        if self.is_over() {
            return self.refuse(id, super::NO_TRANSACTION, Vec::new());
        }
        // RFC 6086 §4.2.2: no package is known here.
        if request.headers.other("Info-Package").is_some() {
            return self.refuse(id, super::BAD_INFO_PACKAGE, Vec::new());
        }
        if request.body.is_empty() {
            return self.refuse(id, super::OK, Vec::new());
        }
        let text = std::str::from_utf8(&request.body).unwrap_or_default();
        let digit = match request.headers.content_type().map(ContentType::media) {
            Some("application/dtmf-relay") => dtmf_relay(text),
            Some("application/dtmf") => key(text).map(|key| (key, DIGIT)),
            Some(_) | None => {
                let accept = Header::Accept(SipText::new("application/dtmf-relay, application/dtmf"));
                return self.refuse(id, super::UNSUPPORTED_MEDIA_TYPE, vec![accept]);
            }
        };
        match digit {
            Some((key, duration)) => {
                self.refuse(id, super::OK, Vec::new());
                self.events.push_back(SessionEvent::Dtmf { key, duration });
            }
            None => self.refuse(id, super::BAD_REQUEST, Vec::new()),
        }
    }

    fn options(&mut self, id: ServerId) {
        let headers = vec![
            Header::Allow(ALLOW.to_vec()),
            Header::Supported(tokens(&SUPPORTED)),
            Header::Accept(SipText::new(description::MEDIA_TYPE)),
        ];
        self.refuse(id, super::OK, headers);
    }

    /// One digit at a time, so that they arrive in order.
    pub(super) fn pump_digits(&mut self) {
        if self.in_flight() {
            return;
        }
        let State::Up(up) = &mut self.state else { return };
        let Some((key, duration)) = up.digits.pop_front() else { return };
        let mut request = up.talk.dialog.request(Method::Info);
        request.headers.rest.extend(ContentType::new("application/dtmf-relay").map(Header::ContentType));
        request.body = format!("Signal={key}\r\nDuration={}\r\n", duration.as_millis()).into_bytes();
        self.send(request, Flight::Info);
    }

    /// A response to a request of ours.
    pub(crate) fn handle_response(&mut self, now: Instant, number: u32, response: Response, cseq: u32, origin: Origin) {
        let flight = if response.status.is_provisional() {
            self.flights.iter().find(|(n, _)| *n == number).map(|(_, flight)| *flight)
        } else {
            self.land(number)
        };
        if !matches!(flight, Some(Flight::Invite) | None) {
            self.sent_as(&response.headers, cseq);
        }
        match flight {
            Some(Flight::Invite) => self.invite_response(now, number, &response, cseq, origin),
            Some(Flight::Modify(fork)) => self.modify_response(now, number, fork, response, cseq),
            Some(Flight::Info) if !response.status.is_provisional() => self.info_answered(now, &response),
            Some(Flight::Refer) => self.refer_answered(now, &response),
            Some(Flight::Notify) => self.notify_answered(now, response.status),
            Some(Flight::Prack(_) | Flight::Bye | Flight::Info) => {}
            None if response.status.is_success() && response.headers.cseq.method == Method::Invite => {
                self.late_success(now, number, &response, cseq, origin);
            }
            None => {}
        }
        self.pump(now);
        self.pump_digits();
    }

    /// The number that a request was sent with in the end.
    fn sent_as(&mut self, headers: &Headers, cseq: u32) {
        let Some(tag) = headers.to.tag() else { return };
        if let Some(talk) = self.talks_mut().find(|talk| talk.dialog.is_remote(&tag)) {
            talk.dialog.sent(cseq);
        }
    }

    fn info_answered(&mut self, now: Instant, response: &Response) {
        if !response.status.is_success() {
            self.events.push_back(SessionEvent::DtmfRefused { status: Some(response.status) });
            // RFC 5057 §5.1.
            if response.status == super::NO_TRANSACTION && !self.is_over() {
                return self.dialog_lost(now, response.status);
            }
        }
        self.pump(now);
    }

    /// A request of ours got no answer.
    pub(crate) fn handle_failure(&mut self, now: Instant, number: u32, why: Failure) {
        match self.land(number) {
            Some(Flight::Invite) => self.invite_failed(why),
            Some(Flight::Modify(fork)) => self.modify_failed(now, number, fork, why),
            Some(Flight::Info) if !self.is_over() => {
                self.events.push_back(SessionEvent::DtmfRefused { status: None });
            }
            Some(Flight::Refer) => self.refer_failed(),
            Some(Flight::Notify) => self.notify_failed(now),
            Some(Flight::Prack(_) | Flight::Bye | Flight::Info) | None => {}
        }
        self.pump(now);
        self.pump_digits();
    }
}

/// `Signal=5`, `Duration=160`, in either order and any case.
fn dtmf_relay(text: &str) -> Option<(char, Duration)> {
    let mut signal = None;
    let mut duration = DIGIT;
    for line in text.lines().take(8) {
        let Some((name, value)) = line.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("signal") {
            signal = key(value);
        } else if name.trim().eq_ignore_ascii_case("duration") {
            // Some say 0, others minutes: a digit is heard, and ends.
            let ms = value.trim().parse::<u64>().unwrap_or(160).clamp(40, 6000);
            duration = Duration::from_millis(ms);
        }
    }
    signal.map(|key| (key, duration))
}

/// A key, or its number as RFC 4733 has it: 10 is `*`, 11 is `#`, 12 to 15 are `A` to `D`.
fn key(text: &str) -> Option<char> {
    let text = text.trim();
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(key), None) => {
            let key = key.to_ascii_uppercase();
            matches!(key, '0'..='9' | '*' | '#' | 'A'..='D').then_some(key)
        }
        (Some(_), Some(_)) => match text {
            "10" => Some('*'),
            "11" => Some('#'),
            "12" => Some('A'),
            "13" => Some('B'),
            "14" => Some('C'),
            "15" => Some('D'),
            _ => None,
        },
        (None, _) => None,
    }
}

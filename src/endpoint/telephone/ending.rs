//! How SIP calls end, and what that means to people. Read RFC 3261 §15, §21 and RFC 3326 before touching this file.

use super::super::event::{CallId, EndKind, Ended, Event, Party, Refusal};
use super::super::{Endpoint, Misuse};
use super::Stage;
use crate::fault::ReasonCondition;
use crate::sip::exchange::Failure;
use crate::sip::register::RegisterFault;
use crate::sip::session::{End, EndCause, EndedBy};
use crate::wire::sip::Status;
use std::time::Instant;

/// A class and the word of XEP-0166 §7.4 that is nearest.
pub(super) type Class = (EndKind, ReasonCondition);

impl Endpoint {
    /// Declines a call that rings here.
    pub(in super::super) fn turn_down(
        &mut self,
        now: Instant,
        id: CallId,
        reason: ReasonCondition,
    ) -> Result<(), Misuse> {
        let line = self.line(id).ok_or(Misuse::NoCall)?;
        let (Some(session), Stage::Alerting(_) | Stage::Answering(_)) = (line.session, &line.stage) else {
            return self.put_down(now, id);
        };
        let status = match reason {
            ReasonCondition::Busy => Status::BUSY_HERE,
            ReasonCondition::Decline => Status::DECLINE,
            ReasonCondition::FailedApplication
            | ReasonCondition::IncompatibleParameters
            | ReasonCondition::UnsupportedApplications
            | ReasonCondition::UnsupportedTransports
            | ReasonCondition::SecurityError => Status::NOT_ACCEPTABLE_HERE,
            ReasonCondition::AlternativeSession
            | ReasonCondition::Cancel
            | ReasonCondition::ConnectivityError
            | ReasonCondition::Expired
            | ReasonCondition::FailedTransport
            | ReasonCondition::GeneralError
            | ReasonCondition::Gone
            | ReasonCondition::MediaError
            | ReasonCondition::Success
            | ReasonCondition::Timeout => Status::TEMPORARILY_UNAVAILABLE,
        };
        self.act_on(now, |sessions, now| sessions.reject(now, session, status, Vec::new()))?;
        self.pump(now);
        Ok(())
    }

    /// Ends a call in whatever state it is.
    pub(in super::super) fn put_down(&mut self, now: Instant, id: CallId) -> Result<(), Misuse> {
        let line = self.line(id).ok_or(Misuse::NoCall)?;
        match (line.session, &line.stage) {
            (Some(_), Stage::Alerting(_) | Stage::Answering(_)) => {
                return self.turn_down(now, id, ReasonCondition::Decline);
            }
            (Some(session), Stage::Finding(_) | Stage::Opening | Stage::Calling | Stage::Active) => {
                // An ended session reports itself.
                let _ = self.act_on(now, |sessions, now| sessions.hang_up(now, session, Vec::new()));
            }
            (None, _) => {
                let class = line.fault.as_ref().map_or(EndKind::Cancelled, |(kind, _)| *kind);
                self.forget_line(now, id, (class, ReasonCondition::Cancel), Party::Local, None);
            }
        }
        self.pump(now);
        Ok(())
    }

    /// Ends a call for a fault of ours or of its media.
    pub(super) fn fail_line(&mut self, now: Instant, id: CallId, class: Class, text: String) {
        let Some(line) = self.line(id) else { return };
        line.fault.get_or_insert((class.0, text));
        match (line.session, &line.stage) {
            (Some(session), Stage::Alerting(_) | Stage::Answering(_)) => {
                let status = Status::NOT_ACCEPTABLE_HERE;
                let _ = self.act_on(now, |sessions, now| sessions.reject(now, session, status, Vec::new()));
            }
            (Some(session), Stage::Finding(_) | Stage::Opening | Stage::Calling | Stage::Active) => {
                let _ = self.act_on(now, |sessions, now| sessions.hang_up(now, session, Vec::new()));
            }
            (None, _) => self.forget_line(now, id, class, Party::Local, None),
        }
    }

    pub(super) fn end_line(&mut self, now: Instant, id: CallId, end: &End) {
        let Some(line) = self.line(id) else { return };
        let rang = line.rang;
        let up = line.is_active();
        let class = match (&line.fault, of_end(end, rang, up)) {
            (Some((kind, _)), class) => (*kind, class.1),
            (None, class) => class,
        };
        let by = match end.by {
            EndedBy::Remote => Party::Remote,
            EndedBy::Local | EndedBy::Engine => Party::Local,
        };
        let status = if let EndCause::Rejected(status) = end.cause { status } else { Status::SERVICE_UNAVAILABLE };
        if !up {
            self.tell_referrer(now, id, status);
        }
        self.forget_line(now, id, class, by, words(end));
    }

    fn forget_line(&mut self, now: Instant, id: CallId, class: Class, by: Party, text: Option<String>) {
        let Some(telephone) = &mut self.telephone else { return };
        let Some(mut line) = telephone.lines.remove(&id) else { return };
        if let Some(session) = line.session {
            telephone.by_session.remove(&session);
        }
        let asked = matches!(line.stage, Stage::Opening | Stage::Answering(_));
        self.close_path(now, id, line.media.leg.take(), asked);
        let text = line.fault.take().map(|(_, text)| text).or(text);
        tracing::info!(call = id.0, reason = %class.1, "call ended");
        let how = Ended { kind: class.0, reason: Some(class.1), by, duration: line.duration(now), text };
        self.emit(Event::Ended { call: id, how: Box::new(how) });
    }
}

/// What there is to say of an end: the phrase of the answer, or the other side's reason.
fn words(end: &End) -> Option<String> {
    let reason = end.reasons.iter().find_map(|reason| reason.text.as_ref()).map(ToString::to_string);
    let phrase = || (!end.text.as_str().is_empty()).then(|| end.text.to_string());
    match &end.cause {
        EndCause::Rejected(status) => {
            let phrase = phrase().or(reason).unwrap_or_default();
            Some(format!("{} {phrase}", status.code()).trim_end().to_owned())
        }
        EndCause::Failed(why) => Some(why.to_string()),
        EndCause::Expired => Some("the session timer ran out".to_owned()),
        EndCause::NoAck => Some("the other side never confirmed the call".to_owned()),
        EndCause::NoPrack => Some("the other side never confirmed a provisional answer".to_owned()),
        EndCause::DialogLost(status) => {
            Some(format!("the other side does not know the call any more ({})", status.code()))
        }
        EndCause::NoAgreement => Some("no way to talk that both sides know".to_owned()),
        EndCause::Bye | EndCause::Cancelled | EndCause::Replaced | EndCause::NoAnswer => reason,
    }
}

/// The class of an end. `rang`: the other side was alerted; `up`: the call stood.
fn of_end(end: &End, rang: bool, up: bool) -> Class {
    match &end.cause {
        EndCause::Bye => (EndKind::Completed, ReasonCondition::Success),
        EndCause::Replaced => (EndKind::Completed, ReasonCondition::AlternativeSession),
        EndCause::Cancelled => (EndKind::Cancelled, ReasonCondition::Cancel),
        EndCause::Rejected(status) => of_status(*status, rang),
        EndCause::NoAnswer => (EndKind::NoAnswer, ReasonCondition::Timeout),
        EndCause::NoAck | EndCause::NoPrack | EndCause::Expired | EndCause::DialogLost(_) => {
            (EndKind::SignallingLost, ReasonCondition::ConnectivityError)
        }
        EndCause::NoAgreement => (EndKind::Unavailable, ReasonCondition::FailedApplication),
        EndCause::Failed(_) if up => (EndKind::SignallingLost, ReasonCondition::ConnectivityError),
        EndCause::Failed(why) => of_failure(why),
    }
}

/// The class of a request that got no answer.
pub(super) fn of_failure(why: &Failure) -> Class {
    match why {
        Failure::TimedOut | Failure::NoTarget(_) | Failure::Unreachable(_) => {
            (EndKind::SignallingLost, ReasonCondition::ConnectivityError)
        }
        Failure::Certificate(_) => (EndKind::Security, ReasonCondition::SecurityError),
        Failure::Unauthorized(_) => (EndKind::Unauthorized, ReasonCondition::GeneralError),
        Failure::Cancelled => (EndKind::Cancelled, ReasonCondition::Cancel),
        Failure::Full => (EndKind::Limit, ReasonCondition::GeneralError),
    }
}

/// The class of a final answer to an INVITE, as a person who called would put it (RFC 3261 §21.3 to §21.6).
fn of_status(status: Status, rang: bool) -> Class {
    match status.code() {
        401 | 407 => (EndKind::Unauthorized, ReasonCondition::GeneralError),
        486 | 600 => (EndKind::Rejected, ReasonCondition::Busy),
        // 403: Asterisk's word for a call that was turned down; 433: RFC 5079; 607 and 608: RFC 8197, RFC 8688.
        403 | 433 | 603 | 607 | 608 => (EndKind::Rejected, ReasonCondition::Decline),
        480 if rang => (EndKind::NoAnswer, ReasonCondition::Timeout),
        408 => (EndKind::NoAnswer, ReasonCondition::Timeout),
        487 => (EndKind::Cancelled, ReasonCondition::Cancel),
        415 | 420 | 421 | 488 | 606 => (EndKind::Unavailable, ReasonCondition::FailedApplication),
        429 | 503 => (EndKind::Limit, ReasonCondition::GeneralError),
        494 | 493 => (EndKind::Security, ReasonCondition::SecurityError),
        400 | 500 | 501 | 505 | 513 => (EndKind::Failed, ReasonCondition::GeneralError),
        _ => (EndKind::Unavailable, ReasonCondition::Gone),
    }
}

/// Why there is no registration, in the classes of a sign-in.
pub(super) fn unregistered(why: &RegisterFault) -> Refusal {
    match why {
        RegisterFault::Refused { status, .. } if matches!(status.code(), 401 | 403 | 404 | 407) => {
            Refusal::Authentication(why.to_string())
        }
        RegisterFault::Failed(Failure::Unauthorized(_)) => Refusal::Authentication(why.to_string()),
        RegisterFault::Failed(Failure::Certificate(_)) => Refusal::Security(why.to_string()),
        RegisterFault::Refused { .. } | RegisterFault::Failed(_) | RegisterFault::Missing => {
            Refusal::Server(why.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_mean_to_a_caller_what_a_telephone_would_say() {
        let kind = |code: u16, rang: bool| of_status(Status::new(code).unwrap(), rang).0;
        for (code, rang, expected) in [
            (486, true, EndKind::Rejected),
            (600, false, EndKind::Rejected),
            (603, true, EndKind::Rejected),
            (403, true, EndKind::Rejected),
            (480, true, EndKind::NoAnswer),
            (480, false, EndKind::Unavailable),
            (408, false, EndKind::NoAnswer),
            (404, false, EndKind::Unavailable),
            (410, false, EndKind::Unavailable),
            (484, false, EndKind::Unavailable),
            (488, false, EndKind::Unavailable),
            (401, false, EndKind::Unauthorized),
            (407, false, EndKind::Unauthorized),
            (487, true, EndKind::Cancelled),
            (503, false, EndKind::Limit),
            (500, false, EndKind::Failed),
            (302, false, EndKind::Unavailable),
        ] {
            assert_eq!(kind(code, rang), expected, "{code}");
        }
    }
}

//! The peer's answers to our requests: what a result settles and what an error takes back.
//! Read XEP-0166 §7.2.16 and §10 before touching this file.

use crate::fault::{JingleCondition, ReasonCondition, StanzaCondition};
use crate::jingle::content::{Replace, Restart, Stage};
use crate::jingle::session::{End, EndedBy, IqError, Session, SessionEvent, parse_iq_id, say};
use crate::jingle::state::Flown;
use crate::wire::jid::Jid;
use std::time::Instant;

/// Answers to ours (J166-66, J166-67).
impl Session {
    fn landed(&mut self, id: &str) -> Option<Flown> {
        let (serial, number) = parse_iq_id(id)?;
        if serial != self.parties.serial {
            return None;
        }
        let live = self.live_mut().ok()?;
        let at = live.flights.iter().position(|flight| flight.number == number)?;
        Some(live.flights.swap_remove(at).what)
    }

    /// A result, whatever it holds.
    pub(crate) fn acknowledged(&mut self, id: &str) {
        match self.landed(id) {
            Some(Flown::Initiate) => self.emit(SessionEvent::Delivered),
            Some(Flown::TransportInfo(key)) => {
                if let Ok(live) = self.live_mut()
                    && let Some(known) = live.contents.iter_mut().find(|c| c.key == key)
                    && known.restart == Restart::OursUnacked
                {
                    known.restart = Restart::OursAwaited;
                }
            }
            Some(
                Flown::Accept
                | Flown::Info
                | Flown::Ping
                | Flown::ContentAdd(_)
                | Flown::ContentModify(..)
                | Flown::ContentRemove(_)
                | Flown::TransportReplace(_)
                | Flown::Other,
            )
            | None => {}
        }
    }

    /// An error, whatever it holds.
    pub(crate) fn refused(&mut self, now: Instant, id: &str, error: &IqError) {
        let Some(what) = self.landed(id) else { return };
        let bare_not_found = error.condition == Some(StanzaCondition::ItemNotFound) && error.jingle.is_none();
        let unknown = error.jingle == Some(JingleCondition::UnknownSession)
            || (bare_not_found && matches!(what, Flown::Ping | Flown::Accept));
        if what == Flown::Initiate || unknown {
            let redirect = (what == Flown::Initiate).then(|| self.trusted_redirect(error)).flatten();
            let reason = refusal_reason(&what, error);
            let by = if what == Flown::Initiate && error.jingle == Some(JingleCondition::TieBreak) {
                EndedBy::TieBreak
            } else {
                EndedBy::Refused(error.condition)
            };
            self.over(End { redirect, ..End::new(reason, by) });
            return;
        }
        // A server answers for an address that is gone: the same sign as unavailable presence (J166-18).
        if let Some(
            StanzaCondition::ServiceUnavailable
            | StanzaCondition::RecipientUnavailable
            | StanzaCondition::RemoteServerNotFound
            | StanzaCondition::RemoteServerTimeout
            | StanzaCondition::Gone,
        ) = error.condition
        {
            self.peer_unavailable(now);
        }
        match what {
            // Without its accept the peer never has this session; it would ring there for ever.
            Flown::Accept => {
                let text = "The other side did not take our answer.";
                self.terminate(say(ReasonCondition::GeneralError, text), EndedBy::Refused(error.condition));
            }
            Flown::Info => self.emit(SessionEvent::InfoUnsupported),
            lost @ (Flown::ContentAdd(_) | Flown::ContentModify(..) | Flown::TransportReplace(_)) => self.undo(lost),
            // A lost restart: the peer's own is on its way (J371-04).
            Flown::TransportInfo(key) => {
                if let Ok(live) = self.live_mut()
                    && let Some(known) = live.contents.iter_mut().find(|c| c.key == key)
                    && known.restart == Restart::OursUnacked
                {
                    known.restart = Restart::Settled;
                }
            }
            Flown::Initiate | Flown::Ping | Flown::ContentRemove(_) | Flown::Other => {}
        }
    }

    /// Takes back what the peer refused, or what lost a tie.
    pub(crate) fn undo(&mut self, ours: Flown) {
        match ours {
            Flown::ContentAdd(keys) => {
                let adding = Stage::Adding(self.role);
                for content in keys {
                    let pending = self.content(&content).is_some_and(|c| c.stage == adding);
                    if let (true, Ok(live)) = (pending, self.live_mut()) {
                        live.remove(&content);
                        self.emit(SessionEvent::ContentRejected { content, reason: None });
                    }
                }
            }
            Flown::ContentModify(content, before) => {
                let Ok(live) = self.live_mut() else { return };
                let Some(known) = live.contents.iter_mut().find(|c| c.key == content) else { return };
                known.senders = before;
                self.emit(SessionEvent::ContentModified { content, senders: before });
            }
            Flown::TransportReplace(content) => {
                let Ok(live) = self.live_mut() else { return };
                let Some(known) = live.contents.iter_mut().find(|c| c.key == content) else { return };
                if matches!(known.replace, Replace::Ours(_)) {
                    known.replace = Replace::Idle;
                    self.emit(SessionEvent::TransportReplaceRefused { content });
                }
            }
            Flown::Initiate
            | Flown::Accept
            | Flown::Info
            | Flown::Ping
            | Flown::ContentRemove(_)
            | Flown::TransportInfo(_)
            | Flown::Other => {}
        }
    }

    /// J166-64: only to the same bare JID.
    fn trusted_redirect(&self, error: &IqError) -> Option<Jid> {
        let text = error.redirect.as_deref()?.trim();
        let text = text.strip_prefix("xmpp:").unwrap_or(text);
        let target = Jid::new(text.split(['?', '#']).next()?).ok()?;
        (target.to_bare() == self.parties.peer.to_bare()).then_some(target)
    }
}

/// What a refused session-initiate, or an unknown session, is to people.
fn refusal_reason(what: &Flown, error: &IqError) -> ReasonCondition {
    if *what != Flown::Initiate {
        return ReasonCondition::Gone;
    }
    match error.condition {
        Some(
            StanzaCondition::ServiceUnavailable
            | StanzaCondition::RecipientUnavailable
            | StanzaCondition::ItemNotFound
            | StanzaCondition::Gone
            | StanzaCondition::Redirect
            | StanzaCondition::RemoteServerNotFound
            | StanzaCondition::RemoteServerTimeout,
        ) => ReasonCondition::Gone,
        Some(StanzaCondition::ResourceConstraint) => ReasonCondition::Busy,
        Some(StanzaCondition::Conflict) => ReasonCondition::AlternativeSession,
        Some(
            StanzaCondition::Forbidden
            | StanzaCondition::NotAllowed
            | StanzaCondition::NotAuthorized
            | StanzaCondition::PolicyViolation
            | StanzaCondition::RegistrationRequired
            | StanzaCondition::SubscriptionRequired,
        ) => ReasonCondition::Decline,
        Some(
            StanzaCondition::BadRequest
            | StanzaCondition::FeatureNotImplemented
            | StanzaCondition::InternalServerError
            | StanzaCondition::JidMalformed
            | StanzaCondition::NotAcceptable
            | StanzaCondition::UndefinedCondition
            | StanzaCondition::UnexpectedRequest,
        )
        | None => ReasonCondition::GeneralError,
    }
}

//! What the peer of a session asks for: the fifteen actions in, and the answers to ours.
//! Read XEP-0166 §6.3 to §7.2 and XEP-0167 §8 before touching this file.

use crate::fault::{Incompatible, PeerFault, ReasonCondition, answer};
use crate::jingle::actions::{Verdict, verdict};
use crate::jingle::content::{
    Absorbed, Content, ContentKey, Half, Quiet, Replace, Stage, answer_groups, application, carrier, carries, ice_of,
    kept, restrict, tagged,
};
use crate::jingle::offer::{NAME_BYTES, Protection, protection};
use crate::jingle::session::{Body, End, EndedBy, Phase, Refusal, Role, Session, SessionEvent, say};
use crate::jingle::state::{Flown, Live, Step};
use crate::wire::candidate::Transport;
use crate::wire::description::{Description, Info};
use crate::wire::jingle::{self as element, Action, Creator, Disposition, Jingle, Reason, Senders};
use crate::wire::ns;
use std::collections::BTreeSet;
use std::time::Instant;

type Handled = Result<(), PeerFault>;

/// Requests inside a session.
impl Session {
    /// One IQ-set of the peer.
    pub(crate) fn request(&mut self, now: Instant, id: String, jingle: Jingle) {
        let action = jingle.action;
        let handled = match verdict(action, self.phase(), self.role.other()) {
            Verdict::Refused(fault) => Err(fault),
            // The owner of all sessions asks this one only after it found that ours wins.
            Verdict::Tie => Err(PeerFault::TieBreak),
            Verdict::Legal | Verdict::AnswersAdd | Verdict::AnswersReplace => self.legal(now, &id, jingle),
        };
        if let Err(fault) = handled {
            tracing::debug!(sid = %self.parties.sid, %action, ?fault, "refused");
            self.push(id, Body::Error(Refusal { answer: answer(fault), text: None, redirect: None }));
        }
    }

    fn legal(&mut self, now: Instant, id: &str, jingle: Jingle) -> Handled {
        match jingle.action {
            Action::SessionInitiate => Err(PeerFault::OutOfOrder),
            Action::SessionAccept => self.on_session_accept(id, jingle),
            Action::SessionTerminate => self.on_session_terminate(id, jingle),
            Action::SessionInfo => self.on_session_info(id, jingle),
            Action::ContentAdd => self.on_content_add(now, id, jingle),
            Action::ContentAccept => self.on_content_accept(now, id, jingle),
            Action::ContentReject => self.on_content_reject(id, jingle),
            Action::ContentModify => self.on_content_modify(now, id, &jingle),
            Action::ContentRemove => self.on_content_remove(id, jingle),
            Action::DescriptionInfo => self.on_description_info(id, jingle),
            Action::TransportInfo => self.on_transport_info(now, id, jingle),
            Action::TransportReplace => self.on_transport_replace(now, id, jingle),
            Action::TransportAccept => self.on_transport_accept(id, jingle),
            Action::TransportReject => self.on_transport_reject(id, &jingle),
            // No security namespace is implemented: received, and nothing more.
            Action::SecurityInfo => {
                self.ack(id);
                Ok(())
            }
        }
    }

    fn ack(&mut self, id: &str) {
        self.push(id.to_owned(), Body::Result);
    }

    fn alive(&mut self) -> Result<&mut Live, PeerFault> {
        self.live_mut().map_err(|_| PeerFault::UnknownSession)
    }

    /// Key by which this session knows the content that an element names. A wrong creator is forgiven while the name
    /// alone says which one is meant (users' complaint 13).
    fn resolve(&self, named: &element::Content) -> Result<ContentKey, PeerFault> {
        self.resolve_name(named.creator, &named.name)
    }

    fn resolve_name(&self, creator: Creator, name: &str) -> Result<ContentKey, PeerFault> {
        let contents = self.live().map_or(&[][..], |live| &live.contents);
        let mut same = contents.iter().filter(|c| c.key.name == name);
        if let Some(exact) = contents.iter().find(|c| c.key.creator == creator && c.key.name == name) {
            return Ok(exact.key.clone());
        }
        match (same.next(), same.next()) {
            (Some(only), None) => Ok(only.key.clone()),
            (Some(_) | None, _) => Err(PeerFault::UnknownContent),
        }
    }

    /// Keys of all contents of a stanza, none of them twice.
    fn resolve_all(&self, contents: &[element::Content]) -> Result<Vec<ContentKey>, PeerFault> {
        if contents.is_empty() {
            return Err(PeerFault::BadRequest);
        }
        let keys: Vec<ContentKey> = contents.iter().map(|c| self.resolve(c)).collect::<Result<_, _>>()?;
        if keys.iter().collect::<BTreeSet<_>>().len() != keys.len() {
            return Err(PeerFault::BadRequest);
        }
        Ok(keys)
    }

    /// The session-wide tie-break (J166-48): the initiator's action stands, the responder drops its own.
    ///
    /// Returns the actions of ours that `crosses` names and that are dropped for that.
    fn break_tie(&mut self, crosses: impl Fn(&Flown) -> bool) -> Result<Vec<Flown>, PeerFault> {
        let role = self.role;
        let live = self.alive()?;
        let mut dropped = Vec::new();
        for flight in live.flights.iter_mut().filter(|flight| crosses(&flight.what)) {
            if role == Role::Initiator {
                return Err(PeerFault::TieBreak);
            }
            dropped.push(std::mem::replace(&mut flight.what, Flown::Other));
        }
        Ok(dropped)
    }

    fn on_session_accept(&mut self, id: &str, mut jingle: Jingle) -> Handled {
        // Browsers take a file as it was offered and do not repeat what it is.
        if let Ok(live) = self.alive() {
            for content in jingle.contents.iter_mut().filter(|c| c.description.is_none()) {
                let offered = live.content(&ContentKey::of(content)).and_then(|known| known.local.description.as_ref());
                if let Some(file @ Description::File(_)) = offered {
                    content.description = Some(file.clone());
                }
            }
        }
        // J166-42.
        if jingle.contents.iter().any(|c| c.description.is_none() || c.transport.is_none()) {
            return Err(PeerFault::BadRequest);
        }
        let keys = self.resolve_all(&jingle.contents)?;
        let (candidates, payloads) = (self.context.limits.remote_candidates, self.context.limits.payload_types);
        let require_dtls = self.context.policy.require_dtls;
        let live = self.alive()?;
        let mut other_transport = None;
        for (key, content) in keys.iter().zip(&mut jingle.contents) {
            cap_content(content, candidates, payloads);
            let known = live.content(key).ok_or(PeerFault::UnknownContent)?;
            // J166-43: early media is taken by content-accept; what is still being added is, too.
            if matches!(known.stage, Stage::Adding(_)) || known.disposition != Disposition::Session {
                return Err(PeerFault::BadRequest);
            }
            let ours = known.local.transport.as_ref().map(carrier);
            if ours != carrier_of(content) {
                other_transport = Some(key.name.clone());
            }
            // The element is handed on under the key this session knows.
            content.creator = key.creator;
        }
        self.ack(id);
        if let Some(name) = other_transport {
            let text = format!("The answer for '{name}' uses another transport than was offered.");
            self.terminate_for(Incompatible::Transports, &text);
            return Ok(());
        }
        let live = self.alive()?;
        for (key, content) in keys.iter().zip(&jingle.contents) {
            if let Some(known) = live.contents.iter_mut().find(|c| c.key == *key) {
                known.agree(content, candidates);
            }
        }
        // What was offered for the session and is not in the accept is declined.
        live.contents.retain(|c| c.stage != Stage::Offered || c.disposition != Disposition::Session);
        let contents = &live.contents;
        live.groups =
            answer_groups(&restrict(&live.groups, |name| contents.iter().any(|c| c.key.name == name)), &jingle.groups);
        // J320-05: a downgrade ends the call before it is one.
        if let Some(name) = live.unprotected(require_dtls).first().cloned() {
            self.refuse_security(Some(&name));
            return Ok(());
        }
        let groups = live.groups.clone();
        live.step = Step::Active;
        // An accept that overtakes the acknowledgement of the offer stands for it.
        live.flights.retain(|flight| flight.what != Flown::Initiate);
        self.emit(SessionEvent::Accepted { contents: jingle.contents, groups });
        Ok(())
    }

    fn on_session_terminate(&mut self, id: &str, jingle: Jingle) -> Handled {
        // J166-15.
        self.ack(id);
        let default = match (self.phase(), self.role) {
            (Phase::Pending, Role::Initiator) => ReasonCondition::Decline,
            (Phase::Pending, Role::Responder) => ReasonCondition::Cancel,
            (Phase::Active | Phase::None | Phase::Ended, _) => ReasonCondition::Success,
        };
        let reason = jingle.reason.unwrap_or_else(|| Reason::new(default));
        self.over(End {
            reason: reason.condition,
            by: EndedBy::Remote,
            text: reason.text,
            alternative: reason.alternative,
            redirect: None,
            detail: reason.detail,
        });
        Ok(())
    }

    fn on_session_info(&mut self, id: &str, jingle: Jingle) -> Handled {
        let files = works(Some(ns::FILE), self.context.policy.applications);
        // J166-22: nothing in it is a ping.
        let Some(mut info) = jingle.info else {
            self.ack(id);
            return Ok(());
        };
        match &mut info {
            Info::Unknown { .. } => return Err(PeerFault::UnsupportedInfo),
            Info::Received(..) | Info::Checksum(..) if !files => return Err(PeerFault::UnsupportedInfo),
            Info::Received(..) | Info::Checksum(..) | Info::Dtmf(_) => {}
            Info::Ringing => {
                self.ack(id);
                if matches!(self.alive()?.step, Step::Offering { .. }) {
                    self.emit(SessionEvent::Ringing);
                }
                return Ok(());
            }
            // J167-23.
            Info::Active => self.alive()?.contents.iter_mut().for_each(|c| c.remote_quiet = Quiet::default()),
            Info::Hold => self.alive()?.contents.iter_mut().for_each(|c| c.remote_quiet.on_hold = true),
            Info::Unhold => self.alive()?.contents.iter_mut().for_each(|c| c.remote_quiet.on_hold = false),
            Info::Mute(named) => self.mute_remote(named, true)?,
            Info::Unmute(named) => self.mute_remote(named, false)?,
        }
        self.ack(id);
        self.emit(SessionEvent::RemoteInfo(info));
        Ok(())
    }

    /// J167-24: without a name it is about all contents.
    fn mute_remote(&mut self, named: &mut Option<(Creator, String)>, muted: bool) -> Handled {
        let key = match named {
            Some((creator, name)) => Some(self.resolve_name(*creator, name)?),
            None => None,
        };
        for content in &mut self.alive()?.contents {
            if key.as_ref().is_none_or(|key| content.key == *key) {
                content.remote_quiet.muted = muted;
            }
        }
        *named = key.map(|key| (key.creator, key.name));
        Ok(())
    }

    fn on_content_add(&mut self, now: Instant, id: &str, jingle: Jingle) -> Handled {
        let incomplete = |c: &element::Content| c.description.is_none() || c.transport.is_none();
        if jingle.contents.is_empty() || jingle.contents.iter().any(|c| incomplete(c) || c.name.len() > NAME_BYTES) {
            return Err(PeerFault::BadRequest);
        }
        let limits = self.context.limits;
        if self.alive()?.contents.len().saturating_add(jingle.contents.len()) > limits.contents {
            return Err(PeerFault::NoResources);
        }
        let dropped = self.break_tie(|ours| matches!(ours, Flown::ContentAdd(_)))?;
        self.ack(id);
        for ours in dropped {
            self.undo(ours);
        }
        let policy = self.context.policy.clone();
        let sender = self.role.other();
        let mut added: Vec<element::Content> = Vec::new();
        for mut content in jingle.contents {
            cap_content(&mut content, limits.remote_candidates, limits.payload_types);
            let live = self.alive()?;
            let key = ContentKey::of(&content);
            let (what, text) = if live.content(&key).is_some() {
                // J166-52.
                (ReasonCondition::GeneralError, "A content of this name exists already.")
            } else if !works(application_of(&content), policy.applications) {
                (Incompatible::Applications.reason(), "This application is not supported.")
            } else if !works(carrier_of(&content), policy.transports) || !fits(&content) {
                (Incompatible::Transports.reason(), "This transport is not supported.")
            } else if protection(&content, &[], &[], policy.require_dtls) != Protection::Given {
                (Incompatible::Security.reason(), "This content comes without a DTLS fingerprint.")
            } else {
                live.contents.push(Content::new(&content, Stage::Adding(sender), false));
                added.push(content);
                continue;
            };
            self.send_content_reject(now, key.element(), say(what, text));
        }
        if !added.is_empty() {
            self.emit(SessionEvent::ContentAdded { contents: added });
        }
        Ok(())
    }

    fn on_content_accept(&mut self, now: Instant, id: &str, mut jingle: Jingle) -> Handled {
        let keys = self.pending_adds(&jingle.contents)?;
        if jingle.contents.iter().any(|c| c.description.is_none() || c.transport.is_none()) {
            return Err(PeerFault::BadRequest);
        }
        let limits = self.context.limits;
        let require_dtls = self.context.policy.require_dtls;
        let mut refused = Vec::new();
        let live = self.alive()?;
        for (key, content) in keys.iter().zip(&mut jingle.contents) {
            cap_content(content, limits.remote_candidates, limits.payload_types);
            content.creator = key.creator;
            if let Some(known) = live.contents.iter_mut().find(|c| c.key == *key) {
                known.agree(content, limits.remote_candidates);
                if require_dtls && known.needs_dtls() && known.remote.fingerprints().is_empty() {
                    refused.push(key.clone());
                }
            }
        }
        self.ack(id);
        jingle.contents.retain(|c| !refused.contains(&ContentKey::of(c)));
        for key in refused {
            let text = format!("The answer for '{}' comes without a DTLS fingerprint.", key.name);
            let reason = say(Incompatible::Security.reason(), &text);
            if self.content_remove(now, &key, Some(reason.clone())).is_err() {
                continue;
            }
            self.emit(SessionEvent::ContentRejected { content: key, reason: Some(reason) });
        }
        if !jingle.contents.is_empty() {
            self.emit(SessionEvent::ContentAccepted { contents: jingle.contents });
        }
        Ok(())
    }

    /// Keys of contents that we added and that await their answer; anything else is out of order.
    fn pending_adds(&self, contents: &[element::Content]) -> Result<Vec<ContentKey>, PeerFault> {
        let keys = self.resolve_all(contents).map_err(unanswered)?;
        let ours = Stage::Adding(self.role);
        let all = keys.iter().all(|key| self.content(key).is_some_and(|c| c.stage == ours));
        if all { Ok(keys) } else { Err(PeerFault::OutOfOrder) }
    }

    fn on_content_reject(&mut self, id: &str, jingle: Jingle) -> Handled {
        let keys = self.pending_adds(&jingle.contents)?;
        self.ack(id);
        for key in keys {
            self.alive()?.remove(&key);
            self.emit(SessionEvent::ContentRejected { content: key, reason: jingle.reason.clone() });
        }
        // J166-38.
        self.end_if_empty(jingle.reason);
        Ok(())
    }

    fn on_content_remove(&mut self, id: &str, jingle: Jingle) -> Handled {
        // What we removed ourselves a moment ago is named by a crossed removal.
        let crossed = |named: &element::Content, ours: &Flown| matches!(ours, Flown::ContentRemove(key) if key.name == named.name);
        let dropped = self.break_tie(|ours| jingle.contents.iter().any(|named| crossed(named, ours)))?;
        let rest: Vec<element::Content> =
            jingle.contents.iter().filter(|c| !dropped.iter().any(|ours| crossed(c, ours))).cloned().collect();
        let keys = if rest.is_empty() && !dropped.is_empty() { Vec::new() } else { self.resolve_all(&rest)? };
        self.ack(id);
        for key in keys {
            self.alive()?.remove(&key);
            self.emit(SessionEvent::ContentRemoved { content: key, reason: jingle.reason.clone() });
        }
        // J166-41.
        self.end_if_empty(jingle.reason);
        Ok(())
    }

    fn end_if_empty(&mut self, reason: Option<Reason>) {
        if self.live().is_some_and(|live| live.contents.is_empty()) {
            let reason = reason.map_or(ReasonCondition::Success, |reason| reason.condition);
            self.terminate(say(reason, "No content is left."), EndedBy::Remote);
        }
    }

    fn on_content_modify(&mut self, now: Instant, id: &str, jingle: &Jingle) -> Handled {
        let keys = self.resolve_all(&jingle.contents)?;
        let dropped = self.break_tie(|ours| matches!(ours, Flown::ContentModify(key, _) if keys.contains(key)))?;
        // J166-36: a result, never content-accept.
        self.ack(id);
        for (content, named) in keys.into_iter().zip(&jingle.contents) {
            // J166-35 asks for the attribute; peers leave it out where it is the default (J166-53).
            let senders = named.senders.unwrap_or(Senders::Both);
            if let Some(known) = self.alive()?.contents.iter_mut().find(|c| c.key == content) {
                known.senders = senders;
                known.counter = known.counter.theirs(now, !dropped.is_empty());
            }
            self.emit(SessionEvent::ContentModified { content, senders });
        }
        Ok(())
    }

    fn on_description_info(&mut self, id: &str, jingle: Jingle) -> Handled {
        let keys = self.resolve_all(&jingle.contents)?;
        let cap = self.context.limits.payload_types;
        self.ack(id);
        for (content, named) in keys.into_iter().zip(jingle.contents) {
            let Some(mut description) = named.description else { continue };
            if let Description::Rtp(rtp) = &mut description {
                rtp.payload_types.truncate(cap);
            }
            if let Some(known) = self.alive()?.contents.iter_mut().find(|c| c.key == content) {
                known.advise(&description);
            }
            self.emit(SessionEvent::DescriptionChanged { content, description });
        }
        Ok(())
    }

    fn on_transport_info(&mut self, now: Instant, id: &str, jingle: Jingle) -> Handled {
        let keys = self.resolve_all(&jingle.contents)?;
        let cap = self.context.limits.remote_candidates;
        let role = self.role;
        let live = self.alive()?;
        for (key, content) in keys.iter().zip(&jingle.contents) {
            let Some(ice) = ice_of(content) else { continue };
            let known = live.content(key).ok_or(PeerFault::UnknownContent)?;
            // J371-04.
            if role == Role::Initiator && known.restart_crosses(ice) {
                return Err(PeerFault::TieBreak);
            }
            // J320-07.
            if known.swaps_fingerprint(ice) {
                return Err(PeerFault::BadRequest);
            }
            // J176-08: candidates of which none can be read are refused; some bad ones among good ones are skipped.
            if ice.malformed_candidates > 0 && ice.candidates.is_empty() {
                return Err(PeerFault::BadRequest);
            }
        }
        self.ack(id);
        for (content, named) in keys.into_iter().zip(jingle.contents) {
            let Some(known) = self.alive()?.contents.iter_mut().find(|c| c.key == content) else { continue };
            match named.transport {
                Some(Transport::Ice(ice)) => match known.absorb(*ice, cap) {
                    Absorbed::Nothing => {}
                    Absorbed::News { transport, restart } => {
                        self.emit(SessionEvent::RemoteTransport { content, transport, restart });
                    }
                },
                // What is said of a stream that has been replaced meanwhile is old news (J260-03).
                Some(Transport::S5b(news)) => {
                    if matches!(&known.remote.transport, Some(Transport::S5b(known)) if known.sid == news.sid) {
                        self.emit(SessionEvent::RemoteStreamhosts { content, news: *news });
                    }
                }
                // Further sids of one session (J261-04) are not used here.
                Some(Transport::Ibb(_) | Transport::RawUdp(_) | Transport::Unknown { .. }) | None => {}
            }
        }
        self.settle_fingerprints(now);
        Ok(())
    }

    fn on_transport_replace(&mut self, now: Instant, id: &str, jingle: Jingle) -> Handled {
        let keys = self.resolve_all(&jingle.contents)?;
        if jingle.contents.iter().any(|c| c.transport.is_none()) {
            return Err(PeerFault::BadRequest);
        }
        // Ours is open until it is accepted, so it crosses the peer's even after its result.
        let ours: Vec<ContentKey> = keys
            .iter()
            .filter(|key| self.content(key).is_some_and(|c| matches!(c.replace, Replace::Ours(_))))
            .cloned()
            .collect();
        if self.role == Role::Initiator && !ours.is_empty() {
            return Err(PeerFault::TieBreak);
        }
        self.break_tie(|flown| matches!(flown, Flown::TransportReplace(key) if ours.contains(key)))?;
        self.ack(id);
        for content in ours {
            self.emit(SessionEvent::TransportReplaceRefused { content });
        }
        let policy = self.context.policy.clone();
        for (content, mut named) in keys.into_iter().zip(jingle.contents) {
            cap_content(&mut named, self.context.limits.remote_candidates, self.context.limits.payload_types);
            let open = ice_of(&named).is_some_and(|ice| policy.require_dtls && ice.fingerprints.is_empty());
            let known_carrier = works(carrier_of(&named), policy.transports);
            let Some(transport) = named.transport else { continue };
            let Some(known) = self.alive()?.contents.iter_mut().find(|c| c.key == content) else { continue };
            let carried = |half: &Half| half.description.as_ref().is_none_or(|d| carries(&transport, d));
            let works = known_carrier && carried(&known.local) && carried(&known.remote);
            if open || !works {
                known.replace = Replace::Idle;
                let why = if works { Incompatible::Security } else { Incompatible::Transports };
                let element = element::Content { transport: Some(kept(&transport)), ..content.element() };
                self.send_transport_reject(now, element, Some(Reason::new(why.reason())));
                continue;
            }
            known.replace = Replace::Theirs(Box::new(kept(&transport)));
            self.emit(SessionEvent::TransportReplaceAsked { content, transport });
        }
        Ok(())
    }

    fn on_transport_accept(&mut self, id: &str, jingle: Jingle) -> Handled {
        let keys = self.pending_replaces(&jingle.contents)?;
        if jingle.contents.iter().any(|c| c.transport.is_none()) {
            return Err(PeerFault::BadRequest);
        }
        let require_dtls = self.context.policy.require_dtls;
        self.ack(id);
        for (content, mut named) in keys.into_iter().zip(jingle.contents) {
            cap_content(&mut named, self.context.limits.remote_candidates, self.context.limits.payload_types);
            let Some(transport) = named.transport else { continue };
            let Some(known) = self.alive()?.contents.iter_mut().find(|c| c.key == content) else { continue };
            if let Replace::Ours(ours) = std::mem::take(&mut known.replace) {
                known.exchange(*ours, kept(&transport));
            }
            if require_dtls && known.needs_dtls() && known.remote.fingerprints().is_empty() {
                self.refuse_security(Some(&content.name));
                return Ok(());
            }
            self.emit(SessionEvent::TransportReplaced { content, transport });
        }
        Ok(())
    }

    fn on_transport_reject(&mut self, id: &str, jingle: &Jingle) -> Handled {
        let keys = self.pending_replaces(&jingle.contents)?;
        self.ack(id);
        for content in keys {
            self.undo(Flown::TransportReplace(content));
        }
        Ok(())
    }

    fn pending_replaces(&self, contents: &[element::Content]) -> Result<Vec<ContentKey>, PeerFault> {
        let keys = self.resolve_all(contents).map_err(unanswered)?;
        let pending = |key: &ContentKey| self.content(key).is_some_and(|c| matches!(c.replace, Replace::Ours(_)));
        if keys.iter().all(pending) { Ok(keys) } else { Err(PeerFault::OutOfOrder) }
    }
}

impl Live {
    /// Names of RTP contents that are in force, or offered to us, without a DTLS fingerprint of the peer.
    pub(crate) fn unprotected(&self, required: bool) -> Vec<String> {
        let has = |c: &Content| !c.remote.fingerprints().is_empty();
        let named = |name: &str| self.contents.iter().any(|c| c.key.name == name && has(c));
        self.contents
            .iter()
            .filter(|c| required && c.needs_dtls() && c.remote.description.is_some() && !has(c))
            .filter(|c| !tagged(&self.groups, &c.key.name).is_some_and(named))
            .map(|c| c.key.name.clone())
            .collect()
    }
}

impl Content {
    /// J167-26: codecs of a description-info replace those with the same number; nothing else changes.
    fn advise(&mut self, news: &Description) {
        let (Some(Description::Rtp(known)), Description::Rtp(news)) = (&mut self.remote.description, news) else {
            return;
        };
        for payload_type in &news.payload_types {
            if let Some(same) = known.payload_types.iter_mut().find(|p| p.id == payload_type.id) {
                same.clone_from(payload_type);
            }
        }
    }
}

/// An answer that names a content unknown here answers nothing that was asked.
fn unanswered(fault: PeerFault) -> PeerFault {
    if fault == PeerFault::UnknownContent { PeerFault::OutOfOrder } else { fault }
}

/// Cuts what a peer sends past our caps; both lists are in order of preference.
pub(crate) fn cap_content(content: &mut element::Content, candidates: usize, payload_types: usize) {
    if let Some(Transport::Ice(ice)) = &mut content.transport
        && ice.candidates.len() > candidates
    {
        ice.candidates.truncate(candidates);
    }
    if let Some(Description::Rtp(rtp)) = &mut content.description {
        rtp.payload_types.truncate(payload_types);
    }
}

pub(crate) fn application_of(content: &element::Content) -> Option<&str> {
    content.description.as_ref().map(application)
}

pub(crate) fn carrier_of(content: &element::Content) -> Option<&str> {
    content.transport.as_ref().map(carrier)
}

/// True if both halves of it are there and go together.
pub(crate) fn fits(content: &element::Content) -> bool {
    matches!((&content.transport, &content.description), (Some(how), Some(what)) if carries(how, what))
}

pub(crate) fn works(namespace: Option<&str>, known: &[&str]) -> bool {
    namespace.is_some_and(|namespace| known.contains(&namespace))
}

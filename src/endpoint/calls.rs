//! How calls begin and end: devices found, invitations and sessions followed.
//! Read XEP-0166 §6 and XEP-0353 §3 before touching this file.

use super::call::{Call, EARLY_TRANSPORTS, Offer, Stage};
use super::event::{CallId, EndKind, Ended, Event, Party};
use super::people::Reach;
use super::{Endpoint, Misuse, offer};
use crate::fault::ReasonCondition;
use crate::jingle::content::{ContentKey, Direction, direction};
use crate::jingle::invite::{Expected, InviteEvent, Over, Stopped};
use crate::jingle::session::{End, EndedBy, SessionEvent};
use crate::jingle::sessions::SessionId;
use crate::media::audio::AudioPath;
use crate::media::codec;
use crate::wire::description::Info;
use crate::wire::jid::Jid;
use crate::wire::jingle::{Content, Group, Proposed, Reason, Sid};
use crate::wire::ns;
use std::time::{Duration, Instant};

/// Presence, capabilities and relays of the first moments after signing in are waited for at most this long.
pub(super) const FIND_LIMIT: Duration = Duration::from_millis(1_500);
/// A device that a propose wakes up rings within this time.
const ABSENT_LIMIT: Duration = Duration::from_secs(8);

impl Endpoint {
    /// Goes on with calls whose device is known now, or whose time to find one is over.
    pub(super) fn find_devices(&mut self, now: Instant) {
        let finding: Vec<(CallId, Instant, Jid)> = self
            .calls
            .values()
            .filter_map(|c| match c.stage {
                Stage::Finding(until) => Some((c.id, until, c.peer.clone())),
                Stage::Proposed(_)
                | Stage::Opening
                | Stage::Offered
                | Stage::AlertingInvite
                | Stage::AlertingOffer(_)
                | Stage::Proceeding
                | Stage::Answering(_)
                | Stage::Active => None,
            })
            .collect();
        for (id, until, to) in finding {
            if let Some(text) = self.lacks_relay() {
                self.fail_call(now, id, EndKind::MediaFailed, ReasonCondition::ConnectivityError, text);
                continue;
            }
            let over = until <= now;
            let reach = if let Some(peer) = self.link.peer().filter(|_| self.link.serverless()) {
                Reach::Device(peer)
            } else if to.is_full() {
                Reach::Device(to.clone())
            } else {
                self.people.reach(&to.to_bare())
            };
            match reach {
                // Relays are learned in the same round trip as the roster.
                Reach::Device(_) if self.servers_pending() && !over => {}
                Reach::Device(device) => {
                    if let Some(call) = self.calls.get_mut(&id) {
                        call.peer = device;
                        call.stage = Stage::Opening;
                    }
                    self.open_sockets(id);
                }
                Reach::Everybody => self.propose(now, id, &to),
                Reach::Unknown if over => self.propose(now, id, &to),
                Reach::Unknown => {}
                Reach::Nobody => {
                    let text = "no device there takes calls".to_owned();
                    self.fail_call(now, id, EndKind::Unavailable, ReasonCondition::UnsupportedApplications, text);
                }
            }
        }
        self.give_up_the_absent(now);
    }

    pub(super) fn propose(&mut self, now: Instant, id: CallId, to: &Jid) {
        let audio = Proposed { ns: ns::RTP.to_owned(), media: Some("audio".to_owned()) };
        let absent = self.people.seems_offline(&to.to_bare()).then(|| now + ABSENT_LIMIT);
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.stage = Stage::Proposed(absent);
        call.invited = true;
        let sid = call.sid.clone();
        if let Err(why) = self.invites.propose(now, to.to_bare(), sid, vec![audio]) {
            self.fail_call(now, id, EndKind::Limit, ReasonCondition::GeneralError, why.to_string());
        }
    }

    /// A propose may wake a sleeping device, so it is sent to absent people too; but not waited for long.
    fn give_up_the_absent(&mut self, now: Instant) {
        let absent: Vec<CallId> = self
            .calls
            .values()
            .filter(|c| matches!(c.stage, Stage::Proposed(Some(until)) if until <= now))
            .map(|c| c.id)
            .collect();
        for id in absent {
            let text = "the other side is not online".to_owned();
            self.fail_call(now, id, EndKind::Unavailable, ReasonCondition::Gone, text);
        }
    }

    /// When a call needs attention without any stanza or datagram.
    pub(super) fn calls_deadline(&self) -> Option<Instant> {
        self.calls
            .values()
            .filter_map(|c| {
                let stage = match c.stage {
                    Stage::Finding(until) | Stage::Proposed(Some(until)) => Some(until),
                    Stage::Proposed(None)
                    | Stage::Opening
                    | Stage::Offered
                    | Stage::AlertingInvite
                    | Stage::AlertingOffer(_)
                    | Stage::Proceeding
                    | Stage::Answering(_)
                    | Stage::Active => None,
                };
                [stage, c.over_by].into_iter().flatten().min()
            })
            .min()
    }

    /// Ends calls whose media the peer closed a while ago, and whose end the signalling never told.
    pub(super) fn end_abandoned(&mut self, now: Instant) {
        let due = |c: &&Call| c.over_by.is_some_and(|at| at <= now);
        let ids: Vec<CallId> = self.calls.values().filter(due).map(|c| c.id).collect();
        for id in ids {
            self.close_silently(now, id);
        }
    }

    /// The peer has hung up by closing its media. Its session is ended too, in case it can still hear of it.
    pub(super) fn close_silently(&mut self, now: Instant, id: CallId) {
        let session = self.calls.get(&id).and_then(|c| c.session);
        let end = End::new(ReasonCondition::Success, EndedBy::Remote);
        self.forget_call(now, id, &end);
        if let Some(session) = session {
            // A session that has ended by itself needs no second end.
            let _ = self.sessions.act(session, |s| s.hang_up(now, None));
        }
    }

    pub(super) fn end_call(&mut self, now: Instant, id: CallId, reason: Option<Reason>) -> Result<(), Misuse> {
        let call = self.calls.get_mut(&id).ok_or(Misuse::NoCall)?;
        let (peer, sid) = (call.peer.to_bare(), call.sid.clone());
        if let Some(session) = call.session {
            // An ended session reports itself; a second end is no news.
            let _ = self.sessions.act(session, |s| match (&reason, s.consented()) {
                (Some(reason), false) => {
                    s.reject(now, reason.clone()).or_else(|_| s.hang_up(now, Some(reason.clone())))
                }
                (reason, _) => s.hang_up(now, reason.clone()),
            });
        } else {
            let condition = reason.as_ref().map(|r| r.condition);
            let default = match call.stage {
                Stage::Finding(_) => ReasonCondition::Cancel,
                Stage::Proposed(_) => {
                    let reason = reason.or_else(|| Some(Reason::new(ReasonCondition::Cancel)));
                    let _ = self.invites.retract(now, &sid, reason);
                    ReasonCondition::Cancel
                }
                Stage::AlertingInvite => {
                    let reason = reason.or_else(|| Some(Reason::new(ReasonCondition::Busy)));
                    let _ = self.invites.reject(now, &peer, &sid, reason);
                    ReasonCondition::Decline
                }
                Stage::Proceeding | Stage::Opening => {
                    let reason = reason.or_else(|| Some(Reason::new(ReasonCondition::Cancel)));
                    let _ = self.invites.finish(now, &peer, &sid, reason, None);
                    ReasonCondition::Cancel
                }
                Stage::Offered | Stage::AlertingOffer(_) | Stage::Answering(_) | Stage::Active => {
                    ReasonCondition::Success
                }
            };
            let end = End::new(condition.unwrap_or(default), EndedBy::Local);
            self.forget_call(now, id, &end);
        }
        self.pump(now);
        Ok(())
    }

    /// Ends a call for a fault of ours or of its media; the peer hears the reason.
    pub(super) fn fail_call(&mut self, now: Instant, id: CallId, kind: EndKind, reason: ReasonCondition, text: String) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let wire = Reason { text: Some(text.clone()), ..Reason::new(reason) };
        call.fault.get_or_insert((kind, text));
        // `NoCall` cannot happen here, and an ended session has reported itself.
        let _ = self.end_call(now, id, Some(wire));
    }

    pub(super) fn forget_call(&mut self, now: Instant, id: CallId, end: &End) {
        let Some(mut call) = self.calls.remove(&id) else { return };
        if let Some(session) = call.session {
            self.by_session.remove(&session);
        }
        let asked = call.media.early.is_some() || matches!(call.stage, Stage::Opening | Stage::Answering(_));
        self.close_path(now, id, call.media.leg.take(), asked);
        if call.invited && call.session.is_some() {
            let reason = Reason::new(end.reason);
            // The invitation may be gone already.
            let _ = self.invites.finish(now, &call.peer.to_bare(), &call.sid, Some(reason), None);
        }
        let how = Box::new(call.ended(now, end));
        tracing::info!(call = id.0, sid = %call.sid, reason = %end.reason, "call ended");
        self.emit(Event::Ended { call: id, how });
    }

    pub(super) fn handle_session_event(&mut self, now: Instant, session: SessionId, event: SessionEvent) {
        if let SessionEvent::Incoming { contents, groups } = event {
            if contents.iter().any(|c| super::transfer::file_of(c).is_some()) {
                return self.handle_file_offer(now, session, &contents);
            }
            return self.handle_offer(now, session, &contents, groups);
        }
        if self.file_sessions.contains_key(&session) {
            return self.handle_file_session(now, session, event);
        }
        let Some(id) = self.by_session.get(&session).copied() else { return };
        match event {
            SessionEvent::Incoming { .. } | SessionEvent::Delivered | SessionEvent::InfoUnsupported => {}
            SessionEvent::Ringing => self.emit(Event::Ringing(id)),
            SessionEvent::Accepted { contents, .. } => self.handle_answer(now, id, &contents),
            SessionEvent::RemoteTransport { transport, .. } => {
                let Some(call) = self.calls.get_mut(&id) else { return };
                let has_leg = call.media.leg.is_some();
                let ringing = matches!(call.stage, Stage::AlertingOffer(_));
                if (ringing || !has_leg) && call.media.transports.len() < EARLY_TRANSPORTS {
                    call.media.transports.push(transport.clone());
                }
                if has_leg {
                    self.apply_remote(now, id, &transport);
                    self.drain_leg(now, id);
                }
            }
            SessionEvent::RemoteInfo(info) => self.handle_info(id, &info),
            SessionEvent::ContentAdded { contents } => {
                // One audio content is all that an application of this crate can use so far.
                let reason = Reason::new(ReasonCondition::UnsupportedApplications);
                for content in contents {
                    let key = ContentKey::of(&content);
                    let _ = self.sessions.act(session, |s| s.content_reject(now, &key, reason.clone()));
                }
            }
            SessionEvent::ContentModified { content, senders } => {
                let Some(role) = self.sessions.session(session).map(crate::jingle::session::Session::role) else {
                    return;
                };
                let on = matches!(direction(senders, role), Direction::RecvOnly | Direction::Inactive);
                if self.calls.get(&id).is_some_and(|c| c.media.content.as_ref() == Some(&content)) {
                    self.set_held_by_peer(id, on);
                }
            }
            SessionEvent::TransportReplaceAsked { content, .. } => {
                let _ = self.sessions.act(session, |s| s.transport_reject(now, &content));
            }
            SessionEvent::DescriptionChanged { .. }
            | SessionEvent::ContentAccepted { .. }
            | SessionEvent::ContentRejected { .. }
            | SessionEvent::ContentRemoved { .. }
            | SessionEvent::TransportReplaced { .. }
            | SessionEvent::TransportReplaceRefused { .. }
            | SessionEvent::RemoteStreamhosts { .. } => {}
            SessionEvent::Ended(end) => self.forget_call(now, id, &end),
        }
    }

    fn handle_info(&mut self, id: CallId, info: &Info) {
        match info {
            Info::Hold => self.set_held_by_peer(id, true),
            Info::Unhold => self.set_held_by_peer(id, false),
            // J167-23: active ends hold and mute of everything.
            Info::Active => {
                self.set_held_by_peer(id, false);
                self.emit(Event::Mute { call: id, on: false, by: Party::Remote });
            }
            Info::Mute(_) => self.emit(Event::Mute { call: id, on: true, by: Party::Remote }),
            Info::Unmute(_) => self.emit(Event::Mute { call: id, on: false, by: Party::Remote }),
            Info::Dtmf(digit) => self.emit(Event::Digit { call: id, digit: *digit }),
            Info::Ringing | Info::Received(..) | Info::Checksum(..) | Info::Unknown { .. } => {}
        }
    }

    pub(super) fn set_held_by_peer(&mut self, id: CallId, on: bool) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.quiet.held_by_peer == on {
            return;
        }
        call.quiet.held_by_peer = on;
        if let Some(audio) = &mut call.media.audio {
            // J167-21: stop sending; J167-22: what arrives is still played.
            audio.set_on_hold(call.quiet.held_by_us || call.quiet.held_by_peer);
        }
        self.emit(Event::Hold { call: id, on, by: Party::Remote });
    }

    /// A session-initiate that may come in: a call that was proposed and taken, or a new one.
    fn handle_offer(&mut self, now: Instant, session: SessionId, contents: &[Content], groups: Vec<Group>) {
        let Some((peer, sid)) = self.sessions.session(session).map(|s| (s.peer().clone(), s.sid().clone())) else {
            return;
        };
        let media: Vec<Proposed> = contents
            .iter()
            .filter_map(offer::rtp)
            .map(|d| Proposed { ns: ns::RTP.to_owned(), media: Some(d.media.to_string()) })
            .collect();
        let Some(content) = offer::audio(contents).cloned() else {
            // J166-03: acknowledged, then terminated; nothing rings.
            let reason = Reason::new(ReasonCondition::UnsupportedApplications);
            let _ = self.sessions.act(session, |s| s.reject(now, reason));
            return;
        };
        let offer = Box::new(Offer { content, groups });
        // Only a call of theirs that waits for its session: the sid of any other is not theirs to take.
        let waits = |c: &&Call| c.caller == Party::Remote && c.session.is_none();
        let invited = self
            .calls
            .values()
            .filter(waits)
            .find(|c| c.sid == sid && c.peer.to_bare() == peer.to_bare())
            .map(|c| c.id);
        let expected = self.invites.expects(now, &peer, &sid, &media);
        match (expected, invited) {
            (Expected::Approved, Some(id)) => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.peer = peer;
                    call.session = Some(session);
                    call.stage = Stage::Answering(offer);
                    self.by_session.insert(session, id);
                    self.open_sockets(id);
                }
            }
            (Expected::OtherMedia | Expected::Plain | Expected::Approved, _) => {
                let id = invited.unwrap_or_else(|| self.next_call_id());
                let mut call = Call::new(id, peer.clone(), sid.clone(), Party::Remote, Stage::AlertingOffer(offer));
                call.session = Some(session);
                call.invited = invited.is_some();
                self.calls.insert(id, call);
                self.by_session.insert(session, id);
                let _ = self.sessions.act(session, |s| s.ring(now));
                let media = media.into_iter().filter_map(|p| p.media).collect();
                self.emit(Event::Incoming { call: id, sid, from: peer.into(), media });
                self.open_early(now, id);
            }
        }
    }

    fn handle_answer(&mut self, now: Instant, id: CallId, contents: &[Content]) {
        let preference = self.config.media.codecs.clone();
        let seed = self.next_number();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let theirs = offer::audio(contents);
        let negotiated = theirs
            .and_then(offer::rtp)
            .and_then(|d| codec::accepted(&call.media.offered, &d.payload_types, &preference));
        let (Some(theirs), Some(negotiated)) = (theirs, negotiated) else {
            let text = "no codec in common".to_owned();
            return self.fail_call(now, id, EndKind::Unavailable, ReasonCondition::FailedApplication, text);
        };
        match AudioPath::new(seed, negotiated.clone(), self.config.media.audio) {
            Ok(audio) => call.media.settle(now, negotiated, audio),
            Err(why) => return self.fail_call(now, id, EndKind::Failed, ReasonCondition::MediaError, why.to_string()),
        }
        call.stage = Stage::Active;
        if let Some(transport) = offer::ice(theirs).cloned() {
            self.apply_remote(now, id, &transport);
        }
        // The pinned certificate may have ended it.
        if self.calls.contains_key(&id) {
            self.emit(Event::Accepted(id));
            self.drain_leg(now, id);
            self.report_ready(now, id);
        }
    }

    pub(super) fn handle_invite_event(&mut self, now: Instant, event: InviteEvent) {
        match event {
            InviteEvent::Ringing { id, .. } => {
                if let Some(id) = self.our_invitation(&id) {
                    if let Some(call) = self.calls.get_mut(&id)
                        && matches!(call.stage, Stage::Proposed(_))
                    {
                        call.stage = Stage::Proposed(None);
                    }
                    self.emit(Event::Ringing(id));
                }
            }
            InviteEvent::Proceed { id, to } => {
                let Some(call) = self.our_invitation(&id) else { return };
                if let Some(call) = self.calls.get_mut(&call) {
                    call.peer = to;
                    call.stage = Stage::Opening;
                }
                self.open_sockets(call);
            }
            InviteEvent::Over { id, why } => {
                let Some(call) = self.our_invitation(&id) else { return };
                let (reason, by) = match why {
                    Over::Rejected(reason) => {
                        (reason.map_or(ReasonCondition::Decline, |r| r.condition), EndedBy::Remote)
                    }
                    Over::Lost(_) => (ReasonCondition::Expired, EndedBy::TieBreak),
                    Over::Undeliverable => (ReasonCondition::Gone, EndedBy::Refused(None)),
                    Over::TimedOut => (ReasonCondition::Timeout, EndedBy::Timeout),
                };
                // A rejection is one whatever word the peer's device chose for it.
                if by == EndedBy::Remote
                    && let Some(call) = self.calls.get_mut(&call)
                {
                    call.fault.get_or_insert((EndKind::Rejected, reason.in_words().to_owned()));
                }
                self.forget_call(now, call, &End::new(reason, by));
            }
            InviteEvent::Incoming { id, from, proposed, replaces, .. } => {
                if let Some(old) = replaces.and_then(|sid| self.calls.values().find(|c| c.sid == sid).map(|c| c.id)) {
                    let _ = self.end_call(now, old, Some(Reason::new(ReasonCondition::Expired)));
                }
                let media: Vec<String> =
                    proposed.into_iter().filter(|p| p.ns == ns::RTP).filter_map(|p| p.media).collect();
                // A device that takes no calls leaves the answer to the person's other devices.
                let takes = self.config.context.policy.applications.contains(&ns::RTP);
                if !takes || !media.iter().any(|m| m == "audio") {
                    return;
                }
                let call_id = self.next_call_id();
                let mut call = Call::new(call_id, from.clone(), id.clone(), Party::Remote, Stage::AlertingInvite);
                call.invited = true;
                self.calls.insert(call_id, call);
                let _ = self.invites.ring(now, &from.to_bare(), &id);
                self.emit(Event::Incoming { call: call_id, sid: id, from: from.into(), media });
            }
            InviteEvent::Stopped { id, from, why } => {
                let peer = from.to_bare();
                let Some(call) = self
                    .calls
                    .values()
                    .find(|c| c.sid == id && c.peer.to_bare() == peer && c.session.is_none())
                    .map(|c| c.id)
                else {
                    return;
                };
                let (reason, by, text) = match why {
                    Stopped::Retracted(reason) => {
                        (reason.map_or(ReasonCondition::Cancel, |r| r.condition), EndedBy::Remote, None)
                    }
                    Stopped::AnsweredElsewhere => {
                        (ReasonCondition::Cancel, EndedBy::Local, Some("answered on another device".to_owned()))
                    }
                    Stopped::RejectedElsewhere => {
                        (ReasonCondition::Decline, EndedBy::Local, Some("declined on another device".to_owned()))
                    }
                    Stopped::Finished(reason) => {
                        (reason.map_or(ReasonCondition::Expired, |r| r.condition), EndedBy::Remote, None)
                    }
                    Stopped::TimedOut => (ReasonCondition::Timeout, EndedBy::Timeout, None),
                };
                self.forget_call(now, call, &End { text, ..End::new(reason, by) });
            }
            InviteEvent::Finished { .. } => {}
        }
    }

    pub(super) fn our_invitation(&self, sid: &Sid) -> Option<CallId> {
        self.calls.values().find(|c| &c.sid == sid && c.caller == Party::Local).map(|c| c.id)
    }

    /// A call that can no longer be reached through signalling and never had media.
    pub(super) fn drop_unconnected(&mut self, now: Instant, text: &str) {
        let lost: Vec<CallId> = self.calls.values().filter(|c| c.connected.is_none()).map(|c| c.id).collect();
        for id in lost {
            if let Some(call) = self.calls.get_mut(&id) {
                call.fault.get_or_insert((EndKind::SignallingLost, text.to_owned()));
            }
            let end = End::new(ReasonCondition::ConnectivityError, EndedBy::Local);
            self.forget_call(now, id, &end);
        }
    }
}

impl Ended {
    /// One sentence for people.
    #[must_use]
    pub fn sentence(&self) -> &'static str {
        match self.kind {
            EndKind::Completed => "the call is over",
            EndKind::Cancelled => "the call was cancelled",
            EndKind::Rejected => "the call was rejected",
            EndKind::NoAnswer => "nobody answered",
            EndKind::Unavailable => "the other side cannot be reached or cannot take such a call",
            EndKind::MediaFailed => "no media path",
            EndKind::Security => "the call is not safe",
            EndKind::Limit => "a limit or policy forbids the call",
            EndKind::SignallingLost => "the server connection is gone",
            EndKind::Unauthorized => "the server does not let us make this call",
            EndKind::File => "the file cannot be read, written or trusted",
            EndKind::Failed => "the call failed",
        }
    }
}

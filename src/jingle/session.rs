//! One Jingle session: the verbs of our side and what comes out; `inbound.rs` holds what the peer asks for.
//! Read XEP-0166 §5 to §7 before touching this file.

use crate::config::{JingleTimers, SessionLimits};
use crate::fault::ReasonCondition;
use crate::jingle::content::{Content, ContentKey, Quiet, Replace, Stage, answer_groups, kept};
use crate::jingle::state::{Flight, Flown, Live, State, Step, check_answer, complete_offer};
use crate::wire::candidate::{IceTransport, S5bTransport, Transport};
use crate::wire::description::{Description, Info};
use crate::wire::jid::Jid;
use crate::wire::jingle::{self as element, Action, Creator, Disposition, Group, Jingle, Reason, Senders, Sid};
use crate::wire::ns;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub use crate::jingle::exchange::{
    Body, End, EndedBy, IqError, Misuse, Phase, Refusal, SessionEvent, SessionInput, SessionTransmit, Why,
};

/// Who started the session, XEP-0166 §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sent session-initiate.
    Initiator,
    /// Received it.
    Responder,
}

impl Role {
    /// The other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        }
    }

    /// The value of `creator` for what this side generates.
    #[must_use]
    pub const fn creator(self) -> Creator {
        match self {
            Role::Initiator => Creator::Initiator,
            Role::Responder => Creator::Responder,
        }
    }
}

/// What a session must know of the house it lives in; shared by all sessions of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionContext {
    /// What is accepted and shown.
    pub policy: SessionPolicy,
    /// When to give up.
    pub timers: JingleTimers,
    /// Caps on the peer.
    pub limits: SessionLimits,
}

/// What a session accepts from a peer and shows to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPolicy {
    /// RTP without a DTLS fingerprint ends the session with security-error (J320-05).
    pub require_dtls: bool,
    /// A responder's transport-info may leave before the user accepted (J176-25: peers who may know our addresses).
    pub early_transport: bool,
    /// Namespaces of the descriptions that work here.
    pub applications: &'static [&'static str],
    /// Namespaces of the transports that work here.
    pub transports: &'static [&'static str],
}

impl Default for SessionPolicy {
    fn default() -> Self {
        Self {
            require_dtls: true,
            early_transport: false,
            applications: &[ns::RTP, ns::FILE],
            transports: &[ns::ICE_UDP, ns::S5B, ns::IBB_TRANSPORT],
        }
    }
}

/// Who talks, about which session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// Our full JID (a bare one on a link-local stream, XEP-0174).
    pub local: Jid,
    /// The peer's full JID; every stanza of the session goes there and comes from there (J166-27, J166-65).
    pub peer: Jid,
    /// Session id.
    pub sid: Sid,
    /// Unique among the sessions of this endpoint; part of every IQ id of the session.
    pub serial: u64,
}

/// One Jingle session.
#[derive(Debug)]
pub struct Session {
    pub(crate) parties: Parties,
    pub(crate) role: Role,
    pub(crate) context: Arc<SessionContext>,
    /// The local user wants this call. Written in [`Session::initiate`] and [`Session::accept`] only.
    consent: bool,
    pub(crate) state: State,
    next_iq: u32,
    transmits: VecDeque<SessionTransmit>,
    events: VecDeque<SessionEvent>,
}

impl Session {
    /// Sends a session-initiate; the session lives from then on (J176-06).
    ///
    /// # Errors
    /// [`Misuse::Incomplete`] unless each of at least one content has its description and transport (J166-01);
    /// [`Misuse::Duplicate`] if two have the same name.
    pub fn initiate(
        now: Instant,
        parties: Parties,
        context: Arc<SessionContext>,
        contents: Vec<element::Content>,
        groups: Vec<Group>,
    ) -> Result<Self, Misuse> {
        let contents = complete_offer(contents, Role::Initiator)?;
        let mut jingle = Jingle::new(Action::SessionInitiate, parties.sid.clone());
        // J166-24.
        jingle.initiator = Some(parties.local.clone());
        let live = Live {
            step: Step::Offering { until: now + context.timers.ring },
            contents: contents.iter().map(|c| Content::new(c, Stage::Offered, true)).collect(),
            groups: groups.clone(),
            flights: Vec::new(),
            gone_at: None,
        };
        jingle.contents = contents;
        jingle.groups = groups;
        let mut session = Self::with(parties, Role::Initiator, context, live);
        session.consent = true;
        session.send(now, jingle, Flown::Initiate);
        Ok(session)
    }

    pub(crate) fn with(parties: Parties, role: Role, context: Arc<SessionContext>, live: Live) -> Self {
        Self {
            parties,
            role,
            context,
            consent: false,
            state: State::Live(Box::new(live)),
            next_iq: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// One IQ of the peer.
    pub fn handle_input(&mut self, now: Instant, input: SessionInput) {
        // J166-18: signalling is a sign of life.
        self.traffic(now);
        match input {
            SessionInput::Set { id, jingle } => self.request(now, id, *jingle),
            SessionInput::Result { id } => self.acknowledged(&id),
            SessionInput::Error { id, error } => self.refused(now, &id, &error),
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = match self.poll_timeout() {
            Some((at, why)) if at <= now => why,
            Some(_) | None => return,
        };
        let (reason, text) = match due {
            // J166-66.
            Why::Iq => (ReasonCondition::Timeout, "The other side did not answer in time."),
            Why::Ring => (ReasonCondition::Timeout, "Nobody took the call."),
            Why::Fingerprint => {
                self.refuse_security(None);
                return;
            }
            // J166-18.
            Why::Unavailable => (ReasonCondition::Gone, "The other side went offline."),
        };
        self.terminate(say(reason, text), EndedBy::Timeout);
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<SessionTransmit> {
        self.transmits.pop_front()
    }

    /// What to tell next.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// When to call [`Session::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Why)> {
        let live = self.live()?;
        let step = match &live.step {
            Step::Offering { until } | Step::Ringing { until } => Some((*until, Why::Ring)),
            Step::AwaitingFingerprint { until, .. } => Some((*until, Why::Fingerprint)),
            Step::Active => None,
        };
        let iq = live.flights.iter().map(|flight| flight.deadline).min().map(|at| (at, Why::Iq));
        let gone = live.gone_at.map(|at| (at, Why::Unavailable));
        [step, iq, gone].into_iter().flatten().min()
    }

    /// The user takes the call: our halves of the contents taken, keyed as in the offer. The others are declined.
    ///
    /// # Errors
    /// [`Misuse::NotRinging`] unless this is a responder whose user was asked; [`Misuse::NoContent`] for a key that is
    /// not offered or is early media (J166-43); [`Misuse::Incomplete`] without description, transport, or a fingerprint
    /// that policy requires, or if `setup` is not active or passive (J166-42, J320-02).
    pub fn accept(&mut self, now: Instant, contents: Vec<element::Content>, groups: Vec<Group>) -> Result<(), Misuse> {
        let require_dtls = self.context.policy.require_dtls;
        let State::Live(live) = &mut self.state else { return Err(Misuse::Ended) };
        if !matches!(live.step, Step::Ringing { .. }) {
            return Err(Misuse::NotRinging);
        }
        let groups = answer_groups(&live.groups, &groups);
        check_answer(live, &contents, &groups, require_dtls)?;
        let mut jingle = Jingle::new(Action::SessionAccept, self.parties.sid.clone());
        // J166-28.
        jingle.responder = Some(self.parties.local.clone());
        jingle.groups.clone_from(&groups);
        jingle.contents = live.take_answer(contents);
        live.contents.retain(|c| c.stage != Stage::Offered || c.disposition != Disposition::Session);
        live.groups = groups;
        live.step = Step::Active;
        let withheld: Vec<(ContentKey, IceTransport)> =
            live.contents.iter_mut().filter_map(|c| c.withheld.take().map(|held| (c.key.clone(), *held))).collect();
        self.consent = true;
        self.send(now, jingle, Flown::Accept);
        for (key, transport) in withheld {
            // The content is there; candidates without credentials are of no use to anybody.
            self.send_transport_info(now, &key, transport).ok();
        }
        Ok(())
    }

    /// Tells the peer that our user is alerted (J167-30). To be left out for strangers (J353-17).
    ///
    /// # Errors
    /// [`Misuse::NotRinging`] unless this is a responder whose user was asked.
    pub fn ring(&mut self, now: Instant) -> Result<(), Misuse> {
        match &self.live_mut()?.step {
            Step::Ringing { .. } => self.send_info(now, Info::Ringing),
            Step::Offering { .. } | Step::AwaitingFingerprint { .. } | Step::Active => Err(Misuse::NotRinging),
        }
    }

    /// The user, or a rule, declines the call: busy, decline, unsupported-applications, failed-application, …
    ///
    /// # Errors
    /// [`Misuse::NotRinging`] unless this is a pending responder.
    pub fn reject(&mut self, _now: Instant, reason: Reason) -> Result<(), Misuse> {
        match &self.live_mut()?.step {
            Step::Ringing { .. } | Step::AwaitingFingerprint { .. } => {
                self.terminate(reason, EndedBy::Local);
                Ok(())
            }
            Step::Offering { .. } | Step::Active => Err(Misuse::NotRinging),
        }
    }

    /// Ends the session. Without a reason: cancel while our offer is open, decline while theirs is, success after.
    ///
    /// # Errors
    /// [`Misuse::Ended`]
    pub fn hang_up(&mut self, _now: Instant, reason: Option<Reason>) -> Result<(), Misuse> {
        let default = match &self.live_mut()?.step {
            Step::Offering { .. } => ReasonCondition::Cancel,
            Step::Ringing { .. } | Step::AwaitingFingerprint { .. } => ReasonCondition::Decline,
            Step::Active => ReasonCondition::Success,
        };
        self.terminate(reason.unwrap_or_else(|| Reason::new(default)), EndedBy::Local);
        Ok(())
    }

    /// We do not listen, or listen again: session-info hold or unhold.
    ///
    /// # Errors
    /// [`Misuse::Ended`]
    pub fn hold(&mut self, now: Instant, on: bool) -> Result<(), Misuse> {
        self.live_mut()?.contents.iter_mut().for_each(|c| c.local_quiet.on_hold = on);
        self.send_info(now, if on { Info::Hold } else { Info::Unhold })
    }

    /// We do not send, or send again, one content or (`None`) all: session-info mute or unmute.
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NoContent`]
    pub fn mute(&mut self, now: Instant, on: bool, content: Option<&ContentKey>) -> Result<(), Misuse> {
        let live = self.live_mut()?;
        match content {
            Some(key) => live.own(key)?.local_quiet.muted = on,
            None => live.contents.iter_mut().for_each(|c| c.local_quiet.muted = on),
        }
        let named = content.map(|key| (key.creator, key.name.clone()));
        self.send_info(now, if on { Info::Mute(named) } else { Info::Unmute(named) })
    }

    /// Ends our hold and mute of everything: session-info active (J167-23).
    ///
    /// # Errors
    /// [`Misuse::Ended`]
    pub fn active(&mut self, now: Instant) -> Result<(), Misuse> {
        self.live_mut()?.contents.iter_mut().for_each(|c| c.local_quiet = Quiet::default());
        self.send_info(now, Info::Active)
    }

    /// Any other session-info, for example that of a file.
    ///
    /// # Errors
    /// [`Misuse::Ended`]
    pub fn send_info(&mut self, now: Instant, info: Info) -> Result<(), Misuse> {
        self.live_mut()?;
        let mut jingle = Jingle::new(Action::SessionInfo, self.parties.sid.clone());
        jingle.info = Some(info);
        self.send(now, jingle, Flown::Info);
        Ok(())
    }

    /// Asks whether the peer still has the session: an empty session-info (J166-22). No answer ends it (J166-66).
    ///
    /// # Errors
    /// [`Misuse::Ended`]
    pub fn ping(&mut self, now: Instant) -> Result<(), Misuse> {
        self.live_mut()?;
        self.send(now, Jingle::new(Action::SessionInfo, self.parties.sid.clone()), Flown::Ping);
        Ok(())
    }

    /// Proposes further contents (J166-32); `creator` is set to our role.
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::Incomplete`], [`Misuse::Duplicate`]
    pub fn content_add(&mut self, now: Instant, contents: Vec<element::Content>) -> Result<(), Misuse> {
        let role = self.role;
        let contents = complete_offer(contents, role)?;
        let live = self.live_mut()?;
        if contents.iter().any(|c| live.content(&ContentKey::of(c)).is_some()) {
            return Err(Misuse::Duplicate);
        }
        live.contents.extend(contents.iter().map(|c| Content::new(c, Stage::Adding(role), true)));
        let keys = contents.iter().map(ContentKey::of).collect();
        let mut jingle = Jingle::new(Action::ContentAdd, self.parties.sid.clone());
        jingle.contents = contents;
        self.send(now, jingle, Flown::ContentAdd(keys));
        Ok(())
    }

    /// Takes contents that the peer proposed by content-add: our halves, keyed as proposed.
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NothingPending`], [`Misuse::Incomplete`]
    pub fn content_accept(&mut self, now: Instant, contents: Vec<element::Content>) -> Result<(), Misuse> {
        let theirs = Stage::Adding(self.role.other());
        let live = self.live_mut()?;
        for content in &contents {
            let pending = live.content(&ContentKey::of(content)).is_some_and(|c| c.stage == theirs);
            if !pending {
                return Err(Misuse::NothingPending);
            }
        }
        if contents.is_empty() || contents.iter().any(|c| c.description.is_none() || c.transport.is_none()) {
            return Err(Misuse::Incomplete);
        }
        let mut jingle = Jingle::new(Action::ContentAccept, self.parties.sid.clone());
        jingle.contents = self.live_mut()?.take_answer(contents);
        self.send(now, jingle, Flown::Other);
        Ok(())
    }

    /// Refuses a content that the peer proposed by content-add.
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NothingPending`]
    pub fn content_reject(&mut self, now: Instant, content: &ContentKey, reason: Reason) -> Result<(), Misuse> {
        let theirs = Stage::Adding(self.role.other());
        let live = self.live_mut()?;
        if live.content(content).is_none_or(|c| c.stage != theirs) {
            return Err(Misuse::NothingPending);
        }
        live.remove(content);
        self.send_content_reject(now, content.element(), reason);
        Ok(())
    }

    /// Changes the direction of a content.
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NoContent`]; [`Misuse::Countered`] for a second answer to the peer's wish within seconds (J166-37).
    pub fn content_modify(&mut self, now: Instant, content: &ContentKey, senders: Senders) -> Result<(), Misuse> {
        let known = self.live_mut()?.own(content)?;
        known.counter = known.counter.ours(now).ok_or(Misuse::Countered)?;
        let before = std::mem::replace(&mut known.senders, senders);
        let mut jingle = Jingle::new(Action::ContentModify, self.parties.sid.clone());
        // J166-35.
        jingle.contents = vec![element::Content { senders: Some(senders), ..content.element() }];
        self.send(now, jingle, Flown::ContentModify(content.clone(), before));
        Ok(())
    }

    /// Takes a content out. If it was the last one the peer ends the session (J166-41).
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NoContent`]
    pub fn content_remove(&mut self, now: Instant, content: &ContentKey, reason: Option<Reason>) -> Result<(), Misuse> {
        let live = self.live_mut()?;
        live.own(content)?;
        live.remove(content);
        let mut jingle = Jingle::new(Action::ContentRemove, self.parties.sid.clone());
        jingle.contents = vec![content.element()];
        jingle.reason = reason;
        self.send(now, jingle, Flown::ContentRemove(content.clone()));
        Ok(())
    }

    /// Sends candidates, new credentials or the end of gathering; missing credentials are filled in (J176-02). Before
    /// the user accepted it is kept back, unless the policy lets it go (J176-25).
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NoContent`]; [`Misuse::Incomplete`] if there are no credentials to fill in.
    pub fn send_transport_info(
        &mut self,
        now: Instant,
        content: &ContentKey,
        mut transport: IceTransport,
    ) -> Result<(), Misuse> {
        let free = self.consent || self.context.policy.early_transport;
        let known = self.live_mut()?.own(content)?;
        if !free {
            known.withhold(transport);
            return Ok(());
        }
        let creds = known.local.ice().and_then(IceTransport::creds).or_else(|| transport.creds());
        if creds.is_none() && !transport.candidates.is_empty() {
            return Err(Misuse::Incomplete);
        }
        known.announce(&mut transport);
        let mut jingle = Jingle::new(Action::TransportInfo, self.parties.sid.clone());
        jingle.contents =
            vec![element::Content { transport: Some(Transport::Ice(Box::new(transport))), ..content.element() }];
        self.send(now, jingle, Flown::TransportInfo(content.clone()));
        Ok(())
    }

    /// Tells what became of the streamhosts of a SOCKS5 bytestream: used, failed, activated (XEP-0260 §2.3).
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NoContent`]
    pub fn send_streamhost_news(
        &mut self,
        now: Instant,
        content: &ContentKey,
        news: S5bTransport,
    ) -> Result<(), Misuse> {
        self.live_mut()?.own(content)?;
        let mut jingle = Jingle::new(Action::TransportInfo, self.parties.sid.clone());
        jingle.contents =
            vec![element::Content { transport: Some(Transport::S5b(Box::new(news))), ..content.element() }];
        self.send(now, jingle, Flown::Other);
        Ok(())
    }

    /// Tells what changed in our description; advisory (J167-26).
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NoContent`]
    pub fn description_info(
        &mut self,
        now: Instant,
        content: &ContentKey,
        description: Description,
    ) -> Result<(), Misuse> {
        self.live_mut()?.own(content)?;
        let mut jingle = Jingle::new(Action::DescriptionInfo, self.parties.sid.clone());
        jingle.contents = vec![element::Content { description: Some(description), ..content.element() }];
        self.send(now, jingle, Flown::Other);
        Ok(())
    }

    /// Asks for another transport (J166-45).
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NoContent`]; [`Misuse::Duplicate`] while a replace is pending.
    pub fn transport_replace(
        &mut self,
        now: Instant,
        content: &ContentKey,
        transport: Transport,
    ) -> Result<(), Misuse> {
        let known = self.live_mut()?.own(content)?;
        if known.replace != Replace::Idle {
            return Err(Misuse::Duplicate);
        }
        known.replace = Replace::Ours(Box::new(kept(&transport)));
        let mut jingle = Jingle::new(Action::TransportReplace, self.parties.sid.clone());
        jingle.contents = vec![element::Content { transport: Some(transport), ..content.element() }];
        self.send(now, jingle, Flown::TransportReplace(content.clone()));
        Ok(())
    }

    /// Takes the transport that the peer asked for: our half of it.
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NoContent`], [`Misuse::NothingPending`]
    pub fn transport_accept(&mut self, now: Instant, content: &ContentKey, transport: Transport) -> Result<(), Misuse> {
        let known = self.live_mut()?.own(content)?;
        match std::mem::take(&mut known.replace) {
            Replace::Theirs(theirs) => known.exchange(kept(&transport), *theirs),
            other @ (Replace::Idle | Replace::Ours(_)) => {
                known.replace = other;
                return Err(Misuse::NothingPending);
            }
        }
        let mut jingle = Jingle::new(Action::TransportAccept, self.parties.sid.clone());
        jingle.contents = vec![element::Content { transport: Some(transport), ..content.element() }];
        self.send(now, jingle, Flown::Other);
        Ok(())
    }

    /// Keeps the old transport.
    ///
    /// # Errors
    /// [`Misuse::Ended`], [`Misuse::NoContent`], [`Misuse::NothingPending`]
    pub fn transport_reject(&mut self, now: Instant, content: &ContentKey) -> Result<(), Misuse> {
        let known = self.live_mut()?.own(content)?;
        let theirs = match std::mem::take(&mut known.replace) {
            Replace::Theirs(theirs) => theirs,
            other @ (Replace::Idle | Replace::Ours(_)) => {
                known.replace = other;
                return Err(Misuse::NothingPending);
            }
        };
        self.send_transport_reject(now, element::Content { transport: Some(*theirs), ..content.element() }, None);
        Ok(())
    }

    /// Unavailable presence of the peer came, or its address bounced (J166-18).
    pub fn peer_unavailable(&mut self, now: Instant) {
        let after = self.context.timers.unavailable;
        if let Ok(live) = self.live_mut() {
            live.gone_at.get_or_insert(now + after);
        }
    }

    /// The peer is available again.
    pub fn peer_available(&mut self) {
        if let Ok(live) = self.live_mut() {
            live.gone_at = None;
        }
    }

    /// Signalling, checks or media of the peer arrived: a running unavailable timer starts anew (J166-18).
    pub fn traffic(&mut self, now: Instant) {
        let after = self.context.timers.unavailable;
        if let Ok(live) = self.live_mut()
            && live.gone_at.is_some()
        {
            live.gone_at = Some(now + after);
        }
    }

    /// The local user wants this call: set by [`Session::initiate`] and [`Session::accept`] only, no stanza can set it;
    /// false again once the session has ended.
    #[must_use]
    pub fn consented(&self) -> bool {
        self.consent && self.live().is_some()
    }

    /// True if media of this content may leave now: both sides agreed, it is ours to send, nobody holds or mutes it.
    #[must_use]
    pub fn may_send(&self, content: &ContentKey) -> bool {
        self.consented()
            && self.phase() == Phase::Active
            && self.content(content).is_some_and(|c| c.may_send(self.role))
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Live(live) => match live.step {
                Step::Offering { .. } | Step::AwaitingFingerprint { .. } | Step::Ringing { .. } => Phase::Pending,
                Step::Active => Phase::Active,
            },
            State::Ended(_) => Phase::Ended,
        }
    }

    /// Our role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The peer's full JID.
    #[must_use]
    pub fn peer(&self) -> &Jid {
        &self.parties.peer
    }

    /// Session id.
    #[must_use]
    pub fn sid(&self) -> &Sid {
        &self.parties.sid
    }

    /// One content.
    #[must_use]
    pub fn content(&self, key: &ContentKey) -> Option<&Content> {
        self.live()?.content(key)
    }

    /// All contents, in the order of their proposal; none once the session has ended.
    pub fn contents(&self) -> impl Iterator<Item = &Content> {
        self.live().map_or(&[][..], |live| &live.contents).iter()
    }

    /// XEP-0338 groups in force.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        self.live().map_or(&[], |live| &live.groups)
    }

    /// How it ended.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        match &self.state {
            State::Live(_) => None,
            State::Ended(end) => Some(end),
        }
    }
}

/// What both halves of the session use.
impl Session {
    pub(crate) fn live(&self) -> Option<&Live> {
        match &self.state {
            State::Live(live) => Some(live),
            State::Ended(_) => None,
        }
    }

    pub(crate) fn live_mut(&mut self) -> Result<&mut Live, Misuse> {
        match &mut self.state {
            State::Live(live) => Ok(live),
            State::Ended(_) => Err(Misuse::Ended),
        }
    }

    /// Hands an event out, after the Incoming that is still held back.
    pub(crate) fn emit(&mut self, event: SessionEvent) {
        match &mut self.state {
            State::Live(live) => match &mut live.step {
                Step::AwaitingFingerprint { held, .. } => {
                    if held.len() < HELD_EVENTS {
                        held.push(event);
                    }
                }
                Step::Offering { .. } | Step::Ringing { .. } | Step::Active => self.events.push_back(event),
            },
            State::Ended(_) => self.events.push_back(event),
        }
    }

    pub(crate) fn push(&mut self, id: String, body: Body) {
        self.transmits.push_back(SessionTransmit { to: self.parties.peer.clone(), id, body });
    }

    /// Gives back the room of drained queues: a session at rest is small.
    pub(crate) fn rest(&mut self) {
        if self.transmits.is_empty() {
            self.transmits = VecDeque::new();
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        if let State::Live(live) = &mut self.state
            && live.flights.is_empty()
        {
            live.flights = Vec::new();
        }
    }

    /// Sends a set and remembers what its answer will mean.
    pub(crate) fn send(&mut self, now: Instant, jingle: Jingle, what: Flown) {
        let number = self.next_iq;
        self.next_iq = self.next_iq.wrapping_add(1);
        let deadline = now + self.context.timers.iq;
        if let State::Live(live) = &mut self.state {
            live.flights.push(Flight { number, deadline, what });
        }
        self.push(iq_id(self.parties.serial, number), Body::Set(Box::new(jingle)));
    }

    pub(crate) fn send_content_reject(&mut self, now: Instant, content: element::Content, reason: Reason) {
        let mut jingle = Jingle::new(Action::ContentReject, self.parties.sid.clone());
        jingle.contents = vec![content];
        jingle.reason = Some(reason);
        self.send(now, jingle, Flown::Other);
    }

    pub(crate) fn send_transport_reject(&mut self, now: Instant, content: element::Content, reason: Option<Reason>) {
        let mut jingle = Jingle::new(Action::TransportReject, self.parties.sid.clone());
        jingle.contents = vec![content];
        jingle.reason = reason;
        self.send(now, jingle, Flown::Other);
    }

    /// Sends session-terminate; the session is over at once, not when it is acknowledged (J166-14, J166-16).
    pub(crate) fn terminate(&mut self, reason: Reason, by: EndedBy) {
        let mut jingle = Jingle::new(Action::SessionTerminate, self.parties.sid.clone());
        let end = End {
            reason: reason.condition,
            by,
            text: reason.text.clone(),
            alternative: reason.alternative.clone(),
            redirect: None,
            detail: reason.detail.clone(),
        };
        jingle.reason = Some(reason);
        let number = self.next_iq;
        self.next_iq = self.next_iq.wrapping_add(1);
        self.over(end);
        self.push(iq_id(self.parties.serial, number), Body::Set(Box::new(jingle)));
    }

    /// The session is over; nothing is sent.
    pub(crate) fn over(&mut self, end: End) {
        self.state = State::Ended(Box::new(end.clone()));
        self.emit(SessionEvent::Ended(end));
    }

    /// The peer's crossed session-initiate won: ours is over without a word, the peer refuses it itself (J166-46).
    pub(crate) fn lose_tie(&mut self) {
        self.over(End::new(ReasonCondition::AlternativeSession, EndedBy::TieBreak));
    }
}

/// Events held back while an offer owes its fingerprint; a peer that trickles more in 3 s gets the rest ignored.
const HELD_EVENTS: usize = 64;

/// Id of the IQ number `number` of the session `serial`.
fn iq_id(serial: u64, number: u32) -> String {
    format!("j{serial:x}.{number:x}")
}

/// Session and number of one of our IQ ids.
pub(crate) fn parse_iq_id(id: &str) -> Option<(u64, u32)> {
    let (serial, number) = id.strip_prefix('j')?.split_once('.')?;
    Some((u64::from_str_radix(serial, 16).ok()?, u32::from_str_radix(number, 16).ok()?))
}

/// A reason with a text for people (users' complaint 26).
pub(crate) fn say(condition: ReasonCondition, text: &str) -> Reason {
    Reason { text: Some(text.to_owned()), ..Reason::new(condition) }
}

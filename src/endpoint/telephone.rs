//! SIP calls: a session of the user agent, a leg and its sound are one call of the endpoint. Read RFC 3261 §13, RFC 3264 §5
//! to §8 and RFC 3960 before touching this file.

mod calling;
mod ending;
pub(super) mod media;
mod transfer;

use super::call::Quiet;
use super::event::{CallId, EndKind, Event, Output, Party};
use super::sdp::Offered;
pub use super::sdp::{MediaSecurity, SipMediaPolicy as MediaPolicy};
use super::{Endpoint, Ends, Misuse};
use crate::config::StreamLimits;
use crate::media::audio::AudioPath;
use crate::sip::agent::{Agent, AgentConfig, WayKey};
use crate::sip::flow::SipInput;
use crate::sip::session::{Fork, Invitation, ReferralId};
use crate::sip::sessions::SessionId;
use crate::transport::leg::Leg;
use crate::wire::address::Address;
use crate::wire::jid::{BareJid, Error as JidError};
use media::LineMedia;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Everything a SIP telephone is told once.
#[derive(Debug, Clone)]
pub struct TelephoneConfig {
    /// Account, registrar, proxies, credentials.
    pub agent: AgentConfig,
    /// How sound is protected and carried.
    pub media: MediaPolicy,
    /// A transfer that the other side asks for is followed to addresses of these hosts; nowhere else, as such calls may
    /// cost money (threat: toll fraud).
    pub follow_to: Vec<String>,
    /// Address of the endpoint's XMPP half, which has no account then.
    nobody: BareJid,
    limits: StreamLimits,
}

impl TelephoneConfig {
    /// A telephone that follows no transfer.
    ///
    /// # Errors
    /// Never; what could fail is the address of nobody (RFC 2606 §2).
    pub fn new(agent: AgentConfig) -> Result<Self, JidError> {
        let nobody = BareJid::new("nobody@offhook.invalid")?;
        let (media, limits) = (MediaPolicy::default(), StreamLimits::default());
        Ok(Self { agent, media, follow_to: Vec::new(), nobody, limits })
    }

    pub(super) fn nobody(&self) -> &BareJid {
        &self.nobody
    }

    pub(super) fn stream_limits(&self) -> &StreamLimits {
        &self.limits
    }
}

/// SIP's half of an endpoint.
#[derive(Debug)]
pub(super) struct Telephone {
    agent: Box<Agent>,
    media: MediaPolicy,
    follow_to: Vec<String>,
    lines: BTreeMap<CallId, Line>,
    by_session: BTreeMap<SessionId, CallId>,
    /// Registered once: what comes after is a return.
    was_registered: bool,
    registered: bool,
}

/// Where a SIP call stands.
///
/// ```text
///  dial ─▶ Finding ── way known ─▶ Opening ── sockets, candidates ─▶ Calling ── 2xx ─▶ Active
///                                                                      │ description in a 18x: early media
///  INVITE ─▶ Alerting ── pick_up ─▶ Answering ── sockets, candidates ─────── 2xx out ─▶ Active
///  from everywhere ── hang-up, refusal, time-out ─▶ gone
/// ```
#[derive(Debug)]
enum Stage {
    /// How a request would travel is being found out: our addresses in the offer follow from it.
    Finding(WayKey),
    /// Sockets are being bound, candidates gathered.
    Opening,
    /// INVITE is out.
    Calling,
    /// The local user is being asked; `None`: the other side wants our offer.
    Alerting(Option<Box<Offered>>),
    /// The user took the call; sockets are being bound, candidates gathered.
    Answering(Option<Box<Offered>>),
    /// Both sides accepted.
    Active,
}

/// What the signalling runs on.
#[derive(Debug, Clone, Copy)]
struct Ground {
    /// Our address towards the other side; `None` where a socket serves all of ours.
    local: Option<IpAddr>,
    /// Where the signalling goes.
    remote: IpAddr,
    /// Inside TLS: keys may be told (RFC 4568 §7).
    secure: bool,
}

/// One SIP call.
#[derive(Debug)]
struct Line {
    id: CallId,
    peer: Address,
    stage: Stage,
    /// What is to be sent once there is an offer.
    invitation: Option<Box<Invitation>>,
    session: Option<SessionId>,
    /// Whose description is in use.
    fork: Fork,
    ground: Option<Ground>,
    media: LineMedia,
    /// When the local user wanted the call: `call` or `accept`.
    wanted: Option<Instant>,
    connected: Option<Instant>,
    /// It rang at the other side.
    rang: bool,
    muted: bool,
    quiet: Quiet,
    /// Why we end it, where the signalling says less.
    fault: Option<(EndKind, String)>,
    /// Where the other side is being sent.
    transfer_to: Option<Address>,
    /// The call whose other side asked for this one, and its request.
    referral: Option<(CallId, ReferralId)>,
}

impl Line {
    fn new(id: CallId, peer: Address, stage: Stage) -> Self {
        Self {
            id,
            peer,
            stage,
            invitation: None,
            session: None,
            fork: Fork::default(),
            ground: None,
            media: LineMedia::default(),
            wanted: None,
            connected: None,
            rang: false,
            muted: false,
            quiet: Quiet::default(),
            fault: None,
            transfer_to: None,
            referral: None,
        }
    }

    fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Active)
    }

    /// The local user wants the call, and a description of the other side is there.
    fn may_hear(&self) -> bool {
        self.wanted.is_some() && (self.is_active() || self.media.early)
    }

    fn duration(&self, now: Instant) -> Duration {
        self.connected.map(|at| now.saturating_duration_since(at)).unwrap_or_default()
    }
}

impl Telephone {
    pub(super) fn new(now: Instant, seed: [u8; 32], config: &TelephoneConfig) -> Self {
        Self {
            agent: Box::new(Agent::new(now, seed, config.agent.clone())),
            media: config.media.clone(),
            follow_to: config.follow_to.clone(),
            lines: BTreeMap::new(),
            by_session: BTreeMap::new(),
            was_registered: false,
            registered: false,
        }
    }

    pub(super) fn legs_mut(&mut self) -> impl Iterator<Item = &mut Leg> {
        self.lines.values_mut().filter_map(|line| line.media.leg.as_deref_mut())
    }

    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        let agent = self.agent.poll_timeout();
        let gather = self.lines.values().filter_map(|line| line.media.gather_by).min();
        let legs = self.legs_mut().filter_map(|leg| leg.poll_timeout()).map(|(at, _)| at).min();
        [agent, gather, legs].into_iter().flatten().min()
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = CallId> + '_ {
        self.lines.keys().copied()
    }

    pub(super) fn peer(&self, id: CallId) -> Option<Address> {
        self.lines.get(&id).map(|line| line.peer.clone())
    }

    pub(super) fn sound(&self, id: CallId) -> Option<(&Leg, &AudioPath)> {
        let media = &self.lines.get(&id)?.media;
        Some((media.leg.as_deref()?, media.audio.as_deref()?))
    }

    pub(super) fn ends(&mut self, id: CallId) -> Option<Ends<'_>> {
        let line = self.lines.get_mut(&id)?;
        let hears = line.may_hear();
        let media = &mut line.media;
        // Before the other side took the call only silence goes out, which opens the way through a NAT (RFC 3960 §3.3).
        Some(Ends { leg: media.leg.as_deref_mut(), audio: media.audio.as_deref_mut(), hears, talks: hears })
    }
}

impl Endpoint {
    pub(super) fn is_line(&self, id: CallId) -> bool {
        self.telephone.as_ref().is_some_and(|telephone| telephone.lines.contains_key(&id))
    }

    fn line(&mut self, id: CallId) -> Option<&mut Line> {
        self.telephone.as_mut()?.lines.get_mut(&id)
    }

    /// A call that is up, and its session.
    fn up(&mut self, id: CallId) -> Result<(SessionId, &mut Line), Misuse> {
        let line = self.line(id).ok_or(Misuse::NoCall)?;
        match (line.session, &line.stage) {
            (Some(session), Stage::Active) => Ok((session, line)),
            _ => Err(Misuse::NotActive),
        }
    }

    pub(super) fn handle_sip(&mut self, now: Instant, input: SipInput<'_>) {
        if let Some(telephone) = &mut self.telephone {
            telephone.agent.handle_input(now, input);
        }
    }

    pub(super) fn telephone_timeout(&mut self, now: Instant) {
        let Some(telephone) = &mut self.telephone else { return };
        telephone.agent.handle_timeout(now);
        let ids: Vec<CallId> = telephone.lines.keys().copied().collect();
        for id in ids {
            let Some(line) = self.line(id) else { continue };
            let gathered = line.media.gather_by.is_some_and(|at| at <= now);
            if let Some(leg) = &mut line.media.leg
                && leg.poll_timeout().is_some_and(|(at, _)| at <= now)
            {
                leg.handle_timeout(now);
                self.drain_line(now, id);
                self.follow_line_reports(now, id);
            }
            if gathered {
                self.describe_line(now, id);
            }
        }
    }

    /// True if anything moved.
    pub(super) fn pump_telephone(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(output) = self.telephone.as_mut().and_then(|telephone| telephone.agent.poll_output()) {
            self.outputs.push_back(Output::Sip(output));
            moved = true;
        }
        if let Some(event) = self.telephone.as_mut().and_then(|telephone| telephone.agent.poll_event()) {
            self.handle_agent_event(now, event);
            moved = true;
        }
        moved
    }

    /// True when nothing that was begun awaits its end: after [`Endpoint::shut_down`] the sockets of SIP may go.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.telephone.as_ref().is_none_or(|telephone| telephone.agent.is_quiet())
    }

    /// Takes our registration back.
    pub(super) fn close_telephone(&mut self, now: Instant) {
        if let Some(telephone) = &mut self.telephone {
            telephone.agent.shut_down(now);
        }
    }

    pub(super) fn hold_line(&mut self, now: Instant, id: CallId, on: bool) -> Result<(), Misuse> {
        let (session, _) = self.up(id)?;
        self.act_on(now, |sessions, now| sessions.hold(now, session, on))?;
        let (_, line) = self.up(id)?;
        line.quiet.held_by_us = on;
        line.hush();
        self.emit(Event::Hold { call: id, on, by: Party::Local });
        self.pump(now);
        Ok(())
    }

    pub(super) fn mute_line(&mut self, id: CallId, on: bool) -> Result<(), Misuse> {
        let (_, line) = self.up(id)?;
        line.muted = on;
        line.hush();
        self.emit(Event::Mute { call: id, on, by: Party::Local });
        Ok(())
    }

    pub(super) fn press_key(&mut self, now: Instant, id: CallId, digit: char) -> Result<(), Misuse> {
        let line = self.line(id).ok_or(Misuse::NoCall)?;
        let session = line.session.filter(|_| line.may_hear()).ok_or(Misuse::NotActive)?;
        let audio = line.media.audio.as_mut().ok_or(Misuse::NotActive)?;
        match audio.send_digit(digit) {
            Ok(()) => return Ok(()),
            // RFC 6086: where the media has no way for it, the signalling has.
            Err(crate::media::audio::AudioError::NoTelephoneEvent) => {}
            Err(why) => return Err(Misuse::Digit(why.to_string())),
        }
        self.act_on(now, |sessions, now| sessions.info_dtmf(now, session, digit, INFO_DIGIT))
            .map_err(|why| Misuse::Digit(why.to_string()))?;
        self.pump(now);
        Ok(())
    }
}

/// Candidates are waited for at most so long: the description carries all of them (RFC 8839 §4.2; there is no trickle).
const GATHER_LIMIT: Duration = Duration::from_millis(1_500);
/// How long a digit of an INFO sounds there, as Cisco's gateways and everybody after them have it.
const INFO_DIGIT: Duration = Duration::from_millis(160);

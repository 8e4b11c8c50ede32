//! Which TCP connection carries one content: the negotiation of a SOCKS5 bytestream, both roles. Read XEP-0260 §2 to §4
//! before touching this file.
//!
//! ```text
//!            set_remote
//! Gathering ───────────▶ Negotiating: dials theirs, is dialled at ours, until both sides have given their verdict
//!                             │        (candidate-used or candidate-error)
//!       ┌──────────┬──────────┴──────┬───────────────────┬─────────────────────┐ error/error, 30 s
//!       │ theirs,  │ theirs,         │ ours,             │ ours, a proxy       │
//!       │ direct   │ a proxy         │ direct            ▼                     │
//!       │          ▼                 ▼              DiallingProxy              │
//!       │  AwaitingActivation   AwaitingStream           │ dialled             │
//!       │          │ activated       │ accepted          ▼                     │
//!       │          │                 │               Activating                │
//!       ▼          ▼                 ▼                   │ result, we send     ▼
//!   Established ◀──┴─────────────────┴───────────────────┘ activated         Failed ◀─ proxy-error, 15 s, connection lost
//! ```
//!
//! `Failed` is no end of the session: the initiator replaces the transport or terminates (J260-13).

use super::dial::{DialPolicy, is_dialable_host};
use super::socks5::{dst_addr, is_dst_addr};
use crate::config::{BytestreamLimits, wire};
use crate::wire::candidate::{S5bCandidate, S5bKind, S5bTransport};
use crate::wire::jid::Jid;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

/// A TCP connection of a transfer. Dialled ones are numbered here, from [`S5bConfig::first_stream`]; accepted ones by the
/// shell, from 2³².
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What a negotiation is about.
#[derive(Debug, Clone)]
pub struct S5bConfig {
    /// We sent the session-initiate.
    pub initiator: bool,
    /// Stream id, of the offer.
    pub sid: String,
    /// Our full JID.
    pub local: Jid,
    /// The peer's full JID.
    pub peer: Jid,
    /// Where we connect to.
    pub policy: DialPolicy,
    /// Only candidates of this kind are offered and dialled: with [`S5bKind::Proxy`] the peer sees no address of ours
    /// (J260-14).
    pub only: Option<S5bKind>,
    /// Number of the first connection dialled.
    pub first_stream: u64,
    /// Caps and timers.
    pub limits: BytestreamLimits,
}

/// What the negotiation wants done, or has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S5bEvent {
    /// Connect and do the handshake of [`super::socks5::Client`]; each address of the host must pass
    /// [`super::dial::may_dial`].
    Dial {
        /// Its number from now on.
        stream: StreamId,
        /// Address or name.
        host: String,
        /// TCP port, never 0.
        port: u16,
        /// DST.ADDR.
        dst_addr: String,
        /// Given up then.
        by: Instant,
        /// What `host` may turn out to be.
        policy: DialPolicy,
    },
    /// Close this connection, or stop dialling it.
    HangUp {
        /// Which.
        stream: StreamId,
    },
    /// Ask this proxy to activate the stream (XEP-0065 §6.3.5); its answer goes to [`S5b::handle_activated`].
    Activate {
        /// The proxy.
        proxy: Jid,
        /// Stream id.
        sid: String,
        /// The peer.
        target: Jid,
    },
    /// The content's bytes go here.
    Established {
        /// Which connection.
        stream: StreamId,
        /// How it goes.
        kind: S5bKind,
    },
    /// There is no such connection; another transport may do (J260-13).
    Failed,
}

/// What a peer did wrong. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum S5bFault {
    /// Another stream id than the offer's (J260-03).
    #[error("another sid than the offer's")]
    WrongSid,
    /// `mode='udp'`, which is not spoken here.
    #[error("a bytestream over UDP")]
    Udp,
    /// A candidate-used names no candidate of ours.
    #[error("an unknown candidate")]
    UnknownCandidate,
    /// A second verdict, or the activation of nothing.
    #[error("out of order")]
    OutOfOrder,
}

#[derive(Debug, Clone)]
struct Ours {
    candidate: S5bCandidate,
    /// The listener behind a direct one.
    listener: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialling {
    Waiting,
    Going { stream: StreamId, by: Instant },
    Open { stream: StreamId },
    Over,
}

#[derive(Debug, Clone)]
struct Theirs {
    candidate: S5bCandidate,
    state: Dialling,
}

/// What one side has found, XEP-0260 §2.3; indices into the other side's candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pending,
    Used(usize),
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Gathering,
    Negotiating { since: Instant },
    AwaitingStream { ours: usize, by: Instant },
    AwaitingActivation { stream: StreamId, by: Instant },
    DiallingProxy { ours: usize, stream: StreamId, by: Instant },
    Activating { ours: usize, stream: StreamId, by: Instant },
    Established,
    Failed,
}

/// The negotiation of one content's bytestream.
#[derive(Debug)]
pub struct S5b {
    config: S5bConfig,
    phase: Phase,
    ours: Vec<Ours>,
    theirs: Vec<Theirs>,
    /// DST.ADDR of the streams to their candidates.
    their_dst_addr: String,
    /// The peer has named no candidate yet, not even one that we do not dial.
    silent: bool,
    /// `offer` or `answer` was taken: verdicts may be sent, candidates no longer change.
    described: bool,
    our_verdict: Verdict,
    their_verdict: Verdict,
    accepted: Vec<(StreamId, SocketAddr)>,
    dialled: usize,
    last_dial: Option<Instant>,
    next_stream: u64,
    events: VecDeque<S5bEvent>,
    infos: VecDeque<S5bTransport>,
}

/// Local preference of our first candidate of each kind; each further one has [`PREFERENCE_STEP`] less. Peers count from 0
/// or from 65 535, so that equal priorities, about which peers disagree, do not come up.
const PREFERENCE: u32 = 32_500;
const PREFERENCE_STEP: u32 = 50;

impl S5b {
    /// Adds nothing and dials nobody yet. A responder makes it when the user has accepted (J260-14).
    #[must_use]
    pub fn new(config: S5bConfig) -> Self {
        Self {
            their_dst_addr: dst_addr(&config.sid, config.peer.as_str(), config.local.as_str()),
            next_stream: config.first_stream,
            config,
            phase: Phase::Gathering,
            ours: Vec::new(),
            theirs: Vec::new(),
            silent: true,
            described: false,
            our_verdict: Verdict::Pending,
            their_verdict: Verdict::Pending,
            accepted: Vec::new(),
            dialled: 0,
            last_dial: None,
            events: VecDeque::new(),
            infos: VecDeque::new(),
        }
    }

    /// The DST.ADDRs that our listeners accept: the one of XEP-0260 §2.2, and the one with the JIDs the other way round,
    /// which Gajim uses as initiator. Who knows either knows both.
    #[must_use]
    pub fn dst_addrs(&self) -> [String; 2] {
        let (sid, local, peer) = (&self.config.sid, self.config.local.as_str(), self.config.peer.as_str());
        [dst_addr(sid, local, peer), dst_addr(sid, peer, local)]
    }

    /// The stream id.
    #[must_use]
    pub fn sid(&self) -> &str {
        &self.config.sid
    }

    /// Networks that this machine is in: private addresses in them may be dialled. Known with the listeners.
    pub fn set_own_networks(&mut self, networks: Vec<(std::net::IpAddr, u8)>) {
        self.config.policy.own_networks = networks;
    }

    /// A listener that speaks SOCKS5 for [`Self::dst_addrs`] is bound there. After offer or answer it is too late.
    pub fn add_listener(&mut self, addr: SocketAddr) {
        let ip = addr.ip().to_canonical();
        // An IPv6 link-local address means nothing to the peer without the interface.
        let link_local = matches!(ip, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local());
        if addr.port() != 0 && !ip.is_unspecified() && !link_local {
            let jid = self.config.local.clone();
            self.add(S5bKind::Direct, ip.to_string(), addr.port(), jid, Some(SocketAddr::new(ip, addr.port())));
        }
    }

    /// A proxy of ours (XEP-0065 §6). After offer or answer it is too late.
    pub fn add_proxy(&mut self, jid: Jid, host: &str, port: u16) {
        if port != 0 {
            self.add(S5bKind::Proxy, host.to_owned(), port, jid, None);
        }
    }

    fn add(&mut self, kind: S5bKind, host: String, port: u16, jid: Jid, listener: Option<SocketAddr>) {
        let wanted = self.config.only.is_none_or(|only| only == kind);
        let known = self.ours.iter().any(|o| o.candidate.host == host && o.candidate.port == port);
        if self.described || !wanted || known {
            return;
        }
        let candidate = S5bCandidate { cid: String::new(), host, jid, port, priority: 0, kind };
        self.ours.push(Ours { candidate, listener });
    }

    /// Our half for the session-initiate or for a transport-replace.
    pub fn offer(&mut self) -> S5bTransport {
        self.describe()
    }

    /// Our half for the session-accept or transport-accept, after [`Self::set_remote`]. What the peer offered itself is not
    /// in it (J260-04). Verdicts are held back until then.
    pub fn answer(&mut self) -> S5bTransport {
        self.describe()
    }

    fn describe(&mut self) -> S5bTransport {
        if !self.described {
            self.described = true;
            let theirs = &self.theirs;
            // J260-04: never a host and port that the initiator offered.
            self.ours.retain(|o| !theirs.iter().any(|t| same_place(&t.candidate, &o.candidate)));
            let mut taken: Vec<u32> = theirs.iter().map(|t| t.candidate.priority).collect();
            let mut seen = [0_u32; 4];
            for (index, ours) in self.ours.iter_mut().enumerate() {
                let nth = seen.get_mut(ours.candidate.kind as usize).map_or(0, |n| std::mem::replace(n, *n + 1));
                // J260-06: 65536 · type preference + local preference.
                let mut priority = (type_preference(ours.candidate.kind) << 16)
                    + PREFERENCE.saturating_sub(nth.saturating_mul(PREFERENCE_STEP));
                while taken.contains(&priority) {
                    priority -= 1;
                }
                taken.push(priority);
                ours.candidate.priority = priority;
                let cid = dst_addr(&self.config.sid, self.config.local.as_str(), &index.to_string());
                ours.candidate.cid = cid.chars().take(12).collect();
            }
        }
        let proxy = self.ours.iter().any(|o| o.candidate.kind == S5bKind::Proxy);
        S5bTransport {
            // J260-02: with a proxy, for peers that see us under another JID than we do (XEP-0065 §7).
            dstaddr: proxy.then(|| dst_addr(&self.config.sid, self.config.local.as_str(), self.config.peer.as_str())),
            candidates: self.ours.iter().map(|o| o.candidate.clone()).collect(),
            // J260-03: TCP, so `mode` is never there.
            ..self.info()
        }
    }

    /// The peer's half: of its offer, before [`Self::answer`], or of its answer. Dialling begins.
    ///
    /// # Errors
    /// [`S5bFault::WrongSid`], [`S5bFault::Udp`].
    pub fn set_remote(&mut self, now: Instant, remote: &S5bTransport) -> Result<(), S5bFault> {
        if remote.udp {
            return Err(S5bFault::Udp);
        }
        if remote.sid != self.config.sid {
            return Err(S5bFault::WrongSid);
        }
        if self.phase == Phase::Gathering {
            self.phase = Phase::Negotiating { since: now };
        }
        // XEP-0260 §2.2: as they say, so that a room between us does no harm. Not believed if it is no hash: it would be
        // the peer's bytes at a place of its choice.
        if let Some(theirs) = remote.dstaddr.as_ref().filter(|d| is_dst_addr(d)) {
            self.their_dst_addr = theirs.to_ascii_lowercase();
        }
        self.learn(remote);
        self.advance(now);
        Ok(())
    }

    /// The payload of a transport-info. Attributes round it, `senders` for one, have no meaning here.
    ///
    /// # Errors
    /// [`S5bFault`]; nothing has changed then.
    pub fn handle_info(&mut self, now: Instant, info: &S5bTransport) -> Result<(), S5bFault> {
        if info.sid != self.config.sid {
            return Err(S5bFault::WrongSid);
        }
        if let Some(cid) = &info.candidate_used {
            let at = self.ours.iter().position(|o| self.described && o.candidate.cid == *cid);
            self.judged(Verdict::Used(at.ok_or(S5bFault::UnknownCandidate)?))?;
        } else if info.candidate_error {
            self.judged(Verdict::Error)?;
        }
        // XEP-0260 §2.2: candidates may come one by one.
        self.learn(info);
        if info.activated.is_some() {
            self.activated()?;
        }
        // J260-12.
        if info.proxy_error && !self.is_over() {
            self.fail(false);
        }
        self.advance(now);
        Ok(())
    }

    /// A connection came to the listener at `local` and did its handshake.
    pub fn handle_accepted(&mut self, now: Instant, stream: StreamId, local: SocketAddr) {
        if self.is_over() || self.accepted.len() >= self.config.limits.accepted {
            self.events.push_back(S5bEvent::HangUp { stream });
            return;
        }
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        self.accepted.push((stream, local));
        if let Phase::AwaitingStream { ours, .. } = self.phase {
            self.take_accepted(ours);
        }
        self.advance(now);
    }

    /// A connection of [`S5bEvent::Dial`] is made and its handshake done.
    pub fn handle_dialled(&mut self, now: Instant, stream: StreamId) {
        if let Phase::DiallingProxy { ours, stream: awaited, .. } = self.phase
            && awaited == stream
        {
            self.activate(now, ours, stream);
            return;
        }
        let index = self.theirs.iter().position(|t| t.state.going() == Some(stream));
        match index.and_then(|index| Some((index, self.theirs.get_mut(index)?))) {
            Some((index, theirs)) => {
                theirs.state = Dialling::Open { stream };
                // J260-08: our own success is told at once, and the other attempts end.
                self.our_verdict = Verdict::Used(index);
                self.hang_up_dials(|_| true);
                let cid = self.theirs.get(index).map(|t| t.candidate.cid.clone());
                self.infos.push_back(S5bTransport { candidate_used: cid, ..self.info() });
            }
            None => self.events.push_back(S5bEvent::HangUp { stream }),
        }
        self.advance(now);
    }

    /// A connection could not be made, or is gone.
    pub fn handle_down(&mut self, now: Instant, stream: StreamId) {
        self.accepted.retain(|(accepted, _)| *accepted != stream);
        for theirs in &mut self.theirs {
            if theirs.state.stream() == Some(stream) {
                theirs.state = Dialling::Over;
            }
        }
        match self.phase {
            Phase::DiallingProxy { stream: awaited, .. }
            | Phase::Activating { stream: awaited, .. }
            | Phase::AwaitingActivation { stream: awaited, .. }
                if awaited == stream =>
            {
                // J260-12: whoever cannot reach the proxy says so.
                self.fail(true);
            }
            Phase::DiallingProxy { .. }
            | Phase::Activating { .. }
            | Phase::AwaitingActivation { .. }
            | Phase::AwaitingStream { .. }
            | Phase::Gathering
            | Phase::Negotiating { .. }
            | Phase::Established
            | Phase::Failed => {}
        }
        self.advance(now);
    }

    /// The proxy's answer to [`S5bEvent::Activate`].
    #[allow(clippy::result_unit_err)]
    pub fn handle_activated(&mut self, _now: Instant, result: Result<(), ()>) {
        let Phase::Activating { ours, stream, .. } = self.phase else { return };
        match (result, self.ours.get(ours)) {
            (Ok(()), Some(ours)) => {
                // J260-11: the peer learns that it may send.
                let (cid, kind) = (ours.candidate.cid.clone(), ours.candidate.kind);
                self.infos.push_back(S5bTransport { activated: Some(cid), ..self.info() });
                self.establish(stream, kind);
            }
            (Ok(()) | Err(()), _) => self.fail(true),
        }
    }

    /// True when [`S5bEvent::Established`] or [`S5bEvent::Failed`] is out.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Established | Phase::Failed)
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Gathering | Phase::Established | Phase::Failed => None,
            Phase::AwaitingStream { by, .. }
            | Phase::AwaitingActivation { by, .. }
            | Phase::DiallingProxy { by, .. }
            | Phase::Activating { by, .. } => Some(by),
            Phase::Negotiating { since } => {
                let dials = self.theirs.iter().filter_map(|t| t.state.by());
                let next = if self.our_verdict == Verdict::Pending { self.next_dial(since) } else { None };
                dials.chain(next).chain([since + self.config.limits.negotiation]).min()
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Negotiating { since } => {
                let late: Vec<StreamId> = self
                    .theirs
                    .iter()
                    .filter(|t| t.state.by().is_some_and(|by| by <= now))
                    .filter_map(|t| t.state.stream())
                    .collect();
                for theirs in self.theirs.iter_mut().filter(|t| t.state.by().is_some_and(|by| by <= now)) {
                    theirs.state = Dialling::Over;
                }
                self.events.extend(late.into_iter().map(|stream| S5bEvent::HangUp { stream }));
                if since + self.config.limits.negotiation <= now {
                    self.fail(false);
                }
            }
            Phase::AwaitingStream { by, .. } if by <= now => self.fail(false),
            // Conversations#2587: an `activated` that never comes is no reason to wait for ever.
            Phase::AwaitingActivation { by, .. } | Phase::DiallingProxy { by, .. } | Phase::Activating { by, .. }
                if by <= now =>
            {
                self.fail(true);
            }
            Phase::AwaitingStream { .. }
            | Phase::AwaitingActivation { .. }
            | Phase::DiallingProxy { .. }
            | Phase::Activating { .. }
            | Phase::Gathering
            | Phase::Established
            | Phase::Failed => {}
        }
        self.advance(now);
    }

    /// The payload of a transport-info to send.
    pub fn poll_transmit(&mut self) -> Option<S5bTransport> {
        if self.described { self.infos.pop_front() } else { None }
    }

    /// What is wanted, or has happened.
    pub fn poll_event(&mut self) -> Option<S5bEvent> {
        self.events.pop_front()
    }

    fn info(&self) -> S5bTransport {
        S5bTransport { sid: self.config.sid.clone(), ..S5bTransport::default() }
    }

    /// Adds candidates in the order in which they are dialled, with the caps of the threat list.
    fn learn(&mut self, remote: &S5bTransport) {
        self.silent &= remote.candidates.is_empty() && remote.malformed_candidates == 0;
        // Indices into `theirs` are in use once there is a verdict of ours.
        if self.our_verdict != Verdict::Pending || self.is_over() {
            return;
        }
        for candidate in &remote.candidates {
            let wanted = self.config.only.is_none_or(|only| only == candidate.kind);
            let dialable = candidate.port != 0 && is_dialable_host(&candidate.host, &self.config.policy);
            let known =
                self.theirs.iter().any(|t| t.candidate.cid == candidate.cid || same_place(&t.candidate, candidate));
            if wanted && dialable && !known && self.theirs.len() < wire::CANDIDATES {
                self.theirs.push(Theirs { candidate: candidate.clone(), state: Dialling::Waiting });
            }
        }
        // J260-07: by descending priority.
        self.theirs.sort_by_key(|t| std::cmp::Reverse(t.candidate.priority));
        let room = self.config.limits.dials.saturating_sub(self.dialled);
        let waiting = |t: &Theirs| t.state == Dialling::Waiting;
        let beyond: Vec<usize> = self.theirs.iter().enumerate().filter(|(_, t)| waiting(t)).map(|(n, _)| n).collect();
        let kept = beyond.get(..room.min(beyond.len())).unwrap_or_default();
        let is_proxy = |n: &usize| self.theirs.get(*n).is_some_and(|t| t.candidate.kind == S5bKind::Proxy);
        // A machine with many addresses would push out the one streamhost that is always reachable.
        let spared = beyond.iter().copied().find(is_proxy).filter(|n| !kept.contains(n) && room > 0);
        let stay: Vec<usize> = match spared {
            Some(proxy) => kept.iter().copied().take(room - 1).chain([proxy]).collect(),
            None => kept.to_vec(),
        };
        for (n, theirs) in self.theirs.iter_mut().enumerate() {
            if waiting(theirs) && !stay.contains(&n) {
                theirs.state = Dialling::Over;
            }
        }
    }

    fn judged(&mut self, verdict: Verdict) -> Result<(), S5bFault> {
        match self.their_verdict {
            Verdict::Pending => self.their_verdict = verdict,
            Verdict::Used(_) | Verdict::Error if self.their_verdict == verdict => {}
            Verdict::Used(_) | Verdict::Error => return Err(S5bFault::OutOfOrder),
        }
        Ok(())
    }

    /// XEP-0260 §2.4, the peer's notification. Its cid is not compared: in the XEP's own example it is a wrong one.
    fn activated(&mut self) -> Result<(), S5bFault> {
        match (self.phase, self.our_verdict) {
            (Phase::AwaitingActivation { stream, .. }, _) => {
                self.establish(stream, S5bKind::Proxy);
                Ok(())
            }
            // Whoever activates its proxy says that it is nominated, even if its verdict got lost.
            (Phase::Negotiating { .. }, Verdict::Used(index)) => match self.theirs.get(index) {
                Some(Theirs { candidate, state: Dialling::Open { stream } }) if candidate.kind == S5bKind::Proxy => {
                    let stream = *stream;
                    self.establish(stream, S5bKind::Proxy);
                    Ok(())
                }
                Some(_) | None => Err(S5bFault::OutOfOrder),
            },
            (Phase::Established, _) => Ok(()),
            (
                Phase::Gathering
                | Phase::Negotiating { .. }
                | Phase::AwaitingStream { .. }
                | Phase::DiallingProxy { .. }
                | Phase::Activating { .. }
                | Phase::Failed,
                _,
            ) => Err(S5bFault::OutOfOrder),
        }
    }

    /// Dials what is due and, when both verdicts are there, nominates.
    fn advance(&mut self, now: Instant) {
        let Phase::Negotiating { since } = self.phase else { return };
        if self.our_verdict == Verdict::Pending {
            if let Verdict::Used(index) = self.their_verdict {
                let floor = self.ours.get(index).map_or(0, |o| o.candidate.priority);
                // J260-09: only higher ones could still win.
                self.hang_up_dials(|t| t.candidate.priority <= floor);
            }
            while self.next_dial(since).is_some_and(|at| at <= now) && self.dial_next(now) {}
            if self.is_exhausted(now, since) {
                // J260-08: none left, or outranked.
                self.our_verdict = Verdict::Error;
                self.infos.push_back(S5bTransport { candidate_error: true, ..self.info() });
            }
        }
        self.nominate(now);
    }

    /// When the next waiting candidate is dialled; when a peer without candidates is given up if none waits.
    fn next_dial(&self, since: Instant) -> Option<Instant> {
        let limits = &self.config.limits;
        let Some(next) = self.theirs.iter().find(|t| t.state == Dialling::Waiting) else {
            return self.is_awaited().then_some(since + limits.late_candidates);
        };
        let busy = self.theirs.iter().any(|t| t.state.going().is_some());
        Some(match self.last_dial.filter(|_| busy) {
            None => since,
            // J260-07: 200 ms apart, proxies later.
            Some(last) if next.candidate.kind == S5bKind::Proxy => last + limits.proxies_later,
            Some(last) => last + limits.stagger,
        })
    }

    fn dial_next(&mut self, now: Instant) -> bool {
        let Some(index) = self.theirs.iter().position(|t| t.state == Dialling::Waiting) else { return false };
        let (stream, by) = (self.new_stream(), now + self.config.limits.connect);
        let Some(theirs) = self.theirs.get_mut(index) else { return false };
        theirs.state = Dialling::Going { stream, by };
        self.events.push_back(S5bEvent::Dial {
            stream,
            host: theirs.candidate.host.clone(),
            port: theirs.candidate.port,
            dst_addr: self.their_dst_addr.clone(),
            by,
            policy: self.config.policy.clone(),
        });
        self.dialled += 1;
        self.last_dial = Some(now);
        true
    }

    fn new_stream(&mut self) -> StreamId {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        stream
    }

    fn is_exhausted(&self, now: Instant, since: Instant) -> bool {
        let over = self.theirs.iter().all(|t| t.state == Dialling::Over);
        over && (!self.is_awaited() || since + self.config.limits.late_candidates <= now)
    }

    /// A peer without candidates and without a verdict may still send some.
    fn is_awaited(&self) -> bool {
        self.silent && self.their_verdict == Verdict::Pending
    }

    /// Ends the dialling of some of their candidates.
    fn hang_up_dials(&mut self, which: impl Fn(&Theirs) -> bool) {
        for at in 0..self.theirs.len() {
            let Some(theirs) = self.theirs.get_mut(at).filter(|t| which(t)) else { continue };
            match theirs.state {
                Dialling::Waiting => theirs.state = Dialling::Over,
                Dialling::Going { stream, .. } => {
                    theirs.state = Dialling::Over;
                    self.events.push_back(S5bEvent::HangUp { stream });
                }
                Dialling::Open { .. } | Dialling::Over => {}
            }
        }
    }

    /// The table of XEP-0260 §2.4 (J260-10).
    fn nominate(&mut self, now: Instant) {
        let priority = |of: Option<&S5bCandidate>| of.map_or(0, |c| c.priority);
        match (self.our_verdict, self.their_verdict) {
            (Verdict::Pending, _) | (_, Verdict::Pending) => {}
            (Verdict::Error, Verdict::Error) => self.fail(false),
            (Verdict::Used(theirs), Verdict::Error) => self.nominate_theirs(now, theirs),
            (Verdict::Error, Verdict::Used(ours)) => self.nominate_ours(now, ours),
            (Verdict::Used(theirs), Verdict::Used(ours)) => {
                let we = priority(self.theirs.get(theirs).map(|t| &t.candidate));
                let they = priority(self.ours.get(ours).map(|o| &o.candidate));
                // Equal: what the initiator has chosen wins (Conversations#3771).
                if we > they || we == they && self.config.initiator {
                    self.nominate_theirs(now, theirs);
                } else {
                    self.nominate_ours(now, ours);
                }
            }
        }
    }

    /// The connection that we made wins.
    fn nominate_theirs(&mut self, now: Instant, index: usize) {
        let Some((kind, state)) = self.theirs.get(index).map(|t| (t.candidate.kind, t.state)) else { return };
        match (state, kind) {
            (Dialling::Open { stream }, S5bKind::Proxy) => {
                self.phase = Phase::AwaitingActivation { stream, by: now + self.config.limits.activation };
            }
            (Dialling::Open { stream }, S5bKind::Direct | S5bKind::Assisted | S5bKind::Tunnel) => {
                self.establish(stream, kind);
            }
            // It broke since we told the peer of it.
            (Dialling::Waiting | Dialling::Going { .. } | Dialling::Over, _) => self.fail(kind == S5bKind::Proxy),
        }
    }

    /// The connection that the peer made wins.
    fn nominate_ours(&mut self, now: Instant, index: usize) {
        let Some(candidate) = self.ours.get(index).map(|o| o.candidate.clone()) else { return };
        match candidate.kind {
            // J260-11: the one who offered the proxy connects to it as well, then activates.
            S5bKind::Proxy => {
                let (stream, by) = (self.new_stream(), now + self.config.limits.connect);
                self.phase = Phase::DiallingProxy { ours: index, stream, by };
                let [dst_addr, _] = self.dst_addrs();
                let policy = DialPolicy { private: true, ..self.config.policy.clone() };
                let (host, port) = (candidate.host, candidate.port);
                self.events.push_back(S5bEvent::Dial { stream, host, port, dst_addr, by, policy });
            }
            S5bKind::Direct | S5bKind::Assisted | S5bKind::Tunnel => {
                self.phase = Phase::AwaitingStream { ours: index, by: now + self.config.limits.connect };
                self.take_accepted(index);
            }
        }
    }

    /// Establishes on the connection that came to this candidate, or else on the last one that came.
    fn take_accepted(&mut self, index: usize) {
        let Some(ours) = self.ours.get(index) else { return };
        let came = |(_, local): &&(StreamId, SocketAddr)| Some(*local) == ours.listener;
        let found = self.accepted.iter().rev().find(came).or(self.accepted.last());
        if let Some((stream, _)) = found.copied() {
            self.establish(stream, ours.candidate.kind);
        }
    }

    fn activate(&mut self, now: Instant, index: usize, stream: StreamId) {
        let Some(ours) = self.ours.get(index) else { return };
        self.phase = Phase::Activating { ours: index, stream, by: now + self.config.limits.activation };
        self.events.push_back(S5bEvent::Activate {
            proxy: ours.candidate.jid.clone(),
            sid: self.config.sid.clone(),
            target: self.config.peer.clone(),
        });
    }

    fn establish(&mut self, stream: StreamId, kind: S5bKind) {
        self.hang_up_all_but(Some(stream));
        self.phase = Phase::Established;
        self.events.push_back(S5bEvent::Established { stream, kind });
    }

    /// Gives up; `proxy` says that the peer must hear of it (J260-12).
    fn fail(&mut self, proxy: bool) {
        if proxy {
            self.infos.push_back(S5bTransport { proxy_error: true, ..self.info() });
        }
        self.hang_up_all_but(None);
        self.phase = Phase::Failed;
        self.events.push_back(S5bEvent::Failed);
    }

    fn hang_up_all_but(&mut self, keep: Option<StreamId>) {
        let dialled = self.theirs.iter().filter_map(|t| t.state.stream());
        let accepted = self.accepted.iter().map(|(stream, _)| *stream);
        let proxy = match self.phase {
            Phase::DiallingProxy { stream, .. } | Phase::Activating { stream, .. } => Some(stream),
            Phase::AwaitingActivation { .. }
            | Phase::AwaitingStream { .. }
            | Phase::Gathering
            | Phase::Negotiating { .. }
            | Phase::Established
            | Phase::Failed => None,
        };
        let all = dialled.chain(accepted).chain(proxy).filter(|stream| Some(*stream) != keep);
        self.events.extend(all.map(|stream| S5bEvent::HangUp { stream }));
        self.accepted.clear();
        for theirs in &mut self.theirs {
            theirs.state = Dialling::Over;
        }
    }
}

impl Dialling {
    fn going(self) -> Option<StreamId> {
        match self {
            Dialling::Going { stream, .. } => Some(stream),
            Dialling::Waiting | Dialling::Open { .. } | Dialling::Over => None,
        }
    }

    fn stream(self) -> Option<StreamId> {
        match self {
            Dialling::Going { stream, .. } | Dialling::Open { stream } => Some(stream),
            Dialling::Waiting | Dialling::Over => None,
        }
    }

    fn by(self) -> Option<Instant> {
        match self {
            Dialling::Going { by, .. } => Some(by),
            Dialling::Waiting | Dialling::Open { .. } | Dialling::Over => None,
        }
    }
}

/// XEP-0260 §2.2 (J260-06).
const fn type_preference(kind: S5bKind) -> u32 {
    match kind {
        S5bKind::Direct => 126,
        S5bKind::Assisted => 120,
        S5bKind::Tunnel => 110,
        S5bKind::Proxy => 10,
    }
}

fn same_place(a: &S5bCandidate, b: &S5bCandidate) -> bool {
    let ip = |host: &str| host.parse::<std::net::IpAddr>().ok().map(|ip| ip.to_canonical());
    let same_host = match (ip(&a.host), ip(&b.host)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a.host.eq_ignore_ascii_case(&b.host),
        (Some(_), None) | (None, Some(_)) => false,
    };
    same_host && a.port == b.port
}

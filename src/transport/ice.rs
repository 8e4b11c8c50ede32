//! The ICE agent of a leg: str0m's, fed with our candidates, our randomness and our gate.
//! Read RFC 8445 §5 to §8, RFC 8838 and RFC 7675 before touching this file.

use crate::transport::gather::GatherEvent;
use crate::transport::path::{Consent, Path, ProvenPaths, Transmit};
use crate::wire::candidate::{Candidate, CandidateAddr, CandidateKind, CandidateProtocol, IceCreds};
use crate::wire::xml::Text;
use aws_lc_rs::hmac;
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use str0m::IceConnectionState;
use str0m::ice::{IceAgent, IceAgentEvent, StunMessage, StunPacket};
use str0m::net::Protocol;

/// Candidate pairs that are checked at most, RFC 8445 §6.1.2.5.
const MAX_PAIRS: usize = 100;

/// Sources that are not signalled candidates: a peer can name itself as many as it can spoof, and each is checked up
/// to nine times (threat: candidate injection).
const MAX_PEER_REFLEXIVE: usize = 16;

/// Checks that the agent keeps until the peer's credentials are known: its own bound.
const MAX_EARLY_CHECKS: usize = 100;

/// Largest legal priority, RFC 8445 §5.1.2: pair priorities overflow past it.
const MAX_PRIORITY: u32 = 0x7fff_ffff;

#[derive(Debug)]
struct AwsSha1Hmac;

impl str0m::crypto::Sha1HmacProvider for AwsSha1Hmac {
    fn sha1_hmac(&self, key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
        for payload in payloads {
            context.update(payload);
        }
        let mut out = [0; 20];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

static SHA1_HMAC: AwsSha1Hmac = AwsSha1Hmac;

/// Knobs of the agent.
#[derive(Debug, Clone, Copy)]
pub struct IceTimers {
    /// `Ta`
    pub pace: Duration,
    /// First retransmission of a check.
    pub check_rto: Duration,
    /// Slowest repetition of a check.
    pub check_max: Duration,
    /// Checks without an answer before a pair is given up.
    pub checks: usize,
}

/// What the agent tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceEvent {
    /// Payload goes here from now on.
    Nominated(Path),
    /// No pair works at the moment.
    Disconnected,
    /// A pair works again.
    Reconnected,
}

/// ICE for one component (RTP and RTCP share it, RFC 5761).
pub struct Ice {
    agent: IceAgent,
    proven: ProvenPaths,
    /// The peer's candidates, as signalled.
    signalled: Vec<(SocketAddr, CandidateKind)>,
    /// Addresses that authenticated checks came from and that were not signalled.
    reflexive: Vec<SocketAddr>,
    path: Option<Path>,
    /// The first path that answered a check of ours, RFC 8445 §7.2.5.3.2: usable before any is nominated.
    valid: Option<Path>,
    consent: Option<Consent>,
    /// When the agent was last run, so that it can be run earlier than it asks for and still keep its pace.
    last: Option<Instant>,
    /// When it is to be run although it does not ask for it.
    hurry: Option<Instant>,
    pace: Duration,
    generation: u32,
    /// Hides the inputs of our foundations, RFC 8445 §5.1.1.3.
    salt: u64,
}

impl std::fmt::Debug for Ice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ice").field("state", &self.agent.state()).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Ice {
    /// An agent with fresh credentials out of `rng`.
    #[must_use]
    pub fn new(controlling: bool, timers: IceTimers, rng: &mut ChaCha20Rng) -> Self {
        let mut agent = IceAgent::with_hmac(agent_creds(&new_creds(rng)), &SHA1_HMAC);
        agent.set_controlling(controlling);
        agent.set_control_tie_breaker(rng.next_u64());
        agent.set_max_candidate_pairs(MAX_PAIRS);
        agent.set_timing_advance(timers.pace);
        agent.set_initial_stun_rto(timers.check_rto);
        agent.set_max_stun_rto(timers.check_max);
        agent.set_max_stun_retransmits(timers.checks);
        Self {
            agent,
            proven: ProvenPaths::default(),
            signalled: Vec::new(),
            reflexive: Vec::new(),
            path: None,
            valid: None,
            consent: None,
            last: None,
            hurry: None,
            pace: timers.pace,
            generation: 0,
            salt: rng.next_u64(),
        }
    }

    /// Our credentials.
    #[must_use]
    pub fn local_creds(&self) -> IceCreds {
        wire_creds(self.agent.local_credentials())
    }

    /// The peer's credentials, once known.
    #[must_use]
    pub fn remote_creds(&self) -> Option<IceCreds> {
        self.agent.remote_credentials().map(wire_creds)
    }

    /// The peer's credentials: checks can begin.
    pub fn set_remote_creds(&mut self, now: Instant, creds: &IceCreds) {
        self.agent.set_remote_credentials(agent_creds(creds));
        self.handle_timeout(now);
    }

    /// RFC 8445 §9: new credentials, no remote candidates; the old path stays in use until another is nominated.
    pub fn restart(&mut self, now: Instant, rng: &mut ChaCha20Rng) -> IceCreds {
        let creds = new_creds(rng);
        self.agent.ice_restart(agent_creds(&creds), true);
        self.signalled.clear();
        self.reflexive.clear();
        self.proven.reset(self.path);
        self.generation += 1;
        self.agent.handle_timeout(now);
        creds
    }

    /// Adds what the gatherer found. Gives the candidate to signal; `None`: redundant, or not a candidate.
    pub fn add_local(&mut self, event: &GatherEvent, relay_only: bool, rng: &mut ChaCha20Rng) -> Option<Candidate> {
        // `hidden` is what the foundation depends on: type, base and server.
        let (kind, addr, base, related) = match event {
            GatherEvent::Host { addr } => (CandidateKind::Host, *addr, *addr, None),
            GatherEvent::ServerReflexive { addr, base } => (CandidateKind::Srflx, *addr, *base, Some(*base)),
            GatherEvent::Relayed { addr, base, mapped } => (CandidateKind::Relay, *addr, *base, *mapped),
            GatherEvent::Complete | GatherEvent::ServerFailed { .. } | GatherEvent::RelayLost { .. } => return None,
        };
        let candidate = self.agent.add_local_candidate(agent_local(kind, addr, base)?)?;
        let priority = candidate.prio();
        let hidden = if relay_only { addr.ip() } else { base.ip() };
        Some(Candidate {
            component: 1,
            foundation: self.foundation(kind, hidden).into(),
            generation: self.generation,
            id: Some(token(rng, 10)),
            addr: CandidateAddr::Ip(addr.ip()),
            port: addr.port(),
            priority,
            protocol: CandidateProtocol::Udp,
            tcptype: None,
            kind,
            related: related.filter(|_| !relay_only).map(|related| (related.ip(), related.port())),
            network: Some(0),
        })
    }

    /// Drops a relayed candidate whose relay is gone.
    pub fn remove_relay(&mut self, addr: SocketAddr) {
        let gone: Vec<_> = self
            .agent
            .local_candidates()
            .filter(|c| c.addr() == addr && c.kind() == str0m::CandidateKind::Relayed)
            .collect();
        for candidate in gone {
            self.agent.invalidate_candidate(&candidate);
        }
    }

    /// Adds a candidate of the peer that policy let through.
    pub fn add_remote(&mut self, now: Instant, candidate: &Candidate, addr: SocketAddr) {
        let kind = match candidate.kind {
            CandidateKind::Host => str0m::CandidateKind::Host,
            CandidateKind::Prflx => str0m::CandidateKind::PeerReflexive,
            CandidateKind::Srflx => str0m::CandidateKind::ServerReflexive,
            CandidateKind::Relay => str0m::CandidateKind::Relayed,
        };
        self.signalled.push((addr, candidate.kind));
        self.agent.add_remote_candidate(str0m::Candidate::from_parts(
            candidate.foundation.to_string(),
            1,
            Protocol::Udp,
            candidate.priority.clamp(1, MAX_PRIORITY),
            addr,
            kind,
            None,
            None,
            None,
        ));
        self.handle_timeout(now);
    }

    /// Candidates of the peer so far, those that came from signalling.
    #[must_use]
    pub fn remote_count(&self) -> usize {
        self.signalled.len()
    }

    /// True if this candidate was signalled before.
    #[must_use]
    pub fn is_signalled(&self, addr: SocketAddr, kind: CandidateKind) -> bool {
        self.signalled.contains(&(addr, kind))
    }

    /// A STUN message. True if it was authentic.
    pub fn handle_stun(&mut self, now: Instant, path: Path, bytes: &[u8]) -> bool {
        let Ok(message) = StunMessage::parse(bytes) else { return false };
        let known =
            self.signalled.iter().any(|(addr, _)| *addr == path.remote) || self.reflexive.contains(&path.remote);
        if !known && self.reflexive.len() >= MAX_PEER_REFLEXIVE {
            return false;
        }
        let packet = StunPacket { proto: Protocol::Udp, source: path.remote, destination: path.local, message };
        if !self.agent.handle_packet(now, packet) {
            return false;
        }
        if !known {
            self.reflexive.push(path.remote);
        }
        self.proven.insert(path, self.path);
        if self.valid.is_none() && self.agent.has_viable_remote_candidate(path.remote) {
            self.valid = Some(path);
        }
        self.observe_consent(now);
        if self.path.is_none() {
            // The agent looks at what a nomination means only when it is run, and asks for that at its next check: up to
            // half a second after the peer's first.
            self.hurry = Some(self.last.map_or(now, |last| now.max(last + self.pace)));
        }
        true
    }

    /// True if the peer has proved itself on this path (see `ProvenPaths`).
    #[must_use]
    pub fn is_proven(&self, path: Path) -> bool {
        self.proven.contains(path)
    }

    /// True if an authentic message of the peer has come, on whatever path.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        !self.proven.is_empty()
    }

    /// Where payload goes.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        self.path
    }

    /// Where a handshake may go: the nominated path, or before there is one the first that works (RFC 8445 §12.1).
    #[must_use]
    pub fn valid_path(&self) -> Option<Path> {
        self.path.or(self.valid)
    }

    /// When sending must stop, RFC 7675 §5.1; `None` before the first nomination.
    #[must_use]
    pub fn consent_expires(&self) -> Option<Instant> {
        self.consent.as_ref().map(Consent::expires)
    }

    /// Round trip of the newest check on the nominated pair.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.agent.nominated_pair_rtt()
    }

    /// True while no pair can work any more with the candidates known.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.agent.state() == IceConnectionState::Disconnected
    }

    /// Kinds of both ends of a path.
    #[must_use]
    pub fn kinds(&self, path: Path) -> (CandidateKind, CandidateKind) {
        let relayed =
            self.agent.local_candidates().any(|c| c.addr() == path.local && c.kind() == str0m::CandidateKind::Relayed);
        let local = if relayed { CandidateKind::Relay } else { CandidateKind::Host };
        let remote = self
            .agent
            .remote_candidates()
            .filter(|c| c.addr() == path.remote)
            .max_by_key(str0m::Candidate::prio)
            .map_or(CandidateKind::Prflx, |c| match c.kind() {
                str0m::CandidateKind::Host => CandidateKind::Host,
                str0m::CandidateKind::PeerReflexive => CandidateKind::Prflx,
                str0m::CandidateKind::ServerReflexive => CandidateKind::Srflx,
                str0m::CandidateKind::Relayed => CandidateKind::Relay,
            });
        (local, remote)
    }

    /// Time has come to `now`. Each call of the agent may send one check: never more often than `Ta` (RFC 8445 §14.2).
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.hurry.is_some_and(|due| now >= due) || self.agent.poll_timeout().is_none_or(|due| now >= due) {
            (self.hurry, self.last) = (None, Some(now));
            // Checks that came before the peer's credentials are answered one a turn, and the agent's clock stands still
            // meanwhile: all of them now, so that a timer that has fired moves.
            for _turn in 0..MAX_EARLY_CHECKS {
                self.agent.handle_timeout(now);
                if self.agent.poll_timeout().is_none_or(|due| due > now) {
                    break;
                }
            }
        }
    }

    /// When `handle_timeout` is wanted.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let due = self.agent.poll_timeout()?;
        Some(self.hurry.map_or(due, |hurry| hurry.min(due)))
    }

    /// The next STUN message; `local` may be a relayed address.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.agent.poll_transmit()?;
        Some(Transmit { local: transmit.source, destination: transmit.destination, contents: transmit.contents.into() })
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self, now: Instant) -> Option<IceEvent> {
        loop {
            match self.agent.poll_event()? {
                IceAgentEvent::NominatedSend { source, destination, .. } => {
                    let path = Path { local: source, remote: destination };
                    self.path = Some(path);
                    // A path is nominated only after an answer on it: that is consent.
                    self.consent = Some(Consent::new(now, self.answers()));
                    return Some(IceEvent::Nominated(path));
                }
                IceAgentEvent::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                    return Some(IceEvent::Disconnected);
                }
                IceAgentEvent::IceConnectionStateChange(
                    IceConnectionState::Connected | IceConnectionState::Completed,
                ) => return Some(IceEvent::Reconnected),
                IceAgentEvent::IceConnectionStateChange(IceConnectionState::New | IceConnectionState::Checking)
                | IceAgentEvent::IceRestart(_)
                | IceAgentEvent::DiscoveredRecv { .. } => {}
            }
        }
    }

    fn observe_consent(&mut self, now: Instant) {
        let answers = self.agent.nominated_pair_responses_received();
        if let (Some(consent), Some(answers)) = (self.consent.as_mut(), answers) {
            consent.observe(now, answers);
        }
    }

    fn answers(&self) -> u64 {
        self.agent.nominated_pair_responses_received().unwrap_or(0)
    }

    /// Equal for candidates of one kind from one base (RFC 8445 §5.1.1.3), and telling nothing about it: FNV-1a over a
    /// secret salt.
    fn foundation(&self, kind: CandidateKind, base: IpAddr) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ self.salt;
        let mut eat = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        eat(kind.as_str().as_bytes());
        match base {
            IpAddr::V4(ip) => eat(&ip.octets()),
            IpAddr::V6(ip) => eat(&ip.octets()),
        }
        format!("{}", (hash >> 32) as u32)
    }
}

fn agent_local(kind: CandidateKind, addr: SocketAddr, base: SocketAddr) -> Option<str0m::Candidate> {
    let candidate = match kind {
        CandidateKind::Host => str0m::Candidate::host(addr, "udp"),
        CandidateKind::Srflx => str0m::Candidate::server_reflexive(addr, base, "udp"),
        CandidateKind::Relay => str0m::Candidate::relayed(addr, base, "udp"),
        CandidateKind::Prflx => return None,
    };
    candidate.ok().or_else(|| {
        // The agent refuses 169.254/16, which is all that a link-local call (XEP-0174) may have.
        (kind == CandidateKind::Host).then(|| {
            let priority = (126 << 24) | (65_000 << 8) | 255;
            let host = str0m::CandidateKind::Host;
            str0m::Candidate::from_parts("l".to_owned(), 1, Protocol::Udp, priority, addr, host, None, None, None)
        })
    })
}

fn agent_creds(creds: &IceCreds) -> str0m::IceCreds {
    str0m::IceCreds { ufrag: creds.ufrag.to_string(), pass: creds.pwd.to_string() }
}

fn wire_creds(creds: &str0m::IceCreds) -> IceCreds {
    IceCreds { ufrag: creds.ufrag.as_str().into(), pwd: creds.pass.as_str().into() }
}

/// RFC 8445 §5.3: at least 24 bits of ufrag and 128 bits of password; 47 and 142 here.
fn new_creds(rng: &mut ChaCha20Rng) -> IceCreds {
    IceCreds { ufrag: token(rng, 8), pwd: token(rng, 24) }
}

/// Random ice-chars without `+` and `/`, evenly distributed.
fn token(rng: &mut ChaCha20Rng, length: usize) -> Text {
    const CHARS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut out = Text::with_capacity(length);
    while out.len() < length {
        let index = (rng.next_u32() >> 26) as usize;
        if let Some(char) = CHARS.get(index) {
            out.push(char::from(*char));
        }
    }
    out
}

//! What signalling tells a leg: credentials, fingerprints with their roles, candidates, a restart.
//! Read RFC 5763 §5, RFC 8445 §9, RFC 8838 and XEP-0320 §3 before touching this file.

use super::{Leg, Phase, Way};
use crate::transport::dtls::{Dtls, DtlsRole};
use crate::transport::leg_config::{CandidateFault, Carrier, LegEvent, Protection};
use crate::transport::path::check_remote;
use crate::transport::protection::Security;
use crate::wire::candidate::{Candidate, CandidateAddr, CandidateProtocol, Fingerprint, IceCreds, Setup};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Patience for a hello when the answer did not settle the DTLS roles; then we become the client.
const UNSETTLED_ROLE: Duration = Duration::from_millis(500);

/// The peer's new credentials within this time of ours are its answer: signalling takes seconds at worst.
const RESTART_ANSWER: Duration = Duration::from_secs(10);

impl Leg {
    /// Before the session is accepted: checks and handshakes go on, but no payload and no report, either way, and no
    /// deadline to connect (threat: media before consent). Until [`Leg::release`].
    pub fn hold(&mut self) {
        self.held = true;
        self.due = None;
    }

    /// The session is accepted: payload may flow, and from `now` the path has its time to connect.
    pub fn release(&mut self, now: Instant) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        if matches!(self.phase, Phase::Connecting { .. }) {
            self.phase = Phase::Connecting { since: now };
        }
        self.drive(now);
    }

    /// True once path and keys are there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// True once anything authentic of the peer has come over the network: a path exists in one direction at least.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        match &self.way {
            Way::Ice { ice, .. } => ice.is_heard(),
            Way::Plain { .. } => self.is_connected(),
        }
    }

    /// What the peer signalled; may be called again as more becomes known. Settles the DTLS role from the `setup` of
    /// the fingerprints (missing reads as actpass).
    pub fn set_remote(&mut self, now: Instant, creds: Option<IceCreds>, fingerprints: &[Fingerprint]) {
        if self.phase == Phase::Idle {
            self.phase = Phase::Connecting { since: now };
        }
        if let (Some(creds), Way::Ice { ice, .. }) = (creds, &mut self.way) {
            match ice.remote_creds() {
                Some(known) if known == creds => {}
                // New credentials soon after ours changed are the answer to those: answering them again would go on for ever.
                Some(_) if self.restarted.take().is_some_and(|at| now < at + RESTART_ANSWER) => {
                    ice.set_remote_creds(now, &creds);
                }
                // RFC 8445 §9: new credentials on one side restart both.
                Some(_) => {
                    let ours = ice.restart(now, &mut self.seed.generator());
                    ice.set_remote_creds(now, &creds);
                    self.no_more_remote = false;
                    self.restarted = Some(now);
                    self.events.push_back(LegEvent::Restarted(ours));
                }
                None => ice.set_remote_creds(now, &creds),
            }
        }
        if !fingerprints.is_empty() {
            // XEP-0320 §3: a certificate does not change within a session.
            if self.fingerprints.is_empty() {
                self.fingerprints = fingerprints.to_vec();
            }
            self.settle_role(now);
        }
        self.drive(now);
    }

    /// A candidate of the peer. TCP ones and those of component 2 are accepted and left unused.
    ///
    /// # Errors
    /// It is not taken; the call goes on.
    pub fn add_remote_candidate(&mut self, now: Instant, candidate: &Candidate) -> Result<(), CandidateFault> {
        if candidate.component != 1 || candidate.protocol != CandidateProtocol::Udp {
            return Ok(());
        }
        let limit = self.config.max_remote_candidates;
        let lab = self.is_lab();
        let link_local = self.sockets.iter().any(|s| matches!(s.ip(), IpAddr::V4(ip) if ip.is_link_local()));
        let Way::Ice { ice, .. } = &mut self.way else { return Err(CandidateFault::NoIce) };
        let full = ice.remote_count() + self.unresolved.len() >= limit;
        match &candidate.addr {
            CandidateAddr::Ip(ip) => {
                let addr = SocketAddr::new(*ip, candidate.port);
                if ice.is_signalled(addr, candidate.kind) {
                    return Ok(());
                }
                if full {
                    return Err(CandidateFault::TooMany(limit));
                }
                check_remote(addr, lab, link_local)?;
                if let Carrier::Ice { servers, .. } = &self.config.carrier
                    && servers.iter().any(|server| server.addr == addr)
                {
                    return Err(CandidateFault::OurServer);
                }
                ice.add_remote(now, candidate, addr);
            }
            CandidateAddr::Mdns(name) => {
                if full {
                    return Err(CandidateFault::TooMany(limit));
                }
                if !self.unresolved.iter().any(|(known, _)| known == name) {
                    self.events.push_back(LegEvent::Resolve(name.clone()));
                }
                self.unresolved.push((name.clone(), candidate.clone()));
            }
        }
        self.drive(now);
        Ok(())
    }

    /// The peer has no more candidates, so that a dead set is known early (RFC 8838 §14).
    pub fn end_of_remote_candidates(&mut self, now: Instant) {
        self.no_more_remote = true;
        self.drive(now);
    }

    /// Answer to `LegEvent::Resolve`; no address means that the name does not resolve.
    pub fn resolved(&mut self, now: Instant, name: &str, addrs: &[IpAddr]) {
        let (found, rest) = std::mem::take(&mut self.unresolved).into_iter().partition(|(known, _)| known == name);
        self.unresolved = rest;
        let found: Vec<(String, Candidate)> = found;
        for (_, candidate) in found {
            // A name may have one address of each family; the limit of candidates holds here too.
            for addr in addrs.iter().take(2) {
                let literal = Candidate { addr: CandidateAddr::Ip(*addr), ..candidate.clone() };
                if let Err(fault) = self.add_remote_candidate(now, &literal) {
                    tracing::debug!(%fault, "resolved candidate refused");
                }
            }
        }
    }

    /// New ICE credentials for a restart; payload keeps flowing on the old path meanwhile (RFC 8445 §9). Signal them
    /// with all local candidates, then call `set_remote` with the peer's new ones.
    pub fn ice_restart(&mut self, now: Instant) -> IceCreds {
        self.no_more_remote = false;
        self.due = None;
        self.restarted = Some(now);
        match &mut self.way {
            Way::Ice { ice, .. } => ice.restart(now, &mut self.seed.generator()),
            Way::Plain(_) => self.local_credentials(),
        }
    }

    /// The DTLS role follows from both `setup` values, RFC 5763 §5 and RFC 4145 §4.1.
    pub(super) fn settle_role(&mut self, now: Instant) {
        if !matches!(self.security, Security::Unsettled) {
            return;
        }
        let theirs = self.fingerprints.iter().find_map(|f| f.setup).unwrap_or(Setup::Actpass);
        match theirs {
            Setup::Active => self.become_role(now, DtlsRole::Server),
            Setup::Passive => self.become_role(now, DtlsRole::Client),
            Setup::Actpass | Setup::Holdconn if !self.config.initiator => {
                let role = if self.config.answer_active { DtlsRole::Client } else { DtlsRole::Server };
                self.become_role(now, role);
            }
            // An answer must not be actpass; where it is, the first hello settles it, or we send one.
            Setup::Actpass | Setup::Holdconn => {
                if self.path().is_some() {
                    self.role_due = Some(now + UNSETTLED_ROLE);
                }
            }
        }
    }

    pub(super) fn become_role(&mut self, now: Instant, role: DtlsRole) {
        let Protection::Dtls(identity) = &self.config.protection else { return };
        if matches!(self.security, Security::Unsettled) {
            self.role_due = None;
            self.security =
                Security::Handshake(Box::new(Dtls::new(identity, role, self.dtls_interval(), self.carries_rtp())));
            self.drive(now);
        }
    }

    fn dtls_interval(&self) -> Duration {
        let rtt = match &self.way {
            Way::Ice { ice, .. } => ice.rtt().unwrap_or_default(),
            Way::Plain(_) => Duration::ZERO,
        };
        self.config.timers.dtls_interval.max(rtt * 2)
    }

    pub(super) fn is_lab(&self) -> bool {
        match &self.config.carrier {
            Carrier::Ice { lab, .. } => *lab,
            Carrier::Plain { lab } => *lab,
        }
    }
}

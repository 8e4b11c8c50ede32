//! A leg without ICE: the addresses and keys that signalling tells, and who is believed.
//! Read RFC 3550 §11, RFC 4568 §6, RFC 5761 §5 and `transport/plain.rs` before touching this file.

use super::{Leg, Phase, Way};
use crate::transport::leg_config::{CandidateFault, Carrier, LegEvent, LegFault, Protection, Received, SdesKeys};
use crate::transport::path::{Path, check_remote};
use crate::transport::plain::{PlainPath, Verdict};
use crate::transport::protection::Security;
use crate::wire::candidate::CandidateKind;
use std::net::SocketAddr;
use std::time::Instant;

/// Of our end, and of the peer's: `Prflx` where it is not the address that was signalled.
pub(super) fn plain_kinds(plain: &PlainPath, path: Path) -> (CandidateKind, CandidateKind) {
    let signalled = plain.rtp.signalled().is_none_or(|addr| addr == path.remote);
    (CandidateKind::Host, if signalled { CandidateKind::Host } else { CandidateKind::Prflx })
}

impl Leg {
    /// Where signalling says that the peer receives: RTP, and RTCP, which is one port above unless it says otherwise
    /// (`a=rtcp`, RFC 3605). Another address than before opens learning anew.
    ///
    /// # Errors
    /// The address may not be sent to, or the leg uses ICE.
    pub fn set_plain_remote(
        &mut self,
        now: Instant,
        rtp: SocketAddr,
        rtcp: Option<SocketAddr>,
    ) -> Result<(), CandidateFault> {
        let lab = self.is_lab();
        check_remote(rtp, lab, false)?;
        let above = rtp.port().checked_add(1).map(|port| SocketAddr::new(rtp.ip(), port));
        let rtcp = rtcp.filter(|addr| check_remote(*addr, lab, false).is_ok()).or(above);
        let Way::Plain(plain) = &mut self.way else { return Err(CandidateFault::NotPlain) };
        let moved = plain.rtp.set_signalled(rtp);
        if let Some(rtcp) = rtcp {
            plain.rtcp.set_signalled(rtcp);
        }
        if self.phase == Phase::Idle {
            self.phase = Phase::Connecting { since: now };
        }
        let connected = self.phase == Phase::Connected;
        self.drive(now);
        if moved && connected {
            self.report_moved();
        }
        Ok(())
    }

    /// RTCP goes over RTP's port, as both sides agreed (RFC 5761 §5.1.1). With ICE that is always so.
    pub fn set_rtcp_mux(&mut self, on: bool) {
        if let Way::Plain(plain) = &mut self.way {
            plain.mux = on;
        }
    }

    /// The keys that offer and answer agreed on, RFC 4568 §5.1; again with each new offer and answer. A key that did not
    /// change is not begun anew.
    pub fn set_sdes(&mut self, now: Instant, keys: SdesKeys) {
        let Protection::Sdes(known) = &mut self.config.protection else { return };
        if known.as_deref() == Some(&keys) && !matches!(self.security, Security::Unsettled) {
            return;
        }
        if self.phase == Phase::Ended {
            return;
        }
        if !self.security.rekey(known.as_deref(), &keys) {
            return self.fail(now, LegFault::Keys);
        }
        *known = Some(Box::new(keys));
        self.drive(now);
    }

    /// The peer's answer knows no ICE: the leg goes on without it, from this one of its sockets.
    pub fn give_up_ice(&mut self, now: Instant, local: SocketAddr) {
        let Way::Ice { gatherer, .. } = &mut self.way else { return };
        gatherer.close(now);
        while gatherer.poll_transmit().is_some() {}
        let lab = self.is_lab();
        self.config.carrier = Carrier::Plain { lab };
        self.way = Way::Plain(Box::default());
        self.sockets.retain(|socket| *socket == local);
        self.phase = Phase::Idle;
        self.drive(now);
    }

    /// True where what comes from the path in use is the peer's: ICE has proved it, or learning is over.
    pub(super) fn is_proven(&self) -> bool {
        match &self.way {
            Way::Ice { .. } => true,
            Way::Plain(plain) => plain.rtp.settled().is_some(),
        }
    }

    /// Where reports go.
    pub(super) fn rtcp_path(&self) -> Option<Path> {
        match &self.way {
            Way::Ice { .. } => self.path(),
            Way::Plain(plain) => {
                let own = if plain.mux { None } else { self.sockets.get(1) };
                Some(Path { local: *own.or_else(|| self.sockets.first())?, remote: plain.rtcp_target()? })
            }
        }
    }

    /// RFC 7983 §7, without STUN.
    pub(super) fn handle_plain<'b>(&mut self, now: Instant, path: Path, bytes: &'b mut [u8]) -> Option<Received<'b>> {
        let first = bytes.first().copied();
        let kind = bytes.get(1).copied();
        match first {
            _ if self.phase == Phase::Ended => self.dropped += 1,
            // A hello of a stranger would win the race for the association (CVE-2023-49786 class).
            Some(20..=63) if self.is_known(path) => self.handle_dtls(now, path, bytes),
            Some(128..=191) if self.held => self.dropped += 1,
            Some(128..=191) if matches!(kind, Some(192..=223)) => self.handle_plain_rtcp(now, path, bytes),
            Some(128..=191) if self.sockets.first() == Some(&path.local) => {
                return self.handle_plain_rtp(now, path, bytes);
            }
            Some(_) | None => self.dropped += 1,
        }
        None
    }

    fn handle_plain_rtp<'b>(&mut self, now: Instant, path: Path, bytes: &'b mut [u8]) -> Option<Received<'b>> {
        let Way::Plain(plain) = &self.way else { return None };
        let known = bytes.get(1).is_some_and(|pt| self.clocks.iter().any(|(id, _)| *id == pt & 0x7f));
        // What no codec asked for decides nothing.
        if !plain.rtp.may_be(path.remote) || (plain.rtp.settled().is_none() && !self.clocks.is_empty() && !known) {
            self.dropped += 1;
            return None;
        }
        let authentic = self.has_keys();
        // The tag comes before everything else (threat: RTP Bleed): a forged packet teaches nothing.
        let Some((header, payload)) = self.security.unprotect_rtp(bytes) else {
            self.dropped += 1;
            return None;
        };
        let Way::Plain(plain) = &mut self.way else { return None };
        let before = plain.rtp.target();
        let verdict = plain.rtp.hear(path.remote, authentic);
        if plain.rtp.target() != before || matches!(verdict, Verdict::Settle(_)) {
            self.drive(now);
        }
        if before != self.path().map(|path| path.remote) && self.phase == Phase::Connected {
            self.report_moved();
        }
        match verdict {
            Verdict::Take | Verdict::Settle(_) => {
                self.count_rtp(now, &header, payload.len());
                Some(Received { header, payload: bytes.get(payload)? })
            }
            Verdict::Drop => {
                self.dropped += 1;
                None
            }
        }
    }

    fn handle_plain_rtcp(&mut self, now: Instant, path: Path, bytes: &mut [u8]) {
        let authentic = self.has_keys();
        let Way::Plain(plain) = &mut self.way else { return };
        let on_rtp = self.sockets.first() == Some(&path.local);
        let latch = if on_rtp { &plain.rtp } else { &plain.rtcp };
        if !latch.may_be(path.remote) {
            self.dropped += 1;
            return;
        }
        let Some(compound) = self.security.unprotect_rtcp(bytes).and_then(|length| bytes.get(..length)) else {
            self.dropped += 1;
            return;
        };
        // Reports on RTP's port teach nothing: they come from where RTP comes from, or not at all.
        let verdict = if on_rtp {
            let there = plain.rtp.target() == Some(path.remote);
            if there { Verdict::Take } else { Verdict::Drop }
        } else {
            plain.hear_rtcp(path.remote, authentic)
        };
        let taken = !matches!(verdict, Verdict::Drop);
        if taken && self.rtcp.handle_input(now, compound).is_ok() {
            self.due = None;
            self.drain_rtcp(now);
        } else {
            self.dropped += 1;
        }
    }

    fn has_keys(&self) -> bool {
        matches!(self.security, Security::Secured { .. })
    }

    fn report_moved(&mut self) {
        let (Way::Plain(plain), Some(path)) = (&self.way, self.path()) else { return };
        let (local, remote) = plain_kinds(plain, path);
        self.events.push_back(LegEvent::PathChanged { local, remote, path });
    }
}

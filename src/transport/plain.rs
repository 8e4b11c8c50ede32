//! A path without ICE: where signalling says that the peer is, and from where its packets really come.
//! Read RFC 3550 §11, RFC 3605, RFC 4961 and RFC 7362 §4 and §5 (latching and its dangers) before touching this file.

use std::net::SocketAddr;

/// Packets that may still decide where the peer is; then one source counts and no other (threat: RTP Bleed).
pub const WINDOW: usize = 5;

/// What a packet is worth, by where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the peer's.
    Take,
    /// It is the peer's, and from now on the peer is there and nowhere else.
    Settle(SocketAddr),
    /// It is not, or not known to be.
    Drop,
}

/// Where packets of one kind (RTP, or RTCP on its own port) go to and come from.
///
/// ```text
///   Learning ── the signalled address speaks, or an authentic packet ─▶ Settled
///      ▲   │                                                             │  ▲
///      │   └─ WINDOW valid packets of others: the likeliest of them ─────┘──┘ the signalled address speaks after all
///      └───────────────────── another address is signalled ──────────────┘
/// ```
#[derive(Debug, Clone, Default)]
pub struct Latch {
    signalled: Option<SocketAddr>,
    settled: Option<SocketAddr>,
    /// Sources heard while learning, in order, with their packets.
    heard: [Option<(SocketAddr, usize)>; WINDOW],
}

impl Latch {
    /// What the peer's signalling says; another address than before opens learning anew. True if it is another.
    pub fn set_signalled(&mut self, addr: SocketAddr) -> bool {
        let changed = self.signalled != Some(addr);
        if changed {
            *self = Self { signalled: Some(addr), ..Self::default() };
        }
        changed
    }

    /// What signalling said.
    #[must_use]
    pub fn signalled(&self) -> Option<SocketAddr> {
        self.signalled
    }

    /// Where the peer was heard, once that is decided.
    #[must_use]
    pub fn settled(&self) -> Option<SocketAddr> {
        self.settled
    }

    /// Where to send to: never to a source that only might be the peer.
    #[must_use]
    pub fn target(&self) -> Option<SocketAddr> {
        self.settled.or(self.signalled)
    }

    /// False if a packet from there is not worth a look.
    #[must_use]
    pub fn may_be(&self, source: SocketAddr) -> bool {
        match self.settled {
            Some(settled) => settled == source || self.signalled == Some(source),
            None => self.signalled.is_some(),
        }
    }

    /// A well-formed packet of `source`. `authentic`: its SRTP tag was right, so it is the peer's wherever it comes from.
    pub fn hear(&mut self, source: SocketAddr, authentic: bool) -> Verdict {
        match self.settled {
            Some(settled) if settled == source => Verdict::Take,
            // Who was signalled is preferred even late: who came first may have been a stranger.
            _ if self.signalled == Some(source) => self.settle(source),
            Some(_) => Verdict::Drop,
            None if self.signalled.is_none() => Verdict::Drop,
            None if authentic => self.settle(source),
            None => self.learn(source),
        }
    }

    fn learn(&mut self, source: SocketAddr) -> Verdict {
        let known = self.heard.iter_mut().flatten().find(|(addr, _)| *addr == source);
        if let Some((_, packets)) = known {
            *packets += 1;
        } else if let Some(free) = self.heard.iter_mut().find(|slot| slot.is_none()) {
            *free = Some((source, 1));
        }
        if self.heard.iter().flatten().map(|(_, packets)| packets).sum::<usize>() < WINDOW {
            return Verdict::Drop;
        }
        // The signalled host behind another port first, then who was heard most, then who was heard first.
        let host = self.signalled.map(|addr| addr.ip());
        let likeliest = self
            .heard
            .iter()
            .flatten()
            .rev()
            .max_by_key(|(addr, packets)| (Some(addr.ip()) == host, *packets))
            .map(|(addr, _)| *addr);
        match likeliest {
            Some(addr) if addr == source => self.settle(addr),
            Some(addr) => {
                self.settled = Some(addr);
                Verdict::Drop
            }
            None => Verdict::Drop,
        }
    }

    fn settle(&mut self, source: SocketAddr) -> Verdict {
        self.settled = Some(source);
        Verdict::Settle(source)
    }
}

/// Both ports of a plain path.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlainPath {
    pub(crate) rtp: Latch,
    /// RTCP where it has a port of its own.
    pub(crate) rtcp: Latch,
    /// RTCP goes with RTP (RFC 5761).
    pub(crate) mux: bool,
}

impl PlainPath {
    /// Where reports go to.
    pub(crate) fn rtcp_target(&self) -> Option<SocketAddr> {
        if self.mux { self.rtp.target() } else { self.rtcp.target() }
    }

    /// A well-formed RTCP packet on the port of its own: the peer's if it comes from where its RTP comes from, too.
    pub(crate) fn hear_rtcp(&mut self, source: SocketAddr, authentic: bool) -> Verdict {
        let same_host = self.rtp.settled().is_some_and(|rtp| rtp.ip() == source.ip());
        if authentic || same_host || self.rtcp.signalled() == Some(source) {
            self.rtcp.hear(source, true)
        } else {
            Verdict::Drop
        }
    }
}

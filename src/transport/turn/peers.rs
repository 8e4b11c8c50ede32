//! Whom an allocation lets through, and by which channel. Read RFC 8656 §9 to §12 before touching this file.

use super::{Allocation, ChannelBinding, Granting, IDLE, MAX_PEERS, Permission, Verb, channel_number};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

impl Allocation {
    /// True if datagrams for this address may be sent; asks the server for an address that is new.
    pub(super) fn permit(&mut self, now: Instant, peer: IpAddr) -> bool {
        if let Some(it) = self.permissions.iter_mut().find(|it| it.peer == peer) {
            it.used = now;
            return match it.state {
                Granting::Asked | Granting::Granted { .. } => true,
                Granting::Denied => false,
            };
        }
        if self.permissions.len() >= MAX_PEERS {
            return false;
        }
        self.permissions.push(Permission { peer, state: Granting::Asked, used: now });
        self.ask(now, Verb::Permit(peer), 0);
        true
    }

    /// The number of a channel that is bound to this peer; asks for one when the payload is worth it.
    pub(super) fn channel(&mut self, now: Instant, peer: SocketAddr, payload: &[u8]) -> Option<u16> {
        if let Some(index) = self.channels.iter().position(|it| it.peer == peer) {
            let it = self.channels.get_mut(index)?;
            it.used = now;
            return match it.state {
                Granting::Granted { ends, .. } if now < ends => channel_number(index),
                Granting::Granted { .. } => {
                    // It lapsed while nobody used it; the same number may be bound to the same peer at any time.
                    it.state = Granting::Asked;
                    self.ask(now, Verb::Bind(peer), 0);
                    None
                }
                Granting::Asked | Granting::Denied => None,
            };
        }
        // Connectivity checks (STUN, first byte 0 to 3) go to every candidate; what follows goes to the chosen one.
        let is_check = matches!(payload.first(), None | Some(0..=3));
        if !is_check && self.channels.len() < MAX_PEERS {
            self.channels.push(ChannelBinding { peer, state: Granting::Asked, used: now });
            self.ask(now, Verb::Bind(peer), 0);
        }
        None
    }

    pub(super) fn renewal(&self, state: Granting, verb: Verb) -> Option<Instant> {
        match state {
            Granting::Granted { renew_at, ends } if renew_at < ends => {
                (!self.pending.iter().any(|it| it.verb == verb)).then_some(renew_at)
            }
            Granting::Asked | Granting::Granted { .. } | Granting::Denied => None,
        }
    }

    pub(super) fn renew_permissions(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(it) = self.permissions.get(index) {
            let (peer, idle) = (it.peer, now >= it.used + IDLE);
            match self.renewal(it.state, Verb::Permit(peer)) {
                Some(at) if now >= at && idle => {
                    self.permissions.swap_remove(index);
                    continue;
                }
                Some(at) if now >= at => self.ask(now, Verb::Permit(peer), 0),
                Some(_) | None => {}
            }
            index += 1;
        }
    }

    pub(super) fn renew_channels(&mut self, now: Instant) {
        for index in 0..self.channels.len() {
            let Some(it) = self.channels.get(index) else { return };
            let peer = it.peer;
            let idle = now >= it.used + IDLE;
            match self.renewal(it.state, Verb::Bind(peer)) {
                Some(at) if now >= at && idle => {
                    if let Some(ChannelBinding { state: Granting::Granted { renew_at, ends }, .. }) =
                        self.channels.get_mut(index)
                    {
                        // No renewal any more: the binding runs out at its end.
                        *renew_at = *ends;
                    }
                }
                Some(at) if now >= at => self.ask(now, Verb::Bind(peer), 0),
                Some(_) | None => {}
            }
        }
    }
}

//! A whole call in memory before the first real one: what is set up lazily below us (entropy, tables of the crypto
//! library, pages of code) is then set up, and the first call of a process is as fast as the second.

use crate::transport::dtls::Identity;
use crate::transport::leg::{Leg, LegConfig, LegEvent};
use crate::wire::rtp::MediaTime;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Addresses of RFC 5737: nothing is sent.
const ADDRS: [([u8; 4], u16); 2] = [([192, 0, 2, 1], 1024), ([192, 0, 2, 2], 1024)];
/// Far more turns than the two legs need.
const TURNS: usize = 64;

/// Connects two legs with each other and sends a frame each way. Nothing of it reaches a network or a later call.
pub fn warm_up(identity: &Arc<Identity>, now: Instant) {
    let [a, b] = ADDRS.map(SocketAddr::from);
    let leg = |initiator: bool, addr: SocketAddr| {
        let config = LegConfig::new(initiator, Arc::clone(identity));
        let mut leg = Leg::new(now, SystemTime::UNIX_EPOCH, [u8::from(initiator); 32], config);
        leg.handle_sockets(now, &[addr]);
        leg
    };
    let (mut ours, mut theirs) = (leg(true, a), leg(false, b));
    introduce(now, &mut ours, &mut theirs);
    introduce(now, &mut theirs, &mut ours);
    let mut now = now;
    for _ in 0..TURNS {
        let moved = carry(now, &mut ours, &mut theirs) | carry(now, &mut theirs, &mut ours);
        if !moved {
            if frame(now, &mut ours, &mut theirs) && frame(now, &mut theirs, &mut ours) {
                break;
            }
            now += Duration::from_millis(5);
            ours.handle_timeout(now);
            theirs.handle_timeout(now);
        }
    }
    ours.close(now);
    theirs.close(now);
}

fn introduce(now: Instant, from: &mut Leg, to: &mut Leg) {
    let prints: Vec<_> = from.local_fingerprint().into_iter().collect();
    to.set_remote(now, Some(from.local_credentials()), &prints);
    while let Some(event) = from.poll_event() {
        if let LegEvent::LocalCandidate(candidate) = event {
            let _ = to.add_remote_candidate(now, &candidate);
        }
    }
}

/// True if there was anything to carry.
fn carry(now: Instant, from: &mut Leg, to: &mut Leg) -> bool {
    let mut moved = false;
    while let Some(mut transmit) = from.poll_transmit() {
        moved = true;
        to.handle_datagram(now, transmit.destination, transmit.local, &mut transmit.contents);
    }
    while from.poll_event().is_some() {}
    moved
}

/// True if a frame came over.
fn frame(now: Instant, from: &mut Leg, to: &mut Leg) -> bool {
    let mut packet = Vec::with_capacity(256);
    from.send_rtp(now, 111, false, MediaTime(0), &[0; 80], &mut packet)
        .is_some_and(|route| to.handle_datagram(now, route.destination, route.local, &mut packet).is_some())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn frames_come_over_in_the_warm_up() {
        let identity = Arc::new(Identity::generate().unwrap());
        let now = Instant::now();
        let [a, b] = ADDRS.map(SocketAddr::from);
        let mut legs = [(true, a), (false, b)].map(|(initiator, addr)| {
            let mut leg =
                Leg::new(now, SystemTime::UNIX_EPOCH, [7; 32], LegConfig::new(initiator, Arc::clone(&identity)));
            leg.handle_sockets(now, &[addr]);
            leg
        });
        let [ours, theirs] = &mut legs;
        introduce(now, ours, theirs);
        introduce(now, theirs, ours);
        let over = (0..TURNS as u64).any(|turn| {
            let at = now + Duration::from_millis(5 * turn);
            ours.handle_timeout(at);
            theirs.handle_timeout(at);
            while carry(at, ours, theirs) | carry(at, theirs, ours) {}
            frame(at, ours, theirs)
        });
        assert!(over);
        warm_up(&identity, now);
    }
}

//! What keeps a flow open through NATs, and tells that it is dead. Read RFC 5626 §4.4 before touching this file.

use super::Keep;
use crate::config::SipFlowLimits;
use crate::transport::stun::{Binding, ServerFault, StunTimers};
use rand_chacha::ChaCha20Rng;
use rand_core::RngCore;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// RFC 5626 §3.5.1: the ping of a stream.
pub(super) const PING: &[u8] = b"\r\n\r\n";
/// RFC 5626 §3.5.1: its answer.
pub(super) const PONG: &[u8] = b"\r\n";

/// Keep-alives to one peer.
///
/// ```text
///             due: CRLF CRLF, no answer is demanded
///            ┌──────────┐
///            ▼          │
///   ─────▶ Resting ─────┴─ due, an answer is demanded ─▶ Pinged ── 10 s ──▶ Dead
///            ▲   │                                        │
///            │   └─ due, STUN ─▶ Asked ─ silence ─▶ Dead   │
///            └───────────────────── answer ───────────────┘
/// ```
#[derive(Debug)]
pub(super) struct Keeper {
    keep: Keep,
    /// A datagram goes out more often: NATs forget UDP after 30 s.
    interval: (Duration, Duration),
    state: State,
    /// This peer answers pings, so that his silence means something.
    answers: bool,
    /// Our address as he sees it.
    public: Option<SocketAddr>,
}

#[derive(Debug)]
enum State {
    Resting { due: Instant },
    Pinged { by: Instant },
    Asked(Box<Binding>),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Send(Vec<u8>),
    Dead,
}

impl Keeper {
    pub(super) fn new(now: Instant, keep: Keep, stream: bool, limits: &SipFlowLimits, rng: &mut ChaCha20Rng) -> Self {
        // RFC 5626 §4.4.1: 95 to 120 s on streams; §4.4.2: 24 to 29 s on datagrams.
        let interval = if stream { limits.stream_keep_alive } else { limits.datagram_keep_alive };
        let due = now + between(interval, rng);
        Self { keep, interval, state: State::Resting { due }, answers: false, public: None }
    }

    pub(super) fn keep(&self) -> Keep {
        self.keep
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Resting { due: at } | State::Pinged { by: at } => Some(*at),
            State::Asked(binding) => binding.poll_timeout(),
        }
    }

    /// Something came from the peer: he lives.
    pub(super) fn heard(&mut self, now: Instant, pong: bool, rng: &mut ChaCha20Rng) {
        if let State::Pinged { .. } = self.state {
            self.state = State::Resting { due: now + between(self.interval, rng) };
        }
        self.answers |= pong;
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        (local, remote): (SocketAddr, SocketAddr),
        limits: &SipFlowLimits,
        rng: &mut ChaCha20Rng,
    ) -> Step {
        match &mut self.state {
            State::Resting { due } if *due > now => Step::Nothing,
            State::Resting { due } => match self.keep {
                Keep::Stun => {
                    let mut binding = Binding::new(now, StunTimers::default(), rng, local, remote);
                    let step = binding.poll_transmit().map_or(Step::Nothing, |t| Step::Send(t.contents));
                    self.state = State::Asked(Box::new(binding));
                    step
                }
                Keep::Pong => self.ping(now, limits),
                Keep::Quiet if self.answers => self.ping(now, limits),
                Keep::Quiet | Keep::None => {
                    *due = now + between(self.interval, rng);
                    Step::Send(PING.to_vec())
                }
            },
            // RFC 5626 §4.4.1: no pong within 10 s, and the flow has failed.
            State::Pinged { by } => {
                if *by <= now {
                    Step::Dead
                } else {
                    Step::Nothing
                }
            }
            State::Asked(binding) => {
                binding.handle_timeout(now);
                match (binding.poll_transmit(), binding.poll_event()) {
                    (Some(transmit), _) => Step::Send(transmit.contents),
                    (None, Some(_)) => Step::Dead,
                    (None, None) => Step::Nothing,
                }
            }
        }
    }

    /// A STUN message came. `Some(address)` where our address as the peer sees it is another than before.
    pub(super) fn handle_stun(&mut self, now: Instant, bytes: &[u8], rng: &mut ChaCha20Rng) -> Option<SocketAddr> {
        let State::Asked(binding) = &mut self.state else { return None };
        if !binding.handle_input(now, bytes) {
            return None;
        }
        let outcome: Option<Result<SocketAddr, ServerFault>> = binding.poll_event();
        self.state = State::Resting { due: now + between(self.interval, rng) };
        // An error is an answer, too: the flow lives.
        let public = outcome?.ok()?;
        let before = self.public.replace(public);
        before.filter(|before| *before != public).map(|_| public)
    }

    fn ping(&mut self, now: Instant, limits: &SipFlowLimits) -> Step {
        self.state = State::Pinged { by: now + limits.pong };
        Step::Send(PING.to_vec())
    }
}

/// RFC 5626 §4.4.1: evenly spread, so that the clients of a server that restarted do not stay in step.
fn between((least, most): (Duration, Duration), rng: &mut ChaCha20Rng) -> Duration {
    let span = u64::try_from(most.saturating_sub(least).as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    least + Duration::from_millis(rng.next_u64() % span)
}

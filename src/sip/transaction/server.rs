//! Requests of peers. Read RFC 3261 §17.2 and RFC 6026 §7.1 before touching this file.

use super::timers::{Armed, Context, Timer};
use crate::wire::sip::{Method, Status};
use std::time::Duration;

/// What a transition asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    /// The last response goes out again.
    Repeat,
    /// 100 goes out.
    Trying,
    /// The ACK goes up.
    AckUp,
    /// The user hears that the failure is acknowledged, or never will be.
    Confirmed,
}

/// An INVITE of a peer, RFC 3261 figure 7 as RFC 6026 §7.1 changes it.
///
/// ```text
///                      ┌─ 1xx of the user, Trying: sent; INVITE: last 1xx again ─┐
///                      ▼                                                         │
///  INVITE up ─▶ Proceeding ──────────────────────────────────────────────────────┘
///                 │      │ 300–699 of the user: sent
///                 │      ▼      ┌─ INVITE, G (UDP): sent again
///                 │   Completed ┘── H: confirmed ───────────────────▶ Terminated
///                 │      │ ACK: confirmed                                ▲
///                 │      └────────▶ Confirmed (ACK) ── I (TCP: 0) ──────▶┤
///                 │ 2xx of the user: sent                                │
///                 └────▶ Accepted (2xx of the user: sent; INVITE: ───────┘
///                        nothing; ACK: up)                     L
/// ```
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InviteServer {
    Proceeding,
    Completed { interval: Duration },
    Confirmed,
    Accepted,
    Terminated,
}

impl InviteServer {
    pub(super) fn begin(context: Context<'_>, armed: &mut Armed) -> Self {
        armed.set(Timer::Trying, context.after(context.timers.trying));
        Self::Proceeding
    }

    /// The same INVITE again.
    pub(super) fn again(self) -> (Self, Act) {
        match self {
            Self::Proceeding => (Self::Proceeding, Act::Repeat),
            Self::Completed { interval } => (Self::Completed { interval }, Act::Repeat),
            // RFC 6026 §7.1: "absorbed"; the user repeats the 2xx.
            Self::Accepted => (Self::Accepted, Act::Nothing),
            Self::Confirmed => (Self::Confirmed, Act::Nothing),
            Self::Terminated => (Self::Terminated, Act::Nothing),
        }
    }

    pub(super) fn ack(self, context: Context<'_>, armed: &mut Armed) -> (Self, Act) {
        match self {
            Self::Completed { .. } => {
                armed.clear();
                if context.reliable {
                    return (Self::Terminated, Act::Confirmed);
                }
                armed.set(Timer::I, context.after(context.timers.t4));
                (Self::Confirmed, Act::Confirmed)
            }
            // RFC 6026 §7.1: an ACK that matches goes up, though one of a 2xx should have a branch of its own.
            Self::Accepted => (Self::Accepted, Act::AckUp),
            Self::Proceeding => (Self::Proceeding, Act::Nothing),
            Self::Confirmed => (Self::Confirmed, Act::Nothing),
            Self::Terminated => (Self::Terminated, Act::Nothing),
        }
    }

    /// A response of the user; false if it comes too late to be sent.
    pub(super) fn respond(self, status: Status, context: Context<'_>, armed: &mut Armed) -> (Self, bool) {
        match self {
            Self::Proceeding => {
                armed.clear();
                if status.is_provisional() {
                    return (Self::Proceeding, true);
                }
                if status.is_success() {
                    armed.set(Timer::L, context.long());
                    return (Self::Accepted, true);
                }
                let interval = context.timers.t1;
                if !context.reliable {
                    armed.set(Timer::G, context.after(interval));
                }
                armed.set(Timer::H, context.long());
                (Self::Completed { interval }, true)
            }
            Self::Accepted => (Self::Accepted, status.is_success()),
            Self::Completed { interval } => (Self::Completed { interval }, false),
            Self::Confirmed => (Self::Confirmed, false),
            Self::Terminated => (Self::Terminated, false),
        }
    }

    pub(super) fn timer(self, timer: Timer, context: Context<'_>, armed: &mut Armed) -> (Self, Act) {
        match (self, timer) {
            (Self::Proceeding, Timer::Trying) => (Self::Proceeding, Act::Trying),
            (Self::Completed { interval }, Timer::G) => {
                let interval = context.doubled(interval);
                armed.set(Timer::G, context.after(interval));
                (Self::Completed { interval }, Act::Repeat)
            }
            (Self::Completed { .. }, Timer::H) => {
                armed.clear();
                (Self::Terminated, Act::Confirmed)
            }
            (Self::Confirmed, Timer::I) | (Self::Accepted, Timer::L) => (Self::Terminated, Act::Nothing),
            (state, _) => (state, Act::Nothing),
        }
    }
}

/// Another request of a peer, RFC 3261 figure 8.
///
/// ```text
///                    ┌─ request: nothing           ┌─ 1xx of the user: sent; request: last 1xx again
///                    ▼                             ▼
///  request up ─▶ Trying ── 1xx of the user: sent ─▶ Proceeding ─┐
///                    │                                          ├── Unanswered ─────▶ Terminated
///                    ├──────────────────────────────────────────┘                         ▲
///                    └── final of the user: sent ─▶ Completed ──────── J (TCP: 0) ────────┘
///                                                   (request: it again)
/// ```
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OtherServer {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

impl OtherServer {
    pub(super) fn begin(context: Context<'_>, armed: &mut Armed) -> Self {
        armed.set(Timer::Unanswered, context.long());
        Self::Trying
    }

    pub(super) fn again(self) -> (Self, Act) {
        match self {
            Self::Trying => (Self::Trying, Act::Nothing),
            Self::Proceeding => (Self::Proceeding, Act::Repeat),
            Self::Completed => (Self::Completed, Act::Repeat),
            Self::Terminated => (Self::Terminated, Act::Nothing),
        }
    }

    pub(super) fn respond(self, status: Status, context: Context<'_>, armed: &mut Armed) -> (Self, bool) {
        match self {
            Self::Trying | Self::Proceeding if status.is_provisional() => (Self::Proceeding, true),
            Self::Trying | Self::Proceeding => {
                armed.clear();
                if context.reliable {
                    return (Self::Terminated, true);
                }
                armed.set(Timer::J, context.long());
                (Self::Completed, true)
            }
            Self::Completed => (Self::Completed, false),
            Self::Terminated => (Self::Terminated, false),
        }
    }

    pub(super) fn timer(self, timer: Timer) -> (Self, Act) {
        match (self, timer) {
            (Self::Trying | Self::Proceeding, Timer::Unanswered) | (Self::Completed, Timer::J) => {
                (Self::Terminated, Act::Nothing)
            }
            (state, _) => (state, Act::Nothing),
        }
    }
}

/// Either machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Server {
    Invite(InviteServer),
    Other(OtherServer),
}

impl Server {
    pub(super) fn begin(method: &Method, context: Context<'_>, armed: &mut Armed) -> Self {
        if *method == Method::Invite {
            Self::Invite(InviteServer::begin(context, armed))
        } else {
            Self::Other(OtherServer::begin(context, armed))
        }
    }

    pub(super) fn again(self) -> (Self, Act) {
        match self {
            Self::Invite(machine) => {
                let (machine, act) = machine.again();
                (Self::Invite(machine), act)
            }
            Self::Other(machine) => {
                let (machine, act) = machine.again();
                (Self::Other(machine), act)
            }
        }
    }

    pub(super) fn ack(self, context: Context<'_>, armed: &mut Armed) -> (Self, Act) {
        match self {
            Self::Invite(machine) => {
                let (machine, act) = machine.ack(context, armed);
                (Self::Invite(machine), act)
            }
            Self::Other(machine) => (Self::Other(machine), Act::Nothing),
        }
    }

    pub(super) fn respond(self, status: Status, context: Context<'_>, armed: &mut Armed) -> (Self, bool) {
        match self {
            Self::Invite(machine) => {
                let (machine, sent) = machine.respond(status, context, armed);
                (Self::Invite(machine), sent)
            }
            Self::Other(machine) => {
                let (machine, sent) = machine.respond(status, context, armed);
                (Self::Other(machine), sent)
            }
        }
    }

    pub(super) fn timer(self, timer: Timer, context: Context<'_>, armed: &mut Armed) -> (Self, Act) {
        match self {
            Self::Invite(machine) => {
                let (machine, act) = machine.timer(timer, context, armed);
                (Self::Invite(machine), act)
            }
            Self::Other(machine) => {
                let (machine, act) = machine.timer(timer);
                (Self::Other(machine), act)
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Invite(machine) => *machine == InviteServer::Terminated,
            Self::Other(machine) => *machine == OtherServer::Terminated,
        }
    }

    /// True for an INVITE that a CANCEL still has an effect on (RFC 3261 §9.2).
    pub(super) fn is_cancellable(&self) -> bool {
        *self == Self::Invite(InviteServer::Proceeding)
    }
}

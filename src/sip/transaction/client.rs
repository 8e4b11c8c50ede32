//! Requests of ours. Read RFC 3261 §17.1 and RFC 6026 §7.2 before touching this file.

use super::timers::{Armed, Context, Timer};
use crate::wire::sip::{CSeq, Header, Method, Request, Response, Status};
use std::time::Duration;

/// What a transition asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    /// The request goes out again.
    Repeat,
    /// The response goes up.
    Up,
    /// An ACK goes out, and the response up.
    AckAndUp,
    /// The ACK goes out again.
    Ack,
    /// The user hears that there is no answer.
    TimedOut,
}

/// An INVITE of ours, RFC 3261 figure 5 as RFC 6026 §7.2 changes it.
///
/// ```text
///             ┌─ A (UDP): sent again ─┐
///             ▼                       │      B: timed out
///  INVITE ─▶ Calling ─────────────────┴──────────────────────────────────▶ Terminated
///             │ 1xx up       ┌─ 1xx up ─┐                                      ▲
///             ├─────────▶ Proceeding ◀──┘ ── Cancelled: timed out ────────────▶┤
///             │              │                                                 │
///             ├── 2xx up ────┴─────▶ Accepted (each 2xx up) ── M ─────────────▶┤
///             │              │                                                 │
///             └── 300–699: ACK, up ▶ Completed (each: ACK) ─── D (TCP: 0) ────▶┘
/// ```
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InviteClient {
    Calling { interval: Duration },
    Proceeding,
    Completed,
    Accepted,
    Terminated,
}

impl InviteClient {
    /// The INVITE is sent.
    pub(super) fn begin(context: Context<'_>, armed: &mut Armed) -> Self {
        let interval = context.timers.t1;
        // RFC 3261 §17.1.1.2: timer A is for unreliable transports only.
        if !context.reliable {
            armed.set(Timer::A, context.after(interval));
        }
        armed.set(Timer::B, context.long());
        Self::Calling { interval }
    }

    pub(super) fn response(self, status: Status, context: Context<'_>, armed: &mut Armed) -> (Self, Act) {
        match self {
            Self::Calling { .. } | Self::Proceeding if status.is_success() => {
                armed.clear();
                armed.set(Timer::M, context.long());
                (Self::Accepted, Act::Up)
            }
            Self::Calling { .. } if status.is_provisional() => {
                armed.clear();
                (Self::Proceeding, Act::Up)
            }
            Self::Proceeding if status.is_provisional() => (Self::Proceeding, Act::Up),
            Self::Calling { .. } | Self::Proceeding => {
                armed.clear();
                if context.reliable {
                    return (Self::Terminated, Act::AckAndUp);
                }
                // RFC 3261 §17.1.1.2: at least 32 s on UDP.
                armed.set(Timer::D, context.long());
                (Self::Completed, Act::AckAndUp)
            }
            Self::Completed if status.is_provisional() || status.is_success() => (Self::Completed, Act::Nothing),
            Self::Completed => (Self::Completed, Act::Ack),
            // RFC 6026 §7.2: a 2xx goes up in Accepted, whichever branch of a fork it is of; nothing else does.
            Self::Accepted if status.is_success() => (Self::Accepted, Act::Up),
            Self::Accepted => (Self::Accepted, Act::Nothing),
            Self::Terminated => (Self::Terminated, Act::Nothing),
        }
    }

    pub(super) fn timer(self, timer: Timer, context: Context<'_>, armed: &mut Armed) -> (Self, Act) {
        match (self, timer) {
            (Self::Calling { interval }, Timer::A) => {
                // RFC 3261 §17.1.1.2: doubled each time, without the bound of timer E.
                let interval = interval * 2;
                armed.set(Timer::A, context.after(interval));
                (Self::Calling { interval }, Act::Repeat)
            }
            (Self::Calling { .. } | Self::Proceeding, Timer::B | Timer::Cancelled) => {
                armed.clear();
                (Self::Terminated, Act::TimedOut)
            }
            (Self::Completed, Timer::D) | (Self::Accepted, Timer::M) => (Self::Terminated, Act::Nothing),
            (state, _) => (state, Act::Nothing),
        }
    }

    /// It was cancelled: the answer has 64·T1 to come (RFC 3261 §9.1).
    pub(super) fn cancelled(&self, context: Context<'_>, armed: &mut Armed) {
        match self {
            Self::Proceeding => armed.set(Timer::Cancelled, context.long()),
            Self::Calling { .. } | Self::Completed | Self::Accepted | Self::Terminated => {}
        }
    }
}

/// Another request of ours, RFC 3261 figure 6.
///
/// ```text
///              ┌─ E (UDP): sent again ─┐
///              ▼                       │
///  request ─▶ Trying ──────────────────┴───── F: timed out ───▶ Terminated
///              │ 1xx up                                             ▲
///              ├──────▶ Proceeding ────────── F: timed out ────────▶┤
///              │         │  ▲    └─ E (UDP): sent again, every T2   │
///              │         │  └─ 1xx up                               │
///              └─ final ─┴──▶ up, Completed ── K (TCP: 0) ─────────▶┘
/// ```
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OtherClient {
    Trying { interval: Duration },
    Proceeding,
    Completed,
    Terminated,
}

impl OtherClient {
    /// The request is sent.
    pub(super) fn begin(context: Context<'_>, armed: &mut Armed) -> Self {
        let interval = context.timers.t1;
        if !context.reliable {
            armed.set(Timer::E, context.after(interval));
        }
        armed.set(Timer::F, context.long());
        Self::Trying { interval }
    }

    pub(super) fn response(self, status: Status, context: Context<'_>, armed: &mut Armed) -> (Self, Act) {
        match self {
            Self::Trying { .. } | Self::Proceeding if status.is_provisional() => (Self::Proceeding, Act::Up),
            Self::Trying { .. } | Self::Proceeding => {
                armed.clear();
                if context.reliable {
                    return (Self::Terminated, Act::Up);
                }
                armed.set(Timer::K, context.after(context.timers.t4));
                (Self::Completed, Act::Up)
            }
            Self::Completed => (Self::Completed, Act::Nothing),
            Self::Terminated => (Self::Terminated, Act::Nothing),
        }
    }

    pub(super) fn timer(self, timer: Timer, context: Context<'_>, armed: &mut Armed) -> (Self, Act) {
        match (self, timer) {
            (Self::Trying { interval }, Timer::E) => {
                let interval = context.doubled(interval);
                armed.set(Timer::E, context.after(interval));
                (Self::Trying { interval }, Act::Repeat)
            }
            // RFC 3261 §17.1.2.2: "MUST be reset with a value of T2 seconds".
            (Self::Proceeding, Timer::E) => {
                armed.set(Timer::E, context.after(context.timers.t2));
                (Self::Proceeding, Act::Repeat)
            }
            (Self::Trying { .. } | Self::Proceeding, Timer::F) => {
                armed.clear();
                (Self::Terminated, Act::TimedOut)
            }
            (Self::Completed, Timer::K) => (Self::Terminated, Act::Nothing),
            (state, _) => (state, Act::Nothing),
        }
    }
}

/// Either machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Client {
    Invite(InviteClient),
    Other(OtherClient),
}

impl Client {
    pub(super) fn begin(method: &Method, context: Context<'_>, armed: &mut Armed) -> Self {
        if *method == Method::Invite {
            Self::Invite(InviteClient::begin(context, armed))
        } else {
            Self::Other(OtherClient::begin(context, armed))
        }
    }

    pub(super) fn response(self, status: Status, context: Context<'_>, armed: &mut Armed) -> (Self, Act) {
        match self {
            Self::Invite(machine) => {
                let (machine, act) = machine.response(status, context, armed);
                (Self::Invite(machine), act)
            }
            Self::Other(machine) => {
                let (machine, act) = machine.response(status, context, armed);
                (Self::Other(machine), act)
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
                let (machine, act) = machine.timer(timer, context, armed);
                (Self::Other(machine), act)
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Invite(machine) => *machine == InviteClient::Terminated,
            Self::Other(machine) => *machine == OtherClient::Terminated,
        }
    }

    /// True while a final response may still come.
    pub(super) fn is_waiting(&self) -> bool {
        match self {
            Self::Invite(machine) => match machine {
                InviteClient::Calling { .. } | InviteClient::Proceeding => true,
                InviteClient::Completed | InviteClient::Accepted | InviteClient::Terminated => false,
            },
            Self::Other(machine) => match machine {
                OtherClient::Trying { .. } | OtherClient::Proceeding => true,
                OtherClient::Completed | OtherClient::Terminated => false,
            },
        }
    }
}

/// The ACK of a failure response, RFC 3261 §17.1.1.3: the same branch, the To of the response, the Route of the INVITE.
pub(super) fn ack(invite: &Request, response: &Response) -> Request {
    let mut ack = hop_by_hop(invite, Method::Ack);
    ack.headers.to = response.headers.to.clone();
    ack
}

/// The CANCEL of an INVITE, RFC 3261 §9.1: Request-URI, Call-ID, To, From, Route, number of CSeq and the one Via, branch
/// and all, are those of the INVITE; no Require nor Proxy-Require.
pub(super) fn cancel(invite: &Request, more: Vec<Header>) -> Request {
    let mut cancel = hop_by_hop(invite, Method::Cancel);
    cancel.headers.rest = more;
    cancel
}

fn hop_by_hop(invite: &Request, method: Method) -> Request {
    let of = &invite.headers;
    let mut request = Request::new(
        method.clone(),
        invite.uri.clone(),
        of.from.clone(),
        of.to.clone(),
        of.call_id.clone(),
        of.cseq.number,
    );
    request.headers.cseq = CSeq { number: of.cseq.number, method };
    request.headers.via.extend(of.via.first().cloned());
    request.headers.route.clone_from(&of.route);
    request
}

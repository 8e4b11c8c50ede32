//! What a session consists of, and what it awaits. Read RFC 3261 §12 to §15 before touching this file.

use super::offer_answer::{Exchange, OfferAnswer, TheirPlace};
use super::reliable::Reliable;
use super::timer::SessionTimer;
use super::words::{Fork, Sdp};
use crate::sip::dialog::Dialog;
use crate::sip::exchange::ServerId;
use crate::sip::sessions::SessionId;
use crate::wire::sip::{Header, Headers, Method, NameAddr, Request, Response, SessionExpires, Status, Tag, Uri};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the peer of a dialog understands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Peer {
    /// `Allow: UPDATE`
    pub(super) update: bool,
    /// `Supported: 100rel`
    pub(super) reliable: bool,
}

impl Peer {
    pub(super) fn learn(&mut self, headers: &Headers) {
        if headers.allow().next().is_some() {
            self.update = headers.allows(&Method::Update);
        }
        self.reliable |= headers.supports("100rel");
    }
}

/// What of ours awaits its turn.
#[derive(Debug, Clone)]
pub(super) enum Offer {
    /// What holds, again (RFC 4028).
    Refresh,
    /// The application's.
    New(Box<Sdp>),
    /// What holds when it is sent, with other directions.
    Hold(bool),
}

/// An offer, or a refresh, of ours that awaits its turn.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub(super) offer: Offer,
    /// Not before then: after 491 (RFC 3261 §14.1).
    pub(super) at: Option<Instant>,
    pub(super) tries: u8,
}

impl Want {
    pub(super) fn new(offer: Offer) -> Self {
        Self { offer, at: None, tries: 0 }
    }

    pub(super) fn is_refresh(&self) -> bool {
        matches!(self.offer, Offer::Refresh)
    }

    pub(super) fn is_new(&self) -> bool {
        matches!(self.offer, Offer::New(_))
    }
}

/// A re-INVITE or UPDATE of ours on its way.
#[derive(Debug)]
pub(super) struct Modifying {
    pub(super) number: u32,
    pub(super) method: Method,
    pub(super) want: Want,
}

/// One dialog and what is agreed on in it.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) fork: Fork,
    pub(super) dialog: Dialog,
    pub(super) media: OfferAnswer,
    pub(super) peer: Peer,
    /// RSeq of the last reliable provisional response that was acknowledged (RFC 3262 §4).
    pub(super) rseq: Option<u32>,
    pub(super) want: Option<Want>,
    pub(super) modifying: Option<Modifying>,
}

impl Talk {
    pub(super) fn new(fork: Fork, dialog: Dialog, media: OfferAnswer) -> Self {
        Self { fork, dialog, media, peer: Peer::default(), rseq: None, want: None, modifying: None }
    }

    /// A request of theirs whose offer awaits our application.
    pub(super) fn waiting(&self) -> Option<ServerId> {
        match self.media.exchange() {
            Exchange::Theirs { by: TheirPlace::ReInvite(waiting) | TheirPlace::Update(waiting), .. } => {
                Some(waiting.id)
            }
            Exchange::Theirs { by: TheirPlace::Prack(id), .. } => Some(*id),
            Exchange::Theirs { .. } | Exchange::Empty | Exchange::Stable | Exchange::Ours { .. } => None,
        }
    }
}

/// What a session awaits.
///
/// ```text
///   we call                                              we are called
///   Calling ── 3xx, 422: again ─▶ Calling                Ringing ── 1xx ─▶ Ringing
///     │ 2xx, ACK            │ 3xx–6xx, give up: CANCEL      │ 2xx            │ 3xx–6xx, CANCEL, PRACK or user too late
///     ▼                     ▼                               ▼                ▼
///     Up ─ BYE, expired ─▶ Over                             Up ── BYE, … ─▶ Over
///     Up ⟲ re-INVITE, UPDATE, INFO, REFER (session/modify, session/requests, sip/transfer)
///   Over: the application heard of the end; late 2xx are still acknowledged and ended, our 2xx may still await the ACK
///         before BYE may leave (RFC 3261 §15), a transfer may still report.
/// ```
#[derive(Debug)]
pub(super) enum State {
    Calling(Box<Calling>),
    Ringing(Box<Ringing>),
    Up(Box<Up>),
    Over(Box<Over>),
}

#[derive(Debug)]
pub(super) struct Calling {
    /// The exchange as it was when the INVITE left: each fork answers for itself (RFC 3261 §13.2.2.4).
    pub(super) media: OfferAnswer,
    pub(super) talks: Vec<Talk>,
    pub(super) next_fork: u32,
    pub(super) until: Instant,
    /// Addresses tried, the first one included (RFC 3261 §8.1.3.4).
    pub(super) tried: Vec<Uri>,
    /// Contacts of the last 3xx, best first.
    pub(super) elsewhere: VecDeque<NameAddr>,
}

#[derive(Debug)]
pub(super) struct Ringing {
    pub(super) id: ServerId,
    pub(super) cseq: u32,
    pub(super) talk: Talk,
    pub(super) reliable: Reliable,
    /// The INVITE's caller must get each provisional response reliably.
    pub(super) must_be_reliable: bool,
    /// The timer as our 2xx will say it.
    pub(super) timer: Option<SessionExpires>,
    pub(super) peer_timer: bool,
    pub(super) until: Instant,
    /// The last unreliable provisional response, repeated each minute (RFC 3261 §13.3.1.1).
    pub(super) last: Option<(Instant, Status)>,
    /// The user took the call while a PRACK was awaited (RFC 3262 §3).
    pub(super) accepting: Option<Option<Box<Sdp>>>,
    pub(super) replaces: Option<SessionId>,
}

#[derive(Debug)]
pub(super) struct Up {
    pub(super) talk: Talk,
    pub(super) timer: Option<SessionTimer>,
    /// As last told.
    pub(super) held: bool,
    /// INFO requests that wait for the one before them.
    pub(super) digits: VecDeque<(char, Duration)>,
}

/// What is left when the application heard of the end.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) talk: Option<Box<Talk>>,
    /// BYE with these headers once our 2xx is acknowledged (RFC 3261 §15).
    pub(super) bye: Option<Vec<Header>>,
    pub(super) until: Instant,
}

/// A request of ours without its final answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flight {
    Invite,
    /// re-INVITE or UPDATE.
    Modify(Fork),
    Prack(Fork),
    Bye,
    Info,
    Refer,
    Notify,
}

/// A 2xx of ours, repeated until its ACK (RFC 3261 §13.3.1.4).
#[derive(Debug)]
pub(super) struct Unacknowledged {
    pub(super) id: ServerId,
    pub(super) cseq: u32,
    pub(super) response: Box<Response>,
    pub(super) next: Instant,
    pub(super) interval: Duration,
    pub(super) until: Instant,
    /// It answered the INVITE that began the session.
    pub(super) initial: bool,
}

/// An ACK of ours, repeated for each repeated 2xx (RFC 3261 §13.2.2.4).
#[derive(Debug)]
pub(super) struct Acknowledged {
    pub(super) number: u32,
    pub(super) tag: Tag,
    pub(super) request: Box<Request>,
    pub(super) until: Instant,
}

/// The INVITE that began a session of ours; kept as long as answers of other forks may come.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) number: u32,
    pub(super) request: Box<Request>,
    pub(super) until: Option<Instant>,
}

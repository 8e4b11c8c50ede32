//! Which description stands, and which offer waits for its answer. Read RFC 3264 §4 to §8 and RFC 6337 §2 before touching
//! this file.

use crate::sip::exchange::ServerId;
use crate::sip::session::description;
use crate::wire::sdp::Origin;
use crate::wire::sip::{NameAddr, RAck, SessionExpires};
use std::time::Instant;

pub use crate::sip::session::description::Sdp;

/// Where an offer of ours travels; its answer comes in what follows it (RFC 6337 table 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OurPlace {
    /// INVITE → its 2xx or a reliable provisional response.
    Invite,
    /// re-INVITE or UPDATE with this number → its 2xx.
    Modification(u32),
    /// A reliable provisional response with this RSeq → its PRACK.
    Provisional(u32),
    /// The 2xx to an INVITE → its ACK.
    Success,
}

/// Where an offer of theirs came; our answer goes in what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TheirPlace {
    /// The INVITE that began the session: answered by `early` and `accept`.
    Invite,
    /// re-INVITE.
    ReInvite(Box<Waiting>),
    /// UPDATE.
    Update(Box<Waiting>),
    /// PRACK.
    Prack(ServerId),
    /// A reliable provisional response.
    Provisional(RAck),
    /// The 2xx to our INVITE, sent with this number.
    Success(u32),
}

/// A request with an offer that the application is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) id: ServerId,
    pub(crate) cseq: u32,
    /// The remote target once it is accepted (RFC 3261 §12.2.2).
    pub(crate) contact: Vec<NameAddr>,
    /// The timer once it is accepted (RFC 4028 §9).
    pub(crate) timer: Option<SessionExpires>,
    /// The asking side knows timers, and may be made the refresher.
    pub(crate) peer_timer: bool,
}

/// Where the exchange stands. There is never more than one offer (RFC 3264 §4).
///
/// ```text
///             our offer ─▶ Ours ─┐ answer: Stable
///   Empty ──┤                    ├──────────────▶ Stable ── next offer ─▶ Ours, Theirs
///             their offer ▶ Theirs ┘ refused: back to Stable, or Empty where nothing was agreed on
/// ```
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Exchange {
    /// Nothing was offered yet.
    Empty,
    /// Both sides know what holds.
    Stable,
    /// Ours waits for their answer.
    Ours { sdp: Box<Sdp>, by: OurPlace },
    /// Theirs waits for our answer, at most until then.
    Theirs { sdp: Box<Sdp>, by: TheirPlace, until: Option<Instant> },
}

/// The exchange of one dialog.
#[derive(Debug, Clone)]
pub(crate) struct OfferAnswer {
    exchange: Exchange,
    local: Option<Box<Sdp>>,
    remote: Option<Box<Sdp>>,
    /// What an unreliable provisional response said of the answer that follows (RFC 6337 §3.1.1), theirs or ours.
    pub(crate) preview: Option<Box<Sdp>>,
    origin: Option<Origin>,
    /// The last offer of ours came to nothing, so that its version is used up.
    void: bool,
    /// We hold.
    pub(crate) holding: bool,
}

impl OfferAnswer {
    pub(crate) fn new() -> Self {
        Self {
            exchange: Exchange::Empty,
            local: None,
            remote: None,
            preview: None,
            origin: None,
            void: false,
            holding: false,
        }
    }

    pub(crate) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub(crate) fn is_stable(&self) -> bool {
        self.exchange == Exchange::Stable
    }

    /// Something was agreed on, and holds whatever is offered now.
    pub(crate) fn has_agreed(&self) -> bool {
        self.local.is_some() && self.remote.is_some()
    }

    pub(crate) fn local(&self) -> Option<&Sdp> {
        self.local.as_deref()
    }

    pub(crate) fn remote(&self) -> Option<&Sdp> {
        self.remote.as_deref()
    }

    /// One session id for all, and a version that rises by one with every change (RFC 3264 §5, §8).
    fn stamp(&mut self, mut sdp: Sdp) -> Box<Sdp> {
        let origin = match self.origin.take() {
            None => sdp.origin.clone(),
            Some(origin) => {
                let unchanged = !self.void
                    && self.local.as_deref().is_some_and(|local| {
                        sdp.origin.clone_from(&local.origin);
                        sdp == *local
                    });
                if unchanged { origin } else { description::next(origin) }
            }
        };
        sdp.origin.clone_from(&origin);
        self.void = false;
        self.origin = Some(origin);
        Box::new(sdp)
    }

    /// Our offer as it is to be sent. To be called only where no other offer is open.
    pub(crate) fn offer(&mut self, sdp: Sdp, by: OurPlace) -> Sdp {
        debug_assert!(matches!(self.exchange, Exchange::Empty | Exchange::Stable), "one outstanding offer");
        let sdp = self.stamp(sdp);
        let sent = (*sdp).clone();
        self.exchange = Exchange::Ours { sdp, by };
        sent
    }

    /// Their offer. To be called only where no other offer is open.
    pub(crate) fn take_offer(&mut self, sdp: Sdp, by: TheirPlace, until: Option<Instant>) {
        debug_assert!(matches!(self.exchange, Exchange::Empty | Exchange::Stable), "one outstanding offer");
        self.exchange = Exchange::Theirs { sdp: Box::new(sdp), by, until };
    }

    /// Our answer as it is to be sent, and where: `None` where no offer waits. Its directions are made to fit the offer
    /// (RFC 3264 §6.1) and our own hold.
    pub(crate) fn answer(&mut self, mut sdp: Sdp) -> Option<(Sdp, TheirPlace)> {
        let (offer, by) = match std::mem::replace(&mut self.exchange, Exchange::Stable) {
            Exchange::Theirs { sdp, by, .. } => (sdp, by),
            other @ (Exchange::Empty | Exchange::Stable | Exchange::Ours { .. }) => {
                self.exchange = other;
                return None;
            }
        };
        if self.holding {
            description::hold(&mut sdp, true);
        }
        description::fit(&mut sdp, &offer);
        let sdp = self.stamp(sdp);
        let sent = (*sdp).clone();
        self.local = Some(sdp);
        self.remote = Some(offer);
        self.preview = None;
        Some((sent, by))
    }

    /// What our answer will be, in a response that may get lost (RFC 6337 §3.1.1).
    pub(crate) fn preview(&mut self, mut sdp: Sdp) -> Sdp {
        if let Some(preview) = &self.preview {
            return (**preview).clone();
        }
        if let Exchange::Theirs { sdp: offer, .. } = &self.exchange {
            description::fit(&mut sdp, offer);
        }
        self.preview = Some(Box::new(sdp.clone()));
        sdp
    }

    /// Their answer. False where no offer of ours waits.
    pub(crate) fn take_answer(&mut self, answer: Sdp) -> bool {
        match std::mem::replace(&mut self.exchange, Exchange::Stable) {
            Exchange::Ours { sdp, .. } => {
                self.local = Some(sdp);
                self.remote = Some(Box::new(answer));
                true
            }
            other @ (Exchange::Empty | Exchange::Stable | Exchange::Theirs { .. }) => {
                self.exchange = other;
                false
            }
        }
    }

    /// The open offer came to nothing: what was agreed on before holds (RFC 3261 §14.1).
    pub(crate) fn roll_back(&mut self) {
        self.void |= matches!(self.exchange, Exchange::Ours { .. });
        self.exchange = if self.has_agreed() { Exchange::Stable } else { Exchange::Empty };
    }

    /// An offer that is the description which holds already: a refresh, which nobody needs to be asked about.
    pub(crate) fn is_unchanged(&self, offer: &Sdp) -> bool {
        self.is_stable()
            && self.remote.as_deref() == Some(offer)
            // An `actpass` of ours answers nothing (RFC 8842 §5.3).
            && self.local.as_deref().is_some_and(|local| !description::is_open_setup(local))
    }
}

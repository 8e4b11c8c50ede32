//! Dialogs: who talks to whom, by which route, with which numbers. Read RFC 3261 §12 before touching this file.

use crate::wire::sip::{CSeq, CallId, Headers, Host, Method, NameAddr, Replaces, Request, Response, SipUri, Tag, Uri};
use std::net::Ipv4Addr;

/// Early until a 2xx (RFC 3261 §12).
///
/// ```text
///   1xx with a tag ─▶ Early ── 2xx ─▶ Confirmed ── BYE ─▶ (dropped by its session)
///   2xx ────────────────────────────▶ Confirmed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Made by a provisional response.
    Early,
    /// Made or confirmed by a 2xx.
    Confirmed,
}

/// One dialog.
#[derive(Debug, Clone)]
pub struct Dialog {
    call_id: CallId,
    /// From of what we send, with our tag.
    local: NameAddr,
    /// To of what we send, with their tag.
    remote: NameAddr,
    local_tag: Tag,
    remote_tag: Tag,
    routes: Vec<NameAddr>,
    target: Uri,
    local_cseq: u32,
    remote_cseq: Option<u32>,
    phase: Phase,
}

/// The number of a request is not above the last one's (RFC 3261 §12.2.2: 500).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfOrder;

impl Dialog {
    /// The dialog that a response to our INVITE makes; `cseq` is the number that was sent in the end (RFC 3261 §12.1.2).
    /// A 2xx without a tag makes one too (RFC 2543 peers).
    #[must_use]
    pub fn caller(request: &Request, response: &Response, cseq: u32) -> Self {
        let mut routes = response.headers.record_route.clone();
        routes.reverse();
        let remote = response.headers.to.clone();
        Self {
            call_id: request.headers.call_id.clone(),
            local_tag: request.headers.from.tag().unwrap_or_else(no_tag),
            remote_tag: remote.tag().unwrap_or_else(no_tag),
            local: request.headers.from.clone(),
            remote,
            routes,
            // A Contact is owed (RFC 3261 §12.1.1); without it the address that was called is the best guess.
            target: response.headers.contact.first().map_or_else(|| request.uri.clone(), |c| c.uri.clone()),
            local_cseq: cseq,
            remote_cseq: None,
            phase: if response.status.is_success() { Phase::Confirmed } else { Phase::Early },
        }
    }

    /// The dialog that an INVITE to us makes with the first response that has our tag (RFC 3261 §12.1.1).
    #[must_use]
    pub fn callee(request: &Request, tag: Tag) -> Self {
        let mut local = request.headers.to.clone();
        local.params.set("tag", Some(tag.as_str()));
        let remote = request.headers.from.clone();
        Self {
            call_id: request.headers.call_id.clone(),
            local,
            remote_tag: remote.tag().unwrap_or_else(no_tag),
            local_tag: tag,
            routes: request.headers.record_route.clone(),
            target: request.headers.contact.first().map_or_else(|| remote.uri.clone(), |c| c.uri.clone()),
            remote,
            local_cseq: 0,
            remote_cseq: Some(request.headers.cseq.number),
            phase: Phase::Early,
        }
    }

    /// A 2xx confirms the dialog; its route set counts, whatever the provisional response said (RFC 3261 §13.2.2.4).
    pub fn confirm(&mut self, response: &Response, cseq: u32) {
        self.phase = Phase::Confirmed;
        self.routes = response.headers.record_route.clone();
        self.routes.reverse();
        self.sent(cseq);
        self.refresh(&response.headers.contact);
    }

    /// Our 2xx confirms the dialog.
    pub fn confirm_local(&mut self) {
        self.phase = Phase::Confirmed;
    }

    /// Its state.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Its Call-ID.
    #[must_use]
    pub fn call_id(&self) -> &CallId {
        &self.call_id
    }

    /// Our tag.
    #[must_use]
    pub fn local_tag(&self) -> &Tag {
        &self.local_tag
    }

    /// Our address in it.
    #[must_use]
    pub fn local(&self) -> &NameAddr {
        &self.local
    }

    /// Their address in it.
    #[must_use]
    pub fn remote(&self) -> &NameAddr {
        &self.remote
    }

    /// Their tag.
    #[must_use]
    pub fn remote_tag(&self) -> &Tag {
        &self.remote_tag
    }

    /// Where they are reached.
    #[must_use]
    pub fn target(&self) -> &Uri {
        &self.target
    }

    /// True for the other side's tag; tags are compared with case, as every known implementation does.
    #[must_use]
    pub fn is_remote(&self, tag: &Tag) -> bool {
        self.remote_tag == *tag
    }

    /// What names this dialog to a third one who is to take our peer's call over (RFC 3891 §3): the tags are as our peer
    /// sees them.
    #[must_use]
    pub fn replaces(&self) -> Replaces {
        Replaces {
            call_id: self.call_id.clone(),
            to_tag: self.remote_tag.clone(),
            from_tag: self.local_tag.clone(),
            early_only: false,
        }
    }

    /// A request with this number was sent in the end: the carrier counts on when it is challenged.
    pub fn sent(&mut self, cseq: u32) {
        self.local_cseq = self.local_cseq.max(cseq);
    }

    /// Takes the number of a request of theirs.
    ///
    /// # Errors
    /// [`OutOfOrder`] where it is not higher than all before (RFC 3261 §12.2.2).
    pub fn heard(&mut self, cseq: u32) -> Result<(), OutOfOrder> {
        match self.remote_cseq {
            Some(last) if cseq <= last => Err(OutOfOrder),
            Some(_) | None => {
                self.remote_cseq = Some(cseq);
                Ok(())
            }
        }
    }

    /// The remote target moves with each target refresh: INVITE, UPDATE and their 2xx (RFC 3261 §12.2, RFC 3311 §5.1).
    pub fn refresh(&mut self, contact: &[NameAddr]) {
        if let Some(contact) = contact.first() {
            self.target = contact.uri.clone();
        }
    }

    /// The next request in this dialog (RFC 3261 §12.2.1.1), without Contact and body.
    pub fn request(&mut self, method: Method) -> Request {
        self.local_cseq = self.local_cseq.saturating_add(1);
        self.numbered(method, self.local_cseq)
    }

    /// The ACK of a 2xx: same number as its INVITE (RFC 3261 §13.2.2.4).
    #[must_use]
    pub fn ack(&self, cseq: u32) -> Request {
        self.numbered(Method::Ack, cseq)
    }

    /// The route set as it is and the remote target: the carrier does what a strict router needs (RFC 3261 §12.2.1.1).
    fn numbered(&self, method: Method, number: u32) -> Request {
        let (local, remote, call_id) = (self.local.clone(), self.remote.clone(), self.call_id.clone());
        let mut request = Request::new(method, self.target.clone(), local, remote, call_id, number);
        request.headers.route.clone_from(&self.routes);
        request
    }

    /// Their Record-Route, which the responses that make a dialog copy (RFC 3261 §12.1.1).
    #[must_use]
    pub fn routes(&self) -> &[NameAddr] {
        &self.routes
    }
}

/// Headers of a response: the carrier copies From, To, Call-ID and `CSeq` from its request.
pub(crate) fn response_headers() -> Headers {
    let nobody = NameAddr::new(Uri::from(SipUri::new(None, Host::Ip(Ipv4Addr::UNSPECIFIED.into()))));
    let cseq = CSeq { number: 0, method: Method::Invite };
    Headers::new(nobody.clone(), nobody, CallId::lossy("-"), cseq)
}

/// What stands for the tag of a peer that has none (RFC 2543).
pub(crate) fn no_tag() -> Tag {
    Tag::lossy("-")
}

/// An address as a Request-URI: without what may not stand there (RFC 3261 §19.1.1).
pub(crate) fn request_uri(uri: Uri) -> Uri {
    match uri {
        Uri::Sip(mut uri) => {
            uri.headers.clear();
            uri.password = None;
            uri.params.remove("method");
            Uri::Sip(uri)
        }
        Uri::Tel(_) | Uri::Other(_) => uri,
    }
}

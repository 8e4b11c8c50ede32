//! One user agent whose peer is the test.

use offhook::sip::exchange::{FlowId, Heard, Origin, RequestId, ServerId, Transport, Wish};
use offhook::sip::session::{Context, Invitation, Local, Sdp, SessionEvent};
use offhook::sip::sessions::{SessionId, Sessions, SessionsConfig};
use offhook::wire::sip::{CallId, Header, Message, Method, NameAddr, RAck, Request, Response, Status, Tag, Token, Uri};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub(crate) fn uri(text: &str) -> Uri {
    text.parse().unwrap_or_else(|_| panic!("no address: {text}"))
}

pub(crate) fn addr(text: &str) -> NameAddr {
    NameAddr::new(uri(text))
}

pub(crate) fn local(user: &str) -> Local {
    Local {
        from: addr(&format!("sip:{user}@a.test")),
        contact: addr(&format!("sip:{user}@192.0.2.1")),
        route: Vec::new(),
    }
}

/// A description of one audio stream; `who` tells them apart.
pub(crate) fn sdp(who: &str, version: u64, direction: &str) -> Sdp {
    let text = format!(
        "v=0\r\no=- 77{} {version} IN IP4 192.0.2.1\r\ns={who}\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na={direction}\r\n",
        who.len()
    );
    Sdp::parse(text.as_bytes()).unwrap()
}

pub(crate) fn text(sdp: &Sdp) -> String {
    String::from_utf8(sdp.to_bytes()).unwrap()
}

pub(crate) fn body(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn origin() -> Origin {
    Origin { flow: FlowId(1), transport: Transport::Udp, source: "192.0.2.9:5060".parse().unwrap() }
}

pub(crate) fn status(code: u16) -> Status {
    Status::new(code).unwrap()
}

pub(crate) fn tokens(names: &[&str]) -> Vec<Token> {
    names.iter().map(|n| Token::new(n).unwrap()).collect()
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// A response of the peer's to a request of ours.
pub(crate) fn answer(request: &Request, code: u16, tag: &str) -> Response {
    let mut response = Response::to(request, status(code));
    response.headers.set_to_tag(&Tag::lossy(tag));
    response.headers.contact.push(addr(&format!("sip:{tag}@198.51.100.7")));
    response
}

pub(crate) fn with_sdp(mut response: Response, sdp: &Sdp) -> Response {
    response.set_body(offhook::wire::sip::ContentType::sdp(), sdp.to_bytes());
    response
}

pub(crate) fn reliable(mut response: Response, rseq: u32) -> Response {
    response.headers.push(Header::Require(tokens(&["100rel"])));
    response.headers.push(Header::RSeq(rseq));
    response
}

/// A user agent, its clock, and what it said so far.
pub(crate) struct Phone {
    pub(crate) sessions: Sessions,
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) wishes: VecDeque<(Duration, Wish)>,
    pub(crate) events: VecDeque<(SessionId, SessionEvent)>,
    next_server: u64,
}

/// The side of the test in one dialog.
pub(crate) struct Peer {
    pub(crate) call_id: CallId,
    /// From of what we send them, with their tag.
    pub(crate) theirs: NameAddr,
    pub(crate) ours: NameAddr,
    pub(crate) cseq: u32,
}

impl Peer {
    /// The next request in this dialog.
    pub(crate) fn request(&mut self, method: Method) -> Request {
        self.cseq += 1;
        let (from, to) = (self.theirs.clone(), self.ours.clone());
        let mut request = Request::new(method, uri("sip:us@192.0.2.1"), from, to, self.call_id.clone(), self.cseq);
        request.headers.contact.push(addr("sip:peer@198.51.100.7"));
        request
    }

    pub(crate) fn ack(&self, cseq: u32) -> Request {
        let (from, to) = (self.theirs.clone(), self.ours.clone());
        Request::new(Method::Ack, uri("sip:us@192.0.2.1"), from, to, self.call_id.clone(), cseq)
    }

    pub(crate) fn with_sdp(&mut self, method: Method, sdp: &Sdp) -> Request {
        let mut request = self.request(method);
        request.set_body(offhook::wire::sip::ContentType::sdp(), sdp.to_bytes());
        request
    }
}

impl Phone {
    pub(crate) fn new(context: Context) -> Self {
        #[allow(clippy::disallowed_methods, reason = "where virtual time begins")]
        let now = Instant::now();
        let config = SessionsConfig { context, contact: addr("sip:us@192.0.2.1"), seed: [3; 32] };
        Self {
            sessions: Sessions::new(config),
            now,
            start: now,
            wishes: VecDeque::new(),
            events: VecDeque::new(),
            next_server: 0,
        }
    }

    /// Takes out all it has to say. Requests and responses must be writable and readable.
    pub(crate) fn drain(&mut self) {
        while let Some(wish) = self.sessions.poll_wish() {
            match &wish {
                Wish::Request { request, .. } | Wish::Ack(request) => {
                    let bytes = Message::Request((**request).clone()).to_bytes();
                    assert!(Message::parse(&bytes).is_ok() || request.headers.via.is_empty(), "{}", body(&bytes));
                }
                _ => {}
            }
            self.wishes.push_back((self.now - self.start, wish));
        }
        while let Some(event) = self.sessions.poll_event() {
            self.events.push_back(event);
        }
    }

    pub(crate) fn hear(&mut self, heard: Heard) {
        self.sessions.handle_heard(self.now, heard);
        self.drain();
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.sessions.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.sessions.handle_timeout(self.now);
            self.drain();
            assert!(self.sessions.poll_timeout().is_none_or(|next| next > self.now), "a timer that fires for ever");
        }
        self.now = until;
    }

    pub(crate) fn act<T>(&mut self, verb: impl FnOnce(&mut Sessions, Instant) -> T) -> T {
        let done = verb(&mut self.sessions, self.now);
        self.drain();
        done
    }

    // ── what it said ────────────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn request(&mut self, method: Method) -> (RequestId, Request) {
        self.drain();
        match self.wishes.pop_front() {
            Some((_, Wish::Request { id, request })) if request.method == method => (id, *request),
            other => panic!("not {method:?}: {other:?}"),
        }
    }

    pub(crate) fn ack(&mut self) -> Request {
        self.drain();
        match self.wishes.pop_front() {
            Some((_, Wish::Ack(request))) => *request,
            other => panic!("no ACK: {other:?}"),
        }
    }

    pub(crate) fn cancel(&mut self) -> RequestId {
        self.drain();
        match self.wishes.pop_front() {
            Some((_, Wish::Cancel { id, .. })) => id,
            other => panic!("no CANCEL: {other:?}"),
        }
    }

    pub(crate) fn response(&mut self, to: ServerId) -> Response {
        self.drain();
        match self.wishes.pop_front() {
            Some((_, Wish::Response { id, response, to_tag })) if id == to => {
                assert!(to_tag.is_some());
                let mut response = *response;
                response.headers.set_to_tag(&to_tag.unwrap());
                response
            }
            other => panic!("no response: {other:?}"),
        }
    }

    pub(crate) fn silent(&mut self) {
        self.drain();
        assert!(self.wishes.is_empty(), "said {:?}", self.wishes);
    }

    pub(crate) fn event(&mut self) -> SessionEvent {
        self.drain();
        self.events.pop_front().map(|(_, event)| event).expect("no event")
    }

    pub(crate) fn quiet(&mut self) {
        self.drain();
        assert!(self.events.is_empty(), "told {:?}", self.events);
    }

    /// The end of a session, whatever was told before.
    pub(crate) fn end(&mut self) -> offhook::sip::session::End {
        self.drain();
        while let Some((_, event)) = self.events.pop_front() {
            if let SessionEvent::Ended(end) = event {
                return *end;
            }
        }
        panic!("no end");
    }

    // ── what the peer says ──────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn answer(&mut self, id: RequestId, response: Response) {
        let cseq = response.headers.cseq.number;
        self.hear(Heard::Response { id, response: Box::new(response), cseq, origin: origin() });
    }

    pub(crate) fn receive(&mut self, request: Request) -> ServerId {
        self.next_server += 1;
        let id = ServerId(self.next_server);
        self.hear(Heard::Request { id, request: Box::new(request), origin: origin() });
        id
    }

    // ── whole passages ──────────────────────────────────────────────────────────────────────────────────────────────

    /// Calls, with an offer.
    pub(crate) fn call(&mut self) -> (SessionId, RequestId, Request) {
        let invitation = Invitation::new(local("alice"), addr("sip:bob@b.test"), Some(sdp("alice", 1, "sendrecv")));
        let session = self.act(|s, now| s.invite(now, invitation)).unwrap();
        let (id, request) = self.request(Method::Invite);
        (session, id, request)
    }

    /// A call of ours that stands; the peer's tag is `bob`.
    pub(crate) fn call_up(&mut self) -> (SessionId, RequestId, Peer) {
        self.call_up_with(|_| {})
    }

    pub(crate) fn call_up_with(&mut self, change: impl FnOnce(&mut Response)) -> (SessionId, RequestId, Peer) {
        let (session, id, request) = self.call();
        let mut ok = with_sdp(answer(&request, 200, "bob"), &sdp("bob", 1, "sendrecv"));
        change(&mut ok);
        let peer = peer_of(&request, "bob");
        self.answer(id, ok);
        self.ack();
        self.events.clear();
        (session, id, peer)
    }

    /// An INVITE of the peer's, with an offer where there is one.
    pub(crate) fn invite(
        &mut self,
        offer: Option<&Sdp>,
        change: impl FnOnce(&mut Request),
    ) -> (SessionId, ServerId, Peer) {
        let (mut request, mut peer) = invite_of("77ab", offer);
        change(&mut request);
        let id = self.receive(request);
        let session = match self.events.pop_front() {
            Some((session, SessionEvent::Incoming(_))) => session,
            other => panic!("no call: {other:?} {:?}", self.wishes),
        };
        peer.ours = peer.ours.clone().with_tag(&Tag::lossy("?"));
        (session, id, peer)
    }

    /// A call of the peer's that stands.
    pub(crate) fn called_up(&mut self) -> (SessionId, Peer) {
        self.called_up_with(|_| {})
    }

    pub(crate) fn called_up_with(&mut self, change: impl FnOnce(&mut Request)) -> (SessionId, Peer) {
        let (session, id, mut peer) = self.invite(Some(&sdp("bob", 1, "sendrecv")), change);
        self.act(|s, now| s.accept(now, session, Some(sdp("alice", 1, "sendrecv")))).unwrap();
        let ok = self.response(id);
        assert_eq!(ok.status.code(), 200);
        peer.ours = ok.headers.to.clone();
        peer.fix(&ok);
        let ack = peer.ack(peer.cseq);
        self.hear(Heard::Ack(Box::new(ack)));
        assert_eq!(self.event(), SessionEvent::Confirmed);
        (session, peer)
    }
}

impl Peer {
    /// Takes our tag from a response.
    pub(crate) fn fix(&mut self, response: &Response) {
        self.ours = addr("sip:alice@a.test").with_tag(&response.headers.to.tag().unwrap());
    }
}

/// The peer's side of a dialog that our INVITE made.
pub(crate) fn peer_of(request: &Request, tag: &str) -> Peer {
    Peer {
        call_id: request.headers.call_id.clone(),
        theirs: request.headers.to.clone().with_tag(&Tag::lossy(tag)),
        ours: request.headers.from.clone(),
        cseq: 100,
    }
}

/// An INVITE of a peer.
pub(crate) fn invite_of(call_id: &str, offer: Option<&Sdp>) -> (Request, Peer) {
    let theirs = addr("sip:bob@b.test").with_tag(&Tag::lossy("bob"));
    let peer = Peer { call_id: CallId::lossy(call_id), theirs, ours: addr("sip:alice@a.test"), cseq: 1 };
    let (from, to) = (peer.theirs.clone(), peer.ours.clone());
    let mut request = Request::new(Method::Invite, uri("sip:us@192.0.2.1"), from, to, peer.call_id.clone(), 1);
    request.headers.contact.push(addr("sip:bob@198.51.100.7"));
    if let Some(offer) = offer {
        request.set_body(offhook::wire::sip::ContentType::sdp(), offer.to_bytes());
    }
    (request, peer)
}

pub(crate) fn rack(response: &Response, cseq: u32) -> Header {
    let rseq = response.headers.rseq().unwrap();
    Header::RAck(RAck { rseq, cseq: offhook::wire::sip::CSeq { number: cseq, method: Method::Invite } })
}

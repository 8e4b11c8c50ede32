//! Requests that stand alone: MESSAGE, OPTIONS, and those that find nothing here. Read RFC 3428, RFC 3261 §8.2 and §11
//! before touching this file.

use super::event::notifier::allow_events;
use super::exchange::{Failure, Heard, Owner, RequestId, ServerId, Transport, Wish};
use super::words;
use crate::config::SipLoneLimits;
use crate::wire::sip::{ContentType, Header, Method, NameAddr, Request, Response, SipText, Status, Token, Uri};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// The one body of MESSAGE that is spoken.
const TEXT: &str = "text/plain";
/// Bodies that are understood somewhere here, for `Accept`.
const ACCEPT: &str = "application/sdp, text/plain, application/dtmf-relay, message/sipfrag, application/pidf+xml, \
                      application/dialog-info+xml, application/simple-message-summary";

/// What is understood, here and in sessions.
const METHODS: [Method; 12] = [
    Method::Invite,
    Method::Ack,
    Method::Bye,
    Method::Cancel,
    Method::Options,
    Method::Prack,
    Method::Update,
    Method::Info,
    Method::Refer,
    Method::Subscribe,
    Method::Notify,
    Method::Message,
];

/// Extensions that may be required of us (RFC 3261 §20.32).
const EXTENSIONS: [&str; 4] = ["100rel", "timer", "replaces", "norefersub"];

/// Arguments of [`Lone::new`].
#[derive(Debug, Clone)]
pub struct LoneConfig {
    /// Who we are.
    pub identity: NameAddr,
    /// Where we are reached, for the carrier to complete.
    pub contact: NameAddr,
    /// Proxies to go by, topmost first; empty: as the carrier is set.
    pub route: Vec<NameAddr>,
    /// `User-Agent` and `Server`.
    pub user_agent: SipText,
    /// Caps.
    pub limits: SipLoneLimits,
}

/// How a request of ours ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The final answer.
    Answered {
        /// 200 to 699
        status: Status,
        /// Its words.
        reason: SipText,
    },
    /// There was none.
    Failed(Failure),
}

impl Outcome {
    /// True for 2xx.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        match self {
            Outcome::Answered { status, .. } => status.is_success(),
            Outcome::Failed(_) => false,
        }
    }
}

/// A text that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextMessage {
    /// Who says to have written it.
    pub from: NameAddr,
    /// Which address of ours it was sent to.
    pub to: Uri,
    /// `Subject`
    pub subject: Option<SipText>,
    /// As it came, line ends and all; whoever shows it escapes it.
    pub text: String,
}

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// By what.
    pub transport: Transport,
    /// From which address of ours.
    pub local: SocketAddr,
    /// To which one.
    pub remote: SocketAddr,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoneEvent {
    /// A text came.
    Message(Box<TextMessage>),
    /// A text of ours arrived, or did not. 202: somewhere on the way.
    Sent {
        /// Which.
        id: u32,
        /// How it ended.
        outcome: Outcome,
    },
    /// An OPTIONS of ours was answered, or was not.
    Options {
        /// Which.
        id: u32,
        /// How it ended.
        outcome: Outcome,
        /// What is understood there.
        allow: Vec<Method>,
    },
    /// How a request would travel.
    Way {
        /// Which.
        id: u32,
        /// It, or why there is none.
        way: Result<Way, Failure>,
    },
}

/// Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoneMisuse {
    /// RFC 3428 §8 allows no more.
    #[error("the text is longer than {0} bytes")]
    TooLong(usize),
    /// The cap is reached.
    #[error("too many requests at once")]
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Options,
    Way,
}

/// All requests of ours that stand alone.
#[derive(Debug)]
pub struct Lone {
    config: LoneConfig,
    rng: ChaCha20Rng,
    next: u32,
    pending: BTreeMap<u32, Kind>,
    wishes: VecDeque<Wish>,
    events: VecDeque<LoneEvent>,
}

/// Ours.
impl Lone {
    /// None yet.
    #[must_use]
    pub fn new(seed: [u8; 32], config: LoneConfig) -> Self {
        let rng = ChaCha20Rng::from_seed(seed);
        Self { config, rng, next: 0, pending: BTreeMap::new(), wishes: VecDeque::new(), events: VecDeque::new() }
    }

    /// Sends a text; [`LoneEvent::Sent`] follows.
    ///
    /// # Errors
    /// [`LoneMisuse`]
    pub fn message(&mut self, to: NameAddr, text: &str) -> Result<u32, LoneMisuse> {
        // RFC 3428 §8: 1 300 bytes of request; what goes past it with its headers goes by TCP (RFC 3261 §18.1.1).
        let longest = self.config.limits.message_bytes;
        if text.len() > longest {
            return Err(LoneMisuse::TooLong(longest));
        }
        let mut request = self.request(Method::Message, to);
        if let Some(mut content_type) = ContentType::new(TEXT) {
            content_type.params.set("charset", Some("UTF-8"));
            request.set_body(content_type, text.as_bytes().to_vec());
        }
        self.send(Kind::Message, request)
    }

    /// Asks what is understood there, or whether anybody is; [`LoneEvent::Options`] follows.
    ///
    /// # Errors
    /// [`LoneMisuse`]
    pub fn options(&mut self, to: NameAddr) -> Result<u32, LoneMisuse> {
        let mut request = self.request(Method::Options, to);
        request.headers.contact.push(self.config.contact.clone());
        request.headers.push(Header::Accept(SipText::new(ACCEPT)));
        self.send(Kind::Options, request)
    }

    /// Finds out how a request would travel, and opens the connection; [`LoneEvent::Way`] follows. For other schemes than
    /// SIP's own: how one to our own domain would.
    pub fn way(&mut self, to: &Uri) -> u32 {
        let number = self.number();
        let target = to.as_sip().or(self.config.identity.uri.as_sip()).cloned();
        match target {
            Some(uri) => {
                self.pending.insert(number, Kind::Way);
                self.wishes.push_back(Wish::Way { id: id_of(number), uri: Box::new(uri) });
            }
            None => {
                let way = Err(Failure::NoTarget(to.to_string()));
                self.events.push_back(LoneEvent::Way { id: number, way });
            }
        }
        number
    }

    /// Takes what the carrier heard for [`Owner::Lone`].
    pub fn handle_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Response { id: RequestId { owner: Owner::Lone(_), number }, response, .. } => {
                if !response.status.is_provisional() {
                    let Response { status, reason, headers, .. } = *response;
                    let outcome = Outcome::Answered { status, reason };
                    self.over(number, outcome, headers.allow().cloned().collect());
                }
            }
            Heard::Failed { id: RequestId { owner: Owner::Lone(_), number }, why } => {
                self.over(number, Outcome::Failed(why), Vec::new());
            }
            Heard::Way { id: RequestId { owner: Owner::Lone(_), number }, transport, local, remote } => {
                if self.pending.remove(&number).is_some() {
                    let way = Ok(Way { transport, local, remote });
                    self.events.push_back(LoneEvent::Way { id: number, way });
                }
            }
            Heard::Response { .. }
            | Heard::Failed { .. }
            | Heard::Way { .. }
            | Heard::FlowChanged { .. }
            | Heard::Request { .. }
            | Heard::Ack(_)
            | Heard::Confirmed(_)
            | Heard::Cancelled { .. } => {}
        }
    }

    /// The next request or answer for the carrier.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<LoneEvent> {
        self.events.pop_front()
    }

    /// Requests whose outcome is open.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.pending.len()
    }
}

/// Theirs: requests that the gate let in, outside dialogs, and that nobody else takes.
impl Lone {
    /// Answers a request.
    pub fn handle_request(&mut self, id: ServerId, request: &Request) {
        if let Some(unknown) = unknown_extensions(request) {
            return self.answer(id, request, Status::BAD_EXTENSION, vec![Header::Unsupported(unknown)]);
        }
        let outside = request.headers.to.tag().is_none();
        match &request.method {
            Method::Options if outside => self.answer(id, request, Status::OK, abilities()),
            Method::Message if outside => self.take_message(id, request),
            // A transfer without a call: to call somebody on the word of a request alone is not done (threat: REFER abuse).
            Method::Refer if outside => self.answer(id, request, Status::DECLINE, Vec::new()),
            // RFC 3261 §12.2.2: no such dialog.
            Method::Options
            | Method::Message
            | Method::Refer
            | Method::Invite
            | Method::Ack
            | Method::Bye
            | Method::Cancel
            | Method::Prack
            | Method::Update
            | Method::Info
            | Method::Subscribe
            | Method::Notify => self.answer(id, request, Status::NO_SUCH_TRANSACTION, Vec::new()),
            // RFC 3261 §8.2.1: known, and not for us.
            Method::Register | Method::Publish => {
                self.answer(id, request, Status::METHOD_NOT_ALLOWED, vec![Header::Allow(METHODS.to_vec())]);
            }
            Method::Other(_) => {
                self.answer(id, request, Status::NOT_IMPLEMENTED, vec![Header::Allow(METHODS.to_vec())])
            }
        }
    }

    /// Answers with nothing but a status and these headers.
    pub fn answer(&mut self, id: ServerId, request: &Request, status: Status, more: Vec<Header>) {
        let mut response = Response::to(request, status);
        response.headers.rest.extend(more);
        response.headers.push(Header::Server(self.config.user_agent.clone()));
        if request.method == Method::Options && status.is_success() {
            response.headers.contact.push(self.config.contact.clone());
        }
        let to_tag = request.headers.to.tag().is_none().then(|| words::tag(&mut self.rng));
        self.wishes.push_back(Wish::Response { id, to_tag, response: Box::new(response) });
    }

    fn take_message(&mut self, id: ServerId, request: &Request) {
        // RFC 3428 §7: text/plain is what everybody understands; without a type it is that.
        let plain = request.headers.content_type().is_none_or(|content| content.is(TEXT));
        let body = if plain { Some(request.body.as_slice()) } else { request.body_of(TEXT) };
        let Some(body) = body else {
            let accept = vec![Header::Accept(SipText::new(TEXT))];
            return self.answer(id, request, Status::UNSUPPORTED_MEDIA_TYPE, accept);
        };
        if body.len() > self.config.limits.incoming_bytes {
            return self.answer(id, request, Status::REQUEST_ENTITY_TOO_LARGE, Vec::new());
        }
        if self.events.len() >= self.config.limits.unread {
            let later = vec![Header::RetryAfter(self.config.limits.retry_after_s)];
            return self.answer(id, request, Status::SERVICE_UNAVAILABLE, later);
        }
        self.events.push_back(LoneEvent::Message(Box::new(TextMessage {
            from: request.headers.from.clone(),
            to: request.uri.clone(),
            subject: request.headers.subject().cloned(),
            text: String::from_utf8_lossy(body).into_owned(),
        })));
        // RFC 3428 §7: no body, no Contact.
        self.answer(id, request, Status::OK, Vec::new());
    }
}

impl Lone {
    fn request(&mut self, method: Method, to: NameAddr) -> Request {
        let from = self.config.identity.clone().with_tag(&words::tag(&mut self.rng));
        let call_id = words::call_id(&mut self.rng);
        let mut request = Request::new(method, to.uri.clone(), from, to, call_id, 1);
        request.headers.route.clone_from(&self.config.route);
        request.headers.push(Header::UserAgent(self.config.user_agent.clone()));
        request
    }

    fn send(&mut self, kind: Kind, request: Request) -> Result<u32, LoneMisuse> {
        if self.pending.len() >= self.config.limits.requests {
            return Err(LoneMisuse::Full);
        }
        let number = self.number();
        self.pending.insert(number, kind);
        self.wishes.push_back(Wish::Request { id: id_of(number), request: Box::new(request) });
        Ok(number)
    }

    fn number(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    fn over(&mut self, id: u32, outcome: Outcome, allow: Vec<Method>) {
        let event = match (self.pending.remove(&id), outcome) {
            (Some(Kind::Message), outcome) => LoneEvent::Sent { id, outcome },
            (Some(Kind::Options), outcome) => LoneEvent::Options { id, outcome, allow },
            (Some(Kind::Way), Outcome::Failed(why)) => LoneEvent::Way { id, way: Err(why) },
            // Nobody answers to a question that is not sent.
            (Some(Kind::Way), Outcome::Answered { .. }) | (None, _) => return,
        };
        self.events.push_back(event);
    }
}

/// What OPTIONS tells (RFC 3261 §11.2).
fn abilities() -> Vec<Header> {
    vec![
        Header::Allow(METHODS.to_vec()),
        Header::Accept(SipText::new(ACCEPT)),
        Header::Supported(EXTENSIONS.iter().map(|name| Token::lossy(name)).collect()),
        allow_events(),
    ]
}

/// RFC 3261 §8.2.2.3: what is required and not understood; `None` where there is nothing of it.
pub(super) fn unknown_extensions(request: &Request) -> Option<Vec<Token>> {
    let known = |token: &&Token| EXTENSIONS.iter().any(|name| token.is(name));
    let unknown: Vec<Token> = request.headers.require().filter(|token| !known(token)).cloned().collect();
    Some(unknown).filter(|unknown| !unknown.is_empty())
}

fn id_of(number: u32) -> RequestId {
    RequestId { owner: Owner::Lone(u64::from(number)), number }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]
    use super::*;
    use crate::wire::sip::CallId;

    fn lone(limits: SipLoneLimits) -> Lone {
        let me = NameAddr::new("sip:alice@example.com".parse().unwrap());
        let user_agent = SipText::new("test");
        Lone::new([1; 32], LoneConfig { identity: me.clone(), contact: me, route: Vec::new(), user_agent, limits })
    }

    fn text() -> Request {
        let bob = NameAddr::new("sip:bob@example.com".parse().unwrap());
        let mut request = Request::new(Method::Message, bob.uri.clone(), bob.clone(), bob, CallId::lossy("c"), 1);
        request.set_body(ContentType::new(TEXT).unwrap(), b"x".to_vec());
        request
    }

    fn code(lone: &mut Lone) -> u16 {
        match lone.poll_wish().unwrap() {
            Wish::Response { response, .. } => response.status.code(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn texts_that_nobody_reads_are_refused_until_somebody_does() {
        let mut lone = lone(SipLoneLimits { unread: 3, ..SipLoneLimits::default() });
        let mut codes = Vec::new();
        for number in 0..5 {
            lone.handle_request(ServerId(number), &text());
            codes.push(code(&mut lone));
        }
        assert_eq!(codes, [200, 200, 200, 503, 503]);
        lone.poll_event().unwrap();
        lone.handle_request(ServerId(9), &text());
        assert_eq!(code(&mut lone), 200);
    }

    #[test]
    fn requests_past_our_own_bound_are_not_sent() {
        let mut lone = lone(SipLoneLimits { requests: 2, ..SipLoneLimits::default() });
        let to = NameAddr::new("sip:bob@example.com".parse().unwrap());
        assert!(lone.message(to.clone(), "1").is_ok() && lone.options(to.clone()).is_ok());
        assert_eq!(lone.message(to, "3"), Err(LoneMisuse::Full));
        assert_eq!(lone.under_way(), 2);
    }
}

//! Registrations: where a registrar sends what is for us. Read RFC 3261 §10 and RFC 5626 §4.5 before touching this file.

use super::exchange::{Failure, Heard, LOCAL_HOST, Owner, RequestId, Wish};
use super::words;
use crate::config::SipRefresh;
use crate::wire::sip::{CallId, Header, Host, Method, NameAddr, Request, Response, SipText, Status, Tag, Uri};
use compact_str::CompactString;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Bindings of one answer that are read; an account rarely has ten.
const BINDINGS: usize = 32;
/// Times that a longer time is asked for after 423.
const TOO_BRIEF_TIMES: u8 = 3;
/// Changes of our own address that are followed at once; a NAT with a new port for every packet would have us register
/// for ever.
const MOVES: u8 = 3;
/// Bindings of former addresses that are taken out at a time.
const FORMER: usize = 4;

/// What is registered where.
#[derive(Debug, Clone)]
pub struct RegistrationConfig {
    /// The domain, without a user: `sip:pbx.example` (RFC 3261 §10.2).
    pub registrar: Uri,
    /// Whose address it is, with a name for people.
    pub identity: NameAddr,
    /// Proxies to go by, topmost first; empty: as the carrier is set.
    pub route: Vec<NameAddr>,
    /// Of our Contact. One that nobody guesses keeps strangers who dial addresses out, and tells our bindings from others.
    pub contact_user: CompactString,
    /// What the registrar is asked for.
    pub expires: Duration,
    /// `User-Agent`
    pub user_agent: SipText,
}

/// An address that the registrar knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Where.
    pub uri: Uri,
    /// It is this registration's.
    pub ours: bool,
    /// As of the answer.
    pub expires: Option<Duration>,
}

/// Why there is no registration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterFault {
    /// The registrar said no.
    #[error("refused: {} {reason}", status.code())]
    Refused {
        /// Its code.
        status: Status,
        /// Its words.
        reason: SipText,
    },
    /// There was no answer.
    #[error(transparent)]
    Failed(Failure),
    /// It said yes and does not know our address.
    #[error("the registrar does not have our address")]
    Missing,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterEvent {
    /// It stands.
    Registered {
        /// Which.
        id: u64,
        /// Unless it is refreshed, which happens by itself.
        until: Instant,
        /// All addresses of this account.
        bindings: Vec<Binding>,
    },
    /// An attempt failed.
    Failed {
        /// Which.
        id: u64,
        /// Why.
        why: RegisterFault,
        /// `None`: it stays so until [`Registrations::renew`].
        again: Option<Instant>,
        /// What stood before stands until then.
        until: Option<Instant>,
    },
    /// It does not stand any more: we took it back, or it ran out.
    Unregistered {
        /// Which.
        id: u64,
    },
}

/// What a REGISTER is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Bind our address.
    Bind,
    /// Take it back.
    Leave,
    /// Take all of the account's back: `Contact: *` (RFC 3261 §10.2.2).
    Clear,
}

/// ```text
///             ┌───────────────── half of its time, flow lost, address changed ─────────────────┐
///             ▼                                                                                │
///  new ─▶ Asking ── 2xx with our address ──────────────────────────────────────────────────▶ Holding
///          ▲  │ 423: longer, at once
///          │  ├── failure that may pass ─▶ Waiting ── 30 s · 2ⁿ, 50 to 100 % of it ──▶ Asking
///          │  ├── refused, and never registered ─▶ Resting ── renew() ──▶ Asking
///          │  └── 2xx or failure of leave() ─▶ Resting
///          └── what was wished meanwhile
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A REGISTER is under way; no other may be (RFC 3261 §10.2).
    Asking { number: u32, ask: Ask },
    /// Until then there is nothing to do.
    Holding { refresh: Instant },
    /// The next attempt is then.
    Waiting { again: Instant },
    /// Nothing is to be done.
    Resting,
}

#[derive(Debug)]
struct Registration {
    config: RegistrationConfig,
    call_id: CallId,
    tag: Tag,
    cseq: u32,
    number: u32,
    state: State,
    next: Option<Ask>,
    /// It stands until then.
    until: Option<Instant>,
    /// It stood once: what refuses it now is a fault that passes.
    stood: bool,
    expires_s: u32,
    too_brief: u8,
    failures: u32,
    moves: u8,
    former: Vec<NameAddr>,
}

/// All registrations of an agent.
#[derive(Debug)]
pub struct Registrations {
    refresh: SipRefresh,
    rng: ChaCha20Rng,
    all: BTreeMap<u64, Registration>,
    wishes: VecDeque<Wish>,
    events: VecDeque<RegisterEvent>,
}

impl Registrations {
    /// None yet.
    #[must_use]
    pub fn new(seed: [u8; 32], refresh: SipRefresh) -> Self {
        let rng = ChaCha20Rng::from_seed(seed);
        Self { refresh, rng, all: BTreeMap::new(), wishes: VecDeque::new(), events: VecDeque::new() }
    }

    /// Registers, and stays registered. `id`: of the caller's choice, replaces what had it.
    pub fn begin(&mut self, now: Instant, id: u64, config: RegistrationConfig) {
        let expires_s = u32::try_from(config.expires.as_secs()).unwrap_or(u32::MAX);
        let registration = Registration {
            call_id: words::call_id(&mut self.rng),
            tag: words::tag(&mut self.rng),
            cseq: 0,
            number: 0,
            state: State::Resting,
            next: None,
            until: None,
            stood: false,
            expires_s,
            too_brief: 0,
            failures: 0,
            moves: 0,
            former: Vec::new(),
            config,
        };
        self.all.insert(id, registration);
        self.ask(now, id, Ask::Bind);
    }

    /// Registers again at once: the network changed, or the user says so.
    pub fn renew(&mut self, now: Instant, id: u64) {
        if let Some(registration) = self.all.get_mut(&id) {
            registration.failures = 0;
        }
        self.ask(now, id, Ask::Bind);
    }

    /// The connection to the registrar was lost, or our address as others see it is another: what it knows is of no use
    /// (RFC 5626 §4.3).
    pub fn flow_changed(&mut self, now: Instant, id: u64) {
        let Some(registration) = self.all.get_mut(&id) else { return };
        match registration.state {
            State::Holding { .. } if registration.moves < MOVES => {
                registration.moves += 1;
                self.ask(now, id, Ask::Bind);
            }
            State::Asking { ask: Ask::Bind, .. } if registration.moves < MOVES => {
                registration.moves += 1;
                registration.next.get_or_insert(Ask::Bind);
            }
            State::Holding { .. } | State::Asking { .. } | State::Waiting { .. } | State::Resting => {}
        }
    }

    /// Takes our address back; [`RegisterEvent::Unregistered`] follows, whatever the registrar says.
    pub fn leave(&mut self, now: Instant, id: u64) {
        self.ask(now, id, Ask::Leave);
    }

    /// Takes every address of the account back, those of other devices too.
    pub fn clear(&mut self, now: Instant, id: u64) {
        self.ask(now, id, Ask::Clear);
    }

    /// True after [`Self::begin`].
    #[must_use]
    pub fn knows(&self, id: u64) -> bool {
        self.all.contains_key(&id)
    }

    /// When it runs out, if it stands.
    #[must_use]
    pub fn until(&self, id: u64) -> Option<Instant> {
        self.all.get(&id).and_then(|registration| registration.until)
    }

    /// Takes what the carrier heard for [`Owner::Registration`].
    pub fn handle_heard(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Response { id: RequestId { owner: Owner::Registration(id), number }, response, cseq, .. } => {
                let Some(ask) = self.asked(id, number) else { return };
                if let Some(registration) = self.all.get_mut(&id) {
                    registration.cseq = registration.cseq.max(cseq);
                }
                if !response.status.is_provisional() {
                    self.answered(now, id, ask, &response);
                }
            }
            Heard::Failed { id: RequestId { owner: Owner::Registration(id), number }, why } => {
                let Some(ask) = self.asked(id, number) else { return };
                let for_good = match why {
                    Failure::Certificate(_) | Failure::Unauthorized(_) => true,
                    Failure::TimedOut
                    | Failure::NoTarget(_)
                    | Failure::Unreachable(_)
                    | Failure::Cancelled
                    | Failure::Full => false,
                };
                self.failed(now, id, ask, RegisterFault::Failed(why), for_good, None);
            }
            Heard::FlowChanged { owner: Owner::Registration(id), .. } => self.flow_changed(now, id),
            Heard::Response { .. }
            | Heard::Failed { .. }
            | Heard::FlowChanged { .. }
            | Heard::Way { .. }
            | Heard::Request { .. }
            | Heard::Ack(_)
            | Heard::Confirmed(_)
            | Heard::Cancelled { .. } => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let ids: Vec<u64> = self.all.keys().copied().collect();
        for id in ids {
            let Some(registration) = self.all.get_mut(&id) else { continue };
            if registration.until.is_some_and(|until| until <= now) {
                registration.until = None;
                self.events.push_back(RegisterEvent::Unregistered { id });
            }
            match registration.state {
                State::Holding { refresh } if refresh <= now => {
                    registration.moves = 0;
                    self.ask(now, id, Ask::Bind);
                }
                State::Waiting { again } if again <= now => self.ask(now, id, Ask::Bind),
                State::Holding { .. } | State::Waiting { .. } | State::Asking { .. } | State::Resting => {}
            }
        }
    }

    /// When [`Self::handle_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.all.values().flat_map(|registration| {
            let next = match registration.state {
                State::Holding { refresh } => Some(refresh),
                State::Waiting { again } => Some(again),
                State::Asking { .. } | State::Resting => None,
            };
            [registration.until, next]
        });
        due.flatten().min()
    }

    /// The next request for the carrier.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<RegisterEvent> {
        self.events.pop_front()
    }
}

impl Registrations {
    /// What is being asked for, if the answer is to the last request.
    fn asked(&self, id: u64, number: u32) -> Option<Ask> {
        match self.all.get(&id)?.state {
            State::Asking { number: current, ask } if current == number => Some(ask),
            State::Asking { .. } | State::Holding { .. } | State::Waiting { .. } | State::Resting => None,
        }
    }

    fn ask(&mut self, now: Instant, id: u64, ask: Ask) {
        let Some(registration) = self.all.get_mut(&id) else { return };
        // RFC 3261 §10.2: "MUST NOT send a new registration … until they have received a final response".
        if let State::Asking { .. } = registration.state {
            registration.next = Some(ask);
            return;
        }
        registration.cseq = registration.cseq.saturating_add(1);
        registration.number = registration.number.wrapping_add(1);
        registration.state = State::Asking { number: registration.number, ask };
        let id = RequestId { owner: Owner::Registration(id), number: registration.number };
        let request = Box::new(registration.request(now, ask));
        self.wishes.push_back(Wish::Request { id, request });
    }

    fn answered(&mut self, now: Instant, id: u64, ask: Ask, response: &Response) {
        let Some(registration) = self.all.get_mut(&id) else { return };
        let status = response.status;
        if status.is_success() {
            match ask {
                Ask::Bind => self.bound(now, id, response),
                Ask::Leave | Ask::Clear => self.left(now, id),
            }
            return;
        }
        // RFC 3261 §10.2.8
        if status.code() == 423 && ask == Ask::Bind && registration.too_brief < TOO_BRIEF_TIMES {
            let longest = u32::try_from(self.refresh.longest.as_secs()).unwrap_or(u32::MAX);
            let wanted = response.headers.min_expires();
            if let Some(wanted) = wanted.filter(|s| (registration.expires_s.saturating_add(1)..=longest).contains(s)) {
                registration.too_brief += 1;
                registration.expires_s = wanted;
                registration.state = State::Resting;
                self.ask(now, id, Ask::Bind);
                return;
            }
        }
        let why = RegisterFault::Refused { status, reason: response.reason.clone() };
        let wait = response.headers.retry_after().map(|s| Duration::from_secs(s.into()));
        self.failed(now, id, ask, why, !words::may_pass(status) && wait.is_none(), wait);
    }

    fn bound(&mut self, now: Instant, id: u64, response: &Response) {
        let Some(registration) = self.all.get_mut(&id) else { return };
        let general = response.headers.expires();
        let mut bindings = Vec::new();
        let mut granted_s = None;
        let mut former = Vec::new();
        for contact in response.headers.contact.iter().take(BINDINGS) {
            let seconds = words::seconds(&contact.params, "expires").or(general);
            let ours = registration.is_ours(&contact.uri);
            if ours && is_current(&contact.uri) {
                granted_s = Some(seconds.unwrap_or(registration.expires_s));
            } else if ours {
                former.push(contact.clone());
            }
            let expires = seconds.map(|s| Duration::from_secs(s.into()));
            bindings.push(Binding { uri: contact.uri.clone(), ours, expires });
        }
        // A registrar or a box before it that writes our address otherwise than we did: it is ours by its user part.
        if granted_s.is_none() && !former.is_empty() {
            granted_s = former.iter().filter_map(|c| words::seconds(&c.params, "expires").or(general)).max();
            granted_s = Some(granted_s.unwrap_or(registration.expires_s));
            former.clear();
        }
        // Lenient: RFC 3261 §10.3 asks for the list, and a few leave it out.
        if response.headers.contact.is_empty() {
            granted_s = Some(general.unwrap_or(registration.expires_s));
        }
        let Some(granted_s) = granted_s.filter(|seconds| *seconds > 0) else {
            self.failed(now, id, Ask::Bind, RegisterFault::Missing, false, None);
            return;
        };
        let granted = Duration::from_secs(granted_s.into()).min(self.refresh.longest);
        let until = now + granted;
        // Half of it, and up to a tenth less, so that the phones of a restarted registrar do not return in step.
        let percent = 45 + self.rng.next_u32() % 6;
        let refresh = now + (granted / 100 * percent).max(self.refresh.shortest);
        former.truncate(FORMER);
        let fresh_former = !former.is_empty() && registration.former.is_empty();
        registration.former = former;
        registration.until = Some(until);
        registration.stood = true;
        registration.failures = 0;
        registration.too_brief = 0;
        registration.state = State::Holding { refresh };
        self.events.push_back(RegisterEvent::Registered { id, until, bindings });
        let next = registration.next.take().or_else(|| fresh_former.then_some(Ask::Bind));
        if let Some(next) = next {
            self.ask(now, id, next);
        }
    }

    fn left(&mut self, now: Instant, id: u64) {
        let Some(registration) = self.all.get_mut(&id) else { return };
        registration.until = None;
        registration.state = State::Resting;
        self.events.push_back(RegisterEvent::Unregistered { id });
        if let Some(next) = registration.next.take() {
            self.ask(now, id, next);
        }
    }

    fn failed(&mut self, now: Instant, id: u64, ask: Ask, why: RegisterFault, for_good: bool, wait: Option<Duration>) {
        if ask != Ask::Bind {
            return self.left(now, id);
        }
        let Some(registration) = self.all.get_mut(&id) else { return };
        registration.failures = registration.failures.saturating_add(1);
        let next = registration.next.take();
        if let Some(next) = next.filter(|next| *next != Ask::Bind) {
            registration.state = State::Resting;
            return self.ask(now, id, next);
        }
        let again = if for_good && !registration.stood {
            registration.state = State::Resting;
            None
        } else {
            let again = now + words::backoff(&self.refresh, registration.failures, wait, &mut self.rng);
            registration.state = State::Waiting { again };
            Some(again)
        };
        self.events.push_back(RegisterEvent::Failed { id, why, again, until: registration.until });
    }
}

impl Registration {
    fn request(&self, now: Instant, ask: Ask) -> Request {
        let config = &self.config;
        let (uri, address) = (config.registrar.clone(), config.identity.clone());
        let from = address.clone().with_tag(&self.tag);
        let mut request = Request::new(Method::Register, uri, from, address, self.call_id.clone(), self.cseq);
        request.headers.route = config.route.clone();
        request.headers.rest.push(Header::UserAgent(config.user_agent.clone()));
        let expires_s = match ask {
            Ask::Bind => self.expires_s,
            Ask::Leave | Ask::Clear => 0,
        };
        request.headers.rest.push(Header::Expires(expires_s));
        if ask == Ask::Clear {
            request.headers.contact_star = true;
            return request;
        }
        let mut contact = words::local_contact(&config.contact_user);
        contact.params.set("expires", Some(&expires_s.to_string()));
        request.headers.contact.push(contact);
        // What a former address of ours is bound to would ring nowhere.
        let standing = self.until.is_some_and(|until| until > now);
        for former in self.former.iter().filter(|_| standing) {
            let mut former = NameAddr::new(former.uri.clone());
            former.params.set("expires", Some("0"));
            request.headers.contact.push(former);
        }
        request
    }

    fn is_ours(&self, uri: &Uri) -> bool {
        uri.as_sip().is_some_and(|uri| uri.user.as_ref() == Some(&self.config.contact_user))
    }
}

/// The carrier writes our address, and turns it back in answers.
fn is_current(uri: &Uri) -> bool {
    uri.host().is_some_and(|host| matches!(host, Host::Name(name) if **name == *LOCAL_HOST))
}

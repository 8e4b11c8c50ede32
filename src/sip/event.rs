//! Subscriptions both ways, and publications: who is there, who talks, whether messages wait. Read RFC 6665 §4, RFC 3856,
//! RFC 4235 §3, RFC 3842 §3 and RFC 3903 §4 before touching this file.
//!
//! `event/subscriber.rs` asks others, `event/notifier.rs` tells others, `event/publication.rs` tells a server that tells
//! others.

pub(super) mod notifier;
mod publication;
mod subscriber;

use super::exchange::{Failure, Heard, Owner, RequestId, ServerId, Wish};
use crate::config::{SipEventLimits, SipRefresh, SipTimers};
use crate::wire::event_body::{DialogInfo, MessageSummary, Presence};
use crate::wire::sip::{
    ContentType, Event, Header, Method, NameAddr, Params, Request, Response, SipText, Status, Tag, Token, Uri,
};
use notifier::Watcher;
use publication::Publication;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use subscriber::Subscription;

/// What is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Package {
    /// RFC 3856
    Presence,
    /// RFC 4235: the busy lamp.
    Dialog,
    /// RFC 3842: the message lamp.
    MessageSummary,
}

impl Package {
    /// Every one.
    pub const ALL: [Package; 3] = [Package::Presence, Package::Dialog, Package::MessageSummary];

    /// In `Event`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Package::Presence => "presence",
            Package::Dialog => "dialog",
            Package::MessageSummary => "message-summary",
        }
    }

    /// Media type of its documents.
    #[must_use]
    pub const fn media(self) -> &'static str {
        match self {
            Package::Presence => Presence::MEDIA,
            Package::Dialog => DialogInfo::MEDIA,
            Package::MessageSummary => MessageSummary::MEDIA,
        }
    }

    /// Of an `Event`.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        Self::ALL.into_iter().find(|package| event.package.is(package.name()))
    }

    fn header(self) -> Header {
        Header::Event(Event { package: Token::lossy(self.name()), params: Params::default() })
    }
}

/// What a notification says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Who is there, and what he does.
    Presence(Presence),
    /// Who talks.
    Dialogs(DialogInfo),
    /// Whether messages wait.
    Messages(MessageSummary),
}

impl Document {
    /// `None` where it is not the package's, or not of its grammar.
    fn read(package: Package, request: &Request) -> Option<Self> {
        let body = request.body_of(package.media())?;
        match package {
            Package::Presence => Presence::parse(body).ok().map(Document::Presence),
            Package::Dialog => DialogInfo::parse(body).ok().map(Document::Dialogs),
            Package::MessageSummary => MessageSummary::parse(body).ok().map(Document::Messages),
        }
    }

    /// Nothing known: not reachable, no dialogs, no messages.
    fn neutral(package: Package, entity: &Uri) -> Self {
        let entity = entity.to_string().into();
        match package {
            Package::Presence => Document::Presence(Presence { entity, ..Presence::default() }),
            Package::Dialog => Document::Dialogs(DialogInfo { entity, full: true, ..DialogInfo::default() }),
            Package::MessageSummary => Document::Messages(MessageSummary::default()),
        }
    }

    /// Of which package it is.
    #[must_use]
    pub const fn package(&self) -> Package {
        match self {
            Document::Presence(_) => Package::Presence,
            Document::Dialogs(_) => Package::Dialog,
            Document::Messages(_) => Package::MessageSummary,
        }
    }

    /// Put into a request. `version`: of the subscription, for documents that count (RFC 4235 §4.1).
    fn write(&self, request: &mut Request, version: u32) {
        let body = match self {
            Document::Presence(presence) => presence.to_body(),
            Document::Dialogs(dialogs) => DialogInfo { version, ..dialogs.clone() }.to_body(),
            Document::Messages(messages) => messages.to_body(),
        };
        if let Some(content_type) = ContentType::new(self.package().media()) {
            request.set_body(content_type, body);
        }
    }
}

/// Arguments of [`Events::new`].
#[derive(Debug, Clone)]
pub struct EventsConfig {
    /// Whose address subscribes, and whose state is published.
    pub identity: NameAddr,
    /// Where we are reached, for the carrier to complete.
    pub contact: NameAddr,
    /// Proxies to go by, topmost first; empty: as the carrier is set.
    pub route: Vec<NameAddr>,
    /// `User-Agent`
    pub user_agent: SipText,
    /// Waits.
    pub refresh: SipRefresh,
    /// Caps.
    pub limits: SipEventLimits,
    /// T1 sets timer N (RFC 6665 §4.1.2.4).
    pub timers: SipTimers,
}

/// Why a subscription or publication does not stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventFault {
    /// Refused.
    #[error("refused: {} {reason}", status.code())]
    Refused {
        /// 300 to 699
        status: Status,
        /// Its words.
        reason: SipText,
    },
    /// No answer.
    #[error(transparent)]
    Failed(Failure),
    /// It was agreed to, and no NOTIFY came within timer N.
    #[error("agreed to, but nothing was told")]
    Silent,
    /// The notifier ended it: `deactivated`, `probation`, `rejected`, `timeout`, `giveup`, `noresource`, `invariant`.
    #[error("ended there: {0}")]
    Terminated(SipText),
    /// It ran out.
    #[error("ran out")]
    Expired,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventNews {
    /// A notification came.
    Notified {
        /// Of this subscription.
        id: u64,
        /// The other side has not agreed yet.
        pending: bool,
        /// `None`: without a body, or with one that is not understood.
        document: Option<Document>,
    },
    /// A notification came that nobody subscribed to: PBXs tell of waiting messages so (RFC 3842 §3 knows it not).
    Unsolicited(Document),
    /// A subscription or publication does not stand now. Ids of both.
    Lost {
        /// Which.
        id: u64,
        /// Why.
        why: EventFault,
        /// The next attempt; `None`: it is over.
        again: Option<Instant>,
    },
    /// It was ended by our verb.
    Ended {
        /// Which.
        id: u64,
    },
    /// A publication stands.
    Published {
        /// Which.
        id: u64,
        /// Unless refreshed, which happens by itself.
        until: Instant,
    },
    /// Somebody subscribed to something of ours.
    Watched {
        /// To name him by.
        id: u64,
        /// What.
        package: Package,
        /// Who; a claim.
        from: NameAddr,
        /// User part of the address he asked for.
        user: String,
    },
    /// He does not any more.
    Unwatched {
        /// Which.
        id: u64,
    },
}

/// The cap is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many subscriptions")]
pub struct TooManyEvents;

/// What a request of ours is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Begin,
    Refresh,
    /// Of a publication: another document.
    Modify,
    End,
}

/// All subscriptions of ours, those of others at us, and publications.
#[derive(Debug)]
pub struct Events {
    shared: Shared,
    subscriptions: BTreeMap<u64, Subscription>,
    watchers: BTreeMap<u64, Watcher>,
    publications: BTreeMap<u64, Publication>,
    /// What watchers are shown, by user and package.
    shown: BTreeMap<(String, Package), Document>,
}

/// What each of them needs.
#[derive(Debug)]
struct Shared {
    config: EventsConfig,
    rng: ChaCha20Rng,
    next_id: u64,
    wishes: VecDeque<Wish>,
    news: VecDeque<EventNews>,
}

/// The verbs.
impl Events {
    /// None yet.
    #[must_use]
    pub fn new(seed: [u8; 32], config: EventsConfig) -> Self {
        let rng = ChaCha20Rng::from_seed(seed);
        let shared = Shared { config, rng, next_id: 0, wishes: VecDeque::new(), news: VecDeque::new() };
        Self {
            shared,
            subscriptions: BTreeMap::new(),
            watchers: BTreeMap::new(),
            publications: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    /// Subscribes, and stays subscribed until told otherwise.
    ///
    /// # Errors
    /// [`TooManyEvents`]
    pub fn subscribe(&mut self, now: Instant, to: NameAddr, package: Package) -> Result<u64, TooManyEvents> {
        if self.subscriptions.len() >= self.shared.config.limits.subscriptions {
            return Err(TooManyEvents);
        }
        let id = self.shared.new_id();
        let mut subscription = Subscription::new(id, to, package, &mut self.shared);
        subscription.ask(now, Ask::Begin, &mut self.shared);
        self.subscriptions.insert(id, subscription);
        Ok(id)
    }

    /// Ends a subscription or a publication; [`EventNews::Ended`] follows.
    pub fn end(&mut self, now: Instant, id: u64) {
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.end(now, &mut self.shared);
        } else if let Some(publication) = self.publications.get_mut(&id) {
            publication.ask(Ask::End, &mut self.shared);
        }
        self.sweep();
    }

    /// Publishes a document of ours at the server of our own address (RFC 3903), and keeps it published.
    ///
    /// # Errors
    /// [`TooManyEvents`]
    pub fn publish(&mut self, document: Document) -> Result<u64, TooManyEvents> {
        if self.publications.len() >= self.shared.config.limits.publications {
            return Err(TooManyEvents);
        }
        let id = self.shared.new_id();
        let mut publication = Publication::new(id, document, &mut self.shared);
        publication.ask(Ask::Begin, &mut self.shared);
        self.publications.insert(id, publication);
        Ok(id)
    }

    /// Another document for a publication.
    pub fn republish(&mut self, id: u64, document: Document) {
        if let Some(publication) = self.publications.get_mut(&id) {
            publication.modify(document, &mut self.shared);
        }
    }

    /// What watchers of this user part are shown from now on.
    pub fn show(&mut self, now: Instant, user: &str, document: Document) {
        let package = document.package();
        self.shown.insert((user.to_owned(), package), document);
        for watcher in self.watchers.values_mut().filter(|w| w.package() == package && w.user() == user) {
            watcher.changed(now, &self.shared.config.limits);
        }
        self.notify(now);
    }

    /// Tells every watcher that there is nothing more to see here.
    pub fn close(&mut self, now: Instant) {
        for watcher in self.watchers.values_mut() {
            watcher.close("noresource");
        }
        self.notify(now);
    }
}

/// What comes in.
impl Events {
    /// True for a request inside a dialog of a subscription, ours or theirs.
    #[must_use]
    pub fn knows(&self, request: &Request) -> bool {
        self.subscription_of(request).is_some() || self.watcher_of(request).is_some()
    }

    /// Takes a SUBSCRIBE or NOTIFY, known or new. `trusted`: a notification that nobody asked for may be believed.
    pub fn handle_request(&mut self, now: Instant, id: ServerId, request: &Request, trusted: bool) {
        match request.method {
            Method::Notify => self.take_notify(now, id, request, trusted),
            Method::Subscribe => self.take_subscribe(now, id, request),
            Method::Invite
            | Method::Ack
            | Method::Bye
            | Method::Cancel
            | Method::Options
            | Method::Register
            | Method::Prack
            | Method::Update
            | Method::Info
            | Method::Refer
            | Method::Publish
            | Method::Message
            | Method::Other(_) => self.shared.answer(id, request, Status::METHOD_NOT_ALLOWED, None, Vec::new()),
        }
        self.sweep();
    }

    /// Takes what the carrier heard for [`Owner::Event`].
    pub fn handle_heard(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Response { id: RequestId { owner: Owner::Event(id), number }, response, cseq, .. } => {
                if response.status.is_provisional() {
                    return;
                }
                if let Some(subscription) = self.subscriptions.get_mut(&id) {
                    subscription.answered(now, number, &response, cseq, &mut self.shared);
                } else if let Some(watcher) = self.watchers.get_mut(&id) {
                    watcher.answered(now, number, &response, cseq, &self.shared.config.limits);
                } else if let Some(publication) = self.publications.get_mut(&id) {
                    publication.answered(now, number, &response, cseq, &mut self.shared);
                }
            }
            Heard::Failed { id: RequestId { owner: Owner::Event(id), number }, why } => {
                if let Some(subscription) = self.subscriptions.get_mut(&id) {
                    subscription.failed(now, number, why, &mut self.shared);
                } else if let Some(watcher) = self.watchers.get_mut(&id) {
                    watcher.failed(number);
                } else if let Some(publication) = self.publications.get_mut(&id) {
                    publication.failed(now, number, why, &mut self.shared);
                }
            }
            Heard::FlowChanged { owner: Owner::Event(id), .. } => {
                if let Some(subscription) = self.subscriptions.get_mut(&id) {
                    subscription.flow_changed(now, &mut self.shared);
                }
            }
            Heard::Response { .. }
            | Heard::Failed { .. }
            | Heard::FlowChanged { .. }
            | Heard::Way { .. }
            | Heard::Request { .. }
            | Heard::Ack(_)
            | Heard::Confirmed(_)
            | Heard::Cancelled { .. } => {}
        }
        self.notify(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for subscription in self.subscriptions.values_mut() {
            subscription.handle_timeout(now, &mut self.shared);
        }
        for publication in self.publications.values_mut() {
            publication.handle_timeout(now, &mut self.shared);
        }
        self.notify(now);
    }

    /// When [`Self::handle_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let subscriptions = self.subscriptions.values().filter_map(Subscription::due);
        let publications = self.publications.values().filter_map(Publication::due);
        subscriptions.chain(publications).chain(self.watchers.values().filter_map(Watcher::due)).min()
    }

    /// The next request or answer for the carrier.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.shared.wishes.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<EventNews> {
        self.shared.news.pop_front()
    }
}

impl Events {
    fn subscription_of(&self, request: &Request) -> Option<u64> {
        let tag = request.headers.to.tag()?;
        let found = self.subscriptions.iter().find(|(_, s)| s.is_named(&request.headers.call_id, &tag));
        found.map(|(id, _)| *id)
    }

    fn watcher_of(&self, request: &Request) -> Option<u64> {
        let tag = request.headers.to.tag()?;
        self.watchers.iter().find(|(_, w)| w.is_named(&request.headers.call_id, &tag)).map(|(id, _)| *id)
    }

    fn take_notify(&mut self, now: Instant, id: ServerId, request: &Request, trusted: bool) {
        let known = self.subscription_of(request);
        if let Some(subscription) = known.and_then(|id| self.subscriptions.get_mut(&id)) {
            subscription.notified(now, id, request, &mut self.shared);
            return;
        }
        let package = request.headers.event().and_then(Package::of);
        let unsolicited = package.filter(|_| trusted && request.headers.to.tag().is_none());
        let document = unsolicited.and_then(|package| Document::read(package, request));
        let status = match document {
            // Asterisk and others tell the mailbox of a registered telephone so.
            Some(document) if document.package() == Package::MessageSummary => {
                self.shared.news.push_back(EventNews::Unsolicited(document));
                Status::OK
            }
            // RFC 6665 §4.1.3
            Some(_) | None => Status::NO_SUCH_TRANSACTION,
        };
        self.shared.answer(id, request, status, None, Vec::new());
    }

    fn take_subscribe(&mut self, now: Instant, id: ServerId, request: &Request) {
        if request.headers.to.tag().is_some() {
            match self.watcher_of(request).and_then(|id| self.watchers.get_mut(&id)) {
                Some(watcher) => watcher.refreshed(now, id, request, &mut self.shared),
                None => self.shared.answer(id, request, Status::NO_SUCH_TRANSACTION, None, Vec::new()),
            }
        } else {
            let full = self.watchers.len() >= self.shared.config.limits.watchers;
            if let Some((number, watcher)) = Watcher::accept(now, id, request, full, &mut self.shared) {
                self.watchers.insert(number, watcher);
            }
        }
        self.notify(now);
    }

    /// Sends the notifications that are due.
    fn notify(&mut self, now: Instant) {
        for (id, watcher) in &mut self.watchers {
            let shown = self.shown.get(&(watcher.user().to_owned(), watcher.package()));
            watcher.notify(now, *id, shown, &mut self.shared);
        }
        self.sweep();
    }

    /// Takes out what is over.
    fn sweep(&mut self) {
        self.subscriptions.retain(|_, subscription| !subscription.is_over());
        self.publications.retain(|_, publication| !publication.is_over());
        let news = &mut self.shared.news;
        self.watchers.retain(|id, watcher| {
            if watcher.is_over() {
                news.push_back(EventNews::Unwatched { id: *id });
            }
            !watcher.is_over()
        });
    }
}

impl Shared {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn timer_n(&self) -> Duration {
        self.config.timers.t1 * 64
    }

    fn send(&mut self, id: u64, number: u32, mut request: Request) {
        request.headers.rest.push(Header::UserAgent(self.config.user_agent.clone()));
        let id = RequestId { owner: Owner::Event(id), number };
        self.wishes.push_back(Wish::Request { id, request: Box::new(request) });
    }

    fn answer(&mut self, id: ServerId, request: &Request, status: Status, to_tag: Option<Tag>, more: Vec<Header>) {
        let mut response = Response::to(request, status);
        response.headers.rest.extend(more);
        if status.is_success() && request.method == Method::Subscribe {
            response.headers.contact.push(self.config.contact.clone());
        }
        self.wishes.push_back(Wish::Response { id, to_tag, response: Box::new(response) });
    }
}

/// Of [`EventsConfig`], in seconds.
fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

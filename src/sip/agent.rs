//! The SIP user agent: one account with its registration, sessions, subscriptions and lone requests over one carrier.
//! Read RFC 3261 §8 and §10 before touching this file.
//!
//! ```text
//!  application   register, sessions().invite, message, subscribe, … ▼      ▲ SipEvent
//!                ┌────────────────┬──────────────┬───────────────┬─────────────┐
//!                │ sip/register   │ sip/sessions │ sip/event     │ sip/message │
//!                └────────────────┴──────────────┴───────────────┴─────────────┘
//!                     Wish ▼                ▲ Heard, by owner; requests of others past sip/policy
//!                                    sip/carrier
//!  shell                SipOutput ▼                ▲ SipInput
//! ```
//! One mutation, then drain: [`Agent::poll_output`] and [`Agent::poll_event`] until both are empty.

use super::auth::Login;
use super::carrier::{Carrier, CarrierConfig, CarrierOutput};
use super::event::{Document, EventNews, Events, EventsConfig, Package, TooManyEvents};
use super::exchange::{Failure, FlowId, Heard, Origin, Owner, ServerId, Transport};
use super::flow::{FlowInfo, SipInput, SipOutput};
use super::message::{Lone, LoneConfig, LoneEvent, LoneMisuse, Outcome, TextMessage, Way};
use super::policy::{Gate, Passage, Policy};
use super::register::{Binding, RegisterEvent, RegisterFault, RegistrationConfig, Registrations};
use super::session::{Context, Local, SessionEvent, Trust};
use super::sessions::{SessionId, Sessions, SessionsConfig};
use super::words;
use crate::config::{
    Secret, SipEventLimits, SipFlowLimits, SipLimits, SipLocateLimits, SipLoneLimits, SipRefresh, SipSessionLimits,
    SipSessionTimers, SipTimers,
};
use crate::wire::sip::{Method, NameAddr, SipText, SipUri, Uri};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The one registration of an agent.
const ACCOUNT: u64 = 0;

/// Timers and caps of every part.
#[derive(Debug, Clone, Default)]
pub struct AgentLimits {
    /// Of transactions.
    pub timers: SipTimers,
    /// Of transactions.
    pub transactions: SipLimits,
    /// Of sockets and connections.
    pub flows: SipFlowLimits,
    /// Of look-ups.
    pub locate: SipLocateLimits,
    /// Of sessions.
    pub session_timers: SipSessionTimers,
    /// Of sessions.
    pub sessions: SipSessionLimits,
    /// Of registrations, subscriptions and publications.
    pub refresh: SipRefresh,
    /// Of subscriptions and publications.
    pub events: SipEventLimits,
    /// Of lone requests.
    pub lone: SipLoneLimits,
}

/// Arguments of [`Agent::new`].
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Who we are: name and address.
    pub identity: NameAddr,
    /// Where to register: `sip:pbx.example`, with `;transport=` where one is wished. `None`: not at all.
    pub registrar: Option<Uri>,
    /// Where requests without a route go first (RFC 3261 §8.1.2).
    pub outbound: Option<SipUri>,
    /// Names and passwords; see [`AgentConfig::login`].
    pub logins: Vec<Login>,
    /// What is listened on, for calls that come without a registration.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// How long a registration is asked for.
    pub expires: Duration,
    /// `User-Agent` and `Server`.
    pub user_agent: SipText,
    /// Whose requests are taken.
    pub policy: Policy,
    /// What sessions allow.
    pub sessions: super::session::Policy,
    /// Timers and caps.
    pub limits: AgentLimits,
}

impl AgentConfig {
    /// Registered nowhere, without a password, listening nowhere; calls are taken only from where one registers.
    #[must_use]
    pub fn new(identity: NameAddr) -> Self {
        Self {
            identity,
            registrar: None,
            outbound: None,
            logins: Vec::new(),
            listen: Vec::new(),
            // RFC 3261 §10.2 leaves it open; an hour is what everybody asks for.
            expires: Duration::from_secs(3600),
            user_agent: SipText::new(concat!("offhook/", env!("CARGO_PKG_VERSION"))),
            policy: Policy::default(),
            sessions: super::session::Policy::default(),
            limits: AgentLimits::default(),
        }
    }

    /// Adds a name and password, which the hosts of the identity, the registrar and the outbound proxy may ask for: to be
    /// called after those are set. `realm`: the only one that is answered, where it is known.
    pub fn login(&mut self, username: &str, password: Secret, realm: Option<&str>) {
        let hosts = [self.identity.uri.host(), self.registrar.as_ref().and_then(Uri::host)];
        let mut hosts: BTreeSet<_> = hosts.into_iter().flatten().cloned().collect();
        hosts.extend(self.outbound.as_ref().map(|outbound| outbound.host.clone()));
        self.logins.push(Login { username: username.to_owned(), password, realm: realm.map(str::to_owned), hosts });
    }
}

/// Names a question of [`Agent::prepare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WayKey(pub u32);

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum SipEvent {
    /// The registration stands; it is refreshed by itself, which is told too.
    Registered {
        /// Whose.
        address: NameAddr,
        /// Unless it is refreshed.
        until: Instant,
        /// All addresses of the account.
        bindings: Vec<Binding>,
    },
    /// Registering failed.
    Unregistered {
        /// Why.
        why: RegisterFault,
        /// The next attempt; `None`: it stays so until [`Agent::register`].
        again: Option<Instant>,
        /// What stood before still stands until then.
        until: Option<Instant>,
    },
    /// The registration ran out, or was taken back.
    Left,
    /// Of a call.
    Session(SessionId, SessionEvent),
    /// How a request would travel.
    Way {
        /// Which question.
        key: WayKey,
        /// The answer.
        way: Result<Way, Failure>,
    },
    /// A text came.
    Message(Box<TextMessage>),
    /// A text of ours arrived, or did not.
    MessageSent {
        /// Which.
        id: u32,
        /// How it ended.
        outcome: Outcome,
    },
    /// An OPTIONS of ours is over.
    Options {
        /// Which.
        id: u32,
        /// How it ended.
        outcome: Outcome,
        /// What is understood there.
        allow: Vec<Method>,
    },
    /// Of subscriptions and publications.
    Event(EventNews),
}

/// One SIP account.
#[derive(Debug)]
pub struct Agent {
    identity: NameAddr,
    contact: NameAddr,
    carrier: Carrier,
    gate: Gate,
    registrations: Registrations,
    sessions: Sessions,
    events: Events,
    lone: Lone,
    context: Context,
    registration: Option<RegistrationConfig>,
    /// When a verb of the sessions was used last; what they wish is still to be passed on.
    touched: Option<Instant>,
    outputs: VecDeque<SipOutput>,
}

/// The verbs.
impl Agent {
    /// Begins to register, if there is a registrar, and to listen.
    #[must_use]
    pub fn new(now: Instant, seed: [u8; 32], config: AgentConfig) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut seed = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let AgentConfig { identity, registrar, user_agent, limits, .. } = config;
        let seeds = [seed(), seed(), seed(), seed(), seed(), seed()];
        let [carrier_seed, gate_seed, register_seed, session_seed, event_seed, lone_seed] = seeds;
        let contact = contact_of(&identity, registrar.is_some(), &mut rng);
        let carrier = CarrierConfig {
            outbound: config.outbound,
            listen: config.listen,
            logins: config.logins,
            timers: limits.timers,
            limits: limits.transactions,
            flows: limits.flows,
            locate: limits.locate,
            user_agent: Some(user_agent.clone()),
        };
        let context = Context {
            policy: config.sessions,
            clock: limits.timers,
            timers: limits.session_timers,
            limits: limits.sessions,
            agent: Some(user_agent.clone()),
        };
        let events = EventsConfig {
            identity: identity.clone(),
            contact: contact.clone(),
            route: Vec::new(),
            user_agent: user_agent.clone(),
            refresh: limits.refresh,
            limits: limits.events,
            timers: limits.timers,
        };
        let lone = LoneConfig {
            identity: identity.clone(),
            contact: contact.clone(),
            route: Vec::new(),
            user_agent: user_agent.clone(),
            limits: limits.lone,
        };
        let registration = registrar.map(|registrar| RegistrationConfig {
            registrar,
            identity: identity.clone(),
            route: Vec::new(),
            contact_user: contact.uri.user().unwrap_or_default().into(),
            expires: config.expires,
            user_agent,
        });
        let sessions = SessionsConfig { context: context.clone(), contact: contact.clone(), seed: session_seed };
        let mut agent = Self {
            identity,
            contact,
            carrier: Carrier::new(now, carrier_seed, carrier),
            gate: Gate::new(now, gate_seed, config.policy),
            registrations: Registrations::new(register_seed, limits.refresh),
            sessions: Sessions::new(sessions),
            events: Events::new(event_seed, events),
            lone: Lone::new(lone_seed, lone),
            context,
            registration,
            touched: None,
            outputs: VecDeque::new(),
        };
        agent.register(now);
        agent
    }

    /// Registers, anew or again: after a refusal, or when the network changed. Nothing without a registrar.
    pub fn register(&mut self, now: Instant) {
        if let Some(config) = &self.registration {
            if self.registrations.knows(ACCOUNT) {
                self.registrations.renew(now, ACCOUNT);
            } else {
                self.registrations.begin(now, ACCOUNT, config.clone());
            }
        }
        self.pump(now);
    }

    /// Takes the registration back; [`SipEvent::Left`] follows.
    pub fn unregister(&mut self, now: Instant) {
        self.registrations.leave(now, ACCOUNT);
        self.pump(now);
    }

    /// Takes every binding of the account back, those of other devices too (RFC 3261 §10.2.2).
    pub fn clear_bindings(&mut self, now: Instant) {
        self.registrations.clear(now, ACCOUNT);
        self.pump(now);
    }

    /// The end: registration, subscriptions and publications are taken back. Sessions are the application's to end before.
    pub fn shut_down(&mut self, now: Instant) {
        self.registrations.leave(now, ACCOUNT);
        self.events.close(now);
        self.pump(now);
    }

    /// True when nothing of ours awaits its answer: after [`Agent::shut_down`] the sockets may go.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.carrier.awaiting() == 0 && self.sessions.is_empty()
    }

    /// The sessions and their verbs. What they wish leaves with the next [`Agent::poll_output`].
    pub fn sessions_mut(&mut self, now: Instant) -> &mut Sessions {
        self.touched = Some(now);
        &mut self.sessions
    }

    /// Who we are in sessions of ours.
    #[must_use]
    pub fn local(&self) -> Local {
        Local { from: self.identity.clone(), contact: self.contact.clone(), route: Vec::new() }
    }

    /// Finds out how a request to somebody would travel, and opens the way; [`SipEvent::Way`] follows.
    pub fn prepare(&mut self, now: Instant, to: &Uri) -> WayKey {
        let key = WayKey(self.lone.way(to));
        self.pump(now);
        key
    }

    /// Sends a text.
    ///
    /// # Errors
    /// [`LoneMisuse`]
    pub fn message(&mut self, now: Instant, to: NameAddr, text: &str) -> Result<u32, LoneMisuse> {
        let id = self.lone.message(to, text)?;
        self.pump(now);
        Ok(id)
    }

    /// Asks what is understood at an address.
    ///
    /// # Errors
    /// [`LoneMisuse`]
    pub fn options(&mut self, now: Instant, to: NameAddr) -> Result<u32, LoneMisuse> {
        let id = self.lone.options(to)?;
        self.pump(now);
        Ok(id)
    }

    /// Subscribes to something of somebody; [`SipEvent::Event`] follows.
    ///
    /// # Errors
    /// [`TooManyEvents`]
    pub fn subscribe(&mut self, now: Instant, to: NameAddr, package: Package) -> Result<u64, TooManyEvents> {
        let id = self.events.subscribe(now, to, package)?;
        self.pump(now);
        Ok(id)
    }

    /// Publishes a document of ours (RFC 3903).
    ///
    /// # Errors
    /// [`TooManyEvents`]
    pub fn publish(&mut self, now: Instant, document: Document) -> Result<u64, TooManyEvents> {
        let id = self.events.publish(document)?;
        self.pump(now);
        Ok(id)
    }

    /// Another document for a publication.
    pub fn republish(&mut self, now: Instant, id: u64, document: Document) {
        self.events.republish(id, document);
        self.pump(now);
    }

    /// Ends a subscription or publication.
    pub fn end_event(&mut self, now: Instant, id: u64) {
        self.events.end(now, id);
        self.pump(now);
    }

    /// What those see who subscribed to `user` here.
    pub fn show(&mut self, now: Instant, user: &str, document: Document) {
        self.events.show(now, user, document);
        self.pump(now);
    }

    /// Whose requests are taken from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.gate.set_policy(policy);
    }

    /// Until when the registration stands.
    #[must_use]
    pub fn registered_until(&self) -> Option<Instant> {
        self.registrations.until(ACCOUNT)
    }

    /// What is known of a socket or connection.
    #[must_use]
    pub fn flow(&self, flow: FlowId) -> Option<FlowInfo> {
        self.carrier.flow(flow)
    }
}

/// The loop.
impl Agent {
    /// What the shell has to say.
    pub fn handle_input(&mut self, now: Instant, input: SipInput<'_>) {
        self.carrier.handle_input(now, input);
        self.pump(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.carrier.handle_timeout(now);
        self.registrations.handle_timeout(now);
        self.sessions.handle_timeout(now);
        self.events.handle_timeout(now);
        self.pump(now);
    }

    /// The next thing for the shell to do.
    pub fn poll_output(&mut self) -> Option<SipOutput> {
        self.settle();
        self.outputs.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<SipEvent> {
        self.settle();
        // Each part keeps and bounds what is its own until it is asked for.
        if let Some(event) = self.registrations.poll_event() {
            return Some(match event {
                RegisterEvent::Registered { until, bindings, .. } => {
                    SipEvent::Registered { address: self.identity.clone(), until, bindings }
                }
                RegisterEvent::Failed { why, again, until, .. } => SipEvent::Unregistered { why, again, until },
                RegisterEvent::Unregistered { .. } => SipEvent::Left,
            });
        }
        if let Some((id, event)) = self.sessions.poll_event() {
            return Some(SipEvent::Session(id, event));
        }
        if let Some(news) = self.events.poll_event() {
            return Some(SipEvent::Event(news));
        }
        self.lone.poll_event().map(|event| match event {
            LoneEvent::Message(message) => SipEvent::Message(message),
            LoneEvent::Sent { id, outcome } => SipEvent::MessageSent { id, outcome },
            LoneEvent::Options { id, outcome, allow } => SipEvent::Options { id, outcome, allow },
            LoneEvent::Way { id, way } => SipEvent::Way { key: WayKey(id), way },
        })
    }

    /// When [`Self::handle_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // A verb of the sessions is not passed on yet.
        let parts = [
            self.touched,
            self.carrier.poll_timeout(),
            self.registrations.poll_timeout(),
            self.sessions.poll_timeout(),
            self.events.poll_timeout(),
        ];
        parts.into_iter().flatten().min()
    }

    fn settle(&mut self) {
        if let Some(now) = self.touched.take() {
            self.pump(now);
        }
    }

    /// Moves what one part says to the next one, until all are quiet.
    fn pump(&mut self, now: Instant) {
        loop {
            let wish = self.registrations.poll_wish();
            let wish = wish.or_else(|| self.sessions.poll_wish());
            let wish = wish.or_else(|| self.events.poll_wish());
            if let Some(wish) = wish.or_else(|| self.lone.poll_wish()) {
                self.carrier.wish(now, wish);
                continue;
            }
            match self.carrier.poll_output() {
                Some(CarrierOutput::Shell(output)) => self.outputs.push_back(output),
                Some(CarrierOutput::Heard(heard)) => self.route(now, heard),
                None => break,
            }
        }
    }

    /// To whose it is.
    fn route(&mut self, now: Instant, heard: Heard) {
        let owner = match &heard {
            Heard::Response { id, .. } | Heard::Failed { id, .. } | Heard::Way { id, .. } => id.owner,
            Heard::FlowChanged { owner, .. } => *owner,
            Heard::Ack(_) | Heard::Confirmed(_) | Heard::Cancelled { .. } => {
                return self.sessions.handle_heard(now, heard);
            }
            Heard::Request { .. } => return self.request(now, heard),
        };
        match owner {
            Owner::Session(_) => self.sessions.handle_heard(now, heard),
            Owner::Registration(_) => {
                if let Heard::Response { response, origin, .. } = &heard
                    && response.status.is_success()
                {
                    self.learn(*origin);
                }
                self.registrations.handle_heard(now, heard);
            }
            Owner::Event(_) => self.events.handle_heard(now, heard),
            Owner::Lone(_) => self.lone.handle_heard(heard),
        }
    }

    /// Here is a registrar of ours: what it sends is looked at by it, and who it says is calling is calling (RFC 3325 §5).
    fn learn(&mut self, origin: Origin) {
        self.gate.learn(origin);
        let ip = origin.source.ip();
        let sources = match &mut self.context.policy.trust {
            Trust::Sources(sources) => sources,
            trust @ Trust::Nobody => {
                *trust = Trust::Sources(vec![ip]);
                return self.sessions.set_context(self.context.clone());
            }
            Trust::Everybody => return,
        };
        if !sources.contains(&ip) {
            sources.push(ip);
            self.sessions.set_context(self.context.clone());
        }
    }

    /// A request of somebody else: inside a dialog to whose that is, else through the gate (threat: methods without
    /// authentication, FreeSWITCH ES2021-07 and -08).
    fn request(&mut self, now: Instant, heard: Heard) {
        let Heard::Request { id, request, origin } = &heard else { return };
        let (id, origin) = (*id, *origin);
        if request.headers.to.tag().is_some() {
            if !self.sessions.knows(request) && self.events.knows(request) {
                let trusted = self.gate.trusts(&origin);
                return self.events.handle_request(now, id, request, trusted);
            }
            // In a dialog that nobody knows: 481.
            return self.sessions.handle_heard(now, heard);
        }
        match self.gate.check(now, request, &origin) {
            Passage::Refused(status, headers) => self.lone.answer(id, request, status, headers),
            Passage::Granted { trusted } if request.method == Method::Notify => {
                self.events.handle_request(now, id, request, trusted);
            }
            Passage::Granted { .. } => self.admitted(now, id, heard),
        }
    }

    fn admitted(&mut self, now: Instant, id: ServerId, heard: Heard) {
        let Heard::Request { request, .. } = &heard else { return };
        match request.method {
            Method::Invite => self.sessions.handle_heard(now, heard),
            Method::Subscribe if super::message::unknown_extensions(request).is_none() => {
                self.events.handle_request(now, id, request, false);
            }
            Method::Subscribe
            | Method::Ack
            | Method::Bye
            | Method::Cancel
            | Method::Options
            | Method::Register
            | Method::Prack
            | Method::Update
            | Method::Info
            | Method::Refer
            | Method::Notify
            | Method::Publish
            | Method::Message
            | Method::Other(_) => self.lone.handle_request(id, request),
        }
    }
}

/// Our Contact. Where a registrar knows it, its user part is one that nobody guesses: who dials addresses at random finds
/// nobody, and our own bindings are told from others.
fn contact_of(identity: &NameAddr, registered: bool, rng: &mut ChaCha20Rng) -> NameAddr {
    let user = identity.uri.user().unwrap_or_default();
    let user = match registered {
        true => format!("{user}-{}", words::word(rng)),
        false => user.to_owned(),
    };
    let mut contact = words::local_contact(&user);
    // RFC 3261 §8.1.1.8: who is reached safely names a safe address.
    if let (Uri::Sip(ours), Some(theirs)) = (&mut contact.uri, identity.uri.as_sip()) {
        ours.secure = theirs.secure;
    }
    contact
}

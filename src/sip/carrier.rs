//! Carries requests to their next hop and answers back: everything of SIP below dialogs. Read RFC 3261 §8.1, §8.2 and §18,
//! RFC 3263 §4 and RFC 3581 before touching this file.
//!
//! ```text
//!   owners (sessions, registrations, …)      wish ▼          ▲ Heard
//!   outgoing.rs   next hop (hop.rs) ─▶ sip/locate ─▶ flow ─▶ credentials (sip/auth) ─▶ transaction
//!                      ▲ 503, time out, no connection: next target        │ 401, 407: again, CSeq + 1
//!                      └──────────────────────────────────────────────────┘
//!   incoming.rs   Via marked, scheme checked ─▶ transaction ─▶ Heard; responses go back where the request came from
//!                                                 ▼    ▲
//!   sip/flow      sockets and connections      Shell   handle_input
//! ```

mod hop;
mod incoming;
mod outgoing;

use super::auth::{Login, Vault};
use super::exchange::{FlowChange, FlowId, Heard, Owner, RequestId, Transport, Wish};
use super::flow::{FlowEvent, FlowInfo, Flows, SipInput, SipOutput};
use super::locate::{Locator, Target};
use super::transaction::{ClientId, Counts, TransactionOutput, Transactions};
use crate::config::{SipFlowLimits, SipLimits, SipLocateLimits, SipTimers};
use crate::wire::sip::{CallId, SipText, SipUri, Tag};
use incoming::Parked;
use outgoing::Errand;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// An owner is told that its public address changed once in so long at most: a NAT that gives every packet another port, or
/// a server that lies, would have us register for ever.
const MOVED_INTERVAL: Duration = Duration::from_secs(30);
/// Addresses remembered as having no TCP, so that long requests go there by UDP at once.
const WITHOUT_TCP: usize = 256;
/// For so long.
const WITHOUT_TCP_FOR: Duration = Duration::from_secs(600);
/// Owners whose flows are watched.
const WATCHED: usize = 4096;

/// Arguments of [`Carrier::new`].
#[derive(Debug, Clone)]
pub struct CarrierConfig {
    /// Where requests without a route go (RFC 3261 §8.1.2).
    pub outbound: Option<SipUri>,
    /// What is listened on.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// Names, passwords, and who may ask for them.
    pub logins: Vec<Login>,
    /// Timers of transactions.
    pub timers: SipTimers,
    /// Caps on transactions.
    pub limits: SipLimits,
    /// Caps and timers of flows.
    pub flows: SipFlowLimits,
    /// Caps and timers of look-ups.
    pub locate: SipLocateLimits,
    /// What answers that no owner sees say of us, in `Server`.
    pub user_agent: Option<SipText>,
}

/// What comes out.
#[derive(Debug)]
pub enum CarrierOutput {
    /// For the shell.
    Shell(SipOutput),
    /// For an owner, or whoever knows whose it is.
    Heard(Heard),
}

/// Everything of SIP below dialogs.
#[derive(Debug)]
pub struct Carrier {
    outbound: Option<SipUri>,
    timers: SipTimers,
    limits: SipLimits,
    random: ChaCha20Rng,
    flows: Flows,
    locator: Locator,
    vault: Vault,
    transactions: Transactions,
    work: Work,
    ways: Ways,
    heard: VecDeque<Heard>,
}

/// The requests of ours that are under way.
#[derive(Debug, Default)]
struct Work {
    /// Last number given.
    last: u64,
    /// By a number of ours, which is also the key of its look-up.
    errands: BTreeMap<u64, Errand>,
    names: BTreeMap<RequestId, u64>,
    clients: BTreeMap<ClientId, u64>,
    /// Those that wait for a flow to open.
    opening: BTreeMap<FlowId, Vec<u64>>,
    /// Long requests that wait for TCP, and until when.
    patience: BTreeSet<(Instant, u64)>,
    without_tcp: BTreeMap<SocketAddr, Instant>,
    dialogs: BTreeMap<DialogKey, LiveDialog>,
}

impl Work {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// What is known of flows and of the addresses on both their ends.
#[derive(Debug, Default)]
struct Ways {
    listeners: BTreeSet<FlowId>,
    /// Our addresses as others see them.
    public: BTreeMap<FlowId, SocketAddr>,
    /// Connections of peers, by the address that they came from.
    accepted: BTreeMap<(Transport, SocketAddr), FlowId>,
    /// Names that the connections of ours proved, by where they lead.
    proved: BTreeMap<(Transport, SocketAddr), String>,
    watched: BTreeMap<Owner, Watch>,
    /// Answers that wait for our address.
    parked: BTreeMap<FlowId, Vec<Parked>>,
}

/// One side of a dialog, or a lone request.
type DialogKey = (CallId, Option<Tag>);

/// The requests of a dialog that are under way.
#[derive(Debug, Default)]
struct LiveDialog {
    /// Highest CSeq that was sent.
    cseq: u32,
    errands: BTreeSet<u64>,
}

/// What an owner told its server of where we are.
#[derive(Debug)]
struct Watch {
    flow: FlowId,
    /// The address in its Contact, if we wrote that.
    told: Option<SocketAddr>,
    /// When it was last said that this is wrong.
    moved: Option<Instant>,
}

impl Carrier {
    /// Nothing under way; what is to be listened on is asked for.
    #[must_use]
    pub fn new(now: Instant, seed: [u8; 32], config: CarrierConfig) -> Self {
        let mut random = ChaCha20Rng::from_seed(seed);
        let mut sub_seed = || {
            let mut seed = [0; 32];
            random.fill_bytes(&mut seed);
            seed
        };
        let mut flows = Flows::new(sub_seed(), config.flows);
        let locator = Locator::new(sub_seed(), config.locate);
        let vault = Vault::new(sub_seed(), config.logins);
        let transactions = Transactions::new(sub_seed(), config.timers, config.limits, config.user_agent);
        let listeners = config.listen.iter().filter_map(|(how, at)| flows.listen(now, *how, *at).ok()).collect();
        Self {
            outbound: config.outbound,
            timers: config.timers,
            limits: config.limits,
            random,
            flows,
            locator,
            vault,
            transactions,
            work: Work::default(),
            ways: Ways { listeners, ..Ways::default() },
            heard: VecDeque::new(),
        }
    }

    /// What an owner wants.
    pub fn wish(&mut self, now: Instant, wish: Wish) {
        match wish {
            Wish::Request { id, request } => self.request(now, id, request),
            Wish::Ack(request) => self.acknowledge(now, request),
            Wish::Cancel { id, headers } => self.give_up(now, id, headers),
            Wish::Way { id, uri } => self.way(now, id, *uri),
            Wish::Response { id, to_tag, response } => self.respond(now, id, to_tag, response),
        }
        self.pump(now);
    }

    /// What the shell has to say.
    pub fn handle_input(&mut self, now: Instant, input: SipInput<'_>) {
        match input {
            SipInput::Found { query, answer } => self.locator.handle_answer(now, &query, answer),
            SipInput::Opened { .. }
            | SipInput::Failed { .. }
            | SipInput::Accepted { .. }
            | SipInput::Bytes { .. }
            | SipInput::Closed { .. } => self.flows.handle_input(now, input),
        }
        self.pump(now);
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.flows.handle_timeout(now);
        self.locator.handle_timeout(now);
        self.transactions.handle_timeout(now);
        while let Some((at, key)) = self.work.patience.first().copied().filter(|(at, _)| *at <= now) {
            self.work.patience.pop_first();
            self.out_of_patience(now, at, key);
        }
        self.pump(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<CarrierOutput> {
        if let Some(output) = self.flows.poll_transmit() {
            return Some(CarrierOutput::Shell(output));
        }
        if let Some(query) = self.locator.poll_query() {
            return Some(CarrierOutput::Shell(SipOutput::LookUp(query)));
        }
        self.heard.pop_front().map(CarrierOutput::Heard)
    }

    /// When `handle_timeout` is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let transactions = self.transactions.poll_timeout().map(|(at, _)| at);
        let patience = self.work.patience.first().map(|(at, _)| *at);
        [transactions, patience, self.flows.poll_timeout(), self.locator.poll_timeout()].into_iter().flatten().min()
    }

    /// What is known of a flow: our own address on it, above all.
    #[must_use]
    pub fn flow(&self, flow: FlowId) -> Option<FlowInfo> {
        self.flows.state(flow)
    }

    /// How many transactions there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.transactions.counts()
    }

    /// Requests of ours whose outcome is open, or whose 2xx may still be repeated.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.work.errands.len()
    }

    /// Requests of ours whose outcome is open.
    #[must_use]
    pub fn awaiting(&self) -> usize {
        self.work.errands.values().filter(|errand| !errand.is_answered()).count()
    }

    /// Moves what one part says to the next one, until all are quiet.
    fn pump(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.transactions.poll_output() {
                self.handle_transaction(now, output);
            } else if let Some(event) = self.flows.poll_event() {
                self.handle_flow(now, event);
            } else if let Some(located) = self.locator.poll_located() {
                self.located(now, located);
            } else {
                break;
            }
        }
    }

    fn handle_transaction(&mut self, now: Instant, output: TransactionOutput) {
        match output {
            TransactionOutput::Send { client, path, bytes } => {
                if let Err(why) = self.flows.send(now, path.flow, path.remote, bytes)
                    && self.transactions.abandon(client)
                {
                    self.unsent(now, client, why);
                }
            }
            TransactionOutput::Reply { to, bytes } => self.reply(now, to, bytes),
            TransactionOutput::Response { client, response, origin } => self.answered(now, client, response, origin),
            TransactionOutput::TimedOut(client) => self.timed_out(now, client),
            TransactionOutput::Over(client) => self.over(client),
            TransactionOutput::Request { server, request, origin } => {
                self.heard.push_back(Heard::Request { id: server, request, origin });
            }
            TransactionOutput::Ack(request) => self.heard.push_back(Heard::Ack(request)),
            TransactionOutput::Cancelled { server, reasons } => {
                self.heard.push_back(Heard::Cancelled { id: server, reasons });
            }
            TransactionOutput::Confirmed(server) => self.heard.push_back(Heard::Confirmed(server)),
        }
    }

    fn handle_flow(&mut self, now: Instant, event: FlowEvent) {
        match event {
            FlowEvent::Open { flow, .. } => {
                self.unpark(now, flow);
                self.opened(now, flow);
            }
            FlowEvent::Message { origin, message } => self.message(now, origin, *message),
            FlowEvent::Malformed { origin, why } => self.malformed(now, origin, *why),
            FlowEvent::Down { flow, why } => {
                self.ways.public.remove(&flow);
                self.ways.accepted.retain(|_, other| *other != flow);
                self.unpark(now, flow);
                self.lost(flow);
                self.flow_down(now, flow, &why);
            }
            FlowEvent::Moved { flow, public, .. } => self.learned(now, flow, public),
        }
    }

    /// Our address on a flow as others should see it.
    fn advertised(&self, flow: FlowId) -> Option<(Transport, SocketAddr)> {
        let info = self.flows.state(flow)?;
        let local = info.local?;
        let seen = self.ways.public.get(&flow).copied().unwrap_or(local);
        if info.transport.is_reliable() && seen.ip() == local.ip() {
            // RFC 3261 §18.1.1: where we listen, connections of others are better made there.
            let listening = self.ways.listeners.iter().filter_map(|id| self.flows.state(*id));
            let mut fitting = listening.filter(|it| it.transport == info.transport).filter_map(|it| it.local);
            if let Some(listener) = fitting.find(|at| at.ip().is_unspecified() || at.ip() == local.ip()) {
                return Some((info.transport, SocketAddr::new(local.ip(), listener.port())));
            }
        }
        Some((info.transport, seen))
    }

    /// Others see us at this address.
    fn learned(&mut self, now: Instant, flow: FlowId, public: SocketAddr) {
        // Nobody is reached at such an address, whoever says so.
        if public.port() == 0 || public.ip().is_unspecified() || public.ip().is_multicast() {
            return;
        }
        if self.ways.public.insert(flow, public) == Some(public) {
            return;
        }
        let Some((_, at)) = self.advertised(flow) else { return };
        for (owner, watch) in &mut self.ways.watched {
            let wrong = watch.flow == flow && watch.told.is_some_and(|told| told != at);
            if wrong && watch.moved.is_none_or(|last| now.saturating_duration_since(last) >= MOVED_INTERVAL) {
                watch.moved = Some(now);
                self.heard.push_back(Heard::FlowChanged { owner: *owner, why: FlowChange::Moved });
            }
        }
    }

    fn lost(&mut self, flow: FlowId) {
        let heard = &mut self.heard;
        self.ways.watched.retain(|owner, watch| {
            if watch.flow == flow {
                heard.push_back(Heard::FlowChanged { owner: *owner, why: FlowChange::Lost });
            }
            watch.flow != flow
        });
    }

    /// The connection that a target is reached by: one of a peer if he is there, else one of ours.
    fn flow_for(&mut self, now: Instant, target: &Target) -> Result<FlowId, super::flow::FlowFault> {
        // RFC 5923 §5: the very connection that the address belongs to, such as that of a telephone behind a NAT.
        if let Some(flow) = self.ways.accepted.get(&(target.transport, target.remote)) {
            return Ok(*flow);
        }
        self.flows.flow_to(now, target.transport, target.remote, &target.name)
    }
}

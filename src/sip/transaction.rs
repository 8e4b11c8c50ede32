//! Transactions: one request, its repetitions and its responses. Read RFC 3261 §17, §9.2, §8.2.2.2 and RFC 6026 before
//! touching this file.
//!
//! ```text
//!            user (sip/carrier)                                           user (sip/carrier)
//!   begin, cancelled │   ▲ Response, TimedOut, Over        respond │   ▲ Request, Ack, Cancelled, Confirmed
//!                    ▼   │                                         ▼   │
//!        client.rs: Client machines                     server.rs: Server machines ── stateless: 481, 482, 503
//!                    │   ▲                                         │   ▲
//!               Send ▼   │ handle_response                   Reply ▼   │ handle_request
//!                       network                                       network
//! ```
//! Every deadline stands in one table (`timers.rs`), with its letter. Responses are matched by branch, sent-by and method,
//! requests by the same or, where the branch is not unique, by the rules for RFC 2543 (`keys.rs`).

mod client;
mod keys;
mod load;
mod server;
mod timers;

use super::exchange::{FlowId, Origin, ServerId};
use crate::config::{SipLimits, SipTimers};
use crate::wire::sip::{CSeq, CallId, Header, Method, NameAddr, Reason, Request, Response, SipText, Status, Tag, Via};
use aws_lc_rs::hmac;
use client::Client;
use compact_str::CompactString;
use keys::{MergeKey, ServerKey};
use load::{Account, Load};
use server::Server;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Instant;
pub use timers::Timer;
use timers::{Armed, Context, Deadlines};

/// Names a client transaction; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// Where a request of ours goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Connection or socket.
    pub flow: FlowId,
    /// Destination.
    pub remote: SocketAddr,
    /// Nothing is lost on it.
    pub reliable: bool,
}

/// Where a response of ours goes, RFC 3261 §18.2.2 and RFC 3581 §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return {
    /// Where the request came from: the response goes back on the same connection, from the same socket.
    pub origin: Origin,
    /// Destination on it.
    pub remote: SocketAddr,
    /// Where to connect to if that connection is gone.
    pub fallback: SocketAddr,
}

impl Return {
    /// How the response to a request from there goes back. `maddr` in Via, which is for multicast, is not followed: it would
    /// let anybody have us send to third parties.
    #[must_use]
    pub fn to(origin: Origin, via: Option<&Via>) -> Self {
        let port = via.and_then(|via| via.port).unwrap_or(origin.transport.default_port());
        // RFC 3261 §18.2.2: `received`, which is the source address wherever it is set, and the port of sent-by.
        let fallback = SocketAddr::new(origin.source.ip(), port);
        let asked = via.is_some_and(|via| via.rport.is_some());
        // RFC 3581 §4: the port it came from, if the client asked for that.
        let remote = if asked || origin.transport.is_reliable() { origin.source } else { fallback };
        Self { origin, remote, fallback }
    }
}

/// What comes out, in order.
#[derive(Debug)]
pub enum TransactionOutput {
    /// A request of ours, or the ACK of a failure.
    Send {
        /// Whose.
        client: ClientId,
        /// Where to.
        path: Path,
        /// One message.
        bytes: Vec<u8>,
    },
    /// A response of ours.
    Reply {
        /// Where to.
        to: Return,
        /// One message.
        bytes: Vec<u8>,
    },
    /// A response to a request of ours: each 1xx, one final, each 2xx to INVITE.
    Response {
        /// Which.
        client: ClientId,
        /// It.
        response: Box<Response>,
        /// Where it came from.
        origin: Origin,
    },
    /// No final answer (timers B and F, or after a CANCEL).
    TimedOut(ClientId),
    /// Nothing more will come of it.
    Over(ClientId),
    /// A request of a peer, other than ACK and CANCEL.
    Request {
        /// To answer it by.
        server: ServerId,
        /// It.
        request: Box<Request>,
        /// Where it came from.
        origin: Origin,
    },
    /// An ACK that belongs to no failure of ours: that of a 2xx, or a stray one.
    Ack(Box<Request>),
    /// The peer cancelled an INVITE, and was told 200.
    Cancelled {
        /// The INVITE, which awaits its 487.
        server: ServerId,
        /// Of the CANCEL.
        reasons: Vec<Reason>,
    },
    /// The failure of an INVITE was acknowledged, or never will be.
    Confirmed(ServerId),
}

/// Our own bound on transactions is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests at once")]
pub struct Full;

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Ours.
    pub clients: usize,
    /// Of peers.
    pub servers: usize,
    /// Of peers, and not answered with success.
    pub open: usize,
    /// Addresses that those are counted for.
    pub sources: usize,
}

/// All transactions of one user agent.
#[derive(Debug)]
pub struct Transactions {
    timers: SipTimers,
    limits: SipLimits,
    server_name: Option<SipText>,
    clients: BTreeMap<ClientId, ClientSlot>,
    /// By branch, and whether it is the CANCEL of an INVITE with the same branch.
    branches: BTreeMap<(CompactString, bool), ClientId>,
    by_flow: BTreeSet<(FlowId, ClientId)>,
    servers: BTreeMap<ServerId, ServerSlot>,
    keys: BTreeMap<ServerKey, ServerId>,
    merges: BTreeMap<MergeKey, ServerId>,
    load: Load,
    deadlines: Deadlines<Who>,
    /// Makes the To tags of responses that leave no state behind, so that their ACKs are known again.
    secret: hmac::Key,
    next: u64,
    outputs: VecDeque<TransactionOutput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Client(ClientId),
    Server(ServerId),
}

#[derive(Debug)]
struct ClientSlot {
    request: Box<Request>,
    path: Path,
    machine: Client,
    armed: Armed,
    /// The request, and once it failed its ACK. `None` where it is never repeated.
    bytes: Option<Vec<u8>>,
}

#[derive(Debug)]
struct ServerSlot {
    key: ServerKey,
    merge: Option<MergeKey>,
    to: Return,
    echo: Echo,
    machine: Server,
    armed: Armed,
    account: Account,
    open: bool,
    to_tag: Option<Tag>,
    cancelled: bool,
    /// The last response.
    bytes: Option<Vec<u8>>,
}

/// What a response repeats of its request, RFC 3261 §8.2.6.2.
#[derive(Debug)]
struct Echo {
    via: Vec<Via>,
    from: NameAddr,
    to: NameAddr,
    call_id: CallId,
    cseq: CSeq,
}

impl Transactions {
    /// None yet. `server_name`: what answers that are given here say of us.
    #[must_use]
    pub fn new(seed: [u8; 32], timers: SipTimers, limits: SipLimits, server_name: Option<SipText>) -> Self {
        Self {
            timers,
            limits,
            server_name,
            clients: BTreeMap::new(),
            branches: BTreeMap::new(),
            by_flow: BTreeSet::new(),
            servers: BTreeMap::new(),
            keys: BTreeMap::new(),
            merges: BTreeMap::new(),
            load: Load::default(),
            deadlines: Deadlines::default(),
            secret: hmac::Key::new(hmac::HMAC_SHA256, &seed),
            next: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Sends a request, complete with its one Via, of which these are the bytes, and waits for what comes of it. Not for ACK.
    ///
    /// # Errors
    /// [`Full`]; nothing is sent.
    pub fn begin(&mut self, now: Instant, request: Box<Request>, bytes: Vec<u8>, path: Path) -> Result<ClientId, Full> {
        let branch = request.headers.via.first().and_then(|via| via.branch.clone()).ok_or(Full)?;
        let key = (branch, request.method == Method::Cancel);
        if self.clients.len() >= self.limits.outgoing || self.branches.contains_key(&key) {
            return Err(Full);
        }
        let id = ClientId(self.number());
        let mut armed = Armed::default();
        let context = Context { now, timers: &self.timers, reliable: path.reliable };
        let machine = Client::begin(&request.method, context, &mut armed);
        let kept = (!path.reliable).then(|| bytes.clone());
        self.deadlines.change(Who::Client(id), Armed::default(), armed);
        self.outputs.push_back(TransactionOutput::Send { client: id, path, bytes });
        self.branches.insert(key, id);
        self.by_flow.insert((path.flow, id));
        self.clients.insert(id, ClientSlot { request, path, machine, armed, bytes: kept });
        Ok(id)
    }

    /// Sends the CANCEL of an INVITE of ours that has a provisional response, on the same branch and path (RFC 3261 §9.1).
    /// From now on the final response of the INVITE has 64·T1 to come. `None`: it has none yet, or has its final one.
    pub fn cancel(&mut self, now: Instant, invite: ClientId, headers: Vec<Header>) -> Option<Result<ClientId, Full>> {
        let slot = self.clients.get_mut(&invite)?;
        let Client::Invite(machine @ client::InviteClient::Proceeding) = &slot.machine else { return None };
        let before = slot.armed;
        let context = Context { now, timers: &self.timers, reliable: slot.path.reliable };
        machine.cancelled(context, &mut slot.armed);
        self.deadlines.change(Who::Client(invite), before, slot.armed);
        let (cancel, path) = (client::cancel(&slot.request, headers), slot.path);
        let bytes = written(|out| cancel.write(out));
        Some(self.begin(now, Box::new(cancel), bytes, path))
    }

    /// A response. Those that match no request of ours are dropped (RFC 3261 §18.1.2).
    pub fn handle_response(&mut self, now: Instant, response: Box<Response>, origin: Origin) {
        // RFC 3261 §8.1.3.3: more than one Via means that it is not for us.
        let [via] = response.headers.via.as_slice() else { return };
        let Some(branch) = via.branch.clone() else { return };
        let key = (branch, response.headers.cseq.method == Method::Cancel);
        let Some(id) = self.branches.get(&key).copied() else { return };
        let Some(slot) = self.clients.get_mut(&id) else { return };
        // RFC 3261 §17.1.3: the method of CSeq; §18.1.2: the sent-by that we wrote.
        let ours = slot.request.headers.via.first();
        let sent_by_us = ours.is_some_and(|ours| ours.host == via.host && ours.port == via.port);
        if response.headers.cseq != slot.request.headers.cseq || !sent_by_us {
            return;
        }
        let status = response.status;
        let Some(act) = self.turn_client(now, id, |machine, context, armed| machine.response(status, context, armed))
        else {
            return;
        };
        match act {
            client::Act::Nothing | client::Act::Repeat | client::Act::TimedOut => {}
            client::Act::Ack => self.repeat(id),
            client::Act::Up => self.outputs.push_back(TransactionOutput::Response { client: id, response, origin }),
            client::Act::AckAndUp => {
                if let Some(slot) = self.clients.get_mut(&id) {
                    let ack = client::ack(&slot.request, &response);
                    let bytes = written(|out| ack.write(out));
                    slot.bytes = (!slot.path.reliable).then(|| bytes.clone());
                    self.outputs.push_back(TransactionOutput::Send { client: id, path: slot.path, bytes });
                }
                self.outputs.push_back(TransactionOutput::Response { client: id, response, origin });
            }
        }
        self.settle_client(id);
    }

    /// A request. Its topmost Via has `received` and `rport` filled in already.
    pub fn handle_request(&mut self, now: Instant, request: Box<Request>, origin: Origin) {
        match request.method {
            Method::Ack => return self.ack(now, request),
            Method::Cancel => return self.cancel_of_peer(now, &request, origin),
            Method::Invite
            | Method::Bye
            | Method::Options
            | Method::Register
            | Method::Prack
            | Method::Update
            | Method::Info
            | Method::Refer
            | Method::Subscribe
            | Method::Notify
            | Method::Publish
            | Method::Message
            | Method::Other(_) => {}
        }
        let Some(key) = ServerKey::of(&request, &request.method) else { return };
        if let Some(id) = self.keys.get(&key).copied() {
            // A copy is answered where it came from: a NAT may have given it another port.
            if let Some(slot) = self.servers.get_mut(&id)
                && slot.to.origin.source.ip() == origin.source.ip()
            {
                slot.to = Return::to(origin, request.headers.via.first());
            }
            if self.turn_server(now, id, |machine, _, _| machine.again()) == Some(server::Act::Repeat) {
                self.answer_again(id);
            }
            return;
        }
        let merge = MergeKey::of(&request);
        // RFC 3261 §8.2.2.2: the same request by another way.
        if merge.as_ref().is_some_and(|merge| self.merges.contains_key(merge)) {
            return self.refuse(&request, origin, Status::LOOP_DETECTED, Vec::new());
        }
        let account = Account::of(origin.source.ip(), merge.is_none());
        // OPTIONS is answered at once and is how others see that we live: a flood of calls does not hide that.
        let admitted = request.method == Method::Options || self.load.admits(account, &self.limits);
        if self.servers.len() >= self.limits.incoming || !admitted {
            let after = Header::RetryAfter(self.limits.retry_after_s);
            return self.refuse(&request, origin, Status::SERVICE_UNAVAILABLE, vec![after]);
        }
        let id = ServerId(self.number());
        let mut armed = Armed::default();
        let context = Context { now, timers: &self.timers, reliable: origin.transport.is_reliable() };
        let machine = Server::begin(&request.method, context, &mut armed);
        self.deadlines.change(Who::Server(id), Armed::default(), armed);
        self.load.open(account);
        self.keys.insert(key.clone(), id);
        if let Some(merge) = merge.clone() {
            self.merges.insert(merge, id);
        }
        let to = Return::to(origin, request.headers.via.first());
        let echo = Echo::of(&request);
        let slot = ServerSlot {
            key,
            merge,
            to,
            echo,
            machine,
            armed,
            account,
            open: true,
            to_tag: None,
            cancelled: false,
            bytes: None,
        };
        self.servers.insert(id, slot);
        self.outputs.push_back(TransactionOutput::Request { server: id, request, origin });
    }

    /// Answers a request of a peer: Via, From, To, Call-ID and CSeq are filled in, and the tag where To has none. A response
    /// that comes too late is dropped.
    pub fn respond(&mut self, now: Instant, id: ServerId, mut to_tag: Option<Tag>, mut response: Box<Response>) {
        let status = response.status;
        // RFC 3261 §8.2.6.2: every response but 100 has a tag in To.
        if to_tag.is_none()
            && status.code() > 100
            && let Some(ServerSlot { echo, .. }) = self.servers.get(&id).filter(|slot| slot.echo.to.tag().is_none())
        {
            to_tag = Tag::new(&self.tag_for(&echo.call_id, &echo.from, echo.cseq.number, echo.via.first()));
        }
        let mut sent = false;
        self.turn_server(now, id, |machine, context, armed| {
            let (machine, send) = machine.respond(status, context, armed);
            sent = send;
            (machine, server::Act::Nothing)
        });
        let Some(slot) = self.servers.get_mut(&id) else { return };
        if sent {
            slot.echo.fill(&mut response, to_tag.as_ref());
            if to_tag.is_some() {
                slot.to_tag = to_tag;
            }
            let bytes = written(|out| response.write(out));
            // On a connection nothing is asked for again, and a 2xx is repeated by the user.
            let by_user = slot.is_invite() && status.is_success();
            let again = !slot.to.origin.transport.is_reliable() && !by_user;
            slot.bytes = again.then(|| bytes.clone());
            self.outputs.push_back(TransactionOutput::Reply { to: slot.to, bytes });
            if status.is_success() && std::mem::take(&mut slot.open) {
                self.load.close(slot.account);
            }
        }
        self.settle_server(id);
    }

    /// Answers a request without keeping anything of it. Not for ACK.
    pub fn refuse(&mut self, request: &Request, origin: Origin, status: Status, headers: Vec<Header>) {
        let tag = self.stateless_tag(request);
        self.answer_statelessly(request, origin, status, &tag, headers);
    }

    /// The tag of a stateless answer to this request: the same for each copy of it, and for its ACK (RFC 3261 §8.2.7).
    fn stateless_tag(&self, request: &Request) -> String {
        let headers = &request.headers;
        self.tag_for(&headers.call_id, &headers.from, headers.cseq.number, headers.via.first())
    }

    fn tag_for(&self, call_id: &CallId, from: &NameAddr, cseq: u32, via: Option<&Via>) -> String {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(call_id.as_str().as_bytes());
        context.update(&cseq.to_be_bytes());
        context.update(from.params.find("tag").unwrap_or_default().as_bytes());
        context.update(&[0]);
        context.update(via.and_then(|via| via.branch.as_deref()).unwrap_or_default().as_bytes());
        let mut tag = String::from("s");
        for byte in context.sign().as_ref().iter().take(8) {
            // Writing to a String does not fail.
            let _ = write!(tag, "{byte:02x}");
        }
        tag
    }

    /// The flow or the destination of a request of ours failed, so that nothing more can be sent: as if it timed out, but
    /// at once, and without [`TransactionOutput::TimedOut`] (RFC 3261 §17.1.4). True if an answer was still awaited.
    pub fn abandon(&mut self, id: ClientId) -> bool {
        let Some(slot) = self.clients.get_mut(&id) else { return false };
        let waiting = slot.machine.is_waiting();
        if waiting {
            slot.machine = Client::Other(client::OtherClient::Terminated);
            self.retire_client(id);
        }
        waiting
    }

    /// The requests of ours that went by this flow and still live.
    pub fn on_flow(&self, flow: FlowId) -> impl Iterator<Item = ClientId> {
        self.by_flow.range((flow, ClientId(0))..=(flow, ClientId(u64::MAX))).map(|(_, id)| *id)
    }

    /// A request of ours as it was sent, and where to.
    #[must_use]
    pub fn sent(&self, id: ClientId) -> Option<(&Request, Path)> {
        self.clients.get(&id).map(|slot| (&*slot.request, slot.path))
    }

    /// Where a request of a peer came from.
    #[must_use]
    pub fn origin(&self, id: ServerId) -> Option<Origin> {
        self.servers.get(&id).map(|slot| slot.to.origin)
    }

    /// How many there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            clients: self.clients.len(),
            servers: self.servers.len(),
            open: self.load.len(),
            sources: self.load.sources(),
        }
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((timer, who)) = self.deadlines.pop(now) {
            match who {
                Who::Client(id) => self.client_timer(now, id, timer),
                Who::Server(id) => self.server_timer(now, id, timer),
            }
        }
    }

    /// When `handle_timeout` is wanted, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        self.deadlines.next()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<TransactionOutput> {
        let output = self.outputs.pop_front()?;
        if let TransactionOutput::Over(client) = &output {
            self.clients.remove(client);
        }
        Some(output)
    }
}

/// The client's side.
impl Transactions {
    fn client_timer(&mut self, now: Instant, id: ClientId, timer: Timer) {
        let act = self.turn_client(now, id, |machine, context, armed| {
            armed.fired(timer);
            machine.timer(timer, context, armed)
        });
        match act {
            Some(client::Act::Repeat) => self.repeat(id),
            Some(client::Act::TimedOut) => self.outputs.push_back(TransactionOutput::TimedOut(id)),
            Some(client::Act::Nothing | client::Act::Up | client::Act::AckAndUp | client::Act::Ack) | None => {}
        }
        self.settle_client(id);
    }

    fn turn_client(
        &mut self,
        now: Instant,
        id: ClientId,
        turn: impl FnOnce(Client, Context<'_>, &mut Armed) -> (Client, client::Act),
    ) -> Option<client::Act> {
        let slot = self.clients.get_mut(&id)?;
        let context = Context { now, timers: &self.timers, reliable: slot.path.reliable };
        let before = slot.armed;
        let machine = std::mem::replace(&mut slot.machine, Client::Other(client::OtherClient::Terminated));
        let (machine, act) = turn(machine, context, &mut slot.armed);
        slot.machine = machine;
        self.deadlines.change(Who::Client(id), before, slot.armed);
        Some(act)
    }

    fn repeat(&mut self, id: ClientId) {
        let Some(slot) = self.clients.get(&id) else { return };
        let Some(bytes) = slot.bytes.clone() else { return };
        self.outputs.push_back(TransactionOutput::Send { client: id, path: slot.path, bytes });
    }

    /// Drops what the state it came to does not need.
    fn settle_client(&mut self, id: ClientId) {
        let Some(slot) = self.clients.get_mut(&id) else { return };
        match &slot.machine {
            Client::Invite(client::InviteClient::Accepted) => {
                // Its headers are needed for the ACK, which has the same credentials; the offer is not.
                slot.request.body = Vec::new();
                slot.bytes = None;
            }
            Client::Invite(client::InviteClient::Proceeding) | Client::Other(client::OtherClient::Completed) => {
                slot.bytes = None;
            }
            Client::Invite(
                client::InviteClient::Calling { .. }
                | client::InviteClient::Completed
                | client::InviteClient::Terminated,
            )
            | Client::Other(
                client::OtherClient::Trying { .. } | client::OtherClient::Proceeding | client::OtherClient::Terminated,
            ) => {}
        }
        if slot.machine.is_over() {
            self.retire_client(id);
        }
    }

    /// Ends one. Its request can still be asked for until the user hears that it is over.
    fn retire_client(&mut self, id: ClientId) {
        let Some(slot) = self.clients.get_mut(&id) else { return };
        self.deadlines.change(Who::Client(id), std::mem::take(&mut slot.armed), Armed::default());
        self.by_flow.remove(&(slot.path.flow, id));
        if let Some(branch) = slot.request.headers.via.first().and_then(|via| via.branch.clone()) {
            self.branches.remove(&(branch, slot.request.method == Method::Cancel));
        }
        self.outputs.push_back(TransactionOutput::Over(id));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// The server's side.
impl Transactions {
    fn ack(&mut self, now: Instant, request: Box<Request>) {
        let id = ServerKey::of(&request, &Method::Ack).and_then(|key| self.keys.get(&key).copied());
        let Some(id) = id.filter(|id| self.servers.get(id).is_some_and(|slot| slot.acknowledged_by(&request))) else {
            // The ACK of an answer that left nothing behind ends here, that of a 2xx goes up.
            let tag = request.headers.to.params.find("tag");
            if tag != Some(self.stateless_tag(&request).as_str()) {
                self.outputs.push_back(TransactionOutput::Ack(request));
            }
            return;
        };
        match self.turn_server(now, id, Server::ack) {
            Some(server::Act::AckUp) => self.outputs.push_back(TransactionOutput::Ack(request)),
            Some(server::Act::Confirmed) => self.outputs.push_back(TransactionOutput::Confirmed(id)),
            Some(server::Act::Nothing | server::Act::Repeat | server::Act::Trying) | None => {}
        }
        self.settle_server(id);
    }

    /// A CANCEL is answered 200 if there is an INVITE of the same branch, whatever became of that, and 481 otherwise
    /// (RFC 3261 §9.2). It needs no transaction of its own: a copy of it is answered by the same rule.
    fn cancel_of_peer(&mut self, _now: Instant, request: &Request, origin: Origin) {
        let id = ServerKey::of(request, &Method::Invite).and_then(|key| self.keys.get(&key).copied());
        let Some((id, slot)) = id.and_then(|id| Some((id, self.servers.get_mut(&id)?))) else {
            return self.refuse(request, origin, Status::NO_SUCH_TRANSACTION, Vec::new());
        };
        let cancels = slot.machine.is_cancellable() && !std::mem::replace(&mut slot.cancelled, true);
        // RFC 3261 §9.2: "the To tag of the response to the CANCEL and … to the original request SHOULD be the same".
        let tag = slot.to_tag.as_ref().map(|tag| tag.as_str().to_owned());
        let tag = tag.unwrap_or_else(|| self.stateless_tag(request));
        self.answer_statelessly(request, origin, Status::OK, &tag, Vec::new());
        if cancels {
            let reasons = request.headers.reasons().cloned().collect();
            self.outputs.push_back(TransactionOutput::Cancelled { server: id, reasons });
        }
    }

    fn answer_statelessly(
        &mut self,
        request: &Request,
        origin: Origin,
        status: Status,
        tag: &str,
        mut headers: Vec<Header>,
    ) {
        let mut response = Response::to(request, status);
        if response.headers.to.tag().is_none() {
            response.headers.to.params.set("tag", Some(tag));
        }
        headers.extend(self.server_name.clone().map(Header::Server));
        response.headers.rest = headers;
        let to = Return::to(origin, request.headers.via.first());
        self.outputs.push_back(TransactionOutput::Reply { to, bytes: written(|out| response.write(out)) });
    }

    fn server_timer(&mut self, now: Instant, id: ServerId, timer: Timer) {
        let act = self.turn_server(now, id, |machine, context, armed| {
            armed.fired(timer);
            machine.timer(timer, context, armed)
        });
        match act {
            Some(server::Act::Repeat) => self.answer_again(id),
            Some(server::Act::Trying) => self.trying(id),
            Some(server::Act::Confirmed) => self.outputs.push_back(TransactionOutput::Confirmed(id)),
            Some(server::Act::Nothing | server::Act::AckUp) | None => {}
        }
        self.settle_server(id);
    }

    /// RFC 3261 §8.2.6.1: 100 has no tag in To.
    fn trying(&mut self, id: ServerId) {
        let Some(slot) = self.servers.get_mut(&id) else { return };
        let bytes = written(|out| slot.echo.response(Status::TRYING).write(out));
        if !slot.to.origin.transport.is_reliable() {
            slot.bytes = Some(bytes.clone());
        }
        self.outputs.push_back(TransactionOutput::Reply { to: slot.to, bytes });
    }

    fn turn_server(
        &mut self,
        now: Instant,
        id: ServerId,
        turn: impl FnOnce(Server, Context<'_>, &mut Armed) -> (Server, server::Act),
    ) -> Option<server::Act> {
        let slot = self.servers.get_mut(&id)?;
        let reliable = slot.to.origin.transport.is_reliable();
        let context = Context { now, timers: &self.timers, reliable };
        let before = slot.armed;
        let machine = std::mem::replace(&mut slot.machine, Server::Other(server::OtherServer::Terminated));
        let (machine, act) = turn(machine, context, &mut slot.armed);
        slot.machine = machine;
        self.deadlines.change(Who::Server(id), before, slot.armed);
        Some(act)
    }

    fn answer_again(&mut self, id: ServerId) {
        let Some(slot) = self.servers.get(&id) else { return };
        let Some(bytes) = slot.bytes.clone() else { return };
        self.outputs.push_back(TransactionOutput::Reply { to: slot.to, bytes });
    }

    fn settle_server(&mut self, id: ServerId) {
        if !self.servers.get(&id).is_some_and(|slot| slot.machine.is_over()) {
            return;
        }
        let Some(slot) = self.servers.remove(&id) else { return };
        self.deadlines.change(Who::Server(id), slot.armed, Armed::default());
        self.keys.remove(&slot.key);
        if let Some(merge) = &slot.merge {
            self.merges.remove(merge);
        }
        if slot.open {
            self.load.close(slot.account);
        }
    }
}

impl ServerSlot {
    fn is_invite(&self) -> bool {
        matches!(self.machine, Server::Invite(_))
    }

    /// RFC 3261 §17.2.3: where the branch is not unique, the ACK has the To tag of the response.
    fn acknowledged_by(&self, ack: &Request) -> bool {
        !self.key.is_old() || self.to_tag.is_none() || ack.headers.to.tag() == self.to_tag
    }
}

impl Echo {
    fn of(request: &Request) -> Self {
        let of = &request.headers;
        Self {
            via: of.via.clone(),
            from: of.from.clone(),
            to: of.to.clone(),
            call_id: of.call_id.clone(),
            cseq: of.cseq.clone(),
        }
    }

    fn fill(&self, response: &mut Response, to_tag: Option<&Tag>) {
        let headers = &mut response.headers;
        headers.via.clone_from(&self.via);
        headers.from.clone_from(&self.from);
        headers.to.clone_from(&self.to);
        headers.call_id.clone_from(&self.call_id);
        headers.cseq.clone_from(&self.cseq);
        // RFC 3261 §8.2.6.2: a tag that the request has stays.
        if let Some(tag) = to_tag.filter(|_| self.to.tag().is_none()) {
            headers.to.params.set("tag", Some(tag.as_str()));
        }
    }

    fn response(&self, status: Status) -> Response {
        let headers =
            crate::wire::sip::Headers::new(self.from.clone(), self.to.clone(), self.call_id.clone(), self.cseq.clone());
        let mut response = Response { status, reason: SipText::new(status.phrase()), headers, body: Vec::new() };
        response.headers.via.clone_from(&self.via);
        response
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // An INVITE with its offer is about 1 kB.
    let mut bytes = Vec::with_capacity(1024);
    write(&mut bytes);
    bytes
}

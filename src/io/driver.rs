//! The task that runs an endpoint: one input in, all outputs drained. The only rule here is that order.
//! Read `endpoint.rs` before touching this file.

pub use super::carrier::Signalling;
use super::carrier::{self, CarrierCommand, CarrierEvent, CarrierTask};
use super::disk::{Entry, Part};
use super::dns::Dns;
use super::files::Files;
use super::mdns::MdnsResolver;
use super::sip::{SipNetwork, SipReport, SipSockets};
use super::tcp::{ConnectError, TlsFacts};
use super::udp::{self, BindPolicy, BoundSocket};
use crate::endpoint::event::{CallId, CallStats, Event, Input, LegId, Output, Refusal, SocketPlan};
use crate::endpoint::file_event::Wanted;
use crate::endpoint::file_event::{FileId, FileInput, FileOutput, OutgoingFile, TransferId, WayKind};
use crate::endpoint::{Endpoint, EndpointConfig, Misuse};
use crate::fault::ReasonCondition;
use crate::media::audio::FRAME_SAMPLES;
use crate::transport::dtls::Identity;
use crate::transport::path::Transmit;
use crate::wire::address::Address;
use crate::wire::description::FileDescription;
use crate::wire::jid::Jid;
use crate::wire::jingle::Reason;
use crate::xmpp::stream::{TlsInfo, TlsVersion};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot};

/// 20 ms of sound: 48 kHz mono.
pub type Frame = [i16; FRAME_SAMPLES];

/// How long a frame lasts.
pub const FRAME: Duration = Duration::from_millis(20);
/// Commands, events and reports that may wait.
const QUEUE: usize = 512;
/// Datagrams that may wait on their way in, or out: the window of a data channel in packets of 1 200 bytes.
const DATAGRAMS: usize = 4096;

/// What the application asks of the driver.
#[derive(Debug)]
pub enum Command {
    /// Start a call.
    Call(Address, oneshot::Sender<Result<CallId, Misuse>>),
    /// Take an incoming call.
    Accept(CallId, oneshot::Sender<Result<(), Misuse>>),
    /// Decline it.
    Reject(CallId, ReasonCondition),
    /// End a call.
    HangUp(CallId),
    /// Hold or resume.
    Hold(CallId, bool, oneshot::Sender<Result<(), Misuse>>),
    /// Mute or unmute.
    Mute(CallId, bool, oneshot::Sender<Result<(), Misuse>>),
    /// Send the other side elsewhere.
    Transfer(CallId, Address, oneshot::Sender<Result<(), Misuse>>),
    /// Send a digit.
    Digit(CallId, char, oneshot::Sender<Result<(), Misuse>>),
    /// Where heard frames of a call go; replaces the one before.
    Listen(CallId, mpsc::Sender<Frame>),
    /// 20 ms of the microphone.
    Speak(CallId, Box<Frame>),
    /// Figures of a call.
    Stats(CallId, oneshot::Sender<Option<CallStats>>),
    /// Offer files.
    SendFiles {
        /// To whom.
        to: Jid,
        /// What, and where it is.
        files: Vec<(Entry, OutgoingFile)>,
        /// How they may travel.
        ways: Vec<WayKind>,
        /// The transfer.
        reply: oneshot::Sender<Result<TransferId, Misuse>>,
    },
    /// Take files; those of the offer that are not named are declined.
    AcceptFiles {
        /// Of this transfer.
        transfer: TransferId,
        /// Which, and where they go.
        files: Vec<(Wanted, Part)>,
        /// Whether they were there to be taken.
        reply: oneshot::Sender<Result<(), Misuse>>,
    },
    /// Give the file that was asked for.
    ServeFile {
        /// Which.
        id: FileId,
        /// Where it is.
        entry: Box<Entry>,
        /// What the peer is told of it.
        file: Box<OutgoingFile>,
        /// Whether it was asked for.
        reply: oneshot::Sender<Result<(), Misuse>>,
    },
    /// Ask for a file.
    RequestFile {
        /// Whom.
        from: Jid,
        /// Its name or hash.
        file: Box<FileDescription>,
        /// Where it goes.
        part: Box<Part>,
        /// How it may travel.
        ways: Vec<WayKind>,
        /// The transfer.
        reply: oneshot::Sender<Result<TransferId, Misuse>>,
    },
    /// Decline the files that await an answer.
    RejectFiles(TransferId, Reason),
    /// End a transfer.
    CancelTransfer(TransferId),
    /// End one file of it.
    CancelFile(FileId),
    /// Bytes of a file that are through; `None` before it begins and after its transfer.
    FileProgress(FileId, oneshot::Sender<Option<u64>>),
    /// Hang up everything, sign out, end the task.
    ShutDown(oneshot::Sender<()>),
}

/// A datagram as it came in.
struct Datagram {
    local: SocketAddr,
    source: SocketAddr,
    bytes: Vec<u8>,
}

/// What tasks of the driver report to it.
enum Report {
    Bound(LegId, Vec<BoundSocket>),
    Resolved(String, Vec<IpAddr>),
}

struct Sockets {
    bound: Vec<BoundSocket>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

/// What the driver needs of the machine beside the signalling connection.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// Name servers; none: the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// For accounts of SIP.
    pub sip: SipNetwork,
}

struct Driver {
    endpoint: Endpoint,
    /// Of XMPP; `None` with accounts of SIP alone.
    signalling: Option<Signalling>,
    carrier: Option<CarrierTask>,
    sip: SipSockets,
    /// Signed in once: what fails from then on is tried again.
    was_online: bool,
    /// Name servers; none: the system's.
    dns_servers: Vec<SocketAddr>,
    sockets: BTreeMap<LegId, Sockets>,
    files: Files,
    /// What the engine wants of `files` next.
    orders: VecDeque<FileOutput>,
    listeners: BTreeMap<CallId, mpsc::Sender<Frame>>,
    /// Datagrams of files that wait for room in a socket's queue; sound is never late rather than lost.
    unsent: VecDeque<Transmit>,
    datagrams: (mpsc::Sender<Datagram>, mpsc::Receiver<Datagram>),
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    /// Made when the first `.local` name comes; `Some(None)` where there is no multicast.
    mdns: Option<Option<Arc<MdnsResolver>>>,
    events: mpsc::Sender<Event>,
    /// Events that the application has not room for yet.
    waiting: VecDeque<Event>,
    closing: Option<oneshot::Sender<()>>,
    seed: u32,
}

/// Events that wait for a slow application before the least important ones are dropped.
const EVENTS: usize = 1024;
/// What a sign-out may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Starts the task. Dropping `commands` ends it. `signalling` is that of XMPP, if there is an account.
#[must_use]
pub fn start(
    signalling: Option<Signalling>,
    network: Network,
    identity: Arc<Identity>,
    config: EndpointConfig,
    seed: [u8; 32],
) -> (mpsc::Sender<Command>, mpsc::Receiver<Event>) {
    let (command_in, commands) = mpsc::channel(QUEUE);
    let (events, event_out) = mpsc::channel(QUEUE);
    let number = seed.iter().take(4).fold(0u32, |all, b| all << 8 | u32::from(*b));
    let endpoint = Endpoint::new(Instant::now(), SystemTime::now(), seed, identity, config);
    let driver = Driver {
        endpoint,
        signalling,
        files: Files::new(Dns::with_servers(&network.dns_servers)),
        orders: VecDeque::new(),
        carrier: None,
        // One place says which servers are asked.
        sip: SipSockets::new(SipNetwork { dns_servers: network.dns_servers.clone(), ..network.sip }),
        was_online: false,
        dns_servers: network.dns_servers,
        sockets: BTreeMap::new(),
        listeners: BTreeMap::new(),
        unsent: VecDeque::new(),
        datagrams: mpsc::channel(DATAGRAMS),
        reports: mpsc::channel(QUEUE),
        mdns: None,
        events,
        waiting: VecDeque::new(),
        closing: None,
        seed: number,
    };
    tokio::spawn(driver.run(commands));
    (command_in, event_out)
}

/// Runs a future beside the driver.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}

/// Runs what blocks, such as the disk, beside the driver; `None` if it broke.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Runs one call in memory, so that the first call is as fast as the second.
pub(crate) fn warm_up(identity: &Arc<Identity>) {
    crate::transport::warm_up::warm_up(identity, Instant::now());
}

/// A seed that nobody can guess.
pub(crate) fn random_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    if aws_lc_rs::rand::fill(&mut seed).is_err() {
        // Without randomness nothing of a call would be safe.
        tracing::error!("the system gives no randomness");
        std::process::abort();
    }
    seed
}

fn tls_info(facts: &TlsFacts) -> TlsInfo {
    // Without TLS 1.3 there is no exporter here (`tcp::start_tls`).
    let version = if facts.exporter.is_some() { TlsVersion::Tls13 } else { TlsVersion::Tls12 };
    TlsInfo { version, exporter: facts.exporter.clone() }
}

/// What woke the driver.
enum Wake {
    Command(Option<Command>),
    Carrier(Option<CarrierEvent>),
    Datagram(Datagram),
    Sip(SipReport),
    Report(Report),
    File(Box<FileInput>),
    Frame,
    Timeout,
    Room,
    Writable,
}

impl Driver {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut clock = tokio::time::interval(FRAME);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut close_by: Option<Instant> = None;
        loop {
            let mut timeout = self.drain();
            while self.work_on_files().await {
                timeout = self.drain();
            }
            if self.closing.is_some() && close_by.is_none() {
                close_by = Some(Instant::now() + CLOSE_LIMIT);
            }
            if self.closing.is_some()
                && ((self.carrier.is_none() && self.endpoint.is_quiet())
                    || close_by.is_some_and(|at| at <= Instant::now()))
            {
                break;
            }
            let deadline = [timeout, close_by].into_iter().flatten().min();
            let wake = self.wait(&mut commands, &mut clock, deadline).await;
            let now = Instant::now();
            match wake {
                Wake::Command(Some(command)) => self.handle_command(now, command),
                Wake::Command(None) => {
                    let (done, _) = oneshot::channel();
                    self.endpoint.shut_down(now);
                    self.closing.get_or_insert(done);
                }
                Wake::Carrier(event) => self.handle_carrier(now, event),
                Wake::Datagram(mut datagram) => {
                    let (local, source) = (datagram.local, datagram.source);
                    self.endpoint.handle_input(now, Input::Datagram { local, source, bytes: &mut datagram.bytes });
                }
                Wake::Sip(report) => report.give(|input| self.endpoint.handle_input(now, Input::Sip(input))),
                Wake::Report(Report::Resolved(name, addrs)) => {
                    self.endpoint.handle_input(now, Input::Resolved { name, addrs });
                }
                Wake::Report(Report::Bound(leg, bound)) => self.handle_bound(now, leg, bound),
                Wake::File(input) => self.endpoint.handle_input(now, Input::File(*input)),
                Wake::Frame => self.play(now),
                Wake::Timeout => self.endpoint.handle_timeout(now),
                Wake::Writable => self.send_waiting(),
                Wake::Room => {}
            }
        }
        if let Some(done) = self.closing.take() {
            // The application may not wait for the end.
            let _ = done.send(());
        }
    }

    async fn wait(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        clock: &mut tokio::time::Interval,
        deadline: Option<Instant>,
    ) -> Wake {
        let playing = !self.listeners.is_empty();
        if !playing {
            clock.reset();
        }
        let closing = self.closing.is_some();
        let carrier = async {
            match &mut self.carrier {
                Some(task) => task.events.recv().await,
                None => std::future::pending().await,
            }
        };
        let blocked = self.unsent.front().and_then(|t| socket_of(&self.sockets, t.local));
        let writable = async {
            match blocked {
                // A socket that is beyond use says so when it is written to.
                Some(socket) => drop(socket.socket.writable().await),
                None => std::future::pending().await,
            }
        };
        let sleep = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Sound first: it is what people hear.
            biased;
            _ = clock.tick(), if playing => Wake::Frame,
            Some(datagram) = self.datagrams.1.recv() => Wake::Datagram(datagram),
            command = commands.recv(), if !closing => Wake::Command(command),
            event = carrier => Wake::Carrier(event),
            report = self.sip.next() => Wake::Sip(report),
            Some(report) = self.reports.1.recv() => Wake::Report(report),
            input = self.files.next() => Wake::File(Box::new(input)),
            _ = self.events.reserve(), if !self.waiting.is_empty() => Wake::Room,
            () = writable => Wake::Writable,
            () = sleep => Wake::Timeout,
        }
    }

    /// Carries out what the endpoint wants; gives its next deadline.
    fn drain(&mut self) -> Option<Instant> {
        loop {
            match self.endpoint.poll_output() {
                Output::Timeout(at) => {
                    self.flush_events();
                    return at;
                }
                Output::Connect => self.connect(),
                Output::Bytes(bytes) => self.tell_carrier(CarrierCommand::Write(bytes)),
                Output::StartTls => self.tell_carrier(CarrierCommand::StartTls),
                Output::Close => {
                    self.tell_carrier(CarrierCommand::Close);
                    self.carrier = None;
                }
                Output::Transmit(transmit) => self.send(transmit),
                Output::OpenSockets { leg, lab, plan } => self.open_sockets(leg, lab, plan),
                Output::CloseSockets(leg) => {
                    self.sockets.remove(&leg);
                    if let LegId::Call(call) = leg {
                        self.listeners.remove(&call);
                    }
                }
                Output::File(output) => self.orders.push_back(output),
                Output::Sip(output) => self.sip.handle(output),
                Output::Resolve(name) => self.resolve(name),
                Output::Event(event) => {
                    self.was_online |= matches!(event, Event::Online { .. });
                    self.waiting.push_back(event);
                }
            }
        }
    }

    /// Carries out what is to be done with files; true if the engine has something to say to it.
    async fn work_on_files(&mut self) -> bool {
        let mut answered = false;
        while let Some(order) = self.orders.pop_front() {
            if let Some(input) = self.files.handle(order).await {
                self.endpoint.handle_input(Instant::now(), Input::File(input));
                answered = true;
            }
        }
        answered
    }

    fn flush_events(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                self.waiting.push_front(event);
                break;
            }
        }
        if self.waiting.len() > EVENTS {
            // The end of a call is never dropped; a peer that presses keys faster than anybody reads is.
            self.waiting.retain(|e| {
                !matches!(e, Event::Digit { .. } | Event::Hold { .. } | Event::Mute { .. } | Event::Presence { .. })
            });
        }
    }

    fn tell_carrier(&mut self, command: CarrierCommand) {
        if let Some(task) = &self.carrier
            && task.commands.try_send(command).is_err()
        {
            // The server has not read for so long that the queue is full: the connection is as good as dead.
            self.carrier = None;
            self.endpoint.handle_input(Instant::now(), Input::Closed("the connection does not take any more".into()));
        }
    }

    fn connect(&mut self) {
        let Some(signalling) = self.signalling.clone() else { return };
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.carrier = Some(carrier::open(signalling, self.dns(), self.seed));
    }

    fn dns(&self) -> Dns {
        // Made anew each time: the system's configuration changes with the network.
        Dns::with_servers(&self.dns_servers)
    }

    fn handle_carrier(&mut self, now: Instant, event: Option<CarrierEvent>) {
        let input = match event {
            Some(CarrierEvent::Connected { tls, loopback }) => {
                let pinned = match &self.signalling {
                    Some(Signalling::Server { .. }) | None => None,
                    Some(Signalling::Connect { .. }) => Some(true),
                    Some(Signalling::Listen { pinned, .. }) => Some(*pinned),
                };
                if let (Some(pinned), Some(sha256)) = (pinned, tls.as_ref().and_then(|t| t.peer_sha256)) {
                    self.waiting.push_back(Event::PeerCertificate { sha256, pinned });
                }
                Input::Connected { tls: tls.as_ref().map(tls_info), loopback }
            }
            Some(CarrierEvent::TlsStarted(facts)) => Input::TlsStarted(tls_info(&facts)),
            Some(CarrierEvent::Bytes(bytes)) => {
                self.endpoint.handle_input(now, Input::Bytes(&bytes));
                return;
            }
            Some(CarrierEvent::Closed(why)) => {
                self.carrier = None;
                Input::Closed(why)
            }
            Some(CarrierEvent::Failed(why)) => {
                self.carrier = None;
                if matches!(why, ConnectError::Certificate { .. }) && !self.was_online {
                    // A person waits for the first sign-in, and another attempt meets the same certificate. Later on it may be a
                    // foreign network's portal: then the next attempts, each with all checks, find the server again.
                    self.waiting.push_back(Event::Refused(Refusal::Security(why.to_string())));
                }
                Input::Closed(why.to_string())
            }
            None => {
                self.carrier = None;
                Input::Closed("the connection is gone".into())
            }
        };
        self.endpoint.handle_input(now, input);
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        // Whoever asked may have stopped waiting for the answer.
        match command {
            Command::Call(to, reply) => {
                if let Err(Ok(unwanted)) = reply.send(self.endpoint.call(now, &to)) {
                    drop(self.endpoint.hang_up(now, unwanted));
                }
            }
            Command::Accept(call, reply) => drop(reply.send(self.endpoint.accept(now, call))),
            Command::Reject(call, reason) => drop(self.endpoint.reject(now, call, reason)),
            Command::HangUp(call) => drop(self.endpoint.hang_up(now, call)),
            Command::Hold(call, on, reply) => drop(reply.send(self.endpoint.hold(now, call, on))),
            Command::Mute(call, on, reply) => drop(reply.send(self.endpoint.mute(now, call, on))),
            Command::Transfer(call, to, reply) => drop(reply.send(self.endpoint.transfer(now, call, to))),
            Command::Digit(call, digit, reply) => drop(reply.send(self.endpoint.send_digit(now, call, digit))),
            Command::Listen(call, frames) => drop(self.listeners.insert(call, frames)),
            Command::Speak(call, frame) => {
                let sockets = &self.sockets;
                self.endpoint.push_audio(now, call, frame.as_slice(), &mut |route, datagram| {
                    // Sound that has to wait is of no use.
                    is_full(send_to(sockets, route.local, route.destination, datagram));
                });
            }
            Command::Stats(call, reply) => drop(reply.send(self.endpoint.stats(now, call))),
            Command::SendFiles { to, files, ways, reply } => {
                let (entries, files): (Vec<Entry>, Vec<OutgoingFile>) = files.into_iter().unzip();
                let sent = self.endpoint.send_files(now, &to, files, &ways);
                if let Ok(transfer) = sent {
                    for (file, entry) in entries.into_iter().enumerate() {
                        self.files.offer(FileId { transfer, file }, entry);
                    }
                }
                self.wanted(now, reply, sent);
            }
            Command::AcceptFiles { transfer, files, reply } => {
                let mut wanted = Vec::with_capacity(files.len());
                for (want, part) in files {
                    self.files.expect(want.id, part);
                    wanted.push(want);
                }
                drop(reply.send(self.endpoint.accept_files(now, transfer, &wanted)));
            }
            Command::ServeFile { id, entry, file, reply } => {
                self.files.offer(id, *entry);
                drop(reply.send(self.endpoint.serve_file(now, id, *file)));
            }
            Command::RequestFile { from, file, part, ways, reply } => {
                let asked = self.endpoint.request_file(now, &from, *file, &ways);
                if let Ok(transfer) = asked {
                    self.files.expect(FileId { transfer, file: 0 }, *part);
                }
                self.wanted(now, reply, asked);
            }
            Command::RejectFiles(transfer, reason) => drop(self.endpoint.reject_files(now, transfer, reason)),
            Command::CancelTransfer(transfer) => drop(self.endpoint.cancel_transfer(now, transfer)),
            Command::CancelFile(id) => drop(self.endpoint.cancel_file(now, id)),
            Command::FileProgress(id, reply) => drop(reply.send(self.files.progress(id))),
            Command::ShutDown(done) => {
                self.endpoint.shut_down(now);
                self.closing = Some(done);
            }
        }
    }

    /// Answers whoever began a transfer; one that nobody waits for any more is not wanted.
    fn wanted(
        &mut self,
        now: Instant,
        reply: oneshot::Sender<Result<TransferId, Misuse>>,
        begun: Result<TransferId, Misuse>,
    ) {
        if let Err(Ok(unwanted)) = reply.send(begun) {
            drop(self.endpoint.cancel_transfer(now, unwanted));
        }
    }

    /// One frame for every listener.
    fn play(&mut self, now: Instant) {
        let calls: Vec<CallId> = self.listeners.keys().copied().collect();
        for call in calls {
            let mut frame: Frame = [0; FRAME_SAMPLES];
            self.endpoint.pull_audio(now, call, &mut frame);
            let gone = self
                .listeners
                .get(&call)
                .is_some_and(|l| matches!(l.try_send(frame), Err(mpsc::error::TrySendError::Closed(_))));
            if gone {
                self.listeners.remove(&call);
            }
        }
    }

    fn open_sockets(&self, leg: LegId, lab: bool, plan: SocketPlan) {
        let reports = self.reports.0.clone();
        tokio::spawn(async move {
            let bound = match plan {
                SocketPlan::EveryAddress => udp::bind_sockets(&BindPolicy { lab, ..BindPolicy::default() }).await,
                SocketPlan::Pair(ip) => udp::bind_pair(ip).await,
                SocketPlan::Towards(ip) => match udp::towards(ip).await {
                    Ok(local) => udp::bind_pair(local).await,
                    Err(why) => Err(why),
                },
            };
            let bound = bound.unwrap_or_else(|why| {
                tracing::warn!(%why, "no UDP socket can be bound");
                Vec::new()
            });
            // The driver may be gone.
            let _ = reports.send(Report::Bound(leg, bound)).await;
        });
    }

    fn handle_bound(&mut self, now: Instant, leg: LegId, bound: Vec<BoundSocket>) {
        let readers =
            bound.iter().cloned().map(|socket| tokio::spawn(read(socket, self.datagrams.0.clone()))).collect();
        let addrs: Vec<SocketAddr> = bound.iter().map(|s| s.addr).collect();
        self.sockets.insert(leg, Sockets { bound, readers });
        self.endpoint.handle_input(now, Input::Sockets { leg, bound: addrs });
    }

    /// Sends a datagram, behind those that wait already.
    fn send(&mut self, transmit: Transmit) {
        if !self.unsent.is_empty() || is_full(send(&self.sockets, &transmit)) {
            // Past the limit it is lost, as in a network.
            if self.unsent.len() < DATAGRAMS {
                self.unsent.push_back(transmit);
            }
        }
    }

    fn send_waiting(&mut self) {
        while let Some(transmit) = self.unsent.pop_front() {
            if is_full(send(&self.sockets, &transmit)) {
                self.unsent.push_front(transmit);
                return;
            }
        }
    }

    fn resolve(&mut self, name: String) {
        let reports = self.reports.0.clone();
        let dns = self.dns();
        let local = name.ends_with(".local");
        let mdns =
            if local { self.mdns.get_or_insert_with(|| MdnsResolver::new().map(Arc::new)).clone() } else { None };
        tokio::spawn(async move {
            let addrs = match (local, mdns) {
                (true, Some(mdns)) => mdns.resolve(&name).await.into_iter().collect(),
                (true, None) => Vec::new(),
                (false, _) => dns.addresses(&name, 0).await.into_iter().map(|a| a.ip()).collect(),
            };
            // The driver may be gone.
            let _ = reports.send(Report::Resolved(name, addrs)).await;
        });
    }
}

async fn read(socket: BoundSocket, datagrams: mpsc::Sender<Datagram>) {
    let local = socket.addr;
    let outcome = udp::receive(&socket.socket, |source, bytes| {
        // A full queue loses the datagram, as a full socket buffer would.
        match datagrams.try_send(Datagram { local, source, bytes: bytes.to_vec() }) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => ControlFlow::Continue(()),
            Err(mpsc::error::TrySendError::Closed(_)) => ControlFlow::Break(()),
        }
    })
    .await;
    if let Err(why) = outcome {
        tracing::warn!(%why, "a UDP socket is beyond use");
    }
}

fn socket_of(sockets: &BTreeMap<LegId, Sockets>, local: SocketAddr) -> Option<BoundSocket> {
    sockets.values().flat_map(|s| &s.bound).find(|b| b.addr == local).cloned()
}

/// Sends a datagram; one whose socket is closed already is done with.
fn send(sockets: &BTreeMap<LegId, Sockets>, transmit: &Transmit) -> std::io::Result<()> {
    send_to(sockets, transmit.local, transmit.destination, &transmit.contents)
}

fn send_to(
    sockets: &BTreeMap<LegId, Sockets>,
    local: SocketAddr,
    destination: SocketAddr,
    datagram: &[u8],
) -> std::io::Result<()> {
    let Some(owner) = sockets.values().find(|s| s.bound.iter().any(|b| b.addr == local)) else { return Ok(()) };
    udp::send_to(&owner.bound, local, destination, datagram)
}

/// True if it is worth another try. A dead route loses a datagram; ICE, RTP and SCTP live with loss.
fn is_full(sent: std::io::Result<()>) -> bool {
    match sent {
        Ok(()) => false,
        Err(why) => {
            tracing::trace!(%why, "a datagram is not sent");
            why.kind() == std::io::ErrorKind::WouldBlock
        }
    }
}

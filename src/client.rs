//! The async API: sign in, call, answer, talk. `endpoint.rs` is the engine below it, `io/driver.rs` runs it.

use crate::config::Secret;
use crate::endpoint::event::{CallId, Event};
use crate::endpoint::{Account, EndpointConfig, MediaConfig};
use crate::error::Error;
use crate::io::dns::Target;
use crate::io::driver::{self, Command};
use crate::io::tls::{self, SelfSigned};
use crate::jingle::session::{SessionContext, SessionPolicy};
use crate::transport::dtls::Identity;
use crate::wire::jid::Jid;
use crate::xmpp::link_local::LinkRole;
use crate::xmpp::stream::{StreamConfig, TlsPolicy};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::{mpsc, oneshot};

pub use crate::endpoint::event::{CallStats, Connected, EndKind, Ended, Party, Signalling};
pub use crate::endpoint::{AddressPolicy, Misuse, NamedServer};
pub use crate::fault::ReasonCondition;
pub use crate::io::driver::{FRAME, Frame};
pub use crate::jingle::sessions::Callers;
pub use crate::media::codec::CodecName;

/// Events of one call that wait for a slow application.
const CALL_EVENTS: usize = 256;

/// How a client signals.
#[derive(Debug, Clone)]
enum Way {
    Server,
    Connect { addr: SocketAddr, pin: [u8; 32] },
    Listen { addr: SocketAddr, pin: Option<[u8; 32]> },
}

/// Collects what a client needs; [`ClientBuilder::build`] signs in.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    account: Option<Jid>,
    password: Secret,
    resource: Option<String>,
    server: Option<Target>,
    ca_file: Option<PathBuf>,
    plaintext: bool,
    way: Way,
    certificate: Option<SelfSigned>,
    callers: Callers,
    address_policy: AddressPolicy,
    media: MediaConfig,
    seed: Option<[u8; 32]>,
    dns_servers: Vec<SocketAddr>,
    show_signalling: bool,
}

impl ClientBuilder {
    /// The account, bare or with a resource.
    #[must_use]
    pub fn account(mut self, jid: Jid) -> Self {
        self.account = Some(jid);
        self
    }

    /// Its password.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Secret::new(password);
        self
    }

    /// Resource to ask for.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Connects there instead of looking the domain up.
    #[must_use]
    pub fn server(mut self, host: impl Into<String>, port: u16, direct_tls: bool) -> Self {
        self.server = Some(Target { host: host.into(), port, direct_tls });
        self
    }

    /// Trusts the certificates of this PEM file beside the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Allows a connection without TLS to a loopback address; refused elsewhere.
    #[must_use]
    pub fn insecure_plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// No server: connect to another client at `addr`, whose certificate has the SHA-256 `pin` (XEP-0174's stream).
    #[must_use]
    pub fn connect(mut self, addr: SocketAddr, pin: [u8; 32]) -> Self {
        self.way = Way::Connect { addr, pin };
        self
    }

    /// No server: await another client at `addr`; `pin` is the SHA-256 of the only certificate that is accepted.
    #[must_use]
    pub fn serverless(mut self, addr: SocketAddr, pin: Option<[u8; 32]>) -> Self {
        self.way = Way::Listen { addr, pin };
        self
    }

    /// Certificate of the serverless stream; a fresh one if not given.
    #[must_use]
    pub fn certificate(mut self, certificate: SelfSigned) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Who may call; contacts by default.
    #[must_use]
    pub fn callers(mut self, callers: Callers) -> Self {
        self.callers = callers;
        self
    }

    /// Who may learn our addresses.
    #[must_use]
    pub fn address_policy(mut self, policy: AddressPolicy) -> Self {
        self.address_policy = policy;
        self
    }

    /// Codecs, relays, laboratory.
    #[must_use]
    pub fn media(mut self, media: MediaConfig) -> Self {
        self.media = media;
        self
    }

    /// Reports each Jingle stanza as [`ClientEvent::Signalled`].
    #[must_use]
    pub fn show_signalling(mut self) -> Self {
        self.show_signalling = true;
        self
    }

    /// Makes every random choice but keys repeat.
    #[must_use]
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Looks names up at these servers and nowhere else, over UDP; for laboratories.
    #[must_use]
    pub fn dns_servers(mut self, servers: impl Into<Vec<SocketAddr>>) -> Self {
        self.dns_servers = servers.into();
        self
    }

    /// Signs in and gives the client once it is online. A serverless listener is ready at once.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Authentication`], [`Error::Unreachable`], [`Error::Security`], [`Error::Io`].
    pub async fn build(self) -> Result<Client, Error> {
        let certificate = match &self.certificate {
            Some(certificate) => certificate.clone(),
            None => SelfSigned::generate().map_err(|e| Error::Config(e.to_string()))?,
        };
        let config = |e: tls::TlsSetup| Error::Config(e.to_string());
        let account = self.account.clone().ok_or_else(|| Error::Config("no account is given".into()))?;
        let mut listening = None;
        let (signalling, account) = match &self.way {
            Way::Server => {
                let mut stream = StreamConfig::new(account.clone(), self.password.clone());
                stream.resource.clone_from(&self.resource);
                if self.plaintext {
                    stream.tls = TlsPolicy::PlaintextLoopbackOnly;
                }
                let tls = tls::client_with_roots(self.ca_file.as_deref()).map_err(config)?;
                let domain = account.domain().to_string();
                (
                    driver::Signalling::Server { domain, server: self.server.clone(), tls },
                    Account::Client(Box::new(stream)),
                )
            }
            Way::Connect { addr, pin } => {
                let target = Target { host: addr.ip().to_string(), port: addr.port(), direct_tls: true };
                let tls = certificate.client(*pin).map_err(config)?;
                (
                    driver::Signalling::Connect { target, tls },
                    Account::serverless(LinkRole::Connector, account.to_bare()),
                )
            }
            Way::Listen { addr, pin } => {
                let listener = Arc::new(tokio::net::TcpListener::bind(addr).await?);
                listening = Some(listener.local_addr()?);
                let tls = certificate.server(*pin).map_err(config)?;
                (
                    driver::Signalling::Listen { listener, tls, pinned: pin.is_some() },
                    Account::serverless(LinkRole::Listener, account.to_bare()),
                )
            }
        };
        let context = SessionContext {
            policy: SessionPolicy {
                early_transport: self.address_policy == AddressPolicy::Contacts,
                ..SessionPolicy::default()
            },
            ..SessionContext::default()
        };
        let endpoint = EndpointConfig {
            account,
            context,
            callers: self.callers,
            address_policy: self.address_policy,
            media: self.media,
            show_signalling: self.show_signalling,
        };
        let seed = self.seed.unwrap_or_else(crate::io::driver::random_seed);
        let (commands, mut events) = driver::start(signalling, self.dns_servers, identity()?, endpoint, seed);
        let mut jid = None;
        let mut mechanism = None;
        let mut failure = None;
        while jid.is_none() && listening.is_none() {
            match events.recv().await {
                Some(Event::Online { jid: bound, mechanism: used, .. }) => {
                    jid = Some(bound);
                    mechanism = used;
                }
                Some(Event::Refused(refusal)) => return Err(refusal.into()),
                Some(Event::ConnectFailed(why)) => {
                    // The first sign-in is not repeated for ever: a person waits for it.
                    return Err(Error::Unreachable(why));
                }
                Some(_) => {}
                None => {
                    failure.get_or_insert(Error::Closed);
                    break;
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(Client { mechanism, ..Client::new(commands, events, jid, listening, certificate.sha256()) }),
        }
    }
}

/// The DTLS certificate of this process, made and warmed up once, so that no call waits for it.
fn identity() -> Result<Arc<Identity>, Error> {
    static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(Arc::clone(identity));
    }
    let made = Identity::generate().map_err(|e| Error::Security(format!("no DTLS certificate can be made: {e}")))?;
    let made = Arc::new(made);
    driver::warm_up(&made);
    Ok(Arc::clone(IDENTITY.get_or_init(|| made)))
}

/// What happens outside of any call that the application already holds.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Somebody calls.
    Incoming(Incoming),
    /// Signed in (again).
    Online(Jid),
    /// The server connection changed; calls go on meanwhile.
    Signalling(Signalling),
    /// TLS with a serverless peer is up: SHA-256 of its certificate, and whether that was pinned. If not, show it: anybody may
    /// have come, whatever address is claimed.
    PeerCertificate([u8; 32], bool),
    /// Signed out for good.
    Refused(Error),
    /// A Jingle stanza came or went, in one line; only with [`ClientBuilder::show_signalling`].
    Signalled(Party, String),
}

/// A call that rings here. Dropping it declines it.
#[derive(Debug)]
pub struct Incoming {
    /// Who calls; with the device.
    pub from: Jid,
    /// Session id.
    pub sid: String,
    /// `audio`, …
    pub media: Vec<String>,
    call: Option<Call>,
}

impl Incoming {
    /// Takes the call: from here on media may be sent.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the caller has just given up.
    pub async fn accept(mut self) -> Result<Call, Error> {
        let call = self.call.take().ok_or(Error::Closed)?;
        call.ask(|reply| Command::Accept(call.id, reply)).await?;
        Ok(call)
    }

    /// Declines it.
    pub fn reject(mut self, reason: ReasonCondition) {
        if let Some(call) = self.call.take() {
            call.reject(reason);
        }
    }

    /// Waits until it is over by itself: the caller gave up, or another device took it.
    pub async fn over(&mut self) -> Option<Ended> {
        let call = self.call.as_mut()?;
        loop {
            match call.next_event().await {
                Some(CallEvent::Ended(ended)) => return Some(ended),
                Some(_) => {}
                None => return None,
            }
        }
    }
}

/// What happens in one call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum CallEvent {
    /// The other side is being alerted.
    Ringing,
    /// Both sides want the call.
    Accepted,
    /// Media flows.
    Connected(Box<Connected>),
    /// Media moved to another pair of addresses.
    PathChanged {
        /// `host`, `srflx`, `prflx`, `relay` of both ends.
        kinds: (&'static str, &'static str),
        /// Both ends.
        path: crate::transport::path::Path,
    },
    /// The peer pressed a key.
    Digit(char),
    /// Hold began or ended.
    Hold {
        /// Began.
        on: bool,
        /// By whom.
        by: Party,
    },
    /// Mute began or ended.
    Mute {
        /// Began.
        on: bool,
        /// By whom.
        by: Party,
    },
    /// Nothing arrives although the call is connected; `false`: something arrives again.
    Silent(bool),
    /// The last event of a call.
    Ended(Ended),
}

/// Both ends of a call's events; the reading end until the application has taken the call.
#[derive(Debug)]
struct Slot {
    events: mpsc::Sender<CallEvent>,
    reader: Option<mpsc::Receiver<CallEvent>>,
}

impl Slot {
    fn new() -> Self {
        let (events, reader) = mpsc::channel(CALL_EVENTS);
        Self { events, reader: Some(reader) }
    }
}

type Calls = Arc<Mutex<BTreeMap<CallId, Slot>>>;

/// A signed-in account. Dropping it signs out.
#[derive(Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<ClientEvent>,
    calls: Calls,
    jid: Option<Jid>,
    listening: Option<SocketAddr>,
    mechanism: Option<&'static str>,
    sha256: [u8; 32],
}

impl Client {
    /// Starts a builder.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            account: None,
            password: Secret::default(),
            resource: None,
            server: None,
            ca_file: None,
            plaintext: false,
            way: Way::Server,
            certificate: None,
            callers: Callers::default(),
            address_policy: AddressPolicy::default(),
            media: MediaConfig::default(),
            seed: None,
            dns_servers: Vec::new(),
            show_signalling: false,
        }
    }

    fn new(
        commands: mpsc::Sender<Command>,
        events: mpsc::Receiver<Event>,
        jid: Option<Jid>,
        listening: Option<SocketAddr>,
        sha256: [u8; 32],
    ) -> Self {
        let calls = Calls::default();
        let (event_in, event_out) = mpsc::channel(CALL_EVENTS);
        crate::io::driver::spawn(dispatch(events, event_in, Arc::clone(&calls), commands.clone()));
        Self { commands, events: event_out, calls, jid, listening, mechanism: None, sha256 }
    }

    /// Our full address; `None` before a serverless peer has come.
    #[must_use]
    pub fn jid(&self) -> Option<&Jid> {
        self.jid.as_ref()
    }

    /// SASL mechanism of the first sign-in, such as `SCRAM-SHA-256-PLUS`; `None` on a serverless stream.
    #[must_use]
    pub fn mechanism(&self) -> Option<&'static str> {
        self.mechanism
    }

    /// Where a serverless listener listens.
    #[must_use]
    pub fn listening(&self) -> Option<SocketAddr> {
        self.listening
    }

    /// SHA-256 of our serverless certificate: what the other side pins.
    #[must_use]
    pub fn certificate_sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Calls somebody; gives the call at once, its progress comes as events.
    ///
    /// # Errors
    /// [`Error::Misuse`] while offline or past the cap on calls, [`Error::Closed`].
    pub async fn call(&self, to: Jid) -> Result<Call, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Call(to, reply)).await.map_err(|_| Error::Closed)?;
        let id = answer.await.map_err(|_| Error::Closed)??;
        Ok(attach(&self.calls, &self.commands, id))
    }

    /// The next event; `None` after the end.
    pub async fn next_event(&mut self) -> Option<ClientEvent> {
        let event = self.events.recv().await;
        if let Some(ClientEvent::Online(jid)) = &event {
            self.jid = Some(jid.clone());
        }
        event
    }

    /// The next incoming call; other events meanwhile are dropped.
    pub async fn incoming(&mut self) -> Option<Incoming> {
        loop {
            match self.next_event().await? {
                ClientEvent::Incoming(incoming) => return Some(incoming),
                ClientEvent::Online(_)
                | ClientEvent::Signalling(_)
                | ClientEvent::PeerCertificate(..)
                | ClientEvent::Signalled(..) => {}
                ClientEvent::Refused(_) => return None,
            }
        }
    }

    /// Hangs up everything and signs out.
    pub async fn close(self) {
        let (done, end) = oneshot::channel();
        if self.commands.send(Command::ShutDown(done)).await.is_ok() {
            // The task ends in any case.
            let _ = end.await;
        }
    }
}

/// The application's handle on a call whose events may already be coming.
fn attach(calls: &Calls, commands: &mpsc::Sender<Command>, id: CallId) -> Call {
    let mut known = calls.lock().unwrap_or_else(PoisonError::into_inner);
    let slot = known.entry(id).or_insert_with(Slot::new);
    let events = slot.reader.take().unwrap_or_else(|| mpsc::channel(1).1);
    if slot.events.is_closed() {
        known.remove(&id);
    }
    Call { id, commands: commands.clone(), events, over: false }
}

/// Hands each event to the call it belongs to, or to the client.
async fn dispatch(
    mut events: mpsc::Receiver<Event>,
    client: mpsc::Sender<ClientEvent>,
    calls: Calls,
    commands: mpsc::Sender<Command>,
) {
    while let Some(event) = events.recv().await {
        let (id, event) = match event {
            Event::Online { jid, .. } => {
                tell(&client, ClientEvent::Online(jid));
                continue;
            }
            Event::PeerCertificate { sha256, pinned } => {
                tell(&client, ClientEvent::PeerCertificate(sha256, pinned));
                continue;
            }
            Event::Signalling(state) => {
                tell(&client, ClientEvent::Signalling(state));
                continue;
            }
            Event::Refused(refusal) => {
                tell(&client, ClientEvent::Refused(refusal.into()));
                continue;
            }
            Event::Incoming { call, sid, from, media } => {
                let call = Some(attach(&calls, &commands, call));
                // An application that does not listen lets the call ring out: `Incoming` declines when dropped.
                tell(&client, ClientEvent::Incoming(Incoming { from, sid: sid.0, media, call }));
                continue;
            }
            Event::Signalled { by, what } => {
                tell(&client, ClientEvent::Signalled(by, what));
                continue;
            }
            Event::ConnectFailed(_) | Event::Presence { .. } | Event::File(_) => continue,
            Event::Ringing(call) => (call, CallEvent::Ringing),
            Event::Accepted(call) => (call, CallEvent::Accepted),
            Event::Connected { call, facts } => (call, CallEvent::Connected(facts)),
            Event::PathChanged { call, kinds, path } => {
                (call, CallEvent::PathChanged { kinds: (kinds.0.as_str(), kinds.1.as_str()), path })
            }
            Event::Digit { call, digit } => (call, CallEvent::Digit(digit)),
            Event::Hold { call, on, by } => (call, CallEvent::Hold { on, by }),
            Event::Mute { call, on, by } => (call, CallEvent::Mute { on, by }),
            Event::MediaSilent { call, silent } => (call, CallEvent::Silent(silent)),
            Event::Ended { call, how } => (call, CallEvent::Ended(*how)),
        };
        let over = matches!(event, CallEvent::Ended(_));
        let sender = {
            let mut known = calls.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = known.entry(id).or_insert_with(Slot::new);
            let sender = slot.events.clone();
            if over && slot.reader.is_none() {
                known.remove(&id);
            }
            sender
        };
        // The end is never lost; anything else is, once 256 events wait unread.
        if over {
            crate::io::driver::spawn(async move {
                // The application may have dropped the call.
                let _ = sender.send(event).await;
            });
        } else {
            let _ = sender.try_send(event);
        }
    }
}

fn tell(client: &mpsc::Sender<ClientEvent>, event: ClientEvent) {
    if let Err(mpsc::error::TrySendError::Full(_)) = client.try_send(event) {
        tracing::warn!("the application does not read its events");
    }
}

/// A call. Dropping it hangs up.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<CallEvent>,
    over: bool,
}

impl Call {
    /// Names the call within this client.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.id
    }

    /// The next event; `None` after [`CallEvent::Ended`].
    pub async fn next_event(&mut self) -> Option<CallEvent> {
        if self.over {
            return None;
        }
        let event = self.events.recv().await;
        self.over = matches!(event, Some(CallEvent::Ended(_)) | None);
        event
    }

    /// Waits until media flows; gives what it runs on, or how the call ended instead.
    ///
    /// # Errors
    /// The end of a call that never connected; `None` when the client is gone.
    pub async fn connected(&mut self) -> Result<Box<Connected>, Option<Ended>> {
        loop {
            match self.next_event().await {
                Some(CallEvent::Connected(facts)) => return Ok(facts),
                Some(CallEvent::Ended(ended)) => return Err(Some(ended)),
                Some(_) => {}
                None => return Err(None),
            }
        }
    }

    /// Both ends of the sound: frames of 20 ms, 960 samples of 16 bits at 48 kHz mono.
    pub async fn audio(&self) -> (Speaker, mpsc::Receiver<Frame>) {
        let (heard, frames) = mpsc::channel(HEARD_FRAMES);
        // A closed client gives silence.
        let _ = self.commands.send(Command::Listen(self.id, heard)).await;
        (Speaker { id: self.id, commands: self.commands.clone() }, frames)
    }

    /// Ends the call.
    pub async fn hang_up(&self) {
        // A closed client has hung up.
        let _ = self.commands.send(Command::HangUp(self.id)).await;
    }

    /// Puts the peer on hold or takes it back.
    ///
    /// # Errors
    /// [`Error::Misuse`], [`Error::Closed`].
    pub async fn hold(&self, on: bool) -> Result<(), Error> {
        self.ask(|reply| Command::Hold(self.id, on, reply)).await
    }

    /// Mutes the microphone or opens it again.
    ///
    /// # Errors
    /// [`Error::Misuse`], [`Error::Closed`].
    pub async fn mute(&self, on: bool) -> Result<(), Error> {
        self.ask(|reply| Command::Mute(self.id, on, reply)).await
    }

    /// Sends a DTMF digit.
    ///
    /// # Errors
    /// [`Error::Misuse`], [`Error::Closed`].
    pub async fn send_dtmf(&self, digit: char) -> Result<(), Error> {
        self.ask(|reply| Command::Digit(self.id, digit, reply)).await
    }

    /// Figures so far; `None` before there is media.
    pub async fn stats(&self) -> Option<CallStats> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Stats(self.id, reply)).await.ok()?;
        answer.await.ok()?
    }

    fn reject(mut self, reason: ReasonCondition) {
        self.over = true;
        // A closed client has declined.
        let _ = self.commands.try_send(Command::Reject(self.id, reason));
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<Result<(), Misuse>>) -> Command) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Closed)?;
        Ok(answer.await.map_err(|_| Error::Closed)??)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            // A closed client has hung up.
            let _ = self.commands.try_send(Command::HangUp(self.id));
        }
    }
}

/// Frames heard that wait for a slow application: 200 ms.
const HEARD_FRAMES: usize = 10;

/// Where the microphone's frames go.
#[derive(Debug, Clone)]
pub struct Speaker {
    id: CallId,
    commands: mpsc::Sender<Command>,
}

impl Speaker {
    /// 20 ms of sound; sent when both sides have accepted, dropped before.
    pub async fn send(&self, frame: &Frame) {
        // A closed client sends nothing.
        let _ = self.commands.send(Command::Speak(self.id, Box::new(*frame))).await;
    }
}

//! The async API: sign in, call, answer, talk, send and receive files. `endpoint.rs` is the engine below it,
//! `io/driver.rs` runs it.

use crate::endpoint::event::Event;
use crate::endpoint::file_event::FileEvent;
use crate::error::Error;
use crate::io::driver::Command;
use crate::wire::address::Address;
use crate::wire::jid::Jid;
use calls::Calls;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};
use transfers::Transfers;

mod builder;
mod calls;
mod progress;
mod transfers;

pub use crate::endpoint::event::{CallStats, Connected, EndKind, Ended, Party, Signalling, TransferStep};
pub use crate::endpoint::file_event::{Way, WayKind};
pub use crate::endpoint::telephone::{MediaPolicy, MediaSecurity};
pub use crate::endpoint::{AddressPolicy, Misuse, NamedServer};
pub use crate::fault::ReasonCondition;
pub use crate::file::FileFault;
pub use crate::io::disk::{Entry, Outbox};
pub use crate::io::driver::{FRAME, Frame};
pub use crate::jingle::sessions::Callers;
pub use crate::media::codec::CodecName;
pub use crate::sip::exchange::Transport as SipTransport;
pub use crate::wire::file::{FileHash, HashAlgo};
pub use builder::{ClientBuilder, SipServer};
pub use calls::{Call, CallEvent, Incoming, Speaker};
pub use progress::{Rate, time_left};
pub use transfers::{
    FileDone, FileOffer, FileRequest, IncomingFiles, Progress, ReceiveOptions, SendOptions, Transfer, TransferEvent,
};

/// Events outside of calls and transfers that wait for a slow application.
const CLIENT_EVENTS: usize = 256;

/// What happens outside of any call or transfer that the application already holds.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Somebody calls.
    Incoming(Incoming),
    /// Somebody offers files.
    IncomingFiles(IncomingFiles),
    /// Somebody asks for a file.
    FileRequested(FileRequest),
    /// Signed in (again).
    Online(Address),
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

/// A signed-in account. Dropping it signs out.
#[derive(Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<ClientEvent>,
    calls: Calls,
    transfers: Transfers,
    address: Option<Address>,
    listening: Option<SocketAddr>,
    mechanism: Option<&'static str>,
    sha256: [u8; 32],
}

impl Client {
    /// Starts a builder.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    fn new(
        commands: mpsc::Sender<Command>,
        events: mpsc::Receiver<Event>,
        address: Option<Address>,
        listening: Option<SocketAddr>,
        sha256: [u8; 32],
    ) -> Self {
        let (calls, transfers) = (Calls::default(), Transfers::default());
        let (event_in, event_out) = mpsc::channel(CLIENT_EVENTS);
        let dispatcher = Dispatcher {
            client: event_in,
            calls: calls.clone(),
            transfers: transfers.clone(),
            commands: commands.clone(),
        };
        crate::io::driver::spawn(dispatcher.run(events));
        Self { commands, events: event_out, calls, transfers, address, listening, mechanism: None, sha256 }
    }

    /// Our full JID; `None` before a serverless peer has come, and with an account of SIP.
    #[must_use]
    pub fn jid(&self) -> Option<&Jid> {
        self.address.as_ref().and_then(Address::as_jid)
    }

    /// Our address, whichever kind it is of.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
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
    /// [`Error::Misuse`] while offline, past the cap on calls, or for an address of another network than the account's;
    /// [`Error::Closed`].
    pub async fn call(&self, to: impl Into<Address>) -> Result<Call, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Call(to.into(), reply)).await.map_err(|_| Error::Closed)?;
        let id = answer.await.map_err(|_| Error::Closed)??;
        Ok(self.calls.attach(&self.commands, id))
    }

    /// Offers files to somebody; directories stand for the files in them. Gives the transfer at once, its progress comes
    /// as events.
    ///
    /// # Errors
    /// [`Error::File`] for a path that cannot be sent, [`Error::Misuse`] while offline, past the cap on transfers or
    /// without a file, [`Error::Closed`].
    pub async fn send(&self, to: Jid, files: Vec<PathBuf>, options: SendOptions) -> Result<Transfer, Error> {
        let outbox = crate::io::driver::blocking(move || Outbox::new(&files)).await.ok_or(Error::Closed)?;
        let outbox = outbox.map_err(|(path, fault)| Error::File { path, fault })?;
        self.send_entries(to, outbox.files, options).await
    }

    /// As [`send`](Self::send), for files that an [`Outbox`] found: those of an interrupted transfer, for example.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_entries(&self, to: Jid, files: Vec<Entry>, options: SendOptions) -> Result<Transfer, Error> {
        transfers::send(&self.commands, &self.transfers, to, files, options).await
    }

    /// Asks somebody for a file, by its name or its hash (XEP-0234 §4).
    ///
    /// # Errors
    /// [`Error::File`] for the directory, [`Error::Misuse`], [`Error::Closed`].
    pub async fn request_file(
        &self,
        from: Jid,
        name: Option<String>,
        hash: Option<FileHash>,
        options: ReceiveOptions,
    ) -> Result<Transfer, Error> {
        transfers::request(&self.commands, &self.transfers, from, name, hash, options).await
    }

    /// The next event; `None` after the end.
    pub async fn next_event(&mut self) -> Option<ClientEvent> {
        let event = self.events.recv().await;
        if let Some(ClientEvent::Online(address)) = &event {
            self.address = Some(address.clone());
        }
        event
    }

    /// The next incoming call; other events meanwhile are dropped, and files that are offered are declined.
    pub async fn incoming(&mut self) -> Option<Incoming> {
        loop {
            match self.next_event().await? {
                ClientEvent::Incoming(incoming) => return Some(incoming),
                ClientEvent::IncomingFiles(_)
                | ClientEvent::FileRequested(_)
                | ClientEvent::Online(_)
                | ClientEvent::Signalling(_)
                | ClientEvent::PeerCertificate(..)
                | ClientEvent::Signalled(..) => {}
                ClientEvent::Refused(_) => return None,
            }
        }
    }

    /// The next offer of files; other events meanwhile are dropped, and calls are declined.
    pub async fn incoming_files(&mut self) -> Option<IncomingFiles> {
        loop {
            match self.next_event().await? {
                ClientEvent::IncomingFiles(incoming) => return Some(incoming),
                ClientEvent::Incoming(_)
                | ClientEvent::FileRequested(_)
                | ClientEvent::Online(_)
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

/// Hands each event to the call or transfer it belongs to, or to the client.
struct Dispatcher {
    client: mpsc::Sender<ClientEvent>,
    calls: Calls,
    transfers: Transfers,
    commands: mpsc::Sender<Command>,
}

impl Dispatcher {
    async fn run(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            self.dispatch(event);
        }
    }

    fn dispatch(&self, event: Event) {
        let (id, event) = match event {
            Event::Online { jid, .. } => return self.tell(ClientEvent::Online(jid.into())),
            Event::Registered { address } => return self.tell(ClientEvent::Online(address)),
            Event::PeerCertificate { sha256, pinned } => {
                return self.tell(ClientEvent::PeerCertificate(sha256, pinned));
            }
            Event::Signalling(state) => return self.tell(ClientEvent::Signalling(state)),
            Event::Refused(refusal) => return self.tell(ClientEvent::Refused(refusal.into())),
            Event::Incoming { call, sid, from, media } => {
                let call = Some(self.calls.attach(&self.commands, call));
                // An application that does not listen lets the call ring out: `Incoming` declines when dropped.
                return self.tell(ClientEvent::Incoming(Incoming { from, sid: sid.0, media, call }));
            }
            Event::Signalled { by, what } => return self.tell(ClientEvent::Signalled(by, what)),
            Event::File(event) => return self.dispatch_file(event),
            Event::ConnectFailed(_) | Event::Presence { .. } => return,
            Event::Ringing(call) => (call, CallEvent::Ringing),
            Event::EarlyMedia(call) => (call, CallEvent::EarlyMedia),
            Event::Accepted(call) => (call, CallEvent::Accepted),
            Event::Transfer { call, by, to, step, next } => {
                let next = next.map(|next| Box::new(self.calls.attach(&self.commands, next)));
                (call, CallEvent::Transfer { by, to, step, next })
            }
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
        self.calls.deliver(id, event);
    }

    fn dispatch_file(&self, event: FileEvent) {
        match event {
            FileEvent::Offered { transfer, sid, from, files, further: false } => {
                let transfer = self.transfers.attach(&self.commands, transfer, from.clone());
                self.tell(ClientEvent::IncomingFiles(IncomingFiles::new(transfer, sid.0, from, files)));
            }
            FileEvent::Requested { transfer, sid, from, file } => {
                let transfer = self.transfers.attach(&self.commands, transfer, from.clone());
                self.tell(ClientEvent::FileRequested(FileRequest::new(transfer, sid.0, from, file)));
            }
            FileEvent::Offered { further: true, .. }
            | FileEvent::Accepted { .. }
            | FileEvent::Declined { .. }
            | FileEvent::Connected { .. }
            | FileEvent::Falling { .. }
            | FileEvent::Done { .. }
            | FileEvent::Failed { .. }
            | FileEvent::Ended { .. } => self.transfers.deliver(event),
        }
    }

    fn tell(&self, event: ClientEvent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.client.try_send(event) {
            tracing::warn!("the application does not read its events");
        }
    }
}

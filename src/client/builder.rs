//! From what an application knows to a signed-in client.

use super::Client;
use super::{AddressPolicy, Callers};
use crate::config::Secret;
use crate::endpoint::event::Event;
use crate::endpoint::{Account, EndpointConfig, MediaConfig};
use crate::error::Error;
use crate::io::dns::Target;
use crate::io::driver;
use crate::io::tls::{self, SelfSigned};
use crate::jingle::session::{SessionContext, SessionPolicy};
use crate::transport::dtls::Identity;
use crate::wire::address::Address;
use crate::wire::ns;
use crate::xmpp::link_local::LinkRole;
use crate::xmpp::stream::{StreamConfig, TlsPolicy};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

mod telephone;

pub use telephone::SipServer;

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
    account: Option<Address>,
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
    applications: &'static [&'static str],
    sip: telephone::Options,
}

impl ClientBuilder {
    pub(super) fn new() -> Self {
        Self {
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
            applications: SessionPolicy::default().applications,
            sip: telephone::Options::default(),
        }
    }

    /// The account: a JID, bare or with a resource, or a SIP address.
    #[must_use]
    pub fn account(mut self, account: impl Into<Address>) -> Self {
        self.account = Some(account.into());
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

    /// Who may call and offer files; contacts by default.
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

    /// Announces and takes calls only: files go to the person's other devices.
    #[must_use]
    pub fn only_calls(mut self) -> Self {
        self.applications = &[ns::RTP];
        self
    }

    /// Announces and takes files only: calls go to the person's other devices.
    #[must_use]
    pub fn only_files(mut self) -> Self {
        self.applications = &[ns::FILE];
        self
    }

    /// Reports each Jingle stanza as [`ClientEvent::Signalled`](super::ClientEvent::Signalled).
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
        let account = match self.account.clone() {
            Some(Address::Xmpp(jid)) => jid,
            Some(Address::Sip(account)) => return self.build_telephone(Some(*account)).await,
            None if self.sip.direct => return self.build_telephone(None).await,
            None => return Err(Error::Config("no account is given".into())),
        };
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
                applications: self.applications,
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
        let network = driver::Network { dns_servers: self.dns_servers, ..driver::Network::default() };
        let (commands, mut events) = driver::start(Some(signalling), network, identity()?, endpoint, seed);
        let (address, mechanism) = match listening {
            None => online(&mut events).await?,
            Some(_) => (None, None),
        };
        Ok(Client { mechanism, ..Client::new(commands, events, address, listening, certificate.sha256()) })
    }
}

/// Waits for the first sign-in: our address, and the mechanism that proved it.
async fn online(events: &mut mpsc::Receiver<Event>) -> Result<(Option<Address>, Option<&'static str>), Error> {
    loop {
        match events.recv().await {
            Some(Event::Online { jid, mechanism, .. }) => return Ok((Some(jid.into()), mechanism)),
            Some(Event::Registered { address, .. }) => return Ok((Some(address), None)),
            Some(Event::Refused(refusal)) => return Err(refusal.into()),
            // The first sign-in is not repeated for ever: a person waits for it.
            Some(Event::ConnectFailed(why)) => return Err(Error::Unreachable(why)),
            Some(_) => {}
            None => return Err(Error::Closed),
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

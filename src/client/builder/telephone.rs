//! A client with an account of SIP, or with none: calls straight to an address. Read RFC 3261 §10 before touching this file.

use super::{ClientBuilder, identity, online};
use crate::client::{Callers, Client};
use crate::endpoint::telephone::{MediaPolicy, TelephoneConfig};
use crate::endpoint::{Account, EndpointConfig};
use crate::error::Error;
use crate::io::driver;
use crate::io::sip::{SipNetwork, identity as certificates};
use crate::io::tls::{TlsIdentity, TlsSetup};
use crate::jingle::session::SessionContext;
use crate::sip::agent::AgentConfig;
use crate::sip::exchange::Transport;
use crate::sip::policy;
use crate::wire::address::{Address, SipAddress};
use crate::wire::sip::{Host, NameAddr, SipUri, Uri};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where a SIP account's requests go: registrar and outbound proxy in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipServer {
    /// `None`: TLS for `sips:` accounts, else UDP.
    pub transport: Option<Transport>,
    /// Name or address.
    pub host: String,
    /// `None`: as DNS says, or the transport's own.
    pub port: Option<u16>,
}

/// What only SIP asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub(super) server: Option<SipServer>,
    pub(super) direct: bool,
    username: Option<String>,
    media: MediaPolicy,
    listen: Vec<(Transport, SocketAddr)>,
    certificate: Option<(PathBuf, PathBuf)>,
    websocket_path: Option<String>,
    follow_to: Vec<String>,
}

impl ClientBuilder {
    /// SIP: requests go there first, whatever address they are for (RFC 3261 §8.1.2).
    #[must_use]
    pub fn sip_server(mut self, server: SipServer) -> Self {
        self.sip.server = Some(server);
        self
    }

    /// SIP without an account: calls go straight to the address that is called, and come from anywhere where it is listened.
    #[must_use]
    pub fn sip_direct(mut self) -> Self {
        self.sip.direct = true;
        self
    }

    /// SIP: the name that belongs to the password, where it is not the account's user.
    #[must_use]
    pub fn sip_username(mut self, username: impl Into<String>) -> Self {
        self.sip.username = Some(username.into());
        self
    }

    /// SIP: how sound is protected and carried.
    #[must_use]
    pub fn sip_media(mut self, media: MediaPolicy) -> Self {
        self.sip.media = media;
        self
    }

    /// SIP: listens there for calls that come without a registration.
    #[must_use]
    pub fn sip_listen(mut self, transport: Transport, addr: SocketAddr) -> Self {
        self.sip.listen.push((transport, addr));
        self
    }

    /// SIP over TLS: our certificate, with its chain, and its key, as PEM files.
    #[must_use]
    pub fn sip_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.sip.certificate = Some((certificate.into(), key.into()));
        self
    }

    /// SIP over WebSocket: the path of the handshake; `/ws` by default.
    #[must_use]
    pub fn sip_websocket_path(mut self, path: impl Into<String>) -> Self {
        self.sip.websocket_path = Some(path.into());
        self
    }

    /// SIP: transfers that the other side asks for are followed to addresses of this host, beside the account's own domain.
    #[must_use]
    pub fn sip_follow_to(mut self, host: impl Into<String>) -> Self {
        self.sip.follow_to.push(host.into());
        self
    }

    pub(super) async fn build_telephone(self, account: Option<SipAddress>) -> Result<Client, Error> {
        let config = |e: TlsSetup| Error::Config(e.to_string());
        let sip = &self.sip;
        let agent = self.agent(account.as_ref())?;
        let registers = agent.registrar.is_some();
        let own = account.map(|account| Address::Sip(Box::new(account)));
        let mut telephone = TelephoneConfig::new(agent).map_err(|e| Error::Config(e.to_string()))?;
        telephone.media = sip.media.clone();
        telephone.follow_to.clone_from(&sip.follow_to);
        let own_host = own.as_ref().and_then(|own| own.as_sip()?.uri.host().map(ToString::to_string));
        telephone.follow_to.extend(own_host);
        let certificate = match &sip.certificate {
            Some((certificate, key)) => Some(TlsIdentity::from_pem_files(certificate, key).map_err(config)?),
            None => None,
        };
        let ca: Option<&Path> = self.ca_file.as_deref();
        let mut sip_network = SipNetwork {
            client_tls: Some(certificates::client(ca, certificate.as_ref()).map_err(config)?),
            ..SipNetwork::default()
        };
        if let Some(certificate) = &certificate {
            sip_network.server_tls = Some(certificates::server(certificate, ca, false).map_err(config)?);
        }
        if let Some(path) = &sip.websocket_path {
            sip_network.websocket_path.clone_from(path);
        }
        let network = driver::Network { dns_servers: self.dns_servers.clone(), sip: sip_network };
        let endpoint = EndpointConfig {
            account: Account::Sip(Box::new(telephone)),
            context: SessionContext::default(),
            callers: self.callers,
            address_policy: self.address_policy,
            media: self.media,
            show_signalling: self.show_signalling,
        };
        let seed = self.seed.unwrap_or_else(driver::random_seed);
        let (commands, mut events) = driver::start(None, network, identity()?, endpoint, seed);
        let own = if registers { online(&mut events).await?.0 } else { own };
        Ok(Client::new(commands, events, own, None, [0; 32]))
    }

    fn agent(&self, account: Option<&SipAddress>) -> Result<AgentConfig, Error> {
        let wrong = |text: String| Error::Config(text);
        let anonymous = || {
            // RFC 3261 §8.1.1.3
            Host::new("anonymous.invalid").map(|host| SipUri::new(Some("anonymous"), host))
        };
        let uri = match account.map(|account| &account.uri) {
            Some(Uri::Sip(uri)) => uri.as_ref().clone(),
            Some(Uri::Tel(_) | Uri::Other(_)) => {
                return Err(wrong("an account of SIP is a sip: or sips: address".into()));
            }
            None => anonymous().ok_or_else(|| wrong("no address".into()))?,
        };
        let server = self.sip.server.as_ref().map(|server| proxy(server, uri.secure)).transpose()?;
        let mut identity = uri.clone();
        // RFC 3261 §19.1.1: port and transport say where to send, not who somebody is.
        identity.port = None;
        identity.params = Default::default();
        identity.password = None;
        let display = account.and_then(|account| account.display.clone());
        let mut agent = AgentConfig::new(NameAddr { display, ..NameAddr::new(Uri::Sip(Box::new(identity))) });
        if let Some(user) = account.and_then(|_| uri.user.clone()) {
            let mut registrar = uri;
            registrar.user = None;
            registrar.password = None;
            agent.registrar = Some(Uri::Sip(Box::new(registrar)));
            agent.outbound = server;
            let username = self.sip.username.clone().unwrap_or_else(|| user.to_string());
            agent.login(&username, self.password.clone(), None);
        } else {
            agent.outbound = server;
        }
        agent.listen.clone_from(&self.sip.listen);
        agent.sessions.referrals = true;
        agent.sessions.replaces = true;
        agent.policy.callers = match (&self.callers, account) {
            (Callers::Everyone, _) | (_, None) => policy::Callers::Everyone,
            (Callers::Contacts, Some(_)) => policy::Callers::Registrar,
            (Callers::Listed(list), Some(_)) => {
                policy::Callers::Contacts(list.iter().map(ToString::to_string).collect())
            }
        };
        Ok(agent)
    }
}

/// The URI of a proxy: `sip:host:port;transport=tcp;lr`.
fn proxy(server: &SipServer, secure: bool) -> Result<SipUri, Error> {
    let host = Host::new(&server.host).ok_or_else(|| Error::Config(format!("{:?} is no host", server.host)))?;
    let mut uri = SipUri::new(None, host);
    uri.port = server.port;
    let transport = server.transport.unwrap_or(if secure { Transport::Tls } else { Transport::Udp });
    uri.params.set(
        "transport",
        Some(match transport {
            Transport::Wss => "wss",
            Transport::Udp | Transport::Tcp | Transport::Tls | Transport::Ws => transport.param(),
        }),
    );
    uri.params.set("lr", None);
    Ok(uri)
}

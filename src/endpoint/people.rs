//! What the endpoint knows of its server and of others: roster and presence, capabilities, external services, and the
//! requests by which it learns them. Read RFC 6121 §3, XEP-0115 §6 and XEP-0215 §3 before touching this file.

use super::file_event::{FileId, TransferId, WayKind};
use super::transfer::features;
use super::{Account, NamedServer};
use crate::config::Secret;
use crate::transport::gather::{IceServer, IceServerKind};
use crate::wire::disco::Identity;
use crate::wire::jid::{BareJid, FullJid, Jid};
use crate::wire::ns;
use crate::wire::roster::Subscription;
use crate::wire::services::Service;
use crate::xmpp::caps::{Ask, CapsCache, Module, OwnCaps};
use crate::xmpp::presence::Contacts;
use crate::xmpp::proxies::{ProxyFinder, ProxyQuery};
use crate::xmpp::requests::IqTracker;
use crate::xmpp::services::ServiceFinder;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Instant, SystemTime};

/// URI of this software in XEP-0115.
const NODE: &str = "https://offhook.invalid/";
/// RFC 8489 §18.6, RFC 8656 §19
const STUN_PORT: u16 = 3478;

/// What an IQ of ours asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// RFC 6121 §2.1.3
    Roster,
    /// XEP-0280 §4
    Carbons,
    /// XEP-0215 §3
    Services,
    /// XEP-0030 §3 of this device.
    Disco(Jid),
    /// XEP-0065 §6.3.5, of a proxy for this file.
    Activate(FileId),
    /// XEP-0199, of one of several devices that may take this transfer's files.
    Alive(TransferId, Jid),
    /// XEP-0065 §4, §6.2: where the server's proxies are.
    Proxy(ProxyQuery),
}

/// How somebody is to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// On this device, without asking.
    Device(Jid),
    /// By asking all devices (XEP-0353).
    Everybody,
    /// Not yet known; presence or capabilities may still come.
    Unknown,
    /// All devices are known, and none takes calls.
    Nobody,
}

#[derive(Debug)]
pub(super) struct People {
    pub(super) contacts: Contacts,
    pub(super) own_caps: OwnCaps,
    pub(super) caps: CapsCache,
    pub(super) finder: ServiceFinder,
    pub(super) proxy_finder: ProxyFinder,
    /// From the first sign-in on.
    pub(super) requests: Option<IqTracker<Request>>,
    requests_limit: usize,
    /// When the session with the server began.
    pub(super) since: Option<Instant>,
    /// The server has not yet said which STUN and TURN servers there are.
    pub(super) services_pending: bool,
    pub(super) services: Vec<NamedServer>,
}

impl People {
    /// `applications`: namespaces of what is taken from others, and so announced.
    pub(super) fn new(epoch: (Instant, SystemTime), account: &Account, applications: &[&str]) -> Self {
        let own = account.jid().to_bare();
        let limits = account.limits();
        let identity = Identity {
            category: "client".to_owned(),
            kind: "phone".to_owned(),
            lang: None,
            name: Some("offhook".to_owned()),
        };
        let mut modules = vec![Module::Jingle, Module::IceUdp, Module::Dtls, Module::Ping];
        if applications.contains(&ns::RTP) {
            modules.extend([Module::RtpAudio, Module::SourceAttributes, Module::Grouping, Module::Invite]);
        }
        if applications.contains(&ns::FILE) {
            modules.extend([Module::Files, Module::Streams]);
        }
        Self {
            contacts: Contacts::new(own.clone(), limits),
            own_caps: OwnCaps::new(NODE, identity, &modules),
            caps: CapsCache::new(limits.caps),
            proxy_finder: ProxyFinder::new(&own, Vec::new()),
            finder: ServiceFinder::new(own, epoch, limits.services),
            requests: None,
            requests_limit: limits.requests,
            since: None,
            services_pending: false,
            services: Vec::new(),
        }
    }

    /// A new session with the server.
    pub(super) fn session_began(&mut self, now: Instant, jid: &FullJid) {
        let limit = self.requests_limit;
        self.requests.get_or_insert_with(|| IqTracker::new(jid.clone(), limit)).rebind(jid.clone());
        self.contacts.session_began();
        self.finder.begin(now);
        self.proxy_finder.begin(now);
        self.services_pending = true;
        self.since = Some(now);
    }

    /// How to call a person, as far as presence and capabilities tell.
    pub(super) fn reach(&self, to: &BareJid) -> Reach {
        let resources = self.contacts.resources(to);
        if resources.is_empty() {
            return Reach::Unknown;
        }
        let can = |feature: &str| {
            resources
                .iter()
                .map(|(jid, r)| self.caps.supports(&Jid::from((*jid).clone()), r.caps.as_ref(), feature))
                .collect::<Vec<_>>()
        };
        let invited = can(ns::JMI);
        if invited.contains(&Some(true)) {
            return Reach::Everybody;
        }
        if invited.contains(&None) {
            return Reach::Unknown;
        }
        let takes_calls = |jid: &FullJid, resource: &crate::xmpp::presence::Resource| {
            self.caps.supports(&Jid::from(jid.clone()), resource.caps.as_ref(), ns::RTP_AUDIO) == Some(true)
        };
        match self.contacts.choose(to, takes_calls) {
            Some(device) => Reach::Device(device.clone().into()),
            None => Reach::Nobody,
        }
    }

    /// False while the server has not yet said which relays and proxies there are.
    pub(super) fn is_settled(&self) -> bool {
        !self.services_pending && self.proxy_finder.is_settled()
    }

    /// The device that takes files of a person, or of this very device, as far as presence and capabilities tell.
    pub(super) fn receiver(&self, to: &Jid) -> Reach {
        let resources = self.contacts.resources(&to.to_bare());
        let knows = |jid: &FullJid, resource: &crate::xmpp::presence::Resource| {
            self.caps.supports(&Jid::from(jid.clone()), resource.caps.as_ref(), ns::FILE)
        };
        if to.is_full() {
            let found = resources.iter().find(|(jid, _)| to == *jid);
            return match found.map(|(jid, resource)| knows(jid, resource)) {
                Some(Some(true)) => Reach::Device(to.clone()),
                Some(Some(false)) => Reach::Nobody,
                Some(None) | None => Reach::Unknown,
            };
        }
        if resources.is_empty() || resources.iter().any(|(jid, resource)| knows(jid, resource).is_none()) {
            return Reach::Unknown;
        }
        match self.receivers(&to.to_bare()).as_slice() {
            [] => Reach::Nobody,
            [device] => Reach::Device(device.clone()),
            [..] => Reach::Everybody,
        }
    }

    /// Devices of a person that take files, the best first.
    pub(super) fn receivers(&self, to: &BareJid) -> Vec<Jid> {
        let takes = |jid: &Jid, resource: &crate::xmpp::presence::Resource| {
            self.caps.supports(jid, resource.caps.as_ref(), ns::FILE) == Some(true)
        };
        let resources = self.contacts.resources(to).into_iter();
        resources.map(|(jid, r)| (Jid::from(jid.clone()), r)).filter(|(j, r)| takes(j, r)).map(|(j, _)| j).collect()
    }

    /// False if the device is known not to carry files this way.
    pub(super) fn knows_way(&self, device: &Jid, way: WayKind) -> bool {
        let caps =
            device.try_as_full().ok().and_then(|full| self.contacts.resource(full)).and_then(|r| r.caps.as_ref());
        features(way).iter().all(|feature| self.caps.supports(device, caps, feature) != Some(false))
    }

    /// True if we would see this person's presence, and there is none.
    pub(super) fn seems_offline(&self, who: &BareJid) -> bool {
        let seen = self.contacts.item(who).is_some_and(|item| match item.subscription {
            Subscription::Both | Subscription::To => true,
            Subscription::From | Subscription::None | Subscription::Remove => false,
        });
        seen && self.contacts.resources(who).is_empty()
    }

    /// The disco#info request that makes a device's features known, if they are not.
    pub(super) fn need_caps(&mut self, jid: &FullJid) -> Option<Ask> {
        let caps = self.contacts.resource(jid)?.caps.clone();
        self.caps.need(&Jid::from(jid.clone()), caps.as_ref())
    }

    /// Takes over what the server offers: STUN and TURN over UDP.
    pub(super) fn adopt_services(&mut self) {
        self.services = self.finder.services().iter().filter_map(named).collect();
    }
}

fn named(service: &Service) -> Option<NamedServer> {
    let udp = service.transport.as_deref().is_none_or(|t| t.eq_ignore_ascii_case("udp"));
    let kind = match service.kind.as_str() {
        "stun" => IceServerKind::Stun,
        "turn" => IceServerKind::Turn,
        _ => return None,
    };
    let port = service.port.unwrap_or(STUN_PORT);
    let ip = service.host.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    udp.then(|| NamedServer {
        host: service.host.clone(),
        port,
        server: IceServer {
            kind,
            addr: SocketAddr::new(ip, port),
            username: service.username.clone(),
            password: service.password.clone().map(Secret::new),
        },
    })
}

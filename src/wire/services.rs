//! External services (XEP-0215 1.0.0): STUN and TURN servers and credentials for them. Read XEP-0215 §3 before touching
//! this file.

use super::ns;
use super::time::Stamp;
use super::xml::{Reader, Result, Writer, boolean};
use crate::fault::names;

names! {
    /// What a push says about a service, XEP-0215 §3.3.
    pub enum ServiceAction { Add = "add", Delete = "delete", Modify = "modify" }
}

/// `<services/>`: a query (perhaps for one type), an answer, or a push (each service has an action).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// True for the older `urn:xmpp:extdisco:1`.
    pub v1: bool,
    /// Only services of this type are asked for or given.
    pub kind: Option<String>,
    /// In wire order.
    pub services: Vec<Service>,
    /// Services without host or type.
    pub malformed_services: usize,
}

/// `<credentials/>`: asks for, or gives, user name and password of the services named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// True for the older `urn:xmpp:extdisco:1`.
    pub v1: bool,
    /// In wire order.
    pub services: Vec<Service>,
    /// Services without host or type.
    pub malformed_services: usize,
}

/// One service. `Debug` hides the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Name or literal address.
    pub host: String,
    /// `stun`, `stuns`, `turn`, `turns`, …
    pub kind: String,
    /// The default of the protocol if absent.
    pub port: Option<u16>,
    /// `udp` or `tcp`.
    pub transport: Option<String>,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Credentials are needed and asked for with `<credentials/>`.
    pub restricted: bool,
    /// When the credentials end.
    pub expires: Option<Stamp>,
    /// For people.
    pub name: Option<String>,
    /// Only in a push.
    pub action: Option<ServiceAction>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("host", &self.host)
            .field("kind", &self.kind)
            .field("port", &self.port)
            .field("transport", &self.transport)
            .field("username", &self.username)
            .field("restricted", &self.restricted)
            .field("expires", &self.expires)
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

impl Services {
    /// Reads the `<services/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed::Xml`](crate::fault::Malformed::Xml).
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let (v1, kind) = (r.tag().ns() == ns::EXTDISCO_1, r.attr("type").map(str::to_owned));
        let (services, malformed_services) = read_services(r)?;
        Ok(Self { v1, kind, services, malformed_services })
    }

    /// Writes the `<services/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("services", version(self.v1)).attr_opt("type", self.kind.as_deref());
        for service in &self.services {
            service.write(w);
        }
        w.end("services");
    }
}

impl Credentials {
    /// Reads the `<credentials/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed::Xml`](crate::fault::Malformed::Xml).
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let v1 = r.tag().ns() == ns::EXTDISCO_1;
        let (services, malformed_services) = read_services(r)?;
        Ok(Self { v1, services, malformed_services })
    }

    /// Writes the `<credentials/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("credentials", version(self.v1));
        for service in &self.services {
            service.write(w);
        }
        w.end("credentials");
    }
}

impl Service {
    /// A service without port, transport and credentials.
    #[must_use]
    pub fn new(kind: impl Into<String>, host: impl Into<String>) -> Self {
        Self { kind: kind.into(), host: host.into(), ..Self::default() }
    }

    /// Reads the `<service/>` that `r` has just entered; `None` without host or type (J215-02).
    fn read(r: &Reader<'_>) -> Option<Self> {
        let own = |name| r.attr(name).map(str::to_owned);
        let full = |name| own(name).filter(|v| !v.is_empty());
        Some(Self {
            host: full("host")?,
            kind: full("type")?,
            // A port that cannot be one makes the service useless.
            port: r.parse("service", "port").ok()?,
            transport: full("transport"),
            username: own("username"),
            password: own("password"),
            restricted: boolean(r, "restricted"),
            // J215-03: one that cannot be read is none; the credentials are then refreshed early.
            expires: r.attr("expires").and_then(Stamp::parse),
            name: own("name"),
            action: r.attr("action").and_then(|a| match a {
                // J215-04: an older text calls it so.
                "remove" => Some(ServiceAction::Delete),
                _ => ServiceAction::parse(a),
            }),
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start("service").attr("host", &self.host).attr("type", &self.kind);
        if let Some(port) = self.port {
            w.attr_number("port", port);
        }
        w.attr_opt("transport", self.transport.as_deref());
        w.attr_opt("username", self.username.as_deref()).attr_opt("password", self.password.as_deref());
        if self.restricted {
            w.attr("restricted", "true");
        }
        if let Some(expires) = self.expires {
            w.attr_number("expires", expires);
        }
        w.attr_opt("name", self.name.as_deref()).attr_opt("action", self.action.map(ServiceAction::as_str));
        w.end("service");
    }
}

fn version(v1: bool) -> &'static str {
    if v1 { ns::EXTDISCO_1 } else { ns::EXTDISCO }
}

fn read_services(r: &mut Reader<'_>) -> Result<(Vec<Service>, usize)> {
    let (mut services, mut malformed) = (Vec::new(), 0);
    r.children(|r| {
        if r.is(ns::EXTDISCO, "service") || r.is(ns::EXTDISCO_1, "service") {
            match Service::read(r) {
                Some(service) => services.push(service),
                None => malformed += 1,
            }
        }
        Ok(())
    })?;
    Ok((services, malformed))
}

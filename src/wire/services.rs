//! External services (XEP-0215 1.0.0): STUN and TURN servers and credentials for them. Read XEP-0215 §3 before touching
//! this file.

use super::time::Stamp;
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

//! Addresses of SIP and telephones. Read RFC 3261 §19.1 and RFC 3966 §3 before touching this file.

use super::SipText;
use compact_str::CompactString;
use std::net::IpAddr;

/// Parameters in order, names lower-cased, values unescaped and unquoted; `None`: a name without a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(pub Vec<(CompactString, Option<CompactString>)>);

impl Params {
    /// The value of a parameter; `Some("")` for one without a value.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_deref().unwrap_or_default())
    }

    /// Sets or replaces one.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(CompactString::from);
        match self.0.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.into(), value)),
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }
}

/// A host name, lower-cased, or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// To be looked up.
    Name(CompactString),
    /// As it is; IPv6 is written in brackets.
    Ip(IpAddr),
}

/// `sip:` or `sips:`. Equality is of the values; `Uri::equivalent` is RFC 3261 §19.1.4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipUri {
    /// `sips:`
    pub secure: bool,
    /// Unescaped.
    pub user: Option<CompactString>,
    /// Unescaped; never sent.
    pub password: Option<CompactString>,
    /// Where.
    pub host: Host,
    /// Default by transport.
    pub port: Option<u16>,
    /// `transport`, `lr`, `maddr`, `ob`, …
    pub params: Params,
    /// After `?`, unescaped: headers that a request to it carries.
    pub headers: Vec<(CompactString, CompactString)>,
}

/// `tel:`, RFC 3966.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelUri {
    /// As written: digits, visual separators, a leading `+` where it is global.
    pub number: CompactString,
    /// `phone-context`, `ext`, …
    pub params: Params,
}

/// Any address that may stand in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    /// `sip:` and `sips:`
    Sip(Box<SipUri>),
    /// `tel:`
    Tel(Box<TelUri>),
    /// Another scheme, whole.
    Other(SipText),
}

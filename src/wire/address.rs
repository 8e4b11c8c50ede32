//! Whom a call is with: an address of XMPP or of SIP, as people write and read it. Read RFC 5122 §2 and RFC 3261 §19.1
//! before touching this file.

use super::jid::Jid;
use super::sip::{SipText, Uri};
use std::fmt;
use std::str::FromStr;

/// Somebody who can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An XMPP address.
    Xmpp(Jid),
    /// `sip:`, `sips:` or `tel:`.
    Sip(Box<SipAddress>),
}

/// A SIP address and the name that its owner goes by.
#[derive(Debug, Clone)]
pub struct SipAddress {
    /// As the other side tells it; nobody has proved it.
    pub display: Option<SipText>,
    /// The address.
    pub uri: Uri,
    /// The address as text.
    text: String,
}

impl PartialEq for SipAddress {
    fn eq(&self, other: &Self) -> bool {
        self.display == other.display && self.uri == other.uri
    }
}

impl Eq for SipAddress {}

/// Neither a JID nor an address of SIP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AddressFault(pub String);

impl Address {
    /// The address itself, without any scheme of XMPP.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Address::Xmpp(jid) => jid.as_str(),
            Address::Sip(sip) => &sip.text,
        }
    }

    /// The JID, if it is one.
    #[must_use]
    pub fn as_jid(&self) -> Option<&Jid> {
        match self {
            Address::Xmpp(jid) => Some(jid),
            Address::Sip(_) => None,
        }
    }

    /// The SIP address, if it is one.
    #[must_use]
    pub fn as_sip(&self) -> Option<&SipAddress> {
        match self {
            Address::Xmpp(_) => None,
            Address::Sip(sip) => Some(sip),
        }
    }
}

impl SipAddress {
    /// An address and the name that stands before it.
    #[must_use]
    pub fn new(uri: Uri, display: Option<SipText>) -> Self {
        let text = uri.to_string();
        Self { display, uri, text }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Address {
    type Err = AddressFault;

    /// `sip:`, `sips:` and `tel:` as they stand; anything else is a JID, with or without `xmpp:`.
    fn from_str(text: &str) -> Result<Self, AddressFault> {
        let text = text.trim();
        let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        if matches!(scheme.as_deref(), Some("sip" | "sips" | "tel")) {
            let uri: Uri = text.parse().map_err(|why| AddressFault(format!("{why}")))?;
            return Ok(uri.into());
        }
        let plain = match scheme.as_deref() {
            Some("xmpp") => text.get("xmpp:".len()..).unwrap_or_default(),
            Some(_) | None => text,
        };
        let plain = plain.split(['?', ';']).next().unwrap_or(plain);
        Jid::new(plain).map(Address::Xmpp).map_err(|why| AddressFault(why.to_string()))
    }
}

impl From<Jid> for Address {
    fn from(jid: Jid) -> Self {
        Address::Xmpp(jid)
    }
}

impl From<&Jid> for Address {
    fn from(jid: &Jid) -> Self {
        Address::Xmpp(jid.clone())
    }
}

impl From<Uri> for Address {
    fn from(uri: Uri) -> Self {
        Address::Sip(Box::new(SipAddress::new(uri, None)))
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_scheme_tells_whose_address_it_is() {
        for (text, sip) in [
            ("sip:600@pbx.example", true),
            ("SIPS:alice@pbx.example;transport=tcp", true),
            ("tel:+49301234", true),
            ("xmpp:juliet@capulet.lit?call", false),
            ("juliet@capulet.lit/balcony", false),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.as_sip().is_some(), sip, "{text}");
            assert_eq!(address.as_jid().is_some(), !sip, "{text}");
        }
        assert_eq!("xmpp:juliet@capulet.lit?call".parse::<Address>().unwrap().as_str(), "juliet@capulet.lit");
        assert_eq!("sip:600@pbx.example".parse::<Address>().unwrap().as_str(), "sip:600@pbx.example");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "@", "sip:", "sip:a@", "tel:"] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }
}

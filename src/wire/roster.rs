//! Roster and resource binding (RFC 6121 §2, RFC 6120 §7). Read RFC 6121 §2.1 before touching this file.

use super::jid::{BareJid, Jid};
use crate::fault::names;

/// `<query xmlns='jabber:iq:roster'/>`: a query, the roster, a push or a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// RFC 6121 §2.6; empty is a value of its own (nothing cached yet).
    pub ver: Option<String>,
    /// In wire order.
    pub items: Vec<RosterItem>,
    /// Items whose JID could not be read.
    pub malformed_items: usize,
}

names! {
    /// RFC 6121 §2.1.2.5; absent reads as none.
    pub enum Subscription { Both = "both", From = "from", None = "none", Remove = "remove", To = "to" }
}

/// RFC 6121 §2.1.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterItem {
    /// The contact; a resource is cut off.
    pub jid: BareJid,
    /// For people.
    pub name: Option<String>,
    /// Who sees whose presence.
    pub subscription: Subscription,
    /// `ask='subscribe'`: our request is pending.
    pub ask: bool,
    /// In wire order.
    pub groups: Vec<String>,
}

/// `<bind/>`, RFC 6120 §7.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bind {
    /// Resource wanted.
    pub resource: Option<String>,
    /// Address given.
    pub jid: Option<Jid>,
}

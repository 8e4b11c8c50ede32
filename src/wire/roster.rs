//! Roster and resource binding (RFC 6121 §2, RFC 6120 §7). Read RFC 6121 §2.1 before touching this file.

use super::jid::{BareJid, Jid};
use super::ns;
use super::xml::{Reader, Result, Writer};
use crate::fault::{Malformed, names};

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

impl Roster {
    /// Reads the `<query/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed::Xml`].
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut roster = Self { ver: r.attr("ver").map(str::to_owned), ..Self::default() };
        r.children(|r| {
            if r.is(ns::ROSTER, "item") {
                match RosterItem::read(r)? {
                    Some(item) => roster.items.push(item),
                    None => roster.malformed_items += 1,
                }
            }
            Ok(())
        })?;
        Ok(roster)
    }

    /// Writes the `<query/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("query", ns::ROSTER).attr_opt("ver", self.ver.as_deref());
        for item in &self.items {
            w.start("item").attr("jid", item.jid.as_str()).attr_opt("name", item.name.as_deref());
            w.attr("subscription", item.subscription.as_str());
            if item.ask {
                w.attr("ask", "subscribe");
            }
            for group in &item.groups {
                w.text_element("group", group);
            }
            w.end("item");
        }
        w.end("query");
    }
}

impl RosterItem {
    fn read(r: &mut Reader<'_>) -> Result<Option<Self>> {
        let Some(jid) = r.attr("jid").and_then(|j| j.parse::<Jid>().ok()) else { return Ok(None) };
        let mut item = Self {
            jid: jid.into_bare(),
            name: r.attr("name").map(str::to_owned),
            subscription: r.attr("subscription").and_then(Subscription::parse).unwrap_or(Subscription::None),
            ask: r.attr("ask") == Some("subscribe"),
            groups: Vec::new(),
        };
        r.children(|r| {
            if r.is(ns::ROSTER, "group") {
                item.groups.push(r.text()?.into_owned());
            }
            Ok(())
        })?;
        Ok(Some(item))
    }
}

impl Bind {
    /// Reads the `<bind/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed::BadValue`] if the JID is none.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut bind = Self::default();
        r.children(|r| {
            if r.is(ns::BIND, "resource") {
                bind.resource = Some(r.text()?.into_owned());
            } else if r.is(ns::BIND, "jid") {
                let jid = r.text()?.trim().parse().map_err(|_| Malformed::BadValue { element: "jid", what: "text" })?;
                bind.jid = Some(jid);
            }
            Ok(())
        })?;
        Ok(bind)
    }

    /// Writes the `<bind/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("bind", ns::BIND);
        if let Some(resource) = &self.resource {
            w.text_element("resource", resource);
        }
        if let Some(jid) = &self.jid {
            w.text_element("jid", jid.as_str());
        }
        w.end("bind");
    }
}

//! The server of a [`World`]: login without proof, XEP-0198, presence, routing and carbons, as far as endpoints look.

use super::{Routed, Thing, World, attr, bare};
use offhook::wire::framer::{Frame, Framer};
use std::collections::VecDeque;
use std::time::Duration;

const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";

/// What the server knows of a resource.
pub(super) struct Resource {
    pub(super) jid: String,
    pub(super) framer: Framer,
    pub(super) up: bool,
    pub(super) authenticated: bool,
    pub(super) bound: bool,
    pub(super) available: Option<String>,
    pub(super) carbons: bool,
    /// XEP-0198 is on.
    pub(super) sm: bool,
    pub(super) handled: u32,
    pub(super) sent: u32,
    pub(super) unacked: VecDeque<String>,
}

/// The same stanza with this sender.
pub fn stamp(xml: &str, from: &str, to: &str) -> String {
    let mut xml = xml.to_owned();
    for (name, value) in [("from", from), ("to", to)] {
        if let Some(old) = attr(&xml, name) {
            let at = old.as_ptr() as usize - xml.as_ptr() as usize;
            xml.replace_range(at..at + old.len(), value);
        } else {
            let at = xml.find([' ', '>', '/']).unwrap();
            xml.insert_str(at, &format!(" {name}='{value}'"));
        }
    }
    xml
}

/// What RFC 6121 §8.5 says for a resource that is not there.
pub fn unavailable(xml: &str) -> Option<String> {
    let (from, to, id) = (attr(xml, "from")?, attr(xml, "to")?, attr(xml, "id").unwrap_or(""));
    if !xml.starts_with("<iq") || matches!(attr(xml, "type"), Some("result" | "error")) {
        return None;
    }
    Some(format!(
        "<iq from='{to}' to='{from}' id='{id}' type='error'><error type='cancel'><service-unavailable xmlns='{STANZAS}'/></error></iq>"
    ))
}

impl World {
    pub(super) fn gone(&mut self, client: usize) {
        let jid = self.resources[client].jid.clone();
        if self.resources[client].available.take().is_some() {
            self.broadcast(client, &format!("<presence from='{jid}' type='unavailable'/>"));
        }
    }

    fn find(&self, jid: &str) -> Option<usize> {
        self.resources.iter().position(|r| r.jid == jid && r.available.is_some())
    }

    fn of(&self, account: &str) -> Vec<usize> {
        (0..self.resources.len())
            .filter(|i| bare(&self.resources[*i].jid) == account && self.resources[*i].available.is_some())
            .collect()
    }

    fn broadcast(&mut self, client: usize, xml: &str) {
        let own = bare(&self.resources[client].jid).to_owned();
        let jids: Vec<usize> = (0..self.resources.len())
            .filter(|i| {
                let other = bare(&self.resources[*i].jid);
                *i != client
                    && self.resources[*i].available.is_some()
                    && (other == own || self.contacts.contains(&(own.clone(), other.to_owned())))
            })
            .collect();
        for other in jids {
            let to = self.resources[other].jid.clone();
            let xml = stamp(xml, &self.resources[client].jid, &to);
            self.deliver(other, &xml);
        }
    }

    fn reply(&mut self, client: usize, xml: String) {
        let delay = if self.resources[client].bound { self.signalling_delay / 2 } else { Duration::ZERO };
        let generation = self.clients[client].generation;
        self.push(self.now + delay, Thing::ToClient(client, generation, xml));
    }

    pub(super) fn server(&mut self, client: usize, bytes: &[u8]) {
        self.resources[client].framer.push(bytes);
        loop {
            let resource = &mut self.resources[client];
            let element = match resource.framer.next().expect("well-formed") {
                None => return,
                Some(Frame::Open(_)) => {
                    let header = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                        xmlns:stream='http://etherx.jabber.org/streams' id='x' version='1.0'><stream:features>";
                    let inside = if resource.authenticated {
                        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/>"
                    } else {
                        "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>"
                    };
                    self.reply(client, format!("{header}{inside}</stream:features>"));
                    continue;
                }
                Some(Frame::Close) => {
                    resource.sm = false;
                    self.gone(client);
                    self.reply(client, "</stream:stream>".to_owned());
                    return;
                }
                Some(Frame::Element(text)) => text.to_owned(),
            };
            self.element(client, &element);
        }
    }

    fn element(&mut self, client: usize, xml: &str) {
        let name = &xml[1..xml.find([' ', '>', '/']).unwrap()];
        match name {
            "auth" => {
                self.resources[client].authenticated = true;
                self.resources[client].framer.restart();
                self.reply(client, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".to_owned());
            }
            "enable" => {
                let resource = &mut self.resources[client];
                (resource.sm, resource.handled, resource.sent) = (true, 0, 0);
                resource.unacked.clear();
                self.reply(client, "<enabled xmlns='urn:xmpp:sm:3' id='sm' resume='true'/>".to_owned());
            }
            "resume" => self.resume(client, attr(xml, "h").unwrap().parse().unwrap()),
            "r" => {
                let h = self.resources[client].handled;
                self.reply(client, format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
            }
            "a" => {
                let h: u32 = attr(xml, "h").unwrap().parse().unwrap();
                self.acked(client, h);
            }
            "iq" | "message" | "presence" => {
                let resource = &mut self.resources[client];
                resource.handled = resource.handled.wrapping_add(1);
                self.stanza(client, xml);
            }
            _ => {}
        }
    }

    fn acked(&mut self, client: usize, h: u32) {
        let resource = &mut self.resources[client];
        while resource.sent.wrapping_sub(u32::try_from(resource.unacked.len()).unwrap()) != h {
            assert!(resource.unacked.pop_front().is_some(), "acknowledged more than was sent");
        }
    }

    fn resume(&mut self, client: usize, h: u32) {
        if !self.resources[client].sm {
            let failed =
                "<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";
            return self.reply(client, failed.to_owned());
        }
        self.acked(client, h);
        let handled = self.resources[client].handled;
        self.reply(client, format!("<resumed xmlns='urn:xmpp:sm:3' previd='sm' h='{handled}'/>"));
        self.resources[client].bound = true;
        for xml in self.resources[client].unacked.clone() {
            self.reply(client, xml);
        }
    }

    fn stanza(&mut self, client: usize, xml: &str) {
        let from = self.resources[client].jid.clone();
        let own = bare(&from).to_owned();
        let to = attr(xml, "to").map(str::to_owned);
        let kind = attr(xml, "type").unwrap_or("").to_owned();
        let server = to.as_ref().is_none_or(|to| !to.contains('@') || *to == own);
        if xml.starts_with("<iq") && server {
            return self.service(client, xml, &kind);
        }
        if xml.starts_with("<presence") && to.is_none() {
            if kind == "unavailable" {
                return self.gone(client);
            }
            self.resources[client].available = Some(xml.to_owned());
            self.broadcast(client, xml);
            // Probes.
            for other in 0..self.resources.len() {
                let jid = self.resources[other].jid.clone();
                let seen = bare(&jid) == own || self.contacts.contains(&(bare(&jid).to_owned(), own.clone()));
                if let Some(presence) = self.resources[other].available.clone().filter(|_| other != client && seen) {
                    let xml = stamp(&presence, &jid, &from);
                    self.deliver(client, &xml);
                }
            }
            return;
        }
        let to = to.unwrap_or_else(|| own.clone());
        let xml = stamp(xml, &from, &to);
        if self.record {
            self.routed.push(Routed { at: self.now, from: from.clone(), to: to.clone(), text: xml.clone() });
        }
        let mut tamper = self.tamper.take();
        let changed = tamper.as_mut().and_then(|t| t(&from, &to, &xml));
        self.tamper = tamper;
        for xml in changed.unwrap_or_else(|| vec![xml]) {
            self.route(client, &from, &to, &xml);
        }
    }

    /// RFC 6121 §8.5 and XEP-0280 §6 and §7.
    pub fn route(&mut self, client: usize, from: &str, to: &str, xml: &str) {
        let message = xml.starts_with("<message");
        let receivers = if to.contains('/') {
            self.find(to).into_iter().collect()
        } else if xml.starts_with("<iq") {
            // A server answers for the account; no device sees it.
            Vec::new()
        } else {
            self.of(to)
        };
        if receivers.is_empty() {
            // Somebody who is no client here answers by the test's own hand, or not at all.
            let ours = self.resources.iter().any(|r| bare(&r.jid) == bare(to));
            if ours && let Some(error) = unavailable(xml) {
                self.deliver(client, &error);
            } else if ours && message && attr(xml, "type") != Some("error") {
                let id = attr(xml, "id").unwrap_or("").to_owned();
                let error = format!(
                    "<message from='{to}' to='{from}' id='{id}' type='error'><error type='cancel'><service-unavailable xmlns='{STANZAS}'/></error></message>"
                );
                self.deliver(client, &error);
            }
            return;
        }
        for receiver in &receivers {
            self.deliver(*receiver, xml);
        }
        if !message {
            return;
        }
        for (account, direction) in [(bare(from), "sent"), (bare(to), "received")] {
            for other in self.of(account) {
                let involved = receivers.contains(&other) || self.resources[other].jid == from;
                if self.resources[other].carbons && !involved {
                    let full = self.resources[other].jid.clone();
                    let inner = xml.replacen("<message", "<message xmlns='jabber:client'", 1);
                    let carbon = format!(
                        "<message from='{account}' to='{full}' type='chat'><{direction} xmlns='urn:xmpp:carbons:2'>\
                         <forwarded xmlns='urn:xmpp:forward:0'>{inner}</forwarded></{direction}></message>"
                    );
                    self.deliver(other, &carbon);
                }
            }
        }
    }

    fn service(&mut self, client: usize, xml: &str, kind: &str) {
        if !matches!(kind, "get" | "set") {
            return;
        }
        let jid = self.resources[client].jid.clone();
        let id = attr(xml, "id").unwrap().to_owned();
        let result = |inside: &str| format!("<iq type='result' id='{id}' to='{jid}'>{inside}</iq>");
        if xml.contains("urn:ietf:params:xml:ns:xmpp-bind") {
            let bound = result(&format!("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>{jid}</jid></bind>"));
            self.reply(client, bound);
            self.resources[client].bound = true;
            return;
        }
        let answer = if xml.contains("jabber:iq:roster") {
            let own = bare(&jid).to_owned();
            let items: String = self
                .contacts
                .iter()
                .filter(|(who, _)| *who == own)
                .map(|(_, other)| format!("<item jid='{other}' subscription='both'/>"))
                .collect();
            result(&format!("<query xmlns='jabber:iq:roster'>{items}</query>"))
        } else if xml.contains("urn:xmpp:carbons:2") {
            self.resources[client].carbons = true;
            result("")
        } else if xml.contains("http://jabber.org/protocol/disco#info") {
            result(
                "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='server' type='im'/></query>",
            )
        } else if xml.contains("urn:xmpp:ping") {
            result("")
        } else {
            format!(
                "<iq type='error' id='{id}' to='{jid}'><error type='cancel'><service-unavailable xmlns='{STANZAS}'/></error></iq>"
            )
        };
        self.deliver(client, &answer);
    }
}

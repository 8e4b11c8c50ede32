//! Roster, presence of contacts, directed presence. Read RFC 6121 §2 to §4 before touching this file.

use crate::config::StreamLimits;
use crate::wire::disco::Caps;
use crate::wire::jid::{BareJid, FullJid, Jid};
use crate::wire::roster::{Roster, RosterItem, Subscription};
use crate::wire::stanza::{Iq, IqKind, IqPayload, Presence, PresenceType, Show};
use std::collections::{BTreeMap, BTreeSet};

/// A resource that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its priority.
    pub priority: i8,
    /// How available.
    pub show: Option<Show>,
    /// What it can do, XEP-0115.
    pub caps: Option<Caps>,
}

/// What an IQ with a roster turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// From our server, and applied. Answer with an empty result.
    Applied {
        /// Who.
        jid: BareJid,
        /// What is now; `Remove`: gone.
        subscription: Subscription,
    },
    /// From somebody else, or with no or several items: nothing changed. Answer with service-unavailable.
    Forged,
    /// Not a roster push.
    NotOne,
}

/// What a presence stanza changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceChange {
    /// A resource is there, or has changed.
    Available(FullJid),
    /// These resources are gone.
    Unavailable(Vec<FullJid>),
    /// Somebody wants to see our presence.
    SubscriptionRequest(BareJid),
    /// Nothing.
    None,
}

/// Whom we know and who is there.
#[derive(Debug)]
pub struct Contacts {
    own: BareJid,
    roster_limit: usize,
    presence_limit: usize,
    roster: BTreeMap<BareJid, RosterItem>,
    present: BTreeMap<BareJid, BTreeMap<FullJid, Resource>>,
    present_count: usize,
    directed: BTreeSet<Jid>,
}

impl Contacts {
    /// For one account.
    #[must_use]
    pub fn new(own: BareJid, limits: &StreamLimits) -> Self {
        Self {
            own,
            roster_limit: limits.roster,
            presence_limit: limits.presences,
            roster: BTreeMap::new(),
            present: BTreeMap::new(),
            present_count: 0,
            directed: BTreeSet::new(),
        }
    }

    /// A new session begins: who is there is to be learned anew. The roster stays until the next [`Self::load`].
    pub fn session_began(&mut self) {
        self.present.clear();
        self.present_count = 0;
        self.directed.clear();
    }

    /// Takes the roster that was asked for.
    pub fn load(&mut self, roster: Roster) {
        self.roster = roster
            .items
            .into_iter()
            .filter(|item| item.subscription != Subscription::Remove)
            .take(self.roster_limit)
            .map(|item| (item.jid.clone(), item))
            .collect();
    }

    /// Takes a roster push.
    pub fn push(&mut self, iq: &Iq) -> Push {
        let IqKind::Set(IqPayload::Roster(roster)) = &iq.kind else { return Push::NotOne };
        // RFC 6121 §2.1.6: ignored "unless it has no 'from' attribute" or it is the bare JID of the user.
        if iq.from.as_ref().is_some_and(|from| *from != self.own) {
            return Push::Forged;
        }
        let [item] = roster.items.as_slice() else { return Push::Forged };
        let (jid, subscription) = (item.jid.clone(), item.subscription);
        if subscription == Subscription::Remove {
            self.roster.remove(&jid);
        } else if self.roster.contains_key(&jid) || self.roster.len() < self.roster_limit {
            self.roster.insert(jid.clone(), item.clone());
        }
        Push::Applied { jid, subscription }
    }

    /// Roster entries in the order of their addresses.
    pub fn roster(&self) -> impl Iterator<Item = &RosterItem> {
        self.roster.values()
    }

    /// What is known of one contact.
    #[must_use]
    pub fn item(&self, jid: &BareJid) -> Option<&RosterItem> {
        self.roster.get(jid)
    }

    /// True if this account sees our presence (subscription from or both): then a call may reveal that we are here. One's
    /// own account does.
    #[must_use]
    pub fn is_contact(&self, jid: &BareJid) -> bool {
        *jid == self.own
            || self.roster.get(jid).is_some_and(|i| matches!(i.subscription, Subscription::From | Subscription::Both))
    }

    /// True if this address knows already that we are here: a contact, or we sent it directed presence (RFC 6121 §4.6).
    #[must_use]
    pub fn knows_us(&self, jid: &Jid) -> bool {
        self.is_contact(&jid.to_bare())
            || self.directed.contains(jid)
            || self.directed.contains(&Jid::from(jid.to_bare()))
    }

    /// Notes a presence that we send. False: too many were sent; it must not go out because it could not be taken back.
    pub fn sending(&mut self, presence: &Presence) -> bool {
        match (&presence.to, presence.kind) {
            (Some(to), PresenceType::Available) => {
                if self.directed.len() >= self.presence_limit && !self.directed.contains(to) {
                    return false;
                }
                self.directed.insert(to.clone());
            }
            (Some(to), PresenceType::Unavailable) => drop(self.directed.remove(to)),
            // RFC 6121 §4.6.3: the server tells those too.
            (None, PresenceType::Unavailable) => self.directed.clear(),
            (
                _,
                PresenceType::Available
                | PresenceType::Error
                | PresenceType::Probe
                | PresenceType::Subscribe
                | PresenceType::Subscribed
                | PresenceType::Unsubscribe
                | PresenceType::Unsubscribed,
            ) => {}
        }
        true
    }

    /// Takes a presence stanza.
    pub fn receive(&mut self, presence: &Presence) -> PresenceChange {
        let Some(from) = &presence.from else { return PresenceChange::None };
        match presence.kind {
            PresenceType::Available => match from.clone().try_into_full() {
                Ok(full) => self.available(full, presence),
                Err(_) => PresenceChange::None,
            },
            PresenceType::Unavailable | PresenceType::Error => self.unavailable(from),
            PresenceType::Subscribe => PresenceChange::SubscriptionRequest(from.to_bare()),
            PresenceType::Probe | PresenceType::Subscribed | PresenceType::Unsubscribe | PresenceType::Unsubscribed => {
                PresenceChange::None
            }
        }
    }

    fn available(&mut self, from: FullJid, presence: &Presence) -> PresenceChange {
        let bare = from.to_bare();
        let known = self.present.get(&bare).is_some_and(|r| r.contains_key(&from));
        if !known {
            if self.present_count >= self.presence_limit {
                return PresenceChange::None;
            }
            self.present_count += 1;
        }
        let caps = presence.caps.as_deref().cloned();
        let resource = Resource { priority: presence.priority, show: presence.show, caps };
        self.present.entry(bare).or_default().insert(from.clone(), resource);
        PresenceChange::Available(from)
    }

    /// A bare address speaks for all its resources.
    fn unavailable(&mut self, from: &Jid) -> PresenceChange {
        let bare = from.to_bare();
        let Some(resources) = self.present.get_mut(&bare) else { return PresenceChange::None };
        let gone: Vec<FullJid> = resources.keys().filter(|full| from.is_bare() || **full == *from).cloned().collect();
        for full in &gone {
            resources.remove(full);
        }
        if resources.is_empty() {
            self.present.remove(&bare);
        }
        self.present_count -= gone.len();
        if gone.is_empty() { PresenceChange::None } else { PresenceChange::Unavailable(gone) }
    }

    /// A resource, if it is there.
    #[must_use]
    pub fn resource(&self, jid: &FullJid) -> Option<&Resource> {
        self.present.get(&jid.to_bare())?.get(jid)
    }

    /// The resources of an account that are there, highest priority first.
    #[must_use]
    pub fn resources(&self, jid: &BareJid) -> Vec<(&FullJid, &Resource)> {
        let mut all: Vec<_> = self.present.get(jid).into_iter().flatten().collect();
        all.sort_by_key(|(_, r)| std::cmp::Reverse(r.priority));
        all
    }

    /// The resource to call: of those for which `can` is true the one with the highest priority. Negative priorities count:
    /// they only keep messages away (RFC 6121 §4.7.2.3).
    #[must_use]
    pub fn choose(&self, jid: &BareJid, can: impl Fn(&FullJid, &Resource) -> bool) -> Option<&FullJid> {
        self.resources(jid).into_iter().find(|(full, resource)| can(full, resource)).map(|(full, _)| full)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::disallowed_methods,
        clippy::wildcard_enum_match_arm
    )]
    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::new(text).unwrap()
    }

    fn bare(text: &str) -> BareJid {
        BareJid::new(text).unwrap()
    }

    fn contacts(limit: usize) -> Contacts {
        Contacts::new(
            bare("juliet@capulet.lit"),
            &StreamLimits { roster: limit, presences: limit, ..StreamLimits::default() },
        )
    }

    fn item(text: &str, subscription: Subscription) -> RosterItem {
        RosterItem { jid: bare(text), name: None, subscription, ask: false, groups: vec![] }
    }

    fn push(from: Option<&str>, items: Vec<RosterItem>) -> Iq {
        let roster = Roster { items, ..Roster::default() };
        Iq { from: from.map(jid), ..Iq::new(None, "1", IqKind::Set(IqPayload::Roster(Box::new(roster)))) }
    }

    fn presence(from: &str, kind: PresenceType, priority: i8) -> Presence {
        Presence { from: Some(jid(from)), priority, ..Presence::new(None, kind) }
    }

    #[test]
    fn a_roster_push_counts_only_from_our_own_account() {
        let mut c = contacts(10);
        let both = || vec![item("romeo@montague.lit", Subscription::Both)];
        for forger in ["romeo@montague.lit", "capulet.lit", "juliet@capulet.lit/balcony", "juliet@capulet.lit.evil"] {
            assert_eq!(c.push(&push(Some(forger), both())), Push::Forged);
        }
        assert!(!c.is_contact(&bare("romeo@montague.lit")));
        let applied = Push::Applied { jid: bare("romeo@montague.lit"), subscription: Subscription::Both };
        assert_eq!(c.push(&push(None, both())), applied);
        assert_eq!(c.push(&push(Some("juliet@capulet.lit"), both())), applied);
        assert!(c.is_contact(&bare("romeo@montague.lit")));
        assert_eq!(c.push(&push(None, [both(), both()].concat())), Push::Forged);
        c.push(&push(None, vec![item("romeo@montague.lit", Subscription::Remove)]));
        assert!(!c.is_contact(&bare("romeo@montague.lit")));
    }

    #[test]
    fn only_who_sees_our_presence_is_a_contact() {
        let mut c = contacts(10);
        let items = [
            ("a@x", Subscription::None),
            ("b@x", Subscription::To),
            ("c@x", Subscription::From),
            ("d@x", Subscription::Both),
        ];
        let items = items.into_iter().map(|(j, s)| item(j, s)).collect();
        c.load(Roster { items, ..Roster::default() });
        let known: Vec<bool> =
            ["a@x", "b@x", "c@x", "d@x", "e@x", "juliet@capulet.lit"].iter().map(|j| c.is_contact(&bare(j))).collect();
        assert_eq!(known, [false, false, true, true, false, true]);
    }

    #[test]
    fn directed_presence_lets_a_stranger_know_us_until_it_is_taken_back() {
        let mut c = contacts(2);
        let to = |to: &str, kind| Presence::new(Some(jid(to)), kind);
        assert!(!c.knows_us(&jid("a@x/1")));
        assert!(c.sending(&to("a@x/1", PresenceType::Available)));
        assert!(c.knows_us(&jid("a@x/1")) && !c.knows_us(&jid("a@x/2")));
        assert!(c.sending(&to("b@x", PresenceType::Available)));
        assert!(c.knows_us(&jid("b@x/any")));
        assert!(!c.sending(&to("c@x", PresenceType::Available)), "bounded");
        c.sending(&to("a@x/1", PresenceType::Unavailable));
        assert!(!c.knows_us(&jid("a@x/1")));
        c.sending(&Presence::new(None, PresenceType::Unavailable));
        assert!(!c.knows_us(&jid("b@x/any")));
    }

    #[test]
    fn the_resource_to_call_is_the_capable_one_with_the_highest_priority() {
        let mut c = contacts(10);
        c.receive(&presence("romeo@m/phone", PresenceType::Available, 5));
        c.receive(&presence("romeo@m/laptop", PresenceType::Available, -1));
        c.receive(&presence("romeo@m/bot", PresenceType::Available, 10));
        let romeo = bare("romeo@m");
        let can = |full: &FullJid, _: &Resource| full.resource().as_str() != "bot";
        assert_eq!(c.choose(&romeo, can).unwrap().to_string(), "romeo@m/phone");
        let gone = c.receive(&presence("romeo@m/phone", PresenceType::Unavailable, 0));
        assert_eq!(gone, PresenceChange::Unavailable(vec![FullJid::new("romeo@m/phone").unwrap()]));
        assert_eq!(c.choose(&romeo, can).unwrap().to_string(), "romeo@m/laptop");
        assert!(
            matches!(c.receive(&presence("romeo@m", PresenceType::Unavailable, 0)), PresenceChange::Unavailable(g) if g.len() == 2)
        );
        assert_eq!(c.choose(&romeo, can), None);
        assert_eq!(c.present_count, 0);
    }

    #[test]
    fn tables_are_bounded() {
        let mut c = contacts(3);
        for n in 0..10 {
            c.receive(&presence(&format!("a@x/{n}"), PresenceType::Available, 0));
            c.push(&push(None, vec![item(&format!("{n}@x"), Subscription::Both)]));
        }
        assert_eq!((c.present_count, c.roster().count()), (3, 3));
        c.receive(&presence("a@x/1", PresenceType::Available, 7));
        assert_eq!(c.resource(&FullJid::new("a@x/1").unwrap()).unwrap().priority, 7);
        c.session_began();
        assert_eq!((c.present_count, c.roster().count()), (0, 3));
    }
}

//! Which SOCKS5 proxies our server offers for transfers, and where they listen. Read XEP-0065 §4 and §6.2 before touching
//! this file.
//!
//! ```text
//! Idle ─begin─▶ disco#items of the server ─▶ each item, at once: disco#info ─ identity proxy/bytestreams ─▶ bytestreams
//!   ▲                                                                │ another, error                        query
//!   └────────────────────── after an hour, asks again ◀──────────────┴────────────── Settled ◀────────── streamhost
//! ```
//! A configured proxy is asked for its streamhost at once.

use super::requests::Outcome;
use crate::wire::bytestream::{Bytestreams, Streamhost};
use crate::wire::disco::{DiscoInfo, DiscoItems};
use crate::wire::jid::{BareJid, Jid};
use crate::wire::stanza::IqPayload;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A proxy may be added to a server, or move, while we are signed in.
const REFRESH: Duration = Duration::from_secs(3600);
/// Items of the server that are asked; public servers list 3 to 12.
const MAX_ITEMS: usize = 16;
/// Streamhosts kept of one proxy: IPv4, IPv6, a name.
const MAX_STREAMHOSTS: usize = 3;
/// A name of DNS has at most so many bytes.
const MAX_HOST_BYTES: usize = 255;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyQuestion {
    /// What the server has: disco#items.
    Items,
    /// What an item is: disco#info.
    Info,
    /// Where a proxy listens: an empty bytestreams query.
    Streamhost,
}

/// A request, an IQ of type get. Give it back with the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyQuery {
    /// Whom to ask.
    pub to: Jid,
    /// What.
    pub question: ProxyQuestion,
}

impl ProxyQuery {
    /// The payload of the IQ.
    #[must_use]
    pub fn payload(&self) -> IqPayload {
        match self.question {
            ProxyQuestion::Items => IqPayload::DiscoItems(Box::default()),
            ProxyQuestion::Info => IqPayload::DiscoInfo(Box::default()),
            ProxyQuestion::Streamhost => IqPayload::Bytestreams(Box::default()),
        }
    }
}

#[derive(Debug)]
struct Proxy {
    jid: Jid,
    /// Asked and not answered.
    awaits: Option<ProxyQuestion>,
    streamhosts: Vec<Streamhost>,
}

/// The proxies of one's own server, and those configured. Ask with [`Self::poll_request`] and give the [`Outcome`] back.
#[derive(Debug)]
pub struct ProxyFinder {
    server: Jid,
    configured: Vec<Jid>,
    awaits_items: bool,
    /// Under search; configured ones first, then in the server's order.
    found: Vec<Proxy>,
    /// What the last search has found.
    proxies: Vec<Streamhost>,
    requests: VecDeque<ProxyQuery>,
    refresh: Option<Instant>,
    changed: bool,
}

impl ProxyFinder {
    /// For the server of `own`; `configured` proxies are asked whether the server lists them or not.
    #[must_use]
    pub fn new(own: &BareJid, configured: Vec<Jid>) -> Self {
        Self {
            server: Jid::from(BareJid::from_parts(None, own.domain())),
            configured,
            awaits_items: false,
            found: Vec::new(),
            proxies: Vec::new(),
            requests: VecDeque::new(),
            refresh: None,
            changed: false,
        }
    }

    /// A session began: asks.
    pub fn begin(&mut self, now: Instant) {
        self.refresh = Some(now + REFRESH);
        self.found.clear();
        self.requests.clear();
        self.awaits_items = true;
        self.requests.push_back(ProxyQuery { to: self.server.clone(), question: ProxyQuestion::Items });
        for jid in self.configured.clone() {
            self.look_at(jid, ProxyQuestion::Streamhost);
        }
    }

    /// The connection is gone: the requests under way will not be answered. What is known stays.
    pub fn interrupted(&mut self) {
        self.awaits_items = false;
        self.found.clear();
        self.requests.clear();
        self.refresh = None;
    }

    /// The next request.
    pub fn poll_request(&mut self) -> Option<ProxyQuery> {
        self.requests.pop_front()
    }

    /// True once after each search that ended with other streamhosts.
    pub fn poll_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// True when nothing is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.awaits_items && self.found.iter().all(|p| p.awaits.is_none())
    }

    /// Where proxies listen: configured ones first, then in the server's order. Ports are never 0.
    #[must_use]
    pub fn proxies(&self) -> &[Streamhost] {
        &self.proxies
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.refresh
    }

    /// Asks again if it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.refresh.is_some_and(|at| at <= now) {
            self.begin(now);
        }
    }

    /// Takes the answer to a request. Answers to what is no longer asked have no effect.
    pub fn handle_answer(&mut self, query: &ProxyQuery, outcome: Outcome) {
        match query.question {
            ProxyQuestion::Items => {
                if !std::mem::take(&mut self.awaits_items) {
                    return;
                }
                if let Outcome::Result(Some(IqPayload::DiscoItems(items))) = outcome {
                    self.learn(*items);
                }
            }
            ProxyQuestion::Info | ProxyQuestion::Streamhost => {
                let asked = |p: &&mut Proxy| p.jid == query.to && p.awaits == Some(query.question);
                let Some(proxy) = self.found.iter_mut().find(asked) else { return };
                proxy.awaits = None;
                match (query.question, outcome) {
                    (ProxyQuestion::Info, Outcome::Result(Some(IqPayload::DiscoInfo(info)))) if is_proxy(&info) => {
                        proxy.awaits = Some(ProxyQuestion::Streamhost);
                        let query = ProxyQuery { to: query.to.clone(), question: ProxyQuestion::Streamhost };
                        self.requests.push_back(query);
                    }
                    (ProxyQuestion::Streamhost, Outcome::Result(Some(IqPayload::Bytestreams(answer)))) => {
                        proxy.streamhosts = usable(*answer);
                    }
                    // Whatever else it is, or says, it is no proxy for us.
                    (ProxyQuestion::Items | ProxyQuestion::Info | ProxyQuestion::Streamhost, _) => {}
                }
            }
        }
        if self.is_settled() {
            let all: Vec<Streamhost> = self.found.drain(..).flat_map(|p| p.streamhosts).collect();
            self.changed |= all != self.proxies;
            self.proxies = all;
        }
    }

    fn learn(&mut self, items: DiscoItems) {
        // An item with a node is a part of another service, never a proxy.
        for item in items.items.into_iter().filter(|i| i.node.is_none()).take(MAX_ITEMS) {
            self.look_at(item.jid, ProxyQuestion::Info);
        }
    }

    fn look_at(&mut self, jid: Jid, question: ProxyQuestion) {
        if self.found.iter().any(|p| p.jid == jid) || jid == self.server && question == ProxyQuestion::Info {
            return;
        }
        self.requests.push_back(ProxyQuery { to: jid.clone(), question });
        self.found.push(Proxy { jid, awaits: Some(question), streamhosts: Vec::new() });
    }
}

/// XEP-0065 §4: the identity of a proxy.
fn is_proxy(info: &DiscoInfo) -> bool {
    info.identities.iter().any(|i| i.category == "proxy" && i.kind == "bytestreams")
}

/// XEP-0065 §6.2. A `port` of 0 is a proxy that is closed just now.
fn usable(answer: Bytestreams) -> Vec<Streamhost> {
    let fine = |s: &Streamhost| s.port != 0 && !s.host.is_empty() && s.host.len() <= MAX_HOST_BYTES;
    answer.streamhosts.into_iter().filter(fine).take(MAX_STREAMHOSTS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]
    use super::*;
    use crate::fault::{ErrorType, StanzaCondition};
    use crate::wire::disco::{DiscoItem, Identity};
    use crate::wire::stanza::StanzaError;

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    fn finder(configured: &[&str]) -> (Instant, ProxyFinder) {
        let now = Instant::now();
        let own = BareJid::new("romeo@montague.lit").unwrap();
        let mut finder = ProxyFinder::new(&own, configured.iter().map(|c| jid(c)).collect());
        finder.begin(now);
        (now, finder)
    }

    fn items(jids: &[&str]) -> Outcome {
        let items = jids.iter().map(|j| DiscoItem { jid: jid(j), node: None, name: None }).collect();
        Outcome::Result(Some(IqPayload::DiscoItems(Box::new(DiscoItems { items, ..DiscoItems::default() }))))
    }

    fn identity(category: &str, kind: &str) -> Outcome {
        let identity = Identity { category: category.into(), kind: kind.into(), ..Identity::default() };
        let info = DiscoInfo { identities: vec![identity], ..DiscoInfo::default() };
        Outcome::Result(Some(IqPayload::DiscoInfo(Box::new(info))))
    }

    fn streamhost(of: &str, host: &str, port: u16) -> Outcome {
        let streamhosts = vec![Streamhost { jid: jid(of), host: host.into(), port }];
        Outcome::Result(Some(IqPayload::Bytestreams(Box::new(Bytestreams { streamhosts, ..Bytestreams::default() }))))
    }

    fn error() -> Outcome {
        Outcome::Error(Box::new(StanzaError::new(ErrorType::Cancel, StanzaCondition::ServiceUnavailable)))
    }

    fn all(finder: &mut ProxyFinder) -> Vec<(String, ProxyQuestion)> {
        std::iter::from_fn(|| finder.poll_request()).map(|q| (q.to.to_string(), q.question)).collect()
    }

    fn query(to: &str, question: ProxyQuestion) -> ProxyQuery {
        ProxyQuery { to: jid(to), question }
    }

    #[test]
    fn the_proxy_among_the_servers_items_is_found() {
        use ProxyQuestion::{Info, Items, Streamhost};
        let (_, mut finder) = finder(&[]);
        assert_eq!(all(&mut finder), [("montague.lit".to_owned(), Items)]);
        assert!(!finder.is_settled());
        finder.handle_answer(&query("montague.lit", Items), items(&["muc.montague.lit", "proxy.montague.lit"]));
        let asked = [("muc.montague.lit".to_owned(), Info), ("proxy.montague.lit".to_owned(), Info)];
        assert_eq!(all(&mut finder), asked);
        finder.handle_answer(&query("proxy.montague.lit", Info), identity("proxy", "bytestreams"));
        assert_eq!(all(&mut finder), [("proxy.montague.lit".to_owned(), Streamhost)]);
        finder.handle_answer(
            &query("proxy.montague.lit", Streamhost),
            streamhost("proxy.montague.lit", "24.24.24.1", 7625),
        );
        assert!(!finder.is_settled() && finder.proxies().is_empty());
        finder.handle_answer(&query("muc.montague.lit", Info), identity("conference", "text"));
        assert!(finder.is_settled() && finder.poll_changed() && !finder.poll_changed());
        assert_eq!((finder.proxies()[0].host.as_str(), finder.proxies()[0].port), ("24.24.24.1", 7625));
    }

    #[test]
    fn a_configured_proxy_comes_first_and_is_asked_once() {
        use ProxyQuestion::{Info, Items, Streamhost};
        let (_, mut finder) = finder(&["proxy.montague.lit"]);
        assert_eq!(all(&mut finder).len(), 2);
        let listed = items(&["a.montague.lit", "proxy.montague.lit", "montague.lit"]);
        finder.handle_answer(&query("montague.lit", Items), listed);
        assert_eq!(all(&mut finder), [("a.montague.lit".to_owned(), Info)]);
        finder.handle_answer(&query("a.montague.lit", Info), identity("proxy", "bytestreams"));
        finder.handle_answer(&query("a.montague.lit", Streamhost), streamhost("a.montague.lit", "192.0.2.1", 1));
        finder.handle_answer(&query("proxy.montague.lit", Streamhost), streamhost("proxy.montague.lit", "p.lit", 2));
        let hosts: Vec<&str> = finder.proxies().iter().map(|s| s.host.as_str()).collect();
        assert_eq!(hosts, ["p.lit", "192.0.2.1"]);
    }

    #[test]
    fn whatever_the_answers_are_the_search_settles() {
        use ProxyQuestion::{Info, Items, Streamhost};
        for outcome in [error(), Outcome::TimedOut, Outcome::Malformed, Outcome::Result(None), identity("a", "b")] {
            let (now, mut finder) = finder(&["p.lit"]);
            finder.handle_answer(&query("montague.lit", Items), outcome.clone());
            assert!(!finder.is_settled());
            finder.handle_answer(&query("p.lit", Streamhost), outcome);
            assert!(finder.is_settled() && finder.proxies().is_empty() && !finder.poll_changed());
            // An answer that nobody awaits.
            finder.handle_answer(&query("p.lit", Streamhost), streamhost("p.lit", "192.0.2.1", 1));
            finder.handle_answer(&query("x.lit", Info), identity("proxy", "bytestreams"));
            assert!(finder.proxies().is_empty());
            all(&mut finder);
            finder.handle_timeout(now + REFRESH);
            assert_eq!(all(&mut finder).len(), 2, "asks again");
        }
    }

    #[test]
    fn a_server_with_many_items_makes_us_ask_sixteen() {
        let (_, mut finder) = finder(&[]);
        all(&mut finder);
        let names: Vec<String> = (0..100).map(|n| format!("c{n}.montague.lit")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        finder.handle_answer(&query("montague.lit", ProxyQuestion::Items), items(&names));
        assert_eq!(all(&mut finder).len(), MAX_ITEMS);
    }

    #[test]
    fn a_closed_proxy_is_none_and_what_was_known_outlives_the_connection() {
        use ProxyQuestion::{Items, Streamhost};
        let (now, mut finder) = finder(&["p.lit"]);
        finder.handle_answer(&query("montague.lit", Items), items(&[]));
        finder.handle_answer(&query("p.lit", Streamhost), streamhost("p.lit", "192.0.2.1", 7));
        assert_eq!(finder.proxies().len(), 1);
        finder.interrupted();
        assert!(finder.poll_timeout().is_none() && finder.poll_request().is_none() && finder.is_settled());
        assert_eq!(finder.proxies().len(), 1);
        finder.begin(now);
        finder.handle_answer(&query("montague.lit", Items), items(&[]));
        finder.handle_answer(&query("p.lit", Streamhost), streamhost("p.lit", "192.0.2.1", 0));
        assert!(finder.proxies().is_empty() && finder.poll_changed());
    }
}

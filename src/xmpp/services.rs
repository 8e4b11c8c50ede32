//! Which STUN and TURN servers our server offers, with credentials that are still good. Read XEP-0215 §3 before touching
//! this file.
//!
//! ```text
//! Idle ─begin─▶ Asking v2 ─error─▶ Asking v1 ─error─▶ Waiting (10 min)
//!   ▲               └──answer──┬──────┘                   │
//!   │                          ▼                          │
//!   │    some are restricted: Credentials ─▶ Ready ◀──────┘
//!   └───────────── 90 % of the shortest life ─┘  (asks again)
//! ```

use super::requests::Outcome;
use crate::wire::jid::{BareJid, Jid};
use crate::wire::services::{Credentials, Service, ServiceAction, Services};
use crate::wire::stanza::{Iq, IqKind, IqPayload};
use std::time::{Duration, Instant, SystemTime};

/// A server without external services may get some; asking every 10 minutes costs nothing.
const RETRY: Duration = Duration::from_secs(600);
/// A server whose clock is wrong must not make us ask without end.
const REFRESH_MIN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Asking { v1: bool },
    Credentials { v1: bool },
    Ready,
}

/// A push about services: what to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServicePush {
    /// Applied: answer with an empty result (J215-05).
    Applied,
    /// Not from our server: nothing changed. Answer with service-unavailable.
    Forged,
    /// Not such a push.
    NotOne,
}

/// The services of one's own server. Ask it with [`Self::poll_request`] and give the [`Outcome`] back.
#[derive(Debug)]
pub struct ServiceFinder {
    own: BareJid,
    limit: usize,
    /// Where wall time enters.
    epoch: (Instant, SystemTime),
    state: State,
    services: Vec<Service>,
    request: Option<IqPayload>,
    refresh: Option<Instant>,
    asked: Instant,
    changed: bool,
}

impl ServiceFinder {
    /// `epoch` is one moment on both clocks; `limit` caps the services kept.
    #[must_use]
    pub fn new(own: BareJid, epoch: (Instant, SystemTime), limit: usize) -> Self {
        Self {
            own,
            limit,
            epoch,
            state: State::Idle,
            services: Vec::new(),
            request: None,
            refresh: None,
            asked: epoch.0,
            changed: false,
        }
    }

    /// The address to send requests to: our server (J215-01).
    #[must_use]
    pub fn server(&self) -> Jid {
        Jid::from(BareJid::from_parts(None, self.own.domain()))
    }

    /// A session began: asks.
    pub fn begin(&mut self, now: Instant) {
        self.ask(now, false);
    }

    /// The connection is gone: the request under way will not be answered. What is known stays.
    pub fn interrupted(&mut self) {
        self.request = None;
        self.refresh = None;
        self.state = State::Idle;
    }

    /// The next request, an IQ of type get for [`Self::server`].
    pub fn poll_request(&mut self) -> Option<IqPayload> {
        self.request.take()
    }

    /// True once after each change of [`Self::services`].
    pub fn poll_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What is offered now, in the server's order.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.refresh
    }

    /// Asks again if it is time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.refresh.is_some_and(|at| at <= now) {
            self.ask(now, false);
        }
    }

    /// Takes the answer to a request.
    pub fn handle_answer(&mut self, now: Instant, outcome: Outcome) {
        match (self.state, outcome) {
            (State::Asking { v1 }, Outcome::Result(Some(IqPayload::Services(services)))) => {
                self.replace(now, v1, *services);
            }
            (State::Asking { v1: false }, Outcome::Error(_) | Outcome::Result(_) | Outcome::Malformed) => {
                self.ask(now, true);
            }
            (State::Asking { .. }, _) => self.ready(now),
            (State::Credentials { .. }, Outcome::Result(Some(IqPayload::Credentials(credentials)))) => {
                self.fill(&credentials);
                self.ready(now);
            }
            (State::Credentials { .. }, _) => self.ready(now),
            (State::Idle | State::Ready, _) => {}
        }
    }

    /// Takes a push (XEP-0215 §3.2): add, delete or modify.
    pub fn push(&mut self, now: Instant, iq: &Iq) -> ServicePush {
        let IqKind::Set(IqPayload::Services(services)) = &iq.kind else { return ServicePush::NotOne };
        // J215-04: only from our own server. Everybody else could lead our media through their relay.
        if iq.from.as_ref().is_some_and(|from| *from != self.server() && *from != self.own) {
            return ServicePush::Forged;
        }
        for service in &services.services {
            let at = self.services.iter().position(|s| same(s, service));
            match (service.action, at) {
                (Some(ServiceAction::Delete), Some(at)) => drop(self.services.remove(at)),
                (Some(ServiceAction::Delete), None) => {}
                (Some(ServiceAction::Add | ServiceAction::Modify) | None, at) => {
                    let service = Service { action: None, ..service.clone() };
                    let full = self.services.len() >= self.limit;
                    match at.and_then(|at| self.services.get_mut(at)) {
                        Some(known) => *known = service,
                        None if full => {}
                        None => self.services.push(service),
                    }
                }
            }
        }
        self.changed = true;
        if self.state == State::Ready {
            self.ready(now);
        }
        ServicePush::Applied
    }

    fn ask(&mut self, now: Instant, v1: bool) {
        self.asked = now;
        self.refresh = None;
        self.state = State::Asking { v1 };
        self.request = Some(IqPayload::Services(Box::new(Services { v1, ..Services::default() })));
    }

    fn replace(&mut self, now: Instant, v1: bool, services: Services) {
        self.services = services.services;
        self.services.truncate(self.limit);
        // XEP-0215 §3.3 (J215-06): credentials are asked for by host and type.
        let missing: Vec<Service> = self
            .services
            .iter()
            .filter(|s| s.restricted && s.username.is_none())
            .map(|s| Service { port: s.port, ..Service::new(s.kind.clone(), s.host.clone()) })
            .collect();
        if missing.is_empty() {
            return self.ready(now);
        }
        self.state = State::Credentials { v1 };
        let credentials = Credentials { v1, services: missing, ..Credentials::default() };
        self.request = Some(IqPayload::Credentials(Box::new(credentials)));
    }

    fn fill(&mut self, credentials: &Credentials) {
        for service in self.services.iter_mut().filter(|s| s.username.is_none()) {
            let found = credentials.services.iter().find(|c| {
                c.host == service.host && c.kind == service.kind && (c.port.is_none() || c.port == service.port)
            });
            if let Some(found) = found {
                service.username.clone_from(&found.username);
                service.password.clone_from(&found.password);
                service.expires = found.expires.or(service.expires);
            }
        }
    }

    fn ready(&mut self, now: Instant) {
        self.state = State::Ready;
        self.changed = true;
        let wall = self.epoch.1 + now.saturating_duration_since(self.epoch.0);
        let shortest = self.services.iter().filter_map(|s| s.expires?.to_system_time()).min();
        // J215-03: asks again after 90 % of the shortest life.
        self.refresh = match shortest {
            Some(end) => {
                let life = end.duration_since(wall).unwrap_or_default();
                Some(now + (life / 10 * 9).max(REFRESH_MIN))
            }
            None if self.services.is_empty() => Some(now + RETRY),
            None => None,
        };
    }
}

/// XEP-0215 §3.2: host, type and what distinguishes two of the same.
fn same(a: &Service, b: &Service) -> bool {
    a.host == b.host && a.kind == b.kind && a.port == b.port && a.transport == b.transport
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
    use crate::fault::{ErrorType, StanzaCondition};
    use crate::wire::stanza::StanzaError;
    use crate::wire::time::Stamp;

    fn finder() -> (Instant, ServiceFinder) {
        let now = Instant::now();
        let own = BareJid::new("juliet@capulet.lit").unwrap();
        let mut finder = ServiceFinder::new(own, (now, SystemTime::UNIX_EPOCH), 4);
        finder.begin(now);
        (now, finder)
    }

    fn turn(life_s: i64) -> Service {
        Service {
            port: Some(3478),
            username: Some("u".into()),
            password: Some("p".into()),
            expires: Some(Stamp { unix_ms: life_s * 1000 }),
            ..Service::new("turn", "relay.capulet.lit")
        }
    }

    fn answer(services: Vec<Service>) -> Outcome {
        Outcome::Result(Some(IqPayload::Services(Box::new(Services { services, ..Services::default() }))))
    }

    fn refusal() -> Outcome {
        Outcome::Error(Box::new(StanzaError::new(ErrorType::Cancel, StanzaCondition::ServiceUnavailable)))
    }

    fn asked_v1(finder: &mut ServiceFinder) -> Option<bool> {
        match finder.poll_request()? {
            IqPayload::Services(s) => Some(s.v1),
            _ => None,
        }
    }

    #[test]
    fn credentials_are_refreshed_at_90_percent_of_their_life() {
        let (now, mut finder) = finder();
        assert_eq!(finder.server().to_string(), "capulet.lit");
        assert_eq!(asked_v1(&mut finder), Some(false));
        finder.handle_answer(now, answer(vec![turn(3600), Service::new("stun", "capulet.lit")]));
        assert!(finder.poll_changed() && !finder.poll_changed());
        assert_eq!(finder.services().len(), 2);
        assert_eq!(finder.poll_timeout(), Some(now + Duration::from_secs(3240)));
        let later = now + Duration::from_secs(3240);
        finder.handle_timeout(later);
        assert_eq!(asked_v1(&mut finder), Some(false));
        assert_eq!(finder.services().len(), 2, "the old ones stay until the new ones are there");
        finder.handle_answer(later, answer(vec![turn(3240 + 1000)]));
        assert_eq!(finder.poll_timeout(), Some(later + Duration::from_secs(900)));
    }

    #[test]
    fn an_old_server_is_asked_in_the_old_namespace_and_none_is_no_fault() {
        let (now, mut finder) = finder();
        finder.poll_request();
        finder.handle_answer(now, refusal());
        assert_eq!(asked_v1(&mut finder), Some(true));
        finder.handle_answer(now, refusal());
        assert_eq!(asked_v1(&mut finder), None);
        assert_eq!(finder.poll_timeout(), Some(now + RETRY));
        finder.handle_timeout(now + RETRY);
        assert_eq!(asked_v1(&mut finder), Some(false));
        finder.handle_answer(now + RETRY, Outcome::TimedOut);
        assert!(finder.services().is_empty());
    }

    #[test]
    fn restricted_services_are_asked_for_credentials() {
        let (now, mut finder) = finder();
        finder.poll_request();
        let bare = Service { restricted: true, port: Some(3478), ..Service::new("turn", "relay.capulet.lit") };
        finder.handle_answer(now, answer(vec![bare]));
        let Some(IqPayload::Credentials(asked)) = finder.poll_request() else { panic!("no request") };
        assert_eq!((asked.services[0].host.as_str(), asked.services[0].kind.as_str()), ("relay.capulet.lit", "turn"));
        let got = Credentials { services: vec![turn(1000)], ..Credentials::default() };
        finder.handle_answer(now, Outcome::Result(Some(IqPayload::Credentials(Box::new(got)))));
        assert_eq!(finder.services()[0].password.as_deref(), Some("p"));
        assert_eq!(finder.poll_timeout(), Some(now + Duration::from_secs(900)));
    }

    #[test]
    fn a_wrong_clock_does_not_make_us_ask_without_end() {
        let (now, mut finder) = finder();
        finder.handle_answer(now, answer(vec![turn(-5000)]));
        assert_eq!(finder.poll_timeout(), Some(now + REFRESH_MIN));
    }

    #[test]
    fn pushes_count_only_from_our_server_and_stay_bounded() {
        let (now, mut finder) = finder();
        finder.handle_answer(now, answer(vec![turn(1000)]));
        let push = |from: Option<&str>, service: Service| {
            let services = Services { services: vec![service], ..Services::default() };
            let from = from.map(|f| Jid::new(f).unwrap());
            Iq { from, ..Iq::new(None, "1", IqKind::Set(IqPayload::Services(Box::new(services)))) }
        };
        let evil = Service { action: Some(ServiceAction::Add), ..Service::new("turn", "evil.example") };
        for from in ["evil.example", "romeo@capulet.lit", "juliet@capulet.lit/x"] {
            assert_eq!(finder.push(now, &push(Some(from), evil.clone())), ServicePush::Forged);
        }
        let modify = Service { action: Some(ServiceAction::Modify), username: Some("v".into()), ..turn(1000) };
        assert_eq!(finder.push(now, &push(Some("capulet.lit"), modify)), ServicePush::Applied);
        assert_eq!((finder.services().len(), finder.services()[0].username.as_deref()), (1, Some("v")));
        for n in 0..10 {
            let add = Service { action: Some(ServiceAction::Add), ..Service::new("stun", format!("{n}.capulet.lit")) };
            finder.push(now, &push(None, add));
        }
        assert_eq!(finder.services().len(), 4);
        let delete = Service { action: Some(ServiceAction::Delete), ..turn(1000) };
        finder.push(now, &push(None, delete));
        assert!(finder.services().iter().all(|s| s.kind == "stun"));
    }
}

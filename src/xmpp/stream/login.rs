//! The steps of a login: TLS before anything else, SASL, resumption or a resource. Read RFC 6120 §5 to §7 and XEP-0170
//! before touching this file.

use super::super::sasl::{BindingPolicy, Sasl, SaslOffer};
use super::{State, Step, Stream, StreamFault, TlsInfo, TlsPolicy};
use crate::fault::StanzaCondition;
use crate::wire::jid::FullJid;
use crate::wire::roster::Bind;
use crate::wire::stanza::{Iq, IqKind, IqPayload, Stanza};
use crate::wire::stream::{Features, SaslData, StreamElement};
use crate::xmpp::resume::SmSession;
use base64::Engine as _;
use rand_core::RngCore;
use std::time::Instant;

impl Stream {
    pub(super) fn features(&mut self, now: Instant, step: Step, features: Features) {
        let clear = match (&step, self.config.tls) {
            (Step::Plain { loopback }, TlsPolicy::PlaintextLoopbackOnly) => *loopback && !features.starttls_required,
            (Step::Plain { .. }, TlsPolicy::Required) => false,
            (Step::Secured(_) | Step::Authenticated, _) => true,
        };
        if !clear {
            // RFC 6120 §5.3.1: without TLS no password leaves.
            if features.starttls {
                self.pipe.element(&StreamElement::StartTls);
                return self.enter(now, State::Proceed);
            }
            return self.refuse(match self.config.tls {
                TlsPolicy::Required => StreamFault::NoStartTls,
                TlsPolicy::PlaintextLoopbackOnly => StreamFault::PlaintextOffLoopback,
            });
        }
        match step {
            Step::Plain { .. } => self.authenticate(now, None, &features),
            Step::Secured(tls) => self.authenticate(now, Some(&tls), &features),
            Step::Authenticated => {
                if let Some(previd) = self.sm.as_ref().and_then(SmSession::previd).filter(|_| features.sm) {
                    let h = self.sm.as_ref().map_or(0, SmSession::h);
                    self.pipe.element(&StreamElement::SmResume { h, previd: previd.to_owned() });
                    return self.enter(now, State::Resume(features));
                }
                self.forget_session(None);
                self.bind(now, features, true);
            }
        }
    }

    pub(super) fn authenticate(&mut self, now: Instant, tls: Option<&TlsInfo>, features: &Features) {
        let user = self.config.jid.node().map_or("", |node| node.as_str());
        let offer = SaslOffer { mechanisms: &features.mechanisms, channel_bindings: &features.channel_bindings };
        let mut nonce = [0; 18];
        self.rng.fill_bytes(&mut nonce);
        let nonce = base64::engine::general_purpose::STANDARD.encode(nonce);
        let mut policy = self.config.sasl;
        if self.unbindable && features.channel_bindings.is_empty() && policy.binding == BindingPolicy::Prefer {
            policy.binding = BindingPolicy::Off;
        }
        match Sasl::start(user, &self.config.password, offer, tls, policy, nonce) {
            Ok((sasl, start)) => {
                let unbound = |m: &String| m == "SCRAM-SHA-256" || m == "SCRAM-SHA-1";
                let guessed = start.mechanism.ends_with("-PLUS")
                    && features.channel_bindings.is_empty()
                    && features.mechanisms.iter().any(unbound);
                self.guess = tls
                    .filter(|_| guessed && policy.binding == BindingPolicy::Prefer)
                    .map(|tls| Box::new((tls.clone(), features.clone())));
                tracing::debug!(mechanism = start.mechanism, "authenticating");
                self.mechanism = Some(start.mechanism);
                let data = Some(SaslData(start.data));
                self.pipe.element(&StreamElement::SaslAuth { mechanism: start.mechanism.to_owned(), data });
                self.enter(now, State::Sasl(sasl));
            }
            Err(fault) => self.refuse(StreamFault::Sasl(fault)),
        }
    }

    pub(super) fn bind(&mut self, now: Instant, features: Features, named: bool) {
        if !features.bind {
            return self.refuse(StreamFault::NoBind);
        }
        let own = self.config.jid.resource().map(|r| r.as_str().to_owned());
        let resource = self.config.resource.clone().or(own).filter(|_| named);
        let named = resource.is_some();
        let id = self.next_id();
        let bind = IqPayload::Bind(Box::new(Bind { resource, jid: None }));
        self.pipe.stanza(&Stanza::Iq(Iq::new(None, id.clone(), IqKind::Set(bind))));
        self.enter(now, State::Bind { id, features, named });
    }

    fn bound(&mut self, now: Instant, jid: FullJid, features: &Features) {
        if features.session_required {
            let id = self.next_id();
            self.pipe.stanza(&Stanza::Iq(Iq::new(None, id.clone(), IqKind::Set(IqPayload::Session))));
            return self.enter(now, State::Session { id, jid, sm: features.sm });
        }
        self.enable(now, jid, features.sm);
    }

    pub(super) fn enable(&mut self, now: Instant, jid: FullJid, sm: bool) {
        if sm {
            self.pipe.element(&StreamElement::SmEnable { resume: true, max_s: None });
            self.enter(now, State::Enable { jid });
        } else {
            self.online(now, jid, false);
        }
    }

    pub(super) fn bind_answer(&mut self, now: Instant, iq: Iq, features: Features, named: bool) {
        let jid = match iq.kind {
            IqKind::Result(Some(IqPayload::Bind(bind))) => bind.jid.and_then(|jid| jid.try_into_full().ok()),
            // RFC 6120 §7.7.2.2: the resource is taken and the server does not replace: let it choose.
            IqKind::Error(error) if named && error.condition == StanzaCondition::Conflict => {
                return self.bind(now, features, false);
            }
            IqKind::Error(error) => return self.refuse(StreamFault::BindRefused(error)),
            IqKind::Result(_) | IqKind::Get(_) | IqKind::Set(_) => None,
        };
        match jid {
            Some(jid) => self.bound(now, jid, &features),
            None => {
                self.state = State::Bind { id: iq.id, features, named };
                self.unexpected();
            }
        }
    }
}

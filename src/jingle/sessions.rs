//! All sessions of one endpoint: routing by (peer, sid), ties between sessions, caps, strangers, floods.
//! Read XEP-0166 §6.3, §7.2.16 and §13 before touching this file.

use crate::config::InitiateRate;
use crate::fault::Malformed;
use crate::jingle::session::{
    Misuse, Session, SessionContext, SessionEvent, SessionInput, SessionTransmit, Why,
};
use crate::wire::jid::{BareJid, Jid};
use crate::wire::jingle::{self as element, Group, Sid};
use std::collections::BTreeSet;
use std::time::Instant;

/// Handle of a session in [`Sessions`]; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Who may call (J166-04, J166-61).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Callers {
    /// Those the roster lets see our presence, and whoever we called.
    #[default]
    Contacts,
    /// Everybody.
    Everyone,
    /// These bare JIDs only.
    Listed(BTreeSet<BareJid>),
}

impl Callers {
    /// True if this peer may know that somebody is here; `contact` says whether it sees our presence.
    #[must_use]
    pub fn admits(&self, peer: &Jid, contact: bool) -> bool {
        match self {
            Callers::Contacts => contact,
            Callers::Everyone => true,
            Callers::Listed(list) => list.contains(&peer.to_bare()),
        }
    }
}

/// Arguments of [`Sessions::new`].
#[derive(Debug, Clone)]
pub struct SessionsConfig {
    /// Our full JID.
    pub local: Jid,
    /// Policy, timers and caps of every session.
    pub context: SessionContext,
    /// Who may call.
    pub callers: Callers,
    /// Token buckets.
    pub rate: InitiateRate,
    /// Where session-initiates are redirected to, if anywhere (J166-06).
    pub redirect: Option<Jid>,
    /// Randomness of sids and ids.
    pub seed: [u8; 32],
}

/// All sessions of one endpoint.
#[derive(Debug)]
pub struct Sessions {
    config: SessionsConfig,
}

#[allow(unused_variables, missing_docs)]
impl Sessions {
    pub fn new(config: SessionsConfig) -> Self { Self { config } }
    /// After a new resource binding; sessions that live keep their address.
    pub fn set_local(&mut self, local: Jid) { self.config.local = local; }
    /// 128 random bits as 32 hex digits (J166-30); also the id of a propose.
    pub fn new_sid(&mut self) -> Sid { Sid(String::new()) }
    /// `sid`: that of the propose this follows, or none for a fresh one.
    pub fn initiate(&mut self, now: Instant, peer: Jid, sid: Option<Sid>, contents: Vec<element::Content>, groups: Vec<Group>) -> Result<SessionId, Misuse> { Err(Misuse::NoResources) }
    /// One IQ with `from`; `contact`: the peer may know that we are here (roster, directed presence, our own propose or proceed).
    pub fn handle_input(&mut self, now: Instant, from: &Jid, contact: bool, input: SessionInput) {}
    /// A Jingle IQ-set whose payload could not be read.
    pub fn handle_malformed(&mut self, now: Instant, from: &Jid, contact: bool, id: String, fault: &Malformed) {}
    /// A verb on one session; its output is collected at once.
    pub fn act<R>(&mut self, id: SessionId, verb: impl FnOnce(&mut Session) -> R) -> Result<R, Misuse> { Err(Misuse::NoSession) }
    pub fn session(&self, id: SessionId) -> Option<&Session> { None }
    pub fn find(&self, peer: &Jid, sid: &Sid) -> Option<SessionId> { None }
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> { [].into_iter() }
    pub fn len(&self) -> usize { 0 }
    pub fn is_empty(&self) -> bool { true }
    /// Unavailable presence, or its return, of one full JID.
    pub fn peer_unavailable(&mut self, now: Instant, peer: &Jid) {}
    pub fn peer_available(&mut self, now: Instant, peer: &Jid) {}
    pub fn handle_timeout(&mut self, now: Instant) {}
    pub fn poll_transmit(&mut self) -> Option<SessionTransmit> { None }
    pub fn poll_event(&mut self) -> Option<(SessionId, SessionEvent)> { None }
    pub fn poll_timeout(&self) -> Option<(Instant, Why)> { None }
}

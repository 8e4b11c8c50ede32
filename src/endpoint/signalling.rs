//! The signalling half of the endpoint: the stream, what is done when it is up, and where each stanza goes.
//! Read RFC 6121 §2 to §4 and XEP-0280 §11 before touching this file.

use super::event::{Event, Input, Output, Refusal, Signalling};
use super::{Endpoint, NamedServer};
use crate::jingle::invite::{InviteInput, InviteTransmit, Via};
use crate::jingle::session::{Body, IqError, SessionInput, SessionTransmit};
use crate::wire::jid::{BareJid, Jid};
use crate::wire::stanza::{Hint, Iq, IqKind, IqPayload, Message, MessageType, Presence, PresenceType, Stanza, StanzaError};
use crate::xmpp::stream::{Stream, StreamConfig, StreamEvent, StreamFault, StreamInput, StreamPhase, StreamTransmit};
use std::time::Instant;

/// How an endpoint signals.
#[derive(Debug, Clone)]
pub enum Account {
    /// An account on a server.
    Client(Box<StreamConfig>),
}

impl Account {
    /// Our address, as far as it is known before signing in.
    #[must_use]
    pub fn jid(&self) -> Jid {
        match self {
            Account::Client(config) => config.jid.clone(),
        }
    }
}

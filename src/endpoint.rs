//! The engine: signalling, sessions and media of one account, without a clock, a socket or a task. It routes stanzas by
//! namespace and datagrams by address. Read XEP-0166 §5 and RFC 7983 before touching this file.

mod call;
mod calls;
pub mod event;
mod offer;
mod signalling;

use crate::config::SessionPolicies;
use crate::fault::ReasonCondition;
use crate::jingle::invite::{Invites, InvitesConfig};
use crate::jingle::session::SessionContext;
use crate::jingle::sessions::{Callers, SessionId, Sessions, SessionsConfig};
use crate::media::audio::{AudioConfig, AudioStats};
use crate::media::codec::CodecName;
use crate::transport::dtls::Identity;
use crate::transport::gather::IceServer;
use crate::transport::leg::LegStats;
use crate::wire::jid::Jid;
use call::Call;
use event::{CallId, Event, Input, Output};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use signalling::Link;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

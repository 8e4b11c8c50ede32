//! The engine: signalling, sessions and media of one account, without a clock, a socket or a task. It routes stanzas by
//! namespace and datagrams by address. Read XEP-0166 §5 and RFC 7983 before touching this file.

mod call;
mod calls;
mod carrying;
pub mod event;
pub mod file_event;
mod file_verbs;
mod link;
mod media;
mod offer;
mod people;
mod sdp;
mod signalling;
mod summary;
pub mod telephone;
mod transfer;
mod transfers;
mod verbs;
mod ways;

use crate::jingle::invite::{Invites, InvitesConfig};
use crate::jingle::session::SessionContext;
use crate::jingle::sessions::{Callers, SessionId, Sessions, SessionsConfig};
use crate::media::audio::AudioConfig;
use crate::media::codec::CodecName;
use crate::media::quality::{QualityInput, quality};
use crate::transport::dtls::Identity;
use crate::transport::gather::IceServer;
use crate::wire::address::Address;
use call::Call;
use event::{CallId, CallStats, Event, Input, LegId, Output};
use file_event::TransferId;
pub use link::Account;
use link::Link;
use people::People;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use telephone::Telephone;
use transfer::Transfer;

/// Who may learn our network addresses before the user accepted a call (J176-24, J176-25).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressPolicy {
    /// Contacts: an incoming call of theirs may prepare its path while it rings.
    Contacts,
    /// Nobody.
    #[default]
    Accept,
    /// Nobody ever: only relayed addresses are used.
    RelayOnly,
}

/// A STUN or TURN server by name, from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedServer {
    /// Name or address.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// Kind and credentials; its address is filled in when the name is known.
    pub server: IceServer,
}

/// What calls are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaConfig {
    /// In order of preference.
    pub codecs: Vec<CodecName>,
    /// Only relayed candidates.
    pub relay_only: bool,
    /// Loopback and private addresses are allowed on both sides; for tests on one machine.
    pub lab: bool,
    /// SHA-256 (or other digest) of the only peer certificate that is accepted.
    pub require_fingerprint: Option<Vec<u8>>,
    /// STUN and TURN servers beside those of XEP-0215.
    pub servers: Vec<NamedServer>,
    /// Knobs of the audio path.
    pub audio: AudioConfig,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            codecs: vec![CodecName::Opus, CodecName::G722, CodecName::Pcmu, CodecName::Pcma],
            relay_only: false,
            lab: false,
            require_fingerprint: None,
            servers: Vec::new(),
            audio: AudioConfig::default(),
        }
    }
}

/// Everything an endpoint is told once.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// How it signals.
    pub account: Account,
    /// Policy, timers and caps of sessions.
    pub context: SessionContext,
    /// Who may call.
    pub callers: Callers,
    /// Who may learn addresses.
    pub address_policy: AddressPolicy,
    /// What calls are made of.
    pub media: MediaConfig,
    /// Report each Jingle stanza as [`Event::Signalled`].
    pub show_signalling: bool,
}

/// A verb that does not fit; nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// Not signed in.
    #[error("not signed in")]
    Offline,
    /// No such call, or not any more.
    #[error("no such call")]
    NoCall,
    /// It is not an incoming call that awaits its answer.
    #[error("the call does not await an answer")]
    NotRinging,
    /// It is not accepted yet.
    #[error("the call is not up")]
    NotActive,
    /// The cap on calls is reached.
    #[error("no more calls fit")]
    TooManyCalls,
    /// No file, or no way to carry one.
    #[error("nothing to send, or no way to send it")]
    NoFile,
    /// An address that this endpoint cannot call: a SIP address without SIP, or the other way round.
    #[error("no account for such an address")]
    WrongNetwork,
    /// Not something that can be done here.
    #[error("{0}")]
    Unsupported(String),
    /// Not a digit, or no way to send one.
    #[error("{0}")]
    Digit(String),
}

/// The sans-IO engine of one account. One mutation, then drain [`Endpoint::poll_output`] until [`Output::Timeout`].
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    identity: Arc<Identity>,
    link: Link,
    people: People,
    sessions: Sessions,
    invites: Invites,
    /// SIP, where the account is of that kind.
    telephone: Option<Box<Telephone>>,
    calls: BTreeMap<CallId, Call>,
    by_session: BTreeMap<SessionId, CallId>,
    transfers: BTreeMap<TransferId, Transfer>,
    file_sessions: BTreeMap<SessionId, TransferId>,
    /// Transfers whose files are all over and whose receiver has the last word until then.
    last_words: BTreeMap<TransferId, Instant>,
    /// Bound addresses and the leg they belong to.
    routes: BTreeMap<SocketAddr, LegId>,
    outputs: VecDeque<Output>,
    /// Addresses of names that calls wait for, and the answers so far.
    names: BTreeMap<String, Vec<IpAddr>>,
    asked: BTreeSet<String>,
    rng: ChaCha20Rng,
    last_call: u64,
    last_transfer: u64,
    /// RTCP CNAME of this process, RFC 7022.
    cname: String,
    /// Wall-clock time at one instant.
    clock: (Instant, SystemTime),
    /// Reused for every datagram that is sent.
    datagram: Vec<u8>,
}

impl Endpoint {
    /// An endpoint that first wants to connect. `wall` is the wall-clock time at `now`; `seed` gives all randomness but
    /// that of keys.
    #[must_use]
    pub fn new(
        now: Instant,
        wall: SystemTime,
        seed: [u8; 32],
        identity: Arc<Identity>,
        config: EndpointConfig,
    ) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut next_seed = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let link = Link::new(now, next_seed(), &config.account);
        let people = People::new((now, wall), &config.account, config.context.policy.applications);
        let local = config.account.jid();
        let mut context = config.context.clone();
        // What is sent while a call rings, the endpoint chooses by caller; the sessions only must not hold it back.
        context.policy.early_transport |= config.address_policy == AddressPolicy::Contacts;
        let sessions = Sessions::new(SessionsConfig {
            local: local.clone(),
            context,
            callers: config.callers.clone(),
            rate: crate::config::InitiateRate::default(),
            redirect: None,
            seed: next_seed(),
        });
        let invites = Invites::new(InvitesConfig {
            local,
            timers: config.context.timers,
            limits: config.context.limits,
            rate: crate::config::InitiateRate::default(),
        });
        let telephone = match &config.account {
            Account::Sip(sip) => Some(Box::new(Telephone::new(now, next_seed(), sip))),
            Account::Client(_) | Account::Serverless { .. } => None,
        };
        let mut cname = String::with_capacity(16);
        for _ in 0..2 {
            cname.push_str(&format!("{:08x}", rng.next_u32()));
        }
        let mut endpoint = Self {
            config,
            identity,
            link,
            people,
            sessions,
            invites,
            telephone,
            calls: BTreeMap::new(),
            by_session: BTreeMap::new(),
            transfers: BTreeMap::new(),
            file_sessions: BTreeMap::new(),
            last_words: BTreeMap::new(),
            routes: BTreeMap::new(),
            outputs: VecDeque::new(),
            names: BTreeMap::new(),
            asked: BTreeSet::new(),
            rng,
            last_call: 0,
            last_transfer: 0,
            cname,
            clock: (now, wall),
            datagram: Vec::with_capacity(1500),
        };
        for server in endpoint.config.media.servers.clone() {
            endpoint.resolve(server.host);
        }
        // A listener awaits its peer the same way as a client connects: the shell knows which.
        if endpoint.telephone.is_none() {
            endpoint.outputs.push_back(Output::Connect);
        }
        endpoint.pump(now);
        endpoint
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        match input {
            Input::Datagram { local, source, bytes } => return self.handle_datagram(now, local, source, bytes),
            Input::Sockets { leg: LegId::Call(call), bound } if self.telephone.is_some() => {
                self.handle_telephone_sockets(now, call, &bound);
            }
            Input::Sip(input) => self.handle_sip(now, input),
            Input::Sockets { leg: LegId::Call(call), bound } => self.handle_sockets(now, call, &bound),
            Input::Sockets { leg: LegId::File(id), bound } => self.handle_file_sockets(now, id, &bound),
            Input::File(input) => self.handle_file_input(now, input),
            Input::Resolved { name, addrs } => self.handle_resolved(now, &name, addrs),
            signalling @ (Input::Connected { .. } | Input::TlsStarted(_) | Input::Bytes(_) | Input::Closed(_)) => {
                self.link.handle_input(now, signalling);
            }
        }
        self.pump(now);
    }

    fn handle_datagram(&mut self, now: Instant, local: SocketAddr, source: SocketAddr, bytes: &mut [u8]) {
        let id = match self.routes.get(&local).copied() {
            Some(LegId::Call(id)) => id,
            Some(LegId::File(id)) => {
                if let Some(leg) = self.file_mut(id).and_then(transfer::File::leg_mut) {
                    // A file's leg carries no RTP.
                    leg.handle_datagram(now, local, source, bytes);
                    self.drain_file_leg(now, id);
                    self.pump(now);
                }
                return;
            }
            None => return,
        };
        let Some(Ends { leg: Some(leg), audio, hears, .. }) = ends(&mut self.calls, &mut self.telephone, id) else {
            return;
        };
        let received = leg.handle_datagram(now, local, source, bytes);
        match (received, audio) {
            // Fast path: an RTP packet changes nothing but the jitter buffer.
            (Some(rtp), Some(audio)) if hears => audio.handle_rtp(now, &rtp.header, rtp.payload),
            (Some(_), _) => {}
            (None, _) => {
                self.drain_leg(now, id);
                self.pump(now);
            }
        }
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.link.handle_timeout(now);
        self.sessions.handle_timeout(now);
        self.invites.handle_timeout(now);
        let ids: Vec<CallId> = self.calls.keys().copied().collect();
        for id in ids {
            if let Some(leg) = self.calls.get_mut(&id).and_then(|c| c.media.leg.as_mut())
                && leg.poll_timeout().is_some_and(|(at, _)| at <= now)
            {
                leg.handle_timeout(now);
                self.drain_leg(now, id);
                self.follow_reports(now, id);
            }
        }
        self.telephone_timeout(now);
        self.signalling_timeout(now);
        self.find_devices(now);
        self.find_receivers(now);
        self.transfers_timeout(now);
        self.end_abandoned(now);
        self.pump(now);
    }

    /// The next thing the shell has to do. [`Output::Timeout`] is the last of a round.
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let lines = self.telephone.iter_mut().flat_map(|telephone| telephone.legs_mut());
        let legs = self.calls.values_mut().filter_map(|c| c.media.leg.as_deref_mut());
        for leg in legs.chain(lines) {
            if let Some(transmit) = leg.poll_transmit() {
                return Output::Transmit(transmit);
            }
        }
        for file in self.transfers.values_mut().flat_map(|t| &mut t.files) {
            if let Some(transmit) = file.leg_mut().and_then(|l| l.poll_transmit()) {
                return Output::Transmit(transmit);
            }
        }
        let files = self.transfers_deadline();
        let signalling =
            [self.link.poll_timeout(), self.invites.poll_timeout(), self.signalling_deadline(), self.calls_deadline()];
        let sessions = self.sessions.poll_timeout().map(|(at, _)| at);
        let telephone = self.telephone.as_mut().and_then(|telephone| telephone.poll_timeout());
        let legs = self.calls.values_mut().filter_map(|c| c.media.leg.as_mut()).filter_map(|l| l.poll_timeout());
        let legs = legs.map(|(at, _)| at).chain(telephone);
        let earliest = legs.chain(sessions).chain(signalling.into_iter().flatten()).chain(files).min();
        Output::Timeout(earliest)
    }

    /// Figures of a call; `None` before there is media.
    #[must_use]
    pub fn stats(&self, now: Instant, id: CallId) -> Option<CallStats> {
        let (leg, audio) = match self.calls.get(&id) {
            Some(call) => (call.media.leg.as_deref()?, call.media.audio.as_deref()?),
            None => self.telephone.as_ref()?.sound(id)?,
        };
        let (leg, audio) = (leg.stats(now), audio.stats(now));
        let rtt = leg.rtcp.rtt.or(leg.rtt);
        let loss_in = f64::from(leg.rtcp.loss_in_fraction.unwrap_or_default());
        let concealed = audio.concealed_ms as f64 / (audio.played_ms.max(1)) as f64;
        let heard = quality(QualityInput {
            codec: audio.receive_codec.unwrap_or(audio.send_codec),
            // FEC repairs part of what the network lost; packets that came too late count as lost.
            loss: concealed,
            burst_ratio: 1.0,
            buffer: Duration::from_secs_f64(audio.buffer_ms.max(0.0) / 1000.0),
            rtt: rtt.unwrap_or_default(),
        });
        Some(CallStats {
            pair: leg.kinds.zip(leg.path).map(|((local, remote), path)| (local, remote, path)),
            rtt,
            loss_in,
            loss_out: f64::from(leg.rtcp.loss_out_fraction.unwrap_or_default()),
            jitter_ms: f64::from(leg.rtcp.jitter_in_ms.unwrap_or_default()),
            buffer_ms: audio.buffer_ms,
            mos: heard.mos,
            bitrate_in_bps: audio.bitrate_in_bps,
            bitrate_out_bps: audio.bitrate_out_bps,
            packets_in: leg.rtcp.packets_in,
            packets_out: leg.rtcp.packets_out,
            lost_in: u64::try_from(leg.rtcp.packets_lost_in).unwrap_or(0),
            concealed_ms: audio.concealed_ms,
            dropped_datagrams: leg.dropped_datagrams,
            codec: audio.send_codec,
        })
    }

    /// Calls that are not over.
    pub fn calls(&self) -> impl Iterator<Item = CallId> + '_ {
        self.calls.keys().copied().chain(self.telephone.iter().flat_map(|telephone| telephone.calls()))
    }

    /// The peer of a call; a JID is full once its device is known.
    #[must_use]
    pub fn peer(&self, id: CallId) -> Option<Address> {
        let jid = self.calls.get(&id).map(|c| Address::from(&c.peer));
        jid.or_else(|| self.telephone.as_ref()?.peer(id))
    }

    /// Hangs up everything and signs out.
    pub fn shut_down(&mut self, now: Instant) {
        let ids: Vec<CallId> = self.calls().collect();
        for id in ids {
            // A call that has just ended by itself is no fault.
            let _ = self.hang_up(now, id);
        }
        self.close_telephone(now);
        let ids: Vec<TransferId> = self.transfers.keys().copied().collect();
        for id in ids {
            // A transfer that has just ended by itself is no fault.
            let _ = self.cancel_transfer(now, id);
        }
        self.link.close(now);
        self.pump(now);
    }

    /// Carries news between the parts until there are none.
    fn pump(&mut self, now: Instant) {
        loop {
            let mut moved = self.pump_link(now) | self.pump_telephone(now);
            while let Some(transmit) = self.sessions.poll_transmit() {
                self.send_session(now, transmit);
                moved = true;
            }
            while let Some(transmit) = self.invites.poll_transmit() {
                self.send_invite(now, transmit);
                moved = true;
            }
            while let Some((session, event)) = self.sessions.poll_event() {
                self.handle_session_event(now, session, event);
                moved = true;
            }
            while let Some(event) = self.invites.poll_event() {
                self.handle_invite_event(now, event);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn emit(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn next_call_id(&mut self) -> CallId {
        self.last_call += 1;
        CallId(self.last_call)
    }

    fn next_seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }

    fn next_number(&mut self) -> u64 {
        self.rng.next_u64()
    }

    fn wall(&self, now: Instant) -> SystemTime {
        self.clock.1 + now.saturating_duration_since(self.clock.0)
    }

    /// Asks the shell for a name, once until it is answered.
    fn resolve(&mut self, name: String) {
        if self.asked.insert(name.clone()) {
            self.outputs.push_back(Output::Resolve(name));
        }
    }

    fn handle_resolved(&mut self, now: Instant, name: &str, addrs: Vec<IpAddr>) {
        self.asked.remove(name);
        if name.ends_with(".local") {
            for call in self.calls.values_mut() {
                if let Some(leg) = &mut call.media.leg {
                    leg.resolved(now, name, &addrs);
                }
            }
            let mut files = Vec::new();
            for file in self.transfers.values_mut().flat_map(|t| &mut t.files) {
                if let Some(leg) = file.leg_mut() {
                    leg.resolved(now, name, &addrs);
                    files.push(file.id);
                }
            }
            for id in files {
                self.drain_file_leg(now, id);
            }
            let ids: Vec<CallId> = self.calls.keys().copied().collect();
            for id in ids {
                self.drain_leg(now, id);
            }
        } else {
            self.names.insert(name.to_owned(), addrs);
            self.find_devices(now);
        }
    }

    /// A leg tells what happened: one of a Jingle session or of a SIP session.
    fn drain_leg(&mut self, now: Instant, id: CallId) {
        if self.calls.contains_key(&id) { self.drain_jingle_leg(now, id) } else { self.drain_line(now, id) }
    }

    /// STUN and TURN servers whose addresses are known: the configured ones, then those of XEP-0215.
    fn ice_servers(&self) -> Vec<IceServer> {
        let mut servers = Vec::new();
        for named in self.config.media.servers.iter().chain(&self.people.services) {
            let literal = named.host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
            let known = literal.or_else(|| self.names.get(&named.host).and_then(|a| a.first()).copied());
            if let Some(ip) = known {
                servers.push(IceServer { addr: SocketAddr::new(ip, named.port), ..named.server.clone() });
            }
        }
        servers
    }
}

/// The media half of a call of either kind.
struct Ends<'a> {
    leg: Option<&'a mut crate::transport::leg::Leg>,
    audio: Option<&'a mut crate::media::audio::AudioPath>,
    /// What comes may be heard.
    hears: bool,
    /// The microphone may be sent: threat "answered before accept".
    talks: bool,
}

fn ends<'a>(
    calls: &'a mut BTreeMap<CallId, Call>,
    telephone: &'a mut Option<Box<Telephone>>,
    id: CallId,
) -> Option<Ends<'a>> {
    if let Some(call) = calls.get_mut(&id) {
        let talks = call.may_talk();
        let (leg, audio) = (call.media.leg.as_deref_mut(), call.media.audio.as_deref_mut());
        return Some(Ends { leg, audio, hears: talks, talks });
    }
    telephone.as_mut()?.ends(id)
}

//! One leg: a path found by ICE (or a plain one), protection by DTLS-SRTP (or SDES, or none), then RTP and RTCP.
//! Read RFC 8445, RFC 5763 §5, RFC 7983 §7 and XEP-0320 §3 before touching this file.

mod data;
mod plain;
mod signalled;

use crate::transport::data_channel::DataChannels;
use crate::transport::dtls::{Dtls, DtlsFault, DtlsProgress, DtlsRole};
use crate::transport::gather::{GatherEvent, GatherPolicy, Gatherer, Routed};
use crate::transport::ice::{Ice, IceEvent, IceTimers};
pub use crate::transport::leg_config::{
    CandidateFault, Carrier, ChannelFault, ChannelId, DataConfig, LegConfig, LegEvent, LegFault, LegStats, LegTimer,
    LegTimers, Protection, Received, SdesKeys,
};
use crate::transport::path::{Path, Route, Transmit};
use crate::transport::plain::PlainPath;
use crate::transport::protection::Security;
use crate::transport::rtcp::{RtcpEvent, RtcpSession};
use crate::transport::seed::Seed;
use crate::wire::candidate::{Candidate, Fingerprint, IceCreds, Setup};
use crate::wire::rtp::{MediaTime, RtpHeader, SeqNo, Ssrc};
use crate::wire::xml::Text;
use plain::plain_kinds;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime};

/// Content type of a DTLS record, RFC 5246 §6.2.1: SCTP travels in these.
const APPLICATION_DATA: u8 = 23;
/// Time that a peer whose candidates all fail still has to reach us from an address that was not signalled.
const LAST_CHANCE: Duration = Duration::from_secs(10);

/// Where the leg stands.
///
/// ```text
///                set_remote             path and keys               close
///   Idle ──────────────────▶ Connecting ─────────────▶ Connected ─────────▶ Ended
///                                │ fault                   │ consent lost     ▲
///                                └─────────────────────────┴──────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Connecting { since: Instant },
    Connected,
    Ended,
}

/// How the path is found, with its state.
#[derive(Debug)]
enum Way {
    Ice { ice: Box<Ice>, gatherer: Box<Gatherer> },
    Plain(Box<PlainPath>),
}

/// One media path to one peer. Sans-IO: give it datagrams and time, then drain transmits and events until `None`.
#[derive(Debug)]
pub struct Leg {
    config: LegConfig,
    seed: Seed,
    phase: Phase,
    way: Way,
    security: Security,
    sockets: Vec<SocketAddr>,
    fingerprints: Vec<Fingerprint>,
    /// What of the peer's handshake came from where; its answers go there until a path is nominated.
    dtls_path: Option<Path>,
    /// When an unsettled role makes us the client.
    role_due: Option<Instant>,
    unresolved: Vec<(String, Candidate)>,
    no_more_remote: bool,
    /// The session is not accepted yet: the path may be made, nothing may flow on it.
    held: bool,
    /// When our credentials last changed, until the peer's followed.
    restarted: Option<Instant>,
    /// The path in use, and whether it starts at a socket of ours: all that a packet of payload has to look up.
    in_use: Option<(Path, bool)>,
    /// The next deadline but RTCP's, until something other than payload changes it.
    due: Option<Option<(Instant, LegTimer)>>,
    rtcp: RtcpSession,
    data: Option<Box<DataChannels>>,
    /// RTP clock of received payload types.
    clocks: Vec<(u8, u32)>,
    next_seq: u16,
    dropped: u64,
    scratch: Vec<u8>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<LegEvent>,
}

impl Leg {
    /// A leg that sends nothing before `handle_sockets`. `wall` is the wall-clock time at `now`, for RTCP.
    #[must_use]
    pub fn new(now: Instant, wall: SystemTime, seed: [u8; 32], config: LegConfig) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut fork = [0; 32];
        rng.fill_bytes(&mut fork);
        let ssrc = Ssrc(rng.next_u32());
        let mut rtcp = RtcpSession::new(now, wall, fork, ssrc, config.clock_rate_hz);
        if let Some(cname) = &config.cname {
            rtcp.set_cname(cname.clone());
        }
        let way = match &config.carrier {
            Carrier::Ice { servers, relay_only, lab } => {
                let timers = IceTimers {
                    pace: config.timers.pace,
                    check_rto: config.timers.check_rto,
                    check_max: config.timers.check_max,
                    checks: config.timers.checks,
                };
                let ice = Box::new(Ice::new(config.initiator, timers, &mut rng));
                rng.fill_bytes(&mut fork);
                let policy = GatherPolicy { relay_only: *relay_only, lab: *lab, ..GatherPolicy::default() };
                Way::Ice { ice, gatherer: Box::new(Gatherer::new(fork, servers.clone(), policy)) }
            }
            Carrier::Plain { .. } => Way::Plain(Box::default()),
        };
        let security = Security::new(&config.protection);
        rng.fill_bytes(&mut fork);
        let data = config.data.map(|data| Box::new(DataChannels::new(now, data)));
        Self {
            phase: Phase::Idle,
            way,
            security,
            sockets: Vec::new(),
            fingerprints: Vec::new(),
            dtls_path: None,
            role_due: None,
            unresolved: Vec::new(),
            no_more_remote: false,
            held: false,
            restarted: None,
            in_use: None,
            due: None,
            rtcp,
            data,
            clocks: Vec::new(),
            // RFC 3711 §3.3.1: below 2^15, so that an early rollover cannot be missed.
            next_seq: (rng.next_u32() >> 17) as u16,
            dropped: 0,
            scratch: Vec::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            seed: Seed::new(fork),
            config,
        }
    }

    /// Our ICE credentials, to be signalled; empty without ICE.
    #[must_use]
    pub fn local_credentials(&self) -> IceCreds {
        match &self.way {
            Way::Ice { ice, .. } => ice.local_creds(),
            Way::Plain(_) => IceCreds { ufrag: Text::default(), pwd: Text::default() },
        }
    }

    /// Our certificate's sha-256 and the `setup` to signal with it; `None` without DTLS.
    #[must_use]
    pub fn local_fingerprint(&self) -> Option<Fingerprint> {
        match &self.config.protection {
            Protection::Dtls(identity) => Some(identity.fingerprint(self.setup())),
            Protection::Sdes(_) | Protection::None => None,
        }
    }

    /// The `setup` to signal: actpass in an offer, then the role that was settled. A responder asks after `set_remote`.
    #[must_use]
    pub fn setup(&self) -> Setup {
        match self.security.dtls() {
            Some(dtls) => dtls.role().setup(),
            // RFC 5763 §5: the offer must be actpass, the answer must not be.
            None if self.config.initiator => Setup::Actpass,
            None if self.config.answer_active => Setup::Active,
            None => Setup::Passive,
        }
    }

    /// Our RTP source.
    #[must_use]
    pub fn ssrc(&self) -> Ssrc {
        self.rtcp.ssrc()
    }

    /// Our RTCP canonical name, for the other contents of the session.
    #[must_use]
    pub fn cname(&self) -> &str {
        self.rtcp.cname()
    }

    /// RTP clocks in Hz: of what we send, and of each payload type that may come (for jitter).
    pub fn set_clock_rates(&mut self, sending_hz: u32, receiving: &[(u8, u32)]) {
        self.rtcp.set_clock_rate_hz(sending_hz);
        self.clocks.clear();
        self.clocks.extend_from_slice(receiving);
    }

    /// The sockets that the shell has bound for this leg: gathering starts. May be called again after a network change.
    /// Without ICE the first one is for RTP, the second one for RTCP where that has a port of its own.
    pub fn handle_sockets(&mut self, now: Instant, bound: &[SocketAddr]) {
        for addr in bound {
            if !self.sockets.contains(addr) {
                self.sockets.push(*addr);
            }
        }
        if let Way::Ice { ice, gatherer } = &mut self.way {
            gatherer.handle_sockets(now, bound);
            ice.handle_timeout(now);
        }
        self.drive(now);
    }

    /// A datagram from the network: anything at all is safe. `local` is the bound address it came to. RTP comes back
    /// decrypted, in place; STUN, DTLS and RTCP are handled inside.
    pub fn handle_datagram<'b>(
        &mut self,
        now: Instant,
        local: SocketAddr,
        source: SocketAddr,
        datagram: &'b mut [u8],
    ) -> Option<Received<'b>> {
        let mut path = Path { local, remote: source };
        // Nearly every datagram is a packet of payload on the path in use.
        if matches!(self.in_use, Some((in_use, true)) if in_use == path) && self.is_proven() {
            match datagram.first() {
                Some(128..=191) => return self.handle_payload(now, datagram),
                Some(&APPLICATION_DATA) if self.data.is_some() => {
                    self.handle_dtls(now, path, datagram);
                    return None;
                }
                Some(_) | None => {}
            }
        }
        if matches!(self.way, Way::Plain(_)) {
            return self.handle_plain(now, path, datagram);
        }
        let mut inner: Range<usize> = 0..datagram.len();
        if let Way::Ice { gatherer, .. } = &mut self.way {
            match gatherer.handle_datagram(now, local, source, datagram) {
                Routed::Consumed => {
                    self.drive(now);
                    return None;
                }
                Routed::Relayed { local, source, payload } => {
                    path = Path { local, remote: source };
                    inner = payload;
                }
                Routed::NotOurs => {}
            }
        }
        let bytes = datagram.get_mut(inner)?;
        // RFC 7983 §7. What is left of the call when a datagram is bad is a counter.
        match bytes.first() {
            _ if self.phase == Phase::Ended => self.dropped += 1,
            Some(0..=3) => self.handle_stun(now, path, bytes),
            Some(20..=63) if self.is_known(path) => self.handle_dtls(now, path, bytes),
            Some(128..=191) if self.is_known(path) => return self.handle_payload(now, bytes),
            Some(_) | None => self.dropped += 1,
        }
        None
    }

    /// Puts one RTP packet into `out` (cleared first) and says where it goes. `None`: not connected, or the datagram
    /// stands in `poll_transmit`.
    pub fn send_rtp(
        &mut self,
        now: Instant,
        payload_type: u8,
        marker: bool,
        time: MediaTime,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Route> {
        out.clear();
        if self.phase != Phase::Connected || self.held {
            return None;
        }
        let (path, direct) = self.in_use?;
        let header = RtpHeader { marker, payload_type, seq: SeqNo(self.next_seq), time, ssrc: self.rtcp.ssrc() };
        let packet = if direct { &mut *out } else { &mut self.scratch };
        packet.clear();
        header.write(packet);
        packet.extend_from_slice(payload);
        self.security.protect_rtp(packet)?;
        self.next_seq = self.next_seq.wrapping_add(1);
        self.rtcp.sent_rtp(now, &header, payload.len());
        if direct {
            return Some(Route { local: path.local, destination: path.remote });
        }
        // The relay may want a permission or a channel first.
        self.due = None;
        let Way::Ice { gatherer, .. } = &mut self.way else { return None };
        let (local, destination) = gatherer.route(now, path.local, path.remote, &self.scratch, out)?;
        Some(Route { local, destination })
    }

    /// Time has come to `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.due = None;
        if let Way::Ice { ice, gatherer } = &mut self.way {
            gatherer.handle_timeout(now);
            if self.phase != Phase::Ended {
                ice.handle_timeout(now);
            }
        }
        if self.phase == Phase::Ended {
            return;
        }
        if let Security::Handshake(dtls) = &mut self.security
            && let Err(fault) = dtls.handle_timeout(now)
        {
            self.fail(now, LegFault::Dtls(fault));
            return;
        }
        if self.role_due.is_some_and(|due| now >= due) {
            self.role_due = None;
            self.become_role(now, DtlsRole::Client);
        }
        if self.reports() {
            self.rtcp.handle_timeout(now);
            self.drain_rtcp(now);
        }
        if let Some(data) = &mut self.data {
            data.handle_timeout(now);
        }
        self.check_deadlines(now);
        self.drive(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let own = self.transmits.pop_front();
        if own.is_some() {
            return own;
        }
        // Set-up needs the room once; thousands of idle legs do not.
        self.transmits.shrink_to_fit();
        if let Way::Ice { gatherer, .. } = &mut self.way
            && let Some(relayed) = gatherer.poll_transmit()
        {
            self.due = None;
            return Some(relayed);
        }
        self.poll_data()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.events.shrink_to_fit();
            return self.data.as_mut().and_then(|data| data.poll_event());
        }
        event
    }

    /// When `handle_timeout` is wanted, and what for.
    pub fn poll_timeout(&mut self) -> Option<(Instant, LegTimer)> {
        let due = match self.due {
            Some(known) => known,
            None => {
                let due = self.next_due();
                *self.due.insert(due)
            }
        };
        let report = if self.reports() { self.rtcp.poll_timeout() } else { None };
        match (due, report.map(|at| (at, LegTimer::Rtcp))) {
            (Some(other), Some(report)) => Some(if report.0 < other.0 { report } else { other }),
            (other, report) => other.or(report),
        }
    }

    fn next_due(&mut self) -> Option<(Instant, LegTimer)> {
        let mut due: Option<(Instant, LegTimer)> = None;
        let mut offer = |at: Option<Instant>, timer: LegTimer| {
            if let Some(at) = at
                && due.is_none_or(|(earliest, _)| at < earliest)
            {
                due = Some((at, timer));
            }
        };
        if let Way::Ice { ice, gatherer } = &mut self.way {
            offer(gatherer.poll_timeout().map(|(at, _)| at), LegTimer::Gather);
            if self.phase != Phase::Ended {
                offer(ice.poll_timeout(), LegTimer::Check);
                offer(ice.consent_expires(), LegTimer::Consent);
            }
        }
        if let Security::Handshake(dtls) = &self.security {
            offer(dtls.poll_timeout(), LegTimer::Dtls);
        }
        offer(self.role_due, LegTimer::Dtls);
        offer(self.data.as_ref().and_then(|data| data.poll_timeout()), LegTimer::Data);
        match self.phase {
            Phase::Connecting { since } if !self.held => {
                offer(Some(since + self.config.timers.connect), LegTimer::Connect)
            }
            Phase::Connecting { .. } | Phase::Idle | Phase::Connected | Phase::Ended => {}
        }
        due
    }

    /// Ends the leg: RTCP BYE, DTLS close_notify, relays given back. Drain `poll_transmit` once more.
    pub fn close(&mut self, now: Instant) {
        if self.reports() {
            self.rtcp.bye(now);
            self.drain_rtcp(now);
        }
        self.end(now);
    }

    /// Figures at `now`.
    #[must_use]
    pub fn stats(&self, now: Instant) -> LegStats {
        let path = self.path();
        let (kinds, rtt) = match &self.way {
            Way::Ice { ice, .. } => (path.map(|path| ice.kinds(path)), ice.rtt()),
            Way::Plain(plain) => (path.map(|path| plain_kinds(plain, path)), None),
        };
        LegStats { rtcp: self.rtcp.stats(now), kinds, path, rtt, dropped_datagrams: self.dropped }
    }

    fn path(&self) -> Option<Path> {
        match &self.way {
            Way::Ice { ice, .. } => ice.path(),
            Way::Plain(plain) => Some(Path { local: *self.sockets.first()?, remote: plain.rtp.target()? }),
        }
    }

    fn valid_path(&self) -> Option<Path> {
        match &self.way {
            Way::Ice { ice, .. } => ice.valid_path(),
            Way::Plain(_) => self.path(),
        }
    }

    /// The gate: payload and handshakes count only from where the peer has proved to be.
    fn is_known(&self, path: Path) -> bool {
        match &self.way {
            Way::Ice { ice, .. } => ice.is_proven(path),
            Way::Plain(plain) => plain.rtp.signalled() == Some(path.remote),
        }
    }

    /// RTCP goes with payload, and is payload before the session is accepted.
    fn reports(&self) -> bool {
        self.phase == Phase::Connected && !self.held && self.carries_rtp()
    }

    fn handle_stun(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        let authentic = match &mut self.way {
            Way::Ice { ice, .. } => ice.handle_stun(now, path, bytes),
            Way::Plain(_) => false,
        };
        if authentic {
            self.drive(now);
        } else {
            self.dropped += 1;
        }
    }

    fn handle_dtls(&mut self, now: Instant, path: Path, bytes: &[u8]) {
        // RFC 5763 §5: an offerer must be ready for a hello before it has the answer. Who sends one is the client.
        let is_hello = bytes.first() == Some(&22) && bytes.get(13) == Some(&1);
        if matches!(self.security, Security::Unsettled) && is_hello {
            self.become_role(now, DtlsRole::Server);
        }
        let Some(dtls) = self.security.dtls_mut() else {
            self.dropped += 1;
            return;
        };
        let data = &mut self.data;
        let progress = dtls.handle_input(now, bytes, |packet| {
            // What no data channel asked for is nobody's.
            if let Some(data) = data {
                data.handle_packet(now, packet);
            }
        });
        self.dtls_path = Some(path);
        match progress {
            // A packet of data moves nothing but data.
            DtlsProgress::None if self.data.is_some() && matches!(self.security, Security::Secured { .. }) => {
                self.due = None;
                self.drain_dtls(now);
                return;
            }
            DtlsProgress::None | DtlsProgress::Complete => {}
            DtlsProgress::Closed => {
                if let Some(data) = &mut self.data {
                    data.lose();
                }
                self.events.push_back(LegEvent::Closed);
            }
        }
        self.drive(now);
    }

    /// RFC 5761 §4: RTCP packet types look like payload types 64 to 95 with the marker.
    fn handle_payload<'b>(&mut self, now: Instant, bytes: &'b mut [u8]) -> Option<Received<'b>> {
        match bytes.get(1) {
            _ if self.held => self.dropped += 1,
            Some(192..=223) => self.handle_rtcp(now, bytes),
            Some(_) => return self.handle_rtp(now, bytes),
            None => self.dropped += 1,
        }
        None
    }

    fn handle_rtcp(&mut self, now: Instant, bytes: &mut [u8]) {
        match self.security.unprotect_rtcp(bytes).and_then(|length| bytes.get(..length)) {
            Some(compound) if self.rtcp.handle_input(now, compound).is_ok() => self.drain_rtcp(now),
            Some(_) | None => self.dropped += 1,
        }
    }

    fn handle_rtp<'b>(&mut self, now: Instant, bytes: &'b mut [u8]) -> Option<Received<'b>> {
        let Some((header, payload)) = self.security.unprotect_rtp(bytes) else {
            self.dropped += 1;
            return None;
        };
        self.count_rtp(now, &header, payload.len());
        Some(Received { header, payload: bytes.get(payload)? })
    }

    fn count_rtp(&mut self, now: Instant, header: &RtpHeader, payload_bytes: usize) {
        let clock = self.clocks.iter().find(|(pt, _)| *pt == header.payload_type).map_or(0, |(_, hz)| *hz);
        self.rtcp.received_rtp(now, header, payload_bytes, clock);
    }

    fn check_deadlines(&mut self, now: Instant) {
        if let Way::Ice { ice, gatherer: _ } = &self.way
            && ice.consent_expires().is_some_and(|at| now >= at)
        {
            // RFC 7675 §5.1: no more payload from here on.
            self.fail(now, LegFault::ConsentLost);
            return;
        }
        if let Phase::Connecting { since } = self.phase
            && !self.held
        {
            let waited = now.saturating_duration_since(since);
            let path = self.path().is_some();
            let exhausted = match &self.way {
                Way::Ice { ice, .. } => self.no_more_remote && waited >= LAST_CHANCE && ice.is_exhausted(),
                Way::Plain(_) => false,
            };
            if !path && (exhausted || waited >= self.config.timers.connect) {
                self.fail(now, LegFault::NoPath);
            } else if waited >= self.config.timers.connect {
                self.fail(now, LegFault::Timeout);
            }
        }
    }

    /// Carries what one part has for another until nothing is left.
    fn drive(&mut self, now: Instant) {
        self.due = None;
        if self.phase == Phase::Ended {
            return;
        }
        self.drain_gatherer();
        self.drain_ice(now);
        if self.valid_path().is_some()
            && let Security::Handshake(dtls) = &mut self.security
        {
            // A client speaks once a path works; `start` does nothing the second time.
            dtls.start(now);
        }
        self.in_use = self.path().map(|path| (path, self.sockets.contains(&path.local)));
        self.drain_dtls(now);
        self.finish_handshake(now);
        self.report_connected();
    }

    fn drain_gatherer(&mut self) {
        let Way::Ice { ice, gatherer } = &mut self.way else { return };
        let relay_only = matches!(self.config.carrier, Carrier::Ice { relay_only: true, .. });
        while let Some(event) = gatherer.poll_event() {
            match &event {
                GatherEvent::Host { .. } | GatherEvent::ServerReflexive { .. } | GatherEvent::Relayed { .. } => {
                    if let Some(candidate) = ice.add_local(&event, relay_only, &mut self.seed.generator()) {
                        self.events.push_back(LegEvent::LocalCandidate(candidate));
                    }
                }
                GatherEvent::Complete => self.events.push_back(LegEvent::GatheringComplete),
                GatherEvent::ServerFailed { server, why } => {
                    self.events.push_back(LegEvent::ServerFailed { server: *server, why: why.clone() });
                }
                GatherEvent::RelayLost { addr, .. } => {
                    ice.remove_relay(*addr);
                    if ice.path().is_some_and(|path| path.local == *addr) {
                        self.events.push_back(LegEvent::PathLost);
                    }
                }
            }
        }
    }

    fn drain_ice(&mut self, now: Instant) {
        let Way::Ice { ice, gatherer } = &mut self.way else { return };
        let mut nominated = false;
        while let Some(event) = ice.poll_event(now) {
            match event {
                IceEvent::Nominated(path) if self.phase == Phase::Connected => {
                    let (local, remote) = ice.kinds(path);
                    self.events.push_back(LegEvent::PathChanged { local, remote, path });
                }
                IceEvent::Nominated(path) => {
                    nominated = true;
                    self.events.push_back(LegEvent::IceConnected { path });
                }
                IceEvent::Disconnected if ice.path().is_some() => self.events.push_back(LegEvent::PathLost),
                IceEvent::Reconnected if self.phase == Phase::Connected => {
                    self.events.push_back(LegEvent::PathRestored);
                }
                IceEvent::Disconnected | IceEvent::Reconnected => {}
            }
        }
        while let Some(transmit) = ice.poll_transmit() {
            if self.sockets.contains(&transmit.local) {
                self.transmits.push_back(transmit);
            } else if let Some((local, destination)) =
                gatherer.route(now, transmit.local, transmit.destination, &transmit.contents, &mut self.scratch)
            {
                self.transmits.push_back(Transmit { local, destination, contents: self.scratch.clone() });
            }
        }
        if nominated && !self.fingerprints.is_empty() {
            self.settle_role(now);
        }
    }

    fn drain_dtls(&mut self, now: Instant) {
        // Before nomination answers go back where the hello came from: waiting for the nomination would let the
        // client's retransmissions run out (4 % of set-ups at 20 % loss).
        let Some(path) = self.path().or(self.dtls_path).or_else(|| self.valid_path()) else { return };
        while let Some(datagram) = self.security.dtls_mut().and_then(Dtls::poll_transmit) {
            self.send_on(now, path, &datagram);
        }
    }

    /// Queues a datagram on a path, through its relay if it has one.
    fn send_on(&mut self, now: Instant, path: Path, contents: &[u8]) {
        if self.sockets.contains(&path.local) {
            let transmit = Transmit { local: path.local, destination: path.remote, contents: contents.to_vec() };
            self.transmits.push_back(transmit);
        } else if let Way::Ice { gatherer, .. } = &mut self.way
            && let Some((local, destination)) =
                gatherer.route(now, path.local, path.remote, contents, &mut self.scratch)
        {
            self.transmits.push_back(Transmit { local, destination, contents: self.scratch.clone() });
        }
    }

    /// XEP-0320 §3, RFC 5763 §5: the certificate is compared before any key is used.
    fn finish_handshake(&mut self, now: Instant) {
        match self.security.finish(&self.fingerprints, self.carries_rtp()) {
            Some(Ok(fingerprint)) => self.fingerprints = vec![fingerprint],
            Some(Err(DtlsFault::FingerprintMismatch)) => self.fail(now, LegFault::FingerprintMismatch),
            Some(Err(fault)) => self.fail(now, LegFault::Dtls(fault)),
            None => {}
        }
        let client = self.security.dtls().filter(|_| !self.held).map(|dtls| dtls.role() == DtlsRole::Client);
        if let (Some(data), Security::Secured { .. }, Some(client)) = (&mut self.data, &self.security, client) {
            data.start(now, client);
        }
    }

    fn report_connected(&mut self) {
        let Phase::Connecting { .. } = self.phase else { return };
        let Some(path) = self.path() else { return };
        let Some(profile) = self.security.ready() else { return };
        let (local, remote) = match &self.way {
            Way::Ice { ice, .. } => ice.kinds(path),
            Way::Plain(plain) => plain_kinds(plain, path),
        };
        self.phase = Phase::Connected;
        let fingerprint = self.fingerprints.first().filter(|_| self.security.dtls().is_some()).cloned();
        self.events.push_back(LegEvent::Connected { local, remote, path, profile, fingerprint });
    }

    fn drain_rtcp(&mut self, now: Instant) {
        while let Some(event) = self.rtcp.poll_event() {
            match event {
                RtcpEvent::Bye(ssrc) => self.events.push_back(LegEvent::Bye(ssrc)),
                RtcpEvent::Collision(_) => {
                    // RFC 3550 §8.2; sequence numbers go on, so that no key stream repeats under a known SSRC.
                    let ssrc = Ssrc(self.seed.generator().next_u32());
                    self.rtcp.change_ssrc(now, ssrc);
                }
                RtcpEvent::Report | RtcpEvent::PictureLoss(_) => {}
            }
        }
        while let Some(mut compound) = self.rtcp.poll_transmit() {
            let protected = self.security.protect_rtcp(&mut compound);
            if let (Some(()), Some(path)) = (protected, self.rtcp_path()) {
                self.send_on(now, path, &compound);
            }
        }
    }

    fn fail(&mut self, now: Instant, fault: LegFault) {
        self.end(now);
        self.events.push_back(LegEvent::Failed(fault));
    }

    /// Says what is left to say and forgets the keys.
    fn end(&mut self, now: Instant) {
        if self.phase == Phase::Ended {
            return;
        }
        self.end_data();
        if let Some(dtls) = self.security.dtls_mut() {
            dtls.close(now);
        }
        self.drain_dtls(now);
        self.security = Security::Unsettled;
        self.role_due = None;
        if let Way::Ice { gatherer, .. } = &mut self.way {
            gatherer.close(now);
        }
        self.phase = Phase::Ended;
        self.in_use = None;
        self.due = None;
    }
}

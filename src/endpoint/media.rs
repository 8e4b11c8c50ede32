//! The media of a call: its leg and its sound, from the sockets to the first frame. Read XEP-0176 §5, XEP-0320 §2 and
//! RFC 8838 §4 before touching this file.

use super::call::{EARLY_PATHS, EARLY_PATIENCE, Media, Offer, Stage};
use super::event::{CallId, Connected, EndKind, Event, LegId, Output, SocketPlan};
use super::{AddressPolicy, Endpoint, ends, offer};
use crate::fault::ReasonCondition;
use crate::jingle::content::ContentKey;
use crate::media::audio::{AudioEvent, AudioPath};
use crate::media::codec;
use crate::transport::gather::IceServerKind;
use crate::transport::leg::{Carrier, DataConfig, Leg, LegConfig, LegEvent, LegFault, Protection};
use crate::transport::srtp::SrtpProfile;
use crate::wire::candidate::{Fingerprint, IceTransport};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the signalling has to tell the end of a call after its media was closed: a slow federation's round trip.
const FAREWELL: Duration = Duration::from_secs(1);

impl Endpoint {
    pub(super) fn drain_audio(&mut self, _now: Instant, id: CallId) {
        while let Some(event) = ends(&mut self.calls, &mut self.telephone, id).and_then(|m| m.audio?.poll_event()) {
            match event {
                AudioEvent::Digit(digit) => self.emit(Event::Digit { call: id, digit }),
                AudioEvent::NoMedia => self.emit(Event::MediaSilent { call: id, silent: true }),
                AudioEvent::MediaBack => self.emit(Event::MediaSilent { call: id, silent: false }),
                AudioEvent::FirstFrame => {}
            }
        }
    }

    pub(super) fn open_sockets(&mut self, id: CallId) {
        let lab = self.config.media.lab;
        let plan = SocketPlan::EveryAddress;
        self.outputs.push_back(Output::OpenSockets { leg: LegId::Call(id), lab, plan });
    }

    /// Sockets for a call are bound: now, and not before, a leg exists and something may be sent.
    pub(super) fn handle_sockets(&mut self, now: Instant, id: CallId, bound: &[SocketAddr]) {
        let Some(call) = self.calls.get_mut(&id) else {
            self.outputs.push_back(Output::CloseSockets(LegId::Call(id)));
            return;
        };
        if bound.is_empty() && matches!(call.stage, Stage::AlertingOffer(_)) {
            // Asked for again when the user takes the call.
            call.media.early = None;
            return;
        }
        if bound.is_empty() {
            self.fail_call(
                now,
                id,
                EndKind::MediaFailed,
                ReasonCondition::FailedTransport,
                "no UDP socket could be bound".into(),
            );
            return;
        }
        let initiator = matches!(call.stage, Stage::Opening);
        let mut leg = self.new_leg(now, initiator, None);
        for local in bound {
            self.routes.insert(*local, LegId::Call(id));
        }
        leg.handle_sockets(now, bound);
        if let Some(call) = self.calls.get_mut(&id) {
            call.media.leg = Some(Box::new(leg));
        }
        self.drain_leg(now, id);
        let Some(call) = self.calls.get_mut(&id) else { return };
        match std::mem::replace(&mut call.stage, Stage::Offered) {
            Stage::Opening => self.send_offer(now, id),
            Stage::Answering(offer) => self.send_answer(now, id, *offer),
            Stage::AlertingOffer(offer) => self.begin_early(now, id, offer),
            other @ (Stage::Finding(_)
            | Stage::Proposed(_)
            | Stage::Offered
            | Stage::AlertingInvite
            | Stage::Proceeding
            | Stage::Active) => call.stage = other,
        }
    }

    /// A contact's call may make its path while it rings, if the policy says so (J176-24, J176-25). Strangers learn and
    /// cause nothing.
    pub(super) fn open_early(&mut self, now: Instant, id: CallId) {
        let Some(peer) = self.calls.get(&id).map(|c| &c.peer) else { return };
        let contact = self.link.serverless() || self.people.contacts.knows_us(peer);
        let early = self.calls.values().filter(|c| c.media.early.is_some() && c.wanted.is_none()).count();
        if self.config.address_policy != AddressPolicy::Contacts || !contact || early >= EARLY_PATHS {
            return;
        }
        if let Some(call) = self.calls.get_mut(&id) {
            call.media.early = Some(now);
            self.open_sockets(id);
        }
    }

    /// The sockets of a ringing call are there: our half of the transport goes out, with the certificate (J320-03).
    fn begin_early(&mut self, now: Instant, id: CallId, offer: Box<Offer>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let theirs = offer::ice(&offer.content).cloned().unwrap_or_default();
        let transports = call.media.transports.clone();
        call.media.content = Some(ContentKey::of(&offer.content));
        call.stage = Stage::AlertingOffer(offer);
        for transport in std::iter::once(theirs).chain(transports) {
            self.apply_remote(now, id, &transport);
        }
        self.drain_leg(now, id);
        self.send_candidates(now, id);
    }

    /// The user took a session: its path is the one begun while it rang, if that is of any use, or a new one.
    pub(super) fn take_path(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let fresh = call.media.early.is_some_and(|since| now < since + EARLY_PATIENCE);
        let useful = call.media.leg.as_ref().map(|leg| fresh || leg.is_connected());
        match (useful, &call.stage) {
            (Some(true), Stage::Answering(_)) => {
                if let Stage::Answering(offer) = std::mem::replace(&mut call.stage, Stage::Offered) {
                    self.send_answer(now, id, *offer);
                }
            }
            (Some(_), _) => {
                self.drop_early(now, id);
                self.open_sockets(id);
            }
            // The sockets are on their way.
            (None, _) if call.media.early.is_some() => {}
            (None, _) => self.open_sockets(id),
        }
    }

    /// Gives up the path of a call that rings; when the user takes the call there will be another.
    fn drop_early(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let leg = call.media.leg.take();
        let transports = std::mem::take(&mut call.media.transports);
        call.media = Media { transports, ..Media::default() };
        self.close_path(now, id, leg, true);
    }

    /// Ends a leg, if there is one, and gives its sockets back, if they were asked for.
    pub(super) fn close_path(&mut self, now: Instant, id: CallId, leg: Option<Box<Leg>>, asked: bool) {
        let sockets = asked || leg.is_some();
        if let Some(mut leg) = leg {
            leg.close(now);
            while let Some(transmit) = leg.poll_transmit() {
                self.outputs.push_back(Output::Transmit(transmit));
            }
        }
        if sockets {
            self.outputs.push_back(Output::CloseSockets(LegId::Call(id)));
        }
        self.routes.retain(|_, owner| *owner != LegId::Call(id));
    }

    pub(super) fn relay_only(&self) -> bool {
        self.config.media.relay_only || self.config.address_policy == AddressPolicy::RelayOnly
    }

    /// True while it may still turn out which STUN and TURN servers there are.
    pub(super) fn servers_pending(&self) -> bool {
        self.people.services_pending || !self.asked.is_empty()
    }

    /// Why a call cannot have a path, as soon as that is certain: it may use relays only, and there is none.
    pub(super) fn lacks_relay(&self) -> Option<String> {
        let servers = self.config.media.servers.iter().chain(&self.people.services);
        let relay = self.people.services_pending || servers.into_iter().any(|s| s.server.kind == IceServerKind::Turn);
        (self.relay_only() && !relay)
            .then(|| "only relays may be used, and neither the server nor the configuration names one".to_owned())
    }

    /// Nothing more will be gathered. Without any address of ours no path can ever be found.
    fn check_gathered(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get(&id) else { return };
        if !self.relay_only() || !call.media.candidates.is_empty() {
            return;
        }
        if matches!(call.stage, Stage::AlertingOffer(_)) {
            return self.drop_early(now, id);
        }
        let text = self.lacks_relay().unwrap_or_else(|| match &call.media.server_fault {
            Some(why) => format!("only relays may be used, and none gives us an address: {why}"),
            None => "only relays may be used, and none can be reached".to_owned(),
        });
        self.fail_call(now, id, EndKind::MediaFailed, ReasonCondition::ConnectivityError, text);
    }

    pub(super) fn new_leg(&mut self, now: Instant, initiator: bool, data: Option<DataConfig>) -> Leg {
        let mut config = LegConfig::new(initiator, Arc::clone(&self.identity));
        let relay_only = self.relay_only();
        config.carrier = Carrier::Ice { servers: self.ice_servers(), relay_only, lab: self.config.media.lab };
        config.max_remote_candidates = self.config.context.limits.remote_candidates;
        config.cname = Some(self.cname.clone());
        config.data = data;
        debug_assert!(matches!(config.protection, Protection::Dtls(_)));
        let wall = self.wall(now);
        let seed = self.next_seed();
        let mut leg = Leg::new(now, wall, seed, config);
        // Until both sides accepted: an answerer may send its transport before its answer.
        leg.hold();
        leg
    }

    fn send_offer(&mut self, now: Instant, id: CallId) {
        let payload_types = codec::offer(&self.config.media.codecs);
        let cname = self.cname.clone();
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(leg) = &call.media.leg else { return };
        let candidates = std::mem::take(&mut call.media.unsent);
        let (content, groups) = offer::offered(payload_types.clone(), leg, &cname, candidates);
        call.media.content = Some(ContentKey::of(&content));
        call.media.offered = payload_types;
        let (peer, sid) = (call.peer.clone(), call.sid.clone());
        match self.sessions.initiate(now, peer, Some(sid), vec![content], groups) {
            Ok(session) => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.session = Some(session);
                    self.by_session.insert(session, id);
                }
                self.send_candidates(now, id);
            }
            Err(why) => {
                self.fail_call(now, id, EndKind::Limit, ReasonCondition::GeneralError, why.to_string());
            }
        }
    }

    fn send_answer(&mut self, now: Instant, id: CallId, offer: Offer) {
        let preference = self.config.media.codecs.clone();
        let cname = self.cname.clone();
        let Some(negotiated) = offer::rtp(&offer.content).and_then(|d| codec::answer(&d.payload_types, &preference))
        else {
            // J167-12
            let text = "no codec in common".to_owned();
            self.fail_call(now, id, EndKind::Unavailable, ReasonCondition::FailedApplication, text);
            return;
        };
        let seed = self.next_number();
        let audio = match AudioPath::new(seed, negotiated.clone(), self.config.media.audio) {
            Ok(audio) => audio,
            Err(why) => {
                return self.fail_call(now, id, EndKind::Failed, ReasonCondition::MediaError, why.to_string());
            }
        };
        let theirs = offer::ice(&offer.content).cloned().unwrap_or_default();
        let Some(call) = self.calls.get_mut(&id) else { return };
        // A path that was begun while the call rang knows the peer's half already.
        let begun = call.media.content.is_some();
        let transports = std::mem::take(&mut call.media.transports);
        for transport in std::iter::once(theirs).chain(transports).filter(|_| !begun) {
            self.apply_remote(now, id, &transport);
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(leg) = &call.media.leg else { return };
        let unsent = std::mem::take(&mut call.media.unsent);
        // Who did not look at our transport while it rang finds all of it in the answer.
        let candidates = if begun { call.media.candidates.clone() } else { unsent };
        let (content, groups) = offer::answered(&offer.content, &offer.groups, &negotiated, leg, &cname, candidates);
        call.media.content = Some(ContentKey::of(&content));
        call.media.settle(now, negotiated, audio);
        call.stage = Stage::Active;
        let Some(session) = call.session else { return };
        match self.sessions.act(session, |s| s.accept(now, vec![content], groups)).and_then(|r| r) {
            Ok(()) => {
                self.emit(Event::Accepted(id));
                self.send_candidates(now, id);
                self.report_ready(now, id);
            }
            Err(why) => self.fail_call(now, id, EndKind::Failed, ReasonCondition::GeneralError, why.to_string()),
        }
    }

    /// Signals what was gathered since the last time.
    pub(super) fn send_candidates(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(session), Some(content), Some(leg)) = (call.session, &call.media.content, &call.media.leg) else {
            return;
        };
        if call.media.unsent.is_empty() && !call.media.gathered {
            return;
        }
        let mut news =
            offer::trickle(leg, std::mem::take(&mut call.media.unsent), std::mem::take(&mut call.media.gathered));
        if call.wanted.is_none() {
            // J320-03: with the certificate the peer can shake hands while it rings here.
            news.fingerprints = leg.local_fingerprint().into_iter().collect();
        }
        let content = content.clone();
        // A session that has just ended needs no candidates.
        let _ = self.sessions.act(session, |s| s.send_transport_info(now, &content, news));
    }

    /// What the peer said about its transport. A pinned certificate is compared here, before any packet.
    pub(super) fn apply_remote(&mut self, now: Instant, id: CallId, transport: &IceTransport) {
        let fingerprints = self.allowed_fingerprints(&transport.fingerprints);
        if fingerprints.is_empty() && !transport.fingerprints.is_empty() {
            let text = "the peer's certificate is not the one that --require-fingerprint names".to_owned();
            self.fail_call(now, id, EndKind::Security, ReasonCondition::SecurityError, text);
            return;
        }
        let Some(leg) = self.calls.get_mut(&id).and_then(|c| c.media.leg.as_mut()) else { return };
        offer::tell_leg(leg, now, transport, &fingerprints);
    }

    /// The signalled fingerprints that a certificate may have. With a pinned one no other counts: a server could add its own
    /// beside it.
    pub(super) fn allowed_fingerprints(&self, signalled: &[Fingerprint]) -> Vec<Fingerprint> {
        let required = self.config.media.require_fingerprint.as_ref();
        signalled.iter().filter(|f| required.is_none_or(|required| &f.value == required)).cloned().collect()
    }

    /// Everything that a leg has to say.
    pub(super) fn drain_jingle_leg(&mut self, now: Instant, id: CallId) {
        let mut news = false;
        while let Some(event) = self.calls.get_mut(&id).and_then(|c| c.media.leg.as_mut()).and_then(|l| l.poll_event())
        {
            let Some(call) = self.calls.get_mut(&id) else { return };
            match event {
                LegEvent::LocalCandidate(candidate) => {
                    call.media.candidates.push(candidate.clone());
                    call.media.unsent.push(candidate);
                    news = true;
                }
                LegEvent::GatheringComplete => {
                    call.media.gathered = true;
                    news = true;
                    self.check_gathered(now, id);
                }
                LegEvent::Resolve(name) => self.resolve(name),
                LegEvent::IceConnected { .. } => {}
                event @ LegEvent::Connected { .. } => {
                    call.media.ready = Some(Box::new(event));
                    self.report_ready(now, id);
                }
                LegEvent::PathChanged { local, remote, path } => {
                    self.emit(Event::PathChanged { call: id, kinds: (local, remote), path });
                }
                LegEvent::ServerFailed { why, .. } => {
                    tracing::info!(call = id.0, %why, "a STUN or TURN server is of no use");
                    call.media.server_fault = Some(why.to_string());
                }
                LegEvent::PathLost => tracing::info!(call = id.0, "the media path is silent"),
                LegEvent::PathRestored => tracing::info!(call = id.0, "the media path is back"),
                LegEvent::Restarted(_) => {
                    // J176-19: new credentials with all candidates; `trickle` reads the new ones from the leg.
                    call.media.unsent.clone_from(&call.media.candidates);
                    news = true;
                }
                LegEvent::Bye(_) => {}
                // A leg of a call has no data channels.
                LegEvent::ChannelOpen { .. }
                | LegEvent::ChannelReadable(_)
                | LegEvent::ChannelWritable(_)
                | LegEvent::ChannelDelivered(_)
                | LegEvent::ChannelClosed { .. } => {}
                LegEvent::Closed | LegEvent::Failed(_) if matches!(call.stage, Stage::AlertingOffer(_)) => {
                    // Nobody was promised this path. A wrong certificate is seen again on the next one.
                    return self.drop_early(now, id);
                }
                LegEvent::Closed => {
                    // The signalling says so too, unless it is gone (threat: server killed in a call).
                    // Whether it is gone on the other side cannot be seen from here.
                    call.over_by = Some(now + FAREWELL);
                    if !self.online() {
                        return self.close_silently(now, id);
                    }
                }
                LegEvent::Failed(fault) => {
                    let (kind, reason) = match fault {
                        LegFault::FingerprintMismatch | LegFault::Keys => {
                            (EndKind::Security, ReasonCondition::SecurityError)
                        }
                        LegFault::Dtls(_) => (EndKind::MediaFailed, ReasonCondition::SecurityError),
                        LegFault::NoPath | LegFault::ConsentLost | LegFault::Timeout => {
                            (EndKind::MediaFailed, ReasonCondition::ConnectivityError)
                        }
                    };
                    return self.fail_call(now, id, kind, reason, fault.to_string());
                }
            }
        }
        if news {
            self.send_candidates(now, id);
        }
    }

    /// Tells of a path that works, once the call it belongs to is accepted by both.
    pub(super) fn report_ready(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let Some(codec) = call.media.negotiated.as_ref().map(|n| n.send) else { return };
        let Some(LegEvent::Connected { local, remote, path, profile, fingerprint }) =
            call.media.ready.take().map(|event| *event)
        else {
            return;
        };
        call.connected = Some(now);
        let setup = call.wanted.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
        let profile = profile.map(SrtpProfile::sdes_name);
        let dtls_fingerprint = fingerprint.as_ref().map(offer::fingerprint_text);
        let facts = Box::new(Connected { setup, kinds: (local, remote), path, codec, dtls_fingerprint, profile });
        self.emit(Event::Connected { call: id, facts });
    }

    /// What RTCP says: the peer's loss steers the encoder's FEC, and packets show that the peer is there (J166-18).
    pub(super) fn follow_reports(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (Some(leg), Some(audio)) = (&call.media.leg, &mut call.media.audio) else { return };
        let rtcp = leg.stats(now).rtcp;
        if let Some(lost) = rtcp.loss_out_fraction {
            audio.set_reported_loss(f64::from(lost));
        }
        if rtcp.packets_in != call.media.packets_seen {
            call.media.packets_seen = rtcp.packets_in;
            if let Some(session) = call.session {
                // An ended session needs no sign of life.
                let _ = self.sessions.act(session, |s| s.traffic(now));
            }
        }
    }
}

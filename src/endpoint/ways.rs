//! How the bytes of a file find their way: SOCKS5 bytestream, data channel or in-band, prepared, negotiated and replaced
//! by the next one. Read XEP-0260 §2 and §3, XEP-0261 §2 and XEP-0343 §4 before touching this file.

use super::call::EARLY_TRANSPORTS;
use super::event::{EndKind, LegId, Output, SocketPlan};
use super::file_event::{FileEvent, FileId, FileOutput, TransferId, Way};
use super::transfer::{Attempt, Carriage, ChannelWay, File, FileStage, Pump, Purpose, Stage};
use super::{Endpoint, offer};
use crate::fault::ReasonCondition;
use crate::jingle::session::Role;
use crate::transport::dial::DialPolicy;
use crate::transport::ibb::{BLOCK_SIZE, IbbConfig, IbbStream};
use crate::transport::leg::{DataConfig, LegEvent};
use crate::transport::s5b::{S5b, S5bConfig, S5bEvent, StreamId};
use crate::transport::socks5::dst_addr;
use crate::wire::bytestream::Bytestreams;
use crate::wire::candidate::{IbbTransport, IceTransport, S5bKind, S5bTransport, SctpMap, Transport};
use crate::wire::jingle::Reason;
use crate::wire::stanza::{IqKind, IqPayload};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A way that does not stand after so long has failed, if it is the last one.
const CONNECT: Duration = Duration::from_secs(20);
/// The same where another way may do; a relayed data channel on a long path takes 2 to 3 s.
const CONNECT_OR_FALL: Duration = Duration::from_secs(8);
/// And where nothing at all comes back, not one check of the peer's nor one answer to ours: by then each pair has been tried
/// six times, the last one with a second and a half for its answer.
const SILENCE: Duration = Duration::from_secs(4);
/// The peer's next word, when one side has seen a way fail and the other chooses the next.
const PATIENCE: Duration = Duration::from_secs(45);
/// The peer's answer to the next file is waited for so long before this one begins.
const NEXT_FILE: Duration = Duration::from_secs(2);
/// Candidates of a new transport are waited for so long, to be in its first stanza; later ones follow it.
const GATHER: Duration = Duration::from_secs(1);
/// XEP-0343 §4.1
const WEBRTC: &str = "webrtc-datachannel";
/// RFC 8841 §5
const SCTP_PORT: u16 = 5000;
/// Channels of one association, as Chromium says it.
const SCTP_STREAMS: u16 = 1024;

// Preparing.
impl Endpoint {
    /// Begins to prepare the way that is next for this file, or the one that the peer asks for.
    pub(super) fn prepare(&mut self, now: Instant, id: FileId, purpose: Purpose) {
        let relay_only = self.relay_only();
        let Some(file) = self.file_mut(id) else { return };
        file.stage = FileStage::Preparing(purpose);
        file.pump = Pump::default();
        file.rounds += 1;
        let attempt = if purpose.answers() {
            match &file.theirs {
                Some(Transport::S5b(theirs)) => {
                    // Where a data channel may come next, proxies are offered only to those who offer theirs.
                    let proxies = theirs.candidates.iter().any(|c| c.kind == S5bKind::Proxy);
                    let direct =
                        theirs.candidates.is_empty() || theirs.candidates.iter().any(|c| c.kind != S5bKind::Proxy);
                    match (proxies, direct) {
                        (true, false) => Some(Attempt::S5bProxy),
                        (false, _) => Some(Attempt::S5bDirect),
                        (true, true) => Some(Attempt::S5b),
                    }
                }
                Some(Transport::Ice(_)) => Some(Attempt::DataChannel),
                Some(Transport::Ibb(_)) => Some(Attempt::Ibb),
                Some(Transport::RawUdp(_) | Transport::Unknown { .. }) | None => None,
            }
        } else if file.attempts.is_empty() {
            None
        } else {
            Some(file.attempts.remove(0))
        };
        match attempt {
            Some(attempt @ (Attempt::S5b | Attempt::S5bDirect | Attempt::S5bProxy)) => {
                self.prepare_s5b(now, id, attempt, relay_only);
            }
            Some(Attempt::DataChannel) => {
                if let Some(file) = self.file_mut(id) {
                    file.way = Some(Carriage::Channel(Box::default()));
                }
                let lab = self.config.media.lab;
                let plan = SocketPlan::EveryAddress;
                self.outputs.push_back(Output::OpenSockets { leg: LegId::File(id), lab, plan });
            }
            Some(Attempt::Ibb) => {
                let sid = self.stream_sid();
                let Some(file) = self.file_mut(id) else { return };
                let transport = match &file.theirs {
                    Some(Transport::Ibb(theirs)) if purpose.answers() => {
                        // J261-01: an answer may only make the blocks smaller.
                        IbbTransport { block_size: theirs.block_size.min(BLOCK_SIZE), ..theirs.clone() }
                    }
                    _ => IbbTransport { block_size: BLOCK_SIZE, sid, in_messages: false },
                };
                file.way = Some(Carriage::Ibb { transport, stream: None });
                self.way_prepared(now, id);
            }
            None => {
                let text = "no way to carry the file is left".to_owned();
                let reason = Reason::new(ReasonCondition::ConnectivityError);
                self.fail_file(now, id, EndKind::MediaFailed, reason, text);
            }
        }
    }

    fn stream_sid(&mut self) -> String {
        format!("{:016x}", self.next_number())
    }

    fn prepare_s5b(&mut self, now: Instant, id: FileId, attempt: Attempt, relay_only: bool) {
        let own = self.stream_sid();
        let lab = self.config.media.lab;
        let Some(session) = self.transfers.get(&id.transfer) else { return };
        let (peer, initiator) = (session.peer.clone(), session.role() == Role::Initiator);
        let local = self.sessions.local().clone();
        let Some(file) = self.file_mut(id) else { return };
        let answers = matches!(file.stage, FileStage::Preparing(purpose) if purpose.answers());
        let sid = match &file.theirs {
            Some(Transport::S5b(theirs)) if answers => theirs.sid.clone(),
            _ => own,
        };
        // J260-14: where no address may be known, the peer sees that of a proxy.
        let listens = attempt.listens() && !relay_only;
        let only = match (relay_only, attempt) {
            (true, _) | (false, Attempt::S5bProxy) => Some(S5bKind::Proxy),
            (false, _) => None,
        };
        let dst_addrs = [dst_addr(&sid, local.as_str(), peer.as_str()), dst_addr(&sid, peer.as_str(), local.as_str())];
        let first_stream = file.rounds << 16;
        let config = S5bConfig {
            initiator,
            sid,
            local,
            peer,
            policy: DialPolicy { lab, private: false, own_networks: Vec::new() },
            only,
            first_stream,
            limits: Default::default(),
        };
        let mut s5b = S5b::new(config);
        if attempt.proxies() {
            for proxy in self.people.proxy_finder.proxies() {
                s5b.add_proxy(proxy.jid.clone(), &proxy.host, proxy.port);
            }
        }
        if let Some(file) = self.file_mut(id) {
            file.way = Some(Carriage::S5b(Box::new(s5b)));
        }
        if listens {
            self.order(FileOutput::Listen { id, dst_addrs, lab });
        } else {
            self.s5b_prepared(now, id);
        }
    }

    /// Listeners are open: their addresses are offered.
    pub(super) fn listening(&mut self, now: Instant, id: FileId, bound: &[SocketAddr], networks: Vec<(IpAddr, u8)>) {
        let Some(file) = self.file_mut(id).filter(|f| matches!(f.stage, FileStage::Preparing(_))) else { return };
        let Some(s5b) = file.s5b_mut() else { return };
        s5b.set_own_networks(networks);
        for addr in bound {
            s5b.add_listener(*addr);
        }
        self.s5b_prepared(now, id);
    }

    fn s5b_prepared(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        let theirs = match (&file.stage, &file.theirs) {
            (FileStage::Preparing(purpose), Some(Transport::S5b(theirs))) if purpose.answers() => Some(theirs.clone()),
            _ => None,
        };
        if let (Some(s5b), Some(theirs)) = (file.s5b_mut(), theirs)
            && let Err(why) = s5b.set_remote(now, &theirs)
        {
            tracing::debug!(%why, "streamhosts of the peer are of no use");
        }
        self.way_prepared(now, id);
    }

    /// Sockets of a data channel are bound.
    pub(super) fn handle_file_sockets(&mut self, now: Instant, id: FileId, bound: &[SocketAddr]) {
        let waits = |f: &File| matches!((&f.stage, &f.way), (FileStage::Preparing(_), Some(Carriage::Channel(way))) if way.leg.is_none());
        if !self.file(id).is_some_and(waits) {
            self.outputs.push_back(Output::CloseSockets(LegId::File(id)));
            return;
        }
        if bound.is_empty() {
            return self.fall_back(now, id);
        }
        let initiator = self.transfers.get(&id.transfer).is_some_and(|t| t.role() == Role::Initiator);
        let mut leg = self.new_leg(now, initiator, Some(DataConfig { local_port: SCTP_PORT, ..DataConfig::default() }));
        for local in bound {
            self.routes.insert(*local, LegId::File(id));
        }
        leg.handle_sockets(now, bound);
        let Some(file) = self.file_mut(id) else { return };
        let replaces = matches!(file.stage, FileStage::Preparing(Purpose::Replace));
        if let Some(Carriage::Channel(way)) = &mut file.way {
            way.leg = Some(Box::new(leg));
            way.gather_by = replaces.then(|| now + GATHER);
        }
        self.drain_file_leg(now, id);
        if !replaces {
            self.way_prepared(now, id);
        }
    }

    /// Our half of the transport as it is prepared.
    pub(super) fn our_transport(&mut self, id: FileId) -> Option<Transport> {
        let file = self.file_mut(id)?;
        let answers = matches!(file.stage, FileStage::Preparing(purpose) if purpose.answers())
            || matches!(file.stage, FileStage::Prepared);
        match file.way.as_mut()? {
            Carriage::S5b(s5b) => Some(Transport::S5b(Box::new(if answers { s5b.answer() } else { s5b.offer() }))),
            Carriage::Ibb { transport, .. } => Some(Transport::Ibb(transport.clone())),
            Carriage::Channel(way) => {
                let candidates = std::mem::take(&mut way.unsent);
                let leg = way.leg.as_ref()?;
                let sctp = SctpMap { port: SCTP_PORT, protocol: WEBRTC.to_owned(), streams: Some(SCTP_STREAMS) };
                let ours = IceTransport { sctp: Some(sctp), ..offer::local_transport(leg, candidates) };
                Some(Transport::Ice(Box::new(ours)))
            }
        }
    }

    pub(super) fn send_replace(&mut self, now: Instant, id: FileId) {
        let (Some(transport), Some(key)) = (self.our_transport(id), self.file(id).and_then(|f| f.content.clone()))
        else {
            return;
        };
        self.offered(id, None, Some(now + PATIENCE));
        if self.act(id, |s| s.transport_replace(now, &key, transport)).is_err() {
            self.no_way(now, id);
        }
    }

    pub(super) fn send_replace_accept(&mut self, now: Instant, id: FileId) {
        let (Some(transport), Some(key)) = (self.our_transport(id), self.file(id).and_then(|f| f.content.clone()))
        else {
            return;
        };
        if self.act(id, |s| s.transport_accept(now, &key, transport)).is_err() {
            return self.no_way(now, id);
        }
        self.engage_theirs(now, id);
    }
}

// Negotiating.
impl Endpoint {
    /// We answered: both halves are known.
    pub(super) fn engage_theirs(&mut self, now: Instant, id: FileId) {
        if let Some(transport) = self.file_mut(id).and_then(|f| f.theirs.take()) {
            self.engage(now, id, transport);
        }
    }

    /// Both halves of the transport are known.
    pub(super) fn engage(&mut self, now: Instant, id: FileId, theirs: Transport) {
        let opener = self.transfers.get(&id.transfer).is_some_and(|t| t.role() == Role::Initiator);
        let Some(file) = self.file_mut(id) else { return };
        // The initiator chooses what comes next, so it gives up first.
        let patience = match (opener, file.attempts.is_empty()) {
            (true, true) => CONNECT,
            (true, false) => CONNECT_OR_FALL,
            (false, _) => PATIENCE,
        };
        file.stage = FileStage::Connecting(now + patience);
        let early = std::mem::take(&mut file.early);
        match (file.way.as_mut(), theirs) {
            (Some(Carriage::S5b(s5b)), Transport::S5b(theirs)) => {
                // S5B has its own clock; this is for a peer that goes silent after it.
                file.stage = FileStage::Connecting(now + PATIENCE);
                if let Err(why) = s5b.set_remote(now, &theirs) {
                    tracing::debug!(%why, "streamhosts of the peer are of no use");
                }
                self.pump_s5b(now, id);
            }
            (Some(Carriage::Channel(way)), Transport::Ice(theirs)) => {
                way.hopeless = (patience == CONNECT_OR_FALL).then(|| now + SILENCE);
                if let Some(leg) = &mut way.leg {
                    if let Some(sctp) = &theirs.sctp {
                        leg.set_remote_sctp(sctp.port);
                    }
                    // Both sides want the file: payload may flow.
                    leg.release(now);
                }
                let name = file.content.as_ref().map_or_else(String::new, |key| key.name.clone());
                // J343-03: the initiator opens the channel, and its label is the name of the content.
                if opener
                    && let Some(channel) = file.channel_mut()
                    && let Some(leg) = &mut channel.leg
                {
                    channel.channel = leg.open_channel(now, &name).ok();
                }
                self.remote_ice(now, id, &theirs);
                for news in early {
                    self.remote_ice(now, id, &news);
                }
                self.trickle(now, id);
            }
            (Some(Carriage::Ibb { transport, stream }), Transport::Ibb(theirs)) => {
                let block_size = transport.block_size.min(theirs.block_size);
                let mut config = IbbConfig::new(transport.sid.clone(), block_size, opener, file.sending);
                config.in_messages = theirs.in_messages || transport.in_messages;
                *stream = Some(Box::new(IbbStream::new(now, config)));
                file.stage = FileStage::Connecting(now + PATIENCE);
                self.pump_ibb(now, id);
            }
            (_, _) => self.no_way(now, id),
        }
    }

    /// A transport-info of the peer. It may come while the user is asked or sockets are being bound (RFC 8838 §10): then it
    /// waits for the leg, for nobody says it again.
    pub(super) fn more_remote_ice(&mut self, now: Instant, id: FileId, news: IceTransport) {
        let Some(file) = self.file_mut(id) else { return };
        let ready = file.theirs.is_none() && file.leg_mut().is_some();
        if ready {
            self.remote_ice(now, id, &news);
        } else if file.early.len() < EARLY_TRANSPORTS {
            file.early.push(news);
        }
    }

    /// Candidates and credentials of the peer.
    fn remote_ice(&mut self, now: Instant, id: FileId, transport: &IceTransport) {
        let fingerprints = self.allowed_fingerprints(&transport.fingerprints);
        if fingerprints.is_empty() && !transport.fingerprints.is_empty() {
            let text = "the peer's certificate is not the one that --require-fingerprint names".to_owned();
            let reason = Reason::new(ReasonCondition::SecurityError);
            return self.fail_file(now, id, EndKind::Security, reason, text);
        }
        let Some(way) = self.file_mut(id).and_then(File::channel_mut) else { return };
        if !transport.candidates.is_empty() {
            way.hope(now);
        }
        let Some(leg) = &mut way.leg else { return };
        offer::tell_leg(leg, now, transport, &fingerprints);
        self.drain_file_leg(now, id);
    }

    pub(super) fn remote_streamhosts(&mut self, now: Instant, id: FileId, news: &S5bTransport) {
        if let Some(s5b) = self.file_mut(id).and_then(File::s5b_mut)
            && let Err(why) = s5b.handle_info(now, news)
        {
            tracing::debug!(%why, "streamhost news of the peer");
        }
        self.pump_s5b(now, id);
    }

    /// Signals candidates that were gathered since the last stanza.
    pub(super) fn trickle(&mut self, now: Instant, id: FileId) {
        let Some(key) = self.file(id).and_then(|f| f.content.clone()) else { return };
        let Some(file) = self.file_mut(id) else { return };
        // What is not agreed on yet would be lost.
        if matches!(file.stage, FileStage::Preparing(_) | FileStage::Prepared) {
            return;
        }
        let Some(way) = file.channel_mut() else { return };
        let Some(leg) = &way.leg else { return };
        if way.unsent.is_empty() && !way.gathered {
            return;
        }
        let news = offer::trickle(leg, std::mem::take(&mut way.unsent), std::mem::take(&mut way.gathered));
        // An ended session needs no candidates.
        let _ = self.act(id, |s| s.send_transport_info(now, &key, news));
    }

    /// What the negotiation of streamhosts wants.
    pub(super) fn pump_s5b(&mut self, now: Instant, id: FileId) {
        loop {
            let Some(key) = self.file(id).and_then(|f| f.content.clone()) else { return };
            let Some(s5b) = self.file_mut(id).and_then(File::s5b_mut) else { return };
            if let Some(news) = s5b.poll_transmit() {
                // An ended session needs no news.
                let _ = self.act(id, |s| s.send_streamhost_news(now, &key, news));
                continue;
            }
            match s5b.poll_event() {
                Some(S5bEvent::Dial { stream, host, port, dst_addr, by, policy }) => {
                    self.order(FileOutput::Dial { id, stream, host, port, dst_addr, by, policy });
                }
                Some(S5bEvent::HangUp { stream }) => self.order(FileOutput::HangUp { id, stream }),
                Some(S5bEvent::Activate { proxy, sid, target }) => self.activate_proxy(now, id, proxy, sid, target),
                Some(S5bEvent::Established { stream, kind }) => {
                    self.connected(now, id, Way::S5b(kind), Some(stream));
                }
                Some(S5bEvent::Failed) => return self.way_failed(now, id),
                None => return,
            }
        }
    }

    fn activate_proxy(
        &mut self,
        now: Instant,
        id: FileId,
        proxy: crate::wire::jid::Jid,
        sid: String,
        target: crate::wire::jid::Jid,
    ) {
        let query = Bytestreams { sid: Some(sid), activate: Some(target), ..Bytestreams::default() };
        let kind = IqKind::Set(IqPayload::Bytestreams(Box::new(query)));
        self.ask(now, Some(proxy), kind, super::people::Request::Activate(id));
    }

    pub(super) fn proxy_answered(&mut self, now: Instant, id: FileId, activated: bool) {
        if let Some(s5b) = self.file_mut(id).and_then(File::s5b_mut) {
            s5b.handle_activated(now, if activated { Ok(()) } else { Err(()) });
        }
        self.pump_s5b(now, id);
    }

    pub(super) fn stream_open(&mut self, now: Instant, id: FileId, stream: StreamId, local: Option<SocketAddr>) {
        let Some(s5b) = self.file_mut(id).and_then(File::s5b_mut) else {
            return self.order(FileOutput::HangUp { id, stream });
        };
        match local {
            Some(local) => s5b.handle_accepted(now, stream, local),
            None => s5b.handle_dialled(now, stream),
        }
        self.pump_s5b(now, id);
    }

    pub(super) fn stream_down(&mut self, now: Instant, id: FileId, stream: StreamId) {
        if let Some(s5b) = self.file_mut(id).and_then(File::s5b_mut) {
            s5b.handle_down(now, stream);
        }
        self.pump_s5b(now, id);
    }

    /// Everything that the leg of a file has to say.
    pub(super) fn drain_file_leg(&mut self, now: Instant, id: FileId) {
        while let Some(event) = self.file_mut(id).and_then(File::leg_mut).and_then(|leg| leg.poll_event()) {
            let Some(way) = self.file_mut(id).and_then(File::channel_mut) else { return };
            match event {
                LegEvent::LocalCandidate(candidate) => {
                    way.hope(now);
                    way.unsent.push(candidate);
                }
                LegEvent::GatheringComplete => way.gathered = true,
                LegEvent::Resolve(name) => self.resolve(name),
                LegEvent::ChannelOpen { id: channel, by_peer, .. } => {
                    if by_peer && way.channel.is_none() {
                        way.channel = Some(channel);
                    }
                    if way.channel == Some(channel) {
                        self.connected(now, id, Way::DataChannel, None);
                    }
                }
                LegEvent::ChannelReadable(_) => self.take_in_band(now, id),
                LegEvent::ChannelWritable(_) => self.feed(now, id),
                LegEvent::ChannelDelivered(_) => {
                    way.delivered = true;
                    self.in_band_sent(now, id);
                }
                LegEvent::ChannelClosed { .. } => self.in_band_closed(now, id),
                LegEvent::Closed => self.in_band_closed(now, id),
                LegEvent::Failed(fault) => {
                    tracing::info!(file = %id, %fault, "the data channel failed");
                    self.way_failed(now, id);
                }
                LegEvent::Restarted(_)
                | LegEvent::IceConnected { .. }
                | LegEvent::Connected { .. }
                | LegEvent::PathChanged { .. }
                | LegEvent::ServerFailed { .. }
                | LegEvent::PathLost
                | LegEvent::PathRestored
                | LegEvent::Bye(_) => {}
            }
        }
        let waits = |way: &ChannelWay| way.gather_by.is_some_and(|by| way.gathered || by <= now);
        let Some(way) = self.file_mut(id).and_then(File::channel_mut) else { return };
        if waits(way) {
            way.gather_by = None;
            return self.way_prepared(now, id);
        }
        self.trickle(now, id);
    }

    /// A way stands.
    pub(super) fn connected(&mut self, now: Instant, id: FileId, way: Way, stream: Option<StreamId>) {
        let waits = self.transfers.get(&id.transfer).is_some_and(|t| t.waits_for_next(id));
        let Some(file) = self.file_mut(id) else { return };
        if !matches!(file.stage, FileStage::Connecting(_)) {
            return;
        }
        if waits {
            file.stage = FileStage::Held { way, stream, until: now + NEXT_FILE };
        } else {
            self.begin_carrying(now, id, way, stream);
        }
    }

    fn begin_carrying(&mut self, now: Instant, id: FileId, way: Way, stream: Option<StreamId>) {
        let Some(file) = self.file_mut(id) else { return };
        file.stage = FileStage::Carrying;
        file.connected = Some(way);
        self.tell(FileEvent::Connected { id, way });
        if let Some(stream) = stream {
            self.order(FileOutput::Carry { id, stream });
        }
        self.feed(now, id);
    }

    /// Begins with files that waited for the next one to be agreed on.
    pub(super) fn release_held(&mut self, now: Instant, id: TransferId) {
        let Some(transfer) = self.transfers.get(&id) else { return };
        let due: Vec<(FileId, Way, Option<StreamId>)> = transfer
            .files
            .iter()
            .filter_map(|f| {
                let FileStage::Held { way, stream, until } = f.stage else { return None };
                (until <= now || !transfer.waits_for_next(f.id)).then_some((f.id, way, stream))
            })
            .collect();
        for (id, way, stream) in due {
            self.begin_carrying(now, id, way, stream);
        }
    }

    /// A way does not work, or does not any more.
    pub(super) fn way_failed(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file(id) else { return };
        match file.stage {
            FileStage::Connecting(_) | FileStage::Preparing(_) | FileStage::Prepared | FileStage::Offered(_) => {
                self.fall_back(now, id);
            }
            // The receiver of an empty file has it as soon as the way stands, and closes the way.
            FileStage::Held { .. } | FileStage::Carrying if file.sending && file.description.size == Some(0) => {
                self.empty_sent(now, id);
            }
            FileStage::Held { .. } | FileStage::Carrying => {
                let text = "the connection was lost".to_owned();
                let reason = Reason::new(ReasonCondition::ConnectivityError);
                self.fail_file(now, id, EndKind::MediaFailed, reason, text);
            }
            FileStage::Waiting
            | FileStage::Alerting(_)
            | FileStage::Checking { .. }
            | FileStage::Keeping { .. }
            | FileStage::Over => {}
            FileStage::Sent { .. } => self.receiver_left(now, id),
        }
    }

    /// The initiator asks for the next way (J260-13); the responder waits for it.
    pub(super) fn fall_back(&mut self, now: Instant, id: FileId) {
        let Some(transfer) = self.transfers.get(&id.transfer) else { return };
        let ours = transfer.role() == Role::Initiator;
        let from = transfer.files.get(id.file).and_then(File::way_kind);
        self.close_way(now, id);
        let Some(file) = self.file_mut(id) else { return };
        if !ours {
            file.stage = FileStage::Connecting(now + PATIENCE);
            return;
        }
        match (from, file.attempts.first()) {
            (Some(from), Some(next)) => {
                let to = next.kind();
                self.tell(FileEvent::Falling { id, from, to });
                let known = self.file(id).is_some_and(|f| f.content.is_some());
                let first = self.transfers.get(&id.transfer).is_some_and(|t| t.session.is_none());
                let purpose = match (first, known) {
                    (true, _) => Purpose::Initiate,
                    (false, true) => Purpose::Replace,
                    (false, false) => Purpose::Add,
                };
                self.prepare(now, id, purpose);
            }
            (_, _) => self.no_way(now, id),
        }
    }

    pub(super) fn no_way(&mut self, now: Instant, id: FileId) {
        let text = "no way to carry the file works between the two sides".to_owned();
        self.fail_file(now, id, EndKind::MediaFailed, Reason::new(ReasonCondition::ConnectivityError), text);
    }

    /// The peer asks for another way. One that carries already is kept.
    pub(super) fn replace_asked(&mut self, now: Instant, id: FileId, transport: Transport) {
        let Some(key) = self.file(id).and_then(|f| f.content.clone()) else { return };
        let Some(file) = self.file_mut(id) else { return };
        if !matches!(file.stage, FileStage::Connecting(_) | FileStage::Offered(_)) {
            // An ended session needs no answer.
            let _ = self.act(id, |s| s.transport_reject(now, &key));
            return;
        }
        self.close_way(now, id);
        if let Some(file) = self.file_mut(id) {
            file.theirs = Some(transport);
            file.early.clear();
        }
        self.prepare(now, id, Purpose::ReplaceAccept);
    }

    /// Takes a way down; the file itself stays open.
    pub(super) fn close_way(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        match file.way.take() {
            Some(Carriage::S5b(_)) => self.order(FileOutput::CloseStreams(id)),
            Some(Carriage::Channel(mut way)) => {
                if let Some(leg) = &mut way.leg {
                    leg.close(now);
                    while let Some(transmit) = leg.poll_transmit() {
                        self.outputs.push_back(Output::Transmit(transmit));
                    }
                }
                self.routes.retain(|_, owner| *owner != LegId::File(id));
                self.outputs.push_back(Output::CloseSockets(LegId::File(id)));
            }
            Some(Carriage::Ibb { stream: Some(mut stream), .. }) => {
                stream.close(now);
                while let Some(transmit) = stream.poll_transmit() {
                    self.send_ibb(now, id, transmit);
                }
            }
            Some(Carriage::Ibb { stream: None, .. }) | None => {}
        }
    }

    /// Deadlines of files and their ways.
    pub(super) fn transfers_deadline(&mut self) -> Option<Instant> {
        let finding = self.transfers.values().filter_map(|t| match t.stage {
            Stage::Finding(until) => Some(until),
            Stage::Opening | Stage::Offered | Stage::Alerting | Stage::Answering | Stage::Active => None,
        });
        let last = self.last_words.values().copied();
        let first = finding.chain(last).min();
        let files = self.transfers.values_mut().flat_map(|t| &mut t.files).filter_map(File::deadline).min();
        [first, files].into_iter().flatten().min()
    }

    pub(super) fn transfers_timeout(&mut self, now: Instant) {
        let due: Vec<FileId> = self
            .transfers
            .values_mut()
            .flat_map(|t| &mut t.files)
            .filter_map(|f| f.deadline().filter(|at| *at <= now).map(|_| f.id))
            .collect();
        for id in due {
            self.file_timeout(now, id);
        }
        let silent: Vec<_> = self.last_words.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in silent {
            self.last_words.remove(&id);
            self.end_if_done(now, id);
        }
    }

    fn file_timeout(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.file_mut(id) else { return };
        match &mut file.way {
            Some(Carriage::S5b(s5b)) if s5b.poll_timeout().is_some_and(|at| at <= now) => {
                s5b.handle_timeout(now);
                return self.pump_s5b(now, id);
            }
            Some(Carriage::Channel(way)) => {
                let gathered = way.gather_by.is_some_and(|at| at <= now);
                let due =
                    |leg: &mut Box<crate::transport::leg::Leg>| leg.poll_timeout().is_some_and(|(at, _)| at <= now);
                if let Some(leg) = &mut way.leg
                    && due(leg)
                {
                    leg.handle_timeout(now);
                    return self.drain_file_leg(now, id);
                }
                if gathered {
                    return self.drain_file_leg(now, id);
                }
                if way.hopeless.is_some_and(|at| at <= now) {
                    way.hopeless = None;
                    let heard = way.leg.as_ref().is_some_and(|leg| leg.is_heard());
                    if !heard && matches!(file.stage, FileStage::Connecting(_)) {
                        tracing::info!(file = %id, "nothing comes over UDP, another way is tried");
                        return self.fall_back(now, id);
                    }
                    return;
                }
            }
            Some(Carriage::Ibb { stream: Some(stream), .. }) if stream.poll_timeout().is_some_and(|at| at <= now) => {
                stream.handle_timeout(now);
                return self.pump_ibb(now, id);
            }
            Some(Carriage::S5b(_) | Carriage::Ibb { .. }) | None => {}
        }
        self.stage_timeout(now, id);
    }
}

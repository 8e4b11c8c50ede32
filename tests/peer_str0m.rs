//! A leg against `str0m::Rtc`, an independent DTLS (dimpl), SRTP and RTCP implementation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "common/foreign.rs"]
mod foreign;

use foreign::{Call, Foreign, OURS, Payload, THEIRS};
use offhook::transport::leg::{Leg, LegEvent};
use offhook::wire::candidate::{
    Candidate, CandidateAddr, CandidateKind, CandidateProtocol, Fingerprint, IceCreds, Setup,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::media::{MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::Ssrc;
use str0m::{Event, Input, Output, Rtc};

struct Str0m {
    rtc: Rtc,
    ssrc: Ssrc,
    transmits: VecDeque<(SocketAddr, Vec<u8>)>,
    due: Option<Instant>,
    connected: bool,
    received: Vec<Vec<u8>>,
    rtcp_blocks: usize,
    /// Its own data channel, once it is open.
    channel: Option<ChannelId>,
    own: Option<ChannelId>,
    labels: Vec<String>,
    data: Vec<u8>,
    closed: usize,
}

impl Str0m {
    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.due = Some(at);
                    return;
                }
                Output::Transmit(t) => self.transmits.push_back((t.destination, t.contents.into())),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) => self.received.push(packet.payload.to_vec()),
                Output::Event(Event::PeerStats(_) | Event::MediaEgressStats(_)) => self.rtcp_blocks += 1,
                Output::Event(Event::ChannelOpen(id, _)) if self.own == Some(id) => self.channel = Some(id),
                Output::Event(Event::ChannelOpen(_, label)) => self.labels.push(label),
                Output::Event(Event::ChannelData(message)) => self.data.extend(message.data),
                Output::Event(Event::ChannelClose(_)) => self.closed += 1,
                Output::Event(_) => {}
            }
        }
    }
}

impl Foreign for Str0m {
    fn handle_datagram(&mut self, now: Instant, local: SocketAddr, source: SocketAddr, bytes: &[u8]) {
        let receive = Receive::new(Protocol::Udp, source, local, bytes).unwrap();
        self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
        self.drain();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.drain();
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.due
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        self.transmits.pop_front()
    }

    fn send(&mut self, now: Instant, seq: u16, payload: &[u8]) -> bool {
        if self.connected {
            let ssrc = self.ssrc;
            let mut api = self.rtc.direct_api();
            let stream = api.stream_tx(&ssrc).unwrap();
            let time = u32::from(seq) * 960;
            stream.write_rtp(str0m::rtp::RtpWrite::new(
                Pt::new_with_value(111),
                u64::from(seq).into(),
                time,
                now,
                payload,
            ));
            self.rtc.handle_input(Input::Timeout(now)).unwrap();
            self.drain();
        }
        self.connected
    }

    fn received(&self) -> &[Vec<u8>] {
        &self.received
    }

    fn open(&mut self, now: Instant, label: &str) {
        let config = ChannelConfig { label: label.to_owned(), ..ChannelConfig::default() };
        self.own = Some(self.rtc.direct_api().create_data_channel(config));
        self.handle_timeout(now);
    }

    fn write(&mut self, now: Instant, bytes: &[u8]) -> bool {
        let Some(mut channel) = self.channel.and_then(|id| self.rtc.channel(id)) else { return false };
        let taken = channel.write(true, bytes).unwrap();
        self.handle_timeout(now);
        taken
    }

    fn close(&mut self, now: Instant) {
        self.rtc.direct_api().close_data_channel(self.channel.unwrap());
        self.handle_timeout(now);
    }

    fn channels(&self) -> (&[String], &[u8], usize) {
        (&self.labels, &self.data, self.closed)
    }
}

fn set_up(leg_initiates: bool, leg_is_client: bool, payload: Payload) -> Call<Str0m> {
    let now = Instant::now();
    let (mut leg, candidates) = foreign::leg(now, leg_initiates, leg_is_client, payload);
    let mut rtc = Rtc::builder().clear_codecs().enable_opus(true, false).set_rtp_mode(true).build(now);
    rtc.add_local_candidate(str0m::Candidate::host(THEIRS, "udp").unwrap());
    for candidate in &candidates {
        let CandidateAddr::Ip(ip) = candidate.addr else { panic!() };
        rtc.add_remote_candidate(str0m::Candidate::host(SocketAddr::new(ip, candidate.port), "udp").unwrap());
    }
    let ssrc = Ssrc::from(0x0102_0304);
    let mid = Mid::from("0");
    let mut api = rtc.direct_api();
    api.set_ice_controlling(!leg_initiates);
    let creds = leg.local_credentials();
    api.set_remote_ice_credentials(str0m::IceCreds { ufrag: creds.ufrag.into(), pass: creds.pwd.into() });
    let ours = leg.local_fingerprint().unwrap();
    api.set_remote_fingerprint(str0m::config::Fingerprint { hash_func: ours.hash.to_string(), bytes: ours.value });
    if payload == Payload::Sound {
        api.declare_media(mid, MediaKind::Audio);
        api.declare_stream_tx(ssrc, None, mid, None);
        api.expect_stream_rx(Ssrc::from(leg.ssrc().0), None, mid, None);
    }
    let creds = api.local_ice_credentials();
    let theirs = api.local_dtls_fingerprint().clone();
    api.start_dtls(!leg_is_client).unwrap();
    if payload == Payload::Data {
        api.start_sctp(!leg_is_client);
    }
    rtc.handle_input(Input::Timeout(now)).unwrap();

    // As initiator we are told a role; as responder we answer actpass with the configured one.
    let setup = match (leg_initiates, leg_is_client) {
        (true, true) => Setup::Passive,
        (true, false) => Setup::Active,
        (false, _) => Setup::Actpass,
    };
    let fingerprint = Fingerprint { hash: theirs.hash_func.into(), value: theirs.bytes, setup: Some(setup) };
    leg.set_remote(now, Some(IceCreds { ufrag: creds.ufrag.into(), pwd: creds.pass.into() }), &[fingerprint]);
    add_candidate(&mut leg, now);
    let mut peer = Str0m {
        rtc,
        ssrc,
        transmits: VecDeque::new(),
        due: None,
        connected: false,
        received: Vec::new(),
        rtcp_blocks: 0,
        channel: None,
        own: None,
        labels: Vec::new(),
        data: Vec::new(),
        closed: 0,
    };
    peer.drain();
    Call::new(now, leg, peer)
}

fn add_candidate(leg: &mut Leg, now: Instant) {
    let candidate = Candidate {
        component: 1,
        foundation: "1".into(),
        generation: 0,
        id: None,
        addr: CandidateAddr::Ip(THEIRS.ip()),
        port: THEIRS.port(),
        priority: 2_130_706_431,
        protocol: CandidateProtocol::Udp,
        tcptype: None,
        kind: CandidateKind::Host,
        related: None,
        network: None,
    };
    leg.add_remote_candidate(now, &candidate).unwrap();
}

#[test]
fn a_leg_and_str0m_talk_in_every_role() {
    for leg_initiates in [true, false] {
        for leg_is_client in [true, false] {
            let mut call = set_up(leg_initiates, leg_is_client, Payload::Sound);
            call.run_for(Duration::from_secs(3));
            let took = call.connected_after();
            println!("initiates {leg_initiates}, client {leg_is_client}: {took:?}");
            assert!(took.is_some_and(|t| t < Duration::from_secs(1)), "{:?}", call.events);
            // Ten seconds, so that both sides report.
            let (here, there) = call.talk(500);
            assert_eq!((here, there), (500, 500), "initiates {leg_initiates}, client {leg_is_client}");
            assert!(call.foreign.received.iter().all(|p| p == &[0x33; 80]));
            assert!(call.received.iter().all(|p| p == &[0x44; 80]));
            let stats = call.leg.stats(call.now);
            assert!(stats.rtcp.report_age.is_some(), "SRTCP of str0m: {stats:?}");
            assert!(stats.rtcp.rtt.is_some());
            assert!(!call.events.iter().any(|(_, e)| matches!(e, LegEvent::Failed(_) | LegEvent::PathLost)));
            assert_eq!(OURS.port(), 5000);
        }
    }
}

#[test]
fn files_go_both_ways_between_a_leg_and_str0m_in_every_role() {
    let content: Vec<u8> = (0..700_000u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 16) as u8).collect();
    for leg_initiates in [true, false] {
        for leg_is_client in [true, false] {
            let mut call = set_up(leg_initiates, leg_is_client, Payload::Data);
            call.exchange(&content);
            println!("initiates {leg_initiates}, client {leg_is_client}: {:?}", call.now - call.start);
            assert!(!call.events.iter().any(|(_, e)| matches!(e, LegEvent::Failed(_) | LegEvent::PathLost)));
        }
    }
}

//! A leg against a peer connection of webrtc-rs (`rtc`, its sans-IO form): another ICE, SRTP and RTCP implementation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]

#[path = "common/foreign.rs"]
mod foreign;

use bytes::BytesMut;
use foreign::{Call, Foreign, OURS, Payload, THEIRS};
use offhook::transport::leg::{Leg, LegEvent};
use offhook::wire::candidate::{
    Candidate, CandidateAddr, CandidateKind, CandidateProtocol, Fingerprint, IceCreds, Setup,
};
use rtc::data_channel::RTCDataChannelId;
use rtc::interceptor::Registry;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCDtlsRole, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol as _;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SSRC: u32 = 0x0506_0708;

struct Webrtc {
    connection: RTCPeerConnection,
    connected: bool,
    received: Vec<Vec<u8>>,
    rtcp: usize,
    /// Its own data channel, and whether it is open.
    channel: Option<RTCDataChannelId>,
    open: bool,
    labels: Vec<String>,
    data: Vec<u8>,
    closed: usize,
    /// It drops what is still on its way to SCTP when it closes a channel, so it closes once all is acknowledged.
    closing: bool,
}

impl Webrtc {
    fn drain(&mut self) {
        if self.closing
            && let Some(mut channel) = self.channel.and_then(|id| self.connection.data_channel(id))
            && channel.outstanding_bytes() == 0
        {
            self.closing = false;
            channel.close().unwrap();
        }
        while let Some(event) = self.connection.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(RTCPeerConnectionState::Connected) => {
                    self.connected = true;
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) => {
                    if self.channel == Some(id) {
                        self.open = true;
                    } else {
                        self.labels.push(self.connection.data_channel(id).unwrap().label().to_owned());
                    }
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnClose(_)) => self.closed += 1,
                _ => {}
            }
        }
        while let Some(TaggedRTCMessage { message, .. }) = self.connection.poll_read() {
            match message {
                RTCMessage::RtpPacket(_, packet) => self.received.push(packet.payload.to_vec()),
                RTCMessage::RtcpPacket(_, _) => self.rtcp += 1,
                RTCMessage::DataChannelMessage(_, message) => self.data.extend_from_slice(&message.data),
                _ => {}
            }
        }
    }
}

impl Foreign for Webrtc {
    fn handle_datagram(&mut self, now: Instant, local: SocketAddr, source: SocketAddr, bytes: &[u8]) {
        let transport = TransportContext {
            local_addr: local,
            peer_addr: source,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        let message = TaggedBytesMut { now, transport, message: BytesMut::from(bytes) };
        // It answers early packets with errors; they are no end.
        let _ = self.connection.handle_read(message);
        self.drain();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now).unwrap();
        self.drain();
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    fn poll_transmit(&mut self, _now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        self.connection.poll_write().map(|m| (m.transport.peer_addr, m.message.to_vec()))
    }

    fn send(&mut self, now: Instant, seq: u16, payload: &[u8]) -> bool {
        if self.connected {
            send(&mut self.connection, now, seq, payload);
        }
        self.connected
    }

    fn received(&self) -> &[Vec<u8>] {
        &self.received
    }

    fn open(&mut self, _now: Instant, label: &str) {
        self.channel = Some(self.connection.create_data_channel(label, None).unwrap().id());
        self.drain();
    }

    fn write(&mut self, now: Instant, bytes: &[u8]) -> bool {
        let Some(mut channel) = self.channel.filter(|_| self.open).and_then(|id| self.connection.data_channel(id))
        else {
            return false;
        };
        if channel.outstanding_bytes() > 256 * 1024 {
            return false;
        }
        channel.send(now, BytesMut::from(bytes)).unwrap();
        true
    }

    fn close(&mut self, _now: Instant) {
        self.closing = true;
    }

    fn channels(&self) -> (&[String], &[u8], usize) {
        (&self.labels, &self.data, self.closed)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
}

fn attribute<'s>(sdp: &'s str, name: &str) -> &'s str {
    sdp.lines().find_map(|l| l.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':')).unwrap().trim()
}

/// They answer our offer; `leg_is_client` is their choice.
fn set_up(leg_is_client: bool, payload: Payload) -> Call<Webrtc> {
    let now = Instant::now();
    let (mut leg, candidates) = foreign::leg(now, true, false, payload);
    let role = if leg_is_client { RTCDtlsRole::Server } else { RTCDtlsRole::Client };
    let mut media = MediaEngine::default();
    let codec = RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48000,
        channels: 2,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: vec![],
    };
    let parameters = RTCRtpCodecParameters { rtp_codec: codec.clone(), payload_type: 111 };
    media.register_codec(parameters, RtpCodecKind::Audio).unwrap();
    let registry = register_default_interceptors(Registry::new(), &mut media).unwrap();
    let mut connection = RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_setting_engine(SettingEngineBuilder::new().with_answering_dtls_role(role).build())
        .with_media_engine(media)
        .with_interceptor_registry(registry)
        .build(now)
        .unwrap();
    let track = MediaStreamTrack::new(
        "stream".to_owned(),
        "track".to_owned(),
        "label".to_owned(),
        RtpCodecKind::Audio,
        vec![RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(SSRC), ..Default::default() },
            codec,
            ..Default::default()
        }],
    );
    let media = match payload {
        Payload::Sound => {
            connection.add_track(track).unwrap();
            format!(
                "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=sendrecv\r\na=rtcp-mux\r\n\
                 a=rtpmap:111 opus/48000/2\r\na=ssrc:{} cname:x\r\n",
                leg.ssrc().0
            )
        }
        Payload::Data => "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n\
                          a=sctp-port:5000\r\na=max-message-size:65536\r\n"
            .to_owned(),
    };

    let creds = leg.local_credentials();
    let fingerprint = leg.local_fingerprint().unwrap();
    assert_eq!(fingerprint.setup, Some(Setup::Actpass));
    let offer = format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n{media}a=mid:0\r\n\
         a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\n\
         a=candidate:1 1 udp {} {} {} typ host\r\n",
        creds.ufrag,
        creds.pwd,
        hex(&fingerprint.value),
        candidates[0].priority,
        OURS.ip(),
        OURS.port(),
    );
    connection.set_remote_description(now, RTCSessionDescription::offer(offer).unwrap()).unwrap();
    let host = CandidateHostConfig {
        base_config: CandidateConfig {
            network: "udp".to_owned(),
            address: THEIRS.ip().to_string(),
            port: THEIRS.port(),
            component: 1,
            ..Default::default()
        },
        ..Default::default()
    };
    let candidate = host.new_candidate_host().unwrap();
    connection.add_local_candidate(RTCIceCandidate::from(&candidate).to_json().unwrap()).unwrap();
    let answer = connection.create_answer(None).unwrap();
    connection.set_local_description(now, answer).unwrap();
    let sdp = connection.local_description().unwrap().sdp;

    let value = attribute(&sdp, "fingerprint").strip_prefix("sha-256 ").unwrap();
    let value = value.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    let setup = Setup::parse(attribute(&sdp, "setup")).unwrap();
    assert_eq!(setup, if leg_is_client { Setup::Passive } else { Setup::Active });
    let theirs = IceCreds { ufrag: attribute(&sdp, "ice-ufrag").into(), pwd: attribute(&sdp, "ice-pwd").into() };
    leg.set_remote(now, Some(theirs), &[Fingerprint { hash: "sha-256".into(), value, setup: Some(setup) }]);
    add_candidate(&mut leg, now);
    let mut peer = Webrtc {
        connection,
        connected: false,
        received: Vec::new(),
        rtcp: 0,
        channel: None,
        open: false,
        labels: Vec::new(),
        data: Vec::new(),
        closed: 0,
        closing: false,
    };
    peer.drain();
    Call::new(now, leg, peer)
}

fn send(connection: &mut RTCPeerConnection, now: Instant, seq: u16, payload: &[u8]) {
    let id = connection.get_senders().next().unwrap();
    let packet = rtc::rtp::Packet {
        header: rtc::rtp::Header {
            version: 2,
            payload_type: 111,
            sequence_number: seq,
            timestamp: u32::from(seq) * 960,
            ssrc: SSRC,
            ..Default::default()
        },
        payload: bytes::Bytes::copy_from_slice(payload),
    };
    connection.rtp_sender(id).unwrap().write_rtp(now, packet).unwrap();
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
fn a_leg_and_webrtc_rs_talk_in_both_dtls_roles() {
    for leg_is_client in [true, false] {
        let mut call = set_up(leg_is_client, Payload::Sound);
        call.run_for(Duration::from_secs(3));
        let took = call.connected_after();
        println!("client {leg_is_client}: {took:?}");
        assert!(took.is_some_and(|t| t < Duration::from_secs(2)), "{:?}", call.events);
        let (here, there) = call.talk(500);
        assert_eq!((here, there), (500, 500), "client {leg_is_client}");
        assert!(call.foreign.received().iter().all(|p| p == &[0x33; 80]));
        assert!(call.received.iter().all(|p| p == &[0x44; 80]));
        let stats = call.leg.stats(call.now);
        assert!(stats.rtcp.report_age.is_some(), "SRTCP of webrtc: {stats:?}");
        assert!(!call.events.iter().any(|(_, e)| matches!(e, LegEvent::Failed(_) | LegEvent::PathLost)));
    }
}

#[test]
fn files_go_both_ways_between_a_leg_and_webrtc_rs_in_both_dtls_roles() {
    let content: Vec<u8> = (0..700_000u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 16) as u8).collect();
    for leg_is_client in [true, false] {
        let mut call = set_up(leg_is_client, Payload::Data);
        call.exchange(&content);
        println!("client {leg_is_client}: {:?}", call.now - call.start);
        assert!(!call.events.iter().any(|(_, e)| matches!(e, LegEvent::Failed(_) | LegEvent::PathLost)));
    }
}

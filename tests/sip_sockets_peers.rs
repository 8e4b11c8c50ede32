//! SIP's sockets against servers that others wrote: Asterisk 22 and 16 and Kamailio, by every transport they have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

#[path = "common/asterisk.rs"]
mod asterisk;
#[path = "common/kamailio.rs"]
mod kamailio;
#[path = "common/prosody.rs"]
mod prosody;
#[path = "common/sip_party.rs"]
mod sip_party;

use asterisk::{Asterisk, PBX, Version};
use kamailio::{KAM, Kamailio};
use offhook::config::SipFlowLimits;
use offhook::io::sip::{SipNetwork, identity};
use offhook::sip::exchange::{FlowId, Transport};
use offhook::sip::flow::{FlowEvent, FlowFault, Keep};
use prosody::coturn::wanted;
use sip_party::{LIMIT, Party, options};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

fn network(ca_file: Option<&Path>) -> SipNetwork {
    SipNetwork { client_tls: Some(identity::client(ca_file, None).unwrap()), ..SipNetwork::default() }
}

/// A server, its domain and where it listens.
struct Server {
    what: &'static str,
    ip: Ipv4Addr,
    domain: &'static str,
    ca_file: std::path::PathBuf,
    ports: &'static [(Transport, u16)],
}

impl Server {
    fn asterisk(what: &'static str, pbx: &Asterisk) -> Self {
        let ports = &[
            (Transport::Udp, 5060),
            (Transport::Tcp, 5060),
            (Transport::Tls, 5061),
            (Transport::Ws, 8088),
            (Transport::Wss, 8089),
        ];
        Self { what, ip: pbx.ip, domain: PBX, ca_file: pbx.ca_file.clone(), ports }
    }

    fn kamailio(proxy: &Kamailio) -> Self {
        let ports = &[(Transport::Udp, 5060), (Transport::Tcp, 5060), (Transport::Tls, 5061), (Transport::Ws, 8080)];
        Self { what: "Kamailio", ip: proxy.ip, domain: KAM, ca_file: proxy.ca_file.clone(), ports }
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip.into(), port)
    }
}

/// Sends OPTIONS and waits for whatever answer.
async fn asks(party: &mut Party, flow: FlowId, remote: SocketAddr, transport: Transport, domain: &str, number: u32) {
    let local = party.flows.state(flow).unwrap().local.unwrap();
    let request = String::from_utf8(options(number, 0)).unwrap();
    let request = request
        .replace("SIP/2.0/TCP 127.0.0.1;", &format!("SIP/2.0/{} {local};rport;", transport.via()))
        .replace("sip:bob@pbx.test", &format!("sip:{domain}"))
        .replace("@pbx.test", &format!("@{domain}"))
        .replace("Call-ID: c", &format!("Contact: <sip:alice@{local}>\r\nCall-ID: {}-", transport.via()));
    party.send(flow, remote, request.into_bytes());
    assert_eq!(party.message().await.0, number);
}

#[tokio::test]
async fn asterisk_and_kamailio_answer_by_every_transport_before_and_after_keep_alives() {
    if !wanted("asterisk_and_kamailio_answer_by_every_transport_before_and_after_keep_alives") {
        return;
    }
    let (new, old, proxy) = (Asterisk::start(), Asterisk::start_version(Version::Old), Kamailio::start());
    let servers =
        [Server::asterisk("Asterisk 22", &new), Server::asterisk("Asterisk 16", &old), Server::kamailio(&proxy)];
    for server in &servers {
        for &(transport, port) in server.ports {
            let soon = (Duration::from_millis(200), Duration::from_millis(200));
            let limits = SipFlowLimits {
                stream_keep_alive: soon,
                datagram_keep_alive: soon,
                pong: Duration::from_millis(500),
                ..SipFlowLimits::default()
            };
            let mut party = Party::with(network(Some(&server.ca_file)), limits);
            let remote = server.at(port);
            let flow = party.open(transport, remote, server.domain).await;
            let flow = flow.unwrap_or_else(|why| panic!("{} {transport:?}: {why:?}", server.what));
            party.flows.keep(Instant::now(), flow, remote, Keep::Quiet);
            asks(&mut party, flow, remote, transport, server.domain, 1).await;
            // Five pings or so: none of them ends it or is taken for a message.
            let event = party.event_within(Duration::from_millis(1200)).await;
            assert!(event.is_none(), "{} {transport:?}: {event:?}", server.what);
            asks(&mut party, flow, remote, transport, server.domain, 2).await;
            // Where an answer is demanded, the servers that never give one are found out.
            if transport != Transport::Udp {
                party.flows.keep(Instant::now(), flow, remote, Keep::Pong);
                let event = party.event_within(Duration::from_millis(1200)).await;
                let pongs = !matches!(event, Some(FlowEvent::Down { why: FlowFault::Silent, .. }));
                // Asterisk never answers one: to demand it by default would end every connection to it.
                assert_eq!(pongs, server.what == "Kamailio", "{} {transport:?}: {event:?}", server.what);
            }
        }
    }
}

#[tokio::test]
async fn the_certificates_of_asterisk_and_kamailio_count_for_their_names_and_their_ca_alone() {
    if !wanted("the_certificates_of_asterisk_and_kamailio_count_for_their_names_and_their_ca_alone") {
        return;
    }
    let (pbx, proxy) = (Asterisk::start(), Kamailio::start());
    for server in [Server::asterisk("Asterisk 22", &pbx), Server::kamailio(&proxy)] {
        for &(transport, port) in server.ports.iter().filter(|(t, _)| t.is_secure()) {
            let address = server.ip.to_string();
            let rows = [
                (Some(server.ca_file.as_path()), server.domain, true),
                (Some(server.ca_file.as_path()), &address, true),
                (Some(server.ca_file.as_path()), "other.test", false),
                (None, server.domain, false),
            ];
            for (ca_file, name, fine) in rows {
                let mut party = Party::new(network(ca_file));
                let opened = party.open(transport, server.at(port), name).await;
                match opened {
                    Ok(_) => assert!(fine, "{} {transport:?} {name}", server.what),
                    Err(FlowFault::Certificate(_)) => assert!(!fine, "{} {transport:?} {name}", server.what),
                    Err(other) => panic!("{} {transport:?} {name}: {other:?}", server.what),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_stands_still_is_noticed_by_its_silence_and_one_that_is_killed_at_once() {
    if !wanted("a_server_that_stands_still_is_noticed_by_its_silence_and_one_that_is_killed_at_once") {
        return;
    }
    let mut pbx = Asterisk::start();
    let limits = SipFlowLimits {
        stream_keep_alive: (Duration::from_millis(500), Duration::from_millis(500)),
        pong: Duration::from_secs(1),
        ..SipFlowLimits::default()
    };
    let remote = SocketAddr::new(pbx.ip.into(), 5060);
    let mut party = Party::with(network(None), limits);
    let flow = party.open(Transport::Tcp, remote, "").await.unwrap();
    asks(&mut party, flow, remote, Transport::Tcp, PBX, 1).await;
    pbx.freeze();
    party.flows.keep(Instant::now(), flow, remote, Keep::Pong);
    let start = Instant::now();
    let event = party.event().await;
    assert!(matches!(event, FlowEvent::Down { why: FlowFault::Silent, .. }), "{event:?}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    pbx.go_on();
    let flow = party.open(Transport::Tcp, remote, "").await.unwrap();
    asks(&mut party, flow, remote, Transport::Tcp, PBX, 2).await;
    pbx.kill();
    let start = Instant::now();
    let event = party.event_within(LIMIT).await;
    assert!(matches!(event, Some(FlowEvent::Down { .. })), "{event:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let why = party.open(Transport::Tcp, remote, "").await.unwrap_err();
    assert!(matches!(why, FlowFault::Unreachable(_)), "{why:?}");
}

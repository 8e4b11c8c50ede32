//! Connections of SIP in virtual time: reuse, framing, keep-alives, death, floods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use offhook::config::SipFlowLimits;
use offhook::sip::exchange::{FlowId, Transport};
use offhook::sip::flow::{FlowEvent, FlowFault, Flows, Keep, SipInput, SipOutput};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PING: &[u8] = b"\r\n\r\n";
const PONG: &[u8] = b"\r\n";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn options(number: u32, body: &str) -> Vec<u8> {
    format!(
        "OPTIONS sip:bob@pbx.example SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.7;branch=z9hG4bK{number}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:alice@pbx.example>;tag=1\r\nTo: <sip:bob@pbx.example>\r\nCall-ID: c{number}\r\n\
         CSeq: {number} OPTIONS\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Flows and a clock.
struct World {
    flows: Flows,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::with(SipFlowLimits::default())
    }

    fn with(limits: SipFlowLimits) -> Self {
        Self { flows: Flows::new([7; 32], limits), now: Instant::now() }
    }

    fn outputs(&mut self) -> Vec<SipOutput> {
        std::iter::from_fn(|| self.flows.poll_transmit()).collect()
    }

    fn events(&mut self) -> Vec<FlowEvent> {
        std::iter::from_fn(|| self.flows.poll_event()).collect()
    }

    fn messages(&mut self) -> usize {
        self.events().iter().filter(|e| matches!(e, FlowEvent::Message { .. })).count()
    }

    /// What was the cause if a flow went down.
    fn downfall(&mut self) -> Option<(FlowId, FlowFault)> {
        self.events().into_iter().find_map(|e| match e {
            FlowEvent::Down { flow, why } => Some((flow, why)),
            FlowEvent::Open { .. }
            | FlowEvent::Message { .. }
            | FlowEvent::Malformed { .. }
            | FlowEvent::Moved { .. } => None,
        })
    }

    fn input(&mut self, input: SipInput<'_>) {
        self.flows.handle_input(self.now, input);
    }

    fn bytes(&mut self, flow: FlowId, source: SocketAddr, bytes: &[u8]) {
        self.input(SipInput::Bytes { flow, source, bytes });
    }

    /// An open flow to `remote`.
    fn open(&mut self, transport: Transport, remote: &str, name: &str) -> FlowId {
        let flow = self.flows.flow_to(self.now, transport, addr(remote), name).unwrap();
        assert!(matches!(self.outputs()[..], [SipOutput::Open { .. }]));
        self.input(SipInput::Opened { flow, local: addr("192.0.2.7:40000") });
        assert!(matches!(self.events()[..], [FlowEvent::Open { .. }]));
        flow
    }

    fn listener(&mut self, transport: Transport, local: &str) -> FlowId {
        let flow = self.flows.listen(self.now, transport, addr(local)).unwrap();
        self.input(SipInput::Opened { flow, local: addr(local) });
        self.outputs();
        self.events();
        flow
    }

    fn accept(&mut self, listener: FlowId, number: u64, remote: &str, names: &[&str]) -> FlowId {
        let flow = FlowId(1 << 63 | number);
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        let local = addr("192.0.2.7:5061");
        self.input(SipInput::Accepted { listener, flow, local, remote: addr(remote), names });
        flow
    }

    /// The next deadline within `limit`, carried out; what it made.
    fn sleep(&mut self, limit: Duration) -> Option<Vec<SipOutput>> {
        let at = self.flows.poll_timeout()?;
        if at > self.now + limit {
            return None;
        }
        self.now = self.now.max(at);
        self.flows.handle_timeout(self.now);
        Some(self.outputs())
    }

    /// Sleeps until something is sent, or `limit` is over.
    fn sleep_until_sent(&mut self, limit: Duration) -> Option<(Duration, Vec<SipOutput>)> {
        let start = self.now;
        while let Some(outputs) = self.sleep((start + limit).saturating_duration_since(self.now)) {
            if !outputs.is_empty() {
                return Some((self.now - start, outputs));
            }
        }
        self.now = start + limit;
        None
    }
}

fn bytes_of(output: &SipOutput) -> Option<&[u8]> {
    match output {
        SipOutput::Send { bytes, .. } => Some(bytes.as_slice()),
        SipOutput::Open { .. } | SipOutput::Listen { .. } | SipOutput::Close(_) | SipOutput::LookUp(_) => None,
    }
}

fn sent(outputs: &[SipOutput]) -> Vec<&[u8]> {
    outputs.iter().filter_map(bytes_of).collect()
}

#[test]
fn messages_wait_for_the_connection_and_go_out_in_order_when_it_stands() {
    let mut world = World::new();
    let remote = addr("192.0.2.1:5060");
    let flow = world.flows.flow_to(world.now, Transport::Tcp, remote, "").unwrap();
    for text in [b"one", b"two"] {
        world.flows.send(world.now, flow, remote, text.to_vec()).unwrap();
    }
    assert_eq!(world.outputs(), [SipOutput::Open { flow, transport: Transport::Tcp, remote, name: String::new() }]);
    assert_eq!(world.flows.state(flow).unwrap().local, None);
    world.input(SipInput::Opened { flow, local: addr("192.0.2.7:1") });
    assert_eq!(sent(&world.outputs()), [b"one", b"two"]);
    assert_eq!(world.flows.state(flow).unwrap().local, Some(addr("192.0.2.7:1")));
}

#[test]
fn too_much_that_waits_for_a_connection_is_refused() {
    let mut world = World::with(SipFlowLimits { waiting_bytes: 1000, ..SipFlowLimits::default() });
    let remote = addr("192.0.2.1:5060");
    let flow = world.flows.flow_to(world.now, Transport::Tcp, remote, "").unwrap();
    world.flows.send(world.now, flow, remote, vec![0; 900]).unwrap();
    assert_eq!(world.flows.send(world.now, flow, remote, vec![0; 200]), Err(FlowFault::Full));
    world.flows.send(world.now, flow, remote, vec![0; 100]).unwrap();
}

#[test]
fn a_connection_that_does_not_open_in_time_is_given_up_before_a_transaction_is() {
    let mut world = World::new();
    let flow = world.flows.flow_to(world.now, Transport::Tls, addr("192.0.2.1:5061"), "pbx.example").unwrap();
    world.outputs();
    let (after, outputs) = world.sleep_until_sent(secs(32)).unwrap();
    assert_eq!((after, outputs), (secs(15), vec![SipOutput::Close(flow)]));
    assert!(matches!(world.downfall(), Some((f, FlowFault::Unreachable(_))) if f == flow));
    assert!(world.flows.is_empty());
    assert_eq!(world.flows.poll_timeout(), None);
}

#[test]
fn a_connection_is_used_again_for_the_same_server_and_never_for_another_name() {
    let mut world = World::new();
    let flow = world.open(Transport::Tls, "192.0.2.1:5061", "pbx.example");
    let again = |world: &mut World, transport, remote: &str, name: &str| {
        world.flows.flow_to(world.now, transport, addr(remote), name).unwrap()
    };
    assert_eq!(again(&mut world, Transport::Tls, "192.0.2.1:5061", "PBX.example"), flow);
    // RFC 5923 §8.1: the certificate was checked for one name. The same address under another name is another server.
    assert_ne!(again(&mut world, Transport::Tls, "192.0.2.1:5061", "other.example"), flow);
    assert_ne!(again(&mut world, Transport::Tls, "192.0.2.2:5061", "pbx.example"), flow);
    assert_ne!(again(&mut world, Transport::Tcp, "192.0.2.1:5061", "pbx.example"), flow);
    // One that is gone is not used any more.
    world.input(SipInput::Closed { flow, why: "reset".into() });
    assert_ne!(again(&mut world, Transport::Tls, "192.0.2.1:5061", "pbx.example"), flow);
}

#[test]
fn one_udp_socket_serves_every_port_of_a_host_and_a_listener_serves_all() {
    let mut world = World::new();
    let flow = world.open(Transport::Udp, "192.0.2.1:5060", "");
    let to =
        |world: &mut World, remote: &str| world.flows.flow_to(world.now, Transport::Udp, addr(remote), "").unwrap();
    assert_eq!(to(&mut world, "192.0.2.1:5070"), flow);
    assert_ne!(to(&mut world, "192.0.2.2:5060"), flow);
    let mut world = World::new();
    let listener = world.listener(Transport::Udp, "192.0.2.7:5060");
    assert_eq!(to(&mut world, "192.0.2.1:5060"), listener);
    // What cannot be reached from there gets a socket of its own.
    assert_ne!(to(&mut world, "127.0.0.1:5060"), listener);
    assert_ne!(to(&mut world, "[2001:db8::1]:5060"), listener);
}

#[test]
fn what_comes_to_a_shared_socket_belongs_to_the_flow_that_was_opened_through_it() {
    let mut world = World::new();
    let listener = world.listener(Transport::Udp, "0.0.0.0:5060");
    let remote = addr("192.0.2.1:5060");
    let flow = world.flows.flow_to(world.now, Transport::Udp, remote, "").unwrap();
    assert_ne!(flow, listener);
    world.input(SipInput::Opened { flow, local: addr("192.0.2.7:5060") });
    world.events();
    for (source, expected) in [(remote, flow), (addr("192.0.2.99:5060"), listener)] {
        world.bytes(listener, source, &options(1, ""));
        let events = world.events();
        let [FlowEvent::Message { origin, .. }] = &events[..] else { panic!("{events:?}") };
        assert_eq!((origin.flow, origin.source), (expected, source));
    }
}

#[test]
fn an_accepted_connection_is_used_for_requests_only_where_its_certificate_fits() {
    let mut world = World::new();
    let tls = world.listener(Transport::Tls, "192.0.2.7:5061");
    let tcp = world.listener(Transport::Tcp, "192.0.2.7:5060");
    let advertised = addr("192.0.2.50:5061");
    let proven = world.accept(tls, 1, "192.0.2.50:33333", &["Biloxi.example"]);
    let nameless = world.accept(tls, 2, "192.0.2.51:33333", &[]);
    let plain = world.accept(tcp, 3, "192.0.2.52:33333", &["biloxi.example"]);
    assert!(world.flows.alias(proven, advertised));
    // RFC 5923 §9: without an authenticated name anybody could pull requests for others to himself.
    assert!(!world.flows.alias(nameless, advertised));
    assert!(!world.flows.alias(plain, advertised));
    let to = |world: &mut World, name: &str| world.flows.flow_to(world.now, Transport::Tls, advertised, name).unwrap();
    assert_eq!(to(&mut world, "biloxi.example"), proven);
    assert_ne!(to(&mut world, "atlanta.example"), proven);
    world.flows.close(proven);
    assert_ne!(to(&mut world, "biloxi.example"), proven);
}

#[test]
fn messages_are_cut_out_of_a_stream_however_it_is_split() {
    let all: Vec<u8> = (1..=5).flat_map(|n| [options(n, "body"), PING.to_vec()].concat()).collect();
    for piece in [1, 2, 3, 7, 100, 1000, all.len()] {
        let mut world = World::new();
        let flow = world.open(Transport::Tcp, "192.0.2.1:5060", "");
        let mut messages = 0;
        for bytes in all.chunks(piece) {
            world.bytes(flow, addr("192.0.2.1:5060"), bytes);
            messages += world.messages();
        }
        assert_eq!(messages, 5, "in pieces of {piece}");
        // Single CRLFs are pongs when they come alone; every double one was answered.
        assert!(!sent(&world.outputs()).is_empty());
    }
}

#[test]
fn a_ping_is_answered_on_streams_and_websockets_and_not_on_udp() {
    for (transport, answered) in [
        (Transport::Tcp, true),
        (Transport::Tls, true),
        (Transport::Ws, true),
        (Transport::Wss, true),
        (Transport::Udp, false),
    ] {
        let mut world = World::new();
        let flow = world.open(transport, "192.0.2.1:5060", "pbx.example");
        world.bytes(flow, addr("192.0.2.1:5060"), PING);
        let outputs = world.outputs();
        assert_eq!(sent(&outputs), if answered { vec![PONG] } else { vec![] }, "{transport:?}");
        assert!(world.events().is_empty());
    }
}

#[test]
fn a_stream_pings_within_95_to_120_s_and_a_flow_without_a_pong_is_dead_10_s_later() {
    let mut world = World::new();
    let flow = world.open(Transport::Tls, "192.0.2.1:5061", "pbx.example");
    world.flows.keep(world.now, flow, addr("192.0.2.1:5061"), Keep::Pong);
    let mut intervals = Vec::new();
    for _ in 0..50 {
        let (after, outputs) = world.sleep_until_sent(secs(200)).unwrap();
        assert_eq!(sent(&outputs), [PING]);
        assert!((secs(95)..=secs(120)).contains(&after), "{after:?}");
        intervals.push(after);
        world.bytes(flow, addr("192.0.2.1:5061"), PONG);
        assert!(world.events().is_empty());
    }
    intervals.dedup();
    assert!(intervals.len() > 30, "clients must not stay in step");
    world.sleep_until_sent(secs(200)).unwrap();
    let (after, outputs) = world.sleep_until_sent(secs(200)).unwrap();
    assert_eq!((after, outputs), (secs(10), vec![SipOutput::Close(flow)]));
    assert_eq!(world.downfall(), Some((flow, FlowFault::Silent)));
}

#[test]
fn any_message_answers_a_ping_too() {
    let mut world = World::new();
    let remote = addr("192.0.2.1:5060");
    let flow = world.open(Transport::Tcp, "192.0.2.1:5060", "");
    world.flows.keep(world.now, flow, remote, Keep::Pong);
    world.sleep_until_sent(secs(200)).unwrap();
    world.bytes(flow, remote, &options(1, ""));
    let (after, outputs) = world.sleep_until_sent(secs(200)).unwrap();
    assert_eq!(sent(&outputs), [PING]);
    assert!(after >= secs(95));
}

#[test]
fn a_server_that_never_answers_pings_is_not_called_dead_for_it_but_one_that_did_is() {
    let mut world = World::new();
    let remote = addr("192.0.2.1:5060");
    let flow = world.open(Transport::Tcp, "192.0.2.1:5060", "");
    for _ in 0..20 {
        let (_, outputs) = world.sleep_until_sent(secs(200)).unwrap();
        assert_eq!(sent(&outputs), [PING]);
    }
    assert!(world.events().is_empty());
    world.bytes(flow, remote, PONG);
    world.sleep_until_sent(secs(200)).unwrap();
    let (after, _) = world.sleep_until_sent(secs(200)).unwrap();
    assert_eq!(after, secs(10));
    assert_eq!(world.downfall(), Some((flow, FlowFault::Silent)));
}

/// A STUN success response with an address.
fn stun_answer(request: &[u8], mapped: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(mapped) = mapped else { panic!("IPv4") };
    let mut out = vec![0x01, 0x01, 0, 12];
    out.extend_from_slice(&request[4..20]);
    out.extend_from_slice(&[0x00, 0x20, 0, 8, 0, 1]);
    out.extend_from_slice(&(mapped.port() ^ 0x2112).to_be_bytes());
    out.extend_from_slice(&(u32::from(*mapped.ip()) ^ 0x2112_A442).to_be_bytes());
    out
}

#[test]
fn a_udp_flow_asks_by_stun_within_24_to_29_s_and_notices_that_the_nat_moved_it() {
    let mut world = World::new();
    let remote = addr("192.0.2.1:5060");
    let flow = world.open(Transport::Udp, "192.0.2.1:5060", "");
    world.flows.keep(world.now, flow, remote, Keep::Stun);
    for (mapped, moved) in [("198.51.100.1:1000", false), ("198.51.100.1:1000", false), ("198.51.100.1:2000", true)] {
        let (after, outputs) = world.sleep_until_sent(secs(60)).unwrap();
        assert!((secs(24)..=secs(29)).contains(&after), "{after:?}");
        let request = sent(&outputs)[0].to_vec();
        assert_eq!(&request[..2], [0, 1], "a Binding request");
        // A stranger's answer, and one to another question, count for nothing.
        world.bytes(flow, addr("192.0.2.66:5060"), &stun_answer(&request, addr("203.0.113.1:1")));
        let mut other = request.clone();
        other[19] ^= 1;
        world.bytes(flow, remote, &stun_answer(&other, addr("203.0.113.1:1")));
        assert!(world.events().is_empty());
        world.bytes(flow, remote, &stun_answer(&request, addr(mapped)));
        let events = world.events();
        match &events[..] {
            [] => assert!(!moved),
            [FlowEvent::Moved { flow: f, public, .. }] => {
                assert!(moved);
                assert_eq!((*f, *public), (flow, addr(mapped)));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_udp_flow_without_an_answer_to_stun_is_dead_after_the_retransmissions_of_rfc_8489() {
    let mut world = World::new();
    let remote = addr("192.0.2.1:5060");
    let flow = world.open(Transport::Udp, "192.0.2.1:5060", "");
    world.flows.keep(world.now, flow, remote, Keep::Stun);
    world.sleep_until_sent(secs(60)).unwrap();
    let start = world.now;
    let mut requests = 1;
    let died = loop {
        let (_, outputs) = world.sleep_until_sent(secs(60)).unwrap();
        if outputs == [SipOutput::Close(flow)] {
            break world.now - start;
        }
        requests += 1;
    };
    assert_eq!((requests, died), (7, Duration::from_millis(39_500)));
    assert_eq!(world.downfall(), Some((flow, FlowFault::Silent)));
}

#[test]
fn quiet_keep_alives_of_udp_hold_the_nat_open_and_demand_nothing() {
    let mut world = World::new();
    let remote = addr("192.0.2.1:5060");
    let flow = world.open(Transport::Udp, "192.0.2.1:5060", "");
    assert!(world.sleep_until_sent(secs(600)).is_none(), "nobody asked for any");
    world.flows.keep(world.now, flow, remote, Keep::Quiet);
    for _ in 0..50 {
        let (after, outputs) = world.sleep_until_sent(secs(60)).unwrap();
        assert!((secs(24)..=secs(29)).contains(&after), "{after:?}");
        assert_eq!(sent(&outputs), [PING]);
        // The same wish again changes nothing.
        world.flows.keep(world.now, flow, remote, Keep::Quiet);
    }
    world.flows.keep(world.now, flow, remote, Keep::None);
    assert!(world.sleep_until_sent(secs(600)).is_none());
}

#[test]
fn a_peer_that_sends_one_byte_a_second_is_cut_and_holds_no_memory() {
    let mut world = World::new();
    let listener = world.listener(Transport::Tcp, "192.0.2.7:5060");
    // A newcomer, and one that was honest before.
    for honest_before in [false, true] {
        let remote = addr("192.0.2.66:1000");
        let flow = world.accept(listener, u64::from(honest_before), "192.0.2.66:1000", &[]);
        if honest_before {
            world.bytes(flow, remote, &options(1, ""));
            assert_eq!(world.messages(), 1);
        }
        let start = world.now;
        for byte in options(2, "") {
            world.bytes(flow, remote, &[byte]);
            world.now += secs(1);
            while world.flows.poll_timeout().is_some_and(|at| at <= world.now) {
                world.flows.handle_timeout(world.now);
            }
            if let Some((down, why)) = world.downfall() {
                assert_eq!(down, flow);
                assert!(matches!(why, FlowFault::Misbehaved(_) | FlowFault::Idle), "{why:?}");
                break;
            }
        }
        assert!(world.now - start <= secs(17), "{:?}", world.now - start);
        assert_eq!(world.outputs().last(), Some(&SipOutput::Close(flow)));
        assert_eq!(world.flows.len(), 1, "only the listener is left");
    }
}

#[test]
fn whoever_connects_and_says_nothing_is_shown_the_door() {
    let mut world = World::new();
    let listener = world.listener(Transport::Tls, "192.0.2.7:5061");
    let flow = world.accept(listener, 1, "192.0.2.66:1000", &[]);
    let (after, outputs) = world.sleep_until_sent(secs(60)).unwrap();
    assert_eq!((after, outputs), (secs(16), vec![SipOutput::Close(flow)]));
    // One that pings stays.
    let flow = world.accept(listener, 2, "192.0.2.66:1000", &[]);
    world.bytes(flow, addr("192.0.2.66:1000"), PING);
    world.outputs();
    assert!(world.sleep_until_sent(secs(600)).is_none());
}

#[test]
fn a_stream_that_is_no_sip_is_told_so_and_closed() {
    let mut world = World::new();
    let listener = world.listener(Transport::Tcp, "192.0.2.7:5060");
    let remote = addr("192.0.2.66:1000");
    // Nothing that could be answered.
    let flow = world.accept(listener, 1, "192.0.2.66:1000", &[]);
    world.bytes(flow, remote, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let outputs = world.outputs();
    assert!(outputs.contains(&SipOutput::Close(flow)), "{outputs:?}");
    world.events();
    // A request without Content-Length cannot be delimited (RFC 3261 §18.3), but it can be answered.
    let flow = world.accept(listener, 2, "192.0.2.66:1000", &[]);
    let text = String::from_utf8(options(1, "")).unwrap().replace("Content-Length: 0", "Content-Length: many");
    world.bytes(flow, remote, text.as_bytes());
    let events = world.events();
    assert!(matches!(&events[..], [FlowEvent::Malformed { why, .. }] if why.answer.is_some()), "{events:?}");
    world.flows.send(world.now, flow, remote, b"400".to_vec()).unwrap();
    assert_eq!(sent(&world.outputs()), [b"400"]);
    world.bytes(flow, remote, &options(2, ""));
    assert!(world.events().is_empty(), "nothing of it is read any more");
    let (after, outputs) = world.sleep_until_sent(secs(60)).unwrap();
    assert_eq!((after, outputs), (secs(1), vec![SipOutput::Close(flow)]));
}

#[test]
fn a_connection_that_brings_too_much_that_is_no_sip_is_closed() {
    let mut world = World::new();
    let listener = world.listener(Transport::Ws, "192.0.2.7:8080");
    let remote = addr("192.0.2.66:1000");
    let flow = world.accept(listener, 1, "192.0.2.66:1000", &[]);
    let mut sent = 0;
    while world.flows.state(flow).is_some() {
        world.bytes(flow, remote, b"no sip at all");
        sent += 1;
        assert!(sent < 100);
    }
    assert_eq!(sent, 33);
}

#[test]
fn connections_of_one_source_are_counted_and_those_of_others_are_not_harmed() {
    let mut world = World::new();
    let listener = world.listener(Transport::Tcp, "192.0.2.7:5060");
    let honest = world.accept(listener, 1, "192.0.2.1:1000", &[]);
    world.bytes(honest, addr("192.0.2.1:1000"), &options(1, ""));
    for n in 0..10_000 {
        world.accept(listener, 100 + n, &format!("192.0.2.66:{}", 1000 + n), &[]);
    }
    let closed = world.outputs().iter().filter(|o| matches!(o, SipOutput::Close(_))).count();
    assert_eq!(closed, 10_000 - 64);
    assert_eq!(world.flows.len(), 2 + 64);
    // One IPv6 host has 2^64 addresses.
    for n in 0..1000 {
        world.accept(listener, 20_000 + n, &format!("[2001:db8::{n:x}]:1000"), &[]);
    }
    assert_eq!(world.flows.len(), 2 + 64 + 64);
    world.outputs();
    world.events();
    world.bytes(honest, addr("192.0.2.1:1000"), &options(2, ""));
    assert_eq!(world.messages(), 1);
    // Those that closed make room again.
    world.input(SipInput::Closed { flow: FlowId(1 << 63 | 100), why: String::new() });
    let again = world.accept(listener, 50_000, "192.0.2.66:9", &[]);
    assert!(world.flows.state(again).is_some());
}

#[test]
fn a_flood_from_everywhere_is_bounded_and_the_silent_make_room_for_newcomers() {
    let mut world = World::new();
    let listener = world.listener(Transport::Tcp, "192.0.2.7:5060");
    let honest = world.accept(listener, 1, "192.0.2.1:1000", &[]);
    world.bytes(honest, addr("192.0.2.1:1000"), &options(1, ""));
    let mut number = 10;
    for turn in 0..5 {
        for n in 0..2000 {
            world.accept(listener, number, &format!("10.{turn}.{}.{}:1000", n / 250, n % 250), &[]);
            number += 1;
        }
        assert!(world.flows.len() <= 1 + 1024, "{}", world.flows.len());
        world.now += secs(20);
        while world.flows.poll_timeout().is_some_and(|at| at <= world.now) {
            world.flows.handle_timeout(world.now);
        }
        world.outputs();
        world.events();
        let newcomer = world.accept(listener, number, "192.0.2.2:1000", &[]);
        number += 1;
        assert!(world.flows.state(newcomer).is_some(), "the silent ones are gone after 16 s");
    }
    world.events();
    world.bytes(honest, addr("192.0.2.1:1000"), &options(2, ""));
    assert_eq!(world.messages(), 1);
}

#[test]
fn our_own_connections_are_bounded_and_those_that_rest_make_room() {
    let mut world = World::new();
    let to = |world: &mut World, n: usize| {
        let remote = addr(&format!("10.0.{}.{}:5060", n / 250, n % 250 + 1));
        world.flows.flow_to(world.now, Transport::Tcp, remote, "")
    };
    let kept = to(&mut world, 0).unwrap();
    world.input(SipInput::Opened { flow: kept, local: addr("192.0.2.7:1") });
    world.flows.keep(world.now, kept, addr("10.0.0.1:5060"), Keep::Pong);
    for n in 1..256 {
        let flow = to(&mut world, n).unwrap();
        world.input(SipInput::Opened { flow, local: addr("192.0.2.7:1") });
    }
    assert_eq!(to(&mut world, 256), Err(FlowFault::Full));
    world.now += secs(61);
    let flow = to(&mut world, 257).unwrap();
    assert_eq!(world.flows.len(), 256);
    assert!(world.flows.state(flow).is_some());
    assert!(world.flows.state(kept).is_some(), "what a registration lives on is not given away");
}

#[test]
fn a_connection_at_rest_is_closed_in_the_end_unless_it_is_kept() {
    let mut world = World::new();
    let remote = addr("192.0.2.1:5060");
    let flow = world.open(Transport::Udp, "192.0.2.1:5060", "");
    let (after, outputs) = world.sleep_until_sent(secs(10_000)).unwrap();
    assert_eq!((after, outputs), (secs(3700), vec![SipOutput::Close(flow)]));
    assert_eq!(world.downfall(), Some((flow, FlowFault::Idle)));
    let flow = world.open(Transport::Udp, "192.0.2.1:5060", "");
    world.flows.keep(world.now, flow, remote, Keep::Quiet);
    for _ in 0..300 {
        world.sleep_until_sent(secs(60)).unwrap();
    }
    assert!(world.flows.state(flow).is_some());
}

#[test]
fn what_the_shell_says_of_flows_that_nobody_knows_does_nothing() {
    let mut world = World::new();
    let strange = FlowId(99);
    world.input(SipInput::Opened { flow: strange, local: addr("192.0.2.7:1") });
    world.input(SipInput::Failed { flow: strange, why: FlowFault::Idle });
    world.input(SipInput::Closed { flow: strange, why: String::new() });
    world.bytes(strange, addr("192.0.2.1:1"), &options(1, ""));
    assert!(world.events().is_empty() && world.outputs().is_empty());
    // An accepted connection of an unknown listener, or with an id that is not the shell's to give, is closed.
    let listener = world.listener(Transport::Tcp, "192.0.2.7:5060");
    let orphan = world.accept(FlowId(77), 1, "192.0.2.1:1", &[]);
    let ours = FlowId(5);
    let (local, remote) = (addr("192.0.2.7:5060"), addr("192.0.2.1:1"));
    world.input(SipInput::Accepted { listener, flow: ours, local, remote, names: Vec::new() });
    assert_eq!(world.outputs(), [SipOutput::Close(orphan), SipOutput::Close(ours)]);
}

/// A small generator: the sequence follows from the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// Bytes as a peer may send them: good messages, cut ones, changed ones, keep-alives, STUN, noise.
    fn bytes(&mut self) -> Vec<u8> {
        let number = u32::try_from(self.roll(1000)).unwrap();
        let mut bytes = match self.roll(6) {
            0 => PING.to_vec(),
            1 => PONG.to_vec(),
            2 => stun_answer(&[7; 20], addr("198.51.100.1:1000")),
            3 => (0..self.roll(200)).map(|_| u8::try_from(self.roll(256)).unwrap()).collect(),
            _ => options(number, &"x".repeat(usize::try_from(self.roll(3000)).unwrap())),
        };
        for _ in 0..self.roll(4) {
            let length = bytes.len() as u64;
            if length == 0 {
                break;
            }
            let at = usize::try_from(self.roll(length)).unwrap();
            match self.roll(3) {
                0 => bytes[at] = u8::try_from(self.roll(256)).unwrap(),
                1 => bytes.truncate(at),
                _ => {}
            }
        }
        bytes
    }
}

const TRANSPORTS: [Transport; 5] = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];

/// One thing that a user, a peer or the shell may do.
fn happen(world: &mut World, dice: &mut Dice, known: &mut Vec<FlowId>) {
    let any = |dice: &mut Dice, known: &[FlowId]| {
        let at = usize::try_from(dice.roll(known.len() as u64 + 1)).unwrap();
        known.get(at).copied().unwrap_or(FlowId(12_345))
    };
    let transport = TRANSPORTS[usize::try_from(dice.roll(5)).unwrap()];
    let remote = addr(&format!("192.0.2.{}:{}", dice.roll(20), 5060 + dice.roll(3)));
    let local = addr(if dice.roll(4) == 0 { "0.0.0.0:5060" } else { "192.0.2.200:5060" });
    let flow = any(dice, known);
    match dice.roll(12) {
        0 => {
            known.extend(world.flows.flow_to(world.now, transport, remote, ["a.test", "b.test"][dice.roll(2) as usize]))
        }
        1 => known.extend(world.flows.listen(world.now, transport, local)),
        2 | 3 => world.input(SipInput::Opened { flow, local }),
        4 => {
            let flow = FlowId(1 << 63 | dice.roll(300));
            let names = if dice.roll(2) == 0 { vec!["a.test".to_owned()] } else { Vec::new() };
            world.input(SipInput::Accepted { listener: any(dice, known), flow, local, remote, names });
            known.push(flow);
        }
        5 => {
            let keep = [Keep::None, Keep::Quiet, Keep::Pong, Keep::Stun][dice.roll(4) as usize];
            world.flows.keep(world.now, flow, remote, keep);
        }
        6 => drop(world.flows.send(world.now, flow, remote, dice.bytes())),
        7 if dice.roll(4) == 0 => world.input(SipInput::Closed { flow, why: "gone".into() }),
        7 if dice.roll(4) == 0 => world.input(SipInput::Failed { flow, why: FlowFault::Unreachable("no".into()) }),
        7 if dice.roll(4) == 0 => world.flows.close(flow),
        8 => drop(world.flows.alias(flow, remote)),
        _ => {
            let bytes = dice.bytes();
            world.bytes(flow, remote, &bytes);
        }
    }
    if known.len() > 200 {
        known.drain(..100);
    }
}

#[test]
fn whatever_happens_in_whatever_order_is_bounded_and_every_deadline_is_dealt_with() {
    let limits = SipFlowLimits { outgoing: 20, accepted: 30, accepted_per_source: 5, ..SipFlowLimits::default() };
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let mut world = World::with(limits);
        let mut known = Vec::new();
        let mut down = std::collections::BTreeSet::new();
        for _ in 0..2500 {
            happen(&mut world, &mut dice, &mut known);
            world.now += Duration::from_millis(dice.roll(4000));
            world.flows.handle_timeout(world.now);
            assert!(world.flows.poll_timeout().is_none_or(|at| at > world.now), "seed {seed}: a deadline is left");
            assert!(world.flows.len() <= limits.outgoing + limits.accepted, "seed {seed}: {}", world.flows.len());
            world.outputs();
            for event in world.events() {
                match event {
                    FlowEvent::Down { flow, .. } => {
                        assert!(world.flows.state(flow).is_none(), "seed {seed}: down, and still there");
                        // Ids of accepted connections are the shell's, which gives them again here.
                        assert!(flow.0 >> 63 == 1 || down.insert(flow), "seed {seed}: down twice");
                    }
                    FlowEvent::Open { flow, local } => {
                        assert!(world.flows.state(flow).is_none_or(|s| s.local == Some(local)), "seed {seed}");
                    }
                    FlowEvent::Message { .. } | FlowEvent::Malformed { .. } | FlowEvent::Moved { .. } => {}
                }
            }
        }
        // Left alone, everything that is not kept goes away by itself.
        world.now += secs(20_000);
        for _ in 0..50 {
            world.now += secs(50);
            world.flows.handle_timeout(world.now);
        }
        let listeners_and_kept = world.flows.len();
        assert!(listeners_and_kept <= limits.outgoing, "seed {seed}: {listeners_and_kept}");
    }
}

//! The gatherer against a real TURN server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "common/coturn.rs"]
#[allow(dead_code, unreachable_pub)]
mod coturn;

use coturn::Coturn;
use offhook::config::Secret;
use offhook::transport::gather::{GatherEvent, GatherPolicy, Gatherer, IceServer, IceServerKind, Routed};
use offhook::transport::stun::ServerFault;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// One socket and its gatherer, driven in real time.
struct Client {
    socket: UdpSocket,
    gatherer: Gatherer,
    events: Vec<GatherEvent>,
    received: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    sent_first_bytes: Vec<u8>,
}

impl Client {
    fn new(ip: &str, servers: Vec<IceServer>, relay_only: bool) -> Self {
        let ip: IpAddr = ip.parse().unwrap();
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let policy = GatherPolicy { relay_only, lab: true, ..GatherPolicy::default() };
        let mut gatherer = Gatherer::new([9; 32], servers, policy);
        gatherer.handle_sockets(Instant::now(), &[socket.local_addr().unwrap()]);
        Self { socket, gatherer, events: Vec::new(), received: Vec::new(), sent_first_bytes: Vec::new() }
    }

    fn step(&mut self) {
        while let Some(transmit) = self.gatherer.poll_transmit() {
            self.sent_first_bytes.push(transmit.contents[0]);
            self.socket.send_to(&transmit.contents, transmit.destination).unwrap();
        }
        self.events.extend(std::iter::from_fn(|| self.gatherer.poll_event()));
        let mut buffer = [0; 2048];
        if let Ok((length, source)) = self.socket.recv_from(&mut buffer) {
            let local = self.socket.local_addr().unwrap();
            match self.gatherer.handle_datagram(Instant::now(), local, source, &buffer[..length]) {
                Routed::Relayed { local, source, payload } => {
                    self.received.push((local, source, buffer[payload].to_vec()));
                }
                Routed::Consumed => {}
                Routed::NotOurs => panic!("a datagram from {source}"),
            }
        }
        if self.gatherer.poll_timeout().is_some_and(|(at, _)| at <= Instant::now()) {
            self.gatherer.handle_timeout(Instant::now());
        }
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(10), "no {what}; so far {:?}", self.events);
            self.step();
        }
    }

    fn gather(&mut self) {
        self.run_until("end of gathering", |it| it.events.contains(&GatherEvent::Complete));
    }

    fn relayed(&self) -> SocketAddr {
        let found = self.events.iter().find_map(|event| match event {
            GatherEvent::Relayed { addr, .. } => Some(*addr),
            GatherEvent::Host { .. }
            | GatherEvent::ServerReflexive { .. }
            | GatherEvent::Complete
            | GatherEvent::ServerFailed { .. }
            | GatherEvent::RelayLost { .. } => None,
        });
        found.unwrap_or_else(|| panic!("no relay: {:?}", self.events))
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let mut out = Vec::new();
        if let Some((local, destination)) = self.gatherer.route(Instant::now(), from, to, payload, &mut out) {
            assert_eq!(local, self.socket.local_addr().unwrap());
            self.sent_first_bytes.push(out[0]);
            self.socket.send_to(&out, destination).unwrap();
        }
    }
}

fn turn(server: &Coturn) -> IceServer {
    IceServer {
        kind: IceServerKind::Turn,
        addr: server.addr,
        username: Some(server.user.clone()),
        password: Some(Secret::new(server.password.clone())),
    }
}

fn peer(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// Both ways through the relay: first as indications, then over a channel; then the relay is given back.
fn a_relay_carries_both_ways(server: &Coturn) {
    let mut client = Client::new("127.0.0.1", vec![turn(server)], false);
    let start = Instant::now();
    client.gather();
    println!("allocated in {:?}", start.elapsed());
    let relayed = client.relayed();
    assert_eq!(relayed.ip(), server.addr.ip());
    let peer = peer("127.0.0.1");
    let peer_addr = peer.local_addr().unwrap();
    let mut buffer = [0; 2048];

    // A connectivity check (first byte 0) goes as a Send indication, without a channel.
    client.send(relayed, peer_addr, &[0, 1, 2, 3, 4]);
    client.step();
    let (length, source) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], source), (&[0, 1, 2, 3, 4][..], relayed), "the peer sees the relay's address");
    peer.send_to(&[0, 9, 9], relayed).unwrap();
    client.run_until("data indication", |it| it.received.len() == 1);
    assert_eq!(client.received[0], (relayed, peer_addr, vec![0, 9, 9]));

    // Media asks for a channel; once it is bound, ChannelData flows in both directions.
    let media: Vec<u8> = (0..1200u16).map(|it| 0x80 | (it & 0x7F) as u8).collect();
    client.send(relayed, peer_addr, &media);
    client.step();
    let (length, _) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], &media[..]);
    for _ in 0..20 {
        client.step();
    }
    client.send(relayed, peer_addr, &media);
    assert!((0x40..0x50).contains(client.sent_first_bytes.last().unwrap()), "not ChannelData");
    let (length, source) = peer.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], source), (&media[..], relayed));
    peer.send_to(&media, relayed).unwrap();
    client.run_until("channel data", |it| it.received.len() == 2);
    assert_eq!(client.received[1], (relayed, peer_addr, media.clone()));

    // The server knows the allocation: a probe is answered and changes nothing.
    client.gatherer.probe(Instant::now());
    for _ in 0..10 {
        client.step();
    }
    assert_eq!(client.relayed(), relayed);

    // Refresh(0): answered at once, and the server closes the relay's port soon after.
    client.gatherer.close(Instant::now());
    let start = Instant::now();
    client.run_until("release", |it| it.gatherer.is_closed());
    assert!(start.elapsed() < Duration::from_secs(1), "the release was not answered");
    while UdpSocket::bind(relayed).is_err() {
        assert!(start.elapsed() < Duration::from_secs(8), "the relay's port is still open");
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("relay port closed {:?} after the release", start.elapsed());
    assert!(!client.events.iter().any(|it| matches!(it, GatherEvent::RelayLost { .. })));
}

#[test]
fn a_relay_of_a_fixed_user_carries_both_ways() {
    if coturn::wanted("a_relay_of_a_fixed_user_carries_both_ways") {
        a_relay_carries_both_ways(&Coturn::start("127.0.0.1".parse().unwrap()));
    }
}

#[test]
fn a_relay_with_rest_credentials_carries_both_ways() {
    if coturn::wanted("a_relay_with_rest_credentials_carries_both_ways") {
        let server = Coturn::start_rest("127.0.0.1".parse().unwrap());
        assert!(server.secret.is_some());
        a_relay_carries_both_ways(&server);
    }
}

#[test]
fn a_relay_over_ipv6_carries_both_ways() {
    if coturn::wanted("a_relay_over_ipv6_carries_both_ways") {
        let server = Coturn::start("::1".parse().unwrap());
        let mut client = Client::new("::1", vec![turn(&server)], true);
        client.gather();
        let relayed = client.relayed();
        assert!(relayed.is_ipv6());
        let peer = peer("::1");
        client.send(relayed, peer.local_addr().unwrap(), b"\x80 over IPv6");
        client.step();
        let mut buffer = [0; 64];
        let (length, source) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], source), (&b"\x80 over IPv6"[..], relayed));
        peer.send_to(b"back", relayed).unwrap();
        client.run_until("data", |it| !it.received.is_empty());
        assert_eq!(client.received[0], (relayed, peer.local_addr().unwrap(), b"back".to_vec()));
    }
}

#[test]
fn a_wrong_password_fails_at_once_and_says_so() {
    if coturn::wanted("a_wrong_password_fails_at_once_and_says_so") {
        let server = Coturn::start("127.0.0.1".parse().unwrap());
        let mut config = turn(&server);
        config.password = Some(Secret::new("not the password"));
        let mut client = Client::new("127.0.0.1", vec![config], true);
        let start = Instant::now();
        client.gather();
        assert!(start.elapsed() < Duration::from_secs(2));
        let why = ServerFault::WrongCredentials;
        assert_eq!(client.events, [GatherEvent::ServerFailed { server: server.addr, why }, GatherEvent::Complete]);
        assert_eq!(client.sent_first_bytes.len(), 2, "one request without and one with credentials, never more");
    }
}

// RFC 8489 §10: followed once, and never in circles.
#[test]
fn a_server_that_sends_us_to_another_is_followed_once() {
    if coturn::wanted("a_server_that_sends_us_to_another_is_followed_once") {
        let ip = "127.0.0.1".parse().unwrap();
        let last = Coturn::start(ip);
        let towards = |next: &Coturn| {
            let next = next.addr.to_string();
            let args = ["--lt-cred-mech", "--user", "alice:wonderland", "--alternate-server", &next];
            Coturn::start_with(ip, &args, "alice", "wonderland", None)
        };
        let middle = towards(&last);
        let mut client = Client::new("127.0.0.1", vec![turn(&middle)], true);
        client.gather();
        let relayed = client.relayed();
        let peer = peer("127.0.0.1");
        client.send(relayed, peer.local_addr().unwrap(), b"\x80 by the other");
        client.step();
        let mut buffer = [0; 64];
        let (length, source) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], source), (&b"\x80 by the other"[..], relayed));
        peer.send_to(b"back", relayed).unwrap();
        client.run_until("data", |it| !it.received.is_empty());
        let first = towards(&middle);
        let mut client = Client::new("127.0.0.1", vec![turn(&first)], true);
        client.gather();
        let why = ServerFault::TryAlternate(Some(last.addr));
        assert_eq!(client.events, [GatherEvent::ServerFailed { server: first.addr, why }, GatherEvent::Complete]);
    }
}

#[test]
fn expired_rest_credentials_are_called_wrong_or_expired() {
    if coturn::wanted("expired_rest_credentials_are_called_wrong_or_expired") {
        let server = Coturn::start_rest("127.0.0.1".parse().unwrap());
        let mut config = turn(&server);
        let secret = server.secret.clone().unwrap();
        let user = "1000000000:alice".to_owned();
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, user.as_bytes());
        let password = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, tag);
        (config.username, config.password) = (Some(user), Some(Secret::new(password)));
        let mut client = Client::new("127.0.0.1", vec![config], true);
        client.gather();
        let why = ServerFault::WrongCredentials;
        assert_eq!(client.events[0], GatherEvent::ServerFailed { server: server.addr, why });
    }
}

#[test]
fn a_stale_nonce_is_replaced_without_losing_the_relay() {
    if coturn::wanted("a_stale_nonce_is_replaced_without_losing_the_relay") {
        let args = ["--lt-cred-mech", "--user", "alice:wonderland", "--stale-nonce=1"];
        let server = Coturn::start_with("127.0.0.1".parse().unwrap(), &args, "alice", "wonderland", None);
        let mut client = Client::new("127.0.0.1", vec![turn(&server)], true);
        client.gather();
        let relayed = client.relayed();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2500) {
            client.step();
        }
        let before = client.sent_first_bytes.len();
        let peer = peer("127.0.0.1");
        client.send(relayed, peer.local_addr().unwrap(), b"\x80one");
        for _ in 0..20 {
            client.step();
        }
        client.send(relayed, peer.local_addr().unwrap(), b"\x80two");
        client.step();
        let mut buffer = [0; 64];
        let (length, source) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], source), (&b"\x80two"[..], relayed), "the first fell to the stale nonce");
        assert!(client.sent_first_bytes.len() >= before + 5);
        assert_eq!(client.events.iter().filter(|it| matches!(it, GatherEvent::RelayLost { .. })).count(), 0);
    }
}

#[test]
fn a_binding_from_loopback_shows_no_nat_and_is_redundant() {
    if coturn::wanted("a_binding_from_loopback_shows_no_nat_and_is_redundant") {
        let server = Coturn::start("127.0.0.1".parse().unwrap());
        let stun = IceServer { kind: IceServerKind::Stun, addr: server.addr, username: None, password: None };
        let mut client = Client::new("127.0.0.1", vec![stun], false);
        client.gather();
        let host = client.socket.local_addr().unwrap();
        assert_eq!(client.events, [GatherEvent::Host { addr: host }, GatherEvent::Complete]);
    }
}

#[test]
fn a_binding_through_a_nat_gives_its_outside_address() {
    if coturn::wanted("a_binding_through_a_nat_gives_its_outside_address") {
        let server = Coturn::start("127.0.0.1".parse().unwrap());
        // A NAT of one mapping: what comes in at `inside` leaves from `outside`.
        let (inside, outside) = (peer("127.0.0.1"), peer("127.0.0.1"));
        let (inside_addr, outside_addr) = (inside.local_addr().unwrap(), outside.local_addr().unwrap());
        let target = server.addr;
        let nat = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            let (length, client) = inside.recv_from(&mut buffer).unwrap();
            outside.send_to(&buffer[..length], target).unwrap();
            let (length, _) = outside.recv_from(&mut buffer).unwrap();
            inside.send_to(&buffer[..length], client).unwrap();
        });
        let stun = IceServer { kind: IceServerKind::Stun, addr: inside_addr, username: None, password: None };
        let mut client = Client::new("127.0.0.1", vec![stun], false);
        client.gather();
        nat.join().unwrap();
        let base = client.socket.local_addr().unwrap();
        assert!(
            client.events.contains(&GatherEvent::ServerReflexive { addr: outside_addr, base }),
            "{:?}",
            client.events
        );
    }
}

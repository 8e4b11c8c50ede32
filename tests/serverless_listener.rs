//! The listener of a serverless stream among strangers: idle connections, slow ones, wrong certificates. The honest peer
//! connects at once all the same (threat: slow and unauthenticated connections).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

use offhook::client::{Callers, Client, ClientEvent};
use offhook::error::Error;
use offhook::io::tls::SelfSigned;
use offhook::wire::jid::Jid;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

fn jid(text: &str) -> Jid {
    Jid::new(text).unwrap()
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Resident memory of this process in bytes; both the listener and the strangers are in it.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

async fn connect(to: SocketAddr, certificate: &SelfSigned, pin: [u8; 32]) -> Result<Client, Error> {
    Client::builder().account(jid("romeo@forza")).certificate(certificate.clone()).connect(to, pin).build().await
}

async fn until_online(client: &mut Client) -> Vec<([u8; 32], bool)> {
    let mut certificates = Vec::new();
    loop {
        match client.next_event().await.expect("an event") {
            ClientEvent::Online(_) => return certificates,
            ClientEvent::PeerCertificate(sha256, pinned) => certificates.push((sha256, pinned)),
            ClientEvent::Refused(why) => panic!("{why}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_peer_connects_among_two_thousand_idle_and_slow_connections() {
    let (ours, theirs) = (SelfSigned::generate().unwrap(), SelfSigned::generate().unwrap());
    let builder = Client::builder().account(jid("juliet@pronto")).certificate(ours.clone()).callers(Callers::Everyone);
    let mut listener = builder.serverless(loopback(), Some(theirs.sha256())).build().await.unwrap();
    let to = listener.listening().unwrap();
    let before = resident();
    let mut idle = Vec::new();
    for _ in 0..2_000 {
        idle.push(TcpStream::connect(to).await.unwrap());
    }
    // A byte a second, of what begins like a TLS record.
    let slow = tokio::spawn(async move {
        let mut slow = Vec::new();
        for _ in 0..40 {
            slow.push(TcpStream::connect(to).await.unwrap());
        }
        for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3].into_iter().cycle() {
            for stream in &mut slow {
                // Those that made room are gone.
                let _ = stream.write_all(&[byte]).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = resident().saturating_sub(before);
    let start = Instant::now();
    let client = connect(to, &theirs, ours.sha256()).await.unwrap();
    let took = start.elapsed();
    println!("connected after {took:?}; memory grew by {} KiB for 2 040 strangers", grown / 1024);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(grown < 32 * 1024 * 1024, "{grown} bytes");
    let certificates = timeout(Duration::from_secs(2), until_online(&mut listener)).await.unwrap();
    assert_eq!(certificates, [(theirs.sha256(), true)]);
    slow.abort();
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_certificate_is_dropped_and_the_right_one_still_comes_in() {
    let (ours, theirs, foreign) =
        (SelfSigned::generate().unwrap(), SelfSigned::generate().unwrap(), SelfSigned::generate().unwrap());
    let builder = Client::builder().account(jid("juliet@pronto")).certificate(ours.clone());
    let mut listener = builder.serverless(loopback(), Some(theirs.sha256())).build().await.unwrap();
    let to = listener.listening().unwrap();
    for _ in 0..3 {
        let refused = timeout(Duration::from_secs(5), connect(to, &foreign, ours.sha256())).await.unwrap();
        assert!(refused.is_err(), "the pin holds");
    }
    let wrong = timeout(Duration::from_secs(5), connect(to, &theirs, foreign.sha256())).await.unwrap();
    assert!(matches!(wrong, Err(Error::Security(_))), "the connector's pin holds: {wrong:?}");
    let client = connect(to, &theirs, ours.sha256()).await.unwrap();
    let certificates = timeout(Duration::from_secs(2), until_online(&mut listener)).await.unwrap();
    assert_eq!(certificates.last(), Some(&(theirs.sha256(), true)));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pin_the_peer_s_certificate_is_told_and_the_next_peer_may_come_after_it() {
    let (ours, theirs) = (SelfSigned::generate().unwrap(), SelfSigned::generate().unwrap());
    let builder = Client::builder().account(jid("juliet@pronto")).certificate(ours.clone());
    let mut listener = builder.serverless(loopback(), None).build().await.unwrap();
    let to = listener.listening().unwrap();
    for _ in 0..2 {
        let client = connect(to, &theirs, ours.sha256()).await.unwrap();
        let certificates = timeout(Duration::from_secs(2), until_online(&mut listener)).await.unwrap();
        assert_eq!(certificates, [(theirs.sha256(), false)]);
        client.close().await;
    }
}

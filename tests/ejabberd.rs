//! A second server, of another make: signing in by STARTTLS and by direct TLS, and a call between two of its accounts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "common/coturn.rs"]
#[allow(dead_code, unreachable_pub, clippy::expect_used, clippy::disallowed_methods)]
mod coturn;
#[path = "common/ejabberd.rs"]
mod ejabberd;

use ejabberd::{Ejabberd, GAMMA, PASSWORD};
use offhook::client::{CallEvent, Callers, Client, ClientBuilder};
use offhook::endpoint::MediaConfig;
use offhook::wire::jid::Jid;
use std::time::Duration;
use tokio::time::timeout;

fn account(server: &Ejabberd, user: &str, port: u16, direct_tls: bool) -> ClientBuilder {
    Client::builder()
        .account(Jid::new(&format!("{user}@{GAMMA}")).unwrap())
        .password(PASSWORD)
        .ca_file(&server.ca_file)
        .server(server.ip.to_string(), port, direct_tls)
        .callers(Callers::Everyone)
        .media(MediaConfig { lab: true, ..MediaConfig::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_accounts_of_an_ejabberd_sign_in_and_call_each_other() {
    if !coturn::wanted("two_accounts_of_an_ejabberd_sign_in_and_call_each_other") {
        return;
    }
    let server = Ejabberd::start();
    let mut juliet = account(&server, "juliet", 5223, true).build().await.unwrap();
    let romeo = account(&server, "romeo", 5222, false).build().await.unwrap();
    println!("mechanisms: {:?} {:?}", romeo.mechanism(), juliet.mechanism());
    assert!(romeo.mechanism().is_some_and(|m| m.starts_with("SCRAM-SHA-256")));
    let mut call = romeo.call(juliet.jid().unwrap().clone()).await.unwrap();
    let incoming = timeout(Duration::from_secs(10), juliet.incoming()).await.unwrap().unwrap();
    let mut answered = incoming.accept().await.unwrap();
    timeout(Duration::from_secs(10), call.connected()).await.unwrap().unwrap();
    timeout(Duration::from_secs(10), answered.connected()).await.unwrap().unwrap();
    call.hang_up().await;
    let end = async {
        while let Some(event) = answered.next_event().await {
            if let CallEvent::Ended(ended) = event {
                return ended;
            }
        }
        panic!("no end");
    };
    println!("{:?}", timeout(Duration::from_secs(2), end).await.expect("the end arrives"));
    romeo.close().await;
    juliet.close().await;
}

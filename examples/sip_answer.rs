//! Answers every call that comes to an address over UDP, until the caller hangs up: no sound, no registration. What the
//! figures of the README were measured with. Run: `cargo run --release --example sip_answer -- 127.0.0.1:5060`
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)] // A shell reads the clock.

use offhook::io::sip::{SipNetwork, SipSockets};
use offhook::sip::agent::{Agent, AgentConfig, SipEvent};
use offhook::sip::exchange::Transport;
use offhook::sip::policy::Callers;
use offhook::sip::session::{Sdp, SessionEvent};
use offhook::wire::sip::NameAddr;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

fn agent(local: SocketAddr) -> Result<Agent, Failure> {
    let mut config = AgentConfig::new(NameAddr::new(format!("sip:answer@{local}").parse()?));
    config.listen = vec![(Transport::Udp, local)];
    config.policy.callers = Callers::Everyone;
    // Many calls at once, all from one address.
    config.limits.sessions.ringing = 100_000;
    config.limits.sessions.sessions = 100_000;
    config.limits.transactions.open_per_source = 100_000;
    config.limits.transactions.open = 200_000;
    config.limits.transactions.incoming = 200_000;
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| "no random numbers")?;
    Ok(Agent::new(Instant::now(), seed, config))
}

/// Takes what comes.
fn answer(agent: &mut Agent, sdp: &Sdp) {
    while let Some(event) = agent.poll_event() {
        let now = Instant::now();
        let done = match event {
            SipEvent::Session(id, SessionEvent::Incoming(call)) => {
                // Who calls without an offer gets ours.
                let sessions = agent.sessions_mut(now);
                sessions
                    .ring(now, id)
                    .and_then(|()| sessions.accept(now, id, Some(sdp.clone()).filter(|_| call.offer.is_some())))
            }
            _ => Ok(()),
        };
        if let Err(why) = done {
            eprintln!("{why}");
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let local: SocketAddr = std::env::args().nth(1).ok_or("ADDRESS:PORT is missing")?.parse()?;
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 9000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n",
        ip = local.ip()
    );
    let sdp = Sdp::parse(sdp.as_bytes()).map_err(|_| "our description")?;
    let (mut agent, mut sockets) = (agent(local)?, SipSockets::new(SipNetwork::default()));
    loop {
        answer(&mut agent, &sdp);
        while let Some(output) = agent.poll_output() {
            sockets.handle(output);
        }
        let wake = agent.poll_timeout().unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
        tokio::select! {
            report = sockets.next() => report.give(|input| agent.handle_input(Instant::now(), input)),
            () = tokio::time::sleep_until(wake.into()) => agent.handle_timeout(Instant::now()),
        }
    }
}

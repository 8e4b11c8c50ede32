//! Two endpoints call each other in virtual time: no socket, no task, no tokio. Run: `cargo run --example sans_io`
#![allow(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)] // One look at the clock begins virtual time.

use offhook::endpoint::event::{CallId, Event, Input, Output};
use offhook::endpoint::{Account, AddressPolicy, Endpoint, EndpointConfig, MediaConfig};
use offhook::jingle::{session::SessionContext, sessions::Callers};
use offhook::media::audio::FRAME_SAMPLES;
use offhook::transport::{dtls::Identity, path::Transmit};
use offhook::wire::jid::{BareJid, Jid};
use offhook::xmpp::link_local::LinkRole;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

type Failure = Box<dyn std::error::Error>;
fn endpoint(now: Instant, name: &str, role: LinkRole, seed: u8) -> Result<Endpoint, Failure> {
    let config = EndpointConfig {
        account: Account::serverless(role, BareJid::new(name)?),
        context: SessionContext::default(),
        callers: Callers::Everyone,
        address_policy: AddressPolicy::default(),
        media: MediaConfig { lab: true, ..MediaConfig::default() },
        show_signalling: true,
    };
    Ok(Endpoint::new(now, SystemTime::UNIX_EPOCH, [seed; 32], Identity::generate()?.into(), config))
}

/// Runs until the second side hears the first.
pub(crate) fn main() -> Result<(), Failure> {
    let mut now = Instant::now();
    let mut ends =
        [endpoint(now, "a@x.test", LinkRole::Connector, 1)?, endpoint(now, "b@x.test", LinkRole::Listener, 2)?];
    let (mut todo, mut calls, mut loudest) = (VecDeque::<(usize, Output)>::new(), [None::<CallId>; 2], 0);
    while loudest < 1000 {
        let quiet = calls.contains(&None);
        let mut wake = now + Duration::from_millis(20);
        for (side, end) in ends.iter_mut().enumerate() {
            loop {
                match end.poll_output() {
                    Output::Timeout(at) => break wake = at.filter(|_| quiet).unwrap_or(wake).min(wake),
                    output => todo.push_back((side, output)),
                }
            }
        }
        let Some((side, output)) = todo.pop_front() else {
            // Nothing is left to do now: time goes on, once both are connected by a frame, and the first one speaks.
            now = wake.max(now + Duration::from_millis(1));
            ends.iter_mut().for_each(|end| end.handle_timeout(now));
            if let [Some(caller), Some(callee)] = calls {
                let mut pcm: [i16; FRAME_SAMPLES] = std::array::from_fn(|n| if n % 96 < 48 { 8000 } else { -8000 });
                ends[0].push_audio(now, caller, &pcm, &mut |route, rtp| {
                    let (local, destination, contents) = (route.local, route.destination, rtp.to_vec());
                    todo.push_back((0, Output::Transmit(Transmit { local, destination, contents })));
                });
                ends[1].pull_audio(now, callee, &mut pcm);
                loudest = pcm.into_iter().max().unwrap_or(0);
            }
            continue;
        };
        match output {
            Output::Connect => ends[side].handle_input(now, Input::Connected { tls: None, loopback: true }),
            Output::Bytes(bytes) => ends[1 - side].handle_input(now, Input::Bytes(&bytes)),
            Output::OpenSockets { leg, .. } => {
                let bound = vec![([192, 0, 2, side as u8], 4000).into()];
                ends[side].handle_input(now, Input::Sockets { leg, bound });
            }
            Output::Transmit(Transmit { local: source, destination: local, contents: mut bytes }) => {
                ends[1 - side].handle_input(now, Input::Datagram { local, source, bytes: &mut bytes });
            }
            Output::Event(Event::Online { .. }) if side == 0 => drop(ends[0].call(now, Jid::new("b@x.test")?)?),
            Output::Event(Event::Incoming { call, .. }) => ends[side].accept(now, call)?,
            Output::Event(Event::Connected { call, .. }) => calls[side] = Some(call),
            Output::Event(Event::Signalled { by, what }) => println!("{side} {:6} {what}", by.as_str()),
            Output::Event(Event::Ended { how, .. }) => return Err(how.sentence().into()),
            other => println!("{side} {other:?}"),
        }
    }
    println!("b hears a");
    Ok(())
}

//! The user agent by itself, without media and without the program, on real sockets: a thread carries what it wants to the
//! network, and the test tells it what to do.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use offhook::config::Secret;
use offhook::io::sip::{SipNetwork, SipSockets, identity};
use offhook::sip::agent::{Agent, AgentConfig, SipEvent};
use offhook::sip::session::Sdp;
use offhook::wire::sip::{NameAddr, Uri};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

type Act = Box<dyn FnOnce(Instant, &mut Agent) + Send>;

/// A running user agent; ends when dropped.
pub struct Phone {
    acts: tokio::sync::mpsc::UnboundedSender<Act>,
    news: mpsc::Receiver<SipEvent>,
    /// What was skipped while something else was waited for.
    pub others: Vec<SipEvent>,
}

/// Settings of `user` at a server: `udp`, `tcp`, `tls`, `ws` or `wss`, and its address.
pub fn settings(address: &str, transport: &str, server: &str) -> AgentConfig {
    let identity = NameAddr::new(uri(address));
    let mut config = AgentConfig::new(identity.clone());
    let domain = address.rsplit('@').next().unwrap();
    config.registrar = Some(uri(&format!("sip:{domain}")));
    let outbound = match transport {
        // RFC 7118 §5.2: WebSocket over TLS is `ws` of a safe address.
        "tls" => format!("sips:{server};lr"),
        "wss" => format!("sips:{server};transport=ws;lr"),
        other => format!("sip:{server};transport={other};lr"),
    };
    config.outbound = uri(&outbound).as_sip().cloned();
    config.login(identity.uri.user().unwrap(), Secret::new("secret"), None);
    config
}

/// An address.
pub fn uri(text: &str) -> Uri {
    text.parse().unwrap_or_else(|why| panic!("{text}: {why:?}"))
}

/// A description with PCMU at an address where nothing listens.
pub fn sdp() -> Sdp {
    let text = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0 101\r\n\
                a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n";
    Sdp::parse(text.as_bytes()).ok().unwrap()
}

impl Phone {
    /// Starts it.
    pub fn start(config: AgentConfig, ca_file: Option<&Path>) -> Self {
        let client_tls = ca_file.map(|file| identity::client(Some(file), None).unwrap());
        let network = SipNetwork { client_tls, ..SipNetwork::default() };
        let (acts, mut todo) = tokio::sync::mpsc::unbounded_channel::<Act>();
        let (tell, news) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut seed = [0; 32];
                aws_lc_rs::rand::fill(&mut seed).unwrap();
                let mut agent = Agent::new(Instant::now(), seed, config);
                let mut sockets = SipSockets::new(network);
                loop {
                    while let Some(event) = agent.poll_event() {
                        let _ = tell.send(event);
                    }
                    while let Some(output) = agent.poll_output() {
                        sockets.handle(output);
                    }
                    let wake = agent.poll_timeout().unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
                    tokio::select! {
                        act = todo.recv() => match act {
                            Some(act) => act(Instant::now(), &mut agent),
                            None => break,
                        },
                        report = sockets.next() => report.give(|input| agent.handle_input(Instant::now(), input)),
                        () = tokio::time::sleep_until(wake.into()) => agent.handle_timeout(Instant::now()),
                    }
                }
            });
        });
        Self { acts, news, others: Vec::new() }
    }

    /// Does something with it.
    pub fn act<T: Send + 'static>(&self, act: impl FnOnce(Instant, &mut Agent) -> T + Send + 'static) -> T {
        let (tell, done) = mpsc::channel();
        let act: Act = Box::new(move |now, agent| drop(tell.send(act(now, agent))));
        self.acts.send(act).ok().unwrap();
        done.recv_timeout(Duration::from_secs(20)).expect("the agent lives")
    }

    /// Waits for the next event of which `pick` makes something.
    #[track_caller]
    pub fn wait<T>(&mut self, what: &str, pick: impl Fn(&SipEvent) -> Option<T>) -> T {
        let start = Instant::now();
        while let Some(left) = Duration::from_secs(20).checked_sub(start.elapsed()) {
            let Ok(event) = self.news.recv_timeout(left) else { break };
            if let Some(found) = pick(&event) {
                return found;
            }
            self.others.push(event);
        }
        panic!("no {what} came, but: {:#?}", self.others);
    }

    /// Waits until it has registered.
    #[track_caller]
    pub fn registered(&mut self) {
        self.wait("registration", |event| matches!(event, SipEvent::Registered { .. }).then_some(()));
    }
}

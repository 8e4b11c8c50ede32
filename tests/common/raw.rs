//! A client by hand: what a person could type into a server, for peers that know nothing of calls.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use crate::prosody::{Lab, PASSWORD};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A signed-in stream without TLS on a loopback address.
pub struct Raw {
    stream: TcpStream,
    /// Its full address.
    pub jid: String,
}

impl Raw {
    /// Signs in with resource `raw`; sends no presence.
    pub fn sign_in(lab: &Lab, bare: &str) -> Self {
        use base64::Engine as _;
        let (user, domain) = bare.split_once('@').unwrap();
        let stream = TcpStream::connect(lab.server_of(bare).c2s()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut raw = Self { stream, jid: format!("{bare}/raw") };
        let header = format!(
            "<stream:stream to='{domain}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        );
        let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{PASSWORD}"));
        let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>");
        let bind =
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>raw</resource></bind></iq>";
        raw.ask(&header, "</stream:features>");
        raw.ask(&auth, "<success");
        raw.ask(&header, "</stream:features>");
        raw.ask(bind, "</iq>");
        raw
    }

    /// Sends `text`.
    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Sends `text`, then reads until `end` comes.
    pub fn ask(&mut self, text: &str, end: &str) -> String {
        self.send(text);
        let mut got = String::new();
        let mut buffer = [0; 4096];
        while !got.contains(end) {
            let n =
                self.stream.read(&mut buffer).unwrap_or_else(|why| panic!("{why} while waiting for {end}, got: {got}"));
            assert!(n > 0, "closed while waiting for {end}, got: {got}");
            got.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
        got
    }

    /// Is online as a client that knows no extension at all, until the guard is dropped: it answers every request with
    /// service-unavailable.
    pub fn be_simple(mut self) -> Simple {
        self.send("<presence/>");
        self.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, jid) = (Arc::clone(&stop), self.jid.clone());
        let thread = std::thread::spawn(move || {
            let mut seen = String::new();
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                match self.stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
                    Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                    Err(_) => break,
                }
                while let Some((request, rest)) = first_iq(&seen) {
                    if matches!(attribute(&request, "type"), Some("get" | "set")) {
                        let id = attribute(&request, "id").unwrap();
                        let to = attribute(&request, "from").map(|from| format!(" to='{from}'")).unwrap_or_default();
                        self.send(&format!(
                            "<iq type='error' id='{id}'{to}><error type='cancel'><service-unavailable \
                             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
                        ));
                    }
                    seen = rest;
                }
            }
        });
        Simple { jid, stop, thread: Some(thread) }
    }
}

/// The first start tag of an IQ, and what follows it.
fn first_iq(text: &str) -> Option<(String, String)> {
    let start = text.find("<iq ")?;
    let end = start + text[start..].find('>')?;
    Some((text[start..end].to_owned(), text[end..].to_owned()))
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let at = tag.find(&format!(" {name}="))? + name.len() + 2;
    let quote = tag[at..].chars().next()?;
    tag[at + 1..].split(quote).next()
}

/// See [`Raw::be_simple`].
pub struct Simple {
    /// Its full address.
    pub jid: String,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Simple {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

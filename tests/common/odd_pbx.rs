//! A PBX that is written by the test, message by message, for what no real one does: it takes every registration, sends its
//! callers' own sound back, and otherwise says exactly what it is told, over UDP.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use crate::prosody::place;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(15);

/// One message that came, as text.
#[derive(Debug, Clone)]
pub struct Packet {
    pub text: String,
    pub source: SocketAddr,
}

impl Packet {
    /// Request line or status line.
    pub fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// True for a request of this method.
    pub fn is(&self, method: &str) -> bool {
        self.first_line().starts_with(&format!("{method} "))
    }

    /// The status code of a response.
    pub fn status(&self) -> Option<u16> {
        self.first_line().strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// Values of a header, one for each line of it.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        let values = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        values.filter(|(it, _)| it.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The first value of a header.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        self.headers(name).first().copied().unwrap_or_else(|| panic!("no {name} in: {}", self.text))
    }

    /// The URI of a Contact.
    pub fn contact(&self) -> &str {
        let contact = self.header("Contact");
        contact.split('<').nth(1).and_then(|it| it.split('>').next()).unwrap_or(contact)
    }

    /// What follows the headers.
    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
}

/// The PBX; ends when dropped.
pub struct OddPbx {
    /// Its address, port 5060.
    pub ip: Ipv4Addr,
    /// Where its callers' sound is sent back.
    pub media: SocketAddr,
    socket: UdpSocket,
    inbox: VecDeque<Packet>,
    end: Arc<AtomicBool>,
    /// A telephone's contact and where it sits.
    pub contact: Option<(String, SocketAddr)>,
    /// What is added to the answers to REGISTER.
    pub registrar_says: String,
}

/// A fresh number for branches, tags and the like.
fn fresh() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

impl OddPbx {
    /// Starts it.
    pub fn start() -> Self {
        let [ip] = place::addresses(&[5060]);
        let socket = UdpSocket::bind((ip, 5060)).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let media = echo(ip, Arc::clone(&end));
        let (inbox, contact, registrar_says) = (VecDeque::new(), None, String::new());
        Self { ip, media, socket, inbox, end, contact, registrar_says }
    }

    /// UDP.
    pub fn sip(&self) -> String {
        format!("{}:5060", self.ip)
    }

    /// Waits for the next message that fits, and answers registrations meanwhile. Others stay for later.
    #[track_caller]
    pub fn next(&mut self, what: &str, fits: impl Fn(&Packet) -> bool) -> Packet {
        self.next_within(LIMIT, &fits).unwrap_or_else(|| panic!("no {what} came; there were: {:#?}", self.inbox))
    }

    /// The same; nothing if none comes within this time.
    pub fn next_within(&mut self, limit: Duration, fits: &dyn Fn(&Packet) -> bool) -> Option<Packet> {
        let start = Instant::now();
        loop {
            if let Some(at) = self.inbox.iter().position(fits) {
                return self.inbox.remove(at);
            }
            let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut buffer = vec![0; 65_536];
            let Ok((length, source)) = self.socket.recv_from(&mut buffer) else { continue };
            let packet = Packet { text: String::from_utf8_lossy(&buffer[..length]).into_owned(), source };
            if packet.is("REGISTER") && packet.headers("Contact").first().is_some_and(|it| *it != "*") {
                self.contact = Some((packet.contact().to_owned(), source));
                let expires = format!("Contact: <{}>;expires=120\r\n{}", packet.contact(), self.registrar_says);
                self.answer(&packet, "200 OK", "reg", &expires, "");
            } else if packet.is("REGISTER") {
                self.answer(&packet, "200 OK", "reg", "", "");
            } else if !packet.text.trim().is_empty() {
                self.inbox.push_back(packet);
            }
        }
    }

    /// Waits until a telephone has registered; gives its contact and where it sits.
    #[track_caller]
    pub fn registered(&mut self) -> (String, SocketAddr) {
        let start = Instant::now();
        while self.contact.is_none() {
            assert!(start.elapsed() < LIMIT, "nobody registers");
            self.next_within(Duration::from_millis(100), &|_| false);
        }
        self.contact.clone().unwrap()
    }

    /// Answers a request. `extra` are whole header lines.
    pub fn answer(&self, request: &Packet, status: &str, tag: &str, extra: &str, body: &str) {
        let text = self.answer_text(request, status, tag, extra, body);
        self.send(request.source, text.as_bytes());
    }

    /// The text of that answer.
    pub fn answer_text(&self, request: &Packet, status: &str, tag: &str, extra: &str, body: &str) -> String {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for via in request.headers("Via") {
            text.push_str(&format!("Via: {via}\r\n"));
        }
        let to = request.header("To");
        let to = if to.contains(";tag=") || tag.is_empty() { to.to_owned() } else { format!("{to};tag={tag}") };
        let (from, call, seq) = (request.header("From"), request.header("Call-ID"), request.header("CSeq"));
        text.push_str(&format!("From: {from}\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {seq}\r\n{extra}"));
        if !status.starts_with("100") && request.is("INVITE") {
            text.push_str(&format!("Contact: <sip:odd@{}:5060>\r\n", self.ip));
        }
        finish(text, body)
    }

    /// Sends bytes.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        self.socket.send_to(bytes, to).unwrap();
    }

    /// A description that is an offer or an answer, of this version.
    pub fn sdp(&self, version: u32) -> String {
        let (ip, port) = (self.media.ip(), self.media.port());
        format!(
            "v=0\r\no=- 1 {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\n\
             a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
        )
    }

    /// The text of a request outside of any dialog to the telephone that registered; with `extra` header lines.
    pub fn request(&self, method: &str, extra: &str, body: &str) -> String {
        let n = fresh();
        let (contact, _) = self.contact.as_ref().expect("a telephone that registered");
        let text = format!(
            "{method} {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {ip}:5060;branch=z9hG4bKodd{n};rport\r\n\
             From: <sip:odd@pbx.test>;tag=f{n}\r\nTo: <sip:alice@pbx.test>\r\nCall-ID: odd{n}@pbx.test\r\n\
             CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContact: <sip:odd@{ip}:5060>\r\n{extra}",
            ip = self.ip
        );
        finish(text, body)
    }

    /// Sends that request and gives its text.
    pub fn ask(&self, method: &str, extra: &str, body: &str) -> Packet {
        let text = self.request(method, extra, body);
        let (_, to) = self.contact.as_ref().unwrap();
        self.send(*to, text.as_bytes());
        Packet { text, source: *to }
    }

    /// Waits for the final answer to a request of ours.
    #[track_caller]
    pub fn final_answer(&mut self, request: &Packet) -> Packet {
        let (call, seq) = (request.header("Call-ID").to_owned(), request.header("CSeq").to_owned());
        self.next(&format!("final answer to {}", request.first_line()), |packet| {
            packet.status().is_some_and(|status| status >= 200)
                && packet.headers("Call-ID") == [call.as_str()]
                && packet.headers("CSeq") == [seq.as_str()]
        })
    }

    /// Calls the telephone that registered, which must answer; gives the INVITE and its answer.
    #[track_caller]
    pub fn call(&mut self) -> (Packet, Packet) {
        let invite = self.ask("INVITE", "", &self.sdp(1));
        let answer = self.final_answer(&invite);
        assert_eq!(answer.status(), Some(200), "{}", answer.text);
        let ack = self.within(&invite, &answer, 1, "ACK", "", "");
        self.send(answer.source, ack.text.as_bytes());
        (invite, answer)
    }

    /// A request within the dialog that these two made, not sent.
    pub fn within(&self, invite: &Packet, answer: &Packet, seq: u32, method: &str, extra: &str, body: &str) -> Packet {
        let text = format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {ip}:5060;branch=z9hG4bKodd{};rport\r\nFrom: {}\r\nTo: {}\r\n\
             Call-ID: {}\r\nCSeq: {seq} {method}\r\nMax-Forwards: 70\r\nContact: <sip:odd@{ip}:5060>\r\n{extra}",
            answer.contact(),
            fresh(),
            invite.header("From"),
            answer.header("To"),
            invite.header("Call-ID"),
            ip = self.ip
        );
        Packet { text: finish(text, body), source: answer.source }
    }

    /// The telephone still answers an OPTIONS, which is sent again every half second as any request over UDP: a burst may
    /// have filled the socket's buffer.
    #[track_caller]
    pub fn is_answered(&mut self, after: &str) {
        let options = self.ask("OPTIONS", "", "");
        let call = options.header("Call-ID").to_owned();
        let fits = |packet: &Packet| packet.status().is_some() && packet.headers("Call-ID") == [call.as_str()];
        let mut answer = None;
        for _ in 0..10 {
            answer = self.next_within(Duration::from_millis(500), &fits);
            if answer.is_some() {
                break;
            }
            self.send(options.source, options.text.as_bytes());
        }
        assert_eq!(answer.and_then(|it| it.status()), Some(200), "no answer to OPTIONS after {after}");
        // What else came is of no interest any more.
        self.inbox.clear();
    }
}

impl Drop for OddPbx {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn finish(mut text: String, body: &str) -> String {
    if !body.is_empty() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text
}

/// Sends every RTP packet back to where it came from, as a source of its own.
fn echo(ip: Ipv4Addr, end: Arc<AtomicBool>) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let addr = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while !end.load(Ordering::Relaxed) {
            if let Ok((length, source)) = socket.recv_from(&mut buffer) {
                buffer[8] ^= 0x55;
                let _ = socket.send_to(&buffer[..length], source);
            }
        }
    });
    addr
}

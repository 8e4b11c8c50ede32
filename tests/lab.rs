//! The laboratory itself: two servers that federate, and what stands on them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

#[path = "common/prosody.rs"]
mod prosody;

use prosody::coturn::wanted;
use prosody::{Lab, STRANGER};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Sends `text`, then reads until `end` comes.
fn ask(stream: &mut TcpStream, text: &str, end: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    let mut got = String::new();
    let mut buffer = [0; 4096];
    while !got.contains(end) {
        let n = stream.read(&mut buffer).unwrap_or_else(|why| panic!("{why} while waiting for {end}, got: {got}"));
        assert!(n > 0, "closed while waiting for {end}, got: {got}");
        got.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    got
}

fn sign_in(lab: &Lab, user: &str, domain: &str) -> TcpStream {
    use base64::Engine as _;
    let mut stream = TcpStream::connect(lab.server_of(domain).c2s()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let header = format!(
        "<stream:stream to='{domain}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    );
    ask(&mut stream, &header, "</stream:features>");
    let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{}", prosody::PASSWORD));
    ask(
        &mut stream,
        &format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"),
        "<success",
    );
    ask(&mut stream, &header, "</stream:features>");
    let bind =
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>t</resource></bind></iq>";
    ask(&mut stream, bind, "</iq>");
    stream
}

#[test]
fn the_servers_know_their_users_federate_and_hand_out_the_relay() {
    if !wanted("the_servers_know_their_users_federate_and_hand_out_the_relay") {
        return;
    }
    let start = Instant::now();
    let lab = Lab::start();
    println!("laboratory up in {:?}", start.elapsed());
    let mut romeo = sign_in(&lab, "romeo", prosody::ALPHA);
    let mut mercutio = sign_in(&lab, "mercutio", prosody::BETA);
    let roster = ask(&mut romeo, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>", "</iq>");
    assert_eq!(roster.matches("subscription='both'").count(), 7, "{roster}");
    assert!(!roster.contains(STRANGER), "{roster}");
    let services = "<iq type='get' to='alpha.test' id='s'><services xmlns='urn:xmpp:extdisco:2'/></iq>";
    let services = ask(&mut romeo, services, "</iq>");
    assert!(services.contains("turn") && services.contains(&lab.turn.addr.port().to_string()), "{services}");
    let message = "<message type='chat' to='mercutio@beta.test/t'><body>Good morrow</body></message>";
    romeo.write_all(message.as_bytes()).unwrap();
    let got = ask(&mut mercutio, "<presence/>", "</body>");
    assert!(got.contains("Good morrow") && got.contains("romeo@alpha.test/t"), "{got}");
    sign_in(&lab, STRANGER, prosody::BETA);
    let (here, there) = lab.pair();
    assert_eq!((here.as_str(), there.as_str()), ("guest1@alpha.test", "guest1@beta.test"));
    sign_in(&lab, "guest1", prosody::BETA);
    let folder = lab.folder.clone();
    let ip = lab.alpha.ip;
    drop(lab);
    assert!(!folder.exists());
    assert!(TcpStream::connect((ip, 5222)).is_err(), "the server has ended");
}

//! What each fuzz target does with its bytes. `tests/fuzz_corpora.rs` runs the same functions over the committed corpora.
//! Everything that reads is also asked to write what it has read: that must read again, and be written the same.

#[path = "../../tests/common/operations.rs"]
mod operations;

use offhook::config::XmlLimits;
use offhook::transport::socks5::{Client, Handshake, Server};
use offhook::wire::candidate::Transport;
use offhook::wire::description::{Description, Info};
use offhook::wire::framer::{Frame, Framer};
use offhook::wire::jingle::{Jingle, Jmi};
use offhook::wire::ns;
use offhook::wire::rtcp::{self, Packet};
use offhook::wire::rtp::{self, RtpHeader};
use offhook::wire::sdp::SessionDescription;
use offhook::wire::sip::{self, Framed, Message};
use offhook::wire::stanza::Stanza;
use offhook::wire::stream::{StreamHeader, TopLevel};
use offhook::wire::xml::{Reader, Result, Writer};

/// A target: its name and what it does with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this package.
pub const TARGETS: &[Target] = &[
    ("xml", xml),
    ("stanza", stanza),
    ("stream", stream),
    ("jingle", jingle),
    ("description", description),
    ("candidate", candidate),
    ("rtp", rtp),
    ("rtcp", rtcp),
    ("session", session),
    ("socks5", socks5),
    ("sip", sip),
    ("sdp", sdp),
];

/// Everything a framer gives for these pieces.
fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, bool) {
    let mut framer = Framer::new(&XmlLimits::default());
    let mut all = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next() {
                Ok(Some(Frame::Open(text) | Frame::Element(text))) => all.push(text.to_owned()),
                Ok(Some(Frame::Close)) => all.push(String::new()),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}

/// Frames do not depend on how the bytes are cut; each element is walked to its end.
pub fn xml(data: &[u8]) {
    let (whole, fault) = frames(std::iter::once(data));
    let single = frames(data.chunks(1));
    let cut = frames(data.chunks(7));
    assert_eq!((&whole, fault), (&single.0, single.1));
    assert_eq!((&whole, fault), (&cut.0, cut.1));
    for text in whole.iter().map(String::as_str).chain(std::str::from_utf8(data)) {
        if let Ok(mut r) = Reader::new(text, ns::CLIENT, &XmlLimits::default()) {
            let _ = walk(&mut r, 0);
            let _ = r.finish();
        }
    }
}

fn walk(r: &mut Reader<'_>, depth: usize) -> Result<()> {
    let _ = (r.attr("id"), r.lang(), r.tag().ns().len());
    if depth % 2 == 1 && r.tag().name().len() == 1 {
        return r.text().map(drop);
    }
    r.children(|r| walk(r, depth + 1))
}

/// Reads, writes, reads and writes: both texts are the same.
fn settles<T>(data: &[u8], read: impl Fn(&mut Reader<'_>) -> Result<T>, write: impl Fn(&T, &mut Writer<'_>)) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parse = |text: &str| {
        // What is written may be longer than what was read, by its escapes and namespaces.
        let limits = XmlLimits { stanza_bytes: 16 << 20, ..XmlLimits::default() };
        let mut r = Reader::new(text, ns::CLIENT, &limits)?;
        let value = read(&mut r)?;
        r.finish()?;
        Ok::<T, offhook::fault::Malformed>(value)
    };
    let Ok(value) = parse(text) else { return };
    let written = |value: &T| {
        let mut out = String::new();
        write(value, &mut Writer::new(&mut out));
        out
    };
    let once = written(&value);
    match parse(&once) {
        Ok(again) => assert_eq!(written(&again), once),
        Err(fault) => panic!("{fault} in what was written: {once}"),
    }
}

/// `<jingle/>` and the elements of XEP-0353.
pub fn jingle(data: &[u8]) {
    settles(data, Jingle::read, Jingle::write);
    settles(data, Jmi::read, Jmi::write);
}

/// `<description/>` and the payloads of a session-info.
pub fn description(data: &[u8]) {
    settles(data, Description::read, Description::write);
    settles(data, Info::read, Info::write);
}

/// `<transport/>`.
pub fn candidate(data: &[u8]) {
    settles(data, Transport::read, Transport::write);
}

/// Whole stanzas; a refused one may be answered.
pub fn stanza(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let limits = XmlLimits { stanza_bytes: 16 << 20, ..XmlLimits::default() };
    let written = |value: &Stanza| {
        let mut out = String::new();
        value.write(&mut Writer::new(&mut out));
        out
    };
    match Stanza::parse(text, ns::CLIENT, &limits) {
        Ok(value) => {
            let once = written(&value);
            match Stanza::parse(&once, ns::CLIENT, &limits) {
                Ok(again) => assert_eq!(written(&again), once),
                Err(fault) => panic!("{fault:?} in what was written: {once}"),
            }
        }
        Err(fault) => {
            if let Some(answer) = fault.answer() {
                let once = written(&Stanza::Iq(answer));
                assert!(Stanza::parse(&once, ns::CLIENT, &limits).is_ok(), "{once}");
            }
        }
    }
}

/// A stream from its first byte: header, then children in the header's namespaces.
pub fn stream(data: &[u8]) {
    let limits = XmlLimits::default();
    let mut framer = Framer::new(&limits);
    framer.push(data);
    let mut scope = None;
    while let Ok(Some(frame)) = framer.next() {
        match frame {
            Frame::Open(text) => match StreamHeader::parse(text, &limits) {
                Ok((_, found)) => scope = Some(found),
                Err(_) => return,
            },
            Frame::Element(text) => {
                let Some(scope) = &scope else { return };
                if let Ok(TopLevel::Stream(element)) = TopLevel::parse(text, scope, &limits) {
                    element.write(&mut Writer::new(&mut String::new()));
                }
            }
            Frame::Close => {}
        }
    }
}

/// A datagram taken for RTP.
pub fn rtp(data: &[u8]) {
    let _ = rtp::demux(data);
    for extension in rtp::extensions(data) {
        let _ = (extension.mid(), extension.audio_level());
    }
    if let Ok((header, payload)) = RtpHeader::parse(data) {
        assert!(data.get(payload).is_some());
        let mut out = Vec::new();
        header.write(&mut out);
        assert_eq!(RtpHeader::parse(&out).map(|(h, _)| h), Ok(header));
    }
}

/// A datagram taken for compound RTCP.
pub fn rtcp(data: &[u8]) {
    for packet in rtcp::packets(data).flatten() {
        let _ = (packet.nacked().count(), packet.is_picture_loss());
        match packet {
            Packet::Report { ssrc, sender, blocks } => {
                let blocks: Vec<_> = blocks.iter().collect();
                let mut out = Vec::new();
                rtcp::write_report(ssrc, sender.as_ref(), &blocks, &mut out);
                assert_eq!(rtcp::packets(&out).filter(Result::is_ok).count(), 1);
            }
            Packet::Description(items) => {
                let _ = items.count();
            }
            Packet::Bye { sources, reason: _ } => {
                let _ = sources.iter().count();
            }
            Packet::Feedback { .. } | Packet::Other { .. } => {}
        }
    }
}

/// Two endpoints' sessions under the operations that the bytes stand for: every promise of the model holds.
///
/// # Panics
/// When one does not.
pub fn session(data: &[u8]) {
    // 1 000 operations reach every state; more only cost time.
    let (seed, operations) = data.split_first().map_or((0, data), |(seed, rest)| (*seed, rest));
    let operations = operations.get(..operations.len().min(3_000)).unwrap_or_default();
    let outcome = operations::World::new(std::time::Instant::now(), seed).run(operations);
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// The stream that the servers and clients of [`socks5`] are for.
const DST_ADDR: &str = "972b7bf47291ca609517f67f86b5081086052dad";

/// What a side of a handshake has done with bytes: how many it took, what it sent, how it stands.
type Shaken = (usize, Vec<u8>, Handshake);

fn shake(mut feed: impl FnMut(&[u8]) -> (usize, Option<Vec<u8>>, Handshake), data: &[u8], cut: usize) -> Shaken {
    let (mut taken, mut sent, mut state) = (0, Vec::new(), Handshake::Going);
    for piece in data.chunks(cut) {
        let (n, out, now) = feed(piece);
        assert!(n == piece.len() || now != Handshake::Going, "bytes are left though more are awaited");
        (taken, state) = (taken + n, now);
        sent.extend(out.unwrap_or_default());
    }
    // Of a connection that is closed no byte is left for anybody.
    let taken = if matches!(state, Handshake::Broken(_)) { 0 } else { taken };
    (taken, sent, state)
}

/// Both sides of a SOCKS5 handshake: neither depends on how the bytes are cut, and none touches what follows it.
pub fn socks5(data: &[u8]) {
    let serve = |cut| {
        let mut server = Server::new();
        let feed = |piece: &[u8]| {
            let wants = server.wants();
            let n = server.handle_input(piece, |dst_addr| dst_addr == DST_ADDR);
            assert!(wants <= 262 && (n >= wants.min(piece.len()) || server.wants() == 0));
            (n, server.poll_transmit(), server.state().clone())
        };
        shake(feed, data, cut)
    };
    let whole = serve(data.len().max(1));
    assert_eq!(whole, serve(1));
    assert_eq!(whole, serve(7));
    assert!(whole.1.len() <= 2 + 262);
    if whole.2 == Handshake::Open(DST_ADDR.to_owned()) {
        assert!(whole.1.starts_with(&[5, 0, 5, 0, 0, 3, 40]));
    }
    let dial = |cut| {
        let mut client = Client::new(DST_ADDR);
        let feed = |piece: &[u8]| {
            let n = client.handle_input(piece);
            (n, client.poll_transmit(), client.state().clone())
        };
        shake(feed, data, cut)
    };
    let whole = dial(data.len().max(1));
    assert_eq!(whole, dial(1));
    assert_eq!(whole, dial(7));
    assert!(whole.1.len() <= 3 + 47);
}

/// Messages do not depend on how the stream is cut; what is read is written and read again the same.
pub fn sip(data: &[u8]) {
    if let Ok(message) = Message::parse(data) {
        let bytes = message.to_bytes();
        // Quotes and long names may take what is written past the caps.
        if bytes.len() < 50_000 {
            let again = Message::parse(&bytes);
            assert_eq!(again.as_ref(), Ok(&message), "{}", String::from_utf8_lossy(&bytes));
            assert_eq!(message.to_bytes(), bytes);
            assert_eq!(sip_frames(std::iter::once(&bytes[..])), (vec![Framed::Message(Box::new(message))], false));
        }
    } else if let Err(sip::Malformed { answer: Some(salvage), .. }) = Message::parse(data) {
        let mut bytes = Vec::new();
        salvage.write(&sip::Tag::lossy("t"), &mut bytes);
        assert!(!bytes.windows(4).rev().skip(1).any(|w| w == b"\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
    }
    let whole = sip_frames(std::iter::once(data));
    assert_eq!(whole, sip_frames(data.chunks(1)));
    assert_eq!(whole, sip_frames(data.chunks(7)));
}

/// Everything a framer gives for these pieces but keep-alives, which depend on the cut.
fn sip_frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Framed>, bool) {
    let mut framer = sip::Framer::new();
    let mut all = Vec::new();
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next() {
                Ok(Some(Framed::Ping | Framed::Pong)) => {}
                Ok(Some(found)) => all.push(found),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}

/// What is read is written and read again the same.
pub fn sdp(data: &[u8]) {
    if let Ok(mut sdp) = SessionDescription::parse(data) {
        let bytes = sdp.to_bytes();
        sdp.level.ice.malformed_candidates = 0;
        sdp.media.iter_mut().for_each(|m| m.level.ice.malformed_candidates = 0);
        let again = SessionDescription::parse(&bytes);
        assert_eq!(again.as_ref(), Ok(&sdp), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(sdp.to_bytes(), bytes);
    }
}

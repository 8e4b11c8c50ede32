//! RFC 4475's torture messages, RFC 5118's, and worse: what `wire::sip` makes of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "sip_torture/bounds.rs"]
mod bounds;
#[path = "sip_torture/properties.rs"]
mod properties;

use offhook::wire::sdp::{BadSdp, SessionDescription};
use offhook::wire::sip::{ContentType, Flaw, Header, Host, Message, Method, Request, Response, Tag, Uri, part_of};
use std::path::{Path, PathBuf};

fn corpus(name: &str) -> Vec<u8> {
    let root = std::env::var_os("OFFHOOK_CORPUS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"), PathBuf::from);
    let path = root.join("sip-torture").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What the RFC wants done with a message, as far as reading it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wanted {
    /// Read. What is wrong with its meaning is for the layers above.
    Read,
    /// Refused, and answered with this status.
    Answered(u16),
    /// Refused without an answer: a response, or nobody to answer to.
    Dropped,
}
use Wanted::{Answered, Dropped, Read};

/// Every file of the corpus, section of RFC 4475, what is wanted, and why where the RFC leaves a choice.
const TABLE: [(&str, &str, Wanted, &str); 50] = [
    ("wsinv.dat", "3.1.1.1", Read, ""),
    ("intmeth.dat", "3.1.1.2", Read, ""),
    ("esc01.dat", "3.1.1.3", Read, ""),
    ("escnull.dat", "3.1.1.4", Read, ""),
    ("esc02.dat", "3.1.1.5", Read, ""),
    ("lwsdisp.dat", "3.1.1.6", Read, ""),
    ("longreq.dat", "3.1.1.7", Read, ""),
    ("dblreq.dat", "3.1.1.8", Read, "what follows Content-Length is left out"),
    ("semiuri.dat", "3.1.1.9", Read, ""),
    ("transports.dat", "3.1.1.10", Read, ""),
    ("mpart01.dat", "3.1.1.11", Read, ""),
    ("unreason.dat", "3.1.1.12", Read, ""),
    ("noreason.dat", "3.1.1.13", Read, ""),
    ("badinv01.dat", "3.1.2.1", Answered(400), ""),
    ("clerr.dat", "3.1.2.2", Answered(400), ""),
    ("ncl.dat", "3.1.2.3", Answered(400), ""),
    ("scalar02.dat", "3.1.2.4", Answered(400), ""),
    ("scalarlg.dat", "3.1.2.5", Dropped, "a response"),
    ("quotbal.dat", "3.1.2.6", Answered(400), ""),
    ("ltgtruri.dat", "3.1.2.7", Answered(400), ""),
    ("lwsruri.dat", "3.1.2.8", Answered(400), ""),
    ("lwsstart.dat", "3.1.2.9", Answered(400), "may also be read; another reader could see another URI"),
    ("trws.dat", "3.1.2.10", Answered(400), "may also be read"),
    ("escruri.dat", "3.1.2.11", Answered(400), "may also be read without the header"),
    ("baddate.dat", "3.1.2.12", Read, "Date is text that nothing depends on"),
    ("regbadct.dat", "3.1.2.13", Answered(400), ""),
    ("badaspec.dat", "3.1.2.14", Answered(400), "may also be read"),
    ("baddn.dat", "3.1.2.15", Answered(400), "may also be read; and the file lacks its empty line"),
    ("badvers.dat", "3.1.2.16", Answered(505), ""),
    ("mismatch01.dat", "3.1.2.17", Answered(400), ""),
    ("mismatch02.dat", "3.1.2.18", Answered(400), "400 or 501"),
    ("bigcode.dat", "3.1.2.19", Dropped, "a response"),
    ("badbranch.dat", "3.2.1", Read, "matched as RFC 2543 does, in sip/transaction"),
    ("insuf.dat", "3.3.1", Answered(400), ""),
    ("unkscm.dat", "3.3.2", Read, "416, in sip/carrier"),
    ("novelsc.dat", "3.3.3", Read, "416, in sip/carrier"),
    ("unksm2.dat", "3.3.4", Read, "only a registrar cares"),
    ("bext01.dat", "3.3.5", Read, "420, in sip/agent"),
    ("invut.dat", "3.3.6", Read, "415, in sip/sessions"),
    ("regaut01.dat", "3.3.7", Read, "only a registrar cares"),
    ("multi01.dat", "3.3.8", Answered(400), ""),
    ("mcl01.dat", "3.3.9", Answered(400), ""),
    ("bcast.dat", "3.3.10", Read, "dropped for its two Vias, in sip/carrier"),
    ("zeromf.dat", "3.3.11", Read, "answered, as it is for us"),
    ("cparam01.dat", "3.3.12", Read, ""),
    ("cparam02.dat", "3.3.13", Read, ""),
    ("regescrt.dat", "3.3.14", Read, ""),
    ("sdp01.dat", "3.3.15", Read, "406, in sip/sessions"),
    ("inv2543.dat", "3.4.1", Read, "as RFC 2543 wrote it"),
    ("test.dat", "not in the RFC", Dropped, "no version, no Via"),
];

fn found(bytes: &[u8]) -> Wanted {
    match Message::parse(bytes) {
        Ok(_) => Read,
        Err(malformed) => malformed.answer.map_or(Dropped, |salvage| Answered(salvage.status.code())),
    }
}

fn request(name: &str) -> Request {
    match Message::parse(&corpus(name)).unwrap_or_else(|e| panic!("{name}: {e:?}")) {
        Message::Request(request) => request,
        Message::Response(_) => panic!("{name} is a response"),
    }
}

fn response(name: &str) -> Response {
    match Message::parse(&corpus(name)).unwrap_or_else(|e| panic!("{name}: {e:?}")) {
        Message::Response(response) => response,
        Message::Request(_) => panic!("{name} is a request"),
    }
}

#[test]
fn every_message_of_rfc_4475_is_taken_as_the_rfc_says() {
    let wrong: Vec<_> = TABLE
        .iter()
        .filter_map(|(name, section, wanted, _)| {
            let bytes = corpus(name);
            let got = found(&bytes);
            (got != *wanted)
                .then(|| format!("{name} ({section}): {got:?}, wanted {wanted:?}: {:?}", Message::parse(&bytes)))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let files = std::fs::read_dir(
        std::env::var_os("OFFHOOK_CORPUS")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus"), PathBuf::from)
            .join("sip-torture"),
    );
    let files = files.unwrap().filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "dat"));
    assert_eq!(files.count(), TABLE.len());
}

#[test]
fn every_message_that_is_read_is_written_and_read_again_the_same() {
    for (name, _, wanted, _) in TABLE {
        if wanted == Read {
            let message = Message::parse(&corpus(name)).unwrap();
            assert_eq!(Message::parse(&message.to_bytes()).as_ref(), Ok(&message), "{name}");
        }
    }
}

fn texts<'a>(all: impl Iterator<Item = &'a offhook::wire::sip::Token>) -> Vec<&'a str> {
    all.map(|t| t.as_str()).collect()
}

#[test]
fn the_short_tortuous_invite_says_what_the_rfc_says() {
    let invite = request("wsinv.dat");
    let h = &invite.headers;
    assert_eq!(invite.uri.as_sip().unwrap().params.find("unknownparam"), Some(""));
    assert_eq!((h.max_forwards, h.cseq.number, &h.cseq.method), (Some(68), 9, &Method::Invite));
    assert_eq!(h.to_tag().unwrap().as_str(), "1918181833n");
    assert_eq!(h.from.display.as_ref().unwrap().as_str(), r#"J Rosenberg \""#);
    assert_eq!(h.from_tag().unwrap().as_str(), "98asjd8");
    let via: Vec<_> =
        h.via.iter().map(|v| (v.transport.as_str(), v.host.to_string(), v.branch.as_deref().unwrap())).collect();
    let wanted = [
        ("UDP", "192.0.2.2", "390skdjuw"),
        ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
        ("UDP", "192.168.255.111", "z9hG4bK30239"),
    ];
    assert_eq!(via, wanted.map(|(t, host, b)| (t, host.to_owned(), b)));
    assert_eq!(h.subject().unwrap().as_str(), "");
    assert_eq!(h.other("NewFangledHeader"), Some("newfangled value continued newfangled value"));
    assert_eq!(h.other("UnknownHeaderWithUnusualValue"), Some(";;,,;;,;"));
    let route = h.route[0].uri.as_sip().unwrap();
    assert!(route.params.has("lr") && route.params.has("unknown-no-value"));
    assert_eq!(route.params.find("unknownwith"), Some("value"));
    let contact = &h.contact[0];
    assert_eq!(contact.display.as_ref().unwrap().as_str(), "Quoted string \"\"");
    let params: Vec<_> = contact.params.iter().collect();
    assert_eq!(params, [("newparam", Some("newvalue")), ("secondparam", None), ("q", Some("0.33"))]);
    assert_eq!(SessionDescription::parse(invite.body_of("application/sdp").unwrap()).unwrap().media.len(), 2);
}

#[test]
fn the_wide_range_of_characters_is_taken_in() {
    let odd = request("intmeth.dat");
    assert_eq!(odd.method.as_str(), "!interesting-Method0123456789_*+`.%indeed'~");
    let uri = odd.uri.as_sip().unwrap();
    assert_eq!(uri.user.as_deref(), Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(uri.password.as_deref(), Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"));
    assert_eq!(odd.headers.from.display.as_ref().unwrap().as_str(), "token1~` token2'+_ token3*%!.-");
    assert_eq!(
        odd.headers.from.params.find("fromparam''~+*_!.-%"),
        Some("\u{440}\u{430}\u{431}\u{43e}\u{442}\u{430}\u{44e}\u{449}\u{438}\u{439}")
    );
    assert_eq!(odd.headers.call_id.as_str(), "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{");
    // Control characters of a display name are shown as spaces.
    assert_eq!(odd.headers.to.display.as_ref().unwrap().as_str(), "BEL:  NUL:  DEL:");
}

#[test]
fn escapes_are_undone_once_and_only_in_addresses() {
    let escaped = request("esc01.dat");
    assert_eq!(escaped.uri.user(), Some("sips:user@example.com"));
    assert_eq!(escaped.headers.to.uri.user(), Some("user"));
    assert_eq!(escaped.headers.from.uri.user(), Some("I have spaces"));
    let contact = escaped.headers.contact[0].uri.as_sip().unwrap();
    assert_eq!((contact.user.as_deref(), contact.params.has("lr")), (Some("caller"), true));
    assert_eq!(contact.params.find("name"), Some("value%41"));
    let not = request("esc02.dat");
    assert_eq!(not.method.as_str(), "RE%47IST%45R");
    assert_eq!(not.headers.to.display.as_ref().unwrap().as_str(), "%Z%45");
    assert_eq!(not.headers.contact.len(), 2);
    assert_eq!(not.headers.other("C%6Fntact"), Some("<sip:alias2@host2.example.com>"));
    let null = request("escnull.dat");
    assert_eq!(null.headers.to.uri.user(), Some("null-\0-null"));
    assert_eq!(null.headers.contact[1].uri.user(), Some("\0\0"));
}

#[test]
fn what_the_other_valid_messages_hold_is_found() {
    assert_eq!(request("lwsdisp.dat").headers.from.display.as_ref().unwrap().as_str(), "caller");
    let long = request("longreq.dat").headers;
    assert_eq!(long.via.len(), 34);
    assert_eq!(long.via[33].received, Some("192.0.2.5".parse().unwrap()));
    assert!(request("dblreq.dat").body.is_empty());
    let semi = request("semiuri.dat");
    assert_eq!(semi.uri.user(), Some("user;par=u@example.net"));
    assert!(semi.uri.as_sip().unwrap().params.is_empty());
    let via = request("transports.dat").headers.via;
    assert_eq!(via.iter().map(|v| v.transport.as_str()).collect::<Vec<_>>(), ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]);
    assert_eq!(response("noreason.dat").reason.as_str(), "");
    assert!(response("unreason.dat").reason.as_str().starts_with("= 2**3 * 5**2 \u{43d}\u{43e}"));
    let many = request("mpart01.dat");
    assert_eq!(many.body_of("text/plain"), Some(&b"Hello"[..]));
    assert_eq!(many.body_of("application/octet-stream").unwrap()[0], b'0');
    assert_eq!(many.body_of("application/sdp"), None);
    assert_eq!(texts(request("bext01.dat").headers.require()), ["nothingSupportsThis", "nothingSupportsThisEither"]);
    assert_eq!(request("regaut01.dat").headers.authorization().next().unwrap().scheme.as_str(), "NoOneKnowsThisScheme");
    assert_eq!(request("cparam01.dat").headers.contact[0].params.find("unknownparam"), Some(""));
    assert!(request("cparam02.dat").headers.contact[0].uri.as_sip().unwrap().params.has("unknownparam"));
    let headers = &request("regescrt.dat").headers.contact[0].uri.as_sip().unwrap().headers.clone();
    assert_eq!(headers[..], [("Route".into(), "<sip:sip.example.com>".into())]);
    assert!(matches!(request("unkscm.dat").uri, Uri::Other(_)) && matches!(request("novelsc.dat").uri, Uri::Other(_)));
    assert!(matches!(request("unksm2.dat").headers.to.uri, Uri::Other(_)));
    let old = request("inv2543.dat").headers;
    assert_eq!((old.max_forwards, old.from_tag(), old.via[0].branch.as_deref()), (None, None, None));
    assert_eq!(request("zeromf.dat").headers.max_forwards, Some(0));
}

#[test]
fn what_is_refused_is_answered_with_what_could_be_read_of_it() {
    let answer = |name: &str| {
        let malformed = Message::parse(&corpus(name)).unwrap_err();
        let mut bytes = Vec::new();
        malformed.answer.unwrap().write(&Tag::lossy("ours"), &mut bytes);
        (malformed.flaw, String::from_utf8(bytes).unwrap())
    };
    let (flaw, text) = answer("badvers.dat");
    assert_eq!(flaw, Flaw::Version);
    let wanted = "SIP/2.0 505 Version Not Supported\r\nVia: SIP/2.0/UDP c.example.com;branch=z9hG4bKkdjuw\r\n\
        From: A. Bell <sip:a.g.bell@example.com>;tag=qweoiqpe\r\nCall-ID: badvers.31417@c.example.com\r\n\
        CSeq: 1 OPTIONS\r\nTo: T. Watson <sip:t.watson@example.org>;tag=ours\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(text, wanted);
    // A response reads as one, wherever the request was not what broke it.
    assert!(matches!(Message::parse(wanted.as_bytes()), Ok(Message::Response(_))));
    let (flaw, text) = answer("badinv01.dat");
    assert_eq!(flaw, Flaw::Header("Via"));
    assert!(text.contains("\r\nVia: SIP/2.0/UDP 192.0.2.15\r\n"), "{text}");
    let (_, text) = answer("quotbal.dat");
    assert!(text.contains("\r\nTo: \"Mr. J. User <sip:j.user@example.com>\r\n"), "{text}");
    let (flaw, text) = answer("insuf.dat");
    assert_eq!(flaw, Flaw::Missing("From"));
    assert!(text.contains("\r\nCSeq: 193942 INVITE\r\n") && !text.contains("Call-ID"), "{text}");
    for (name, wanted) in [
        ("scalar02.dat", Flaw::Header("CSeq")),
        ("clerr.dat", Flaw::Truncated),
        ("ncl.dat", Flaw::Header("Content-Length")),
        ("ltgtruri.dat", Flaw::RequestUri),
        ("lwsruri.dat", Flaw::StartLine),
        ("escruri.dat", Flaw::RequestUri),
        ("regbadct.dat", Flaw::Header("Contact")),
        ("baddn.dat", Flaw::NoEnd),
        ("mismatch01.dat", Flaw::CseqMethod),
        ("multi01.dat", Flaw::Twice("CSeq")),
        ("mcl01.dat", Flaw::Twice("Content-Length")),
    ] {
        assert_eq!(answer(name).0, wanted, "{name}");
    }
}

#[test]
fn an_ack_and_a_response_are_never_answered() {
    let bad = |line: &str, method: &str| {
        let text = format!(
            "{line}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
            Call-ID: 1\r\nCSeq: x {method}\r\n\r\n"
        );
        Message::parse(text.as_bytes()).unwrap_err()
    };
    assert_eq!(bad("ACK sip:a@b SIP/2.0", "ACK").answer, None);
    assert_eq!(bad("SIP/2.0 200 OK", "INVITE").answer, None);
    assert_eq!(bad("SIP/3.0 200 OK", "INVITE").answer, None);
    assert!(bad("BYE sip:a@b SIP/2.0", "BYE").answer.is_some());
}

/// A request whose headers have these lines more.
fn with(lines: &str) -> Result<Message, Flaw> {
    let text = format!(
        "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n\
         Call-ID: 1\r\nCSeq: 1 INVITE\r\n{lines}\r\n\r\n"
    );
    Message::parse(text.as_bytes()).map_err(|malformed| malformed.flaw)
}

#[test]
fn no_header_is_smuggled_by_white_space_or_line_ends() {
    for (lines, wanted) in [
        // Two readers could differ about each of these.
        ("P-Secret : yes", Flaw::SpaceBeforeColon),
        ("P-Secret\t: yes", Flaw::SpaceBeforeColon),
        ("P Secret: yes", Flaw::HeaderLine),
        ("P-Secret\r\n : yes", Flaw::HeaderLine),
        (": yes", Flaw::HeaderLine),
        ("Subject: a\nRoute: <sip:x>", Flaw::Line),
        ("Subject: a\rRoute: <sip:x>", Flaw::Line),
        ("Subject: a\r\r\nRoute: <sip:x>", Flaw::Line),
        ("Subject: a\r\n \t\r\nRoute: <sip:x>", Flaw::Line),
        ("Subject: a\r\n ", Flaw::Line),
        ("X\0: yes", Flaw::HeaderLine),
        ("\u{ff}: yes", Flaw::HeaderLine),
        ("Content-Length: 0\r\nContent-Length: 0", Flaw::Twice("Content-Length")),
        ("Content-Length: 0\r\nl : 0", Flaw::Twice("Content-Length")),
        ("Content-Length: +0", Flaw::Header("Content-Length")),
        ("Content-Length: 0,0", Flaw::Header("Content-Length")),
        ("Content-Length: 0 0", Flaw::Header("Content-Length")),
        ("Call-ID: 2", Flaw::Twice("Call-ID")),
        ("Max-Forwards: 256", Flaw::Header("Max-Forwards")),
        ("Via: SIP/2.0/UDP h;branch=a, ", Flaw::Header("Via")),
        ("Contact: *, <sip:a@b>", Flaw::Header("Contact")),
        ("Contact: *\r\nContact: <sip:a@b>", Flaw::Header("Contact")),
        ("Contact: <sip:a@b>>", Flaw::Header("Contact")),
        ("Contact: \"<sip:evil@x>\" sip:a@b", Flaw::Header("Contact")),
        ("Contact: sip:evil@x <sip:a@b>", Flaw::Header("Contact")),
        ("Require: a b", Flaw::Header("Require")),
        ("Replaces: 1;to-tag=2", Flaw::Header("Replaces")),
    ] {
        assert_eq!(with(lines), Err(wanted), "{lines:?}");
    }
    let continued = format!("OPTIONS sip:a@b SIP/2.0\r\n {}", "x: y\r\n\r\n");
    assert_eq!(Message::parse(continued.as_bytes()).unwrap_err().flaw, Flaw::Line);
}

#[test]
fn white_space_before_the_colon_of_a_known_header_changes_nothing() {
    assert_eq!(with("Supported : 100rel"), with("Supported: 100rel"));
    assert_eq!(with("k\t : 100rel"), with("Supported:100rel"));
    assert_eq!(with("Route :\r\n <sip:x;lr>"), with("Route: <sip:x;lr>"));
}

#[test]
fn an_address_in_the_display_name_stays_a_display_name() {
    let Ok(Message::Request(request)) = with("Referred-By: \"<sip:evil@x>\" <sip:a@b>") else { panic!() };
    let by = request.headers.referred_by().unwrap();
    assert_eq!((by.display.as_ref().unwrap().as_str(), by.uri.to_string()), ("<sip:evil@x>", "sip:a@b".to_owned()));
}

#[test]
fn a_header_that_nothing_depends_on_may_be_broken() {
    let Ok(Message::Request(request)) = with("Allow: (\r\nSupported: <\r\nReason: ;\r\nWWW-Authenticate: Basic x")
    else {
        panic!()
    };
    assert_eq!(request.headers.allow().count() + request.headers.supported().count(), 0);
    assert_eq!(request.headers.other("Allow"), Some("("));
    assert!(request.headers.rest.iter().all(|h| matches!(h, Header::Other(..))));
}

fn ipv6(name: &str) -> Result<Message, Flaw> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rfc5118").join(format!("{name}.sip"));
    let text = std::fs::read_to_string(path).unwrap().replace('\n', "\r\n");
    let body = text.split_once("\r\n\r\n").unwrap().1.len();
    Message::parse(text.replace("Content-Length: @", &format!("Content-Length: {body}")).as_bytes()).map_err(|m| m.flaw)
}

#[test]
fn the_messages_of_rfc_5118_are_taken_as_the_rfc_says() {
    let read = |name: &str| match ipv6(name).unwrap_or_else(|e| panic!("{name}: {e}")) {
        Message::Request(request) => request,
        Message::Response(_) => panic!("{name}"),
    };
    let at = |request: &Request| (request.uri.host().unwrap().to_string(), request.uri.as_sip().unwrap().port);
    assert_eq!(at(&read("4.1")), ("[2001:db8::10]".to_owned(), None));
    assert_eq!(ipv6("4.2"), Err(Flaw::RequestUri));
    assert_eq!(at(&read("4.3")), ("[2001:db8::10:5070]".to_owned(), None));
    assert_eq!(at(&read("4.4")), ("[2001:db8::10]".to_owned(), Some(5070)));
    for name in ["4.5-1", "4.5-2"] {
        assert_eq!(read(name).headers.via[0].received, Some("2001:db8::9:255".parse().unwrap()), "{name}");
    }
    let body = |name: &str| SessionDescription::parse(read(name).body_of("application/sdp").unwrap());
    let feed = body("4.6").unwrap();
    assert_eq!(feed.address_of(&feed.media[1]), Some("[2001:db8::20]:6024".parse().unwrap()));
    let via = read("4.7").headers.via;
    assert_eq!((via[0].port, &via[1].host), (Some(6050), &Host::new("192.0.2.1").unwrap()));
    assert_eq!(via[2].received, Some("192.0.2.200".parse().unwrap()));
    let both = body("4.8").unwrap();
    let found: Vec<_> = both.media.iter().map(|m| both.address_of(m).unwrap().to_string()).collect();
    assert_eq!(found, ["192.0.2.1:22334", "[2001:db8::1]:6024"]);
    assert_eq!(read("4.9").headers.via[0].host.to_string(), "[::ffff:192.0.2.10]");
    assert_eq!(body("4.9").unwrap().media.len(), 2);
    assert_eq!(ipv6("4.10-1"), Err(Flaw::RequestUri));
    assert_eq!(at(&read("4.10-2")), ("[2001:db8::c000:201]".to_owned(), None));
}

#[test]
fn the_sdp_of_the_torture_messages_is_read_or_refused() {
    for (name, ..) in TABLE.iter().filter(|row| row.2 == Read) {
        let message = Message::parse(&corpus(name)).unwrap();
        let Some(content_type) = message.headers().content_type() else { continue };
        if let Some(sdp) = part_of(message.body(), content_type, "application/sdp") {
            let sdp = SessionDescription::parse(sdp).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(SessionDescription::parse(&sdp.to_bytes()), Ok(sdp), "{name}");
        }
    }
    assert_eq!(SessionDescription::parse(b"v=0\r\ntesting=123\r\n"), Err(BadSdp::Line));
}

#[test]
fn the_session_description_is_found_in_a_multipart_body_however_deep() {
    let found = |boundary: &str, body: &str| {
        let mut content_type = ContentType::new("multipart/mixed").unwrap();
        content_type.params.set("boundary", Some(boundary));
        part_of(body.as_bytes(), &content_type, "application/sdp").map(|part| String::from_utf8(part.to_vec()).unwrap())
    };
    let simple = "a preamble\r\n--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n--b  \r\n\
        content-type : Application/SDP ;x=y\r\n\r\nv=0\r\n\r\n--b--\r\nan epilogue\r\n";
    assert_eq!(found("b", simple).as_deref(), Some("v=0\r\n"));
    assert_eq!(found("c", simple), None);
    let nested = "--b\r\nContent-Type: multipart/alternative;boundary=\"c d\"\r\n\r\n--c d\r\n\r\nno type\r\n\
        --c d\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--c d--\r\n--b--\r\n";
    assert_eq!(found("b", nested).as_deref(), Some("v=0"));
    for (what, body) in [
        ("after the end", "--b--\r\n--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n"),
        ("without an end", "--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n"),
        ("of a longer boundary", "--bc\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--bc--\r\n"),
        ("of another type", "--b\r\nContent-Type: application/sdpx\r\n\r\nv=0\r\n--b--\r\n"),
        ("of nothing", ""),
    ] {
        assert_eq!(found("b", body), None, "{what}");
    }
    let deep = "--b\r\nContent-Type: multipart/mixed;boundary=b\r\n\r\n".repeat(500);
    assert_eq!(found("b", &format!("{deep}--b--")), None);
}

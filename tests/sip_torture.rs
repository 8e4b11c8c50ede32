//! RFC 4475's torture messages, RFC 5118's, and worse: what `wire::sip` makes of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use offhook::wire::sip::{Flaw, Header, Host, Message, Method, Request, Response, Status, Uri};
use std::path::PathBuf;

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

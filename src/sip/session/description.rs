//! What a session does with descriptions itself: their place in messages, their version, their directions.
//! Read RFC 3264 §5 to §8 and RFC 8866 §5.2 before touching this file.

use super::{BAD_REQUEST, Refused, UNSUPPORTED_MEDIA_TYPE};
use crate::wire::sip::{ContentType, Header, Headers, SipText, part_of};

pub(super) const MEDIA_TYPE: &str = "application/sdp";

/// A session description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sdp(Vec<String>);

impl Sdp {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Self, ()> {
        let text = std::str::from_utf8(bytes).map_err(|_| ())?;
        text.starts_with("v=0").then(|| Self(text.lines().map(str::to_owned).collect())).ok_or(())
    }

    /// Writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()).collect()
    }
}

/// The part of `o=` that tells descriptions of one session apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    line: String,
    version: u64,
}

impl Origin {
    pub(super) fn next(self) -> Self {
        Self { version: self.version.wrapping_add(1), ..self }
    }
}

pub(super) fn origin(sdp: &Sdp) -> Origin {
    let line = sdp.0.iter().find(|l| l.starts_with("o=")).cloned().unwrap_or_default();
    let version = line.split(' ').nth(2).and_then(|v| v.parse().ok()).unwrap_or(0);
    Origin { line, version }
}

pub(super) fn set_origin(sdp: &mut Sdp, origin: &Origin) {
    if let Some(line) = sdp.0.iter_mut().find(|l| l.starts_with("o=")) {
        let mut parts: Vec<String> = origin.line.split(' ').map(str::to_owned).collect();
        if let Some(version) = parts.get_mut(2) {
            *version = origin.version.to_string();
        }
        *line = parts.join(" ");
    }
}

fn direction(sdp: &Sdp) -> &str {
    let known = ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"];
    sdp.0.iter().find(|l| known.contains(&l.as_str())).map_or("a=sendrecv", String::as_str)
}

fn set_direction(sdp: &mut Sdp, to: &str) {
    let known = ["a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"];
    sdp.0.retain(|l| !known.contains(&l.as_str()));
    sdp.0.push(to.to_owned());
}

/// All media that is not refused is held: nobody listens there.
pub(super) fn is_held(sdp: &Sdp) -> bool {
    matches!(direction(sdp), "a=sendonly" | "a=inactive") || sdp.0.iter().any(|l| l == "c=IN IP4 0.0.0.0")
}

/// RFC 3264 §8.4.
pub(super) fn hold(sdp: &mut Sdp, on: bool) {
    let to = match (direction(sdp), on) {
        ("a=sendrecv" | "a=sendonly", true) => "a=sendonly",
        ("a=recvonly" | "a=inactive", true) => "a=inactive",
        ("a=sendrecv" | "a=sendonly", false) => "a=sendrecv",
        (_, true | false) => "a=recvonly",
    };
    set_direction(sdp, to);
}

/// Makes the directions of an answer fit its offer (RFC 3264 §6.1).
pub(super) fn fit(answer: &mut Sdp, offer: &Sdp) {
    let send = matches!(direction(answer), "a=sendrecv" | "a=sendonly");
    let receive = matches!(direction(answer), "a=sendrecv" | "a=recvonly");
    let may_send = matches!(direction(offer), "a=sendrecv" | "a=recvonly");
    let may_receive = matches!(direction(offer), "a=sendrecv" | "a=sendonly");
    let to = match (send && may_send, receive && may_receive) {
        (true, true) => "a=sendrecv",
        (true, false) => "a=sendonly",
        (false, true) => "a=recvonly",
        (false, false) => "a=inactive",
    };
    if to != direction(answer) {
        set_direction(answer, to);
    }
}

/// An answer that takes nothing of an offer: every port 0 (RFC 3264 §6).
pub(super) fn void(offer: &Sdp) -> Sdp {
    let mut sdp = offer.clone();
    for line in &mut sdp.0 {
        if line.starts_with("m=") {
            let mut parts: Vec<String> = line.split(' ').map(str::to_owned).collect();
            if let Some(port) = parts.get_mut(1) {
                *port = "0".into();
            }
            *line = parts.join(" ");
        }
    }
    sdp
}

/// `a=setup:actpass` stands in it.
pub(super) fn is_open_setup(sdp: &Sdp) -> bool {
    sdp.0.iter().any(|line| line == "a=setup:actpass")
}

/// Puts a description into a message.
pub(super) fn put(headers: &mut Headers, body: &mut Vec<u8>, sdp: &Sdp) {
    headers.set(Header::ContentType(ContentType::sdp()));
    *body = sdp.to_bytes();
}

/// The description of a message, whole or part of a multipart body; `None` without one, or with a body that may be
/// ignored.
///
/// # Errors
/// 415 for a body of another type (RFC 3261 §21.4.13), 400 for one that is none.
pub(super) fn read(headers: &Headers, body: &[u8]) -> Result<Option<Sdp>, Refused> {
    if body.is_empty() {
        return Ok(None);
    }
    let encoded =
        headers.other("Content-Encoding").is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity"));
    let part = headers.content_type().filter(|_| !encoded).and_then(|kind| part_of(body, kind, MEDIA_TYPE));
    match part {
        Some(part) => Sdp::parse(part).map(Some).map_err(|_| Refused::new(BAD_REQUEST)),
        // RFC 3261 §20.11.
        None if headers.content_disposition().is_some_and(|d| d.as_str().contains("handling=optional")) => Ok(None),
        None => Err(Refused::with(UNSUPPORTED_MEDIA_TYPE, Header::Accept(SipText::new(MEDIA_TYPE)))),
    }
}

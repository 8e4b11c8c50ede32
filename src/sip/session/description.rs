//! What a session does with descriptions itself: their place in messages, their version, their directions.
//! Read RFC 3264 §5 to §8 and RFC 8866 §5.2 before touching this file.

use super::{BAD_REQUEST, Refused, UNSUPPORTED_MEDIA_TYPE};
use crate::wire::candidate::Setup;
use crate::wire::sdp::{Direction, Level, MediaDescription, Origin, SessionDescription};
use crate::wire::sip::{ContentType, Header, Headers, SipText, part_of};

pub(super) const MEDIA_TYPE: &str = "application/sdp";

/// The description that a session carries.
pub type Sdp = SessionDescription;

/// The next description of one session: same id, the version one higher.
pub(super) fn next(mut origin: Origin) -> Origin {
    origin.version = origin.version.wrapping_add(1);
    origin
}

/// Streams that are not refused.
fn open(sdp: &Sdp) -> impl Iterator<Item = &MediaDescription> {
    sdp.media.iter().filter(|media| media.port != 0)
}

/// Held: nobody listens on any of its streams (RFC 3264 §8.4, the old `c=0.0.0.0` among them).
pub(super) fn is_held(sdp: &Sdp) -> bool {
    open(sdp).next().is_some() && open(sdp).all(|media| !sdp.direction_of(media).receives())
}

/// Our hold and its end: whether we listen changes, whether we send does not by itself (RFC 3264 §8.4).
pub(super) fn hold(sdp: &mut Sdp, on: bool) {
    let directions: Vec<Direction> =
        sdp.media.iter().map(|media| Direction::of(sdp.direction_of(media).sends(), !on)).collect();
    for (media, direction) in sdp.media.iter_mut().zip(directions) {
        if media.port != 0 {
            media.level.direction = Some(direction);
        }
    }
}

/// Makes the directions of an answer fit its offer (RFC 3264 §6.1).
pub(super) fn fit(answer: &mut Sdp, offer: &Sdp) {
    let directions: Vec<Direction> = answer.media.iter().map(|media| answer.direction_of(media)).collect();
    for ((media, ours), theirs) in answer.media.iter_mut().zip(directions).zip(&offer.media) {
        let theirs = offer.direction_of(theirs);
        let fitting = Direction::of(ours.sends() && theirs.receives(), ours.receives() && theirs.sends());
        if media.port != 0 && fitting != ours {
            media.level.direction = Some(fitting);
        }
    }
}

/// An answer that takes nothing of an offer: every port 0 (RFC 3264 §6).
pub(super) fn void(offer: &Sdp) -> Sdp {
    let level = Level { connection: offer.level.connection.clone(), ..Level::default() };
    let media = offer.media.iter().map(MediaDescription::refusal).collect();
    Sdp { level, media, groups: Vec::new(), ..offer.clone() }
}

/// `a=setup:actpass` stands in it.
pub(super) fn is_open_setup(sdp: &Sdp) -> bool {
    let mut levels = sdp.media.iter().map(|media| &media.level).chain([&sdp.level]);
    levels.any(|level| level.setup == Some(Setup::Actpass))
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

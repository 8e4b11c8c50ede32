//! Statuses that sessions answer with. Read RFC 3261 §21 before touching this file.

use crate::wire::sip::Status;

/// A status known when this is compiled.
const fn status(code: u16) -> Status {
    match Status::new(code) {
        Some(status) => status,
        None => panic!("not a status"),
    }
}

pub(crate) const TRYING: Status = status(100);
pub(crate) const RINGING: Status = status(180);
pub(crate) const SESSION_PROGRESS: Status = status(183);
pub(crate) const OK: Status = status(200);
pub(crate) const ACCEPTED: Status = status(202);
pub(crate) const MOVED_TEMPORARILY: Status = status(302);
pub(crate) const BAD_REQUEST: Status = status(400);
pub(crate) const METHOD_NOT_ALLOWED: Status = status(405);
pub(crate) const REQUEST_TIMEOUT: Status = status(408);
pub(crate) const UNSUPPORTED_MEDIA_TYPE: Status = status(415);
pub(crate) const BAD_EXTENSION: Status = status(420);
pub(crate) const EXTENSION_REQUIRED: Status = status(421);
pub(crate) const SESSION_TOO_BRIEF: Status = status(422);
pub(crate) const BAD_INFO_PACKAGE: Status = status(469);
pub(crate) const TEMPORARILY_UNAVAILABLE: Status = status(480);
pub(crate) const NO_TRANSACTION: Status = status(481);
pub(crate) const BUSY_HERE: Status = status(486);
pub(crate) const REQUEST_TERMINATED: Status = status(487);
pub(crate) const NOT_ACCEPTABLE_HERE: Status = status(488);
pub(crate) const BAD_EVENT: Status = status(489);
pub(crate) const REQUEST_PENDING: Status = status(491);
pub(crate) const SERVER_ERROR: Status = status(500);
pub(crate) const NOT_IMPLEMENTED: Status = status(501);
pub(crate) const SERVICE_UNAVAILABLE: Status = status(503);
pub(crate) const SERVER_TIMEOUT: Status = status(504);
pub(crate) const DECLINE: Status = status(603);

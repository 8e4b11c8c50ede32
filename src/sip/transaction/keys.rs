//! Which request a message belongs to. Read RFC 3261 §17.1.3, §17.2.3 and §8.2.2.2 before touching this file.

use crate::wire::sip::{CallId, Host, Method, Request, Tag};
use compact_str::CompactString;

/// RFC 3261 §8.1.1.7: a branch that is unique says so.
pub(super) const COOKIE: &str = "z9hG4bK";

/// Names a server transaction. An ACK has the key of its INVITE; a CANCEL is looked up by that of its INVITE, too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ServerKey {
    /// RFC 3261 §17.2.3: branch, sent-by and method.
    Branch { branch: CompactString, host: Host, port: Option<u16>, method: Method },
    /// The rules for requests whose branch is not unique (RFC 2543). To tags are compared by whom it matters to.
    Old(Box<OldKey>),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OldKey {
    call_id: CallId,
    from_tag: Option<Tag>,
    cseq: u32,
    uri: String,
    host: Host,
    port: Option<u16>,
    branch: Option<CompactString>,
    method: Method,
}

impl ServerKey {
    /// The key that a request would have if its method were this one. `None`: no Via, which no parser lets through.
    pub(super) fn of(request: &Request, method: &Method) -> Option<Self> {
        let via = request.headers.via.first()?;
        let method = if *method == Method::Ack { Method::Invite } else { method.clone() };
        let unique = via.branch.as_ref().filter(|branch| {
            branch.get(..COOKIE.len()).is_some_and(|head| head.eq_ignore_ascii_case(COOKIE))
                && branch.len() > COOKIE.len()
        });
        Some(match unique {
            Some(branch) => Self::Branch { branch: branch.clone(), host: via.host.clone(), port: via.port, method },
            None => Self::Old(Box::new(OldKey {
                call_id: request.headers.call_id.clone(),
                from_tag: request.headers.from.tag(),
                cseq: request.headers.cseq.number,
                uri: request.uri.to_string(),
                host: via.host.clone(),
                port: via.port,
                branch: via.branch.clone(),
                method,
            })),
        })
    }

    /// True where the branch does not tell one client from another.
    pub(super) const fn is_old(&self) -> bool {
        matches!(self, Self::Old(_))
    }
}

/// What copies of one request have in common that came by different ways, RFC 3261 §8.2.2.2.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MergeKey {
    call_id: CallId,
    from_tag: Option<Tag>,
    cseq: u32,
    method: Method,
}

impl MergeKey {
    /// `None` for a request inside a dialog.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let headers = &request.headers;
        headers.to.tag().is_none().then(|| Self {
            call_id: headers.call_id.clone(),
            from_tag: headers.from.tag(),
            cseq: headers.cseq.number,
            method: request.method.clone(),
        })
    }
}

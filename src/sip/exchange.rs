//! What passes between the users of requests (sessions, registrations, subscriptions) and `sip/carrier`, which finds the
//! next hop, runs the transactions, answers challenges and fails over. Read RFC 3261 §5 and §8 before touching this file.

use crate::wire::sip::{Reason, Request, Response, SipUri, Tag};
use std::net::SocketAddr;

/// Host of a Contact of ours whose address nobody knows before its flow is open: the carrier writes the flow's own
/// address, port and transport over it, and turns it back in answers to REGISTER (RFC 2606 §2 keeps the name free).
pub const LOCAL_HOST: &str = "local.invalid";

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A session of `sip/sessions`.
    Session(u64),
    /// A registration.
    Registration(u64),
    /// A subscription or a publication.
    Event(u64),
    /// A lone request: MESSAGE, OPTIONS.
    Lone(u64),
}

/// Names a request of ours from when it is handed over until its final answer, through every retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    /// Who hears of it.
    pub owner: Owner,
    /// Chosen by the owner, unique for him.
    pub number: u32,
}

/// Names a request of a peer until it is answered finally.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u64);

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// RFC 3261 §18
    Udp,
    /// RFC 3261 §18
    Tcp,
    /// RFC 3261 §26.3
    Tls,
    /// RFC 7118
    Ws,
    /// RFC 7118 over TLS
    Wss,
}

/// One connection, or one UDP socket, of the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The connection or socket; answers go back on it.
    pub flow: FlowId,
    /// How it came.
    pub transport: Transport,
    /// Its source address.
    pub source: SocketAddr,
}

/// What an owner wants done.
#[derive(Debug)]
pub enum Wish {
    /// Send a request. The carrier adds the Via, and credentials where it is challenged (then `CSeq` goes up by one).
    /// Contact ([`LOCAL_HOST`] for our own address) and User-Agent are the owner's. Route is the route set as it is and the
    /// Request-URI the remote target; what a strict router needs (RFC 3261 §12.2.1.1) is the carrier's business.
    Request {
        /// Its name.
        id: RequestId,
        /// Complete but for its Via.
        request: Box<Request>,
    },
    /// Send the ACK of a 2xx, which is no transaction (RFC 3261 §13.2.2.4). Repeated by the owner on every repeated 2xx.
    Ack(Box<Request>),
    /// CANCEL a pending INVITE (RFC 3261 §9.1): held back until a provisional response came. With these headers more.
    Cancel {
        /// The INVITE.
        id: RequestId,
        /// `Reason` and the like.
        headers: Vec<crate::wire::sip::Header>,
    },
    /// Find out how a request to this URI would travel, and open the flow, without sending anything: its addresses are
    /// wanted before there is an offer.
    Way {
        /// Its name; used up by the answer.
        id: RequestId,
        /// Request-URI.
        uri: Box<SipUri>,
    },
    /// Answer a request. Via, From, To, Call-ID and CSeq are copied from it by the carrier; where `to_tag` is set it is
    /// added to To (RFC 3261 §8.2.6.2). The owner repeats what needs to be: a 2xx to INVITE until its ACK (§13.3.1.4), a
    /// reliable provisional response until its PRACK (RFC 3262 §3). 100 is sent by the carrier.
    Response {
        /// The request.
        id: ServerId,
        /// Tag of our side.
        to_tag: Option<Tag>,
        /// Status, other headers, body. Its Via, From, To, Call-ID and CSeq are not looked at.
        response: Box<Response>,
    },
}

/// What an owner hears.
#[derive(Debug)]
pub enum Heard {
    /// A request other than ACK and CANCEL.
    Request {
        /// To answer it by.
        id: ServerId,
        /// It.
        request: Box<Request>,
        /// Where it came from.
        origin: Origin,
    },
    /// The ACK of a 2xx of ours.
    Ack(Box<Request>),
    /// The ACK of a failure response came, or will never come: the server transaction is over.
    Confirmed(ServerId),
    /// The peer gave up his INVITE. The CANCEL is answered already; the INVITE awaits its 487 (RFC 3261 §9.2).
    Cancelled {
        /// The INVITE.
        id: ServerId,
        /// Those of the CANCEL: another telephone answered, and the like (RFC 3326).
        reasons: Vec<Reason>,
    },
    /// A response to a request of ours: each provisional one but 100, each 2xx to INVITE however often it comes, and one
    /// other final. Challenges, redirects to another target of the same name and 503 fail-over are used up below.
    Response {
        /// The request.
        id: RequestId,
        /// It.
        response: Box<Response>,
        /// `CSeq` number it was sent with in the end.
        cseq: u32,
        /// Where the response came from.
        origin: Origin,
    },
    /// Answer to [`Wish::Way`].
    Way {
        /// As given.
        id: RequestId,
        /// How a request would travel.
        transport: Transport,
        /// From which address of ours.
        local: SocketAddr,
        /// To which address.
        remote: SocketAddr,
    },
    /// The way that this owner's last answered request went is not there any more, or is another one: what was told to the
    /// server by it (a Contact) is to be told again (RFC 5626 §4.4.1). Only registrations and events hear of it.
    FlowChanged {
        /// Whose.
        owner: Owner,
        /// What happened.
        why: FlowChange,
    },
    /// No answer at all.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        why: Failure,
    },
}

/// What happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowChange {
    /// It is closed.
    Lost,
    /// Its public address is another one than our Contact named.
    Moved,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Timer B or F on the last target (RFC 3261 §17.1): as if 408.
    #[error("no answer in time")]
    TimedOut,
    /// The name does not resolve, or none of its transports is one of ours.
    #[error("no address for {0}")]
    NoTarget(String),
    /// No connection to any target: as if 503.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The server's certificate is not good.
    #[error("not safe: {0}")]
    Certificate(String),
    /// Challenged, and there are no credentials for that realm, or they were refused.
    #[error("not authorized for {0}")]
    Unauthorized(String),
    /// An INVITE was given up before anybody heard of it, or had no final answer 64·T1 after its CANCEL (RFC 3261 §9.1):
    /// as if 487.
    #[error("cancelled")]
    Cancelled,
    /// Our own bound on transactions.
    #[error("too many requests at once")]
    Full,
}

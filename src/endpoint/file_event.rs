//! What goes into the engine and what comes out of it for files. Read XEP-0234 §6 and §8 for the words used here.
//!
//! Bytes of a SOCKS5 bytestream never pass the engine: the shell carries them between the file and the stream. In-band
//! bytes and those of a data channel do, with a credit in both directions.

use super::event::{EndKind, Ended};
use crate::file::{Carried, CarryFault, FileFault, FileJob, Verdict};
use crate::transport::dial::DialPolicy;
use crate::transport::s5b::StreamId;
use crate::wire::candidate::S5bKind;
use crate::wire::description::{FileDescription, FileHash};
use crate::wire::jid::Jid;
use crate::wire::jingle::Sid;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

/// One session of files, from `send_files` or [`FileEvent::Offered`] until [`FileEvent::Ended`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub u64);

impl std::fmt::Display for TransferId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One file of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Of this transfer.
    pub transfer: TransferId,
    /// Counted from 0 in the order in which they were offered.
    pub file: usize,
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.transfer.0, self.file)
    }
}

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WayKind {
    /// SOCKS5 bytestream, XEP-0260.
    S5b,
    /// Data channel over ICE and DTLS, XEP-0343.
    DataChannel,
    /// Inside of stanzas, XEP-0261.
    Ibb,
}

impl WayKind {
    /// In the order in which they are tried: what is fast first (J234-19: in-band last).
    pub const ALL: [WayKind; 3] = [WayKind::S5b, WayKind::DataChannel, WayKind::Ibb];

    /// `s5b`, `datachannel` or `ibb`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            WayKind::S5b => "s5b",
            WayKind::DataChannel => "datachannel",
            WayKind::Ibb => "ibb",
        }
    }
}

/// The way that a file took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// XEP-0260, over such a streamhost.
    S5b(S5bKind),
    /// XEP-0343
    DataChannel,
    /// XEP-0261
    Ibb,
}

impl Way {
    /// `s5b-direct`, `s5b-proxy`, `datachannel`, `ibb`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Way::S5b(S5bKind::Assisted) => "s5b-assisted",
            Way::S5b(S5bKind::Direct) => "s5b-direct",
            Way::S5b(S5bKind::Proxy) => "s5b-proxy",
            Way::S5b(S5bKind::Tunnel) => "s5b-tunnel",
            Way::DataChannel => "datachannel",
            Way::Ibb => "ibb",
        }
    }
}

/// Answers of the shell.
#[derive(Debug)]
pub enum FileInput {
    /// Listeners that were opened on [`FileOutput::Listen`].
    Listening {
        /// For this file.
        id: FileId,
        /// Addresses with their ports; empty where none could be opened.
        bound: Vec<SocketAddr>,
        /// Networks that this machine is part of, with their prefix lengths: private addresses in them may be dialled.
        networks: Vec<(IpAddr, u8)>,
    },
    /// A stream stands, its SOCKS5 handshake done.
    StreamOpen {
        /// For this file.
        id: FileId,
        /// As dialled, or a new one of the shell.
        stream: StreamId,
        /// The listener that it came to; `None` if it was dialled.
        local: Option<SocketAddr>,
    },
    /// A stream could not be opened, or broke before it was carrying.
    StreamDown {
        /// For this file.
        id: FileId,
        /// Which.
        stream: StreamId,
    },
    /// A job is over: on a stream in both directions, in-band only that of a receiver.
    Carried {
        /// Which.
        id: FileId,
        /// Bytes and hashes, or why not.
        result: Result<Carried, CarryFault>,
    },
    /// The peer has closed the stream after the last byte of a file of ours, or is gone.
    Left {
        /// Which.
        id: FileId,
    },
    /// Bytes of the file, asked for by [`FileOutput::Read`].
    Bytes {
        /// Which.
        id: FileId,
        /// No more than were asked for.
        bytes: Vec<u8>,
        /// These are the last ones of its range; hashes of the whole file, as the job asked for.
        end: Option<Vec<FileHash>>,
    },
    /// So many bytes of [`FileOutput::Write`] are dealt with.
    Written {
        /// Which.
        id: FileId,
        /// How many.
        bytes: usize,
    },
    /// The file has its final name after [`Verdict::Keep`].
    Kept {
        /// Which.
        id: FileId,
        /// Where it is now.
        path: PathBuf,
    },
    /// The file could not be opened, kept or written.
    Fault {
        /// Which.
        id: FileId,
        /// Why.
        fault: FileFault,
    },
}

/// What the engine wants of the shell for a file.
#[derive(Debug)]
pub enum FileOutput {
    /// The peer took the file (or we did): begin with it. Ends with [`FileInput::Carried`].
    Open {
        /// Which.
        id: FileId,
        /// Range, direction and hashes.
        job: FileJob,
    },
    /// Open TCP listeners that speak SOCKS5 for these destinations and no other.
    Listen {
        /// For this file.
        id: FileId,
        /// Each of 40 hex digits.
        dst_addrs: [String; 2],
        /// Loopback too.
        lab: bool,
    },
    /// Open a TCP connection and ask its SOCKS5 server for this destination.
    Dial {
        /// For this file.
        id: FileId,
        /// Its name from now on.
        stream: StreamId,
        /// Address or name; each address it has is checked before it is dialled.
        host: String,
        /// TCP port.
        port: u16,
        /// 40 hex digits.
        dst_addr: String,
        /// Given up then.
        by: Instant,
        /// Which addresses may be dialled.
        policy: DialPolicy,
    },
    /// Close this stream, or stop dialling it.
    HangUp {
        /// For this file.
        id: FileId,
        /// Which.
        stream: StreamId,
    },
    /// The job's bytes go over this stream.
    Carry {
        /// Which.
        id: FileId,
        /// Over which.
        stream: StreamId,
    },
    /// The job's bytes pass the engine: read some.
    Read {
        /// Which.
        id: FileId,
        /// At most so many.
        most: usize,
    },
    /// The job's bytes pass the engine: write these.
    Write {
        /// Which.
        id: FileId,
        /// In order.
        bytes: Vec<u8>,
    },
    /// No more bytes come: the peer closed the stream.
    WriteEnd(FileId),
    /// What becomes of a received file.
    Judge {
        /// Which.
        id: FileId,
        /// Final name, kept part or nothing.
        verdict: Verdict,
    },
    /// Nothing more is wanted of its streams and listeners, but the file stays open.
    CloseStreams(FileId),
    /// The transfer is over: close everything; parts without a verdict are kept.
    Close(TransferId),
}

/// A file to be sent, as the application describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutgoingFile {
    /// Name, size, date, media type, description; hashes if they are known already.
    pub description: FileDescription,
}

/// One file of an offer that the local user wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub id: FileId,
    /// Bytes of it that are here already.
    pub offset: u64,
    /// Most bytes to take where the offer does not say its size.
    pub limit: Option<u64>,
}

/// A file as it was offered; everything in it is the peer's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedFile {
    /// Which.
    pub id: FileId,
    /// Untrusted.
    pub description: FileDescription,
}

/// What the application hears of files.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FileEvent {
    /// Somebody offers files. Answer with `accept_files` or `reject_files`.
    Offered {
        /// Which session.
        transfer: TransferId,
        /// Session id.
        sid: Sid,
        /// Who.
        from: Jid,
        /// What, one or more.
        files: Vec<OfferedFile>,
        /// Further files of a session of which some were accepted before.
        further: bool,
    },
    /// Somebody asks for a file. Answer with `serve_file` or `reject_files`.
    Requested {
        /// Which session.
        transfer: TransferId,
        /// Session id.
        sid: Sid,
        /// Who.
        from: Jid,
        /// What is known of it: a name or a hash.
        file: OfferedFile,
    },
    /// The peer took a file of ours.
    Accepted {
        /// Which.
        id: FileId,
        /// The peer has the bytes before this one already.
        offset: u64,
    },
    /// The peer will not have a file of ours.
    Declined {
        /// Which.
        id: FileId,
    },
    /// A way stands; bytes flow.
    Connected {
        /// Which.
        id: FileId,
        /// How.
        way: Way,
    },
    /// A way did not work; the next one is tried.
    Falling {
        /// Which.
        id: FileId,
        /// What did not work.
        from: WayKind,
        /// What is tried.
        to: WayKind,
    },
    /// The file is over there, or here under its final name.
    Done {
        /// Which.
        id: FileId,
        /// Where it is now, if it was received.
        path: Option<PathBuf>,
        /// Bytes of the whole file.
        size: u64,
        /// Its hash, as far as one is known.
        hash: Option<FileHash>,
        /// The hash was compared on the receiving side and fits.
        verified: bool,
    },
    /// There will be no such file.
    Failed {
        /// Which.
        id: FileId,
        /// Class.
        kind: EndKind,
        /// For people.
        text: String,
    },
    /// The session is over; the last event of it.
    Ended {
        /// Which.
        transfer: TransferId,
        /// How.
        how: Box<Ended>,
    },
}

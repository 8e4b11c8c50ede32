//! SOCKS5 bytestreams (XEP-0065 1.8.2) and in-band bytestreams (XEP-0047 2.0.1). Read XEP-0065 §5 and XEP-0047 §2
//! before touching this file.

use super::jid::Jid;

/// `<query xmlns='http://jabber.org/protocol/bytestreams'/>`: a query to a proxy when it holds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytestreams {
    /// Stream id.
    pub sid: Option<String>,
    /// `dstaddr`
    pub dstaddr: Option<String>,
    /// `mode='udp'` was asked for.
    pub udp: bool,
    /// In order of preference; those that could be read.
    pub streamhosts: Vec<Streamhost>,
    /// `<streamhost-used/>`
    pub used: Option<Jid>,
    /// `<activate/>`: the target.
    pub activate: Option<Jid>,
}

/// XEP-0065 streamhost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamhost {
    /// Who it is.
    pub jid: Jid,
    /// Name or literal address.
    pub host: String,
    /// 1080 if absent.
    pub port: u16,
}

/// XEP-0047 elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ibb {
    /// Opens a stream.
    Open {
        /// Stream id.
        sid: String,
        /// Bytes before base64, 1 to 65 535.
        block_size: u16,
        /// `stanza='message'` instead of IQs.
        in_messages: bool,
    },
    /// One block.
    Data {
        /// Stream id.
        sid: String,
        /// Counts from 0 and wraps.
        seq: u16,
        /// Decoded.
        data: Vec<u8>,
    },
    /// Closes a stream.
    Close {
        /// Stream id.
        sid: String,
    },
}

//! SOCKS5 bytestreams (XEP-0065 1.8.2) and in-band bytestreams (XEP-0047 2.0.1). Read XEP-0065 §5 and XEP-0047 §2
//! before touching this file.

use super::jid::Jid;
use super::ns;
use super::xml::{Reader, Result, Writer, base64, jid};
use crate::fault::Malformed;

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
    /// A block whose text is no base64: read, so that the stream it belongs to can be closed (J047-03).
    Spoiled {
        /// Stream id.
        sid: String,
        /// Its number.
        seq: u16,
    },
    /// Closes a stream.
    Close {
        /// Stream id.
        sid: String,
    },
}

impl Bytestreams {
    /// Reads the `<query/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] for a `<streamhost-used/>` or `<activate/>` without a JID. A streamhost that cannot be read is
    /// passed over: others may do.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut query = Self {
            sid: r.attr("sid").map(str::to_owned),
            dstaddr: r.attr("dstaddr").map(str::to_owned),
            udp: r.attr("mode") == Some("udp"),
            ..Self::default()
        };
        r.children(|r| {
            if r.is(ns::BYTESTREAMS, "streamhost") {
                let port = r.parse("streamhost", "port").map(|p| p.unwrap_or(1080));
                if let (Ok(Some(jid)), Some(host), Ok(port)) = (jid(r, "streamhost", "jid"), r.attr("host"), port) {
                    query.streamhosts.push(Streamhost { jid, host: host.to_owned(), port });
                }
            } else if r.is(ns::BYTESTREAMS, "streamhost-used") {
                let used = jid(r, "streamhost-used", "jid")?;
                query.used =
                    Some(used.ok_or(Malformed::MissingAttribute { element: "streamhost-used", attribute: "jid" })?);
            } else if r.is(ns::BYTESTREAMS, "activate") {
                let target = r.text()?.trim().parse();
                query.activate = Some(target.map_err(|_| Malformed::BadValue { element: "activate", what: "text" })?);
            }
            Ok(())
        })?;
        Ok(query)
    }

    /// Writes the `<query/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("query", ns::BYTESTREAMS).attr_opt("sid", self.sid.as_deref());
        w.attr_opt("dstaddr", self.dstaddr.as_deref());
        if self.udp {
            w.attr("mode", "udp");
        }
        for host in &self.streamhosts {
            w.start("streamhost").attr("jid", host.jid.as_str()).attr("host", &host.host);
            w.attr_number("port", host.port).end("streamhost");
        }
        if let Some(used) = &self.used {
            w.start("streamhost-used").attr("jid", used.as_str()).end("streamhost-used");
        }
        if let Some(target) = &self.activate {
            w.text_element("activate", target.as_str());
        }
        w.end("query");
    }
}

impl Ibb {
    /// The stream it belongs to.
    #[must_use]
    pub fn sid(&self) -> &str {
        match self {
            Ibb::Open { sid, .. } | Ibb::Data { sid, .. } | Ibb::Spoiled { sid, .. } | Ibb::Close { sid } => sid,
        }
    }

    /// Reads the element that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] without sid, with a bad number, for an unknown element.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        if r.is(ns::IBB, "open") {
            let sid = r.need("open", "sid")?.to_owned();
            let block_size: u16 = r
                .parse("open", "block-size")?
                .ok_or(Malformed::MissingAttribute { element: "open", attribute: "block-size" })?;
            if block_size == 0 {
                return Err(Malformed::BadValue { element: "open", what: "block-size" });
            }
            let in_messages = match r.attr("stanza") {
                None | Some("iq") => false,
                Some("message") => true,
                Some(_) => return Err(Malformed::BadValue { element: "open", what: "stanza" }),
            };
            Ok(Ibb::Open { sid, block_size, in_messages })
        } else if r.is(ns::IBB, "data") {
            let sid = r.need("data", "sid")?.to_owned();
            let seq =
                r.parse("data", "seq")?.ok_or(Malformed::MissingAttribute { element: "data", attribute: "seq" })?;
            let text = r.text()?;
            Ok(match base64(&text) {
                Some(data) => Ibb::Data { sid, seq, data },
                None => Ibb::Spoiled { sid, seq },
            })
        } else if r.is(ns::IBB, "close") {
            Ok(Ibb::Close { sid: r.need("close", "sid")?.to_owned() })
        } else {
            Err(Malformed::Unexpected { element: "iq" })
        }
    }

    /// Writes the element with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            Ibb::Open { sid, block_size, in_messages } => {
                w.start_ns("open", ns::IBB).attr("sid", sid).attr_number("block-size", block_size);
                w.attr("stanza", if *in_messages { "message" } else { "iq" }).end("open");
            }
            Ibb::Data { sid, seq, data } => {
                w.start_ns("data", ns::IBB).attr("sid", sid).attr_number("seq", seq).base64(data).end("data");
            }
            // Only tests write such a block: it reads as what it is.
            Ibb::Spoiled { sid, seq } => {
                w.start_ns("data", ns::IBB).attr("sid", sid).attr_number("seq", seq).text("=").end("data");
            }
            Ibb::Close { sid } => {
                w.start_ns("close", ns::IBB).attr("sid", sid).end("close");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::config::XmlLimits;

    #[test]
    fn a_block_that_is_no_base64_is_told_from_one_that_is() {
        let block = |text: &str| {
            let xml = format!("<data xmlns='{}' sid='s' seq='7'>{text}</data>", ns::IBB);
            Ibb::read(&mut Reader::new(&xml, ns::CLIENT, &XmlLimits::default()).unwrap()).unwrap()
        };
        for (text, bytes) in [("aGVsbG8=", "hello"), ("\n aGVs\n bG8=\n", "hello"), ("", "")] {
            assert_eq!(block(text), Ibb::Data { sid: "s".into(), seq: 7, data: bytes.into() }, "{text:?}");
        }
        // J047-03: a pad inside, one too many, one missing, foreign characters, left-over bits.
        for text in
            ["aG=sbG8=", "aGVsbG8==", "aGVsbG8", "====", "=", "aGVs!G8=", "aGVsb\u{E9}8=", "aGVsbG9=", "aGVs-_8="]
        {
            assert_eq!(block(text), Ibb::Spoiled { sid: "s".into(), seq: 7 }, "{text:?}");
        }
    }
}

//! What a stream with a server and one without (XEP-0174) have in common: bytes to pieces, elements to bytes. Read RFC 6120
//! §4.2, §4.8 and §4.9 before touching this file.

use super::stream::StreamTransmit;
use crate::config::XmlLimits;
use crate::fault::{Malformed, StreamCondition};
use crate::wire::framer::{Frame, Framer};
use crate::wire::stanza::{Stanza, StanzaFault};
use crate::wire::stream::{StreamElement, StreamError, StreamHeader, TopLevel};
use crate::wire::xml::{Scope, Writer};
use std::collections::VecDeque;

/// Output is joined up to this many bytes, so that many small stanzas are one write.
const CHUNK_BYTES: usize = 16 * 1024;

/// One piece of the other side's stream.
#[derive(Debug)]
pub(crate) enum Piece {
    Header(StreamHeader),
    Element(StreamElement),
    Stanza(Stanza),
    /// A stanza that cannot be read; the stream goes on.
    Malformed(Box<StanzaFault>),
    End,
}

#[derive(Debug)]
pub(crate) struct Pipe {
    framer: Framer,
    limits: XmlLimits,
    /// Namespaces of the other side's header.
    scope: Scope,
    out: VecDeque<StreamTransmit>,
}

impl Pipe {
    pub(crate) fn new(limits: &XmlLimits) -> Self {
        Self { framer: Framer::new(limits), limits: *limits, scope: Scope::bare(), out: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// The next piece. An error ends the stream and says which stream error to send.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, Malformed> {
        Ok(match self.framer.next()? {
            None => None,
            Some(Frame::Close) => Some(Piece::End),
            Some(Frame::Open(text)) => {
                let (header, scope) = StreamHeader::parse(text, &self.limits)?;
                self.scope = scope;
                Some(Piece::Header(header))
            }
            Some(Frame::Element(text)) => match TopLevel::parse(text, &self.scope, &self.limits) {
                Ok(TopLevel::Stanza(stanza)) => Some(Piece::Stanza(stanza)),
                Ok(TopLevel::Stream(element)) => Some(Piece::Element(element)),
                Err(fault) if fault.fault.ends_stream() => return Err(fault.fault),
                Err(fault) if fault.kind.is_some() => Some(Piece::Malformed(fault)),
                Err(_) => {
                    let detail = "malformed stream element";
                    return Err(Malformed::Xml { condition: StreamCondition::BadFormat, detail });
                }
            },
        })
    }

    /// Forgets the other side's stream: a new header follows after TLS and after SASL.
    pub(crate) fn restart(&mut self) {
        self.framer.restart();
        self.scope = Scope::bare();
    }

    #[cfg(test)]
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.framer.buffered_bytes()
    }

    pub(crate) fn header(&mut self, header: &StreamHeader) {
        let mut text = String::new();
        header.write(&mut text);
        self.text(&text);
    }

    pub(crate) fn element(&mut self, element: &StreamElement) {
        let mut text = String::new();
        element.write(&mut Writer::new(&mut text));
        self.text(&text);
    }

    pub(crate) fn stanza(&mut self, stanza: &Stanza) {
        self.text(&stanza_text(stanza));
    }

    /// Elements already written.
    pub(crate) fn text(&mut self, text: &str) {
        match self.out.back_mut() {
            Some(StreamTransmit::Bytes(bytes)) if bytes.len() < CHUNK_BYTES => bytes.extend_from_slice(text.as_bytes()),
            Some(StreamTransmit::Bytes(_) | StreamTransmit::StartTls | StreamTransmit::Close) | None => {
                self.out.push_back(StreamTransmit::Bytes(text.as_bytes().to_vec()));
            }
        }
    }

    pub(crate) fn start_tls(&mut self) {
        self.out.push_back(StreamTransmit::StartTls);
    }

    /// Ends our half of the stream.
    pub(crate) fn end(&mut self) {
        let mut text = String::new();
        StreamHeader::write_end(&mut text);
        self.text(&text);
    }

    /// RFC 6120 §4.9.1.1: the error, then the end of the stream.
    pub(crate) fn error(&mut self, error: StreamError) {
        self.element(&StreamElement::Error(Box::new(error)));
        self.end();
    }

    pub(crate) fn close(&mut self) {
        self.out.push_back(StreamTransmit::Close);
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<StreamTransmit> {
        self.out.pop_front()
    }

    /// A new connection: nothing of the last one is left.
    pub(crate) fn reset(&mut self) {
        self.restart();
        self.out.clear();
    }
}

/// The condition of the stream error for a fault in the other side's XML.
pub(crate) fn condition(fault: &Malformed) -> StreamCondition {
    match fault {
        Malformed::Xml { condition, .. } => *condition,
        Malformed::MissingAttribute { .. }
        | Malformed::BadValue { .. }
        | Malformed::MissingChild { .. }
        | Malformed::Unexpected { .. } => StreamCondition::BadFormat,
    }
}

pub(crate) fn stanza_text(stanza: &Stanza) -> String {
    let mut text = String::new();
    stanza.write(&mut Writer::new(&mut text));
    text
}

//! Cuts the bytes of a stream into its header, its children and its end. Read RFC 6120 §4.2, §11.1 and §11.6 before
//! touching this file.
//!
//! ```text
//!          <?xml … ?>   <stream:stream …>   <child>…</child>   <child/>   </stream:stream>
//! frame:   (checked)    Open                Element            Element    Close
//! ```
//!
//! Each byte is looked at once. Only what a frame needs is kept: white space between the children (keepalives) is not.
//! What a frame holds is checked by [`super::xml::Reader`]; here is checked what decides where a frame ends.

use super::xml::{Result, xml};
use crate::config::XmlLimits;
use crate::fault::{Malformed, StreamCondition};
use std::collections::VecDeque;

/// One piece of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The start tag of the root, for [`super::stream::StreamHeader::parse`].
    Open(&'a str),
    /// A child of the root, complete, for [`super::stream::TopLevel::parse`].
    Element(&'a str),
    /// The end tag of the root.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Declaration,
    Open,
    Element,
    Close,
}

/// Where in the grammar the next byte stands.
///
/// ```text
/// Between ─<─▶ Less ─name─▶ Tag ◀─quote─▶ Quoted
///    ▲          │ └─/─▶ EndTag
///    │          ├─!─▶ Bang ─[CDATA[─▶ CData
///  frame ends   └─?─▶ Question ─xml─▶ Declaration (first bytes only)
///    │
///   Text (inside a child)                       Ended (after the root's end tag)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Text,
    Less,
    /// In a start tag; true if the byte before was a slash.
    Tag(bool),
    Quoted(u8),
    EndTag,
    /// So many bytes of `[CDATA[` were there.
    Bang(usize),
    /// So many bytes of `]]>` were there.
    CData(usize),
    /// So many bytes of `xml` were there.
    Question(usize),
    /// True if the byte before was a question mark.
    Declaration(bool),
    Ended,
}

/// Cuts bytes into frames. Sans-IO: bytes in with [`Self::push`], then frames out with [`Self::next`] until there is none.
#[derive(Debug)]
pub struct Framer {
    limits: XmlLimits,
    state: State,
    /// Open elements, the root included.
    depth: usize,
    /// No byte was seen since the start or restart.
    fresh: bool,
    /// The tag being read began with the first byte.
    at_start: bool,
    /// Frames that are complete, then the beginning of the next one.
    buffer: String,
    /// Bytes of `buffer` that were handed out.
    used: usize,
    /// Bytes of the unfinished frame at the end of `buffer`.
    partial: usize,
    /// The complete frames in `buffer` and their bytes.
    complete: VecDeque<(Kind, usize)>,
    /// Name of the root as it was written.
    root: String,
    /// The first bytes of a character whose last ones are still to come.
    tail: Vec<u8>,
    fault: Option<Malformed>,
}

impl Framer {
    /// Waits for a stream header.
    #[must_use]
    pub fn new(limits: &XmlLimits) -> Self {
        Self {
            limits: *limits,
            state: State::Between,
            depth: 0,
            fresh: true,
            at_start: false,
            buffer: String::new(),
            used: 0,
            partial: 0,
            complete: VecDeque::new(),
            root: String::new(),
            tail: Vec::new(),
            fault: None,
        }
    }

    /// Waits for a new stream header, after STARTTLS or SASL. Everything that is buffered is dropped: what came before
    /// the switch may have been injected (RFC 6120 §5.4.3.3, §6.4.6).
    pub fn restart(&mut self) {
        *self = Self::new(&self.limits);
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len() + self.tail.len()
    }

    /// Takes bytes. Ignored after a fault. Kept are the frames completed here and at most [`XmlLimits::stanza_bytes`] of
    /// an unfinished one.
    pub fn push(&mut self, bytes: &[u8]) {
        self.compact();
        let mut bytes = bytes;
        // Completes the character that the last push cut.
        while !self.tail.is_empty() && self.fault.is_none() {
            let Some((first, rest)) = bytes.split_first() else { return };
            self.tail.push(*first);
            bytes = rest;
            let tail = std::mem::take(&mut self.tail);
            match std::str::from_utf8(&tail) {
                Ok(text) => self.scan(text),
                Err(e) if e.error_len().is_none() => self.tail = tail,
                Err(_) => self.bad_utf8(),
            }
        }
        if self.fault.is_some() {
            return;
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => self.scan(text),
            Err(e) => {
                let (good, bad) = bytes.split_at_checked(e.valid_up_to()).unwrap_or((&[], &[]));
                self.scan(std::str::from_utf8(good).unwrap_or(""));
                if e.error_len().is_none() {
                    self.tail.extend_from_slice(bad);
                } else if self.fault.is_none() {
                    self.bad_utf8();
                }
            }
        }
    }

    /// The next frame, if one is complete.
    ///
    /// # Errors
    /// [`Malformed::Xml`], again at each call until [`Self::restart`]. Frames that were complete before come first.
    // Not an iterator: a frame borrows from the framer.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>> {
        let (kind, from, to) = loop {
            let Some((kind, len)) = self.complete.pop_front() else {
                return self.fault.clone().map_or(Ok(None), Err);
            };
            let (from, to) = (self.used, self.used.saturating_add(len));
            self.used = to;
            let text = self.buffer.get(from..to).unwrap_or("");
            let checked = match kind {
                Kind::Declaration => check_declaration(text),
                Kind::Element => Ok(()),
                Kind::Open => {
                    let name = text.strip_prefix('<').unwrap_or(text);
                    let end = name.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>'));
                    self.root = name.get(..end.unwrap_or(name.len())).unwrap_or("").to_owned();
                    Ok(())
                }
                Kind::Close => self.check_close(text),
            };
            if let Err(fault) = checked {
                self.complete.clear();
                self.fault = Some(fault.clone());
                return Err(fault);
            }
            if kind != Kind::Declaration {
                break (kind, from, to);
            }
        };
        let text = self.buffer.get(from..to).unwrap_or("");
        Ok(Some(match kind {
            Kind::Open => Frame::Open(text),
            Kind::Element | Kind::Declaration => Frame::Element(text),
            Kind::Close => Frame::Close,
        }))
    }

    /// The end tag names the root. Nothing is left to check if the root was written `<a/>`.
    fn check_close(&self, text: &str) -> Result<()> {
        let name = text.strip_prefix("</").and_then(|t| t.strip_suffix('>')).map(str::trim_ascii_end);
        if text.is_empty() || name == Some(self.root.as_str()) {
            Ok(())
        } else {
            Err(xml(StreamCondition::NotWellFormed, "mismatched end of the stream"))
        }
    }

    fn bad_utf8(&mut self) {
        // RFC 6120 §4.9.3.22: "has otherwise improperly encoded the stream (e.g., by violating the rules of UTF-8)".
        self.fail(StreamCondition::UnsupportedEncoding, "not UTF-8");
    }

    /// Keeps the complete frames, drops the unfinished one.
    fn fail(&mut self, condition: StreamCondition, detail: &'static str) {
        self.fault = Some(xml(condition, detail));
        self.tail = Vec::new();
        self.buffer.truncate(self.buffer.len().saturating_sub(self.partial));
        self.partial = 0;
    }

    /// Frees what was handed out, moving at most as many bytes as are freed.
    fn compact(&mut self) {
        if self.used >= self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        } else if self.used > self.buffer.len() / 2 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
    }

    fn scan(&mut self, text: &str) {
        let bytes = text.as_bytes();
        // Start of what is to be kept of `text`.
        let mut keep = 0;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Between || self.state == State::Ended {
                let Some(skipped) = rest.iter().position(|b| !b.is_ascii_whitespace()) else {
                    self.fresh = false;
                    return;
                };
                self.fresh &= skipped == 0;
                at += skipped;
                keep = at;
                if !self.begin(rest.get(skipped).copied().unwrap_or(0)) {
                    return;
                }
                at += 1;
                continue;
            }
            let (used, ended) = match self.step(rest) {
                Ok(step) => step,
                Err((condition, detail)) => return self.fail(condition, detail),
            };
            at += used;
            if let Some(kind) = ended {
                if !self.keep(text.get(keep..at).unwrap_or("")) {
                    return;
                }
                keep = at;
                self.end_frame(kind);
            }
        }
        if self.state != State::Between && self.state != State::Ended {
            self.keep(text.get(keep..).unwrap_or(""));
        }
    }

    /// The first byte after white space between frames; false after a fault.
    fn begin(&mut self, byte: u8) -> bool {
        match (byte, self.state, self.depth) {
            (b'<', State::Between, _) => {
                self.at_start = self.fresh;
                self.fresh = false;
                self.state = State::Less;
                return true;
            }
            (0, _, 0) => self.fail(StreamCondition::UnsupportedEncoding, "not UTF-8"),
            (_, State::Between, 1..) => self.fail(StreamCondition::BadFormat, "text between stanzas"),
            (_, _, _) => self.fail(StreamCondition::NotWellFormed, "text outside the root"),
        }
        false
    }

    /// Appends to the unfinished frame; false after a fault.
    fn keep(&mut self, text: &str) -> bool {
        // RFC 6120 §13.12: a cap on the size of a stanza.
        if self.partial.saturating_add(text.len()) > self.limits.stanza_bytes {
            self.fail(StreamCondition::PolicyViolation, "stanza too large");
            return false;
        }
        self.buffer.push_str(text);
        self.partial += text.len();
        true
    }

    fn end_frame(&mut self, kind: Kind) {
        self.complete.push_back((kind, std::mem::take(&mut self.partial)));
        if kind == Kind::Open && self.depth == 0 {
            self.complete.push_back((Kind::Close, 0));
        }
        self.state =
            if kind == Kind::Close || (kind == Kind::Open && self.depth == 0) { State::Ended } else { State::Between };
    }

    /// Takes at least one byte of `rest`: how many, and what ended with the last of them.
    fn step(&mut self, rest: &[u8]) -> std::result::Result<(usize, Option<Kind>), (StreamCondition, &'static str)> {
        use StreamCondition::{NotWellFormed, UnsupportedEncoding};
        let first = rest.first().copied().unwrap_or(0);
        let all = (rest.len(), None);
        match self.state {
            State::Between | State::Ended => Ok(all),
            State::Text => match rest.iter().position(|b| *b == b'<') {
                Some(at) => {
                    self.state = State::Less;
                    Ok((at + 1, None))
                }
                None => Ok(all),
            },
            State::Less => {
                self.state = match first {
                    b'/' if self.depth == 0 => return Err((NotWellFormed, "end tag without a start tag")),
                    b'/' => State::EndTag,
                    b'!' => State::Bang(0),
                    b'?' => State::Question(0),
                    0 if self.depth == 0 => return Err((UnsupportedEncoding, "not UTF-8")),
                    b'>' => return Err((NotWellFormed, "empty tag")),
                    _ => State::Tag(false),
                };
                Ok((1, None))
            }
            State::Tag(slash) => {
                let Some(at) = rest.iter().position(|b| matches!(b, b'>' | b'"' | b'\'')) else {
                    self.state = State::Tag(rest.last() == Some(&b'/'));
                    return Ok(all);
                };
                let slash = if at == 0 { slash } else { rest.get(at - 1) == Some(&b'/') };
                match rest.get(at) {
                    Some(b'>') => Ok((at + 1, self.start_tag(slash)?)),
                    Some(quote) => {
                        self.state = State::Quoted(*quote);
                        Ok((at + 1, None))
                    }
                    None => Ok(all),
                }
            }
            State::Quoted(quote) => match rest.iter().position(|b| *b == quote) {
                Some(at) => {
                    self.state = State::Tag(false);
                    Ok((at + 1, None))
                }
                None => Ok(all),
            },
            State::EndTag => match rest.iter().position(|b| *b == b'>') {
                Some(at) => {
                    self.depth = self.depth.saturating_sub(1);
                    self.state = State::Text;
                    Ok((
                        at + 1,
                        match self.depth {
                            0 => Some(Kind::Close),
                            1 => Some(Kind::Element),
                            _ => None,
                        },
                    ))
                }
                None => Ok(all),
            },
            State::Bang(_) | State::CData(_) | State::Question(_) | State::Declaration(_) => {
                Ok((1, self.step_special(first)?))
            }
        }
    }

    /// One byte of what begins with `<!` or `<?`.
    fn step_special(&mut self, first: u8) -> std::result::Result<Option<Kind>, (StreamCondition, &'static str)> {
        use StreamCondition::{NotWellFormed, RestrictedXml};
        match self.state {
            State::Between
            | State::Text
            | State::Less
            | State::Tag(_)
            | State::Quoted(_)
            | State::EndTag
            | State::Ended => Ok(None),
            State::Bang(n) => {
                // RFC 6120 §11.1: no comments, no DTD.
                if n == 0 && first == b'-' {
                    return Err((RestrictedXml, "comment"));
                }
                if n == 0 && first == b'D' {
                    return Err((RestrictedXml, "document type declaration"));
                }
                if b"[CDATA[".get(n) != Some(&first) || self.depth < 2 {
                    return Err((NotWellFormed, "bad markup"));
                }
                self.state = if n == 6 { State::CData(0) } else { State::Bang(n + 1) };
                Ok(None)
            }
            State::CData(n) => {
                self.state = match (n, first) {
                    (0, b']') => State::CData(1),
                    (1 | 2, b']') => State::CData(2),
                    (2, b'>') => State::Text,
                    (_, _) => State::CData(0),
                };
                Ok(None)
            }
            State::Question(n) => {
                if n == 3 && first.is_ascii_whitespace() {
                    if !self.at_start {
                        return Err((NotWellFormed, "XML declaration inside the stream"));
                    }
                    self.state = State::Declaration(false);
                } else if n < 3 && b"xml".get(n) == Some(&first) {
                    self.state = State::Question(n + 1);
                } else {
                    return Err((RestrictedXml, "processing instruction"));
                }
                Ok(None)
            }
            State::Declaration(question) => {
                self.state = State::Declaration(first == b'?');
                Ok((question && first == b'>').then_some(Kind::Declaration))
            }
        }
    }

    fn start_tag(&mut self, empty: bool) -> std::result::Result<Option<Kind>, (StreamCondition, &'static str)> {
        self.state = State::Text;
        // The root is not counted: the cap is on what is nested in a stanza.
        if self.depth > self.limits.depth {
            return Err((StreamCondition::PolicyViolation, "nested too deep"));
        }
        let outside = self.depth;
        if !empty {
            self.depth += 1;
        }
        Ok(match outside {
            0 => Some(Kind::Open),
            1 if empty => Some(Kind::Element),
            _ => None,
        })
    }
}

/// XML 1.0 §2.8: version, then encoding, then standalone. Only UTF-8, RFC 6120 §11.6.
fn check_declaration(text: &str) -> Result<()> {
    const BAD: Malformed = xml(StreamCondition::NotWellFormed, "bad XML declaration");
    let mut rest = text.strip_prefix("<?xml").and_then(|t| t.strip_suffix("?>")).ok_or(BAD)?;
    let mut names = ["version", "encoding", "standalone"].iter();
    let mut versioned = false;
    while !rest.trim_ascii().is_empty() {
        let trimmed = rest.trim_ascii_start();
        let (name, after) = trimmed.split_once('=').ok_or(BAD)?;
        let name = name.trim_ascii_end();
        let after = after.trim_ascii_start();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(BAD)?;
        let (value, more) = after.get(1..).and_then(|a| a.split_once(quote)).ok_or(BAD)?;
        if trimmed.len() == rest.len() || !names.any(|n| *n == name) {
            return Err(BAD);
        }
        match name {
            "version" if value != "1.0" => {
                return Err(xml(StreamCondition::UnsupportedVersion, "XML version"));
            }
            "encoding" if !value.eq_ignore_ascii_case("utf-8") => {
                return Err(xml(StreamCondition::UnsupportedEncoding, "encoding is not UTF-8"));
            }
            _ => versioned |= name == "version",
        }
        rest = more;
    }
    if versioned { Ok(()) } else { Err(BAD) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
                        xmlns:stream='http://etherx.jabber.org/streams' version=\"1.0\">";

    fn drain(framer: &mut Framer, out: &mut Vec<String>) -> Result<()> {
        loop {
            match framer.next()? {
                Some(Frame::Open(text)) => out.push(format!("open {text}")),
                Some(Frame::Element(text)) => out.push(text.to_owned()),
                Some(Frame::Close) => out.push("close".to_owned()),
                None => return Ok(()),
            }
        }
    }

    fn frames(input: &[u8], chunk: usize) -> (Vec<String>, Option<StreamCondition>) {
        let mut framer = Framer::new(&XmlLimits::default());
        let mut out = Vec::new();
        for part in input.chunks(chunk) {
            framer.push(part);
            match drain(&mut framer, &mut out) {
                Ok(()) => {}
                Err(Malformed::Xml { condition, .. }) => return (out, Some(condition)),
                Err(other) => panic!("{other}"),
            }
        }
        (out, None)
    }

    fn condition(input: &str) -> Option<StreamCondition> {
        let whole = frames(input.as_bytes(), usize::MAX);
        assert_eq!(frames(input.as_bytes(), 1), whole, "{input}");
        whole.1
    }

    fn in_stream(input: &str) -> Option<StreamCondition> {
        condition(&format!("{HEAD}{input}"))
    }

    #[test]
    fn a_stream_is_cut_alike_in_any_portions() {
        let input = format!(
            "{HEAD}\n <a x='>\"' y=\"'/>\"/> <b><![CDATA[</b>]]]]><c/>é€𝄞&amp;</b>\t<stream:features/></stream:stream>\n"
        );
        let want = vec![
            format!("open {}", HEAD.split_once("?>").unwrap().1),
            "<a x='>\"' y=\"'/>\"/>".to_owned(),
            "<b><![CDATA[</b>]]]]><c/>é€𝄞&amp;</b>".to_owned(),
            "<stream:features/>".to_owned(),
            "close".to_owned(),
        ];
        for chunk in 1..=input.len() {
            assert_eq!(frames(input.as_bytes(), chunk), (want.clone(), None), "portions of {chunk}");
        }
    }

    #[test]
    fn an_empty_root_opens_and_closes() {
        assert_eq!(frames(b"<a/> ", 1), (vec!["open <a/>".to_owned(), "close".to_owned()], None));
    }

    #[test]
    fn restricted_xml_is_refused_at_once() {
        for input in ["<!-- c -->", "<!DOCTYPE a>", "<?pi x?>", "<a><!--", "<a><?p", "<a><!D", "<?xml-stylesheet?>"] {
            assert_eq!(in_stream(input), Some(StreamCondition::RestrictedXml), "{input}");
            assert_eq!(condition(input), Some(StreamCondition::RestrictedXml), "{input}");
        }
    }

    #[test]
    fn the_xml_declaration_is_the_first_thing_or_nothing() {
        assert_eq!(in_stream("<?xml version='1.0'?>"), Some(StreamCondition::NotWellFormed));
        assert_eq!(in_stream("<a><?xml version='1.0'?></a>"), Some(StreamCondition::NotWellFormed));
        assert_eq!(condition(" <?xml version='1.0'?>"), Some(StreamCondition::NotWellFormed));
        assert_eq!(condition("<?xml version='1.0'?><?xml version='1.0'?>"), Some(StreamCondition::NotWellFormed));
    }

    #[test]
    fn declarations_are_checked() {
        for (text, want) in [
            ("<?xml version='1.0'?>", None),
            ("<?xml version=\"1.0\" encoding='utf-8' standalone='yes' ?>", None),
            ("<?xml version = '1.0'?>", None),
            ("<?xml version='1.1'?>", Some(StreamCondition::UnsupportedVersion)),
            ("<?xml version='1.0' encoding='UTF-16'?>", Some(StreamCondition::UnsupportedEncoding)),
            ("<?xml version='1.0' encoding='iso-8859-1'?>", Some(StreamCondition::UnsupportedEncoding)),
            ("<?xml encoding='UTF-8'?>", Some(StreamCondition::NotWellFormed)),
            ("<?xml encoding='UTF-8' version='1.0'?>", Some(StreamCondition::NotWellFormed)),
            ("<?xml version='1.0'encoding='UTF-8'?>", Some(StreamCondition::NotWellFormed)),
            ("<?xml version=1.0?>", Some(StreamCondition::NotWellFormed)),
            ("<?xml version='1.0' é='?>", Some(StreamCondition::NotWellFormed)),
            ("<?xml ?>", Some(StreamCondition::NotWellFormed)),
        ] {
            assert_eq!(condition(&format!("{text}<a>")), want, "{text}");
        }
    }

    #[test]
    fn other_encodings_are_told_apart_from_bad_xml() {
        let utf16: Vec<u8> = "<a/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let utf16be: Vec<u8> = "<a/>".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let marked = [&[0xFF, 0xFE][..], &utf16].concat();
        let latin1 = [HEAD.as_bytes(), b"<a>\xE9</a>"].concat();
        let overlong = [HEAD.as_bytes(), b"<a>\xC0\x80</a>"].concat();
        let surrogate = [HEAD.as_bytes(), b"<a>\xED\xA0\x80</a>"].concat();
        for input in [&utf16, &utf16be, &marked, &latin1, &overlong, &surrogate] {
            for chunk in [1, 2, usize::MAX] {
                assert_eq!(frames(input, chunk).1, Some(StreamCondition::UnsupportedEncoding), "{input:?}");
            }
        }
    }

    #[test]
    fn text_has_no_place_between_stanzas() {
        assert_eq!(in_stream("<a/>junk"), Some(StreamCondition::BadFormat));
        assert_eq!(in_stream("<![CDATA[x]]>"), Some(StreamCondition::NotWellFormed));
        assert_eq!(condition("junk"), Some(StreamCondition::NotWellFormed));
        // RFC 6120 §11.6: a byte order mark is an ordinary character.
        assert_eq!(condition("\u{FEFF}<a>"), Some(StreamCondition::NotWellFormed));
        assert_eq!(in_stream("</stream:stream><a/>"), Some(StreamCondition::NotWellFormed));
        assert_eq!(in_stream("</stream:strea>"), Some(StreamCondition::NotWellFormed));
        assert_eq!(in_stream("</stream:stream\n>"), None);
        assert_eq!(condition("</a>"), Some(StreamCondition::NotWellFormed));
    }

    #[test]
    fn frames_before_a_fault_come_out_first() {
        assert_eq!(
            frames(format!("{HEAD}<a/><!--").as_bytes(), usize::MAX),
            (
                vec![format!("open {}", HEAD.split_once("?>").unwrap().1), "<a/>".to_owned()],
                Some(StreamCondition::RestrictedXml)
            )
        );
    }

    #[test]
    fn a_fault_stays_until_the_restart() {
        let mut framer = Framer::new(&XmlLimits::default());
        framer.push(b"x");
        assert!(framer.next().is_err());
        framer.push(HEAD.as_bytes());
        assert!(framer.next().is_err());
        framer.restart();
        framer.push(HEAD.as_bytes());
        assert!(matches!(framer.next(), Ok(Some(Frame::Open(_)))));
    }

    #[test]
    fn nothing_from_before_a_restart_is_taken_after_it() {
        let mut framer = Framer::new(&XmlLimits::default());
        framer.push(
            format!("{HEAD}<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><iq id='injected'/><half").as_bytes(),
        );
        assert!(matches!(framer.next(), Ok(Some(Frame::Open(_)))));
        assert!(matches!(framer.next(), Ok(Some(Frame::Element(_)))));
        framer.restart();
        assert_eq!(framer.next(), Ok(None));
        assert_eq!(framer.buffered_bytes(), 0);
        framer.push(HEAD.as_bytes());
        assert!(matches!(framer.next(), Ok(Some(Frame::Open(_)))));
        assert_eq!(framer.next(), Ok(None));
    }

    #[test]
    fn an_unterminated_token_is_kept_up_to_the_limit_only() {
        let limits = XmlLimits::default();
        for begin in ["", "<a", "<a x='", "<a>", "<a><![CDATA[", "<a><b></b", "<a>&"] {
            for chunk in [1000, 16 * 1024, 8 << 20] {
                let mut framer = Framer::new(&limits);
                framer.push(HEAD.as_bytes());
                assert!(framer.next().unwrap().is_some());
                framer.push(begin.as_bytes());
                let bomb = vec![if begin.is_empty() { b'<' } else { b'x' }; chunk];
                let mut pushed = 0;
                let fault = loop {
                    framer.push(&bomb);
                    pushed += bomb.len();
                    assert!(framer.buffered_bytes() <= limits.stanza_bytes + HEAD.len(), "{begin} {chunk}");
                    assert!(framer.buffer.capacity() <= 4 * limits.stanza_bytes, "{begin} {chunk}");
                    if let Err(fault) = framer.next() {
                        break fault;
                    }
                };
                assert!(matches!(fault, Malformed::Xml { condition: StreamCondition::PolicyViolation, .. }), "{fault}");
                assert!(pushed <= limits.stanza_bytes + chunk);
            }
        }
    }

    #[test]
    fn a_header_is_bounded_too() {
        let mut framer = Framer::new(&XmlLimits { stanza_bytes: 100, ..XmlLimits::default() });
        framer.push(format!("<a x='{}'>", "y".repeat(100)).as_bytes());
        assert!(matches!(framer.next(), Err(Malformed::Xml { condition: StreamCondition::PolicyViolation, .. })));
    }

    #[test]
    fn a_stanza_of_exactly_the_limit_passes() {
        let mut framer = Framer::new(&XmlLimits { stanza_bytes: 20, ..XmlLimits::default() });
        framer.push(b"<s><a>12345678901234</a>");
        assert!(framer.next().unwrap().is_some());
        assert!(framer.next().is_err());
        framer.restart();
        framer.push(b"<s><a>1234567890123</a>");
        assert!(framer.next().unwrap().is_some());
        assert_eq!(framer.next().unwrap(), Some(Frame::Element("<a>1234567890123</a>")));
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stanza_ends() {
        let limits = XmlLimits::default();
        let mut framer = Framer::new(&limits);
        framer.push(HEAD.as_bytes());
        framer.push("<a>".repeat(limits.depth).as_bytes());
        assert!(matches!(framer.next(), Ok(Some(Frame::Open(_)))));
        assert_eq!(framer.next(), Ok(None));
        framer.push(b"<a>");
        assert!(matches!(framer.next(), Err(Malformed::Xml { condition: StreamCondition::PolicyViolation, .. })));
    }

    #[test]
    fn keepalives_leave_nothing_behind() {
        let mut framer = Framer::new(&XmlLimits::default());
        framer.push(HEAD.as_bytes());
        assert!(framer.next().unwrap().is_some());
        for _ in 0..1000 {
            framer.push(b" \n");
        }
        assert_eq!(framer.next(), Ok(None));
        framer.push(b"");
        assert_eq!(framer.buffered_bytes(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_portions_do_not_matter(
            input in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..64),
                "[<>/!?'\"a \\[\\]\\-xmlCDATé&;=]{0,96}".prop_map(String::into_bytes),
            ],
            chunk in 1_usize..8,
            headed: bool,
        ) {
            let head = if headed { HEAD } else { "" };
            let input = [head.as_bytes(), &input].concat();
            prop_assert_eq!(frames(&input, chunk), frames(&input, usize::MAX));
        }
    }
}

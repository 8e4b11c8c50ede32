//! Strict XML for streams: RFC 6120 §11 refusals, byte, depth and attribute caps, and the writer. Read RFC 6120 §11 and
//! XML 1.0 §2.2, §2.4, §3.1 before touching this file.
//!
//! Tags and plain text are read here in one pass, because every byte of them has to be checked anyway; a tokenizer below
//! would look at each of them once more. quick-xml takes apart the other tokens: references, CDATA sections and what
//! RFC 6120 forbids.
//!
//! No tree is built. A codec reads an element and its children in one pass:
//!
//! ```
//! use offhook::{config::XmlLimits, wire::xml::Reader};
//! let mut r = Reader::new("<a xmlns='urn:x' b='1'><c>hi</c><d/></a>", "jabber:client", &XmlLimits::default()).unwrap();
//! assert_eq!((r.tag().ns(), r.tag().name()), ("urn:x", "a"));
//! assert_eq!(r.attr("b"), Some("1"));
//! let mut text = String::new();
//! r.children(|r| { if r.is("urn:x", "c") { text = r.text()?.into_owned(); } Ok(()) }).unwrap();
//! r.finish().unwrap();
//! assert_eq!(text, "hi");
//! ```

use super::chars::{cdata, is_name, plain_text, qualified_name, quoted_value, reference, skip_space};
use crate::config::XmlLimits;
use crate::fault::{Malformed, StreamCondition};
use quick_xml::events::Event;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

pub use super::framer::{Frame, Framer};

/// A string that needs no allocation up to 24 bytes: nearly every name, id and parameter of a codec, a candidate or a
/// content is as short as that.
pub use compact_str::CompactString as Text;

/// Result of a codec.
pub type Result<T, E = Malformed> = std::result::Result<T, E>;

pub(super) const fn xml(condition: StreamCondition, detail: &'static str) -> Malformed {
    Malformed::Xml { condition, detail }
}

/// Namespace names that are not declared inside the element read: those of the stream header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Prefix (empty for the default) and namespace name.
    bindings: Vec<(String, String)>,
}

impl Scope {
    /// Nothing declared: a stream header itself, or an element that stands alone.
    #[must_use]
    pub fn bare() -> Self {
        Self { bindings: Vec::new() }
    }

    /// The usual one: `default_ns` without prefix, and the streams namespace as `stream`.
    #[must_use]
    pub fn of(default_ns: &str) -> Self {
        let own = |text: &str| text.to_owned();
        Self { bindings: vec![(String::new(), own(default_ns)), (own("stream"), own(super::ns::STREAM))] }
    }

    /// The namespace name of a prefix; the empty prefix is the default.
    #[must_use]
    pub fn ns(&self, prefix: &str) -> Option<&str> {
        self.bindings.iter().rev().find(|(p, _)| p == prefix).map(|(_, ns)| ns.as_str())
    }

    /// True if this namespace name has a prefix or is the default.
    #[must_use]
    pub fn binds(&self, ns: &str) -> bool {
        self.bindings.iter().any(|(p, n)| n == ns && self.ns(p) == Some(ns))
    }
}

/// A namespace name. Cloning it never copies the text: a long one on many elements costs nothing.
#[derive(Debug, Clone)]
enum Name<'a> {
    Plain(&'a str),
    Unescaped(Arc<str>),
}

impl std::ops::Deref for Name<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Name::Plain(text) => text,
            Name::Unescaped(text) => text,
        }
    }
}

/// Name of the element just entered.
#[derive(Debug, Clone)]
pub struct Tag<'a> {
    ns: Name<'a>,
    name: &'a str,
}

impl<'a> Tag<'a> {
    /// Namespace, never empty for a stanza's elements unless undeclared by `xmlns=''`.
    #[must_use]
    pub fn ns(&self) -> &str {
        &self.ns
    }
    /// Local name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }
}

#[derive(Debug)]
struct Attribute<'a> {
    prefix: &'a str,
    name: &'a str,
    value: Cow<'a, str>,
}

#[derive(Debug)]
struct Binding<'a> {
    prefix: &'a str,
    uri: Name<'a>,
    /// Equal for equal names, so that long ones are compared once, at their declaration.
    id: usize,
    depth: usize,
}

/// Reads one element with everything in it. See the module's example.
#[derive(Debug)]
pub struct Reader<'a> {
    source: &'a str,
    /// Where the next token begins.
    at: usize,
    limits: XmlLimits,
    tag: Tag<'a>,
    attributes: Vec<Attribute<'a>>,
    /// A bit for each attribute name of the tag by its [`trait_of`]: one that is set twice asks for a closer look.
    traits: u64,
    /// Two attributes may have one name, or one has a prefix.
    suspicious: bool,
    bindings: Vec<Binding<'a>>,
    /// How many of `bindings` come from outside the element.
    outer_bindings: usize,
    /// Names of the open elements as they are written; one while inside the root only.
    open: Vec<&'a str>,
    /// The element just entered was written `<a/>`: its end is still to be reported.
    empty: bool,
}

enum Token<'a> {
    Start,
    End,
    Text(Cow<'a, str>),
    Char(char),
}

impl<'a> Reader<'a> {
    /// Enters the root element of `source`, which must hold exactly one element.
    /// `default_ns` is the namespace that the stream header declared for unprefixed names; `stream` is bound too.
    ///
    /// # Errors
    /// [`Malformed::Xml`] for anything that RFC 6120 §11 forbids.
    pub fn new(source: &'a str, default_ns: &'static str, limits: &XmlLimits) -> Result<Self> {
        let mut reader = Self::raw(source, limits)?;
        reader.outer("", default_ns);
        reader.outer("stream", super::ns::STREAM);
        reader.enter()
    }

    /// As [`Self::new`], with whatever namespaces the stream header declared.
    ///
    /// # Errors
    /// [`Malformed::Xml`] for anything that RFC 6120 §11 forbids.
    pub fn within(source: &'a str, scope: &'a Scope, limits: &XmlLimits) -> Result<Self> {
        let mut reader = Self::raw(source, limits)?;
        for (prefix, ns) in &scope.bindings {
            reader.outer(prefix, ns);
        }
        reader.enter()
    }

    fn raw(source: &'a str, limits: &XmlLimits) -> Result<Self> {
        if source.len() > limits.stanza_bytes {
            return Err(xml(StreamCondition::PolicyViolation, "stanza too large"));
        }
        let mut reader = Self {
            source,
            at: 0,
            limits: *limits,
            tag: Tag { ns: Name::Plain(""), name: "" },
            attributes: Vec::with_capacity(16),
            traits: 0,
            suspicious: false,
            bindings: Vec::with_capacity(8),
            outer_bindings: 0,
            open: Vec::with_capacity(8),
            empty: false,
        };
        // Namespaces in XML 1.0 §6.2: no default means no namespace.
        reader.outer("", "");
        reader.outer("xml", super::ns::XML);
        Ok(reader)
    }

    fn outer(&mut self, prefix: &'a str, ns: &'a str) {
        let id = self.id_of(ns);
        self.bindings.push(Binding { prefix, uri: Name::Plain(ns), id, depth: 0 });
        self.outer_bindings = self.bindings.len();
    }

    fn enter(mut self) -> Result<Self> {
        loop {
            match self.token()? {
                Token::Start => return Ok(self),
                Token::Text(t) if t.bytes().all(|b| b.is_ascii_whitespace()) => {}
                Token::Text(_) | Token::Char(_) | Token::End => {
                    return Err(xml(StreamCondition::NotWellFormed, "text outside the root"));
                }
            }
        }
    }

    /// All namespaces in scope at the element just entered.
    #[must_use]
    pub fn scope(&self) -> Scope {
        let own = |b: &Binding<'_>| (b.prefix.to_owned(), b.uri.to_string());
        Scope { bindings: self.bindings.iter().filter(|b| b.prefix != "xml").map(own).collect() }
    }

    /// The element just entered.
    #[must_use]
    pub fn tag(&self) -> &Tag<'a> {
        &self.tag
    }

    /// True if the element just entered has this namespace and local name.
    #[must_use]
    pub fn is(&self, ns: &str, name: &str) -> bool {
        self.tag.name == name && &*self.tag.ns == ns
    }

    /// Value of an attribute without namespace of the element just entered. Read before [`Self::children`] or
    /// [`Self::text`].
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.prefix.is_empty() && a.name == name).map(|a| a.value.as_ref())
    }

    /// Value of `xml:lang` of the element just entered.
    #[must_use]
    pub fn lang(&self) -> Option<&str> {
        self.attributes.iter().find(|a| a.prefix == "xml" && a.name == "lang").map(|a| a.value.as_ref())
    }

    /// Value of a required attribute.
    ///
    /// # Errors
    /// [`Malformed::MissingAttribute`].
    pub fn need(&self, element: &'static str, attribute: &'static str) -> Result<&str> {
        self.attr(attribute).ok_or(Malformed::MissingAttribute { element, attribute })
    }

    /// An attribute of a type with `FromStr`, if present; surrounding white space is ignored.
    ///
    /// # Errors
    /// [`Malformed::BadValue`].
    pub fn parse<T: std::str::FromStr>(&self, element: &'static str, what: &'static str) -> Result<Option<T>> {
        self.attr(what).map(|v| v.trim().parse().map_err(|_| Malformed::BadValue { element, what })).transpose()
    }

    /// Calls `f` for each child element of the current element, then leaves the current element. `f` may read the
    /// child with [`Self::children`] or [`Self::text`]; what it leaves unread is skipped (and still checked).
    ///
    /// # Errors
    /// The first error of `f`, or [`Malformed::Xml`].
    pub fn children(&mut self, mut f: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let here = self.open.len();
        loop {
            match self.token()? {
                Token::Start => {
                    f(self)?;
                    self.leave(here)?;
                }
                Token::End => return Ok(()),
                Token::Text(_) | Token::Char(_) => {}
            }
        }
    }

    /// The text directly inside the current element, then leaves it. Child elements are skipped.
    ///
    /// # Errors
    /// [`Malformed::Xml`].
    pub fn text(&mut self) -> Result<Cow<'a, str>> {
        let here = self.open.len();
        let mut all: Cow<'a, str> = Cow::Borrowed("");
        loop {
            match self.token()? {
                Token::Start => self.leave(here)?,
                Token::End => return Ok(all),
                Token::Text(t) if all.is_empty() => all = t,
                Token::Text(t) => all.to_mut().push_str(&t),
                Token::Char(c) => all.to_mut().push(c),
            }
        }
    }

    /// Leaves the current element without looking at what is in it.
    ///
    /// # Errors
    /// [`Malformed::Xml`]: skipped elements must be well-formed too.
    pub fn skip(&mut self) -> Result<()> {
        let outer = self.open.len().saturating_sub(1);
        self.leave(outer)
    }

    /// Leaves the root, whatever is unread, and checks that nothing follows it.
    ///
    /// # Errors
    /// [`Malformed::Xml`].
    pub fn finish(&mut self) -> Result<()> {
        self.leave(0)?;
        if skip_space(self.source, self.at) == self.source.len() {
            Ok(())
        } else {
            Err(xml(StreamCondition::NotWellFormed, "something follows the root"))
        }
    }

    fn leave(&mut self, depth: usize) -> Result<()> {
        while self.open.len() > depth {
            self.token()?;
        }
        Ok(())
    }

    fn token(&mut self) -> Result<Token<'a>> {
        if self.empty {
            self.empty = false;
            self.end();
            return Ok(Token::End);
        }
        let source = self.source;
        let rest = source.as_bytes().get(self.at..).unwrap_or_default();
        match rest {
            [b'<', b'/', ..] => self.end_tag(),
            [b'<', b'!' | b'?', ..] | [b'&', ..] => self.other(),
            [b'<', ..] => {
                let started = self.start_tag();
                if started.is_err() {
                    self.unbind();
                }
                started
            }
            [_, ..] => {
                let (text, at) = plain_text(source, self.at)?;
                self.at = at;
                Ok(Token::Text(text))
            }
            [] => Err(xml(StreamCondition::NotWellFormed, "ends inside an element")),
        }
    }

    /// The token at `self.at`, which is neither a tag nor text.
    fn other(&mut self) -> Result<Token<'a>> {
        let rest = self.source.get(self.at..).unwrap_or("");
        let mut tokens = quick_xml::Reader::from_str(rest);
        let event = tokens.read_event().map_err(|_| xml(StreamCondition::NotWellFormed, "not well-formed"))?;
        let len = usize::try_from(tokens.buffer_position()).unwrap_or(usize::MAX);
        let raw = rest.get(..len).unwrap_or("");
        let token = match event {
            Event::CData(_) => {
                let text = raw.strip_prefix("<![CDATA[").and_then(|r| r.strip_suffix("]]>")).unwrap_or("");
                Token::Text(cdata(text)?)
            }
            Event::GeneralRef(_) => {
                let name = raw.strip_prefix('&').and_then(|r| r.strip_suffix(';')).unwrap_or("");
                Token::Char(reference(name)?)
            }
            // RFC 6120 §11.1: no comments, no processing instructions, no DTD.
            Event::Comment(_) => return Err(xml(StreamCondition::RestrictedXml, "comment")),
            Event::PI(_) => return Err(xml(StreamCondition::RestrictedXml, "processing instruction")),
            Event::DocType(_) => return Err(xml(StreamCondition::RestrictedXml, "document type declaration")),
            Event::Decl(_) => return Err(xml(StreamCondition::NotWellFormed, "XML declaration inside the stream")),
            Event::Start(_) | Event::Empty(_) | Event::End(_) | Event::Text(_) | Event::Eof => {
                return Err(xml(StreamCondition::NotWellFormed, "not well-formed"));
            }
        };
        self.at = self.at.saturating_add(len);
        Ok(token)
    }

    /// Leaves the innermost element.
    fn end(&mut self) {
        self.open.pop();
        self.unbind();
    }

    /// Forgets the declarations of elements that are not open.
    fn unbind(&mut self) {
        while self.bindings.last().is_some_and(|b| b.depth > self.open.len()) {
            self.bindings.pop();
        }
    }

    /// XML 1.0 §3.1: the name is that of the start tag, then only white space.
    fn end_tag(&mut self) -> Result<Token<'a>> {
        const MISMATCH: Malformed = xml(StreamCondition::NotWellFormed, "end tag of another element");
        let rest = self.source.as_bytes().get(self.at..).unwrap_or_default();
        let name = self.open.last().ok_or(MISMATCH)?;
        let named = rest.get(2..).and_then(|r| r.strip_prefix(name.as_bytes())).is_some();
        let close = skip_space(self.source, self.at + 2 + name.len());
        if !named || self.source.as_bytes().get(close) != Some(&b'>') {
            return Err(MISMATCH);
        }
        self.at = close + 1;
        self.end();
        Ok(Token::End)
    }

    fn start_tag(&mut self) -> Result<Token<'a>> {
        if self.open.len() >= self.limits.depth {
            return Err(xml(StreamCondition::PolicyViolation, "nested too deep"));
        }
        let (source, from) = (self.source, self.at + 1);
        self.attributes.clear();
        (self.traits, self.suspicious) = (0, false);
        let (prefix, local, mut at) = qualified_name(source, from)?;
        let name = source.get(from..at).unwrap_or("");
        loop {
            let next = skip_space(source, at);
            match source.as_bytes().get(next..).unwrap_or_default() {
                [b'>', ..] => {
                    at = next + 1;
                    break;
                }
                [b'/', b'>', ..] => {
                    self.empty = true;
                    at = next + 2;
                    break;
                }
                [] => return Err(xml(StreamCondition::NotWellFormed, "ends inside a tag")),
                _ if next == at => return Err(xml(StreamCondition::NotWellFormed, "no space before an attribute")),
                _ => at = self.attribute(next)?,
            }
        }
        if self.suspicious {
            self.check_attributes()?;
        }
        self.tag = Tag { ns: self.lookup(prefix)?.uri.clone(), name: local };
        self.open.push(name);
        self.at = at;
        Ok(Token::Start)
    }

    /// Reads the attribute at `at` and says where it ends.
    fn attribute(&mut self, at: usize) -> Result<usize> {
        let (prefix, name, at) = qualified_name(self.source, at)?;
        let at = skip_space(self.source, at);
        if self.source.as_bytes().get(at) != Some(&b'=') {
            return Err(xml(StreamCondition::NotWellFormed, "attribute without a value"));
        }
        let (value, at) = quoted_value(self.source, skip_space(self.source, at + 1))?;
        if prefix == "xmlns" || (prefix.is_empty() && name == "xmlns") {
            let bound = if prefix.is_empty() { "" } else { name };
            self.bind(bound, value)?;
        } else {
            if self.attributes.len() >= self.limits.attributes {
                return Err(xml(StreamCondition::PolicyViolation, "too many attributes"));
            }
            let bit = trait_of(name);
            self.suspicious |= self.traits & bit != 0 || !prefix.is_empty();
            self.traits |= bit;
            self.attributes.push(Attribute { prefix, name, value });
        }
        Ok(at)
    }

    fn bind(&mut self, prefix: &'a str, uri: Cow<'a, str>) -> Result<()> {
        const BAD: Malformed = xml(StreamCondition::NotWellFormed, "bad namespace declaration");
        // Namespaces in XML 1.0 §3: xml and xmlns are not to be rebound, a prefix cannot be undeclared.
        if prefix == "xmlns"
            || uri == "http://www.w3.org/2000/xmlns/"
            || (prefix == "xml") != (uri == super::ns::XML)
            || (!prefix.is_empty() && uri.is_empty())
        {
            return Err(BAD);
        }
        // That of the element whose tag is being read.
        let depth = self.open.len() + 1;
        if self.bindings.iter().any(|b| b.depth == depth && b.prefix == prefix) {
            return Err(BAD);
        }
        if self.bindings.len() >= self.limits.namespaces.saturating_add(self.outer_bindings) {
            return Err(xml(StreamCondition::PolicyViolation, "too many namespaces"));
        }
        let uri = match uri {
            Cow::Borrowed(text) => Name::Plain(text),
            Cow::Owned(text) => Name::Unescaped(text.into()),
        };
        let id = self.id_of(&uri);
        self.bindings.push(Binding { prefix, uri, id, depth });
        Ok(())
    }

    fn id_of(&self, uri: &str) -> usize {
        self.bindings.iter().find(|b| *b.uri == *uri).map_or(self.bindings.len(), |b| b.id)
    }

    fn lookup(&self, prefix: &str) -> Result<&Binding<'a>> {
        self.bindings
            .iter()
            .rev()
            .find(|b| b.prefix == prefix)
            .ok_or(xml(StreamCondition::BadNamespacePrefix, "undeclared prefix"))
    }

    /// No two attributes of one expanded name, every prefix declared. At most 64 attributes: 64²/2 comparisons.
    fn check_attributes(&self) -> Result<()> {
        for (i, a) in self.attributes.iter().enumerate() {
            let ns = if a.prefix.is_empty() { None } else { Some(self.lookup(a.prefix)?.id) };
            for b in self.attributes.iter().take(i).filter(|b| b.name == a.name) {
                let other = if b.prefix.is_empty() { None } else { Some(self.lookup(b.prefix)?.id) };
                if ns == other {
                    return Err(xml(StreamCondition::NotWellFormed, "duplicate attribute"));
                }
            }
        }
        Ok(())
    }
}

/// One of 64 bits, the same for the same name.
fn trait_of(name: &str) -> u64 {
    let of = |b: Option<&u8>| b.copied().unwrap_or(0);
    let bytes = name.as_bytes();
    // These factors tell the attributes of the XEPs' elements apart.
    let mix = of(bytes.first()).wrapping_mul(29).wrapping_add(of(bytes.last()).wrapping_mul(59));
    1 << (usize::from(mix).wrapping_add(bytes.len()) % 64)
}

/// An address attribute, if present.
pub(super) fn jid(r: &Reader<'_>, element: &'static str, what: &'static str) -> Result<Option<super::jid::Jid>> {
    r.parse(element, what)
}

/// XML Schema boolean; anything else is false.
pub(super) fn boolean(r: &Reader<'_>, name: &str) -> bool {
    matches!(r.attr(name).map(str::trim), Some("true" | "1"))
}

/// Bytes of base64 text. White space inside is skipped: some servers break the lines.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let engine = &base64::engine::general_purpose::STANDARD;
    if text.bytes().any(|b| b.is_ascii_whitespace()) {
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        return engine.decode(text).ok();
    }
    engine.decode(text).ok()
}

/// The value, or nothing if it was malformed in a way that does not end the stream.
pub(super) fn lenient<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.ends_stream() => Err(fault),
        Err(_) => Ok(None),
    }
}

/// Writes elements into a reused buffer without allocating. It cannot emit ill-formed text: values are escaped and
/// characters that XML forbids are dropped. Names are ours, so they are `'static`.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut String,
    /// A start tag was written up to its attributes; its `>` or `/>` is still to come.
    open: bool,
}

impl<'b> Writer<'b> {
    /// Appends to `out`.
    pub fn new(out: &'b mut String) -> Self {
        Self { out, open: false }
    }

    /// Starts an element in the namespace of its parent.
    pub fn start(&mut self, name: &'static str) -> &mut Self {
        self.seal();
        self.out.push('<');
        self.out.push_str(name);
        self.open = true;
        self
    }

    /// Starts an element and declares its namespace as the default.
    pub fn start_ns(&mut self, name: &'static str, ns: &str) -> &mut Self {
        self.start(name).attr("xmlns", ns)
    }

    /// Writes an attribute of the element just started.
    pub fn attr(&mut self, name: &'static str, value: &str) -> &mut Self {
        debug_assert!(self.open, "attribute after content");
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("='");
        escape(self.out, value);
        self.out.push('\'');
        self
    }

    /// Writes an attribute if there is a value.
    pub fn attr_opt(&mut self, name: &'static str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.attr(name, value);
        }
        self
    }

    /// Writes an attribute from a value that prints without characters to escape, such as a number.
    pub fn attr_number(&mut self, name: &'static str, value: impl std::fmt::Display) -> &mut Self {
        debug_assert!(self.open, "attribute after content");
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("='");
        // Writing to a String cannot fail.
        let _ = write!(self.out, "{value}");
        self.out.push('\'');
        self
    }

    /// Writes text inside the element just started.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.seal();
        escape(self.out, text);
        self
    }

    /// Writes text from a value that prints without characters to escape, such as a number.
    pub fn text_number(&mut self, value: impl std::fmt::Display) -> &mut Self {
        self.seal();
        // Writing to a String cannot fail.
        let _ = write!(self.out, "{value}");
        self
    }

    /// Writes bytes as base64 text inside the element just started.
    pub fn base64(&mut self, data: &[u8]) -> &mut Self {
        use base64::Engine as _;
        self.seal();
        base64::engine::general_purpose::STANDARD.encode_string(data, self.out);
        self
    }

    /// Ends the element `name`, which must be the innermost open one.
    pub fn end(&mut self, name: &'static str) -> &mut Self {
        if self.open {
            self.out.push_str("/>");
            self.open = false;
        } else {
            self.out.push_str("</");
            self.out.push_str(name);
            self.out.push('>');
        }
        self
    }

    /// An element with nothing but text.
    pub fn text_element(&mut self, name: &'static str, text: &str) -> &mut Self {
        self.start(name).text(text).end(name)
    }

    /// An empty element whose name is not ours, such as a reason's detail that is passed on. Writes nothing if `name`
    /// is not a local name of XML.
    pub fn foreign(&mut self, ns: &str, name: &str) -> &mut Self {
        if is_name(name) {
            self.seal();
            self.out.push('<');
            self.out.push_str(name);
            self.open = true;
            self.attr("xmlns", ns);
            self.out.push_str("/>");
            self.open = false;
        }
        self
    }

    fn seal(&mut self) {
        if self.open {
            self.out.push('>');
            self.open = false;
        }
    }
}

fn escape(out: &mut String, text: &str) {
    let mut from = 0;
    for (at, b) in text.bytes().enumerate() {
        let with = match b {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\'' => "&apos;",
            // Attribute values would turn these into spaces.
            b'\t' => "&#9;",
            b'\n' => "&#10;",
            b'\r' => "&#13;",
            0..=0x1F => "",
            // U+FFFE and U+FFFF.
            0xEF if matches!(text.as_bytes().get(at + 1..at + 3), Some([0xBF, 0xBE | 0xBF])) => "",
            _ => continue,
        };
        let skip = if b == 0xEF { 3 } else { 1 };
        out.push_str(text.get(from..at).unwrap_or(""));
        out.push_str(with);
        from = at + skip;
    }
    out.push_str(text.get(from..).unwrap_or(""));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::super::chars::is_char;
    use super::*;
    use crate::wire::ns;
    use proptest::prelude::*;

    fn read_all(text: &str) -> Result<()> {
        Reader::new(text, ns::CLIENT, &XmlLimits::default())?.finish()
    }

    fn condition(text: &str) -> Option<StreamCondition> {
        match read_all(text) {
            Ok(()) => None,
            Err(Malformed::Xml { condition, .. }) => Some(condition),
            Err(other) => panic!("{other}"),
        }
    }

    fn text_of(xml: &str) -> String {
        let mut r = Reader::new(xml, ns::CLIENT, &XmlLimits::default()).unwrap();
        let text = r.text().unwrap().into_owned();
        r.finish().unwrap();
        text
    }

    fn attr_of(xml: &str) -> String {
        let r = Reader::new(xml, ns::CLIENT, &XmlLimits::default()).unwrap();
        r.attr("x").unwrap().to_owned()
    }

    #[test]
    fn ill_formed_xml_is_refused_with_its_condition() {
        use StreamCondition::{BadNamespacePrefix, NotWellFormed, PolicyViolation, RestrictedXml};
        for (text, want) in [
            ("", NotWellFormed),
            ("junk", NotWellFormed),
            ("<a", NotWellFormed),
            ("<a>", NotWellFormed),
            ("<a></b>", NotWellFormed),
            ("<a></ab>", NotWellFormed),
            ("<ab></a>", NotWellFormed),
            ("<a></a b>", NotWellFormed),
            ("<a></ a>", NotWellFormed),
            ("<a><b></a></b>", NotWellFormed),
            ("<a></a", NotWellFormed),
            ("<a ", NotWellFormed),
            ("<a b", NotWellFormed),
            ("<a b=", NotWellFormed),
            ("<a/", NotWellFormed),
            ("<a>]]></a>", NotWellFormed),
            ("\u{FEFF}<a/>", NotWellFormed),
            ("<a b='1' c='2' d='3' b='4'/>", NotWellFormed),
            ("<a/>x", NotWellFormed),
            ("<a x='1' x='2'/>", NotWellFormed),
            ("<a x='1'y='2'/>", NotWellFormed),
            ("<a x/>", NotWellFormed),
            ("<a x=/>", NotWellFormed),
            ("<a x='1/>", NotWellFormed),
            ("<a ='1'/>", NotWellFormed),
            ("<a:b:c xmlns:a='u'/>", NotWellFormed),
            ("<:a/>", NotWellFormed),
            ("<a:/>", NotWellFormed),
            ("<-a/>", NotWellFormed),
            ("< a/>", NotWellFormed),
            ("<a/ >", NotWellFormed),
            ("<a>\u{1}</a>", NotWellFormed),
            ("<a>\u{FFFE}</a>", NotWellFormed),
            ("<a x='\u{B}'/>", NotWellFormed),
            ("<a>&#xD800;</a>", NotWellFormed),
            ("<a>&#x110000;</a>", NotWellFormed),
            ("<a>&#-1;</a>", NotWellFormed),
            ("<a>&#;</a>", NotWellFormed),
            ("<a x='&#x;'/>", NotWellFormed),
            ("<a x='&amp'/>", NotWellFormed),
            ("<a><![CDATA[\u{2}]]></a>", NotWellFormed),
            ("<a xmlns:p=''/>", NotWellFormed),
            ("<a xmlns:xmlns='u'/>", NotWellFormed),
            ("<a xmlns:p='http://www.w3.org/XML/1998/namespace'/>", NotWellFormed),
            ("<a xmlns:p='http://www.w3.org/2000/xmlns/'/>", NotWellFormed),
            ("<a xmlns:p='u' xmlns:p='v'/>", NotWellFormed),
            ("<a><b xmlns:p='u'/><p:c/></a>", BadNamespacePrefix),
            ("<a>&nbsp;</a>", RestrictedXml),
            ("<a x='&nbsp;'/>", RestrictedXml),
            ("<!DOCTYPE a><a/>", RestrictedXml),
            ("<!--c--><a/>", RestrictedXml),
            ("<?p?><a/>", RestrictedXml),
            (&format!("{}{}", "<a>".repeat(65), "</a>".repeat(65)), PolicyViolation),
            (&format!("<a {}/>", (0..65).map(|i| format!(" a{i}=''")).collect::<String>()), PolicyViolation),
            (&format!("<a {}/>", (0..33).map(|i| format!(" xmlns:a{i}='u'")).collect::<String>()), PolicyViolation),
            (&format!("<a>{}</a>", "x".repeat(256 * 1024)), PolicyViolation),
        ] {
            assert_eq!(condition(text), Some(want), "{}", text.chars().take(80).collect::<String>());
        }
    }

    #[test]
    fn what_stands_at_the_limits_passes() {
        assert_eq!(condition(&format!("{}{}", "<a>".repeat(64), "</a>".repeat(64))), None);
        assert_eq!(condition(&format!("<a {}/>", (0..64).map(|i| format!(" a{i}=''")).collect::<String>())), None);
        assert_eq!(
            condition(&format!("<a {}/>", (0..32).map(|i| format!(" xmlns:a{i}='u'")).collect::<String>())),
            None
        );
        assert_eq!(condition("<a><b></b\t\n></a >\r\n"), None);
        // Declarations of elements that have ended do not count.
        assert_eq!(condition(&format!("<a>{}</a>", "<b xmlns:p='u'/>".repeat(100))), None);
    }

    #[test]
    fn equal_attributes_are_told_by_namespace() {
        assert_eq!(condition("<a xmlns:p='u' xmlns:q='v' p:x='' q:x='' x=''/>"), None);
        // The default namespace does not hold for attributes.
        assert_eq!(condition("<a xmlns='u' xmlns:p='u' x='' p:x=''/>"), None);
        assert_eq!(
            condition("<a xmlns:p='u&amp;' xmlns:q='u&#38;' p:x='' q:x=''/>"),
            Some(StreamCondition::NotWellFormed)
        );
        assert_eq!(
            condition("<a xmlns:p='u'><b xmlns:q='u' p:x='' q:x=''/></a>"),
            Some(StreamCondition::NotWellFormed)
        );
    }

    #[test]
    fn text_and_attributes_read_as_xml_says() {
        assert_eq!(text_of("<a>x&amp;&#x41;<![CDATA[<&>]]>\r\ny\rz<b>no</b>&#13;</a>"), "x&A<&>\ny\nz\r");
        assert_eq!(attr_of("<a x='1\r\n2\t3&#10;&lt;&#x1D11E;'/>"), "1 2 3\n<𝄞");
        assert_eq!(attr_of("<a p:x='no' x = \"y'\" xmlns:p='u'/>"), "y'");
    }

    #[test]
    fn a_fault_deep_inside_can_be_left_behind() {
        let mut r = Reader::new("<a><b><c/><d x='1'>t</d></b></a>", ns::CLIENT, &XmlLimits::default()).unwrap();
        let fault = r.children(|r| r.children(|r| r.need("c", "x").map(|_| ())));
        assert_eq!(fault, Err(Malformed::MissingAttribute { element: "c", attribute: "x" }));
        assert_eq!(r.finish(), Ok(()));
    }

    #[test]
    fn namespaces_of_the_header_hold_inside() {
        let header = "<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams' xmlns:q='urn:q'>";
        let bare = Scope::bare();
        let scope = Reader::within(header, &bare, &XmlLimits::default()).unwrap().scope();
        let limits = XmlLimits::default();
        let r = Reader::within("<s:features/>", &scope, &limits).unwrap();
        assert!(r.is(ns::STREAM, "features"));
        assert!(Reader::within("<q:x xmlns='urn:y'/>", &scope, &limits).unwrap().is("urn:q", "x"));
        assert!(Reader::within("<message/>", &scope, &limits).unwrap().is(ns::CLIENT, "message"));
        assert!(Reader::within("<stream:features/>", &scope, &limits).is_err());
        assert!(scope.binds("urn:q") && !scope.binds("urn:r"));
    }

    #[test]
    fn a_long_namespace_holds_for_many_elements() {
        let text = format!("<a xmlns='{}&amp;'>{}</a>", "u".repeat(100_000), "<b/>".repeat(20_000));
        assert_eq!(condition(&text), None);
    }

    #[test]
    fn what_cannot_be_a_name_is_not_written() {
        let mut out = String::new();
        let mut w = Writer::new(&mut out);
        w.start("a").foreign("urn:<x>", "b").foreign("u", "c d").foreign("u", "p:c").foreign("u", "").end("a");
        assert_eq!(out, "<a><b xmlns='urn:&lt;x&gt;'/></a>");
    }

    #[test]
    fn base64_with_line_breaks_is_read() {
        assert_eq!(base64(" aGVs\n bG8= "), Some(b"hello".to_vec()));
        assert_eq!(base64("aGVsbG8"), None);
        assert_eq!(base64("aGVs!G8="), None);
        assert_eq!(base64(""), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn whatever_is_written_reads_the_same(value: String, text: String) {
            let keep = |s: &str| s.chars().filter(|c| is_char(*c)).collect::<String>();
            let mut out = String::new();
            Writer::new(&mut out).start_ns("a", "u").attr("x", &value).text(&text).end("a");
            prop_assert_eq!(attr_of(&out), keep(&value));
            prop_assert_eq!(text_of(&out), keep(&text));
        }

        #[test]
        fn no_text_panics(text in "[<>/!?'\"a:= \\[\\]\\-xmlnsCDAT&#;é\u{FFFE}\u{1}]{0,64}|\\PC{0,64}") {
            let _ = read_all(&text);
            let _ = read_all(&format!("<a>{text}</a>"));
            let _ = read_all(&format!("<a {text}/>"));
        }
    }
}

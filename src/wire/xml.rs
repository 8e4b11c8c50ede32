//! Strict XML for streams over quick-xml's tokenizer: RFC 6120 §11 refusals, byte, depth and attribute caps, and the
//! writer. Read RFC 6120 §11 and XML 1.0 §2.2, §2.4, §3.1 before touching this file.
//!
//! quick-xml says what each token is, where it ends, and that an end tag has the name of its start tag. What it lets
//! pass is checked here: characters, names, attributes, references, namespaces.
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
    tokens: quick_xml::Reader<&'a [u8]>,
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
    /// Open elements; one while inside the root only.
    depth: usize,
    /// The element just entered was written `<a/>`: its end is still to be reported.
    empty: bool,
    /// What the end of the input means: an element is open, or this fault was met before.
    fault: Malformed,
}

/// Whether white space before markup is text or passed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    Kept,
    Skipped,
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
        // quick-xml would pass over it.
        if source.starts_with('\u{FEFF}') {
            return Err(xml(StreamCondition::NotWellFormed, "text outside the root"));
        }
        let mut reader = Self {
            source,
            tokens: tokens_of(source),
            limits: *limits,
            tag: Tag { ns: Name::Plain(""), name: "" },
            attributes: Vec::with_capacity(16),
            traits: 0,
            suspicious: false,
            bindings: Vec::with_capacity(8),
            outer_bindings: 0,
            depth: 0,
            empty: false,
            fault: xml(StreamCondition::NotWellFormed, "ends inside an element"),
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
            match self.token(Space::Skipped)? {
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
        let here = self.depth;
        loop {
            match self.token(Space::Skipped)? {
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
        let here = self.depth;
        let mut all: Cow<'a, str> = Cow::Borrowed("");
        loop {
            match self.token(Space::Kept)? {
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
        let outer = self.depth.saturating_sub(1);
        self.leave(outer)
    }

    /// Leaves the root, whatever is unread, and checks that nothing follows it.
    ///
    /// # Errors
    /// [`Malformed::Xml`].
    pub fn finish(&mut self) -> Result<()> {
        self.leave(0)?;
        if skip_space(self.source, self.position()) == self.source.len() {
            Ok(())
        } else {
            Err(xml(StreamCondition::NotWellFormed, "something follows the root"))
        }
    }

    fn leave(&mut self, depth: usize) -> Result<()> {
        while self.depth > depth {
            self.token(Space::Skipped)?;
        }
        Ok(())
    }

    fn token(&mut self, space: Space) -> Result<Token<'a>> {
        if self.empty {
            self.empty = false;
            self.end();
            return Ok(Token::End);
        }
        self.tokens.config_mut().trim_text_start = space == Space::Skipped;
        let read = match self.tokens.read_event() {
            Ok(Event::Start(tag)) => {
                let content = self.content(tag.len(), ">");
                self.start_tag(content).map(|()| Token::Start)
            }
            Ok(Event::Empty(tag)) => {
                let content = self.content(tag.len(), "/>");
                let read = self.start_tag(content);
                self.empty = read.is_ok();
                read.map(|()| Token::Start)
            }
            Ok(Event::End(_)) => {
                self.end();
                return Ok(Token::End);
            }
            Ok(Event::Text(text)) => plain_text(self.content(text.len(), "")).map(Token::Text),
            Ok(Event::CData(text)) => cdata(self.content(text.len(), "]]>")).map(Token::Text),
            Ok(Event::GeneralRef(name)) => reference(&name).map(Token::Char),
            // RFC 6120 §11.1: no comments, no processing instructions, no DTD.
            Ok(Event::Comment(_)) => Err(xml(StreamCondition::RestrictedXml, "comment")),
            Ok(Event::PI(_)) => Err(xml(StreamCondition::RestrictedXml, "processing instruction")),
            Ok(Event::DocType(_)) => Err(xml(StreamCondition::RestrictedXml, "document type declaration")),
            Ok(Event::Decl(_)) => Err(xml(StreamCondition::NotWellFormed, "XML declaration inside the stream")),
            Ok(Event::Eof) => Err(self.fault.clone()),
            Err(_) => Err(xml(StreamCondition::NotWellFormed, "not well-formed")),
        };
        read.map_err(|fault| self.stop(fault))
    }

    /// Whoever goes on after a fault finds nothing but a fault.
    #[cold]
    fn stop(&mut self, fault: Malformed) -> Malformed {
        self.tokens = quick_xml::Reader::from_str("");
        self.fault = if let Malformed::Xml { condition: StreamCondition::BadNamespacePrefix, detail } = fault {
            // RFC 6120 §11.3: the element as a whole is then not namespace-well-formed.
            xml(StreamCondition::NotWellFormed, detail)
        } else {
            fault.clone()
        };
        self.unbind();
        fault
    }

    /// Where the next token begins.
    fn position(&self) -> usize {
        self.source.len().saturating_sub(self.tokens.get_ref().len())
    }

    /// The token just read, `len` bytes before `closing`: an event gives its text for less long than `'a`.
    fn content(&self, len: usize, closing: &str) -> &'a str {
        let end = self.position().saturating_sub(closing.len());
        self.source.get(end.saturating_sub(len)..end).unwrap_or("")
    }

    /// Leaves the innermost element.
    fn end(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.unbind();
    }

    /// Forgets the declarations of elements that are not open.
    fn unbind(&mut self) {
        while self.bindings.last().is_some_and(|b| b.depth > self.depth) {
            self.bindings.pop();
        }
    }

    fn start_tag(&mut self, tag: &'a str) -> Result<()> {
        if self.depth >= self.limits.depth {
            return Err(xml(StreamCondition::PolicyViolation, "nested too deep"));
        }
        self.attributes.clear();
        (self.traits, self.suspicious) = (0, false);
        let (prefix, local, mut at) = qualified_name(tag, 0)?;
        while at < tag.len() {
            let next = skip_space(tag, at);
            if next == tag.len() {
                break;
            }
            if next == at {
                return Err(xml(StreamCondition::NotWellFormed, "no space before an attribute"));
            }
            at = self.attribute(tag, next)?;
        }
        if self.suspicious {
            self.check_attributes()?;
        }
        self.tag = Tag { ns: self.lookup(prefix)?.uri.clone(), name: local };
        self.depth += 1;
        Ok(())
    }

    /// Reads the attribute at `at` of a tag and says where it ends.
    fn attribute(&mut self, tag: &'a str, at: usize) -> Result<usize> {
        let (prefix, name, at) = qualified_name(tag, at)?;
        let at = skip_space(tag, at);
        if tag.as_bytes().get(at) != Some(&b'=') {
            return Err(xml(StreamCondition::NotWellFormed, "attribute without a value"));
        }
        let (value, at) = quoted_value(tag, skip_space(tag, at + 1))?;
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
        let depth = self.depth + 1;
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

/// quick-xml notes the names of the open elements in a `String`, which would grow name by name. An element whose name is
/// as long as those of a session-initiate together leaves it with room for them.
fn tokens_of(source: &str) -> quick_xml::Reader<&[u8]> {
    const ROOM: &str = "<iqjinglecontentdescriptionpayload-type></iqjinglecontentdescriptionpayload-type>";
    let mut tokens = quick_xml::Reader::from_str(ROOM);
    let (_start, _end) = (tokens.read_event(), tokens.read_event());
    *tokens.get_mut() = source.as_bytes();
    tokens
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
        // White space is passed over between elements only.
        assert_eq!(text_of("<a> \n<b> </b> x <c/>\t</a>"), " \n x \t");
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
    fn after_a_breach_of_xml_there_is_nothing_but_that_breach() {
        for text in ["<a>]]><b/></a>", "<a>&x;</a>", "<a><!--c--></a>", "<a><b x='1' x='2'/></a>", "<a><b></a></a>"] {
            let mut r = Reader::new(text, ns::CLIENT, &XmlLimits::default()).unwrap();
            let fault = r.skip().unwrap_err();
            assert_eq!(r.text().unwrap_err(), fault, "{text}");
            assert_eq!(r.finish().unwrap_err(), fault, "{text}");
        }
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

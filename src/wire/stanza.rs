//! iq, message, presence and stanza errors (RFC 6120 §8, RFC 6121), with carbons (XEP-0280 1.0.1), forwarding (0297 1.0),
//! delay (0203 2.0) and hints (0334 1.0.0). Read RFC 6120 §8.2.3 and §8.3 before touching this file.

use super::bytestream::{Bytestreams, Ibb};
use super::disco::{Caps, DiscoInfo, DiscoItems};
use super::jid::Jid;
use super::jingle::{self, Jingle, Jmi};
use super::ns;
use super::roster::{Bind, Roster};
use super::services::{Credentials, Services};
use super::xml::{Reader, Result, Writer, jid, lenient};
use crate::config::XmlLimits;
use crate::fault::{Answer, ErrorType, JingleCondition, Malformed, StanzaCondition, names};

pub use super::time::Delay;

/// A stanza, RFC 6120 §8.
#[derive(Debug, Clone, PartialEq)]
pub enum Stanza {
    /// RFC 6120 §8.2.3
    Iq(Iq),
    /// RFC 6121 §5
    Message(Message),
    /// RFC 6121 §4
    Presence(Presence),
}

names! {
    /// The three stanzas.
    pub enum StanzaKind { Iq = "iq", Message = "message", Presence = "presence" }
}

names! {
    /// RFC 6120 §8.2.3.
    pub enum IqType { Error = "error", Get = "get", Result = "result", Set = "set" }
}

/// A stanza that could not be read, with what is needed to answer it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("malformed stanza: {fault}")]
pub struct StanzaFault {
    /// `None` only if the XML ended before the root's name.
    pub kind: Option<StanzaKind>,
    /// Who sent it, if that could be read.
    pub from: Option<Jid>,
    /// Whom it is for, if that could be read.
    pub to: Option<Jid>,
    /// Its id.
    pub id: Option<String>,
    /// Type of an IQ: only get and set are answered, result and error end a pending request.
    pub iq: Option<IqType>,
    /// What is wrong. [`Malformed::ends_stream`] tells whether the stream can go on.
    pub fault: Malformed,
}

/// RFC 6120 §8.2.3.
#[derive(Debug, Clone, PartialEq)]
pub struct Iq {
    /// Absent: from one's own account or server.
    pub from: Option<Jid>,
    /// Absent: for one's own account.
    pub to: Option<Jid>,
    /// Joins request and answer.
    pub id: String,
    /// Type and payload.
    pub kind: IqKind,
}

/// Type and payload of an IQ.
#[derive(Debug, Clone, PartialEq)]
pub enum IqKind {
    /// Asks.
    Get(IqPayload),
    /// Orders.
    Set(IqPayload),
    /// Answers.
    Result(Option<IqPayload>),
    /// Refuses.
    Error(Box<StanzaError>),
}

/// Payload of an IQ, by namespace.
#[derive(Debug, Clone, PartialEq)]
pub enum IqPayload {
    /// XEP-0166
    Jingle(Box<Jingle>),
    /// XEP-0030
    DiscoInfo(Box<DiscoInfo>),
    /// XEP-0030
    DiscoItems(Box<DiscoItems>),
    /// RFC 6121 §2
    Roster(Box<Roster>),
    /// RFC 6120 §7
    Bind(Box<Bind>),
    /// RFC 3921 §3
    Session,
    /// XEP-0199
    Ping,
    /// XEP-0215 §3.1
    Services(Box<Services>),
    /// XEP-0215 §3.2
    Credentials(Box<Credentials>),
    /// XEP-0280 §4
    CarbonsEnable,
    /// XEP-0280 §5
    CarbonsDisable,
    /// XEP-0065
    Bytestreams(Box<Bytestreams>),
    /// XEP-0047
    Ibb(Box<Ibb>),
    /// A namespace that is not known here; answered with service-unavailable.
    Unknown {
        /// Its namespace.
        ns: String,
        /// Its local name.
        name: String,
    },
}

/// RFC 6120 §8.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StanzaError {
    /// What is wrong; undefined-condition if there is none or an unknown one.
    pub condition: StanzaCondition,
    /// What to do about it; the condition's usual one if absent.
    pub kind: ErrorType,
    /// XEP-0166 §10.
    pub jingle: Option<JingleCondition>,
    /// Another condition of an application: namespace and local name.
    pub specific: Option<(String, String)>,
    /// Address inside `<gone/>` or `<redirect/>`.
    pub address: Option<String>,
    /// For people.
    pub text: Option<String>,
    /// Who refuses.
    pub by: Option<Jid>,
}

names! {
    /// RFC 6121 §5.2.2; an unknown type reads as normal.
    pub enum MessageType {
        Chat = "chat", Error = "error", Groupchat = "groupchat", Headline = "headline", Normal = "normal",
    }
}

/// RFC 6121 §5. Children that are not known here are not kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Absent: from one's own account or server.
    pub from: Option<Jid>,
    /// Absent: for one's own account.
    pub to: Option<Jid>,
    /// Its id.
    pub id: Option<String>,
    /// Its type.
    pub kind: MessageType,
    /// The first body.
    pub body: Option<String>,
    /// XEP-0353
    pub jmi: Option<Box<Jmi>>,
    /// XEP-0280; a carbon is only to be believed if `from` is one's own bare JID.
    pub carbon: Option<Box<Carbon>>,
    /// XEP-0047 data, where the stream runs in messages.
    pub ibb: Option<Box<Ibb>>,
    /// XEP-0203
    pub delay: Option<Delay>,
    /// XEP-0334
    pub hints: Vec<Hint>,
    /// With type error.
    pub error: Option<Box<StanzaError>>,
}

names! {
    /// XEP-0334 §4.
    pub enum Hint {
        NoCopy = "no-copy", NoPermanentStore = "no-permanent-store", NoStore = "no-store", Store = "store",
    }
}

names! {
    /// XEP-0280 §6.
    pub enum CarbonDirection { Received = "received", Sent = "sent" }
}

/// A copy of a message that another resource of the same account sent or received, XEP-0280.
#[derive(Debug, Clone, PartialEq)]
pub struct Carbon {
    /// Which of both.
    pub direction: CarbonDirection,
    /// The copy; a carbon inside it is dropped.
    pub message: Message,
    /// XEP-0297 delay.
    pub delay: Option<Delay>,
}

names! {
    /// RFC 6121 §4.7.1. On the wire `available` is the absence of the attribute.
    pub enum PresenceType {
        Available = "available", Error = "error", Probe = "probe", Subscribe = "subscribe", Subscribed = "subscribed",
        Unavailable = "unavailable", Unsubscribe = "unsubscribe", Unsubscribed = "unsubscribed",
    }
}

names! {
    /// RFC 6121 §4.7.2.1.
    pub enum Show { Away = "away", Chat = "chat", Dnd = "dnd", Xa = "xa" }
}

/// RFC 6121 §4.
#[derive(Debug, Clone, PartialEq)]
pub struct Presence {
    /// Absent: from one's own account or server.
    pub from: Option<Jid>,
    /// Absent: for everybody subscribed.
    pub to: Option<Jid>,
    /// Its id.
    pub id: Option<String>,
    /// Its type.
    pub kind: PresenceType,
    /// How available.
    pub show: Option<Show>,
    /// For people, the first one.
    pub status: Option<String>,
    /// 0 if absent or unreadable.
    pub priority: i8,
    /// XEP-0115
    pub caps: Option<Box<Caps>>,
    /// XEP-0203
    pub delay: Option<Delay>,
    /// With type error.
    pub error: Option<Box<StanzaError>>,
}

impl Iq {
    /// An IQ without `from`.
    #[must_use]
    pub fn new(to: Option<Jid>, id: impl Into<String>, kind: IqKind) -> Self {
        Self { from: None, to, id: id.into(), kind }
    }
}

impl Message {
    /// An empty message without `from`.
    #[must_use]
    pub fn new(to: Option<Jid>, kind: MessageType) -> Self {
        Self {
            from: None,
            to,
            id: None,
            kind,
            body: None,
            jmi: None,
            carbon: None,
            ibb: None,
            delay: None,
            hints: Vec::new(),
            error: None,
        }
    }
}

impl Presence {
    /// A presence without `from` and payload.
    #[must_use]
    pub fn new(to: Option<Jid>, kind: PresenceType) -> Self {
        Self {
            from: None,
            to,
            id: None,
            kind,
            show: None,
            status: None,
            priority: 0,
            caps: None,
            delay: None,
            error: None,
        }
    }
}

impl StanzaError {
    /// An error without text.
    #[must_use]
    pub fn new(kind: ErrorType, condition: StanzaCondition) -> Self {
        Self { condition, kind, jingle: None, specific: None, address: None, text: None, by: None }
    }
}

impl From<Answer> for StanzaError {
    fn from(answer: Answer) -> Self {
        Self { jingle: answer.jingle, ..Self::new(answer.kind, answer.condition) }
    }
}

impl Stanza {
    /// Reads a stanza from its text. `default_ns` is the content namespace of the stream.
    ///
    /// # Errors
    /// [`StanzaFault`], which still says whom to answer and which request has failed.
    pub fn parse(text: &str, default_ns: &'static str, limits: &XmlLimits) -> Result<Self, Box<StanzaFault>> {
        let mut r = Reader::new(text, default_ns, limits).map_err(StanzaFault::nameless)?;
        Self::read(&mut r)
    }

    /// Reads the stanza whose root `r` has just entered, to its end.
    ///
    /// # Errors
    /// [`StanzaFault`].
    pub fn read(r: &mut Reader<'_>) -> Result<Self, Box<StanzaFault>> {
        let Some(kind) = Self::kind_of(r) else {
            return Err(StanzaFault::nameless(Malformed::Unexpected { element: "stream" }));
        };
        // What an answer needs, kept while the root's attributes can be read.
        let mut head = Box::new(StanzaFault {
            kind: Some(kind),
            from: jid(r, kind.as_str(), "from").ok().flatten(),
            to: jid(r, kind.as_str(), "to").ok().flatten(),
            id: r.attr("id").map(str::to_owned),
            iq: if kind == StanzaKind::Iq { r.attr("type").and_then(IqType::parse) } else { None },
            fault: Malformed::Unexpected { element: kind.as_str() },
        });
        let read = match kind {
            StanzaKind::Iq => Iq::read(r, &mut head).map(Stanza::Iq),
            StanzaKind::Message => Message::read(r, &mut head, Copies::Follow).map(Stanza::Message),
            StanzaKind::Presence => Presence::read(r, &mut head).map(Stanza::Presence),
        };
        // The rest must be XML too; if it is not, that weighs more than a bad payload.
        match (r.finish(), read) {
            (Ok(()), Ok(stanza)) => Ok(stanza),
            (Err(fault), _) | (Ok(()), Err(fault)) => Err(Box::new(StanzaFault { fault, ..*head })),
        }
    }

    /// Which stanza the element just entered is, if it is one.
    #[must_use]
    pub fn kind_of(r: &Reader<'_>) -> Option<StanzaKind> {
        if matches!(r.tag().ns(), ns::CLIENT | ns::COMPONENT) { StanzaKind::parse(r.tag().name()) } else { None }
    }

    /// Writes the stanza in the content namespace of the stream.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            Stanza::Iq(iq) => iq.write(w),
            Stanza::Message(message) => message.write(w),
            Stanza::Presence(presence) => presence.write(w),
        }
    }
}

impl StanzaFault {
    fn nameless(fault: Malformed) -> Box<Self> {
        Box::new(Self { kind: None, from: None, to: None, id: None, iq: None, fault })
    }

    /// The error to send back (RFC 6120 §8.3.1): only for an IQ that asks, that has an id, and if the stream lives on.
    #[must_use]
    pub fn answer(&self) -> Option<Iq> {
        if self.fault.ends_stream() || !matches!(self.iq, Some(IqType::Get | IqType::Set)) {
            return None;
        }
        let error = StanzaError::new(ErrorType::Modify, StanzaCondition::BadRequest);
        Some(Iq {
            from: self.to.clone(),
            to: self.from.clone(),
            id: self.id.clone()?,
            kind: IqKind::Error(Box::new(error)),
        })
    }
}

/// True for a child in the content namespace.
fn is_content(r: &Reader<'_>, name: &str) -> bool {
    r.tag().name() == name && matches!(r.tag().ns(), ns::CLIENT | ns::COMPONENT)
}

/// `from` and `to` are addresses, RFC 6120 §8.1.
fn check_addresses(r: &Reader<'_>, element: &'static str) -> Result<()> {
    jid(r, element, "from")?;
    jid(r, element, "to")?;
    Ok(())
}

fn write_head(w: &mut Writer<'_>, from: Option<&Jid>, to: Option<&Jid>, id: Option<&str>) {
    w.attr_opt("from", from.map(Jid::as_str)).attr_opt("to", to.map(Jid::as_str)).attr_opt("id", id);
}

impl Iq {
    fn read(r: &mut Reader<'_>, head: &mut StanzaFault) -> Result<Self> {
        // RFC 6120 §8.2.3: type and id are required.
        let Some(kind) = head.iq else {
            r.need("iq", "type")?;
            return Err(Malformed::BadValue { element: "iq", what: "type" });
        };
        r.need("iq", "id")?;
        if head.from.is_none() || head.to.is_none() {
            check_addresses(r, "iq")?;
        }
        let (mut payload, mut error, mut children) = (None, None, 0_usize);
        r.children(|r| {
            if is_content(r, "error") {
                error = Some(Box::new(StanzaError::read(r)?));
                return Ok(());
            }
            children += 1;
            // An error may hold a copy of what it refuses; that is not looked at.
            if payload.is_none() && kind != IqType::Error {
                payload = Some(IqPayload::read(r)?);
            }
            Ok(())
        })?;
        let request = |payload: Option<IqPayload>| match (payload, children) {
            // RFC 6120 §8.2.3 rule 4: exactly one child.
            (Some(payload), 1) => Ok(payload),
            (None, _) => Err(Malformed::MissingChild { element: "iq", child: "query" }),
            (Some(_), _) => Err(Malformed::Unexpected { element: "iq" }),
        };
        let kind = match kind {
            IqType::Get => IqKind::Get(request(payload)?),
            IqType::Set => IqKind::Set(request(payload)?),
            IqType::Result => IqKind::Result(payload),
            // An error is one whatever it holds.
            IqType::Error => IqKind::Error(error.unwrap_or_else(|| Box::new(StanzaError::undefined()))),
        };
        Ok(Self { from: head.from.take(), to: head.to.take(), id: head.id.take().unwrap_or_default(), kind })
    }

    /// The answer to this IQ, with the addresses exchanged.
    #[must_use]
    pub fn answer(&self, kind: IqKind) -> Self {
        Self { from: self.to.clone(), to: self.from.clone(), id: self.id.clone(), kind }
    }

    /// Writes the `<iq/>`.
    pub fn write(&self, w: &mut Writer<'_>) {
        let (kind, payload) = match &self.kind {
            IqKind::Get(payload) => (IqType::Get, Some(payload)),
            IqKind::Set(payload) => (IqType::Set, Some(payload)),
            IqKind::Result(payload) => (IqType::Result, payload.as_ref()),
            IqKind::Error(_) => (IqType::Error, None),
        };
        w.start("iq");
        write_head(w, self.from.as_ref(), self.to.as_ref(), Some(&self.id));
        w.attr("type", kind.as_str());
        if let Some(payload) = payload {
            payload.write(w);
        }
        if let IqKind::Error(error) = &self.kind {
            error.write(w);
        }
        w.end("iq");
    }
}

impl IqPayload {
    /// Reads the payload that `r` has just entered, by its namespace and name.
    ///
    /// # Errors
    /// [`Malformed`] of the payload's own reader.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        Ok(match (r.tag().ns(), r.tag().name()) {
            (ns::JINGLE, "jingle") => IqPayload::Jingle(Box::new(Jingle::read(r)?)),
            (ns::DISCO_INFO, "query") => IqPayload::DiscoInfo(Box::new(DiscoInfo::read(r)?)),
            (ns::DISCO_ITEMS, "query") => IqPayload::DiscoItems(Box::new(DiscoItems::read(r)?)),
            (ns::ROSTER, "query") => IqPayload::Roster(Box::new(Roster::read(r)?)),
            (ns::BIND, "bind") => IqPayload::Bind(Box::new(Bind::read(r)?)),
            (ns::SESSION, "session") => IqPayload::Session,
            (ns::PING, "ping") => IqPayload::Ping,
            (ns::EXTDISCO | ns::EXTDISCO_1, "services") => IqPayload::Services(Box::new(Services::read(r)?)),
            (ns::EXTDISCO | ns::EXTDISCO_1, "credentials") => IqPayload::Credentials(Box::new(Credentials::read(r)?)),
            (ns::CARBONS, "enable") => IqPayload::CarbonsEnable,
            (ns::CARBONS, "disable") => IqPayload::CarbonsDisable,
            (ns::BYTESTREAMS, "query") => IqPayload::Bytestreams(Box::new(Bytestreams::read(r)?)),
            (ns::IBB, "open" | "data" | "close") => IqPayload::Ibb(Box::new(Ibb::read(r)?)),
            (ns, name) => IqPayload::Unknown { ns: ns.to_owned(), name: name.to_owned() },
        })
    }

    /// Writes the payload. Of an unknown one, the empty element.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            IqPayload::Jingle(jingle) => jingle.write(w),
            IqPayload::DiscoInfo(info) => info.write(w),
            IqPayload::DiscoItems(items) => items.write(w),
            IqPayload::Roster(roster) => roster.write(w),
            IqPayload::Bind(bind) => bind.write(w),
            IqPayload::Session => empty(w, "session", ns::SESSION),
            IqPayload::Ping => empty(w, "ping", ns::PING),
            IqPayload::Services(services) => services.write(w),
            IqPayload::Credentials(credentials) => credentials.write(w),
            IqPayload::CarbonsEnable => empty(w, "enable", ns::CARBONS),
            IqPayload::CarbonsDisable => empty(w, "disable", ns::CARBONS),
            IqPayload::Bytestreams(query) => query.write(w),
            IqPayload::Ibb(ibb) => ibb.write(w),
            IqPayload::Unknown { ns, name } => {
                w.foreign(ns, name);
            }
        }
    }
}

fn empty(w: &mut Writer<'_>, name: &'static str, ns: &'static str) {
    w.start_ns(name, ns).end(name);
}

impl StanzaError {
    fn undefined() -> Self {
        Self::new(usual_type(StanzaCondition::UndefinedCondition), StanzaCondition::UndefinedCondition)
    }

    /// Reads the `<error/>` that `r` has just entered. Nothing of it is required: an error stays one.
    ///
    /// # Errors
    /// [`Malformed::Xml`].
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let kind = r.attr("type").and_then(ErrorType::parse);
        let mut error = Self::undefined();
        error.by = lenient(jid(r, "error", "by"))?.flatten();
        let mut found = false;
        r.children(|r| {
            let name = r.tag().name();
            if r.tag().ns() == ns::STANZAS {
                if name == "text" {
                    if error.text.is_none() {
                        error.text = Some(r.text()?.into_owned());
                    }
                } else if let Some(condition) = StanzaCondition::parse(name).filter(|_| !found) {
                    found = true;
                    error.condition = condition;
                    if matches!(condition, StanzaCondition::Gone | StanzaCondition::Redirect) {
                        error.address = Some(r.text()?.into_owned()).filter(|a| !a.is_empty());
                    }
                }
            } else if let Some(condition) = jingle::read_error_condition(r) {
                error.jingle = Some(condition);
            } else if error.specific.is_none() {
                error.specific = Some((r.tag().ns().to_owned(), name.to_owned()));
            }
            Ok(())
        })?;
        error.kind = kind.unwrap_or(usual_type(error.condition));
        Ok(error)
    }

    /// Writes the `<error/>`.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("error").attr("type", self.kind.as_str()).attr_opt("by", self.by.as_ref().map(Jid::as_str));
        w.start_ns(self.condition.as_str(), ns::STANZAS);
        if let Some(address) = &self.address {
            w.text(address);
        }
        w.end(self.condition.as_str());
        if let Some(text) = &self.text {
            w.start_ns("text", ns::STANZAS).text(text).end("text");
        }
        if let Some(condition) = self.jingle {
            jingle::write_error_condition(condition, w);
        }
        if let Some((ns, name)) = &self.specific {
            w.foreign(ns, name);
        }
        w.end("error");
    }
}

/// The type that RFC 6120 §8.3.3 gives to a condition, where it gives several the first.
fn usual_type(condition: StanzaCondition) -> ErrorType {
    use StanzaCondition as C;
    match condition {
        C::BadRequest | C::JidMalformed | C::NotAcceptable | C::PolicyViolation | C::Redirect => ErrorType::Modify,
        C::Forbidden | C::NotAuthorized | C::RegistrationRequired | C::SubscriptionRequired => ErrorType::Auth,
        C::RecipientUnavailable | C::RemoteServerTimeout | C::ResourceConstraint | C::UnexpectedRequest => {
            ErrorType::Wait
        }
        C::Conflict
        | C::FeatureNotImplemented
        | C::Gone
        | C::InternalServerError
        | C::ItemNotFound
        | C::NotAllowed
        | C::RemoteServerNotFound
        | C::ServiceUnavailable
        | C::UndefinedCondition => ErrorType::Cancel,
    }
}

/// What to do with a carbon inside a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copies {
    Follow,
    /// A copy within a copy is never looked at (CVE-2017-5589 and its like).
    Ignore,
}

impl Message {
    fn read(r: &mut Reader<'_>, head: &mut StanzaFault, copies: Copies) -> Result<Self> {
        if head.from.is_none() || head.to.is_none() {
            check_addresses(r, "message")?;
        }
        // RFC 6121 §5.2.2: an unknown type is treated as normal.
        let kind = r.attr("type").and_then(MessageType::parse).unwrap_or(MessageType::Normal);
        let mut message = Self::new(None, kind);
        r.children(|r| message.read_child(r, copies))?;
        if kind == MessageType::Error && message.error.is_none() {
            message.error = Some(Box::new(StanzaError::undefined()));
        }
        (message.from, message.to, message.id) = (head.from.take(), head.to.take(), head.id.take());
        Ok(message)
    }

    fn read_child(&mut self, r: &mut Reader<'_>, copies: Copies) -> Result<()> {
        if is_content(r, "body") {
            if self.body.is_none() {
                self.body = Some(r.text()?.into_owned());
            }
        } else if is_content(r, "error") {
            if self.kind == MessageType::Error {
                self.error = Some(Box::new(StanzaError::read(r)?));
            }
        } else if Jmi::is_next(r) {
            if self.jmi.is_none() {
                self.jmi = Some(Box::new(Jmi::read(r)?));
            }
        } else if r.tag().ns() == ns::CARBONS {
            let direction = CarbonDirection::parse(r.tag().name());
            if let (Copies::Follow, None, Some(direction)) = (copies, &self.carbon, direction) {
                self.carbon = Some(Box::new(Carbon::read(r, direction)?));
            }
        } else if r.is(ns::IBB, "data") {
            self.ibb = Some(Box::new(Ibb::read(r)?));
        } else if r.is(ns::DELAY, "delay") {
            if self.delay.is_none() {
                self.delay = Delay::read(r);
            }
        } else if r.tag().ns() == ns::HINTS
            && let Some(hint) = Hint::parse(r.tag().name())
            && !self.hints.contains(&hint)
        {
            self.hints.push(hint);
        }
        Ok(())
    }

    /// Writes the `<message/>`.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("message");
        self.write_inside(w);
    }

    fn write_inside(&self, w: &mut Writer<'_>) {
        write_head(w, self.from.as_ref(), self.to.as_ref(), self.id.as_deref());
        if self.kind != MessageType::Normal {
            w.attr("type", self.kind.as_str());
        }
        if let Some(body) = &self.body {
            w.text_element("body", body);
        }
        if let Some(jmi) = &self.jmi {
            jmi.write(w);
        }
        if let Some(carbon) = &self.carbon {
            carbon.write(w);
        }
        if let Some(ibb) = &self.ibb {
            ibb.write(w);
        }
        if let Some(delay) = &self.delay {
            delay.write(w);
        }
        for hint in &self.hints {
            empty(w, hint.as_str(), ns::HINTS);
        }
        if let Some(error) = &self.error {
            error.write(w);
        }
        w.end("message");
    }
}

impl Carbon {
    fn read(r: &mut Reader<'_>, direction: CarbonDirection) -> Result<Self> {
        let (mut message, mut delay) = (None, None);
        r.children(|r| {
            if !r.is(ns::FORWARD, "forwarded") {
                return Ok(());
            }
            r.children(|r| {
                if r.is(ns::DELAY, "delay") {
                    delay = Delay::read(r);
                } else if is_content(r, "message") && message.is_none() {
                    let mut head = StanzaFault {
                        kind: Some(StanzaKind::Message),
                        from: jid(r, "message", "from")?,
                        to: jid(r, "message", "to")?,
                        id: r.attr("id").map(str::to_owned),
                        iq: None,
                        fault: Malformed::Unexpected { element: "message" },
                    };
                    message = Some(Message::read(r, &mut head, Copies::Ignore)?);
                }
                Ok(())
            })
        })?;
        let message = message.ok_or(Malformed::MissingChild { element: "forwarded", child: "message" })?;
        Ok(Self { direction, message, delay })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start_ns(self.direction.as_str(), ns::CARBONS).start_ns("forwarded", ns::FORWARD);
        if let Some(delay) = &self.delay {
            delay.write(w);
        }
        w.start_ns("message", ns::CLIENT);
        self.message.write_inside(w);
        w.end("forwarded").end(self.direction.as_str());
    }
}

impl Presence {
    fn read(r: &mut Reader<'_>, head: &mut StanzaFault) -> Result<Self> {
        if head.from.is_none() || head.to.is_none() {
            check_addresses(r, "presence")?;
        }
        let kind = match r.attr("type") {
            None => PresenceType::Available,
            // RFC 6121 §4.7.1: an unknown type is not understood, so it must not make anybody available.
            Some(kind) => PresenceType::parse(kind).ok_or(Malformed::BadValue { element: "presence", what: "type" })?,
        };
        let mut presence = Self::new(None, kind);
        r.children(|r| presence.read_child(r))?;
        if kind == PresenceType::Error && presence.error.is_none() {
            presence.error = Some(Box::new(StanzaError::undefined()));
        }
        (presence.from, presence.to, presence.id) = (head.from.take(), head.to.take(), head.id.take());
        Ok(presence)
    }

    fn read_child(&mut self, r: &mut Reader<'_>) -> Result<()> {
        if is_content(r, "show") {
            self.show = Show::parse(r.text()?.trim());
        } else if is_content(r, "status") {
            if self.status.is_none() {
                self.status = Some(r.text()?.into_owned());
            }
        } else if is_content(r, "priority") {
            self.priority = r.text()?.trim().parse().unwrap_or(0);
        } else if is_content(r, "error") {
            if self.kind == PresenceType::Error {
                self.error = Some(Box::new(StanzaError::read(r)?));
            }
        } else if r.is(ns::CAPS, "c") {
            self.caps = lenient(Caps::read(r))?.map(Box::new);
        } else if r.is(ns::DELAY, "delay") && self.delay.is_none() {
            self.delay = Delay::read(r);
        }
        Ok(())
    }

    /// Writes the `<presence/>`.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("presence");
        write_head(w, self.from.as_ref(), self.to.as_ref(), self.id.as_deref());
        if self.kind != PresenceType::Available {
            w.attr("type", self.kind.as_str());
        }
        if let Some(show) = self.show {
            w.text_element("show", show.as_str());
        }
        if let Some(status) = &self.status {
            w.text_element("status", status);
        }
        if self.priority != 0 {
            w.start("priority").text_number(self.priority).end("priority");
        }
        if let Some(caps) = &self.caps {
            caps.write(w);
        }
        if let Some(delay) = &self.delay {
            delay.write(w);
        }
        if let Some(error) = &self.error {
            error.write(w);
        }
        w.end("presence");
    }
}

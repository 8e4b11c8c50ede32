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
        let mut head = StanzaFault {
            kind: Some(kind),
            from: jid(r, kind.as_str(), "from").ok().flatten(),
            to: jid(r, kind.as_str(), "to").ok().flatten(),
            id: r.attr("id").map(str::to_owned),
            iq: if kind == StanzaKind::Iq { r.attr("type").and_then(IqType::parse) } else { None },
            fault: Malformed::Unexpected { element: kind.as_str() },
        };
        let read = match kind {
            StanzaKind::Iq => Iq::read(r, &mut head).map(Stanza::Iq),
            StanzaKind::Message => Message::read(r, &mut head, Copies::Follow).map(Stanza::Message),
            StanzaKind::Presence => Presence::read(r, &mut head).map(Stanza::Presence),
        };
        // The rest must be XML too; if it is not, that weighs more than a bad payload.
        match (r.finish(), read) {
            (Ok(()), Ok(stanza)) => Ok(stanza),
            (Err(fault), _) | (Ok(()), Err(fault)) => Err(Box::new(StanzaFault { fault, ..head })),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::wire::bytestream::Streamhost;
    use crate::wire::disco::{DataForm, DiscoItem, Field, FormType, Identity};
    use crate::wire::jingle::{Action, JmiKind, Reason, Sid};
    use crate::wire::roster::{RosterItem, Subscription};
    use crate::wire::services::{Service, ServiceAction};
    use crate::wire::time::Stamp;
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn read(text: &str) -> Stanza {
        Stanza::parse(text, ns::CLIENT, &XmlLimits::default()).unwrap()
    }

    fn fault(text: &str) -> StanzaFault {
        *Stanza::parse(text, ns::CLIENT, &XmlLimits::default()).unwrap_err()
    }

    fn read_iq(text: &str) -> Iq {
        let Stanza::Iq(iq) = read(text) else { panic!("{text}") };
        iq
    }

    fn read_message(text: &str) -> Message {
        let Stanza::Message(message) = read(text) else { panic!("{text}") };
        message
    }

    fn written(stanza: &Stanza) -> String {
        let mut out = String::new();
        stanza.write(&mut Writer::new(&mut out));
        out
    }

    fn some_jid() -> impl Strategy<Value = Jid> {
        prop_oneof!["[a-z]{1,8}@example\\.net", "[a-z]{1,8}@example\\.org/[a-zA-Z<&' ]{1,4}x", "[a-z]{1,8}\\.example"]
            .prop_map(|jid| jid.parse().unwrap())
    }

    fn text() -> impl Strategy<Value = String> {
        "[ -~\u{E9}\u{4E00}\u{1F600}\n\t\r]{0,12}"
    }

    fn word() -> impl Strategy<Value = String> {
        "[!-~\u{E9}]{1,12}"
    }

    fn disco_info() -> impl Strategy<Value = DiscoInfo> {
        let identity = (text(), text(), of(text()), of(text())).prop_map(|(category, kind, lang, name)| Identity {
            category,
            kind,
            lang,
            name,
        });
        let field =
            (of(text()), of(text()), vec(text(), 0..3)).prop_map(|(var, kind, values)| Field { var, kind, values });
        let form = (select(FormType::ALL), vec(field, 0..3)).prop_map(|(kind, fields)| DataForm { kind, fields });
        (of(text()), vec(identity, 0..3), vec(text(), 0..4), vec(form, 0..2))
            .prop_map(|(node, identities, features, forms)| DiscoInfo { node, identities, features, forms })
    }

    fn service() -> impl Strategy<Value = Service> {
        (
            (word(), word(), any::<Option<u16>>(), of(word()), of(text()), of(text())),
            (any::<bool>(), of(0_i64..4_000_000_000_000), of(text()), of(select(ServiceAction::ALL))),
        )
            .prop_map(
                |((host, kind, port, transport, username, password), (restricted, expires, name, action))| Service {
                    host,
                    kind,
                    port,
                    transport,
                    username,
                    password,
                    restricted,
                    expires: expires.map(|unix_ms| Stamp { unix_ms }),
                    name,
                    action,
                },
            )
    }

    fn roster() -> impl Strategy<Value = Roster> {
        let item = (some_jid(), of(text()), select(Subscription::ALL), any::<bool>(), vec(text(), 0..3)).prop_map(
            |(jid, name, subscription, ask, groups)| RosterItem {
                jid: jid.into_bare(),
                name,
                subscription,
                ask,
                groups,
            },
        );
        (of(text()), vec(item, 0..3)).prop_map(|(ver, items)| Roster { ver, items, malformed_items: 0 })
    }

    fn bytestreams() -> impl Strategy<Value = Bytestreams> {
        let host = (some_jid(), text(), any::<u16>()).prop_map(|(jid, host, port)| Streamhost { jid, host, port });
        (of(text()), of(text()), any::<bool>(), vec(host, 0..3), of(some_jid()), of(some_jid())).prop_map(
            |(sid, dstaddr, udp, streamhosts, used, activate)| Bytestreams {
                sid,
                dstaddr,
                udp,
                streamhosts,
                used,
                activate,
            },
        )
    }

    fn ibb() -> impl Strategy<Value = Ibb> {
        prop_oneof![
            (text(), 1..=u16::MAX, any::<bool>()).prop_map(|(sid, block_size, in_messages)| Ibb::Open {
                sid,
                block_size,
                in_messages
            }),
            ibb_data(),
            text().prop_map(|sid| Ibb::Close { sid }),
            (text(), any::<u16>()).prop_map(|(sid, seq)| Ibb::Spoiled { sid, seq }),
        ]
    }

    fn ibb_data() -> impl Strategy<Value = Ibb> {
        (text(), any::<u16>(), vec(any::<u8>(), 0..40)).prop_map(|(sid, seq, data)| Ibb::Data { sid, seq, data })
    }

    fn payload() -> impl Strategy<Value = IqPayload> {
        let item = (some_jid(), of(text()), of(text())).prop_map(|(jid, node, name)| DiscoItem { jid, node, name });
        let items =
            (of(text()), vec(item, 0..3)).prop_map(|(node, items)| DiscoItems { node, items, malformed_items: 0 });
        let jingle = (select(vec![Action::SessionTerminate, Action::SessionInfo]), "[a-z0-9]{1,20}")
            .prop_map(|(action, sid)| Jingle::new(action, Sid(sid)));
        let bind = (of(text()), of(some_jid())).prop_map(|(resource, jid)| Bind { resource, jid });
        let services = (any::<bool>(), of(text()), vec(service(), 0..3)).prop_map(|(v1, kind, services)| Services {
            v1,
            kind,
            services,
            malformed_services: 0,
        });
        let credentials = (any::<bool>(), vec(service(), 0..3)).prop_map(|(v1, services)| Credentials {
            v1,
            services,
            malformed_services: 0,
        });
        prop_oneof![
            jingle.prop_map(|p| IqPayload::Jingle(Box::new(p))),
            disco_info().prop_map(|p| IqPayload::DiscoInfo(Box::new(p))),
            items.prop_map(|p| IqPayload::DiscoItems(Box::new(p))),
            roster().prop_map(|p| IqPayload::Roster(Box::new(p))),
            bind.prop_map(|p| IqPayload::Bind(Box::new(p))),
            Just(IqPayload::Session),
            Just(IqPayload::Ping),
            services.prop_map(|p| IqPayload::Services(Box::new(p))),
            credentials.prop_map(|p| IqPayload::Credentials(Box::new(p))),
            Just(IqPayload::CarbonsEnable),
            Just(IqPayload::CarbonsDisable),
            bytestreams().prop_map(|p| IqPayload::Bytestreams(Box::new(p))),
            ibb().prop_map(|p| IqPayload::Ibb(Box::new(p))),
            text().prop_map(|ns| IqPayload::Unknown { ns: format!("urn:{ns}"), name: "x".to_owned() }),
        ]
    }

    fn error() -> impl Strategy<Value = Box<StanzaError>> {
        (
            (select(StanzaCondition::ALL), select(ErrorType::ALL), of(select(JingleCondition::ALL))),
            (any::<bool>(), of(word()), of(text()), of(some_jid())),
        )
            .prop_map(|((condition, kind, jingle), (specific, address, text, by))| {
                let gone = matches!(condition, StanzaCondition::Gone | StanzaCondition::Redirect);
                Box::new(StanzaError {
                    condition,
                    kind,
                    jingle,
                    specific: specific.then(|| ("urn:x".to_owned(), "y".to_owned())),
                    address: address.filter(|_| gone),
                    text,
                    by,
                })
            })
    }

    fn delay() -> impl Strategy<Value = Delay> {
        (0_i64..4_000_000_000_000, of(some_jid())).prop_map(|(unix_ms, from)| Delay { stamp: Stamp { unix_ms }, from })
    }

    fn plain_message() -> impl Strategy<Value = Message> {
        let jmi = select(vec![
            JmiKind::Ringing,
            JmiKind::Proceed,
            JmiKind::Retract { reason: Some(Reason::new(crate::fault::ReasonCondition::Expired)), tie_break: true },
        ])
        .prop_map(|kind| Box::new(Jmi { id: Sid("a1".to_owned()), kind }));
        let hints = (0_usize..4).prop_map(|n| Hint::ALL.iter().copied().skip(n).collect::<Vec<_>>());
        (
            (of(some_jid()), of(some_jid()), of(text()), select(MessageType::ALL), of(text())),
            (of(jmi), of(ibb_data()), of(delay()), hints, error()),
        )
            .prop_map(|((from, to, id, kind, body), (jmi, ibb, delay, hints, error))| Message {
                from,
                to,
                id,
                kind,
                body,
                jmi,
                carbon: None,
                ibb: ibb.map(Box::new),
                delay,
                hints,
                error: (kind == MessageType::Error).then_some(error),
            })
    }

    fn message() -> impl Strategy<Value = Message> {
        let carbon = (select(CarbonDirection::ALL), plain_message(), of(delay()))
            .prop_map(|(direction, message, delay)| Box::new(Carbon { direction, message, delay }));
        (plain_message(), of(carbon)).prop_map(|(message, carbon)| Message { carbon, ..message })
    }

    fn presence() -> impl Strategy<Value = Presence> {
        let caps = (of(text()), text(), text()).prop_map(|(hash, node, ver)| Box::new(Caps { hash, node, ver }));
        (
            (of(some_jid()), of(some_jid()), of(text()), select(PresenceType::ALL), of(select(Show::ALL))),
            (of(text()), any::<i8>(), of(caps), of(delay()), error()),
        )
            .prop_map(|((from, to, id, kind, show), (status, priority, caps, delay, error))| Presence {
                from,
                to,
                id,
                kind,
                show,
                status,
                priority,
                caps,
                delay,
                error: (kind == PresenceType::Error).then_some(error),
            })
    }

    fn iq() -> impl Strategy<Value = Iq> {
        let kind = prop_oneof![
            payload().prop_map(IqKind::Get),
            payload().prop_map(IqKind::Set),
            of(payload()).prop_map(IqKind::Result),
            error().prop_map(IqKind::Error),
        ];
        (of(some_jid()), of(some_jid()), text(), kind).prop_map(|(from, to, id, kind)| Iq { from, to, id, kind })
    }

    proptest! {
        #[test]
        fn iqs_read_as_they_were_written(iq in iq()) {
            let text = written(&Stanza::Iq(iq.clone()));
            prop_assert_eq!(read(&text), Stanza::Iq(iq), "{}", text);
        }

        #[test]
        fn messages_read_as_they_were_written(message in message()) {
            let text = written(&Stanza::Message(message.clone()));
            prop_assert_eq!(read(&text), Stanza::Message(message), "{}", text);
        }

        #[test]
        fn presences_read_as_they_were_written(presence in presence()) {
            let text = written(&Stanza::Presence(presence.clone()));
            prop_assert_eq!(read(&text), Stanza::Presence(presence), "{}", text);
        }

        #[test]
        fn a_cut_stanza_never_panics_and_ends_the_stream(iq in iq(), at: proptest::sample::Index) {
            let text = written(&Stanza::Iq(iq));
            let at = (0..=at.index(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            prop_assert!(fault(&text[..at]).fault.ends_stream());
        }
    }

    #[test]
    fn a_malformed_request_still_says_whom_to_answer() {
        for (payload, kind) in [
            ("<jingle xmlns='urn:xmpp:jingle:1' sid='x'/>", "set"),
            ("<jingle xmlns='urn:xmpp:jingle:1' action='session-dance' sid='x'><a><b>t</b></a></jingle><x/>", "set"),
            ("", "get"),
            ("<ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/>", "get"),
            ("<data xmlns='http://jabber.org/protocol/ibb' sid='s' seq='65536'>aa==</data>", "set"),
            ("<open xmlns='http://jabber.org/protocol/ibb' sid='s' block-size='0'/>", "set"),
        ] {
            let fault =
                fault(&format!("<iq type='{kind}' id='7' from='a@b.example/c' to='d@e.example'>{payload}</iq>"));
            assert!(!fault.fault.ends_stream(), "{payload}");
            assert_eq!(
                written(&Stanza::Iq(fault.answer().unwrap())),
                "<iq from='d@e.example' to='a@b.example/c' id='7' type='error'><error type='modify'>\
                 <bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            );
        }
    }

    #[test]
    fn a_malformed_answer_is_not_answered_but_names_its_request() {
        let fault = fault(
            "<iq type='result' id='7'><query xmlns='http://jabber.org/protocol/disco#info'><feature/></query></iq>",
        );
        assert_eq!((fault.id.as_deref(), fault.iq), (Some("7"), Some(IqType::Result)));
        assert_eq!(fault.answer(), None);
    }

    #[test]
    fn bad_xml_after_a_bad_payload_ends_the_stream() {
        let fault = fault("<iq type='set' id='7'><jingle xmlns='urn:xmpp:jingle:1'/></i>");
        assert!(fault.fault.ends_stream());
        assert_eq!(fault.answer(), None);
    }

    #[test]
    fn an_iq_needs_its_type_and_id() {
        for text in ["<iq id='1'/>", "<iq type='got' id='1'/>", "<iq type='get'><ping xmlns='urn:xmpp:ping'/></iq>"] {
            let fault = fault(text);
            assert!(!fault.fault.ends_stream(), "{text}");
            assert_eq!(fault.answer(), None, "{text}");
        }
    }

    #[test]
    fn a_bad_address_is_a_fault_of_the_stanza_only() {
        let fault = fault("<iq type='get' id='1' from='@' to='d@e.example'><ping xmlns='urn:xmpp:ping'/></iq>");
        assert_eq!(fault.fault, Malformed::BadValue { element: "iq", what: "from" });
        assert_eq!(fault.to.unwrap().as_str(), "d@e.example");
    }

    #[test]
    fn an_error_counts_as_one_whatever_it_holds() {
        for (inside, condition, kind) in [
            ("", StanzaCondition::UndefinedCondition, ErrorType::Cancel),
            (
                "<jingle xmlns='urn:xmpp:jingle:1' action='none'/>",
                StanzaCondition::UndefinedCondition,
                ErrorType::Cancel,
            ),
            ("<error/>", StanzaCondition::UndefinedCondition, ErrorType::Cancel),
            (
                "<error type='odd'><moon xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
                StanzaCondition::UndefinedCondition,
                ErrorType::Cancel,
            ),
            (
                "<ping xmlns='urn:xmpp:ping'/><error code='404'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
                StanzaCondition::BadRequest,
                ErrorType::Modify,
            ),
        ] {
            let iq = read_iq(&format!("<iq type='error' id='1'>{inside}</iq>"));
            assert_eq!(iq.kind, IqKind::Error(Box::new(StanzaError::new(kind, condition))), "{inside}");
        }
    }

    #[test]
    fn jingle_errors_are_read_beside_the_stanza_condition() {
        let IqKind::Error(error) = read_iq(
            "<iq type='error' id='1'><error type='cancel' by='e.example'>\
             <unknown-session xmlns='urn:xmpp:jingle:errors:1'/>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>gone</text><x xmlns='urn:y'/></error></iq>",
        )
        .kind
        else {
            panic!()
        };
        assert_eq!(error.condition, StanzaCondition::ItemNotFound);
        assert_eq!(error.jingle, Some(JingleCondition::UnknownSession));
        assert_eq!(error.text.as_deref(), Some("gone"));
        assert_eq!(error.specific, Some(("urn:y".to_owned(), "x".to_owned())));
        assert_eq!(error.by.unwrap().as_str(), "e.example");
    }

    #[test]
    fn a_copy_within_a_copy_is_not_looked_at() {
        let copy = |inside: &str| {
            format!(
                "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' from='a@b.example'>{inside}</message></forwarded></received>"
            )
        };
        let message = read_message(&format!("<message>{}</message>", copy(&copy("<body>x</body>"))));
        let carbon = message.carbon.unwrap();
        assert_eq!(carbon.direction, CarbonDirection::Received);
        assert_eq!(carbon.message.carbon, None);
        assert_eq!(carbon.message.body, None);
        assert!(fault("<message><sent xmlns='urn:xmpp:carbons:2'/></message>").kind == Some(StanzaKind::Message));
    }

    #[test]
    fn what_is_unknown_or_unreadable_beside_the_point_is_passed_over() {
        let message = read_message(
            "<message type='carrier-pigeon'><x xmlns='urn:x'><body>no</body></x><body>yes</body><body>no</body>\
             <delay xmlns='urn:xmpp:delay' stamp='yesterday'/><store xmlns='urn:xmpp:hints'/>\
             <store xmlns='urn:xmpp:hints'/><fridge xmlns='urn:xmpp:hints'/><error/></message>",
        );
        assert_eq!(message.kind, MessageType::Normal);
        assert_eq!(message.body.as_deref(), Some("yes"));
        assert_eq!(message.hints, [Hint::Store]);
        assert_eq!((message.delay, message.error), (None, None));
        let Stanza::Presence(presence) = read(
            "<presence><priority>999</priority><show>busy</show><c xmlns='http://jabber.org/protocol/caps' ver='x'/></presence>",
        ) else {
            panic!()
        };
        assert_eq!((presence.priority, presence.show, presence.caps), (0, None, None));
    }

    #[test]
    fn a_presence_of_unknown_type_makes_nobody_available() {
        assert_eq!(fault("<presence type='asleep'/>").fault, Malformed::BadValue { element: "presence", what: "type" });
    }

    #[test]
    fn a_stanza_of_another_namespace_is_none() {
        for text in ["<iq xmlns='jabber:server' type='get' id='1'/>", "<body/>", "<x:iq xmlns:x='urn:x'/>"] {
            assert_eq!(fault(text).kind, None, "{text}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let text = "<iq type='result' id='1'><services xmlns='urn:xmpp:extdisco:2'><service host='h' type='turn' \
                    password='hunter2'/></services></iq>";
        assert!(!format!("{:?}", read(text)).contains("hunter2"));
    }

    #[test]
    fn services_without_host_or_with_an_impossible_port_are_counted() {
        let IqKind::Result(Some(IqPayload::Services(services))) = read_iq(
            "<iq type='result' id='1'><services xmlns='urn:xmpp:extdisco:1'><service type='turn'/>\
             <service host='h' type='turn' port='70000'/><service host='h' type='stun' action='remove'/></services></iq>",
        )
        .kind
        else {
            panic!()
        };
        assert!(services.v1);
        assert_eq!((services.services.len(), services.malformed_services), (1, 2));
        assert_eq!(services.services[0].action, Some(ServiceAction::Delete));
    }
}

//! Jingle's own elements: action, content, reason, group (XEP-0166 1.1.2, XEP-0338 1.0.0) and Jingle Message Initiation
//! (XEP-0353 0.8.0). Read XEP-0166 §7 and XEP-0353 §3 before touching this file.

use super::candidate::Transport;
use super::description::{Description, Info};
use super::file::FileVerb;
use super::jid::Jid;
use super::ns;
use super::xml::{Reader, Result, Text, Writer};
use crate::config::wire;
use crate::fault::{JingleCondition, Malformed, ReasonCondition, names};

names! {
    /// What a Jingle IQ asks for, XEP-0166 §7.2, in the XEP's order.
    pub enum Action {
        ContentAccept = "content-accept", ContentAdd = "content-add", ContentModify = "content-modify",
        ContentReject = "content-reject", ContentRemove = "content-remove", DescriptionInfo = "description-info",
        SecurityInfo = "security-info", SessionAccept = "session-accept", SessionInfo = "session-info",
        SessionInitiate = "session-initiate", SessionTerminate = "session-terminate",
        TransportAccept = "transport-accept", TransportInfo = "transport-info", TransportReject = "transport-reject",
        TransportReplace = "transport-replace",
    }
}

names! {
    /// Who generated a content, XEP-0166 §7.3.
    pub enum Creator { Initiator = "initiator", Responder = "responder" }
}

names! {
    /// Which side sends, XEP-0166 §7.3.
    pub enum Senders { Both = "both", Initiator = "initiator", None = "none", Responder = "responder" }
}

/// Session id, an XML NMTOKEN of at least 128 random bits when it is ours (J166-30).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(pub String);

impl std::fmt::Display for Sid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Sid {
    fn read(r: &Reader<'_>, element: &'static str, attribute: &'static str) -> Result<Self> {
        match r.need(element, attribute)? {
            "" => Err(Malformed::BadValue { element, what: attribute }),
            sid => Ok(Self(sid.to_owned())),
        }
    }
}

/// True for a namespace in which peers have put Jingle's own children by mistake (complaint 16).
fn slipped(ns: &str) -> bool {
    matches!(ns, ns::JINGLE | "" | ns::CLIENT | ns::JINGLE_ERRORS | ns::JMI | ns::JMI_1 | ns::STANZAS)
}

/// The `<jingle/>` element.
#[derive(Debug, Clone, PartialEq)]
pub struct Jingle {
    /// What is asked for.
    pub action: Action,
    /// Session id.
    pub sid: Sid,
    /// Only read on session-initiate (J166-24, -25).
    pub initiator: Option<Jid>,
    /// Only read on session-accept (J166-28).
    pub responder: Option<Jid>,
    /// In the order of the wire.
    pub contents: Vec<Content>,
    /// XEP-0338 groups.
    pub groups: Vec<Group>,
    /// May ride on any action (J166-56).
    pub reason: Option<Reason>,
    /// Payload of a session-info, if any: one of ours or the name of an unknown one.
    pub info: Option<Info>,
}

impl Jingle {
    /// Reads the `<jingle/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] for a breach of XEP-0166 §7 that cannot be resolved; see the rule ids in the code.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        if !r.is(ns::JINGLE, "jingle") {
            return Err(Malformed::Unexpected { element: "jingle" });
        }
        // J166-23, J166-31: both are required, and no action is the default.
        let action = Action::parse(r.need("jingle", "action")?)
            .ok_or(Malformed::BadValue { element: "jingle", what: "action" })?;
        let sid = Sid::read(r, "jingle", "sid")?;
        let mut jingle = Self::new(action, sid);
        // J166-25: on other actions the attributes are ignored. J166-26: one that is no address is not used either.
        if action == Action::SessionInitiate {
            jingle.initiator = r.attr("initiator").and_then(|v| v.parse().ok());
        } else if action == Action::SessionAccept {
            jingle.responder = r.attr("responder").and_then(|v| v.parse().ok());
        }
        r.children(|r| jingle.read_child(r))?;
        jingle.check()?;
        Ok(jingle)
    }

    fn read_child(&mut self, r: &mut Reader<'_>) -> Result<()> {
        let (name, slip) = (r.tag().name(), slipped(r.tag().ns()));
        if name == "content" && slip {
            if self.contents.len() >= wire::CONTENTS {
                return Err(Malformed::Unexpected { element: "content" });
            }
            self.contents.push(Content::read(r)?);
        } else if name == "reason" && slip {
            let found = RawReason::read(r)?;
            // J166-55. A terminate ends the session however badly it is explained: refusing it would leave a ghost.
            let reason = if self.action == Action::SessionTerminate { found.resolve() } else { Some(found.strict()?) };
            self.reason = self.reason.take().or(reason);
        } else if r.is(ns::GROUPING, "group") {
            if self.groups.len() < wire::GROUPS {
                self.groups.push(Group::read(r)?);
            }
        } else if self.action == Action::SessionInfo {
            // The first payload that is known decides; one that is not is remembered for J166-21.
            let known = matches!(&self.info, Some(info) if !matches!(info, Info::Unknown { .. }));
            if !known {
                let info = Info::read(r)?;
                if self.info.is_none() || !matches!(info, Info::Unknown { .. }) {
                    self.info = Some(info);
                }
            }
        }
        Ok(())
    }

    /// What an action cannot do without.
    fn check(&self) -> Result<()> {
        const NO_CONTENT: Malformed = Malformed::MissingChild { element: "jingle", child: "content" };
        match self.action {
            Action::SessionInitiate | Action::SessionAccept => {
                // J166-01, J166-08, J166-42: at least one content, each with one description and one transport. Browsers
                // leave the description of a file out where they accept it: the session knows whether it is one.
                if self.contents.is_empty() {
                    return Err(NO_CONTENT);
                }
                for content in &self.contents {
                    if content.description.is_none() && self.action == Action::SessionInitiate {
                        return Err(Malformed::MissingChild { element: "content", child: "description" });
                    }
                    if content.transport.is_none() {
                        return Err(Malformed::MissingChild { element: "content", child: "transport" });
                    }
                }
                // J166-44: early-session alone is no session.
                if self.action == Action::SessionInitiate
                    && !self.contents.iter().any(|c| c.disposition == Disposition::Session)
                {
                    return Err(Malformed::BadValue { element: "content", what: "disposition" });
                }
            }
            // J166-35 asks for `senders` on a content-modify too, but a peer built on xmpp-parsers leaves it out
            // wherever it is the default: absence reads as both.
            Action::ContentAccept
            | Action::ContentAdd
            | Action::ContentModify
            | Action::ContentReject
            | Action::ContentRemove
            | Action::TransportAccept
            | Action::TransportReject
            | Action::TransportReplace => {
                if self.contents.is_empty() {
                    return Err(NO_CONTENT);
                }
            }
            Action::DescriptionInfo
            | Action::SecurityInfo
            | Action::SessionInfo
            | Action::SessionTerminate
            | Action::TransportInfo => {}
        }
        Ok(())
    }

    /// Writes the `<jingle/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("jingle", ns::JINGLE).attr("action", self.action.as_str()).attr("sid", &self.sid.0);
        // J166-24, J166-25, J166-28: each on its own action only.
        if self.action == Action::SessionInitiate {
            w.attr_opt("initiator", self.initiator.as_ref().map(Jid::as_str));
        } else if self.action == Action::SessionAccept {
            w.attr_opt("responder", self.responder.as_ref().map(Jid::as_str));
        }
        for group in &self.groups {
            group.write(w);
        }
        for content in &self.contents {
            content.write(w);
        }
        if let Some(reason) = &self.reason {
            reason.write(w);
        }
        if let (Action::SessionInfo, Some(info)) = (self.action, &self.info) {
            info.write(w);
        }
        w.end("jingle");
    }

    /// An action without contents.
    #[must_use]
    pub fn new(action: Action, sid: Sid) -> Self {
        Self {
            action,
            sid,
            initiator: None,
            responder: None,
            contents: Vec::new(),
            groups: Vec::new(),
            reason: None,
            info: None,
        }
    }
}

/// The `<content/>` element, XEP-0166 §7.3.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// Missing on the wire reads as initiator (J166-51).
    pub creator: Creator,
    /// Unique together with the creator.
    pub name: String,
    /// `None`: the attribute is absent (both, where a value is needed: J166-53; what we write always has it on content-modify: J166-35).
    pub senders: Option<Senders>,
    /// `session` unless the attribute says otherwise.
    pub disposition: Disposition,
    /// What is exchanged.
    pub description: Option<Description>,
    /// How it travels.
    pub transport: Option<Transport>,
    /// Namespace of a `<security/>` child, none of which is implemented.
    pub security: Option<String>,
}

impl Content {
    /// A content with neither description nor transport.
    #[must_use]
    pub fn new(creator: Creator, name: impl Into<String>) -> Self {
        Self {
            creator,
            name: name.into(),
            senders: None,
            disposition: Disposition::Session,
            description: None,
            transport: None,
            security: None,
        }
    }

    /// Reads the `<content/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] without a name, with a second description or transport, or from either of them.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        // J166-51: a missing creator is the initiator, a missing name cannot be guessed. An empty one is seen.
        let creator = read_creator(r, "content")?;
        let mut content = Self::new(creator, r.need("content", "name")?);
        content.senders = read_senders(r, "content")?;
        content.disposition = match r.attr("disposition") {
            None | Some("" | "session") => Disposition::Session,
            Some("early-session") => Disposition::EarlySession,
            Some(other) => Disposition::Other(other.to_owned()),
        };
        let mut verb = None;
        r.children(|r| {
            match r.tag().name() {
                // J166-01: exactly one of each.
                "description" if content.description.is_some() => {
                    return Err(Malformed::Unexpected { element: "description" });
                }
                "transport" if content.transport.is_some() => {
                    return Err(Malformed::Unexpected { element: "transport" });
                }
                "security" if content.security.is_some() => return Err(Malformed::Unexpected { element: "security" }),
                "description" => {
                    let (description, found) = Description::read_with_verb(r)?;
                    content.description = Some(description);
                    verb = found;
                }
                "transport" => content.transport = Some(Transport::read(r)?),
                "security" => content.security = Some(r.tag().ns().to_owned()),
                // Complaint 25: what is not known is passed over.
                _ => {}
            }
            Ok(())
        })?;
        // J234-02: file-transfer:3 says by an element what later versions say by `senders`.
        content.senders = content.senders.or(match (verb, creator) {
            (None, _) => None,
            (Some(FileVerb::Offer), Creator::Initiator) | (Some(FileVerb::Request), Creator::Responder) => {
                Some(Senders::Initiator)
            }
            (Some(FileVerb::Offer), Creator::Responder) | (Some(FileVerb::Request), Creator::Initiator) => {
                Some(Senders::Responder)
            }
        });
        Ok(content)
    }

    /// Writes the `<content/>`.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("content").attr("creator", self.creator.as_str()).attr("name", &self.name);
        w.attr_opt("senders", self.senders.map(Senders::as_str));
        match &self.disposition {
            Disposition::Session => {}
            Disposition::EarlySession => {
                w.attr("disposition", "early-session");
            }
            Disposition::Other(other) => {
                w.attr("disposition", other);
            }
        }
        if let Some(description) = &self.description {
            description.write(w);
        }
        if let Some(transport) = &self.transport {
            transport.write(w);
        }
        if let Some(security) = &self.security {
            w.start_ns("security", security).end("security");
        }
        w.end("content");
    }
}

/// `creator` of the element just entered; missing means initiator (J166-51).
pub(super) fn read_creator(r: &Reader<'_>, element: &'static str) -> Result<Creator> {
    match r.attr("creator") {
        None | Some("") => Ok(Creator::Initiator),
        Some(v) => Creator::parse(v).ok_or(Malformed::BadValue { element, what: "creator" }),
    }
}

/// `senders` of the element just entered.
pub(super) fn read_senders(r: &Reader<'_>, element: &'static str) -> Result<Option<Senders>> {
    match r.attr("senders") {
        None | Some("") => Ok(None),
        Some(v) => Senders::parse(v).map(Some).ok_or(Malformed::BadValue { element, what: "senders" }),
    }
}

/// RFC 3261/5621 content disposition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Disposition {
    /// `session`
    #[default]
    Session,
    /// `early-session` (XEP-0269)
    EarlySession,
    /// Anything else from the IANA list, kept as text.
    Other(String),
}

/// The `<reason/>` element, XEP-0166 §7.4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Exactly one (J166-55).
    pub condition: ReasonCondition,
    /// Sid of the other session, only with `alternative-session` (J166-19).
    pub alternative: Option<Sid>,
    /// For people.
    pub text: Option<String>,
    /// At most one foreign element: namespace and local name.
    pub detail: Option<(String, String)>,
}

impl Reason {
    /// A reason without text.
    #[must_use]
    pub fn new(condition: ReasonCondition) -> Self {
        Self { condition, alternative: None, text: None, detail: None }
    }
}

impl Reason {
    /// Reads the `<reason/>` that `r` has just entered, in whatever namespace it and its children stand.
    ///
    /// # Errors
    /// [`Malformed`] unless it holds exactly one condition (J166-55).
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        RawReason::read(r)?.strict()
    }

    /// Writes the `<reason/>` inside a `<jingle/>`.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("reason");
        self.write_rest(w);
    }

    fn write_rest(&self, w: &mut Writer<'_>) {
        w.start(self.condition.as_str());
        if let (ReasonCondition::AlternativeSession, Some(sid)) = (self.condition, &self.alternative) {
            w.text_element("sid", &sid.0);
        }
        w.end(self.condition.as_str());
        if let Some(text) = &self.text {
            w.text_element("text", text);
        }
        if let Some((ns, name)) = &self.detail {
            w.foreign(ns, name);
        }
        w.end("reason");
    }
}

/// A reason before J166-55 is asked for.
#[derive(Default)]
struct RawReason {
    first: Option<ReasonCondition>,
    several: bool,
    alternative: Option<Sid>,
    text: Option<String>,
    detail: Option<(String, String)>,
}

impl RawReason {
    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut raw = Self::default();
        r.children(|r| {
            let name = r.tag().name();
            if !slipped(r.tag().ns()) {
                // One foreign element at most; the first counts.
                if raw.detail.is_none() {
                    raw.detail = Some((r.tag().ns().to_owned(), name.to_owned()));
                }
            } else if name == "text" {
                let text = r.text()?;
                raw.text.get_or_insert_with(|| text.into_owned());
            } else if let Some(condition) = ReasonCondition::parse(name) {
                raw.several |= raw.first.is_some_and(|c| c != condition);
                raw.first.get_or_insert(condition);
                if condition == ReasonCondition::AlternativeSession {
                    // J166-19
                    r.children(|r| {
                        if r.tag().name() == "sid" {
                            let sid = r.text()?;
                            let sid = sid.trim();
                            if !sid.is_empty() {
                                raw.alternative = Some(Sid(sid.to_owned()));
                            }
                        }
                        Ok(())
                    })?;
                }
            }
            Ok(())
        })?;
        if raw.first != Some(ReasonCondition::AlternativeSession) {
            raw.alternative = None;
        }
        Ok(raw)
    }

    fn strict(self) -> Result<Reason> {
        if self.several {
            return Err(Malformed::Unexpected { element: "reason" });
        }
        let condition = self.first.ok_or(Malformed::MissingChild { element: "reason", child: "condition" })?;
        Ok(Reason { condition, alternative: self.alternative, text: self.text, detail: self.detail })
    }

    /// The first condition; an explanation without one is a general error; nothing at all is no reason.
    fn resolve(self) -> Option<Reason> {
        let condition = match self.first {
            Some(condition) => condition,
            None if self.text.is_some() || self.detail.is_some() => ReasonCondition::GeneralError,
            None => return None,
        };
        Some(Reason { condition, alternative: self.alternative, text: self.text, detail: self.detail })
    }
}

/// The Jingle condition that `r` has just entered inside a stanza's `<error/>`, XEP-0166 §10.
#[must_use]
pub fn read_error_condition(r: &Reader<'_>) -> Option<JingleCondition> {
    if r.tag().ns() == ns::JINGLE_ERRORS { JingleCondition::parse(r.tag().name()) } else { None }
}

/// Writes a Jingle condition inside a stanza's `<error/>`, XEP-0166 §10.
pub fn write_error_condition(condition: JingleCondition, w: &mut Writer<'_>) {
    w.start_ns(condition.as_str(), ns::JINGLE_ERRORS).end(condition.as_str());
}

/// XEP-0338 group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `BUNDLE`, `LS`, …
    pub semantics: Text,
    /// Content names in order; the first is the tagged transport.
    pub names: Vec<Text>,
}

impl Group {
    /// Reads the `<group/>` that `r` has just entered. Contents without a name are passed over.
    ///
    /// # Errors
    /// [`Malformed`] without semantics.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut group = Self { semantics: r.need("group", "semantics")?.into(), names: Vec::new() };
        r.children(|r| {
            if r.tag().name() == "content"
                && group.names.len() < wire::CONTENTS
                && let Some(name) = r.attr("name")
            {
                group.names.push(name.into());
            }
            Ok(())
        })?;
        Ok(group)
    }

    /// Writes the `<group/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("group", ns::GROUPING).attr("semantics", &self.semantics);
        for name in &self.names {
            w.start("content").attr("name", name).end("content");
        }
        w.end("group");
    }
}

/// A Jingle Message Initiation element inside a message, XEP-0353.
#[derive(Debug, Clone, PartialEq)]
pub struct Jmi {
    /// Becomes the sid of the session (J353-02).
    pub id: Sid,
    /// What it says.
    pub kind: JmiKind,
}

/// The elements of XEP-0353 §3 (and of its 0.3 form, read only).
#[derive(Debug, Clone, PartialEq)]
pub enum JmiKind {
    /// One description a medium: media name (`audio`, `video`) for RTP, `None` for another namespace.
    Propose(Vec<Proposed>),
    /// The device rings.
    Ringing,
    /// The device takes the call (0.3: `accept` is the copy for one's own devices).
    Proceed,
    /// 0.3 only: copy of proceed to one's own devices.
    Accept,
    /// The user or device declines.
    Reject {
        /// Absent from older peers.
        reason: Option<Reason>,
        /// Lost against a crossed propose (J353-10).
        tie_break: bool,
    },
    /// The caller gives up.
    Retract {
        /// Absent from older peers.
        reason: Option<Reason>,
        /// Lost against a crossed propose (J353-13).
        tie_break: bool,
    },
    /// The session is over.
    Finish {
        /// Absent from older peers.
        reason: Option<Reason>,
        /// Sid of the session that took over (J353-14).
        migrated: Option<Sid>,
    },
}

/// What a propose announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Namespace of the description.
    pub ns: String,
    /// `media` of an RTP description.
    pub media: Option<String>,
}

impl Jmi {
    /// True if the element just entered is in a namespace of XEP-0353 (J353-19: `:1` is read too).
    #[must_use]
    pub fn is_next(r: &Reader<'_>) -> bool {
        matches!(r.tag().ns(), ns::JMI | ns::JMI_1)
    }

    /// Reads the element that `r` has just entered. Unknown children are ignored.
    ///
    /// # Errors
    /// [`Malformed`] without an id, for a propose without a description, or for an element XEP-0353 does not have.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        if !Self::is_next(r) {
            return Err(Malformed::Unexpected { element: "message" });
        }
        let name = r.tag().name();
        if !matches!(name, "propose" | "ringing" | "proceed" | "accept" | "reject" | "retract" | "finish") {
            return Err(Malformed::Unexpected { element: "jingle-message" });
        }
        let id = Sid::read(r, "jingle-message", "id")?;
        let (mut proposed, mut reason, mut tie_break, mut migrated) = (Vec::new(), None, false, None);
        r.children(|r| {
            // Complaint 16: the children are recognised in any namespace.
            match r.tag().name() {
                "description" if proposed.len() < wire::CONTENTS => proposed.push(Proposed {
                    ns: r.tag().ns().to_owned(),
                    media: r.attr("media").filter(|m| !m.is_empty()).map(str::to_owned),
                }),
                "reason" => {
                    let found = RawReason::read(r)?.resolve();
                    reason = reason.take().or(found);
                }
                "tie-break" => tie_break = true,
                // J353-14
                "migrated" => migrated = r.attr("to").filter(|to| !to.is_empty()).map(|to| Sid(to.to_owned())),
                _ => {}
            }
            Ok(())
        })?;
        let kind = match name {
            // J353-02
            "propose" if proposed.is_empty() => {
                return Err(Malformed::MissingChild { element: "propose", child: "description" });
            }
            "propose" => JmiKind::Propose(proposed),
            "ringing" => JmiKind::Ringing,
            "proceed" => JmiKind::Proceed,
            "accept" => JmiKind::Accept,
            "reject" => JmiKind::Reject { reason, tie_break },
            "retract" => JmiKind::Retract { reason, tie_break },
            _ => JmiKind::Finish { reason, migrated },
        };
        Ok(Self { id, kind })
    }

    /// Writes the element in the namespace of XEP-0353 0.8.
    pub fn write(&self, w: &mut Writer<'_>) {
        let name = match &self.kind {
            JmiKind::Propose(_) => "propose",
            JmiKind::Ringing => "ringing",
            JmiKind::Proceed => "proceed",
            JmiKind::Accept => "accept",
            JmiKind::Reject { .. } => "reject",
            JmiKind::Retract { .. } => "retract",
            JmiKind::Finish { .. } => "finish",
        };
        w.start_ns(name, ns::JMI).attr("id", &self.id.0);
        match &self.kind {
            JmiKind::Propose(proposed) => {
                for p in proposed {
                    w.start_ns("description", &p.ns).attr_opt("media", p.media.as_deref()).end("description");
                }
            }
            JmiKind::Ringing | JmiKind::Proceed | JmiKind::Accept => {}
            JmiKind::Reject { reason, tie_break } | JmiKind::Retract { reason, tie_break } => {
                write_jmi_reason(reason.as_ref(), w);
                if *tie_break {
                    w.start("tie-break").end("tie-break");
                }
            }
            JmiKind::Finish { reason, migrated } => {
                write_jmi_reason(reason.as_ref(), w);
                if let Some(to) = migrated {
                    w.start("migrated").attr("to", &to.0).end("migrated");
                }
            }
        }
        w.end(name);
    }
}

fn write_jmi_reason(reason: Option<&Reason>, w: &mut Writer<'_>) {
    if let Some(reason) = reason {
        w.start_ns("reason", ns::JINGLE);
        reason.write_rest(w);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::super::candidate::tests::{text, token, transport, unknown_ns};
    use super::super::description::tests::{description, info};
    use super::*;
    use crate::config::XmlLimits;
    use proptest::prelude::*;
    use proptest::{collection::vec, option, sample::select};

    fn sid() -> impl Strategy<Value = Sid> {
        token().prop_map(Sid)
    }

    fn reason() -> impl Strategy<Value = Reason> {
        (
            select(ReasonCondition::ALL),
            sid(),
            option::of(text()),
            option::of((unknown_ns(), "[a-z-]{1,8}".prop_map(|n| format!("d{n}")))),
        )
            .prop_map(|(condition, sid, text, detail)| Reason {
                condition,
                alternative: (condition == ReasonCondition::AlternativeSession).then_some(sid),
                text,
                detail,
            })
    }

    fn content(full: bool) -> impl Strategy<Value = Content> {
        let disposition = prop_oneof![
            4 => Just(Disposition::Session),
            1 => Just(Disposition::EarlySession),
            1 => "x[a-z]{1,6}".prop_map(Disposition::Other),
        ];
        (
            select(Creator::ALL),
            text(),
            option::of(select(Senders::ALL)),
            disposition,
            option::of(description()),
            option::of(transport()),
            option::of(unknown_ns()),
        )
            .prop_map(move |(creator, name, senders, disposition, description, transport, security)| Content {
                creator,
                name,
                senders: if full { senders.or(Some(Senders::Both)) } else { senders },
                disposition: if full { Disposition::Session } else { disposition },
                description: description.or(full.then(|| Description::Unknown { ns: "urn:x".into() })),
                transport: transport.or(full.then(|| Transport::Unknown { ns: "urn:x".into() })),
                security,
            })
    }

    fn jingle() -> impl Strategy<Value = Jingle> {
        select(Action::ALL).prop_flat_map(|action| {
            let free = matches!(
                action,
                Action::DescriptionInfo
                    | Action::SecurityInfo
                    | Action::SessionInfo
                    | Action::SessionTerminate
                    | Action::TransportInfo
            );
            let jid = || option::of(select(vec!["a@b.example/c", "ö@x.example"]).prop_map(|j| j.parse().unwrap()));
            let group = (token(), vec(text(), 0..3)).prop_map(|(semantics, names)| Group {
                semantics: semantics.into(),
                names: names.into_iter().map(Text::from).collect(),
            });
            (
                sid(),
                jid(),
                jid(),
                vec(content(!free), if free { 0..3 } else { 1..4 }),
                vec(group, 0..2),
                option::of(reason()),
                option::of(info()),
            )
                .prop_map(move |(sid, initiator, responder, contents, groups, reason, info)| Jingle {
                    action,
                    sid,
                    initiator: initiator.filter(|_| action == Action::SessionInitiate),
                    responder: responder.filter(|_| action == Action::SessionAccept),
                    contents,
                    groups,
                    reason,
                    info: info.filter(|_| action == Action::SessionInfo),
                })
        })
    }

    fn jmi() -> impl Strategy<Value = Jmi> {
        let proposed = (unknown_ns(), option::of(text())).prop_map(|(ns, media)| Proposed { ns, media });
        let kind = prop_oneof![
            vec(proposed, 1..3).prop_map(JmiKind::Propose),
            Just(JmiKind::Ringing),
            Just(JmiKind::Proceed),
            Just(JmiKind::Accept),
            (option::of(reason()), any::<bool>()).prop_map(|(reason, tie_break)| JmiKind::Reject { reason, tie_break }),
            (option::of(reason()), any::<bool>())
                .prop_map(|(reason, tie_break)| JmiKind::Retract { reason, tie_break }),
            (option::of(reason()), option::of(sid()))
                .prop_map(|(reason, migrated)| JmiKind::Finish { reason, migrated }),
        ];
        (sid(), kind).prop_map(|(id, kind)| Jmi { id, kind })
    }

    fn read(xml: &str) -> Result<Jingle> {
        let mut r = Reader::new(xml, ns::CLIENT, &XmlLimits::default())?;
        let jingle = Jingle::read(&mut r)?;
        r.finish()?;
        Ok(jingle)
    }

    fn read_jmi(xml: &str) -> Result<Jmi> {
        let mut r = Reader::new(xml, ns::CLIENT, &XmlLimits::default())?;
        let jmi = Jmi::read(&mut r)?;
        r.finish()?;
        Ok(jmi)
    }

    fn action(action: &str, inside: &str) -> Result<Jingle> {
        read(&format!("<jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='s'>{inside}</jingle>"))
    }

    const BODY: &str = "<description xmlns='urn:x'/><transport xmlns='urn:y'/>";

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same_jingle(x in jingle()) {
            let mut out = String::new();
            x.write(&mut Writer::new(&mut out));
            prop_assert_eq!(read(&out).unwrap(), x, "{}", out);
        }

        #[test]
        fn what_is_written_reads_as_the_same_jmi(x in jmi()) {
            let mut out = String::new();
            x.write(&mut Writer::new(&mut out));
            prop_assert_eq!(read_jmi(&out).unwrap(), x, "{}", out);
        }
    }

    #[test]
    fn action_and_sid_are_required_and_known_j166_23_j166_31() {
        for bad in [
            "<jingle xmlns='urn:xmpp:jingle:1' sid='s'/>",
            "<jingle xmlns='urn:xmpp:jingle:1' action='session-info'/>",
            "<jingle xmlns='urn:xmpp:jingle:1' action='session-info' sid=''/>",
            "<jingle xmlns='urn:xmpp:jingle:1' action='Session-Info' sid='s'/>",
            "<jingle xmlns='urn:xmpp:jingle:0' action='session-info' sid='s'/>",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(action("session-info", "").unwrap().info, None);
    }

    #[test]
    fn an_offer_lacks_nothing_j166_01_j166_08_j166_44() {
        let name = "creator='initiator' name='a'";
        assert!(action("session-initiate", &format!("<content {name}>{BODY}</content>")).is_ok());
        for bad in [
            String::new(),
            format!("<content {name}/>"),
            format!("<content {name}><description xmlns='urn:x'/></content>"),
            format!("<content {name}><transport xmlns='urn:x'/></content>"),
            format!("<content {name}>{BODY}<transport xmlns='urn:z'/></content>"),
            format!("<content {name}>{BODY}<description xmlns='urn:z'/></content>"),
            format!("<content creator='initiator'>{BODY}</content>"),
            format!("<content {name} disposition='early-session'>{BODY}</content>"),
            format!("<content {name} senders='all'>{BODY}</content>"),
            format!("<content creator='me' name='a'>{BODY}</content>"),
        ] {
            assert!(action("session-initiate", &bad).is_err(), "{bad}");
            // Whether what lacks a description is a file, which needs none, the session knows.
            let told_later = bad.contains("early") || (bad.contains("<transport") && !bad.contains("<description"));
            assert!(action("session-accept", &bad).is_err() || told_later, "{bad}");
        }
    }

    #[test]
    fn a_content_without_creator_is_the_initiators_j166_51() {
        let jingle = action("content-remove", "<content name=''/>").unwrap();
        assert_eq!((jingle.contents[0].creator, jingle.contents[0].name.as_str()), (Creator::Initiator, ""));
        let mut out = String::new();
        jingle.write(&mut Writer::new(&mut out));
        assert!(out.contains("creator='initiator'"), "{out}");
    }

    #[test]
    fn content_modify_carries_senders_j166_35() {
        assert!(action("content-modify", "").is_err());
        assert!(action("content-modify", "<content creator='initiator' name='a'/>").is_ok());
        assert!(action("content-modify", "<content creator='initiator' name='a' senders='none'/>").is_ok());
    }

    #[test]
    fn initiator_and_responder_count_on_their_own_actions_only_j166_25() {
        let xml = |action: &str| {
            format!(
                "<jingle xmlns='urn:xmpp:jingle:1' action='{action}' sid='s' initiator='a@b/c' responder='d@e/f'>\
                 <content creator='initiator' name='a'>{BODY}</content></jingle>"
            )
        };
        let read = |action: &str| {
            let j = read(&xml(action)).unwrap();
            (j.initiator.is_some(), j.responder.is_some())
        };
        assert_eq!(read("session-initiate"), (true, false));
        assert_eq!(read("session-accept"), (false, true));
        assert_eq!(read("transport-info"), (false, false));
    }

    #[test]
    fn a_reason_is_read_in_any_of_the_namespaces_peers_use() {
        for reason in [
            "<reason><busy/></reason>",
            "<reason xmlns=''><busy/></reason>",
            "<reason xmlns='jabber:client'><busy/></reason>",
            "<reason><busy xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></reason>",
        ] {
            let jingle = action("session-terminate", reason).unwrap();
            assert_eq!(jingle.reason, Some(Reason::new(ReasonCondition::Busy)), "{reason}");
        }
    }

    #[test]
    fn a_reason_has_exactly_one_condition_but_a_terminate_always_ends_j166_55() {
        let one = "<content creator='initiator' name='a'/>";
        for (inside, expected) in [
            ("", None),
            ("<text>gone to lunch</text>", Some(ReasonCondition::GeneralError)),
            ("<busy/><gone/>", Some(ReasonCondition::Busy)),
        ] {
            let reason = format!("<reason>{inside}</reason>");
            let terminate = action("session-terminate", &reason).unwrap();
            assert_eq!(terminate.reason.map(|r| r.condition), expected);
            assert!(action("content-remove", &format!("{one}{reason}")).is_err());
        }
        let both =
            action("content-remove", &format!("{one}<reason><media-error/><file-too-large xmlns='urn:f'/></reason>"));
        assert_eq!(both.unwrap().reason.unwrap().detail, Some(("urn:f".into(), "file-too-large".into())));
    }

    #[test]
    fn the_known_payload_of_a_session_info_decides() {
        let two = "<x xmlns='urn:x'/><hold xmlns='urn:xmpp:jingle:apps:rtp:info:1'/><y xmlns='urn:y'/>";
        assert_eq!(action("session-info", two).unwrap().info, Some(Info::Hold));
        let unknown = Info::Unknown { ns: "urn:x".into(), name: "x".into() };
        assert_eq!(action("session-info", "<x xmlns='urn:x'/><y xmlns='urn:y'/>").unwrap().info, Some(unknown));
        assert_eq!(action("transport-info", "<x xmlns='urn:x'/>").unwrap().info, None);
    }

    #[test]
    fn a_file_transfer_3_says_its_direction_by_an_element_j234_02() {
        for (creator, verb, expected) in [
            ("initiator", "offer", Senders::Initiator),
            ("initiator", "request", Senders::Responder),
            ("responder", "offer", Senders::Responder),
            ("responder", "request", Senders::Initiator),
        ] {
            let xml = format!(
                "<content creator='{creator}' name='a'><description xmlns='urn:xmpp:jingle:apps:file-transfer:3'>\
                 <{verb}><file/></{verb}></description></content>"
            );
            assert_eq!(action("content-add", &xml).unwrap().contents[0].senders, Some(expected), "{xml}");
        }
    }

    #[test]
    fn more_contents_than_the_cap_are_refused() {
        let one = "<content creator='initiator' name='a'/>";
        assert!(action("transport-info", &one.repeat(wire::CONTENTS)).is_ok());
        assert!(action("transport-info", &one.repeat(wire::CONTENTS + 1)).is_err());
    }

    #[test]
    fn jmi_of_every_age_is_read_j353_19() {
        let accept = read_jmi("<accept xmlns='urn:xmpp:jingle-message:0' id='a'/>").unwrap();
        assert_eq!(accept.kind, JmiKind::Accept);
        let proceed =
            read_jmi("<proceed xmlns='urn:xmpp:jingle-message:1' id='a'><device xmlns='urn:d'/></proceed>").unwrap();
        assert_eq!(proceed.kind, JmiKind::Proceed);
        // Complaint 16: `migrated` in a wrong namespace.
        let finish = read_jmi(
            "<finish xmlns='urn:xmpp:jingle-message:0' id='a'><reason xmlns='urn:xmpp:jingle:1'><expired/></reason>\
             <migrated xmlns='urn:other' to='b'/></finish>",
        )
        .unwrap();
        let reason = Some(Reason::new(ReasonCondition::Expired));
        assert_eq!(finish.kind, JmiKind::Finish { reason, migrated: Some(Sid("b".into())) });
        for bad in [
            "<propose xmlns='urn:xmpp:jingle-message:0' id='a'/>",
            "<proceed xmlns='urn:xmpp:jingle-message:0'/>",
            "<invite xmlns='urn:xmpp:jingle-message:0' id='a'/>",
            "<proceed xmlns='urn:xmpp:jingle-message:2' id='a'/>",
        ] {
            assert!(read_jmi(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn error_conditions_of_jingle_are_read_and_written() {
        for condition in JingleCondition::ALL {
            let mut out = String::new();
            write_error_condition(*condition, &mut Writer::new(&mut out));
            let r = Reader::new(&out, ns::CLIENT, &XmlLimits::default()).unwrap();
            assert_eq!(read_error_condition(&r), Some(*condition));
        }
    }
}

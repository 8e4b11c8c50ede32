//! What SIP notifications carry: presence (PIDF with RPID), dialogs, waiting messages. Read RFC 3863 §4, RFC 4479 §3,
//! RFC 4480 §3, RFC 4235 §4 and RFC 3842 §5 before touching this file.

use super::ns;
use super::xml::{Reader, Result, Scope, Text, Writer};
use crate::config::XmlLimits;
use crate::fault::{Malformed, names};
use std::fmt::Write as _;

/// Tuples, dialogs and activities of one document that are kept: a person has a handful of each, a busy switchboard's
/// lamp shows some tens of calls.
const PARTS: usize = 64;
/// Bytes of a note that are kept.
const NOTE_BYTES: usize = 1024;

names! {
    /// What a person is doing, RFC 4480 §3.2; those that a telephone can show.
    pub enum Activity {
        Appointment = "appointment", Away = "away", Busy = "busy", Holiday = "holiday", InTransit = "in-transit",
        Lunch = "lunch", Meal = "meal", Meeting = "meeting", OnThePhone = "on-the-phone", Other = "other",
        PermanentAbsence = "permanent-absence", Presentation = "presentation", Sleeping = "sleeping",
        Travel = "travel", Unknown = "unknown", Vacation = "vacation", Working = "working",
    }
}

/// `application/pidf+xml`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Whose: `pres:` or `sip:` URI.
    pub entity: Text,
    /// Ways to reach him.
    pub tuples: Vec<Tuple>,
    /// What he is doing.
    pub activities: Vec<Activity>,
    /// For people.
    pub note: Option<String>,
}

/// One way to reach somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Names it among the others.
    pub id: Text,
    /// `basic`: he can be reached by it. `None`: it does not say.
    pub open: Option<bool>,
    /// Its address.
    pub contact: Option<Text>,
    /// 0 to 1000: `priority` of its address in thousandths.
    pub priority_permille: Option<u16>,
    /// For people.
    pub note: Option<String>,
}

names! {
    /// Of a dialog, RFC 4235 §3.7.1.
    pub enum DialogPhase {
        Trying = "trying", Proceeding = "proceeding", Early = "early", Confirmed = "confirmed", Terminated = "terminated",
    }
}

names! {
    /// Which side of a dialog somebody is, RFC 4235 §4.1.2.
    pub enum DialogDirection { Initiator = "initiator", Recipient = "recipient" }
}

/// `application/dialog-info+xml`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DialogInfo {
    /// Whose.
    pub entity: Text,
    /// Goes up by one with each document of a subscription.
    pub version: u32,
    /// These are all dialogs; else those that changed.
    pub full: bool,
    /// The dialogs.
    pub dialogs: Vec<DialogState>,
}

/// One dialog of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialogState {
    /// Names it among the others.
    pub id: Text,
    /// How far it is.
    pub phase: DialogPhase,
    /// Which side he is.
    pub direction: Option<DialogDirection>,
    /// With both tags: what a Replaces needs (RFC 3891).
    pub call_id: Option<Text>,
    /// His.
    pub local_tag: Option<Text>,
    /// The other side's.
    pub remote_tag: Option<Text>,
    /// His address in it.
    pub local: Option<Text>,
    /// The other side's address.
    pub remote: Option<Text>,
}

/// `application/simple-message-summary`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageSummary {
    /// The lamp.
    pub waiting: bool,
    /// Whose box.
    pub account: Option<String>,
    /// Messages of voice.
    pub voice: Option<MessageCounts>,
}

/// How many messages there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Not heard yet.
    pub new: u32,
    /// Heard.
    pub old: u32,
    /// Of the new ones.
    pub urgent_new: u32,
    /// Of the old ones.
    pub urgent_old: u32,
}

impl Presence {
    /// Media type of it.
    pub const MEDIA: &'static str = "application/pidf+xml";

    /// True if one of the tuples is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.tuples.iter().any(|tuple| tuple.open == Some(true))
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Malformed`]: not PIDF.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let scope = Scope::bare();
        let mut r = Reader::within(document(body)?, &scope, &XmlLimits::default())?;
        if !r.is(ns::PIDF, "presence") {
            return Err(Malformed::BadValue { element: "presence", what: "namespace" });
        }
        let mut all = Self { entity: r.attr("entity").unwrap_or_default().into(), ..Self::default() };
        r.children(|r| {
            if r.is(ns::PIDF, "tuple") && all.tuples.len() < PARTS {
                let tuple = all.tuple(r)?;
                all.tuples.push(tuple);
            } else if r.is(ns::PIDF, "note") {
                all.note = note(r)?;
            } else if r.is(ns::PIDF_DATA_MODEL, "person") {
                r.children(|r| {
                    if r.tag().name() == "activities" {
                        all.activities(r)?;
                    } else if r.is(ns::PIDF_DATA_MODEL, "note") && all.note.is_none() {
                        all.note = note(r)?;
                    }
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        r.finish()?;
        Ok(all)
    }

    fn tuple(&mut self, r: &mut Reader<'_>) -> Result<Tuple> {
        let mut tuple = Tuple { id: r.attr("id").unwrap_or_default().into(), ..Tuple::default() };
        r.children(|r| {
            if r.is(ns::PIDF, "status") {
                r.children(|r| {
                    if r.is(ns::PIDF, "basic") {
                        // RFC 3863 §4.1.4: `open` and `closed`.
                        tuple.open = Some(r.text()?.trim() == "open");
                    } else if r.tag().name() == "activities" {
                        self.activities(r)?;
                    }
                    Ok(())
                })?;
            } else if r.is(ns::PIDF, "contact") {
                tuple.priority_permille = r.attr("priority").and_then(permille);
                tuple.contact = Some(r.text()?.trim().into());
            } else if r.is(ns::PIDF, "note") {
                tuple.note = note(r)?;
            }
            Ok(())
        })?;
        Ok(tuple)
    }

    /// Older drafts of RFC 4480 had them in another namespace and inside `status`: names alone count.
    fn activities(&mut self, r: &mut Reader<'_>) -> Result<()> {
        r.children(|r| {
            if let Some(activity) = Activity::parse(r.tag().name()).filter(|_| self.activities.len() < PARTS) {
                self.activities.push(activity);
            }
            Ok(())
        })
    }

    /// The document.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let mut text = String::from(DECLARATION);
        let mut w = Writer::new(&mut text);
        w.start_ns("presence", ns::PIDF).attr("entity", &self.entity);
        if !self.activities.is_empty() {
            w.attr("xmlns:dm", ns::PIDF_DATA_MODEL).attr("xmlns:rpid", ns::RPID);
        }
        for (number, tuple) in self.tuples.iter().enumerate() {
            w.start("tuple");
            // RFC 3863 §4.1.2: required, and unique.
            match tuple.id.is_empty() {
                true => w.attr("id", &format!("t{number}")),
                false => w.attr("id", &tuple.id),
            };
            w.start("status");
            if let Some(open) = tuple.open {
                w.text_element("basic", if open { "open" } else { "closed" });
            }
            w.end("status");
            if let Some(contact) = &tuple.contact {
                w.start("contact");
                if let Some(permille) = tuple.priority_permille {
                    w.attr("priority", &format!("{}.{:03}", permille / 1000, permille % 1000));
                }
                w.text(contact).end("contact");
            }
            if let Some(note) = &tuple.note {
                w.text_element("note", note);
            }
            w.end("tuple");
        }
        if let Some(note) = &self.note {
            w.text_element("note", note);
        }
        if !self.activities.is_empty() {
            w.start("dm:person").attr("id", "p").start("rpid:activities");
            for activity in &self.activities {
                w.start(prefixed(*activity)).end(prefixed(*activity));
            }
            w.end("rpid:activities").end("dm:person");
        }
        w.end("presence");
        text.into_bytes()
    }
}

impl DialogInfo {
    /// Media type of it.
    pub const MEDIA: &'static str = "application/dialog-info+xml";

    /// Reads a document.
    ///
    /// # Errors
    /// [`Malformed`]: not RFC 4235's.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let scope = Scope::bare();
        let mut r = Reader::within(document(body)?, &scope, &XmlLimits::default())?;
        if !r.is(ns::DIALOG_INFO, "dialog-info") {
            return Err(Malformed::BadValue { element: "dialog-info", what: "namespace" });
        }
        let mut all = Self {
            entity: r.attr("entity").unwrap_or_default().into(),
            version: r.parse("dialog-info", "version")?.unwrap_or_default(),
            full: r.attr("state") != Some("partial"),
            dialogs: Vec::new(),
        };
        r.children(|r| {
            if r.is(ns::DIALOG_INFO, "dialog") && all.dialogs.len() < PARTS {
                all.dialogs.extend(DialogState::read(r)?);
            }
            Ok(())
        })?;
        r.finish()?;
        Ok(all)
    }

    /// The document.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let mut text = String::from(DECLARATION);
        let mut w = Writer::new(&mut text);
        w.start_ns("dialog-info", ns::DIALOG_INFO).attr_number("version", self.version);
        w.attr("state", if self.full { "full" } else { "partial" }).attr("entity", &self.entity);
        for dialog in &self.dialogs {
            w.start("dialog").attr("id", &dialog.id);
            w.attr_opt("call-id", dialog.call_id.as_deref());
            w.attr_opt("local-tag", dialog.local_tag.as_deref()).attr_opt("remote-tag", dialog.remote_tag.as_deref());
            w.attr_opt("direction", dialog.direction.map(DialogDirection::as_str));
            w.text_element("state", dialog.phase.as_str());
            if let Some(local) = &dialog.local {
                w.start("local").text_element("identity", local).end("local");
            }
            if let Some(remote) = &dialog.remote {
                w.start("remote").text_element("identity", remote).end("remote");
            }
            w.end("dialog");
        }
        w.end("dialog-info");
        text.into_bytes()
    }
}

impl DialogState {
    /// `None` for one whose state is missing or unknown.
    fn read(r: &mut Reader<'_>) -> Result<Option<Self>> {
        let own = |r: &Reader<'_>, name: &str| r.attr(name).map(Text::from);
        let mut dialog = Self {
            id: own(r, "id").unwrap_or_default(),
            phase: DialogPhase::Trying,
            direction: r.attr("direction").and_then(DialogDirection::parse),
            call_id: own(r, "call-id"),
            local_tag: own(r, "local-tag"),
            remote_tag: own(r, "remote-tag"),
            local: None,
            remote: None,
        };
        let mut known = false;
        r.children(|r| {
            if r.is(ns::DIALOG_INFO, "state") {
                if let Some(phase) = DialogPhase::parse(r.text()?.trim()) {
                    (dialog.phase, known) = (phase, true);
                }
            } else if r.is(ns::DIALOG_INFO, "local") {
                dialog.local = identity(r)?;
            } else if r.is(ns::DIALOG_INFO, "remote") {
                dialog.remote = identity(r)?;
            }
            Ok(())
        })?;
        Ok(known.then_some(dialog))
    }
}

impl MessageSummary {
    /// Media type of it.
    pub const MEDIA: &'static str = "application/simple-message-summary";

    /// Reads a summary: lines of a header's form, in any case (RFC 3842 §5.2).
    ///
    /// # Errors
    /// [`Malformed`]: without `Messages-Waiting`.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let bad = |what| Malformed::BadValue { element: "message-summary", what };
        let text = std::str::from_utf8(body).map_err(|_| bad("encoding"))?;
        let (mut all, mut told) = (Self::default(), false);
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')).take(PARTS) {
            let (name, value) = (name.trim(), value.trim());
            if name.eq_ignore_ascii_case("Messages-Waiting") {
                (all.waiting, told) = (value.eq_ignore_ascii_case("yes"), true);
            } else if name.eq_ignore_ascii_case("Message-Account") {
                all.account = Some(value.chars().take(NOTE_BYTES).collect());
            } else if name.eq_ignore_ascii_case("Voice-Message") {
                all.voice = MessageCounts::parse(value);
            }
        }
        if told { Ok(all) } else { Err(bad("Messages-Waiting")) }
    }

    /// The summary.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let mut text = format!("Messages-Waiting: {}\r\n", if self.waiting { "yes" } else { "no" });
        if let Some(account) = &self.account {
            let account: String = account.chars().filter(|c| !c.is_control()).collect();
            // Writing to a String cannot fail.
            let _ = write!(text, "Message-Account: {account}\r\n");
        }
        if let Some(MessageCounts { new, old, urgent_new, urgent_old }) = self.voice {
            let _ = write!(text, "Voice-Message: {new}/{old} ({urgent_new}/{urgent_old})\r\n");
        }
        text.into_bytes()
    }
}

impl MessageCounts {
    /// `2/8 (0/2)`, the part in brackets may be missing.
    fn parse(text: &str) -> Option<Self> {
        let pair = |text: &str| {
            let (new, old) = text.split_once('/')?;
            Some((new.trim().parse().ok()?, old.trim().parse().ok()?))
        };
        let (all, urgent) = text.split_once('(').unwrap_or((text, ""));
        let (new, old) = pair(all)?;
        let (urgent_new, urgent_old) = pair(urgent.trim().trim_end_matches(')')).unwrap_or((0, 0));
        Some(Self { new, old, urgent_new, urgent_old })
    }
}

const DECLARATION: &str = "<?xml version='1.0' encoding='UTF-8'?>";

/// The root element: a declaration before it is passed over. Streams have none, so the reader refuses it.
fn document(body: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed::BadValue { element: "body", what: "encoding" })?;
    let text = text.trim_start_matches('\u{FEFF}').trim_start();
    Ok(text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")).map_or(text, |(_, root)| root))
}

fn note(r: &mut Reader<'_>) -> Result<Option<String>> {
    let text: String = r.text()?.trim().chars().take(NOTE_BYTES).collect();
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn identity(r: &mut Reader<'_>) -> Result<Option<Text>> {
    let mut found = None;
    r.children(|r| {
        if r.is(ns::DIALOG_INFO, "identity") {
            found = Some(r.text()?.trim().into());
        }
        Ok(())
    })?;
    Ok(found)
}

/// `0.8` is 800 thousandths (RFC 3863 §4.1.3: up to three digits).
fn permille(text: &str) -> Option<u16> {
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if part.len() > 3 || !digits(whole) || !digits(part) {
        return None;
    }
    let part: u16 = format!("{part:0<3}").parse().ok()?;
    let whole: u16 = whole.parse().ok()?;
    whole.checked_mul(1000)?.checked_add(part).filter(|permille| *permille <= 1000)
}

/// The element of an activity.
fn prefixed(activity: Activity) -> &'static str {
    match activity {
        Activity::Appointment => "rpid:appointment",
        Activity::Away => "rpid:away",
        Activity::Busy => "rpid:busy",
        Activity::Holiday => "rpid:holiday",
        Activity::InTransit => "rpid:in-transit",
        Activity::Lunch => "rpid:lunch",
        Activity::Meal => "rpid:meal",
        Activity::Meeting => "rpid:meeting",
        Activity::OnThePhone => "rpid:on-the-phone",
        Activity::Other => "rpid:other",
        Activity::PermanentAbsence => "rpid:permanent-absence",
        Activity::Presentation => "rpid:presentation",
        Activity::Sleeping => "rpid:sleeping",
        Activity::Travel => "rpid:travel",
        Activity::Unknown => "rpid:unknown",
        Activity::Vacation => "rpid:vacation",
        Activity::Working => "rpid:working",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_presence_of_a_phone_is_read() {
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
            <presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"
                xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" entity="sip:bob@example.com">
              <tuple id="bs35r9"><status><basic>open</basic></status>
                <contact priority="0.8">sip:bob@192.0.2.4</contact><note xml:lang="en">at my desk</note>
                <timestamp>2005-05-30T16:14:29Z</timestamp></tuple>
              <dm:person id="p1"><rpid:activities><rpid:on-the-phone/><rpid:dancing/></rpid:activities></dm:person>
              <note>hello</note>
            </presence>
            "#;
        let presence = Presence::parse(body).unwrap();
        assert!(presence.is_open());
        assert_eq!(presence.entity, "sip:bob@example.com");
        assert_eq!(presence.activities, [Activity::OnThePhone]);
        assert_eq!(presence.tuples[0].priority_permille, Some(800));
        assert_eq!(presence.tuples[0].contact.as_deref(), Some("sip:bob@192.0.2.4"));
        assert_eq!((presence.tuples[0].note.as_deref(), presence.note.as_deref()), (Some("at my desk"), Some("hello")));
    }

    #[test]
    fn the_lamp_of_asterisk_is_read() {
        let body = br#"<?xml version="1.0"?>
<dialog-info xmlns="urn:ietf:params:xml:ns:dialog-info" version="3" state="full" entity="sip:620@10.0.0.1:5060">
 <dialog id="620" call-id="c" local-tag="a" remote-tag="b" direction="recipient"><state>early</state>
  <remote><identity display="x">sip:alice@pbx</identity><target uri="sip:alice@pbx"/></remote></dialog>
 <dialog id="2"><state>odd</state></dialog>
</dialog-info>"#;
        let info = DialogInfo::parse(body).unwrap();
        assert_eq!((info.version, info.full, info.dialogs.len()), (3, true, 1));
        let dialog = &info.dialogs[0];
        assert_eq!((dialog.phase, dialog.direction), (DialogPhase::Early, Some(DialogDirection::Recipient)));
        assert_eq!(dialog.remote.as_deref(), Some("sip:alice@pbx"));
        assert_eq!(DialogInfo::parse(&info.to_body()).unwrap(), info);
    }

    #[test]
    fn the_waiting_messages_of_rfc_3842_are_read() {
        let body = b"Messages-Waiting: yes\r\nMessage-Account: sip:alice@vmail.example.com\r\nVoice-Message: 2/8 (0/2)\r\n\r\n";
        let summary = MessageSummary::parse(body).unwrap();
        let voice = MessageCounts { new: 2, old: 8, urgent_new: 0, urgent_old: 2 };
        assert_eq!(summary.voice, Some(voice));
        assert!(summary.waiting);
        assert_eq!(MessageSummary::parse(&summary.to_body()).unwrap(), summary);
        assert!(!MessageSummary::parse(b"messages-waiting: no\nvoice-message: 0/0").unwrap().waiting);
        assert!(MessageSummary::parse(b"Voice-Message: 2/8").is_err());
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for body in [&b""[..], b"<presence/>", b"\xff", b"<!DOCTYPE x><presence xmlns='urn:ietf:params:xml:ns:pidf'/>"]
        {
            assert!(Presence::parse(body).is_err() && DialogInfo::parse(body).is_err());
        }
    }

    proptest! {
        #[test]
        fn presence_is_read_as_it_was_written(
            entity in "[ -~]{0,30}", open: Option<bool>, contact in proptest::option::of("[!-~]{1,20}"),
            permille in proptest::option::of(0u16..=1000), note in proptest::option::of("\\PC{0,20}[a-z]"), phone: bool,
        ) {
            let note = note.map(|n| n.trim().to_owned());
            let entity: Text = entity.as_str().into();
            let permille = permille.filter(|_| contact.is_some());
            let tuple = Tuple {
                id: "t".into(), open, contact: contact.map(|c| c.as_str().into()), priority_permille: permille,
                note: note.clone(),
            };
            let activities = if phone { vec![Activity::OnThePhone] } else { Vec::new() };
            let presence = Presence { entity, tuples: vec![tuple], activities, note };
            prop_assert_eq!(Presence::parse(&presence.to_body()).unwrap(), presence);
        }

        #[test]
        fn no_body_panics(body: Vec<u8>) {
            let _ = (Presence::parse(&body), DialogInfo::parse(&body), MessageSummary::parse(&body));
        }
    }
}

//! Service discovery (XEP-0030 2.5.0), the data forms inside it (XEP-0004 2.13.2) and entity capabilities
//! (XEP-0115 1.6.0). Read XEP-0115 §5.4 and XEP-0004 §3 before touching this file.

use super::jid::Jid;
use crate::fault::names;

/// `disco#info`: a query when it holds nothing but a node, else an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoInfo {
    /// What is asked about; with caps `node#ver`.
    pub node: Option<String>,
    /// In wire order, duplicates kept: XEP-0115 §5.4 refuses them.
    pub identities: Vec<Identity>,
    /// In wire order, duplicates kept.
    pub features: Vec<String>,
    /// XEP-0128 forms, in wire order.
    pub forms: Vec<DataForm>,
}

/// XEP-0030 identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `client`, `server`, …
    pub category: String,
    /// `pc`, `phone`, …
    pub kind: String,
    /// `xml:lang`
    pub lang: Option<String>,
    /// For people.
    pub name: Option<String>,
}

names! {
    /// XEP-0004 form types.
    pub enum FormType { Cancel = "cancel", Form = "form", Result = "result", Submit = "submit" }
}

/// The subset of an XEP-0004 form that XEP-0115 and XEP-0128 need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataForm {
    /// A form without a known type reads as `form`.
    pub kind: FormType,
    /// In wire order.
    pub fields: Vec<Field>,
}

/// XEP-0004 field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Field {
    /// Absent only with type `fixed`.
    pub var: Option<String>,
    /// `hidden`, `text-single`, …; absent means text-single.
    pub kind: Option<String>,
    /// In wire order.
    pub values: Vec<String>,
}

/// `disco#items`: a query when it holds nothing but a node, else an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiscoItems {
    /// What is asked about.
    pub node: Option<String>,
    /// In wire order.
    pub items: Vec<DiscoItem>,
    /// Items whose JID could not be read.
    pub malformed_items: usize,
}

/// XEP-0030 item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoItem {
    /// Where.
    pub jid: Jid,
    /// Which part of it.
    pub node: Option<String>,
    /// For people.
    pub name: Option<String>,
}

/// `<c/>` of presence and of stream features, XEP-0115.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caps {
    /// Absent: the legacy format of XEP-0115 before 1.4, whose `ver` is no hash.
    pub hash: Option<String>,
    /// URI of the software.
    pub node: String,
    /// The hash, in base64 and not checked here.
    pub ver: String,
}

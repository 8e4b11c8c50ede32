//! Service discovery (XEP-0030 2.5.0), the data forms inside it (XEP-0004 2.13.2) and entity capabilities
//! (XEP-0115 1.6.0). Read XEP-0115 §5.4 and XEP-0004 §3 before touching this file.

use super::jid::Jid;
use super::ns;
use super::xml::{Reader, Result, Writer};
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

impl DiscoInfo {
    /// Reads the `<query/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`](crate::fault::Malformed) for an identity or feature without its attributes.
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut info = Self { node: r.attr("node").map(str::to_owned), ..Self::default() };
        r.children(|r| {
            if r.is(ns::DISCO_INFO, "identity") {
                info.identities.push(Identity {
                    category: r.need("identity", "category")?.to_owned(),
                    kind: r.need("identity", "type")?.to_owned(),
                    lang: r.lang().map(str::to_owned),
                    name: r.attr("name").map(str::to_owned),
                });
            } else if r.is(ns::DISCO_INFO, "feature") {
                info.features.push(r.need("feature", "var")?.to_owned());
            } else if r.is(ns::DATA, "x") {
                info.forms.push(DataForm::read(r)?);
            }
            Ok(())
        })?;
        Ok(info)
    }

    /// Writes the `<query/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("query", ns::DISCO_INFO).attr_opt("node", self.node.as_deref());
        for identity in &self.identities {
            w.start("identity").attr("category", &identity.category).attr("type", &identity.kind);
            w.attr_opt("xml:lang", identity.lang.as_deref()).attr_opt("name", identity.name.as_deref()).end("identity");
        }
        for feature in &self.features {
            w.start("feature").attr("var", feature).end("feature");
        }
        for form in &self.forms {
            form.write(w);
        }
        w.end("query");
    }
}

impl DataForm {
    /// Reads the `<x/>` that `r` has just entered. Nothing of it is required.
    ///
    /// # Errors
    /// [`Malformed::Xml`](crate::fault::Malformed::Xml).
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let kind = r.attr("type").and_then(FormType::parse).unwrap_or(FormType::Form);
        let mut fields = Vec::new();
        r.children(|r| {
            if r.is(ns::DATA, "field") {
                let mut field = Field {
                    var: r.attr("var").map(str::to_owned),
                    kind: r.attr("type").map(str::to_owned),
                    values: Vec::new(),
                };
                r.children(|r| {
                    if r.is(ns::DATA, "value") {
                        field.values.push(r.text()?.into_owned());
                    }
                    Ok(())
                })?;
                fields.push(field);
            }
            Ok(())
        })?;
        Ok(Self { kind, fields })
    }

    /// Writes the `<x/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("x", ns::DATA).attr("type", self.kind.as_str());
        for field in &self.fields {
            w.start("field").attr_opt("var", field.var.as_deref()).attr_opt("type", field.kind.as_deref());
            for value in &field.values {
                w.text_element("value", value);
            }
            w.end("field");
        }
        w.end("x");
    }
}

impl DiscoItems {
    /// Reads the `<query/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed::Xml`](crate::fault::Malformed::Xml).
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut items = Self { node: r.attr("node").map(str::to_owned), ..Self::default() };
        r.children(|r| {
            if r.is(ns::DISCO_ITEMS, "item") {
                match r.attr("jid").and_then(|j| j.parse().ok()) {
                    Some(jid) => items.items.push(DiscoItem {
                        jid,
                        node: r.attr("node").map(str::to_owned),
                        name: r.attr("name").map(str::to_owned),
                    }),
                    None => items.malformed_items += 1,
                }
            }
            Ok(())
        })?;
        Ok(items)
    }

    /// Writes the `<query/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("query", ns::DISCO_ITEMS).attr_opt("node", self.node.as_deref());
        for item in &self.items {
            w.start("item").attr("jid", item.jid.as_str());
            w.attr_opt("node", item.node.as_deref()).attr_opt("name", item.name.as_deref()).end("item");
        }
        w.end("query");
    }
}

impl Caps {
    /// Reads the `<c/>` that `r` has just entered. Its `ext` (before 1.4) is ignored.
    ///
    /// # Errors
    /// [`Malformed`](crate::fault::Malformed) without node or ver.
    pub fn read(r: &Reader<'_>) -> Result<Self> {
        Ok(Self {
            hash: r.attr("hash").map(str::to_owned),
            node: r.need("c", "node")?.to_owned(),
            ver: r.need("c", "ver")?.to_owned(),
        })
    }

    /// Writes the `<c/>` with its namespace.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start_ns("c", ns::CAPS).attr_opt("hash", self.hash.as_deref());
        w.attr("node", &self.node).attr("ver", &self.ver).end("c");
    }
}

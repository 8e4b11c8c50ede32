//! What we can do and what others can: service discovery and entity capabilities. Read XEP-0030 §3 and XEP-0115 §5 before
//! touching this file.

use crate::fault::StanzaCondition;
use crate::wire::disco::{Caps, DataForm, DiscoInfo, DiscoItems, Identity};
use crate::wire::jid::Jid;
use crate::wire::ns;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::Digest as _;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Something the endpoint does, with the features that announce it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    /// XEP-0166
    Jingle,
    /// XEP-0167 with audio
    RtpAudio,
    /// XEP-0167 with video
    RtpVideo,
    /// XEP-0176
    IceUdp,
    /// XEP-0320
    Dtls,
    /// XEP-0293
    RtcpFeedback,
    /// XEP-0294
    HeaderExtensions,
    /// XEP-0339
    SourceAttributes,
    /// XEP-0338
    Grouping,
    /// XEP-0353
    Invite,
    /// XEP-0199
    Ping,
    /// XEP-0280
    Carbons,
    /// XEP-0234, XEP-0300
    Files,
    /// XEP-0260, XEP-0261, XEP-0343
    Streams,
}

impl Module {
    /// The features it announces.
    #[must_use]
    pub const fn features(self) -> &'static [&'static str] {
        match self {
            Module::Jingle => &[ns::JINGLE],
            Module::RtpAudio => &[ns::RTP, ns::RTP_AUDIO],
            Module::RtpVideo => &[ns::RTP, ns::RTP_VIDEO],
            Module::IceUdp => &[ns::ICE_UDP],
            Module::Dtls => &[ns::DTLS],
            Module::RtcpFeedback => &[ns::RTP_RTCP_FB],
            Module::HeaderExtensions => &[ns::RTP_HDREXT],
            Module::SourceAttributes => &[ns::RTP_SSMA],
            Module::Grouping => &[ns::GROUPING, ns::GROUPING_FEATURE],
            Module::Invite => &[ns::JMI],
            Module::Ping => &[ns::PING],
            Module::Carbons => &[ns::CARBONS],
            Module::Files => &[ns::FILE, ns::HASHES],
            Module::Streams => &[ns::S5B, ns::BYTESTREAMS, ns::IBB_TRANSPORT, ns::IBB, ns::SCTP_MAP],
        }
    }
}

/// Our own capabilities: fixed while the endpoint lives.
#[derive(Debug, Clone)]
pub struct OwnCaps {
    node: String,
    ver: String,
    info: DiscoInfo,
}

impl OwnCaps {
    /// `node` is a URI of the software, `name` its name for people.
    #[must_use]
    pub fn new(node: impl Into<String>, identity: Identity, modules: &[Module]) -> Self {
        let base = [ns::DISCO_INFO, ns::DISCO_ITEMS, ns::CAPS];
        let all: BTreeSet<&str> =
            base.into_iter().chain(modules.iter().flat_map(|m| m.features().iter().copied())).collect();
        let features = all.into_iter().map(str::to_owned).collect();
        let info = DiscoInfo { node: None, identities: vec![identity], features, forms: Vec::new() };
        // Features of a set do not repeat, so there is a string.
        let ver = ver(&info, Hash::Sha1).unwrap_or_default();
        Self { node: node.into(), ver, info }
    }

    /// The element for our presence.
    #[must_use]
    pub fn element(&self) -> Caps {
        Caps { hash: Some(Hash::Sha1.name().to_owned()), node: self.node.clone(), ver: self.ver.clone() }
    }

    /// Answers `disco#info` for us or for `node#ver`.
    ///
    /// # Errors
    /// `item-not-found` for another node (XEP-0030 §3.1).
    pub fn info(&self, query: &DiscoInfo) -> Result<DiscoInfo, StanzaCondition> {
        let right = query
            .node
            .as_deref()
            .is_none_or(|node| node.strip_prefix(&self.node).and_then(|n| n.strip_prefix('#')) == Some(&self.ver));
        // XEP-0030 §3.2: the answer repeats the node.
        if right {
            Ok(DiscoInfo { node: query.node.clone(), ..self.info.clone() })
        } else {
            Err(StanzaCondition::ItemNotFound)
        }
    }

    /// Answers `disco#items`: there are none.
    ///
    /// # Errors
    /// `item-not-found` for a node.
    pub fn items(&self, query: &DiscoItems) -> Result<DiscoItems, StanzaCondition> {
        if query.node.is_none() { Ok(DiscoItems::default()) } else { Err(StanzaCondition::ItemNotFound) }
    }
}

/// Hash functions of XEP-0115 §5.1 that are checked here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hash {
    /// `sha-1`, which everybody has.
    Sha1,
    /// `sha-256`
    Sha256,
}

impl Hash {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Hash::Sha1 => "sha-1",
            Hash::Sha256 => "sha-256",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Hash::Sha1, Hash::Sha256].into_iter().find(|h| h.name() == name)
    }
}

/// The verification string of an answer, XEP-0115 §5.1. `None` if the answer is ill-formed (§5.4): the same identity, feature or
/// form twice, or a form of two types.
#[must_use]
pub fn ver(info: &DiscoInfo, hash: Hash) -> Option<String> {
    let mut s = String::new();
    let mut identities: Vec<_> = info
        .identities
        .iter()
        .map(|i| {
            let (lang, name) = (i.lang.as_deref().unwrap_or(""), i.name.as_deref().unwrap_or(""));
            (i.category.as_str(), i.kind.as_str(), lang, name)
        })
        .collect();
    identities.sort_unstable();
    let twice = identities.windows(2).any(|w| matches!(w, [a, b] if a == b));
    for (category, kind, lang, name) in &identities {
        push(&mut s, &[category, "/", kind, "/", lang, "/", name]);
    }
    let mut features: Vec<&str> = info.features.iter().map(String::as_str).collect();
    features.sort_unstable();
    let twice = twice || features.windows(2).any(|w| matches!(w, [a, b] if a == b));
    for feature in features {
        push(&mut s, &[feature]);
    }
    let mut forms = BTreeMap::new();
    for form in &info.forms {
        // §5.4 3.6: a form without FORM_TYPE, or with one that is not hidden, is left out.
        if let Some(kind) = form_type(form)?
            && forms.insert(kind, form).is_some()
        {
            return None;
        }
    }
    if twice {
        return None;
    }
    for (kind, form) in forms {
        push(&mut s, &[kind]);
        let mut fields: Vec<_> = form.fields.iter().filter(|f| f.var.as_deref() != Some("FORM_TYPE")).collect();
        fields.sort_by_key(|f| f.var.as_deref().unwrap_or(""));
        for field in fields {
            push(&mut s, &[field.var.as_deref().unwrap_or("")]);
            let mut values: Vec<&str> = field.values.iter().map(String::as_str).collect();
            values.sort_unstable();
            for value in values {
                push(&mut s, &[value]);
            }
        }
    }
    Some(match hash {
        Hash::Sha1 => BASE64.encode(sha1::Sha1::digest(s.as_bytes())),
        Hash::Sha256 => BASE64.encode(sha2::Sha256::digest(s.as_bytes())),
    })
}

fn push(s: &mut String, parts: &[&str]) {
    parts.iter().for_each(|p| s.push_str(p));
    s.push('<');
}

/// Outer `None`: ill-formed. Inner `None`: no type.
fn form_type(form: &DataForm) -> Option<Option<&str>> {
    let Some(field) = form.fields.iter().find(|f| f.var.as_deref() == Some("FORM_TYPE")) else { return Some(None) };
    let first = field.values.first().map(String::as_str);
    if field.values.iter().any(|v| Some(v.as_str()) != first) {
        return None;
    }
    Some(first.filter(|_| field.kind.as_deref() == Some("hidden")))
}

/// What somebody can do.
pub type Features = Arc<BTreeSet<String>>;

/// A `disco#info` request to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whom.
    pub to: Jid,
    /// With which node.
    pub node: Option<String>,
}

/// Capabilities of others. What a hash proves holds for everybody who shows that hash; what no hash proves holds only for who said
/// it (XEP-0115 §5.4, §8: otherwise anybody could poison the cache).
#[derive(Debug)]
pub struct CapsCache {
    limit: usize,
    verified: BTreeMap<(Hash, String), Features>,
    /// In the order they came, so that the oldest goes first.
    verified_order: VecDeque<(Hash, String)>,
    unverified: BTreeMap<Jid, Features>,
    unverified_order: VecDeque<Jid>,
    asking: BTreeMap<Jid, Option<Caps>>,
}

/// The hash and value, if `caps` can be verified at all.
fn key(caps: &Caps) -> Option<(Hash, String)> {
    Some((Hash::parse(caps.hash.as_deref()?)?, caps.ver.clone()))
}

impl CapsCache {
    /// Keeps at most `limit` verified answers, as many unverified ones, and as many requests under way.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            verified: BTreeMap::new(),
            verified_order: VecDeque::new(),
            unverified: BTreeMap::new(),
            unverified_order: VecDeque::new(),
            asking: BTreeMap::new(),
        }
    }

    /// What `jid`, which shows `caps` in its presence, can do, if that is known.
    #[must_use]
    pub fn features(&self, jid: &Jid, caps: Option<&Caps>) -> Option<&Features> {
        caps.and_then(key).and_then(|k| self.verified.get(&k)).or_else(|| self.unverified.get(jid))
    }

    /// Whether `jid` has a feature; `None` if not known.
    #[must_use]
    pub fn supports(&self, jid: &Jid, caps: Option<&Caps>, feature: &str) -> Option<bool> {
        self.features(jid, caps).map(|f| f.contains(feature))
    }

    /// What to ask, so that the features of `jid` become known. `None`: they are known, or somebody was asked already who
    /// shows the same hash.
    pub fn need(&mut self, jid: &Jid, caps: Option<&Caps>) -> Option<Ask> {
        let same = |asked: &Option<Caps>| asked.is_some() && asked.as_ref().and_then(key) == caps.and_then(key);
        let asked = self.asking.contains_key(jid) || (caps.and_then(key).is_some() && self.asking.values().any(same));
        if asked || self.features(jid, caps).is_some() || self.asking.len() >= self.limit {
            return None;
        }
        self.asking.insert(jid.clone(), caps.cloned());
        // XEP-0115 §5.2; without a hash the node of the legacy format names nothing to ask for.
        let node = caps.filter(|c| c.hash.is_some()).map(|c| format!("{}#{}", c.node, c.ver));
        Some(Ask { to: jid.clone(), node })
    }

    /// Takes the answer to [`Self::need`]. True if its hash is proved, or if none was claimed.
    pub fn learned(&mut self, jid: &Jid, info: &DiscoInfo) -> bool {
        let Some(caps) = self.asking.remove(jid) else { return false };
        let features: Features = Arc::new(info.features.iter().cloned().collect());
        match caps.as_ref().and_then(key) {
            Some(key) if ver(info, key.0).as_deref() == Some(key.1.as_str()) => {
                if self.verified.insert(key.clone(), features).is_none() {
                    self.verified_order.push_back(key);
                    if self.verified_order.len() > self.limit
                        && let Some(oldest) = self.verified_order.pop_front()
                    {
                        self.verified.remove(&oldest);
                    }
                }
                true
            }
            // XEP-0115 §5.4: not for the cache; but it is what this one says of itself.
            claimed => {
                if self.unverified.insert(jid.clone(), features).is_none() {
                    self.unverified_order.push_back(jid.clone());
                    if self.unverified_order.len() > self.limit
                        && let Some(oldest) = self.unverified_order.pop_front()
                    {
                        self.unverified.remove(&oldest);
                    }
                }
                claimed.is_none()
            }
        }
    }

    /// The request to `jid` failed: somebody else may be asked.
    pub fn failed(&mut self, jid: &Jid) {
        self.asking.remove(jid);
    }

    /// `jid` is gone, or shows other capabilities: what no hash proved is to be asked again.
    pub fn forget(&mut self, jid: &Jid) {
        self.asking.remove(jid);
        if self.unverified.remove(jid).is_some() {
            self.unverified_order.retain(|j| j != jid);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::disallowed_methods,
        clippy::wildcard_enum_match_arm
    )]
    use super::*;
    use crate::wire::disco::{Field, FormType};
    use proptest::prelude::*;

    fn identity(category: &str, kind: &str, lang: Option<&str>, name: &str) -> Identity {
        Identity {
            category: category.into(),
            kind: kind.into(),
            lang: lang.map(str::to_owned),
            name: Some(name.into()),
        }
    }

    fn field(var: &str, kind: Option<&str>, values: &[&str]) -> Field {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        Field { var: Some(var.into()), kind: kind.map(str::to_owned), values }
    }

    fn muc() -> Vec<String> {
        [ns::DISCO_INFO, ns::DISCO_ITEMS, "http://jabber.org/protocol/muc", ns::CAPS].map(str::to_owned).to_vec()
    }

    fn simple() -> DiscoInfo {
        DiscoInfo {
            identities: vec![identity("client", "pc", None, "Exodus 0.9.1")],
            features: muc(),
            ..DiscoInfo::default()
        }
    }

    fn complex() -> DiscoInfo {
        let form = DataForm {
            kind: FormType::Result,
            fields: vec![
                field("FORM_TYPE", Some("hidden"), &["urn:xmpp:dataforms:softwareinfo"]),
                field("os_version", None, &["10.5.1"]),
                field("ip_version", Some("text-multi"), &["ipv6", "ipv4"]),
                field("os", None, &["Mac"]),
                field("software", None, &["Psi"]),
                field("software_version", None, &["0.11"]),
            ],
        };
        let identities = vec![
            identity("client", "pc", Some("en"), "Psi 0.11"),
            identity("client", "pc", Some("el"), "\u{3a8} 0.11"),
        ];
        DiscoInfo { identities, features: muc(), forms: vec![form], ..DiscoInfo::default() }
    }

    fn caps(ver: &str) -> Caps {
        Caps { hash: Some("sha-1".into()), node: "http://x".into(), ver: ver.into() }
    }

    fn jid(text: &str) -> Jid {
        Jid::new(text).unwrap()
    }

    #[test]
    fn the_vectors_of_xep_0115_come_out() {
        assert_eq!(ver(&simple(), Hash::Sha1).unwrap(), "QgayPKawpkPSDYmwT/WM94uAlu0=");
        assert_eq!(ver(&complex(), Hash::Sha1).unwrap(), "q07IKJEyjvHSyhy//CH0CxmKi8w=");
    }

    #[test]
    fn ill_formed_answers_have_no_hash() {
        let mut twice = simple();
        twice.features.push(ns::CAPS.into());
        assert_eq!(ver(&twice, Hash::Sha1), None);
        let mut twice = simple();
        twice.identities.push(twice.identities[0].clone());
        assert_eq!(ver(&twice, Hash::Sha1), None);
        let mut twice = complex();
        twice.forms.push(twice.forms[0].clone());
        assert_eq!(ver(&twice, Hash::Sha1), None);
        let mut two_types = complex();
        two_types.forms[0].fields[0].values.push("urn:other".into());
        assert_eq!(ver(&two_types, Hash::Sha1), None);
        let mut visible = simple();
        visible.forms = complex().forms;
        visible.forms[0].fields[0].kind = None;
        assert_eq!(ver(&visible, Hash::Sha1), ver(&simple(), Hash::Sha1), "a form without hidden type is left out");
    }

    #[test]
    fn our_answer_proves_our_hash_and_other_nodes_do_not_exist() {
        let modules =
            [Module::Jingle, Module::RtpAudio, Module::IceUdp, Module::Dtls, Module::Grouping, Module::RtpVideo];
        let own = OwnCaps::new("https://example.org/x", identity("client", "phone", None, "offhook"), &modules);
        let caps = own.element();
        let node = Some(format!("{}#{}", caps.node, caps.ver));
        let query = DiscoInfo { node: node.clone(), ..DiscoInfo::default() };
        let info = own.info(&query).unwrap();
        assert_eq!(info.node, node);
        assert_eq!(ver(&info, Hash::Sha1), Some(caps.ver));
        assert_eq!(info.features.iter().filter(|f| *f == ns::RTP).count(), 1);
        assert_eq!(own.info(&DiscoInfo::default()).unwrap().features, info.features);
        let other = DiscoInfo { node: Some("https://example.org/x#old".into()), ..DiscoInfo::default() };
        assert_eq!(own.info(&other), Err(StanzaCondition::ItemNotFound));
        assert!(own.items(&DiscoItems::default()).unwrap().items.is_empty());
    }

    #[test]
    fn a_proved_hash_holds_for_everybody_and_is_asked_once() {
        let mut cache = CapsCache::new(10);
        let c = caps("QgayPKawpkPSDYmwT/WM94uAlu0=");
        let (a, b) = (jid("a@x/1"), jid("b@x/1"));
        let ask = cache.need(&a, Some(&c)).unwrap();
        assert_eq!(ask.node.unwrap(), "http://x#QgayPKawpkPSDYmwT/WM94uAlu0=");
        assert_eq!(cache.need(&b, Some(&c)), None, "a was asked already");
        assert!(cache.learned(&a, &simple()));
        assert_eq!(cache.supports(&b, Some(&c), ns::CAPS), Some(true));
        assert_eq!(cache.supports(&b, Some(&c), ns::JINGLE), Some(false));
        assert_eq!(cache.supports(&b, Some(&caps("other")), ns::CAPS), None);
        assert!(!cache.learned(&b, &simple()), "nobody asked b");
    }

    #[test]
    fn a_wrong_or_missing_hash_holds_only_for_who_said_it() {
        let mut cache = CapsCache::new(10);
        let c = caps("AAAA");
        let (a, b) = (jid("a@x/1"), jid("b@x/1"));
        cache.need(&a, Some(&c)).unwrap();
        assert!(!cache.learned(&a, &simple()));
        assert_eq!(cache.supports(&a, Some(&c), ns::CAPS), Some(true));
        assert_eq!(cache.supports(&b, Some(&c), ns::CAPS), None);
        assert!(cache.need(&b, Some(&c)).is_some());
        for legacy in
            [Some(Caps { hash: None, ..c.clone() }), Some(Caps { hash: Some("md5".into()), ..c.clone() }), None]
        {
            let other = jid("c@x/1");
            cache.need(&other, legacy.as_ref()).unwrap();
            assert!(cache.learned(&other, &simple()));
            cache.forget(&other);
            assert_eq!(cache.supports(&other, legacy.as_ref(), ns::CAPS), None);
        }
    }

    #[test]
    fn the_cache_is_bounded_and_the_oldest_goes_first() {
        let mut cache = CapsCache::new(3);
        for n in 0..10 {
            let mut info = simple();
            info.features.push(format!("urn:{n}"));
            let c = caps(&ver(&info, Hash::Sha1).unwrap());
            let who = jid(&format!("a@x/{n}"));
            cache.need(&who, Some(&c)).unwrap();
            assert!(cache.learned(&who, &info));
            let who = jid(&format!("b@x/{n}"));
            cache.need(&who, None).unwrap();
            cache.learned(&who, &info);
            assert_eq!(cache.supports(&who, None, ns::CAPS), Some(true));
        }
        assert_eq!((cache.verified.len(), cache.unverified.len(), cache.asking.len()), (3, 3, 0));
        let asked = (0..10).filter(|n| cache.need(&jid(&format!("c@x/{n}")), None).is_some()).count();
        assert_eq!(asked, 3);
    }

    proptest! {
        #[test]
        fn the_order_on_the_wire_does_not_matter(rotation in 0usize..5) {
            let mut info = complex();
            info.features.rotate_left(rotation % 4);
            info.identities.rotate_left(rotation % 2);
            info.forms[0].fields.rotate_left(rotation);
            prop_assert_eq!(ver(&info, Hash::Sha1), ver(&complex(), Hash::Sha1));
        }
    }
}

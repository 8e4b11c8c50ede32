//! Addresses of SIP and telephones. Read RFC 3261 §19.1 and RFC 3966 §3 before touching this file.

use super::is_token;
use super::write::push_uri;
use crate::config::sip_wire;
use compact_str::CompactString;
use std::net::IpAddr;
use std::str::FromStr;

/// Parameters in order, names lower-cased, values unescaped and unquoted; `None`: a name without a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(CompactString, Option<CompactString>)>);

impl Params {
    /// The value of a parameter; `Some("")` for one without a value.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_deref().unwrap_or_default())
    }

    /// True if it stands there, with or without a value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Sets or replaces one. Line ends in the value become spaces. A name that is no token is not written where the
    /// parameter is a header's.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(|text| match text.contains(['\r', '\n']) {
            true => CompactString::from(text.replace(['\r', '\n'], " ")),
            false => CompactString::from(text),
        });
        match self.0.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name.to_ascii_lowercase().into(), value)),
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more as it was read; `None` past the cap.
    pub(super) fn push(&mut self, name: &str, value: Option<CompactString>) -> Option<()> {
        if self.0.len() >= sip_wire::PARAMS {
            return None;
        }
        let mut name = CompactString::from(name);
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            name.make_ascii_lowercase();
        }
        self.0.push((name, value));
        Some(())
    }
}

/// A host name: letters, digits, `-`, `_` and dots, lower-cased. Internationalized names stand in their ASCII form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(CompactString);

impl std::ops::Deref for HostName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name, lower-cased, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// To be looked up.
    Name(HostName),
    /// As it is; IPv6 is written in brackets.
    Ip(IpAddr),
}

impl Host {
    /// A name, an IPv4 address, or an IPv6 address with or without brackets. `None` for anything else.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return Some(Self::Ip(IpAddr::V6(inner.strip_suffix(']')?.parse().ok()?)));
        }
        let (mut upper, mut colon) = (false, false);
        for b in text.bytes() {
            match b {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {}
                b'A'..=b'Z' => upper = true,
                b':' => colon = true,
                _ => return None,
            }
        }
        // RFC 3261 §25.1: the last label of a name begins with a letter; only addresses end in a digit, mostly.
        if (colon || text.as_bytes().last()?.is_ascii_digit())
            && let Ok(ip) = text.parse()
        {
            return Some(Self::Ip(ip));
        }
        if colon || text.len() > 255 || text.starts_with('.') {
            return None;
        }
        let mut name = CompactString::from(text);
        if upper {
            name.make_ascii_lowercase();
        }
        Some(Self::Name(HostName(name)))
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// `sip:` or `sips:`. Equality is of the values; [`Uri::equivalent`] is RFC 3261 §19.1.4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipUri {
    /// `sips:`
    pub secure: bool,
    /// Unescaped. Not empty where there is one.
    pub user: Option<CompactString>,
    /// Unescaped. Addresses of ours have none (RFC 3261 §19.1.1).
    pub password: Option<CompactString>,
    /// Where.
    pub host: Host,
    /// Default by transport.
    pub port: Option<u16>,
    /// `transport`, `lr`, `maddr`, `ob`, …
    pub params: Params,
    /// After `?`, unescaped: headers that a request to it carries.
    pub headers: Vec<(CompactString, CompactString)>,
}

impl SipUri {
    /// `sip:user@host`.
    #[must_use]
    pub fn new(user: Option<&str>, host: Host) -> Self {
        let user = user.filter(|u| !u.is_empty()).map(CompactString::from);
        Self { secure: false, user, password: None, host, port: None, params: Params::default(), headers: Vec::new() }
    }
}

/// `tel:`, RFC 3966.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelUri {
    number: CompactString,
    /// `phone-context`, `ext`, …
    pub params: Params,
}

impl TelUri {
    /// A number: digits, `A` to `F`, `*`, `#`, visual separators, a leading `+` where it is global.
    #[must_use]
    pub fn new(number: &str) -> Option<Self> {
        let digits = number.strip_prefix('+').unwrap_or(number);
        let digit = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#');
        let fine =
            digits.bytes().any(digit) && digits.bytes().all(|b| digit(b) || matches!(b, b'-' | b'.' | b'(' | b')'));
        fine.then(|| Self { number: number.into(), params: Params::default() })
    }

    /// As written: with separators, and `+` where it is global.
    #[must_use]
    pub fn number(&self) -> &str {
        &self.number
    }

    /// Without separators: what is dialled.
    #[must_use]
    pub fn digits(&self) -> CompactString {
        self.number.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).collect()
    }
}

/// An address of another scheme, as it stands: visible characters without `<`, `>` and `"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OtherUri(CompactString);

impl OtherUri {
    /// `scheme:anything`; `None` for what cannot stand in a message.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        let known = ["sip", "sips", "tel"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
        let fine = !known
            && scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            && !rest.is_empty()
            && rest.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"'));
        fine.then(|| Self(text.into()))
    }

    /// The whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Any address that may stand in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    /// `sip:` and `sips:`
    Sip(Box<SipUri>),
    /// `tel:`
    Tel(Box<TelUri>),
    /// Another scheme, whole.
    Other(OtherUri),
}

/// Text that is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address")]
pub struct BadUri;

impl Uri {
    /// The address of a `sip:` or `sips:` URI.
    #[must_use]
    pub fn as_sip(&self) -> Option<&SipUri> {
        match self {
            Self::Sip(uri) => Some(uri),
            Self::Tel(_) | Self::Other(_) => None,
        }
    }

    /// The host of a `sip:` or `sips:` URI.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.as_sip().map(|uri| &uri.host)
    }

    /// The user of a `sip:` or `sips:` URI, unescaped, or the number of a `tel:` one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Sip(uri) => uri.user.as_deref(),
            Self::Tel(uri) => Some(uri.number()),
            Self::Other(_) => None,
        }
    }

    /// Equal as RFC 3261 §19.1.4 and RFC 3966 §4 define it. Not transitive: parameters that one side lacks mostly do not
    /// count.
    #[must_use]
    pub fn equivalent(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sip(a), Self::Sip(b)) => equivalent_sip(a, b),
            (Self::Tel(a), Self::Tel(b)) => {
                let same = |x: &TelUri, y: &TelUri| {
                    x.params.iter().all(|(n, v)| y.params.has(n) && fold(v) == fold(y.params.find(n)))
                };
                a.digits().eq_ignore_ascii_case(&b.digits()) && same(a, b) && same(b, a)
            }
            (Self::Other(a), Self::Other(b)) => a == b,
            (Self::Sip(_) | Self::Tel(_) | Self::Other(_), _) => false,
        }
    }
}

fn fold(text: Option<&str>) -> String {
    text.unwrap_or_default().to_ascii_lowercase()
}

fn equivalent_sip(a: &SipUri, b: &SipUri) -> bool {
    // RFC 3261 §19.1.4: one in only one of them never matches. Its examples count `transport` among these.
    const BOTH: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];
    let params = |x: &SipUri, y: &SipUri| {
        x.params.iter().all(|(name, value)| match y.params.has(name) {
            true => fold(value) == fold(y.params.find(name)),
            false => !BOTH.contains(&name),
        })
    };
    let headers = |x: &SipUri, y: &SipUri| {
        x.headers.iter().all(|(n, v)| y.headers.iter().any(|(m, w)| n.eq_ignore_ascii_case(m) && v == w))
    };
    a.secure == b.secure
        && a.user == b.user
        && a.password == b.password
        && a.host == b.host
        && a.port == b.port
        && params(a, b)
        && params(b, a)
        && a.headers.len() == b.headers.len()
        && headers(a, b)
        && headers(b, a)
}

impl FromStr for Uri {
    type Err = BadUri;

    fn from_str(text: &str) -> Result<Self, BadUri> {
        let (scheme, rest) = cut(text, b':').ok_or(BadUri)?;
        let uri = if scheme.eq_ignore_ascii_case("sip") {
            read_sip(false, rest).map(|uri| Self::Sip(Box::new(uri)))
        } else if scheme.eq_ignore_ascii_case("sips") {
            read_sip(true, rest).map(|uri| Self::Sip(Box::new(uri)))
        } else if scheme.eq_ignore_ascii_case("tel") {
            read_tel(rest).map(|uri| Self::Tel(Box::new(uri)))
        } else {
            OtherUri::new(text).map(Self::Other)
        };
        uri.ok_or(BadUri)
    }
}

impl std::fmt::Display for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = Vec::with_capacity(64);
        push_uri(&mut text, self);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl From<SipUri> for Uri {
    fn from(uri: SipUri) -> Self {
        Self::Sip(Box::new(uri))
    }
}

/// What stands before and behind an ASCII byte. Faster on texts as short as these than a search made for long ones.
fn cut(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = text.bytes().position(|b| b == byte)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// What stands between separators, its escapes undone. `None` for white space, control characters, what would end the
/// address in a message, a `%` that escapes nothing, and escapes that are not UTF-8.
fn unescape(text: &str) -> Option<CompactString> {
    let mut escapes = false;
    for b in text.bytes() {
        match b {
            b'%' => escapes = true,
            0..=b' ' | b'<' | b'>' | b'"' | 0x7f => return None,
            _ => {}
        }
    }
    if !escapes {
        return Some(text.into());
    }
    let (plain, mut rest) = cut(text, b'%')?;
    let mut bytes = plain.as_bytes().to_vec();
    loop {
        let hex = rest.get(..2).filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        rest = rest.get(2..)?;
        match cut(rest, b'%') {
            Some((plain, more)) => {
                bytes.extend_from_slice(plain.as_bytes());
                rest = more;
            }
            None => {
                bytes.extend_from_slice(rest.as_bytes());
                return CompactString::from_utf8(bytes).ok();
            }
        }
    }
}

fn read_port(text: &str) -> Option<u16> {
    // `parse` would take a sign.
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Host and port at the beginning of `text`, and what follows.
fn read_host(text: &str) -> Option<(Host, Option<u16>, &str)> {
    let end = match text.starts_with('[') {
        true => text.find(']')? + 1,
        false => text.bytes().position(|b| matches!(b, b':' | b';' | b'?')).unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at_checked(end)?;
    // An IPv6 address has its brackets (RFC 5118 §4.2); `Host::new` is laxer.
    let host = Host::new(host)?;
    let Some(after) = rest.strip_prefix(':') else { return Some((host, None, rest)) };
    let end = after.bytes().position(|b| matches!(b, b';' | b'?')).unwrap_or(after.len());
    let (port, rest) = after.split_at_checked(end)?;
    Some((host, Some(read_port(port)?), rest))
}

fn read_params(text: &str) -> Option<Params> {
    let mut params = Params::default();
    let mut left = Some(text);
    while let Some(text) = left {
        let (param, rest) = match cut(text, b';') {
            Some((param, rest)) => (param, Some(rest)),
            None => (text, None),
        };
        left = rest;
        let (name, value) = match cut(param, b'=') {
            Some((name, value)) => (name, Some(unescape(value)?)),
            None => (param, None),
        };
        let name = unescape(name).filter(|n| !n.is_empty())?;
        params.push(&name, value)?;
    }
    Some(params)
}

fn read_sip(secure: bool, text: &str) -> Option<SipUri> {
    // A user may hold `;` and `?` (RFC 4475 §3.1.1.9), but nothing after it holds `@` unescaped.
    let (user, password, rest) = match cut(text, b'@') {
        Some((_, rest)) if cut(rest, b'@').is_some() => return None,
        Some((info, rest)) => {
            let (user, password) = match cut(info, b':') {
                Some((user, password)) => (user, Some(unescape(password)?)),
                None => (info, None),
            };
            (Some(unescape(user).filter(|u| !u.is_empty())?), password, rest)
        }
        None => (None, None, text),
    };
    let (host, port, rest) = read_host(rest)?;
    let (params, query) = match cut(rest, b'?') {
        Some((params, query)) => (params, Some(query)),
        None => (rest, None),
    };
    let params = match params.strip_prefix(';') {
        Some(params) => read_params(params)?,
        None if params.is_empty() => Params::default(),
        None => return None,
    };
    let mut headers = Vec::new();
    for header in query.into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = cut(header, b'=')?;
        let name = unescape(name).filter(|n| !n.is_empty())?;
        if headers.len() >= sip_wire::PARAMS {
            return None;
        }
        headers.push((name, unescape(value)?));
    }
    Some(SipUri { secure, user, password, host, port, params, headers })
}

fn read_tel(text: &str) -> Option<TelUri> {
    let (number, params) = match cut(text, b';') {
        Some((number, params)) => (number, read_params(params)?),
        None => (text, Params::default()),
    };
    // `#` stands escaped.
    Some(TelUri { params, ..TelUri::new(&unescape(number)?)? })
}

/// True if a parameter of a header can have this name.
pub(super) fn is_param_name(name: &str) -> bool {
    is_token(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn the_examples_of_rfc_3261_section_19_1_4_are_equivalent() {
        for (a, b) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            ),
            ("tel:+1-201-555-0123", "tel:+12015550123"),
            ("tel:7042;phone-context=Example.com", "tel:70-42;phone-context=example.com"),
        ] {
            assert!(uri(a).equivalent(&uri(b)) && uri(b).equivalent(&uri(a)), "{a} {b}");
        }
    }

    #[test]
    fn the_counter_examples_of_rfc_3261_section_19_1_4_are_not() {
        for (a, b) in [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("sip:a@b.example", "sips:a@b.example"),
            ("tel:+12015550123", "tel:12015550123"),
            ("tel:7042;phone-context=a.example", "tel:7042"),
            ("isbn:1", "isbn:2"),
            ("isbn:1", "tel:1"),
        ] {
            assert!(!uri(a).equivalent(&uri(b)) && !uri(b).equivalent(&uri(a)), "{a} {b}");
        }
    }

    #[test]
    fn what_is_escaped_is_read_and_escaped_again_where_it_must_be() {
        let odd = uri("sip:sips%3Auser%40example.com:p%3aw@example.net;n%61me=v%61lue%25%34%31;lr?to=%3Csip:x%3E");
        let sip = odd.as_sip().unwrap();
        assert_eq!(sip.user.as_deref(), Some("sips:user@example.com"));
        assert_eq!(sip.password.as_deref(), Some("p:w"));
        assert_eq!(sip.params.find("name"), Some("value%41"));
        assert_eq!(sip.params.find("lr"), Some(""));
        assert_eq!(sip.headers, [("to".into(), "<sip:x>".into())]);
        let text = "sip:sips%3Auser%40example.com:p%3Aw@example.net;name=value%2541;lr?to=%3Csip:x%3E";
        assert_eq!(odd.to_string(), text);
        assert_eq!(uri(text), odd);
        assert_eq!(uri("sip:null-%00-null@h").user(), Some("null-\0-null"));
        assert_eq!(uri("sip:null-%00-null@h").to_string(), "sip:null-%00-null@h");
    }

    #[test]
    fn an_ipv6_address_needs_its_brackets() {
        assert_eq!(uri("sip:[2001:db8::10]:5070").as_sip().unwrap().port, Some(5070));
        assert_eq!(uri("sip:[2001:db8::10:5070]").as_sip().unwrap().port, None);
        for bad in ["sip:2001:db8::10", "sip:[2001:db8:::192.0.2.1]", "sip:u@[::1", "sip:u@::1]", "sip:[::1]x"] {
            assert!(bad.parse::<Uri>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "sip",
            "sip:",
            "sip:@h",
            "sip:a@",
            "sip:a@b@c",
            "sip:a@b:",
            "sip:a@b:99999",
            "sip:a@b:+1",
            "sip:a@b;;x",
            "sip:a@b;",
            "sip:a@b?x",
            "sip:a@b?=x",
            "sip:a b@c",
            "sip:%zz@h",
            "sip:%f@h",
            "sip:%FF@h",
            "sip:a@b;x=\u{7}",
            "sip:a\r\n@b",
            "sip:<a@b>",
            "tel:",
            "tel:abc xyz",
            "tel:+",
            "tel:+1\r\n",
            ":x",
            "1x:y",
            "x y:z",
            "http:",
            "http://<x>",
            "sip:ü@h ",
            "sip:a@hö.example",
        ] {
            assert!(bad.parse::<Uri>().is_err(), "{bad:?}");
        }
    }
}

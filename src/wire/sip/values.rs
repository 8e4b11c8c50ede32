//! Values of headers, read. Read RFC 3261 §20 and §25.1 before touching this file.
//!
//! Every function takes a value whose line folds are spaces, and gives `None` where it is not of its grammar.

use super::cursor::Cursor;
use super::{
    CSeq, CallId, Challenge, ContentType, Credentials, Event, Host, Method, NameAddr, Params, RAck, Reason, Refresher,
    Replaces, SessionExpires, SipText, SubscriptionState, Tag, Token, Uri, Via,
};
use crate::config::sip_wire;
use compact_str::CompactString;

/// Largest CSeq and RSeq number (RFC 3261 §8.1.1.5, RFC 3262 §7.1).
const MOST_CSEQ: u32 = (1 << 31) - 1;

const fn ends_param(b: u8) -> bool {
    // The first comparison decides for nearly every byte of a value.
    b < b'?' && matches!(b, b';' | b',' | b' ' | b'\t' | b'"' | b'<' | b'>')
}

/// `=` and a value, quoted or not, if they come next.
fn param_value(c: &mut Cursor<'_>) -> Option<Option<CompactString>> {
    let before = *c;
    if c.separator(b'=').is_none() {
        *c = before;
        return Some(None);
    }
    if c.at(b'"') {
        return c.quoted().map(Some);
    }
    // Nothing behind `=` is not of the grammar, and sent: `;rport=`.
    let value = c.until(ends_param);
    (!value.bytes().any(|b| b.is_ascii_control())).then(|| Some(value.into()))
}

/// `*( SEMI generic-param )`, each given to `take`.
fn each_param<'a>(
    c: &mut Cursor<'a>,
    mut take: impl FnMut(&'a str, Option<CompactString>) -> Option<()>,
) -> Option<()> {
    loop {
        let before = *c;
        if c.separator(b';').is_none() {
            *c = before;
            return Some(());
        }
        let name = c.token()?;
        take(name, param_value(c)?)?;
    }
}

/// `*( SEMI generic-param )`
fn params(c: &mut Cursor<'_>) -> Option<Params> {
    let mut params = Params::default();
    each_param(c, |name, value| params.push(name, value))?;
    Some(params)
}

/// `name = value` separated by commas: digest challenges, credentials and their like.
fn comma_params(c: &mut Cursor<'_>) -> Option<Params> {
    let mut params = Params::default();
    loop {
        c.space();
        let name = c.token()?;
        let value = param_value(c)??;
        params.push(name, Some(value))?;
        if c.separator(b',').is_none() {
            return c.done().then_some(params);
        }
        // RFC 9110 §5.6.1: empty elements of a list count for nothing.
        while c.separator(b',').is_some() {}
        if c.done() {
            return Some(params);
        }
    }
}

/// `name-addr` or `addr-spec`, with parameters of the header.
fn name_addr(c: &mut Cursor<'_>) -> Option<NameAddr> {
    c.space();
    let display = if c.at(b'"') {
        let text = c.quoted()?;
        c.space();
        if !c.at(b'<') {
            return None;
        }
        SipText::new(&text)
    } else {
        let mut ahead = *c;
        let text = ahead.until(|b| matches!(b, b'<' | b',' | b';' | b'"'));
        if ahead.at(b'<') {
            *c = ahead;
            // A display name out of quotes is tokens (§25.1). Other characters are let pass where no other reading of
            // the line has them: not those of an address, which would show one in place of the real one.
            if text.bytes().any(|b| b.is_ascii_control() && b != b'\t' || matches!(b, b':' | b'@' | b'>' | b'\\')) {
                return None;
            }
            SipText::new(text)
        } else {
            SipText::default()
        }
    };
    let uri: Uri = if c.eat(b'<') {
        let uri = c.until(|b| b == b'>').parse().ok()?;
        if !c.eat(b'>') {
            return None;
        }
        uri
    } else {
        let text = c.until(ends_param);
        // §20.10: an address with a comma, semicolon or question mark stands in angle brackets (RFC 4475 §3.1.2.13).
        if text.contains('?') {
            return None;
        }
        text.parse().ok()?
    };
    let display = Some(display).filter(|d| !d.as_str().is_empty());
    Some(NameAddr { display, uri, params: params(c)? })
}

/// Runs `read` for each value between commas. `None` past the cap that `left` keeps for the whole message.
fn each(value: &str, left: &mut usize, mut read: impl FnMut(&mut Cursor<'_>) -> Option<()>) -> Option<()> {
    let mut c = Cursor(value);
    loop {
        *left = left.checked_sub(1)?;
        c.space();
        read(&mut c)?;
        if c.separator(b',').is_none() {
            return c.done().then_some(());
        }
    }
}

pub(super) fn name_addrs(value: &str, left: &mut usize, into: &mut Vec<NameAddr>) -> Option<()> {
    each(value, left, |c| name_addr(c).map(|addr| into.push(addr)))
}

/// From, To, Refer-To: one.
pub(super) fn one_name_addr(value: &str) -> Option<NameAddr> {
    let mut c = Cursor(value);
    let addr = name_addr(&mut c)?;
    c.done().then_some(addr)
}

fn via(c: &mut Cursor<'_>) -> Option<Via> {
    if !c.token()?.eq_ignore_ascii_case("SIP") {
        return None;
    }
    c.separator(b'/')?;
    if c.token()? != "2.0" {
        return None;
    }
    via_after_version(c)
}

fn via_after_version(c: &mut Cursor<'_>) -> Option<Via> {
    let mut via = via_head(c)?;
    each_param(c, |name, value| via_param(&mut via, name, value))?;
    Some(via)
}

/// Transport and sent-by.
fn via_head(c: &mut Cursor<'_>) -> Option<Via> {
    c.separator(b'/')?;
    let transport = Token::taken(c.token()?);
    if !c.at(b' ') && !c.at(b'\t') {
        return None;
    }
    c.space();
    let host = if c.at(b'[') {
        let mut address = c.until(|b| b == b']');
        address = address.strip_prefix('[')?;
        c.eat(b']').then(|| Host::new(address))?.filter(|h| matches!(h, Host::Ip(_)))?
    } else {
        Host::new(c.until(|b| b == b':' || ends_param(b)))?
    };
    let before = *c;
    let port = match c.separator(b':') {
        Some(()) => Some(c.number()?),
        None => {
            *c = before;
            None
        }
    };
    let params = Params::default();
    Some(Via { transport, host, port, branch: None, received: None, rport: None, params })
}

fn via_param(via: &mut Via, name: &str, value: Option<CompactString>) -> Option<()> {
    if via.branch.is_none() && value.is_some() && name.eq_ignore_ascii_case("branch") {
        via.branch = value;
    } else if via.rport.is_none() && name.eq_ignore_ascii_case("rport") {
        // RFC 3581 §3.
        match value.as_deref() {
            None | Some("") => via.rport = Some(None),
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => via.rport = Some(Some(port.parse().ok()?)),
            Some(_) => via.params.push(name, value)?,
        }
    } else if via.received.is_none() && name.eq_ignore_ascii_case("received") {
        // RFC 5118 §4.5: with brackets or without.
        match value.as_deref().and_then(Host::new) {
            Some(Host::Ip(ip)) => via.received = Some(ip),
            Some(Host::Name(_)) | None => via.params.push(name, value)?,
        }
    } else {
        via.params.push(name, value)?;
    }
    Some(())
}

pub(super) fn vias(value: &str, left: &mut usize, into: &mut Vec<Via>) -> Option<()> {
    each(value, left, |c| via(c).map(|via| into.push(via)))
}

/// As many hops as can be read of a Via of whatever version, with empty parameters passed over: for an answer to a
/// message that is refused.
pub(super) fn salvaged_vias(value: &str, left: &mut usize, into: &mut Vec<Via>) {
    let mut c = Cursor(value);
    while *left > 0 {
        *left -= 1;
        c.space();
        let head = c.token().filter(|t| t.eq_ignore_ascii_case("SIP")).and_then(|_| {
            c.separator(b'/')?;
            c.token()?;
            via_head(&mut c)
        });
        let Some(mut via) = head else { return };
        loop {
            c.space();
            if c.eat(b';') {
                c.space();
                if let Some(name) = c.token() {
                    let Some(value) = param_value(&mut c) else { break };
                    if via_param(&mut via, name, value).is_none() {
                        break;
                    }
                }
            } else {
                break;
            }
        }
        into.push(via);
        if !c.eat(b',') {
            return;
        }
    }
}

pub(super) fn call_id(value: &str) -> Option<CallId> {
    CallId::new(value)
}

fn cseq_at(c: &mut Cursor<'_>) -> Option<CSeq> {
    let number: u32 = c.number()?;
    let before = c.0.len();
    c.space();
    // RFC 3261 §8.1.1.5; RFC 4475 §3.1.2.4.
    if number > MOST_CSEQ || c.0.len() == before {
        return None;
    }
    let method = Method::taken(c.token()?);
    c.done().then_some(CSeq { number, method })
}

pub(super) fn cseq(value: &str) -> Option<CSeq> {
    cseq_at(&mut Cursor(value))
}

pub(super) fn rack(value: &str) -> Option<RAck> {
    let mut c = Cursor(value);
    let rseq: u32 = c.number()?;
    c.space();
    let cseq = cseq_at(&mut c)?;
    (rseq <= MOST_CSEQ).then_some(RAck { rseq, cseq })
}

pub(super) fn rseq(value: &str) -> Option<u32> {
    let mut c = Cursor(value);
    let number = c.number().filter(|n| *n <= MOST_CSEQ)?;
    c.done().then_some(number)
}

pub(super) fn max_forwards(value: &str) -> Option<u8> {
    let mut c = Cursor(value);
    let number = c.number()?;
    c.done().then_some(number)
}

/// Digits and nothing else. `None` also past what a message may have; `usize::MAX` stands for larger numbers.
pub(super) fn content_length(value: &str) -> Option<usize> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(usize::MAX))
}

/// Seconds. Past 32 bits the largest there is (RFC 4475 §3.1.2.4).
fn seconds_at(c: &mut Cursor<'_>) -> Option<u32> {
    let digits = c.until(|b| !b.is_ascii_digit());
    let fine = !digits.is_empty() && digits.is_ascii();
    fine.then(|| digits.parse().unwrap_or(u32::MAX))
}

pub(super) fn seconds(value: &str) -> Option<u32> {
    let mut c = Cursor(value);
    let seconds = seconds_at(&mut c)?;
    c.done().then_some(seconds)
}

/// Seconds, with parameters or a comment behind that say nothing here: Retry-After, Min-SE.
pub(super) fn seconds_with_more(value: &str) -> Option<u32> {
    let mut c = Cursor(value);
    let seconds = seconds_at(&mut c)?;
    (c.done() || c.at(b';') || c.at(b'(')).then_some(seconds)
}

pub(super) fn session_expires(value: &str) -> Option<SessionExpires> {
    let mut c = Cursor(value);
    let seconds = seconds_at(&mut c)?;
    let params = params(&mut c)?;
    let refresher = match params.find("refresher") {
        None => None,
        Some(who) if who.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
        Some(who) if who.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
        Some(_) => return None,
    };
    c.done().then_some(SessionExpires { seconds, refresher })
}

/// Tokens between commas; an empty value is an empty list. `100rel, replaces,` is sent; what stands there counts.
pub(super) fn list<T>(value: &str, make: impl Fn(&str) -> T) -> Option<Vec<T>> {
    let mut c = Cursor(value);
    let mut all = Vec::with_capacity(value.bytes().filter(|b| *b == b',').count().min(sip_wire::PARAMS) + 1);
    let mut places = 0;
    loop {
        c.space();
        if !c.at(b',') && !c.done() {
            all.push(make(c.token()?));
        }
        places += 1;
        if c.separator(b',').is_none() {
            return c.done().then_some(all);
        }
        if places >= sip_wire::PARAMS {
            return None;
        }
    }
}

pub(super) fn content_type(value: &str) -> Option<ContentType> {
    let mut c = Cursor(value);
    let kind = c.token()?;
    c.separator(b'/')?;
    let subtype = c.token()?;
    let mut media = CompactString::with_capacity(kind.len() + 1 + subtype.len());
    media.push_str(kind);
    media.push('/');
    media.push_str(subtype);
    let mut content_type = ContentType::new(&media)?;
    content_type.params = params(&mut c)?;
    c.done().then_some(content_type)
}

pub(super) fn event(value: &str) -> Option<Event> {
    let mut c = Cursor(value);
    let package = Token::taken(c.token()?);
    let params = params(&mut c)?;
    c.done().then_some(Event { package, params })
}

pub(super) fn subscription_state(value: &str) -> Option<SubscriptionState> {
    let mut c = Cursor(value);
    let state = Token::taken(c.token()?);
    let params = params(&mut c)?;
    c.done().then_some(SubscriptionState { state, params })
}

fn scheme(c: &mut Cursor<'_>) -> Option<Token> {
    let scheme = Token::taken(c.token()?);
    (c.at(b' ') || c.at(b'\t')).then_some(scheme)
}

pub(super) fn challenge(value: &str) -> Option<Challenge> {
    let mut c = Cursor(value);
    let scheme = scheme(&mut c)?;
    Some(Challenge { scheme, params: comma_params(&mut c)? })
}

pub(super) fn credentials(value: &str) -> Option<Credentials> {
    let mut c = Cursor(value);
    let scheme = scheme(&mut c)?;
    Some(Credentials { scheme, params: comma_params(&mut c)? })
}

pub(super) fn authentication_info(value: &str) -> Option<Params> {
    comma_params(&mut Cursor(value))
}

pub(super) fn reasons(value: &str, left: &mut usize, into: &mut Vec<Reason>) -> Option<()> {
    each(value, left, |c| {
        let protocol = Token::taken(c.token()?);
        let params = params(c)?;
        let cause = params.find("cause").and_then(|cause| cause.parse().ok());
        let text = params.find("text").map(SipText::new);
        into.push(Reason { protocol, cause, text });
        Some(())
    })
}

pub(super) fn replaces(value: &str) -> Option<Replaces> {
    let mut c = Cursor(value);
    let call_id = CallId::new(c.until(|b| matches!(b, b';' | b' ' | b'\t')))?;
    let params = params(&mut c)?;
    let tag = |name| params.find(name).and_then(Tag::new);
    let replaces =
        Replaces { call_id, to_tag: tag("to-tag")?, from_tag: tag("from-tag")?, early_only: params.has("early-only") };
    c.done().then_some(replaces)
}

pub(super) fn token(value: &str) -> Option<Token> {
    Token::new(value)
}

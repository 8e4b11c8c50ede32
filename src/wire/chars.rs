//! Characters, names, references and attribute values of XML. Read XML 1.0 §2.2, §2.3, §2.11, §3.3.3 and §4.1 before
//! touching this file.
//!
//! A table says of each byte what it may be, so that the usual name and value is looked at once and is borrowed; what
//! is not usual goes the long way.

use super::xml::{Result, xml};
use crate::fault::{Malformed, StreamCondition};
use std::borrow::Cow;

/// May begin a name.
const START: u8 = 1;
/// May go on in a name.
const MORE: u8 = 2;
/// Past ASCII: a name with it is looked at character by character.
const WIDE: u8 = 4;
/// White space.
const SPACE: u8 = 8;
/// A value with it cannot be borrowed as it is, or not before a closer look.
const ODD_VALUE: u8 = 16;
/// The same for text.
const ODD_TEXT: u8 = 32;
/// May end a value.
const QUOTE: u8 = 64;

// Evaluated by the compiler: an index out of bounds would not compile.
#[allow(clippy::indexing_slicing)]
const CLASS: [u8; 256] = {
    let mut all = [0; 256];
    let mut b = 0;
    while b < 256 {
        all[b] = match b as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => START | MORE,
            b'0'..=b'9' | b'-' | b'.' => MORE,
            b' ' => SPACE,
            b'\t' | b'\n' => SPACE | ODD_VALUE,
            b'\r' => SPACE | ODD_VALUE | ODD_TEXT,
            0..=0x1F => ODD_VALUE | ODD_TEXT,
            b'&' | b'<' => ODD_VALUE,
            b'\'' | b'"' => QUOTE,
            // The end of a CDATA section must not stand in text.
            b']' => ODD_TEXT,
            // U+FFFE and U+FFFF are the only forbidden characters past ASCII; they start with byte EF.
            0xEF => WIDE | ODD_VALUE | ODD_TEXT,
            0x80..=0xFF => WIDE,
            _ => 0,
        };
        b += 1;
    }
    all
};

fn class(b: u8) -> u8 {
    CLASS.get(usize::from(b)).copied().unwrap_or(0)
}

const BAD_NAME: Malformed = xml(StreamCondition::NotWellFormed, "bad name");
const BAD_ATTRIBUTE: Malformed = xml(StreamCondition::NotWellFormed, "bad attribute");

/// How many of the first bytes are usual in a value: not its end and nothing that asks for a closer look. Eight at a
/// time; bytes below `(`, `<` and those past ASCII are found by arithmetic, with some that are usual among them.
#[inline]
fn usual_in_value(bytes: &[u8]) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut len = 0;
    loop {
        let rest = bytes.get(len..).unwrap_or_default();
        let found = match rest.first_chunk() {
            Some(eight) => {
                let word = u64::from_le_bytes(*eight);
                let below = word.wrapping_sub(EACH * 0x28);
                let less = (word ^ (EACH * 0x3C)).wrapping_sub(EACH);
                let marks = (below | less | word) & (EACH * 0x80);
                if marks == 0 {
                    len += 8;
                    continue;
                }
                // The lowest mark is exact, those above it may be due to a borrow.
                (marks.trailing_zeros() / 8) as usize
            }
            None => 0,
        };
        len += found;
        match rest.get(found) {
            Some(b) if class(*b) & (ODD_VALUE | QUOTE) == 0 => len += 1,
            Some(_) | None => return len,
        }
    }
}

/// Where the white space at `at` ends.
#[inline]
pub(super) fn skip_space(text: &str, at: usize) -> usize {
    let space = |at: usize| text.as_bytes().get(at).is_some_and(|b| class(*b) & SPACE != 0);
    if !space(at) {
        at
    } else if !space(at + 1) {
        at + 1
    } else {
        skip_indent(text, at + 2)
    }
}

fn skip_indent(text: &str, at: usize) -> usize {
    let mut rest = text.as_bytes().get(at..).unwrap_or_default();
    while let Some(more) = rest.strip_prefix(b"        ") {
        rest = more;
    }
    text.len() - rest.len() + rest.iter().position(|b| class(*b) & SPACE == 0).unwrap_or(rest.len())
}

/// The qualified name at `at`: prefix (empty if there is none), local name, and where it ends.
#[inline]
pub(super) fn qualified_name(text: &str, at: usize) -> Result<(&str, &str, usize)> {
    let bytes = text.as_bytes().get(at..).unwrap_or_default();
    let len = bytes.iter().position(|b| class(*b) & MORE == 0).unwrap_or(bytes.len());
    let first = bytes.first().is_some_and(|b| class(*b) & START != 0);
    if first && !bytes.get(len).is_some_and(|b| *b == b':' || class(*b) & WIDE != 0) {
        let end = at + len;
        return Ok(("", text.get(at..end).unwrap_or(""), end));
    }
    unusual_name(text, at)
}

/// As [`qualified_name`], for one with a prefix or with characters past ASCII.
#[cold]
fn unusual_name(text: &str, at: usize) -> Result<(&str, &str, usize)> {
    let bytes = text.as_bytes().get(at..).unwrap_or_default();
    let (mut len, mut colon, mut seen) = (0, None, 0);
    // What the next character may be: the first one of a name, or any of it.
    let mut wanted = START;
    for b in bytes {
        let class = class(*b);
        if class & (wanted | WIDE) != 0 {
            seen |= class;
            wanted = MORE;
        } else if *b == b':' && wanted == MORE && colon.is_none() {
            colon = Some(len);
            wanted = START;
        } else {
            break;
        }
        len += 1;
    }
    // Ended before a name began.
    if wanted == START {
        return Err(BAD_NAME);
    }
    let end = at + len;
    let (prefix, local) = match colon {
        Some(colon) => (text.get(at..at + colon).unwrap_or(""), text.get(at + colon + 1..end).unwrap_or("")),
        None => ("", text.get(at..end).unwrap_or("")),
    };
    if seen & WIDE != 0 && !((prefix.is_empty() || is_name(prefix)) && is_name(local)) {
        return Err(BAD_NAME);
    }
    Ok((prefix, local, end))
}

/// The quoted attribute value at `at`, as XML 1.0 §3.3.3 reads it, and where it ends.
#[inline]
pub(super) fn quoted_value(text: &str, at: usize) -> Result<(Cow<'_, str>, usize)> {
    let bytes = text.as_bytes();
    let quote = *bytes.get(at).filter(|b| matches!(b, b'"' | b'\'')).ok_or(BAD_ATTRIBUTE)?;
    let from = at + 1;
    let end = from + usual_in_value(bytes.get(from..).unwrap_or_default());
    if bytes.get(end) == Some(&quote) {
        return Ok((Cow::Borrowed(text.get(from..end).unwrap_or("")), end + 1));
    }
    unusual_value(text, from, end, quote)
}

/// As [`quoted_value`], for one that begins at `from` and in which something unusual stands at `at`.
#[cold]
fn unusual_value(text: &str, from: usize, at: usize, quote: u8) -> Result<(Cow<'_, str>, usize)> {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    let end = at + rest.iter().position(|b| *b == quote).ok_or(BAD_ATTRIBUTE)?;
    let value = text.get(from..end).unwrap_or("");
    if value.contains('<') {
        return Err(xml(StreamCondition::NotWellFormed, "< in an attribute"));
    }
    check_chars(value)?;
    Ok((attribute_value(value)?, end + 1))
}

/// Text without markup: only what XML allows, with the line ends of XML 1.0 §2.11.
#[inline]
pub(super) fn plain_text(text: &str) -> Result<Cow<'_, str>> {
    let seen = text.bytes().fold(0, |seen, b| seen | class(b));
    if seen & ODD_TEXT == 0 {
        return Ok(Cow::Borrowed(text));
    }
    if text.contains("]]>") {
        return Err(xml(StreamCondition::NotWellFormed, "]]> in text"));
    }
    cdata(text)
}

/// What stands in a CDATA section.
pub(super) fn cdata(text: &str) -> Result<Cow<'_, str>> {
    check_chars(text)?;
    Ok(line_ends(text))
}

/// True for one name without a colon.
pub(super) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(name_start) && chars.all(|c| name_start(c) || name_more(c))
}

/// NameStartChar of XML 1.0 §2.3 without the colon.
fn name_start(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '_' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

fn name_more(c: char) -> bool {
    matches!(c, '0'..='9' | '-' | '.' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// Char of XML 1.0 §2.2.
pub(super) fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

fn check_chars(text: &str) -> Result<()> {
    // U+FFFE and U+FFFF are the only forbidden ones past ASCII; they start with byte EF.
    let suspicious = text.bytes().any(|b| (b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r')) || b == 0xEF);
    if suspicious && !text.chars().all(is_char) {
        return Err(xml(StreamCondition::NotWellFormed, "forbidden character"));
    }
    Ok(())
}

/// The predefined entities and character references, RFC 6120 §11.1 and §11.2.
pub(super) fn reference(name: &str) -> Result<char> {
    const BAD: Malformed = xml(StreamCondition::NotWellFormed, "bad reference");
    match name {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => {
            let number = name.strip_prefix('#').ok_or(xml(StreamCondition::RestrictedXml, "entity reference"))?;
            let code = match number.strip_prefix('x') {
                Some(hex) if !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    u32::from_str_radix(hex, 16)
                }
                None if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => number.parse(),
                Some(_) | None => return Err(BAD),
            };
            code.ok().and_then(char::from_u32).filter(|c| is_char(*c)).ok_or(BAD)
        }
    }
}

/// XML 1.0 §2.11: one line end.
fn line_ends(text: &str) -> Cow<'_, str> {
    if text.contains('\r') { Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")) } else { Cow::Borrowed(text) }
}

/// XML 1.0 §3.3.3: references are replaced, literal white space becomes a space each.
fn attribute_value(value: &str) -> Result<Cow<'_, str>> {
    if !value.bytes().any(|b| matches!(b, b'&' | b'\t' | b'\n' | b'\r')) {
        return Ok(Cow::Borrowed(value));
    }
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find(['&', '\t', '\n', '\r']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = from.strip_prefix('&') {
            let (name, more) = after.split_once(';').ok_or(xml(StreamCondition::NotWellFormed, "bare ampersand"))?;
            out.push(reference(name)?);
            rest = more;
        } else {
            out.push(' ');
            rest = from.strip_prefix("\r\n").or_else(|| from.get(1..)).unwrap_or("");
        }
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

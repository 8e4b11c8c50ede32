//! Bodies of several parts. Read RFC 2046 §5.1 and RFC 5621 before touching this file.

use super::{ContentType, values};

/// Multiparts inside each other: `multipart/mixed` with `multipart/alternative` in it is what is seen.
const DEPTH: usize = 4;

/// The body, or the first part of a multipart body, of this media type.
#[must_use]
pub fn part_of<'a>(body: &'a [u8], content_type: &ContentType, media: &str) -> Option<&'a [u8]> {
    find(body, content_type, media, DEPTH)
}

fn find<'a>(body: &'a [u8], content_type: &ContentType, media: &str, depth: usize) -> Option<&'a [u8]> {
    if content_type.is(media) {
        return Some(body);
    }
    if depth == 0 || !content_type.media().starts_with("multipart/") {
        return None;
    }
    let boundary = content_type.params.find("boundary").filter(|b| !b.is_empty() && b.len() <= 70)?;
    let mut parts = Parts { rest: body, boundary: boundary.as_bytes(), begun: false };
    while let Some(part) = parts.next() {
        let Some((head, body)) = head_of(part) else { continue };
        // RFC 2046 §5.1: a part without a type is text.
        let Some(content_type) = type_of(head) else { continue };
        if let Some(found) = find(body, &content_type, media, depth - 1) {
            return Some(found);
        }
    }
    None
}

struct Parts<'a, 'b> {
    rest: &'a [u8],
    boundary: &'b [u8],
    begun: bool,
}

impl<'a> Parts<'a, '_> {
    /// What stands before the next boundary line, and takes that line; `None` without one.
    fn before_boundary(&mut self) -> Option<(&'a [u8], bool)> {
        let mut at = 0;
        loop {
            let line = self.rest.get(at..)?;
            if line.is_empty() {
                return None;
            }
            let length = line.iter().position(|b| *b == b'\n').map_or(line.len(), |end| end + 1);
            let after = line.get(..length)?.strip_prefix(b"--").and_then(|l| l.strip_prefix(self.boundary));
            let (last, after) = match after {
                Some(after) => match after.strip_prefix(b"--") {
                    Some(after) => (true, after),
                    None => (false, after),
                },
                None => {
                    at += length;
                    continue;
                }
            };
            if !after.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
                at += length;
                continue;
            }
            let part = self.rest.get(..at)?;
            self.rest = self.rest.get(at + length..)?;
            // The line end before a boundary belongs to it.
            let part = part.strip_suffix(b"\n").unwrap_or(part);
            return Some((part.strip_suffix(b"\r").unwrap_or(part), last));
        }
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        if !self.begun {
            self.begun = true;
            if self.before_boundary()?.1 {
                return None;
            }
        }
        let (part, last) = self.before_boundary()?;
        if last {
            self.rest = &[];
        }
        Some(part)
    }
}

/// Headers and body of a part.
fn head_of(part: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(body) = part.strip_prefix(b"\r\n") {
        return Some((&[], body));
    }
    let end = part.windows(4).position(|w| w == b"\r\n\r\n")?;
    Some((part.get(..end)?, part.get(end + 4..)?))
}

fn type_of(head: &[u8]) -> Option<ContentType> {
    std::str::from_utf8(head).ok()?.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let named = name.trim().eq_ignore_ascii_case("content-type");
        named.then(|| values::content_type(value.trim()))?
    })
}

//! File names that a peer chose, made safe. Read XEP-0234 §5 (name) and §13 before touching this file.
//!
//! What comes out is one component of a path on any system: no separators, no control or invisible characters, nothing
//! that a shell takes for an option or a file system for a device.

/// Most bytes of a name on all common file systems.
const LONGEST: usize = 255;
/// Most bytes of an extension that is kept when a name is cut; longer ones are no extensions.
const LONGEST_EXTENSION: usize = 32;
const PART: &str = ".part";
const SIDECAR: &str = ".offhook";
/// Most bytes of a name whose sidecar has room for its own dot and, while it is replaced, a tilde.
const LONGEST_WITH_PART: usize = LONGEST - PART.len() - SIDECAR.len() - 2;

/// A name that is one harmless component of a path, 1 to 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SafeName(String);

impl SafeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `name (1).ext` for 1, the name itself for 0: what is tried when a name is taken.
    #[must_use]
    pub fn numbered(&self, number: u32) -> SafeName {
        self.in_bytes(number, LONGEST)
    }

    /// As [`Self::numbered`], and short enough that the part and its sidecar have room for the whole of it.
    #[must_use]
    pub fn part_numbered(&self, number: u32) -> SafeName {
        self.in_bytes(number, LONGEST_WITH_PART)
    }

    fn in_bytes(&self, number: u32, most: usize) -> SafeName {
        let (stem, extension) = split(&self.0);
        let end = if number == 0 { extension.to_owned() } else { format!(" ({number}){extension}") };
        Self(fit(stem, &end, most))
    }

    /// Name of the file while it is not complete: `name.ext.part`.
    #[must_use]
    pub fn part(&self) -> String {
        let (stem, extension) = split(&self.0);
        fit(stem, &format!("{extension}{PART}"), LONGEST_WITH_PART + PART.len())
    }

    /// Name of the hidden file that says what the part is a part of: `.name.ext.part.offhook`. No peer can choose it, as
    /// a safe name has no leading dot.
    #[must_use]
    pub fn sidecar(&self) -> String {
        format!(".{}{SIDECAR}", self.part())
    }
}

impl std::fmt::Display for SafeName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes a safe name of whatever a peer calls a file; `file` if nothing is left of it (J234-06).
#[must_use]
pub fn safe_name(untrusted: &str) -> SafeName {
    // J234-06: both kinds of separators, as the peer's system is not known.
    let base = untrusted.split(['/', '\\']).rfind(|part| !part.trim().is_empty()).unwrap_or("");
    let kept: String = base.chars().filter(|c| !is_invisible(*c)).map(portable).collect();
    // A leading dot hides a file, a leading dash is an option; Windows drops trailing dots and spaces.
    let kept = kept.trim_start_matches(|c: char| c == '.' || c == '-' || c.is_whitespace());
    let kept = trim_end(kept);
    let kept = if kept.chars().all(is_joiner) { "file" } else { kept };
    let cut = cut(kept);
    // The cut may leave a device's name.
    SafeName(if is_device(&cut) { self::cut(&format!("_{cut}")) } else { cut })
}

/// A file below a directory that is sent, as one name: `photos/2024/a.jpg` becomes `photos_2024_a.jpg`.
#[must_use]
pub fn flattened<'a>(components: impl IntoIterator<Item = &'a str>) -> SafeName {
    let joined: Vec<&str> = components.into_iter().collect();
    // A component may hold the other system's separator.
    safe_name(&joined.join("_").replace(['/', '\\'], "_"))
}

/// To the longest name, with its extension.
fn cut(name: &str) -> String {
    let (stem, extension) = split(name);
    trim_end(&fit(stem, extension, LONGEST)).to_owned()
}

fn trim_end(name: &str) -> &str {
    name.trim_end_matches(|c: char| c == '.' || c.is_whitespace())
}

/// Characters that show nothing, or change how others are shown: control characters (ESC and NUL among them), bidi
/// controls, line separators, and other invisible ones. The joiners that emoji and several scripts need stay.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Characters that show nothing by themselves but are part of others.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}')
}

/// What Windows forbids in names, the colon of drives and streams among it, becomes an underscore.
fn portable(c: char) -> char {
    if matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*') { '_' } else { c }
}

/// Names that are devices on Windows, with any extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or("").trim_end().to_ascii_uppercase();
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$") {
        return true;
    }
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    port.is_some_and(|n| {
        let mut digits = n.chars();
        let digit = digits.next().is_some_and(|d| d.is_ascii_digit() || matches!(d, '¹' | '²' | '³'));
        digit && digits.next().is_none()
    })
}

/// Stem and extension with its dot; `.tar.gz` is one extension.
fn split(name: &str) -> (&str, &str) {
    let Some((stem, extension)) = name.rsplit_once('.') else { return (name, "") };
    if stem.is_empty() || extension.len() + 1 > LONGEST_EXTENSION {
        return (name, "");
    }
    let stem = stem.strip_suffix(".tar").filter(|s| !s.is_empty()).unwrap_or(stem);
    name.split_at(stem.len())
}

/// `stem` + `end` in at most `most` bytes, cut in the stem between two characters.
fn fit(stem: &str, end: &str, most: usize) -> String {
    let room = most.saturating_sub(end.len());
    let mut cut = stem.len().min(room);
    while !stem.is_char_boundary(cut) {
        cut -= 1;
    }
    let (kept, _) = stem.split_at(cut);
    format!("{kept}{end}")
}

//! Files and their hashes: XEP-0234 0.19.1 (:5 written, :4 and :3 read) and XEP-0300 1.0.0.
//! Read XEP-0234 §5 before touching this file.

use super::description::{keep, number};
use super::ns;
use super::xml::{Reader, Result, Writer};
use crate::fault::{Malformed, names};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use std::borrow::Cow;

/// What `<offer/>` and `<request/>` of file-transfer:3 say; later versions say it by `senders`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileVerb {
    Offer,
    Request,
}

/// Finds the `<file/>` inside the element just entered, below `<offer/>` or `<request/>` too. An answer may leave it out
/// (XEP-0370 example 3): then nothing is said of the file.
pub(super) fn read_file(r: &mut Reader<'_>) -> Result<(FileDescription, Option<FileVerb>)> {
    let (mut file, mut verb) = (None, None);
    r.children(|r| {
        let found = match r.tag().name() {
            "file" if file.is_none() => {
                file = Some(FileDescription::read(r)?);
                return Ok(());
            }
            "offer" => FileVerb::Offer,
            "request" => FileVerb::Request,
            _ => return Ok(()),
        };
        r.children(|r| {
            if r.tag().name() == "file" && file.is_none() {
                file = Some(FileDescription::read(r)?);
                verb = Some(found);
            }
            Ok(())
        })
    })?;
    Ok((file.unwrap_or_default(), verb))
}

names! {
    /// Hash functions of XEP-0300.
    pub enum HashAlgo {
        Sha1 = "sha-1", Sha224 = "sha-224", Sha256 = "sha-256", Sha384 = "sha-384", Sha512 = "sha-512",
        Sha3_256 = "sha3-256", Sha3_512 = "sha3-512", Blake2b256 = "blake2b-256", Blake2b512 = "blake2b-512",
    }
}

impl HashAlgo {
    /// Bytes of the digest.
    #[must_use]
    pub const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 | Self::Sha3_256 | Self::Blake2b256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 | Self::Sha3_512 | Self::Blake2b512 => 64,
        }
    }
}

/// A digest and its function; an empty value stands for "will be sent later".
pub type FileHash = (HashAlgo, Vec<u8>);

/// Base64 of any padding.
const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Reads the `<hash/>` just entered. `None` for a function that is not known or a value that is no digest of it.
fn read_hash(r: &mut Reader<'_>) -> Result<Option<FileHash>> {
    let Some(algo) = r.attr("algo").and_then(HashAlgo::parse) else { return Ok(None) };
    let text = r.text()?;
    let mut text = Cow::Borrowed(text.trim());
    if text.contains(char::is_whitespace) {
        // No digest is longer than 64 bytes, 128 hex digits.
        text = text.chars().filter(|c| !c.is_whitespace()).take(129).collect();
    }
    if text.is_empty() {
        return Ok(Some((algo, Vec::new())));
    }
    if text.len() > 128 {
        return Ok(None);
    }
    // Before XEP-0300 0.3 the value was hex.
    let value = if text.len() == 2 * algo.digest_bytes() {
        (0..text.len()).step_by(2).map(|i| text.get(i..i + 2).and_then(|t| u8::from_str_radix(t, 16).ok())).collect()
    } else {
        LENIENT_BASE64.decode(text.as_bytes()).ok()
    };
    Ok(value.filter(|v: &Vec<u8>| v.len() == algo.digest_bytes()).map(|v| (algo, v)))
}

fn write_hashes(hashes: &[FileHash], w: &mut Writer<'_>) {
    for (algo, value) in hashes {
        w.start_ns("hash", ns::HASHES).attr("algo", algo.as_str());
        if !value.is_empty() {
            w.text_number(base64::display::Base64Display::new(value, &STANDARD));
        }
        w.end("hash");
    }
}

/// XEP-0234 description, one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDescription {
    /// Untrusted; may hold anything.
    pub name: Option<String>,
    /// Bytes; 0 is a file too.
    pub size: Option<u64>,
    /// XEP-0082 text.
    pub date: Option<String>,
    /// MIME type.
    pub media_type: Option<String>,
    /// For people, in the first language given.
    pub description: Option<String>,
    /// Known hashes; an empty value stands for "will be sent later".
    pub hashes: Vec<FileHash>,
    /// The hash that a later checksum will carry.
    pub hash_used: Option<HashAlgo>,
    /// Asked for or granted.
    pub range: Option<FileRange>,
}

impl FileDescription {
    /// Reads the `<file/>` that `r` has just entered.
    ///
    /// # Errors
    /// [`Malformed`] for a size or range that is no number (J234-07; requirements §M 13: 0 is a size).
    pub fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut file = Self::default();
        r.children(|r| {
            let name = r.tag().name();
            match name {
                "hash" => {
                    let hash = read_hash(r)?;
                    keep(&mut file.hashes, hash);
                }
                "hash-used" => file.hash_used = r.attr("algo").and_then(HashAlgo::parse),
                "range" => file.range = Some(FileRange::read(r)?),
                "size" => {
                    let size = r.text()?.trim().parse();
                    file.size = Some(size.map_err(|_| Malformed::BadValue { element: "file", what: "size" })?);
                }
                "name" | "date" | "media-type" | "desc" => {
                    let text = r.text()?.into_owned();
                    let slot = match name {
                        "name" => &mut file.name,
                        "date" => &mut file.date,
                        "media-type" => &mut file.media_type,
                        _ => &mut file.description,
                    };
                    slot.get_or_insert(text);
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(file)
    }

    /// Writes the `<file/>` in the namespace of its parent.
    pub fn write(&self, w: &mut Writer<'_>) {
        w.start("file");
        for (name, text) in
            [("date", &self.date), ("desc", &self.description), ("media-type", &self.media_type), ("name", &self.name)]
        {
            if let Some(text) = text {
                w.text_element(name, text);
            }
        }
        if let Some(range) = &self.range {
            range.write(w);
        }
        if let Some(size) = self.size {
            w.start("size").text_number(size).end("size");
        }
        write_hashes(&self.hashes, w);
        if let Some(algo) = self.hash_used {
            w.start_ns("hash-used", ns::HASHES).attr("algo", algo.as_str()).end("hash-used");
        }
        w.end("file");
    }
}

/// XEP-0234 §5 range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileRange {
    /// First byte, 0 if absent.
    pub offset: u64,
    /// Bytes, to the end if absent.
    pub length: Option<u64>,
    /// Hashes of the range alone, in a checksum (§8.2).
    pub hashes: Vec<FileHash>,
}

impl FileRange {
    fn read(r: &mut Reader<'_>) -> Result<Self> {
        let mut range = Self {
            offset: number(r, "range", "offset")?.unwrap_or(0),
            length: number(r, "range", "length")?,
            hashes: Vec::new(),
        };
        // J234-07: the end of the range is a number too.
        if range.length.is_some_and(|length| range.offset.checked_add(length).is_none()) {
            return Err(Malformed::BadValue { element: "range", what: "length" });
        }
        r.children(|r| {
            if r.tag().name() == "hash" {
                let hash = read_hash(r)?;
                keep(&mut range.hashes, hash);
            }
            Ok(())
        })?;
        Ok(range)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.start("range");
        if self.offset != 0 {
            w.attr_number("offset", self.offset);
        }
        if let Some(length) = self.length {
            w.attr_number("length", length);
        }
        write_hashes(&self.hashes, w);
        w.end("range");
    }
}

names! {
    /// Details of a failed-application or media-error, XEP-0234 §9.
    pub enum FileErrorCondition { FileNotAvailable = "file-not-available", FileTooLarge = "file-too-large" }
}

impl FileErrorCondition {
    /// As the detail of a [`super::jingle::Reason`].
    #[must_use]
    pub fn detail(self) -> (String, String) {
        (ns::FILE_ERRORS.to_owned(), self.as_str().to_owned())
    }
}

//! The directory that files are received into, and the parts in it.
//! Read `src/file/part.rs` and the file rows of the threat list in SECURITY.md before touching this file.

use super::dir::Dir;
use super::fault;
use crate::file::FileFault;
use crate::file::name::{SafeName, safe_name};
use crate::file::part::{self, Identity, Kept, Sidecar};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Names tried for a part: so many interrupted files of one name may lie in a directory.
const PARTS: u32 = 100;
/// Names tried for a finished file.
const NUMBERS: u32 = 10_000;

/// A directory that files are received into. It is held by its handle: whatever happens to its path, files arrive in it.
#[derive(Debug, Clone)]
pub struct Inbox {
    dir: Arc<Dir>,
}

impl Inbox {
    /// Opens a directory that is there.
    ///
    /// # Errors
    /// [`FileFault`] if it is missing, is none, or may not be read.
    pub fn open(path: &Path) -> Result<Self, FileFault> {
        Ok(Self { dir: Arc::new(Dir::open(path).map_err(|e| fault(&e))?) })
    }

    /// Checks that `bytes` more fit on the disk.
    ///
    /// # Errors
    /// [`FileFault::DiskFull`].
    pub fn has_room(&self, bytes: u64) -> Result<(), FileFault> {
        // A file system that cannot say how full it is shows it when it is full.
        match self.dir.free_bytes() {
            Ok(free) if free < bytes => Err(FileFault::DiskFull),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The part of this file that is there, to be resumed, or a new one. It is locked until dropped, against other
    /// processes too; a new one that stays empty goes again. A file that was finished a while ago and whose sender does not
    /// know that is a part of which only the last byte is asked for: it is compared, and nothing is written.
    ///
    /// # Errors
    /// [`FileFault::NoName`] if every name is taken, or what the system says.
    pub fn part(&self, identity: &Identity) -> Result<Part, FileFault> {
        let name = safe_name(&identity.name);
        // A part that fits is worth more than a free name before it.
        for number in 0..PARTS {
            if let Some(part) = self.existing(&name.part_numbered(number), identity)? {
                return Ok(part);
            }
        }
        for number in 0..PARTS {
            if let Some(part) = self.create(&name, &name.part_numbered(number), identity)? {
                return Ok(part);
            }
        }
        Err(FileFault::NoName)
    }

    /// Our part of that name, if its sidecar fits and nobody works on it.
    fn existing(&self, name: &SafeName, identity: &Identity) -> Result<Option<Part>, FileFault> {
        let Some(sidecar) = self.read_sidecar(name).filter(|s| s.identity.fits(identity)) else { return Ok(None) };
        if let Some(kept) = sidecar.kept.clone() {
            // From somebody else it is another file, whatever is in it.
            let same = sidecar.identity.peer == identity.peer;
            return Ok(if same { self.finished(name, sidecar, &kept) } else { None });
        }
        let file = match self.dir.open_existing(&name.part(), true) {
            Ok(file) => file,
            // Links, FIFOs, and what we may not write are not ours.
            Err(_) => return Ok(None),
        };
        // Another process may have finished it between the open and the lock.
        if file.try_lock().is_err() || !self.dir.is_named(&name.part(), &file).unwrap_or(false) {
            return Ok(None);
        }
        let length = file.metadata().map_err(|e| fault(&e))?.len();
        let offset = match identity.size {
            _ if sidecar.spoiled => 0,
            Some(size) if length > size => 0,
            // The last byte is asked for again: not every peer understands a range of nothing.
            Some(size) => length.min(size.saturating_sub(1)),
            None => length,
        };
        let mut part = Part {
            dir: Arc::clone(&self.dir),
            file,
            wanted: safe_name(&identity.name),
            named: name.clone(),
            sidecar,
            offset,
            finished: None,
            unwanted: false,
        };
        // What this offer knows in addition helps the next one.
        let known = Sidecar { identity: part.sidecar.identity.joined(identity), ..Sidecar::default() };
        if part.sidecar != known {
            part.start_at(offset)?;
            part.write_sidecar(known)?;
        }
        Ok(Some(part))
    }

    /// A finished file, if it is still as it was left.
    fn finished(&self, named: &SafeName, sidecar: Sidecar, kept: &Kept) -> Option<Part> {
        let wanted = safe_name(&kept.name);
        let size = sidecar.identity.size?;
        let file = self.dir.open_existing(wanted.as_str(), false).ok()?;
        let facts = file.metadata().ok()?;
        if wanted.as_str() != kept.name || (facts.len(), modified_ns(&facts)) != (size, Some(kept.modified_ns)) {
            return None;
        }
        Some(Part {
            dir: Arc::clone(&self.dir),
            file,
            finished: Some(wanted.clone()),
            wanted,
            named: named.clone(),
            sidecar,
            // Not every peer understands a range of nothing.
            offset: size.saturating_sub(1),
            unwanted: false,
        })
    }

    fn create(&self, wanted: &SafeName, named: &SafeName, identity: &Identity) -> Result<Option<Part>, FileFault> {
        let file = match self.dir.create_new(&named.part()) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(e) => return Err(fault(&e)),
        };
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let sidecar = Sidecar { identity: identity.clone(), ..Sidecar::default() };
        let (wanted, named) = (wanted.clone(), named.clone());
        let mut part = Part {
            dir: Arc::clone(&self.dir),
            file,
            wanted,
            named,
            sidecar: Sidecar::default(),
            offset: 0,
            finished: None,
            unwanted: false,
        };
        part.write_sidecar(sidecar)?;
        Ok(Some(part))
    }

    fn read_sidecar(&self, name: &SafeName) -> Option<Sidecar> {
        read_sidecar(&self.dir, &name.sidecar())
    }
}

fn read_sidecar(dir: &Dir, name: &str) -> Option<Sidecar> {
    let file = dir.open_existing(name, false).ok()?;
    let mut text = Vec::new();
    file.take(part::LARGEST as u64 + 1).read_to_end(&mut text).ok()?;
    Sidecar::parse(&text)
}

fn modified_ns(facts: &std::fs::Metadata) -> Option<u64> {
    let since = facts.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// The text that says which finished file a sender may send again. Dropped, it goes.
#[derive(Debug)]
pub struct Receipt {
    dir: Arc<Dir>,
    sidecar: String,
    kept: Kept,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        // Another file of that name may be arriving, or has arrived.
        if read_sidecar(&self.dir, &self.sidecar).is_some_and(|it| it.kept.as_ref() == Some(&self.kept)) {
            let _ = self.dir.remove(&self.sidecar);
        }
    }
}

/// A file that is not complete, locked for us.
#[derive(Debug)]
pub struct Part {
    dir: Arc<Dir>,
    file: File,
    /// The name that the file is to get.
    wanted: SafeName,
    /// The name, perhaps with a number, of which the part and its sidecar have theirs.
    named: SafeName,
    sidecar: Sidecar,
    offset: u64,
    /// The name that it has already: nothing is written to it any more.
    finished: Option<SafeName>,
    /// Nobody wants it any more: it goes when dropped, as an empty one does.
    unwanted: bool,
}

impl Part {
    /// Bytes that are there and count: where a resume may start.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The name that the file is to get, if it is free.
    #[must_use]
    pub fn name(&self) -> &SafeName {
        &self.wanted
    }

    /// Cuts it at the offset that both sides agreed on, and leaves it there for writing.
    pub(super) fn start_at(&mut self, offset: u64) -> Result<(), FileFault> {
        if offset > self.offset {
            return Err(FileFault::BadRange);
        }
        if self.finished.is_none() {
            self.file.set_len(offset).map_err(|e| fault(&e))?;
        }
        self.file.seek(SeekFrom::Start(offset)).map_err(|e| fault(&e))?;
        self.offset = offset;
        Ok(())
    }

    /// Checks that the rest of a file of `size` bytes fits on the disk.
    pub(super) fn has_room(&self, size: u64) -> Result<(), FileFault> {
        Inbox { dir: Arc::clone(&self.dir) }.has_room(size.saturating_sub(self.offset))
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Appends bytes; of a finished file, compares them.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), FileFault> {
        if self.finished.is_none() {
            return self.file.write_all(bytes).map_err(|e| fault(&e));
        }
        let mut known = vec![0; bytes.len()];
        match self.file.read_exact(&mut known) {
            Ok(()) if known == bytes => Ok(()),
            Ok(()) | Err(_) => {
                self.spoil()?;
                Err(FileFault::Changed)
            }
        }
    }

    /// Gives it its final name, with a number where that is taken: nothing is ever replaced. The receipt is there where the
    /// system lets it be.
    pub(super) fn keep(mut self) -> Result<(PathBuf, Option<Receipt>), FileFault> {
        if let Some(name) = &self.finished {
            return Ok((self.dir.path().join(name.as_str()), self.sidecar.kept.clone().map(|kept| self.receipt(kept))));
        }
        let part = self.named.part();
        // Somebody may have put another file in its place.
        if !self.dir.is_named(&part, &self.file).map_err(|e| fault(&e))? {
            return Err(FileFault::Changed);
        }
        for number in 0..NUMBERS {
            let name = self.wanted.numbered(number);
            match self.dir.rename_new(&part, name.as_str()) {
                Ok(()) => {
                    let path = self.dir.path().join(name.as_str());
                    return Ok((path, self.sign(name.as_str())));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(fault(&e)),
            }
        }
        Err(FileFault::NoName)
    }

    /// The sidecar of what has its final name.
    fn sign(&mut self, name: &str) -> Option<Receipt> {
        let modified = self.file.metadata().ok().and_then(|facts| modified_ns(&facts));
        let kept = modified.map(|modified_ns| Kept { name: name.to_owned(), modified_ns });
        let sidecar = Sidecar { kept: kept.clone(), ..self.sidecar.clone() };
        // One that is too long to be read again would never be taken away: a name may have any length.
        let legible = sidecar.to_text().len() <= part::LARGEST;
        match kept {
            Some(kept) if legible && self.write_sidecar(sidecar).is_ok() => Some(self.receipt(kept)),
            Some(_) | None => {
                let _ = self.dir.remove(&self.named.sidecar());
                None
            }
        }
    }

    fn receipt(&self, kept: Kept) -> Receipt {
        Receipt { dir: Arc::clone(&self.dir), sidecar: self.named.sidecar(), kept }
    }

    /// Flags it as no start for a resume (J234-15).
    pub(super) fn spoil(&mut self) -> Result<(), FileFault> {
        if self.finished.is_some() {
            // It is another file after all, or the sender's is.
            drop(self.sidecar.kept.clone().map(|kept| self.receipt(kept)));
            return Ok(());
        }
        let sidecar = Sidecar { spoiled: true, ..self.sidecar.clone() };
        self.write_sidecar(sidecar)
    }

    /// It goes when dropped.
    pub(super) fn forget(&mut self) {
        self.unwanted = true;
    }

    /// Beside the old text first, so that a kill leaves one of the two.
    fn write_sidecar(&mut self, sidecar: Sidecar) -> Result<(), FileFault> {
        let (name, new) = (self.named.sidecar(), format!("{}~", self.named.sidecar()));
        let write = || -> io::Result<()> {
            match self.dir.remove(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
            self.dir.create_new(&new)?.write_all(sidecar.to_text().as_bytes())?;
            self.dir.replace(&new, &name)
        };
        write().map_err(|e| fault(&e))?;
        self.sidecar = sidecar;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let empty = self.file.metadata().is_ok_and(|facts| facts.len() == 0);
        // A finished file has another name by now.
        if (empty || self.unwanted) && self.dir.is_named(&self.named.part(), &self.file).unwrap_or(false) {
            let _ = self.dir.remove(&self.named.sidecar());
            let _ = self.dir.remove(&self.named.part());
        }
    }
}

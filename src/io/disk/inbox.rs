//! The directory that files are received into, and the parts in it.
//! Read `src/file/part.rs` and the file rows of the threat list in SECURITY.md before touching this file.

use super::dir::Dir;
use super::fault;
use crate::file::FileFault;
use crate::file::name::{SafeName, safe_name};
use crate::file::part::{self, Identity, Sidecar};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// processes too; a new one that stays empty goes again.
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
            unwanted: false,
        };
        // What this offer knows in addition helps the next one.
        let known = Sidecar { identity: part.sidecar.identity.joined(identity), spoiled: false };
        if part.sidecar != known {
            part.start_at(offset)?;
            part.write_sidecar(known)?;
        }
        Ok(Some(part))
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
        let sidecar = Sidecar { identity: identity.clone(), spoiled: false };
        let (wanted, named) = (wanted.clone(), named.clone());
        let mut part = Part {
            dir: Arc::clone(&self.dir),
            file,
            wanted,
            named,
            sidecar: Sidecar::default(),
            offset: 0,
            unwanted: false,
        };
        part.write_sidecar(sidecar)?;
        Ok(Some(part))
    }

    fn read_sidecar(&self, name: &SafeName) -> Option<Sidecar> {
        let file = self.dir.open_existing(&name.sidecar(), false).ok()?;
        let mut text = Vec::new();
        file.take(part::LARGEST as u64 + 1).read_to_end(&mut text).ok()?;
        Sidecar::parse(&text)
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
        self.file.set_len(offset).map_err(|e| fault(&e))?;
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

    /// Gives it its final name, with a number where that is taken: nothing is ever replaced.
    pub(super) fn keep(self) -> Result<PathBuf, FileFault> {
        let part = self.named.part();
        // Somebody may have put another file in its place.
        if !self.dir.is_named(&part, &self.file).map_err(|e| fault(&e))? {
            return Err(FileFault::Changed);
        }
        for number in 0..NUMBERS {
            let name = self.wanted.numbered(number);
            match self.dir.rename_new(&part, name.as_str()) {
                Ok(()) => {
                    let _ = self.dir.remove(&self.named.sidecar());
                    return Ok(self.dir.path().join(name.as_str()));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(fault(&e)),
            }
        }
        Err(FileFault::NoName)
    }

    /// Flags it as no start for a resume (J234-15).
    pub(super) fn spoil(&mut self) -> Result<(), FileFault> {
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

//! Files that are sent: what a list of paths holds, and one file of it, opened.

use super::fault;
use crate::file::FileFault;
use crate::file::hash::Hashers;
use crate::file::name::{SafeName, flattened};
use crate::wire::file::{FileHash, HashAlgo};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folders inside of folders that are entered.
const DEPTH: usize = 64;

/// A file that may be sent, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// What the peer is told: a file below a directory has the names of its folders in front.
    pub name: SafeName,
    /// Bytes.
    pub size: u64,
    /// Last change, where the system knows it.
    pub modified: Option<SystemTime>,
    /// Device and number, where the system has them.
    id: Option<(u64, u64)>,
}

/// What a list of paths holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outbox {
    /// In the order of the list; those of a directory by name.
    pub files: Vec<Entry>,
    /// Links, devices and other things in directories that are not sent.
    pub skipped: Vec<PathBuf>,
}

impl Outbox {
    /// Looks at paths. A directory stands for all files below it; links inside of it are not followed, one that the user
    /// named is.
    ///
    /// # Errors
    /// The first path that is missing, may not be read, or is neither file nor directory.
    pub fn new<P: AsRef<Path>>(paths: &[P]) -> Result<Self, (PathBuf, FileFault)> {
        let mut outbox = Self::default();
        for path in paths {
            let path = path.as_ref();
            let wrong = |e: io::Error| (path.to_owned(), fault(&e));
            let facts = std::fs::metadata(path).map_err(wrong)?;
            let name = match path.file_name() {
                Some(name) => name.to_string_lossy().into_owned(),
                // `.` and `..` have the name that they have elsewhere.
                None => {
                    path.canonicalize().map_err(wrong)?.file_name().unwrap_or_default().to_string_lossy().into_owned()
                }
            };
            if facts.is_dir() {
                outbox.enter(path, &mut vec![name])?;
            } else if facts.is_file() {
                outbox.files.push(Entry::new(path.to_owned(), flattened([name.as_str()]), &facts));
            } else {
                return Err((path.to_owned(), FileFault::NotAFile));
            }
        }
        Ok(outbox)
    }

    fn enter(&mut self, folder: &Path, names: &mut Vec<String>) -> Result<(), (PathBuf, FileFault)> {
        let wrong = |e: io::Error| (folder.to_owned(), fault(&e));
        let mut entries: Vec<_> = std::fs::read_dir(folder).and_then(Iterator::collect).map_err(wrong)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            // Of a link these are the facts of the link itself.
            let facts = entry.metadata().map_err(|e| (path.clone(), fault(&e)))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
            if facts.is_dir() && names.len() < DEPTH {
                self.enter(&path, names)?;
            } else if facts.is_file() {
                self.files.push(Entry::new(path, flattened(names.iter().map(String::as_str)), &facts));
            } else {
                self.skipped.push(path);
            }
            names.pop();
        }
        Ok(())
    }
}

impl Entry {
    fn new(path: PathBuf, name: SafeName, facts: &Metadata) -> Self {
        Self { path, name, size: facts.len(), modified: facts.modified().ok(), id: id(facts) }
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`FileFault::Changed`] if it is not what it was when it was looked at.
    pub fn open(&self) -> Result<Source, FileFault> {
        let file = open_to_read(&self.path).map_err(|e| fault(&e))?;
        let source = Source { file, entry: self.clone() };
        source.unchanged()?;
        Ok(source)
    }

    /// Hashes of the whole file, for an offer that names them. Blocks as long as reading takes.
    ///
    /// # Errors
    /// As [`Self::open`], and if it changes meanwhile.
    pub fn hashes(&self, algos: &[HashAlgo]) -> Result<Vec<FileHash>, FileFault> {
        let mut source = self.open()?;
        let mut hashers = Hashers::new(algos.iter().copied());
        let mut block = vec![0; 128 * 1024];
        loop {
            match source.file.read(&mut block) {
                Ok(0) => break,
                Ok(bytes) => hashers.update(block.get(..bytes).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(fault(&e)),
            }
        }
        source.unchanged()?;
        Ok(hashers.finish())
    }
}

/// An open file that is sent.
#[derive(Debug)]
pub struct Source {
    file: File,
    entry: Entry,
}

impl Source {
    /// What it is.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Checks that size and date are those of the offer: a file that grows, shrinks or is written to while it is sent
    /// would arrive as a mixture.
    pub(super) fn unchanged(&self) -> Result<(), FileFault> {
        let facts = self.file.metadata().map_err(|e| fault(&e))?;
        let now = (facts.is_file(), facts.len(), facts.modified().ok(), id(&facts));
        if now == (true, self.entry.size, self.entry.modified, self.entry.id) {
            Ok(())
        } else {
            Err(FileFault::Changed)
        }
    }
}

#[cfg(unix)]
fn open_to_read(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    // A FIFO that stands there by now would block the open.
    Ok(open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into())
}

#[cfg(not(unix))]
fn open_to_read(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps)]
fn id(facts: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    Some((facts.dev(), facts.ino()))
}

#[cfg(not(unix))]
fn id(_: &Metadata) -> Option<(u64, u64)> {
    None
}

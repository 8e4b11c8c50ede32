//! One directory by its handle: every name below it is one component, and no link is followed.
//! Read openat(2), O_NOFOLLOW and renameat2(2), RENAME_NOREPLACE, before touching this file.
//!
//! rustix and not cap-std: a safe name has no components that a sandbox would have to walk, and cap-std has no rename that
//! refuses to replace. Where there is no openat, the same is done by path, with one look before.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct Dir {
    #[cfg(unix)]
    handle: std::os::fd::OwnedFd,
    path: PathBuf,
}

impl Dir {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(unix)]
mod imp {
    use super::{Dir, File, Path, io};
    use rustix::fs::{self, AtFlags, Mode, OFlags};
    use std::os::unix::fs::MetadataExt as _;

    impl Dir {
        pub(in super::super) fn open(path: &Path) -> io::Result<Self> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(Self { handle: fs::open(path, flags, Mode::empty())?, path: path.to_owned() })
        }

        /// A new file, readable and writable; `AlreadyExists` if the name is taken, by a link that leads nowhere too.
        pub(in super::super) fn create_new(&self, name: &str) -> io::Result<File> {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(fs::openat(&self.handle, name, flags, Mode::from_raw_mode(0o666))?.into())
        }

        /// A file that is there: regular, no link, and under no second name.
        pub(in super::super) fn open_existing(&self, name: &str, write: bool) -> io::Result<File> {
            let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
            // A FIFO without a writer would block the open.
            let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file: File = fs::openat(&self.handle, name, flags, Mode::empty())?.into();
            let facts = file.metadata()?;
            if !facts.is_file() || (write && facts.nlink() != 1) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            Ok(file)
        }

        /// Gives `from` the name `to`; `AlreadyExists` if that is taken.
        pub(in super::super) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
            use rustix::io::Errno;
            #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
            match fs::renameat_with(&self.handle, from, &self.handle, to, fs::RenameFlags::NOREPLACE) {
                // Some file systems do not know it.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                done => return Ok(done?),
            }
            match fs::linkat(&self.handle, from, &self.handle, to, AtFlags::empty()) {
                Ok(()) => return self.remove(from),
                // Nor links.
                Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP | Errno::MLINK) => {}
                Err(e) => return Err(e.into()),
            }
            drop(self.create_new(to)?);
            self.replace(from, to)
        }

        /// Gives `from` the name `to`, whatever had it.
        pub(in super::super) fn replace(&self, from: &str, to: &str) -> io::Result<()> {
            Ok(fs::renameat(&self.handle, from, &self.handle, to)?)
        }

        pub(in super::super) fn remove(&self, name: &str) -> io::Result<()> {
            Ok(fs::unlinkat(&self.handle, name, AtFlags::empty())?)
        }

        /// Whether `file` is what `name` stands for.
        pub(in super::super) fn is_named(&self, name: &str, file: &File) -> io::Result<bool> {
            let named = fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let own = fs::fstat(file)?;
            Ok((named.st_dev, named.st_ino) == (own.st_dev, own.st_ino))
        }

        /// Bytes that we may still write.
        pub(in super::super) fn free_bytes(&self) -> io::Result<u64> {
            let facts = fs::fstatvfs(&self.handle)?;
            Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use super::{Dir, File, Path, io};
    use std::fs::{self, OpenOptions};

    impl Dir {
        pub(in super::super) fn open(path: &Path) -> io::Result<Self> {
            let facts = fs::metadata(path)?;
            let path = path.to_owned();
            if facts.is_dir() { Ok(Self { path }) } else { Err(io::ErrorKind::NotADirectory.into()) }
        }

        pub(in super::super) fn create_new(&self, name: &str) -> io::Result<File> {
            OpenOptions::new().read(true).write(true).create_new(true).open(self.path.join(name))
        }

        pub(in super::super) fn open_existing(&self, name: &str, write: bool) -> io::Result<File> {
            let path = self.path.join(name);
            if !fs::symlink_metadata(&path)?.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            OpenOptions::new().read(true).write(write).open(path)
        }

        /// A hard link never replaces.
        pub(in super::super) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
            fs::hard_link(self.path.join(from), self.path.join(to))?;
            self.remove(from)
        }

        pub(in super::super) fn replace(&self, from: &str, to: &str) -> io::Result<()> {
            fs::rename(self.path.join(from), self.path.join(to))
        }

        pub(in super::super) fn remove(&self, name: &str) -> io::Result<()> {
            fs::remove_file(self.path.join(name))
        }

        pub(in super::super) fn is_named(&self, name: &str, _: &File) -> io::Result<bool> {
            self.path.join(name).try_exists()
        }

        /// Not known: a full disk shows when it is full.
        pub(in super::super) fn free_bytes(&self) -> io::Result<u64> {
            Ok(u64::MAX)
        }
    }
}

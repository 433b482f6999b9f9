//! The root directory of a store: its lock, its format, and files written whole.
//!
//! ```text
//! <root>/lock            held by flock(2) while a process has the store open; holds its pid
//!        format.json     the version and features of the format, and the default driver
//!        catalogue.redb  the index; can be rebuilt from everything else
//!        images/<hex>/   config.json (its digest is the name) and image.json (names, drivers)
//!        <driver>/       the home of each driver that was ever used
//!        files/<hex>     lists of the files of layers, by diffID; may be lost at any time
//!        tmp/            emptied whenever the store is opened
//! ```

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The name of the catalogue's file in the root.
pub(crate) const CATALOGUE: &str = "catalogue.redb";
/// The name of the directory of image files in the root.
pub(crate) const IMAGES: &str = "images";
/// The name of the directory of lists of files in the root.
pub(crate) const FILES: &str = "files";
/// The name of the directory of unfinished things in the root.
pub(crate) const TMP: &str = "tmp";
const LOCK: &str = "lock";
const FORMAT: &str = "format.json";
/// The version of the format that this program writes.
const VERSION: u32 = 1;
/// The longest file that is read whole: configs are the largest, and registries stop at 4 MiB.
const MAX_FILE: u64 = 16 << 20;

/// The format of a store. Features follow the file systems' rule: an unknown *compatible* one is
/// ignored, an unknown *read-only compatible* one forbids writing, an unknown *incompatible* one
/// forbids opening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Format {
    version: u32,
    #[serde(default)]
    compatible: Vec<String>,
    #[serde(default)]
    read_only_compatible: Vec<String>,
    #[serde(default)]
    incompatible: Vec<String>,
    /// The default driver that was chosen first; kept, so that images do not vanish from sight
    /// because another driver has become possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_driver: Option<String>,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            version: VERSION,
            compatible: Vec::new(),
            read_only_compatible: Vec::new(),
            incompatible: Vec::new(),
            default_driver: None,
        }
    }
}

impl Format {
    /// Refuses what this program cannot keep; no feature is known yet.
    fn admit(&self, path: &Path, access: Access) -> Result<()> {
        let refused = |reason: String| {
            let what = path.join(FORMAT).display().to_string();
            Err(Error::refused("open store", what, reason, ErrorKind::Unsupported))
        };
        if self.version != VERSION {
            return refused(format!("format {} is not {VERSION}", self.version));
        }
        if let Some(feature) = self.incompatible.first() {
            return refused(format!("the format has the unknown feature {feature:?}"));
        }
        match self.read_only_compatible.first() {
            Some(feature) if access != Access::Look => {
                refused(format!("the unknown feature {feature:?} forbids writing"))
            }
            _ => Ok(()),
        }
    }
}

/// What for a root is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be used; made where there is none.
    Serve,
    /// To be mended; must exist.
    Mend,
    /// To be looked at; must exist, and nothing is changed.
    Look,
}

/// The root directory of a store, held open and locked.
#[derive(Debug)]
pub(crate) struct Root {
    dir: OwnedFd,
    path: PathBuf,
    format: Format,
    /// Whether `format.json` was missing although there is a store.
    lost_format: bool,
    _lock: Lock,
}

impl Root {
    /// Opens, locks and reads the root.
    ///
    /// # Errors
    /// `InUse` when another process holds it, `NotFound` when it must exist and does not,
    /// `Unsupported` for the format of a newer program.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self> {
        if access == Access::Serve {
            std::fs::create_dir_all(path).map_err(|e| Error::sys("mkdir", path, e))?;
        }
        let dir =
            fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
                .map_err(|e| Error::sys("open store", path, e))?;
        // Drivers hand out paths below the root, so it must not depend on the working directory.
        let path = path.canonicalize().map_err(|e| Error::sys("canonicalize", path, e))?;
        let is_store = exists(&dir, CATALOGUE)? || exists(&dir, IMAGES)?;
        if access != Access::Serve && !is_store && !exists(&dir, FORMAT)? {
            let what = path.display().to_string();
            let kind = ErrorKind::NotFound;
            return Err(Error::refused("open store", what, "there is no store of layerd", kind));
        }
        let lock = lock(&dir, &path)?;
        let mut root =
            Self { dir, path, format: Format::default(), lost_format: false, _lock: lock };
        match root.read_opt(FORMAT)? {
            Some(bytes) => root.format = root.parse_format(&bytes)?,
            None => root.lost_format = is_store,
        }
        if root.lost_format && access == Access::Serve {
            let what = root.path.join(FORMAT).display().to_string();
            let reason = "missing, although there is a store; run layerd check --repair";
            return Err(Error::refused("open store", what, reason, ErrorKind::Corrupt));
        }
        root.format.admit(&root.path, access)?;
        if access != Access::Look {
            root.prepare()?;
        }
        Ok(root)
    }

    /// Makes what every store has, and empties `tmp`.
    fn prepare(&self) -> Result<()> {
        let mode = Mode::RWXU;
        fs::fchmod(&self.dir, mode).map_err(|e| Error::sys("fchmod", &self.path, e))?;
        for name in [IMAGES, FILES, TMP] {
            match fs::mkdirat(&self.dir, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Error::sys("mkdirat", name, error)),
            }
        }
        if !exists(&self.dir, FORMAT)? {
            self.write_format(&self.format)?;
        }
        let tmp = self.subdir(TMP)?;
        for name in names(&tmp, TMP)? {
            remove_all(&tmp, &name)?;
        }
        Ok(())
    }

    fn parse_format(&self, bytes: &[u8]) -> Result<Format> {
        serde_json::from_slice(bytes).map_err(|error| {
            let what = self.path.join(FORMAT).display().to_string();
            Error::refused("read", what, error.to_string(), ErrorKind::Corrupt)
        })
    }

    fn write_format(&self, format: &Format) -> Result<()> {
        let mut bytes = to_json(format, FORMAT)?;
        bytes.push(b'\n');
        write_whole(&self.dir, FORMAT, &bytes)
    }

    /// Notes the default driver for the processes to come.
    pub(crate) fn remember_driver(&self, name: &str) -> Result<()> {
        if self.format.default_driver.as_deref() == Some(name) {
            return Ok(());
        }
        let format = Format { default_driver: Some(name.to_owned()), ..self.format.clone() };
        self.write_format(&format)
    }

    /// The format as it was when the root was opened.
    pub(crate) fn format(&self) -> &Format {
        &self.format
    }

    /// Whether `format.json` is missing from a store.
    pub(crate) fn lost_format(&self) -> bool {
        self.lost_format
    }

    /// The root's path, absolute and without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a directory right in the root.
    pub(crate) fn subdir(&self, name: &str) -> Result<OwnedFd> {
        open_dir(&self.dir, name)
    }

    /// Reads a file right in the root; none if there is none.
    pub(crate) fn read_opt(&self, name: &str) -> Result<Option<Vec<u8>>> {
        read_opt(&self.dir, name)
    }

    /// Reads the catalogue's file, of any length; none if there is none.
    pub(crate) fn read_catalogue(&self) -> Result<Option<Vec<u8>>> {
        read_up_to(&self.dir, CATALOGUE, u64::MAX)
    }

    /// Whether a driver has ever kept anything here.
    pub(crate) fn has_home(&self, driver: &str) -> Result<bool> {
        match open_dir(&self.dir, driver) {
            Ok(home) => Ok(!names(&home, driver)?.is_empty()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a driver has layers here, or what is left of some.
    pub(crate) fn has_layers(&self, driver: &str) -> Result<bool> {
        let home = open_dir(&self.dir, driver)?;
        for place in ["layers", "tmp", "trash"] {
            match open_dir(&home, place) {
                Ok(dir) if names(&dir, place)?.is_empty() => {}
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The store's lock, given back when this is dropped.
#[derive(Debug)]
struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // Not by closing the file, which a child that is just being started may have as well.
        let _ = fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes the store's lock, and writes our pid into it for the message that the next one gets.
fn lock(dir: &OwnedFd, path: &Path) -> Result<Lock> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = fs::openat(dir, LOCK, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|e| Error::sys("openat", LOCK, e))?;
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = [0; 16];
            let length = rustix::io::pread(&file, &mut holder, 0).unwrap_or(0);
            let holder = String::from_utf8_lossy(&holder[..length]);
            let reason = format!("in use by another process (pid {})", holder.trim());
            let what = path.display().to_string();
            return Err(Error::refused("open store", what, reason, ErrorKind::InUse));
        }
        Err(error) => return Err(Error::sys("flock", LOCK, error)),
    }
    let pid = format!("{}\n", std::process::id());
    fs::ftruncate(&file, 0)
        .and_then(|()| rustix::io::pwrite(&file, pid.as_bytes(), 0))
        .map_err(|e| Error::sys("write", LOCK, e))?;
    Ok(Lock(file))
}

/// Whether a name exists in a directory.
pub(crate) fn exists(dir: impl AsFd, name: &str) -> Result<bool> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(Error::sys("fstatat", name, error)),
    }
}

/// Opens a directory in a directory.
pub(crate) fn open_dir(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    fs::openat(dir, name, flags, Mode::empty()).map_err(|e| Error::sys("openat", name, e))
}

/// The names in a directory, in order; `label` is for the message.
pub(crate) fn names(dir: impl AsFd, label: &str) -> Result<Vec<String>> {
    let failed = |e| Error::sys("readdir", label, e);
    let mut found = Vec::new();
    for entry in fs::Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        match entry.file_name().to_str() {
            Ok("." | "..") => {}
            Ok(name) => found.push(name.to_owned()),
            Err(_) => return Err(failed(Errno::ILSEQ)),
        }
    }
    found.sort();
    Ok(found)
}

/// Opens a regular file for reading; none if there is none.
pub(crate) fn open_opt(dir: impl AsFd, name: &str) -> Result<Option<std::fs::File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(std::fs::File::from(fd))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Error::sys("openat", name, error)),
    }
}

/// Reads a regular file whole; none if there is none.
pub(crate) fn read_opt(dir: impl AsFd, name: &str) -> Result<Option<Vec<u8>>> {
    read_up_to(dir, name, MAX_FILE)
}

fn read_up_to(dir: impl AsFd, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_opt(dir, name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| Error::sys("read", name, e))?;
    if bytes.len() as u64 > limit {
        let reason = format!("longer than {limit} bytes");
        return Err(Error::refused("read", name, reason, ErrorKind::Corrupt));
    }
    Ok(Some(bytes))
}

/// Writes a file under a temporary name, syncs it, and renames it into place, so that whatever
/// happens the name shows the old bytes or the new ones.
pub(crate) fn write_whole(dir: impl AsFd, name: &str, bytes: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    let temporary = format!(".{name}.new");
    let write = || -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = fs::openat(dir, &temporary, flags | OFlags::NOFOLLOW, mode)?;
        let mut file = std::fs::File::from(fd);
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::renameat(dir, &temporary, dir, name)?;
        fs::fsync(dir)?;
        Ok(())
    };
    write().map_err(|e| {
        let _ = fs::unlinkat(dir, &temporary, AtFlags::empty());
        Error::sys("write", name, e)
    })
}

/// Removes a file or a whole directory. Only for the store's own small trees.
pub(crate) fn remove_all(dir: impl AsFd, name: &str) -> Result<()> {
    let dir = dir.as_fd();
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(Error::sys("unlinkat", name, error)),
    }
    let inner = open_dir(dir, name)?;
    for child in names(&inner, name)? {
        remove_all(&inner, &child)?;
    }
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(|e| Error::sys("rmdir", name, e))
}

/// Writes a value of our own as JSON.
pub(crate) fn to_json<T: Serialize>(value: &T, name: &str) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::refused("encode", name, e.to_string(), ErrorKind::InvalidArgument))
}

#[cfg(test)]
mod tests;

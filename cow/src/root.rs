//! A directory tree under a held fd, and how names are resolved in it.
//!
//! Every path handed to a [`Root`] is relative to it, with or without leading slashes; the empty
//! path is the root itself. There are two ways to resolve ([`Resolve`]): trees that layerd walks
//! itself have no reason to pass a symbolic link, so that [`Resolve::Beneath`] is what all short
//! method names do; the entries of a tar are names as a process inside the container would mean
//! them, and are resolved by [`Resolve::InRoot`]. Neither ever leaves the root or enters `/proc`
//! magic links ([`openat2(2)`](https://man7.org/linux/man-pages/man2/openat2.2.html)).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::at;
use crate::error::{Error, Result};
use crate::meta::{Meta, Xattrs};
use crate::xattr;

/// How symbolic links within a path are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// No link is passed at all, and `..` may not climb above the root: either is an error.
    Beneath,
    /// Links are followed as if the root were `/` (chroot's rule), except the last component.
    InRoot,
}

impl Resolve {
    fn flags(self) -> ResolveFlags {
        match self {
            Self::Beneath => {
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
            }
            Self::InRoot => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        }
    }
}

/// A directory that is held open, below which names are resolved.
///
/// Cheap to share by reference between threads; [`Root::try_clone`] makes another owner.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    label: PathBuf,
}

/// Linux refuses longer paths in one call, its NUL included.
const PATH_MAX: usize = 4096;

impl Root {
    /// Opens a directory by its path in this process's view, following links; the path becomes the
    /// label of errors.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|error| Error::sys("open root", path, error))?;
        Ok(Self { fd, label: path.to_owned() })
    }

    /// Takes a directory fd, opened in any mode, with a label for errors.
    pub fn from_fd(fd: impl Into<OwnedFd>, label: impl Into<PathBuf>) -> Self {
        Self { fd: fd.into(), label: label.into() }
    }

    /// Makes another owner of the same directory.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().map_err(|error| self.error("dup", "", error))?;
        Ok(Self { fd, label: self.label.clone() })
    }

    /// What errors call this root: the path it was opened by.
    pub fn label(&self) -> &Path {
        &self.label
    }

    /// An error about a path below this root.
    pub fn error(
        &self,
        op: &'static str,
        path: impl AsRef<Path>,
        error: impl Into<std::io::Error>,
    ) -> Error {
        Error::sys(op, self.name(path.as_ref()), error)
    }

    /// A path below this root as errors show it.
    fn name(&self, path: &Path) -> PathBuf {
        let path = strip(path);
        if path.as_os_str().is_empty() { self.label.clone() } else { self.label.join(path) }
    }

    /// `openat2(2)` - Opens a path in either mode of resolution, the last component never followed.
    ///
    /// Close-on-exec is added. The errno stays bare for callers that act on it.
    pub fn open_with(
        &self,
        path: &Path,
        flags: OFlags,
        mode: Mode,
        resolve: Resolve,
    ) -> rustix::io::Result<OwnedFd> {
        let path = strip(path);
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if resolve == Resolve::Beneath && path.as_os_str().len() >= PATH_MAX {
            return open_long(self.fd.as_fd(), path, flags, mode);
        }
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(self.fd.as_fd(), path, flags, mode, resolve)
    }

    /// Opens a directory below the root as a root of its own.
    pub fn subroot(&self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fd = self
            .open_with(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), Resolve::Beneath)
            .map_err(|error| self.error("open directory", path, error))?;
        Ok(Self { fd, label: self.name(path) })
    }

    /// Opens a directory for reading.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        let path = path.as_ref();
        self.open_with(path, at::DIR, Mode::empty(), Resolve::Beneath)
            .map_err(|error| self.error("open directory", path, error))
    }

    /// Opens a regular file for reading; never blocks and never opens a device.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path, Resolve::Beneath)?;
        at::open_file_at(&dir, name).map_err(|error| self.error("open", path, error))
    }

    /// Opens any path as an `O_PATH` handle, a symbolic link as itself.
    pub fn open_handle(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        let path = path.as_ref();
        self.open_with(path, OFlags::PATH, Mode::empty(), Resolve::Beneath)
            .map_err(|error| self.error("open", path, error))
    }

    /// The directory that holds a path, and the path's last component, which may not exist.
    ///
    /// The root itself is held by itself under the empty name, which all of [`at`] and [`xattr`]
    /// take; a trailing `..` or `.` is refused.
    pub fn parent<'p>(&self, path: &'p Path, resolve: Resolve) -> Result<(Dir<'_>, &'p OsStr)> {
        let path = strip(path);
        let (above, name) = split(path).ok_or_else(|| {
            Error::invalid("resolve", self.name(path), "the last component is no name")
        })?;
        if above.as_os_str().is_empty() {
            return Ok((Dir::Root(self.fd.as_fd()), name));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        // In a chroot a directory's own last component is followed like any other.
        let dir = match resolve {
            Resolve::Beneath => self.open_with(above, flags, Mode::empty(), resolve),
            Resolve::InRoot => self.open_followed(above),
        };
        let dir = dir.map_err(|error| self.error("open directory", above, error))?;
        Ok((Dir::Below(dir), name))
    }

    /// Opens a directory in chroot's way, the last component followed too, as an `O_PATH` handle.
    pub fn open_followed(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = strip(path);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(self.fd.as_fd(), path, flags, Mode::empty(), Resolve::InRoot)
    }

    /// The metadata of a path; none if it, or a directory on the way to it, does not exist.
    pub fn meta(&self, path: impl AsRef<Path>) -> Result<Option<Meta>> {
        let path = path.as_ref();
        let Some((dir, name)) = self.existing_parent(path)? else { return Ok(None) };
        at::meta_at(&dir, name).map_err(|error| self.error("statx", path, error))
    }

    /// Whether a path exists, as a file of any kind.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        self.meta(path).map(|meta| meta.is_some())
    }

    /// The text of a symbolic link.
    pub fn readlink(&self, path: impl AsRef<Path>) -> Result<OsString> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path, Resolve::Beneath)?;
        at::readlink_at(&dir, name).map_err(|error| self.error("readlink", path, error))
    }

    /// All extended attributes of a path.
    pub fn xattrs(&self, path: impl AsRef<Path>) -> Result<Xattrs> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path, Resolve::Beneath)?;
        xattr::read_at(&dir, name).map_err(|error| self.error("getxattr", path, error))
    }

    /// One extended attribute of a path; none if it has no such attribute.
    pub fn xattr(&self, path: impl AsRef<Path>, attr: &OsStr) -> Result<Option<Vec<u8>>> {
        let path = path.as_ref();
        let (dir, name) = self.parent(path, Resolve::Beneath)?;
        xattr::get_at(&dir, name, attr).map_err(|error| self.error("getxattr", path, error))
    }

    /// As [`Root::parent`], but none where the way to the path does not exist.
    pub(crate) fn existing_parent<'p>(
        &self,
        path: &'p Path,
    ) -> Result<Option<(Dir<'_>, &'p OsStr)>> {
        match self.parent(path, Resolve::Beneath) {
            Ok(found) => Ok(Some(found)),
            Err(Error::Sys { source, .. }) if is_absent(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A directory that holds a name: the root's own fd, or one that was opened for it.
#[derive(Debug)]
pub enum Dir<'r> {
    /// The root itself.
    Root(BorrowedFd<'r>),
    /// A directory below the root.
    Below(OwnedFd),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

/// Whether an error says that a path does not exist: a component is missing, or is no directory.
pub(crate) fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
    )
}

/// A path without leading slashes.
fn strip(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let slashes = bytes.iter().take_while(|byte| **byte == b'/').count();
    Path::new(OsStr::from_bytes(&bytes[slashes..]))
}

/// Splits off the last component; the empty path is nothing below nothing.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let mut parts = path.components();
    match parts.next_back() {
        None | Some(Component::CurDir) => Some((Path::new(""), OsStr::new(""))),
        Some(Component::Normal(name)) => Some((parts.as_path(), name)),
        Some(_) => None,
    }
}

fn openat2(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: Resolve,
) -> rustix::io::Result<OwnedFd> {
    cow_sys::resolve::openat2(dir, path, flags, mode, resolve.flags())
}

/// Opens a path that is too long for one call, some components at a time.
///
/// Only right where no link is passed: then each prefix is resolved the same by itself.
fn open_long(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let mut held: Option<OwnedFd> = None;
    let mut piece = PathBuf::new();
    let step = |held: &Option<OwnedFd>, piece: &Path, flags| {
        let dir = held.as_ref().map_or(root, AsFd::as_fd);
        openat2(dir, piece, flags, mode, Resolve::Beneath)
    };
    for part in path.components() {
        // Beneath the root of a later piece `..` would be refused although it is beneath ours.
        let Component::Normal(name) = part else { return Err(Errno::NAMETOOLONG) };
        if piece.as_os_str().len() + 1 + name.len() >= PATH_MAX {
            let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            held = Some(step(&held, &piece, through)?);
            piece.clear();
        }
        piece.push(name);
    }
    step(&held, &piece, flags)
}

#[cfg(test)]
mod tests;

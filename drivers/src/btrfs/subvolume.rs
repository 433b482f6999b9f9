//! Subvolumes: made, snapshotted and looked at by ioctl, which needs no privileges.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use btrfs_uapi::inode::ino_lookup_user;
use btrfs_uapi::subvolume::{
    self, SubvolRootRef, SubvolumeFlags, snapshot_create, subvol_rootrefs, subvolume_create,
    subvolume_flags_get,
};
use cow::error::{Error, Result};
use rustix::fs::{AtFlags, FileType};

use super::search;
use crate::home::fs;

/// The inode number of every subvolume's root directory (`BTRFS_FIRST_FREE_OBJECTID`).
pub(super) const ROOT_INO: u64 = 256;

/// Whether a snapshot can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writable {
    /// By everybody whom the modes of its files let.
    Yes,
    /// By nobody, root included.
    No,
}

/// What the driver wants to know of a subvolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Info {
    /// Its number in this file system, which is that of its quota group too.
    pub(super) id: u64,
    /// Its identity, new for every snapshot and for every copy that was received elsewhere.
    pub(super) uuid: String,
    /// The transaction in which it was made: whatever a snapshot shows that is newer was not in what
    /// it was taken of.
    pub(super) made_in: u64,
    /// The last transaction, of those that have ended, in which something in it was written.
    pub(super) changed_in: u64,
}

/// A name as the ioctls take it.
pub(super) fn c_name(name: &OsStr) -> Result<CString> {
    CString::new(name.as_bytes()).map_err(|_| Error::invalid("name", name, "holds a NUL byte"))
}

/// Makes an empty subvolume.
pub(super) fn create(dir: impl AsFd, name: &str) -> Result<()> {
    subvolume_create(dir.as_fd(), &c_name(name.as_ref())?, &[])
        .map_err(|errno| Error::sys("create subvolume", name, errno))
}

/// Takes a snapshot. What was written to the source before is in it, and is durable with it: the
/// kernel writes out the source's data and commits its transaction (`create_snapshot`).
pub(super) fn snapshot(
    source: impl AsFd,
    dir: impl AsFd,
    name: &str,
    writable: Writable,
) -> Result<()> {
    let is_fixed = writable == Writable::No;
    snapshot_create(dir.as_fd(), source.as_fd(), &c_name(name.as_ref())?, is_fixed, &[])
        .map_err(|errno| Error::sys("snapshot", name, errno))
}

/// Looks at the subvolume that an open directory is in.
pub(super) fn info(dir: impl AsFd) -> Result<Info> {
    let info = subvolume::subvolume_info(dir.as_fd())
        .map_err(|errno| Error::sys("look at subvolume", "", errno))?;
    let (made_in, changed_in) = (info.otransid, info.generation);
    Ok(Info { id: info.id, uuid: info.uuid.to_string(), made_in, changed_in })
}

/// Whether a name is a subvolume; it may be absent.
pub(super) fn is_subvolume(dir: impl AsFd, name: impl AsRef<Path>) -> Result<bool> {
    let name = name.as_ref();
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            Ok(is_dir && stat.st_ino == ROOT_INO)
        }
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::sys("stat", name, errno)),
    }
}

/// Whether a directory is the root of a subvolume.
pub(super) fn is_root(dir: impl AsFd) -> Result<bool> {
    let stat = rustix::fs::fstat(dir).map_err(|errno| Error::sys("fstat", "", errno))?;
    Ok(stat.st_ino == ROOT_INO)
}

/// Whether a subvolume refuses to be written to.
pub(super) fn is_fixed(dir: impl AsFd) -> Result<bool> {
    let flags = subvolume_flags_get(dir.as_fd())
        .map_err(|errno| Error::sys("look at subvolume", "", errno))?;
    Ok(flags.contains(SubvolumeFlags::RDONLY))
}

/// The subvolumes right inside the one that `dir` is the root of.
///
/// The ioctl takes any directory and speaks of the subvolume that the directory is in; asked by
/// mistake of a plain one, it would name the layers of the home.
fn children(dir: BorrowedFd<'_>) -> Result<Vec<SubvolRootRef>> {
    if !is_root(dir)? {
        return Ok(Vec::new());
    }
    subvol_rootrefs(dir).map_err(|errno| Error::sys("find subvolumes", "", errno))
}

/// Whether there are subvolumes inside the one that `dir` is the root of.
pub(super) fn has_nested(dir: impl AsFd) -> Result<bool> {
    Ok(!children(dir.as_fd())?.is_empty())
}

/// A subvolume inside another: the directory that holds it, by its path from the other's root, and
/// its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nested {
    pub(super) holder: PathBuf,
    pub(super) name: OsString,
}

impl Nested {
    /// Opens the directory that holds it.
    pub(super) fn open_holder(&self, dir: impl AsFd) -> Result<OwnedFd> {
        match self.holder.as_os_str().is_empty() {
            true => fs::open_dir(dir, "."),
            false => fs::open_dir(dir, &self.holder),
        }
    }
}

/// The subvolumes right inside the one that `dir` is the root of.
///
/// Read from the file system's trees, so the cost does not depend on the files.
pub(super) fn nested(dir: impl AsFd) -> Result<Vec<Nested>> {
    let dir = dir.as_fd();
    let children = children(dir)?;
    if children.is_empty() {
        return Ok(Vec::new());
    }
    match search::nested(dir, info(dir)?.id) {
        Ok(nested) => Ok(nested),
        // Without privileges the kernel tells a path only if it is UTF-8.
        Err(_) => children.iter().map(|child| looked_up(dir, child)).collect(),
    }
}

fn looked_up(dir: BorrowedFd<'_>, child: &SubvolRootRef) -> Result<Nested> {
    let found = ino_lookup_user(dir, child.treeid, child.dirid)
        .map_err(|errno| Error::sys("find subvolumes", "", errno))?;
    Ok(Nested { holder: found.path.into(), name: found.name.into() })
}

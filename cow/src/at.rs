//! One name below a directory fd: the calls of hot paths, which keep the bare errno.
//!
//! A name here is one component: never empty unless said so, never `.` or `..`, without a slash.
//! Names that come from outside are resolved by [`Root`](crate::root::Root), not here. Nothing
//! follows a symbolic link.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, Uid};
use rustix::io::{Errno, Result};

use crate::meta::{Device, FileKind, Meta, Time};

/// The flags of every directory that is opened for reading.
pub(crate) const DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The flags of every handle that is only walked through.
pub(crate) const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The metadata of a name; none if it does not exist. An empty name is the fd's own file.
pub fn meta_at(dir: impl AsFd, name: &OsStr) -> Result<Option<Meta>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    match rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(Some(Meta::from(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The metadata of an open file.
pub fn meta_of(file: impl AsFd) -> Result<Meta> {
    meta_at(file, OsStr::new(""))?.ok_or(Errno::NOENT)
}

/// Opens a directory for reading and as the base of further names.
pub fn open_dir_at(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    rustix::fs::openat(dir, name, DIR, Mode::empty())
}

/// Opens a regular file for reading.
///
/// Neither blocks on a pipe nor touches a device: what is no regular file is refused before it is
/// opened for real.
///
/// # Errors
/// `LOOP` for a symbolic link, `ISDIR` for a directory, `NXIO` for everything else that is no file.
pub fn open_file_at(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    let dir = dir.as_fd();
    // A plain open of a device has effects of its own (a tape rewinds), so look first.
    refuse_special(meta_at(dir, name)?.ok_or(Errno::NOENT)?.kind)?;
    open_regular_at(dir, name).map(|(file, _)| file)
}

/// As [`open_file_at`], for a name that was a regular file when it was last looked at; also gives
/// the metadata of what was opened.
///
/// The name may have been replaced since: a pipe does not block, and everything else that is no
/// regular file is refused after all.
pub(crate) fn open_regular_at(dir: impl AsFd, name: &OsStr) -> Result<(OwnedFd, Meta)> {
    let dir = dir.as_fd();
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner and root may leave the access time alone.
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty())?,
        opened => opened?,
    };
    let meta = meta_of(&file)?;
    refuse_special(meta.kind)?;
    Ok((file, meta))
}

fn refuse_special(kind: FileKind) -> Result<()> {
    match kind {
        FileKind::File => Ok(()),
        FileKind::Dir => Err(Errno::ISDIR),
        FileKind::Symlink => Err(Errno::LOOP),
        FileKind::Fifo | FileKind::Char(_) | FileKind::Block(_) | FileKind::Socket => {
            Err(Errno::NXIO)
        }
    }
}

/// The text of a symbolic link.
pub fn readlink_at(dir: impl AsFd, name: &OsStr) -> Result<OsString> {
    rustix::fs::readlinkat(dir, name, Vec::new()).map(|text| OsString::from_vec(text.into_bytes()))
}

/// Sets the owner of a name.
pub fn chown_at(dir: impl AsFd, name: &OsStr, uid: u32, gid: u32) -> Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::chownat(dir, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
}

/// Sets the permission bits of a name that is known to be no symbolic link.
///
/// Goes through an `O_PATH` handle, so that a link put in its place is not followed.
pub fn chmod_at(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<()> {
    let handle = rustix::fs::openat(dir, name, PATH, Mode::empty())?;
    if meta_of(&handle)?.kind == FileKind::Symlink {
        return Err(Errno::LOOP);
    }
    rustix::fs::chmod(magic_path(handle.as_fd()), Mode::from_raw_mode(mode & 0o7777))
}

/// Sets the modification time of a name, and its access time to the same.
pub fn set_mtime_at(dir: impl AsFd, name: &OsStr, mtime: Time) -> Result<()> {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    if name.is_empty() {
        return match rustix::fs::futimens(&dir, &times) {
            Err(Errno::BADF) => rustix::fs::utimensat(
                rustix::fs::CWD,
                magic_path(dir.as_fd()),
                &times,
                AtFlags::empty(),
            ),
            answer => answer,
        };
    }
    rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// The `/proc` name of an open fd, for the calls that take neither fd nor flags.
pub(crate) fn magic_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl From<&Statx> for Meta {
    fn from(stat: &Statx) -> Self {
        let mode = u32::from(stat.stx_mode);
        let device = Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor };
        Self {
            kind: match rustix::fs::FileType::from_raw_mode(mode) {
                rustix::fs::FileType::Directory => FileKind::Dir,
                rustix::fs::FileType::Symlink => FileKind::Symlink,
                rustix::fs::FileType::Fifo => FileKind::Fifo,
                rustix::fs::FileType::CharacterDevice => FileKind::Char(device),
                rustix::fs::FileType::BlockDevice => FileKind::Block(device),
                rustix::fs::FileType::Socket => FileKind::Socket,
                // Linux has no other types; a file system that invents one is read as a file.
                rustix::fs::FileType::RegularFile | rustix::fs::FileType::Unknown => FileKind::File,
            },
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mtime: Time { secs: stat.stx_mtime.tv_sec, nanos: stat.stx_mtime.tv_nsec },
            ctime: Time { secs: stat.stx_ctime.tv_sec, nanos: stat.stx_ctime.tv_nsec },
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            nlink: stat.stx_nlink,
            ino: stat.stx_ino,
            dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        }
    }
}

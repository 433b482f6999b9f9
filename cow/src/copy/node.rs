//! One file of any kind, with everything that belongs to it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Result;

use crate::at;
use crate::copy::{Copied, Copier};
use crate::meta::{Device, FileKind, Meta, Xattrs};
use crate::xattr;

/// What a new file is made from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The metadata that the new file gets.
    pub meta: &'a Meta,
    /// The attributes that the new file gets.
    pub xattrs: &'a Xattrs,
    /// The directory and name where the text of a link is.
    pub at: (BorrowedFd<'a>, &'a OsStr),
    /// The directory and name where the data of a file is.
    pub data: (BorrowedFd<'a>, &'a OsStr),
}

/// Makes a file that is like another one, under a name that does not exist.
///
/// A directory is made empty and private to its maker; [`finish`] gives it owner, attributes, mode
/// and times when what belongs in it is there. Everything else is finished when this returns. The
/// name is seen half-made meanwhile: where that matters, use a temporary one and rename it. `dir`
/// should have no default access list, which a file without a list of its own would inherit.
///
/// # Errors
/// `EXIST` for a name in use. After any other error the name may be there, half-made.
pub fn node(copier: &Copier, source: &Source<'_>, dir: impl AsFd, name: &OsStr) -> Result<Copied> {
    let dir = dir.as_fd();
    let private = Mode::RUSR | Mode::WUSR;
    let make = |kind, device: Device| {
        let device = rustix::fs::makedev(device.major, device.minor);
        rustix::fs::mknodat(dir, name, kind, private, device)
    };
    match source.meta.kind {
        FileKind::File => return file(copier, source, dir, name),
        FileKind::Dir => {
            rustix::fs::mkdirat(dir, name, private | Mode::XUSR)?;
            return Ok(Copied::default());
        }
        FileKind::Symlink => {
            rustix::fs::symlinkat(at::readlink_at(source.at.0, source.at.1)?, dir, name)?;
        }
        FileKind::Fifo => make(rustix::fs::FileType::Fifo, Device::default())?,
        FileKind::Socket => make(rustix::fs::FileType::Socket, Device::default())?,
        FileKind::Char(device) => make(rustix::fs::FileType::CharacterDevice, device)?,
        FileKind::Block(device) => make(rustix::fs::FileType::BlockDevice, device)?,
    }
    finish_named(source.meta, source.xattrs, dir, name)?;
    Ok(Copied::default())
}

fn file(copier: &Copier, source: &Source<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Copied> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target: OwnedFd = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    let mut copied = Copied::default();
    if source.meta.size > 0 {
        let (data, meta) = at::open_regular_at(source.data.0, source.data.1)?;
        copied = copier.data(&data, &meta, &target)?;
    }
    finish(source.meta, source.xattrs, &target)?;
    Ok(copied)
}

/// Gives an open file its owner, attributes, mode and times, in the one order that works: a change
/// of owner clears capabilities and setuid, attributes may change the mode, and all change times.
pub fn finish(meta: &Meta, xattrs: &Xattrs, target: impl AsFd) -> Result<()> {
    let target = target.as_fd();
    let itself = OsStr::new("");
    at::chown_at(target, itself, meta.uid, meta.gid)?;
    for (attr, value) in xattrs {
        xattr::set_at(target, itself, attr, value)?;
    }
    rustix::fs::fchmod(target, Mode::from_raw_mode(meta.mode))?;
    at::set_mtime_at(target, itself, meta.mtime)
}

/// As [`finish`], for what cannot be opened.
fn finish_named(meta: &Meta, xattrs: &Xattrs, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    at::chown_at(dir, name, meta.uid, meta.gid)?;
    for (attr, value) in xattrs {
        xattr::set_at(dir, name, attr, value)?;
    }
    if meta.kind != FileKind::Symlink {
        at::chmod_at(dir, name, meta.mode)?;
    }
    at::set_mtime_at(dir, name, meta.mtime)
}

//! Copies whose data may not be on the disk yet, and how they are made whole after a crash.
//!
//! A file that is copied up gets its name when the copy is made, which is before the disk has its data. Until
//! it has, the copy says so in its [`origin`], and an empty file in the work directory says that
//! there are such copies ([`RECORD`]). Both come to the disk before the name does, or with it, for a journal
//! keeps the order. So after a crash all copies that are not whole are known, and so is the lower file of each.
//!
//! What was never written of such a copy is what the disk did not get, and that is taken from the lower file
//! again; what was written stays, whether the copying wrote it or a program that synced it later. For this to
//! be true nothing else may make a hole in the file: before it is cut, punched or shares extents with another,
//! it is [settled](settle).
//!
//! Whoever else mounts the upper directory clears the work directory, the record with it. The marks are then
//! believed no more, since holes may have been made that nobody told us of.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cow_sys::{extents, handle, writeback, xattr};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::copy::{Copier, finish};
use crate::error::{Error, ErrorKind, Result};
use crate::root::Root;
use crate::walk::{Entry, Vanished, Walk};
use crate::{at, origin};

/// The name in the work directory that says that there are such copies.
pub const RECORD: &str = "unsettled";

/// Whether a work directory says that there are copies which may not be whole.
///
/// # Errors
/// What looking for the record meets.
pub fn is_recorded(work: impl AsFd) -> rustix::io::Result<bool> {
    match rustix::fs::statat(work, RECORD, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Says in a work directory that there are such copies, and that somebody is about them as long as the file is
/// open ([`is_held`]).
///
/// # Errors
/// What making the record meets.
pub fn record(work: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(work, RECORD, flags, Mode::RUSR | Mode::WUSR)?;
    // Where locks are refused nobody is told.
    let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    Ok(file)
}

/// Whether somebody who is there is about the copies that a work directory speaks of.
pub fn is_held(work: impl AsFd) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = |file: OwnedFd| rustix::fs::flock(file, FlockOperation::NonBlockingLockShared);
    let locked = rustix::fs::openat(work, RECORD, flags, Mode::empty()).and_then(lock);
    locked == Err(Errno::WOULDBLOCK)
}

/// Takes that back.
///
/// # Errors
/// What removing the record meets; that there is none is no error.
pub fn forget(work: impl AsFd) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(work, RECORD, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        answer => answer,
    }
}

/// Waits until the disk has a copy's data, and has the copy say so; `attr` is the name of its origin.
///
/// # Errors
/// What writing the data meets; the copy then still says that it may not be whole.
pub fn settle(file: impl AsFd, attr: &OsStr) -> rustix::io::Result<()> {
    let file = file.as_fd();
    writeback::finish(file)?;
    unmark(file, attr)
}

fn unmark(file: BorrowedFd<'_>, attr: &OsStr) -> rustix::io::Result<()> {
    let here = OsStr::new("");
    match origin::settled(xattr::get(file, here, attr)?) {
        Some(value) => xattr::set(file, here, attr, &value),
        None => Ok(()),
    }
}

/// Makes every copy in an upper directory whole that may not be, and returns how many there were.
///
/// `attr` is the name of their origin, and `lowers` are directories of the lower layers, one of each file system
/// at least. Nobody may change the upper directory meanwhile. What is done stays done whenever it ends.
///
/// # Errors
/// `FailedPrecondition` for a copy whose lower file is not there, which names the copy; what reading and writing
/// meet. Needs CAP_DAC_READ_SEARCH.
pub fn mend<F: AsFd>(upper: &Root, lowers: &[F], attr: &OsStr) -> Result<usize> {
    let mut walk = Walk::new(upper, Vanished::Fail)?;
    let mut count = 0;
    while let Some(entry) = walk.next_entry()? {
        if !entry.meta.is_file() {
            continue;
        }
        let value = crate::xattr::get_at(entry.dir, entry.name, attr)
            .map_err(|errno| upper.error("getxattr", entry.path, errno))?;
        let Some(value) = value.filter(|value| origin::settled(value.clone()).is_some()) else {
            continue;
        };
        let lower = lower_of(&value, lowers).map_err(|errno| lost(&entry, errno))?;
        complete(&entry, &lower, attr)
            .map_err(|errno| upper.error("make whole", entry.path, errno))?;
        count += 1;
    }
    Ok(count)
}

/// Opens the lower file that a copy names.
fn lower_of<F: AsFd>(value: &[u8], lowers: &[F]) -> rustix::io::Result<OwnedFd> {
    let (uuid, handle) = origin::handle(value).ok_or(Errno::INVAL)?;
    let mut failed = Errno::STALE;
    for dir in lowers {
        if handle::file_system_uuid(dir).is_ok_and(|found| found != uuid) {
            continue;
        }
        match handle::open(dir, &handle, OFlags::RDONLY) {
            Ok(file) => return Ok(file),
            Err(errno) => failed = errno,
        }
    }
    Err(failed)
}

fn lost(entry: &Entry<'_>, errno: Errno) -> Error {
    let reason = format!(
        "a crash may have kept its data from the disk, and the lower file that it was copied from does not open \
         ({errno}); remove {RECORD:?} from the work directory to take all copies as they are"
    );
    Error::refused("make whole", entry.path, reason, ErrorKind::FailedPrecondition)
}

/// Writes what was never written of a copy, and has it say that it is whole.
fn complete(entry: &Entry<'_>, lower: &OwnedFd, attr: &OsStr) -> rustix::io::Result<()> {
    let open = |mode| -> rustix::io::Result<OwnedFd> {
        let flags = mode | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(entry.dir, entry.name, flags, Mode::empty())
    };
    let file = open(OFlags::RDONLY)?;
    let source = at::meta_of(lower)?;
    let mut at = 0;
    let mut gaps = Vec::new();
    for part in extents::written(&file)? {
        if part.start.min(source.size) > at {
            gaps.push(at..part.start.min(source.size));
        }
        at = at.max(part.end);
    }
    if at < source.size {
        gaps.push(at..source.size);
    }
    if !gaps.is_empty() {
        let file = open(OFlags::RDWR)?;
        // Writing takes capabilities away, and changes times.
        let xattrs = crate::xattr::read_at(entry.dir, entry.name)?;
        if entry.meta.size < source.size {
            rustix::fs::ftruncate(&file, source.size)?;
        }
        let copier = Copier::new();
        for gap in gaps {
            copier.part(lower, &source, &file, gap)?;
        }
        finish(&entry.meta, &xattrs, &file)?;
    }
    rustix::fs::fdatasync(&file)?;
    unmark(file.as_fd(), attr)
}

#[cfg(test)]
mod tests;

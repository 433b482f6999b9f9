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

/// The record of a work directory, open and locked: whoever has it is about the copies that it speaks of.
///
/// Marks name the inode of the record that they were made under, and are believed with that one alone.
#[derive(Debug)]
pub struct Record {
    file: OwnedFd,
    /// The file system's handle of the inode, which no later one has.
    id: Vec<u8>,
}

/// What there is of a record.
#[derive(Debug)]
pub enum Found {
    /// Nothing: no copy waits.
    None,
    /// One that somebody has who is there.
    Held,
    /// One that nobody had.
    Left(Record),
}

impl Record {
    /// Says in a work directory that there are such copies.
    ///
    /// # Errors
    /// `AGAIN` when somebody else has said so and is there; what making the record meets.
    pub fn make(work: impl AsFd) -> rustix::io::Result<Self> {
        let work = work.as_fd();
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(work, RECORD, flags, Mode::RUSR | Mode::WUSR)?;
        Self::lock(file, work)
    }

    /// Looks for the record of a work directory.
    ///
    /// # Errors
    /// What opening it meets.
    pub fn find(work: impl AsFd) -> rustix::io::Result<Found> {
        let work = work.as_fd();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(work, RECORD, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Found::None),
            answer => answer?,
        };
        match Self::lock(file, work) {
            Ok(record) => Ok(Found::Left(record)),
            Err(Errno::AGAIN) => Ok(Found::Held),
            Err(error) => Err(error),
        }
    }

    fn lock(file: OwnedFd, work: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let record = Self { id: handle::of(&file, OsStr::new(""))?.bytes, file };
        // Who had it may have removed it meanwhile.
        if record.is_in(work)? { Ok(record) } else { Err(Errno::AGAIN) }
    }

    fn is_in(&self, work: BorrowedFd<'_>) -> rustix::io::Result<bool> {
        let own = rustix::fs::fstat(&self.file)?;
        match rustix::fs::statat(work, RECORD, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok((own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The value of the origin for a copy whose data may not be on the disk.
    pub fn mark(&self, origin: Vec<u8>) -> Vec<u8> {
        origin::unsettled(origin, &self.id)
    }

    /// Takes it back: every copy is on the disk.
    ///
    /// # Errors
    /// What removing the record meets; that it is not there is no error.
    pub fn forget(&self, work: impl AsFd) -> rustix::io::Result<()> {
        let work = work.as_fd();
        if !self.is_in(work)? {
            return Ok(());
        }
        rustix::fs::unlinkat(work, RECORD, AtFlags::empty())
    }

    /// Whether the machine has not crashed since the record was made, as far as its clock can tell.
    fn is_of_this_boot(&self) -> bool {
        use rustix::time::{ClockId, clock_gettime};
        let boot =
            clock_gettime(ClockId::Realtime).tv_sec - clock_gettime(ClockId::Boottime).tv_sec;
        rustix::fs::fstat(&self.file).is_ok_and(|stat| stat.st_ctime > boot)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Not by closing the file, which a child that is just being started may have as well.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
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

/// Makes every copy in an upper directory whole that a record speaks of, and returns how many there were.
///
/// `attr` is the name of their origin, and `lowers` are directories of the lower layers, one of each file system
/// at least. Nobody may change the upper directory meanwhile. What is done stays done whenever it ends.
///
/// # Errors
/// `FailedPrecondition` for a copy whose lower file is not there, which names the copy; what reading and writing
/// meet. Needs CAP_DAC_READ_SEARCH.
pub fn mend<F: AsFd>(upper: &Root, record: &Record, lowers: &[F], attr: &OsStr) -> Result<usize> {
    mend_after(record.is_of_this_boot(), upper, record, lowers, attr)
}

fn mend_after<F: AsFd>(
    same_boot: bool,
    upper: &Root,
    record: &Record,
    lowers: &[F],
    attr: &OsStr,
) -> Result<usize> {
    let mut walk = Walk::new(upper, Vanished::Fail)?;
    let mut count = 0;
    while let Some(entry) = walk.next_entry()? {
        if !entry.meta.is_file() {
            continue;
        }
        let value = crate::xattr::get_at(entry.dir, entry.name, attr)
            .map_err(|errno| upper.error("getxattr", entry.path, errno))?;
        let Some(value) = value.filter(|value| origin::is_unsettled(value, &record.id)) else {
            continue;
        };
        let done = match lower_of(&value, lowers) {
            Ok(lower) => complete(&entry, &lower, attr),
            // All of it is in memory, if not on the disk.
            Err(_) if same_boot => {
                open(&entry, OFlags::RDONLY).and_then(|file| settle(&file, attr))
            }
            Err(errno) => return Err(lost(&entry, errno)),
        };
        done.map_err(|errno| upper.error("make whole", entry.path, errno))?;
        count += 1;
    }
    Ok(count)
}

fn open(entry: &Entry<'_>, mode: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = mode | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(entry.dir, entry.name, flags, Mode::empty())
}

/// Opens the lower file that a copy names.
fn lower_of<F: AsFd>(value: &[u8], lowers: &[F]) -> rustix::io::Result<OwnedFd> {
    let (uuid, handle) = origin::handle(value).ok_or(Errno::INVAL)?;
    let mut failed = Errno::STALE;
    for dir in lowers {
        if handle::file_system_uuid(dir).unwrap_or_default() != uuid {
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
         ({errno}); remove \"work/{RECORD}\" from the work directory to take all copies as they are"
    );
    Error::refused("make whole", entry.path, reason, ErrorKind::FailedPrecondition)
}

/// Writes what was never written of a copy, and has it say that it is whole.
fn complete(entry: &Entry<'_>, lower: &OwnedFd, attr: &OsStr) -> rustix::io::Result<()> {
    let file = open(entry, OFlags::RDONLY)?;
    let source = at::meta_of(lower)?;
    let mut at = 0;
    let mut gaps = Vec::new();
    for part in extents::written(&file)? {
        if part.start.min(source.size) > at {
            gaps.push(at..part.start.min(source.size));
        }
        // What lies behind the end of the file is not its content.
        at = at.max(part.end.min(entry.meta.size));
    }
    if at < source.size {
        gaps.push(at..source.size);
    }
    if !gaps.is_empty() {
        let file = open(entry, OFlags::RDWR)?;
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
    settle(&file, attr)
}

#[cfg(test)]
mod tests;

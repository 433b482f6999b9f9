//! The data of one file: shared if possible, else copied without its holes.
//!
//! On ext4 and xfs the bytes are taken from a map of the source, in long writes into space that was allocated
//! before: of the time that `copy_file_range(2)` takes, which writes 64 KiB at a time there and reserves every
//! block by itself, that is 60 %.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::compare::next_data;
use crate::meta::Meta;

/// How much one read or write takes; larger buffers only spill the processor's cache.
const CHUNK: usize = 256 * 1024;

/// From what length on space is allocated before it is written.
const ALLOCATED: u64 = 1 << 20;

/// After how much the file system is told to write what it has.
const PIECE: u64 = 8 << 20;

/// The least cheap way of copying that a pair of file systems has not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// `FICLONE`: both files share the extents until one is written. Constant time.
    Clone,
    /// Writes from a map of the source into allocated space; for file systems on a disk of this machine. Not for
    /// what one read takes.
    Map,
    /// `copy_file_range(2)`: the kernel or the server copies. Not for what one read takes.
    Range,
    /// Read and write.
    Buffer,
}

/// What copying one file's data did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Whether the data is shared by both files rather than written again.
    pub shared: bool,
    /// Bytes written; none if shared, and holes are not counted.
    pub written: u64,
}

/// Copies file data onto one file system, and remembers from where it can be shared.
///
/// A second file system to copy onto takes a second copier. May be used by many threads at once.
#[derive(Debug, Default)]
pub struct Copier {
    /// The first way worth trying, by the device that is copied from.
    ways: Mutex<HashMap<u64, Way>>,
    writes_early: bool,
}

impl Copier {
    /// A copier that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copier for files that are waited for until the disk has them: what was copied is on its way
    /// there while the rest is copied.
    pub fn writing_early() -> Self {
        Self { writes_early: true, ..Self::default() }
    }

    /// Copies all data of `source`, whose metadata is `meta`, into the empty file `target`.
    ///
    /// Holes stay holes. Both offsets are wherever the copying left them. If the source grows
    /// meanwhile, what is beyond its size in `meta` may be left out; if it shrinks, the copy ends
    /// where it ends, or at the end of that page, and in between is what either state had.
    pub fn data(
        &self,
        source: impl AsFd,
        meta: &Meta,
        target: impl AsFd,
    ) -> rustix::io::Result<Copied> {
        let (source, target) = (source.as_fd(), target.as_fd());
        if meta.size == 0 {
            return Ok(Copied::default());
        }
        let mut way = self.way(meta.dev);
        if way == Way::Clone {
            match rustix::fs::ioctl_ficlone(target, source) {
                Ok(()) => return Ok(Copied { shared: true, written: 0 }),
                Err(error) => {
                    if !is_refusal(error) {
                        return Err(error);
                    }
                    // This file alone may be what cannot be cloned (a swap file, another size of
                    // block): only errors about the file systems are remembered.
                    way = without_clone(target);
                    if matches!(error, Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY) {
                        self.remember(meta.dev, way);
                    }
                }
            }
        }
        if meta.size <= CHUNK as u64 {
            way = Way::Buffer;
        }
        let mut copy = Copy { copier: self, source, target, from: meta.dev, way, written: 0 };
        if meta.size > CHUNK as u64 {
            copy.read_in_order();
        }
        copy.extents(meta)?;
        Ok(Copied { shared: false, written: copy.written })
    }

    /// Copies the data in one part of `source`, whose metadata is `meta`, to the same part of `target`, of
    /// which nothing was written; of both, what is beyond the part stays as it is.
    pub(crate) fn part(
        &self,
        source: impl AsFd,
        meta: &Meta,
        target: impl AsFd,
        part: Range<u64>,
    ) -> rustix::io::Result<()> {
        let (source, target) = (source.as_fd(), target.as_fd());
        let (from, way) = (meta.dev, Way::Buffer);
        let mut copy = Copy { copier: self, source, target, from, way, written: 0 };
        copy.within(part.start, part.end.min(meta.size))
    }

    fn way(&self, from: u64) -> Way {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.get(&from).copied().unwrap_or(Way::Clone)
    }

    fn remember(&self, from: u64, way: Way) {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.insert(from, way);
    }
}

/// Whether an error says "not this way" rather than "not at all".
fn is_refusal(error: Errno) -> bool {
    matches!(
        error,
        Errno::XDEV
            | Errno::OPNOTSUPP
            | Errno::NOTTY
            | Errno::NOSYS
            | Errno::INVAL
            | Errno::TXTBSY
            | Errno::PERM
    )
}

/// The way that is left where data cannot be shared.
///
/// ext4 and xfs keep long stretches of blocks, and allocate them without writing them. Other file systems of
/// disks may compress what is written to space of its own only (btrfs), and those of a network copy by themselves.
fn without_clone(target: BorrowedFd<'_>) -> Way {
    const EXT4_SUPER_MAGIC: u64 = 0xef53;
    const XFS_SUPER_MAGIC: u64 = 0x5846_5342;
    let kind = rustix::fs::fstatfs(target).map(|stat| u64::try_from(stat.f_type));
    match kind {
        Ok(Ok(EXT4_SUPER_MAGIC | XFS_SUPER_MAGIC)) => Way::Map,
        _ => Way::Range,
    }
}

/// One file's data on its way.
struct Copy<'a> {
    copier: &'a Copier,
    source: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    from: u64,
    way: Way,
    written: u64,
}

impl Copy<'_> {
    /// Copies every stretch of data, each to the place where it was.
    fn extents(&mut self, meta: &Meta) -> rustix::io::Result<()> {
        let size = meta.size;
        if meta.blocks.saturating_mul(512) >= size {
            self.stretch(0, size)?;
            return Ok(());
        }
        // The hole at the end, if there is one, is made first.
        rustix::fs::ftruncate(self.target, size)?;
        self.within(0, size)
    }

    /// Copies every stretch of data between two places.
    fn within(&mut self, mut end: u64, size: u64) -> rustix::io::Result<()> {
        while end < size {
            let start = next_data(self.source, end)?;
            if start >= size {
                break;
            }
            end = match rustix::fs::seek(self.source, SeekFrom::Hole(start)) {
                Ok(end) => end.min(size),
                Err(_) => size,
            };
            if self.stretch(start, end)? < end {
                break;
            }
        }
        Ok(())
    }

    /// Copies from `start` to `end`; returns where the source ended if that is earlier.
    fn stretch(&mut self, start: u64, end: u64) -> rustix::io::Result<u64> {
        self.allocate(start, end - start)?;
        let mut at = start;
        while at < end {
            let until = end.min(at.saturating_add(PIECE));
            at = self.piece(at, until)?;
            if self.copier.writes_early {
                // Only a head start: who waits for the disk writes whatever is left.
                let _ = cow_sys::writeback::start(self.target);
            }
            if at < until {
                break;
            }
        }
        Ok(at)
    }

    /// Allocates a long stretch at once, so that no write has to reserve its blocks.
    fn allocate(&self, start: u64, length: u64) -> rustix::io::Result<()> {
        if self.way != Way::Map || length < ALLOCATED {
            return Ok(());
        }
        match rustix::fs::fallocate(self.target, FallocateFlags::KEEP_SIZE, start, length) {
            // There is no room, and there would be none later.
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => Err(error),
            // An old ext4 has no extents; a signal may have come.
            _ => Ok(()),
        }
    }

    /// Has the kernel read twice as far ahead as it does otherwise. Whatever is asked of it piece by piece comes in
    /// single pages, which takes longer to copy than that saves.
    fn read_in_order(&self) {
        let _ = rustix::fs::fadvise(self.source, 0, None, Advice::Sequential);
    }

    fn piece(&mut self, start: u64, end: u64) -> rustix::io::Result<u64> {
        let mut at = start;
        if self.way == Way::Map {
            at = self.mapped(start, end)?;
        }
        while self.way == Way::Range && at < end {
            let (mut from, mut to) = (at, at);
            let length = usize::try_from(end - at).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(
                self.source,
                Some(&mut from),
                self.target,
                Some(&mut to),
                length,
            ) {
                // Some file systems end early without a reason; reading tells the truth.
                Ok(0) => break,
                Ok(copied) => {
                    at += copied as u64;
                    self.written += copied as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) if is_refusal(error) => {
                    self.way = Way::Buffer;
                    self.copier.remember(self.from, Way::Buffer);
                }
                Err(error) => return Err(error),
            }
        }
        if at < end { self.buffered(at, end) } else { Ok(at) }
    }

    /// Copies from a map as far as that goes.
    fn mapped(&mut self, start: u64, end: u64) -> rustix::io::Result<u64> {
        let length = usize::try_from(end - start).unwrap_or(usize::MAX);
        match cow_sys::map_copy::write_at(self.source, self.target, start, length, CHUNK) {
            Ok(written) => {
                self.written += written as u64;
                Ok(start + written as u64)
            }
            // Reading says what is wrong with the source, if anything is.
            Err(Errno::FAULT | Errno::NOMEM | Errno::ACCESS | Errno::PERM | Errno::AGAIN) => {
                Ok(start)
            }
            Err(Errno::NODEV) => {
                self.way = Way::Range;
                self.copier.remember(self.from, Way::Range);
                Ok(start)
            }
            Err(error) => Err(error),
        }
    }

    fn buffered(&mut self, mut at: u64, end: u64) -> rustix::io::Result<u64> {
        let length = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
        let mut buffer = vec![0; length];
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(length).min(length);
            let filled = match rustix::io::pread(self.source, &mut buffer[..want], at) {
                Ok(0) => break,
                Ok(filled) => filled,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let mut rest = &buffer[..filled];
            while !rest.is_empty() {
                match rustix::io::pwrite(self.target, rest, at) {
                    Ok(0) => return Err(Errno::IO),
                    Ok(written) => {
                        rest = &rest[written..];
                        at += written as u64;
                        self.written += written as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(at)
    }
}

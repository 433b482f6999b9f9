//! Whether two files are the same, and what differs.
//!
//! Equal is what no reader of the merged tree can tell apart: kind, permission bits, owner,
//! modification time, attributes, and content, link text or device number. Inode and change time
//! are not compared, nor the number of names, nor the size of a directory.
//!
//! Metadata is no proof of equal content: a file can be rewritten and its time set back. Content is
//! therefore always read when nothing else differs, unless both names are one inode.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::SeekFrom;
use rustix::io::{Errno, Result};

use crate::at;
use crate::meta::{FileKind, Meta, Xattrs};
use crate::whiteout::XattrSpace;
use crate::xattr;

/// A set of ways in which two files differ.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Differences(u16);

impl Differences {
    /// They are the same.
    pub const NONE: Self = Self(0);
    /// The type, or the number of a device.
    pub const KIND: Self = Self(1);
    /// The permission bits.
    pub const MODE: Self = Self(1 << 1);
    /// The owner or group.
    pub const OWNER: Self = Self(1 << 2);
    /// The modification time.
    pub const MTIME: Self = Self(1 << 3);
    /// The size of a regular file.
    pub const SIZE: Self = Self(1 << 4);
    /// The bytes of a regular file.
    pub const CONTENT: Self = Self(1 << 5);
    /// The text of a symbolic link.
    pub const LINK: Self = Self(1 << 6);
    /// The extended attributes.
    pub const XATTRS: Self = Self(1 << 7);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::KIND, "kind"),
        (Self::MODE, "mode"),
        (Self::OWNER, "owner"),
        (Self::MTIME, "mtime"),
        (Self::SIZE, "size"),
        (Self::CONTENT, "content"),
        (Self::LINK, "link"),
        (Self::XATTRS, "xattrs"),
    ];

    /// Whether nothing differs.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether all of `other` are among these.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those of `other`.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These and, if it holds, `other`.
    pub(crate) fn with_if(self, other: Self, holds: bool) -> Self {
        if holds { self.with(other) } else { self }
    }

    /// These without those of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of what differs, for people.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| *name)
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names().enumerate().try_for_each(|(index, name)| {
            f.write_str(if index == 0 { "" } else { "," })?;
            f.write_str(name)
        })
    }
}

impl fmt::Debug for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Differences({self})")
    }
}

/// How much is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Stop at the first difference that was found, cheap ones first: enough to say "changed".
    First,
    /// Find all of them; content is read even if the metadata differ.
    All,
}

/// One of two files that are compared: its metadata, and where the rest is.
///
/// Places are a directory and a name in it, as in [`at`].
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The metadata.
    pub meta: &'a Meta,
    /// Where link text and attributes are.
    pub at: (BorrowedFd<'a>, &'a OsStr),
    /// Where content is: elsewhere than the rest for a metadata-only copy of an overlay.
    pub data: (BorrowedFd<'a>, &'a OsStr),
    /// The overlay marks that are no part of the file.
    pub marks: Option<XattrSpace>,
}

impl<'a> Side<'a> {
    /// A file in a plain tree.
    pub fn new(dir: BorrowedFd<'a>, name: &'a OsStr, meta: &'a Meta) -> Self {
        Self { meta, at: (dir, name), data: (dir, name), marks: None }
    }

    /// Its extended attributes as the merged tree shows them.
    fn xattrs(&self) -> Result<Xattrs> {
        let xattrs = xattr::read_at(self.at.0, self.at.1)?;
        Ok(match self.marks {
            Some(space) => space.strip(xattrs),
            None => xattrs,
        })
    }
}

/// What the metadata alone tells.
pub fn metadata(a: &Meta, b: &Meta) -> Differences {
    if a.kind != b.kind {
        return Differences::KIND;
    }
    Differences::NONE
        .with_if(Differences::MODE, a.mode != b.mode)
        .with_if(Differences::OWNER, (a.uid, a.gid) != (b.uid, b.gid))
        .with_if(Differences::MTIME, a.mtime != b.mtime)
        .with_if(Differences::SIZE, a.is_file() && a.size != b.size)
}

/// Compares two files of any kind.
///
/// The errno stays bare, as in [`at`]. Two files of different kinds differ in that alone. Of directories, only their own metadata is
/// compared, not what is in them.
pub fn files(a: &Side<'_>, b: &Side<'_>, depth: Depth) -> Result<Differences> {
    let mut found = metadata(a.meta, b.meta);
    if a.meta.inode() == b.meta.inode() || found == Differences::KIND {
        return Ok(found);
    }
    let done = |found: Differences| depth == Depth::First && !found.is_empty();
    if done(found) {
        return Ok(found);
    }
    if a.meta.kind == FileKind::Symlink {
        let same = at::readlink_at(a.at.0, a.at.1)? == at::readlink_at(b.at.0, b.at.1)?;
        found = found.with_if(Differences::LINK, !same);
    }
    found = found.with_if(Differences::XATTRS, a.xattrs()? != b.xattrs()?);
    if done(found) || !a.meta.is_file() || a.meta.size != b.meta.size {
        return Ok(found);
    }
    let same = same_content(a, b)?;
    Ok(found.with_if(Differences::CONTENT, !same))
}

fn same_content(a: &Side<'_>, b: &Side<'_>) -> Result<bool> {
    if a.meta.size == 0 {
        return Ok(true);
    }
    let a = at::open_regular_at(a.data.0, a.data.1)?;
    let b = at::open_regular_at(b.data.0, b.data.1)?;
    same_bytes((a.0, &a.1), (b.0, &b.1))
}

/// How much of each file is in memory.
const CHUNK: usize = 256 * 1024;

/// Whether two regular files have the same bytes, holes being zeros.
///
/// Stretches that are holes in both are not read.
pub fn content(a: OwnedFd, b: OwnedFd) -> Result<bool> {
    let (a_meta, b_meta) = (at::meta_of(&a)?, at::meta_of(&b)?);
    same_bytes((a, &a_meta), (b, &b_meta))
}

fn same_bytes((a, a_meta): (OwnedFd, &Meta), (b, b_meta): (OwnedFd, &Meta)) -> Result<bool> {
    if a_meta.size != b_meta.size {
        return Ok(false);
    }
    if a_meta.inode() == b_meta.inode() {
        return Ok(true);
    }
    let size = a_meta.size;
    let sparse = [a_meta, b_meta].iter().all(|meta| meta.blocks * 512 < size);
    let chunk = usize::try_from(size).unwrap_or(CHUNK).clamp(1, CHUNK);
    let (mut left, mut right) = (vec![0; chunk], vec![0; chunk]);
    let mut offset = 0;
    while offset < size {
        if sparse {
            let next = next_data(a.as_fd(), offset)?.min(next_data(b.as_fd(), offset)?);
            offset = next.min(size);
        }
        let (left_length, right_length) =
            (read_full(&a, &mut left, offset)?, read_full(&b, &mut right, offset)?);
        if left[..left_length] != right[..right_length] {
            return Ok(false);
        }
        if left_length == 0 {
            break;
        }
        offset += left_length as u64;
    }
    Ok(true)
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Where the next stretch of data begins, at or after an offset; past every end if there is none.
///
/// A file system that knows no holes has data everywhere.
pub(crate) fn next_data(file: BorrowedFd<'_>, offset: u64) -> Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(next) => Ok(next),
        Err(Errno::NXIO) => Ok(u64::MAX),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(offset),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;

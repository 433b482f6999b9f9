//! The index: one link to each copied-up file that has several names in its lower layer.
//!
//! The name is the lower file's handle in hexadecimal, as the kernel's overlay writes it, so that every
//! other name of the lower file is found to be the same upper one. The attribute `overlay.nlink` says
//! by how much the number of links that the union shows differs from the inode's own.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cow::origin;
use cow_sys::xattr;
use rustix::fs::{AtFlags, Statx};
use rustix::io::Errno;

use super::merge::stat as stat_at;
use super::{RealDir, RealId, Union};

impl Union {
    /// The name in the index for a lower file, if there is an index and a handle.
    pub fn index_name(&self, dir: &Arc<RealDir>, name: &OsStr) -> Option<OsString> {
        self.work.as_ref()?.index.as_ref()?;
        let fd = self.fds.get(dir).ok()?;
        let value = origin::encode(&fd, name, &self.layer(dir).uuid).ok()?;
        let mut text = String::with_capacity(value.len() * 2);
        for byte in value {
            let _ = write!(text, "{byte:02x}");
        }
        (text.len() <= 255).then(|| OsString::from(text))
    }

    /// The index entry of a lower file.
    pub(super) fn indexed(
        &self,
        dir: &Arc<RealDir>,
        name: &OsStr,
    ) -> Option<(Arc<RealDir>, OsString, Statx)> {
        let index = self.work.as_ref()?.index.as_ref()?;
        let entry = self.index_name(dir, name)?;
        let stat = stat_at(&*self.fds.get(index).ok()?, &entry).ok()?;
        Some((Arc::clone(index), entry, stat))
    }

    /// Records by how much the links shown differ from those of the inode.
    pub(super) fn set_links(&self, dir: &OwnedFd, name: &OsStr, more: i64) -> Result<(), Errno> {
        let attr = self.prefix.name("nlink");
        xattr::set(dir, name, &attr, format!("U{more:+}").as_bytes())
    }

    /// By how much the links shown differ from those of an upper inode.
    pub fn links(&self, dir: &OwnedFd, name: &OsStr) -> i64 {
        let value = xattr::get(dir, name, &self.prefix.name("nlink"));
        value.ok().and_then(|value| parse_links(&value)).unwrap_or(0)
    }

    /// Counts a name of an indexed file that had no upper entry of its own as gone, and removes the
    /// index entry with the last name.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn drop_lower_link(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<(), Errno> {
        let fd = self.fds.get(dir)?;
        let more = self.links(&fd, name) - 1;
        self.set_links(&fd, name, more)?;
        self.drop_unused(dir, name)
    }

    /// Removes an index entry that no name leads to any more.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn drop_unused(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<(), Errno> {
        let fd = self.fds.get(dir)?;
        let real = stat_at(&fd, name)?.stx_nlink;
        // Whoever links lower files under our feet makes the count wrong, but names in the upper layer stay.
        if real > 1 || i64::from(real) + self.links(&fd, name) > 0 {
            return Ok(());
        }
        rustix::fs::unlinkat(&*fd, name, AtFlags::empty())
    }

    /// Changes by how much the links shown differ from those of an upper inode that is indexed.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn adjust_links(&self, dir: &OwnedFd, name: &OsStr, by: i64) -> Result<(), Errno> {
        self.set_links(dir, name, self.links(dir, name) + by)
    }

    /// Removes the index entry of an upper inode if no name leads to it any more.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn drop_unused_inode(&self, real: RealId) -> Result<(), Errno> {
        let Some(index) = self.work.as_ref().and_then(|work| work.index.as_ref()) else {
            return Ok(());
        };
        let fd = self.fds.get(index)?;
        let listing = super::open_listing(&fd)?;
        for entry in rustix::fs::Dir::read_from(&listing)? {
            let entry = entry?;
            if entry.ino() == real.ino {
                use std::os::unix::ffi::OsStrExt as _;
                return self.drop_unused(index, OsStr::from_bytes(entry.file_name().to_bytes()));
            }
        }
        Ok(())
    }

    /// Whether a directory is the index.
    pub fn is_index(&self, dir: &Arc<RealDir>) -> bool {
        let index = self.work.as_ref().and_then(|work| work.index.as_ref());
        index.is_some_and(|index| Arc::ptr_eq(index, dir))
    }
}

/// Reads `U+1` or `U-2`; a number relative to the lower inode is of no use without it.
fn parse_links(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value.strip_prefix(b"U")?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_links;

    #[test]
    fn link_counts_are_read_with_their_sign() {
        for (text, links) in [("U+3", Some(3)), ("U-1", Some(-1)), ("L+1", None), ("", None)] {
            assert_eq!(parse_links(text.as_bytes()), links, "{text:?}");
        }
    }
}

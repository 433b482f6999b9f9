//! What a file system must tell for a comparison: where its inodes are, and what they say.

use std::fmt;
use std::path::PathBuf;

use cow::error::Result;

use super::disk::Disk;
use super::places::Place;

/// A file system on a device to which nobody writes.
pub(super) trait Format: fmt::Debug + Sized {
    /// Reads what says where the inodes are.
    ///
    /// # Errors
    /// `Unsupported`, with the reason, for a file system that is not wholly understood.
    fn open(path: PathBuf) -> Result<Self>;

    /// Sees that two are of one origin and of one geometry, and that between them nothing was done to
    /// inodes that does not date them.
    ///
    /// # Errors
    /// `Unsupported`, with the reason.
    fn compare(&self, other: &Self) -> Result<()>;

    /// The device.
    fn disk(&self) -> &Disk;

    /// The length of an inode in bytes.
    fn inode_size(&self) -> u64;

    /// The number of the root directory.
    fn root(&self) -> u64;

    /// How many numbers there are from one group to the next. A file mostly has a number of its directory's
    /// group.
    fn per_group(&self) -> u64;

    /// All places that have inodes, in the order of the device; none of them has a part of another's.
    fn places(&self) -> Result<Vec<Place>>;

    /// How many names an inode has that is in the tree and was written since it was the same as `below`, the
    /// bytes in the same place of the lower device; 1 for a directory. None for any other, and for
    /// one that is the same in all that says something of its file: whatever of an inode changes
    /// without a change of the file is left out.
    ///
    /// # Errors
    /// `Unsupported` when it is no inode of this number.
    fn written(&self, ino: u64, below: &[u8], above: &[u8]) -> Result<Option<u32>>;
}

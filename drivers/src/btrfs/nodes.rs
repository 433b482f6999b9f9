//! The inner nodes of a layer's tree, moved next to each other on the disk.
//!
//! A snapshot copies the root of its source's tree, and everything that the root points to gets one more owner: an
//! item in the tree of extents, found by where the block lies. While files are made in their order,
//! each of these inner nodes is allocated between hundreds of leaves. So their items are in as many blocks of the tree
//! of extents, and every snapshot, every commit and every removal copies, sums and writes them all.
//!
//! Btrfs writes a block that is on the disk to a new place, with the nodes above it. So a layer that was
//! applied is written out, and then one file in each [`STEP`] is written again: the nodes above them come to lie
//! close together.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use btrfs_uapi::tree_search::Key;
use cow::at;
use cow::error::{Error, Result};
use cow::root::{Resolve, Root};
use rustix::fs::{Mode, OFlags};

use super::search::{Batch, INODE_ITEM, Paths, items};
use super::subvolume::ROOT_INO;
use super::{removal, since};
use crate::home::fs;

/// One inode in so many is written again. An inner node has 246 leaves or more where files were made in
/// their order, and a leaf has some 7 files of two KiB, or some 40 whose content is not in the tree.
const STEP: usize = 1024;
/// The inodes in a row among which one that is still there is looked for.
const ROW: u64 = 16;
/// The fewest inodes that are worth the trouble: the tree of fewer has hardly a node.
const FEWEST: usize = 4;

/// Moves the inner nodes that were written in a tree after a transaction next to each other, if it
/// is large. Nothing but the time of change (`ctime`) of some files is different then.
///
/// Ends the file system's transaction; the next snapshot writes out what is written here.
pub(super) fn gather(tree: &OwnedFd, transaction: u64) -> Result<()> {
    let written = sample(tree, transaction)?;
    if written.len() < FEWEST {
        return Ok(());
    }
    removal::settle(tree)?;
    let root = Root::from_fd(fs::open_dir(tree, ".")?, "");
    let mut paths = Paths::new(tree.as_fd());
    for ino in written {
        write_again(&root, &paths.of(ino)?)?;
    }
    Ok(())
}

/// One in each [`STEP`] of the inodes that were written after a transaction.
fn sample(tree: &OwnedFd, transaction: u64) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for ino in (ROOT_INO..next_ino(tree)?).step_by(STEP) {
        let first = Key { objectid: ino + 1, item_type: INODE_ITEM, offset: 0 };
        let last = Key { objectid: ino + ROW, ..first };
        let mut one = None;
        items(tree.as_fd(), 0, Batch::Large, (first, last), transaction + 1, |header, data| {
            let is_written = header.item_type == INODE_ITEM && since::is_written(data, transaction);
            if is_written && one.is_none() {
                one = Some(header.objectid);
            }
        })?;
        found.extend(one);
    }
    Ok(found)
}

/// The number that a new inode gets: those of a subvolume rise. It is taken by a file without a name.
fn next_ino(tree: &OwnedFd) -> Result<u64> {
    let failed = |errno| Error::sys("make a file without a name", "", errno);
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(tree, ".", flags, Mode::empty()).map_err(failed)?;
    Ok(rustix::fs::fstat(&file).map_err(failed)?.st_ino)
}

/// Writes an inode again, as it is.
fn write_again(root: &Root, path: &Path) -> Result<()> {
    let Some(meta) = root.meta(path)? else { return Ok(()) };
    let (dir, name) = root.parent(path, Resolve::Beneath)?;
    at::set_mtime_at(&dir, name, meta.mtime).map_err(|errno| root.error("write", path, errno))
}

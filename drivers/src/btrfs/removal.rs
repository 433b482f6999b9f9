//! Deleting subvolumes, and having the kernel free them.
//!
//! The ioctl takes a subvolume out of sight. Later, every 30 s, the kernel's cleaner drops its tree and hands the
//! freeing of every extent to the running transaction; whoever ends that does it, which may be the next
//! snapshot. So when nothing is made or removed for a while, the cleaner is woken and the transactions are ended
//! here ([`Subvolumes::free`]).

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};

use btrfs_uapi::filesystem;
use btrfs_uapi::subvolume::{SubvolumeFlags, subvolume_delete, subvolume_flags_set};
use cow::error::{Error, Result};

use super::subvolume::{c_name, info, is_fixed, is_subvolume, nested};
use super::{quota, search};
use crate::error::ErrorKind;
use crate::home::freeing::Delete;
use crate::home::fs;

/// How layers that are subvolumes are deleted.
#[derive(Debug)]
pub(super) struct Subvolumes;

impl Delete for Subvolumes {
    fn delete(&self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        remove(dir, name)
    }

    fn ready(&self, place: &OwnedFd) -> Result<()> {
        settle(place)
    }

    /// The ioctl ends the transaction and then wakes the cleaner, so it comes once more after the last
    /// subvolume is dropped.
    fn free(&self, place: &OwnedFd) -> Result<bool> {
        let more = search::has_dropped(place)?;
        filesystem::sync(place.as_fd()).map_err(|errno| Error::sys("free space", "", errno))?;
        Ok(more)
    }
}

/// Deletes `dir/name`, which may be a subvolume or have subvolumes right inside it, after a
/// [`settle`]. What is already gone is no error.
///
/// The kernel frees the space behind, but its ioctl alone takes up to half a second for 50,000 files. It
/// holds the directory above meanwhile. As in [`fs::remove_tree`], names in `dir`
/// must not matter.
fn remove(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    if is_subvolume(dir, name)? {
        return delete_settled(dir, name);
    }
    match fs::open_dir(dir, name) {
        Ok(inside) => {
            for child in fs::names(&inside)? {
                if is_subvolume(&inside, &child)? {
                    delete_settled(&inside, &child)?;
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        // No directory, which the next call finds out for itself.
        Err(_) => {}
    }
    fs::remove_tree(dir, name)
}

/// Deletes the subvolume `dir/name` with those inside it; what is gone already is no error.
pub(super) fn delete(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    if !is_subvolume(dir, name)? {
        return fs::remove_tree(dir, name);
    }
    settle(dir)?;
    delete_settled(dir, name)
}

/// Deletes the subvolume `dir/name`, which was in its place when the transaction before this one ended.
fn delete_settled(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    match delete_all(dir, name) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => {
            // Without privileges and `user_subvol_rm_allowed`, or with names that the kernel does
            // not tell: file by file, and an empty subvolume by rmdir(2) (Linux 4.18).
            tracing::debug!(?name, %error, "a subvolume is removed file by file");
            if let Ok(inside) = fs::open_dir(dir, name) {
                thaw(&inside)?;
            }
            fs::remove_tree(dir, name)
        }
    }
}

fn delete_all(dir: &OwnedFd, name: &OsStr) -> Result<()> {
    let mut work = vec![name.to_owned()];
    let mut serial = 0_u64;
    while let Some(next) = work.last().cloned() {
        let inside = fs::open_dir(dir, &next)?;
        let inner = nested(&inside)?;
        if !inner.is_empty() {
            thaw(&inside)?;
        }
        for each in inner {
            // Moved up, so that no way is too deep to be gone; one that is read-only cannot be.
            let holder = each.open_holder(&inside)?;
            thaw(&fs::open_dir(&holder, &each.name)?)?;
            let mut lifted = name.to_owned();
            lifted.push(format!(".{serial}"));
            serial += 1;
            fs::rename(&holder, &each.name, dir, &lifted)?;
            work.push(lifted);
        }
        if work.last() != Some(&next) {
            // Their directories have lost them.
            settle(dir)?;
        }
        if work.last() == Some(&next) {
            let id = info(&inside)?.id;
            drop(inside);
            work.pop();
            subvolume_delete(dir.as_fd(), &c_name(&next)?)
                .map_err(|errno| Error::sys("delete subvolume", &next, errno))?;
            quota::forget(dir, id);
        }
    }
    Ok(())
}

/// Ends the file system's transaction, as is due before a subvolume is deleted.
///
/// By syncfs(2), which commits in the call: `START_SYNC` leaves it to the kernel's own thread, which was
/// seen to sleep through the request until its interval of 30 s had passed.
///
/// Of a directory that was fsynced and lost a subvolume in one transaction, and was renamed, Linux
/// logs the loss as if it were a file's; after a power cut it cannot replay that, and refuses to mount
/// the file system ("failed to delete reference", seen in 6.18). What was logged in a transaction that
/// has ended is not logged again.
pub(super) fn settle(dir: &OwnedFd) -> Result<()> {
    rustix::fs::syncfs(dir).map_err(|errno| Error::sys("end transaction", "", errno))
}

/// Lets a read-only subvolume be written to.
fn thaw(dir: &OwnedFd) -> Result<()> {
    if !is_fixed(dir)? {
        return Ok(());
    }
    subvolume_flags_set(dir.as_fd(), SubvolumeFlags::empty())
        .map_err(|errno| Error::sys("make subvolume writable", "", errno))
}

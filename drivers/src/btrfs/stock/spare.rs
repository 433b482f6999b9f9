//! How a spare snapshot is made: written to beforehand, and then as if nobody had.
//!
//! The first write into a snapshot copies the nodes of the tree above it, and each of the up to 493 blocks that such a
//! node points to gets one more owner. A file that is made and removed in the root directory does that at both ends of
//! the tree: where the root directory is, and where the next inode will be.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use btrfs_uapi::filesystem;
use cow::at;
use cow::error::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::super::subvolume::{self, Writable};
use super::super::{RO, RW, removal};
use super::shelf::Order;
use super::{DIR, delete};
use crate::home::fs;

/// The snapshot's name until all that was written to it beforehand is there.
const NEW: &str = "new";
/// How many names are tried for the file.
const NAMES: u32 = 16;

/// Makes what was ordered, and ends the file system's transaction; the second value is the transaction from which on
/// what is written to these is their taker's.
pub(super) fn make(root: &OwnedFd, orders: &[Order]) -> Result<(Vec<Result<()>>, u64)> {
    let stock = fs::ensure_dir(root, DIR, 0o700)?;
    let made: Vec<_> = orders.iter().map(|order| prepare(root, &stock, order)).collect();
    let begun = end(&stock, made.iter().flatten())?;
    Ok((made.into_iter().map(|made| made.map(drop)).collect(), begun))
}

/// Makes one, still under its first name; gives the directory that it is in.
fn prepare(root: &OwnedFd, stock: &OwnedFd, order: &Order) -> Result<OwnedFd> {
    let name = order.place.as_str();
    let place = match fs::make_dir(stock, name, 0o700) {
        // Left by a process that was killed.
        Err(error) if error.kind() == cow::ErrorKind::AlreadyExists => {
            delete(stock, &[name.to_owned()])?;
            fs::make_dir(stock, name, 0o700)?
        }
        made => made?,
    };
    let parent = fs::open_dir(root, format!("layers/{}/{RO}", order.parent))?;
    if subvolume::info(&parent)?.uuid != order.origin {
        return Err(Error::refused(
            "stock",
            &order.parent,
            "is another layer",
            cow::ErrorKind::NotFound,
        ));
    }
    subvolume::snapshot(&parent, &place, NEW, Writable::Yes)?;
    touch(&fs::open_dir(&place, NEW)?, &Path::new(DIR).join(name).join(NEW))?;
    Ok(place)
}

/// Makes and removes a file in a root directory, whose times but that of change stay as they are. The path is for
/// errors.
fn touch(tree: &OwnedFd, path: &Path) -> Result<()> {
    let before = at::meta_of(tree).map_err(|errno| Error::sys("statx", path, errno))?;
    let name = make_file(tree, path)?;
    rustix::fs::unlinkat(tree, &name, AtFlags::empty())
        .map_err(|errno| Error::sys("unlink", path.join(&name), errno))?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: before.mtime.secs,
            tv_nsec: before.mtime.nanos.into(),
        },
    };
    rustix::fs::futimens(tree, &times).map_err(|errno| Error::sys("utimensat", path, errno))
}

/// Makes an empty file under a name that the layer does not have.
fn make_file(tree: &OwnedFd, path: &Path) -> Result<String> {
    let mode = Mode::from_raw_mode(0o600);
    for number in 0..NAMES {
        let name = format!(".layerd-stock-{number}");
        match rustix::fs::mknodat(tree, &name, FileType::RegularFile, mode, 0) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::sys("mknod", path.join(name), errno)),
        }
    }
    Err(Error::sys("mknod", path, Errno::EXIST))
}

/// Gives spares their names and sees that the transactions in which they were written to end; gives the number of the
/// one that comes after.
///
/// The kernel keeps no log of a transaction in which a subvolume got another name: an fsync in it ends it. That writes
/// out the directory alone, where a syncfs would write out everybody's data.
fn end<'p>(stock: &OwnedFd, places: impl Iterator<Item = &'p OwnedFd> + Clone) -> Result<u64> {
    for place in places.clone() {
        fs::rename(place, NEW, place, RW)?;
    }
    let info = filesystem::filesystem_info(stock.as_fd());
    let last = info.map_err(|errno| Error::sys("look at file system", DIR, errno))?.generation;
    for place in places {
        // The first finds all of it to write, the others nothing.
        fs::sync_dir(place)?;
    }
    // The transaction in which the store itself was last written to is noted when it ends.
    if subvolume::info(stock)?.changed_in < last {
        removal::settle(stock)?;
    }
    Ok(last + 1)
}

//! Subvolumes that a container made inside its own.
//!
//! A snapshot has an empty directory in the place of each. A committed layer must show what the active
//! one did, so they become plain directories.

use std::os::fd::{BorrowedFd, OwnedFd};

use cow::copy::Options;
use cow::error::{Error, Result};
use cow::root::Root;
use rustix::fs::AtFlags;

use super::subvolume::{self, Writable};
use crate::home::fs;

/// The name of the copy in the directory it is made in.
const PLAIN: &str = "plain";

/// Makes a writable copy of a subvolume in `dir`, in which those inside it are plain directories.
///
/// Data is shared by reflinks; the cost is that of the files in the inner subvolumes.
pub(super) fn flattened(tree: &OwnedFd, dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    subvolume::snapshot(tree, dir, PLAIN, Writable::Yes)?;
    let plain = fs::open_dir(dir, PLAIN)?;
    for inner in subvolume::nested(tree)? {
        let (from, to) = (inner.open_holder(tree)?, inner.open_holder(&plain)?);
        let subvolume::Nested { holder, name } = inner;
        let before = cow::at::meta_of(&to).map_err(|errno| Error::sys("statx", &holder, errno))?;
        match rustix::fs::unlinkat(&to, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(Error::sys("rmdir", &name, errno)),
        }
        let target = fs::make_dir(&to, &name, 0o700)?;
        let source = Root::from_fd(fs::open_dir(&from, &name)?, holder.join(&name));
        let target = Root::from_fd(target, holder.join(&name));
        cow::copy::tree(&source, &target, Options::default())?;
        cow::at::set_mtime_at(&to, "".as_ref(), before.mtime)
            .map_err(|errno| Error::sys("utimensat", &holder, errno))?;
    }
    Ok(plain)
}

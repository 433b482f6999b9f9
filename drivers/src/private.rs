//! Mounts that nobody else sees: held by a file descriptor alone, and gone with it.

use std::os::fd::OwnedFd;

use cow_sys::mount::{MountError, mount_at, mount_fs};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::driver::Mount;
use crate::error::ErrorKind;
use crate::home::{Home, fs};

/// Mounts what `mount` describes without attaching it anywhere.
///
/// A kernel that has no detached mounts for it (overlay before Linux 5.2 or behind a filter) attaches
/// it to a temporary directory of the home for a moment.
pub(crate) fn mount(home: &Home, mount: &Mount) -> cow::Result<OwnedFd> {
    if mount.fstype == "bind" {
        // Read-only by promise: whoever asks for a private mount only reads.
        return cow_sys::mount::bind(CWD, &mount.source, false).map_err(|error| failed(&error));
    }
    match mount_fs(&mount.fstype, &mount.source, &mount.options) {
        Ok(mount) => Ok(mount),
        Err(error) if error.io().raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
            attached_for_a_moment(home, mount)
        }
        Err(error) => Err(failed(&error)),
    }
}

fn attached_for_a_moment(home: &Home, mount: &Mount) -> cow::Result<OwnedFd> {
    let scratch = home.scratch("mount")?;
    let target = fs::make_dir(scratch.dir(), "merged", 0o700)?;
    let path = scratch.path().join("merged");
    mount_at(&mount.fstype, &mount.source, &mount.options, &target).map_err(|e| failed(&e))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::empty());
    cow_sys::mount::unmount(&path, true).map_err(|error| failed(&error))?;
    opened.map_err(|errno| cow::Error::sys("open", &path, errno))
}

/// A failed mount as an error of the mechanics, with everything that the kernel said.
fn failed(error: &MountError) -> cow::Error {
    cow::Error::refused("mount", "", error.to_string(), ErrorKind::of_io(error.io()))
}

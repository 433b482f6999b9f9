//! Ending a mount's connection, so that whoever waits for a reply gets an error at once.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// Where the control file system of FUSE usually is.
const CONTROL: &str = "/sys/fs/fuse/connections";

/// A mount's connection to its server.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its name in the control file system: the minor number of the mount's device.
    number: Option<u32>,
}

impl Connection {
    /// The connection of the mount on this directory.
    pub(super) fn of(point: &Path) -> Self {
        // The device is known without asking the server, which is us.
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statx(CWD, point, flags, StatxFlags::empty());
        Self { number: stat.ok().map(|stat| stat.stx_dev_minor) }
    }

    /// Aborts it, where this process may; else the end of the process does.
    pub(super) fn abort(&self) {
        let Some(number) = self.number else { return };
        let name = format!("{number}/abort");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(CONTROL, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .and_then(|dir| rustix::fs::openat(dir, &name, flags, Mode::empty()))
            // Nobody has mounted it, or not here.
            .or_else(|_| rustix::fs::openat(control()?, &name, flags, Mode::empty()));
        match file.and_then(|file| rustix::io::write(file, b"1")) {
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, number, "the connection cannot be aborted"),
        }
    }
}

/// A mount of the control file system that nobody else sees.
fn control() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

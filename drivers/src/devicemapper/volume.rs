//! The file system on a thin device: made, mounted, grown, checked.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use cow::error::{Error, ErrorKind, Result};
use cow::root::Root;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::time::ClockId;

use super::dm;
use super::options::{FileSystem, Options};
use super::tool;
use crate::driver::Mount;

/// How often, and after which pause, a device that is frozen is tried again.
const FROZEN_TRIES: u32 = 1000;
const FROZEN_PAUSE: Duration = Duration::from_millis(5);

/// How all volumes of a home are treated.
#[derive(Clone, Debug)]
pub(super) struct Volumes {
    pub(super) fs: FileSystem,
    mkfs_args: Vec<String>,
    mount_options: Vec<String>,
    xfs_retries: Option<u32>,
    /// Whether a device's blocks read as zeros until they are written.
    zeroed: bool,
}

impl Volumes {
    /// By the driver's options.
    pub(super) fn new(fs: FileSystem, options: &Options, zeroed: bool) -> Self {
        Self {
            fs,
            mkfs_args: options.mkfs_args.clone(),
            mount_options: options.mount_options.clone(),
            xfs_retries: options.xfs_retries,
            zeroed,
        }
    }

    /// Makes an empty file system, of `size` bytes.
    pub(super) fn make(&self, name: &str, size: u64) -> Result<()> {
        let node = dm::node(name);
        match self.fs {
            FileSystem::Xfs => self.mkfs("mkfs.xfs", &["-q", "-f", "-K"], &node),
            FileSystem::Ext4 => {
                let mut words = vec!["-q", "-F", "-b", "4096", "-m", "0"];
                if size >= 1 << 30 && !self.mkfs_args.iter().any(|word| word == "-J") {
                    // Each container that writes much comes to have a journal of its own.
                    words.extend(["-J", "size=16"]);
                }
                if self.zeroed {
                    // Inode tables and journal are zeros already, and take no block of the pool.
                    let quick = [&words[..], &["-E", "nodiscard,assume_storage_prezeroed=1"]];
                    match self.mkfs("mkfs.ext4", &quick.concat(), &node) {
                        Ok(()) => return Ok(()),
                        Err(error) => tracing::debug!(%error, "an old mkfs.ext4"),
                    }
                }
                words.extend(["-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]);
                self.mkfs("mkfs.ext4", &words, &node)
            }
        }
    }

    fn mkfs(&self, program: &'static str, words: &[&str], node: &Path) -> Result<()> {
        let mut words: Vec<_> = words.iter().map(|word| word.as_ref()).collect();
        words.extend(self.mkfs_args.iter().map(<_ as AsRef<std::ffi::OsStr>>::as_ref));
        words.push(node.as_os_str());
        tool::run(program, &words).map(drop)
    }

    /// Makes a new file system look like an empty layer: no `lost+found`, a plain root without a date.
    pub(super) fn clear(&self, name: &str) -> Result<()> {
        let root = self.open(name, Shown::Writable)?;
        match rustix::fs::unlinkat(&root, "lost+found", AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(root.error("rmdir", "lost+found", errno)),
        }
        let dir = root.open_dir("")?;
        let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Timestamps { last_access: epoch, last_modification: epoch };
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755))
            .and_then(|()| rustix::fs::futimens(&dir, &times))
            .map_err(|errno| root.error("set up", "", errno))?;
        sync(&root)
    }

    /// The mount that shows a device.
    pub(super) fn describe(&self, name: &str, shown: Shown) -> Mount {
        let mut options: Vec<String> = match shown {
            Shown::Writable => vec!["rw".to_owned()],
            Shown::Sealed | Shown::Look => vec!["ro".to_owned()],
        };
        if self.fs == FileSystem::Xfs {
            // All snapshots have the identity of the first.
            options.push("nouuid".to_owned());
        }
        // A word may be given twice: the last one holds.
        options.push("discard".to_owned());
        options.extend(self.mount_options.iter().cloned());
        Mount { fstype: self.fs.name().to_owned(), source: dm::node(name), options }
    }

    /// Mounts a device for nobody else to see. One that is frozen, which the kernel calls busy, is waited
    /// for: a snapshot of it takes some milliseconds, and what is on its way to a slow disk a while more.
    pub(super) fn mount(&self, name: &str, shown: Shown) -> Result<OwnedFd> {
        let mut tries = 0;
        let mounted = loop {
            match self.try_mount(name, shown) {
                Err(error) if error.kind() == ErrorKind::InUse && tries < FROZEN_TRIES => {
                    tries += 1;
                    std::thread::sleep(FROZEN_PAUSE);
                }
                mounted => break mounted?,
            }
        };
        self.settle(name);
        Ok(mounted)
    }

    fn try_mount(&self, name: &str, shown: Shown) -> Result<OwnedFd> {
        let mut mount = self.describe(name, shown);
        if shown == Shown::Look {
            // The device may be mounted writable; a file system is one or the other in all its
            // mounts, so that only this mount of it is read-only.
            mount.options.retain(|word| word != "ro");
        }
        match self.mount_as(&mount) {
            Err(error) if shown == Shown::Look && error.kind() == ErrorKind::InUse => {
                // Or its client has it read-only.
                self.mount_as(&self.describe(name, shown))
            }
            mounted => mounted,
        }
    }

    fn mount_as(&self, mount: &Mount) -> Result<OwnedFd> {
        let mounted = cow_sys::mount::mount_fs(&mount.fstype, &mount.source, &mount.options);
        mounted.map_err(|error| {
            let kind = match ErrorKind::of_io(error.io()) {
                // The driver's own words are lawful: it is what is on the device.
                ErrorKind::InvalidArgument if self.mount_options.is_empty() => ErrorKind::Io,
                kind => kind,
            };
            Error::refused("mount", &mount.source, error.to_string(), kind)
        })
    }

    /// The same as a root in which paths are looked up.
    pub(super) fn open(&self, name: &str, shown: Shown) -> Result<Root> {
        Ok(Root::from_fd(self.mount(name, shown)?, dm::node(name)))
    }

    /// Sets what xfs takes only after a mount: how long it tries to write when there is no space.
    pub(super) fn settle(&self, name: &str) {
        let (FileSystem::Xfs, Some(retries)) = (self.fs, self.xfs_retries) else { return };
        let Ok(stat) = rustix::fs::stat(dm::node(name)) else { return };
        let device = format!("dm-{}", rustix::fs::minor(stat.st_rdev));
        let path = Path::new("/sys/fs/xfs").join(device).join("error/metadata/ENOSPC/max_retries");
        if let Err(error) = std::fs::write(&path, retries.to_string()) {
            tracing::warn!(path = %path.display(), %error, "xfs_nospace_max_retries is not set");
        }
    }

    /// Lets a file system have all of its device, which is mounted at `mount_point` in the meantime.
    pub(super) fn grow(&self, name: &str, mount_point: &Path) -> Result<()> {
        let target = rustix::fs::open(mount_point, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::sys("open", mount_point, errno))?;
        cow_sys::mount::attach(self.mount(name, Shown::Writable)?, target.as_fd())
            .map_err(|error| Error::sys("mount", mount_point, into_io(error)))?;
        let grown = match self.fs {
            FileSystem::Ext4 => tool::run("resize2fs", &[dm::node(name).as_os_str()]),
            FileSystem::Xfs => tool::run("xfs_growfs", &[mount_point.as_os_str()]),
        };
        drop(target);
        // Programs that are being started have copies of what was open.
        crate::spawning::wait();
        let unmounted = cow_sys::mount::unmount(mount_point, false)
            .map_err(|error| Error::sys("unmount", mount_point, into_io(error)));
        grown.and(unmounted)
    }

    /// Checks a file system that is not mounted, with `replay` after what its journal holds is in
    /// place, and with `mend` mends what it can; what is wrong, or stays so.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub(super) fn check(&self, name: &str, replay: bool, mend: bool) -> Result<Option<String>> {
        let node = dm::node(name);
        let mut words = match (self.fs, mend) {
            // All of it only if the file system says that it is damaged.
            (FileSystem::Ext4, true) => vec!["-p".as_ref()],
            (FileSystem::Ext4, false) => vec!["-f".as_ref(), "-n".as_ref()],
            (FileSystem::Xfs, true) => Vec::new(),
            (FileSystem::Xfs, false) => vec!["-n".as_ref()],
        };
        words.push(node.as_os_str());
        let program = match self.fs {
            FileSystem::Ext4 => "e2fsck",
            FileSystem::Xfs => "xfs_repair",
        };
        if replay {
            // What the journal has is no damage: the next mount puts it in place, as this one does.
            if let Err(error) = self.mount(name, Shown::Writable) {
                tracing::debug!(%error, "the journal is not replayed");
            }
        }
        let ran = tool::run_any(program, &words)?;
        match ran.code {
            // e2fsck: 1 is mended; of a look without writing it is damage.
            Some(0) => Ok(None),
            Some(1) if mend && self.fs == FileSystem::Ext4 => {
                // A whole check makes the directory anew; one with something in it stays.
                let root = self.open(name, Shown::Writable)?;
                let _ = rustix::fs::unlinkat(&root, "lost+found", AtFlags::REMOVEDIR);
                Ok(None)
            }
            _ => Ok(Some(ran.failure().to_string())),
        }
    }
}

/// How a device is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// An active layer, as its user sees it.
    Writable,
    /// A committed layer, whose device takes no writes.
    Sealed,
    /// An active layer, read-only through this mount.
    Look,
}

/// Sees that everything that was written is on the device. An unmount writes it too, but tells nobody
/// when it cannot.
pub(super) fn sync(root: &Root) -> Result<()> {
    rustix::fs::syncfs(root.open_dir("")?).map_err(|errno| root.error("syncfs", "", errno))
}

/// The time from which the kernel would date an inode now.
pub(super) fn tick() -> Timespec {
    rustix::time::clock_gettime(ClockId::RealtimeCoarse)
}

/// Waits until that time is another one; a few milliseconds at most. What is written after a layer
/// was sealed is then dated otherwise than what was written before (see [`changes`](super::changes)).
pub(super) fn pass(last: Timespec) {
    while tick() == last {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn into_io(error: cow_sys::mount::MountError) -> std::io::Error {
    std::io::Error::new(error.io().kind(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on() {
        let last = tick();
        pass(last);
        assert_ne!(tick(), last, "what is written now is dated otherwise");
    }
}

//! A directory in which a test may mount things, and that is cleared away whatever happens.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::disk;

/// Unmounts what nobody has open: a program that another test is just starting has copies of all that was open until
/// it runs, so that a busy mount is tried again for a while.
///
/// # Panics
/// When it cannot be unmounted.
pub fn unmount(at: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match rustix::mount::unmount(at, UnmountFlags::empty()) {
            Err(Errno::BUSY) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(()) => return,
            Err(errno) => panic!("umount {}: {errno}", at.display()),
        }
    }
}

/// Room enough for every case; only what is used is taken.
const BTRFS_MIB: u64 = 8192;

/// A temporary directory in which a test may mount things.
///
/// When it is dropped, under a panic too, whatever is mounted below is unmounted, and the directory
/// is removed.
#[derive(Debug)]
pub struct TempRoot {
    path: PathBuf,
}

impl TempRoot {
    /// Makes an empty directory, named after the test for the eyes of whoever finds it.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(label: &str) -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("layerd-test-{label}-{}-{serial}", std::process::id());
        let path = std::env::temp_dir().join(name);
        if let Err(error) = fs::create_dir(&path) {
            panic!("mkdir {}: {error}", path.display());
        }
        let path = path.canonicalize().unwrap_or(path);
        Self { path }
    }

    /// The same in memory, for a test of which the disk is not the point.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn in_memory(label: &str) -> Self {
        let root = Self::new(label);
        let flags = rustix::mount::MountFlags::empty();
        if let Err(error) = rustix::mount::mount("tmpfs", &root.path, "tmpfs", flags, None) {
            panic!("tmpfs on {}: {error}", root.path.display());
        }
        root
    }

    /// The same on a new btrfs.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn on_btrfs(label: &str) -> Self {
        let root = Self::new(label);
        disk::mount_new("btrfs", BTRFS_MIB, &root.path);
        root
    }

    /// Where a driver works, whatever file system that takes.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn for_driver(driver: &str, label: &str) -> Self {
        if driver == "btrfs" { Self::on_btrfs(label) } else { Self::new(label) }
    }

    /// Unmounts its disk and mounts it again.
    ///
    /// # Panics
    /// When it has none, or it is in use.
    pub fn remount(&self) {
        disk::remount(&self.path);
    }

    /// The directory's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    #[must_use]
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }
}

impl Drop for TempRoot {
    fn drop(&mut self) {
        unmount_below(&self.path);
        // Its own mount, if it is in memory or on a disk of its own.
        let _ = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
        // A second failure while a panic unwinds would hide the first.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Unmounts everything below a directory, the last mounted first.
pub fn unmount_below(dir: &Path) {
    for mount_point in mounts_below(dir).into_iter().rev() {
        let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
        let _ = rustix::mount::unmount(&mount_point, flags);
    }
}

/// The mount points below a directory, in the order in which they were mounted.
#[must_use]
pub fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    // Only blanks and backslashes are ever in names that tests choose.
    let points =
        points.map(|text| PathBuf::from(text.replace("\\040", " ").replace("\\134", "\\")));
    points.filter(|point| point.starts_with(dir) && point != dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_nothing() {
        let path = std::panic::catch_unwind(|| {
            let root = TempRoot::new("panic");
            fs::write(root.join("file"), "x").unwrap();
            std::panic::panic_any(root.path().to_owned());
        });
        let path = *path.unwrap_err().downcast::<PathBuf>().unwrap();
        assert!(!path.exists(), "{} is left", path.display());
    }
}

//! Disks of a test's own: files behind loop devices.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::Finish as _;

/// Where disks are kept, if it is there: in memory, as what they are for is not their speed.
const MEMORY: &str = "/dev/shm";

/// How long the kernel may take to free subvolumes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes a file system of this kind (`ext4`, `btrfs`) on a new disk of so many MiB, and mounts it.
///
/// The disk goes when it is unmounted, whoever does that.
///
/// # Panics
/// When it cannot be made.
pub fn mount_new(fs: &str, mib: u64, at: &Path) {
    let image = tempfile::NamedTempFile::new_in(MEMORY).or_else(|_| tempfile::NamedTempFile::new());
    let image = image.expect("a disk image");
    image.as_file().set_len(mib << 20).expect("room for a sparse file");
    make(fs, image.path());
    let mut mount = Command::new("mount");
    mount.args(["-t", fs, "-o", "loop"]).arg(image.path()).arg(at).finish().ok();
    // The loop device holds the file, whose name can go.
}

/// Unmounts what is mounted at a directory, and mounts it there again.
///
/// # Panics
/// When it is in use.
pub fn remount(at: &Path) {
    let device = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(at).finish().ok();
    // Held open, so that the loop device does not end with the mount.
    let held = std::fs::File::open(device.trim()).expect("the device");
    crate::root::unmount(at);
    Command::new("mount").arg(device.trim()).arg(at).finish().ok();
    drop(held);
}

/// Makes a file system of this kind in a file or on a device.
///
/// # Panics
/// When it cannot be made.
pub fn make(fs: &str, on: &Path) {
    let flags: &[&str] = match fs {
        // As on disks of more than 512 MB: with smaller blocks than pages, ext4 does some things in another way.
        "ext4" => &["-q", "-F", "-b", "4096"],
        "btrfs" => &["-q", "-f", "-m", "single"],
        // Without it copies are copied, and do not share the extents of their sources.
        "xfs" => &["-q", "-f", "-m", "reflink=0"],
        _ => &["-q", "-F"],
    };
    let mut made = Command::new(format!("mkfs.{fs}")).args(flags).arg(on).finish();
    // mkfs.btrfs looks at every mount of the machine. One whose server has died, as other tests have
    // it, is gone in a moment, and so is one whose loop device ends just now.
    let deadline = Instant::now() + Duration::from_secs(60);
    while made.stderr.contains("cannot check mount status") && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
        made = Command::new(format!("mkfs.{fs}")).args(flags).arg(on).finish();
    }
    made.ok();
}

/// Waits until btrfs has freed the subvolumes that were deleted.
///
/// A sync by its own ioctl wakes the kernel's cleaner, which otherwise comes every 30 s.
///
/// # Panics
/// When they are not freed.
pub fn clean_btrfs(path: &Path) {
    let btrfs = |arguments: &[&str]| Command::new("btrfs").args(arguments).arg(path).finish().ok();
    let deadline = Instant::now() + PATIENCE;
    while !btrfs(&["subvolume", "list", "-d"]).is_empty() {
        assert!(Instant::now() < deadline, "deleted subvolumes stay");
        btrfs(&["filesystem", "sync"]);
    }
}

//! Mounts of our own, over which the layers are reached.
//!
//! An fd keeps the mount busy that it was opened on. Layers that are opened on a clone of it, attached
//! nowhere, leave the mount itself alone: as with the kernel's overlay, it can be unmounted the moment
//! the union is, or while the union lives. What is mounted inside of a layer is not part of the layer.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use cow_sys::mount_attr::{self, Change, Propagation};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

/// Which reads of a layer change access times: whatever the mount of the union says of them, it is over the
/// clone that its files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// What the clone is told; it is as its original otherwise.
    pub access: Option<Access>,
    /// Whether listing directories never does.
    pub no_dirs: bool,
}

/// When reading a file changes its access time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Never.
    Never,
    /// Always.
    Always,
    /// Once a day, and after each change.
    Relative,
}

impl Times {
    /// Those of a layer that nothing is changed in.
    pub(super) const NEVER: Self = Self { access: Some(Access::Never), no_dirs: true };

    /// The properties of a mount to turn on and off.
    fn attributes(self) -> (MountAttrFlags, MountAttrFlags) {
        use MountAttrFlags as F;
        let (mut on, off) = match self.access {
            None => (F::empty(), F::empty()),
            Some(Access::Never) => (F::MOUNT_ATTR_NOATIME, F::MOUNT_ATTR__ATIME),
            Some(Access::Always) => (F::MOUNT_ATTR_STRICTATIME, F::MOUNT_ATTR__ATIME),
            Some(Access::Relative) => (F::MOUNT_ATTR_RELATIME, F::MOUNT_ATTR__ATIME),
        };
        on.set(F::MOUNT_ATTR_NODIRATIME, self.no_dirs);
        (on, off)
    }
}

/// Opens directories once more, all on one clone of the mount that they are on: a rename or a link
/// between two clones would be refused.
///
/// `times` says which reads through it change access times.
///
/// None where the privileges or the kernel do not allow it (CAP_SYS_ADMIN, Linux 5.12), or where the
/// directories are not on one mount; they are then used as they were opened.
pub(super) fn detached(dirs: &[(&OwnedFd, &Path)], times: Times) -> Option<Vec<OwnedFd>> {
    let paths: Option<Vec<PathBuf>> =
        dirs.iter().map(|(_, path)| path.canonicalize().ok()).collect();
    let paths = paths?;
    let base = paths.iter().skip(1).fold(paths.first()?.clone(), |base, path| common(&base, path));
    let tree = cow_sys::mount::bind(rustix::fs::CWD, &base, false).ok()?;
    let (on, off) = times.attributes();
    let private = Change { propagation: Some(Propagation::Private), ..Change::NOTHING };
    let timed = Change { on, off, ..private };
    // A user namespace may not change the access times of mounts that it was given.
    mount_attr::set(&tree, &timed, false)
        .or_else(|_| mount_attr::set(&tree, &private, false))
        .ok()?;
    let opened: Option<Vec<OwnedFd>> = dirs
        .iter()
        .zip(&paths)
        .map(|((known, _), path)| {
            let fd = open_below(&tree, path.strip_prefix(&base).ok()?).ok()?;
            same(known, &fd).then_some(fd)
        })
        .collect();
    opened
}

fn common(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

fn open_below(tree: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(tree, path, flags, Mode::empty(), resolve)
}

/// Whether both are the same directory: another may be mounted over a part of the path.
fn same(a: &OwnedFd, b: &OwnedFd) -> bool {
    let id = |fd| {
        let stat = super::merge::stat(fd, std::ffi::OsStr::new("")).ok()?;
        Some((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
    };
    id(a).is_some() && id(a) == id(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_part_of_paths_ends_at_a_whole_name() {
        for (a, b, expected) in [
            ("/a/upper", "/a/work", "/a"),
            ("/a/up", "/a/upper", "/a"),
            ("/a", "/a/work", "/a"),
            ("/a", "/b", "/"),
        ] {
            assert_eq!(common(a.as_ref(), b.as_ref()), Path::new(expected), "{a} and {b}");
        }
    }

    #[test]
    fn directories_of_one_mount_are_reached_over_one_clone() {
        let dir = tempfile::tempdir().expect("a directory");
        let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
        let open = |path: &Path| {
            std::fs::create_dir(path).expect("a directory");
            OwnedFd::from(std::fs::File::open(path).expect("open"))
        };
        let (upper_fd, work_fd) = (open(&upper), open(&work));
        // Without privileges there is nothing to look at: the directories stay as they are.
        let dirs = [(&upper_fd, &*upper), (&work_fd, &*work)];
        let Some(fds) = detached(&dirs, Times::default()) else { return };
        assert!(same(&fds[0], &upper_fd) && same(&fds[1], &work_fd), "the same directories");
        std::fs::write(work.join("f"), "x").expect("a file");
        let moved = rustix::fs::renameat(&fds[1], "f", &fds[0], "f");
        assert_eq!(moved, Ok(()), "a rename within the clone");
        let across = rustix::fs::renameat(&upper_fd, "f", &fds[1], "f");
        assert_eq!(across, Err(Errno::XDEV), "a rename from the mount into its clone");
    }
}

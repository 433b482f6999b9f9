//! `mount_setattr(2)`: properties of a mount or of a tree of mounts, set in one step.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};
use rustix::mount::MountAttrFlags;

/// What a call of [`set`] changes.
#[derive(Clone, Copy, Debug)]
pub struct Change<'fd> {
    /// Properties to turn on.
    pub on: MountAttrFlags,
    /// Properties to turn off; the access time setting is one value, cleared as `MOUNT_ATTR__ATIME`.
    pub off: MountAttrFlags,
    /// The propagation type to give: none keeps what there is.
    pub propagation: Option<Propagation>,
    /// A user namespace whose mapping shifts the owners that the mount shows (an id-mapped mount).
    ///
    /// Only a mount that was never attached (from [`open_tree`](rustix::mount::open_tree) with
    /// `OPEN_TREE_CLONE`) takes one, only once, and only if its file system supports it.
    pub id_map: Option<BorrowedFd<'fd>>,
}

impl Change<'_> {
    /// A change of nothing, to be filled in.
    pub const NOTHING: Self = Self {
        on: MountAttrFlags::empty(),
        off: MountAttrFlags::empty(),
        propagation: None,
        id_map: None,
    };

    /// The change that forbids writing through the mount.
    pub const READ_ONLY: Self = Self { on: MountAttrFlags::MOUNT_ATTR_RDONLY, ..Self::NOTHING };
}

/// How mounts below a mount spread to its copies in other namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// To and from all of them.
    Shared,
    /// From the master only.
    Slave,
    /// Not at all.
    Private,
}

/// `struct mount_attr` of `linux/mount.h`, in its first and only version.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `mount_setattr(2)` - Changes the mount that `mount` is the root of, or the whole tree below it.
///
/// Linux 5.12. All mounts of the tree change, or none.
///
/// # Errors
/// `NOSYS` on older kernels; `INVAL` when `mount` is not the root of a mount, or when its file
/// system supports no id map.
pub fn set(mount: impl AsFd, change: &Change<'_>, recursive: bool) -> Result<()> {
    let id_mapped = match change.id_map {
        Some(_) => MountAttrFlags::MOUNT_ATTR_IDMAP,
        None => MountAttrFlags::empty(),
    };
    let attr = MountAttr {
        attr_set: (change.on | id_mapped).bits().into(),
        attr_clr: change.off.bits().into(),
        propagation: match change.propagation {
            Some(Propagation::Shared) => libc::MS_SHARED,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            None => 0,
        },
        // An fd is never negative.
        userns_fd: change.id_map.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let path: &CStr = c"";
    let mount = mount.as_fd();
    // SAFETY: the fds are open for as long as they are borrowed, `path` is NUL-terminated, and
    // `attr` is only read, for exactly its size.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if answer == 0 {
        return Ok(());
    }
    let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    Err(Errno::from_raw_os_error(code))
}

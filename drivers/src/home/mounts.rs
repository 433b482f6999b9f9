//! Where layers are mounted, and how many callers hold each mount.
//!
//! A layer has one mount point, `layers/<id>/merged`, made for the first caller and removed after
//! the last. Counts live in memory; a new process starts from the kernel's mount table with one
//! caller for each mount that it finds, so containers survive a restart of the daemon.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::layer::{Layer, Mounted};
use super::{Home, fs};
use crate::call::{Call, HomeCall};
use crate::error::{ErrorKind, Result};
use crate::id::LayerId;
use crate::mountinfo::{self, MountEntry};

/// The name of a layer's mount point.
pub(crate) const MERGED: &str = "merged";

/// What the end of a layer's file system costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing: there is none, or it keeps nothing back.
    Quick,
    /// A sync of what lies below, if it was writable.
    Slow,
}

impl Home {
    /// Starts counting from the mounts that exist.
    pub(super) fn adopt_mounts(&self) -> Result<()> {
        let call = HomeCall { driver: self.driver, op: "open" };
        let table = mountinfo::read().map_err(|error| call.failed(error))?;
        for entry in &table {
            if let Some(id) = self.layer_of_mount(&entry.mount_point)
                && let Ok(layer) = self.index.get(self.call("open", &id))
            {
                let writable = entry.writable();
                *layer.mounted() = Mounted { count: 1, writable, ending: None };
            }
        }
        Ok(())
    }

    /// The layer whose mount point this is.
    pub(super) fn layer_of_mount(&self, mount_point: &Path) -> Option<LayerId> {
        let below = mount_point.strip_prefix(&self.path).ok()?.strip_prefix("layers").ok()?;
        let mut parts = below.iter();
        let (id, name) = (parts.next()?, parts.next()?);
        if name != MERGED || parts.next().is_some() {
            return None;
        }
        id.to_str()?.parse().ok()
    }

    /// Takes a reference on a layer's mount; for the first one `mount` attaches it to the directory
    /// it is given. The caller shares the layer's gate.
    ///
    /// # Errors
    /// `InUse` when the layer is mounted the other way (writable or read-only).
    pub(crate) fn take_mount(
        &self,
        call: Call<'_>,
        layer: &Layer,
        writable: bool,
        mount: impl FnOnce(&OwnedFd) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.layer_path(&layer.id, MERGED);
        let mut mounted = layer.mounted();
        if mounted.count > 0 {
            if mounted.writable != writable {
                let way = if mounted.writable { "writable" } else { "read-only" };
                return Err(call.refused(ErrorKind::InUse, format!("already mounted {way}")));
            }
            mounted.count += 1;
            return Ok(path);
        }
        mounted.settle();
        self.put_on(call, layer, mount)?;
        *mounted = Mounted { count: 1, writable, ending: None };
        Ok(path)
    }

    /// Makes a layer's mount point and has `mount` attach to it.
    fn put_on(
        &self,
        call: Call<'_>,
        layer: &Layer,
        mount: impl FnOnce(&OwnedFd) -> Result<()>,
    ) -> Result<()> {
        let dir = fs::open_dir(&self.layers, &layer.id).map_err(|error| call.failed(error))?;
        let target = fs::ensure_dir(&dir, MERGED, 0o700).map_err(|error| call.failed(error))?;
        mount(&target).inspect_err(|_| {
            drop(target);
            let _ = rustix::fs::unlinkat(&dir, MERGED, AtFlags::REMOVEDIR);
        })
    }

    /// Puts a new mount in the place of one that whoever served it has left; its callers hold the new
    /// one. The caller shares the layer's gate.
    pub(crate) fn revive_mount(
        &self,
        call: Call<'_>,
        layer: &Layer,
        is_dead: impl FnOnce() -> bool,
        mount: impl FnOnce(&OwnedFd) -> Result<()>,
    ) -> Result<()> {
        let mut mounted = layer.mounted();
        if mounted.count == 0 || !is_dead() {
            return Ok(());
        }
        tracing::warn!(driver = call.driver, layer = %call.layer, "a dead mount is made anew");
        self.take_off(call, &layer.id)?;
        self.put_on(call, layer, mount).inspect_err(|_| *mounted = Mounted::default())
    }

    /// Takes off what `is_dead` says nobody serves any more; nobody can be using it.
    pub(crate) fn forget_dead_mounts(&self, is_dead: impl Fn(&LayerId) -> bool) -> Result<()> {
        for layer in self.layers() {
            let mut mounted = layer.mounted();
            if mounted.count > 0 && is_dead(&layer.id) {
                self.take_off(self.call("open", &layer.id), &layer.id)?;
                *mounted = Mounted::default();
            }
        }
        Ok(())
    }

    /// Drops all references to a layer's mount but one.
    pub(crate) fn let_go(&self, layer: &Layer) {
        let mut mounted = layer.mounted();
        mounted.count = mounted.count.min(1);
    }

    /// Drops a reference on a layer's mount, and unmounts with the last one, after which `unmounted`
    /// is run. Without a reference it does nothing.
    pub(crate) fn drop_mount(
        &self,
        call: Call<'_>,
        layer: &Layer,
        ending: Ending,
        unmounted: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.drop_mount_after(call, layer, ending, || (), unmounted)
    }

    /// The same, with `before` run before it is unmounted.
    pub(crate) fn drop_mount_after(
        &self,
        call: Call<'_>,
        layer: &Layer,
        ending: Ending,
        before: impl FnOnce(),
        unmounted: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut mounted = layer.mounted();
        match mounted.count {
            0 => return Ok(()),
            1 => {}
            _ => {
                mounted.count -= 1;
                return Ok(());
            }
        }
        before();
        // A kernel that cannot clone mounts ends it at once; so does one where it is gone already.
        let kept = match ending {
            Ending::Slow if mounted.writable => {
                cow_sys::mount::bind(&self.layers, &layer.id.as_ref().join(MERGED), false).ok()
            }
            _ => None,
        };
        self.take_off(call, &layer.id)?;
        mounted.count = 0;
        mounted.ending = kept.map(|mount| self.closer.close(mount));
        unmounted()
    }

    /// Unmounts a layer and removes its mount point, which also ends the copies of the mount that
    /// other namespaces inherited (rmdir(2) of a mount point, Linux 3.18).
    fn take_off(&self, call: Call<'_>, id: &LayerId) -> Result<()> {
        let path = self.layer_path(id, MERGED);
        match take_away(&path, false) {
            Ok(()) => {}
            Err(Errno::BUSY) => self.take_off_busy(call, &path)?,
            Err(errno) => return Err(call.sys("umount", MERGED, errno)),
        }
        let merged = id.as_ref().join(MERGED);
        match rustix::fs::unlinkat(&self.layers, &merged, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                tracing::warn!(driver = self.driver, layer = %id, %errno, "mount point stays");
                Ok(())
            }
        }
    }

    /// Unmounts what is mounted inside, then the mount itself; if a process still uses it, detaches
    /// it, so that it goes when the process does.
    fn take_off_busy(&self, call: Call<'_>, path: &Path) -> Result<()> {
        let table = mountinfo::read().map_err(|error| call.failed(error))?;
        for entry in mountinfo::below(&table, path) {
            if entry.mount_point != path {
                take_away(&entry.mount_point, true)
                    .map_err(|errno| call.sys("umount", &entry.mount_point, errno))?;
            }
        }
        match take_away(path, false) {
            Ok(()) => Ok(()),
            Err(Errno::BUSY) => {
                tracing::warn!(driver = call.driver, layer = %call.layer, "detaching a busy mount");
                take_away(path, true).map_err(|errno| call.sys("umount", MERGED, errno))
            }
            Err(errno) => Err(call.sys("umount", MERGED, errno)),
        }
    }

    /// Unmounts everything below the home, whoever holds it.
    pub(crate) fn unmount_all(&self) -> Result<()> {
        let call = HomeCall { driver: self.driver, op: "cleanup" };
        for layer in self.layers() {
            let mut mounted = layer.mounted();
            if mounted.count > 0 {
                self.take_off(self.call("cleanup", &layer.id), &layer.id)?;
                *mounted = Mounted::default();
            }
        }
        for entry in self.mounts_below(call)? {
            take_away(&entry.mount_point, true)
                .map_err(|errno| call.sys("umount", &entry.mount_point, errno))?;
        }
        // One that another namespace has locked here looks as if it were gone.
        for entry in self.mounts_below(call)? {
            tracing::warn!(mount = %entry.mount_point.display(), "a mount stays");
        }
        Ok(())
    }

    /// What is mounted below the home, deepest first.
    pub(super) fn mounts_below(&self, call: HomeCall) -> Result<Vec<MountEntry>> {
        let table = mountinfo::read().map_err(|error| call.failed(error))?;
        let below = mountinfo::below(&table, &self.path);
        // The home may be a mount of its own, which is not ours.
        Ok(below.into_iter().filter(|entry| entry.mount_point != self.path).cloned().collect())
    }
}

/// umount2(2), with the bare errno.
pub(super) fn unmount(path: &Path, lazily: bool) -> Result<(), Errno> {
    use rustix::mount::UnmountFlags;
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW)
}

/// The same; what somebody else has unmounted meanwhile is as it was to be.
fn take_away(path: &Path, lazily: bool) -> Result<(), Errno> {
    match unmount(path, lazily) {
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        answer => answer,
    }
}

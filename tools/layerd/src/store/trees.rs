//! The trees of snapshots: mounting, filling, measuring, and comparing them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use cow::change::Changeset;
use drivers::{Access, Applied, Driver, LayerId, Mount, Usage};

use super::{NewSnapshot, Store};
use crate::catalogue::{Snapshot, SnapshotKind};
use crate::error::{Error, ErrorKind, Result};
use crate::events::Note;

impl Store {
    /// Makes a snapshot and says how it is mounted; one that cannot be mounted is not made.
    ///
    /// # Errors
    /// Those of [`Store::prepare`] and [`Store::snapshot_mounts`].
    pub fn prepare_mounts(&self, namespace: &str, new: &NewSnapshot) -> Result<Vec<Mount>> {
        self.prepare(namespace, new)?;
        self.mounts_of(namespace, &new.key).map(|(_, mounts)| mounts).inspect_err(|_| {
            if let Err(error) = self.remove_snapshot(namespace, &new.key) {
                tracing::warn!(key = new.key, %error, "a snapshot that cannot be mounted stays");
            }
        })
    }

    /// The mounts that show an active snapshot or a view.
    ///
    /// Of a driver whose trees only the daemon can mount, and of a snapshot with mapped ids, the tree is
    /// mounted here and the answer is a bind mount of it. A client asks as often as it likes and never says that it is done: the
    /// mount ends with the snapshot's removal or commit, or the end of its container, however many
    /// references it has by then, those of a daemon before this one included.
    ///
    /// # Errors
    /// `FailedPrecondition` for a committed one.
    pub fn snapshot_mounts(&self, namespace: &str, key: &str) -> Result<Vec<Mount>> {
        let (snapshot, mounts) = self.mounts_of(namespace, key)?;
        let note = Note::snapshot("mount", namespace, &snapshot).with("by", "client");
        self.events.tell(note);
        Ok(mounts)
    }

    /// The same for one that was just made, or is only looked at: no event says that it is mounted.
    pub(super) fn mounts_of(&self, namespace: &str, key: &str) -> Result<(Snapshot, Vec<Mount>)> {
        const OP: &str = "mounts of snapshot";
        let failed = |e| Error::driver(format!("{OP} {key:?}"), e);
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        if !is_mounted_by_daemon(&*driver, &snapshot.layer) {
            refuse_committed(OP, &snapshot)?;
            let mounts = driver.mounts(&snapshot.layer, Access::Default).map_err(failed)?;
            return Ok((snapshot, mounts));
        }
        // Neither a removal nor a commit may come between the row and the mount.
        let _claim = self.keys.claim((namespace.to_owned(), key.to_owned()));
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        refuse_committed(OP, &snapshot)?;
        let source = driver.mount(&snapshot.layer, Access::Default).map_err(failed)?;
        let access = if snapshot.kind == SnapshotKind::Active { "rw" } else { "ro" };
        let options = vec!["rbind".to_owned(), access.to_owned()];
        Ok((snapshot, vec![Mount { fstype: "bind".to_owned(), source, options }]))
    }

    /// Ends what [`Store::snapshot_mounts`] mounted; whoever still uses a bind mount of it keeps that.
    pub(super) fn end_mounts(&self, namespace: &str, key: &str) -> Result<()> {
        const OP: &str = "unmount snapshot";
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        if is_mounted_by_daemon(&*driver, &snapshot.layer) {
            let failed = |e| Error::driver(format!("{OP} {key:?}"), e);
            driver.release(&snapshot.layer).map_err(failed)?;
            self.events.tell(Note::snapshot("unmount", namespace, &snapshot).with("by", "daemon"));
        }
        Ok(())
    }

    /// The space of a snapshot, its parents not counted.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn snapshot_usage(&self, namespace: &str, key: &str) -> Result<Usage> {
        const OP: &str = "usage of snapshot";
        let snapshot = self.row(OP, namespace, key)?;
        if let Some(usage) = snapshot.usage {
            return Ok(usage);
        }
        let driver = self.driver(Some(&snapshot.driver))?;
        driver.usage(&snapshot.layer).map_err(|e| Error::driver(format!("{OP} {key:?}"), e))
    }

    /// Mounts a snapshot in the daemon's mount namespace and takes a reference.
    pub fn mount_snapshot(&self, namespace: &str, key: &str) -> Result<PathBuf> {
        const OP: &str = "mount snapshot";
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        let path = driver
            .mount(&snapshot.layer, Access::Default)
            .map_err(|e| Error::driver(format!("{OP} {key:?}"), e))?;
        self.events.tell(Note::snapshot("mount", namespace, &snapshot).with("by", "daemon"));
        Ok(path)
    }

    /// Drops a reference to a mount of [`Store::mount_snapshot`].
    pub fn unmount_snapshot(&self, namespace: &str, key: &str) -> Result<()> {
        const OP: &str = "unmount snapshot";
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        let failed = |e| Error::driver(format!("{OP} {key:?}"), e);
        driver.unmount(&snapshot.layer).map_err(failed)?;
        self.events.tell(Note::snapshot("unmount", namespace, &snapshot).with("by", "daemon"));
        Ok(())
    }

    /// Applies an uncompressed layer tar to an active snapshot.
    pub fn apply_snapshot(
        &self,
        namespace: &str,
        key: &str,
        tar: &mut dyn Read,
    ) -> Result<Applied> {
        const OP: &str = "apply to snapshot";
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        let failed = |e| Error::driver(format!("{OP} {key:?}"), e);
        let applied = driver.apply(&snapshot.layer, tar).map_err(failed)?;
        self.metrics.imported.inc_by(applied.tar_size);
        Ok(applied)
    }

    /// How a snapshot differs from its parent, or from `base`, an ancestor.
    pub fn snapshot_changes(
        &self,
        namespace: &str,
        key: &str,
        base: Option<&str>,
    ) -> Result<Changeset> {
        const OP: &str = "changes of snapshot";
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        let base = self.base(OP, namespace, &snapshot, base)?;
        driver
            .changes(&snapshot.layer, base.as_ref())
            .map_err(|e| Error::driver(format!("{OP} {key:?}"), e))
    }

    /// Writes the same difference as an uncompressed layer tar; the answer is its length.
    pub fn snapshot_diff(
        &self,
        namespace: &str,
        key: &str,
        base: Option<&str>,
        out: &mut dyn Write,
    ) -> Result<u64> {
        const OP: &str = "diff of snapshot";
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        let base = self.base(OP, namespace, &snapshot, base)?;
        let written = driver
            .diff(&snapshot.layer, base.as_ref(), out)
            .map_err(|e| Error::driver(format!("{OP} {key:?}"), e))?;
        self.metrics.exported.inc_by(written);
        Ok(written)
    }

    /// What `docker inspect` shows as GraphDriver.Data of a snapshot.
    pub fn snapshot_metadata(
        &self,
        namespace: &str,
        key: &str,
    ) -> Result<BTreeMap<String, String>> {
        const OP: &str = "metadata of snapshot";
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        driver.metadata(&snapshot.layer).map_err(|e| Error::driver(format!("{OP} {key:?}"), e))
    }

    /// The layer that a difference is taken against; none for the parent.
    fn base(
        &self,
        op: &'static str,
        namespace: &str,
        snapshot: &Snapshot,
        base: Option<&str>,
    ) -> Result<Option<LayerId>> {
        let Some(base) = base.filter(|base| snapshot.parent.as_deref() != Some(base)) else {
            return Ok(None);
        };
        let rows = self.catalogue.read()?;
        self.below(&rows, namespace, base, Some(&snapshot.driver), op).map(|b| Some(b.layer))
    }
}

fn refuse_committed(op: &'static str, snapshot: &Snapshot) -> Result<()> {
    if snapshot.kind == SnapshotKind::Committed {
        let kind = ErrorKind::FailedPrecondition;
        return Err(Error::refused(op, &snapshot.key, "it is committed", kind));
    }
    Ok(())
}

/// Ends the mount of a layer of which only the daemon has mounts, and that no client will use again.
fn end_mounts(driver: &dyn Driver, layer: &LayerId) -> drivers::Result<()> {
    if is_mounted_by_daemon(driver, layer) { driver.release(layer) } else { Ok(()) }
}

/// Whether clients get a bind mount of what the daemon has mounted.
fn is_mounted_by_daemon(driver: &dyn Driver, layer: &LayerId) -> bool {
    // A layer that cannot be read is nobody's mount.
    let is_mapped = || driver.info(layer).is_ok_and(|info| info.id_map.is_some());
    !driver.capabilities().client_mounts || is_mapped()
}

/// Removes a layer that no client will use again, mounted or not.
pub(crate) fn discard(driver: &dyn Driver, layer: &LayerId) -> drivers::Result<()> {
    end_mounts(driver, layer)?;
    driver.remove(layer)
}

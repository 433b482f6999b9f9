//! The trees of snapshots: mounting, filling, measuring, and comparing them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use cow::change::Changeset;
use drivers::{Access, Applied, LayerId, Mount, Usage};

use super::Store;
use crate::catalogue::{Snapshot, SnapshotKind};
use crate::error::{Error, ErrorKind, Result};

impl Store {
    /// The mounts that show an active snapshot or a view.
    ///
    /// Of a driver whose trees only the daemon can mount, the tree is mounted here and the answer is
    /// a bind mount of it.
    ///
    /// # Errors
    /// `FailedPrecondition` for a committed one.
    pub fn snapshot_mounts(&self, namespace: &str, key: &str) -> Result<Vec<Mount>> {
        const OP: &str = "mounts of snapshot";
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        if snapshot.kind == SnapshotKind::Committed {
            return Err(Error::refused(OP, key, "it is committed", ErrorKind::FailedPrecondition));
        }
        let failed = |e| Error::driver(format!("{OP} {key:?}"), e);
        if driver.capabilities().client_mounts {
            return driver.mounts(&snapshot.layer, Access::Default).map_err(failed);
        }
        let source = driver.mount(&snapshot.layer, Access::Default).map_err(failed)?;
        let access = if snapshot.kind == SnapshotKind::Active { "rw" } else { "ro" };
        let options = vec!["rbind".to_owned(), access.to_owned()];
        Ok(vec![Mount { fstype: "bind".to_owned(), source, options }])
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
        driver
            .mount(&snapshot.layer, Access::Default)
            .map_err(|e| Error::driver(format!("{OP} {key:?}"), e))
    }

    /// Drops a reference to a mount of [`Store::mount_snapshot`].
    pub fn unmount_snapshot(&self, namespace: &str, key: &str) -> Result<()> {
        const OP: &str = "unmount snapshot";
        let (snapshot, driver) = self.held(OP, namespace, key)?;
        driver.unmount(&snapshot.layer).map_err(|e| Error::driver(format!("{OP} {key:?}"), e))
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
        driver.apply(&snapshot.layer, tar).map_err(|e| Error::driver(format!("{OP} {key:?}"), e))
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
        driver
            .diff(&snapshot.layer, base.as_ref(), out)
            .map_err(|e| Error::driver(format!("{OP} {key:?}"), e))
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

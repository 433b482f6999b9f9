//! Snapshots of clients, with containerd's semantics.
//!
//! Each client has a *namespace* of its own; keys are arbitrary strings, and a namespace has one
//! space of names for active and committed snapshots.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use cow::change::Changeset;
use drivers::{Applied, Mount, Usage};

use super::{Store, pending};
use crate::catalogue::{Labels, Snapshot};
use crate::error::Result;

/// What a snapshot is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The client's key: any string but the empty one.
    pub key: String,
    /// A committed snapshot of the same namespace, or the chainID of an image's layer.
    pub parent: Option<String>,
    /// Read-only.
    pub view: bool,
    /// The driver of a snapshot without parent (none is the default one); with a parent it must be
    /// the parent's.
    pub driver: Option<String>,
    /// The client's labels.
    pub labels: Labels,
    /// The greatest size in bytes, where the driver has quotas.
    pub size: Option<u64>,
    /// Driver options of this snapshot (Docker's `--storage-opt`).
    pub options: BTreeMap<String, String>,
}

/// How labels are to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelUpdate {
    /// These take the place of all.
    Replace(Labels),
    /// Each is set to a value, or removed (none).
    Set(BTreeMap<String, Option<String>>),
}

impl Store {
    /// Makes a snapshot, active or a view.
    ///
    /// # Errors
    /// `AlreadyExists` for a used key, `NotFound` for a missing parent, `InvalidArgument` for a
    /// parent that is not committed.
    pub fn prepare(&self, namespace: &str, new: &NewSnapshot) -> Result<Snapshot> {
        let _ = namespace;
        pending("prepare snapshot", &new.key)
    }

    /// The mounts that show an active snapshot or a view.
    ///
    /// # Errors
    /// `FailedPrecondition` for a committed one.
    pub fn snapshot_mounts(&self, namespace: &str, key: &str) -> Result<Vec<Mount>> {
        let _ = namespace;
        pending("mounts of snapshot", key)
    }

    /// Makes an active snapshot immutable under a name; its key is free again.
    ///
    /// `labels` take the place of the active one's. `parent` gives one to a snapshot that was
    /// prepared without.
    ///
    /// # Errors
    /// `AlreadyExists` for a used name, `FailedPrecondition` for a view or a committed snapshot or
    /// a `parent` that is not committed, `InvalidArgument` for a `parent` other than its own.
    pub fn commit_snapshot(
        &self,
        namespace: &str,
        key: &str,
        name: &str,
        labels: Labels,
        parent: Option<&str>,
    ) -> Result<Snapshot> {
        let _ = (namespace, name, labels, parent);
        pending("commit snapshot", key)
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// `FailedPrecondition` when it has children.
    pub fn remove_snapshot(&self, namespace: &str, key: &str) -> Result<()> {
        let _ = namespace;
        pending("remove snapshot", key)
    }

    /// What is known of a snapshot.
    pub fn stat_snapshot(&self, namespace: &str, key: &str) -> Result<Snapshot> {
        let _ = namespace;
        pending("stat snapshot", key)
    }

    /// The space of a snapshot, its parents not counted.
    pub fn snapshot_usage(&self, namespace: &str, key: &str) -> Result<Usage> {
        let _ = namespace;
        pending("usage of snapshot", key)
    }

    /// Changes labels; nothing else of a snapshot can change.
    pub fn update_snapshot(
        &self,
        namespace: &str,
        key: &str,
        update: LabelUpdate,
    ) -> Result<Snapshot> {
        let _ = (namespace, update);
        pending("update snapshot", key)
    }

    /// Calls `visit` with every snapshot of a namespace, by key, until it breaks off.
    ///
    /// No lock is held meanwhile: `visit` may call any method of the store.
    pub fn walk_snapshots(
        &self,
        namespace: &str,
        visit: &mut dyn FnMut(&Snapshot) -> ControlFlow<()>,
    ) -> Result<()> {
        let _ = (namespace, visit);
        Ok(())
    }

    /// Mounts a snapshot in the daemon's mount namespace and takes a reference.
    pub fn mount_snapshot(&self, namespace: &str, key: &str) -> Result<PathBuf> {
        let _ = namespace;
        pending("mount snapshot", key)
    }

    /// Drops a reference to a mount of [`Store::mount_snapshot`].
    pub fn unmount_snapshot(&self, namespace: &str, key: &str) -> Result<()> {
        let _ = namespace;
        pending("unmount snapshot", key)
    }

    /// Applies an uncompressed layer tar to an active snapshot.
    pub fn apply_snapshot(
        &self,
        namespace: &str,
        key: &str,
        tar: &mut dyn Read,
    ) -> Result<Applied> {
        let _ = (namespace, tar);
        pending("apply to snapshot", key)
    }

    /// How a snapshot differs from its parent, or from `base`, an ancestor.
    pub fn snapshot_changes(
        &self,
        namespace: &str,
        key: &str,
        base: Option<&str>,
    ) -> Result<Changeset> {
        let _ = (namespace, base);
        pending("changes of snapshot", key)
    }

    /// Writes the same difference as an uncompressed layer tar; the answer is its length.
    pub fn snapshot_diff(
        &self,
        namespace: &str,
        key: &str,
        base: Option<&str>,
        out: &mut dyn Write,
    ) -> Result<u64> {
        let _ = (namespace, base, out);
        pending("diff of snapshot", key)
    }
}

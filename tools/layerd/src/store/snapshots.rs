//! Snapshots of clients, with containerd's semantics.
//!
//! Each client has a *namespace* of its own; keys are arbitrary strings, and a namespace has one
//! space of names for active and committed snapshots.
//!
//! A call holds the claim of the keys that it changes. `commit` holds two, taken in their order, so
//! that no two calls wait for each other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use cow::digest::ChainId;
use drivers::{CreateOptions, Driver, IdMaps, LayerId, LayerRecord, NAMES, State};

use super::Store;
use super::labels::check_labels;
use crate::catalogue::owner::Owner;
use crate::catalogue::{
    Change as _, Container, Durability, Labels, Lookup, Snapshot, SnapshotKind,
};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::events::Note;

/// How many snapshots a walk reads at a time.
const BATCH: usize = 256;
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
    /// The ids that its mount shows in place of those on the disk.
    pub id_map: Option<IdMaps>,
    /// The greatest size in bytes, where the driver has quotas.
    pub size: Option<u64>,
    /// Driver options of this snapshot (Docker's `--storage-opt`).
    pub options: BTreeMap<String, String>,
}

/// A layer that can be a parent.
pub(super) struct Below {
    pub(super) driver: String,
    pub(super) layer: LayerId,
    /// Whether the layer is not the parent snapshot's alone, so that it stays when that goes.
    shared: bool,
}

/// Whether a commit ends what the daemon mounted for a client; a client that counts its mounts has
/// none of a snapshot that it commits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mounted {
    Ends,
    IsRefused,
}

/// What a commit is called in errors.
const COMMIT: &str = "commit snapshot";

impl Store {
    /// Makes a snapshot, active or a view.
    ///
    /// # Errors
    /// `AlreadyExists` for a used key, `NotFound` for a missing parent, `InvalidArgument` for a
    /// parent that is not committed.
    pub fn prepare(&self, namespace: &str, new: &NewSnapshot) -> Result<Snapshot> {
        self.prepare_for(namespace, new, None)
    }

    /// Makes a snapshot together with the container whose changes it is to hold.
    #[tracing::instrument(level = "debug", skip_all, fields(namespace, key = %new.key))]
    pub(super) fn prepare_for(
        &self,
        namespace: &str,
        new: &NewSnapshot,
        container: Option<&Container>,
    ) -> Result<Snapshot> {
        const OP: &str = "prepare snapshot";
        let began = Instant::now();
        if new.key.is_empty() {
            return Err(Error::refused(OP, "\"\"", "empty key", ErrorKind::InvalidArgument));
        }
        check_labels(OP, &new.labels)?;
        let _claim = self.keys.claim((namespace.to_owned(), new.key.clone()));
        let rows = self.catalogue.read()?;
        if rows.snapshot(namespace, &new.key)?.is_some() {
            return Err(exists(OP, &new.key));
        }
        let below = match &new.parent {
            Some(parent) => {
                Some(self.below(&rows, namespace, parent, new.driver.as_deref(), OP)?)
            }
            None => None,
        };
        drop(rows);
        let wanted = below.as_ref().map(|below| below.driver.as_str()).or(new.driver.as_deref());
        let driver = self.driver(wanted)?;
        let layer = self.new_id()?;
        let snapshot = draft(new, driver.name(), layer);
        let _pins = (
            self.pins.pin(driver.name(), snapshot.layer.as_str()),
            below.as_ref().map(|below| self.pins.pin(driver.name(), below.layer.as_str())),
        );
        let options = CreateOptions {
            state: if new.view { State::View } else { State::Active },
            size: new.size,
            options: new.options.clone(),
            id_map: new.id_map.clone(),
            labels: Owner::of_snapshot(namespace, &snapshot, container).to_labels()?,
        };
        let parent = below.as_ref().map(|below| &below.layer);
        driver
            .create(&snapshot.layer, parent, &options)
            .map_err(|e| Error::driver(format!("{OP} {:?}", new.key), e))?;
        self.enter(namespace, &snapshot, below.as_ref(), container).inspect_err(|_| {
            if let Err(error) = driver.remove(&snapshot.layer) {
                tracing::warn!(layer = %snapshot.layer, %error, "layer left for the next gc");
            }
        })?;
        let action = if new.view { "view" } else { "prepare" };
        self.events.tell(Note::snapshot(action, namespace, &snapshot).took(began));
        Ok(snapshot)
    }

    /// Writes the rows of a new snapshot, whose layer exists.
    fn enter(
        &self,
        namespace: &str,
        snapshot: &Snapshot,
        below: Option<&Below>,
        container: Option<&Container>,
    ) -> Result<()> {
        self.catalogue.write(Durability::Soon, |w| {
            // The layer of such a parent has other holders and outlives its row.
            if let Some(parent) = snapshot.parent.as_deref().filter(|_| is_shared(below))
                && w.snapshot(namespace, parent)?.is_none()
            {
                return Err(Error::not_found("prepare snapshot", format!("{parent:?}")));
            }
            if let Some(container) = container {
                if w.container_of_name(&container.name)?.is_some() {
                    return Err(exists("create container", &container.name));
                }
                if w.image(&container.image)?.is_none() {
                    return Err(Error::not_found("create container", &container.image_name));
                }
                w.put_container(container)?;
            }
            if let Some(below) = below {
                w.put_child(&snapshot.driver, below.layer.as_str(), snapshot.layer.as_str())?;
            }
            w.put_snapshot(namespace, snapshot)
        })
    }

    /// Finds a parent by its name in the namespace, or as a layer of an image.
    pub(super) fn below(
        &self,
        rows: &impl Lookup,
        namespace: &str,
        parent: &str,
        wanted: Option<&str>,
        op: &'static str,
    ) -> Result<Below> {
        if let Some(row) = rows.snapshot(namespace, parent)? {
            if row.kind != SnapshotKind::Committed {
                let reason = format!("parent is {}, not committed", row.kind.as_str());
                return Err(Error::refused(op, parent, reason, ErrorKind::InvalidArgument));
            }
            if wanted.is_some_and(|wanted| wanted != row.driver) {
                let reason = format!("parent is in driver {}", row.driver);
                return Err(Error::refused(op, parent, reason, ErrorKind::InvalidArgument));
            }
            let shared = row.shared.is_some();
            return Ok(Below { driver: row.driver, layer: row.layer, shared });
        }
        if let Ok(chain) = parent.parse::<ChainId>() {
            let default = [self.default_driver()];
            let others = NAMES.iter().copied().filter(|_| wanted.is_none());
            for driver in wanted.into_iter().chain(default).chain(others) {
                if let Some(row) = rows.layer(driver, &chain)? {
                    let driver = driver.to_owned();
                    return Ok(Below { driver, layer: row.layer, shared: false });
                }
                if wanted.is_some() {
                    break;
                }
            }
        }
        Err(Error::refused(op, parent, "parent not found", ErrorKind::NotFound))
    }

    /// The row of a snapshot and its driver.
    pub(super) fn held(
        &self,
        op: &'static str,
        namespace: &str,
        key: &str,
    ) -> Result<(Snapshot, Arc<dyn Driver>)> {
        let snapshot = self.row(op, namespace, key)?;
        let driver = self.driver(Some(&snapshot.driver))?;
        Ok((snapshot, driver))
    }

    pub(super) fn row(&self, op: &'static str, namespace: &str, key: &str) -> Result<Snapshot> {
        let row = self.catalogue.read()?.snapshot(namespace, key)?;
        row.ok_or_else(|| Error::not_found(op, format!("{key:?}")))
    }

    /// Makes an active snapshot immutable under a name; its key is free again.
    ///
    /// `labels` take the place of the active one's. `parent` gives one to a snapshot that was
    /// prepared without.
    ///
    /// # Errors
    /// `AlreadyExists` for a used name, `FailedPrecondition` for a view or a committed snapshot or
    /// a `parent` that is not committed, `InvalidArgument` for a `parent` other than its own.
    #[tracing::instrument(level = "debug", skip_all, fields(namespace, key, name))]
    pub fn commit_snapshot(
        &self,
        namespace: &str,
        key: &str,
        name: &str,
        labels: Labels,
        parent: Option<&str>,
    ) -> Result<Snapshot> {
        if name == key {
            return Err(exists(COMMIT, name));
        }
        self.commit_as(namespace, key, name, labels, parent, Mounted::Ends)
    }

    /// Makes an active snapshot immutable under the key that it has.
    ///
    /// # Errors
    /// `FailedPrecondition` for a view or a committed snapshot.
    pub fn freeze_snapshot(&self, namespace: &str, key: &str, labels: Labels) -> Result<Snapshot> {
        self.commit_as(namespace, key, key, labels, None, Mounted::IsRefused)
    }

    fn commit_as(
        &self,
        namespace: &str,
        key: &str,
        name: &str,
        labels: Labels,
        parent: Option<&str>,
        mounted: Mounted,
    ) -> Result<Snapshot> {
        const OP: &str = COMMIT;
        if name.is_empty() {
            return Err(Error::refused(OP, key, "empty name", ErrorKind::InvalidArgument));
        }
        check_labels(OP, &labels)?;
        let began = Instant::now();
        let _claims = self.claim_both(namespace, key, name);
        let (active, driver) = self.held(OP, namespace, key)?;
        if active.kind != SnapshotKind::Active {
            let reason = format!("it is {}, not active", active.kind.as_str());
            return Err(Error::refused(OP, key, reason, ErrorKind::FailedPrecondition));
        }
        if name != key && self.catalogue.read()?.snapshot(namespace, name)?.is_some() {
            return Err(exists(OP, name));
        }
        let below = self.new_parent(OP, namespace, &active, parent)?;
        let now = Timestamp::now();
        let mut committed = Snapshot {
            key: name.to_owned(),
            parent: parent.map(str::to_owned).or_else(|| active.parent.clone()),
            kind: SnapshotKind::Committed,
            labels,
            created: now,
            updated: now,
            ..active.clone()
        };
        let record = LayerRecord {
            parent: below.as_ref().map(|below| below.layer.clone()),
            labels: Owner::of_snapshot(namespace, &committed, None).to_labels()?,
            ..LayerRecord::default()
        };
        let failed = |e| Error::driver(format!("{OP} {key:?}"), e);
        if mounted == Mounted::Ends {
            self.end_mounts(namespace, key)?;
        }
        committed.usage = driver.commit(&active.layer, &record).map_err(failed)?.usage;
        self.catalogue.write(Durability::Soon, |w| {
            w.delete_snapshot(namespace, key)?;
            if let Some(below) = &below {
                w.put_child(driver.name(), below.layer.as_str(), active.layer.as_str())?;
            }
            w.put_snapshot(namespace, &committed)
        })?;
        let note = Note::snapshot("commit", namespace, &committed).with("key", key);
        self.events.tell(note.took(began));
        Ok(committed)
    }

    /// Claims a key and a name in their order.
    fn claim_both(&self, namespace: &str, key: &str, name: &str) -> impl Sized {
        let (low, high) = if key < name { (key, name) } else { (name, key) };
        let claim = |key: &str| self.keys.claim((namespace.to_owned(), key.to_owned()));
        (claim(low), (low != high).then(|| claim(high)))
    }

    /// The parent that a commit gives to a snapshot that has none; none if there is nothing to give.
    fn new_parent(
        &self,
        op: &'static str,
        namespace: &str,
        active: &Snapshot,
        parent: Option<&str>,
    ) -> Result<Option<Below>> {
        let Some(parent) = parent.filter(|parent| !parent.is_empty()) else { return Ok(None) };
        if let Some(own) = &active.parent {
            if own == parent {
                return Ok(None);
            }
            let reason = format!("its parent is {own:?}, not {parent:?}");
            return Err(Error::refused(op, &active.key, reason, ErrorKind::InvalidArgument));
        }
        let rows = self.catalogue.read()?;
        let found = self.below(&rows, namespace, parent, Some(&active.driver), op);
        match found {
            Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                let kind = ErrorKind::FailedPrecondition;
                Err(Error::refused(op, &active.key, error.to_string(), kind))
            }
            other => other.map(Some),
        }
    }

    /// What is known of a snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn stat_snapshot(&self, namespace: &str, key: &str) -> Result<Snapshot> {
        self.row("stat snapshot", namespace, key)
    }

    /// The snapshots of all clients at one moment, each with its namespace, by namespace and key.
    pub fn snapshots(&self) -> Result<Vec<(String, Snapshot)>> {
        self.catalogue.read()?.snapshots()
    }

    /// Calls `visit` with every snapshot of a namespace, by key, until it breaks off.
    ///
    /// No lock is held meanwhile: `visit` may call any method of the store.
    pub fn walk_snapshots(
        &self,
        namespace: &str,
        visit: &mut dyn FnMut(&Snapshot) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let rows = self.catalogue.read()?;
            let batch = rows.snapshots_after(namespace, after.as_deref(), BATCH)?;
            drop(rows);
            let Some(last) = batch.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for snapshot in &batch {
                if visit(snapshot).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

fn is_shared(below: Option<&Below>) -> bool {
    below.is_some_and(|below| below.shared)
}

/// The row of a snapshot to be.
fn draft(new: &NewSnapshot, driver: &str, layer: LayerId) -> Snapshot {
    let now = Timestamp::now();
    Snapshot {
        key: new.key.clone(),
        parent: new.parent.clone(),
        kind: if new.view { SnapshotKind::View } else { SnapshotKind::Active },
        labels: new.labels.clone(),
        created: now,
        updated: now,
        driver: driver.to_owned(),
        layer,
        usage: None,
        shared: None,
    }
}

fn exists(op: &'static str, key: &str) -> Error {
    Error::refused(op, format!("{key:?}"), "already exists", ErrorKind::AlreadyExists)
}

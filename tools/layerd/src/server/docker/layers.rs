//! What the calls mean for the store: Docker's layers, which know no commit, on snapshots, which do.

use std::collections::BTreeMap;

use drivers::Usage;

use super::NAMESPACE;
use crate::catalogue::{Labels, SnapshotKind};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{NewSnapshot, Store};

/// A layer that Docker wants to have made.
#[derive(Debug)]
pub(super) struct NewLayer {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    pub(super) options: BTreeMap<String, String>,
}

/// Makes a writable layer; its parent is committed if it was not.
pub(super) fn create(store: &Store, layer: NewLayer) -> Result<()> {
    if let Some(parent) = &layer.parent {
        freeze(store, parent)?;
    }
    let new = NewSnapshot {
        key: layer.id,
        parent: layer.parent,
        view: false,
        driver: None,
        labels: Labels::new(),
        id_map: None,
        size: None,
        // `size` among them, which the driver reads as Docker writes it, or refuses with the reason.
        options: layer.options,
    };
    store.prepare(NAMESPACE, &new).map(drop)
}

/// Whether a layer is committed already.
pub(super) fn is_committed(store: &Store, id: &str) -> Result<bool> {
    Ok(store.stat_snapshot(NAMESPACE, id)?.kind == SnapshotKind::Committed)
}

/// Commits a layer under its own id, if it is not committed yet.
fn freeze(store: &Store, id: &str) -> Result<()> {
    if is_committed(store, id)? {
        return Ok(());
    }
    match store.freeze_snapshot(NAMESPACE, id, Labels::new()) {
        // Another child came first.
        Err(_) if is_committed(store, id)? => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Applies a tar to a layer that was just made, and commits it.
///
/// A layer on which it fails is as it was before, so that Docker's next try, or its removal, finds
/// nothing of the first one.
pub(super) fn apply(store: &Store, id: &str, tar: &mut dyn std::io::Read) -> Result<Usage> {
    let before = store.stat_snapshot(NAMESPACE, id)?;
    if before.kind != SnapshotKind::Active {
        return Err(Error::refused(
            "apply to layer",
            id,
            "it is committed: a tar was applied to it, or it has children",
            ErrorKind::FailedPrecondition,
        ));
    }
    let outcome = store.apply_snapshot(NAMESPACE, id, tar).and_then(|_| {
        freeze(store, id)?;
        store.snapshot_usage(NAMESPACE, id)
    });
    if outcome.is_err() {
        let parent = before.parent;
        let again = store.remove_snapshot(NAMESPACE, id).and_then(|()| {
            create(store, NewLayer { id: id.to_owned(), parent, options: BTreeMap::new() })
        });
        if let Err(error) = again {
            tracing::warn!(id, %error, "a layer whose tar was refused is gone");
        }
    }
    outcome
}

/// Removes a layer; one that does not exist is removed already, as Docker's own drivers have it.
pub(super) fn remove(store: &Store, id: &str) -> Result<()> {
    match store.remove_snapshot(NAMESPACE, id) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

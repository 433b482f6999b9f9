//! Labels of snapshots: how long they may be, and how they change.

use std::collections::BTreeMap;

use drivers::{Driver, LayerId};

use super::Store;
use crate::catalogue::owner::Owner;
use crate::catalogue::{Change as _, Durability, Labels, Snapshot};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// The greatest length of a label's key and value together, as containerd has it.
const MAX_LABEL: usize = 4096;

/// How labels are to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelUpdate {
    /// These take the place of all.
    Replace(Labels),
    /// Each is set to a value, or removed (none).
    Set(BTreeMap<String, Option<String>>),
}

impl Store {
    /// Changes labels; nothing else of a snapshot can change.
    ///
    /// Of a committed snapshot the labels are durable when it returns; of another they are as durable
    /// as the snapshot.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` for a label that is too long.
    pub fn update_snapshot(
        &self,
        namespace: &str,
        key: &str,
        update: LabelUpdate,
    ) -> Result<Snapshot> {
        const OP: &str = "update snapshot";
        let _claim = self.keys.claim((namespace.to_owned(), key.to_owned()));
        let (mut snapshot, driver) = self.held(OP, namespace, key)?;
        match update {
            LabelUpdate::Replace(labels) => snapshot.labels = labels,
            LabelUpdate::Set(changes) => {
                for (label, value) in changes {
                    match value {
                        Some(value) => snapshot.labels.insert(label, value),
                        None => snapshot.labels.remove(&label),
                    };
                }
            }
        }
        check_labels(OP, &snapshot.labels)?;
        snapshot.updated = Timestamp::now();
        // Before the row: of two that differ, the later one counts when the store is opened again.
        self.change_owner(OP, &*driver, &snapshot.layer, |o| o.note(namespace, &snapshot))?;
        self.catalogue.write(Durability::Soon, |w| w.put_snapshot(namespace, &snapshot))?;
        Ok(snapshot)
    }

    /// Changes what a layer's metadata file tells of the layer's owner.
    pub(super) fn change_owner(
        &self,
        op: &'static str,
        driver: &dyn Driver,
        layer: &LayerId,
        change: impl FnOnce(&mut Owner),
    ) -> Result<()> {
        let _claim = self.owners.claim((driver.name().to_owned(), layer.clone()));
        let failed = |e| Error::driver(op, e);
        let info = driver.info(layer).map_err(failed)?;
        let Some(mut owner) = Owner::of_info(&info) else {
            tracing::warn!(driver = driver.name(), %layer, "a change is in the catalogue alone");
            return Ok(());
        };
        change(&mut owner);
        let mut labels = info.record.labels;
        labels.extend(owner.to_labels()?);
        driver.relabel(layer, &labels).map_err(failed)
    }
}

/// Refuses labels that are too long.
pub(super) fn check_labels(op: &'static str, labels: &Labels) -> Result<()> {
    let too_long = |(key, value): &(&String, &String)| key.len() + value.len() > MAX_LABEL;
    match labels.iter().find(too_long) {
        None => Ok(()),
        Some((key, _)) => {
            let reason = format!("label key and value are longer than {MAX_LABEL} bytes");
            let key: String = key.chars().take(64).collect();
            Err(Error::refused(op, key, reason, ErrorKind::InvalidArgument))
        }
    }
}

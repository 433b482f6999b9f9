//! Labels of snapshots: how long they may be, and how they change.

use std::collections::BTreeMap;

use super::Store;
use crate::catalogue::{Change as _, Durability, Labels, Lookup as _, Snapshot};
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
    /// # Errors
    /// `NotFound`, `InvalidArgument` for a label that is too long.
    pub fn update_snapshot(
        &self,
        namespace: &str,
        key: &str,
        update: LabelUpdate,
    ) -> Result<Snapshot> {
        const OP: &str = "update snapshot";
        // Labels that changed later are in the catalogue alone, therefore now.
        self.catalogue.write(Durability::Now, |w| {
            let row = w.snapshot(namespace, key)?;
            let mut snapshot = row.ok_or_else(|| Error::not_found(OP, format!("{key:?}")))?;
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
            w.put_snapshot(namespace, &snapshot)?;
            Ok(snapshot)
        })
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

//! What an import has made in the driver so far, and its undoing.

use std::sync::{Mutex, PoisonError};

use cow::digest::{ChainId, DiffId};
use drivers::{LayerId, LayerRecord};

use super::Import;
use super::apply::Applied;
use crate::catalogue::Layer;
use crate::catalogue::owner::Owner;
use crate::error::{Error, Result};
use crate::events::Note;
use crate::store::NewLayer;
use crate::store::claims::Pin;

/// The layers that an import has made. Unless they are kept they are removed, whatever happens.
pub(super) struct Made<'i, 'a> {
    import: &'i Import<'a>,
    /// Layers that are not committed, pinned against the collector.
    active: Mutex<Vec<(LayerId, Pin<'a>)>>,
    /// Layers that are committed, parents first, whose rows are still to be written.
    pub(super) committed: Vec<NewLayer>,
    pins: Vec<Pin<'a>>,
}

/// A layer that is applied and to be committed.
pub(super) struct Commit {
    pub(super) chain: ChainId,
    pub(super) diff_id: DiffId,
    /// The stack below.
    pub(super) parent: Option<ChainId>,
    /// The layer below in the driver.
    pub(super) below: Option<LayerId>,
    pub(super) applied: Applied,
}

impl<'i, 'a> Made<'i, 'a> {
    pub(super) fn new(import: &'i Import<'a>) -> Self {
        Self { import, active: Mutex::default(), committed: Vec::new(), pins: Vec::new() }
    }

    /// Allots an id to a layer that is about to be created.
    pub(super) fn allot(&self) -> Result<LayerId> {
        let store = self.import.store;
        let id = store.new_id()?;
        let pin = store.pins.pin(self.import.driver.name(), id.as_str());
        self.active().push((id.clone(), pin));
        Ok(id)
    }

    /// Removes a layer that turned out useless.
    pub(super) fn discard(&self, id: &LayerId) -> Result<()> {
        self.import.driver.remove(id).map_err(|e| Error::driver("import", e))?;
        self.active().retain(|(other, _)| other != id);
        self.removed(id);
        Ok(())
    }

    fn active(&self) -> std::sync::MutexGuard<'_, Vec<(LayerId, Pin<'a>)>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits layers, parents first, with one sync for all.
    pub(super) fn commit(&mut self, batch: &[Commit]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut records = Vec::with_capacity(batch.len());
        for commit in batch {
            if let Some(recipe) = &commit.applied.recipe {
                self.import.store.keep_recipe(&commit.diff_id, recipe)?;
            }
            let owner = Owner::of_image(commit.applied.content_size);
            let record = LayerRecord {
                diff_id: Some(commit.diff_id),
                chain_id: Some(commit.chain),
                tar_size: Some(commit.applied.verified.size),
                parent: commit.below.clone().filter(|_| commit.applied.on.is_none()),
                labels: owner.to_labels()?,
            };
            records.push((commit.applied.layer.clone(), record));
        }
        let infos = self.import.driver.commit_many(&records).map_err(|e| {
            Error::driver(format!("import {}: commit", self.import.file.display()), e)
        })?;
        for (commit, info) in batch.iter().zip(infos) {
            let layer = Layer {
                layer: commit.applied.layer.clone(),
                parent: commit.parent,
                diff_id: commit.diff_id,
                tar_size: commit.applied.verified.size,
                content_size: commit.applied.content_size,
                usage: info.usage.unwrap_or_default(),
            };
            let (chain, below) = (commit.chain, commit.below.clone());
            let note = Note::committed(self.import.driver.name(), &chain, &layer);
            self.import.store.events.tell(note);
            self.committed.push(NewLayer { chain, layer, below });
        }
        // Committed ones stay pinned until their rows are there.
        let active = std::mem::take(&mut *self.active());
        for (id, pin) in active {
            if self.committed.iter().any(|new| new.layer.layer == id) {
                self.pins.push(pin);
            } else {
                self.active().push((id, pin));
            }
        }
        Ok(())
    }

    /// The layer of a stack that this import has committed.
    pub(super) fn layer_of(&self, chain: &ChainId) -> Option<LayerId> {
        let new = self.committed.iter().find(|new| new.chain == *chain)?;
        Some(new.layer.layer.clone())
    }

    /// Leaves everything in place: the catalogue knows it.
    pub(super) fn keep(mut self) {
        self.committed.clear();
        self.active().clear();
    }

    fn removed(&self, id: &LayerId) {
        let note = Note::layer("remove", self.import.driver.name(), id);
        self.import.store.events.tell(note);
    }

    /// Removes everything, children before parents.
    pub(super) fn undo(&mut self) {
        let committed = std::mem::take(&mut self.committed);
        let mut layers: Vec<LayerId> = committed.into_iter().map(|new| new.layer.layer).collect();
        // A batch that failed may have committed the lower ones: try parents after children.
        let active = std::mem::take(&mut *self.active());
        layers.extend(active.into_iter().map(|(id, _)| id));
        let driver = self.import.driver;
        while !layers.is_empty() {
            let before = layers.len();
            layers.reverse();
            layers.retain(|id| match driver.remove(id) {
                Err(error) if error.kind() == cow::ErrorKind::InUse => true,
                Err(error) if error.kind() != cow::ErrorKind::NotFound => {
                    tracing::warn!(layer = %id, %error, "layer left for the next gc");
                    false
                }
                _ => {
                    self.removed(id);
                    false
                }
            });
            layers.reverse();
            if layers.len() == before {
                tracing::warn!(?layers, "layers left for the next gc");
                return;
            }
        }
    }
}

impl Drop for Made<'_, '_> {
    fn drop(&mut self) {
        self.undo();
    }
}

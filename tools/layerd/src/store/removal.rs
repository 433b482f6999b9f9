//! Removing snapshots, and with the last one the layers of an image that is gone.

use std::time::Instant;

use drivers::{Driver, LayerId};

use super::containers::{refuse_running, settled};
use super::trees::discard;
use super::{Store, names};
use crate::catalogue::{Change as _, Container, Durability, Lookup, Snapshot, SnapshotKind};
use crate::error::{Error, ErrorKind, Result};
use crate::events::Note;

/// What a removal is called in errors.
pub(super) const REMOVE: &str = "remove snapshot";

impl Store {
    /// Removes a snapshot. What the daemon mounted of it for clients is unmounted; whoever still uses
    /// a bind mount of that keeps it until he is done.
    ///
    /// # Errors
    /// `FailedPrecondition` when it has children.
    pub fn remove_snapshot(&self, namespace: &str, key: &str) -> Result<()> {
        self.remove_for(namespace, key, None)
    }

    /// Removes a snapshot, and the container whose changes it holds.
    #[tracing::instrument(level = "debug", skip_all, fields(namespace, key))]
    pub(super) fn remove_for(
        &self,
        namespace: &str,
        key: &str,
        container: Option<&Container>,
    ) -> Result<()> {
        let began = Instant::now();
        let _claim = self.keys.claim((namespace.to_owned(), key.to_owned()));
        let (snapshot, driver) = self.held(REMOVE, namespace, key)?;
        if let Some(chain) = snapshot.shared {
            return self.let_go(namespace, &snapshot, &*driver, chain);
        }
        let failed = |e| Error::driver(format!("{REMOVE} {key:?}"), e);
        let parent = match driver.info(&snapshot.layer) {
            Ok(info) => info.parent,
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let container = self.catalogue.write(Durability::Soon, |w| {
            if w.has_children(driver.name(), &snapshot.layer)? {
                return Err(has_children(key));
            }
            w.delete_snapshot(namespace, key)?;
            if let Some(parent) = &parent {
                w.delete_child(driver.name(), parent.as_str(), snapshot.layer.as_str())?;
            }
            let Some(Container { id, name, .. }) = container else { return Ok(None) };
            // Its runtime may have said meanwhile that it runs.
            let container = names::container(w, REMOVE, id)?;
            refuse_running(&settled(container.clone()), name)?;
            w.delete_container(&container)?;
            Ok(Some(container))
        })?;
        if snapshot.kind == SnapshotKind::Committed {
            // Were the row to come back in a crash, without its layer, a promise would seem broken.
            self.catalogue.settle()?;
        }
        match discard(&*driver, &snapshot.layer) {
            Ok(()) => {
                self.events.tell(Note::snapshot("remove", namespace, &snapshot).took(began));
                self.release_image_of(&snapshot, &*driver)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => {
                self.put_back(namespace, &snapshot, parent.as_ref(), container.as_ref())?;
                Err(failed(error))
            }
        }
    }

    /// Writes the rows again of a snapshot whose layer could not be removed.
    fn put_back(
        &self,
        namespace: &str,
        snapshot: &Snapshot,
        parent: Option<&LayerId>,
        container: Option<&Container>,
    ) -> Result<()> {
        self.catalogue.write(Durability::Soon, |w| {
            w.put_snapshot(namespace, snapshot)?;
            if let Some(parent) = parent {
                w.put_child(&snapshot.driver, parent.as_str(), snapshot.layer.as_str())?;
            }
            container.map_or(Ok(()), |container| w.put_container(container))
        })
    }

    /// An image may be gone while a snapshot still lies on its layers: the last one to go takes the
    /// layers along.
    fn release_image_of(&self, snapshot: &Snapshot, driver: &dyn Driver) -> Result<()> {
        let Some(chain) = snapshot.parent.as_deref().and_then(|parent| parent.parse().ok()) else {
            return Ok(());
        };
        let rows = self.catalogue.read()?;
        let Some(row) = rows.layer(driver.name(), &chain)? else { return Ok(()) };
        if rows.has_children(driver.name(), &row.layer)? {
            return Ok(());
        }
        drop(rows);
        let released = {
            let _images = self.lock_images();
            self.release(driver.name(), chain)?
        };
        self.free_released(driver, &released, &mut super::Removed::default());
        Ok(())
    }
}

/// The refusal to remove a parent; containerd looks for the word.
pub(super) fn has_children(key: &str) -> Error {
    let reason = "cannot remove a snapshot that has children";
    Error::refused(REMOVE, key, reason, ErrorKind::FailedPrecondition)
}

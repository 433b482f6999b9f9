//! Snapshots that are layers of images.
//!
//! A client that is about to unpack a layer which the store has in an image gets that very layer, as a
//! committed snapshot of its own namespace. Either side holds the layer: it goes when no image lies on
//! it and no namespace shares it. What the metadata file of the layer tells of its sharers is the
//! truth; it is written before a row is made, and after a row was deleted.

use cow::digest::ChainId;
use drivers::{Driver, LayerId};

use super::labels::check_labels;
use super::removal::{REMOVE, has_children};
use super::{NewSnapshot, Removed, Store};
use crate::catalogue::owner::Owner;
use crate::catalogue::{
    Change as _, Durability, Lookup, Snapshot, SnapshotKind, Writer, sharer_child,
};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::events::Note;

impl Store {
    /// Gives a namespace the layer of an image that a client would otherwise prepare, fill and commit,
    /// with the labels of `new`. The answer is the committed snapshot, the same for whoever of the
    /// namespace asks again; its key is none that the client chose.
    ///
    /// None when there is no such layer in the driver, or when it does not lie on the very layer of the
    /// parent in `new`.
    ///
    /// # Errors
    /// `InvalidArgument` for labels that are too long.
    #[tracing::instrument(level = "debug", skip_all, fields(namespace, %chain))]
    pub fn share_layer(
        &self,
        namespace: &str,
        new: &NewSnapshot,
        chain: ChainId,
    ) -> Result<Option<Snapshot>> {
        const OP: &str = "share layer";
        check_labels(OP, &new.labels)?;
        let rows = self.catalogue.read()?;
        let below = match &new.parent {
            Some(parent) => match rows.snapshot(namespace, parent)? {
                Some(row) if row.kind == SnapshotKind::Committed => Some((row.driver, row.layer)),
                _ => return Ok(None),
            },
            None => None,
        };
        drop(rows);
        let wanted = below.as_ref().map(|(driver, _)| driver.as_str()).or(new.driver.as_deref());
        let driver = self.driver(wanted)?;
        let _pin = {
            let _images = self.lock_images();
            self.pins.pin(driver.name(), &chain.to_string())
        };
        let rows = self.catalogue.read()?;
        let Some(layer) = rows.layer(driver.name(), &chain)? else { return Ok(None) };
        let info = driver.info(&layer.layer).map_err(|e| Error::driver(OP, e))?;
        let told = matches!(Owner::of_info(&info), Some(Owner::Image { .. }));
        if !told || info.parent != below.map(|(_, layer)| layer) {
            return Ok(None);
        }
        let key = key_of(driver.name(), layer.layer.as_str());
        drop(rows);
        let _claim = self.keys.claim((namespace.to_owned(), key.clone()));
        if let Some(row) = self.catalogue.read()?.snapshot(namespace, &key)? {
            // A client that chose this key is not given what it did not ask for.
            return Ok(Some(row).filter(|row| row.shared == Some(chain)));
        }
        let now = Timestamp::now();
        let snapshot = Snapshot {
            key,
            parent: new.parent.clone(),
            kind: SnapshotKind::Committed,
            labels: new.labels.clone(),
            created: now,
            updated: now,
            driver: driver.name().to_owned(),
            layer: layer.layer,
            usage: Some(layer.usage),
            shared: Some(chain),
        };
        self.change_owner(OP, &*driver, &snapshot.layer, |o| o.note(namespace, &snapshot))?;
        self.catalogue.write(Durability::Soon, |w| put_sharer(w, namespace, &snapshot))?;
        let note = Note::snapshot("share", namespace, &snapshot);
        self.events.tell(note.with("chain_id", chain.to_string()));
        Ok(Some(snapshot))
    }

    /// Removes a snapshot that shares a layer of images, and the layer with it if nobody else holds
    /// it. The key is claimed.
    pub(super) fn let_go(
        &self,
        namespace: &str,
        snapshot: &Snapshot,
        driver: &dyn Driver,
        chain: ChainId,
    ) -> Result<()> {
        self.catalogue.write(Durability::Soon, |w| {
            if has_own_children(w, namespace, snapshot, driver)? {
                return Err(has_children(&snapshot.key));
            }
            w.delete_snapshot(namespace, &snapshot.key)?;
            let child = sharer_child(namespace, &snapshot.key);
            w.delete_child(driver.name(), snapshot.layer.as_str(), &child)
        })?;
        let forget = |owner: &mut Owner| owner.forget(namespace, &snapshot.key);
        if let Err(error) = self.change_owner(REMOVE, driver, &snapshot.layer, forget) {
            self.catalogue.write(Durability::Soon, |w| put_sharer(w, namespace, snapshot))?;
            return Err(error);
        }
        let released = {
            let _images = self.lock_images();
            self.release(driver.name(), chain)?
        };
        self.events.tell(Note::snapshot("remove", namespace, snapshot));
        self.free_released(driver, &released, &mut Removed::default());
        Ok(())
    }
}

/// The key of a snapshot that shares a layer. Containerd's begin with the name of a namespace, which
/// has no colon.
fn key_of(driver: &str, layer: &str) -> String {
    format!("layerd:{driver}:{layer}")
}

fn put_sharer(w: &Writer, namespace: &str, snapshot: &Snapshot) -> Result<()> {
    let child = sharer_child(namespace, &snapshot.key);
    w.put_child(&snapshot.driver, snapshot.layer.as_str(), &child)?;
    w.put_snapshot(namespace, snapshot)
}

/// Whether a snapshot of the same namespace lies on one that shares a layer. Images, and snapshots of
/// others, may lie on the layer; they do not lie on the snapshot.
fn has_own_children(
    rows: &impl Lookup,
    namespace: &str,
    snapshot: &Snapshot,
    driver: &dyn Driver,
) -> Result<bool> {
    for child in rows.children_of(driver.name(), &snapshot.layer)? {
        let Ok(layer) = child.parse::<LayerId>() else { continue };
        let Ok(info) = driver.info(&layer) else { continue };
        let on = match Owner::of_info(&info) {
            Some(Owner::Snapshot { told, .. }) => told.is_on(namespace, &snapshot.key),
            Some(Owner::Image { .. }) => {
                rows.snapshot(namespace, &key_of(driver.name(), layer.as_str()))?.is_some()
            }
            None => true,
        };
        if on {
            return Ok(true);
        }
    }
    Ok(false)
}

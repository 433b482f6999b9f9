//! Freeing what nothing refers to.
//!
//! References are rows: a layer is held by the layers, snapshots and images in the catalogue's table
//! of children, and by pins of calls that are at work. Rows go before layers: whatever is left of a
//! removal that a crash cuts short is a layer without a row, which the next collection frees.

use std::time::Instant;

use cow::digest::ChainId;
use drivers::{Driver, LayerId, LayerInfo};

use crate::catalogue::owner::Owner;
use crate::catalogue::{Change as _, Durability, Lookup as _};
use crate::error::{Error, ErrorKind, Result};
use crate::events::Note;
use crate::reconcile::garbage::{self, Waste};
use crate::store::{Removed, Store, discard};

impl Store {
    /// Frees what nothing refers to: layers that a crash left, and layers of images that are gone.
    ///
    /// Safe beside running imports and other calls.
    #[tracing::instrument(skip_all)]
    pub fn gc(&self) -> Result<Removed> {
        let (began, mut removed) = (Instant::now(), Removed::default());
        for driver in self.open_drivers() {
            self.collect(&*driver, &mut removed)?;
        }
        let note = Note::new("gc", "run", "").with("size", removed.bytes.to_string());
        let layers = removed.layers.len().to_string();
        self.events.tell(note.with("layers", layers).took(began));
        Ok(removed)
    }

    fn collect(&self, driver: &dyn Driver, removed: &mut Removed) -> Result<()> {
        let name = driver.name();
        let infos = driver.list().map_err(|e| Error::driver("collect garbage", e))?;
        for Waste { chain, info } in garbage::find(&self.catalogue.read()?, name, &infos)? {
            if let Some(chain) = chain {
                if self.blind {
                    continue;
                }
                let dropped = {
                    let _images = self.lock_images();
                    self.drop_chain_row(name, &chain)?
                };
                if let Some(layer) = dropped {
                    self.remove_layer(driver, &layer, Some(chain), removed);
                    removed.layers.push(chain);
                }
            // A layer in the making is pinned until its row is there: asked in this order, one of
            // the two is seen.
            } else if !self.pins.contains(name, info.id.as_str()) && !self.has_row(name, &info)? {
                self.remove_layer(driver, &info.id, None, removed);
            }
        }
        Ok(())
    }

    /// Whether the catalogue knows a layer by now.
    fn has_row(&self, driver: &str, info: &LayerInfo) -> Result<bool> {
        let rows = self.catalogue.read()?;
        for (namespace, told) in Owner::snapshots_of(info, driver) {
            let row = rows.snapshot(&namespace, &told.key)?;
            if row.is_some_and(|row| row.layer == info.id && row.driver == driver) {
                return Ok(true);
            }
        }
        match info.record.chain_id {
            Some(chain) => Ok(rows.layer(driver, &chain)?.is_some_and(|row| row.layer == info.id)),
            None => {
                let snapshots = rows.snapshots()?;
                Ok(snapshots.iter().any(|(_, s)| s.layer == info.id && s.driver == driver))
            }
        }
    }

    /// Takes away a layer's row if nothing holds the layer. The lock of the images is held.
    fn drop_chain_row(&self, driver: &str, chain: &ChainId) -> Result<Option<LayerId>> {
        self.catalogue.write(Durability::Soon, |w| {
            let Some(row) = w.layer(driver, chain)? else { return Ok(None) };
            let held = w.has_children(driver, &row.layer)?
                || self.pins.contains(driver, &chain.to_string())
                || self.pins.contains(driver, row.layer.as_str());
            if held {
                return Ok(None);
            }
            let below = match &row.parent {
                Some(parent) => w.layer(driver, parent)?.map(|below| below.layer),
                None => None,
            };
            w.delete_layer(driver, chain, &row.layer, below.as_ref())?;
            Ok(Some(row.layer))
        })
    }

    /// Takes away the rows of a stack from the top down as far as nothing else holds its layers, which
    /// are then to be freed ([`free`]). The lock of the images is held.
    pub(crate) fn release(&self, driver: &str, top: ChainId) -> Result<Vec<(ChainId, LayerId)>> {
        let mut released = Vec::new();
        let mut next = Some(top);
        while let Some(chain) = next {
            let Some(row) = self.catalogue.read()?.layer(driver, &chain)? else { break };
            let Some(layer) = self.drop_chain_row(driver, &chain)? else { break };
            released.push((chain, layer));
            next = row.parent;
        }
        Ok(released)
    }

    /// Frees layers whose rows were released. No lock need be held: nobody can find them any more.
    pub(crate) fn free_released(
        &self,
        driver: &dyn Driver,
        released: &[(ChainId, LayerId)],
        removed: &mut Removed,
    ) {
        for (chain, layer) in released {
            self.remove_layer(driver, layer, Some(*chain), removed);
            removed.layers.push(*chain);
        }
    }

    /// Removes a layer that has no row any more. One that is in use (mounted by someone who forgot it)
    /// stays for the next collection.
    fn remove_layer(
        &self,
        driver: &dyn Driver,
        layer: &LayerId,
        chain: Option<ChainId>,
        removed: &mut Removed,
    ) {
        // Of a layer that was never committed the space may be unknown; it is then not counted.
        let bytes = driver.usage(layer).map_or(0, |usage| usage.bytes);
        match discard(driver, layer) {
            Ok(()) => {
                removed.bytes += bytes;
                let chain = chain.map(|chain| chain.to_string());
                let note =
                    Note::layer("remove", driver.name(), layer).with("size", bytes.to_string());
                self.events.tell(note.with_some("chain_id", chain.as_deref()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(driver = driver.name(), %layer, %error, "layer left for the next gc");
            }
        }
    }
}

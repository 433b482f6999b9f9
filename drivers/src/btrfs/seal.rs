//! How a layer gets its final form: the read-only snapshot of what it shows.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cow::root::Root;

use super::subvolume::{self, Writable};
use super::{Btrfs, RO, RW, nested, nodes, removal};
use crate::driver::{Applied, Usage};
use crate::home::meta::Meta;
use crate::home::{Layer, fs};
use crate::id::LayerId;
use crate::whole;

/// Active layers whose snapshot is taken and measured already, and to which nobody wrote since.
///
/// A layer that was filled from a tar gets its snapshot with the filling, which took its time for every
/// file; the commit then takes none.
#[derive(Debug, Default)]
pub(super) struct Finished(Mutex<HashMap<LayerId, Usage>>);

impl Finished {
    fn lock(&self) -> MutexGuard<'_, HashMap<LayerId, Usage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a layer may be written to.
    pub(super) fn forget(&self, id: &LayerId) {
        self.lock().remove(id);
    }

    /// Whether a layer's snapshot is taken already.
    pub(super) fn has(&self, id: &LayerId) -> bool {
        self.lock().contains_key(id)
    }

    fn usage(&self, id: &LayerId) -> Option<Usage> {
        self.lock().get(id).copied()
    }

    fn take(&self, id: &LayerId) -> Option<Usage> {
        self.lock().remove(id)
    }
}

impl Btrfs {
    /// Applies a tar to an active layer.
    pub(super) fn apply_to(&self, layer: &Layer, tar: &mut dyn Read) -> cow::Result<Applied> {
        self.finished.forget(&layer.id);
        let meta = layer.meta();
        let applied = whole::apply(&self.tree(layer)?, tar, meta.parent.is_none())?;
        let begun = self.begin(layer)?;
        self.gather_nodes(layer, begun);
        let usage = self.complete(layer, &meta, begun)?;
        self.finished.lock().insert(layer.id.clone(), usage);
        Ok(applied)
    }

    /// Puts a layer's final form beside the active one, durably, and measures it.
    pub(super) fn finish(&self, layer: &Layer, meta: &Meta) -> cow::Result<Usage> {
        if let Some(usage) = self.finished.usage(&layer.id) {
            return Ok(usage);
        }
        let begun = self.begin(layer)?;
        self.complete(layer, meta, begun)
    }

    /// Lets the stock know of a layer that is committed, if it was imported. Not sooner: the disk's wait for the commit may
    /// be longer than the pause after which the stock takes it that no other layer comes on top.
    pub(super) fn expect_more(&self, id: &LayerId) {
        let (Some(_), Some(stock)) = (self.finished.take(id), &self.stock) else { return };
        let tree = self.home.open_in_layer(id, RO);
        match tree.and_then(subvolume::info) {
            Ok(info) => stock.expect(id, &info.uuid),
            Err(error) => tracing::debug!(layer = %id, %error, "no spare snapshot is kept"),
        }
    }

    fn complete(&self, layer: &Layer, meta: &Meta, begun: u64) -> cow::Result<Usage> {
        let tree = self.fix(layer)?;
        self.measure_tree(meta, Root::from_fd(tree, RO), begun)
    }

    /// Sees that what is made from an applied layer costs little, however many files it has. Without, it is
    /// as good a layer.
    fn gather_nodes(&self, layer: &Layer, begun: u64) {
        if !self.may_search {
            return;
        }
        let gathered = self
            .home
            .open_in_layer(&layer.id, RW)
            .and_then(|tree| nodes::gather(&tree, begun.saturating_sub(1)));
        if let Err(error) = gathered {
            tracing::warn!(layer = %layer.id, %error, "snapshots of this layer may take longer");
        }
    }

    /// Deduplicates what was written to an active layer, if that is asked for; gives the transaction
    /// from which on what is in its tree is its own.
    fn begin(&self, layer: &Layer) -> cow::Result<u64> {
        let tree = self.home.open_in_layer(&layer.id, RW)?;
        let begun = Self::begun(&layer.meta(), &tree)?;
        if self.options.dedupe && subvolume::is_root(&tree)? {
            self.share_equal(layer, &tree, begun);
        }
        Ok(begun)
    }

    /// Takes the read-only snapshot of an active layer.
    fn fix(&self, layer: &Layer) -> cow::Result<OwnedFd> {
        let dir = self.home.open_in_layer(&layer.id, ".")?;
        let tree = fs::open_dir(&dir, RW)?;
        // Of a commit that did not end.
        removal::delete(&dir, OsStr::new(RO))?;
        match subvolume::has_nested(&tree)? {
            false => subvolume::snapshot(&tree, &dir, RO, Writable::No)?,
            true => {
                let scratch = self.home.scratch(layer.id.as_str())?;
                let plain = nested::flattened(&tree, scratch.dir())?;
                subvolume::snapshot(&plain, &dir, RO, Writable::No)?;
            }
        }
        fs::open_dir(&dir, RO)
    }
}

//! The store: images, snapshots and containers over the drivers.
//!
//! All methods block and may be called from many threads at once. What keeps them apart:
//!
//! - a key of a client is worked on by one call at a time (`claims::Claims`);
//! - names of images, the files of images and the removal of their layers change under one lock,
//!   which is never held while a layer is applied or removed;
//! - a layer that nobody refers to *yet* is pinned (`claims::Pins`) against the collector.

mod backends;
pub(crate) mod claims;
mod commit;
mod containers;
mod files;
mod images;
mod labels;
mod names;
mod open;
mod removal;
mod shared;
mod snapshots;
mod spec;
mod trees;
mod verify;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cow::digest::ChainId;
use drivers::{Driver, LayerId};

pub use backends::Opener;
pub use containers::{CommitContainer, NewContainer, PathChange, Report};
pub use files::KnownLayer;
pub use images::{PruneScope, Removed};
pub use labels::LabelUpdate;
pub use snapshots::NewSnapshot;
pub use verify::Verdict;

use crate::catalogue::{Catalogue, Lookup as _, Snapshot, SnapshotKind};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::root::Root;
use backends::Backends;
use claims::{Claims, Pins};

pub(crate) use backends::{default_driver, with_state};
pub(crate) use containers::NAMESPACE as CONTAINERS;
pub(crate) use images::NewLayer;
pub(crate) use names::full_name;
pub(crate) use open::{open_catalogue, open_driver};
pub(crate) use trees::discard;

/// The store of one root directory, which it holds locked.
#[derive(Debug)]
pub struct Store {
    config: Config,
    default_driver: String,
    pub(crate) catalogue: Catalogue,
    backends: Backends,
    /// Layers of images that are being applied: (driver, chain).
    pub(crate) in_flight: Claims<(String, ChainId)>,
    /// Keys of clients: (namespace, key).
    keys: Claims<(String, String)>,
    /// Layers whose metadata files are being rewritten: (driver, layer). The holder waits for nobody.
    owners: Claims<(String, LayerId)>,
    pub(crate) pins: Pins,
    /// What is done, for whoever wants to know.
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    image_lock: Mutex<()>,
    /// Held while a list of files is made.
    list_lock: Mutex<()>,
    /// Some image's files cannot be read, so that no layer may be called unreferenced until a repair.
    pub(crate) blind: bool,
    next_id: AtomicU64,
    /// The last to go: with it goes the lock, and who waits for that is to find all others free as well.
    pub(crate) root: Root,
}

/// How much there is in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Images.
    pub images: u64,
    /// Committed layers, of images and of snapshots.
    pub layers: u64,
    /// Snapshots of all clients.
    pub snapshots: u64,
    /// Containers.
    pub containers: u64,
}

impl Store {
    /// What the store was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The root directory, absolute and without links.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The name of the driver that is used when none is named.
    pub fn default_driver(&self) -> &str {
        &self.default_driver
    }

    /// A driver by its name, opened on first use; none is the default one.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no driver, `Unsupported` for one that cannot work here.
    pub fn driver(&self, name: Option<&str>) -> Result<Arc<dyn Driver>> {
        let name = name.unwrap_or(&self.default_driver);
        let mut open = self.backends.lock();
        if let Some(driver) = open.get(name) {
            return Ok(Arc::clone(driver));
        }
        let driver = self.backends.open(&self.root, name, &self.config.storage_opts)?;
        self.adopt(&*driver)?;
        open.insert(name.to_owned(), Arc::clone(&driver));
        Ok(driver)
    }

    /// The drivers that are open, by name.
    pub fn open_drivers(&self) -> Vec<Arc<dyn Driver>> {
        self.backends.lock().values().map(Arc::clone).collect()
    }

    /// How much there is.
    pub fn counts(&self) -> Result<Counts> {
        let rows = self.catalogue.read()?;
        let snapshots = rows.snapshots()?;
        let own = |s: &Snapshot| s.kind == SnapshotKind::Committed && s.shared.is_none();
        let committed = snapshots.iter().filter(|(_, s)| own(s)).count();
        Ok(Counts {
            images: rows.images()?.len() as u64,
            layers: (rows.layers()?.len() + committed) as u64,
            snapshots: snapshots.len() as u64,
            containers: rows.containers()?.len() as u64,
        })
    }

    /// Takes the lock under which images change.
    pub(crate) fn lock_images(&self) -> MutexGuard<'_, ()> {
        self.image_lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allots a layer id: a number in base 36, short because mount options name every layer.
    pub(crate) fn new_id(&self) -> Result<LayerId> {
        let mut number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut digits = Vec::new();
        loop {
            let digit = u32::try_from(number % 36).unwrap_or_default();
            digits.push(char::from_digit(digit, 36).unwrap_or('0'));
            number /= 36;
            if number == 0 {
                break;
            }
        }
        let text: String = digits.iter().rev().collect();
        text.parse().map_err(|e| Error::driver("allot layer id", e))
    }

    /// Keeps the ids to come clear of one that exists. Ids that are no numbers are not ours.
    fn note_id(&self, id: &LayerId) {
        if let Ok(number) = u64::from_str_radix(id.as_str(), 36) {
            self.next_id.fetch_max(number.saturating_add(1), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;

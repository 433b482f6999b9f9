//! The store: images, snapshots and containers over the drivers.
//!
//! All methods block and may be called from many threads at once.

mod containers;
mod images;
mod snapshots;

use std::path::Path;
use std::sync::Arc;

use drivers::Driver;

pub use containers::{CommitContainer, NewContainer, PathChange, Report};
pub use images::{PruneScope, Removed};
pub use snapshots::{LabelUpdate, NewSnapshot};

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};

/// The store of one root directory, which it holds locked.
#[derive(Debug)]
pub struct Store {
    config: Config,
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
    /// Opens the store of `config.root`, makes it where there is none, and clears away what a crash
    /// left.
    ///
    /// # Errors
    /// `InUse` when another process has it open, `Unsupported` for a format of a newer layerd or a
    /// driver that cannot work here.
    pub fn open(config: Config) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { config }))
    }

    /// What the store was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.config.root
    }

    /// The name of the driver that is used when none is named.
    pub fn default_driver(&self) -> &str {
        self.config.driver.as_deref().unwrap_or("overlay2")
    }

    /// A driver by its name, opened on first use; none is the default one.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no driver, `Unsupported` for one that cannot work here.
    pub fn driver(&self, name: Option<&str>) -> Result<Arc<dyn Driver>> {
        pending("open driver", name.unwrap_or_default())
    }

    /// The drivers that are open, by name.
    pub fn open_drivers(&self) -> Vec<Arc<dyn Driver>> {
        Vec::new()
    }

    /// How much there is.
    pub fn counts(&self) -> Result<Counts> {
        Ok(Counts::default())
    }
}

/// Stands for what is not there yet.
pub(crate) fn pending<T>(op: &'static str, what: &str) -> Result<T> {
    Err(Error::refused(op, what, "not implemented yet", ErrorKind::Unsupported))
}

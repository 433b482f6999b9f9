//! One layer in memory: its metadata, its gate and its mount count.
//!
//! *Gate*: whoever reads the layer's data holds it shared, whoever changes or removes the data holds
//! it alone. *Mount count*: a lock of its own, so that mounting and unmounting a running container
//! do not wait for a long diff. The order is gate, then count, then the index; none is ever taken
//! the other way round.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::closer::Latch;
use super::meta::Meta;
use crate::call::Call;
use crate::driver::State;
use crate::error::Result;
use crate::id::LayerId;

/// Whether the layer is still there for those who waited at its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// The layer is where it was.
    Here,
    /// The layer was removed meanwhile.
    Gone,
}

/// How a layer is mounted by this driver.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    /// How many callers hold the mount; zero is not mounted.
    pub(crate) count: u32,
    /// Whether the mount is writable.
    pub(crate) writable: bool,
    /// Opens when the kernel is done with the last mount, which is gone for everybody else.
    pub(super) ending: Option<Arc<Latch>>,
}

impl Mounted {
    /// Waits until the kernel is done with the last mount.
    pub(crate) fn settle(&mut self) {
        if let Some(latch) = self.ending.take() {
            latch.wait();
        }
    }
}

/// One layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) id: LayerId,
    gate: RwLock<Presence>,
    mounted: Mutex<Mounted>,
    meta: RwLock<Arc<Meta>>,
    rewriting: Mutex<()>,
}

impl Layer {
    /// A layer as its file describes it.
    pub(crate) fn new(meta: Meta) -> Self {
        Self {
            id: meta.id.clone(),
            gate: RwLock::new(Presence::Here),
            mounted: Mutex::default(),
            meta: RwLock::new(Arc::new(meta)),
            rewriting: Mutex::default(),
        }
    }

    /// The metadata as of now.
    pub(crate) fn meta(&self) -> Arc<Meta> {
        Arc::clone(&self.meta.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where the layer is in its life.
    pub(crate) fn state(&self) -> State {
        self.meta.read().unwrap_or_else(PoisonError::into_inner).state
    }

    /// Takes metadata that has been written to the file.
    pub(crate) fn set_meta(&self, meta: Meta) {
        *self.meta.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(meta);
    }

    /// Waits until nobody changes the layer, and keeps it from being changed.
    ///
    /// # Errors
    /// `NotFound` when it was removed meanwhile.
    pub(crate) fn share(&self, call: Call<'_>) -> Result<RwLockReadGuard<'_, Presence>> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if *gate == Presence::Gone { Err(call.not_found()) } else { Ok(gate) }
    }

    /// Waits until nobody reads or changes the layer, and keeps everybody out.
    ///
    /// # Errors
    /// `NotFound` when it was removed meanwhile.
    pub(crate) fn own(&self, call: Call<'_>) -> Result<RwLockWriteGuard<'_, Presence>> {
        let gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if *gate == Presence::Gone { Err(call.not_found()) } else { Ok(gate) }
    }

    /// Keeps others that share the gate from writing the metadata file at the same time.
    pub(crate) fn rewriting(&self) -> MutexGuard<'_, ()> {
        self.rewriting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mount count, locked.
    pub(crate) fn mounted(&self) -> MutexGuard<'_, Mounted> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

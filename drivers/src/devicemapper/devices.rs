//! Which thin devices appear in `/dev/mapper`, and for how long.
//!
//! A device appears for the time that something is done with it ([`Devices::hold`]), or until its
//! layer is done with because a client mounts it for itself ([`Devices::pin`]). When nobody needs it
//! any more it is taken away; one that is still mounted goes with its last mount, so that a daemon
//! that dies leaves nothing behind its containers.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cow::error::{ErrorKind, Result};

use super::dm::{self, Thin, ThinId, Use};
use super::journal;
use super::pool::Pool;
use crate::id::LayerId;

/// How many locks there are: what is done with one device waits for no other, except by chance.
const SHARDS: usize = 16;

/// How often a device that the pool refuses is asked for, and how long it is waited between.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Who needs a device.
#[derive(Debug, Default)]
struct Needs {
    holders: u32,
    pins: HashSet<LayerId>,
}

/// The devices of a home.
#[derive(Debug)]
pub(super) struct Devices {
    pool: Arc<Pool>,
    shards: [Mutex<HashMap<ThinId, Needs>>; SHARDS],
}

impl Devices {
    /// Those of a pool.
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, shards: std::array::from_fn(|_| Mutex::default()) }
    }

    fn shard(&self, id: ThinId) -> MutexGuard<'_, HashMap<ThinId, Needs>> {
        let at = id as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a device appear; it loses no journal at its next mount.
    fn appear(&self, shard: &mut HashMap<ThinId, Needs>, thin: Thin, how: Use) -> Result<String> {
        let mut attempt = 1;
        let name = loop {
            match self.pool.activate(thin, how) {
                // Seen for a moment while LVM extends the pool's metadata.
                Err(error) if error.kind() == ErrorKind::InvalidArgument && attempt < TRIES => {
                    tracing::info!(device = thin.id, attempt, %error, "tried again");
                    std::thread::sleep(PAUSE);
                    attempt += 1;
                }
                outcome => break outcome?,
            }
        };
        if how == Use::Write {
            journal::keep(&dm::node(&name)).inspect_err(|_| self.settle(shard, thin.id))?;
        }
        Ok(name)
    }

    /// Makes a device appear until the holder is dropped.
    pub(super) fn hold(&self, thin: Thin, how: Use) -> Result<Held<'_>> {
        let mut shard = self.shard(thin.id);
        let name = self.appear(&mut shard, thin, how)?;
        shard.entry(thin.id).or_default().holders += 1;
        Ok(Held { devices: self, id: thin.id, name })
    }

    /// Makes a device appear for a layer's client, until [`Devices::unpin`].
    pub(super) fn pin(&self, thin: Thin, how: Use, layer: &LayerId) -> Result<String> {
        let mut shard = self.shard(thin.id);
        let name = self.appear(&mut shard, thin, how)?;
        shard.entry(thin.id).or_default().pins.insert(layer.clone());
        Ok(name)
    }

    /// Ends a layer's need of whatever devices its clients have mounted.
    pub(super) fn unpin(&self, layer: &LayerId) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let needed: Vec<ThinId> = shard
                .iter_mut()
                .filter_map(|(id, needs)| needs.pins.remove(layer).then_some(*id))
                .collect();
            for id in needed {
                self.settle(&mut shard, id);
            }
        }
    }

    /// Ends all need of a device that is to be deleted.
    pub(super) fn forget(&self, id: ThinId) {
        self.shard(id).remove(&id);
    }

    /// Takes a device away that nobody needs any more.
    fn settle(&self, shard: &mut HashMap<ThinId, Needs>, id: ThinId) {
        if shard.get(&id).is_some_and(|needs| needs.holders > 0 || !needs.pins.is_empty()) {
            return;
        }
        shard.remove(&id);
        if let Err(error) = self.pool.deactivate(id) {
            tracing::debug!(device = id, %error, "the device stays");
        }
    }

    /// Takes a device away whoever had it pinned.
    ///
    /// # Errors
    /// `InUse` when it is mounted.
    pub(super) fn retire(&self, id: ThinId) -> Result<()> {
        let mut shard = self.shard(id);
        if shard.get(&id).is_some_and(|needs| needs.holders > 0) {
            let reason = "the device is being read";
            return Err(cow::Error::refused("retire", id.to_string(), reason, ErrorKind::InUse));
        }
        self.pool.deactivate_now(id)?;
        shard.remove(&id);
        Ok(())
    }

    /// Takes everything away that is not mounted.
    pub(super) fn let_go(&self) -> Result<()> {
        let prefix = format!("{}-", self.pool.file().tag);
        for name in self.pool.dm.names(&prefix)? {
            let Some(id) = name.strip_prefix(&prefix).and_then(|id| id.parse::<ThinId>().ok())
            else {
                continue;
            };
            let mut shard = self.shard(id);
            if let Some(needs) = shard.get_mut(&id) {
                needs.pins.clear();
            }
            self.settle(&mut shard, id);
        }
        Ok(())
    }
}

/// A device that is there for as long as this is.
#[derive(Debug)]
pub(super) struct Held<'a> {
    devices: &'a Devices,
    id: ThinId,
    pub(super) name: String,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut shard = self.devices.shard(self.id);
        if let Some(needs) = shard.get_mut(&self.id) {
            needs.holders = needs.holders.saturating_sub(1);
        }
        self.devices.settle(&mut shard, self.id);
    }
}

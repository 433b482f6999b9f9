//! Snapshots of devices in use: the file system is frozen for the moment in which one is taken.
//!
//! The device mapper freezes it, by suspending the device: whoever has it mounted, and wherever, has
//! nothing half written then, and waits. The kernel does not thaw what a dead process has frozen, so
//! the next start does ([`Pool::thaw`]).

use cow::error::{Error, ErrorKind, Result};
use devicemapper::DmFlags;

use super::crash;
use super::dm::{Dm, DmFailure, ThinId, Use};
use super::pool::{Owner, Pool, mib};

/// How often it is tried to let a device go on. There is nothing else that can be done for it.
const RESUME_TRIES: u32 = 10;

/// What a pool must have free for a snapshot of a device in use, in bytes. Whatever its client writes next
/// takes a new block, which the snapshot has the old one of, and first of all its journal (16 MiB): a
/// file system whose journal finds no space takes no writes any more.
const ROOM: u64 = 16 << 20;

/// A suspended device, which goes on when this is dropped.
#[derive(Debug)]
struct Suspended<'d> {
    dm: &'d Dm,
    name: &'d str,
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        for attempt in 1..=RESUME_TRIES {
            let Err(error) = self.dm.resume(self.name) else { return };
            tracing::error!(device = self.name, attempt, %error, "a frozen device does not go on");
        }
    }
}

impl Pool {
    /// Makes a snapshot of a device, whose input and output stop for the moment if it is active. With
    /// [`Use::Write`] its file system is frozen as well.
    ///
    /// # Errors
    /// Also when what is written of it cannot be put on the device.
    pub(super) fn snapshot(&self, origin: ThinId, how: Use, owner: Owner) -> Result<ThinId> {
        let name = self.device_name(origin);
        let _one = self.one_freezes(origin);
        self.with_number(owner, |id| {
            let failed = |error| DmFailure { errno: None, error };
            if self.dm.info(&name).map_err(failed)?.is_none() {
                return self.dm.create_snap(&self.name, id, origin);
            }
            self.dm.suspend(&name, how == Use::Write).map_err(failed)?;
            let _suspended = Suspended { dm: &self.dm, name: &name };
            crash::point("device frozen");
            let made = self.dm.create_snap(&self.name, id, origin);
            crash::point("frozen device's snapshot made");
            made
        })
    }

    /// Sees that a snapshot of a device in use does no harm to whoever uses it; `spare` is what the pool can
    /// still grow by.
    ///
    /// # Errors
    /// `NoSpace`, with the figures.
    pub(super) fn require_room(&self, op: &'static str, spare: u64) -> Result<()> {
        self.require_writable(op)?;
        let fill = self.fill()?;
        let free = fill.data_total.saturating_sub(fill.data_used).saturating_add(spare);
        if free >= ROOM {
            return Ok(());
        }
        let reason = format!(
            "the layer is mounted, and {} free of {} data space are less than the {} that its client may \
             need meanwhile: remove layers, or add a device (layerctl pool add-device)",
            mib(free),
            mib(fill.data_total),
            mib(ROOM),
        );
        Err(Error::refused(op, &self.name, reason, ErrorKind::NoSpace))
    }

    /// Lets devices of this home go on that a process has frozen and not outlived, and the pool itself,
    /// and takes away those that never came to be.
    pub(super) fn thaw(&self) -> Result<()> {
        let prefix = format!("{}-", self.file().tag);
        // LVM has its own ways with the pools that it makes.
        let own = (!self.dm.is_lvm(&self.name)?).then(|| self.name.clone());
        for name in self.dm.names(&prefix)?.into_iter().chain(own) {
            let Some(info) = self.dm.info(&name)? else { continue };
            if !info.flags().contains(DmFlags::DM_ACTIVE_PRESENT) && name != self.name {
                self.dm.remove(&name, false)?;
            } else if info.flags().contains(DmFlags::DM_SUSPEND) {
                tracing::warn!(device = name, "it was frozen by a process that has died");
                self.dm.resume(&name)?;
            }
        }
        Ok(())
    }
}

/// A device that was made for a call; it is given back when the call ends without having kept it.
#[derive(Debug)]
pub(super) struct Lent<'d> {
    pool: &'d Pool,
    pub(super) id: ThinId,
}

impl<'d> Lent<'d> {
    /// A snapshot of a device that may be mounted writable.
    pub(super) fn snapshot(pool: &'d Pool, origin: ThinId) -> Result<Self> {
        let id = pool.snapshot(origin, Use::Write, Owner::Call)?;
        crash::point("snapshot lent");
        Ok(Self { pool, id })
    }

    /// Keeps it for a layer whose file names it already.
    pub(super) fn keep(self) -> Result<()> {
        self.pool.keep(self.id)?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pool.give_back(self.id);
    }
}

//! How a layer becomes immutable: its file system is whole, clean and on the disk.
//!
//! A layer that nobody has mounted keeps its device. One that a client still has mounted gets another
//! device, a snapshot of its own; the client may go on with what it has, and nothing of that becomes the
//! layer's any more.

use std::os::fd::OwnedFd;

use cow::error::{ErrorKind, Result};

use super::DeviceMapper;
use super::crash;
use super::dm::{Thin, Use};
use super::layer::Device;
use super::volume::{self, Shown};
use crate::call::Call;
use crate::driver::{State, Usage};
use crate::error::Error;
use crate::home::commit::Sealing;
use crate::home::meta::Meta;
use crate::id::LayerId;

impl DeviceMapper {
    /// Puts an active layer's device in its final form, and measures the layer.
    pub(super) fn seal_layer(&self, sealing: &Sealing<'_>) -> Result<Usage> {
        let dir = self.home.open_in_layer(&sealing.layer.id, ".")?;
        // Of a commit that did not end.
        let device = self.settle(&dir, Device::read(&dir)?, State::Active)?;
        let own = device.thin(State::Active);
        if self.retire_unused(own)? {
            let (usage, device) = self.finish(own, device, sealing)?;
            device.write(&dir)?;
            return Ok(usage);
        }
        let lent = self.snapshot(own)?;
        crash::point("mounted layer's snapshot made");
        let thin = Thin { id: lent.id, ..own };
        let (usage, device) = self.finish(thin, device.with_sealed(lent.id), sealing)?;
        device.write(&dir)?;
        lent.keep()?;
        crash::point("mounted layer sealed");
        Ok(usage)
    }

    /// Takes a device away unless somebody has it mounted; whether it is gone.
    fn retire_unused(&self, thin: Thin) -> Result<bool> {
        let name = self.pool.device_name(thin.id);
        if self.pool.dm.open_count(&name)?.is_some_and(|count| count > 0) {
            return Ok(false);
        }
        match self.devices.retire(thin.id) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::InUse => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has the journal of a device put in place and everything written, and measures what is on it.
    fn finish(
        &self,
        thin: Thin,
        mut device: Device,
        sealing: &Sealing<'_>,
    ) -> Result<(Usage, Device)> {
        let last = volume::tick();
        let write = || {
            let held = self.devices.hold(thin, Use::Write)?;
            volume::sync(&self.volumes.open(&held.name, Shown::Writable)?)
        };
        // Whatever has failed in a pool that is full or read-only, that is the reason.
        let written = write();
        self.pool.require_writable("seal").and(written)?;
        self.devices.retire(thin.id)?;
        volume::pass(last);
        crash::point("file system sealed");
        let (id, parent) = (&sealing.layer.id, sealing.meta.parent.as_ref());
        let compared = self.compare_sealed(id, thin, parent)?;
        device.own = compared.own.or_else(|| self.tell_own_bytes(id, thin, parent));
        Ok((compared.usage()?, device))
    }

    /// What a layer takes of the pool by itself: from its commit on what it did then, and as it is on the
    /// disk now before; none for a view, and where it cannot be told.
    pub(super) fn exclusive(&self, meta: &Meta) -> Option<u64> {
        let device = self.device(&meta.id).ok()?;
        match meta.state {
            State::Committed => device.own,
            state => self.tell_own_bytes(&meta.id, device.thin(state), meta.parent.as_ref()),
        }
    }

    fn tell_own_bytes(&self, id: &LayerId, thin: Thin, parent: Option<&LayerId>) -> Option<u64> {
        let own = self.origin(parent).and_then(|origin| self.own_bytes(origin.id, thin.id));
        own.inspect_err(|reason| tracing::debug!(layer = %id, %reason, "no exclusive bytes")).ok()
    }

    /// Lets go of a device that a commit has left over.
    pub(super) fn settle(&self, dir: &OwnedFd, device: Device, state: State) -> Result<Device> {
        let Some(leftover) = device.leftover(state) else { return Ok(device) };
        // Its client may have it mounted.
        self.devices.forget(leftover);
        self.pool.defer(leftover)?;
        let settled = device.settled(state);
        settled.write(dir)?;
        if let Err(error) = self.pool.delete_deferred() {
            tracing::debug!(device = leftover, %error, "deleted later");
        }
        Ok(settled)
    }

    /// The same when a commit is through. What cannot be let go of now is so at the next start.
    pub(super) fn settle_committed(&self, id: &LayerId) {
        crash::point("commit is through");
        let settle = || -> crate::error::Result<()> {
            let call = self.home.call("commit", id);
            let layer = self.home.layer(call)?;
            let _gate = layer.share(call)?;
            let _rewriting = layer.rewriting();
            let settle = || {
                let dir = self.home.open_in_layer(id, ".")?;
                self.settle(&dir, Device::read(&dir)?, layer.state())
            };
            settle().map(drop).map_err(|error| call.failed(error))
        };
        if let Err(error) = settle() {
            tracing::debug!(layer = %id, %error, "what the commit left over stays");
        }
    }
}

/// A refusal that says that somebody has a layer mounted.
pub(super) fn in_use(call: Call<'_>, error: cow::Error) -> Error {
    if error.kind() == ErrorKind::InUse {
        let reason = format!("the layer is mounted by a client ({error})");
        return call.refused(ErrorKind::FailedPrecondition, reason);
    }
    call.failed(error)
}

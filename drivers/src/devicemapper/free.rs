//! Deletes devices: a layer's with the layer, and those that belong to none.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use cow::error::{ErrorKind, Result};

use super::crash;
use super::devices::Devices;
use super::dm::Thin;
use super::layer::Device;
use super::pool::Pool;
use crate::driver::State;
use crate::home::fs;
use crate::id::LayerId;

/// Deletes a directory of a layer, which is out of sight already (in the trash, or the leftover of a
/// creation), and its device before it. A device that somebody still has mounted is deleted when he
/// lets go. May be repeated after a crash.
pub(super) fn delete(pool: &Pool, devices: &Devices, parent: &OwnedFd, name: &OsStr) -> Result<()> {
    // `<id>.<n>`: what clients of the layer had mounted need not be there any more.
    let id = name.to_str().and_then(|name| name.split('.').next()).map(str::parse::<LayerId>);
    if let Some(Ok(id)) = id {
        devices.unpin(&id);
    }
    let device = match fs::open_dir(parent, name).and_then(Device::read) {
        Ok(device) => Some(device),
        // A view has none, and a crash may have come before it.
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(device) = device {
        // A power cut must not bring back a committed layer without its device.
        fs::sync_dir(parent)?;
        crash::point("layer out of sight");
        let size = device.thin(State::Active).size;
        for id in device.all() {
            devices.forget(id);
            // Whatever keeps it there: nobody else comes to this layer any more.
            if let Err(error) = pool.delete(Thin { id, size }) {
                tracing::info!(device = id, %error, "deleted later");
                pool.defer(id)?;
            }
        }
        crash::point("device deleted");
    }
    fs::remove_tree(parent, name)
}

/// Deletes a device that belongs to no layer, now or once nobody has it open: whatever probes new block devices may have
/// it for a moment.
///
/// # Errors
/// What the pool says, but that it is in use.
pub(super) fn delete_or_defer(pool: &Pool, thin: Thin) -> Result<()> {
    match pool.delete(thin) {
        Err(error) if error.kind() == ErrorKind::InUse => {
            tracing::info!(device = thin.id, %error, "deleted later");
            pool.defer(thin.id)
        }
        done => done,
    }
}

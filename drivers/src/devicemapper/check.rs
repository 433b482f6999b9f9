//! What a crash leaves in the pool, and damage there.

use std::collections::HashSet;
use std::path::PathBuf;

use cow::error::Result as CowResult;

use super::dm::{Thin, ThinId, Use};
use super::layer::{self, Device};
use super::options::FileSystem;
use super::pool::Mode;
use super::{DeviceMapper, NAME, free};
use crate::call::HomeCall;
use crate::driver::{Finding, State};
use crate::error::Result;
use crate::home::{Layer, fs};
use crate::id::LayerId;

/// The directories of a home in which a device may belong to something.
const PLACES: [&str; 4] = ["layers", "quarantine", "tmp", "trash"];

impl DeviceMapper {
    /// Compares the pool with the layers; with `mend`, deletes what no layer has and drops active
    /// layers of which nothing is left.
    pub(super) fn check_pool(&self, mend: bool) -> Result<Vec<Finding>> {
        let call = HomeCall { driver: NAME, op: if mend { "repair" } else { "check" } };
        let failed = |error| call.failed(error);
        let mut found = Vec::new();
        if self.pool.fill().map_err(failed)?.needs_check {
            let problem = "the pool's metadata needs a check: unmount everything, deactivate the \
                           pool, and run thin_check and, if it finds damage, thin_repair";
            found.extend(finding(None, problem.to_owned(), false).filter(|_| !mend));
        }
        let mut claimed = self.claims().map_err(failed)?;
        claimed.insert(self.base.device);
        let there = self.pool.list().map_err(failed)?;
        // A layer that has lost its file may be the one whose device seems to be nobody's.
        let blind = self
            .home
            .layers()
            .iter()
            .any(|layer| layer.state() != State::View && self.device(&layer.id).is_err());
        let orphans = if blind { Vec::new() } else { self.pool.orphans(&there, &claimed) };
        for id in orphans {
            let problem = format!("thin device {id} of the pool belongs to no layer");
            if mend {
                let thin = Thin { id, size: self.pool.block_size };
                free::delete_or_defer(&self.pool, thin).map_err(failed)?;
            }
            found.extend(finding(None, problem, true));
        }
        for layer in self.home.layers() {
            found.extend(self.check_commit(&layer, mend).map_err(failed)?);
            found.extend(self.check_layer(&layer, &there, mend).map_err(failed)?);
        }
        Ok(found)
    }

    /// The devices that the directories of the home name.
    fn claims(&self) -> CowResult<HashSet<ThinId>> {
        let mut claims = HashSet::new();
        for place in PLACES {
            let dir = match fs::open_dir(self.home.root(), place) {
                Ok(dir) => dir,
                Err(error) if error.kind() == cow::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for name in fs::names(&dir)? {
                let device = fs::open_dir(&dir, &name).and_then(Device::read);
                claims.extend(device.iter().flat_map(Device::all));
            }
        }
        Ok(claims)
    }

    /// Sees that a layer has no device besides its own: one that it had before its commit, or was to have.
    fn check_commit(&self, layer: &Layer, mend: bool) -> CowResult<Option<Finding>> {
        let Ok(device) = self.device(&layer.id) else { return Ok(None) };
        let Some(leftover) = device.leftover(layer.state()) else { return Ok(None) };
        if mend {
            let dir = self.home.open_in_layer(&layer.id, ".")?;
            self.settle(&dir, device, layer.state())?;
        }
        let problem = format!("thin device {leftover} of the layer is left over from its commit");
        Ok(finding(Some(layer.id.clone()), problem, true))
    }

    /// Sees that a layer's device is there, and its file system sound.
    fn check_layer(
        &self,
        layer: &Layer,
        there: &HashSet<ThinId>,
        mend: bool,
    ) -> CowResult<Option<Finding>> {
        let state = layer.state();
        let Ok(device) = self.device(&layer.id) else { return Ok(None) };
        let thin = device.thin(state);
        if !there.contains(&thin.id) {
            // What was promised is a person's to decide.
            if mend && state == State::Committed {
                return Ok(None);
            }
            let problem = format!("thin device {} of the layer is not in the pool", thin.id);
            if mend {
                let call = self.home.call("repair", &layer.id);
                let removed = self.home.remove(call);
                removed.map_err(|error| {
                    cow::Error::refused("remove", &layer.id, error.to_string(), error.kind())
                })?;
            }
            return Ok(finding(Some(layer.id.clone()), problem, state == State::Active));
        }
        // A start is quick however many committed layers there are: a crash cannot have hurt them.
        if mend && state == State::Committed {
            return Ok(None);
        }
        let name = self.pool.device_name(thin.id);
        if self.pool.dm.open_count(&name)?.is_some_and(|count| count > 0) {
            return Ok(None);
        }
        let how = if state == State::Active { Use::Write } else { Use::Read };
        let held = self.devices.hold(thin, how)?;
        let active = state == State::Active;
        if active && self.pool.fill()?.mode != Mode::Writable {
            // Neither its journal can be put in place nor anything be mended: every write may need a
            // block. The journal keeps what it has until there is space.
            return Ok(None);
        }
        let damage = if mend && active {
            self.mend_volume(&layer.id, device, &held.name)?
        } else {
            self.volumes.check(&held.name, active, false)?
        };
        // What a repair leaves is for the next check to say; what was promised is a person's to mend.
        Ok(damage.filter(|_| !mend).and_then(|damage| {
            finding(Some(layer.id.clone()), format!("its file system: {damage}"), active)
        }))
    }

    /// Mends the file system of an active layer; what stays wrong.
    fn mend_volume(
        &self,
        id: &LayerId,
        mut device: Device,
        name: &str,
    ) -> CowResult<Option<String>> {
        if self.volumes.fs == FileSystem::Xfs {
            // xfs_repair dates neither what it mends nor itself, so that a comparison would not see it.
            if self.volumes.check(name, true, false)?.is_none() {
                return Ok(None);
            }
            let dir = self.home.open_in_layer(id, ".")?;
            device.mended = true;
            device.write(&dir)?;
            rustix::fs::syncfs(&dir)
                .map_err(|errno| cow::Error::sys("syncfs", layer::FILE, errno))?;
        }
        self.volumes.check(name, true, true)
    }
}

fn finding(layer: Option<LayerId>, problem: String, repairable: bool) -> Option<Finding> {
    let path = match &layer {
        Some(id) => PathBuf::from("layers").join(id).join(layer::FILE),
        None => PathBuf::from(super::state::FILE),
    };
    Some(Finding { layer, path, problem, repairable })
}

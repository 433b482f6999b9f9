//! What the driver tells of its pool: Docker's keys, and the report of `layerctl pool`.

use std::path::Path;

use super::DeviceMapper;
use super::grow::Growth;
use super::pool::{Mode, mib};
use super::setup::{self, Setup};
use crate::call::HomeCall;
use crate::driver::{Fill, Pool, PoolReport};
use crate::error::{ErrorKind, Result};

/// The lines of `docker info`.
pub(super) fn facts(driver: &DeviceMapper) -> Vec<(&'static str, String)> {
    let file = driver.pool.file();
    let size = |bytes: u64| mib(bytes);
    let mut facts = vec![
        ("Pool Name", driver.pool.name.clone()),
        ("Pool Blocksize", size(driver.pool.block_size)),
        ("Base Device Size", size(driver.base.size)),
        ("Backing Filesystem", driver.base.fs.name().to_owned()),
        ("Udev Sync Supported", Path::new("/run/udev/control").exists().to_string()),
    ];
    if let Setup::Loop { .. } = file.setup {
        let path = |name| driver.home.path().join("loop").join(name).display().to_string();
        facts.push(("Data loop file", path("data")));
        facts.push(("Metadata loop file", path("metadata")));
    }
    match driver.pool.fill() {
        Ok(fill) => {
            let free = |used: u64, total: u64| size(total.saturating_sub(used));
            let least = fill.data_total / 100 * driver.pool.min_free_percent();
            facts.extend([
                ("Data Space Used", size(fill.data_used)),
                ("Data Space Total", size(fill.data_total)),
                ("Data Space Available", free(fill.data_used, fill.data_total)),
                ("Metadata Space Used", size(fill.metadata_used)),
                ("Metadata Space Total", size(fill.metadata_total)),
                ("Metadata Space Available", free(fill.metadata_used, fill.metadata_total)),
                ("Thin Pool Minimum Free Space", size(least)),
            ]);
            if fill.mode != Mode::Writable || fill.needs_check {
                facts.push(("Pool Mode", mode(fill.mode, fill.needs_check)));
            }
        }
        Err(error) => facts.push(("Pool Mode", error.to_string())),
    }
    facts.extend([
        ("Deferred Removal Enabled", driver.pool.deferred_removal().to_string()),
        ("Deferred Deletion Enabled", driver.deferred_deletion.to_string()),
        ("Deferred Deleted Device Count", file.deferred.len().to_string()),
        ("Library Version", format!("device-mapper {}", driver.pool.dm.version())),
    ]);
    facts
}

fn mode(mode: Mode, needs_check: bool) -> String {
    let word = match mode {
        Mode::Writable => "rw",
        Mode::OutOfData => "out_of_data_space",
        Mode::ReadOnly => "ro",
    };
    if needs_check { format!("{word}, needs_check") } else { word.to_owned() }
}

impl Pool for DeviceMapper {
    fn report(&self) -> Result<PoolReport> {
        let call = HomeCall { driver: super::NAME, op: "report" };
        let fill = self.pool.fill().map_err(|error| call.failed(error))?;
        let file = self.pool.file();
        let devices = match &file.setup {
            Setup::DirectLvm { devices, .. } => devices.clone(),
            Setup::Given { .. } => {
                self.growth.lvm().and_then(|lvm| lvm.devices().ok()).unwrap_or_default()
            }
            Setup::Loop { .. } => Vec::new(),
        };
        Ok(PoolReport {
            name: self.pool.name.clone(),
            source: file.setup.to_string(),
            devices,
            block_size: self.pool.block_size,
            data: Fill { used: fill.data_used, total: fill.data_total },
            metadata: Fill { used: fill.metadata_used, total: fill.metadata_total },
            spare: self.growth.spare(),
            threshold: self.growth.threshold(),
            mode: mode(fill.mode, fill.needs_check),
            growth_per_day: Growth::per_day(&self.growth, fill.data_used),
            base_size: self.base.size,
            deferred: file.deferred.len(),
        })
    }

    fn add_device(&self, device: &Path, force: bool) -> Result<()> {
        let call = HomeCall { driver: super::NAME, op: "add device" };
        let failed = |error| call.failed(error);
        if !device.is_absolute() {
            let reason = format!("{}: not an absolute path", device.display());
            return Err(call.refused(ErrorKind::InvalidArgument, reason));
        }
        if self.growth.lvm().is_some() {
            setup::check_empty(device, force).map_err(failed)?;
        }
        self.growth.add_device(device, force).map_err(failed)?;
        if let Setup::DirectLvm { lvm, mut devices } = self.pool.file().setup {
            devices.push(device.to_owned());
            self.pool.set_setup(Setup::DirectLvm { lvm, devices }).map_err(failed)?;
        }
        Ok(())
    }
}

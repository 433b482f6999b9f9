//! The thin pool: which devices it has, which numbers they get, and how full it is.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cow::error::{Error, ErrorKind, Result};
use devicemapper::{DeviceInfo, ThinPoolNoSpacePolicy, ThinPoolStatus, ThinPoolStatusSummary};
use rustix::io::Errno;

use super::dm::{Dm, Removal, SECTOR, Thin, ThinId, Use};
use super::options::Options;
use super::state::{Base, PoolFile};

/// The size of a block of a pool's metadata in bytes, fixed by the kernel.
pub(super) const METADATA_BLOCK: u64 = 4096;

/// How many locks there are for freezing: one device waits for no other, except by chance.
const SHARDS: usize = 16;

/// How full a pool is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) data_used: u64,
    pub(super) data_total: u64,
    pub(super) metadata_used: u64,
    pub(super) metadata_total: u64,
    pub(super) transaction: u64,
    pub(super) mode: Mode,
    /// Whether writes fail at once when nothing is free; otherwise they wait.
    pub(super) fails_when_full: bool,
    /// The kernel wants the metadata checked before it writes again.
    pub(super) needs_check: bool,
}

/// What a pool still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Writable,
    /// No data block is free; metadata can still be changed, so devices can be deleted.
    OutOfData,
    /// Nothing can be changed.
    ReadOnly,
}

/// What of the pool may change.
#[derive(Debug)]
struct Numbers {
    file: PoolFile,
    /// The next number to be tried.
    next: ThinId,
    /// Devices that are no layer's, for the time that something is done with them.
    lent: HashSet<ThinId>,
}

/// Whose a new device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A layer, or the base of layers.
    Layer,
    /// A call that gives it back ([`Pool::give_back`]).
    Call,
}

/// An open pool.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) dm: Dm,
    /// The name of the pool's device.
    pub(super) name: String,
    /// The size of a block in bytes.
    pub(super) block_size: u64,
    home: OwnedFd,
    numbers: Mutex<Numbers>,
    /// Held by whoever reads the metadata.
    pub(super) reading: Mutex<()>,
    /// Held by whoever has a device frozen: one freezes it at a time.
    freezing: [Mutex<()>; SHARDS],
    deferred_removal: bool,
    discard_first: bool,
    min_free_percent: u64,
}

impl Pool {
    /// Opens a pool by the file that describes it.
    ///
    /// # Errors
    /// `Corrupt` when the pool is not the one that the file describes.
    pub(super) fn open(
        dm: Dm,
        name: String,
        home: OwnedFd,
        file: PoolFile,
        options: &Options,
    ) -> Result<Self> {
        let (_, target, params) = dm.table(&name)?;
        // metadata device, data device, block size in sectors, low water mark, ...
        let block = params.split(' ').nth(2).and_then(|word| word.parse::<u64>().ok());
        let Some(block_size) = block.filter(|_| target == "thin-pool").map(|n| n * SECTOR) else {
            return Err(Error::invalid("open pool", &name, format!("a {target}, no thin pool")));
        };
        let loops = matches!(file.setup, super::setup::Setup::Loop { .. });
        let next = file.numbers().end;
        let pool = Self {
            dm,
            name,
            block_size,
            home,
            numbers: Mutex::new(Numbers { file, next, lent: HashSet::new() }),
            reading: Mutex::default(),
            freezing: std::array::from_fn(|_| Mutex::default()),
            deferred_removal: options.deferred_removal,
            discard_first: options.blk_discard.unwrap_or(loops),
            min_free_percent: options.min_free_percent,
        };
        pool.thaw()?;
        pool.compare_transaction()?;
        Ok(pool)
    }

    /// Sees that the pool and the file are in step, and ends a step that a crash cut off.
    fn compare_transaction(&self) -> Result<()> {
        let there = self.fill()?.transaction;
        let expected = self.numbers().file.transaction;
        if there == expected {
            return Ok(());
        }
        if there + 1 == expected {
            return self.dm.set_transaction(&self.name, there, expected);
        }
        let reason = if expected == 0 {
            format!(
                "the pool belongs to somebody: its transaction id is {there}, a free one's is 0"
            )
        } else {
            format!(
                "the pool's transaction id is {there}, this home's {expected}: the pool was put \
                 back to an older state, or is another one; restore the metadata that fits, or \
                 give the driver an empty root"
            )
        };
        Err(Error::corrupt("open pool", &self.name, reason))
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of what the file says.
    pub(super) fn file(&self) -> PoolFile {
        self.numbers().file.clone()
    }

    /// The pool's own device.
    pub(super) fn device(&self) -> Result<DeviceInfo> {
        let info = self.dm.info(&self.name)?;
        info.ok_or_else(|| Error::sys("look at pool", &self.name, Errno::NXIO))
    }

    /// The name of a thin device of this home.
    pub(super) fn device_name(&self, id: ThinId) -> String {
        format!("{}-{id}", self.numbers().file.tag)
    }

    /// How full the pool is.
    ///
    /// # Errors
    /// `Corrupt` when the kernel has given it up.
    pub(super) fn fill(&self) -> Result<Fill> {
        let status = match self.dm.pool_status(&self.name)? {
            ThinPoolStatus::Working(status) => status,
            ThinPoolStatus::Error | ThinPoolStatus::Fail => {
                let reason = "the pool has failed: its metadata needs thin_check and thin_repair";
                return Err(Error::corrupt("look at pool", &self.name, reason));
            }
        };
        let usage = &status.usage;
        Ok(Fill {
            data_used: *usage.used_data * self.block_size,
            data_total: *usage.total_data * self.block_size,
            metadata_used: *usage.used_meta * METADATA_BLOCK,
            metadata_total: *usage.total_meta * METADATA_BLOCK,
            transaction: status.transaction_id,
            mode: match status.summary {
                ThinPoolStatusSummary::Good => Mode::Writable,
                ThinPoolStatusSummary::OutOfSpace => Mode::OutOfData,
                ThinPoolStatusSummary::ReadOnly => Mode::ReadOnly,
            },
            fails_when_full: status.no_space_policy == ThinPoolNoSpacePolicy::Error,
            needs_check: status.needs_check,
        })
    }

    /// Sees that there is space for a new layer; `spare` is what the pool can still grow by.
    ///
    /// # Errors
    /// `NoSpace`, with the figures.
    pub(super) fn require_space(&self, spare: u64) -> Result<()> {
        let fill = self.fill()?;
        if fill.mode == Mode::ReadOnly {
            return Err(self.not_writable("make device", &fill));
        }
        let parts = [
            ("data", fill.data_used, fill.data_total, spare),
            ("metadata", fill.metadata_used, fill.metadata_total, 0),
        ];
        for (what, used, total, spare) in parts {
            let free = total.saturating_sub(used) + spare;
            let least = total / 100 * self.min_free_percent;
            if free < least {
                let reason = format!(
                    "{} free of {} {what} space is less than the {} that dm.min_free_space={}% \
                     keeps: remove layers, or add a device (layerctl pool add-device)",
                    mib(free),
                    mib(total),
                    mib(least),
                    self.min_free_percent,
                );
                return Err(Error::refused("make device", &self.name, reason, ErrorKind::NoSpace));
            }
        }
        Ok(())
    }

    /// Sees that the pool has taken everything that was written so far. In one that does not, a client
    /// may have unmounted a layer without hearing that the end of it was lost.
    ///
    /// # Errors
    /// `NoSpace` for a full pool and a read-only one.
    pub(super) fn require_writable(&self, op: &'static str) -> Result<()> {
        let fill = self.fill()?;
        if fill.mode == Mode::Writable { Ok(()) } else { Err(self.not_writable(op, &fill)) }
    }

    fn not_writable(&self, op: &'static str, fill: &Fill) -> Error {
        let reason = match (fill.mode, fill.needs_check) {
            (Mode::ReadOnly, true) => {
                "the pool is read-only until its metadata has been checked (thin_check)"
            }
            (Mode::ReadOnly, false) => "the pool is read-only",
            _ => {
                "the pool is full, and what was written last may be lost: remove layers, or add a \
                 device (layerctl pool add-device)"
            }
        };
        Error::refused(op, &self.name, reason, ErrorKind::NoSpace)
    }

    /// Makes an empty device.
    pub(super) fn create(&self) -> Result<ThinId> {
        self.with_number(Owner::Layer, |id| self.dm.create_thin(&self.name, id))
    }

    /// Runs `make` with a number that no device has.
    pub(super) fn with_number(
        &self,
        owner: Owner,
        make: impl Fn(ThinId) -> Result<(), super::dm::DmFailure>,
    ) -> Result<ThinId> {
        loop {
            let id = self.take_number(owner)?;
            let outcome = make(id);
            if outcome.is_err() {
                self.numbers().lent.remove(&id);
            }
            match outcome {
                Ok(()) => return Ok(id),
                // After the numbers have wrapped, some are still in use.
                Err(failure) if failure.errno == Some(Errno::EXIST) => {}
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// The next number of the window, which is moved when it is used up.
    fn take_number(&self, owner: Owner) -> Result<ThinId> {
        let mut numbers = self.numbers();
        if !numbers.file.numbers().contains(&numbers.next) {
            // From here on, a layer of the old window whose device exists exists itself.
            rustix::fs::syncfs(&self.home).map_err(|errno| Error::sys("syncfs", "", errno))?;
            let mut moved = numbers.file.moved();
            // No layer has them, and the window that says so is left behind.
            moved.deferred.extend(&numbers.lent);
            moved.write(self.home.as_fd())?;
            let from = numbers.file.transaction;
            numbers.next = moved.window;
            numbers.file = moved;
            super::crash::point("window moved");
            self.dm.set_transaction(&self.name, from, from + 1)?;
        }
        let id = numbers.next;
        numbers.next += 1;
        if owner == Owner::Call {
            numbers.lent.insert(id);
        }
        Ok(id)
    }

    /// Deletes a device that was made for a call, and shares its blocks with another.
    pub(super) fn give_back(&self, id: ThinId) {
        let gone = self.delete_now(id).or_else(|error| {
            tracing::debug!(device = id, %error, "deleted later");
            self.defer(id)
        });
        if let Err(error) = gone {
            tracing::warn!(device = id, %error, "a snapshot stays until the next start");
        }
        self.numbers().lent.remove(&id);
    }

    /// Makes a device that was made for a call a layer's.
    pub(super) fn keep(&self, id: ThinId) -> Result<()> {
        let mut numbers = self.numbers();
        numbers.lent.remove(&id);
        // There since the window of its number was left behind.
        if numbers.file.deferred.contains(&id) {
            // What names it now must be as durable as what named it until now.
            rustix::fs::syncfs(&self.home).map_err(|errno| Error::sys("syncfs", "", errno))?;
            numbers.file.deferred.retain(|&other| other != id);
            numbers.file.write(self.home.as_fd())?;
        }
        Ok(())
    }

    /// Leave to freeze a device.
    pub(super) fn one_freezes(&self, id: ThinId) -> MutexGuard<'_, ()> {
        self.freezing[id as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a device appear, and gives its name.
    pub(super) fn activate(&self, thin: Thin, how: Use) -> Result<String> {
        let name = self.device_name(thin.id);
        self.dm.activate(&self.device()?, &name, thin, how)?;
        Ok(name)
    }

    /// How many per cent are kept free.
    pub(super) fn min_free_percent(&self) -> u64 {
        self.min_free_percent
    }

    /// Whether a device that is open goes when it is closed.
    pub(super) fn deferred_removal(&self) -> bool {
        self.deferred_removal
    }

    /// Takes a device away, or has it go when its last user closes it.
    ///
    /// # Errors
    /// `InUse` for an open one when removal is not to be deferred.
    pub(super) fn deactivate(&self, id: ThinId) -> Result<Removal> {
        let name = self.device_name(id);
        if !self.deferred_removal && self.dm.open_count(&name)?.is_some_and(|count| count > 0) {
            return Err(Error::sys("remove device", name, Errno::BUSY));
        }
        self.dm.remove(&name, self.deferred_removal)
    }

    /// Takes a device away now.
    ///
    /// # Errors
    /// `InUse` when somebody has it open for longer than a moment.
    pub(super) fn deactivate_now(&self, id: ThinId) -> Result<()> {
        self.dm.remove(&self.device_name(id), false).map(drop)
    }

    /// Deletes a device with all its blocks.
    ///
    /// # Errors
    /// `InUse` while somebody has it open.
    pub(super) fn delete(&self, thin: Thin) -> Result<()> {
        if self.discard_first
            && let Err(error) = self.discard(thin)
        {
            tracing::debug!(device = thin.id, %error, "its blocks are not discarded");
        }
        self.delete_now(thin.id)
    }

    /// The same without a discard, which is for blocks that no other device has.
    pub(super) fn delete_now(&self, id: ThinId) -> Result<()> {
        match self.deactivate(id)? {
            Removal::Gone => self.dm.delete(&self.name, id),
            Removal::Deferred => Err(Error::sys("delete device", id.to_string(), Errno::BUSY)),
        }
    }

    /// Gives a device's own blocks back to what lies below the pool.
    ///
    /// # Errors
    /// `InUse` while somebody has it open, who is to keep what he has.
    fn discard(&self, thin: Thin) -> Result<()> {
        let name = self.device_name(thin.id);
        if self.dm.open_count(&name)?.is_some_and(|count| count > 0) {
            return Err(Error::sys("discard", name, Errno::BUSY));
        }
        self.activate(thin, Use::Write)?;
        super::tool::run("blkdiscard", &[super::dm::node(&name).as_os_str()]).map(drop)
    }

    /// Notes durably that a device is to be deleted when it is free.
    pub(super) fn defer(&self, id: ThinId) -> Result<()> {
        let mut numbers = self.numbers();
        if !numbers.file.deferred.contains(&id) {
            numbers.file.deferred.push(id);
            numbers.file.write(self.home.as_fd())?;
        }
        Ok(())
    }

    /// Tries to delete what was deferred; how many are still in use.
    pub(super) fn delete_deferred(&self) -> Result<usize> {
        let waiting: Vec<ThinId> = {
            let numbers = self.numbers();
            let waiting = numbers.file.deferred.iter().copied();
            waiting.filter(|id| !numbers.lent.contains(id)).collect()
        };
        if waiting.is_empty() {
            return Ok(0);
        }
        let mut gone = HashSet::new();
        for &id in &waiting {
            // Its size matters for a discard only.
            match self.delete(Thin { id, size: self.block_size }) {
                Ok(()) => drop(gone.insert(id)),
                Err(error) => tracing::debug!(device = id, %error, "not deleted yet"),
            }
        }
        let mut numbers = self.numbers();
        if !gone.is_empty() {
            numbers.file.deferred.retain(|id| !gone.contains(id));
            numbers.file.write(self.home.as_fd())?;
        }
        Ok(numbers.file.deferred.len())
    }

    /// Devices of the window among `there` that nobody claims: a crash left them.
    pub(super) fn orphans(
        &self,
        there: &HashSet<ThinId>,
        claimed: &HashSet<ThinId>,
    ) -> Vec<ThinId> {
        let numbers = self.numbers();
        let window = numbers.file.numbers().filter(|&id| id < numbers.next);
        let known = |id: &ThinId| {
            claimed.contains(id) || numbers.file.deferred.contains(id) || numbers.lent.contains(id)
        };
        window.filter(|id| there.contains(id) && !known(id)).collect()
    }

    /// Notes the base device durably.
    pub(super) fn set_base(&self, base: Base) -> Result<()> {
        let mut numbers = self.numbers();
        let mut file = numbers.file.clone();
        file.base = Some(base);
        file.write(self.home.as_fd())?;
        numbers.file = file;
        Ok(())
    }

    /// Notes durably where the pool comes from now.
    pub(super) fn set_setup(&self, setup: super::setup::Setup) -> Result<()> {
        let mut numbers = self.numbers();
        let mut file = numbers.file.clone();
        file.setup = setup;
        file.write(self.home.as_fd())?;
        numbers.file = file;
        Ok(())
    }
}

/// Bytes for a person.
#[allow(clippy::cast_precision_loss)] // one digit behind the point is shown
pub(super) fn mib(bytes: u64) -> String {
    let (power, unit) = match bytes {
        0..0x10_0000 => (10, "KiB"),
        0x10_0000..0x2_8000_0000 => (20, "MiB"),
        _ => (30, "GiB"),
    };
    format!("{:.1} {unit}", bytes as f64 / (1_u64 << power) as f64)
}

#[cfg(test)]
mod tests {
    use super::mib;

    #[test]
    fn sizes_are_told_in_fitting_units() {
        let cases = [
            (65_536, "64.0 KiB"),
            (5 << 20, "5.0 MiB"),
            (9 << 30, "9216.0 MiB"),
            (15 << 30, "15.0 GiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(mib(bytes), expected, "{bytes}");
        }
    }
}

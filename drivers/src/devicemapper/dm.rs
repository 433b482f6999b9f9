//! The kernel's device mapper, in the words of thin provisioning.
//!
//! Calls and texts are those of Documentation/admin-guide/device-mapper/thin-provisioning.rst. The
//! crate `devicemapper` speaks the ioctls, and waits for udev's part by its cookies where udev runs;
//! where it does not, the device nodes are made here.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use cow::error::{Error, Result};
use devicemapper::{
    DM, DevId, DeviceInfo, DmError, DmFlags, DmName, DmOptions, Sectors, TargetTable as _,
    ThinDevId, ThinDevTargetTable, ThinPoolStatus, ThinTargetParams, errors,
};
use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;

/// Where device nodes are.
pub(super) const DEV_MAPPER: &str = "/dev/mapper";

/// Bytes in a sector, whatever the disk's own are.
pub(super) const SECTOR: u64 = 512;

/// How often and with which pauses a device that another thread makes is looked at: five seconds in all.
const LIVE_TRIES: u32 = 500;
const LIVE_PAUSE: Duration = Duration::from_millis(10);

/// How often the removal of a busy device is tried. Programs that look at every new device (udev's
/// rules, `blkid`) hold one for a moment. Each try of the crate's lasts a second.
const REMOVE_TRIES: u32 = 5;

/// Number of a thin device in its pool: 24 bits.
pub(super) type ThinId = u32;

/// The greatest number of a thin device, and one more.
pub(super) const THIN_IDS: ThinId = 1 << 24;

/// How a thin device may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Blocks may be written.
    Write,
    /// The kernel refuses every write to the device.
    Read,
}

/// What became of a device that was to be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is gone.
    Gone,
    /// Somebody has it open; it goes when he closes it.
    Deferred,
}

/// A thin device's place in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thin {
    pub(super) id: ThinId,
    /// Its length in bytes.
    pub(super) size: u64,
}

/// The channel to the kernel.
pub(super) struct Dm(DM);

impl fmt::Debug for Dm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dm")
    }
}

impl Dm {
    /// Opens the channel.
    ///
    /// # Errors
    /// `Unsupported` where the kernel has no device mapper.
    pub(super) fn open() -> Result<Self> {
        let none = |error: DmError| {
            let reason = format!("no device-mapper in this kernel ({error})");
            Error::refused("open", "/dev/mapper/control", reason, cow::ErrorKind::Unsupported)
        };
        let dm = DM::new().map_err(none)?;
        dm.version().map_err(none)?;
        Ok(Self(dm))
    }

    /// The version of the kernel's device mapper.
    pub(super) fn version(&self) -> String {
        match self.0.version() {
            Ok((major, minor, patch)) => format!("{major}.{minor}.{patch}"),
            Err(error) => error.to_string(),
        }
    }

    /// A channel of its own, for waiting for events.
    pub(super) fn listener() -> Result<Listener> {
        DM::new().map(Listener).map_err(|error| failed("open", "control", error))
    }

    /// What is known of a device; none when there is no such device.
    pub(super) fn info(&self, name: &str) -> Result<Option<DeviceInfo>> {
        let name = dm_name(name)?;
        match self.0.device_info(&DevId::Name(name)) {
            Ok(info) => Ok(Some(info)),
            Err(error) if errno(&error) == Some(Errno::NXIO) => Ok(None),
            Err(error) => Err(failed("look at device", name, error)),
        }
    }

    /// How many have a device open; none when there is no such device.
    pub(super) fn open_count(&self, name: &str) -> Result<Option<i32>> {
        Ok(self.info(name)?.map(|info| info.open_count()))
    }

    /// Whether LVM made a device.
    pub(super) fn is_lvm(&self, name: &str) -> Result<bool> {
        let info = self.info(name)?;
        let uuid = info.as_ref().and_then(|info| info.uuid()).map(ToString::to_string);
        Ok(uuid.is_some_and(|uuid| uuid.starts_with("LVM-")))
    }

    /// The one line of a device's table or status: length in sectors, target, parameters.
    fn line(&self, name: &str, flags: DmFlags) -> Result<(u64, String, String)> {
        let options = DmOptions::default().set_flags(flags);
        let answer = self.0.table_status(&DevId::Name(dm_name(name)?), options);
        let (_, mut lines) = answer.map_err(|error| failed("ask for status", name, error))?;
        match lines.pop() {
            Some((_, length, target, text)) if lines.is_empty() => Ok((length, target, text)),
            _ => Err(Error::invalid("ask for status", name, "the device has not one target")),
        }
    }

    /// A device's table.
    pub(super) fn table(&self, name: &str) -> Result<(u64, String, String)> {
        self.line(name, DmFlags::DM_STATUS_TABLE)
    }

    /// A pool's status, without waiting for its metadata to be written.
    pub(super) fn pool_status(&self, pool: &str) -> Result<ThinPoolStatus> {
        let (_, target, text) = self.line(pool, DmFlags::DM_NOFLUSH)?;
        if target != "thin-pool" {
            let reason = format!("a {target} device, not a thin pool");
            return Err(Error::invalid("ask for status", pool, reason));
        }
        text.parse().map_err(|error| failed("read status", pool, error))
    }

    /// Sends a message to a pool. The kernel commits the pool's metadata before it answers.
    pub(super) fn message(&self, pool: &str, text: &str) -> Result<(), DmFailure> {
        let name = dm_name(pool).map_err(DmFailure::other)?;
        match self.0.target_msg(&DevId::Name(name), None, text) {
            Ok(_) => Ok(()),
            Err(error) => Err(DmFailure {
                errno: errno(&error),
                error: failed("send message", format!("{pool}: {text}"), error),
            }),
        }
    }

    /// Makes an empty thin device.
    pub(super) fn create_thin(&self, pool: &str, id: ThinId) -> Result<(), DmFailure> {
        self.message(pool, &format!("create_thin {id}"))
    }

    /// Makes a snapshot. An active origin must be suspended.
    pub(super) fn create_snap(
        &self,
        pool: &str,
        id: ThinId,
        origin: ThinId,
    ) -> Result<(), DmFailure> {
        self.message(pool, &format!("create_snap {id} {origin}"))
    }

    /// Deletes a thin device; one that is not there is no error.
    ///
    /// # Errors
    /// `InUse` while it is active.
    pub(super) fn delete(&self, pool: &str, id: ThinId) -> Result<()> {
        match self.message(pool, &format!("delete {id}")) {
            Ok(()) => Ok(()),
            Err(failure) if failure.errno == Some(Errno::NODATA) => Ok(()),
            Err(failure) => Err(failure.error),
        }
    }

    /// Sets the pool's transaction id, which must be `from`.
    pub(super) fn set_transaction(&self, pool: &str, from: u64, to: u64) -> Result<()> {
        self.message(pool, &format!("set_transaction_id {from} {to}"))
            .map_err(|failure| failure.error)
    }

    /// Takes the snapshot of a pool's metadata that programs read; there can be one.
    pub(super) fn reserve_metadata(&self, pool: &str) -> Result<()> {
        self.message(pool, "reserve_metadata_snap").map_err(|failure| failure.error)
    }

    /// Where in the metadata that snapshot is; none if there is none.
    pub(super) fn held_metadata(&self, pool: &str) -> Result<Option<u64>> {
        match self.pool_status(pool)? {
            ThinPoolStatus::Working(status) => Ok(status.held_metadata_root.map(|root| *root)),
            _ => Ok(None),
        }
    }

    /// Gives it back, if there is one.
    pub(super) fn release_metadata(&self, pool: &str) {
        let held = self.held_metadata(pool).is_ok_and(|held| held.is_some());
        if held && let Err(failure) = self.message(pool, "release_metadata_snap") {
            tracing::warn!(error = %failure.error, "the metadata snapshot stays");
        }
    }

    /// Makes a thin device appear under a name. One that is there already stays, with the way in
    /// which it may be used; a removal that waits for the last close is called off.
    pub(super) fn activate(
        &self,
        pool: &DeviceInfo,
        name: &str,
        thin: Thin,
        how: Use,
    ) -> Result<()> {
        if let Some(info) = self.info(name)? {
            if !info.flags().contains(DmFlags::DM_DEFERRED_REMOVE) {
                return self.make_node(name);
            }
            // It may go any moment; then it is made anew below.
            match self.message(name, "@cancel_deferred_remove") {
                Ok(()) => return self.make_node(name),
                Err(failure) if failure.errno == Some(Errno::NXIO) => {}
                Err(failure) => return Err(failure.error),
            }
        }
        let thin_id =
            ThinDevId::new_u64(thin.id.into()).map_err(|error| failed("activate", name, error))?;
        let params = ThinTargetParams::new(pool.device(), thin_id, None);
        let length = Sectors(thin.size / SECTOR);
        let table = ThinDevTargetTable::new(Sectors(0), length, params).to_raw_table();
        self.make(name, &table, how)
    }

    /// Makes a device from a table; nothing is left of it after an error.
    pub(super) fn make(
        &self,
        name: &str,
        table: &[(u64, u64, String, String)],
        how: Use,
    ) -> Result<()> {
        let dm_name = dm_name(name)?;
        let id = DevId::Name(dm_name);
        let options = match how {
            Use::Write => DmOptions::default(),
            Use::Read => DmOptions::default().set_flags(DmFlags::DM_READONLY),
        };
        match self.0.device_create(dm_name, None, options) {
            Ok(_) => {}
            // Another thread was quicker, and makes the same.
            Err(error) if errno(&error) == Some(Errno::BUSY) => return self.wait_live(name),
            Err(error) => return Err(failed("create device", name, error)),
        }
        let loaded = self
            .0
            .table_load(&id, table, options)
            .and_then(|_| self.0.device_suspend(&id, DmOptions::default()));
        if let Err(error) = loaded {
            let _ = self.0.device_remove(&id, DmOptions::default());
            return Err(failed("load table", name, error));
        }
        self.make_node(name)
    }

    /// Puts another table in place of a device's.
    pub(super) fn reload(&self, name: &str, table: &[(u64, u64, String, String)]) -> Result<()> {
        let id = DevId::Name(dm_name(name)?);
        let failed = |error| failed("reload table", name, error);
        self.0.table_load(&id, table, DmOptions::default()).map_err(failed)?;
        self.suspend(name, true)?;
        self.resume(name)
    }

    /// Waits until a device that another thread makes has its table.
    fn wait_live(&self, name: &str) -> Result<()> {
        for _ in 0..LIVE_TRIES {
            let live = self.info(name)?.is_some_and(|info| {
                info.flags().contains(DmFlags::DM_ACTIVE_PRESENT)
                    && !info.flags().contains(DmFlags::DM_SUSPEND)
            });
            if live {
                return self.make_node(name);
            }
            thread::sleep(LIVE_PAUSE);
        }
        Err(Error::sys("create device", name, Errno::BUSY))
    }

    /// Stops a device's input and output, with its file system frozen if `freeze` says so: while it is,
    /// the kernel refuses to mount it.
    pub(super) fn suspend(&self, name: &str, freeze: bool) -> Result<()> {
        let how = if freeze { DmFlags::empty() } else { DmFlags::DM_SKIP_LOCKFS };
        let options = DmOptions::default().set_flags(DmFlags::DM_SUSPEND | how);
        let id = DevId::Name(dm_name(name)?);
        loop {
            match self.0.device_suspend(&id, options) {
                // A signal has ended the wait for what is being written; nothing is suspended.
                Err(error) if errno(&error) == Some(Errno::INTR) => {}
                answer => return answer.map(drop).map_err(|error| failed("suspend", name, error)),
            }
        }
    }

    /// Lets a suspended device go on.
    pub(super) fn resume(&self, name: &str) -> Result<()> {
        let answer = self.0.device_suspend(&DevId::Name(dm_name(name)?), DmOptions::default());
        answer.map(drop).map_err(|error| failed("resume", name, error))
    }

    /// Takes a device away. One that somebody has open stays for a few seconds' tries, or, with
    /// `deferred`, until it is closed.
    ///
    /// # Errors
    /// `InUse` when it stays open.
    pub(super) fn remove(&self, name: &str, deferred: bool) -> Result<Removal> {
        let flags = if deferred { DmFlags::DM_DEFERRED_REMOVE } else { DmFlags::empty() };
        let mut tries = 0;
        loop {
            match self.try_remove(name, flags) {
                Ok(true) => {
                    remove_node(name);
                    return Ok(Removal::Gone);
                }
                Ok(false) => return Ok(Removal::Deferred),
                Err(failure) if failure.errno == Some(Errno::BUSY) && tries < REMOVE_TRIES => {
                    tries += 1;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// Whether the device is gone; otherwise it goes with its last user.
    fn try_remove(&self, name: &str, flags: DmFlags) -> Result<bool, DmFailure> {
        let id = DevId::Name(dm_name(name).map_err(DmFailure::other)?);
        // The crate tries again by itself, for a second, unless removal is deferred.
        let options = DmOptions::default().set_flags(flags);
        match self.0.device_remove(&id, options) {
            Ok(info) => Ok(!info.flags().contains(DmFlags::DM_DEFERRED_REMOVE)),
            Err(error) if errno(&error) == Some(Errno::NXIO) => Ok(true),
            Err(error) => {
                let errno = errno(&error);
                Err(DmFailure { errno, error: failed("remove device", name, error) })
            }
        }
    }

    /// Names of all devices that begin with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let list = self.0.list_devices().map_err(|error| failed("list devices", "", error))?;
        let names = list.into_iter().map(|(name, ..)| name.to_string());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }

    /// The name of the device that a node stands for: `/dev/mapper/NAME`, a link to `/dev/dm-0`, or a
    /// bare name.
    pub(super) fn name_of(&self, node: &Path) -> Result<String> {
        if let Some(name) = node.to_str()
            && !name.contains('/')
            && self.info(name)?.is_some()
        {
            return Ok(name.to_owned());
        }
        let stat = rustix::fs::stat(node).map_err(|errno| Error::sys("stat", node, errno))?;
        let list = self.0.list_devices().map_err(|error| failed("list devices", "", error))?;
        let wanted = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let is_block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
        list.into_iter()
            .find(|(_, device, _)| is_block && (device.major, device.minor) == wanted)
            .map(|(name, ..)| name.to_string())
            .ok_or_else(|| Error::invalid("find", node, "not a device of the device mapper"))
    }

    /// Sees that a device has its node in `/dev/mapper`: udev has made it, or nobody will.
    fn make_node(&self, name: &str) -> Result<()> {
        let path = node(name);
        let Some(info) = self.info(name)? else {
            return Err(Error::sys("create device", name, Errno::NXIO));
        };
        let device = info.device();
        let wanted = rustix::fs::makedev(device.major, device.minor);
        match rustix::fs::stat(&path) {
            Ok(stat) if stat.st_rdev == wanted => return Ok(()),
            Ok(_) => remove_node(name),
            Err(Errno::NOENT) => remove_node(name),
            Err(errno) => return Err(Error::sys("stat", &path, errno)),
        }
        let mode = Mode::from_raw_mode(0o600);
        match rustix::fs::mknodat(CWD, &path, FileType::BlockDevice, mode, wanted) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Error::sys("mknod", &path, errno)),
        }
    }
}

/// Hears of events of all devices.
pub(super) struct Listener(DM);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

impl Listener {
    /// Makes the next event count.
    pub(super) fn arm(&self) -> Result<()> {
        self.0.arm_poll().map(drop).map_err(|error| failed("arm poll", "control", error))
    }

    /// The file that becomes readable at an event.
    pub(super) fn file(&self) -> &std::fs::File {
        self.0.file()
    }
}

/// A failed call, with the kernel's number for those who look at it.
#[derive(Debug)]
pub(super) struct DmFailure {
    pub(super) errno: Option<Errno>,
    pub(super) error: Error,
}

impl DmFailure {
    fn other(error: Error) -> Self {
        Self { errno: None, error }
    }
}

/// A device's node.
pub(super) fn node(name: &str) -> PathBuf {
    Path::new(DEV_MAPPER).join(name)
}

fn remove_node(name: &str) {
    // udev removes its own link; what it has removed is gone.
    let _ = rustix::fs::unlink(node(name));
}

fn dm_name(name: &str) -> Result<&DmName> {
    DmName::new(name).map_err(|error| Error::invalid("name device", name, error.to_string()))
}

/// The kernel's number for a failure.
fn errno(error: &DmError) -> Option<Errno> {
    match error {
        DmError::Core(errors::Error::Ioctl(.., number)) => {
            Some(Errno::from_raw_os_error(**number as i32))
        }
        _ => None,
    }
}

fn failed(op: &'static str, subject: impl fmt::Display, error: DmError) -> Error {
    let subject = subject.to_string();
    match errno(&error) {
        Some(errno) => Error::sys(op, subject, io::Error::from(errno)),
        None => Error::refused(op, subject, error.to_string(), cow::ErrorKind::Io),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_device_mapper_the_reason_is_said() {
        if Path::new("/dev/mapper/control").exists() {
            return;
        }
        let error = Dm::open().unwrap_err();
        assert_eq!(error.kind(), cow::ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("no device-mapper in this kernel"), "{error}");
    }

    #[test]
    fn nodes_are_in_one_directory() {
        assert_eq!(node("a-b"), Path::new("/dev/mapper/a-b"));
        assert!(dm_name(&"x".repeat(200)).is_err(), "a name longer than the kernel takes");
    }
}

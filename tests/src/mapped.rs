//! A device of the device mapper, for one test in a guest.

use std::path::PathBuf;

use devicemapper::{DM, DevId, DmFlags, DmName, DmOptions};

/// Bytes of a sector, in which the device mapper counts.
pub const SECTOR: u64 = 512;

/// A device with one target; drop takes it away.
#[derive(Debug)]
pub struct Mapped {
    name: String,
    sectors: u64,
}

impl Mapped {
    /// Makes a device; one of that name that is there already is taken away.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(name: &str, sectors: u64, target: &str, parameters: &str) -> Self {
        remove(name);
        let mapped = Self { name: name.to_owned(), sectors };
        dm().device_create(mapped.id(), None, DmOptions::default()).expect("a device");
        mapped.load(target, parameters);
        mapped.resume();
        mapped.make_node();
        mapped
    }

    /// A part of another device, both counted in MiB.
    #[must_use]
    pub fn part(name: &str, of: &str, from: u64, mib: u64) -> Self {
        let sectors = |mib: u64| (mib << 20) / SECTOR;
        Self::new(name, sectors(mib), "linear", &format!("{of} {}", sectors(from)))
    }

    /// Its length.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Its node.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/dev/mapper").join(&self.name)
    }

    /// Its number, `major:minor`, as tables of other devices take it.
    ///
    /// # Panics
    /// When it has gone.
    #[must_use]
    pub fn number(&self) -> String {
        let info = dm().device_info(&DevId::Name(self.id())).expect("a device");
        info.device().to_string()
    }

    /// Sends a message to its target.
    ///
    /// # Panics
    /// When the target does not take it.
    pub fn message(&self, text: &str) {
        dm().target_msg(&DevId::Name(self.id()), None, text).expect("a message that is taken");
    }

    /// Puts another target in the place of its own, at once: nothing is written before.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn replace(&self, target: &str, parameters: &str) {
        self.load(target, parameters);
        let flags = DmFlags::DM_SUSPEND | DmFlags::DM_SKIP_LOCKFS | DmFlags::DM_NOFLUSH;
        let options = DmOptions::default().set_flags(flags);
        dm().device_suspend(&DevId::Name(self.id()), options).expect("it stops");
        self.resume();
    }

    fn load(&self, target: &str, parameters: &str) {
        let table = [(0, self.sectors, target.to_owned(), parameters.to_owned())];
        let loaded = dm().table_load(&DevId::Name(self.id()), &table, DmOptions::default());
        loaded.unwrap_or_else(|error| panic!("{}: {target} {parameters}: {error}", self.name));
    }

    fn resume(&self) {
        let options = DmOptions::default();
        dm().device_suspend(&DevId::Name(self.id()), options).expect("its start");
    }

    /// Without udev nobody makes it.
    fn make_node(&self) {
        let number = self.number();
        let (major, minor) = number.split_once(':').expect("major:minor");
        let parse = |text: &str| text.parse().expect("a number");
        let device = rustix::fs::makedev(parse(major), parse(minor));
        let kind = rustix::fs::FileType::BlockDevice;
        let _ = rustix::fs::unlink(self.path());
        rustix::fs::mknodat(rustix::fs::CWD, self.path(), kind, 0o600.into(), device)
            .expect("a node");
    }

    fn id(&self) -> &DmName {
        DmName::new(&self.name).expect("a name")
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn dm() -> DM {
    DM::new().expect("the device mapper")
}

/// Takes a device away. What is not there, or goes by itself when it is closed, is no failure.
fn remove(name: &str) {
    let Ok(dm) = DM::new() else { return };
    let id = DmName::new(name).expect("a name");
    drop(dm.device_remove(&DevId::Name(id), DmOptions::default()));
    let _ = std::fs::remove_file(PathBuf::from("/dev/mapper").join(name));
}

/// Takes away what layerd left behind: its thin devices.
pub fn remove_thin_devices() {
    let Ok(dm) = DM::new() else { return };
    for (name, ..) in dm.list_devices().unwrap_or_default() {
        let name = name.to_string();
        let thin = name.strip_prefix("layerd-").and_then(|rest| rest.rsplit_once('-'));
        if thin.is_some_and(|(_, number)| number.parse::<u32>().is_ok()) {
            remove(&name);
        }
    }
}

//! A thin pool on a piece of a disk, for one test.

use std::io::Write as _;
use std::path::PathBuf;

use devicemapper::{DM, DevId, DmName, DmOptions};

/// The disk that the pools are made on, of which nothing is kept.
const DISK: &str = "/dev/ubdb";
/// Its parts in sectors: 16 MiB of metadata, then data.
const METADATA: u64 = 32_768;

/// A pool; drop takes it away with all its devices.
#[derive(Debug)]
pub struct ThinPool {
    name: String,
}

impl ThinPool {
    /// An empty pool of so many MiB.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(name: &str, mib: u64) -> Self {
        let pool = Self { name: name.to_owned() };
        pool.take_away();
        let sectors = mib * 2048;
        // Zeros are an empty pool to the kernel.
        let mut disk = std::fs::File::options().write(true).open(DISK).expect("the disk");
        disk.write_all(&[0; 65_536]).and_then(|()| disk.sync_all()).expect("zeros");
        pool.create("-meta", METADATA, "linear", &format!("{DISK} 0"));
        pool.create("-data", sectors, "linear", &format!("{DISK} {METADATA}"));
        let device = |part| {
            let name = pool.name(part);
            let info = DM::new().expect("the device mapper");
            let info = info.device_info(&DevId::Name(DmName::new(&name).expect("a name")));
            info.expect("a device").device().to_string()
        };
        let (meta, data) = (device("-meta"), device("-data"));
        pool.create("", sectors, "thin-pool", &format!("{meta} {data} 128 0 1 error_if_no_space"));
        let made = pool.path();
        if !made.exists() {
            // Without udev nobody makes it.
            let device = device("");
            let (major, minor) = device.split_once(':').expect("major:minor");
            let number = |text: &str| text.parse().expect("a number");
            let device = rustix::fs::makedev(number(major), number(minor));
            let kind = rustix::fs::FileType::BlockDevice;
            rustix::fs::mknodat(rustix::fs::CWD, &made, kind, 0o600.into(), device)
                .expect("a node");
        }
        pool
    }

    /// The pool's device.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/mapper/{}", self.name))
    }

    fn name(&self, part: &str) -> String {
        format!("{}{part}", self.name)
    }

    fn create(&self, part: &str, sectors: u64, target: &str, parameters: &str) {
        let dm = DM::new().expect("the device mapper");
        let name = self.name(part);
        let name = DmName::new(&name).expect("a name");
        let table = [(0, sectors, target.to_owned(), parameters.to_owned())];
        dm.device_create(name, None, DmOptions::default()).expect("a device");
        dm.table_load(&DevId::Name(name), &table, DmOptions::default()).expect("its table");
        dm.device_suspend(&DevId::Name(name), DmOptions::default()).expect("its start");
    }

    fn take_away(&self) {
        let Ok(dm) = DM::new() else { return };
        let names = dm.list_devices().unwrap_or_default();
        let names = names.into_iter().map(|(name, ..)| name.to_string());
        let thin = names.filter(|name| name.starts_with("layerd-"));
        for name in thin.chain(["", "-meta", "-data"].map(|part| self.name(part))) {
            let id = DmName::new(&name).expect("a name");
            // What is not there, or goes by itself when it is closed, is no failure here.
            drop(dm.device_remove(&DevId::Name(id), DmOptions::default()));
            let _ = std::fs::remove_file(format!("/dev/mapper/{name}"));
        }
    }
}

impl Drop for ThinPool {
    fn drop(&mut self) {
        self.take_away();
    }
}

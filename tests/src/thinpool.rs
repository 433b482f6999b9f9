//! A thin pool, for one test in a guest.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use crate::mapped::{self, Mapped};

/// The disk that the pools are made on, of which nothing is kept.
const DISK: &str = "/dev/ubdb";
/// How much of it is metadata, before the data.
const METADATA_MIB: u64 = 16;

/// A pool; drop takes it away with all its devices.
#[derive(Debug)]
pub struct ThinPool {
    pool: Mapped,
    /// Held for their drop, which comes after the pool's.
    _parts: [Mapped; 2],
}

impl ThinPool {
    /// An empty pool with so many MiB of data, on the first disk.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(name: &str, mib: u64) -> Self {
        mapped::remove_thin_devices();
        let metadata = Mapped::part(&format!("{name}-meta"), DISK, 0, METADATA_MIB);
        let data = Mapped::part(&format!("{name}-data"), DISK, METADATA_MIB, mib);
        // Zeros are an empty pool to the kernel.
        let mut disk = File::options().write(true).open(metadata.path()).expect("the disk");
        disk.write_all(&[0; 65_536]).and_then(|()| disk.sync_all()).expect("zeros");
        Self::on(name, metadata, data)
    }

    /// The pool that two devices hold.
    ///
    /// # Panics
    /// When they hold none.
    #[must_use]
    pub fn on(name: &str, metadata: Mapped, data: Mapped) -> Self {
        let parameters =
            format!("{} {} 128 0 1 error_if_no_space", metadata.number(), data.number());
        let pool = Mapped::new(name, data.sectors(), "thin-pool", &parameters);
        Self { pool, _parts: [metadata, data] }
    }

    /// The pool's device.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.pool.path()
    }
}

impl Drop for ThinPool {
    fn drop(&mut self) {
        mapped::remove_thin_devices();
    }
}

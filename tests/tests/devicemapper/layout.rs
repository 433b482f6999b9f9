//! A store whose home and pool lie on devices that a test can harm.

use std::path::Path;
use std::process::Command;

use tests::daemon::{Daemon, Finish as _};
use tests::life;
use tests::mapped::Mapped;
use tests::root::TempRoot;
use tests::thinpool::ThinPool;

/// How a daemon is told to keep its layers there.
pub(crate) const OPTIONS: [&str; 8] = [
    "--driver",
    "devicemapper",
    "--storage-opt",
    "dm.thinpooldev=harmed",
    "--storage-opt",
    "dm.basesize=64m",
    "--storage-opt",
    "dm.min_free_space=0",
];

/// Where the parts begin and how long they are, in MiB: home, the pool's metadata, its data.
pub(crate) const PARTS: [(&str, u64, u64); 3] =
    [("harmed-home", 0, 48), ("harmed-meta", 48, 8), ("harmed-data", 56, 200)];

/// The length of all of it, in MiB.
pub(crate) const MIB: u64 = 256;

/// A mounted home and an active pool. Drop ends both.
#[derive(Debug)]
pub(crate) struct Layout {
    root: TempRoot,
    /// Held for their drop, the home's after its mount.
    _pool: ThinPool,
    _home: Mapped,
}

impl Layout {
    /// The three parts of one device.
    pub(crate) fn on(device: &str) -> Self {
        let parts = PARTS.map(|(name, from, mib)| Mapped::part(name, device, from, mib));
        Self::of(parts)
    }

    /// The same on a device with nothing on it.
    pub(crate) fn new(device: &str) -> Self {
        let parts = PARTS.map(|(name, from, mib)| Mapped::part(name, device, from, mib));
        make_home(&parts[0].path());
        Self::of(parts)
    }

    pub(crate) fn of([home, metadata, data]: [Mapped; 3]) -> Self {
        let root = TempRoot::new("harmed");
        Command::new("mount").arg(home.path()).arg(root.path()).finish().ok();
        Self { root, _pool: ThinPool::on("harmed", metadata, data), _home: home }
    }

    /// Where the home is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Starts a first daemon.
    pub(crate) fn daemon(&self) -> Daemon {
        Daemon::start_in(life::place(self.path()), OPTIONS)
    }
}

/// Makes the file system of a home.
pub(crate) fn make_home(device: &Path) {
    Command::new("mkfs.ext4").args(["-q", "-F"]).arg(device).finish().ok();
}

//! The layers below a mount, and how they make one tree.
//!
//! Everything here works on real directories and names; nodes, which the kernel's requests speak of,
//! are above it ([`crate::node`]).

mod copyup;
mod detach;
mod fds;
mod index;
mod list;
pub mod marks;
mod merge;
mod metacopy;
mod open;
mod overrides;
mod unsettled;
mod whiteout;
mod work;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

pub use copyup::{Copied, Lower};
pub use detach::{Access, Times};
pub use fds::{FdCache, Moving, Name, RealDir, lock};
pub use list::{Entry, Listing, Places};
pub(crate) use merge::stat;
pub use merge::{Found, Known, Place};
pub use metacopy::Bare;
pub use overrides::{Overrides, Owned, REAL_MODE};
pub use whiteout::WHITEOUT_FILE;
pub use work::Work;

use crate::options::{Options, Redirects};

/// An inode of the layers: which file system, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RealId {
    /// The place in the table of the layers' file systems; 0 is that of the top layer.
    pub fs: u16,
    /// The number.
    pub ino: u64,
}

/// One layer.
#[derive(Debug)]
pub struct Layer {
    /// Its root.
    pub root: Arc<RealDir>,
    /// Its device number.
    pub dev: u64,
    /// The place of its file system in the table.
    pub fs: u16,
    /// The identity of its file system; zeros when it has none.
    pub uuid: [u8; 16],
    /// Where it keeps owners and modes, if not in the inodes.
    pub overrides: Option<Overrides>,
    /// Whether its files can be opened by their handles, and the identity tells where.
    handles: bool,
}

/// The layers of a mount, the topmost first.
#[derive(Debug)]
pub struct Union {
    /// The layers; the first takes changes if [`Self::work`] is there.
    pub layers: Vec<Layer>,
    /// How many of them are merged: the others have data alone, for files above without theirs.
    merged: usize,
    /// The work directory; none for a read-only mount.
    pub work: Option<Work>,
    /// Which marks are written and believed.
    pub prefix: marks::Prefix,
    /// The directories whose fds are open.
    pub fds: FdCache,
    /// What renaming directories does, and whether their marks are followed.
    pub redirects: Redirects,
    /// Whether anything is synced.
    pub sync: bool,
    /// Whether written data is on the disk before a later rename is, without a sync.
    ordered: bool,
    /// The copies that have their names before the disk has their data; none where all are waited for.
    unsettled: Option<Arc<unsettled::Unsettled>>,
    /// Whether lower hard links stay together.
    pub index: bool,
    copier: cow::copy::Copier,
    file_systems: Mutex<Vec<u64>>,
    xino: bool,
}

impl Union {
    /// Whether a directory belongs to the layer that takes changes.
    pub fn is_upper(&self, dir: &RealDir) -> bool {
        dir.layer == 0 && self.work.is_some()
    }

    /// Whether a file is in the layer that takes changes.
    pub fn is_upper_place(&self, place: &Place) -> bool {
        match place {
            Place::Dir(stack) => stack.first().is_some_and(|dir| self.is_upper(dir)),
            Place::File { dir, .. } => self.is_upper(dir),
        }
    }

    /// The roots of all layers: what the root of the mount merges.
    pub fn roots(&self) -> Arc<[Arc<RealDir>]> {
        self.layers.iter().take(self.merged).map(|layer| Arc::clone(&layer.root)).collect()
    }

    /// Whether a layer is the lowest, below which nothing is searched but data.
    fn is_lowest(&self, dir: &RealDir) -> bool {
        usize::from(dir.layer) + 1 >= self.merged
    }

    /// The layer that a directory is in.
    pub fn layer(&self, dir: &RealDir) -> &Layer {
        &self.layers[usize::from(dir.layer).min(self.layers.len() - 1)]
    }

    /// The identity of an inode that was found below `dir`.
    pub fn id(&self, dir: &RealDir, stat: &rustix::fs::Statx) -> RealId {
        let dev = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let layer = self.layer(dir);
        if dev == layer.dev {
            return RealId { fs: layer.fs, ino: stat.stx_ino };
        }
        // Another file system is mounted somewhere inside of the layer.
        let mut known = lock(&self.file_systems);
        let place = known.iter().position(|known| *known == dev).unwrap_or_else(|| {
            known.push(dev);
            known.len() - 1
        });
        RealId { fs: u16::try_from(place).unwrap_or(u16::MAX), ino: stat.stx_ino }
    }

    /// The inode number that the mount shows: that of the layer, with the file system in the high
    /// byte where there are several and the number leaves room.
    pub fn shown(&self, id: RealId) -> u64 {
        if id.fs == 0 || !self.xino || id.ino >> 56 != 0 {
            return id.ino;
        }
        id.ino | u64::from(id.fs) << 56
    }

    /// The number shown for an upper file that says which lower one it is a copy of.
    fn shown_origin(&self, origin: Option<cow::origin::Origin>) -> Option<u64> {
        let origin = origin?;
        let lower = &self.layers[usize::from(self.work.is_some())..];
        let mut known = lower.iter().filter(|layer| layer.uuid == origin.uuid);
        let fs = known.next()?.fs;
        // File systems without an identity, or copies of one, cannot be told apart.
        known.all(|layer| layer.fs == fs).then(|| self.shown(RealId { fs, ino: origin.ino }))
    }

    /// Removes what was made ahead in the work directory, when nobody asks for more.
    pub fn tidy(&self) {
        if let Some(work) = &self.work {
            work.drop_spare();
        }
    }

    /// Opens the layers that the options name.
    ///
    /// # Errors
    /// A layer that cannot be opened, or a work directory that does not fit the upper one.
    pub fn open(options: &Options) -> crate::error::Result<Self> {
        open::open(options)
    }
}

/// Opens a directory once more, for a listing with a position of its own.
pub(crate) fn open_listing(dir: &OwnedFd) -> Result<OwnedFd, rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::empty())
}

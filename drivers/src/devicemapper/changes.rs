//! How a layer differs from one below it.
//!
//! A layer's device is a snapshot of its parent's, so that the pool knows which blocks the two do not
//! share. Of these, the ones of the inode tables hold all inodes that were written ([`inodes`]); their
//! names are looked up ([`names`]), and what is found there is compared for real. Everything else is
//! not looked at.
//!
//! This needs to understand the file system's tables ([`ext4`]) and the pool's ([`delta`]). Wherever
//! anything is not as expected, both trees are walked instead, which is always right.

mod delta;
mod ext4;
mod inodes;
mod names;

use std::ffi::OsStr;
use std::fmt;

use cow::diff::Touched;
use cow::error::{Error, ErrorKind, Result};
use cow::root::Root;

use super::DeviceMapper;
use super::crash;
use super::devices::Held;
use super::dm::{self, Thin, ThinId, Use};
use super::options::FileSystem;
use super::pool::{Mode, Owner, Pool};
use super::tool;
use super::volume::Shown;
use crate::backend::Difference;
use crate::driver::State;
use crate::home::meta::Meta;
use crate::id::LayerId;
use ext4::Ext4;

/// The inode number of a root directory of ext4.
const ROOT_INO: u32 = 2;

/// A device that shows one instant of an active layer; goes with its last user.
struct Snapshot<'d> {
    pool: &'d Pool,
    id: ThinId,
    held: Option<Held<'d>>,
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.id).finish()
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        drop(self.held.take());
        self.pool.give_back(self.id);
    }
}

/// A tree to which nobody writes.
struct Steady<'d> {
    thin: Thin,
    fs: Ext4,
    root: Root,
    /// Goes after the root.
    held: Box<dyn fmt::Debug + 'd>,
}

impl DeviceMapper {
    /// Compares what a layer shows with what one below it shows, or with nothing.
    pub(super) fn compare(&self, meta: &Meta, below: Option<&LayerId>) -> Result<Difference<'_>> {
        let below = below.map(|id| self.meta(id)).transpose()?;
        if let Some(below) = &below {
            match self.compare_written(meta, below) {
                Ok(difference) => return Ok(difference),
                Err(reason) => tracing::debug!(layer = %meta.id, %reason, "both trees are walked"),
            }
        }
        let lower = below.map(|meta| self.look(&meta)).transpose()?;
        let (_held, upper) = self.look(meta)?;
        let changes = cow::diff::trees(lower.as_ref().map(|(_, root)| root), &upper)?;
        Ok(Difference::new(changes, vec![upper]))
    }

    /// The same from what was written alone.
    ///
    /// # Errors
    /// Whatever makes it uncertain that nothing else was.
    fn compare_written(&self, meta: &Meta, below: &Meta) -> Result<Difference<'_>> {
        if self.volumes.fs != FileSystem::Ext4 {
            let reason = format!("{} is not read", self.volumes.fs.name());
            return Err(Error::refused("compare devices", "", reason, ErrorKind::Unsupported));
        }
        let lower = self.sealed(self.shown(below)?.0)?;
        let upper = match meta.state {
            State::Active => self.frozen(meta)?,
            State::Committed | State::View => self.sealed(self.shown(meta)?.0)?,
        };
        upper.fs.compare(&lower.fs)?;
        if upper.thin.size != lower.thin.size {
            let reason = "it was enlarged";
            return Err(Error::refused("compare devices", "", reason, ErrorKind::Unsupported));
        }
        let mut tables = upper.fs.tables();
        self.parts([lower.thin.id, upper.thin.id], |part| tables.touch(part))?;
        let found = inodes::compare(&lower.fs, &upper.fs, tables)?;
        let per_group = upper.fs.superblock.inodes_per_group;
        let names = names::find(&upper.root, &found.inodes, per_group.into())?;
        tracing::debug!(
            layer = %meta.id,
            inodes = found.looked_at,
            written = found.inodes.len(),
            directories = names.directories,
            "compared what was written"
        );
        let touched = Touched { inodes: found.inodes.into_keys().collect(), names: names.ways };
        let changes = cow::diff::touched(&lower.root, &upper.root, &touched)?;
        Ok(Difference { changes, roots: vec![upper.root], held: Some(upper.held) })
    }

    /// What a device shows that takes no writes.
    fn sealed(&self, thin: Thin) -> Result<Steady<'_>> {
        let held = self.devices.hold(thin, Use::Read)?;
        let root = self.volumes.open(&held.name, Shown::Sealed)?;
        let fs = Ext4::open(dm::node(&held.name))?;
        Ok(Steady { thin, fs, root, held: Box::new(held) })
    }

    /// What an active layer shows at this instant, which is wholly on its device: the file system is
    /// frozen for the moment in which the snapshot of it is made.
    fn frozen(&self, meta: &Meta) -> Result<Steady<'_>> {
        if self.pool.fill()?.mode != Mode::Writable {
            // What is to be frozen might have to wait for space.
            let reason = "the pool takes no writes";
            return Err(Error::refused("make snapshot", "", reason, ErrorKind::NoSpace));
        }
        let (held, root) = self.look(meta)?;
        // So that little is left to be written while it is frozen.
        rustix::fs::syncfs(root.open_dir("")?).map_err(|errno| root.error("syncfs", "", errno))?;
        let origin = self.shown(meta)?.0;
        let id = self.pool.snapshot(origin.id, Owner::Call)?;
        crash::point("snapshot lent");
        let mut snapshot = Snapshot { pool: &self.pool, id, held: None };
        drop((root, held));
        let thin = Thin { id, ..origin };
        let held = snapshot.held.insert(self.devices.hold(thin, Use::Read)?);
        let root = self.volumes.open(&held.name, Shown::Sealed)?;
        let fs = Ext4::open(dm::node(&held.name))?;
        Ok(Steady { thin, fs, root, held: Box::new(snapshot) })
    }

    /// Gives each part in which the two devices are not the same blocks, in bytes.
    fn parts(&self, devices: [ThinId; 2], each: impl FnMut(std::ops::Range<u64>)) -> Result<()> {
        let [left, right] = devices.map(|id| id.to_string());
        let words = ["--metadata-snap", "--snap1", &left, "--snap2", &right].map(OsStr::new);
        self.pool.with_own_metadata(|node| {
            tool::run_reading("thin_delta", &[&words[..], &[node]].concat(), |output| {
                let parsed = delta::parse(output, devices, self.pool.block_size, each);
                parsed.map_err(|reason| Error::corrupt("read", "thin_delta", reason))
            })
        })
    }
}

//! How a layer differs from one below it.
//!
//! A layer's device is a snapshot of its parent's, so that the pool knows which blocks the two do not
//! share. Of these, the ones that have inodes hold all that were written ([`inodes`]); their names are
//! looked up ([`names`]), and what is found there is compared for real. Everything else is not looked at.
//!
//! This needs to understand the file system's tables ([`Format`]: [`ext4`], [`xfs`]) and the pool's
//! ([`delta`]). Wherever anything is not as expected, both trees are walked instead, which is always right.
//!
//! Either way what is looked at is one instant of an active layer, a snapshot that is made for the
//! comparison: its client may have it mounted, and waits for the moment in which that is taken.

mod delta;
mod disk;
mod ext4;
mod format;
mod inodes;
mod names;
mod places;
mod xfs;

use std::ffi::OsStr;
use std::fmt;

use cow::change::Changeset;
use cow::diff::Touched;
use cow::error::{Error, ErrorKind, Result};
use cow::root::Root;

use super::DeviceMapper;
use super::dm::{self, Thin, ThinId, Use};
use super::freeze::Lent;
use super::options::FileSystem;
use super::tool;
use super::volume::{self, Shown};
use crate::backend::Difference;
use crate::driver::{State, Usage};
use crate::home::meta::Meta;
use crate::id::LayerId;
use ext4::Ext4;
use format::Format;
use places::Places;
use xfs::Xfs;

/// What a layer shows.
struct Tree<'d> {
    /// Where in the pool that is to which nobody writes; none for a layer that may be in use.
    steady: Option<Thin>,
    root: Root,
    /// Goes after the root.
    held: Box<dyn fmt::Debug + 'd>,
}

/// How a layer differs from one below it.
#[derive(Debug)]
pub(super) struct Compared<'d> {
    changes: Changeset,
    root: Root,
    held: Box<dyn fmt::Debug + 'd>,
    /// The bytes of the pool that the two devices do not share, where it was asked for them.
    pub(super) own: Option<u64>,
}

impl<'d> Compared<'d> {
    /// The space that the changes take.
    pub(super) fn usage(&self) -> Result<Usage> {
        let usage = cow::usage::changed(&self.root, &self.changes)?;
        Ok(Usage { bytes: usage.bytes, inodes: usage.inodes, content: usage.content })
    }

    /// For whoever wants to read what has changed.
    pub(super) fn difference(self) -> Difference<'d> {
        Difference { changes: self.changes, roots: vec![self.root], held: Some(self.held) }
    }
}

impl DeviceMapper {
    /// Compares what a layer shows with what one below it shows, or with nothing.
    pub(super) fn compare(&self, meta: &Meta, below: Option<&LayerId>) -> Result<Compared<'_>> {
        let tree = match meta.state {
            State::Active => self.frozen(meta).or_else(|reason| {
                tracing::debug!(layer = %meta.id, %reason, "looked at while it may be in use");
                let (held, root) = self.look(meta)?;
                Ok(Tree { steady: None, root, held: Box::new(held) })
            })?,
            State::Committed | State::View => self.sealed(self.shown(meta)?.0)?,
        };
        self.compare_tree(&meta.id, tree, below)
    }

    /// The same of a device to which nobody writes, and that is to be the layer's.
    pub(super) fn compare_sealed(
        &self,
        id: &LayerId,
        thin: Thin,
        below: Option<&LayerId>,
    ) -> Result<Compared<'_>> {
        self.compare_tree(id, self.sealed(thin)?, below)
    }

    fn compare_tree<'d>(
        &'d self,
        id: &LayerId,
        upper: Tree<'d>,
        below: Option<&LayerId>,
    ) -> Result<Compared<'d>> {
        let mut own = None;
        let changes = match below {
            None => cow::diff::trees(None, &upper.root)?,
            Some(below) => {
                let lower = self.sealed(self.shown(&*self.meta(below)?)?.0)?;
                let written = self.written(id, below, &upper, &lower);
                let told = written.and_then(|(touched, bytes)| {
                    own = Some(bytes);
                    cow::diff::touched(&lower.root, &upper.root, &touched)
                });
                told.or_else(|reason| {
                    tracing::debug!(layer = %id, %reason, "both trees are walked");
                    cow::diff::trees(Some(&lower.root), &upper.root)
                })?
            }
        };
        Ok(Compared { changes, root: upper.root, held: upper.held, own })
    }

    /// What was written in a layer, and how many bytes of the pool that takes.
    ///
    /// # Errors
    /// Whatever makes it uncertain that nothing else was.
    fn written(
        &self,
        id: &LayerId,
        below: &LayerId,
        upper: &Tree<'_>,
        lower: &Tree<'_>,
    ) -> Result<(Touched, u64)> {
        self.require_dated(id, below)?;
        match self.volumes.fs {
            FileSystem::Ext4 => self.written_in::<Ext4>(id, upper, lower),
            FileSystem::Xfs => self.written_in::<Xfs>(id, upper, lower),
        }
    }

    fn written_in<F: Format>(
        &self,
        id: &LayerId,
        upper: &Tree<'_>,
        lower: &Tree<'_>,
    ) -> Result<(Touched, u64)> {
        let (Some(above), Some(below)) = (upper.steady, lower.steady) else {
            return Err(unsure("it may be in use"));
        };
        let open = |thin: Thin| F::open(dm::node(&self.pool.device_name(thin.id)));
        let (upper_fs, lower_fs) = (open(above)?, open(below)?);
        upper_fs.compare(&lower_fs)?;
        if above.size != below.size {
            return Err(unsure("it was enlarged"));
        }
        let mut places = Places::new(upper_fs.places()?, upper_fs.inode_size());
        let mut own = 0;
        self.parts([below.id, above.id], |part, is_above| {
            if is_above {
                own += part.end - part.start;
            }
            places.touch(part);
        })?;
        let found = inodes::compare(&lower_fs, &upper_fs, places)?;
        let numbers = (upper_fs.root(), upper_fs.per_group());
        let names = names::find(&upper.root, &found.inodes, numbers)?;
        tracing::debug!(
            layer = %id,
            inodes = found.looked_at,
            written = found.inodes.len(),
            directories = names.directories,
            "compared what was written"
        );
        let touched = Touched { inodes: found.inodes.into_keys().collect(), names: names.ways };
        Ok((touched, own))
    }

    /// Sees that no layer from `id` down to the one above `below` was mended without a date.
    fn require_dated(&self, id: &LayerId, below: &LayerId) -> Result<()> {
        let mut id = id.clone();
        while id != *below {
            let meta = self.meta(&id)?;
            if meta.state != State::View && self.device(&id)?.mended {
                return Err(unsure("it was mended"));
            }
            id = meta.parent.clone().ok_or_else(|| unsure("one is not made of the other"))?;
        }
        Ok(())
    }

    /// The bytes of the pool that a device does not share with the one that it is a snapshot of.
    pub(super) fn own_bytes(&self, origin: ThinId, id: ThinId) -> Result<u64> {
        let mut own = 0;
        self.parts([origin, id], |part, is_above| {
            if is_above {
                own += part.end - part.start;
            }
        })?;
        Ok(own)
    }

    /// What a device shows that takes no writes.
    fn sealed(&self, thin: Thin) -> Result<Tree<'_>> {
        let held = self.devices.hold(thin, Use::Read)?;
        let root = self.volumes.open(&held.name, Shown::Sealed)?;
        Ok(Tree { steady: Some(thin), root, held: Box::new(held) })
    }

    /// What an active layer shows at this instant, which is wholly on its device: the file system is
    /// frozen for the moment in which the snapshot of it is made.
    fn frozen(&self, meta: &Meta) -> Result<Tree<'_>> {
        let origin = self.shown(meta)?.0;
        let lent = self.snapshot(origin)?;
        let thin = Thin { id: lent.id, ..origin };
        // Only a mount that may write puts the log of a frozen xfs in place.
        let (how, shown) = match self.volumes.fs {
            FileSystem::Ext4 => (Use::Read, Shown::Sealed),
            FileSystem::Xfs => (Use::Write, Shown::Writable),
        };
        let held = self.devices.hold(thin, how)?;
        let root = self.volumes.open(&held.name, shown)?;
        Ok(Tree { steady: Some(thin), root, held: Box::new((held, lent)) })
    }

    /// A snapshot of an active layer's device.
    ///
    /// # Errors
    /// `NoSpace` when the pool is full or nearly so: what is to be frozen might have to wait for space, or
    /// come to harm.
    pub(super) fn snapshot(&self, thin: Thin) -> Result<Lent<'_>> {
        self.pool.require_room("make snapshot", self.growth.spare())?;
        let held = self.devices.hold(thin, Use::Write)?;
        let root = self.volumes.open(&held.name, Shown::Look)?;
        // So that little is left to be written while it is frozen.
        volume::sync(&root)?;
        Lent::snapshot(&self.pool, thin.id)
    }

    /// Gives each part in which the two devices are not the same blocks, in bytes, and whether the second
    /// has any there.
    fn parts(
        &self,
        devices: [ThinId; 2],
        each: impl FnMut(std::ops::Range<u64>, bool),
    ) -> Result<()> {
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

fn unsure(reason: &str) -> Error {
    Error::refused("compare devices", "", reason.to_owned(), ErrorKind::Unsupported)
}

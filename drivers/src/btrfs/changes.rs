//! How a layer differs from one below it, and what space it takes by itself.

use std::os::fd::AsFd;

use cow::diff::Touched;
use cow::root::Root;

use super::quota::Taken;
use super::{Btrfs, RO, since, subvolume};
use crate::backend::Difference;
use crate::driver::{State, Usage};
use crate::error::ErrorKind;
use crate::home::meta::Meta;
use crate::home::{Layer, Scratch, fs};
use subvolume::Writable;

impl Btrfs {
    /// A layer's tree as it is at one instant, kept as long as what comes with it.
    ///
    /// An active layer may be written to meanwhile, and parts of its inodes are in memory only; so a
    /// snapshot of it is taken, which is both steady and written out. A layer with subvolumes inside
    /// is shown itself: a snapshot would not have them.
    pub(super) fn steady(&self, layer: &Layer) -> cow::Result<(Root, Option<Scratch<'_>>)> {
        let tree = self.tree(layer)?;
        if layer.state() != State::Active || subvolume::has_nested(&tree)? {
            return Ok((tree, None));
        }
        let scratch = self.home.scratch(layer.id.as_str())?;
        subvolume::snapshot(&tree, scratch.dir(), RO, Writable::No)?;
        let steady = fs::open_dir(scratch.dir(), RO)?;
        Ok((Root::from_fd(steady, tree.label()), Some(scratch)))
    }

    /// Compares what a layer shows with what one below it shows, or with nothing.
    pub(super) fn compare(
        &self,
        top: &Layer,
        below: Option<&Layer>,
    ) -> cow::Result<Difference<'_>> {
        let (upper, held) = self.steady(top)?;
        let lower = below.map(|layer| self.tree(layer)).transpose()?;
        let written = match (&lower, below) {
            (Some(lower), Some(below)) => self.written(top, &upper, below, lower)?,
            _ => None,
        };
        let changes = match (&lower, &written) {
            (Some(lower), Some(written)) => cow::diff::touched(lower, &upper, written)?,
            (lower, _) => cow::diff::trees(lower.as_ref(), &upper)?,
        };
        let held = held.map(|held| Box::new(held) as Box<_>);
        Ok(Difference { changes, roots: vec![upper], held })
    }

    /// What was written in a layer since one below it; none if that cannot be told, and both must
    /// be walked.
    fn written(
        &self,
        top: &Layer,
        upper: &Root,
        below: &Layer,
        lower: &Root,
    ) -> cow::Result<Option<Touched>> {
        if !self.may_search || !self.descends(top, below)? || subvolume::has_nested(upper)? {
            return Ok(None);
        }
        since::written(upper, subvolume::info(lower)?.made_in).map(Some)
    }

    /// Whether a layer came from one below it by snapshots in this file system. In a copy of a store
    /// the numbers of transactions mean nothing, and the identities of its subvolumes tell.
    fn descends(&self, top: &Layer, below: &Layer) -> cow::Result<bool> {
        let mut meta = top.meta();
        loop {
            let Some(parent) = meta.parent.clone() else { return Ok(false) };
            let tree = self.home.open_in_layer(&parent, RO)?;
            if meta.origin != Some(subvolume::info(tree)?.uuid) {
                return Ok(false);
            }
            if parent == below.id {
                return Ok(true);
            }
            let Ok(layer) = self.home.layer(self.home.call("diff", &parent)) else {
                return Ok(false);
            };
            meta = layer.meta();
        }
    }

    /// The space that a layer takes by itself, in a tree of it that nobody writes to. `begun` is the
    /// transaction from which on its own tree was written: what is older came from below, or is shared
    /// with other layers.
    pub(super) fn measure_tree(&self, meta: &Meta, tree: Root, begun: u64) -> cow::Result<Usage> {
        if self.may_search && self.has_history(meta, &tree)? {
            return since::usage(&tree, begun.saturating_sub(1));
        }
        let usage = cow::usage::usage(&tree)?;
        Ok(Usage { bytes: usage.bytes, inodes: usage.inodes, content: usage.content })
    }

    /// What a layer takes, read from its tree where nothing accounts for it. `made_in` is the transaction in
    /// which the tree was made; that of a committed layer has been measured.
    pub(super) fn measured(&self, meta: &Meta, tree: &Root, made_in: u64) -> Option<Taken> {
        if !self.may_search || !self.has_history(meta, tree).ok()? {
            return None;
        }
        let found = since::referenced(tree, made_in.saturating_sub(1)).ok()?;
        let exclusive = meta.usage.map_or(found.own, |usage| usage.bytes);
        Some(Taken { referenced: found.all, exclusive, limit: None })
    }

    /// The transaction from which on what is written in a layer's own tree is the layer's.
    pub(super) fn begun(meta: &Meta, tree: impl AsFd) -> cow::Result<u64> {
        match meta.begun {
            Some(begun) => Ok(begun),
            None => Ok(subvolume::info(tree)?.made_in),
        }
    }

    /// Whether all that a layer wrote is in its own subvolume, with numbers of this file system.
    fn has_history(&self, meta: &Meta, tree: &Root) -> cow::Result<bool> {
        if meta.state == State::Active && subvolume::has_nested(tree)? {
            return Ok(false);
        }
        let Some(parent) = &meta.parent else { return Ok(true) };
        match self.home.open_in_layer(parent, RO) {
            Ok(parent) => Ok(meta.origin.as_ref() == Some(&subvolume::info(parent)?.uuid)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

//! How layers become immutable and durable.
//!
//! The order is what makes a crash harmless: first all data of the layers is on the disk (one
//! syncfs for however many layers), together with the new metadata files under their temporary
//! name; only then the renames make the layers committed, bottom to top; at last their directories
//! are synced. A power cut at any point leaves each layer active or committed, and a committed one
//! whole.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::fs::{self, Durability};
use super::meta::Meta;
use super::{Home, Layer, META, NEXT_META};
use crate::call::HomeCall;
use crate::driver::{LayerInfo, LayerRecord, State, Usage};
use crate::error::{ErrorKind, Result};
use crate::id::LayerId;

/// How a driver commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Whether a layer can be given its parent now.
    pub(crate) rebase: bool,
    /// What makes the layers durable.
    pub(crate) flush: Flush,
}

/// What is synced before the layers become committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// The whole file system, once.
    FileSystem,
    /// The metadata files alone: the driver has seen to the data when it put it in its final form.
    Metadata,
}

/// One layer of a batch on its way to commit.
#[derive(Debug)]
pub(crate) struct Sealing<'a> {
    /// The layer, whose gate is owned.
    pub(crate) layer: &'a Layer,
    /// Its metadata as it will be; the parent is already the final one.
    pub(crate) meta: Meta,
    /// The layers below it, the uppermost first. They may be of the same batch.
    pub(crate) lowers: Vec<Arc<Layer>>,
}

impl Home {
    /// Commits a batch of layers, parents before children.
    ///
    /// `finish` is called for each in turn, to put the layer's data in its final form and measure
    /// it. After an error before the renames, all layers of the batch are as active as before.
    pub(crate) fn commit(
        &self,
        batch: &[(LayerId, LayerRecord)],
        manner: Manner,
        mut finish: impl FnMut(&Sealing<'_>) -> Result<Usage>,
    ) -> Result<Vec<LayerInfo>> {
        let mut layers: Vec<Arc<Layer>> = Vec::with_capacity(batch.len());
        for (id, _) in batch {
            let call = self.call("commit", id);
            if layers.iter().any(|layer| layer.id == *id) {
                return Err(call.refused(ErrorKind::InvalidArgument, "named twice in one commit"));
            }
            layers.push(self.layer(call)?);
        }
        let mut gates = Vec::with_capacity(batch.len());
        let mut claims = Vec::new();
        let mut sealed: Vec<(&Layer, Meta, OwnedFd)> = Vec::with_capacity(batch.len());
        for (at, (layer, (_, record))) in layers.iter().zip(batch).enumerate() {
            let call = self.call("commit", &layer.id);
            gates.push(layer.own(call)?);
            let mut meta = self.check_active(layer)?;
            let lowers = match self.new_parent(&meta, record, manner.rebase)? {
                Some(parent) => {
                    claims.push(self.index.adopt(call, parent, &layers[..at])?);
                    meta.parent = Some(parent.clone());
                    self.lowers_in_batch(parent, &sealed)?
                }
                None => match &meta.parent {
                    Some(parent) => self.stack(call, parent)?,
                    None => Vec::new(),
                },
            };
            meta.record = record.clone();
            meta.record.parent = None;
            let mut sealing = Sealing { layer, meta, lowers };
            let usage = finish(&sealing)?;
            sealing.meta.usage = Some(usage);
            sealing.meta.state = State::Committed;
            sealing.meta.implicit = Vec::new();
            let dir =
                self.stage_meta(&sealing, manner.flush).map_err(|error| call.failed(error))?;
            sealed.push((layer, sealing.meta, dir));
        }
        self.publish(sealed, manner.flush)?;
        for claim in claims {
            claim.confirm();
        }
        Ok(layers.iter().map(|layer| layer.meta().info()).collect())
    }

    /// Sees that a layer can be committed.
    fn check_active(&self, layer: &Layer) -> Result<Meta> {
        let call = self.call("commit", &layer.id);
        let meta = Meta::clone(&layer.meta());
        let mut mounted = layer.mounted();
        mounted.settle();
        let reason = match meta.state {
            State::Active if mounted.count == 0 => return Ok(meta),
            State::Active => "the layer is mounted",
            State::View => "a view cannot be committed",
            State::Committed => "the layer is committed already",
        };
        Err(call.refused(ErrorKind::FailedPrecondition, reason))
    }

    /// The parent that a layer gets only now, if any.
    fn new_parent<'a>(
        &self,
        meta: &Meta,
        record: &'a LayerRecord,
        rebase: bool,
    ) -> Result<Option<&'a LayerId>> {
        let Some(parent) = &record.parent else { return Ok(None) };
        let call = self.call("commit", &meta.id);
        match &meta.parent {
            Some(present) if present == parent => Ok(None),
            Some(present) => {
                let reason = format!("the layer stands on {present}, not on {parent}");
                Err(call.refused(ErrorKind::InvalidArgument, reason))
            }
            None if *parent == meta.id => {
                Err(call.refused(ErrorKind::InvalidArgument, "a layer cannot be its own parent"))
            }
            None if rebase => Ok(Some(parent)),
            None => {
                let reason = "this driver cannot give a layer a parent at commit";
                Err(call.refused(ErrorKind::InvalidArgument, reason))
            }
        }
    }

    /// The stack from `top` down, where the layers of the batch have the parents they will have.
    fn lowers_in_batch(
        &self,
        top: &LayerId,
        sealed: &[(&Layer, Meta, OwnedFd)],
    ) -> Result<Vec<Arc<Layer>>> {
        let call = self.call("commit", top);
        let mut lowers = Vec::new();
        let mut next = Some(top.clone());
        while let Some(id) = next {
            match sealed.iter().find(|(layer, ..)| layer.id == id) {
                Some((_, meta, _)) => {
                    lowers.push(self.layer(self.call("commit", &id))?);
                    next = meta.parent.clone();
                }
                None => {
                    lowers.extend(self.stack(call, &id)?);
                    next = None;
                }
            }
        }
        Ok(lowers)
    }

    /// Writes the metadata under its temporary name, to be synced with the data.
    fn stage_meta(&self, sealing: &Sealing<'_>, flush: Flush) -> cow::Result<OwnedFd> {
        let dir = fs::open_dir(&self.layers, &sealing.layer.id)?;
        let durability = match flush {
            Flush::FileSystem => Durability::Later,
            Flush::Metadata => Durability::Now,
        };
        fs::write_file(&dir, NEXT_META, &sealing.meta.to_bytes()?, durability)?;
        Ok(dir)
    }

    /// Syncs what is left to sync and makes the layers committed.
    fn publish(&self, sealed: Vec<(&Layer, Meta, OwnedFd)>, flush: Flush) -> Result<()> {
        let call = HomeCall { driver: self.driver, op: "commit" };
        if flush == Flush::FileSystem {
            self.syncs
                .sync(|| rustix::fs::syncfs(&self.root))
                .map_err(|errno| call.sys("syncfs", "", errno))?;
        }
        for (layer, _, dir) in &sealed {
            fs::rename(dir, NEXT_META, dir, META)
                .map_err(|error| self.call("commit", &layer.id).failed(error))?;
        }
        // The first sync writes out the journal with all of the renames; the others find it done.
        for (layer, meta, dir) in sealed {
            fs::sync_dir(&dir).map_err(|error| self.call("commit", &layer.id).failed(error))?;
            layer.set_meta(meta);
        }
        Ok(())
    }
}

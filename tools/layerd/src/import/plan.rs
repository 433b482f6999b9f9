//! What an import has to do: which layers are there, and which are to be applied.

use std::collections::{BTreeMap, BTreeSet};

use cow::digest::{ChainId, DiffId};
use drivers::LayerId;
use image::Config;

use super::{Import, ImportProgress, LayerState};
use crate::catalogue::Lookup as _;
use crate::error::Result;
use crate::image_files;
use crate::store::claims::{Claim, Pin};

/// One image of the source.
pub(super) struct Found {
    /// Its full names.
    pub(super) names: Vec<String>,
    /// Its stacks of layers, bottom to top.
    pub(super) chains: Vec<ChainId>,
    /// Its config.
    pub(super) config: Config,
}

/// One layer that is to be applied.
pub(super) struct Job {
    pub(super) chain: ChainId,
    pub(super) diff_id: DiffId,
    /// The stack below.
    pub(super) parent: Option<ChainId>,
    /// The layer below in the driver, where it is committed already.
    pub(super) below: Option<LayerId>,
    /// Where it is read.
    pub(super) layer: image::Layer,
}

/// What there is to do for the images of one source.
pub(super) struct Plan<'a> {
    pub(super) images: Vec<Found>,
    /// Parents before children.
    pub(super) jobs: Vec<Job>,
    /// Whoever lacks the same layers waits until these are dropped.
    _claims: Vec<Claim<'a, (String, ChainId)>>,
    /// Layers that are there are kept.
    _pins: Vec<Pin<'a>>,
}

impl<'a> Plan<'a> {
    /// Looks what is there, and claims what is not.
    ///
    /// All claims of an import are taken here and in the order of the chains, so that no two imports
    /// wait for each other. What another import was at work on is there afterwards, or is ours.
    pub(super) fn new(import: &Import<'a>, images: &[image::Image]) -> Result<Self> {
        let driver = import.driver.name();
        let images: Vec<(Found, &[image::Layer])> = images
            .iter()
            .filter_map(|image| {
                let config = image.config.clone()?;
                let names = image.names.iter().map(ToString::to_string).collect();
                let chains = image_files::chains(&config);
                Some((Found { names, chains, config }, image.layers.as_slice()))
            })
            .collect();
        let all: BTreeSet<ChainId> =
            images.iter().flat_map(|(found, _)| found.chains.iter().copied()).collect();
        let pins = all.iter().map(|chain| import.pin(chain)).collect();
        let rows = import.store.catalogue.read()?;
        let mut claims = Vec::new();
        for chain in &all {
            if rows.layer(driver, chain)?.is_none() {
                claims.push(import.store.in_flight.claim((driver.to_owned(), *chain)));
            }
        }
        drop(rows);
        let mut present = BTreeMap::new();
        let rows = import.store.catalogue.read()?;
        for chain in all {
            if let Some(row) = rows.layer(driver, &chain)? {
                present.insert(chain, row.layer);
            }
        }
        let mut jobs: Vec<Job> = Vec::new();
        for (found, layers) in &images {
            add_jobs(import, found, layers, &present, &mut jobs);
        }
        let images = images.into_iter().map(|(found, _)| found).collect();
        Ok(Self { images, jobs, _claims: claims, _pins: pins })
    }
}

/// Adds what one image lacks, bottom to top, and tells of what it has.
fn add_jobs(
    import: &Import<'_>,
    found: &Found,
    layers: &[image::Layer],
    present: &BTreeMap<ChainId, LayerId>,
    jobs: &mut Vec<Job>,
) {
    let diff_ids = &found.config.image().rootfs.diff_ids;
    let mut parent: Option<ChainId> = None;
    for ((chain, diff_id), layer) in found.chains.iter().zip(diff_ids).zip(layers) {
        if present.contains_key(chain) {
            (import.progress)(ImportProgress::Layer {
                index: layer.index(),
                diff_id: Some(*diff_id),
                read: 0,
                total: layer.size(),
                state: LayerState::Exists,
            });
        } else if !jobs.iter().any(|job| job.chain == *chain) {
            let below = parent.as_ref().and_then(|parent| present.get(parent)).cloned();
            let (chain, diff_id, layer) = (*chain, *diff_id, layer.clone());
            jobs.push(Job { chain, diff_id, parent, below, layer });
        }
        parent = Some(*chain);
    }
}

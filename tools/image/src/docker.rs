//! The images of a docker-archive, as `docker save` writes it.
//!
//! `manifest.json` lists the images with the entries of their configs and layers (moby
//! `image/tarexport`). Layers are plain tars, or links to others' `layer.tar`; some writers compress
//! them. Docker 25 and later also make the archive an OCI layout: `manifest.json` then names the same
//! blobs, and the names of images are its alone.

use std::sync::Arc;

use cow::digest::Digest;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::image::{Image, check_layers};
use crate::layer::Layer;
use crate::manifest::DockerImage;
use crate::reference::Reference;
use crate::store::{Budget, Store};
use crate::stream::Promise;

/// The entry that makes a tar a docker-archive.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The most images of one archive.
const MAX_IMAGES: usize = 1024;

/// Reads all images.
pub(crate) fn images(store: &Arc<Store>) -> Result<Vec<Image>> {
    let at = || store.place(MANIFEST);
    let mut budget = Budget::default();
    let raw = store.document(MANIFEST, &mut budget)?;
    let listed: Vec<DockerImage> =
        serde_json::from_slice(&raw).map_err(|source| Error::Json { at: at(), source })?;
    if listed.is_empty() || listed.len() > MAX_IMAGES {
        let reason = format!("it lists {} images, not 1 to 1,024", listed.len());
        return Err(Error::corrupt("read manifest", at(), reason));
    }
    listed.into_iter().map(|image| load(store, image, &mut budget)).collect()
}

fn load(store: &Arc<Store>, listed: DockerImage, budget: &mut Budget) -> Result<Image> {
    let names = listed
        .repo_tags
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<Reference>>>()
        .map_err(|error| {
            Error::corrupt("read manifest", store.place(MANIFEST), error.to_string())
        })?;
    let raw = match promised_digest(&listed.config) {
        Some(digest) => store.verified(&listed.config, digest, budget)?,
        None => store.document(&listed.config, budget)?,
    };
    let config = Config::parse(raw, store.place(&listed.config))?;
    let diff_ids = &config.image().rootfs.diff_ids;
    check_layers(diff_ids.len(), listed.layers.len(), store.place(&listed.config))?;
    let layers = diff_ids
        .iter()
        .zip(&listed.layers)
        .enumerate()
        .map(|(index, (diff_id, name))| {
            let promise = Promise { diff_id: Some(*diff_id), ..Promise::default() };
            Layer::locate(store, index, name, promise, None)
        })
        .collect::<Result<_>>()?;
    Ok(Image {
        names,
        platform: config.image().platform(),
        config: Some(config),
        manifest: None,
        layers,
    })
}

/// The digest that the name of a config promises: `<hex>.json` or `blobs/sha256/<hex>`.
fn promised_digest(name: &str) -> Option<Digest> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let hex = file.strip_suffix(".json").unwrap_or(file);
    format!("sha256:{hex}").parse().ok()
}

//! What a source holds: images of a config and layers.

use cow::digest::Digest;

use crate::config::Config;
use crate::error::{Error, Place, Result};
use crate::layer::Layer;
use crate::platform::Platform;
use crate::reference::Reference;

/// One image, found and cross-checked; its layers are not read yet.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its names; empty where the source gives none.
    pub names: Vec<Reference>,
    /// Its config, whose digest is the image's id; none for a root file system, which gets one
    /// from [`Config::for_rootfs`] when its layer has been read.
    pub config: Option<Config>,
    /// The digest of its manifest, where it has one.
    pub manifest: Option<Digest>,
    /// What it runs on.
    pub platform: Platform,
    /// Its layers, bottom to top.
    pub layers: Vec<Layer>,
}

/// Makes sure that a manifest lists as many layers as the config has diffIDs.
pub(crate) fn check_layers(diff_ids: usize, layers: usize, config: Place) -> Result<()> {
    if diff_ids == layers {
        return Ok(());
    }
    let reason = format!("it has {diff_ids} diffIDs, but the manifest lists {layers} layers");
    Err(Error::corrupt("read config", config, reason))
}

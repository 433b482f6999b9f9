//! The files of the images: what is known of an image apart from the catalogue.
//!
//! `images/<hex>/config.json` is the config as it was imported; its digest is the image's id and the
//! directory's name. `image.json` holds what is not in the config. A directory appears whole, by a
//! rename, and goes by a rename; only `image.json` is ever rewritten.

use std::collections::BTreeSet;
use std::path::Path;

use cow::digest::{ChainId, Digest};
use image::{Config, Place};
use rustix::fs::{self, Mode};
use serde::{Deserialize, Serialize};

use crate::catalogue::Image;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::root::write_whole;
use crate::root::{IMAGES, Root, TMP, exists, names, open_dir, read_opt, remove_all, to_json};

const CONFIG: &str = "config.json";
const META: &str = "image.json";

/// The contents of `image.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageMeta {
    /// Full names.
    pub(crate) names: BTreeSet<String>,
    /// The drivers that keep its layers, the default one first.
    pub(crate) drivers: Vec<String>,
    /// When it came into the store.
    pub(crate) imported: Timestamp,
    /// When this file was written: of two images that both claim a name after a crash, the later
    /// one has it.
    pub(crate) written: Timestamp,
}

/// Parses the bytes of a config that lies in the store.
///
/// # Errors
/// `Corrupt` where it is no image config.
pub(crate) fn parse(bytes: Vec<u8>, id: &Digest) -> Result<Config> {
    let at = Place::inside(Path::new(IMAGES).join(id.hex()), CONFIG);
    Config::parse(bytes, at).map_err(|source| Error::Image { op: "read image", source })
}

/// The stacks of the layers of a config, bottom to top.
pub(crate) fn chains(config: &Config) -> Vec<ChainId> {
    let mut chains: Vec<ChainId> = Vec::new();
    for diff in &config.image().rootfs.diff_ids {
        chains.push(chains.last().map_or_else(|| ChainId::base(diff), |below| below.push(diff)));
    }
    chains
}

/// The catalogue's row of an image whose layers hold `size` bytes.
pub(crate) fn row(meta: &ImageMeta, config: &Config, size: u64) -> Image {
    Image {
        id: config.digest(),
        names: meta.names.clone(),
        drivers: meta.drivers.clone(),
        layers: chains(config),
        created: config.image().created.clone(),
        imported: meta.imported,
        platform: config.image().platform().to_string(),
        labels: config.image().config.labels.clone(),
        size,
    }
}

/// The names of the directories of images; each should be 64 hexadecimal digits.
pub(crate) fn list(root: &Root) -> Result<Vec<String>> {
    if !exists(root, IMAGES)? {
        return Ok(Vec::new());
    }
    names(root.subdir(IMAGES)?, IMAGES)
}

/// The id that a directory's name means.
pub(crate) fn id_of_dir(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

/// Reads an image's config and proves it by its digest.
///
/// # Errors
/// `NotFound` without the file, `Corrupt` when the bytes are not those of the digest.
pub(crate) fn config(root: &Root, id: &Digest) -> Result<Vec<u8>> {
    let dir = open_dir(root.subdir(IMAGES)?, &id.hex())?;
    let missing = || Error::not_found("read config of image", id.to_string());
    let bytes = read_opt(dir, CONFIG)?.ok_or_else(missing)?;
    let found = Digest::of(&bytes);
    if found != *id {
        let reason = format!("the digest of {CONFIG} is {found}");
        let what = id.to_string();
        return Err(Error::refused("read config of image", what, reason, ErrorKind::Corrupt));
    }
    Ok(bytes)
}

/// Reads an image's `image.json`; none if there is none or it cannot be understood.
pub(crate) fn meta(root: &Root, id: &Digest) -> Result<Option<ImageMeta>> {
    let dir = open_dir(root.subdir(IMAGES)?, &id.hex())?;
    let bytes = read_opt(dir, META)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Writes what the catalogue knows of an image into its `image.json`, durably.
pub(crate) fn write_meta(root: &Root, image: &Image) -> Result<()> {
    let dir = open_dir(root.subdir(IMAGES)?, &image.id.hex())?;
    write_whole(dir, META, &meta_bytes(image)?)
}

fn meta_bytes(image: &Image) -> Result<Vec<u8>> {
    let meta = ImageMeta {
        names: image.names.clone(),
        drivers: image.drivers.clone(),
        imported: image.imported,
        written: Timestamp::now(),
    };
    to_json(&meta, META)
}

/// Writes the files of a new image, or those of an image that exists anew; durably and whole.
pub(crate) fn create(root: &Root, image: &Image, config: &[u8]) -> Result<()> {
    let hex = image.id.hex();
    let images = root.subdir(IMAGES)?;
    if exists(&images, &hex)? {
        if self::config(root, &image.id).is_err() {
            write_whole(open_dir(&images, &hex)?, CONFIG, config)?;
        }
        return write_meta(root, image);
    }
    let tmp = root.subdir(TMP)?;
    remove_all(&tmp, &hex)?;
    fs::mkdirat(&tmp, &hex, Mode::RWXU).map_err(|e| Error::sys("mkdirat", &hex, e))?;
    let made = fill(&tmp, &hex, image, config).and_then(|()| {
        fs::renameat(&tmp, &hex, &images, &hex)
            .and_then(|()| fs::fsync(&images))
            .map_err(|e| Error::sys("renameat", &hex, e))
    });
    if made.is_err() {
        let _ = remove_all(&tmp, &hex);
    }
    made
}

fn fill(tmp: impl std::os::fd::AsFd, hex: &str, image: &Image, config: &[u8]) -> Result<()> {
    let dir = open_dir(tmp, hex)?;
    write_whole(&dir, CONFIG, config)?;
    write_whole(&dir, META, &meta_bytes(image)?)
}

/// Removes a directory of image files; from the rename on the image is gone.
pub(crate) fn remove(root: &Root, name: &str) -> Result<()> {
    let (images, tmp) = (root.subdir(IMAGES)?, root.subdir(TMP)?);
    remove_all(&tmp, name)?;
    match fs::renameat(&images, name, &tmp, name) {
        Ok(()) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(Error::sys("renameat", name, error)),
    }
    fs::fsync(&images).map_err(|e| Error::sys("fsync", IMAGES, e))?;
    remove_all(&tmp, name)
}

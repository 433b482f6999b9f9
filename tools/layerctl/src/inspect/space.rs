//! What an image's layers store, and how much of it is to no purpose.

use std::collections::HashMap;

use cow::digest::Digest;
use cow::stack::Waste;
use serde::Serialize;

use super::{Contents, Subject, path_text};

/// The space of one image, layer or container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Space {
    /// Bytes of file content that the layers store, a file with several names once.
    pub(crate) stored: u64,
    /// Bytes of file content that the merged tree shows.
    pub(crate) visible: u64,
    /// Bytes that no name in the merged tree shows: overwritten or deleted by later layers.
    pub(crate) wasted: u64,
    /// Bytes of visible files whose content another visible file has as well.
    pub(crate) duplicate: u64,
    /// The part of what is stored that is seen: 1 for an image without waste.
    pub(crate) efficiency: f64,
    /// The wasted bytes as a part of what the layers above the lowest store.
    pub(crate) wasted_of_upper: f64,
    /// Each layer, the lowest first.
    pub(crate) layers: Vec<LayerSpace>,
    /// Wasted files, the largest first.
    pub(crate) wasted_files: Vec<WastedFile>,
    /// Contents that are stored more than once, the largest first.
    pub(crate) duplicates: Vec<Duplicate>,
}

/// One layer's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LayerSpace {
    /// The layer, 1 at the bottom.
    pub(crate) layer: usize,
    /// Bytes that it stores.
    pub(crate) stored: u64,
    /// How much of that is wasted.
    pub(crate) wasted: u64,
}

/// One wasted file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct WastedFile {
    /// The path in its layer.
    pub(crate) path: String,
    /// The layer that stores it, 1 at the bottom.
    pub(crate) layer: usize,
    /// Its bytes.
    pub(crate) bytes: u64,
    /// The layer that made it useless.
    pub(crate) hidden_by: usize,
    /// `deleted` or `overwritten`.
    pub(crate) why: &'static str,
}

/// One content that several visible files have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Duplicate {
    /// The digest of the content.
    pub(crate) sha256: String,
    /// The length of one.
    pub(crate) size: u64,
    /// Bytes that one copy would save.
    pub(crate) bytes: u64,
    /// The files, names of one file only once.
    pub(crate) paths: Vec<String>,
}

impl Space {
    /// Measures a subject.
    pub(crate) fn of(subject: &Subject) -> anyhow::Result<Self> {
        let stack = subject.stack(Contents::Digest)?;
        let waste = Waste::of(stack);
        let layers = waste.layers.iter().enumerate();
        let layers = layers
            .map(|(at, layer)| LayerSpace {
                layer: at + 1,
                stored: layer.bytes,
                wasted: layer.wasted,
            })
            .collect::<Vec<_>>();
        let wasted_files = waste.files.iter().map(|file| WastedFile {
            path: stack.row(file.place).map(|row| path_text(row.path_bytes())).unwrap_or_default(),
            layer: file.place.layer() + 1,
            bytes: file.bytes,
            hidden_by: file.hidden_by + 1,
            why: if file.deleted { "deleted" } else { "overwritten" },
        });
        let (stored, wasted) = (waste.bytes(), waste.wasted());
        let upper: u64 = layers.iter().skip(1).map(|layer| layer.stored).sum();
        let duplicates = duplicates(subject)?;
        Ok(Self {
            stored,
            visible: stored - wasted,
            wasted,
            duplicate: duplicates.iter().map(|duplicate| duplicate.bytes).sum(),
            efficiency: 1.0 - part(wasted, stored),
            wasted_of_upper: part(wasted, upper),
            layers,
            wasted_files: wasted_files.collect(),
            duplicates,
        })
    }
}

/// A part of a whole; of nothing, nothing is a part.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people and thresholds")]
fn part(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return if part == 0 { 0.0 } else { 1.0 };
    }
    part as f64 / whole as f64
}

/// Contents that several files of the merged tree have. Names of one file are one file.
fn duplicates(subject: &Subject) -> anyhow::Result<Vec<Duplicate>> {
    let tree = subject.tree(Contents::Digest)?;
    let mut seen = std::collections::HashSet::new();
    let mut files: HashMap<&Digest, (u64, Vec<&[u8]>)> = HashMap::new();
    for file in tree.files().filter(|file| file.facts.is_file() && file.facts.size() > 0) {
        let Some(digest) = file.facts.digest() else { continue };
        if seen.insert((file.stored.layer(), file.facts.inode())) {
            let known = files.entry(digest).or_insert_with(|| (file.facts.stored(), Vec::new()));
            known.1.push(file.path);
        }
    }
    let several = files.into_iter().filter(|(_, (_, paths))| paths.len() > 1);
    let mut found: Vec<_> = several
        .map(|(digest, (size, paths))| Duplicate {
            sha256: digest.hex(),
            size,
            bytes: size * (paths.len() as u64 - 1),
            paths: paths.into_iter().map(path_text).collect(),
        })
        .collect();
    found.sort_unstable_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.paths.cmp(&b.paths)));
    Ok(found)
}

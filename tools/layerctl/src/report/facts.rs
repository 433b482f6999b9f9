//! What a report says.

use std::collections::HashSet;

use cow::stack::Waste;
use serde::Serialize;

use super::changes::{self, Changes};
use super::kinds::{FileType, Types};
use super::sizes::{self, Node};
use crate::commands::history::{self, StepReport};
use crate::inspect::{Contents, Duplicate, Kind, Space, Step, Subject, WastedFile};

/// How many nodes the map of directories has.
const DIR_NODES: usize = 3000;
/// How many the map of layers has, where each file is stored and not only what is seen.
const LAYER_NODES: usize = 3000;

/// All that is known of an image, layer or container.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// What it is.
    pub(crate) kind: Kind,
    /// How people call it.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: Option<String>,
    /// When it was made, RFC 3339.
    pub(crate) created: Option<String>,
    /// `os/arch[/variant]`.
    pub(crate) platform: Option<String>,
    /// Bytes of file content that the layers store, a file with several names once.
    pub(crate) stored: u64,
    /// Bytes of file content that are seen.
    pub(crate) visible: u64,
    /// Bytes that later layers overwrite or delete.
    pub(crate) wasted: u64,
    /// Bytes of seen files whose content another one has as well.
    pub(crate) duplicate: u64,
    /// The part of what is stored that is seen.
    pub(crate) efficiency: f64,
    /// Files that are seen and no directories, names of one file once.
    pub(crate) files: u64,
    /// Directories that are seen.
    pub(crate) dirs: u64,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<LayerReport>,
    /// Wasted files, the largest first.
    pub(crate) wasted_files: Vec<WastedFile>,
    /// Contents that are there more than once, what costs the most first.
    pub(crate) duplicates: Vec<Duplicate>,
    /// The seen files by the ends of their names, the most bytes first.
    pub(crate) types: Vec<FileType>,
    /// The steps of the build, the first first.
    pub(crate) history: Vec<StepReport>,
    /// What is seen, by directory.
    #[serde(skip)]
    pub(super) by_dir: Node,
    /// What is stored, by layer.
    #[serde(skip)]
    pub(super) by_layer: Node,
}

/// One layer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LayerReport {
    /// The place in the image, 1 at the bottom.
    pub(crate) number: usize,
    /// The digest of the uncompressed tar.
    pub(crate) diff_id: Option<String>,
    /// The identity of the stack with this layer on top.
    pub(crate) chain_id: Option<String>,
    /// The step that made it.
    pub(crate) step: Option<Step>,
    /// Bytes that it stores.
    pub(crate) stored: u64,
    /// How much of that is wasted.
    pub(crate) wasted: u64,
    /// What it did to the files below it.
    #[serde(flatten)]
    pub(crate) changes: Changes,
}

impl Report {
    /// Gathers it. Contents are read, for their digests.
    pub(crate) fn of(subject: &Subject) -> anyhow::Result<Self> {
        let space = Space::of(subject)?;
        let stack = subject.stack(Contents::Digest)?;
        let tree = subject.tree(Contents::Digest)?;
        let waste = Waste::of(stack);
        let places = waste.files.iter().map(|file| (file.place.layer(), file.place.row()));
        let wasted: HashSet<_> = places.collect();
        let layers = subject.layers.iter().zip(&space.layers).zip(changes::changes(stack));
        let layers = layers
            .map(|((layer, space), changes)| LayerReport {
                number: layer.number,
                diff_id: layer.diff_id.clone(),
                chain_id: layer.chain_id.clone(),
                step: layer.step.clone(),
                stored: space.stored,
                wasted: space.wasted,
                changes,
            })
            .collect();
        let mut history = history::gather(subject)?;
        history.reverse();
        let mut types = Types::default();
        let (mut files, mut dirs, mut seen) = (0, 0, HashSet::new());
        for file in tree.files() {
            if file.facts.is_dir() {
                dirs += 1;
            } else if !file.facts.is_file() {
                files += 1;
            } else if seen.insert((file.stored.layer(), file.facts.inode())) {
                files += 1;
                types.add(file.path, file.facts.stored());
            }
        }
        let steps: Vec<_> = subject.layers.iter().map(|layer| layer.step.as_ref()).collect();
        let config = subject.config.as_ref();
        Ok(Self {
            kind: subject.kind,
            name: subject.name.clone(),
            id: subject.id.clone(),
            created: config.and_then(|config| config.created.clone()),
            platform: config.map(|config| config.platform().to_string()),
            stored: space.stored,
            visible: space.visible,
            wasted: space.wasted,
            duplicate: space.duplicate,
            efficiency: space.efficiency,
            files,
            dirs,
            layers,
            wasted_files: space.wasted_files,
            duplicates: space.duplicates,
            types: types.finish(),
            history,
            by_dir: sizes::of_tree(&tree, DIR_NODES),
            by_layer: sizes::of_layers(stack, &wasted, &steps, LAYER_NODES),
        })
    }
}

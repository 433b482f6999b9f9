//! What is explored: layers with their facts, and the forest of their paths.

use cow::stack::{Stack, Waste};

use super::forest::{Forest, Wasted};
use crate::inspect::{Contents, Subject, short_step};
use crate::names::printable;

/// What is known of a layer as soon as the image is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LayerFacts {
    /// The diffID; none for a container's changes and a directory.
    pub(super) diff_id: Option<String>,
    /// The chainID.
    pub(super) chain_id: Option<String>,
    /// The step of the build on one line, safe to show.
    pub(super) step: String,
    /// When it was made, RFC 3339.
    pub(super) created: Option<String>,
    /// The space that it takes on disk.
    pub(super) on_disk: Option<u64>,
    /// How it is compressed in its archive, or which drivers keep it.
    pub(super) kept: String,
    /// What its files tell, once they are read.
    pub(super) sums: Option<Sums>,
}

/// What the files of a layer tell of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Bytes of file content.
    pub(super) bytes: u64,
    /// How much of that nobody sees.
    pub(super) wasted: u64,
    /// Regular files, directories, others and deletions.
    pub(super) counts: cow::index::Counts,
}

/// What is known before the files are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// How people call it, safe to show.
    pub(super) name: String,
    /// `image`, `layer`, `container` or `directory`.
    pub(super) kind: &'static str,
    /// The lowest first.
    pub(super) layers: Vec<LayerFacts>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Image {
    /// The lowest layer first.
    pub(super) layers: Vec<LayerFacts>,
    /// All paths.
    pub(super) forest: Forest,
    /// Bytes of file content in all layers.
    pub(super) stored: u64,
    /// How much of that nobody sees.
    pub(super) wasted: u64,
    /// The wasted files, the largest first.
    pub(super) wasted_files: Vec<Wasted>,
    /// Whether contents were compared, and not only lengths and times.
    pub(super) compared: bool,
}

impl Header {
    /// Gathers it from what was opened.
    pub(super) fn of(subject: &Subject) -> Self {
        use crate::inspect::Kind;
        let layers = subject.layers.iter().map(|layer| {
            let step = layer.step.as_ref();
            let drivers = layer.kept.iter().map(|kept| kept.driver.as_str()).collect::<Vec<_>>();
            LayerFacts {
                diff_id: layer.diff_id.clone(),
                chain_id: layer.chain_id.clone(),
                step: match (step.map(|step| printable(&short_step(&step.created_by))), layer) {
                    (Some(step), _) if !step.is_empty() => step,
                    (_, layer) if !layer.containers.is_empty() && layer.diff_id.is_none() => {
                        "changes of the container".to_owned()
                    }
                    (_, _) => String::new(),
                },
                created: step.and_then(|step| step.created.clone()),
                on_disk: layer.on_disk(),
                kept: match &layer.blob {
                    Some(blob) if blob.compression == "none" => "uncompressed".to_owned(),
                    Some(blob) => blob.compression.clone(),
                    None => drivers.join(", "),
                },
                sums: None,
            }
        });
        Self {
            name: printable(&subject.name),
            kind: match subject.kind {
                Kind::Image => "image",
                Kind::Layer => "layer",
                Kind::Container => "container",
                Kind::Directory => "directory",
            },
            layers: layers.collect(),
        }
    }
}

impl Image {
    /// Gathers it; the layers' files have to be read already, or are read now. Of one layer alone no
    /// content is compared with any other.
    pub(super) fn of(subject: &Subject, contents: Contents) -> anyhow::Result<Self> {
        let compared = contents == Contents::Digest || subject.layers.len() < 2;
        Ok(Self::new(subject.stack(contents)?, Header::of(subject).layers, compared))
    }

    /// Puts together what is known of layers and their files.
    pub(super) fn new(stack: &Stack, mut layers: Vec<LayerFacts>, compared: bool) -> Self {
        let waste = Waste::of(stack);
        let forest = Forest::of(stack);
        for ((layer, waste), index) in layers.iter_mut().zip(&waste.layers).zip(stack.layers()) {
            let (bytes, wasted) = (waste.bytes, waste.wasted);
            layer.sums = Some(Sums { bytes, wasted, counts: index.counts() });
        }
        Self {
            layers,
            stored: waste.bytes(),
            wasted: waste.wasted(),
            wasted_files: forest.wasted(&waste),
            forest,
            compared,
        }
    }

    /// The part of what is stored that is seen, in thousandths.
    pub(super) fn efficiency(&self) -> u64 {
        efficiency(self.stored, self.wasted)
    }
}

/// The part of stored bytes that is not wasted, in thousandths; rounded down, so that only an image
/// without waste has all.
pub(super) fn efficiency(stored: u64, wasted: u64) -> u64 {
    let seen = u128::from(stored - wasted.min(stored)) * 1000;
    u64::try_from(seen.checked_div(stored.into()).unwrap_or(1000)).unwrap_or(1000)
}

//! What is looked at.

use std::cell::OnceCell;
use std::fmt::Debug;
use std::io::Read;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
pub(crate) use cow::index::Contents;
use cow::index::Index;
use cow::stack::{Stack, Tree};
use image::{ImageConfig, Progress};
use serde::Serialize;

use super::steps::{Step, steps};
use crate::exit::usage;

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// An image: all of its layers.
    Image,
    /// A layer with those below it.
    Layer,
    /// A container: its image's layers and its changes on top.
    Container,
    /// A directory, as one layer.
    Directory,
}

/// Something with layers that is looked into.
#[derive(Debug)]
pub(crate) struct Subject {
    /// What it is.
    pub(crate) kind: Kind,
    /// How people call it.
    pub(crate) name: String,
    /// Its id: the image's or container's; none for a directory.
    pub(crate) id: Option<String>,
    /// The image config, where there is one.
    pub(crate) config: Option<ImageConfig>,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
    /// Gives the files.
    pub(crate) source: Rc<dyn Layers>,
    /// The stacks, once made: without and with digests.
    stacks: [OnceCell<Stack>; 2],
}

/// What is known of one layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Layer {
    /// The place in the image, 1 at the bottom.
    pub(crate) number: usize,
    /// The digest of the uncompressed tar; none for a container's changes and a directory.
    pub(crate) diff_id: Option<String>,
    /// The identity of the stack with this layer on top.
    pub(crate) chain_id: Option<String>,
    /// The chainID of the stack below.
    pub(crate) parent: Option<String>,
    /// Where the store keeps it.
    pub(crate) kept: Vec<Kept>,
    /// How an archive keeps it.
    pub(crate) blob: Option<Blob>,
    /// The length of the uncompressed tar in bytes, where it is known without reading it.
    pub(crate) tar_size: Option<u64>,
    /// Images that have it, of the store or of the archive.
    pub(crate) images: Vec<String>,
    /// Containers that have it.
    pub(crate) containers: Vec<String>,
    /// The step of the build that made it.
    pub(crate) step: Option<Step>,
}

/// Where the store keeps a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Kept {
    /// The driver.
    pub(crate) driver: String,
    /// Its name there.
    pub(crate) layer: String,
    /// Allocated bytes.
    pub(crate) bytes: u64,
    /// Inodes.
    pub(crate) inodes: u64,
}

/// How an archive keeps a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Blob {
    /// The digest of the blob, where the archive promises one.
    pub(crate) digest: Option<String>,
    /// The media type, where the archive has one.
    pub(crate) media_type: Option<String>,
    /// How it is compressed: `none`, `gzip` or `zstd`.
    pub(crate) compression: String,
    /// Its length in bytes.
    pub(crate) size: u64,
}

/// Takes the content of the file in one row.
pub(crate) type Sink<'a> = dyn FnMut(usize, &mut dyn Read) -> anyhow::Result<()> + 'a;

/// How far the layer that is being read has been read, for another thread to look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<Mutex<Option<Progress>>>);

impl Gauge {
    /// Bytes that were read of what is stored; none where that is not known.
    pub(crate) fn read(&self) -> Option<u64> {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.as_ref().map(Progress::read)
    }

    /// Begins with another layer.
    pub(super) fn watch(&self, progress: Progress) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }
}

/// Where the files of layers come from. Layers are counted from 0 here.
pub(crate) trait Layers: Debug {
    /// The files of a layer.
    fn index(&self, layer: usize, contents: Contents) -> anyhow::Result<Arc<Index>>;

    /// Gives the contents of regular files of a layer, whose rows are named in ascending order, each
    /// to `sink` with its row; in an order of its own.
    fn read(
        &self,
        layer: usize,
        index: &Index,
        rows: &[usize],
        sink: &mut Sink<'_>,
    ) -> anyhow::Result<()>;

    /// Shows how far [`Layers::index`] has come; it shows nothing where that is not known.
    fn gauge(&self) -> Gauge {
        Gauge::default()
    }

    /// Holds a layer's content against its diffID, in each place that keeps it.
    fn verify(&self, layer: usize) -> anyhow::Result<Vec<Verified>>;
}

/// What came of holding a layer against its diffID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    /// The driver that keeps it; none in an archive.
    pub(crate) driver: Option<String>,
    /// `sound`, `damaged` or `unknown`.
    pub(crate) state: String,
    /// Why, unless it is sound.
    pub(crate) reason: Option<String>,
}

impl Subject {
    /// A subject whose files come from `source`; each layer gets the step that made it.
    pub(crate) fn new(
        kind: Kind,
        name: String,
        id: Option<String>,
        config: Option<ImageConfig>,
        mut layers: Vec<Layer>,
        source: Box<dyn Layers>,
    ) -> Self {
        let steps = config.as_ref().map(|config| steps(config, layers.len()));
        for step in steps.into_iter().flatten() {
            if let Some(layer) = step.layer.and_then(|number| layers.get_mut(number - 1)) {
                layer.step = Some(step);
            }
        }
        let source = Rc::from(source);
        Self { kind, name, id, config, layers, source, stacks: Default::default() }
    }

    /// The same once more; what either reads the other need not read.
    pub(super) fn again(&self) -> Self {
        Self {
            kind: self.kind,
            name: self.name.clone(),
            id: self.id.clone(),
            config: self.config.clone(),
            layers: self.layers.clone(),
            source: Rc::clone(&self.source),
            stacks: Default::default(),
        }
    }

    /// The layers' files on each other, with digests of contents or without. Made once.
    pub(crate) fn stack(&self, contents: Contents) -> anyhow::Result<&Stack> {
        let [plain, digested] = &self.stacks;
        if let Some(stack) = digested.get() {
            return Ok(stack);
        }
        let cell = if contents == Contents::Digest { digested } else { plain };
        if let Some(stack) = cell.get() {
            return Ok(stack);
        }
        let layers = (0..self.layers.len())
            .map(|layer| self.source.index(layer, contents))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let stack = Stack::new(layers).with_context(|| self.name.clone())?;
        Ok(cell.get_or_init(|| stack))
    }

    /// What the layers together show.
    pub(crate) fn tree(&self, contents: Contents) -> anyhow::Result<Tree> {
        Ok(Tree::of(self.stack(contents)?))
    }

    /// The same without the layers above one, which is named by number or by the beginning of its
    /// diffID or chainID.
    pub(crate) fn up_to(mut self, layer: &str) -> anyhow::Result<Self> {
        let number = self.layer_number(layer)?;
        self.layers.truncate(number);
        self.kind = Kind::Layer;
        self.name = format!("{}#{number}", self.name);
        self.id = self.layers.last().and_then(|layer| layer.chain_id.clone());
        self.stacks = Default::default();
        Ok(self)
    }

    fn layer_number(&self, name: &str) -> anyhow::Result<usize> {
        if self.kind == Kind::Directory {
            bail!("{}: a directory has no layers", self.name);
        }
        if let Ok(number) = name.parse::<usize>()
            && (1..=self.layers.len()).contains(&number)
        {
            return Ok(number);
        }
        let found: Vec<_> = self.layers.iter().filter(|layer| layer.is_called(name)).collect();
        match found[..] {
            [layer] => Ok(layer.number),
            [] => bail!("{} has no layer {name}: it has 1 to {}", self.name, self.layers.len()),
            _ => Err(usage(format!("{name} is the beginning of several layers of {}", self.name))),
        }
    }
}

/// The fewest digits by which an id can be named.
pub(crate) const SHORTEST_ID: usize = 4;

impl Layer {
    /// Whether a name is the beginning of its diffID or chainID.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let begins = |id: &Option<String>| {
            let hex = id.as_deref().and_then(|id| id.split_once(':')).map(|(_, hex)| hex);
            hex.is_some_and(|hex| hex.starts_with(digits))
        };
        digits.len() >= SHORTEST_ID && (begins(&self.diff_id) || begins(&self.chain_id))
    }

    /// The space that it takes on disk: in the store's drivers together, or as a blob of an archive.
    pub(crate) fn on_disk(&self) -> Option<u64> {
        match &self.blob {
            Some(blob) => Some(blob.size),
            None if self.kept.is_empty() => None,
            None => Some(self.kept.iter().map(|kept| kept.bytes).sum()),
        }
    }
}

//! An image in an archive or layout, read where it lies.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cow::digest::{ChainId, DiffId};
use cow::index::Index;
use cow::tar::Reader;
use image::{Image, Reference, Source};

use super::pick::{pick, wanted};
use super::subject::{Blob, Contents, Gauge, Kind, Layer, Layers, Sink, Subject, Verified};
use crate::names::short;

#[derive(Debug)]
struct Archive {
    layers: Vec<image::Layer>,
    /// Files of layers that were read already; those with digests replace those without.
    read: RefCell<BTreeMap<usize, (Contents, Arc<Index>)>>,
    gauge: Gauge,
}

/// Opens an image of an archive, layout or root file system; the only one, unless it is named.
pub(crate) fn open(path: &Path, name: Option<&str>) -> anyhow::Result<Subject> {
    let scratch = std::env::temp_dir();
    let scratch =
        std::fs::File::open(&scratch).with_context(|| format!("open {}", scratch.display()))?;
    let options =
        image::Options { scratch: Some(std::os::fd::AsFd::as_fd(&scratch)), ..Default::default() };
    let source = Source::open_with(path, &options)?;
    let images = source.images(None)?;
    let chosen = choose(path, &images, name)?;
    let users = |layer: &image::Layer| {
        let has = |image: &&Image| image.layers.iter().any(|other| same(other, layer));
        images.iter().filter(has).map(|image| called(path, image)).collect()
    };
    let diff_ids: Vec<_> = chosen.layers.iter().map(image::Layer::diff_id).collect();
    let layers = chosen.layers.iter().enumerate().map(|(at, layer)| {
        let chain = |count| chain(&diff_ids[..count]).map(|id: ChainId| id.to_string());
        let plain = layer.compression() == image::Compression::None;
        Layer {
            number: at + 1,
            diff_id: layer.diff_id().map(|id| id.to_string()),
            chain_id: chain(at + 1),
            parent: chain(at),
            blob: Some(Blob {
                digest: layer.blob_digest().map(|digest| digest.to_string()),
                media_type: layer.media_type().map(str::to_owned),
                compression: layer.compression().to_string(),
                size: layer.size(),
            }),
            tar_size: plain.then(|| layer.size()),
            images: users(layer),
            ..Layer::default()
        }
    });
    Ok(Subject::new(
        Kind::Image,
        called(path, chosen),
        chosen.config.as_ref().map(|config| config.digest().to_string()),
        chosen.config.as_ref().map(|config| config.image().clone()),
        layers.collect(),
        Box::new(Archive {
            layers: chosen.layers.clone(),
            read: RefCell::default(),
            gauge: Gauge::default(),
        }),
    ))
}

/// How people call an image of an archive.
fn called(path: &Path, image: &Image) -> String {
    match (image.names.first(), &image.config) {
        (Some(name), _) => name.familiar(),
        (None, Some(config)) => short(&config.digest().to_string()).to_owned(),
        (None, None) => path.display().to_string(),
    }
}

fn same(a: &image::Layer, b: &image::Layer) -> bool {
    match (a.diff_id(), b.diff_id()) {
        (Some(a), Some(b)) => a == b,
        _ => a.index() == b.index(),
    }
}

fn chain(diff_ids: &[Option<DiffId>]) -> Option<ChainId> {
    let known: Option<Vec<&DiffId>> = diff_ids.iter().map(Option::as_ref).collect();
    ChainId::of_stack(known?)
}

fn choose<'i>(path: &Path, images: &'i [Image], name: Option<&str>) -> anyhow::Result<&'i Image> {
    let is_called = |image: &&Image, name: &str| {
        let reference = name.parse::<Reference>().ok();
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let id = image.config.as_ref().map(|config| config.digest().hex());
        reference.is_some_and(|reference| image.names.contains(&reference))
            || (digits.len() >= super::subject::SHORTEST_ID
                && id.is_some_and(|id| id.starts_with(digits)))
    };
    let all = || {
        let names: Vec<_> = images.iter().map(|image| called(path, image)).collect();
        names.join(", ")
    };
    match (name, images) {
        (None, [image]) => Ok(image),
        (_, []) => bail!("{} holds no image", path.display()),
        (None, _) => bail!(
            "{path} holds {count} images; name one as {path}:NAME: {all}",
            path = path.display(),
            count = images.len(),
            all = all(),
        ),
        (Some(name), _) => images.iter().find(|image| is_called(image, name)).with_context(|| {
            format!("{} holds no image {name}; there is {}", path.display(), all())
        }),
    }
}

impl Layers for Archive {
    fn index(&self, layer: usize, contents: Contents) -> anyhow::Result<Arc<Index>> {
        if let Some((had, index)) = self.read.borrow().get(&layer)
            && (*had == Contents::Digest || contents == Contents::Skip)
        {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(self.read_index(&self.layers[layer], contents)?);
        self.read.borrow_mut().insert(layer, (contents, Arc::clone(&index)));
        Ok(index)
    }

    fn read(
        &self,
        layer: usize,
        index: &Index,
        rows: &[usize],
        sink: &mut Sink<'_>,
    ) -> anyhow::Result<()> {
        let layer = &self.layers[layer];
        let wanted = wanted(index, rows);
        if let Some(map) = layer.map()? {
            let mut cursor = map.reader();
            for (offset, row) in wanted {
                // A sparse file's content is put together by the tar's reader only.
                let Some(node) = index.get(row) else { continue };
                if node.size() != node.stored() {
                    cursor.rewind()?;
                    let only = BTreeMap::from([(offset, row)]);
                    pick(&mut Reader::seeking(&mut cursor), &only, sink)?;
                    continue;
                }
                cursor.seek(io::SeekFrom::Start(offset))?;
                sink(row, &mut (&mut cursor).take(node.size()))?;
            }
            return Ok(());
        }
        pick(&mut Reader::new(layer.open()?), &wanted, sink)
            .with_context(|| layer.place().to_string())
    }

    fn gauge(&self) -> Gauge {
        self.gauge.clone()
    }

    fn verify(&self, layer: usize) -> anyhow::Result<Vec<Verified>> {
        let outcome = self.layers[layer].open().and_then(image::LayerStream::finish);
        let (state, reason) = match outcome {
            Ok(_) => ("sound", None),
            Err(error) if error.kind() == cow::ErrorKind::Corrupt => {
                ("damaged", Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        Ok(vec![Verified { driver: None, state: state.to_owned(), reason }])
    }
}

impl Archive {
    fn read_index(&self, layer: &image::Layer, contents: Contents) -> anyhow::Result<Index> {
        let at = || layer.place().to_string();
        if contents == Contents::Skip
            && let Some(map) = layer.map()?
        {
            let mut reader = Reader::seeking(map.reader());
            return Index::read(&mut reader, contents).with_context(at);
        }
        let mut stream = layer.open()?;
        self.gauge.watch(stream.progress());
        let index = Index::read(&mut Reader::new(&mut stream), contents);
        // What the stream has to say of itself is worth more than what came of it.
        let verified = stream.finish();
        let index = index.with_context(at)?;
        verified?;
        Ok(index)
    }
}

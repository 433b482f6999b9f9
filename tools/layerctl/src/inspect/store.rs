//! An image, layer or container of the store, over the socket.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cow::digest::Digest;
use cow::index::{Builder, Content, Index};
use cow::meta::{Device, Time};
use cow::tar::{Entry, EntryKind, Reader, Segment};
use image::ImageConfig;
use layerd_api::{Client, ClientError, ImageDetails, ImageSummary, LayerFile, LayerSummary};

use super::pick::{pick, wanted};
use super::steps::steps;
use super::subject::{Contents, Kept, Kind, Layer, Layers, SHORTEST_ID, Sink, Subject, Verified};
use crate::names::{familiar, short};

/// Where the files of one layer are asked for.
#[derive(Clone, Debug)]
enum At {
    /// A layer of images, by chainID.
    Layer(String),
    /// What a container changed.
    Container(String),
}

#[derive(Debug)]
struct Store {
    client: Client,
    layers: Vec<At>,
    read: RefCell<BTreeMap<usize, Arc<Index>>>,
}

/// Finds a container, image or layer, in this order, by name, id or the beginning of an id.
pub(crate) fn open(client: &Client, name: &str) -> anyhow::Result<Subject> {
    if let Some(container) = known(client.container(name))? {
        let image = client.image(&container.image)?;
        let mut parts = Parts::of(client, &image)?;
        parts.at.push(At::Container(container.id.clone()));
        parts.layers.push(Layer {
            number: parts.layers.len() + 1,
            parent: parts.layers.last().and_then(|layer| layer.chain_id.clone()),
            containers: vec![container.name.clone()],
            ..Layer::default()
        });
        return parts.subject(client, Kind::Container, container.name, container.id);
    }
    if let Some(image) = known(client.image(name))? {
        let called = called(&image);
        let id = image.image.id.clone();
        return Parts::of(client, &image)?.subject(client, Kind::Image, called, id);
    }
    layer(client, name)
}

/// A layer that is named by the beginning of its chainID or diffID, in an image that has it.
fn layer(client: &Client, name: &str) -> anyhow::Result<Subject> {
    let layer = find_layer(client, name)?;
    let layer = layer.with_context(|| format!("no such image, container or layer: {name}"))?;
    let image = layer.images.first().with_context(|| format!("no image has the layer {name}"))?;
    let image = client.image(image)?;
    let called = called(&image);
    let id = image.image.id.clone();
    let subject = Parts::of(client, &image)?.subject(client, Kind::Image, called, id)?;
    subject.up_to(&layer.chain_id)
}

/// A layer of images by the beginning of its chainID, else of its diffID.
pub(crate) fn find_layer(client: &Client, name: &str) -> anyhow::Result<Option<LayerSummary>> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    if digits.len() < SHORTEST_ID || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let begins = |id: &str| id.strip_prefix("sha256:").is_some_and(|hex| hex.starts_with(digits));
    let layers = client.layers()?;
    let mut found: Vec<_> = layers.iter().filter(|layer| begins(&layer.chain_id)).collect();
    if found.is_empty() {
        found = layers.iter().filter(|layer| begins(&layer.diff_id)).collect();
    }
    match found[..] {
        [] => Ok(None),
        [layer] => Ok(Some(layer.clone())),
        _ => bail!("{name} is the beginning of several layers' ids"),
    }
}

/// All layers of images, each followed by those that lie on it, with its content's size in bytes. A
/// layer's number is its place above the lowest one.
pub(crate) fn all_layers(client: &Client) -> anyhow::Result<Vec<(Layer, u64)>> {
    let images = client.images()?;
    let names = names(&images);
    let (mut steps_of, mut ids) = (BTreeMap::new(), images.iter());
    let summaries = client.layers()?;
    while steps_of.len() < summaries.len()
        && let Some(image) = ids.next()
    {
        // A config is asked for only if it says something new.
        if image.layers.iter().all(|chain| steps_of.contains_key(chain)) {
            continue;
        }
        let Some(details) = known(client.image(&image.id))? else { continue };
        let config: ImageConfig = serde_json::from_value(details.config)
            .with_context(|| format!("the config of {}", image.id))?;
        let mut made: BTreeMap<usize, _> = steps(&config, image.layers.len())
            .into_iter()
            .filter_map(|step| Some((step.layer?, step)))
            .collect();
        for (at, chain) in image.layers.iter().enumerate() {
            steps_of.entry(chain.clone()).or_insert_with(|| made.remove(&(at + 1)));
        }
    }
    let mut on: BTreeMap<Option<&str>, Vec<&LayerSummary>> = BTreeMap::new();
    for layer in &summaries {
        on.entry(layer.parent.as_deref()).or_default().push(layer);
    }
    let mut found = Vec::with_capacity(summaries.len());
    // Of several on one the first comes first.
    let mut next: Vec<_> = on.remove(&None).unwrap_or_default();
    next.reverse();
    let mut next: Vec<_> = next.into_iter().map(|layer| (layer, 1)).collect();
    while let Some((layer, number)) = next.pop() {
        let mut facts = facts(layer, number, &names);
        facts.step = steps_of.remove(&layer.chain_id).flatten();
        found.push((facts, layer.size));
        let above = on.remove(&Some(layer.chain_id.as_str())).unwrap_or_default();
        next.extend(above.into_iter().rev().map(|layer| (layer, number + 1)));
    }
    Ok(found)
}

/// How people call images, by id.
fn names(images: &[ImageSummary]) -> BTreeMap<String, String> {
    let called = |image: &ImageSummary| match image.names.first() {
        Some(name) => familiar(name).to_owned(),
        None => short(&image.id).to_owned(),
    };
    images.iter().map(|image| (image.id.clone(), called(image))).collect()
}

fn called(image: &ImageDetails) -> String {
    match image.image.names.first() {
        Some(name) => familiar(name).to_owned(),
        None => short(&image.image.id).to_owned(),
    }
}

pub(crate) fn known<T>(answer: Result<T, ClientError>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a subject is made of.
struct Parts {
    config: ImageConfig,
    layers: Vec<Layer>,
    at: Vec<At>,
}

impl Parts {
    fn of(client: &Client, image: &ImageDetails) -> anyhow::Result<Self> {
        let config = serde_json::from_value(image.config.clone())
            .with_context(|| format!("the config of {}", image.image.id))?;
        let names = names(&client.images()?);
        let known: BTreeMap<String, LayerSummary> =
            client.layers()?.into_iter().map(|layer| (layer.chain_id.clone(), layer)).collect();
        let mut layers = Vec::new();
        for (at, chain) in image.image.layers.iter().enumerate() {
            let layer = known.get(chain).with_context(|| format!("the layer {chain} is gone"))?;
            layers.push(facts(layer, at + 1, &names));
        }
        let at = image.image.layers.iter().cloned().map(At::Layer).collect();
        Ok(Self { config, layers, at })
    }

    fn subject(
        self,
        client: &Client,
        kind: Kind,
        name: String,
        id: String,
    ) -> anyhow::Result<Subject> {
        let source = Store { client: client.clone(), layers: self.at, read: RefCell::default() };
        Ok(Subject::new(kind, name, Some(id), Some(self.config), self.layers, Box::new(source)))
    }
}

fn facts(layer: &LayerSummary, number: usize, names: &BTreeMap<String, String>) -> Layer {
    Layer {
        number,
        diff_id: Some(layer.diff_id.clone()),
        chain_id: Some(layer.chain_id.clone()),
        parent: layer.parent.clone(),
        kept: layer
            .kept
            .iter()
            .map(|kept| Kept {
                driver: kept.driver.clone(),
                layer: kept.layer.clone(),
                bytes: kept.usage.bytes,
                inodes: kept.usage.inodes,
            })
            .collect(),
        tar_size: Some(layer.tar_size),
        images: layer
            .images
            .iter()
            .map(|id| names.get(id).cloned().unwrap_or_else(|| short(id).to_owned()))
            .collect(),
        containers: layer.containers.iter().map(|id| short(id).to_owned()).collect(),
        ..Layer::default()
    }
}

impl Layers for Store {
    /// The daemon's lists have digests in any case.
    fn index(&self, layer: usize, _: Contents) -> anyhow::Result<Arc<Index>> {
        if let Some(index) = self.read.borrow().get(&layer) {
            return Ok(Arc::clone(index));
        }
        let files = match &self.layers[layer] {
            At::Layer(chain) => self.client.layer_files(chain)?,
            At::Container(id) => self.client.container_files(id)?,
        };
        let mut builder = Builder::new();
        for file in files {
            let (entry, content) = entry(file?)?;
            builder.push(&entry, content)?;
        }
        let index = Arc::new(builder.finish()?);
        self.read.borrow_mut().insert(layer, Arc::clone(&index));
        Ok(index)
    }

    fn read(
        &self,
        layer: usize,
        index: &Index,
        rows: &[usize],
        sink: &mut Sink<'_>,
    ) -> anyhow::Result<()> {
        let wanted = wanted(index, rows);
        match &self.layers[layer] {
            At::Layer(chain) => {
                pick(&mut Reader::new(self.client.layer_tar(chain)?), &wanted, sink)
            }
            At::Container(id) => {
                pick(&mut Reader::new(self.client.container_tar(id)?), &wanted, sink)
            }
        }
    }

    fn verify(&self, layer: usize) -> anyhow::Result<Vec<Verified>> {
        let At::Layer(chain) = &self.layers[layer] else {
            // What a container changed has no digest yet.
            return Ok(Vec::new());
        };
        let kept = self.client.verify_layer(chain)?.into_iter();
        Ok(kept
            .map(|kept| Verified {
                driver: Some(kept.driver),
                state: kept.state,
                reason: kept.reason,
            })
            .collect())
    }
}

/// A line of a list as the entry of the tar that it was made of.
fn entry(file: LayerFile) -> anyhow::Result<(Entry, Content)> {
    let device = || {
        let (major, minor) = file.device.unwrap_or_default();
        Device { major, minor }
    };
    let kind = match file.kind.as_str() {
        "file" => EntryKind::File,
        "hardlink" => EntryKind::HardLink,
        "symlink" => EntryKind::Symlink,
        "dir" => EntryKind::Dir,
        "char" => EntryKind::Char(device()),
        "block" => EntryKind::Block(device()),
        "fifo" => EntryKind::Fifo,
        other => bail!("the daemon lists a file of the kind {other:?}"),
    };
    let digest = file.sha256.map(|hex| format!("sha256:{hex}").parse::<Digest>()).transpose()?;
    let (secs, nanos) = file.mtime;
    let entry = Entry {
        path: file.path.into_bytes(),
        kind,
        mode: file.mode,
        uid: file.uid,
        gid: file.gid,
        mtime: Time { secs, nanos },
        size: file.size,
        link: file.link.map(layerd_api::Text::into_bytes).unwrap_or_default(),
        xattrs: file
            .xattrs
            .into_iter()
            .map(|(name, value)| (name.into_bytes(), value.into_bytes()))
            .collect(),
        sparse: file.stored.map(|len| vec![Segment { offset: 0, len }]),
    };
    Ok((entry, Content { digest, offset: file.offset }))
}

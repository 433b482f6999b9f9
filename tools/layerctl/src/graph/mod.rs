//! The layers of a store and what stands on them: which images and containers share which.
//!
//! A [`Graph`] is gathered from the daemon's lists: nothing is walked. Layers are a forest, each on its
//! parent. [`mod@dot`] writes it for graphviz as it is; [`mod@svg`] draws it: layers that lie on each other
//! and are shared by the same images are one card ([`cards`]), laid out as a tree from left to right
//! ([`layout`]), so that a store of a thousand layers is as many lines and as deep as its images
//! branch.

mod cards;
mod dot;
mod layout;
mod svg;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use image::ImageConfig;
use layerd_api::{Client, Container, ImageDetails, LayerSummary};
use serde::Serialize;

pub(crate) use dot::dot;
pub(crate) use svg::svg;

use crate::inspect::{short_step, steps};
use crate::names::{familiar, short};

/// Layers with what stands on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Graph {
    /// Each stack's topmost layer, a parent before what stands on it.
    pub(crate) layers: Vec<LayerNode>,
    /// The images, by name.
    pub(crate) images: Vec<ImageNode>,
    /// Their containers, by name.
    pub(crate) containers: Vec<ContainerNode>,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LayerNode {
    /// The identity of the stack with this layer on top.
    pub(crate) chain_id: String,
    /// The digest of the layer's tar.
    pub(crate) diff_id: String,
    /// The chainID of the layer below.
    pub(crate) parent: Option<String>,
    /// Bytes of file content in it.
    pub(crate) size: u64,
    /// How many images and containers of the whole store have it.
    pub(crate) users: usize,
    /// The step of the build that made it, on one line.
    pub(crate) step: Option<String>,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ImageNode {
    /// Its id.
    pub(crate) id: String,
    /// Its names, short where docker's are.
    pub(crate) names: Vec<String>,
    /// The chainID of its topmost layer; none for an image without layers.
    pub(crate) top: Option<String>,
    /// Bytes of file content in all of its layers.
    pub(crate) size: u64,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ContainerNode {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// The id of its image.
    pub(crate) image: String,
    /// `created`, `running` or `exited`.
    pub(crate) state: String,
}

impl Graph {
    /// Gathers the layers of some images, of all if none is named.
    pub(crate) fn of(client: &Client, images: &[String]) -> anyhow::Result<Self> {
        let ids: Vec<String> = match images {
            [] => client.images()?.into_iter().map(|image| image.id).collect(),
            names => names.to_vec(),
        };
        let mut details: BTreeMap<String, ImageDetails> = BTreeMap::new();
        for id in ids {
            let image = client.image(&id)?;
            details.insert(image.image.id.clone(), image);
        }
        Self::new(&details, client.layers()?, client.containers(true)?)
    }

    fn new(
        images: &BTreeMap<String, ImageDetails>,
        layers: Vec<LayerSummary>,
        containers: Vec<Container>,
    ) -> anyhow::Result<Self> {
        let mut made: BTreeMap<&str, String> = BTreeMap::new();
        let mut order: Vec<&str> = Vec::new();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for image in images.values() {
            let config: ImageConfig = serde_json::from_value(image.config.clone())
                .with_context(|| format!("the config of {}", image.image.id))?;
            let chains = &image.image.layers;
            for step in steps(&config, chains.len()) {
                let chain = step.layer.and_then(|number| chains.get(number - 1));
                if let Some(chain) = chain {
                    made.entry(chain).or_insert_with(|| short_step(&step.created_by));
                }
            }
            order.extend(chains.iter().map(String::as_str).filter(|chain| seen.insert(chain)));
        }
        let mut known: BTreeMap<String, LayerSummary> =
            layers.into_iter().map(|layer| (layer.chain_id.clone(), layer)).collect();
        let mut graph = Self::default();
        for chain in order {
            // One that went away since the images were listed.
            let Some(layer) = known.remove(chain) else { continue };
            graph.layers.push(LayerNode {
                users: layer.images.len() + layer.containers.len(),
                step: made.remove(chain).filter(|step| !step.is_empty()),
                chain_id: layer.chain_id,
                diff_id: layer.diff_id,
                parent: layer.parent,
                size: layer.size,
            });
        }
        graph.images = images.values().map(image_node).collect();
        graph.images.sort_by(|a, b| (&a.names, &a.id).cmp(&(&b.names, &b.id)));
        let mine = containers.into_iter().filter(|container| images.contains_key(&container.image));
        graph.containers = mine.map(container_node).collect();
        graph.containers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(graph)
    }
}

fn image_node(image: &ImageDetails) -> ImageNode {
    let image = &image.image;
    let mut names: Vec<String> = image.names.iter().map(|name| familiar(name).to_owned()).collect();
    names.sort();
    ImageNode { id: image.id.clone(), names, top: image.layers.last().cloned(), size: image.size }
}

fn container_node(container: Container) -> ContainerNode {
    let Container { id, name, image, state, .. } = container;
    ContainerNode { id, name, image, state }
}

impl ImageNode {
    /// What it is called: its first name, else its id.
    fn called(&self) -> &str {
        self.names.first().map_or_else(|| short(&self.id), String::as_str)
    }
}

#[cfg(test)]
mod tests;

//! Layers on each other: what the merged tree shows, and how each path came to be as it is.
//!
//! A [`Stack`] is the indexes of an image's layers, the lowest first. [`Stack::walk`] goes through
//! all paths that any layer has, in order, and tells the history of each: which layer added it,
//! changed what of it, repeated it without a change, deleted it. Everything else is made of that:
//! the merged [`Tree`], who gave a file its content or mode ([`Origin`]), what space is taken by
//! files that nobody sees ([`Waste`]), how two trees differ ([`compare`]).
//!
//! The rules are those of [`apply`](crate::apply): whiteouts and opaque directories hide lower
//! content only; a directory merges with a lower one and replaces its attributes; everything else
//! replaces; symbolic links of lower layers on the way to a file are followed.

mod compare;
mod history;
mod tree;
mod walk;
mod waste;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

pub use compare::{Difference, compare, differences};
pub use history::{Change, Event, History, Origin};
pub use tree::{File, Tree};
pub use waste::{LayerWaste, Waste, WastedFile};

use crate::apply::split;
use crate::error::{Error, Result};
use crate::index::{self, Index, Node};
use crate::meta::FileKind;

/// The most layers of a stack.
pub const MAX_LAYERS: usize = 4096;

/// The indexes of layers that lie on each other. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Stack {
    /// The lowest first.
    layers: Vec<Arc<Index>>,
    /// Where the facts of names are whose file is in a lower layer.
    links: Arc<HashMap<Place, Place>>,
}

/// A row of one layer of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    layer: u16,
    row: u32,
}

impl Place {
    fn new(layer: usize, row: usize) -> Self {
        // Both are bounded: layers by MAX_LAYERS, rows by the index.
        let layer = u16::try_from(layer).unwrap_or(u16::MAX);
        Self { layer, row: u32::try_from(row).unwrap_or(u32::MAX) }
    }

    /// The layer, 0 at the bottom.
    pub fn layer(self) -> usize {
        self.layer.into()
    }

    /// The row in that layer's index.
    pub fn row(self) -> usize {
        self.row as usize
    }
}

impl Stack {
    /// Puts layers on each other, the lowest first.
    ///
    /// # Errors
    /// `InvalidArgument` for more than [`MAX_LAYERS`], and for links that lead in a circle.
    pub fn new(layers: Vec<Arc<Index>>) -> Result<Self> {
        if layers.len() > MAX_LAYERS {
            return Err(Error::invalid("stack layers", "", "there are more than 4,096 layers"));
        }
        let mut stack = Self::default();
        let mut links = HashMap::new();
        for layer in layers {
            let layer = stack.settled(layer, &links)?;
            let at = stack.layers.len();
            for node in layer.nodes() {
                let Some(target) = node.link_below() else { continue };
                let (dir, name) = split(target);
                let dir = stack.real_dir(dir, at, &links)?;
                let target = [&*dir, if dir.is_empty() { b"" } else { b"/" }, name].concat();
                if let Some(found) = stack.find_with(&target, at, &links) {
                    let facts = links.get(&found).copied().unwrap_or(found);
                    links.insert(Place::new(at, node.at()), facts);
                }
            }
            stack.layers.push(layer);
        }
        stack.links = Arc::new(links);
        Ok(stack)
    }

    /// The layers, the lowest first.
    pub fn layers(&self) -> &[Arc<Index>] {
        &self.layers
    }

    /// The lowest layers alone.
    #[must_use]
    pub fn lowest(&self, count: usize) -> Self {
        let layers = self.layers.iter().take(count).cloned().collect();
        Self { layers, links: Arc::clone(&self.links) }
    }

    /// The row at a place, with its own path and marks; none for a place of another stack.
    pub fn row(&self, place: Place) -> Option<Node<'_>> {
        self.layers.get(place.layer())?.get(place.row())
    }

    /// The row that has the facts of the file at a place: another one for a further name of a file
    /// of a lower layer.
    pub fn facts(&self, place: Place) -> Option<Node<'_>> {
        self.row(self.stored(place))
    }

    /// Where that row is.
    pub fn stored(&self, place: Place) -> Place {
        self.links.get(&place).copied().unwrap_or(place)
    }

    /// What the lowest `count` layers together have at a path; links on the way are not followed.
    pub fn find(&self, path: &[u8], count: usize) -> Option<Place> {
        self.find_with(path, count, &self.links)
    }

    fn find_with(&self, path: &[u8], count: usize, links: &HashMap<Place, Place>) -> Option<Place> {
        let mut implicit = None;
        for (at, layer) in self.layers.iter().enumerate().take(count).rev() {
            match layer.find(path) {
                Some(node) if node.is_implicit() => {
                    implicit = Some(Place::new(at, node.at()));
                    if node.is_whiteout() {
                        break;
                    }
                }
                Some(node) if node.kind().is_some() => {
                    // What is no directory is hidden by an implied one above it.
                    if implicit.is_some() && !node.is_dir() {
                        break;
                    }
                    return Some(Place::new(at, node.at()));
                }
                Some(node) if node.link_below().is_some() => {
                    let place = Place::new(at, node.at());
                    return links.contains_key(&place).then_some(place);
                }
                Some(_) => break,
                None => {}
            }
            if hides_below(layer, path) {
                break;
            }
        }
        implicit
    }

    /// The path that a directory's path leads to in the lowest layers.
    fn real_dir(
        &self,
        dir: &[u8],
        count: usize,
        links: &HashMap<Place, Place>,
    ) -> Result<Box<[u8]>> {
        index::follow(dir, |path| {
            let node = self.row(self.find_with(path, count, links)?)?;
            (node.kind() == Some(FileKind::Symlink)).then(|| Cow::Borrowed(node.link()))
        })
    }

    /// A layer with its files where they go on top of this stack: a directory that the layer does
    /// not list may be a symbolic link below.
    fn settled(&self, layer: Arc<Index>, links: &HashMap<Place, Place>) -> Result<Arc<Index>> {
        let count = self.layers.len();
        let is_link = |dir: &[u8]| {
            let found = self.find_with(dir, count, links).and_then(|place| self.row(place));
            found.is_some_and(|node| node.kind() == Some(FileKind::Symlink))
        };
        if count == 0 || !layer.implicit_dirs().any(is_link) {
            return Ok(layer);
        }
        let own = |path: &[u8]| layer.find(path).is_some_and(|node| !node.is_implicit());
        let moved = layer.moved(|dir| {
            index::follow(dir, |path| {
                if own(path) {
                    return None;
                }
                let node = self.row(self.find_with(path, count, links)?)?;
                (node.kind() == Some(FileKind::Symlink)).then(|| Cow::Borrowed(node.link()))
            })
        })?;
        Ok(Arc::new(moved))
    }
}

/// Whether a layer hides what lower ones have at a path, by one of the directories on the way.
fn hides_below(layer: &Index, path: &[u8]) -> bool {
    let hides = |dir: &[u8]| layer.find(dir).is_some_and(|node| hides_children(&node));
    let mut dir = path;
    while !dir.is_empty() {
        dir = split(dir).0;
        if hides(dir) {
            return true;
        }
    }
    false
}

/// Whether a row hides what lower layers have below its path.
fn hides_children(node: &Node<'_>) -> bool {
    node.is_whiteout() || node.is_opaque() || !node.is_dir()
}

#[cfg(test)]
mod tests;

//! Space that layers take and nobody sees.

use std::collections::HashMap;

use super::{Place, Stack};

/// What a stack stores that its merged tree does not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waste {
    /// Per layer, the lowest first.
    pub layers: Vec<LayerWaste>,
    /// The files, the largest first.
    pub files: Vec<WastedFile>,
}

/// One layer's part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerWaste {
    /// Bytes of file content that the layer stores, a file with several names once.
    pub bytes: u64,
    /// How much of that no name in the merged tree shows.
    pub wasted: u64,
}

/// A stored file that no name shows any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WastedFile {
    /// Where it is stored: its first name in the layer.
    pub place: Place,
    /// Its stored bytes.
    pub bytes: u64,
    /// The layer that hid the last of its names by another file or by a deletion.
    pub hidden_by: usize,
    /// Whether a deletion did, not another file.
    pub deleted: bool,
}

impl Waste {
    /// Finds what is wasted in a stack.
    pub fn of(stack: &Stack) -> Self {
        let mut layers = vec![LayerWaste::default(); stack.layers().len()];
        // For each stored file with a hidden name: who hid it last; none while a name shows.
        let mut files: HashMap<Place, Option<(usize, bool)>> = HashMap::new();
        stack.walk(|history| {
            for (at, event) in history.events.iter().enumerate() {
                let Some(file) = event.place.and_then(|place| inode(stack, place)) else {
                    continue;
                };
                let hider =
                    history.events.get(at + 1).map(|next| (next.layer, next.place.is_none()));
                let known = files.entry(file).or_insert(Some((0, false)));
                *known = match (*known, hider) {
                    (Some(known), Some(hider)) => Some(known.max(hider)),
                    _ => None,
                };
            }
        });
        let mut wasted = Vec::new();
        for (place, hider) in files {
            let Some(node) = stack.row(place) else { continue };
            let layer = &mut layers[place.layer()];
            layer.bytes += node.stored();
            if let Some((hidden_by, deleted)) = hider {
                layer.wasted += node.stored();
                wasted.push(WastedFile { place, bytes: node.stored(), hidden_by, deleted });
            }
        }
        wasted.sort_unstable_by(|a, b| b.bytes.cmp(&a.bytes).then(a.place.cmp(&b.place)));
        Self { layers, files: wasted }
    }

    /// The bytes that the layers store.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }

    /// The bytes that nobody sees.
    pub fn wasted(&self) -> u64 {
        self.layers.iter().map(|layer| layer.wasted).sum()
    }
}

/// The place of a regular file's first name in the layer that stores it; none for a name of a file
/// that a lower layer stores, and for everything that is no regular file.
fn inode(stack: &Stack, place: Place) -> Option<Place> {
    let node = stack.row(place).filter(|node| node.is_file())?;
    Some(Place::new(place.layer(), node.inode()))
}

//! Walking all layers side by side.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::{Change, Event, History, Place, Stack, differences, hides_children};
use crate::apply::as_path;
use crate::change;
use crate::index::Node;

/// Where the walk is in one layer.
#[derive(Clone, Copy, Debug)]
struct Cursor<'s> {
    node: Node<'s>,
    layer: usize,
}

impl Cursor<'_> {
    fn key(&self) -> (&[u8], usize) {
        (self.node.path_bytes(), self.layer)
    }
}

impl Ord for Cursor<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((a, a_layer), (b, b_layer)) = (self.key(), other.key());
        change::order(as_path(a), as_path(b)).then(a_layer.cmp(&b_layer))
    }
}

impl PartialOrd for Cursor<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Cursor<'_> {}

/// A directory in which some layers hide what is below them.
#[derive(Debug)]
struct Frame<'s> {
    dir: &'s [u8],
    /// The layers, ascending, those of the frames around it among them.
    hiding: Vec<usize>,
}

impl Stack {
    /// Tells the history of every path that any layer has, in the order of paths, a directory
    /// before what is in it. Paths that layers only hide, and never had, are left out.
    pub fn walk(&self, mut visit: impl FnMut(&History<'_>)) {
        let mut heap = BinaryHeap::with_capacity(self.layers.len());
        for (layer, index) in self.layers.iter().enumerate() {
            heap.extend(index.get(0).map(|node| Reverse(Cursor { node, layer })));
        }
        let mut frames: Vec<Frame<'_>> = Vec::new();
        let mut rows: Vec<Cursor<'_>> = Vec::with_capacity(self.layers.len());
        let mut events = Vec::with_capacity(self.layers.len());
        while let Some(path) = heap.peek().map(|Reverse(first)| first.node.path_bytes()) {
            rows.clear();
            while let Some(mut top) = heap.peek_mut() {
                let Reverse(cursor) = *top;
                if cursor.node.path_bytes() != path {
                    break;
                }
                rows.push(cursor);
                match self.layers[cursor.layer].get(cursor.node.at() + 1) {
                    Some(node) => *top = Reverse(Cursor { node, ..cursor }),
                    None => drop(std::collections::binary_heap::PeekMut::pop(top)),
                }
            }
            while frames.last().is_some_and(|frame| !is_below(path, frame.dir)) {
                frames.pop();
            }
            let hiding = frames.last().map_or(&[][..], |frame| &frame.hiding);
            events.clear();
            let now = self.fold(hiding, &rows, &mut events);
            frames.extend(frame(path, hiding, &rows));
            if !events.is_empty() {
                visit(&History { path, events: &events, now });
            }
        }
    }

    /// Puts the layers' rows of one path on each other, the lowest first.
    fn fold(
        &self,
        hiding: &[usize],
        rows: &[Cursor<'_>],
        events: &mut Vec<Event>,
    ) -> Option<Place> {
        let mut now: Option<Place> = None;
        let mut hiding = hiding.iter().copied().peekable();
        for row in rows {
            while let Some(layer) = hiding.next_if(|layer| *layer <= row.layer) {
                delete(&mut now, layer, events);
            }
            self.put(row, &mut now, events);
        }
        for layer in hiding {
            delete(&mut now, layer, events);
        }
        now
    }

    /// Puts one layer's row on what is below.
    fn put(&self, row: &Cursor<'_>, now: &mut Option<Place>, events: &mut Vec<Event>) {
        let place = Place::new(row.layer, row.node.at());
        let facts = self.facts(place).filter(|facts| facts.kind().is_some());
        let Some(facts) = facts else {
            // A further name of a file that is nowhere takes the place of what was there as well.
            return delete(now, row.layer, events);
        };
        let below = now.and_then(|place| self.facts(place));
        let change = match below {
            None => Change::Added,
            Some(below) if row.node.is_implicit() && below.is_dir() => return,
            Some(below) => match differences(&below, &facts) {
                same if same.is_empty() => Change::Repeated,
                changed => Change::Modified(changed),
            },
        };
        *now = Some(place);
        events.push(Event { layer: row.layer, change, place: Some(place) });
    }
}

fn delete(now: &mut Option<Place>, layer: usize, events: &mut Vec<Event>) {
    if now.take().is_some() {
        events.push(Event { layer, change: Change::Deleted, place: None });
    }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || (path.len() > dir.len() && path.starts_with(dir) && path[dir.len()] == b'/')
}

/// What the rows of a path hide of what is below it in the tree.
fn frame<'s>(path: &'s [u8], around: &[usize], rows: &[Cursor<'s>]) -> Option<Frame<'s>> {
    let own = || rows.iter().filter(|row| hides_children(&row.node)).map(|row| row.layer);
    // Without a directory among them there is nothing below.
    if own().next().is_none() || !rows.iter().any(|row| row.node.is_dir()) {
        return None;
    }
    let mut hiding: Vec<usize> = around.iter().copied().chain(own()).collect();
    hiding.sort_unstable();
    hiding.dedup();
    Some(Frame { dir: path, hiding })
}

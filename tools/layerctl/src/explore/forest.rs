//! Every path that any layer has, with all that layers did to it.
//!
//! Made once of a [`Stack`]; whatever is shown afterwards, of one layer, of the tree as of a layer, of
//! two layers side by side, is told from it without looking at the layers again. Paths are numbered
//! in their order, a directory before what is in it, so that what is in a directory is a stretch of
//! numbers.

use std::collections::{HashMap, HashSet};

use cow::index::{self, Index};
use cow::stack::{Event, History, Origin, Place, Stack, Waste};

/// The number of a path.
pub(super) type Id = u32;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Forest {
    stack: Stack,
    nodes: Vec<Node>,
    /// Those of each path after each other.
    events: Vec<Event>,
    /// Files that have several names in their layer, by layer and inode.
    shared: HashSet<(usize, usize)>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The directory; the root is its own.
    parent: Id,
    /// Behind the last path in it.
    end: Id,
    depth: u16,
    /// The length of the path up to the name.
    name: u16,
    /// Where its events begin, and how many there are.
    first: u32,
    count: u16,
    /// A row that has the path.
    row: Place,
}

/// A stored file that nobody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wasted {
    /// Its path.
    pub(super) id: Id,
    /// The layer that stores it, 0 at the bottom.
    pub(super) layer: usize,
    /// Its bytes.
    pub(super) bytes: u64,
    /// The layer that hid it.
    pub(super) hidden_by: usize,
    /// Whether it was deleted there, not overwritten.
    pub(super) deleted: bool,
}

impl Forest {
    /// Gathers the paths of a stack.
    pub(super) fn of(stack: &Stack) -> Self {
        let mut forest = Self {
            stack: stack.clone(),
            shared: stack.layers().iter().enumerate().flat_map(shared).collect(),
            ..Self::default()
        };
        // The directories around the present path.
        let mut around: Vec<Id> = Vec::new();
        stack.walk(|history| forest.push(history, &mut around));
        forest.close(&mut around, 0);
        forest
    }

    fn push(&mut self, history: &History<'_>, around: &mut Vec<Id>) {
        let Some(row) = history.events.iter().find_map(|event| event.place) else { return };
        let inside = |dir: &Id| is_in(history.path, self.path(*dir));
        let depth = around.iter().rposition(inside).map_or(0, |at| at + 1);
        self.close(around, depth);
        let parent = around.last().copied();
        let above = parent.map_or(0, |dir| self.path(dir).len());
        let id = narrow(self.nodes.len());
        self.nodes.push(Node {
            parent: parent.unwrap_or(id),
            end: id + 1,
            depth: u16::try_from(depth).unwrap_or(u16::MAX),
            // The directory's slash is not the name's.
            name: u16::try_from(above + usize::from(above > 0)).unwrap_or_default(),
            first: narrow(self.events.len()),
            count: u16::try_from(history.events.len()).unwrap_or(u16::MAX),
            row,
        });
        self.events.extend_from_slice(history.events);
        for place in history.events.iter().filter_map(|event| event.place) {
            let stored = self.stack.stored(place);
            if stored != place
                && let Some(row) = self.stack.row(stored)
            {
                self.shared.insert((stored.layer(), row.inode()));
            }
        }
        around.push(id);
    }

    /// Ends the directories below a depth.
    fn close(&mut self, around: &mut Vec<Id>, depth: usize) {
        let end = narrow(self.nodes.len());
        for dir in around.drain(depth..) {
            self.nodes[dir as usize].end = end;
        }
    }

    /// How many paths there are.
    pub(super) fn len(&self) -> Id {
        narrow(self.nodes.len())
    }

    /// The stack that it was made of.
    pub(super) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// A path, relative; the root's is empty.
    pub(super) fn path(&self, id: Id) -> &[u8] {
        let row = self.nodes.get(id as usize).and_then(|node| self.stack.row(node.row));
        row.map_or(b"", |row| row.path_bytes())
    }

    /// The last component; the root's is empty.
    pub(super) fn name(&self, id: Id) -> &[u8] {
        let from = self.nodes.get(id as usize).map_or(0, |node| node.name.into());
        self.path(id).get(from..).unwrap_or_default()
    }

    /// The directory that a path is in; none for the root.
    pub(super) fn parent(&self, id: Id) -> Option<Id> {
        self.nodes.get(id as usize).map(|node| node.parent).filter(|parent| *parent != id)
    }

    /// Behind the last path in a directory.
    pub(super) fn end(&self, id: Id) -> Id {
        self.nodes.get(id as usize).map_or(id, |node| node.end)
    }

    /// How many directories are above.
    pub(super) fn depth(&self, id: Id) -> u16 {
        self.nodes.get(id as usize).map_or(0, |node| node.depth)
    }

    /// What layers did to a path, the lowest first.
    pub(super) fn events(&self, id: Id) -> &[Event] {
        let Some(node) = self.nodes.get(id as usize) else { return &[] };
        let first = node.first as usize;
        &self.events[first..first + usize::from(node.count)]
    }

    /// What the lowest `count` layers have at a path.
    pub(super) fn state(&self, id: Id, count: usize) -> Option<Place> {
        self.events(id).iter().rev().find(|event| event.layer < count)?.place
    }

    /// The facts of the file at a place.
    pub(super) fn facts(&self, place: Place) -> Option<index::Node<'_>> {
        self.stack.facts(place)
    }

    /// What all names of one file have in common, if it has several.
    pub(super) fn shared_file(&self, place: Place) -> Option<(usize, usize)> {
        let place = self.stack.stored(place);
        let file = (place.layer(), self.stack.row(place)?.inode());
        self.shared.contains(&file).then_some(file)
    }

    /// Which layers gave a file what it has in the lowest `count` layers.
    pub(super) fn origin(&self, id: Id, count: usize) -> Option<Origin> {
        let events = self.events(id);
        let events = &events[..events.partition_point(|event| event.layer < count)];
        let now = events.last().and_then(|event| event.place);
        History { path: self.path(id), events, now }.origin()
    }

    /// The wasted files by their paths, the largest first.
    pub(super) fn wasted(&self, waste: &Waste) -> Vec<Wasted> {
        let mut ids: HashMap<Place, Option<Id>> =
            waste.files.iter().map(|file| (file.place, None)).collect();
        for id in 0..self.len() {
            for place in self.events(id).iter().filter_map(|event| event.place) {
                if let Some(found) = ids.get_mut(&place) {
                    *found = Some(id);
                }
            }
        }
        let files = waste.files.iter().filter(|file| file.bytes > 0).filter_map(|file| {
            Some(Wasted {
                id: ids.get(&file.place).copied().flatten()?,
                layer: file.place.layer(),
                bytes: file.bytes,
                hidden_by: file.hidden_by,
                deleted: file.deleted,
            })
        });
        files.collect()
    }
}

/// The inodes of a layer that have several names in it.
fn shared((layer, index): (usize, &std::sync::Arc<Index>)) -> Vec<(usize, usize)> {
    let further = index.nodes().filter(|node| node.is_file() && node.inode() != node.at());
    further.map(|node| (layer, node.inode())).collect()
}

fn is_in(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || (path.starts_with(dir) && path.get(dir.len()) == Some(&b'/'))
}

/// Paths and events are bounded by the text of the indexes, 4 GiB a layer.
fn narrow(count: usize) -> Id {
    u32::try_from(count).unwrap_or(u32::MAX)
}

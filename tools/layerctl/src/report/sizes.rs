//! What a map shows: sizes of files and directories, as a tree of bounded size.

use std::collections::{BTreeMap, HashSet};

use cow::stack::{Stack, Tree};
use serde::{Serialize, Serializer};

use super::shown_at_most;
use crate::inspect::{Step, lossy, short_step};

/// The longest name that a map shows, in characters.
const NAME_WIDTH: usize = 80;

/// What a node stands for. The numbers are known to the page's script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file.
    File = 0,
    /// A stored file that no name shows any more.
    Wasted = 1,
    /// All that a directory has besides the nodes that are there.
    Rest = 2,
    /// A directory, or a layer as a whole.
    Dir = 3,
}

/// One rectangle of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// For people, cut where it is long.
    pub(super) name: String,
    /// Stored bytes of it and all in it, a file with several names once.
    pub(super) bytes: u64,
    /// Files that are no directories, names of one file once.
    pub(super) files: u64,
    /// The layer that has most of it, 1 at the bottom; 0 for a rest.
    pub(super) layer: usize,
    /// What it is.
    pub(super) kind: Kind,
    /// What is in it, the largest first.
    pub(super) children: Vec<Node>,
    /// How much of the bytes no name shows any more.
    pub(super) wasted: u64,
}

impl Serialize for Node {
    /// As a list, since there are thousands: name, bytes, files, layer, kind, then the children and
    /// the wasted bytes if there are any.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, bytes, files, layer, kind, children, wasted } = self;
        let first = (name, bytes, files, layer, *kind as u8);
        match (children.is_empty(), wasted) {
            (true, 0) => first.serialize(serializer),
            (false, 0) => (name, bytes, files, layer, *kind as u8, children).serialize(serializer),
            _ => (name, bytes, files, layer, *kind as u8, children, wasted).serialize(serializer),
        }
    }
}

/// What the merged tree shows, by directory.
pub(super) fn of_tree(tree: &Tree, most: usize) -> Node {
    let mut sizes = SizeTree::new("/");
    let mut seen = HashSet::new();
    for file in tree.files() {
        let layer = file.stored.layer() + 1;
        if file.facts.is_dir() {
            sizes.dir(file.path);
        } else if !file.facts.is_file() || seen.insert((layer, file.facts.inode())) {
            sizes.file(file.path, file.facts.stored(), layer, Kind::File);
        }
    }
    sizes.finish(most)
}

/// What each layer stores, by layer and directory. Wasted files are named by layer, 0 at the bottom,
/// and row.
pub(super) fn of_layers(
    stack: &Stack,
    wasted: &HashSet<(usize, usize)>,
    steps: &[Option<&Step>],
    most: usize,
) -> Node {
    let mut sizes = SizeTree::new("All layers");
    for (at, index) in stack.layers().iter().enumerate() {
        let step = steps.get(at).copied().flatten().map(|step| short_step(&step.created_by));
        let name = match step {
            Some(step) if !step.is_empty() => format!("{} · {step}", at + 1),
            _ => format!("Layer {}", at + 1),
        };
        sizes.top(&name, at + 1);
        for node in index.nodes() {
            if node.is_dir() {
                sizes.dir(node.path_bytes());
            } else if node.is_first_name() {
                let kind = match wasted.contains(&(at, node.at())) {
                    true => Kind::Wasted,
                    false => Kind::File,
                };
                sizes.file(node.path_bytes(), node.stored(), at + 1, kind);
            } else if node.kind().is_some() && !node.is_file() {
                sizes.file(node.path_bytes(), 0, at + 1, Kind::File);
            }
        }
    }
    sizes.finish(most)
}

/// Before names are made and small nodes summed up.
#[derive(Debug)]
struct Raw<'a> {
    parent: usize,
    name: Name<'a>,
    bytes: u64,
    files: u64,
    layer: usize,
    kind: Kind,
    wasted: u64,
}

#[derive(Debug)]
enum Name<'a> {
    Bytes(&'a [u8]),
    Text(String),
}

/// A directory whose files are being added.
#[derive(Debug)]
struct Open<'a> {
    at: usize,
    path: &'a [u8],
    /// Bytes by layer.
    layers: BTreeMap<usize, u64>,
}

/// Sums sizes up while paths come in their order, a directory before what is in it.
#[derive(Debug)]
pub(super) struct SizeTree<'a> {
    nodes: Vec<Raw<'a>>,
    /// The directories around the present path, the outermost first: the root, and where there are
    /// several trees, the top of the present one.
    open: Vec<Open<'a>>,
    /// How many of `open` have no path of their own.
    tops: usize,
}

impl<'a> SizeTree<'a> {
    pub(super) fn new(name: &str) -> Self {
        let mut tree = Self { nodes: Vec::new(), open: Vec::new(), tops: 1 };
        tree.enter(Name::Text(name.to_owned()), b"");
        tree
    }

    /// Begins a tree of its own below the root.
    fn top(&mut self, name: &str, layer: usize) {
        self.close(1);
        self.enter(Name::Text(name.to_owned()), b"");
        self.tops = 2;
        if let Some(node) = self.nodes.last_mut() {
            node.layer = layer;
        }
    }

    pub(super) fn dir(&mut self, path: &'a [u8]) {
        if !path.is_empty() {
            self.leave(path);
            self.enter(Name::Bytes(last(path)), path);
        }
    }

    /// Opens the directories around a path that are not open yet.
    pub(super) fn around(&mut self, path: &'a [u8]) {
        self.leave(path);
        let known = self.open.last().map_or(0, |dir| dir.path.len());
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (end, _) in slashes.filter(|(end, _)| *end > known) {
            self.enter(Name::Bytes(last(&path[..end])), &path[..end]);
        }
    }

    pub(super) fn file(&mut self, path: &'a [u8], bytes: u64, layer: usize, kind: Kind) {
        self.leave(path);
        let parent = self.open.last().map_or(0, |dir| dir.at);
        let (name, wasted) =
            (Name::Bytes(last(path)), if kind == Kind::Wasted { bytes } else { 0 });
        self.nodes.push(Raw { parent, name, bytes, files: 1, layer, kind, wasted });
        if let Some(dir) = self.open.last_mut() {
            *dir.layers.entry(layer).or_default() += bytes;
            let node = &mut self.nodes[dir.at];
            node.bytes += bytes;
            node.wasted += wasted;
            node.files += 1;
        }
    }

    fn enter(&mut self, name: Name<'a>, path: &'a [u8]) {
        let (at, parent) = (self.nodes.len(), self.open.last().map_or(0, |dir| dir.at));
        self.nodes.push(Raw::dir(parent, name));
        self.open.push(Open { at, path, layers: BTreeMap::new() });
    }

    /// Closes the directories that a path is not in.
    fn leave(&mut self, path: &[u8]) {
        let around =
            |dir: &Open<'_>| path.starts_with(dir.path) && path.get(dir.path.len()) == Some(&b'/');
        let keep = self.open[self.tops..].iter().take_while(|dir| around(dir)).count();
        self.close(self.tops + keep);
    }

    /// Closes the innermost directories but `keep`, each summed up in the one around it.
    fn close(&mut self, keep: usize) {
        while self.open.len() > keep {
            let Some(dir) = self.open.pop() else { return };
            // Of equals, the lowest layer.
            let most =
                dir.layers.iter().max_by_key(|(layer, bytes)| (**bytes, usize::MAX - *layer));
            if let Some((layer, _)) = most {
                self.nodes[dir.at].layer = *layer;
            }
            let Some(around) = self.open.last_mut() else { return };
            for (layer, bytes) in dir.layers {
                *around.layers.entry(layer).or_default() += bytes;
            }
            let Raw { bytes, files, wasted, .. } = self.nodes[dir.at];
            let node = &mut self.nodes[around.at];
            node.bytes += bytes;
            node.files += files;
            node.wasted += wasted;
        }
    }

    /// The tree of the largest nodes, and of the root and the tops in any case.
    ///
    /// A directory is no smaller than what is in it and comes before it, so that a node that is kept
    /// has all directories around it.
    pub(super) fn finish(mut self, most: usize) -> Node {
        self.close(0);
        let pinned = |at: usize, raw: &Raw<'_>| at == 0 || matches!(raw.name, Name::Text(_));
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|at| (std::cmp::Reverse(self.nodes[*at].bytes), *at));
        let mut kept = vec![false; self.nodes.len()];
        for at in order.into_iter().take(most).filter(|at| self.nodes[*at].bytes > 0) {
            kept[at] = true;
        }
        let mut made: Vec<Option<Node>> = Vec::with_capacity(self.nodes.len());
        for (at, raw) in self.nodes.iter().enumerate() {
            kept[at] |= pinned(at, raw);
            made.push(kept[at].then(|| raw.node()));
        }
        // From the last, so that all that is in a directory is there before it goes into its own.
        let mut rests = vec![Rest::default(); self.nodes.len()];
        for at in (0..self.nodes.len()).rev() {
            let raw = &self.nodes[at];
            let Some(mut node) = made[at].take() else {
                // Only what lies in a directory that is kept; deeper ones are summed up in it.
                if kept[raw.parent] {
                    let rest = &mut rests[raw.parent];
                    rest.bytes += raw.bytes;
                    rest.files += raw.files;
                    rest.wasted += raw.wasted;
                }
                continue;
            };
            node.complete(rests[at]);
            if at == 0 {
                return node;
            }
            if let Some(parent) = &mut made[raw.parent] {
                parent.children.push(node);
            }
        }
        Raw::dir(0, Name::Bytes(b"")).node()
    }
}

/// What a directory has besides the nodes that are kept.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    bytes: u64,
    files: u64,
    wasted: u64,
}

impl<'a> Raw<'a> {
    fn dir(parent: usize, name: Name<'a>) -> Self {
        Self { parent, name, bytes: 0, files: 0, layer: 0, kind: Kind::Dir, wasted: 0 }
    }

    fn node(&self) -> Node {
        let name = match &self.name {
            Name::Bytes(bytes) => shown_at_most(&lossy(bytes), NAME_WIDTH),
            Name::Text(text) => shown_at_most(text, NAME_WIDTH),
        };
        let Self { bytes, files, layer, kind, wasted, .. } = *self;
        Node { name, bytes, files, layer, kind, children: Vec::new(), wasted }
    }
}

impl Node {
    /// Adds what is left out, and puts the largest first.
    fn complete(&mut self, rest: Rest) {
        let Rest { bytes, files, wasted } = rest;
        if files > 0 && self.kind == Kind::Dir {
            let (name, children, kind) = (String::new(), Vec::new(), Kind::Rest);
            self.children.push(Self { name, bytes, files, layer: 0, kind, children, wasted });
        }
        self.children.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    }
}

fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files with their bytes and layers; names that end in a slash are directories.
    fn tree(files: &[(&'static str, u64, usize)], most: usize) -> Node {
        let mut sizes = SizeTree::new("/");
        for (path, bytes, layer) in files {
            match path.strip_suffix('/') {
                Some(dir) => sizes.dir(dir.as_bytes()),
                None => sizes.file(path.as_bytes(), *bytes, *layer, Kind::File),
            }
        }
        sizes.finish(most)
    }

    fn text(node: &Node) -> String {
        let children: Vec<_> = node.children.iter().map(text).collect();
        let name = if node.kind == Kind::Rest { "…" } else { &node.name };
        let inside =
            if children.is_empty() { String::new() } else { format!("({})", children.join(" ")) };
        format!("{name}:{}/{}@{}{inside}", node.bytes, node.files, node.layer)
    }

    const FILES: &[(&str, u64, usize)] = &[
        ("a/", 0, 0),
        ("a/b/", 0, 0),
        ("a/b/c", 10, 1),
        ("a/b/d", 1, 2),
        ("a/e", 5, 2),
        ("ab", 7, 3),
        ("f/", 0, 0),
        ("f/g", 0, 1),
    ];

    #[test]
    fn directories_are_the_sum_of_what_is_in_them() {
        assert_eq!(
            text(&tree(FILES, 100)),
            "/:23/5@1(a:16/3@1(b:11/2@1(c:10/1@1 d:1/1@2) e:5/1@2) ab:7/1@3 …:0/1@0)"
        );
    }

    #[test]
    fn directories_are_opened_by_what_is_in_them() {
        let mut sizes = SizeTree::new("/");
        for (path, bytes, layer) in FILES.iter().filter(|(path, ..)| !path.ends_with('/')) {
            sizes.around(path.as_bytes());
            sizes.file(path.as_bytes(), *bytes, *layer, Kind::File);
        }
        assert_eq!(text(&sizes.finish(100)), text(&tree(FILES, 100)));
    }

    #[test]
    fn small_nodes_are_summed_up_where_they_are() {
        for (most, expected) in [
            (4, "/:23/5@1(a:16/3@1(b:11/2@1(c:10/1@1 …:1/1@0) …:5/1@0) …:7/2@0)"),
            (2, "/:23/5@1(a:16/3@1(…:16/3@0) …:7/2@0)"),
            (0, "/:23/5@1(…:23/5@0)"),
        ] {
            assert_eq!(text(&tree(FILES, most)), expected, "the largest {most}");
        }
    }

    #[test]
    fn trees_side_by_side_do_not_mix() {
        let mut sizes = SizeTree::new("all");
        for layer in 1..=2 {
            sizes.top(&format!("layer {layer}"), layer);
            sizes.dir(b"a");
            sizes.file(b"a/b", layer as u64, layer, Kind::File);
        }
        sizes.top("empty", 3);
        let found = text(&sizes.finish(100));
        let expected = "all:3/2@2(layer 2:2/1@2(a:2/1@2(b:2/1@2)) \
                        layer 1:1/1@1(a:1/1@1(b:1/1@1)) empty:0/0@3)";
        assert_eq!(found, expected);
    }

    #[test]
    fn waste_is_summed_up_too() {
        let mut sizes = SizeTree::new("all");
        sizes.dir(b"a");
        sizes.file(b"a/b", 5, 1, Kind::Wasted);
        sizes.file(b"a/c", 3, 1, Kind::Wasted);
        sizes.file(b"d", 2, 1, Kind::File);
        let root = sizes.finish(3);
        let dir = &root.children[0];
        let rest = &dir.children[1];
        assert_eq!((root.wasted, dir.wasted, rest.wasted), (8, 8, 3), "{root:?}");
        let json = serde_json::to_string(rest).expect("JSON");
        assert_eq!(json, r#"["",3,1,0,2,[],3]"#);
    }

    #[test]
    fn nodes_are_lists() {
        let json = serde_json::to_string(&tree(&[("a", 5, 1)], 100)).expect("JSON");
        assert_eq!(json, r#"["/",5,1,1,3,[["a",5,1,1,0]]]"#);
    }
}

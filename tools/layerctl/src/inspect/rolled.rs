//! Sizes of directories with all that is in them.

use std::collections::HashSet;

use cow::stack::{File, Tree};

/// A file of a tree with what it and all below it measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rolled<'t> {
    /// The file.
    pub(crate) file: File<'t>,
    /// How many directories lie above it, in the part of the tree that is shown.
    pub(crate) depth: usize,
    /// Bytes of content of it and all below it, each file once whatever its names.
    pub(crate) bytes: u64,
    /// How many files that are no directories there are, itself counted.
    pub(crate) files: u64,
}

/// Measures a part of a tree, in the order of paths.
pub(crate) fn roll<'t>(tree: &'t Tree, below: &[u8]) -> Vec<Rolled<'t>> {
    let mut seen = HashSet::new();
    let mut rows: Vec<Rolled<'t>> = Vec::new();
    // The directories around the present file, as places in `rows`.
    let mut around: Vec<usize> = Vec::new();
    for file in tree.below(below) {
        while around.last().is_some_and(|dir| !is_in(file.path, rows[*dir].file.path)) {
            around.pop();
        }
        let once = !file.facts.is_file() || seen.insert((file.place.layer(), file.facts.inode()));
        let bytes = if once { file.facts.size() } else { 0 };
        let files = u64::from(!file.facts.is_dir());
        for dir in &around {
            rows[*dir].bytes += bytes;
            rows[*dir].files += files;
        }
        let depth = around.len();
        if file.facts.is_dir() {
            around.push(rows.len());
        }
        rows.push(Rolled { file, depth, bytes, files });
    }
    rows
}

fn is_in(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || (path.starts_with(dir) && path.get(dir.len()) == Some(&b'/'))
}

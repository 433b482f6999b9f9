//! How a tree differs from the one below it.

use std::path::PathBuf;

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// Content or metadata differ.
    Modified,
    /// The path is new.
    Added,
    /// The path is gone.
    Deleted,
}

/// Where the bytes and metadata of a changed path are: in which root, under which name.
///
/// In an overlay upper directory with `redirect_dir` or `metacopy`, a path's metadata and its data
/// may lie in different layers and under other names than the merged tree shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The index of the root: 0 is the upper (or only) one, 1 the lower right below it, and so on.
    pub root: usize,
    /// The path below that root.
    pub path: PathBuf,
}

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The path as the merged tree shows it, relative, without a leading slash; empty is the root.
    pub path: PathBuf,
    /// What happened.
    pub kind: ChangeKind,
    /// Where owner, mode, times and xattrs are read; none for a deletion.
    pub meta: Option<Location>,
    /// Where the content of a regular file is read; none for everything else.
    pub data: Option<Location>,
}

impl Change {
    /// A deletion of `path`.
    pub fn deleted(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kind: ChangeKind::Deleted, meta: None, data: None }
    }
}

/// All changes of one layer, ordered by path (byte-wise, with `/` below every other byte, so that a
/// directory comes right before its children).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changeset {
    /// The changes, in order, each path at most once.
    pub changes: Vec<Change>,
}

//! How a tree differs from the one below it.
//!
//! # What counts as a change
//! - A path is `Modified` when a reader of the tree can tell: kind, permission bits, owner,
//!   modification time (of directories too), attributes, content, link text or device number
//!   ([`compare`](crate::compare)). Inode numbers, other times, the number of names and the size of
//!   a directory do not count.
//! - The directories above a change are listed only if they are changed themselves; whoever writes
//!   a tar adds the ones that it needs.
//! - A path whose kind changed is one `Modified` entry, in whose place the new file is put. What
//!   was in an old directory is gone with it and not listed; what is in a new one is `Added`.
//! - A deletion is listed for the topmost path that is gone, not for what was below it. A directory
//!   that was removed and made again lists each of its old children that did not come back.
//! - A rename is a `Deleted` and an `Added`, the latter for everything below the new name.
//! - The root itself (the empty path) is `Modified` when its mode, owner or attributes differ. Its
//!   time does not count: every mount has a new root. Without a tree below, the root is compared
//!   with a directory of mode 0755 that belongs to root.
//! - Sockets are listed like all files; no tar carries them.

use std::cmp::Ordering;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

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

impl Changeset {
    /// Puts changes in order.
    pub fn sorted(mut changes: Vec<Change>) -> Self {
        changes.sort_unstable_by(|a, b| order(&a.path, &b.path));
        Self { changes }
    }
}

/// The order of paths in a changeset: byte-wise, with `/` below every other byte.
pub fn order(a: &Path, b: &Path) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    let (a, b) = (a.as_os_str().as_bytes(), b.as_os_str().as_bytes());
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => rank(a).cmp(&rank(b)),
        None => a.len().cmp(&b.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slash_is_below_every_byte() {
        let sorted = ["", "a", "a/b", "a/b/c", "a/c", "a b", "a-b", "a.b", "b"];
        for pair in sorted.windows(2) {
            let ordering = order(Path::new(pair[0]), Path::new(pair[1]));
            assert_eq!(ordering, Ordering::Less, "{pair:?}");
        }
        let changes: Vec<_> = sorted.into_iter().rev().map(Change::deleted).collect();
        let paths = Changeset::sorted(changes).changes.into_iter().map(|change| change.path);
        assert_eq!(paths.collect::<Vec<_>>(), sorted.map(PathBuf::from));
    }
}

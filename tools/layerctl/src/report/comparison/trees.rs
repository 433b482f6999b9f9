//! What the map of a comparison shows: changes by directory.

use crate::commands::diff::report::Change;
use crate::report::sizes::{Kind, Node, SizeTree};

/// How many nodes each map has.
const NODES: usize = 3000;

/// Bytes that are added or freed.
pub(super) fn growth(changes: &[Change]) -> Node {
    of(changes, |change| change.bytes)
}

/// Content that is new.
pub(super) fn written(changes: &[Change]) -> Node {
    of(changes, |change| i64::try_from(change.written).unwrap_or(i64::MAX))
}

/// The number of a change, as [`Scale::Changes`](crate::report::colours::Scale::Changes) has it.
pub(super) fn number(change: &Change) -> usize {
    match change.change {
        "added" => 1,
        "removed" => 3,
        _ => 2,
    }
}

/// Sums up by directory. What has no bytes is left out; fewer than none are counted as freed.
fn of(changes: &[Change], bytes: impl Fn(&Change) -> i64) -> Node {
    let mut tree = SizeTree::new("/");
    for change in changes {
        let (path, bytes) = (change.path.trim_start_matches('/').as_bytes(), bytes(change));
        if bytes != 0 {
            let kind = if bytes < 0 { Kind::Wasted } else { Kind::File };
            tree.around(path);
            tree.file(path, bytes.unsigned_abs(), number(change), kind);
        }
    }
    tree.finish(NODES)
}

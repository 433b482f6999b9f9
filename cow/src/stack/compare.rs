//! How two files and two trees differ.

use std::cmp::Ordering;

use super::{File, Tree};
use crate::apply::as_path;
use crate::change;
use crate::compare::Differences;
use crate::index::Node;
use crate::meta::FileKind;

/// In what two files differ.
///
/// The same rules as [`compare::files`](crate::compare::files): of files of different kinds only
/// that is said; symbolic links have no mode of their own. Contents without digests are told by
/// their lengths alone.
pub fn differences(a: &Node<'_>, b: &Node<'_>) -> Differences {
    if a.kind() != b.kind() {
        return Differences::KIND;
    }
    let link = a.kind() == Some(FileKind::Symlink);
    let content = match (a.digest(), b.digest()) {
        (Some(a), Some(b)) => a != b,
        _ => a.is_file() && (a.size(), a.stored()) != (b.size(), b.stored()),
    };
    Differences::NONE
        .with_if(Differences::MODE, !link && a.mode() != b.mode())
        .with_if(Differences::OWNER, (a.uid(), a.gid()) != (b.uid(), b.gid()))
        .with_if(Differences::MTIME, a.mtime() != b.mtime())
        .with_if(Differences::SIZE, a.size() != b.size())
        .with_if(Differences::CONTENT, content)
        .with_if(Differences::LINK, a.link() != b.link())
        .with_if(Differences::XATTRS, a.xattrs() != b.xattrs())
}

/// One path in which two trees differ.
#[derive(Clone, Copy, Debug)]
pub enum Difference<'a, 'b> {
    /// Only the first tree has it.
    Removed(File<'a>),
    /// Only the second tree has it.
    Added(File<'b>),
    /// Both have it, different in this.
    Changed(File<'a>, File<'b>, Differences),
}

/// Compares two trees, and gives the paths in which they differ, in order. What is below a directory
/// that only one tree has is given too.
pub fn compare<'a, 'b>(a: &'a Tree, b: &'b Tree) -> impl Iterator<Item = Difference<'a, 'b>> {
    let (mut left, mut right) = (a.files().peekable(), b.files().peekable());
    std::iter::from_fn(move || {
        loop {
            let side = match (left.peek(), right.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => change::order(as_path(a.path), as_path(b.path)),
            };
            match side {
                Ordering::Less => return left.next().map(Difference::Removed),
                Ordering::Greater => return right.next().map(Difference::Added),
                Ordering::Equal => {
                    let (a, b) = (left.next()?, right.next()?);
                    let known = !(a.facts.is_implicit() || b.facts.is_implicit());
                    let found = differences(&a.facts, &b.facts);
                    if !found.is_empty() && (known || found == Differences::KIND) {
                        return Some(Difference::Changed(a, b, found));
                    }
                }
            }
        }
    })
}

//! How a tree differs from what was below it.
//!
//! [`trees`] compares two whole trees and is right by its simplicity; it is what a backend of full
//! copies needs, and the oracle of the tests. [`overlay`] reads an overlay's upper directory and
//! costs what the change costs; so does [`touched`], for a snapshot of which the file system tells what
//! was written since. All find the same (see [`change`](crate::change) for what counts).

mod overlay;
mod touched;
mod trees;

pub use overlay::overlay;
pub use touched::{Touched, touched};
pub use trees::trees;

use crate::change::{Change, ChangeKind, Location};
use crate::compare::{self, Differences};
use crate::meta::{FileKind, Meta, Time, Xattrs};

/// The change that a path is, whose metadata and content are at the given places.
fn changed(
    path: std::path::PathBuf,
    kind: ChangeKind,
    meta: Location,
    data: Option<Location>,
) -> Change {
    Change { path, kind, meta: Some(meta), data }
}

/// Whether a root directory is modified; without a lower one, against the default of a new root.
fn root_differs(upper: (&Meta, &Xattrs), lower: Option<(&Meta, &Xattrs)>) -> bool {
    let nothing = Xattrs::new();
    let plain = Meta {
        kind: FileKind::Dir,
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        ctime: Time::default(),
        size: 0,
        blocks: 0,
        nlink: 0,
        ino: 0,
        dev: 0,
    };
    let (meta, xattrs) = lower.unwrap_or((&plain, &nothing));
    let differences = compare::metadata(upper.0, meta).without(Differences::MTIME);
    !differences.is_empty() || upper.1 != xattrs
}

#[cfg(test)]
mod tests;

//! What drivers have in common whose layers are whole trees, nothing being merged: each layer shows
//! its own tree, and a view its parent's.

use std::io::Read;

use cow::apply::ApplyOptions;
use cow::root::Root;
use cow::whiteout::WhiteoutFormat;

use crate::driver::{Access, Applied, State};
use crate::home::Layer;
use crate::home::meta::Meta;
use crate::id::LayerId;

/// The layer whose tree a layer shows: its own, but a view's is its parent's.
pub(crate) fn shown(meta: &Meta) -> LayerId {
    match (&meta.parent, meta.state) {
        (Some(parent), State::View) => parent.clone(),
        _ => meta.id.clone(),
    }
}

/// Whether a layer has a tree of its own.
pub(crate) fn has_tree(meta: &Meta) -> bool {
    shown(meta) == meta.id
}

/// Whether a layer is mounted writable.
pub(crate) fn writable(layer: &Layer, access: Access) -> bool {
    layer.state() == State::Active && access == Access::Default
}

/// Applies a tar to a tree by doing what it says: what it deletes is deleted.
pub(crate) fn apply(tree: &Root, tar: &mut dyn Read, is_bottom: bool) -> cow::Result<Applied> {
    if is_bottom {
        forget_time(tree)?;
    }
    let options = ApplyOptions { writeback: true, ..ApplyOptions::new(WhiteoutFormat::Remove) };
    let applied = cow::apply::apply(tree, tar, &options)?;
    Ok(Applied {
        tar_size: applied.tar_size,
        content_size: applied.content_size,
        entries: applied.entries,
    })
}

/// Dates a bottom layer's root to the epoch, as applying does with other directories that the tar may
/// not have: nothing of the present time gets into a layer.
fn forget_time(tree: &Root) -> cow::Result<()> {
    let epoch = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: epoch, last_modification: epoch };
    rustix::fs::futimens(tree.open_dir("")?, &times)
        .map_err(|errno| tree.error("set times", "", errno))
}

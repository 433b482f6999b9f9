//! What the layers below have at a path, and what is brought up from there.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;

use super::place::Dir;
use crate::copy::{self, Copier, Source};
use crate::error::Result;
use crate::overlay_view::{Node, OverlayView};
use crate::root::{Resolve, Root};
use crate::whiteout::XattrSpace;
use crate::xattr;

/// Stacks the lower layers of a target.
pub(super) fn stack(lowers: &[Root], space: XattrSpace) -> OverlayView<'_> {
    OverlayView::new(lowers.iter().collect(), space)
}

/// The text of a symbolic link of a lower layer.
pub(super) fn text(view: &OverlayView<'_>, link: &Node) -> Result<OsString> {
    view.root(&link.meta_at)?.readlink(&link.meta_at.path)
}

/// All names that the root of the stack shows.
pub(super) fn root_names(view: &OverlayView<'_>) -> Result<BTreeSet<OsString>> {
    let top = view.top();
    let open = view.open(&top);
    let mut names = BTreeSet::new();
    for name in open.candidates()?.iter() {
        if open.lookup(name)?.is_some() {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// Copies a lower file that is no directory to a name in a directory of the target.
pub(super) fn copy_up(view: &OverlayView<'_>, node: &Node, here: &Dir, name: &OsStr) -> Result<()> {
    let data_at = node.data_at.as_ref().unwrap_or(&node.meta_at);
    let root = view.root(&node.meta_at)?;
    let (dir, own) = root.parent(&node.meta_at.path, Resolve::Beneath)?;
    let (data_dir, data) = view.root(data_at)?.parent(&data_at.path, Resolve::Beneath)?;
    let fail = |errno| root.error("copy up", &node.meta_at.path, errno);
    let mut xattrs = xattr::read_at(&dir, own).map_err(fail)?;
    xattrs.retain(|attr, _| view.marks().visible(attr).is_some());
    let source = Source {
        meta: &node.meta,
        xattrs: &xattrs,
        at: (dir.as_fd(), own),
        data: (data_dir.as_fd(), data),
    };
    copy::node(&Copier::new(), &source, here, name).map_err(fail)?;
    Ok(())
}

//! What is in a layer: applying a tar, putting it in its final form, and how it differs from the
//! layers below.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::AsFd as _;

use cow::change::Changeset;
use cow::root::Root;
use cow::walk::{Vanished, Walk};
use cow::whiteout::{self, XattrSpace};
use cow::xattr;

use super::{DIFF, Overlay2};
use crate::call::Call;
use crate::driver::{Applied, Usage};
use crate::error::{ErrorKind, Result};
use crate::home::Layer;
use crate::home::commit::Sealing;
use crate::id::LayerId;

impl Overlay2 {
    /// The own directory of a layer.
    pub(super) fn diff_root(&self, id: &LayerId) -> cow::Result<Root> {
        let dir = self.home.open_in_layer(id, DIFF)?;
        Ok(Root::from_fd(dir, self.home.layer_path(id, DIFF)))
    }

    /// The own directories of some layers.
    fn diff_roots<'a>(&self, ids: impl Iterator<Item = &'a LayerId>) -> cow::Result<Vec<Root>> {
        ids.map(|id| self.diff_root(id)).collect()
    }

    /// The space that a layer takes now.
    pub(super) fn measure(&self, id: &LayerId) -> cow::Result<Usage> {
        let usage = cow::usage::usage(&self.diff_root(id)?)?;
        Ok(Usage { bytes: usage.bytes, inodes: usage.inodes })
    }

    /// Applies a tar to an active layer, whose gate is owned.
    pub(super) fn apply_to(
        &self,
        call: Call<'_>,
        layer: &Layer,
        tar: &mut dyn Read,
    ) -> Result<Applied> {
        self.home.check_appliable(call, layer)?;
        let _ = tar;
        Err(call.refused(ErrorKind::Unsupported, "not yet"))
    }

    /// Puts the data of a layer that is being committed in its final form, and measures it.
    pub(super) fn seal(&self, sealing: &Sealing<'_>) -> Result<Usage> {
        let id = &sealing.layer.id;
        let call = self.home.call("commit", id);
        let finish = || {
            let root = self.diff_root(id)?;
            if sealing.lowers.is_empty() {
                drop_marks(&root, self.marks())?;
            }
            self.measure(id)
        };
        finish().map_err(|error| call.failed(error))
    }

    /// How a layer differs from `base`, or from the layer below it.
    pub(super) fn changes_of(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
    ) -> Result<Changeset> {
        let _ = (layer, base);
        Err(call.refused(ErrorKind::Unsupported, "not yet"))
    }

    /// Writes the difference as a tar.
    pub(super) fn write_diff(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
        out: &mut dyn Write,
    ) -> Result<u64> {
        let _ = (layer, base, out);
        Err(call.refused(ErrorKind::Unsupported, "not yet"))
    }
}

/// Removes whiteouts and opaque marks, which hide nothing in a layer at the bottom: a bind mount
/// would show them.
fn drop_marks(root: &Root, marks: XattrSpace) -> cow::Result<()> {
    let mut whiteouts = Vec::new();
    let mut opaque = Vec::new();
    let mut walk = Walk::new(root, Vanished::Fail)?;
    while let Some(entry) = walk.next_entry()? {
        if entry.meta.is_dir() {
            if whiteout::is_opaque(root, entry.path, marks)? {
                opaque.push(entry.path.to_owned());
            }
        } else if entry.meta.is_whiteout_device() {
            whiteouts.push(entry.path.to_owned());
        }
    }
    for path in whiteouts {
        let (dir, name) = root.parent(&path, cow::root::Resolve::Beneath)?;
        rustix::fs::unlinkat(dir.as_fd(), name, rustix::fs::AtFlags::empty())
            .map_err(|errno| root.error("unlink whiteout", &path, errno))?;
    }
    for path in opaque {
        let (dir, name) = root.parent(&path, cow::root::Resolve::Beneath)?;
        xattr::remove_at(dir.as_fd(), name, OsStr::new(marks.opaque()))
            .map_err(|errno| root.error("removexattr", &path, errno))?;
    }
    Ok(())
}

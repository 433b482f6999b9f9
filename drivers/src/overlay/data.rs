//! What is in a layer: applying a tar, putting it in its final form, and how it differs from the
//! layers below.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use cow::apply::ApplyOptions;
use cow::change::Changeset;
use cow::root::Root;
use cow::walk::{Vanished, Walk};
use cow::whiteout::{WhiteoutFormat, XattrSpace};
use cow::xattr;

use super::{Backend as _, DIFF, Overlay, Plan, Union, bind};
use crate::call::Call;
use crate::driver::{Access, Applied, State, Usage};
use crate::error::Result;
use crate::home::Layer;
use crate::home::commit::Sealing;
use crate::home::meta::Meta;
use crate::home::mounts::MERGED;
use crate::id::LayerId;
use crate::private;

impl<U: Union> Overlay<U> {
    /// The own directory of a layer.
    pub(super) fn diff_root(&self, id: &LayerId) -> cow::Result<Root> {
        let dir = self.home.open_in_layer(id, DIFF)?;
        Ok(Root::from_fd(dir, self.home.layer_path(id, DIFF)))
    }

    /// Applies a tar to an active layer, whose gate is owned.
    pub(super) fn apply_to(
        &self,
        call: Call<'_>,
        layer: &Layer,
        tar: &mut dyn Read,
    ) -> Result<Applied> {
        let meta = layer.meta();
        let options = ApplyOptions {
            writeback: true,
            ..ApplyOptions::new(WhiteoutFormat::Overlay(self.union.marks()))
        };
        let below = self.below(call, layer)?;
        let apply = || {
            if below.is_empty() {
                self.settle(&layer.id)?;
            }
            let target = self.diff_root(&layer.id)?;
            if below.is_empty() {
                // What is below comes at commit, or never.
                return cow::apply::apply(&target, tar, &options);
            }
            // The parents as one tree, so that renamed directories and metadata-only copies in them
            // are what they show.
            let lowers = [self.shown(below.iter().map(|layer| &layer.id))?];
            cow::apply::apply(&target, tar, &options.on(&lowers))
        };
        let applied = apply().map_err(|error| call.failed(error))?;
        if meta.parent.is_none() && !applied.implicit_dirs.is_empty() {
            let mut meta = Meta::clone(&meta);
            let dirs = applied.implicit_dirs.iter().map(|path| path.as_path().into());
            meta.implicit.extend(dirs);
            self.home.update(call, layer, meta)?;
        }
        Ok(Applied {
            tar_size: applied.tar_size,
            content_size: applied.content_size,
            entries: applied.entries,
        })
    }

    /// Puts the data of a layer that is being committed in its final form, and measures it.
    pub(super) fn finish(&self, sealing: &Sealing<'_>) -> Result<Usage> {
        let id = &sealing.layer.id;
        let call = self.home.call("commit", id);
        let done = || {
            let root = self.diff_root(id)?;
            let implicit = &sealing.layer.meta().implicit;
            if sealing.lowers.is_empty() {
                drop_marks(&root, self.union.marks())?;
            } else if !implicit.is_empty() {
                let dirs: Vec<PathBuf> = implicit.iter().map(Into::into).collect();
                let lowers = [self.shown(sealing.lowers.iter().map(|layer| &layer.id))?];
                cow::apply::adopt_implicit(&root, &dirs, &lowers, self.union.marks())?;
            }
            self.measure(id)
        };
        done().map_err(|error| call.failed(error))
    }

    /// How a layer differs from `base`, or from the layer below it, with the roots that the
    /// locations are in.
    pub(super) fn compare(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
    ) -> Result<(Changeset, Vec<Root>)> {
        self.mend(call, layer)?;
        let meta = layer.meta();
        let is_view = meta.state == State::View && meta.parent.is_some();
        let direct = base.is_none() || base == meta.parent.as_ref();
        let between = match base {
            Some(base) => self.home.check_ancestor(call, &meta, base)?,
            None => Vec::new(),
        };
        match (direct, is_view, between.first()) {
            // A view adds nothing to what it shows.
            (true, true, _) => Ok((Changeset::default(), Vec::new())),
            (true, false, _) => self.own_difference(call, layer),
            (false, true, Some(only)) if between.len() == 1 => self.own_difference(call, only),
            _ => self.stack_difference(call, layer, base),
        }
    }

    /// What a layer's own directory changes in the layers below: costs what the change costs.
    fn own_difference(&self, call: Call<'_>, layer: &Layer) -> Result<(Changeset, Vec<Root>)> {
        let below = self.below(call, layer)?;
        let compare = || {
            let mut roots = vec![self.diff_root(&layer.id)?];
            for layer in &below {
                roots.push(self.diff_root(&layer.id)?);
            }
            let lowers: Vec<&Root> = roots.iter().skip(1).collect();
            let changes = cow::diff::overlay(&roots[0], &lowers, self.union.marks())?;
            Ok((changes, roots))
        };
        compare().map_err(|error| call.failed(error))
    }

    /// What several layers together change: both stacks are mounted privately and walked.
    fn stack_difference(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
    ) -> Result<(Changeset, Vec<Root>)> {
        let lower = match base {
            Some(base) => {
                Some(self.merged(call, &*self.home.layer(Call { layer: base, ..call })?)?)
            }
            None => None,
        };
        let upper = self.merged(call, layer)?;
        let changes = cow::diff::trees(lower.as_ref(), &upper).map_err(|e| call.failed(e))?;
        Ok((changes, vec![upper]))
    }

    /// What a layer shows, mounted privately and read-only.
    fn merged(&self, call: Call<'_>, layer: &Layer) -> Result<Root> {
        let plan = self.plan(call, layer, Access::ReadOnly)?;
        self.mounted(&plan, &layer.id).map_err(|error| call.failed(error))
    }

    /// What some layers show together, the uppermost first.
    fn shown<'a>(&self, stack: impl Iterator<Item = &'a LayerId>) -> cow::Result<Root> {
        let stack: Vec<_> = stack.cloned().collect();
        let Some(top) = stack.first().cloned() else {
            return Err(cow::Error::invalid("mount", "", "no layers"));
        };
        self.mounted(&Plan::read_only(stack), &top)
    }

    fn mounted(&self, plan: &Plan, top: &LayerId) -> cow::Result<Root> {
        let mount = match plan {
            Plan::Bind { layer, .. } => private::mount(&self.home, &bind(&self.home, layer, false)),
            Plan::Merge(merge) => self.union.private(&self.home, &merge.stack(&self.home)),
        };
        Ok(Root::from_fd(mount?, self.home.layer_path(top, MERGED)))
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
            let mark = xattr::get_at(entry.dir, entry.name, OsStr::new(marks.opaque()))
                .map_err(|errno| root.error("getxattr", entry.path, errno))?;
            if mark.is_some() {
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

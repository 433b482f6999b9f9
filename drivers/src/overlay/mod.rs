//! Layers as upper directories of overlayfs, whoever merges them: the kernel (`overlay2`) or the
//! program `layerfs` (`fuse`).
//!
//! ```text
//! layers/<id>/
//!     layer.json   see `home`
//!     diff/        what the layer adds, with overlayfs's whiteouts; the root's owner and mode are
//!                  those of the parent's root at first
//!     work/        the union's own, for an active layer with a parent
//!     merged/      the mount point, only while mounted
//! ```
//!
//! A layer on a parent is mounted with the parents as `lowerdir`s, a lone layer by a bind mount. A
//! view of a parent has no directories at all. A committed layer keeps `diff` alone.

mod data;
mod plan;
mod settle;
mod trial;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::io::Read;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use cow::whiteout::XattrSpace;
use cow::{at, xattr};
use rustix::fs::Mode;

use crate::backend::{self, Backend, Difference};
use crate::backing;
use crate::call::Call;
use crate::driver::{Access, Applied, Capabilities, Mount, State, Usage};
use crate::error::{ErrorKind, Result};
use crate::home::check::Required;
use crate::home::commit::Sealing;
use crate::home::meta::Meta;
use crate::home::mounts::{Ending, MERGED};
use crate::home::{Home, Layer, fs};
use crate::id::LayerId;
pub(crate) use plan::{Plan, Stack};
pub(crate) use trial::{Trial, in_user_namespace};

/// A layer's own content.
pub(crate) const DIFF: &str = "diff";
/// The union's scratch directory.
pub(crate) const WORK: &str = "work";

/// How many layers are merged: the kernel's `OVL_MAX_STACK` (Linux 5.1), and layerfs's limit.
const MAX_LOWERS: usize = 500;

/// Who merges directories into one tree.
pub(crate) trait Union: Send + Sync + Debug {
    /// Whether clients can mount a stack for themselves.
    const CLIENT_MOUNTS: bool;

    /// Where it keeps its marks.
    fn marks(&self) -> XattrSpace;

    /// Whether upper directories are never synced.
    fn volatile(&self) -> bool;

    /// Whether it merges layers that are seen through an id-mapped mount.
    fn maps_ids(&self) -> bool {
        false
    }

    /// The mount of a stack for clients, who join the options; none if they cannot make it.
    fn for_clients(&self, _stack: &Stack) -> Option<Mount> {
        None
    }

    /// Shows a stack on a layer's mount point, which is `target`.
    fn attach(&self, call: Call<'_>, home: &Home, stack: &Stack, target: &OwnedFd) -> Result<()>;

    /// Shows a stack to nobody else, as long as the file descriptor is open.
    fn private(&self, home: &Home, stack: &Stack) -> cow::Result<OwnedFd>;

    /// Keeps whoever will still have a layer's mount, which is about to be taken off, from changing
    /// the layer, if that can be done.
    fn freeze(&self, _call: Call<'_>, _home: &Home) {}

    /// Waits until nothing of a layer's last mount, which is gone, can change the layer.
    ///
    /// # Errors
    /// `FailedPrecondition` when somebody holds on to it.
    fn quiesce(&self, _call: Call<'_>, _home: &Home) -> Result<()> {
        Ok(())
    }

    /// Makes good what a crash left of an active layer, unless it is mounted, so that its directory can be read.
    fn mend(&self, _call: Call<'_>, _home: &Home) -> Result<()> {
        Ok(())
    }

    /// Whether whoever serves the mount of a layer has died under it.
    fn is_dead(&self, _home: &Home, _id: &LayerId) -> bool {
        false
    }

    /// Clears away after a layer's mount is gone.
    fn detached(&self, _call: Call<'_>, _home: &Home) -> Result<()> {
        Ok(())
    }

    /// Removes what it keeps in the directory of a layer that is committed now.
    fn forget(&self, _dir: &OwnedFd) {}

    /// What `docker info` shows of it.
    fn facts(&self) -> Vec<(&'static str, String)>;
}

/// A driver of such layers.
#[derive(Debug)]
pub(crate) struct Overlay<U> {
    pub(crate) home: Home,
    pub(crate) union: U,
}

impl<U: Union> Overlay<U> {
    /// The layers below one, the uppermost first.
    fn below(&self, call: Call<'_>, layer: &Layer) -> Result<Vec<Arc<Layer>>> {
        match &layer.meta().parent {
            Some(parent) => self.home.stack(call, parent),
            None => Ok(Vec::new()),
        }
    }

    fn plan(&self, call: Call<'_>, layer: &Layer, access: Access) -> Result<Plan> {
        let below = self.below(call, layer)?;
        Ok(Plan::new(layer, below.iter().map(|layer| &layer.id), access))
    }

    /// Attaches the mount of a plan that shows a layer.
    fn attach(&self, call: Call<'_>, layer: &Layer, plan: &Plan, target: &OwnedFd) -> Result<()> {
        match plan {
            Plan::Bind { layer: shown, writable } => {
                backend::attach(call, layer, &bind(&self.home, shown, *writable), target)
            }
            Plan::Merge(merge) => {
                if merge.upper.is_some() {
                    self.union.quiesce(call, &self.home)?;
                } else {
                    self.mend(call, layer)?;
                }
                let mut stack = merge.stack(&self.home);
                // The layers come through a mount of their own that maps their ids: all of them, so
                // that new files have the container's ids on the disk as well.
                let maps = layer.meta().id_map.clone();
                let mapped = maps.map(|maps| self.home.mapped_layers(&maps)).transpose();
                let mapped = mapped.map_err(|error| call.failed(error))?;
                if let Some(mapped) = &mapped {
                    stack.base = format!("/proc/self/fd/{}", mapped.as_raw_fd()).into();
                }
                self.union.attach(call, &self.home, &stack, target)
            }
        }
    }

    /// Sees that what is read of a layer without its mount is whole.
    fn mend(&self, call: Call<'_>, layer: &Layer) -> Result<()> {
        let merged = layer.state() == State::Active && layer.meta().parent.is_some();
        if merged { self.union.mend(call, &self.home) } else { Ok(()) }
    }

    /// Sees that a layer can have another one on it, and that one can be shown when it is committed.
    fn check_depth(&self, call: Call<'_>, parent: &LayerId) -> Result<()> {
        let Ok(stack) = self.home.stack(call, parent) else { return Ok(()) };
        if stack.len() >= MAX_LOWERS {
            let reason = format!("overlay merges at most {MAX_LOWERS} layers");
            return Err(call.refused(ErrorKind::Unsupported, reason));
        }
        Ok(())
    }
}

/// The mount of a single layer.
fn bind(home: &Home, layer: &LayerId, writable: bool) -> Mount {
    Mount {
        fstype: "bind".to_owned(),
        source: home.layer_path(layer, DIFF),
        options: vec!["rbind".to_owned(), if writable { "rw" } else { "ro" }.to_owned()],
    }
}

/// Gives the root directory of a new layer the owner, mode, attributes and time of its parent's.
fn copy_root(from: &OwnedFd, to: &OwnedFd) -> cow::Result<()> {
    let failed = |step| move |errno| cow::Error::sys(step, DIFF, errno);
    let here = OsStr::new("");
    let meta = at::meta_of(from).map_err(failed("statx"))?;
    at::chown_at(to, here, meta.uid, meta.gid).map_err(failed("chown"))?;
    for (name, value) in xattr::read_at(from, here).map_err(failed("getxattr"))? {
        if !cow::whiteout::is_overlay_xattr(&name) {
            xattr::set_at(to, here, &name, &value).map_err(failed("setxattr"))?;
        }
    }
    // After the owner, whose change clears bits, and after the ACLs, which hold some of them.
    rustix::fs::fchmod(to, Mode::from_raw_mode(meta.mode)).map_err(failed("chmod"))?;
    at::set_mtime_at(to, here, meta.mtime).map_err(failed("utimensat"))
}

impl<U: Union> Backend for Overlay<U> {
    fn home(&self) -> &Home {
        &self.home
    }

    fn able(&self) -> Capabilities {
        Capabilities {
            rebase: true,
            native_diff: true,
            quota: false,
            client_mounts: U::CLIENT_MOUNTS,
            id_map: self.union.maps_ids(),
        }
    }

    fn check_new(&self, call: Call<'_>, parent: Option<&LayerId>, state: State) -> Result<()> {
        match parent.filter(|_| state == State::Active) {
            Some(parent) => self.check_depth(call, parent),
            None => Ok(()),
        }
    }

    fn build(&self, call: Call<'_>, meta: &mut Meta, dir: BorrowedFd<'_>) -> Result<()> {
        let failed = |error| call.failed(error);
        if meta.state == State::View && meta.parent.is_some() {
            return Ok(());
        }
        let diff = fs::make_dir(dir, DIFF, 0o755).map_err(failed)?;
        if let Some(parent) = &meta.parent {
            let parent = self.home.open_in_layer(parent, DIFF).map_err(failed)?;
            copy_root(&parent, &diff).map_err(failed)?;
            if meta.state == State::Active {
                fs::make_dir(dir, WORK, 0o700).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn fill(&self, call: Call<'_>, layer: &Layer, tar: &mut dyn Read) -> Result<Applied> {
        self.union.quiesce(call, &self.home)?;
        self.apply_to(call, layer, tar)
    }

    fn seal(&self, sealing: &Sealing<'_>) -> Result<Usage> {
        self.union.quiesce(self.home.call("commit", &sealing.layer.id), &self.home)?;
        self.finish(sealing)
    }

    /// What fails here is only space.
    fn sealed(&self, id: &LayerId) {
        if let Ok(dir) = self.home.open_in_layer(id, ".") {
            let _ = fs::remove_tree(&dir, WORK);
            self.union.forget(&dir);
        }
    }

    fn describe(&self, call: Call<'_>, layer: &Layer, access: Access) -> Result<Vec<Mount>> {
        layer.mounted().settle();
        let mount = match self.plan(call, layer, access)? {
            Plan::Bind { layer, writable } => Some(bind(&self.home, &layer, writable)),
            Plan::Merge(merge) => self.union.for_clients(&merge.stack(&self.home)),
        };
        mount.map(|mount| vec![mount]).ok_or_else(|| {
            call.refused(ErrorKind::Unsupported, "only the daemon can mount this layer")
        })
    }

    fn show(&self, call: Call<'_>, layer: &Layer, access: Access) -> Result<PathBuf> {
        let plan = self.plan(call, layer, access)?;
        let attach = |target: &OwnedFd| self.attach(call, layer, &plan, target);
        let is_dead = || self.union.is_dead(&self.home, &layer.id);
        self.home.revive_mount(call, layer, is_dead, attach)?;
        self.home.take_mount(call, layer, plan.writable(), attach)
    }

    fn hide(&self, call: Call<'_>, layer: &Layer) -> Result<()> {
        let ending = match layer.meta().parent {
            Some(_) if !self.union.volatile() => Ending::Slow,
            _ => Ending::Quick,
        };
        let freeze = || {
            // A lone layer's mount is the home's own file system, which is not ours to freeze.
            if layer.state() == State::Active && layer.meta().parent.is_some() {
                self.union.freeze(call, &self.home);
            }
        };
        let detached = || self.union.detached(call, &self.home);
        self.home.drop_mount_after(call, layer, ending, freeze, detached)
    }

    fn difference(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
    ) -> Result<Difference<'_>> {
        let (changes, roots) = self.compare(call, layer, base)?;
        Ok(Difference::new(changes, roots))
    }

    fn measure(&self, id: &LayerId) -> cow::Result<Usage> {
        let usage = cow::usage::usage(&self.diff_root(id)?)?;
        Ok(Usage { bytes: usage.bytes, inodes: usage.inodes, content: usage.content })
    }

    fn keys(&self, call: Call<'_>, layer: &Layer) -> Result<BTreeMap<String, String>> {
        let below = self.below(call, layer)?;
        let path = |id: &LayerId, name| self.home.layer_path(id, name).display().to_string();
        let lowers: Vec<_> = below.iter().map(|layer| path(&layer.id, DIFF)).collect();
        let mut keys = BTreeMap::from([
            ("UpperDir".to_owned(), path(&layer.id, DIFF)),
            ("WorkDir".to_owned(), path(&layer.id, WORK)),
            ("MergedDir".to_owned(), path(&layer.id, MERGED)),
        ]);
        if !lowers.is_empty() {
            keys.insert("LowerDir".to_owned(), lowers.join(":"));
        }
        Ok(keys)
    }

    fn owner_of_root(&self, id: &LayerId) -> cow::Result<(u32, u32)> {
        backend::owner_of(self.home.open_in_layer(id, DIFF)?)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let backing = backing::name(self.home.root()).to_owned();
        // Without file types the driver does not open.
        let mut facts = vec![("Backing Filesystem", backing), ("Supports d_type", "true".into())];
        facts.extend(self.union.facts());
        facts.push(("Native Overlay Diff", "true".to_owned()));
        facts.push(("userxattr", (self.union.marks() == XattrSpace::User).to_string()));
        facts
    }

    fn required(&self, layer: &Layer) -> Vec<Required> {
        let meta = layer.meta();
        let mut required = Vec::new();
        if meta.state != State::View || meta.parent.is_none() {
            required.push(Required { name: DIFF, data: true });
        }
        if meta.state == State::Active && meta.parent.is_some() {
            required.push(Required { name: WORK, data: false });
        }
        required
    }
}

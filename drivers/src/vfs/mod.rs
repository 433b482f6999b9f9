//! The vfs driver: each layer is a full tree of its own.
//!
//! ```text
//! layers/<id>/
//!     layer.json   see `home`
//!     tree/        everything the layer shows
//!     merged/      the mount point, only while mounted
//! ```
//!
//! It works on every file system and asks nothing of the kernel but bind mounts. A layer costs a
//! copy of its parent, by reflink where the file system has them; a view is its parent's tree. As
//! nothing is merged there is nothing to get wrong, which makes it the oracle that the tests hold the
//! other drivers to.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cow::apply::ApplyOptions;
use cow::change::Changeset;
use cow::copy::Options;
use cow::root::Root;
use cow::whiteout::WhiteoutFormat;

use crate::backing;
use crate::call::{Call, HomeCall};
use crate::driver::{
    Access, Applied, Capabilities, CreateOptions, Driver, Finding, LayerInfo, LayerRecord, Mount,
    State, Usage,
};
use crate::error::{ErrorKind, Result};
use crate::home::check::Required;
use crate::home::meta::Meta;
use crate::home::mounts::{Ending, MERGED};
use crate::home::{self, Home, Layer, fs};
use crate::id::LayerId;
use crate::options::Given;
use crate::quota;

/// The driver's name.
pub(crate) const NAME: &str = "vfs";

/// A layer's content.
const TREE: &str = "tree";

/// The options that the driver and its layers take.
const KNOWN: [&str; 1] = ["size"];

/// The driver. See the [module](self).
#[derive(Debug)]
pub(crate) struct Vfs {
    home: Home,
}

impl Vfs {
    /// Opens a home.
    pub(crate) fn open<S: AsRef<str>>(path: &Path, list: &[S]) -> Result<Self> {
        let call = HomeCall { driver: NAME, op: "open" };
        let size = Given::parse(call, &KNOWN, list)?.size(call, "size")?;
        let home = Home::open(NAME, path, &[])?;
        if size.is_some() {
            quota::refuse(home.root(), home.path()).map_err(|why| {
                call.refused(ErrorKind::Unsupported, format!("option size: {why}"))
            })?;
        }
        Ok(Self { home })
    }

    /// Sees whether the driver works below `dir`, without leaving anything there.
    pub(crate) fn probe(dir: &Path) -> Result<()> {
        let call = HomeCall { driver: NAME, op: "probe" };
        home::try_in(call, dir, |home| Self::open::<&str>(home, &[]).map(drop))
    }

    fn tree(&self, id: &LayerId) -> cow::Result<Root> {
        let dir = self.home.open_in_layer(id, TREE)?;
        Ok(Root::from_fd(dir, self.home.layer_path(id, TREE)))
    }

    /// The tree that a layer shows.
    fn shown_tree(&self, layer: &Layer) -> cow::Result<Root> {
        self.tree(&shown(&layer.meta()))
    }

    /// Fills the directory of a new layer.
    fn build(&self, call: Call<'_>, meta: &Meta, dir: BorrowedFd<'_>) -> Result<()> {
        if shown(meta) != meta.id {
            return Ok(());
        }
        let build = || {
            let tree = fs::make_dir(dir, TREE, 0o755)?;
            if let Some(parent) = &meta.parent {
                let path = self.home.layer_path(&meta.id, TREE);
                let to = Root::from_fd(tree, path);
                cow::copy::tree(&self.tree(parent)?, &to, Options::default())?;
            }
            Ok(())
        };
        build().map_err(|error| call.failed(error))
    }

    /// The mount that shows a layer.
    fn describe(&self, layer: &Layer, access: Access) -> Mount {
        let writable = writable(layer, access);
        Mount {
            fstype: "bind".to_owned(),
            source: self.home.layer_path(&shown(&layer.meta()), TREE),
            options: vec!["rbind".to_owned(), if writable { "rw" } else { "ro" }.to_owned()],
        }
    }

    fn attach(&self, call: Call<'_>, mount: &Mount, target: &OwnedFd) -> Result<()> {
        cow_sys::mount::mount_at(&mount.fstype, &mount.source, &mount.options, target)
            .map_err(|error| call.refused(ErrorKind::of_io(error.io()), error.to_string()))
    }

    /// How a layer differs from `base`, or from the layer below it, with the root that the locations
    /// are in.
    fn difference(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
    ) -> Result<(Changeset, Root)> {
        let meta = layer.meta();
        let below = match base {
            Some(base) => {
                self.home.check_ancestor(call, &meta, base)?;
                Some(base)
            }
            None => meta.parent.as_ref(),
        };
        let compare = || {
            let lower = below.map(|id| self.tree(id)).transpose()?;
            let upper = self.shown_tree(layer)?;
            Ok((cow::diff::trees(lower.as_ref(), &upper)?, upper))
        };
        compare().map_err(|error| call.failed(error))
    }

    fn required(layer: &Layer) -> Vec<Required> {
        let own = shown(&layer.meta()) == layer.id;
        own.then_some(Required { name: TREE, data: true }).into_iter().collect()
    }
}

/// The layer whose tree a layer shows: its own, but a view's is its parent's.
fn shown(meta: &Meta) -> LayerId {
    match (&meta.parent, meta.state) {
        (Some(parent), State::View) => parent.clone(),
        _ => meta.id.clone(),
    }
}

/// Whether a layer is mounted writable.
fn writable(layer: &Layer, access: Access) -> bool {
    layer.state() == State::Active && access == Access::Default
}

impl Driver for Vfs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { client_mounts: true, ..Capabilities::default() }
    }

    fn create(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        options: &CreateOptions,
    ) -> Result<()> {
        let call = self.home.call("create", id);
        let given = HomeCall { driver: NAME, op: "create" };
        let size =
            Given::of_layer(given, &KNOWN, &options.options)?.size(given, "size")?.or(options.size);
        if size.is_some() {
            quota::refuse(self.home.root(), self.home.path()).map_err(|why| {
                call.refused(ErrorKind::Unsupported, format!("option size: {why}"))
            })?;
        }
        if options.state == State::Committed {
            return Err(call.refused(ErrorKind::InvalidArgument, "a layer is not made committed"));
        }
        let mut meta = Meta::new(id.clone(), parent.cloned(), options.state);
        meta.record.labels = options.labels.clone();
        let shape = meta.clone();
        self.home.create(call, meta, |dir| self.build(call, &shape, dir))
    }

    fn apply(&self, id: &LayerId, tar: &mut dyn Read) -> Result<Applied> {
        let call = self.home.call("apply", id);
        let layer = self.home.layer(call)?;
        let _gate = layer.own(call)?;
        self.home.check_appliable(call, &layer)?;
        let options = ApplyOptions { writeback: true, ..ApplyOptions::new(WhiteoutFormat::Remove) };
        let applied = self.tree(id).and_then(|tree| {
            if layer.meta().parent.is_none() {
                forget_time(&tree)?;
            }
            cow::apply::apply(&tree, tar, &options)
        });
        let applied = applied.map_err(|error| call.failed(error))?;
        Ok(Applied {
            tar_size: applied.tar_size,
            content_size: applied.content_size,
            entries: applied.entries,
        })
    }

    fn commit(&self, id: &LayerId, record: &LayerRecord) -> Result<LayerInfo> {
        let call = self.home.call("commit", id);
        let infos = self.commit_many(&[(id.clone(), record.clone())])?;
        infos.into_iter().next().ok_or_else(|| call.not_found())
    }

    fn commit_many(&self, batch: &[(LayerId, LayerRecord)]) -> Result<Vec<LayerInfo>> {
        self.home.commit(batch, false, |sealing| self.measure(&sealing.layer.id))
    }

    fn remove(&self, id: &LayerId) -> Result<()> {
        self.home.remove(self.home.call("remove", id))
    }

    fn info(&self, id: &LayerId) -> Result<LayerInfo> {
        Ok(self.home.layer(self.home.call("info", id))?.meta().info())
    }

    fn list(&self) -> Result<Vec<LayerInfo>> {
        Ok(self.home.layers().iter().map(|layer| layer.meta().info()).collect())
    }

    fn mounts(&self, id: &LayerId, access: Access) -> Result<Vec<Mount>> {
        let layer = self.home.layer(self.home.call("mounts", id))?;
        Ok(vec![self.describe(&layer, access)])
    }

    fn mount(&self, id: &LayerId, access: Access) -> Result<PathBuf> {
        let call = self.home.call("mount", id);
        let layer = self.home.layer(call)?;
        let _gate = layer.share(call)?;
        let mount = self.describe(&layer, access);
        self.home.take_mount(call, &layer, writable(&layer, access), |target| {
            self.attach(call, &mount, target)
        })
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        let call = self.home.call("unmount", id);
        let layer = self.home.layer(call)?;
        self.home.drop_mount(call, &layer, Ending::Quick, || Ok(()))
    }

    fn changes(&self, id: &LayerId, base: Option<&LayerId>) -> Result<Changeset> {
        let call = self.home.call("changes", id);
        let layer = self.home.layer(call)?;
        let _gate = layer.share(call)?;
        self.difference(call, &layer, base).map(|(changes, _)| changes)
    }

    fn diff(&self, id: &LayerId, base: Option<&LayerId>, out: &mut dyn Write) -> Result<u64> {
        let call = self.home.call("diff", id);
        let layer = self.home.layer(call)?;
        let _gate = layer.share(call)?;
        let (changes, root) = self.difference(call, &layer, base)?;
        cow::pack::pack(&changes, &[root], out).map_err(|error| call.failed(error))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        let call = self.home.call("usage", id);
        let layer = self.home.layer(call)?;
        let _gate = layer.share(call)?;
        let meta = layer.meta();
        match meta.usage {
            Some(usage) => Ok(usage),
            None if shown(&meta) != *id => Ok(Usage::default()),
            None => self.measure(id),
        }
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        self.home.layer(self.home.call("metadata", id))?;
        let path = |name| self.home.layer_path(id, name).display().to_string();
        Ok(BTreeMap::from([
            ("UpperDir".to_owned(), path(TREE)),
            ("MergedDir".to_owned(), path(MERGED)),
        ]))
    }

    fn status(&self) -> Vec<(String, String)> {
        vec![("Backing Filesystem".to_owned(), backing::name(self.home.root()).to_owned())]
    }

    fn check(&self) -> Result<Vec<Finding>> {
        self.home.check(Self::required)
    }

    fn repair(&self) -> Result<Vec<Finding>> {
        self.home.repair(Self::required)
    }

    fn cleanup(&self) -> Result<()> {
        self.home.unmount_all()
    }
}

impl Vfs {
    /// The space that a layer's tree takes now: all of it, as nothing is shared with its parent
    /// that the file system could tell.
    fn measure(&self, id: &LayerId) -> Result<Usage> {
        let call = self.home.call("usage", id);
        let usage = self.tree(id).and_then(|tree| cow::usage::usage(&tree));
        let usage = usage.map_err(|error| call.failed(error))?;
        Ok(Usage { bytes: usage.bytes, inodes: usage.inodes, content: usage.content })
    }
}

/// Dates a bottom layer's root to the epoch, as applying does with other directories that the tar may
/// not have: nothing of the present time gets into a layer.
fn forget_time(tree: &Root) -> cow::Result<()> {
    let epoch = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: epoch, last_modification: epoch };
    rustix::fs::futimens(tree.open_dir("")?, &times)
        .map_err(|errno| tree.error("set times", "", errno))
}

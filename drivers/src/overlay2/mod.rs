//! The overlay2 driver: each layer is an upper directory of the kernel's overlayfs.
//!
//! ```text
//! layers/<id>/
//!     layer.json   see `home`
//!     diff/        what the layer adds, with overlayfs's whiteouts; the root's owner and mode are
//!                  those of the parent's root at first
//!     work/        overlayfs's own, for an active layer with a parent
//!     merged/      the mount point, only while mounted
//! ```
//!
//! A layer on a parent is mounted with the parents as `lowerdir`s, a lone layer by a bind mount. A
//! view of a parent has no directories at all. A committed layer keeps `diff` alone.

mod data;
mod options;
mod plan;
mod probe;
mod settle;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cow::change::Changeset;
use cow::whiteout::XattrSpace;
use cow::{at, xattr};
use rustix::fs::Mode;

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
use options::{Features, Options};
use plan::{Escape, Plan};

/// The driver's name.
pub(crate) const NAME: &str = "overlay2";

/// A layer's own content.
const DIFF: &str = "diff";
/// Overlayfs's scratch directory.
const WORK: &str = "work";

/// How many layers the kernel merges (`OVL_MAX_STACK`, Linux 5.1).
const MAX_LOWERS: usize = 500;

/// The driver. See the [module](self).
#[derive(Debug)]
pub(crate) struct Overlay2 {
    home: Home,
    features: Features,
}

impl Overlay2 {
    /// Opens a home, and finds out by trial mounts how layers are to be mounted in it.
    pub(crate) fn open<S: AsRef<str>>(path: &Path, list: &[S]) -> Result<Self> {
        let call = HomeCall { driver: NAME, op: "open" };
        let options = Options::parse(call, list)?;
        let home = Home::open(NAME, path, &[probe::REDIRECT, probe::METACOPY])?;
        if options.size.is_some() {
            quota::refuse(home.root(), home.path()).map_err(|why| {
                call.refused(ErrorKind::Unsupported, format!("option size: {why}"))
            })?;
        }
        let features = probe::probe(call, &home, &options)?;
        let driver = Self { home, features };
        if driver.features.volatile {
            driver.clear_volatile_of_all()?;
        }
        Ok(driver)
    }

    /// Sees whether the driver works below `dir`, without leaving anything there.
    pub(crate) fn probe(dir: &Path) -> Result<()> {
        let call = HomeCall { driver: NAME, op: "probe" };
        home::try_in(call, dir, |home| Self::open::<&str>(home, &[]).map(drop))
    }

    /// Where overlayfs keeps its marks.
    fn marks(&self) -> XattrSpace {
        if self.features.userxattr { XattrSpace::User } else { XattrSpace::Trusted }
    }

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

    /// Fills the directory of a new layer.
    fn build(&self, call: Call<'_>, meta: &Meta, dir: BorrowedFd<'_>) -> Result<()> {
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

    /// Attaches the mount of a plan.
    fn attach(&self, call: Call<'_>, plan: &Plan, target: &OwnedFd) -> Result<()> {
        let mount = plan.describe(&self.home, &self.features, Escape::Single);
        cow_sys::mount::mount_at(&mount.fstype, &mount.source, &mount.options, target).map_err(
            |error| {
                let kind = ErrorKind::of_io(error.io());
                call.refused(kind, error.to_string())
            },
        )
    }

    /// After a crash: clears every layer that was mounted then.
    fn clear_volatile_of_all(&self) -> Result<()> {
        for layer in self.home.layers() {
            if layer.state() == State::Active && layer.mounted().count == 0 {
                self.clear_volatile(self.home.call("open", &layer.id), &layer.id)?;
            }
        }
        Ok(())
    }

    /// Removes the mark that a volatile mount leaves and that forbids the next mount. It warns that
    /// the upper directory may be incomplete after a power cut; so may every active layer.
    fn clear_volatile(&self, call: Call<'_>, id: &LayerId) -> Result<()> {
        let inner = Path::new(WORK).join("work");
        let Some(name) = inner.to_str() else { return Ok(()) };
        match self.home.open_in_layer(id, name) {
            Ok(work) => fs::remove_tree(&work, "incompat").map_err(|error| call.failed(error)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(call.failed(error)),
        }
    }

    /// The directories that a layer must have.
    fn required(layer: &Layer) -> Vec<Required> {
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

    /// Frees what a committed layer no longer needs; what fails here is only space.
    fn drop_work(&self, id: &LayerId) {
        if let Ok(dir) = self.home.open_in_layer(id, ".") {
            let _ = fs::remove_tree(&dir, WORK);
        }
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

impl Driver for Overlay2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            rebase: true,
            native_diff: true,
            quota: false,
            client_mounts: true,
            id_map: false,
        }
    }

    fn create(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        options: &CreateOptions,
    ) -> Result<()> {
        let call = self.home.call("create", id);
        let given = HomeCall { driver: NAME, op: "create" };
        let size = Given::of_layer(given, &options::KNOWN_OF_LAYER, &options.options)?
            .size(given, "size")?
            .or(options.size);
        if size.is_some() {
            quota::refuse(self.home.root(), self.home.path()).map_err(|why| {
                call.refused(ErrorKind::Unsupported, format!("option size: {why}"))
            })?;
        }
        if options.state == State::Committed {
            return Err(call.refused(ErrorKind::InvalidArgument, "a layer is not made committed"));
        }
        if let Some(parent) = parent.filter(|_| options.state == State::Active) {
            self.check_depth(call, parent)?;
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
        self.apply_to(call, &layer, tar)
    }

    fn commit(&self, id: &LayerId, record: &LayerRecord) -> Result<LayerInfo> {
        let call = self.home.call("commit", id);
        let infos = self.commit_many(&[(id.clone(), record.clone())])?;
        infos.into_iter().next().ok_or_else(|| call.not_found())
    }

    fn commit_many(&self, batch: &[(LayerId, LayerRecord)]) -> Result<Vec<LayerInfo>> {
        let infos = self.home.commit(batch, true, |sealing| self.seal(sealing))?;
        for (id, _) in batch {
            self.drop_work(id);
        }
        Ok(infos)
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
        let call = self.home.call("mounts", id);
        let layer = self.home.layer(call)?;
        layer.mounted().settle();
        let plan = self.plan(call, &layer, access)?;
        Ok(vec![plan.describe(&self.home, &self.features, Escape::Joined)])
    }

    fn mount(&self, id: &LayerId, access: Access) -> Result<PathBuf> {
        let call = self.home.call("mount", id);
        let layer = self.home.layer(call)?;
        let _gate = layer.share(call)?;
        let plan = self.plan(call, &layer, access)?;
        self.home
            .take_mount(call, &layer, plan.writable(), |target| self.attach(call, &plan, target))
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        let call = self.home.call("unmount", id);
        let layer = self.home.layer(call)?;
        let volatile = self.features.volatile;
        let ending = match layer.meta().parent {
            Some(_) if !volatile => Ending::Slow,
            _ => Ending::Quick,
        };
        self.home.drop_mount(call, &layer, ending, || {
            if volatile { self.clear_volatile(call, id) } else { Ok(()) }
        })
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
        self.write_diff(call, &layer, base, out)
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        let call = self.home.call("usage", id);
        let layer = self.home.layer(call)?;
        let _gate = layer.share(call)?;
        let meta = layer.meta();
        match (meta.usage, meta.state) {
            (Some(usage), _) => Ok(usage),
            (None, State::View) => Ok(Usage::default()),
            (None, _) => self.measure(id).map_err(|error| call.failed(error)),
        }
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let call = self.home.call("metadata", id);
        let layer = self.home.layer(call)?;
        let below = self.below(call, &layer)?;
        let path = |id: &LayerId, name| self.home.layer_path(id, name).display().to_string();
        let lowers: Vec<_> = below.iter().map(|layer| path(&layer.id, DIFF)).collect();
        let mut keys = BTreeMap::from([
            ("UpperDir".to_owned(), path(id, DIFF)),
            ("WorkDir".to_owned(), path(id, WORK)),
            ("MergedDir".to_owned(), path(id, MERGED)),
        ]);
        if !lowers.is_empty() {
            keys.insert("LowerDir".to_owned(), lowers.join(":"));
        }
        Ok(keys)
    }

    fn status(&self) -> Vec<(String, String)> {
        let backing = backing::name(self.home.root());
        [
            ("Backing Filesystem", backing.to_owned()),
            // Without it the driver does not open.
            ("Supports d_type", "true".to_owned()),
            ("Using metacopy", self.features.metacopy.to_string()),
            ("Native Overlay Diff", "true".to_owned()),
            ("userxattr", self.features.userxattr.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec()
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

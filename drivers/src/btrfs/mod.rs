//! The btrfs driver: each layer is a subvolume, made as a snapshot of its parent's.
//!
//! ```text
//! layers/<id>/
//!     layer.json   see `home`; `origin` is the UUID of the subvolume that the layer was made from
//!     rw/          the tree of an active layer: a writable subvolume
//!     ro/          the tree of a committed layer: a read-only snapshot of what `rw` was
//!     sums         only with `dedupe`: what its files hold, in short (see `sums`)
//!     merged/      the mount point, only while mounted
//! stock/           snapshots for layers to come (see `stock`)
//! ```
//!
//! No call walks files, and what the kernel does for one is bounded, however many a layer has. A commit takes
//! the read-only snapshot, whose ioctl writes out the data of this subvolume alone and commits one
//! transaction: durable and immutable at once, and nobody waits for what others wrote. Subvolumes are
//! deleted behind the calls (see [`Home::delete_later`]), since that ioctl's time grows with the files.
//! The transaction in which `ro` was made is what a child's changes are told by: whatever the child
//! shows that is newer was written in the child (see [`since`]).
//!
//! The ioctls come from `btrfs-uapi`, which needs no C library.

mod changes;
mod dedupe;
mod nested;
mod nodes;
mod options;
mod quota;
mod removal;
mod seal;
mod search;
mod since;
mod stock;
mod subvolume;
mod sums;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use cow::root::Root;
use rustix::fs::Mode;

use crate::backend::{self, Backend, Difference};
use crate::backing;
use crate::call::{Call, HomeCall};
use crate::driver::{Access, Applied, Capabilities, Finding, Mount, State, Usage};
use crate::error::{ErrorKind, Result};
use crate::home::check::Required;
use crate::home::commit::{Flush, Sealing};
use crate::home::meta::Meta;
use crate::home::mounts::MERGED;
use crate::home::{self, Home, Layer, fs};
use crate::id::LayerId;
use crate::whole::{has_tree, shown, writable};
use options::Options;
use seal::Finished;
use stock::Stock;
use subvolume::Writable;

/// The driver's name.
pub(crate) const NAME: &str = "btrfs";

/// The tree of an active layer, and of a view without a parent.
const RW: &str = "rw";
/// The tree of a committed layer.
const RO: &str = "ro";
/// The property that says how a directory's new files are compressed.
const COMPRESSION: &str = "btrfs.compression";

/// The driver. See the [module](self).
#[derive(Debug)]
pub(crate) struct Btrfs {
    /// Comes first, so that it ends before the home does.
    stock: Option<Stock>,
    home: Home,
    options: Options,
    /// Whether the file system's trees may be read, which needs privileges.
    may_search: bool,
    finished: Finished,
    /// Files that deduplication failed for.
    unshared: AtomicU64,
}

impl Btrfs {
    /// Opens a home, which must lie on btrfs.
    pub(crate) fn open<S: AsRef<str>>(path: &Path, list: &[S]) -> Result<Self> {
        let call = HomeCall { driver: NAME, op: "open" };
        let options = Options::parse(call, list)?;
        check_place(call, path)?;
        let home = Home::open(NAME, path, &[])?;
        let home = home.deleting_by(removal::Subvolumes).freeing_later();
        let may_search = search::is_allowed(home.root());
        if options.dedupe && !may_search {
            let reason = "option dedupe: finding what was written needs privileges (CAP_SYS_ADMIN)";
            return Err(call.refused(ErrorKind::Unsupported, reason));
        }
        let (finished, unshared) = (Finished::default(), AtomicU64::new(0));
        // Whoever may not search may not delete subvolumes either.
        let stock = (options.stock && may_search).then(|| Stock::new(home.root())).transpose();
        let stock = stock.map_err(|source| call.sys("dup", path, source))?;
        Ok(Self { stock, home, options, may_search, finished, unshared })
    }

    /// Sees whether the driver works below `dir`, without leaving anything there.
    pub(crate) fn probe(dir: &Path) -> Result<()> {
        let call = HomeCall { driver: NAME, op: "probe" };
        check_place(call, dir)?;
        home::try_in(call, dir, |path| {
            let driver = Self::open::<&str>(path, &[])?;
            let scratch = driver.home.scratch("probe").map_err(|error| call.failed(error))?;
            subvolume::create(scratch.dir(), RW).map_err(|error| call.failed(error))
        })
    }

    /// Where a layer keeps its tree.
    fn tree_name(state: State) -> &'static str {
        if state == State::Committed { RO } else { RW }
    }

    /// A layer's own tree.
    fn tree(&self, layer: &Layer) -> cow::Result<Root> {
        let name = Self::tree_name(layer.state());
        let dir = self.home.open_in_layer(&layer.id, name)?;
        Ok(Root::from_fd(dir, self.home.layer_path(&layer.id, name)))
    }

    /// The layer whose tree a layer shows.
    fn shown(&self, call: Call<'_>, layer: &Layer) -> Result<std::sync::Arc<Layer>> {
        self.home.layer(Call { layer: &shown(&layer.meta()), ..call })
    }

    /// Makes the tree of a new layer.
    fn make_tree(&self, meta: &mut Meta, dir: BorrowedFd<'_>) -> cow::Result<()> {
        match &meta.parent {
            Some(parent) => {
                meta.begun = self.take_spare(meta, parent, dir);
                if meta.begun.is_none() {
                    let parent = self.home.open_in_layer(parent, RO)?;
                    subvolume::snapshot(parent, dir, RW, Writable::Yes)?;
                }
            }
            None => subvolume::create(dir, RW)?,
        }
        let tree = fs::open_dir(dir, RW)?;
        if meta.parent.is_none() {
            rustix::fs::fchmod(&tree, Mode::from_raw_mode(0o755))
                .map_err(|errno| cow::Error::sys("chmod", RW, errno))?;
            if let Some(compression) = &self.options.compression {
                let property = OsStr::new(COMPRESSION);
                cow::xattr::set_at(&tree, OsStr::new(""), property, compression.as_bytes())
                    .map_err(|errno| cow::Error::sys("set compression", RW, errno))?;
            }
        }
        if let Some(size) = meta.size {
            quota::turn_on(&tree, self.options.quota)?;
            quota::limit(&tree, subvolume::info(&tree)?.id, size)?;
        }
        Ok(())
    }

    /// Puts a spare snapshot of a parent in its place, if there is one; the value is as [`Meta::begun`].
    ///
    /// None for a layer with a size, to which the blocks count that were copied beforehand.
    fn take_spare(&self, meta: &Meta, parent: &LayerId, dir: BorrowedFd<'_>) -> Option<u64> {
        let stock = self.stock.as_ref().filter(|_| meta.size.is_none())?;
        stock.take(parent, meta.origin.as_ref()?, dir)
    }

    /// Subvolumes that a layer in this state should not have, and what is wrong with the one it has.
    fn unsound(&self, layer: &Layer) -> cow::Result<Option<(&'static str, String, bool)>> {
        if !has_tree(&layer.meta()) {
            return Ok(None);
        }
        let dir = self.home.open_in_layer(&layer.id, ".")?;
        let own = Self::tree_name(layer.state());
        let other = if own == RO { RW } else { RO };
        if fs::exists(&dir, other)? && !self.finished.has(&layer.id) {
            return Ok(Some((other, "left over from a commit".to_owned(), true)));
        }
        if fs::exists(&dir, own)? && !subvolume::is_subvolume(&dir, own)? {
            let problem = "a directory, not a subvolume: the store was copied by something that \
                           knows none; its layers cannot be built upon";
            return Ok(Some((own, problem.to_owned(), false)));
        }
        if own == RO && fs::exists(&dir, own)? && !subvolume::is_fixed(fs::open_dir(&dir, own)?)? {
            let problem = "a committed layer that can be written to".to_owned();
            return Ok(Some((own, problem, false)));
        }
        Ok(None)
    }

    fn finding(layer: &Layer, (name, problem, repairable): (&str, String, bool)) -> Finding {
        let path = Path::new("layers").join(&layer.id).join(name);
        Finding { layer: Some(layer.id.clone()), path, problem, repairable }
    }

    fn find_unsound(&self, op: &'static str) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for layer in self.home.layers() {
            match self.unsound(&layer) {
                Ok(found) => findings.extend(found.map(|found| Self::finding(&layer, found))),
                // Its directory is gone, which is a finding of the home's.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(self.home.call(op, &layer.id).failed(error)),
            }
        }
        let leftovers = stock::leftovers(self.home.root(), self.stock.as_ref());
        let leftovers = leftovers.map_err(|error| HomeCall { driver: NAME, op }.failed(error))?;
        findings.extend(leftovers.into_iter().map(|name| Finding {
            layer: None,
            path: Path::new(stock::DIR).join(name),
            problem: "left over from a stock of snapshots".to_owned(),
            repairable: true,
        }));
        Ok(findings)
    }
}

/// Sees that a home can lie here; otherwise says what is there instead.
fn check_place(call: HomeCall, path: &Path) -> Result<()> {
    let present = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let dir = std::fs::File::open(present).map_err(|source| call.sys("open", present, source))?;
    let name = backing::name(&dir);
    if name == NAME {
        return Ok(());
    }
    let reason = format!(
        "{} lies on {name}; this driver keeps layers as subvolumes: give it a root directory on btrfs",
        present.display()
    );
    Err(call.refused(ErrorKind::Unsupported, reason))
}

impl Backend for Btrfs {
    fn home(&self) -> &Home {
        &self.home
    }

    fn able(&self) -> Capabilities {
        Capabilities {
            rebase: false,
            native_diff: self.may_search,
            quota: self.may_search,
            client_mounts: true,
            id_map: self.home.maps_ids(),
        }
    }

    fn flush(&self) -> Flush {
        Flush::Metadata
    }

    fn check_size(&self, call: HomeCall, size: u64) -> Result<()> {
        if !self.may_search {
            let reason = "option size: quotas need privileges (CAP_SYS_ADMIN)";
            return Err(call.refused(ErrorKind::Unsupported, reason));
        }
        match self.options.min_space.filter(|least| size < *least) {
            Some(least) => {
                let reason = format!("option size: {size} bytes are less than min_space, {least}");
                Err(call.refused(ErrorKind::InvalidArgument, reason))
            }
            None => Ok(()),
        }
    }

    fn origin(&self, call: Call<'_>, parent: &LayerId) -> Result<Option<String>> {
        // What is wrong with the parent is told by whoever reserves it.
        let Ok(tree) = self.home.open_in_layer(parent, RO) else { return Ok(None) };
        let info = subvolume::info(tree).map_err(|error| call.failed(error))?;
        Ok(Some(info.uuid))
    }

    fn build(&self, call: Call<'_>, meta: &mut Meta, dir: BorrowedFd<'_>) -> Result<()> {
        // Of a layer that had this id before.
        self.finished.forget(&meta.id);
        match has_tree(meta) {
            true => self.make_tree(meta, dir).map_err(|error| call.failed(error)),
            false => Ok(()),
        }
    }

    fn fill(&self, call: Call<'_>, layer: &Layer, tar: &mut dyn Read) -> Result<Applied> {
        self.apply_to(layer, tar).map_err(|error| call.failed(error))
    }

    fn seal(&self, sealing: &Sealing<'_>) -> Result<Usage> {
        let call = self.home.call("commit", &sealing.layer.id);
        self.finish(sealing.layer, &sealing.meta).map_err(|error| call.failed(error))
    }

    /// `rw` goes behind the call: deleting one of many files takes its time.
    fn sealed(&self, id: &LayerId) {
        self.expect_more(id);
        let drop = self
            .home
            .open_in_layer(id, ".")
            .and_then(|dir| self.home.delete_later(&dir, Path::new(RW), id.as_str()));
        if let Err(error) = drop {
            tracing::warn!(layer = %id, %error, "the writable copy of a committed layer stays");
        }
    }

    fn removed(&self, id: &LayerId) {
        if let Some(stock) = &self.stock {
            stock.forget(id);
        }
    }

    /// Without times of access: a mere look at a file would write its inode, and cost space here and
    /// time at the next diff. An overlay does not note them in lower layers either.
    fn describe(&self, call: Call<'_>, layer: &Layer, access: Access) -> Result<Vec<Mount>> {
        let shown = self.shown(call, layer)?;
        let way = match writable(layer, access) {
            true => {
                // Whoever gets this may write.
                self.finished.forget(&layer.id);
                "rw"
            }
            false => "ro",
        };
        Ok(vec![Mount {
            fstype: "bind".to_owned(),
            source: self.home.layer_path(&shown.id, Self::tree_name(shown.state())),
            options: ["rbind", "noatime", way].map(str::to_owned).to_vec(),
        }])
    }

    fn difference(
        &self,
        call: Call<'_>,
        layer: &Layer,
        base: Option<&LayerId>,
    ) -> Result<Difference<'_>> {
        let meta = layer.meta();
        let below = self.home.compared_with(call, &meta, base)?;
        let top = self.shown(call, layer)?;
        if below.as_ref() == Some(&top.id) {
            // A view adds nothing to its parent.
            return Ok(Difference::new(cow::change::Changeset::default(), Vec::new()));
        }
        let below = below.map(|id| self.home.layer(Call { layer: &id, ..call })).transpose()?;
        self.compare(&top, below.as_deref()).map_err(|error| call.failed(error))
    }

    fn measure(&self, id: &LayerId) -> cow::Result<Usage> {
        let layer = self
            .home
            .layer(self.home.call("usage", id))
            .map_err(|error| cow::Error::refused("usage", id, error.to_string(), error.kind()))?;
        let begun = Self::begun(&layer.meta(), self.tree(&layer)?)?;
        let (tree, _held) = self.steady(&layer)?;
        self.measure_tree(&layer.meta(), tree, begun)
    }

    fn keys(&self, _call: Call<'_>, layer: &Layer) -> Result<BTreeMap<String, String>> {
        let path = |name| self.home.layer_path(&layer.id, name).display().to_string();
        let mut keys = BTreeMap::from([
            ("UpperDir".to_owned(), path(Self::tree_name(layer.state()))),
            ("MergedDir".to_owned(), path(MERGED)),
        ]);
        if let Some(shared) = self.shared_by(layer) {
            keys.insert("DedupedBytes".to_owned(), shared.bytes.to_string());
        }
        let Ok(tree) = self.tree(layer) else { return Ok(keys) };
        let Ok(info) = subvolume::info(&tree) else { return Ok(keys) };
        keys.insert("Subvolume".to_owned(), info.id.to_string());
        let taken = quota::taken(&tree, info.id)
            .or_else(|| self.measured(&layer.meta(), &tree, info.made_in));
        if let Some(taken) = taken {
            let shared = taken.referenced.saturating_sub(taken.exclusive);
            keys.insert("SharedBytes".to_owned(), shared.to_string());
            keys.insert("ExclusiveBytes".to_owned(), taken.exclusive.to_string());
            if let Some(limit) = taken.limit {
                keys.insert("Size".to_owned(), limit.to_string());
            }
        }
        Ok(keys)
    }

    fn owner_of_root(&self, id: &LayerId) -> cow::Result<(u32, u32)> {
        backend::owner_of(self.home.open_in_layer(id, RO)?)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let accounting = quota::accounting(self.home.root());
        let compression = self.options.compression.as_deref().unwrap_or("as mounted");
        vec![
            ("Backing Filesystem", backing::name(self.home.root()).to_owned()),
            ("Native Diff", self.may_search.to_string()),
            ("Quota", accounting.name().to_owned()),
            ("Compression", compression.to_owned()),
            ("Dedupe", self.shared_fact()),
            ("Stock", self.stock.as_ref().map_or("off".to_owned(), Stock::fact)),
        ]
    }

    fn required(&self, layer: &Layer) -> Vec<Required> {
        let meta = layer.meta();
        let name = Self::tree_name(meta.state);
        has_tree(&meta).then_some(Required { name, data: true }).into_iter().collect()
    }

    fn inspect(&self) -> Result<Vec<Finding>> {
        self.find_unsound("check")
    }

    fn mend(&self) -> Result<Vec<Finding>> {
        let findings = self.find_unsound("repair")?;
        let mended: Vec<_> = findings.into_iter().filter(|found| found.repairable).collect();
        let mut stocked = Vec::new();
        for finding in &mended {
            let name = finding.path.file_name().unwrap_or_default();
            let Some(id) = &finding.layer else {
                stocked.push(name.to_owned());
                continue;
            };
            let drop = self.home.open_in_layer(id, ".").and_then(|dir| removal::delete(&dir, name));
            drop.map_err(|error| self.home.call("repair", id).failed(error))?;
        }
        stock::clear(self.home.root(), &stocked)
            .map_err(|error| HomeCall { driver: NAME, op: "repair" }.failed(error))?;
        Ok(mended)
    }
}

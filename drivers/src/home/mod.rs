//! The home of a driver on disk, and all layers in it.
//!
//! ```text
//! <home>/                    mode 0700
//!     lock                   flock(2)ed by the process that has the home open
//!     format.json            version, driver, feature flags (see `format`)
//!     layers/<id>/           one directory a layer, in place whole or not at all
//!         layer.json         id, parent, state, usage, the catalogue's record (see `meta`)
//!         merged/            where the layer is mounted, only while it is
//!         ...                the driver's own directories
//!     tmp/<id>.<n>/          a layer being made; after a crash a leftover
//!     trash/<id>.<n>/        a layer being deleted; after a crash a leftover
//!     quarantine/<id>.<n>/   what a repair moved aside because it could not be read
//! ```
//!
//! Nothing here knows what a layer's data looks like: overlay2 keeps an upper directory, vfs a whole
//! tree, others a subvolume or a device.

pub(crate) mod check;
mod closer;
pub(crate) mod commit;
pub(crate) mod crew;
mod format;
pub(crate) mod freeing;
pub(crate) mod fs;
mod index;
mod layer;
pub(crate) mod meta;
pub(crate) mod mounts;
mod rewrite;
mod scratch;
pub(crate) mod shift;
mod sync;

use std::collections::HashSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::call::{Call, HomeCall};
use crate::driver::State;
use crate::error::{ErrorKind, Result};
use crate::id::LayerId;
use closer::Closer;
use format::Format;
use freeing::{Deleter, Freer};
use fs::Durability;
use index::Index;
pub(crate) use layer::Layer;
use meta::Meta;
pub(crate) use scratch::Scratch;
pub(crate) use shift::map_directory;
use sync::Syncs;

/// The name of a layer's metadata file.
pub(crate) const META: &str = "layer.json";
/// The name of the metadata file that a commit puts in place.
const NEXT_META: &str = "layer.json.new";
/// The name of the format file.
const FORMAT: &str = "format.json";
/// The longest format file that is read.
const MAX_FORMAT_LEN: u64 = 64 << 10;
/// The mode of the home and of the directories in it: only root looks into layers.
const MODE: u32 = 0o700;

/// An open home.
#[derive(Debug)]
pub(crate) struct Home {
    driver: &'static str,
    path: PathBuf,
    root: OwnedFd,
    layers: OwnedFd,
    tmp: Arc<OwnedFd>,
    trash: Arc<OwnedFd>,
    format: Mutex<Format>,
    index: Index,
    serial: AtomicU64,
    /// How a directory of `tmp` or `trash` is deleted.
    deleter: Deleter,
    /// Whether that is done behind the calls.
    frees_later: bool,
    /// Names in `tmp` and `trash` that calls of this process are at work on.
    busy: Arc<Mutex<HashSet<String>>>,
    closer: Closer,
    freer: Freer,
    /// Whether ids can be mapped here; found out by the first who asks.
    maps_ids: OnceLock<bool>,
    syncs: Syncs,
    /// Held for its drop, which comes last: only then may another process mount these layers.
    _lock: Lock,
}

impl Home {
    /// Opens the home at `path`, making it first if it is not there, takes its lock, and reads the
    /// metadata of all layers. `features` are the feature flags that the driver knows.
    ///
    /// # Errors
    /// `InUse` when another process has it open, `Unsupported` for another driver's home or one with
    /// unknown features.
    pub(crate) fn open(driver: &'static str, path: &Path, features: &[&str]) -> Result<Self> {
        let call = HomeCall { driver, op: "open" };
        let (path, root) = open_root(call, path)?;
        let lock = take_lock(call, &root)?;
        let format = match fs::read_file(&root, FORMAT, MAX_FORMAT_LEN) {
            Ok(bytes) => Format::parse(call, features, &bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let format = Format::new(driver);
                fs::replace_file(&root, FORMAT, &format.to_bytes()).map_err(|e| call.failed(e))?;
                format
            }
            Err(error) => return Err(call.failed(error)),
        };
        let dir = |name| fs::ensure_dir(&root, name, MODE).map_err(|error| call.failed(error));
        let home = Self {
            driver,
            path,
            layers: dir("layers")?,
            tmp: Arc::new(dir("tmp")?),
            trash: Arc::new(dir("trash")?),
            root,
            _lock: lock,
            format: Mutex::new(format),
            index: Index::default(),
            serial: AtomicU64::new(0),
            deleter: Deleter::default(),
            frees_later: false,
            maps_ids: OnceLock::new(),
            busy: Arc::default(),
            closer: Closer::default(),
            freer: Freer::default(),
            syncs: Syncs::default(),
        };
        // Layers are made here, and keep their place on the disk when they are renamed.
        fs::spread_children(&home.tmp);
        home.load(call)?;
        home.adopt_mounts()?;
        Ok(home)
    }

    /// The same home, with layers that are deleted in a manner of the driver's own.
    pub(crate) fn deleting_by(self, delete: impl freeing::Delete + 'static) -> Self {
        Self { deleter: Deleter(Arc::new(delete)), ..self }
    }

    /// The same home, with what nobody needs any more deleted behind the calls.
    pub(crate) fn freeing_later(self) -> Self {
        Self { frees_later: true, ..self }
    }

    /// Reads every layer's metadata file into the index.
    fn load(&self, call: HomeCall) -> Result<()> {
        for name in fs::names(&self.layers).map_err(|error| call.failed(error))? {
            // A name that is no id cannot be a layer; check() reports it.
            let Some(id) = name.to_str().and_then(|name| name.parse::<LayerId>().ok()) else {
                continue;
            };
            match self.read_meta(&id) {
                Ok(meta) => self.index.load(Layer::new(meta)),
                Err(error) => self.index.load_broken(id, error.to_string()),
            }
        }
        Ok(())
    }

    fn read_meta(&self, id: &LayerId) -> cow::Result<Meta> {
        let bytes = fs::read_file(&self.layers, id.as_ref().join(META), meta::MAX_LEN)?;
        Meta::parse(&bytes, id)
    }

    /// The driver's name.
    pub(crate) fn driver(&self) -> &'static str {
        self.driver
    }

    /// The home's path, absolute and without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The home's directory.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The absolute path of something in a layer's directory, for mount descriptions and for the
    /// calls that take no directory: umount2(2).
    pub(crate) fn layer_path(&self, id: &LayerId, name: &str) -> PathBuf {
        let mut path = self.layers_path();
        path.push(id.as_str());
        path.push(name);
        path
    }

    /// The absolute path of the directory that holds all layers.
    pub(crate) fn layers_path(&self) -> PathBuf {
        self.path.join("layers")
    }

    /// Opens a directory of a layer.
    pub(crate) fn open_in_layer(&self, id: &LayerId, name: &str) -> cow::Result<OwnedFd> {
        fs::open_dir(&self.layers, id.as_ref().join(name))
    }

    /// Whether the home uses a feature.
    pub(crate) fn has_feature(&self, feature: &str) -> bool {
        lock(&self.format).has(feature)
    }

    /// Notes durably that layers of this home use a feature, before the first does.
    pub(crate) fn add_feature(&self, feature: &str) -> Result<()> {
        let call = HomeCall { driver: self.driver, op: "note feature" };
        let mut format = lock(&self.format);
        if format.add(feature) {
            fs::replace_file(&self.root, FORMAT, &format.to_bytes()).map_err(|e| call.failed(e))?;
        }
        Ok(())
    }

    /// One call on one layer, for errors.
    pub(crate) fn call<'a>(&self, op: &'static str, layer: &'a LayerId) -> Call<'a> {
        Call { driver: self.driver, op, layer }
    }

    /// The layer of a call.
    ///
    /// # Errors
    /// `NotFound`, or `Corrupt` for a layer whose metadata cannot be read.
    pub(crate) fn layer(&self, call: Call<'_>) -> Result<Arc<Layer>> {
        self.index.get(call)
    }

    /// All layers.
    pub(crate) fn layers(&self) -> Vec<Arc<Layer>> {
        self.index.all()
    }

    /// The layers from `top` down to the bottom of its stack, `top` first.
    ///
    /// # Errors
    /// `Corrupt` when a parent is missing or the parents go round in a circle.
    pub(crate) fn stack(&self, call: Call<'_>, top: &LayerId) -> Result<Vec<Arc<Layer>>> {
        let mut stack: Vec<Arc<Layer>> = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(top.clone());
        while let Some(id) = next {
            let layer = self.index.get(Call { layer: &id, ..call }).map_err(|error| {
                call.refused(ErrorKind::Corrupt, format!("broken stack: {error}"))
            })?;
            next = layer.meta().parent.clone();
            stack.push(layer);
            if !seen.insert(id) {
                return Err(call.refused(ErrorKind::Corrupt, "parents go round in a circle"));
            }
        }
        Ok(stack)
    }

    /// Sees that a tar can be applied to a layer, whose gate is owned.
    ///
    /// # Errors
    /// `FailedPrecondition` for a layer that is not active, `InUse` for a mounted one.
    pub(crate) fn check_appliable(&self, call: Call<'_>, layer: &Layer) -> Result<()> {
        if layer.state() != State::Active {
            return Err(call.refused(ErrorKind::FailedPrecondition, "the layer is not active"));
        }
        if layer.mounted().count > 0 {
            return Err(call.refused(ErrorKind::InUse, "the layer is mounted"));
        }
        Ok(())
    }

    /// Sees that `base` is below a layer, and gives the layers between the two, the uppermost first.
    ///
    /// # Errors
    /// `NotFound` for an unknown base, `InvalidArgument` for one that is not below.
    pub(crate) fn check_ancestor(
        &self,
        call: Call<'_>,
        meta: &Meta,
        base: &LayerId,
    ) -> Result<Vec<Arc<Layer>>> {
        self.index.get(Call { layer: base, ..call })?;
        let mut between = match &meta.parent {
            Some(parent) => self.stack(call, parent)?,
            None => Vec::new(),
        };
        let Some(at) = between.iter().position(|layer| layer.id == *base) else {
            let reason = format!("{base} is not below it");
            return Err(call.refused(ErrorKind::InvalidArgument, reason));
        };
        between.truncate(at);
        Ok(between)
    }

    /// What a layer is compared with: `base`, which is below it, or else its parent.
    ///
    /// # Errors
    /// As [`Self::check_ancestor`].
    pub(crate) fn compared_with(
        &self,
        call: Call<'_>,
        meta: &Meta,
        base: Option<&LayerId>,
    ) -> Result<Option<LayerId>> {
        match base {
            Some(base) => self.check_ancestor(call, meta, base).map(|_| Some(base.clone())),
            None => Ok(meta.parent.clone()),
        }
    }

    /// Makes a layer: `build` fills the directory that becomes the layer's, by a rename, and may note in the metadata how.
    pub(crate) fn create(
        &self,
        call: Call<'_>,
        mut meta: Meta,
        build: impl FnOnce(BorrowedFd<'_>, &mut Meta) -> Result<()>,
    ) -> Result<()> {
        let reservation = self.index.reserve(call, meta.parent.as_ref())?;
        let scratch = self.scratch(call.layer.as_str()).map_err(|error| call.failed(error))?;
        build(scratch.dir(), &mut meta)?;
        let finish = || {
            fs::write_file(scratch.dir(), META, &meta.to_bytes()?, Durability::Later)?;
            scratch.publish(call.layer)
        };
        finish().map_err(|error| call.failed(error))?;
        reservation.confirm(Layer::new(meta));
        Ok(())
    }

    /// Removes a layer: one rename takes it out of sight, then its space is freed.
    ///
    /// A failure to free is not one of the call, which cannot be repeated: it is logged, and
    /// [`check`] finds the leftover.
    pub(crate) fn remove(&self, call: Call<'_>) -> Result<()> {
        let layer = match self.index.get(call) {
            Ok(layer) => layer,
            Err(error) if error.kind() == ErrorKind::Corrupt => return self.remove_broken(call),
            Err(error) => return Err(error),
        };
        let trashed = {
            let mut gate = layer.own(call)?;
            if layer.mounted().count > 0 {
                return Err(call.refused(ErrorKind::InUse, "cannot remove: the layer is mounted"));
            }
            let removal = self.index.take_out(call)?;
            let trashed = self.discard(call, &self.layers, call.layer.as_str())?;
            removal.confirm();
            *gate = layer::Presence::Gone;
            trashed
        };
        self.empty(&self.trash, trashed);
        Ok(())
    }

    fn remove_broken(&self, call: Call<'_>) -> Result<()> {
        let removal = self.index.take_out(call)?;
        let trashed = self.discard(call, &self.layers, call.layer.as_str())?;
        removal.confirm();
        self.empty(&self.trash, trashed);
        Ok(())
    }

    /// Moves `from/name` to the trash under a fresh name, which stays busy until
    /// [`Home::empty`].
    fn discard(&self, call: Call<'_>, from: &OwnedFd, name: &str) -> Result<String> {
        self.with_fresh_name(name, |fresh| {
            let flags = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(from, name, &self.trash, fresh, flags)
        })
        .map_err(|error| call.failed(error))
    }
}

/// Locks a mutex whose data no panic leaves half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes and opens the home's directory; its path comes back without links.
fn open_root(call: HomeCall, path: &Path) -> Result<(PathBuf, OwnedFd)> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = |step, source| call.sys(step, path, source);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(MODE)
        .create(path)
        .map_err(|source| failed("mkdir", source))?;
    let path = path.canonicalize().map_err(|source| failed("resolve", source))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|errno| call.sys("open", &path, errno))?;
    Ok((path, root))
}

/// Runs `attempt` with the path of a home to be made in `dir`, and leaves nothing of it.
pub(crate) fn try_in(
    call: HomeCall,
    dir: &Path,
    attempt: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let (path, root) = open_root(call, dir)?;
    let name = format!(".probe-{}", std::process::id());
    let outcome = attempt(&path.join(&name));
    let cleared = fs::remove_tree(&root, &name).map_err(|error| call.failed(error));
    outcome.and(cleared)
}

/// The home's lock. It is given back explicitly: a child of this process that has not come to its
/// exec yet shares the file description, and would hold the lock for a moment longer.
#[derive(Debug)]
struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes the home's lock without waiting.
fn take_lock(call: HomeCall, root: &OwnedFd) -> Result<Lock> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(root, "lock", flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| call.sys("open", "lock", errno))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(Errno::WOULDBLOCK) => {
            Err(call.refused(ErrorKind::InUse, "another process has the home open"))
        }
        Err(errno) => Err(call.sys("flock", "lock", errno)),
    }
}

#[cfg(test)]
mod tests;

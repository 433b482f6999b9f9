//! The devicemapper driver: each layer is a file system on a thin device of its own, a snapshot of its
//! parent's.
//!
//! ```text
//! pool.json        where the pool comes from, which device numbers are in use (see `state`)
//! setup.json       only while a pool is being made of raw devices (see `setup`)
//! loop/            data and metadata, for a pool of files
//! layers/<id>/
//!     layer.json   see `home`
//!     device.json  the layer's device (see `layer`); a view has none and shows its parent's
//!     merged/      the mount point, only while mounted
//! ```
//!
//! A layer without a parent is a snapshot of the *base device*, an empty file system that is made
//! with the pool. The root of a layer is the root of its file system, so that a client can mount the
//! device and nothing else.
//!
//! Every change that spans the pool and the home is done in the order that lets [`Driver::repair`]
//! tell, after a crash, what is a layer and what is left over: a device is made before the layer
//! that has it, and deleted after the layer is out of sight.
//!
//! [`Driver::repair`]: crate::driver::Driver::repair

mod backend;
mod changes;
mod check;
mod crash;
mod devices;
mod dm;
mod free;
mod freeze;
mod grow;
mod held;
mod journal;
mod layer;
mod loops;
mod lvm;
mod metadata;
mod options;
mod pool;
mod seal;
mod setup;
mod state;
mod status;
mod tool;
mod volume;

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use cow::root::Root;

use crate::call::HomeCall;
use crate::driver::State;
use crate::error::Result;
use crate::home::Home;
use crate::home::meta::Meta;
use crate::id::LayerId;
use devices::{Devices, Held};
use dm::{Dm, Thin, Use};
use grow::Growth;
use layer::Device;
use options::{BASE_SIZE, FileSystem, Options, Source};
use pool::{Owner, Pool};
use setup::Setup;
use state::{Base, PoolFile};
use volume::{Shown, Volumes};

/// The driver's name.
pub(crate) const NAME: &str = "devicemapper";

/// The driver. See the [module](self).
#[derive(Debug)]
pub(crate) struct DeviceMapper {
    home: Home,
    pool: Arc<Pool>,
    devices: Arc<Devices>,
    volumes: Volumes,
    base: Base,
    deferred_deletion: bool,
    /// Whether the file system can be mounted with mapped ids, once that was tried.
    maps_ids: OnceLock<bool>,
    growth: Arc<Growth>,
    /// Held for its drop, which ends the thread that watches the pool.
    _watcher: grow::Watcher,
}

impl DeviceMapper {
    /// Opens a home and its pool; one that has no pool yet gets it as the options say.
    pub(crate) fn open<S: AsRef<str>>(path: &Path, list: &[S]) -> Result<Self> {
        let call = HomeCall { driver: NAME, op: "open" };
        let options = Options::parse(call, list)?;
        let failed = |error| call.failed(error);
        // Before the home, of which nothing is to be left where there is no device mapper.
        let dm = Dm::open().map_err(failed)?;
        if options.source == Source::Unsaid && !path.join(state::FILE).exists() {
            return Err(failed(setup::none()));
        }
        let home = Home::open(NAME, path, &[])?;
        let pool = Arc::new(open_pool(dm, &home, &options).map_err(failed)?);
        let devices = Arc::new(Devices::new(Arc::clone(&pool)));
        let (volumes, base) = open_base(&pool, &devices, &home, &options).map_err(failed)?;
        let (its_pool, its_devices) = (Arc::clone(&pool), Arc::clone(&devices));
        let home = home.deleting_by(move |dir: &OwnedFd, name: &OsStr| {
            free::delete(&its_pool, &its_devices, dir, name)
        });
        let lvm = pool.file().setup.lvm(&pool.dm, &pool.name);
        let growth = Arc::new(Growth::new(Arc::clone(&pool), lvm, &options));
        growth.settle_policy();
        let watcher = grow::Watcher::start(Arc::clone(&growth)).map_err(failed)?;
        Ok(Self {
            home,
            pool,
            devices,
            volumes,
            base,
            deferred_deletion: options.deferred_deletion,
            maps_ids: OnceLock::new(),
            growth,
            _watcher: watcher,
        })
    }

    /// The device file of a layer that has one.
    fn device(&self, id: &LayerId) -> cow::Result<Device> {
        Device::read(self.home.open_in_layer(id, ".")?)
    }

    /// The device that a layer shows, and how it may be used.
    fn shown(&self, meta: &Meta) -> cow::Result<(Thin, Use)> {
        match (meta.state, &meta.parent) {
            (State::View, None) => Ok((self.base.thin(), Use::Read)),
            (State::View, Some(parent)) => Ok((self.origin(Some(parent))?, Use::Read)),
            (State::Active, _) => Ok((self.device(&meta.id)?.thin(meta.state), Use::Write)),
            (State::Committed, _) => Ok((self.device(&meta.id)?.thin(meta.state), Use::Read)),
        }
    }

    /// The device that a new layer is a snapshot of.
    fn origin(&self, parent: Option<&LayerId>) -> cow::Result<Thin> {
        let Some(parent) = parent else { return Ok(self.base.thin()) };
        Ok(self.device(parent)?.thin(State::Committed))
    }

    /// What a layer shows, mounted for nobody else.
    fn look(&self, meta: &Meta) -> cow::Result<(Held<'_>, Root)> {
        let (thin, how) = self.shown(meta)?;
        let held = self.devices.hold(thin, how)?;
        let shown = if how == Use::Write { Shown::Look } else { Shown::Sealed };
        let root = self.volumes.open(&held.name, shown)?;
        Ok((held, root))
    }

    /// Makes the snapshot that a new layer is, and lets it have its size.
    fn make_device(&self, meta: &Meta) -> cow::Result<Device> {
        self.pool.require_space(self.growth.spare())?;
        let origin = self.origin(meta.parent.as_ref())?;
        let size = meta.size.unwrap_or(origin.size).next_multiple_of(self.pool.block_size);
        if size < origin.size {
            let reason = format!(
                "option size: {} is less than the {} that its file system has already",
                pool::mib(size),
                pool::mib(origin.size)
            );
            return Err(cow::Error::invalid("make device", "", reason));
        }
        // Committed: nothing of it is waiting to be written, and others may be mounting it.
        let thin = Thin { id: self.pool.snapshot(origin.id, Use::Read, Owner::Layer)?, size };
        crash::point("snapshot made");
        let device = Device::new(thin);
        if size > origin.size
            && let Err(error) = self.enlarge(thin)
        {
            let _ = self.pool.delete(thin);
            return Err(error);
        }
        Ok(device)
    }

    /// Lets the file system on a device have all of it.
    fn enlarge(&self, thin: Thin) -> cow::Result<()> {
        let held = self.devices.hold(thin, Use::Write)?;
        let scratch = self.home.scratch("grow")?;
        self.volumes.grow(&held.name, &scratch.path())
    }
}

/// Finds the home's pool, or makes it.
fn open_pool(dm: Dm, home: &Home, options: &Options) -> cow::Result<Pool> {
    let file = match PoolFile::read(home.root())? {
        Some(file) => {
            file.setup.compare(options)?;
            file
        }
        None => PoolFile::new(Setup::make(&dm, home.root(), options)?)?,
    };
    let name = file.setup.activate(&dm, home.root(), home.path(), options)?;
    let fd = home.root().try_clone_to_owned().map_err(|e| cow::Error::sys("dup", "", e))?;
    let pool = Pool::open(dm, name, fd, file.clone(), options)?;
    if file.base.is_none() {
        // From here on the pool is this home's.
        file.write(home.root())?;
        setup::finished(home.root());
    }
    Ok(pool)
}

/// Finds the base device, or makes it; one that is to be larger than it was grows.
fn open_base(
    pool: &Arc<Pool>,
    devices: &Devices,
    home: &Home,
    options: &Options,
) -> cow::Result<(Volumes, Base)> {
    let zeroed = !pool.dm.table(&pool.name)?.2.contains("skip_block_zeroing");
    // A start that was cut off, or one without options, has made another one than is asked for: it
    // counts once something has been made of it.
    let unused = pool.file().base.filter(|base| home.layers().is_empty() && options.is_not(base));
    let there = pool.file().base.filter(|_| unused.is_none());
    let fs = match (there, options.fs) {
        (Some(base), Some(asked)) if base.fs != asked => {
            let reason = format!(
                "option fs: the layers here are {}, and cannot be {}",
                base.fs.name(),
                asked.name()
            );
            return Err(cow::Error::invalid("open base device", "", reason));
        }
        (Some(base), _) => base.fs,
        (None, asked) => asked.unwrap_or(FileSystem::Ext4),
    };
    let volumes = Volumes::new(fs, options, zeroed);
    let round = |size: u64| size.next_multiple_of(pool.block_size);
    let base = match (there, options.base_size.map(round)) {
        (None, size) => make_base(pool, devices, &volumes, size.unwrap_or(BASE_SIZE))?,
        (Some(base), Some(size)) if size > base.size => {
            let base = Base { size, ..base };
            let held = devices.hold(base.thin(), Use::Write)?;
            let scratch = home.scratch("grow")?;
            volumes.grow(&held.name, &scratch.path())?;
            drop(held);
            pool.set_base(base)?;
            base
        }
        (Some(base), Some(size)) if size < base.size => {
            let reason = format!(
                "option basesize: {} is less than the {} that the base device has",
                pool::mib(size),
                pool::mib(base.size)
            );
            return Err(cow::Error::invalid("open base device", "", reason));
        }
        (Some(base), _) => base,
    };
    if let Some(unused) = unused {
        free::delete_or_defer(pool, unused.thin())?;
    }
    Ok((volumes, base))
}

fn make_base(
    pool: &Arc<Pool>,
    devices: &Devices,
    volumes: &Volumes,
    size: u64,
) -> cow::Result<Base> {
    let thin = Thin { id: pool.create()?, size };
    crash::point("base device made");
    let make = || {
        let held = devices.hold(thin, Use::Write)?;
        volumes.make(&held.name, size)?;
        volumes.clear(&held.name)
    };
    if let Err(error) = make().and_then(|()| devices.retire(thin.id)) {
        let _ = pool.delete(thin);
        return Err(error);
    }
    crash::point("base file system made");
    let base = Base { device: thin.id, size, fs: volumes.fs };
    pool.set_base(base)?;
    Ok(base)
}

impl Drop for DeviceMapper {
    fn drop(&mut self) {
        let setup = self.pool.file().setup;
        setup.release(&self.pool.dm, self.home.path());
    }
}

//! Opening a store: locks, finds its drivers, and clears away what a crash left.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use drivers::Driver;

use super::backends::{Backends, Opener};
use super::claims::{Claims, Pins};
use super::{Store, default_driver, with_state};
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{Events, Note};
use crate::metrics::Metrics;
use crate::reconcile::{self, Severity, Step};
use crate::root::{Access, CATALOGUE, Root};

impl Store {
    /// Opens the store of `config.root`, makes it where there is none, and clears away what a crash
    /// left. A catalogue that is missing or damaged is built anew from the layers.
    ///
    /// # Errors
    /// `InUse` when another process has it open, `Unsupported` for a format of a newer layerd or a
    /// driver that cannot work here, `FailedPrecondition` when nothing says which of several drivers
    /// is the default.
    pub fn open(config: Config) -> Result<Arc<Self>> {
        Self::open_with(config, Box::new(open_driver))
    }

    /// The same with drivers of the caller's own making.
    pub fn open_with(config: Config, opener: Box<Opener>) -> Result<Arc<Self>> {
        let root = Root::open(&config.root, Access::Serve)?;
        let chosen = default_driver(&root, config.driver.as_deref())?;
        let mut store = Self {
            config,
            default_driver: String::new(),
            catalogue: open_catalogue(&root)?,
            root,
            backends: Backends::new(opener),
            in_flight: Claims::default(),
            keys: Claims::default(),
            owners: Claims::default(),
            pins: Pins::default(),
            events: Events::default(),
            metrics: Metrics::new()?,
            image_lock: Mutex::default(),
            list_lock: Mutex::default(),
            blind: false,
            next_id: AtomicU64::new(1),
        };
        store.default_driver = store.start_drivers(chosen)?;
        store.root.remember_driver(&store.default_driver)?;
        store.start_images()?;
        store.sweep_files()?;
        let version = env!("CARGO_PKG_VERSION");
        store
            .events
            .tell(Note::new("daemon", "start", version).with("driver", &store.default_driver));
        Ok(Arc::new(store))
    }

    /// Opens every driver that has layers, and the default one; the answer is the default's name.
    fn start_drivers(&self, chosen: Option<String>) -> Result<String> {
        for name in with_state(&self.root)? {
            match self.driver(Some(name)) {
                Err(error) if chosen.as_deref() == Some(name) => return Err(error),
                // Its images are not lost: they are there again when the driver works again.
                Err(error) => tracing::warn!(driver = name, %error, "cannot open a used driver"),
                Ok(_) => {}
            }
        }
        if let Some(name) = chosen {
            return self.driver(Some(&name)).map(|_| name);
        }
        let name =
            drivers::probe(self.root.path()).map_err(|e| Error::driver("choose driver", e))?;
        self.driver(Some(name)).map(|_| name.to_owned())
    }

    /// Brings the catalogue in step with the image files, then frees what nothing refers to.
    fn start_images(&mut self) -> Result<()> {
        let plan = reconcile::images::plan(&self.catalogue.read()?, &self.root)?;
        self.mend(&plan.steps)?;
        self.blind = plan.blind;
        if plan.blind {
            tracing::warn!("an image is damaged: its layers are kept until layerd check --repair");
        }
        let removed = self.gc()?;
        if removed.bytes > 0 || !removed.layers.is_empty() {
            tracing::info!(bytes = removed.bytes, "freed what a crash left");
        }
        Ok(())
    }

    /// Takes the steps that are safe without being asked, and tells of the others.
    fn mend(&self, steps: &[Step]) -> Result<()> {
        let (safe, damage): (Vec<&Step>, Vec<&Step>) =
            steps.iter().partition(|step| step.severity != Severity::Damage);
        for step in &safe {
            tracing::info!("mending: {}", step.problem);
        }
        for step in damage {
            tracing::error!("damaged: {} (layerd check --repair)", step.problem);
        }
        reconcile::take(&self.catalogue, Some(&self.root), &safe)
    }

    /// Takes a driver that was just opened into the store: its repair, its layers, its ids.
    pub(super) fn adopt(&self, driver: &dyn Driver) -> Result<()> {
        let name = driver.name();
        let failed = |e| Error::driver(format!("open driver {name}"), e);
        for finding in driver.repair().map_err(failed)? {
            let path = finding.path.display();
            tracing::info!(driver = name, %path, "mended: {}", finding.problem);
        }
        let infos = driver.list().map_err(failed)?;
        for info in &infos {
            self.note_id(&info.id);
        }
        let steps = reconcile::layers::plan(&self.catalogue.read()?, name, &infos)?;
        self.mend(&steps)
    }
}

/// Opens the catalogue; one that is damaged is put aside, and an empty one takes its place.
pub(crate) fn open_catalogue(root: &Root) -> Result<Catalogue> {
    match Catalogue::open(root) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let aside = format!("{CATALOGUE}.damaged");
            tracing::error!(%error, "the catalogue is damaged; building it anew, see {aside}");
            rustix::fs::renameat(root, CATALOGUE, root, aside.as_str())
                .map_err(|e| Error::sys("renameat", CATALOGUE, e))?;
            Catalogue::open(root)
        }
        other => other,
    }
}

/// Opens one of layerd's own drivers.
pub(crate) fn open_driver(
    name: &str,
    home: &Path,
    options: &[String],
) -> drivers::Result<Arc<dyn Driver>> {
    drivers::open(name, home, options).map(Arc::from)
}

//! What the tests of this crate share: a driver in memory that can be made to fail, archives, and a
//! store over both.

mod archive;
mod memory;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use archive::{Archive, layer_tar};
pub(crate) use memory::{Disk, Memory, NEEDS_LOWER};

use crate::check::{CheckOptions, Report, check_with};
use crate::config::Config;
use crate::error::Result;
use crate::import::{ImportOptions, ImportedImage};
use crate::store::{NewSnapshot, Opener, Store};

/// A root directory whose drivers `vfs` and `overlay2` are in memory, and survive a restart there.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) vfs: Arc<Disk>,
    pub(crate) overlay2: Arc<Disk>,
}

impl Bench {
    /// An empty root.
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), vfs: Arc::default(), overlay2: Arc::default() }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Where archives are put.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub(crate) fn opener(&self) -> Box<Opener> {
        let (vfs, overlay2) = (Arc::clone(&self.vfs), Arc::clone(&self.overlay2));
        Box::new(move |name, home, _| {
            std::fs::create_dir_all(home).unwrap();
            std::fs::write(home.join("marker"), name).unwrap();
            Ok(match name {
                "vfs" => Arc::new(Memory::new("vfs", &vfs)),
                _ => Arc::new(Memory::new("overlay2", &overlay2)),
            })
        })
    }

    /// Opens the store; it is closed by dropping it.
    pub(crate) fn open(&self) -> Arc<Store> {
        self.try_open(Some("vfs")).unwrap()
    }

    pub(crate) fn try_open(&self, driver: Option<&str>) -> Result<Arc<Store>> {
        let driver = driver.map(str::to_owned);
        let config = Config { root: self.root(), driver, ..Config::default() };
        Store::open_with(config, self.opener())
    }

    /// Checks the store, which nobody has open.
    pub(crate) fn check(&self, repair: bool) -> Report {
        let options = CheckOptions { repair, ..CheckOptions::default() };
        check_with(&self.root(), &options, &self.opener()).unwrap()
    }

    /// Fails unless a check finds nothing.
    #[track_caller]
    pub(crate) fn assert_sound(&self, when: &str) {
        let report = self.check(false);
        assert_eq!(report.findings, [], "check finds something {when}");
    }

    /// Writes an archive and imports it.
    pub(crate) fn import(&self, store: &Store, archive: &Archive) -> Result<Vec<ImportedImage>> {
        let path = archive.write(&self.scratch());
        store.import(&path, &ImportOptions::default(), &|_| {})
    }
}

/// An active snapshot to be.
pub(crate) fn active(key: &str, parent: Option<&str>) -> NewSnapshot {
    let parent = parent.map(str::to_owned);
    NewSnapshot { key: key.to_owned(), parent, ..NewSnapshot::default() }
}

/// A view to be.
pub(crate) fn view(key: &str, parent: Option<&str>) -> NewSnapshot {
    NewSnapshot { view: true, ..active(key, parent) }
}

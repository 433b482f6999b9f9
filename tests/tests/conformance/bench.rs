//! One driver on a home of its own, and the short words in which the cases are written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use drivers::{Access, CreateOptions, Driver, ErrorKind, LayerId, LayerRecord, State};
use tests::host::provides;
use tests::ops::{self, Op};
use tests::root::TempRoot;
use tests::thinpool::ThinPool;
use tests::tree::{self, Portrait};

/// Where a home is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Disk,
    /// One manner of each driver's on the disk is enough.
    Memory,
    Btrfs,
}

/// A driver with some options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    /// What failures call it.
    pub(crate) label: &'static str,
    pub(crate) driver: &'static str,
    pub(crate) options: &'static [&'static str],
    /// Whether a directory of a lower layer can be renamed.
    pub(crate) renames_lower_dirs: bool,
    /// Whether names of one lower file stay one file when it is changed.
    pub(crate) keeps_lower_links: bool,
    /// How many layers can be stacked.
    pub(crate) depth: usize,
    /// Where its home is.
    pub(crate) place: Place,
}

const OVERLAY2: Backend = Backend {
    label: "overlay2",
    driver: "overlay2",
    options: &[],
    renames_lower_dirs: true,
    keeps_lower_links: false,
    depth: 500,
    place: Place::Disk,
};

const IN_MEMORY: Backend = Backend { place: Place::Memory, ..OVERLAY2 };

const FUSE: Backend = Backend { label: "fuse", driver: "fuse", ..OVERLAY2 };

/// The oracle.
pub(crate) const VFS: Backend = Backend {
    label: "vfs",
    driver: "vfs",
    options: &[],
    renames_lower_dirs: true,
    keeps_lower_links: true,
    depth: usize::MAX,
    place: Place::Disk,
};

const BTRFS: Backend = Backend { label: "btrfs", driver: "btrfs", place: Place::Btrfs, ..VFS };

/// On a pool of its own, in a guest.
const DEVICEMAPPER: Backend = Backend {
    label: "devicemapper",
    driver: "devicemapper",
    options: &["dm.thinpooldev=conformance", "dm.basesize=512m", "dm.min_free_space=0"],
    // System calls are slow in a guest.
    depth: 24,
    ..VFS
};

const DEVICEMAPPER_XFS: Backend = Backend {
    label: "devicemapper, xfs",
    options: &[
        "dm.thinpooldev=conformance",
        "dm.basesize=512m",
        "dm.min_free_space=0",
        "dm.fs=xfs",
        "dm.use_deferred_removal=false",
        "dm.use_deferred_deletion=false",
    ],
    ..DEVICEMAPPER
};

/// Says in a guest on which file system devicemapper is to be tested there.
pub(crate) const GUEST: &str = "LAYERD_TEST_DEVICEMAPPER";

/// The drivers that cases are run over: this machine's, or the guest's.
pub(crate) fn backends() -> Vec<Backend> {
    match std::env::var(GUEST).as_deref() {
        Ok("ext4") => vec![DEVICEMAPPER],
        Ok(_) => vec![DEVICEMAPPER_XFS],
        Err(_) => BACKENDS.to_vec(),
    }
}

/// Every driver that this machine's kernel has, in each of its manners of work.
const BACKENDS: [Backend; 9] = [
    VFS,
    OVERLAY2,
    Backend {
        label: "overlay2, no redirect_dir",
        options: &["redirect_dir=off"],
        renames_lower_dirs: false,
        ..IN_MEMORY
    },
    Backend { label: "overlay2, metacopy", options: &["metacopy=on"], ..IN_MEMORY },
    Backend { label: "overlay2, index", options: &["overlay2.index=on"], ..IN_MEMORY },
    Backend { label: "overlay2, volatile", options: &["mountopt=volatile"], ..IN_MEMORY },
    BTRFS,
    FUSE,
    Backend {
        label: "fuse, no passthrough",
        options: &["mountopt=passthrough=0,index=on", "volatile=on"],
        place: Place::Memory,
        ..FUSE
    },
];

/// Runs a case over every driver.
pub(crate) fn each(case: &str, run: impl Fn(&mut Bench)) {
    if provides(&["mkfs.btrfs"]) {
        for backend in backends() {
            run(&mut Bench::new(backend, case));
        }
    }
}

pub(crate) fn id(text: &str) -> LayerId {
    text.parse().unwrap_or_else(|error| panic!("id {text}: {error}"))
}

pub(crate) fn parent_record(parent: &str) -> LayerRecord {
    LayerRecord { parent: Some(id(parent)), ..LayerRecord::default() }
}

/// The kind of a failure, for tables; none is success.
pub(crate) fn kind<T>(result: Result<T, drivers::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// A driver under test. What is mounted goes when it is dropped.
pub(crate) struct Bench {
    pub(crate) backend: Backend,
    pub(crate) label: String,
    driver: Option<Box<dyn Driver>>,
    home: &'static str,
    pub(crate) root: TempRoot,
    /// Held for its drop, which comes last.
    _pool: Option<ThinPool>,
}

impl Bench {
    pub(crate) fn new(backend: Backend, case: &str) -> Self {
        Self::named(backend, case, "home")
    }

    /// With a home of this name.
    pub(crate) fn named(backend: Backend, case: &str, home: &'static str) -> Self {
        let root = match backend.place {
            Place::Disk => TempRoot::new("conformance"),
            Place::Memory => TempRoot::in_memory("conformance"),
            Place::Btrfs => TempRoot::on_btrfs("conformance"),
        };
        let label = format!("{}: {case}", backend.label);
        let on_devices = backend.driver == "devicemapper";
        let pool = on_devices.then(|| ThinPool::new("conformance", 3072));
        let mut bench = Self { backend, label, driver: None, home, root, _pool: pool };
        bench.open();
        bench
    }

    fn open(&mut self) {
        let mut options = tests::programs::options(self.backend.driver);
        options.extend(self.backend.options.iter().map(ToString::to_string));
        let opened = drivers::open(self.backend.driver, &self.home(), &options);
        self.driver = Some(opened.unwrap_or_else(|error| panic!("{}: open: {error}", self.label)));
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.join(self.home)
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        self.driver.as_deref().unwrap_or_else(|| panic!("{}: not open", self.label))
    }

    /// As a restart of the daemon: mounts stay.
    pub(crate) fn reopen(&mut self) {
        self.reopen_after(|_| ());
    }

    /// The same, with something done to the home in between.
    pub(crate) fn reopen_after(&mut self, damage: impl FnOnce(&Path)) {
        self.driver = None;
        damage(&self.home());
        self.open();
    }

    /// A result that must be good.
    pub(crate) fn ok<T>(&self, what: &str, result: Result<T, drivers::Error>) -> T {
        result.unwrap_or_else(|error| panic!("{}: {what}: {error}", self.label))
    }

    pub(crate) fn create(&self, name: &str, parent: Option<&str>) {
        let parent = parent.map(id);
        let result = self.driver().create(&id(name), parent.as_ref(), &CreateOptions::active());
        self.ok(&format!("create {name}"), result);
    }

    pub(crate) fn view(&self, name: &str, parent: Option<&str>) {
        let parent = parent.map(id);
        let result = self.driver().create(&id(name), parent.as_ref(), &CreateOptions::view());
        self.ok(&format!("view {name}"), result);
    }

    pub(crate) fn mount(&self, name: &str) -> PathBuf {
        self.ok(&format!("mount {name}"), self.driver().mount(&id(name), Access::Default))
    }

    pub(crate) fn unmount(&self, name: &str) {
        self.ok(&format!("unmount {name}"), self.driver().unmount(&id(name)));
    }

    pub(crate) fn commit(&self, name: &str) {
        let result = self.driver().commit(&id(name), &LayerRecord::default());
        self.ok(&format!("commit {name}"), result);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.ok(&format!("remove {name}"), self.driver().remove(&id(name)));
    }

    pub(crate) fn state(&self, name: &str) -> State {
        self.ok(&format!("info {name}"), self.driver().info(&id(name))).state
    }

    /// Does some steps in a mounted layer.
    pub(crate) fn work(&self, name: &str, steps: &[Op<'_>]) {
        ops::apply(&self.mount(name), steps);
        self.unmount(name);
    }

    /// Makes an active layer with some steps done in it.
    pub(crate) fn active(&self, name: &str, parent: Option<&str>, steps: &[Op<'_>]) {
        self.create(name, parent);
        self.work(name, steps);
    }

    /// Makes a committed layer with some steps done in it.
    pub(crate) fn layer(&self, name: &str, parent: Option<&str>, steps: &[Op<'_>]) {
        self.active(name, parent, steps);
        self.commit(name);
    }

    /// What a layer shows, read through a read-only mount.
    pub(crate) fn portrait(&self, name: &str) -> Portrait {
        let result = self.driver().mount(&id(name), Access::ReadOnly);
        let path = self.ok(&format!("mount {name}"), result);
        let portrait = tree::portrait(&path)
            .unwrap_or_else(|error| panic!("{}: look at {name}: {error}", self.label));
        self.unmount(name);
        timeless(portrait)
    }

    /// The names and kinds of a layer's changes.
    pub(crate) fn changes(&self, name: &str, base: Option<&str>) -> Vec<String> {
        let base = base.map(id);
        let result = self.driver().changes(&id(name), base.as_ref());
        let changeset = self.ok(&format!("changes of {name}"), result);
        let line =
            |change: &cow::change::Change| format!("{:?} /{}", change.kind, change.path.display());
        changeset.changes.iter().map(line).collect()
    }

    /// A layer's difference as a tar.
    pub(crate) fn diff(&self, name: &str, base: Option<&str>) -> Vec<u8> {
        let mut tar = Vec::new();
        let base = base.map(id);
        let result = self.driver().diff(&id(name), base.as_ref(), &mut tar);
        let length = self.ok(&format!("diff of {name}"), result);
        assert_eq!(length, tar.len() as u64, "{}: length of the tar of {name}", self.label);
        tar
    }

    pub(crate) fn apply(&self, name: &str, mut tar: &[u8]) -> drivers::Applied {
        self.ok(&format!("apply to {name}"), self.driver().apply(&id(name), &mut tar))
    }

    /// What is wrong with the home: paths and whether it can be repaired.
    pub(crate) fn check(&self) -> BTreeMap<PathBuf, bool> {
        let findings = self.ok("check", self.driver().check());
        findings.into_iter().map(|found| (found.path, found.repairable)).collect()
    }

    /// Sees that two pictures are the same.
    pub(crate) fn same(&self, what: &str, got: &Portrait, expected: &Portrait) {
        let differences = tree::differences(got, expected);
        let list = differences.join("\n");
        assert!(
            differences.is_empty(),
            "{}: {what} (left: this, right: expected):\n{list}",
            self.label
        );
    }
}

/// Takes out the times that the case itself did not set: those of the last day.
pub(crate) fn timeless(portrait: Portrait) -> Portrait {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    portrait
        .into_iter()
        .map(|(path, line)| {
            let words: Vec<_> = line
                .split(' ')
                .map(|word| {
                    let secs = word.strip_prefix("mtime=").and_then(|time| time.split('.').next());
                    match secs.and_then(|secs| secs.parse::<u64>().ok()) {
                        Some(secs) if secs > now - 86_400 => "mtime=now",
                        _ => word,
                    }
                })
                .collect();
            (path, words.join(" "))
        })
        .collect()
}

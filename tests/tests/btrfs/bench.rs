//! A driver on a btrfs of its own.

use std::path::PathBuf;
use std::process::Command;

use cow::change::Changeset;
use cow::root::Root;
use drivers::{Access, CreateOptions, Driver, LayerId, LayerRecord};
use tests::daemon::Finish as _;
use tests::host;
use tests::root::TempRoot;

/// Whether these tests can run here.
pub(crate) fn here() -> bool {
    host::provides(&["mkfs.btrfs", "btrfs"])
}

pub(crate) fn id(text: &str) -> LayerId {
    text.parse().expect("an id")
}

/// A driver, and the file system it is on.
pub(crate) struct Bench {
    driver: Option<Box<dyn Driver>>,
    options: Vec<String>,
    pub(crate) root: TempRoot,
}

impl Bench {
    pub(crate) fn new(label: &str, options: &[&str]) -> Self {
        let root = TempRoot::on_btrfs(label);
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut bench = Self { driver: None, options, root };
        bench.open();
        bench
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    fn open(&mut self) {
        self.driver = Some(drivers::open("btrfs", &self.home(), &self.options).expect("open"));
    }

    /// Opens the driver again, with something done in between.
    pub(crate) fn reopen_after(&mut self, work: impl FnOnce(&TempRoot)) {
        self.driver = None;
        work(&self.root);
        self.open();
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        self.driver.as_deref().expect("an open driver")
    }

    pub(crate) fn create(&self, name: &str, parent: Option<&str>) {
        let parent = parent.map(id);
        let options = CreateOptions::active();
        self.driver().create(&id(name), parent.as_ref(), &options).expect(name);
    }

    pub(crate) fn mount(&self, name: &str) -> PathBuf {
        self.driver().mount(&id(name), Access::Default).expect(name)
    }

    pub(crate) fn unmount(&self, name: &str) {
        self.driver().unmount(&id(name)).expect(name);
    }

    pub(crate) fn commit(&self, name: &str) {
        self.driver().commit(&id(name), &LayerRecord::default()).expect(name);
    }

    /// The lines of a layer's changes.
    pub(crate) fn changes(&self, name: &str, base: Option<&str>) -> Vec<String> {
        let base = base.map(id);
        lines(&self.driver().changes(&id(name), base.as_ref()).expect(name))
    }

    /// The same by walking both trees.
    pub(crate) fn walked(&self, name: &str, base: &str) -> Vec<String> {
        let tree = |name: &str| {
            let layer = self.home().join("layers").join(name);
            let tree = ["ro", "rw"].into_iter().map(|tree| layer.join(tree)).find(|t| t.exists());
            Root::open(tree.expect("a tree")).expect("a tree")
        };
        lines(&cow::diff::trees(Some(&tree(base)), &tree(name)).expect("a double walk"))
    }

    /// Runs btrfs(8), which must work.
    pub(crate) fn btrfs(&self, arguments: &[&str]) -> String {
        Command::new("btrfs").args(arguments).finish().ok()
    }

    /// Closes the driver, which ends what it does behind its calls, and waits until the kernel has freed
    /// what was deleted.
    pub(crate) fn settle(&mut self) {
        self.reopen_after(|_| ());
        tests::disk::clean_btrfs(self.root.path());
    }

    /// How many subvolumes there are, those not yet freed left out. The driver is closed before, which
    /// waits for what it deletes behind its calls.
    pub(crate) fn subvolumes(&mut self) -> usize {
        self.reopen_after(|_| ());
        self.btrfs(&["subvolume", "list", self.root.path().to_str().expect("UTF-8")])
            .lines()
            .count()
    }
}

pub(crate) fn lines(changes: &Changeset) -> Vec<String> {
    let line =
        |change: &cow::change::Change| format!("{:?} /{}", change.kind, change.path.display());
    changes.changes.iter().map(line).collect()
}

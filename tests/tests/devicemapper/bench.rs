//! A driver on a pool of its own, and what it says and costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cow::change::Changeset;
use cow::root::Root;
use drivers::{Access, CreateOptions, Driver, LayerId, LayerRecord};
use tests::daemon::Finish as _;
use tests::root::TempRoot;
use tests::thinpool::ThinPool;
use tracing::field::{Field, Visit};
use tracing::span;

pub(crate) const POOL: &str = "thindiff";

pub(crate) fn id(text: &str) -> LayerId {
    text.parse().expect("an id")
}

/// A driver, and the pool it is on.
pub(crate) struct Bench {
    driver: Option<Box<dyn Driver>>,
    root: TempRoot,
    /// Held for its drop, which comes last.
    _pool: ThinPool,
}

/// Opens a home on the pool.
pub(crate) fn open(home: &Path, options: &[&str]) -> Box<dyn Driver> {
    let name = format!("dm.thinpooldev={POOL}");
    let mut all = vec![name.as_str(), "dm.basesize=512m", "dm.min_free_space=0"];
    all.extend(options);
    let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
    drivers::open("devicemapper", home, &all).expect("open")
}

impl Bench {
    pub(crate) fn new(options: &[&str]) -> Self {
        Self::sized(options, 1536)
    }

    /// On a pool of so many MiB.
    pub(crate) fn sized(options: &[&str], mib: u64) -> Self {
        let pool = ThinPool::new(POOL, mib);
        let root = TempRoot::new(POOL);
        let driver = Some(open(&root.join("home"), options));
        Self { driver, root, _pool: pool }
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        self.driver.as_deref().expect("an open driver")
    }

    /// Opens the driver again, with something done to its home in between.
    pub(crate) fn reopen_after(&mut self, work: impl FnOnce(&Path)) {
        self.driver = None;
        let home = self.root.join("home");
        work(&home);
        self.driver = Some(open(&home, &[]));
    }

    /// What `check` says, of the pool's devices too.
    pub(crate) fn findings(&self) -> Vec<String> {
        let findings = self.driver().check().expect("check");
        findings.into_iter().map(|finding| finding.problem).collect()
    }

    pub(crate) fn create(&self, name: &str, parent: Option<&str>) {
        let parent = parent.map(id);
        self.driver().create(&id(name), parent.as_ref(), &CreateOptions::active()).expect(name);
    }

    pub(crate) fn create_sized(&self, name: &str, parent: &str, size: Option<u64>) {
        let options = CreateOptions { size, ..CreateOptions::active() };
        self.driver().create(&id(name), Some(&id(parent)), &options).expect(name);
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

    pub(crate) fn remove(&self, name: &str) {
        self.driver().remove(&id(name)).expect(name);
    }

    /// The lines of a layer's changes.
    pub(crate) fn changes(&self, name: &str, base: &str) -> Vec<String> {
        lines(&self.driver().changes(&id(name), Some(&id(base))).expect(name))
    }

    /// The same by walking both trees.
    pub(crate) fn walked(&self, name: &str, base: &str) -> Vec<String> {
        let tree = |name: &str| Root::open(self.mount(name)).expect("a tree");
        let (lower, upper) = (tree(base), tree(name));
        let found = lines(&cow::diff::trees(Some(&lower), &upper).expect("a double walk"));
        drop((lower, upper));
        self.unmount(name);
        self.unmount(base);
        found
    }

    /// What a call gives, how many bytes it reads from the pool's data with nothing in memory, and how
    /// long it takes.
    pub(crate) fn cost<T>(&self, call: impl FnOnce() -> T) -> (T, u64, Duration) {
        rustix::fs::sync();
        fs::write("/proc/sys/vm/drop_caches", "3").expect("nothing in memory");
        let (before, began) = (read_sectors(), Instant::now());
        let outcome = call();
        (outcome, (read_sectors() - before) * 512, began.elapsed())
    }

    /// Sends the pool a message, as somebody else might.
    pub(crate) fn message(&self, text: &str) {
        Command::new("dmsetup").args(["message", POOL, "0", text]).finish().ok();
    }

    /// Has the file system of a layer that nobody has mounted checked and dated.
    pub(crate) fn fsck(&self, name: &str) {
        self.on_device(name, |node| {
            let checked = Command::new("e2fsck").args(["-f", "-p"]).arg(node).finish();
            assert!(matches!(checked.code, Some(0 | 1)), "{checked:?}");
        });
    }

    /// Does something with the device of a layer that nobody has mounted.
    pub(crate) fn on_device(&self, name: &str, work: impl FnOnce(&Path)) {
        self.mount(name);
        let keys = self.driver().metadata(&id(name)).expect(name);
        let (number, device) = (&keys["DeviceId"], &keys["DeviceName"]);
        let size: u64 = keys["DeviceSize"].parse().expect("a number");
        self.unmount(name);
        // The device went with its mount.
        let table = format!("0 {} thin /dev/mapper/{POOL} {number}", size / 512);
        let name = format!("{device}-work");
        Command::new("dmsetup").args(["create", &name, "--table", &table]).finish().ok();
        let node = Path::new("/dev/mapper").join(&name);
        Command::new("dmsetup").args(["mknodes", &name]).finish().ok();
        work(&node);
        Command::new("dmsetup").args(["remove", "--retry", &name]).finish().ok();
    }
}

/// How many sectors were read from the pool's data.
fn read_sectors() -> u64 {
    let devices = fs::read_dir("/sys/block").expect("/sys/block");
    let device = devices.map(|entry| entry.expect("an entry").path()).find(|device| {
        fs::read_to_string(device.join("dm/name"))
            .is_ok_and(|name| name.trim() == format!("{POOL}-data"))
    });
    let stat = fs::read_to_string(device.expect("the pool").join("stat")).expect("numbers");
    // Reads, merged ones, sectors.
    stat.split_whitespace().nth(2).and_then(|word| word.parse().ok()).expect("a number")
}

fn lines(changes: &Changeset) -> Vec<String> {
    let line =
        |change: &cow::change::Change| format!("{:?} /{}", change.kind, change.path.display());
    changes.changes.iter().map(line).collect()
}

/// What the driver says of its comparisons.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Line>>>);

#[derive(Clone, Debug, Default)]
struct Line {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Log {
    /// Hears what is said during a call.
    pub(crate) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(self.clone(), call)
    }

    fn values(&self, message: &str, name: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        let lines = lines.iter().filter(|line| line.message == message);
        lines
            .flat_map(|line| line.fields.iter().filter(|(field, _)| *field == name))
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// The reasons for which trees were walked.
    pub(crate) fn walks(&self) -> Vec<String> {
        self.values("both trees are walked", "reason")
    }

    /// A number that was said of the one comparison.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let values = self.values("compared what was written", name);
        assert_eq!(values.len(), 1, "{name}: {:?}", self.0.lock().unwrap());
        values[0].parse().expect("a number")
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push((name, format!("{value:?}"))),
        }
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

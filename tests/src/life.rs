//! What a store does in its life, with a note of what is durable when: for tests of power cuts and of
//! disks that fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerd_api::types::CommitSnapshotRequest;
use layerd_api::{Client, SnapshotRequest};
use serde_json::json;
use tempfile::TempDir;

use crate::archive::{self, Image};
use crate::daemon::{Daemon, Finish as _, Finished};
use crate::host::Mounted;
use crate::programs;
use crate::root::TempRoot;
use crate::tree::{self, Portrait};

/// A small generator (xorshift), so that a failure can be repeated.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below a limit.
    ///
    /// # Panics
    /// Where a word has fewer than 32 bits.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }
}

/// What a store is to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// An image by its name.
    Image(String),
    /// A committed snapshot by its name.
    Snapshot(String),
}

impl Kept {
    fn portrait(&self, client: &Client) -> Portrait {
        let shown = match self {
            Self::Image(name) => Mounted::image(client, name),
            Self::Snapshot(name) => Mounted::layer(client, Some(name.clone())),
        };
        tree::portrait(shown.path()).expect("files")
    }
}

/// Something that must be there after a power cut between two points.
#[derive(Debug)]
pub struct Durable {
    what: Kept,
    /// The point from which on it is durable.
    pub from: usize,
    /// The point at which its removal begins.
    pub until: usize,
    shows: Portrait,
}

impl Durable {
    /// What is durable from a point on, and is looked at now.
    ///
    /// # Panics
    /// When it cannot be looked at.
    #[must_use]
    pub fn new(client: &Client, what: Kept, from: usize) -> Self {
        let shows = what.portrait(client);
        assert!(!shows.is_empty(), "{what:?} shows nothing");
        Self { what, from, until: usize::MAX, shows }
    }

    /// Whether it must be there after a cut at a point.
    #[must_use]
    pub fn is_at(&self, at: usize) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// Sees that a daemon has it, whole.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn look(&self, client: &Client, when: &str) {
        let differences = tree::differences(&self.what.portrait(client), &self.shows);
        let list = differences.join("\n");
        assert!(differences.is_empty(), "{when}: {:?}:\n{list}", self.what);
    }
}

/// Writes an image of two layers with so many files, and gives its path and name.
///
/// # Panics
/// When it cannot be written.
#[must_use]
pub fn archive(dir: &Path, number: usize, files: usize) -> (PathBuf, String) {
    let name = format!("localhost/image{number}:1");
    let content = format!("content of image {number}\n").repeat(400);
    let names: Vec<_> = (0..files).map(|file| format!("dir{}/file{file}", file % 7)).collect();
    let (below, above) = names.split_at(files * 3 / 4);
    let layer = |names: &'static [String]| -> Vec<(&'static str, &'static str)> {
        let content: &'static str = content.clone().leak();
        names.iter().map(|name| (name.as_str(), content)).collect()
    };
    let layers = [layer(below.to_vec().leak()), layer(above.to_vec().leak())];
    let path = dir.join(format!("{number}.tar"));
    let image = Image {
        names: &[&name],
        layers: &[&layers[0], &layers[1]],
        created: "2024-01-01T00:00:00Z",
        config: &json!({}),
    };
    archive::docker(&path, &[image]);
    (path, name)
}

/// Imports, commits of containers, removals. `now` names the points of time; the containers with the
/// numbers `stay_mounted` have their layers mounted while these are committed.
///
/// # Panics
/// When a step fails.
#[must_use]
pub fn live(
    daemon: &Daemon,
    archives: &[(PathBuf, String)],
    stay_mounted: &[usize],
    mut now: impl FnMut() -> usize,
) -> Vec<Durable> {
    let client = daemon.client();
    let mut images: Vec<Durable> = Vec::new();
    let mut snapshots = Vec::new();
    for (number, (archive, image)) in archives.iter().enumerate() {
        daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
        let from = now();
        images.push(Durable::new(&client, Kept::Image(image.clone()), from));
        let name = commit(&client, image, number, stay_mounted.contains(&number));
        let from = now();
        let mut snapshot = Durable::new(&client, Kept::Snapshot(name.clone()), from);
        snapshot.until = now();
        snapshots.push(snapshot);
        client.remove_snapshot(&name).expect("a removal");
        // The one before last goes, so that removals meet imports.
        if number >= 2 {
            let (_, old) = &archives[number - 2];
            images[number - 2].until = now();
            daemon.layerctl(["rmi", old]).ok();
        }
    }
    images.into_iter().chain(snapshots).collect()
}

/// Commits a container's layer on an image, and gives the name of what that made.
///
/// # Panics
/// When a step fails.
#[must_use]
pub fn commit(client: &Client, image: &str, number: usize, stays_mounted: bool) -> String {
    let (key, name) = (format!("active {number}"), format!("committed {number}"));
    let work = Active::new(client, image, &key);
    fs::write(work.path().join("new"), "x".repeat(50_000)).expect("a file");
    fs::remove_file(work.path().join("dir1/file1")).expect("a file");
    let work = stays_mounted.then_some(work);
    let request = CommitSnapshotRequest { key, name: name.clone(), labels: BTreeMap::default() };
    client.commit_snapshot(&request).expect("a commit");
    if let Some(work) = work {
        fs::write(work.path().join("later"), "not of the layer").expect("its client goes on");
    }
    name
}

/// A container's layer on an image, mounted by its client until it is dropped.
#[derive(Debug)]
pub struct Active(TempRoot);

impl Active {
    /// Makes the layer and mounts it.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(client: &Client, image: &str, key: &str) -> Self {
        let layers = client.image(image).expect("the image").image.layers;
        let parent = layers.last().cloned();
        let request = SnapshotRequest { key: key.to_owned(), parent, ..Default::default() };
        let mounts = client.prepare(&request).expect("a snapshot");
        let target = TempRoot::new("active");
        for mount in mounts {
            let fd = fs::File::open(target.path()).expect("a mount point");
            let source = Path::new(&mount.source);
            cow_sys::mount::mount_at(&mount.fstype, source, &mount.options, fd).expect("a mount");
        }
        Self(target)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // Not detached if it can be helped: what comes next finds the layer free.
        let _ = cow_sys::mount::unmount(self.0.path(), false);
    }
}

/// A directory for a daemon on a disk, which stays for [`find`].
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn place(disk: &Path) -> TempDir {
    let dir = disk.join("store");
    fs::create_dir_all(&dir).expect("a directory");
    let mut made = tempfile::Builder::new().prefix("d").tempdir_in(&dir).expect("a directory");
    made.disable_cleanup(true);
    made
}

/// The root of the store on a disk, if it has come to be.
#[must_use]
pub fn find(disk: &Path) -> Option<PathBuf> {
    let dirs = fs::read_dir(disk.join("store")).into_iter().flatten().flatten();
    dirs.map(|entry| entry.path().join("root")).find(|root| root.join("format.json").exists())
}

/// Repairs a store, after which it must be sound, and starts a daemon on it.
///
/// # Panics
/// When it is not sound, or does not start.
#[must_use]
pub fn revive(disk: &Path, root: &Path, options: &[&str], what: &str) -> Daemon {
    let repaired = check(root, &["--repair"]);
    assert!(matches!(repaired.code, Some(0 | 1)), "{what}: {repaired:?}");
    let sound = check(root, &[]);
    assert_eq!(sound.code, Some(0), "{what}, repaired: {repaired:?}, then: {sound:?}");
    // The daemon's own directory, for its socket and log.
    let place = place(disk);
    fs::rename(root, place.path().join("root")).expect("the store");
    Daemon::start_in(place, options)
}

fn check(root: &Path, arguments: &[&str]) -> Finished {
    let mut check = Command::new(programs::path("layerd"));
    check.arg("check").args(arguments).arg("--root").arg(root).finish()
}

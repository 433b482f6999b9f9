//! Power cuts during import, commit and removal: what was durable is whole afterwards.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerd_api::SnapshotRequest;
use layerd_api::types::CommitSnapshotRequest;
use serde_json::json;
use tempfile::TempDir;
use tests::archive::{self, Image};
use tests::daemon::{Daemon, Finish as _, Finished};
use tests::host::{self, Mounted};
use tests::programs;
use tests::recorded::Recorded;
use tests::root::TempRoot;
use tests::tree::{self, Portrait};

/// A small generator (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }
}

/// Something that must be there after a power cut between two points.
struct Durable {
    image: String,
    from: usize,
    until: usize,
    shows: Portrait,
}

/// Images of two layers with some hundred files each.
fn archive(dir: &Path, number: usize) -> (PathBuf, String) {
    let name = format!("localhost/image{number}:1");
    let content = format!("content of image {number}\n").repeat(400);
    let names: Vec<_> = (0..200).map(|file| format!("dir{}/file{file}", file % 7)).collect();
    let (below, above) = names.split_at(150);
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

/// What a store does in its life: imports, commits of containers, removals. Tells what is durable when.
fn life(disk: &Recorded, driver: &str, archives: &[(PathBuf, String)]) -> Vec<Durable> {
    let daemon = Daemon::start_in(store(disk.path()), ["--driver", driver]);
    let mut durable: Vec<Durable> = Vec::new();
    for (number, (archive, image)) in archives.iter().enumerate() {
        daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
        let from = disk.now();
        let shows = tree::portrait(Mounted::image(&daemon.client(), image).path()).expect("files");
        durable.push(Durable { image: image.clone(), from, until: usize::MAX, shows });
        commit(&daemon, image, number);
        // The one before last goes, so that removals meet imports.
        if number >= 2 {
            let old = &mut durable[number - 2];
            old.until = disk.now();
            daemon.layerctl(["rmi", &old.image]).ok();
        }
    }
    drop(daemon.kill());
    durable
}

/// A container's layer on an image, committed and removed.
fn commit(daemon: &Daemon, image: &str, number: usize) {
    let client = daemon.client();
    let layers = client.image(image).expect("the image").image.layers;
    let (key, name) = (format!("active {number}"), format!("committed {number}"));
    let parent = layers.last().cloned();
    let request = SnapshotRequest { key: key.clone(), parent, ..Default::default() };
    let mounts = client.prepare(&request).expect("a snapshot");
    let target = TempRoot::new("powercut");
    for mount in mounts {
        let fd = fs::File::open(target.path()).expect("a mount point");
        let source = Path::new(&mount.source);
        cow_sys::mount::mount_at(&mount.fstype, source, &mount.options, fd).expect("a mount");
    }
    fs::write(target.join("new"), "x".repeat(50_000)).expect("a file");
    fs::remove_file(target.join("dir1/file1")).expect("a file");
    cow_sys::mount::unmount(target.path(), false).expect("not in use");
    let request = CommitSnapshotRequest { key, name: name.clone(), labels: Default::default() };
    client.commit_snapshot(&request).expect("a commit");
    client.remove_snapshot(&name).expect("a removal");
}

/// The directory of a store on a disk; always the same, so that it is found again.
fn store(disk: &Path) -> TempDir {
    let dir = disk.join("store");
    fs::create_dir_all(&dir).expect("a directory");
    let mut made = tempfile::Builder::new().prefix("d").tempdir_in(&dir).expect("a directory");
    made.disable_cleanup(true);
    made
}

fn check(root: &Path, arguments: &[&str]) -> Finished {
    let mut check = Command::new(programs::path("layerd"));
    check.arg("check").args(arguments).arg("--root").arg(root).finish()
}

/// Looks at a disk after a cut.
fn survives(disk: &Path, driver: &str, at: usize, durable: &[Durable]) {
    let root = TempRoot::new("after-cut");
    let mut mount = Command::new("mount");
    mount.args(["-o", "loop"]).arg(disk).arg(root.path()).finish().ok();
    let dirs = fs::read_dir(root.join("store")).into_iter().flatten().flatten();
    let dir = dirs.map(|entry| entry.path()).find(|path| path.join("root/format.json").exists());
    let expected: Vec<_> = durable.iter().filter(|d| (d.from..d.until).contains(&at)).collect();
    let Some(dir) = dir else {
        assert!(expected.is_empty(), "{driver}, cut at {at}: the whole store is gone");
        return;
    };
    let repaired = check(&dir.join("root"), &["--repair"]);
    assert!(matches!(repaired.code, Some(0 | 1)), "{driver}, cut at {at}: {repaired:?}");
    let sound = check(&dir.join("root"), &[]);
    assert_eq!(
        sound.code,
        Some(0),
        "{driver}, cut at {at}, repaired: {repaired:?}, then: {sound:?}"
    );
    // The daemon's own directory, for its socket and log.
    let place = store(root.path());
    fs::rename(dir.join("root"), place.path().join("root")).expect("the store");
    let daemon = Daemon::start_in(place, ["--driver", driver]);
    for image in expected {
        let shown = Mounted::image(&daemon.client(), &image.image);
        let found = tree::portrait(shown.path()).expect("files");
        let differences = tree::differences(&found, &image.shows);
        let list = differences.join("\n");
        assert!(differences.is_empty(), "{driver}, cut at {at}: {}:\n{list}", image.image);
    }
    drop(daemon.kill());
}

fn cuts(fs: &str, driver: &str, cuts: usize) {
    if !host::provides(&[&format!("mkfs.{fs}"), "mount"]) {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let archives: Vec<_> = (0..5).map(|number| archive(dir.path(), number)).collect();
    let disk = Recorded::new(fs, 512);
    let durable = life(&disk, driver, &archives);
    let end = disk.now();
    disk.unmount();
    assert!(durable.iter().all(|d| d.from <= end) && end > cuts, "{driver}: {end} writes");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for cut in 0..cuts {
        // One in each stretch of the life, the last at its very end.
        let at = if cut + 1 == cuts { end } else { (cut * end + random.below(end)) / cuts };
        let kept = random.below(4);
        let image = disk.cut(at, || random.below(3) < kept);
        // btrfs remembers devices by UUID, and which of several was the newest.
        if fs == "btrfs" {
            Command::new("btrfs").args(["device", "scan", "--forget"]).finish().ok();
        }
        survives(&image, driver, at, &durable);
    }
}

#[test]
fn btrfs_survives_power_cuts() {
    cuts("btrfs", "btrfs", 20);
}

#[test]
fn overlay2_survives_power_cuts() {
    cuts("ext4", "overlay2", 10);
}

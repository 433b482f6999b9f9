//! Power cuts during import, commit and removal: what was durable is whole afterwards.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::daemon::{Daemon, Finish as _};
use tests::host;
use tests::life::{self, Durable, Kept, Random};
use tests::recorded::Recorded;
use tests::root::TempRoot;
use tests::stock;

/// Looks at a disk after a cut.
fn survives(disk: &Path, driver: &str, at: usize, durable: &[Durable]) {
    let root = TempRoot::new("after-cut");
    let mut mount = Command::new("mount");
    mount.args(["-o", "loop"]).arg(disk).arg(root.path()).finish().ok();
    let expected: Vec<_> = durable.iter().filter(|image| image.is_at(at)).collect();
    let what = format!("{driver}, cut at {at}");
    let Some(store) = life::find(root.path()) else {
        assert!(expected.is_empty(), "{what}: the whole store is gone");
        return;
    };
    let daemon = life::revive(root.path(), &store, &["--driver", driver], &what);
    for image in expected {
        image.look(&daemon.client(), &what);
    }
    drop(daemon.kill());
}

/// What a store does, and what is durable when.
type Life<'l> = &'l dyn Fn(&Daemon, &[(PathBuf, String)], &dyn Fn() -> usize) -> Vec<Durable>;

fn cuts(kind: &str, driver: &str, cuts: usize, live: Life<'_>) {
    if !host::provides(&[&format!("mkfs.{kind}"), "mount"]) {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    // One with a layer so large that btrfs gathers the nodes of its tree.
    let files = |number| if kind == "btrfs" && number == 0 { 5600 } else { 200 };
    let archives: Vec<_> =
        (0..5).map(|number| life::archive(dir.path(), number, files(number))).collect();
    let disk = Recorded::new(kind, 512);
    let daemon = Daemon::start_in(life::place(disk.path()), ["--driver", driver]);
    let durable = live(&daemon, &archives, &|| disk.now());
    drop(daemon.kill());
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
        if kind == "btrfs" {
            Command::new("btrfs").args(["device", "scan", "--forget"]).finish().ok();
        }
        survives(&image, driver, at, &durable);
    }
}

/// Imports, commits and removals.
fn full(daemon: &Daemon, archives: &[(PathBuf, String)], now: &dyn Fn() -> usize) -> Vec<Durable> {
    life::live(daemon, archives, &[], now)
}

/// Containers on two images, most of which are snapshots from the stock; then the images go.
fn stocked(
    daemon: &Daemon,
    archives: &[(PathBuf, String)],
    now: &dyn Fn() -> usize,
) -> Vec<Durable> {
    let client = daemon.client();
    let stock = daemon.root().join("btrfs/stock");
    let mut durable = Vec::new();
    for (number, (archive, image)) in archives.iter().take(2).enumerate() {
        daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
        let mut kept = Durable::new(&client, Kept::Image(image.clone()), now());
        let mut names = Vec::new();
        for container in 0..6 {
            let name = life::commit(&client, image, number * 10 + container, false);
            let mut snapshot = Durable::new(&client, Kept::Snapshot(name.clone()), now());
            snapshot.until = usize::MAX;
            names.push((name, durable.len()));
            durable.push(snapshot);
            if container > 0 {
                stock::wait_for_spare(daemon);
            }
        }
        let layers = fs::read_dir(daemon.root().join("btrfs/layers")).expect("layers");
        let taken = layers.filter(|layer| stock::is_taken(&layer.as_ref().expect("one").path()));
        assert!(taken.count() >= 4, "few layers come from the stock");
        for (name, at) in names {
            durable[at].until = now();
            client.remove_snapshot(&name).expect("a removal");
        }
        kept.until = now();
        daemon.layerctl(["rmi", image]).ok();
        stock::wait_until_empty(&stock);
        durable.push(kept);
    }
    durable
}

#[test]
fn btrfs_survives_power_cuts() {
    cuts("btrfs", "btrfs", 20, &full);
}

#[test]
fn btrfs_with_a_stock_survives_power_cuts() {
    cuts("btrfs", "btrfs", 20, &stocked);
}

#[test]
fn overlay2_survives_power_cuts() {
    cuts("ext4", "overlay2", 10, &full);
}

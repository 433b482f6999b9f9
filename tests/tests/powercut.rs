//! Power cuts during import, commit and removal: what was durable is whole afterwards.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tests::daemon::{Daemon, Finish as _};
use tests::host;
use tests::life::{self, Durable, Random};
use tests::recorded::Recorded;
use tests::root::TempRoot;

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

fn cuts(fs: &str, driver: &str, cuts: usize) {
    if !host::provides(&[&format!("mkfs.{fs}"), "mount"]) {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    // One with a layer so large that btrfs gathers the nodes of its tree.
    let files = |number| if fs == "btrfs" && number == 0 { 5600 } else { 200 };
    let archives: Vec<_> =
        (0..5).map(|number| life::archive(dir.path(), number, files(number))).collect();
    let disk = Recorded::new(fs, 512);
    let daemon = Daemon::start_in(life::place(disk.path()), ["--driver", driver]);
    let durable = life::live(&daemon, &archives, &[], || disk.now());
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

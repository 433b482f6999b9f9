//! containerd's snapshotter suite and Docker's graphtest, on every driver that this machine's kernel has;
//! on devicemapper see `devicemapper/suites.rs`.

use std::process::Command;

use tests::daemon::Daemon;
use tests::engines::{self, passes};
use tests::root::{TempRoot, mounts_below};
use tests::{host, programs};

fn here() -> bool {
    host::provides(&["go", "mkfs.btrfs"])
}

#[test]
fn containerds_snapshotter_suite_passes() {
    if !here() {
        return;
    }
    let suite = engines::suites().join("snapshotter.test");
    for driver in host::DRIVERS {
        let root = TempRoot::for_driver(driver, "snapshotter-suite");
        let mut command = Command::new(&suite);
        command.env("LAYERD", programs::path("layerd")).env("LAYERD_DRIVER", driver);
        // Each case makes its root in the directory for temporary files.
        command.env("TMPDIR", root.path()).current_dir(root.path());
        // 20 cases and the test that holds them; renaming a directory of a lower layer, the 21st, is
        // not what overlayfs without redirects can do.
        passes(&mut command, &format!("snapshotter suite on {driver}"), 21);
    }
}

#[test]
fn dockers_graphtest_passes() {
    if !here() {
        return;
    }
    let suite = engines::suites().join("graphtest.test");
    for driver in host::DRIVERS {
        let root = TempRoot::for_driver(driver, "graphtest");
        let daemon = Daemon::start_on(&root, ["--driver", driver]);
        let mut command = Command::new(&suite);
        command.env("LAYERD_SOCKET", daemon.socket());
        command.env("TMPDIR", root.path()).current_dir(root.path());
        passes(&mut command, &format!("graphtest on {driver}"), 10);
        // The suite leaves layers, as it does with Docker's own drivers, but nothing mounted.
        let mounts = mounts_below(&daemon.root());
        assert!(mounts.is_empty(), "{driver}: mounts are left behind: {mounts:?}");
    }
}

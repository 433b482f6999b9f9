//! containerd's snapshotter suite and Docker's graphtest, on every driver.

use std::process::Command;

use tests::daemon::{Daemon, Finish as _};
use tests::root::{TempRoot, mounts_below};
use tests::{engines, host, programs};

/// Runs a suite, which must pass with at least this many cases.
fn passes(suite: &mut Command, what: &str, least: usize) {
    let done = suite.arg("-test.v").finish();
    let said = format!("{}\n{}", done.stdout, done.stderr);
    assert_eq!(done.code, Some(0), "{what}:\n{said}");
    let passed =
        done.stdout.lines().filter(|line| line.trim_start().starts_with("--- PASS")).count();
    assert!(passed >= least, "{what}: only {passed} of {least} cases passed:\n{said}");
}

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

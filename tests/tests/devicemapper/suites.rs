//! containerd's snapshotter suite and Docker's graphtest on thin devices, in a guest: what the engines want
//! of their own drivers, commits and sizes of layers that are mounted among it.

use std::path::PathBuf;
use std::process::Command;

use tests::daemon::Daemon;
use tests::root::{TempRoot, mounts_below};
use tests::uml::{self, Guest};
use tests::{engines, host, programs};

use crate::PATIENCE;

/// Says in a guest where the suites are.
const SUITES: &str = "LAYERD_TEST_SUITES";

/// Each case of containerd's has a store of its own, and so a pool of its own.
const OPTIONS: [&str; 10] = [
    "--driver",
    "devicemapper",
    "--storage-opt",
    "dm.loopdatasize=512m",
    "--storage-opt",
    "dm.loopmetadatasize=16m",
    "--storage-opt",
    "dm.basesize=64m",
    "--storage-opt",
    "dm.min_free_space=0",
];

/// Boots a guest for one of the tests below.
fn run(test: &str) {
    if !uml::available() || !host::provides(&["go"]) {
        return;
    }
    // A guest has neither time nor room for compilers.
    let suites = engines::suites().canonicalize().expect("the suites");
    let _ = programs::path("layerd");
    let guest = Guest::new().variable(SUITES, suites).patience(PATIENCE);
    print!("{}", guest.run_ignored(test));
}

fn suite(name: &str) -> Command {
    let dir = PathBuf::from(std::env::var_os(SUITES).expect("the suites' directory"));
    Command::new(dir.join(name))
}

#[test]
fn containerds_snapshotter_suite_passes_in_a_guest() {
    run("snapshotter_suite_in_this_kernel");
}

#[test]
fn dockers_graphtest_passes_in_a_guest() {
    run("graphtest_in_this_kernel");
}

#[test]
#[ignore = "run in a guest by containerds_snapshotter_suite_passes_in_a_guest"]
fn snapshotter_suite_in_this_kernel() {
    let root = TempRoot::new("snapshotter-suite");
    let mut command = suite("snapshotter.test");
    command.env("LAYERD", programs::path("layerd")).env("LAYERD_DRIVER", "devicemapper");
    command.env("LAYERD_OPTIONS", OPTIONS[2..].join(" "));
    command.env("TMPDIR", root.path()).current_dir(root.path());
    // 20 cases and the test that holds them; the one of renames skips itself wherever it runs.
    engines::passes(&mut command, "snapshotter suite on devicemapper", 21);
}

#[test]
#[ignore = "run in a guest by dockers_graphtest_passes_in_a_guest"]
fn graphtest_in_this_kernel() {
    let root = TempRoot::new("graphtest");
    let daemon = Daemon::start_on(&root, OPTIONS);
    let mut command = suite("graphtest.test");
    command.env("LAYERD_SOCKET", daemon.socket());
    command.env("TMPDIR", root.path()).current_dir(root.path());
    engines::passes(&mut command, "graphtest on devicemapper", 10);
    let mounts = mounts_below(&daemon.root());
    assert!(mounts.is_empty(), "mounts are left behind: {mounts:?}");
}

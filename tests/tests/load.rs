//! Two hundred clients of one daemon at once: nothing fails and nothing is left.

#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tests::daemon::{Daemon, Finish as _};
use tests::grpc::Grpc;
use tests::host;
use tests::load::{Footprint, Load, SNAPSHOTTER};
use tests::programs;
use tests::root::{TempRoot, mounts_below};

const CLIENTS: usize = 200;
/// Lives that each client leads.
const LIVES: usize = 3;
/// How long the daemon may take to let go of connections that were closed.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the resident set may grow by, in KiB: threads and the allocator's share.
const GROWTH: u64 = 48 << 10;

fn layers(daemon: &Daemon) -> Vec<String> {
    let dir = daemon.root().join("overlay2/layers");
    let names = fs::read_dir(dir).expect("the layers").map(|e| e.expect("an entry").file_name());
    names.map(|name| name.into_string().expect("an id")).collect()
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).expect("a directory").count()
}

/// The daemon's footprint when it has let go of connections that were closed.
fn settled(daemon: &Daemon, fds: usize) -> Footprint {
    let pid = daemon.pid().as_raw_nonzero().get().unsigned_abs();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let footprint = Footprint::of(pid).expect("the daemon lives");
        if footprint.fds <= fds || Instant::now() > deadline {
            return footprint;
        }
        thread::yield_now();
    }
}

fn assert_sound(dir: &Path, when: &str) {
    let mut check = std::process::Command::new(programs::path("layerd"));
    let found = check.arg("check").arg("--root").arg(dir).finish();
    assert_eq!(found.code, Some(0), "check {when}: {found:?}");
}

#[test]
fn two_hundred_clients_leave_nothing() {
    if !host::provides(&[]) {
        return;
    }
    let dir = TempRoot::new("load");
    let mut daemon = Daemon::start_with(["--driver", "overlay2", "--log-level", "warn"]);
    let load = Load { socket: daemon.socket(), dir: dir.path().to_owned(), clients: CLIENTS };
    let home = daemon.root().join("overlay2");
    let before = settled(&daemon, usize::MAX);
    load.prepare().expect("the bases");
    let base_layers = layers(&daemon).len();

    let outcome = load.run(|own, _| own < LIVES);
    assert!(outcome.failures.is_empty(), "clients failed: {:#?}", outcome.failures);
    assert_eq!(outcome.lives, CLIENTS * LIVES, "every life is led to its end");
    assert_eq!(mounts_below(dir.path()), Vec::<std::path::PathBuf>::new(), "clients' mounts");
    assert_eq!(mounts_below(&daemon.root()), Vec::<std::path::PathBuf>::new(), "its mounts");
    assert_eq!(layers(&daemon).len(), base_layers, "layers beyond the bases");
    for place in ["tmp", "trash"] {
        assert_eq!(count(&home.join(place)), 0, "something is left in {place}");
    }
    let after = settled(&daemon, before.fds);
    assert!(after.fds <= before.fds, "file descriptors: {before:?} became {after:?}");
    let growth = after.resident.saturating_sub(before.resident);
    assert!(growth < GROWTH, "memory: {before:?} became {after:?}");

    load.remove().expect("the bases are removed");
    let info = daemon.client().info().expect("info");
    assert_eq!(info.layers, 0, "committed layers are in the catalogue: {info:?}");
    let snapshots = daemon.client().snapshots().expect("snapshots");
    assert!(snapshots.is_empty(), "snapshots are in the catalogue: {snapshots:?}");
    Grpc::connect(&daemon.socket(), SNAPSHOTTER)
        .and_then(|mut client| client.cleanup())
        .expect("a collection");
    assert_eq!(layers(&daemon), Vec::<String>::new(), "the store is empty");
    daemon.hang_up();
    assert!(daemon.wait().success(), "the daemon ends cleanly");
    assert_sound(&daemon.root(), "after the load");
}

//! Two hundred clients of one daemon at once: nothing fails and nothing is left.

#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use tests::daemon::{Daemon, Finish as _};
use tests::grpc::Grpc;
use tests::host;
use tests::load::{Footprint, Load, SNAPSHOTTER};
use tests::programs;
use tests::root::{TempRoot, mounts_below};

/// The daemon's arguments.
const ARGUMENTS: [&str; 4] = ["--driver", "overlay2", "--log-level", "warn"];
const CLIENTS: usize = 200;
/// Lives that each client leads.
const LIVES: usize = 3;
/// Clients of a daemon that is killed, and how often it is; `LOAD_KILLS` asks for more.
const DOOMED: usize = 60;
const KILLS: usize = 3;
/// How long the daemon may take to let go of connections that were closed.
const PATIENCE: Duration = Duration::from_secs(60);
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
    let mut daemon = Daemon::start_with(ARGUMENTS);
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

#[test]
fn a_daemon_killed_under_load_leaves_nothing_that_the_next_does_not_clear() {
    if !host::provides(&[]) {
        return;
    }
    let kills = std::env::var("LOAD_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let dir = TempRoot::new("kills");
    let mut daemon = Daemon::start_with(ARGUMENTS);
    let load = Load { socket: daemon.socket(), dir: dir.path().to_owned(), clients: DOOMED };
    load.prepare().expect("the bases");
    let bases = layers(&daemon).len();
    for round in 0..kills {
        // Each round ends in another place of the clients' lives.
        let (calls, last) = (AtomicUsize::new(0), DOOMED * 3 + round * 37 % 211);
        let (pid, killed) = (daemon.pid(), OnceLock::new());
        let outcome = load.run_counting(
            |_, _| true,
            || {
                if calls.fetch_add(1, Ordering::Relaxed) >= last {
                    killed.get_or_init(|| kill_process(pid, Signal::KILL).expect("it lives"));
                }
            },
        );
        assert_eq!(outcome.failures.len(), DOOMED, "round {round}: every client has lost it");
        daemon = Daemon::start_in(daemon.buried(), ARGUMENTS);
        load.clear(&outcome).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let swept = Grpc::connect(&daemon.socket(), SNAPSHOTTER);
        swept.and_then(|mut client| client.cleanup()).expect("a collection");
        assert_eq!(layers(&daemon).len(), bases, "round {round}: layers beyond the bases");
        let left = mounts_below(&daemon.root());
        assert_eq!(left, Vec::<std::path::PathBuf>::new(), "round {round}: mounts are left");
        daemon.hang_up();
        assert!(daemon.wait().success(), "round {round}: the next daemon ends cleanly");
        assert_sound(&daemon.root(), &format!("in round {round}"));
        daemon = Daemon::start_in(daemon.buried(), ARGUMENTS);
    }
    load.remove().expect("the bases are whole");
    assert_eq!(layers(&daemon), Vec::<String>::new(), "the store is empty");
}

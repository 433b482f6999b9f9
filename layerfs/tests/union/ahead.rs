//! Directories that are listed ahead of who looks their names up one by one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::faults::server_of;
use crate::stage::{Stage, may_mount};

const NAMES: usize = 200;
const DIRS: usize = 40;

/// A lower layer of directories full of files.
fn fill(stage: &Stage) {
    for dir in 0..DIRS {
        let dir = stage.path(&format!("low/dir-{dir}"));
        for name in 0..NAMES {
            fs::write(dir.join(format!("file-{name}")), vec![b'x'; name]).expect("a file");
        }
    }
}

/// Mounts the layers with these options.
fn mount(stage: &mut Stage, options: &str) -> PathBuf {
    let layers = stage.layers(&["low"], "top");
    stage.background("m", &format!("{options},{layers}"))
}

/// Looks every name up, not one of which was listed before; whether all are as they should be.
fn look(point: &Path) {
    for dir in 0..DIRS {
        for name in 0..NAMES {
            let path = point.join(format!("dir-{dir}/file-{name}"));
            let size = fs::symlink_metadata(&path).map(|found| found.size());
            assert_eq!(size.ok(), Some(name as u64), "{}", path.display());
        }
    }
}

/// One of the counters of a server.
pub(crate) fn counter(server: u32, name: &str) -> u64 {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_else(|| "/run".into());
    let path = PathBuf::from(dir).join(format!("layerfs-{server}.stats"));
    let sent = Command::new("kill").args(["-USR1", &server.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "the signal was sent");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // The last line is there when all are.
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.contains("directory fds") {
            fs::remove_file(&path).expect("the file removed");
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            return line.map_or(0, |value| value.trim().parse().expect("a number"));
        }
        assert!(Instant::now() < deadline, "no counters in {}", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn root_names_are_known_before_they_are_asked_for() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    fill(&stage);
    let all = (DIRS * NAMES) as u64;
    let point = mount(&mut stage, "prefetch=0");
    look(&point);
    let server = server_of(&point).expect("the serving process");
    assert!(counter(server, "lookup ") >= all, "a request for each name");
    assert_eq!(counter(server, "readdirplus "), 0, "nobody lists");
    stage.unmount(&point);
    // However slow this machine is, names that come one after the other are a series.
    let point = mount(&mut stage, "prefetch=1,x-layerfs.burst=3600");
    look(&point);
    let server = server_of(&point).expect("the serving process");
    let (lookups, lists) = (counter(server, "lookup "), counter(server, "readdirplus "));
    stage.unmount(&point);
    assert!(lists > 0 && lookups < all, "{lookups} of {all} names looked up, {lists} lists");
}

#[test]
fn root_who_lists_ahead_keeps_nobody_from_unmounting() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    fill(&stage);
    for round in 0..20 {
        let point = mount(&mut stage, "prefetch=1,x-layerfs.burst=3600");
        for name in 0..NAMES / 2 {
            let path = point.join(format!("dir-{round}/file-{name}"));
            assert!(fs::symlink_metadata(&path).is_ok(), "{}", path.display());
        }
        // Tries again where another test has just started a program, which has our files for a moment.
        stage.unmount(&point);
        let open = fs::read_dir("/proc").expect("/proc").flatten().filter(|process| {
            let fd = |fd: u32| fs::read_link(process.path().join(format!("fd/{fd}")));
            (0..8).any(|number| fd(number).is_ok_and(|path| path.starts_with(&point)))
        });
        assert_eq!(open.count(), 0, "nobody has a file of the mount open, round {round}");
    }
}

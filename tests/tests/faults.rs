//! What goes wrong: damaged archives, a full disk, a killed daemon. Each leaves the store as it was.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;
use tempfile::TempDir;
use tests::archive::{self, Image};
use tests::daemon::{Daemon, Finish, Finished, layerctl};
use tests::host::{self, Mounted};
use tests::programs;
use tests::root::TempRoot;

const NAME: &str = "localhost/two:1";

/// A good archive of two layers, and where it lies.
fn good(dir: &Path) -> PathBuf {
    let path = dir.join("good.tar");
    let big = "x".repeat(300_000);
    let image = Image {
        names: &[NAME],
        layers: &[&[("etc/", ""), ("etc/motd", "hello"), ("big", &big)], &[("etc/.wh.motd", "")]],
        created: "2024-01-01T00:00:00Z",
        config: &json!({}),
    };
    archive::docker(&path, &[image]);
    path
}

/// `layerd check` on the root of a daemon that has ended.
fn check(root: &Path) -> Finished {
    std::process::Command::new(programs::path("layerd"))
        .arg("check")
        .arg("--root")
        .arg(root)
        .finish()
}

/// The good archive can be imported, and after a clean end the store is sound.
fn assert_sound(daemon: Daemon, archive: &Path) {
    daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
    daemon.layerctl(["rmi", NAME]).ok();
    let dir = daemon.kill();
    let found = check(&dir.path().join("root"));
    assert_eq!(found.code, Some(0), "{found:?}");
}

#[test]
fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let dir = TempDir::new().expect("a directory");
    let archive = good(dir.path());
    let bytes = fs::read(&archive).expect("the archive");
    let daemon = Daemon::start();
    let content = bytes.windows(9).position(|window| window == b"xxxxxxxxx").expect("the content");
    let mut cases = vec![
        ("empty", Vec::new()),
        ("not a tar", b"this is no archive at all".repeat(100)),
        ("a changed byte of a layer", {
            let mut bytes = bytes.clone();
            bytes[content + 1000] ^= 1;
            bytes
        }),
    ];
    for part in 1..8 {
        cases.push(("cut off", bytes[..bytes.len() * part / 8].to_owned()));
    }
    for (what, bytes) in cases {
        let damaged = dir.path().join("damaged.tar");
        fs::write(&damaged, &bytes).expect("write the archive");
        let told = daemon.layerctl(["import".as_ref(), damaged.as_os_str()]);
        assert_eq!(told.code, Some(1), "{what} ({} bytes): {told:?}", bytes.len());
        assert!(told.stderr.contains("damaged.tar"), "{what}: the file is named: {told:?}");
        assert!(daemon.client().images().expect("images").is_empty(), "{what}: an image is left");
        assert_eq!(daemon.client().info().expect("info").layers, 0, "{what}: a layer is left");
    }
    assert_sound(daemon, &archive);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    if !host::provides(&["mkfs.ext4", "mount"]) {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let archive = dir.path().join("large.tar");
    let incompressible = "0123456789abcdef".repeat(1 << 16);
    let names: Vec<_> = (0..64).map(|number| format!("file-{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), incompressible.as_str())).collect();
    let image = Image {
        names: &[NAME],
        layers: &[&[("first", "layer")], &files],
        created: "2024-01-01T00:00:00Z",
        config: &json!({}),
    };
    archive::docker(&archive, &[image]);
    for driver in ["overlay2", "vfs"] {
        let disk = Mounted::small_disk(32);
        let dir_on_disk = TempDir::new_in(disk.path()).expect("a directory");
        let daemon = Daemon::start_in(dir_on_disk, ["--driver", driver]);
        let told = daemon.layerctl(["import".as_ref(), archive.as_os_str()]);
        assert_eq!(told.code, Some(1), "{driver}: {told:?}");
        assert!(told.stderr.contains("large.tar"), "{driver}: the file is named: {told:?}");
        assert!(told.stderr.contains("No space left"), "{driver}: the reason is told: {told:?}");
        assert!(told.stderr.contains("file-"), "{driver}: the path is named: {told:?}");
        assert!(daemon.client().images().expect("images").is_empty(), "{driver}: an image is left");
        let small = good(dir.path());
        daemon.layerctl(["import".as_ref(), small.as_os_str()]).ok();
        daemon.layerctl(["rmi", NAME]).ok();
        let dir_on_disk = daemon.kill();
        let found = check(&dir_on_disk.path().join("root"));
        assert_eq!(found.code, Some(0), "{driver}: {found:?}");
    }
}

#[test]
fn a_daemon_killed_during_an_import_leaves_a_sound_store() {
    if !host::provides(&["mmdebstrap", "buildah", "mkfs.btrfs"]) {
        return;
    }
    let archive = host::debian_image().join("docker.tar");
    for driver in ["overlay2", "vfs", "btrfs"] {
        let disk = TempRoot::for_driver(driver, "killed");
        let mut dir = TempDir::new_in(disk.path()).expect("a directory");
        for files in [0, 1, 50, 1000, 3000] {
            let daemon = Daemon::start_in(dir, ["--driver", driver]);
            let mut import = layerctl()
                .arg("--socket")
                .arg(daemon.socket())
                .arg("import")
                .arg(&archive)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("layerctl runs");
            let root = daemon.root();
            // Killed at a point of its work rather than of time.
            while count(&root.join(driver), files) < files {
                if import.try_wait().expect("a child").is_some() {
                    break;
                }
            }
            dir = daemon.kill();
            let _ = import.wait();
            // The next start clears away what the crash left; who frees space behind its calls has done so
            // by its end.
            let daemon = Daemon::start_in(dir, ["--driver", driver]);
            dir = daemon.stop();
            let found = check(&dir.path().join("root"));
            assert_eq!(found.code, Some(0), "{driver}, killed after {files} files: {found:?}");
        }
        let daemon = Daemon::start_in(dir, ["--driver", driver]);
        daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
        assert_eq!(daemon.client().images().expect("images").len(), 1, "{driver}");
    }
}

/// How many files there are below a directory, as far as `enough`; it changes meanwhile.
fn count(dir: &Path, enough: usize) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let mut found = 0;
    for entry in entries.flatten() {
        found += 1;
        if found >= enough {
            break;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found += count(&entry.path(), enough - found);
        }
    }
    found
}

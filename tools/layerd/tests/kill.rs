//! A daemon that is killed at any point of its work leaves a store that the next start makes sound.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use cow::digest::Digest;
use layerd_api::{Client, ImportEvent, ImportRequest, SnapshotRequest};
use serde_json::json;
use tempfile::TempDir;

const LAYERD: &str = env!("CARGO_BIN_EXE_layerd");
const DRIVERS: [&str; 2] = ["vfs", "overlay2"];

/// A daemon on a directory; killed when dropped.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(dir: &Path, driver: &str) -> Self {
        let socket = dir.join("socket");
        let mut child = Command::new(LAYERD)
            .args(["serve", "--private", "--log-level", "warn", "--driver", driver])
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("layerd runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("its output");
        assert_eq!(line, "ready\n", "{driver}: layerd starts");
        Self { child, socket }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket)
    }
}

impl Drop for Daemon {
    /// SIGKILL: nothing of the daemon runs any more.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(dir: &Path, repair: bool) -> Output {
    let mut command = Command::new(LAYERD);
    command.arg("check").arg("--root").arg(dir.join("root"));
    if repair {
        command.arg("--repair");
    }
    command.output().expect("layerd check runs")
}

#[track_caller]
fn assert_sound(dir: &Path, when: &str) {
    let output = check(dir, false);
    assert_eq!(output.status.code(), Some(0), "check {when}: {output:?}");
}

/// A docker-archive of layers that take a while, each with many files.
fn archive(dir: &Path) -> PathBuf {
    let path = dir.join("image.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).expect("an archive"));
    let (mut names, mut diff_ids) = (Vec::new(), Vec::new());
    for layer in 0..4 {
        let mut inner = tar::Builder::new(Vec::new());
        for file in 0..60 {
            let content = format!("{layer}/{file}").repeat(2_000);
            append(&mut inner, &format!("d{layer}/f{file}"), content.as_bytes());
        }
        let bytes = inner.into_inner().expect("a tar in memory");
        let name = format!("{layer}/layer.tar");
        append(&mut tar, &name, &bytes);
        diff_ids.push(Digest::of(&bytes).to_string());
        names.push(name);
    }
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    append(&mut tar, "config.json", config.to_string().as_bytes());
    let manifest = json!([{"Config": "config.json", "RepoTags": ["app:1"], "Layers": names}]);
    append(&mut tar, "manifest.json", manifest.to_string().as_bytes());
    tar.finish().expect("the archive is written");
    path
}

fn append<W: std::io::Write>(tar: &mut tar::Builder<W>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).expect("an entry");
}

fn import(client: &Client, path: &Path) -> impl Iterator<Item = ImportEvent> + use<> {
    let path = path.to_str().expect("a path of ours").to_owned();
    let request = ImportRequest { path, ..ImportRequest::default() };
    // The stream breaks off when the daemon is killed.
    client.import(&request).expect("an import begins").map_while(Result::ok)
}

#[test]
fn killed_during_an_import() {
    for driver in DRIVERS {
        let dir = TempDir::new().expect("a directory");
        let archive = archive(dir.path());
        for events in 0.. {
            let daemon = Daemon::start(dir.path(), driver);
            let images = daemon.client().images().expect("images");
            let told: Vec<ImportEvent> = import(&daemon.client(), &archive).take(events).collect();
            let done = told.iter().any(|event| matches!(event, ImportEvent::Done { .. }));
            let failed = told.iter().find(|event| matches!(event, ImportEvent::Error(_)));
            assert!(failed.is_none(), "{driver}: after {events} events: {failed:?}");
            drop(daemon);
            let restarted = Daemon::start(dir.path(), driver);
            let after = restarted.client().images().expect("images");
            assert!(!done || after.len() == 1, "{driver}: an image that was told of is gone");
            let layers = restarted.client().info().expect("info").layers;
            assert_eq!(layers, after.len() as u64 * 4, "{driver}: {events} events: all or nothing");
            drop(restarted);
            assert_sound(dir.path(), &format!("{driver}: killed after {events} events"));
            if done || !images.is_empty() {
                break;
            }
        }
        let daemon = Daemon::start(dir.path(), driver);
        let last = import(&daemon.client(), &archive).last();
        assert!(
            matches!(last, Some(ImportEvent::Done { .. })),
            "{driver}: then it works: {last:?}"
        );
    }
}

#[test]
fn killed_among_snapshots() {
    for driver in DRIVERS {
        let dir = TempDir::new().expect("a directory");
        for round in 0..6 {
            let daemon = Daemon::start(dir.path(), driver);
            let client = daemon.client();
            let before = client.snapshots().expect("snapshots").len();
            let key = |number: usize| format!("{round}/{number}");
            for number in 0..=round {
                let request = SnapshotRequest { key: key(number), ..SnapshotRequest::default() };
                client.prepare(&request).expect("a snapshot");
            }
            client.remove_snapshot(&key(0)).expect("removed");
            drop(daemon);
            let restarted = Daemon::start(dir.path(), driver);
            let after = restarted.client().snapshots().expect("snapshots");
            assert_eq!(
                after.len(),
                before + round,
                "{driver}: what was answered is kept: {after:?}"
            );
            for number in 1..=round {
                let mounts = restarted.client().snapshot_mounts(&key(number));
                assert!(mounts.is_ok(), "{driver}: {}: {mounts:?}", key(number));
            }
            drop(restarted);
            assert_sound(dir.path(), &format!("{driver}: killed among snapshots, round {round}"));
        }
    }
}

#[test]
fn the_exit_code_of_a_check_says_what_it_found() {
    let dir = TempDir::new().expect("a directory");
    assert_eq!(check(dir.path(), false).status.code(), Some(2), "no store");
    let daemon = Daemon::start(dir.path(), "vfs");
    let output = check(dir.path(), false);
    assert_eq!(output.status.code(), Some(2), "in use");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("in use"), "{said}");
    drop(daemon);
    assert_sound(dir.path(), "of an empty store");
    std::fs::remove_file(dir.path().join("root/catalogue.redb")).expect("the catalogue");
    let output = check(dir.path(), false);
    assert_eq!(output.status.code(), Some(1), "damaged");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("damaged: catalogue.redb is missing"), "{said}");
    let output = check(dir.path(), true);
    assert_eq!(output.status.code(), Some(1), "repaired: {output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("mended: catalogue.redb is missing"), "{said}");
    assert_sound(dir.path(), "after a repair");
}

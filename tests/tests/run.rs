//! Containers on real layers, through the real programs.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tests::archive;
use tests::daemon::{Daemon, Finish as _, layerctl};
use tests::host;
use tests::root::{TempRoot, mounts_below};

const NAME: &str = "localhost/deep:1";

/// An image with `layers` layers: each adds a file, and changes what all of them change.
fn deep(dir: &TempDir, layers: usize) -> PathBuf {
    let path = dir.path().join(format!("deep-{layers}.tar"));
    let mut tars =
        vec![archive::layer_with_busybox(&[("d/", ""), ("last", "0"), ("gone", "soon")])];
    for number in 1..layers {
        let (file, whiteout) = (format!("d/file-{number}"), format!("d/.wh.file-{}", number - 1));
        let text = number.to_string();
        let mut files = vec![(file.as_str(), text.as_str()), ("last", text.as_str())];
        if number % 2 == 0 {
            files.push((whiteout.as_str(), ""));
        }
        tars.push(archive::layer(&files));
    }
    let config = json!({"Cmd": ["cat", "/last"], "Env": ["PATH=/bin"]});
    archive::docker_of_tars(&path, NAME, tars, &config);
    path
}

#[test]
fn images_of_128_and_400_layers_run() {
    if !host::provides(&["busybox"]) {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    for layers in [128, 400] {
        let daemon = Daemon::start_with(["--driver", "overlay2"]);
        let archive = deep(&dir, layers);
        daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
        let last = daemon.layerctl(["run", "--rm", NAME]).ok();
        assert_eq!(last, (layers - 1).to_string(), "{layers} layers");
        let count = daemon.layerctl(["run", "--rm", NAME, "sh", "-c", "ls /d | wc -l"]).ok();
        // Every other file is taken away by the layer above it.
        assert_eq!(count.trim(), (layers / 2).to_string(), "{layers} layers");
    }
}

#[test]
fn a_container_changes_its_own_layer_alone() {
    if !host::provides(&["busybox"]) {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let archive = deep(&dir, 3);
    for driver in ["overlay2", "fuse", "vfs"] {
        let daemon = Daemon::start_with(["--driver", driver]);
        let archive = archive.to_str().expect("UTF-8");
        let script = "echo new > /d/new; rm /gone; echo changed > /last; exit 7";
        let told = daemon.layerctl(["run", "--name", "one", archive, "sh", "-c", script]);
        assert_eq!(
            told.code,
            Some(7),
            "{driver}: an archive runs, the exit code is passed on: {told:?}"
        );
        // What only the daemon can mount is mounted while a container runs, and no longer.
        let mounts = mounts_below(&daemon.root());
        assert!(mounts.is_empty(), "{driver}: mounted for nobody: {mounts:?}");
        tests::layerfs::all_end_below(&daemon.root());
        let changes = daemon.layerctl(["diff", "one"]).ok();
        assert_eq!(changes, "C /d\nA /d/new\nD /gone\nC /last\n", "{driver}");
        let busy = daemon.layerctl(["rmi", NAME]);
        assert_eq!(busy.code, Some(1), "{driver}: a container uses the image: {busy:?}");
        daemon.layerctl(["commit", "one", "localhost/changed:1"]).ok();
        daemon.layerctl(["rm", "one"]).ok();
        let kept =
            daemon.layerctl(["run", "--rm", "localhost/changed:1", "cat", "/d/new", "/last"]).ok();
        assert_eq!(kept, "new\nchanged\n", "{driver}: the commit has the changes");
        let gone = daemon.layerctl(["run", "--rm", "localhost/changed:1", "ls", "/gone"]);
        assert_eq!(gone.code, Some(1), "{driver}: the commit has the deletion: {gone:?}");
        let other = daemon.layerctl(["run", "--rm", NAME, "cat", "/last", "/gone"]).ok();
        assert_eq!(other, "2soon", "{driver}: the image is as it was");
        daemon.layerctl(["rmi", NAME]).ok();
        let kept = daemon.layerctl(["run", "--rm", "localhost/changed:1", "cat", "/d/new"]).ok();
        assert_eq!(kept, "new\n", "{driver}: shared layers stay");
        daemon.layerctl(["rmi", "localhost/changed:1"]).ok();
        assert_eq!(daemon.client().info().expect("info").layers, 0, "{driver}: no layer is left");
    }
}

/// Writes so many MiB, and tells what came of it and how much was written.
fn writes(mib: u32) -> String {
    format!(
        "dd if=/dev/zero of=/grown bs=1M count={mib} 2>&1 | grep -o 'quota exceeded'; stat -c %s /grown"
    )
}

#[test]
fn a_size_limits_one_container_and_no_other() {
    if !host::provides(&["busybox", "mkfs.btrfs", "btrfs"]) {
        return;
    }
    const MIB: u64 = 1 << 20;
    let dir = TempDir::new().expect("a directory");
    let archive = deep(&dir, 2);
    let root = TempRoot::for_driver("btrfs", "size");
    let mount = root.path().to_str().expect("UTF-8");
    let daemon = Daemon::start_on(&root, ["--driver", "btrfs"]);
    daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
    let groups = || {
        let said = Command::new("btrfs").args(["qgroup", "show", mount]).finish().ok();
        said.lines().filter(|line| line.starts_with("0/")).count()
    };
    let size = ["run", "--name", "limited", "--storage-opt", "size=64m", NAME, "sh", "-c"];
    let said = daemon.layerctl(size.into_iter().chain([writes(100).as_str()])).ok();
    let (refused, written) = said.split_once('\n').expect("two lines");
    assert_eq!(refused, "quota exceeded", "{said}");
    let written: u64 = written.trim().parse().expect("a number");
    assert!((60 * MIB..=64 * MIB).contains(&written), "{written} bytes were written");

    let other = daemon.layerctl(["run", "--rm", NAME, "sh", "-c", writes(100).as_str()]).ok();
    assert_eq!(other, format!("{}\n", 100 * MIB), "another container of the image");

    let shown = |field| {
        let format = format!("{{{{.driver_data.{field}}}}}");
        let text = daemon.layerctl(["inspect", "--format", &format, "limited"]).ok();
        text.trim().parse::<u64>().unwrap_or_else(|_| panic!("{field} is {text:?}"))
    };
    assert_eq!(shown("Size"), 64 * MIB);
    assert!((written..66 * MIB).contains(&shown("ExclusiveBytes")), "{}", shown("ExclusiveBytes"));
    let _ = shown("SharedBytes");
    let limited = groups();
    daemon.layerctl(["rm", "limited"]).ok();
    // Ended, it has deleted what it deletes behind its calls.
    let _dir = daemon.stop();
    tests::disk::clean_btrfs(root.path());
    // The kernel removes the group of a subvolume that is gone one transaction later.
    let deadline = Instant::now() + Duration::from_secs(60);
    while groups() >= limited {
        assert!(Instant::now() < deadline, "the limit is there without the container");
        let mut sync = Command::new("btrfs");
        sync.args(["filesystem", "sync"]).arg(root.path()).finish().ok();
    }
}

#[test]
fn a_driver_without_quotas_refuses_a_size_by_its_name() {
    if !host::provides(&["busybox"]) {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let archive = deep(&dir, 1);
    for driver in ["overlay2", "fuse", "vfs"] {
        // In memory, where no file system keeps project quotas.
        let root = TempRoot::in_memory("no-size");
        let daemon = Daemon::start_on(&root, ["--driver", driver]);
        daemon.layerctl(["import".as_ref(), archive.as_os_str()]).ok();
        let told = daemon.layerctl(["run", "--storage-opt", "size=64m", NAME, "true"]);
        assert_eq!(told.code, Some(125), "{driver}: {told:?}");
        for part in [driver, "size", "quota"] {
            assert!(told.stderr.contains(part), "{driver}: no word of {part}: {told:?}");
        }
        let unknown = daemon.layerctl(["run", "--storage-opt", "colour=red", NAME, "true"]);
        assert!(unknown.stderr.contains("colour"), "{driver}: {unknown:?}");
        assert_eq!(daemon.layerctl(["ps", "-aq"]).ok(), "", "{driver}: a container is left");
    }
    let daemon = Daemon::start();
    let told = daemon.layerctl(["run", "--storage-opt", "size", "image", "true"]);
    assert_eq!(told.code, Some(125), "an option without a value: {told:?}");
}

#[test]
fn a_running_container_is_removed_without_a_word() {
    if !host::provides(&["busybox"]) {
        return;
    }
    let dir = TempDir::new().expect("a directory");
    let daemon = Daemon::start_with(["--driver", "overlay2"]);
    daemon.layerctl(["import".as_ref(), deep(&dir, 1).as_os_str()]).ok();
    let mut container = layerctl()
        .arg("--socket")
        .arg(daemon.socket())
        .args(["run", "--name", "doomed", NAME, "sh", "-c", "echo runs; exec sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("layerctl runs");
    let mut line = String::new();
    let mut stdout = BufReader::new(container.stdout.take().expect("its output is piped"));
    stdout.read_line(&mut line).expect("its output");
    assert_eq!(line, "runs\n", "the container runs");
    // The daemon may not have been told so yet.
    assert_eq!(daemon.layerctl(["rm", "-f", "doomed"]).ok(), "doomed\n", "it is removed");
    let mut said = String::new();
    container.stderr.take().expect("piped").read_to_string(&mut said).expect("its messages");
    let code = container.wait().expect("it ends").code();
    assert_eq!((code, said.as_str()), (Some(137), ""), "it was killed, and that is all");
}

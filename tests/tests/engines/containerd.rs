//! containerd with layerd as its proxy snapshotter.

use std::thread;
use std::time::{Duration, Instant};

use tests::daemon::Daemon;
use tests::engines::Containerd;
use tests::host;
use tests::root::{TempRoot, mounts_below};

const IMAGE: &str = "docker.io/library/base:latest";

#[test]
fn containerd_works_on_every_driver() {
    if !host::provides(&["containerd", "ctr", "runc", "busybox", "mkfs.btrfs"]) {
        return;
    }
    for driver in host::DRIVERS {
        let root = TempRoot::for_driver(driver, "containerd");
        let daemon = Daemon::start_on(&root, ["--driver", driver]);
        let containerd = Containerd::start(root.path(), &daemon.socket());
        let archive = super::busybox_image(&root, "base:latest");
        containerd.ctr(["image", "import", "--snapshotter", "layerd", &archive]).ok();
        containers_run(&containerd, driver);
        snapshot_verbs(&root, &containerd, driver);
        strange_keys(&daemon, &containerd, driver);

        // containerd ends, layerd is killed: what was unpacked is not unpacked again.
        let before = containerd.ctr(["snapshot", "ls"]).ok();
        containerd.stop();
        let daemon = Daemon::start_in(daemon.kill(), ["--driver", driver]);
        let containerd = Containerd::start(root.path(), &daemon.socket());
        assert_eq!(containerd.ctr(["snapshot", "ls"]).ok(), before, "{driver}: after a restart");
        containers_run(&containerd, driver);

        containerd.ctr(["image", "rm", "--sync", IMAGE]).ok();
        collected(&containerd, driver);
        containerd.stop();
        super::assert_empty(&daemon, driver);
    }
}

fn containers_run(containerd: &Containerd, driver: &str) {
    let script = "cat /etc/base; echo new >/tmp/new; cat /tmp/new; exit 5";
    let ran = containerd.ctr([
        "run",
        "--rm",
        "--snapshotter",
        "layerd",
        "--net-host",
        IMAGE,
        "one",
        "/bin/sh",
        "-c",
        script,
    ]);
    assert_eq!((ran.code, &*ran.stdout), (Some(5), "basenew\n"), "{driver}: ctr run: {ran:?}");
}

/// A container in a user namespace: layerd shows it its own ids, and nothing is copied.
#[test]
fn containers_have_ids_of_their_own() {
    if !host::provides(&["containerd", "ctr", "runc", "busybox", "mkfs.btrfs"]) {
        return;
    }
    let script =
        "id -u; ls -ln /etc/base; echo new >/etc/new; ls -ln /etc/new; cat /proc/1/uid_map";
    for driver in ["overlay2", "vfs", "btrfs"] {
        let root = TempRoot::for_driver(driver, "mapped");
        let daemon = Daemon::start_on(&root, ["--driver", driver]);
        let containerd = Containerd::start(root.path(), &daemon.socket());
        let archive = super::busybox_image(&root, "base:latest");
        containerd.ctr(["image", "import", "--snapshotter", "layerd", &archive]).ok();
        let run =
            ["run", "--snapshotter", "layerd", "--remap-labels", "--uidmap", "0:100000:65536"];
        let map = ["--gidmap", "0:200000:65536", IMAGE, "mapped", "/bin/sh", "-c", script];
        let said = containerd.ctr(run.iter().chain(&map)).ok();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[0], "0", "{driver}: it is root: {said}");
        for line in &lines[1..3] {
            let owner: Vec<_> = line.split_whitespace().skip(2).take(2).collect();
            assert_eq!(owner, ["0", "0"], "{driver}: its files are its own: {said}");
        }
        assert!(lines[3].contains("100000"), "{driver}: it is somebody else outside: {said}");
        let seen = mounts_below(&daemon.root());
        assert_eq!(seen.len(), 1, "{driver}: layerd holds its mount: {seen:?}");
        // The mount and the ids survive layerd, and the removal finds all of it.
        let daemon = Daemon::start_in(daemon.kill(), ["--driver", driver]);
        containerd.find_layerd();
        let mounts = containerd.ctr(["snapshot", "mounts", "/target", "mapped"]).ok();
        assert!(mounts.contains("merged"), "{driver}: a bind mount of it: {mounts}");
        containerd.ctr(["container", "rm", "mapped"]).ok();
        containerd.ctr(["image", "rm", "--sync", IMAGE]).ok();
        collected(&containerd, driver);
        containerd.stop();
        super::assert_empty(&daemon, driver);
    }
}

fn snapshot_verbs(root: &TempRoot, containerd: &Containerd, driver: &str) {
    let list = containerd.ctr(["snapshot", "ls"]).ok();
    let committed = list.lines().find(|line| line.trim_end().ends_with("Committed"));
    let layer = committed.and_then(|line| line.split_whitespace().next()).expect("the layer");
    let target = root.join("target").display().to_string();
    std::fs::create_dir_all(&target).expect("a mount point");

    let mounts = containerd.ctr(["snapshot", "prepare", "--target", &target, "work", layer]).ok();
    assert!(mounts.starts_with("mount -t "), "{driver}: prepare tells the mount: {mounts}");
    let again = containerd.ctr(["snapshot", "prepare", "work", layer]);
    assert!(again.stderr.contains("already exists"), "{driver}: one key twice: {again:?}");
    assert_eq!(containerd.ctr(["snapshot", "mounts", &target, "work"]).ok(), mounts, "{driver}");
    let tree = containerd.ctr(["snapshot", "tree"]).ok();
    assert!(tree.contains(layer) && tree.contains("work"), "{driver}: tree: {tree}");
    let usage = containerd.ctr(["snapshot", "usage", "work"]).ok();
    assert!(usage.contains("work"), "{driver}: usage: {usage}");
    let info = containerd.ctr(["snapshot", "info", "work"]).ok();
    assert!(info.contains("\"Active\"") && info.contains(layer), "{driver}: info: {info}");

    let refused = containerd.ctr(["snapshot", "rm", layer]);
    assert_ne!(refused.code, Some(0), "{driver}: a layer with a child is removed: {refused:?}");
    containerd.ctr(["snapshot", "commit", "done", "work"]).ok();
    let shows = |list: &str, key: &str, kind: &str| {
        list.lines().any(|line| line.starts_with(key) && line.trim_end().ends_with(kind))
    };
    labelled_view(containerd);
    let list = containerd.ctr(["snapshot", "ls"]).ok();
    assert!(shows(&list, "look", "View"), "{driver}: the view is not listed: {list}");
    assert!(shows(&list, "done", "Committed"), "{driver}: done is not committed: {list}");
    containerd.ctr(["snapshot", "rm", "look"]).ok();
    containerd.ctr(["snapshot", "rm", "done"]).ok();
}

/// Makes a view `look`. Unlike other snapshots ctr makes it without a label that keeps it from containerd's
/// collector, which may come before that is given.
fn labelled_view(containerd: &Containerd) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        containerd.ctr(["snapshot", "view", "look", "done"]).ok();
        let label = ["snapshot", "label", "look", "containerd.io/gc.root=now"];
        let labelled = containerd.ctr(label);
        if labelled.code == Some(0) {
            return;
        }
        let is_gone = labelled.stderr.contains("not found") && Instant::now() < deadline;
        assert!(is_gone, "the view gets no label: {labelled:?}");
    }
}

/// Keys are only names, however they look.
fn strange_keys(daemon: &Daemon, containerd: &Containerd, driver: &str) {
    for key in ["../../../escape", "/absolute", "a b", &"x".repeat(3000)] {
        let told: String = key.chars().take(40).collect();
        containerd.ctr(["snapshot", "prepare", key]).ok();
        let mounts = containerd.ctr(["snapshot", "mounts", "/target", key]).ok();
        let root = daemon.root().display().to_string();
        assert!(mounts.contains(&root), "{driver}: {told} leads out of the store: {mounts}");
        let again = containerd.ctr(["snapshot", "view", key]);
        assert!(again.stderr.contains("already exists"), "{driver}: {told}: {again:?}");
        containerd.ctr(["snapshot", "rm", key]).ok();
        let gone = containerd.ctr(["snapshot", "rm", key]);
        assert!(gone.stderr.contains("not found"), "{driver}: {told}: {gone:?}");
    }
}

/// Garbage collection, which runs by itself after a removal, leaves nothing.
pub(super) fn collected(containerd: &Containerd, driver: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let list = containerd.ctr(["snapshot", "ls"]).ok();
        // The heading stays.
        if list.lines().count() <= 1 {
            return;
        }
        assert!(Instant::now() < deadline, "{driver}: snapshots are not collected: {list}");
        thread::sleep(Duration::from_millis(50));
    }
}

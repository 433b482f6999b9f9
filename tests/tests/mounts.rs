//! Mounts that only the daemon can make, for clients that get a bind mount of them.

#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::mount::{MountFlags, mount_bind, mount_remount};
use tempfile::TempDir;
use tests::daemon::Daemon;
use tests::docker::Docker;
use tests::grpc::{Grpc, Mount};
use tests::layerfs::{all_end_below, kill, servers_become};
use tests::root::{TempRoot, mounts_below};
use tests::{host, programs};
use tonic::Code;

const DRIVER: [&str; 2] = ["--driver", "fuse"];

/// Ends a daemon, and gives its directory.
type End = fn(Daemon) -> TempDir;

/// The ways in which a daemon ends.
const ENDS: [(&str, End); 2] = [("SIGTERM", Daemon::stop), ("kill -9", Daemon::kill)];

fn containerd(daemon: &Daemon) -> Grpc {
    Grpc::connect(&daemon.socket(), "layerd").expect("the daemon listens")
}

/// A bind mount that a client makes of what it is told.
struct Client<'a> {
    target: std::path::PathBuf,
    _root: &'a TempRoot,
}

impl<'a> Client<'a> {
    fn mount(root: &'a TempRoot, name: &str, mounts: &[Mount]) -> Self {
        let [only] = mounts else { panic!("{mounts:?}") };
        assert_eq!(only.r#type, "bind", "{only:?}");
        let target = root.join(name);
        fs::create_dir_all(&target).expect("a mount point");
        mount_bind(&only.source, &target).unwrap_or_else(|errno| panic!("{only:?}: {errno}"));
        if only.options.iter().any(|option| option == "ro") {
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            mount_remount(&target, flags, "").expect("read-only");
        }
        Self { target, _root: root }
    }

    fn unmount(self) {
        tests::root::unmount(&self.target);
    }
}

/// Nothing is mounted in the store, and nobody serves anything there.
fn assert_quiet(daemon: &Daemon, when: &str) {
    let mounts = mounts_below(&daemon.root());
    assert!(mounts.is_empty(), "{when}: mounts are left: {mounts:?}");
    all_end_below(&daemon.root());
}

/// Makes the committed snapshots `base` and, on it, `top`, with a file each.
fn furnish(root: &TempRoot, client: &mut Grpc) {
    for (name, parent) in [("base", ""), ("top", "base")] {
        let mounts = client.prepare("work", parent).expect("prepare");
        let mount = Client::mount(root, "furnish", &mounts);
        fs::write(mount.target.join(name), name).expect("a file");
        mount.unmount();
        client.commit("work", name).expect("commit");
    }
}

#[test]
fn snapshots_keep_their_mounts_over_a_restart_and_leave_none() {
    if !host::provides(&[]) {
        return;
    }
    for (end, ends) in ENDS {
        let root = TempRoot::new("fuse-restart");
        let daemon = Daemon::start_with(DRIVER);
        let mut client = containerd(&daemon);
        furnish(&root, &mut client);
        assert_quiet(&daemon, "after commits");

        let mounts = client.prepare("active", "top").expect("prepare");
        for _ in 0..3 {
            assert_eq!(client.mounts("active").expect("mounts"), mounts, "the same each time");
        }
        let removed = client.prepare("removed", "top").expect("prepare");
        let kept = Client::mount(&root, "kept", &mounts);
        fs::write(kept.target.join("before"), "1").expect("a file");
        // One process for each mounted snapshot.
        let _ = servers_become(&daemon.root(), 2);

        drop(client);
        let daemon = Daemon::start_in(ends(daemon), DRIVER);
        let mut client = containerd(&daemon);
        assert_eq!(fs::read_to_string(kept.target.join("base")).expect("the mount lives"), "base");
        fs::write(kept.target.join("after"), "2").expect("a file");
        assert_eq!(client.mounts("active").expect("mounts"), mounts, "{end}: it is adopted");
        assert_eq!(client.mounts("removed").expect("mounts"), removed, "{end}: this one too");
        // No new one.
        let _ = servers_become(&daemon.root(), 2);

        client.remove("removed").expect("remove");
        // A client that is about to change what is committed keeps it from being so.
        let file = fs::File::create(kept.target.join("open")).expect("a file");
        let error = client.commit("active", "done").expect_err("a file is open");
        assert_eq!(error.code(), Code::FailedPrecondition, "{end}: {error}");
        drop(file);
        // That took the daemon's mount off, which comes back; it is frozen under the client's.
        client.mounts("active").expect_err("two would write");
        kept.unmount();
        let kept = Client::mount(&root, "kept", &client.mounts("active").expect("mounts"));
        client.commit("active", "done").expect("commit");
        fs::write(kept.target.join("late"), "").expect_err("it is committed");
        assert!(mounts_below(&daemon.root()).is_empty(), "{end}: the daemon's mounts");
        kept.unmount();
        assert_quiet(&daemon, end);

        let mounts = client.prepare("look", "done").expect("prepare");
        let look = Client::mount(&root, "look", &mounts);
        for (name, content) in [("base", "base"), ("top", "top"), ("before", "1"), ("after", "2")] {
            let found = fs::read_to_string(look.target.join(name)).expect("a file");
            assert_eq!(found, content, "{end}: {name}");
        }
        look.unmount();
        // A restart with nothing but a snapshot that was mounted, which is removed without a word.
        drop(client);
        let daemon = Daemon::start_in(ends(daemon), DRIVER);
        let mut client = containerd(&daemon);
        for key in ["look", "done", "top", "base"] {
            client.remove(key).unwrap_or_else(|error| panic!("{end}: remove {key}: {error}"));
        }
        assert_quiet(&daemon, end);
        assert_eq!(daemon.client().info().expect("info").layers, 0, "{end}: layers are left");
    }
}

#[test]
fn a_removed_snapshot_stays_with_whoever_has_it_mounted() {
    if !host::provides(&[]) {
        return;
    }
    let root = TempRoot::new("fuse-removed");
    let daemon = Daemon::start_with(DRIVER);
    let mut client = containerd(&daemon);
    furnish(&root, &mut client);
    let held = Client::mount(&root, "held", &client.prepare("active", "top").expect("prepare"));
    let file = fs::File::open(held.target.join("base")).expect("a file");
    client.remove("active").expect("as containerd's own snapshotters, which do not look");
    assert_eq!(std::io::read_to_string(&file).expect("it is open"), "base");
    // The key is free, and what is made under it has nothing of the old one.
    let again = Client::mount(&root, "again", &client.prepare("active", "top").expect("prepare"));
    fs::write(again.target.join("new"), "").expect("a file");
    assert!(!held.target.join("new").exists(), "two snapshots share a directory");
    again.unmount();
    client.remove("active").expect("remove");
    drop(file);
    held.unmount();
    for key in ["top", "base"] {
        client.remove(key).expect("remove");
    }
    assert_quiet(&daemon, "at the end");
}

#[test]
fn a_dead_mount_is_made_anew_for_who_asks() {
    if !host::provides(&[]) {
        return;
    }
    let root = TempRoot::new("fuse-dead");
    let daemon = Daemon::start_with(DRIVER);
    let mut client = containerd(&daemon);
    furnish(&root, &mut client);
    let mounts = client.prepare("active", "top").expect("prepare");
    let first = Client::mount(&root, "first", &mounts);
    fs::write(first.target.join("written"), "1").expect("a file");
    let server = servers_become(&daemon.root(), 1)[0];
    kill(server);
    assert!(fs::read(first.target.join("written")).is_err(), "nobody serves it");
    first.unmount();
    let second = Client::mount(&root, "second", &client.mounts("active").expect("mounts"));
    assert_eq!(fs::read_to_string(second.target.join("written")).expect("it is served"), "1");
    second.unmount();
    let server = servers_become(&daemon.root(), 1)[0];
    kill(server);
    for key in ["active", "top", "base"] {
        client.remove(key).expect("remove");
    }
    assert_quiet(&daemon, "at the end");
}

/// What cannot be mounted is not made, so that the client's next try does not find it there.
#[test]
fn a_snapshot_that_cannot_be_mounted_is_not_prepared() {
    if !host::provides(&[]) {
        return;
    }
    let root = TempRoot::new("fuse-missing");
    let program = root.join("layerfs");
    symlink(programs::path("layerfs"), &program).expect("a link");
    let option = format!("fuse.program={}", program.display());
    let daemon = Daemon::start_with(["--driver", "fuse", "--storage-opt", &option]);
    let mut client = containerd(&daemon);
    furnish(&root, &mut client);
    fs::remove_file(&program).expect("it is there");
    for _ in 0..2 {
        let error = client.prepare("active", "top").expect_err("there is no layerfs");
        assert_ne!(error.code(), Code::AlreadyExists, "{error}");
        for word in ["fuse", "mount", "layerfs"] {
            assert!(error.message().contains(word), "{word}: {error}");
        }
        assert!(!client.exists("active").expect("stat"), "it is there all the same");
    }
    symlink(programs::path("layerfs"), &program).expect("a link");
    client.prepare("active", "top").expect("prepare");
    for key in ["active", "top", "base"] {
        client.remove(key).expect("remove");
    }
    assert_quiet(&daemon, "at the end");
}

#[test]
fn dockers_references_survive_a_restart() {
    if !host::provides(&[]) {
        return;
    }
    for (end, ends) in ENDS {
        let daemon = Daemon::start_with(DRIVER);
        let connect = |daemon: &Daemon| Docker::connect(&daemon.socket()).expect("it listens");
        let mut docker = connect(&daemon);
        docker.create("base", "").expect("create");
        let dir = docker.get("base").expect("get");
        fs::write(dir.join("f"), "1").expect("a file");
        docker.put("base").expect("put");
        docker.create("container", "base").expect("create");
        let dir = docker.get("container").expect("get");
        fs::write(dir.join("g"), "2").expect("a file");

        drop(docker);
        let daemon = Daemon::start_in(ends(daemon), DRIVER);
        let mut docker = connect(&daemon);
        assert_eq!(read(&dir, "g"), "2", "{end}: the mount lives");
        assert_eq!(docker.get("container").expect("get"), dir, "{end}: the same place");
        docker.put("container").expect("put");
        assert_eq!(read(&dir, "f"), "1", "{end}: the reference from before the restart");
        docker.put("container").expect("put");
        assert_quiet(&daemon, end);
        docker.get("container").expect("get");
        docker.remove("container").expect("as Docker's own drivers, which unmount");
        docker.remove("base").expect("remove");
        assert_quiet(&daemon, end);
    }
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).expect("a file")
}

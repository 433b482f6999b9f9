//! What the union leaves of its layers to others, and what it keeps of them over mounts.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::PoisonError;

use crate::stage::{LAYERFS, NAMESPACES, Stage, has_program, may_mount};

#[test]
fn root_layers_can_be_unmounted_while_the_union_lives() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let (low, top) = (stage.tmpfs("low"), stage.tmpfs("top"));
    fs::write(low.join("f"), "lower").expect("a lower file");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    assert_eq!(fs::read(mount.join("f")).expect("read"), b"lower", "registered and closed again");
    fs::write(mount.join("g"), "upper").expect("a new file");
    // As with the kernel's overlay: nothing of the union is open on these mounts.
    for layer in [&low, &top] {
        stage.unmount(layer);
    }
    fs::write(mount.join("f"), "copied up").expect("a copy-up");
    assert_eq!(fs::read(mount.join("f")).expect("read"), b"copied up", "the union goes on");
    fs::rename(mount.join("f"), mount.join("g")).expect("a rename in the upper layer");
    fs::remove_file(mount.join("g")).expect("unlink");
    stage.unmount(&mount);
}

#[test]
fn root_layers_can_be_unmounted_in_a_user_namespace() {
    const SCRIPT: &str = "set -e
mount --bind low given
$0 -o lowerdir=given,upperdir=top/up,workdir=top/work,transport=device m
umount given
test \"$(cat m/f)\" = lower
umount m";
    if !may_mount() || !has_program("unshare") {
        return;
    }
    let stage = Stage::new();
    for name in ["given", "top/up", "top/work", "m"] {
        stage.path(name);
    }
    fs::write(stage.path("low").join("f"), "lower").expect("a lower file");
    let _alone = NAMESPACES.write().unwrap_or_else(PoisonError::into_inner);
    let status = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, LAYERFS])
        .current_dir(stage.path("."))
        .status();
    assert!(status.expect("unshare runs").success(), "the layer's mount is free");
}

/// The inode number of every name below a directory.
fn numbers(dir: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().expect("a plain name");
            let number = fs::symlink_metadata(entry.path()).expect("stat").ino();
            assert_eq!(entry.ino(), number, "{name}: d_ino");
            (name, number)
        })
        .collect()
}

#[test]
fn root_inode_numbers_outlive_mounts_with_lowers_on_several_file_systems() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    for (layer, names) in [("low-1", ["a", "b"]), ("low-2", ["c", "d"]), ("low-3", ["e", "f"])] {
        let layer = stage.tmpfs(layer);
        for name in names {
            fs::write(layer.join(name), name).expect("a lower file");
        }
    }
    stage.tmpfs("top");
    let options = stage.layers(&["low-1", "low-2", "low-3"], "top");
    let mount = stage.layerfs("m", &options);
    let before = numbers(&mount);
    let distinct: std::collections::BTreeSet<_> = before.values().collect();
    assert_eq!(distinct.len(), 6, "the file systems are kept apart: {before:?}");
    for name in ["a", "d", "e"] {
        let mut file = OpenOptions::new().append(true).open(mount.join(name)).expect("a copy-up");
        file.write_all(b"+").expect("write");
    }
    assert_eq!(numbers(&mount), before, "after the copy-up");
    stage.unmount(&mount);
    let mount = stage.layerfs("m", &options);
    assert_eq!(numbers(&mount), before, "after a new mount");
    stage.unmount(&mount);
}

#[test]
fn root_a_file_that_was_closed_is_opened_as_it_is_now() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    for name in ["changed", "renamed", "removed"] {
        fs::write(low.join(name), "lower").expect("a lower file");
    }
    let top = stage.tmpfs("top");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    let read = |name: &str| fs::read_to_string(mount.join(name)).expect("read");
    for name in ["changed", "renamed", "removed", "changed"] {
        assert_eq!(read(name), "lower", "{name}: nobody has it open afterwards");
    }
    fs::write(mount.join("changed"), "upper").expect("a copy-up");
    assert_eq!(read("changed"), "upper", "the copy, not what was registered before");
    fs::set_permissions(mount.join("changed"), fs::Permissions::from_mode(0o6755)).expect("chmod");
    fs::write(mount.join("changed"), "set-id").expect("a write to a set-id file");
    assert_eq!(read("changed"), "set-id", "after a write that the server did");
    fs::rename(mount.join("renamed"), mount.join("changed")).expect("rename over it");
    assert_eq!(read("changed"), "lower", "the file that was renamed");
    fs::remove_file(mount.join("removed")).expect("unlink");
    fs::write(mount.join("removed"), "new").expect("a new file");
    assert_eq!(read("removed"), "new", "the new file of that name");

    let free = || rustix::fs::statvfs(&top).expect("statvfs").f_bfree;
    let before = free();
    let file = File::create(mount.join("large")).expect("a new file");
    file.set_len(0).expect("empty");
    (&file).write_all(&vec![1; 1 << 20]).expect("write");
    drop(file);
    assert_eq!(fs::read(mount.join("large")).expect("read").len(), 1 << 20, "the large file");
    fs::remove_file(mount.join("large")).expect("unlink");
    // The kernel forgets a removed file without telling when.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while free() < before {
        assert!(std::time::Instant::now() < deadline, "the space of a removed file is kept");
        std::thread::yield_now();
    }
    stage.unmount(&mount);
}

//! Flags of the mount itself.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{AtFlags, Timespec, Timestamps};

use crate::disk::Disk;
use crate::stage::{Stage, has_program, may_mount};

#[test]
fn root_reads_change_access_times_as_the_mount_says() {
    if !may_mount() {
        return;
    }
    for (flag, changes) in [("noatime", false), ("strictatime", true), ("relatime", true)] {
        let mut stage = Stage::new();
        let (lower, upper) = (stage.path("low").join("lower"), stage.path("top/up").join("upper"));
        fs::write(&lower, "x").expect("a lower file");
        fs::write(&upper, "x").expect("an upper file");
        let options = stage.layers(&["low"], "top") + "," + flag;
        let mount = stage.layerfs("m", &options);
        let new = mount.join("new");
        fs::write(&new, "x").expect("a new file");
        // Long ago, and before the last change of the data.
        let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
        let times = Timestamps { last_access: time(1), last_modification: time(2) };
        let all = [("lower", &lower, false), ("upper", &upper, changes), ("new", &new, changes)];
        for (name, path, changes) in all {
            rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::empty())
                .expect("utimensat");
            assert_eq!(fs::read(mount.join(name)).expect("read"), b"x", "{name}");
            let now = fs::metadata(mount.join(name)).expect("stat").atime();
            assert_eq!(now != 1, changes, "{name} with {flag}: {now}");
        }
        assert_eq!(fs::metadata(&lower).expect("stat").atime(), 1, "the lower file with {flag}");
        stage.unmount(&mount);
    }
}

#[test]
fn root_a_mount_is_given_other_flags() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    fs::write(stage.path("low").join("f"), "x").expect("a lower file");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    let file = mount.join("f");
    // What mount(8) adds comes from the table of mounts.
    let known = "relatime,user_id=0,group_id=0,default_permissions,allow_other";
    assert!(stage.remount(&mount, &format!("rw,{known},remount,ro")), "read-only");
    let refused = fs::write(&file, "y").expect_err("a write");
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{refused}");
    assert_eq!(fs::read(&file).expect("read"), b"x", "it is read still");
    assert!(stage.remount(&mount, &format!("ro,{known},remount,rw")), "writable");
    fs::write(&file, "y").expect("a write");
    assert!(!stage.remount(&stage.path("low"), "remount,ro"), "where nothing is mounted");
    stage.unmount(&mount);
}

#[test]
fn root_what_was_written_outlives_a_power_cut_when_a_mount_is_read_only() {
    if !may_mount() || !has_program("mkfs.ext4") || !has_program("python3") {
        return;
    }
    let mut stage = Stage::new();
    let disk = Disk::new(&mut stage);
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    fs::write(mount.join("file"), "written").expect("a file");
    assert!(stage.remount(&mount, "remount,ro"), "read-only");
    disk.cut();
    stage.unmount(&mount);
    let found = disk.read(&mut stage, "file");
    assert_eq!(found.as_deref(), Some(&b"written"[..]), "on the disk");
}

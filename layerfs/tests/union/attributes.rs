//! Attributes that change without a request for them: by maps, by other users' privileges, by what
//! happens to names.

use std::fs::{self, File};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use crate::stage::{Stage, has_program, may_mount};

/// Both ways in which data travels.
const WAYS: [&str; 2] = ["", ",passthrough=0"];

/// Lets everybody reach the stage.
fn open_to_all(stage: &Stage) {
    fs::set_permissions(stage.path("."), fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// Runs a program as a user and a group without privileges; says whether it succeeded.
fn run_as(user: u32, group: u32, program: &[&str], file: &Path) -> bool {
    let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
    let status = Command::new("setpriv")
        .args([&*user, &*group, "--clear-groups"])
        .args(program)
        .arg(file)
        .status();
    status.expect("setpriv runs").success()
}

#[test]
fn root_a_write_through_a_map_is_seen_in_the_times() {
    const SCRIPT: &str = "import mmap,os,sys
fd = os.open(sys.argv[1], os.O_RDWR | (os.O_CREAT if sys.argv[2] == 'made' else 0))
os.ftruncate(fd, 4096)
os.utime(sys.argv[1], (1, 1))
area = mmap.mmap(fd, 4096)
os.close(fd)
before = os.stat(sys.argv[1]).st_mtime
area[0] = 7
area.flush()
assert before == 1 and os.stat(sys.argv[1]).st_mtime > 1, os.stat(sys.argv[1])";
    if !may_mount() || !has_program("python3") {
        return;
    }
    for way in WAYS {
        let mut stage = Stage::new();
        fs::write(stage.path("low").join("lower"), "x").expect("a lower file");
        let options = stage.layers(&["low"], "top") + way;
        let mount = stage.layerfs("m", &options);
        fs::write(mount.join("upper"), "x").expect("an upper file");
        for name in ["lower", "upper", "made"] {
            // The kernel knows the attributes before.
            let _ = fs::metadata(mount.join(name));
            let script = Command::new("python3")
                .args(["-c", SCRIPT])
                .arg(mount.join(name))
                .arg(name)
                .status();
            assert!(script.expect("python3 runs").success(), "{name}{way}: the time is new");
        }
        stage.unmount(&mount);
    }
}

#[test]
fn root_an_acl_of_somebody_outside_of_the_group_drops_the_set_gid_bit() {
    if !may_mount() || !has_program("setfacl") || !has_program("setpriv") {
        return;
    }
    let mut stage = Stage::new();
    open_to_all(&stage);
    let low = stage.path("low");
    let make = |path: &Path| {
        fs::create_dir(path.join("dir")).expect("a directory");
        fs::write(path.join("file"), "x").expect("a file");
        for name in ["dir", "file"] {
            std::os::unix::fs::chown(path.join(name), Some(100), Some(100)).expect("chown");
            let mode = fs::Permissions::from_mode(0o2755);
            fs::set_permissions(path.join(name), mode).expect("chmod");
        }
    };
    make(&low);
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    let upper = mount.join("upper");
    fs::create_dir(&upper).expect("a directory");
    make(&upper);
    let acl = ["setfacl", "-m", "u::rwx,g::rwx,o::rwx"];
    for (group, mode) in [(100, 0o2777), (101, 0o777)] {
        for name in ["dir", "file", "upper/dir", "upper/file"] {
            let file = mount.join(name);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o2755)).expect("chmod");
            assert!(run_as(100, group, &acl, &file), "{name}: the owner sets an ACL");
            let now = fs::metadata(&file).expect("stat").mode() & 0o7777;
            assert_eq!(now, mode, "{name}: {now:o} by the owner in group {group}");
        }
    }
    stage.unmount(&mount);
}

#[test]
fn root_the_mode_alone_tells_that_a_write_dropped_set_id_bits() {
    if !may_mount() || !has_program("setpriv") {
        return;
    }
    let write = ["sh", "-c", "echo y >> \"$0\""];
    let mode_of = |path: &Path| {
        // As programs ask that want the mode and nothing else.
        let seen = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::MODE);
        seen.expect("statx").stx_mode & 0o7777
    };
    for way in WAYS {
        let mut stage = Stage::new();
        open_to_all(&stage);
        let options = stage.layers(&["low"], "top") + way + ",writeback=0";
        let mount = stage.layerfs("m", &options);
        let tool = mount.join("tool");
        fs::write(&tool, "x").expect("a file");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o6777)).expect("chmod");
        assert_eq!(mode_of(&tool), 0o6777, "{way}: before");
        assert!(run_as(65_534, 65_534, &write, &tool), "{way}: the write");
        assert_eq!(mode_of(&tool), 0o777, "{way}: the bits are gone");
        stage.unmount(&mount);
    }
}

#[test]
fn root_set_id_bits_go_with_what_changes_data_without_a_write() {
    if !may_mount() || !has_program("setpriv") || !has_program("python3") {
        return;
    }
    // The interpreter may be where only root reaches it.
    const COPY: &str = "import os, sys
user = int(sys.argv[1])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
fd = os.open(sys.argv[2], os.O_RDWR)
os.copy_file_range(fd, fd, 100, 0, 4096)";
    type Change = fn(u32, &Path) -> bool;
    let changes: [(&str, Change); 3] = [
        ("fallocate", |user, file| {
            run_as(user, user, &["fallocate", "-o", "8192", "-l", "4096"], file)
        }),
        ("punch a hole", |user, file| run_as(user, user, &["fallocate", "-p", "-l", "4096"], file)),
        ("copy_file_range", |user, file| {
            run_as(0, 0, &["python3", "-c", COPY, &user.to_string()], file)
        }),
    ];
    for way in WAYS {
        let mut stage = Stage::new();
        open_to_all(&stage);
        let options = stage.layers(&["low"], "top") + way;
        let mount = stage.layerfs("m", &options);
        let tool = mount.join("tool");
        fs::write(&tool, [b'x'; 8192]).expect("a file");
        for (what, change) in changes {
            // A set-gid file that its group may not run keeps the bit in the hands of the group alone.
            for (user, mode, left) in
                [(0, 0o6777, 0o6777), (65_534, 0o6777, 0o777), (65_534, 0o6666, 0o666)]
            {
                fs::set_permissions(&tool, fs::Permissions::from_mode(mode)).expect("chmod");
                assert!(change(user, &tool), "{way}: {what} by {user}");
                let now = fs::metadata(&tool).expect("stat").mode() & 0o7777;
                assert_eq!(now, left, "{way}: {now:o} after {what} by {user}");
            }
        }
        stage.unmount(&mount);
    }
}

#[test]
fn root_the_work_directory_hands_no_acl_down_to_copies() {
    if !may_mount() || !has_program("setfacl") {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    fs::create_dir(low.join("dir")).expect("a directory");
    fs::write(low.join("dir/file"), "x").expect("a file");
    let options = stage.layers(&["low"], "top");
    let status = Command::new("setfacl")
        .args(["-d", "-m", "u:1234:rwx,o::rwx"])
        .arg(stage.path("top/work"))
        .status();
    assert!(status.expect("setfacl runs").success(), "an ACL on the work directory");
    let mount = stage.layerfs("m", &options);
    let mode = |name: &str| fs::metadata(mount.join(name)).expect("stat").mode() & 0o7777;
    let before = (mode("dir"), mode("dir/file"));
    fs::write(mount.join("dir/file"), "y").expect("a copy-up");
    assert_eq!((mode("dir"), mode("dir/file")), before, "the modes are as below");
    for name in ["dir", "dir/file"] {
        for attr in ["system.posix_acl_access", "system.posix_acl_default"] {
            let found = rustix::fs::getxattr(mount.join(name), attr, &mut [0u8; 128][..]);
            let none = matches!(found, Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS));
            assert!(none, "{name}: {attr}: {found:?}");
        }
    }
    stage.unmount(&mount);
}

#[test]
fn root_a_directory_that_is_gone_is_not_led_to_what_has_its_name() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    for name in ["low/merged", "low/empty"] {
        stage.path(name);
    }
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    for name in ["plain", "merged", "empty"] {
        let (gone, next) = (mount.join(name), mount.join("next"));
        if name == "plain" {
            fs::create_dir(&gone).expect("a directory");
        }
        if name == "merged" {
            fs::write(gone.join("f"), "x").expect("a file in its upper part");
            fs::remove_file(gone.join("f")).expect("unlink");
        }
        for renamed in [true, false] {
            let open = File::open(&gone).expect("open");
            if renamed {
                fs::create_dir(&next).expect("another directory");
                fs::rename(&next, &gone).expect("a rename over the first");
            } else {
                fs::remove_dir(&gone).expect("rmdir");
                fs::create_dir(&gone).expect("another directory");
            }
            fs::set_permissions(&gone, fs::Permissions::from_mode(0o755)).expect("chmod");
            let meta = open.metadata().expect("fstat");
            assert_eq!(meta.nlink(), 0, "{name}, renamed {renamed}: no name is left");
            // What becomes of the old one is nobody's business but that of its fds.
            let _ = open.set_permissions(fs::Permissions::from_mode(0o700));
            let mode = fs::metadata(&gone).expect("stat").mode() & 0o7777;
            assert_eq!(mode, 0o755, "{name}, renamed {renamed}: the new one");
        }
    }
    stage.unmount(&mount);
}

/// Says for every name of a directory whether listing and stat agree about its number.
fn agree(dir: &Path) -> Vec<(String, bool)> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let number = fs::symlink_metadata(entry.path()).expect("stat").ino();
            (entry.file_name().to_string_lossy().into_owned(), entry.ino() == number)
        })
        .collect()
}

#[test]
fn root_a_copy_that_is_moved_keeps_its_number_in_listings() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    fs::create_dir(low.join("dir")).expect("a directory");
    for name in ["moved", "linked", "swapped"] {
        fs::write(low.join(name), name).expect("a lower file");
    }
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    for name in ["a", "b", "c", "d"] {
        fs::create_dir(mount.join(name)).expect("a directory without a lower part");
    }
    fs::write(mount.join("c/new"), "x").expect("a new file");
    fs::rename(mount.join("moved"), mount.join("a/moved")).expect("a rename");
    fs::hard_link(mount.join("linked"), mount.join("b/linked")).expect("a link");
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(cwd, mount.join("swapped"), cwd, mount.join("c/new"), flags)
        .expect("an exchange");
    fs::rename(mount.join("dir"), mount.join("d/dir")).expect("a rename");
    let all = [("a", "moved"), ("b", "linked"), ("c", "new"), ("d", "dir")];
    let check = |mount: &Path, who: &str| {
        for (dir, name) in all {
            assert_eq!(agree(&mount.join(dir)), [(name.to_owned(), true)], "{who}: {dir}");
        }
    };
    check(&mount, "at once");
    stage.unmount(&mount);
    let mount = stage.layerfs("m", &options);
    check(&mount, "mounted again");
    stage.unmount(&mount);
    let kernel = stage.kernel("k", &(options.clone() + ",redirect_dir=on,index=off"));
    check(&kernel, "the kernel's overlay");
    stage.unmount(&kernel);
    let mount = stage.layerfs("m", &options);
    fs::remove_file(mount.join("a/moved")).expect("unlink");
    fs::write(mount.join("a/new"), "x").expect("a new file");
    assert_eq!(agree(&mount.join("a")), [("new".to_owned(), true)], "nothing from below is left");
    let mark = rustix::fs::getxattr(
        stage.path("top/up/a"),
        "trusted.overlay.impure",
        &mut [0u8; 8][..],
    );
    assert_eq!(mark, Err(Errno::NODATA), "the mark is gone with what it spoke of");
    stage.unmount(&mount);
}

#[test]
fn root_lower_links_that_are_made_under_our_feet_take_no_upper_name_away() {
    if !may_mount() {
        return;
    }
    let mut stage = Stage::new();
    let low = stage.path("low");
    fs::write(low.join("0"), "old").expect("a lower file");
    fs::hard_link(low.join("0"), low.join("1")).expect("a link");
    let options = stage.layers(&["low"], "top");
    let mount = stage.layerfs("m", &options);
    fs::write(mount.join("0"), "new").expect("a copy-up");
    for name in ["2", "3"] {
        fs::hard_link(low.join("0"), low.join(name)).expect("a link");
        fs::remove_file(mount.join(name)).expect("unlink");
    }
    stage.unmount(&mount);
    let mount = stage.layerfs("m", &options);
    for name in ["0", "1"] {
        assert_eq!(fs::read(mount.join(name)).expect("read"), b"new", "{name} is one of the two");
    }
    stage.unmount(&mount);
}

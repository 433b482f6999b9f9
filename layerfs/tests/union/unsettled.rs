//! Copies that have their names before the disk has their data.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

use crate::disk::Disk;
use crate::stage::{Stage, has_program, may_mount};
use crate::tree::{assert_same, see};

const SIZE: usize = 300_000;

/// What the work directory says as long as there are such copies.
fn record(stage: &Stage) -> PathBuf {
    stage.path("top").join("work/work/unsettled")
}

/// Whether an upper file says that the disk may not have it.
fn is_marked(stage: &Stage, name: &str) -> bool {
    let file = File::open(stage.path("top/up").join(name)).expect("an upper file");
    let mut value = [0; 64];
    let length = ["trusted.overlay.origin", "user.overlay.origin"]
        .iter()
        .find_map(|attr| rustix::fs::fgetxattr(&file, *attr, &mut value).ok())
        .expect("an origin");
    assert!(length > 21, "{:?}", &value[..length]);
    value[3] & 0x80 != 0
}

fn wait_for(what: &str, mut happens: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happens() {
        assert!(Instant::now() < deadline, "{what} in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The layers, of which copies wait long.
fn layers(stage: &Stage) -> String {
    stage.layers(&["top/low"], "top") + ",x-layerfs.patience=60"
}

/// A stage whose upper layer is on a disk with a journal, and these lower files.
fn stage(names: &[&str]) -> Option<(Stage, Disk)> {
    if !may_mount() || !has_program("mkfs.ext4") {
        return None;
    }
    let mut stage = Stage::new();
    let disk = Disk::new(&mut stage);
    for name in names {
        fs::write(stage.path("top/low").join(name), vec![7; SIZE]).expect("a lower file");
    }
    Some((stage, disk))
}

fn chmod(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a chmod");
}

#[test]
fn root_a_copy_is_marked_until_the_disk_has_it() {
    let Some((mut stage, _disk)) = stage(&["f", "g", "h"]) else { return };
    let options = layers(&stage);
    let mount = stage.layerfs("m", &options);
    let below = fs::metadata(mount.join("f")).expect("there").ino();
    chmod(&mount.join("f"));
    assert!(record(&stage).exists() && is_marked(&stage, "f"), "marked at first");
    assert_eq!(fs::metadata(mount.join("f")).expect("there").ino(), below, "the number");
    stage.unmount(&mount);
    let mount = stage.layerfs("m", &stage.layers(&["top/low"], "top"));
    assert!(!record(&stage).exists() && !is_marked(&stage, "f"), "the next mount looks at it");
    assert_eq!(fs::metadata(mount.join("f")).expect("there").ino(), below, "the number stays");
    for name in ["g", "h"] {
        chmod(&mount.join(name));
        wait_for("the record goes", || !record(&stage).exists());
        assert!(!is_marked(&stage, name), "{name} is marked when the disk has it");
    }
}

#[test]
fn root_holes_that_are_made_in_a_fresh_copy_stay() {
    const HALF: usize = SIZE / 2;
    type Cut = fn(&Path);
    let cuts: [(&str, Cut); 4] = [
        ("cut", |path| {
            let file = File::options().write(true).open(path).expect("open");
            file.set_len(0).and_then(|()| file.set_len(SIZE as u64)).expect("cut");
        }),
        ("opened to be cut", |path| {
            let file = File::create(path).expect("open");
            file.set_len(SIZE as u64).expect("cut");
        }),
        ("punched", |path| {
            let file = File::options().write(true).open(path).expect("open");
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, punch, 0, SIZE as u64).expect("punched");
        }),
        ("written half", |path| {
            let file = File::options().write(true).open(path).expect("open");
            file.set_len(HALF as u64).expect("cut");
            file.write_all_at(&[9; 10], 5).expect("written");
        }),
    ];
    let names = cuts.map(|(name, _)| name);
    let Some((mut stage, _disk)) = stage(&names) else { return };
    let options = layers(&stage);
    let mount = stage.layerfs("m", &options);
    chmod(&mount.join(names[0]));
    let mut expected = Vec::new();
    for (name, cut) in cuts {
        let path = mount.join(name);
        chmod(&path);
        assert!(is_marked(&stage, name), "{name}: not marked");
        cut(&path);
        assert!(!is_marked(&stage, name), "{name}: marked when it is cut");
        expected.push((name, fs::read(&path).expect("readable")));
    }
    // As if some were still waited for.
    stage.crash();
    fs::write(record(&stage), "").expect("a record");
    let mount = stage.layerfs("m", &options);
    for (name, content) in expected {
        assert!(fs::read(mount.join(name)).expect("readable") == content, "{name}: filled again");
    }
}

#[test]
fn root_copies_outlive_the_lower_layer_that_they_are_of() {
    let Some((mut stage, _disk)) = stage(&["f"]) else { return };
    let options = layers(&stage);
    let mount = stage.layerfs("m", &options);
    chmod(&mount.join("f"));
    stage.unmount(&mount);
    fs::remove_file(stage.path("top/low").join("f")).expect("removed");
    let mount = stage.layerfs("m", &options);
    assert!(fs::read(mount.join("f")).expect("readable") == vec![7; SIZE], "the copy");
    assert!(!record(&stage).exists() && !is_marked(&stage, "f"), "it is settled");
}

#[test]
fn root_a_new_file_with_the_number_of_a_removed_copy_is_none() {
    let Some((mut stage, _disk)) = stage(&["f"]) else { return };
    let mount = stage.layerfs("m", &layers(&stage));
    chmod(&mount.join("f"));
    let upper = stage.path("top/up");
    let number = |name: &str| fs::metadata(upper.join(name)).expect("there").ino();
    let before = number("f");
    fs::remove_file(mount.join("f")).expect("removed");
    for count in 0.. {
        let name = format!("new-{count}");
        let file = File::create(mount.join(&name)).expect("a new file");
        if number(&name) == before {
            file.write_all_at(b"content", 0).expect("written");
            file.set_len(3).expect("cut");
            assert_eq!(fs::read(mount.join(&name)).expect("readable"), b"con");
            return;
        }
        assert!(count < 5_000, "no file gets the number again");
    }
}

#[test]
fn root_a_killed_server_leaves_copies_that_the_next_mount_settles() {
    let names = ["a", "b", "c", "d"];
    let Some((mut stage, _disk)) = stage(&names) else { return };
    let options = layers(&stage);
    let mount = stage.layerfs("m", &options);
    for name in names {
        chmod(&mount.join(name));
    }
    fs::remove_file(mount.join("b")).expect("removed");
    fs::create_dir(mount.join("dir")).expect("a directory");
    fs::rename(mount.join("c"), mount.join("dir/c")).expect("renamed");
    fs::hard_link(mount.join("d"), mount.join("e")).expect("linked");
    let before = see(&mount);
    stage.crash();
    assert!(record(&stage).exists() && is_marked(&stage, "dir/c"), "it was killed early enough");
    let mount = stage.layerfs("m", &options);
    assert_same("after the crash", &before, &see(&mount));
    assert!(!record(&stage).exists(), "the record");
    for name in ["a", "dir/c", "d", "e"] {
        assert!(!is_marked(&stage, name), "{name}");
    }
}

#[test]
fn root_a_read_only_mount_finds_copies_whole() {
    let Some((mut stage, _disk)) = stage(&["f"]) else { return };
    let options = layers(&stage);
    let mount = stage.layerfs("m", &options);
    chmod(&mount.join("f"));
    let reader = stage.layerfs("r", &format!("ro,{options}"));
    assert!(record(&stage).exists() && is_marked(&stage, "f"), "the writable mount's to settle");
    stage.unmount(&reader);
    stage.crash();
    // What the disk never got.
    let copy = File::options().write(true).open(stage.path("top/up").join("f")).expect("open");
    copy.set_len(0).expect("cut");
    let reader = stage.layerfs("r", &format!("ro,{options}"));
    assert!(fs::read(reader.join("f")).expect("readable") == vec![7; SIZE], "the content");
    assert!(!record(&stage).exists() && !is_marked(&stage, "f"), "it is whole now");
}

#[test]
fn root_a_file_system_that_can_only_be_read_is_mounted_as_it_is() {
    let Some((mut stage, disk)) = stage(&["f", "g"]) else { return };
    let options = layers(&stage);
    for name in ["f", "g"] {
        let mount = stage.layerfs("m", &options);
        chmod(&mount.join(name));
        stage.unmount(&mount);
        assert!(record(&stage).exists(), "the next mount is to look at {name}");
        disk.remount(&mut stage, "ro");
        let mount = stage.layerfs("m", &format!("ro,{options}"));
        assert!(fs::read(mount.join(name)).expect("readable") == vec![7; SIZE], "{name}");
        stage.unmount(&mount);
        disk.remount(&mut stage, "rw");
    }
}

#[test]
fn root_a_mount_waits_until_the_one_before_has_let_go() {
    let Some((mut stage, _disk)) = stage(&["f"]) else { return };
    let options = stage.layers(&["top/low"], "top") + ",x-layerfs.patience=1";
    let mount = stage.layerfs("m", &options);
    chmod(&mount.join("f"));
    let inside = File::open(&mount).expect("the root, which keeps it there");
    stage.detach(&mount);
    let mount = stage.layerfs("m", &options);
    assert!(!record(&stage).exists() && !is_marked(&stage, "f"), "the first mount has settled it");
    drop(inside);
    stage.unmount(&mount);
}

#[test]
fn root_what_another_overlay_did_meanwhile_stays() {
    let Some((mut stage, _disk)) = stage(&["f", "g", "h"]) else { return };
    let options = layers(&stage);
    let mount = stage.layerfs("m", &options);
    chmod(&mount.join("f"));
    chmod(&mount.join("g"));
    let before = see(&mount);
    stage.crash();
    assert!(record(&stage).exists(), "it was killed early enough");
    let kernel = stage.kernel("k", &stage.layers(&["top/low"], "top"));
    assert_same("in the kernel's overlay", &before, &see(&kernel));
    assert!(!record(&stage).exists(), "the record is the kernel's to clear");
    let file = File::create(kernel.join("f")).expect("cut");
    file.set_len(SIZE as u64).expect("a hole");
    drop(file);
    stage.unmount(&kernel);
    // A record of later copies does not speak of the earlier ones.
    for round in 0..2 {
        let mount = stage.layerfs("m", &options);
        let read = |name: &str| fs::read(mount.join(name)).expect("readable");
        assert!(read("f") == vec![0; SIZE], "{round}: filled again");
        assert!(read("g") == vec![7; SIZE], "{round}: what it left alone");
        chmod(&mount.join("h"));
        stage.crash();
        assert_eq!(record(&stage).exists(), round == 0, "{round}: h is copied once");
    }
}

#[test]
fn root_nothing_is_left_for_later_where_that_is_not_safe_or_not_wanted() {
    let Some((mut stage, disk)) = stage(&["f"]) else { return };
    let options = layers(&stage);
    let is_late = |stage: &mut Stage, options: &str| {
        let mount = stage.layerfs("m", options);
        chmod(&mount.join("f"));
        let late = record(stage).exists() || is_marked(stage, "f");
        fs::remove_file(mount.join("f")).expect("removed");
        stage.unmount(&mount);
        fs::remove_file(stage.path("top/up").join("f")).expect("its whiteout");
        late
    };
    assert!(is_late(&mut stage, &options), "as it is");
    assert!(!is_late(&mut stage, &format!("{options},fsync=strict")), "where all is to be synced");
    assert!(!is_late(&mut stage, &format!("{options},volatile")), "where nothing is synced");
    assert!(!is_late(&mut stage, &format!("{options},userxattr")), "where marks are everybody's");
    disk.remount(&mut stage, "data=writeback");
    assert!(!is_late(&mut stage, &options), "where extents are recorded before their data");
}

#[test]
fn root_a_terminated_server_leaves_nothing_for_later() {
    let Some((mut stage, _disk)) = stage(&["f"]) else { return };
    let options = layers(&stage);
    let mount = stage.layerfs("m", &options);
    chmod(&mount.join("f"));
    assert!(record(&stage).exists(), "not on the disk yet");
    let pid = i32::try_from(stage.server().id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    let server = stage.server();
    wait_for("it ends", || server.try_wait().expect("its state").is_some());
    stage.left(&mount);
    assert!(!record(&stage).exists() && !is_marked(&stage, "f"), "it synced the upper layer");
}

//! Power cuts while layerfs copies files up: a name never comes to the disk before its data.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tests::daemon::Finish as _;
use tests::life::Random;
use tests::recorded::Recorded;
use tests::root::TempRoot;
use tests::{host, layerfs, programs};

/// Of no size, within a block, some blocks; the first file is longer than what is on its way to the disk
/// at a time.
const SIZES: [usize; 4] = [0, 100, 5_000, 70_000];
const LONG: usize = 9 << 20;
const FILES: usize = 30;
const CUTS: usize = 40;
const TAIL: &[u8] = b"appended";

fn name(number: usize) -> String {
    format!("file-{number:02}")
}

/// What a lower file holds: no zeros, and nothing of another one.
fn content(number: usize) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 + number as u64);
    let page: Vec<u8> =
        (0..4096).map(|_| 1 + u8::try_from(random.below(255)).expect("a byte")).collect();
    let length = if number == 0 { LONG } else { SIZES[number % SIZES.len()] };
    page.into_iter().cycle().take(length).collect()
}

/// Changes every file of a union: mode, owner or content. The names of the upper directory are brought to
/// the disk after each, which otherwise happens every few seconds.
fn change_all(merged: &Path, upper: &Path) {
    for number in 0..FILES {
        let path = merged.join(name(number));
        match number % 3 {
            0 => fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a chmod"),
            1 => std::os::unix::fs::chown(&path, Some(7), Some(7)).expect("a chown"),
            _ => {
                let file = File::options().append(true).open(&path);
                file.and_then(|mut file| file.write_all(TAIL)).expect("an append");
            }
        }
        File::open(upper).and_then(|dir| dir.sync_all()).expect("the directory is synced");
    }
}

/// Looks at the upper directory after a cut; returns how many copies are there.
fn look(image: &Path, fs: &str, at: usize) -> usize {
    if fs == "ext2" {
        // Without a journal a name may be there whose file is not, until a boot has looked.
        let checked = Command::new("e2fsck").args(["-fy"]).arg(image).output().expect("e2fsck");
        assert!(matches!(checked.status.code(), Some(0 | 1)), "cut at {at}: {checked:?}");
    }
    let root = TempRoot::new("after-cut");
    let mut mount = Command::new("mount");
    mount.args(["-o", "loop"]).arg(image).arg(root.path()).finish().ok();
    let mut found = 0;
    for entry in fs::read_dir(root.join("upper")).expect("the upper directory") {
        let entry = entry.expect("an entry");
        let number =
            entry.file_name().to_str().and_then(|name| name.strip_prefix("file-")?.parse().ok());
        let number: usize = number.expect("a name from below");
        let (now, expected) = (fs::read(entry.path()).expect("readable"), content(number));
        let whole = now.len() >= expected.len() && now[..expected.len()] == expected[..];
        let (length, before) = (now.len(), expected.len());
        assert!(
            whole,
            "cut at {at}: file {number} has {length} bytes, not its {before} from below"
        );
        let most = before + if number % 3 == 2 { TAIL.len() } else { 0 };
        assert!(length <= most, "cut at {at}: file {number} has {length} bytes of {most}");
        found += 1;
    }
    found
}

fn cuts(fs: &str) {
    if !host::provides(&[&format!("mkfs.{fs}"), "mount", "/dev/fuse"]) {
        return;
    }
    let disk = Recorded::new(fs, 64);
    let on_disk = |name: &str| disk.path().join(name);
    for dir in ["lower", "upper", "work"] {
        fs::create_dir(on_disk(dir)).expect("a directory");
    }
    for number in 0..FILES {
        fs::write(on_disk("lower").join(name(number)), content(number)).expect("a lower file");
    }
    rustix::fs::syncfs(File::open(disk.path()).expect("the disk")).expect("a sync");
    let start = disk.now();
    let merged = TempRoot::new("copyup-cuts");
    let dir = |name| on_disk(name).display().to_string();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", dir("lower"), dir("upper"), dir("work"));
    let mut mount = Command::new(programs::path("layerfs"));
    mount.arg("-o").arg(options).arg(merged.path()).finish().ok();
    change_all(merged.path(), &on_disk("upper"));
    let end = disk.now();
    let flags = rustix::mount::UnmountFlags::empty();
    rustix::mount::unmount(merged.path(), flags).expect("not in use");
    layerfs::all_end_below(merged.path());
    disk.unmount();
    assert!(end > start + CUTS, "{} writes", end - start);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut found, length) = (Vec::new(), end - start);
    for cut in 0..CUTS {
        // One in each stretch, the last at the very end.
        let within =
            if cut + 1 == CUTS { length } else { (cut * length + random.below(length)) / CUTS };
        let kept = random.below(4);
        let image = disk.cut(start + within, || random.below(3) < kept);
        found.push(look(&image, fs, within));
    }
    let (least, most) = (found.iter().min(), found.iter().max());
    assert!(least < Some(&(FILES / 4)) && most > Some(&(FILES / 2)), "copies found: {found:?}");
}

#[test]
fn a_journal_records_copies_that_are_whole() {
    cuts("ext4");
}

#[test]
fn copies_are_whole_without_a_journal() {
    cuts("ext2");
}

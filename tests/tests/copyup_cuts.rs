//! Power cuts while layerfs copies files up. With `fsync=strict`, or on a file system that keeps no order, a
//! name never comes to the disk before its data; else the next mount makes good what the disk did not get.

#![allow(clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

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
const TAIL: &[u8] = b"appended";
const HEAD: &[u8] = b"written and synced";

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
///
/// Returns when each file was the caller's for good, if it was.
fn change_all(disk: &Recorded, merged: &Path, upper: &Path) -> Vec<Option<usize>> {
    let dsync = rustix::fs::OFlags::DSYNC.bits().cast_signed();
    let mut synced = vec![None; FILES];
    for (number, synced) in synced.iter_mut().enumerate() {
        let path = merged.join(name(number));
        match number % 3 {
            0 => fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a chmod"),
            1 => std::os::unix::fs::chown(&path, Some(7), Some(7)).expect("a chown"),
            _ if number % 2 == 1 && !content(number).is_empty() => {
                let mut options = File::options();
                let file = options.write(true).custom_flags(dsync).open(&path);
                file.and_then(|file| file.write_all_at(HEAD, 0)).expect("a write");
                *synced = Some(disk.now());
            }
            _ => {
                let file = File::options().append(true).open(&path);
                file.and_then(|mut file| file.write_all(TAIL)).expect("an append");
            }
        }
        File::open(upper).and_then(|dir| dir.sync_all()).expect("the directory is synced");
    }
    synced
}

/// What a cut left.
#[derive(Debug, Default)]
struct Left {
    /// How many copies are in the upper directory.
    copies: usize,
    /// How many of them had to be made whole.
    mended: usize,
}

/// Whether a file of the upper directory is what it may be after a cut.
fn check(path: &Path, number: usize, is_synced: bool) -> Result<(), String> {
    let (now, below) = (fs::read(path).expect("readable"), content(number));
    let (length, before) = (now.len(), below.len());
    let most = before + if number % 3 == 2 { TAIL.len() } else { 0 };
    if length < before || length > most {
        return Err(format!("file {number} has {length} bytes, of {before} to {most}"));
    }
    let head = HEAD.len().min(before);
    let is_written = number % 6 == 5 && now[..head] == HEAD[..head];
    if is_synced && !is_written {
        return Err(format!("file {number} lost what was synced"));
    }
    let from = if is_written { head } else { 0 };
    match now[from..before] == below[from..] {
        true => Ok(()),
        false => Err(format!("file {number} is not what it was below")),
    }
}

/// Looks at the upper directory after a cut, by itself or as the next mount leaves it.
fn look(image: &Path, case: &Case, at: usize, synced: &[Option<usize>]) -> Left {
    if case.fs == "ext2" {
        // Without a journal a name may be there whose file is not, until a boot has looked.
        let checked = Command::new("e2fsck").args(["-fy"]).arg(image).output().expect("e2fsck");
        assert!(matches!(checked.status.code(), Some(0 | 1)), "cut at {at}: {checked:?}");
    }
    let root = TempRoot::new("after-cut");
    let mut mount = Command::new("mount");
    // xfs mounts no two file systems of one UUID, and the cut before may be gone a moment later only.
    let options = if case.fs == "xfs" { "loop,nouuid" } else { "loop" };
    mount.args(["-o", options]).arg(image).arg(root.path()).finish().ok();
    let mut left = Left::default();
    let names = || {
        let entries = fs::read_dir(root.join("upper")).expect("the upper directory");
        entries.map(|entry| {
            let name = entry.expect("an entry").file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("file-")?.parse().ok());
            let number: usize = number.expect("a name from below");
            (root.join("upper").join(name), number)
        })
    };
    for (path, number) in names() {
        left.copies += 1;
        let is_synced = synced[number].is_some_and(|when| when <= at);
        match check(&path, number, is_synced) {
            Err(_) if case.settles => left.mended += 1,
            answer => answer.unwrap_or_else(|what| panic!("cut at {at}: {what}")),
        }
    }
    if !case.settles {
        return left;
    }
    let merged = TempRoot::new("after-cut-merged");
    mount_union(root.path(), merged.path(), "");
    tests::root::unmount(merged.path());
    layerfs::all_end_below(merged.path());
    assert!(!root.join("work/work/unsettled").exists(), "cut at {at}: the record is left");
    for (path, number) in names() {
        let is_synced = synced[number].is_some_and(|when| when <= at);
        check(&path, number, is_synced)
            .unwrap_or_else(|what| panic!("cut at {at}, mended: {what}"));
    }
    left
}

fn mount_union(disk: &Path, at: &Path, more: &str) {
    let dir = |name| disk.join(name).display().to_string();
    let layers = format!("lowerdir={},upperdir={}", dir("lower"), dir("upper"));
    let options = format!("{layers},workdir={}{more}", dir("work"));
    let mut mount = Command::new(programs::path("layerfs"));
    mount.arg("-o").arg(options).arg(at).finish().ok();
}

/// However slow this machine is, names come to the disk before the data is waited for.
const LATE: &str = ",x-layerfs.patience=2";

/// A file system, and what is asked of layerfs on it.
struct Case {
    fs: &'static str,
    options: &'static str,
    /// Whether names come to the disk before data does.
    settles: bool,
    /// The size of the disk, and at how many points it is cut.
    mib: u64,
    cuts: usize,
}

fn cuts(case: &Case) {
    if !host::provides(&[&format!("mkfs.{}", case.fs), "mount", "/dev/fuse"]) {
        return;
    }
    let disk = Recorded::new(case.fs, case.mib);
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
    mount_union(disk.path(), merged.path(), case.options);
    let synced = change_all(&disk, merged.path(), &on_disk("upper"));
    if case.settles {
        wait_for_the_record_to_go(&on_disk("work/work/unsettled"));
    }
    let end = disk.now();
    tests::root::unmount(merged.path());
    layerfs::all_end_below(merged.path());
    disk.unmount();
    let cuts = case.cuts;
    assert!(end > start + cuts, "{} writes", end - start);
    let synced: Vec<_> = synced.iter().map(|when| when.map(|when| when - start)).collect();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut found, length) = (Vec::new(), end - start);
    for cut in 0..cuts {
        // One in each stretch, the last at the very end.
        let within =
            if cut + 1 == cuts { length } else { (cut * length + random.below(length)) / cuts };
        let kept = random.below(4);
        let image = disk.cut(start + within, || random.below(3) < kept);
        found.push(look(&image, case, within, &synced));
    }
    let copies = |left: &Left| left.copies;
    let (least, most) = (found.iter().map(copies).min(), found.iter().map(copies).max());
    assert!(least < Some(FILES / 4) && most > Some(FILES / 2), "copies found: {found:?}");
    let mended: usize = found.iter().map(|left| left.mended).sum();
    assert_eq!(mended > 0, case.settles, "copies that had to be made whole: {found:?}");
}

/// Waits until layerfs has seen every copy on the disk.
fn wait_for_the_record_to_go(record: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while record.exists() {
        assert!(Instant::now() < deadline, "copies stay unsettled");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_next_mount_makes_good_what_a_journal_recorded_early() {
    cuts(&Case { fs: "ext4", options: LATE, settles: true, mib: 64, cuts: 40 });
}

#[test]
fn so_it_does_on_xfs() {
    // mkfs.xfs makes nothing below 300 MiB.
    cuts(&Case { fs: "xfs", options: LATE, settles: true, mib: 320, cuts: 12 });
}

#[test]
fn a_journal_records_copies_that_are_whole_where_that_is_asked_for() {
    cuts(&Case { fs: "ext4", options: ",fsync=strict", settles: false, mib: 64, cuts: 40 });
}

#[test]
fn copies_are_whole_without_a_journal() {
    cuts(&Case { fs: "ext2", options: "", settles: false, mib: 64, cuts: 40 });
}

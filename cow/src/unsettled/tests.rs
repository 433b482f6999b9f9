//! Copies as a crash leaves them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};

use rustix::fs::FallocateFlags;

use super::*;
use crate::testing;

const BLOCK: usize = 64 << 10;
const SIZE: usize = 16 * BLOCK;
const ATTR: &str = "trusted.overlay.origin";

/// A lower and an upper directory.
struct Layers {
    dir: tempfile::TempDir,
    lower: [OwnedFd; 1],
    upper: Root,
    record: Record,
}

impl Layers {
    /// None where a test of them cannot be made.
    fn new() -> Option<Self> {
        if !testing::is_root() {
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["lower", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        fs::write(dir.path().join("probe"), "x").expect("a file");
        let probe = File::open(dir.path().join("probe")).expect("open");
        if !testing::can("the file system tells where data is", extents::written(&probe).is_ok()) {
            return None;
        }
        let lower = [OwnedFd::from(File::open(dir.path().join("lower")).expect("open"))];
        let upper = Root::open(dir.path().join("upper")).expect("open");
        let work = File::open(dir.path().join("work")).expect("open");
        let record = Record::make(&work).expect("a record");
        Some(Self { dir, lower, upper, record })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a lower file, and an empty copy of it that says where it is from.
    fn copy(&self, name: &str, content: &[u8]) -> File {
        fs::write(self.path("lower").join(name), content).expect("a lower file");
        let path = self.path("upper").join(name);
        let copy = File::create_new(&path).expect("a copy");
        let value = origin::encode(&self.lower[0], OsStr::new(name), &self.uuid());
        let value = self.record.mark(value.expect("a handle"));
        crate::xattr::set_at(&copy, OsStr::new(""), OsStr::new(ATTR), &value).expect("a mark");
        copy
    }

    fn uuid(&self) -> [u8; 16] {
        handle::file_system_uuid(&self.lower[0]).unwrap_or_default()
    }

    fn mend(&self) -> Result<usize> {
        mend(&self.upper, &self.record, &self.lower, OsStr::new(ATTR))
    }

    fn is_marked(&self, name: &str) -> bool {
        let value = self.upper.xattr(name, OsStr::new(ATTR)).expect("an attribute");
        origin::settled(value.expect("an origin")).is_some()
    }
}

fn noise(seed: u8) -> Vec<u8> {
    let byte = |at| (at / BLOCK + at * 7 + usize::from(seed)) % 255;
    (0..SIZE).map(|at| 1 + u8::try_from(byte(at)).expect("below 255")).collect()
}

fn allocate(file: &File) {
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, SIZE as u64).expect("allocated");
}

#[test]
fn what_was_written_stays_and_what_was_not_is_copied_again() {
    let Some(layers) = Layers::new() else { return };
    let below = noise(1);
    let copy = layers.copy("f", &below);
    allocate(&copy);
    copy.write_all_at(&below[..BLOCK], 0).expect("a part that came to the disk");
    copy.write_all_at(&[9; BLOCK], 5 * BLOCK as u64).expect("what a program wrote later");
    copy.write_all_at(b"appended", SIZE as u64).expect("what a program appended");
    // Pages of zeros in memory are no data.
    let mut all = vec![0; SIZE];
    copy.read_exact_at(&mut all, 0).expect("readable");
    assert_eq!(layers.mend().expect("mended"), 1);
    let mut expected = below;
    expected[5 * BLOCK..6 * BLOCK].fill(9);
    expected.extend_from_slice(b"appended");
    assert!(fs::read(layers.path("upper/f")).expect("readable") == expected, "the content");
    assert!(!layers.is_marked("f"), "the mark is left");
    assert_eq!(layers.mend().expect("mended"), 0, "a second time");
}

#[test]
fn a_copy_that_is_empty_gets_everything_but_keeps_what_it_was_given() {
    let Some(layers) = Layers::new() else { return };
    let below = noise(2);
    let copy = layers.copy("f", &below[..BLOCK + 5]);
    let here = OsStr::new("");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let name = OsStr::new("security.capability");
    at::chown_at(&copy, here, 3, 4).expect("chown");
    copy.set_permissions(fs::Permissions::from_mode(0o6751)).expect("chmod");
    crate::xattr::set_at(&copy, here, name, &capability).expect("a capability");
    let time = crate::meta::Time { secs: 12_345, nanos: 678 };
    at::set_mtime_at(&copy, here, time).expect("a time");
    assert_eq!(layers.mend().expect("mended"), 1);
    let path = layers.path("upper/f");
    assert!(fs::read(&path).expect("readable") == below[..BLOCK + 5], "the content");
    let meta = fs::metadata(&path).expect("there");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (3, 4, 0o6751));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (12_345, 678));
    let kept = layers.upper.xattr("f", name).expect("an attribute");
    assert_eq!(kept.as_deref(), Some(&capability[..]), "the capability");
}

#[test]
fn holes_of_the_lower_file_stay_holes() {
    let Some(layers) = Layers::new() else { return };
    let copy = layers.copy("f", b"");
    let lower = File::create(layers.path("lower/f")).expect("a lower file");
    lower.set_len(SIZE as u64).expect("a hole");
    lower.write_all_at(&[5; BLOCK], 3 * BLOCK as u64).expect("some data");
    lower.sync_all().expect("synced");
    assert_eq!(layers.mend().expect("mended"), 1);
    let mut expected = vec![0; SIZE];
    expected[3 * BLOCK..4 * BLOCK].fill(5);
    assert!(fs::read(layers.path("upper/f")).expect("readable") == expected, "the content");
    let blocks = copy.metadata().expect("there").blocks();
    assert!(blocks * 512 < 2 * BLOCK as u64, "{blocks} blocks");
}

#[test]
fn a_copy_that_is_settled_is_left_alone() {
    let Some(layers) = Layers::new() else { return };
    let copy = layers.copy("f", &noise(3));
    settle(&copy, OsStr::new(ATTR)).expect("settled");
    copy.set_len(SIZE as u64).expect("a hole that a program made");
    assert_eq!(layers.mend().expect("nothing to do"), 0);
    assert!(fs::read(layers.path("upper/f")).expect("readable") == vec![0; SIZE], "a hole");
}

#[test]
fn a_lower_file_that_is_gone_is_told_by_the_name_of_the_copy() {
    let Some(layers) = Layers::new() else { return };
    fs::create_dir(layers.path("upper/d")).expect("a directory");
    drop(layers.copy("f", &noise(4)));
    fs::rename(layers.path("upper/f"), layers.path("upper/d/g")).expect("renamed");
    fs::remove_file(layers.path("lower/f")).expect("removed");
    let mend = |same_boot| {
        mend_after(same_boot, &layers.upper, &layers.record, &layers.lower, OsStr::new(ATTR))
    };
    let error = mend(false).expect_err("nothing to copy from");
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.to_string().contains("d/g"), "{error}");
    assert!(layers.is_marked("d/g"), "it says still that it may not be whole");
    assert_eq!(mend(true).expect("nothing was lost"), 1);
    assert!(!layers.is_marked("d/g"), "without a crash it is whole");
}

#[test]
fn marks_of_an_earlier_record_are_not_believed() {
    let Some(mut layers) = Layers::new() else { return };
    let copy = layers.copy("f", &noise(5));
    let work = File::open(layers.path("work")).expect("open");
    layers.record.forget(&work).expect("taken back by somebody else");
    layers.record = Record::make(&work).expect("another record");
    copy.set_len(SIZE as u64).expect("a hole that was made meanwhile");
    assert_eq!(layers.mend().expect("nothing to do"), 0);
    assert!(fs::read(layers.path("upper/f")).expect("readable") == vec![0; SIZE], "a hole");
}

#[test]
fn the_record_is_there_until_it_is_taken_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let work = File::open(dir.path()).expect("open");
    let find = || Record::find(&work).expect("looked for");
    assert!(matches!(find(), Found::None));
    let first = Record::make(&work).expect("recorded");
    assert!(matches!(find(), Found::Held));
    assert_eq!(Record::make(&work).map(drop), Err(Errno::AGAIN), "a second mount");
    drop(first);
    let Found::Left(left) = find() else { panic!("nobody has it") };
    left.forget(&work).expect("taken back");
    assert!(matches!(find(), Found::None));
    let other = Record::make(&work).expect("recorded");
    assert_ne!(left.id, other.id, "marks tell them apart");
    left.forget(&work).expect("nothing of its own is there");
    assert!(matches!(find(), Found::Held), "the other one stays");
}

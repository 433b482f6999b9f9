//! The workloads that unions are compared by: system calls alone, in one process.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, Timespec, Timestamps};

use crate::Failure;

/// Directories and files of the tree that is walked; every second directory is in the upper lower.
const DIRS: usize = 200;
const FILES: usize = 100;
const SMALL: usize = 2048;
/// Names in each layer's part of the one large directory.
const CROWD: usize = 10_000;
/// The large file.
const LARGE: u64 = 256 << 20;
/// Files of an archive that is unpacked, of the small trees, and names made and removed at once.
const UNPACKED: usize = 8_000;
const CHANGED: usize = 4_000;
const BRIEF: usize = 9_000;
const READS: u64 = 40_000;

/// One workload.
pub struct Work {
    /// The name in the table.
    pub name: &'static str,
    /// How many times slower than the kernel's overlay it may be.
    pub target: f64,
    /// Whether the union is mounted anew before it.
    pub cold: bool,
    /// What must be there, not timed.
    pub prepare: fn(&Path) -> Result<(), Failure>,
    /// What is timed.
    pub run: fn(&Path) -> Result<(), Failure>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("name", &self.name).finish_non_exhaustive()
    }
}

fn nothing(_: &Path) -> Result<(), Failure> {
    Ok(())
}

const fn row(
    name: &'static str,
    target: f64,
    cold: bool,
    prepare: fn(&Path) -> Result<(), Failure>,
    run: fn(&Path) -> Result<(), Failure>,
) -> Work {
    Work { name, target, cold, prepare, run }
}

/// All workloads, in the order in which a round runs them.
pub const ALL: &[Work] = &[
    row("stat 20,000 files, cold", 1.5, true, nothing, stat_all),
    row("stat 20,000 files, warm", 1.1, false, stat_all, stat_all),
    row("list and stat them, cold", 1.5, true, nothing, walk),
    row("list and stat them, warm", 1.1, false, walk, walk),
    row("read all files, cold", 1.2, true, nothing, read_all),
    row("read all files, warm", 1.8, false, read_all, read_all),
    row("list 20,000 names", 2.0, true, nothing, list_crowd),
    row("sequential read", 1.05, false, nothing, read_large),
    row("random read, 4 KiB", 1.05, false, nothing, read_scattered),
    row("sequential write", 1.05, false, take_pages, write_large),
    row("random write, 4 KiB", 1.05, false, make_target, write_scattered),
    row("copy-up of 256 MiB", 0.4, false, take_pages, copy_up),
    row("copy-up of 256 MiB and fsync", 1.0, false, take_pages, copy_up_synced),
    row("chmod of 4,000 lower files", 1.0, true, nothing, chmod_lower),
    row("unpack 8,000 files", 2.5, false, nothing, |root| unpack(&root.join("unpacked"))),
    row("remove them", 2.5, false, make_unpacked, |root| remove(root, "removed")),
    row("remove a lower tree of 4,000", 2.5, true, nothing, |root| remove(root, "doomed")),
    row("create and unlink 9,000", 3.0, false, nothing, create_unlink),
];

/// Fills the two lower directories that every union shares, `below` under `above`.
///
/// # Errors
/// When a file cannot be written.
pub fn lay_out(above: &Path, below: &Path) -> Result<(), Failure> {
    let content = vec![b'x'; SMALL];
    for dir in 0..DIRS {
        let layer = if dir % 2 == 0 { below } else { above };
        fill(&layer.join(format!("tree/dir-{dir:03}")), FILES, &content)?;
    }
    for (layer, kind) in [(above, "above"), (below, "below")] {
        let crowd = layer.join("crowd");
        fs::create_dir_all(&crowd)?;
        for number in 0..CROWD {
            File::create(crowd.join(format!("{kind}-{number:05}")))?;
        }
    }
    for dir in 0..CHANGED / FILES {
        fill(&below.join(format!("doomed/dir-{dir:03}")), FILES, &content)?;
        fill(&below.join(format!("changed/dir-{dir:03}")), FILES, &content)?;
    }
    let mut large = File::create(below.join("large"))?;
    let block = vec![b'y'; 1 << 20];
    for _ in 0..LARGE >> 20 {
        large.write_all(&block)?;
    }
    large.sync_all()?;
    for copy in ["large-too", "large-three"] {
        fs::copy(below.join("large"), below.join(copy))?;
    }
    Ok(())
}

fn fill(dir: &Path, files: usize, content: &[u8]) -> Result<(), Failure> {
    fs::create_dir_all(dir)?;
    for number in 0..files {
        fs::write(dir.join(format!("file-{number:03}")), content)?;
    }
    Ok(())
}

/// Calls `each` with the path of every file of one of the small trees.
fn for_each_file(
    root: &Path,
    dirs: usize,
    mut each: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for dir in 0..dirs {
        for file in 0..FILES {
            each(&format!("{}/dir-{dir:03}/file-{file:03}", root.display()))?;
        }
    }
    Ok(())
}

fn stat_all(root: &Path) -> Result<(), Failure> {
    for_each_file(&root.join("tree"), DIRS, |path| Ok(rustix::fs::lstat(path).map(drop)?))
}

/// Does what `find -size` and `du` do.
fn walk(root: &Path) -> Result<(), Failure> {
    for dir in 0..DIRS {
        let dir = open_dir(rustix::fs::CWD, root.join(format!("tree/dir-{dir:03}")))?;
        for (name, _) in list(&dir)? {
            rustix::fs::statat(&dir, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

fn read_all(root: &Path) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 << 10];
    for_each_file(&root.join("tree"), DIRS, |path| {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        while rustix::io::read(&fd, &mut buffer)? > 0 {}
        Ok(())
    })
}

fn list_crowd(root: &Path) -> Result<(), Failure> {
    let names = fs::read_dir(root.join("crowd"))?.count();
    if names == 2 * CROWD { Ok(()) } else { Err(format!("{names} names").into()) }
}

fn read_large(root: &Path) -> Result<(), Failure> {
    let file = File::open(root.join("large"))?;
    let mut buffer = vec![0; 128 << 10];
    for _ in 0..2 {
        let mut at = 0;
        while at < LARGE {
            at += file.read_at(&mut buffer, at)? as u64;
        }
    }
    Ok(())
}

/// Places of a large file that repeat from run to run.
fn places(count: u64) -> impl Iterator<Item = u64> {
    let blocks = LARGE >> 12;
    (0..count).map(move |number| (number.wrapping_mul(2_654_435_761) % blocks) << 12)
}

fn read_scattered(root: &Path) -> Result<(), Failure> {
    let file = File::open(root.join("large"))?;
    let mut buffer = vec![0; 4096];
    for at in places(READS) {
        file.read_exact_at(&mut buffer, at)?;
    }
    Ok(())
}

fn write_large(root: &Path) -> Result<(), Failure> {
    let file = File::create(root.join("written"))?;
    let block = vec![b'w'; 128 << 10];
    let mut at = 0;
    while at < LARGE {
        file.write_all_at(&block, at)?;
        at += block.len() as u64;
    }
    Ok(())
}

/// Has the machine's own machine give it the pages that are about to be written: a virtual machine gets
/// memory when it first touches it, which takes longer than the writing.
fn take_pages(root: &Path) -> Result<(), Failure> {
    write_large(root)?;
    fs::remove_file(root.join("written"))?;
    // Who frees a removed file when it has answered has done so when it answers the next question.
    for name in ["one", "two"] {
        root.join(format!("no-{name}-is-here")).try_exists()?;
    }
    Ok(())
}

fn make_target(root: &Path) -> Result<(), Failure> {
    if !root.join("written").exists() {
        write_large(root)?;
    }
    rustix::fs::fsync(File::open(root.join("written"))?)?;
    Ok(())
}

fn write_scattered(root: &Path) -> Result<(), Failure> {
    let file = File::options().write(true).open(root.join("written"))?;
    let block = vec![b'v'; 4096];
    for at in places(READS) {
        file.write_all_at(&block, at)?;
    }
    Ok(())
}

fn copy_up(root: &Path) -> Result<(), Failure> {
    let file = File::options().append(true).open(root.join("large-too"))?;
    (&file).write_all(b"z")?;
    Ok(())
}

/// Who promises least by himself has to wait for the disk here too; only a volatile mount lets the fsync go by.
fn copy_up_synced(root: &Path) -> Result<(), Failure> {
    let file = File::options().append(true).open(root.join("large-three"))?;
    (&file).write_all(b"z")?;
    Ok(file.sync_all()?)
}

fn chmod_lower(root: &Path) -> Result<(), Failure> {
    for_each_file(&root.join("changed"), CHANGED / FILES, |path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    })
}

/// Does what tar(1) does as root.
fn unpack(into: &Path) -> Result<(), Failure> {
    let content = vec![b'u'; SMALL];
    let time = Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    fs::create_dir(into)?;
    for dir in 0..UNPACKED / FILES {
        let dir = into.join(format!("dir-{dir:03}"));
        fs::create_dir(&dir)?;
        for file in 0..FILES {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let path = dir.join(format!("file-{file:03}"));
            let fd = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?;
            rustix::io::write(&fd, &content)?;
            rustix::fs::futimens(&fd, &times)?;
            rustix::fs::fchown(&fd, Some(rustix::fs::Uid::ROOT), Some(rustix::fs::Gid::ROOT))?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o644))?;
        }
    }
    Ok(())
}

fn make_unpacked(root: &Path) -> Result<(), Failure> {
    unpack(&root.join("removed"))
}

/// Does what `rm -r` does.
fn remove(root: &Path, name: &str) -> Result<(), Failure> {
    let root = open_dir(rustix::fs::CWD, root)?;
    remove_below(&open_dir(&root, name)?)?;
    Ok(rustix::fs::unlinkat(&root, name, AtFlags::REMOVEDIR)?)
}

fn open_dir(at: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

/// The names in a directory and whether each is one, read with the buffer that the C library uses.
fn list(dir: &OwnedFd) -> Result<Vec<(CString, bool)>, Failure> {
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type().is_dir()));
        }
    }
    Ok(names)
}

fn remove_below(dir: &OwnedFd) -> Result<(), Failure> {
    let names = list(dir)?;
    for (name, is_dir) in names {
        // Not every union tells types in listings.
        if !is_dir {
            match rustix::fs::unlinkat(dir, &*name, AtFlags::empty()) {
                Err(rustix::io::Errno::ISDIR) => {}
                answer => {
                    answer?;
                    continue;
                }
            }
        }
        remove_below(&open_dir(dir, &*name)?)?;
        rustix::fs::unlinkat(dir, &*name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

fn create_unlink(root: &Path) -> Result<(), Failure> {
    let dir = root.join("brief");
    fs::create_dir(&dir)?;
    for number in 0..BRIEF {
        let path = dir.join(format!("file-{number}"));
        drop(File::create(&path)?);
        fs::remove_file(&path)?;
    }
    Ok(())
}

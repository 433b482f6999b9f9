//! Random work in a tree, as a container might do it.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, fallocate, makedev, mknodat};

/// A small generator (xorshift), so that a failure can be repeated by its seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed))
    }

    /// A number below a limit.
    ///
    /// # Panics
    /// When the limit is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// A path of up to three components out of few names, so that operations meet.
    fn path(&mut self, base: &Path) -> PathBuf {
        let names = ["a", "b", "c", "d.e", "f", "g"];
        let depth = 1 + self.below(3);
        (0..depth).fold(base.to_owned(), |path, _| path.join(names[self.below(names.len())]))
    }
}

/// Does one random thing; most fail by their nature (no such file), which is as good as nothing. What
/// was done goes to the log.
///
/// # Panics
/// When a path is not below `base`.
pub fn step(random: &mut Random, base: &Path, log: &mut Vec<String>) {
    let (one, two) = (random.path(base), random.path(base));
    let which = random.below(22);
    let done = match which {
        0 | 1 => fs::write(&one, vec![b'x'; [1, 3000, 100_000][random.below(3)]]),
        2 | 3 => fs::create_dir(&one),
        4 => fs::remove_file(&one),
        5 => fs::remove_dir_all(&one),
        6..=8 => fs::rename(&one, &two),
        9 => fs::hard_link(&one, &two),
        10 => symlink(["x", "y"][random.below(2)], &one),
        11 => {
            fs::set_permissions(&one, fs::Permissions::from_mode([0o700, 0o701][random.below(2)]))
        }
        12 => {
            let time = SystemTime::UNIX_EPOCH + Duration::new(random.below(2) as u64, 7);
            fs::File::open(&one).and_then(|file| file.set_modified(time))
        }
        13 => {
            let attr = ["user.x", "trusted.y"][random.below(2)];
            fs::File::open(&one).and_then(|file| {
                cow::xattr::set_at(file, "".as_ref(), attr.as_ref(), b"1").map_err(Into::into)
            })
        }
        // Changed and changed back, with the time that it had.
        14 => write_back(&one),
        // The same content and time in a new inode, which shares its extents.
        15 => copy_over(&one),
        16 => fs::File::options()
            .write(true)
            .open(&one)
            .and_then(|file| file.write_all_at(b"y", random.below(5000) as u64)),
        // Written over in place, with the time that it had.
        17 => write_over(&one),
        18 => allocate(&one, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
        19 => allocate(&one, [FallocateFlags::empty(), FallocateFlags::KEEP_SIZE][random.below(2)]),
        // Null: what reads and writes it does not wait.
        20 => {
            let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o600));
            mknodat(CWD, &one, kind, mode, makedev(1, 3)).map_err(Into::into)
        }
        _ => fs::read(&one).map(drop),
    };
    if done.is_ok() {
        let show = |path: &Path| path.strip_prefix(base).unwrap().display().to_string();
        log.push(format!("{which} {} {}", show(&one), show(&two)));
    }
}

fn write_back(path: &Path) -> std::io::Result<()> {
    let before = fs::metadata(path)?.modified()?;
    let content = fs::read(path)?;
    fs::write(path, "something else")?;
    fs::write(path, content)?;
    fs::File::open(path)?.set_modified(before)
}

fn copy_over(path: &Path) -> std::io::Result<()> {
    let meta = fs::metadata(path)?;
    let copy = path.with_file_name("copy");
    fs::copy(path, &copy)?;
    let file = fs::File::open(&copy)?;
    file.set_permissions(meta.permissions())?;
    file.set_modified(meta.modified()?)?;
    fs::rename(copy, path)
}

fn write_over(path: &Path) -> std::io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    let before = file.metadata()?.modified()?;
    file.write_all_at(b"z", 0)?;
    file.set_modified(before)
}

fn allocate(path: &Path, flags: FallocateFlags) -> std::io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    fallocate(file, flags, 4096, 8192).map_err(Into::into)
}

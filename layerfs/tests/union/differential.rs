//! The same operations on layerfs and on the kernel's overlay: the same answers, the same trees, and
//! upper directories that either mounts with the same result.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid, openat};
use rustix::io::Errno;

use crate::stage::{Stage, may_mount, run};
use crate::tree::{assert_same, see, see_strictly};

/// A small generator of numbers that a seed determines (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn path(&mut self) -> PathBuf {
        let depth = 1 + self.roll(3);
        (0..depth)
            .map(|_| ["a", "b", "c", "d", "e"][usize::try_from(self.roll(5)).expect("small")])
            .collect()
    }
}

#[derive(Debug)]
enum Op {
    /// A byte, where, and how often.
    Write(PathBuf, u64, u8, usize),
    Create(PathBuf, u32),
    Truncate(PathBuf, u64),
    Read(PathBuf),
    Unlink(PathBuf),
    Mkdir(PathBuf),
    Rmdir(PathBuf),
    Rename(PathBuf, PathBuf, RenameFlags),
    Link(PathBuf, PathBuf),
    Symlink(PathBuf),
    Chmod(PathBuf, u32),
    Chown(PathBuf, u32),
    SetAttr(PathBuf, Vec<u8>),
    RemoveAttr(PathBuf),
    List(PathBuf),
}

fn draw(dice: &mut Dice) -> Op {
    let path = dice.path();
    match dice.roll(22) {
        0..3 => {
            let byte = u8::try_from(dice.roll(256)).expect("a byte");
            let length = usize::try_from(dice.roll(9000)).expect("small");
            Op::Write(path, dice.roll(6000), byte, length)
        }
        3..5 => {
            Op::Create(path, [0o644, 0o600, 0o4755][usize::try_from(dice.roll(3)).expect("small")])
        }
        5 => Op::Truncate(path, dice.roll(9000)),
        6 => Op::Read(path),
        7..9 => Op::Unlink(path),
        9..11 => Op::Mkdir(path),
        11 => Op::Rmdir(path),
        12..16 => {
            let flags = [
                RenameFlags::empty(),
                RenameFlags::empty(),
                RenameFlags::NOREPLACE,
                RenameFlags::EXCHANGE,
            ];
            Op::Rename(path, dice.path(), flags[usize::try_from(dice.roll(4)).expect("small")])
        }
        16 => Op::Link(path, dice.path()),
        17 => Op::Symlink(path),
        18 => Op::Chmod(path, [0o700, 0o755, 0o640][usize::try_from(dice.roll(3)).expect("small")]),
        19 => Op::Chown(path, u32::try_from(dice.roll(3)).expect("small")),
        20 => match dice.roll(3) {
            0 => Op::RemoveAttr(path),
            _ => Op::SetAttr(path, dice.roll(1000).to_string().into_bytes()),
        },
        _ => Op::List(path),
    }
}

/// Carries an operation out below a root, and returns what it read.
fn apply(root: &OwnedFd, op: &Op) -> Result<Vec<u8>, Errno> {
    let nothing = |()| Vec::new();
    let plain = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match op {
        Op::Write(path, at, byte, length) => {
            let file = openat(root, path, plain | OFlags::WRONLY, Mode::empty())?;
            rustix::io::pwrite(&file, &vec![*byte; *length], *at)
                .map(|count| count.to_string().into_bytes())
        }
        Op::Create(path, mode) => {
            let flags = plain | OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
            openat(root, path, flags, Mode::from_raw_mode(*mode)).map(|_| Vec::new())
        }
        Op::Truncate(path, size) => {
            let flags = if *size == 0 { OFlags::TRUNC } else { OFlags::empty() };
            let file = openat(root, path, plain | OFlags::WRONLY | flags, Mode::empty())?;
            rustix::fs::ftruncate(&file, *size).map(nothing)
        }
        Op::Read(path) => {
            let file = openat(root, path, plain | OFlags::RDONLY, Mode::empty())?;
            let mut data = vec![0; 1 << 16];
            let count = rustix::io::pread(&file, &mut data, 0)?;
            data.truncate(count);
            Ok(data)
        }
        Op::Unlink(path) => rustix::fs::unlinkat(root, path, AtFlags::empty()).map(nothing),
        Op::Mkdir(path) => rustix::fs::mkdirat(root, path, Mode::from_raw_mode(0o755)).map(nothing),
        Op::Rmdir(path) => rustix::fs::unlinkat(root, path, AtFlags::REMOVEDIR).map(nothing),
        Op::Rename(from, to, flags) => {
            rustix::fs::renameat_with(root, from, root, to, *flags).map(nothing)
        }
        Op::Link(from, to) => {
            rustix::fs::linkat(root, from, root, to, AtFlags::empty()).map(nothing)
        }
        Op::Symlink(path) => rustix::fs::symlinkat("somewhere/else", root, path).map(nothing),
        Op::Chmod(path, mode) => {
            let mode = Mode::from_raw_mode(*mode);
            let kind = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW)?.st_mode;
            if rustix::fs::FileType::from_raw_mode(kind) == rustix::fs::FileType::Symlink {
                return Ok(Vec::new());
            }
            rustix::fs::chmodat(root, path, mode, AtFlags::empty()).map(nothing)
        }
        Op::Chown(path, id) => {
            let (uid, gid) = (Uid::from_raw(*id), Gid::from_raw(*id));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(root, path, Some(uid), Some(gid), flags).map(nothing)
        }
        Op::SetAttr(path, value) => {
            cow_sys::xattr::set(root, path.as_os_str(), OsStr::new("user.test"), value).map(nothing)
        }
        Op::RemoveAttr(path) => {
            cow_sys::xattr::remove(root, path.as_os_str(), OsStr::new("user.test")).map(nothing)
        }
        Op::List(path) => list(root, path),
    }
}

fn list(root: &OwnedFd, path: &Path) -> Result<Vec<u8>, Errno> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = openat(root, path, flags, Mode::empty())?;
    let entries = rustix::fs::Dir::new(dir)?;
    let mut names: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
        .collect::<Result<_, _>>()?;
    names.sort();
    Ok(names.join(&b'/'))
}

/// Lays out lower layers in which the same few names are files, directories and links, and copies
/// them, so that neither union can disturb the other.
fn lay_out(stage: &Stage, seed: u64) {
    let mut dice = Dice(seed);
    for layer in ["one", "two"] {
        let root = std::fs::File::open(stage.path(layer)).expect("a layer");
        let root = OwnedFd::from(root);
        for _ in 0..120 {
            let op = match draw(&mut dice) {
                Op::Rename(path, ..) | Op::Unlink(path) | Op::Rmdir(path) => Op::Mkdir(path),
                Op::Read(path) | Op::List(path) => Op::Create(path, 0o644),
                op => op,
            };
            let _ = apply(&root, &op);
        }
    }
    for layer in ["one", "two"] {
        let from = stage.path(layer).join(".").display().to_string();
        run("cp", &["-a", &from, &stage.path(&format!("k{layer}")).display().to_string()]);
    }
}

const KERNEL: &str = "redirect_dir=on,index=on,metacopy=";

fn differ(seed: u64, steps: u32, extra: &str) {
    let mut stage = Stage::new();
    lay_out(&stage, seed);
    let ours = stage.layers(&["one", "two"], "ours") + extra;
    let theirs = stage.layers(&["kone", "ktwo"], "theirs");
    let metacopy = if extra.contains("metacopy=on") { "on" } else { "off" };
    let theirs = format!("{theirs},{KERNEL}{metacopy}");
    let (mut left, mut right) = (stage.layerfs("m", &ours), stage.kernel("k", &theirs));
    assert_same(&format!("seed {seed}, at the start"), &see(&right), &see_strictly(&left));
    let mut dice = Dice(seed.wrapping_mul(77_777) | 1);
    let mut log = Vec::new();
    for step in 0..steps {
        let op = draw(&mut dice);
        let open = |path: &Path| OwnedFd::from(std::fs::File::open(path).expect("the root"));
        let answer = apply(&open(&left), &op);
        let expected = apply(&open(&right), &op);
        log.push(format!("{op:?} -> {:?}", expected.as_ref().map(Vec::len)));
        let last = &log[log.len().saturating_sub(12)..];
        assert_eq!(answer, expected, "seed {seed}, step {step}:\n{}", last.join("\n"));
        if step % 40 == 39 {
            let what = format!("seed {seed}, after step {step}:\n{}", last.join("\n"));
            assert_same(&what, &see(&right), &see_strictly(&left));
        }
        if step % 150 == 149 {
            stage.unmount(&left);
            stage.unmount(&right);
            left = stage.layerfs("m", &ours);
            right = stage.kernel("k", &theirs);
            assert_same(&format!("seed {seed}, mounted again"), &see(&right), &see_strictly(&left));
        }
    }
    let end = see(&right);
    assert_same(&format!("seed {seed}, at the end"), &end, &see_strictly(&left));
    stage.unmount(&left);
    stage.unmount(&right);
    cross(&mut stage, seed, &end);
}

/// Each union's upper directory in the other.
fn cross(
    stage: &mut Stage,
    seed: u64,
    end: &std::collections::BTreeMap<PathBuf, crate::tree::Seen>,
) {
    // Of any upper it can be asked to follow what layerfs or itself has left below.
    let ours = format!("{},{KERNEL}on", stage.layers(&["one", "two"], "ours"));
    let kernel = stage.kernel("k", &ours);
    assert_same(&format!("seed {seed}: our upper in the kernel"), end, &see(&kernel));
    stage.unmount(&kernel);
    let theirs = stage.layers(&["kone", "ktwo"], "theirs");
    let layerfs = stage.layerfs("m", &theirs);
    assert_same(&format!("seed {seed}: the kernel's upper in ours"), end, &see_strictly(&layerfs));
    stage.unmount(&layerfs);
}

#[test]
fn root_random_operations_answer_as_the_kernels_overlay() {
    if !may_mount() {
        return;
    }
    // More seeds than a run of the suite has time for: LAYERFS_SEEDS=100..200.
    let wanted = std::env::var("LAYERFS_SEEDS").ok();
    let range = wanted.as_deref().and_then(|text| text.split_once(".."));
    let seeds = match range {
        Some((from, to)) => (from.parse().expect("a seed")..to.parse().expect("a seed")).collect(),
        None => vec![3, 17, 126, 231, 2026],
    };
    for seed in seeds {
        differ(seed, 450, "");
    }
}

#[test]
fn root_random_operations_with_copies_of_metadata_answer_as_the_kernels_overlay() {
    if !may_mount() {
        return;
    }
    for (seed, more) in [(41, ",metacopy=on"), (77, ",metacopy=on,passthrough=0")] {
        differ(seed, 300, more);
    }
}

#[test]
fn root_random_operations_without_passthrough_answer_as_the_kernels_overlay() {
    if !may_mount() {
        return;
    }
    for seed in [5, 99] {
        differ(seed, 300, ",passthrough=0");
    }
}

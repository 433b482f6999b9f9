//! Changes to a tree, as tables: what a container does, one line a step.
//!
//! ```
//! use tests::ops::{apply, Op::*};
//! let dir = tests::root::TempRoot::new("doc");
//! apply(dir.path(), &[Dir("etc", 0o755), File("etc/passwd", "root"), Mtime("etc", 1, 500)]);
//! assert_eq!(std::fs::read_to_string(dir.join("etc/passwd")).unwrap(), "root");
//! ```

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs as unix;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// One step.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// Makes a directory with this mode; parents must exist.
    Dir(&'a str, u32),
    /// Makes a file of mode 0644 with this content, or gives an old one new content.
    File(&'a str, &'a str),
    /// Makes a file with one byte at this offset and a hole before it.
    Sparse(&'a str, u64),
    /// Adds to the end of a file.
    Append(&'a str, &'a str),
    /// Writes over some bytes of a file, without changing its length.
    Write(&'a str, u64, &'a str),
    /// Cuts or lengthens a file.
    Truncate(&'a str, u64),
    /// Makes a symbolic link of this name with this text.
    Symlink(&'a str, &'a str),
    /// Gives an old file a new name as well: new, old.
    Link(&'a str, &'a str),
    /// Makes a pipe.
    Fifo(&'a str),
    /// Makes a character device.
    Char(&'a str, u32, u32),
    /// Makes a block device.
    Block(&'a str, u32, u32),
    /// Makes a unix socket.
    Socket(&'a str),
    /// Changes the mode.
    Chmod(&'a str, u32),
    /// Changes owner and group, of a link itself.
    Chown(&'a str, u32, u32),
    /// Sets an extended attribute.
    Xattr(&'a str, &'a str, &'a [u8]),
    /// Removes an extended attribute.
    NoXattr(&'a str, &'a str),
    /// Sets the modification time to seconds and nanoseconds.
    Mtime(&'a str, i64, i64),
    /// Removes a file, or a directory with all in it.
    Remove(&'a str),
    /// Renames: old, new.
    Rename(&'a str, &'a str),
    /// Opens for writing and closes again.
    Touch(&'a str),
}

/// Does the steps in order below `root`.
///
/// # Panics
/// With the step that fails.
pub fn apply(root: &Path, ops: &[Op<'_>]) {
    for op in ops {
        if let Err(error) = step(root, op) {
            panic!("{op:?} in {}: {error}", root.display());
        }
    }
}

/// Does one step.
///
/// # Errors
/// What the system says.
pub fn step(root: &Path, op: &Op<'_>) -> std::io::Result<()> {
    let at = |path: &str| root.join(path);
    match *op {
        Op::Dir(path, mode) => {
            fs::create_dir(at(path))?;
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode))?;
        }
        Op::File(path, content) => {
            let new = !at(path).exists();
            fs::write(at(path), content)?;
            if new {
                fs::set_permissions(at(path), fs::Permissions::from_mode(0o644))?;
            }
        }
        Op::Sparse(path, offset) => fs::File::create(at(path))?.write_all_at(b"x", offset)?,
        Op::Append(path, text) => {
            fs::OpenOptions::new().append(true).open(at(path))?.write_all(text.as_bytes())?;
        }
        Op::Write(path, offset, text) => {
            let file = fs::OpenOptions::new().write(true).open(at(path))?;
            file.write_all_at(text.as_bytes(), offset)?;
        }
        Op::Truncate(path, length) => {
            fs::OpenOptions::new().write(true).open(at(path))?.set_len(length)?;
        }
        Op::Symlink(path, text) => unix::symlink(text, at(path))?,
        Op::Link(new, old) => fs::hard_link(at(old), at(new))?,
        Op::Fifo(path) => node(&at(path), FileType::Fifo, 0)?,
        Op::Char(path, major, minor) => {
            node(&at(path), FileType::CharacterDevice, rustix::fs::makedev(major, minor))?;
        }
        Op::Block(path, major, minor) => {
            node(&at(path), FileType::BlockDevice, rustix::fs::makedev(major, minor))?;
        }
        Op::Socket(path) => node(&at(path), FileType::Socket, 0)?,
        Op::Chmod(path, mode) => {
            fs::set_permissions(at(path), fs::Permissions::from_mode(mode))?;
        }
        Op::Chown(path, uid, gid) => unix::lchown(at(path), Some(uid), Some(gid))?,
        Op::Xattr(path, name, value) => {
            rustix::fs::lsetxattr(at(path), OsStr::new(name), value, XattrFlags::empty())?;
        }
        Op::NoXattr(path, name) => rustix::fs::lremovexattr(at(path), OsStr::new(name))?,
        Op::Mtime(path, secs, nanos) => set_mtime(&at(path), secs, nanos)?,
        Op::Remove(path) => {
            if fs::symlink_metadata(at(path))?.is_dir() {
                fs::remove_dir_all(at(path))?;
            } else {
                fs::remove_file(at(path))?;
            }
        }
        Op::Rename(old, new) => fs::rename(at(old), at(new))?,
        Op::Touch(path) => drop(fs::OpenOptions::new().append(true).open(at(path))?),
    }
    Ok(())
}

fn node(path: &Path, kind: FileType, device: u64) -> std::io::Result<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), device)?;
    Ok(())
}

fn set_mtime(path: &Path, secs: i64, nanos: i64) -> std::io::Result<()> {
    let time = Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

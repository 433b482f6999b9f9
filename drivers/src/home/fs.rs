//! The few file operations that a home is made of, all below a held directory.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use cow::error::{Error, Result};
use rustix::fs::{AtFlags, IFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How a directory of the home is opened: never through a symbolic link.
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens a directory below `dir`, by a path that may not leave it nor follow a symbolic link.
pub(crate) fn open_dir(dir: impl AsFd, path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(dir, path, DIR, Mode::empty(), resolve)
        .map_err(|errno| Error::sys("open", path, errno))
}

/// Makes a directory with exactly this mode, whatever the umask; one that exists is an error.
pub(crate) fn make_dir(dir: impl AsFd, name: impl AsRef<Path>, mode: u32) -> Result<OwnedFd> {
    let (dir, name) = (dir.as_fd(), name.as_ref());
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::mkdirat(dir, name, mode).map_err(|errno| Error::sys("mkdir", name, errno))?;
    let made = open_dir(dir, name)?;
    rustix::fs::fchmod(&made, mode).map_err(|errno| Error::sys("chmod", name, errno))?;
    Ok(made)
}

/// Opens a directory of the home, and makes it first if it is not there.
pub(crate) fn ensure_dir(dir: impl AsFd, name: &str, mode: u32) -> Result<OwnedFd> {
    let dir = dir.as_fd();
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => open_dir(dir, name),
        Err(errno) => Err(Error::sys("mkdir", name, errno)),
    }
}

/// Tells the file system that the trees in a directory have nothing to do with one another.
///
/// ext2 to ext4 then place each in a block group of its own (chattr(1), `T`), so that layers which are
/// applied at once do not contend for one group's bitmaps, and a new layer does not search its inodes
/// among those of layers that were just removed. Other file systems have no such flag.
pub(crate) fn spread_children(dir: impl AsFd) {
    let dir = dir.as_fd();
    let outcome = rustix::fs::ioctl_getflags(dir)
        .and_then(|flags| rustix::fs::ioctl_setflags(dir, flags | IFlags::TOPDIR));
    if let Err(errno) = outcome {
        tracing::debug!(%errno, "the file system does not spread directories");
    }
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_file(dir: impl AsFd, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let bytes = read_start(dir, path, limit + 1)?;
    if bytes.len() as u64 > limit {
        return Err(Error::corrupt("read", path, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads a file as far as `most` bytes.
pub(crate) fn read_start(dir: impl AsFd, path: impl AsRef<Path>, most: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)
        .map_err(|errno| Error::sys("open", path, errno))?;
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::sys("read", path, source))?;
    Ok(bytes)
}

/// Whether a written file must survive a power cut at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The caller syncs, or nobody need.
    Later,
    /// The file's bytes are on the disk when the call returns.
    Now,
}

/// Writes a new file, or over an old one.
pub(crate) fn write_file(
    dir: impl AsFd,
    name: &str,
    bytes: &[u8],
    durability: Durability,
) -> Result<()> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| Error::sys("create", name, errno))?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes).map_err(|source| Error::sys("write", name, source))?;
    match durability {
        Durability::Later => Ok(()),
        Durability::Now => file.sync_all().map_err(|source| Error::sys("fsync", name, source)),
    }
}

/// Renames within or between held directories, over what is there.
pub(crate) fn rename(
    from: impl AsFd,
    old: impl AsRef<Path>,
    to: impl AsFd,
    new: impl AsRef<Path>,
) -> Result<()> {
    rustix::fs::renameat(from, old.as_ref(), to, new.as_ref())
        .map_err(|errno| Error::sys("rename", old, errno))
}

/// Puts a file in place of another so that a power cut leaves either: temporary name, fsync, rename,
/// fsync of the directory.
pub(crate) fn replace_file(dir: impl AsFd, name: &str, bytes: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    let temporary = format!("{name}.new");
    write_file(dir, &temporary, bytes, Durability::Now)?;
    rename(dir, &temporary, dir, name)?;
    sync_dir(dir)
}

/// Makes the names of a directory durable.
pub(crate) fn sync_dir(dir: impl AsFd) -> Result<()> {
    rustix::fs::fsync(dir).map_err(|errno| Error::sys("fsync", "", errno))
}

/// The names in a directory.
pub(crate) fn names(dir: impl AsFd) -> Result<Vec<std::ffi::OsString>> {
    use std::os::unix::ffi::OsStrExt as _;
    let failed = |errno| Error::sys("read directory", "", errno);
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Whether something of this name is there, a dangling link included.
pub(crate) fn exists(dir: impl AsFd, name: impl AsRef<Path>) -> Result<bool> {
    match rustix::fs::statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::sys("stat", name, errno)),
    }
}

/// The depth at which [`remove_tree`] stops to descend and moves a directory to the top, so that
/// neither file descriptors nor stack grow with a hostile tree.
const MAX_DEPTH: usize = 64;

/// Removes `dir/name` with all below it. What is already gone is no error.
///
/// A directory deeper than [`MAX_DEPTH`] is moved to `dir` under a fresh name and removed from
/// there, so `dir` must be a place where names do not matter (a trash). Mount points are not
/// entered: they fail with `InUse`.
pub(crate) fn remove_tree(dir: impl AsFd, name: impl AsRef<Path>) -> Result<()> {
    let top = dir.as_fd();
    let mut work = vec![name.as_ref().to_owned()];
    let mut serial = 0_u64;
    while let Some(name) = work.pop() {
        match rustix::fs::unlinkat(top, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(Error::sys("unlink", name, errno)),
        }
        let prefix = name.to_string_lossy().into_owned();
        let mut lift = |parent: BorrowedFd<'_>, child: &Path| {
            serial += 1;
            let lifted = std::path::PathBuf::from(format!("{prefix}.{serial}"));
            rename(parent, child, top, &lifted)?;
            work.push(lifted);
            Ok(())
        };
        remove_dir(top, &name, 0, &mut lift)?;
    }
    Ok(())
}

/// Empties and removes one directory, handing those that lie too deep to `lift`.
fn remove_dir(
    parent: BorrowedFd<'_>,
    name: &Path,
    depth: usize,
    lift: &mut dyn FnMut(BorrowedFd<'_>, &Path) -> Result<()>,
) -> Result<()> {
    if depth == MAX_DEPTH {
        return lift(parent, name);
    }
    // An empty directory, by far the most frequent, costs one call.
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(errno) => return Err(Error::sys("rmdir", name, errno)),
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let dir = match rustix::fs::openat2(parent, name, DIR, Mode::empty(), resolve) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Error::sys("open", name, errno)),
    };
    for child in names(&dir)? {
        let child = Path::new(&child);
        match rustix::fs::unlinkat(&dir, child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => remove_dir(dir.as_fd(), child, depth + 1, lift)?,
            Err(errno) => return Err(Error::sys("unlink", child, errno)),
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::sys("rmdir", name, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = rustix::fs::open(dir.path(), DIR, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn a_tree_deeper_than_the_path_limit_is_removed() {
        let (dir, top) = scratch();
        let mut at = make_dir(&top, "deep", 0o755).unwrap();
        for _ in 0..3000 {
            at = make_dir(&at, "d", 0o755).unwrap();
        }
        write_file(&at, "leaf", b"x", Durability::Later).unwrap();
        remove_tree(&top, "deep").unwrap();
        assert_eq!(names(&top).unwrap().len(), 0, "left in {:?}", dir.path());
    }

    #[test]
    fn removing_follows_no_link_and_minds_no_absence() {
        let (dir, top) = scratch();
        std::fs::create_dir(dir.path().join("kept")).unwrap();
        std::fs::write(dir.path().join("kept/file"), "x").unwrap();
        make_dir(&top, "gone", 0o700).unwrap();
        std::os::unix::fs::symlink("../kept", dir.path().join("gone/link")).unwrap();
        std::os::unix::fs::symlink("kept", dir.path().join("link")).unwrap();
        for name in ["gone", "link", "never-there"] {
            remove_tree(&top, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(dir.path().join("kept/file").exists(), "a link was followed");
        assert!(!exists(&top, "gone").unwrap() && !exists(&top, "link").unwrap());
    }

    #[test]
    fn mode_is_exact_and_paths_stay_below() {
        let (dir, top) = scratch();
        let made = make_dir(&top, "d", 0o1777).unwrap();
        assert_eq!(rustix::fs::fstat(made).unwrap().st_mode & 0o7777, 0o1777);
        std::os::unix::fs::symlink("d", dir.path().join("link")).unwrap();
        for path in ["link", "..", "/", "d/../.."] {
            assert!(open_dir(&top, path).is_err(), "{path} was opened");
        }
    }

    #[test]
    fn a_file_longer_than_the_limit_is_corrupt() {
        let (_dir, top) = scratch();
        replace_file(&top, "f", b"12345").unwrap();
        assert_eq!(read_file(&top, "f", 5).unwrap(), b"12345");
        assert_eq!(read_file(&top, "f", 4).unwrap_err().kind(), cow::ErrorKind::Corrupt);
    }
}

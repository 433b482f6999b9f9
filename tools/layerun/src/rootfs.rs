//! The container's root file system, mounted where nobody else sees it.
//!
//! The runtime leaves the host's mount namespace first; what it mounts then is gone with its last
//! process, however that ends. Mounts and unmounts of the host still come in (the tree is a slave),
//! so that a container never keeps a host's file system busy.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cow_sys::resolve::openat2;
use layerd_api::types::Mount;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::error::{Error, Result};
use crate::spec::Volume;

/// How long a mount waits for the end of the last one of the same layer, or of a snapshot of it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How names of the container are resolved: never out of its root.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Leaves the host's mount namespace and, with `network`, its network. The process must have one
/// thread only.
///
/// # Errors
///
/// [`Error::System`], above all without `CAP_SYS_ADMIN`.
pub fn leave_host(network: bool) -> Result<()> {
    let mut flags = CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWNET, network);
    unshare(flags).map_err(Error::system("leave the host's mount and network namespaces"))?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(Error::io("make mounts private below", "/"))
}

/// Directories that every container has something mounted on.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "sys"];

/// The mounted root file system.
#[derive(Debug)]
pub struct Rootfs {
    path: PathBuf,
    root: OwnedFd,
    mounts: usize,
    /// Mount points that the image lacks. The runtime makes them; they are taken away again, so
    /// that the container's changes are its own only.
    lent: Vec<&'static str>,
}

impl Rootfs {
    /// Mounts a snapshot as its driver described it, in order, on `target`.
    ///
    /// With `disposable`, an overlay is mounted without syncing (`volatile`): unmounting it
    /// otherwise waits for everything dirty on the file system below it, to save changes that are
    /// about to be deleted.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`] with what the kernel said; what was mounted before is unmounted.
    pub fn mount(mounts: &[Mount], target: &Path, disposable: bool) -> Result<Self> {
        let root = open_dir(target)?;
        let mut rootfs = Self { path: target.to_owned(), root, mounts: 0, lent: Vec::new() };
        for mount in mounts {
            let mut options = mount.options.clone();
            if disposable && mount.fstype == "overlay" && has_upper(&options) {
                options.push("volatile".to_owned());
            }
            let source = Path::new(&mount.source);
            let (fstype, on) = (&mount.fstype, rootfs.root.as_fd());
            cow_sys::mount::mount_patiently_at(fstype, source, &options, on, PATIENCE).map_err(
                |error| Error::Mount {
                    fstype: mount.fstype.clone(),
                    origin: mount.source.clone(),
                    target: target.to_owned(),
                    reason: error.to_string(),
                },
            )?;
            rootfs.mounts += 1;
            // The fd from before shows what is below the mount.
            rootfs.root = open_dir(target)?;
        }
        if !disposable {
            let missing = |name: &&str| open(&rootfs.root, Path::new(name), OFlags::PATH).is_err();
            rootfs.lent = MOUNT_POINTS.into_iter().filter(missing).collect();
        }
        Ok(rootfs)
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a missing working directory, as docker does. One that will be in a volume is made
    /// there: what is below a mount point in the root file system will not be seen.
    ///
    /// # Errors
    ///
    /// As [`make_dir`].
    pub fn make_working_dir(&self, path: &Path, volumes: &[Volume]) -> Result<()> {
        let inside = |volume: &&Volume| path.starts_with(&volume.destination);
        let depth = |volume: &&Volume| volume.destination.components().count();
        match volumes.iter().filter(inside).max_by_key(depth) {
            None => make_dir(&self.root, path),
            Some(volume) if volume.read_only || !volume.source.is_dir() => Ok(()),
            Some(volume) => {
                let below = path.strip_prefix(&volume.destination).unwrap_or(Path::new(""));
                make_dir(open_dir(&volume.source)?, below)
            }
        }
    }

    /// Whether a name leads to a regular file in the container.
    pub fn has_file(&self, path: &Path) -> bool {
        let file = open(&self.root, path, OFlags::PATH).and_then(fstat);
        file.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    /// Takes the mounts away again.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`]; the rest is still unmounted.
    pub fn unmount(mut self) -> Result<()> {
        self.unmount_all()
    }

    fn unmount_all(&mut self) -> Result<()> {
        let mut answer = Ok(());
        for name in self.lent.drain(..) {
            // Only ever an empty directory.
            let _ = unlinkat(&self.root, name, AtFlags::REMOVEDIR);
        }
        while self.mounts > 0 {
            self.mounts -= 1;
            if let Err(error) = cow_sys::mount::unmount(&self.path, true) {
                answer = Err(Error::Mount {
                    fstype: "root file system".to_owned(),
                    origin: String::new(),
                    target: self.path.clone(),
                    reason: error.to_string(),
                });
            }
        }
        answer
    }
}

impl AsFd for Rootfs {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        let _ = self.unmount_all();
    }
}

/// Makes a directory and those above it, all resolved inside `root`. What exists is left alone.
///
/// # Errors
///
/// [`Error::Io`], with `NOTDIR` if something else is in the way.
pub fn make_dir(root: impl AsFd, path: &Path) -> Result<()> {
    let failed = |errno: Errno| Error::io("make the container's directory", path)(errno);
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    // Most are there, and a look may be free where a write is refused.
    let whole = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    if open(&root, whole, flags).is_ok() {
        return Ok(());
    }
    let mut name = PathBuf::from(".");
    for component in path.components() {
        let component = match component {
            Component::Normal(component) => component,
            Component::ParentDir => {
                name.push("..");
                continue;
            }
            _ => continue,
        };
        let parent = open(&root, &name, flags).map_err(failed)?;
        match mkdirat(&parent, component, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        name.push(component);
    }
    open(&root, &name, flags).map(drop).map_err(failed)
}

/// Opens a name inside `root`.
fn open(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT)
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(Error::io("open", path))
}

fn has_upper(options: &[String]) -> bool {
    options.iter().any(|option| option.starts_with("upperdir="))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root that nothing is mounted on: names are resolved the same.
    fn bare() -> (tempfile::TempDir, Rootfs) {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("root");
        std::fs::create_dir(&root).expect("a root");
        let rootfs = Rootfs::mount(&[], &root, false).expect("no mounts");
        (dir, rootfs)
    }

    #[test]
    fn working_directories_are_made_inside_the_root() {
        let (dir, rootfs) = bare();
        std::os::unix::fs::symlink("/inner", rootfs.path().join("link")).expect("a link");
        std::os::unix::fs::symlink("../../..", rootfs.path().join("up")).expect("a link");
        std::fs::create_dir(rootfs.path().join("inner")).expect("a directory");
        for (path, made) in [
            ("/a/b/c", "a/b/c"),
            ("/", "."),
            ("/link/d", "inner/d"),
            ("/up/e", "e"),
            ("/../../f", "f"),
        ] {
            make_dir(&rootfs, Path::new(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(rootfs.path().join(made).is_dir(), "{path} makes {made}");
        }
        let outside: Vec<_> = std::fs::read_dir(dir.path()).expect("a list").collect();
        assert_eq!(outside.len(), 1, "nothing is made beside the root");
    }

    #[test]
    fn working_directories_in_volumes_are_made_there() {
        let (dir, rootfs) = bare();
        let (source, deeper) = (dir.path().join("v"), dir.path().join("w"));
        std::fs::create_dir(&source).expect("a source");
        std::fs::create_dir(&deeper).expect("a source");
        std::os::unix::fs::symlink(dir.path(), source.join("out")).expect("a link out of it");
        let volume = |source: &Path, destination: &str, read_only| Volume {
            source: source.to_owned(),
            destination: destination.into(),
            read_only,
        };
        let volumes = [
            volume(&source, "/data", false),
            volume(&deeper, "/data/w", false),
            volume(&source, "/ro", true),
        ];
        for path in ["/data/a/b", "/data", "/data/w/c", "/ro/d", "/other", "/data/out/e"] {
            let made = rootfs.make_working_dir(Path::new(path), &volumes);
            assert_eq!(made.is_ok(), path != "/data/out/e", "{path}: {made:?}");
        }
        assert!(source.join("a/b").is_dir(), "in the volume");
        assert!(deeper.join("c").is_dir(), "in the deepest of them");
        assert!(!source.join("d").exists(), "not in a read-only one");
        assert!(rootfs.path().join("other").is_dir(), "in the root file system");
        assert!(!rootfs.path().join("data").exists(), "which has nothing of the volumes'");
        assert!(!dir.path().join("e").exists(), "and nothing outside");
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let (_dir, rootfs) = bare();
        std::fs::write(rootfs.path().join("file"), b"").expect("a file");
        for path in ["/file", "/file/x"] {
            let error = make_dir(&rootfs, Path::new(path)).expect_err("a file is in the way");
            assert!(error.to_string().contains(path), "{error} names {path}");
        }
    }

    #[test]
    fn only_regular_files_inside_the_root_are_there() {
        let (dir, rootfs) = bare();
        std::fs::write(dir.path().join("secret"), b"").expect("a file outside");
        std::fs::write(rootfs.path().join("file"), b"").expect("a file");
        for (link, to) in [("in", "/file"), ("out", "../secret"), ("dangling", "nowhere")] {
            std::os::unix::fs::symlink(to, rootfs.path().join(link)).expect("a link");
        }
        for (path, there) in [
            ("/file", true),
            ("/in", true),
            ("/out", false),
            ("/dangling", false),
            ("/", false),
            ("/missing", false),
        ] {
            assert_eq!(rootfs.has_file(Path::new(path)), there, "{path}");
        }
    }
}

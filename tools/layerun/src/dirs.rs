//! The runtime directory of a container, and what a killed run left in it.
//!
//! ```text
//! /run/layerd/containers/<id>/     0700, LAYERD_RUNTIME_DIR in place of /run/layerd/containers
//!     lock                         flock(2)ed by the runtime for as long as it lives
//!     stage/                       a tmpfs in the runtime's own mount namespace:
//!         config.json              the OCI runtime description
//!         rootfs/                  mount point of the root file system
//!         cgroup/<n>               mount points of the control groups that the container sees
//!         hostname hosts resolv.conf   what the container finds in its /etc
//!         console.sock             over which the terminal's master end comes
//!         state/<id>/              libcontainer's own state
//! ```
//!
//! The lock, not a pid, says whether a runtime lives: the kernel drops it with the process. All
//! that a run makes is on the stage, which goes with the runtime's mount namespace, however that
//! ends, and is taken down by one call instead of a dozen on a disk. A killed run leaves the lock
//! file and an empty directory, which the next run of the same id, or [`sweep`], removes.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::error::{Error, Result};

/// Where runtime directories are unless `LAYERD_RUNTIME_DIR` says otherwise.
pub const DEFAULT_BASE: &str = "/run/layerd/containers";
/// The environment variable that moves them.
pub const BASE_VARIABLE: &str = "LAYERD_RUNTIME_DIR";
/// The lock file's name.
const LOCK: &str = "lock";
/// The name of the stage's mount point.
const STAGE: &str = "stage";
/// Tries to lock a directory that another runtime may be removing.
const LOCK_TRIES: usize = 16;

/// The directory that holds all runtime directories.
pub fn base() -> PathBuf {
    match std::env::var_os(BASE_VARIABLE) {
        Some(path) if !path.is_empty() => path.into(),
        _ => DEFAULT_BASE.into(),
    }
}

/// A locked runtime directory; removed, with its stage, when dropped.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    stage: PathBuf,
    mounted: bool,
    _lock: File,
}

impl RuntimeDir {
    /// Makes and locks the directory of container `id` below `base`, in place of leftovers of a
    /// killed run.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] if a living runtime holds it, [`Error::Invalid`] for an id that cannot be
    /// a file name.
    pub fn create(base: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = base.join(id);
        make_dir(base, true)?;
        for _ in 0..LOCK_TRIES {
            make_dir(&path, false)?;
            let Some(lock) = lock(&path, id)? else { continue };
            let stage = path.join(STAGE);
            make_dir(&stage, false)?;
            return Ok(Self { path, stage, mounted: false, _lock: lock });
        }
        Err(Error::Running { id: id.to_owned() })
    }

    /// Mounts the stage; this process must have left the host's mount namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn set_stage(&mut self) -> Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("layerun", &self.stage, "tmpfs", flags, c"mode=700,size=1m")
            .map_err(Error::io("mount a tmpfs on", &self.stage))?;
        self.mounted = true;
        Ok(())
    }

    /// The stage.
    pub fn stage(&self) -> &Path {
        &self.stage
    }

    /// A path on the stage.
    pub fn join(&self, name: &str) -> PathBuf {
        self.stage.join(name)
    }

    /// Makes a directory on the stage and returns its path.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        make_dir(&path, true)?;
        Ok(path)
    }

    /// Writes a file on the stage, for all to read who see it, and returns its path.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.join(name);
        let write = || {
            fs::write(&path, content)?;
            // Whatever the umask is.
            fs::set_permissions(&path, Permissions::from_mode(0o644))
        };
        write().map_err(Error::io("write", &path))?;
        Ok(path)
    }
}

impl Drop for RuntimeDir {
    /// Removes the directory while the lock is held: who waits for the lock then finds it gone.
    ///
    /// Nothing is removed recursively: should the stage stay mounted, it is busy, and nothing of
    /// what the container has mounted there can be deleted.
    fn drop(&mut self) {
        if self.mounted {
            let _ = unmount(&self.stage, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
        if fs::remove_dir(&self.stage).is_ok() {
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Takes the lock in `path`; none if the directory was removed meanwhile.
fn lock(path: &Path, id: &str) -> Result<Option<File>> {
    let name = path.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name);
    let file = match file {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::io("open", name)(source)),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(Error::Running { id: id.to_owned() }),
        Err(errno) => return Err(Error::io("lock", name)(errno)),
    }
    let ours = rustix::fs::fstat(&file).map_err(Error::io("look at", &name))?;
    match rustix::fs::stat(&name) {
        Ok(there) if there.st_ino == ours.st_ino && there.st_dev == ours.st_dev => Ok(Some(file)),
        _ => Ok(None),
    }
}

fn make_dir(path: &Path, parents: bool) -> Result<()> {
    match DirBuilder::new().mode(0o700).recursive(parents).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(Error::io("make directory", path)),
    }
}

/// An id becomes a directory's and a control group's name, so it must be one plain component.
fn check_id(id: &str) -> Result<()> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.bytes().all(fine) {
        return Err(Error::invalid("id", id, "must be letters, digits, '_', '-' and '.'"));
    }
    Ok(())
}

/// Takes over every runtime directory below `base` that no living runtime holds, and returns them:
/// dropping them removes them. Directories that are in use are passed over.
///
/// # Errors
///
/// [`Error::Io`] if `base` cannot be listed.
pub fn sweep(base: &Path) -> Result<Vec<(String, RuntimeDir)>> {
    let entries = match fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::io("list", base)(source)),
    };
    let mut dead = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", base))?;
        let Some(id) = entry.file_name().to_str().map(str::to_owned) else { continue };
        match RuntimeDir::create(base, &id) {
            Ok(dir) => dead.push((id, dir)),
            Err(Error::Running { .. } | Error::Invalid { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_exclusive_and_removed_at_the_end() {
        let base = tempfile::tempdir().expect("a directory");
        let dir = RuntimeDir::create(base.path(), "c1").expect("the first");
        let error = RuntimeDir::create(base.path(), "c1").expect_err("the second");
        assert!(matches!(error, Error::Running { .. }), "held: {error}");
        drop(dir);
        assert!(!base.path().join("c1").exists(), "the directory is gone");
        RuntimeDir::create(base.path(), "c1").expect("free again");
    }

    #[test]
    fn leftovers_of_a_killed_run_are_replaced_or_swept() {
        let base = tempfile::tempdir().expect("a directory");
        for id in ["c1", "c2"] {
            fs::create_dir_all(base.path().join(id).join(STAGE)).expect("leftovers");
            fs::write(base.path().join(id).join("lock"), b"").expect("a stale lock");
        }
        let held = RuntimeDir::create(base.path(), "c1").expect("takes the leftovers over");
        let swept = sweep(base.path()).expect("a sweep");
        let ids: Vec<_> = swept.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["c2"], "only the dead one is swept");
        drop(swept);
        assert!(!base.path().join("c2").exists(), "and is gone");
        assert!(held.stage().exists(), "the living one stays");
    }

    #[test]
    fn what_is_on_a_stage_is_never_deleted() {
        let base = tempfile::tempdir().expect("a directory");
        let dir = RuntimeDir::create(base.path(), "c1").expect("a directory");
        let precious = dir.write("precious", b"data").expect("a file");
        drop(dir);
        assert!(precious.exists(), "a stage that is not empty stays");
    }

    #[test]
    fn ids_are_plain_names() {
        let base = tempfile::tempdir().expect("a directory");
        for id in ["", ".", "..", ".x", "a/b", "a\0b", "a b", &"x".repeat(129)] {
            let error = RuntimeDir::create(base.path(), id).expect_err("not a plain name");
            assert!(matches!(error, Error::Invalid { .. }), "{id:?}: {error}");
        }
    }
}

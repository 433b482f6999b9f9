//! The work directory: where files are made before they get their names.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{RealDir, lock, whiteout};

/// Where unfinished things are, on the upper layer's file system.
#[derive(Debug)]
pub struct Work {
    /// The directory `work` below the one that the option names, as the kernel lays it out.
    pub dir: OwnedFd,
    /// The directory `index`, which keeps one link to each copied-up lower hard link.
    pub index: Option<Arc<RealDir>>,
    next: AtomicU64,
    pub(super) whiteouts: Mutex<whiteout::Source>,
    /// The inode of which new whiteouts are links; 0 when there is none.
    pub(super) whiteout_ino: AtomicU64,
    /// A file for the next copy.
    spare: Mutex<Option<Fresh>>,
}

/// An empty file under a temporary name.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) name: OsString,
    pub(super) file: OwnedFd,
}

impl Work {
    /// A work directory that is open and empty.
    pub(super) fn new(dir: OwnedFd, index: Option<Arc<RealDir>>) -> Self {
        let whiteouts = Mutex::new(whiteout::Source::probe(&dir));
        let whiteout_ino = AtomicU64::new(whiteout::shared_inode(&dir));
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let next = AtomicU64::new(u64::try_from(since.as_nanos()).unwrap_or_default());
        let spare = Mutex::default();
        Self { dir, index, next, whiteouts, whiteout_ino, spare }
    }

    /// A name in the work directory that nobody else uses: neither does the server of an earlier mount, which may still
    /// be removing what it had there, for numbers begin with the time.
    pub fn name(&self) -> String {
        format!("#{:x}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// An empty file; one that was kept may have another mode.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn fresh(&self, mode: Mode) -> Result<Fresh, Errno> {
        match lock(&self.spare).take() {
            Some(fresh) => Ok(fresh),
            None => self.make(mode),
        }
    }

    fn make(&self, mode: Mode) -> Result<Fresh, Errno> {
        let name = OsString::from(self.name());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, &name, flags, mode)?;
        Ok(Fresh { name, file })
    }

    /// Makes a file for the next copy, whose mode is likely to be this one's.
    pub(super) fn keep_spare(&self, mode: Mode) {
        let mut spare = lock(&self.spare);
        if spare.is_none() {
            *spare = self.make(mode).ok();
        }
    }

    /// Removes what was made ahead.
    pub(super) fn drop_spare(&self) {
        if let Some(Fresh { name, .. }) = lock(&self.spare).take() {
            let _ = rustix::fs::unlinkat(&self.dir, &name, AtFlags::empty());
        }
    }
}

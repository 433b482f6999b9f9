//! A device to which nobody writes, read here and there.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use cow::error::{Error, ErrorKind, Result};
use rustix::fs::Advice;

/// A device, and whose tables are read from it.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    path: PathBuf,
    op: &'static str,
}

impl Disk {
    /// Opens a device; errors name the operation `op`.
    pub(super) fn open(path: PathBuf, op: &'static str) -> Result<Self> {
        let file = File::open(&path).map_err(|error| Error::sys("open", &path, error))?;
        let disk = Self { file, path, op };
        // Only what is asked for: tables are looked at here and there.
        disk.advise(Advice::Random)?;
        Ok(disk)
    }

    /// Has what is in memory of the device read again: it may be older than what a file system has written
    /// that does not write by way of it.
    pub(super) fn forget(&self) -> Result<()> {
        self.advise(Advice::DontNeed)
    }

    fn advise(&self, advice: Advice) -> Result<()> {
        rustix::fs::fadvise(self.file.as_fd(), 0, None, advice)
            .map_err(|errno| Error::sys("fadvise", &self.path, errno))
    }

    /// Reads bytes from a place on.
    pub(super) fn read(&self, into: &mut [u8], at: u64) -> Result<()> {
        let read = self.file.read_exact_at(into, at);
        read.map_err(|error| Error::sys("pread", &self.path, error))
    }

    /// What is not wholly understood, with the reason.
    pub(super) fn refused(&self, reason: impl Into<String>) -> Error {
        Error::refused(self.op, &self.path, reason.into(), ErrorKind::Unsupported)
    }
}

//! Reading a pool's metadata while the pool is in use: from a snapshot, of which there is one at most.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use cow::error::{Error, ErrorKind, Result};

use super::dm::ThinId;
use super::pool::Pool;

impl Pool {
    /// The numbers of all devices in the pool, read from its metadata.
    pub(super) fn list(&self) -> Result<HashSet<ThinId>> {
        let text = self.with_metadata(|node| {
            let words = ["--metadata-snap", "--no-headers", "--format", "DEV"].map(OsStr::new);
            super::tool::run("thin_ls", &[&words[..], &[node]].concat())
        })?;
        let numbers = text.split_whitespace().map(str::parse::<ThinId>);
        numbers.collect::<std::result::Result<_, _>>().map_err(|error| {
            Error::refused("list devices", &self.name, error.to_string(), ErrorKind::Io)
        })
    }

    /// Lets a program read the pool's metadata as it is now, from the metadata's device.
    pub(super) fn with_metadata<T>(&self, read: impl FnOnce(&OsStr) -> Result<T>) -> Result<T> {
        // There is one snapshot of it at most; a crash may have left it.
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.release_leftover(&self.metadata_device()?)?;
        self.read_metadata(read)
    }

    /// The same, and refuses where somebody has taken the snapshot that is read.
    ///
    /// # Errors
    /// `InUse` then; also when it was another one in the end.
    pub(super) fn with_own_metadata<T>(&self, read: impl FnOnce(&OsStr) -> Result<T>) -> Result<T> {
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_metadata(|node| {
            let before = self.dm.held_metadata(&self.name)?;
            let outcome = read(node)?;
            if before.is_none() || self.dm.held_metadata(&self.name)? != before {
                let reason = "somebody took the snapshot of its metadata away";
                return Err(Error::refused("read pool", &self.name, reason, ErrorKind::InUse));
            }
            Ok(outcome)
        })
    }

    fn read_metadata<T>(&self, read: impl FnOnce(&OsStr) -> Result<T>) -> Result<T> {
        let node = self.metadata_device()?;
        self.dm.reserve_metadata(&self.name)?;
        let outcome = read(node.as_os_str());
        self.dm.release_metadata(&self.name);
        outcome
    }

    /// The device that has the metadata.
    fn metadata_device(&self) -> Result<PathBuf> {
        let (_, _, params) = self.dm.table(&self.name)?;
        let device = params.split(' ').next().unwrap_or_default();
        let link = format!("/sys/dev/block/{device}");
        let target = std::fs::read_link(&link).map_err(|e| Error::sys("read link", &link, e))?;
        Ok(Path::new("/dev").join(target.file_name().unwrap_or_default()))
    }
}

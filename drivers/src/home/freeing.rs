//! How directories that nobody needs any more are deleted, at once or out of the way of calls.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::Mode;

use super::{Home, MODE, fs, lock};

/// How a directory is deleted, with all below it, in a place where names do not matter; what is gone
/// already is no error.
type Delete = dyn Fn(&OwnedFd, &OsStr) -> cow::Result<()> + Send + Sync;

/// A [`Delete`] that can be shown and shared.
#[derive(Clone)]
pub(super) struct Deleter(pub(super) Arc<Delete>);

impl Default for Deleter {
    fn default() -> Self {
        Self(Arc::new(|dir, name| fs::remove_tree(dir, name)))
    }
}

impl std::fmt::Debug for Deleter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deleter")
    }
}

/// A directory of `tmp` or `trash` that a thread deletes. Dropping it deletes it, so that it goes even if the
/// thread does not come to it.
#[derive(Debug)]
struct Doomed {
    driver: &'static str,
    place: OwnedFd,
    name: String,
    delete: Deleter,
    busy: Arc<Mutex<HashSet<String>>>,
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if let Err(error) = (self.delete.0)(&self.place, self.name.as_ref()) {
            let driver = self.driver;
            tracing::warn!(driver, name = self.name, %error, "space is not freed yet");
        }
        lock(&self.busy).remove(&self.name);
    }
}

impl Home {
    /// Takes `dir/name` out of its place and lets a thread delete it; what is gone is no error.
    ///
    /// It gets a directory of `tmp` to itself, since the kernel holds the directory above for as long as
    /// a deletion takes. After a crash it is a leftover like any other there.
    pub(crate) fn delete_later(&self, dir: &OwnedFd, name: &Path, label: &str) -> cow::Result<()> {
        if !fs::exists(dir, name)? {
            return Ok(());
        }
        let mode = Mode::from_raw_mode(MODE);
        let take = |fresh: &str| rustix::fs::mkdirat(&self.tmp, fresh, mode);
        let doomed = self.doom(&self.tmp, self.with_fresh_name(label, take)?)?;
        let place = fs::open_dir(&doomed.place, &doomed.name)?;
        fs::rename(dir, name, &place, name)?;
        self.closer.run(move || drop(doomed));
        Ok(())
    }

    /// Deletes a directory of `trash`, whose name is busy: at once, or behind the call.
    ///
    /// A failure is logged, since the call cannot be repeated; a check finds the leftover.
    pub(super) fn empty(&self, trashed: String) {
        match self.doom(&self.trash, trashed) {
            Ok(doomed) if self.frees_later => drop(self.closer.run(move || drop(doomed))),
            Ok(doomed) => drop(doomed),
            Err(error) => tracing::warn!(driver = self.driver, %error, "space is not freed yet"),
        }
    }

    fn doom(&self, place: &OwnedFd, name: String) -> cow::Result<Doomed> {
        let place = place.try_clone().map_err(|error| {
            lock(&self.busy).remove(&name);
            cow::Error::sys("dup", &name, error)
        })?;
        let (delete, busy) = (self.delete.clone(), Arc::clone(&self.busy));
        Ok(Doomed { driver: self.driver, place, name, delete, busy })
    }
}

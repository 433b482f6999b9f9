//! Directories of `tmp`: where layers are made and where calls put what they need for a while.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;

use super::{Home, MODE, fs, lock};
use crate::id::LayerId;

/// A directory of `tmp` that is being worked in. Dropping it removes it with all in it.
#[derive(Debug)]
pub(crate) struct Scratch<'a> {
    home: &'a Home,
    name: String,
    dir: OwnedFd,
    moved: bool,
}

impl Scratch<'_> {
    /// The directory.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Its absolute path, for the calls that take no directory: umount2(2).
    pub(crate) fn path(&self) -> PathBuf {
        self.home.path.join("tmp").join(&self.name)
    }

    /// Puts the directory in a layer's place.
    pub(super) fn publish(mut self, id: &LayerId) -> cow::Result<()> {
        let (tmp, layers) = (&self.home.tmp, &self.home.layers);
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(tmp, self.name.as_str(), layers, id.as_str(), flags)
            .map_err(|errno| cow::Error::sys("rename", id, errno))?;
        self.moved = true;
        Ok(())
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        match self.moved {
            true => drop(lock(&self.home.busy).remove(&name)),
            false => self.home.empty(&self.home.tmp, name),
        }
    }
}

impl Home {
    /// Makes a directory to work in.
    pub(crate) fn scratch(&self, label: &str) -> cow::Result<Scratch<'_>> {
        let mode = Mode::from_raw_mode(MODE);
        let take = |name: &str| rustix::fs::mkdirat(&self.tmp, name, mode);
        let name = self.with_fresh_name(label, take)?;
        let dir = fs::open_dir(&self.tmp, &name)?;
        Ok(Scratch { home: self, name, dir, moved: false })
    }

    /// Finds a free name of the form `<label>.<n>` by trying `take` with it, and marks it busy.
    pub(super) fn with_fresh_name(
        &self,
        label: &str,
        take: impl Fn(&str) -> rustix::io::Result<()>,
    ) -> cow::Result<String> {
        loop {
            let name = format!("{label}.{}", self.serial.fetch_add(1, Ordering::Relaxed));
            lock(&self.busy).insert(name.clone());
            match take(&name) {
                Ok(()) => return Ok(name),
                Err(errno) => {
                    lock(&self.busy).remove(&name);
                    if errno != Errno::EXIST {
                        return Err(cow::Error::sys("take name", name, errno));
                    }
                }
            }
        }
    }
}

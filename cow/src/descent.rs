//! A way down a tree whose directories are held open, but never too many at once.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::at;
use crate::error::Result;
use crate::root::Root;

/// How many directories of one way are held open: the deepest ones, where the work is.
const HELD: usize = 48;

/// The directories from a start down to the current one.
///
/// The upper part of a very deep way is closed and opened again by path when the way back reaches
/// it, so that depth costs memory for names only.
#[derive(Debug)]
pub(crate) struct Descent<'r> {
    root: &'r Root,
    /// The current directory's path below the root.
    path: Vec<u8>,
    /// For each directory on the way its fd, if held, and how long the path is there.
    levels: Vec<(Option<OwnedFd>, usize)>,
}

impl<'r> Descent<'r> {
    /// Begins in a directory of a root.
    pub(crate) fn new(root: &'r Root, start: &Path) -> Result<Self> {
        let fd = root.open_dir(start)?;
        let path = trim(start).to_vec();
        let length = path.len();
        Ok(Self { root, path, levels: vec![(Some(fd), length)] })
    }

    /// How many directories below the start the current one is.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len().saturating_sub(1)
    }

    /// The current directory's path.
    pub(crate) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The current directory, open for reading.
    pub(crate) fn dir(&mut self) -> Result<BorrowedFd<'_>> {
        let Some((held, length)) = self.levels.last_mut() else { return Ok(self.root.as_fd()) };
        if held.is_none() {
            let path = Path::new(OsStr::from_bytes(&self.path[..*length]));
            *held = Some(self.root.open_dir(path)?);
        }
        Ok(held.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd))
    }

    /// Goes down into a directory of the current one.
    pub(crate) fn enter(&mut self, name: &OsStr) -> Result<()> {
        let opened = at::open_dir_at(self.dir()?, name);
        let fd = opened
            .map_err(|error| self.root.error("open directory", self.path().join(name), error))?;
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.as_bytes());
        if let Some(far) = self.levels.len().checked_sub(HELD) {
            self.levels[far].0 = None;
        }
        self.levels.push((Some(fd), self.path.len()));
        Ok(())
    }

    /// How many directories are open now.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.levels.iter().filter(|(fd, _)| fd.is_some()).count()
    }

    /// Goes back up into the directory above; at the start, stays.
    pub(crate) fn leave(&mut self) {
        if self.levels.len() > 1 {
            self.levels.pop();
        }
        if let Some((_, length)) = self.levels.last() {
            self.path.truncate(*length);
        }
    }
}

/// A path's bytes without slashes at either end.
fn trim(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.iter().position(|byte| *byte != b'/').unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
    &bytes[start..end]
}

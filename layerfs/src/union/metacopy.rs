//! Copies of metadata alone (`metacopy=on`): an upper file of the right length without data, marked with
//! where a lower layer has the data.
//!
//! The marks are the kernel's: `overlay.metacopy`, empty, and `overlay.redirect`, a path from the roots of
//! the lower layers. The kernel writes the path when such a file is renamed or linked; it is written at
//! once here, and nothing has to be kept up later.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use cow_sys::xattr;
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::copyup::timestamps;
use super::merge::stat as stat_at;
use super::{Layer, RealDir, Union, marks};

/// A file capability, which a write takes away.
const CAPABILITY: &str = "security.capability";

/// What a copy without data says of it.
#[derive(Clone, Debug)]
pub struct Bare {
    /// How long it is.
    pub length: u64,
    /// Where it is: a path that begins with a slash.
    pub path: OsString,
}

impl Union {
    /// The path by which a search through the lower layers comes to this lower file and no other; none
    /// where a layer above it has something of its own on the way.
    ///
    /// # Errors
    /// What the layers' file systems say.
    pub fn data_path(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<Option<OsString>, Errno> {
        let mut path = dir.path();
        if !path.is_empty() {
            path.push("/");
        }
        path.push(name);
        for layer in self.layers.iter().take(dir.layer.into()).skip(1) {
            if !self.leaves_through(layer, &path)? {
                return Ok(None);
            }
        }
        let mut whole = OsString::from("/");
        whole.push(path);
        Ok(Some(whole))
    }

    /// Whether a layer has at most plain directories on the way to a path, and not the path itself.
    fn leaves_through(&self, layer: &Layer, path: &OsStr) -> Result<bool, Errno> {
        let mut dir = Arc::clone(&layer.root);
        for part in path.as_bytes().split(|byte| *byte == b'/') {
            let part = OsStr::from_bytes(part);
            let fd = self.fds.get(&dir)?;
            if super::whiteout::has_file(&fd, part) {
                return Ok(false);
            }
            let stat = match stat_at(&fd, part) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(true),
                Err(error) => return Err(error),
            };
            if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Directory {
                return Ok(false);
            }
            let marks = self.dir_marks(&fd, part)?;
            if marks.opaque || marks.redirect.is_some() {
                return Ok(false);
            }
            dir = RealDir::child(&dir, part);
        }
        Ok(false)
    }

    /// Marks a file as one without data.
    pub(super) fn mark_bare(&self, dir: &OwnedFd, name: &OsStr, path: &OsStr) -> Result<(), Errno> {
        xattr::set(dir, name, &self.prefix.name("redirect"), path.as_bytes())?;
        xattr::set(dir, name, &self.prefix.name("metacopy"), b"")
    }

    /// Whether a file without data finds it by a path from the root, wherever it is moved.
    pub fn may_move(&self, dir: &OwnedFd, name: &OsStr) -> bool {
        marks::of_file(self.prefix, dir, name)
            .is_ok_and(|marks| marks.redirect.is_some_and(|to| to.as_bytes().starts_with(b"/")))
    }

    /// Gives a file that has its metadata alone the first `length` bytes of its data.
    ///
    /// The mark goes when all is there, so that a crash leaves the file as it was.
    ///
    /// # Errors
    /// What the file systems say; the file then is as it was.
    pub fn fill(&self, file: &OwnedFd, data: &OwnedFd, length: u64) -> Result<(), Errno> {
        let here = OsStr::new("");
        let before = stat_at(file, here)?;
        let capability = xattr::get(file, here, OsStr::new(CAPABILITY)).ok();
        self.copy_data(data, cow::at::meta_of(data)?, file, length)?;
        if let Some(capability) = capability {
            xattr::set(file, here, OsStr::new(CAPABILITY), &capability)?;
        }
        if stat_at(file, here)?.stx_mode != before.stx_mode {
            rustix::fs::fchmod(file, Mode::from_raw_mode(u32::from(before.stx_mode) & 0o7777))?;
        }
        rustix::fs::futimens(file, &timestamps(&before))?;
        if self.sync && length > 0 {
            self.write_back(file)?;
        }
        xattr::remove(file, here, &self.prefix.name("metacopy"))?;
        match xattr::remove(file, here, &self.prefix.name("redirect")) {
            Err(Errno::NODATA) => Ok(()),
            answer => answer,
        }
    }
}

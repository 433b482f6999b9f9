//! Whiteouts and opaque markers, in a layer's own tree and in a full one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::attrs::DirEnd;
use super::place::Dir;
use super::{Applier, as_path, join, lower};
use crate::at;
use crate::error::{Error, Result};
use crate::listing::Listing;
use crate::meta::FileKind;
use crate::whiteout::{self, OPAQUE, WhiteoutFormat, XattrSpace};

/// What survives the clearing of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// What this layer has unpacked, and the directories that lead to it.
    Unpacked,
}

impl Applier<'_> {
    /// Hides `name` of the lower layers in the directory at `parent`.
    pub(super) fn hide(&mut self, parent: &[u8], name: &OsStr) -> Result<()> {
        match self.options.whiteouts {
            WhiteoutFormat::Overlay(space) => self.hide_in_layer(parent, name, space),
            WhiteoutFormat::Remove => self.hide_in_tree(parent, name),
        }
    }

    /// Hides all that the lower layers have in the directory at `path`.
    pub(super) fn hide_children(&mut self, path: &[u8]) -> Result<()> {
        let WhiteoutFormat::Overlay(space) = self.options.whiteouts else {
            let Some(dir) = self.find_dir(path)? else { return Ok(()) };
            self.forget_dirs();
            return self.clear(&dir, Keep::Unpacked).map(|_| ());
        };
        let dir = self.dir(path)?;
        if dir.path.is_empty() { self.hide_root(space) } else { self.seal(&dir) }
    }

    fn hide_in_layer(&mut self, parent: &[u8], name: &OsStr, space: XattrSpace) -> Result<()> {
        let here = self.dir(parent)?;
        let path = join(&here.path, name.as_bytes());
        match at::meta_at(&here, name).map_err(here.err("statx", name))? {
            Some(meta) if meta.is_dir() => {
                let dir = self.dir(&path)?;
                self.seal(&dir)
            }
            // This layer's own, or hidden already.
            Some(_) => Ok(()),
            // A whiteout of nothing is a ghost: it shows in the listing of an unmerged directory.
            None if self.is_hidden(&path) => Ok(()),
            None if self.lowers.is_some() && self.in_lowers(&path)?.is_none() => Ok(()),
            None => whiteout::create(&*here, name, space).map_err(|error| within(error, &path)),
        }
    }

    /// Makes a directory of this layer opaque; whiteouts in it have nothing more to hide.
    fn seal(&mut self, dir: &Dir) -> Result<()> {
        purge_whiteouts(dir)?;
        self.make_opaque(dir)
    }

    /// Hides everything below the root, which overlayfs itself never takes for opaque.
    fn hide_root(&mut self, space: XattrSpace) -> Result<()> {
        let Some(view) = &self.lowers else {
            return Err(Error::NeedsLower { path: OPAQUE.into(), target: PathBuf::from("/") });
        };
        for name in lower::root_names(view)? {
            self.hide_in_layer(b"", &name, space)?;
        }
        Ok(())
    }

    /// Removes a name of a full tree, but for what this layer has put there.
    fn hide_in_tree(&mut self, parent: &[u8], name: &OsStr) -> Result<()> {
        let Some(here) = self.find_dir(parent)? else { return Ok(()) };
        let Some(meta) = at::meta_at(&here, name).map_err(here.err("statx", name))? else {
            return Ok(());
        };
        if matches!(meta.kind, FileKind::Dir | FileKind::Symlink) {
            self.forget_dirs();
        }
        self.clear_name(&here, name, meta.kind, Keep::Unpacked).map(|_| ())
    }

    /// Removes a directory with all that is in it.
    pub(super) fn remove_tree(&mut self, here: &Dir, name: &OsStr) -> Result<()> {
        self.clear_name(here, name, FileKind::Dir, Keep::Nothing).map(|_| ())
    }

    /// Removes a name, or as much of it as is not kept; whether something was.
    fn clear_name(&mut self, here: &Dir, name: &OsStr, kind: FileKind, keep: Keep) -> Result<bool> {
        let own = keep == Keep::Unpacked && self.unpacked.contains(&self.mark_of(here.ino, name));
        if kind != FileKind::Dir {
            if !own {
                rustix::fs::unlinkat(here, name, AtFlags::empty())
                    .map_err(here.err("unlink", name))?;
            }
            return Ok(own);
        }
        let dir = Dir::open(here, name)?;
        if self.clear(&dir, keep)? || own {
            return Ok(true);
        }
        rustix::fs::unlinkat(here, name, AtFlags::REMOVEDIR).map_err(here.err("rmdir", name))?;
        // The number may be given to another directory.
        self.ends.remove(&dir.ino);
        self.implicit.remove(&dir.ino);
        Ok(false)
    }

    /// Removes what is in a directory and not kept; whether something was.
    fn clear(&mut self, dir: &Dir, keep: Keep) -> Result<bool> {
        let this = OsStr::new("");
        if keep == Keep::Unpacked {
            let meta = at::meta_of(dir).map_err(dir.err("statx", this))?;
            self.ends.entry(dir.ino).or_insert_with(|| DirEnd::time(&dir.path, meta.mtime));
        }
        let mut kept = false;
        let names = Listing::read(dir).map_err(dir.err("read directory", this))?;
        for name in names.iter() {
            let Some(meta) = at::meta_at(dir, name).map_err(dir.err("statx", name))? else {
                continue;
            };
            kept |= self.clear_name(dir, name, meta.kind, keep)?;
        }
        Ok(kept)
    }
}

/// Removes all whiteouts below a directory.
fn purge_whiteouts(dir: &Dir) -> Result<()> {
    let names = Listing::read(dir).map_err(dir.err("read directory", OsStr::new("")))?;
    for name in names.iter() {
        match at::meta_at(dir, name).map_err(dir.err("statx", name))? {
            Some(meta) if meta.is_whiteout_device() => {
                match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(dir.error("unlink", name, errno)),
                }
            }
            Some(meta) if meta.is_dir() => purge_whiteouts(&Dir::open(dir, name)?)?,
            _ => {}
        }
    }
    Ok(())
}

/// Names the whole path in an error that knows a last component only.
fn within(error: Error, path: &[u8]) -> Error {
    match error {
        Error::Sys { op, source, .. } => Error::sys(op, as_path(path), source),
        other => other,
    }
}

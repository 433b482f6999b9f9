//! Whiteouts and opaque markers, in a layer's own tree and in a full one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::AtFlags;

use super::attrs::DirEnd;
use super::place::Dir;
use super::{Applier, as_path, join, lower};
use crate::at;
use crate::descent::Descent;
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
    /// Everything but whiteouts.
    Content(XattrSpace),
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
            return self.clear(&dir.path, Keep::Unpacked).map(|_| ());
        };
        let dir = self.dir(path)?;
        if dir.path.is_empty() { self.hide_root(space) } else { self.seal(&dir, space) }
    }

    fn hide_in_layer(&mut self, parent: &[u8], name: &OsStr, space: XattrSpace) -> Result<()> {
        let here = self.dir(parent)?;
        let path = join(&here.path, name.as_bytes());
        match at::meta_at(&here, name).map_err(here.err("statx", name))? {
            Some(meta) if meta.is_dir() => {
                let dir = self.dir(&path)?;
                self.seal(&dir, space)
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
    fn seal(&mut self, dir: &Dir, space: XattrSpace) -> Result<()> {
        self.clear(&dir.path, Keep::Content(space))?;
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
        let own = self.unpacked.contains(&self.mark_of(here.ino, name));
        if meta.is_dir() {
            let path = join(&here.path, name.as_bytes());
            let kept = self.clear(&path, Keep::Unpacked)?;
            if !own && !kept {
                self.remove_empty(&here, name, meta.ino)?;
            }
        } else if !own {
            rustix::fs::unlinkat(&here, name, AtFlags::empty())
                .map_err(here.err("unlink", name))?;
        }
        Ok(())
    }

    /// Removes a directory with all that is in it.
    pub(super) fn remove_tree(&mut self, here: &Dir, name: &OsStr, ino: u64) -> Result<()> {
        self.clear(&join(&here.path, name.as_bytes()), Keep::Nothing)?;
        self.remove_empty(here, name, ino)
    }

    fn remove_empty(&mut self, here: &Dir, name: &OsStr, ino: u64) -> Result<()> {
        rustix::fs::unlinkat(here, name, AtFlags::REMOVEDIR).map_err(here.err("rmdir", name))?;
        self.forget_inode(ino);
        Ok(())
    }

    /// Forgets what was noted of a directory that is gone: its number may be given to another.
    fn forget_inode(&mut self, ino: u64) {
        self.ends.remove(&ino);
        self.implicit.remove(&ino);
    }

    /// Removes what is in a directory and not kept; whether something was kept.
    ///
    /// Not by recursion: containers can make trees deeper than any stack and any limit of open
    /// files.
    fn clear(&mut self, path: &[u8], keep: Keep) -> Result<bool> {
        let mut way = Descent::new(self.target, as_path(path))?;
        let mut levels = vec![self.level(&mut way, false)?];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.names.get(level.next) {
                level.next += 1;
                let looked = at::meta_at(way.dir()?, name);
                let fail = |op, errno| Error::sys(op, way.path().join(name), errno);
                let Some(meta) = looked.map_err(|errno| fail("statx", errno))? else { continue };
                let own = match keep {
                    Keep::Nothing => false,
                    Keep::Unpacked => self.unpacked.contains(&self.mark_of(level.ino, name)),
                    Keep::Content(space) => {
                        let hides = space.is_whiteout(way.dir()?, name, &meta);
                        !hides.map_err(|errno| Error::sys("getxattr", way.path(), errno))?
                    }
                };
                if meta.is_dir() {
                    way.enter(name)?;
                    levels.push(self.level(&mut way, own)?);
                } else if own {
                    level.kept = true;
                } else {
                    rustix::fs::unlinkat(way.dir()?, name, AtFlags::empty())
                        .map_err(|errno| Error::sys("unlink", way.path().join(name), errno))?;
                }
                continue;
            }
            let (ino, kept) = (level.ino, level.kept);
            levels.pop();
            let Some(above) = levels.last_mut() else { return Ok(kept) };
            if kept {
                above.kept = true;
                way.leave();
                continue;
            }
            let gone = way.path().to_owned();
            way.leave();
            let name = gone.file_name().unwrap_or_default();
            rustix::fs::unlinkat(way.dir()?, name, AtFlags::REMOVEDIR)
                .map_err(|errno| Error::sys("rmdir", &gone, errno))?;
            self.forget_inode(ino);
        }
        Ok(false)
    }

    /// Lists the directory that a way has come to.
    fn level(&mut self, way: &mut Descent<'_>, kept: bool) -> Result<Level> {
        let path = way.path().to_owned();
        let fail = |op| {
            let path = &path;
            move |errno| Error::sys(op, path, errno)
        };
        let dir = way.dir()?;
        let meta = at::meta_of(dir).map_err(fail("statx"))?;
        let names = Listing::read(dir).map_err(fail("read directory"))?;
        let end = || DirEnd::time(path.as_os_str().as_bytes(), meta.mtime);
        self.ends.entry(meta.ino).or_insert_with(end);
        Ok(Level { names, next: 0, ino: meta.ino, kept })
    }
}

/// A directory that is being cleared.
struct Level {
    names: Listing,
    next: usize,
    ino: u64,
    /// Something in it stays, or it stays itself.
    kept: bool,
}

/// Names the whole path in an error that knows a last component only.
fn within(error: Error, path: &[u8]) -> Error {
    match error {
        Error::Sys { op, source, .. } => Error::sys(op, as_path(path), source),
        other => other,
    }
}

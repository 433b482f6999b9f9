//! Where an entry goes: the directory that holds its name, opened, made or followed to.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::attrs::{DEFAULT_ACL, DirAttrs, DirEnd};
use super::{Applier, as_path, join, lower, split};
use crate::at;
use crate::error::{Error, Result};
use crate::meta::{FileKind, Meta, Time};
use crate::overlay_view::Node;
use crate::root::{Resolve, Root};
use crate::whiteout::{self, WhiteoutFormat};

/// How many symbolic links one path may pass, as in Linux.
const MAX_LINKS: u32 = 40;

/// A directory of the target, held open.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    /// Its path in the target, without a symbolic link.
    pub(super) path: Box<[u8]>,
    pub(super) ino: u64,
    /// Whether it hands its group or an ACL on to what is made in it.
    pub(super) bequeaths: Cell<bool>,
}

impl Dir {
    /// Holds the root.
    pub(super) fn root(target: &Root) -> Result<Self> {
        let fd = target.open_dir("")?;
        let (dir, _) = Self::adopt(fd, Box::default())?;
        Ok(dir)
    }

    /// Takes a directory that was just opened, and what it is.
    pub(super) fn adopt(fd: OwnedFd, path: Box<[u8]>) -> Result<(Self, Meta)> {
        let meta = at::meta_of(&fd).map_err(|errno| Error::sys("statx", as_path(&path), errno))?;
        let acl = rustix::fs::fgetxattr_query(&fd, DEFAULT_ACL).is_ok_and(|size| size > 0);
        let bequeaths = Cell::new(acl || meta.mode & 0o2000 != 0);
        Ok((Self { fd, path, ino: meta.ino, bequeaths }, meta))
    }

    /// An error about a name in it.
    pub(super) fn error(&self, op: &'static str, name: &OsStr, errno: Errno) -> Error {
        Error::sys(op, as_path(&join(&self.path, name.as_bytes())), errno)
    }

    /// As [`Dir::error`], for `map_err`.
    pub(super) fn err(&self, op: &'static str, name: &OsStr) -> impl FnOnce(Errno) -> Error {
        move |errno| self.error(op, name, errno)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a walk does about a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Make,
    Leave,
}

/// One step of a walk.
enum Step {
    Into(Rc<Dir>),
    /// There is no such directory, and none is to be made.
    Nowhere,
    /// A symbolic link's text; whether it is of a lower layer.
    Follow(Vec<u8>, bool),
}

impl Applier<'_> {
    /// Notes the root's own attributes, or takes them from the layer below.
    pub(super) fn take_root(&mut self) -> Result<()> {
        let root = self.root.clone();
        let meta = at::meta_of(&root).map_err(|errno| self.target.error("statx", "", errno))?;
        if !self.is_overlay() {
            self.ends.insert(root.ino, DirEnd::time(&[], meta.mtime));
            return Ok(());
        }
        self.implicit.insert(root.ino, Box::default());
        let lower = self.in_lowers(&[])?;
        let end = match (&self.lowers, lower) {
            (Some(view), Some(lower)) => DirAttrs::copy(view, &lower, &root)?.end(&[]),
            // Like other directories that the tar does not have: nothing of the present time.
            _ => DirEnd::time(&[], Time::default()),
        };
        self.ends.insert(root.ino, end);
        Ok(())
    }

    /// The directory at a path, made with what is missing on the way.
    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Rc<Dir>> {
        match self.plain_dir(path)? {
            Some(dir) => Ok(dir),
            None => self
                .walk(path, Missing::Make)?
                .ok_or_else(|| Error::sys("open directory", as_path(path), Errno::NOENT)),
        }
    }

    /// The directory at a path of the target, if there is one.
    pub(super) fn find_dir(&mut self, path: &[u8]) -> Result<Option<Rc<Dir>>> {
        match self.plain_dir(path)? {
            Some(dir) => Ok(Some(dir)),
            None => self.walk(path, Missing::Leave),
        }
    }

    /// The directory at a path, if it is known or no link leads there: the usual case, in one call.
    fn plain_dir(&mut self, path: &[u8]) -> Result<Option<Rc<Dir>>> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        if let Some(dir) = self.dirs.get(path) {
            return Ok(Some(dir.clone()));
        }
        match self.target.open_with(as_path(path), at::DIR, Mode::empty(), Resolve::Beneath) {
            Ok(fd) => self.hold(fd, path.into()).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(Error::sys("open directory", as_path(path), errno)),
        }
    }

    /// Holds a directory that exists.
    pub(super) fn hold(&mut self, fd: OwnedFd, path: Box<[u8]>) -> Result<Rc<Dir>> {
        let (dir, meta) = Dir::adopt(fd, path)?;
        if !self.is_overlay() {
            // Its time changes with the first name that is made in it, entry or not.
            self.ends.entry(dir.ino).or_insert_with(|| DirEnd::time(&dir.path, meta.mtime));
        }
        let dir = Rc::new(dir);
        self.dirs.put(dir.path.clone(), dir.clone());
        Ok(dir)
    }

    /// Walks to a directory component by component in the merged tree.
    fn walk(&mut self, path: &[u8], missing: Missing) -> Result<Option<Rc<Dir>>> {
        let mut todo = Vec::new();
        push_components(path, &mut todo);
        let mut here = self.root.clone();
        let (mut links, mut through_lower) = (0, false);
        while let Some(name) = todo.pop() {
            if name == b".." {
                let above = split(&here.path).0.to_vec();
                here = self.plain_dir(&above)?.unwrap_or_else(|| self.root.clone());
                continue;
            }
            if here.path.len() + name.len() >= self.options.limits.path {
                return Err(Error::invalid("apply", as_path(path), "leads to too long a path"));
            }
            match self.step(&here, &name, missing)? {
                Step::Into(dir) => here = dir,
                Step::Nowhere => return Ok(None),
                Step::Follow(text, lower) => {
                    links += 1;
                    through_lower |= lower;
                    if links > MAX_LINKS {
                        let reason = "too many symbolic links on the way";
                        return Err(Error::invalid("apply", as_path(path), reason));
                    }
                    if text.starts_with(b"/") {
                        here = self.root.clone();
                    }
                    push_components(&text, &mut todo);
                }
            }
        }
        // A lower layer's link may yet be shadowed by an entry of this one, which empties no cache.
        if !through_lower {
            self.dirs.put(path.into(), here.clone());
        }
        Ok(Some(here))
    }

    /// Goes one name further down.
    fn step(&mut self, here: &Rc<Dir>, name: &[u8], missing: Missing) -> Result<Step> {
        let path = join(&here.path, name);
        if let Some(dir) = self.dirs.get(&path) {
            return Ok(Step::Into(dir.clone()));
        }
        let name = OsStr::from_bytes(name);
        match at::open_dir_at(here, name) {
            Ok(fd) => return self.hold(fd, path).map(Step::Into),
            Err(Errno::NOENT) if missing == Missing::Leave => return Ok(Step::Nowhere),
            Err(Errno::NOENT) => return self.step_below(here, name, &path),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(here.error("open directory", name, errno)),
        }
        match at::readlink_at(here, name) {
            Ok(text) => Ok(Step::Follow(text.into_vec(), false)),
            Err(Errno::INVAL) if missing == Missing::Leave => Ok(Step::Nowhere),
            Err(Errno::INVAL) => {
                // An entry below a name says that the name is a directory: the last one wins.
                self.remove_any(here, name)?;
                self.make_implicit(here, name, true).map(Step::Into)
            }
            Err(errno) => Err(here.error("readlink", name, errno)),
        }
    }

    /// Goes on where the target has nothing: as the layers below say, if they are known.
    fn step_below(&mut self, here: &Rc<Dir>, name: &OsStr, path: &[u8]) -> Result<Step> {
        let found = self.in_lowers(path)?;
        if let (Some(view), Some(node)) = (&self.lowers, &found)
            && node.meta.kind == FileKind::Symlink
        {
            let text = lower::text(view, node)?;
            return Ok(Step::Follow(text.into_vec(), true));
        }
        let dir = self.make_implicit(here, name, false)?;
        if let (Some(view), Some(node)) = (&self.lowers, &found)
            && node.meta.is_dir()
        {
            let attrs = DirAttrs::copy(view, node, &dir)?;
            self.ends.insert(dir.ino, attrs.end(&dir.path));
        }
        Ok(Step::Into(dir))
    }

    /// Makes a directory that the tar has no entry for, or not yet: the process's own, 0755, of the
    /// epoch.
    fn make_implicit(&mut self, here: &Dir, name: &OsStr, opaque: bool) -> Result<Rc<Dir>> {
        rustix::fs::mkdirat(here, name, Mode::from_raw_mode(0o755))
            .map_err(here.err("mkdir", name))?;
        let dir = self.hold_new(here, name)?;
        self.process.settle(&dir, here, 0o755).map_err(here.err("settle", name))?;
        if opaque {
            self.make_opaque(&dir)?;
        }
        self.mark(here, name);
        self.ends.insert(dir.ino, DirEnd::time(&dir.path, Time::default()));
        self.implicit.insert(dir.ino, dir.path.clone());
        Ok(dir)
    }

    /// What the layers below have at a path without links, if they are known and show there.
    pub(super) fn in_lowers(&self, path: &[u8]) -> Result<Option<Node>> {
        match &self.lowers {
            Some(view) if !self.is_hidden(path) => view.resolve(as_path(path)),
            _ => Ok(None),
        }
    }

    /// Whether a directory above a path is opaque.
    pub(super) fn is_hidden(&self, path: &[u8]) -> bool {
        let mut above = path;
        while !self.opaque.is_empty() && !above.is_empty() {
            above = split(above).0;
            if self.opaque.contains(above) {
                return true;
            }
        }
        false
    }

    /// Makes a directory opaque, where there are lower layers to hide.
    pub(super) fn make_opaque(&mut self, dir: &Dir) -> Result<()> {
        if let WhiteoutFormat::Overlay(space) = self.options.whiteouts {
            whiteout::set_opaque(dir, as_path(&dir.path), space)?;
            self.opaque.insert(dir.path.clone());
        }
        Ok(())
    }

    /// Holds a directory that was just made.
    pub(super) fn hold_new(&mut self, here: &Dir, name: &OsStr) -> Result<Rc<Dir>> {
        let fd = at::open_dir_at(here, name).map_err(here.err("open directory", name))?;
        let ino = at::meta_of(&fd).map_err(here.err("statx", name))?.ino;
        let path = join(&here.path, name.as_bytes());
        let dir = Rc::new(Dir { fd, path, ino, bequeaths: Cell::new(false) });
        self.dirs.put(dir.path.clone(), dir.clone());
        Ok(dir)
    }

    /// Removes whatever a name is, with all that is in it; whether it was there.
    pub(super) fn remove_any(&mut self, here: &Dir, name: &OsStr) -> Result<bool> {
        let Some(meta) = at::meta_at(here, name).map_err(here.err("statx", name))? else {
            return Ok(false);
        };
        match meta.kind {
            FileKind::Dir => {
                self.forget_dirs();
                self.remove_tree(here, name, meta.ino)?;
            }
            kind => {
                if kind == FileKind::Symlink {
                    self.forget_dirs();
                }
                rustix::fs::unlinkat(here, name, AtFlags::empty())
                    .map_err(here.err("unlink", name))?;
            }
        }
        Ok(true)
    }

    /// Lets go of all held directories: their paths may lead elsewhere from now on.
    pub(super) fn forget_dirs(&mut self) {
        self.dirs.clear();
    }

    /// Notes that a name is this layer's own.
    pub(super) fn mark(&mut self, here: &Dir, name: &OsStr) {
        if !self.is_overlay() {
            let mark = self.mark_of(here.ino, name);
            self.unpacked.insert(mark);
        }
    }

    pub(super) fn mark_of(&self, dir: u64, name: &OsStr) -> u64 {
        use std::hash::BuildHasher as _;
        self.hasher.hash_one((dir, name))
    }
}

/// Puts the components of a path on a stack, the first on top.
fn push_components(path: &[u8], todo: &mut Vec<Vec<u8>>) {
    let parts = path.split(|byte| *byte == b'/');
    todo.extend(parts.rev().filter(|&part| !matches!(part, b"" | b".")).map(<[u8]>::to_vec));
}

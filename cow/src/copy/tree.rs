//! A whole tree.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use crate::at;
use crate::copy::{Copier, Source, finish, node};
use crate::descent::Descent;
use crate::error::Result;
use crate::meta::{FileKind, Meta, Xattrs};
use crate::root::{Resolve, Root};
use crate::usage::Usage;
use crate::walk::{Entry, Vanished, Walk};
use crate::xattr;

/// What happens to unix sockets, which no process can use through a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// They are made in the copy too.
    Copy,
    /// They are left out.
    Skip,
}

/// How a tree is copied.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What happens to sockets.
    pub sockets: Sockets,
    /// What happens to files that vanish while the tree is copied.
    pub vanished: Vanished,
}

impl Default for Options {
    /// Everything of a tree that is not in use.
    fn default() -> Self {
        Self { sockets: Sockets::Copy, vanished: Vanished::Fail }
    }
}

/// Copies everything in `source` into the empty directory `target`, which becomes like `source`
/// itself: owner, mode, attributes and times too.
///
/// Keeps hard links within the tree, all attributes (access lists and capabilities among them),
/// holes, and times to the nanosecond. Returns the inodes that were made and the bytes of data that
/// were written, which is none where the file system can share it. A copy that fails is left as far
/// as it came.
pub fn tree(source: &Root, target: &Root, options: Options) -> Result<Usage> {
    let way = Descent::new(target, Path::new(""))?;
    let mut copy = Tree {
        source,
        target,
        copier: Copier::new(),
        way,
        open: Vec::new(),
        links: HashMap::new(),
        options,
    };
    let mut usage = Usage::default();

    // Directories get their default access lists when they are full, so that nothing inherits one.
    xattr::remove_at(copy.way.dir()?, OsStr::new(""), OsStr::new("system.posix_acl_default"))
        .map_err(|error| target.error("removexattr", "", error))?;
    let top = at::meta_of(source).map_err(|error| source.error("statx", "", error))?;
    copy.open.push((top, source.xattrs("")?));
    let mut walk = Walk::new(source, options.vanished)?;
    while let Some(entry) = walk.next_entry()? {
        while copy.way.depth() > entry.depth {
            copy.close()?;
        }
        if entry.meta.kind == FileKind::Socket && options.sockets == Sockets::Skip {
            continue;
        }
        if let Some(written) = copy.entry(&entry)? {
            usage.inodes += 1;
            usage.bytes += written;
            usage.content += written;
        } else if entry.meta.is_dir() {
            walk.skip_dir();
        }
    }
    while !copy.open.is_empty() {
        copy.close()?;
    }
    Ok(usage)
}

struct Tree<'a> {
    source: &'a Root,
    target: &'a Root,
    copier: Copier,
    /// The directory of the copy that is being filled.
    way: Descent<'a>,
    /// For each directory on the way, what it is given when it is full.
    open: Vec<(Meta, Xattrs)>,
    /// The copies of files with several names, by inode.
    links: HashMap<(u64, u64), PathBuf>,
    options: Options,
}

impl Tree<'_> {
    /// Copies one file; returns the bytes written, or none if it made no inode.
    fn entry(&mut self, entry: &Entry<'_>) -> Result<Option<u64>> {
        let linked = !entry.meta.is_dir() && entry.meta.nlink > 1;
        if linked && let Some(first) = self.links.get(&entry.meta.inode()) {
            let first = first.clone();
            self.link(&first, entry)?;
            return Ok(None);
        }
        let made = self.make(entry);
        let (written, xattrs) = match made {
            Err(rustix::io::Errno::NOENT) if self.options.vanished == Vanished::Skip => {
                return Ok(None);
            }
            made => made.map_err(|error| self.source.error("copy", entry.path, error))?,
        };
        if linked {
            self.links.insert(entry.meta.inode(), entry.path.to_owned());
        }
        if entry.meta.is_dir() {
            self.way.enter(entry.name)?;
            self.open.push((entry.meta, xattrs));
        }
        Ok(Some(written))
    }

    fn make(&mut self, entry: &Entry<'_>) -> rustix::io::Result<(u64, Xattrs)> {
        let xattrs = xattr::read_at(entry.dir, entry.name)?;
        let at = (entry.dir, entry.name);
        let source = Source { meta: &entry.meta, xattrs: &xattrs, at, data: at };
        let dir = self.way.dir().map_err(|_| rustix::io::Errno::IO)?;
        let copied = node(&self.copier, &source, dir, entry.name)?;
        Ok((copied.written, xattrs))
    }

    fn link(&mut self, first: &Path, entry: &Entry<'_>) -> Result<()> {
        let (dir, name) = self.target.parent(first, Resolve::Beneath)?;
        let name: OsString = name.to_owned();
        rustix::fs::linkat(dir, name, self.way.dir()?, entry.name, AtFlags::empty())
            .map_err(|error| self.target.error("link", entry.path, error))
    }

    /// Finishes the directory that was being filled and goes back to the one above.
    fn close(&mut self) -> Result<()> {
        if let Some((meta, xattrs)) = self.open.pop() {
            let done = finish(&meta, &xattrs, self.way.dir()?);
            done.map_err(|error| self.target.error("finish directory", self.way.path(), error))?;
            self.way.leave();
        }
        Ok(())
    }
}

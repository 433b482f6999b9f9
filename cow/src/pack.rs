//! Writing a changeset as an OCI layer tar.
//!
//! The same changes of the same files give the same bytes (OCI image-spec, `layer.md`):
//! - Deletions are explicit whiteouts, never opaque markers, and stand first in their directory.
//! - The directories above a change are in the tar once, before what is in them, as the merged tree
//!   has them, so that a reader of this layer alone makes them right.
//! - Of several changed names of one inode the first carries the content and the others are hard
//!   links to it. A changed name of an inode that also has an unchanged one becomes a file of its
//!   own: the unchanged name is no part of the layer, and a link out of it may fail.
//! - Xattrs are those that mean the same on any machine: `user.`, `security.capability`,
//!   `security.ima` and POSIX ACLs; overlayfs's marks, `trusted.` and SELinux labels stay behind.
//! - Times have nanoseconds where the tree has them.
//! - Sockets are left out; one that took a file's place hides it.
//!
//! The tree may be in use meanwhile. A file that vanishes is left out, and one that shrinks or grows
//! while it is read is filled up with zeros or cut off at the size that its header says.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::at;
use crate::change::{Change, ChangeKind, Changeset, Location};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{FileKind, Meta, Xattrs};
use crate::root::{Resolve, Root};
use crate::tar::{Entry, EntryKind, Writer};
use crate::whiteout::{self, PREFIX};
use crate::xattr;

/// Writes `changes` to `out` as a layer tar and returns its length in bytes.
///
/// `roots` is what [`Location::root`] counts: the upper tree first, then the lower ones.
///
/// # Errors
/// `InvalidArgument` for a file whose name begins with `.wh.`, which no layer can hold.
pub fn pack(changes: &Changeset, roots: &[impl Borrow<Root>], out: impl Write) -> Result<u64> {
    let mut packer = Packer {
        roots: roots.iter().map(Borrow::borrow).collect(),
        writer: Writer::new(out),
        entry: Entry::default(),
        links: HashMap::new(),
        held: Vec::new(),
    };
    packer.held.resize_with(roots.len(), || None);
    packer.changes(&changes.changes)?;
    packer.writer.finish().map(|(_, length)| length)
}

struct Packer<'a, W: Write> {
    roots: Vec<&'a Root>,
    writer: Writer<W>,
    entry: Entry,
    /// The first name written of each inode that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// The directory last read from, by root.
    held: Vec<Option<(PathBuf, OwnedFd)>>,
}

/// A file to be written, looked at once.
struct Found {
    meta: Meta,
    xattrs: Xattrs,
    link: Vec<u8>,
    data: Option<File>,
}

impl<'a, W: Write> Packer<'a, W> {
    /// Writes all changes, which are in order.
    fn changes(&mut self, changes: &[Change]) -> Result<()> {
        // The directories that the present path is in, outermost first, all of them written.
        let mut within: Vec<&Path> = Vec::new();
        self.deletions(changes, Path::new(""))?;
        for (index, change) in changes.iter().enumerate() {
            within.retain(|dir| change.path.starts_with(dir));
            let above: Vec<_> = change.path.ancestors().skip(1).collect();
            let missing = above.into_iter().rev().skip(1 + within.len());
            for dir in missing {
                self.parent(dir)?;
                within.push(dir);
                self.deletions(&changes[index..], dir)?;
            }
            if change.kind == ChangeKind::Deleted {
                continue;
            }
            let is_dir = self.change(change)?;
            if is_dir && !change.path.as_os_str().is_empty() {
                within.push(&change.path);
                self.deletions(&changes[index + 1..], &change.path)?;
            }
        }
        Ok(())
    }

    /// Writes the deletions in a directory whose content `changes` begins with.
    fn deletions(&mut self, changes: &[Change], dir: &Path) -> Result<()> {
        for change in changes.iter().take_while(|change| change.path.starts_with(dir)) {
            if change.kind == ChangeKind::Deleted && change.path.parent() == Some(dir) {
                self.whiteout(&change.path)?;
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        let marker = path.with_file_name(whiteout::marker_name(name));
        self.entry.clear();
        self.entry.path.extend_from_slice(marker.as_os_str().as_bytes());
        self.writer.entry(&self.entry)
    }

    /// Writes a directory that has not changed itself.
    fn parent(&mut self, path: &Path) -> Result<()> {
        for root in 0..self.roots.len() {
            let at = Location { root, path: path.to_owned() };
            if let Some(found) = self.look(&at, None)?
                && found.meta.is_dir()
            {
                return self.found(path, found);
            }
        }
        // Gone meanwhile, and so is all that was in it.
        Ok(())
    }

    /// Writes a changed file; whether it is a directory.
    fn change(&mut self, change: &Change) -> Result<bool> {
        let Some(at) = &change.meta else {
            return Err(Error::invalid("pack", &change.path, "a change without its place"));
        };
        let Some(found) = self.look(at, change.data.as_ref())? else { return Ok(false) };
        if found.meta.kind == FileKind::Socket {
            if change.kind == ChangeKind::Modified {
                self.whiteout(&change.path)?;
            }
            return Ok(false);
        }
        let is_dir = found.meta.is_dir();
        self.found(&change.path, found)?;
        Ok(is_dir)
    }

    /// Writes a file's entry and content.
    fn found(&mut self, path: &Path, found: Found) -> Result<()> {
        let Found { meta, xattrs, link, data } = found;
        self.entry.clear();
        self.set_path(path)?;
        self.entry.mode = meta.mode;
        (self.entry.uid, self.entry.gid) = (meta.uid, meta.gid);
        self.entry.mtime = meta.mtime;
        let shared = meta.nlink > 1 && !meta.is_dir();
        if let Some(first) = self.links.get(&meta.inode()).filter(|_| shared) {
            self.entry.kind = EntryKind::HardLink;
            self.entry.link.clone_from(first);
            return self.writer.entry(&self.entry);
        }
        self.entry.kind = match meta.kind {
            FileKind::File => EntryKind::File,
            FileKind::Dir => EntryKind::Dir,
            FileKind::Symlink => EntryKind::Symlink,
            FileKind::Fifo => EntryKind::Fifo,
            FileKind::Char(device) => EntryKind::Char(device),
            FileKind::Block(device) => EntryKind::Block(device),
            FileKind::Socket => return Ok(()),
        };
        self.entry.link = link;
        for (name, value) in xattrs {
            if is_portable(&name) {
                self.entry.xattrs.push((name.into_vec(), value));
            }
        }
        if shared {
            self.links.insert(meta.inode(), self.entry.path.clone());
        }
        self.entry.size = if meta.is_file() { meta.size } else { 0 };
        self.writer.entry(&self.entry)?;
        match data {
            Some(mut data) => self.writer.copy(&mut data).map(|_| ()),
            None => Ok(()),
        }
    }

    fn set_path(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        if name.as_bytes().starts_with(PREFIX.as_bytes()) {
            let reason = "a file of this name would be read as a whiteout";
            return Err(Error::refused("pack", path, reason, ErrorKind::InvalidArgument));
        }
        let path = path.as_os_str().as_bytes();
        self.entry.path.extend_from_slice(if path.is_empty() { b"./" } else { path });
        Ok(())
    }

    /// Looks at a file, and opens its content; none if it is gone.
    fn look(&mut self, at: &Location, data: Option<&Location>) -> Result<Option<Found>> {
        let root = self.root(at)?;
        let name = at.path.file_name().unwrap_or_default().to_owned();
        let Some(dir) = self.hold(at)? else { return Ok(None) };
        let fail = |op| move |errno| root.error(op, &at.path, errno);
        let gone = |errno: Errno| matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP);
        let Some(mut meta) = at::meta_at(dir, &name).map_err(fail("statx"))? else {
            return Ok(None);
        };
        let xattrs = match xattr::read_at(dir, &name) {
            Ok(xattrs) => xattrs,
            Err(errno) if gone(errno) => return Ok(None),
            Err(errno) => return Err(fail("getxattr")(errno)),
        };
        let link = match meta.kind {
            FileKind::Symlink => match at::readlink_at(dir, &name) {
                Ok(text) => text.into_vec(),
                Err(errno) if gone(errno) || errno == Errno::INVAL => return Ok(None),
                Err(errno) => return Err(fail("readlink")(errno)),
            },
            _ => Vec::new(),
        };
        let mut file = None;
        if meta.is_file() && meta.size > 0 {
            let data = data.unwrap_or(at);
            let Some((open, size)) = self.open(data)? else { return Ok(None) };
            meta.size = size;
            file = Some(open);
        }
        Ok(Some(Found { meta, xattrs, link, data: file }))
    }

    /// Opens a file's content, and says how large it is now.
    fn open(&mut self, at: &Location) -> Result<Option<(File, u64)>> {
        let root = self.root(at)?;
        let name = at.path.file_name().unwrap_or_default().to_owned();
        let Some(dir) = self.hold(at)? else { return Ok(None) };
        match at::open_regular_at(dir, &name) {
            Ok((file, meta)) => Ok(Some((File::from(file), meta.size))),
            // Replaced by something else in this very moment.
            Err(Errno::NOENT | Errno::ISDIR | Errno::LOOP | Errno::NXIO) => Ok(None),
            Err(errno) => Err(root.error("open", &at.path, errno)),
        }
    }

    /// Holds the directory that a location's name is in, as neighbours are read one after another.
    fn hold(&mut self, at: &Location) -> Result<Option<&OwnedFd>> {
        let root = self.root(at)?;
        let parent = at.path.parent().unwrap_or(Path::new(""));
        let Some(held) = self.held.get_mut(at.root) else { return Ok(None) };
        if !matches!(held, Some((path, _)) if path == parent) {
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
            let mode = rustix::fs::Mode::empty();
            match root.open_with(parent, flags, mode, Resolve::Beneath) {
                Ok(fd) => *held = Some((parent.to_owned(), fd)),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(root.error("open directory", parent, errno)),
            }
        }
        Ok(held.as_ref().map(|(_, fd)| fd))
    }

    fn root(&self, at: &Location) -> Result<&'a Root> {
        self.roots
            .get(at.root)
            .copied()
            .ok_or_else(|| Error::invalid("pack", &at.path, "a change in an unknown root"))
    }
}

/// Whether an xattr means the same on every machine.
fn is_portable(name: &OsStr) -> bool {
    match name.as_bytes() {
        b"security.capability" | b"security.ima" => true,
        b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        other => other.starts_with(b"user.") && !whiteout::is_overlay_xattr(name),
    }
}

#[cfg(test)]
mod tests;

//! Making what an entry says.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::place::Dir;
use super::{Applier, as_path, join, lower, normalize, split};
use crate::at;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::{Device, Meta};
use crate::tar::{Entry, EntryKind, Reader};

/// The largest numbers that Linux's 32-bit `dev_t` holds.
const MAX_MAJOR: u32 = (1 << 12) - 1;
const MAX_MINOR: u32 = (1 << 20) - 1;

/// The size from which a file is worth a call of its own to have it written back early.
const EARLY: u64 = 256 << 10;

impl Applier<'_> {
    /// Makes an entry under a name in a directory.
    pub(super) fn make<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        name: &[u8],
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let here = self.dir(parent)?;
        let name = OsStr::from_bytes(name);
        match entry.kind {
            EntryKind::File => self.file(&here, name, entry, reader)?,
            EntryKind::Dir => self.directory(&here, name, entry)?,
            EntryKind::Symlink => {
                let text = OsStr::from_bytes(&entry.link);
                self.make_name(&here, name, "symlink", |here| {
                    rustix::fs::symlinkat(text, here, name)
                })?;
                self.dress_name(&here, name, entry, 0o777)?;
            }
            EntryKind::HardLink => self.hard_link(&here, name, entry)?,
            EntryKind::Fifo => self.special(&here, name, entry, FileType::Fifo, 0)?,
            EntryKind::Char(device) => {
                self.device(&here, name, entry, FileType::CharacterDevice, device)?;
            }
            EntryKind::Block(device) => {
                self.device(&here, name, entry, FileType::BlockDevice, device)?;
            }
        }
        self.mark(&here, name);
        Ok(())
    }

    /// Gives the root the attributes of its own entry.
    pub(super) fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        let root = self.root.clone();
        self.redress_dir(&root, entry)?;
        self.note_dir(&root, entry);
        Ok(())
    }

    /// Makes a name; what is there already is removed first.
    fn make_name<T>(
        &mut self,
        here: &Rc<Dir>,
        name: &OsStr,
        op: &'static str,
        make: impl Fn(&Dir) -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make(here) {
            Err(Errno::EXIST) => {
                self.remove_any(here, name)?;
                make(here).map_err(here.err(op, name))
            }
            made => made.map_err(here.err(op, name)),
        }
    }

    fn file<R: Read>(
        &mut self,
        here: &Rc<Dir>,
        name: &OsStr,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Set-id bits would not outlive the first write.
        let made = entry.mode & 0o777;
        let fd = self.make_name(here, name, "create", |here| {
            rustix::fs::openat(here, name, flags, Mode::from_raw_mode(made))
        })?;
        self.content(&fd, here, name, entry, reader)?;
        self.dress(&fd, here, name, entry, made)?;
        self.set_time(&fd, here, name, entry)
    }

    /// Writes a file's content straight from the reader's buffer.
    fn content<R: Read>(
        &mut self,
        fd: &OwnedFd,
        here: &Dir,
        name: &OsStr,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let mut end = 0;
        let written = &mut self.applied.content_size;
        reader.content(entry, |offset, piece| {
            end = offset + piece.len() as u64;
            *written += piece.len() as u64;
            write_at(fd, offset, piece).map_err(here.err("write", name))
        })?;
        if self.options.writeback && end >= EARLY {
            // Only a hint: a file system that does not take it loses nothing.
            let _ = cow_sys::writeback::start(fd);
        }
        if end < entry.size {
            rustix::fs::ftruncate(fd, entry.size).map_err(here.err("truncate", name))?;
        }
        Ok(())
    }

    fn directory(&mut self, here: &Rc<Dir>, name: &OsStr, entry: &Entry) -> Result<()> {
        let made = entry.mode & 0o1777;
        let make = || rustix::fs::mkdirat(here, name, Mode::from_raw_mode(made));
        let mut replaces = false;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                match at::open_dir_at(here, name) {
                    Ok(fd) => {
                        let dir = self.hold(fd, join(&here.path, name.as_bytes()))?;
                        self.redress_dir(&dir, entry)?;
                        self.note_dir(&dir, entry);
                        return Ok(());
                    }
                    Err(Errno::NOTDIR | Errno::LOOP) => {}
                    Err(errno) => return Err(here.error("open directory", name, errno)),
                }
                replaces = self.remove_any(here, name)?;
                make().map_err(here.err("mkdir", name))?;
            }
            Err(errno) => return Err(here.error("mkdir", name, errno)),
        }
        let dir = self.hold_new(here, name)?;
        self.dress(&*dir, here, name, entry, made)?;
        // Whatever this layer had there before, a whiteout too, had hidden all lower content.
        if replaces {
            self.make_opaque(&dir)?;
        }
        self.note_dir(&dir, entry);
        Ok(())
    }

    fn device(
        &mut self,
        here: &Rc<Dir>,
        name: &OsStr,
        entry: &Entry,
        kind: FileType,
        device: Device,
    ) -> Result<()> {
        let Device { major, minor } = device;
        let refuse =
            |reason, kind| Err(Error::refused("mknod", as_path(&entry.path), reason, kind));
        if major > MAX_MAJOR || minor > MAX_MINOR {
            return refuse("device number is out of range", ErrorKind::InvalidArgument);
        }
        if self.is_overlay() && kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
            return refuse("the device 0:0 would be a whiteout here", ErrorKind::Unsupported);
        }
        self.special(here, name, entry, kind, rustix::fs::makedev(major, minor))
    }

    fn special(
        &mut self,
        here: &Rc<Dir>,
        name: &OsStr,
        entry: &Entry,
        kind: FileType,
        device: u64,
    ) -> Result<()> {
        let made = entry.mode & 0o777;
        let mode = Mode::from_raw_mode(made);
        let answer = self.make_name(here, name, "mknod", |here| {
            match rustix::fs::mknodat(here, name, kind, mode, device) {
                // The kernel gives no one in a user namespace a device; the container gets its own
                // in /dev, and would not miss those of the image.
                Err(Errno::PERM) if kind != FileType::Fifo && in_user_namespace() => Ok(false),
                answer => answer.map(|()| true),
            }
        });
        if answer? { self.dress_name(here, name, entry, made) } else { Ok(()) }
    }

    fn hard_link(&mut self, here: &Rc<Dir>, name: &OsStr, entry: &Entry) -> Result<()> {
        let mut target = Vec::with_capacity(entry.link.len());
        normalize(&entry.link, &mut target);
        let refuse = |reason| Err(Error::invalid("link", as_path(&entry.path), reason));
        let Some((dir, target_name)) = self.link_target(entry, &target)? else {
            return refuse("hard link target does not exist");
        };
        let meta = at::meta_at(&dir, target_name).map_err(dir.err("statx", target_name))?;
        match meta {
            Some(meta) if meta.is_dir() => return refuse("hard link to a directory"),
            Some(meta) if self.is_overlay() && meta.is_whiteout_device() => {
                return refuse("hard link target does not exist");
            }
            _ => {}
        }
        let link = || rustix::fs::linkat(&dir, target_name, here, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                let present = at::meta_at(here, name).map_err(here.err("statx", name))?;
                let inode = |meta: Option<Meta>| meta.map(|meta| meta.inode());
                if inode(present) == inode(meta) {
                    return Ok(());
                }
                self.remove_any(here, name)?;
                link().map_err(here.err("link", name))
            }
            linked => linked.map_err(here.err("link", name)),
        }
    }

    /// Finds where a hard link leads, and copies a lower layer's file up to there if need be.
    fn link_target<'p>(
        &mut self,
        entry: &Entry,
        target: &'p [u8],
    ) -> Result<Option<(Rc<Dir>, &'p OsStr)>> {
        let (parent, name) = split(target);
        if name.is_empty() {
            return Ok(None);
        }
        let name = OsStr::from_bytes(name);
        let present = |dir: &Rc<Dir>| {
            at::meta_at(dir, name).map(|meta| meta.is_some()).map_err(dir.err("statx", name))
        };
        if let Some(dir) = self.find_dir(parent)?
            && present(&dir)?
        {
            return Ok(Some((dir, name)));
        }
        if !self.is_overlay() {
            return Ok(None);
        }
        if self.lowers.is_none() {
            let (path, target) = (as_path(&entry.path).to_owned(), as_path(target).to_owned());
            return Err(Error::NeedsLower { path, target });
        }
        let dir = self.dir(parent)?;
        if present(&dir)? {
            return Ok(Some((dir, name)));
        }
        let found = self.in_lowers(&join(&dir.path, name.as_bytes()))?;
        match (&self.lowers, found) {
            (Some(view), Some(node)) if !node.meta.is_dir() => {
                lower::copy_up(view, &node, &dir, name)?;
                Ok(Some((dir, name)))
            }
            _ => Ok(None),
        }
    }
}

/// Writes all of a piece of content.
fn write_at(fd: impl AsFd, mut offset: u64, mut piece: &[u8]) -> rustix::io::Result<()> {
    while !piece.is_empty() {
        match rustix::io::pwrite(&fd, piece, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                piece = &piece[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Whether this process is in a user namespace other than the initial one.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

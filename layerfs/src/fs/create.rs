//! Making new files in the upper layer.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::Fs;
use crate::node::{File, Node};
use crate::union::{Found, Name, Owned, Place, REAL_MODE, RealDir};
use crate::wire::{Args, EntryOut, Header, Out};

/// What is made.
enum Make<'a> {
    File,
    Dir,
    Node(FileType, u64),
    Symlink(&'a OsStr),
}

/// What is made, where, and as whom.
struct New<'a> {
    make: Make<'a>,
    name: &'a OsStr,
    mode: u32,
    umask: u32,
    uid: u32,
    gid: u32,
}

impl New<'_> {
    fn at(&self, dir: &OwnedFd, name: &OsStr, mode: u32) -> Result<Option<OwnedFd>, Errno> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        match &self.make {
            Make::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                let flags = flags | OFlags::NOFOLLOW;
                rustix::fs::openat(dir, name, flags, mode).map(Some)
            }
            Make::Dir => rustix::fs::mkdirat(dir, name, mode).map(|()| None),
            Make::Node(kind, device) => {
                rustix::fs::mknodat(dir, name, *kind, mode, *device).map(|()| None)
            }
            Make::Symlink(target) => rustix::fs::symlinkat(*target, dir, name).map(|()| None),
        }
    }

    fn is_dir(&self) -> bool {
        matches!(self.make, Make::Dir)
    }
}

/// The attribute that new files take over from their directory.
pub(super) const DEFAULT_ACL: &str = "system.posix_acl_default";

/// Whether a file is opened to be read and written, as it must be to be written through a map.
pub(super) fn is_both(flags: OFlags) -> bool {
    flags & OFlags::RWMODE == OFlags::RDWR
}

fn has_default_acl(upper: &RealDir, dir: &OwnedFd) -> bool {
    let acl = OsStr::new(DEFAULT_ACL);
    upper.has_default_acl(|| cow_sys::xattr::get(dir, OsStr::new(""), acl).is_ok())
}

impl Fs {
    pub(super) fn op_mkdir(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let (mode, umask) = (args.u32()?, args.u32()?);
        let name = args.name()?;
        let new = self.new_file(header, Make::Dir, name, mode, umask);
        let (entry, ..) = self.make(header, &new)?;
        out.entry(&entry);
        Ok(())
    }

    pub(super) fn op_mknod(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let (mode, device, umask) = (args.u32()?, args.u32()?, args.u32()?);
        args.u32()?;
        let name = args.name()?;
        let kind = FileType::from_raw_mode(mode);
        let device = rustix::fs::makedev(
            (device >> 8) & 0xfff,
            (device & 0xff) | ((device >> 12) & 0xf_ff00),
        );
        if kind == FileType::CharacterDevice && device == 0 {
            // It would be a whiteout.
            return Err(Errno::PERM);
        }
        let make =
            if kind == FileType::RegularFile { Make::File } else { Make::Node(kind, device) };
        let new = self.new_file(header, make, name, mode, umask);
        let (entry, ..) = self.make(header, &new)?;
        out.entry(&entry);
        Ok(())
    }

    pub(super) fn op_symlink(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let name = args.name()?;
        let target = args.string()?;
        let new = self.new_file(header, Make::Symlink(target), name, 0o777, 0);
        let (entry, ..) = self.make(header, &new)?;
        out.entry(&entry);
        Ok(())
    }

    pub(super) fn op_create(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let both = is_both(OFlags::from_bits_retain(args.u32()?));
        let (mode, umask) = (args.u32()?, args.u32()?);
        args.u32()?;
        let name = args.name()?;
        let new = self.new_file(header, Make::File, name, mode, umask);
        let (mut entry, node, file) = self.make(header, &new)?;
        let (flags, backing) = self.open_new(&node, file, entry.attr.mode, out)?;
        node.mapped.store(both && backing != 0, Ordering::Release);
        entry.attr_ttl = self.attr_ttl(&node, &node);
        out.entry(&entry);
        out.open(0, flags, backing);
        Ok(())
    }

    /// Opens a file that was just made, through the fd that made it.
    fn open_new(
        &self,
        node: &Arc<Node>,
        file: Option<OwnedFd>,
        mode: u32,
        out: &mut Out,
    ) -> Result<(u32, u32), Errno> {
        if let Some(fd) = file {
            let mut state = node.state();
            let fd = Arc::new(fd);
            if state.extra().file.replace(File { fd, writable: true }).is_none() {
                self.files.fetch_add(1, Ordering::Relaxed);
            }
        }
        let opened = self.opened(node, true, Some(mode));
        let mut state = node.state();
        let extra = state.extra();
        let full = self.files.load(Ordering::Relaxed) > self.file_limit;
        // The kernel needs no fd of ours for a file that was handed to it.
        if (extra.backing.is_some() || full)
            && extra.orphan.is_none()
            && let Some(file) = extra.file.take()
        {
            self.file_closed();
            out.later(file);
        }
        opened
    }

    pub(super) fn op_tmpfile(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let both = is_both(OFlags::from_bits_retain(args.u32()?));
        let (mode, umask) = (args.u32()?, args.u32()?);
        let parent = self.table.get(header.node)?;
        let upper = self.upper_dir(&parent)?;
        let dir = self.union.fds.get(&upper)?;
        let new = self.new_file(header, Make::File, OsStr::new(""), mode, umask);
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.masked(&new, &upper, &dir) & 0o7777);
        let file = rustix::fs::openat(&*dir, ".", flags, mode)?;
        self.own(&new, &dir, &file, OsStr::new(""))?;
        let stat = crate::union::stat(&file, OsStr::new(""))?;
        let real = self.union.id(&upper, &stat);
        let fd = Arc::new(file);
        let mut state = crate::node::State {
            parent: None,
            name: Name::from(OsStr::new("")),
            place: Place::File { dir: upper, name: Name::from(OsStr::new("")), data: None },
            real,
            extra: None,
        };
        state.extra().orphan = Some(Arc::clone(&fd));
        state.extra().file = Some(File { fd, writable: true });
        self.files.fetch_add(1, Ordering::Relaxed);
        let node = self.table.insert_unnamed(self.union.shown(real), FileType::RegularFile, state);
        let (flags, backing) = self.opened(&node, true, None)?;
        node.mapped.store(both && backing != 0, Ordering::Release);
        out.entry(&self.entry_of(&node)?);
        out.open(0, flags, backing);
        Ok(())
    }

    fn new_file<'a>(
        &self,
        header: &Header,
        make: Make<'a>,
        name: &'a OsStr,
        mode: u32,
        umask: u32,
    ) -> New<'a> {
        let (uid, gid) = self.options.ids.keep(header.uid, header.gid);
        New { make, name, mode, umask, uid, gid }
    }

    /// The mode without what the umask forbids, unless the directory has a default ACL, which the
    /// upper's file system then applies in the umask's place.
    fn masked(&self, new: &New<'_>, upper: &RealDir, dir: &OwnedFd) -> u32 {
        if self.union.overrides_upper() && matches!(new.make, Make::File | Make::Dir) {
            return REAL_MODE;
        }
        if new.mode & new.umask == 0 || self.options.acl && has_default_acl(upper, dir) {
            return new.mode;
        }
        new.mode & !new.umask
    }

    /// Makes a file in the upper layer, over a whiteout if there is one.
    fn make(
        &self,
        header: &Header,
        new: &New<'_>,
    ) -> Result<(EntryOut, Arc<Node>, Option<OwnedFd>), Errno> {
        let parent = self.table.get(header.node)?;
        if new.name.as_bytes().starts_with(crate::union::WHITEOUT_FILE) {
            return Err(Errno::INVAL);
        }
        let upper = self.upper_dir(&parent)?;
        let dir = self.union.fds.get(&upper)?;
        let mode = self.masked(new, &upper, &dir);
        let file = match new.at(&dir, new.name, mode) {
            Ok(file) => {
                self.finish_new(new, &parent, &dir)?;
                file
            }
            Err(Errno::EXIST) => self.make_over_whiteout(new, &upper, &dir, mode)?,
            Err(error) => return Err(error),
        };
        let stat = match &file {
            Some(file) => self.union.look(0, file, OsStr::new(""))?,
            None => self.union.look(0, &dir, new.name)?,
        };
        let id = self.union.id(&upper, &stat);
        let place = match new.is_dir() {
            true => Place::Dir([RealDir::fresh(&upper, new.name)].into()),
            false => Place::File { dir: upper, name: Name::from(new.name), data: None },
        };
        let found = Found { id, ino: self.union.shown(id), stat, place };
        let node = self.table.made(&found, &parent, new.name);
        let attr = self.attr(&node, &stat);
        let ttl = self.options.timeout;
        Ok((EntryOut { node: node.id, entry_ttl: ttl, attr_ttl: ttl, attr }, node, file))
    }

    /// Gives a file that was made in place its owner, and hides what lower layers have there.
    fn finish_new(&self, new: &New<'_>, parent: &Arc<Node>, dir: &OwnedFd) -> Result<(), Errno> {
        let finished = self.own(new, dir, dir, new.name).and_then(|()| {
            let stack = self.stack(parent)?;
            if new.is_dir() && stack.len() > 1 && self.union.lower_has(&stack[1..], new.name)? {
                self.union.set_opaque(dir, new.name)?;
            }
            Ok(())
        });
        if finished.is_err() {
            let flags = if new.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let _ = rustix::fs::unlinkat(dir, new.name, flags);
        } else {
            self.union.drop_whiteout_file(dir, new.name);
        }
        finished
    }

    /// Chowns what was made to the caller; the group is that of a set-gid directory.
    fn own(
        &self,
        new: &New<'_>,
        parent: &OwnedFd,
        dir: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), Errno> {
        if self.union.overrides_upper() {
            return self.note_owner(new, parent, dir, name);
        }
        if (new.uid, new.gid) == self.owner {
            return Ok(());
        }
        let above = crate::union::stat(parent, OsStr::new(""))?;
        let inherits = above.stx_mode & 0o2000 != 0;
        let group = (!inherits).then(|| Gid::from_raw(new.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        rustix::fs::chownat(dir, name, Some(Uid::from_raw(new.uid)), group, flags)?;
        // A change of owner drops set-id bits.
        if new.mode & 0o6000 != 0 && !new.is_dir() && !matches!(new.make, Make::Symlink(_)) {
            let mode = crate::union::stat(dir, name)?.stx_mode;
            let mode = u32::from(mode) & 0o1777 | new.mode & 0o6000;
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        Ok(())
    }

    /// Records the caller as the owner of what was made, and the mode that was asked for.
    fn note_owner(
        &self,
        new: &New<'_>,
        parent: &OwnedFd,
        dir: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), Errno> {
        let above = self.union.look(0, parent, OsStr::new(""))?;
        let inherits = above.stx_mode & 0o2000 != 0;
        let gid = if inherits { above.stx_gid } else { new.gid };
        let made = crate::union::stat(dir, name)?;
        let handed = if inherits && new.is_dir() { 0o2000 } else { 0 };
        let mode = u32::from(made.stx_mode) & !0o7777 | new.mode & 0o7777 & !new.umask | handed;
        if self.union.set_owned(dir, name, Owned { uid: new.uid, gid, mode })? {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(new.uid)), Some(Gid::from_raw(gid)));
        match rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
            // Who keeps owners in attributes may not be able to do better.
            Err(Errno::PERM) => Ok(()),
            answer => answer,
        }
    }

    /// Makes a file aside and renames it over the whiteout that has its name.
    fn make_over_whiteout(
        &self,
        new: &New<'_>,
        upper: &Arc<RealDir>,
        dir: &Arc<OwnedFd>,
        mode: u32,
    ) -> Result<Option<OwnedFd>, Errno> {
        let work = self.union.work.as_ref().ok_or(Errno::ROFS)?;
        if !self.union.is_hidden(upper, dir, new.name)? {
            return Err(Errno::EXIST);
        }
        let aside = work.name();
        let nest = self.nest(dir, &aside)?;
        let made = new.at(&nest, new.name, mode).and_then(|file| {
            self.own(new, dir, &nest, new.name)?;
            if new.is_dir() {
                self.union.set_opaque(&nest, new.name)?;
                let flags = RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&nest, new.name, dir, new.name, flags)?;
            } else {
                rustix::fs::renameat(&nest, new.name, dir, new.name)?;
            }
            Ok(file)
        });
        self.union.clear_aside(OsStr::new(&aside));
        made
    }

    /// A directory in the work directory that hands down what `dir` hands down: group and default
    /// ACL.
    fn nest(&self, dir: &OwnedFd, aside: &str) -> Result<OwnedFd, Errno> {
        let work = self.union.work.as_ref().ok_or(Errno::ROFS)?;
        rustix::fs::mkdirat(&work.dir, aside, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let nest = rustix::fs::openat(&work.dir, aside, flags, Mode::empty())?;
        let above = crate::union::stat(dir, OsStr::new(""))?;
        if above.stx_mode & 0o2000 != 0 {
            rustix::fs::fchown(&nest, None, Some(Gid::from_raw(above.stx_gid)))?;
            rustix::fs::fchmod(&nest, Mode::RWXU | Mode::SGID)?;
        }
        let default = OsStr::new(DEFAULT_ACL);
        let here = OsStr::new("");
        if self.options.acl
            && let Ok(acl) = cow_sys::xattr::get(dir, here, default)
        {
            cow_sys::xattr::set(&nest, here, default, &acl)?;
        }
        Ok(nest)
    }
}

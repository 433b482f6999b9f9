//! Attributes, links' texts and the size of the file system.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::Fs;
use crate::node::{Node, State};
use crate::union::{Name, Owned, Place};
use crate::wire::{Args, Header, Out, SetAttr};

/// Where the attributes of an upper file are changed: a name in a directory, or a file without one.
pub(super) enum Target {
    /// A name below a directory; for a directory itself the name is empty.
    Named(Arc<OwnedFd>, Name),
    /// The file itself.
    Orphan(Arc<OwnedFd>),
}

impl Target {
    fn at(&self) -> (&OwnedFd, &OsStr) {
        match self {
            Self::Named(fd, name) => (fd, name),
            Self::Orphan(fd) => (fd, OsStr::new("")),
        }
    }
}

impl Fs {
    pub(super) fn op_getattr(&self, header: &Header, out: &mut Out) -> Result<(), Errno> {
        let asked = self.table.get(header.node)?;
        let node = asked.live();
        let ttl = self.attr_ttl(&node, &asked);
        let attr = self.attr(&node, &self.stat(&node)?);
        out.attr_out(&attr, ttl);
        Ok(())
    }

    /// How long the kernel may keep the attributes of a node that was asked for, maybe under the number
    /// of the one whose place it took.
    pub(super) fn attr_ttl(&self, node: &Node, asked: &Node) -> Duration {
        let changes = node.id != asked.id || node.mapped.load(Ordering::Acquire);
        if changes { Duration::ZERO } else { self.options.timeout }
    }

    pub(super) fn op_readlink(&self, header: &Header, out: &mut Out) -> Result<(), Errno> {
        let node = self.table.get(header.node)?.live();
        let target =
            self.look_at(&node, |fd, name| rustix::fs::readlinkat(fd, name, Vec::new()))?;
        out.bytes(target.to_bytes());
        Ok(())
    }

    /// The directory fd and the name of a file; for a directory its own fd and no name.
    pub(super) fn place(&self, node: &Node) -> Result<(Arc<OwnedFd>, Name), Errno> {
        self.place_in(&node.state())
    }

    fn place_in(&self, state: &State) -> Result<(Arc<OwnedFd>, Name), Errno> {
        if let Some(orphan) = state.extra.as_ref().and_then(|extra| extra.orphan.as_ref()) {
            return Ok((Arc::clone(orphan), Name::from(OsStr::new(""))));
        }
        match &state.place {
            Place::Dir(stack) => {
                let top = stack.first().ok_or(Errno::IO)?;
                Ok((self.union.fds.get(top)?, Name::from(OsStr::new(""))))
            }
            Place::File { dir, name, .. } => Ok((self.union.fds.get(dir)?, name.clone())),
        }
    }

    /// Looks at a file where it is, without a rename or a removal meanwhile: the kernel keeps these from
    /// changes of the same file that somebody asks for, but not from looks.
    pub(super) fn look_at<T>(
        &self,
        node: &Node,
        look: impl FnOnce(&OwnedFd, &OsStr) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let state = node.state();
        let (fd, name) = self.place_in(&state)?;
        look(&fd, &name)
    }

    /// Where a node's attributes are changed; it has been copied up.
    pub(super) fn target(&self, node: &Node) -> Result<Target, Errno> {
        let orphan = node.state().extra.as_ref().and_then(|extra| extra.orphan.clone());
        if let Some(orphan) = orphan {
            return Ok(Target::Orphan(orphan));
        }
        let (fd, name) = self.place(node)?;
        Ok(Target::Named(fd, name))
    }

    pub(super) fn op_setattr(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        self.writable()?;
        let set = SetAttr::parse(&mut args)?;
        let asked = self.table.get(header.node)?;
        if set.only_notes_change() && self.is_as_below(&asked.live(), &set)? {
            return self.op_getattr(header, out);
        }
        let size = set.has(SetAttr::SIZE).then_some(set.size);
        // A change of the owner takes bits of the mode away again.
        let is_mode = set.has(SetAttr::MODE) && !set.has(SetAttr::UID | SetAttr::GID);
        let mode = u16::try_from(set.mode & 0o7777).ok();
        let mode = mode.filter(|_| is_mode && !self.union.overrides_upper());
        let has_mode = match size {
            Some(_) => self.copy_up(&asked.live(), size).map(|()| false)?,
            None => self.copy_up_as(&asked.live(), mode)? && mode.is_some(),
        };
        let node = asked.live();
        if let Some(size) = size {
            let file = self.writable_file(&node)?;
            self.union.settle_data(&file)?;
            rustix::fs::ftruncate(&file, size)?;
            if set.has(SetAttr::KILL_SUIDGID) {
                self.kill_set_ids(&node)?;
            }
        }
        let target = self.target(&node)?;
        if !self.note_change(&node, &target, &set)? {
            if set.has(SetAttr::UID | SetAttr::GID) {
                self.chown(&target, &set)?;
            }
            if set.has(SetAttr::MODE) && !has_mode && node.kind != FileType::Symlink {
                chmod(&target, set.mode & 0o7777)?;
            }
        }
        if set.only_notes_change() {
            // The kernel writes times back by itself, beside renames and removals.
            self.look_at(&node, |fd, name| touch((fd, name), &set))?;
        } else if set.has(SetAttr::ATIME | SetAttr::MTIME) {
            touch(target.at(), &set)?;
        }
        let ttl = self.attr_ttl(&node, &asked);
        let attr = self.attr(&node, &self.stat(&node)?);
        out.attr_out(&attr, ttl);
        Ok(())
    }

    /// Whether a node is a lower file that was last modified when the kernel says.
    ///
    /// With the writeback cache the kernel keeps the time of the last change itself, and has us note it when
    /// a name is removed. No file system can be told that time, so nothing has to be copied up for it.
    fn is_as_below(&self, node: &Node, set: &SetAttr) -> Result<bool, Errno> {
        let is_lower = match &node.state().place {
            Place::File { dir, data, .. } => !self.union.is_upper(dir) && data.is_none(),
            Place::Dir(_) => false,
        };
        Ok(is_lower && self.attr(node, &self.stat(node)?).mtime == set.mtime)
    }

    /// Records a new owner or mode where the upper layer keeps them in attributes; says whether it does.
    fn note_change(&self, node: &Node, target: &Target, set: &SetAttr) -> Result<bool, Errno> {
        let owner = set.has(SetAttr::UID | SetAttr::GID);
        if !self.union.overrides_upper() || !owner && !set.has(SetAttr::MODE) {
            return Ok(false);
        }
        let mut owned = Owned::of(&self.stat(node)?);
        let (uid, gid) = self.options.ids.keep(set.uid, set.gid);
        if set.has(SetAttr::UID) {
            owned.uid = uid;
        }
        if set.has(SetAttr::GID) {
            owned.gid = gid;
        }
        if owner && !node.is_dir() {
            owned.mode = without_set_ids(owned.mode);
        }
        if set.has(SetAttr::MODE) {
            owned.mode = owned.mode & !0o7777 | set.mode & 0o7777;
        }
        let (fd, name) = target.at();
        self.union.set_owned(fd, name, owned)
    }

    fn chown(&self, target: &Target, set: &SetAttr) -> Result<(), Errno> {
        let (uid, gid) = self.options.ids.keep(set.uid, set.gid);
        let uid = set.has(SetAttr::UID).then(|| Uid::from_raw(uid));
        let gid = set.has(SetAttr::GID).then(|| Gid::from_raw(gid));
        let (fd, name) = target.at();
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        match rustix::fs::chownat(fd, name, uid, gid, flags) {
            // Links and special files of who keeps owners in attributes stay as they are.
            Err(Errno::PERM) if self.union.overrides_upper() => Ok(()),
            answer => answer,
        }
    }

    /// Drops the set-id bits, as a write by somebody without CAP_FSETID does.
    pub(super) fn kill_set_ids(&self, node: &Node) -> Result<(), Errno> {
        let owned = Owned::of(&self.stat(node)?);
        self.keep_bits(node, owned, without_set_ids(owned.mode))
    }

    /// Drops the set-id bits before a change of the data of which the kernel does not say, as it does of a
    /// write, whether its caller may leave them: only root may then. Who is outside of the group leaves no
    /// set-gid bit (`setattr_should_drop_sgid` of the kernel).
    pub(super) fn writes_as(&self, header: &Header, node: &Node) -> Result<(), Errno> {
        if header.uid == 0 {
            return Ok(());
        }
        let owned = Owned::of(&self.stat(node)?);
        let (_, group) = self.options.ids.show(owned.uid, owned.gid);
        let kept = without_set_ids(owned.mode);
        self.keep_bits(node, owned, if header.gid == group { kept } else { kept & !0o2000 })
    }

    /// Takes bits of the mode away, of which the kernel does not know.
    fn keep_bits(&self, node: &Node, owned: Owned, kept: u32) -> Result<(), Errno> {
        if kept == owned.mode {
            return Ok(());
        }
        let target = self.target(node)?;
        if self.union.overrides_upper() {
            let (fd, name) = target.at();
            self.union.set_owned(fd, name, Owned { mode: kept, ..owned })?;
        } else {
            chmod(&target, kept & 0o7777)?;
        }
        // The kernel expects a write to change the times and the size, but not the mode.
        self.forget_attributes(node.id);
        Ok(())
    }

    /// Drops the set-gid bit, as a change of the mode by somebody outside of the group does.
    pub(super) fn drop_set_gid(&self, node: &Node) -> Result<(), Errno> {
        let owned = Owned::of(&self.stat(node)?);
        if owned.mode & 0o2000 == 0 {
            return Ok(());
        }
        // An upper that keeps modes in attributes keeps no ACLs.
        chmod(&self.target(node)?, owned.mode & 0o5777)
    }

    pub(super) fn op_statfs(&self, out: &mut Out) -> Result<(), Errno> {
        // The space of what was removed before counts as free.
        out.let_go();
        let layer = self.union.layers.first().ok_or(Errno::IO)?;
        let stat = rustix::fs::fstatvfs(&*self.union.fds.get(&layer.root)?)?;
        for value in [stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree] {
            out.u64(value);
        }
        for value in [stat.f_bsize, stat.f_namemax, stat.f_frsize] {
            out.u32(u32::try_from(value).unwrap_or(u32::MAX));
        }
        out.bytes(&[0; 4 + 24]);
        Ok(())
    }
}

/// A mode without the set-id bits.
fn without_set_ids(mode: u32) -> u32 {
    // Without group execution the bit once meant mandatory locking.
    let group = if mode & 0o010 != 0 { 0o2000 } else { 0 };
    mode & !(0o4000 | group)
}

/// Changes a mode: of a name, or of a file that may be open without any right but to be named.
pub(super) fn chmod(target: &Target, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode);
    match target.at() {
        (fd, name) if !name.is_empty() => rustix::fs::chmodat(fd, name, mode, AtFlags::empty()),
        (fd, _) => match rustix::fs::fchmod(fd, mode) {
            Err(Errno::BADF) => rustix::fs::chmod(magic(fd), mode),
            answer => answer,
        },
    }
}

/// The path by which an fd's own file can be opened again.
pub(super) fn magic(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn touch(place: (&OwnedFd, &OsStr), set: &SetAttr) -> Result<(), Errno> {
    let time = |wanted: u32, now: u32, (secs, nanos): (i64, u32)| {
        let tv_nsec = match (set.has(wanted), set.has(now)) {
            (false, _) => rustix::fs::UTIME_OMIT,
            (true, true) => rustix::fs::UTIME_NOW,
            (true, false) => nanos.into(),
        };
        Timespec { tv_sec: secs, tv_nsec }
    };
    let times = Timestamps {
        last_access: time(SetAttr::ATIME, SetAttr::ATIME_NOW, set.atime),
        last_modification: time(SetAttr::MTIME, SetAttr::MTIME_NOW, set.mtime),
    };
    match place {
        (fd, name) if !name.is_empty() => {
            rustix::fs::utimensat(fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        }
        (fd, _) => match rustix::fs::futimens(fd, &times) {
            Err(Errno::BADF) => {
                rustix::fs::utimensat(rustix::fs::CWD, magic(fd), &times, AtFlags::empty())
            }
            answer => answer,
        },
    }
}

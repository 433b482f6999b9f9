//! Owner, xattrs, mode and times.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps};
use rustix::io::Errno;

use super::place::Dir;
use super::{Applier, as_path};
use crate::at;
use crate::error::{Error, Result};
use crate::meta::Time;
use crate::overlay_view::{Node, OverlayView};
use crate::root::Resolve;
use crate::tar::{Entry, EntryKind};
use crate::whiteout;
use crate::xattr;

const ACCESS_ACL: &str = "system.posix_acl_access";
pub(super) const DEFAULT_ACL: &str = "system.posix_acl_default";

/// The name by which [`at`] and [`xattr`] take the fd itself.
const THIS: &str = "";

/// What the kernel gives to a new file of this process.
#[derive(Debug)]
pub(super) struct Process {
    /// None where `/proc` does not say; then no mode is taken for granted.
    umask: Option<u32>,
    uid: u32,
    gid: u32,
}

impl Process {
    pub(super) fn new() -> Self {
        Self {
            umask: read_umask(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// The mode of a file that was made with `mode` in `here`, if that is certain.
    fn given(&self, here: &Dir, mode: u32) -> Option<u32> {
        (!here.bequeaths.get()).then_some(mode & !self.umask?)
    }

    fn owns(&self, here: &Dir, uid: u32, gid: u32) -> bool {
        !here.bequeaths.get() && uid == self.uid && gid == self.gid
    }

    /// Gives a new directory exactly this mode and the process's own ids, whatever it inherited.
    pub(super) fn settle(&self, dir: &Dir, here: &Dir, mode: u32) -> rustix::io::Result<()> {
        if here.bequeaths.get() {
            at::chown_at(dir, OsStr::new(THIS), self.uid, self.gid)?;
            disinherit(dir)?;
        }
        if self.given(here, mode) == Some(mode) {
            return Ok(());
        }
        rustix::fs::fchmod(dir, Mode::from_raw_mode(mode))
    }
}

/// Reads this process's umask without changing it, which would disturb other threads.
fn read_umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

/// Takes away the ACLs that a new file got from its directory.
fn disinherit(fd: impl AsFd) -> rustix::io::Result<()> {
    for acl in [ACCESS_ACL, DEFAULT_ACL] {
        xattr::remove_at(&fd, OsStr::new(THIS), OsStr::new(acl))?;
    }
    Ok(())
}

/// What is set on a directory after everything else.
#[derive(Debug)]
pub(super) struct DirEnd {
    path: Box<[u8]>,
    mtime: Time,
    default_acl: Option<Vec<u8>>,
}

impl DirEnd {
    pub(super) fn time(path: &[u8], mtime: Time) -> Self {
        Self { path: path.into(), mtime, default_acl: None }
    }
}

/// What a directory takes over from a lower layer last.
#[derive(Debug)]
pub(super) struct DirAttrs {
    mtime: Time,
    default_acl: Option<Vec<u8>>,
}

impl DirAttrs {
    /// Copies owner, xattrs and mode from a directory of the lower layers.
    pub(super) fn copy(view: &OverlayView<'_>, node: &Node, dir: &Dir) -> Result<Self> {
        let (path, this, meta) = (as_path(&dir.path), OsStr::new(THIS), &node.meta);
        let mut xattrs = view.root(&node.meta_at)?.xattrs(&node.meta_at.path)?;
        let default_acl = xattrs.remove(OsStr::new(DEFAULT_ACL));
        at::chown_at(dir, this, meta.uid, meta.gid)
            .map_err(|errno| Error::sys("chown", path, errno))?;
        for (name, value) in &xattrs {
            if view.marks().visible(name).is_none() {
                continue;
            }
            match xattr::set_at(dir, this, name, value) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(Error::sys("setxattr", path, errno)),
            }
        }
        rustix::fs::fchmod(dir, Mode::from_raw_mode(meta.mode))
            .map_err(|errno| Error::sys("chmod", path, errno))?;
        dir.bequeaths.set(meta.mode & 0o2000 != 0);
        Ok(Self { mtime: meta.mtime, default_acl })
    }

    /// As what is set at the end.
    pub(super) fn end(self, path: &[u8]) -> DirEnd {
        DirEnd { path: path.into(), mtime: self.mtime, default_acl: self.default_acl }
    }

    /// Sets the rest at once, on a directory in which nothing more is made.
    pub(super) fn set(&self, dir: &Dir) -> Result<()> {
        set_end(dir, self.mtime, self.default_acl.as_deref())
            .map_err(|errno| Error::sys("set times", as_path(&dir.path), errno))
    }
}

fn set_end(dir: impl AsFd, mtime: Time, acl: Option<&[u8]>) -> rustix::io::Result<()> {
    if let Some(acl) = acl {
        match xattr::set_at(&dir, OsStr::new(THIS), OsStr::new(DEFAULT_ACL), acl) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::futimens(&dir, &timestamps(mtime))
}

fn timestamps(mtime: Time) -> Timestamps {
    // The kernel clamps what is outside of the file system's range.
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Whether an xattr of a tar is taken over.
///
/// `trusted.` is the administrator's, not an image's, and holds overlayfs's marks, which also have a
/// form in `user.`; an SELinux label is this machine's policy's to give.
fn is_wanted(name: &OsStr) -> bool {
    let wanted = !name.as_bytes().starts_with(b"trusted.")
        && name != "security.selinux"
        && !whiteout::is_overlay_xattr(name);
    if !wanted {
        tracing::debug!(?name, "xattr of a tar is not taken over");
    }
    wanted
}

impl Applier<'_> {
    /// Gives an open file that was just made with `made` as mode its owner, xattrs and mode.
    pub(super) fn dress(
        &self,
        fd: impl AsFd,
        here: &Dir,
        name: &OsStr,
        entry: &Entry,
        made: u32,
    ) -> Result<()> {
        let (fd, this) = (fd.as_fd(), OsStr::new(THIS));
        let mut mode = self.process.given(here, made);
        if here.bequeaths.get() {
            disinherit(fd).map_err(here.err("removexattr", name))?;
        }
        if !self.process.owns(here, entry.uid, entry.gid) {
            at::chown_at(fd, this, entry.uid, entry.gid).map_err(here.err("chown", name))?;
        }
        for (attr, value) in &entry.xattrs {
            let attr = OsStr::from_bytes(attr);
            // A default ACL would be inherited by what is yet to be made in the directory.
            if !is_wanted(attr) || attr == DEFAULT_ACL {
                continue;
            }
            set_xattr(entry, attr, xattr::set_at(fd, this, attr, value))
                .map_err(here.err("setxattr", name))?;
            if attr == ACCESS_ACL {
                mode = None;
            }
        }
        if mode != Some(entry.mode) {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
                .map_err(here.err("chmod", name))?;
        }
        Ok(())
    }

    /// As [`Applier::dress`], with the time, for what cannot be opened: links, devices, pipes.
    pub(super) fn dress_name(
        &self,
        here: &Dir,
        name: &OsStr,
        entry: &Entry,
        made: u32,
    ) -> Result<()> {
        if !self.process.owns(here, entry.uid, entry.gid) {
            at::chown_at(here, name, entry.uid, entry.gid).map_err(here.err("chown", name))?;
        }
        let is_link = entry.kind == EntryKind::Symlink;
        if here.bequeaths.get() && !is_link {
            xattr::remove_at(here, name, OsStr::new(ACCESS_ACL))
                .map_err(here.err("removexattr", name))?;
        }
        for (attr, value) in &entry.xattrs {
            let attr = OsStr::from_bytes(attr);
            if is_wanted(attr) {
                set_xattr(entry, attr, xattr::set_at(here, name, attr, value))
                    .map_err(here.err("setxattr", name))?;
            }
        }
        // The mode of a symbolic link means nothing and cannot be changed.
        if !is_link && self.process.given(here, made) != Some(entry.mode) {
            at::chmod_at(here, name, entry.mode).map_err(here.err("chmod", name))?;
        }
        let times = timestamps(entry.mtime);
        rustix::fs::utimensat(here, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(here.err("utimens", name))
    }

    /// Sets an open file's time.
    pub(super) fn set_time(
        &self,
        fd: impl AsFd,
        here: &Dir,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<()> {
        rustix::fs::futimens(fd, &timestamps(entry.mtime)).map_err(here.err("utimens", name))
    }

    /// Replaces the attributes of a directory that existed before.
    pub(super) fn redress_dir(&self, dir: &Dir, entry: &Entry) -> Result<()> {
        let this = OsStr::new(THIS);
        let error = |op: &'static str| move |errno| Error::sys(op, as_path(&dir.path), errno);
        at::chown_at(dir, this, entry.uid, entry.gid).map_err(error("chown"))?;
        for old in xattr::names_at(dir, this).map_err(error("listxattr"))? {
            let kept = entry.xattrs.iter().any(|(attr, _)| *attr == old.as_bytes());
            if (!kept && is_wanted(&old)) || old == DEFAULT_ACL {
                xattr::remove_at(dir, this, &old).map_err(error("removexattr"))?;
            }
        }
        for (attr, value) in &entry.xattrs {
            let attr = OsStr::from_bytes(attr);
            if is_wanted(attr) && attr != DEFAULT_ACL {
                set_xattr(entry, attr, xattr::set_at(dir, this, attr, value))
                    .map_err(error("setxattr"))?;
            }
        }
        rustix::fs::fchmod(dir, Mode::from_raw_mode(entry.mode)).map_err(error("chmod"))
    }

    /// Notes what a directory with an entry gets at the end.
    pub(super) fn note_dir(&mut self, dir: &Dir, entry: &Entry) {
        let acl = entry.xattrs.iter().find(|(attr, _)| attr == DEFAULT_ACL.as_bytes());
        let default_acl = acl.map(|(_, value)| value.clone());
        let end = DirEnd { path: dir.path.clone(), mtime: entry.mtime, default_acl };
        self.ends.insert(dir.ino, end);
        self.implicit.remove(&dir.ino);
        dir.bequeaths.set(entry.mode & 0o2000 != 0);
    }

    /// Gives all directories their times and default ACLs.
    pub(super) fn end_dirs(&mut self) -> Result<()> {
        let mut ends: Vec<_> = std::mem::take(&mut self.ends).into_iter().collect();
        ends.sort_unstable_by(|(_, one), (_, other)| one.path.cmp(&other.path));
        for (ino, end) in ends {
            let (target, path) = (self.target, as_path(&end.path));
            let error = |op: &'static str| move |errno| target.error(op, path, errno);
            let dir = self.target.open_with(path, at::DIR, Mode::empty(), Resolve::Beneath);
            // A later entry may have put something else in its place.
            let dir = match dir {
                Ok(dir) => dir,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(errno) => return Err(error("open directory")(errno)),
            };
            if at::meta_of(&dir).map_err(error("statx"))?.ino == ino {
                set_end(&dir, end.mtime, end.default_acl.as_deref()).map_err(error("utimens"))?;
            }
        }
        Ok(())
    }
}

/// Judges how setting an xattr went: a file system without xattrs, or one that allows `user.` only
/// on files and directories, makes a poorer tree but no wrong one.
fn set_xattr(
    entry: &Entry,
    attr: &OsStr,
    answer: rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let plain = matches!(entry.kind, EntryKind::File | EntryKind::Dir);
    let user = attr.as_bytes().starts_with(b"user.");
    match answer {
        Err(Errno::OPNOTSUPP) => {}
        Err(Errno::PERM) if user && !plain => {}
        answer => return answer,
    }
    tracing::debug!(?attr, path = ?as_path(&entry.path), "xattr is not supported here");
    Ok(())
}

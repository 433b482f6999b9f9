//! Whiteouts: how the upper layer says that a name of the lower ones is gone.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};
use rustix::io::Errno;

use super::{RealDir, Union, Work, lock};

/// What the name of a whiteout file begins with, where devices cannot be made.
pub const WHITEOUT_FILE: &[u8] = b".wh.";
/// The file that makes its directory opaque.
pub(super) const OPAQUE_FILE: &str = ".wh..wh..opq";
/// The link in the work directory that all whiteouts are links of.
const SHARED: &str = "#whiteout";

/// How whiteouts are made on the upper's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// As links of one device node in the work directory: no inode each.
    Linked,
    /// Each as a device node of its own.
    Device,
    /// As files named `.wh.NAME`.
    File,
}

impl Source {
    /// Finds out what the file system and the privileges allow.
    pub(super) fn probe(work: &OwnedFd) -> Self {
        match make_device(work, OsStr::new(SHARED)) {
            Ok(()) => Self::Linked,
            Err(_) => Self::File,
        }
    }
}

/// The inode number of the link in the work directory; 0 when it is not there.
pub(super) fn shared_inode(work: &OwnedFd) -> u64 {
    super::merge::stat(work, OsStr::new(SHARED)).map_or(0, |stat| stat.stx_ino)
}

fn make_device(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let mode = Mode::empty();
    match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, mode, 0) {
        Err(Errno::EXIST) if name == SHARED => Ok(()),
        answer => answer,
    }
}

/// The name of the file that hides `name`, if it is not too long for one.
fn file_name(name: &OsStr) -> Option<OsString> {
    let mut hidden = OsString::from(OsStr::from_bytes(WHITEOUT_FILE));
    hidden.push(name);
    (hidden.len() <= 255).then_some(hidden)
}

/// Whether a directory has a whiteout file for `name`.
pub(super) fn has_file(dir: &OwnedFd, name: &OsStr) -> bool {
    file_name(name).is_some_and(|name| super::merge::stat(dir, &name).is_ok())
}

impl Union {
    /// Hides `name` of the lower layers, in place of an upper entry that is not a directory.
    ///
    /// # Errors
    /// What the upper's file system says; the upper entry is then as it was.
    pub fn white_out(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<(), Errno> {
        let fd = self.fds.get(dir)?;
        let work = self.work.as_ref().ok_or(Errno::ROFS)?;
        let source = *lock(&work.whiteouts);
        match source {
            Source::File => {
                let hidden = file_name(name).ok_or(Errno::NAMETOOLONG)?;
                let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
                let flags = flags | rustix::fs::OFlags::CLOEXEC;
                rustix::fs::openat(&*fd, &hidden, flags, Mode::empty())?;
                dir.whiteout_files.store(true, Ordering::Relaxed);
                match rustix::fs::unlinkat(&*fd, name, AtFlags::empty()) {
                    Err(Errno::NOENT) => Ok(()),
                    answer => answer,
                }
            }
            Source::Linked => {
                match rustix::fs::linkat(&work.dir, SHARED, &*fd, name, AtFlags::empty()) {
                    Err(Errno::EXIST) => self.white_out_over(work, &fd, name),
                    Err(Errno::MLINK) => {
                        // The node has all the links it can have: the next ones are of a new node.
                        rustix::fs::unlinkat(&work.dir, SHARED, AtFlags::empty())?;
                        make_device(&work.dir, OsStr::new(SHARED))?;
                        work.whiteout_ino.store(shared_inode(&work.dir), Ordering::Relaxed);
                        self.white_out(dir, name)
                    }
                    Err(Errno::PERM | Errno::NOENT) => {
                        *lock(&work.whiteouts) = Source::Device;
                        self.white_out(dir, name)
                    }
                    answer => answer,
                }
            }
            Source::Device => match make_device(&fd, name) {
                Err(Errno::EXIST) => self.white_out_over(work, &fd, name),
                answer => answer,
            },
        }
    }

    /// Puts a whiteout in place of an upper entry with one rename.
    fn white_out_over(&self, work: &Work, fd: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let temporary = work.name();
        let source = *lock(&work.whiteouts);
        match source {
            Source::Linked => {
                rustix::fs::linkat(&work.dir, SHARED, &work.dir, &temporary, AtFlags::empty())?;
            }
            _ => make_device(&work.dir, OsStr::new(&temporary))?,
        }
        let renamed = rustix::fs::renameat(&work.dir, &temporary, fd, name);
        // A rename onto another link of the same inode does nothing, and leaves both.
        if renamed.is_err() || source == Source::Linked {
            let _ = rustix::fs::unlinkat(&work.dir, &temporary, AtFlags::empty());
        }
        renamed
    }

    /// Hides `name` in place of an upper directory whose content is whiteouts at most.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn white_out_dir(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<(), Errno> {
        let fd = self.fds.get(dir)?;
        let work = self.work.as_ref().ok_or(Errno::ROFS)?;
        let temporary = work.name();
        let source = *lock(&work.whiteouts);
        let made = match source {
            Source::Linked => {
                rustix::fs::linkat(&work.dir, SHARED, &work.dir, &temporary, AtFlags::empty())
            }
            Source::Device => make_device(&work.dir, OsStr::new(&temporary)),
            Source::File => Err(Errno::PERM),
        };
        let exchanged = made.and_then(|()| {
            rustix::fs::renameat_with(&work.dir, &temporary, &*fd, name, RenameFlags::EXCHANGE)
        });
        match exchanged {
            Ok(()) => {
                let _ = super::open::remove_tree(&work.dir, OsStr::new(&temporary));
                Ok(())
            }
            Err(_) => {
                let _ = rustix::fs::unlinkat(&work.dir, &temporary, AtFlags::empty());
                self.discard_dir(dir, name)?;
                self.white_out(dir, name)
            }
        }
    }

    /// Removes an upper directory whose content is whiteouts at most, hiding nothing.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn discard_dir(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<(), Errno> {
        let fd = self.fds.get(dir)?;
        match rustix::fs::unlinkat(&*fd, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            answer => return answer,
        }
        let work = self.work.as_ref().ok_or(Errno::ROFS)?;
        let temporary = work.name();
        rustix::fs::renameat(&*fd, name, &work.dir, &temporary)?;
        let _ = super::open::remove_tree(&work.dir, OsStr::new(&temporary));
        Ok(())
    }

    /// Takes a whiteout away, so that an upper entry can take its name without being hidden.
    pub fn drop_whiteout_file(&self, fd: &OwnedFd, name: &OsStr) {
        if let (true, Some(hidden)) = (self.makes_whiteout_files(), file_name(name)) {
            let _ = rustix::fs::unlinkat(fd, &hidden, AtFlags::empty());
        }
    }

    /// Marks an upper directory opaque.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn set_opaque(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let attr = self.prefix.name("opaque");
        match cow_sys::xattr::set(parent, name, &attr, b"y") {
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::NOSPC) => {}
            answer => return answer,
        }
        let mut inner = name.to_owned();
        inner.push("/");
        inner.push(OPAQUE_FILE);
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let flags = flags | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOFOLLOW;
        rustix::fs::openat(parent, &inner, flags, Mode::empty()).map(drop)
    }
}

impl Union {
    /// Whether an upper name is a whiteout.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn is_hidden(&self, dir: &RealDir, fd: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
        let stat = super::merge::stat(fd, name)?;
        if super::merge::is_whiteout(&stat) {
            return Ok(true);
        }
        let marked = dir.attr_whiteouts.load(Ordering::Relaxed);
        Ok(marked && stat.stx_size == 0 && super::marks::of_file(self.prefix, fd, name)?.whiteout)
    }

    /// Removes something from the work directory; what stays is removed by the next mount.
    pub fn clear_aside(&self, name: &OsStr) {
        if let Some(work) = &self.work {
            let _ = super::open::remove_tree(&work.dir, name);
        }
    }

    /// Whether whiteouts are made as files beside what they hide.
    pub(super) fn makes_whiteout_files(&self) -> bool {
        self.work.as_ref().is_some_and(|work| *lock(&work.whiteouts) == Source::File)
    }

    /// Whether a rename can leave a whiteout behind.
    pub fn can_rename_whiteout(&self) -> bool {
        self.work.as_ref().is_some_and(|work| *lock(&work.whiteouts) != Source::File)
    }

    /// Removes the whiteouts in an upper directory that shows nothing.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn clear_dir(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let dir = super::fds::open_dir(parent, name)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        for name in names {
            super::open::remove_tree(&dir, OsStr::from_bytes(name.to_bytes()))?;
        }
        Ok(())
    }
}

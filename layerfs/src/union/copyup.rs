//! Copying a lower file up: made whole in the work directory, then renamed to where it shows.
//!
//! A crash at any point leaves either the lower file showing, or the whole copy.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use cow::meta::Meta;
use cow::origin;
use cow_sys::xattr;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Statx, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::merge::stat as stat_at;
use super::metacopy::Bare;
use super::work::{Fresh, Work};
use super::{Overrides, Owned, REAL_MODE, RealDir, RealId, Union};

/// A file as it is now in the upper layer.
#[derive(Clone, Copy, Debug)]
pub struct Copied {
    /// Its identity there.
    pub id: RealId,
}

/// What is copied: a name in a lower layer, and where its data is if not there.
#[derive(Debug)]
pub struct Lower<'a> {
    /// The directory.
    pub dir: &'a Arc<RealDir>,
    /// The name.
    pub name: &'a OsStr,
    /// The file that holds the data, opened, and what it is.
    pub data: Option<(OwnedFd, Meta)>,
    /// How much of the data is wanted.
    pub length: u64,
    /// The attributes of the name.
    pub stat: &'a Statx,
    /// If none is: where it stays.
    pub bare: Option<Bare>,
    /// Whether the copy is of this one file and gets all of its data, so that it can be made good by it.
    pub whole: bool,
}

pub(super) fn timestamps(stat: &Statx) -> Timestamps {
    let time = |at: &rustix::fs::StatxTimestamp| Timespec {
        tv_sec: at.tv_sec,
        tv_nsec: at.tv_nsec.into(),
    };
    Timestamps { last_access: time(&stat.stx_atime), last_modification: time(&stat.stx_mtime) }
}

fn mode(stat: &Statx) -> Mode {
    Mode::from_raw_mode(u32::from(stat.stx_mode) & 0o7777)
}

/// The mode that a copy is made with: nobody else reaches the work directory.
fn rights(stat: &Statx) -> Mode {
    (mode(stat) & Mode::from_raw_mode(0o777)) | Mode::RUSR | Mode::WUSR
}

impl Union {
    /// Copies a lower directory, without its content, to a name in an upper one.
    ///
    /// # Errors
    /// What the file systems say; nothing is then changed.
    pub fn copy_up_dir(
        &self,
        lower: &Arc<RealDir>,
        to: &Arc<RealDir>,
        name: &OsStr,
    ) -> Result<(), Errno> {
        let work = self.work.as_ref().ok_or(Errno::ROFS)?;
        let source = self.fds.get(lower)?;
        let here = OsStr::new("");
        let stat = self.look(lower.layer, &source, here)?;
        let temporary = work.name();
        rustix::fs::mkdirat(&work.dir, &temporary, Mode::RWXU)?;
        let temporary = OsStr::new(&temporary);
        let placed = self.dress(&source, here, &work.dir, temporary, &stat).and_then(|_| {
            let origin = origin::encode(&source, here, &self.layer(lower).uuid).ok();
            self.set_origin(&work.dir, temporary, origin);
            self.place(work, temporary, to, name)
        });
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(&work.dir, temporary, AtFlags::REMOVEDIR);
        }
        placed
    }

    /// Copies a lower file that is not a directory to a name in an upper one; with `index`, under a
    /// name there as well, for the other links of the lower file.
    ///
    /// # Errors
    /// What the file systems say; nothing is then changed.
    pub fn copy_up_file(
        &self,
        lower: &Lower<'_>,
        to: Option<(&Arc<RealDir>, &OsStr)>,
        index: Option<&OsStr>,
    ) -> Result<(Copied, Option<OwnedFd>), Errno> {
        let work = self.work.as_ref().ok_or(Errno::ROFS)?;
        let source = self.fds.get(lower.dir)?;
        let stat = lower.stat;
        let (temporary, file) = self.make_copy(work, lower, &source)?;
        let finished = (|| {
            if let (Some(bare), Some(file)) = (&lower.bare, &file) {
                rustix::fs::ftruncate(file, bare.length)?;
                self.mark_bare(&work.dir, &temporary, &bare.path)?;
            }
            let made = self.dress(&source, lower.name, &work.dir, &temporary, stat)?;
            let origin = origin::encode(&source, lower.name, &self.layer(lower.dir).uuid).ok();
            let data = file.as_ref().filter(|_| self.sync && lower.length > 0);
            let named = to.is_some() && index.is_none();
            match (data, &origin) {
                (Some(data), Some(origin))
                    if named && self.settles_later(lower, (&temporary, data), origin) => {}
                (data, _) => {
                    self.set_origin(&work.dir, &temporary, origin);
                    if let Some(data) = data {
                        // Time that is not the caller's, for the disk has work already.
                        work.keep_spare(rights(stat));
                        self.write_back(data)?;
                    }
                }
            }
            match (to, index) {
                (to, Some(index)) => {
                    self.place_indexed(work, &temporary, index, stat.stx_nlink, to)?;
                }
                (Some((dir, name)), None) => self.place(work, &temporary, dir, name)?,
                (None, None) => {
                    rustix::fs::unlinkat(&work.dir, &temporary, AtFlags::empty())?;
                }
            }
            Ok(Copied { id: RealId { fs: self.layers[0].fs, ino: made.stx_ino } })
        })();
        if finished.is_err() {
            let _ = rustix::fs::unlinkat(&work.dir, &temporary, AtFlags::empty());
        }
        finished.map(|copied| (copied, file))
    }

    /// Copies the first `length` bytes of `from` to an empty file.
    pub(super) fn copy_data(
        &self,
        from: &OwnedFd,
        mut meta: Meta,
        to: &OwnedFd,
        length: u64,
    ) -> Result<(), Errno> {
        let whole = length >= meta.size;
        meta.size = meta.size.min(length);
        self.copier.data(from, &meta, to)?;
        // Shared data comes whole.
        if whole { Ok(()) } else { rustix::fs::ftruncate(to, length) }
    }

    /// Sees to it that a crash cannot leave the name of a copy without its data.
    pub(super) fn write_back(&self, file: &OwnedFd) -> Result<(), Errno> {
        match self.ordered {
            true => cow_sys::writeback::finish(file),
            false => rustix::fs::fdatasync(file),
        }
    }

    /// Makes the file itself, with its data, under a temporary name.
    fn make_copy(
        &self,
        work: &Work,
        lower: &Lower<'_>,
        source: &OwnedFd,
    ) -> Result<(OsString, Option<OwnedFd>), Errno> {
        let stat = lower.stat;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if kind == FileType::RegularFile {
            let Fresh { name, file } = work.fresh(rights(stat))?;
            if let Some((data, meta)) = lower.data.as_ref().filter(|_| lower.length > 0)
                && let Err(error) = self.copy_data(data, *meta, &file, lower.length)
            {
                let _ = rustix::fs::unlinkat(&work.dir, &name, AtFlags::empty());
                return Err(error);
            }
            return Ok((name, Some(file)));
        }
        let name = OsString::from(work.name());
        match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(source, lower.name, Vec::new())?;
                rustix::fs::symlinkat(target, &work.dir, &name)?;
            }
            _ => {
                let device = rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor);
                rustix::fs::mknodat(&work.dir, &name, kind, mode(stat), device)?;
            }
        }
        Ok((name, None))
    }

    /// Gives a copy the owner, attributes, mode and times of its source, and returns what it had.
    fn dress(
        &self,
        from: &OwnedFd,
        from_name: &OsStr,
        to: &OwnedFd,
        to_name: &OsStr,
        stat: &Statx,
    ) -> Result<Statx, Errno> {
        let made = stat_at(to, to_name)?;
        let symlink = AtFlags::SYMLINK_NOFOLLOW;
        if self.overrides_upper() && self.set_owned(to, to_name, Owned::of(stat))? {
            self.copy_attrs(from, from_name, to, to_name)?;
            if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Symlink {
                let real = Mode::from_raw_mode(REAL_MODE);
                rustix::fs::chmodat(to, to_name, real, AtFlags::empty())?;
            }
            rustix::fs::utimensat(to, to_name, &timestamps(stat), symlink)?;
            return Ok(made);
        }
        let mut differs = made.stx_mode & 0o7777 != stat.stx_mode & 0o7777;
        if (made.stx_uid, made.stx_gid) != (stat.stx_uid, stat.stx_gid) {
            let (uid, gid) = (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid));
            rustix::fs::chownat(to, to_name, Some(uid), Some(gid), symlink)?;
            // Which takes set-id bits away.
            differs = true;
        }
        // An ACL brings the mode of its own.
        differs |= self.copy_attrs(from, from_name, to, to_name)?;
        if differs && FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Symlink {
            rustix::fs::chmodat(to, to_name, mode(stat), AtFlags::empty())?;
        }
        rustix::fs::utimensat(to, to_name, &timestamps(stat), symlink)?;
        Ok(made)
    }

    /// Copies the attributes that show; says whether there were any.
    fn copy_attrs(
        &self,
        from: &OwnedFd,
        from_name: &OsStr,
        to: &OwnedFd,
        to_name: &OsStr,
    ) -> Result<bool, Errno> {
        let names = match xattr::list(from, from_name) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            answer => answer?,
        };
        let mut any = false;
        let overriding = self.has_overrides();
        for attr in names.split(|byte| *byte == 0).filter(|attr| !attr.is_empty()) {
            let own = attr.strip_prefix(self.prefix.text().as_bytes());
            if own.is_some_and(|mark| !mark.starts_with(b"overlay.")) {
                continue;
            }
            if overriding && Overrides::is_one(attr) {
                continue;
            }
            let attr = OsStr::from_bytes(attr);
            let value = match xattr::get(from, from_name, attr) {
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => continue,
                answer => answer?,
            };
            match xattr::set(to, to_name, attr, &value) {
                // As the kernel's overlay: what the upper cannot hold is left behind, except what
                // access depends on.
                Err(Errno::OPNOTSUPP | Errno::PERM)
                    if !attr.as_bytes().starts_with(b"system.posix_acl_access") => {}
                answer => answer?,
            }
            any = true;
        }
        Ok(any)
    }

    /// Records of which lower file this is a copy; without it only `st_ino` changes over a mount.
    fn set_origin(&self, to: &OwnedFd, to_name: &OsStr, origin: Option<Vec<u8>>) {
        if let Some(value) = origin {
            let _ = xattr::set(to, to_name, &self.prefix.name("origin"), &value);
        }
    }

    /// Renames a finished copy to where it shows, leaving the directory's times as they were.
    fn place(
        &self,
        work: &Work,
        temporary: &OsStr,
        to: &Arc<RealDir>,
        name: &OsStr,
    ) -> Result<(), Errno> {
        let fd = self.fds.get(to)?;
        let times = stat_at(&fd, OsStr::new(""))?;
        self.set_impure(to, &fd);
        rustix::fs::renameat(&work.dir, temporary, &*fd, name)?;
        let _ = rustix::fs::futimens(&*fd, &timestamps(&times));
        Ok(())
    }

    /// Whether an upper directory is marked as one that holds copies.
    pub(super) fn is_impure(&self, dir: &RealDir, fd: &OwnedFd) -> bool {
        use std::sync::atomic::Ordering;
        let known = dir.impure.load(Ordering::Relaxed);
        known || xattr::get(fd, OsStr::new(""), &self.prefix.name("impure")).is_ok()
    }

    /// Marks an upper directory as one that holds copies, for which inode numbers come from below.
    pub fn set_impure(&self, dir: &RealDir, fd: &OwnedFd) {
        use std::sync::atomic::Ordering;
        if !dir.impure.swap(true, Ordering::Relaxed) {
            let attr = self.prefix.name("impure");
            let here = OsStr::new("");
            if xattr::get(fd, here, &attr).is_err() {
                let _ = xattr::set(fd, here, &attr, b"y");
            }
        }
    }

    /// Takes that mark away; the kernel lets nobody move anything there while a directory is listed.
    pub(super) fn set_pure(&self, dir: &RealDir, fd: &OwnedFd) {
        use std::sync::atomic::Ordering;
        let _ = xattr::remove(fd, OsStr::new(""), &self.prefix.name("impure"));
        dir.impure.store(false, Ordering::Relaxed);
    }

    /// Puts a finished copy into the index, and from there under its name, if that is known.
    fn place_indexed(
        &self,
        work: &Work,
        temporary: &OsStr,
        index: &OsStr,
        links: u32,
        to: Option<(&Arc<RealDir>, &OsStr)>,
    ) -> Result<(), Errno> {
        let home = work.index.as_ref().ok_or(Errno::ROFS)?;
        let home = self.fds.get(home)?;
        // The union shows as many links as the lower file has, whatever is made here.
        let made = 1 + i64::from(to.is_some());
        self.set_links(&work.dir, temporary, i64::from(links) - made)?;
        rustix::fs::renameat(&work.dir, temporary, &*home, index)?;
        let Some((to, name)) = to else { return Ok(()) };
        let fd = self.fds.get(to)?;
        let times = stat_at(&fd, OsStr::new(""))?;
        self.set_impure(to, &fd);
        rustix::fs::linkat(&*home, index, &*fd, name, AtFlags::empty())?;
        let _ = rustix::fs::futimens(&*fd, &timestamps(&times));
        Ok(())
    }
}

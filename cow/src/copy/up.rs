//! A path of lower layers, brought into an upper one.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use crate::at;
use crate::copy::{Copier, Source, finish, node};
use crate::error::Result;
use crate::overlay_view::{Node, OverlayView};
use crate::root::{Resolve, Root};

/// Copies what `lowers` show at a path into `upper`, with the directories above it that are missing
/// there, each as the lowers show it (but empty).
///
/// What the upper layer has already, whiteouts included, is left alone: then this does nothing and
/// says so by `false`. Every file is made in the directory `work`, on the file system of `upper`,
/// and renamed into place whole. The overlay's own marks are not copied. Hard links between lower
/// files are not kept, as in every overlay without an index.
///
/// # Errors
/// `NotFound` if the lowers show no such path, or an upper file is in the way to it.
pub fn up(
    copier: &Copier,
    lowers: &OverlayView<'_>,
    path: &Path,
    upper: &Root,
    work: &Root,
) -> Result<bool> {
    if upper.exists(path)? {
        return Ok(false);
    }
    let copy = Up { copier, lowers, upper, work };
    let mut prefix = Path::new("").to_owned();
    let mut made = false;
    for name in path.components() {
        prefix.push(name);
        if prefix.as_os_str() == "/" {
            prefix.clear();
            continue;
        }
        made = !upper.exists(&prefix)? && copy.one(&prefix)?;
    }
    Ok(made)
}

struct Up<'a> {
    copier: &'a Copier,
    lowers: &'a OverlayView<'a>,
    upper: &'a Root,
    work: &'a Root,
}

impl Up<'_> {
    /// Copies one file whose directory is there already; false if somebody else was faster.
    fn one(&self, path: &Path) -> Result<bool> {
        let Some(found) = self.lowers.resolve(path)? else {
            return Err(self.upper.error("copy up", path, Errno::NOENT));
        };
        let temporary = temporary_name();
        let done = self.make(&found, &temporary).and_then(|()| self.place(&temporary, path));
        if !matches!(done, Ok(true)) {
            let flags = match found.meta.is_dir() {
                true => AtFlags::REMOVEDIR,
                false => AtFlags::empty(),
            };
            // It may not have been made at all; the error that matters is the one above.
            let _ = rustix::fs::unlinkat(self.work, &temporary, flags);
        }
        done
    }

    fn make(&self, found: &Node, name: &OsStr) -> Result<()> {
        let data_at = found.data_at.as_ref().unwrap_or(&found.meta_at);
        let root = self.lowers.root(&found.meta_at)?;
        let (dir, own) = root.parent(&found.meta_at.path, Resolve::Beneath)?;
        let (data_dir, data) =
            self.lowers.root(data_at)?.parent(&data_at.path, Resolve::Beneath)?;
        let fail = |error| root.error("copy up", &found.meta_at.path, error);
        let marks = self.lowers.marks();
        let mut xattrs = crate::xattr::read_at(&dir, own).map_err(fail)?;
        // What an overlay within this one has escaped stays escaped.
        xattrs.retain(|attr, _| marks.visible(attr).is_some());
        let source = Source {
            meta: &found.meta,
            xattrs: &xattrs,
            at: (dir.as_fd(), own),
            data: (data_dir.as_fd(), data),
        };
        node(self.copier, &source, self.work, name).map_err(fail)?;
        if found.meta.is_dir() {
            let made: OwnedFd = at::open_dir_at(self.work, name).map_err(fail)?;
            finish(&found.meta, &xattrs, &made).map_err(fail)?;
        }
        Ok(())
    }

    /// Renames a finished file into the upper layer, whose directory keeps its time.
    fn place(&self, temporary: &OsStr, path: &Path) -> Result<bool> {
        let (dir, name) = self.upper.parent(path, Resolve::Beneath)?;
        let fail = |op| move |error: Errno| self.upper.error(op, path, error);
        let before = at::meta_of(&dir).map_err(fail("statx"))?.mtime;
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(self.work, temporary, &dir, name, flags) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(false),
            Err(error) => return Err(fail("rename")(error)),
        }
        at::set_mtime_at(&dir, OsStr::new(""), before).map_err(fail("utimensat"))?;
        Ok(true)
    }
}

/// A name that no other copy of this process uses; a leftover of another one is never waited for.
fn temporary_name() -> OsString {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("#up-{}-{number}", std::process::id()).into()
}

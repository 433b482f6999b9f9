//! Mending what was applied apart from the layers below.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::attrs::DirAttrs;
use super::lower;
use super::place::Dir;
use crate::at;
use crate::error::{Error, Result};
use crate::meta::FileKind;
use crate::root::{Resolve, Root};
use crate::whiteout::XattrSpace;

/// Gives directories that [`apply`](super::apply) had to make without knowing the lower layers the
/// owner, mode, xattrs and time that these have for them.
///
/// `dirs` is [`Applied::implicit_dirs`](super::Applied::implicit_dirs); `lowers` has the topmost
/// layer first. Idempotent; a directory that is gone or that no lower layer has is left as it is.
///
/// # Errors
/// [`Error::NeedsLower`] where a lower layer has a symbolic link in a directory's place, so that its
/// content belongs elsewhere: the layer must be applied again on top of them.
pub fn adopt_implicit(
    target: &Root,
    dirs: &[PathBuf],
    lowers: &[Root],
    space: XattrSpace,
) -> Result<()> {
    let view = lower::stack(lowers, space);
    for path in dirs {
        if is_hidden(target, path, space)? {
            continue;
        }
        let Some(found) = view.resolve(path)? else { continue };
        match found.meta.kind {
            FileKind::Dir => {
                let dir = target.open_with(path, at::DIR, Mode::empty(), Resolve::Beneath);
                let dir = match dir {
                    Ok(fd) => Dir::adopt(fd, path.as_os_str().as_bytes().into())?.0,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(errno) => return Err(target.error("open directory", path, errno)),
                };
                DirAttrs::copy(&view, &found, &dir)?.set(&dir)?;
            }
            FileKind::Symlink => {
                let target = lower::text(&view, &found)?.into();
                return Err(Error::NeedsLower { path: path.clone(), target });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a directory of the target above a path is opaque.
fn is_hidden(target: &Root, path: &Path, space: XattrSpace) -> Result<bool> {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        let mark = match target.xattr(above, OsStr::new(space.opaque())) {
            Ok(mark) => mark,
            Err(Error::Sys { source, .. }) if crate::root::is_absent(&source) => None,
            Err(error) => return Err(error),
        };
        if mark.is_some_and(|value| value == b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

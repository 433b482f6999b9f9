//! The extended attributes by which layers say more than a plain tree can.
//!
//! Names and values are those of the kernel's overlay (`Documentation/filesystems/overlayfs.rst`,
//! `fs/overlayfs/overlayfs.h`), so that either may mount what the other wrote; the opaque marks that
//! fuse-overlayfs leaves are understood as well.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use cow::origin::{self, Origin};
use cow_sys::xattr;
use rustix::io::Errno;

/// Which attribute names this mount writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// `trusted.overlay.`, which only root of the first user namespace can write.
    Trusted,
    /// `user.overlay.`, as the kernel's overlay does when mounted with `userxattr`.
    User,
}

/// The opaque mark that fuse-overlayfs writes when it may not write another.
const FUSE_OPAQUE: &[u8] = b"user.fuseoverlayfs.opaque";

impl Prefix {
    /// The text that all our names begin with.
    pub fn text(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }

    /// The full name of a mark.
    pub fn name(self, mark: &str) -> OsString {
        let mut name = OsString::from(self.text());
        name.push(mark);
        name
    }
}

/// What is marked on a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirMarks {
    /// Nothing below it in lower layers shows through.
    pub opaque: bool,
    /// Plain files in it may be whiteouts by attribute.
    pub attr_whiteouts: bool,
    /// Where lower layers have it, if elsewhere: a name in the same directory, or a path from the
    /// layer's root that begins with a slash.
    pub redirect: Option<OsString>,
}

/// What is marked on another file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileMarks {
    /// It is a whiteout.
    pub whiteout: bool,
    /// Only its metadata is here; its data is in a lower layer.
    pub metacopy: bool,
    /// Where lower layers have its data, as for directories.
    pub redirect: Option<OsString>,
    /// The lower file that it is a copy of, if known.
    pub origin: Option<Origin>,
}

/// The marks of a directory.
pub fn of_dir(prefix: Prefix, parent: &OwnedFd, name: &OsStr) -> Result<DirMarks, Errno> {
    let mut marks = DirMarks::default();
    for attr in list(parent, name)?.split(|byte| *byte == 0) {
        if attr == FUSE_OPAQUE || suffix(Prefix::User, attr) == Some(b"opaque") {
            marks.opaque |= get(parent, name, attr)? == b"y";
        }
        match suffix(prefix, attr) {
            Some(b"opaque") => {
                let value = get(parent, name, attr)?;
                marks.opaque |= value == b"y";
                marks.attr_whiteouts |= value == b"x";
            }
            Some(b"redirect") => {
                marks.redirect = Some(OsString::from_vec(get(parent, name, attr)?));
            }
            _ => {}
        }
    }
    Ok(marks)
}

/// The marks of a file that is not a directory.
pub fn of_file(prefix: Prefix, parent: &OwnedFd, name: &OsStr) -> Result<FileMarks, Errno> {
    let mut marks = FileMarks::default();
    for attr in list(parent, name)?.split(|byte| *byte == 0) {
        match suffix(prefix, attr) {
            Some(b"whiteout") => marks.whiteout = true,
            Some(b"metacopy") => marks.metacopy = true,
            Some(b"redirect") => {
                marks.redirect = Some(OsString::from_vec(get(parent, name, attr)?));
            }
            Some(b"origin") => marks.origin = origin::parse(&get(parent, name, attr)?),
            _ => {}
        }
    }
    Ok(marks)
}

fn suffix(prefix: Prefix, attr: &[u8]) -> Option<&[u8]> {
    attr.strip_prefix(prefix.text().as_bytes())
}

fn list(parent: &OwnedFd, name: &OsStr) -> Result<Vec<u8>, Errno> {
    match xattr::list(parent, name) {
        // No attributes at all on this file system, or on this kind of file.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::ACCESS | Errno::PERM) => Ok(Vec::new()),
        answer => answer,
    }
}

fn get(parent: &OwnedFd, name: &OsStr, attr: &[u8]) -> Result<Vec<u8>, Errno> {
    match xattr::get(parent, name, OsStr::from_bytes(attr)) {
        Err(Errno::NODATA | Errno::ACCESS | Errno::PERM) => Ok(Vec::new()),
        answer => answer,
    }
}

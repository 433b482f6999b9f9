//! How a layer says that something of the layers below is gone, in both spellings.
//!
//! In a *tar* a deletion is an empty file `.wh.NAME` beside where `NAME` was, and a directory whose
//! lower content is hidden as a whole holds an empty file `.wh..wh..opq` (OCI image-spec,
//! `layer.md`, "Whiteouts"). In a *tree* that overlayfs merges, a deletion is a character device
//! 0:0 named `NAME`, and an opaque directory carries the xattr `trusted.overlay.opaque=y`, or
//! `user.overlay.opaque=y` for mounts with `userxattr` (kernel, `filesystems/overlayfs.rst`,
//! "whiteouts and opaque directories").

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// What the name of every marker in a tar begins with.
pub const PREFIX: &str = ".wh.";
/// The marker that hides all lower children of the directory it is in.
pub const OPAQUE: &str = ".wh..wh..opq";
/// What the names of AUFS's own files begin with; they are no part of a layer's content.
pub const AUFS_PREFIX: &str = ".wh..wh.";
/// AUFS's directory of files with several names, at the root of old Docker layers: hard links in
/// the layer may point into it.
pub const AUFS_LINKS: &str = ".wh..wh.plnk";

/// What the last component of a tar path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker<'a> {
    /// No marker: the entry is content.
    None,
    /// The named sibling is hidden.
    Whiteout(&'a OsStr),
    /// All lower children of the directory are hidden.
    Opaque,
    /// AUFS's own book-keeping, without meaning here.
    Aufs,
}

impl<'a> Marker<'a> {
    /// Reads a marker from the last component of a path.
    ///
    /// # Errors
    /// `InvalidArgument` for `.wh.`, `.wh..` and `.wh...`, which would hide nothing, the directory
    /// itself or its parent.
    pub fn of(name: &'a OsStr) -> Result<Self> {
        let bytes = name.as_bytes();
        let Some(hidden) = bytes.strip_prefix(PREFIX.as_bytes()) else {
            return Ok(Self::None);
        };
        match hidden {
            b"" | b"." | b".." => {
                Err(Error::invalid("read whiteout", name, "hides no name of a sibling"))
            }
            _ if bytes == OPAQUE.as_bytes() => Ok(Self::Opaque),
            _ if bytes.starts_with(AUFS_PREFIX.as_bytes()) => Ok(Self::Aufs),
            _ => Ok(Self::Whiteout(OsStr::from_bytes(hidden))),
        }
    }
}

/// The tar name that hides `name`.
pub fn marker_name(name: &OsStr) -> OsString {
    OsString::from_vec([PREFIX.as_bytes(), name.as_bytes()].concat())
}

/// The xattr name space in which a mount of overlayfs keeps its marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XattrSpace {
    /// `trusted.overlay.`, which needs CAP_SYS_ADMIN in the initial user namespace.
    Trusted,
    /// `user.overlay.`, for mounts with the option `userxattr`.
    User,
}

impl XattrSpace {
    /// The xattr that makes a directory opaque with the value `y`.
    pub fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    /// The xattr that makes an empty regular file a whiteout, in a directory marked for it.
    pub fn whiteout(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.whiteout",
            Self::User => "user.overlay.whiteout",
        }
    }
}

/// Whether an xattr is one of overlayfs's own marks, in either space; such are never content.
pub fn is_overlay_xattr(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// How a deletion is written into the tree that a layer is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhiteoutFormat {
    /// The tree is one layer's own, to be merged by overlayfs: deletions become whiteouts.
    Overlay(XattrSpace),
    /// The tree holds all lower content already: deletions are carried out.
    Remove,
}

/// Makes `name` in `dir` a whiteout; it must not exist.
///
/// A character device 0:0 needs no privilege since Linux 5.8. Where it is refused all the same (a
/// file system without devices), an empty file with the whiteout xattr takes its place, and the
/// directory is marked as holding such (`opaque=x`, Linux 6.7).
pub fn create(dir: impl AsFd, name: &OsStr, space: XattrSpace) -> Result<()> {
    let dir = dir.as_fd();
    match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {}
        Err(errno) => return Err(Error::sys("create whiteout", name, errno)),
    }
    mark_file(dir, name, space)
}

/// Makes an empty file that is a whiteout by its mark.
fn mark_file(dir: impl AsFd, name: &OsStr, space: XattrSpace) -> Result<()> {
    let dir = dir.as_fd();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|errno| Error::sys("create whiteout", name, errno))?;
    rustix::fs::fsetxattr(&file, space.whiteout(), b"y", XattrFlags::empty())
        .map_err(|errno| Error::sys("mark whiteout", name, errno))?;
    match rustix::fs::fsetxattr(dir, space.opaque(), b"x", XattrFlags::CREATE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::sys("mark directory of whiteouts", name, errno)),
    }
}

/// Makes a directory opaque: nothing of the layers below shows through it.
pub fn set_opaque(dir: impl AsFd, path: impl AsRef<Path>, space: XattrSpace) -> Result<()> {
    rustix::fs::fsetxattr(dir, space.opaque(), b"y", XattrFlags::empty())
        .map_err(|errno| Error::sys("mark opaque", path, errno))
}

/// Whether a directory is opaque.
pub fn is_opaque(dir: impl AsFd, path: impl AsRef<Path>, space: XattrSpace) -> Result<bool> {
    Ok(xattr_value(dir, space.opaque(), path)? == Some(b'y'))
}

/// The first byte of a short xattr (0 for an empty one); none where it is not set.
fn xattr_value(fd: impl AsFd, name: &str, path: impl AsRef<Path>) -> Result<Option<u8>> {
    let mut value = [0_u8; 8];
    match rustix::fs::fgetxattr(fd, name, &mut value) {
        Ok(_) => Ok(Some(value[0])),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(errno) => Err(Error::sys("fgetxattr", path, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_read_from_the_last_component() {
        let cases = [
            ("etc", Some(Marker::None)),
            (".whx", Some(Marker::None)),
            (".wh.x", Some(Marker::Whiteout(OsStr::new("x")))),
            (".wh..x", Some(Marker::Whiteout(OsStr::new(".x")))),
            (".wh....", Some(Marker::Whiteout(OsStr::new("...")))),
            (".wh..wh..opq", Some(Marker::Opaque)),
            (".wh..wh.plnk", Some(Marker::Aufs)),
            (".wh..wh.aufs", Some(Marker::Aufs)),
            (".wh.", None),
            (".wh..", None),
            (".wh...", None),
        ];
        for (name, expected) in cases {
            let found = Marker::of(OsStr::new(name));
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{name:?}: {found:?}");
        }
    }

    #[test]
    fn marker_name_is_the_inverse_of_reading() {
        let name = OsStr::from_bytes(b"a\xff");
        let marker = marker_name(name);
        assert_eq!(Marker::of(&marker).unwrap(), Marker::Whiteout(name), "{marker:?}");
    }

    #[test]
    fn whiteouts_and_opaque_marks_are_what_the_reader_of_marks_takes_for_them() {
        use crate::marks::Opaque;
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let space = XattrSpace::User;
        std::fs::write(dir.path().join("empty"), b"").unwrap();
        create(&fd, OsStr::new("gone"), space).unwrap();
        mark_file(&fd, OsStr::new("marked"), space).unwrap();
        for (name, expected) in [("gone", true), ("marked", true), ("empty", false)] {
            let name = OsStr::new(name);
            let meta = crate::at::meta_at(&fd, name).unwrap().unwrap();
            assert_eq!(space.is_whiteout(&fd, name, &meta).unwrap(), expected, "{name:?}");
        }
        let mark = || {
            let meta = crate::at::meta_of(&fd).unwrap();
            space.read(&fd, OsStr::new(""), &meta).unwrap().opaque
        };
        assert_eq!(mark(), Opaque::Whiteouts, "a marked file marks its directory");
        assert!(!is_opaque(&fd, "", space).unwrap(), "which hides nothing by that");
        set_opaque(&fd, "", space).unwrap();
        assert_eq!(mark(), Opaque::Yes, "opaque hides more");
        mark_file(&fd, OsStr::new("another"), space).unwrap();
        assert_eq!(mark(), Opaque::Yes, "and is not weakened");
        assert!(is_opaque(&fd, "", space).unwrap(), "read back");
    }
}

//! Owners and modes kept in an attribute, for layers whose files all belong to one user
//! (`xattr_permissions`).
//!
//! The attribute is fuse-overlayfs's, or the one that containers/storage writes with `force_mask`:
//! `UID:GID:MODE`, the mode in octal with or without the file type; what may follow after another colon
//! is the type in words. A layer is read so if its root has the attribute; its files then belong to whom
//! theirs says, and a file without shows what it has.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use cow_sys::xattr;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::Union;
use super::merge::stat as stat_at;

/// The mode of real files and directories in a layer that keeps owners and modes apart.
pub const REAL_MODE: u32 = 0o755;

/// Where a layer keeps owners and modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrides {
    /// Where only a privileged process can write (`xattr_permissions=1`).
    Privileged,
    /// Where the owner can (`xattr_permissions=2`).
    User,
    /// Where containers/storage does.
    Containers,
}

/// An owner and a mode, with the file type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// As `st_mode`.
    pub mode: u32,
}

impl Overrides {
    const ALL: [Self; 3] = [Self::Privileged, Self::User, Self::Containers];

    /// The attribute's name.
    pub fn attr(self) -> &'static OsStr {
        OsStr::new(match self {
            Self::Privileged => "security.fuseoverlayfs.override_stat",
            Self::User => "user.fuseoverlayfs.override_stat",
            Self::Containers => "user.containers.override_stat",
        })
    }

    /// Whether an attribute may be one of these.
    pub fn is_one(attr: &[u8]) -> bool {
        Self::ALL.iter().any(|kind| kind.attr().as_encoded_bytes() == attr)
    }

    /// What a layer uses, by its root.
    pub fn of(root: &OwnedFd) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| xattr::get(root, OsStr::new(""), kind.attr()).is_ok())
    }
}

impl Owned {
    /// What a file has.
    pub fn of(stat: &Statx) -> Self {
        Self { uid: stat.stx_uid, gid: stat.stx_gid, mode: stat.stx_mode.into() }
    }

    /// Reads the attribute's value; the type is the file's own.
    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.trim_end_matches('\0').split(':');
        let (uid, gid, mode) = (parts.next()?, parts.next()?, parts.next()?);
        let mode = u32::from_str_radix(mode, 8).ok()?;
        Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()?, mode })
    }

    pub(super) fn text(&self, kind: Overrides) -> String {
        let Self { uid, gid, mode } = self;
        match kind {
            Overrides::Privileged | Overrides::User => format!("{uid}:{gid}:{mode:o}"),
            Overrides::Containers => format!("{uid}:{gid}:{:04o}", mode & 0o7777),
        }
    }
}

impl Union {
    /// `statx` of a name in a layer, with the owner and mode that the layer says it has.
    ///
    /// # Errors
    /// What the layer's file system says.
    pub fn look(&self, layer: u16, dir: &OwnedFd, name: &OsStr) -> Result<Statx, Errno> {
        let mut stat = stat_at(dir, name)?;
        self.apply(layer, dir, name, &mut stat);
        Ok(stat)
    }

    /// Puts the owner and mode that a layer says a file has in the place of its own.
    pub(super) fn apply(&self, layer: u16, dir: &OwnedFd, name: &OsStr, stat: &mut Statx) {
        let Some(kind) = self.layers.get(usize::from(layer)).and_then(|layer| layer.overrides)
        else {
            return;
        };
        let value = xattr::get(dir, name, kind.attr()).ok();
        if let Some(owned) = value.and_then(|value| Owned::parse(&value)) {
            (stat.stx_uid, stat.stx_gid) = (owned.uid, owned.gid);
            let mode = u32::from(stat.stx_mode) & !0o7777 | owned.mode & 0o7777;
            stat.stx_mode = u16::try_from(mode).unwrap_or(stat.stx_mode);
        }
    }

    /// Whether any layer keeps owners and modes in attributes, which are then nobody else's.
    pub fn has_overrides(&self) -> bool {
        self.layers.iter().any(|layer| layer.overrides.is_some())
    }

    /// Whether the upper layer does.
    pub fn overrides_upper(&self) -> bool {
        self.work.is_some() && self.layers[0].overrides.is_some()
    }

    /// Records an owner and a mode of an upper file; says whether the upper layer keeps them for such a
    /// file. Where it does not, the file itself has to get them: links and special files have no `user.`
    /// attributes.
    ///
    /// # Errors
    /// What the upper's file system says.
    pub fn set_owned(&self, dir: &OwnedFd, name: &OsStr, owned: Owned) -> Result<bool, Errno> {
        let Some(kind) = self.layers[0].overrides else { return Ok(false) };
        let plain = matches!(
            FileType::from_raw_mode(owned.mode),
            FileType::RegularFile | FileType::Directory
        );
        match xattr::set(dir, name, kind.attr(), owned.text(kind).as_bytes()) {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::OPNOTSUPP) if !plain => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_writer_are_read() {
        type Numbers = Option<(u32, u32, u32)>;
        let cases: &[(&str, Numbers)] = &[
            ("0:0:40755", Some((0, 0, 0o40755))),
            ("5:6:104711", Some((5, 6, 0o104_711))),
            ("11:12:0640", Some((11, 12, 0o640))),
            ("1:2:0644:file", Some((1, 2, 0o644))),
            ("1:2:0600:block-8-1", Some((1, 2, 0o600))),
            ("1:2", None),
            ("1:x:644", None),
            ("1:2:899", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = Owned::parse(text.as_bytes()).map(|read| (read.uid, read.gid, read.mode));
            assert_eq!(read, *expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let owned = Owned { uid: 7, gid: 1000, mode: 0o104_711 };
        for kind in Overrides::ALL {
            let read = Owned::parse(owned.text(kind).as_bytes()).expect("a value");
            let same = (read.uid, read.gid, read.mode & 0o7777) == (7, 1000, 0o4711);
            assert!(same, "{kind:?}: {}", owned.text(kind));
        }
    }
}

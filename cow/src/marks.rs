//! The marks that overlayfs leaves on the files of its layers.
//!
//! An overlay's upper directory says by devices and extended attributes what a plain tree cannot:
//! that a lower name is gone (*whiteout*), that a directory hides what is below (*opaque*), that it
//! continues under another name below (*redirect*), that a file's data is below (*metacopy*).
//! The attributes live in one of two namespaces, which of them the mount decides (`userxattr`).
//! See [overlayfs.rst](https://docs.kernel.org/filesystems/overlayfs.html).

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::io::{Errno, Result};

use crate::meta::{Meta, Xattrs};
use crate::whiteout::XattrSpace;
use crate::xattr;

/// The marks of one directory, or of a regular file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// What of a directory shows from below.
    pub opaque: Opaque,
    /// Under which name the layers below know this file.
    pub redirect: Option<Redirect>,
    /// The data of this regular file is in a layer below.
    pub metacopy: bool,
}

/// Whether a directory hides the directories below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opaque {
    /// It merges with them.
    #[default]
    No,
    /// It hides them (`y`).
    Yes,
    /// It merges, and may hold whiteouts that are regular files with a mark (`x`).
    Whiteouts,
}

/// Where a renamed file is in the layers below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Under another name in the same directory.
    Sibling(OsString),
    /// Under a path from the root of the overlay, as its components.
    Absolute(Vec<OsString>),
}

impl Redirect {
    /// Reads the value of a mark.
    ///
    /// # Errors
    /// `INVAL` for what the kernel refuses as well: empty components, or a relative path.
    pub fn parse(value: &[u8]) -> Result<Self> {
        let sound = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
        match value.strip_prefix(b"/") {
            Some(path) => path
                .split(|byte| *byte == b'/')
                .map(|name| sound(name).then(|| OsStr::from_bytes(name).to_owned()))
                .collect::<Option<_>>()
                .map(Self::Absolute)
                .ok_or(Errno::INVAL),
            None if sound(value) && !value.contains(&b'/') => {
                Ok(Self::Sibling(OsString::from_vec(value.to_owned())))
            }
            None => Err(Errno::INVAL),
        }
    }

    /// Writes the value of a mark; the inverse of [`Redirect::parse`].
    pub fn value(&self) -> Vec<u8> {
        match self {
            Self::Sibling(name) => name.as_bytes().to_owned(),
            Self::Absolute(path) => path.iter().fold(Vec::new(), |mut value, name| {
                value.push(b'/');
                value.extend_from_slice(name.as_bytes());
                value
            }),
        }
    }
}

impl XattrSpace {
    /// The prefix of all attributes that belong to the overlay and not to the file.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }

    /// The full name of a mark: `opaque`, `whiteout`, `redirect`, `metacopy`, ...
    pub fn attr(self, mark: &str) -> OsString {
        format!("{}{mark}", self.prefix()).into()
    }

    /// Whether a file stands for the absence of what is below: a character device 0:0, or an empty
    /// regular file with the mark.
    ///
    /// The name is one component below `dir`, as in [`at`](crate::at).
    pub fn is_whiteout(self, dir: impl AsFd, name: &OsStr, meta: &Meta) -> Result<bool> {
        if meta.is_whiteout_device() {
            return Ok(true);
        }
        if !(meta.is_file() && meta.size == 0) {
            return Ok(false);
        }
        xattr::get_at(dir, name, &self.attr("whiteout")).map(|mark| mark.is_some())
    }

    /// The marks on a directory or a regular file; other kinds bear none.
    pub fn read(self, dir: impl AsFd, name: &OsStr, meta: &Meta) -> Result<Mark> {
        let dir = dir.as_fd();
        let mut mark = Mark::default();
        if !(meta.is_dir() || meta.is_file()) {
            return Ok(mark);
        }
        for attr in xattr::names_at(dir, name)? {
            let Some(word) = attr.as_bytes().strip_prefix(self.prefix().as_bytes()) else {
                continue;
            };
            match word {
                b"opaque" if meta.is_dir() => {
                    mark.opaque = match xattr::get_at(dir, name, &attr)?.as_deref() {
                        Some(b"y") => Opaque::Yes,
                        Some(b"x") => Opaque::Whiteouts,
                        _ => Opaque::No,
                    };
                }
                b"redirect" => {
                    let value = xattr::get_at(dir, name, &attr)?;
                    mark.redirect = value.as_deref().map(Redirect::parse).transpose()?;
                }
                b"metacopy" => mark.metacopy = meta.is_file(),
                _ => {}
            }
        }
        Ok(mark)
    }

    /// The name under which the merged tree shows an attribute; none for the overlay's own.
    ///
    /// An overlay within an overlay has its own marks escaped by a second `overlay.` (Linux 6.7).
    pub fn visible(self, attr: &OsStr) -> Option<Cow<'_, OsStr>> {
        let Some(word) = attr.as_bytes().strip_prefix(self.prefix().as_bytes()) else {
            return Some(Cow::Borrowed(attr));
        };
        let inner = word.strip_prefix(b"overlay.")?;
        let mut name = OsString::from(self.prefix());
        name.push(OsStr::from_bytes(inner));
        Some(Cow::Owned(name))
    }

    /// The attributes that the merged tree shows of a file in a layer.
    pub fn strip(self, xattrs: Xattrs) -> Xattrs {
        let prefix = self.prefix().as_bytes();
        if !xattrs.keys().any(|attr| attr.as_bytes().starts_with(prefix)) {
            return xattrs;
        }
        xattrs
            .into_iter()
            .filter_map(|(attr, value)| Some((self.visible(&attr)?.into_owned(), value)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_read_and_written() {
        for value in ["name", "/a", "/a/b/c", "odd name"] {
            assert_eq!(Redirect::parse(value.as_bytes()).unwrap().value(), value.as_bytes());
        }
        for value in ["", "/", "a/b", "/a//b", "/a/", "..", "/a/../b", ".", "a\0b"] {
            assert!(Redirect::parse(value.as_bytes()).is_err(), "{value:?} was accepted");
        }
    }

    #[test]
    fn own_marks_are_hidden_and_escaped_ones_shown() {
        let cases = [
            ("user.mime", Some("user.mime")),
            ("trusted.overlay.opaque", None),
            ("trusted.overlay.origin", None),
            ("trusted.overlay.overlay.opaque", Some("trusted.overlay.opaque")),
            ("user.overlay.opaque", Some("user.overlay.opaque")),
            ("trusted.overlayed", Some("trusted.overlayed")),
        ];
        for (attr, shown) in cases {
            let visible = XattrSpace::Trusted.visible(OsStr::new(attr));
            assert_eq!(visible.as_deref(), shown.map(OsStr::new), "{attr}");
        }
        let raw: Xattrs = cases.map(|(attr, _)| (attr.into(), Vec::new())).into();
        let shown: Vec<_> = XattrSpace::Trusted.strip(raw).into_keys().collect();
        assert_eq!(shown.len(), 4, "{shown:?}");
    }

    #[test]
    fn marks_are_read_from_files() {
        if !crate::testing::is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for path in ["opaque", "plain", "odd"] {
            std::fs::create_dir(dir.path().join(path)).unwrap();
        }
        for path in ["empty", "white", "meta"] {
            std::fs::write(dir.path().join(path), "").unwrap();
        }
        let root = crate::root::Root::open(dir.path()).unwrap();
        let set = |name: &str, attr: &str, value: &str| {
            xattr::set_at(&root, OsStr::new(name), OsStr::new(attr), value.as_bytes()).unwrap();
        };
        set("opaque", "trusted.overlay.opaque", "y");
        set("opaque", "user.overlay.opaque", "x");
        set("odd", "trusted.overlay.opaque", "n");
        set("odd", "trusted.overlay.redirect", "/a/b");
        set("white", "trusted.overlay.whiteout", "y");
        set("meta", "trusted.overlay.metacopy", "");
        let read = |marks: XattrSpace, name: &str| {
            let meta = root.meta(name).unwrap().unwrap();
            let white = marks.is_whiteout(&root, OsStr::new(name), &meta).unwrap();
            (marks.read(&root, OsStr::new(name), &meta).unwrap(), white)
        };
        let nothing = Mark::default();
        let opaque = |opaque| Mark { opaque, ..Mark::default() };
        let redirect = Redirect::parse(b"/a/b").ok();
        for (marks, name, expected, white) in [
            (XattrSpace::Trusted, "opaque", opaque(Opaque::Yes), false),
            (XattrSpace::User, "opaque", opaque(Opaque::Whiteouts), false),
            (XattrSpace::Trusted, "plain", nothing.clone(), false),
            (XattrSpace::Trusted, "odd", Mark { redirect, ..Mark::default() }, false),
            (XattrSpace::Trusted, "white", nothing.clone(), true),
            (XattrSpace::User, "white", nothing.clone(), false),
            (XattrSpace::Trusted, "meta", Mark { metacopy: true, ..Mark::default() }, false),
            (XattrSpace::Trusted, "empty", nothing, false),
        ] {
            assert_eq!(read(marks, name), (expected, white), "{marks:?} {name}");
        }
    }
}

//! Everything that can be seen of a tree, for comparison.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// What is seen of one file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: String,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) links: u64,
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Every path below `root` with what is seen there; checks on the way that `d_type` agrees with
/// `stat`.
pub(crate) fn see(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    visit(root, Path::new(""), false, &mut all);
    all
}

/// Does the same, and checks that `d_ino` agrees with `stat`: it does not always in the kernel's
/// overlay.
pub(crate) fn see_strictly(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    visit(root, Path::new(""), true, &mut all);
    all
}

fn visit(root: &Path, below: &Path, strictly: bool, all: &mut BTreeMap<PathBuf, Seen>) {
    let dir = root.join(below);
    let entries = std::fs::read_dir(&dir);
    let entries = entries.unwrap_or_else(|error| panic!("readdir {}: {error}", dir.display()));
    for entry in entries {
        let entry = entry.expect("an entry");
        let path = below.join(entry.file_name());
        let full = root.join(&path);
        let meta = std::fs::symlink_metadata(&full);
        let meta = meta.unwrap_or_else(|error| panic!("stat {}: {error}", full.display()));
        let kind = entry.file_type().expect("d_type");
        assert_eq!(kind, meta.file_type(), "d_type and st_mode of {}", full.display());
        use std::os::unix::fs::DirEntryExt as _;
        if strictly {
            assert_eq!(entry.ino(), meta.ino(), "d_ino and st_ino of {}", full.display());
        }
        let seen = look(&full, &meta);
        assert!(all.insert(path.clone(), seen).is_none(), "{} is listed twice", full.display());
        if meta.is_dir() {
            visit(root, &path, strictly, all);
        }
    }
}

fn look(path: &Path, meta: &std::fs::Metadata) -> Seen {
    let kind = meta.file_type();
    let content = if kind.is_file() {
        std::fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).expect("a link's text");
        target.as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    let name = match kind {
        kind if kind.is_dir() => "dir",
        kind if kind.is_file() => "file",
        kind if kind.is_symlink() => "symlink",
        kind if kind.is_fifo() => "fifo",
        kind if kind.is_socket() => "socket",
        _ => "device",
    };
    let links = if kind.is_dir() { 0 } else { meta.nlink() };
    Seen {
        kind: name.to_owned(),
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        links,
        content,
        xattrs: xattrs(path),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let (dir, name) = (path.parent().expect("a parent"), path.file_name().expect("a name"));
    let dir = std::fs::File::open(dir).expect("the parent");
    let names = cow_sys::xattr::list(&dir, name).expect("the names of attributes");
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|attr| {
            let value = cow_sys::xattr::get(&dir, name, OsStr::from_bytes(attr));
            (attr.to_vec(), value.expect("a listed attribute"))
        })
        .collect()
}

/// Fails with the paths at which two trees differ.
pub(crate) fn assert_same(
    what: &str,
    expected: &BTreeMap<PathBuf, Seen>,
    found: &BTreeMap<PathBuf, Seen>,
) {
    let mut lines = Vec::new();
    for path in expected.keys().chain(found.keys().filter(|path| !expected.contains_key(*path))) {
        let (one, other) = (expected.get(path), found.get(path));
        if one != other {
            lines.push(format!("{}:\n  expected {one:?}\n  found    {other:?}", path.display()));
        }
    }
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sum = self
            .content
            .iter()
            .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        let Self { kind, mode, owner, links, content, xattrs } = self;
        let length = content.len();
        write!(f, "{kind} {mode:o} {owner:?} links {links} bytes {length}:{sum:x} {xattrs:?}")
    }
}

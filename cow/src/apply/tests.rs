//! A ground to apply layers on: a root deep inside a directory of things that must not change.

#![allow(clippy::cast_possible_truncation, reason = "the numbers are small and the tests' own")]

mod breakouts;
mod hostile;
mod lowers;
mod rules;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::*;
use crate::ErrorKind;
use crate::marks::Opaque;
use crate::meta::Time;
use crate::root::Resolve;
use crate::tar::Writer;
use crate::whiteout::XattrSpace;

const OVERLAY: WhiteoutFormat = WhiteoutFormat::Overlay(XattrSpace::User);
const BOTH: [WhiteoutFormat; 2] = [OVERLAY, WhiteoutFormat::Remove];

/// A tar under construction; all is owned by the process, of one time.
struct Tar(Writer<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    fn blank(path: &str, kind: EntryKind, mode: u32) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: Time { secs: 1_700_000_000, nanos: 0 },
            ..Entry::default()
        }
    }

    fn entry(mut self, entry: Entry, data: &[u8]) -> Self {
        self.0.entry(&Entry { size: data.len() as u64, ..entry }).unwrap();
        self.0.data(data).unwrap();
        self
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(Self::blank(path, EntryKind::Dir, mode), b"")
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.entry(Self::blank(path, EntryKind::File, 0o644), data.as_bytes())
    }

    fn symlink(self, text: &str, path: &str) -> Self {
        let link = text.into();
        self.entry(Entry { link, ..Self::blank(path, EntryKind::Symlink, 0o777) }, b"")
    }

    fn link(self, target: &str, path: &str) -> Self {
        let link = target.into();
        self.entry(Entry { link, ..Self::blank(path, EntryKind::HardLink, 0o644) }, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap().0
    }
}

/// What one path is, as far as the tests compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    nlink: u64,
    content: Vec<u8>,
}

/// All that is below a directory, but for what is below `except`.
fn snapshot(dir: &Path, except: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        if path == except {
            continue;
        }
        let meta = path.symlink_metadata().unwrap();
        let content = match meta.file_type() {
            kind if kind.is_dir() => {
                todo.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
                Vec::new()
            }
            kind if kind.is_symlink() => path.read_link().unwrap().into_os_string().into_vec(),
            _ => std::fs::read(&path).unwrap(),
        };
        let found = Seen {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            nlink: meta.nlink(),
            content,
        };
        seen.insert(path, found);
    }
    seen
}

/// One place of a lower tree.
enum Place {
    Dir(&'static str),
    File(&'static str, &'static str),
    Symlink(&'static str, &'static str),
    Link(&'static str, &'static str),
}

fn plant(root: &Path, places: &[Place]) {
    for place in places {
        match place {
            Place::Dir(path) => std::fs::create_dir_all(root.join(path)).unwrap(),
            Place::File(path, data) => {
                std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
                std::fs::write(root.join(path), data).unwrap();
            }
            Place::Symlink(text, path) => symlink(text, root.join(path)).unwrap(),
            Place::Link(target, path) => {
                std::fs::hard_link(root.join(target), root.join(path)).unwrap();
            }
        }
    }
}

/// A root at `x/y/root` with sentinels beside every directory above it.
struct Ground {
    dir: tempfile::TempDir,
    format: WhiteoutFormat,
    lowers: Vec<Root>,
    before: BTreeMap<PathBuf, Seen>,
}

impl Ground {
    fn new(format: WhiteoutFormat) -> Self {
        Self::on(format, &[])
    }

    /// A ground with lower content: in the root itself, or in a layer below it.
    fn on(format: WhiteoutFormat, places: &[Place]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for above in ["", "x", "x/y"] {
            for name in ["etc/passwd", "etc/unbroken", "tmp/keep", "passwd", "dne/keep"] {
                let path = dir.path().join(above).join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, b"outside").unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
            }
        }
        let mut ground = Self { dir, format, lowers: Vec::new(), before: BTreeMap::new() };
        std::fs::create_dir(ground.root()).unwrap();
        if format == WhiteoutFormat::Remove {
            plant(&ground.root(), places);
        } else if !places.is_empty() {
            ground.add_lower(places);
        }
        ground.before = ground.outside();
        ground
    }

    /// Adds a layer on top of the lower ones.
    fn add_lower(&mut self, places: &[Place]) -> PathBuf {
        let path = self.dir.path().join(format!("lower{}", self.lowers.len()));
        std::fs::create_dir(&path).unwrap();
        plant(&path, places);
        self.lowers.insert(0, Root::open(&path).unwrap());
        self.before = self.outside();
        path
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("x/y/root")
    }

    fn outside(&self) -> BTreeMap<PathBuf, Seen> {
        snapshot(self.dir.path(), &self.root())
    }

    fn options(&self) -> ApplyOptions<'_> {
        ApplyOptions::new(self.format).on(&self.lowers)
    }

    /// Applies on the lower layers, and looks that nothing outside has changed.
    fn apply(&self, tar: &[u8]) -> Result<Applied> {
        self.apply_with(tar, &self.options())
    }

    fn apply_with(&self, tar: &[u8], options: &ApplyOptions<'_>) -> Result<Applied> {
        let root = Root::open(self.root()).unwrap();
        let applied = apply(&root, tar, options);
        self.check_outside();
        applied
    }

    /// Holds everything outside of the root to what it was.
    fn check_outside(&self) {
        assert_eq!(self.outside(), self.before, "nothing outside of the root changes");
    }

    /// The tree as a process would see it, merged by hand where it is in layers.
    fn merged(&self) -> Root {
        if self.format == WhiteoutFormat::Remove {
            return Root::open(self.root()).unwrap();
        }
        let merged = tempfile::tempdir_in(self.dir.path()).unwrap().keep();
        for lower in self.lowers.iter().rev() {
            merge(lower.label(), &merged);
        }
        merge(&self.root(), &merged);
        Root::open(&merged).unwrap()
    }
}

/// Puts one overlayfs layer over a tree, as simply as can be; inodes stay shared.
fn merge(layer: &Path, onto: &Path) {
    let fd = std::fs::File::open(layer).unwrap();
    let own = crate::at::meta_of(&fd).unwrap();
    if XattrSpace::User.read(&fd, OsStr::new(""), &own).unwrap().opaque == Opaque::Yes {
        std::fs::remove_dir_all(onto).unwrap();
        std::fs::create_dir(onto).unwrap();
    }
    for entry in layer.read_dir().unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), onto.join(entry.file_name()));
        let there = to.symlink_metadata().ok();
        let is_dir = from.symlink_metadata().unwrap().is_dir();
        match there {
            Some(meta) if meta.is_dir() && is_dir => {}
            Some(meta) if meta.is_dir() => std::fs::remove_dir_all(&to).unwrap(),
            Some(_) => std::fs::remove_file(&to).unwrap(),
            None => {}
        }
        if is_dir {
            let _ = std::fs::create_dir(&to);
            merge(&from, &to);
        } else if !is_whiteout(&fd, &entry.file_name()) {
            std::fs::hard_link(&from, &to).unwrap();
        }
    }
    let meta = layer.metadata().unwrap();
    std::fs::set_permissions(onto, meta.permissions()).unwrap();
    let time = Time { secs: meta.mtime(), nanos: meta.mtime_nsec() as u32 };
    crate::at::set_mtime_at(std::fs::File::open(onto).unwrap(), OsStr::new(""), time).unwrap();
}

fn is_whiteout(dir: &std::fs::File, name: &OsStr) -> bool {
    let meta = crate::at::meta_at(dir, name).unwrap().unwrap();
    XattrSpace::User.is_whiteout(dir, name, &meta).unwrap()
}

/// The metadata of a path in a tree, all links on the way followed inside of it.
fn meta_in(root: &Root, path: &str) -> Option<crate::meta::Meta> {
    let path = Path::new(if path.is_empty() { "." } else { path });
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = rustix::fs::ResolveFlags::IN_ROOT;
    let fd = cow_sys::resolve::openat2(root, path, flags, Mode::empty(), resolve);
    fd.ok().map(|fd| crate::at::meta_of(fd).unwrap())
}

/// The content of a file in a tree, the last link not followed.
fn content_in(root: &Root, path: &str) -> Option<String> {
    let fd =
        root.open_with(Path::new(path), OFlags::RDONLY, Mode::empty(), Resolve::InRoot).ok()?;
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn names_are_normalized_before_anything_is_looked_up() {
    let cases = [
        ("a/b", "a/b"),
        ("./a//b/", "a/b"),
        ("/a/./b", "a/b"),
        ("../a", "a"),
        ("a/../../b", "b"),
        ("a/b/..", "a"),
        ("..", ""),
        ("/", ""),
        ("", ""),
        ("...", "..."),
    ];
    for (path, expected) in cases {
        let mut out = Vec::new();
        normalize(path.as_bytes(), &mut out);
        assert_eq!(out, expected.as_bytes(), "{path:?}");
    }
}

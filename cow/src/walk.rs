//! Every file of a tree, in the order of layers.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::at;
use crate::descent::Descent;
use crate::error::{Error, Result};
use crate::listing::Listing;
use crate::meta::Meta;
use crate::root::{Root, is_absent};

/// What a walk does about a file that is gone when it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vanished {
    /// Leave it out: the tree is in use.
    Skip,
    /// Report it: the tree is immutable, and something is wrong.
    Fail,
}

/// A depth-first walk below a directory, names in byte order, a directory before what is in it.
///
/// The paths so appear in the order of a [`Changeset`](crate::change::Changeset): byte-wise with
/// `/` below every other byte. The start itself is not among them. Symbolic links are not followed;
/// mounts are entered. However deep the tree, only some directories are open at a time.
#[derive(Debug)]
pub struct Walk<'r> {
    root: &'r Root,
    way: Descent<'r>,
    /// For each directory on the way, its names and how many of them are done.
    names: Vec<(Listing, usize)>,
    vanished: Vanished,
    /// The path of the last entry.
    path: Vec<u8>,
    /// Whether the last entry is a directory to go into next.
    enter: bool,
}

/// A file met on a walk.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'w> {
    /// The path below the root.
    pub path: &'w Path,
    /// The last component.
    pub name: &'w OsStr,
    /// The directory that holds it, open for reading.
    pub dir: BorrowedFd<'w>,
    /// Its metadata.
    pub meta: Meta,
    /// How many directories lie between the start and the file.
    pub depth: usize,
}

impl<'r> Walk<'r> {
    /// Walks everything below a root's own directory.
    pub fn new(root: &'r Root, vanished: Vanished) -> Result<Self> {
        Self::below(root, Path::new(""), vanished)
    }

    /// Walks everything below a directory of a root.
    pub fn below(root: &'r Root, start: &Path, vanished: Vanished) -> Result<Self> {
        let mut way = Descent::new(root, start)?;
        let names = list(root, &mut way)?;
        Ok(Self { root, way, names: vec![(names, 0)], vanished, path: Vec::new(), enter: false })
    }

    /// Does not go into the directory that was returned last.
    pub fn skip_dir(&mut self) {
        self.enter = false;
    }

    /// The next file; none at the end. It lends its path and directory until the next call.
    ///
    /// After an error the walk may go on, without the file or directory that failed.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>> {
        if std::mem::take(&mut self.enter) {
            self.go_in()?;
        }
        let meta = loop {
            let Some((names, done)) = self.names.last_mut() else { return Ok(None) };
            let Some(name) = names.get(*done) else {
                self.names.pop();
                self.way.leave();
                continue;
            };
            *done += 1;
            self.path.clear();
            self.path.extend_from_slice(self.way.path().as_os_str().as_bytes());
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            let found = match self.way.dir() {
                Ok(dir) => at::meta_at(dir, name).map_err(|error| {
                    self.root.error("statx", OsStr::from_bytes(&self.path), error)
                })?,
                // It was not held, and is gone with all that is in it.
                Err(Error::Sys { source, .. }) if is_absent(&source) => None,
                Err(error) => return Err(error),
            };
            match (found, self.vanished) {
                (Some(meta), _) => break meta,
                (None, Vanished::Skip) => {}
                (None, Vanished::Fail) => return Err(self.gone()),
            }
        };
        self.enter = meta.is_dir();
        let depth = self.way.depth();
        let path = Path::new(OsStr::from_bytes(&self.path));
        let name = path.file_name().unwrap_or_default();
        Ok(Some(Entry { path, name, dir: self.way.dir()?, meta, depth }))
    }

    /// Goes into the last entry, which is a directory.
    fn go_in(&mut self) -> Result<()> {
        let path = Path::new(OsStr::from_bytes(&self.path));
        match self.way.enter(path.file_name().unwrap_or_default()) {
            Ok(()) => {}
            Err(Error::Sys { source, .. })
                if self.vanished == Vanished::Skip && is_absent(&source) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let names = list(self.root, &mut self.way);
        // Keeps way and names of one length, whatever happened.
        let (names, failed) = match names {
            Ok(names) => (names, None),
            Err(Error::Sys { source, .. })
                if self.vanished == Vanished::Skip && is_absent(&source) =>
            {
                (Listing::default(), None)
            }
            Err(error) => (Listing::default(), Some(error)),
        };
        self.names.push((names, 0));
        failed.map_or(Ok(()), Err)
    }

    fn gone(&self) -> Error {
        self.root.error("statx", OsStr::from_bytes(&self.path), rustix::io::Errno::NOENT)
    }
}

fn list(root: &Root, way: &mut Descent<'_>) -> Result<Listing> {
    let names = Listing::read(way.dir()?);
    names.map_err(|error| root.error("getdents", way.path(), error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn walk(root: &Root, skip: &str) -> Vec<PathBuf> {
        let mut walk = Walk::new(root, Vanished::Fail).unwrap();
        let mut paths = Vec::new();
        while let Some(entry) = walk.next_entry().unwrap() {
            assert_eq!(entry.path.components().count(), entry.depth + 1, "{:?}", entry.path);
            assert_eq!(at::meta_at(entry.dir, entry.name).unwrap(), Some(entry.meta));
            paths.push(entry.path.to_owned());
            if entry.path == Path::new(skip) {
                walk.skip_dir();
            }
        }
        paths
    }

    #[test]
    fn order_has_the_slash_below_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/z", "a/b/c", "a.txt/x", "a b", "Z"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let all = ["Z", "a", "a/b", "a/b/c", "a/z", "a b", "a.txt", "a.txt/x", "link"];
        assert_eq!(walk(&root, ""), all.map(PathBuf::from));
        let without = ["Z", "a", "a b", "a.txt", "a.txt/x", "link"];
        assert_eq!(walk(&root, "a"), without.map(PathBuf::from), "a was skipped");
        let mut below = Walk::below(&root, Path::new("/a/b/"), Vanished::Fail).unwrap();
        assert_eq!(below.next_entry().unwrap().unwrap().path, Path::new("a/b/c"));
        assert!(below.next_entry().unwrap().is_none());
        assert!(below.next_entry().unwrap().is_none(), "the end stays the end");
    }

    #[test]
    fn a_deep_tree_keeps_few_directories_open() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut held = root.open_dir("").unwrap();
        for _ in 0..1500 {
            for name in ["d", "z"] {
                rustix::fs::mkdirat(&held, name, rustix::fs::Mode::RWXU).unwrap();
            }
            held = at::open_dir_at(&held, OsStr::new("d")).unwrap();
        }
        let mut walk = Walk::new(&root, Vanished::Fail).unwrap();
        let (mut count, mut deepest) = (0, 0);
        while let Some(entry) = walk.next_entry().unwrap() {
            count += 1;
            deepest = deepest.max(entry.depth);
            let open = walk.way.held();
            assert!(open <= 50, "{open} directories are open");
        }
        assert_eq!((count, deepest), (3000, 1499));
        drop(walk);
        // tempfile's own removal is recursive by path and would fail on so deep a tree.
        std::process::Command::new("rm").arg("-rf").arg(dir.path()).status().unwrap();
    }

    #[test]
    fn vanished_files_are_skipped_or_reported() {
        for (vanished, survives) in [(Vanished::Skip, true), (Vanished::Fail, false)] {
            let dir = tempfile::tempdir().unwrap();
            for path in ["a", "b/c", "d"] {
                let path = dir.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            let root = Root::open(dir.path()).unwrap();
            let mut walk = Walk::new(&root, vanished).unwrap();
            assert_eq!(walk.next_entry().unwrap().unwrap().path, Path::new("a"));
            fs::remove_file(dir.path().join("d")).unwrap();
            assert_eq!(walk.next_entry().unwrap().unwrap().path, Path::new("b"));
            fs::remove_dir_all(dir.path().join("b")).unwrap();
            let answer = walk.next_entry().map(|entry| entry.is_none());
            assert_eq!(matches!(answer, Ok(true)), survives, "{vanished:?}: {answer:?}");
            assert_eq!(answer.is_ok(), survives, "{vanished:?}");
        }
    }
}

//! The comparison of a snapshot with what it was taken of, where the file system tells which inodes
//! were written since.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::RawDir;

use super::trees::{Pair, Trees};
use crate::at;
use crate::change::Changeset;
use crate::error::Result;
use crate::root::Root;

/// What was written in the upper tree since it was the same as the lower one.
///
/// Whoever fills it promises: an inode that is not in [`inodes`](Self::inodes) has the same number,
/// content, metadata and (a directory) entries in both trees. It may name more than was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The numbers of all inodes of the upper tree that were written.
    pub inodes: HashSet<u64>,
    /// The ways to them: for each directory of the upper tree, by its inode number, the names in it
    /// under which a touched inode or a directory with one below it is found.
    pub names: HashMap<u64, Vec<OsString>>,
}

/// Compares a tree with the one that it is a snapshot of.
///
/// Finds what [`trees`](super::trees) finds, at the cost of the touched inodes, of the directories above them, and of a
/// list of names for each touched directory. A file that was touched but is as before is no change.
/// Nothing may be mounted in the trees, and nobody may write to them meanwhile.
pub fn touched(lower: &Root, upper: &Root, touched: &Touched) -> Result<Changeset> {
    let (lower, touched) = (Some(lower), Some(touched));
    Trees { lower, upper, touched, changes: Vec::new(), pending: Vec::new() }.run()
}

impl Trees<'_> {
    /// Compares a directory that is in both trees.
    pub(super) fn touched_directory(
        &mut self,
        touched: &Touched,
        lower: &Root,
        pair: &Pair,
    ) -> Result<()> {
        let upper = self.upper;
        let above = upper.open_dir(&pair.path)?;
        let below = lower.open_dir(&pair.path)?;
        let ino = |root: &Root, dir: &OwnedFd| {
            let meta = at::meta_of(dir).map_err(|error| root.error("statx", &pair.path, error))?;
            Ok(meta.ino)
        };
        let number = ino(upper, &above)?;
        let is_same = number == ino(lower, &below)? && !touched.inodes.contains(&number);
        if is_same {
            let names = touched.names.get(&number).map_or(&[][..], Vec::as_slice);
            for name in names {
                self.touched_name(lower, pair, [&above, &below], name)?;
            }
            return Ok(());
        }
        let ours = numbers(upper, &above, &pair.path)?;
        let theirs = numbers(lower, &below, &pair.path)?;
        for (name, our) in &ours {
            if theirs.get(name) != Some(our) || touched.inodes.contains(our) {
                self.touched_name(lower, pair, [&above, &below], name)?;
            } else if touched.names.contains_key(our) {
                self.pending.push(Pair { path: pair.path.join(name), below: true });
            }
        }
        for name in theirs.keys().filter(|name| !ours.contains_key(*name)) {
            self.touched_name(lower, pair, [&above, &below], name)?;
        }
        Ok(())
    }

    /// Compares one name in a directory of both trees, `at`: upper, lower.
    fn touched_name(
        &mut self,
        lower: &Root,
        pair: &Pair,
        at: [&OwnedFd; 2],
        name: &OsStr,
    ) -> Result<()> {
        let path = pair.path.join(name);
        let look = |root: &Root, dir: &OwnedFd| {
            at::meta_at(dir, name).map_err(|error| root.error("statx", &path, error))
        };
        match (look(self.upper, at[0])?, look(lower, at[1])?) {
            (Some(above), Some(below)) => self.both(path, name, at, &above, &below),
            (above, below) => {
                self.one(path, above, below);
                Ok(())
            }
        }
    }
}

/// The names in a directory with the inode numbers that they lead to, as the directory says.
fn numbers(root: &Root, dir: impl AsFd, path: &Path) -> Result<BTreeMap<OsString, u64>> {
    let failed = |error| root.error("getdents", path, error);
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = BTreeMap::new();
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.insert(OsStr::from_bytes(name).to_owned(), entry.ino());
        }
    }
    Ok(names)
}

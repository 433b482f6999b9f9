//! The ways to inodes of which only the number is known.
//!
//! Neither ext4 nor xfs keeps an inode's names with the inode, so they are looked for: directories are read,
//! which tells each name with its inode's number and kind, until all have been met. No file is looked
//! at.
//!
//! Which directory comes next decides how many are read. Both give a file a free number of its directory's
//! group, as a rule the first, so that in a tree that was unpacked in order, files have the numbers after their
//! directory's: of the directories that are known and not read yet, the one next before a wanted
//! inode is the likeliest to be above it. If it is not, more are read; in the end all.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use cow::error::Result;
use cow::root::Root;
use rustix::fs::{FileType, RawDir};

/// A directory on the way down from the root.
#[derive(Debug)]
struct Step {
    above: Option<Rc<Step>>,
    ino: u64,
    name: OsString,
}

impl Step {
    fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut at = Some(self);
        while let Some(step) = at {
            names.push(&step.name);
            at = step.above.as_deref();
        }
        names.into_iter().rev().collect()
    }
}

/// The names that were found.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// For each directory the names on the ways to wanted inodes.
    pub(super) ways: HashMap<u64, Vec<OsString>>,
    /// How many directories were read.
    pub(super) directories: u64,
}

/// Finds the names of inodes, of each so many as `wanted` says; less than all there are is an error of
/// the file system, more are not looked for. Nobody may write to the tree. The numbers: the root's, and
/// how many a group has.
pub(super) fn find(
    root: &Root,
    wanted: &HashMap<u64, u32>,
    (root_ino, per_group): (u64, u64),
) -> Result<Names> {
    let start = Step { above: None, ino: root_ino, name: OsString::new() };
    let mut search = Search {
        wanted: wanted.iter().map(|(&ino, &names)| (ino, names)).collect(),
        waiting: BTreeMap::from([(start.ino, Rc::new(start))]),
        per_group: per_group.max(1),
        known: HashSet::from([root_ino]),
        names: Names::default(),
    };
    search.wanted.remove(&root_ino);
    while let Some(step) = search.next() {
        search.read(root, &step)?;
    }
    Ok(search.names)
}

struct Search {
    /// What is still looked for, with how many names are missing.
    wanted: BTreeMap<u64, u32>,
    /// Directories that are not read yet. There are no more of them than the file system has inodes.
    waiting: BTreeMap<u64, Rc<Step>>,
    per_group: u64,
    /// Directories to which the way is noted.
    known: HashSet<u64>,
    names: Names,
}

impl Search {
    /// The directory that is read next; none when all is found, or all is read.
    fn next(&mut self) -> Option<Rc<Step>> {
        let (&wanted, _) = self.wanted.first_key_value()?;
        let before = self.waiting.range(..=wanted).next_back().map(|(&ino, _)| ino);
        let first = wanted - (wanted - 1) % self.per_group;
        let likely = before.filter(|&ino| ino >= first).or_else(|| {
            // Of its group the one next after it, or any.
            self.waiting.range(wanted..).next().map(|(&ino, _)| ino).or(before)
        });
        likely.and_then(|ino| self.waiting.remove(&ino))
    }

    fn read(&mut self, root: &Root, step: &Rc<Step>) -> Result<()> {
        let path = step.path();
        let dir = root.open_dir(&path)?;
        let failed = |error| root.error("getdents", &path, error);
        self.names.directories += 1;
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let (name, ino) = (OsStr::from_bytes(name), entry.ino());
            let is_dir = match entry.file_type() {
                FileType::Unknown => root.meta(path.join(name))?.is_some_and(|meta| meta.is_dir()),
                kind => kind == FileType::Directory,
            };
            let is_wanted = self.meet(ino);
            if is_wanted {
                self.lead(step, name);
            }
            if is_dir {
                if is_wanted {
                    self.known.insert(ino);
                }
                let next = Step { above: Some(Rc::clone(step)), ino, name: name.to_owned() };
                self.waiting.insert(ino, Rc::new(next));
            }
        }
        Ok(())
    }

    /// Whether an inode was still looked for under one more name.
    fn meet(&mut self, ino: u64) -> bool {
        let Some(missing) = self.wanted.get_mut(&ino) else { return false };
        *missing = missing.saturating_sub(1);
        if *missing == 0 {
            self.wanted.remove(&ino);
        }
        true
    }

    /// Notes a name in a directory, and the way there.
    fn lead(&mut self, step: &Rc<Step>, name: &OsStr) {
        self.names.ways.entry(step.ino).or_default().push(name.to_owned());
        let mut at = step;
        while let Some(above) = &at.above
            && self.known.insert(at.ino)
        {
            self.names.ways.entry(above.ino).or_default().push(at.name.clone());
            at = above;
        }
    }
}

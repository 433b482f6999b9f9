//! The exact comparison of two whole trees.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::at;
use crate::change::{Change, ChangeKind, Changeset, Location};
use crate::compare::{self, Depth, Side};
use crate::error::{Error, Result};
use crate::listing::Listing;
use crate::meta::Meta;
use crate::root::{Root, is_absent};

use super::touched::Touched;

/// Compares a tree with the one it was made from, or with nothing.
///
/// All [`Location`]s are in root 0, the upper tree. Costs a look at every file of both trees, and
/// reads the content of every pair of files whose metadata are equal but that are not one inode.
/// The upper tree may be in use: what vanishes meanwhile counts as not there.
pub fn trees(lower: Option<&Root>, upper: &Root) -> Result<Changeset> {
    Trees { lower, upper, touched: None, changes: Vec::new(), pending: Vec::new() }.run()
}

/// A directory of the upper tree that is still to be compared.
pub(super) struct Pair {
    pub(super) path: PathBuf,
    /// Whether the lower tree has a directory of this name.
    pub(super) below: bool,
}

/// A directory that is open, and the names in it.
struct Open {
    fd: OwnedFd,
    names: Listing,
}

pub(super) struct Trees<'a> {
    pub(super) lower: Option<&'a Root>,
    pub(super) upper: &'a Root,
    /// What alone can differ, where that is known.
    pub(super) touched: Option<&'a Touched>,
    pub(super) changes: Vec<Change>,
    /// A stack, so that it holds the siblings along one way only, not a whole level of the tree.
    pub(super) pending: Vec<Pair>,
}

impl Trees<'_> {
    /// Compares from the root down.
    pub(super) fn run(mut self) -> Result<Changeset> {
        self.root()?;
        self.pending.push(Pair { path: PathBuf::new(), below: self.lower.is_some() });
        while let Some(pair) = self.pending.pop() {
            match (self.touched, self.lower) {
                (Some(touched), Some(lower)) if pair.below => {
                    self.touched_directory(touched, lower, &pair)?;
                }
                _ => self.directory(&pair)?,
            }
        }
        Ok(Changeset::sorted(self.changes))
    }

    fn root(&mut self) -> Result<()> {
        let own = |root: &Root| -> Result<_> {
            let meta = at::meta_of(root).map_err(|error| root.error("statx", "", error))?;
            Ok((meta, root.xattrs("")?))
        };
        let upper = own(self.upper)?;
        let lower = self.lower.map(own).transpose()?;
        let lower = lower.as_ref().map(|(meta, xattrs)| (meta, xattrs));
        if super::root_differs((&upper.0, &upper.1), lower) {
            self.push(PathBuf::new(), ChangeKind::Modified, &upper.0);
        }
        Ok(())
    }

    fn push(&mut self, path: PathBuf, kind: ChangeKind, meta: &Meta) {
        let here = Location { root: 0, path: path.clone() };
        let data = meta.is_file().then(|| here.clone());
        self.changes.push(super::changed(path, kind, here, data));
    }

    fn directory(&mut self, pair: &Pair) -> Result<()> {
        let Some(upper) = open(self.upper, &pair.path)? else { return Ok(()) };
        let lower = match self.lower.filter(|_| pair.below) {
            Some(root) => open(root, &pair.path)?,
            None => None,
        };
        let (mut ours, mut theirs) = (0, 0);
        loop {
            let our = upper.names.get(ours);
            let their = lower.as_ref().and_then(|lower| lower.names.get(theirs));
            let (name, order) = match (our, their) {
                (Some(our), Some(their)) => (our.min(their), our.cmp(their)),
                (Some(our), None) => (our, Ordering::Less),
                (None, Some(their)) => (their, Ordering::Greater),
                (None, None) => return Ok(()),
            };
            ours += usize::from(order.is_le());
            theirs += usize::from(order.is_ge());
            let path = pair.path.join(name);
            let above = if order.is_le() { meta(self.upper, &upper, name, &path)? } else { None };
            let below = match (&lower, self.lower) {
                (Some(lower), Some(root)) if order.is_ge() => meta(root, lower, name, &path)?,
                _ => None,
            };
            match (above, below) {
                (Some(above), Some(below)) => {
                    let at = [&upper.fd, lower.as_ref().map_or(&upper.fd, |lower| &lower.fd)];
                    self.both(path, name, at, &above, &below)?;
                }
                (above, below) => self.one(path, above, below),
            }
        }
    }

    /// Notes a name that at most one tree has.
    pub(super) fn one(&mut self, path: PathBuf, above: Option<Meta>, below: Option<Meta>) {
        if let Some(above) = above {
            if above.is_dir() {
                self.pending.push(Pair { path: path.clone(), below: false });
            }
            self.push(path, ChangeKind::Added, &above);
        } else if below.is_some() {
            self.changes.push(Change::deleted(path));
        }
    }

    /// Compares a name that both trees have, in the directories `at`: upper, lower.
    pub(super) fn both(
        &mut self,
        path: PathBuf,
        name: &OsStr,
        at: [&OwnedFd; 2],
        above: &Meta,
        below: &Meta,
    ) -> Result<()> {
        let [upper, lower] = at;
        let sides = (Side::new(upper.as_fd(), name, above), Side::new(lower.as_fd(), name, below));
        let kind = match compare::files(&sides.0, &sides.1, Depth::First) {
            Ok(same) if same.is_empty() => None,
            Ok(_) => Some(ChangeKind::Modified),
            // The upper file changed its kind or went away between the look at its metadata and at
            // the rest. What is there now is certainly not what was.
            Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::INVAL) => {
                match self.upper.meta(&path)? {
                    Some(above) => {
                        self.push(path, ChangeKind::Modified, &above);
                        return Ok(());
                    }
                    None => Some(ChangeKind::Deleted),
                }
            }
            Err(error) => return Err(self.upper.error("compare", &path, error)),
        };
        if above.is_dir() && kind != Some(ChangeKind::Deleted) {
            self.pending.push(Pair { path: path.clone(), below: below.is_dir() });
        }
        match kind {
            Some(ChangeKind::Deleted) => self.changes.push(Change::deleted(path)),
            Some(kind) => self.push(path, kind, above),
            None => {}
        }
        Ok(())
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Sys { source, .. } if is_absent(source))
}

/// Opens a directory and reads its names; none if it is gone.
fn open(root: &Root, path: &Path) -> Result<Option<Open>> {
    let fd = match root.open_dir(path) {
        Ok(fd) => fd,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    match Listing::read(&fd) {
        Ok(names) => Ok(Some(Open { fd, names })),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(root.error("getdents", path, error)),
    }
}

fn meta(root: &Root, dir: &Open, name: &OsStr, path: &Path) -> Result<Option<Meta>> {
    at::meta_at(&dir.fd, name).map_err(|error| root.error("statx", path, error))
}

//! The exact comparison of two whole trees.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::at;
use crate::change::{Change, ChangeKind, Changeset, Location};
use crate::compare::{self, Depth, Side};
use crate::error::{Error, Result};
use crate::listing::Listing;
use crate::meta::Meta;
use crate::root::{Root, is_absent};

/// Compares a tree with the one it was made from, or with nothing.
///
/// All [`Location`]s are in root 0, the upper tree. Costs a look at every file of both trees, and
/// reads the content of every pair of files whose metadata are equal but that are not one inode.
/// The upper tree may be in use: what vanishes meanwhile counts as not there.
pub fn trees(lower: Option<&Root>, upper: &Root) -> Result<Changeset> {
    let mut diff = Trees { lower, upper, changes: Vec::new(), pending: Vec::new() };
    diff.root()?;
    diff.pending.push(Pair { path: PathBuf::new(), below: lower.is_some() });
    while let Some(pair) = diff.pending.pop() {
        diff.directory(&pair)?;
    }
    Ok(Changeset::sorted(diff.changes))
}

/// A directory of the upper tree that is still to be compared.
struct Pair {
    path: PathBuf,
    /// Whether the lower tree has a directory of this name.
    below: bool,
}

/// A directory that is open, and the names in it.
struct Open {
    fd: OwnedFd,
    names: Listing,
}

struct Trees<'a> {
    lower: Option<&'a Root>,
    upper: &'a Root,
    changes: Vec<Change>,
    /// A stack, so that it holds the siblings along one way only, not a whole level of the tree.
    pending: Vec<Pair>,
}

impl Trees<'_> {
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
            self.file(path, above, below)?;
        }
    }

    /// Compares one name that at least one tree has listed.
    fn file(&mut self, path: PathBuf, above: Option<Meta>, below: Option<Meta>) -> Result<()> {
        match (above, below) {
            (None, None) => {}
            (None, Some(_)) => self.changes.push(Change::deleted(path)),
            (Some(above), None) => {
                if above.is_dir() {
                    self.pending.push(Pair { path: path.clone(), below: false });
                }
                self.push(path, ChangeKind::Added, &above);
            }
            (Some(above), Some(below)) => {
                if above.is_dir() {
                    let below = below.is_dir();
                    self.pending.push(Pair { path: path.clone(), below });
                }
                match self.differs(&path, &above, &below) {
                    Ok(false) => {}
                    Ok(true) => self.push(path, ChangeKind::Modified, &above),
                    Err(error) if is_gone(&error) => return self.again(path),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Looks once more at a file of the upper tree that changed its kind or went away between the
    /// look at its metadata and at the rest.
    fn again(&mut self, path: PathBuf) -> Result<()> {
        match self.upper.meta(&path)? {
            Some(above) => self.push(path, ChangeKind::Modified, &above),
            None => self.changes.push(Change::deleted(path)),
        }
        Ok(())
    }

    fn differs(&self, path: &Path, above: &Meta, below: &Meta) -> Result<bool> {
        let Some(lower) = self.lower else { return Ok(true) };
        let (a, b) = (Side::new(self.upper, path, above), Side::new(lower, path, below));
        compare::files(&a, &b, Depth::First).map(|found| !found.is_empty())
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
    let names = Listing::read(&fd).map_err(|error| root.error("getdents", path, error))?;
    Ok(Some(Open { fd, names }))
}

fn meta(root: &Root, dir: &Open, name: &OsStr, path: &Path) -> Result<Option<Meta>> {
    at::meta_at(&dir.fd, name).map_err(|error| root.error("statx", path, error))
}

//! The difference that an overlay's upper directory makes.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::change::{Change, ChangeKind, Changeset, Location};
use crate::compare::{self, Depth, Side};
use crate::error::{Error, Result};
use crate::listing::Listing;
use crate::overlay_view::{DirView, Node, OpenDir, OverlayView};
use crate::root::{Dir, Resolve, Root, is_absent};
use crate::whiteout::XattrSpace;

/// Compares what an overlay of `upper` on `lowers` (uppermost first) shows with what the lowers
/// alone show.
///
/// [`Location::root`] 0 is the upper directory, 1 the first lower, and so on. The cost is that of
/// the upper directory and of what its entries are compared with; lower directories are listed only
/// where the upper one hides or moves them (opaque and redirected directories).
///
/// The overlay may be mounted and in use: what vanishes meanwhile counts as not there.
pub fn overlay(upper: &Root, lowers: &[&Root], marks: XattrSpace) -> Result<Changeset> {
    let roots = std::iter::once(upper).chain(lowers.iter().copied()).collect();
    let view = OverlayView::new(roots, marks);
    let mut diff = Overlay { view: &view, changes: Vec::new(), pending: Vec::new() };
    let new = view.top();
    let old = view.top_of(1..1 + lowers.len());
    diff.root(upper, lowers.first().copied())?;
    diff.pending.push(Pair { path: PathBuf::new(), new, old: Some(old) });
    while let Some(pair) = diff.pending.pop() {
        match diff.directory(&pair) {
            Err(error) if is_gone(&error) && !is_there(&view, &pair.new)? => {}
            done => done?,
        }
    }
    Ok(Changeset::sorted(diff.changes))
}

/// A directory of the merged tree that is still to be compared.
struct Pair {
    path: PathBuf,
    /// What it consists of.
    new: DirView,
    /// What the directory of this name consists of in the lowers alone; none if it is new.
    old: Option<DirView>,
}

struct Overlay<'a> {
    view: &'a OverlayView<'a>,
    changes: Vec<Change>,
    pending: Vec<Pair>,
}

impl<'a> Overlay<'a> {
    fn root(&mut self, upper: &Root, lower: Option<&Root>) -> Result<()> {
        let own = |root: &Root| -> Result<_> {
            let meta = crate::at::meta_of(root).map_err(|error| root.error("statx", "", error))?;
            Ok((meta, self.view.marks().strip(root.xattrs("")?)))
        };
        let upper = own(upper)?;
        let lower = lower.map(own).transpose()?;
        let lower = lower.as_ref().map(|(meta, xattrs)| (meta, xattrs));
        if super::root_differs((&upper.0, &upper.1), lower) {
            let here = Location { root: 0, path: PathBuf::new() };
            self.changes.push(super::changed(PathBuf::new(), ChangeKind::Modified, here, None));
        }
        Ok(())
    }

    fn directory(&mut self, pair: &Pair) -> Result<()> {
        let empty = DirView::default();
        let old_view = pair.old.as_ref().unwrap_or(&empty);
        let (new, old) = (self.view.open(&pair.new), self.view.open(old_view));
        let names = self.names(pair, &new, &old)?;
        // An upper directory on the very directories that are compared with: what it merges with
        // need not be found twice.
        let merges = pair.new.parts.get(1..) == Some(&old_view.parts[..]);
        for name in names.iter() {
            let below = old.lookup(name)?;
            let above = match merges {
                true => new.lookup_above(name, below.as_ref())?,
                false => new.lookup(name)?,
            };
            self.file(pair.path.join(name), above, below)?;
        }
        Ok(())
    }

    /// The names in a directory that can differ.
    fn names(&self, pair: &Pair, new: &OpenDir<'_>, old: &OpenDir<'_>) -> Result<Listing> {
        let Some(old_view) = &pair.old else { return new.candidates() };
        let (first, rest) = match pair.new.parts.split_first() {
            Some((first, rest)) if first.root == 0 => (Some(first), rest),
            _ => (None, &pair.new.parts[..]),
        };
        if *rest != old_view.parts {
            let all = [new.candidates()?, old.candidates()?];
            return Listing::union(&all).map_err(|error| Error::sys("getdents", &pair.path, error));
        }
        let Some(first) = first else { return Ok(Listing::default()) };
        let root = self.view.root(first)?;
        let fd = root.open_dir(&first.path)?;
        Listing::read(&fd).map_err(|error| root.error("getdents", &first.path, error))
    }

    /// Compares one name as the two views show it.
    fn file(&mut self, path: PathBuf, above: Option<Node>, below: Option<Node>) -> Result<()> {
        match (above, below) {
            (None, None) => {}
            (None, Some(_)) => self.changes.push(Change::deleted(path)),
            (Some(above), None) => self.changed(path, ChangeKind::Added, above, None),
            (Some(above), Some(below)) => {
                let same_place = above.meta_at == below.meta_at && above.data_at == below.data_at;
                let kind = match same_place || !self.differs(&path, &above, &below)? {
                    true => None,
                    false => Some(ChangeKind::Modified),
                };
                match kind {
                    Some(kind) => self.changed(path, kind, above, below.dir),
                    None => self.descend(&path, above.dir, below.dir),
                }
            }
        }
        Ok(())
    }

    fn changed(&mut self, path: PathBuf, kind: ChangeKind, node: Node, old: Option<DirView>) {
        self.descend(&path, node.dir, old);
        self.changes.push(super::changed(path, kind, node.meta_at, node.data_at));
    }

    /// Leaves a directory for later; one that is the same in both views holds no change.
    fn descend(&mut self, path: &Path, new: Option<DirView>, old: Option<DirView>) {
        if let Some(new) = new
            && Some(&new) != old.as_ref()
        {
            self.pending.push(Pair { path: path.to_owned(), new, old });
        }
    }

    fn differs(&self, path: &Path, above: &Node, below: &Node) -> Result<bool> {
        let (a, b) = match (self.places(above), self.places(below)) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(error), _) if is_gone(&error) => return Ok(true),
            (a, b) => (a?, b?),
        };
        match compare::files(&self.side(above, &a), &self.side(below, &b), Depth::First) {
            Ok(found) => Ok(!found.is_empty()),
            // Changed its kind or went away while it was read: certainly not what it was.
            Err(Errno::NOENT | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::INVAL) => Ok(true),
            Err(error) => Err(Error::sys("compare", path, error)),
        }
    }

    fn places<'n>(&self, node: &'n Node) -> Result<Places<'n>>
    where
        'a: 'n,
    {
        let place = |at: &'n Location| self.view.root(at)?.parent(&at.path, Resolve::Beneath);
        let data = node.data_at.as_ref().filter(|data| **data != node.meta_at);
        Ok(Places { at: place(&node.meta_at)?, data: data.map(place).transpose()? })
    }

    fn side<'n>(&self, node: &'n Node, places: &'n Places<'n>) -> Side<'n> {
        let own = (places.at.0.as_fd(), places.at.1);
        let data = places.data.as_ref().map_or(own, |(dir, name)| (dir.as_fd(), *name));
        Side { meta: &node.meta, at: own, data, marks: Some(self.view.marks()) }
    }
}

/// The directories, held open, in which a node's metadata and data are.
struct Places<'n> {
    at: (Dir<'n>, &'n OsStr),
    /// None if it is the same.
    data: Option<(Dir<'n>, &'n OsStr)>,
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Sys { source, .. } if is_absent(source))
}

/// Whether the uppermost part of a merged directory still exists.
fn is_there(view: &OverlayView<'_>, dir: &DirView) -> Result<bool> {
    let Some(first) = dir.parts.first() else { return Ok(false) };
    Ok(view.root(first)?.meta(&first.path)?.is_some_and(|meta| meta.is_dir()))
}

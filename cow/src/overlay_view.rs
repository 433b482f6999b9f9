//! What a stack of overlay layers shows, without mounting it.
//!
//! [`OverlayView`] answers what overlayfs would: which layer a name comes from, which directories
//! of which layers merge into one, and where a metadata-only copy has its data. It follows all
//! marks that a layer of the stack may bear ([`marks`](crate::marks)), in the kernel's order of precedence.
//!
//! Everything is looked up afresh, nothing is cached: the view is as good as the layers are still.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::at;
use crate::change::Location;
use crate::error::{Error, Result};
use crate::listing::Listing;
use crate::marks::{Opaque, Redirect};
use crate::meta::Meta;
use crate::root::{Resolve, Root};
use crate::whiteout::XattrSpace;

/// A stack of layers, uppermost first.
#[derive(Clone, Debug)]
pub struct OverlayView<'r> {
    roots: Vec<&'r Root>,
    marks: XattrSpace,
}

/// The directories that merge into one, uppermost first, each in a lower layer than the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirView {
    /// Where they are.
    pub parts: Vec<Location>,
}

/// A file as the stack shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The metadata.
    pub meta: Meta,
    /// Where the metadata and the visible attributes are.
    pub meta_at: Location,
    /// Where the data of a regular file is.
    pub data_at: Option<Location>,
    /// What a directory consists of.
    pub dir: Option<DirView>,
}

impl<'r> OverlayView<'r> {
    /// Stacks layers, uppermost first; [`Location::root`] counts from 0 in this order.
    pub fn new(roots: Vec<&'r Root>, marks: XattrSpace) -> Self {
        Self { roots, marks }
    }

    /// The namespace of the marks.
    pub fn marks(&self) -> XattrSpace {
        self.marks
    }

    /// The layer of a location.
    ///
    /// # Errors
    /// `InvalidArgument` for a location of another stack.
    pub fn root(&self, at: &Location) -> Result<&'r Root> {
        self.roots
            .get(at.root)
            .copied()
            .ok_or_else(|| Error::invalid("find layer", &at.path, "no such layer in the stack"))
    }

    /// The root directory of the whole stack.
    pub fn top(&self) -> DirView {
        self.top_of(0..self.roots.len())
    }

    /// The root directory of some adjacent layers of the stack, as if there were no others.
    ///
    /// Redirects of these layers lead only into layers below them, so that the view of the lowers
    /// (`1..`) is the same as if the stack had been made of them, apart from the numbers.
    pub fn top_of(&self, layers: Range<usize>) -> DirView {
        let parts = layers.map(|root| Location { root, path: PathBuf::new() }).collect();
        DirView { parts }
    }

    /// Finds a path in the stack; none where the stack shows nothing. No link is followed.
    ///
    /// # Errors
    /// `Corrupt` for marks that contradict each other or the layers.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<Option<Node>> {
        self.resolve_from(self.top(), path.as_ref())
    }

    /// Finds a path below a merged directory.
    pub fn resolve_from(&self, dir: DirView, path: &Path) -> Result<Option<Node>> {
        let Some(mut node) = self.dir_node(dir)? else { return Ok(None) };
        for part in path.components() {
            let name = match part {
                std::path::Component::Normal(name) => name,
                std::path::Component::RootDir | std::path::Component::CurDir => continue,
                _ => return Err(Error::invalid("resolve", path, "`..` in a path of a layer")),
            };
            let Some(dir) = node.dir else { return Ok(None) };
            match self.open(&dir).lookup(name)? {
                Some(found) => node = found,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// The file that a merged directory itself is: its uppermost part.
    fn dir_node(&self, dir: DirView) -> Result<Option<Node>> {
        let Some(first) = dir.parts.first() else { return Ok(None) };
        let meta_at = first.clone();
        let meta = self.root(first)?.meta(&first.path)?;
        Ok(meta.map(|meta| Node { meta, meta_at, data_at: None, dir: Some(dir) }))
    }

    /// Prepares look-ups in a merged directory.
    pub fn open<'v>(&'v self, dir: &'v DirView) -> OpenDir<'v> {
        let handles = dir.parts.iter().map(|_| OnceCell::new()).collect();
        OpenDir { view: self, dir, handles }
    }
}

/// A merged directory in which names are looked up; the directories of its layers are opened when
/// they are first needed.
#[derive(Debug)]
pub struct OpenDir<'v> {
    view: &'v OverlayView<'v>,
    dir: &'v DirView,
    handles: Vec<OnceCell<OwnedFd>>,
}

impl OpenDir<'_> {
    /// The `O_PATH` handle of one part.
    fn handle(&self, part: usize) -> Result<BorrowedFd<'_>> {
        let (Some(cell), Some(at)) = (self.handles.get(part), self.dir.parts.get(part)) else {
            return Err(Error::invalid("open layer directory", "", "no such part"));
        };
        if let Some(fd) = cell.get() {
            return Ok(fd.as_fd());
        }
        let root = self.view.root(at)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = root
            .open_with(&at.path, flags, Mode::empty(), Resolve::Beneath)
            .map_err(|error| root.error("open directory", &at.path, error))?;
        Ok(cell.get_or_init(|| fd).as_fd())
    }

    /// All names that any part has, whiteouts included: each is shown only if [`OpenDir::lookup`]
    /// finds it.
    pub fn candidates(&self) -> Result<Listing> {
        let mut listings = Vec::new();
        for at in &self.dir.parts {
            let root = self.view.root(at)?;
            let fd = root.open_dir(&at.path)?;
            listings
                .push(Listing::read(&fd).map_err(|error| root.error("getdents", &at.path, error))?);
        }
        Listing::union(&listings).map_err(|error| Error::sys("getdents", "", error))
    }

    /// Finds a name in the merged directory; none if the stack shows no such file.
    pub fn lookup(&self, name: &OsStr) -> Result<Option<Node>> {
        self.search(name, None)
    }

    /// As [`OpenDir::lookup`], when it is known what all parts but the first show of this name.
    pub(crate) fn lookup_above(&self, name: &OsStr, below: Option<&Node>) -> Result<Option<Node>> {
        self.search(name, Some(below))
    }

    fn search(&self, name: &OsStr, below: Option<Option<&Node>>) -> Result<Option<Node>> {
        let mut search = Search::new(self.view, name);
        let mut found: Option<Node> = None;
        let mut part = 0;
        // An absolute redirect leaves this directory's parts for the layers' roots.
        let mut layers: Option<Range<usize>> = None;
        while !search.stop {
            let (layer, hit) = match &mut layers {
                Some(rest) => {
                    let Some(layer) = rest.next() else { break };
                    (layer, search.below_root(layer)?)
                }
                None => {
                    let Some(base) = self.dir.parts.get(part) else { break };
                    let hit = search.in_dir(self.handle(part)?, base)?;
                    part += 1;
                    (base.root, hit)
                }
            };
            if let Some((at, meta)) = hit {
                found = Some(search.add(found, at, meta));
            }
            if search.absolute && layers.is_none() {
                layers = Some(layer + 1..self.view.roots.len());
            }
            if let Some(below) = below
                && part == 1
                && !search.redirected
                && !search.stop
            {
                let joined = search.join(found, below);
                return search.finish(joined);
            }
        }
        search.finish(found)
    }
}

/// The state of one look-up on its way down the layers.
struct Search<'v> {
    view: &'v OverlayView<'v>,
    /// What is looked for in the next layer: one name, or a path from the root.
    name: Vec<OsString>,
    absolute: bool,
    /// The layers below are searched for another name than the first.
    redirected: bool,
    /// A directory was found, so that only directories below merge with it.
    is_dir: bool,
    /// A file without data was found, so that only a regular file below continues it.
    metacopy: bool,
    /// Nothing below matters.
    stop: bool,
}

type Hit = (Location, Meta);

impl<'v> Search<'v> {
    fn new(view: &'v OverlayView<'v>, name: &OsStr) -> Self {
        let name = vec![name.to_owned()];
        Self {
            view,
            name,
            absolute: false,
            redirected: false,
            is_dir: false,
            metacopy: false,
            stop: false,
        }
    }

    /// Looks for the one name in a directory of a layer.
    fn in_dir(&mut self, dir: BorrowedFd<'_>, base: &Location) -> Result<Option<Hit>> {
        let Some(name) = self.name.last().cloned() else { return Ok(None) };
        self.step(dir, base, &name, 0)
    }

    /// Walks the path from a layer's root, with the marks of every directory on the way.
    fn below_root(&mut self, layer: usize) -> Result<Option<Hit>> {
        let path = self.name.clone();
        let mut at = Location { root: layer, path: PathBuf::new() };
        let root = self.view.root(&at)?;
        let mut held: Option<OwnedFd> = None;
        for (index, name) in path.iter().enumerate() {
            let trailing = path.len() - index - 1;
            let dir = held.as_ref().map_or(root.as_fd(), |fd| fd.as_fd());
            let Some((found, meta)) = self.step(dir, &at, name, trailing)? else {
                return Ok(None);
            };
            if trailing == 0 {
                return Ok(Some((found, meta)));
            }
            let next = rustix::fs::openat(dir, name, at::PATH, Mode::empty())
                .map_err(|error| root.error("open directory", &found.path, error))?;
            (at, held) = (found, Some(next));
        }
        Ok(None)
    }

    /// Looks at one component in one layer; `trailing` are to come after it.
    fn step(
        &mut self,
        dir: BorrowedFd<'_>,
        base: &Location,
        name: &OsStr,
        trailing: usize,
    ) -> Result<Option<Hit>> {
        let root = self.view.root(base)?;
        let at = Location { root: base.root, path: base.path.join(name) };
        let fail = |op| {
            let path = &at.path;
            move |error: Errno| root.error(op, path, error)
        };
        let Some(meta) = at::meta_at(dir, name).map_err(fail("statx"))? else { return Ok(None) };
        let marks = self.view.marks;
        let last = trailing == 0;
        // A container may remove it between any two of these calls.
        let whiteout = match marks.is_whiteout(dir, name, &meta) {
            Err(Errno::NOENT) => return Ok(None),
            answer => answer.map_err(fail("getxattr"))?,
        };
        let broken_off = match meta.is_dir() {
            // Data continues in nothing but a regular file.
            true => last && self.metacopy,
            false => self.is_dir || !last || (self.metacopy && !meta.is_file()),
        };
        if whiteout || broken_off {
            self.stop = true;
            return Ok(None);
        }
        let mark = match marks.read(dir, name, &meta) {
            Err(Errno::NOENT) => return Ok(None),
            answer => answer.map_err(fail("read overlay marks"))?,
        };
        if meta.is_dir() {
            self.is_dir |= last;
            if mark.opaque == Opaque::Yes {
                // The layers below are out of sight, but this layer's own path goes on.
                self.stop = true;
                return Ok(Some((at, meta)));
            }
        } else {
            self.metacopy = mark.metacopy;
            self.stop = !mark.metacopy;
            if self.stop {
                return Ok(Some((at, meta)));
            }
        }
        if let Some(redirect) = mark.redirect {
            self.follow(redirect, trailing);
        }
        Ok(Some((at, meta)))
    }

    /// Replaces what is looked for in the layers below.
    fn follow(&mut self, redirect: Redirect, trailing: usize) {
        self.redirected = true;
        let here = self.name.len().saturating_sub(trailing + 1);
        match redirect {
            Redirect::Sibling(name) => {
                if let Some(old) = self.name.get_mut(here) {
                    *old = name;
                }
            }
            Redirect::Absolute(path) => {
                self.name.splice(..=here, path);
                self.absolute = true;
                // An opaque directory on the way hides what is below it, but not what is elsewhere.
                self.stop = false;
            }
        }
    }

    /// Adds a find to those of the layers above it.
    fn add(&self, found: Option<Node>, at: Location, meta: Meta) -> Node {
        let data_at = (meta.is_file() && !self.metacopy).then(|| at.clone());
        match found {
            None => {
                let dir = meta.is_dir().then(|| DirView { parts: vec![at.clone()] });
                Node { meta, meta_at: at, data_at, dir }
            }
            Some(mut node) => {
                if let Some(dir) = &mut node.dir {
                    dir.parts.push(at);
                } else {
                    node.data_at = data_at;
                }
                node
            }
        }
    }

    /// Continues the find of the uppermost layer with what all layers below show of the same name.
    fn join(&self, found: Option<Node>, below: Option<&Node>) -> Option<Node> {
        let Some(mut node) = found else { return below.cloned() };
        let Some(below) = below else { return Some(node) };
        match (&mut node.dir, &below.dir) {
            (Some(dir), Some(rest)) => dir.parts.extend(rest.parts.iter().cloned()),
            (None, None) if self.metacopy && below.meta.is_file() => {
                node.data_at.clone_from(&below.data_at);
            }
            _ => {}
        }
        Some(node)
    }

    fn finish(&self, found: Option<Node>) -> Result<Option<Node>> {
        match &found {
            Some(node) if node.meta.is_file() && node.data_at.is_none() => {
                let root = self.view.root(&node.meta_at)?;
                let path = root.label().join(&node.meta_at.path);
                Err(Error::corrupt("follow metacopy", path, "no layer below has the data"))
            }
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests;

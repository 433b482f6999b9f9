//! Applying a layer's tar to a tree.
//!
//! The target is either one layer's own directory, to be merged by overlayfs with those below it
//! ([`WhiteoutFormat::Overlay`]), or a full tree that holds all lower content already
//! ([`WhiteoutFormat::Remove`]). In both the merged result is the same: what the OCI image-spec says
//! in `layer.md`, "Applying Changesets", and where it is silent, what containerd does.
//!
//! What a layer may rely on:
//! - A later entry of the same path wins; a directory over a directory keeps its children and
//!   replaces its attributes, everything else is removed and made anew.
//! - Whiteouts and opaque markers hide lower content only, never this layer's own, wherever in the
//!   tar they stand.
//! - Names mean what they would mean to a process whose `/` is the merged tree: absolute paths and
//!   `..` stay inside, and symbolic links on the way are followed there. `..` in a name itself is
//!   taken off before anything is looked up, as in containerd.
//! - A hard link shares the inode of its target with all attributes; what the link's own header says
//!   of them is passed over, so that nothing is ever changed through a link.
//! - Owner, then xattrs, then mode, then times: each would undo one behind it. The times and default
//!   ACLs of directories come after everything else, so that no later child changes or inherits
//!   them.
//!
//! Where the target is one layer's own, a directory on the way may exist in lower layers alone. With
//! [`ApplyOptions::lowers`] it is looked up there: a directory is made with its owner, mode, xattrs
//! and time, and a symbolic link is followed. Without them a plain directory is made and reported in
//! [`Applied::implicit_dirs`], for [`adopt_implicit`] to mend once the lower layers are known.
//!
//! The target must be private to the caller: what is renamed within it by others meanwhile is still
//! found inside of it, but may be found at another place.

mod adopt;
mod attrs;
mod entries;
mod hide;
mod lower;
mod place;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::RandomState;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use lru::LruCache;

pub use adopt::adopt_implicit;

use crate::error::{Error, Result};
use crate::overlay_view::OverlayView;
use crate::root::Root;
use crate::tar::{Entry, EntryKind, Limits, Reader};
use crate::whiteout::{AUFS_LINKS, Marker, WhiteoutFormat};
use attrs::{DirEnd, Process};
use place::Dir;

/// How many directories are held open: as many as a tar in the order of a walk comes back to, and few
/// enough for a dozen layers at once in a process with the usual limit of 1024 open files.
const HELD_DIRS: NonZeroUsize = NonZeroUsize::new(48).unwrap();

/// How a layer is to be applied.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions<'a> {
    /// How deletions are written.
    pub whiteouts: WhiteoutFormat,
    /// The layers below the target, the topmost first, where they are known; an empty slice says
    /// that there are none. Not looked at with [`WhiteoutFormat::Remove`], whose target holds all.
    pub lowers: Option<&'a [Root]>,
    /// The bounds for the tar.
    pub limits: Limits,
    /// Starts to write content back while the tar is still being read, so that a `syncfs` at the end
    /// has less to wait for.
    pub writeback: bool,
}

impl<'a> ApplyOptions<'a> {
    /// Options with the usual limits, for a target whose lower layers are unknown.
    pub fn new(whiteouts: WhiteoutFormat) -> Self {
        Self { whiteouts, lowers: None, limits: Limits::default(), writeback: false }
    }

    /// Gives the layers below the target, the topmost first.
    #[must_use]
    pub fn on(self, lowers: &'a [Root]) -> Self {
        Self { lowers: Some(lowers), ..self }
    }
}

/// What applying did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Bytes read from the stream, padding and end marker included.
    pub tar_size: u64,
    /// Bytes of file content written, holes not counted.
    pub content_size: u64,
    /// Entries read.
    pub entries: u64,
    /// Directories of the target that the tar has no entry for, parents first; the root is the empty
    /// path. Only with [`WhiteoutFormat::Overlay`] are they of further use.
    pub implicit_dirs: Vec<PathBuf>,
}

/// Applies a layer's tar to `target`, and reads the stream to its end.
///
/// After an error the target's content is undefined, but nothing outside of it has changed.
///
/// # Errors
/// `Corrupt` for a malformed or cut-off tar; `InvalidArgument` for one that breaks a rule or a limit;
/// [`Error::NeedsLower`] where only the lower layers can tell, and they were not given.
pub fn apply(target: &Root, tar: impl Read, options: &ApplyOptions<'_>) -> Result<Applied> {
    let mut reader = Reader::with_limits(tar, options.limits);
    let mut applier = Applier::new(target, *options)?;
    let mut entry = Entry::default();
    while reader.next_entry(&mut entry)? {
        applier.applied.entries += 1;
        applier.entry(&entry, &mut reader)?;
    }
    applier.applied.tar_size = reader.drain()?;
    applier.finish()
}

/// The state of one application.
struct Applier<'a> {
    target: &'a Root,
    options: ApplyOptions<'a>,
    /// The layers below, where the target is one layer's own tree and they are known.
    lowers: Option<OverlayView<'a>>,
    process: Process,
    root: Rc<Dir>,
    /// Directories by a path that leads to them. Emptied whenever a directory or a symbolic link
    /// goes away: nothing else can make a path lead elsewhere.
    dirs: LruCache<Box<[u8]>, Rc<Dir>>,
    /// What directories get at the end, by inode number.
    ends: HashMap<u64, DirEnd>,
    /// Directories made without an entry, by inode number.
    implicit: HashMap<u64, Box<[u8]>>,
    /// Hashes of the directory's inode number and the name of everything unpacked. Only a full tree
    /// needs it: in a layer's own tree everything there is was unpacked.
    unpacked: HashSet<u64>,
    hasher: RandomState,
    /// Paths of directories through which no lower layer shows.
    opaque: HashSet<Box<[u8]>>,
    /// AUFS's directory of link targets was unpacked and must go again.
    aufs_links: bool,
    /// The present entry's path, normalized; kept for its buffer.
    path: Vec<u8>,
    applied: Applied,
}

impl<'a> Applier<'a> {
    fn new(target: &'a Root, options: ApplyOptions<'a>) -> Result<Self> {
        let root = Dir::root(target)?;
        let lowers = match (options.whiteouts, options.lowers) {
            (WhiteoutFormat::Overlay(space), Some(lowers)) => Some(lower::stack(lowers, space)),
            _ => None,
        };
        let mut applier = Self {
            target,
            options,
            lowers,
            process: Process::new(),
            root: Rc::new(root),
            dirs: LruCache::new(HELD_DIRS),
            ends: HashMap::new(),
            implicit: HashMap::new(),
            unpacked: HashSet::new(),
            hasher: RandomState::new(),
            opaque: HashSet::new(),
            aufs_links: false,
            path: Vec::new(),
            applied: Applied::default(),
        };
        applier.take_root()?;
        Ok(applier)
    }

    /// Applies one entry.
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        normalize(&entry.path, &mut path);
        let done = self.entry_at(entry, &path, reader);
        self.path = path;
        done
    }

    fn entry_at<R: Read>(
        &mut self,
        entry: &Entry,
        path: &[u8],
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let (parent, name) = split(path);
        if name.is_empty() {
            // The root itself can only be a directory; everything else by that name is passed over.
            return if entry.kind == EntryKind::Dir { self.root_entry(entry) } else { Ok(()) };
        }
        if path.starts_with(AUFS_LINKS.as_bytes()) {
            return self.aufs_link(entry, path, reader);
        }
        match Marker::of(OsStr::from_bytes(name)) {
            Ok(Marker::None) => self.make(entry, parent, name, reader),
            Ok(Marker::Whiteout(hidden)) => self.hide(parent, hidden),
            Ok(Marker::Opaque) => self.hide_children(parent),
            Ok(Marker::Aufs) => Ok(()),
            Err(_) => Err(Error::invalid("apply", as_path(path), "whiteout of no sibling's name")),
        }
    }

    /// Unpacks what AUFS kept its hard links to, under its own name at the root, until the end.
    fn aufs_link<R: Read>(
        &mut self,
        entry: &Entry,
        path: &[u8],
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let rest = &path[AUFS_LINKS.len()..];
        let is_link = rest.len() > 1 && rest[0] == b'/' && !rest[1..].contains(&b'/');
        if !is_link || entry.kind != EntryKind::File {
            return Ok(());
        }
        self.aufs_links = true;
        self.make(entry, AUFS_LINKS.as_bytes(), &rest[1..], reader)
    }

    /// Finishes: AUFS's leavings away, directories their times.
    fn finish(mut self) -> Result<Applied> {
        if self.aufs_links {
            let name = OsStr::new(AUFS_LINKS);
            let links = self.root.clone();
            self.remove_any(&links, name)?;
        }
        self.end_dirs()?;
        let mut implicit: Vec<_> = self
            .implicit
            .into_values()
            .map(|path| PathBuf::from(std::ffi::OsString::from_vec(path.into_vec())))
            .collect();
        implicit.sort();
        self.applied.implicit_dirs = implicit;
        Ok(self.applied)
    }

    /// Whether the target is one layer's own tree.
    fn is_overlay(&self) -> bool {
        matches!(self.options.whiteouts, WhiteoutFormat::Overlay(_))
    }
}

/// Takes a path apart into its components and puts them together again without empty ones, `.` and
/// `..`, each `..` taking the component before it away; at the root there is none to take.
pub(crate) fn normalize(path: &[u8], out: &mut Vec<u8>) {
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                let parent = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            name => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(name);
            }
        }
    }
}

/// The path of the directory and the last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// A name below a directory's path.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Box<[u8]> {
    match dir {
        b"" => name.into(),
        _ => [dir, b"/", name].concat().into(),
    }
}

pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests;

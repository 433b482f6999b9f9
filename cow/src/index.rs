//! What one layer holds, file by file, without its content.
//!
//! An [`Index`] says of every path in a layer what it is, whose it is, how large it is, the digest
//! of its content, and what it hides of the layers below. It is made from a tar stream
//! ([`Index::read`]), from a directory ([`Index::of_tree`]) or entry by entry ([`Builder`]), and
//! means the same whichever it was: entries that a later one of the same path replaces are gone,
//! further names of one file share its row's facts, whiteouts of both spellings are marks.
//!
//! It is compact, since an explorer holds all layers of an image at once: names lie end to end in
//! one arena, rows have a fixed size and are ordered by path (as in
//! [`Changeset`](crate::change::Changeset)), so that indexes are merged by walking them side by side
//! (see [`stack`](crate::stack)). About 150 bytes a file.

mod build;
mod read;
mod tree;

use std::path::Path;

pub(crate) use build::follow;
pub use build::{Builder, Content};
pub use read::Contents;

use crate::apply::as_path;
use crate::change;
use crate::digest::Digest;
use crate::meta::{FileKind, Time, Xattrs};

/// The files of one layer. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Paths and link texts, end to end.
    text: Vec<u8>,
    /// Ordered by path.
    rows: Vec<Row>,
    /// Sets of attributes that some file has.
    xattrs: Vec<Xattrs>,
    /// Digests of contents.
    digests: Vec<Digest>,
}

/// A stretch of an index's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    len: u16,
}

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A file of this kind.
    File(FileKind),
    /// A further name of a file that only the layers below have, at the row's link.
    LinkBelow,
    /// Nothing: the row only hides what is below.
    Nothing,
}

/// The place of "none" among attributes and digests.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Row {
    path: Span,
    link: Span,
    what: What,
    /// Hides what the layers below have under this name.
    whiteout: bool,
    /// Hides what the layers below have in this directory.
    opaque: bool,
    /// A directory that the layer does not list, but has files in.
    implicit: bool,
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: Time,
    size: u64,
    stored: u64,
    offset: u64,
    /// What all names of one file have in common.
    inode: u32,
    xattrs: u32,
    digest: u32,
}

impl Index {
    /// How many rows there are: files, directories and whiteouts.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the layer holds nothing.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row at a place; none beyond the end.
    pub fn get(&self, at: usize) -> Option<Node<'_>> {
        self.rows.get(at).map(|row| Node { index: self, row, at })
    }

    /// All rows, ordered by path, a directory before what is in it.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Node<'_>> + Clone {
        self.rows.iter().enumerate().map(|(at, row)| Node { index: self, row, at })
    }

    /// The row of a path, relative and without `.` or `..`; the root's is empty.
    pub fn find(&self, path: &[u8]) -> Option<Node<'_>> {
        let found = self
            .rows
            .binary_search_by(|row| change::order(as_path(self.text(row.path)), as_path(path)));
        found.ok().and_then(|at| self.get(at))
    }

    /// The bytes of file content that the layer stores, files with several names once and holes of
    /// sparse files not counted.
    pub fn content_size(&self) -> u64 {
        self.nodes().filter(Node::is_first_name).map(|node| node.stored()).sum()
    }

    /// How many regular files, directories and other files there are, names of one file counted
    /// once, and how many whiteouts and opaque directories.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for node in self.nodes() {
            counts.whiteouts += u64::from(node.is_whiteout() || node.is_opaque());
            match node.kind() {
                Some(FileKind::Dir) => counts.dirs += u64::from(!node.is_implicit()),
                Some(FileKind::File) => counts.files += u64::from(node.is_first_name()),
                Some(_) => counts.others += 1,
                None => {}
            }
        }
        counts
    }

    fn text(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        &self.text[start..start + usize::from(span.len)]
    }
}

/// How much of each kind a layer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files.
    pub files: u64,
    /// Directories that the layer lists.
    pub dirs: u64,
    /// Symbolic links, devices, pipes.
    pub others: u64,
    /// Deletions: whiteouts and opaque directories.
    pub whiteouts: u64,
}

/// One row of an index.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    index: &'a Index,
    row: &'a Row,
    at: usize,
}

impl<'a> Node<'a> {
    /// Its place in the index.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The path, relative, without a leading slash; empty for the root.
    pub fn path(&self) -> &'a Path {
        as_path(self.path_bytes())
    }

    /// The same as bytes.
    pub fn path_bytes(&self) -> &'a [u8] {
        self.index.text(self.row.path)
    }

    /// What it is; none for a row that only hides something, and for a further name of a file of
    /// the layers below ([`Node::link_below`]).
    pub fn kind(&self) -> Option<FileKind> {
        match self.row.what {
            What::File(kind) => Some(kind),
            What::LinkBelow | What::Nothing => None,
        }
    }

    /// The path of the file in the layers below that this is a further name of.
    pub fn link_below(&self) -> Option<&'a [u8]> {
        (self.row.what == What::LinkBelow).then(|| self.index.text(self.row.link))
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == Some(FileKind::Dir)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == Some(FileKind::File)
    }

    /// Whether it hides what the layers below have under its name. The layer may have something
    /// of its own there too.
    pub fn is_whiteout(&self) -> bool {
        self.row.whiteout
    }

    /// Whether it hides what the layers below have in this directory.
    pub fn is_opaque(&self) -> bool {
        self.row.opaque
    }

    /// Whether it is a directory that the layer does not list, though files in it: its metadata
    /// is that of the layer below, and where there is none, made up.
    pub fn is_implicit(&self) -> bool {
        self.row.implicit
    }

    /// Permission bits with setuid, setgid and sticky.
    pub fn mode(&self) -> u32 {
        self.row.mode.into()
    }

    /// The owner.
    pub fn uid(&self) -> u32 {
        self.row.uid
    }

    /// The group.
    pub fn gid(&self) -> u32 {
        self.row.gid
    }

    /// The time of the last change of content.
    pub fn mtime(&self) -> Time {
        self.row.mtime
    }

    /// The length of a regular file, holes included; 0 for every other kind.
    pub fn size(&self) -> u64 {
        self.row.size
    }

    /// The bytes that the layer stores of it: a sparse file without its holes.
    pub fn stored(&self) -> u64 {
        self.row.stored
    }

    /// Where in the uncompressed tar the content begins, in bytes; none where there is no tar.
    pub fn offset(&self) -> Option<u64> {
        (self.row.offset != u64::MAX).then_some(self.row.offset)
    }

    /// The text of a symbolic link; empty for every other kind.
    pub fn link(&self) -> &'a [u8] {
        match self.row.what {
            What::File(FileKind::Symlink) => self.index.text(self.row.link),
            _ => b"",
        }
    }

    /// Its extended attributes; none if there are none.
    pub fn xattrs(&self) -> Option<&'a Xattrs> {
        self.index.xattrs.get(self.row.xattrs as usize)
    }

    /// The digest of a regular file's content, where it was taken.
    pub fn digest(&self) -> Option<&'a Digest> {
        self.index.digests.get(self.row.digest as usize)
    }

    /// A number that all names of one file in this layer, and no others, have.
    pub fn inode(&self) -> usize {
        self.row.inode as usize
    }

    /// Whether it is a regular file and the name under which it is counted: the first in order.
    pub fn is_first_name(&self) -> bool {
        self.is_file() && self.row.inode as usize == self.at
    }
}

#[cfg(test)]
mod tests;

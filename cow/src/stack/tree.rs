//! What the layers together show.

use std::borrow::Cow;
use std::path::Path;

use super::{Place, Stack};
use crate::apply::{as_path, join, normalize, split};
use crate::change;
use crate::error::Result;
use crate::index::{self, Node};
use crate::meta::FileKind;

/// The merged tree of a stack: every path that is to be seen, in order.
#[derive(Clone, Debug)]
pub struct Tree {
    stack: Stack,
    files: Vec<Place>,
}

/// One file of a merged tree.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// The path, relative, without a leading slash; empty for the root.
    pub path: &'a [u8],
    /// Which layer has it, and where.
    pub place: Place,
    /// Where its facts and content are: elsewhere for a further name of a file of a lower layer.
    pub stored: Place,
    /// The row with its facts.
    pub facts: Node<'a>,
}

impl Tree {
    /// Merges a stack.
    pub fn of(stack: &Stack) -> Self {
        let mut files = Vec::new();
        stack.walk(|history| files.extend(history.now));
        files.shrink_to_fit();
        Self { stack: stack.clone(), files }
    }

    /// The stack that it was made of.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// All files, ordered by path, a directory before what is in it.
    pub fn files(&self) -> impl Iterator<Item = File<'_>> + Clone {
        self.files.iter().filter_map(|place| self.file(*place))
    }

    /// The files below a directory, itself first; only a file itself.
    pub fn below(&self, path: &[u8]) -> impl Iterator<Item = File<'_>> + Clone {
        let start = self.position(path).unwrap_or_else(|at| at);
        let path = path.to_vec();
        self.files[start..].iter().filter_map(|place| self.file(*place)).take_while(move |file| {
            path.is_empty()
                || file.path == path
                || (file.path.starts_with(&path) && file.path.get(path.len()) == Some(&b'/'))
        })
    }

    /// The file at a path that is relative and without links on the way.
    pub fn find(&self, path: &[u8]) -> Option<File<'_>> {
        self.position(path).ok().and_then(|at| self.file(self.files[at]))
    }

    /// The file that a process whose `/` is this tree finds at a path; a symbolic link at its end is
    /// given itself.
    ///
    /// # Errors
    /// `InvalidArgument` for links that lead in a circle.
    pub fn lookup(&self, path: impl AsRef<Path>) -> Result<Option<File<'_>>> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut plain = Vec::new();
        normalize(path.as_ref().as_os_str().as_bytes(), &mut plain);
        let (dir, name) = split(&plain);
        Ok(self.find(&join(&self.real(dir)?, name)))
    }

    /// As [`Tree::lookup`], following a symbolic link at the end.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub fn lookup_followed(&self, path: impl AsRef<Path>) -> Result<Option<File<'_>>> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut plain = Vec::new();
        normalize(path.as_ref().as_os_str().as_bytes(), &mut plain);
        Ok(self.find(&self.real(&plain)?))
    }

    fn real(&self, path: &[u8]) -> Result<Box<[u8]>> {
        index::follow(path, |path| {
            let file = self.find(path)?;
            (file.facts.kind() == Some(FileKind::Symlink)).then(|| Cow::Borrowed(file.facts.link()))
        })
    }

    fn position(&self, path: &[u8]) -> Result<usize, usize> {
        self.files.binary_search_by(|place| {
            let node = self.stack.row(*place);
            change::order(as_path(node.map_or(b"", |node| node.path_bytes())), as_path(path))
        })
    }

    fn file(&self, place: Place) -> Option<File<'_>> {
        let path = self.stack.row(place)?.path_bytes();
        let stored = self.stack.stored(place);
        Some(File { path, place, stored, facts: self.stack.row(stored)? })
    }
}

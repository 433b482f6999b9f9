//! Making an index entry by entry, by the rules that hold when a layer is applied.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::{Index, NONE, Row, Span, What};
use crate::apply::{as_path, join, normalize, split};
use crate::change;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::meta::{FileKind, Time, Xattrs};
use crate::tar::{Entry, EntryKind};
use crate::whiteout::Marker;

/// How many symbolic links one path may pass, as in Linux.
const MAX_LINKS: u32 = 40;

/// Takes the entries of a layer in the order of its tar, and makes an [`Index`] of them.
#[derive(Debug, Default)]
pub struct Builder {
    index: Index,
    /// Rows by path; those of entries that were replaced are in nobody's reach.
    paths: BTreeMap<Key, u32>,
    /// Places of attribute sets in the index.
    xattrs: HashMap<Xattrs, u32>,
    /// The directory of the last entry, in which no link has to be looked for again.
    last_dir: Option<Box<[u8]>>,
}

/// A path, ordered as in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key(Box<[u8]>);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        change::order(as_path(&self.0), as_path(&other.0))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What belongs to an entry and is not in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Content {
    /// The digest of a regular file's content.
    pub digest: Option<Digest>,
    /// Where in the tar the content begins.
    pub offset: Option<u64>,
}

impl Builder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// `InvalidArgument` for a whiteout that names nothing, a path that cannot be followed, and for
    /// more names than an index can hold (4 GiB of text).
    pub fn push(&mut self, entry: &Entry, content: Content) -> Result<()> {
        let mut path = Vec::with_capacity(entry.path.len());
        normalize(&entry.path, &mut path);
        let (dir, name) = split(&path);
        let dir = self.real_dir(dir)?;
        match Marker::of(OsStr::from_bytes(name))? {
            Marker::None => {}
            Marker::Aufs => return Ok(()),
            Marker::Opaque => {
                let at = self.implicit_dir(&dir)?;
                self.row(at).opaque = true;
                return Ok(());
            }
            Marker::Whiteout(hidden) => {
                let path = join(&dir, hidden.as_bytes());
                let at = match self.paths.get(&Key(path.clone())) {
                    Some(at) => *at,
                    None => self.add(&path, What::Nothing)?,
                };
                self.row(at).whiteout = true;
                return Ok(());
            }
        }
        let path = join(&dir, name);
        let at = self.place(&path, entry.kind)?;
        self.fill(at, entry, content)
    }

    /// Ends it.
    ///
    /// # Errors
    /// `InvalidArgument` for more names than an index can hold.
    pub fn finish(mut self) -> Result<Index> {
        self.parents()?;
        let order: Vec<u32> = self.paths.into_values().collect();
        let mut new_place = vec![NONE; self.index.rows.len()];
        for (place, at) in order.iter().enumerate() {
            new_place[*at as usize] = narrow(place)?;
        }
        let mut rows: Vec<Row> = order.iter().map(|at| self.index.rows[*at as usize]).collect();
        // The first name in order stands for the file, whichever came first in the tar.
        let mut first: HashMap<u32, u32> = HashMap::new();
        for (place, row) in rows.iter_mut().enumerate() {
            let place = narrow(place)?;
            row.inode = *first.entry(row.inode).or_insert(place);
        }
        self.index.rows = rows;
        self.index.text.shrink_to_fit();
        self.index.digests.shrink_to_fit();
        Ok(self.index)
    }

    /// The row for an entry: a new one, or that of a directory over which another directory comes.
    fn place(&mut self, path: &[u8], kind: EntryKind) -> Result<u32> {
        let key = Key(path.into());
        let Some(at) = self.paths.get(&key).copied() else {
            return self.add(path, What::Nothing);
        };
        let old = self.index.rows[at as usize];
        let dir = What::File(FileKind::Dir);
        if old.what == What::Nothing || (old.what == dir && kind == EntryKind::Dir) {
            return Ok(at);
        }
        if old.what == dir {
            self.drop_below(path);
        }
        let new = self.add(path, What::Nothing)?;
        self.row(new).whiteout = old.whiteout;
        Ok(new)
    }

    /// Forgets what an earlier entry put into a directory that is none any more; what was hidden
    /// there stays hidden by what comes in its place.
    fn drop_below(&mut self, path: &[u8]) {
        self.last_dir = None;
        let below = |key: &Key| {
            path.is_empty()
                || (key.0.len() > path.len()
                    && key.0.starts_with(path)
                    && key.0[path.len()] == b'/')
        };
        let start = Key(path.into());
        let keys: Vec<Key> = self
            .paths
            .range(start.clone()..)
            .map(|(key, _)| key)
            .filter(|key| **key != start)
            .take_while(|key| below(key))
            .cloned()
            .collect();
        for key in keys {
            self.paths.remove(&key);
        }
    }

    /// Writes an entry's facts into its row.
    fn fill(&mut self, at: u32, entry: &Entry, content: Content) -> Result<()> {
        if entry.kind == EntryKind::HardLink {
            return self.hard_link(at, entry);
        }
        let kind = match entry.kind {
            EntryKind::File | EntryKind::HardLink => FileKind::File,
            EntryKind::Symlink => FileKind::Symlink,
            EntryKind::Char(device) => FileKind::Char(device),
            EntryKind::Block(device) => FileKind::Block(device),
            EntryKind::Dir => FileKind::Dir,
            EntryKind::Fifo => FileKind::Fifo,
        };
        let link = match kind {
            FileKind::Symlink => self.text(&entry.link)?,
            _ => Span::default(),
        };
        let xattrs = self.xattr_set(&entry.xattrs)?;
        let digest = match content.digest {
            Some(digest) if kind == FileKind::File => {
                self.index.digests.push(digest);
                narrow(self.index.digests.len() - 1)?
            }
            _ => NONE,
        };
        let stored = match &entry.sparse {
            Some(segments) => segments.iter().map(|segment| segment.len).sum(),
            None => entry.size,
        };
        let row = self.row(at);
        row.what = What::File(kind);
        row.link = link;
        row.implicit = false;
        row.mode = u16::try_from(entry.mode & 0o7777).unwrap_or_default();
        (row.uid, row.gid, row.mtime) = (entry.uid, entry.gid, entry.mtime);
        (row.size, row.stored) = (entry.size, stored);
        row.offset = content.offset.unwrap_or(u64::MAX);
        row.xattrs = xattrs;
        row.digest = digest;
        Ok(())
    }

    /// Makes a row a further name of another.
    fn hard_link(&mut self, at: u32, entry: &Entry) -> Result<()> {
        let mut target = Vec::with_capacity(entry.link.len());
        normalize(&entry.link, &mut target);
        let (dir, name) = split(&target);
        let target = join(&self.real_dir(dir)?, name);
        let found = self.paths.get(&Key(target.clone())).copied();
        let found = found.filter(|found| {
            let what = self.index.rows[*found as usize].what;
            *found != at && what != What::Nothing && what != What::File(FileKind::Dir)
        });
        if let Some(found) = found {
            let Row { path, whiteout, .. } = self.index.rows[at as usize];
            self.index.rows[at as usize] =
                Row { path, whiteout, ..self.index.rows[found as usize] };
            return Ok(());
        }
        let link = self.text(&target)?;
        let row = self.row(at);
        (row.what, row.link) = (What::LinkBelow, link);
        Ok(())
    }

    /// The path that a directory's path leads to, through the links of this layer. Links of the
    /// layers below are followed when layers are put on each other.
    fn real_dir(&mut self, dir: &[u8]) -> Result<Box<[u8]>> {
        if self.last_dir.as_deref() == Some(dir) {
            return Ok(dir.into());
        }
        let is_link = |path: &[u8]| {
            let at = self.paths.get(&Key(path.into()))?;
            let row = &self.index.rows[*at as usize];
            let link = row.what == What::File(FileKind::Symlink);
            link.then(|| Cow::Borrowed(self.index.text(row.link)))
        };
        let real = follow(dir, is_link)?;
        if *real == *dir {
            self.last_dir = Some(real.clone());
        }
        Ok(real)
    }

    /// The row of a directory that may not be listed.
    fn implicit_dir(&mut self, path: &[u8]) -> Result<u32> {
        let found = self.paths.get(&Key(path.into())).copied();
        let at = match found {
            Some(at) if self.index.rows[at as usize].what != What::Nothing => return Ok(at),
            Some(at) => at,
            None => self.add(path, What::Nothing)?,
        };
        let row = self.row(at);
        (row.what, row.implicit, row.mode) = (What::File(FileKind::Dir), true, 0o755);
        Ok(at)
    }

    /// Adds the directories that are not listed, so that every row's directory has a row too; the root
    /// is every row's.
    fn parents(&mut self) -> Result<()> {
        if !self.paths.is_empty() {
            self.implicit_dir(b"")?;
        }
        let mut missing: Vec<Box<[u8]>> = Vec::new();
        let mut last: Option<&[u8]> = None;
        for key in self.paths.keys() {
            let mut dir = split(&key.0).0;
            if last == Some(dir) {
                continue;
            }
            last = Some(dir);
            while !dir.is_empty() && !self.paths.contains_key(&Key(dir.into())) {
                missing.push(dir.into());
                dir = split(dir).0;
            }
        }
        for path in missing {
            self.implicit_dir(&path)?;
        }
        Ok(())
    }

    fn add(&mut self, path: &[u8], what: What) -> Result<u32> {
        let at = narrow(self.index.rows.len())?;
        let span = self.text(path)?;
        self.index.rows.push(Row {
            path: span,
            link: Span::default(),
            what,
            whiteout: false,
            opaque: false,
            implicit: false,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            size: 0,
            stored: 0,
            offset: u64::MAX,
            inode: at,
            xattrs: NONE,
            digest: NONE,
        });
        self.paths.insert(Key(path.into()), at);
        Ok(at)
    }

    fn row(&mut self, at: u32) -> &mut Row {
        &mut self.index.rows[at as usize]
    }

    fn text(&mut self, text: &[u8]) -> Result<Span> {
        let too_much =
            || Error::invalid("index layer", as_path(text), "the layer has too many names");
        let start = u32::try_from(self.index.text.len()).map_err(|_| too_much())?;
        let len = u16::try_from(text.len()).map_err(|_| too_much())?;
        self.index.text.extend_from_slice(text);
        Ok(Span { start, len })
    }

    fn xattr_set(&mut self, given: &[(Vec<u8>, Vec<u8>)]) -> Result<u32> {
        if given.is_empty() {
            return Ok(NONE);
        }
        let set: Xattrs = given
            .iter()
            .map(|(name, value)| (OsString::from_vec(name.clone()), value.clone()))
            .collect();
        if let Some(at) = self.xattrs.get(&set) {
            return Ok(*at);
        }
        let at = narrow(self.index.xattrs.len())?;
        self.index.xattrs.push(set.clone());
        self.xattrs.insert(set, at);
        Ok(at)
    }
}

impl Index {
    /// The same files with every directory's path taken to where it really is, which links of the
    /// layers below decide.
    pub(crate) fn moved(&self, real: impl Fn(&[u8]) -> Result<Box<[u8]>>) -> Result<Self> {
        let mut builder = Builder { index: self.clone(), ..Builder::default() };
        for (at, row) in self.rows.iter().enumerate() {
            if row.implicit && !row.opaque && !row.whiteout {
                continue;
            }
            let path = self.text(row.path);
            let (dir, name) = split(path);
            let new = join(&real(dir)?, name);
            if *new != *path {
                builder.index.rows[at].path = builder.text(&new)?;
            }
            builder.paths.insert(Key(new), narrow(at)?);
        }
        builder.finish()
    }

    /// The directories that the layer does not list itself.
    pub(crate) fn implicit_dirs(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().filter(|row| row.implicit).map(|row| self.text(row.path))
    }
}

/// The path that a directory's path leads to when the symbolic links that `link` knows are followed,
/// as they would be by a process whose `/` is the tree.
pub(crate) fn follow<'t>(
    dir: &[u8],
    link: impl Fn(&[u8]) -> Option<Cow<'t, [u8]>>,
) -> Result<Box<[u8]>> {
    let mut left: Vec<Vec<u8>> = components(dir).map(<[u8]>::to_vec).collect();
    left.reverse();
    let mut real: Vec<u8> = Vec::with_capacity(dir.len());
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == b".." {
            real.truncate(split(&real).0.len());
            continue;
        }
        let path = join(&real, &name);
        let Some(text) = link(&path) else {
            real = path.into();
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Error::invalid("index layer", as_path(dir), "too many symbolic links"));
        }
        if text.starts_with(b"/") {
            real.clear();
        }
        let more: Vec<_> = components(&text).map(<[u8]>::to_vec).collect();
        left.extend(more.into_iter().rev());
    }
    Ok(real.into())
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

fn narrow(number: usize) -> Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|number| *number != NONE)
        .ok_or_else(|| Error::invalid("index layer", "", "the layer has too many files"))
}

//! Looking a name up through the layers.
//!
//! The rules are those of the kernel's overlay: the topmost entry decides; directories of one name
//! merge until an opaque one, a file or a whiteout ends the search; a redirect says under which other
//! name or path the layers below have the directory, or the data of a file without its own.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cow::origin::Origin;
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::io::Errno;

use super::marks::{self, DirMarks};
use super::whiteout::{self, OPAQUE_FILE, WHITEOUT_FILE};
use super::{Name, RealDir, RealId, Union};
use crate::options::Redirects;

/// What a name of the union leads to.
#[derive(Debug)]
pub struct Found {
    /// Its identity: for directories that of the lowest one merged, which copy-up does not change.
    pub id: RealId,
    /// The inode number that is shown.
    pub ino: u64,
    /// The attributes of the topmost.
    pub stat: Statx,
    /// Where it is.
    pub place: Place,
}

/// Where a file of the union is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A directory, merged of these, the topmost first.
    Dir(Arc<[Arc<RealDir>]>),
    /// Anything else, in one directory of one layer.
    File {
        /// The directory.
        dir: Arc<RealDir>,
        /// The name there.
        name: Name,
        /// Where its data is, when only its metadata is there.
        data: Option<Box<(Arc<RealDir>, Name)>>,
    },
}

/// What one layer has under a name.
enum Probe {
    Absent,
    Whiteout,
    File(Box<Statx>),
    Dir(Box<Statx>),
}

/// Where a path leads in one layer.
struct Walked {
    /// The directory and the last name; none if the layer has no such directory.
    at: Option<(Arc<RealDir>, OsString)>,
    /// The path in the layers below.
    below: OsString,
    /// Whether they are hidden.
    ends: bool,
}

/// What one layer has of a directory on a path.
enum OnTheWay {
    Absent,
    Hidden,
    Dir(DirMarks),
}

/// `statx` of a name, without following it.
pub(crate) fn stat(dir: &OwnedFd, name: &OsStr) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let flags = if name.is_empty() { flags | AtFlags::EMPTY_PATH } else { flags };
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)
}

fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Whether attributes are those of a whiteout device.
pub(crate) fn is_whiteout(stat: &Statx) -> bool {
    stat.stx_rdev_major == 0 && stat.stx_rdev_minor == 0 && kind(stat) == FileType::CharacterDevice
}

/// Whether a file is known already: its identity, its directory and its name there.
pub type Known<'a> = dyn Fn(RealId, &Arc<RealDir>, &OsStr) -> bool + 'a;

/// A search through the layers.
struct Search<'u> {
    union: &'u Union,
    known: &'u Known<'u>,
    /// Directories found so far, with the identity of the last.
    dirs: Vec<Arc<RealDir>>,
    /// The attributes of the topmost find, and the identity of the lowest.
    top: Option<Statx>,
    lowest: Option<RealId>,
    /// A file whose data has still to be found.
    metacopy: Option<(Arc<RealDir>, Name, Option<Origin>)>,
    /// Directories in which the name was absent since the last find.
    passed: Vec<Arc<RealDir>>,
}

/// Whether a search goes on below.
enum Step {
    On,
    Redirect(OsString),
    Stop,
    Done(Box<Found>),
}

impl Union {
    /// Looks a name up in the directories that a union directory merges.
    ///
    /// # Errors
    /// What the layers' file systems say; `IO` for a file whose data is nowhere.
    pub fn lookup(&self, stack: &[Arc<RealDir>], name: &OsStr) -> Result<Option<Found>, Errno> {
        self.lookup_unless(stack, name, &|_, _, _| false)
    }

    /// [`Self::lookup`], but the marks are not read of a file of which `known` says that it is known to
    /// have its data; the number that is shown for it may be another's then.
    ///
    /// # Errors
    /// Those of [`Self::lookup`].
    pub fn lookup_unless(
        &self,
        stack: &[Arc<RealDir>],
        name: &OsStr,
        known: &Known<'_>,
    ) -> Result<Option<Found>, Errno> {
        self.find(None, stack, name, known)
    }

    fn find(
        &self,
        mut top: Option<&OwnedFd>,
        stack: &[Arc<RealDir>],
        name: &OsStr,
        known: &Known<'_>,
    ) -> Result<Option<Found>, Errno> {
        if name.as_bytes().starts_with(WHITEOUT_FILE) {
            return Ok(None);
        }
        let mut search = Search::new(self, known);
        let mut list = Cow::Borrowed(stack);
        let mut name = Cow::Borrowed(name);
        let mut path: Option<OsString> = None;
        let mut next = 0;
        while let Some(dir) = list.get(next) {
            next += 1;
            let mut ends = false;
            let step = match &mut path {
                None => search.step(dir, top.take(), &name)?,
                Some(path) => {
                    let walked = self.walk(dir, path)?;
                    (ends, *path) = (walked.ends, walked.below);
                    match walked.at {
                        Some((parent, leaf)) => search.step(&parent, None, &leaf)?,
                        None => Step::On,
                    }
                }
            };
            match step {
                Step::On => {}
                Step::Stop => break,
                Step::Done(found) => return Ok(Some(*found)),
                Step::Redirect(to) if to.as_bytes().starts_with(b"/") => {
                    let below = usize::from(dir.layer) + 1;
                    let end = search.end();
                    let roots = self.layers.iter().take(end).skip(below);
                    list = Cow::Owned(roots.map(|layer| Arc::clone(&layer.root)).collect());
                    path = Some(to);
                    next = 0;
                    continue;
                }
                Step::Redirect(to) => match &mut path {
                    None => name = Cow::Owned(to),
                    Some(path) => *path = sibling(path, &to),
                },
            }
            if ends {
                break;
            }
        }
        search.finish()
    }

    /// [`Self::lookup`], where the topmost of the directories is open: what many threads share is left alone.
    ///
    /// # Errors
    /// Those of [`Self::lookup`].
    pub fn lookup_from(
        &self,
        top: &OwnedFd,
        stack: &[Arc<RealDir>],
        name: &OsStr,
    ) -> Result<Option<Found>, Errno> {
        self.find(Some(top), stack, name, &|_, _, _| false)
    }

    /// Whether the layers below the one that takes changes show a name.
    ///
    /// # Errors
    /// What the layers' file systems say.
    pub fn lower_has(&self, stack: &[Arc<RealDir>], name: &OsStr) -> Result<bool, Errno> {
        let lower = match stack {
            [first, rest @ ..] if self.is_upper(first) => rest,
            all => all,
        };
        if lower.is_empty() {
            return Ok(false);
        }
        Ok(self.lookup(lower, name)?.is_some())
    }

    /// The path from the layers' roots by which the layers below have a directory of the one that
    /// takes changes. It is that of their union, which a lookup follows through what is renamed or
    /// hidden there, and not the one of any of them.
    ///
    /// # Errors
    /// What the layer's file system says.
    pub fn path_below(&self, parent: &Arc<RealDir>, name: &OsStr) -> Result<OsString, Errno> {
        let mut below = OsString::new();
        let mut next = Some((Arc::clone(parent), Name::from(name)));
        while let Some((parent, name)) = next {
            let fd = self.fds.get(&parent)?;
            let marked = marks::of_dir(self.prefix, &fd, &name)?.redirect;
            let mut path = marked.unwrap_or_else(|| name.into_os_string());
            let whole = path.as_bytes().starts_with(b"/");
            if !below.is_empty() {
                path.push("/");
                path.push(&below);
            }
            below = path;
            if whole {
                return Ok(below);
            }
            next = parent.place();
        }
        let mut path = OsString::from("/");
        path.push(below);
        Ok(path)
    }

    /// Follows a path from a layer's root. The directories on the way may be hidden, or renamed
    /// themselves: the layers below have them elsewhere then.
    fn walk(&self, root: &Arc<RealDir>, path: &OsStr) -> Result<Walked, Errno> {
        let parts = path.as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        let mut parts = parts.peekable();
        let mut walked = Walked { at: None, below: OsString::new(), ends: false };
        let mut dir = Some(Arc::clone(root));
        while let Some(part) = parts.next() {
            let part = OsStr::from_bytes(part);
            if part == ".." || part == "." {
                return Ok(Walked { at: None, ends: true, ..walked });
            }
            let mut name = Cow::Borrowed(part);
            if parts.peek().is_none() {
                walked.at = dir.take().map(|dir| (dir, part.to_owned()));
            } else if let Some(parent) = &dir {
                match self.on_the_way(parent, part)? {
                    OnTheWay::Absent => dir = None,
                    OnTheWay::Hidden => return Ok(Walked { at: None, ends: true, ..walked }),
                    OnTheWay::Dir(marks) => {
                        dir = Some(RealDir::child(parent, part));
                        walked.ends |= marks.opaque;
                        if let Some(to) = marks.redirect {
                            if to.as_bytes().starts_with(b"/") {
                                (walked.ends, walked.below) = (false, OsString::new());
                            }
                            name = Cow::Owned(to);
                        }
                    }
                }
            }
            if !name.as_bytes().starts_with(b"/") {
                walked.below.push("/");
            }
            walked.below.push(&name);
        }
        Ok(walked)
    }

    /// What a layer has of a directory on the way to another one.
    fn on_the_way(&self, dir: &Arc<RealDir>, name: &OsStr) -> Result<OnTheWay, Errno> {
        let fd = match self.fds.get(dir) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(OnTheWay::Absent),
            answer => answer?,
        };
        Ok(match self.probe(dir, &fd, name)? {
            Probe::Absent => OnTheWay::Absent,
            Probe::Whiteout | Probe::File(_) => OnTheWay::Hidden,
            Probe::Dir(_) if self.is_lowest(dir) => OnTheWay::Dir(DirMarks::default()),
            Probe::Dir(_) => OnTheWay::Dir(self.dir_marks(&fd, name)?),
        })
    }

    fn probe(&self, dir: &Arc<RealDir>, fd: &OwnedFd, name: &OsStr) -> Result<Probe, Errno> {
        let stat = match self.look(dir.layer, fd, name) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Probe::Absent),
            Err(error) => return Err(error),
        };
        if kind(&stat) == FileType::Directory {
            return Ok(Probe::Dir(Box::new(stat)));
        }
        let marked = dir.attr_whiteouts.load(Ordering::Relaxed)
            && stat.stx_size == 0
            && kind(&stat) == FileType::RegularFile
            && marks::of_file(self.prefix, fd, name)?.whiteout;
        Ok(if marked || is_whiteout(&stat) { Probe::Whiteout } else { Probe::File(Box::new(stat)) })
    }

    /// The marks of a directory that hide or redirect what is below it.
    pub(super) fn dir_marks(&self, fd: &OwnedFd, name: &OsStr) -> Result<DirMarks, Errno> {
        let mut marks = marks::of_dir(self.prefix, fd, name)?;
        if !marks.opaque {
            let mut inner = name.to_owned();
            inner.push("/");
            inner.push(OPAQUE_FILE);
            marks.opaque = stat(fd, &inner).is_ok();
        }
        if self.redirects == Redirects::Ignore {
            marks.redirect = None;
        }
        Ok(marks)
    }
}

/// A path with its last name changed.
fn sibling(path: &OsStr, name: &OsStr) -> OsString {
    let bytes = path.as_bytes();
    let end = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let mut path = OsStr::from_bytes(&bytes[..end]).to_owned();
    path.push(name);
    path
}

impl<'u> Search<'u> {
    fn new(union: &'u Union, known: &'u Known<'u>) -> Self {
        let (dirs, passed) = (Vec::new(), Vec::new());
        Self { union, known, dirs, top: None, lowest: None, metacopy: None, passed }
    }

    /// How many layers a path may lead into: those for data alone as well for the data of a file.
    fn end(&self) -> usize {
        if self.metacopy.is_some() { self.union.layers.len() } else { self.union.merged }
    }

    fn step(
        &mut self,
        dir: &Arc<RealDir>,
        open: Option<&OwnedFd>,
        name: &OsStr,
    ) -> Result<Step, Errno> {
        let own;
        let fd = match open {
            Some(open) => open,
            None => {
                own = self.union.fds.get(dir)?;
                &*own
            }
        };
        let probe = self.union.probe(dir, fd, name)?;
        if !matches!(probe, Probe::Absent) {
            for above in std::mem::take(&mut self.passed) {
                if above.whiteout_files.load(Ordering::Relaxed)
                    && whiteout::has_file(&*self.union.fds.get(&above)?, name)
                {
                    return Ok(Step::Stop);
                }
            }
        }
        match probe {
            Probe::Absent => {
                self.passed.push(Arc::clone(dir));
                Ok(Step::On)
            }
            Probe::Whiteout => Ok(Step::Stop),
            Probe::File(stat) => self.file(dir, fd, name, *stat),
            Probe::Dir(stat) => self.dir(dir, fd, name, *stat),
        }
    }

    fn dir(
        &mut self,
        dir: &Arc<RealDir>,
        fd: &OwnedFd,
        name: &OsStr,
        stat: Statx,
    ) -> Result<Step, Errno> {
        if self.metacopy.is_some() {
            return Ok(Step::Stop);
        }
        let child = RealDir::child(dir, name);
        self.lowest = Some(self.union.id(dir, &stat));
        self.top.get_or_insert(stat);
        let lowest = self.union.is_lowest(dir);
        let marks = if lowest { DirMarks::default() } else { self.union.dir_marks(fd, name)? };
        child.attr_whiteouts.store(marks.attr_whiteouts, Ordering::Relaxed);
        self.dirs.push(child);
        if marks.opaque || lowest {
            return Ok(Step::Stop);
        }
        Ok(marks.redirect.map_or(Step::On, Step::Redirect))
    }

    fn file(
        &mut self,
        dir: &Arc<RealDir>,
        fd: &OwnedFd,
        name: &OsStr,
        stat: Statx,
    ) -> Result<Step, Errno> {
        if !self.dirs.is_empty() {
            return Ok(Step::Stop);
        }
        let lowest = usize::from(dir.layer) + 1 >= self.union.layers.len();
        let regular = kind(&stat) == FileType::RegularFile;
        let id = self.union.id(dir, &stat);
        let marked = !lowest
            && (regular || self.union.is_upper(dir))
            && (self.metacopy.is_some() || !(self.known)(id, dir, name));
        let marks = match marked {
            true => marks::of_file(self.union.prefix, fd, name)?,
            false => marks::FileMarks::default(),
        };
        if let Some((top, top_name, origin)) = self.metacopy.take() {
            if !regular {
                return Err(Errno::IO);
            }
            if marks.metacopy {
                self.metacopy = Some((top, top_name, origin));
                return Ok(marks.redirect.map_or(Step::On, Step::Redirect));
            }
            let data = Some(Box::new((Arc::clone(dir), Name::from(name))));
            return self.done(top, top_name, data, origin).map(Step::Done);
        }
        self.lowest = Some(id);
        self.top = Some(stat);
        let origin = marks.origin.filter(|_| self.union.is_upper(dir));
        if marks.metacopy && regular {
            self.metacopy = Some((Arc::clone(dir), Name::from(name), origin));
            return Ok(marks.redirect.map_or(Step::On, Step::Redirect));
        }
        if let Some(found) = self.indexed(dir, name) {
            return Ok(Step::Done(found));
        }
        self.done(Arc::clone(dir), Name::from(name), None, origin).map(Step::Done)
    }

    /// The upper copy of a lower file that was copied up under another of its names.
    fn indexed(&mut self, dir: &Arc<RealDir>, name: &OsStr) -> Option<Box<Found>> {
        let (stat, lower) = (self.top.as_ref()?, self.lowest?);
        if stat.stx_nlink < 2 || self.union.is_upper(dir) {
            return None;
        }
        let (dir, name, stat) = self.union.indexed(dir, name)?;
        let id = self.union.id(&dir, &stat);
        let ino = self.union.shown(lower);
        let place = Place::File { dir, name: Name::from(&*name), data: None };
        Some(Box::new(Found { id, ino, stat, place }))
    }

    fn done(
        &mut self,
        dir: Arc<RealDir>,
        name: Name,
        data: Option<Box<(Arc<RealDir>, Name)>>,
        origin: Option<Origin>,
    ) -> Result<Box<Found>, Errno> {
        let (Some(stat), Some(id)) = (self.top.take(), self.lowest) else {
            return Err(Errno::IO);
        };
        let ino = self.union.shown_origin(origin).unwrap_or_else(|| self.union.shown(id));
        Ok(Box::new(Found { id, ino, stat, place: Place::File { dir, name, data } }))
    }

    fn finish(self) -> Result<Option<Found>, Errno> {
        if self.metacopy.is_some() {
            return Err(Errno::IO);
        }
        let (Some(stat), Some(id)) = (self.top, self.lowest) else { return Ok(None) };
        let ino = self.union.shown(id);
        Ok(Some(Found { id, ino, stat, place: Place::Dir(self.dirs.into()) }))
    }
}

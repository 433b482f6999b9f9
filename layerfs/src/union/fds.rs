//! Real directories of the layers, and how many of their fds stay open.
//!
//! A [`RealDir`] knows its parent and its name there, so that an fd that was closed to make room is
//! opened again with one `openat` below the parent's: no path is walked from a root while any
//! ancestor's fd is still open.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A file name as nodes and directories keep it.
pub type Name = Box<OsStr>;

/// Locks a mutex; data behind it is whole even if a holder panicked, since every change to it is
/// one assignment.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory of one layer.
#[derive(Debug)]
pub struct RealDir {
    /// The layer's place in the stack: 0 is the upper one.
    pub layer: u16,
    place: Mutex<Place>,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    used: AtomicBool,
    /// Whether plain files with a whiteout attribute may be in it (`overlay.opaque` is `x`).
    pub attr_whiteouts: AtomicBool,
    /// Whether files `.wh.NAME` may be in it.
    pub whiteout_files: AtomicBool,
    /// How often a default ACL was set on it, in steps of two; odd when it is known to have none.
    acl: AtomicU32,
    /// Whether the mark that it holds copied-up children is known to be there.
    pub impure: AtomicBool,
}

/// Where a directory is: none for a layer's root, whose fd is never closed.
#[derive(Debug)]
struct Place {
    parent: Option<Arc<RealDir>>,
    name: Name,
}

impl RealDir {
    /// The root of a layer.
    pub fn root(layer: u16, fd: OwnedFd) -> Arc<Self> {
        Arc::new(Self {
            layer,
            place: Mutex::new(Place { parent: None, name: Name::from(OsStr::new("")) }),
            fd: Mutex::new(Some(Arc::new(fd))),
            used: AtomicBool::new(true),
            attr_whiteouts: AtomicBool::new(false),
            whiteout_files: AtomicBool::new(true),
            acl: AtomicU32::new(0),
            impure: AtomicBool::new(false),
        })
    }

    /// A directory below another of the same layer.
    pub fn child(parent: &Arc<Self>, name: &OsStr) -> Arc<Self> {
        Arc::new(Self {
            layer: parent.layer,
            place: Mutex::new(Place { parent: Some(Arc::clone(parent)), name: name.into() }),
            fd: Mutex::new(None),
            used: AtomicBool::new(false),
            attr_whiteouts: AtomicBool::new(false),
            whiteout_files: AtomicBool::new(true),
            acl: AtomicU32::new(0),
            impure: AtomicBool::new(false),
        })
    }

    /// A directory that was just made in the upper layer, and is empty.
    pub fn fresh(parent: &Arc<Self>, name: &OsStr) -> Arc<Self> {
        let dir = Self::child(parent, name);
        dir.whiteout_files.store(false, Ordering::Relaxed);
        dir
    }

    /// Whether `has` finds a default ACL on it, which is asked once as long as there is none.
    pub fn has_default_acl(&self, has: impl FnOnce() -> bool) -> bool {
        let known = self.acl.load(Ordering::Acquire);
        if known & 1 == 1 {
            return false;
        }
        let found = has();
        if !found {
            // Says nothing if one was set meanwhile.
            let _ =
                self.acl.compare_exchange(known, known | 1, Ordering::AcqRel, Ordering::Relaxed);
        }
        found
    }

    /// Records that a default ACL was set.
    pub fn default_acl_set(&self) {
        let next = |known: u32| Some(known.wrapping_add(2) & !1);
        let _ = self.acl.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
    }

    /// Its fd, if it is open; a root's always is.
    pub(super) fn open_fd(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.fd).clone()
    }

    /// Where it is now: its parent and its name there; none for a root.
    pub fn place(&self) -> Option<(Arc<RealDir>, Name)> {
        let place = lock(&self.place);
        place.parent.as_ref().map(|parent| (Arc::clone(parent), place.name.clone()))
    }

    /// Keeps everybody from learning where it is while it is being renamed.
    pub fn moving(&self) -> Moving<'_> {
        Moving(lock(&self.place))
    }

    /// Its path below the layer's root, without a leading slash.
    pub fn path(&self) -> OsString {
        let mut names = Vec::new();
        let mut next = self.place();
        while let Some((parent, name)) = next {
            names.push(name);
            next = parent.place();
        }
        let mut path = OsString::new();
        for (i, name) in names.iter().rev().enumerate() {
            if i > 0 {
                path.push("/");
            }
            path.push(name);
        }
        path
    }
}

/// A directory that is being renamed.
#[derive(Debug)]
pub struct Moving<'a>(MutexGuard<'a, Place>);

impl Moving<'_> {
    /// Records where it is now.
    pub fn moved(mut self, parent: &Arc<RealDir>, name: &OsStr) {
        self.0.parent = Some(Arc::clone(parent));
        self.0.name = name.into();
    }
}

/// Keeps the number of open directory fds within a bound, by a clock over those that are open.
#[derive(Debug)]
pub struct FdCache {
    open: Mutex<VecDeque<Weak<RealDir>>>,
    limit: usize,
}

impl FdCache {
    /// A cache of at most `limit` fds.
    pub fn new(limit: usize) -> Self {
        Self { open: Mutex::new(VecDeque::new()), limit: limit.max(16) }
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        lock(&self.open).len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The fd of a directory, opened below its parent's when it is not open.
    pub fn get(&self, dir: &Arc<RealDir>) -> Result<Arc<OwnedFd>, Errno> {
        dir.used.store(true, Ordering::Relaxed);
        loop {
            if let Some(fd) = dir.open_fd() {
                return Ok(fd);
            }
            if let Some(fd) = self.open(dir)? {
                return Ok(fd);
            }
        }
    }

    /// Opens a directory; none if one on the way was renamed meanwhile.
    fn open(&self, dir: &Arc<RealDir>) -> Result<Option<Arc<OwnedFd>>, Errno> {
        // Upwards to the nearest ancestor that is open (a root always is), then down again.
        let mut chain = Vec::new();
        let mut next = Arc::clone(dir);
        let mut fd = loop {
            let (parent, name) = next.place().ok_or(Errno::STALE)?;
            let open = parent.open_fd();
            chain.push((next, Arc::clone(&parent), name));
            match open {
                Some(fd) => break fd,
                None => next = parent,
            }
        };
        while let Some((next, parent, name)) = chain.pop() {
            let opened = self.open_below(&fd, &name);
            // What has this name by now may be another.
            let same =
                |(above, now): (Arc<RealDir>, Name)| Arc::ptr_eq(&above, &parent) && now == name;
            if !next.place().is_some_and(same) {
                return Ok(None);
            }
            fd = self.keep(&next, opened?);
        }
        Ok(Some(fd))
    }

    fn open_below(&self, parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
        match open_dir(parent, name) {
            Err(Errno::MFILE) => {
                // Somebody else took the fds that were counted on.
                self.shrink();
                open_dir(parent, name)
            }
            answer => answer,
        }
    }

    /// Keeps the fd of a directory, unless there is one by now.
    fn keep(&self, dir: &Arc<RealDir>, fresh: OwnedFd) -> Arc<OwnedFd> {
        let mut slot = lock(&dir.fd);
        if let Some(fd) = slot.as_ref() {
            return Arc::clone(fd);
        }
        let fresh = Arc::new(fresh);
        *slot = Some(Arc::clone(&fresh));
        drop(slot);
        self.admit(dir);
        fresh
    }

    /// Closes half of the fds, the oldest first.
    fn shrink(&self) {
        let mut open = lock(&self.open);
        for _ in 0..open.len().div_ceil(2) {
            if let Some(oldest) = open.pop_front().and_then(|oldest| oldest.upgrade()) {
                *lock(&oldest.fd) = None;
            }
        }
    }

    /// Records an open fd, and closes those that were not used since the hand last passed.
    fn admit(&self, dir: &Arc<RealDir>) {
        let mut open = lock(&self.open);
        open.push_back(Arc::downgrade(dir));
        let mut budget = open.len();
        while open.len() > self.limit && budget > 0 {
            budget -= 1;
            let Some(oldest) = open.pop_front() else { break };
            let Some(oldest) = oldest.upgrade() else { continue };
            if oldest.used.swap(false, Ordering::Relaxed) && budget > 1 {
                open.push_back(Arc::downgrade(&oldest));
            } else {
                *lock(&oldest.fd) = None;
            }
        }
    }
}

/// Opens a directory for listing and as a base for names, by whatever the permissions allow.
pub(super) fn open_dir(parent: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS | Errno::PERM) => {
            rustix::fs::openat(parent, name, flags | OFlags::PATH, Mode::empty())
        }
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_opened_where_it_is_after_a_rename() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("old")).expect("a directory");
        std::fs::create_dir(dir.path().join("other")).expect("a directory");
        let root = std::fs::File::open(dir.path()).expect("the root");
        let root = RealDir::root(0, root.into());
        let moving = RealDir::child(&root, OsStr::new("old"));
        let below = RealDir::child(&moving, OsStr::new("below"));
        std::fs::create_dir(dir.path().join("old/below")).expect("a directory");
        let cache = FdCache::new(16);
        std::thread::scope(|scope| {
            let held = moving.moving();
            let opener = scope.spawn(|| cache.get(&below).map(drop));
            std::fs::rename(dir.path().join("old"), dir.path().join("new")).expect("a rename");
            std::fs::rename(dir.path().join("other"), dir.path().join("old")).expect("another");
            held.moved(&root, OsStr::new("new"));
            assert_eq!(opener.join().expect("a thread"), Ok(()), "found under its new name");
        });
        assert_eq!(below.path(), "new/below", "the path follows");
    }
}

//! Copies that have their names before the disk has their data.
//!
//! See [`cow::unsettled`] for what is on the disk meanwhile, and how the next mount makes good what a crash
//! leaves. A thread waits for the disk a moment after the last copy was made, so that it does not hinder who
//! makes many, and two seconds after the first at the latest; with a long one it begins at once.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cow::unsettled::{self as on_disk, Record};
use cow_sys::handle::{self, FileHandle};
use cow_sys::xattr;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Lower, Union, lock};

/// How many copies may wait; further ones are waited for by who makes them.
const MOST: usize = 16_384;
/// How many are open at a time.
const BATCH: usize = 64;
/// How often a copy is opened again that could not be.
const RETRIES: usize = 10;
/// For how much data nobody waits before it is written.
const LONG: u64 = 8 << 20;
/// How many times longer the first may wait than it is since the last was made.
const LATEST: u32 = 7;

/// The copies of a mount that the disk does not have yet.
#[derive(Debug)]
pub(super) struct Unsettled {
    work: OwnedFd,
    /// The name of the attribute that marks them.
    attr: OsString,
    /// After how long without a further one the disk is waited for.
    patience: Duration,
    count: AtomicUsize,
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By inode number; by their handles they are found under whatever name.
    files: HashMap<u64, FileHandle>,
    /// When the first and the last of them was made.
    first: Option<Instant>,
    last: Option<Instant>,
    /// Whether one of them has so much data that its way to the disk begins at once.
    is_due: bool,
    /// What says in the work directory that there are some.
    record: Option<Record>,
    /// Those that could not be written: the next mount is to look at them.
    failed: HashMap<u64, FileHandle>,
    has_thread: bool,
}

impl Unsettled {
    /// For a work directory below which files can be opened by their handles; none where that is not so, which
    /// needs CAP_DAC_READ_SEARCH.
    pub(super) fn new(work: &OwnedFd, attr: OsString, patience: Duration) -> Option<Arc<Self>> {
        can_open_handles(work).then_some(())?;
        let work = work.try_clone().ok()?;
        let (count, state, more) = Default::default();
        Some(Arc::new(Self { work, attr, patience, count, state, more }))
    }

    /// How many there are.
    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Marks a copy, which has no name yet that shows, and takes it.
    ///
    /// # Errors
    /// `AGAIN` when enough are waiting; what marking and recording it meet. Who made it then has to wait for the disk.
    fn add(
        self: &Arc<Self>,
        (name, file): (&OsStr, &OwnedFd),
        origin: &[u8],
        length: u64,
    ) -> Result<(), Errno> {
        let inode = rustix::fs::fstat(file)?.st_ino;
        let handle = handle::of(file, OsStr::new(""))?;
        let mut state = lock(&self.state);
        if state.files.len() >= MOST {
            return Err(Errno::AGAIN);
        }
        if !state.has_thread {
            let own = Arc::clone(self);
            let thread = std::thread::Builder::new().name("settle".to_owned());
            thread.spawn(move || own.attend()).map_err(|_| Errno::AGAIN)?;
            state.has_thread = true;
        }
        if state.record.is_none() {
            state.record = Some(Record::make(&self.work)?);
        }
        if let Some(record) = &state.record {
            xattr::set(&self.work, name, &self.attr, &record.mark(origin.to_vec()))?;
        }
        let now = Instant::now();
        let is_first = state.first.is_none();
        state.first.get_or_insert(now);
        state.last = Some(now);
        state.is_due |= length >= LONG;
        state.failed.remove(&inode);
        state.files.insert(inode, handle);
        if is_first || state.is_due {
            self.more.notify_one();
        }
        self.count.store(state.files.len() + state.failed.len(), Ordering::Release);
        Ok(())
    }

    /// Waits until the disk has a file's data, if it is one of these: nothing may make holes in one.
    ///
    /// # Errors
    /// What writing the data meets.
    fn settle(&self, file: &OwnedFd) -> Result<(), Errno> {
        if self.count() == 0 {
            return Ok(());
        }
        let inode = rustix::fs::fstat(file)?.st_ino;
        let own = handle::of(file, OsStr::new(""))?;
        // Where a handle is not its own, the copy was removed, and this is another file with its number.
        let (waits, failed) = {
            let state = lock(&self.state);
            let is_in = |files: &HashMap<u64, _>| files.get(&inode) == Some(&own);
            (is_in(&state.files), is_in(&state.failed))
        };
        match (waits, failed) {
            (true, _) => {}
            (_, true) => return Err(Errno::IO),
            _ => return Ok(()),
        }
        match on_disk::settle(file, &self.attr) {
            Ok(()) => self.done(inode, &own),
            Err(error) => {
                lock(&self.state).fail(inode, &own);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits for the disk for all of them.
    fn finish(&self) {
        while let Some(batch) = self.batch() {
            if !self.settle_all(&batch) {
                return;
            }
        }
    }

    fn attend(&self) {
        // Whoever made the first copy may be one of the threads that give way to others on their CPU.
        crate::cpus::roam();
        loop {
            self.wait();
            self.finish();
            if !lock(&self.state).files.is_empty() {
                std::thread::sleep(self.patience);
            }
        }
    }

    /// Returns when it is time.
    fn wait(&self) {
        let mut state = lock(&self.state);
        loop {
            let (Some(first), Some(last)) = (state.first, state.last) else {
                state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let at_most = (self.patience * LATEST).saturating_sub(first.elapsed());
            let rest = self.patience.saturating_sub(last.elapsed()).min(at_most);
            if rest.is_zero() || state.is_due || state.files.len() >= MOST / 2 {
                return;
            }
            let waited = self.more.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Some of them; none if there are none.
    fn batch(&self) -> Option<Vec<(u64, FileHandle)>> {
        let state = lock(&self.state);
        let some = state.files.iter().take(BATCH).map(|(inode, handle)| (*inode, handle.clone()));
        Some(some.collect()).filter(|some: &Vec<_>| !some.is_empty())
    }

    /// Waits for the disk for some; says whether there is any use in going on.
    fn settle_all(&self, batch: &[(u64, FileHandle)]) -> bool {
        let mut goes_on = true;
        let open = |(_, handle): &(u64, FileHandle)| {
            self.open(handle).inspect(|file| {
                // All are on their way before the first is waited for.
                let _ = cow_sys::writeback::start(file);
            })
        };
        let files: Vec<_> = batch.iter().map(open).collect();
        for ((inode, handle), file) in batch.iter().zip(files) {
            match file.and_then(|file| on_disk::settle(&file, &self.attr)) {
                // It was removed, and nobody has it open.
                Ok(()) | Err(Errno::STALE | Errno::NOENT) => self.done(*inode, handle),
                // It waits on.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR) => goes_on = false,
                Err(error) => {
                    tracing::warn!(inode, %error, "a copy does not come to the disk");
                    lock(&self.state).fail(*inode, handle);
                }
            }
        }
        goes_on
    }

    /// Opens a copy under whatever name it has.
    fn open(&self, handle: &FileHandle) -> Result<OwnedFd, Errno> {
        let open = || handle::open(&self.work, handle, OFlags::RDONLY);
        let mut opened = open();
        for _ in 0..RETRIES {
            // Linux says so as well while a new file is being made with the number of one that was removed
            // (`iget_locked`).
            if !matches!(opened, Err(Errno::NOMEM)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            opened = open();
        }
        opened
    }

    fn done(&self, inode: u64, handle: &FileHandle) {
        let mut state = lock(&self.state);
        state.remove(inode, handle);
        let count = state.files.len() + state.failed.len();
        self.count.store(count, Ordering::Release);
        if count == 0 && state.record.as_ref().is_some_and(|own| own.forget(&self.work).is_ok()) {
            state.record = None;
        }
    }
}

impl State {
    /// Takes one out; its number may be another file's by now.
    fn remove(&mut self, inode: u64, handle: &FileHandle) {
        for files in [&mut self.files, &mut self.failed] {
            if files.get(&inode) == Some(handle) {
                files.remove(&inode);
            }
        }
        if self.files.is_empty() {
            (self.first, self.last, self.is_due) = (None, None, false);
        }
    }

    /// Waits no more for one that could not be written, but forgets nothing of it.
    fn fail(&mut self, inode: u64, handle: &FileHandle) {
        self.remove(inode, handle);
        self.failed.insert(inode, handle.clone());
    }
}

impl Union {
    /// Marks a copy, which has a temporary name still, as one whose data may not be on the disk, and has that
    /// waited for later; says whether that could be.
    pub(super) fn settles_later(
        &self,
        lower: &Lower<'_>,
        (name, file): (&OsStr, &OwnedFd),
        origin: &[u8],
    ) -> bool {
        let Some(unsettled) = &self.unsettled else { return false };
        let layer = self.layer(lower.dir);
        let dev = rustix::fs::makedev(lower.stat.stx_dev_major, lower.stat.stx_dev_minor);
        let can_be_mended = lower.whole && layer.handles && dev == layer.dev;
        // File systems of one identity are copies of one another, and cannot be told apart.
        let is_alone =
            self.layers.iter().all(|other| other.uuid != layer.uuid || other.fs == layer.fs);
        can_be_mended && is_alone && unsettled.add((name, file), origin, lower.length).is_ok()
    }

    /// Waits until the disk has an upper file's data, if it is a copy for which nobody did: before it is cut, or
    /// anything else makes a hole in it.
    ///
    /// # Errors
    /// What writing the data meets.
    pub fn settle_data(&self, file: &OwnedFd) -> Result<(), Errno> {
        self.unsettled.as_ref().map_or(Ok(()), |unsettled| unsettled.settle(file))
    }

    /// How many copies the disk may not have yet.
    pub fn unsettled(&self) -> usize {
        self.unsettled.as_ref().map_or(0, |unsettled| unsettled.count())
    }

    /// Waits until the disk has every copy.
    pub fn finish(&self) {
        if let Some(unsettled) = &self.unsettled {
            unsettled.finish();
        }
    }
}

/// The same after the machine was started again.
pub(super) fn keeps_handles(dir: &OwnedFd) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let kind = rustix::fs::fstatfs(dir).map(|stat| u64::try_from(stat.f_type));
    !matches!(kind, Ok(Ok(TMPFS_MAGIC)) | Err(_)) && can_open_handles(dir)
}

/// Whether what is on the file system of a directory can be opened by its handle.
fn can_open_handles(dir: &OwnedFd) -> bool {
    handle::of(dir, OsStr::new(""))
        .and_then(|handle| handle::open(dir, &handle, OFlags::PATH))
        .is_ok()
}

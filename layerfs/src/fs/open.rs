//! Opening and closing files.
//!
//! The first open of a node decides how all its opens work until the last is closed, for the kernel
//! allows no mixture: handed to the kernel with one backing file, or cached with every read and write
//! that the cache cannot answer coming here.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Fs;
use super::attr::magic;
use super::create::is_both;
use crate::node::{File, Node, State};
use crate::passthrough::Backing;
use crate::stats::Stats;
use crate::union::Place;
use crate::wire::{Args, Header, Out};

/// `FOPEN_` flags of the protocol.
const KEEP_CACHE: u32 = 1 << 1;
const NOFLUSH: u32 = 1 << 5;
const PASSTHROUGH: u32 = 1 << 7;
/// `__FMODE_EXEC` of the kernel, which sends it along with the flags of open(2).
const EXEC: u32 = 1 << 5;
/// `FUSE_OPEN_KILL_SUIDGID`.
const KILL_SUIDGID: u32 = 1 << 0;

impl Fs {
    pub(super) fn op_open(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let flags = OFlags::from_bits_retain(args.u32()?);
        let open_flags = args.u32()?;
        if self.union.work.is_none() && !self.passthrough.load(Ordering::Relaxed) {
            // Nothing is ever copied up, and the kernel's cache answers reads: it asks no more.
            return Err(Errno::NOSYS);
        }
        let node = self.table.get(header.node)?;
        if node.is_superseded() {
            // The kernel looks the name up again and finds the node that took this one's place.
            return Err(Errno::STALE);
        }
        let truncate = flags.contains(OFlags::TRUNC);
        let write = truncate || !(flags & OFlags::RWMODE).is_empty();
        if truncate && node.state().extra.as_ref().is_some_and(|extra| extra.runs > 0) {
            // The kernel refuses to write what runs before it asks us, but to cut it only afterwards.
            return Err(Errno::TXTBSY);
        }
        if write {
            self.copy_up(&node, truncate.then_some(0))?;
            if node.is_superseded() {
                return Err(Errno::STALE);
            }
        }
        if truncate {
            let file = self.writable_file(&node)?;
            self.union.settle_data(&file)?;
            rustix::fs::ftruncate(&file, 0)?;
            if open_flags & KILL_SUIDGID != 0 {
                self.kill_set_ids(&node)?;
            }
        }
        let run = flags.bits() & EXEC != 0;
        let both = is_both(flags);
        let (flags, backing) = self.opened(&node, write, None)?;
        if both && backing != 0 && !node.mapped.swap(true, Ordering::AcqRel) {
            // It may be written to through a map from now on.
            self.forget_attributes(node.id);
        }
        if run {
            node.state().extra().runs += 1;
        }
        out.open(0, flags, backing);
        Ok(())
    }

    /// Counts one more open file of a node, and decides how its data travels; `mode` is the file's, if
    /// it is known.
    pub(super) fn opened(
        &self,
        node: &Arc<Node>,
        write: bool,
        mode: Option<u32>,
    ) -> Result<(u32, u32), Errno> {
        let mut state = node.state();
        let cached = KEEP_CACHE | NOFLUSH;
        if state.extra().opens == 0 {
            self.choose_backing(node, &mut state, write, mode)?;
        }
        let extra = state.extra();
        extra.opens += 1;
        Ok(match &extra.backing {
            Some(backing) => {
                Stats::add(&self.stats.passthrough_opens);
                (NOFLUSH | PASSTHROUGH, backing.id)
            }
            None => (cached, 0),
        })
    }

    /// Decides at the first open whether the kernel gets the file, which may be registered still.
    fn choose_backing(
        &self,
        node: &Node,
        state: &mut State,
        write: bool,
        mode: Option<u32>,
    ) -> Result<(), Errno> {
        if !self.passes(node, state, write, mode) {
            state.extra().backing = None;
            return Ok(());
        }
        if state.extra().backing.is_some() {
            state.extra().again = true;
            return Ok(());
        }
        match self.backing(state) {
            Ok(backing) => state.extra().backing = Some(Arc::new(backing)),
            // A file on a stack of file systems, or a kernel that has changed its mind.
            Err(Errno::NOENT) => return Err(Errno::STALE),
            Err(error) => tracing::debug!(%error, node = node.id, "not handed to the kernel"),
        }
        Ok(())
    }

    /// Whether an open file may be handed to the kernel.
    fn passes(&self, node: &Node, state: &State, write: bool, mode: Option<u32>) -> bool {
        if !self.passthrough.load(Ordering::Relaxed) || node.kind != FileType::RegularFile {
            return false;
        }
        if !write {
            return true;
        }
        // The kernel writes with our privileges, and would leave set-id bits where the writer's
        // privileges drop them.
        const SET_IDS: u32 = 0o6000;
        if let Some(mode) = mode {
            return mode & SET_IDS == 0;
        }
        let Place::File { dir, name, .. } = &state.place else { return false };
        let orphan = state.extra.as_ref().and_then(|extra| extra.orphan.clone());
        let stat = match orphan {
            Some(orphan) => self.union.look(0, &orphan, std::ffi::OsStr::new("")),
            None => self.union.fds.get(dir).and_then(|fd| self.union.look(dir.layer, &fd, name)),
        };
        stat.is_ok_and(|stat| u32::from(stat.stx_mode) & SET_IDS == 0)
    }

    fn backing(&self, state: &State) -> Result<Backing, Errno> {
        let backings = self.backings.get().ok_or(Errno::NODEV)?;
        let Place::File { dir, data, .. } = &state.place else { return Err(Errno::ISDIR) };
        let upper = self.union.is_upper(dir) && data.is_none();
        let extra = state.extra.as_ref();
        if let Some(file) = extra.and_then(|extra| extra.file.as_ref()) {
            return backings.register(&file.fd, upper);
        }
        backings.register(self.open_real(state, false)?, upper)
    }

    /// Opens the real file of a node.
    pub(super) fn open_real(&self, state: &State, write: bool) -> Result<OwnedFd, Errno> {
        let bare = matches!(state.place, Place::File { data: Some(_), .. });
        let orphan = state.extra.as_ref().and_then(|extra| extra.orphan.as_ref());
        if let Some(orphan) = orphan.filter(|_| write || !bare) {
            let mode = if write { OFlags::RDWR } else { OFlags::RDONLY };
            return rustix::fs::open(magic(orphan), mode | OFlags::CLOEXEC, Mode::empty());
        }
        let Place::File { dir, name, data } = &state.place else { return Err(Errno::ISDIR) };
        if !write {
            return self.open_lower(dir, name, data);
        }
        if !self.union.is_upper(dir) {
            return Err(Errno::ROFS);
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&*self.union.fds.get(dir)?, &**name, flags, Mode::empty())
    }

    /// The real file of a node for reading, or for writing as well.
    ///
    /// It stays open with the node while there is room for that; else it is opened for each use.
    pub(super) fn file(&self, node: &Node, write: bool) -> Result<Arc<OwnedFd>, Errno> {
        let mut state = node.state();
        let open = state.extra.as_ref().and_then(|extra| extra.file.as_ref());
        if let Some(file) = open.filter(|file| file.writable || !write) {
            return Ok(Arc::clone(&file.fd));
        }
        let upper = match &state.place {
            Place::File { dir, data, .. } => self.union.is_upper(dir) && data.is_none(),
            Place::Dir(_) => return Err(Errno::ISDIR),
        };
        // An upper file is opened for both at once, if its file system lets us.
        let (fd, writable) = match self.open_real(&state, upper) {
            Ok(fd) => (fd, upper),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) if !write => {
                (self.open_real(&state, false)?, false)
            }
            Err(error) => return Err(error),
        };
        if write && !writable {
            return Err(Errno::ROFS);
        }
        let fd = Arc::new(fd);
        let opens = state.extra.as_ref().map_or(0, |extra| extra.opens);
        if opens > 0 && self.files.load(Ordering::Relaxed) < self.file_limit {
            let before = state.extra().file.replace(File { fd: Arc::clone(&fd), writable });
            if before.is_none() {
                self.files.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(fd)
    }

    pub(super) fn writable_file(&self, node: &Node) -> Result<Arc<OwnedFd>, Errno> {
        self.file(node, true)
    }

    /// Counts a real file as closed.
    pub(super) fn file_closed(&self) {
        self.files.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn op_release(&self, header: &Header, mut args: Args<'_>) -> Result<(), Errno> {
        args.u64()?;
        let flags = args.u32()?;
        let node = self.table.get(header.node)?;
        let mut state = node.state();
        let Some(extra) = &mut state.extra else { return Ok(()) };
        extra.opens = extra.opens.saturating_sub(1);
        if flags & EXEC != 0 {
            extra.runs = extra.runs.saturating_sub(1);
        }
        if extra.opens > 0 {
            return Ok(());
        }
        // A map keeps its file open.
        node.mapped.store(false, Ordering::Release);
        let keep = extra.orphan.is_none() && extra.successor.is_none();
        let backing = if keep { None } else { extra.backing.take() };
        let park = extra.backing.is_some() && !std::mem::replace(&mut extra.parked, true);
        let file = extra.file.take();
        if file.is_some() {
            self.file_closed();
        }
        state.trim();
        drop(state);
        drop((backing, file));
        if park {
            self.idle.park(&node);
        }
        Ok(())
    }
}

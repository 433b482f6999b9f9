//! Removing files and directories.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, MutexGuard};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::Fs;
use crate::node::{Node, State};
use crate::passthrough::Backing;
use crate::union::{Found, Place, RealDir, RealId};
use crate::wire::{Args, Header, Out};

impl Fs {
    pub(super) fn op_unlink(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        self.writable()?;
        let name = args.name()?;
        let parent = self.table.get(header.node)?;
        let stack = self.stack(&parent)?;
        let known = |id, dir: &_, name: &_| self.is_known(id, dir, name);
        let found = self.union.lookup_unless(&stack, name, &known)?.ok_or(Errno::NOENT)?;
        let found = self.index_links(found, &parent, name)?;
        // The directory may be in the upper layer only since then.
        let stack = self.stack(&parent)?;
        let Place::File { dir, .. } = &found.place else { return Err(Errno::ISDIR) };
        let node = self.table.find(found.id).map(|node| node.live());
        // Holding the state keeps a copy-up from bringing the name back.
        let mut held = node.as_ref().map(|node| node.state());
        let in_upper = self.has_upper(&stack, dir, name)?;
        if let (Some(state), Some(top)) = (held.as_mut(), stack.first())
            && let Some(backing) = self.pin(state, top, name)?
        {
            out.later(backing);
        }
        self.remove_name(&parent, &stack, name, in_upper)?;
        match (&node, held.take()) {
            (Some(node), Some(state)) => {
                self.unnamed(&found, node, state, in_upper, (parent.id, name));
            }
            _ => self.unindex(&found, in_upper),
        }
        Ok(())
    }

    /// Whether a node says that a file has its data and where it is, so that its marks need not be read.
    fn is_known(&self, id: RealId, dir: &Arc<RealDir>, name: &OsStr) -> bool {
        let Some(node) = self.table.find(id) else { return false };
        matches!(&node.state().place, Place::File { dir: at, name: known, data: None }
            if Arc::ptr_eq(at, dir) && **known == *name)
    }

    /// Brings a lower file with several names into the index before one of them goes, so that the
    /// number of those left can be kept; the kernel's overlay does so as well.
    pub(super) fn index_links(
        &self,
        found: Found,
        parent: &Arc<Node>,
        name: &OsStr,
    ) -> Result<Found, Errno> {
        let Place::File { dir, name: real, data: None } = &found.place else { return Ok(found) };
        if found.stat.stx_nlink < 2
            || self.union.is_upper(dir)
            || self.union.index_name(dir, real).is_none()
        {
            return Ok(found);
        }
        let Some(node) = self.table.find(found.id) else { return Ok(found) };
        self.copy_up(&node.live(), None)?;
        self.union.lookup(&self.stack(parent)?, name)?.ok_or(Errno::NOENT)
    }

    /// Whether the upper layer itself has a name that was found, and not only the index.
    fn has_upper(
        &self,
        stack: &[Arc<RealDir>],
        found: &Arc<RealDir>,
        name: &OsStr,
    ) -> Result<bool, Errno> {
        let Some(top) = stack.first().filter(|top| self.union.is_upper(top)) else {
            return Ok(false);
        };
        if !self.union.is_index(found) {
            return Ok(self.union.is_upper(found));
        }
        let fd = self.union.fds.get(top)?;
        Ok(crate::union::stat(&fd, name).is_ok())
    }

    /// Keeps hold of an upper file by an fd, if the node reaches it by the name that it is about to
    /// lose; a lower one stays where it is. Returns what the kernel had of it, if nobody has it open.
    pub(super) fn pin(
        &self,
        state: &mut State,
        upper: &Arc<RealDir>,
        name: &OsStr,
    ) -> Result<Option<Arc<Backing>>, Errno> {
        let Place::File { dir, name: known, data } = &state.place else { return Ok(None) };
        let pinned = state.extra.as_ref().is_some_and(|extra| extra.orphan.is_some());
        if pinned || !self.union.is_upper(dir) {
            return Ok(None);
        }
        // The index loses its entry with the last name, whichever that is.
        let indexed = self.union.is_index(dir);
        if !indexed && (!Arc::ptr_eq(dir, upper) || &**known != name) {
            return Ok(None);
        }
        let open = state.extra.as_ref().and_then(|extra| extra.file.as_ref());
        let fd = match open {
            // Of a file without its data that is the lower one.
            Some(file) if data.is_none() => Arc::clone(&file.fd),
            _ => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let dir = self.union.fds.get(dir)?;
                Arc::new(rustix::fs::openat(&*dir, &**known, flags, Mode::empty())?)
            }
        };
        state.extra().orphan = Some(fd);
        // Its space is given back when nobody has it open.
        Ok(state.take_idle_backing())
    }

    /// Takes a name out of the union: removes what the upper layer has, and hides what the lower ones
    /// have.
    fn remove_name(
        &self,
        parent: &Arc<Node>,
        stack: &[Arc<RealDir>],
        name: &OsStr,
        in_upper: bool,
    ) -> Result<(), Errno> {
        let upper = self.upper_dir(parent)?;
        // What is shown and not in the upper layer is in a lower one.
        if !in_upper || self.union.lower_has(stack, name)? {
            return self.union.white_out(&upper, name);
        }
        rustix::fs::unlinkat(&*self.union.fds.get(&upper)?, name, AtFlags::empty())
    }

    /// Whether no name leads to a file any more, after one was removed.
    fn was_last_name(&self, found: &Found, state: &State, in_upper: bool) -> bool {
        let Place::File { dir, .. } = &found.place else { return found.stat.stx_nlink == 1 };
        let indexed = self.union.is_index(dir);
        if found.stat.stx_nlink == 1 && !indexed {
            return true;
        }
        if !self.union.is_upper(dir) {
            return false;
        }
        // A name that only a lower layer had is counted until the index is told.
        let names = if indexed && !in_upper { 1 } else { 0 };
        let orphan = state.extra.as_ref().and_then(|extra| extra.orphan.as_ref());
        let here = OsStr::new("");
        match orphan {
            Some(fd) => crate::union::stat(fd, here).is_ok_and(|stat| {
                let links = i64::from(stat.stx_nlink) + self.union.links(fd, here);
                links <= names && stat.stx_nlink < 2
            }),
            None => false,
        }
    }

    /// Brings the index, the table and the node to what the removal of a name leaves.
    pub(super) fn unnamed(
        &self,
        found: &Found,
        node: &Arc<Node>,
        mut state: MutexGuard<'_, State>,
        in_upper: bool,
        (parent, name): (u64, &OsStr),
    ) {
        let last = node.is_dir() || self.was_last_name(found, &state, in_upper);
        let by_this =
            state.parent.as_ref().is_some_and(|known| known.id == parent) && &*state.name == name;
        if last || by_this {
            state.parent = None;
        }
        if !last
            && let Place::File { dir, .. } = &state.place
            && self.union.is_index(dir)
            && let Some(extra) = &mut state.extra
        {
            // Its entry in the index is there still.
            extra.orphan = None;
        }
        let real = state.real;
        let lower = state.extra.as_ref().and_then(|extra| extra.lower);
        if last && let (Some(lower), Some(_)) = (lower, &state.extra) {
            self.table.unalias(lower, node.id);
        }
        drop(state);
        if last {
            self.table.unalias(real, node.id);
            self.table.unalias(found.id, node.id);
            if node.is_dir() {
                self.listings.forget(node.id);
            }
        }
        self.unindex(found, in_upper);
    }

    /// Counts a name as gone in the index.
    fn unindex(&self, found: &Found, in_upper: bool) {
        let Place::File { dir, name, .. } = &found.place else { return };
        let indexed = self.union.is_index(dir);
        if !self.union.is_upper(dir) || !indexed && found.stat.stx_nlink < 2 {
            return;
        }
        let done = match (indexed, in_upper) {
            (true, false) => self.union.drop_lower_link(dir, name),
            (true, true) => self.union.drop_unused(dir, name),
            (false, _) => self.union.drop_unused_inode(found.id),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the index keeps an entry that nothing leads to");
        }
    }

    pub(super) fn op_rmdir(&self, header: &Header, mut args: Args<'_>) -> Result<(), Errno> {
        self.writable()?;
        let name = args.name()?;
        let parent = self.table.get(header.node)?;
        let stack = self.stack(&parent)?;
        let found = self.union.lookup(&stack, name)?.ok_or(Errno::NOENT)?;
        let Place::Dir(inner) = &found.place else { return Err(Errno::NOTDIR) };
        let in_upper = inner.first().is_some_and(|top| self.union.is_upper(top));
        let merged = inner.len() > 1 || !in_upper;
        if merged && !self.union.is_empty(inner)? {
            return Err(Errno::NOTEMPTY);
        }
        // Afterwards its inode may be that of a directory which somebody else has made.
        let node = self.table.find(found.id);
        let dead = self.dying(node.as_ref(), inner)?;
        self.remove_dir(&parent, &stack, name, inner, in_upper)?;
        if let Some(node) = node {
            let mut state = node.state();
            state.extra().orphan = dead;
            self.unnamed(&found, &node, state, in_upper, (parent.id, name));
        }
        Ok(())
    }

    /// The fd of a directory that is about to be removed, if the kernel knows it: whoever has it open
    /// must not be led to what gets its name.
    pub(super) fn dying(
        &self,
        node: Option<&Arc<Node>>,
        inner: &[Arc<RealDir>],
    ) -> Result<Option<Arc<OwnedFd>>, Errno> {
        match (node, inner.first()) {
            (Some(_), Some(top)) => self.union.fds.get(top).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes a directory that shows nothing out of the union.
    fn remove_dir(
        &self,
        parent: &Arc<Node>,
        stack: &[Arc<RealDir>],
        name: &OsStr,
        inner: &[Arc<RealDir>],
        in_upper: bool,
    ) -> Result<(), Errno> {
        let merged = inner.len() > 1;
        let upper = self.upper_dir(parent)?;
        if !in_upper {
            return self.union.white_out(&upper, name);
        }
        if merged || self.union.lower_has(stack, name)? {
            // The kernel lets nobody make a name in a directory that it is removing.
            if !merged && !self.union.is_empty(inner)? {
                return Err(Errno::NOTEMPTY);
            }
            return self.union.white_out_dir(&upper, name);
        }
        let fd = self.union.fds.get(&upper)?;
        match rustix::fs::unlinkat(&*fd, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                if !self.union.is_empty(inner)? {
                    return Err(Errno::NOTEMPTY);
                }
                self.union.discard_dir(&upper, name)
            }
            answer => answer,
        }
    }
}

//! Renaming.
//!
//! What moves is in the upper layer by then; a directory that lower layers have a part of is marked
//! with where that part is. The old name is hidden with the same rename where the file system can.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, MutexGuard};

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::Fs;
use crate::node::{Node, State};
use crate::options::Redirects;
use crate::union::{Found, Moving, Name, Place, RealDir, marks};
use crate::wire::{Args, Header, op};

/// One end of a rename.
struct End<'a> {
    parent: Arc<Node>,
    stack: Arc<[Arc<RealDir>]>,
    name: &'a OsStr,
}

/// An end in the upper layer.
struct Upper {
    dir: Arc<RealDir>,
    fd: Arc<OwnedFd>,
}

impl Fs {
    pub(super) fn op_rename(&self, header: &Header, mut args: Args<'_>) -> Result<(), Errno> {
        self.writable()?;
        let target = args.u64()?;
        let flags = if header.opcode == op::RENAME2 { args.u64()? } else { 0 };
        let flags = RenameFlags::from_bits_retain(u32::try_from(flags).unwrap_or(u32::MAX));
        let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE | RenameFlags::WHITEOUT;
        if !known.contains(flags) {
            return Err(Errno::INVAL);
        }
        let from = self.end(header.node, args.name()?)?;
        let mut to = self.end(target, args.name()?)?;
        if to.name.as_bytes().starts_with(crate::union::WHITEOUT_FILE) {
            return Err(Errno::INVAL);
        }
        let source = self.union.lookup(&from.stack, from.name)?.ok_or(Errno::NOENT)?;
        let victim = self.union.lookup(&to.stack, to.name)?;
        match &victim {
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
            Some(victim) if victim.id == source.id => return Ok(()),
            None if flags.contains(RenameFlags::EXCHANGE) => return Err(Errno::NOENT),
            _ => {}
        }
        match victim {
            Some(victim) if flags.contains(RenameFlags::EXCHANGE) => {
                self.exchange(&from, &source, &to, &victim)
            }
            victim => {
                let victim = match victim {
                    Some(victim) => Some(self.index_links(victim, &to.parent, to.name)?),
                    None => None,
                };
                to.stack = self.stack(&to.parent)?;
                let hide = flags.contains(RenameFlags::WHITEOUT);
                self.replace(&from, &source, &to, victim.as_ref(), hide)
            }
        }
    }

    fn end<'a>(&self, id: u64, name: &'a OsStr) -> Result<End<'a>, Errno> {
        let parent = self.table.get(id)?;
        let stack = self.stack(&parent)?;
        Ok(End { parent, stack, name })
    }

    fn upper(&self, end: &End<'_>) -> Result<Upper, Errno> {
        let dir = self.upper_dir(&end.parent)?;
        let fd = self.union.fds.get(&dir)?;
        Ok(Upper { dir, fd })
    }

    /// Brings what moves into the upper layer, under its own name.
    fn lift(&self, end: &End<'_>, found: &Found, to: &End<'_>) -> Result<Arc<Node>, Errno> {
        let node = self.table.find(found.id).ok_or(Errno::STALE)?.live();
        let merged = match &found.place {
            Place::Dir(stack) => {
                stack.len() > 1 || !stack.first().is_some_and(|top| self.union.is_upper(top))
            }
            Place::File { .. } => false,
        };
        if merged && self.union.redirects != Redirects::On {
            return Err(Errno::XDEV);
        }
        self.copy_up_to_move(&node)?;
        let node = node.live();
        let upper = self.upper(end)?;
        if node.is_dir() {
            self.mark_moved(&node, end, &upper, to)?;
        } else if let Err(Errno::NOENT) = crate::union::stat(&upper.fd, end.name) {
            self.materialise(&node, end, &upper)?;
        } else if self.union.is_hidden(&upper.dir, &upper.fd, end.name)? {
            return Err(Errno::NOENT);
        }
        Ok(node)
    }

    /// Gives a name that only the lower layer has of an indexed file an upper entry of its own.
    fn materialise(&self, node: &Node, end: &End<'_>, upper: &Upper) -> Result<(), Errno> {
        self.link_into(node, &upper.dir, &upper.fd, end.name)?;
        self.union.adjust_links(&upper.fd, end.name, -1)
    }

    /// Marks a directory that moves: with where its lower part is, or as one without.
    fn mark_moved(
        &self,
        node: &Node,
        from: &End<'_>,
        upper: &Upper,
        to: &End<'_>,
    ) -> Result<(), Errno> {
        let Place::Dir(stack) = node.state().place.clone() else { return Ok(()) };
        let below = usize::from(to.stack.first().is_some_and(|top| self.union.is_upper(top)));
        if stack.len() < 2 {
            if to.stack.len() > below && self.union.lower_has(&to.stack[below..], to.name)? {
                self.union.set_opaque(&upper.fd, from.name)?;
            }
            return Ok(());
        }
        let same_parent = Arc::ptr_eq(&from.parent, &to.parent);
        let marked = marks::of_dir(self.union.prefix, &upper.fd, from.name)?.redirect;
        if marked.is_some_and(|mark| same_parent || mark.as_bytes().starts_with(b"/")) {
            return Ok(());
        }
        let redirect = match same_parent {
            true => from.name.to_owned(),
            false => self.union.path_below(&upper.dir, from.name)?,
        };
        let attr = self.union.prefix.name("redirect");
        match cow_sys::xattr::set(&*upper.fd, from.name, &attr, redirect.as_bytes()) {
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::NOSPC) => Err(Errno::XDEV),
            answer => answer,
        }
    }

    fn exchange(
        &self,
        from: &End<'_>,
        source: &Found,
        to: &End<'_>,
        victim: &Found,
    ) -> Result<(), Errno> {
        let first = self.lift(from, source, to)?;
        let second = self.lift(to, victim, from)?;
        let (old, new) = (self.upper(from)?, self.upper(to)?);
        self.note_copy(&first, &new);
        self.note_copy(&second, &old);
        let (mut first, second) = hold(&first, Some(&second));
        let mut second = second.ok_or(Errno::INVAL)?;
        let tops = (top(&first), top(&second));
        let moving =
            (tops.0.as_ref().map(|top| top.moving()), tops.1.as_ref().map(|top| top.moving()));
        rustix::fs::renameat_with(&*old.fd, from.name, &*new.fd, to.name, RenameFlags::EXCHANGE)?;
        moved(&mut first, moving.0, to, &new.dir);
        moved(&mut second, moving.1, from, &old.dir);
        Ok(())
    }

    fn replace(
        &self,
        from: &End<'_>,
        source: &Found,
        to: &End<'_>,
        victim: Option<&Found>,
        hide: bool,
    ) -> Result<(), Errno> {
        if let Some(Place::Dir(inner)) = victim.map(|victim| &victim.place)
            && !self.union.is_empty(inner)?
        {
            return Err(Errno::NOTEMPTY);
        }
        let node = self.lift(from, source, to)?;
        let (old, new) = (self.upper(from)?, self.upper(to)?);
        self.note_copy(&node, &new);
        let hide = hide || self.union.lower_has(&from.stack, from.name)?;
        let replaced = victim.and_then(|found| Some((found, self.table.find(found.id)?.live())));
        let (mut state, mut held) = hold(&node, replaced.as_ref().map(|(_, node)| node));
        let in_upper = victim.is_some_and(|found| match &found.place {
            Place::Dir(inner) => inner.first().is_some_and(|top| self.union.is_upper(top)),
            Place::File { dir, .. } => {
                self.union.is_upper(dir)
                    && (!self.union.is_index(dir) || crate::union::stat(&new.fd, to.name).is_ok())
            }
        });
        if let Some(state) = held.as_mut() {
            drop(self.pin(state, &new.dir, to.name)?);
        }
        if let Some(Place::Dir(_)) = victim.map(|victim| &victim.place)
            && in_upper
        {
            self.union.set_opaque(&new.fd, to.name)?;
            self.union.clear_dir(&new.fd, to.name)?;
        }
        let dead = match victim.map(|victim| &victim.place) {
            Some(Place::Dir(inner)) => {
                self.dying(replaced.as_ref().map(|(_, node)| node), inner)?
            }
            _ => None,
        };
        let top = top(&state);
        let moving = top.as_ref().map(|top| top.moving());
        self.swap_in(&node, from, &old, to, &new, hide)?;
        moved(&mut state, moving, to, &new.dir);
        drop(state);
        if let (Some((found, victim)), Some(mut state)) = (&replaced, held.take()) {
            if victim.is_dir() {
                state.extra().orphan = dead;
            }
            self.unnamed(found, victim, state, in_upper, (to.parent.id, to.name));
        }
        Ok(())
    }

    /// Marks a directory that is about to hold something whose inode number comes from below.
    fn note_copy(&self, node: &Node, upper: &Upper) {
        if self.is_copy(node) {
            self.union.set_impure(&upper.dir, &upper.fd);
        }
    }

    /// Whether the number that is shown for an upper file is not the one of its real inode.
    pub(super) fn is_copy(&self, node: &Node) -> bool {
        let state = node.state();
        match &state.place {
            Place::Dir(stack) => stack.len() > 1,
            Place::File { .. } => self.union.shown(state.real) != node.ino,
        }
    }

    /// The rename itself, with the whiteout that it leaves behind.
    fn swap_in(
        &self,
        node: &Node,
        from: &End<'_>,
        old: &Upper,
        to: &End<'_>,
        new: &Upper,
        hide: bool,
    ) -> Result<(), Errno> {
        let over_whiteout = match crate::union::stat(&new.fd, to.name) {
            Ok(_) => self.union.is_hidden(&new.dir, &new.fd, to.name)?,
            Err(_) => false,
        };
        let rename =
            |flags| rustix::fs::renameat_with(&*old.fd, from.name, &*new.fd, to.name, flags);
        if node.is_dir() && over_whiteout {
            rename(RenameFlags::EXCHANGE)?;
            if !hide {
                rustix::fs::unlinkat(&*old.fd, from.name, AtFlags::empty())?;
            }
            return Ok(());
        }
        if hide && self.union.can_rename_whiteout() {
            match rename(RenameFlags::WHITEOUT) {
                Err(Errno::INVAL | Errno::PERM | Errno::NOSYS) => {}
                answer => return answer,
            }
        }
        rename(RenameFlags::empty())?;
        self.union.drop_whiteout_file(&new.fd, to.name);
        match hide {
            true => self.union.white_out(&old.dir, from.name),
            false => Ok(()),
        }
    }
}

/// Locks what is renamed and what it meets, so that nobody looks for them where they are no more.
///
/// In the order of their numbers: two files may meet each other by different names.
fn hold<'a>(
    node: &'a Node,
    other: Option<&'a Arc<Node>>,
) -> (MutexGuard<'a, State>, Option<MutexGuard<'a, State>>) {
    match other {
        Some(other) if other.id < node.id => {
            let second = other.state();
            (node.state(), Some(second))
        }
        other => (node.state(), other.map(|other| other.state())),
    }
}

/// The directory of the upper layer that a node is, if it is one.
fn top(state: &State) -> Option<Arc<RealDir>> {
    match &state.place {
        Place::Dir(stack) => stack.first().cloned(),
        Place::File { .. } => None,
    }
}

/// Records where a node is now.
fn moved(state: &mut State, moving: Option<Moving<'_>>, to: &End<'_>, upper: &Arc<RealDir>) {
    state.parent = Some(Arc::clone(&to.parent));
    state.name = to.name.into();
    if let Some(moving) = moving {
        moving.moved(upper, to.name);
    }
    if let Place::File { dir, name, .. } = &mut state.place {
        *dir = Arc::clone(upper);
        *name = Name::from(to.name);
    }
    if let Some(extra) = &mut state.extra {
        extra.orphan = None;
    }
}

//! Names to nodes.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::fs::Statx;
use rustix::io::Errno;

use super::Fs;
use crate::node::{Moment, Node};
use crate::stats::Stats;
use crate::union::{Found, Place, RealDir};
use crate::wire::{Args, Attr, EntryOut, Header, Out};

/// A device number as the protocol carries it (`new_encode_dev`).
fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

impl Fs {
    pub(super) fn op_lookup(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        let parent = self.table.get(header.node)?;
        let name = match args.string()? {
            name if name == "." || name == ".." => return Err(Errno::STALE),
            name if name.len() > 255 => return Err(Errno::NAMETOOLONG),
            name => name,
        };
        match self.search(&parent, name)? {
            Some((_, entry)) => {
                out.entry(&entry);
                self.list_ahead(&parent);
            }
            // Node 0 lets the kernel keep the answer that there is no such name.
            None => out.entry(&EntryOut { entry_ttl: self.options.timeout, ..EntryOut::default() }),
        }
        Ok(())
    }

    /// The node of a name and the reply for it, if there is such a name; the node counts as told to the
    /// kernel.
    pub(super) fn search(
        &self,
        parent: &Arc<Node>,
        name: &OsStr,
    ) -> Result<Option<(Arc<Node>, EntryOut)>, Errno> {
        loop {
            let moment = self.table.moment();
            let Some(found) = self.union.lookup(&self.stack(parent)?, name)? else {
                return Ok(None);
            };
            if let Some(entry) = self.entry(&found, parent, name, moment) {
                return Ok(Some(entry));
            }
        }
    }

    /// Has a directory listed in which names are looked up one by one, where that is little work for
    /// the names that were looked up already.
    fn list_ahead(&self, dir: &Arc<Node>) {
        /// Bytes that a name takes in a directory, at least.
        const NAME: u64 = 32;
        /// Names that are read, for each that was looked up, to find those that are listed.
        const READ: u64 = 64;
        let parent = || dir.state().parent.as_ref().map(|parent| parent.id);
        let Some(wish) = self.ahead.found(dir.id, parent) else { return };
        let size = |dir: &Arc<RealDir>| {
            let fd = self.union.fds.get(dir).ok()?;
            crate::union::stat(&fd, OsStr::new("")).ok().map(|stat| stat.stx_size)
        };
        let Ok(stack) = self.stack(dir) else { return };
        let bytes: u64 = stack.iter().filter_map(size).sum();
        // There is another wish when twice as many were looked up.
        if bytes / NAME > (u64::from(wish.asked) * READ).max(1024) {
            return;
        }
        Stats::add(&self.stats.listed_ahead);
        self.ahead.list(wish);
    }

    /// The node and the reply for what was found; the node counts as told to the kernel.
    ///
    /// None if what was found may be out of date ([`Table::intern`](crate::node::Table::intern)).
    pub(super) fn entry(
        &self,
        found: &Found,
        parent: &Arc<Node>,
        name: &OsStr,
        moment: Moment,
    ) -> Option<(Arc<Node>, EntryOut)> {
        let node = self.table.intern(&self.union, found, parent, name, moment)?;
        // A node that was copied up since the layers were read has newer attributes.
        let stat = match (&node.state().place, &found.place) {
            (Place::File { dir, .. }, Place::File { dir: seen, .. }) if dir.layer != seen.layer => {
                None
            }
            _ => Some(found.stat),
        };
        let stat = stat.or_else(|| self.stat(&node).ok()).unwrap_or(found.stat);
        let attr = self.attr(&node, &stat);
        let (entry_ttl, attr_ttl) = (self.options.timeout, self.attr_ttl(&node, &node));
        let entry = EntryOut { node: node.id, entry_ttl, attr_ttl, attr };
        Some((node, entry))
    }

    /// The attributes of a node as the mount shows them.
    pub(super) fn attr(&self, node: &Node, stat: &Statx) -> Attr {
        let (uid, gid) = match self.options.ids.is_plain() {
            true => (stat.stx_uid, stat.stx_gid),
            false => self.options.ids.show(stat.stx_uid, stat.stx_gid),
        };
        let time = |at: &rustix::fs::StatxTimestamp| (at.tv_sec, at.tv_nsec);
        Attr {
            ino: node.ino,
            size: stat.stx_size,
            blocks: self.blocks(node, stat),
            atime: time(&stat.stx_atime),
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
            mode: stat.stx_mode.into(),
            nlink: self.links(node, stat),
            uid,
            gid,
            rdev: encode_device(stat.stx_rdev_major, stat.stx_rdev_minor),
            blksize: stat.stx_blksize,
        }
    }

    /// The space that a file's data takes, wherever the data is.
    fn blocks(&self, node: &Node, stat: &Statx) -> u64 {
        let data = match &node.state().place {
            Place::File { data: Some(data), .. } => data.clone(),
            _ => return stat.stx_blocks,
        };
        let found = self.union.fds.get(&data.0).and_then(|fd| crate::union::stat(&fd, &data.1));
        found.map_or(stat.stx_blocks, |found| found.stx_blocks)
    }

    /// The number of links: 1 for merged directories, whose subdirectories nobody counts; for a file
    /// of the index what the union shows of its names.
    fn links(&self, node: &Node, stat: &Statx) -> u32 {
        let state = node.state();
        let orphan = state.extra.as_ref().and_then(|extra| extra.orphan.as_ref());
        match &state.place {
            Place::Dir(_) if orphan.is_some() => 0,
            Place::Dir(stack) if self.options.static_nlink || stack.len() > 1 => 1,
            Place::Dir(_) => stat.stx_nlink,
            // It lost its name, and is still open. The layer below keeps it.
            Place::File { dir, .. }
                if state.parent.is_none() && stat.stx_nlink == 1 && !self.union.is_upper(dir) =>
            {
                0
            }
            Place::File { dir, name, .. } => {
                if !self.union.index || !self.union.is_upper(dir) {
                    return stat.stx_nlink;
                }
                // The index holds a link of its own, unless the upper layer has no name any more.
                if stat.stx_nlink < 2 && orphan.is_none() && !self.union.is_index(dir) {
                    return stat.stx_nlink;
                }
                let more = match (orphan, self.union.fds.get(dir)) {
                    (Some(file), _) => self.union.links(file, OsStr::new("")),
                    (None, Ok(fd)) => self.union.links(&fd, name),
                    (None, Err(_)) => 0,
                };
                let links = i64::from(stat.stx_nlink) + more;
                let names = stat.stx_nlink.saturating_sub(1);
                u32::try_from(links).map_or(stat.stx_nlink, |links| links.max(names))
            }
        }
    }

    /// The attributes of a node's real file.
    pub(super) fn stat(&self, node: &Node) -> Result<Statx, Errno> {
        let here = OsStr::new("");
        let state = node.state();
        if let Some(orphan) = state.extra.as_ref().and_then(|extra| extra.orphan.as_ref()) {
            let layer = match &state.place {
                Place::Dir(stack) => stack.first().map_or(0, |top| top.layer),
                Place::File { .. } => 0,
            };
            return self.union.look(layer, orphan, here);
        }
        match &state.place {
            Place::Dir(stack) => {
                let top = stack.first().ok_or(Errno::IO)?;
                self.union.look(top.layer, &*self.union.fds.get(top)?, here)
            }
            Place::File { dir, name, .. } => {
                self.union.look(dir.layer, &*self.union.fds.get(dir)?, name)
            }
        }
        .map_err(|error| if error == Errno::NOENT { Errno::STALE } else { error })
    }

    /// The reply for a node that is known to the kernel already or has just been made.
    pub(super) fn entry_of(&self, node: &Arc<Node>) -> Result<EntryOut, Errno> {
        let attr = self.attr(node, &self.stat(node)?);
        let (entry_ttl, attr_ttl) = (self.options.timeout, self.attr_ttl(node, node));
        Ok(EntryOut { node: node.id, entry_ttl, attr_ttl, attr })
    }
}

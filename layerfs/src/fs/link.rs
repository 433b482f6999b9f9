//! Hard links.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::Fs;
use super::attr::magic;
use crate::node::Node;
use crate::union::{Name, Place, RealDir};
use crate::wire::{Args, Header, Out};

impl Fs {
    pub(super) fn op_link(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        self.writable()?;
        let old = args.u64()?;
        let name = args.name()?;
        if name.as_bytes().starts_with(crate::union::WHITEOUT_FILE) {
            return Err(Errno::INVAL);
        }
        let parent = self.table.get(header.node)?;
        let node = self.table.get(old)?.live();
        if node.is_dir() {
            return Err(Errno::PERM);
        }
        self.copy_up_to_move(&node)?;
        let node = node.live();
        let upper = self.upper_dir(&parent)?;
        let dir = self.union.fds.get(&upper)?;
        if self.is_copy(&node) {
            self.union.set_impure(&upper, &dir);
        }
        self.link_into(&node, &upper, &dir, name)?;
        self.union.drop_whiteout_file(&dir, name);
        {
            let mut state = node.state();
            state.parent = Some(Arc::clone(&parent));
            state.name = name.into();
            // The place goes with the name: the old name's directory may be forgotten and renamed.
            let data = match &mut state.place {
                Place::File { data, .. } => data.take(),
                Place::Dir(_) => None,
            };
            state.place = Place::File { dir: Arc::clone(&upper), name: Name::from(name), data };
            if let Some(extra) = &mut state.extra {
                extra.orphan = None;
            }
        }
        let entry = self.entry_of(&node)?;
        self.table.told(&node);
        out.entry(&entry);
        Ok(())
    }

    /// Links an upper file to a name in an upper directory, over a whiteout if there is one.
    pub(super) fn link_into(
        &self,
        node: &Node,
        upper: &Arc<RealDir>,
        dir: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), Errno> {
        match self.link_at(node, dir, name) {
            Err(Errno::EXIST) => {}
            answer => return answer,
        }
        let work = self.union.work.as_ref().ok_or(Errno::ROFS)?;
        if !self.union.is_hidden(upper, dir, name)? {
            return Err(Errno::EXIST);
        }
        let aside = work.name();
        self.link_at(node, &work.dir, OsStr::new(&aside))?;
        let renamed = rustix::fs::renameat(&work.dir, &aside, dir, name);
        if renamed.is_err() {
            let _ = rustix::fs::unlinkat(&work.dir, &aside, AtFlags::empty());
        }
        renamed
    }

    fn link_at(&self, node: &Node, dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        let state = node.state();
        let orphan = state.extra.as_ref().and_then(|extra| extra.orphan.as_ref());
        if let Some(orphan) = orphan {
            let flags = AtFlags::SYMLINK_FOLLOW;
            return rustix::fs::linkat(rustix::fs::CWD, magic(orphan), dir, name, flags);
        }
        let Place::File { dir: from, name: old, .. } = &state.place else {
            return Err(Errno::PERM);
        };
        let from = self.union.fds.get(from)?;
        rustix::fs::linkat(&*from, &**old, dir, name, AtFlags::empty())
    }
}

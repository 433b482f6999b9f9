//! Listing directories.
//!
//! There are no open directories: the kernel was told so, keeps the listings itself, and comes with
//! the place at which it wants to go on.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Fs, LISTINGS};
use crate::node::{Moment, Node};
use crate::union::{Entry, Listing, RealDir, lock};
use crate::wire::{Args, Attr, DirentPlus, EntryOut, Header, Out};

/// The `DT_` number of a type.
fn kind_byte(kind: FileType) -> u8 {
    u8::try_from(kind.as_raw_mode() >> 12).unwrap_or(0)
}

impl Fs {
    pub(super) fn op_readdir(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
        plus: bool,
    ) -> Result<(), Errno> {
        args.u64()?;
        let (offset, size) = (args.u64()?, args.u32()? as usize);
        let node = self.table.get(header.node)?;
        let moment = self.table.moment();
        let stack = self.stack(&node)?;
        let listing = self.listing(&node, &stack, offset)?;
        if !self.dots(&node, offset, size, plus, out) {
            return Ok(());
        }
        for entry in listing.after(offset) {
            let fits = match plus {
                true => self.add_plus(&node, (&stack, moment), &entry, size, out)?,
                false => {
                    let kind = kind_byte(entry.kind);
                    out.dirent(size, entry.ino, entry.place, kind, entry.name)
                }
            };
            if !fits {
                break;
            }
        }
        Ok(())
    }

    /// Adds `.` and `..`, as far as they come after `offset`; says whether there is room for more.
    fn dots(&self, node: &Node, offset: u64, size: usize, plus: bool, out: &mut Out) -> bool {
        let parent = node.state().parent.as_ref().map_or(node.ino, |parent| parent.ino);
        for (place, ino, name) in [(1, node.ino, "."), (2, parent, "..")] {
            if place <= offset {
                continue;
            }
            let name = OsStr::new(name);
            let kind = kind_byte(FileType::Directory);
            if plus {
                if !out.fits_plus(size, name) {
                    return false;
                }
                let attr = Attr { ino, mode: 0o040_000, ..Attr::default() };
                let entry = EntryOut { attr, ..EntryOut::default() };
                out.dirent_plus(&DirentPlus { entry, ino, next: place, kind, name });
            } else if !out.dirent(size, ino, place, kind, name) {
                return false;
            }
        }
        true
    }

    fn add_plus(
        &self,
        parent: &Arc<Node>,
        (stack, moment): (&[Arc<RealDir>], Moment),
        listed: &Entry<'_>,
        size: usize,
        out: &mut Out,
    ) -> Result<bool, Errno> {
        if !out.fits_plus(size, listed.name) {
            return Ok(false);
        }
        // Above the layer that has it there is nothing of this name.
        let from = listed.layer.min(stack.len());
        let entry = match self.union.lookup(&stack[from..], listed.name) {
            Ok(Some(found)) => match self.entry(&found, parent, listed.name, moment) {
                None => self.search(parent, listed.name).unwrap_or(None),
                entry => entry,
            },
            _ => None,
        };
        // Gone since, or not readable: the name alone then, as a plain listing has it.
        let unknown = || (EntryOut::default(), listed.ino);
        let (entry, ino) = entry.map_or_else(unknown, |(node, entry)| (entry, node.ino));
        let kind = kind_byte(listed.kind);
        out.dirent_plus(&DirentPlus { entry, ino, next: listed.place, kind, name: listed.name });
        Ok(true)
    }

    /// The listing of a directory: a new one for a reader that begins, the same for one that goes on.
    fn listing(
        &self,
        node: &Node,
        stack: &[Arc<RealDir>],
        offset: u64,
    ) -> Result<Arc<Listing>, Errno> {
        let before = {
            let mut listings = lock(&self.listings);
            let at = listings.iter().position(|(id, _)| *id == node.id);
            at.map(|at| {
                let kept = listings.remove(at);
                let listing = Arc::clone(&kept.1);
                listings.push(kept);
                listing
            })
        };
        if let Some(before) = before.as_ref().filter(|_| offset > 0) {
            return Ok(Arc::clone(before));
        }
        let listing = Arc::new(self.union.list(stack, before.as_deref())?);
        let mut listings = lock(&self.listings);
        listings.retain(|(id, _)| *id != node.id);
        if listings.len() >= LISTINGS {
            listings.remove(0);
        }
        listings.push((node.id, Arc::clone(&listing)));
        Ok(listing)
    }
}

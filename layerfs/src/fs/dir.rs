//! Listing directories.
//!
//! There are no open directories: the kernel was told so, keeps the listings itself, and comes with
//! the place at which it wants to go on.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::Fs;
use super::batch::{At, Batch, Looked, Lookups};
use super::listings::{Kept, Reading};
use crate::node::{Moment, Node};
use crate::stats::Stats;
use crate::union::{Entry, RealDir};
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
        let now = self.reading();
        let stack = self.stack(&node)?;
        let kept = self.listing(&node, &stack, offset, now)?;
        if !self.dots(&node, offset, size, plus, out) {
            return Ok(());
        }
        // A name may be gone since, or lead to something else or to another layer.
        let outdated = kept.read != now;
        if !plus && !outdated {
            for entry in kept.listing.after(offset) {
                if !out.dirent(size, entry.ino, entry.place, kind_byte(entry.kind), entry.name) {
                    break;
                }
            }
            return Ok(());
        }
        // Who wants nothing but names, or is not waited for, gets no help.
        let shared = if plus && !out.behind { size } else { 0 };
        let lookups = self.look_up(&kept, stack, offset, outdated, shared, out);
        let mut at = At::default();
        for (number, mut entry) in kept.listing.after(offset).enumerate() {
            if plus && !out.fits_plus(size, entry.name) {
                break;
            }
            let mut own = Ok(None);
            let (found, helped) = lookups.get(number, &mut at, &mut own);
            if helped {
                Stats::add(&self.stats.helped);
            }
            match found {
                Ok(None) if outdated => continue,
                Ok(Some(found)) if outdated => {
                    entry.kind = FileType::from_raw_mode(found.stat.stx_mode.into());
                    entry.ino = found.ino;
                }
                _ => {}
            }
            if plus {
                self.add_plus(&node, &entry, found, now.moment, out);
            } else if !out.dirent(size, entry.ino, entry.place, kind_byte(entry.kind), entry.name) {
                break;
            }
        }
        Ok(())
    }

    /// Begins to look up the names of a listing after `offset`; others help with those that fit into `size` bytes.
    fn look_up(
        &self,
        kept: &Kept,
        stack: Arc<[Arc<RealDir>]>,
        offset: u64,
        outdated: bool,
        size: usize,
        out: &Out,
    ) -> Arc<Lookups> {
        let mut room = size.saturating_sub(out.as_bytes().len());
        let fits = |entry: &Entry<'_>| {
            let left = room.checked_sub(Out::plus_size(entry.name));
            room = left.unwrap_or(0);
            left.is_some()
        };
        let count = kept.listing.after(offset).take_while(fits).count();
        let listing = Arc::clone(&kept.listing);
        let first = listing.position_after(offset);
        let union = Arc::clone(&self.union);
        self.helpers.begin(Batch { union, stack, listing, first, outdated }, count)
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

    /// Adds a name, with its node and attributes if they are known; there is room for it.
    fn add_plus(
        &self,
        parent: &Arc<Node>,
        listed: &Entry<'_>,
        found: &Looked,
        moment: Moment,
        out: &mut Out,
    ) {
        let entry = match found {
            Ok(Some(found)) => match self.entry(found, parent, listed.name, moment) {
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
    }

    /// The listing of a directory: a new one for a reader that begins, the same for one that goes on.
    fn listing(
        &self,
        node: &Node,
        stack: &[Arc<RealDir>],
        offset: u64,
        now: Reading,
    ) -> Result<Kept, Errno> {
        let before = match self.listings.get(node.id) {
            Some(kept) if offset > 0 => return Ok(kept),
            Some(kept) => Some(Arc::new(kept.listing.places())),
            None => node.state().extra.as_ref().and_then(|extra| extra.places.clone()),
        };
        let listing = Arc::new(self.union.list(stack, before.as_deref())?);
        let kept = Kept { listing, read: now };
        self.keep_listing(node.id, kept.clone());
        Ok(kept)
    }
}

//! How long a request may take, asked before it is carried out.
//!
//! The ring's threads answer what is quick where it arrives; what waits for a disk would delay every
//! other request of the same CPU.

use std::io::IoSliceMut;

use rustix::fs::{FileType, OFlags};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::Fs;
use crate::union::Place;
use crate::wire::{Args, Header, SetAttr, op};

/// What a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A few system calls.
    Quick,
    /// It waits for the disk, without a lock that other requests need.
    Waits,
    /// It copies much data up, and holds the locks of what it copies.
    Copies,
}

/// Less than this is copied about as fast as a request is handed to another thread.
const MUCH: u64 = 256 << 10;

impl Fs {
    /// How long a request may take.
    pub fn effort(&self, header: &Header, mut args: Args<'_>) -> Effort {
        let copies = match header.opcode {
            op::FSYNC | op::FSYNCDIR | op::SYNCFS | op::FALLOCATE | op::COPY_FILE_RANGE => {
                return Effort::Waits;
            }
            op::OPEN | op::SETATTR if self.cuts(header.opcode, args) && self.unsettled() > 0 => {
                return Effort::Waits;
            }
            op::READ if !self.is_at_hand(header, args) => return Effort::Waits,
            op::OPEN => args.u32().is_ok_and(|flags| {
                let flags = OFlags::from_bits_retain(flags);
                let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
                writes && !flags.contains(OFlags::TRUNC) && self.copies(header.node, u64::MAX)
            }),
            op::SETATTR => {
                SetAttr::parse(&mut args).is_ok_and(|set| match set.has(SetAttr::SIZE) {
                    true => self.copies(header.node, set.size),
                    false => !self.options.metacopy && self.copies(header.node, u64::MAX),
                })
            }
            // Metadata alone is little.
            _ if self.options.metacopy => false,
            op::SETXATTR | op::REMOVEXATTR => self.copies(header.node, u64::MAX),
            op::LINK => args.u64().is_ok_and(|node| self.copies(node, u64::MAX)),
            op::RENAME => args.bytes(8).is_ok() && self.moves(header.node, args),
            op::RENAME2 => args.bytes(16).is_ok() && self.moves(header.node, args),
            _ => false,
        };
        if copies { Effort::Copies } else { Effort::Quick }
    }

    /// Whether a request cuts a file, which may have to come to the disk first.
    fn cuts(&self, opcode: u32, mut args: Args<'_>) -> bool {
        match opcode {
            op::OPEN => args.u32().is_ok_and(|flags| flags & OFlags::TRUNC.bits() != 0),
            _ => SetAttr::parse(&mut args).is_ok_and(|set| set.has(SetAttr::SIZE)),
        }
    }

    /// Whether what a read begins with is in memory, so that no disk is waited for.
    fn is_at_hand(&self, header: &Header, mut args: Args<'_>) -> bool {
        let (Ok(_), Ok(offset)) = (args.u64(), args.u64()) else { return true };
        let Ok(node) = self.table.get(header.node) else { return true };
        let Ok(file) = self.file(&node, false) else { return true };
        let mut byte = [0];
        let mut place = [IoSliceMut::new(&mut byte)];
        let found = preadv2(&file, &mut place, offset, ReadWriteFlags::NOWAIT);
        found != Err(Errno::AGAIN)
    }

    /// Whether a change of this node first copies much of it up.
    fn copies(&self, node: u64, wanted: u64) -> bool {
        let Ok(node) = self.table.get(node).map(|node| node.live()) else { return false };
        if node.kind != FileType::RegularFile {
            return false;
        }
        match &node.state().place {
            Place::File { dir, data, .. } if self.union.is_upper(dir) && data.is_none() => {
                return false;
            }
            _ => {}
        }
        self.stat(&node).is_ok_and(|stat| stat.stx_size.min(wanted) >= MUCH)
    }

    /// Whether the first name of a rename is one that is not in the upper layer yet.
    fn moves(&self, parent: u64, mut args: Args<'_>) -> bool {
        let (Ok(name), Ok(parent)) = (args.name(), self.table.get(parent)) else { return false };
        let Ok(stack) = self.stack(&parent) else { return false };
        let Some(upper) = stack.first().filter(|dir| self.union.is_upper(dir)) else { return true };
        let Ok(fd) = self.union.fds.get(upper) else { return false };
        crate::union::stat(&fd, name).is_err()
    }
}

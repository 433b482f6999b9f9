//! Reading and writing what the kernel does not read and write itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{Fs, MAX_WRITE};
use crate::node::Node;
use crate::wire::{Args, Header, Out};

/// `FUSE_WRITE_KILL_SUIDGID`.
const KILL_SUIDGID: u32 = 1 << 2;
/// `FUSE_FSYNC_FDATASYNC`.
const DATA_ONLY: u32 = 1 << 0;

/// A part of a file, all of which is there.
#[derive(Debug)]
pub struct Stretch {
    /// The file.
    pub file: Arc<OwnedFd>,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: usize,
}

impl Fs {
    pub(super) fn op_read(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        args.u64()?;
        let (offset, size) = (args.u64()?, args.u32()?);
        let node = self.table.get(header.node)?;
        let file = self.file(&node, false)?;
        let size = size.min(MAX_WRITE * 2) as usize;
        let buffer = out.buffer();
        buffer.reserve_exact(size);
        // The rest of a longer buffer stays unused: the kernel takes no more than it asked for.
        while buffer.len() < size {
            let at = offset + buffer.len() as u64;
            match rustix::io::pread(&file, spare_capacity(buffer), at) {
                Ok(0) => break,
                Ok(_) => {}
                Err(Errno::INTR) => {}
                Err(error) if buffer.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        buffer.truncate(size);
        Ok(())
    }

    /// Reads into the place that the reply will be taken from.
    pub(super) fn read_into(
        &self,
        header: &Header,
        mut args: Args<'_>,
        place: &mut [u8],
    ) -> Result<usize, Errno> {
        args.u64()?;
        let (offset, size) = (args.u64()?, args.u32()?);
        let node = self.table.get(header.node)?;
        let file = self.file(&node, false)?;
        let size = place.len().min(size as usize);
        let mut done = 0;
        while done < size {
            match rustix::io::pread(&file, &mut place[done..size], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// What a read of at least so many bytes is answered with, if that is a file's data from the first
    /// byte to the last.
    pub fn read_from(&self, header: &Header, mut args: Args<'_>, least: usize) -> Option<Stretch> {
        args.u64().ok()?;
        let (offset, size) = (args.u64().ok()?, args.u32().ok()?);
        if (size as usize) < least {
            return None;
        }
        let node = self.table.get(header.node).ok()?;
        let file = self.file(&node, false).ok()?;
        let end = u64::try_from(rustix::fs::fstat(&file).ok()?.st_size).ok()?;
        let length = usize::try_from(end.checked_sub(offset)?.min(size.into())).ok()?;
        Some(Stretch { file, offset, length })
    }

    pub(super) fn op_write(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        args.u64()?;
        let (offset, size, flags) = (args.u64()?, args.u32()?, args.u32()?);
        args.bytes(16)?;
        let data = args.bytes(size as usize)?;
        let node = self.table.get(header.node)?;
        let file = self.writable_file(&node)?;
        if flags & KILL_SUIDGID != 0 {
            self.kill_set_ids(&node)?;
        }
        let mut written = 0;
        while written < data.len() {
            match rustix::io::pwrite(&file, &data[written..], offset + written as u64) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) if written == 0 => return Err(error),
                Err(_) => break,
            }
        }
        out.u32(u32::try_from(written).unwrap_or(0));
        out.u32(0);
        Ok(())
    }

    pub(super) fn op_fsync(&self, header: &Header, mut args: Args<'_>) -> Result<(), Errno> {
        if !self.union.sync {
            return Err(Errno::NOSYS);
        }
        args.u64()?;
        let flags = args.u32()?;
        let node = self.table.get(header.node)?;
        let file = self.file(&node, false)?;
        match flags & DATA_ONLY {
            0 => rustix::fs::fsync(&file),
            _ => rustix::fs::fdatasync(&file),
        }
    }

    pub(super) fn op_fsyncdir(&self, header: &Header) -> Result<(), Errno> {
        if !self.union.sync {
            return Err(Errno::NOSYS);
        }
        let node = self.table.get(header.node)?;
        let stack = self.stack(&node)?;
        match stack.first().filter(|dir| self.union.is_upper(dir)) {
            Some(dir) => rustix::fs::fsync(crate::union::open_listing(&*self.union.fds.get(dir)?)?),
            None => Ok(()),
        }
    }

    pub(super) fn op_fallocate(&self, header: &Header, mut args: Args<'_>) -> Result<(), Errno> {
        args.u64()?;
        let (offset, length, mode) = (args.u64()?, args.u64()?, args.u32()?);
        let node = self.table.get(header.node)?;
        let file = self.writable_file(&node)?;
        self.writes_as(header, &node)?;
        self.union.settle_data(&file)?;
        rustix::fs::fallocate(&file, FallocateFlags::from_bits_retain(mode), offset, length)
    }

    pub(super) fn op_lseek(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        /// `SEEK_DATA` and `SEEK_HOLE`, the only ones that the kernel asks about.
        const DATA: u32 = 3;
        const HOLE: u32 = 4;
        if self.collects.load(Ordering::Relaxed) {
            // What is written may not be in the file yet, and the kernel does not send it first: told so
            // once, it answers by itself that all is data.
            return Err(Errno::NOSYS);
        }
        args.u64()?;
        let (offset, whence) = (args.u64()?, args.u32()?);
        let node = self.table.get(header.node)?;
        // A position of its own, so that two seeks do not meet.
        let file = self.open_real(&node.state(), false)?;
        let found = match whence {
            DATA => rustix::fs::seek(&file, SeekFrom::Data(offset))?,
            HOLE => rustix::fs::seek(&file, SeekFrom::Hole(offset))?,
            _ => return Err(Errno::INVAL),
        };
        out.u64(found);
        Ok(())
    }

    pub(super) fn op_copy_file_range(
        &self,
        header: &Header,
        mut args: Args<'_>,
        out: &mut Out,
    ) -> Result<(), Errno> {
        args.u64()?;
        let (mut from, target) = (args.u64()?, args.u64()?);
        args.u64()?;
        let (mut to, length) = (args.u64()?, args.u64()?);
        let source = self.file(&*self.table.get(header.node)?, false)?;
        let target: Arc<Node> = self.table.get(target)?;
        let file: Arc<OwnedFd> = self.writable_file(&target)?;
        self.writes_as(header, &target)?;
        self.union.settle_data(&file)?;
        // The count of the reply has 32 bits.
        let length = usize::try_from(length.min(0x7fff_f000)).unwrap_or(usize::MAX);
        let copied =
            rustix::fs::copy_file_range(&source, Some(&mut from), &file, Some(&mut to), length)?;
        out.u32(u32::try_from(copied).unwrap_or(0));
        out.u32(0);
        Ok(())
    }
}

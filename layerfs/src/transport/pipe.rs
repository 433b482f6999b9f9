//! Answering a read over `/dev/fuse` with the pages of the file itself, which no buffer of ours has to hold.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::wire::OUT_HEADER;

/// Below this a read and a write are as fast.
pub(super) const LEAST: usize = 32 << 10;
/// What anybody may make a pipe hold (`/proc/sys/fs/pipe-max-size`): so many pages, of which the header takes one,
/// and data that begins within a page one more.
const ROOM: usize = 1 << 20;
const PAGE: usize = 4 << 10;
pub(super) const MOST: usize = ROOM - 2 * PAGE;

/// A pipe through which replies go, empty between two of them.
#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipe {
    /// A pipe with room for the longest reply; none if there is to be none.
    pub(super) fn new() -> Option<Self> {
        let (out, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).ok()?;
        rustix::pipe::fcntl_setpipe_size(&into, ROOM).ok()?;
        Some(Self { out, into })
    }

    /// Answers with `length` bytes of a file, which must have them.
    ///
    /// # Errors
    /// What the file system and the device say. Nothing was answered then, and the pipe is of no use any more.
    pub(super) fn reply(
        &self,
        device: impl AsFd,
        head: &[u8; OUT_HEADER],
        file: impl AsFd,
        mut offset: u64,
        length: usize,
    ) -> Result<(), Errno> {
        rustix::io::write(&self.into, head)?;
        let mut left = length;
        while left > 0 {
            let flags = SpliceFlags::NONBLOCK;
            match rustix::pipe::splice(&file, Some(&mut offset), &self.into, None, left, flags) {
                Ok(0) => return Err(Errno::IO),
                Ok(moved) => left -= moved,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        let whole = OUT_HEADER + length;
        let flags = SpliceFlags::empty();
        match rustix::pipe::splice(&self.out, None, device, None, whole, flags) {
            Ok(moved) if moved == whole => Ok(()),
            Ok(_) => Err(Errno::IO),
            Err(error) => Err(error),
        }
    }
}

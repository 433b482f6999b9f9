//! Buffers that go round between the threads of one stream.

use std::io::{self, Read};
use std::ops::Deref;

use crossbeam::channel::{Receiver, Sender, TryRecvError, select};

/// The size of a buffer in bytes: it fits the second-level cache, so that what one thread wrote is
/// still warm for the next, and is large enough that handing it over costs nothing beside its work.
pub(crate) const CHUNK: usize = 256 << 10;

/// A bounded number of buffers, made as they are first needed.
pub(crate) struct Pool {
    home: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    unmade: usize,
    stop: Receiver<Never>,
}

/// What a stop channel carries: it says everything by being closed.
#[derive(Debug)]
pub(crate) enum Never {}

impl Pool {
    /// A pool of at most `count` buffers, until the other end of `stop` is dropped.
    pub(crate) fn new(count: usize, stop: Receiver<Never>) -> Self {
        let (home, free) = crossbeam::channel::bounded(count);
        Self { home, free, unmade: count, stop }
    }

    /// Takes a free buffer, waiting for one to come back where all are in use; none once stopped.
    ///
    /// Buffers in a channel that nobody reads any more never come back, so that waiting for one
    /// must end by other means.
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        if matches!(self.stop.try_recv(), Err(TryRecvError::Disconnected)) {
            return None;
        }
        let buffer = match self.free.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.unmade > 0 => {
                self.unmade -= 1;
                vec![0; CHUNK]
            }
            Err(_) => select! {
                recv(self.free) -> buffer => buffer.ok()?,
                recv(self.stop) -> _ => return None,
            },
        };
        Some(Chunk { buffer, len: 0, home: self.home.clone() })
    }
}

/// A buffer with some bytes in it; it goes back to its pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Chunk {
    buffer: Vec<u8>,
    len: usize,
    home: Sender<Vec<u8>>,
}

impl Chunk {
    /// Fills the buffer from a reader, short only at the reader's end; how much there is.
    pub(crate) fn fill(&mut self, reader: &mut impl Read) -> io::Result<usize> {
        self.len = 0;
        while self.len < self.buffer.len() {
            match reader.read(&mut self.buffer[self.len..]) {
                Ok(0) => break,
                Ok(read) => self.len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.len)
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // It fails only if the pool is gone; the buffer then goes too.
        let _ = self.home.try_send(std::mem::take(&mut self.buffer));
    }
}

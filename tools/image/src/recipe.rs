//! Taking down what a layer's tar has besides the contents of files.

use std::io::{self, Read, Write as _};
use std::sync::Arc;

use cow::tar::{Entry, Reader};
use crossbeam::channel::Receiver;

use crate::digested::{Digested, Digesting};
use crate::pool::Chunk;

/// The level of compression: headers repeat themselves, and the import does not wait.
const LEVEL: i32 = 1;
/// The longest recipe, compressed: some millions of files.
const MAX_RECIPE: usize = 64 << 20;

/// Whether a stream takes down the recipe of its tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// No.
    Leave,
    /// Yes.
    TakeDown,
}

/// Digests the uncompressed stream, and takes down its recipe where it is a tar.
pub(crate) fn record(queue: &Receiver<Arc<Chunk>>) -> (Digested, Option<Vec<u8>>) {
    let mut stream = Stream { queue, current: None, position: 0, digest: Digesting::default() };
    let recipe = take_down(&mut stream).ok().flatten();
    // Whatever became of the recipe, the digest is over all of it.
    let _never_fails = io::copy(&mut stream, &mut io::sink());
    (stream.digest.finish(), recipe)
}

fn take_down(stream: &mut Stream<'_>) -> io::Result<Option<Vec<u8>>> {
    let mut packed = zstd::Encoder::new(Vec::new(), LEVEL)?;
    let mut reader = Reader::new(stream).recording();
    let mut entry = Entry::default();
    while reader.next_entry(&mut entry)? {
        packed.write_all(&reader.take_recorded())?;
        if packed.get_ref().len() > MAX_RECIPE {
            return Ok(None);
        }
    }
    reader.drain()?;
    packed.write_all(&reader.take_recorded())?;
    packed.finish().map(Some)
}

/// The buffers of a stream as a reader, digested as they come.
struct Stream<'q> {
    queue: &'q Receiver<Arc<Chunk>>,
    current: Option<Arc<Chunk>>,
    position: usize,
    digest: Digesting,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.as_ref().is_none_or(|chunk| self.position >= chunk.len()) {
            // The old buffer goes back before the next is waited for.
            self.current = None;
            let Ok(chunk) = self.queue.recv() else { return Ok(0) };
            self.digest.update(&chunk);
            (self.current, self.position) = (Some(chunk), 0);
        }
        let rest = self.current.as_ref().map_or(&[][..], |chunk| &chunk[self.position..]);
        let taken = rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&rest[..taken]);
        self.position += taken;
        Ok(taken)
    }
}

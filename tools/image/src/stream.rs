//! A layer's uncompressed tar as a stream, decompressed and digested while it is consumed.
//!
//! ```text
//! pread + blob digest ──> decompress ──┬──> consumer (Read, BufRead)
//!     "layer-read"      "layer-unpack" └──> diffID digest "layer-hash"
//! ```
//!
//! Each arrow is a channel of buffers out of a bounded pool. A buffer of the uncompressed stream is
//! shared by the consumer and the digest and goes back to its pool when both are through with it,
//! so no byte is copied between the stages and a slow consumer holds everything up. At most
//! [`POOL`] + [`POOL_COMPRESSED`] buffers of 256 KiB exist per stream (3 MiB). For a blob
//! that is not compressed the first stage drops out, and the one digest is both.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use cow::digest::{DiffId, Digest};
use crossbeam::channel::{Receiver, Sender};

use crate::codec::Compression;
use crate::digested::{Digested, Digesting};
use crate::error::{Error, Place, Result};
use crate::file::{Extent, ExtentReader};
use crate::pool::{Chunk, Never, Pool};
use crate::recipe::{self, Recipe};

/// Buffers of the uncompressed stream.
const POOL: usize = 8;
/// Buffers of the compressed stream.
const POOL_COMPRESSED: usize = 4;

/// What a layer's bytes must turn out to be; what is not promised is not checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promise {
    pub(crate) blob_digest: Option<Digest>,
    pub(crate) blob_size: Option<u64>,
    pub(crate) diff_id: Option<DiffId>,
}

/// What a layer's bytes turned out to be, all promises kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The digest of the blob as it is stored.
    pub blob_digest: Digest,
    /// The length of the uncompressed tar in bytes.
    pub size: u64,
    /// The length of the blob as it is stored, in bytes.
    pub compressed_size: u64,
}

/// How many bytes of a blob have been read, for whoever wants to watch.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Bytes of the blob, as it is stored, that have been read so far.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

type Piece = Result<Arc<Chunk>>;

/// The uncompressed tar of a layer.
///
/// What [`Read`] hands out is *not yet verified*: a consumer may use it only if it can undo what it
/// did, and must end with [`LayerStream::finish`]. Dropping the stream early stops its threads and
/// waits for them, which takes no longer than one buffer's work.
// The channels come before the threads: they must be closed when those are joined.
#[derive(Debug)]
pub struct LayerStream {
    current: Option<Arc<Chunk>>,
    position: usize,
    pieces: Receiver<Piece>,
    /// Closed in order to stop the threads.
    stop: Sender<Never>,
    ended: bool,
    failed: bool,
    unpack: Joined<()>,
    feed: Option<Joined<Option<Digested>>>,
    hash: Joined<(Digested, Option<Vec<u8>>)>,
    place: Place,
    promise: Promise,
    progress: Progress,
}

impl LayerStream {
    /// Starts the threads.
    pub(crate) fn start(
        extent: &Extent,
        compression: Compression,
        promise: Promise,
    ) -> Result<Self> {
        Self::start_with(extent, compression, promise, Recipe::Leave)
    }

    /// The same, with the recipe taken down or not.
    pub(crate) fn start_with(
        extent: &Extent,
        compression: Compression,
        promise: Promise,
        recipe: Recipe,
    ) -> Result<Self> {
        let place = extent.place();
        let progress = Progress::default();
        let (to_hash, hash_queue) = crossbeam::channel::bounded(POOL);
        let (to_consumer, pieces) = crossbeam::channel::bounded(POOL + 1);
        let (stop, stopped) = crossbeam::channel::bounded(0);
        let hash = Joined::spawn("layer-hash", &place, move || match recipe {
            Recipe::TakeDown => recipe::record(&hash_queue),
            Recipe::Leave => (digest(&hash_queue), None),
        })?;
        let output = Output {
            pool: Pool::new(POOL, stopped.clone()),
            to_hash,
            to_consumer,
            place: place.clone(),
        };
        let source = BlobReader { reader: extent.reader(), progress: progress.clone() };
        let (unpack, feed) = match compression {
            Compression::None => {
                (Joined::spawn("layer-read", &place, move || output.run(source))?, None)
            }
            _ => {
                let (to_unpack, queue) = crossbeam::channel::bounded(POOL_COMPRESSED + 1);
                let input = Input { queue, current: None, position: 0 };
                let unpack =
                    Joined::spawn("layer-unpack", &place, move || match compression.undo(input) {
                        Ok(reader) => output.run(reader),
                        Err(error) => output.fail(error),
                    })?;
                let at = place.clone();
                let pool = Pool::new(POOL_COMPRESSED, stopped);
                let feed = Joined::spawn("layer-read", &place, move || {
                    feed(source, pool, &to_unpack, at)
                })?;
                (unpack, Some(feed))
            }
        };
        Ok(Self {
            current: None,
            position: 0,
            pieces,
            stop,
            ended: false,
            failed: false,
            unpack,
            feed,
            hash,
            place,
            promise,
            progress,
        })
    }

    /// A counter of how much of the blob has been read; it outlives the stream.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Reads what is left and checks the blob's digest and size and the diffID.
    ///
    /// # Errors
    ///
    /// Corrupt, naming file and layer, where the stream is damaged or a promise is broken.
    pub fn finish(self) -> Result<Verified> {
        Ok(self.finish_recorded()?.0)
    }

    /// The same, and the recipe of the tar ([`cow::tar::rebuild`]), compressed with zstd; none unless
    /// the stream was opened for it, and of a tar that no layer could be made of.
    ///
    /// # Errors
    ///
    /// As [`LayerStream::finish`].
    pub fn finish_recorded(mut self) -> Result<(Verified, Option<Vec<u8>>)> {
        while self.advance()? {}
        // All threads have seen the end by now, or a panicked one must not hold up the others.
        let Self { pieces, stop, unpack, feed, hash, place, promise, .. } = self;
        drop((pieces, stop));
        let stopped = || Error::sys("read", place.clone(), io::Error::other("a thread stopped"));
        unpack.join().ok_or_else(stopped)?;
        let (layer, recipe) = hash.join().ok_or_else(stopped)?;
        let blob = match feed {
            Some(feed) => feed.join().flatten().ok_or_else(stopped)?,
            None => layer,
        };
        check(&place, "blob digest", promise.blob_digest, blob.digest)?;
        if promise.blob_size.is_some_and(|size| size != blob.bytes) {
            return Err(Error::corrupt(
                "read",
                place,
                format!("the blob is {} bytes long, not as its descriptor says", blob.bytes),
            ));
        }
        check(&place, "diffID", promise.diff_id.map(|id| *id.digest()), layer.digest)?;
        let verified = Verified {
            diff_id: DiffId::new(layer.digest),
            blob_digest: blob.digest,
            size: layer.bytes,
            compressed_size: blob.bytes,
        };
        Ok((verified, recipe))
    }

    /// Moves to the next buffer; false at the end of the stream.
    fn advance(&mut self) -> Result<bool> {
        self.current = None;
        self.position = 0;
        if self.failed {
            return Err(Error::corrupt("read", self.place.clone(), "reading it failed before"));
        }
        if self.ended {
            return Ok(false);
        }
        match self.pieces.recv() {
            Ok(Ok(chunk)) => {
                self.current = Some(chunk);
                Ok(true)
            }
            Ok(Err(error)) => {
                self.failed = true;
                Err(error)
            }
            Err(_) => {
                self.ended = true;
                Ok(false)
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.current.as_deref().map_or(&[], |chunk| &chunk[self.position..])
    }
}

impl BufRead for LayerStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.rest().is_empty() {
            if !self.advance()? {
                break;
            }
        }
        Ok(self.rest())
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount.min(self.rest().len());
    }
}

impl Read for LayerStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.fill_buf()?;
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.consume(len);
        Ok(len)
    }
}

fn check(at: &Place, what: &'static str, expected: Option<Digest>, found: Digest) -> Result<()> {
    match expected {
        Some(expected) if expected != found => {
            Err(Error::DigestMismatch { at: at.clone(), what, expected, found })
        }
        _ => Ok(()),
    }
}

/// A thread that is waited for when its handle goes.
#[derive(Debug)]
struct Joined<T>(Option<JoinHandle<T>>);

impl<T: Send + 'static> Joined<T> {
    fn spawn(name: &str, at: &Place, work: impl FnOnce() -> T + Send + 'static) -> Result<Self> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::sys("start a thread", at.clone(), error))?;
        Ok(Self(Some(thread)))
    }
}

impl<T> Joined<T> {
    /// The thread's result; none if it panicked.
    fn join(mut self) -> Option<T> {
        self.0.take().and_then(|thread| thread.join().ok())
    }
}

impl<T> Drop for Joined<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread of a layer stream panicked");
        }
    }
}

/// The blob as it is stored.
struct BlobReader {
    reader: ExtentReader,
    progress: Progress,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.progress.add(read);
        Ok(read)
    }
}

/// Reads and digests the compressed blob; none if it failed or nobody listens any more.
fn feed(
    mut source: BlobReader,
    mut pool: Pool,
    to_unpack: &Sender<Result<Chunk>>,
    at: Place,
) -> Option<Digested> {
    let mut digest = Digesting::default();
    loop {
        let mut chunk = pool.take()?;
        match chunk.fill(&mut source) {
            Ok(0) => return Some(digest.finish()),
            Ok(_) => {
                digest.update(&chunk);
                to_unpack.send(Ok(chunk)).ok()?;
            }
            Err(error) => {
                let _ = to_unpack.send(Err(Error::sys("pread", at, error)));
                return None;
            }
        }
    }
}

/// Digests the uncompressed stream.
fn digest(queue: &Receiver<Arc<Chunk>>) -> Digested {
    let mut digest = Digesting::default();
    for chunk in queue {
        digest.update(&chunk);
    }
    digest.finish()
}

/// The far end of [`feed`], as a decompressor wants it.
struct Input {
    queue: Receiver<Result<Chunk>>,
    current: Option<Chunk>,
    position: usize,
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|chunk| self.position >= chunk.len()) {
            // The old buffer goes back before the next is waited for.
            self.current = None;
            self.position = 0;
            self.current = self.queue.recv().ok().transpose()?;
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk[self.position..]))
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.fill_buf()?;
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.consume(len);
        Ok(len)
    }
}

/// Where the uncompressed stream goes.
struct Output {
    pool: Pool,
    to_hash: Sender<Arc<Chunk>>,
    to_consumer: Sender<Piece>,
    place: Place,
}

impl Output {
    /// Passes a reader on until it ends, fails, or nobody listens any more.
    fn run(mut self, mut reader: impl Read) {
        loop {
            let Some(mut chunk) = self.pool.take() else { return };
            match chunk.fill(&mut reader) {
                Ok(0) => return,
                Ok(_) => {
                    let chunk = Arc::new(chunk);
                    if self.to_hash.send(Arc::clone(&chunk)).is_err()
                        || self.to_consumer.send(Ok(chunk)).is_err()
                    {
                        return;
                    }
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    fn fail(self, error: io::Error) {
        // The send fails only if the consumer is gone, who then does not care.
        let _ = self.to_consumer.send(Err(Error::sys("decompress", self.place, error)));
    }
}

#[cfg(test)]
mod tests;

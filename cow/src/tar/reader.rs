//! The streaming reader.

mod fill;

use std::io::{self, Read, Seek};

use super::header::{self, Block};
use super::{BLOCK, Entry, Limits, Segment};
use crate::error::{Error, Result};
use fill::{bad, refused};

/// The size of the buffer, and so of the largest single write of file content: large enough that
/// system calls do not show, small enough to stay in a core's second-level cache.
const BUFFER: usize = 256 << 10;

/// The same for a stream of which mostly headers are wanted.
const SEEKING_BUFFER: usize = 16 << 10;

/// Reads the entries of a tar stream one after another.
///
/// The caller's [`Entry`] is filled by [`Reader::next_entry`]; the content of a file is then taken
/// with [`Reader::content`] or [`Reader::stored`], or passed over by the next call. Memory is bounded
/// by the buffer and the [`Limits`], whatever the stream says.
///
/// Global PAX headers (`g`) are passed over, as the container engines do: layers carry comments in
/// them, and an engine that honoured them would unpack another tree than its peers.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes taken from `inner` so far.
    taken: u64,
    /// Content bytes of the present entry that were not handed out yet.
    remaining: u64,
    /// Zeros that fill the present entry's last block.
    padding: u64,
    limits: Limits,
    entries: u64,
    ended: bool,
    headers: Headers,
    /// How the stream is moved forward without reading it, where it can.
    seek: Option<fn(&mut R, u64) -> io::Result<()>>,
    /// Everything that is taken but contents, where it is wanted.
    recorded: Option<Vec<u8>>,
    /// Whether the stream has no contents: it is what another reader recorded.
    bare: bool,
}

/// The headers that precede an entry and extend it; reused from entry to entry.
#[derive(Debug, Default)]
struct Headers {
    pax: Vec<u8>,
    long_name: Vec<u8>,
    long_link: Vec<u8>,
}

impl Headers {
    fn clear(&mut self) {
        self.pax.clear();
        self.long_name.clear();
        self.long_link.clear();
    }

    fn is_empty(&self) -> bool {
        self.pax.is_empty() && self.long_name.is_empty() && self.long_link.is_empty()
    }
}

impl<R: Read> Reader<R> {
    /// Starts to read a stream, with the bounds that the kernel sets itself.
    pub fn new(inner: R) -> Self {
        Self::with_limits(inner, Limits::default())
    }

    /// Starts to read a stream with bounds of the caller's choice.
    pub fn with_limits(inner: R, limits: Limits) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            taken: 0,
            remaining: 0,
            padding: 0,
            limits,
            entries: 0,
            ended: false,
            headers: Headers::default(),
            seek: None,
            recorded: None,
            bare: false,
        }
    }

    /// Records all bytes but the contents of files, for [`Reader::take_recorded`].
    #[must_use]
    pub fn recording(self) -> Self {
        Self { recorded: Some(Vec::new()), ..self }
    }

    /// Reads what another reader recorded: the stream has no contents, and none can be taken.
    #[must_use]
    pub fn bare(self) -> Self {
        Self { bare: true, ..self }
    }

    /// What was recorded since it was last asked for.
    pub fn take_recorded(&mut self) -> Vec<u8> {
        self.recorded.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Passes over content that nobody takes by a seek, where the stream can.
    ///
    /// Such a stream may end within the last entry's content without an error, but not before a
    /// later entry.
    pub fn seeking(inner: R) -> Self
    where
        R: Seek,
    {
        let seek = |inner: &mut R, bytes| match i64::try_from(bytes) {
            Ok(bytes) => inner.seek_relative(bytes),
            Err(_) => Err(io::ErrorKind::InvalidInput.into()),
        };
        // As much as headers and small files take, not what a file behind them would fill.
        let buffer = vec![0; SEEKING_BUFFER].into_boxed_slice();
        Self { seek: Some(seek), buffer, ..Self::new(inner) }
    }

    /// Reads up to the next entry and fills `entry` with it; `false` at the end of the archive.
    ///
    /// # Errors
    /// `Corrupt` for a malformed or cut-off stream, `InvalidArgument` for one beyond the limits,
    /// `Unsupported` for a type of entry that no layer can hold. After an error the reader is of no
    /// further use.
    pub fn next_entry(&mut self, entry: &mut Entry) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.skip_content()?;
        self.headers.clear();
        loop {
            let Some(block) = self.header()? else {
                self.ended = true;
                return Ok(false);
            };
            let size = header::size(&block[header::SIZE]).ok_or_else(|| bad(&block, "size"))?;
            match block[header::TYPE] {
                b'x' | b'X' => self.extension(size, |headers| &mut headers.pax)?,
                b'L' => self.extension(size, |headers| &mut headers.long_name)?,
                b'K' => self.extension(size, |headers| &mut headers.long_link)?,
                b'g' | b'V' => self.skip_block_data(size)?,
                kind => {
                    self.fill_entry(&block, kind, size, entry)?;
                    self.entries += 1;
                    if self.entries > self.limits.entries {
                        return Err(refused(entry, "archive has too many entries"));
                    }
                    return Ok(true);
                }
            }
        }
    }

    /// Hands the content of the present file to `sink` piece by piece, each with its offset in the
    /// file, straight from the reader's buffer. Holes of a sparse file are left out.
    ///
    /// # Errors
    /// `Corrupt` when the stream ends within the content, and whatever `sink` returns.
    pub fn content(
        &mut self,
        entry: &Entry,
        mut sink: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let whole = [Segment { offset: 0, len: self.remaining }];
        for segment in entry.sparse.as_deref().unwrap_or(&whole) {
            let (mut offset, mut left) = (segment.offset, segment.len);
            while left > 0 {
                let piece = self.piece(left)?;
                let taken = piece.len();
                sink(offset, piece)?;
                self.start += taken;
                self.remaining -= taken as u64;
                offset += taken as u64;
                left -= taken as u64;
            }
        }
        Ok(())
    }

    /// The content of the present entry as it is stored (a sparse file without its holes).
    pub fn stored(&mut self) -> Content<'_, R> {
        Content { reader: self }
    }

    /// Reads what follows the end of the archive, to the end of the stream, and returns the length
    /// of the whole stream: a digest over the stream is then complete.
    pub fn drain(&mut self) -> Result<u64> {
        self.skip_content()?;
        loop {
            if let Some(recorded) = &mut self.recorded {
                recorded.extend_from_slice(&self.buffer[self.start..self.end]);
            }
            (self.start, self.end) = (0, 0);
            if self.fill()? == 0 {
                return Ok(self.taken);
            }
        }
    }

    /// Where in the stream the next unread byte is: before content is taken, where that begins.
    pub fn position(&self) -> u64 {
        self.taken - (self.end - self.start) as u64
    }

    /// The next piece of content, at most `most` bytes and never empty.
    fn piece(&mut self, most: u64) -> Result<&[u8]> {
        if self.start == self.end && self.fill()? == 0 {
            return Err(cut_off());
        }
        let have = self.end - self.start;
        let take = usize::try_from(most).map_or(have, |most| most.min(have));
        Ok(&self.buffer[self.start..self.start + take])
    }

    /// Reads more behind what the buffer holds, which must be less than all of it.
    fn fill(&mut self) -> Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    self.taken += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::sys("read tar", "", error)),
            }
        }
    }

    /// Takes one whole block.
    fn block(&mut self) -> Result<Block> {
        while self.end - self.start < BLOCK {
            if self.buffer.len() - self.start < BLOCK {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            if self.fill()? == 0 {
                return Err(cut_off());
            }
        }
        let mut block = [0; BLOCK];
        block.copy_from_slice(&self.buffer[self.start..self.start + BLOCK]);
        self.start += BLOCK;
        if let Some(recorded) = &mut self.recorded {
            recorded.extend_from_slice(&block);
        }
        Ok(block)
    }

    /// Takes a header block; none at the two blocks of zeros that end an archive.
    fn header(&mut self) -> Result<Option<Block>> {
        let block = self.block()?;
        if is_zero(&block) {
            if !self.headers.is_empty() {
                return Err(corrupt("", "archive ends between a header and its entry"));
            }
            if !is_zero(&self.block()?) {
                return Err(corrupt("", "a single block of zeros within the archive"));
            }
            return Ok(None);
        }
        if !header::sound(&block) {
            return Err(bad(&block, "checksum"));
        }
        Ok(Some(block))
    }

    /// Takes the data of a header that extends the next entry.
    fn extension(&mut self, size: u64, which: fn(&mut Headers) -> &mut Vec<u8>) -> Result<()> {
        if size > self.limits.header {
            return Err(Error::invalid("read tar", "", "an extended header is too large"));
        }
        self.set_data(size);
        which(&mut self.headers).clear();
        while self.remaining > 0 {
            let piece = self.piece(self.remaining)?;
            let taken = piece.len();
            // Borrowed apart: the piece lies in the buffer, the header in its own vector.
            let range = self.start..self.start + taken;
            which(&mut self.headers).extend_from_slice(&self.buffer[range.clone()]);
            if let Some(recorded) = &mut self.recorded {
                recorded.extend_from_slice(&self.buffer[range]);
            }
            self.start += taken;
            self.remaining -= taken as u64;
        }
        self.skip_content()
    }

    /// Passes over the data of a header that says nothing.
    fn skip_block_data(&mut self, size: u64) -> Result<()> {
        self.set_data(size);
        let size = std::mem::take(&mut self.remaining);
        self.pass(size, true)?;
        self.skip_content()
    }

    fn set_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// Passes over what is left of the present entry.
    fn skip_content(&mut self) -> Result<()> {
        let content = std::mem::take(&mut self.remaining);
        if !self.bare {
            self.pass(content, false)?;
        }
        let padding = std::mem::take(&mut self.padding);
        self.pass(padding, true)
    }

    /// Passes over bytes, by a seek where the stream can and they are not wanted.
    fn pass(&mut self, mut left: u64, record: bool) -> Result<()> {
        let buffered = (self.end - self.start) as u64;
        if let Some(seek) = self.seek
            && left > buffered
            && !(record && self.recorded.is_some())
        {
            left -= buffered;
            (self.start, self.end) = (0, 0);
            seek(&mut self.inner, left).map_err(|error| Error::sys("seek tar", "", error))?;
            self.taken = self.taken.saturating_add(left);
            return Ok(());
        }
        while left > 0 {
            let taken = self.piece(left)?.len();
            if record && let Some(recorded) = &mut self.recorded {
                recorded.extend_from_slice(&self.buffer[self.start..self.start + taken]);
            }
            self.start += taken;
            left -= taken as u64;
        }
        Ok(())
    }
}

/// The content of one entry as a stream; what is left unread is passed over.
#[derive(Debug)]
pub struct Content<'a, R> {
    reader: &'a mut Reader<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = self.reader.remaining.min(out.len() as u64);
        if most == 0 {
            return Ok(0);
        }
        let piece = self.reader.piece(most)?;
        let taken = piece.len();
        out[..taken].copy_from_slice(piece);
        self.reader.start += taken;
        self.reader.remaining -= taken as u64;
        Ok(taken)
    }
}

fn is_zero(block: &Block) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn corrupt(path: &str, reason: &'static str) -> Error {
    Error::corrupt("read tar", path, reason)
}

fn cut_off() -> Error {
    corrupt("", "the archive is cut off")
}

#[cfg(test)]
mod tests;

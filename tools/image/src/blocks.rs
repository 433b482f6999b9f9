//! The two ways in which a tar is scanned: in place, and as it comes out of a decompressor.

use std::io::{self, Read};

use crate::error::{Error, Place, Result};
use crate::file::Archive;
use crate::index::Blocks;

/// How much is read at a time; neighbouring headers of small entries then cost one call.
const WINDOW: usize = 4096;

/// Reads an open file at any offset through a small window.
#[derive(Debug)]
pub(crate) struct FileBlocks<'a> {
    archive: &'a Archive,
    window: Vec<u8>,
    start: u64,
}

impl<'a> FileBlocks<'a> {
    pub(crate) fn new(archive: &'a Archive) -> Self {
        Self { archive, window: Vec::new(), start: 0 }
    }
}

impl Blocks for FileBlocks<'_> {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let failed = |error| Error::sys("pread", Place::file(self.archive.path()), error);
        if buffer.len() > WINDOW {
            return self.archive.read_at(buffer, offset).map_err(failed);
        }
        let inside = |start: u64, window: &[u8]| {
            let skip = usize::try_from(offset.checked_sub(start)?).ok()?;
            window.get(skip..skip.checked_add(buffer.len())?).map(|_| skip)
        };
        let skip = match inside(self.start, &self.window) {
            Some(skip) => skip,
            None => {
                self.window.resize(WINDOW, 0);
                let read = self.archive.read_at(&mut self.window, offset).map_err(failed)?;
                self.window.truncate(read);
                self.start = offset;
                0
            }
        };
        let rest = &self.window[skip..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn len(&self) -> Option<u64> {
        Some(self.archive.size())
    }

    fn file(&self) -> Place {
        Place::file(self.archive.path())
    }
}

/// Reads a stream forward, throwing away what is skipped.
#[derive(Debug)]
pub(crate) struct StreamBlocks<R> {
    reader: R,
    position: u64,
    place: Place,
}

impl<R: Read> StreamBlocks<R> {
    pub(crate) fn new(reader: R, place: Place) -> Self {
        Self { reader, position: 0, place }
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::sys("decompress", self.place.clone(), error)
    }
}

impl<R: Read> Blocks for StreamBlocks<R> {
    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let skip = offset.saturating_sub(self.position);
        let skipped = io::copy(&mut self.reader.by_ref().take(skip), &mut io::sink());
        self.position += skipped.map_err(|error| self.failed(error))?;
        if self.position < offset {
            return Ok(0);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    fn len(&self) -> Option<u64> {
        None
    }

    fn file(&self) -> Place {
        self.place.clone()
    }
}
